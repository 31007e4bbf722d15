/* What a worker still writes when it gets SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGABRT. */
#ifndef TRAIN_CRASH_H
#define TRAIN_CRASH_H

#include "client/muster.h"

/* From here on the session's recent collectives are written to standard error and, unless log is
 * NULL, to LOG.ledger, before the process ends by the signal. One session at a time. */
void crash_watch(struct muster *session, const char *log);
void crash_unwatch(void); /* before the session is closed; at any time */

/* A stack of its own for the handler, for the thread that calls: when its own has run out. NULL
 * when it has one, or there is no memory; freed by the same thread. */
void *crash_stack(void);
void crash_stack_free(void *memory); /* accepts NULL */

#endif
