/* What processes write, passed on line by line with a prefix, so that lines of several do not mix.
 *
 * Nothing here waits: a sink keeps what its reader does not take yet, and while it is full nothing
 * more is read for it. So a reader that stands still holds up those who write to it, and neither
 * the other sink nor the agent. */
#ifndef AGENT_LINES_H
#define AGENT_LINES_H

#include <stdbool.h>
#include <stddef.h>

#define LINES_BYTES 65536  /* a longer line is passed on in pieces */
#define SINK_BYTES  262144 /* kept for a reader before its writers have to wait */

/* Standard output or error of the agent. */
struct sink {
    int to;      /* the caller's */
    char *text;  /* owned: what is not written yet */
    size_t used; /* bytes in it */
    size_t room; /* bytes that fit */
    bool gone;   /* the reader is gone: everything is dropped */
};

/* One line; its end is added if the text has none. What does not fit in memory is dropped. */
void sink_put(struct sink *sink, const char *prefix, const char *text, size_t bytes);

/* Writes what can be written without waiting. */
void sink_flush(struct sink *sink);
bool sink_full(const struct sink *sink);
void sink_release(struct sink *sink);

/* One output of a process. */
struct lines {
    int from;          /* pipe, owned; -1 = at its end */
    struct sink *sink; /* where complete lines go */
    char prefix[24];   /* before each; "" = none */
    size_t used;       /* bytes in text: the beginning of a line that has not ended */
    char *text;        /* [LINES_BYTES], owned */
};

/* False: out of memory; `from` is taken in any case. */
bool lines_open(struct lines *lines, int from, struct sink *sink, const char *prefix);

/* What is there now; at the end of the pipe also the line that has no end. */
void lines_pass(struct lines *lines);

/* What the process has left in the pipe, and no more; accepts closed ones. */
void lines_close(struct lines *lines);

#endif
