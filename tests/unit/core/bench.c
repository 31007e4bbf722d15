#include "bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SECOND_US UINT64_C(1000000)
#define TICK_MS   100u

struct bench *bench_new(void)
{
    struct bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    b->limits = (struct core_limits){.jobs = 2, .members = BENCH_MEMBERS, .barriers = 4};
    core_times_default(&b->times);
    b->now_us = SECOND_US;
    b->memory = aligned_alloc(16, (core_size(&b->limits) + 15) / 16 * 16);
    assert_non_null(b->memory);
    b->core = core_init(b->memory, &b->limits, &b->times, b->now_us);
    return b;
}

void bench_take_times(struct bench *b)
{
    b->core = core_init(b->memory, &b->limits, &b->times, b->now_us);
}

void bench_free(struct bench *b)
{
    free(b->memory);
    free(b);
}

/* ---- what came out of a step ---- */

static void hear_more(const struct core_message *message, uint32_t number,
                      struct bench_heard *heard)
{
    const char *text = "";
    heard->rank = UINT32_MAX;
    if (message->type == CORE_GENERATION) {
        heard->mode = message->roster.mode;
        heard->world = message->roster.members_count;
        heard->pause = message->roster.pause;
        text = message->roster.reason;
        for (uint32_t i = 0; i < heard->world; i++) {
            assert_int_equal(message->roster.members[i].rank, i);
            if (i < 8) {
                heard->weights[i] = message->roster.members[i].weight;
            }
            if (message->roster.members[i].pid == number) {
                heard->rank = i;
            }
        }
    } else if (message->type == CORE_REFUSED) {
        heard->code = message->refused.exit_code;
        text = message->refused.text;
    } else if (message->type == CORE_OVER) {
        text = message->over.reason;
    } else if (message->type == CORE_WAITING) {
        text = message->waiting.text;
    } else if (message->type == CORE_WELCOME) {
        heard->attached = message->welcome.attached;
        text = message->welcome.note;
    } else if (message->type == CORE_BARRIER_RESULT) {
        heard->code = (uint32_t)message->barrier_result.end;
        heard->seq = message->barrier_result.seq;
        text = message->barrier_result.text;
    } else if (message->type == CORE_VERDICT) {
        heard->code = (uint32_t)message->verdict.kind;
        text = message->verdict.text;
    }
    (void)snprintf(heard->text, sizeof heard->text, "%s", text);
}

static void hear(struct bench *b, const struct core_action *action)
{
    for (uint32_t i = 0; i < action->conn_count; i++) {
        core_conn conn = action->conns[i];
        struct bench_heard *heard = &b->heard[b->heard_count];
        if (action->message.type == CORE_BEAT_ACK) {
            continue;
        }
        assert_true(b->heard_count < BENCH_HEARD);
        assert_in_range(conn, 1, BENCH_MEMBERS - 1);
        b->heard_count++;
        *heard = (struct bench_heard){.conn = conn,
                                      .type = action->message.type,
                                      .generation = action->message.generation,
                                      .nonce = action->message.nonce,
                                      .step = action->message.step};
        hear_more(&action->message, b->members[conn].number, heard);
    }
}

static void carry_out(struct bench *b, const struct core_action *action)
{
    if (action->type == CORE_ACTION_SEND) {
        hear(b, action);
    } else if (action->type == CORE_ACTION_CLOSE) {
        b->closed |= UINT64_C(1) << (action->conns[0] % 64);
        b->members[action->conns[0]].number = 0;
    } else if (action->type == CORE_ACTION_LOG) {
        (void)snprintf(b->lines[b->line_count++ % BENCH_LINES], CORE_SENTENCE_BYTES, "%s",
                       action->text);
    } else if (action->type == CORE_ACTION_PROBE) {
        assert_true(b->probe_count < BENCH_STORES);
        b->probes[b->probe_count++] = action->probe;
    } else if (action->type == CORE_ACTION_STORE) {
        assert_true(b->held_count < BENCH_STORES);
        assert_true(action->record_bytes <= sizeof b->record);
        memcpy(b->record, action->record, action->record_bytes);
        b->record_bytes = action->record_bytes;
        b->held[b->held_count++] = action->lsn;
    }
}

static void step(struct bench *b, struct core_event event)
{
    const char *sentence;
    event.now_us = b->now_us;
    for (uint32_t i = 0; i < 4; i++) {
        event.random[i] = ++b->draws;
    }
    b->probe_count = 0;
    core_step(b->core, &event, &b->actions);
    for (uint32_t i = 0; i < b->actions.count; i++) {
        carry_out(b, &b->actions.list[i]);
    }
    if (core_check(b->core, &sentence) != 0) {
        fail_msg("invariant broken: %s", sentence);
    }
}

/* An event, and the store's answers to it. A core that decides the same again and again does not
 * end here. */
static void happen(struct bench *b, struct core_event event)
{
    step(b, event);
    for (uint32_t rounds = 0; b->held_count > 0 && !b->hold_store; rounds++) {
        assert_true(rounds < 8);
        bench_store_answers(b, false);
    }
}

void bench_store_answers(struct bench *b, bool fails)
{
    uint64_t lsns[BENCH_STORES];
    uint32_t count = b->held_count;
    memcpy(lsns, b->held, sizeof lsns);
    b->held_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        step(b, (struct core_event){.type = fails ? CORE_EVENT_STORE_FAILED : CORE_EVENT_STORED,
                                    .lsn = lsns[i]});
    }
}

void bench_restart(struct bench *b)
{
    memset(b->members, 0, sizeof b->members);
    b->held_count = 0;
    b->core = core_init(b->memory, &b->limits, &b->times, b->now_us);
    step(b, (struct core_event){.type = CORE_EVENT_RESTORE, .record = b->record,
                                .record_bytes = b->record_bytes});
}

/* ---- what members do ---- */

core_conn bench_hello(struct bench *b, struct bench_hello hello)
{
    core_conn conn = ++b->last;
    uint32_t number = hello.number != 0 ? hello.number : (uint32_t)conn;
    struct core_message message = {.type = CORE_HELLO,
                                   .generation = hello.generation,
                                   .nonce = hello.nonce,
                                   .step = hello.applied};
    assert_true(conn < BENCH_MEMBERS);
    message.hello = (struct core_hello){
        .version_min = 1, .version_max = 1, .job = hello.job != NULL ? hello.job : "mnist",
        .kind = hello.of > 0 ? CORE_PARTICIPANT : CORE_WORKER,
        .attach = hello.attach != 0 ? hello.attach : CORE_ATTACH_JOIN,
        .node = hello.node, .host = hello.node, .data_address = "127.0.0.1:9",
        .spec = hello.spec != NULL ? hello.spec : "seed=1\n",
        .fingerprint = hello.fingerprint != NULL ? hello.fingerprint : "isa=avx2\n",
        .program = "test", .pid = number, .min = hello.min, .max = hello.max,
        .rank_hint = hello.of > 0 ? hello.participant + 1 : hello.hint, .group_size = hello.of,
        .roster = hello.roster, .roster_count = hello.roster_count,
        .plan = hello.plan, .applied = hello.applied, .passed = hello.passed,
        .passed_name = hello.passed_name != NULL ? hello.passed_name : ""};
    message.hello.member_id.byte[0] = (uint8_t)number;
    message.hello.secret.byte[0] = (uint8_t)(hello.secret != 0 ? hello.secret : number);
    b->members[conn] = (struct bench_member){
        .number = number, .phase = CORE_PHASE_WAITING, .step = hello.applied};
    happen(b, (struct core_event){.type = CORE_EVENT_OPENED, .conn = conn});
    bench_say(b, conn, message);
    return conn;
}

core_conn bench_join(struct bench *b, const char *node, uint32_t min, uint32_t max)
{
    return bench_hello(b, (struct bench_hello){.node = node, .min = min, .max = max});
}

void bench_end(struct bench *b, core_conn conn)
{
    b->members[conn].number = 0;
    happen(b, (struct core_event){.type = CORE_EVENT_CLOSED, .conn = conn});
}

void bench_say(struct bench *b, core_conn conn, struct core_message message)
{
    happen(b, (struct core_event){.type = CORE_EVENT_MESSAGE, .conn = conn, .message = &message});
}

void bench_entered(struct bench *b, core_conn conn, uint64_t generation, uint64_t at)
{
    b->members[conn].phase = CORE_PHASE_COMPUTE;
    b->members[conn].generation = generation;
    b->members[conn].step = at;
    bench_say(b, conn, (struct core_message){.type = CORE_ENTERED, .generation = generation,
                                             .step = at});
}

void bench_report(struct bench *b, core_conn conn, uint64_t generation, uint64_t at)
{
    b->members[conn].phase = CORE_PHASE_FROZEN;
    bench_say(b, conn, (struct core_message){.type = CORE_REPORT, .generation = generation,
                                             .step = at, .report = {.entered = true}});
}

void bench_ready(struct bench *b, core_conn conn, uint64_t generation, uint64_t at)
{
    bench_say(b, conn, (struct core_message){.type = CORE_READY, .generation = generation,
                                             .step = at});
    bench_tick(b); /* makes the plan */
}

void bench_barrier(struct bench *b, core_conn conn, const char *name, uint64_t seq)
{
    bench_say(b, conn, (struct core_message){.type = CORE_BARRIER_ENTER,
                                             .generation = b->members[conn].generation,
                                             .barrier_enter = {name, "main.c:12", seq}});
}

void bench_beat(struct bench *b, core_conn conn)
{
    struct bench_member *m = &b->members[conn];
    uint64_t age_us = m->phase_us != 0 ? b->now_us - m->phase_us : 0;
    m->step += m->steps;
    struct core_message message = {.type = CORE_BEAT, .generation = m->generation, .step = m->step,
                                   .beat = m->ledger};
    message.beat.phase = m->phase;
    message.beat.phase_age_ms = age_us / 1000;
    message.beat.at_age_ms = m->ledger_us != 0 ? (b->now_us - m->ledger_us) / 1000 : 0;
    message.beat.shard_us = m->shard_us;
    message.beat.shards = m->shards;
    bench_say(b, conn, message);
}

void bench_tick(struct bench *b)
{
    happen(b, (struct core_event){.type = CORE_EVENT_TICK});
}

void bench_wait_ms(struct bench *b, uint32_t ms)
{
    for (uint32_t at = TICK_MS; at <= ms; at += TICK_MS) {
        b->now_us += TICK_MS * 1000;
        for (core_conn conn = 1; conn <= b->last && b->now_us % (SECOND_US / 2) == 0; conn++) {
            if (b->members[conn].number != 0 && !b->members[conn].silent) {
                bench_beat(b, conn);
            }
        }
        bench_tick(b);
    }
}

void bench_probed(struct bench *b, uint64_t probe, bool gone)
{
    happen(b, (struct core_event){.type = CORE_EVENT_PROBED, .probe = probe, .gone = gone});
}

const char *bench_command(struct bench *b, enum core_command command, const char *target)
{
    step(b, (struct core_event){.type = CORE_EVENT_COMMAND, .command = command, .job = "",
                                .target = target, .ticket = 7});
    for (uint32_t i = 0; i < b->actions.count; i++) {
        if (b->actions.list[i].type == CORE_ACTION_ANSWER) {
            return b->actions.list[i].text;
        }
    }
    fail_msg("the command %d had no answer", (int)command);
    return "";
}

/* ---- what they were told ---- */

const struct bench_heard *bench_told(const struct bench *b, core_conn conn,
                                     enum core_message_type type)
{
    for (uint32_t i = b->heard_count; i > 0; i--) {
        if (b->heard[i - 1].conn == conn && b->heard[i - 1].type == type) {
            return &b->heard[i - 1];
        }
    }
    return NULL;
}

uint32_t bench_times_told(const struct bench *b, core_conn conn, enum core_message_type type)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < b->heard_count; i++) {
        count += b->heard[i].conn == conn && b->heard[i].type == type;
    }
    return count;
}

uint32_t bench_times_logged(const struct bench *b, const char *words)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < BENCH_LINES && i < b->line_count; i++) {
        count += strstr(b->lines[i], words) != NULL;
    }
    return count;
}

const char *bench_logged(const struct bench *b, const char *words)
{
    for (uint32_t i = b->line_count; i > 0 && i + BENCH_LINES > b->line_count; i--) {
        if (strstr(b->lines[(i - 1) % BENCH_LINES], words) != NULL) {
            return b->lines[(i - 1) % BENCH_LINES];
        }
    }
    return "";
}

struct core_job_view bench_job(const struct bench *b)
{
    struct core_job_view view;
    assert_true(core_view_job(b->core, 0, &view));
    return view;
}

const char *bench_state(const struct bench *b, uint32_t number)
{
    struct core_member_view view;
    for (uint32_t i = 0; core_view_member(b->core, 0, i, &view); i++) {
        if (view.pid == number) {
            return view.state;
        }
    }
    return "";
}

void bench_running(struct bench *b, uint32_t count, uint32_t min, uint32_t max)
{
    static const char *const nodes[] = {"n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"};
    core_conn first = b->last + 1;
    assert_in_range(count, 1, 8);
    for (uint32_t i = 0; i < count; i++) {
        (void)bench_join(b, nodes[i], min, max);
    }
    if (count < max) {
        bench_wait_ms(b, b->times.quiet_ms + 2 * TICK_MS);
    }
    assert_string_equal(bench_job(b).state, "running");
    for (core_conn conn = first; conn <= b->last; conn++) {
        bench_entered(b, conn, bench_job(b).generation, 0);
    }
}
