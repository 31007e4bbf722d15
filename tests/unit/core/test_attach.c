/* Coming back: after a broken connection, after a restart of the coordinator, with an older or
 * empty store. */
#include "bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static core_conn attach(struct bench *b, uint32_t number, uint64_t generation, uint64_t plan)
{
    return bench_hello(b, (struct bench_hello){.node = "n1", .number = number,
                                               .attach = CORE_ATTACH_RUNNING,
                                               .generation = generation, .plan = plan});
}

static void with_the_secret_it_takes_its_place_again(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 2);
    core_conn again = attach(b, 1, 1, 0);
    assert_true(bench_told(b, again, CORE_WELCOME)->attached);
    assert_int_equal(b->closed, 1u << 1);
    assert_int_equal(bench_job(b).generation, 1);
    bench_end(b, 1);
    assert_string_equal(bench_job(b).state, "running");
    bench_free(b);
}

static void without_it_it_is_refused(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 2);
    core_conn thief = bench_hello(b, (struct bench_hello){.node = "n1", .number = 1, .secret = 99,
                                                          .attach = CORE_ATTACH_RUNNING,
                                                          .generation = 1});
    assert_int_equal(bench_told(b, thief, CORE_REFUSED)->code, 77);
    assert_non_null(strstr(bench_told(b, thief, CORE_REFUSED)->text, "rank 0 on n1"));
    assert_int_equal(b->closed, 1u << thief);
    assert_string_equal(bench_state(b, 1), "running");
    bench_free(b);
}

static void a_restart_gives_fresh_leases(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 2);
    bench_wait_ms(b, 5000);
    bench_restart(b);
    assert_string_equal(bench_state(b, 1), "detached");
    bench_wait_ms(b, 4000);
    (void)attach(b, 1, 1, 0);
    (void)attach(b, 2, 1, 0);
    bench_wait_ms(b, 4000);
    assert_string_equal(bench_job(b).state, "running");
    assert_int_equal(bench_job(b).generation, 1);
    bench_free(b);
}

static void finish(struct bench *b, core_conn conn, uint64_t step)
{
    bench_say(b, conn, (struct core_message){.type = CORE_FINISHED, .generation = 1, .step = step});
}

/* Members of jobs that were done were accused after each restart, and the job was back at the step
 * at which its last generation had begun. */
static void nobody_of_a_done_job_is_awaited(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 2);
    bench_say(b, 1, (struct core_message){.type = CORE_BEAT, .generation = 1, .step = 6,
                                          .beat = {.loss = 0.25f, .samples_per_s = 100}});
    finish(b, 1, 7);
    finish(b, 2, 7);
    assert_string_equal(bench_job(b).state, "done");
    assert_true(bench_job(b).loss == 0.25f && bench_job(b).samples_per_s == 0);
    bench_end(b, 1);
    bench_end(b, 2);
    assert_true(bench_job(b).loss == 0.25f);
    assert_int_equal(bench_job(b).members, 0);
    bench_restart(b);
    assert_string_equal(bench_job(b).state, "done");
    assert_int_equal(bench_job(b).step, 7);
    assert_int_equal(bench_job(b).world, 2);
    assert_string_equal(bench_state(b, 1), "");
    bench_wait_ms(b, 20000);
    assert_int_equal(bench_times_logged(b, "suspect"), 0);
    assert_int_equal(bench_times_logged(b, "is lost"), 0);
    bench_free(b);
}

/* Who would train it further is not told that it is done. */
static void a_done_job_of_another_spec_is_another_job(void **state)
{
    struct bench *b = bench_new();
    struct bench_hello hello = {.node = "n2", .min = 1, .max = 1, .spec = "epochs=7\n"};
    core_conn first;
    (void)state;
    first = bench_hello(b, (struct bench_hello){.node = "n1", .min = 1, .max = 1,
                                                .spec = "epochs=6\n"});
    bench_entered(b, first, 1, 0);
    finish(b, first, 7);
    assert_string_equal(bench_job(b).state, "done");
    const struct bench_heard *heard = bench_told(b, bench_hello(b, hello), CORE_REFUSED);
    assert_int_equal(heard->code, 77);
    assert_non_null(strstr(heard->text, "which is done, has epochs=6, this worker has epochs=7"));
    assert_non_null(strstr(heard->text, "choose another --job"));
    hello.spec = "epochs=6\n";
    assert_int_equal(bench_told(b, bench_hello(b, hello), CORE_REFUSED)->code, 0);
    bench_free(b);
}

/* All have gone, and that is stored: after a restart nobody of them is asked for, and the job is
 * what it was. */
static void a_deserted_job_is_paused_over_a_restart(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 2);
    bench_entered(b, 1, 1, 9);
    assert_int_equal(bench_job(b).step, 9);
    bench_end(b, 2);
    bench_report(b, 1, 1, 10);
    assert_string_equal(bench_job(b).state, "paused");
    bench_say(b, 1, (struct core_message){.type = CORE_GOODBYE, .generation = 1,
                                          .goodbye = {.text = ""}});
    assert_string_equal(bench_state(b, 1), "left");
    assert_string_equal(bench_state(b, 2), "lost");
    bench_wait_ms(b, 100);
    bench_probed(b, b->probes[0], true);
    assert_string_equal(bench_state(b, 2), "lost");
    bench_restart(b);
    assert_string_equal(bench_job(b).state, "paused");
    assert_int_equal(bench_job(b).step, 10);
    assert_string_equal(bench_state(b, 2), "");
    (void)bench_join(b, "n1", 1, 1);
    assert_int_equal(bench_job(b).generation, 2);
    bench_restart(b);
    assert_string_equal(bench_state(b, 3), "detached"); /* that one is awaited */
    bench_free(b);
}

/* One that was believed to be gone is back: a restart does not make it gone again. */
static void who_comes_back_to_a_deserted_job_is_awaited(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 1, 1, 2);
    bench_end(b, 1);
    bench_wait_ms(b, 100);
    bench_probed(b, b->probes[0], true); /* falsely */
    core_conn again = attach(b, 1, 1, 0);
    assert_non_null(bench_told(b, again, CORE_OVER));
    bench_restart(b);
    again = attach(b, 1, 1, 0);
    assert_null(bench_told(b, again, CORE_REFUSED));
    assert_true(bench_told(b, again, CORE_WELCOME)->attached);
    bench_free(b);
}

/* The store is a copy from before generation 5, and says of generation 1 that nobody lives: who
 * brings a checkpoint of generation 5 does not begin below one who trains in it. */
static void an_older_store_of_a_deserted_job_waits_for_who_trains(void **state)
{
    struct bench *b = bench_new();
    struct core_roster_member trains = {.id = {{9}}, .node = "n9", .host = "n9",
                                        .data_address = "n9:1", .rank = 0, .pid = 9};
    (void)state;
    bench_running(b, 1, 1, 1);
    bench_end(b, 1);
    bench_wait_ms(b, 100);
    bench_probed(b, b->probes[0], true);
    bench_restart(b);
    assert_string_equal(bench_job(b).state, "paused");
    (void)bench_hello(b, (struct bench_hello){.node = "n2", .number = 2, .min = 1, .max = 1,
                                              .generation = 5, .applied = 20});
    bench_wait_ms(b, 400);
    assert_int_equal(bench_job(b).generation, 1);
    assert_non_null(strstr(bench_job(b).waits_for, "know of step 20"));
    core_conn living = bench_hello(b, (struct bench_hello){.node = "n9", .number = 9,
                                                           .attach = CORE_ATTACH_RUNNING,
                                                           .generation = 5, .nonce = 77,
                                                           .roster = &trains, .roster_count = 1});
    assert_null(bench_told(b, living, CORE_REFUSED));
    assert_int_equal(bench_job(b).generation, 5);
    assert_string_equal(bench_job(b).state, "running");
    bench_free(b);
}

static void a_damaged_record_is_passed_over(void **state)
{
    struct bench *b = bench_new();
    struct core_job_view view;
    (void)state;
    bench_running(b, 2, 2, 2);
    for (size_t at = 0; at < b->record_bytes; at++) {
        b->record[at] ^= 0x10;
        bench_restart(b);
        b->record[at] ^= 0x10;
        if (core_view_job(b->core, 0, &view)) {
            fail_msg("byte %zu of %zu was flipped and the record was taken", at, b->record_bytes);
        }
    }
    bench_restart(b);
    assert_true(core_view_job(b->core, 0, &view));
    bench_free(b);
}

/* Found by the simulator: of two that began at step 5 only the one that had yet to copy the state
 * came back after a restart. It fences the generation, but it does not begin again below the other,
 * of whom the coordinator knows nothing but that it was there. */
static void who_had_yet_to_copy_does_not_begin_below(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    (void)bench_hello(b, (struct bench_hello){.node = "n1", .min = 1, .max = 2, .applied = 5});
    (void)bench_hello(b, (struct bench_hello){.node = "n2", .min = 1, .max = 2});
    assert_string_equal(bench_job(b).waits_for, "2 are here, and know of step 5: who trained it "
                                                "has 5000 ms to come back");
    bench_wait_ms(b, b->times.reconnect_ms + b->times.quiet_ms);
    assert_int_equal(bench_told(b, 2, CORE_GENERATION)->step, 5);
    bench_restart(b);
    core_conn copies = bench_hello(b, (struct bench_hello){.node = "n2", .number = 2,
                                                           .attach = CORE_ATTACH_RUNNING,
                                                           .generation = 1});
    bench_wait_ms(b, 9000);
    assert_non_null(bench_told(b, copies, CORE_OVER));
    bench_report(b, copies, 1, 0);
    bench_wait_ms(b, 9000);
    assert_int_equal(bench_job(b).generation, 1);
    assert_string_equal(bench_job(b).state, "paused");
    core_conn has = bench_hello(b, (struct bench_hello){.node = "n1", .number = 1, .generation = 1,
                                                        .attach = CORE_ATTACH_FROZEN});
    bench_report(b, has, 1, 5);
    bench_wait_ms(b, 3000);
    assert_int_equal(bench_told(b, copies, CORE_GENERATION)->generation, 2);
    assert_int_equal(bench_told(b, copies, CORE_GENERATION)->step, 5);
    bench_free(b);
}

/* Two of three come back after a restart, and one of these dies: the third, whom nobody has seen
 * since, is not waited for as long as a pause between two attempts to connect may be, if its
 * address says that its process is gone. */
static void who_died_meanwhile_is_not_waited_for(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 3, 1, 3);
    bench_restart(b);
    core_conn first = attach(b, 1, 1, 0), second = attach(b, 2, 1, 0);
    bench_wait_ms(b, 300);
    assert_int_equal(b->probe_count, 0); /* nobody misses it yet */
    bench_end(b, second);
    bench_report(b, first, 1, 5);
    bench_tick(b);
    assert_int_equal(b->probe_count, 1);
    bench_probed(b, b->probes[0], false);
    assert_string_equal(bench_state(b, 3), "detached");
    bench_wait_ms(b, b->times.probe_ms - 100);
    assert_int_equal(b->probe_count, 0);
    bench_wait_ms(b, 100);
    assert_int_equal(b->probe_count, 1);
    bench_probed(b, b->probes[0], true);
    assert_int_equal(bench_told(b, first, CORE_GENERATION)->world, 1);
    bench_free(b);
}

/* The same when its peers miss it: the end of its data connections and the refusal of its address
 * are proof enough. */
static void who_is_missed_by_its_peers_is_asked_for(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 1, 2);
    bench_restart(b);
    core_conn first = attach(b, 1, 1, 0);
    bench_say(b, first, (struct core_message){.type = CORE_PEER_LOST, .generation = 1,
                                              .peer_lost = {.member_id = {{2}}, .text = "closed",
                                                            .why = CORE_LOST_CLOSED}});
    bench_tick(b);
    assert_int_equal(b->probe_count, 1);
    bench_probed(b, b->probes[0], true);
    bench_report(b, first, 1, 5);
    assert_int_equal(bench_told(b, first, CORE_GENERATION)->world, 1);
    bench_free(b);
}

/* One that came back while it was asked for is not lost. */
static void an_answer_that_comes_too_late_is_nothing(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 3, 1, 3);
    bench_restart(b);
    core_conn first = attach(b, 1, 1, 0), second = attach(b, 2, 1, 0);
    bench_end(b, second);
    bench_report(b, first, 1, 5);
    bench_tick(b);
    uint64_t probe = b->probes[0];
    (void)attach(b, 3, 1, 0);
    bench_probed(b, probe, true);
    assert_string_equal(bench_state(b, 3), "running");
    bench_free(b);
}

/* An empty store: the first member that comes brings the whole list, and the others have fresh
 * leases. */
static void an_empty_store_adopts_the_roster(void **state)
{
    struct bench *b = bench_new();
    struct core_roster_member roster[2] = {
        {.id = {{1}}, .node = "n1", .host = "n1", .data_address = "", .rank = 0, .pid = 1},
        {.id = {{2}}, .node = "n2", .host = "n2", .data_address = "", .rank = 1, .pid = 2}};
    (void)state;
    core_conn first = bench_hello(b, (struct bench_hello){
                                         .node = "n1", .number = 1, .min = 2, .max = 2,
                                         .attach = CORE_ATTACH_RUNNING, .generation = 7,
                                         .applied = 41, .roster = roster, .roster_count = 2});
    assert_true(bench_told(b, first, CORE_WELCOME)->attached);
    assert_string_equal(bench_job(b).state, "running");
    assert_int_equal(bench_job(b).generation, 7);
    assert_string_equal(bench_state(b, 2), "detached");
    (void)attach(b, 2, 7, 0);
    assert_string_equal(bench_state(b, 2), "running");
    /* The next number is above all that anybody knows. */
    bench_end(b, first);
    core_conn second = b->last, third = bench_join(b, "n3", 2, 2);
    bench_report(b, second, 7, 41);
    assert_int_equal(bench_told(b, third, CORE_GENERATION)->mode, CORE_FORMED);
    assert_true(bench_told(b, third, CORE_GENERATION)->generation > 7);
    bench_free(b);
}

static core_conn bring(struct bench *b, const struct core_roster_member *roster, uint32_t count,
                       uint64_t generation)
{
    return bench_hello(b, (struct bench_hello){.node = "n1",
                                               .number = 1,
                                               .min = 2,
                                               .max = 2,
                                               .attach = CORE_ATTACH_RUNNING,
                                               .generation = generation,
                                               .roster = roster,
                                               .roster_count = count});
}

/* Seed 2067 of the simulator: what was taken over was not stored, and the next restart did not know
 * it again: newcomers formed another generation of the same number. */
static void what_was_adopted_is_stored(void **state)
{
    struct bench *b = bench_new();
    struct core_roster_member roster[2] = {
        {.id = {{1}}, .node = "n1", .host = "n1", .data_address = "", .rank = 0, .pid = 1},
        {.id = {{2}}, .node = "n2", .host = "n2", .data_address = "", .rank = 1, .pid = 2}};
    (void)state;
    b->hold_store = true;
    (void)bring(b, roster, 2, 7);
    b->hold_store = false;
    bench_store_answers(b, true); /* fails once, and is tried again */
    b->record_bytes = 0;
    bench_wait_ms(b, 1000);
    assert_true(b->record_bytes > 0);
    bench_restart(b);
    assert_string_equal(bench_job(b).state, "running");
    assert_int_equal(bench_job(b).generation, 7);
    (void)attach(b, 2, 7, 0);
    assert_string_equal(bench_state(b, 2), "running");
    bench_free(b);
}

/* One HELLO of a stranger made a job that "ran" with members that never were. */
static void a_list_that_is_none_is_refused(void **state)
{
    struct core_roster_member two[2] = {
        {.id = {{1}}, .node = "n1", .host = "n1", .data_address = "", .rank = 0, .pid = 1},
        {.id = {{2}}, .node = "n2", .host = "n2", .data_address = "", .rank = 0, .pid = 2}};
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        static const char *const why[] = {"once each", "once each", "the sender", "twice"};
        struct bench *b = bench_new();
        struct core_job_view view;
        two[1].rank = i == 0 ? 0 : i == 1 ? 7 : 1;
        two[0].id.byte[0] = i == 2 ? 9 : i == 3 ? 2 : 1;
        core_conn stranger = bring(b, two, 2, 5);
        assert_int_equal(bench_told(b, stranger, CORE_REFUSED)->code, 77);
        assert_non_null(strstr(bench_told(b, stranger, CORE_REFUSED)->text, why[i]));
        bench_end(b, stranger);
        bench_wait_ms(b, 200);
        assert_false(core_view_job(b->core, 0, &view));
        bench_free(b);
    }
}

/* More than there is room for: nothing of it is taken. */
static void a_list_without_room_is_refused(void **state)
{
    struct bench *b = bench_new();
    static struct core_roster_member many[BENCH_MEMBERS + 1];
    (void)state;
    for (uint32_t i = 0; i <= BENCH_MEMBERS; i++)
        many[i] = (struct core_roster_member){
            .id = {{(uint8_t)(i + 1)}}, .node = "n", .host = "n", .data_address = "", .rank = i};
    core_conn stranger = bring(b, many, BENCH_MEMBERS + 1, 5);
    assert_non_null(strstr(bench_told(b, stranger, CORE_REFUSED)->text, "--members-max"));
    bench_end(b, stranger);
    bench_running(b, 2, 2, 2);
    bench_free(b);
}

/* A number near 2^64 made the next one 0, which means none. */
static void numbers_beyond_all_bounds_are_refused(void **state)
{
    struct bench *b = bench_new();
    const struct bench_hello hellos[] = {
        {.node = "n1", .min = 1, .max = 1, .generation = UINT64_MAX},
        {.node = "n1", .min = 1, .max = 1, .plan = UINT64_MAX, .attach = CORE_ATTACH_RUNNING},
        {.node = "n1", .min = 1, .max = 1, .applied = UINT64_MAX},
        {.node = "n1", .min = 1, .max = CORE_WORLD_MAX + 1},
        {.node = "n1", .min = CORE_WORLD_MAX + 1, .max = 2}};
    (void)state;
    for (uint32_t i = 0; i < sizeof hellos / sizeof hellos[0]; i++) {
        core_conn stranger = bench_hello(b, hellos[i]);
        assert_int_equal(bench_told(b, stranger, CORE_REFUSED)->code, 77);
        bench_end(b, stranger);
    }
    bench_running(b, 2, 2, 2);
    bench_say(b, 1,
              (struct core_message){.type = CORE_REPORT,
                                    .generation = UINT64_MAX,
                                    .step = 1,
                                    .report = {.entered = true, .plan = UINT64_MAX}});
    bench_report(b, 2, 1, 1);
    bench_wait_ms(b, 3000);
    assert_in_range(bench_job(b).generation, 1, 10);
    bench_free(b);
}

/* The table was full for ever of jobs that nobody had begun. */
static void jobs_that_never_began_give_way(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        const char name[] = {(char)('a' + i), '\0'};
        core_conn conn = bench_hello(
            b,
            (struct bench_hello){.node = "n1", .job = name, .min = 2, .max = 2, .generation = 3});
        assert_null(bench_told(b, conn, CORE_REFUSED));
        bench_end(b, conn);
        bench_wait_ms(b, 200);
    }
    bench_free(b);
}

/* Seeds 2250 and 6884 of the simulator: the store had lost the plan that the members held; they
 * entered it, and the coordinator waited for a generation that nobody was in. */
static void a_plan_that_the_store_lost_is_over(void **state)
{
    struct bench *b = bench_new();
    static uint8_t older[4096];
    (void)state;
    bench_running(b, 2, 2, 3);
    size_t older_bytes = b->record_bytes;
    assert_true(older_bytes <= sizeof older);
    memcpy(older, b->record, older_bytes);
    core_conn spare = bench_join(b, "n3", 2, 3);
    bench_ready(b, spare, 1, 1);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_PLAN);
    memcpy(b->record, older, older_bytes);
    b->record_bytes = older_bytes;
    bench_restart(b);
    core_conn first = attach(b, 1, 1, 2), second = attach(b, 2, 1, 2);
    assert_non_null(bench_told(b, first, CORE_OVER));
    assert_non_null(strstr(bench_told(b, first, CORE_OVER)->text, "generation 2 is not known"));
    assert_non_null(bench_told(b, second, CORE_OVER));
    bench_report(b, first, 1, 1);
    bench_report(b, second, 1, 1);
    assert_true(bench_told(b, first, CORE_GENERATION)->generation > 2);
    bench_free(b);
}

/* Found with 20 puppets: the connection of one had broken when the plan was told. */
static void one_that_missed_a_plan_is_told_again(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 3);
    core_conn spare = bench_join(b, "n3", 2, 3);
    bench_ready(b, spare, 1, 1);
    core_conn holds = attach(b, 1, 1, 2), missed = attach(b, 2, 1, 0);
    assert_null(bench_told(b, holds, CORE_GENERATION));
    assert_int_equal(bench_told(b, missed, CORE_GENERATION)->mode, CORE_PLAN);
    assert_int_equal(bench_told(b, missed, CORE_GENERATION)->generation, 2);
    bench_entered(b, holds, 2, 2);
    bench_entered(b, missed, 2, 2);
    bench_entered(b, spare, 2, 2);
    assert_int_equal(bench_job(b).generation, 2);
    bench_free(b);
}

/* A coordinator that was restarted has no key for it: the group is formed anew. */
static void a_plan_missed_over_a_restart_is_over(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 3);
    core_conn spare = bench_join(b, "n3", 2, 3);
    bench_ready(b, spare, 1, 1);
    bench_restart(b);
    core_conn holds = attach(b, 1, 1, 2), missed = attach(b, 2, 1, 0);
    assert_non_null(bench_told(b, holds, CORE_OVER));
    assert_non_null(strstr(bench_told(b, missed, CORE_OVER)->text, "was never told"));
    spare = bench_hello(
        b, (struct bench_hello){.node = "n3", .number = (uint32_t)spare, .generation = 2});
    bench_report(b, holds, 1, 1);
    bench_report(b, missed, 1, 1);
    bench_say(b, spare, (struct core_message){.type = CORE_REPORT, .step = 1});
    bench_wait_ms(b, b->times.quiet_ms + 200);
    assert_true(bench_told(b, missed, CORE_GENERATION)->generation > 2);
    bench_free(b);
}

/* Found with 20 puppets: the spare said again that it was ready beside the plan that the others had
 * entered, but one of them had not said so yet; then it was told of it again, heard nothing new,
 * and never became a member. */
static void a_spare_stays_ready_over_a_restart(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 3);
    core_conn third = bench_join(b, "n3", 2, 3), spare = bench_join(b, "n4", 2, 3);
    bench_ready(b, third, 1, 1);
    uint64_t nonce = bench_told(b, 1, CORE_GENERATION)->nonce;
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_PLAN);
    bench_restart(b);
    spare = bench_hello(
        b, (struct bench_hello){
               .node = "n4", .number = (uint32_t)spare, .generation = 2, .nonce = nonce});
    bench_ready(b, spare, 2, 1);
    for (uint32_t number = 1; number <= 3; number++)
        bench_entered(b, attach(b, number, 2, 0), 2, 1);
    assert_int_equal(bench_job(b).generation, 2);
    assert_string_equal(bench_job(b).state, "running");
    assert_string_equal(bench_state(b, 4), "spare");
    assert_null(bench_told(b, spare, CORE_GENERATION));
    bench_free(b);
}

/* Seed 13271 of the simulator: the plan with a spare was restored, and what the spare reported when
 * it was over was taken for old news; ten seconds later the spare was put out. */
static void a_spare_of_a_restored_plan_may_report(void **state)
{
    struct bench *b = bench_new();
    struct core_message report = {.type = CORE_REPORT, .step = 1};
    (void)state;
    bench_running(b, 2, 2, 3);
    core_conn spare = bench_join(b, "n3", 2, 3);
    bench_ready(b, spare, 1, 1);
    bench_restart(b);
    core_conn first = attach(b, 1, 1, 2);
    (void)attach(b, 2, 1, 2);
    spare = bench_hello(
        b, (struct bench_hello){.node = "n3", .number = (uint32_t)spare, .generation = 2});
    bench_end(b, spare - 1);
    bench_report(b, first, 1, 1);
    bench_say(b, spare, report);
    bench_wait_ms(b, b->times.quiet_ms + 200);
    assert_int_equal(bench_told(b, spare, CORE_GENERATION)->mode, CORE_FORMED);
    assert_int_equal(bench_told(b, spare, CORE_GENERATION)->world, 2);
    bench_free(b);
}

/* Who comes after that restart cannot be shown the generation: its key is not known any more. */
static void a_newcomer_after_a_restart_gets_a_new_key(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 4);
    core_conn third = bench_join(b, "n3", 2, 4);
    bench_ready(b, third, 1, 1);
    bench_restart(b);
    core_conn late = bench_join(b, "n4", 2, 4), member = 0;
    for (uint32_t number = 1; number <= 3; number++) {
        member = attach(b, number, 2, 0);
        bench_entered(b, member, 2, 1);
    }
    assert_non_null(bench_told(b, member, CORE_OVER));
    assert_non_null(strstr(bench_told(b, member, CORE_OVER)->text, "new key"));
    assert_null(bench_told(b, late, CORE_GENERATION));
    bench_free(b);
}

/* Seed 802 of the simulator: a member had heard that generation 8 was over, of which it was not;
 * the empty store gave the number again, and the member did not hear of it. */
static void a_number_that_a_member_heard_of_is_not_given_again(void **state)
{
    struct bench *b = bench_new();
    struct core_roster_member roster[1] = {
        {.id = {{1}}, .node = "n1", .host = "n1", .data_address = "", .rank = 0, .pid = 1}};
    (void)state;
    core_conn first = bench_hello(b, (struct bench_hello){.node = "n1",
                                                          .number = 1,
                                                          .min = 1,
                                                          .max = 1,
                                                          .attach = CORE_ATTACH_FROZEN,
                                                          .generation = 7,
                                                          .plan = 8,
                                                          .applied = 41,
                                                          .roster = roster,
                                                          .roster_count = 1});
    bench_report(b, first, 7, 41);
    assert_int_equal(bench_told(b, first, CORE_GENERATION)->mode, CORE_FORMED);
    assert_true(bench_told(b, first, CORE_GENERATION)->generation > 8);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_the_secret_it_takes_its_place_again),
        cmocka_unit_test(without_it_it_is_refused),
        cmocka_unit_test(a_restart_gives_fresh_leases),
        cmocka_unit_test(who_had_yet_to_copy_does_not_begin_below),
        cmocka_unit_test(who_died_meanwhile_is_not_waited_for),
        cmocka_unit_test(who_is_missed_by_its_peers_is_asked_for),
        cmocka_unit_test(an_answer_that_comes_too_late_is_nothing),
        cmocka_unit_test(a_damaged_record_is_passed_over),
        cmocka_unit_test(nobody_of_a_done_job_is_awaited),
        cmocka_unit_test(a_done_job_of_another_spec_is_another_job),
        cmocka_unit_test(a_deserted_job_is_paused_over_a_restart),
        cmocka_unit_test(who_comes_back_to_a_deserted_job_is_awaited),
        cmocka_unit_test(an_older_store_of_a_deserted_job_waits_for_who_trains),
        cmocka_unit_test(an_empty_store_adopts_the_roster),
        cmocka_unit_test(what_was_adopted_is_stored),
        cmocka_unit_test(a_list_that_is_none_is_refused),
        cmocka_unit_test(a_list_without_room_is_refused),
        cmocka_unit_test(numbers_beyond_all_bounds_are_refused),
        cmocka_unit_test(jobs_that_never_began_give_way),
        cmocka_unit_test(a_plan_that_the_store_lost_is_over),
        cmocka_unit_test(a_spare_stays_ready_over_a_restart),
        cmocka_unit_test(a_spare_of_a_restored_plan_may_report),
        cmocka_unit_test(one_that_missed_a_plan_is_told_again),
        cmocka_unit_test(a_plan_missed_over_a_restart_is_over),
        cmocka_unit_test(a_newcomer_after_a_restart_gets_a_new_key),
        cmocka_unit_test(a_number_that_a_member_heard_of_is_not_given_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
