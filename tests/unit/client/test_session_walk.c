/* Random events, and an observer of the carrier that knows the rules of the conversation. */
#include "bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

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
        bench_welcome(bench);
        break;
    case 2:
        bench_over(bench, number);
        break;
    case 3:
        bench_barrier_result(bench, number);
        break;
    default:
        bench_tell(bench, (enum wire_mode)(1 + next_random(seed) % 3), number, number);
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
        event.peer_lost = (struct wire_peer_lost){bench_other, WIRE_LOST_HASH, "why"};
    if (event.type == SESSION_BARRIER)
        event.barrier = (struct wire_barrier_enter){.name = "b", .place = "p"};
    if (event.type == SESSION_STATUS)
        event.status = (struct session_status){.phase = WIRE_PHASE_COMPUTE, .applied = number};
    bench_step(bench, event);
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
            bench_step(bench, (struct session_event){.type = SESSION_CLOSED, .text = "walk"});
            return;
        }
        break;
    case 1:
        if (bench->session.state == SESSION_CONNECTING) {
            bench_step_type(bench, SESSION_CONNECTED);
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
    bench_step_type(bench, SESSION_WAKE);
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
        bench_step_type(&bench, SESSION_START);
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
        cmocka_unit_test(random_walk_keeps_the_rules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
