/* A process outside, with a secret in its memory, its shared memory and its sockets, that tells which signals it got. */

#include "hostile.h"

#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>

static int log_file;

static void report(int signal, siginfo_t *information, void *context) {
    char line[64];
    (void)context;
    int length = snprintf(line, sizeof line, "signal %d from %d\n", signal, information->si_pid);
    if (write(log_file, line, (size_t)length) < 0) _exit(1);
}

static int listen_at(const char *name, int is_abstract) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    strncpy(address.sun_path + is_abstract, name, sizeof address.sun_path - 2);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    if (bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, 100) != 0) perror(name);
    return fd;
}

/* Memory, a queue and a file in shared memory, all with the secret. */
static void share(const char *marker) {
    int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0666);
    char *memory = shmat(id, NULL, 0);
    if (memory != (void *)-1) strcpy(memory, marker);
    /* It goes with this process, and can still be attached to until then. */
    shmctl(id, IPC_RMID, NULL);
    struct {
        long type;
        char text[128];
    } message = {.type = 1};
    snprintf(message.text, sizeof message.text, "%s", marker);
    int queue = msgget(0x726f6164, IPC_CREAT | 0666);
    msgsnd(queue, &message, sizeof message.text, IPC_NOWAIT);
    struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 128};
    mqd_t posix = mq_open("/roadstead-victim", O_CREAT | O_RDWR | O_NONBLOCK, 0666, &attributes);
    if (posix != (mqd_t)-1) mq_send(posix, marker, strlen(marker), 0);
}

int victim(const char *directory, const char *abstract, const char *marker) {
    char path[512];
    snprintf(path, sizeof path, "%s/victim.log", directory);
    log_file = open(path, O_CREAT | O_WRONLY | O_APPEND, 0644);
    struct sigaction action = {.sa_sigaction = report, .sa_flags = SA_SIGINFO | SA_RESTART};
    for (int signal = 1; signal < 65; signal++) {
        if (signal != SIGCHLD && signal != SIGPIPE) sigaction(signal, &action, NULL);
    }
    struct sigaction ignored = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignored, NULL);
    share(marker);
    snprintf(path, sizeof path, "%s/victim.sock", directory);
    struct pollfd sockets[2] = {{listen_at(abstract, 1), POLLIN, 0}, {listen_at(path, 0), POLLIN, 0}};
    snprintf(path, sizeof path, "%s/victim.ready", directory);
    close(open(path, O_CREAT | O_WRONLY, 0644));
    for (;;) {
        poll(sockets, 2, -1);
        for (int i = 0; i < 2; i++) {
            if (!(sockets[i].revents & POLLIN)) continue;
            int fd = accept4(sockets[i].fd, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0 && write(fd, marker, strlen(marker)) < 0) perror("write");
            close(fd);
        }
    }
}
