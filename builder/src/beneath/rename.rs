//! Moving files between directories.

use super::{Dir, FileError, Result};
use rustix::fs;
use rustix::io::Errno;
use std::ffi::OsStr;

impl Dir {
    /// Moves `name` to `to_name` in `to`, where nothing of that name may be.
    ///
    /// # Errors
    /// When there is something of that name, both lie on different file systems, or the call fails.
    pub fn rename(&self, name: &OsStr, to: &Self, to_name: &OsStr) -> Result<()> {
        let failed = |e: Errno| FileError::new("move to", to.path().join(to_name), e);
        match fs::renameat_with(&self.fd, name, &to.fd, to_name, fs::RenameFlags::NOREPLACE) {
            // File systems that do not know the flag; whoever calls has looked.
            Err(Errno::INVAL) => fs::renameat(&self.fd, name, &to.fd, to_name).map_err(failed),
            other => other.map_err(failed),
        }
    }

    /// Sets the modification time of this directory itself, in seconds and nanoseconds since 1970.
    ///
    /// # Errors
    /// When the call fails.
    pub fn set_own_mtime(&self, seconds: i64, nanoseconds: i64) -> Result<()> {
        self.set_mtime(OsStr::new("."), seconds, nanoseconds)
    }

    /// The open directory itself.
    #[must_use]
    pub fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd as _;
        self.fd.as_fd()
    }
}
