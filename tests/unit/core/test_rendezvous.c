/* When a generation is formed, with whom, and at which ranks. */
#include "bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint32_t rank_of(const struct bench *b, core_conn conn)
{
    const struct bench_heard *told = bench_told(b, conn, CORE_GENERATION);
    assert_non_null(told);
    return told->rank;
}

static void with_max_members_it_forms_at_once(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    (void)bench_join(b, "n1", 1, 2);
    assert_null(bench_told(b, 1, CORE_GENERATION));
    (void)bench_join(b, "n2", 1, 2);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->world, 2);
    assert_int_equal(bench_told(b, 2, CORE_GENERATION)->generation, 1);
    bench_free(b);
}

/* The window is counted from the last arrival: never a blind wait. */
static void with_min_members_it_forms_after_a_quiet_window(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    (void)bench_join(b, "n1", 2, 4);
    bench_wait_ms(b, 10000);
    assert_string_equal(bench_job(b).state, "forming");
    assert_non_null(strstr(bench_told(b, 1, CORE_WAITING)->text, "1 more (1 of min 2)"));
    assert_non_null(strstr(bench_job(b).waits_for, "1 more (1 of min 2)"));
    (void)bench_join(b, "n2", 2, 4);
    bench_wait_ms(b, 1500);
    (void)bench_join(b, "n3", 2, 4);
    bench_wait_ms(b, 1500);
    assert_string_equal(bench_job(b).state, "forming");
    bench_wait_ms(b, 1000);
    assert_int_equal(bench_told(b, 3, CORE_GENERATION)->world, 3);
    bench_free(b);
}

static void ranks_are_natural_and_a_nodes_lie_side_by_side(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    (void)bench_join(b, "node10", 4, 4);
    (void)bench_join(b, "node2", 4, 4);
    (void)bench_join(b, "node10", 4, 4);
    (void)bench_join(b, "node2", 4, 4);
    assert_int_equal(rank_of(b, 2), 0);
    assert_int_equal(rank_of(b, 4), 1);
    assert_int_equal(rank_of(b, 1), 2);
    assert_int_equal(rank_of(b, 3), 3);
    bench_free(b);
}

static void a_hint_goes_before_the_node(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    (void)bench_hello(b, (struct bench_hello){.node = "n1", .min = 2, .max = 2, .hint = 2});
    (void)bench_hello(b, (struct bench_hello){.node = "n2", .min = 2, .max = 2, .hint = 1});
    assert_int_equal(rank_of(b, 2), 0);
    assert_int_equal(rank_of(b, 1), 1);
    bench_free(b);
}

static void survivors_go_on_at_once_and_keep_their_ranks(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 4, 2, 4);
    core_conn spare = bench_join(b, "n5", 2, 4); /* not in step: it is not waited for */
    bench_end(b, 2);
    for (core_conn conn = 1; conn <= 4; conn++) {
        if (conn != 2) {
            assert_non_null(strstr(bench_told(b, conn, CORE_OVER)->text, "rank 1 on n2"));
            bench_report(b, conn, 1, 5);
        }
    }
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->world, 3);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->step, 5);
    assert_int_equal(rank_of(b, 1), 0);
    assert_int_equal(rank_of(b, 3), 2);
    assert_int_equal(rank_of(b, 4), 1); /* the hole */
    assert_int_equal(bench_told(b, spare, CORE_GENERATION)->mode, CORE_VIEW);
    bench_free(b);
}

static void the_largest_step_of_a_survivor_is_where_it_goes_on(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 3, 1, 3);
    bench_end(b, 1);
    bench_report(b, 2, 1, 7);
    assert_int_equal(bench_told(b, 2, CORE_GENERATION)->generation, 1); /* the other's is awaited */
    bench_report(b, 3, 1, 8);
    assert_int_equal(bench_told(b, 2, CORE_GENERATION)->step, 8);
    assert_int_equal(bench_told(b, 3, CORE_GENERATION)->generation, 2);
    bench_free(b);
}

static void nothing_is_promised_before_it_is_stored(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    b->hold_store = true;
    (void)bench_join(b, "n1", 2, 2);
    (void)bench_join(b, "n2", 2, 2);
    bench_wait_ms(b, 1000);
    assert_null(bench_told(b, 1, CORE_GENERATION));
    bench_store_answers(b, true); /* the disk is full */
    assert_null(bench_told(b, 1, CORE_GENERATION));
    assert_true(bench_job(b).store_failing);
    bench_wait_ms(b, 1000); /* it is tried again */
    bench_store_answers(b, false);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_FORMED);
    assert_int_equal(bench_told(b, 2, CORE_GENERATION)->mode, CORE_FORMED);
    assert_false(bench_job(b).store_failing);
    bench_free(b);
}

/* One world only: who is lost may still train somewhere. */
static void without_a_frozen_member_newcomers_form_nothing(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 2);
    bench_end(b, 1);
    bench_end(b, 2);
    core_conn third = bench_join(b, "n3", 2, 2), fourth = bench_join(b, "n4", 2, 2);
    bench_wait_ms(b, 60000);
    assert_string_equal(bench_job(b).state, "paused");
    assert_null(bench_told(b, third, CORE_GENERATION));
    assert_non_null(strstr(bench_told(b, third, CORE_WAITING)->text,
                           "missing and perhaps alive: rank 0 on n1, rank 1 on n2"));
    assert_string_equal(bench_command(b, CORE_COMMAND_FORGET, "n1"), "1 member");
    assert_null(bench_told(b, third, CORE_GENERATION));
    assert_string_equal(bench_command(b, CORE_COMMAND_FORGET, "n2"), "1 member");
    bench_wait_ms(b, 1000);
    assert_int_equal(bench_told(b, fourth, CORE_GENERATION)->world, 2);
    bench_free(b);
}

/* One who waits is missed as soon as its connection ends. */
static void who_dies_while_all_gather_is_missed(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    core_conn first = bench_join(b, "n1", 3, 3), second = bench_join(b, "n2", 3, 3);
    bench_wait_ms(b, 1000);
    assert_non_null(strstr(bench_told(b, first, CORE_WAITING)->text, "waiting for 1 more"));
    bench_end(b, second);
    bench_wait_ms(b, 1000);
    assert_non_null(strstr(bench_told(b, first, CORE_WAITING)->text, "waiting for 2 more"));
    bench_free(b);
}

/* All are dead, and a newcomer listens at the address of one of them: that one is gone, whoever
 * answers there. */
static void an_address_of_somebody_else_proves_the_end(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 1, 2);
    bench_end(b, 1);
    bench_report(b, 2, 1, 3);
    bench_entered(b, 2, 2, 3);
    bench_end(b, 2);
    core_conn other = bench_join(b, "n3", 1, 2);
    bench_wait_ms(b, 4000);
    assert_null(bench_told(b, other, CORE_GENERATION));
    core_conn same = bench_join(b, "n2", 1, 2);
    bench_wait_ms(b, 4000);
    assert_int_equal(bench_told(b, same, CORE_GENERATION)->mode, CORE_FORMED);
    assert_true(bench_told(b, same, CORE_GENERATION)->generation > 2);
    bench_free(b);
}

static void the_first_ones_terms_stand(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    (void)bench_join(b, "n1", 2, 3);
    (void)bench_join(b, "n2", 1, 8);
    assert_non_null(strstr(bench_told(b, 2, CORE_WELCOME)->text, "--min 2 --max 3 stand"));
    assert_int_equal(bench_job(b).min, 2);
    assert_int_equal(bench_job(b).max, 3);
    bench_free(b);
}

/* The first one was started by mistake and is gone: its terms go with it. */
static void terms_of_a_job_that_never_began_are_forgotten(void **state)
{
    struct bench *b = bench_new();
    struct core_job_view view;
    (void)state;
    core_conn wrong = bench_hello(b, (struct bench_hello){.node = "n1", .min = 2, .max = 2,
                                                          .spec = "seed=3\n"});
    bench_end(b, wrong);
    bench_tick(b);
    assert_false(core_view_job(b->core, 0, &view));
    core_conn right = bench_join(b, "n1", 1, 1);
    assert_null(bench_told(b, right, CORE_REFUSED));
    assert_int_equal(bench_told(b, right, CORE_GENERATION)->world, 1);
    bench_free(b);
}

static void another_spec_or_fingerprint_is_refused_with_both_values(void **state)
{
    struct bench *b = bench_new();
    const struct bench_heard *said;
    (void)state;
    (void)bench_join(b, "n1", 2, 2);
    core_conn other = bench_hello(b, (struct bench_hello){.node = "n2", .min = 2, .max = 2,
                                                          .spec = "seed=2\n"});
    said = bench_told(b, other, CORE_REFUSED);
    assert_int_equal(said->code, 77);
    assert_non_null(strstr(said->text, "seed=1"));
    assert_non_null(strstr(said->text, "seed=2"));
    other = bench_hello(b, (struct bench_hello){.node = "n2", .min = 2, .max = 2,
                                                .fingerprint = "isa=avx512\n"});
    said = bench_told(b, other, CORE_REFUSED);
    assert_int_equal(said->code, 77);
    assert_non_null(strstr(said->text, "isa=avx512"));
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_max_members_it_forms_at_once),
        cmocka_unit_test(with_min_members_it_forms_after_a_quiet_window),
        cmocka_unit_test(ranks_are_natural_and_a_nodes_lie_side_by_side),
        cmocka_unit_test(a_hint_goes_before_the_node),
        cmocka_unit_test(survivors_go_on_at_once_and_keep_their_ranks),
        cmocka_unit_test(the_largest_step_of_a_survivor_is_where_it_goes_on),
        cmocka_unit_test(nothing_is_promised_before_it_is_stored),
        cmocka_unit_test(without_a_frozen_member_newcomers_form_nothing),
        cmocka_unit_test(who_dies_while_all_gather_is_missed),
        cmocka_unit_test(an_address_of_somebody_else_proves_the_end),
        cmocka_unit_test(the_first_ones_terms_stand),
        cmocka_unit_test(terms_of_a_job_that_never_began_are_forgotten),
        cmocka_unit_test(another_spec_or_fingerprint_is_refused_with_both_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
