//! Removing whole trees, however deeply they are nested.

use super::{Dir, Result};
use rustix::fs::{self, AtFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::path::Path;

impl Dir {
    /// Removes `name`, a whole tree when it is a directory. Absence is success. No depth of nesting needs more stack or descriptors.
    ///
    /// # Errors
    /// When a call fails.
    pub fn remove_all(&self, name: &OsStr) -> Result<()> {
        if self.remove_leaf(name)? {
            return Ok(());
        }
        let top = self.plain_dir(Path::new(name))?;
        let mut lifted = 0;
        loop {
            let children = top.names()?;
            if children.is_empty() {
                break;
            }
            for child in children {
                if top.remove_leaf(&child)? {
                    continue;
                }
                let inside = top.plain_dir(Path::new(&child))?;
                for deeper in inside.names()? {
                    if !inside.remove_leaf(&deeper)? {
                        inside.lift(&deeper, &top, &mut lifted)?;
                    }
                }
                fs::unlinkat(&top.fd, &child, AtFlags::REMOVEDIR).map_err(top.error("remove", &child))?;
            }
        }
        fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).map_err(self.error("remove", name))
    }

    /// Removes a file or an empty directory; tells whether it is gone.
    fn remove_leaf(&self, name: &OsStr) -> Result<bool> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(true),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(self.error("remove", name)(e)),
        }
        match fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(e) => Err(self.error("remove", name)(e)),
        }
    }

    /// Moves a directory that is to go up into `top`, whose loop comes by again.
    fn lift(&self, name: &OsStr, top: &Self, lifted: &mut u64) -> Result<()> {
        loop {
            let free = format!(".removing-{lifted}");
            *lifted += 1;
            match fs::renameat_with(&self.fd, name, &top.fd, &free, fs::RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => {}
                // An overlay does not move directories of its lower layers.
                Err(Errno::XDEV) => return self.remove_all(name),
                Err(e) => return Err(self.error("remove", name)(e)),
            }
        }
    }
}
