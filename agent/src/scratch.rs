//! A private directory that is gone when its owner is.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
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
        match fs::remove_dir_all(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary directory"),
        }
    }
}
