//! Results of steps on this machine: a small file a key, beside the content store that holds the layers.

use crate::layer::write::StepLayer;
use crate::sealed;
use roadstead_registry_client::{Digest, Store};
use serde::{Deserialize, Serialize};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

/// Changes when the meaning of a record does; older ones are then never found.
const FORM: &str = "roadstead-record/1";
/// Largest record read; one is a few hundred bytes.
const MAX_RECORD: u64 = 64 << 10;

/// What a step gave: a layer, or nothing when it changed no file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The layer, if files changed.
    pub layer: Option<StepLayer>,
    /// Whether this is what another machine's cache says, or follows from it. It holds for the builds that were given that cache, and
    /// is never written here.
    #[serde(skip)]
    pub is_foreign: bool,
}

impl Record {
    /// What a step has given here.
    #[must_use]
    pub fn own(layer: Option<StepLayer>) -> Self {
        let is_foreign = false;
        Self { layer, is_foreign }
    }
}

/// The local cache of steps.
#[derive(Debug, Clone)]
pub struct LocalCache {
    dir: PathBuf,
    /// Where records are written before they have their names.
    temporary: PathBuf,
    store: Store,
    grown: Arc<AtomicBool>,
}

/// A record among all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordUse {
    /// The step's key.
    pub key: Digest,
    /// Bytes of the record itself.
    pub size: u64,
    /// When it was used last.
    pub used: SystemTime,
    /// The blob that it names.
    pub blob: Option<Digest>,
}

impl LocalCache {
    /// Opens the cache in `dir`; layers are looked for in `store`.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn open(dir: &Path, store: &Store) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        Self::open_turns(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            temporary: dir.to_owned(),
            store: store.clone(),
            grown: Arc::default(),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Has records written in a directory that is removed whatever becomes of the build, if they can be moved from there.
    #[must_use]
    pub fn with_scratch(mut self, scratch: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
        if device(scratch).is_some() && device(scratch) == device(&self.dir) {
            self.temporary = scratch.to_owned();
        }
        self
    }

    /// Finds what the step of `key` gave. A record that is damaged, or whose blob is gone, counts as none. A layer without blob must
    /// lie unpacked: that is for the caller to see.
    #[must_use]
    pub fn find(&self, key: &Digest) -> Option<Record> {
        let record = self.read(key)?;
        let blob = record.layer.as_ref().and_then(|layer| layer.descriptor.as_ref());
        match blob {
            Some(blob) if self.store.blob_size(&blob.digest) != Some(blob.size) => None,
            // One that cannot be read is made again, in a new file.
            Some(blob) if !self.store.verified(&blob.digest).unwrap_or(false) => None,
            _ => {
                // Only the order of removal depends on it.
                if let Ok(file) = std::fs::File::options().write(true).open(self.dir.join(key.hex())) {
                    drop(file.set_modified(SystemTime::now()));
                }
                Some(record)
            }
        }
    }

    /// Lists all records.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn usage(&self) -> io::Result<Vec<RecordUse>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Ok(key) = format!("sha256:{}", entry.file_name().to_string_lossy()).parse::<Digest>() else {
                continue;
            };
            // One that was removed meanwhile is none.
            if let Ok(meta) = entry.metadata() {
                let layer = self.read(&key).and_then(|record| record.layer);
                all.push(RecordUse {
                    key,
                    size: meta.len(),
                    used: meta.modified()?,
                    blob: layer.and_then(|layer| layer.descriptor).map(|blob| blob.digest),
                });
            }
        }
        Ok(all)
    }

    /// Removes a record: its step is done again when a build comes to it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, key: &Digest) -> io::Result<()> {
        match std::fs::remove_file(self.dir.join(key.hex())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Tells whether anything was remembered in this process: then the cache has grown.
    #[must_use]
    pub fn has_grown(&self) -> bool {
        self.grown.load(Ordering::Relaxed)
    }

    /// Reads a record, if it is whole and the one of `key`.
    fn read(&self, key: &Digest) -> Option<Record> {
        let path = self.dir.join(key.hex());
        if std::fs::metadata(&path).ok()?.len() > MAX_RECORD {
            return None;
        }
        let bytes = std::fs::read(&path).ok()?;
        serde_json::from_slice(sealed::open(FORM, key.hex(), &bytes)?).ok()
    }

    /// Looks at all records; gives their number and the names of those that are damaged or none. With `repair` these are removed.
    ///
    /// # Errors
    /// When the directory cannot be read, or a file cannot be removed.
    pub fn check(&self, repair: bool) -> io::Result<(u64, Vec<String>)> {
        let (mut count, mut damaged) = (0, Vec::new());
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // One that begins with a dot is being written.
            if !entry.file_type()?.is_file() || name.starts_with('.') {
                continue;
            }
            count += 1;
            let key = format!("sha256:{name}").parse::<Digest>().ok();
            if key.is_none_or(|key| self.read(&key).is_none()) {
                if repair {
                    std::fs::remove_file(entry.path())?;
                }
                damaged.push(name);
            }
        }
        Ok((count, damaged))
    }

    /// Remembers what the step of `key` gave.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn put(&self, key: &Digest, record: &Record) -> io::Result<()> {
        self.grown.store(true, Ordering::Relaxed);
        let text = sealed::seal(FORM, key.hex(), &serde_json::to_vec(record).map_err(io::Error::other)?);
        // Equal steps of two stages may end at the same moment.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = self
            .temporary
            .join(format!(".{}-{}-{number}", key.hex(), std::process::id()));
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&text)?;
        std::fs::rename(&temporary, self.dir.join(key.hex()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_registry_client::{Descriptor, media_type};

    #[test]
    fn equal_steps_may_end_at_once() {
        let base = std::env::temp_dir().join(format!("roadstead-cache-equal-{}", std::process::id()));
        let cache = LocalCache::open(&base.join("cache"), &Store::open(&base.join("store")).unwrap()).unwrap();
        let key = Digest::of(b"key");
        let put = || (0..200).try_for_each(|_| cache.put(&key, &Record::own(None)));
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(put)).collect();
            threads.into_iter().for_each(|t| t.join().unwrap().unwrap());
        });
        // The record, and the directory of the locks.
        assert_eq!(std::fs::read_dir(base.join("cache")).unwrap().count(), 2);
        std::fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_record_without_its_layer_is_no_hit() {
        let base = std::env::temp_dir().join(format!("roadstead-cache-{}", std::process::id()));
        let store = Store::open(&base.join("store")).unwrap();
        let cache = LocalCache::open(&base.join("cache"), &store).unwrap();
        let (key, blob) = (Digest::of(b"key"), b"layer");
        let descriptor = Descriptor::of(media_type::OCI_LAYER_GZIP, blob);
        let record = Record::own(Some(StepLayer {
            diff_id: Digest::of(b"diff"),
            descriptor: Some(descriptor),
            compressor: None,
        }));
        assert_eq!(cache.find(&key), None);
        cache.put(&key, &record).unwrap();
        assert_eq!(cache.find(&key), None);
        store.put(blob).unwrap();
        assert_eq!(cache.find(&key), Some(record.clone()));
        let path = base.join("cache").join(key.hex());
        let good = std::fs::read(&path).unwrap();
        // Cut off, of a version before records were sealed, and that of another step.
        for (name, bytes) in [
            (&path, &good[..good.len() - 1]),
            (&path, &good[good.iter().position(|b| *b == b'\n').unwrap() + 1..]),
            (&path.with_file_name(Digest::of(b"other").hex()), &good[..]),
        ] {
            std::fs::write(name, bytes).unwrap();
        }
        assert_eq!((cache.find(&key), cache.find(&Digest::of(b"other"))), (None, None));
        std::fs::write(&path, &good).unwrap();
        assert_eq!(cache.find(&key), Some(record));
        // A blob that is not what it was is no hit either, and gone.
        std::fs::write(store.blob_path(&Digest::of(blob)), b"l4yer").unwrap();
        assert_eq!(cache.find(&key), None);
        assert!(!store.has(&Digest::of(blob)));
        std::fs::remove_dir_all(&base).unwrap();
    }
}
