//! What a sandbox is to be: a document that the builder writes and the sandbox's process carries out step by step.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Describes one RUN completely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The mounted root file system.
    pub rootfs: PathBuf,
    /// Files of the host shown read-only inside; the targets must exist in `rootfs`.
    pub binds: Vec<Bind>,
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
}

/// Shows a file of the host inside, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Path outside.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
}

/// Directories and files that must be there to mount on; they lie below all layers and never come into one.
pub const MOUNT_POINT_DIRS: [&str; 3] = ["proc", "sys", "dev"];

/// Gives the capabilities of a Docker container, by number as in `linux/capability.h`.
///
/// chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
pub const CAPABILITIES: [u32; 14] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];
