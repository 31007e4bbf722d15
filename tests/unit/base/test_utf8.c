/* UTF-8: every code point has one form, and nothing else is one. */
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* The one form of a code point (RFC 3629); surrogates are encoded too, though they are none. */
static size_t encode(uint32_t code, unsigned char out[5])
{
    size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};

    for (size_t i = length; i-- > 1; code >>= 6)
        out[i] = (unsigned char)(0x80 | (code & 63));
    out[0] = (unsigned char)(lead[length] | code);
    out[length] = '\0';
    return length;
}

static void every_code_point_has_its_form(void **state)
{
    (void)state;
    for (uint32_t code = 1; code <= 0x110000; code++) {
        unsigned char bytes[5];
        bool none = (code >= 0xd800 && code < 0xe000) || code > 0x10ffff;
        size_t length = encode(code, bytes), got = utf8_length((const char *)bytes);

        if (got != (none ? 0 : length))
            fail_msg("U+%04X: %zu bytes, expected %zu", code, got, none ? 0 : length);
    }
}

/* All of up to three bytes: what is taken is the form of some code point. */
static void nothing_else_is_a_form(void **state)
{
    (void)state;
    for (uint32_t all = 0x010000; all <= 0xffffff; all++) {
        const unsigned char bytes[4] = {(unsigned char)(all >> 16), (unsigned char)(all >> 8),
                                        (unsigned char)all, '\0'};
        size_t length = utf8_length((const char *)bytes);
        uint32_t code = length == 1 ? bytes[0]
                        : length == 2
                            ? (bytes[0] & 31u) << 6 | (bytes[1] & 63u)
                            : (bytes[0] & 15u) << 12 | (bytes[1] & 63u) << 6 | (bytes[2] & 63u);
        unsigned char again[5];

        if (length > 0 &&
            (length > 3 || encode(code, again) != length || memcmp(again, bytes, length) != 0))
            fail_msg("%06x was taken for %zu bytes", all, length);
    }
}

static void text_that_ends_early_is_not_read_beyond_its_end(void **state)
{
    static const char *const cut[] = {
        "\xc3", "\xe2\x82", "\xe2", "\xf0\x9f\x98", "\xf0\x9f",
        "\xf0", "\x80",     "\xff", "\xc0\xaf",     "\xf8\x88\x80\x80\x80"};

    (void)state;
    for (size_t i = 0; i < sizeof cut / sizeof cut[0]; i++) {
        char exact[6];

        (void)snprintf(exact, sizeof exact, "%s", cut[i]);
        assert_int_equal(utf8_length(exact), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_has_its_form),
        cmocka_unit_test(nothing_else_is_a_form),
        cmocka_unit_test(text_that_ends_early_is_not_read_beyond_its_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
