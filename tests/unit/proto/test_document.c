/* The annotated dump in PROTOCOL.md is what wire.c writes: made here and compared.
 *
 *   unit_proto_document            compares
 *   unit_proto_document --print    prints the dump, to be pasted between the markers
 */
#include "proto/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { TEXT_BYTES = 32768, HEX_COLUMNS = 8 };

#define MARK_BEGIN "<!-- dump: begin -->\n```\n"
#define MARK_END   "```\n<!-- dump: end -->"

/* Text that grows at its end. */
struct paper {
    char *text;
    size_t bytes;
};

__attribute__((format(printf, 2, 3))) static void paper_print(struct paper *paper,
                                                              const char *format, ...)
{
    va_list arguments;
    int done;

    va_start(arguments, format);
    done = vsnprintf(paper->text + paper->bytes, TEXT_BYTES - paper->bytes, format, arguments);
    va_end(arguments);
    assert_true(done >= 0 && paper->bytes + (size_t)done < TEXT_BYTES);
    paper->bytes += (size_t)done;
}

/* "  24  01 02 03 04 05 06 07 08  what it is", further bytes on lines of their own. */
static void paper_bytes(struct paper *paper, const uint8_t *frame, size_t from, size_t to,
                        const char *what)
{
    for (size_t at = from; at < to; at += HEX_COLUMNS) {
        size_t end = to - at < HEX_COLUMNS ? to : at + HEX_COLUMNS;

        paper_print(paper, "%4zu  ", at);
        for (size_t i = at; i < at + HEX_COLUMNS; i++) {
            if (i < end)
                paper_print(paper, "%02x ", frame[i]);
            else if (at == from)
                paper_print(paper, "   ");
        }
        paper_print(paper, "%s%s\n", at == from ? " " : "", at == from ? what : "");
        while (paper->bytes > 1 && paper->text[paper->bytes - 2] == ' ')
            paper->text[--paper->bytes - 1] = '\n';
        paper->text[paper->bytes] = '\0';
    }
}

static uint64_t varint(const uint8_t *frame, size_t *at)
{
    uint64_t value = 0;
    uint32_t shift = 0;

    do {
        value |= (uint64_t)(frame[*at] & 0x7f) << shift;
        shift += 7;
    } while (frame[(*at)++] & 0x80);
    return value;
}

static void paper_header(struct paper *paper, const uint8_t *frame)
{
    char what[80];

    paper_bytes(paper, frame, 0, 4, "magic \"MSTR\"");
    paper_bytes(paper, frame, 4, 5, "version 1");
    (void)snprintf(what, sizeof what, "type %u = %s", frame[5], frame_type_name(frame[5]));
    paper_bytes(paper, frame, 5, 6, what);
    paper_bytes(paper, frame, 6, 8, "flags");
    (void)snprintf(what, sizeof what, "body_bytes = %u", frame[8] | (unsigned)frame[9] << 8);
    paper_bytes(paper, frame, 8, 12, what);
    paper_bytes(paper, frame, 12, 20, "generation");
    paper_bytes(paper, frame, 20, 28, "nonce");
    paper_bytes(paper, frame, 28, 36, "step");
}

/* One field of a flat message. */
static size_t paper_field(struct paper *paper, const struct lint_table *table, const uint8_t *frame,
                          size_t from)
{
    size_t at = from;
    uint64_t tag = varint(frame, &at);
    const struct lint_field *field = &table->fields[tag >> 3];
    uint64_t value = varint(frame, &at);
    char what[160];

    if (field->kind == LINT_VARINT) {
        (void)snprintf(what, sizeof what, "%u varint: %s = %llu", (unsigned)(tag >> 3), field->name,
                       (unsigned long long)value);
    } else if (field->kind == LINT_BYTES) {
        (void)snprintf(what, sizeof what, "%u bytes, %llu: %s", (unsigned)(tag >> 3),
                       (unsigned long long)value, field->name);
        at += value;
    } else {
        (void)snprintf(what, sizeof what, "%u bytes, %llu: %s = \"%.*s\"", (unsigned)(tag >> 3),
                       (unsigned long long)value, field->name, (int)value,
                       (const char *)frame + at);
        at += value;
    }
    paper_bytes(paper, frame, from, at, what);
    return at;
}

static void paper_message(struct paper *paper, const char *title,
                          const struct wire_message *message)
{
    static uint8_t memory[65536];
    struct wire_arena arena;
    const uint8_t *frame = NULL;
    size_t bytes = 0;

    wire_arena_init(&arena, memory, sizeof memory);
    assert_int_equal(wire_encode(&arena, message, &frame, &bytes), WIRE_OK);
    paper_print(paper, "%s\n", title);
    paper_header(paper, frame);
    for (size_t at = FRAME_HEADER_BYTES; at < bytes;)
        at = paper_field(paper, lint_table(message->header.type), frame, at);
}

static void paper_conversation(struct paper *paper)
{
    const struct wire_message hello = {
        .header = {.type = FRAME_HELLO},
        .hello = {.version_min = 1,
                  .version_max = 1,
                  .job = "demo",
                  .member_id = {{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a,
                                 0x1b, 0x1c, 0x1d, 0x1e, 0x1f}},
                  .secret = {{0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a,
                              0x2b, 0x2c, 0x2d, 0x2e, 0x2f}},
                  .kind = WIRE_KIND_PARTICIPANT,
                  .attach = WIRE_ATTACH_JOIN,
                  .node = "node-a",
                  .host = "node-a",
                  .pid = 300,
                  .rank_hint = 1,
                  .group_size = 2},
    };
    const struct wire_message welcome = {
        .header = {.type = FRAME_WELCOME},
        .welcome = {.version = 1,
                    .job_uid = {{0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a,
                                 0x3b, 0x3c, 0x3d, 0x3e, 0x3f}},
                    .beat_ms = 500,
                    .lease_ms = 2500},
    };
    const struct wire_message enter = {
        .header = {.type = FRAME_BARRIER_ENTER},
        .barrier_enter = {.name = "epoch-end", .seq = 1, .place = "script.sh:12"},
    };

    paper_message(paper, "member -> coordinator", &hello);
    paper_message(paper, "\ncoordinator -> member", &welcome);
    paper_message(paper, "\nmember -> coordinator", &enter);
}

static struct paper paper_new(void)
{
    struct paper paper = {.text = calloc(1, TEXT_BYTES)};

    assert_non_null(paper.text);
    return paper;
}

static char *read_document(void)
{
    FILE *file = fopen(PROTOCOL_MD, "r");
    char *text = calloc(1, 1 << 18);
    size_t bytes;

    assert_non_null(file);
    bytes = fread(text, 1, (1 << 18) - 1, file);
    (void)fclose(file);
    assert_true(bytes > 0);
    return text;
}

static void dump_in_the_document_is_true(void **state)
{
    struct paper paper = paper_new();
    char *document = read_document();
    char *begin = strstr(document, MARK_BEGIN);
    char *end = strstr(document, MARK_END);

    (void)state;
    paper_conversation(&paper);
    assert_non_null(begin);
    assert_non_null(end);
    *end = '\0';
    begin += strlen(MARK_BEGIN);
    if (strcmp(begin, paper.text) != 0)
        fail_msg("PROTOCOL.md does not hold this dump:\n%s", paper.text);
    free(document);
    free(paper.text);
}

/* Every message of the protocol has its paragraph, with its number; every limit is written. */
static void every_message_is_described(void **state)
{
    char *document = read_document();
    char heading[64];

    (void)state;
#define DESCRIBED(name, number, sender, limit)                                                     \
    (void)snprintf(heading, sizeof heading, "\n#### %s (%d)\n", #name, number);                    \
    if (!strstr(document, heading))                                                                \
        fail_msg("PROTOCOL.md has no paragraph '%s (%d)'", #name, number);
    FRAME_TYPES(DESCRIBED)
#undef DESCRIBED
    (void)snprintf(heading, sizeof heading, "%u", FRAME_ROSTER_BYTES);
    assert_non_null(strstr(document, heading));
    (void)snprintf(heading, sizeof heading, "%u", FRAME_SMALL_BYTES);
    assert_non_null(strstr(document, heading));
    (void)snprintf(heading, sizeof heading, "%u", FRAME_OVER_BYTES);
    assert_non_null(strstr(document, heading));
    free(document);
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dump_in_the_document_is_true),
        cmocka_unit_test(every_message_is_described),
    };

    if (count == 2 && strcmp(arguments[1], "--print") == 0) {
        struct paper paper = paper_new();

        paper_conversation(&paper);
        (void)fputs(paper.text, stdout);
        free(paper.text);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
