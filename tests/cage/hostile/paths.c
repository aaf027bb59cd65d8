/* Paths that lead out when somebody resolves them for the RUN, and the ways out of a chroot. */

#include "hostile.h"

#include <linux/openat2.h>
#include <sys/mman.h>

/* Directories from which a way up may lead elsewhere than to the root. */
static const char *const DIRECTORIES[] = {
    "/proc",      "/proc/self",      "/proc/self/fd",   "/proc/self/fdinfo", "/proc/self/task", "/proc/self/ns", "/proc/self/root",
    "/proc/self/cwd", "/proc/thread-self", "/proc/sys", "/proc/sys/kernel",  "/proc/net",       "/proc/self/net", "/proc/1",
    "/proc/1/root", "/proc/1/cwd",   "/sys",            "/sys/fs/cgroup",    "/sys/kernel",     "/dev",          "/dev/fd",
    "/dev/shm",   "/dev/pts",        "/dev/mqueue",     "/mnt/bind",         "/mnt/cache",      "/mnt/tmpfs",    "/run",
    "/etc",       "/",
};
#define COUNT (sizeof DIRECTORIES / sizeof *DIRECTORIES)

static int outside_from(int directory, const char *before) {
    char path[8192];
    for (int i = 0; i < plan.path_count; i++) {
        snprintf(path, sizeof path, "%s%s", before, plan.paths[i]);
        if (try_at(directory, path)) return 1;
    }
    return 0;
}

static int plainly(void) { return outside_from(AT_FDCWD, "") ? GAINED : BLOCKED; }

static int dots_in_text(void) {
    static const char *const ups[] = {"/..", "/../..", "/../../..", "/../../../../../../../../..", "/./../.", "//..//..//"};
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t up = 0; up < sizeof ups / sizeof *ups; up++) {
            char before[256];
            snprintf(before, sizeof before, "%s%s", DIRECTORIES[i], ups[up]);
            if (outside_from(AT_FDCWD, before)) return GAINED;
        }
        if (outside_from(AT_FDCWD, DIRECTORIES[i])) return GAINED;
    }
    return BLOCKED;
}

static int dots_by_descriptor(void) {
    const int flags[] = {O_RDONLY | O_DIRECTORY, O_PATH | O_DIRECTORY, O_PATH};
    for (size_t i = 0; i < COUNT; i++) {
        for (int flag = 0; flag < 3; flag++) {
            int fd = open(DIRECTORIES[i], flags[flag] | O_CLOEXEC);
            if (fd < 0) continue;
            if (try_top(fd, DIRECTORIES[i])) return GAINED;
            if (outside_from(fd, "../..") || outside_from(fd, "1/root") || outside_from(fd, "self/root/../..")) return GAINED;
            if (outside_from(fd, "root/..") || outside_from(fd, "../1/root") || try_at(fd, "1/environ")) return GAINED;
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d/..", fd);
            if (outside_from(AT_FDCWD, link)) return GAINED;
            snprintf(link, sizeof link, "/dev/fd/%d/../../../..", fd);
            if (outside_from(AT_FDCWD, link)) return GAINED;
            int up = open(link, O_PATH | O_DIRECTORY | O_CLOEXEC);
            if (up >= 0 && try_top(up, link)) return GAINED;
            close(up);
            close(fd);
        }
    }
    return BLOCKED;
}

static int by_working_directory(void) {
    for (size_t i = 0; i < COUNT; i++) {
        int fd = open(DIRECTORIES[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && fchdir(fd) == 0 && try_top(AT_FDCWD, DIRECTORIES[i])) return GAINED;
        if (chdir(DIRECTORIES[i]) != 0) continue;
        if (try_at(AT_FDCWD, "1/environ") || try_at(AT_FDCWD, "../1/environ") || outside_from(AT_FDCWD, "1/root")) return GAINED;
        for (int up = 0; up < 32; up++) {
            if (chdir("..") != 0) break;
            if (outside_from(AT_FDCWD, ".")) return GAINED;
        }
        if (try_top(AT_FDCWD, DIRECTORIES[i])) return GAINED;
        if (chdir("/") != 0) return BLOCKED;
    }
    return BLOCKED;
}

static int by_openat2(void) {
    const unsigned long long resolve[] = {0, RESOLVE_IN_ROOT, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV};
    for (size_t i = 0; i < COUNT; i++) {
        for (int way = 0; way < 5; way++) {
            struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = resolve[way]};
            char path[256];
            snprintf(path, sizeof path, "%s/../..", DIRECTORIES[i]);
            int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
            if (fd >= 0 && try_top(fd, path)) return GAINED;
            how.flags = O_RDONLY | O_CLOEXEC;
            how.resolve = way == 1 ? 0 : resolve[way];
            fd = (int)syscall(SYS_openat2, AT_FDCWD, "/proc/1/environ", &how, sizeof how);
            if (fd >= 0 && holds_marker(fd, "openat2 of /proc/1/environ")) return GAINED;
        }
    }
    return BLOCKED;
}

static int out_of_chroot(int keep_descriptor) {
    int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    char name[] = "/tmp/jail-XXXXXX";
    if (!mkdtemp(name) || chroot(name) != 0) return BLOCKED;
    if (keep_descriptor && fchdir(fd) != 0) return BLOCKED;
    for (int up = 0; up < 256; up++) {
        if (chdir("..") != 0) break;
    }
    if (outside_from(AT_FDCWD, ".")) return GAINED;
    if (chroot(".") == 0 && outside_from(AT_FDCWD, "")) return GAINED;
    struct stat before, after;
    if (fstat(fd, &before) == 0 && stat("/", &after) == 0 && !keep_descriptor) return BLOCKED;
    if (before.st_ino != after.st_ino || before.st_dev != after.st_dev) return gained("another root");
    return BLOCKED;
}

static int classic(void) { return out_of_chroot(0); }
static int classic_with_descriptor(void) { return out_of_chroot(1); }

/* The directory is moved above the root of a process that stands in it. */
static int moved_away(void) {
    char name[] = "/tmp/away-XXXXXX", inner[64], outer[64];
    if (!mkdtemp(name)) return BLOCKED;
    snprintf(inner, sizeof inner, "%s/inner", name);
    snprintf(outer, sizeof outer, "%s-outer", name);
    if (mkdir(inner, 0755) != 0 || chdir(inner) != 0) return BLOCKED;
    int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (chroot(name) != 0 || fchdir(here) != 0) return BLOCKED;
    return try_top(AT_FDCWD, "a directory in a chroot") ? GAINED : BLOCKED;
}

static int links(void) {
    static const char *const targets[] = {"/proc/1/environ", "/proc/1/root", "/proc/self/root/..", "/proc/1/cwd", "/proc/self/../1/environ",
                                          "/proc/../../..", "/dev/fd/../../1/environ"};
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        unlink("/tmp/link");
        if (symlink(targets[i], "/tmp/link") != 0) return BLOCKED;
        if (try_at(AT_FDCWD, "/tmp/link") || outside_from(AT_FDCWD, "/tmp/link") || outside_from(AT_FDCWD, "/tmp/link/..")) return GAINED;
        int fd = open("/tmp/link", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && try_top(fd, targets[i])) return GAINED;
    }
    return BLOCKED;
}

/* What is not opened but touched by its path. */
static int other_calls(void) {
    struct stat status;
    char bytes[4096];
    static const char *const starts[] = {"/proc/1/root", "/proc/self/root/..", "/proc/..", "/dev/fd/..", "/sys/.."};
    for (int start = 0; start < 5; start++) {
        for (int i = 0; i < plan.path_count; i++) {
            char path[1024];
            snprintf(path, sizeof path, "%s%s", starts[start], plan.paths[i]);
            if (stat(path, &status) == 0 || lstat(path, &status) == 0) return gained("stat of %s", path);
            if (access(path, F_OK) == 0) return gained("access to %s", path);
            if (syscall(SYS_statx, AT_FDCWD, path, 0, 0x7ff, bytes) == 0) return gained("statx of %s", path);
            if (truncate(path, 1 << 20) == 0 || chmod(path, 0644) == 0 || chown(path, 0, 0) == 0) return gained("change of %s", path);
            if (link(path, "/tmp/hard") == 0 || rename(path, "/tmp/moved") == 0 || unlink(path) == 0) return gained("link of %s", path);
            if (chdir(path) == 0 || chroot(path) == 0) return gained("chdir to %s", path);
        }
    }
    return BLOCKED;
}

static int write_outside(void) {
    static const char *const starts[] = {"/proc/1/root",   "/proc/self/root/..", "/proc/self/cwd/../../../../../..", "/proc/..", "/proc/self/fd/../../../..",
                                         "/dev/fd/../../../../..", "/sys/..",    "/mnt/bind/../../../../..",         "/mnt/cache/../../../../.."};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        char path[512];
        /* The runner looks whether it is somewhere outside. */
        snprintf(path, sizeof path, "%s/roadstead-escaped", starts[i]);
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (fd >= 0) close(fd);
        struct stat status;
        if (fd >= 0 && stat("/roadstead-escaped", &status) != 0) return gained("a file made by %s", path);
        unlink("/roadstead-escaped");
        if (mkdir(path, 0755) == 0 && stat("/roadstead-escaped", &status) != 0) return gained("a directory made by %s", path);
        rmdir("/roadstead-escaped");
    }
    return BLOCKED;
}

static int is_served(void) {
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    close(fd);
    return fd >= 0;
}

/* Strings that a reader of another's memory may stumble over. */
static int strange_strings(void) {
    const size_t size = 16 << 20;
    int was_served = is_served();
    char *long_one = malloc(size);
    strcpy(long_one, "/proc");
    for (size_t i = 5; i + 2 < size; i += 2) memcpy(long_one + i, "/.", 2);
    if (open(long_one, O_RDONLY) >= 0) return gained("16 MiB were taken");
    for (int length = 4080; length < 4100; length++) {
        snprintf(long_one, size, "/proc");
        for (int i = 5; i < length - 12; i++) long_one[i] = '/';
        strcpy(long_one + length - 12, "1/environ");
        if (try_at(AT_FDCWD, long_one)) return GAINED;
    }
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(pages + 4096, 4096);
    memset(pages, '/', 4096);
    if (open(pages, O_RDONLY) >= 0 || syscall(SYS_open, 0, O_RDONLY) >= 0 || open((char *)-1, O_RDONLY) >= 0) return gained("an address of nothing");
    mprotect(pages, 4096, PROT_NONE);
    if (open(pages, O_RDONLY) >= 0) return gained("an address that cannot be read");
    syscall(SYS_openat, 12345, "proc/1/environ", O_RDONLY);
    syscall(SYS_openat, -1, "", O_RDONLY);
    syscall(SYS_newfstatat, AT_FDCWD, "/proc/self/status", 1, 0);
    syscall(SYS_readlink, "/proc/self/exe", 1, 10);
    syscall(SYS_readlink, "/proc/self/exe", pages, -1);
    if (was_served && !is_served()) return gained("after these /proc is gone for all");
    return BLOCKED;
}

const struct attempt path_attempts[] = {
    {"path-plain", plainly},
    {"path-dots", dots_in_text},
    {"path-descriptor", dots_by_descriptor},
    {"path-chdir", by_working_directory},
    {"path-openat2", by_openat2},
    {"chroot-classic", classic},
    {"chroot-with-descriptor", classic_with_descriptor},
    {"chroot-from-within", moved_away},
    {"path-links", links},
    {"path-other-calls", other_calls},
    {"path-write", write_outside},
    {"path-strange-strings", strange_strings},
    {0},
};
