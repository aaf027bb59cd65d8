//! Content store: an OCI image layout on disk, shared by several processes.
//!
//! ```text
//! oci-layout            {"imageLayoutVersion":"1.0.0"}
//! index.json            image names, changed under `lock` and by rename
//! blobs/sha256/<hex>    content; appears by rename when complete
//! ingest/               content being written
//! locks/<hex>           held by whoever fetches the blob
//! use.lock              held while it is looked whether a blob is here, alone by whoever removes blobs
//! sources/<hex>         repositories a blob can be fetched or mounted from
//! checked/<hex>         what the blob's file looked like when its content was right
//! ```

mod check;
pub(crate) mod claim;
mod content_file;
mod growing;
mod mend;
mod names;
mod sources;
mod stamps;
mod usage;
pub(crate) mod writer;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use check::{CheckReport, Finding};
pub use claim::Claim;
pub(crate) use content_file::{BLOCK, CACHED};
pub use growing::Growing;
pub use usage::BlobUse;
pub use writer::BlobWriter;

use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::layout::{BLOBS, LAYOUT, LAYOUT_FILE, is_version_1};

const LOCK_FILE: &str = "lock";
const INGEST: &str = "ingest";
const LOCKS: &str = "locks";
const SOURCES: &str = "sources";
const CHECKED: &str = "checked";

/// Opens blobs and image names kept in one directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    dir: Arc<Path>,
}

impl Store {
    /// Opens a store, and makes it where there is none.
    ///
    /// # Errors
    /// `Io` when the directory cannot be made or read; `InvalidDocument` when it holds another kind of layout.
    pub fn open(dir: &Path) -> Result<Self> {
        for part in [BLOBS, INGEST, LOCKS, SOURCES, CHECKED] {
            let path = dir.join(part);
            fs::create_dir_all(&path).map_err(|error| RegistryError::io("create", &path, error))?;
        }
        let store = Self { dir: dir.into() };
        store.check_layout()?;
        writer::sweep(&dir.join(INGEST), "");
        claim::sweep(&dir.join(LOCKS));
        Ok(store)
    }

    /// Looks at the documents that keep a store from being opened when they are damaged. With `repair` others take their place; then
    /// the names of images are lost, and the old list lies beside the new one.
    ///
    /// # Errors
    /// `Io` when one cannot be read or written.
    pub fn check_documents(dir: &Path, repair: bool) -> Result<Vec<Finding>> {
        mend::documents(dir, repair)
    }

    /// Returns the store's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Tells whether a blob is here.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob_size(digest).is_some()
    }

    /// Returns the size of a blob in bytes, if it is here.
    #[must_use]
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.blob_path(digest))
            .ok()
            .filter(fs::Metadata::is_file)
            .map(|meta| meta.len())
    }

    /// Returns where a blob is, or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(BLOBS).join(digest.hex())
    }

    /// Opens a blob for reading. Its digest is not checked again.
    ///
    /// # Errors
    /// `BlobMissing` when it is not here; `Io` when it cannot be opened.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => RegistryError::missing_in_store(digest),
            _ => RegistryError::io("open", &path, error),
        })
    }

    /// Reads a small blob and checks its digest.
    ///
    /// # Errors
    /// `BlobMissing`, `BlobTooLarge` above `limit` bytes, `DigestMismatch`, or `Io`.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let file = self.open_blob(digest)?;
        let path = self.blob_path(digest);
        let size = file
            .metadata()
            .map_err(|error| RegistryError::io("read", &path, error))?
            .len();
        if size > limit {
            return Err(RegistryError::BlobTooLarge {
                digest: digest.clone(),
                size,
                limit,
            });
        }
        let mut bytes = Vec::new();
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| RegistryError::io("read", &path, error))?;
        let actual = Digest::of(&bytes);
        if actual != *digest {
            let what = format!("file `{}`", path.display());
            return Err(RegistryError::DigestMismatch {
                what,
                expected: digest.clone(),
                actual,
            });
        }
        Ok(bytes)
    }

    /// Starts a new blob.
    ///
    /// # Errors
    /// `Io` when no file can be made.
    pub fn writer(&self) -> Result<BlobWriter> {
        let writer = BlobWriter::create(&self.dir.join(INGEST), &self.dir.join(BLOBS))?;
        Ok(writer.stamping(&self.dir.join(INGEST), &self.dir.join(CHECKED)))
    }

    /// Stores bytes as a blob.
    ///
    /// # Errors
    /// `Io` when they cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        // One that is here may be damaged, and a small one is read in no time.
        let is_here = || fs::read(self.blob_path(&digest)).is_ok_and(|found| found == bytes);
        let in_use = self.in_use()?;
        if self.blob_size(&digest) == Some(bytes.len() as u64) && is_here() {
            self.note_use(&digest);
            return Ok(digest);
        }
        drop(in_use);
        let mut writer = self.writer()?;
        writer
            .write_all(bytes)
            .map_err(|error| RegistryError::io("write", &self.blob_path(&digest), error))?;
        writer.commit()?;
        Ok(digest)
    }

    fn check_layout(&self) -> Result<()> {
        let path = self.dir.join(LAYOUT_FILE);
        match fs::read(&path) {
            Ok(bytes) if is_version_1(&bytes) => Ok(()),
            Ok(_) => {
                let reason = format!("`{}` is not an OCI image layout of version 1", path.display());
                Err(RegistryError::InvalidDocument { what: "store", reason })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                writer::replace(&self.dir.join(INGEST), &path, LAYOUT.as_bytes())
            }
            Err(error) => Err(RegistryError::io("read", &path, error)),
        }
    }

    /// Takes the store's lock; it is released when the file is dropped.
    fn lock(&self) -> Result<File> {
        let path = self.dir.join(LOCK_FILE);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| RegistryError::io("open", &path, error))?;
        file.lock().map_err(|error| RegistryError::io("lock", &path, error))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn a_blob_written_is_read_back_and_checked() {
        let dir = TestDir::new("store");
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put(b"hello").unwrap();
        assert_eq!(digest, Digest::of(b"hello"));
        assert_eq!((store.has(&digest), store.blob_size(&digest)), (true, Some(5)));
        assert_eq!(store.read_blob(&digest, 5).unwrap(), b"hello");
        assert!(matches!(
            store.read_blob(&digest, 4),
            Err(RegistryError::BlobTooLarge { size: 5, limit: 4, .. })
        ));
        fs::write(store.blob_path(&digest), b"hell0").unwrap();
        assert!(matches!(
            store.read_blob(&digest, 5),
            Err(RegistryError::DigestMismatch { .. })
        ));
        let absent = Digest::of(b"absent");
        assert!(matches!(
            store.open_blob(&absent),
            Err(RegistryError::BlobMissing { .. })
        ));
        assert!(!store.has(&absent));
    }

    #[test]
    fn another_layout_is_not_touched() {
        let dir = TestDir::new("layout");
        fs::write(dir.path().join(LAYOUT_FILE), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
        assert!(matches!(
            Store::open(dir.path()),
            Err(RegistryError::InvalidDocument { .. })
        ));
    }
}
