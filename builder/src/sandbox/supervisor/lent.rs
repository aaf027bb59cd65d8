//! What a mount would forbid about files that are only lent: writing to those that are shown read-only, and linking a file of one into
//! another place. It is there for commands that rely on it; what they write is thrown away in any case.

use super::Supervisor;
use super::listener::{Answer, Call};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Something that is lent, wherever it is now.
#[derive(Debug)]
pub(in crate::sandbox) struct Lent {
    pub(in crate::sandbox) handle: OwnedFd,
    pub(in crate::sandbox) writable: bool,
    /// The name of a single file; a directory is looked for by every path.
    pub(in crate::sandbox) file: Option<OsString>,
}

impl Lent {
    fn path(&self) -> Option<PathBuf> {
        path_of(&self.handle)
    }
}

/// Calls that change what their path names: the directory and the path among the arguments, and whether a link at the end counts, as a
/// flag or always.
type Change = (libc::c_long, Option<usize>, usize, Follows);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follows {
    Always,
    Never,
    /// Unless the argument of this number has `AT_SYMLINK_NOFOLLOW`.
    Unless(usize),
}

use Follows::{Always, Never, Unless};

const CHANGES: &[Change] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, None, 0, Never),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, None, 0, Never),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, None, 0, Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, None, 0, Never),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_symlink, None, 1, Never),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, None, 0, Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chown, None, 0, Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lchown, None, 0, Never),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_utime, None, 0, Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_utimes, None, 0, Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_futimesat, Some(0), 1, Always),
    (libc::SYS_mkdirat, Some(0), 1, Never),
    (libc::SYS_unlinkat, Some(0), 1, Never),
    (libc::SYS_symlinkat, Some(1), 2, Never),
    (libc::SYS_fchmodat, Some(0), 1, Always),
    (libc::SYS_fchownat, Some(0), 1, Unless(4)),
    (libc::SYS_utimensat, Some(0), 1, Unless(3)),
    (libc::SYS_truncate, None, 0, Always),
    (libc::SYS_setxattr, None, 0, Always),
    (libc::SYS_lsetxattr, None, 0, Never),
    (libc::SYS_removexattr, None, 0, Always),
    (libc::SYS_lremovexattr, None, 0, Never),
];

/// Calls with two paths, each with its directory if it has one.
type Pair = (libc::c_long, [(Option<usize>, usize); 2]);

const PAIRS: &[Pair] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, [(None, 0), (None, 1)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_link, [(None, 0), (None, 1)]),
    #[cfg(target_arch = "aarch64")]
    (libc::SYS_renameat, [(Some(0), 1), (Some(2), 3)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_renameat, [(Some(0), 1), (Some(2), 3)]),
    (libc::SYS_renameat2, [(Some(0), 1), (Some(2), 3)]),
    (libc::SYS_linkat, [(Some(0), 1), (Some(2), 3)]),
];

/// The calls to be asked about when something is lent.
pub(super) fn calls() -> impl Iterator<Item = libc::c_long> {
    CHANGES
        .iter()
        .map(|change| change.0)
        .chain(PAIRS.iter().map(|pair| pair.0))
}

impl Supervisor {
    /// Answers a call that changes files; `None` when it is none.
    pub(super) fn change(&mut self, call: &Call) -> Option<Answer> {
        if let Some((_, directory, path, follows)) = CHANGES.iter().find(|change| change.0 == call.number) {
            let nofollow = u64::from(libc::AT_SYMLINK_NOFOLLOW.cast_unsigned());
            let follows = match follows {
                Always => true,
                Never => false,
                Unless(at) => call.args[*at] & nofollow == 0,
            };
            let place = self.place(call, *directory, *path, follows);
            return Some(match place.is_some_and(|place| self.is_read_only(&place)) {
                true => Errno::ROFS.into(),
                false => Answer::Continue,
            });
        }
        let (_, pair) = PAIRS.iter().find(|pair| pair.0 == call.number)?;
        let [from, to] = pair.map(|(directory, path)| self.place(call, directory, path, false));
        let (Some(from), Some(to)) = (from, to) else {
            return Some(Answer::Continue);
        };
        if self.is_read_only(&from) || self.is_read_only(&to) {
            return Some(Errno::ROFS.into());
        }
        Some(match self.lender(&from) == self.lender(&to) {
            true => Answer::Continue,
            false => Errno::XDEV.into(),
        })
    }

    /// Tells whether opening for writing is to be refused.
    pub(super) fn is_write_refused(&mut self, call: &Call, directory: i32, address: u64, follows: bool) -> bool {
        if self.lent.iter().all(|lent| lent.writable) {
            return false;
        }
        let Ok(path) = self.memory.string(call.thread, address) else {
            return false;
        };
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let concerns = |lent: &Lent| !lent.writable && lent.file.as_ref().is_none_or(|file| file.as_bytes() == name);
        if !self.lent.iter().any(concerns) {
            return false;
        }
        let place = self.resolved(call, directory, &path, follows);
        place.is_some_and(|place| self.is_read_only(&place))
    }

    fn place(&mut self, call: &Call, directory: Option<usize>, path: usize, follows: bool) -> Option<PathBuf> {
        let directory = directory.map_or(libc::AT_FDCWD, |at| super::i32_of(call.args[at]));
        let path = self.memory.string(call.thread, call.args[path]).ok()?;
        self.resolved(call, directory, &path, follows)
    }

    /// Where a path leads, as the supervisor names it: also to what does not exist yet, in a directory that does.
    fn resolved(&self, call: &Call, directory: i32, path: &[u8], follows: bool) -> Option<PathBuf> {
        if path.is_empty() {
            return None;
        }
        let whole = match path.starts_with(b"/") {
            true => path.to_vec(),
            false => self.absolute(call, directory, path)?,
        };
        let whole = Path::new(OsStr::from_bytes(&whole));
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open = |path: &Path| {
            rustix::fs::openat2(&self.root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how).ok()
        };
        if follows && let Some(found) = open(whole) {
            return path_of(&found);
        }
        let (parent, name) = (whole.parent()?, whole.file_name()?);
        Some(path_of(&open(parent)?)?.join(name))
    }

    fn is_read_only(&self, place: &Path) -> bool {
        self.lender(place)
            .and_then(|number| self.lent.get(number))
            .is_some_and(|lent| !lent.writable)
    }

    /// Which of the things that are lent a path lies in: the innermost.
    fn lender(&self, place: &Path) -> Option<usize> {
        let paths = self
            .lent
            .iter()
            .enumerate()
            .filter_map(|(number, lent)| Some((number, lent.path()?)));
        paths
            .filter(|(_, path)| place.starts_with(path))
            .max_by_key(|(_, path)| path.components().count())
            .map(|(number, _)| number)
    }
}

fn path_of(descriptor: &OwnedFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).ok()
}
