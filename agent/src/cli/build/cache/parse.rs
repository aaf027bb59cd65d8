//! `--cache-from` and `--cache-to` read, as buildx takes them.

use std::path::PathBuf;

use roadstead_builder::layer::compression::Compression;
use roadstead_builder::solve::CacheMode;
use roadstead_registry_client::{Reference, Secret, without_login};

use super::super::output::Fields;

const FROM: &str = "cache source";
const TO: &str = "cache target";

/// Keys that belong to some type of source or target.
const KEYS: &[&str] = &[
    "type",
    "ref",
    "src",
    "dest",
    "tag",
    "digest",
    "mode",
    "mounts",
    "ignore-error",
    "image-manifest",
    "oci-mediatypes",
    "compression",
    "compression-level",
    "force-compression",
    "bucket",
    "region",
    "name",
    "prefix",
    "blobs_prefix",
    "manifests_prefix",
    "endpoint_url",
    "use_path_style",
    "access_key_id",
    "secret_access_key",
    "session_token",
];
/// The name of a cache that is given none.
const TAG: &str = "latest";
const NAME: &str = "roadstead";

/// Where a cache lies.
#[derive(Debug, Clone)]
pub(in super::super) enum Place {
    /// Under a name in a registry: a cache manifest, or an image with a cache in it.
    Registry(Reference),
    /// In an OCI layout, under a tag.
    Local { directory: PathBuf, tag: String },
    /// In a bucket.
    S3(Bucket),
    /// In the image itself.
    Inline,
}

/// Where in Amazon S3.
#[derive(Debug, Clone)]
pub(in super::super) struct Bucket {
    pub(super) bucket: String,
    /// A cache may have several names, which change with every build but not at once.
    pub(super) names: Vec<String>,
    /// What the objects' keys begin with.
    pub(super) blobs: String,
    pub(super) manifests: String,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) keys: Option<(String, Secret, Option<Secret>)>,
}

/// `--cache-from`.
#[derive(Debug, Clone)]
pub(in super::super) struct Source {
    pub(super) place: Place,
    /// Whether empty cache mounts are filled from it. They stay so when the build is over, which is why it must be asked for.
    pub(super) mounts: bool,
}

/// `--cache-to`.
#[derive(Debug, Clone)]
pub(in super::super) struct Target {
    pub(in super::super) place: Place,
    pub(in super::super) mode: CacheMode,
    pub(super) compression: Option<Compression>,
    pub(super) mounts: bool,
    /// Whether the build goes on when the cache cannot be written.
    pub(super) ignore_error: bool,
}

impl Source {
    /// Reads `--cache-from`: a name in a registry, or `type=registry|local|s3` with keys.
    pub(in super::super) fn parse(text: &str) -> Result<Self, String> {
        if !text.contains('=') {
            return Ok(Self {
                place: Place::Registry(reference(text)?),
                mounts: false,
            });
        }
        let mut fields = Fields::read(FROM, KEYS, text)?;
        let kind = kind(&mut fields)?;
        let place = match kind.as_str() {
            "registry" => registry(&mut fields)?,
            "local" => directory(&mut fields, &kind)?,
            "s3" => Place::S3(bucket(&mut fields)?),
            "inline" => {
                return Err(fields.wrong("an inline cache is read by the image's name: type=registry,ref=NAME"));
            }
            other => return Err(no_type(&fields, other, "registry, local or s3")),
        };
        let mounts = fields.take_bool("mounts")?.unwrap_or(false);
        fields.finish(&kind)?;
        Ok(Self { place, mounts })
    }
}

impl Target {
    /// Reads `--cache-to`: a name in a registry, or `type=registry|local|inline|s3` with keys.
    pub(in super::super) fn parse(text: &str) -> Result<Self, String> {
        if !text.contains('=') {
            return Ok(Self::plain(Place::Registry(reference(text)?)));
        }
        let mut fields = Fields::read(TO, KEYS, text)?;
        let kind = kind(&mut fields)?;
        let place = match kind.as_str() {
            "inline" => Place::Inline,
            "registry" => registry(&mut fields)?,
            "local" => Place::Local {
                directory: needed(&mut fields, "dest", &kind)?.into(),
                tag: fields.take("tag").unwrap_or_else(|| TAG.to_owned()),
            },
            "s3" => Place::S3(bucket(&mut fields)?),
            other => return Err(no_type(&fields, other, "registry, local, inline or s3")),
        };
        let mut target = Self::plain(place);
        if let Place::Inline = target.place {
            match fields.take("mode").as_deref() {
                None | Some("min") => {}
                Some(_) => return Err(fields.wrong("an inline cache holds the image's own layers: mode=min")),
            }
        } else {
            target.options(&mut fields)?;
        }
        fields.finish(&kind)?;
        Ok(target)
    }

    fn plain(place: Place) -> Self {
        Self {
            place,
            mode: CacheMode::Min,
            compression: None,
            mounts: false,
            ignore_error: false,
        }
    }

    fn options(&mut self, fields: &mut Fields) -> Result<(), String> {
        self.mode = match fields.take("mode").as_deref() {
            None | Some("min") => CacheMode::Min,
            Some("max") => CacheMode::Max,
            Some(other) => return Err(fields.wrong(format!("there is no mode `{other}`: it is min or max"))),
        };
        self.mounts = fields.take_bool("mounts")?.unwrap_or(false);
        self.ignore_error = fields.take_bool("ignore-error")?.unwrap_or(false);
        for key in ["image-manifest", "oci-mediatypes"] {
            if fields.take_bool(key)? == Some(false) {
                return Err(fields.wrong(format!("cannot honour `{key}=false`: a cache is an OCI image manifest")));
            }
        }
        if fields.take_bool("force-compression")? == Some(true) {
            return Err(
                fields.wrong("cannot honour `force-compression=true`: layers that lie elsewhere stay as they are")
            );
        }
        let (name, level) = (fields.take("compression"), fields.take("compression-level"));
        if name.is_some() || level.is_some() {
            let compression = Compression::parse(name.as_deref(), level.as_deref());
            self.compression = Some(compression.map_err(|e| fields.wrong(e))?);
        }
        Ok(())
    }
}

fn kind(fields: &mut Fields) -> Result<String, String> {
    fields.take("type").ok_or_else(|| fields.wrong("it has no type"))
}

fn no_type(fields: &Fields, kind: &str, known: &str) -> String {
    match kind {
        "gha" | "azblob" => fields.wrong(format!("cannot honour type=`{kind}`: it is {known}")),
        _ => fields.wrong(format!("there is no type `{kind}`: it is {known}")),
    }
}

fn needed(fields: &mut Fields, key: &str, kind: &str) -> Result<String, String> {
    let value = fields.take(key).filter(|value| !value.is_empty());
    value.ok_or_else(|| fields.wrong(format!("type={kind} needs `{key}`")))
}

fn reference(text: &str) -> Result<Reference, String> {
    text.parse()
        .map_err(|e| format!("invalid name `{}` of a cache: {e}", without_login(text)))
}

fn registry(fields: &mut Fields) -> Result<Place, String> {
    let text = needed(fields, "ref", "registry")?;
    let name = text
        .parse()
        .map_err(|e| fields.wrong(format!("invalid name `{}`: {e}", without_login(&text))))?;
    Ok(Place::Registry(name))
}

/// A directory to read from.
fn directory(fields: &mut Fields, kind: &str) -> Result<Place, String> {
    let directory = needed(fields, "src", kind)?.into();
    if fields.take("digest").is_some() {
        return Err(fields.wrong("cannot honour `digest`: a cache in a directory is found by its tag"));
    }
    let tag = fields.take("tag").unwrap_or_else(|| TAG.to_owned());
    Ok(Place::Local { directory, tag })
}

fn bucket(fields: &mut Fields) -> Result<Bucket, String> {
    let bucket = needed(fields, "bucket", "s3")?;
    let prefix = fields.take("prefix").unwrap_or_default();
    let mut below = |key: &str, usual: &str| {
        let part = fields.take(key).unwrap_or_else(|| usual.to_owned());
        format!("{prefix}{part}")
    };
    let (blobs, manifests) = (below("blobs_prefix", "blobs/"), below("manifests_prefix", "manifests/"));
    let name = fields.take("name").unwrap_or_else(|| NAME.to_owned());
    let names: Vec<String> = name
        .split(';')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        return Err(fields.wrong("`name` is empty"));
    }
    let endpoint = fields.take("endpoint_url");
    match (fields.take_bool("use_path_style")?, &endpoint) {
        (Some(true), None) => {
            return Err(fields.wrong("cannot honour `use_path_style=true` without `endpoint_url`"));
        }
        (Some(false), Some(_)) => {
            return Err(fields.wrong("cannot honour `use_path_style=false` with `endpoint_url`"));
        }
        _ => {}
    }
    let mut secret = |key: &str| fields.take(key).map(Secret::new);
    let (key, secret_key, token) = (
        secret("access_key_id"),
        secret("secret_access_key"),
        secret("session_token"),
    );
    let keys = match (key, secret_key) {
        (Some(key), Some(secret_key)) => Some((key.expose().to_owned(), secret_key, token)),
        (None, None) => None,
        _ => return Err("a cache on S3 needs both `access_key_id` and `secret_access_key`, or neither".to_owned()),
    };
    Ok(Bucket {
        bucket,
        names,
        blobs,
        manifests,
        region: fields.take("region"),
        endpoint,
        keys,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_modes() {
        let short = Source::parse("app:cache").unwrap();
        assert!(matches!(short.place, Place::Registry(name) if name.to_string() == "docker.io/library/app:cache"));
        let local = Source::parse("type=local,src=c,tag=v2").unwrap();
        assert!(matches!(local.place, Place::Local { tag, .. } if tag == "v2"));
        let s3 = Target::parse("type=s3,bucket=b,prefix=x/,name=a;b,mode=max,mounts=true,region=eu").unwrap();
        let Place::S3(bucket) = &s3.place else { panic!("{s3:?}") };
        assert_eq!((bucket.blobs.as_str(), bucket.names.len()), ("x/blobs/", 2));
        assert!(s3.mode == CacheMode::Max && s3.mounts);
        let inline = Target::parse("type=inline").unwrap();
        assert!(matches!(inline.place, Place::Inline));
    }

    #[test]
    fn what_cannot_be_honoured_is_an_error() {
        for (text, want) in [
            ("type=inline,mode=max", "mode=min"),
            ("type=gha", "cannot honour"),
            ("type=registry", "needs `ref`"),
            ("type=registry,ref=a,image-manifest=false", "image manifest"),
            ("type=registry,ref=a,mode=most", "min or max"),
            ("type=registry,ref=a,mod=max", "did you mean `mode`?"),
            ("type=local,dest=d,bucket=b", "type=local has no such key"),
            ("type=s3,bucket=b,access_key_id=a", "or neither"),
            ("ref=a", "no type"),
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
        assert!(Source::parse("type=inline").unwrap_err().contains("type=registry"));
    }

    #[test]
    fn mounts_are_taken_only_when_asked_for() {
        assert!(!Source::parse("app:cache").unwrap().mounts);
        for place in ["type=registry,ref=app:cache", "type=local,src=c", "type=s3,bucket=b"] {
            let mounts = |more: &str| Source::parse(&format!("{place}{more}")).map(|from| from.mounts);
            assert_eq!(mounts(""), Ok(false), "{place}");
            assert_eq!(mounts(",mounts=false"), Ok(false), "{place}");
            assert_eq!(mounts(",mounts=true"), Ok(true), "{place}");
            mounts(",mounts=some").unwrap_err();
        }
    }

    #[test]
    fn no_message_shows_a_key() {
        for text in [
            "type=s3,bucket=b,access_key_id=AKIA,secret_access_key=hush,regoin=x",
            "type=registry,ref=x/y,secret_access_key=hush",
            "type=s3,bucket=b,SECRET_ACCESS_KEY=hush,foo",
            "type=s3,bucket=b,secret_acces_key=hush",
            "https://user:hush@host/x",
            "user:hush@host/x",
            "type=registry,ref=user:hush@host/x",
            "type=s3,bucket=b,regoin=x,endpoint_url=https://user:hush@host",
        ] {
            for error in [Source::parse(text).unwrap_err(), Target::parse(text).unwrap_err()] {
                assert!(!error.contains("hush"), "{text}: {error}");
            }
        }
    }
}
