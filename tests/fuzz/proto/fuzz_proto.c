/* Fuzz target over frame, lint and wire: the bytes of one connection.
 *
 * The first byte chooses who speaks (stranger, member, coordinator) and how the stream is cut; the
 * rest is the stream. Properties: nothing crashes; the budget holds; what was decoded can be
 * encoded, and decodes to the same bytes again; everything the lint refuses is refused by
 * wire_decode() too.
 *
 * Built by clang with -fsanitize=fuzzer (-DMUSTER_FUZZ=ON), and by every compiler with replay.c,
 * which runs the corpus as an ordinary test.
 */
#include "proto/wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t memory[3 * WIRE_ARENA_BYTES];

static void require(int holds)
{
    if (!holds)
        abort();
}

/* A decoded message goes out and comes back; the second encoding must equal the first. */
static void check_round_trip(const struct wire_message *message, enum frame_state state)
{
    struct wire_arena arena;
    struct wire_message again, copy;
    struct frame_header header;
    const uint8_t *first = NULL, *second = NULL;
    size_t first_bytes = 0, second_bytes = 0;

    wire_arena_init(&arena, memory + WIRE_ARENA_BYTES, 2 * WIRE_ARENA_BYTES);
    require(wire_encode(&arena, message, &first, &first_bytes) == WIRE_OK);
    require(frame_header_decode(state, first, &header) == FRAME_OK);
    require(wire_decode(&arena, &header, first + FRAME_HEADER_BYTES, &again, NULL) == WIRE_OK);
    require(wire_message_copy(&arena, &again, &copy) == WIRE_OK);
    require(wire_encode(&arena, &copy, &second, &second_bytes) == WIRE_OK);
    require(first_bytes == second_bytes);
    require(memcmp(first, second, first_bytes) == 0);
}

static void check_frame(const struct frame_parser *parser)
{
    const struct frame_header *header = &parser->header;
    struct wire_arena arena;
    struct wire_message message;
    struct lint_fault fault;
    uint32_t limit_bytes = 0;
    enum lint_error lint = lint_check(header->type, parser->body, header->body_bytes, &fault);
    enum wire_error error;

    wire_arena_init(&arena, memory, WIRE_ARENA_BYTES);
    error = wire_decode(&arena, header, parser->body, &message, &fault);
    require((lint != LINT_OK) == (error == WIRE_ERROR_LINT));
    require(frame_limit(parser->state, header->type, header->flags, &limit_bytes) == FRAME_OK);
    require(header->body_bytes <= limit_bytes);
    require(arena.peak_bytes <= 4 * (size_t)limit_bytes);
    if (error == WIRE_OK)
        check_round_trip(&message, parser->state);
}

static void feed(struct frame_parser *parser, const uint8_t *bytes, size_t length)
{
    for (;;) {
        switch (frame_parser_feed(parser, &bytes, &length)) {
        case FRAME_NEED_HEADER:
        case FRAME_NEED_BODY:
        case FRAME_BROKEN:
            return;
        case FRAME_NEED_MEMORY:
            frame_parser_give(parser, malloc(parser->header.body_bytes));
            break;
        case FRAME_WHOLE:
            check_frame(parser);
            free(frame_parser_take(parser));
            if (parser->state == FRAME_STATE_STRANGER)
                frame_parser_admit(parser);
            break;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame_parser parser;
    size_t step;

    if (size == 0)
        return 0;
    frame_parser_init(&parser, (enum frame_state)(data[0] % 3));
    step = data[0] < 3 ? size : 1u + data[0] / 3;
    for (size_t at = 1; at < size; at += step)
        feed(&parser, data + at, size - at < step ? size - at : step);
    free(frame_parser_take(&parser));
    return 0;
}
