//! SSH agents for RUN: one of the caller's, or one that holds the caller's key files for as long as the build lasts.
//!
//! A command never gets an agent's own socket. [`proxy`] makes one for it alone, with the owner and mode that its mount asks for, and
//! passes on nothing but the requests that list keys and sign with them.

pub mod keys;
pub mod proxy;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fd::{AsRawFd as _, OwnedFd};
use rustix::fs::{Mode, OFlags};

/// An SSH agent that commands may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    socket: PathBuf,
}

impl Agent {
    /// Takes the agent that listens on `socket`.
    ///
    /// # Errors
    /// When nobody does, or the caller may not speak to it: better said before the build than by the command that needs it.
    pub fn at(socket: PathBuf) -> io::Result<Self> {
        let agent = Self { socket };
        agent.connect().map(|_| agent)
    }

    /// Opens a connection.
    fn connect(&self) -> io::Result<UnixStream> {
        let (_directory, address) = address(&self.socket)?;
        UnixStream::connect(address)
    }
}

/// Tells whether a path names a socket.
#[must_use]
pub fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Names a socket through a handle of its directory: an address holds 107 bytes, and a path may be longer. The name is good as long as
/// the handle is open.
fn address(socket: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let address = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((directory, address))
}
