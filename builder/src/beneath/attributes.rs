//! Extended attributes, of the file itself and never of what a link leads to.

use super::{Dir, Result, Xattr};
use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Rights that a program has whoever runs it: only root may give them.
const CAPABILITY: &str = "security.capability";

impl Dir {
    /// Names `name` of this directory for the calls that know no directory handle; the last component is not followed by them.
    fn proc_path(&self, name: &OsStr) -> PathBuf {
        let base = PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_fd().as_raw_fd()));
        if name.is_empty() {
            base.join(".")
        } else {
            base.join(name)
        }
    }

    /// Reads the extended attributes of the file itself, sorted by name; those of the overlay file system are left out.
    ///
    /// # Errors
    /// When a call fails; a file system without attributes gives none.
    pub fn xattrs(&self, name: &OsStr) -> Result<Vec<Xattr>> {
        let mut found = self.xattrs_on_disk(name)?;
        if let Some(capability) = self.written_capability(name)? {
            found.push((CAPABILITY.into(), capability));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn xattrs_on_disk(&self, name: &OsStr) -> Result<Vec<Xattr>> {
        let path = self.proc_path(name);
        let size = match fs::llistxattr_query(&path) {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Ok(size) => size,
            Err(e) => return Err(self.error("list attributes of", name)(e)),
        };
        let mut list = vec![0u8; size + 256];
        let size = fs::llistxattr(&path, list.as_mut_slice()).map_err(self.error("list attributes of", name))?;
        let mut found = Vec::new();
        for key in list[..size].split(|b| *b == 0).filter(|k| !k.is_empty()) {
            let key = OsStr::from_bytes(key);
            if kept_xattr(key) {
                found.push((key.to_owned(), self.xattr(name, key)?.unwrap_or_default()));
            }
        }
        Ok(found)
    }

    /// Reads one extended attribute of the file itself.
    ///
    /// # Errors
    /// When the call fails for another reason than absence.
    pub fn xattr(&self, name: &OsStr, key: &OsStr) -> Result<Option<Vec<u8>>> {
        // The kernel's bound on one value.
        let mut value = vec![0u8; 65536];
        match fs::lgetxattr(self.proc_path(name), key, value.as_mut_slice()) {
            Ok(size) => {
                value.truncate(size);
                Ok(Some(value))
            }
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(e) => Err(self.error("read attribute of", name)(e)),
        }
    }

    /// Sets one extended attribute of the file itself.
    ///
    /// # Errors
    /// When the call fails.
    pub fn set_xattr(&self, name: &OsStr, key: &OsStr, value: &[u8]) -> Result<()> {
        if key == CAPABILITY && self.writes_capability(name, Some(value))? {
            return Ok(());
        }
        fs::lsetxattr(self.proc_path(name), key, value, XattrFlags::empty())
            .map_err(self.error("set attribute of", name))
    }

    /// Removes one extended attribute of the file itself; absence is success.
    ///
    /// # Errors
    /// When the call fails.
    pub fn remove_xattr(&self, name: &OsStr, key: &OsStr) -> Result<()> {
        if key == CAPABILITY && self.writes_capability(name, None)? {
            return Ok(());
        }
        match fs::lremovexattr(self.proc_path(name), key) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
            Err(e) => Err(self.error("remove attribute of", name)(e)),
        }
    }
}

/// Tells whether an attribute belongs in an image. Overlay's own would let a layer steer the mount; labels are the host's.
#[must_use]
pub fn kept_xattr(key: &OsStr) -> bool {
    let key = key.as_bytes();
    key == CAPABILITY.as_bytes() || (key.starts_with(b"user.") && !key.starts_with(b"user.overlay."))
}
