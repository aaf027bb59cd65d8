/* What the attempts share. */

#ifndef HOSTILE_H
#define HOSTILE_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* What an attempt came to. NOTED is what Docker would give as well. */
enum { BLOCKED, GAINED, NOTED };

struct attempt {
    const char *name;
    int (*run)(void);
};

/* What the runner says of the outside; none of it is a secret. */
struct plan {
    char paths[16][512];
    int path_count;
    char abstract[100];
    char socket[108];
    int has_endpoints;
};

extern struct plan plan;
extern pid_t main_pid;

extern const struct attempt process_attempts[], signal_attempts[], path_attempts[], mount_attempts[], race_attempts[],
    network_attempts[], kernel_attempts[], filter_attempts[], last_attempts[];

/* Keeps a detail of what was gained, and returns GAINED. */
int gained(const char *format, ...) __attribute__((format(printf, 1, 2)));
int noted(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Whether bytes hold a secret of the outside; what it is comes into the detail. */
int has_marker(const char *bytes, size_t length);

/* Reads what a file descriptor gives, and closes it. */
int holds_marker(int fd, const char *what);

/* Opens a path from a directory, and looks for a secret. */
int try_at(int directory, const char *path);

/* From a directory up as far as it goes: that must be the root, and must hold nothing of the outside. */
int try_top(int directory, const char *what);

/* Whether a process is none of this program's. */
int is_outside(pid_t pid);

/* The largest process id that is tried. */
pid_t last_pid(void);

/* The victim, which stands outside. */
int victim(const char *directory, const char *abstract, const char *marker);

#endif
