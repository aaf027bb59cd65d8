//! Answers a command's calls where there are no mounts: what it asks of /proc, /sys and secrets, of processes and the network. Every
//! other call goes on in the kernel.

mod answers;
pub(super) mod filter;
mod ids;
mod ipc;
pub(super) mod lent;
mod listener;
mod made;
mod memory;
mod network;
mod paths;
mod processes;
mod signals;
mod stand;
mod tree;

pub(super) use processes::Processes;

use super::SandboxError;
use crate::beneath::FileError;
use answers::Place;
use ipc::{Family, Ipc};
use lent::Lent;
use listener::{Answer, Call, Listener};
use memory::Memory;
use network::Sockets;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use stand::Stand;
use std::collections::HashSet;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use tree::World;

/// A secret that a command may read, and the empty file that stands for it.
#[derive(Debug)]
pub(super) struct Secret {
    /// Device and inode of the file that stands for it.
    place: (u64, u64),
    /// Its content, with the owner and the mode of that file.
    file: OwnedFd,
}

impl Secret {
    pub(super) fn new(place: &OwnedFd, content: &[u8]) -> Result<Self, SandboxError> {
        let failed = |e| SandboxError::system("keep a secret in memory", e);
        let stat = rustix::fs::fstat(place).map_err(failed)?;
        let owner = (
            Some(rustix::fs::Uid::from_raw(stat.st_uid)),
            Some(rustix::fs::Gid::from_raw(stat.st_gid)),
        );
        let file = made::file(content, stat.st_mode).map_err(failed)?;
        rustix::fs::fchown(&file, owner.0, owner.1).map_err(failed)?;
        Ok(Self {
            place: (stat.st_dev, stat.st_ino),
            file,
        })
    }
}

/// The supervisor of one command.
#[derive(Debug)]
pub(super) struct Supervisor {
    listener: Listener,
    world: World,
    root: OwnedFd,
    memory: Memory,
    stand: Stand,
    secrets: Vec<Secret>,
    lent: Vec<Lent>,
    made: made::Made,
    ipc: Ipc,
    sockets: Sockets,
}

impl Supervisor {
    /// Begins to answer the calls that come from `listener`, for a command in `root`.
    pub(super) fn new(
        listener: OwnedFd,
        root: &Path,
        hostname: &str,
        mounts: Vec<(String, &'static str)>,
        (secrets, lent): (Vec<Secret>, Vec<Lent>),
    ) -> Result<Self, SandboxError> {
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty())
        };
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |e| SandboxError::from(FileError::new("open directory", path, e))
        };
        let canonical = std::fs::canonicalize(root).map_err(|e| FileError::new("look up", root, e))?;
        let proc = Path::new("/proc");
        Ok(Self {
            listener: Listener::new(listener),
            root: open(root).map_err(failed(root))?,
            memory: Memory::default(),
            stand: Stand::new(root)?,
            secrets,
            lent,
            made: made::Made::default(),
            ipc: Ipc::default(),
            sockets: Sockets::default(),
            world: World {
                processes: Processes::new(),
                root: canonical,
                hostname: hostname.to_owned(),
                short_names: HashSet::new(),
                mounts,
                proc: open(proc).map_err(failed(proc))?,
                sys: open(Path::new("/sys")).ok(),
            },
        })
    }

    /// What to poll for calls.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.listener.descriptor()
    }

    /// Takes one call, and answers it.
    pub(super) fn serve(&mut self) -> Result<(), SandboxError> {
        if let Some(call) = self.listener.receive()? {
            let answer = match call.number {
                // The one call that may wait for others.
                libc::SYS_connect => self.connect(&call),
                _ => Some(self.answer(&call)),
            };
            if let Some(answer) = answer {
                self.listener.answer(&call, answer);
            }
        }
        Ok(())
    }

    fn answer(&mut self, call: &Call) -> Answer {
        let a = call.args;
        let directory = i32_of(a[0]);
        let at = |directory, address, follows| Place {
            directory,
            address,
            follows,
        };
        let flagged = |flags: u64| flags & u64::from(libc::AT_SYMLINK_NOFOLLOW.cast_unsigned()) == 0;
        let here = libc::AT_FDCWD;
        match call.number {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => self.open(call, here, a[0], a[1], a[2]),
            libc::SYS_openat => self.open(call, directory, a[1], a[2], a[3]),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_stat => self.stat(call, at(here, a[0], true), a[1]),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_lstat => self.stat(call, at(here, a[0], false), a[1]),
            libc::SYS_fstat => self.stat_of_open(call, directory, a[1]),
            libc::SYS_newfstatat => self.stat(call, at(directory, a[1], flagged(a[3])), a[2]),
            libc::SYS_statx => self.statx(call, at(directory, a[1], flagged(a[2])), a[4]),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_readlink => self.readlink(call, at(here, a[0], false), a[1], a[2]),
            libc::SYS_readlinkat => self.readlink(call, at(directory, a[1], false), a[2], a[3]),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_access => self.access(call, at(here, a[0], true), a[1]),
            libc::SYS_faccessat => self.access(call, at(directory, a[1], true), a[2]),
            libc::SYS_faccessat2 => self.access(call, at(directory, a[1], flagged(a[3])), a[2]),
            libc::SYS_statfs => self.statfs(call, at(here, a[0], true), a[1]),
            libc::SYS_getxattr => self.attributes(call, at(here, a[0], true), false),
            libc::SYS_lgetxattr => self.attributes(call, at(here, a[0], false), false),
            libc::SYS_listxattr => self.attributes(call, at(here, a[0], true), true),
            libc::SYS_llistxattr => self.attributes(call, at(here, a[0], false), true),
            libc::SYS_chdir => self.enter(call, at(here, a[0], true)),
            libc::SYS_execve => self.run(call, at(here, a[0], true)),
            libc::SYS_execveat => self.run(call, at(directory, a[1], flagged(a[4]))),
            libc::SYS_uname => self.uname(call),
            libc::SYS_socket => self.socket(call),
            libc::SYS_listen => self.listen(call),
            libc::SYS_bind => self.bind(call),
            libc::SYS_shmget => self.ipc.get(call, Family::Memory),
            libc::SYS_semget => self.ipc.get(call, Family::Semaphores),
            libc::SYS_msgget => self.ipc.get(call, Family::Messages),
            libc::SYS_shmat => self.ipc.with(call, Family::Memory),
            libc::SYS_semop | libc::SYS_semtimedop => self.ipc.with(call, Family::Semaphores),
            libc::SYS_msgsnd | libc::SYS_msgrcv => self.ipc.with(call, Family::Messages),
            libc::SYS_shmctl => self.ipc.control(call, Family::Memory),
            libc::SYS_semctl => self.ipc.control(call, Family::Semaphores),
            libc::SYS_msgctl => self.ipc.control(call, Family::Messages),
            libc::SYS_kill => self.kill(call),
            libc::SYS_ptrace => self.ptrace(call),
            libc::SYS_setpriority | libc::SYS_ioprio_set => self.priority(call),
            _ => match self.change(call) {
                Some(answer) => answer,
                // The others of the filter begin with a process.
                None => self.about_process(a[0]),
            },
        }
    }

    fn run(&mut self, call: &Call, place: Place) -> Answer {
        let answer = self.enter(call, place);
        // From here on its memory is another.
        self.memory.forget(call.thread);
        answer
    }

    /// uname(2), with the host name that commands have everywhere.
    fn uname(&mut self, call: &Call) -> Answer {
        // SAFETY: all bytes of the structure may be zero: six arrays of characters.
        let mut names: libc::utsname = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one structure, which lives through the call.
        if unsafe { libc::uname(&raw mut names) } != 0 {
            return Errno::FAULT.into();
        }
        names.nodename = [0; 65];
        for (to, from) in names.nodename.iter_mut().take(64).zip(self.world.hostname.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let bytes = plain_bytes(&names).to_vec();
        match self.memory.write(call.thread, a0(call), &bytes) {
            Ok(()) => Answer::Value(0),
            // Whose memory nobody may see learns the machine's name.
            Err(_) => Answer::Continue,
        }
    }
}

fn a0(call: &Call) -> u64 {
    call.args[0]
}

fn i32_of(argument: u64) -> i32 {
    u32::try_from(argument & 0xffff_ffff).unwrap_or_default().cast_signed()
}

/// What the kernel wrote, as bytes.
trait Plain {}
impl Plain for rustix::fs::Stat {}
impl Plain for rustix::fs::Statx {}
impl Plain for rustix::fs::StatFs {}
impl Plain for libc::utsname {}

fn plain_bytes<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: the types are the kernel's structures of numbers without gaps, so that every byte of them is set.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}
