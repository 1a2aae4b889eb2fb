/* Reads one streamed answer, as the bytes come, and checks it: HTTP/1.1, then server-sent events, then the chunks.
 *
 * Rules: strict, for a server that tears, merges, repeats or loses a chunk must not be timed as if it had served it.
 * Chunks must come in order, each once, then one finish_reason, then `[DONE]`, then the end of the body and nothing;
 * and each must be of the turn that was asked for, not of another caller's.
 * The includer defines `heard`, which is told of every content chunk.
 */
#ifndef ANSWER_H
#define ANSWER_H

#include "bench.h"

#define LONGEST_LINE (256 * 1024)

enum outcome { WHOLE, DROPPED, REFUSED, BROKEN, WRONG, UNFINISHED, OUTCOMES, PENDING };
enum place { HEAD, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, UNTIL_CLOSE };

struct answer {
    enum place place;
    struct bytes line, event;
    bool status_read, chunked;
    bool last; /* the connection will not be used again */
    bool finished, done;
    int64_t id;         /* of the turn */
    long chunks, heard; /* content chunks: to come in all, so far */
    int64_t left;       /* bytes of the HTTP chunk still to come */
};

static void heard(struct answer *answer, int64_t sent, int64_t moment);

static inline void answer_begin(struct answer *answer, int64_t id, long chunks) {
    struct bytes line = answer->line, event = answer->event;
    line.size = event.size = 0;
    *answer = (struct answer){.line = line, .event = event, .id = id, .chunks = chunks};
}

static inline void answer_free(struct answer *answer) {
    free(answer->line.at);
    free(answer->event.at);
}

/* Adds to `line` up to the end of a line, and tells whether it is complete. */
static inline bool gather(struct bytes *line, const char **at, const char *end) {
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    bytes_add(line, *at, (size_t)((stop ? stop : end) - *at));
    *at = stop ? stop + 1 : end;
    if (stop && line->size && line->at[line->size - 1] == '\r') line->at[--line->size] = 0;
    return stop;
}

/* ---- one event of the stream ---- */

/* Finds `"key":` and moves behind it and any blanks, as some servers write their own. */
static inline const char *behind_key(const char *at, const char *end, const char *key) {
    at = memmem(at, (size_t)(end - at), key, strlen(key));
    if (!at) return NULL;
    for (at += strlen(key); at < end && (*at == ' ' || *at == ':'); at++) {}
    return at < end ? at : NULL;
}

/* Reads `word` and the number behind it; -1 if that is not what stands there. */
static inline int64_t number_behind(const char *word, const char **at, const char *end) {
    size_t size = strlen(word);
    if ((size_t)(end - *at) < size || memcmp(*at, word, size)) return -1;
    *at += size;
    return digits(at, end);
}

static inline bool hear_content(struct answer *answer, const char *at, const char *end, int64_t moment) {
    int64_t number = digits(&at, end);
    int64_t id = number_behind(" of ", &at, end);
    int64_t sent = number_behind(" at ", &at, end);
    if (number != answer->heard || id != answer->id || sent < 0 || sent > moment || answer->finished) return false;
    answer->heard++;
    heard(answer, sent, moment);
    return true;
}

/* Reads one line of the stream; false when it should not have come. */
static inline bool hear_line(struct answer *answer, int64_t moment) {
    const char *at = answer->event.at, *end = at + answer->event.size;
    if (end - at < 5 || memcmp(at, "data:", 5)) return at == end || *at == ':';
    for (at += 5; at < end && *at == ' '; at++) {}
    if (answer->done) return false;
    if (end - at == 6 && !memcmp(at, "[DONE]", 6))
        return answer->done = answer->finished && answer->heard == answer->chunks;
    const char *content = behind_key(at, end, "\"content\"");
    if (content && end - content > 1 && content[0] == '"' && content[1] != '"' &&
        !hear_content(answer, content + 1, end, moment))
        return false;
    const char *reason = behind_key(at, end, "\"finish_reason\"");
    if (reason && *reason == '"') {
        if (answer->finished) return false;
        answer->finished = true;
    }
    const char *error = behind_key(at, end, "\"error\"");
    return !error || *error == 'n'; /* null */
}

/* ---- HTTP ---- */

static inline enum outcome read_head_line(struct answer *answer) {
    const struct bytes *line = &answer->line;
    if (!answer->status_read) {
        if (line->size < 12 || memcmp(line->at, "HTTP/1.1 ", 9)) return BROKEN;
        if (memcmp(line->at + 9, "200", 3)) return REFUSED;
        answer->status_read = true;
    } else if (!line->size) {
        answer->place = answer->chunked ? CHUNK_SIZE : UNTIL_CLOSE;
        if (!answer->chunked) answer->last = true;
    } else if (!strncasecmp(line->at, "transfer-encoding:", 18)) {
        answer->chunked = strcasestr(line->at, "chunked");
    } else if (!strncasecmp(line->at, "connection:", 11)) {
        answer->last = strcasestr(line->at, "close");
    }
    return PENDING;
}

static inline enum outcome read_chunk_size(struct answer *answer) {
    char *stop;
    long long size = strtoll(answer->line.at, &stop, 16);
    if (stop == answer->line.at || size < 0 || size > INT32_MAX) return BROKEN;
    answer->left = size;
    answer->place = size ? CHUNK : TRAILER;
    return PENDING;
}

/* Reads what stands around the pieces of the body: the head, chunk sizes, trailers. */
static inline enum outcome read_line(struct answer *answer, const char **at, const char *end) {
    enum outcome outcome = PENDING;
    if (!gather(&answer->line, at, end)) return answer->line.size > LONGEST_LINE ? BROKEN : PENDING;
    if (answer->place == HEAD)
        outcome = read_head_line(answer);
    else if (answer->place == CHUNK_SIZE)
        outcome = read_chunk_size(answer);
    else if (answer->place == CHUNK_END)
        answer->place = CHUNK_SIZE;
    else if (!answer->line.size) /* the empty line behind the last chunk */
        outcome = answer->done && *at == end ? WHOLE : WRONG;
    answer->line.size = 0;
    return outcome;
}

static inline enum outcome read_body(struct answer *answer, const char **at, const char *end, int64_t moment) {
    const char *from = *at;
    const char *stop = answer->place == CHUNK && end - from > answer->left ? from + answer->left : end;
    while (*at < stop && gather(&answer->event, at, stop)) {
        if (!hear_line(answer, moment)) return WRONG;
        answer->event.size = 0;
    }
    if (answer->event.size > LONGEST_LINE) return BROKEN;
    if (answer->place == CHUNK) answer->left -= *at - from;
    if (answer->place == CHUNK && !answer->left) answer->place = CHUNK_END;
    return PENDING;
}

/* Reads what was received at `moment`. PENDING until the answer ended, one way or another. */
static inline enum outcome answer_read(struct answer *answer, const char *at, const char *end, int64_t moment) {
    enum outcome outcome = PENDING;
    while (at < end && outcome == PENDING) {
        bool body = answer->place == CHUNK || answer->place == UNTIL_CLOSE;
        outcome = body ? read_body(answer, &at, end, moment) : read_line(answer, &at, end);
    }
    return outcome;
}

#endif
