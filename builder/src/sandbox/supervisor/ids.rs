//! Doing file calls with the rights of the command's user: the supervisor is root, and must not do for a process what the kernel would
//! refuse it.

use super::processes::Owner;

/// Sets the ids that count for files and for looking into processes, until dropped.
struct Borrowed;

impl Borrowed {
    fn of(owner: Owner) -> Self {
        set(owner.uid, owner.gid);
        Self
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        set(0, 0);
    }
}

/// Sets the file system ids of this thread; a group cannot be taken without being root, so it goes first on the way there.
fn set(uid: u32, gid: u32) {
    // SAFETY: both calls change two numbers of the calling thread and touch no memory; they report no failure.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        // Where the first one was not allowed yet.
        libc::syscall(libc::SYS_setfsgid, gid);
    }
}

/// Does `work` as `owner`. Leaving user 0 takes the capabilities about files away, and coming back gives them again (capabilities(7)).
pub(super) fn as_user<T>(owner: Owner, work: impl FnOnce() -> T) -> T {
    if owner.uid == 0 {
        return work();
    }
    let borrowed = Borrowed::of(owner);
    let result = work();
    drop(borrowed);
    result
}
