//! Which blobs nobody needs any more, and removing them while others use the store.
//!
//! A blob's last use is the time of its stamp. Whoever finds a blob here sets it while holding a lock that whoever removes blobs holds
//! alone: so nobody loses a blob that he was just told is here.

use std::collections::HashSet;
use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use super::{BLOBS, Store};
use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::manifest::{Descriptor, Index, MANIFEST_LIMIT, Manifest, media_type};

const USE_LOCK: &str = "use.lock";
/// Shared by those who write images, whose names come last.
const WRITERS_LOCK: &str = "writers.lock";
/// Blobs used since then stay while an image is being written: longer than any takes that goes on at all.
const YOUNG: Duration = Duration::from_secs(3600);
/// Deepest nesting of indexes that is followed.
const DEEPEST: usize = 4;

/// A blob of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobUse {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was used last.
    pub used: SystemTime,
    /// Whether an image that has a name needs it.
    pub is_named: bool,
}

impl Store {
    /// Lists all blobs. None is read but the manifests of named images.
    ///
    /// # Errors
    /// `Io` or `InvalidDocument` when the store cannot be read.
    pub fn usage(&self) -> Result<Vec<BlobUse>> {
        let named = self.named()?;
        let dir = self.dir().join(BLOBS);
        let failed = |error| RegistryError::io("read", &dir, error);
        let mut blobs = Vec::new();
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What is no blob, or was removed meanwhile, is left alone.
            if let (Ok(digest), Ok(meta)) = (format!("sha256:{name}").parse::<Digest>(), entry.metadata())
                && meta.is_file()
            {
                let is_named = named.contains(&digest);
                blobs.push(BlobUse {
                    used: self.last_use(&digest).unwrap_or(SystemTime::UNIX_EPOCH),
                    size: meta.len(),
                    is_named,
                    digest,
                });
            }
        }
        Ok(blobs)
    }

    /// Removes those blobs that were not used since `before`, and that no image has come to need; gives them. While an image is being
    /// written whose name comes last, those stay that were used within the last hour.
    ///
    /// # Errors
    /// `Io` when it cannot be removed, or as [`Self::usage`].
    pub fn remove_unused(&self, digests: &[Digest], before: SystemTime) -> Result<Vec<Digest>> {
        let lock = self.use_lock()?;
        lock.lock()
            .map_err(|error| RegistryError::io("lock", self.dir(), error))?;
        let named = self.named()?;
        let writers = self.open_lock(WRITERS_LOCK)?;
        let before = match writers.try_lock() {
            Ok(()) => before,
            Err(_) => before.min(SystemTime::now().checked_sub(YOUNG).unwrap_or(SystemTime::UNIX_EPOCH)),
        };
        let is_old = |digest: &Digest| self.last_use(digest).is_some_and(|used| used < before);
        let mut removed = Vec::new();
        for digest in digests
            .iter()
            .filter(|digest| !named.contains(digest) && is_old(digest))
        {
            let path = self.blob_path(digest);
            fs::remove_file(&path).map_err(|error| RegistryError::io("remove", &path, error))?;
            self.distrust(digest);
            removed.push(digest.clone());
        }
        Ok(removed)
    }

    /// Keeps blobs from being removed while it is looked whether they are here.
    pub(super) fn in_use(&self) -> Result<File> {
        let lock = self.use_lock()?;
        lock.lock_shared()
            .map_err(|error| RegistryError::io("lock", self.dir(), error))?;
        Ok(lock)
    }

    /// Notes that a blob was used. Only the order of removal depends on it, so a failure is none.
    pub(super) fn note_use(&self, digest: &Digest) {
        if let Ok(stamp) = File::options().write(true).open(self.stamp_path(digest)) {
            drop(stamp.set_modified(SystemTime::now()));
        }
    }

    /// Says that an image is being written, until the file is dropped.
    pub(crate) fn writing(&self) -> Result<File> {
        let lock = self.open_lock(WRITERS_LOCK)?;
        lock.lock_shared()
            .map_err(|error| RegistryError::io("lock", self.dir(), error))?;
        Ok(lock)
    }

    fn use_lock(&self) -> Result<File> {
        self.open_lock(USE_LOCK)
    }

    fn open_lock(&self, name: &str) -> Result<File> {
        let path = self.dir().join(name);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        file.map_err(|error| RegistryError::io("open", &path, error))
    }

    fn last_use(&self, digest: &Digest) -> Option<SystemTime> {
        let modified = |path: &std::path::Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let written = modified(&self.blob_path(digest))?;
        Some(modified(&self.stamp_path(digest)).map_or(written, |noted| noted.max(written)))
    }

    /// Finds all that images with names need, as far as it is here. An image that cannot be read stops it: what it needs is not known.
    fn named(&self) -> Result<HashSet<Digest>> {
        let mut named = HashSet::new();
        for (_, descriptor) in self.list()? {
            self.reach(&descriptor, &mut named, 0)?;
        }
        Ok(named)
    }

    fn reach(&self, descriptor: &Descriptor, named: &mut HashSet<Digest>, depth: usize) -> Result<()> {
        if depth > DEEPEST || !named.insert(descriptor.digest.clone()) || !self.has(&descriptor.digest) {
            return Ok(());
        }
        let bytes = self.read_blob(&descriptor.digest, MANIFEST_LIMIT)?;
        if media_type::is_index(&descriptor.media_type) {
            let index = Index::parse(&bytes)?;
            return index
                .manifests
                .iter()
                .try_for_each(|child| self.reach(child, named, depth + 1));
        }
        let manifest = Manifest::parse(&bytes)?;
        named.extend(
            manifest
                .layers
                .iter()
                .chain([&manifest.config])
                .map(|blob| blob.digest.clone()),
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn age(store: &Store, digest: &Digest) {
        let old = SystemTime::now() - 2 * YOUNG;
        for path in [store.blob_path(digest), store.stamp_path(digest)] {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
    }

    #[test]
    fn only_old_blobs_that_no_image_needs_are_removed() {
        let dir = TestDir::new("usage");
        let store = Store::open(dir.path()).unwrap();
        let put = |bytes: &[u8]| {
            let digest = store.put(bytes).unwrap();
            age(&store, &digest);
            digest
        };
        let (layer, config) = (put(b"layer"), put(b"{}"));
        let manifest = Manifest {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            config: Descriptor::of(media_type::OCI_CONFIG, b"{}"),
            layers: vec![Descriptor::of(media_type::OCI_LAYER_TAR, b"layer")],
            subject: None,
            annotations: std::collections::BTreeMap::new(),
        };
        let root = put(&manifest.to_bytes());
        let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &manifest.to_bytes());
        store.tag(&"app".parse().unwrap(), &descriptor).unwrap();
        let (old, used) = (put(b"old"), put(b"used"));
        let young = store.put(b"young").unwrap();
        let writing = store.writing().unwrap();
        assert_eq!(
            store
                .remove_unused(std::slice::from_ref(&young), SystemTime::now())
                .unwrap(),
            []
        );
        let usage = store.usage().unwrap();
        assert_eq!(usage.iter().filter(|blob| blob.is_named).count(), 3);
        assert!(store.verified(&used).unwrap());
        let all = [layer, config, root, old.clone(), used, young.clone()];
        assert_eq!(store.remove_unused(&all, SystemTime::now()).unwrap(), [old]);
        assert_eq!(store.usage().unwrap().len(), 5);
        drop(writing);
        let before = SystemTime::now() - Duration::from_secs(1);
        assert_eq!(store.remove_unused(std::slice::from_ref(&young), before).unwrap(), []);
        let removed = store.remove_unused(std::slice::from_ref(&young), SystemTime::now() + YOUNG);
        assert_eq!(removed.unwrap(), [young]);
    }
}
