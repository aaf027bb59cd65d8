//! Caches of other machines, taken in before a build: what their steps gave is known at once, blobs come when they are needed.

use super::document::{CONFIG_TYPE, CacheDocument};
use super::local::Record;
use crate::layer::write::StepLayer;
use roadstead_registry_client::{
    Descriptor, Digest, Error, ImageSink as _, ImageSource, Index, Manifest, NoProgress, Reference, Result, Store,
    StoreTarget, media_type, read_small,
};
use std::collections::BTreeSet;
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
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.source.label()).finish()
    }
}

/// What a cache knows of a step.
#[derive(Debug)]
pub struct Found<'a> {
    /// What the step gave.
    pub record: Record,
    place: &'a Place,
}

impl Found<'_> {
    /// Sees to it that the layer's blob can be had: of one in a registry the place is noted, any other is fetched.
    ///
    /// # Errors
    /// When it cannot be fetched, or the note cannot be written.
    pub async fn obtain(&self, store: &Store) -> Result<()> {
        let layer = self.record.layer.as_ref();
        match layer.and_then(|layer| layer.descriptor.as_ref()) {
            Some(blob) => self.place.obtain(blob, store).await,
            None => Ok(()),
        }
    }
}

impl Place {
    async fn obtain(&self, blob: &Descriptor, store: &Store) -> Result<()> {
        if store.has(&blob.digest) {
            return Ok(());
        }
        match &self.repository {
            Some(repository) => store.add_source(&blob.digest, repository),
            None => fetch(&*self.source, blob, store).await,
        }
    }
}

impl Imported {
    /// Reads the cache that `source` has; gives the number of steps it knows.
    ///
    /// # Errors
    /// When it is not there, or holds no cache of roadstead's.
    pub async fn add(&mut self, source: Arc<dyn ImageSource>, repository: Option<Reference>) -> Result<usize> {
        let documents = read(&*source).await?;
        let steps = documents.iter().map(|document| document.steps.len()).sum();
        self.places.push(Place {
            source,
            repository,
            documents,
        });
        Ok(steps)
    }

    /// Looks a step up. The first cache that knows it counts, one that has its layer's blob before others.
    #[must_use]
    pub fn find(&self, key: &Digest) -> Option<Found<'_>> {
        let all = self.places.iter().flat_map(|place| {
            let documents = place.documents.iter();
            documents.filter_map(move |document| {
                let layer = document.steps.get(key)?.clone();
                let record = Record { layer };
                Some(Found { record, place })
            })
        });
        let has_blob = |found: &Found<'_>| match &found.record.layer {
            Some(layer) => layer.descriptor.is_some(),
            None => true,
        };
        let mut known: Vec<Found<'_>> = all.collect();
        known.sort_by_key(|found| !has_blob(found));
        known.into_iter().next()
    }

    /// What a cache mount held.
    #[must_use]
    pub fn mount(&self, key: &Digest) -> Option<&StepLayer> {
        self.mounts().find(|(known, _)| *known == key).map(|(_, layer)| layer)
    }

    /// All cache mounts, those of the first cache first.
    pub fn mounts(&self) -> impl Iterator<Item = (&Digest, &StepLayer)> {
        let documents = self.places.iter().flat_map(|place| &place.documents);
        documents.flat_map(|document| &document.mounts)
    }

    /// Brings the blob of a cache mount into the store.
    ///
    /// # Errors
    /// When no cache that speaks of it gives it.
    pub async fn fetch_mount(&self, layer: &StepLayer, store: &Store) -> Result<()> {
        let Some(blob) = &layer.descriptor else { return Ok(()) };
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

    /// Sees to it that the blob of a cache mount can be had: in a registry it may stay.
    ///
    /// # Errors
    /// As for [`Self::fetch_mount`].
    pub async fn obtain_mount(&self, layer: &StepLayer, store: &Store) -> Result<()> {
        let Some(blob) = &layer.descriptor else { return Ok(()) };
        match self.places_of(blob).next() {
            Some(place) => place.obtain(blob, store).await,
            None => Err(Error::missing_in_store(&blob.digest)),
        }
    }

    /// The caches one of whose mounts has the blob.
    fn places_of<'a>(&'a self, blob: &'a Descriptor) -> impl Iterator<Item = &'a Place> {
        self.places.iter().filter(move |place| {
            let mut layers = place.documents.iter().flat_map(|document| document.mounts.values());
            layers.any(|known| known.descriptor.as_ref() == Some(blob))
        })
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
