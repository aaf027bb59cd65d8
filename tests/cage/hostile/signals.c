/* Signals to processes outside. All are SIGURG, which harms nobody, or none; a process outside tells the runner when it gets one. */

#include "hostile.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum way { PROBE, KILL, GROUP, TKILL, TGKILL, QUEUE, TGQUEUE, PIDFD };

static int send_by(enum way way, pid_t pid) {
    siginfo_t information = {.si_signo = SIGURG, .si_code = SI_QUEUE};
    switch (way) {
    case PROBE: return kill(pid, 0);
    case KILL: return kill(pid, SIGURG);
    case GROUP: return pid > 1 ? kill(-pid, SIGURG) : -1;
    case TKILL: return (int)syscall(SYS_tkill, pid, SIGURG);
    case TGKILL: return (int)syscall(SYS_tgkill, pid, pid, SIGURG);
    case QUEUE: return (int)syscall(SYS_rt_sigqueueinfo, pid, SIGURG, &information);
    case TGQUEUE: return (int)syscall(SYS_rt_tgsigqueueinfo, pid, pid, SIGURG, &information);
    case PIDFD: {
        int process = (int)syscall(SYS_pidfd_open, pid, 0);
        if (process < 0) return -1;
        int result = (int)syscall(SYS_pidfd_send_signal, process, SIGURG, NULL, 0);
        close(process);
        return result;
    }
    }
    return -1;
}

static int send_to_all(enum way way) {
    for (pid_t pid = 1; pid <= last_pid(); pid++) {
        if (is_outside(pid) && send_by(way, pid) == 0) return gained("process %d took it", pid);
    }
    return BLOCKED;
}

static int probe(void) { return send_to_all(PROBE); }
static int plain(void) { return send_to_all(KILL); }
static int group(void) { return send_to_all(GROUP); }
static int thread(void) { return send_to_all(TKILL); }
static int thread_of_group(void) { return send_to_all(TGKILL); }
static int queue(void) { return send_to_all(QUEUE); }
static int queue_to_thread(void) { return send_to_all(TGQUEUE); }
static int by_descriptor(void) { return send_to_all(PIDFD); }

/* To everybody who may be reached; the victim tells. */
static int everybody(void) {
    kill(-1, SIGURG);
    kill(0, SIGURG);
    return BLOCKED;
}

/* The kernel sends a signal to the owner of a socket, whoever that is said to be. The victim tells. */
static int by_owner(int is_ioctl) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return BLOCKED;
    for (pid_t pid = 1; pid <= last_pid(); pid++) {
        if (!is_outside(pid)) continue;
        struct f_owner_ex owner = {F_OWNER_PID, pid};
        int set = is_ioctl ? ioctl(pair[0], FIOSETOWN, &pid) : fcntl(pair[0], F_SETOWN_EX, &owner);
        if (set != 0) continue;
        fcntl(pair[0], F_SETSIG, SIGURG);
        fcntl(pair[0], F_SETFL, O_ASYNC | O_NONBLOCK);
        char byte;
        if (write(pair[1], "x", 1) != 1 || read(pair[0], &byte, 1) != 1) return BLOCKED;
    }
    return BLOCKED;
}

static int owner(void) { return by_owner(0); }
static int owner_by_ioctl(void) { return by_owner(1); }

static int as_somebody_else(void) {
    if (setresuid(4242, 4242, 4242) != 0) return BLOCKED;
    return send_to_all(PROBE);
}

const struct attempt signal_attempts[] = {
    {"kill-probe", probe},
    {"kill", plain},
    {"kill-group", group},
    {"tkill", thread},
    {"tgkill", thread_of_group},
    {"rt-sigqueueinfo", queue},
    {"rt-tgsigqueueinfo", queue_to_thread},
    {"pidfd-send-signal", by_descriptor},
    {"kill-everybody", everybody},
    {"signal-by-owner", owner},
    {"signal-by-owner-ioctl", owner_by_ioctl},
    {"kill-as-another-user", as_somebody_else},
    {0},
};
