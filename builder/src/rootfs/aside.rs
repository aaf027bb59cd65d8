//! What a sandbox has put into a tree of files for the time of a command, and what of it is not to be seen in the layer.

use crate::beneath::Dir;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Paths, relative to the root, that are not what they seem to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aside {
    /// What belongs to no layer.
    pub leave_out: Vec<PathBuf>,
    /// Directories whose own looks count as unchanged, whatever their times say. What is in them is compared as usual.
    pub untouched_dirs: Vec<PathBuf>,
    /// What is, with all below, as it was before, although it was moved away and back.
    pub untouched: Vec<PathBuf>,
    /// Whether the step is the builder's own, which replaces files and never changes one: a file of several names that has nothing but
    /// another change time has lost one of them, as it does not in an overlay.
    pub is_own_step: bool,
}

impl Aside {
    /// For a step of the builder's own.
    #[must_use]
    pub fn of_own_step() -> Self {
        Self {
            is_own_step: true,
            ..Self::default()
        }
    }
}

impl Aside {
    /// Tells whether anything is there that belongs to no layer.
    pub(crate) fn is_left_in(&self, root: &Dir) -> bool {
        let is_there = |path: &PathBuf| {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return false;
            };
            let parent = root.plain_dir(parent);
            parent.is_ok_and(|parent| parent.metadata(name).is_ok_and(|stat| stat.is_some()))
        };
        self.leave_out.iter().any(is_there)
    }

    pub(super) fn is_untouched(&self, parent: &Path, name: &OsStr) -> bool {
        has(&self.untouched, parent, name)
    }

    pub(super) fn is_untouched_dir(&self, parent: &Path, name: &OsStr) -> bool {
        has(&self.untouched_dirs, parent, name)
    }

    pub(super) fn is_left_out(&self, parent: &Path, name: &OsStr) -> bool {
        has(&self.leave_out, parent, name)
    }
}

fn has(paths: &[PathBuf], parent: &Path, name: &OsStr) -> bool {
    paths
        .iter()
        .any(|path| path.file_name() == Some(name) && path.parent() == Some(parent))
}
