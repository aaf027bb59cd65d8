//! Turns: of the builds that share a cache, one does a step at a time. Those that come to it meanwhile wait, and find its result.
//!
//! A turn is a lock on a file that is there only as long as it is held or waited for. The kernel frees the turn of a build that was
//! killed; its file goes with the next one that opens the cache.

use super::local::LocalCache;
use roadstead_registry_client::{Claim, Digest, Error};
use std::path::{Path, PathBuf};

/// Directory of the locks, below the cache's.
const LOCKS: &str = "locks";

/// The right to do a step. Dropped, another build may.
#[derive(Debug)]
pub struct Turn {
    _claim: Claim,
}

impl LocalCache {
    /// Makes the directory of the locks, and removes the locks that killed builds have left.
    pub(super) fn open_turns(dir: &Path) -> std::io::Result<()> {
        let locks = dir.join(LOCKS);
        std::fs::create_dir_all(&locks)?;
        for entry in std::fs::read_dir(&locks)?.flatten() {
            // Whoever holds it keeps it. One that cannot be had now is left for another process.
            drop(Claim::try_take(&entry.path()));
        }
        Ok(())
    }

    /// Takes the turn of `key`, unless another build has it. Whoever gets it looks first whether the result has come meanwhile.
    ///
    /// # Errors
    /// When the lock cannot be made.
    pub fn try_turn(&self, key: &Digest) -> Result<Option<Turn>, Error> {
        let claim = Claim::try_take(&self.lock_path(key))?;
        Ok(claim.map(|claim| Turn { _claim: claim }))
    }

    fn lock_path(&self, key: &Digest) -> PathBuf {
        self.dir().join(LOCKS).join(key.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_registry_client::Store;

    #[test]
    fn one_at_a_time_whatever_a_killed_build_left() {
        let base = std::env::temp_dir().join(format!("roadstead-turns-{}", std::process::id()));
        let store = Store::open(&base.join("store")).unwrap();
        let open = || LocalCache::open(&base.join("cache"), &store).unwrap();
        let (cache, key) = (open(), Digest::of(b"key"));
        let turn = cache.try_turn(&key).unwrap().unwrap();
        assert!(open().try_turn(&key).unwrap().is_none());
        assert!(cache.try_turn(&Digest::of(b"other")).unwrap().is_some());
        drop(turn);
        assert!(open().try_turn(&key).unwrap().is_some());
        let locks = base.join("cache").join(LOCKS);
        std::fs::write(locks.join("left"), "").unwrap();
        let held = cache.try_turn(&key).unwrap();
        open();
        assert_eq!(std::fs::read_dir(&locks).unwrap().count(), 1);
        drop(held);
        assert_eq!(std::fs::read_dir(&locks).unwrap().count(), 0);
        std::fs::remove_dir_all(&base).unwrap();
    }
}
