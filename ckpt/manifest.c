/* The checksum is XXH3-128 of every byte before its own key, which always is the last one and
 * written in one way, so that no bit of the file is free to change: neither white space nor a digit
 * beyond a double. */
#include "ckpt/manifest.h"

#include "ckpt/hash.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT    1
#define TAIL_HEAD ",\n  \"checksum\": \""
#define TAIL_END  "\"\n}\n"

_Static_assert(sizeof TAIL_HEAD - 1 + 32 + sizeof TAIL_END - 1 == MANIFEST_TAIL_BYTES, "tail");

/* ---- writing -------------------------------------------------------------------------------- */

/* Seeds and hashes use all 64 bits, which numbers of JSON do not have: they are texts. */
static json_t *hex_json(uint64_t value)
{
    char text[17];

    (void)snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
    return json_string(text);
}

static json_t *bytes_json(const uint8_t *bytes, size_t count)
{
    char text[65] = "";

    for (size_t i = 0; i < count && 2 * i + 2 < sizeof text; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return json_string(text);
}

static json_t *file_json(const struct manifest_file *file)
{
    json_t *chunks = json_array();

    for (uint32_t i = 0; i < file->chunk_count; i++)
        (void)json_array_append_new(chunks, hex_json(file->chunks[i]));
    return json_pack("{s:s, s:I, s:s, s:I, s:o}", "name", file->name, "bytes",
                     (json_int_t)file->bytes, "xxh128", file->xxh128, "chunk_bytes",
                     (json_int_t)file->chunk_bytes, "chunks", chunks);
}

/* Numbers of 64 bits would be read as negative ones. */
static bool fits(const struct ckpt_meta *meta)
{
    return (meta->step | meta->generation | meta->epoch | meta->step_in_epoch | meta->shards) <=
           INT64_MAX;
}

static json_t *manifest_json(const struct manifest *m)
{
    const struct ckpt_meta *meta = &m->meta;
    json_t *files = fits(meta) ? json_array() : NULL;

    for (uint32_t i = 0; i < m->count; i++)
        (void)json_array_append_new(files, file_json(&m->files[i]));
    if (json_array_size(files) != m->count) {
        json_decref(files);
        return NULL;
    }
    return json_pack("{s:i, s:I, s:I, s:s, s:o, s:I, s:I, s:I, s:f, s:o, s:o, s:s, s:s, s:o}",
                     "format", FORMAT, "step", (json_int_t)meta->step, "generation",
                     (json_int_t)meta->generation, "job", meta->job, "job_uid",
                     bytes_json(meta->job_uid, sizeof meta->job_uid), "epoch",
                     (json_int_t)meta->epoch, "step_in_epoch", (json_int_t)meta->step_in_epoch,
                     "shards", (json_int_t)meta->shards, "loss_scale", meta->loss_scale, "seed",
                     hex_json(meta->seed), "params_hash", hex_json(meta->params_hash), "spec",
                     meta->spec, "fingerprint", meta->fingerprint, "files", files);
}

char *manifest_text(const struct manifest *m)
{
    json_t *root = manifest_json(m);
    char *body = root != NULL ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    size_t length = body != NULL ? strlen(body) : 0;
    char *text = length > 2 ? malloc(length + MANIFEST_TAIL_BYTES) : NULL;
    char sum[33];

    if (text != NULL) {
        length -= 2; /* "\n}", which closes the object */
        memcpy(text, body, length);
        ckpt_hash_text(text, length, sum);
        (void)snprintf(text + length, MANIFEST_TAIL_BYTES + 1, TAIL_HEAD "%s" TAIL_END, sum);
    }
    free(body);
    json_decref(root);
    return text;
}

/* ---- reading -------------------------------------------------------------------------------- */

/* Takes values out of one object; the first wrong one is kept. */
struct taker {
    json_t *root;
    const char *wrong; /* its key; NULL = none */
};

static void take_wrong(struct taker *t, const char *key)
{
    if (t->wrong == NULL)
        t->wrong = key;
}

static uint64_t take_number(struct taker *t, const char *key)
{
    json_t *value = json_object_get(t->root, key);

    if (json_is_integer(value) && json_integer_value(value) >= 0)
        return (uint64_t)json_integer_value(value);
    take_wrong(t, key);
    return 0;
}

/* Into bytes, with its closing 0; no 0 inside. */
static void take_text(struct taker *t, const char *key, char *out, size_t bytes)
{
    json_t *value = json_object_get(t->root, key);
    const char *text = json_string_value(value);

    out[0] = '\0';
    if (text == NULL || json_string_length(value) >= bytes ||
        strlen(text) != json_string_length(value))
        take_wrong(t, key);
    else
        memcpy(out, text, strlen(text) + 1);
}

static bool parse_hex(const char *text, size_t digits, uint64_t *value)
{
    *value = 0;
    if (text == NULL || strlen(text) < digits)
        return false;
    for (size_t i = 0; i < digits; i++) {
        char c = text[i];
        bool digit = c >= '0' && c <= '9', letter = c >= 'a' && c <= 'f';

        if (!digit && !letter)
            return false;
        *value = *value << 4 | (uint64_t)(digit ? c - '0' : c - 'a' + 10);
    }
    return true;
}

static uint64_t take_hex(struct taker *t, const char *key)
{
    char text[17];
    uint64_t value;

    take_text(t, key, text, sizeof text);
    if (!parse_hex(text, 16, &value))
        take_wrong(t, key);
    return value;
}

static void take_bytes(struct taker *t, const char *key, uint8_t bytes[16])
{
    char text[33];
    uint64_t value;

    take_text(t, key, text, sizeof text);
    for (size_t i = 0; i < 16; i++) {
        if (strlen(text) != 32 || !parse_hex(text + 2 * i, 2, &value)) {
            take_wrong(t, key);
            return;
        }
        bytes[i] = (uint8_t)value;
    }
}

/* As many chunks as the file's size says: the array, which is in memory already, bounds what is
 * asked for. */
static void take_chunks(struct taker *t, struct manifest_file *file)
{
    json_t *chunks = json_object_get(t->root, "chunks");
    size_t count = json_array_size(chunks);

    file->chunk_bytes = take_number(t, "chunk_bytes");
    if (!json_is_array(chunks) || file->chunk_bytes == 0 ||
        count != file->bytes / file->chunk_bytes + (file->bytes % file->chunk_bytes != 0)) {
        take_wrong(t, "chunks");
        return;
    }
    file->chunks = calloc(count + 1, sizeof *file->chunks);
    if (file->chunks == NULL) {
        take_wrong(t, "chunks");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        json_t *one = json_array_get(chunks, i);

        if (json_string_length(one) != 16 ||
            !parse_hex(json_string_value(one), 16, &file->chunks[i]))
            take_wrong(t, "chunks");
    }
    file->chunk_count = (uint32_t)count;
}

/* A name stays inside its folder, and is not the manifest's. */
static bool good_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL &&
           strcmp(name, MANIFEST_NAME) != 0;
}

static const char *take_file(json_t *root, struct manifest *m)
{
    struct taker t = {root, NULL};
    struct manifest_file *file = &m->files[m->count++];
    uint64_t ignored;

    if (!json_is_object(root))
        return "files";
    take_text(&t, "name", file->name, sizeof file->name);
    take_text(&t, "xxh128", file->xxh128, sizeof file->xxh128);
    if (strlen(file->xxh128) != 32 || !parse_hex(file->xxh128, 32, &ignored))
        take_wrong(&t, "xxh128");
    file->bytes = take_number(&t, "bytes");
    take_chunks(&t, file);
    if (!good_name(file->name))
        take_wrong(&t, "name");
    for (uint32_t i = 0; i + 1 < m->count; i++)
        if (strcmp(m->files[i].name, file->name) == 0)
            take_wrong(&t, "name");
    return t.wrong;
}

/* NULL, or the key that is missing or has a wrong value. */
static const char *take_all(json_t *root, struct manifest *m)
{
    struct taker t = {root, NULL};
    json_t *files = json_object_get(root, "files"), *scale = json_object_get(root, "loss_scale");

    if (take_number(&t, "format") != FORMAT)
        return "format";
    m->meta.step = take_number(&t, "step");
    m->meta.generation = take_number(&t, "generation");
    take_text(&t, "job", m->meta.job, sizeof m->meta.job);
    take_bytes(&t, "job_uid", m->meta.job_uid);
    m->meta.epoch = take_number(&t, "epoch");
    m->meta.step_in_epoch = take_number(&t, "step_in_epoch");
    m->meta.shards = take_number(&t, "shards");
    m->meta.loss_scale = json_number_value(scale);
    if (!json_is_number(scale))
        take_wrong(&t, "loss_scale");
    m->meta.seed = take_hex(&t, "seed");
    m->meta.params_hash = take_hex(&t, "params_hash");
    take_text(&t, "spec", m->meta.spec, sizeof m->meta.spec);
    if (json_object_get(root, "fingerprint") != NULL) /* a key that came later */
        take_text(&t, "fingerprint", m->meta.fingerprint, sizeof m->meta.fingerprint);
    if (!json_is_array(files) || json_array_size(files) == 0 ||
        json_array_size(files) > CKPT_FILES_MAX)
        take_wrong(&t, "files");
    for (size_t i = 0; t.wrong == NULL && i < json_array_size(files); i++)
        t.wrong = take_file(json_array_get(files, i), m);
    return t.wrong;
}

/* The last bytes are the checksum's, in the one way they are written, and it is that of all
 * before. */
static enum ckpt_code check_sum(const char *text, size_t bytes, const char *path,
                                struct ckpt_error *error)
{
    char sum[33], tail[MANIFEST_TAIL_BYTES + 1];
    const char *told;

    if (bytes <= MANIFEST_TAIL_BYTES)
        return ckpt_fail(error, CKPT_FORMAT, "%s: truncated: %zu bytes", ckpt_tail(path), bytes);
    told = text + bytes - MANIFEST_TAIL_BYTES;
    ckpt_hash_text(text, bytes - MANIFEST_TAIL_BYTES, sum);
    (void)snprintf(tail, sizeof tail, TAIL_HEAD "%s" TAIL_END, sum);
    if (memcmp(told, tail, MANIFEST_TAIL_BYTES) == 0)
        return CKPT_OK;
    if (memcmp(told, TAIL_HEAD, sizeof TAIL_HEAD - 1) != 0 || memcmp(told + 49, TAIL_END, 4) != 0)
        return ckpt_fail(error, CKPT_FORMAT, "%s: its end is not that of a manifest: truncated or "
                                             "edited", ckpt_tail(path));
    return ckpt_fail(error, CKPT_FORMAT,
                     "%s: its checksum is not that of its content, which has %s", ckpt_tail(path),
                     sum);
}

enum ckpt_code manifest_parse(const char *text, size_t bytes, const char *path, struct manifest *m,
                              struct ckpt_error *error)
{
    enum ckpt_code code = check_sum(text, bytes, path, error);
    const char *wrong = NULL;
    json_error_t why;
    json_t *root;

    memset(m, 0, sizeof *m);
    if (code != CKPT_OK)
        return code;
    root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL)
        code = ckpt_fail(error, CKPT_FORMAT, "%s: %s", ckpt_tail(path), why.text);
    else
        wrong = json_is_object(root) ? take_all(root, m) : "format";
    if (wrong != NULL)
        code = ckpt_fail(error, CKPT_FORMAT, "%s: the key \"%s\" is missing or has a wrong value",
                         ckpt_tail(path), wrong);
    json_decref(root);
    return code;
}

void manifest_release(struct manifest *m)
{
    for (uint32_t i = 0; i < m->count; i++)
        free(m->files[i].chunks);
    memset(m, 0, sizeof *m);
}

const char *ckpt_json_version(void)
{
    return jansson_version_str();
}
