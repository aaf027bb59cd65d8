//! What is known of images that were pushed or pulled: sizes, and the digests registries know them by.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use roadstead_proto::record::PushedImage;
use roadstead_registry_client::{
    Descriptor, Digest, Error, Index, MANIFEST_LIMIT, Manifest, Reference, Store, media_type,
};

use crate::error::FileError;

/// Images remembered at most; the oldest by digest go first, and only RepoDigests get poorer.
const MAX_IMAGES: usize = 20_000;

/// The layers of an image, of all platforms.
pub(super) fn layers(store: &Store, image: &Descriptor) -> Result<Vec<Descriptor>, Error> {
    Ok(manifests(store, image)?
        .into_iter()
        .flat_map(|manifest| manifest.layers)
        .collect())
}

fn manifests(store: &Store, image: &Descriptor) -> Result<Vec<Manifest>, Error> {
    let bytes = store.read_blob(&image.digest, MANIFEST_LIMIT)?;
    if !media_type::is_index(&image.media_type) {
        return Ok(vec![Manifest::parse(&bytes)?]);
    }
    let mut found = Vec::new();
    for child in Index::parse(&bytes)?.manifests {
        if !media_type::is_index(&child.media_type) && store.has(&child.digest) {
            found.push(Manifest::parse(&store.read_blob(&child.digest, MANIFEST_LIMIT)?)?);
        }
    }
    Ok(found)
}

/// Bytes of an image as a registry counts them: configuration and layers, compressed.
pub(crate) fn size_of(manifest: &Manifest) -> u64 {
    manifest
        .layers
        .iter()
        .map(|layer| layer.size)
        .fold(manifest.config.size, u64::saturating_add)
}

/// The note of a push.
pub(super) fn note(store: &Store, image: &Descriptor, target: &Reference) -> Result<PushedImage, Error> {
    let size = manifests(store, image)?
        .iter()
        .map(size_of)
        .fold(0, u64::saturating_add);
    Ok(note_of(image, target, size))
}

/// The note of a push of which all is known.
pub(super) fn note_of(image: &Descriptor, target: &Reference, size_in_bytes: u64) -> PushedImage {
    PushedImage {
        name: target.name(),
        tag: target.tag().map(str::to_owned),
        digest: image.digest.to_string(),
        media_type: image.media_type.clone(),
        size_in_bytes,
        pushed_at: jiff::Timestamp::now().to_string(),
    }
}

/// Digests by which registries know local images: manifest digest -> `repository@digest`. A file beside the store.
#[derive(Debug)]
pub(super) struct RepositoryDigests {
    path: PathBuf,
}

type Known = BTreeMap<String, BTreeSet<String>>;

impl RepositoryDigests {
    pub(super) fn of(store: &Store) -> Self {
        Self {
            path: store.dir().with_file_name("repository-digests.json"),
        }
    }

    fn read(&self) -> Result<Known, FileError> {
        match fs::read(&self.path) {
            // A file that cannot be read is made anew: all in it can be learnt again.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Known::new()),
            Err(error) => Err(FileError::at("read", &self.path)(error)),
        }
    }

    /// What is known of an image, sorted.
    pub(super) fn find(&self, image: &Digest) -> Result<Vec<String>, FileError> {
        Ok(self
            .read()?
            .remove(&image.to_string())
            .unwrap_or_default()
            .into_iter()
            .collect())
    }

    /// Remembers that `repository` knows `image` as `known_as`.
    pub(super) fn add(&self, image: &Digest, repository: &Reference, known_as: &Digest) -> Result<(), FileError> {
        let lock = self.path.with_extension("lock");
        let lock_file = File::create(&lock).map_err(FileError::at("open", &lock))?;
        lock_file.lock().map_err(FileError::at("lock", &lock))?;
        let mut known = self.read()?;
        let name = repository.without_tag().familiar();
        known
            .entry(image.to_string())
            .or_default()
            .insert(format!("{name}@{known_as}"));
        while known.len() > MAX_IMAGES {
            known.pop_first();
        }
        let new = self.path.with_extension("new");
        let bytes = serde_json::to_vec(&known).unwrap_or_default();
        fs::write(&new, bytes).map_err(FileError::at("write", &new))?;
        fs::rename(&new, &self.path).map_err(FileError::at("rename", &new))
    }
}
