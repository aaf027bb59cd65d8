//! Unpacked layers on disk, and root file systems mounted over them. Where nothing can be mounted, layers stay packed, and root file
//! systems are `trees` of files.
//!
//! A layer lies unpacked in the form overlay's lower directories have, under the name of its chain id: the layers below it decide what
//! its implied directories look like. What a layer's directory holds, and how damage is noticed, is for `kept` to say.

use super::diff::DiffError;
use super::kept::{FILES, Sound};
use super::trees::{Blob, Tree, Trees};
use crate::beneath::{self, Dir, FileError};
use crate::layer::ahead::read_ahead;
use crate::layer::digest_reader::DigestReader;
use crate::layer::extract::{self, ExtractError, Form};
use crate::layer::limits::Limits;
use crate::layer::write::Layer;
use crate::progress::Progress;
use crate::sandbox::{self, SandboxError};
use roadstead_registry_client::{Digest, Store};
use std::io;
use std::path::{Path, PathBuf};

pub use super::chain::ChainId;
pub use super::root::Rootfs;

/// Tells why a root file system could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A layer's archive could not be unpacked.
    #[error("cannot unpack layer {digest}")]
    Extract {
        /// The layer's blob.
        digest: Digest,
        /// What the image config says of it.
        diff_id: Digest,
        /// Why.
        #[source]
        source: ExtractError,
    },
    /// A layer's content is not what the image config says.
    #[error("layer {digest} unpacks to {found}, but the image config says {expected}")]
    DiffId {
        /// The layer's blob.
        digest: Digest,
        /// What it has.
        found: Digest,
        /// What it should have.
        expected: Digest,
    },
    /// The blob is missing or unreadable.
    #[error(transparent)]
    Store(#[from] roadstead_registry_client::Error),
    /// A layer that was there is gone, or was written to.
    #[error("the unpacked layer `{}` was removed or damaged during the build: build again", .0.display())]
    Gone(PathBuf),
    /// Mounting failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A tree of files could not be read through.
    #[error(transparent)]
    Walk(#[from] DiffError),
}

pub(super) type Result<T> = std::result::Result<T, OverlayError>;

/// How root file systems are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RootForm {
    /// Overlays over the unpacked layers.
    #[default]
    Overlay,
    /// A directory with all files for each stage: where nothing can be mounted.
    Directories,
}

impl RootForm {
    /// The form that goes with a sandbox.
    #[must_use]
    pub fn of(kind: sandbox::Kind) -> Self {
        match kind {
            sandbox::Kind::Namespaces => Self::Overlay,
            sandbox::Kind::Chroot | sandbox::Kind::Nothing => Self::Directories,
        }
    }
}

/// The directory of unpacked layers, and the scratch directory of one build on the same file system.
#[derive(Debug, Clone)]
pub struct Layers {
    pub(super) dir: PathBuf,
    pub(super) scratch: PathBuf,
    limits: Limits,
    form: RootForm,
    progress: Option<Progress>,
    pub(super) sound: Sound,
    trees: Trees,
}

impl Layers {
    /// Uses `dir` for layers and `scratch` for what is being made; both are created.
    ///
    /// # Errors
    /// When they cannot be created.
    pub fn open(dir: &Path, scratch: &Path) -> Result<Self> {
        for path in [dir, scratch] {
            super::scratch::private_dir(path)?;
        }
        // Layers are made in one and moved to the other.
        if device(dir)? != device(scratch)? {
            let text = format!("it lies on another file system than `{}`", scratch.display());
            return Err(FileError::new("use", dir, io::Error::other(text)).into());
        }
        Ok(Self {
            dir: dir.to_owned(),
            scratch: scratch.to_owned(),
            limits: Limits::default(),
            form: RootForm::default(),
            progress: None,
            sound: Sound::default(),
            trees: Trees::default(),
        })
    }

    /// Sets how large a layer may be.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how root file systems are made. Trees hold no device that could do harm, and where their owners cannot be set, these are
    /// written down.
    #[must_use]
    pub fn in_form(mut self, form: RootForm) -> Self {
        if form == RootForm::Directories {
            beneath::record(&self.scratch);
        }
        self.form = form;
        self
    }

    /// Has it told where layers are unpacked when their files are wanted.
    #[must_use]
    pub fn with_progress(mut self, progress: &Progress) -> Self {
        self.progress = Some(progress.clone());
        self
    }

    /// How root file systems are made.
    #[must_use]
    pub fn form(&self) -> RootForm {
        self.form
    }

    /// How large a layer may be, unpacked or written.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn scratch_dir(&self, what: &str) -> Result<PathBuf> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self.scratch.join(format!("{what}-{number}"));
        std::fs::create_dir(&path).map_err(|e| FileError::new("create directory", &path, e))?;
        set_mode(&path, 0o755)?;
        Ok(path)
    }

    /// Opens the unpacked directories of `chain`, uppermost first.
    ///
    /// # Errors
    /// When one is missing.
    pub fn lowers(&self, chain: &[ChainId]) -> Result<Vec<Dir>> {
        self.require(chain)?;
        chain.iter().rev().map(|id| Ok(Dir::open(&self.files(id))?)).collect()
    }

    /// Unpacks the last layer of `chain`, whose blob is in `store`. The layers below must be there. For trees it is only noted: they are
    /// made when their files are wanted.
    ///
    /// # Errors
    /// When the blob is damaged, hostile, or not what its diff_id says; nothing is kept then.
    pub fn unpack(&self, store: &Store, chain: &[ChainId], layer: &Layer) -> Result<()> {
        let Some((id, below)) = chain.split_last() else {
            return Ok(());
        };
        if self.has(id) {
            return Ok(());
        }
        if self.form == RootForm::Directories {
            self.know(id, store, layer);
            return Ok(());
        }
        let path = self.scratch_dir("unpack")?;
        let unpacked = || self.extract(store, &path, Form::Overlay, &self.lowers(below)?, layer);
        let result = unpacked();
        if result.is_err() {
            self.discard(&path);
            return result;
        }
        self.keep(&path, id)
    }

    /// Unpacks a blob into a directory.
    fn extract(&self, store: &Store, path: &Path, form: Form, lowers: &[Dir], layer: &Layer) -> Result<()> {
        let options = extract::Options {
            form,
            owner: None,
            lowers,
            limits: self.limits,
        };
        let result = extract_checked(store, &Dir::open(path)?, layer, &options);
        if result.is_err() {
            // Its file may have changed without a trace: the next one to want the blob hashes it first.
            store.distrust(&layer.descriptor.digest);
        }
        result
    }

    /// Keeps what `rootfs` holds now: the changes of an overlay as the unpacked form of the layer `id`, a tree as the files of the chain
    /// `id`.
    ///
    /// # Errors
    /// When the directory cannot be moved.
    pub fn adopt(&self, mut rootfs: Rootfs, id: &ChainId) -> Result<()> {
        rootfs.unmount();
        if let Some(tree) = rootfs.take_tree() {
            self.trees.put(id, tree);
            return Ok(());
        }
        let Some(upper) = rootfs.take_upper() else {
            return Ok(());
        };
        self.keep(&upper, id)
    }

    pub(super) fn discard(&self, path: &Path) {
        if let (Ok(scratch), Some(name)) = (Dir::open(&self.scratch), path.file_name()) {
            // What cannot be removed now goes with the scratch directory.
            drop(scratch.remove_all(name));
        }
    }

    /// Makes the files of `chain` ready for changes, which nobody else sees. `below` (mount points of the sandbox) lies under everything
    /// that is mounted.
    ///
    /// # Errors
    /// When a layer is missing or the mount fails.
    pub fn mount(&self, chain: &[ChainId], below: Option<&Path>) -> Result<Rootfs> {
        self.require(chain)?;
        if self.form == RootForm::Directories {
            let mut tree = self.tree(chain)?;
            tree.ready(&self.scratch)?;
            return Ok(Rootfs::tree(tree));
        }
        let (path, upper, work) = (
            self.scratch_dir("root")?,
            self.scratch_dir("upper")?,
            self.scratch_dir("work")?,
        );
        let mut lowers = lower_names(chain);
        lowers.extend(below.map(Path::to_owned));
        if lowers.is_empty() {
            lowers.push(self.scratch_dir("empty")?);
        }
        sandbox::mount_overlay(&self.dir, &lowers, Some((&upper, &work)), &path)?;
        Ok(Rootfs::overlay(path, upper, work))
    }

    /// Makes the files of `chain` ready for reading only.
    ///
    /// # Errors
    /// As [`Self::mount`].
    pub fn mount_readonly(&self, chain: &[ChainId]) -> Result<Rootfs> {
        self.require(chain)?;
        let Some((last, below)) = chain.split_last() else {
            return Ok(Rootfs::directory(self.scratch_dir("empty")?));
        };
        if self.form == RootForm::Directories {
            let reading = self.trees.read_or_make(last, || self.tree(chain))?;
            return Ok(Rootfs::reading(reading));
        }
        if below.is_empty() {
            return Ok(Rootfs::directory(self.files(last)));
        }
        let path = self.scratch_dir("root")?;
        sandbox::mount_overlay(&self.dir, &lower_names(chain), None, &path)?;
        Ok(Rootfs::mounted(path))
    }
}

/// Trees of files.
impl Layers {
    /// Notes of what the last layer of the chain `id` can be made.
    pub fn know(&self, id: &ChainId, store: &Store, layer: &Layer) {
        let (store, layer) = (store.clone(), layer.clone());
        self.trees.know(id, Blob { store, layer });
    }

    /// Gives the layer that was noted for the chain `id`.
    #[must_use]
    pub fn known(&self, id: &ChainId) -> Option<Layer> {
        self.trees.blob(id).map(|blob| blob.layer)
    }

    /// Gives a tree that holds the files of `chain`: the one that is there and nearest to it, with the layers that it lacks.
    fn tree(&self, chain: &[ChainId]) -> Result<Tree> {
        let (done, mut tree) = match self.trees.take(chain) {
            Some(taken) => taken,
            None => (0, Tree::new(self.scratch_dir("tree")?)),
        };
        for id in &chain[done..] {
            tree.touch();
            self.apply(&tree, id)?;
        }
        Ok(tree)
    }

    fn apply(&self, tree: &Tree, id: &ChainId) -> Result<()> {
        let Some(Blob { store, layer }) = self.trees.blob(id) else {
            return Err(OverlayError::Gone(tree.path().to_owned()));
        };
        let digest = &layer.descriptor.digest;
        let vertex = self
            .progress
            .as_ref()
            .map(|to| to.start(format!("extracting {digest}")));
        let result = self.extract(&store, tree.path(), Form::Tree, &[], &layer);
        match (&result, &vertex) {
            (Ok(()), Some(vertex)) => vertex.done(),
            (Err(error), Some(vertex)) => vertex.failed(error.to_string()),
            (_, None) => {}
        }
        if result.is_err() {
            self.trees.forget(id);
        }
        result
    }
}

/// Unpacks a blob, and checks that it is what its diff_id says.
fn extract_checked(store: &Store, root: &Dir, layer: &Layer, options: &extract::Options<'_>) -> Result<()> {
    let digest = &layer.descriptor.digest;
    let failed = |source| OverlayError::Extract {
        digest: digest.clone(),
        diff_id: layer.diff_id.clone(),
        source,
    };
    let damaged = |e| failed(ExtractError::Archive(e));
    let blob = extract::decompress(store.open_blob(digest)?).map_err(damaged)?;
    let found = read_ahead(blob, |blob| {
        let mut archive = DigestReader::new(blob);
        extract::extract(&mut archive, root, options).map_err(failed)?;
        archive.finish().map_err(damaged)
    })?;
    if found != layer.diff_id {
        return Err(OverlayError::DiffId {
            digest: digest.clone(),
            found,
            expected: layer.diff_id.clone(),
        });
    }
    Ok(())
}

fn device(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(path).map_err(|e| FileError::new("stat", path, e))?;
    Ok(meta.dev())
}

/// Names layers below the directory of all layers, uppermost first.
fn lower_names(chain: &[ChainId]) -> Vec<PathBuf> {
    let name = |id: &ChainId| Path::new(id.directory()).join(FILES);
    chain.iter().rev().map(name).collect()
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(mode);
    Ok(std::fs::set_permissions(path, permissions).map_err(|e| FileError::new("change mode of", path, e))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_closed_to_other_users() {
        use std::os::unix::fs::PermissionsExt as _;
        let base = std::env::temp_dir().join(format!("roadstead-layers-{}", std::process::id()));
        Layers::open(&base.join("layers"), &base.join("scratch")).unwrap();
        for name in ["layers", "scratch"] {
            let mode = std::fs::metadata(base.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{name}");
        }
        std::fs::remove_dir_all(&base).unwrap();
    }
}
