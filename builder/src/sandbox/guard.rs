//! The processes between the builder and a command: they see to it that the command never outlives the builder.
//!
//! `outer` unshares and waits. `guard` is process 1 of a pid namespace of its own and never runs a foreign program, so nothing clears
//! its parent death signal: leaving uid 0 or starting a set-uid program would. When `outer` or the builder dies, the kernel kills
//! `guard`, and with it the nested namespace in which the command is process 1, as it is in a container.

use super::child::{die_with_parent, system};
use super::plan::Plan;
use super::{CHILD_NAME, SandboxError, child};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::WaitOptions;
use rustix::thread::UnshareFlags;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Closes every descriptor but the three standard ones: what the builder's caller left open (a directory, a socket) would lead a
/// command out of its root.
pub(super) fn close_foreign_descriptors() -> Result<(), SandboxError> {
    // SAFETY: called first in a process of one thread that has opened nothing yet, so nobody owns what is closed.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    if result == 0 {
        return Ok(());
    }
    Err(SandboxError::system(
        "close the caller's descriptors",
        std::io::Error::last_os_error(),
    ))
}

pub(super) fn outer() -> Result<i32, SandboxError> {
    die_with_parent()?;
    close_foreign_descriptors()?;
    let mut plan = Vec::new();
    std::io::stdin()
        .read_to_end(&mut plan)
        .map_err(system("read the plan"))?;
    let no_network = Plan::read(&plan)?.no_network;
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    flags.set(UnshareFlags::NEWNET, no_network);
    // SAFETY: this process has one thread and shares neither memory nor files with another.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(system("unshare namespaces"))?;
    if no_network {
        start_loopback()?;
    }
    let (lives, held) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(system("make a pipe"))?;
    // SAFETY: this process has one thread, so the child owns a whole copy of it and may go on as it likes.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        drop(held);
        return guard(&plan, &lives);
    }
    let child = rustix::process::Pid::from_raw(forked);
    if forked < 0 || child.is_none() {
        return Err(SandboxError::system("fork", std::io::Error::last_os_error()));
    }
    let ended = loop {
        match rustix::process::waitpid(child, WaitOptions::empty()) {
            Ok(Some((_, status))) => break status,
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(SandboxError::system("wait for the sandbox", e)),
        }
    };
    drop(held);
    Ok(ended
        .exit_status()
        .unwrap_or_else(|| 128 + ended.terminating_signal().unwrap_or(0)))
}

/// Takes the loopback interface of a new network namespace into use (netdevice(7)).
fn start_loopback() -> Result<(), SandboxError> {
    use rustix::net::{AddressFamily, SocketType, socket};
    use std::os::fd::AsRawFd as _;
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(system("make a socket"))?;
    // SAFETY: all bytes of an ifreq may be zero: numbers, and a union of numbers and addresses.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = (*from).cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: the socket is open, and the request is a whole ifreq with a name that ends in zero; it lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(SandboxError::system("start the loopback interface", error))
}

fn guard(plan: &[u8], outer_lives: &OwnedFd) -> Result<i32, SandboxError> {
    die_with_parent()?;
    // Had the parent died before that call, the other end of its pipe would be closed.
    let mut waited = [PollFd::new(outer_lives, PollFlags::IN)];
    if poll(&mut waited, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).map_err(system("look after the builder"))? > 0 {
        return Err(SandboxError::Setup("the builder is gone".into()));
    }
    // SAFETY: this process has one thread and shares neither memory nor files with another.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }.map_err(system("unshare the pid namespace"))?;
    let mut inner = Command::new(own_file()?)
        .arg0(CHILD_NAME)
        .arg("inner")
        .stdin(Stdio::piped())
        .spawn()
        .map_err(system("start the first process of the sandbox"))?;
    if let Some(mut stdin) = inner.stdin.take() {
        stdin.write_all(plan).map_err(system("hand over the plan"))?;
    }
    let status = inner.wait().map_err(system("wait for the command"))?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// Names this binary through a read-only mount: inside, `/proc/self/exe` names it for a moment, and root could write to the host's
/// file through that (CVE-2019-5736).
fn own_file() -> Result<PathBuf, SandboxError> {
    let exe = PathBuf::from("/proc/self/exe");
    let failed = |e| SandboxError::system("look up this program's file", e);
    let path = std::fs::read_link(&exe).map_err(failed)?;
    let running = std::fs::metadata(&exe).map_err(failed)?;
    // A file replaced since its start has no name any more: nobody else will run what is written to it.
    match std::fs::metadata(&path) {
        Ok(named) if (named.dev(), named.ino()) == (running.dev(), running.ino()) => {}
        _ => return Ok(exe),
    }
    rustix::mount::mount_bind(&path, &path).map_err(system("bind this program's file"))?;
    child::read_only_bind(&path)?;
    Ok(path)
}
