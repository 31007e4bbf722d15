/* The lint: each rule with the smallest bytes that break it. */
#include "sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Bytes of a body as a string literal, and what the lint says about them. */
struct lint_case {
    uint8_t type;
    const char *bytes;
    size_t length;
    enum lint_error error;
    const char *message; /* of the fault; NULL when there is none */
    const char *field;
};

#define BODY(text) (text), sizeof(text) - 1
#define ID16       "0123456789abcdef"

static const struct lint_case cases[] = {
    {FRAME_BEAT_ACK, BODY(""), LINT_OK, NULL, NULL},
    {FRAME_BEAT_ACK, BODY("\x08\x00"), LINT_OK, NULL, NULL},
    {FRAME_BEAT_ACK, BODY("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), LINT_OK, NULL, NULL},
    /* eleven bytes, and a tenth byte that does not fit in 64 bits */
    {FRAME_BEAT_ACK, BODY("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), LINT_ERROR_VARINT,
     "BeatAck", "seq"},
    {FRAME_BEAT_ACK, BODY("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x00"), LINT_ERROR_VARINT,
     "BeatAck", "seq"},
    {FRAME_BEAT_ACK, BODY("\x08\x80\x00"), LINT_ERROR_VARINT, "BeatAck", "seq"},
    {FRAME_BEAT_ACK, BODY("\x88\x00\x01"), LINT_ERROR_VARINT, "BeatAck", "?"},
    {FRAME_BEAT_ACK, BODY("\x08"), LINT_ERROR_TRUNCATED, "BeatAck", "seq"},
    {FRAME_BEAT_ACK, BODY("\x08\x80"), LINT_ERROR_TRUNCATED, "BeatAck", "seq"},
    {FRAME_BEAT_ACK, BODY("\x10\x01"), LINT_ERROR_UNKNOWN, "BeatAck", "?"},
    {FRAME_BEAT_ACK, BODY("\xf8\xff\xff\xff\x0f\x01"), LINT_ERROR_UNKNOWN, "BeatAck", "?"},
    {FRAME_BEAT_ACK, BODY("\x00\x01"), LINT_ERROR_UNKNOWN, "BeatAck", "?"},
    {FRAME_BEAT_ACK, BODY("\x0a\x01x"), LINT_ERROR_ENCODING, "BeatAck", "seq"},
    {FRAME_BEAT_ACK, BODY("\x0b\x0c"), LINT_ERROR_ENCODING, "BeatAck", "seq"}, /* a group */
    {FRAME_BEAT_ACK, BODY("\x08\x01\x08\x01"), LINT_ERROR_DUPLICATE, "BeatAck", "seq"},
    {FRAME_LEAVE, BODY("\x08\xff\xff\xff\xff\x0f"), LINT_OK, NULL, NULL},
    {FRAME_LEAVE, BODY("\x08\x80\x80\x80\x80\x10"), LINT_ERROR_VALUE, "Leave", "drain_ms"},
    {FRAME_REPORT, BODY("\x10\x01"), LINT_OK, NULL, NULL},
    {FRAME_REPORT, BODY("\x10\x02"), LINT_ERROR_VALUE, "Report", "has_reduced"},
    {FRAME_BEAT, BODY("\x10\x08"), LINT_OK, NULL, NULL},
    {FRAME_BEAT, BODY("\x10\x09"), LINT_ERROR_VALUE, "Beat", "phase"},
    {FRAME_BEAT, BODY("\x25\x00\x00\x80\x3f"), LINT_OK, NULL, NULL},
    {FRAME_BEAT, BODY("\x25\x00\x00\x80"), LINT_ERROR_TRUNCATED, "Beat", "loss"},
    {FRAME_FINISHED, BODY("\x11\x00\x00\x00\x00\x00\x00\xf0\x3f"), LINT_OK, NULL, NULL},
    {FRAME_FINISHED, BODY("\x11\x00\x00\x00\x00\x00\x00\xf0"), LINT_ERROR_TRUNCATED, "Finished",
     "test_accuracy"},
    {FRAME_RELEASED, BODY("\x0a\x03why"), LINT_OK, NULL, NULL},
    {FRAME_RELEASED, BODY("\x0a\x04why"), LINT_ERROR_TRUNCATED, "Released", "reason"},
    {FRAME_RELEASED, BODY("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), LINT_ERROR_TRUNCATED,
     "Released", "reason"},
    {FRAME_RELEASED, BODY("\x0a\x03w\0y"), LINT_ERROR_TEXT, "Released", "reason"},
    {FRAME_RELEASED, BODY("\x0a\x03w\ny"), LINT_ERROR_TEXT, "Released", "reason"},
    {FRAME_RELEASED, BODY("\x0a\x02\xc3\xa9"), LINT_OK, NULL, NULL},
    {FRAME_RELEASED, BODY("\x0a\x01\xc3"), LINT_ERROR_TEXT, "Released", "reason"},
    {FRAME_OVER, BODY("\x0a\x10" ID16 "\x0a\x10" ID16), LINT_OK, NULL, NULL},
    {FRAME_OVER,
     BODY("\x0a\x0f"
          "0123456789abcde"),
     LINT_ERROR_BYTES, "Over", "lost"},
    {FRAME_OVER, BODY("\x0a\x00"), LINT_ERROR_BYTES, "Over", "lost"},
    {FRAME_PEER_LOST, BODY("\x10\x01"), LINT_ERROR_MISSING, "PeerLost", "member_id"},
    {FRAME_PEER_LOST, BODY("\x0a\x10" ID16), LINT_OK, NULL, NULL},
    {FRAME_GENERATION, BODY("\x12\x10" ID16 "\x1a\x12\x0a\x10" ID16), LINT_OK, NULL, NULL},
    {FRAME_GENERATION, BODY("\x12\x10" ID16 "\x1a\x00"), LINT_ERROR_MISSING, "Member", "id"},
    /* a member that claims to be longer than its message */
    {FRAME_GENERATION, BODY("\x12\x10" ID16 "\x1a\x7f\x0a\x10" ID16), LINT_ERROR_TRUNCATED,
     "Generation", "members"},
    /* a text that reaches beyond the end of its member into the next field */
    {FRAME_GENERATION, BODY("\x12\x10" ID16 "\x1a\x14\x0a\x10" ID16 "\x22\x05node1"),
     LINT_ERROR_TRUNCATED, "Member", "node"},
    {200, BODY(""), LINT_ERROR_TYPE, "?", "?"},
};

static void every_rule_has_its_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lint_fault fault = {.error = LINT_OK};
        enum lint_error error =
            lint_check(cases[i].type, (const uint8_t *)cases[i].bytes, cases[i].length, &fault);

        if (error != cases[i].error)
            fail_msg("case %zu (%s): %s, expected %s", i, frame_type_name(cases[i].type),
                     lint_error_text(error), lint_error_text(cases[i].error));
        assert_int_equal(
            lint_check(cases[i].type, (const uint8_t *)cases[i].bytes, cases[i].length, NULL),
            error);
        assert_int_equal(fault.error, error);
        if (cases[i].message) {
            assert_string_equal(fault.message, cases[i].message);
            assert_string_equal(fault.field, cases[i].field);
            assert_true(fault.offset_bytes <= cases[i].length);
        }
    }
}

static size_t put_member(uint8_t *out)
{
    static const uint8_t member[] = "\x1a\x12\x0a\x10" ID16;

    memcpy(out, member, sizeof member - 1);
    return sizeof member - 1;
}

static void counts_are_bounded(void **state)
{
    uint8_t *body = malloc(32 * 1024);
    size_t length = 18;

    (void)state;
    memcpy(body, "\x12\x10" ID16, 18);
    for (uint32_t i = 0; i < WIRE_MEMBERS_MAX; i++)
        length += put_member(body + length);
    assert_int_equal(lint_check(FRAME_GENERATION, body, length, NULL), LINT_OK);
    length += put_member(body + length);
    assert_int_equal(lint_check(FRAME_GENERATION, body, length, NULL), LINT_ERROR_COUNT);
    free(body);
}

/* Every prefix of a valid body: either refused, or valid because it ends between two fields. */
static void prefixes_are_judged(void **state)
{
    static uint8_t memory[WIRE_ARENA_BYTES];
    struct wire_arena arena;
    uint64_t seed = 11;

    (void)state;
    for (uint32_t t = 0; t < sample_type_count; t++) {
        struct wire_message message;
        const uint8_t *frame = NULL;
        size_t bytes = 0;
        uint32_t accepted = 0;

        wire_arena_init(&arena, memory, sizeof memory);
        sample_fill(&arena, &seed, sample_types[t], 3, false, &message);
        assert_int_equal(wire_encode(&arena, &message, &frame, &bytes), WIRE_OK);
        for (size_t cut = FRAME_HEADER_BYTES; cut <= bytes; cut++) {
            uint8_t *exact = malloc(cut); /* so that one byte too many is seen by ASan */

            memcpy(exact, frame, cut);
            accepted += lint_check(sample_types[t], exact + FRAME_HEADER_BYTES,
                                   cut - FRAME_HEADER_BYTES, NULL) == LINT_OK;
            free(exact);
        }
        assert_true(accepted >= 1);
        assert_true(accepted <= 2 + lint_table(sample_types[t])->fields[1].count_max + 24);
    }
}

static void text_is_utf8(void **state)
{
    static const struct {
        const char *text;
        bool text_ok;
        bool lines_ok;
    } texts[] = {
        {"", true, true},
        {"node-7.example", true, true},
        {"a b~", true, true},
        {"a\nb", false, true},
        {"a\tb", false, false},
        {"a\rb", false, false},
        {"\x7f", false, false},
        {"\xc2\x80", false, false},         /* U+0080, a control character */
        {"\xc2\x9f", false, false},         /* U+009F */
        {"\xc2\xa0", true, true},           /* U+00A0 */
        {"\xc3\xa9", true, true},           /* é */
        {"\xe2\x82\xac", true, true},       /* € */
        {"\xf0\x9f\x90\x9d", true, true},   /* U+1F41D */
        {"\xf4\x8f\xbf\xbf", true, true},   /* U+10FFFF */
        {"\xf4\x90\x80\x80", false, false}, /* beyond */
        {"\xc0\xaf", false, false},         /* overlong */
        {"\xe0\x80\xaf", false, false},
        {"\xf0\x80\x80\xaf", false, false},
        {"\xed\xa0\x80", false, false}, /* a surrogate */
        {"\x80", false, false},
        {"\xe2\x82", false, false}, /* cut */
        {"\xe2\x28\xa1", false, false},
        {"\xfe", false, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const uint8_t *bytes = (const uint8_t *)texts[i].text;
        size_t length = strlen(texts[i].text);

        if (lint_text_valid(LINT_TEXT, bytes, length) != texts[i].text_ok ||
            lint_text_valid(LINT_LINES, bytes, length) != texts[i].lines_ok)
            fail_msg("text %zu: expected %d as text, %d as lines", i, texts[i].text_ok,
                     texts[i].lines_ok);
    }
    assert_false(lint_text_valid(LINT_LINES, (const uint8_t *)"a\0b", 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_has_its_bytes),
        cmocka_unit_test(counts_are_bounded),
        cmocka_unit_test(prefixes_are_judged),
        cmocka_unit_test(text_is_utf8),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
