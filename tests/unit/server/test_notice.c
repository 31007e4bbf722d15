/* Log lines with a limit: how many come, and what is said about the rest. */
#include "server/notice.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define BEGAN_US (5ull * LOG_RATE_US)

struct rig {
    struct log log;
    struct notices notices;
    int read_fd;
    char text[65536];
};

static void rig_init(struct rig *rig)
{
    int ends[2];

    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    rig->read_fd = ends[0];
    log_open(&rig->log, ends[1], false, "prog");
    notices_init(&rig->notices, &rig->log);
}

static void rig_end(struct rig *rig)
{
    assert_int_equal(close(rig->log.fd), 0);
    assert_int_equal(close(rig->read_fd), 0);
}

/* The lines since the last call. */
static const char *lines(struct rig *rig, unsigned *count)
{
    ssize_t got = read(rig->read_fd, rig->text, sizeof rig->text - 1);

    rig->text[got > 0 ? got : 0] = '\0';
    *count = 0;
    for (const char *at = rig->text; *at != '\0'; at++)
        *count += *at == '\n';
    return rig->text;
}

static void expect_lines(struct rig *rig, unsigned count, const char *word)
{
    unsigned there;
    const char *text = lines(rig, &there);

    assert_int_equal(there, count);
    if (count > 0 && strstr(text, word) == NULL)
        fail_msg("'%s' is not said: %s", word, text);
}

static void a_flood_of_strangers_is_a_few_lines_and_a_number(void **state)
{
    uint64_t now_us = BEGAN_US;
    struct rig rig;

    (void)state;
    rig_init(&rig);
    notice_connection(&rig.notices, now_us, "10.0.0.5:4711", "refused", "wrong magic");
    expect_lines(&rig, 1, "warning connection of 10.0.0.5:4711 refused: wrong magic\n");
    for (int i = 0; i < 5000; i++)
        notice_connection(&rig.notices, now_us, "10.0.0.5:4711", "ended", "it was silent");
    notices_tick(&rig.notices, now_us);
    expect_lines(&rig, LOG_RATE_COUNT - 1, "it was silent");
    now_us += LOG_RATE_US;
    notice_connection(&rig.notices, now_us, "10.0.0.6:1", "ended", "it was silent");
    expect_lines(&rig, 1, "(and 4991 more before it)");
    notices_tick(&rig.notices, now_us + LOG_RATE_US);
    expect_lines(&rig, 0, "");
    rig_end(&rig);
}

/* Also when none comes after them. */
static void the_rest_of_a_flood_is_told_by_itself(void **state)
{
    struct rig rig;

    (void)state;
    rig_init(&rig);
    for (int i = 0; i < LOG_RATE_COUNT + 3; i++)
        notice_refusal(&rig.notices, BEGAN_US, "j", "refused: the spec differs");
    notices_tick(&rig.notices, BEGAN_US + LOG_RATE_US - 1);
    expect_lines(&rig, LOG_RATE_COUNT, "job=j  refused: the spec differs");
    notices_tick(&rig.notices, BEGAN_US + LOG_RATE_US);
    expect_lines(&rig, 1, "and 3 more were refused");
    notices_tick(&rig.notices, BEGAN_US + 3 * LOG_RATE_US);
    expect_lines(&rig, 0, "");
    rig_end(&rig);
}

/* A tick finds it ten times a second: each number is told once a minute. */
static void a_broken_invariant_is_told_once_a_minute(void **state)
{
    uint64_t now_us = BEGAN_US;
    struct rig rig;

    (void)state;
    rig_init(&rig);
    for (int i = 0; i < 600; i++, now_us += 100000) {
        notice_broken(&rig.notices, now_us, 3, "a number too new");
        if (i == 0)
            expect_lines(&rig, 1, "error   invariant 3 is broken: a number too new\n");
    }
    expect_lines(&rig, 0, "");
    notice_broken(&rig.notices, now_us, 5, "another");
    notice_broken(&rig.notices, now_us, NOTICE_INVARIANTS + 7, "one of many");
    expect_lines(&rig, 2, "invariant 5");
    notice_broken(&rig.notices, now_us, 3, "a number too new");
    expect_lines(&rig, 1, "(found 599 more times");
    rig_end(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flood_of_strangers_is_a_few_lines_and_a_number),
        cmocka_unit_test(the_rest_of_a_flood_is_told_by_itself),
        cmocka_unit_test(a_broken_invariant_is_told_once_a_minute),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
