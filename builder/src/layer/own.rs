//! What a layer has made, when it is applied to the files of the layers below.
//!
//! Known by device and inode, since a path may lead through links: whatever the layer makes has a new inode, and what it replaces is
//! removed, never written to.

use crate::beneath::{Dir, FileError, kind};
use rustix::fs::{FileType, Stat};
use std::collections::HashSet;
use std::path::PathBuf;

/// Files that a layer has made, and directories that it has an entry of or in.
#[derive(Debug, Default)]
pub(super) struct Own(HashSet<(u64, u64)>);

impl Own {
    pub(super) fn note(&mut self, stat: &Stat) {
        self.0.insert((stat.st_dev, stat.st_ino));
    }

    pub(super) fn has(&self, stat: &Stat) -> bool {
        self.0.contains(&(stat.st_dev, stat.st_ino))
    }

    /// Removes everything below `top` that is not the layer's own. What is in a directory that is not its own is neither.
    pub(super) fn only(&self, top: &Dir) -> Result<(), FileError> {
        // Paths in place of open directories: their number would be bounded by that of a process's files.
        let mut open = vec![PathBuf::new()];
        while let Some(path) = open.pop() {
            let dir = top.plain_dir(&path)?;
            for name in dir.names()? {
                match dir.metadata(&name)? {
                    Some(stat) if !self.has(&stat) => dir.remove_all(&name)?,
                    Some(stat) if kind(&stat) == FileType::Directory => open.push(path.join(&name)),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}
