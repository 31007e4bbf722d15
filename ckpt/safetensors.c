/* Invariant of the parser: `at` never passes `end`; the first error is kept and ends everything. */
#include "ckpt/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALIGNMENT 4096u

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

/* ---- writing -------------------------------------------------------------------------------- */

static uint64_t tensor_bytes(const struct safetensors_tensor *t)
{
    uint64_t bytes = types[t->type].bytes;

    for (uint32_t i = 0; i < t->dims; i++)
        bytes *= t->shape[i];
    return bytes;
}

/* The format's order: wide types first, then names. */
static int before(const struct safetensors_tensor *a, const struct safetensors_tensor *b)
{
    if (a->type != b->type)
        return a->type > b->type ? -1 : 1;
    return strcmp(a->name, b->name);
}

static void sort_order(const struct safetensors_tensor *tensors, uint32_t count, uint32_t *order)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = i;

        for (; at > 0 && before(&tensors[i], &tensors[order[at - 1]]) < 0; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

static json_t *header_json(const struct safetensors_tensor *tensors, uint32_t count,
                           const uint32_t *order)
{
    json_t *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    uint64_t at = 0;

    for (uint32_t i = 0; i < count && root != NULL; i++) {
        const struct safetensors_tensor *t = &tensors[order[i]];
        uint64_t bytes = tensor_bytes(t);
        json_t *shape = json_array();

        for (uint32_t k = 0; k < t->dims; k++)
            json_array_append_new(shape, json_integer((json_int_t)t->shape[k]));
        json_object_set_new(root, t->name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", types[t->type].word, "shape",
                                      shape, "data_offsets", (json_int_t)at,
                                      (json_int_t)(at + bytes)));
        at += bytes;
    }
    return root;
}

enum ckpt_code safetensors_header(const struct safetensors_tensor *tensors, uint32_t count,
                                  char **header, size_t *header_bytes, uint32_t *order,
                                  struct ckpt_error *error)
{
    json_t *root;
    char *text;
    size_t length, padded;

    sort_order(tensors, count, order);
    root = header_json(tensors, count, order);
    text = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (text == NULL)
        return ckpt_fail(error, CKPT_MEMORY, "out of memory for a header");
    length = strlen(text);
    padded = (8 + length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    *header = malloc(padded);
    if (*header == NULL) {
        free(text);
        return ckpt_fail(error, CKPT_MEMORY, "out of memory for a header");
    }
    memset(*header, ' ', padded);
    for (int i = 0; i < 8; i++)
        (*header)[i] = (char)(uint8_t)((padded - 8) >> (8 * i));
    memcpy(*header + 8, text, length);
    *header_bytes = padded;
    free(text);
    return CKPT_OK;
}

/* ---- parsing -------------------------------------------------------------------------------- */

struct parser {
    const char *at, *end;
    struct ckpt_error *error;
    const char *path;
    bool broken;
};

static bool bad(struct parser *p, const char *what)
{
    if (!p->broken)
        (void)ckpt_fail(p->error, CKPT_FORMAT, "%s: header: %s", p->path, what);
    p->broken = true;
    return false;
}

static void skip_space(struct parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\n' || *p->at == '\t' || *p->at == '\r'))
        p->at++;
}

static bool take(struct parser *p, char c)
{
    skip_space(p);
    if (p->at < p->end && *p->at == c) {
        p->at++;
        return true;
    }
    return false;
}

static bool expect(struct parser *p, char c)
{
    char text[32];

    if (take(p, c))
        return true;
    (void)snprintf(text, sizeof text, "expected '%c'", c);
    return bad(p, text);
}

static int hex4(const char *s)
{
    int value = 0;

    for (int i = 0; i < 4; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* One escape after its backslash, into out; 0 = broken, else bytes written (at most 3). */
static size_t unescape(struct parser *p, char *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found;
    int code;

    if (p->at >= p->end)
        return 0;
    found = memchr(from, *p->at, sizeof from - 1);
    if (found != NULL) {
        p->at++;
        *out = to[found - from];
        return 1;
    }
    if (*p->at != 'u' || p->end - p->at < 5)
        return 0;
    code = hex4(p->at + 1);
    p->at += 5;
    if (code <= 0 || (code >= 0xd800 && code < 0xe000))
        return 0; /* pairs of surrogates do not occur in tensor names */
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 63));
        return 2;
    }
    out[0] = (char)(0xe0 | code >> 12);
    out[1] = (char)(0x80 | (code >> 6 & 63));
    out[2] = (char)(0x80 | (code & 63));
    return 3;
}

static bool parse_string(struct parser *p, char *out, size_t bytes)
{
    size_t length = 0;

    if (!expect(p, '"'))
        return false;
    while (p->at < p->end && *p->at != '"') {
        char piece[4];
        size_t count = 1;

        if ((unsigned char)*p->at < 0x20)
            return bad(p, "a control character in a string");
        if (*p->at == '\\') {
            p->at++;
            count = unescape(p, piece);
            if (count == 0)
                return bad(p, "a broken escape in a string");
        } else {
            piece[0] = *p->at++;
        }
        if (length + count >= bytes)
            return bad(p, "a string that is too long");
        memcpy(out + length, piece, count);
        length += count;
    }
    out[length] = '\0';
    return expect(p, '"');
}

static bool parse_number(struct parser *p, uint64_t *value)
{
    int digits = 0;

    skip_space(p);
    *value = 0;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9') {
        uint64_t digit = (uint64_t)(*p->at - '0');

        if (*value > (UINT64_MAX - digit) / 10)
            return bad(p, "a number that is too large");
        *value = *value * 10 + digit;
        p->at++;
        digits++;
    }
    if (digits == 0 || (p->at < p->end && (*p->at == '.' || *p->at == 'e' || *p->at == 'E')))
        return bad(p, "expected a whole number");
    return true;
}

static bool parse_type(struct parser *p, enum safetensors_type *type)
{
    char word[16], text[64];

    if (!parse_string(p, word, sizeof word))
        return false;
    for (int i = 0; i < SAFETENSORS_TYPE_COUNT; i++)
        if (strcmp(types[i].word, word) == 0) {
            *type = (enum safetensors_type)i;
            return true;
        }
    (void)snprintf(text, sizeof text, "dtype %s is not known here", word);
    return bad(p, text);
}

static bool parse_shape(struct parser *p, struct safetensors_tensor *t)
{
    t->dims = 0;
    if (!expect(p, '['))
        return false;
    if (take(p, ']'))
        return true;
    do {
        if (t->dims == SAFETENSORS_DIMS_MAX)
            return bad(p, "more than 8 dimensions");
        if (!parse_number(p, &t->shape[t->dims++]))
            return false;
    } while (take(p, ','));
    return expect(p, ']');
}

/* {"dtype":..,"shape":..,"data_offsets":[a,b]}, each key once, in any order. */
static bool parse_tensor(struct parser *p, struct safetensors_tensor *t)
{
    unsigned seen = 0;

    if (!expect(p, '{'))
        return false;
    do {
        char key[32];
        unsigned bit;

        if (!parse_string(p, key, sizeof key) || !expect(p, ':'))
            return false;
        bit = strcmp(key, "dtype") == 0 ? 1u : strcmp(key, "shape") == 0 ? 2u
              : strcmp(key, "data_offsets") == 0 ? 4u : 0u;
        if (bit == 0 || (seen & bit) != 0)
            return bad(p, bit == 0 ? "an unknown key of a tensor" : "a key of a tensor twice");
        seen |= bit;
        if (bit == 1 && !parse_type(p, &t->type))
            return false;
        if (bit == 2 && !parse_shape(p, t))
            return false;
        if (bit == 4 && (!expect(p, '[') || !parse_number(p, &t->begin) || !expect(p, ',') ||
                         !parse_number(p, &t->end) || !expect(p, ']')))
            return false;
    } while (take(p, ','));
    return expect(p, '}') && (seen == 7 || bad(p, "a tensor lacks dtype, shape or data_offsets"));
}

/* {"key":"value",..} */
static bool parse_metadata(struct parser *p)
{
    char key[SAFETENSORS_NAME_BYTES], value[4096];

    if (!expect(p, '{'))
        return false;
    if (take(p, '}'))
        return true;
    do {
        if (!parse_string(p, key, sizeof key) || !expect(p, ':') ||
            !parse_string(p, value, sizeof value))
            return false;
    } while (take(p, ','));
    return expect(p, '}');
}

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

static bool parse_all(struct parser *p, struct safetensors *file)
{
    bool metadata = false;

    if (!expect(p, '{'))
        return false;
    if (take(p, '}'))
        return true;
    do {
        struct safetensors_tensor *t = &file->tensors[file->count];

        if (file->count == SAFETENSORS_TENSORS_MAX)
            return bad(p, "too many tensors");
        if (!parse_string(p, t->name, sizeof t->name) || !expect(p, ':'))
            return false;
        if (strcmp(t->name, "__metadata__") == 0) {
            if (metadata)
                return bad(p, "__metadata__ twice");
            metadata = true;
            if (!parse_metadata(p))
                return false;
            continue;
        }
        if (!parse_tensor(p, t))
            return false;
        file->count++;
    } while (take(p, ','));
    return expect(p, '}');
}

/* Names once; sizes as the shapes say; from 0 without holes or overlap to the end of the file. */
static bool check_layout(struct parser *p, struct safetensors *file)
{
    uint64_t at = 0;

    qsort(file->tensors, file->count, sizeof *file->tensors, by_name);
    for (uint32_t i = 1; i < file->count; i++)
        if (strcmp(file->tensors[i - 1].name, file->tensors[i].name) == 0)
            return bad(p, "a tensor name twice");
    qsort(file->tensors, file->count, sizeof *file->tensors, by_offset);
    for (uint32_t i = 0; i < file->count; i++) {
        const struct safetensors_tensor *t = &file->tensors[i];
        uint64_t bytes = types[t->type].bytes;

        if (t->begin != at || t->end < t->begin)
            return bad(p, "a hole or an overlap between tensors");
        for (uint32_t k = 0; k < t->dims; k++)
            if (t->shape[k] != 0 && bytes > UINT64_MAX / t->shape[k])
                return bad(p, "a shape whose size overflows");
            else
                bytes *= t->shape[k];
        if (t->end - t->begin != bytes)
            return bad(p, "a tensor whose size is not what its shape says");
        at = t->end;
    }
    if (file->data_at + at != file->file_bytes)
        return bad(p, at + file->data_at > file->file_bytes ? "the file is truncated"
                                                           : "bytes after the last tensor");
    return true;
}

enum ckpt_code safetensors_parse(const char *bytes, uint64_t length, uint64_t file_bytes,
                                 struct safetensors *file, struct ckpt_error *error)
{
    struct parser p = {bytes, bytes + length, error, file->path, false};
    bool fine;

    file->count = 0;
    file->data_at = 8 + length;
    file->file_bytes = file_bytes;
    file->tensors = calloc(SAFETENSORS_TENSORS_MAX + 1, sizeof *file->tensors);
    if (file->tensors == NULL)
        return ckpt_fail(error, CKPT_MEMORY, "%s: out of memory", file->path);
    fine = parse_all(&p, file);
    skip_space(&p);
    if (fine && p.at != p.end)
        fine = bad(&p, "bytes after its end");
    if (fine)
        fine = check_layout(&p, file);
    return fine ? CKPT_OK : error->code;
}

/* ---- files ---------------------------------------------------------------------------------- */

static enum ckpt_code read_exactly(const struct safetensors *file, void *to, uint64_t bytes,
                                   uint64_t at, struct ckpt_error *error)
{
    char *out = to;

    while (bytes > 0) {
        ssize_t got = pread(file->fd, out, bytes > 1u << 30 ? 1u << 30 : (size_t)bytes, (off_t)at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return ckpt_fail(error, got == 0 ? CKPT_FORMAT : CKPT_SYSTEM, "%s: reading: %s",
                             file->path, got == 0 ? "the file is truncated" : strerror(errno));
        out += got;
        at += (uint64_t)got;
        bytes -= (uint64_t)got;
    }
    return CKPT_OK;
}

static enum ckpt_code read_header(struct safetensors *file, struct ckpt_error *error)
{
    struct stat info;
    uint8_t head[8];
    uint64_t length = 0;
    enum ckpt_code code;
    char *bytes;

    if (fstat(file->fd, &info) != 0)
        return ckpt_fail(error, CKPT_SYSTEM, "%s: %s", file->path, strerror(errno));
    if (info.st_size < 8)
        return ckpt_fail(error, CKPT_FORMAT, "%s: shorter than 8 bytes", file->path);
    code = read_exactly(file, head, sizeof head, 0, error);
    if (code != CKPT_OK)
        return code;
    for (int i = 0; i < 8; i++)
        length |= (uint64_t)head[i] << (8 * i);
    if (length > SAFETENSORS_HEADER_BYTES)
        return ckpt_fail(error, CKPT_LIMIT, "%s: header of %llu bytes, at most %u are read",
                         file->path, (unsigned long long)length, SAFETENSORS_HEADER_BYTES);
    if (8 + length > (uint64_t)info.st_size)
        return ckpt_fail(error, CKPT_FORMAT, "%s: the header is longer than the file", file->path);
    bytes = malloc(length > 0 ? (size_t)length : 1);
    if (bytes == NULL)
        return ckpt_fail(error, CKPT_MEMORY, "%s: out of memory", file->path);
    code = read_exactly(file, bytes, length, 8, error);
    if (code == CKPT_OK)
        code = safetensors_parse(bytes, length, (uint64_t)info.st_size, file, error);
    free(bytes);
    return code;
}

enum ckpt_code safetensors_open(const char *path, struct safetensors *file,
                                struct ckpt_error *error)
{
    enum ckpt_code code;

    memset(file, 0, sizeof *file);
    (void)snprintf(file->path, sizeof file->path, "%s", path);
    file->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (file->fd < 0)
        return ckpt_fail(error, CKPT_SYSTEM, "%s: %s", path, strerror(errno));
    code = read_header(file, error);
    if (code != CKPT_OK)
        safetensors_close(file);
    return code;
}

void safetensors_close(struct safetensors *file)
{
    if (file->fd > 0)
        close(file->fd);
    free(file->tensors);
    memset(file, 0, sizeof *file);
    file->fd = -1;
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    for (uint32_t i = 0; i < file->count; i++)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    return NULL;
}

enum ckpt_code safetensors_read(const struct safetensors *file, const char *name,
                                enum safetensors_type type, void *to, uint64_t bytes,
                                struct ckpt_error *error)
{
    const struct safetensors_tensor *t = safetensors_find(file, name);

    if (t == NULL)
        return ckpt_fail(error, CKPT_MISMATCH, "%s: tensor %s is missing", file->path, name);
    if (t->type != type || t->end - t->begin != bytes)
        return ckpt_fail(error, CKPT_MISMATCH,
                         "%s: tensor %s is %s of %llu bytes, expected %s of %llu", file->path, name,
                         types[t->type].word, (unsigned long long)(t->end - t->begin),
                         types[type].word, (unsigned long long)bytes);
    return read_exactly(file, to, bytes, file->data_at + t->begin, error);
}
