//! One download at a time of a blob, over all processes that share a store.

use std::fs::{File, TryLockError};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{LOCKS, Store};
use rustix::fs::OFlags;

use crate::digest::Digest;
use crate::error::{RegistryError, Result};

/// Neither followed nor waited for.
const NO_SURPRISES: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);
/// How often a waiter looks again. The kernel's own waiting could not be given up when a build is stopped.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// Says that nobody else fetches a blob, or changes a list of names, now. Dropped, or when its process dies, another may.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    /// The lock is the open file's: it goes with the process, however that ends.
    _file: File,
}

impl Claim {
    /// Takes the lock file `path`, which is there only while it is held. `None` while somebody else holds it.
    ///
    /// # Errors
    /// `Io` when the lock cannot be made.
    pub fn try_take(path: &Path) -> Result<Option<Self>> {
        try_claim(path)
    }
}

impl Store {
    /// Waits until nobody else fetches a blob. Whoever gets the claim looks first whether the blob has come meanwhile.
    ///
    /// # Errors
    /// `Io` when the lock cannot be made.
    pub async fn claim(&self, digest: &Digest) -> Result<Claim> {
        claim(&self.dir().join(LOCKS).join(digest.hex())).await
    }
}

/// Waits until nobody else holds the lock file, which is there only while it is held.
pub(crate) async fn claim(path: &Path) -> Result<Claim> {
    let mut wait = FIRST_WAIT;
    loop {
        if let Some(claim) = try_claim(path)? {
            return Ok(claim);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Removes the locks that killed processes have left; one that is held stays.
pub(super) fn sweep(locks: &Path) {
    for entry in std::fs::read_dir(locks).into_iter().flatten().flatten() {
        drop(try_claim(&entry.path()));
    }
}

fn try_claim(path: &Path) -> Result<Option<Claim>> {
    let failed = |error| RegistryError::io("lock", path, error);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        // In a directory of others it may be a link that leads elsewhere, or a pipe that never opens.
        .custom_flags(NO_SURPRISES.bits().cast_signed())
        .open(path)
        .map_err(failed)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
        Ok(()) => {}
    }
    // The holder before us has removed the file we opened: the next one to come would make another, and both would go on.
    let ours = file.metadata().map_err(failed)?;
    let is_current = std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
    Ok(is_current.then(|| Claim {
        path: path.to_owned(),
        _file: file,
    }))
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While the lock is still held, so that nobody can be between opening and locking it unnoticed.
        super::writer::remove_quietly(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[tokio::test]
    async fn one_at_a_time_and_a_dropped_claim_frees_it() {
        let dir = TestDir::new("claim");
        let store = Store::open(dir.path()).unwrap();
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let held = store.claim(&one).await.unwrap();
        drop(store.claim(&other).await.unwrap());
        let again = store.clone();
        let digest = one.clone();
        let waiter = tokio::spawn(async move { again.claim(&digest).await.map(drop) });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiter.is_finished());
        drop(held);
        waiter.await.unwrap().unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join(LOCKS)).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn many_claimants_never_overlap() {
        let dir = TestDir::new("claims");
        let inside = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (store, inside) = (Store::open(dir.path()).unwrap(), inside.clone());
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let claim = store.claim(&Digest::of(b"x")).await.unwrap();
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(claim);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}
