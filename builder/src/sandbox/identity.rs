//! The builder's own namespaces: a mount namespace as root, and a user namespace first as an ordinary user.

use super::{CHILD_NAME, SandboxError};
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

/// Tells as whom the builder works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Root with CAP_SYS_ADMIN: a mount namespace only.
    Root,
    /// An ordinary user with ranges of subordinate ids.
    Mapped,
    /// An ordinary user with its own id as the only one: files of other owners cannot be made.
    SingleId,
    /// A user who may make no file of another owner: whose a file is to be is written down.
    Recorded,
}

/// Enters the namespaces the builder works in. Must be called before any thread exists.
///
/// From then on the process is uid 0 in its user namespace, and every mount it makes vanishes with it.
///
/// # Errors
/// When neither way is open here; the message says which limit is in the way.
pub(super) fn enter() -> Result<Identity, SandboxError> {
    let capabilities = rustix::thread::capabilities(None).map_err(|e| SandboxError::system("read capabilities", e))?;
    let admin = capabilities
        .effective
        .contains(rustix::thread::CapabilitySet::SYS_ADMIN);
    let identity = if rustix::process::geteuid().is_root() && admin {
        // SAFETY: the process is single-threaded here (contract of this function); only its mount namespace changes.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(|e| {
            SandboxError::Unavailable(format!("mount namespaces are refused ({e}) in spite of CAP_SYS_ADMIN"))
        })?;
        Identity::Root
    } else {
        enter_user_namespace()?
    };
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| SandboxError::system("make mounts private", e))?;
    Ok(identity)
}

fn enter_user_namespace() -> Result<Identity, SandboxError> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let ranges = subordinate(uid);
    // newuidmap must be called from outside the new namespace: a process started before the unshare waits for it.
    let mut helper = match &ranges {
        Some(_) => Some(start_mapper(uid, gid, ranges)?),
        None => None,
    };
    // SAFETY: the process is single-threaded here (contract of `enter`); memory and file table stay shared with nobody.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }.map_err(refused)?;
    let identity = match &mut helper {
        Some(helper) => {
            finish_mapper(helper)?;
            Identity::Mapped
        }
        None => {
            write_own_maps(uid, gid)?;
            Identity::SingleId
        }
    };
    let failed = |e| SandboxError::system("become root of the user namespace", e);
    rustix::thread::set_thread_res_gid(rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT)
        .map_err(failed)?;
    rustix::thread::set_thread_res_uid(rustix::fs::Uid::ROOT, rustix::fs::Uid::ROOT, rustix::fs::Uid::ROOT)
        .map_err(failed)?;
    Ok(identity)
}

fn refused(e: rustix::io::Errno) -> SandboxError {
    let limit = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let why = if limit.trim() == "0" {
        "user.max_user_namespaces is 0"
    } else {
        "the kernel or a security module refuses user namespaces"
    };
    SandboxError::Unavailable(format!("{why} ({e}), and this is not root with CAP_SYS_ADMIN"))
}

/// Finds the subordinate ranges of a user, when newuidmap and newgidmap are there to use them.
fn subordinate(uid: u32) -> Option<[(u32, u32); 2]> {
    let on_path = |name: &str| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(|file| file.is_file())
    };
    on_path("newuidmap")?;
    on_path("newgidmap")?;
    let user = user_name(uid);
    Some([
        range("/etc/subuid", uid, user.as_deref())?,
        range("/etc/subgid", uid, user.as_deref())?,
    ])
}

/// Finds the name that `/etc/passwd` gives a user.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn range(file: &str, uid: u32, user: Option<&str>) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let start: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.trim().parse().ok()?;
        // Fewer than 65,536 ids cannot hold `nobody`; still better than one.
        ((Some(owner) == user || owner.parse() == Ok(uid)) && count > 0).then_some((start, count))
    })
}

fn start_mapper(uid: u32, gid: u32, ranges: Option<[(u32, u32); 2]>) -> Result<std::process::Child, SandboxError> {
    use std::os::unix::process::CommandExt as _;
    let [users, groups] = ranges.unwrap_or_default();
    let numbers = [std::process::id(), uid, users.0, users.1, gid, groups.0, groups.1];
    Command::new("/proc/self/exe")
        .arg0(CHILD_NAME)
        .arg("map")
        .args(numbers.map(|n| n.to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| SandboxError::system("start the process that maps ids", e))
}

fn finish_mapper(helper: &mut std::process::Child) -> Result<(), SandboxError> {
    let failed = |e| SandboxError::system("map user and group ids", e);
    if let Some(mut stdin) = helper.stdin.take() {
        stdin.write_all(b"x").map_err(failed)?;
    }
    let mut answer = String::new();
    if let Some(mut stdout) = helper.stdout.take() {
        stdout.read_to_string(&mut answer).map_err(failed)?;
    }
    let status = helper.wait().map_err(failed)?;
    if status.success() {
        Ok(())
    } else {
        Err(SandboxError::Unavailable(format!(
            "newuidmap or newgidmap failed: {}",
            answer.trim()
        )))
    }
}

/// The mapping process: waits until its parent has unshared, then runs newuidmap and newgidmap on it.
pub(super) fn map_main(arguments: &[String]) -> Result<(), SandboxError> {
    let [pid, uid, user_start, user_count, gid, group_start, group_count] = arguments else {
        return Err(SandboxError::Setup("wrong arguments for the mapping process".into()));
    };
    let mut byte = [0];
    let failed = |e| SandboxError::system("wait for the new user namespace", e);
    std::io::stdin().read_exact(&mut byte).map_err(failed)?;
    for (program, own, start, count) in [
        ("newuidmap", uid, user_start, user_count),
        ("newgidmap", gid, group_start, group_count),
    ] {
        let output = Command::new(program)
            .args([pid.as_str(), "0", own, "1", "1", start, count])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| SandboxError::system(format!("run {program}"), e))?;
        if !output.status.success() {
            return Err(SandboxError::Setup(
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            ));
        }
    }
    Ok(())
}

fn write_own_maps(uid: u32, gid: u32) -> Result<(), SandboxError> {
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        let path = format!("/proc/self/{file}");
        std::fs::write(&path, text).map_err(|e| SandboxError::system(format!("write {path}"), e))?;
    }
    Ok(())
}
