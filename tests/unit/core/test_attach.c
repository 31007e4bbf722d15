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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_the_secret_it_takes_its_place_again),
        cmocka_unit_test(without_it_it_is_refused),
        cmocka_unit_test(a_restart_gives_fresh_leases),
        cmocka_unit_test(who_died_meanwhile_is_not_waited_for),
        cmocka_unit_test(who_is_missed_by_its_peers_is_asked_for),
        cmocka_unit_test(an_answer_that_comes_too_late_is_nothing),
        cmocka_unit_test(a_damaged_record_is_passed_over),
        cmocka_unit_test(an_empty_store_adopts_the_roster),
        cmocka_unit_test(a_plan_that_the_store_lost_is_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
