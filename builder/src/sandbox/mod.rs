//! Where RUN runs: namespaces, an overlay as root, a Docker container's capabilities, seccomp.
//!
//! The only module with `unsafe`. The builder enters a mount namespace of its own before any thread exists ([`enter`]), so nothing it
//! mounts outlives it, however it ends. A RUN's process is this binary again under another name ([`child_main`]): single-threaded,
//! given its [`plan::Plan`] on standard input.

#![expect(
    unsafe_code,
    reason = "unshare and the seccomp call have no safe form; each use says why it is sound"
)]

mod child;
pub mod chroot;
mod guard;
mod identity;
pub mod interpreter;
pub mod landlock;
mod limits;
mod mounts;
pub mod plan;
mod probe;
mod seccomp;
mod supervisor;

pub use child::child_main;
pub use identity::{Identity, user_name};
pub use limits::Ulimit;
pub use mounts::{Memory, mount_overlay, unmount};
pub use probe::{Choice, Findings, Kind, Place, enter, knows_notification, look};

use plan::Plan;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Name under which the binary runs as the sandbox's process.
const CHILD_NAME: &str = "roadstead-sandbox";

/// Exit status of the sandbox's process when the sandbox itself could not be made; the reason is on its standard error.
const SETUP_FAILED: i32 = 233;

/// Stands before that reason, since a command may end with the same status.
const FAILURE_MARK: &str = "\0roadstead-sandbox: ";

/// Tells why a sandbox could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A system call failed.
    #[error("cannot {operation}")]
    System {
        /// What was tried.
        operation: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Neither root with CAP_SYS_ADMIN nor user namespaces are to be had.
    #[error("cannot make a sandbox here: {0}")]
    Unavailable(String),
    /// A command for a processor that this machine does not run.
    #[error("cannot run a command for {platform} on this machine, which is {host}: {reason}")]
    Foreign {
        /// What the command is for.
        platform: String,
        /// What this machine is.
        host: String,
        /// Why that does not go together.
        reason: String,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] crate::beneath::FileError),
    /// The sandbox's process could not set itself up.
    #[error("cannot set up the sandbox: {0}")]
    Setup(String),
}

impl SandboxError {
    fn system(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System {
            operation: operation.into(),
            source: source.into(),
        }
    }
}

/// A RUN under way.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Kept open for a supervisor, which ends the command when it is closed.
    _life: Option<ChildStdin>,
}

/// Starts the process of `plan` in a sandbox of `kind`; its standard output and standard error are pipes.
///
/// # Errors
/// When there is no such sandbox, or this binary cannot be started again.
pub fn start(plan: &Plan, kind: Kind) -> Result<Running, SandboxError> {
    let role = match kind {
        Kind::Namespaces => "outer",
        Kind::Chroot => "chroot",
        Kind::Nothing => return Err(SandboxError::Unavailable("no command can be run".into())),
    };
    use std::os::unix::process::CommandExt as _;
    let failed = |e| SandboxError::system("start the sandbox process", e);
    let mut child = Command::new("/proc/self/exe")
        .arg0(CHILD_NAME)
        .arg(role)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let plan = serde_json::to_vec(plan).map_err(|e| SandboxError::Setup(e.to_string()))?;
    let mut life = child.stdin.take();
    if let Some(stdin) = &mut life {
        match kind {
            Kind::Chroot => chroot::send_plan(&mut *stdin, &plan).map_err(failed)?,
            _ => stdin.write_all(&plan).map_err(failed)?,
        }
    }
    Ok(Running {
        child,
        _life: life.filter(|_| kind == Kind::Chroot),
    })
}

impl Running {
    /// The pipes of the process; each can be taken once.
    pub fn output(&mut self) -> (Option<std::process::ChildStdout>, Option<std::process::ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// The id to kill: the process's death takes all others of the sandbox with it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end. Gives the exit status as a shell would: 128 and the signal's number for a killed command.
    ///
    /// # Errors
    /// When waiting fails, or the sandbox could not be set up (the reason is then on its standard error).
    pub fn wait(mut self) -> Result<i32, SandboxError> {
        let status = self
            .child
            .wait()
            .map_err(|e| SandboxError::system("wait for the sandbox process", e))?;
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }
}

/// Gives the reason when a line of standard error is the sandbox's own word that it could not be made.
#[must_use]
pub fn own_word(line: &str) -> Option<&str> {
    line.strip_prefix(FAILURE_MARK)
}

/// Tells why the sandbox could not be made, by the command's exit status and the last line of its standard error.
#[must_use]
pub fn setup_failure(status: i32, last_line: &str) -> Option<&str> {
    own_word(last_line).filter(|_| status == SETUP_FAILED)
}

/// Ends a sandbox by the id of its process: one of namespaces dies with all in it, a supervisor ends the command and takes back what it
/// was lent.
pub fn kill(id: u32) {
    if let Some(pid) = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended by itself just now.
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}
