/* The addresses where a cloud hands out credentials, and sockets of the outside. */

#include "hostile.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static const char *const V4[] = {"169.254.170.2", "169.254.169.254", "169.254.170.23"};
static const char *const V6[] = {"fd00:ec2::254",        "fd00:ec2::23",       "::ffff:169.254.170.2", "::ffff:169.254.169.254",
                                 "::169.254.169.254", "64:ff9b::169.254.169.254"};

static socklen_t to(struct sockaddr_storage *address, const char *text) {
    memset(address, 0, sizeof *address);
    struct sockaddr_in *four = (void *)address;
    struct sockaddr_in6 *six = (void *)address;
    if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(80);
        return sizeof *four;
    }
    inet_pton(AF_INET6, text, &six->sin6_addr);
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(80);
    return sizeof *six;
}

/* Where the credentials are is in the builder's environment. */
static int environment(void) {
    extern char **environ;
    for (char **each = environ; *each; each++) {
        if (has_marker(*each, strlen(*each))) return GAINED;
        /* Where the authorities are, that this build was given for its commands. */
        if (!strncmp(*each, "AWS_CA_BUNDLE=", 14)) continue;
        if (!strncmp(*each, "AWS_", 4) || !strncmp(*each, "ROADSTEAD", 9) || !strncmp(*each, "ECS_", 4)) return gained("%s", *each);
    }
    return BLOCKED;
}

static const char REQUEST[] = "GET /v2/credentials/x HTTP/1.0\r\nHost: x\r\n\r\n";

/* Sends a request on what is connected, and looks at the answer. */
static int ask(int fd, const char *what) {
    struct timeval time = {2, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    if (send(fd, REQUEST, sizeof REQUEST - 1, MSG_NOSIGNAL) < 0) {
        close(fd);
        return 0;
    }
    return holds_marker(fd, what);
}

static int tcp(int family, int protocol) {
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, protocol);
    struct timeval time = {2, 0};
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
    return fd;
}

static int connect_to(const char *text, int protocol) {
    struct sockaddr_storage address;
    socklen_t size = to(&address, text);
    int fd = tcp(address.ss_family, protocol);
    if (fd < 0) return 0;
    if (connect(fd, (struct sockaddr *)&address, size) != 0) {
        close(fd);
        return 0;
    }
    return ask(fd, text);
}

static int all(int protocol) {
    if (!plan.has_endpoints) return noted("not tried: the addresses are not there");
    for (int i = 0; i < 3; i++) {
        if (connect_to(V4[i], protocol)) return GAINED;
    }
    for (int i = 0; i < 6; i++) {
        if (connect_to(V6[i], protocol)) return GAINED;
    }
    return BLOCKED;
}

static int plain(void) { return all(0); }
static int multipath(void) { return all(IPPROTO_MPTCP); }

static int fast_open(void) {
    for (int i = 0; i < 3 && plan.has_endpoints; i++) {
        struct sockaddr_storage address;
        socklen_t size = to(&address, V4[i]);
        int fd = tcp(AF_INET, 0);
        if (sendto(fd, REQUEST, sizeof REQUEST - 1, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)&address, size) >= 0 &&
            holds_marker(fd, "MSG_FASTOPEN"))
            return GAINED;
        close(fd);
        int one = 1;
        fd = tcp(AF_INET, 0);
        setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof one);
        if (connect(fd, (struct sockaddr *)&address, size) == 0 && ask(fd, "TCP_FASTOPEN_CONNECT")) return GAINED;
        struct iovec vector = {(void *)REQUEST, sizeof REQUEST - 1};
        struct mmsghdr message = {.msg_hdr = {.msg_name = &address, .msg_namelen = size, .msg_iov = &vector, .msg_iovlen = 1}};
        fd = tcp(AF_INET, 0);
        if (sendmmsg(fd, &message, 1, MSG_FASTOPEN | MSG_NOSIGNAL) == 1 && holds_marker(fd, "sendmmsg")) return GAINED;
    }
    return BLOCKED;
}

static int datagrams(void) {
    for (int i = 0; i < 3 && plan.has_endpoints; i++) {
        struct sockaddr_storage address;
        socklen_t size = to(&address, V4[i]);
        struct iovec vector = {(void *)REQUEST, sizeof REQUEST - 1};
        struct msghdr message = {.msg_name = &address, .msg_namelen = size, .msg_iov = &vector, .msg_iovlen = 1};
        struct timeval time = {0, 300000};
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
        if (sendto(fd, REQUEST, sizeof REQUEST - 1, 0, (struct sockaddr *)&address, size) >= 0 && holds_marker(fd, "sendto")) return GAINED;
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
        if (sendmsg(fd, &message, 0) >= 0 && holds_marker(fd, "sendmsg")) return GAINED;
    }
    return BLOCKED;
}

static int odd_addresses(void) {
    if (!plan.has_endpoints) return BLOCKED;
    struct sockaddr_storage address;
    /* The kernel takes addresses that are longer than they need be. */
    to(&address, V4[0]);
    int fd = tcp(AF_INET, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 && ask(fd, "a long address")) return GAINED;
    close(fd);
    /* AF_UNSPEC takes the connection back, and must not open the way for the next. */
    fd = tcp(AF_INET, 0);
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    connect(fd, &none, sizeof none);
    socklen_t size = to(&address, V4[0]);
    if (connect(fd, (struct sockaddr *)&address, size) == 0 && ask(fd, "AF_UNSPEC")) return GAINED;
    close(fd);
    /* An IPv6 socket with an IPv4 address. */
    fd = tcp(AF_INET6, 0);
    if (connect(fd, (struct sockaddr *)&address, size) == 0 && ask(fd, "IPv4 on IPv6")) return GAINED;
    close(fd);
    /* Without waiting. */
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    connect(fd, (struct sockaddr *)&address, size);
    usleep(200000);
    fcntl(fd, F_SETFL, 0);
    return ask(fd, "a socket that does not wait") ? GAINED : BLOCKED;
}

static int somebody_else(void) {
    if (setresgid(4242, 4242, 4242) != 0 || setresuid(4242, 4242, 4242) != 0) return BLOCKED;
    pid_t child = fork();
    return child < 0 ? BLOCKED : all(0) == GAINED ? GAINED : BLOCKED;
}

static struct sockaddr_storage racing;
static volatile int end;

static void *flip(void *unused) {
    (void)unused;
    struct sockaddr_storage both[2];
    to(&both[0], "127.0.0.1");
    ((struct sockaddr_in *)&both[0])->sin_port = htons(1);
    to(&both[1], V4[0]);
    while (!end) {
        memcpy(&racing, &both[0], 16);
        memcpy(&racing, &both[1], 16);
    }
    return NULL;
}

static int race(void) {
    pthread_t thread;
    int found = 0;
    if (!plan.has_endpoints) return BLOCKED;
    if (pthread_create(&thread, NULL, flip, NULL) != 0) return BLOCKED;
    for (int round = 0; round < 5000 && !found; round++) {
        int fd = tcp(AF_INET, 0);
        if (connect(fd, (struct sockaddr *)&racing, sizeof(struct sockaddr_in)) == 0) {
            found = ask(fd, "an address that is flipped");
        } else {
            close(fd);
        }
    }
    end = 1;
    pthread_join(thread, NULL);
    return found ? GAINED : BLOCKED;
}

static int packets(void) {
    if (socket(AF_PACKET, SOCK_RAW, htons(3)) >= 0) return gained("a socket that sees every packet");
    if (socket(AF_PACKET, SOCK_DGRAM, htons(3)) >= 0) return gained("a socket that sees every packet");
    return BLOCKED;
}

static int raw(void) {
    if (socket(AF_INET, SOCK_RAW, IPPROTO_TCP) >= 0) return gained("a socket that sees and sends TCP as it likes");
    if (socket(AF_INET, SOCK_RAW, IPPROTO_RAW) >= 0) return gained("a socket that sends what it likes");
    return BLOCKED;
}

static int other_families(void) {
    /* Those with a history: VSOCK reaches the hypervisor, ALG and the like the kernel's corners. */
    static const struct {
        int family;
        const char *name;
    } families[] = {{40, "VSOCK"}, {15, "KEY"}, {44, "XDP"}, {29, "CAN"}, {21, "RDS"}, {30, "TIPC"}, {17, "PACKET"}};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        for (int type = 1; type < 6; type++) {
            if (socket(families[i].family, type, 0) >= 0) return gained("AF_%s", families[i].name);
        }
    }
    return BLOCKED;
}

/* Changing the machine's network. */
static int settings(void) {
    struct {
        char name[16];
        struct sockaddr_in address;
    } request = {"lo", {.sin_family = AF_INET}};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, "127.0.0.1", &request.address.sin_addr);
    if (fd >= 0 && ioctl(fd, 0x8916, &request) == 0) return gained("an address was set");
    return BLOCKED;
}

static int unix_to(const char *path, size_t length, const char *what) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (length >= sizeof address.sun_path) return 0;
    memcpy(address.sun_path, path, length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) != 0) {
        close(fd);
        return 0;
    }
    return holds_marker(fd, what);
}

static int abstract(void) {
    char name[120] = "";
    strcpy(name + 1, plan.abstract);
    /* The name ends with a zero or without. */
    size_t length = strlen(plan.abstract) + 1;
    return unix_to(name, length, "an abstract socket") || unix_to(name, length + 1, "an abstract socket") ? GAINED : BLOCKED;
}

static int abstract_listed(void) {
    FILE *list = fopen("/proc/net/unix", "re");
    char line[512], name[256];
    while (list && fgets(line, sizeof line, list)) {
        char *at = strchr(line, '@');
        if (!at || strlen(at) > 100) continue;
        at[strcspn(at, "\n")] = 0;
        memset(name, 0, sizeof name);
        strcpy(name + 1, at + 1);
        if (unix_to(name, strlen(at), at)) return GAINED;
    }
    return BLOCKED;
}

static int by_path(void) {
    static const char *const starts[] = {"", "/proc/1/root", "/proc/self/root/..", "/proc/..", "/proc/self/cwd/../../.."};
    for (int i = 0; i < 5; i++) {
        char path[300];
        snprintf(path, sizeof path, "%s%s", starts[i], plan.socket);
        if (unix_to(path, strlen(path) + 1, path)) return GAINED;
    }
    return BLOCKED;
}

static int shared_memory(void) {
    for (int id = 0; id < 4096; id++) {
        char *memory = shmat(id, NULL, SHM_RDONLY);
        if (memory != (void *)-1 && has_marker(memory, 4096)) return GAINED;
        struct shmid_ds status;
        int real = shmctl(id, SHM_STAT, &status);
        memory = real < 0 ? (void *)-1 : shmat(real, NULL, SHM_RDONLY);
        if (memory != (void *)-1 && has_marker(memory, 4096)) return GAINED;
    }
    return BLOCKED;
}

static int message_queues(void) {
    struct {
        long type;
        char text[256];
    } message;
    int queue = msgget(0x726f6164, 0);
    if (queue >= 0) {
        ssize_t length = msgrcv(queue, &message, sizeof message.text, 0, IPC_NOWAIT | MSG_NOERROR);
        if (length > 0 && has_marker(message.text, (size_t)length)) return GAINED;
        return gained("a queue of the outside");
    }
    if (syscall(SYS_mq_open, "roadstead-victim", O_RDWR, 0, NULL) >= 0) return gained("a POSIX queue of the outside");
    return BLOCKED;
}

const struct attempt network_attempts[] = {
    {"environment", environment},
    {"endpoint-connect", plain},
    {"endpoint-multipath", multipath},
    {"endpoint-fast-open", fast_open},
    {"endpoint-datagram", datagrams},
    {"endpoint-odd-address", odd_addresses},
    {"endpoint-as-another-user", somebody_else},
    {"endpoint-race", race},
    {"socket-packet", packets},
    {"socket-raw", raw},
    {"socket-families", other_families},
    {"network-settings", settings},
    {"socket-abstract", abstract},
    {"socket-abstract-listed", abstract_listed},
    {"socket-path", by_path},
    {"shared-memory", shared_memory},
    {"message-queues", message_queues},
    {0},
};
