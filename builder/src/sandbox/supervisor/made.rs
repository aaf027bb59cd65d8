//! Files that exist in memory only: secrets, and what is said in place of the kernel's own files.

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Files by what they hold: a program that looks at a file, opens it and looks again must find the same one.
#[derive(Debug, Default)]
pub(super) struct Made(HashMap<Vec<u8>, OwnedFd>);

impl Made {
    /// The file with this content, which everybody may read.
    pub(super) fn file(&mut self, content: Vec<u8>) -> Result<&OwnedFd, Errno> {
        match self.0.entry(content) {
            std::collections::hash_map::Entry::Occupied(known) => Ok(known.into_mut()),
            std::collections::hash_map::Entry::Vacant(new) => {
                let made = file(new.key(), 0o444)?;
                Ok(new.insert(made))
            }
        }
    }
}

/// Makes a file that nobody can change.
pub(super) fn file(content: &[u8], mode: u32) -> Result<OwnedFd, Errno> {
    let file = rustix::fs::memfd_create("roadstead", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = content;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file)
}

/// Opens it once more, for reading, as whoever this thread is.
pub(super) fn open(file: &OwnedFd) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}
