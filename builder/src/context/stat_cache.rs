//! What the files of a context held when they were last read: one that has not changed since is not read again.
//!
//! A file counts as unchanged while its inode, size, time of modification and time of change are what they were. The last of them is
//! the kernel's and cannot be set. A file that was changed a moment before it was read is not remembered: it may change once more
//! within one tick of the file system's clock.

use super::files::Entry;
use crate::notes::Note;
use roadstead_registry_client::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Changes when the meaning of the file does.
const FORM: &str = "roadstead-stat/1";
/// Seconds for which a file must have been left alone. The coarsest clock of a file system in use, that of FAT, ticks every two.
const SETTLED: i64 = 3;
/// Largest cache read, in bytes: a million files.
const MAX_FILE: u64 = 256 << 20;

/// By which a file is known to be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stat {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    stat: Stat,
    content: Digest,
    /// Whether the file had been left alone for long enough: if not, it is read again, and only compared.
    settled: bool,
}

type Files = HashMap<PathBuf, Known>;

/// The files of one context. Cloning gives the same.
#[derive(Debug, Clone)]
pub struct StatCache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    note: Note,
    /// As they were when the build began.
    before: Files,
    /// As this build has found them.
    now: Mutex<Files>,
}

impl StatCache {
    /// Reads what is known of the context at `path`. A file that is damaged, too large or of another version counts as none.
    #[must_use]
    pub fn open(dir: &Path, path: &Path) -> Self {
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let note = Note::new(dir, FORM, path.as_os_str().as_encoded_bytes(), MAX_FILE);
        let before = note.read().unwrap_or_default();
        Self(Arc::new(Inner {
            note,
            before,
            now: Mutex::default(),
        }))
    }

    /// Gives the digest of a file's content, by `read` when it must be read.
    pub(super) fn content<E>(
        &self,
        path: &Path,
        entry: &Entry,
        read: impl FnOnce() -> Result<[u8; 32], E>,
    ) -> Result<Digest, E> {
        let stat = Stat {
            device: entry.id.0,
            inode: entry.id.1,
            size: entry.size,
            modified: entry.modified,
            changed: entry.changed,
        };
        let before = self.0.before.get(path);
        if let Some(known) = before.filter(|known| known.settled && known.stat == stat) {
            self.now().insert(path.to_owned(), known.clone());
            return Ok(known.content.clone());
        }
        if let Some(known) = self.now().get(path).filter(|known| known.stat == stat) {
            return Ok(known.content.clone());
        }
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let begun = i64::try_from(begun.as_secs()).unwrap_or_default();
        let content = Digest::from_sha256(read()?);
        let known = Known {
            stat,
            content: content.clone(),
            settled: stat.changed.0.max(stat.modified.0) + SETTLED < begun,
        };
        self.now().insert(path.to_owned(), known);
        Ok(content)
    }

    fn now(&self) -> std::sync::MutexGuard<'_, Files> {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what this build has found. Files that it did not look at stay as they were known, unless those are the most: then they
    /// are probably gone.
    ///
    /// # Errors
    /// When the file cannot be written; the one before is then still there.
    pub fn save(&self) -> io::Result<()> {
        let now = std::mem::take(&mut *self.now());
        let is_new = |(path, known): (&PathBuf, &Known)| self.0.before.get(path).is_none_or(|old| old != known);
        if !now.iter().any(is_new) {
            return Ok(());
        }
        let mut all = now;
        let others: Vec<_> = self
            .0
            .before
            .iter()
            .filter(|(path, _)| !all.contains_key(*path))
            .collect();
        if others.len() <= all.len() {
            all.extend(others.into_iter().map(|(path, known)| (path.clone(), known.clone())));
        }
        // A name that is no text has no place in the file.
        all.retain(|path, _| path.to_str().is_some());
        self.0.note.write(&all)
    }

    /// Tells which of the files of a copy are others than when a build before looked: `selected` are those it takes now, `below` the
    /// sources. Empty when the difference lies in something else, such as a mode.
    pub(super) fn changes(&self, below: &[&Path], selected: &BTreeSet<PathBuf>) -> Vec<String> {
        let now = self.now();
        let mut changes = Vec::new();
        for path in selected {
            let Some(seen) = now.get(path) else { continue };
            match self.0.before.get(path) {
                Some(old) if old.content == seen.content => {}
                Some(_) => changes.push(format!("{} changed", path.display())),
                None => changes.push(format!("{} is new", path.display())),
            }
        }
        let is_below = |path: &Path| below.iter().any(|below| path.starts_with(below));
        let gone = self
            .0
            .before
            .keys()
            .filter(|path| is_below(path) && !selected.contains(*path));
        let mut gone: Vec<String> = gone.map(|path| format!("{} is gone", path.display())).collect();
        gone.sort_unstable();
        changes.extend(gone);
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use crate::context::files::{Choice, Tree};
    use crate::context::ignore::Ignore;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static NUMBER: AtomicUsize = AtomicUsize::new(0);

    fn dir() -> PathBuf {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("roadstead-stat-{}-{number}", std::process::id()));
        std::fs::create_dir_all(dir.join("context/d")).unwrap();
        dir
    }

    fn digest(dir: &Path) -> (Digest, StatCache) {
        let stats = StatCache::open(&dir.join("stats"), &dir.join("context"));
        let context = Context {
            path: dir.join("context"),
            ignore: Ignore::default(),
            keeps_owners: false,
            stats: Some(stats.clone()),
        };
        let tree = Tree::context(&context).unwrap();
        let selected = tree.select("d", &Choice::default()).unwrap();
        (tree.digest(&selected).unwrap(), stats)
    }

    /// A file as if it had been there for long: its stat in the cache is that of now, the cache is another day's.
    fn settle(dir: &Path, stats: &StatCache) {
        stats.now().values_mut().for_each(|known| known.settled = true);
        stats.save().unwrap();
        assert_eq!(std::fs::read_dir(dir.join("stats")).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_the_same_is_not_read_again() {
        let dir = dir();
        std::fs::write(dir.join("context/d/a"), "a").unwrap();
        let (first, stats) = digest(&dir);
        // It was made a moment ago: that is not relied upon.
        stats.save().unwrap();
        assert!(!stats.0.before.contains_key(Path::new("d/a")));
        let (again, stats) = digest(&dir);
        settle(&dir, &stats);
        let (third, stats) = digest(&dir);
        assert_eq!((&first, &first), (&again, &third));
        let known = stats.now().get(Path::new("d/a")).cloned().unwrap();
        assert!(known.settled, "it came from the cache");
        std::fs::write(dir.join("context/d/a"), "b").unwrap();
        let (changed, stats) = digest(&dir);
        assert_ne!(changed, first);
        let selected = BTreeSet::from([PathBuf::from("d/a")]);
        assert_eq!(stats.changes(&[Path::new("d")], &selected), ["d/a changed"]);
        assert_eq!(stats.changes(&[Path::new("d")], &BTreeSet::new()), ["d/a is gone"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_damaged_cache_is_none() {
        let dir = dir();
        std::fs::write(dir.join("context/d/a"), "a").unwrap();
        let (first, stats) = digest(&dir);
        settle(&dir, &stats);
        let file = std::fs::read_dir(dir.join("stats"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let whole = std::fs::read(&file).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&file, &damaged).unwrap();
            let (found, stats) = digest(&dir);
            assert_eq!(found, first);
            assert!(stats.0.before.is_empty(), "byte {at}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
