/* Looking into processes outside. */

#include "hostile.h"

#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

/* Whether a file of a process outside can be opened. */
static int open_of_all(const char *name, int flags) {
    for (pid_t pid = 1; pid <= last_pid(); pid++) {
        char path[64];
        if (!is_outside(pid)) continue;
        snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
        int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
        if (fd >= 0) return gained("%s", path);
        /* By way of a task, and relative to the directory. */
        snprintf(path, sizeof path, "/proc/%d/task/%d/%s", pid, pid, name);
        if (open(path, flags | O_CLOEXEC | O_NONBLOCK) >= 0) return gained("%s", path);
    }
    return BLOCKED;
}

static int memory(void) { return open_of_all("mem", O_RDONLY); }
static int memory_to_write(void) { return open_of_all("mem", O_RDWR); }
static int environment(void) { return open_of_all("environ", O_RDONLY); }
static int root(void) { return open_of_all("root", O_RDONLY); }
static int root_as_path(void) { return open_of_all("root", O_PATH); }
static int root_below(void) { return open_of_all("root/.", O_PATH); }
static int working_directory(void) { return open_of_all("cwd", O_RDONLY); }
static int descriptors(void) { return open_of_all("fd", O_RDONLY); }
static int first_descriptor(void) { return open_of_all("fd/0", O_RDWR); }
static int map_files(void) { return open_of_all("map_files", O_RDONLY); }
static int maps(void) { return open_of_all("maps", O_RDONLY); }
static int command_line(void) { return open_of_all("cmdline", O_RDONLY); }
static int program_to_write(void) { return open_of_all("exe", O_WRONLY); }
static int program_to_read(void) { return open_of_all("exe", O_RDONLY); }
static int namespaces(void) { return open_of_all("ns/mnt", O_RDONLY); }
static int adjust(void) { return open_of_all("oom_score_adj", O_WRONLY); }
static int clear(void) { return open_of_all("clear_refs", O_WRONLY); }

static int links(void) {
    const char *names[] = {"exe", "cwd", "root", "fd/0", "fd/3", "ns/pid"};
    for (pid_t pid = 1; pid <= last_pid(); pid++) {
        for (int i = 0; i < 6 && is_outside(pid); i++) {
            char path[64], target[256];
            snprintf(path, sizeof path, "/proc/%d/%s", pid, names[i]);
            if (readlink(path, target, sizeof target) > 0) return gained("%s", path);
        }
    }
    return BLOCKED;
}

static int start(void) {
    for (pid_t pid = 1; pid <= last_pid(); pid++) {
        char path[64], *words[] = {path, "--version", NULL};
        if (!is_outside(pid)) continue;
        snprintf(path, sizeof path, "/proc/%d/exe", pid);
        if (access(path, X_OK) == 0) return gained("%s can be started", path);
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            execv(path, words);
            _exit(99);
        }
        waitpid(child, &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 99) return gained("%s was started", path);
    }
    return BLOCKED;
}

static int trace(void) {
    for (pid_t pid = 1; pid <= last_pid(); pid++) {
        if (!is_outside(pid)) continue;
        if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
            ptrace(PTRACE_DETACH, pid, 0, 0);
            return gained("seized %d", pid);
        }
    }
    return BLOCKED;
}

static int attach(void) {
    /* Only the parent and the first process: who is attached to stops. */
    pid_t pids[] = {getppid() == main_pid ? 1 : getppid(), 1};
    for (int i = 0; i < 2; i++) {
        if (!is_outside(pids[i]) || ptrace(PTRACE_ATTACH, pids[i], 0, 0) != 0) continue;
        waitpid(pids[i], NULL, __WALL);
        ptrace(PTRACE_DETACH, pids[i], 0, 0);
        return gained("attached to %d", pids[i]);
    }
    return BLOCKED;
}

static int copy_memory(int is_write) {
    for (pid_t pid = 1; pid <= last_pid(); pid++) {
        /* Every program of this kind has something at one of these addresses. */
        uintptr_t addresses[] = {0x400000, 0x555555554000, 0x7ffff7fc0000};
        for (int i = 0; i < 3 && is_outside(pid); i++) {
            char bytes[16] = "";
            struct iovec own = {bytes, is_write ? 0 : sizeof bytes}, other = {(void *)addresses[i], own.iov_len};
            ssize_t count = is_write ? process_vm_writev(pid, &own, 1, &other, 1, 0) : process_vm_readv(pid, &own, 1, &other, 1, 0);
            /* EFAULT comes after permission was given. */
            if (count > 0 || (count < 0 && errno == EFAULT)) return gained("of process %d", pid);
        }
    }
    return BLOCKED;
}

static int vm_read(void) { return copy_memory(0); }
static int vm_write(void) { return copy_memory(1); }

static int limits(void) {
    for (pid_t pid = 1; pid <= last_pid(); pid++) {
        struct rlimit limit;
        if (!is_outside(pid) || syscall(SYS_prlimit64, pid, RLIMIT_CORE, NULL, &limit) != 0) continue;
        if (syscall(SYS_prlimit64, pid, RLIMIT_CORE, &limit, NULL) == 0) return gained("limits of %d can be set", pid);
        return gained("limits of %d can be read", pid);
    }
    return BLOCKED;
}

static int scheduling(void) {
    for (pid_t pid = 1; pid <= last_pid(); pid++) {
        unsigned long mask[16];
        if (!is_outside(pid)) continue;
        long size = syscall(SYS_sched_getaffinity, pid, sizeof mask, mask);
        if (size > 0 && syscall(SYS_sched_setaffinity, pid, size, mask) == 0) return gained("affinity of %d", pid);
        errno = 0;
        int priority = getpriority(PRIO_PROCESS, (id_t)pid);
        if (errno == 0 && setpriority(PRIO_PROCESS, (id_t)pid, priority) == 0) return gained("priority of %d", pid);
    }
    return BLOCKED;
}

static int presence(void) {
    for (pid_t pid = 1; pid <= last_pid(); pid++) {
        unsigned long mask[16];
        if (!is_outside(pid)) continue;
        if (getpgid(pid) >= 0) return noted("getpgid tells of %d", pid);
        if (getsid(pid) >= 0) return noted("getsid tells of %d", pid);
        if (syscall(SYS_sched_getaffinity, pid, sizeof mask, mask) > 0) return noted("sched_getaffinity tells of %d", pid);
        if (syscall(SYS_sched_getscheduler, pid) >= 0) return noted("sched_getscheduler tells of %d", pid);
    }
    return BLOCKED;
}

static int take_descriptors(void) {
    for (pid_t pid = 1; pid <= last_pid(); pid++) {
        if (!is_outside(pid)) continue;
        int process = (int)syscall(SYS_pidfd_open, pid, 0);
        if (process < 0) continue;
        for (int fd = 0; fd < 64; fd++) {
            if (syscall(SYS_pidfd_getfd, process, fd, 0) >= 0) return gained("descriptor %d of %d", fd, pid);
        }
        close(process);
    }
    return BLOCKED;
}

static int compare_processes(void) {
    for (pid_t pid = 1; pid <= last_pid(); pid++) {
        if (is_outside(pid) && syscall(SYS_kcmp, pid, getpid(), 1, 0, 0) >= 0) return gained("kcmp with %d", pid);
    }
    return BLOCKED;
}

static int lists(void) {
    for (pid_t pid = 1; pid <= last_pid(); pid++) {
        void *head;
        size_t size;
        if (is_outside(pid) && syscall(SYS_get_robust_list, pid, &head, &size) == 0) return gained("addresses of %d", pid);
        if (is_outside(pid) && syscall(SYS_move_pages, pid, 0, NULL, NULL, NULL, 0) == 0) return gained("move_pages of %d", pid);
    }
    return BLOCKED;
}

const struct attempt process_attempts[] = {
    {"proc-mem", memory},
    {"proc-mem-write", memory_to_write},
    {"proc-environ", environment},
    {"proc-root", root},
    {"proc-root-path", root_as_path},
    {"proc-root-below", root_below},
    {"proc-cwd", working_directory},
    {"proc-fd", descriptors},
    {"proc-fd-0", first_descriptor},
    {"proc-map-files", map_files},
    {"proc-maps", maps},
    {"proc-cmdline", command_line},
    {"proc-exe-write", program_to_write},
    {"proc-exe-read", program_to_read},
    {"proc-exe-start", start},
    {"proc-ns", namespaces},
    {"proc-oom-score", adjust},
    {"proc-clear-refs", clear},
    {"proc-links", links},
    {"ptrace-seize", trace},
    {"ptrace-attach", attach},
    {"process-vm-readv", vm_read},
    {"process-vm-writev", vm_write},
    {"prlimit", limits},
    {"scheduling", scheduling},
    {"presence", presence},
    {"pidfd-getfd", take_descriptors},
    {"kcmp", compare_processes},
    {"robust-list-move-pages", lists},
    {0},
};
