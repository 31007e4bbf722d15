/* The pages: numbers that are no numbers, names that need escapes, the phases of a recovery. */
#include "unit/core/bench.h"
#include "server/status.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct http_page page_of(struct bench *b, const char *path)
{
    struct conn_counters counters = {.open = 3};
    struct http_page page = {.status = 0};

    status_page(b->core, &counters, path, &page);
    return page;
}

/* The only job of /v1/status; the caller frees *root. */
static json_t *only_job(struct bench *b, json_t **root)
{
    struct http_page page = page_of(b, "/v1/status");
    json_t *jobs;

    assert_int_equal(page.status, 200);
    *root = json_loads(page.body, 0, NULL);
    free(page.body);
    jobs = json_object_get(*root, "jobs");
    assert_int_equal(json_array_size(jobs), 1);
    return json_array_get(jobs, 0);
}

static void beat(struct bench *b, core_conn conn, float loss)
{
    struct core_message message = {.type = CORE_BEAT, .generation = 1, .step = 3};

    message.beat.phase = CORE_PHASE_COMPUTE;
    message.beat.loss = loss;
    message.beat.samples_per_s = 100;
    bench_say(b, conn, message);
}

static void a_loss_that_is_no_number_hides_no_job(void **state)
{
    static const float values[] = {NAN, INFINITY, -INFINITY};
    static const char *const words[] = {"NaN", "+Inf", "-Inf"};
    struct bench *b = bench_new();
    json_t *root;

    (void)state;
    bench_running(b, 2, 2, 2);
    beat(b, 1, 0.5f);
    assert_true(json_real_value(json_object_get(only_job(b, &root), "loss")) == 0.5);
    json_decref(root);
    for (int i = 0; i < 3; i++) {
        char line[64];
        struct http_page page;
        json_t *loss;

        beat(b, 1, values[i]);
        loss = json_object_get(only_job(b, &root), "loss"); /* json_is_null() evaluates it twice */
        assert_true(json_is_null(loss));
        json_decref(root);
        page = page_of(b, "/metrics");
        (void)snprintf(line, sizeof line, "\nmuster_loss{job=\"mnist\"} %s\n", words[i]);
        assert_non_null(strstr(page.body, line));
        free(page.body);
    }
    bench_free(b);
}

static void names_are_escaped(void **state)
{
    struct bench *b = bench_new();
    struct http_page page;
    json_t *root;

    (void)state;
    (void)bench_hello(b,
                      (struct bench_hello){.node = "n1", .job = "a\"b\\c\nd", .min = 2, .max = 2});
    assert_string_equal(json_string_value(json_object_get(only_job(b, &root), "name")),
                        "a\"b\\c\nd");
    json_decref(root);
    page = page_of(b, "/metrics");
    assert_non_null(strstr(page.body, "\nmuster_step{job=\"a\\\"b\\\\c\\nd\"} 0\n"));
    free(page.body);
    bench_free(b);
}

static void a_recovery_has_all_its_phases(void **state)
{
    static const char *const phases[] = {"detect_us",  "push_us",  "rendezvous_us",
                                         "connect_us", "state_us", "recompute_us"};
    struct core_message message = {.type = CORE_ENTERED, .generation = 2, .step = 3};
    struct bench *b = bench_new();
    struct http_page page;
    json_t *root, *times;

    (void)state;
    bench_running(b, 3, 2, 3);
    bench_end(b, 3);
    bench_wait_ms(b, 200);
    bench_report(b, 1, 1, 3);
    bench_report(b, 2, 1, 3);
    message.entered.connect_us = 11;
    message.entered.state_us = 0;
    message.entered.recompute_us = 44;
    bench_say(b, 1, message);
    message.entered.connect_us = 9;
    message.entered.state_us = 33;
    bench_say(b, 2, message);
    times = json_object_get(only_job(b, &root), "last_recovery");
    for (int i = 0; i < 6; i++)
        assert_true(json_is_integer(json_object_get(times, phases[i])));
    assert_int_equal(json_integer_value(json_object_get(times, "push_us")), 200000);
    assert_int_equal(json_integer_value(json_object_get(times, "connect_us")), 11);
    assert_int_equal(json_integer_value(json_object_get(times, "state_us")), 33);
    assert_int_equal(json_integer_value(json_object_get(times, "recompute_us")), 44);
    json_decref(root);
    page = page_of(b, "/metrics");
    assert_non_null(strstr(page.body, "_bucket{job=\"mnist\",phase=\"push\",le=\"0.1\"} 0\n"));
    assert_non_null(strstr(page.body, "_bucket{job=\"mnist\",phase=\"push\",le=\"0.25\"} 1\n"));
    assert_non_null(strstr(page.body, "_bucket{job=\"mnist\",phase=\"push\",le=\"+Inf\"} 1\n"));
    assert_non_null(strstr(page.body, "_seconds_sum{job=\"mnist\",phase=\"push\"} 0.200000\n"));
    assert_non_null(strstr(page.body, "_seconds_count{job=\"mnist\",phase=\"state\"} 1\n"));
    free(page.body);
    /* A join is no recovery. */
    core_conn spare = bench_join(b, "n4", 2, 3);
    bench_ready(b, spare, 2, 3);
    message.generation = 3;
    message.entered.connect_us = 5000000;
    bench_say(b, 1, message);
    bench_say(b, 2, message);
    bench_say(b, spare, message);
    times = json_object_get(only_job(b, &root), "last_recovery");
    assert_int_equal(json_integer_value(json_object_get(times, "connect_us")), 11);
    assert_int_equal(bench_job(b).generation, 3);
    json_decref(root);
    bench_free(b);
}

static void a_straggler_is_shown(void **state)
{
    struct bench *b = bench_new();
    struct http_page page;
    json_t *root, *member;

    (void)state;
    bench_running(b, 3, 2, 3);
    for (core_conn conn = 1; conn <= 3; conn++) {
        b->members[conn].steps = 10;
        b->members[conn].shards = 8;
        b->members[conn].shard_us = conn == 2 ? 41000 : 20000;
    }
    bench_wait_ms(b, 4000);
    member = json_array_get(json_object_get(only_job(b, &root), "members"), 1);
    assert_string_equal(json_string_value(json_object_get(member, "state")), "straggler");
    assert_int_equal(json_integer_value(json_object_get(member, "shards")), 8);
    assert_int_equal(json_integer_value(json_object_get(member, "shard_us")), 41000);
    json_decref(root);
    page = page_of(b, "/metrics");
#define SECOND "{job=\"mnist\",rank=\"1\",node=\"n2\"}"
    assert_non_null(
        strstr(page.body, "\nmuster_straggler{job=\"mnist\",rank=\"0\",node=\"n1\"} 0\n"));
    assert_non_null(strstr(page.body, "\nmuster_straggler" SECOND " 1\n"));
    assert_non_null(strstr(page.body, "\nmuster_shard_seconds" SECOND " 0.041\n"));
    assert_non_null(strstr(page.body, "\nmuster_shards" SECOND " 8\n"));
#undef SECOND
    free(page.body);
    bench_free(b);
}

static void only_known_paths_have_pages(void **state)
{
    struct bench *b = bench_new();
    struct http_page page = page_of(b, "/healthz");

    (void)state;
    assert_string_equal(page.body, "ok\n");
    free(page.body);
    assert_int_equal(page_of(b, "/nope").status, 0);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_loss_that_is_no_number_hides_no_job),
        cmocka_unit_test(names_are_escaped),
        cmocka_unit_test(a_recovery_has_all_its_phases),
        cmocka_unit_test(a_straggler_is_shown),
        cmocka_unit_test(only_known_paths_have_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
