/* A scripted model server: streams answers on three vendors' wires, on one core.
 *
 *   upstream PORT
 *
 * The model's name is the script, so that it passes through any gateway unchanged:
 *   bench-n<tokens>-d<ms between tokens>-t<ms before the first>
 * Every token is one event and one write(), as real servers do it. Its text is
 * "#<15 digits>#", the CLOCK_MONOTONIC nanoseconds of that write, by which the load program
 * on the same machine measures how long delivery took.
 */
#include "common.h"

#define MAX_EVENTS 512
#define REQUEST_SIZE 65536

struct wire {
    const char *path;   /* what the request line contains */
    const char *opening; /* sent with the response's head */
    const char *before, *after; /* an event, around the stamp */
    const char *closing;
};

#define CHAT_HEAD \
    "data: {\"id\":\"chatcmpl-A1b2C3d4E5f6G7h8I9j0K1l2M3n4O\",\"object\":\"chat.completion.chunk\"," \
    "\"created\":1790000000,\"model\":\"bench\",\"service_tier\":\"default\"," \
    "\"system_fingerprint\":\"fp_0123456789\",\"choices\":["

static const struct wire WIRES[] = {
    {"/chat/completions",
     CHAT_HEAD "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
               "\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
     CHAT_HEAD "{\"index\":0,\"delta\":{\"content\":\"",
     "\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"k3x9Qa\"}\n\n",
     CHAT_HEAD "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
               "\"usage\":null}\n\n" CHAT_HEAD
               "],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":256,\"total_tokens\":276}}"
               "\n\ndata: [DONE]\n\n"},
    {"/v1/messages",
     "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_01\","
     "\"type\":\"message\",\"role\":\"assistant\",\"content\":[],\"model\":\"bench\","
     "\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":20,"
     "\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":"
     "\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
     "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
     "\"delta\":{\"type\":\"text_delta\",\"text\":\"",
     "\"}}\n\n",
     "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
     "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
     "\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":256}}\n\n"
     "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"},
    {":streamGenerateContent", "",
     "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"",
     "\"}],\"role\": \"model\"},\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 20,"
     "\"candidatesTokenCount\": 12,\"totalTokenCount\": 32},\"modelVersion\": \"bench\","
     "\"responseId\": \"A1b2C3d4\"}\r\n\r\n",
     "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"\"}],\"role\": \"model\"},"
     "\"finishReason\": \"STOP\",\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 20,"
     "\"candidatesTokenCount\": 256,\"totalTokenCount\": 276},\"modelVersion\": \"bench\"}\r\n\r\n"},
};
#define WIRE_COUNT (sizeof WIRES / sizeof *WIRES)

/* A token's chunk without its stamp: made once, copied for each token. */
static struct {
    char head[1024], tail[512];
    size_t head_len, tail_len;
} shapes[WIRE_COUNT];

static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char MODELS[] = "{\"object\":\"list\",\"data\":[]}";

struct conn {
    int fd; /* -1: unused */
    char *in;
    size_t in_len;
    const struct wire *wire; /* NULL: no answer under way */
    int tokens, sent;
    uint64_t interval, due;
    size_t place; /* in `timed` or `ready`, by `paced` */
    enum { NOWHERE, TIMED, READY } queue;
    char *unsent; /* what the socket did not take yet */
    size_t unsent_len, unsent_off;
};

static struct conn conns[MAX_FILES];
static int poller;

/* Answers that wait for their time: a binary heap by `due`. Answers that are not paced:
 * a plain list, each of which writes one token a turn. */
static struct conn *timed[MAX_FILES], *ready[MAX_FILES];
static size_t timed_len, ready_len;

static void put(struct conn **queue, size_t place, struct conn *c) {
    queue[place] = c;
    c->place = place;
}

static void sift_up(size_t i) {
    struct conn *c = timed[i];
    for (; i > 0 && timed[(i - 1) / 2]->due > c->due; i = (i - 1) / 2)
        put(timed, i, timed[(i - 1) / 2]);
    put(timed, i, c);
}

static void sift_down(size_t i) {
    struct conn *c = timed[i];
    for (size_t child; (child = 2 * i + 1) < timed_len; i = child) {
        if (child + 1 < timed_len && timed[child + 1]->due < timed[child]->due)
            child++;
        if (timed[child]->due >= c->due)
            break;
        put(timed, i, timed[child]);
    }
    put(timed, i, c);
}

static void unqueue(struct conn *c) {
    if (c->queue == TIMED) {
        struct conn *last = timed[--timed_len];
        if (last != c) {
            put(timed, c->place, last);
            sift_up(last->place);
            sift_down(last->place);
        }
    } else if (c->queue == READY) {
        struct conn *last = ready[--ready_len];
        if (last != c)
            put(ready, c->place, last);
    }
    c->queue = NOWHERE;
}

static void enqueue(struct conn *c, int wait) {
    unqueue(c);
    if (wait) {
        c->queue = TIMED;
        put(timed, timed_len++, c);
        sift_up(c->place);
    } else {
        c->queue = READY;
        put(ready, ready_len++, c);
    }
}

static void watch(struct conn *c, int op, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(poller, op, c->fd, &e);
}

static void drop(struct conn *c) {
    unqueue(c);
    close(c->fd);
    free(c->unsent);
    c->unsent = NULL;
    c->wire = NULL;
    c->fd = -1;
}

/* 1: all of it is with the kernel. 0: the rest follows when the socket takes it, or the
 * connection is gone; in both cases it has left its queue. */
static int send_all(struct conn *c, const char *data, size_t len) {
    ssize_t n = write(c->fd, data, len);
    if (n == (ssize_t)len)
        return 1;
    if (n < 0 && errno != EAGAIN) {
        drop(c);
        return 0;
    }
    size_t taken = n < 0 ? 0 : (size_t)n;
    c->unsent_len = len - taken;
    c->unsent_off = 0;
    c->unsent = malloc(c->unsent_len);
    memcpy(c->unsent, data + taken, c->unsent_len);
    unqueue(c);
    watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    return 0;
}

static size_t chunk(char *to, const char *data) {
    return (size_t)sprintf(to, "%zx\r\n%s\r\n", strlen(data), data);
}

static void make_shapes(void) {
    for (size_t i = 0; i < WIRE_COUNT; i++) {
        size_t event = strlen(WIRES[i].before) + strlen(WIRES[i].after) + STAMP_DIGITS + 2;
        shapes[i].head_len =
            (size_t)sprintf(shapes[i].head, "%zx\r\n%s#", event, WIRES[i].before);
        shapes[i].tail_len = (size_t)sprintf(shapes[i].tail, "#%s\r\n", WIRES[i].after);
    }
}

static void take_requests(struct conn *c);

static void finish(struct conn *c) {
    char out[4096];
    size_t len = chunk(out, c->wire->closing);
    len += (size_t)sprintf(out + len, "0\r\n\r\n");
    unqueue(c);
    c->wire = NULL;
    if (send_all(c, out, len))
        take_requests(c);
}

static void write_token(struct conn *c) {
    char out[2048], *at = out;
    size_t wire = (size_t)(c->wire - WIRES);
    memcpy(at, shapes[wire].head, shapes[wire].head_len);
    at += shapes[wire].head_len;
    uint64_t stamp = now_ns();
    for (int i = STAMP_DIGITS; i-- > 0; stamp /= 10)
        at[i] = (char)('0' + stamp % 10);
    at += STAMP_DIGITS;
    memcpy(at, shapes[wire].tail, shapes[wire].tail_len);
    at += shapes[wire].tail_len;
    c->sent++;
    if (!send_all(c, out, (size_t)(at - out)))
        return;
    if (c->interval) {
        c->due += c->sent < c->tokens ? c->interval : 0;
        enqueue(c, 1);
    }
}

static void step(struct conn *c) {
    if (c->sent < c->tokens)
        write_token(c);
    else
        finish(c);
}

static void go_on(struct conn *c) {
    if (c->wire)
        enqueue(c, c->interval > 0);
    else
        take_requests(c);
}

static void begin(struct conn *c, const struct wire *wire, const char *request) {
    int tokens = 256, interval = 0, first = 0;
    const char *script = strstr(request, "bench-n");
    if (script)
        sscanf(script, "bench-n%d-d%d-t%d", &tokens, &interval, &first);
    c->wire = wire;
    c->tokens = tokens;
    c->sent = 0;
    c->interval = (uint64_t)interval * NS_PER_MS;
    c->due = now_ns() + (uint64_t)first * NS_PER_MS;
    char out[4096];
    size_t len = (size_t)sprintf(out, "%s", STREAM_HEAD);
    if (*wire->opening)
        len += chunk(out + len, wire->opening);
    if (send_all(c, out, len))
        enqueue(c, interval > 0 || first > 0);
}

static void answer(struct conn *c, const char *request) {
    const char *line_end = strstr(request, "\r\n");
    for (size_t i = 0; i < WIRE_COUNT; i++) {
        const char *at = strstr(request, WIRES[i].path);
        if (!strncmp(request, "POST ", 5) && at && at < line_end) {
            begin(c, &WIRES[i], request);
            return;
        }
    }
    char out[256];
    int len = sprintf(out,
                      "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                      strncmp(request, "GET ", 4) ? "404 Not Found" : "200 OK", strlen(MODELS), MODELS);
    send_all(c, out, (size_t)len);
}

/* The length of the request at the front of `in`, 0 while it is not all there. */
static size_t whole_request(struct conn *c) {
    c->in[c->in_len] = 0;
    char *body = strstr(c->in, "\r\n\r\n");
    if (!body)
        return 0;
    body += 4;
    char *length = strcasestr(c->in, "\r\ncontent-length:");
    char *coding = strcasestr(c->in, "\r\ntransfer-encoding: chunked");
    if (coding && coding < body) {
        char *end = strstr(body - 2, "\r\n0\r\n\r\n");
        return end ? (size_t)(end + 7 - c->in) : 0;
    }
    size_t total = (size_t)(body - c->in);
    if (length && length < body)
        total += strtoul(length + 17, NULL, 10);
    return c->in_len >= total ? total : 0;
}

static void take_requests(struct conn *c) {
    size_t len;
    while (c->fd >= 0 && !c->wire && !c->unsent && c->in_len && (len = whole_request(c))) {
        char kept = c->in[len];
        c->in[len] = 0;
        answer(c, c->in);
        c->in[len] = kept;
        c->in_len -= len;
        memmove(c->in, c->in + len, c->in_len);
    }
}

static void readable(struct conn *c) {
    ssize_t n = read(c->fd, c->in + c->in_len, REQUEST_SIZE - c->in_len);
    if (n > 0) {
        c->in_len += (size_t)n;
        take_requests(c);
    } else if (n == 0 || errno != EAGAIN) {
        drop(c);
    }
}

static void writable(struct conn *c) {
    ssize_t n = write(c->fd, c->unsent + c->unsent_off, c->unsent_len - c->unsent_off);
    if (n < 0 && errno != EAGAIN) {
        drop(c);
        return;
    }
    c->unsent_off += n < 0 ? 0 : (size_t)n;
    if (c->unsent_off < c->unsent_len)
        return;
    free(c->unsent);
    c->unsent = NULL;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
    go_on(c);
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FILES) {
            close(fd);
            continue;
        }
        struct conn *c = &conns[fd];
        char *buffer = c->in ? c->in : malloc(REQUEST_SIZE + 1);
        *c = (struct conn){.fd = fd, .in = buffer};
        set_nodelay(fd);
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in at = loopback(port);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4096))
        die("cannot listen");
    return fd;
}

static int wait_for_events(struct epoll_event *events) {
    struct timespec none = {0}, until, *timeout = NULL;
    if (ready_len)
        timeout = &none;
    else if (timed_len) {
        until = until_ns(timed[0]->due, now_ns());
        timeout = &until;
    }
    return epoll_pwait2(poller, events, MAX_EVENTS, timeout, NULL);
}

static void step_due(void) {
    uint64_t now = now_ns();
    while (timed_len && timed[0]->due <= now) {
        struct conn *c = timed[0];
        if (c->interval)
            step(c);
        else
            enqueue(c, 0); /* its first token was due; the others do not wait */
    }
    for (size_t i = ready_len; i-- > 0;)
        if (i < ready_len)
            step(ready[i]);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: upstream PORT\n");
        return 2;
    }
    prepare_process();
    make_shapes();
    poller = epoll_create1(0);
    int listener = listen_on(atoi(argv[1]));
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, events[MAX_EVENTS];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
    for (size_t i = 0; i < MAX_FILES; i++)
        conns[i].fd = -1;
    for (;;) {
        int n = wait_for_events(events);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener);
                continue;
            }
            if (c->fd >= 0 && c->unsent && events[i].events & EPOLLOUT)
                writable(c);
            if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                readable(c);
        }
        step_due();
    }
}
