/* The small ones: errors, exit codes, clocks, randomness, version. */
#include "base/clock.h"
#include "base/error.h"
#include "base/exits.h"
#include "base/random.h"
#include "base/version.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static void an_error_is_a_bounded_sentence(void **state)
{
    struct error error;
    char long_text[2 * ERROR_TEXT_BYTES];

    (void)state;
    assert_int_equal(error_set(&error, EXIT_DATA, "%s: %d of %d", "file", 1, 2), EXIT_DATA);
    assert_int_equal(error.code, 65);
    assert_string_equal(error.text, "file: 1 of 2");
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    assert_int_equal(error_set(&error, EXIT_RETRY, "%s", long_text), 75);
    assert_int_equal(strlen(error.text), ERROR_TEXT_BYTES - 1);
}

static void exit_codes_are_the_contract(void **state)
{
    (void)state;
    assert_int_equal(EXIT_DONE, 0);
    assert_int_equal(EXIT_USAGE, 64);
    assert_int_equal(EXIT_DATA, 65);
    assert_int_equal(EXIT_UNAVAILABLE, 69);
    assert_int_equal(EXIT_RETRY, 75);
    assert_int_equal(EXIT_REFUSED, 77);
}

static void expect_same(uint64_t (*clock_us)(void), clockid_t kernel_clock)
{
    struct timespec t;
    uint64_t before = clock_us(), after, kernel;

    assert_int_equal(clock_gettime(kernel_clock, &t), 0);
    after = clock_us();
    kernel = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
    if (before > kernel || kernel > after)
        fail_msg("%llu, then %llu by the kernel, then %llu", (unsigned long long)before,
                 (unsigned long long)kernel, (unsigned long long)after);
}

static void clocks_agree_with_the_kernel(void **state)
{
    (void)state;
    expect_same(clock_monotonic_us, CLOCK_MONOTONIC);
    expect_same(clock_realtime_us, CLOCK_REALTIME);
}

/* Every byte of 64 sets is 0 at least once and not 0 at least once, with odds of 1 - 256 *
 * 2^-500. */
static void randomness_reaches_every_byte(void **state)
{
    uint8_t bytes[300], any[300] = {0};

    (void)state;
    for (int i = 0; i < 64; i++) {
        bytes[299] = 0;
        assert_int_equal(random_fill(bytes, 299), 0);
        assert_int_equal(bytes[299], 0);
        for (size_t j = 0; j < 299; j++)
            any[j] |= bytes[j];
    }
    for (size_t j = 0; j < 299; j++)
        assert_int_equal(any[j], 255);
    assert_int_equal(random_fill(bytes, 0), 0);
}

static void hex_is_bounded(void **state)
{
    const uint8_t bytes[] = {0x00, 0x9a, 0xff};
    char text[8] = "#######";

    (void)state;
    hex_text(bytes, 3, text, 7);
    assert_string_equal(text, "009aff");
    hex_text(bytes, 3, text, 6); /* room for two whole bytes */
    assert_string_equal(text, "009a");
    hex_text(bytes, 3, text, 1);
    assert_string_equal(text, "");
}

static void version_prints_a_table(void **state)
{
    const struct version_row rows[] = {{"libuv", "1.44.2"}, {"SQLite", "3.40.1"}};
    char *text = NULL, expected[200];
    size_t length;
    FILE *out = open_memstream(&text, &length);

    (void)state;
    version_print(out, "muster", rows, 2);
    assert_int_equal(fclose(out), 0);
    (void)snprintf(expected, sizeof expected,
                   "muster %s (commit %s)\n  libuv          1.44.2\n  SQLite         3.40.1\n",
                   version_number(), version_commit());
    assert_string_equal(text, expected);
    assert_true(strspn(version_number(), "0123456789.") == strlen(version_number()));
    assert_true(strlen(version_commit()) >= 7);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_is_a_bounded_sentence),
        cmocka_unit_test(exit_codes_are_the_contract),
        cmocka_unit_test(clocks_agree_with_the_kernel),
        cmocka_unit_test(randomness_reaches_every_byte),
        cmocka_unit_test(hex_is_bounded),
        cmocka_unit_test(version_prints_a_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
