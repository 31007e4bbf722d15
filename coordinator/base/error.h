/* An error as a sentence for people, with the exit code that fits it. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stddef.h>

#define ERROR_TEXT_BYTES 512

struct error {
    int code;                    /* enum exit_code; 0 = no error */
    char text[ERROR_TEXT_BYTES]; /* one sentence: what was tried, what came of it, what to set */
};

/* Sets both and returns code, so that a function can end with `return error_set(...)`. */
int error_set(struct error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
