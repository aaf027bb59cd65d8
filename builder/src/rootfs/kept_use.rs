//! Which unpacked layers are there and when each was used last; removing them while builds run.

use super::kept::{FILES, SEAL};
use super::overlay::{Layers, Result};
use crate::beneath::{Dir, FileError};
use std::fs::File;
use std::time::SystemTime;

/// Lock that is shared by those who use layers, and held alone by those who remove them.
const USE_LOCK: &str = ".use.lock";

/// An unpacked layer among all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUse {
    /// Name of its directory.
    pub name: String,
    /// Bytes that its files take, about.
    pub size: u64,
    /// When it was used last.
    pub used: SystemTime,
}

impl Layers {
    /// Lists all layers that lie unpacked. Their files are not looked at.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn usage(&self) -> Result<Vec<LayerUse>> {
        let names = Dir::open(&self.dir)?.names()?.into_iter();
        let names = names.map(|name| name.to_string_lossy().into_owned());
        let of = |name: String| LayerUse {
            size: self.noted(&name).and_then(|noted| size(&noted)).unwrap_or(0),
            used: self.last_use(&name),
            name,
        };
        Ok(names.filter(|name| !name.starts_with('.')).map(of).collect())
    }

    /// Moves those layers out of use that were not used since `before`; gives their names. They are removed when no build runs that may
    /// still have them mounted.
    ///
    /// # Errors
    /// When one cannot be moved.
    pub fn remove_unused(&self, names: &[String], before: SystemTime) -> Result<Vec<String>> {
        let lock = self.use_lock()?;
        lock.lock()
            .map_err(|e| FileError::new("lock", self.dir.join(USE_LOCK), e))?;
        let mut removed = Vec::new();
        for name in names.iter().filter(|name| self.last_use(name) < before) {
            let home = self.dir.join(name);
            match std::fs::rename(&home, super::scratch::trash(&self.scratch)) {
                Ok(()) => removed.push(name.clone()),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(FileError::new("move", home, e).into()),
            }
        }
        Ok(removed)
    }

    /// Keeps layers from being removed while it is looked whether they are here.
    pub(super) fn in_use(&self) -> Result<File> {
        let lock = self.use_lock()?;
        lock.lock_shared()
            .map_err(|e| FileError::new("lock", self.dir.join(USE_LOCK), e))?;
        Ok(lock)
    }

    fn use_lock(&self) -> Result<File> {
        let path = self.dir.join(USE_LOCK);
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        Ok(file.map_err(|e| FileError::new("open", path, e))?)
    }

    /// When a layer was used last; what has no seal was never used.
    fn last_use(&self, name: &str) -> SystemTime {
        let home = self.dir.join(name);
        let modified = |path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let used = modified(home.join(SEAL)).or_else(|| modified(home.join(FILES)));
        used.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Reads the size out of a seal's line.
fn size(noted: &str) -> Option<u64> {
    noted.rsplit_once(' ')?.1.parse().ok()
}
