/* What the load generator and the mock upstream share: the clock, growing arrays, timers, sockets.
 *
 * Rules: Linux only (epoll, timerfd). One thread. Nanoseconds of CLOCK_MONOTONIC everywhere, so a stamp written by one
 * process can be read by the other. Running out of memory or descriptors ends the program: a benchmark that limps
 * on prints wrong figures.
 */
#ifndef BENCH_H
#define BENCH_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MILLISECOND INT64_C(1000000)
#define SECOND INT64_C(1000000000)

static inline int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * SECOND + time.tv_nsec;
}

_Noreturn static inline void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- arrays that grow ---- */

static inline void *grown(void *at, size_t *room, size_t needed, size_t each) {
    if (needed <= *room) return at;
    size_t wanted = *room ? *room : 64;
    while (wanted < needed) wanted *= 2;
    at = realloc(at, wanted * each);
    if (!at) die("memory");
    *room = wanted;
    return at;
}

struct bytes {
    char *at;
    size_t size, room;
};

/* A zero byte stands behind the last one, outside `size`, so that number readers always stop. */
static inline void bytes_add(struct bytes *bytes, const void *more, size_t size) {
    bytes->at = grown(bytes->at, &bytes->room, bytes->size + size + 1, 1);
    if (size) memcpy(bytes->at + bytes->size, more, size);
    bytes->size += size;
    bytes->at[bytes->size] = 0;
}

static inline void bytes_drop(struct bytes *bytes, size_t size) {
    bytes->size -= size;
    if (bytes->size) memmove(bytes->at, bytes->at + size, bytes->size);
    if (bytes->at) bytes->at[bytes->size] = 0;
}

struct numbers {
    int64_t *at;
    size_t count, room;
};

static inline void numbers_add(struct numbers *numbers, int64_t number) {
    numbers->at = grown(numbers->at, &numbers->room, numbers->count + 1, sizeof *numbers->at);
    numbers->at[numbers->count++] = number;
}

/* ---- reading digits out of text nobody vouches for ---- */

/* Reads an unsigned number and moves `*at` behind it; -1 where there is no digit, or more digits than any stamp has. */
static inline int64_t digits(const char **at, const char *end) {
    int64_t number = 0;
    const char *start = *at;
    for (; *at < end && **at >= '0' && **at <= '9'; (*at)++) {
        if (*at - start == 18) return -1;
        number = number * 10 + (**at - '0');
    }
    return *at == start ? -1 : number;
}

/* ---- timers: a binary heap of moments, and one timerfd armed to the earliest ---- */

struct timer {
    int64_t due;
    int fd;         /* whom it concerns */
    int64_t serial; /* which use of that descriptor: a timer is never taken back, an outdated one is ignored */
};

struct timers {
    struct timer *heap;
    size_t count, room;
    int64_t armed;
    int fd;
};

static inline void timers_add(struct timers *timers, struct timer timer) {
    timers->heap = grown(timers->heap, &timers->room, timers->count + 1, sizeof *timers->heap);
    size_t place = timers->count++;
    for (; place && timers->heap[(place - 1) / 2].due > timer.due; place = (place - 1) / 2)
        timers->heap[place] = timers->heap[(place - 1) / 2];
    timers->heap[place] = timer;
}

/* Takes the earliest timer out if it is due. */
static inline bool timers_take(struct timers *timers, int64_t moment, struct timer *taken) {
    if (!timers->count || timers->heap[0].due > moment) return false;
    *taken = timers->heap[0];
    struct timer last = timers->heap[--timers->count];
    size_t place = 0;
    for (size_t child; (child = 2 * place + 1) < timers->count; place = child) {
        if (child + 1 < timers->count && timers->heap[child + 1].due < timers->heap[child].due) child++;
        if (timers->heap[child].due >= last.due) break;
        timers->heap[place] = timers->heap[child];
    }
    timers->heap[place] = last;
    return true;
}

/* A timerfd, for the timeout of epoll_wait counts in milliseconds and would bunch the chunks of many streams. */
static inline void timers_arm(struct timers *timers) {
    int64_t due = timers->count ? timers->heap[0].due : 0;
    if (due == timers->armed) return;
    struct itimerspec when = {.it_value = {.tv_sec = due / SECOND, .tv_nsec = due % SECOND}};
    if (timerfd_settime(timers->fd, TFD_TIMER_ABSTIME, &when, NULL)) die("timerfd_settime");
    timers->armed = due;
}

/* ---- epoll ---- */

static inline void watch(int poll, int fd, int how, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poll, how, fd, &event)) die("epoll_ctl");
}

/* Opens the epoll that every program here lives on, with the timers inside it. */
static inline int open_poll(struct timers *timers) {
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int poll = epoll_create1(EPOLL_CLOEXEC);
    timers->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (poll < 0 || timers->fd < 0) die("epoll");
    watch(poll, timers->fd, EPOLL_CTL_ADD, EPOLLIN);
    return poll;
}

/* Empties the timerfd; whatever was due is found in the heap. */
static inline void timers_rang(struct timers *timers) {
    uint64_t rings;
    if (read(timers->fd, &rings, sizeof rings) > 0) timers->armed = 0;
}

/* ---- sending without waiting ---- */

/* Sends what the socket takes now and keeps the rest in `rest`; false when the peer is gone. */
static inline bool push(int poll, int fd, struct bytes *rest, const char *data, size_t size) {
    bool waiting = rest->size > 0;
    while (size && !waiting) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno != EAGAIN) return false;
        if (sent < 0) break;
        data += sent;
        size -= (size_t)sent;
    }
    if (!size) return true;
    if (!waiting) watch(poll, fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    bytes_add(rest, data, size);
    return true;
}

/* Sends the rest that `push` kept, when the socket says it can take more; false when the peer is gone. */
static inline bool push_rest(int poll, int fd, struct bytes *rest) {
    if (!rest->size) return true;
    ssize_t sent = send(fd, rest->at, rest->size, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    bytes_drop(rest, (size_t)sent);
    if (!rest->size) watch(poll, fd, EPOLL_CTL_MOD, EPOLLIN);
    return true;
}

static inline void no_delay(int fd) {
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

#endif
