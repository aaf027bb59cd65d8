//! Caches of other machines, taken in before a build: what their steps gave is known at once, blobs come when they are needed.

use super::document::{CONFIG_TYPE, CacheDocument, MAX_BYTES};
use super::local::Record;
use crate::layer::write::StepLayer;
use roadstead_registry_client::{
    Descriptor, Digest, Error, ImageSink as _, ImageSource, Index, Manifest, NoProgress, Reference, Result, Store,
    StoreTarget, media_type, read_small,
};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// Images of one index that are read; one is a platform.
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
            blobs: blobs.map(|blob| blob.digest.clone()).collect(),
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
    let mut room = MAX_BYTES;
    // An index may name an image again and again.
    let mut known = HashSet::new();
    for image in images
        .iter()
        .filter(|image| known.insert(&image.digest))
        .take(MAX_IMAGES)
    {
        let manifest = Manifest::parse(&source.manifest(image).await?)?;
        documents.extend(document(source, &manifest, &mut room).await?);
    }
    match documents.is_empty() {
        true => Err(Error::InvalidDocument {
            what: "cache",
            reason: format!("{} holds no cache of roadstead's", source.label()),
        }),
        false => Ok(documents),
    }
}

/// Reads the document of one image, which must fit into what is left of `room`. What the manifest's own layers do not hold is not to be
/// had.
async fn document(source: &dyn ImageSource, manifest: &Manifest, room: &mut u64) -> Result<Option<CacheDocument>> {
    let config = &manifest.config;
    let is_cache = config.media_type == CONFIG_TYPE;
    if !is_cache && !media_type::is_config(&config.media_type) {
        return Ok(None);
    }
    let invalid = |reason: String| Error::InvalidDocument { what: "cache", reason };
    *room = room.checked_sub(config.size).ok_or_else(|| {
        let label = source.label();
        invalid(format!("{label} holds more than the {MAX_BYTES} bytes that are read"))
    })?;
    let bytes = read_small(source, config, config.size).await?;
    let document = match is_cache {
        true => Some(CacheDocument::parse(&bytes).map_err(|error| invalid(error.to_string()))?),
        false => CacheDocument::of_image(&bytes),
    };
    let known: BTreeSet<Digest> = manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
    Ok(document.map(|mut document| {
        document.keep_blobs(&known);
        document
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_registry_client::StoreImage;
    use std::collections::BTreeMap;

    /// An index of these images in a store of its own.
    struct Cache {
        store: Store,
        images: Vec<Descriptor>,
    }

    impl Cache {
        fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("roadstead-imported-{name}-{}", std::process::id()));
            Self {
                store: Store::open(&directory).unwrap(),
                images: Vec::new(),
            }
        }

        /// Adds the manifest of a cache whose document is so large and knows one step.
        fn add(&mut self, key: &[u8], bytes: usize) {
            let steps = BTreeMap::from([(Digest::of(key), None)]);
            let mut config = CacheDocument::new(steps, BTreeMap::new()).to_value().to_string();
            config.extend(std::iter::repeat_n(' ', bytes.saturating_sub(config.len())));
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(media_type::OCI_MANIFEST.to_owned()),
                artifact_type: None,
                config: Descriptor::of(CONFIG_TYPE, config.as_bytes()),
                layers: Vec::new(),
                annotations: BTreeMap::new(),
                subject: None,
            };
            self.store.put(config.as_bytes()).unwrap();
            let bytes = manifest.to_bytes();
            self.store.put(&bytes).unwrap();
            self.images.push(Descriptor::of(media_type::OCI_MANIFEST, &bytes));
        }

        async fn read(&self) -> Result<usize> {
            let index = serde_json::json!({ "schemaVersion": 2, "manifests": self.images }).to_string();
            self.store.put(index.as_bytes())?;
            let root = Descriptor::of(media_type::OCI_INDEX, index.as_bytes());
            let source = StoreImage::described(&self.store, &root);
            Imported::default().add(Arc::new(source), None, true).await
        }
    }

    impl Drop for Cache {
        fn drop(&mut self) {
            std::fs::remove_dir_all(self.store.dir()).unwrap();
        }
    }

    #[tokio::test]
    async fn an_image_that_is_named_again_is_read_once() {
        let mut cache = Cache::new("again");
        cache.add(b"1", 5 << 20);
        cache.images = vec![cache.images[0].clone(); MAX_IMAGES];
        cache.add(b"2", 0);
        assert_eq!(cache.read().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn all_documents_of_a_cache_together_are_bounded() {
        let mut cache = Cache::new("bounded");
        for key in [b"1", b"2"] {
            cache.add(key, 7 << 20);
        }
        assert_eq!(cache.read().await.unwrap(), 2);
        cache.add(b"3", 7 << 20);
        let error = cache.read().await.unwrap_err().to_string();
        assert!(error.contains("holds more than the 16777216 bytes"), "{error}");
    }
}
