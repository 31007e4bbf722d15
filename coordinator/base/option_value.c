#include "base/option_value.h"

#include "base/netaddr.h"
#include "base/utf8.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct suffix {
    const char *word; /* after the digits */
    uint64_t factor;  /* in units of the field */
};

static const struct suffix durations[] = {
    {"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {NULL, 0}};
static const struct suffix sizes[] = {
    {"", 1}, {"k", 1u << 10}, {"KiB", 1u << 10}, {"M", 1u << 20}, {"MiB", 1u << 20},
    {"G", 1u << 30}, {"GiB", 1u << 30}, {NULL, 0}};
static const struct suffix plain[] = {{"", 1}, {NULL, 0}};

/* Digits, then one of the suffixes. */
static bool parse_scaled(const char *text, const struct suffix *suffixes, uint64_t *value)
{
    char *end;
    uint64_t number;

    errno = 0;
    number = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || errno != 0)
        return false;
    for (; suffixes->word != NULL; suffixes++)
        if (strcmp(end, suffixes->word) == 0 && number <= UINT64_MAX / suffixes->factor) {
            *value = number * suffixes->factor;
            return true;
        }
    return false;
}

static bool convert_whole(const struct option_spec *spec, const char *text,
                          const struct suffix *suffixes, uint64_t *field)
{
    uint64_t value;

    if (!parse_scaled(text, suffixes, &value) || (double)value < spec->min ||
        (double)value > spec->max)
        return false;
    if (field != NULL)
        *field = value;
    return true;
}

static bool convert_real(const struct option_spec *spec, const char *text, double *field)
{
    char *end;
    double value;

    if (isspace((unsigned char)text[0]))
        return false;
    value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= spec->min && value <= spec->max))
        return false;
    if (field != NULL)
        *field = value;
    return true;
}

static bool convert_flag(const char *text, bool *field)
{
    bool yes = strcmp(text, "yes") == 0 || strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    bool no = strcmp(text, "no") == 0 || strcmp(text, "false") == 0 || strcmp(text, "0") == 0;

    if (field != NULL && (yes || no))
        *field = yes;
    return yes || no;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);

    for (const char *at = choices; length > 0 && *at != '\0'; at += *at == '|') {
        size_t one = strcspn(at, "|");

        if (one == length && strncmp(at, text, length) == 0)
            return true;
        at += one;
    }
    return false;
}

bool option_is_text(const char *text)
{
    const unsigned char *byte = (const unsigned char *)text;
    bool control = byte[0] < 0x20 || byte[0] == 0x7f || (byte[0] == 0xc2 && byte[1] < 0xa0);

    return utf8_length(text) > 0 && !control; /* C0, DEL, and C1, which is U+0080 to U+009F */
}

static bool is_name(const struct option_spec *spec, const char *text)
{
    size_t bytes = 0;

    while (option_is_text(text + bytes))
        bytes += utf8_length(text + bytes);
    return text[bytes] == '\0' && (double)bytes >= spec->min && (double)bytes <= spec->max;
}

static bool keep_text(bool right, const char *text, const char **field)
{
    if (right && field != NULL)
        *field = text;
    return right;
}

bool option_convert(const struct option_spec *spec, const char *text, void *field)
{
    switch (spec->type) {
    case OPTION_FLAG:
        return convert_flag(text, field);
    case OPTION_NUMBER:
        return convert_whole(spec, text, plain, field);
    case OPTION_DURATION:
        return convert_whole(spec, text, durations, field);
    case OPTION_BYTES:
        return convert_whole(spec, text, sizes, field);
    case OPTION_REAL:
        return convert_real(spec, text, field);
    case OPTION_CHOICE:
        return keep_text(is_choice(spec->choices, text), text, field);
    case OPTION_ADDRESS:
        return keep_text(spec->min > 0 ? netaddr_is_peer(text) : netaddr_is_form(text), text,
                         field);
    case OPTION_NAME:
        return keep_text(is_name(spec, text), text, field);
    case OPTION_TEXT:
    default:
        return keep_text(true, text, field);
    }
}

void option_expected(const struct option_spec *spec, char *text, size_t text_bytes)
{
    switch (spec->type) {
    case OPTION_FLAG:
        (void)snprintf(text, text_bytes, "yes or no");
        break;
    case OPTION_NUMBER:
        (void)snprintf(text, text_bytes, "a whole number from %.0f to %.0f", spec->min, spec->max);
        break;
    case OPTION_DURATION:
        (void)snprintf(text, text_bytes,
                       "a duration from %.0fms to %.0fms, such as 500ms, 2s or 3m", spec->min,
                       spec->max);
        break;
    case OPTION_BYTES:
        (void)snprintf(text, text_bytes,
                       "a size from %.0f to %.0f bytes, such as 4096, 64k or 1GiB", spec->min,
                       spec->max);
        break;
    case OPTION_REAL:
        (void)snprintf(text, text_bytes, "a number from %g to %g", spec->min, spec->max);
        break;
    case OPTION_CHOICE:
        (void)snprintf(text, text_bytes, "one of %s", spec->choices);
        break;
    case OPTION_ADDRESS:
        (void)snprintf(text, text_bytes,
                       "HOST:PORT or [IPV6]:PORT with a port from %.0f to 65535", spec->min);
        break;
    case OPTION_NAME:
        (void)snprintf(text, text_bytes,
                       "%.0f to %.0f bytes of text without control characters", spec->min,
                       spec->max);
        break;
    case OPTION_TEXT:
    default:
        (void)snprintf(text, text_bytes, "a text");
        break;
    }
}

void option_variable(const char *name, char *text, size_t text_bytes)
{
    size_t at = (size_t)snprintf(text, text_bytes, "MUSTER_");

    for (; *name != '\0' && at + 1 < text_bytes; name++)
        text[at++] = *name == '-' ? '_' : (char)toupper((unsigned char)*name);
    text[at] = '\0';
}
