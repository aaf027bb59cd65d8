//! The temporary directory of one build, on the file system of the layers. It goes when the build does; one that a killed build left
//! behind goes with the next build's start.
//!
//! Beside the builds' directories lies what was moved out of use while builds that still need it may run (`trash-…`). It goes when no
//! build runs that began before.

use crate::beneath::{Dir, FileError};
use rustix::fs::FlockOperation;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// How names of what was moved out of use begin.
const TRASH: &str = "trash-";

/// A directory that is removed on drop and locked as long as it is in use.
#[derive(Debug)]
pub struct Scratch {
    parent: PathBuf,
    name: String,
    _lock: File,
}

impl Scratch {
    /// Removes what dead builds left in `parent`, then makes a directory there.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(parent: &Path) -> Result<Self, FileError> {
        private_dir(parent)?;
        remove_abandoned(parent)?;
        let (name, lock) = locked_name(parent)?;
        let path = parent.join(&name);
        std::fs::create_dir(&path).map_err(|e| FileError::new("create directory", &path, e))?;
        Ok(Self {
            parent: parent.to_owned(),
            name,
            _lock: lock,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }
}

/// Creates a directory that only its owner may enter: set-uid programs and devices of images lie below.
///
/// # Errors
/// When it cannot be made.
pub fn private_dir(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failed = |e| FileError::new("create directory", path, e);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        // A file of that name is no directory, and found out here rather than in the middle of the build.
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists || !path.is_dir() => Err(failed(e)),
        _ => Ok(()),
    }
}

/// Takes a name nobody uses. The lock is held before it has the name by which other builds look for locks nobody holds.
fn locked_name(parent: &Path) -> Result<(String, File), FileError> {
    let mut number = 0u32;
    loop {
        // Process ids are not enough: containers that share the directory have their own.
        let name = format!("build-{}-{number}", std::process::id());
        let (unnamed, lock_path) = (parent.join(format!("{name}.new")), parent.join(format!("{name}.lock")));
        number += 1;
        let lock = match File::create_new(&unnamed) {
            Ok(lock) => lock,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && number < 10_000 => continue,
            Err(e) => return Err(FileError::new("create", &unnamed, e)),
        };
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| FileError::new("lock", &unnamed, e))?;
        let taken = std::fs::hard_link(&unnamed, &lock_path);
        std::fs::remove_file(&unnamed).map_err(|e| FileError::new("remove", &unnamed, e))?;
        match taken {
            Ok(()) => return Ok((name, lock)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(FileError::new("create", &lock_path, e)),
        }
    }
}

fn remove_abandoned(parent: &Path) -> Result<(), FileError> {
    let dir = Dir::open(parent)?;
    for lock_name in dir.names()? {
        let Some(name) = lock_name.to_str().and_then(|n| n.strip_suffix(".lock")) else {
            continue;
        };
        let Ok(lock) = dir.open_file(&lock_name) else { continue };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
            && is_named(&dir, &lock_name, &lock)?
            && !is_held(&dir, name)
        {
            remove(&dir, name);
        }
    }
    empty_trash(&dir)
}

/// Tells when the oldest of the builds that run began; `parent` is where all of them have their directories.
///
/// # Errors
/// When the directory cannot be read.
pub fn oldest_running(parent: &Path) -> Result<Option<SystemTime>, FileError> {
    let dir = Dir::open(parent)?;
    let mut oldest: Option<SystemTime> = None;
    for name in dir.names()? {
        if !name.as_encoded_bytes().ends_with(b".lock") {
            continue;
        }
        let Ok(lock) = dir.open_file(&name) else { continue };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err() {
            // Its file was made when it began. Of one that cannot be told nothing is known to be unused.
            let began = lock.metadata().and_then(|meta| meta.modified());
            let began = began.unwrap_or(SystemTime::UNIX_EPOCH);
            oldest = Some(oldest.map_or(began, |oldest| oldest.min(began)));
        }
    }
    Ok(oldest)
}

/// Tells whether `lock` is still what the name stands for: its owner may have removed it, and another build taken the name, between
/// opening and locking.
fn is_named(dir: &Dir, name: &OsStr, lock: &File) -> Result<bool, FileError> {
    use std::os::unix::fs::MetadataExt as _;
    let Some(named) = dir.metadata(name)? else {
        return Ok(false);
    };
    let held = lock
        .metadata()
        .map_err(|e| FileError::new("stat", dir.path().join(name), e))?;
    Ok((named.st_dev, named.st_ino) == (held.dev(), held.ino()))
}

/// Tells whether a supervisor of a build that is dead still takes back what it has lent a command.
fn is_held(dir: &Dir, name: &str) -> bool {
    let Ok(directory) = dir.plain_dir(Path::new(name)) else {
        return false;
    };
    rustix::fs::flock(directory.descriptor(), FlockOperation::NonBlockingLockExclusive).is_err()
}

/// Removes a scratch directory and its lock. What cannot be removed (files of ids not mapped now) is left for a build that can.
fn remove(dir: &Dir, name: &str) {
    if dir.remove_all(name.as_ref()).is_ok() {
        drop(dir.remove_all(format!("{name}.lock").as_ref()));
    }
}

/// A name for what a build moves out of use, beside its scratch directory.
pub(super) fn trash(scratch: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Other builds have other names now, but may have had this one before.
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let time = time.map_or(0, |since| since.as_nanos());
    let name = scratch.file_name().unwrap_or_default().to_string_lossy();
    scratch.with_file_name(format!("{TRASH}{name}-{time}-{number}"))
}

/// Removes what was moved out of use, unless a build runs. Those that begin now cannot have it in use.
fn empty_trash(dir: &Dir) -> Result<(), FileError> {
    let names = dir.names()?;
    let (trash, others): (Vec<_>, Vec<_>) = names
        .into_iter()
        .partition(|name| name.as_encoded_bytes().starts_with(TRASH.as_bytes()));
    let is_lock = |name: &&OsString| name.as_encoded_bytes().ends_with(b".lock");
    let is_held = |name: &OsString| {
        dir.open_file(name)
            .is_ok_and(|lock| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err())
    };
    if !trash.is_empty() && !others.iter().filter(is_lock).any(is_held) {
        // What cannot be removed now is left for a build that can.
        trash.iter().for_each(|name| drop(dir.remove_all(name)));
    }
    Ok(())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Ok(dir) = Dir::open(&self.parent) {
            remove(&dir, &self.name);
            drop(empty_trash(&dir));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_begin_at_once() {
        let parent = std::env::temp_dir().join(format!("roadstead-scratch-many-{}", std::process::id()));
        std::fs::create_dir_all(&parent).unwrap();
        let begin = || {
            (0..50)
                .map(|_| Scratch::new(&parent).unwrap().path())
                .collect::<Vec<_>>()
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(begin)).collect();
            assert!(threads.into_iter().all(|t| t.join().unwrap().len() == 50));
        });
        assert_eq!(std::fs::read_dir(&parent).unwrap().count(), 0);
        std::fs::remove_dir(&parent).unwrap();
    }

    #[test]
    fn removed_on_drop_and_when_abandoned() {
        let parent = std::env::temp_dir().join(format!("roadstead-scratch-{}", std::process::id()));
        std::fs::create_dir_all(parent.join("build-0/deep")).unwrap();
        std::fs::write(parent.join("build-0.lock"), "").unwrap();
        let scratch = Scratch::new(&parent).unwrap();
        assert!(!parent.join("build-0").exists() && scratch.path().is_dir());
        // One in use is left alone, and what it may have in use, too.
        std::fs::create_dir(trash(&scratch.path())).unwrap();
        remove_abandoned(&parent).unwrap();
        assert!(scratch.path().is_dir());
        assert_eq!(std::fs::read_dir(&parent).unwrap().count(), 3);
        drop(scratch);
        assert_eq!(std::fs::read_dir(&parent).unwrap().count(), 0);
        std::fs::remove_dir(&parent).unwrap();
    }
}
