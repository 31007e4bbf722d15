/* Log lines: their form, what strangers can put into them, many threads, the limit of a kind. */
#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { THREADS = 4, LINES = 200 };

struct sink {
    struct log log;
    int read_fd;
    char text[8192];
    size_t length;
};

static void open_sink(struct sink *sink, bool json)
{
    int ends[2];

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    sink->read_fd = ends[0];
    log_open(&sink->log, ends[1], json, "prog");
}

static void close_sink(struct sink *sink)
{
    assert_int_equal(close(sink->log.fd), 0);
    assert_int_equal(close(sink->read_fd), 0);
}

/* What one read gives: lines leave in one write. */
static const char *take(struct sink *sink)
{
    ssize_t got = read(sink->read_fd, sink->text, sizeof sink->text - 1);

    assert_true(got > 0);
    sink->length = (size_t)got;
    sink->text[got] = '\0';
    assert_int_equal(strlen(sink->text), sink->length);
    return sink->text;
}

static void a_text_line_has_a_form(void **state)
{
    struct sink sink;
    unsigned year, month, day, hour, minute, second, ms;
    int at = 0;

    (void)state;
    open_sink(&sink, false);
    log_line(&sink.log, LOG_WARNING_LEVEL, "mnist", "rank 2 is suspect");
    assert_int_equal(sscanf(take(&sink), "%4u-%2u-%2uT%2u:%2u:%2u.%3uZ %n", &year, &month, &day,
                            &hour, &minute, &second, &ms, &at),
                     7);
    assert_true(year >= 2024 && month <= 12 && day <= 31 && hour < 24 && minute < 60);
    assert_string_equal(sink.text + at, "warning job=mnist  rank 2 is suspect\n");
    log_line(&sink.log, LOG_INFO_LEVEL, NULL, "up");
    assert_string_equal(take(&sink) + at, "info    up\n");
    log_line(&sink.log, LOG_ERROR_LEVEL, "", "down");
    assert_string_equal(take(&sink) + at, "error   down\n");
    close_sink(&sink);
}

static void a_json_line_has_its_keys(void **state)
{
    struct sink sink;
    unsigned long long time_us;
    int at = 0;

    (void)state;
    open_sink(&sink, true);
    log_line(&sink.log, LOG_INFO_LEVEL, "j\"k", "two\nlines");
    assert_int_equal(sscanf(take(&sink), "{\"time_us\":%llu%n", &time_us, &at), 1);
    assert_true(time_us > 1700000000000000ull);
    assert_string_equal(sink.text + at,
                        ",\"level\":\"info\",\"program\":\"prog\",\"job\":\"j\\\"k\","
                        "\"text\":\"two\\u000alines\"}\n");
    close_sink(&sink);
}

static void a_stranger_cannot_begin_a_line(void **state)
{
    struct sink sink;

    (void)state;
    open_sink(&sink, false);
    log_line(&sink.log, LOG_INFO_LEVEL, "j\nk\x1b[2J", "a\r\nb\x7f\xff\xc3\xa9");
    assert_string_equal(strstr(take(&sink), "job="), "job=j k [2J  a  b ?\xc3\xa9\n");
    close_sink(&sink);
}

static void a_long_line_is_cut_between_characters(void **state)
{
    char text[3 * LOG_LINE_BYTES];
    struct sink sink;

    (void)state;
    for (size_t shift = 0; shift < 3; shift++) {
        memset(text, 'x', sizeof text);
        for (size_t i = shift; i + 3 <= sizeof text; i += 3)
            memcpy(text + i, "\xe2\x82\xac", 3);
        text[sizeof text - 1] = '\0';
        open_sink(&sink, false);
        log_line(&sink.log, LOG_INFO_LEVEL, text, text);
        (void)take(&sink);
        assert_true(sink.length <= LOG_LINE_BYTES && sink.length > LOG_LINE_BYTES - 8);
        assert_memory_equal(sink.text + sink.length - 6, "\xe2\x82\xac..\n", 6);
        assert_non_null(strstr(sink.text, "\xe2\x82\xac..  "));
        close_sink(&sink);
    }
}

static void *write_lines(void *argument)
{
    const struct log *log = argument;

    for (int i = 0; i < LINES; i++)
        log_line(log, LOG_INFO_LEVEL, "j", "a line that must stay in one piece");
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
    pthread_t threads[THREADS];
    struct log log;
    char path[] = "/tmp/muster-log-XXXXXX", line[256];
    int fd = mkstemp(path), count = 0;
    FILE *file;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_APPEND), 0);
    log_open(&log, fd, false, "prog");
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, &log), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    file = fopen(path, "r");
    assert_non_null(file);
    for (; fgets(line, sizeof line, file) != NULL; count++)
        assert_string_equal(line + 25, "info    job=j  a line that must stay in one piece\n");
    assert_int_equal(count, THREADS * LINES);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(unlink(path), 0);
}

static void a_kind_of_line_has_a_limit(void **state)
{
    struct log_rate rate = {0};
    uint64_t withheld, now_us = 5 * LOG_RATE_US;

    (void)state;
    for (int i = 0; i < LOG_RATE_COUNT; i++) {
        assert_true(log_rate_pass(&rate, now_us++, &withheld));
        assert_int_equal(withheld, 0);
    }
    for (int i = 0; i < 1000; i++)
        assert_false(log_rate_pass(&rate, now_us++, &withheld));
    now_us += LOG_RATE_US;
    assert_true(log_rate_pass(&rate, now_us, &withheld));
    assert_int_equal(withheld, 1000);
    assert_true(log_rate_pass(&rate, now_us, &withheld));
    assert_int_equal(withheld, 0);
}

static void the_rest_of_a_kind_is_told_once(void **state)
{
    struct log_rate rate = {0};
    uint64_t withheld, now_us = 5 * LOG_RATE_US;

    (void)state;
    for (int i = 0; i < LOG_RATE_COUNT + 7; i++)
        (void)log_rate_pass(&rate, now_us, &withheld);
    assert_int_equal(log_rate_rest(&rate, now_us + LOG_RATE_US - 1), 0);
    assert_int_equal(log_rate_rest(&rate, now_us + LOG_RATE_US), 7);
    assert_int_equal(log_rate_rest(&rate, now_us + LOG_RATE_US), 0);
    assert_true(log_rate_pass(&rate, now_us + LOG_RATE_US, &withheld));
    assert_int_equal(withheld, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_line_has_a_form),
        cmocka_unit_test(a_json_line_has_its_keys),
        cmocka_unit_test(a_stranger_cannot_begin_a_line),
        cmocka_unit_test(a_long_line_is_cut_between_characters),
        cmocka_unit_test(lines_of_threads_do_not_mix),
        cmocka_unit_test(a_kind_of_line_has_a_limit),
        cmocka_unit_test(the_rest_of_a_kind_is_told_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
