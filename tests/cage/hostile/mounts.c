/* Out of what is mounted for the RUN: a bind at /mnt/bind, a cache at /mnt/cache, a tmpfs at /mnt/tmpfs. */

#include "hostile.h"

#include <pthread.h>
#include <sys/sysmacros.h>

static const char *const MOUNTS[] = {"/mnt/bind", "/mnt/cache", "/mnt/tmpfs"};

/* A link in a mount leads to the RUN's own root, whoever resolves it. */
static int links_out(void) {
    for (int mount = 0; mount < 3; mount++) {
        for (int i = 0; i < plan.path_count; i++) {
            char link[64], target[2][600];
            snprintf(link, sizeof link, "%s/link", MOUNTS[mount]);
            snprintf(target[0], sizeof *target, "%s", plan.paths[i]);
            snprintf(target[1], sizeof *target, "../../../../../../../../../../..%s", plan.paths[i]);
            for (int way = 0; way < 2; way++) {
                unlink(link);
                if (symlink(target[way], link) == 0 && try_at(AT_FDCWD, link)) return GAINED;
            }
            unlink(link);
        }
    }
    return BLOCKED;
}

static int links_between(void) {
    for (int mount = 0; mount < 3; mount++) {
        for (int other = 0; other < 3; other++) {
            char link[64], target[64], through[700];
            snprintf(link, sizeof link, "%s/to-%d", MOUNTS[mount], other);
            snprintf(target, sizeof target, "%s/../../../../..", MOUNTS[other]);
            unlink(link);
            if (symlink(target, link) != 0) continue;
            for (int i = 0; i < plan.path_count; i++) {
                snprintf(through, sizeof through, "%s%s", link, plan.paths[i]);
                if (try_at(AT_FDCWD, through)) return GAINED;
            }
            int fd = open(link, O_PATH | O_DIRECTORY | O_CLOEXEC);
            if (fd >= 0 && try_top(fd, link)) return GAINED;
            unlink(link);
        }
    }
    return BLOCKED;
}

static int write_by_link(void) {
    for (int mount = 0; mount < 3; mount++) {
        char link[64];
        struct stat status;
        snprintf(link, sizeof link, "%s/out", MOUNTS[mount]);
        unlink(link);
        if (symlink("/roadstead-escaped", link) != 0) continue;
        int fd = open(link, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (fd >= 0) close(fd);
        if (fd >= 0 && stat("/roadstead-escaped", &status) != 0) return gained("a file made by %s", link);
        unlink("/roadstead-escaped");
        unlink(link);
    }
    return BLOCKED;
}

static int hard_links(void) {
    for (int i = 0; i < plan.path_count; i++) {
        char path[600];
        snprintf(path, sizeof path, "/mnt/cache/../../../..%s", plan.paths[i]);
        if (link(path, "/mnt/cache/hard") == 0) return gained("a hard link to %s", plan.paths[i]);
    }
    return BLOCKED;
}

static const char *volatile flip_paths[2];
static volatile int flip_end;

/* Puts now a directory and now a link out at one name. */
static void *flip(void *name) {
    const char *path = name;
    char link[128], directory[128];
    snprintf(link, sizeof link, "%s-link", path);
    snprintf(directory, sizeof directory, "%s-directory", path);
    while (!flip_end) {
        if (symlink(flip_paths[0], link) == 0) rename(link, path);
        unlink(path);
        if (mkdir(directory, 0755) == 0) rename(directory, path);
        rmdir(path);
    }
    return NULL;
}

static int race_below(const char *path, const char *target, const char *file) {
    pthread_t thread;
    char inner[700];
    int found = 0;
    flip_paths[0] = target;
    flip_end = 0;
    if (pthread_create(&thread, NULL, flip, (void *)path) != 0) return 0;
    snprintf(inner, sizeof inner, "%s/%s", path, file);
    for (int round = 0; round < 5000 && !found; round++) {
        found = try_at(AT_FDCWD, inner);
        int fd = round % 8 == 0 ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
        if (fd >= 0) {
            found = found || try_top(fd, inner);
            close(fd);
        }
    }
    flip_end = 1;
    pthread_join(thread, NULL);
    rmdir(path);
    unlink(path);
    return found;
}

static int race_links(void) {
    if (race_below("/tmp/flip", "/proc/1", "environ") || race_below("/tmp/flip", "/proc/self/root/..", "roadstead-outside")) return GAINED;
    for (int i = 0; i < plan.path_count && i < 2; i++) {
        for (int mount = 0; mount < 3; mount++) {
            char path[64];
            snprintf(path, sizeof path, "%s/flip", MOUNTS[mount]);
            if (race_below(path, "/../../../../../..", plan.paths[i] + 1)) return GAINED;
            if (race_below(path, "../../../../../../../../../..", plan.paths[i] + 1)) return GAINED;
        }
    }
    return BLOCKED;
}

/* A mount that is read-only stays so. */
static int write_to_context(void) {
    int fd = open("/mnt/read-only/plan", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) return gained("/mnt/read-only can be written");
    if (truncate("/mnt/read-only/plan", 1) == 0) return gained("/mnt/read-only can be cut");
    if (rename("/mnt/read-only/plan", "/mnt/read-only/x") == 0 || unlink("/mnt/read-only/plan") == 0) return gained("names can be changed");
    if (chmod("/mnt/read-only/plan", 0600) == 0) return gained("modes can be changed");
    if (link("/mnt/read-only/plan", "/mnt/read-only/y") == 0) return gained("hard links can be made");
    return BLOCKED;
}

static int try_device(mode_t type, unsigned major, unsigned minor) {
    static const char *const directories[] = {"/tmp", "/dev", "/dev/shm", "/mnt/bind", "/mnt/cache", "/mnt/tmpfs"};
    for (int i = 0; i < 6; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/node", directories[i]);
        unlink(path);
        if (mknod(path, type | 0666, makedev(major, minor)) != 0) continue;
        int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0) fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        unlink(path);
        if (fd >= 0) return gained("%s device %u:%u in %s", type == S_IFBLK ? "block" : "character", major, minor, directories[i]);
    }
    return BLOCKED;
}

static int disks(void) {
    static const unsigned majors[] = {7, 8, 11, 179, 202, 251, 252, 253, 254, 259};
    for (size_t i = 0; i < sizeof majors / sizeof *majors; i++) {
        for (unsigned minor = 0; minor < 4; minor++) {
            if (try_device(S_IFBLK, majors[i], minor) == GAINED) return GAINED;
        }
    }
    FILE *partitions = fopen("/proc/partitions", "re");
    char line[256];
    unsigned major, minor;
    while (partitions && fgets(line, sizeof line, partitions)) {
        if (sscanf(line, "%u %u", &major, &minor) == 2 && try_device(S_IFBLK, major, minor) == GAINED) return GAINED;
    }
    return BLOCKED;
}

static int characters(void) {
    static const unsigned devices[][2] = {{1, 1}, {1, 2}, {1, 4}, {1, 11}, {4, 0}, {4, 1}, {4, 64}, {5, 1}, {10, 200}, {10, 229}, {10, 232}, {10, 237},
                                          {10, 223}, {10, 235}, {10, 203}, {10, 63}, {13, 63}, {21, 0}, {29, 0}, {108, 0}, {202, 0}, {203, 0}, {226, 0}, {240, 0}};
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        if (try_device(S_IFCHR, devices[i][0], devices[i][1]) == GAINED) return GAINED;
    }
    return BLOCKED;
}

const struct attempt mount_attempts[] = {
    {"mount-links-out", links_out},
    {"mount-links-between", links_between},
    {"mount-write-by-link", write_by_link},
    {"mount-hard-links", hard_links},
    {"mount-race-links", race_links},
    {"mount-read-only", write_to_context},
    {"device-disks", disks},
    {"device-characters", characters},
    {0},
};
