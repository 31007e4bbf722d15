/* The tables of the lint, the lists of wire_fields.h and the limits of frames against
 * messages.proto. */
#include "sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { LINE_BYTES = 256, NAME_BYTES = 64, ENUMS_MAX = 16, MESSAGES_MAX = 32 };

/* An enumeration of the schema. */
struct schema_enum {
    char name[NAME_BYTES];
    uint64_t value_max;
};

/* What the reader of the schema knows. */
struct schema {
    struct schema_enum enums[ENUMS_MAX];
    uint32_t enum_count;
    uint32_t message_count;
    uint32_t field_count;
};

static const struct lint_table *table_named(const char *name)
{
    const struct lint_table *member = lint_table(FRAME_GENERATION)->fields[3].inside;

    for (uint32_t i = 0; i < sample_type_count; i++) {
        if (strcmp(lint_table(sample_types[i])->name, name) == 0)
            return lint_table(sample_types[i]);
    }
    return strcmp(member->name, name) == 0 ? member : NULL;
}

static const struct schema_enum *enum_named(const struct schema *schema, const char *name)
{
    for (uint32_t i = 0; i < schema->enum_count; i++) {
        if (strcmp(schema->enums[i].name, name) == 0)
            return &schema->enums[i];
    }
    return NULL;
}

/* The cap in the comment of a field: "[<= N]", "[= N]", "[= 0 or N]", "[<= C, each = N]". */
static void expect_caps(const char *comment, bool repeated, struct lint_field *expected)
{
    unsigned a = 0;
    unsigned b = 0;

    if (!comment)
        fail_msg("field %s has no cap in messages.proto", expected->name);
    else if (sscanf(comment, "[<= %u, each = %u]", &a, &b) == 2 && repeated) {
        expected->count_max = a;
        expected->bytes_min = expected->bytes_max = b;
    } else if (sscanf(comment, "[= 0 or %u]", &a) == 1) {
        expected->or_empty = true;
        expected->bytes_min = expected->bytes_max = a;
    } else if (sscanf(comment, "[= %u]", &a) == 1) {
        expected->bytes_min = expected->bytes_max = a;
    } else if (sscanf(comment, "[<= %u]", &a) == 1 && repeated) {
        expected->count_max = a;
    } else if (sscanf(comment, "[<= %u]", &a) == 1) {
        expected->bytes_max = a;
    } else {
        fail_msg("field %s: the cap cannot be read: %s", expected->name, comment);
    }
}

static void expect_type(const struct schema *schema, const char *type, const char *comment,
                        bool repeated, struct lint_field *expected)
{
    const struct schema_enum *enumeration = enum_named(schema, type);

    expected->kind = LINT_VARINT;
    if (strcmp(type, "uint32") == 0) {
        expected->value_max = UINT32_MAX;
    } else if (strcmp(type, "uint64") == 0) {
        expected->value_max = UINT64_MAX;
    } else if (strcmp(type, "bool") == 0) {
        expected->value_max = 1;
    } else if (enumeration) {
        expected->value_max = enumeration->value_max;
    } else if (strcmp(type, "float") == 0) {
        expected->kind = LINT_FIXED32;
    } else if (strcmp(type, "double") == 0) {
        expected->kind = LINT_FIXED64;
    } else if (strcmp(type, "bytes") == 0) {
        expected->kind = LINT_BYTES;
        expect_caps(comment, repeated, expected);
    } else {
        expected->kind = LINT_MESSAGE;
        expected->inside = table_named(type);
        assert_non_null(expected->inside);
        expect_caps(comment, repeated, expected);
    }
}

static void compare_field(const struct lint_table *table, unsigned number,
                          const struct lint_field *expected)
{
    const struct lint_field *field = &table->fields[number];
    enum lint_kind kind = field->kind;

    if (kind == LINT_TEXT || kind == LINT_LINES)
        kind = LINT_BYTES;
    if (!field->name || strcmp(field->name, expected->name) != 0)
        fail_msg("%s field %u: %s in the schema, %s in the table", table->name, number,
                 expected->name, field->name ? field->name : "nothing");
    if (kind != expected->kind || field->value_max != expected->value_max ||
        field->bytes_min != expected->bytes_min || field->bytes_max != expected->bytes_max ||
        field->count_max != expected->count_max || field->or_empty != expected->or_empty ||
        field->inside != expected->inside)
        fail_msg("%s.%s: the table says kind %d, value <= %llu, %u..%u bytes, <= %u times; the "
                 "schema kind %d, value <= %llu, %u..%u bytes, <= %u times",
                 table->name, field->name, (int)kind, (unsigned long long)field->value_max,
                 field->bytes_min, field->bytes_max, field->count_max, (int)expected->kind,
                 (unsigned long long)expected->value_max, expected->bytes_min, expected->bytes_max,
                 expected->count_max);
}

static uint32_t rows_of(const struct lint_table *table)
{
    uint32_t rows = 0;

    for (uint32_t i = 0; i < LINT_FIELDS_MAX; i++)
        rows += table->fields[i].name != NULL;
    return rows;
}

/* One line inside of a message. */
static uint32_t read_field(struct schema *schema, const struct lint_table *table, char *line)
{
    char type[NAME_BYTES];
    char name[NAME_BYTES];
    unsigned number = 0;
    struct lint_field expected = {.name = name};
    bool repeated = strstr(line, "repeated ") != NULL;
    char *comment = strstr(line, "// [");

    if (sscanf(line, repeated ? " repeated %63s %63s = %u;" : " %63s %63s = %u;", type, name,
               &number) != 3)
        return 0;
    assert_true(number > 0 && number < LINT_FIELDS_MAX);
    expect_type(schema, type, comment ? comment + 3 : NULL, repeated, &expected);
    compare_field(table, number, &expected);
    schema->field_count++;
    return 1;
}

static void read_enum(struct schema *schema, FILE *file, const char *name)
{
    struct schema_enum *enumeration = &schema->enums[schema->enum_count++];
    char line[LINE_BYTES];
    char value[NAME_BYTES];
    unsigned number;

    assert_true(schema->enum_count <= ENUMS_MAX);
    (void)snprintf(enumeration->name, sizeof enumeration->name, "%s", name);
    while (fgets(line, sizeof line, file) && line[0] != '}') {
        if (sscanf(line, " %63s = %u;", value, &number) == 2)
            enumeration->value_max = number;
    }
}

static void read_message(struct schema *schema, FILE *file, const char *name)
{
    const struct lint_table *table = table_named(name);
    char line[LINE_BYTES];
    uint32_t rows = 0;

    if (!table)
        fail_msg("message %s has no table", name);
    while (fgets(line, sizeof line, file) && line[0] != '}')
        rows += read_field(schema, table, line);
    assert_int_equal(rows, rows_of(table));
    schema->message_count++;
}

static void tables_agree_with_schema(void **state)
{
    struct schema schema = {.enum_count = 0};
    FILE *file = fopen(MESSAGES_PROTO, "r");
    char line[LINE_BYTES];
    char name[NAME_BYTES];

    (void)state;
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "enum %63s {", name) == 1)
            read_enum(&schema, file, name);
        else if (sscanf(line, "message %63s {", name) == 1)
            read_message(&schema, file, name);
    }
    (void)fclose(file);
    assert_int_equal(schema.message_count, sample_type_count + 1); /* and Member */
    assert_true(schema.field_count >= 90);
}

/* wire_fields.h names every field, in the order of the schema. */
static void lists_agree_with_tables(void **state)
{
    (void)state;
    for (uint32_t t = 0; t < sample_type_count; t++) {
        const struct lint_table *table = lint_table(sample_types[t]);
        const char *const *names = sample_field_names(sample_types[t]);
        uint32_t rows = 0;

        for (uint32_t number = 1; number < LINT_FIELDS_MAX; number++)
            if (table->fields[number].name) /* numbers may be left out */
                assert_string_equal(names[rows++], table->fields[number].name);
        assert_null(names[rows]);
    }
}

/* No message that the lint passes is longer than the frame may be, and limits are not far too wide.
 */
static void limits_agree_with_tables(void **state)
{
    (void)state;
    for (uint32_t t = 0; t < sample_type_count; t++) {
        uint8_t type = sample_types[t];
        size_t largest = lint_table_bytes_max(lint_table(type));
        size_t roster = lint_table_bytes_max(lint_table(FRAME_GENERATION)->fields[3].inside);
        uint32_t limit = 0;
        uint16_t flags = type == FRAME_HELLO ? FRAME_FLAG_ROSTER : 0;

        assert_true(frame_limit(FRAME_STATE_STRANGER, type, flags, &limit) == FRAME_OK ||
                    frame_limit(FRAME_STATE_MEMBER, type, flags, &limit) == FRAME_OK ||
                    frame_limit(FRAME_STATE_COORDINATOR, type, flags, &limit) == FRAME_OK);
        if (largest > limit)
            fail_msg("%s: %zu bytes pass the lint, the frame may have %u", frame_type_name(type),
                     largest, limit);
        if (type == FRAME_HELLO)
            assert_true(largest - WIRE_MEMBERS_MAX * (roster + 4) <= FRAME_SMALL_BYTES);
    }
}

/* By hand: tag, length and content of every field at its largest. */
static void largest_bodies_by_hand(void **state)
{
    const struct lint_table *member = lint_table(FRAME_GENERATION)->fields[3].inside;
    const size_t member_bytes = 18 + 6 + 6 + 66 + 66 + 6 + 66 + 11 + (1 + 2 + 128) + 2 + 6;

    (void)state;
    assert_int_equal(lint_table_bytes_max(lint_table(FRAME_BEAT_ACK)), 1 + 10);
    assert_int_equal(lint_table_bytes_max(lint_table(FRAME_LEAVE)), 1 + 5);
    assert_int_equal(lint_table_bytes_max(lint_table(FRAME_FINISHED)), 1 + 10 + 1 + 8);
    assert_int_equal(lint_table_bytes_max(lint_table(FRAME_RELEASED)), 1 + 2 + 256);
    assert_int_equal(lint_table_bytes_max(lint_table(FRAME_OVER)), 1024 * 18 + 1 + 2 + 256);
    assert_int_equal(lint_table_bytes_max(member), member_bytes);
    assert_int_equal(lint_table_bytes_max(lint_table(FRAME_GENERATION)),
                     2 + 18 + 1024 * (1 + 2 + member_bytes) + (1 + 2 + 256) + 2 + 3 * 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_agree_with_schema),
        cmocka_unit_test(lists_agree_with_tables),
        cmocka_unit_test(limits_agree_with_tables),
        cmocka_unit_test(largest_bodies_by_hand),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
