//! Ending what a run has started: a command's process group, and at last every descendant.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};
use tokio::process::Child;

use crate::interrupt::Interrupt;
use crate::job::output::Output;

/// Time a command has after SIGTERM before SIGKILL ends it.
const GRACE: Duration = Duration::from_secs(10);

/// Rounds of killing; each one reaches those that were started during the one before.
const ROUNDS: usize = 100;

/// Makes orphans of the run's commands children of this process, so that [`end_descendants`] finds them.
pub(crate) fn adopt_orphans() {
    // Without it, daemons of a build outlive the run; nothing else depends on it, and every Linux since 3.4 has it.
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "cannot become a child subreaper");
    }
}

/// Has the kernel send `signal` to this process when `parent` dies; says whether it still lives.
pub(crate) fn end_with_parent(parent: i32, signal: Signal) -> rustix::io::Result<bool> {
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    // It may have died before the kernel knew whom to tell.
    Ok(is_parent(parent))
}

/// Whether this process is still a child of `parent`, or has been adopted by another since.
pub(crate) fn is_parent(parent: i32) -> bool {
    rustix::process::getppid() == Pid::from_raw(parent)
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

/// Sends `signal` to the group that `leader` leads. A group that is gone is no error.
pub(crate) fn signal_group(leader: Option<u32>, signal: Signal) {
    if let Some(group) = leader.and_then(pid) {
        match rustix::process::kill_process_group(group, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::warn!(%error, "cannot signal a command's process group"),
        }
    }
}

/// Ends a command: SIGTERM to its group, SIGKILL after ten seconds or when the user insists.
pub(crate) async fn end_group(group: Option<u32>, child: &mut Child, interrupt: &mut Interrupt, output: &mut Output) {
    signal_group(group, Signal::TERM);
    let ended = tokio::select! {
        ended = output.copy_until(child.wait()) => ended.is_ok(),
        () = tokio::time::sleep(GRACE) => false,
        () = interrupt.wait_insisting() => false,
    };
    signal_group(group, Signal::KILL);
    if !ended && let Err(error) = child.wait().await {
        tracing::warn!(%error, "cannot wait for a command");
    }
}

/// Kills every process below this one and waits for them; for the end of a run.
pub(crate) fn end_descendants() {
    for _ in 0..ROUNDS {
        let children = children();
        if children.is_empty() {
            return;
        }
        for child in children {
            match rustix::process::kill_process(child, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => tracing::warn!(%error, "cannot end a process of the build"),
            }
            // Waiting hands the child's own children to this process, which the next round then finds.
            match rustix::process::waitpid(Some(child), WaitOptions::empty()) {
                Ok(_) | Err(rustix::io::Errno::CHILD) => {}
                Err(error) => tracing::warn!(%error, "cannot wait for a process of the build"),
            }
        }
    }
}

/// The children of this process: by the fourth field of their stat files, since the kernel's own list is optional.
fn children() -> Vec<Pid> {
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut children = Vec::new();
    for entry in entries.flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // The name in parentheses may hold anything, so the fields are counted from its end.
        let parent = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(1));
        if parent == Some(own.as_str()) {
            children.extend(pid(number));
        }
    }
    children
}
