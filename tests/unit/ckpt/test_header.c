/* Headers of safetensors files: every rule broken once is refused with its own words; limits; the
 * bytes that are written are read again; changed and cut headers never do harm. */
#include "ckpt/safetensors.h"
#include "unit/ckpt/box.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define NAME        "x.safetensors"
#define F32(a, b)   "{\"dtype\":\"F32\",\"shape\":[" a "],\"data_offsets\":[" b "]}"
#define MUTATIONS   20000
#define LONG_STRING 256

/* The header in memory of exactly its size, so that a byte read too much is seen. Close file. */
static enum ckpt_code parse(const char *text, size_t length, uint64_t data_bytes,
                            struct safetensors *file, struct ckpt_error *error)
{
    char *exact = malloc(length > 0 ? length : 1);
    enum ckpt_code code;

    assert_non_null(exact);
    memcpy(exact, text, length);
    memset(file, 0, sizeof *file);
    memset(error, 0, sizeof *error);
    (void)snprintf(file->path, sizeof file->path, NAME);
    code = safetensors_parse(exact, length, 8 + length + data_bytes, file, error);
    free(exact);
    return code;
}

static void refused(const char *text, size_t length, uint64_t data_bytes, const char *words)
{
    struct safetensors file;
    struct ckpt_error error;
    enum ckpt_code code = parse(text, length, data_bytes, &file, &error);

    if (code != CKPT_FORMAT || strstr(error.text, NAME) == NULL ||
        strstr(error.text, words) == NULL)
        fail_msg("%.200s: code %d, '%s' was said where '%s' was expected", text, code, error.text,
                 words);
    safetensors_close(&file);
}

static void accepted(const char *text, size_t length, uint64_t data_bytes, uint32_t count)
{
    struct safetensors file;
    struct ckpt_error error;

    if (parse(text, length, data_bytes, &file, &error) != CKPT_OK)
        fail_msg("%.200s: %s", text, error.text);
    if (file.count != count)
        fail_msg("%.200s: %u tensors, expected %u", text, file.count, count);
    safetensors_close(&file);
}

/* A header, the bytes behind it, what is said. */
struct row {
    const char *text;
    uint64_t data_bytes;
    const char *words;
};

static void all_refused(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        refused(rows[i].text, strlen(rows[i].text), rows[i].data_bytes, rows[i].words);
}

#define ALL_REFUSED(rows) all_refused(rows, sizeof(rows) / sizeof(rows)[0])

/* ---- each rule ------------------------------------------------------------------------------ */

static void what_the_format_takes_is_taken(void **state)
{
    static const struct row rows[] = {
        {"{}", 0, NULL},
        {" \t\r\n{ \n} \t", 0, NULL},
        {"{\"__metadata__\":{}}", 0, NULL},
        {"{\"__metadata__\":{\"a\":\"\",\"b\":\"\\ud83d\\ude00\\u00e9\\n\"}}", 0, NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        accepted(rows[i].text, strlen(rows[i].text), rows[i].data_bytes, 0);
    accepted("{\"a\":" F32("", "0,4") "}", strlen("{\"a\":" F32("", "0,4") "}"), 4, 1);
    accepted("{\"\":" F32("0,5", "0,0") "}", strlen("{\"\":" F32("0,5", "0,0") "}"), 0, 1);
    accepted("{\"b\":" F32("1", "4,8") ",\"a\":" F32("1", "0,4") "}",
             strlen("{\"b\":" F32("1", "4,8") ",\"a\":" F32("1", "0,4") "}"), 8, 2);
}

static void syntax_is_checked(void **state)
{
    static const struct row rows[] = {
        {"", 0, "expected '{'"},
        {"[]", 0, "expected '{'"},
        {"{", 0, "expected '\"'"},
        {"{\"a\"}", 0, "expected ':'"},
        {"{\"a\":1}", 0, "expected '{'"},
        {"{}x", 0, "bytes after its end"},
        {"{}{}", 0, "bytes after its end"},
        {"{\"a\":" F32("1", "0,4"), 4, "expected '}'"},
        {"{\"a\":" F32("1", "0,4") ",}", 4, "expected '\"'"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "lacks dtype, shape or"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "lacks dtype, shape or"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "lacks dtype, shape or"},
        {"{\"a\":{}}", 0, "expected '\"'"},
        {"{\"a\":{\"color\":1}}", 0, "unknown key of a tensor"},
    };

    (void)state;
    ALL_REFUSED(rows);
}

static void keys_come_once(void **state)
{
    static const struct row rows[] = {
        {"{\"a\":" F32("1", "0,4") ",\"a\":" F32("1", "4,8") "}", 8, "name comes twice"},
        {"{\"a\":" F32("1", "0,4") ",\"a\":" F32("1", "0,4") "}", 4, "name comes twice"},
        {"{\"a\":" F32("1", "0,4") ",\"\\u0061\":" F32("1", "4,8") "}", 8, "name comes twice"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[]}}", 4, "key of a tensor twice"},
        {"{\"a\":{\"shape\":[],\"shape\":[],\"dtype\":\"F32\"}}", 4, "key of a tensor twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__ twice"},
        {"{\"__metadata__\":{\"a\":\"1\",\"b\":\"\",\"a\":\"1\"}}", 0, "key of __metadata__ twice"},
    };

    (void)state;
    ALL_REFUSED(rows);
}

static void types_and_shapes_are_checked(void **state)
{
    static const struct row rows[] = {
        {"{\"a\":{\"dtype\":\"F33\"}}", 4, "dtype F33 is not known"},
        {"{\"a\":{\"dtype\":\"f32\"}}", 4, "dtype f32 is not known"},
        {"{\"a\":{\"dtype\":\"F4\"}}", 4, "dtype F4 is not known"},
        {"{\"a\":{\"dtype\":\"\"}}", 4, "is not known"},
        {"{\"a\":{\"dtype\":7}}", 4, "expected '\"'"},
        {"{\"a\":{\"dtype\":\"F8_E4M3FNUZ_AND_MORE\"}}", 4, "string that is too long"},
        {"{\"a\":" F32("-1", "0,4") "}", 4, "expected a whole number"},
        {"{\"a\":" F32("01", "0,4") "}", 4, "expected a whole number"},
        {"{\"a\":" F32("1,", "0,4") "}", 4, "expected a whole number"},
        {"{\"a\":" F32("null", "0,4") "}", 4, "expected a whole number"},
        {"{\"a\":" F32("1.5", "0,4") "}", 4, "expected ']'"},
        {"{\"a\":" F32("1e1", "0,4") "}", 4, "expected ']'"},
        {"{\"a\":" F32("18446744073709551616", "0,4") "}", 4, "number that is too large"},
        {"{\"a\":" F32("1,1,1,1,1,1,1,1,1", "0,4") "}", 4, "more than 8 dimensions"},
        {"{\"a\":" F32("4294967296,1073741824", "0,4") "}", 4, "size overflows"},
        {"{\"a\":" F32("18446744073709551615", "0,4") "}", 4, "size overflows"},
        {"{\"a\":" F32("2", "0,4") "}", 4, "not what its shape says"},
        {"{\"a\":" F32("0", "0,4") "}", 4, "not what its shape says"},
    };

    (void)state;
    ALL_REFUSED(rows);
}

static void offsets_are_checked(void **state)
{
    static const struct row rows[] = {
        {"{\"a\":" F32("1", "4,8") "}", 8, "tensor a: a hole or an overlap"},
        {"{\"a\":" F32("1", "0,4") ",\"b\":" F32("1", "8,12") "}", 12, "tensor b: a hole or an"},
        {"{\"a\":" F32("2", "0,8") ",\"b\":" F32("1", "4,8") "}", 8, "tensor b: a hole or an"},
        {"{\"a\":" F32("1", "0,4") ",\"b\":" F32("1", "0,4") "}", 4, "tensor b: a hole or an"},
        {"{\"a\":" F32("1", "4,0") "}", 4, "tensor a: a hole or an overlap"},
        {"{\"a\":" F32("1", "0") "}", 4, "expected ','"},
        {"{\"a\":" F32("1", "0,4,8") "}", 4, "expected ']'"},
        {"{\"a\":" F32("1", "-4,0") "}", 4, "expected a whole number"},
        {"{\"a\":" F32("1", "\"0\",4") "}", 4, "expected a whole number"},
        {"{\"a\":" F32("1", "0,18446744073709551615") "}", 4, "not what its shape says"},
        {"{\"a\":" F32("2", "0,8") "}", 4, "the file is truncated"},
        {"{\"a\":" F32("1", "0,4") "}", 5, "bytes after the last tensor"},
        {"{}", 1, "bytes after the last tensor"},
    };

    (void)state;
    ALL_REFUSED(rows);
}

static void strings_are_checked(void **state)
{
    static const struct row rows[] = {
        {"{\"a", 0, "string without an end"},
        {"{\"a\\", 0, "broken escape"},
        {"{\"\\q\":", 0, "broken escape"},
        {"{\"\\u12\":", 0, "broken escape"},
        {"{\"\\u12g4\":", 0, "broken escape"},
        {"{\"\\u0000\":", 0, "broken escape"},
        {"{\"\\ud800\":", 0, "broken escape"},
        {"{\"\\ud800\\u0041\":", 0, "broken escape"},
        {"{\"\\udc00\":", 0, "broken escape"},
        {"{\"\n\":", 0, "control character"},
        {"{\"\x80\":", 0, "not UTF-8"},
        {"{\"\xff\":", 0, "not UTF-8"},
        {"{\"\xc0\xaf\":", 0, "not UTF-8"},         /* a longer form than needed */
        {"{\"\xe0\x80\xaf\":", 0, "not UTF-8"},     /* the same in three */
        {"{\"\xed\xa0\x80\":", 0, "not UTF-8"},     /* a surrogate */
        {"{\"\xf4\x90\x80\x80\":", 0, "not UTF-8"}, /* beyond U+10FFFF */
        {"{\"\xe2\x82", 0, "not UTF-8"},            /* cut */
        {"{\"__metadata__\":{\"a\":1}}", 0, "expected '\"'"},
        {"{\"__metadata__\":{\"a\":{}}}", 0, "expected '\"'"},
        {"{\"__metadata__\":null}", 0, "expected '{'"},
    };

    (void)state;
    ALL_REFUSED(rows);
    refused("{\"a\0b\":", 7, 0, "control character");
}

/* ---- limits --------------------------------------------------------------------------------- */

/* head, then middle many times, then tail. malloc'ed. */
static char *repeated(const char *head, const char *middle, size_t times, const char *tail)
{
    size_t length = strlen(middle), at = strlen(head);
    char *text = malloc(at + times * length + strlen(tail) + 1);

    assert_non_null(text);
    memcpy(text, head, at);
    for (size_t i = 0; i < times; i++, at += length)
        memcpy(text + at, middle, length);
    memcpy(text + at, tail, strlen(tail) + 1);
    return text;
}

static void refused_repeated(const char *head, const char *middle, size_t times, const char *words)
{
    char *text = repeated(head, middle, times, "");

    refused(text, strlen(text), 0, words);
    free(text);
}

/* A parser that recursed would need gigabytes of stack. */
static void depth_does_no_harm(void **state)
{
    (void)state;
    refused_repeated("", "{", 4000000, "expected '\"'");
    refused_repeated("{\"a\":", "[", 4000000, "expected '{'");
    refused_repeated("{\"a\":{\"shape\":[", "[", 4000000, "expected a whole number");
    refused_repeated("{\"a\":{\"dtype\":", "{", 4000000, "expected '\"'");
    refused_repeated("{\"__metadata__\":{\"a\":", "[", 4000000, "expected '\"'");
    refused_repeated("", "{\"a\":", 1000000, "unknown key of a tensor");
}

static void names_have_a_limit(void **state)
{
    char *fits = repeated("{\"", "x", LONG_STRING, "\":" F32("1", "0,4") "}");
    char *wide = repeated("{\"", "\xc3\xa9", LONG_STRING / 2, "\":" F32("1", "0,4") "}");
    char *large = repeated("{\"", "x", LONG_STRING + 1, "\":" F32("1", "0,4") "}");

    (void)state;
    accepted(fits, strlen(fits), 4, 1);
    accepted(wide, strlen(wide), 4, 1);
    refused(large, strlen(large), 4, "string that is too long");
    refused_repeated("{\"__metadata__\":{\"a\":\"", "x", 65536, "string that is too long");
    free(fits);
    free(wide);
    free(large);
}

/* head, then the keys 0, 1, 2 .. each with the value, then tail. malloc'ed. */
static char *many(const char *head, const char *value, uint32_t count, const char *tail)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);

    assert_non_null(out);
    (void)fprintf(out, "%s", head);
    for (uint32_t i = 0; i < count; i++)
        (void)fprintf(out, "%s\"%u\":%s", i > 0 ? "," : "", i, value);
    (void)fprintf(out, "%s", tail);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void counts_have_a_limit(void **state)
{
    char *tensors = many("{", F32("0", "0,0"), SAFETENSORS_TENSORS_MAX, "}");
    char *more = many("{", F32("0", "0,0"), SAFETENSORS_TENSORS_MAX + 1, "}");
    char *keys = many("{\"__metadata__\":{", "\"\"", 256, "}}");
    char *more_keys = many("{\"__metadata__\":{", "\"\"", 257, "}}");

    (void)state;
    accepted(tensors, strlen(tensors), 0, SAFETENSORS_TENSORS_MAX);
    refused(more, strlen(more), 0, "too many tensors");
    accepted(keys, strlen(keys), 0, 0);
    refused(more_keys, strlen(more_keys), 0, "too much in __metadata__");
    free(tensors);
    free(more);
    free(keys);
    free(more_keys);
}

/* ---- damage --------------------------------------------------------------------------------- */

#define GOOD                                                                                       \
    "{\"__metadata__\":{\"format\":\"pt\"},\"fc.weight\":" F32("3,2", "0,24")                      \
    ",\"\\u00e9\\n\":{\"shape\":[],\"data_offsets\":[24,32],\"dtype\":\"I64\"},\"n\":"             \
    F32("0", "32,32") "}"

static void a_cut_at_every_byte_is_refused(void **state)
{
    (void)state;
    accepted(GOOD, sizeof GOOD - 1, 32, 3);
    for (size_t cut = 0; cut < sizeof GOOD - 1; cut++)
        refused(GOOD, cut, 32, "header: ");
}

/* Whatever was accepted keeps what the caller relies on. */
static void check_layout(const struct safetensors *file, uint64_t data_bytes)
{
    uint64_t at = 0, bytes;

    for (uint32_t i = 0; i < file->count; i++) {
        const struct safetensors_tensor *t = &file->tensors[i];

        assert_true(safetensors_bytes(t, &bytes));
        assert_int_equal(t->begin, at);
        assert_int_equal(t->end, at + bytes);
        assert_ptr_equal(safetensors_find(file, t->name), t);
        at = t->end;
    }
    assert_int_equal(at, data_bytes);
}

static void changed_bytes_do_no_harm(void **state)
{
    static const char likely[] = "{}[]\",:\\0123456789eu \xc3";
    uint64_t seed = 2026;
    unsigned taken = 0;

    (void)state;
    for (unsigned i = 0; i < MUTATIONS; i++) {
        char text[sizeof GOOD] = GOOD;
        struct safetensors file;
        struct ckpt_error error;
        enum ckpt_code code;

        for (uint64_t k = 1 + box_random(&seed) % 3; k > 0; k--)
            text[box_random(&seed) % (sizeof GOOD - 1)] =
                box_random(&seed) % 2 ? likely[box_random(&seed) % (sizeof likely - 1)]
                                      : (char)box_random(&seed);
        code = parse(text, sizeof GOOD - 1, 32, &file, &error);
        if (code == CKPT_OK)
            check_layout(&file, 32);
        else
            assert_int_equal(code, CKPT_FORMAT);
        taken += code == CKPT_OK;
        safetensors_close(&file);
    }
    if (taken == 0 || taken > MUTATIONS / 2)
        fail_msg("%u of %u were accepted: this test changes too much or too little", taken,
                 MUTATIONS);
}

/* ---- writing -------------------------------------------------------------------------------- */

static void header_of(const struct safetensors_tensor *tensors, uint32_t count, char **header,
                      size_t *bytes, uint32_t *order)
{
    struct ckpt_error error;

    if (safetensors_header(tensors, count, header, bytes, order, &error) != CKPT_OK)
        fail_msg("%s", error.text);
    assert_int_equal(*bytes % 4096, 0);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal((uint8_t)(*header)[i], (*bytes - 8) >> (8 * i) & 255);
    assert_memory_equal(*header + 8, "{\"", 2);
}

/* All types, odd names, ranks 0 to 8. */
static void what_is_written_is_read(void **state)
{
    static const char *const names[] = {"a", "\"\\/", "\xf0\x9f\x98\x80", "\x01\x1f\x7f",
                                        "",  "a b"};
    struct safetensors_tensor tensors[SAFETENSORS_TYPE_COUNT + 6] = {{.name = ""}};
    uint32_t count = sizeof tensors / sizeof tensors[0], order[sizeof tensors / sizeof tensors[0]];
    uint64_t data_bytes = 0, bytes;
    struct ckpt_error error;
    struct safetensors file;
    size_t header_bytes;
    char *header;

    (void)state;
    for (uint32_t i = 0; i < count; i++) {
        struct safetensors_tensor *t = &tensors[i];

        if (i < sizeof names / sizeof names[0])
            (void)snprintf(t->name, sizeof t->name, "%s", names[i]);
        else
            (void)snprintf(t->name, sizeof t->name, "layer.%u", i);
        t->type = (enum safetensors_type)(i % SAFETENSORS_TYPE_COUNT);
        t->dims = i % 9;
        for (uint32_t d = 0; d < t->dims; d++)
            t->shape[d] = (i + d) % 4;
        assert_true(safetensors_bytes(t, &bytes));
        data_bytes += bytes;
    }
    header_of(tensors, count, &header, &header_bytes, order);
    assert_int_equal(parse(header + 8, header_bytes - 8, data_bytes, &file, &error), CKPT_OK);
    assert_int_equal(file.count, count);
    assert_int_equal(file.data_at, header_bytes);
    check_layout(&file, data_bytes);
    for (uint32_t i = 0; i < count; i++) {
        const struct safetensors_tensor *want = &tensors[i];
        const struct safetensors_tensor *got = safetensors_find(&file, want->name);

        assert_non_null(got);
        assert_int_equal(got->type, want->type);
        assert_int_equal(got->dims, want->dims);
        assert_memory_equal(got->shape, want->shape, want->dims * sizeof want->shape[0]);
    }
    for (uint32_t i = 1; i < count; i++) {
        const struct safetensors_tensor *a = &tensors[order[i - 1]], *b = &tensors[order[i]];

        assert_true(a->type > b->type || (a->type == b->type && strcmp(a->name, b->name) < 0));
    }
    safetensors_close(&file);
    free(header);
}

/* One tensor of the two is wrong. */
static void not_written(const struct safetensors_tensor *wrong, const char *words)
{
    struct safetensors_tensor tensors[2] = {{.name = "a", .type = SAFETENSORS_F32}, *wrong};
    uint32_t order[2];
    struct ckpt_error error = {CKPT_OK, ""};
    size_t bytes;
    char *header;
    enum ckpt_code code = safetensors_header(tensors, 2, &header, &bytes, order, &error);

    if (code != CKPT_FORMAT || strstr(error.text, words) == NULL)
        fail_msg("code %d, '%s' was said where '%s' was expected", code, error.text, words);
    assert_null(header);
}

static void what_would_not_be_read_is_not_written(void **state)
{
    struct safetensors_tensor t = {.name = "b", .type = SAFETENSORS_F32};

    (void)state;
    t.name[0] = 'a';
    not_written(&t, "there already");
    (void)snprintf(t.name, sizeof t.name, "__metadata__");
    not_written(&t, "there already");
    (void)snprintf(t.name, sizeof t.name, "\xff");
    not_written(&t, "not UTF-8");
    memset(t.name, 'x', sizeof t.name);
    not_written(&t, "too long");
    (void)snprintf(t.name, sizeof t.name, "b");
    t.dims = SAFETENSORS_DIMS_MAX + 1;
    not_written(&t, "does not exist");
    t.dims = 0;
    t.type = SAFETENSORS_TYPE_COUNT;
    not_written(&t, "does not exist");
    t.type = SAFETENSORS_F32;
    t.dims = 2;
    t.shape[0] = t.shape[1] = UINT32_MAX;
    not_written(&t, "overflows");
    t.shape[0] = 0;
    t.shape[1] = UINT64_MAX; /* no bytes at all, but a number that JSON's do not reach */
    not_written(&t, "overflows");
}

static void too_much_is_not_written(void **state)
{
    uint32_t count = SAFETENSORS_TENSORS_MAX + 1, *order = calloc(count, sizeof *order);
    struct safetensors_tensor *tensors = calloc(count, sizeof *tensors);
    struct ckpt_error error;
    size_t bytes;
    char *header;

    (void)state;
    assert_non_null(order);
    assert_non_null(tensors);
    for (uint32_t i = 0; i < count; i++) {
        memset(tensors[i].name, 'x', LONG_STRING);
        (void)snprintf(tensors[i].name, 16, "%015u", i);
        tensors[i].name[15] = 'x';
        tensors[i].type = SAFETENSORS_F32;
    }
    assert_int_equal(safetensors_header(tensors, count, &header, &bytes, order, &error),
                     CKPT_LIMIT);
    assert_non_null(strstr(error.text, "65537 tensors"));
    assert_int_equal(safetensors_header(tensors, count - 1, &header, &bytes, order, &error),
                     CKPT_LIMIT);
    assert_non_null(strstr(error.text, "a header of"));
    assert_null(header);
    free(order);
    free(tensors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_format_takes_is_taken),
        cmocka_unit_test(syntax_is_checked),
        cmocka_unit_test(keys_come_once),
        cmocka_unit_test(types_and_shapes_are_checked),
        cmocka_unit_test(offsets_are_checked),
        cmocka_unit_test(strings_are_checked),
        cmocka_unit_test(depth_does_no_harm),
        cmocka_unit_test(names_have_a_limit),
        cmocka_unit_test(counts_have_a_limit),
        cmocka_unit_test(a_cut_at_every_byte_is_refused),
        cmocka_unit_test(changed_bytes_do_no_harm),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(what_would_not_be_read_is_not_written),
        cmocka_unit_test(too_much_is_not_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
