/* The checksum is XXH3-64 of the object's own canonical form (jansson: compact, keys sorted) without the key
 * "checksum", so that it does not depend on white space, and every bit that means something is covered. */
#include "ckpt/manifest.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define FORMAT 1

static void hex(const uint8_t *bytes, size_t count, char *text)
{
    for (size_t i = 0; i < count; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static bool unhex(const char *text, uint8_t *bytes, size_t count)
{
    if (strlen(text) != 2 * count || strspn(text, "0123456789abcdef") != 2 * count)
        return false;
    for (size_t i = 0; i < count; i++) {
        unsigned value = 0;

        if (sscanf(text + 2 * i, "%2x", &value) != 1)
            return false;
        bytes[i] = (uint8_t)value;
    }
    return true;
}

/* Numbers of 64 bits do not fit JSON's, so they are texts of hexadecimal digits. */
static json_t *wide(uint64_t value)
{
    char text[17];

    (void)snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
    return json_string(text);
}

static bool checksum_of(json_t *root, char text[17])
{
    char *canonical = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));

    if (canonical == NULL)
        return false;
    (void)snprintf(text, 17, "%016llx",
                   (unsigned long long)XXH3_64bits(canonical, strlen(canonical)));
    free(canonical);
    return true;
}

char *manifest_text(const struct manifest *m)
{
    json_t *files = json_array(), *root;
    char uid[33], sum[17], *text = NULL;

    hex(m->meta.job_uid, sizeof m->meta.job_uid, uid);
    for (uint32_t i = 0; i < m->count; i++)
        json_array_append_new(files, json_pack("{s:s, s:I, s:s}", "name", m->files[i].name, "bytes",
                                               (json_int_t)m->files[i].bytes, "xxh128",
                                               m->files[i].xxh128));
    root = json_pack("{s:i, s:I, s:s, s:s, s:I, s:I, s:I, s:f, s:s, s:o, s:o, s:o, s:o}", "format",
                     FORMAT, "step", (json_int_t)m->meta.step, "job", m->meta.job, "job_uid", uid,
                     "epoch", (json_int_t)m->meta.epoch, "step_in_epoch",
                     (json_int_t)m->meta.step_in_epoch, "shards", (json_int_t)m->meta.shards,
                     "loss_scale", m->meta.loss_scale, "spec", m->meta.spec, "generation",
                     wide(m->meta.generation), "seed", wide(m->meta.seed), "params_hash",
                     wide(m->meta.params_hash), "files", files);
    if (root != NULL && checksum_of(root, sum)) {
        json_object_set_new(root, "checksum", json_string(sum));
        text = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    }
    json_decref(root);
    return text;
}

/* ---- reading -------------------------------------------------------------------------------- */

struct taker {
    json_t *root;
    bool broken;
};

static uint64_t take_number(struct taker *t, const char *key)
{
    json_t *value = json_object_get(t->root, key);

    if (!json_is_integer(value) || json_integer_value(value) < 0)
        t->broken = true;
    return t->broken ? 0 : (uint64_t)json_integer_value(value);
}

static const char *take_text(struct taker *t, const char *key, size_t bytes)
{
    json_t *value = json_object_get(t->root, key);

    if (!json_is_string(value) || json_string_length(value) >= bytes ||
        strlen(json_string_value(value)) != json_string_length(value))
        t->broken = true;
    return t->broken ? "" : json_string_value(value);
}

static uint64_t take_wide(struct taker *t, const char *key)
{
    uint8_t bytes[8] = {0};
    uint64_t value = 0;

    if (!unhex(take_text(t, key, 17), bytes, sizeof bytes))
        t->broken = true;
    for (int i = 0; i < 8; i++)
        value = value << 8 | bytes[i];
    return value;
}

/* A name stays inside its folder. */
static bool good_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL;
}

static bool take_files(json_t *files, struct manifest *m)
{
    size_t count = json_is_array(files) ? json_array_size(files) : 0;

    if (count == 0 || count > CKPT_FILES_MAX)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct taker t = {json_array_get(files, i), false};
        struct manifest_file *file = &m->files[i];

        if (!json_is_object(t.root))
            return false;
        (void)snprintf(file->name, sizeof file->name, "%s", take_text(&t, "name", sizeof file->name));
        (void)snprintf(file->xxh128, sizeof file->xxh128, "%s", take_text(&t, "xxh128", 33));
        file->bytes = take_number(&t, "bytes");
        if (t.broken || !good_name(file->name))
            return false;
    }
    m->count = (uint32_t)count;
    return true;
}

static bool take_all(json_t *root, struct manifest *m)
{
    struct taker t = {root, false};

    if (take_number(&t, "format") != FORMAT)
        return false;
    m->meta.step = take_number(&t, "step");
    m->meta.epoch = take_number(&t, "epoch");
    m->meta.step_in_epoch = take_number(&t, "step_in_epoch");
    m->meta.shards = take_number(&t, "shards");
    m->meta.loss_scale = json_number_value(json_object_get(root, "loss_scale"));
    m->meta.generation = take_wide(&t, "generation");
    m->meta.seed = take_wide(&t, "seed");
    m->meta.params_hash = take_wide(&t, "params_hash");
    (void)snprintf(m->meta.job, sizeof m->meta.job, "%s", take_text(&t, "job", sizeof m->meta.job));
    (void)snprintf(m->meta.spec, sizeof m->meta.spec, "%s",
                   take_text(&t, "spec", sizeof m->meta.spec));
    if (!unhex(take_text(&t, "job_uid", 33), m->meta.job_uid, sizeof m->meta.job_uid))
        return false;
    return !t.broken && take_files(json_object_get(root, "files"), m);
}

enum ckpt_code manifest_parse(const char *text, size_t bytes, const char *path, struct manifest *m,
                              struct ckpt_error *error)
{
    json_error_t why;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
    char told[17] = "", sum[17] = "";
    enum ckpt_code code = CKPT_OK;

    memset(m, 0, sizeof *m);
    if (!json_is_object(root)) {
        code = ckpt_fail(error, CKPT_FORMAT, "%s: %s", path, root != NULL ? "not an object" : why.text);
    } else {
        json_t *checksum = json_object_get(root, "checksum");

        (void)snprintf(told, sizeof told, "%s", json_is_string(checksum) ? json_string_value(checksum)
                                                                        : "");
        (void)json_object_del(root, "checksum");
        if (!checksum_of(root, sum) || strcmp(sum, told) != 0)
            code = ckpt_fail(error, CKPT_FORMAT, "%s: checksum %s, but its content has %s", path,
                             told[0] != '\0' ? told : "missing", sum);
        else if (!take_all(root, m))
            code = ckpt_fail(error, CKPT_FORMAT, "%s: a key is missing or has a wrong value", path);
    }
    json_decref(root);
    return code;
}
