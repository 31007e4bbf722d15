/* What a process writes, passed on line by line with a prefix, so that lines of several processes
 * do not mix. */
#ifndef AGENT_LINES_H
#define AGENT_LINES_H

#include <stdbool.h>
#include <stddef.h>

#define LINES_BYTES 65536 /* a longer line is passed on in pieces */

struct lines {
    int from;         /* pipe, owned; -1 = at its end */
    int to;           /* where complete lines go */
    char prefix[24];  /* before each; "" = none */
    size_t used;      /* bytes in text: the beginning of a line that has not ended */
    char *text;       /* [LINES_BYTES], owned */
};

/* False: out of memory; `from` is taken in any case. */
bool lines_open(struct lines *lines, int from, int to, const char *prefix);

/* What is there now; at the end of the pipe also the line that has no end. */
void lines_pass(struct lines *lines);

/* Everything up to the end of the pipe, as long as it is there at once; accepts closed ones. */
void lines_close(struct lines *lines);

#endif
