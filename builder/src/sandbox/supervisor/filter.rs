//! Which calls of a command wait for the supervisor, and which are refused at once.

use crate::sandbox::SandboxError;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// Paths may lead below /proc and /sys.
const PATHS: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_statfs,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_chdir,
    libc::SYS_execve,
    libc::SYS_execveat,
];

/// The first argument names a process; the builder's and others' are not the command's business.
const PROCESSES: &[libc::c_long] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
];

/// The same, where 0 means the caller.
const PROCESSES_OR_OWN: &[libc::c_long] = &[
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_migrate_pages,
    libc::SYS_get_robust_list,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getattr,
];

/// Other calls that need an answer.
const OTHERS: &[libc::c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_uname,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
];

/// Devices that a command may make nodes of: null, zero, full, random, urandom, tty, ptmx, and none (an overlay's whiteout).
const DEVICES: [u32; 8] = [0x103, 0x105, 0x107, 0x108, 0x109, 0x500, 0x502, 0];

/// What a command may do with the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Net {
    /// Everything.
    Open,
    /// Everything but to ask the machine's own endpoints of credentials.
    Fenced,
    /// Nothing.
    None,
}

const LD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;

fn errno(number: libc::c_int) -> u32 {
    0x0005_0000 | number.cast_unsigned()
}

/// A program under construction. Every test of a call ends with a verdict, so that no jump is longer than a test.
struct Program(Vec<libc::sock_filter>);

impl Program {
    fn push(&mut self, code: u16, k: u32, if_true: u8, if_false: u8) {
        self.0.push(libc::sock_filter {
            code,
            jt: if_true,
            jf: if_false,
            k,
        });
    }

    /// Loads the number of the call.
    fn load_number(&mut self) {
        self.push(LD_WORD, 0, 0, 0);
    }

    /// Loads the lower half of an argument: those that are looked at are of 32 bits to the kernel.
    fn load_argument(&mut self, at: u32) {
        self.push(LD_WORD, 16 + 8 * at, 0, 0);
    }

    fn verdict(&mut self, verdict: u32) {
        self.push(RETURN, verdict, 0, 0);
    }

    /// Says what becomes of a call, whatever its arguments. The number must be loaded.
    fn on(&mut self, call: libc::c_long, verdict: u32) {
        self.push(JUMP_EQUAL, u32::try_from(call).unwrap_or(u32::MAX), 0, 1);
        self.verdict(verdict);
    }

    /// Has `body` decide about a call; it must end with a verdict on every way.
    fn on_with(&mut self, call: libc::c_long, body: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.push(JUMP_EQUAL, u32::try_from(call).unwrap_or(u32::MAX), 0, 0);
        body(self);
        let length = self.0.len() - at - 1;
        if let Some(jump) = self.0.get_mut(at) {
            jump.jf = u8::try_from(length).unwrap_or(u8::MAX);
        }
    }
}

/// Makes the filter. It comes on top of the one that refuses what a container may not. `paths` says whether calls are answered at all,
/// `lent` whether those that change files are asked about.
pub(crate) fn program(net: Net, paths: bool, lent: bool) -> Vec<libc::sock_filter> {
    let mut program = Program(Vec::new());
    program.load_number();
    if cfg!(target_arch = "x86_64") {
        // The second table of calls, x32, knows the same under other numbers.
        program.push(JUMP_GREATER_EQUAL, 0x4000_0000, 0, 1);
        program.verdict(errno(libc::ENOSYS));
    }
    for call in PATHS.iter().filter(|_| paths) {
        program.on(*call, NOTIFY);
    }
    for call in super::lent::calls().filter(|_| paths && lent) {
        program.on(call, NOTIFY);
    }
    for call in PROCESSES.iter().chain(OTHERS).filter(|_| paths) {
        program.on(*call, NOTIFY);
    }
    for call in PROCESSES_OR_OWN.iter().filter(|_| paths) {
        program.on_with(*call, |program| {
            program.load_argument(0);
            program.push(JUMP_EQUAL, 0, 0, 1);
            program.verdict(ALLOW);
            program.verdict(NOTIFY);
        });
    }
    // Queues of messages have names that the whole container shares.
    for call in [libc::SYS_mq_open, libc::SYS_mq_unlink] {
        program.on(call, errno(libc::ENOSYS));
    }
    network(&mut program, net, paths);
    #[cfg(target_arch = "x86_64")]
    program.on_with(libc::SYS_mknod, |program| devices(program, 1));
    program.on_with(libc::SYS_mknodat, |program| devices(program, 2));
    program.verdict(ALLOW);
    program.0
}

fn network(program: &mut Program, net: Net, answered: bool) {
    let inet = match net {
        Net::None => errno(libc::EAFNOSUPPORT),
        Net::Fenced if answered => NOTIFY,
        Net::Fenced | Net::Open => ALLOW,
    };
    program.on_with(libc::SYS_socket, |program| {
        program.load_argument(0);
        for (family, verdict) in [
            (libc::AF_UNIX, if inet == NOTIFY { NOTIFY } else { ALLOW }),
            (libc::AF_INET, inet),
            (libc::AF_INET6, inet),
            (libc::AF_NETLINK, ALLOW),
            (libc::AF_ALG, ALLOW),
            // It would hear what the builder says.
            (libc::AF_PACKET, errno(libc::EPERM)),
        ] {
            program.push(JUMP_EQUAL, family.cast_unsigned(), 0, 1);
            program.verdict(verdict);
        }
        // Others go past the fence, over TCP of their own or to the hypervisor.
        program.verdict(errno(libc::EAFNOSUPPORT));
    });
    if net == Net::Open {
        return;
    }
    for call in [libc::SYS_connect, libc::SYS_listen, libc::SYS_bind] {
        if inet == NOTIFY {
            program.on(call, NOTIFY);
        }
    }
    // Data in the first packet would arrive without an answer.
    for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        program.on_with(call, |program| {
            program.load_argument(flags);
            program.push(JUMP_SET, libc::MSG_FASTOPEN.cast_unsigned(), 0, 1);
            program.verdict(errno(libc::EOPNOTSUPP));
            program.verdict(ALLOW);
        });
    }
}

/// Lets only such devices be made that are harmless: no control group of devices may be there to keep a command from using others.
fn devices(program: &mut Program, mode: u32) {
    program.load_argument(mode);
    program.push(AND, libc::S_IFMT, 0, 0);
    program.push(JUMP_EQUAL, libc::S_IFBLK, 0, 1);
    program.verdict(errno(libc::EPERM));
    program.push(JUMP_EQUAL, libc::S_IFCHR, 1, 0);
    program.verdict(ALLOW);
    program.load_argument(mode + 1);
    for device in DEVICES {
        program.push(JUMP_EQUAL, device, 0, 1);
        program.verdict(ALLOW);
    }
    program.verdict(errno(libc::EPERM));
}

/// Installs a filter on this single-threaded process. With `listen` its notifications come to the descriptor that is given.
pub(crate) fn install(program: &[libc::sock_filter], listen: bool) -> Result<Option<OwnedFd>, SandboxError> {
    let failed = |e| SandboxError::system("install the filter of calls", e);
    let length = u16::try_from(program.len()).map_err(|_| SandboxError::Setup("the filter is too long".into()))?;
    let filter = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    let set = |flags: libc::c_ulong| {
        // SAFETY: `filter` points to `length` instructions that live through the call; the kernel copies them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                std::ptr::from_ref(&filter),
            )
        };
        match result {
            0.. => Ok(i32::try_from(result).unwrap_or_default()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    if !listen {
        return set(0).map(|_| None).map_err(failed);
    }
    // A thread whose call was taken is interrupted by deadly signals only (Linux 5.19): runtimes that signal their threads all the time
    // would begin the call anew each time.
    let result = set(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
        .or_else(|_| set(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER))
        .map_err(failed)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(result) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_stay_within_the_program() {
        for net in [Net::Open, Net::Fenced, Net::None] {
            for paths in [true, false] {
                let program = program(net, paths, true);
                for (at, one) in program.iter().enumerate() {
                    if one.code & 0x07 == 0x05 {
                        assert!(at + 1 + usize::from(one.jt.max(one.jf)) < program.len(), "{at}");
                        assert!(one.jf < u8::MAX);
                    }
                }
                assert_eq!(program.last().unwrap().code, RETURN);
            }
        }
    }
}
