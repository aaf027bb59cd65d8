//! A private directory that is gone when its owner is.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::FileError;

/// A directory of mode 0700 below the system's temporary directory, removed with all it holds on drop.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Result<Self, FileError> {
        // Short, since a socket's path in it may have at most 107 bytes.
        let name = uuid::Uuid::new_v4().simple().to_string();
        Self::at(std::env::temp_dir().join(format!("roadstead-{}", &name[..16])))
    }

    /// One in a directory that another process removes in the end, should this one be killed.
    pub(crate) fn below(directory: &Path) -> Result<Self, FileError> {
        Self::at(directory.join("run"))
    }

    fn at(path: PathBuf) -> Result<Self, FileError> {
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(FileError::at("create", &path))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf, FileError> {
        let path = self.path.join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(FileError::at("create", &path))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary directory");
        }
    }
}

/// Removes a directory with all it holds, those that a build has closed to their owner too. One that is gone is no error.
pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    let removed = fs::remove_dir_all(directory).or_else(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            open_up(directory);
            fs::remove_dir_all(directory)
        } else {
            Err(error)
        }
    });
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Lets the owner into a directory and all below it, following no links. What fails here shows when it is removed.
fn open_up(directory: &Path) {
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        let Ok(found) = fs::symlink_metadata(&directory) else {
            continue;
        };
        if !found.is_dir() {
            continue;
        }
        let mode = found.permissions().mode() | 0o700;
        if fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).is_err() {
            continue;
        }
        if let Ok(entries) = fs::read_dir(&directory) {
            left.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn directories_closed_by_a_build_are_opened_and_nothing_outside() {
        let (scratch, outside) = (Scratch::new().unwrap(), Scratch::new().unwrap());
        let target = outside.directory("target").unwrap();
        let closed = scratch.directory("closed").unwrap();
        let inner = closed.join("inner");
        fs::create_dir(&inner).unwrap();
        symlink(&target, closed.join("link")).unwrap();
        for (path, bits) in [(&target, 0o500), (&inner, 0o000), (&closed, 0o555)] {
            fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
        }
        open_up(&closed);
        assert_eq!((mode(&closed), mode(&inner), mode(&target)), (0o755, 0o700, 0o500));
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists() && target.exists());
        remove(&path).unwrap();
    }
}
