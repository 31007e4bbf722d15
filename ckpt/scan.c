/* Invariant: `at` never passes `end`; the first error is kept and ends everything. */
#include "ckpt/scan.h"

#include <stdio.h>
#include <string.h>

bool scan_bad(struct scan *s, const char *what)
{
    if (!s->broken)
        (void)ckpt_fail(s->error, CKPT_FORMAT, "%s: header: %s", ckpt_tail(s->path), what);
    s->broken = true;
    return false;
}

void scan_space(struct scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
        s->at++;
}

bool scan_take(struct scan *s, char c)
{
    scan_space(s);
    if (s->at >= s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

bool scan_expect(struct scan *s, char c)
{
    char text[32];

    if (scan_take(s, c))
        return true;
    (void)snprintf(text, sizeof text, "expected '%c'", c);
    return scan_bad(s, text);
}

/* ---- strings -------------------------------------------------------------------------------- */

/* Four hexadecimal digits; -1 = not. */
static int32_t hex4(struct scan *s)
{
    int32_t value = 0;

    if (s->end - s->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = *s->at++;

        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value * 16 + (c - 'a' + 10);
        else if (c >= 'A' && c <= 'F')
            value = value * 16 + (c - 'A' + 10);
        else
            return -1;
    }
    return value;
}

static size_t encode(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 63));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 63));
        out[2] = (char)(0x80 | (code & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 63));
    out[2] = (char)(0x80 | (code >> 6 & 63));
    out[3] = (char)(0x80 | (code & 63));
    return 4;
}

/* After "\u": one code point, perhaps of two surrogates; 0 bytes = broken. */
static size_t unescape_code(struct scan *s, char out[4])
{
    int32_t high = hex4(s), low;

    if (high <= 0 || (high >= 0xdc00 && high < 0xe000))
        return 0;
    if (high < 0xd800 || high >= 0xe000)
        return encode((uint32_t)high, out);
    if (s->end - s->at < 2 || s->at[0] != '\\' || s->at[1] != 'u')
        return 0;
    s->at += 2;
    low = hex4(s);
    if (low < 0xdc00 || low >= 0xe000)
        return 0;
    return encode(0x10000u + ((uint32_t)(high - 0xd800) << 10) + (uint32_t)(low - 0xdc00), out);
}

/* After a backslash: bytes written, 0 = broken. */
static size_t unescape(struct scan *s, char out[4])
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found;
    char c;

    if (s->at >= s->end)
        return 0;
    c = *s->at++;
    if (c == 'u')
        return unescape_code(s, out);
    found = memchr(from, c, sizeof from - 1);
    if (found == NULL)
        return 0;
    out[0] = to[found - from];
    return 1;
}

bool scan_string(struct scan *s, char *out, size_t bytes)
{
    size_t length = 0;

    if (!scan_expect(s, '"'))
        return false;
    while (s->at < s->end && *s->at != '"') {
        char piece[4] = {*s->at++};
        size_t count = 1;

        if ((unsigned char)piece[0] < 0x20)
            return scan_bad(s, "a control character in a string");
        if (piece[0] == '\\')
            count = unescape(s, piece);
        if (count == 0)
            return scan_bad(s, "a broken escape in a string");
        if (length + count >= bytes)
            return scan_bad(s, "a string that is too long");
        memcpy(out + length, piece, count);
        length += count;
    }
    out[length] = '\0';
    if (s->at >= s->end)
        return scan_bad(s, "a string without an end");
    s->at++;
    return true;
}

/* ---- numbers -------------------------------------------------------------------------------- */

bool scan_number(struct scan *s, uint64_t *value)
{
    const char *begin;

    scan_space(s);
    begin = s->at;
    *value = 0;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9') {
        uint64_t digit = (uint64_t)(*s->at - '0');

        if (*value > (UINT64_MAX - digit) / 10)
            return scan_bad(s, "a number that is too large");
        *value = *value * 10 + digit;
        s->at++;
    }
    if (s->at == begin || (*begin == '0' && s->at - begin > 1))
        return scan_bad(s, "expected a whole number");
    return true;
}

/* ---- UTF-8 ---------------------------------------------------------------------------------- */

/* Bytes of the sequence that begins with c, and the smallest code point that needs so many; 0 =
 * none does. */
static unsigned sequence_length(unsigned char c, uint32_t *least, uint32_t *code)
{
    *code = c;
    *least = 0;
    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c < 0xe0) {
        *code = c & 31u;
        *least = 0x80;
        return 2;
    }
    if (c >= 0xe0 && c < 0xf0) {
        *code = c & 15u;
        *least = 0x800;
        return 3;
    }
    *code = c & 7u;
    *least = 0x10000;
    return c >= 0xf0 && c < 0xf5 ? 4 : 0;
}

bool scan_utf8(const char *bytes, uint64_t length)
{
    for (uint64_t i = 0; i < length;) {
        uint32_t least, code;
        unsigned count = sequence_length((unsigned char)bytes[i], &least, &code);

        if (count == 0 || count > length - i)
            return false;
        for (unsigned k = 1; k < count; k++) {
            unsigned char c = (unsigned char)bytes[i + k];

            if ((c & 0xc0) != 0x80)
                return false;
            code = code << 6 | (c & 63u);
        }
        if (code < least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
            return false;
        i += count;
    }
    return true;
}
