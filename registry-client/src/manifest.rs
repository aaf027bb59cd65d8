//! Manifests, indexes and descriptors of OCI images and of docker's schema 2.
//!
//! The structures are our own, over sorted maps: crates that keep annotations in a hash map give other bytes, so another
//! digest, at each run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::platform::Platform;

/// Largest manifest or index taken, in bytes: what the distribution specification tells registries to accept.
pub const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;

/// Names of the media types met in registries.
pub mod media_type {
    /// Image manifest of OCI.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// Image index of OCI.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// Image configuration of OCI.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// Layer of OCI, an uncompressed tar.
    pub const OCI_LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Layer of OCI, tar with gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// Layer of OCI, tar with zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// The empty JSON object, configuration of artifacts.
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// Image manifest of docker, version 2 schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Manifest list of docker.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Image configuration of docker.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Layer of docker, tar with gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Layer of docker, an uncompressed tar.
    pub const DOCKER_LAYER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Layer of docker that may not be redistributed.
    pub const DOCKER_LAYER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

    /// Tells whether the type is an index of OCI or a manifest list of docker.
    #[must_use]
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, OCI_INDEX | DOCKER_LIST)
    }

    /// Tells whether the type is an image manifest of OCI or docker.
    #[must_use]
    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
    }

    /// Tells whether the type is an image configuration of OCI or docker.
    #[must_use]
    pub fn is_config(media_type: &str) -> bool {
        matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
    }

    /// Tells whether a layer of this type is fetched from its vendor and never pushed.
    #[must_use]
    pub fn is_foreign_layer(media_type: &str) -> bool {
        media_type == DOCKER_LAYER_FOREIGN
            || media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
    }
}

/// Points to content: type, digest and size in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content.
    #[serde(default)]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes; at most 2^63 - 1, as the specification has it.
    #[serde(deserialize_with = "signed_size")]
    pub size: u64,
    /// Further places to fetch from; used by layers that may not be redistributed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free annotations, sorted.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Platform of the image, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Type of the artifact, when it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// Makes a descriptor without annotations.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
        }
    }

    /// Describes bytes.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}

/// Lists the configuration and the layers of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of this manifest; required by docker, recommended by OCI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Type of the artifact, when it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Image configuration.
    pub config: Descriptor,
    /// Layers, the lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// Manifest this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations, sorted.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// Lists the manifests of one image for several platforms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of this index; required by docker, recommended by OCI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Type of the artifact, when it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Manifests, the preferred first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// Manifest this index is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations, sorted.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Parses a manifest.
    ///
    /// # Errors
    /// `InvalidDocument` when the bytes are larger than 4 MiB, are not JSON of this shape, or say they are an index.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let manifest: Self = parse("image manifest", bytes)?;
        check_header(
            "image manifest",
            manifest.schema_version,
            manifest.media_type.as_deref(),
            media_type::is_manifest,
        )?;
        Ok(manifest)
    }

    /// Writes compact JSON whose bytes depend on the values alone.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

impl Index {
    /// Parses an index or a manifest list.
    ///
    /// # Errors
    /// `InvalidDocument` when the bytes are larger than 4 MiB, are not JSON of this shape, or say they are a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let index: Self = parse("image index", bytes)?;
        check_header(
            "image index",
            index.schema_version,
            index.media_type.as_deref(),
            media_type::is_index,
        )?;
        Ok(index)
    }

    /// Writes compact JSON whose bytes depend on the values alone.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

/// Finds out what a document is when nothing but its bytes says so.
///
/// The field `mediaType` decides, then `declared` (the registry's Content-Type), then the shape.
pub(crate) fn detect_media_type(bytes: &[u8], declared: Option<&str>) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Header {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
        schema_version: Option<u64>,
    }
    let header: Header = parse("manifest", bytes)?;
    if header.schema_version == Some(1) {
        return Err(invalid(
            "manifest",
            "docker's schema 1 was given up by all registries and is not supported",
        ));
    }
    // Readers differ in what they take such a document for (CVE-2021-41190).
    if header.manifests.is_some() && (header.config.is_some() || header.layers.is_some()) {
        return Err(invalid("manifest", "it is an image manifest and an index at once"));
    }
    let known = |text: &str| media_type::is_index(text) || media_type::is_manifest(text);
    let declared = declared.map(|text| text.split(';').next().unwrap_or_default().trim());
    match (header.media_type, declared) {
        (Some(inner), _) if known(&inner) => Ok(inner),
        (None, Some(outer)) if known(outer) => Ok(outer.to_owned()),
        (None, _) if header.manifests.is_some() => Ok(media_type::OCI_INDEX.to_owned()),
        (None, _) if header.config.is_some() => Ok(media_type::OCI_MANIFEST.to_owned()),
        (Some(other), _) => Err(invalid(
            "manifest",
            &format!("media type `{}` is not an image", crate::digest::shorten(&other)),
        )),
        (None, _) => Err(invalid("manifest", "it is neither an image manifest nor an index")),
    }
}

fn parse<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T> {
    if bytes.len() as u64 > MANIFEST_LIMIT {
        return Err(invalid(what, "it is larger than 4 MiB"));
    }
    serde_json::from_slice(bytes).map_err(|error| invalid(what, &error.to_string()))
}

pub(crate) fn invalid(what: &'static str, reason: &str) -> RegistryError {
    RegistryError::InvalidDocument {
        what,
        reason: reason.to_owned(),
    }
}

fn check_header(what: &'static str, version: u32, media_type: Option<&str>, right: fn(&str) -> bool) -> Result<()> {
    if version != 2 {
        return Err(invalid(what, &format!("schemaVersion is {version}, not 2")));
    }
    match media_type {
        Some(other) if !right(other) => Err(invalid(
            what,
            &format!("mediaType is `{}`", crate::digest::shorten(other)),
        )),
        _ => Ok(()),
    }
}

fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings, numbers and maps with string keys always serialise")
}

/// Sizes are signed numbers elsewhere, and are added up here.
fn signed_size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<u64, D::Error> {
    let size = u64::deserialize(deserializer)?;
    match i64::try_from(size) {
        Ok(_) => Ok(size),
        Err(_) => Err(serde::de::Error::custom("a size is too large")),
    }
}

/// Go writes an empty list or map as `null`.
fn null_as_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::of(media_type::OCI_CONFIG, b"{}"),
            layers: vec![Descriptor::of(media_type::OCI_LAYER_GZIP, b"layer")],
            subject: None,
            annotations: ["c", "a", "b"].map(|key| (key.to_owned(), key.to_owned())).into(),
        }
    }

    #[test]
    fn bytes_are_compact_sorted_and_stable() {
        let bytes = example().to_bytes();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(
            text.starts_with(
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"#
            )
        );
        assert!(text.ends_with(r#""annotations":{"a":"a","b":"b","c":"c"}}"#), "{text}");
        assert_eq!(Manifest::parse(&bytes).unwrap(), example());
        assert_eq!(Manifest::parse(&bytes).unwrap().to_bytes(), bytes);
    }

    #[test]
    fn a_manifest_is_no_index_and_the_other_way_round() {
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests: vec![Descriptor::of(media_type::OCI_MANIFEST, b"x")],
            subject: None,
            annotations: BTreeMap::new(),
        };
        assert_eq!(Index::parse(&index.to_bytes()).unwrap(), index);
        Manifest::parse(&index.to_bytes()).unwrap_err();
        Index::parse(&example().to_bytes()).unwrap_err();
        assert_eq!(
            detect_media_type(&index.to_bytes(), None).unwrap(),
            media_type::OCI_INDEX
        );
    }

    #[test]
    fn the_type_comes_from_the_field_then_the_header_then_the_shape() {
        let mut manifest = example();
        manifest.media_type = None;
        let bare = manifest.to_bytes();
        let docker = Some("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8");
        assert_eq!(
            detect_media_type(&example().to_bytes(), docker).unwrap(),
            media_type::OCI_MANIFEST
        );
        assert_eq!(detect_media_type(&bare, docker).unwrap(), media_type::DOCKER_MANIFEST);
        assert_eq!(
            detect_media_type(&bare, Some("text/plain")).unwrap(),
            media_type::OCI_MANIFEST
        );
        detect_media_type(br#"{"schemaVersion":1}"#, None).unwrap_err();
        detect_media_type(b"{}", None).unwrap_err();
        detect_media_type(br#"{"mediaType":"text/x"}"#, None).unwrap_err();
    }

    #[test]
    fn null_lists_are_empty_and_negative_sizes_are_refused() {
        let text = String::from_utf8(example().to_bytes()).unwrap();
        let config = text
            .split(r#""config":"#)
            .nth(1)
            .unwrap()
            .split(r#","layers""#)
            .next()
            .unwrap();
        let nulls = format!(r#"{{"schemaVersion":2,"config":{config},"layers":null,"annotations":null}}"#);
        assert!(Manifest::parse(nulls.as_bytes()).unwrap().layers.is_empty());
        let negative = nulls.replace(r#""size":2"#, r#""size":-2"#);
        assert_ne!(negative, nulls);
        Manifest::parse(negative.as_bytes()).unwrap_err();
        Manifest::parse(&vec![b' '; 5 * 1024 * 1024]).unwrap_err();
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop((Manifest::parse(&bytes), Index::parse(&bytes), detect_media_type(&bytes, None)));
        }
    }
}
