//! What ends a build.

use crate::beneath::FileError;
use crate::context::files::SelectError;
use crate::dockerfile::{DockerfileError, Excerpt};
use crate::rootfs::copy::CopyError;
use crate::rootfs::diff::DiffError;
use crate::rootfs::overlay::OverlayError;
use crate::rootfs::users::UserError;
use crate::sandbox::SandboxError;
use std::io;

/// Tells why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Something an instruction says cannot be done; shows the line.
    #[error("{place}")]
    At {
        /// The message and its place.
        place: Box<DockerfileError>,
    },
    /// A step failed; the message holds all causes.
    #[error("{message}")]
    Step {
        /// What went wrong.
        message: String,
        /// The instruction in its Dockerfile.
        excerpt: Excerpt,
        /// What to do about it.
        hint: Option<String>,
    },
    /// No stage of that name; the end of the message names the one that was probably meant.
    #[error("target stage `{0}` could not be found{1}")]
    NoTarget(String, String),
    /// A RUN command failed.
    #[error("process {command:?} did not complete successfully: exit code: {status}")]
    Run {
        /// The command as it was run.
        command: String,
        /// Its exit status; 128 and the signal's number when it was killed.
        status: i32,
    },
    /// Commands have nothing here to run in.
    #[error("cannot run commands here: {}", if .0.is_empty() { "`--sandbox none` leaves nothing to run them in" } else { .0 })]
    NoCommands(String),
    /// The build was stopped.
    #[error("the build was canceled")]
    Canceled,
    /// The files of a layer are needed, and only its digest is known. Never leaves the solver.
    #[error("the files of the layer {0} are gone: build again")]
    Lost(roadstead_registry_client::Digest),
    /// A registry or the store failed.
    #[error(transparent)]
    Registry(#[from] roadstead_registry_client::Error),
    /// A source elsewhere could not be fetched.
    #[error(transparent)]
    Remote(#[from] crate::context::remote::RemoteError),
    /// Files to copy could not be found or read.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// Copying failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A root file system could not be prepared.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// A layer could not be written.
    #[error(transparent)]
    Diff(#[from] DiffError),
    /// A user or group is unknown.
    #[error(transparent)]
    User(#[from] UserError),
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The layer could not be stored.
    #[error("cannot write the layer")]
    Layer(#[source] io::Error),
    /// Anything else, said in full.
    #[error("{0}")]
    Other(String),
}

impl BuildError {
    /// What to do about it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::At { place } => place.hint.clone(),
            Self::Step { hint, .. } => hint.clone(),
            Self::Registry(e) | Self::Remote(crate::context::remote::RemoteError::Download(e)) => e.hint(),
            Self::Overlay(OverlayError::Store(e)) => e.hint(),
            Self::Diff(DiffError::TooLarge(exceeded)) => Some(exceeded.hint()),
            Self::Overlay(OverlayError::Extract { source, .. }) | Self::Copy(CopyError::Extract { source, .. }) => {
                source.hint()
            }
            Self::Sandbox(SandboxError::Foreign { platform, .. }) => Some(format!(
                "register an interpreter with the kernel (Debian: `apt-get install qemu-user-static binfmt-support`), build on a machine that is \
                 {platform}, or run the command in a stage of `FROM --platform=$BUILDPLATFORM`"
            )),
            Self::NoCommands(_) => Some(
                "let the builder make user namespaces, or run it as root with the capabilities that Docker gives a container; a Dockerfile \
                 without RUN builds here, too"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// Tells whether the build can go on by running steps whose results are gone.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// Tells whether the user's own stop ended the build.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        matches!(self, Self::Canceled)
    }
}

pub(super) type Result<T> = std::result::Result<T, BuildError>;
