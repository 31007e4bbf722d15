#include "bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

const wire_id bench_self = {{0xaa, 1}};
const wire_id bench_other = {{0xbb, 2}};
const wire_id bench_job_uid = {{0x0b, 3}};

void bench_init(struct bench *bench)
{
    size_t bytes = session_memory_bytes(MEMBERS_MAX);

    memset(bench, 0, sizeof *bench);
    session_config_init(&bench->config);
    bench->config.job = "mnist";
    bench->config.node = "node1";
    bench->config.spec = "lr=0.1\n";
    bench->config.member_id = bench_self;
    bench->config.secret = (wire_id){{9}};
    bench->memory = malloc(bytes);
    bench->now_us = 5 * SECOND_US;
    session_init(&bench->session, &bench->config, bench->memory, bytes);
}

void bench_release(struct bench *bench)
{
    free(bench->memory);
}

void bench_step(struct bench *bench, struct session_event event)
{
    event.now_us = bench->now_us;
    event.random = bench->random;
    bench->accepted = session_step(&bench->session, &event, &bench->actions);
}

void bench_step_type(struct bench *bench, enum session_event_type type)
{
    bench_step(bench, (struct session_event){.type = type});
}

void bench_hear(struct bench *bench, const struct wire_message *message)
{
    bench->heard = *message;
    bench_step(bench, (struct session_event){.type = SESSION_MESSAGE, .message = &bench->heard});
}

void bench_wake_at(struct bench *bench, uint64_t now_us)
{
    bench->now_us = now_us;
    bench_step_type(bench, SESSION_WAKE);
}

/* ---- what a step did ---- */

const struct session_action *bench_action(const struct bench *bench, enum session_action_type type)
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

const struct wire_message *bench_sent(const struct bench *bench)
{
    return &bench_action(bench, SESSION_SEND)->message;
}

const struct session_delivery *bench_news(const struct bench *bench)
{
    return &bench_action(bench, SESSION_DELIVER)->delivery;
}

uint32_t bench_count_sent(const struct bench *bench, uint8_t type)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < bench->actions.count; i++)
        count += bench->actions.list[i].type == SESSION_SEND &&
                 bench->actions.list[i].message.header.type == type;
    return count;
}

/* ---- a coordinator ---- */

void bench_welcome(struct bench *bench)
{
    struct wire_message message = {
        .header = {.version = 1, .type = FRAME_WELCOME},
        .welcome =
            {.version = 1, .job_uid = bench_job_uid, .beat_ms = 500, .lease_ms = 2500, .note = ""},
    };

    bench_hear(bench, &message);
}

void bench_attach(struct bench *bench)
{
    bench_step_type(bench, SESSION_START);
    bench_step_type(bench, SESSION_CONNECTED);
    bench_welcome(bench);
    assert_int_equal(bench->session.state, SESSION_ATTACHED);
}

void bench_tell(struct bench *bench, enum wire_mode mode, uint64_t number, uint64_t nonce)
{
    struct wire_member members[2] = {
        {.id = bench_other, .rank = 0, .node = "node0", .host = "h0", .data_address = "10.0.0.1:1"},
        {.id = bench_self, .rank = 1, .node = "node1", .host = "h1", .data_address = "10.0.0.2:1"},
    };
    struct wire_message message = {
        .header = {.version = 1,
                   .type = FRAME_GENERATION,
                   .generation = number,
                   .nonce = nonce,
                   .step = 40},
        .generation = {.mode = mode, .key = bench_job_uid, .members = members, .members_count = 2},
    };

    bench_hear(bench, &message);
    memset(members, 0xdb, sizeof members); /* nothing may point here any more */
}

void bench_over(struct bench *bench, uint64_t number)
{
    struct wire_message message = {
        .header = {.version = 1, .type = FRAME_OVER, .generation = number},
        .over = {.reason = "lost rank 0"},
    };

    bench_hear(bench, &message);
}

void bench_barrier_result(struct bench *bench, uint64_t seq)
{
    struct wire_message message = {
        .header = {.version = 1, .type = FRAME_BARRIER_RESULT},
        .barrier_result = {.name = "b", .seq = seq, .end = WIRE_BARRIER_RELEASED, .text = ""},
    };

    bench_hear(bench, &message);
}

/* The connection ends and a new one stands; the HELLO is the last thing sent. */
void bench_reconnect(struct bench *bench)
{
    bench_step(bench, (struct session_event){.type = SESSION_CLOSED, .text = "reset by peer"});
    assert_int_equal(bench_news(bench)->news, SESSION_NEWS_DOWN);
    assert_string_equal(bench_news(bench)->text, "reset by peer");
    bench_wake_at(bench, session_wake_us(&bench->session));
    (void)bench_action(bench, SESSION_CONNECT);
    bench_step_type(bench, SESSION_CONNECTED);
    assert_int_equal(bench_sent(bench)->header.type, FRAME_HELLO);
}

void bench_entered(struct bench *bench, uint64_t number, uint64_t nonce, uint64_t at)
{
    bench_step(bench,
               (struct session_event){.type = SESSION_ENTERED, .position = {number, nonce, at}});
}
