/* Around the system call filter: filters of one's own, and calls by other tables. */

#include "hostile.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* Whether what must be refused is possible: asked after each attempt to get rid of the filter. */
static int is_open(const char *how) {
    if (kill(1, 0) == 0 && is_outside(1)) return gained("kill of process 1 %s", how);
    if (try_at(AT_FDCWD, "/proc/1/environ")) return GAINED;
    int fd = is_outside(1) ? open("/proc/1/environ", O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) return gained("/proc/1/environ %s", how);
    for (int i = 0; i < plan.path_count; i++) {
        if (try_at(AT_FDCWD, plan.paths[i])) return GAINED;
    }
    if (syscall(SYS_mount, "x", "/tmp", "tmpfs", 0, "") == 0) return gained("mount %s", how);
    return BLOCKED;
}

static long install(unsigned action, unsigned flags) {
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, action)};
    struct sock_fprog program = {1, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static int allow_all(void) {
    install(SECCOMP_RET_ALLOW, 0);
    install(SECCOMP_RET_LOG, 0);
    install(SECCOMP_RET_ALLOW, SECCOMP_FILTER_FLAG_TSYNC);
    return is_open("after a filter that allows all");
}

static int take_back(void) {
    prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0);
    prctl(PR_SET_SECCOMP, 0, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_SET_PTRACER, -1, 0, 0, 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    return is_open("after prctl");
}

/* An own listener would answer in place of that above, and let all calls pass. */
static int own_listener(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
    };
    struct sock_fprog program = {4, code};
    int *listener = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *listener = -1;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    /* With a shared table of descriptors the parent can answer for the child. */
    pid_t child = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        *listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
        _exit(*listener < 0 ? 0 : is_open("with an own listener") == GAINED);
    }
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        struct seccomp_notif notification = {0};
        if (*listener < 0 || ioctl(*listener, SECCOMP_IOCTL_NOTIF_RECV, &notification) != 0) {
            usleep(1000);
            continue;
        }
        struct seccomp_notif_resp response = {.id = notification.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        ioctl(*listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
        if (kill(child, 0) != 0) break;
    }
    return WIFEXITED(status) && WEXITSTATUS(status) ? GAINED : BLOCKED;
}

/* The number of a call with the bit of the x32 table. */
static int x32(void) {
#ifdef __x86_64__
    const long bit = 0x40000000;
    long fd = syscall(bit | SYS_open, "/proc/1/environ", O_RDONLY);
    if (fd >= 0 && (is_outside(1) || holds_marker((int)fd, "x32"))) return gained("open by x32");
    for (int i = 0; i < plan.path_count; i++) {
        fd = syscall(bit | SYS_openat, AT_FDCWD, plan.paths[i], O_RDONLY);
        if (fd >= 0 && holds_marker((int)fd, "x32")) return GAINED;
    }
    if (is_outside(1) && syscall(bit | SYS_kill, 1, 0) == 0) return gained("kill by x32");
    if (syscall(bit | SYS_mount, "x", "/tmp", "tmpfs", 0, "") == 0) return gained("mount by x32");
    if (syscall(bit | SYS_socket, 17, 3, 0x300) >= 0) return gained("socket by x32");
#endif
    return BLOCKED;
}

#ifdef __x86_64__
static long call_32(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
}
#endif

/* The table of 32-bit programs, whose numbers mean other calls. */
static int i386(void) {
#ifdef __x86_64__
    char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED) return BLOCKED;
    strcpy(low, "/proc/1/environ");
    long fd = call_32(5, (long)low, O_RDONLY, 0);
    if (fd >= 0 && (is_outside(1) || holds_marker((int)fd, "int 0x80"))) return gained("open by int 0x80");
    if (is_outside(1) && call_32(37, 1, 0, 0) == 0) return gained("kill by int 0x80");
    for (int i = 0; i < plan.path_count; i++) {
        snprintf(low, 4096, "%s", plan.paths[i]);
        fd = call_32(295, AT_FDCWD, (long)low, O_RDONLY);
        if (fd >= 0 && holds_marker((int)fd, "int 0x80")) return GAINED;
    }
    strcpy(low, "/tmp");
    strcpy(low + 16, "tmpfs");
    if (call_32(21, (long)low + 16, (long)low, (long)low + 16) == 0) return gained("mount by int 0x80");
    unsigned words[3] = {17, 3, 0x300};
    memcpy(low + 32, words, sizeof words);
    if (call_32(102, 1, (long)low + 32, 0) >= 0) return gained("socket by int 0x80");
    if (call_32(26, 16, 1, 0) == 0 && is_outside(1)) return gained("ptrace by int 0x80");
#endif
    return BLOCKED;
}

/* The endpoint by calls of the other tables. */
static int connect_32(void) {
#ifdef __x86_64__
    unsigned char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED || !plan.has_endpoints) return BLOCKED;
    const unsigned char address[16] = {2, 0, 0, 80, 169, 254, 170, 2};
    unsigned words[3] = {2, 1, 0};
    memcpy(low, words, sizeof words);
    int fd = (int)call_32(102, 1, (long)low, 0);
    if (fd < 0) fd = (int)call_32(359, 2, 1, 0);
    if (fd < 0) fd = (int)syscall(SYS_socket, 2, 1, 0);
    memcpy(low + 64, address, sizeof address);
    unsigned arguments[3] = {(unsigned)fd, (unsigned)(long)(low + 64), 16};
    memcpy(low, arguments, sizeof arguments);
    if (call_32(102, 3, (long)low, 0) != 0 && call_32(362, fd, (long)(low + 64), 16) != 0 &&
        syscall(0x40000000 | SYS_connect, fd, low + 64, 16) != 0)
        return BLOCKED;
    if (write(fd, "GET / HTTP/1.0\r\n\r\n", 18) == 18 && holds_marker(fd, "int 0x80")) return GAINED;
#endif
    return BLOCKED;
}

const struct attempt filter_attempts[] = {
    {"filter-allow", allow_all},
    {"filter-take-back", take_back},
    {"filter-listener", own_listener},
    {"calls-x32", x32},
    {"calls-i386", i386},
    {"calls-i386-connect", connect_32},
    {0},
};
