//! The answers to calls with a path: opening, looking, reading links, entering, running.

use super::ids::as_user;
use super::listener::{Answer, Call};
use super::paths::{self, Inside, Tree};
use super::processes::{owner, process_of};
use super::stand::SHORT;
use super::tree::{Caller, Target};
use super::{Supervisor, made, plain_bytes};
use crate::beneath::FileError;
use rustix::fs::{Access, AtFlags, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A path that the supervisor answers for, and whose it is.
struct Asked {
    caller: Caller,
    what: What,
    /// Whether a link at its end counts: it does before a slash.
    follows: bool,
}

enum What {
    Tree(Inside),
    /// A secret, by its number.
    Secret(usize),
}

/// Where a call has its path.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The directory that a relative path begins in; `AT_FDCWD` is the process's own.
    pub(super) directory: i32,
    /// Address of the path.
    pub(super) address: u64,
    /// Whether a link at its end counts.
    pub(super) follows: bool,
}

impl Supervisor {
    /// Reads the path of a call; `None` when the kernel is to do it.
    fn asked(&mut self, call: &Call, place: Place) -> Option<Asked> {
        // What cannot be read is the kernel's to refuse, or a process's whose memory nobody may see.
        let path = self.memory.string(call.thread, place.address).ok()?;
        if path.is_empty() {
            return None;
        }
        let follows = place.follows || matches!(path.rsplit(|byte| *byte == b'/').next(), Some(b"" | b"." | b".."));
        let inside = match path.starts_with(b"/") {
            true => paths::find(&path, follows),
            false if self.stand.is_used || paths::may_enter(&path) => {
                let whole = self.absolute(call, place.directory, &path)?;
                paths::find(&whole, follows)
            }
            false => None,
        };
        let what = match inside {
            Some(inside) => What::Tree(inside),
            None if self.secrets.is_empty() => return None,
            None => What::Secret(self.secret_at(call, place, &path)?),
        };
        let caller = Caller {
            thread: call.thread,
            owner: owner(call.thread)?,
        };
        // Only now is it sure that what was read was the caller's.
        self.listener
            .still_waits(call)
            .then_some(Asked { caller, what, follows })
    }

    /// Makes a relative path absolute, as the root has it.
    pub(super) fn absolute(&self, call: &Call, directory: i32, path: &[u8]) -> Option<Vec<u8>> {
        let link = match directory {
            libc::AT_FDCWD => format!("/proc/{}/cwd", call.thread),
            number => format!("/proc/{}/fd/{number}", call.thread),
        };
        let read = || rustix::fs::readlink(&link, Vec::new());
        let base = match read() {
            Err(Errno::ACCESS | Errno::PERM) => as_user(owner(call.thread)?, read).ok()?,
            base => base.ok()?,
        };
        let base = self.world.within(base.as_bytes())?;
        Some([base.as_os_str().as_bytes(), b"/", path].concat())
    }

    /// Tells which secret a path leads to, through whatever links.
    fn secret_at(&self, call: &Call, place: Place, path: &[u8]) -> Option<usize> {
        let whole = match path.starts_with(b"/") {
            true => path.to_vec(),
            false => self.absolute(call, place.directory, path)?,
        };
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, !place.follows);
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let whole = Path::new(std::ffi::OsStr::from_bytes(&whole));
        let found = rustix::fs::openat2(&self.root, whole, flags, Mode::empty(), how).ok()?;
        let stat = rustix::fs::fstat(&found).ok()?;
        self.secrets
            .iter()
            .position(|secret| secret.place == (stat.st_dev, stat.st_ino))
    }

    /// open(2) and openat(2).
    pub(super) fn open(&mut self, call: &Call, directory: i32, address: u64, flags: u64, mode: u64) -> Answer {
        let flags = OFlags::from_bits_retain(u32::try_from(flags & 0xffff_ffff).unwrap_or_default());
        let place = Place {
            directory,
            address,
            follows: !flags.contains(OFlags::NOFOLLOW) && !flags.contains(OFlags::CREATE | OFlags::EXCL),
        };
        let Some(asked) = self.asked(call, place) else {
            let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC | OFlags::CREATE);
            return match writes && self.is_write_refused(call, directory, address, place.follows) {
                true => Errno::ROFS.into(),
                false => Answer::Continue,
            };
        };
        let opened = match &asked.what {
            What::Secret(number) => self.open_secret(asked.caller, *number, flags),
            What::Tree(inside) => self.open_inside(asked.caller, inside, flags, mode, asked.follows),
        };
        match opened {
            Ok(file) => Answer::Descriptor {
                file,
                close_on_exec: flags.contains(OFlags::CLOEXEC),
            },
            Err(error) => error.into(),
        }
    }

    fn open_inside(
        &mut self,
        caller: Caller,
        inside: &Inside,
        flags: OFlags,
        mode: u64,
        follows: bool,
    ) -> Result<OwnedFd, Errno> {
        let target = match self.world.find(caller, inside, follows) {
            Err(Errno::NOENT) if flags.contains(OFlags::CREATE) => return Err(Errno::ACCESS),
            other => other?,
        };
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        let wants_directory = flags.contains(OFlags::DIRECTORY);
        match target {
            Target::Directory { stand, .. } => {
                if writes {
                    return Err(Errno::ISDIR);
                }
                let dir = self.stand.show(&self.world, caller, &stand).map_err(kernel_error)?;
                let only = OFlags::PATH | OFlags::DIRECTORY | OFlags::NONBLOCK;
                open_at(&dir, Path::new("."), (flags & only) | OFlags::DIRECTORY)
            }
            Target::Root(path) => self.open_in_root(caller, &path, flags, mode),
            _ if wants_directory => Err(Errno::NOTDIR),
            Target::Link { .. } => Err(Errno::LOOP),
            Target::Made { content, .. } => match writes {
                true => Err(Errno::ROFS),
                false => made::open(self.made.file(content)?),
            },
            Target::File(_) if writes => Err(Errno::ROFS),
            Target::File(path) | Target::Writable(path) => {
                let flags = flags & !(OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW);
                as_user(caller.owner, || open_anew(&path, flags))
            }
            Target::Opened(path) => {
                let flags = flags & !(OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW);
                as_user(caller.owner, || open_anew(&path, flags))
            }
        }
    }

    fn open_in_root(&self, caller: Caller, path: &Path, flags: OFlags, mode: u64) -> Result<OwnedFd, Errno> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mode = match flags.contains(OFlags::CREATE) {
            true => Mode::from_raw_mode(u32::try_from(mode & 0o7777).unwrap_or_default()),
            false => Mode::empty(),
        };
        let flags = (flags & known_flags()) | OFlags::CLOEXEC;
        as_user(caller.owner, || rustix::fs::openat2(&self.root, path, flags, mode, how))
    }

    fn open_secret(&self, caller: Caller, number: usize, flags: OFlags) -> Result<OwnedFd, Errno> {
        let secret = self.secrets.get(number).ok_or(Errno::NOENT)?;
        if flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC) {
            return Err(Errno::ROFS);
        }
        if flags.contains(OFlags::DIRECTORY) {
            return Err(Errno::NOTDIR);
        }
        as_user(caller.owner, || made::open(&secret.file))
    }

    /// stat(2), lstat(2) and newfstatat(2).
    pub(super) fn stat(&mut self, call: &Call, place: Place, buffer: u64) -> Answer {
        let Some(asked) = self.asked(call, place) else {
            return Answer::Continue;
        };
        let stat = self.stat_of(&asked);
        self.written(call, buffer, stat.map(|stat| plain_bytes(&stat).to_vec()))
    }

    fn stat_of(&mut self, asked: &Asked) -> Result<Stat, Errno> {
        let inside = match &asked.what {
            What::Tree(inside) => inside,
            What::Secret(number) => {
                let secret = self.secrets.get(*number).ok_or(Errno::NOENT)?;
                let mut stat = rustix::fs::fstat(&secret.file)?;
                stat.st_nlink = 1;
                return Ok(stat);
            }
        };
        match self.world.find(asked.caller, inside, asked.follows)? {
            Target::Directory { real, stand } => {
                let mut stat = self.stand.stat(&stand).map_err(kernel_error)?.ok_or(Errno::NOENT)?;
                let of_kernel = rustix::fs::stat(&real)?;
                (stat.st_mode, stat.st_nlink) = (of_kernel.st_mode, of_kernel.st_nlink);
                (stat.st_uid, stat.st_gid) = (of_kernel.st_uid, of_kernel.st_gid);
                Ok(stat)
            }
            Target::Link { real, text } => {
                let mut stat = as_user(asked.caller.owner, || rustix::fs::lstat(&real))?;
                stat.st_mode = libc::S_IFLNK | (stat.st_mode & 0o777);
                stat.st_size = if stat.st_size == 0 {
                    0
                } else {
                    i64::try_from(text.len()).unwrap_or_default()
                };
                Ok(stat)
            }
            Target::Root(path) => {
                let found = self.open_in_root(asked.caller, &path, OFlags::PATH, 0)?;
                rustix::fs::fstat(&found)
            }
            Target::Made { content, .. } => rustix::fs::fstat(self.made.file(content)?),
            Target::File(path) | Target::Writable(path) | Target::Opened(path) => {
                as_user(asked.caller.owner, || rustix::fs::stat(&path))
            }
        }
    }

    /// statx(2).
    pub(super) fn statx(&mut self, call: &Call, place: Place, buffer: u64) -> Answer {
        let Some(asked) = self.asked(call, place) else {
            return Answer::Continue;
        };
        let result = self.stat_of(&asked).and_then(|stat| {
            // The layout is the kernel's; what it has beyond stat(2) is that of an empty file of ours.
            let empty = rustix::fs::statx(&self.root, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
            Ok(plain_bytes(&as_statx(empty, &stat)).to_vec())
        });
        self.written(call, buffer, result)
    }

    /// readlink(2) and readlinkat(2).
    pub(super) fn readlink(&mut self, call: &Call, place: Place, buffer: u64, size: u64) -> Answer {
        let Some(asked) = self.asked(call, place) else {
            return Answer::Continue;
        };
        let What::Tree(inside) = &asked.what else {
            return Answer::Continue;
        };
        let text = match self.world.find(asked.caller, inside, asked.follows) {
            Ok(Target::Link { text, .. }) => text,
            Ok(Target::Root(path)) => match self.read_link_in_root(asked.caller, &path) {
                Ok(text) => text,
                Err(error) => return error.into(),
            },
            Ok(_) => return Errno::INVAL.into(),
            Err(error) => return error.into(),
        };
        let length = text.len().min(usize::try_from(size).unwrap_or(usize::MAX));
        if length == 0 {
            return Errno::INVAL.into();
        }
        match self
            .memory
            .write(call.thread, buffer, text.get(..length).unwrap_or_default())
        {
            Ok(()) => Answer::Value(i64::try_from(length).unwrap_or_default()),
            Err(error) => error.into(),
        }
    }

    fn read_link_in_root(&self, caller: Caller, path: &Path) -> Result<Vec<u8>, Errno> {
        let found = self.open_in_root(caller, path, OFlags::PATH | OFlags::NOFOLLOW, 0)?;
        Ok(rustix::fs::readlinkat(&found, "", Vec::new())?.into_bytes())
    }

    /// access(2), faccessat(2) and faccessat2(2).
    pub(super) fn access(&mut self, call: &Call, place: Place, mode: u64) -> Answer {
        let Some(asked) = self.asked(call, place) else {
            return Answer::Continue;
        };
        match self.may_access(&asked, mode) {
            Ok(()) => Answer::Value(0),
            Err(error) => error.into(),
        }
    }

    fn may_access(&mut self, asked: &Asked, mode: u64) -> Result<(), Errno> {
        let (caller, access) = (
            asked.caller,
            Access::from_bits_retain(u32::try_from(mode & 7).unwrap_or(7)),
        );
        let inside = match &asked.what {
            What::Tree(inside) => inside,
            What::Secret(_) if access.contains(Access::WRITE_OK) => return Err(Errno::ROFS),
            What::Secret(number) => return self.open_secret(caller, *number, OFlags::RDONLY).map(drop),
        };
        let path: PathBuf = match self.world.find(caller, inside, asked.follows)? {
            Target::Link { .. } => return Ok(()),
            Target::Root(path) => {
                let found = self.open_in_root(caller, &path, OFlags::PATH, 0)?;
                format!("/proc/self/fd/{}", found.as_raw_fd()).into()
            }
            Target::Opened(path) | Target::Writable(path) => path,
            _ if access.contains(Access::WRITE_OK) => return Err(Errno::ROFS),
            Target::File(path) | Target::Directory { real: path, .. } | Target::Made { real: path, .. } => path,
        };
        as_user(caller.owner, || {
            rustix::fs::accessat(rustix::fs::CWD, &path, access, AtFlags::EACCESS)
        })
    }

    /// getxattr(2) and listxattr(2), of links themselves as well: neither tree has attributes.
    pub(super) fn attributes(&mut self, call: &Call, place: Place, lists: bool) -> Answer {
        let Some(asked) = self.asked(call, place) else {
            return Answer::Continue;
        };
        let found = match &asked.what {
            What::Tree(inside) => self.world.find(asked.caller, inside, asked.follows).map(drop),
            What::Secret(_) => return Answer::Continue,
        };
        match (found, lists) {
            (Err(error), _) => error.into(),
            (Ok(()), true) => Answer::Value(0),
            (Ok(()), false) => Errno::OPNOTSUPP.into(),
        }
    }

    /// statfs(2).
    pub(super) fn statfs(&mut self, call: &Call, place: Place, buffer: u64) -> Answer {
        let Some(asked) = self.asked(call, place) else {
            return Answer::Continue;
        };
        let What::Tree(inside) = &asked.what else {
            return Answer::Continue;
        };
        let tree = match self.world.find(asked.caller, inside, true) {
            Ok(Target::Root(path)) => path_in(&self.world.root, &path),
            Ok(_) => Path::new("/").join(inside.tree.name()),
            Err(error) => return error.into(),
        };
        let stat = rustix::fs::statfs(&tree).map(|stat| plain_bytes(&stat).to_vec());
        self.written(call, buffer, stat)
    }

    /// chdir(2) and execve(2): the kernel's own work, on the stand-in, in which `self` has another name for every process.
    pub(super) fn enter(&mut self, call: &Call, place: Place) -> Answer {
        let Some(asked) = self.asked(call, place) else {
            return Answer::Continue;
        };
        let What::Tree(inside) = &asked.what else {
            return Answer::Continue;
        };
        match self.prepare_to_enter(call, place, asked.caller, inside) {
            Ok(()) => Answer::Continue,
            Err(error) => error.into(),
        }
    }

    fn prepare_to_enter(&mut self, call: &Call, place: Place, caller: Caller, inside: &Inside) -> Result<(), Errno> {
        let stand = match self.world.find(caller, inside, true)? {
            Target::Directory { stand, .. } => stand,
            // The directory that holds the link is shown: the kernel follows it there.
            Target::Opened(path) => holder(&path).ok_or(Errno::ACCESS)?,
            Target::Root(_) => {
                let process = process_of(caller.thread).ok_or(Errno::SRCH)?;
                Inside {
                    tree: Tree::Proc,
                    parts: vec![process.to_string().into_bytes()],
                }
            }
            _ => return Err(Errno::ACCESS),
        };
        drop(self.stand.show(&self.world, caller, &stand).map_err(kernel_error)?);
        let path = self.memory.string(call.thread, place.address)?;
        let Some((at, length)) = self.own_name(&path) else {
            return Ok(());
        };
        let process = process_of(caller.thread).ok_or(Errno::SRCH)?;
        let mut name = self
            .stand
            .short_name(process)
            .map_err(kernel_error)?
            .as_bytes()
            .to_vec();
        name.resize(length, b'/');
        let address = place.address.checked_add(at as u64).ok_or(Errno::FAULT)?;
        self.memory.write(call.thread, address, &name)
    }

    /// Finds `self` or `thread-self` as a part of a path: where, and how long.
    fn own_name(&self, path: &[u8]) -> Option<(usize, usize)> {
        let mut at = 0;
        for part in path.split(|byte| *byte == b'/') {
            if part == b"self" || part == b"thread-self" || self.world.short_names.contains(part) {
                return Some((at, part.len().max(SHORT)));
            }
            at += part.len() + 1;
        }
        None
    }

    /// Ends a call that gives its result in memory.
    fn written(&mut self, call: &Call, address: u64, bytes: Result<Vec<u8>, Errno>) -> Answer {
        let result = bytes.and_then(|bytes| self.memory.write(call.thread, address, &bytes));
        match result {
            Ok(()) => Answer::Value(0),
            Err(error) => error.into(),
        }
    }
}

/// The directory of /proc in which a link lies.
fn holder(link: &Path) -> Option<Inside> {
    let parts = link.parent()?.strip_prefix("/proc").ok()?;
    Some(Inside {
        tree: Tree::Proc,
        parts: parts.iter().map(|part| part.as_bytes().to_vec()).collect(),
    })
}

fn path_in(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The flags that openat2(2) takes: it refuses those it does not know.
fn known_flags() -> OFlags {
    OFlags::RDONLY
        | OFlags::WRONLY
        | OFlags::RDWR
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::EXCL
        | OFlags::TRUNC
        | OFlags::DIRECTORY
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::PATH
}

fn open_at(dir: &crate::beneath::Dir, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir.descriptor(), path, flags | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a file of the kernel's without waiting for anybody: a pipe may have no other end now.
fn open_anew(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let waits = !flags.intersects(OFlags::NONBLOCK | OFlags::PATH);
    let file = rustix::fs::open(
        path,
        flags | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    )?;
    if waits {
        let now = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, now - OFlags::NONBLOCK)?;
    }
    Ok(file)
}

/// The kernel's word out of one of our errors.
fn kernel_error(error: FileError) -> Errno {
    Errno::from_io_error(&error.source).unwrap_or(Errno::IO)
}

fn as_statx(mut to: rustix::fs::Statx, from: &Stat) -> rustix::fs::Statx {
    to.stx_mask = StatxFlags::BASIC_STATS.bits();
    to.stx_blksize = u32::try_from(from.st_blksize).unwrap_or(4096);
    to.stx_attributes = rustix::fs::StatxAttributes::empty();
    to.stx_nlink = u32::try_from(from.st_nlink).unwrap_or(u32::MAX);
    (to.stx_uid, to.stx_gid) = (from.st_uid, from.st_gid);
    to.stx_mode = u16::try_from(from.st_mode & 0xffff).unwrap_or_default();
    to.stx_ino = from.st_ino;
    to.stx_size = from.st_size.cast_unsigned();
    to.stx_blocks = from.st_blocks.cast_unsigned();
    (to.stx_atime.tv_sec, to.stx_mtime.tv_sec, to.stx_ctime.tv_sec) = (from.st_atime, from.st_mtime, from.st_ctime);
    let nanoseconds = |value: u64| u32::try_from(value).unwrap_or_default();
    to.stx_atime.tv_nsec = nanoseconds(from.st_atime_nsec);
    to.stx_mtime.tv_nsec = nanoseconds(from.st_mtime_nsec);
    to.stx_ctime.tv_nsec = nanoseconds(from.st_ctime_nsec);
    (to.stx_rdev_major, to.stx_rdev_minor) = (rustix::fs::major(from.st_rdev), rustix::fs::minor(from.st_rdev));
    (to.stx_dev_major, to.stx_dev_minor) = (rustix::fs::major(from.st_dev), rustix::fs::minor(from.st_dev));
    to
}
