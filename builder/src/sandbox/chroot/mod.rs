//! The sandbox where nothing can be mounted and no namespace made: a directory as root, entered by chroot(2).
//!
//! Three processes: the builder; this supervisor, its child, which puts in place what the command finds besides the stage's files,
//! answers calls about what is not there, and takes everything back, also when the builder is killed; and the command, which begins as
//! this binary and gives up all it can.

mod fixtures;
mod inner;
mod root;

pub use fixtures::Report;
pub(super) use inner::inner;

use super::child::system;
use super::plan::Plan;
use super::supervisor::{Processes, Supervisor};
use super::{CHILD_NAME, SandboxError, guard};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, WaitOptions};
use std::io::Read as _;
use std::os::fd::{AsFd as _, FromRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Longest plan read, in bytes.
const MAX_PLAN: u64 = 64 << 20;

/// Where the report of a command goes.
fn report_path(plan: &Plan) -> PathBuf {
    plan.aside.with_extension("report")
}

/// Reads what the sandbox says of the root of `plan`, when its command is over.
///
/// # Errors
/// When there is no report: the supervisor was killed.
pub fn report(plan: &Plan) -> Result<Report, SandboxError> {
    let bytes = std::fs::read(report_path(plan)).map_err(|e| SandboxError::system("read the sandbox's report", e))?;
    serde_json::from_slice(&bytes).map_err(|e| SandboxError::Setup(format!("the sandbox's report is malformed: {e}")))
}

/// Writes a plan in front of which stands its length: what comes after it is the life of the writer.
pub(super) fn send_plan(mut to: impl std::io::Write, plan: &[u8]) -> std::io::Result<()> {
    to.write_all(&(plan.len() as u64).to_le_bytes())?;
    to.write_all(plan)
}

fn receive_plan(mut from: impl std::io::Read) -> Result<Vec<u8>, SandboxError> {
    let mut length = [0; 8];
    from.read_exact(&mut length).map_err(system("read the plan"))?;
    let length = u64::from_le_bytes(length).min(MAX_PLAN);
    let mut plan = Vec::new();
    from.take(length)
        .read_to_end(&mut plan)
        .map_err(system("read the plan"))?;
    Ok(plan)
}

/// Standard input without the buffer of the library, which would read beyond the plan.
fn input() -> Result<std::fs::File, SandboxError> {
    let input = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3).map_err(system("keep standard input"))?;
    Ok(input.into())
}

/// The supervisor's process.
pub(super) fn supervise() -> Result<i32, SandboxError> {
    guard::close_foreign_descriptors()?;
    let builder = input()?;
    let text = receive_plan(&builder)?;
    let plan = Plan::read(&text)?;
    let _held = hold(&plan)?;
    prepare_self()?;
    let signals = signals()?;
    let mut root = root::Prepared::new(&plan)?;
    let mut supervisor = None;
    let status = run(&plan, &text, &mut root, &mut supervisor, &builder, &signals);
    // Calls that nobody answers any more wait: without a listener they would fail, and be complained about.
    Processes::new().end();
    drop(supervisor);
    let report = root.take_back()?;
    let status = status?;
    let report = serde_json::to_vec(&report).map_err(|e| SandboxError::Setup(e.to_string()))?;
    std::fs::write(report_path(&plan), report).map_err(system("write the report"))?;
    Ok(status)
}

/// Keeps the build's scratch directory from being removed while something is lent out of it: the builder may be killed, and the next one
/// removes what it has left.
fn hold(plan: &Plan) -> Result<std::fs::File, SandboxError> {
    let scratch = plan.aside.ancestors().nth(2).unwrap_or(&plan.aside);
    let failed = |e| crate::beneath::FileError::new("hold", scratch, e);
    let directory = std::fs::File::open(scratch).map_err(failed)?;
    directory.lock_shared().map_err(failed)?;
    Ok(directory)
}

/// Makes orphans of the command this process's children, and keeps this process from being looked into.
fn prepare_self() -> Result<(), SandboxError> {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(system("take in orphans"))?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(system("hide the supervisor"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // What is done as another user must not have root's groups.
    rustix::thread::set_thread_groups(&[]).map_err(system("give up groups"))
}

/// Has the ends of children, and the wish that all end, come as something to poll.
fn signals() -> Result<OwnedFd, SandboxError> {
    // SAFETY: all bytes of a signal set may be zero; the calls fill it, and read it.
    let descriptor = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if descriptor < 0 {
        let error = std::io::Error::last_os_error();
        return Err(SandboxError::system("listen for signals", error));
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Starts the command, answers its calls, and gives its exit status when it is over.
fn run(
    plan: &Plan,
    text: &[u8],
    root: &mut root::Prepared,
    supervisor: &mut Option<Supervisor>,
    builder: &std::fs::File,
    signals: &OwnedFd,
) -> Result<i32, SandboxError> {
    let (own, theirs) = std::os::unix::net::UnixStream::pair().map_err(system("make a pair of sockets"))?;
    let child = Command::new("/proc/self/exe")
        .arg0(CHILD_NAME)
        .arg("chroot-inner")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .map_err(system("start the first process of the sandbox"))?;
    let child = Pid::from_child(&child);
    send_plan(&own, text).map_err(system("hand over the plan"))?;
    if let Some(listener) = inner::receive_listener(&own)? {
        let answered_for = root.answered_for();
        *supervisor = Some(Supervisor::new(
            listener,
            &plan.rootfs,
            &plan.hostname,
            root::mounts(plan),
            answered_for,
        )?);
    }
    drop(own);
    loop {
        let what = wait(supervisor.as_ref(), builder, signals)?;
        if what.call
            && let Some(supervisor) = supervisor.as_mut()
        {
            supervisor.serve()?;
        }
        if what.signal
            && let Some(status) = reap(child, signals)?
        {
            return Ok(status);
        }
        if what.no_builder {
            return Ok(128 + libc::SIGTERM);
        }
        if what.no_command {
            // Nobody is left who could call; the end of the command is still to be told.
            *supervisor = None;
        }
    }
}

/// What there is to do.
struct Event {
    call: bool,
    signal: bool,
    no_builder: bool,
    no_command: bool,
}

fn wait(supervisor: Option<&Supervisor>, builder: &std::fs::File, signals: &OwnedFd) -> Result<Event, SandboxError> {
    let mut polled = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(builder, PollFlags::IN)];
    let listener = supervisor.map(Supervisor::descriptor);
    if let Some(listener) = &listener {
        polled.push(PollFd::new(listener, PollFlags::IN));
    }
    loop {
        match poll(&mut polled, None) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(SandboxError::system("wait for the command", e)),
        }
    }
    let happened = |at: usize| polled.get(at).map_or(PollFlags::empty(), PollFd::revents);
    Ok(Event {
        signal: !happened(0).is_empty(),
        // It says nothing after the plan: this is its end.
        no_builder: !happened(1).is_empty(),
        call: happened(2).contains(PollFlags::IN),
        no_command: happened(2).contains(PollFlags::HUP) && !happened(2).contains(PollFlags::IN),
    })
}

/// Takes in processes that have ended. Gives a status when the command has, or everything is to end.
fn reap(child: Pid, signals: &OwnedFd) -> Result<Option<i32>, SandboxError> {
    let mut buffer = [0u8; 128 * 8];
    let mut is_to_end = false;
    while let Ok(read) = rustix::io::read(signals, &mut buffer) {
        // Every record of signalfd_siginfo begins with the signal's number.
        for record in buffer.get(..read).unwrap_or_default().chunks(128) {
            let number = record.first_chunk().map_or(0, |number| u32::from_ne_bytes(*number));
            is_to_end |= number != libc::SIGCHLD.cast_unsigned();
        }
        if read == 0 {
            break;
        }
    }
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == child {
            let killed = || 128 + status.terminating_signal().unwrap_or(0);
            return Ok(Some(status.exit_status().unwrap_or_else(killed)));
        }
    }
    Ok(is_to_end.then_some(128 + libc::SIGTERM))
}
