/*
 * Tries to get out of a RUN, and prints for each attempt `blocked NAME`, `noted NAME what` or `GAINED NAME what`; the exit status is 1 when
 * something was gained. The runner plants secrets outside, all of one form: `roadstead-marker-WHERE-` and 32 hexadecimal digits.
 *
 *   hostile run PLAN                         the attempts; PLAN has lines of `path P`, `abstract NAME`, `socket P`, `endpoints`
 *   hostile victim DIRECTORY NAME MARKER     a process outside, which writes to DIRECTORY/victim.log what signals it got
 *   hostile orphan                           sleeps; started to outlive the RUN
 */

#include "hostile.h"

#include <ctype.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* Seconds of an attempt. */
#define LIMIT 120

struct plan plan;
pid_t main_pid;
/* Shared with the process that makes the attempt. */
static char *detail;

static int say(int result, const char *format, va_list arguments) {
    if (detail[0] == 0) vsnprintf(detail, 4096, format, arguments);
    return result;
}

int gained(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say(GAINED, format, arguments);
    va_end(arguments);
    return GAINED;
}

int noted(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say(NOTED, format, arguments);
    va_end(arguments);
    return NOTED;
}

int has_marker(const char *bytes, size_t length) {
    static const char start[] = "roadstead-marker-";
    const size_t size = sizeof start - 1;
    for (size_t at = 0; at + size < length; at++) {
        if (memcmp(bytes + at, start, size) != 0) continue;
        size_t end = at + size;
        while (end < length && islower((unsigned char)bytes[end])) end++;
        if (end >= length || bytes[end] != '-') continue;
        size_t digits = end + 1;
        while (digits < length && isxdigit((unsigned char)bytes[digits])) digits++;
        if (digits - end - 1 == 32) {
            gained("%.*s", (int)(end - at), bytes + at);
            return 1;
        }
    }
    return 0;
}

int holds_marker(int fd, const char *what) {
    static char bytes[1 << 16];
    int found = 0;
    /* Of an endless file only the beginning. */
    for (int round = 0; round < 16 && !found; round++) {
        ssize_t count = read(fd, bytes, sizeof bytes);
        if (count <= 0) break;
        found = has_marker(bytes, (size_t)count);
    }
    close(fd);
    if (found) snprintf(detail + strlen(detail), 1024, " through %s", what);
    return found;
}

int try_at(int directory, const char *path) {
    int fd = openat(directory, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    return fd >= 0 && holds_marker(fd, path);
}

int try_top(int directory, const char *what) {
    struct stat root, top, next;
    if (stat("/", &root) != 0) return 0;
    int fd = openat(directory, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (int round = 0; round < 64 && fd >= 0; round++) {
        int up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (up < 0) break;
        if (fstat(fd, &top) != 0 || fstat(up, &next) != 0) break;
        close(fd);
        fd = up;
        if (top.st_ino == next.st_ino && top.st_dev == next.st_dev) break;
    }
    if (fd < 0) return 0;
    int found = 0;
    for (int i = 0; i < plan.path_count && !found; i++) found = try_at(fd, plan.paths[i] + 1);
    /* A directory that cannot be left upwards, or only to the root, is no way out. */
    int upper = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (!found && upper >= 0 && fstat(upper, &top) == 0 && (top.st_ino != root.st_ino || top.st_dev != root.st_dev)) {
        gained("another root than `/` through %s", what);
        found = 1;
    }
    if (upper >= 0) close(upper);
    close(fd);
    return found;
}

int is_outside(pid_t pid) {
    /* In a process namespace of its own there is an init that belongs to it. */
    if (main_pid < 10 && pid == 1) return 0;
    return pid != main_pid && pid != getpid();
}

pid_t last_pid(void) { return main_pid + 2000; }

static int make(const struct attempt *attempt) {
    detail[0] = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(LIMIT);
        _exit(attempt->run());
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
        printf("GAINED %s it takes longer than %d s\n", attempt->name, LIMIT);
        return 1;
    }
    if (WIFSIGNALED(status)) {
        printf("blocked %s (signal %d)\n", attempt->name, WTERMSIG(status));
        return 0;
    }
    const char *words[] = {"blocked", "GAINED", "noted"};
    int code = WEXITSTATUS(status) % 3;
    printf("%s %s %s\n", words[code], attempt->name, detail);
    return code == GAINED;
}

/* Files that were open when the program began. */
static int leaked(void) {
    int count = 0;
    for (int fd = 3; fd < 4096; fd++) {
        if (fcntl(fd, F_GETFD) < 0) continue;
        char path[64], target[512];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        printf("GAINED leaked-descriptor %d %s\n", fd, target);
        count++;
    }
    if (count == 0) printf("blocked leaked-descriptor\n");
    return count;
}

static void read_plan(const char *path) {
    FILE *file = fopen(path, "re");
    char line[600], word[32], value[512];
    if (!file) exit(2);
    while (fgets(line, sizeof line, file)) {
        value[0] = 0;
        if (sscanf(line, "%31s %511[^\n]", word, value) < 1) continue;
        if (!strcmp(word, "path") && plan.path_count < 16) strcpy(plan.paths[plan.path_count++], value);
        if (!strcmp(word, "abstract")) snprintf(plan.abstract, sizeof plan.abstract, "%.99s", value);
        if (!strcmp(word, "socket")) snprintf(plan.socket, sizeof plan.socket, "%.107s", value);
        if (!strcmp(word, "endpoints")) plan.has_endpoints = 1;
    }
    fclose(file);
}

static int run(const char *path) {
    const struct attempt *lists[] = {process_attempts, signal_attempts, path_attempts,   mount_attempts, race_attempts,
                                     network_attempts, kernel_attempts, filter_attempts, last_attempts};
    int count = leaked(), made = 1;
    read_plan(path);
    main_pid = getpid();
    printf("pid %d, parent %d, uid %d, plan of %d paths\n", main_pid, getppid(), getuid(), plan.path_count);
    detail = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t list = 0; list < sizeof lists / sizeof *lists; list++) {
        for (const struct attempt *attempt = lists[list]; attempt->name; attempt++, made++) count += make(attempt);
    }
    printf("%d attempts, %d gained\n", made, count);
    return count > 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "run")) return run(argv[2]);
    if (argc == 5 && !strcmp(argv[1], "victim")) return victim(argv[2], argv[3], argv[4]);
    if (argc == 2 && !strcmp(argv[1], "orphan")) {
        signal(SIGTERM, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        return (int)sleep(1000);
    }
    fprintf(stderr, "usage: hostile run PLAN | victim DIRECTORY NAME MARKER | orphan\n");
    return 2;
}
