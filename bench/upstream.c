/* A provider for benchmarks: one thread, epoll, HTTP/1.1 with keep-alive.
 *
 * A request whose body says "stream":true gets a stream, any other one completion. The model's name
 * says how the stream runs: "burst60" is 60 events in one write, "paced60x20" is 60 events 20 ms
 * apart. Each event's content is the monotonic time it was sent at, for measuring lag. A stream asked
 * for at /v1/messages has the events of Anthropic's interface.
 *
 *   cc -O2 -o upstream upstream.c && ./upstream PORT
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

enum { MAX_FDS = 65536, BUFFER = 65536 };

typedef struct {
    char *in;
    size_t size, capacity;
    int left, gap_ms, active_at, messages;
    int64_t due;
} Client;

static Client clients[MAX_FDS];
static int active[MAX_FDS], actives;
static int poll_fd;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void drop(int fd) {
    Client *c = &clients[fd];
    if (c->left) {
        active[c->active_at] = active[--actives];
        clients[active[c->active_at]].active_at = c->active_at;
    }
    free(c->in);
    memset(c, 0, sizeof *c);
    close(fd);
}

static int put(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) { usleep(50); continue; }
        if (sent <= 0) return -1;
        data += sent, size -= sent;
    }
    return 0;
}

static size_t frame(char *out, const char *body, int size) {
    return sprintf(out, "%x\r\n%s\r\n", size, body);
}

static const char MESSAGE_START[] =
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":"
    "\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"stop_reason\":null,"
    "\"stop_sequence\":null,\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n"
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
    "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
static const char MESSAGE_STOP[] =
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\","
    "\"stop_sequence\":null},\"usage\":{\"output_tokens\":60}}\n\n"
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

static size_t message_event(char *out, int last) {
    char body[1024];
    int n = snprintf(body, sizeof body,
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":"
        "{\"type\":\"text_delta\",\"text\":\"at=%lld \"}}\n\n%s",
        (long long)now_ns(), last ? MESSAGE_STOP : "");
    return frame(out, body, n);
}

static size_t event(char *out, int last, int messages) {
    char body[512];
    if (messages) return message_event(out, last);
    int n = snprintf(body, sizeof body,
        "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1735689600,"
        "\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"at=%lld \"},"
        "\"finish_reason\":%s}]}\n\n",
        (long long)now_ns(), last ? "\"stop\"" : "null");
    return frame(out, body, n);
}

static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
static const char STREAM_TAIL[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", LAST_CHUNK[] = "0\r\n\r\n";

static size_t tail(char *out, int messages) {
    return sprintf(out, "%s", messages ? LAST_CHUNK : STREAM_TAIL);
}

static int step(int fd) {
    char out[2048];
    Client *c = &clients[fd];
    size_t n = event(out, c->left == 1, c->messages);
    c->left--, c->due += c->gap_ms * 1000000LL;
    if (!c->left) {
        active[c->active_at] = active[--actives];
        clients[active[c->active_at]].active_at = c->active_at;
        n += tail(out + n, c->messages);
    }
    return put(fd, out, n);
}

static int answer(int fd, int messages, const char *body, size_t size) {
    static char out[1 << 20];
    static const char completion[] =
        "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1735689600,\"model\":\"m\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello there, how "
        "can I help you today?\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":9,\"total_tokens\":18}}";
    const char *stream = memmem(body, size, "\"stream\":", 9);
    if (!stream || !memmem(stream, 14, "true", 4)) {
        int n = sprintf(out, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                             "content-length: %zu\r\n\r\n%s", sizeof completion - 1, completion);
        return put(fd, out, n);
    }
    int events = 60, gap = 0;
    const char *mark;
    if ((mark = memmem(body, size, "burst", 5))) sscanf(mark, "burst%d", &events);
    if ((mark = memmem(body, size, "paced", 5))) sscanf(mark, "paced%dx%d", &events, &gap);
    size_t n = sizeof STREAM_HEAD - 1;
    memcpy(out, STREAM_HEAD, n);
    if (messages) n += frame(out + n, MESSAGE_START, sizeof MESSAGE_START - 1);
    if (gap) {
        Client *c = &clients[fd];
        c->left = events, c->gap_ms = gap, c->due = now_ns(), c->messages = messages;
        c->active_at = actives, active[actives++] = fd;
        return put(fd, out, n);
    }
    for (int i = 0; i < events; i++) n += event(out + n, i == events - 1, messages);
    return put(fd, out, n + tail(out + n, messages));
}

static int take(int fd) {
    Client *c = &clients[fd];
    if (!c->in) c->in = malloc(c->capacity = BUFFER);
    for (;;) {
        if (c->size == c->capacity) c->in = realloc(c->in, c->capacity *= 2);
        ssize_t got = recv(fd, c->in + c->size, c->capacity - c->size, 0);
        if (got == 0) return -1;
        if (got < 0) { if (errno == EAGAIN) break; return -1; }
        c->size += got;
    }
    for (;;) {
        char *end = memmem(c->in, c->size, "\r\n\r\n", 4);
        if (!end) return 0;
        size_t head = end - c->in + 4, length = 0;
        *end = 0;
        char *field = strcasestr(c->in, "\ncontent-length:");
        *end = '\r';
        if (field) length = strtoul(field + 16, NULL, 10);
        if (c->size < head + length) return 0;
        int messages = !strncmp(c->in, "POST /v1/messages", 17);
        if (answer(fd, messages, c->in + head, length)) return -1;
        memmove(c->in, c->in + head + length, c->size -= head + length);
    }
}

int main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 9900, one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) return perror("bind"), 1;
    poll_fd = epoll_create1(0);
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listener}, seen[512];
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &wanted);
    for (;;) {
        int count = epoll_wait(poll_fd, seen, 512, actives ? 1 : 1000);
        for (int i = 0; i < count; i++) {
            int fd = seen[i].data.fd;
            if (fd != listener) { if (take(fd)) drop(fd); continue; }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                wanted.data.fd = fd;
                epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &wanted);
            }
        }
        int64_t now = now_ns();
        for (int i = actives - 1; i >= 0; i--) {
            int fd = active[i];
            if (clients[fd].due <= now && step(fd)) drop(fd);
        }
    }
}
