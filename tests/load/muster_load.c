/* Many members in one process, each with a connection and a session of its own: load for the
 * coordinator, and logs for a checker. They train nothing: a worker says that it has entered as
 * soon as it is told to, and reports when it is told that a generation is over.
 *
 *     muster_load --coordinator ADDR:PORT --job NAME --members N [--first K] [--of W] [--min N
 * --max N] [--log FILE]
 *
 * --of W: participants K .. K + N - 1 of a group of W, who wait at barriers; otherwise workers.
 * Words on standard input: `join` (connect all), `barrier NAME` (all enter), `quit` (all say
 * goodbye). On standard output one word for each that all members came to, with CLOCK_MONOTONIC in
 * microseconds: `joined T`, `entered T`, `released T`, `ended T`. */
#include "base/clock.h"
#include "base/random.h"
#include "client/session.h"
#include "proto/frame.h"
#include "proto/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS      512
#define READ_BYTES  65536
#define JOINING_MAX 256 /* members that are not admitted yet */

struct member {
    struct session session;
    struct session_config config;
    struct frame_parser parser;
    void *rosters;             /* session's memory, owned */
    uint8_t *out;              /* bytes that wait for the socket, owned */
    size_t out_used, out_room; /* bytes */
    uint32_t index;
    int fd; /* -1 = not connected */
    bool connecting, up, waits, ended;
    uint64_t generation, nonce, step; /* held; 0 = none */
};

static struct {
    struct member *members; /* [count], owned */
    uint32_t count, started, up, waiting, ended;
    bool joining; /* `join` was said */
    struct sockaddr_in address;
    struct wire_arena in, out;
    uint64_t random;
    int epoll;
    FILE *log;
    bool told_joined, told_ended, barrier_open;
    char barrier[WIRE_NAME_BYTES + 1];
} load;

static void die(const char *what)
{
    (void)fprintf(stderr, "muster_load: %s: %s\n", what, strerror(errno));
    exit(69);
}

static void fill_random(void *bytes, size_t count)
{
    if (random_fill(bytes, count) != 0)
        die("random bytes");
}

static void say(const char *word)
{
    if (load.log != NULL)
        (void)fflush(load.log); /* whoever hears the word may read the log */
    (void)printf("%s %llu\n", word, (unsigned long long)clock_monotonic_us());
    (void)fflush(stdout);
}

static void note(const struct member *m, const char *what, uint64_t generation, uint64_t nonce,
                 uint32_t rank, uint32_t world)
{
    if (load.log != NULL)
        (void)fprintf(load.log,
                      "{\"t\":%llu,\"member\":%u,\"event\":\"%s\",\"generation\":%llu,\"nonce\":%"
                      "llu,\"rank\":%d,"
                      "\"world\":%u}\n",
                      (unsigned long long)clock_monotonic_us(), m->index, what,
                      (unsigned long long)generation, (unsigned long long)nonce,
                      rank == UINT32_MAX ? -1 : (int)rank, world);
}

static void note_end(const struct member *m, const char *text, uint32_t code)
{
    if (load.log == NULL)
        return;
    (void)fprintf(load.log, "{\"t\":%llu,\"member\":%u,\"event\":\"ended\",\"code\":%u,\"text\":\"",
                  (unsigned long long)clock_monotonic_us(), m->index, code);
    for (; *text != '\0'; text++)
        (void)fputc(*text == '"' || *text == '\\' || *text < ' ' ? ' ' : *text, load.log);
    (void)fprintf(load.log, "\"}\n");
}

static uint64_t random_next(void)
{
    load.random = load.random * 6364136223846793005u + 1442695040888963407u;
    return load.random >> 11;
}

/* ---- connections ---------------------------------------------------------------------------- */

static void step(struct member *m, struct session_event event);

static void watch(struct member *m)
{
    struct epoll_event event = {.data.ptr = m};

    event.events = EPOLLIN | (m->connecting || m->out_used > 0 ? EPOLLOUT : 0u);
    (void)epoll_ctl(load.epoll, EPOLL_CTL_MOD, m->fd, &event);
}

static void disconnect(struct member *m)
{
    if (m->fd >= 0)
        (void)close(m->fd);
    m->fd = -1;
    m->out_used = 0;
    m->connecting = false;
    free(frame_parser_take(&m->parser));
}

static void failed(struct member *m, const char *why)
{
    disconnect(m);
    step(m, (struct session_event){.type = SESSION_CLOSED, .text = why});
}

static void begin_connect(struct member *m)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = m};
    int one = 1;

    m->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (m->fd < 0)
        die("socket");
    (void)setsockopt(m->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    frame_parser_init(&m->parser, FRAME_STATE_COORDINATOR);
    m->connecting = true;
    if (connect(m->fd, (const struct sockaddr *)&load.address, sizeof load.address) != 0 &&
        errno != EINPROGRESS) {
        (void)close(m->fd); /* told later: not from inside a step */
        m->fd = -1;
        m->connecting = false;
        return;
    }
    if (epoll_ctl(load.epoll, EPOLL_CTL_ADD, m->fd, &event) != 0)
        die("epoll_ctl");
}

static void flush_out(struct member *m)
{
    while (m->fd >= 0 && m->out_used > 0) {
        ssize_t n = send(m->fd, m->out, m->out_used, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* read tells what is wrong */
        m->out_used -= (size_t)n;
        memmove(m->out, m->out + n, m->out_used);
    }
}

static void send_message(struct member *m, const struct wire_message *message)
{
    const uint8_t *bytes;
    size_t count;

    wire_arena_reset(&load.out);
    if (m->fd < 0 || wire_encode(&load.out, message, &bytes, &count) != WIRE_OK)
        return;
    if (m->out_used + count > m->out_room) {
        m->out_room = m->out_used + count + 256;
        m->out = realloc(m->out, m->out_room);
        if (m->out == NULL)
            die("memory");
    }
    memcpy(m->out + m->out_used, bytes, count);
    m->out_used += count;
    flush_out(m);
    if (m->out_used > 0)
        watch(m);
}

/* ---- what a member that trains nothing answers ---------------------------------------------- */

static struct session_event at(const struct member *m, enum session_event_type type)
{
    return (struct session_event){.type = type, .position = {m->generation, m->nonce, m->step}};
}

static uint32_t rank_in(const struct member *m, const struct wire_generation *g)
{
    for (uint32_t i = 0; i < g->members_count; i++)
        if (wire_id_equal(&g->members[i].id, &m->config.member_id))
            return g->members[i].rank;
    return UINT32_MAX;
}

static void told_generation(struct member *m, const struct wire_message *message)
{
    const struct wire_generation *g = &message->generation;
    struct session_event event;
    uint32_t rank = rank_in(m, g);

    note(m,
         g->mode == WIRE_MODE_VIEW   ? "view"
         : g->mode == WIRE_MODE_PLAN ? "plan"
                                     : "formed",
         message->header.generation, message->header.nonce, rank, g->members_count);
    if (g->mode == WIRE_MODE_VIEW) {
        event = (struct session_event){
            .type = SESSION_READY,
            .position = {message->header.generation, message->header.nonce, m->step}};
        event.ready.params_hash = 7;
        step(m, event);
        return;
    }
    if (rank == UINT32_MAX)
        return;
    m->generation = message->header.generation;
    m->nonce = message->header.nonce;
    step(m, at(m, SESSION_ENTERED));
    note(m, "entered", m->generation, m->nonce, rank, g->members_count);
}

static void told(struct member *m, const struct wire_message *message)
{
    struct session_event event;

    switch (message->header.type) {
    case FRAME_GENERATION:
        told_generation(m, message);
        break;
    case FRAME_OVER:
        note(m, "over", message->header.generation, message->header.nonce, UINT32_MAX, 0);
        event = at(m, SESSION_REPORT);
        event.report.entered = m->generation != 0;
        step(m, event);
        break;
    case FRAME_BARRIER_RESULT:
        note(m, message->barrier_result.end == WIRE_BARRIER_RELEASED ? "released" : "unmet",
             message->barrier_result.seq, 0, UINT32_MAX, 0);
        load.waiting -= m->waits;
        m->waits = false;
        if (load.waiting == 0 && load.barrier_open) {
            load.barrier_open = false;
            say("released");
        }
        break;
    default:
        break;
    }
}

static void news(struct member *m, const struct session_delivery *d)
{
    switch (d->news) {
    case SESSION_NEWS_UP:
        note(m, "up", d->message->header.generation, 0, UINT32_MAX, 0);
        load.up += !m->up;
        m->up = true;
        if (load.up == load.count && !load.told_joined) {
            load.told_joined = true;
            say("joined");
        }
        break;
    case SESSION_NEWS_DOWN:
        note(m, "down", 0, 0, UINT32_MAX, 0);
        break;
    case SESSION_NEWS_MESSAGE:
        told(m, d->message);
        break;
    case SESSION_NEWS_ENDED:
        note_end(m, d->text, d->exit_code);
        load.ended += !m->ended;
        m->ended = true;
        if (load.ended == load.count && !load.told_ended) {
            load.told_ended = true;
            say("ended");
        }
        break;
    }
}

/* Deliveries may step again, so the actions are this call's own. */
static void step(struct member *m, struct session_event event)
{
    struct session_actions *actions = malloc(sizeof *actions);

    if (actions == NULL)
        die("memory");
    event.now_us = clock_monotonic_us();
    event.random = random_next();
    (void)session_step(&m->session, &event, actions);
    for (uint32_t i = 0; i < actions->count; i++) {
        const struct session_action *action = &actions->list[i];

        switch (action->type) {
        case SESSION_CONNECT:
            begin_connect(m);
            break;
        case SESSION_SEND:
            send_message(m, &action->message);
            break;
        case SESSION_CLOSE:
            disconnect(m);
            break;
        case SESSION_DELIVER:
            news(m, &action->delivery);
            break;
        }
    }
    free(actions);
}

/* ---- reading -------------------------------------------------------------------------------- */

static void whole_frame(struct member *m)
{
    struct wire_message message;
    struct lint_fault fault;

    wire_arena_reset(&load.in);
    if (wire_decode(&load.in, &m->parser.header, m->parser.body, &message, &fault) != WIRE_OK) {
        (void)fprintf(stderr, "muster_load: member %u got what cannot be read\n", m->index);
        exit(70);
    }
    step(m, (struct session_event){.type = SESSION_MESSAGE, .message = &message});
}

static void take(struct member *m, const uint8_t *bytes, size_t length)
{
    while (m->fd >= 0) {
        enum frame_need need = frame_parser_feed(&m->parser, &bytes, &length);

        if (need == FRAME_NEED_MEMORY) {
            frame_parser_give(&m->parser, malloc(m->parser.header.body_bytes));
        } else if (need == FRAME_WHOLE) {
            whole_frame(m);
            if (m->fd >= 0)
                free(frame_parser_take(&m->parser));
        } else if (need == FRAME_BROKEN) {
            failed(m, "broken");
        } else {
            return;
        }
    }
}

static void readable(struct member *m)
{
    static uint8_t bytes[READ_BYTES];
    ssize_t n = recv(m->fd, bytes, sizeof bytes, 0);

    if (n > 0)
        take(m, bytes, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        failed(m, n == 0 ? "closed" : strerror(errno));
}

static void writable(struct member *m)
{
    if (m->connecting) {
        int error = 0;
        socklen_t size = sizeof error;

        (void)getsockopt(m->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) {
            failed(m, strerror(error));
            return;
        }
        m->connecting = false;
        step(m, (struct session_event){.type = SESSION_CONNECTED});
    }
    flush_out(m);
    if (m->fd >= 0)
        watch(m);
}

/* ---- words on standard input ---------------------------------------------------------------- */

/* Not all at once: a listener's backlog is 4096 at most, and what does not fit tries again after a
 * second. */
static void join_more(void)
{
    while (load.started < load.count && load.started < load.up + JOINING_MAX)
        step(&load.members[load.started++], (struct session_event){.type = SESSION_START});
}

static void enter_all(const char *name)
{
    load.barrier_open = true;
    (void)snprintf(load.barrier, sizeof load.barrier, "%s", name);
    for (uint32_t i = 0; i < load.count; i++) {
        struct member *m = &load.members[i];
        struct session_event event = {.type = SESSION_BARRIER};

        event.barrier.name = load.barrier;
        event.barrier.place = "load";
        m->waits = true;
        load.waiting++;
        note(m, "waits", m->session.barrier_seq + 1, 0, UINT32_MAX, 0);
        step(m, event);
    }
    say("entered");
}

static void quit_all(void)
{
    for (uint32_t i = 0; i < load.count; i++)
        if (!load.members[i].ended)
            step(&load.members[i], at(&load.members[i], SESSION_GOODBYE));
}

/* False at the end of the input. */
static bool command(void)
{
    static char line[256];
    static size_t used;
    ssize_t n = read(STDIN_FILENO, line + used, sizeof line - 1 - used);
    char *end;

    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    used += (size_t)n;
    line[used] = '\0';
    while ((end = strchr(line, '\n')) != NULL) {
        *end = '\0';
        if (strcmp(line, "join") == 0)
            load.joining = true;
        else if (strncmp(line, "barrier ", 8) == 0)
            enter_all(line + 8);
        else if (strcmp(line, "quit") == 0)
            quit_all();
        used -= (size_t)(end + 1 - line);
        memmove(line, end + 1, used + 1);
    }
    return true;
}

/* ---- the loop ------------------------------------------------------------------------------- */

static void wake_due(uint64_t now_us)
{
    for (uint32_t i = 0; i < load.count; i++) {
        struct member *m = &load.members[i];

        if (m->session.state == SESSION_CONNECTING && m->fd < 0)
            failed(m, "refused");
        else if (session_wake_us(&m->session) <= now_us)
            step(m, (struct session_event){.type = SESSION_WAKE});
    }
}

static void run(void)
{
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    uint64_t next_us = 0;
    bool open = true;

    (void)epoll_ctl(load.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input);
    while (open || load.ended < load.count) {
        int n = epoll_wait(load.epoll, events, EVENTS, 10);

        for (int i = 0; i < n; i++) {
            struct member *m = events[i].data.ptr;

            if (m == NULL) {
                open = command();
                if (!open)
                    return;
                continue;
            }
            if (m->fd >= 0 && (events[i].events & EPOLLOUT) != 0)
                writable(m);
            if (m->fd >= 0 && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
                readable(m);
        }
        if (load.joining)
            join_more();
        if (clock_monotonic_us() >= next_us) {
            wake_due(clock_monotonic_us());
            next_us = clock_monotonic_us() + 10000;
            if (load.log != NULL)
                (void)fflush(load.log);
        }
    }
}

/* ---- options -------------------------------------------------------------------------------- */

static const char *option(int argc, char **argv, const char *name, const char *fallback)
{
    for (int i = 1; i + 1 < argc; i += 2)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return fallback;
}

static uint32_t count_of(int argc, char **argv, const char *name)
{
    return (uint32_t)strtoul(option(argc, argv, name, "0"), NULL, 10);
}

static void member_init(struct member *m, uint32_t i, int argc, char **argv)
{
    uint32_t first = count_of(argc, argv, "--first"), of = count_of(argc, argv, "--of");
    size_t bytes = session_memory_bytes(of > 0 ? 1 : WIRE_MEMBERS_MAX);
    struct session_config *c = &m->config;
    static char host[65];

    m->index = first + i;
    m->fd = -1;
    session_config_init(c);
    (void)gethostname(host, sizeof host - 1);
    fill_random(&c->member_id, sizeof c->member_id);
    fill_random(&c->secret, sizeof c->secret);
    c->job = option(argc, argv, "--job", "load");
    c->kind = of > 0 ? WIRE_KIND_PARTICIPANT : WIRE_KIND_WORKER;
    c->node = c->host = host;
    c->data_address = of > 0 ? "" : "127.0.0.1:1";
    c->program = "muster_load";
    c->spec = c->fingerprint = "";
    c->pid = (uint32_t)getpid();
    c->min = count_of(argc, argv, "--min");
    c->max = count_of(argc, argv, "--max");
    c->rank_hint = of > 0 ? 1 + m->index : 0;
    c->group_size = of;
    m->rosters = malloc(bytes);
    if (m->rosters == NULL)
        die("memory");
    session_init(&m->session, c, m->rosters, bytes);
    frame_parser_init(&m->parser, FRAME_STATE_COORDINATOR);
}

int main(int argc, char **argv)
{
    const char *coordinator = option(argc, argv, "--coordinator", ""),
               *colon = strrchr(coordinator, ':');
    const char *log = option(argc, argv, "--log", NULL);
    struct rlimit files;
    char host[64] = "";

    load.count = count_of(argc, argv, "--members");
    if (colon == NULL || load.count == 0 || (size_t)(colon - coordinator) >= sizeof host) {
        (void)fprintf(
            stderr, "usage: muster_load --coordinator ADDR:PORT --job NAME --members N [--first K] "
                    "[--of W] [--min N --max N] [--log FILE]\n");
        return 64;
    }
    memcpy(host, coordinator, (size_t)(colon - coordinator));
    load.address.sin_family = AF_INET;
    load.address.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    if (inet_pton(AF_INET, host, &load.address.sin_addr) != 1)
        die(coordinator);
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    fill_random(&load.random, sizeof load.random);
    wire_arena_init(&load.in, malloc(WIRE_ARENA_BYTES), WIRE_ARENA_BYTES);
    wire_arena_init(&load.out, malloc(WIRE_ARENA_BYTES), WIRE_ARENA_BYTES);
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.members = calloc(load.count, sizeof *load.members);
    load.log = log != NULL ? fopen(log, "a") : NULL;
    if (load.epoll < 0 || load.members == NULL || (log != NULL && load.log == NULL))
        die("start");
    for (uint32_t i = 0; i < load.count; i++)
        member_init(&load.members[i], i, argc, argv);
    run();
    return 0;
}
