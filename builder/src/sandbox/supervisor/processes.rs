//! Which processes are the command's: those that descend from the supervisor, to which orphans come as well.

use rustix::process::{Pid, Signal, WaitOptions};
use std::collections::HashMap;

/// Deepest chain of parents that is followed.
const MAX_DEPTH: usize = 4096;

/// The command's processes, as seen by the supervisor.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    own: i32,
}

/// The effective ids of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Processes {
    pub(crate) fn new() -> Self {
        Self {
            own: rustix::process::getpid().as_raw_nonzero().get(),
        }
    }

    /// Tells whether a process or thread is the command's.
    pub(super) fn has(&self, process: i32) -> bool {
        let mut at = process;
        for depth in 0..MAX_DEPTH {
            if at <= 1 {
                return false;
            }
            if at == self.own {
                return depth > 0;
            }
            match parent(at) {
                Some(next) => at = next,
                None => return false,
            }
        }
        false
    }

    /// Lists the command's processes, the oldest numbers first.
    pub(super) fn list(&self) -> Vec<i32> {
        let parents: HashMap<i32, i32> = numbers().filter_map(|at| Some((at, parent(at)?))).collect();
        let is_inside = |process: i32| {
            let mut at = process;
            for depth in 0..MAX_DEPTH {
                if at == self.own {
                    return depth > 0;
                }
                match parents.get(&at) {
                    Some(next) => at = *next,
                    None => return false,
                }
            }
            false
        };
        let mut found: Vec<i32> = parents.keys().copied().filter(|at| is_inside(*at)).collect();
        found.sort_unstable();
        found
    }

    /// Kills all of them, however many they go on making, and waits for them.
    pub(crate) fn end(&self) {
        loop {
            for process in self.list() {
                signal(process, Signal::KILL);
            }
            loop {
                match rustix::process::wait(WaitOptions::NOHANG) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    // No child is left.
                    Err(_) => return,
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

/// Signals a process that may be gone.
pub(super) fn signal(process: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(process) {
        let _gone = rustix::process::kill_process(pid, signal);
    }
}

/// The numbers of all processes that can be seen.
fn numbers() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The parent of a process or thread.
fn parent(process: i32) -> Option<i32> {
    let stat = std::fs::read(format!("/proc/{process}/stat")).ok()?;
    // The name stands in parentheses and may hold any byte.
    let after = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(after + 2..)?).ok()?;
    rest.split(' ').nth(1)?.parse().ok()
}

/// The process that a thread belongs to.
pub(super) fn process_of(thread: i32) -> Option<i32> {
    line(thread, "Tgid:")?.split_whitespace().next()?.parse().ok()
}

/// As whom a process runs.
pub(super) fn owner(process: i32) -> Option<Owner> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let ids = |name: &str| -> Option<[u32; 3]> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let mut ids = line.split_whitespace().map(|id| id.parse().ok());
        Some([ids.next()??, ids.next()??, ids.next()??])
    };
    let (uids, gids) = (ids("Uid:")?, ids("Gid:")?);
    Some(Owner {
        uid: uids[1],
        gid: gids[1],
    })
}

fn line(process: i32, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(name).map(str::to_owned))
}
