//! Calls that name a process: for those that are not the command's there is none.

use super::Supervisor;
use super::listener::{Answer, Call};
use super::processes::{owner, process_of, signal};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

/// `PTRACE_TRACEME`, the one request that names nobody; others than the two that begin tracing need a process that is traced already.
const TRACE_ME: u64 = 0;
/// `PRIO_PROCESS` and `IOPRIO_WHO_PROCESS`.
const ONE_PROCESS: [u64; 2] = [0, 1];

impl Supervisor {
    /// A call whose first argument is a process or a thread.
    pub(super) fn about_process(&self, process: u64) -> Answer {
        match self.world.processes.has(number(process)) {
            true => Answer::Continue,
            false => Errno::SRCH.into(),
        }
    }

    /// kill(2).
    pub(super) fn kill(&self, call: &Call) -> Answer {
        let process = number(call.args[0]);
        match process {
            // Its own group, which no process of others is in.
            0 => Answer::Continue,
            1.. => self.about_process(call.args[0]),
            -1 => self.kill_all(call),
            group => {
                let group = group.unsigned_abs().cast_signed();
                let of = |process: &i32| {
                    let pid = Pid::from_raw(*process);
                    pid.and_then(|pid| rustix::process::getpgid(Some(pid)).ok())
                        .is_some_and(|found| found.as_raw_nonzero().get() == group)
                };
                match self.world.processes.list().iter().any(of) {
                    true => Answer::Continue,
                    false => Errno::SRCH.into(),
                }
            }
        }
    }

    /// `kill -1`: all processes that the caller may signal, but itself.
    fn kill_all(&self, call: &Call) -> Answer {
        let (Some(own), Some(own_process)) = (owner(call.thread), process_of(call.thread)) else {
            return Errno::SRCH.into();
        };
        let others = self
            .world
            .processes
            .list()
            .into_iter()
            .filter(|one| *one != own_process);
        let mut reached = false;
        for process in others {
            if own.uid != 0 && owner(process).is_none_or(|other| other.uid != own.uid) {
                continue;
            }
            reached = true;
            match number(call.args[1]) {
                0 => {}
                number => match Signal::from_named_raw(number) {
                    Some(which) => signal(process, which),
                    None => return Errno::INVAL.into(),
                },
            }
        }
        match reached {
            true => Answer::Value(0),
            false => Errno::SRCH.into(),
        }
    }

    /// ptrace(2).
    pub(super) fn ptrace(&self, call: &Call) -> Answer {
        match call.args[0] {
            TRACE_ME => Answer::Continue,
            _ => self.about_process(call.args[1]),
        }
    }

    /// setpriority(2) and ioprio_set(2): of one process.
    pub(super) fn priority(&self, call: &Call) -> Answer {
        match (ONE_PROCESS.contains(&call.args[0]), number(call.args[1])) {
            (true, 0) => Answer::Continue,
            (true, _) => self.about_process(call.args[1]),
            // A group, or all of a user's, whoever they are.
            (false, _) => Errno::PERM.into(),
        }
    }
}

/// A process's number as registers hold it: the lower half, signed.
fn number(argument: u64) -> i32 {
    let lower = u32::try_from(argument & 0xffff_ffff).unwrap_or_default();
    lower.cast_signed()
}
