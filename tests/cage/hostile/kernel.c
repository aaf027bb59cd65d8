/* System calls that no RUN needs, and files by which the kernel is steered. */

#include "hostile.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>

/* Says GAINED unless the call was refused. EFAULT and EINVAL come when permission was given already, for those calls that ask first. */
static int refused(const char *name, long result) {
    if (result >= 0) return gained("%s", name);
    return BLOCKED;
}

static int keys(void) {
    return refused("keyctl", syscall(SYS_keyctl, 0, -3, 1)) || refused("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -3)) ||
           refused("request_key", syscall(SYS_request_key, "user", "x", NULL, -3));
}

static int bpf(void) {
    unsigned attributes[32] = {2, 4, 4, 1};
    return refused("a map", syscall(SYS_bpf, 0, attributes, sizeof attributes));
}

static int perf(void) {
    char attributes[128] = {0};
    attributes[0] = 1;
    attributes[4] = (char)sizeof attributes;
    long of_all = syscall(SYS_perf_event_open, attributes, -1, 0, -1, 0);
    return refused("events of all", of_all) || refused("own events", syscall(SYS_perf_event_open, attributes, 0, -1, -1, 0));
}

static int faults(void) { return refused("userfaultfd", syscall(SYS_userfaultfd, 0)); }

static int rings(void) {
    char parameters[128] = {0};
    return refused("io_uring_setup", syscall(SYS_io_uring_setup, 1, parameters));
}

static int mounts(void) {
    if (syscall(SYS_mount, "x", "/tmp", "tmpfs", 0, "") == 0) return gained("tmpfs");
    if (syscall(SYS_mount, "proc", "/tmp", "proc", 0, "") == 0) return gained("proc");
    if (syscall(SYS_mount, "/", "/tmp", "", 4096, "") == 0) return gained("a bind");
    if (syscall(SYS_mount, "", "/proc", "", 32 | 4096, "") == 0) return gained("proc to be written");
    if (syscall(SYS_umount2, "/proc", 2) == 0 || syscall(SYS_umount2, "/mnt/cache", 2) == 0) return gained("umount");
    if (syscall(SYS_pivot_root, "/tmp", "/tmp") == 0) return gained("pivot_root");
    long tree = syscall(428, AT_FDCWD, "/", 1 | O_CLOEXEC);
    if (tree >= 0) return gained("open_tree with a clone");
    return refused("fsopen", syscall(430, "tmpfs", 0)) || refused("fspick", syscall(433, AT_FDCWD, "/", 0));
}

static int spaces(void) {
    static const struct {
        int flag;
        const char *name;
    } kinds[] = {{CLONE_NEWUSER, "user"}, {CLONE_NEWNS, "mount"}, {CLONE_NEWPID, "pid"}, {CLONE_NEWNET, "net"},
                 {CLONE_NEWIPC, "ipc"},   {CLONE_NEWUTS, "uts"},  {0x02000000, "cgroup"}, {0x80, "time"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (unshare(kinds[i].flag) == 0) return gained("unshare of %s", kinds[i].name);
        /* The flag of time namespaces is part of a signal's number there. */
        if (kinds[i].flag == 0x80) break;
        pid_t child = (pid_t)syscall(SYS_clone, kinds[i].flag | 17, 0, 0, 0, 0);
        if (child == 0) _exit(0);
        if (child > 0) return gained("clone with a %s namespace", kinds[i].name);
        struct {
            unsigned long long flags, pidfd, child, parent, exit_signal, stack, size, tls;
        } arguments = {.flags = (unsigned)kinds[i].flag, .exit_signal = 17};
        child = (pid_t)syscall(435, &arguments, sizeof arguments);
        if (child == 0) _exit(0);
        if (child > 0) return gained("clone3 with a %s namespace", kinds[i].name);
    }
    return BLOCKED;
}

static int join(void) {
    static const char *const names[] = {"mnt", "pid", "net", "ipc", "uts", "user", "cgroup"};
    for (int i = 0; i < 7; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && syscall(SYS_setns, fd, 0) == 0) return gained("setns to %s", names[i]);
    }
    int process = (int)syscall(SYS_pidfd_open, 1, 0);
    if (process >= 0 && syscall(SYS_setns, process, CLONE_NEWNS) == 0) return gained("setns to process 1");
    return BLOCKED;
}

static int handles(void) {
    /* The root of an ext4 and of an xfs file system, whatever is below it that is hidden. */
    struct {
        struct file_handle handle;
        unsigned char bytes[128];
    } own = {.handle = {.handle_bytes = 128}};
    int mount;
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (name_to_handle_at(AT_FDCWD, "/", &own.handle, &mount, 0) == 0) {
        if (open_by_handle_at(fd, &own.handle, O_RDONLY) >= 0) return gained("the root by its handle");
        unsigned inode[2] = {2, 0};
        memcpy(own.handle.f_handle, inode, sizeof inode);
        own.handle.handle_bytes = 8;
        own.handle.handle_type = 1;
        if (open_by_handle_at(fd, &own.handle, O_RDONLY) >= 0) return gained("inode 2");
    }
    return BLOCKED;
}

static int watch(void) { return refused("fanotify_init", syscall(SYS_fanotify_init, 4, 0)); }

static int modules(void) {
    if (refused("init_module", syscall(SYS_init_module, "", 0, "")) || refused("finit_module", syscall(SYS_finit_module, 0, "", 0))) return GAINED;
    if (refused("delete_module", syscall(SYS_delete_module, "no_such_module", O_NONBLOCK))) return GAINED;
    /* Permission is asked for before anything is looked at. */
    syscall(SYS_delete_module, "no_such_module", O_NONBLOCK);
    if (errno == ENOENT) return gained("delete_module asked for a module");
    return refused("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
}

static int machine(void) {
    /* Wrong numbers: nothing happens, and who may not gets another answer than who may. */
    syscall(SYS_reboot, 1, 2, 3, NULL);
    if (errno == EINVAL) return gained("reboot looked at its arguments");
    if (syscall(SYS_sethostname, "hostile", 7) == 0) return gained("sethostname");
    if (syscall(SYS_iopl, 3) == 0 || syscall(SYS_ioperm, 0x80, 1, 1) == 0) return gained("ports");
    if (syscall(SYS_acct, "/tmp/acct") == 0 || syscall(SYS_swapon, "/tmp/swap", 0) == 0) return gained("acct or swapon");
    char text[4096];
    long length = syscall(SYS_syslog, 3, text, sizeof text);
    if (length > 0) return gained("the kernel's log");
    if (syscall(SYS_vhangup) == 0) return gained("vhangup");
    if (syscall(SYS_quotactl, 0x800003 << 8, NULL, 0, NULL) == 0) return gained("quotactl");
    return BLOCKED;
}

static int terminals(void) {
    static const char *const names[] = {"/dev/tty", "/dev/console", "/dev/tty0", "/dev/tty1", "/dev/pts/0", "/dev/pts/1", "/proc/self/fd/0"};
    for (int i = 0; i < 7; i++) {
        int fd = open(names[i], O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0) continue;
        if (ioctl(fd, TIOCSTI, "x") == 0) return gained("TIOCSTI on %s", names[i]);
        char request[2] = {2, 0};
        if (ioctl(fd, 0x541c, request) == 0) return gained("TIOCLINUX on %s", names[i]);
    }
    for (int fd = 0; fd < 3; fd++) {
        if (ioctl(fd, TIOCSTI, "x") == 0) return gained("TIOCSTI on %d", fd);
    }
    return BLOCKED;
}

static int files_to_write(void) {
    static const char *const names[] = {
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname",   "/proc/sys/kernel/modprobe", "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/kernel/sysrq",        "/proc/sys/vm/drop_caches",    "/proc/sys/fs/suid_dumpable", "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/fs/binfmt_misc/register", "/proc/sysrq-trigger",     "/proc/irq/default_smp_affinity", "/proc/mtrr",
        "/sys/kernel/uevent_helper",     "/sys/power/state",            "/sys/kernel/mm/ksm/run",     "/sys/module/kernel/parameters/panic",
        "/sys/fs/cgroup/cgroup.procs",   "/sys/fs/cgroup/memory.max",   "/sys/fs/cgroup/cgroup.subtree_control", "/sys/fs/cgroup/memory/release_agent",
        "/sys/class/net/lo/mtu",         "/sys/block/vda/queue/scheduler", "/sys/kernel/debug/x",     "/sys/firmware/efi/vars/x",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (open(names[i], O_WRONLY | O_CLOEXEC) >= 0) return gained("%s to be written", names[i]);
    }
    /* A plain directory of the image in its place is no cgroup. */
    struct statfs status;
    int made = mkdir("/sys/fs/cgroup/hostile", 0755) == 0;
    if (made && statfs("/sys/fs/cgroup/hostile", &status) == 0 && status.f_type == 0x63677270) return gained("a cgroup");
    rmdir("/sys/fs/cgroup/hostile");
    return BLOCKED;
}

static int files_to_read(void) {
    static const char *const names[] = {"/proc/kcore",      "/proc/kmsg",     "/proc/timer_list", "/proc/sched_debug", "/proc/latency_stats", "/proc/kpagecount",
                                        "/proc/kpageflags", "/dev/mem",      "/dev/kmem",         "/dev/kmsg",           "/dev/port",
                                        "/sys/kernel/debug/sched/debug", "/sys/firmware/dmi/tables/DMI", "/sys/kernel/security/lsm", "/proc/scsi/scsi"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int fd = open(names[i], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        char byte;
        /* An empty file in its place hides it. */
        if (fd >= 0 && read(fd, &byte, 1) == 1) return gained("%s", names[i]);
        if (fd >= 0) close(fd);
    }
    return BLOCKED;
}

static int capabilities(void) {
    static const struct {
        int number;
        const char *name;
    } dangerous[] = {{2, "DAC_READ_SEARCH"}, {12, "NET_ADMIN"}, {16, "SYS_MODULE"}, {17, "SYS_RAWIO"}, {19, "SYS_PTRACE"}, {21, "SYS_ADMIN"},
                     {22, "SYS_BOOT"}, {25, "SYS_TIME"}, {34, "SYSLOG"}, {38, "PERFMON"}, {39, "BPF"}, {40, "CHECKPOINT_RESTORE"}};
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) != 0) return BLOCKED;
    for (size_t i = 0; i < sizeof dangerous / sizeof *dangerous; i++) {
        unsigned bit = 1u << (dangerous[i].number & 31);
        int word = dangerous[i].number >> 5;
        if ((data[word].effective | data[word].permitted | data[word].inheritable) & bit) return gained("CAP_%s is there", dangerous[i].name);
        struct __user_cap_data_struct more[2] = {data[0], data[1]};
        more[word].effective |= bit;
        more[word].permitted |= bit;
        if (syscall(SYS_capset, &header, more) == 0) return gained("CAP_%s can be taken", dangerous[i].name);
        if (prctl(PR_CAPBSET_READ, dangerous[i].number, 0, 0, 0) == 1) return gained("CAP_%s is in the bounding set", dangerous[i].name);
    }
    return BLOCKED;
}

/* A program with capabilities in its file. */
static int capabilities_of_files(void) {
    unsigned value[5] = {0x02000000 | 1, 1u << 21 | 1u << 19, 0, 0, 0};
    char *words[] = {"true", NULL};
    if (syscall(SYS_link, "/bin/true", "/tmp/capable") != 0) return BLOCKED;
    if (setxattr("/tmp/capable", "security.capability", value, sizeof value, 0) != 0) return BLOCKED;
    int status = 0;
    if (fork() == 0) {
        execv("/tmp/capable", words);
        _exit(99);
    }
    wait(&status);
    removexattr("/tmp/capable", "security.capability");
    unlink("/tmp/capable");
    /* The kernel starts no program that wants what is out of bounds. */
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && prctl(PR_CAPBSET_READ, 21, 0, 0, 0) == 1) return gained("CAP_SYS_ADMIN by a file");
    return BLOCKED;
}

static int back_to_root(void) {
    if (getuid() == 0 && setresuid(4242, 4242, 4242) != 0) return BLOCKED;
    if (setuid(0) == 0 || seteuid(0) == 0 || setresuid(-1, 0, -1) == 0) return gained("root again");
    if (setresgid(0, 0, 0) == 0 && getgid() != 0) return gained("its group again");
    return BLOCKED;
}

const struct attempt kernel_attempts[] = {
    {"keys", keys},
    {"bpf", bpf},
    {"perf-events", perf},
    {"userfaultfd", faults},
    {"io-uring", rings},
    {"mounts", mounts},
    {"namespaces-new", spaces},
    {"namespaces-join", join},
    {"file-handles", handles},
    {"fanotify", watch},
    {"modules", modules},
    {"machine", machine},
    {"terminals", terminals},
    {"kernel-files-write", files_to_write},
    {"kernel-files-read", files_to_read},
    {"capabilities", capabilities},
    {"capabilities-of-files", capabilities_of_files},
    {"setuid-regained", back_to_root},
    {0},
};
