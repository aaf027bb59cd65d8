//! Unpacked layers on disk, and root file systems mounted over them.
//!
//! A layer lies unpacked in the form overlay's lower directories have, under the name of its chain id: the layers below it decide what
//! its implied directories look like. What a layer's directory holds, and how damage is noticed, is for `kept` to say.

use super::kept::{FILES, Sound};
use crate::beneath::{Dir, FileError};
use crate::layer::digest_reader::DigestReader;
use crate::layer::extract::{self, ExtractError, Form};
use crate::layer::limits::Limits;
use crate::layer::write::Layer;
use crate::sandbox::{self, SandboxError};
use roadstead_registry_client::{Digest, Store};
use std::io;
use std::path::{Path, PathBuf};

/// Hex digits of a chain id in a directory name: 96 bits. Short, since all lower directories of a mount share one 4 KiB option string.
const NAME_DIGITS: usize = 24;

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
}

pub(super) type Result<T> = std::result::Result<T, OverlayError>;

/// Identifies a layer together with all below it. Source: OCI image specification, config.md, "Layer ChainID".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChainId(Digest);

impl ChainId {
    /// The id of `diff_id` upon `parent`.
    #[must_use]
    pub fn of(parent: Option<&Self>, diff_id: &Digest) -> Self {
        Self(parent.map_or_else(
            || diff_id.clone(),
            |parent| Digest::of(format!("{} {diff_id}", parent.0).as_bytes()),
        ))
    }

    /// The ids of a whole stack, lowest first.
    pub fn stack<'a>(diff_ids: impl IntoIterator<Item = &'a Digest>) -> Vec<Self> {
        let mut chain: Vec<Self> = Vec::new();
        for diff_id in diff_ids {
            let next = Self::of(chain.last(), diff_id);
            chain.push(next);
        }
        chain
    }

    /// The whole digest in hex digits.
    pub(super) fn hex(&self) -> &str {
        self.0.hex()
    }

    pub(super) fn directory(&self) -> &str {
        self.0.hex().get(..NAME_DIGITS).unwrap_or_default()
    }
}

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
    pub(super) sound: Sound,
}

/// A root file system that is mounted until dropped.
#[derive(Debug)]
pub struct Rootfs {
    path: PathBuf,
    /// Where changes go, if it may be changed.
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
    mounted: bool,
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
            sound: Sound::default(),
        })
    }

    /// Sets how large a layer may be.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how root file systems are made.
    #[must_use]
    pub fn in_form(mut self, form: RootForm) -> Self {
        self.form = form;
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

    /// Unpacks the last layer of `chain`, whose blob is in `store`. The layers below must be there.
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
        let path = self.scratch_dir("unpack")?;
        let result = self.unpack_into(store, &path, below, layer);
        if result.is_err() {
            self.discard(&path);
            // Its file may have changed without a trace: the next one to want the blob hashes it first.
            store.distrust(&layer.descriptor.digest);
            return result;
        }
        self.keep(&path, id)
    }

    fn unpack_into(&self, store: &Store, path: &Path, below: &[ChainId], layer: &Layer) -> Result<()> {
        let digest = &layer.descriptor.digest;
        let damaged = |e| OverlayError::Extract {
            digest: digest.clone(),
            source: ExtractError::Archive(e),
        };
        let blob = extract::decompress(store.open_blob(digest)?).map_err(damaged)?;
        let mut archive = DigestReader::new(blob);
        let lowers = self.lowers(below)?;
        let options = extract::Options {
            form: Form::Overlay,
            owner: None,
            lowers: &lowers,
            limits: self.limits,
        };
        let root = Dir::open(path)?;
        let failed = |source| OverlayError::Extract {
            digest: digest.clone(),
            source,
        };
        extract::extract(&mut archive, &root, &options).map_err(failed)?;
        let found = archive.finish().map_err(damaged)?;
        if found != layer.diff_id {
            return Err(OverlayError::DiffId {
                digest: digest.clone(),
                found,
                expected: layer.diff_id.clone(),
            });
        }
        Ok(())
    }

    /// Keeps the changes of `rootfs` as the unpacked form of the layer `id`.
    ///
    /// # Errors
    /// When the directory cannot be moved.
    pub fn adopt(&self, mut rootfs: Rootfs, id: &ChainId) -> Result<()> {
        rootfs.unmount();
        let Some(upper) = rootfs.upper.take() else {
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

    /// Mounts `chain` with a fresh upper directory. `below` (mount points of the sandbox) lies under everything.
    ///
    /// # Errors
    /// When a layer is missing or the mount fails.
    pub fn mount(&self, chain: &[ChainId], below: Option<&Path>) -> Result<Rootfs> {
        self.require(chain)?;
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
        Ok(Rootfs {
            path,
            upper: Some(upper),
            work: Some(work),
            mounted: true,
        })
    }

    /// Mounts `chain` for reading only.
    ///
    /// # Errors
    /// As [`Self::mount`].
    pub fn mount_readonly(&self, chain: &[ChainId]) -> Result<Rootfs> {
        self.require(chain)?;
        let path = match chain {
            [] => self.scratch_dir("empty")?,
            [only] => self.files(only),
            several => {
                let path = self.scratch_dir("root")?;
                sandbox::mount_overlay(&self.dir, &lower_names(several), None, &path)?;
                return Ok(Rootfs {
                    path,
                    upper: None,
                    work: None,
                    mounted: true,
                });
            }
        };
        Ok(Rootfs {
            path,
            upper: None,
            work: None,
            mounted: false,
        })
    }
}

impl Rootfs {
    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory that holds only what was changed.
    ///
    /// # Errors
    /// When it was mounted for reading only.
    pub fn changes(&self) -> Result<Dir> {
        match &self.upper {
            Some(upper) => Ok(Dir::open(upper)?),
            None => Err(FileError::new(
                "read changes of",
                &self.path,
                io::Error::from(io::ErrorKind::ReadOnlyFilesystem),
            )
            .into()),
        }
    }

    /// Unmounts, so that the changes lie still.
    pub fn unmount(&mut self) {
        if std::mem::take(&mut self.mounted) {
            sandbox::unmount(&self.path);
        }
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        self.unmount();
        for path in [self.upper.take(), self.work.take()].into_iter().flatten() {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                continue;
            };
            if let Ok(parent) = Dir::open(parent) {
                // What cannot be removed now goes with the scratch directory.
                drop(parent.remove_all(name));
            }
        }
    }
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

    #[test]
    fn chain_ids_follow_the_specification() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chain = ChainId::stack([&a, &b]);
        assert_eq!(chain[0].0, a);
        assert_eq!(chain[1].0, Digest::of(format!("{a} {b}").as_bytes()));
    }
}
