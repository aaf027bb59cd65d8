//! Whether a blob's file is still what was hashed.
//!
//! Hashing every layer of every build anew would cost more than the build. So what the file looked like when its content was
//! known to be right is noted beside the blobs: its size, its times and its inode. Nobody can set a file's change time, so a file
//! that still looks the same was not written to since; one that looks different is hashed again before it gets into an image.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{CHECKED, INGEST, Store, writer};
use crate::digest::Digest;
use crate::error::{RegistryError, Result};

/// Changes when the meaning of a stamp does; a stamp of another form is none.
const VERSION: &str = "roadstead-stamp/1";
/// Largest stamp read; one is some two hundred bytes.
const LIMIT: u64 = 1024;

impl Store {
    /// Tells whether a blob is here and right. It is hashed only if its file looks different from when that was done last; a wrong
    /// one is removed, for nobody has a use for it.
    ///
    /// # Errors
    /// `Io` when it cannot be read.
    pub fn verified(&self, digest: &Digest) -> Result<bool> {
        let path = self.blob_path(digest);
        let failed = |error| RegistryError::io("read", &path, error);
        // Held until the use is noted: nobody removes the blob between.
        let _in_use = self.in_use()?;
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            return Ok(false);
        }
        if self.is_stamped(digest, &meta) {
            self.note_use(digest);
            return Ok(true);
        }
        if hash(&mut file).map_err(failed)? == *digest {
            self.stamp(digest, &meta);
            return Ok(true);
        }
        tracing::warn!(blob = %digest, "a blob of the store is damaged, and was removed");
        self.remove_blob(digest);
        Ok(false)
    }

    /// Has a blob hashed before it is used the next time: something read from it was wrong.
    pub fn distrust(&self, digest: &Digest) {
        writer::remove_quietly(&self.stamp_path(digest));
    }

    /// Removes a blob, if it is here.
    pub(crate) fn remove_blob(&self, digest: &Digest) {
        writer::remove_quietly(&self.blob_path(digest));
        self.distrust(digest);
    }

    /// Notes what a blob's file looks like whose content is known to be right. Without the note it is hashed again, so failing to
    /// write it is no failure.
    pub(super) fn stamp(&self, digest: &Digest, meta: &fs::Metadata) {
        write(&self.dir().join(INGEST), &self.stamp_path(digest), digest, meta);
    }

    pub(super) fn stamp_path(&self, digest: &Digest) -> PathBuf {
        self.dir().join(CHECKED).join(digest.hex())
    }

    fn is_stamped(&self, digest: &Digest, meta: &fs::Metadata) -> bool {
        let path = self.stamp_path(digest);
        fs::metadata(&path).is_ok_and(|stamp| stamp.len() <= LIMIT)
            && fs::read(&path).is_ok_and(|found| found == text(digest, meta).as_bytes())
    }
}

/// Writes a stamp. It is not made durable: one that a crash tears is no stamp.
pub(super) fn write(ingest: &Path, path: &Path, digest: &Digest, meta: &fs::Metadata) {
    let written = writer::create_temporary(ingest).and_then(|(temporary, mut file)| {
        let placed = file
            .write_all(text(digest, meta).as_bytes())
            .and_then(|()| fs::rename(&temporary.path, path));
        placed.map_err(|error| RegistryError::io("write", path, error))
    });
    if let Err(error) = written {
        tracing::debug!(blob = %digest, %error, "a blob's stamp was not written");
    }
}

/// The whole stamp: the blob it is for, what its file looks like, and a digest of both, so that no damaged stamp vouches for a blob.
fn text(digest: &Digest, meta: &fs::Metadata) -> String {
    let line = format!(
        "{VERSION} {digest} size={} mtime={}.{} ctime={}.{} inode={}\n",
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
        meta.ino()
    );
    let check = Digest::of(line.as_bytes());
    format!("{line}{check}\n")
}

/// Hashes what is left of a file.
pub(super) fn hash(file: &mut File) -> std::io::Result<Digest> {
    let mut hash = crate::digest::DigestWriter::new(std::io::sink());
    let mut buffer = vec![0; super::check::BUFFER_SIZE];
    loop {
        let read = std::io::Read::read(file, &mut buffer)?;
        if read == 0 {
            return Ok(hash.finish().1);
        }
        hash.write_all(&buffer[..read])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn a_blob_is_hashed_only_when_its_file_changed() {
        let dir = TestDir::new("stamps");
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put(b"hello").unwrap();
        let stamp = store.stamp_path(&digest);
        assert!(stamp.exists() && store.verified(&digest).unwrap());
        // The stamp is what is believed: one that is written for what lies there now vouches for it.
        fs::write(store.blob_path(&digest), b"hell0").unwrap();
        store.stamp(&digest, &fs::metadata(store.blob_path(&digest)).unwrap());
        assert!(store.verified(&digest).unwrap());
        store.distrust(&digest);
        assert!(!store.verified(&digest).unwrap());
        assert!(!store.has(&digest) && !stamp.exists());
    }

    #[test]
    fn damage_of_a_blob_or_of_its_stamp_is_noticed() {
        let dir = TestDir::new("stamps-damage");
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put(b"hello").unwrap();
        // A right blob whose stamp is damaged in any way gets a new one.
        let good = fs::read(store.stamp_path(&digest)).unwrap();
        for at in 0..good.len() {
            let mut damaged = good.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(store.stamp_path(&digest), damaged).unwrap();
            assert!(store.verified(&digest).unwrap());
            assert_eq!(fs::read(store.stamp_path(&digest)).unwrap(), good);
        }
        // Damage of equal size, with the modification time set back: only the change time tells.
        let modified = fs::metadata(store.blob_path(&digest)).unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(store.blob_path(&digest), b"hell0").unwrap();
        let file = File::options().write(true).open(store.blob_path(&digest)).unwrap();
        file.set_modified(modified).unwrap();
        assert!(!store.verified(&digest).unwrap());
        // It can come back.
        store.put(b"hello").unwrap();
        assert!(store.verified(&digest).unwrap());
    }

    #[test]
    fn a_small_blob_that_is_put_again_replaces_a_damaged_one() {
        let dir = TestDir::new("stamps-put");
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put(b"hello").unwrap();
        fs::write(store.blob_path(&digest), b"hell0").unwrap();
        store.put(b"hello").unwrap();
        assert_eq!(store.read_blob(&digest, 10).unwrap(), b"hello");
    }
}
