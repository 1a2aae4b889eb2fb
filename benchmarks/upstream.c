/* A mock LLM upstream: answers POST .../chat/completions as an OpenAI server does, with the send time in every chunk.
 *
 * Rules: HTTP/1.1 with keep-alive and chunked bodies; one write per event, as real servers do (the role event goes out
 * with the headers, `[DONE]` with the finish event). A turn is described by words inside the request's text,
 *     bench(first_ms=200 chunks=50 gap_ms=20 id=7)
 * and not by a field of its own: every server passes the messages on, and some drop fields that they do not know.
 * The content of chunk 3 is "3 of 7 at 81234567890123 ": its number, the turn's id, and CLOCK_MONOTONIC just before it
 * was sent.
 * GET /stats tells how late chunks were sent, and how and when each turn with an id ended; GET /reset forgets it.
 * A lost connection in mid-turn is how a barge-in looks from here.
 *
 * Usage: upstream [PORT [CERTIFICATE KEY]]      prints the port it listens on, then serves until it is killed. With a
 * certificate it prints a second port behind the first, where it speaks TLS.
 */
#include "tls.h"

#define MOST_FILES 65536
#define MOST_REQUEST (4 << 20)

/* About 250 bytes an event, as OpenAI's are. */
#define EVENT(delta, reason)                                                                            \
    "data: {\"id\":\"chatcmpl-BenchBenchBenchBenchBench00\",\"object\":\"chat.completion.chunk\","      \
    "\"created\":1750000000,\"model\":\"bench-model\",\"system_fingerprint\":\"fp_bench000000\","     \
    "\"choices\":[{\"index\":0,\"delta\":" delta ",\"logprobs\":null,\"finish_reason\":" reason "}]}\n\n"
static const char ROLE[] = EVENT("{\"role\":\"assistant\",\"content\":\"\"}", "null");
static const char CONTENT[] = EVENT("{\"content\":\"%ld of %" PRId64 " at %" PRId64 " \"}", "null");
static const char FINISH[] = EVENT("{}", "\"stop\"");
static const char DONE[] = "data: [DONE]\n\n";
static const char HEAD[] =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    "x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n";

/* One connection, and the turn being spoken on it. */
struct conn {
    int fd;
    SSL *tls; /* NULL where it is not spoken */
    bool speaking;
    struct bytes in, rest;
    int64_t serial, due, gap, id;
    long said, chunks;
};

static int poll_fd;
static struct timers timers;
static struct conn *conns[MOST_FILES];
static int64_t last_serial;
static struct {
    long speaking;
    int64_t sent, late_total, late_most;
    struct numbers ended; /* three each: id, when, 1 if it was spoken to its end */
} stats;

static void end_turn(struct conn *conn, bool whole) {
    if (!conn->speaking) return;
    conn->speaking = false;
    conn->serial = 0;
    stats.speaking--;
    if (!conn->id) return;
    numbers_add(&stats.ended, conn->id);
    numbers_add(&stats.ended, now());
    numbers_add(&stats.ended, whole);
}

static void lose(struct conn *conn) {
    end_turn(conn, false);
    conns[conn->fd] = NULL;
    close(conn->fd);
    tls_free(conn->tls);
    free(conn->in.at);
    free(conn->rest.at);
    free(conn);
}

/* ---- speaking ---- */

/* Sends what TLS has to say, its own handshake included; false when the peer is gone. */
static bool push_tls(struct conn *conn) {
    static struct bytes wire;
    wire.size = 0;
    tls_unsent(conn->tls, &wire);
    return push(poll_fd, conn->fd, &conn->rest, wire.at, wire.size);
}

static bool send_bytes(struct conn *conn, const char *data, size_t size) {
    if (!conn->tls) return push(poll_fd, conn->fd, &conn->rest, data, size);
    return tls_write(conn->tls, data, size) && push_tls(conn);
}

/* Sends `event` as one chunk of the body, behind `before` and with `after`, in one write. */
static bool send_chunk(struct conn *conn, const char *before, const char *event, const char *after) {
    char out[2048];
    int size = snprintf(out, sizeof out, "%s%zx\r\n%s\r\n%s", before, strlen(event), event, after);
    return send_bytes(conn, out, (size_t)size);
}

static bool send_content(struct conn *conn) {
    char event[512];
    int64_t moment = now();
    int64_t late = moment - conn->due;
    stats.sent++;
    stats.late_total += late;
    if (late > stats.late_most) stats.late_most = late;
    snprintf(event, sizeof event, CONTENT, conn->said, conn->id, moment);
    return send_chunk(conn, "", event, "");
}

static bool send_end(struct conn *conn) {
    char event[sizeof FINISH + sizeof DONE];
    snprintf(event, sizeof event, "%s%s", FINISH, DONE);
    return send_chunk(conn, "", event, "0\r\n\r\n");
}

/* Says whatever is due; false when the peer is gone. */
static bool speak(struct conn *conn) {
    if (!conn->said && !send_chunk(conn, HEAD, ROLE, "")) return false;
    do {
        if (!send_content(conn)) return false;
        if (++conn->said == conn->chunks) {
            end_turn(conn, true);
            return send_end(conn);
        }
        conn->due += conn->gap;
    } while (conn->due <= now());
    timers_add(&timers, (struct timer){conn->due, conn->fd, conn->serial});
    return true;
}

/* ---- listening ---- */

/* Reads `name=123` out of the description of a turn; absent or absurd values become the nearest sensible one. */
static int64_t asked(const char *at, const char *end, const char *name, int64_t least, int64_t most) {
    const char *found = memmem(at, (size_t)(end - at), name, strlen(name));
    if (!found) return least;
    found += strlen(name);
    int64_t number = digits(&found, end);
    return number < least ? least : number > most ? most : number;
}

static void begin_turn(struct conn *conn, const char *body, size_t size) {
    const char *end = body + size;
    const char *at = memmem(body, size, "bench(", 6);
    if (!at) at = end;
    const char *close = at < end ? memchr(at, ')', (size_t)(end - at)) : NULL;
    if (close) end = close;
    conn->chunks = (long)asked(at, end, "chunks=", 1, 100000);
    conn->gap = asked(at, end, "gap_ms=", 0, 60000) * MILLISECOND;
    conn->id = asked(at, end, "id=", 0, INT64_MAX);
    conn->due = now() + asked(at, end, "first_ms=", 0, 60000) * MILLISECOND;
    conn->said = 0;
    conn->speaking = true;
    conn->serial = ++last_serial;
    stats.speaking++;
    timers_add(&timers, (struct timer){conn->due, conn->fd, conn->serial});
}

static bool reply(struct conn *conn, const char *status, const char *body, size_t size) {
    char head[256];
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n", status, size);
    return send_bytes(conn, head, (size_t)length) && send_bytes(conn, body, size);
}

static bool reply_stats(struct conn *conn) {
    struct bytes out = {0};
    char text[256];
    int64_t mean = stats.sent ? stats.late_total / stats.sent : 0;
    int size = snprintf(text, sizeof text,
                        "{\"speaking\":%ld,\"sent\":%" PRId64 ",\"late_mean_ns\":%" PRId64 ",\"late_max_ns\":%" PRId64
                        ",\"ended\":[",
                        stats.speaking, stats.sent, mean, stats.late_most);
    bytes_add(&out, text, (size_t)size);
    for (size_t index = 0; index < stats.ended.count; index += 3) {
        const int64_t *end = stats.ended.at + index;
        size = snprintf(text, sizeof text, "%s[%" PRId64 ",%" PRId64 ",%" PRId64 "]", index ? "," : "", end[0], end[1],
                        end[2]);
        bytes_add(&out, text, (size_t)size);
    }
    bytes_add(&out, "]}\n", 3);
    bool alive = reply(conn, "200 OK", out.at, out.size);
    free(out.at);
    return alive;
}

static bool reply_reset(struct conn *conn) {
    stats.sent = stats.late_total = stats.late_most = 0;
    stats.ended.count = 0;
    return reply(conn, "200 OK", "{}\n", 3);
}

/* Finds a header's value in a request's head, which ends with an empty line. */
static const char *header(const char *head, const char *end, const char *name) {
    for (const char *line = head; (line = memchr(line, '\n', (size_t)(end - line)));) {
        line++;
        if ((size_t)(end - line) > strlen(name) && !strncasecmp(line, name, strlen(name))) return line + strlen(name);
    }
    return NULL;
}

static bool answer(struct conn *conn, const char *body, size_t size) {
    const char *head = conn->in.at;
    if (!strncmp(head, "GET /stats ", 11)) return reply_stats(conn);
    if (!strncmp(head, "GET /reset ", 11)) return reply_reset(conn);
    if (strncmp(head, "POST ", 5)) return reply(conn, "404 Not Found", "{}\n", 3);
    begin_turn(conn, body, size);
    return true;
}

/* Takes whole requests off what was received, until a turn is to be spoken; false when the connection must go. */
static bool listen_on(struct conn *conn) {
    while (!conn->speaking && conn->in.size) {
        const char *end = memmem(conn->in.at, conn->in.size, "\r\n\r\n", 4);
        if (!end) return conn->in.size < MOST_REQUEST;
        size_t head_size = (size_t)(end - conn->in.at) + 4;
        const char *length = header(conn->in.at, end, "content-length:");
        int64_t size = 0;
        if (header(conn->in.at, end, "transfer-encoding:")) {
            fprintf(stderr, "upstream: a request with transfer-encoding is not read here\n");
            return false;
        }
        if (length) {
            while (*length == ' ') length++;
            size = digits(&length, end);
        }
        if (size < 0 || size > MOST_REQUEST) return false;
        if (conn->in.size < head_size + (size_t)size) return true;
        if (!answer(conn, conn->in.at + head_size, (size_t)size)) return false;
        bytes_drop(&conn->in, head_size + (size_t)size);
    }
    return conn->in.size <= 2 * MOST_REQUEST;
}

static bool receive(struct conn *conn) {
    static char buffer[65536];
    ssize_t size = recv(conn->fd, buffer, sizeof buffer, 0);
    if (size < 0) return errno == EAGAIN || errno == EINTR;
    if (size == 0) return false;
    if (!conn->tls) {
        bytes_add(&conn->in, buffer, (size_t)size);
    } else {
        bool alive = tls_read(conn->tls, buffer, (size_t)size, &conn->in);
        if (!push_tls(conn) || !alive) return false;
    }
    return listen_on(conn);
}

static void welcome(int listener, bool with_tls) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        if (fd >= MOST_FILES) die("more connections than this upstream was made for");
        no_delay(fd);
        struct conn *conn = calloc(1, sizeof *conn);
        if (!conn) die("memory");
        conn->fd = fd;
        if (with_tls) conn->tls = tls_new();
        conns[fd] = conn;
        watch(poll_fd, fd, EPOLL_CTL_ADD, EPOLLIN);
    }
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) die("accept");
}

static int open_listener(uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    int yes = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&address, size) || listen(fd, 4096)) die("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &size)) die("getsockname");
    watch(poll_fd, fd, EPOLL_CTL_ADD, EPOLLIN);
    printf("%d ", ntohs(address.sin_port));
    return fd;
}

int main(int count, char **words) {
    poll_fd = open_poll(&timers);
    int tls_listener = -1, listener = open_listener((uint16_t)(count > 1 ? atoi(words[1]) : 0));
    if (count > 3) {
        tls_open(words[2], words[3]);
        tls_listener = open_listener(0);
    }
    printf("\n");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        struct timer timer;
        timers_arm(&timers);
        int ready = epoll_wait(poll_fd, events, 256, -1);
        for (int index = 0; index < ready; index++) {
            int fd = events[index].data.fd;
            struct conn *conn = conns[fd];
            if (fd == listener || fd == tls_listener)
                welcome(fd, fd == tls_listener);
            else if (fd == timers.fd)
                timers_rang(&timers);
            else if (conn && !(push_rest(poll_fd, fd, &conn->rest) && receive(conn)))
                lose(conn);
        }
        while (timers_take(&timers, now(), &timer)) {
            struct conn *conn = conns[timer.fd];
            if (conn && conn->serial == timer.serial && !(speak(conn) && listen_on(conn))) lose(conn);
        }
    }
}
