//! The sandbox's process: step by step from the builder's namespaces to the command.
//!
//! `inner` is process 1 of its pid namespace; it sets up the root, drops everything, and becomes the command. The processes before it
//! are [`guard`]'s.

use super::plan::{CAPABILITIES, DEVICE_LINKS, MASKED, MOUNT_POINT_DIRS, Mount, Plan};
use super::{CHILD_NAME, FAILURE_MARK, SETUP_FAILED, SandboxError, Ulimit, chroot, guard, identity, seccomp};
use crate::beneath::{Dir, FileError};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::ffi::CString;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Does the sandbox's work when this process was started for it, and gives its exit code; otherwise gives `None` at once.
///
/// Must be the first thing `main` does: the steps need a process without threads.
#[must_use]
pub fn child_main() -> Option<ExitCode> {
    let mut arguments = std::env::args();
    if arguments.next().as_deref() != Some(CHILD_NAME) {
        return None;
    }
    let role = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let result = match role.as_str() {
        "outer" => guard::outer(),
        "inner" => inner().map(|never| match never {}),
        "chroot" => chroot::supervise(),
        "chroot-inner" => chroot::inner().map(|never| match never {}),
        "map" => identity::map_main(&rest).map(|()| 0),
        _ => Err(SandboxError::Setup("unknown role".into())),
    };
    Some(match result {
        Ok(status) => ExitCode::from(u8::try_from(status & 0xff).unwrap_or(1)),
        Err(error) => {
            let message = match &error {
                // The reader says again what could not be done.
                SandboxError::Setup(reason) => reason.clone(),
                error => chain(error),
            };
            // The mapping process answers on standard output, the others have the RUN's standard error.
            let written = if role == "map" {
                std::io::stdout().write_all(message.as_bytes())
            } else {
                writeln!(std::io::stderr(), "{FAILURE_MARK}{message}")
            };
            drop(written);
            ExitCode::from(u8::try_from(SETUP_FAILED).unwrap_or(1))
        }
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

pub(super) fn system<E: Into<std::io::Error>>(operation: &str) -> impl FnOnce(E) -> SandboxError + '_ {
    move |e| SandboxError::system(operation, e)
}

/// Dies with the parent.
pub(super) fn die_with_parent() -> Result<(), SandboxError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(system("set the parent death signal"))
}

pub(super) enum Never {}

fn inner() -> Result<Never, SandboxError> {
    die_with_parent()?;
    // A session of its own has no terminal: through the caller's one a command could type into the caller's shell.
    rustix::process::setsid().map_err(system("leave the caller's session"))?;
    let mut text = Vec::new();
    std::io::stdin()
        .read_to_end(&mut text)
        .map_err(system("read the plan"))?;
    let plan = Plan::read(&text)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    mount_root(&plan)?;
    change_root(&plan.rootfs)?;
    rustix::system::sethostname(plan.hostname.as_bytes()).map_err(system("set the host name"))?;
    quiet_stdin()?;
    let program = find_program(&plan)?;
    let filters = seccomp::programs()?;
    // In this order: the filters need CAP_SYS_ADMIN, limits CAP_SYS_RESOURCE, the bounding set CAP_SETPCAP, the ids CAP_SETUID and
    // CAP_SETGID.
    for filter in &filters {
        seccomp::install(filter)?;
    }
    plan.ulimits.iter().try_for_each(Ulimit::apply)?;
    limit_bounding_set(allowed_capabilities())?;
    become_user(&plan, allowed_capabilities())?;
    rustix::process::chdir(&plan.cwd)
        .map_err(|e| SandboxError::system(format!("enter `{}`", plan.cwd.display()), e))?;
    let (first, rest) = plan
        .argv
        .split_first()
        .ok_or_else(|| SandboxError::Setup("the plan has no command".into()))?;
    let error = Command::new(program)
        .arg0(first)
        .args(rest)
        .env_clear()
        .envs(plan.env.iter().map(|(k, v)| (k, v)))
        .exec();
    Err(SandboxError::system(format!("run `{first}`"), error))
}

fn mask(target: &Path) -> Result<(), SandboxError> {
    let Ok(metadata) = std::fs::metadata(target) else {
        return Ok(());
    };
    let failed = |e| SandboxError::system(format!("mask `{}`", target.display()), e);
    if metadata.is_dir() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
        return rustix::mount::mount("tmpfs", target, "tmpfs", flags, None).map_err(failed);
    }
    rustix::mount::mount_bind("/dev/null", target).map_err(failed)
}

/// Checks that a directory mounted on is one: a link of the image would lead the mount elsewhere.
fn real_directory(root: &Path, name: &str) -> Result<(), SandboxError> {
    use rustix::fs::ResolveFlags;
    let failed = |e| SandboxError::system(format!("mount `/{name}`: the image's `/{name}` is no directory"), e);
    let dir =
        rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(&dir, name, flags, Mode::empty(), how)
        .map(drop)
        .map_err(failed)
}

/// Mounts everything the command sees below the root.
fn mount_root(plan: &Plan) -> Result<(), SandboxError> {
    let root = &plan.rootfs;
    // pivot_root wants a mount point that is not shared.
    rustix::mount::mount_bind_recursive(root, root).map_err(system("bind the root"))?;
    for name in MOUNT_POINT_DIRS {
        real_directory(root, name)?;
    }
    let proc = root.join("proc");
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", &proc, "proc", quiet, None).map_err(system("mount /proc"))?;
    mount_sys(&root.join("sys"), quiet)?;
    mount_dev(&root.join("dev"), plan.shm_size)?;
    for path in ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"] {
        read_only(&root.join(path))?;
    }
    for path in MASKED {
        mask(&root.join(path))?;
    }
    for mount in &plan.mounts {
        mount_one(root, mount)?;
    }
    Ok(())
}

fn mount_one(root: &Path, mount: &Mount) -> Result<(), SandboxError> {
    let (path, directory) = mount.target();
    // Below an earlier mount there may be nothing to mount on.
    make_target(root, path, directory).map_err(|e| SandboxError::Setup(chain(&e)))?;
    let target = resolve_in(root, path)?;
    let what = format!("mount on `{}`", path.display());
    match mount {
        Mount::Bind {
            root: outside,
            source,
            writable,
            ..
        } => {
            let source = resolve_in(outside, source)?;
            rustix::mount::mount_bind(&source, &target).map_err(|e| SandboxError::system(what, e))?;
            // The handle names what lies below the new mount: look again for the mount itself.
            restrict_bind(&resolve_in(root, path)?, !writable)
        }
        Mount::Lend { .. } | Mount::Secret { .. } => Err(SandboxError::Setup(format!(
            "cannot {what}: a plan for another sandbox"
        ))),
        Mount::Tmpfs { size, mode, .. } => {
            let size = size.map_or_else(String::new, |size| format!(",size={size}"));
            let options =
                CString::new(format!("mode={mode:o}{size}")).map_err(|_| SandboxError::Setup("bad options".into()))?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            rustix::mount::mount("tmpfs", &target, "tmpfs", flags, Some(options.as_c_str()))
                .map_err(|e| SandboxError::system(what, e))
        }
    }
}

fn make_target(root: &Path, path: &Path, directory: bool) -> Result<(), FileError> {
    let root = Dir::open(root)?;
    let landing = root.landing(path)?;
    if root.follow(&landing)?.is_some() {
        return Ok(());
    }
    if directory {
        return root.make_dirs(&landing, None).map(drop);
    }
    let (Some(parent), Some(name)) = (landing.parent(), landing.file_name()) else {
        return Ok(());
    };
    root.make_dirs(parent, None)?.create_file(name).map(drop)
}

/// Names a path inside the root through a handle, so that no link of the image can lead a mount out.
fn resolve_in(root: &Path, path: &Path) -> Result<PathBuf, SandboxError> {
    use rustix::fs::ResolveFlags;
    use std::os::fd::{AsRawFd as _, IntoRawFd as _};
    let failed = |e| SandboxError::system(format!("find `{}`", path.display()), e);
    let dir =
        rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&dir, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how).map_err(failed)?;
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    // Stays open until exec, which closes it.
    let _kept = file.into_raw_fd();
    Ok(PathBuf::from(name))
}

fn mount_sys(target: &Path, quiet: MountFlags) -> Result<(), SandboxError> {
    if rustix::mount::mount("sysfs", target, "sysfs", quiet | MountFlags::RDONLY, None).is_err() {
        // A user namespace without a network namespace may not mount sysfs; what the user sees anyway is shown.
        rustix::mount::mount_bind_recursive("/sys", target).map_err(system("show /sys"))?;
        return read_only_below(target);
    }
    Ok(())
}

/// Makes a mount and all mounts below it read-only: below /sys lie control groups that the user may own.
fn read_only_below(target: &Path) -> Result<(), SandboxError> {
    let failed = |e| SandboxError::system(format!("make `{}` read-only", target.display()), e);
    let path = CString::new(target.as_os_str().as_bytes()).map_err(|e| failed(e.into()))?;
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let size = size_of::<libc::mount_attr>();
    let pointer = std::ptr::from_ref(&attributes);
    // SAFETY: path and attributes live through the call, which only reads them; `size` is the size of what is pointed to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            pointer,
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(failed(std::io::Error::last_os_error()))
    }
}

fn mount_dev(dev: &Path, shm_size: u64) -> Result<(), SandboxError> {
    let options = CString::new("mode=755,size=65536k").map_err(|_| SandboxError::Setup("bad options".into()))?;
    // No device but those bound below: a command may make nodes in here.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::STRICTATIME;
    rustix::mount::mount("tmpfs", dev, "tmpfs", flags, Some(options.as_c_str())).map_err(system("mount /dev"))?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let target = dev.join(name);
        std::fs::File::create(&target).map_err(system("make a device file"))?;
        rustix::mount::mount_bind(Path::new("/dev").join(name), &target).map_err(system("show a device"))?;
    }
    for (name, target) in DEVICE_LINKS {
        std::os::unix::fs::symlink(target, dev.join(name)).map_err(system("make a link in /dev"))?;
    }
    let shm = format!("mode=1777,size={shm_size}");
    for (name, kind, options) in [
        ("pts", "devpts", "newinstance,ptmxmode=0666,mode=620,gid=5"),
        ("shm", "tmpfs", shm.as_str()),
        ("mqueue", "mqueue", ""),
    ] {
        let target = dev.join(name);
        std::fs::create_dir(&target).map_err(system("make a directory in /dev"))?;
        mount_in_dev(&target, kind, options)?;
    }
    Ok(())
}

fn mount_in_dev(target: &Path, kind: &str, options: &str) -> Result<(), SandboxError> {
    let mut flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    if kind != "devpts" {
        flags |= MountFlags::NODEV;
    }
    let mount = |options: &str| {
        let options = CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
        rustix::mount::mount(kind, target, kind, flags, Some(options.as_c_str()))
    };
    match mount(options) {
        // Group 5 (tty) may not be mapped for an ordinary user.
        Err(_) if kind == "devpts" => mount("newinstance,ptmxmode=0666,mode=620").map_err(system("mount /dev/pts")),
        Err(e) => Err(SandboxError::system(format!("mount {kind}"), e)),
        Ok(()) => Ok(()),
    }
}

fn read_only(path: &Path) -> Result<(), SandboxError> {
    if !path.exists() {
        return Ok(());
    }
    rustix::mount::mount_bind_recursive(path, path).map_err(system("bind a path of /proc"))?;
    read_only_bind(path)
}

pub(super) fn read_only_bind(path: &Path) -> Result<(), SandboxError> {
    restrict_bind(path, true)
}

/// Takes set-uid programs and devices from a bind mount, and writing if that is wanted.
fn restrict_bind(path: &Path, read_only: bool) -> Result<(), SandboxError> {
    // Flags that the mount has and a user namespace may not take off must be repeated.
    let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, read_only);
    if let Ok(stat) = rustix::fs::statvfs(path) {
        for (have, keep) in [
            (rustix::fs::StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
            (rustix::fs::StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
            (rustix::fs::StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
            (rustix::fs::StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
        ] {
            if stat.f_flag.contains(have) {
                flags |= keep;
            }
        }
    }
    let failed = |e| SandboxError::system(format!("restrict the mount on `{}`", path.display()), e);
    rustix::mount::mount_remount(path, flags, "").map_err(failed)
}

/// Makes the root the only thing the process can name.
fn change_root(root: &Path) -> Result<(), SandboxError> {
    rustix::process::chdir(root).map_err(system("enter the root"))?;
    // New root and old root in one place: the old one is then below the new and can be detached without a directory for it.
    rustix::process::pivot_root(".", ".").map_err(system("change the root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(system("detach the old root"))?;
    rustix::process::chdir("/").map_err(system("enter the new root"))
}

pub(super) fn quiet_stdin() -> Result<(), SandboxError> {
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(system("open /dev/null"))?;
    rustix::stdio::dup2_stdin(&null).map_err(system("replace standard input"))
}

/// Looks the command up in the PATH it will have, inside its own root.
pub(super) fn find_program(plan: &Plan) -> Result<PathBuf, SandboxError> {
    let name = plan.argv.first().map(String::as_str).unwrap_or_default();
    if name.contains('/') {
        return Ok(plan.cwd.join(name));
    }
    let path = plan
        .env
        .iter()
        .find(|(key, _)| key == "PATH")
        .map(|(_, value)| value.as_str())
        .unwrap_or_default();
    let found = path
        .split(':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(name))
        .find(|file| {
            let executable = rustix::fs::access(file.as_os_str().as_bytes(), rustix::fs::Access::EXEC_OK).is_ok();
            executable && file.is_file()
        });
    found.ok_or_else(|| SandboxError::Setup(format!("`{name}` is not in the image: not found in PATH ({path})")))
}

fn allowed_capabilities() -> CapabilitySet {
    CapabilitySet::from_bits_retain(CAPABILITIES.iter().fold(0, |bits, number| bits | 1u64 << number))
}

pub(super) fn limit_bounding_set(allowed: CapabilitySet) -> Result<(), SandboxError> {
    for number in 0..64u32 {
        let single = CapabilitySet::from_bits_retain(1 << number);
        if allowed.contains(single) || !rustix::thread::capability_is_in_bounding_set(single).unwrap_or(false) {
            continue;
        }
        rustix::thread::remove_capability_from_bounding_set(single).map_err(system("limit capabilities"))?;
    }
    Ok(())
}

pub(super) fn become_user(plan: &Plan, capabilities: CapabilitySet) -> Result<(), SandboxError> {
    let groups: Vec<Gid> = plan.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let denied = std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    if !denied {
        rustix::thread::set_thread_groups(&groups).map_err(system("set supplementary groups"))?;
    } else if plan.groups.iter().any(|gid| *gid != 0 && *gid != plan.gid) {
        return Err(SandboxError::Setup(
            "supplementary groups need more than one mapped id: install uidmap and add ranges to /etc/subuid".into(),
        ));
    }
    let unmapped = |e: rustix::io::Errno| {
        SandboxError::system(
            format!(
                "become user {}:{} (is it mapped in this user namespace?)",
                plan.uid, plan.gid
            ),
            e,
        )
    };
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(unmapped)?;
    rustix::thread::clear_ambient_capability_set().map_err(system("clear ambient capabilities"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(unmapped)?;
    // Leaving uid 0 has cleared them; root keeps a container's.
    let allowed = if plan.uid == 0 {
        capabilities
    } else {
        CapabilitySet::empty()
    };
    let sets = CapabilitySets {
        effective: allowed,
        permitted: allowed,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(system("set capabilities"))
}
