//! `--output` read: docker's short forms, and the long one with its keys.

use std::path::{Path, PathBuf};

use roadstead_builder::image::form::Form;
use roadstead_builder::layer::compression::Compression;
use roadstead_registry_client::{Reference, without_login};

use super::fields::{Fields, KEYS};
use super::{Defaults, ImageOutput, Output, annotation};

impl Output {
    /// Reads docker's short and long forms.
    pub(in super::super) fn parse(text: &str, defaults: &Defaults) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Tar {
                destination: None,
                split: None,
            });
        }
        if !text.contains('=') {
            return Ok(Self::Local {
                destination: PathBuf::from(text),
                split: None,
                delete: false,
            });
        }
        let mut fields = Fields::read("output", KEYS, text)?;
        let kind = fields.take("type").ok_or_else(|| fields.wrong("it has no type"))?;
        let destination = fields.take("dest").map(PathBuf::from);
        let file = destination.clone().filter(|path| path != Path::new("-"));
        let output = match (kind.as_str(), destination) {
            ("local", None) => return Err(fields.wrong("it needs dest=DIRECTORY")),
            ("local", Some(destination)) => Self::Local {
                destination,
                split: fields.take_bool("platform-split")?,
                delete: delete_mode(&mut fields)?,
            },
            ("tar", _) => Self::Tar {
                destination: file,
                split: fields.take_bool("platform-split")?,
            },
            ("docker", None) | ("image" | "registry", None) => Self::image(&kind, &mut fields, defaults)?,
            ("oci" | "docker", _) => Self::archive(kind == "docker", file, &mut fields, defaults)?,
            ("image" | "registry", Some(_)) => return Err(fields.wrong(format!("type={kind} has no key `dest`"))),
            _ => {
                return Err(fields.wrong(format!(
                    "there is no type `{kind}`: it is local, tar, oci, docker, image or registry"
                )));
            }
        };
        fields.finish(&kind)?;
        Ok(output)
    }

    fn image(kind: &str, fields: &mut Fields, defaults: &Defaults) -> Result<Self, String> {
        let push = match kind {
            "image" => fields.take_bool("push")?.unwrap_or(false),
            kind => kind == "registry",
        };
        if kind == "docker" {
            only_tar(fields)?;
        }
        let image = ImageOutput {
            names: names(fields)?,
            push,
            by_digest: fields.take_bool("push-by-digest")?.unwrap_or(false),
            canonical: fields.take_bool("name-canonical")?.unwrap_or(false),
            store: fields.take_bool("store")?.unwrap_or(true),
            unpack: fields.take_bool("unpack")?.unwrap_or(false),
            form: form(fields, defaults)?,
        };
        Ok(Self::Image(image))
    }

    fn archive(
        docker: bool,
        destination: Option<PathBuf>,
        fields: &mut Fields,
        defaults: &Defaults,
    ) -> Result<Self, String> {
        let tar = match docker {
            true => only_tar(fields)?,
            false => fields.take_bool("tar")?.unwrap_or(true),
        };
        if !tar && destination.is_none() {
            return Err(fields.wrong("`tar=false` needs dest=DIRECTORY"));
        }
        Ok(Self::Archive {
            destination,
            docker,
            tar,
            names: names(fields)?,
            form: form(fields, defaults)?,
        })
    }
}

/// Takes the names of an image: several are separated by commas.
fn names(fields: &mut Fields) -> Result<Vec<Reference>, String> {
    let text = fields.take("name").unwrap_or_default();
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let parse = |name: &str| {
        name.parse()
            .map_err(|e| fields.wrong(format!("invalid name `{}`: {e}", without_login(name))))
    };
    names.map(parse).collect()
}

/// Takes the keys that say how an image is written.
fn form(fields: &mut Fields, defaults: &Defaults) -> Result<Form, String> {
    let (compression, level) = (fields.take("compression"), fields.take("compression-level"));
    // A level belongs to the compression it was given with.
    let default_level = defaults.level.clone().filter(|_| compression.is_none());
    let compression = compression.or_else(|| defaults.compression.clone());
    let level = level.or(default_level);
    let compression = Compression::parse(compression.as_deref(), level.as_deref()).map_err(|e| fields.wrong(e))?;
    if fields.take_bool("rewrite-timestamp")? == Some(false) {
        return Err(fields.wrong(
            "cannot honour `rewrite-timestamp=false`: times are bounded while layers are made, so that equal inputs give equal images",
        ));
    }
    // The build information that BuildKit once wrote; there is none here.
    if fields.take_bool("buildinfo")? == Some(true) {
        return Err(fields.wrong("cannot honour `buildinfo=true`"));
    }
    let mut annotations = defaults.annotations.clone();
    for (name, value) in fields.take_all("annotation") {
        annotations
            .0
            .push(annotation::key(&name, &value).map_err(|e| fields.wrong(e))?);
    }
    Ok(Form {
        compression,
        force_compression: fields.take_bool("force-compression")?.unwrap_or(false),
        docker_types: fields.take_bool("oci-mediatypes")? == Some(false),
        annotations,
    })
}

/// What docker loads is a tar.
fn only_tar(fields: &mut Fields) -> Result<bool, String> {
    match fields.take_bool("tar")? {
        Some(false) => Err(fields.wrong("cannot honour `tar=false`: what `docker load` reads is a tar; use type=oci")),
        _ => Ok(true),
    }
}

fn delete_mode(fields: &mut Fields) -> Result<bool, String> {
    match fields.take("mode").as_deref() {
        None | Some("copy") => Ok(false),
        Some("delete") => Ok(true),
        Some(other) => Err(fields.wrong(format!("there is no `mode={other}`: it is copy or delete"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Output, String> {
        Output::parse(text, &Defaults::default())
    }

    fn form_of(text: &str) -> Form {
        parse(text).unwrap().form().unwrap().clone()
    }

    #[test]
    fn reads_docker_s_forms() {
        let local = |delete| Output::Local {
            destination: "d".into(),
            split: None,
            delete,
        };
        let archive = |destination: Option<&str>, docker, tar| Output::Archive {
            destination: destination.map(PathBuf::from),
            docker,
            tar,
            names: Vec::new(),
            form: Form::default(),
        };
        for (text, want) in [
            ("d", local(false)),
            (
                "-",
                Output::Tar {
                    destination: None,
                    split: None,
                },
            ),
            ("type=local,dest=d", local(false)),
            ("type=local,dest=d,mode=delete", local(true)),
            (
                "type=tar,dest=x.tar,platform-split=false",
                Output::Tar {
                    destination: Some("x.tar".into()),
                    split: Some(false),
                },
            ),
            ("type=oci,dest=x.tar", archive(Some("x.tar"), false, true)),
            ("type=oci,dest=x,tar=false", archive(Some("x"), false, false)),
            ("type=docker,dest=-", archive(None, true, true)),
            ("type=docker", Output::plain(Form::default(), false)),
            ("type=registry", Output::plain(Form::default(), true)),
            ("TYPE=image,push=true", Output::plain(Form::default(), true)),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn reads_the_keys_of_images() {
        let Ok(Output::Image(image)) =
            parse("type=image,\"name=a:1, b:2\",push=true,name-canonical=true,store=false,unpack=1")
        else {
            panic!("no image");
        };
        let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["a:1", "b:2"]);
        assert!(image.push && image.canonical && !image.store && image.unpack && !image.by_digest);
        let form = form_of(
            "type=oci,dest=x,compression=zstd,compression-level=9,force-compression=true,annotation.a.b=c,annotation-index.d=e",
        );
        assert_eq!(form.compression, Compression::Zstd(9));
        assert!(form.force_compression && !form.docker_types);
        assert_eq!(form.annotations.0.len(), 2);
        assert!(form_of("type=image,oci-mediatypes=false,rewrite-timestamp=true,buildinfo=false").docker_types);
    }

    #[test]
    fn the_command_line_s_compression_is_the_default() {
        let defaults = Defaults::new(Some(&"zstd".to_owned()), Some(&"7".to_owned()), &["a=b".to_owned()]).unwrap();
        let of = |text| Output::parse(text, &defaults).unwrap().form().unwrap().clone();
        assert_eq!(of("type=image").compression, Compression::Zstd(7));
        assert_eq!(of("type=image,compression=gzip").compression, Compression::default());
        assert_eq!(of("type=image,compression-level=2").compression, Compression::Zstd(2));
        assert_eq!(of("type=image").annotations.0.len(), 1);
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (text, want) in [
            ("type=local", "dest"),
            ("type=what", "`what`"),
            ("dest=a", "no type"),
            ("type=tar,x", "no value"),
            ("type=tar,compression=zstd", "type=tar has no such key"),
            ("type=image,compresson=zstd", "did you mean `compression`?"),
            ("type=image,compression=estargz", "estargz"),
            ("type=image,dest=x", "dest"),
            ("type=image,compatibility-version=20", "compatibility-version"),
            ("type=image,rewrite-timestamp=false", "rewrite-timestamp=false"),
            ("type=docker,tar=false", "tar=false"),
            ("type=docker,dest=x,tar=false", "tar=false"),
            ("type=oci,tar=false", "dest=DIRECTORY"),
            ("type=local,dest=d,mode=move", "mode=move"),
            ("type=image,name=UPPER", "invalid name"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
        let amd64 = ["linux/amd64".parse().unwrap()];
        let check = |text: &str, is_index| parse(text).unwrap().check(&amd64, is_index, "/nowhere").unwrap_err();
        assert!(check("type=docker,dest=x", true).contains("manifest lists"));
        assert!(check("type=registry,name=a:1,push-by-digest=true", false).contains("by digest"));
        assert!(check("type=local,dest=/,mode=delete", false).contains("mode=delete"));
        assert!(check("type=image,annotation-index.a=b", false).contains("no index"));
    }
}
