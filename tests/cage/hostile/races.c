/* One thread changes what another has passed to the kernel, between check and use. */

#include "hostile.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#define ROUNDS 20000

static char shared_path[256];
static const char *const *choices;
static volatile int end;

static void *flip(void *unused) {
    (void)unused;
    while (!end) {
        strcpy(shared_path, choices[0]);
        strcpy(shared_path, choices[1]);
    }
    return NULL;
}

/* Opens whatever the path is at the moment. */
static int race(const char *allowed, const char *forbidden, int rounds) {
    const char *both[2] = {allowed, forbidden};
    pthread_t thread;
    int found = 0;
    choices = both;
    end = 0;
    strcpy(shared_path, allowed);
    if (pthread_create(&thread, NULL, flip, NULL) != 0) return 0;
    for (int round = 0; round < rounds && !found; round++) {
        int fd = open(shared_path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0) continue;
        char target[32], text[512] = "";
        snprintf(target, sizeof target, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(target, text, sizeof text - 1);
        /* Opened is enough for what is another process's. */
        if (length > 0 && strncmp(text, forbidden, strlen(forbidden)) == 0 && strstr(forbidden, "/proc/")) {
            gained("%s was opened", forbidden);
            found = 1;
        }
        found = holds_marker(fd, forbidden) || found;
    }
    end = 1;
    pthread_join(thread, NULL);
    return found;
}

static int race_processes(void) {
    char path[64];
    pid_t parent = getppid() == main_pid ? 1 : getppid();
    const char *names[] = {"environ", "root", "maps", "mem"};
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", parent, names[i]);
        if (!is_outside(parent)) break;
        if (race("/proc/self/status", path, i ? ROUNDS / 10 : ROUNDS) || race("/etc/hostname", path, ROUNDS / 10)) return GAINED;
    }
    return BLOCKED;
}

static int race_paths(void) {
    for (int i = 0; i < plan.path_count && i < 3; i++) {
        char path[600];
        snprintf(path, sizeof path, "/proc/self/root/..%.200s", plan.paths[i]);
        if (race("/proc/self/status", path, i ? ROUNDS / 10 : ROUNDS) || race("/etc/hostname", plan.paths[i], ROUNDS / 10)) return GAINED;
        snprintf(path, sizeof path, "/mnt/cache/../..%.200s", plan.paths[i]);
        if (race("/mnt/cache/file", path, ROUNDS / 10) || race("/proc/self/status", path, ROUNDS / 10)) return GAINED;
    }
    return BLOCKED;
}

/* The descriptor of the directory is another one when the path is used. */
static int directory_fd;
static void *swap(void *unused) {
    (void)unused;
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), other = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (!end) {
        dup2(proc, directory_fd);
        dup2(other, directory_fd);
    }
    return NULL;
}

static int race_descriptor(void) {
    pthread_t thread;
    int found = 0;
    directory_fd = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    end = 0;
    if (pthread_create(&thread, NULL, swap, NULL) != 0) return BLOCKED;
    for (int round = 0; round < ROUNDS && !found; round++) {
        found = try_at(directory_fd, "1/environ") || try_at(directory_fd, "../roadstead-outside");
        int up = openat(directory_fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (up >= 0 && round % 64 == 0) found = found || try_top(up, "a directory that is swapped");
        if (up >= 0) close(up);
    }
    end = 1;
    pthread_join(thread, NULL);
    return found ? GAINED : BLOCKED;
}

/* Processes that end while they are asked about: a number that is used again must not give another's files. */
static int race_end(void) {
    for (int round = 0; round < 2000; round++) {
        pid_t child = fork();
        if (child == 0) {
            for (int i = 0; i < 4; i++) {
                if (try_at(AT_FDCWD, "/proc/self/environ") || try_at(AT_FDCWD, "/proc/self/root/roadstead-outside")) _exit(1);
            }
            _exit(0);
        }
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/environ", child);
        if (child > 0 && try_at(AT_FDCWD, path)) return GAINED;
        int status = 0;
        if (round % 2) kill(child, 9);
        waitpid(child, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status)) return gained("a child saw it");
    }
    return BLOCKED;
}

const struct attempt race_attempts[] = {
    {"race-processes", race_processes},
    {"race-paths", race_paths},
    {"race-descriptor", race_descriptor},
    {"race-end", race_end},
    {0},
};
