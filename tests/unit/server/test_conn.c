/* Connections of members: what is said about an end, the last word to who broke a rule, budgets. */
#include "server/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define FLOOD     2500
#define LAST_WORD "the last word"

struct rig {
    uv_loop_t loop;
    struct conns *conns;
    struct conn_limits limits;
    struct sockaddr_in address;
    uint64_t opened;        /* id of the newest connection */
    unsigned frames;        /* so far */
    uint64_t steps[2];      /* frames so far by the header's step, 0 or 1 */
    uint64_t before_other;  /* steps[0] when the first of step 1 came */
    unsigned closed;        /* so far */
    char peer[64];          /* of the last closed */
    char why[200];          /* of the last closed, "-" for none */
    char broken[200];       /* what broken_cb was told last */
};

static void on_opened(void *owner, uint64_t id)
{
    ((struct rig *)owner)->opened = id;
}

static void on_frame(void *owner, uint64_t id, const struct frame_header *header,
                     const uint8_t *body)
{
    struct rig *rig = owner;

    (void)body;
    rig->frames++;
    if (header->type == FRAME_HELLO)
        conns_admit(rig->conns, id);
    else if (rig->steps[header->step]++ == 0 && header->step == 1)
        rig->before_other = rig->steps[0];
}

static void on_broken(void *owner, uint64_t id, const char *peer, const char *why)
{
    struct rig *rig = owner;

    assert_memory_equal(peer, "127.0.0.1:", 10);
    (void)snprintf(rig->broken, sizeof rig->broken, "%s", why);
    conns_send(rig->conns, &id, 1, (const uint8_t *)LAST_WORD, sizeof LAST_WORD - 1);
}

static void on_closed(void *owner, uint64_t id, const char *peer, const char *why)
{
    struct rig *rig = owner;

    (void)id;
    rig->closed++;
    (void)snprintf(rig->peer, sizeof rig->peer, "%s", peer);
    (void)snprintf(rig->why, sizeof rig->why, "%s", why[0] != '\0' ? why : "-");
}

static void rig_init(struct rig *rig)
{
    static const struct conn_events events = {on_opened, on_frame, on_broken, on_closed};
    struct sockaddr_in any = {.sin_family = AF_INET};
    char text[CONN_ADDRESS_BYTES], error[200];

    memset(rig, 0, sizeof *rig);
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    conn_limits_default(&rig->limits);
    rig->limits.conn_count = 64;
    assert_int_equal(uv_loop_init(&rig->loop), 0);
    assert_int_equal(conns_open(&rig->conns, &rig->loop, &rig->limits, &events, rig,
                                (struct sockaddr *)&any, error, sizeof error),
                     0);
    conns_address(rig->conns, text, sizeof text);
    rig->address = any;
    rig->address.sin_port = htons((uint16_t)strtoul(strrchr(text, ':') + 1, NULL, 10));
}

static void rig_end(struct rig *rig)
{
    conns_stop(rig->conns);
    assert_int_equal(uv_run(&rig->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
}

static void turn(struct rig *rig)
{
    for (int i = 0; i < 20; i++)
        (void)uv_run(&rig->loop, UV_RUN_NOWAIT);
}

/* As at a tick so much later. */
static void judge_after(struct rig *rig, uint64_t ms)
{
    turn(rig);
    uv_update_time(&rig->loop);
    conns_judge(rig->conns, (uv_now(&rig->loop) + ms) * 1000);
    turn(rig);
}

static int dial(struct rig *rig)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&rig->address, sizeof rig->address), 0);
    turn(rig);
    return fd;
}

static void say(int fd, const void *bytes, size_t length)
{
    assert_int_equal(send(fd, bytes, length, MSG_NOSIGNAL), length);
}

static void say_frame(int fd, uint8_t type, uint64_t step)
{
    const struct frame_header header = {.version = 1, .type = type, .step = step};
    uint8_t bytes[FRAME_HEADER_BYTES];

    frame_header_encode(&header, bytes);
    say(fd, bytes, sizeof bytes);
}

/* A member's connection. */
static int join(struct rig *rig)
{
    int fd = dial(rig);

    say_frame(fd, FRAME_HELLO, 0);
    turn(rig);
    return fd;
}

/* Everything until the end, which must have come. */
static const char *hear_all(int fd)
{
    static char text[4096];
    size_t length = 0;
    ssize_t got;

    do {
        got = recv(fd, text + length, sizeof text - 1 - length, MSG_DONTWAIT);
        length += got > 0 ? (size_t)got : 0;
    } while (got > 0);
    if (got < 0)
        assert_int_equal(errno, ECONNRESET);
    text[length] = '\0';
    return text;
}

static void expect_end(struct rig *rig, int fd, const char *why)
{
    struct sockaddr_in own;
    socklen_t length = sizeof own;
    char peer[64];

    assert_int_equal(getsockname(fd, (struct sockaddr *)&own, &length), 0);
    (void)snprintf(peer, sizeof peer, "127.0.0.1:%u", ntohs(own.sin_port));
    assert_int_equal(rig->closed, 1);
    assert_string_equal(rig->peer, peer);
    if (strstr(rig->why, why) == NULL)
        fail_msg("expected '%s': %s", why, rig->why);
    rig->closed = 0;
    (void)close(fd);
}

/* ---- ends ----------------------------------------------------------------------------------- */

static void an_end_is_told_with_its_peer_and_why(void **state)
{
    struct rig rig;
    int fd;

    (void)state;
    rig_init(&rig);
    fd = dial(&rig);
    say(fd, "GET / HTTP/1.1\r\n", 16);
    turn(&rig);
    expect_end(&rig, fd, "magic");
    assert_string_equal(rig.broken, "");
    fd = dial(&rig);
    judge_after(&rig, rig.limits.handshake_ms + 1);
    expect_end(&rig, fd, "introduce itself");
    fd = join(&rig);
    say(fd, "MSTR", 4);
    judge_after(&rig, rig.limits.frame_ms + 1);
    expect_end(&rig, fd, "did not end it in time");
    fd = join(&rig);
    say(fd, "MSTR", 4);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    turn(&rig);
    expect_end(&rig, fd, "inside a frame");
    rig_end(&rig);
}

static void an_orderly_end_needs_no_words(void **state)
{
    struct rig rig;
    int fd;

    (void)state;
    rig_init(&rig);
    fd = join(&rig);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    turn(&rig);
    expect_end(&rig, fd, "-");
    fd = dial(&rig);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    turn(&rig);
    expect_end(&rig, fd, "-");
    fd = join(&rig);
    conns_close(rig.conns, rig.opened);
    judge_after(&rig, 0);
    expect_end(&rig, fd, "-");
    rig_end(&rig);
}

/* ---- broken rules --------------------------------------------------------------------------- */

/* Who speaks frames at all hears why its frame is refused, and then the end. */
static void who_breaks_a_rule_hears_a_last_word(void **state)
{
    static const struct {
        struct frame_header header;
        bool member;
        enum frame_error error;
    } rows[] = {
        {{.version = 9, .type = FRAME_HELLO}, false, FRAME_ERROR_VERSION},
        {{.version = 1, .type = 200}, false, FRAME_ERROR_TYPE},
        {{.version = 1, .type = FRAME_BEAT}, false, FRAME_ERROR_STATE},
        {{.version = 1, .type = FRAME_HELLO}, true, FRAME_ERROR_STATE},
        {{.version = 1, .type = FRAME_WELCOME}, true, FRAME_ERROR_STATE},
        {{.version = 1, .type = FRAME_HELLO, .flags = 2}, false, FRAME_ERROR_FLAGS},
        {{.version = 1, .type = FRAME_BEAT, .body_bytes = 8193}, true, FRAME_ERROR_LENGTH},
    };
    struct conn_counters counters;
    struct rig rig;

    (void)state;
    rig_init(&rig);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int fd = rows[i].member ? join(&rig) : dial(&rig);
        uint8_t bytes[FRAME_HEADER_BYTES];

        frame_header_encode(&rows[i].header, bytes);
        say(fd, bytes, sizeof bytes);
        say(fd, "and more that nobody reads", 26);
        judge_after(&rig, 0);
        assert_string_equal(rig.broken, frame_error_text(rows[i].error));
        assert_string_equal(hear_all(fd), LAST_WORD);
        expect_end(&rig, fd, "-");
    }
    conns_counters(rig.conns, &counters);
    assert_int_equal(counters.refused_frames, sizeof rows / sizeof rows[0]);
    rig_end(&rig);
}

/* ---- budgets -------------------------------------------------------------------------------- */

/* One writes as fast as it can: it is heard at its rate, and the others between. */
static void a_flood_of_frames_waits_for_its_rate(void **state)
{
    struct rig rig;
    int flood, other;
    uint64_t began_us, allowed;

    (void)state;
    rig_init(&rig);
    flood = join(&rig);
    other = join(&rig);
    for (unsigned i = 0; i < FLOOD; i++)
        say_frame(flood, FRAME_BEAT, 0);
    say_frame(other, FRAME_BEAT, 1);
    uv_update_time(&rig.loop);
    began_us = uv_now(&rig.loop) * 1000;
    while (rig.steps[0] < FLOOD) {
        (void)uv_run(&rig.loop, UV_RUN_NOWAIT);
        conns_judge(rig.conns, uv_now(&rig.loop) * 1000);
        allowed = rig.limits.frames_per_s +
                  (uv_now(&rig.loop) * 1000 - began_us) * rig.limits.frames_per_s / 1000000;
        if (rig.steps[0] > allowed + 2)
            fail_msg("%llu frames were taken, allowed: %llu", (unsigned long long)rig.steps[0],
                     (unsigned long long)allowed);
    }
    assert_int_equal(rig.steps[1], 1);
    assert_true(rig.before_other <= rig.limits.frames_per_s);
    assert_int_equal(rig.closed, 0);
    (void)close(flood);
    (void)close(other);
    rig_end(&rig);
}

/* ---- the document --------------------------------------------------------------------------- */

static void expect_row(const char *document, const char *what, uint64_t limit, const char *unit)
{
    char row[160];

    (void)snprintf(row, sizeof row, "\n| %s | %llu%s |", what, (unsigned long long)limit, unit);
    if (strstr(document, row) == NULL)
        fail_msg("PROTOCOL.md has no row '%s'", row + 1);
}

static void its_limits_are_in_the_document(void **state)
{
    static char document[1 << 17];
    struct conn_limits limits;
    FILE *file = fopen(PROTOCOL_MD, "r");

    (void)state;
    assert_non_null(file);
    assert_true(fread(document, 1, sizeof document - 1, file) > 0);
    (void)fclose(file);
    conn_limits_default(&limits);
    expect_row(document, "from the connection to the end of HELLO", limits.handshake_ms / 1000,
               " s");
    expect_row(document, "from a frame's first byte to its last", limits.frame_ms / 1000, " s");
    expect_row(document, "without taking a byte of what waits for it", limits.write_ms / 1000,
               " s");
    expect_row(document, "what waits to be sent to one connection", limits.queue_bytes >> 20,
               " MiB");
    expect_row(document, "what waits to be sent to all connections", limits.waiting_bytes >> 20,
               " MiB");
    expect_row(document, "frames of one connection in a second, and at once", limits.frames_per_s,
               "");
    expect_row(document, "connections that were not welcomed yet", limits.stranger_count, "");
    expect_row(document, "their unfinished frames together", limits.stranger_bytes >> 20, " MiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_end_is_told_with_its_peer_and_why),
        cmocka_unit_test(an_orderly_end_needs_no_words),
        cmocka_unit_test(who_breaks_a_rule_hears_a_last_word),
        cmocka_unit_test(a_flood_of_frames_waits_for_its_rate),
        cmocka_unit_test(its_limits_are_in_the_document),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
