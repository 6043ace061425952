/* A load of streams: N connections that each ask for a stream, again and again or once.
 *
 *   cc -O2 -o load load.c && ./load PORT KEY CONNECTIONS SECONDS MODEL WARM_SECONDS RAMP_SECONDS
 *
 * Connections are opened evenly over RAMP_SECONDS, so that what comes on them at a fixed pace is
 * spread evenly too, however fast a gateway opens streams.
 *
 * Prints one line of JSON: streams and events finished per second, and the lag of events, from the
 * time that the upstream wrote into each to the time it was read here, once WARM_SECONDS are over.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 65536, MAX_LAGS = 4000000 };
typedef struct { int fd; size_t size; char *in; } Client;

static char request[4096];
static size_t request_size;
static int64_t streams, events, errors, warm, *lags;
static size_t lag_count;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int ask(Client *c) {
    c->size = 0;
    return send(c->fd, request, request_size, MSG_NOSIGNAL) == (ssize_t)request_size ? 0 : -1;
}

/* Count what is whole in the buffer and keep the rest. 1: the stream is over. */
static int scan(Client *c) {
    int64_t now = now_ns();
    char *at = c->in, *end = c->in + c->size, *next;
    int over = 0;
    while ((next = memmem(at, end - at, "\n\n", 2))) {
        char *mark = memmem(at, next - at, "\"at=", 4);
        if (mark) {
            events++;
            if (now >= warm && lag_count < MAX_LAGS) lags[lag_count++] = now - strtoll(mark + 4, NULL, 10);
        } else if (memmem(at, next - at, "[DONE]", 6)) over = 1;
        else if (memmem(at, next - at, "\"error\"", 7)) errors++;
        at = next + 2;
    }
    if (over && !memmem(at, end - at, "0\r\n\r\n", 5)) return memmove(c->in, at - 20, c->size = end - at + 20), 0;
    memmove(c->in, at, c->size = end - at);
    return over;
}

static int compare(const void *a, const void *b) {
    int64_t x = *(int64_t *)a, y = *(int64_t *)b;
    return (x > y) - (x < y);
}

static int begin(Client *c, int poll_fd, struct sockaddr_in *address) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0), c->in = malloc(BUFFER);
    if (connect(c->fd, (void *)address, sizeof *address)) return perror("connect"), 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &wanted);
    return ask(c) ? perror("send"), 1 : 0;
}

int main(int argc, char **argv) {
    if (argc != 8) return fprintf(stderr, "usage: load PORT KEY CONNECTIONS SECONDS MODEL WARM RAMP\n"), 2;
    int count = atoi(argv[3]), opened = 0;
    double seconds = atof(argv[4]);
    char body[1024];
    int n = snprintf(body, sizeof body, "{\"model\":\"%s\",\"stream\":true,\"messages\":[{\"role\":"
        "\"user\",\"content\":\"Say something that is long enough to be streamed.\"}]}", argv[5]);
    request_size = snprintf(request, sizeof request, "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        "authorization: Bearer %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s",
        argv[2], n, body);
    lags = malloc(MAX_LAGS * sizeof *lags);
    Client *clients = calloc(count, sizeof *clients);
    int poll_fd = epoll_create1(0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int64_t start = now_ns(), stop = start + (int64_t)(seconds * 1e9);
    warm = start + (int64_t)(atof(argv[6]) * 1e9);
    struct epoll_event seen[512];
    int64_t ramp = (int64_t)(atof(argv[7]) * 1e9), now;
    while ((now = now_ns()) < stop) {
        for (; opened < count && start + ramp * opened / count <= now; opened++)
            if (begin(&clients[opened], poll_fd, &address)) return 1;
        int ready = epoll_wait(poll_fd, seen, 512, opened < count ? 1 : 10);
        for (int i = 0; i < ready; i++) {
            Client *c = seen[i].data.ptr;
            ssize_t got = recv(c->fd, c->in + c->size, BUFFER - c->size, MSG_DONTWAIT);
            if (got <= 0) {
                if (got < 0 && errno == EAGAIN) continue;
                errors++, epoll_ctl(poll_fd, EPOLL_CTL_DEL, c->fd, NULL);
                continue;
            }
            c->size += got;
            if (scan(c)) { streams++; if (ask(c)) errors++; }
        }
    }
    double took = (now_ns() - start) / 1e9;
    qsort(lags, lag_count, sizeof *lags, compare);
    double p50 = lag_count ? lags[lag_count / 2] / 1e6 : 0;
    double p99 = lag_count ? lags[(size_t)(lag_count * 0.99)] / 1e6 : 0;
    printf("{\"streams_per_s\": %.1f, \"events_per_s\": %.1f, \"lag_p50_ms\": %.3f, "
           "\"lag_p99_ms\": %.3f, \"errors\": %lld}\n", streams / took, events / took, p50, p99,
           (long long)errors);
    return 0;
}
