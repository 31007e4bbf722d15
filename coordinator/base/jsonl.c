/* Invariants
 *   1. Between begin and end, memory[0..length) is a JSON object without its closing brace, and
 *      there is room for TAIL more; without memory the line is cut and empty.
 *   2. A field is whole or absent; after the first that was cut nothing more is taken. */
#include "base/jsonl.h"

#include "base/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAIL 32 /* ,"cut":true} and a line feed and NUL */

void jsonl_release(struct jsonl *line)
{
    free(line->memory);
    memset(line, 0, sizeof *line);
}

static bool room(struct jsonl *line, size_t bytes)
{
    size_t need = line->length + bytes + TAIL, capacity = line->capacity ? line->capacity : 512;
    char *memory;

    if (need > JSONL_MAX_BYTES)
        return false;
    if (need <= line->capacity)
        return true;
    while (capacity < need)
        capacity *= 2;
    memory = realloc(line->memory, capacity);
    if (memory == NULL)
        return false;
    line->memory = memory;
    line->capacity = capacity;
    return true;
}

void jsonl_begin(struct jsonl *line)
{
    line->length = 0;
    line->cut = !room(line, 1);
    if (!line->cut)
        line->memory[line->length++] = '{';
}

static void put(struct jsonl *line, const char *bytes, size_t count)
{
    if (line->cut || !room(line, count)) {
        line->cut = true;
        return;
    }
    memcpy(line->memory + line->length, bytes, count);
    line->length += count;
}

/* Comma and key; false when nothing more is taken. */
static bool key(struct jsonl *line, const char *name)
{
    if (line->cut)
        return false;
    if (line->length > 1)
        put(line, ",", 1);
    put(line, "\"", 1);
    put(line, name, strlen(name));
    put(line, "\":", 2);
    return !line->cut;
}

__attribute__((format(printf, 3, 4)))
static void put_field(struct jsonl *line, const char *name, const char *format, ...)
{
    size_t before = line->length;
    char text[64];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (key(line, name))
        put(line, text, (size_t)length);
    if (line->cut)
        line->length = before;
}

/* One character of `length` bytes; 0 = a byte that is not UTF-8. */
static void put_character(struct jsonl *line, const char *s, size_t length)
{
    unsigned char c = (unsigned char)*s;
    char escaped[8];
    int n;

    if (length == 0) {
        put(line, "?", 1);
    } else if (c == '"' || c == '\\' || c < 0x20) {
        n = c < 0x20 ? snprintf(escaped, sizeof escaped, "\\u%04x", c)
                     : snprintf(escaped, sizeof escaped, "\\%c", c);
        put(line, escaped, (size_t)n);
    } else {
        put(line, s, length);
    }
}

void jsonl_text(struct jsonl *line, const char *name, const char *value)
{
    size_t before = line->length;

    if (!key(line, name))
        return;
    put(line, "\"", 1);
    while (*value != '\0') {
        size_t length = utf8_length(value);

        put_character(line, value, length);
        value += length > 0 ? length : 1;
    }
    put(line, "\"", 1);
    if (line->cut)
        line->length = before;
}

void jsonl_uint(struct jsonl *line, const char *name, uint64_t value)
{
    put_field(line, name, "%llu", (unsigned long long)value);
}

void jsonl_int(struct jsonl *line, const char *name, int64_t value)
{
    put_field(line, name, "%lld", (long long)value);
}

void jsonl_real(struct jsonl *line, const char *name, double value)
{
    if (isfinite(value))
        put_field(line, name, "%.9g", value);
    else
        put_field(line, name, "null");
}

void jsonl_bool(struct jsonl *line, const char *name, bool value)
{
    put_field(line, name, value ? "true" : "false");
}

void jsonl_hex(struct jsonl *line, const char *name, uint64_t value)
{
    put_field(line, name, "\"%016llx\"", (unsigned long long)value);
}

void jsonl_uints(struct jsonl *line, const char *name, const uint64_t *values, size_t count)
{
    size_t before = line->length;

    if (!key(line, name))
        return;
    put(line, "[", 1);
    for (size_t i = 0; i < count; i++) {
        char text[24];
        int n = snprintf(text, sizeof text, "%s%llu", i > 0 ? "," : "",
                         (unsigned long long)values[i]);

        put(line, text, (size_t)n);
    }
    put(line, "]", 1);
    if (line->cut)
        line->length = before;
}

const char *jsonl_end(struct jsonl *line, size_t *length)
{
    const char *tail = !line->cut         ? "}\n"
                       : line->length > 1 ? ",\"cut\":true}\n"
                                          : "\"cut\":true}\n";

    *length = 0;
    if (line->memory == NULL)
        return "";
    memcpy(line->memory + line->length, tail, strlen(tail) + 1);
    line->length += strlen(tail);
    *length = line->length;
    return line->memory;
}
