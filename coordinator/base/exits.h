/* Exit codes of all programs (the numbers of sysexits.h where they fit). */
#ifndef BASE_EXITS_H
#define BASE_EXITS_H

/* X(name, code, sentence) */
#define EXITS(X)                                                                                   \
    X(DONE, 0, "done, or drained")                                                                 \
    X(USAGE, 64, "wrong usage: the option is named")                                               \
    X(DATA, 65, "bad data or checkpoint: the file is named")                                       \
    X(UNAVAILABLE, 69, "something needed is unavailable: coordinator, device, disk, port")         \
    X(RETRY, 75, "try again: a supervisor should start it anew")                                   \
    X(REFUSED, 77, "refused: who refused, and why")

enum exit_code {
#define EXIT_ENUM(name, code, sentence) EXIT_##name = (code),
    EXITS(EXIT_ENUM)
#undef EXIT_ENUM
};

#endif
