/* Frames: header bytes, every way to cut a stream, limits by state and type. */
#include "proto/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const uint8_t golden[FRAME_HEADER_BYTES] = {
    'M',  'S',  'T',  'R',  0x01, 0x02, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00,
    0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x18, 0x17, 0x16, 0x15,
    0x14, 0x13, 0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
};

static const struct frame_header golden_header = {
    .version = 1,
    .type = FRAME_BEAT,
    .body_bytes = 5,
    .generation = 0x0102030405060708u,
    .nonce = 0x1112131415161718u,
    .step = 0x2122232425262728u,
};

static void header_has_golden_bytes(void **state)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header header;

    (void)state;
    frame_header_encode(&golden_header, bytes);
    assert_memory_equal(bytes, golden, sizeof golden);
    assert_int_equal(frame_header_decode(FRAME_STATE_MEMBER, golden, &header), FRAME_OK);
    assert_int_equal(header.generation, golden_header.generation);
    assert_int_equal(header.nonce, golden_header.nonce);
    assert_int_equal(header.step, golden_header.step);
    assert_int_equal(header.body_bytes, 5);
}

/* A header with one field changed, and what is said about it. */
struct broken {
    enum frame_state state;
    uint32_t offset;
    uint8_t value;
    enum frame_error error;
};

static void broken_headers_are_refused(void **state)
{
    static const struct broken cases[] = {
        {FRAME_STATE_MEMBER, 0, 'm', FRAME_ERROR_MAGIC},
        {FRAME_STATE_MEMBER, 3, 0, FRAME_ERROR_MAGIC},
        {FRAME_STATE_MEMBER, 4, 0, FRAME_ERROR_VERSION},
        {FRAME_STATE_MEMBER, 4, FRAME_VERSION_MAX + 1, FRAME_ERROR_VERSION},
        {FRAME_STATE_MEMBER, 5, 0, FRAME_ERROR_TYPE},
        {FRAME_STATE_MEMBER, 5, 255, FRAME_ERROR_TYPE},
        {FRAME_STATE_MEMBER, 5, FRAME_HELLO, FRAME_ERROR_STATE},
        {FRAME_STATE_MEMBER, 5, FRAME_WELCOME, FRAME_ERROR_STATE},
        {FRAME_STATE_STRANGER, 5, FRAME_BEAT, FRAME_ERROR_STATE},
        {FRAME_STATE_COORDINATOR, 5, FRAME_BEAT, FRAME_ERROR_STATE},
        {FRAME_STATE_MEMBER, 6, FRAME_FLAG_ROSTER, FRAME_ERROR_FLAGS},
        {FRAME_STATE_MEMBER, 7, 1, FRAME_ERROR_FLAGS},
        {FRAME_STATE_MEMBER, 9, 0x20, FRAME_ERROR_LENGTH},
        {FRAME_STATE_MEMBER, 11, 0x80, FRAME_ERROR_LENGTH},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t bytes[FRAME_HEADER_BYTES];
        struct frame_header header = {.step = 7};

        memcpy(bytes, golden, sizeof bytes);
        bytes[cases[i].offset] = cases[i].value;
        assert_int_equal(frame_header_decode(cases[i].state, bytes, &header), cases[i].error);
        assert_int_equal(header.step, 7);
        assert_true(strlen(frame_error_text(cases[i].error)) > 10);
    }
}

/* Each type is allowed in exactly one state, with its own limit; the roster flag only for HELLO. */
static void limits_by_state_and_type(void **state)
{
    static const struct {
        uint8_t type;
        enum frame_state allowed;
        uint32_t limit;
    } rows[] = {
#define BY_MEMBER(t) ((t) == FRAME_HELLO ? FRAME_STATE_STRANGER : FRAME_STATE_MEMBER)
#define BY_COORDINATOR(t)                FRAME_STATE_COORDINATOR
#define ROW(name, number, sender, limit) {number, BY_##sender(number), limit},
        FRAME_TYPES(ROW)
#undef ROW
    };
    uint32_t limit = 0;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (int s = FRAME_STATE_STRANGER; s <= FRAME_STATE_COORDINATOR; s++) {
            bool allowed = s == (int)rows[i].allowed;
            enum frame_error error = frame_limit((enum frame_state)s, rows[i].type, 0, &limit);

            assert_int_equal(error, allowed ? FRAME_OK : FRAME_ERROR_STATE);
            if (allowed)
                assert_int_equal(limit, rows[i].limit);
        }
        assert_true(rows[i].limit <= FRAME_BODY_MAX_BYTES);
    }
    assert_int_equal(frame_limit(FRAME_STATE_STRANGER, FRAME_HELLO, FRAME_FLAG_ROSTER, &limit),
                     FRAME_OK);
    assert_int_equal(limit, FRAME_ROSTER_BYTES);
}

/* Three frames: 5 bytes, none, 300 bytes. */
static size_t three_frames(uint8_t *out)
{
    static const uint32_t sizes[3] = {5, 0, 300};
    size_t done = 0;

    for (uint32_t i = 0; i < 3; i++) {
        struct frame_header header = golden_header;

        header.body_bytes = sizes[i];
        header.step = i;
        frame_header_encode(&header, out + done);
        done += FRAME_HEADER_BYTES;
        memset(out + done, (int)('a' + i), sizes[i]);
        done += sizes[i];
    }
    return done;
}

/* Feeds a piece; counts and checks the frames that become whole. */
static void feed(struct frame_parser *parser, const uint8_t *bytes, size_t length, uint64_t *frames)
{
    for (;;) {
        switch (frame_parser_feed(parser, &bytes, &length)) {
        case FRAME_NEED_HEADER:
        case FRAME_NEED_BODY:
            assert_int_equal(length, 0);
            return;
        case FRAME_NEED_MEMORY:
            frame_parser_give(parser, malloc(parser->header.body_bytes));
            break;
        case FRAME_WHOLE:
            assert_int_equal(parser->header.step, *frames);
            for (uint32_t i = 0; i < parser->header.body_bytes; i++)
                assert_int_equal(parser->body[i], 'a' + (int)*frames);
            ++*frames;
            free(frame_parser_take(parser));
            break;
        case FRAME_BROKEN:
            fail_msg("%s", frame_error_text(parser->error));
            return;
        }
    }
}

static void stream_may_be_cut_anywhere(void **state)
{
    uint8_t stream[3 * FRAME_HEADER_BYTES + 305];
    size_t bytes = three_frames(stream);

    (void)state;
    assert_int_equal(bytes, sizeof stream);
    for (size_t first = 0; first <= bytes; first++) {
        for (size_t second = first; second <= bytes; second += 7) {
            struct frame_parser parser;
            uint64_t frames = 0;

            frame_parser_init(&parser, FRAME_STATE_MEMBER);
            feed(&parser, stream, first, &frames);
            feed(&parser, stream + first, second - first, &frames);
            feed(&parser, stream + second, bytes - second, &frames);
            assert_int_equal(frames, 3);
            assert_null(frame_parser_take(&parser));
        }
    }
}

static void stream_may_come_byte_by_byte(void **state)
{
    uint8_t stream[3 * FRAME_HEADER_BYTES + 305];
    size_t bytes = three_frames(stream);
    struct frame_parser parser;
    uint64_t frames = 0;

    (void)state;
    frame_parser_init(&parser, FRAME_STATE_MEMBER);
    for (size_t i = 0; i < bytes; i++)
        feed(&parser, stream + i, 1, &frames);
    assert_int_equal(frames, 3);
}

/* A body that lies whole in the input is not copied; one in parts asks for memory exactly once. */
static void memory_only_for_a_cut_body(void **state)
{
    uint8_t stream[3 * FRAME_HEADER_BYTES + 305];
    const uint8_t *bytes = stream;
    size_t length = three_frames(stream);
    struct frame_parser parser;

    (void)state;
    frame_parser_init(&parser, FRAME_STATE_MEMBER);
    assert_int_equal(frame_parser_feed(&parser, &bytes, &length), FRAME_WHOLE);
    assert_ptr_equal(parser.body, stream + FRAME_HEADER_BYTES);
    assert_null(frame_parser_take(&parser));
    assert_int_equal(frame_parser_feed(&parser, &bytes, &length), FRAME_WHOLE);
    assert_null(frame_parser_take(&parser));
    length = FRAME_HEADER_BYTES + 1;
    assert_int_equal(frame_parser_feed(&parser, &bytes, &length), FRAME_NEED_MEMORY);
    assert_int_equal(parser.header.body_bytes, 300);
    assert_int_equal(frame_parser_feed(&parser, &bytes, &length), FRAME_NEED_MEMORY);
    assert_int_equal(length, 1);
}

static void stranger_becomes_member(void **state)
{
    struct frame_header hello = {.version = 1, .type = FRAME_HELLO};
    uint8_t bytes[2 * FRAME_HEADER_BYTES];
    const uint8_t *at = bytes;
    size_t length = sizeof bytes;
    struct frame_parser parser;

    (void)state;
    frame_header_encode(&hello, bytes);
    hello.type = FRAME_LEAVE;
    frame_header_encode(&hello, bytes + FRAME_HEADER_BYTES);
    frame_parser_init(&parser, FRAME_STATE_STRANGER);
    assert_int_equal(frame_parser_feed(&parser, &at, &length), FRAME_WHOLE);
    frame_parser_admit(&parser);
    assert_int_equal(frame_parser_feed(&parser, &at, &length), FRAME_WHOLE);
    assert_int_equal(parser.header.type, FRAME_LEAVE);
}

/* Somebody who speaks HTTP is refused at the first byte, and stays refused. */
static void stranger_with_another_protocol(void **state)
{
    const uint8_t *bytes = (const uint8_t *)"GET / HTTP/1.1\r\n";
    size_t length = 1;
    struct frame_parser parser;

    (void)state;
    frame_parser_init(&parser, FRAME_STATE_STRANGER);
    assert_int_equal(frame_parser_feed(&parser, &bytes, &length), FRAME_BROKEN);
    assert_int_equal(parser.error, FRAME_ERROR_MAGIC);
    length = 5;
    assert_int_equal(frame_parser_feed(&parser, &bytes, &length), FRAME_BROKEN);
    assert_int_equal(length, 5);
    assert_null(frame_parser_take(&parser));
    assert_int_equal(frame_parser_feed(&parser, &bytes, &length), FRAME_BROKEN);
}

static void names_of_types(void **state)
{
    (void)state;
    assert_string_equal(frame_type_name(FRAME_HELLO), "HELLO");
    assert_string_equal(frame_type_name(FRAME_BEAT_ACK), "BEAT_ACK");
    assert_string_equal(frame_type_name(200), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_has_golden_bytes),
        cmocka_unit_test(broken_headers_are_refused),
        cmocka_unit_test(limits_by_state_and_type),
        cmocka_unit_test(stream_may_be_cut_anywhere),
        cmocka_unit_test(stream_may_come_byte_by_byte),
        cmocka_unit_test(memory_only_for_a_cut_body),
        cmocka_unit_test(stranger_becomes_member),
        cmocka_unit_test(stranger_with_another_protocol),
        cmocka_unit_test(names_of_types),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
