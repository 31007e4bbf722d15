/* Messages to bytes and back: round trips, golden bytes, mending, budgets. */
#include "sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { ROUNDS = 200 };

static uint8_t memory_a[2 * WIRE_ARENA_BYTES];
static uint8_t memory_b[WIRE_ARENA_BYTES];
static uint8_t memory_c[WIRE_ARENA_BYTES];

static enum wire_error decode_frame(struct wire_arena *arena, const uint8_t *frame,
                                    struct wire_message *message)
{
    struct frame_header header;
    enum frame_state state = frame[5] == FRAME_HELLO ? FRAME_STATE_STRANGER
                             : frame[5] < 64         ? FRAME_STATE_MEMBER
                                                     : FRAME_STATE_COORDINATOR;

    assert_int_equal(frame_header_decode(state, frame, &header), FRAME_OK);
    return wire_decode(arena, &header, frame + FRAME_HEADER_BYTES, message, NULL);
}

static void round_trip(uint64_t *seed, uint8_t type, uint32_t count, bool full)
{
    struct wire_arena a, b, c;
    struct wire_message sent, copied, got;
    const uint8_t *frame = NULL, *again = NULL;
    size_t frame_bytes = 0, again_bytes = 0;
    uint64_t began = *seed;
    const char *difference;

    wire_arena_init(&a, memory_a, sizeof memory_a);
    wire_arena_init(&b, memory_b, sizeof memory_b);
    wire_arena_init(&c, memory_c, sizeof memory_c);
    sample_fill(&a, seed, type, count, full, &sent);
    assert_int_equal(wire_message_copy(&b, &sent, &copied), WIRE_OK);
    assert_int_equal(wire_encode(&a, &copied, &frame, &frame_bytes), WIRE_OK);
    memset(memory_b, 0xdb, b.used_bytes); /* the frame does not point into the copy */
    assert_int_equal(decode_frame(&c, frame, &got), WIRE_OK);
    difference = sample_difference(&sent, &got);
    if (difference)
        fail_msg("%s.%s differs after a round trip, seed %llu", frame_type_name(type), difference,
                 (unsigned long long)began);
    assert_int_equal(wire_encode(&a, &got, &again, &again_bytes), WIRE_OK);
    assert_int_equal(frame_bytes, again_bytes);
    assert_memory_equal(frame, again, frame_bytes);
}

static void messages_survive_the_round_trip(void **state)
{
    uint64_t seed = 1;

    (void)state;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t t = 0; t < sample_type_count; t++)
            round_trip(&seed, sample_types[t], round % 5, false);
    }
}

static void largest_messages_fit(void **state)
{
    uint64_t seed = 2;

    (void)state;
    for (uint32_t t = 0; t < sample_type_count; t++)
        round_trip(&seed, sample_types[t], WIRE_MEMBERS_MAX, true);
}

/* The bytes of one BEAT, by hand from the encoding rules of protobuf. */
static void beat_has_golden_bytes(void **state)
{
    static const uint8_t golden[] = {
        'M',  'S',  'T',  'R',  1,    2,   0,   0,   52,  0,   0,   0, /* header */
        3,    0,    0,    0,    0,    0,   0,   0,                     /* generation 3 */
        0xef, 0xbe, 0xad, 0xde, 0,    0,   0,   0,                     /* nonce */
        0x78, 0,    0,    0,    0,    0,   0,   0,                     /* step 120 */
        0x08, 0x96, 0x01,                                              /* seq 150 */
        0x10, 0x03,                                                    /* phase COMPUTE */
        0x18, 0x11,                                                    /* phase_age_ms 17 */
        0x25, 0x00, 0x00, 0x40, 0x3f,                                  /* loss 0.75 */
        0x30, 0x07,                                                    /* entered 7 */
        0x38, 0x06,                                                    /* left 6 */
        0x42, 0x05, 'g',  'r',  'a',  'd', 's',                        /* name */
        0x52, 0x0a, 'a',  'l',  'l',  '_', 'r', 'e', 'd', 'u', 'c', 'e', /* op */
        0x5a, 0x07, 'f',  'l',  'o',  'a', 't', '3', '2',              /* dtype */
        0x60, 0xe8, 0x07,                                              /* count 1000 */
        0x70, 0x07,                                                    /* at 7 */
        0x88, 0x01, 0x01,                                              /* open */
    };
    struct wire_message message = {
        .header = {.type = FRAME_BEAT, .generation = 3, .nonce = 0xdeadbeef, .step = 120},
        .beat = {.seq = 150,
                 .phase = WIRE_PHASE_COMPUTE,
                 .phase_age_ms = 17,
                 .loss = 0.75f,
                 .entered = 7,
                 .left = 6,
                 .name = "grads",
                 .op = "all_reduce",
                 .dtype = "float32",
                 .count = 1000,
                 .at = 7,
                 .open = true},
    };
    struct wire_arena arena;
    struct wire_message got;
    const uint8_t *frame = NULL;
    size_t bytes = 0;

    (void)state;
    wire_arena_init(&arena, memory_a, sizeof memory_a);
    assert_int_equal(wire_encode(&arena, &message, &frame, &bytes), WIRE_OK);
    assert_int_equal(bytes, sizeof golden);
    assert_memory_equal(frame, golden, sizeof golden);
    assert_int_equal(decode_frame(&arena, golden, &got), WIRE_OK);
    assert_string_equal(got.beat.op, "all_reduce");
    assert_string_equal(got.beat.dtype, "float32");
    assert_string_equal(got.beat.place, "");
    assert_int_equal(got.beat.count, 1000);
    assert_true(got.beat.open);
    assert_true(got.beat.loss == 0.75f);
}

/* What is left out is empty, never NULL; what the sender leaves NULL is empty too. */
static void absent_text_is_empty(void **state)
{
    struct wire_message message = {.header = {.type = FRAME_REFUSED},
                                   .refused = {.why = WIRE_REFUSAL_FULL}};
    struct wire_arena arena;
    struct wire_message got;
    const uint8_t *frame = NULL;
    size_t bytes = 0;

    (void)state;
    wire_arena_init(&arena, memory_a, sizeof memory_a);
    assert_int_equal(wire_encode(&arena, &message, &frame, &bytes), WIRE_OK);
    assert_int_equal(bytes, FRAME_HEADER_BYTES + 2);
    assert_int_equal(decode_frame(&arena, frame, &got), WIRE_OK);
    assert_string_equal(got.refused.text, "");
    assert_int_equal(got.refused.why, WIRE_REFUSAL_FULL);
}

/* Sends a sentence and gives back how it arrives. */
static const char *spoken(const char *text)
{
    static struct wire_message got;
    struct wire_message message = {.header = {.type = FRAME_RELEASED}, .released = {text}};
    struct wire_arena arena;
    const uint8_t *frame = NULL;
    size_t bytes = 0;

    wire_arena_init(&arena, memory_a, sizeof memory_a);
    assert_int_equal(wire_encode(&arena, &message, &frame, &bytes), WIRE_OK);
    assert_int_equal(decode_frame(&arena, frame, &got), WIRE_OK);
    return got.released.reason;
}

static void speech_is_mended(void **state)
{
    char longest[400];

    (void)state;
    assert_string_equal(spoken("line\none\x01"), "line?one?");
    assert_string_equal(spoken("cut \xe2\x82"), "cut ??");
    memset(longest, 'y', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(strlen(spoken(longest)), WIRE_REASON_BYTES);
    memcpy(longest + WIRE_REASON_BYTES - 1, "\xc3\xa9", 2); /* does not fit: cut before it */
    assert_int_equal(strlen(spoken(longest)), WIRE_REASON_BYTES - 1);
}

static enum wire_error encode_hello(const char *job, const char *spec, uint8_t id, int kind)
{
    struct wire_message message = {
        .header = {.type = FRAME_HELLO},
        .hello = {.job = job,
                  .spec = spec,
                  .member_id = {{id}},
                  .secret = {{1}},
                  .kind = kind,
                  .attach = WIRE_ATTACH_JOIN},
    };
    struct wire_arena arena;
    const uint8_t *frame = NULL;
    size_t bytes = 0;

    wire_arena_init(&arena, memory_a, sizeof memory_a);
    return wire_encode(&arena, &message, &frame, &bytes);
}

static void broken_names_are_refused(void **state)
{
    char job[WIRE_NAME_BYTES + 2];

    (void)state;
    memset(job, 'j', sizeof job);
    job[WIRE_NAME_BYTES + 1] = '\0';
    assert_int_equal(encode_hello("mnist", "lr=0.1\nseed=1\n", 1, 1), WIRE_OK);
    assert_int_equal(encode_hello(job, "", 1, 1), WIRE_ERROR_LINT);
    assert_int_equal(encode_hello("a\nb", "", 1, 1), WIRE_ERROR_LINT);
    assert_int_equal(encode_hello("mnist", "lr=0.1\r\n", 1, 1), WIRE_ERROR_LINT);
    assert_int_equal(encode_hello("mnist", "", 0, 1), WIRE_ERROR_IDENTITY);
    assert_int_equal(encode_hello("mnist", "", 1, 0), WIRE_ERROR_ENUM);
    assert_int_equal(encode_hello("mnist", "", 1, 3), WIRE_ERROR_LINT);
}

static void unspecified_enum_is_refused(void **state)
{
    struct frame_header header = {.version = 1, .type = FRAME_BEAT, .body_bytes = 2};
    struct wire_arena arena;
    struct wire_message message;

    (void)state;
    wire_arena_init(&arena, memory_a, sizeof memory_a);
    assert_int_equal(wire_decode(&arena, &header, (const uint8_t *)"\x10\x00", &message, NULL),
                     WIRE_ERROR_ENUM);
    header.body_bytes = 0;
    assert_int_equal(wire_decode(&arena, &header, NULL, &message, NULL), WIRE_ERROR_ENUM);
}

static void unknown_type_is_refused(void **state)
{
    struct frame_header header = {.version = 1, .type = 99};
    struct wire_message message = {.header = {.type = 99}};
    struct wire_arena arena;
    const uint8_t *frame = NULL;
    size_t bytes = 0;

    (void)state;
    wire_arena_init(&arena, memory_a, sizeof memory_a);
    assert_int_equal(wire_decode(&arena, &header, NULL, &message, NULL), WIRE_ERROR_TYPE);
    assert_int_equal(wire_encode(&arena, &message, &frame, &bytes), WIRE_ERROR_TYPE);
    header = (struct frame_header){
        .version = 1, .type = FRAME_BEAT_ACK, .body_bytes = FRAME_SMALL_BYTES + 1};
    assert_int_equal(wire_decode(&arena, &header, NULL, &message, NULL), WIRE_ERROR_LENGTH);
}

/* With every smaller budget both ways fail cleanly; with enough they work. */
static void every_budget_is_respected(void **state)
{
    uint64_t seed = 3;

    (void)state;
    for (uint32_t t = 0; t < sample_type_count; t++) {
        struct wire_arena big, small;
        struct wire_message sent, got;
        const uint8_t *frame = NULL, *ignored = NULL;
        size_t bytes = 0, ignored_bytes = 0;
        size_t budget = 0;
        uint32_t refused = 0;
        enum wire_error error;

        wire_arena_init(&big, memory_a, sizeof memory_a);
        sample_fill(&big, &seed, sample_types[t], 2, false, &sent);
        assert_int_equal(wire_encode(&big, &sent, &frame, &bytes), WIRE_OK);
        do {
            uint8_t *exact = malloc(budget + 1);

            wire_arena_init(&small, exact, budget);
            error = decode_frame(&small, frame, &got);
            assert_true(error == WIRE_OK || error == WIRE_ERROR_MEMORY);
            assert_true(small.peak_bytes <= budget);
            wire_arena_reset(&small);
            assert_true(wire_encode(&small, &sent, &ignored, &ignored_bytes) == WIRE_OK ||
                        error == WIRE_ERROR_MEMORY || budget < 2 * bytes + 4096);
            wire_arena_reset(&small);
            (void)wire_message_copy(&small, &sent, &got);
            free(exact);
            budget += 8;
            refused += error == WIRE_ERROR_MEMORY;
        } while (error != WIRE_OK);
        assert_true(refused > 0);
    }
}

/* A roster of the cheapest members: what 20 bytes each make of the arena. */
static size_t hostile_roster(uint8_t *body, uint32_t count, uint8_t tag_low, uint8_t tag_high)
{
    size_t length = 0;

    for (uint32_t i = 0; i < count; i++) {
        body[length++] = tag_low;
        if (tag_high)
            body[length++] = tag_high;
        memcpy(body + length,
               "\x12\x0a\x10"
               "0123456789abcdef",
               19);
        length += 19;
    }
    return length;
}

static void memory_is_at_most_four_limits(void **state)
{
    static uint8_t body[FRAME_ROSTER_BYTES];
    struct wire_message message;
    struct wire_arena arena;
    struct frame_header header = {.version = 1, .type = FRAME_GENERATION};

    (void)state;
    memcpy(body,
           "\x08\x01\x12\x10"
           "0123456789abcdef",
           20);
    header.body_bytes = (uint32_t)(20 + hostile_roster(body + 20, WIRE_MEMBERS_MAX, 0x1a, 0));
    wire_arena_init(&arena, memory_a, sizeof memory_a);
    assert_int_equal(wire_decode(&arena, &header, body, &message, NULL), WIRE_OK);
    assert_true(arena.peak_bytes <= 4 * FRAME_ROSTER_BYTES);
    print_message("GENERATION of %u bytes took %zu bytes\n", header.body_bytes, arena.peak_bytes);

    /* The same in a HELLO without the flag: 8 KiB may cost 32 KiB and not a byte more. */
    header.type = FRAME_HELLO;
    memcpy(body,
           "\x22\x10"
           "0123456789abcdef"
           "\x2a\x10"
           "0123456789abcdef\x30\x01\x38\x01",
           40);
    header.body_bytes = (uint32_t)(40 + hostile_roster(body + 40, 380, 0x9a, 0x01));
    assert_true(header.body_bytes < FRAME_SMALL_BYTES);
    wire_arena_init(&arena, memory_a, sizeof memory_a);
    assert_int_equal(wire_decode(&arena, &header, body, &message, NULL), WIRE_ERROR_MEMORY);
    assert_true(arena.peak_bytes <= 4 * FRAME_SMALL_BYTES);
}

static void identities_compare(void **state)
{
    wire_id a = {{1, 2, 3}}, b = {{1, 2, 3}}, zero = {{0}};
    char text[2 * WIRE_ID_BYTES + 1];

    (void)state;
    assert_true(wire_id_equal(&a, &b));
    b.bytes[15] = 0x80;
    assert_false(wire_id_equal(&a, &b));
    assert_true(wire_id_zero(&zero));
    assert_false(wire_id_zero(&a));
    wire_id_text(&b, text);
    assert_string_equal(text, "01020300000000000000000000000080");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_survive_the_round_trip),
        cmocka_unit_test(largest_messages_fit),
        cmocka_unit_test(beat_has_golden_bytes),
        cmocka_unit_test(absent_text_is_empty),
        cmocka_unit_test(speech_is_mended),
        cmocka_unit_test(broken_names_are_refused),
        cmocka_unit_test(unspecified_enum_is_refused),
        cmocka_unit_test(unknown_type_is_refused),
        cmocka_unit_test(every_budget_is_respected),
        cmocka_unit_test(memory_is_at_most_four_limits),
        cmocka_unit_test(identities_compare),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
