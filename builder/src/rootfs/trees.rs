//! Root file systems as whole trees of files, where nothing can be mounted.
//!
//! A tree lies in the scratch directory of the build, and is known by the chain id of the layers whose files it holds. A stage takes the
//! tree that it stands on, changes it in place, and leaves it under the name of what it then holds. Who needs a tree that somebody has
//! taken makes it anew out of the layers' blobs; nobody waits for a stage. Trees that are read stay as they are until nobody reads them.

use super::aside::Aside;
use super::chain::ChainId;
use super::changes;
use super::diff::{DiffError, Options};
use super::overlay::Result;
use super::root::remove;
use super::snapshot::{self, Snapshot};
use crate::beneath::{Dir, Owner};
use crate::layer::tar::TarWriter;
use crate::layer::write::Layer;
use roadstead_registry_client::Store;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Mode of the top of every root file system: it is in no layer.
const TOP_MODE: u32 = 0o755;

/// The trees of a build that nobody changes, and the layers they can be made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Trees(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    blobs: HashMap<ChainId, Blob>,
    kept: HashMap<ChainId, Kept>,
    /// One lock a tree that is only to be read: who wants one that is being made waits for it.
    making: HashMap<ChainId, Arc<Mutex<()>>>,
}

/// What makes the files of a chain out of those of the chain without its last layer.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) store: Store,
    pub(super) layer: Layer,
}

#[derive(Debug)]
struct Kept {
    tree: Tree,
    readers: usize,
}

/// A tree of files, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Tree {
    path: PathBuf,
    /// What it looked like when it was given out, or kept.
    before: Option<Snapshot>,
}

/// Keeps a tree as it is.
#[derive(Debug)]
pub(super) struct Reading {
    trees: Trees,
    id: ChainId,
    path: PathBuf,
}

impl Trees {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes of what a chain's last layer is made.
    pub(super) fn know(&self, id: &ChainId, blob: Blob) {
        self.lock().blobs.entry(id.clone()).or_insert(blob);
    }

    /// Forgets a layer whose blob is of no use.
    pub(super) fn forget(&self, id: &ChainId) {
        self.lock().blobs.remove(id);
    }

    pub(super) fn blob(&self, id: &ChainId) -> Option<Blob> {
        self.lock().blobs.get(id).cloned()
    }

    /// Takes the tree of the longest beginning of `chain` that is there and that nobody reads; gives also the length.
    pub(super) fn take(&self, chain: &[ChainId]) -> Option<(usize, Tree)> {
        let mut state = self.lock();
        let is_idle = |id: &&ChainId| state.kept.get(id).is_some_and(|kept| kept.readers == 0);
        let at = chain.iter().rposition(|id| is_idle(&id))?;
        let kept = state.kept.remove(&chain[at])?;
        Some((at + 1, kept.tree))
    }

    /// Keeps a tree that holds the files of `id`, unless there is one.
    pub(super) fn put(&self, id: &ChainId, tree: Tree) {
        let kept = Kept { tree, readers: 0 };
        // Removal takes a while: not while everybody waits.
        let surplus = match self.lock().kept.entry(id.clone()) {
            std::collections::hash_map::Entry::Occupied(_) => Some(kept),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(kept);
                None
            }
        };
        drop(surplus);
    }

    /// Gives the tree of `id` to one more reader, if it is there.
    pub(super) fn read(&self, id: &ChainId) -> Option<Reading> {
        let mut state = self.lock();
        let kept = state.kept.get_mut(id)?;
        kept.readers += 1;
        Some(Reading {
            trees: self.clone(),
            id: id.clone(),
            path: kept.tree.path.clone(),
        })
    }

    /// Gives the tree of `id` to one more reader. When it is not there, `make` makes it, once for all who wait for it.
    pub(super) fn read_or_make(&self, id: &ChainId, make: impl Fn() -> Result<Tree>) -> Result<Reading> {
        let making = Arc::clone(self.lock().making.entry(id.clone()).or_default());
        loop {
            if let Some(reading) = self.read(id) {
                return Ok(reading);
            }
            let _held = making.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(reading) = self.read(id) {
                return Ok(reading);
            }
            // A stage may take it before it is read: then another one is made.
            self.put(id, make()?);
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(kept) = self.trees.lock().kept.get_mut(&self.id) {
            kept.readers -= 1;
        }
    }
}

impl Reading {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Tree {
    /// A tree without files, in a directory that is there.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, before: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets what it looked like, since it is going to be changed by hand.
    pub(super) fn touch(&mut self) {
        self.before = None;
    }

    /// Makes the tree ready for changes: whatever happens to it from now on will be found.
    pub(super) fn ready(&mut self, scratch: &Path) -> std::result::Result<(), DiffError> {
        let root = Dir::open(&self.path)?;
        root.set_owner(OsStr::new("."), Owner { uid: 0, gid: 0 })?;
        root.set_mode(OsStr::new("."), TOP_MODE)?;
        let before = match self.before.take() {
            Some(before) => before,
            None => snapshot::of(&root)?,
        };
        before.wait(scratch)?;
        self.before = Some(before);
        Ok(())
    }

    pub(super) fn write_changes<W: Write>(
        &mut self,
        tar: &mut TarWriter<W>,
        options: &Options<'_>,
        aside: &Aside,
    ) -> std::result::Result<usize, DiffError> {
        let root = Dir::open(&self.path)?;
        let before = match self.before.take() {
            Some(before) => before,
            None => snapshot::of(&root)?,
        };
        let (count, after) = changes::write(&root, &before, tar, options, aside)?;
        self.before = Some(after);
        Ok(count)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        remove(&self.path);
    }
}
