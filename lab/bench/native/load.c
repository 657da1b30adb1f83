/* A load generator for streamed answers, over HTTP (SSE) or over the relay's WebSocket.
 *
 *   load -m sse|ws|idle -p PORT -u PATH -b BODY [-H "name: value"]... -n STREAMS
 *        -r RAMP_S -w WARM_S -d MEASURE_S -f FIRST_MS -e TOKENS
 *
 * Keeps STREAMS answers running at a time, each on a connection of its own that is used
 * again for the next one. "{id}" in BODY becomes a number that is new each time. A token's
 * text is the nanosecond at which the upstream wrote it ("#<15 digits>#"), so what is
 * measured is the whole way from the upstream's write to this program's read. `idle` opens
 * WebSockets, sends BODY once on each and then only listens.
 *
 * Prints "begin" when measuring begins, and one line of JSON when it ends.
 */
#include "common.h"

#define MAX_EVENTS 512
#define READ_SIZE (1 << 18)
#define HEAD_SIZE 8192
#define SEEN_SIZE 512
#define HISTOGRAM_US 4000000 /* one bin a microsecond, the last for everything beyond */
#define RETRY_NS (200 * NS_PER_MS)

enum mode { SSE, WS, IDLE };
enum state { CLOSED, HEAD, BODY, UPGRADE, FRAMES };
enum chunk_state { SIZE, SIZE_REST, DATA, DATA_END, TRAILER };

struct client {
    int fd;
    enum state state;
    uint64_t opens_at;
    /* the answer under way */
    uint64_t asked_at;
    unsigned tokens;
    int digits; /* how much of a stamp was read: 0 none, 1 the '#', 2.. digits */
    uint64_t stamp;
    /* HTTP */
    char head[HEAD_SIZE];
    size_t head_len;
    int chunked, closes;
    long left; /* of the body, where its length is known */
    enum chunk_state chunk;
    uint64_t chunk_left;
    int line_len; /* of the trailer line under way */
    /* WebSocket */
    unsigned char frame_head[14];
    size_t frame_head_len;
    uint64_t frame_left;
    int in_frame;
    char seen[SEEN_SIZE]; /* the front of the message, to know its type by */
    size_t seen_len;
};

struct histogram {
    uint32_t *bins;
    uint64_t count;
};

static struct {
    enum mode mode;
    int port, streams, expected;
    const char *path, *body;
    char headers[8192];
    double ramp, warm, measure, first_ms;
} conf = {.mode = SSE, .path = "/", .body = "", .streams = 1, .warm = 1, .measure = 5};

static struct client *clients;
static struct histogram delivery, first_token;
static uint64_t begins, ends, tokens, answers, failures, wrong_counts;
static int poller, reported, open_now;
static unsigned next_id;
static uint64_t read_at; /* when the bytes now being looked at were read */

static void count_in(struct histogram *h, uint64_t ns) {
    uint64_t us = ns / 1000;
    h->bins[us < HISTOGRAM_US ? us : HISTOGRAM_US - 1]++;
    h->count++;
}

static double quantile_ms(const struct histogram *h, double q) {
    uint64_t rank = (uint64_t)(q * (double)h->count), sum = 0;
    for (size_t i = 0; i < HISTOGRAM_US; i++)
        if ((sum += h->bins[i]) > rank)
            return (double)i / 1000.0;
    return -1;
}

static int measuring(uint64_t at) { return at >= begins && at < ends; }

static void complain(const char *what, const char *detail, size_t len) {
    failures++;
    if (reported++ < 3)
        fprintf(stderr, "%s: %.*s\n", what, (int)(len > 400 ? 400 : len), detail);
}

/* Requests */

static size_t fill_body(char *to, size_t room) {
    const char *at = strstr(conf.body, "{id}");
    if (!at)
        return (size_t)snprintf(to, room, "%s", conf.body);
    return (size_t)snprintf(to, room, "%.*sb%07u%s", (int)(at - conf.body), conf.body, next_id++,
                            at + 4);
}

static void send_bytes(struct client *c, const void *data, size_t len) {
    if (write(c->fd, data, len) != (ssize_t)len)
        complain("short write", "", 0);
}

static void send_frame(struct client *c, int opcode, const void *payload, size_t len) {
    unsigned char out[16384];
    size_t at = 0;
    out[at++] = (unsigned char)(0x80 | opcode);
    if (len < 126) {
        out[at++] = (unsigned char)(0x80 | len);
    } else {
        out[at++] = 0x80 | 126;
        out[at++] = (unsigned char)(len >> 8);
        out[at++] = (unsigned char)len;
    }
    memset(out + at, 0, 4); /* a mask of zeros: allowed, and nothing to compute */
    at += 4;
    memcpy(out + at, payload, len);
    send_bytes(c, out, at + len);
}

static void ask(struct client *c) {
    char body[8192], request[24576];
    size_t len = fill_body(body, sizeof body);
    c->asked_at = now_ns();
    c->tokens = 0;
    c->digits = 0;
    if (conf.mode != SSE) {
        send_frame(c, 1, body, len);
        return;
    }
    int n = snprintf(request, sizeof request,
                     "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                     "Accept: text/event-stream\r\n%sContent-Length: %zu\r\n\r\n%s",
                     conf.path, conf.port, conf.headers, len, body);
    c->state = HEAD;
    c->head_len = 0;
    send_bytes(c, request, (size_t)n);
}

static void open_client(struct client *c) {
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = loopback(conf.port);
    if (connect(c->fd, (struct sockaddr *)&at, sizeof at)) {
        complain("connect", strerror(errno), 80);
        close(c->fd);
        c->fd = -1;
        c->opens_at = now_ns() + RETRY_NS;
        return;
    }
    open_now++;
    set_nodelay(c->fd);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e);
    if (conf.mode == SSE) {
        ask(c);
        return;
    }
    char upgrade[9216];
    int n = snprintf(upgrade, sizeof upgrade,
                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n"
                     "Sec-WebSocket-Version: 13\r\n%s\r\n",
                     conf.path, conf.port, conf.headers);
    c->state = UPGRADE;
    c->head_len = 0;
    send_bytes(c, upgrade, (size_t)n);
}

static void close_client(struct client *c) {
    close(c->fd);
    open_now--;
    c->fd = -1;
    c->state = CLOSED;
    c->opens_at = now_ns() + RETRY_NS;
}

static void reopen(struct client *c) {
    close_client(c);
    open_client(c);
}

/* Answers */

static void token_seen(struct client *c, uint64_t stamp) {
    if (measuring(read_at)) {
        tokens++;
        count_in(&delivery, read_at > stamp ? read_at - stamp : 0);
    }
    if (!c->tokens++ && measuring(c->asked_at)) {
        double own = (double)(read_at - c->asked_at) - conf.first_ms * (double)NS_PER_MS;
        count_in(&first_token, own > 0 ? (uint64_t)own : 0);
    }
}

static void scan(struct client *c, const char *data, size_t len) {
    for (const char *end = data + len; data < end;) {
        if (!c->digits) {
            data = memchr(data, '#', (size_t)(end - data));
            if (!data)
                return;
            c->digits = 1;
            c->stamp = 0;
            data++;
            continue;
        }
        char ch = *data++;
        if (ch >= '0' && ch <= '9' && c->digits <= STAMP_DIGITS) {
            c->stamp = c->stamp * 10 + (uint64_t)(ch - '0');
            c->digits++;
        } else if (ch == '#' && c->digits == STAMP_DIGITS + 1) {
            token_seen(c, c->stamp);
            c->digits = 0;
        } else {
            c->digits = ch == '#';
            c->stamp = 0;
        }
    }
}

static void answered(struct client *c) {
    if (conf.expected && c->tokens != (unsigned)conf.expected)
        wrong_counts++;
    if (measuring(read_at))
        answers++;
    if (conf.mode == SSE && c->closes)
        reopen(c);
    else if (conf.mode != IDLE)
        ask(c);
}

/* HTTP: the head, then a body by chunks, by length or up to the end */

static void read_body(struct client *c, const char *data, size_t len) {
    if (!c->chunked) {
        scan(c, data, len);
        if (c->left >= 0 && (c->left -= (long)len) <= 0)
            answered(c);
        return;
    }
    for (const char *end = data + len; data < end;) {
        size_t n = (size_t)(end - data);
        switch (c->chunk) {
        case SIZE:
            if (*data == '\n') {
                c->chunk = c->chunk_left ? DATA : TRAILER;
                c->line_len = 0;
            } else if (*data == ';') {
                c->chunk = SIZE_REST;
            } else if (*data != '\r') {
                int digit = *data <= '9' ? *data - '0' : (*data | 32) - 'a' + 10;
                c->chunk_left = c->chunk_left * 16 + (uint64_t)digit;
            }
            data++;
            break;
        case SIZE_REST:
            if (*data++ == '\n')
                c->chunk = c->chunk_left ? DATA : TRAILER;
            break;
        case DATA:
            n = n < c->chunk_left ? n : c->chunk_left;
            scan(c, data, n);
            data += n;
            if (!(c->chunk_left -= n))
                c->chunk = DATA_END;
            break;
        case DATA_END:
            if (*data++ == '\n')
                c->chunk = SIZE;
            break;
        case TRAILER:
            if (*data == '\n' && !c->line_len) {
                c->chunk = SIZE;
                answered(c);
                return;
            }
            c->line_len = *data == '\n' ? 0 : c->line_len + (*data != '\r');
            data++;
            break;
        }
    }
}

/* The bytes behind a head once it is whole; NULL before. */
static const char *read_head(struct client *c, const char *data, size_t len, size_t *rest) {
    size_t room = HEAD_SIZE - 1 - c->head_len, had = c->head_len;
    size_t taken = len < room ? len : room;
    memcpy(c->head + had, data, taken);
    c->head_len += taken;
    c->head[c->head_len] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end)
        return NULL;
    size_t used = (size_t)(end + 4 - c->head) - had;
    *end = 0;
    *rest = len - used;
    return data + used;
}

static void read_http(struct client *c, const char *data, size_t len) {
    if (c->state == BODY) {
        read_body(c, data, len);
        return;
    }
    size_t rest;
    const char *body = read_head(c, data, len, &rest);
    if (!body)
        return;
    if (strncmp(c->head + 9, "200", 3)) {
        complain("HTTP", c->head, c->head_len);
        close_client(c);
        return;
    }
    const char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->chunked = strcasestr(c->head, "\r\ntransfer-encoding: chunked") != NULL;
    c->closes = strcasestr(c->head, "\r\nconnection: close") != NULL;
    c->left = length ? atol(length + 17) : -1;
    c->chunk = SIZE;
    c->chunk_left = 0;
    c->state = BODY;
    if (rest)
        read_body(c, body, rest);
}

/* WebSocket (RFC 6455): the server's frames are unmasked */

static void message_ended(struct client *c) {
    c->seen[c->seen_len] = 0;
    if (strstr(c->seen, "\"type\":\"done\"")) {
        answered(c);
    } else if (strstr(c->seen, "\"type\":\"error\"")) {
        complain("error frame", c->seen, c->seen_len);
        close_client(c);
    }
    c->seen_len = 0;
}

static void frame_ended(struct client *c) {
    int opcode = c->frame_head[0] & 15, final = c->frame_head[0] & 128;
    c->in_frame = 0;
    c->frame_head_len = 0;
    if (opcode == 9) {
        send_frame(c, 10, c->seen, c->seen_len < 126 ? c->seen_len : 0);
        c->seen_len = 0;
    } else if (opcode == 8) {
        complain("close frame", c->seen, c->seen_len);
        close_client(c);
    } else if (final) {
        message_ended(c);
    }
}

static int frame_head_is_whole(struct client *c) {
    const unsigned char *h = c->frame_head;
    if (c->frame_head_len < 2)
        return 0;
    int short_len = h[1] & 127, bytes = short_len == 126 ? 2 : short_len == 127 ? 8 : 0;
    if (c->frame_head_len < (size_t)(2 + bytes))
        return 0;
    c->frame_left = bytes ? 0 : (uint64_t)short_len;
    for (int i = 0; i < bytes; i++)
        c->frame_left = c->frame_left << 8 | h[2 + i];
    return 1;
}

static void read_frames(struct client *c, const char *data, size_t len) {
    while (len && c->state == FRAMES) {
        if (!c->in_frame) {
            c->frame_head[c->frame_head_len++] = (unsigned char)*data++;
            len--;
            if (!(c->in_frame = frame_head_is_whole(c)) || c->frame_left)
                continue;
        }
        size_t n = len < c->frame_left ? len : (size_t)c->frame_left;
        size_t keep = SEEN_SIZE - 1 - c->seen_len;
        memcpy(c->seen + c->seen_len, data, n < keep ? n : keep);
        c->seen_len += n < keep ? n : keep;
        if ((c->frame_head[0] & 15) < 8)
            scan(c, data, n);
        data += n;
        len -= n;
        if (!(c->frame_left -= n))
            frame_ended(c);
    }
}

static void read_upgrade(struct client *c, const char *data, size_t len) {
    size_t rest;
    const char *frames = read_head(c, data, len, &rest);
    if (!frames)
        return;
    if (strncmp(c->head + 9, "101", 3)) {
        complain("no upgrade", c->head, c->head_len);
        close_client(c);
        return;
    }
    c->state = FRAMES;
    c->in_frame = 0;
    c->frame_head_len = c->seen_len = 0;
    ask(c);
    if (rest)
        read_frames(c, frames, rest);
}

/* The loop */

static void lost(struct client *c) {
    int to_its_end = c->state == BODY && !c->chunked && c->left < 0;
    int unused = c->state == HEAD && !c->head_len;
    if (to_its_end) {
        c->closes = 1;
        answered(c);
        return;
    }
    if (!unused)
        complain("connection lost", c->head, c->head_len);
    close_client(c);
}

static void readable(struct client *c) {
    static char buffer[READ_SIZE];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    read_at = now_ns();
    if (n <= 0)
        lost(c);
    else if (c->state == UPGRADE)
        read_upgrade(c, buffer, (size_t)n);
    else if (c->state == FRAMES)
        read_frames(c, buffer, (size_t)n);
    else
        read_http(c, buffer, (size_t)n);
}

/* Opens what is to be open by now; returns when there is more to do. */
static uint64_t open_due(uint64_t now, uint64_t limit) {
    for (int i = 0; i < conf.streams; i++) {
        struct client *c = &clients[i];
        if (c->fd < 0 && c->opens_at <= now)
            open_client(c);
        if (c->fd < 0 && c->opens_at < limit)
            limit = c->opens_at;
    }
    return limit;
}

static void run(void) {
    struct epoll_event events[MAX_EVENTS];
    int begun = 0;
    for (uint64_t now; (now = now_ns()) < ends;) {
        if (!begun && now >= begins) {
            begun = 1;
            puts("begin");
            fflush(stdout);
        }
        uint64_t limit = begun ? ends : begins;
        if (open_now < conf.streams)
            limit = open_due(now, limit);
        struct timespec wait = until_ns(limit, now_ns());
        int n = epoll_pwait2(poller, events, MAX_EVENTS, &wait, NULL);
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (c->fd >= 0)
                readable(c);
        }
    }
}

static void report(void) {
    printf("{\"streams\":%d,\"open\":%d,\"seconds\":%.3f,\"tokens\":%llu,\"answers\":%llu,"
           "\"failures\":%llu,\"wrong_counts\":%llu,\"tokens_per_s\":%.0f,"
           "\"first_token_p50_ms\":%.3f,\"first_token_p99_ms\":%.3f,"
           "\"delivery_p50_ms\":%.3f,\"delivery_p99_ms\":%.3f}\n",
           conf.streams, open_now, conf.measure, (unsigned long long)tokens,
           (unsigned long long)answers, (unsigned long long)failures,
           (unsigned long long)wrong_counts, (double)tokens / conf.measure,
           quantile_ms(&first_token, .5), quantile_ms(&first_token, .99),
           quantile_ms(&delivery, .5), quantile_ms(&delivery, .99));
}

static void read_arguments(int argc, char **argv) {
    size_t used = 0;
    for (int o; (o = getopt(argc, argv, "m:p:u:b:H:n:r:w:d:f:e:")) != -1;) {
        switch (o) {
        case 'm': conf.mode = !strcmp(optarg, "sse") ? SSE : !strcmp(optarg, "ws") ? WS : IDLE; break;
        case 'p': conf.port = atoi(optarg); break;
        case 'u': conf.path = optarg; break;
        case 'b': conf.body = optarg; break;
        case 'H':
            used += (size_t)snprintf(conf.headers + used, sizeof conf.headers - used, "%s\r\n", optarg);
            break;
        case 'n': conf.streams = atoi(optarg); break;
        case 'r': conf.ramp = atof(optarg); break;
        case 'w': conf.warm = atof(optarg); break;
        case 'd': conf.measure = atof(optarg); break;
        case 'f': conf.first_ms = atof(optarg); break;
        case 'e': conf.expected = atoi(optarg); break;
        default: exit(2);
        }
    }
}

int main(int argc, char **argv) {
    read_arguments(argc, argv);
    prepare_process();
    poller = epoll_create1(0);
    clients = calloc((size_t)conf.streams, sizeof *clients);
    delivery.bins = calloc(HISTOGRAM_US, sizeof *delivery.bins);
    first_token.bins = calloc(HISTOGRAM_US, sizeof *first_token.bins);
    uint64_t start = now_ns();
    begins = start + (uint64_t)((conf.ramp + conf.warm) * (double)NS_PER_S);
    ends = begins + (uint64_t)(conf.measure * (double)NS_PER_S);
    for (int i = 0; i < conf.streams; i++) {
        clients[i].fd = -1;
        clients[i].opens_at = start + (uint64_t)(conf.ramp * 1e9 * i / conf.streams);
    }
    run();
    report();
    return 0;
}
