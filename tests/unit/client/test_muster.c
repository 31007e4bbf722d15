/* libmuster against a coordinator of sockets, driven by the test. */
#include "client/muster.h"
#include "fake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

enum { PATIENCE_MS = 20000 };

/* A member of a fake coordinator's job. */
struct fixture {
    struct fake fake;
    struct muster_options options;
    struct muster *muster;
    struct muster_error error;
};

static void setup(struct fixture *fixture)
{
    memset(fixture, 0, sizeof *fixture);
    fake_open(&fixture->fake, AF_INET);
    muster_options_init(&fixture->options);
    fixture->options.coordinator = fixture->fake.address;
    fixture->options.job = "demo";
    fixture->options.node = "node1";
    fixture->options.program = "test 1.0";
    fixture->options.data_address = ":4000";
    fixture->options.spec = "lr=0.1\nseed=1\n";
    fixture->options.member_id[0] = 0xaa;
}

static void open_admitted(struct fixture *fixture, struct wire_message *hello)
{
    struct muster_event *event = NULL;

    assert_int_equal(muster_open(&fixture->options, &fixture->muster, &fixture->error), MUSTER_OK);
    fake_admit(&fixture->fake, hello);
    assert_int_equal(muster_next(fixture->muster, PATIENCE_MS, &event), MUSTER_OK);
    assert_int_equal(event->type, MUSTER_UP);
    muster_event_free(event);
}

static void teardown(struct fixture *fixture)
{
    muster_close(fixture->muster);
    fake_close(&fixture->fake);
}

static struct muster_event *expect(struct fixture *fixture, enum muster_event_type type)
{
    struct muster_event *event = NULL;

    assert_int_equal(muster_next(fixture->muster, PATIENCE_MS, &event), MUSTER_OK);
    assert_string_equal(muster_event_name(event->type), muster_event_name(type));
    return event;
}

static struct wire_message formed(uint64_t number, const struct wire_member *members,
                                  uint32_t count)
{
    return (struct wire_message){
        .header = {.type = FRAME_GENERATION, .generation = number, .nonce = 99, .step = 12},
        .generation = {.mode = WIRE_MODE_FORMED,
                       .key = {{0x5e}},
                       .members = members,
                       .members_count = count,
                       .reason = "all members are there",
                       .detect_us = 11,
                       .push_us = 22,
                       .rendezvous_us = 33},
    };
}

static const struct wire_member two_members[2] = {
    {.id = {{0xbb}},
     .rank = 0,
     .node = "node0",
     .host = "h0",
     .data_address = "10.0.0.1:5",
     .pid = 7,
     .applied = 12,
     .owned = (const uint8_t *)"\x0f",
     .owned_bytes = 1,
     .frozen = true},
    {.id = {{0xaa}}, .rank = 1, .node = "node1", .host = "h1", .data_address = "10.0.0.2:5"},
};

static void joins_beats_and_says_goodbye(void **state)
{
    struct fixture fixture;
    struct wire_message message;
    struct muster_event *event;
    struct muster_progress progress = {
        .phase = MUSTER_PHASE_COMPUTE, .applied = 3, .loss = 0.5f, .shard_us = 7000, .shards = 8};

    (void)state;
    setup(&fixture);
    open_admitted(&fixture, &message);
    assert_string_equal(message.hello.job, "demo");
    assert_string_equal(message.hello.node, "node1");
    assert_string_equal(message.hello.data_address, ":4000");
    assert_string_equal(message.hello.spec, "lr=0.1\nseed=1\n");
    assert_int_equal(message.hello.pid, getpid());
    assert_int_equal(message.hello.member_id.bytes[0], 0xaa);
    assert_false(wire_id_zero(&message.hello.secret));
    assert_int_equal(message.hello.rank_hint, 0);
    muster_progress(fixture.muster, &progress);
    do
        fake_read(&fixture.fake, FRAME_BEAT, &message);
    while (message.beat.phase != WIRE_PHASE_COMPUTE);
    assert_int_equal(message.header.step, 3);
    assert_true(message.beat.loss == 0.5f);
    assert_int_equal(message.beat.shard_us, 7000);
    assert_int_equal(message.beat.shards, 8);
    assert_int_equal(muster_goodbye(fixture.muster, 0, "finished", 0), MUSTER_ERROR_TIMEOUT);
    fake_read(&fixture.fake, FRAME_GOODBYE, &message);
    assert_string_equal(message.goodbye.text, "finished");
    assert_true(fake_at_end(&fixture.fake));
    event = expect(&fixture, MUSTER_ENDED);
    assert_int_equal(event->status, MUSTER_OK);
    muster_event_free(event);
    assert_int_equal(muster_next(fixture.muster, -1, &event), MUSTER_ERROR_ENDED);
    assert_int_equal(muster_goodbye(fixture.muster, 0, "", 0), MUSTER_ERROR_ENDED);
    teardown(&fixture);
}

/* Bytes that the member did not read yet do not turn the goodbye into a reset. */
static void goodbye_arrives_in_spite_of_unread_bytes(void **state)
{
    struct fixture fixture;
    struct wire_message message;
    struct wire_message ack = {.header = {.type = FRAME_BEAT_ACK}};

    (void)state;
    setup(&fixture);
    open_admitted(&fixture, NULL);
    for (uint32_t i = 0; i < 1000; i++)
        fake_send(&fixture.fake, &ack);
    (void)muster_goodbye(fixture.muster, 0, "", 0);
    for (uint32_t i = 0; i < 1000; i++)
        fake_send(&fixture.fake, &ack);
    fake_read(&fixture.fake, FRAME_GOODBYE, &message);
    assert_true(fake_at_end(&fixture.fake));
    teardown(&fixture);
}

static void tells_a_generation(void **state)
{
    struct fixture fixture;
    struct wire_message message = formed(5, two_members, 2);
    struct muster_event *event;
    struct muster_position position;

    (void)state;
    setup(&fixture);
    open_admitted(&fixture, NULL);
    fake_send(&fixture.fake, &message);
    event = expect(&fixture, MUSTER_FORMED);
    assert_int_equal(event->generation, 5);
    assert_int_equal(event->nonce, 99);
    assert_int_equal(event->step, 12);
    assert_int_equal(event->member_count, 2);
    assert_int_equal(event->self, 1);
    assert_int_equal(event->key[0], 0x5e);
    assert_int_equal(event->rendezvous_us, 33);
    assert_string_equal(event->text, "all members are there");
    assert_string_equal(event->members[0].data_address, "10.0.0.1:5");
    assert_string_equal(event->members[1].node, "node1");
    assert_int_equal(event->members[0].owned[0], 0x0f);
    assert_true(event->members[0].frozen);
    position = (struct muster_position){event->generation, event->nonce, event->step};
    assert_int_equal(muster_entered(fixture.muster, &position, &(struct muster_times){1, 2, 3}),
                     MUSTER_OK);
    fake_read(&fixture.fake, FRAME_ENTERED, &message);
    assert_int_equal(message.header.generation, 5);
    assert_int_equal(message.header.nonce, 99);
    assert_int_equal(message.entered.recompute_us, 3);
    muster_event_free(event);
    teardown(&fixture);
}

/* What is told at once after a word is newer than the word, although the session takes progress by
 * another way than words: beats once stood at the step at which the generation was entered. */
static void progress_and_words_keep_their_order(void **state)
{
    struct fixture fixture;
    struct wire_message message = formed(5, two_members, 2);
    struct muster_position position = {5, 99, 12};
    struct muster_progress progress = {.phase = MUSTER_PHASE_COMPUTE, .applied = 12};

    (void)state;
    setup(&fixture);
    open_admitted(&fixture, NULL);
    fake_send(&fixture.fake, &message);
    muster_event_free(expect(&fixture, MUSTER_FORMED));
    muster_progress(fixture.muster, &progress);
    assert_int_equal(muster_entered(fixture.muster, &position, NULL), MUSTER_OK);
    progress.applied = 13;
    progress.loss = 0.5f;
    muster_progress(fixture.muster, &progress);
    assert_int_equal(muster_finished(fixture.muster, &position, 1, 0.5), MUSTER_OK);
    fake_read(&fixture.fake, FRAME_ENTERED, &message);
    assert_int_equal(message.header.step, 12);
    do
        fake_read(&fixture.fake, FRAME_BEAT, &message);
    while (message.beat.loss != 0.5f);
    assert_int_equal(message.header.step, 13);
    fake_read(&fixture.fake, FRAME_FINISHED, &message);
    teardown(&fixture);
}

/* The connection breaks in a generation: told, made anew, the word said again. */
static void reattaches_after_a_reset(void **state)
{
    struct fixture fixture;
    struct wire_message message = formed(5, two_members, 2);
    struct muster_position position = {5, 99, 12};
    struct muster_event *event;

    (void)state;
    setup(&fixture);
    open_admitted(&fixture, NULL);
    fake_send(&fixture.fake, &message);
    muster_event_free(expect(&fixture, MUSTER_FORMED));
    assert_int_equal(muster_entered(fixture.muster, &position, NULL), MUSTER_OK);
    fake_read(&fixture.fake, FRAME_ENTERED, &message);
    fake_drop(&fixture.fake, true);
    event = expect(&fixture, MUSTER_DOWN);
    assert_non_null(strstr(event->text, fixture.fake.address));
    muster_event_free(event);
    fake_admit(&fixture.fake, &message);
    assert_int_equal(message.hello.attach, WIRE_ATTACH_RUNNING);
    assert_int_equal(message.hello.roster_count, 2);
    assert_string_equal(message.hello.roster[0].host, "h0");
    muster_event_free(expect(&fixture, MUSTER_UP));
    fake_read(&fixture.fake, FRAME_ENTERED, &message);
    teardown(&fixture);
}

static void waits_for_generations(void **state)
{
    struct fixture fixture;
    struct wire_message message = formed(5, two_members, 2);
    struct wire_message over = {.header = {.type = FRAME_OVER, .generation = 5, .nonce = 99},
                                .over = {.lost = &(const wire_id){{0xbb}}, .lost_count = 1}};
    struct wire_message next = formed(6, two_members + 1, 1);
    struct muster_position position = {.step = 12};
    struct muster_event *event = NULL;

    (void)state;
    setup(&fixture);
    open_admitted(&fixture, NULL);
    assert_int_equal(muster_wait_generation(fixture.muster, &position, 10, &event, NULL),
                     MUSTER_ERROR_TIMEOUT);
    assert_null(event);
    fake_send(&fixture.fake, &message);
    assert_int_equal(
        muster_wait_generation(fixture.muster, &position, PATIENCE_MS, &event, &fixture.error),
        MUSTER_OK);
    assert_int_equal(event->generation, 5);
    muster_event_free(event);
    fake_read(&fixture.fake, FRAME_ENTERED, &message);
    position = (struct muster_position){5, 99, 13};
    fake_send(&fixture.fake, &over);
    event = expect(&fixture, MUSTER_OVER);
    assert_int_equal(event->lost_count, 1);
    assert_int_equal(event->lost[0][0], 0xbb);
    muster_event_free(event);
    fake_send(&fixture.fake, &next);
    assert_int_equal(
        muster_wait_generation(fixture.muster, &position, PATIENCE_MS, &event, &fixture.error),
        MUSTER_OK);
    fake_read(&fixture.fake, FRAME_REPORT, &message);
    assert_int_equal(message.header.generation, 5);
    assert_int_equal(message.header.step, 13);
    fake_read(&fixture.fake, FRAME_ENTERED, &message);
    assert_int_equal(message.header.generation, 6);
    muster_event_free(event);
    teardown(&fixture);
}

/* The largest roster, over a stream that arrives in pieces. */
static void takes_a_thousand_members(void **state)
{
    static char texts[WIRE_MEMBERS_MAX][WIRE_NAME_BYTES + 1];
    struct wire_member *members = calloc(WIRE_MEMBERS_MAX, sizeof *members);
    struct fixture fixture;
    struct wire_message message;
    struct muster_event *event;

    (void)state;
    setup(&fixture);
    open_admitted(&fixture, NULL);
    for (uint32_t i = 0; i < WIRE_MEMBERS_MAX; i++) {
        (void)snprintf(texts[i], sizeof texts[i], "node-%055u", i);
        members[i] = (struct wire_member){
            .rank = i, .node = texts[i], .host = texts[i], .data_address = texts[i]};
        members[i].id.bytes[0] = 1;
        members[i].id.bytes[14] = (uint8_t)(i >> 8);
        members[i].id.bytes[15] = (uint8_t)i;
    }
    memcpy(&members[1000].id, fixture.options.member_id, sizeof members[1000].id);
    message = formed(5, members, WIRE_MEMBERS_MAX);
    fake_send(&fixture.fake, &message);
    event = expect(&fixture, MUSTER_FORMED);
    assert_int_equal(event->member_count, WIRE_MEMBERS_MAX);
    assert_int_equal(event->self, 1000);
    assert_string_equal(event->members[1023].host, texts[1023]);
    muster_event_free(event);
    fake_drop(&fixture.fake, true);
    fake_admit(&fixture.fake, &message);
    assert_int_equal(message.hello.roster_count, WIRE_MEMBERS_MAX);
    teardown(&fixture);
    free(members);
}

static void refusal_is_told(void **state)
{
    struct fixture fixture;
    struct wire_message hello;
    struct wire_message message = {
        .header = {.type = FRAME_REFUSED},
        .refused = {.why = WIRE_REFUSAL_SPEC,
                    .exit_code = 77,
                    .text = "lr=0.1 here, lr=0.2 in job"},
    };
    struct muster_event *event;

    (void)state;
    setup(&fixture);
    assert_int_equal(muster_open(&fixture.options, &fixture.muster, &fixture.error), MUSTER_OK);
    fake_accept(&fixture.fake);
    fake_read(&fixture.fake, FRAME_HELLO, &hello);
    fake_send(&fixture.fake, &message);
    event = expect(&fixture, MUSTER_ENDED);
    assert_int_equal(event->status, MUSTER_ERROR_REFUSED);
    assert_int_equal(event->refusal, WIRE_REFUSAL_SPEC);
    assert_int_equal(event->exit_code, 77);
    assert_string_equal(event->text, "lr=0.1 here, lr=0.2 in job");
    muster_event_free(event);
    teardown(&fixture);
}

/* muster_join() against each kind of coordinator, from a thread since it blocks. */
struct joiner {
    struct fixture *fixture;
    int timeout_ms;
    enum muster_status status;
};

static void *join(void *context)
{
    struct joiner *joiner = context;

    joiner->status = muster_join(&joiner->fixture->options, joiner->timeout_ms,
                                 &joiner->fixture->muster, &joiner->fixture->error);
    return NULL;
}

static void join_waits_for_admission(void **state)
{
    struct fixture fixture;
    struct joiner joiner = {&fixture, PATIENCE_MS, MUSTER_ERROR_SYSTEM};
    pthread_t thread;

    (void)state;
    setup(&fixture);
    assert_int_equal(pthread_create(&thread, NULL, join, &joiner), 0);
    fake_admit(&fixture.fake, NULL);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(joiner.status, MUSTER_OK);
    muster_event_free(expect(&fixture, MUSTER_UP));
    teardown(&fixture);
}

static void join_without_an_answer(void **state)
{
    struct fixture fixture;

    (void)state;
    setup(&fixture);
    assert_int_equal(muster_join(&fixture.options, 50, &fixture.muster, &fixture.error),
                     MUSTER_ERROR_TIMEOUT);
    assert_null(fixture.muster);
    assert_int_equal(fixture.error.exit_code, 75);
    assert_non_null(strstr(fixture.error.text, fixture.fake.address));
    fake_close(&fixture.fake);
}

static void unreachable_coordinator_is_named(void **state)
{
    struct fixture fixture;

    (void)state;
    setup(&fixture);
    fixture.options.connect_timeout_ms = 300;
    (void)close(fixture.fake.listener); /* nobody listens there now */
    assert_int_equal(muster_join(&fixture.options, -1, &fixture.muster, &fixture.error),
                     MUSTER_ERROR_UNAVAILABLE);
    assert_int_equal(fixture.error.exit_code, 69);
    assert_non_null(strstr(fixture.error.text, fixture.fake.address));
    assert_non_null(strstr(fixture.error.text, "refused"));
    fixture.fake.listener = -1;
    fake_close(&fixture.fake);
}

static void name_without_an_address(void **state)
{
    struct fixture fixture;

    (void)state;
    setup(&fixture);
    fixture.options.coordinator = "no-such-host.invalid:7070";
    fixture.options.connect_timeout_ms = 200;
    assert_int_equal(muster_join(&fixture.options, -1, &fixture.muster, &fixture.error),
                     MUSTER_ERROR_UNAVAILABLE);
    assert_non_null(strstr(fixture.error.text, "no-such-host.invalid:7070"));
    fake_close(&fixture.fake);
}

static void speaks_ipv6_and_names(void **state)
{
    struct fixture fixture;
    struct fake second;
    char address[64];

    (void)state;
    setup(&fixture);
    fake_close(&fixture.fake);
    fake_open(&second, AF_INET6);
    fixture.options.coordinator = second.address;
    assert_int_equal(muster_open(&fixture.options, &fixture.muster, &fixture.error), MUSTER_OK);
    fake_admit(&second, NULL);
    muster_close(fixture.muster);
    fake_close(&second);
    /* "localhost" may have two addresses; the one that refuses is passed over */
    fake_open(&second, AF_INET);
    (void)snprintf(address, sizeof address, "localhost%s", strrchr(second.address, ':'));
    fixture.options.coordinator = address;
    assert_int_equal(muster_open(&fixture.options, &fixture.muster, &fixture.error), MUSTER_OK);
    fake_admit(&second, NULL);
    muster_close(fixture.muster);
    fake_close(&second);
}

static void wrong_options_are_named(void **state)
{
    struct muster_options good, bad;
    struct muster *muster = NULL;
    struct muster_error error;
    char text[5000];

    (void)state;
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    muster_options_init(&good);
    good.coordinator = "127.0.0.1:1";
    good.job = "demo";
#define BAD(field, value, word)                                                                    \
    bad = good;                                                                                    \
    bad.field = (value);                                                                           \
    assert_int_equal(muster_open(&bad, &muster, &error), MUSTER_ERROR_USAGE);                      \
    assert_null(muster);                                                                           \
    assert_int_equal(error.exit_code, 64);                                                         \
    assert_non_null(strstr(error.text, word));
    BAD(coordinator, NULL, "coordinator")
    BAD(coordinator, "127.0.0.1", "HOST:PORT")
    BAD(coordinator, "127.0.0.1:0", "127.0.0.1:0")
    BAD(coordinator, "127.0.0.1:65536", "HOST:PORT")
    BAD(coordinator, "127.0.0.1:70 ", "HOST:PORT")
    BAD(coordinator, ":7070", "HOST:PORT")
    BAD(coordinator, "::1:7070", "HOST:PORT")
    BAD(coordinator, "[]:7070", "HOST:PORT")
    BAD(job, NULL, "job")
    BAD(job, "", "job")
    BAD(job, text, "job is too long: 4999 bytes, at most 64")
    BAD(job, "a\nb", "job")
    BAD(node, "\xff", "node")
    BAD(data_address, text, "data_address")
    BAD(program, "\x01", "program")
    BAD(spec, text, "spec")
    BAD(spec, "a=1\r\n", "spec")
    BAD(fingerprint, text, "fingerprint")
    BAD(kind, (enum muster_kind)3, "kind")
#undef BAD
    muster_close(NULL);
    muster_event_free(NULL);
}

static void own_address_on_the_way(void **state)
{
    struct muster_error error;
    char address[64];

    (void)state;
    assert_int_equal(muster_local_address("127.0.0.1:7070", address, sizeof address, &error),
                     MUSTER_OK);
    assert_string_equal(address, "127.0.0.1");
    assert_int_equal(muster_local_address("[::1]:7070", address, sizeof address, &error),
                     MUSTER_OK);
    assert_string_equal(address, "::1");
    assert_int_equal(muster_local_address("7070", address, sizeof address, &error),
                     MUSTER_ERROR_USAGE);
    assert_int_equal(
        muster_local_address("no-such-host.invalid:1", address, sizeof address, &error),
        MUSTER_ERROR_UNAVAILABLE);
    assert_non_null(strstr(error.text, "no-such-host.invalid:1"));
    assert_int_equal(muster_local_address("127.0.0.1:7070", address, 3, &error),
                     MUSTER_ERROR_UNAVAILABLE);
}

static void *release_barrier(void *context)
{
    struct fake *fake = context;
    struct wire_message message;
    static const enum wire_barrier_end ends[] = {WIRE_BARRIER_GENERATION, WIRE_BARRIER_RELEASED,
                                                 WIRE_BARRIER_DEADLOCK};
    struct wire_message waiting = {.header = {.type = FRAME_WAITING},
                                   .waiting = {.have = 1, .min = 2, .max = 2, .text = "one"}};

    for (uint32_t i = 0; i < 3; i++) {
        struct wire_message result = {.header = {.type = FRAME_BARRIER_RESULT}};

        fake_read(fake, FRAME_BARRIER_ENTER, &message);
        result.barrier_result = (struct wire_barrier_result){
            .name = "epoch", .seq = message.barrier_enter.seq, .end = ends[i], .text = "0 and 1"};
        fake_send(fake, &waiting);
        fake_send(fake, &result);
    }
    return NULL;
}

/* A generation that ends is entered again by itself; other events stay in the queue. */
static void barriers_block_and_explain(void **state)
{
    struct fixture fixture;
    pthread_t thread;

    (void)state;
    setup(&fixture);
    open_admitted(&fixture, NULL);
    assert_int_equal(pthread_create(&thread, NULL, release_barrier, &fixture.fake), 0);
    assert_int_equal(muster_barrier(fixture.muster, "epoch", "main.c", PATIENCE_MS, &fixture.error),
                     MUSTER_OK);
    assert_int_equal(muster_barrier(fixture.muster, "epoch", "main.c", PATIENCE_MS, &fixture.error),
                     MUSTER_ERROR_BARRIER);
    assert_string_equal(fixture.error.text, "0 and 1");
    assert_int_equal(pthread_join(thread, NULL), 0);
    muster_event_free(expect(&fixture, MUSTER_WAITING));
    assert_int_equal(muster_barrier(fixture.muster, "epoch", "", 10, &fixture.error),
                     MUSTER_ERROR_TIMEOUT);
    assert_int_equal(muster_barrier(fixture.muster, "epoch", "", 10, &fixture.error),
                     MUSTER_ERROR_BUSY);
    assert_int_equal(muster_barrier_enter(fixture.muster, "epoch", ""), MUSTER_ERROR_BUSY);
    assert_int_equal(muster_barrier_enter(fixture.muster, "", ""), MUSTER_ERROR_USAGE);
    assert_int_equal(muster_barrier(fixture.muster, "a\n", "", 10, NULL), MUSTER_ERROR_USAGE);
    teardown(&fixture);
}

static bool readable(const struct fixture *fixture, int timeout_ms)
{
    struct pollfd poller = {.fd = muster_descriptor(fixture->muster), .events = POLLIN};

    return poll(&poller, 1, timeout_ms) == 1;
}

static void count_wakes(void *context)
{
    __atomic_add_fetch((int *)context, 1, __ATOMIC_SEQ_CST);
}

static void descriptor_follows_the_queue(void **state)
{
    struct fixture fixture;
    struct wire_message drain = {.header = {.type = FRAME_DRAIN_REQUEST},
                                 .drain_request = {.reason = "maintenance"}};
    int wakes = 0;

    (void)state;
    setup(&fixture);
    fixture.options.wake_cb = count_wakes;
    fixture.options.wake_context = &wakes;
    open_admitted(&fixture, NULL);
    assert_false(readable(&fixture, 0));
    fake_send(&fixture.fake, &drain);
    assert_true(readable(&fixture, PATIENCE_MS));
    assert_true(readable(&fixture, 0));
    muster_event_free(expect(&fixture, MUSTER_DRAIN));
    assert_false(readable(&fixture, 0));
    teardown(&fixture);
    assert_true(wakes >= 2);
}

/* A program that does not take its events: WAITING is coalesced, the rest is bounded. */
static void events_that_nobody_takes_are_bounded(void **state)
{
    struct fixture fixture;
    struct wire_message waiting = {.header = {.type = FRAME_WAITING}, .waiting = {.text = "w"}};
    struct wire_message drain = {.header = {.type = FRAME_DRAIN_REQUEST}};
    struct muster_event *event = NULL;
    uint32_t count = 0;

    (void)state;
    setup(&fixture);
    open_admitted(&fixture, NULL);
    for (uint32_t i = 1; i <= 6000; i++) {
        waiting.waiting.have = i;
        fake_send(&fixture.fake, &waiting);
    }
    do {
        muster_event_free(event);
        event = expect(&fixture, MUSTER_WAITING);
    } while (event->have < 6000);
    muster_event_free(event);
    for (uint32_t i = 0; i < 4200 && fake_try_send(&fixture.fake, &drain); i++) {
        /* until the session gives up and closes, which may be before the last */
    }
    while (!fake_at_end(&fixture.fake)) {
    }
    for (;;) {
        assert_int_equal(muster_next(fixture.muster, PATIENCE_MS, &event), MUSTER_OK);
        if (event->type != MUSTER_DRAIN)
            break;
        muster_event_free(event);
        count++;
    }
    assert_int_equal(event->type, MUSTER_ENDED);
    assert_int_equal(event->status, MUSTER_ERROR_SYSTEM);
    assert_int_equal(count, 4096);
    muster_event_free(event);
    teardown(&fixture);
}

/* Nonsense from the coordinator's port: the connection is dropped with a reason and made anew. */
static void nonsense_is_survived(void **state)
{
    struct fixture fixture;
    struct muster_event *event;

    (void)state;
    setup(&fixture);
    open_admitted(&fixture, NULL);
    fake_send_bytes(&fixture.fake, (const uint8_t *)"HTTP/1.1 400 Bad Request\r\n", 26);
    event = expect(&fixture, MUSTER_DOWN);
    assert_non_null(strstr(event->text, "magic"));
    muster_event_free(event);
    fake_drop(&fixture.fake, false);
    fake_admit(&fixture.fake, NULL);
    muster_event_free(expect(&fixture, MUSTER_UP));
    /* a valid frame with a body that breaks the lint: an over-long number */
    fake_send_bytes(&fixture.fake,
                    (const uint8_t *)"MSTR\x01\x49\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                     "\0\0\0\0\0\0\0\0\x08\x80\0",
                    39);
    event = expect(&fixture, MUSTER_DOWN);
    assert_non_null(strstr(event->text, "longer than needed"));
    muster_event_free(event);
    teardown(&fixture);
}

static volatile sig_atomic_t pipe_signals;

static void count_pipe(int number)
{
    (void)number;
    pipe_signals = pipe_signals + 1;
}

/* Writing to a reset connection raises no signal in the host, whose mask and handlers stay. */
static void host_sees_no_signal(void **state)
{
    struct sigaction action = {.sa_handler = count_pipe};
    struct sigaction before, after;
    sigset_t mask_before, mask_after;
    struct fixture fixture;
    struct muster_position position = {1, 1, 1};

    (void)state;
    assert_int_equal(sigaction(SIGPIPE, &action, NULL), 0);
    assert_int_equal(sigaction(SIGPIPE, NULL, &before), 0);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mask_before), 0);
    setup(&fixture);
    open_admitted(&fixture, NULL);
    for (uint32_t round = 0; round < 20; round++) {
        fake_drop(&fixture.fake, true);
        for (uint32_t i = 0; i < 50; i++)
            (void)muster_leave(fixture.muster, &position, i);
        fake_admit(&fixture.fake, NULL);
    }
    teardown(&fixture);
    assert_int_equal(pipe_signals, 0);
    assert_int_equal(sigaction(SIGPIPE, NULL, &after), 0);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mask_after), 0);
    assert_true(before.sa_handler == after.sa_handler);
    for (int number = 1; number < NSIG; number++)
        assert_int_equal(sigismember(&mask_before, number), sigismember(&mask_after, number));
}

/* Several threads at once, for TSan. */
static void *talk(void *context)
{
    struct fixture *fixture = context;
    struct muster_position position = {0, 0, 1};

    for (uint32_t i = 0; i < 200; i++) {
        struct muster_progress progress = {.phase = MUSTER_PHASE_COMPUTE, .applied = i};
        struct muster_report report = {.owned = (const uint8_t *)"\x01", .owned_bytes = 1};
        struct muster_event *event = NULL;

        muster_progress(fixture->muster, &progress);
        (void)muster_report(fixture->muster, &position, &report);
        (void)muster_finished(fixture->muster, &position, i, 0.5);
        (void)muster_ready(fixture->muster, &position, i);
        if (muster_next(fixture->muster, 0, &event) == MUSTER_OK)
            muster_event_free(event);
    }
    return NULL;
}

static void many_threads_at_once(void **state)
{
    struct fixture fixture;
    struct wire_message waiting = {.header = {.type = FRAME_WAITING}, .waiting = {.text = "w"}};
    pthread_t threads[4];

    (void)state;
    setup(&fixture);
    open_admitted(&fixture, NULL);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, talk, &fixture), 0);
    for (uint32_t i = 0; i < 200; i++)
        fake_send(&fixture.fake, &waiting);
    fake_drop(&fixture.fake, true);
    fake_admit(&fixture.fake, NULL);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    teardown(&fixture);
}

static void closes_at_any_moment(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 12; round++) {
        struct fixture fixture;

        setup(&fixture);
        assert_int_equal(muster_open(&fixture.options, &fixture.muster, &fixture.error), MUSTER_OK);
        if (round % 3 == 1)
            fake_accept(&fixture.fake);
        if (round % 3 == 2)
            fake_admit(&fixture.fake, NULL);
        teardown(&fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joins_beats_and_says_goodbye),
        cmocka_unit_test(goodbye_arrives_in_spite_of_unread_bytes),
        cmocka_unit_test(tells_a_generation),
        cmocka_unit_test(progress_and_words_keep_their_order),
        cmocka_unit_test(reattaches_after_a_reset),
        cmocka_unit_test(waits_for_generations),
        cmocka_unit_test(takes_a_thousand_members),
        cmocka_unit_test(refusal_is_told),
        cmocka_unit_test(join_waits_for_admission),
        cmocka_unit_test(join_without_an_answer),
        cmocka_unit_test(unreachable_coordinator_is_named),
        cmocka_unit_test(name_without_an_address),
        cmocka_unit_test(speaks_ipv6_and_names),
        cmocka_unit_test(wrong_options_are_named),
        cmocka_unit_test(own_address_on_the_way),
        cmocka_unit_test(barriers_block_and_explain),
        cmocka_unit_test(descriptor_follows_the_queue),
        cmocka_unit_test(events_that_nobody_takes_are_bounded),
        cmocka_unit_test(nonsense_is_survived),
        cmocka_unit_test(host_sees_no_signal),
        cmocka_unit_test(many_threads_at_once),
        cmocka_unit_test(closes_at_any_moment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
