/* JSON lines: every kind of field, every byte, the bound. */
#include "base/jsonl.h"

#include "base/utf8.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void expect_line(struct jsonl *line, const char *expected)
{
    size_t length;
    const char *text = jsonl_end(line, &length);

    assert_string_equal(text, expected);
    assert_int_equal(length, strlen(expected));
}

static void fields_of_every_kind(void **state)
{
    const uint64_t ids[] = {3, 0, UINT64_MAX};
    struct jsonl line = {0};

    (void)state;
    jsonl_begin(&line);
    jsonl_text(&line, "event", "step");
    jsonl_uint(&line, "most", UINT64_MAX);
    jsonl_int(&line, "least", INT64_MIN);
    jsonl_real(&line, "loss", 0.1);
    jsonl_real(&line, "small", 1.23456789012e-30);
    jsonl_real(&line, "nan", (double)NAN);
    jsonl_real(&line, "inf", -(double)INFINITY);
    jsonl_bool(&line, "yes", true);
    jsonl_bool(&line, "no", false);
    jsonl_hex(&line, "hash", 0xabcu);
    jsonl_uints(&line, "ids", ids, 3);
    jsonl_uints(&line, "none", ids, 0);
    expect_line(&line,
                "{\"event\":\"step\",\"most\":18446744073709551615,\"least\":-9223372036854775808,"
                "\"loss\":0.1,\"small\":1.23456789e-30,\"nan\":null,\"inf\":null,\"yes\":true,"
                "\"no\":false,\"hash\":\"0000000000000abc\",\"ids\":[3,0,18446744073709551615],"
                "\"none\":[]}\n");
    jsonl_begin(&line);
    expect_line(&line, "{}\n");
    jsonl_release(&line);
    jsonl_release(&line); /* an empty one is fine */
}

static void text_is_escaped(void **state)
{
    struct jsonl line = {0};

    (void)state;
    jsonl_begin(&line);
    jsonl_text(&line, "t", "a\"b\\c\n\t\x01\x7f \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
    expect_line(&line, "{\"t\":\"a\\\"b\\\\c\\u000a\\u0009\\u0001\x7f \xc3\xa9 \xe2\x82\xac "
                       "\xf0\x9f\x98\x80\"}\n");
    jsonl_begin(&line);
    jsonl_text(&line, "t", "\x80 \xc3( \xe2\x82 \xff\xc0\xaf");
    expect_line(&line, "{\"t\":\"? ?( ?? ???\"}\n");
    jsonl_release(&line);
}

/* RFC 3629, section 4: the last of each row is one too far. */
static void utf8_is_strict(void **state)
{
    static const struct { const char *text; size_t length;
    } cases[] = {{"\x7f", 1},
                 {"\x80", 0},
                 {"\xc1\xbf", 0},
                 {"\xc2\x80", 2},
                 {"\xdf\xbf", 2},
                 {"\xdf", 0},
                 {"\xe0\x9f\xbf", 0},
                 {"\xe0\xa0\x80", 3},
                 {"\xed\x9f\xbf", 3},
                 {"\xed\xa0\x80", 0},
                 {"\xef\xbf\xbf", 3},
                 {"\xf0\x8f\xbf\xbf", 0},
                 {"\xf0\x90\x80\x80", 4},
                 {"\xf4\x8f\xbf\xbf", 4},
                 {"\xf4\x90\x80\x80", 0},
                 {"\xf5\x80\x80\x80", 0},
                 {"\xe2\x82z", 0}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (utf8_length(cases[i].text) != cases[i].length)
            fail_msg("case %zu: %zu bytes, expected %zu", i, utf8_length(cases[i].text),
                     cases[i].length);
}

/* Fields of `bytes` x's until the line is full: it stays an object, and says that it was cut. */
static void fill(size_t bytes, const char *end)
{
    char *text = malloc(bytes + 1), name[24];
    struct jsonl line = {0};
    const char *out;
    size_t length;

    assert_non_null(text);
    memset(text, 'x', bytes);
    text[bytes] = '\0';
    jsonl_begin(&line);
    for (unsigned i = 0; i < 5; i++) {
        (void)snprintf(name, sizeof name, "f%u", i);
        jsonl_text(&line, name, text);
    }
    jsonl_uint(&line, "late", 1);
    jsonl_uints(&line, "later", &(uint64_t){1}, 1);
    out = jsonl_end(&line, &length);
    assert_true(length <= JSONL_MAX_BYTES);
    assert_int_equal(length, strlen(out));
    assert_string_equal(out + length - strlen(end), end);
    assert_null(strstr(out, "late"));
    jsonl_begin(&line); /* and the next line is whole again */
    jsonl_uint(&line, "a", 1);
    expect_line(&line, "{\"a\":1}\n");
    jsonl_release(&line);
    free(text);
}

static void a_line_has_a_bound(void **state)
{
    (void)state;
    fill(JSONL_MAX_BYTES / 3, "xx\",\"cut\":true}\n");
    fill(JSONL_MAX_BYTES, "{\"cut\":true}\n");
    fill(JSONL_MAX_BYTES - 40, "xx\",\"cut\":true}\n"); /* the largest that fits */
    fill(JSONL_MAX_BYTES - 39, "{\"cut\":true}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_of_every_kind),
        cmocka_unit_test(text_is_escaped),
        cmocka_unit_test(utf8_is_strict),
        cmocka_unit_test(a_line_has_a_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
