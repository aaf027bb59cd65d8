//! The system call filter of a RUN: what Docker's default profile denies to a container without CAP_SYS_ADMIN.

use super::SandboxError;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// Calls that Docker's profile never allows, or only with capabilities a RUN does not have.
const DENIED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// All `CLONE_NEW*` bits that `clone` may carry.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// Marks the calls of x86-64's second, x32 table, which kernels may have: the same calls under other numbers.
const X32: i64 = 0x4000_0000;

/// The filter programs, in the order they are installed.
pub(super) fn programs() -> Result<Vec<BpfProgram>, SandboxError> {
    let failed = |e: seccompiler::BackendError| SandboxError::Setup(format!("the seccomp filter is malformed: {e}"));
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
    let mut denied: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let namespaces = (0..64)
        .map(|bit| 1u64 << bit)
        .filter(|bit| NAMESPACE_FLAGS & bit != 0)
        .map(|bit| {
            let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), bit)?;
            SeccompRule::new(vec![condition])
        });
    denied.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>().map_err(failed)?);
    // Flags of clone3 lie in memory, out of a filter's sight: libc falls back to clone on ENOSYS.
    let mut hidden = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    if cfg!(target_arch = "x86_64") {
        for rules in [&mut denied, &mut hidden] {
            let aliases: Vec<_> = rules.iter().map(|(call, rules)| (call | X32, rules.clone())).collect();
            rules.extend(aliases);
        }
    }
    [(denied, libc::EPERM), (hidden, libc::ENOSYS)]
        .into_iter()
        .map(|(rules, errno)| {
            let action = SeccompAction::Errno(u32::try_from(errno).unwrap_or(1));
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).map_err(failed)?;
            BpfProgram::try_from(filter).map_err(failed)
        })
        .collect()
}

/// The instructions of a program, as the kernel takes them.
pub(super) fn instructions(program: &BpfProgram) -> Vec<libc::sock_filter> {
    let copy = |one: &seccompiler::sock_filter| libc::sock_filter {
        code: one.code,
        jt: one.jt,
        jf: one.jf,
        k: one.k,
    };
    program.iter().map(copy).collect()
}

/// Installs a filter on this single-threaded process without `no_new_privs`, so that sudo and su keep working in RUN. Needs CAP_SYS_ADMIN.
pub(super) fn install(program: &BpfProgram) -> Result<(), SandboxError> {
    let length =
        u16::try_from(program.len()).map_err(|_| SandboxError::Setup("the seccomp filter is too long".into()))?;
    // seccompiler's instructions have the kernel's layout; `sock_fprog` wants a mutable pointer but is only read.
    let filter = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `filter` points to `length` instructions that live through the call; the kernel copies them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            std::ptr::from_ref(&filter),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(SandboxError::system(
            "install the seccomp filter",
            std::io::Error::last_os_error(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_compile() {
        let programs = programs().unwrap();
        assert_eq!(programs.len(), 2);
        assert!(programs[0].len() > DENIED.len());
    }
}
