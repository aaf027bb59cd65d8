//! What a sandbox is to be: a document that the builder writes and the sandbox's process carries out step by step.

use super::{SandboxError, Ulimit};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Describes one RUN completely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The mounted root file system.
    pub rootfs: PathBuf,
    /// What is mounted, in this order; a target that is missing is made.
    pub mounts: Vec<Mount>,
    /// Whether there is no network but a loopback interface.
    pub no_network: bool,
    /// Whether the machine's endpoints of credentials may be asked.
    pub allow_metadata: bool,
    /// An empty directory on the root's file system, where the chroot sandbox keeps what it sets aside.
    pub aside: PathBuf,
    /// The command and its arguments; the first is looked up in the PATH of `env`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory inside; it must exist.
    pub cwd: PathBuf,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Host name inside.
    pub hostname: String,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Resource limits of the command.
    pub ulimits: Vec<Ulimit>,
}

impl Plan {
    /// Whether the chroot sandbox has to look at calls that change files: for a directory that is only shown, or that outlives the command.
    pub(super) fn lends_directories(&self) -> bool {
        self.mounts.iter().any(|mount| match mount {
            Mount::Lend {
                stays,
                writable,
                directory,
                ..
            } => *directory && (*stays || !writable),
            _ => false,
        })
    }

    /// Reads the document.
    pub(super) fn read(text: &[u8]) -> Result<Self, SandboxError> {
        serde_json::from_slice(text).map_err(|e| SandboxError::Setup(format!("the plan is malformed: {e}")))
    }
}

/// One mount inside.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// Shows a file or a directory of the host.
    Bind {
        /// A directory outside that no link of `source` leads out of.
        root: PathBuf,
        /// Path below it.
        source: PathBuf,
        /// Absolute path inside.
        target: PathBuf,
        /// Whether it is a directory.
        directory: bool,
        /// Whether the command may write.
        writable: bool,
    },
    /// Lends a file or a directory, which must lie on the root's file system: it is moved there and back. For the chroot sandbox.
    Lend {
        /// Where it lies.
        source: PathBuf,
        /// Absolute path inside.
        target: PathBuf,
        /// Whether it is a directory.
        directory: bool,
        /// Whether it goes back to where it lay; otherwise it is thrown away.
        stays: bool,
        /// Whether the command may write.
        writable: bool,
    },
    /// Shows a secret as a file that is nowhere but in memory. For the chroot sandbox.
    Secret {
        /// The secret.
        content: Vec<u8>,
        /// Absolute path inside.
        target: PathBuf,
        /// The file's owner, user and group.
        owner: (u32, u32),
        /// Its permission bits.
        mode: u32,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Absolute path inside.
        target: PathBuf,
        /// Its limit in bytes.
        size: Option<u64>,
        /// Permission bits of the directory.
        mode: u32,
    },
}

impl std::fmt::Debug for Mount {
    /// Never shows a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (target, _) = self.target();
        write!(f, "Mount on {}", target.display())
    }
}

impl Mount {
    /// Shows a single file of the host, read-only.
    #[must_use]
    pub fn file(path: &Path, target: PathBuf) -> Self {
        Self::Bind {
            root: path.parent().unwrap_or(Path::new("/")).to_owned(),
            source: path.file_name().unwrap_or_default().into(),
            target,
            directory: false,
            writable: false,
        }
    }

    /// Where it is mounted, and whether that is a directory.
    #[must_use]
    pub fn target(&self) -> (&Path, bool) {
        match self {
            Self::Bind { target, directory, .. } => (target, *directory),
            Self::Tmpfs { target, .. } => (target, true),
            Self::Lend { target, directory, .. } => (target, *directory),
            Self::Secret { target, .. } => (target, false),
        }
    }
}

/// Directories and files that must be there to mount on; they lie below all layers and never come into one.
pub const MOUNT_POINT_DIRS: [&str; 3] = ["proc", "sys", "dev"];

/// Gives the capabilities of a Docker container, by number as in `linux/capability.h`.
///
/// chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
pub const CAPABILITIES: [u32; 14] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];

/// What Docker hides of the kernel's own files.
pub(super) const MASKED: [&str; 12] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];

/// The links of /dev: name, and where it leads.
pub(super) const DEVICE_LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];
