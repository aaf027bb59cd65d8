//! The command's process, from this binary to the command: it enters the root and gives up whatever it does not need.

use super::receive_plan;
use crate::sandbox::child::{
    Never, become_user, die_with_parent, find_program, limit_bounding_set, quiet_stdin, system,
};
use crate::sandbox::plan::{CAPABILITIES, Plan};
use crate::sandbox::supervisor::filter::{self, Net};
use crate::sandbox::{SandboxError, landlock, seccomp};
use rustix::fs::Mode;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use rustix::thread::CapabilitySet;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// By chroot(2) root leaves a root it was put in by chroot(2).
const SYS_CHROOT: u32 = 18;
/// With it sockets could be made that no filter of ours is on.
const NET_RAW: u32 = 13;

/// Says whether a listener comes with it.
const LISTENS: u8 = 1;
const NO_LISTENER: u8 = 0;

/// Becomes the command.
pub(in crate::sandbox) fn inner() -> Result<Never, SandboxError> {
    die_with_parent()?;
    // A session of its own has no terminal, and its groups have no process of others.
    rustix::process::setsid().map_err(system("leave the caller's session"))?;
    let supervisor = super::input()?;
    let plan = Plan::read(&receive_plan(&supervisor)?)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::chroot(&plan.rootfs).map_err(system("change the root"))?;
    rustix::process::chdir("/").map_err(system("enter the new root"))?;
    quiet_stdin()?;
    let program = find_program(&plan)?;
    plan.ulimits.iter().try_for_each(crate::sandbox::Ulimit::apply)?;
    let capabilities = capabilities(&plan)?;
    limit_bounding_set(capabilities)?;
    become_user(&plan, capabilities)?;
    rustix::process::chdir(&plan.cwd)
        .map_err(|e| SandboxError::system(format!("enter `{}`", plan.cwd.display()), e))?;
    rustix::thread::set_no_new_privs(true).map_err(system("give up new privileges"))?;
    // Leaving uid 0 hides a process from its supervisor.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
        .map_err(system("show the command to its supervisor"))?;
    landlock::keep_below(Path::new("/"))?;
    for program in &seccomp::programs()? {
        filter::install(&seccomp::instructions(program), false)?;
    }
    let (first, rest) = plan
        .argv
        .split_first()
        .ok_or_else(|| SandboxError::Setup("the plan has no command".into()))?;
    let mut command = Command::new(program);
    command.arg0(first).args(rest).env_clear();
    command.envs(plan.env.iter().map(|(k, v)| (k, v)));
    // From here on calls with a path wait for the supervisor.
    listen(&plan, &supervisor)?;
    Err(SandboxError::system(format!("run `{first}`"), command.exec()))
}

/// What a container's root has, and this process as well, but for what leads out.
fn capabilities(plan: &Plan) -> Result<CapabilitySet, SandboxError> {
    let own = rustix::thread::capabilities(None).map_err(system("read capabilities"))?;
    let is_kept = |number: &&u32| **number != SYS_CHROOT && (!plan.no_network || **number != NET_RAW);
    let wanted = CAPABILITIES
        .iter()
        .filter(is_kept)
        .fold(0, |bits, number| bits | 1u64 << number);
    Ok(own.permitted & CapabilitySet::from_bits_retain(wanted))
}

/// Installs the filter whose calls the supervisor answers, and hands it the listener. Where the kernel has no such thing, calls are not
/// answered.
fn listen(plan: &Plan, supervisor: impl AsFd) -> Result<(), SandboxError> {
    let net = match (plan.no_network, plan.allow_metadata) {
        (true, _) => Net::None,
        (false, true) => Net::Open,
        (false, false) => Net::Fenced,
    };
    let answered = filter::program(net, true, plan.lends_directories());
    let Ok(Some(listener)) = filter::install(&answered, true) else {
        filter::install(&filter::program(net, false, false), false)?;
        return send(supervisor, NO_LISTENER, None);
    };
    send(supervisor, LISTENS, Some(&listener))
}

fn send(to: impl AsFd, byte: u8, listener: Option<&OwnedFd>) -> Result<(), SandboxError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = listener.map(|listener| [listener.as_fd()]);
    if let Some(descriptors) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::net::sendmsg(to, &[IoSlice::new(&[byte])], &mut control, SendFlags::empty())
        .map(drop)
        .map_err(system("hand over the listener"))
}

/// Waits for the listener. `None` when the kernel has none, or the process has ended before.
pub(super) fn receive_listener(from: impl AsFd) -> Result<Option<OwnedFd>, SandboxError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let from = from.as_fd();
    loop {
        match rustix::net::recvmsg(
            from,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            // Its end is told by its status.
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(e) => {
                return Err(SandboxError::system(
                    format!("take the listener from {}", from.as_raw_fd()),
                    e,
                ));
            }
        }
    }
    let listener = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(listener)
}
