//! What lies below /proc and /sys for a command: the kernel's own files about its processes and about the machine, and nothing of
//! processes that are not its own.

use super::ids::as_user;
use super::paths::{Inside, Tree};
use super::processes::{Owner, Processes, process_of};
use crate::sandbox::plan::MASKED;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A file of the kernel's, to be read.
    File(PathBuf),
    /// One that a process may also write about itself.
    Writable(PathBuf),
    /// What a process has open, or runs: opened anew through the kernel's link.
    Opened(PathBuf),
    /// A directory: the kernel's, and the stand-in below the root that has its names.
    Directory { real: PathBuf, stand: Inside },
    /// A link itself: the kernel's, and what it says inside the root.
    Link { real: PathBuf, text: Vec<u8> },
    /// A file with content of the sandbox's, in place of one of the kernel's.
    Made { real: PathBuf, content: Vec<u8> },
    /// A path inside the root, to which the kernel's link of a process leads.
    Root(PathBuf),
}

/// Who asks: a thread of the command's, and with which rights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) thread: i32,
    pub(super) owner: Owner,
}

/// What is needed to tell what lies where.
#[derive(Debug)]
pub(super) struct World {
    pub(super) processes: Processes,
    /// The root's path outside, with which the kernel's links begin.
    pub(super) root: PathBuf,
    pub(super) hostname: String,
    /// Names that were written in place of `self`, each as good as it.
    pub(super) short_names: HashSet<Vec<u8>>,
    /// What `--mount` has put in place: where, and as what kind of file system.
    pub(super) mounts: Vec<(String, &'static str)>,
    pub(super) proc: OwnedFd,
    pub(super) sys: Option<OwnedFd>,
}

/// What tells of others, where there are no namespaces, or of the machine's keys.
const NOT_ITS_OWN: [&str; 2] = ["proc/sysrq-trigger", "proc/sysvipc"];
/// Files about a process that it may write as well.
const WRITABLE: [&[u8]; 5] = [
    b"comm",
    b"oom_score_adj",
    b"coredump_filter",
    b"timerslack_ns",
    b"clear_refs",
];
/// What a process's own directory holds of its mounts.
const MOUNTS: [&[u8]; 3] = [b"mountinfo", b"mounts", b"mountstats"];

impl World {
    /// Finds what a path leads to; `follows` says whether a link at its end counts.
    pub(super) fn find(&self, caller: Caller, inside: &Inside, follows: bool) -> Result<Target, Errno> {
        match inside.tree {
            Tree::Proc => self.in_proc(caller, inside, follows),
            Tree::Sys => self.in_sys(inside, follows),
        }
    }

    fn in_proc(&self, caller: Caller, inside: &Inside, follows: bool) -> Result<Target, Errno> {
        let Some((first, rest)) = inside.parts.split_first() else {
            return Ok(directory(inside.clone()));
        };
        let of_caller = |parts: &[&[u8]]| {
            let process = process_of(caller.thread).ok_or(Errno::NOENT)?;
            let mut all = vec![process.to_string().into_bytes()];
            all.extend(parts.iter().map(|part| part.to_vec()));
            Ok::<_, Errno>(all)
        };
        let thread = caller.thread.to_string().into_bytes();
        let own: Vec<Vec<u8>> = match first.as_slice() {
            b"self" => of_caller(&[])?,
            name if self.short_names.contains(name) => of_caller(&[])?,
            b"thread-self" => of_caller(&[b"task", &thread])?,
            b"mounts" | b"net" => of_caller(&[first])?,
            _ => return self.named(caller, inside, follows),
        };
        if rest.is_empty() && !follows {
            let text = match first.as_slice() {
                b"mounts" | b"net" => [b"self/", first.as_slice()].concat(),
                _ => own.join(&b'/'),
            };
            let real = match self.short_names.contains(first) {
                true => PathBuf::from("/proc/self"),
                false => real(inside),
            };
            return Ok(Target::Link { real, text });
        }
        let parts = own.into_iter().chain(rest.iter().cloned()).collect();
        let inside = Inside {
            tree: Tree::Proc,
            parts,
        };
        self.named(caller, &inside, follows)
    }

    /// Something below /proc that is no link to whoever asks.
    fn named(&self, caller: Caller, inside: &Inside, follows: bool) -> Result<Target, Errno> {
        let Some((first, rest)) = inside.parts.split_first() else {
            return Ok(directory(inside.clone()));
        };
        if let Some(process) = number(first) {
            return match self.processes.has(process) {
                true => self.of_process(caller, inside, rest, follows),
                false => Err(Errno::NOENT),
            };
        }
        if is_masked(inside) {
            return Err(Errno::NOENT);
        }
        let parts: Vec<&[u8]> = inside.parts.iter().map(Vec::as_slice).collect();
        if parts == [&b"sys"[..], b"kernel", b"hostname"] {
            let content = format!("{}\n", self.hostname).into_bytes();
            return Ok(Target::Made {
                real: real(inside),
                content,
            });
        }
        self.plain(inside)
    }

    /// Something in the directory of a process, or of one of its threads.
    fn of_process(&self, caller: Caller, inside: &Inside, rest: &[Vec<u8>], follows: bool) -> Result<Target, Errno> {
        let Some((name, below)) = rest.split_first() else {
            return self.plain(inside);
        };
        let until = |count: usize| Inside {
            tree: Tree::Proc,
            parts: inside.parts.iter().take(inside.parts.len() - count).cloned().collect(),
        };
        match name.as_slice() {
            b"task" if !below.is_empty() => match below.first().and_then(|id| number(id)) {
                Some(thread) if self.processes.has(thread) => {
                    self.of_process(caller, inside, below.get(1..).unwrap_or_default(), follows)
                }
                _ => Err(Errno::NOENT),
            },
            b"exe" | b"cwd" | b"root" => self.link(caller, &until(below.len()), below, follows),
            b"fd" => match below.split_first() {
                None => self.plain(inside),
                Some((_, below)) => self.link(caller, &until(below.len()), below, follows),
            },
            name if MOUNTS.contains(&name) && below.is_empty() => Ok(Target::Made {
                real: real(inside),
                content: self.mounts(name),
            }),
            b"ns" if !below.is_empty() && follows => Err(Errno::ACCESS),
            b"map_files" if !below.is_empty() => Err(Errno::ACCESS),
            name if WRITABLE.contains(&name) && below.is_empty() => Ok(Target::Writable(real(inside))),
            _ => self.plain(inside),
        }
    }

    /// A link of the kernel's to a file or directory of a process.
    fn link(&self, caller: Caller, link: &Inside, below: &[Vec<u8>], follows: bool) -> Result<Target, Errno> {
        let real = real(link);
        let text = as_user(caller.owner, || rustix::fs::readlink(&real, Vec::new()))?.into_bytes();
        let within = self.within(&text);
        if below.is_empty() && !follows {
            let text = match &within {
                Some(path) => path.as_os_str().as_bytes().to_vec(),
                // No path, such as `pipe:[123]`, or one that the command has no business with.
                None if text.starts_with(b"/") => b"/".to_vec(),
                None => text,
            };
            return Ok(Target::Link { real, text });
        }
        let is_directory =
            as_user(caller.owner, || rustix::fs::stat(&real)).is_ok_and(|stat| crate::beneath::kind(&stat).is_dir());
        match (within, is_directory) {
            (Some(path), true) => {
                let rest = below.iter().map(|part| OsString::from_vec(part.clone()));
                Ok(Target::Root(rest.fold(path, |path, part| path.join(part))))
            }
            // A directory outside of the root is nothing that a command can have.
            (None, true) => Err(Errno::ACCESS),
            (_, false) if below.is_empty() => Ok(Target::Opened(real)),
            (_, false) => Err(Errno::NOTDIR),
        }
    }

    /// Cuts the root from a path outside; `None` when it lies elsewhere.
    pub(super) fn within(&self, path: &[u8]) -> Option<PathBuf> {
        let below = Path::new(std::ffi::OsStr::from_bytes(path))
            .strip_prefix(&self.root)
            .ok()?;
        Some(Path::new("/").join(below))
    }

    /// What a process reads of its mounts: those that a container has.
    fn mounts(&self, form: &[u8]) -> Vec<u8> {
        let device = rustix::fs::stat(&self.root).map_or(0, |stat| stat.st_dev);
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let mut all = vec![
            ("overlay", "/", "overlay", "rw,relatime", format!("{major}:{minor}")),
            (
                "proc",
                "/proc",
                "proc",
                "rw,nosuid,nodev,noexec,relatime",
                "0:5".to_owned(),
            ),
            ("tmpfs", "/dev", "tmpfs", "rw,nosuid", "0:6".to_owned()),
            (
                "devpts",
                "/dev/pts",
                "devpts",
                "rw,nosuid,noexec,relatime",
                "0:7".to_owned(),
            ),
            (
                "mqueue",
                "/dev/mqueue",
                "mqueue",
                "rw,nosuid,nodev,noexec,relatime",
                "0:8".to_owned(),
            ),
            (
                "shm",
                "/dev/shm",
                "tmpfs",
                "rw,nosuid,nodev,noexec,relatime",
                "0:9".to_owned(),
            ),
            (
                "sysfs",
                "/sys",
                "sysfs",
                "ro,nosuid,nodev,noexec,relatime",
                "0:10".to_owned(),
            ),
        ];
        all.extend(
            self.mounts
                .iter()
                .map(|(target, kind)| (*kind, target.as_str(), *kind, "rw,relatime", format!("{major}:{minor}"))),
        );
        let line =
            |(at, (source, target, kind, options, device)): (usize, &(&str, &str, &str, &str, String))| match form {
                b"mountinfo" => {
                    let (id, parent) = (100 + at, if at == 0 { 1 } else { 100 });
                    format!("{id} {parent} {device} / {target} {options} - {kind} {source} rw\n")
                }
                b"mountstats" => format!("device {source} mounted on {target} with fstype {kind}\n"),
                _ => format!("{source} {target} {kind} {options} 0 0\n"),
            };
        all.iter().enumerate().map(line).collect::<String>().into_bytes()
    }

    /// A file, directory or link that the kernel shows as it is.
    fn plain(&self, inside: &Inside) -> Result<Target, Errno> {
        let (real, below) = (real(inside), below(inside));
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match rustix::fs::openat2(&self.proc, &below, flags, Mode::empty(), how) {
            Err(Errno::LOOP) => return Err(Errno::NOENT),
            other => other?,
        };
        let stat = rustix::fs::fstat(&found)?;
        let kind = crate::beneath::kind(&stat);
        if kind.is_dir() {
            return Ok(directory(inside.clone()));
        }
        if kind.is_symlink() {
            let text = rustix::fs::readlink(&real, Vec::new())?.into_bytes();
            return Ok(Target::Link { real, text });
        }
        Ok(Target::File(real))
    }

    fn in_sys(&self, inside: &Inside, follows: bool) -> Result<Target, Errno> {
        let sys = self.sys.as_ref().ok_or(Errno::NOENT)?;
        if is_masked(inside) {
            return Err(Errno::NOENT);
        }
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, !follows);
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = rustix::fs::openat2(sys, below(inside), flags, Mode::empty(), how)?;
        let stat = rustix::fs::fstat(&found)?;
        let path = rustix::fs::readlink(format!("/proc/self/fd/{}", raw(&found)), Vec::new())?.into_bytes();
        let path = path.strip_prefix(b"/sys").ok_or(Errno::NOENT)?;
        let inside = Inside {
            tree: Tree::Sys,
            parts: path
                .split(|byte| *byte == b'/')
                .filter(|part| !part.is_empty())
                .map(<[u8]>::to_vec)
                .collect(),
        };
        if is_masked(&inside) {
            return Err(Errno::NOENT);
        }
        let kind = crate::beneath::kind(&stat);
        if kind.is_symlink() {
            let text = rustix::fs::readlink(real(&inside), Vec::new())?.into_bytes();
            return Ok(Target::Link {
                real: real(&inside),
                text,
            });
        }
        match kind.is_dir() {
            true => Ok(directory(inside)),
            false => Ok(Target::File(real(&inside))),
        }
    }
}

fn raw(descriptor: &OwnedFd) -> i32 {
    use std::os::fd::AsRawFd as _;
    descriptor.as_raw_fd()
}

fn number(part: &[u8]) -> Option<i32> {
    std::str::from_utf8(part)
        .ok()?
        .parse()
        .ok()
        .filter(|number| *number > 0)
}

fn directory(inside: Inside) -> Target {
    Target::Directory {
        real: real(&inside),
        stand: inside,
    }
}

/// The path below its tree.
fn below(inside: &Inside) -> PathBuf {
    let parts = inside.parts.iter().map(|part| OsString::from_vec(part.clone()));
    let path: PathBuf = parts.collect();
    match path.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => path,
    }
}

/// The kernel's own.
pub(super) fn real(inside: &Inside) -> PathBuf {
    let parts = inside.parts.iter().map(|part| OsString::from_vec(part.clone()));
    parts.fold(Path::new("/").join(inside.tree.name()), |path, part| path.join(part))
}

/// Tells whether a container would not see it.
pub(super) fn is_masked(inside: &Inside) -> bool {
    let path = Path::new(inside.tree.name()).join(below(inside));
    MASKED.iter().any(|masked| path.starts_with(masked)) || NOT_ITS_OWN.iter().any(|other| path.starts_with(other))
}
