/* The session as a step machine: virtual time, a coordinator made of struct literals. */
#include "client/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MEMBERS_MAX = 8, SECOND_US = 1000000 };

/* A session and what its last step did. */
struct bench {
    struct session_config config;
    struct session session;
    struct session_actions actions;
    void *memory;
    uint64_t now_us;
    uint64_t random;
    bool accepted; /* result of the last step */
};

static const wire_id self_id = {{0xaa, 1}};
static const wire_id other_id = {{0xbb, 2}};
static const wire_id job_uid = {{0x0b, 3}};

static void bench_init(struct bench *bench)
{
    size_t bytes = session_memory_bytes(MEMBERS_MAX);

    memset(bench, 0, sizeof *bench);
    session_config_init(&bench->config);
    bench->config.job = "mnist";
    bench->config.node = "node1";
    bench->config.spec = "lr=0.1\n";
    bench->config.member_id = self_id;
    bench->config.secret = (wire_id){{9}};
    bench->memory = malloc(bytes);
    bench->now_us = 5 * SECOND_US;
    session_init(&bench->session, &bench->config, bench->memory, bytes);
}

static void bench_release(struct bench *bench)
{
    free(bench->memory);
}

static void step(struct bench *bench, struct session_event event)
{
    event.now_us = bench->now_us;
    event.random = bench->random;
    bench->accepted = session_step(&bench->session, &event, &bench->actions);
}

static void step_type(struct bench *bench, enum session_event_type type)
{
    step(bench, (struct session_event){.type = type});
}

static void hear(struct bench *bench, const struct wire_message *message)
{
    step(bench, (struct session_event){.type = SESSION_MESSAGE, .message = message});
}

static void wake_at(struct bench *bench, uint64_t now_us)
{
    bench->now_us = now_us;
    step_type(bench, SESSION_WAKE);
}

/* ---- what a step did ---- */

static const struct session_action *only(const struct bench *bench, enum session_action_type type)
{
    const struct session_action *found = NULL;

    for (uint32_t i = 0; i < bench->actions.count; i++) {
        if (bench->actions.list[i].type == type) {
            assert_null(found);
            found = &bench->actions.list[i];
        }
    }
    assert_non_null(found);
    return found;
}

static const struct wire_message *sent(const struct bench *bench)
{
    return &only(bench, SESSION_SEND)->message;
}

static const struct session_delivery *delivered(const struct bench *bench)
{
    return &only(bench, SESSION_DELIVER)->delivery;
}

static uint32_t count_sent(const struct bench *bench, uint8_t type)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < bench->actions.count; i++)
        count += bench->actions.list[i].type == SESSION_SEND &&
                 bench->actions.list[i].message.header.type == type;
    return count;
}

/* ---- a coordinator ---- */

static void welcome(struct bench *bench)
{
    struct wire_message message = {
        .header = {.version = 1, .type = FRAME_WELCOME},
        .welcome = {.version = 1, .job_uid = job_uid, .beat_ms = 500, .lease_ms = 2500, .note = ""},
    };

    hear(bench, &message);
}

static void attach(struct bench *bench)
{
    step_type(bench, SESSION_START);
    step_type(bench, SESSION_CONNECTED);
    welcome(bench);
    assert_int_equal(bench->session.state, SESSION_ATTACHED);
}

static void tell(struct bench *bench, enum wire_mode mode, uint64_t number, uint64_t nonce)
{
    struct wire_member members[2] = {
        {.id = other_id, .rank = 0, .node = "node0", .host = "h0", .data_address = "10.0.0.1:1"},
        {.id = self_id, .rank = 1, .node = "node1", .host = "h1", .data_address = "10.0.0.2:1"},
    };
    struct wire_message message = {
        .header = {.version = 1,
                   .type = FRAME_GENERATION,
                   .generation = number,
                   .nonce = nonce,
                   .step = 40},
        .generation = {.mode = mode, .key = job_uid, .members = members, .members_count = 2},
    };

    hear(bench, &message);
    memset(members, 0xdb, sizeof members); /* nothing may point here any more */
}

static void over(struct bench *bench, uint64_t number)
{
    struct wire_message message = {
        .header = {.version = 1, .type = FRAME_OVER, .generation = number},
        .over = {.reason = "lost rank 0"},
    };

    hear(bench, &message);
}

static void barrier_result(struct bench *bench, uint64_t seq)
{
    struct wire_message message = {
        .header = {.version = 1, .type = FRAME_BARRIER_RESULT},
        .barrier_result = {.name = "b", .seq = seq, .end = WIRE_BARRIER_RELEASED, .text = ""},
    };

    hear(bench, &message);
}

/* The connection ends and a new one stands; the HELLO is the last thing sent. */
static void reconnect(struct bench *bench)
{
    step(bench, (struct session_event){.type = SESSION_CLOSED, .text = "reset by peer"});
    assert_int_equal(delivered(bench)->news, SESSION_NEWS_DOWN);
    assert_string_equal(delivered(bench)->text, "reset by peer");
    wake_at(bench, session_wake_us(&bench->session));
    (void)only(bench, SESSION_CONNECT);
    step_type(bench, SESSION_CONNECTED);
    assert_int_equal(sent(bench)->header.type, FRAME_HELLO);
}

static void entered(struct bench *bench, uint64_t number, uint64_t nonce, uint64_t at)
{
    step(bench, (struct session_event){.type = SESSION_ENTERED, .position = {number, nonce, at}});
}

/* ---- tests ---- */

static void joins_and_beats(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench.config.known_generation = 7;
    bench.config.known_applied = 120;
    session_init(&bench.session, &bench.config, bench.memory, session_memory_bytes(MEMBERS_MAX));
    assert_true(session_wake_us(&bench.session) == SESSION_NEVER_US);
    step_type(&bench, SESSION_START);
    (void)only(&bench, SESSION_CONNECT);
    step_type(&bench, SESSION_CONNECTED);
    assert_int_equal(sent(&bench)->header.type, FRAME_HELLO);
    assert_int_equal(sent(&bench)->header.generation, 7);
    assert_int_equal(sent(&bench)->header.step, 120);
    assert_int_equal(sent(&bench)->hello.attach, WIRE_ATTACH_JOIN);
    assert_int_equal(sent(&bench)->hello.applied, 120);
    assert_string_equal(sent(&bench)->hello.job, "mnist");
    assert_true(wire_id_equal(&sent(&bench)->hello.member_id, &self_id));
    welcome(&bench);
    assert_int_equal(delivered(&bench)->news, SESSION_NEWS_UP);
    for (uint32_t beat = 1; beat <= 3; beat++) {
        assert_int_equal(session_wake_us(&bench.session), bench.now_us + 500000);
        wake_at(&bench, bench.now_us + 500000);
        assert_int_equal(sent(&bench)->header.type, FRAME_BEAT);
        assert_int_equal(sent(&bench)->beat.seq, beat);
        assert_int_equal(sent(&bench)->beat.phase, WIRE_PHASE_STARTUP);
        assert_int_equal(sent(&bench)->beat.phase_age_ms, beat * 500);
    }
    bench_release(&bench);
}

static void beats_tell_the_status(void **state)
{
    struct bench bench;
    struct session_status status = {.phase = WIRE_PHASE_EXCHANGE,
                                    .applied = 41,
                                    .loss = 0.5f,
                                    .entered = 9,
                                    .entered_what = "all_reduce #9"};

    (void)state;
    bench_init(&bench);
    attach(&bench);
    bench.now_us += 100000;
    step(&bench, (struct session_event){.type = SESSION_STATUS, .status = status});
    assert_int_equal(bench.actions.count, 0);
    wake_at(&bench, bench.now_us + 400000);
    assert_int_equal(sent(&bench)->beat.phase, WIRE_PHASE_EXCHANGE);
    assert_int_equal(sent(&bench)->beat.phase_age_ms, 400);
    assert_int_equal(sent(&bench)->header.step, 41);
    assert_string_equal(sent(&bench)->beat.entered_what, "all_reduce #9");
    /* the same again does not make the phase younger, another step does */
    step(&bench, (struct session_event){.type = SESSION_STATUS, .status = status});
    wake_at(&bench, bench.now_us + 500000);
    assert_int_equal(sent(&bench)->beat.phase_age_ms, 900);
    status.applied = 42;
    step(&bench, (struct session_event){.type = SESSION_STATUS, .status = status});
    wake_at(&bench, bench.now_us + 500000);
    assert_int_equal(sent(&bench)->beat.phase_age_ms, 500);
    bench_release(&bench);
}

/* A thread that slept sends one beat, not a burst, and says how late it was. */
static void late_beat_is_one_beat(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    attach(&bench);
    wake_at(&bench, bench.now_us + 4 * SECOND_US);
    assert_int_equal(count_sent(&bench, FRAME_BEAT), 1);
    assert_int_equal(sent(&bench)->beat.lag_ms, 3500);
    assert_int_equal(session_wake_us(&bench.session), bench.now_us + 500000);
    bench_release(&bench);
}

static void pauses_are_full_jitter(void **state)
{
    static const uint64_t longest_ms[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench.config.connect_timeout_ms = 0;
    step_type(&bench, SESSION_START);
    for (size_t i = 0; i < sizeof longest_ms / sizeof longest_ms[0]; i++) {
        bench.random = longest_ms[i] * 1000; /* the largest draw: the whole pause */
        step(&bench, (struct session_event){.type = SESSION_CLOSED, .text = "refused"});
        assert_int_equal(bench.actions.count, 0);
        assert_int_equal(session_wake_us(&bench.session) - bench.now_us, longest_ms[i] * 1000);
        wake_at(&bench, session_wake_us(&bench.session) - 1);
        assert_int_equal(bench.actions.count, 0);
        wake_at(&bench, session_wake_us(&bench.session));
        (void)only(&bench, SESSION_CONNECT);
    }
    bench.random = 5000001; /* wraps to the shortest */
    step(&bench, (struct session_event){.type = SESSION_CLOSED, .text = "refused"});
    assert_int_equal(session_wake_us(&bench.session), bench.now_us);
    bench_release(&bench);
}

static void gives_up_before_it_was_admitted(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    step_type(&bench, SESSION_START);
    step(&bench, (struct session_event){.type = SESSION_CLOSED, .text = "host:1: refused"});
    while (bench.session.state != SESSION_ENDED) {
        wake_at(&bench, session_wake_us(&bench.session));
        assert_true(bench.now_us <= 65 * SECOND_US);
        if (bench.session.state == SESSION_CONNECTING)
            step(&bench, (struct session_event){.type = SESSION_CLOSED, .text = "host:1: refused"});
        bench.random += 77777;
    }
    assert_int_equal(bench.now_us, 65 * SECOND_US);
    assert_int_equal(delivered(&bench)->news, SESSION_NEWS_ENDED);
    assert_int_equal(delivered(&bench)->end, SESSION_END_UNREACHABLE);
    assert_int_equal(delivered(&bench)->exit_code, 69);
    assert_string_equal(delivered(&bench)->text, "no coordinator within 60000 ms: host:1: refused");
    step_type(&bench, SESSION_START);
    assert_false(bench.accepted);
    bench_release(&bench);
}

static void deadlines_of_a_connection(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench.config.connect_timeout_ms = 0;
    step_type(&bench, SESSION_START);
    wake_at(&bench, session_wake_us(&bench.session)); /* no TCP connection in time */
    (void)only(&bench, SESSION_CLOSE);
    assert_int_equal(bench.session.state, SESSION_RESTING);
    wake_at(&bench, session_wake_us(&bench.session));
    step_type(&bench, SESSION_CONNECTED);
    wake_at(&bench, session_wake_us(&bench.session)); /* no answer to HELLO in time */
    (void)only(&bench, SESSION_CLOSE);
    wake_at(&bench, session_wake_us(&bench.session));
    step_type(&bench, SESSION_CONNECTED);
    welcome(&bench);
    for (uint64_t end = bench.now_us + 60 * SECOND_US; bench.now_us < end;)
        wake_at(&bench, session_wake_us(&bench.session)); /* attached, but not one frame */
    (void)only(&bench, SESSION_CLOSE);
    assert_int_equal(delivered(&bench)->news, SESSION_NEWS_DOWN);
    bench_release(&bench);
}

static void refusal_ends_it(void **state)
{
    struct wire_message message = {
        .header = {.version = 1, .type = FRAME_REFUSED},
        .refused = {.why = WIRE_REFUSAL_SPEC, .exit_code = 77, .text = "lr=0.1 here, lr=0.2 there"},
    };

    (void)state;
    for (int attached = 0; attached < 2; attached++) {
        struct bench bench;

        bench_init(&bench);
        if (attached) {
            attach(&bench);
        } else {
            step_type(&bench, SESSION_START);
            step_type(&bench, SESSION_CONNECTED);
        }
        hear(&bench, &message);
        (void)only(&bench, SESSION_CLOSE);
        assert_int_equal(delivered(&bench)->end, SESSION_END_REFUSED);
        assert_int_equal(delivered(&bench)->refusal, WIRE_REFUSAL_SPEC);
        assert_int_equal(delivered(&bench)->exit_code, 77);
        assert_string_equal(delivered(&bench)->text, "lr=0.1 here, lr=0.2 there");
        assert_true(session_wake_us(&bench.session) == SESSION_NEVER_US);
        bench_release(&bench);
    }
}

/* HELLO of a re-attach says what the member is: running, with the roster; then frozen. */
static void reattaches_as_what_it_is(void **state)
{
    struct bench bench;
    const struct wire_hello *hello;

    (void)state;
    bench_init(&bench);
    attach(&bench);
    tell(&bench, WIRE_MODE_FORMED, 5, 55);
    assert_int_equal(delivered(&bench)->message->header.generation, 5);
    reconnect(&bench);
    hello = &sent(&bench)->hello;
    assert_int_equal(hello->attach, WIRE_ATTACH_RUNNING);
    assert_int_equal(sent(&bench)->header.generation, 5);
    assert_int_equal(sent(&bench)->header.nonce, 55);
    assert_int_equal(hello->roster_count, 2);
    assert_string_equal(hello->roster[1].node, "node1");
    assert_true(wire_id_equal(&hello->roster[0].id, &other_id));
    assert_true(wire_id_equal(&hello->job_uid, &job_uid));
    welcome(&bench);
    tell(&bench, WIRE_MODE_PLAN, 6, 66);
    reconnect(&bench);
    assert_int_equal(sent(&bench)->header.generation, 5);
    assert_int_equal(sent(&bench)->hello.plan, 6);
    assert_int_equal(sent(&bench)->hello.roster_count, 2);
    welcome(&bench);
    entered(&bench, 6, 66, 41);
    reconnect(&bench);
    assert_int_equal(sent(&bench)->header.generation, 6);
    assert_int_equal(sent(&bench)->header.step, 41);
    assert_int_equal(sent(&bench)->hello.plan, 0);
    assert_int_equal(sent(&bench)->hello.roster_count, 2);
    welcome(&bench);
    over(&bench, 6);
    reconnect(&bench);
    assert_int_equal(sent(&bench)->hello.attach, WIRE_ATTACH_FROZEN);
    bench_release(&bench);
}

/* A spare is in no generation: it comes back as a joiner. */
static void spare_comes_back_as_joiner(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    attach(&bench);
    tell(&bench, WIRE_MODE_VIEW, 5, 55);
    reconnect(&bench);
    assert_int_equal(sent(&bench)->hello.attach, WIRE_ATTACH_JOIN);
    assert_int_equal(sent(&bench)->header.generation, 5);
    assert_int_equal(sent(&bench)->hello.roster_count, 0);
    bench_release(&bench);
}

static void roster_that_does_not_fit_is_left_out(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    session_init(&bench.session, &bench.config, bench.memory, 256);
    attach(&bench);
    tell(&bench, WIRE_MODE_FORMED, 5, 55);
    reconnect(&bench);
    assert_int_equal(sent(&bench)->hello.attach, WIRE_ATTACH_RUNNING);
    assert_int_equal(sent(&bench)->hello.roster_count, 0);
    bench_release(&bench);
}

static void stale_generations_are_dropped(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    attach(&bench);
    tell(&bench, WIRE_MODE_FORMED, 5, 55);
    assert_int_equal(bench.actions.count, 1);
    tell(&bench, WIRE_MODE_FORMED, 5, 55); /* again */
    assert_int_equal(bench.actions.count, 0);
    tell(&bench, WIRE_MODE_PLAN, 4, 44); /* smaller */
    assert_int_equal(bench.actions.count, 0);
    tell(&bench, WIRE_MODE_PLAN, 5, 99); /* the same number, another nonce */
    assert_int_equal(bench.actions.count, 0);
    tell(&bench, WIRE_MODE_PLAN, 6, 66);
    assert_int_equal(bench.actions.count, 1);
    over(&bench, 4); /* before the newest FORMED */
    assert_int_equal(bench.actions.count, 0);
    over(&bench, 5); /* ends 5 and the plan 6 */
    assert_int_equal(bench.actions.count, 1);
    over(&bench, 5); /* again */
    assert_int_equal(bench.actions.count, 0);
    tell(&bench, WIRE_MODE_FORMED, 6, 66); /* the number of a plan that ended */
    assert_int_equal(bench.actions.count, 0);
    tell(&bench, WIRE_MODE_FORMED, 7, 77);
    assert_int_equal(bench.actions.count, 1);
    assert_int_equal(bench.session.dropped, 6);
    bench_release(&bench);
}

/* The number in a manifest counts as seen. */
static void manifest_counts_as_seen(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench.config.known_generation = 9;
    session_init(&bench.session, &bench.config, bench.memory, session_memory_bytes(MEMBERS_MAX));
    attach(&bench);
    tell(&bench, WIRE_MODE_FORMED, 8, 1);
    assert_int_equal(bench.actions.count, 0);
    tell(&bench, WIRE_MODE_FORMED, 9, 1);
    assert_int_equal(bench.actions.count, 0);
    tell(&bench, WIRE_MODE_FORMED, 10, 1);
    assert_int_equal(bench.actions.count, 1);
    bench_release(&bench);
}

/* What was said without a connection, or on one that broke, is said after WELCOME; not for ever. */
static void says_again_what_still_stands(void **state)
{
    struct bench bench;
    uint8_t owned[2] = {0x0f, 0x01};

    (void)state;
    bench_init(&bench);
    attach(&bench);
    tell(&bench, WIRE_MODE_FORMED, 5, 55);
    entered(&bench, 5, 55, 40);
    assert_int_equal(sent(&bench)->header.type, FRAME_ENTERED);
    step(&bench, (struct session_event){
                     .type = SESSION_PEER_LOST,
                     .position = {5, 55, 40},
                     .peer_lost = {.member_id = other_id, .why = WIRE_LOST_CLOSED, .text = "eof"}});
    assert_int_equal(sent(&bench)->header.type, FRAME_PEER_LOST);
    step(&bench, (struct session_event){
                     .type = SESSION_LEAVE, .position = {5, 55, 40}, .leave = {.drain_ms = 9}});
    reconnect(&bench);
    welcome(&bench);
    assert_int_equal(count_sent(&bench, FRAME_ENTERED), 1);
    assert_int_equal(count_sent(&bench, FRAME_PEER_LOST), 1);
    assert_int_equal(count_sent(&bench, FRAME_LEAVE), 1);
    assert_int_equal(count_sent(&bench, FRAME_REPORT), 0);
    over(&bench, 5);
    step(&bench,
         (struct session_event){.type = SESSION_REPORT,
                                .position = {5, 55, 40},
                                .report = {.entered = true, .owned = owned, .owned_bytes = 2}});
    assert_int_equal(sent(&bench)->header.type, FRAME_REPORT);
    memset(owned, 0, sizeof owned);
    reconnect(&bench);
    welcome(&bench);
    assert_int_equal(count_sent(&bench, FRAME_ENTERED), 0);
    assert_int_equal(count_sent(&bench, FRAME_PEER_LOST), 0);
    assert_int_equal(count_sent(&bench, FRAME_REPORT), 1);
    assert_int_equal(count_sent(&bench, FRAME_LEAVE), 1);
    assert_int_equal(bench.session.said.report.owned[0], 0x0f);
    tell(&bench, WIRE_MODE_FORMED, 6, 66);
    reconnect(&bench);
    welcome(&bench);
    assert_int_equal(count_sent(&bench, FRAME_REPORT), 0);
    assert_int_equal(count_sent(&bench, FRAME_LEAVE), 1);
    bench_release(&bench);
}

/* The program says ENTERED before it took the OVER that is already in its queue: void. */
static void word_about_an_ended_generation_is_void(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    attach(&bench);
    tell(&bench, WIRE_MODE_FORMED, 5, 55);
    over(&bench, 5);
    entered(&bench, 5, 55, 40);
    assert_false(bench.accepted);
    assert_int_equal(bench.actions.count, 0);
    reconnect(&bench);
    assert_int_equal(sent(&bench)->hello.attach, WIRE_ATTACH_FROZEN);
    bench_release(&bench);
}

/* A report of the program's own accord freezes it, and the OVER that follows is still delivered. */
static void own_report_freezes(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    attach(&bench);
    tell(&bench, WIRE_MODE_FORMED, 5, 55);
    step(&bench, (struct session_event){
                     .type = SESSION_REPORT, .position = {5, 55, 41}, .report = {.entered = true}});
    reconnect(&bench);
    assert_int_equal(sent(&bench)->hello.attach, WIRE_ATTACH_FROZEN);
    assert_int_equal(sent(&bench)->header.step, 41);
    welcome(&bench);
    over(&bench, 5);
    assert_int_equal(delivered(&bench)->message->header.type, FRAME_OVER);
    bench_release(&bench);
}

static void barriers_keep_their_number(void **state)
{
    struct bench bench;
    struct session_event enter = {.type = SESSION_BARRIER, .barrier = {.name = "b", .place = "p"}};

    (void)state;
    bench_init(&bench);
    attach(&bench);
    step(&bench, enter);
    assert_int_equal(sent(&bench)->barrier_enter.seq, 1);
    step(&bench, enter); /* one at a time */
    assert_false(bench.accepted);
    reconnect(&bench);
    welcome(&bench);
    assert_int_equal(count_sent(&bench, FRAME_BARRIER_ENTER), 1);
    assert_int_equal(bench.session.said.barrier.seq, 1); /* the same again */
    barrier_result(&bench, 2);                           /* not ours */
    assert_int_equal(bench.actions.count, 0);
    barrier_result(&bench, 1);
    assert_int_equal(delivered(&bench)->message->barrier_result.seq, 1);
    barrier_result(&bench, 1); /* twice */
    assert_int_equal(bench.actions.count, 0);
    step(&bench, enter);
    assert_int_equal(sent(&bench)->barrier_enter.seq, 2);
    bench_release(&bench);
}

static void goodbye_is_the_last_word(void **state)
{
    struct session_event goodbye = {.type = SESSION_GOODBYE, .goodbye = {.exit_code = 0}};
    struct bench bench;

    (void)state;
    bench_init(&bench);
    attach(&bench);
    step(&bench, goodbye);
    assert_int_equal(bench.actions.list[0].message.header.type, FRAME_GOODBYE);
    assert_int_equal(bench.actions.list[1].type, SESSION_CLOSE);
    assert_int_equal(delivered(&bench)->end, SESSION_END_GOODBYE);
    step_type(&bench, SESSION_STOP);
    assert_false(bench.accepted);
    bench_release(&bench);

    bench_init(&bench); /* without a connection: after the next WELCOME */
    attach(&bench);
    step(&bench, (struct session_event){.type = SESSION_CLOSED, .text = "gone"});
    step(&bench, goodbye);
    assert_int_equal(bench.actions.count, 0);
    wake_at(&bench, session_wake_us(&bench.session));
    step_type(&bench, SESSION_CONNECTED);
    welcome(&bench);
    assert_int_equal(count_sent(&bench, FRAME_GOODBYE), 1);
    assert_int_equal(bench.session.state, SESSION_ENDED);
    bench_release(&bench);

    bench_init(&bench); /* never admitted: nobody to say it to */
    step_type(&bench, SESSION_START);
    step(&bench, goodbye);
    (void)only(&bench, SESSION_CLOSE);
    assert_int_equal(delivered(&bench)->end, SESSION_END_GOODBYE);
    bench_release(&bench);
}

static void coordinator_that_breaks_the_protocol(void **state)
{
    struct wire_message ack = {.header = {.version = 1, .type = FRAME_BEAT_ACK}};
    struct wire_message beat = {.header = {.version = 1, .type = FRAME_BEAT}};
    struct wire_message version = {.header = {.version = 1, .type = FRAME_WELCOME},
                                   .welcome = {.version = 2, .beat_ms = 500}};
    struct bench bench;

    (void)state;
    bench_init(&bench);
    step_type(&bench, SESSION_START);
    step_type(&bench, SESSION_CONNECTED);
    hear(&bench, &ack); /* before WELCOME */
    (void)only(&bench, SESSION_CLOSE);
    wake_at(&bench, session_wake_us(&bench.session));
    step_type(&bench, SESSION_CONNECTED);
    hear(&bench, &version); /* a version not offered */
    (void)only(&bench, SESSION_CLOSE);
    wake_at(&bench, session_wake_us(&bench.session));
    step_type(&bench, SESSION_CONNECTED);
    welcome(&bench);
    hear(&bench, &ack);
    assert_int_equal(bench.actions.count, 0);
    hear(&bench, &beat); /* a member's message */
    (void)only(&bench, SESSION_CLOSE);
    hear(&bench, &ack); /* nothing of that connection counts any more */
    assert_false(bench.accepted);
    bench_release(&bench);
}

static void beat_interval_is_bounded(void **state)
{
    struct wire_message message = {.header = {.version = 1, .type = FRAME_WELCOME},
                                   .welcome = {.version = 1, .beat_ms = 0}};
    struct bench bench;

    (void)state;
    bench_init(&bench);
    step_type(&bench, SESSION_START);
    step_type(&bench, SESSION_CONNECTED);
    hear(&bench, &message);
    assert_true(session_wake_us(&bench.session) >= bench.now_us + 20000);
    bench_release(&bench);
}

/* ---- a random walk ---- */

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* What an observer of the carrier sees. */
struct observer {
    bool open;         /* CONNECT was asked for, and neither CLOSE nor CLOSED followed */
    bool greeted;      /* HELLO was sent on this connection */
    bool welcomed;     /* WELCOME was heard on it */
    bool ended;        /* ENDED was delivered */
    uint64_t formed;   /* largest FORMED delivered */
    uint64_t barriers; /* results delivered */
};

static void observe_send(struct observer *observer, const struct wire_message *message)
{
    static uint8_t memory[65536];
    struct wire_arena arena;
    const uint8_t *frame = NULL;
    size_t bytes = 0;

    assert_true(observer->open);
    assert_int_equal(message->header.type == FRAME_HELLO, !observer->greeted);
    assert_true(message->header.type == FRAME_HELLO || observer->welcomed);
    observer->greeted = true;
    wire_arena_init(&arena, memory, sizeof memory);
    assert_int_equal(wire_encode(&arena, message, &frame, &bytes), WIRE_OK);
}

static void observe(struct observer *observer, const struct bench *bench)
{
    for (uint32_t i = 0; i < bench->actions.count; i++) {
        const struct session_action *action = &bench->actions.list[i];

        assert_false(observer->ended);
        if (action->type == SESSION_CONNECT) {
            assert_false(observer->open);
            *observer = (struct observer){.open = true, .formed = observer->formed};
        } else if (action->type == SESSION_CLOSE) {
            assert_true(observer->open);
            observer->open = false;
        } else if (action->type == SESSION_SEND) {
            observe_send(observer, &action->message);
        } else if (action->delivery.news == SESSION_NEWS_ENDED) {
            observer->ended = true;
            assert_false(observer->open);
        } else if (action->delivery.news == SESSION_NEWS_MESSAGE &&
                   action->delivery.message->header.type == FRAME_GENERATION &&
                   action->delivery.message->generation.mode == WIRE_MODE_FORMED) {
            assert_true(action->delivery.message->header.generation > observer->formed);
            observer->formed = action->delivery.message->header.generation;
        }
    }
}

static void random_message(struct bench *bench, struct observer *observer, uint64_t *seed)
{
    uint64_t number = 1 + next_random(seed) % 12;

    switch (next_random(seed) % 8) {
    case 0:
    case 1:
        observer->welcomed = observer->welcomed || bench->session.state == SESSION_GREETING;
        welcome(bench);
        break;
    case 2:
        over(bench, number);
        break;
    case 3:
        barrier_result(bench, number);
        break;
    default:
        tell(bench, (enum wire_mode)(1 + next_random(seed) % 3), number, number);
        break;
    }
}

static void random_word(struct bench *bench, uint64_t *seed)
{
    static const enum session_event_type words[] = {
        SESSION_REPORT, SESSION_ENTERED,  SESSION_READY,   SESSION_PEER_LOST,
        SESSION_LEAVE,  SESSION_FINISHED, SESSION_BARRIER, SESSION_STATUS};
    uint64_t number = 1 + next_random(seed) % 12;
    struct session_event event = {.type = words[next_random(seed) % 8],
                                  .position = {number, number, number}};

    if (event.type == SESSION_PEER_LOST)
        event.peer_lost = (struct wire_peer_lost){other_id, WIRE_LOST_HASH, "why"};
    if (event.type == SESSION_BARRIER)
        event.barrier = (struct wire_barrier_enter){.name = "b", .place = "p"};
    if (event.type == SESSION_STATUS)
        event.status = (struct session_status){.phase = WIRE_PHASE_COMPUTE, .applied = number};
    step(bench, event);
}

/* One random event; the carrier's own only when they can happen. */
static void random_event(struct bench *bench, struct observer *observer, uint64_t *seed)
{
    bench->now_us += next_random(seed) % 800000;
    bench->random = next_random(seed);
    switch (next_random(seed) % 8) {
    case 0:
        if (observer->open) {
            observer->open = false;
            step(bench, (struct session_event){.type = SESSION_CLOSED, .text = "walk"});
            return;
        }
        break;
    case 1:
        if (bench->session.state == SESSION_CONNECTING) {
            step_type(bench, SESSION_CONNECTED);
            return;
        }
        break;
    case 2:
    case 3:
        if (observer->greeted && observer->open) {
            random_message(bench, observer, seed);
            return;
        }
        break;
    case 4:
    case 5:
        random_word(bench, seed);
        return;
    default:
        break;
    }
    step_type(bench, SESSION_WAKE);
}

static void random_walk_keeps_the_rules(void **state)
{
    (void)state;
    for (uint64_t walk = 1; walk <= 300; walk++) {
        uint64_t seed = walk;
        struct observer observer = {.open = false};
        struct bench bench;

        bench_init(&bench);
        bench.config.connect_timeout_ms = walk % 3 == 0 ? 60000 : 0;
        step_type(&bench, SESSION_START);
        observe(&observer, &bench);
        for (uint32_t i = 0; i < 400 && !observer.ended; i++) {
            random_event(&bench, &observer, &seed);
            observe(&observer, &bench);
            if (observer.ended != (session_wake_us(&bench.session) == SESSION_NEVER_US))
                fail_msg("walk %llu: it sleeps for ever", (unsigned long long)walk);
        }
        bench_release(&bench);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joins_and_beats),
        cmocka_unit_test(beats_tell_the_status),
        cmocka_unit_test(late_beat_is_one_beat),
        cmocka_unit_test(pauses_are_full_jitter),
        cmocka_unit_test(gives_up_before_it_was_admitted),
        cmocka_unit_test(deadlines_of_a_connection),
        cmocka_unit_test(refusal_ends_it),
        cmocka_unit_test(reattaches_as_what_it_is),
        cmocka_unit_test(spare_comes_back_as_joiner),
        cmocka_unit_test(roster_that_does_not_fit_is_left_out),
        cmocka_unit_test(stale_generations_are_dropped),
        cmocka_unit_test(manifest_counts_as_seen),
        cmocka_unit_test(says_again_what_still_stands),
        cmocka_unit_test(word_about_an_ended_generation_is_void),
        cmocka_unit_test(own_report_freezes),
        cmocka_unit_test(barriers_keep_their_number),
        cmocka_unit_test(goodbye_is_the_last_word),
        cmocka_unit_test(coordinator_that_breaks_the_protocol),
        cmocka_unit_test(beat_interval_is_bounded),
        cmocka_unit_test(random_walk_keeps_the_rules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
