//! Caches of other machines, taken in before a build: what their steps gave is known at once, blobs come when they are needed.

use super::document::{CONFIG_TYPE, CacheDocument};
use super::local::Record;
use crate::layer::write::StepLayer;
use roadstead_registry_client::{
    Descriptor, Digest, Error, ImageSink as _, ImageSource, Index, Manifest, NoProgress, Reference, Result, Store,
    StoreTarget, media_type, read_small,
};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// Largest document read, in bytes: some hundred thousand steps.
const MAX_DOCUMENT: u64 = 64 << 20;
/// Documents of one index that are read; one is a platform.
const MAX_IMAGES: usize = 64;

/// All caches that a build was given, in the order they were given.
#[derive(Debug, Default)]
pub struct Imported {
    places: Vec<Place>,
}

/// One cache.
struct Place {
    source: Arc<dyn ImageSource>,
    /// The repository it lies in, for one in a registry: blobs need not come here to be part of an image.
    repository: Option<Reference>,
    documents: Vec<CacheDocument>,
    /// All blobs that it has.
    blobs: HashSet<Digest>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.source.label()).finish()
    }
}

impl Imported {
    /// Reads the cache that `source` has; gives the number of steps it knows. What it says of cache mounts counts only `with_mounts`: a mount
    /// that it fills stays, for builds that were not given this cache, too.
    ///
    /// # Errors
    /// When it is not there, or holds no cache of roadstead's.
    pub async fn add(
        &mut self,
        source: Arc<dyn ImageSource>,
        repository: Option<Reference>,
        with_mounts: bool,
    ) -> Result<usize> {
        let mut documents = read(&*source).await?;
        if !with_mounts {
            documents.iter_mut().for_each(|document| document.mounts.clear());
        }
        let steps = documents.iter().map(|document| document.steps.len()).sum();
        let blobs = documents.iter().flat_map(CacheDocument::blobs);
        self.places.push(Place {
            source,
            repository,
            blobs: blobs.map(|blob| blob.digest).collect(),
            documents,
        });
        Ok(steps)
    }

    /// Looks a step up. The first cache that knows it counts, one that has its layer's blob before others.
    #[must_use]
    pub fn find(&self, key: &Digest) -> Option<Record> {
        let known = || self.documents().filter_map(|document| document.steps.get(key));
        let has_blob = |layer: &&Option<StepLayer>| layer.as_ref().is_none_or(|layer| layer.descriptor.is_some());
        let layer = known().find(has_blob).or_else(|| known().next())?.clone();
        let is_foreign = true;
        Some(Record { layer, is_foreign })
    }

    fn documents(&self) -> impl Iterator<Item = &CacheDocument> {
        self.places.iter().flat_map(|place| &place.documents)
    }

    /// What a cache mount held, by a cache whose mounts count.
    #[must_use]
    pub fn mount(&self, key: &Digest) -> Option<&StepLayer> {
        self.mounts().find(|(known, _)| *known == key).map(|(_, layer)| layer)
    }

    /// All cache mounts that count, those of the first cache first.
    pub fn mounts(&self) -> impl Iterator<Item = (&Digest, &StepLayer)> {
        self.documents().flat_map(|document| &document.mounts)
    }

    /// Brings a blob into the store.
    ///
    /// # Errors
    /// When no cache that speaks of it gives it.
    pub async fn fetch(&self, blob: &Descriptor, store: &Store) -> Result<()> {
        if store.has(&blob.digest) {
            return Ok(());
        }
        let mut last = Error::missing_in_store(&blob.digest);
        for place in self.places_of(blob) {
            match fetch(&*place.source, blob, store).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sees to it that a blob can be had for an image: in a registry it may stay, which is noted; any other is fetched.
    ///
    /// # Errors
    /// As for [`Self::fetch`], and when the note cannot be written.
    pub async fn obtain(&self, blob: &Descriptor, store: &Store) -> Result<()> {
        if store.has(&blob.digest) {
            return Ok(());
        }
        for place in self.places_of(blob) {
            // Registries forget blobs, and a build that counts on one finds out when it is over.
            if let Some(repository) = &place.repository
                && place.source.has_blob(blob).await.unwrap_or(false)
            {
                return store.add_source(&blob.digest, repository);
            }
        }
        self.fetch(blob, store).await
    }

    /// Tells whether a blob is what one of the caches speaks of.
    #[must_use]
    pub fn speaks_of(&self, blob: &Digest) -> bool {
        self.places.iter().any(|place| place.blobs.contains(blob))
    }

    /// The caches that have the blob.
    fn places_of(&self, blob: &Descriptor) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| place.blobs.contains(&blob.digest))
    }
}

async fn fetch(source: &dyn ImageSource, blob: &Descriptor, store: &Store) -> Result<()> {
    // Boxed, as the futures of registries nest deeply.
    let taking = Box::pin(async { StoreTarget::unnamed(store).blob(blob, source, &NoProgress).await });
    taking.await.map(drop)
}

/// Reads a cache manifest, or the caches within an image or within the images of an index.
async fn read(source: &dyn ImageSource) -> Result<Vec<CacheDocument>> {
    let root = source.root().await?;
    let bytes = source.manifest(&root).await?;
    let mut documents = Vec::new();
    let is_index = media_type::is_index(&root.media_type) || Manifest::parse(&bytes).is_err();
    let images = match is_index {
        true => Index::parse(&bytes)?.manifests,
        false => vec![root],
    };
    for image in images.iter().take(MAX_IMAGES) {
        let manifest = Manifest::parse(&source.manifest(image).await?)?;
        documents.extend(document(source, &manifest).await?);
    }
    match documents.is_empty() {
        true => Err(Error::InvalidDocument {
            what: "cache",
            reason: format!("{} holds no cache of roadstead's", source.label()),
        }),
        false => Ok(documents),
    }
}

/// What the manifest's own layers do not hold is not to be had.
async fn document(source: &dyn ImageSource, manifest: &Manifest) -> Result<Option<CacheDocument>> {
    let config = &manifest.config;
    let is_cache = config.media_type == CONFIG_TYPE;
    if !is_cache && !media_type::is_config(&config.media_type) {
        return Ok(None);
    }
    let bytes = read_small(source, config, MAX_DOCUMENT).await?;
    let invalid = |error: serde_json::Error| Error::InvalidDocument {
        what: "cache",
        reason: error.to_string(),
    };
    let document = match is_cache {
        true => Some(CacheDocument::parse(&bytes).map_err(invalid)?),
        false => CacheDocument::of_image(&serde_json::from_slice(&bytes).map_err(invalid)?),
    };
    let known: BTreeSet<Digest> = manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
    Ok(document.map(|mut document| {
        document.keep_blobs(&known);
        document
    }))
}
