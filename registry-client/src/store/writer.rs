//! Writing one blob: a temporary file, hashed on the way, that appears under its digest when it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{INGEST, Store};
use crate::digest::{Digest, DigestWriter};
use crate::error::{RegistryError, Result};

/// Small writes are gathered; large ones pass straight through.
const BUFFER_SIZE: usize = 128 * 1024;

/// Writes a blob of unknown digest. Dropped without a commit, it leaves nothing behind.
pub struct BlobWriter {
    store: Store,
    temporary: Temporary,
    /// `None` only after a commit has begun.
    output: Option<DigestWriter<BufWriter<File>>>,
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWriter")
            .field("path", &self.temporary.path)
            .finish_non_exhaustive()
    }
}

impl BlobWriter {
    pub(super) fn create(store: Store) -> Result<Self> {
        let (path, file) = create_temporary(&store.dir().join(INGEST))?;
        let output = Some(DigestWriter::new(BufWriter::with_capacity(BUFFER_SIZE, file)));
        Ok(Self {
            store,
            temporary: Temporary { path },
            output,
        })
    }

    /// Returns how many bytes were written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.output.as_ref().map_or(0, DigestWriter::written)
    }

    /// Makes the blob appear under its digest. Returns the digest and the size in bytes.
    ///
    /// # Errors
    /// `Io` when the file cannot be completed; then nothing appears.
    pub fn commit(mut self) -> Result<(Digest, u64)> {
        let (file, digest, size) = self.close()?;
        self.publish(&file, &digest)?;
        Ok((digest, size))
    }

    /// Makes the blob appear only if it is the one expected.
    ///
    /// # Errors
    /// `SizeMismatch` or `DigestMismatch` when it is another one, `Io` when the file cannot be completed.
    pub fn commit_expecting(mut self, expected: &Digest, size: Option<u64>) -> Result<()> {
        let (file, actual, written) = self.close()?;
        let what = format!("blob {expected}");
        if let Some(size) = size
            && size != written
        {
            return Err(RegistryError::SizeMismatch {
                what,
                expected: size,
                actual: written,
            });
        }
        if actual != *expected {
            return Err(RegistryError::DigestMismatch {
                what: "the content received".to_owned(),
                expected: expected.clone(),
                actual,
            });
        }
        self.publish(&file, expected)
    }

    fn close(&mut self) -> Result<(File, Digest, u64)> {
        let output = self.output.take().ok_or(RegistryError::Stopped {
            operation: "writing a blob",
        })?;
        let (buffered, digest, size) = output.finish();
        let file = buffered.into_inner().map_err(|error| self.failed(error.into_error()))?;
        Ok((file, digest, size))
    }

    fn publish(&self, file: &File, digest: &Digest) -> Result<()> {
        file.sync_data().map_err(|error| self.failed(error))?;
        fs::rename(&self.temporary.path, self.store.blob_path(digest)).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> RegistryError {
        RegistryError::io("write", &self.temporary.path, error)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.output
            .as_mut()
            .map_or_else(|| Err(io::ErrorKind::BrokenPipe.into()), |output| output.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// Removes its file when dropped; after a rename there is nothing to remove.
struct Temporary {
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        remove_quietly(&self.path);
    }
}

pub(super) fn remove_quietly(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a temporary file");
        }
        _ => {}
    }
}

/// Makes a new file, locked so that nobody sweeps it away while it is written.
pub(super) fn create_temporary(dir: &Path) -> Result<(PathBuf, File)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    // Containers that share a store may have equal process ids: on a clash the next name is tried.
    for _ in 0..10_000 {
        let name = format!("{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let path = dir.join(name);
        match File::options().write(true).create_new(true).open(&path) {
            Ok(file) => {
                file.try_lock()
                    .map_err(|error| RegistryError::io("lock", &path, error.into()))?;
                return Ok((path, file));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(RegistryError::io("create", &path, error)),
        }
    }
    Err(RegistryError::io(
        "create a file in",
        dir,
        io::ErrorKind::AlreadyExists.into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn ingest_count(dir: &TestDir) -> usize {
        fs::read_dir(dir.path().join(INGEST)).unwrap().count()
    }

    #[test]
    fn dropped_without_commit_leaves_nothing() {
        let dir = TestDir::new("writer-drop");
        let store = Store::open(dir.path()).unwrap();
        let mut writer = store.writer().unwrap();
        writer.write_all(b"half").unwrap();
        assert_eq!(ingest_count(&dir), 1);
        drop(writer);
        assert_eq!(ingest_count(&dir), 0);
    }

    #[test]
    fn only_the_expected_blob_appears() {
        let dir = TestDir::new("writer-expect");
        let store = Store::open(dir.path()).unwrap();
        let digest = Digest::of(b"whole");
        let write = |bytes: &[u8]| {
            let mut writer = store.writer().unwrap();
            writer.write_all(bytes).unwrap();
            writer
        };
        let short = write(b"whol").commit_expecting(&digest, Some(5));
        assert!(matches!(
            short,
            Err(RegistryError::SizeMismatch {
                expected: 5,
                actual: 4,
                ..
            })
        ));
        let other = write(b"other").commit_expecting(&digest, Some(5));
        assert!(matches!(other, Err(RegistryError::DigestMismatch { .. })));
        assert!(!store.has(&digest));
        write(b"whole").commit_expecting(&digest, None).unwrap();
        assert_eq!(store.read_blob(&digest, 10).unwrap(), b"whole");
        assert_eq!(write(b"whole").commit().unwrap(), (digest, 5));
        assert_eq!(ingest_count(&dir), 0);
    }
}
