//! Reading and writing the memory of the command's processes: paths that they pass, answers that they wait for.
//!
//! Through `/proc/PID/mem`, which the kernel opens for a supervisor of the same user; `process_vm_readv` needs CAP_SYS_PTRACE in a
//! container. Open files are kept, since most calls come from the same few processes.

use super::ids::as_user;
use super::processes::owner;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::OwnedFd;

/// Longest path that the kernel takes, with its end.
pub(super) const PATH_MAX: usize = 4096;
/// Files kept open.
const KEPT: usize = 256;
/// Memory is mapped in pages of at least this size: what begins in one can be read to its end.
const PAGE: u64 = 4096;
/// What is read of a path at first: most are shorter.
const FIRST: u64 = 256;

/// Open memory, by thread.
#[derive(Debug, Default)]
pub(super) struct Memory {
    open: HashMap<i32, OwnedFd>,
}

impl Memory {
    /// Forgets what was open of a thread: it becomes another program.
    pub(super) fn forget(&mut self, thread: i32) {
        self.open.remove(&thread);
    }

    fn file(&mut self, thread: i32) -> Result<&OwnedFd, Errno> {
        if self.open.len() >= KEPT && !self.open.contains_key(&thread) {
            self.open.clear();
        }
        match self.open.entry(thread) {
            std::collections::hash_map::Entry::Occupied(known) => Ok(known.into_mut()),
            std::collections::hash_map::Entry::Vacant(new) => {
                let path = format!("/proc/{thread}/mem");
                let open = || rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
                let file = match open() {
                    // Another user's, whose memory the kernel shows to that user, and to CAP_SYS_PTRACE.
                    Err(Errno::ACCESS | Errno::PERM) => {
                        let owner = owner(thread).ok_or(Errno::SRCH)?;
                        as_user(owner, open)?
                    }
                    other => other?,
                };
                Ok(new.insert(file))
            }
        }
    }

    /// Reads into `buffer`, as much as is there.
    pub(super) fn read(&mut self, thread: i32, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        for _ in 0..2 {
            match rustix::io::pread(self.file(thread)?, &mut *buffer, address) {
                // Of a memory that is gone: the thread has become another program.
                Ok(0) => self.forget(thread),
                Ok(read) => return Ok(read),
                Err(Errno::IO) => return Err(Errno::FAULT),
                Err(error) => return Err(error),
            }
        }
        Err(Errno::FAULT)
    }

    /// Reads a string up to its zero.
    pub(super) fn string(&mut self, thread: i32, address: u64) -> Result<Vec<u8>, Errno> {
        let mut found = Vec::new();
        let mut at = address;
        let mut step = FIRST;
        while found.len() < PATH_MAX {
            let in_page = PAGE - at % PAGE;
            let wanted = usize::try_from(in_page.min(step)).unwrap_or(1);
            let start = found.len();
            found.resize(start + wanted, 0);
            let read = self.read(thread, at, &mut found[start..])?;
            found.truncate(start + read);
            if let Some(end) = found[start..].iter().position(|byte| *byte == 0) {
                found.truncate(start + end);
                return Ok(found);
            }
            at = at.checked_add(read as u64).ok_or(Errno::FAULT)?;
            step = PAGE;
        }
        Err(Errno::NAMETOOLONG)
    }

    /// Writes all of `bytes`.
    pub(super) fn write(&mut self, thread: i32, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = address.checked_add(done as u64).ok_or(Errno::FAULT)?;
            match rustix::io::pwrite(self.file(thread)?, rest, at) {
                Ok(0) | Err(Errno::IO) => return Err(Errno::FAULT),
                Ok(written) => done += written,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
