//! An index put together from images of several places, as a source.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{BlobStream, ImageSource, read_small};
use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::image_config::{CONFIG_LIMIT, ImageConfig};
use crate::manifest::{Descriptor, Index, Manifest, detect_media_type, media_type};
use crate::progress::Progress;
use crate::reference::Reference;

/// An index over the images of its parts.
pub struct ComposedIndex {
    parts: Vec<Box<dyn ImageSource>>,
    descriptor: Descriptor,
    bytes: Bytes,
    /// Which part has a manifest or a blob; filled as manifests are read.
    origins: Mutex<HashMap<Digest, usize>>,
}

impl std::fmt::Debug for ComposedIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComposedIndex")
            .field("digest", &self.descriptor.digest)
            .finish_non_exhaustive()
    }
}

impl ComposedIndex {
    /// Puts an index together: images as they are, of indexes their entries. What comes twice is listed once.
    ///
    /// # Errors
    /// An error of a part; `InvalidDocument` when an image does not say what platform it is for.
    pub async fn compose(parts: Vec<Box<dyn ImageSource>>, annotations: BTreeMap<String, String>) -> Result<Self> {
        let mut manifests: Vec<Descriptor> = Vec::new();
        let mut origins = HashMap::new();
        for (at, part) in parts.iter().enumerate() {
            for entry in entries(&**part).await? {
                origins.entry(entry.digest.clone()).or_insert(at);
                if !manifests.iter().any(|known| known.digest == entry.digest) {
                    manifests.push(entry);
                }
            }
        }
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations,
        };
        let bytes = index.to_bytes();
        Ok(Self {
            parts,
            descriptor: Descriptor::of(media_type::OCI_INDEX, &bytes),
            bytes: bytes.into(),
            origins: Mutex::new(origins),
        })
    }

    /// Returns the index as it will be written.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns what points to the index.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn origin(&self, digest: &Digest) -> Result<usize> {
        let origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let found = origins.get(digest).copied();
        found.ok_or_else(|| RegistryError::missing_in_store(digest))
    }

    /// What a manifest names can be had where the manifest was.
    fn note(&self, manifest: &[u8], at: usize) {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let mut add = |digest: Digest| {
            origins.entry(digest).or_insert(at);
        };
        if let Ok(manifest) = Manifest::parse(manifest) {
            manifest.layers.into_iter().for_each(|layer| add(layer.digest));
            add(manifest.config.digest);
        } else if let Ok(index) = Index::parse(manifest) {
            index.manifests.into_iter().for_each(|child| add(child.digest));
        }
    }
}

/// Lists what a part brings into the index.
async fn entries(part: &dyn ImageSource) -> Result<Vec<Descriptor>> {
    let mut root = part.root().await?;
    let bytes = part.manifest(&root).await?;
    root.media_type = detect_media_type(&bytes, Some(&root.media_type))?;
    if media_type::is_index(&root.media_type) {
        return Ok(Index::parse(&bytes)?.manifests);
    }
    if root.platform.is_none() {
        let config = Manifest::parse(&bytes)?.config;
        let config = ImageConfig::parse(&read_small(part, &config, CONFIG_LIMIT).await?)?;
        let platform = config.platform();
        if platform.os.is_empty() || platform.architecture.is_empty() {
            return Err(RegistryError::InvalidDocument {
                what: "image configuration",
                reason: format!("`{}` does not say what platform it is for", part.label()),
            });
        }
        root.platform = Some(platform);
    }
    Ok(vec![root])
}

impl ImageSource for ComposedIndex {
    fn label(&self) -> String {
        "the new index".to_owned()
    }

    fn root(&self) -> BoxFuture<'_, Result<Descriptor>> {
        Box::pin(async { Ok(self.descriptor.clone()) })
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            if descriptor.digest == self.descriptor.digest {
                return Ok(self.bytes.clone());
            }
            let at = self.origin(&descriptor.digest)?;
            let bytes = self.parts[at].manifest(descriptor).await?;
            self.note(&bytes, at);
            Ok(bytes)
        })
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<BlobStream<'a>>> {
        Box::pin(async move {
            self.parts[self.origin(&descriptor.digest)?]
                .blob(descriptor, progress)
                .await
        })
    }

    fn repositories(&self, digest: &Digest) -> Vec<Reference> {
        match self.origin(digest) {
            Ok(at) => self.parts[at].repositories(digest),
            Err(_) => Vec::new(),
        }
    }
}
