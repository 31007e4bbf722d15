/* The ring of a session's recent collectives.
 *
 * Any thread enters and leaves; the loop's thread looks; a signal handler writes. One short lock,
 * never held over a system call or a wait, and waited for by the writer for some 200 ms at most: a
 * crash in the middle of an entry costs that entry's text at most. */
#ifndef CLIENT_LEDGER_H
#define CLIENT_LEDGER_H

#include "client/muster.h"
#include "client/session.h"

#include <stdbool.h>
#include <stdint.h>

#define LEDGER_ENTRIES 256u

struct ledger_entry {
    uint64_t seq;                     /* its number; 0 = the entry was never used */
    uint64_t generation;              /* in which it was entered */
    uint64_t count;                   /* elements */
    uint64_t step;                    /* batch, 0 = not said */
    uint64_t entered_us;              /* monotonic */
    uint64_t left_us;                 /* 0 = it has not been left */
    char op[WIRE_OP_BYTES + 1];       /* "all_reduce" */
    char dtype[WIRE_DTYPE_BYTES + 1]; /* "float32" */
    char name[WIRE_NAME_BYTES + 1];   /* "grads bucket 2" */
    char place[WIRE_PLACE_BYTES + 1]; /* "train.c:40" */
};

struct ledger {
    bool lock;             /* atomic; guards all but `changes` */
    uint32_t changes;      /* atomic; grows with each, to see cheaply that there is nothing new */
    uint64_t generation;   /* entries of others are history */
    uint64_t next;         /* entries made so far; the newest is ring[(next - 1) % size] */
    uint64_t own;          /* the session's own count in this generation */
    uint64_t entered;      /* newest number entered in it */
    uint64_t left;         /* newest left in it */
    struct ledger_entry ring[LEDGER_ENTRIES]; /* by `next` */
};

/* Zeroed memory is an empty ledger, and stays untouched in a session without collectives.
 *
 * The session is in another generation: the count begins anew, what is open there is void. */
void ledger_begin(struct ledger *ledger, uint64_t generation);

/* The number of the collective. */
uint64_t ledger_enter(struct ledger *ledger, const struct muster_collective *collective,
                      uint64_t now_us);
void ledger_leave(struct ledger *ledger, uint64_t seq, uint64_t now_us);

/* What beats tell. *seen is the caller's memory of `changes`; false: nothing is new since then. */
bool ledger_look(struct ledger *ledger, uint32_t *seen, struct session_ledger *out);

/* Async-signal-safe. */
void ledger_write(struct ledger *ledger, int descriptor, uint64_t now_us);

#endif
