//! The document that carries a cache between machines: which step gave which layer, and what the cache mounts held.
//!
//! It is the config of an image manifest whose layers are the blobs it speaks of. Registries take that as an image, Amazon ECR too,
//! and since a manifest of the repository refers to each blob, they can be mounted from there.

use crate::layer::write::StepLayer;
use roadstead_registry_client::{Descriptor, Digest, Error, Manifest, Result, Store, media_type};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Media type of the config of a cache manifest.
pub const CONFIG_TYPE: &str = "application/vnd.roadstead.cache.config.v1+json";
/// The field of an image's config that holds the document of an inline cache.
pub const INLINE_FIELD: &str = "roadstead.cache.v1";
/// Largest size in bytes of all documents of one cache: some forty thousand steps, which take three times as much in memory. A document
/// made to that end takes up to fifteen times its size.
pub(super) const MAX_BYTES: u64 = 16 << 20;
/// What other documents say is not understood here.
const VERSION: u32 = 1;

/// The document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheDocument {
    version: u32,
    /// By the keys of steps; `None` for one that changed no file.
    pub steps: BTreeMap<Digest, Option<StepLayer>>,
    /// What cache mounts held, by their keys: a layer upon nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mounts: BTreeMap<Digest, StepLayer>,
}

impl CacheDocument {
    /// A document of these steps and mounts.
    #[must_use]
    pub fn new(steps: BTreeMap<Digest, Option<StepLayer>>, mounts: BTreeMap<Digest, StepLayer>) -> Self {
        Self {
            version: VERSION,
            steps,
            mounts,
        }
    }

    /// Reads the config of a cache manifest. A document of another version counts as one that holds nothing.
    ///
    /// # Errors
    /// When it is no such document.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        let document: Self = serde_json::from_slice(bytes)?;
        Ok(match document.version {
            VERSION => document,
            _ => Self::default(),
        })
    }

    /// Reads what an image's config holds in its own field, if there is something. Other fields are passed over: in memory they could
    /// become many times as large.
    #[must_use]
    pub fn of_image(config: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(rename = "roadstead.cache.v1")]
            cache: Option<CacheDocument>,
        }
        let config: Config = serde_json::from_slice(config).ok()?;
        config.cache.filter(|document| document.version == VERSION)
    }

    /// The document as JSON; equal ones give equal bytes.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Forgets the blobs that `known` has not: a layer without one is still known by its digest.
    pub fn keep_blobs(&mut self, known: &BTreeSet<Digest>) {
        let has = |layer: &StepLayer| {
            layer
                .descriptor
                .as_ref()
                .is_some_and(|blob| known.contains(&blob.digest))
        };
        for layer in self.steps.values_mut().flatten().filter(|layer| !has(layer)) {
            layer.descriptor = None;
            layer.compressor = None;
        }
        self.mounts.retain(|_, layer| has(layer));
    }

    /// All blobs it speaks of, some more than once.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let steps = self.steps.values().flatten();
        let layers = steps.chain(self.mounts.values());
        layers.filter_map(|layer| layer.descriptor.as_ref())
    }

    /// Writes the document and its manifest into the store.
    ///
    /// # Errors
    /// When it is larger than what is read again, or the store cannot be written.
    pub fn write(&self, store: &Store) -> Result<Descriptor> {
        let config = self.to_value().to_string().into_bytes();
        if config.len() as u64 > MAX_BYTES {
            return Err(Error::InvalidDocument {
                what: "cache",
                reason: format!("it has {} bytes, and at most {MAX_BYTES} are read", config.len()),
            });
        }
        // Each once, in the order of their digests.
        let blobs: BTreeMap<&Digest, &Descriptor> = self.blobs().map(|blob| (&blob.digest, blob)).collect();
        store.put(&config)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::of(CONFIG_TYPE, &config),
            layers: blobs.into_values().cloned().collect(),
            annotations: BTreeMap::new(),
            subject: None,
        };
        let bytes = manifest.to_bytes();
        store.put(&bytes)?;
        Ok(Descriptor::of(media_type::OCI_MANIFEST, &bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str) -> StepLayer {
        StepLayer {
            diff_id: Digest::of(name.as_bytes()),
            descriptor: Some(Descriptor::of(media_type::OCI_LAYER_GZIP, name.as_bytes())),
            compressor: Some("gzip".to_owned()),
        }
    }

    #[test]
    fn read_as_it_was_written() {
        let steps = BTreeMap::from([
            (Digest::of(b"1"), Some(layer("a"))),
            (Digest::of(b"2"), None),
            (Digest::of(b"3"), Some(layer("b"))),
        ]);
        let mut document = CacheDocument::new(steps, BTreeMap::from([(Digest::of(b"m"), layer("m"))]));
        let bytes = document.to_value().to_string();
        assert_eq!(CacheDocument::parse(bytes.as_bytes()).unwrap(), document);
        assert_eq!(document.blobs().count(), 3);
        let newer = bytes.replace("\"version\":1", "\"version\":2");
        assert_eq!(
            CacheDocument::parse(newer.as_bytes()).unwrap(),
            CacheDocument::default()
        );
        CacheDocument::parse(b"{").unwrap_err();
        document.keep_blobs(&BTreeSet::from([Digest::of(b"b")]));
        assert_eq!(
            (document.blobs().count(), document.steps.len(), document.mounts.len()),
            (1, 3, 0)
        );
    }

    #[test]
    fn read_from_an_image_s_own_field() {
        let document = CacheDocument::new(BTreeMap::from([(Digest::of(b"1"), Some(layer("a")))]), BTreeMap::new());
        let config = |value| serde_json::json!({ "os": "linux", INLINE_FIELD: value }).to_string();
        let read = |value| CacheDocument::of_image(config(value).as_bytes());
        assert_eq!(read(document.to_value()), Some(document));
        for none in [
            serde_json::json!(null),
            serde_json::json!({"version": 2, "steps": {}}),
            serde_json::json!([]),
        ] {
            assert_eq!(read(none), None);
        }
        assert_eq!(CacheDocument::of_image(b"{}"), None);
    }
}
