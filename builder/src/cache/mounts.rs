//! Directories of `RUN --mount=type=cache`: they outlive the build, on this machine.
//!
//! One id has one directory, and more where `sharing=private` asks for them while others are in use. Beside each lies a file that
//! its users lock; a process's end frees it.

use super::key::KeyBuilder;
use crate::beneath::{Dir, FileError};
use crate::dockerfile::mount::Sharing;
use crate::layer::write::StepLayer;
use roadstead_registry_client::Digest;
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a directory that somebody has locked is asked for again.
const PATIENCE: Duration = Duration::from_millis(50);
/// The directory of an id that is not private, and the first of a private one.
const FIRST: &str = "0";
/// Ending of the note beside a directory that tells what was saved of it.
const SAVED: &str = "saved";
/// More commands than this never use one private cache at once.
const MOST: usize = 1000;

/// All cache mounts of this machine.
#[derive(Debug, Clone)]
pub struct CacheMounts {
    pub(super) dir: PathBuf,
}

/// A cache mount in use. Dropping it lets others have it.
#[derive(Debug)]
pub struct CacheMount {
    path: PathBuf,
    _lock: File,
}

impl CacheMounts {
    /// Uses the directory `dir`, which is created.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        crate::rootfs::scratch::private_dir(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Takes the directory of `key` into use, and makes it by `fill` when there is none. `None` when `canceled` says so while it is
    /// waited for.
    ///
    /// # Errors
    /// When files cannot be made or locked, or `fill` fails; then no directory is left.
    pub fn take<E: From<FileError>>(
        &self,
        key: &Digest,
        sharing: Sharing,
        canceled: impl Fn() -> bool,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Option<CacheMount>, E> {
        let home = self.dir.join(key.hex());
        crate::rootfs::scratch::private_dir(&home)?;
        let Some((name, lock)) = locked(&home, sharing, &canceled)? else {
            return Ok(None);
        };
        let path = home.join(&name);
        if !path.is_dir() && !make(&home, &name, &canceled, fill)? {
            return Ok(None);
        }
        // Only the order of removal depends on it.
        drop(lock.set_modified(std::time::SystemTime::now()));
        Ok(Some(CacheMount { path, _lock: lock }))
    }
}

/// What was last saved of a cache mount for other machines, or taken from them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMount {
    /// The files, as a layer upon nothing.
    pub layer: StepLayer,
    /// What [`CacheMount::state`] gave: as long as it stays, nothing is saved anew.
    pub state: Digest,
}

impl CacheMounts {
    /// Tells whether there is a directory of `key`.
    #[must_use]
    pub fn has(&self, key: &Digest) -> bool {
        self.dir.join(key.hex()).join(FIRST).is_dir()
    }

    /// Takes the directory of `key` for nobody else; `None` when somebody uses it, or there is none.
    ///
    /// # Errors
    /// When its lock cannot be opened.
    pub fn take_idle(&self, key: &Digest) -> Result<Option<CacheMount>, FileError> {
        if !self.has(key) {
            return Ok(None);
        }
        let home = self.dir.join(key.hex());
        let lock = wait_for(&home.join(format!("{FIRST}.lock")), false, &|| true)?;
        Ok(lock.map(|lock| CacheMount {
            path: home.join(FIRST),
            _lock: lock,
        }))
    }
}

impl CacheMount {
    /// What was last saved of it. A note that cannot be read is none.
    #[must_use]
    pub fn saved(&self) -> Option<SavedMount> {
        serde_json::from_slice(&std::fs::read(self.path.with_extension(SAVED)).ok()?).ok()
    }

    /// Notes what was saved of it.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn note_saved(&self, saved: &SavedMount) -> Result<(), FileError> {
        let (path, part) = (self.path.with_extension(SAVED), self.path.with_extension("saving"));
        let failed = |e| FileError::new("write", &path, e);
        std::fs::write(&part, serde_json::to_vec(saved).unwrap_or_default()).map_err(failed)?;
        std::fs::rename(&part, &path).map_err(failed)
    }

    /// Digests what can be seen of the files without reading them: names, kinds, modes, owners, sizes, times and inodes. The change time
    /// among them can be set by nobody: a command that puts the others back as they were is noticed, too.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn state(&self) -> Result<Digest, FileError> {
        state_of(&self.path)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The same of a directory that is about to become one: what others do with it then does not count.
///
/// # Errors
/// As for [`CacheMount::state`].
pub fn state_of(path: &Path) -> Result<Digest, FileError> {
    let mut key = KeyBuilder::new("cache mount state");
    add_state(&Dir::open(path)?, Path::new(""), &mut key)?;
    Ok(key.finish())
}

fn add_state(root: &Dir, path: &Path, key: &mut KeyBuilder) -> Result<(), FileError> {
    let dir = root.plain_dir(path)?;
    for name in dir.names()? {
        let Some(stat) = dir.metadata(&name)? else { continue };
        key.add("name", name.as_encoded_bytes());
        let numbers = [
            i128::from(stat.st_mode),
            i128::from(stat.st_uid),
            i128::from(stat.st_gid),
            i128::from(stat.st_mtime),
            i128::from(stat.st_mtime_nsec),
            i128::from(stat.st_ctime),
            i128::from(stat.st_ctime_nsec),
        ];
        key.add("stat", format!("{numbers:?}"));
        // Some file systems give directories other sizes and numbers each time they are mounted.
        if crate::beneath::kind(&stat).is_dir() {
            add_state(root, &path.join(&name), key)?;
        } else {
            key.add("file", format!("{} {}", stat.st_size, stat.st_ino));
        }
        key.add("end", "");
    }
    Ok(())
}

/// Locks a directory's file; gives the directory's name.
fn locked(home: &Path, sharing: Sharing, canceled: &impl Fn() -> bool) -> Result<Option<(String, File)>, FileError> {
    if sharing != Sharing::Private {
        return Ok(wait_for(
            &home.join(format!("{FIRST}.lock")),
            sharing == Sharing::Shared,
            canceled,
        )?
        .map(|lock| (FIRST.to_owned(), lock)));
    }
    for number in 0..MOST {
        let path = home.join(format!("{number}.lock"));
        let file = open(&path)?;
        match file.try_lock() {
            Ok(()) => return Ok(Some((number.to_string(), file))),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(FileError::new("lock", path, e)),
        }
    }
    Err(FileError::new(
        "find a free cache mount in",
        home,
        std::io::Error::from(std::io::ErrorKind::ResourceBusy),
    ))
}

fn open(path: &Path) -> Result<File, FileError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    file.map_err(|e| FileError::new("open", path, e))
}

fn wait_for(path: &Path, shared: bool, canceled: &impl Fn() -> bool) -> Result<Option<File>, FileError> {
    let file = open(path)?;
    loop {
        match if shared {
            file.try_lock_shared()
        } else {
            file.try_lock()
        } {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if canceled() => return Ok(None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PATIENCE),
            Err(TryLockError::Error(e)) => return Err(FileError::new("lock", path, e)),
        }
    }
}

/// Makes a directory that is complete when it appears. Tells whether it is there.
fn make<E: From<FileError>>(
    home: &Path,
    name: &str,
    canceled: &impl Fn() -> bool,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<bool, E> {
    // Those who share a directory may all find it missing.
    let Some(_making) = wait_for(&home.join(format!("{name}.making")), false, canceled)? else {
        return Ok(false);
    };
    let path = home.join(name);
    if path.is_dir() {
        return Ok(true);
    }
    let part = format!("{name}.part");
    let remove = || -> Result<(), FileError> {
        let dir = crate::beneath::Dir::open(home)?;
        match dir.metadata(part.as_ref())? {
            Some(_) => dir.remove_all(part.as_ref()),
            None => Ok(()),
        }
    };
    // What a killed build left.
    remove()?;
    let part_path = home.join(&part);
    std::fs::create_dir(&part_path).map_err(|e| FileError::new("create directory", &part_path, e))?;
    if let Err(error) = fill(&part_path) {
        remove()?;
        return Err(error);
    }
    std::fs::rename(&part_path, &path).map_err(|e| FileError::new("rename", &part_path, e))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(mounts: &CacheMounts, id: &str, sharing: Sharing) -> Option<CacheMount> {
        let fill = |path: &Path| std::fs::write(path.join("new"), id).map_err(|e| FileError::new("write", path, e));
        mounts.take(&Digest::of(id.as_bytes()), sharing, || true, fill).unwrap()
    }

    #[test]
    fn sharing_is_what_it_says() {
        let dir = std::env::temp_dir().join(format!("roadstead-cache-mounts-{}", std::process::id()));
        let mounts = CacheMounts::open(&dir).unwrap();
        let one = take(&mounts, "a", Sharing::Shared).unwrap();
        std::fs::write(one.path().join("kept"), "x").unwrap();
        let two = take(&mounts, "a", Sharing::Shared).unwrap();
        assert_eq!(one.path(), two.path());
        assert!(take(&mounts, "a", Sharing::Locked).is_none(), "others use it");
        let other = take(&mounts, "a", Sharing::Private).unwrap();
        assert_ne!(other.path(), one.path());
        assert!(other.path().join("new").exists() && !other.path().join("kept").exists());
        assert_ne!(take(&mounts, "b", Sharing::Locked).unwrap().path(), one.path());
        drop((one, two));
        let alone = take(&mounts, "a", Sharing::Locked).unwrap();
        assert!(alone.path().join("kept").exists());
        assert!(take(&mounts, "a", Sharing::Shared).is_none());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_file_whose_time_is_put_back_is_another() {
        let dir = std::env::temp_dir().join(format!("roadstead-cache-mounts-state-{}", std::process::id()));
        let mounts = CacheMounts::open(&dir).unwrap();
        let mount = take(&mounts, "a", Sharing::Locked).unwrap();
        let path = mount.path().join("deep/file");
        std::fs::create_dir(mount.path().join("deep")).unwrap();
        std::fs::write(&path, "one").unwrap();
        let before = mount.state().unwrap();
        assert_eq!(mount.state().unwrap(), before);
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        // The clock of files goes in steps.
        std::thread::sleep(Duration::from_millis(20));
        std::fs::write(&path, "two").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
        assert_ne!(mount.state().unwrap(), before);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn one_that_cannot_be_filled_is_not_there() {
        let dir = std::env::temp_dir().join(format!("roadstead-cache-mounts-bad-{}", std::process::id()));
        let mounts = CacheMounts::open(&dir).unwrap();
        let key = Digest::of(b"x");
        let fail = |path: &Path| {
            std::fs::write(path.join("half"), "x").unwrap();
            Err(FileError::new("fill", path, std::io::Error::other("no")))
        };
        mounts.take(&key, Sharing::Shared, || true, fail).unwrap_err();
        let good = mounts
            .take(&key, Sharing::Shared, || true, |_: &Path| Ok::<_, FileError>(()))
            .unwrap();
        assert_eq!(std::fs::read_dir(good.unwrap().path()).unwrap().count(), 0);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
