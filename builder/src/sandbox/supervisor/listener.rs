//! The kernel's side of seccomp user notification: what a command asks for comes in here, and answers go out. Source: seccomp_unotify(2).

use crate::sandbox::SandboxError;
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

/// A call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// Names the call in answers.
    pub(super) id: u64,
    /// The thread that waits, by the supervisor's numbers.
    pub(super) thread: i32,
    /// Number of the system call.
    pub(super) number: libc::c_long,
    /// Its arguments, as registers hold them.
    pub(super) args: [u64; 6],
}

/// What a call gets.
#[derive(Debug)]
pub(super) enum Answer {
    /// The kernel does it.
    Continue,
    /// It has done what it was to do, and returns this.
    Value(i64),
    /// It fails.
    Error(Errno),
    /// It returns a new descriptor.
    Descriptor { file: OwnedFd, close_on_exec: bool },
}

impl From<Errno> for Answer {
    fn from(error: Errno) -> Self {
        Self::Error(error)
    }
}

/// The descriptor that calls come from.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

/// Wakes the waiting thread on this processor: the two take turns (Linux 6.6).
const SYNC_WAKE_UP: u64 = 1;

impl Listener {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        // Older kernels don't know it; it is for speed alone.
        // SAFETY: the descriptor is open and the flags go by value.
        let _slower = unsafe {
            libc::ioctl(
                descriptor.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
                SYNC_WAKE_UP,
            )
        };
        Self(descriptor)
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd as _;
        self.0.as_fd()
    }

    /// The same listener for another thread.
    pub(super) fn again(&self) -> Result<Self, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.0, 3).map(Self)
    }

    /// Takes the next call. `None` when the thread that made it is gone.
    pub(super) fn receive(&self) -> Result<Option<Call>, SandboxError> {
        // SAFETY: all bytes of a notification may be zero, as the kernel wants them to be.
        let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one notification, which lives through the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut raw) };
        if result != 0 {
            return match Errno::from_io_error(&io::Error::last_os_error()) {
                Some(Errno::NOENT | Errno::INTR) | None => Ok(None),
                Some(error) => Err(SandboxError::system("take a call of the command", error)),
            };
        }
        Ok(Some(Call {
            id: raw.id,
            thread: i32::try_from(raw.pid).unwrap_or_default(),
            number: raw.data.nr.into(),
            args: raw.data.args,
        }))
    }

    /// Tells whether the thread still waits: if so, what was read of its memory and its descriptors was its own.
    pub(super) fn still_waits(&self, call: &Call) -> bool {
        // SAFETY: the kernel reads the id, which lives through the call.
        let result = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
                &raw const call.id,
            )
        };
        result == 0
    }

    /// Answers. A thread that is gone needs no answer.
    pub(super) fn answer(&self, call: &Call, answer: Answer) {
        // SAFETY: all bytes of a response may be zero.
        let mut raw: libc::seccomp_notif_resp = unsafe { std::mem::zeroed() };
        raw.id = call.id;
        match answer {
            Answer::Continue => raw.flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or_default(),
            Answer::Value(value) => raw.val = value,
            Answer::Error(error) => raw.error = -error.raw_os_error(),
            Answer::Descriptor { file, close_on_exec } => match self.give(call, &file, close_on_exec) {
                Ok(()) => return,
                Err(error) => raw.error = -error.raw_os_error(),
            },
        }
        // SAFETY: the kernel reads one response, which lives through the call.
        let _gone = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const raw) };
    }

    /// Gives the thread a descriptor of its own, whose number is what its call returns.
    fn give(&self, call: &Call, file: &OwnedFd, close_on_exec: bool) -> Result<(), Errno> {
        let flags = u32::try_from(libc::SECCOMP_ADDFD_FLAG_SEND).unwrap_or_default();
        match self.add(call, file, close_on_exec, flags) {
            // The thread is gone, or was interrupted: it asks again if it lives.
            Err(Errno::NOENT) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Gives the thread a descriptor, and tells its number. The call still waits for its answer.
    pub(super) fn give_only(&self, call: &Call, file: &OwnedFd, close_on_exec: bool) -> Result<i32, Errno> {
        self.add(call, file, close_on_exec, 0)
    }

    fn add(&self, call: &Call, file: &OwnedFd, close_on_exec: bool, flags: u32) -> Result<i32, Errno> {
        // SAFETY: all bytes of the request may be zero.
        let mut raw: libc::seccomp_notif_addfd = unsafe { std::mem::zeroed() };
        raw.id = call.id;
        raw.flags = flags;
        raw.srcfd = file.as_raw_fd().cast_unsigned();
        raw.newfd_flags = if close_on_exec {
            libc::O_CLOEXEC.cast_unsigned()
        } else {
            0
        };
        // SAFETY: the kernel reads one request, which lives through the call; the descriptor is open.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const raw) };
        match result {
            // The number of the new descriptor.
            0.. => Ok(result),
            _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }
}
