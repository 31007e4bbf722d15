/* The table of `muster status`: a golden page, and no line beyond 100 columns whatever is in it. */
#include "cli/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char *page(const char *text, size_t *jobs)
{
    json_error_t where;
    json_t *status = json_loads(text, 0, &where);
    char *out = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&out, &bytes);

    if (!status)
        fail_msg("%s", where.text);
    *jobs = status_print(stream, status);
    (void)fclose(stream);
    json_decref(status);
    return out;
}

static const char two_jobs[] =
    "{\"jobs\":[{\"name\":\"mnist\",\"state\":\"running\",\"reason\":\"lost rank 2 on node-b\","
    "\"generation\":7,\"step\":1234,\"world\":2,\"min\":2,\"max\":4,\"loss\":0.03125,"
    "\"samples_per_s\":5210.4,\"recoveries\":2,\"last_recovery\":{\"detect_us\":1200,"
    "\"push_us\":300,\"rendezvous_us\":2100,\"connect_us\":4000,\"state_us\":0,"
    "\"recompute_us\":33000},\"recent_recoveries\":[{\"ago_ms\":12300,\"reason\":"
    "\"generation 7 of 2 formed at step 1200 after: rank 2 on a-node-with-a-very-long-name "
    "(node-b.example, pid 4711) is lost: its connection ended\"}],\"members\":["
    "{\"rank\":null,\"node\":\"a-node-with-a-very-long-name\",\"host\":\"h\",\"pid\":5,"
    "\"state\":\"spare\",\"step\":1233,\"silent_ms\":12,\"waits_at\":\"epoch-end\"},"
    "{\"rank\":0,\"node\":\"node-a\",\"host\":\"node-a.example\",\"pid\":1234,\"state\":"
    "\"running\",\"step\":1234,\"silent_ms\":210,\"waits_at\":\"\"}]},"
    "{\"name\":\"idle\",\"state\":\"forming\",\"generation\":0,\"step\":0,\"world\":0,"
    "\"min\":0,\"max\":0,\"loss\":0.5,\"samples_per_s\":0,"
    "\"waiting_ms\":4000,\"waits_for\":\"waiting for 1 more (1 of min 2); missing and perhaps "
    "alive: rank 1 on node-b, rank 2 on node-c\",\"members\":[]}]}";

static const char golden[] =
    "mnist: running, generation 7, step 1234, world 2 (min 2, max 4)\n"
    "  loss 0.03125, 5210 samples/s\n"
    "  2 recoveries, last in ms: detect 1.2 push 0.3 rendezvous 2.1 connect 4.0 recompute 33.0\n"
    "  12.3 s ago: generation 7 of 2 formed at step 1200 after: rank 2 on "
    "a-node-with-a-very-long-name\n"
    "    (node-b.example, pid 4711) is lost: its connection ended\n"
    "  lost rank 2 on node-b\n"
    "  RANK  NODE              HOST                  PID  STATE            STEP    SILENT  "
    "WAITS AT\n"
    "     0  node-a            node-a.example       1234  running          1234     0.2 s\n"
    "     -  a-node-with-a-v~  h                       5  spare            1233     0.0 s  "
    "epoch-end\n"
    "\n"
    "idle: forming, generation 0, step 0, world 0\n"
    "  loss 0.5\n"
    "  waiting for 1 more (1 of min 2); missing and perhaps alive: rank 1 on node-b, rank 2 on "
    "node-c,\n"
    "    since 4.0 s\n";

static void page_is_as_designed(void **state)
{
    size_t jobs = 0;
    char *text = page(two_jobs, &jobs);

    (void)state;
    assert_int_equal(jobs, 2);
    assert_string_equal(text, golden);
    free(text);
}

static void one_job_is_kept(void **state)
{
    json_t *status = json_loads(two_jobs, 0, NULL);
    const json_t *jobs = json_object_get(status, "jobs"), *name;

    (void)state;
    assert_int_equal(status_keep(status, "idle"), 1);
    assert_int_equal(json_array_size(jobs), 1);
    name = json_object_get(json_array_get(jobs, 0), "name");
    assert_string_equal(json_string_value(name), "idle");
    assert_int_equal(status_keep(status, "absent"), 0);
    json_decref(status);
}

static void a_status_is_known_from_other_things(void **state)
{
    static const struct {
        const char *text;
        bool is;
    } rows[] = {
        {two_jobs, true},
        {"{\"jobs\":[]}", true},
        {"{\"jobs\":[{\"name\":\"j\",\"state\":\"x\",\"members\":[{}]}],\"more\":1}", true},
        {"{}", false},
        {"[]", false},
        {"{\"jobs\":3}", false},
        {"{\"jobs\":{}}", false},
        {"{\"jobs\":[1,null,{}]}", false},
        {"{\"jobs\":[{\"name\":\"j\",\"state\":\"x\"}]}", false},
        {"{\"jobs\":[{\"name\":\"j\",\"state\":1,\"members\":[]}]}", false},
        {"{\"jobs\":[{\"state\":\"x\",\"members\":[]}]}", false},
        {"{\"jobs\":[{\"name\":\"j\",\"state\":\"x\",\"members\":[1]}]}", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *status = json_loads(rows[i].text, 0, NULL);

        assert_non_null(status);
        if (status_valid(status) != rows[i].is)
            fail_msg("%s", rows[i].text);
        json_decref(status);
    }
}

static size_t columns(const char *line, size_t bytes)
{
    size_t seen = 0;

    for (size_t i = 0; i < bytes; i++)
        seen += ((unsigned char)line[i] & 0xc0) != 0x80;
    return seen;
}

static void no_line_is_wider_than_100_columns(void **state)
{
    char wide[65 * 2 + 1];
    char text[4096];
    size_t jobs = 0;
    char *out;

    (void)state;
    for (size_t i = 0; i + 1 < sizeof wide; i += 2)
        memcpy(wide + i, "\xc3\xa9", 2);
    wide[sizeof wide - 1] = '\0';
    (void)snprintf(text, sizeof text,
                   "{\"jobs\":[{\"name\":\"%s\",\"state\":\"%s\",\"reason\":\"%s%s%s\","
                   "\"generation\":18446744073709551615.0,\"step\":1e19,\"world\":1e19,\"min\":1e9,"
                   "\"max\":1e9,\"loss\":-1.5e-38,\"samples_per_s\":1e30,\"recoveries\":1e19,"
                   "\"last_recovery\":{\"detect_us\":1e19,\"recompute_us\":1e19},"
                   "\"members\":[{\"rank\":1023,"
                   "\"node\":\"%s\",\"host\":\"%s\",\"pid\":4294967295,\"state\":\"unreachable\","
                   "\"step\":99999999,\"silent_ms\":9999999,\"waits_at\":\"%s\"}]}]}",
                   wide, wide, wide, wide, wide, wide, wide, wide);
    out = page(text, &jobs);
    assert_int_equal(jobs, 1);
    for (const char *line = out; *line != '\0';) {
        size_t bytes = strcspn(line, "\n");

        if (columns(line, bytes) > 100)
            fail_msg("%zu columns: %.*s", columns(line, bytes), (int)bytes, line);
        line += bytes + 1;
    }
    free(out);
}

/* Whatever the other side sends: nothing, or other types, is no crash. */
static void strange_objects_are_survived(void **state)
{
    static const char *const texts[] = {"{}", "{\"jobs\":3}", "{\"jobs\":[3]}",
                                        "{\"jobs\":[{\"members\":[1,null,{}]}]}",
                                        "{\"jobs\":[{\"name\":1,\"world\":\"x\",\"members\":{}}]}"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        size_t jobs = 0;

        free(page(texts[i], &jobs));
        assert_true(jobs <= 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_is_as_designed),
        cmocka_unit_test(one_job_is_kept),
        cmocka_unit_test(a_status_is_known_from_other_things),
        cmocka_unit_test(no_line_is_wider_than_100_columns),
        cmocka_unit_test(strange_objects_are_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
