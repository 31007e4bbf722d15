#include "ckpt/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TAIL_BYTES 300

const char *ckpt_sentence(enum ckpt_code code)
{
    static const char *const sentences[] = {
#define CKPT_ERROR_TEXT(name, sentence) sentence,
        CKPT_ERRORS(CKPT_ERROR_TEXT)
#undef CKPT_ERROR_TEXT
    };

    return sentences[code];
}

const char *ckpt_tail(const char *path)
{
    size_t length = strlen(path);

    return length > TAIL_BYTES ? path + length - TAIL_BYTES : path;
}

enum ckpt_code ckpt_fail(struct ckpt_error *error, enum ckpt_code code, const char *format, ...)
{
    va_list arguments;

    error->code = code;
    va_start(arguments, format);
    (void)vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return code;
}
