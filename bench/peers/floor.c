/* The least that a WebSocket server can do: accept, answer the handshake, one send() for each socket. It is the floor
 * that others are compared with, and no server: what does not arrive in one piece ends it.
 *
 * usage: floor PORT CONTROL_PORT
 * A client's frame comes back to it. What comes on the control port, each with its length in four bytes before it, goes
 * to all clients as one text message. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { NOBODY, LISTENER, CONTROL_LISTENER, CONTROL, KNOCKING, CLIENT };
enum { MOST = 65536, BYTES = 65536, EVENTS = 512 };

static unsigned char kind[MOST];
static int highest;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static uint32_t rol(uint32_t x, int n) { return x << n | x >> (32 - n); }

/* SHA-1 of less than 120 bytes (two blocks). */
static void sha1(const unsigned char *text, size_t length, unsigned char *out) {
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0}, w[80];
    unsigned char block[128] = {0};
    size_t blocks = length + 9 > 64 ? 2 : 1;
    memcpy(block, text, length);
    block[length] = 0x80;
    block[blocks * 64 - 2] = (unsigned char)(length * 8 >> 8);
    block[blocks * 64 - 1] = (unsigned char)(length * 8);
    for (size_t b = 0; b < blocks; b++) {
        for (int i = 0; i < 16; i++) {
            const unsigned char *p = block + b * 64 + i * 4;
            w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        }
        for (int i = 16; i < 80; i++) w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        uint32_t a = h[0], x = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 80; i++) {
            uint32_t f, k;
            if (i < 20) f = (x & c) | (~x & d), k = 0x5A827999;
            else if (i < 40) f = x ^ c ^ d, k = 0x6ED9EBA1;
            else if (i < 60) f = (x & c) | (x & d) | (c & d), k = 0x8F1BBCDC;
            else f = x ^ c ^ d, k = 0xCA62C1D6;
            uint32_t t = rol(a, 5) + f + e + k + w[i];
            e = d, d = c, c = rol(x, 30), x = a, a = t;
        }
        h[0] += a, h[1] += x, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++) out[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const unsigned char *bytes, char *out) { /* 20 bytes to 28 characters */
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 21; i += 3) {
        uint32_t n = (uint32_t)bytes[i] << 16 | (uint32_t)bytes[i + 1] << 8 | (i + 2 < 20 ? bytes[i + 2] : 0);
        for (int j = 0; j < 4; j++) *out++ = letters[n >> (18 - 6 * j) & 63];
    }
    strcpy(out - 1, "=");
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) die("listen");
    return fd;
}

static void watch(int poller, int fd, unsigned char what) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (fd >= MOST || epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) die("watch");
    kind[fd] = what;
    if (fd > highest) highest = fd;
}

static void forget(int fd) {
    kind[fd] = NOBODY;
    close(fd);
}

static void say(int fd, const unsigned char *bytes, size_t length) {
    if (send(fd, bytes, length, MSG_NOSIGNAL) != (ssize_t)length) forget(fd);
}

static void answer(int fd, char *request) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char key[128], reply[256];
    unsigned char digest[21] = {0};
    char *at = strcasestr(request, "\r\nSec-WebSocket-Key: ");
    if (!at || sscanf(at + 21, "%60s", key) != 1) {
        forget(fd);
        return;
    }
    strcat(key, guid);
    sha1((unsigned char *)key, strlen(key), digest);
    base64(digest, key);
    int length = snprintf(reply, sizeof reply,
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Accept: %s\r\n\r\n", key);
    kind[fd] = CLIENT;
    say(fd, (unsigned char *)reply, (size_t)length);
}

/* Whole masked frames of up to 125 bytes; each text goes back in a send of its own. */
static void echo(int fd, unsigned char *at, unsigned char *end) {
    while (at < end) {
        size_t length = at[1] & 127;
        unsigned char *mask = at + 2, *text = at + 6, *next = text + length;
        if (length > 125 || next > end) {
            fprintf(stderr, "a frame in pieces, or too long\n");
            exit(1);
        }
        if ((at[0] & 15) == 8) {
            forget(fd);
            return;
        }
        if ((at[0] & 15) == 1) {
            unsigned char frame[128] = {0x81, (unsigned char)length};
            for (size_t i = 0; i < length; i++) frame[2 + i] = text[i] ^ mask[i & 3];
            say(fd, frame, length + 2);
        }
        at = next;
    }
}

static void fan_out(unsigned char *text, size_t length) {
    static unsigned char frame[BYTES + 4];
    size_t header = length < 126 ? 2 : 4;
    frame[0] = 0x81;
    frame[1] = (unsigned char)(length < 126 ? length : 126);
    if (header == 4) frame[2] = (unsigned char)(length >> 8), frame[3] = (unsigned char)length;
    memcpy(frame + header, text, length);
    for (int fd = 0; fd <= highest; fd++)
        if (kind[fd] == CLIENT) say(fd, frame, header + length);
}

int main(int count, char **args) {
    static unsigned char buffer[BYTES + 1];
    struct epoll_event events[EVENTS];
    if (count != 3) return 2;
    int poller = epoll_create1(0), one = 1;
    watch(poller, listen_on(atoi(args[1])), LISTENER);
    watch(poller, listen_on(atoi(args[2])), CONTROL_LISTENER);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (kind[fd] == LISTENER || kind[fd] == CONTROL_LISTENER) {
                int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
                if (peer < 0) die("accept");
                setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                watch(poller, peer, kind[fd] == LISTENER ? KNOCKING : CONTROL);
                continue;
            }
            ssize_t length = recv(fd, buffer, BYTES, 0);
            if (length <= 0) {
                forget(fd);
                continue;
            }
            buffer[length] = 0;
            if (kind[fd] == KNOCKING) answer(fd, (char *)buffer);
            else if (kind[fd] == CLIENT) echo(fd, buffer, buffer + length);
            else
                for (ssize_t at = 0; at + 4 <= length;) {
                    size_t size = (size_t)buffer[at + 2] << 8 | buffer[at + 3];
                    fan_out(buffer + at + 4, size);
                    at += 4 + (ssize_t)size;
                }
        }
    }
}
