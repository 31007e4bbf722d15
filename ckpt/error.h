/* Errors of this library: a code and one sentence that names the file and the step that failed. */
#ifndef CKPT_ERROR_H
#define CKPT_ERROR_H

#include <stddef.h>

#define CKPT_TEXT_BYTES 512

/* name, sentence */
#define CKPT_ERRORS(X)                                                                             \
    X(OK, "no error")                                                                              \
    X(NONE, "there is no checkpoint")                                                              \
    X(BROKEN, "what is there is not a valid checkpoint")                                           \
    X(FORMAT, "the file breaks the format")                                                        \
    X(LIMIT, "something is larger than a limit")                                                   \
    X(MISMATCH, "the tensor is not what was asked for")                                            \
    X(SYSTEM, "the operating system refused")                                                      \
    X(OLDER, "a newer generation has written here")                                                \
    X(MEMORY, "out of memory")

enum ckpt_code {
#define CKPT_ERROR_ENUM(name, sentence) CKPT_##name,
    CKPT_ERRORS(CKPT_ERROR_ENUM)
#undef CKPT_ERROR_ENUM
};

struct ckpt_error {
    enum ckpt_code code;
    char text[CKPT_TEXT_BYTES]; /* the whole sentence, "" = none */
};

/* The general sentence of a code. */
const char *ckpt_sentence(enum ckpt_code code);

/* The end of a long path, so that what is wrong with it fits into the sentence. */
const char *ckpt_tail(const char *path);

/* Sets both and returns code. */
enum ckpt_code ckpt_fail(struct ckpt_error *error, enum ckpt_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
