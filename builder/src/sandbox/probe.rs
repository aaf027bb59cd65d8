//! Which sandbox works here. Probed once, before any thread exists; the first that works is taken.

use super::{Identity, SandboxError, identity};
use rustix::thread::CapabilitySet;
use std::fmt;
use std::str::FromStr;

/// What RUN is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Namespaces, an overlay as root: as root with CAP_SYS_ADMIN, or where an ordinary user may make user namespaces.
    Namespaces,
    /// A directory as root, entered by chroot, and a supervisor that answers what mounts would: with a container's usual capabilities.
    Chroot,
    /// Nothing: there are no commands, and owners of files are written down in place of being given.
    Nothing,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "namespaces",
            Self::Chroot => "chroot",
            Self::Nothing => "none",
        })
    }
}

/// What the caller wants: `--sandbox`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first that works here.
    #[default]
    Auto,
    /// This one, or an error.
    Only(Kind),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "namespaces" => Ok(Self::Only(Kind::Namespaces)),
            "chroot" => Ok(Self::Only(Kind::Chroot)),
            "none" => Ok(Self::Only(Kind::Nothing)),
            _ => Err(format!("`{text}` is no sandbox: auto, namespaces, chroot or none")),
        }
    }
}

/// Where a build works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What its commands run in.
    pub kind: Kind,
    /// As whom it works.
    pub identity: Identity,
    /// Why nothing better works here, for a message.
    pub why: String,
}

/// What was found about this place, for people.
#[derive(Debug, Clone)]
pub struct Findings {
    /// What is chosen by itself.
    pub place: Place,
    /// What the chroot sandbox lacks here, if it lacks something.
    pub missing_for_chroot: Option<String>,
    /// Whether the kernel hands calls to a supervisor: without, /proc and /sys are empty in the chroot sandbox, and secrets as files,
    /// read-only mounts and the fence around endpoints of credentials are not to be had.
    pub notification: bool,
    /// The kernel's version of Landlock; 0 is none.
    pub landlock: i32,
    /// Whether the processes that a supervisor looks into may have changed their user and hidden themselves.
    pub ptrace: bool,
    /// Limits of open files: the one in force, and how far it can be raised.
    pub open_files: (Option<u64>, Option<u64>),
}

/// Looks at this place, as a build does. This process enters namespaces by it, if that is possible.
///
/// # Errors
/// When not even a process's own capabilities can be read.
pub fn look() -> Result<Findings, SandboxError> {
    let missing_for_chroot = missing_for_chroot()?;
    let capabilities = rustix::thread::capabilities(None).map_err(|e| SandboxError::system("read capabilities", e))?;
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Ok(Findings {
        missing_for_chroot,
        notification: knows_notification(),
        landlock: super::landlock::version(),
        ptrace: capabilities.effective.contains(CapabilitySet::SYS_PTRACE),
        open_files: (files.current, files.maximum),
        place: enter(Choice::Auto)?,
    })
}

/// Whether the kernel knows seccomp user notification (Linux 5.0), and may be asked for it here.
#[must_use]
pub fn knows_notification() -> bool {
    let mut sizes = libc::seccomp_notif_sizes {
        seccomp_notif: 0,
        seccomp_notif_resp: 0,
        seccomp_data: 0,
    };
    // SAFETY: the kernel writes one structure, which lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) };
    result == 0
}

/// Lets as many files be open as the hard limit allows: some places begin with 1,024.
fn raise_open_files() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // What stays as it was may still be enough.
    let _unchanged = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}

/// The capabilities that the chroot sandbox cannot do without, each with what for.
const NEEDED: [(CapabilitySet, &str); 7] = [
    (CapabilitySet::SYS_CHROOT, "SYS_CHROOT"),
    (CapabilitySet::CHOWN, "CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "FOWNER"),
    (CapabilitySet::SETUID, "SETUID"),
    (CapabilitySet::SETGID, "SETGID"),
    (CapabilitySet::MKNOD, "MKNOD"),
];

/// Finds what works, and enters the namespaces of the sandbox that has some. Must be called before any thread exists.
///
/// # Errors
/// When `choice` does not work here; the message says which single thing is missing.
pub fn enter(choice: Choice) -> Result<Place, SandboxError> {
    let mut why = Vec::new();
    if matches!(choice, Choice::Auto | Choice::Only(Kind::Namespaces)) {
        match identity::enter() {
            Ok(identity) => return Ok(place(Kind::Namespaces, identity, String::new())),
            Err(error) if choice != Choice::Auto => return Err(error),
            Err(SandboxError::Unavailable(reason)) => why.push(format!("no namespaces: {reason}")),
            Err(error) => return Err(error),
        }
    }
    if matches!(choice, Choice::Auto | Choice::Only(Kind::Chroot)) {
        match missing_for_chroot()? {
            None => {
                raise_open_files();
                // A command is as much root as the builder: no process of its user is to look into this one.
                rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
                    .map_err(|e| SandboxError::system("hide the builder", e))?;
                return Ok(place(Kind::Chroot, Identity::Root, why.join("; ")));
            }
            Some(missing) if choice != Choice::Auto => return Err(SandboxError::Unavailable(missing)),
            Some(missing) => why.push(format!("no chroot: {missing}")),
        }
    }
    Ok(place(Kind::Nothing, Identity::Recorded, why.join("; ")))
}

fn place(kind: Kind, identity: Identity, why: String) -> Place {
    Place { kind, identity, why }
}

/// Says what the chroot sandbox lacks here, if it lacks something.
fn missing_for_chroot() -> Result<Option<String>, SandboxError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Some("this is not root".to_owned()));
    }
    let capabilities = rustix::thread::capabilities(None).map_err(|e| SandboxError::system("read capabilities", e))?;
    let lacking = NEEDED.iter().find(|(one, _)| !capabilities.effective.contains(*one));
    Ok(lacking.map(|(_, name)| format!("the capability {name} is missing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices() {
        for (text, want) in [
            ("auto", Choice::Auto),
            ("chroot", Choice::Only(Kind::Chroot)),
            ("namespaces", Choice::Only(Kind::Namespaces)),
            ("none", Choice::Only(Kind::Nothing)),
        ] {
            assert_eq!(text.parse(), Ok(want));
        }
        "docker".parse::<Choice>().unwrap_err();
    }
}
