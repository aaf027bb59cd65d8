//! A root file system at hand: an overlay that is mounted, a tree of files, or a directory as it lies.

use super::aside::Aside;
use super::diff::{DiffError, Options};
use super::overlay::Result;
use super::trees::{Reading, Tree};
use crate::beneath::{Dir, FileError};
use crate::layer::tar::TarWriter;
use crate::sandbox;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A root file system that is there until dropped.
#[derive(Debug)]
pub struct Rootfs {
    path: PathBuf,
    held: Held,
}

/// What goes when it is dropped.
#[derive(Debug)]
enum Held {
    /// Nothing: the directory is somebody else's.
    Nothing,
    /// An overlay.
    Mounted,
    /// An overlay that may be changed.
    Overlay(Overlay),
    /// A tree that may be changed.
    Tree(Box<Tree>),
    /// A tree that others read, too.
    #[expect(dead_code, reason = "held for what its drop does")]
    Reading(Reading),
}

/// The directories of an overlay that may be changed.
#[derive(Debug)]
pub(super) struct Overlay {
    /// Where changes go.
    pub(super) upper: Option<PathBuf>,
    pub(super) work: PathBuf,
    pub(super) mounted: bool,
}

impl Rootfs {
    /// A directory that stays when this goes.
    pub(super) fn directory(path: PathBuf) -> Self {
        let held = Held::Nothing;
        Self { path, held }
    }

    /// A mounted overlay that is only read.
    pub(super) fn mounted(path: PathBuf) -> Self {
        let held = Held::Mounted;
        Self { path, held }
    }

    pub(super) fn overlay(path: PathBuf, upper: PathBuf, work: PathBuf) -> Self {
        let held = Held::Overlay(Overlay {
            upper: Some(upper),
            work,
            mounted: true,
        });
        Self { path, held }
    }

    pub(super) fn tree(tree: Tree) -> Self {
        Self {
            path: tree.path().to_owned(),
            held: Held::Tree(Box::new(tree)),
        }
    }

    pub(super) fn reading(reading: Reading) -> Self {
        Self {
            path: reading.path().to_owned(),
            held: Held::Reading(reading),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory that holds only what was changed.
    ///
    /// # Errors
    /// When it is no overlay that may be changed.
    pub fn changes(&self) -> Result<Dir> {
        match &self.held {
            Held::Overlay(Overlay { upper: Some(upper), .. }) => Ok(Dir::open(upper)?),
            _ => Err(self.cannot_change().into()),
        }
    }

    /// Writes what was changed in a tree since it was given out, as a layer; gives the number of entries. From then on, only later changes
    /// count.
    ///
    /// # Errors
    /// When it is no tree that may be changed; when reading or writing fails.
    pub fn write_changes<W: Write>(
        &mut self,
        tar: &mut TarWriter<W>,
        options: &Options<'_>,
        aside: &Aside,
    ) -> std::result::Result<usize, DiffError> {
        match &mut self.held {
            Held::Tree(tree) => tree.write_changes(tar, options, aside),
            _ => Err(self.cannot_change().into()),
        }
    }

    fn cannot_change(&self) -> FileError {
        let error = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        FileError::new("read changes of", &self.path, error)
    }

    /// Unmounts, so that the changes lie still.
    pub fn unmount(&mut self) {
        if let Held::Overlay(overlay) = &mut self.held
            && std::mem::take(&mut overlay.mounted)
        {
            sandbox::unmount(&self.path);
        }
    }

    /// Takes the directory of changes, of an overlay.
    pub(super) fn take_upper(&mut self) -> Option<PathBuf> {
        match &mut self.held {
            Held::Overlay(overlay) => overlay.upper.take(),
            _ => None,
        }
    }

    /// Takes the tree, if it may be changed.
    pub(super) fn take_tree(&mut self) -> Option<Tree> {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Tree(tree) => Some(*tree),
            other => {
                self.held = other;
                None
            }
        }
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        self.unmount();
        match &self.held {
            Held::Mounted => sandbox::unmount(&self.path),
            Held::Overlay(overlay) => overlay
                .upper
                .iter()
                .chain([&overlay.work])
                .for_each(|path| remove(path)),
            Held::Nothing | Held::Tree(_) | Held::Reading(_) => {}
        }
    }
}

/// Removes a directory of the scratch directory. What cannot be removed now goes with that.
pub(super) fn remove(path: &Path) {
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && let Ok(parent) = Dir::open(parent)
    {
        drop(parent.remove_all(name));
    }
}
