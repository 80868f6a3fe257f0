/* The receiving side of the load client: many WebSockets read by one thread, at the least cost that can be had, so that
 * the server is what is measured. Each message is checked. crowd.py loads it as a library. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

enum { MOST = 65536, BYTES = 65536, EVENTS = 512, ID = 64 };

struct client {
    long next;            /* the offset that must come next */
    long asked, answered; /* round trips: the number of the request that is under way, and how many are to be made */
    unsigned char *rest;  /* of a frame that has come in part */
    size_t rest_bytes;
};

static struct client clients[MOST];
static int poller = -1;
static long received, wrong, closed, last_bytes;
static char first_wrong[200];
static const unsigned char key[4] = {0x12, 0x34, 0x56, 0x78};

int crowd_add(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (poller < 0) poller = epoll_create1(0);
    if (fd >= MOST) return -1;
    clients[fd] = (struct client){.next = 1};
    return epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

long crowd_next(int fd) { return clients[fd].next; }
long crowd_received(void) { return received; }
long crowd_wrong(void) { return wrong; }
long crowd_closed(void) { return closed; }
long crowd_last_bytes(void) { return last_bytes; }
const char *crowd_first_wrong(void) { return first_wrong; }

static void complain(const unsigned char *text, size_t length, long wanted) {
    if (!wrong++) snprintf(first_wrong, sizeof first_wrong, "%.*s instead of %ld", (int)(length < 80 ? length : 80), text, wanted);
}

static void say(int fd, unsigned char opcode, const unsigned char *text, size_t length) {
    unsigned char frame[140] = {(unsigned char)(0x80 | opcode), (unsigned char)(0x80 | length), key[0], key[1], key[2], key[3]};
    for (size_t i = 0; i < length; i++) frame[6 + i] = text[i] ^ key[i & 3];
    if (send(fd, frame, length + 6, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)(length + 6)) closed++;
}

static void ask(int fd) {
    char text[128];
    int length = snprintf(text, sizeof text, "{\"type\":\"ping\",\"id\":\"%0*ld\"}", ID, clients[fd].asked);
    say(fd, 1, (unsigned char *)text, (size_t)length);
}

static void on_answer(int fd, const unsigned char *text, size_t length) {
    struct client *client = clients + fd;
    static const size_t at = sizeof "{\"type\":\"ping\",\"id\":\"" - 1;
    char id[ID + 1] = "";
    if (length > at + ID) memcpy(id, text + at, ID);
    received++;
    if (strtol(id, NULL, 10) != client->asked || strlen(id) != ID) complain(text, length, client->asked);
    if (++client->asked < client->answered) ask(fd);
}

static void on_message(int fd, const unsigned char *text, size_t length) {
    static unsigned char last[BYTES]; /* all get the same: it is looked into once */
    static size_t last_length;
    static long last_offset;
    struct client *client = clients + fd;
    if (client->answered) {
        on_answer(fd, text, length);
        return;
    }
    if (length != last_length || memcmp(text, last, length)) {
        const unsigned char *found = memmem(text, length, "\"offset\":", 9);
        last_offset = found ? strtol((const char *)found + 9, NULL, 10) : 0;
        memcpy(last, text, length);
        last_length = length;
        last_bytes = (long)length;
    }
    if (last_offset != client->next) complain(text, length, client->next);
    client->next = last_offset + 1;
    received++;
}

static void leave(int fd) {
    closed++;
    epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
}

/* Whole frames; how many bytes they were. */
static size_t take(int fd, unsigned char *data, size_t length) {
    size_t at = 0;
    while (length - at >= 2) {
        size_t size = data[at + 1] & 127, header = 2;
        if (size == 126) {
            if (length - at < 4) break;
            size = (size_t)data[at + 2] << 8 | data[at + 3];
            header = 4;
        } else if (size == 127) {
            complain(data + at, 2, 0);
            return length;
        }
        if (length - at < header + size) break;
        unsigned char opcode = data[at] & 15, *text = data + at + header;
        if (opcode == 1) on_message(fd, text, size);
        else if (opcode == 9) say(fd, 10, text, size);
        else if (opcode == 8) {
            leave(fd);
            return length;
        }
        at += header + size;
    }
    return at;
}

static void on_readable(int fd) {
    static unsigned char buffer[2 * BYTES + 1];
    struct client *client = clients + fd;
    size_t rest = client->rest_bytes;
    if (rest) memcpy(buffer, client->rest, rest);
    ssize_t got = recv(fd, buffer + rest, BYTES, MSG_DONTWAIT);
    if (got <= 0) {
        leave(fd);
        return;
    }
    size_t length = rest + (size_t)got;
    buffer[length] = 0;
    size_t taken = take(fd, buffer, length);
    client->rest_bytes = length - taken;
    if (client->rest_bytes) {
        client->rest = realloc(client->rest, client->rest_bytes);
        memcpy(client->rest, buffer + taken, client->rest_bytes);
    } else if (client->rest) {
        free(client->rest);
        client->rest = NULL;
    }
}

/* Reads until so many messages have come in all, or for so long nothing has. */
void crowd_collect(long target, int wait_ms) {
    struct epoll_event events[EVENTS];
    do {
        int ready = epoll_wait(poller, events, EVENTS, received < target ? wait_ms : 0);
        if (ready <= 0) return;
        for (int i = 0; i < ready; i++) on_readable(events[i].data.fd);
    } while (received < target || !target);
}

/* Each of these clients asks so many times, the next when it has its answer. */
void crowd_echo(const int *fds, int count, long times, int wait_ms) {
    long target = received + count * times;
    for (int i = 0; i < count; i++) {
        clients[fds[i]].asked = 0;
        clients[fds[i]].answered = times;
        ask(fds[i]);
    }
    crowd_collect(target, wait_ms);
    crowd_collect(target, 0);
    for (int i = 0; i < count; i++) clients[fds[i]].answered = 0;
}
