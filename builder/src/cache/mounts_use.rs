//! Which cache mounts are there and when each was used last; removing those that no command uses.

use super::mounts::CacheMounts;
use crate::beneath::{Dir, FileError, kind};
use rustix::fs::FileType;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A cache mount among all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountUse {
    /// Its directory, below that of all cache mounts.
    pub name: String,
    /// Bytes of its files.
    pub size: u64,
    /// When it was used last.
    pub used: SystemTime,
    /// Whether a command uses it now.
    pub is_used: bool,
}

impl CacheMounts {
    /// Lists all cache mounts. Their files are counted, which takes its time.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn usage(&self) -> Result<Vec<MountUse>, FileError> {
        let mut all = Vec::new();
        let root = Dir::open(&self.dir)?;
        for home in root.names()? {
            let Ok(dir) = root.plain_dir(Path::new(&home)) else {
                continue;
            };
            for number in dir.names()? {
                let is_mount = number.as_encoded_bytes().iter().all(u8::is_ascii_digit);
                if !is_mount {
                    continue;
                }
                let name = format!("{}/{}", home.to_string_lossy(), number.to_string_lossy());
                let lock = self.lock(&name)?;
                let used = lock.metadata().and_then(|meta| meta.modified());
                all.push(MountUse {
                    size: size(&dir.plain_dir(Path::new(&number))?)?,
                    used: used.unwrap_or(SystemTime::UNIX_EPOCH),
                    is_used: lock.try_lock().is_err(),
                    name,
                });
            }
        }
        Ok(all)
    }

    /// Removes a cache mount unless a command uses it, or has since `before`. Tells whether it is gone.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_unused(&self, name: &str, before: SystemTime) -> Result<bool, FileError> {
        // Held until it is gone. The file stays: others may wait for it.
        let lock = self.lock(name)?;
        let used = lock.metadata().and_then(|meta| meta.modified());
        if lock.try_lock().is_err() || used.is_ok_and(|used| used >= before) {
            return Ok(false);
        }
        let path = self.dir.join(name);
        let (Some(home), Some(number)) = (path.parent(), path.file_name()) else {
            return Ok(false);
        };
        // It must not be seen half empty, were this to be killed: what is called `.part` is removed by the next one to make it.
        let mut part = number.to_owned();
        part.push(".part");
        std::fs::rename(&path, home.join(&part)).map_err(|e| FileError::new("move", &path, e))?;
        Dir::open(home)?.remove_all(&part)?;
        Ok(true)
    }

    fn lock(&self, name: &str) -> Result<File, FileError> {
        let path: PathBuf = self.dir.join(format!("{name}.lock"));
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        options.open(&path).map_err(|e| FileError::new("open", path, e))
    }
}

/// Counts the bytes of all files.
fn size(root: &Dir) -> Result<u64, FileError> {
    let (mut total, mut open) = (0_u64, vec![PathBuf::new()]);
    while let Some(path) = open.pop() {
        // A command may remove it meanwhile.
        let Ok(dir) = root.plain_dir(&path) else { continue };
        for name in dir.names()? {
            let Some(stat) = dir.metadata(OsStr::new(&name))? else {
                continue;
            };
            total = total.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
            if kind(&stat) == FileType::Directory {
                open.push(path.join(&name));
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::mount::Sharing;
    use roadstead_registry_client::Digest;
    use std::time::Duration;

    #[test]
    fn one_in_use_stays() {
        let base = std::env::temp_dir().join(format!("roadstead-mounts-use-{}", std::process::id()));
        let mounts = CacheMounts::open(&base).unwrap();
        let fill = |path: &Path| std::fs::write(path.join("f"), "12345").map_err(|e| FileError::new("write", path, e));
        let take = || mounts.take(&Digest::of(b"id"), Sharing::Shared, || true, fill).unwrap();
        let held = take();
        let later = SystemTime::now() + Duration::from_secs(60);
        let all = mounts.usage().unwrap();
        let [only] = all.as_slice() else { panic!("{all:?}") };
        assert!(only.size >= 5 && only.is_used);
        assert!(!mounts.remove_unused(&only.name, later).unwrap());
        drop(held);
        assert!(!mounts.remove_unused(&only.name, SystemTime::UNIX_EPOCH).unwrap());
        assert!(mounts.remove_unused(&only.name, later).unwrap());
        assert_eq!(mounts.usage().unwrap(), []);
        assert!(take().is_some());
        std::fs::remove_dir_all(&base).unwrap();
    }
}
