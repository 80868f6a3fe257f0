/* The receiving side of the load client: many WebSockets read by one thread, at the least cost that can be had, so that
 * the server is what is measured. Each message is checked. crowd.py loads it as a library. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 65536, BYTES = 65536, EVENTS = 512, ID = 64, CUT = 1006 };
enum state { OPEN, CONNECTING, UPGRADING, GREETED, REFUSED }; /* GREETED: 101 has come, welcome has not */

struct client {
    long next;            /* the offset that must come next */
    long asked, answered; /* round trips: the number of the request that is under way, and how many are to be made */
    unsigned char *rest;  /* of a frame that has come in part */
    size_t rest_bytes;
    enum state state;
    const char *request;                /* while it is not OPEN */
    long goal;                          /* it is complete when this offset comes next */
    int64_t begun_ns, welcomed_ns, complete_ns; /* of its dialling */
    int64_t again_ns;                   /* when one who was REFUSED comes again */
    int code;                           /* why it was closed; CUT without a close frame; 0 while it is open */
    long place, replies;                /* in what asks or pushes, and how many came */
};

static struct client clients[MOST];
static int poller = -1;
static long received, wrong, closed, last_bytes;
static int takes_resets; /* of those who come with cursor=last for the first time */
static long resets;
static long moves; /* whatever came that was waited for; a ping of an idle client is none */
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
void crowd_take_resets(void) { takes_resets = 1; }
long crowd_resets(void) { return resets; }
long crowd_received(void) { return received; }
long crowd_wrong(void) { return wrong; }
long crowd_closed(void) { return closed; }
long crowd_last_bytes(void) { return last_bytes; }
const char *crowd_first_wrong(void) { return first_wrong; }

static void complain(const unsigned char *text, size_t length, long wanted) {
    if (!wrong++) snprintf(first_wrong, sizeof first_wrong, "%.*s instead of %ld", (int)(length < 80 ? length : 80), text, wanted);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void say(int fd, unsigned char opcode, const unsigned char *text, size_t length) {
    static unsigned char frame[BYTES + 8];
    size_t at = 2;
    frame[0] = (unsigned char)(0x80 | opcode);
    frame[1] = (unsigned char)(0x80 | (length < 126 ? length : 126));
    if (length >= 126) {
        frame[at++] = (unsigned char)(length >> 8);
        frame[at++] = (unsigned char)length;
    }
    memcpy(frame + at, key, 4);
    at += 4;
    for (size_t i = 0; i < length; i++) frame[at + i] = text[i] ^ key[i & 3];
    if (send(fd, frame, length + at, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)(length + at)) closed++;
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

/* Questions: so many in flight in all, spread over clients in turn; how long each took. */
enum kind { HEARTBEAT, PING, CALL };
static struct {
    enum kind kind;
    const int *fds;
    long count, total, asked, answered;
    int bytes;            /* of a call's data */
    int64_t *sent, *took; /* ns by number; took is -1 until the answer */
} asking;

/* A call's data: a JSON string that begins with its number. */
static int data_of(char *text, long number) {
    int length = sprintf(text, "\"%010ld", number);
    memset(text + length, 'x', (size_t)(asking.bytes - length - 1));
    text[asking.bytes - 1] = '"';
    return asking.bytes;
}

static void ask_next(void) {
    static char text[BYTES];
    if (asking.asked == asking.total) return;
    long number = asking.asked++;
    int length = 0;
    if (asking.kind == HEARTBEAT) length = sprintf(text, "ping");
    if (asking.kind == PING) length = sprintf(text, "{\"type\":\"ping\",\"id\":%ld}", number);
    if (asking.kind == CALL) {
        length = sprintf(text, "{\"type\":\"call\",\"id\":%ld,\"method\":\"echo\",\"data\":", number);
        length += data_of(text + length, number);
        text[length++] = '}';
    }
    asking.sent[number] = now_ns();
    say(asking.fds[number % asking.count], 1, (unsigned char *)text, (size_t)length);
}

/* The number of the question that this answers; -1 if it answers none of this client's. */
static long answered_by(struct client *client, const unsigned char *text, size_t length) {
    static char wanted[BYTES];
    int size;
    if (asking.kind == HEARTBEAT) /* they have no numbers: the oldest one's */
        return length == 4 && !memcmp(text, "pong", 4) ? client->place + asking.count * client->replies : -1;
    const char *head = asking.kind == PING ? "{\"type\":\"pong\",\"id\":" : "{\"type\":\"reply\",\"id\":";
    size_t at = strlen(head);
    if (length <= at || memcmp(text, head, at)) return -1;
    long number = strtol((const char *)text + at, NULL, 10);
    if (number % asking.count != client->place) return -1;
    if (asking.kind == PING) return number;
    size = sprintf(wanted, "%s%ld,\"status\":200,\"data\":", head, number);
    size += data_of(wanted + size, number);
    wanted[size++] = '}';
    return length == (size_t)size && !memcmp(text, wanted, length) ? number : -1;
}

static void on_reply(int fd, const unsigned char *text, size_t length) {
    struct client *client = clients + fd;
    long number = answered_by(client, text, length);
    if (number < 0 || number >= asking.asked || asking.took[number] >= 0) {
        complain(text, length, client->place + asking.count * client->replies);
        return;
    }
    client->replies++;
    asking.took[number] = now_ns() - asking.sent[number];
    asking.answered++;
    received++;
    ask_next();
}

/* Pushes: when each was due, and how long each of its deliveries took from then on. */
static struct {
    long first, turns, batch, audience; /* first offset; clients in turn; messages and deliveries of each push */
    long total, begun, delivered, accepted;
    int64_t *due, *took;
} pushing;

static void on_delivery(struct client *client, long offset) {
    long number = (offset - pushing.first) / pushing.batch * pushing.turns + (pushing.turns > 1 ? client->place : 0);
    if (number < 0 || number >= pushing.begun || pushing.delivered >= pushing.total * pushing.audience) {
        complain((const unsigned char *)"a message that nobody pushed", 28, offset);
        return;
    }
    pushing.took[pushing.delivered++] = now_ns() - pushing.due[number];
}

static void check_complete(struct client *client);

static int says(const unsigned char *text, size_t length, const char *beginning) {
    size_t size = strlen(beginning);
    return length >= size && !memcmp(text, beginning, size);
}

static void on_message(int fd, const unsigned char *text, size_t length) {
    static unsigned char last[BYTES]; /* all get the same: it is looked into once */
    static size_t last_length;
    static long last_offset;
    struct client *client = clients + fd;
    moves++;
    if (says(text, length, "{\"type\":\"moving\"")) return; /* of an edge that is reloaded: these clients wait for the close */
    if (client->answered) {
        on_answer(fd, text, length);
        return;
    }
    if (asking.total) {
        on_reply(fd, text, length);
        return;
    }
    if (client->state == GREETED) {
        if (!says(text, length, "{\"type\":\"welcome\"")) complain(text, length, 0);
        client->state = OPEN;
        client->welcomed_ns = now_ns();
        check_complete(client);
        return;
    }
    if (length > 14 && !memcmp(text, "{\"type\":\"gap\",", 14) && takes_resets && memmem(text, length, "\"reset\"", 7)) {
        resets++;
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
    if (pushing.total) on_delivery(client, last_offset);
    if (!client->complete_ns) check_complete(client);
}

/* Dialling: clients that connect, so many under way at once. */
static struct {
    const int *fds;
    const char *const *requests;
    const char *accept;
    struct sockaddr_in address;
    long count, begun, complete, failed;
    int patient;          /* who is refused or cut off before it is in comes again, as it is told */
    long away;            /* who will */
    long refused[600];    /* by status; 0: cut off */
} dialling;

static void come_again(int fd, int status, double after_s) {
    struct client *client = clients + fd;
    double spread = 1 + (double)rand() / RAND_MAX / 2; /* docs/protocol.md, Coming back */
    epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
    client->state = REFUSED;
    client->again_ns = now_ns() + (int64_t)(after_s * spread * 1e9);
    free(client->rest);
    client->rest = NULL, client->rest_bytes = 0;
    dialling.refused[status]++;
    dialling.away++;
    moves++;
}

static void leave(int fd, int code) {
    enum state state = clients[fd].state;
    if (dialling.patient && (state == CONNECTING || state == UPGRADING)) {
        come_again(fd, 0, 0.5);
        return;
    }
    closed++;
    moves++;
    if (!clients[fd].complete_ns) dialling.failed++;
    clients[fd].code = code;
    epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
}

static void dial_next(void) {
    if (dialling.begun == dialling.count) return;
    int fd = dialling.fds[dialling.begun];
    struct epoll_event event = {.events = EPOLLOUT, .data.fd = fd};
    struct client *client = clients + fd;
    client->state = CONNECTING;
    client->request = dialling.requests[dialling.begun++];
    client->begun_ns = now_ns();
    client->complete_ns = 0;
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    if (connect(fd, (struct sockaddr *)&dialling.address, sizeof dialling.address) && errno != EINPROGRESS) leave(fd, CUT);
}

/* A new socket takes the place of the old one, and comes from the same address. */
static void dial_again(int fd) {
    struct epoll_event event = {.events = EPOLLOUT, .data.fd = fd};
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    int on = 1, fresh = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    dialling.away--;
    getsockname(fd, (struct sockaddr *)&from, &size);
    from.sin_port = 0;
    setsockopt(fresh, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (fresh < 0 || bind(fresh, (struct sockaddr *)&from, sizeof from) || dup3(fresh, fd, O_CLOEXEC) < 0) {
        complain((const unsigned char *)"no socket to come again", 23, fd);
        return;
    }
    close(fresh);
    clients[fd].state = CONNECTING;
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    if (connect(fd, (struct sockaddr *)&dialling.address, sizeof dialling.address) && errno != EINPROGRESS) leave(fd, CUT);
}

static void dial_those_due(void) {
    int64_t now = now_ns();
    for (long i = 0; i < dialling.begun; i++)
        if (clients[dialling.fds[i]].state == REFUSED && clients[dialling.fds[i]].again_ns <= now) dial_again(dialling.fds[i]);
}

static void on_connected(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    struct client *client = clients + fd;
    size_t length = strlen(client->request);
    if (send(fd, client->request, length, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)length) {
        leave(fd, CUT);
        return;
    }
    client->state = UPGRADING;
    epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event);
}

/* How long the head of the answer is; 0 while it is not whole. */
static size_t upgrade(int fd, const unsigned char *data, size_t length) {
    const unsigned char *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t head = (size_t)(end - data) + 4;
    const char *again = strcasestr((const char *)data, "\r\nretry-after:");
    if (dialling.patient && again && memcmp(data, "HTTP/1.1 101", 12)) {
        come_again(fd, (int)strtol((const char *)data + 9, NULL, 10) % 600, strtod(again + 14, NULL));
        return length;
    }
    if (memcmp(data, "HTTP/1.1 101", 12) || !memmem(data, head, dialling.accept, strlen(dialling.accept))) {
        complain(data, head, 101);
        leave(fd, CUT);
        return length;
    }
    clients[fd].state = GREETED;
    return head;
}

static void check_complete(struct client *client) {
    if (client->state != OPEN || client->next < client->goal) return;
    client->complete_ns = now_ns();
    dialling.complete++;
    dial_next();
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
            leave(fd, size < 2 ? 1005 : text[0] << 8 | text[1]);
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
        leave(fd, CUT);
        return;
    }
    size_t length = rest + (size_t)got, taken = 0;
    buffer[length] = 0;
    if (client->state == UPGRADING) taken = upgrade(fd, buffer, length);
    if (client->state == REFUSED) return;
    if (client->state != UPGRADING) taken += take(fd, buffer + taken, length - taken);
    client->rest_bytes = length - taken;
    if (client->rest_bytes) {
        client->rest = realloc(client->rest, client->rest_bytes);
        memcpy(client->rest, buffer + taken, client->rest_bytes);
    } else if (client->rest) {
        free(client->rest);
        client->rest = NULL;
    }
}

/* The publisher: one HTTP connection, while it pushes. Its answers are counted; one that is no 2xx is wrong. */
static int publisher = -1;
static size_t answer_bytes; /* of one that has come in part */

static void on_accepted(void) {
    static unsigned char buffer[BYTES + 1];
    ssize_t got = recv(publisher, buffer + answer_bytes, BYTES - answer_bytes, MSG_DONTWAIT);
    if (got <= 0) {
        complain((const unsigned char *)"the publisher was cut off", 25, 0);
        epoll_ctl(poller, EPOLL_CTL_DEL, publisher, NULL);
        return;
    }
    answer_bytes += (size_t)got;
    for (;;) {
        buffer[answer_bytes] = 0;
        unsigned char *end = memmem(buffer, answer_bytes, "\r\n\r\n", 4);
        char *size = end ? strcasestr((char *)buffer, "\r\ncontent-length:") : NULL;
        if (!end || !size) return;
        size_t whole = (size_t)(end - buffer) + 4 + strtoul(size + 17, NULL, 10);
        if (answer_bytes < whole) return;
        if (memcmp(buffer, "HTTP/1.1 20", 11)) complain(buffer, whole, 202);
        pushing.accepted++;
        moves++;
        answer_bytes -= whole;
        memmove(buffer, buffer + whole, answer_bytes);
    }
}

/* One turn: waits for something to read, at most so long. 0: nothing came. */
static int turn(int64_t wait_ns) {
    struct epoll_event events[EVENTS];
    struct timespec wait = {wait_ns / 1000000000, wait_ns % 1000000000};
    int ready = epoll_pwait2(poller, events, EVENTS, &wait, NULL);
    for (int i = 0; i < ready; i++) {
        int fd = events[i].data.fd;
        if (fd == publisher) on_accepted();
        else if (clients[fd].state == CONNECTING) on_connected(fd);
        else on_readable(fd);
    }
    return ready > 0;
}

/* 0 when for so long nothing came but pings. */
static int wait_for_more(int wait_ms) {
    long before = moves;
    int64_t until = now_ns() + wait_ms * 1000000LL, left;
    while (moves == before) {
        if ((left = until - now_ns()) <= 0) return 0;
        turn(left);
    }
    return 1;
}

/* Reads until so many messages have come in all, or for so long nothing has. */
void crowd_collect(long target, int wait_ms) {
    do {
        if (!(received < target ? wait_for_more(wait_ms) : turn(0))) return;
    } while (received < target || !target);
}

/* Reads whatever comes within this time. */
void crowd_listen(int for_ms) {
    int64_t until = now_ns() + for_ms * 1000000LL, left;
    while ((left = until - now_ns()) > 0) turn(left);
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

/* These clients connect to this port of 127.0.0.1, ``at_once`` under way, until each has its welcome and all up to
 * before its goal. ``patient``: who is refused comes again when it is told to. Returns how many have. */
long crowd_dial(const int *fds, const char *const *requests, long count, const long *next, const long *goals, long at_once,
                int port, const char *accept, int patient, int wait_ms) {
    if (poller < 0) poller = epoll_create1(0);
    dialling.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    dialling.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    dialling.fds = fds, dialling.requests = requests, dialling.accept = accept;
    dialling.count = count, dialling.begun = dialling.complete = dialling.failed = dialling.away = 0;
    dialling.patient = patient;
    memset(dialling.refused, 0, sizeof dialling.refused);
    for (long i = 0; i < count; i++) {
        if (fds[i] >= MOST) return -1;
        clients[fds[i]] = (struct client){.next = next[i], .goal = goals[i]};
    }
    while (dialling.begun < at_once && dialling.begun < count) dial_next();
    while (dialling.complete < count && !dialling.failed && !wrong) {
        if (!dialling.away) {
            if (!wait_for_more(wait_ms)) break;
            continue;
        }
        dial_those_due();
        turn(5000000);
    }
    dialling.patient = 0;
    return dialling.complete;
}

long crowd_refused(int status) { return dialling.refused[status]; }
int64_t crowd_welcomed_ns(int fd) { return clients[fd].welcomed_ns; }

int64_t crowd_begun_ns(int fd) { return clients[fd].begun_ns; }
int64_t crowd_complete_ns(int fd) { return clients[fd].complete_ns; }
int crowd_code(int fd) { return clients[fd].code; }

/* It is not read from any more; its socket may be closed. */
void crowd_drop(int fd) {
    if (!clients[fd].code) epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
    else closed--;
    free(clients[fd].rest);
    clients[fd] = (struct client){0};
}

/* It stops reading, or goes on. */
void crowd_mute(int fd, int muted) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poller, muted ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, fd, &event);
}

/* ``total`` questions, ``in_flight`` at a time, spread over these clients in turn. Returns how many were answered. */
long crowd_ask(const int *fds, long count, long total, long in_flight, int kind, int bytes, int64_t *sent, int64_t *took,
               int wait_ms) {
    for (long i = 0; i < count; i++) clients[fds[i]].place = i, clients[fds[i]].replies = 0;
    for (long i = 0; i < total; i++) took[i] = -1;
    asking.kind = (enum kind)kind, asking.fds = fds, asking.count = count, asking.total = total;
    asking.asked = asking.answered = 0;
    asking.bytes = bytes, asking.sent = sent, asking.took = took;
    while (asking.asked < in_flight && asking.asked < total) ask_next();
    while (asking.answered < total && !wrong && wait_for_more(wait_ms)) {}
    turn(0); /* what is too much */
    asking.total = 0;
    return asking.answered;
}

/* Sends each request over the publisher's connection: each when it is due (``every_ns`` apart), or, without an interval,
 * when all of the one before has arrived. ``turns``: clients in turn, each its own stream; 1: all get each. A request has
 * ``batch`` messages and makes ``audience`` deliveries, for all of which ``took`` has room. Returns how many came, -1 where a
 * push was not accepted. */
long crowd_push(int fd, const char *const *requests, long count, int64_t every_ns, const int *fds, long members, long turns,
                long batch, long audience, long first, int64_t *due, int64_t *took, int wait_ms) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    publisher = fd, answer_bytes = 0;
    for (long i = 0; i < members; i++) clients[fds[i]].place = i;
    pushing.first = first, pushing.turns = turns, pushing.batch = batch, pushing.audience = audience;
    pushing.total = count;
    pushing.begun = pushing.delivered = pushing.accepted = 0;
    pushing.due = due, pushing.took = took;
    int64_t began = now_ns();
    for (;;) {
        int64_t now = now_ns();
        int arrived = pushing.delivered >= pushing.begun * audience && pushing.accepted >= pushing.begun;
        if (pushing.begun < count && (every_ns ? now >= began + pushing.begun * every_ns : arrived)) {
            const char *request = requests[pushing.begun];
            size_t length = strlen(request);
            due[pushing.begun] = every_ns ? began + pushing.begun * every_ns : now;
            pushing.begun++;
            if (send(fd, request, length, MSG_NOSIGNAL) != (ssize_t)length) break;
            continue;
        }
        if (wrong || (pushing.begun == count && arrived)) break;
        if (every_ns && pushing.begun < count) turn(began + pushing.begun * every_ns - now);
        else if (!wait_for_more(wait_ms)) break;
    }
    turn(0); /* what is too much */
    epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
    publisher = -1;
    long delivered = pushing.accepted == count ? pushing.delivered : -1;
    pushing.total = 0;
    return delivered;
}
