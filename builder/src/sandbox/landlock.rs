//! Landlock: from inside a sandbox no file outside of it can be opened, no process outside of it traced or signalled, whatever else
//! fails. The kernel may not have it; then the other means are all there is. Source: landlock(7).

use super::SandboxError;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

/// Asks for the version of the interface instead of a ruleset.
const VERSION: u32 = 1;
/// A rule about everything below a directory.
const PATH_BENEATH: u32 = 1;
/// Since this version files may be moved between directories.
const FIRST_USABLE: i32 = 2;
/// Since this version signals and abstract sockets can be kept within.
const FIRST_SCOPED: i32 = 6;

#[repr(C)]
#[derive(Default)]
struct Ruleset {
    access_fs: u64,
    access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// Tells the kernel's version of Landlock; 0 is none.
#[must_use]
pub fn version() -> i32 {
    // SAFETY: with no ruleset and this flag the call only gives a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0usize,
            VERSION,
        )
    };
    i32::try_from(version).unwrap_or(0).max(0)
}

/// Every right that a version knows of: those of files grow by a bit or more each.
fn rights(version: i32) -> u64 {
    match version {
        ..=1 => (1 << 13) - 1,
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => (1 << 16) - 1,
    }
}

/// Keeps this process and all that come from it below `root`. It must have given up new privileges. Gives whether the kernel can.
pub(super) fn keep_below(root: &Path) -> Result<bool, SandboxError> {
    let version = version();
    if version < FIRST_USABLE {
        return Ok(false);
    }
    let failed = |operation: &str| SandboxError::system(operation, std::io::Error::last_os_error());
    let ruleset = Ruleset {
        access_fs: rights(version),
        access_net: 0,
        // Abstract sockets, signals.
        scoped: if version >= FIRST_SCOPED { 0b11 } else { 0 },
    };
    // Older kernels refuse a structure that is longer than theirs and not zero there; the lengths are those of the versions.
    let size = match version {
        ..=3 => 8,
        4 | 5 => 16,
        _ => size_of::<Ruleset>(),
    };
    // SAFETY: the kernel reads `size` bytes of the structure, which has at least as many and lives through the call.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(&ruleset),
            size,
            0u32,
        )
    };
    let descriptor = i32::try_from(descriptor).ok().filter(|number| *number >= 0);
    let descriptor = descriptor.ok_or_else(|| failed("make a Landlock ruleset"))?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let below = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| SandboxError::system("open the root for Landlock", e))?;
    let rule = PathBeneath {
        allowed: rights(version),
        parent: below.as_raw_fd(),
    };
    // SAFETY: both descriptors are open, and the kernel reads one rule, which lives through the call.
    let added = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            descriptor.as_raw_fd(),
            PATH_BENEATH,
            std::ptr::from_ref(&rule),
            0u32,
        )
    };
    if added != 0 {
        return Err(failed("add a Landlock rule"));
    }
    // SAFETY: the descriptor is that of a ruleset; the call changes this process alone.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, descriptor.as_raw_fd(), 0u32) } {
        0 => Ok(true),
        _ => Err(failed("enter the Landlock domain")),
    }
}
