/* The header of a safetensors file: made (by jansson) and parsed (by scan.h, since it may come from
 * anybody).
 *
 * The checks and their order are those of the format's own library (safetensors/src/tensor.rs):
 * UTF-8, syntax, then by offset: no hole and no overlap, a size that does not overflow, a size as
 * the shape says, and the end of the last one the end of the file. Beyond it, names and metadata
 * keys that come twice are refused. */
#include "ckpt/safetensors.h"

#include "ckpt/scan.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT     4096u
#define METADATA      "__metadata__"
#define METADATA_MAX  256
#define METADATA_TEXT 65536

static const struct {
    const char *word;
    uint64_t bytes;
} types[] = {
#define SAFETENSORS_TYPE_ROW(name, bytes) {#name, bytes},
    SAFETENSORS_TYPES(SAFETENSORS_TYPE_ROW)
#undef SAFETENSORS_TYPE_ROW
};

uint64_t safetensors_type_bytes(enum safetensors_type type)
{
    return types[type].bytes;
}

const char *safetensors_type_word(enum safetensors_type type)
{
    return types[type].word;
}

bool safetensors_bytes(const struct safetensors_tensor *t, uint64_t *bytes)
{
    *bytes = types[t->type].bytes;
    for (uint32_t i = 0; i < t->dims; i++) {
        if (t->shape[i] != 0 && *bytes > UINT64_MAX / t->shape[i])
            return false;
        *bytes *= t->shape[i];
    }
    return true;
}

/* ---- writing -------------------------------------------------------------------------------- */

/* The format's order: types descending, then names. */
static int file_order(const void *a, const void *b, void *argument)
{
    const struct safetensors_tensor *tensors = argument;
    const struct safetensors_tensor *x = &tensors[*(const uint32_t *)a];
    const struct safetensors_tensor *y = &tensors[*(const uint32_t *)b];

    if (x->type != y->type)
        return x->type > y->type ? -1 : 1;
    return strncmp(x->name, y->name, sizeof x->name); /* not checked yet: perhaps without an end */
}

/* What the format or the reader would refuse is not written. */
static const char *refusal(const struct safetensors_tensor *t, json_t *root)
{
    uint64_t bytes;

    if (memchr(t->name, '\0', sizeof t->name) == NULL)
        return "a name that is too long";
    if (!scan_utf8(t->name, strlen(t->name)))
        return "a name that is not UTF-8";
    if (json_object_get(root, t->name) != NULL)
        return "a name that is there already";
    if (t->type >= SAFETENSORS_TYPE_COUNT || t->dims > SAFETENSORS_DIMS_MAX)
        return "a type or a number of dimensions that does not exist";
    for (uint32_t i = 0; i < t->dims; i++)
        if (t->shape[i] > INT64_MAX)
            return "a size that overflows";
    return safetensors_bytes(t, &bytes) && bytes <= INT64_MAX ? NULL : "a size that overflows";
}

static json_t *tensor_json(const struct safetensors_tensor *t, uint64_t begin, uint64_t end)
{
    json_t *shape = json_array();

    for (uint32_t k = 0; k < t->dims; k++)
        (void)json_array_append_new(shape, json_integer((json_int_t)t->shape[k]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", types[t->type].word, "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

/* NULL with *error set. */
static json_t *header_json(const struct safetensors_tensor *tensors, uint32_t count,
                           const uint32_t *order, struct ckpt_error *error)
{
    json_t *root = json_pack("{s:{s:s}}", METADATA, "format", "pt");
    uint64_t at = 0, bytes = 0;

    for (uint32_t i = 0; i < count && root != NULL; i++) {
        const struct safetensors_tensor *t = &tensors[order[i]];
        const char *why = refusal(t, root);

        if (why != NULL) {
            (void)ckpt_fail(error, CKPT_FORMAT, "tensor %.*s: %s", SAFETENSORS_NAME_BYTES - 1,
                            t->name, why);
            goto failed;
        }
        (void)safetensors_bytes(t, &bytes);
        if (bytes > INT64_MAX - at ||
            json_object_set_new(root, t->name, tensor_json(t, at, at + bytes)) != 0)
            break;
        at += bytes;
    }
    if (root != NULL && json_object_size(root) == (size_t)count + 1)
        return root;
    (void)ckpt_fail(error, CKPT_MEMORY, "out of memory for a header");
failed:
    json_decref(root);
    return NULL;
}

/* The text, padded, behind its length. */
static enum ckpt_code frame(const char *text, char **header, size_t *header_bytes,
                            struct ckpt_error *error)
{
    size_t length = strlen(text), padded = (8 + length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;

    if (padded - 8 > SAFETENSORS_HEADER_BYTES)
        return ckpt_fail(error, CKPT_LIMIT, "a header of %zu bytes, at most %u are read",
                         padded - 8, SAFETENSORS_HEADER_BYTES);
    *header = malloc(padded);
    if (*header == NULL)
        return ckpt_fail(error, CKPT_MEMORY, "out of memory for a header");
    memset(*header, ' ', padded);
    for (int i = 0; i < 8; i++)
        (*header)[i] = (char)(uint8_t)((padded - 8) >> (8 * i));
    memcpy(*header + 8, text, length);
    *header_bytes = padded;
    return CKPT_OK;
}

enum ckpt_code safetensors_header(const struct safetensors_tensor *tensors, uint32_t count,
                                  char **header, size_t *header_bytes, uint32_t *order,
                                  struct ckpt_error *error)
{
    enum ckpt_code code;
    json_t *root;
    char *text;

    *header = NULL;
    if (count > SAFETENSORS_TENSORS_MAX)
        return ckpt_fail(error, CKPT_LIMIT, "%u tensors, at most %u are read", count,
                         SAFETENSORS_TENSORS_MAX);
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    qsort_r(order, count, sizeof *order, file_order, (void *)(uintptr_t)tensors);
    root = header_json(tensors, count, order, error);
    if (root == NULL)
        return error->code;
    text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    code = text != NULL ? frame(text, header, header_bytes, error)
                        : ckpt_fail(error, CKPT_MEMORY, "out of memory for a header");
    free(text);
    return code;
}

/* ---- parsing -------------------------------------------------------------------------------- */

static bool parse_type(struct scan *s, enum safetensors_type *type)
{
    char word[16], text[64];

    if (!scan_string(s, word, sizeof word))
        return false;
    for (int i = 0; i < SAFETENSORS_TYPE_COUNT; i++)
        if (strcmp(types[i].word, word) == 0) {
            *type = (enum safetensors_type)i;
            return true;
        }
    (void)snprintf(text, sizeof text, "dtype %s is not known here", word);
    return scan_bad(s, text);
}

static bool parse_shape(struct scan *s, struct safetensors_tensor *t)
{
    t->dims = 0;
    if (!scan_expect(s, '['))
        return false;
    if (scan_take(s, ']'))
        return true;
    do {
        if (t->dims == SAFETENSORS_DIMS_MAX)
            return scan_bad(s, "more than 8 dimensions");
        if (!scan_number(s, &t->shape[t->dims++]))
            return false;
    } while (scan_take(s, ','));
    return scan_expect(s, ']');
}

static bool parse_offsets(struct scan *s, struct safetensors_tensor *t)
{
    return scan_expect(s, '[') && scan_number(s, &t->begin) && scan_expect(s, ',') &&
           scan_number(s, &t->end) && scan_expect(s, ']');
}

/* {"dtype":..,"shape":..,"data_offsets":[a,b]}, each key once, in any order. */
static bool parse_tensor(struct scan *s, struct safetensors_tensor *t)
{
    static const char *const keys[3] = {"dtype", "shape", "data_offsets"};
    unsigned seen = 0;

    if (!scan_expect(s, '{'))
        return false;
    do {
        char key[32];
        unsigned which = 0;

        if (!scan_string(s, key, sizeof key) || !scan_expect(s, ':'))
            return false;
        while (which < 3 && strcmp(key, keys[which]) != 0)
            which++;
        if (which == 3)
            return scan_bad(s, "an unknown key of a tensor");
        if ((seen & 1u << which) != 0)
            return scan_bad(s, "a key of a tensor twice");
        seen |= 1u << which;
        if (which == 0 ? !parse_type(s, &t->type)
                       : which == 1 ? !parse_shape(s, t) : !parse_offsets(s, t))
            return false;
    } while (scan_take(s, ','));
    return scan_expect(s, '}') &&
           (seen == 7 || scan_bad(s, "a tensor lacks dtype, shape or data_offsets"));
}

/* {"key":"value",..}: read past, but each key once. Few and short keys, so looking back is
 * enough. */
static bool parse_metadata(struct scan *s)
{
    char *text = malloc(METADATA_TEXT);
    char (*keys)[SAFETENSORS_NAME_BYTES] = calloc(METADATA_MAX, sizeof *keys);
    bool fine = text != NULL && keys != NULL && scan_expect(s, '{');
    uint32_t count = 0;

    if (text == NULL || keys == NULL)
        (void)scan_bad(s, "out of memory");
    if (!fine || scan_take(s, '}'))
        goto done;
    do {
        fine = count < METADATA_MAX || scan_bad(s, "too much in " METADATA);
        fine = fine && scan_string(s, keys[count], sizeof *keys) && scan_expect(s, ':') &&
               scan_string(s, text, METADATA_TEXT);
        for (uint32_t i = 0; fine && i < count; i++)
            fine = strcmp(keys[i], keys[count]) != 0 || scan_bad(s, "a key of " METADATA " twice");
        count++;
    } while (fine && scan_take(s, ','));
    fine = fine && scan_expect(s, '}');
done:
    free(text);
    free(keys);
    return fine;
}

/* Room for one more; what is asked for stays in proportion to the header that was read. */
static struct safetensors_tensor *next_tensor(struct scan *s, struct safetensors *file,
                                              uint32_t *room)
{
    if (file->count == SAFETENSORS_TENSORS_MAX) {
        (void)scan_bad(s, "too many tensors");
        return NULL;
    }
    if (file->count == *room) {
        uint32_t more = *room * 2 + 16;
        struct safetensors_tensor *tensors = realloc(file->tensors, more * sizeof *tensors);

        if (tensors == NULL) {
            (void)scan_bad(s, "out of memory");
            return NULL;
        }
        file->tensors = tensors;
        *room = more;
    }
    memset(&file->tensors[file->count], 0, sizeof *file->tensors);
    return &file->tensors[file->count];
}

static bool parse_all(struct scan *s, struct safetensors *file)
{
    bool metadata = false;
    uint32_t room = 0;

    if (!scan_expect(s, '{'))
        return false;
    if (scan_take(s, '}'))
        return true;
    do {
        struct safetensors_tensor *t = next_tensor(s, file, &room);

        if (t == NULL || !scan_string(s, t->name, sizeof t->name) || !scan_expect(s, ':'))
            return false;
        if (strcmp(t->name, METADATA) != 0) {
            if (!parse_tensor(s, t))
                return false;
            file->count++;
        } else if (metadata) {
            return scan_bad(s, METADATA " twice");
        } else {
            metadata = true;
            if (!parse_metadata(s))
                return false;
        }
    } while (scan_take(s, ','));
    return scan_expect(s, '}');
}

/* ---- checking ------------------------------------------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct safetensors_tensor *)a)->name,
                  ((const struct safetensors_tensor *)b)->name);
}

static bool tensor_bad(struct scan *s, const struct safetensors_tensor *t, const char *what)
{
    char text[400];

    (void)snprintf(text, sizeof text, "tensor %.80s: %s", t->name, what);
    return scan_bad(s, text);
}

static bool check_layout(struct scan *s, struct safetensors *file)
{
    uint64_t at = 0, bytes, rest = file->file_bytes - file->data_at;

    if (file->count > 0)
        qsort(file->tensors, file->count, sizeof *file->tensors, by_name);
    for (uint32_t i = 1; i < file->count; i++)
        if (by_name(&file->tensors[i - 1], &file->tensors[i]) == 0)
            return tensor_bad(s, &file->tensors[i], "its name comes twice");
    if (file->count > 0)
        qsort(file->tensors, file->count, sizeof *file->tensors, by_offset);
    for (uint32_t i = 0; i < file->count; i++) {
        const struct safetensors_tensor *t = &file->tensors[i];

        if (t->begin != at || t->end < t->begin)
            return tensor_bad(s, t, "a hole or an overlap before it");
        if (!safetensors_bytes(t, &bytes))
            return tensor_bad(s, t, "a shape whose size overflows");
        if (t->end - t->begin != bytes)
            return tensor_bad(s, t, "its size is not what its shape says");
        at = t->end;
    }
    if (at == rest)
        return true;
    return scan_bad(s, at > rest ? "the file is truncated" : "bytes after the last tensor");
}

enum ckpt_code safetensors_parse(const char *bytes, uint64_t length, uint64_t file_bytes,
                                 struct safetensors *file, struct ckpt_error *error)
{
    struct scan s = {bytes, bytes + length, file->path, error, false};
    bool fine;

    file->count = 0;
    file->data_at = 8 + length;
    file->file_bytes = file_bytes;
    if (file_bytes < 8 || length > file_bytes - 8)
        fine = scan_bad(&s, "longer than the file");
    else if (!scan_utf8(bytes, length))
        fine = scan_bad(&s, "not UTF-8");
    else
        fine = parse_all(&s, file);
    scan_space(&s);
    if (fine && s.at != s.end)
        fine = scan_bad(&s, "bytes after its end");
    fine = fine && check_layout(&s, file);
    return fine ? CKPT_OK : error->code;
}
