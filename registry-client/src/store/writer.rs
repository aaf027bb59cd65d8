//! Writing one blob: a temporary file, hashed on the way, that appears under its digest when it is complete.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::content_file::ContentFile;
use super::growing::{Growing, State};
use crate::digest::{Digest, DigestWriter};
use crate::error::{RegistryError, Result};

/// Tells files being written from others where they share a directory.
pub(crate) const TEMPORARY_PREFIX: &str = ".roadstead-";

/// Writes a blob of unknown digest. Dropped without a commit, it leaves nothing behind.
pub struct BlobWriter {
    /// Directory in which the blob appears.
    blobs: PathBuf,
    /// Where it is noted what the blob's file looks like, and where such notes are made.
    stamps: Option<(PathBuf, PathBuf)>,
    temporary: Temporary,
    /// `None` only after a commit has begun.
    output: Option<DigestWriter<ContentFile>>,
    /// Tells those who follow how far it is.
    state: watch::Sender<State>,
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWriter")
            .field("path", &self.temporary.path)
            .finish_non_exhaustive()
    }
}

impl BlobWriter {
    /// Starts a blob in one directory that is to appear in another one of the same file system.
    pub(crate) fn create(ingest: &Path, blobs: &Path) -> Result<Self> {
        let (temporary, file) = create_temporary(ingest)?;
        let output = Some(DigestWriter::new(ContentFile::new(file)));
        Ok(Self {
            blobs: blobs.to_owned(),
            stamps: None,
            temporary,
            output,
            state: watch::Sender::new(State::default()),
        })
    }

    /// Has what the blob's file looks like noted in `checked`, for it was hashed on its way.
    pub(super) fn stamping(mut self, ingest: &Path, checked: &Path) -> Self {
        self.stamps = Some((ingest.to_owned(), checked.to_owned()));
        self
    }

    /// Gives a view of the blob to somebody who wants it before it ends.
    ///
    /// # Errors
    /// `Io` when its file cannot be opened once more.
    pub fn follow(&self) -> Result<Growing> {
        let file = File::open(&self.temporary.path).map_err(|error| self.failed(error))?;
        Ok(Growing::new(file, &self.temporary.path, self.state.subscribe()))
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
        let (content, digest, size) = output.finish();
        let file = content.finish().map_err(|error| self.failed(error))?;
        self.state.send_modify(|state| {
            state.written = size;
            state.digest = Some(digest.clone());
        });
        Ok((file, digest, size))
    }

    fn publish(&self, file: &File, digest: &Digest) -> Result<()> {
        file.sync_data().map_err(|error| self.failed(error))?;
        fs::rename(&self.temporary.path, self.blobs.join(digest.hex())).map_err(|error| self.failed(error))?;
        // The rename counts as a change, so only now.
        if let (Some((ingest, checked)), Ok(meta)) = (&self.stamps, file.metadata()) {
            super::stamps::write(ingest, &checked.join(digest.hex()), digest, &meta);
        }
        self.state.send_modify(|state| state.published = true);
        Ok(())
    }

    fn failed(&self, error: io::Error) -> RegistryError {
        RegistryError::io("write", &self.temporary.path, error)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let output = self.output.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let count = output.write(buffer)?;
        let written = output.get_ref().written();
        // Those who follow are woken when there is more in the file.
        self.state.send_if_modified(|state| {
            let more = written > state.written;
            state.written = written;
            more
        });
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// Removes its file when dropped; after a rename there is nothing to remove.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) path: PathBuf,
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
pub(crate) fn create_temporary(dir: &Path) -> Result<(Temporary, File)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    // Containers that share a store may have equal process ids: on a clash the next name is tried.
    for _ in 0..10_000 {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{TEMPORARY_PREFIX}{}-{number}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                match file.try_lock() {
                    // Somebody who sweeps has found it unlocked, and removes it: its place is not ours any more.
                    Err(TryLockError::WouldBlock) => continue,
                    Err(error) => return Err(RegistryError::io("lock", &path, error.into())),
                    Ok(()) => {}
                }
                let links = file.metadata().map(|meta| meta.nlink());
                if links.map_err(|error| RegistryError::io("read", &path, error))? > 0 {
                    return Ok((Temporary { path }, file));
                }
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

/// Writes a small file so that a reader sees the old or the new one.
pub(crate) fn replace(ingest: &Path, target: &Path, bytes: &[u8]) -> Result<()> {
    let (temporary, mut file) = create_temporary(ingest)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_data())
        .and_then(|()| fs::rename(&temporary.path, target))
        .map_err(|error| RegistryError::io("write", target, error))
}

/// Removes what killed processes have left. A file that is being written is locked by its writer; one that a writer has just created
/// may be taken from it, who then creates another.
pub(crate) fn sweep(ingest: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(ingest) else {
        return;
    };
    let ours = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes());
    for entry in entries.flatten().filter(ours) {
        // Held until the file is gone.
        let lock = File::open(entry.path()).ok();
        if lock.as_ref().is_some_and(|file| file.try_lock().is_ok()) {
            match fs::remove_file(entry.path()) {
                Ok(()) => tracing::debug!(path = %entry.path().display(), "removed an abandoned blob"),
                Err(error) => {
                    tracing::debug!(path = %entry.path().display(), %error, "cannot remove an abandoned blob");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{INGEST, Store};
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

    #[test]
    fn abandoned_files_are_swept_and_those_in_use_are_kept() {
        let dir = TestDir::new("sweep");
        let store = Store::open(dir.path()).unwrap();
        let in_use = store.writer().unwrap();
        let abandoned = dir.path().join(INGEST).join("abandoned");
        fs::write(&abandoned, b"x").unwrap();
        Store::open(dir.path()).unwrap();
        assert!(!abandoned.exists());
        in_use.commit().unwrap();
    }

    #[test]
    fn who_writes_and_who_sweeps_do_not_disturb_each_other() {
        let dir = TestDir::new("sweep-race");
        let store = Store::open(dir.path()).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    sweep(&dir.path().join(INGEST), "");
                }
            });
            for number in 0..500_u32 {
                let mut writer = store.writer().unwrap();
                writer.write_all(&number.to_be_bytes()).unwrap();
                writer.commit().unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
