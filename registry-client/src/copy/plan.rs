//! What a copy has to move: found by reading manifests from the name down.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{ImageSource, Selection};
use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::image_config::{CONFIG_LIMIT, ImageConfig};
use crate::manifest::{Descriptor, Index, Manifest, detect_media_type, media_type};
use crate::platform::Platform;
use crate::pull::{check_platform, choose};

/// An index may list indexes; nobody nests them deeper.
const NESTING_LIMIT: usize = 3;
/// Manifests are held in memory until all blobs have arrived. Real indexes stay below one MiB in all.
const DOCUMENTS_LIMIT: u64 = 16 * 1024 * 1024;

/// A manifest or an index with its bytes.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Bytes,
}

/// An image or index with all below it, in the order to write.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) blobs: Vec<Descriptor>,
    /// Children before parents, without the root.
    pub(super) children: Vec<Document>,
    /// What the name will mean.
    pub(super) root: Document,
}

struct Walk<'a> {
    source: &'a dyn ImageSource,
    selection: &'a Selection,
    blobs: Vec<Descriptor>,
    documents: Vec<Document>,
    seen: HashSet<Digest>,
    bytes: u64,
}

impl Plan {
    pub(super) async fn read(source: &dyn ImageSource, selection: &Selection) -> Result<Self> {
        let mut walk = Walk::new(source, selection);
        let root = walk.root().await?;
        walk.add(root, 0).await?;
        let Walk {
            blobs, mut documents, ..
        } = walk;
        let root = documents.pop().ok_or(RegistryError::Stopped {
            operation: "reading the image",
        })?;
        Ok(Self {
            blobs,
            children: documents,
            root,
        })
    }
}

/// Finds the manifest or index that a selection means, without anything below it.
pub(super) async fn select(source: &dyn ImageSource, selection: &Selection) -> Result<Document> {
    let walk = Walk::new(source, selection);
    let mut descriptor = walk.root().await?;
    let (kind, bytes) = walk.read(&descriptor).await?;
    descriptor.media_type = kind;
    Ok(Document { descriptor, bytes })
}

impl<'a> Walk<'a> {
    fn new(source: &'a dyn ImageSource, selection: &'a Selection) -> Self {
        Self {
            source,
            selection,
            blobs: Vec::new(),
            documents: Vec::new(),
            seen: HashSet::new(),
            bytes: 0,
        }
    }

    async fn root(&self) -> Result<Descriptor> {
        let root = self.source.root().await?;
        match self.selection {
            Selection::Platform(platform) => self.narrow(root, platform).await,
            Selection::Sparse(platforms) => self.check_single(root, platforms).await,
            Selection::All | Selection::Present => Ok(root),
        }
    }

    /// Goes down from an index to the image of a platform.
    async fn narrow(&self, mut descriptor: Descriptor, platform: &Platform) -> Result<Descriptor> {
        for _ in 0..NESTING_LIMIT {
            let (kind, bytes) = self.read(&descriptor).await?;
            if !media_type::is_index(&kind) {
                self.check_platform(&bytes, &descriptor, platform).await?;
                descriptor.media_type = kind;
                return Ok(descriptor);
            }
            descriptor = choose(&Index::parse(&bytes)?, &self.source.label(), platform)?;
        }
        Err(nested())
    }

    /// An image without an index must be for one of the platforms.
    async fn check_single(&self, root: Descriptor, platforms: &BTreeSet<Platform>) -> Result<Descriptor> {
        let (kind, bytes) = self.read(&root).await?;
        if media_type::is_index(&kind) {
            return Ok(root);
        }
        let mut result = Ok(());
        for platform in platforms {
            result = self.check_platform(&bytes, &root, platform).await;
            if result.is_ok() {
                break;
            }
        }
        result.map(|()| root)
    }

    /// An image without an index is what it is; running it elsewhere fails much later and less clearly.
    async fn check_platform(&self, manifest: &[u8], descriptor: &Descriptor, wanted: &Platform) -> Result<()> {
        if descriptor.platform.is_some() {
            return Ok(());
        }
        let config = Manifest::parse(manifest)?.config;
        if !media_type::is_config(&config.media_type) {
            return Ok(());
        }
        let bytes = super::read_small(self.source, &config, CONFIG_LIMIT).await?;
        check_platform(&self.source.label(), wanted, &ImageConfig::parse(&bytes)?)
    }

    async fn read(&self, descriptor: &Descriptor) -> Result<(String, Bytes)> {
        let bytes = self.source.manifest(descriptor).await?;
        let kind = detect_media_type(&bytes, Some(&descriptor.media_type))?;
        Ok((kind, bytes))
    }

    fn add<'b>(&'b mut self, mut descriptor: Descriptor, depth: usize) -> BoxFuture<'b, Result<()>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            if !self.seen.insert(descriptor.digest.clone()) {
                return Ok(());
            }
            let (kind, bytes) = self.read(&descriptor).await?;
            self.bytes += bytes.len() as u64;
            if self.bytes > DOCUMENTS_LIMIT {
                return Err(RegistryError::InvalidDocument {
                    what: "image index",
                    reason: "its manifests are larger than 16 MiB together".to_owned(),
                });
            }
            descriptor.media_type = kind;
            if media_type::is_index(&descriptor.media_type) {
                if depth >= NESTING_LIMIT {
                    return Err(nested());
                }
                let before = self.documents.len();
                for child in self.wanted(Index::parse(&bytes)?)? {
                    match self.add(child, depth + 1).await {
                        Err(RegistryError::BlobMissing { .. }) if *self.selection == Selection::Present => {}
                        added => added?,
                    }
                }
                if *self.selection == Selection::Present && self.documents.len() == before {
                    return Err(RegistryError::BlobMissing {
                        digest: descriptor.digest,
                        place: self.source.label(),
                    });
                }
            } else {
                self.add_blobs(Manifest::parse(&bytes)?);
            }
            self.documents.push(Document { descriptor, bytes });
            Ok(())
        })
    }

    /// Chooses the entries of an index; every platform asked for must be there.
    fn wanted(&self, index: Index) -> Result<Vec<Descriptor>> {
        let Selection::Sparse(platforms) = self.selection else {
            return Ok(index.manifests);
        };
        let mut chosen: Vec<Descriptor> = Vec::new();
        for platform in platforms {
            let found = choose(&index, &self.source.label(), platform)?;
            if !chosen.iter().any(|known| known.digest == found.digest) {
                chosen.push(found);
            }
        }
        Ok(chosen)
    }

    /// Layers that may not be redistributed stay at their vendor's.
    fn add_blobs(&mut self, manifest: Manifest) {
        let layers = manifest.layers.into_iter();
        let own = layers.filter(|layer| !media_type::is_foreign_layer(&layer.media_type));
        for blob in own.chain([manifest.config]) {
            if self.seen.insert(blob.digest.clone()) {
                self.blobs.push(blob);
            }
        }
    }
}

fn nested() -> RegistryError {
    RegistryError::InvalidDocument {
        what: "image index",
        reason: format!("indexes are nested deeper than {NESTING_LIMIT}"),
    }
}
