/* manifest.json: what is written is read again; every bit counts; each key is needed, once, with a
 * value of its kind. */
#include "ckpt/hash.h"
#include "ckpt/manifest.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define PATH "step-00000042/" MANIFEST_NAME

static uint64_t chunks[2] = {UINT64_MAX, 1};

static void sample(struct manifest *m)
{
    memset(m, 0, sizeof *m);
    m->meta.step = 42;
    m->meta.generation = INT64_MAX;
    m->meta.seed = UINT64_MAX;
    m->meta.params_hash = 0x0123456789abcdef;
    m->meta.epoch = 3;
    m->meta.step_in_epoch = 7;
    m->meta.shards = 8;
    m->meta.loss_scale = 1.0 / 3;
    for (unsigned i = 0; i < 16; i++)
        m->meta.job_uid[i] = (uint8_t)(i * 17);
    (void)snprintf(m->meta.job, sizeof m->meta.job, "d\xc3\xa9j\xc3\xa0 \"vu\"");
    (void)snprintf(m->meta.spec, sizeof m->meta.spec, "a=1\nb=\\2\n");
    (void)snprintf(m->meta.fingerprint, sizeof m->meta.fingerprint, "isa=avx2\nlibc=2.36\n");
    m->count = 2;
    for (uint32_t i = 0; i < m->count; i++) {
        struct manifest_file *file = &m->files[i];

        (void)snprintf(file->name, sizeof file->name, "file-%u.safetensors", i);
        (void)snprintf(file->xxh128, sizeof file->xxh128, "%032u", i);
        file->bytes = 5;
        file->chunk_bytes = 4;
        file->chunk_count = 2;
        file->chunks = chunks;
    }
}

static char *text_of(const struct manifest *m)
{
    char *text = manifest_text(m);

    assert_non_null(text);
    return text;
}

static void refused(const char *text, size_t bytes, const char *words)
{
    struct manifest m;
    struct ckpt_error error = {CKPT_OK, ""};
    char *exact = malloc(bytes > 0 ? bytes : 1);
    enum ckpt_code code;

    assert_non_null(exact);
    memcpy(exact, text, bytes);
    code = manifest_parse(exact, bytes, PATH, &m, &error);
    if (code != CKPT_FORMAT || strstr(error.text, PATH) == NULL ||
        strstr(error.text, words) == NULL)
        fail_msg("code %d, '%s' was said where '%s' was expected, of\n%.300s", code, error.text,
                 words, text);
    manifest_release(&m);
    free(exact);
}

/* The body of a manifest behind which its right checksum is set: only its content can be wrong. */
static void refused_body(const char *body, size_t length, const char *words)
{
    char *text = malloc(length + MANIFEST_TAIL_BYTES + 1), sum[33];

    assert_non_null(text);
    memcpy(text, body, length);
    ckpt_hash_text(body, length, sum);
    assert_int_equal(
        snprintf(text + length, MANIFEST_TAIL_BYTES + 1, ",\n  \"checksum\": \"%s\"\n}\n", sum),
        MANIFEST_TAIL_BYTES);
    refused(text, length + MANIFEST_TAIL_BYTES, words);
    free(text);
}

/* The sample with the first `from` behind `after` made `to`. */
static void refused_edit(const char *after, const char *from, const char *to, const char *words)
{
    struct manifest m;
    char *text, *at, edited[8192];
    int length;

    sample(&m);
    text = text_of(&m);
    at = strstr(text, after);
    at = at != NULL ? strstr(at, from) : NULL;
    if (at == NULL)
        fail_msg("'%s' behind '%s' is not in the manifest", from, after);
    text[strlen(text) - MANIFEST_TAIL_BYTES] = '\0';
    length =
        snprintf(edited, sizeof edited, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    assert_in_range(length, 1, sizeof edited - 1);
    refused_body(edited, (size_t)length, words);
    free(text);
}

static void what_is_written_is_read(void **state)
{
    struct manifest m, back;
    struct ckpt_error error;
    char *text;

    (void)state;
    sample(&m);
    text = text_of(&m);
    if (manifest_parse(text, strlen(text), PATH, &back, &error) != CKPT_OK)
        fail_msg("%s in\n%s", error.text, text);
    assert_int_equal(back.meta.step, 42);
    assert_true(back.meta.generation == INT64_MAX);
    assert_true(back.meta.seed == UINT64_MAX);
    assert_true(back.meta.params_hash == m.meta.params_hash);
    assert_int_equal(back.meta.epoch, 3);
    assert_int_equal(back.meta.step_in_epoch, 7);
    assert_int_equal(back.meta.shards, 8);
    assert_memory_equal(&back.meta.loss_scale, &m.meta.loss_scale, sizeof(double));
    assert_memory_equal(back.meta.job_uid, m.meta.job_uid, 16);
    assert_string_equal(back.meta.job, m.meta.job);
    assert_string_equal(back.meta.spec, m.meta.spec);
    assert_string_equal(back.meta.fingerprint, m.meta.fingerprint);
    assert_int_equal(back.count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_string_equal(back.files[i].name, m.files[i].name);
        assert_string_equal(back.files[i].xxh128, m.files[i].xxh128);
        assert_int_equal(back.files[i].bytes, 5);
        assert_int_equal(back.files[i].chunk_bytes, 4);
        assert_int_equal(back.files[i].chunk_count, 2);
        assert_memory_equal(back.files[i].chunks, chunks, sizeof chunks);
    }
    manifest_release(&back);
    manifest_release(&back);
    free(text);
}

/* Manifests of before 2026-11-27 have no fingerprint: they are read, and it is empty. */
static void a_key_that_came_later_may_be_missing(void **state)
{
    struct manifest m, back;
    struct ckpt_error error;
    char *text, *at, sum[33], older[8192];
    int length;

    (void)state;
    sample(&m);
    text = text_of(&m);
    at = strstr(text, "\"fingerprint\": ");
    assert_non_null(at);
    text[strlen(text) - MANIFEST_TAIL_BYTES] = '\0';
    length = snprintf(older, sizeof older, "%.*s%s", (int)(at - text), text, strchr(at, '\n') + 1);
    ckpt_hash_text(older, (size_t)length, sum);
    (void)snprintf(older + length, sizeof older - (size_t)length,
                   ",\n  \"checksum\": \"%s\"\n}\n", sum);
    if (manifest_parse(older, strlen(older), PATH, &back, &error) != CKPT_OK)
        fail_msg("%s in\n%s", error.text, older);
    assert_string_equal(back.meta.fingerprint, "");
    assert_string_equal(back.meta.spec, m.meta.spec);
    manifest_release(&back);
    free(text);
}

static void every_bit_counts(void **state)
{
    struct manifest m;
    size_t length;
    char *text;

    (void)state;
    sample(&m);
    text = text_of(&m);
    length = strlen(text);
    for (size_t bit = 0; bit < 8 * length; bit++) {
        text[bit / 8] ^= (char)(1 << bit % 8);
        refused(text, length, "its ");
        text[bit / 8] ^= (char)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < length; cut++)
        refused(text, cut, cut <= MANIFEST_TAIL_BYTES ? "truncated" : "its ");
    refused("", 0, "truncated: 0 bytes");
    free(text);
}

static void keys_come_once(void **state)
{
    (void)state;
    refused_edit("{", "\"step\": 42", "\"step\": 42, \"step\": 42", "duplicate");
    refused_edit("{", "\"step\": 42", "\"step\": 42, \"checksum\": \"\"", "duplicate");
    refused_edit("files", "\"bytes\": 5", "\"bytes\": 5, \"bytes\": 5", "duplicate");
    refused_edit("files", "file-1", "file-0", "\"name\"");
}

static void keys_are_needed(void **state)
{
    static const char *const keys[] = {
        "format",        "step",   "generation", "job",   "job_uid",     "epoch",
        "step_in_epoch", "shards", "loss_scale", "seed",  "params_hash", "spec",
        "files",         "name",   "xxh128",     "bytes", "chunk_bytes", "chunks"};

    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char key[32];

        (void)snprintf(key, sizeof key, "\"%s\"", keys[i]);
        refused_edit("{", key, "\"other\"", strcmp(keys[i], "chunk_bytes") == 0 ? "chunk" : key);
    }
}

static void values_have_their_kind(void **state)
{
    static const char *const edits[][4] = {
        {"\"format\"", "1", "2", "\"format\""},
        {"\"step\"", "42", "-1", "\"step\""},
        {"\"step\"", "42", "42.0", "\"step\""},
        {"\"step\"", "42", "\"42\"", "\"step\""},
        {"\"step\"", "42", "99999999999999999999", "too big"},
        {"\"job\"", "\"d", "\"\\u0000d", "\\u0000 is not allowed"},
        {"\"job\"", "\"d", "\"0123456789012345678901234567890123456789012345678901234567890",
         "\"job\""},
        {"\"job_uid\"", "00", "0", "\"job_uid\""},
        {"\"job_uid\"", "00", "0G", "\"job_uid\""},
        {"\"seed\"", "ffff", "FFFF", "\"seed\""},
        {"\"params_hash\"", "\"0", "\"", "\"params_hash\""},
        {"\"loss_scale\"", "0.3", "\"0.3\", \"x\": 0.3", "\"loss_scale\""},
        {"\"files\"", "file-0", "../file-0", "\"name\""},
        {"\"files\"", "file-0", ".file-0", "\"name\""},
        {"\"files\"", "file-0.safetensors", MANIFEST_NAME, "\"name\""},
        {"\"files\"", "file-0.safetensors", "", "\"name\""},
        {"\"files\"", "\"bytes\": 5", "\"bytes\": 9", "\"chunks\""},
        {"\"files\"", "\"chunk_bytes\": 4", "\"chunk_bytes\": 0", "\"chunks\""},
        {"\"chunks\"", "\"ffff", "\"fff", "\"chunks\""},
        {"\"chunks\"", "[", "[1, ", "\"chunks\""},
        {"\"xxh128\"", "\"0", "\"x", "\"xxh128\""},
        {"\"spec\"", "a=", "\xff", "unable to decode"},
        {"\"fingerprint\"", "\"isa", "7, \"x\": \"isa", "\"fingerprint\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++)
        refused_edit(edits[i][0], edits[i][1], edits[i][2], edits[i][3]);
}

static void files_have_a_limit(void **state)
{
    struct manifest m;
    char *text, *body;
    size_t length;

    (void)state;
    sample(&m);
    m.count = 0;
    text = text_of(&m);
    refused(text, strlen(text), "\"files\"");
    length = (size_t)(strstr(text, "\"files\": [") + strlen("\"files\": [") - text);
    body = malloc(length + 3 * CKPT_FILES_MAX + 4);
    assert_non_null(body);
    memcpy(body, text, length);
    for (unsigned i = 0; i <= CKPT_FILES_MAX; i++, length += 3)
        memcpy(body + length, i < CKPT_FILES_MAX ? "{}," : "{}]", 3);
    refused_body(body, length, "\"files\"");
    free(body);
    free(text);
}

static void depth_does_no_harm(void **state)
{
    size_t length = 1000000;
    char *body = malloc(length);

    (void)state;
    assert_non_null(body);
    memset(body, '[', length);
    refused_body(body, length, "depth");
    memcpy(body, "{\"a\":", 5);
    refused_body(body, length, "depth");
    free(body);
}

static void not_written(const struct manifest *m)
{
    char *text = manifest_text(m);

    if (text != NULL)
        fail_msg("this was written:\n%s", text);
}

static void what_would_not_be_read_is_not_written(void **state)
{
    const size_t counts[] = {
        offsetof(struct ckpt_meta, step), offsetof(struct ckpt_meta, generation),
        offsetof(struct ckpt_meta, epoch), offsetof(struct ckpt_meta, step_in_epoch),
        offsetof(struct ckpt_meta, shards)};
    struct manifest m;

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        uint64_t large = (uint64_t)INT64_MAX + 1;

        sample(&m);
        memcpy((char *)&m.meta + counts[i], &large, sizeof large);
        not_written(&m);
    }
    sample(&m);
    m.meta.loss_scale = (double)INFINITY;
    not_written(&m);
    sample(&m);
    m.meta.spec[0] = (char)0xff;
    not_written(&m);
    sample(&m);
    m.meta.job[0] = (char)0xff;
    not_written(&m);
    sample(&m);
    m.files[1].name[0] = (char)0xff;
    not_written(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_key_that_came_later_may_be_missing),
        cmocka_unit_test(every_bit_counts),
        cmocka_unit_test(keys_come_once),
        cmocka_unit_test(keys_are_needed),
        cmocka_unit_test(values_have_their_kind),
        cmocka_unit_test(files_have_a_limit),
        cmocka_unit_test(depth_does_no_harm),
        cmocka_unit_test(what_would_not_be_read_is_not_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
