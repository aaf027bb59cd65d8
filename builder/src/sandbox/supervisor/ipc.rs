//! System V's shared memory, semaphores and message queues: there is one name space of them for the whole container, so a command gets
//! its own from the supervisor, and can use no others.

use super::listener::{Answer, Call};
use super::processes::{Owner, owner};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};

/// What a number names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Family {
    Memory,
    Semaphores,
    Messages,
}

use Family::{Memory, Messages, Semaphores};

/// `IPC_RMID`.
const REMOVE: u64 = 0;

/// Those that one command has.
#[derive(Debug, Default)]
pub(super) struct Ipc {
    by_key: HashMap<(Family, i32), i32>,
    all: HashSet<(Family, i32)>,
}

impl Ipc {
    /// shmget(2), semget(2) and msgget(2).
    pub(super) fn get(&mut self, call: &Call, family: Family) -> Answer {
        let key = super::i32_of(call.args[0]);
        let (size, flags) = match family {
            Memory | Semaphores => (call.args[1], super::i32_of(call.args[2])),
            Messages => (0, super::i32_of(call.args[1])),
        };
        if let Some(known) = self.by_key.get(&(family, key)) {
            return match flags & libc::IPC_CREAT != 0 && flags & libc::IPC_EXCL != 0 {
                true => Errno::EXIST.into(),
                false => Answer::Value((*known).into()),
            };
        }
        if key != libc::IPC_PRIVATE && flags & libc::IPC_CREAT == 0 {
            return Errno::NOENT.into();
        }
        let Some(owner) = owner(call.thread) else {
            return Errno::ACCESS.into();
        };
        match make(family, size, flags & 0o777, owner) {
            Ok(id) => {
                self.all.insert((family, id));
                if key != libc::IPC_PRIVATE {
                    self.by_key.insert((family, key), id);
                }
                Answer::Value(id.into())
            }
            Err(error) => error.into(),
        }
    }

    /// The calls that use one: of those of others there is none.
    pub(super) fn with(&self, call: &Call, family: Family) -> Answer {
        match self.all.contains(&(family, super::i32_of(call.args[0]))) {
            true => Answer::Continue,
            false => Errno::INVAL.into(),
        }
    }

    /// shmctl(2), semctl(2) and msgctl(2).
    pub(super) fn control(&mut self, call: &Call, family: Family) -> Answer {
        let id = super::i32_of(call.args[0]);
        let command = call.args[if family == Semaphores { 2 } else { 1 }] & 0xff;
        // These count through all that the container has.
        let of_all: [u64; 4] = match family {
            Memory => [3, 13, 14, 15],
            Semaphores => [3, 18, 19, 20],
            Messages => [3, 11, 12, 13],
        };
        if of_all.contains(&command) {
            return Errno::PERM.into();
        }
        if !self.all.contains(&(family, id)) {
            return Errno::INVAL.into();
        }
        if command == REMOVE {
            // The kernel may still refuse it; then it is removed at the command's end.
            self.by_key.retain(|_, known| *known != id);
        }
        Answer::Continue
    }
}

impl Drop for Ipc {
    /// They would outlive the command.
    fn drop(&mut self) {
        for (family, id) in &self.all {
            remove(*family, *id);
        }
    }
}

/// Makes one under no key, for `owner`.
fn make(family: Family, size: u64, mode: i32, owner: Owner) -> Result<i32, Errno> {
    let size = usize::try_from(size).map_err(|_| Errno::INVAL)?;
    let count = i32::try_from(size).unwrap_or(i32::MAX);
    let flags = libc::IPC_CREAT | mode;
    // SAFETY: numbers go in and a number comes out.
    let id = unsafe {
        match family {
            Memory => libc::shmget(libc::IPC_PRIVATE, size, flags),
            Semaphores => libc::semget(libc::IPC_PRIVATE, count, flags),
            Messages => libc::msgget(libc::IPC_PRIVATE, flags),
        }
    };
    if id < 0 {
        return Err(last_error());
    }
    if owner.uid == 0 {
        return Ok(id);
    }
    give(family, id, owner).inspect_err(|_| remove(family, id))?;
    Ok(id)
}

fn give(family: Family, id: i32, owner: Owner) -> Result<(), Errno> {
    // SAFETY: the structures are the kernel's, whose bytes may all be zero; they live through the calls, which fill and read them.
    let result = unsafe {
        match family {
            Memory => {
                let mut of: libc::shmid_ds = std::mem::zeroed();
                libc::shmctl(id, libc::IPC_STAT, &raw mut of);
                (of.shm_perm.uid, of.shm_perm.gid) = (owner.uid, owner.gid);
                libc::shmctl(id, libc::IPC_SET, &raw mut of)
            }
            Semaphores => {
                let mut of: libc::semid_ds = std::mem::zeroed();
                libc::semctl(id, 0, libc::IPC_STAT, &raw mut of);
                (of.sem_perm.uid, of.sem_perm.gid) = (owner.uid, owner.gid);
                libc::semctl(id, 0, libc::IPC_SET, &raw mut of)
            }
            Messages => {
                let mut of: libc::msqid_ds = std::mem::zeroed();
                libc::msgctl(id, libc::IPC_STAT, &raw mut of);
                (of.msg_perm.uid, of.msg_perm.gid) = (owner.uid, owner.gid);
                libc::msgctl(id, libc::IPC_SET, &raw mut of)
            }
        }
    };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

fn remove(family: Family, id: i32) {
    // SAFETY: with this command the calls read and write no memory. One that is gone already is gone.
    unsafe {
        match family {
            Memory => libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()),
            Semaphores => libc::semctl(id, 0, libc::IPC_RMID),
            Messages => libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()),
        }
    };
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
