/* A load generator for servers that stream chat completions: it times every chunk and checks all of them.
 *
 * Rules: it measures and counts; percentiles are made by whoever reads its one line of JSON. A turn ends in exactly one
 * way: whole, dropped (by us, on purpose), or an error: refused (status not 200), broken (connection lost, not HTTP),
 * wrong (a chunk missing, repeated, out of order, in-stream error, no finish or no `[DONE]`, something behind it),
 * unfinished (the patience ran out). Connections are kept alive and used again, the last used first.
 *
 * mode=ttft    closed loop, one client: turn after turn for `seconds`; with `beside=HOST:PORT` every other turn goes
 *              there, so that both see the same machine. Prints the time to the first content of every turn.
 * mode=voice   open loop: `streams` turns are speaking at any time for `seconds`; turns start on a plan made beforehand
 *              (evenly spread, each shifted at random inside its own place), whatever the server does.
 * mode=cancel  as voice, but the client drops each turn at a random moment; prints each turn's id and that moment.
 *
 * Usage: load mode=ttft|voice|cancel to=HOST:PORT [beside=HOST:PORT] [path=/v1/chat/completions] [headers=LINES]
 *             [streams=50] [seconds=2] [turns=0 (no limit)] [first_ms=0] [chunks=1] [gap_ms=0] [patience=3]
 */
#include "answer.h"

#define MOST_FILES 65536

enum { DEADLINE = -2, PLANNED = -1 }; /* timers that concern no connection */

/* One connection, and the turn on it. */
struct conn {
    struct answer answer; /* first, so that `heard` finds its connection */
    int fd, target;
    bool busy;
    struct bytes rest;
    int64_t started, serial;
};

static struct {
    const char *mode, *path, *headers; /* more lines of the request's head, each with its \r\n */
    struct sockaddr_in targets[2];
    char hosts[2][64];
    int target_count;
    double streams, turns, first_ms, chunks, gap_ms, seconds, patience;
} want = {
    .mode = "", .path = "/v1/chat/completions", .headers = "", .streams = 50, .chunks = 1, .seconds = 2, .patience = 3,
};

static int poll_fd;
static struct timers timers;
static struct conn *conns[MOST_FILES];
static struct numbers idle[2]; /* descriptors; one that was closed or taken since is skipped when it comes up */
static int64_t last_serial, opened, chunks, measure_from, measure_until;
static long planned, speaking, outcomes[OUTCOMES];
static struct numbers firsts[2], delays, drops;

static bool mode_is(const char *mode) { return !strcmp(want.mode, mode); }

/* The same sequence in every run: each server meets the same plan. */
static double random_share(void) {
    static uint64_t state = 0x9E3779B97F4A7C15u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) / 9007199254740992.0;
}

static int64_t turn_length(void) {
    return (int64_t)(want.first_ms + (want.chunks - 1) * want.gap_ms) * MILLISECOND;
}

/* Whether what happened at `moment` counts: not while the streams are still gathering, nor when they are leaving. */
static bool counts(int64_t moment) { return moment >= measure_from && moment < measure_until; }

static void heard(struct answer *answer, int64_t sent, int64_t moment) {
    struct conn *conn = (struct conn *)answer;
    chunks++;
    if (answer->heard == 1 && counts(conn->started)) numbers_add(&firsts[conn->target], moment - conn->started);
    if (counts(sent) && !mode_is("ttft")) numbers_add(&delays, moment - sent);
}

/* ---- turns ---- */

static void forget(struct conn *conn) {
    conns[conn->fd] = NULL;
    close(conn->fd);
    free(conn->rest.at);
    answer_free(&conn->answer);
    free(conn);
}

static struct conn *open_conn(int target) {
    struct conn *conn = calloc(1, sizeof *conn);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (!conn || fd < 0 || fd >= MOST_FILES) die("socket");
    no_delay(fd);
    conn->fd = fd;
    conn->target = target;
    conns[fd] = conn;
    opened++;
    /* The outcome is told by the first send or recv. */
    connect(fd, (struct sockaddr *)&want.targets[target], sizeof want.targets[target]);
    watch(poll_fd, fd, EPOLL_CTL_ADD, EPOLLIN);
    return conn;
}

static struct conn *take_conn(int target) {
    while (idle[target].count) {
        struct conn *conn = conns[idle[target].at[--idle[target].count]];
        if (conn && !conn->busy && conn->target == target) return conn;
    }
    return open_conn(target);
}

static int write_request(const struct conn *conn, char *out, size_t room) {
    static const char system[] =
        "You are the voice of a small hotel by the sea. You speak with one guest at a time on the phone. Answer in one "
        "or two short sentences that sound natural when they are read aloud, without lists, markup or abbreviations. "
        "If a guest asks for something you cannot know, say so and offer to connect them with the reception desk. "
        "Breakfast is from seven to ten, late check-out is at noon, and dogs are welcome.";
    char body[2048];
    int size = snprintf(body, sizeof body,
                        "{\"model\":\"bench-model\",\"messages\":[{\"role\":\"system\",\"content\":\"%s\"},"
                        "{\"role\":\"assistant\",\"content\":\"Good morning, how can I help you?\"},"
                        "{\"role\":\"user\",\"content\":"
                        "\"bench(first_ms=%.0f chunks=%.0f gap_ms=%.0f id=%" PRId64 ")\"}],"
                        "\"stream\":true,\"temperature\":0.7,\"max_tokens\":256}",
                        system, want.first_ms, want.chunks, want.gap_ms, conn->answer.id);
    return snprintf(out, room,
                    "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer bench\r\nAccept: text/event-stream\r\n"
                    "Content-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
                    want.path, want.hosts[conn->target], want.headers, size, body);
}

static void end_turn(struct conn *conn, enum outcome outcome) {
    outcomes[outcome]++;
    speaking--;
    conn->busy = false;
    conn->serial = 0;
    if (outcome != WHOLE || conn->answer.last)
        forget(conn);
    else
        numbers_add(&idle[conn->target], conn->fd);
}

/* Starts a turn that was to start at `moment`; `id` is its own in this run. */
static void begin_turn(int target, int64_t moment, int64_t id) {
    char request[8192];
    struct conn *conn = take_conn(target);
    conn->busy = true;
    answer_begin(&conn->answer, id, (long)want.chunks);
    conn->serial = ++last_serial;
    conn->started = moment;
    speaking++;
    int size = write_request(conn, request, sizeof request);
    if (mode_is("ttft")) conn->started = now();
    if (!push(poll_fd, conn->fd, &conn->rest, request, (size_t)size)) {
        end_turn(conn, BROKEN);
    } else if (mode_is("cancel")) {
        int64_t after = (int64_t)(random_share() * 0.95 * (double)turn_length());
        timers_add(&timers, (struct timer){conn->started + after, conn->fd, conn->serial});
    }
}

static void drop_turn(struct conn *conn) {
    numbers_add(&drops, conn->answer.id);
    numbers_add(&drops, now());
    end_turn(conn, DROPPED);
}

/* Acts on whatever the socket has to tell. */
static void attend(struct conn *conn) {
    static char buffer[65536];
    ssize_t size = -1;
    bool alive = push_rest(poll_fd, conn->fd, &conn->rest);
    if (alive) size = recv(conn->fd, buffer, sizeof buffer, 0);
    if (alive && size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    int64_t moment = now();
    if (!conn->busy) {
        if (size > 0) outcomes[WRONG]++; /* words behind the end of the last answer */
        forget(conn);
        return;
    }
    enum outcome outcome = BROKEN;
    if (size > 0)
        outcome = answer_read(&conn->answer, buffer, buffer + size, moment);
    else if (size == 0 && conn->answer.place == UNTIL_CLOSE && conn->answer.done)
        outcome = WHOLE;
    if (outcome != PENDING) end_turn(conn, outcome);
}

/* ---- the whole run ---- */

/* Writes every start of an open loop down beforehand: a server that falls behind does not slow its own load. */
static void plan_turns(int64_t length) {
    /* One turn's length divided by the streams: when the first turn ends, as many are speaking, and it stays so. */
    double step = (double)turn_length() / want.streams;
    planned = (long)((double)length / step);
    if (want.turns && (double)planned > want.turns) planned = (long)want.turns;
    for (long turn = 0; turn < planned; turn++) {
        int64_t after = (int64_t)(((double)turn + random_share()) * step);
        timers_add(&timers, (struct timer){measure_from + after, PLANNED, turn + 1});
    }
}

static void plan(void) {
    int64_t length = (int64_t)(want.seconds * (double)SECOND), deadline;
    measure_from = now();
    measure_until = measure_from + length;
    deadline = measure_until + turn_length() + (int64_t)(want.patience * (double)SECOND);
    timers_add(&timers, (struct timer){deadline, DEADLINE, 0});
    if (mode_is("ttft")) return;
    plan_turns(length);
    if (length > turn_length()) measure_from += turn_length();
}

/* Rings what is due; false when the patience is over. */
static bool ring(void) {
    struct timer timer;
    while (timers_take(&timers, now(), &timer)) {
        if (timer.fd == DEADLINE) return false;
        if (timer.fd == PLANNED) {
            planned--;
            begin_turn(0, timer.due, timer.serial);
        } else if (conns[timer.fd] && conns[timer.fd]->serial == timer.serial) {
            drop_turn(conns[timer.fd]);
        }
    }
    return true;
}

static void run(void) {
    struct epoll_event events[256];
    for (int64_t turn = 0;;) {
        if (mode_is("ttft") && !speaking && now() < measure_until && (!want.turns || (double)turn < want.turns)) {
            if (outcomes[REFUSED] + outcomes[BROKEN] > 100) return; /* nobody is there */
            begin_turn((int)(turn % want.target_count), 0, turn + 1);
            turn++;
            if (!speaking) continue;
        }
        if (!speaking && !planned) return;
        timers_arm(&timers);
        int ready = epoll_wait(poll_fd, events, 256, -1);
        for (int index = 0; index < ready; index++) {
            int fd = events[index].data.fd;
            if (fd == timers.fd)
                timers_rang(&timers);
            else if (conns[fd])
                attend(conns[fd]);
        }
        if (!ring()) return;
    }
}

/* ---- words in, figures out ---- */

static bool read_target(const char *text) {
    char host[64];
    unsigned port;
    int place = want.target_count++;
    if (place > 1 || sscanf(text, "%50[0-9.]:%5u", host, &port) != 2 || port > 65535) return false;
    want.targets[place] = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    snprintf(want.hosts[place], sizeof want.hosts[place], "%.60s", text);
    return inet_pton(AF_INET, host, &want.targets[place].sin_addr) == 1;
}

static const char *value_of(const char *word, const char *name) {
    return strncmp(word, name, strlen(name)) ? NULL : word + strlen(name);
}

/* Reads one word of the command line, `name=value`; false when it makes no sense. */
static bool read_word(const char *word) {
    const struct { const char *name; double *value; } numbers[] = {
        {"seconds=", &want.seconds}, {"patience=", &want.patience}, {"streams=", &want.streams},
        {"turns=", &want.turns}, {"first_ms=", &want.first_ms}, {"chunks=", &want.chunks}, {"gap_ms=", &want.gap_ms},
    };
    const char *value;
    for (size_t index = 0; index < sizeof numbers / sizeof *numbers; index++)
        if ((value = value_of(word, numbers[index].name))) {
            *numbers[index].value = atof(value);
            return *numbers[index].value >= 0 && *numbers[index].value <= 100000;
        }
    if ((value = value_of(word, "mode="))) return *(want.mode = value);
    if ((value = value_of(word, "path="))) return *(want.path = value);
    if ((value = value_of(word, "headers="))) return want.headers = value;
    if ((value = value_of(word, "to=")) || (value = value_of(word, "beside="))) return read_target(value);
    return false;
}

static void read_words(int count, char **words) {
    for (int index = 1; index < count; index++)
        if (!read_word(words[index])) {
            fprintf(stderr, "load: cannot read: %s\nhint: the words are listed at the top of load.c\n", words[index]);
            exit(2);
        }
    bool open = mode_is("voice") || mode_is("cancel");
    if ((!open && !mode_is("ttft")) || !want.target_count || want.chunks < 1 || want.streams < 1 ||
        strlen(want.path) > 1000 || strlen(want.headers) > 1000 || (open && turn_length() < MILLISECOND)) {
        fprintf(stderr, "load: needs mode=ttft|voice|cancel, to=HOST:PORT, and in an open loop a turn that takes time\n"
                        "hint: the words are listed at the top of load.c\n");
        exit(2);
    }
}

static void print_numbers(const char *name, const struct numbers *numbers) {
    printf(",\"%s\":[", name);
    for (size_t index = 0; index < numbers->count; index++)
        printf("%s%" PRId64, index ? "," : "", numbers->at[index]);
    printf("]");
}

static void print_figures(void) {
    long turns = speaking;
    for (int outcome = 0; outcome < OUTCOMES; outcome++) turns += outcomes[outcome];
    printf("{\"turns\":%ld,\"whole\":%ld,\"dropped\":%ld,\"refused\":%ld,\"broken\":%ld,\"wrong\":%ld,"
           "\"unfinished\":%ld,\"chunks\":%" PRId64 ",\"connections\":%" PRId64,
           turns, outcomes[WHOLE], outcomes[DROPPED], outcomes[REFUSED], outcomes[BROKEN], outcomes[WRONG], speaking,
           chunks, opened);
    print_numbers("first_ns", &firsts[0]);
    print_numbers("beside_ns", &firsts[1]);
    print_numbers("delay_ns", &delays);
    print_numbers("drops", &drops);
    printf("}\n");
}

int main(int count, char **words) {
    read_words(count, words);
    poll_fd = open_poll(&timers);
    plan();
    run();
    print_figures();
}
