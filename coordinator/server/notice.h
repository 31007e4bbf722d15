/* Log lines that strangers, or a mistake of ours, could cause without end: few are written, the
 * rest is counted and told.
 *
 *     notices_init(&notices, &log)
 *     notice_connection(&notices, now_us, peer, what, why)   how a connection ended
 *     notice_refusal(&notices, now_us, job, text)            who may not come in
 *     notice_broken(&notices, now_us, number, sentence)      core_check() found something
 *     notices_tick(&notices, now_us)                         at each tick: what is left to tell
 *
 * Times are monotonic. */
#ifndef SERVER_NOTICE_H
#define SERVER_NOTICE_H

#include "base/log.h"

#define NOTICE_INVARIANTS 32        /* numbers from 1 that are told apart; others share 0 */
#define NOTICE_BROKEN_US  60000000u /* between two lines of the same number */

/* An invariant that was found broken. */
struct notice_broken {
    uint64_t told_us;  /* of the last line, 0 = none */
    uint64_t withheld; /* since then */
};

struct notices {
    const struct log *log;
    struct log_rate connections;
    struct log_rate refusals;
    struct notice_broken broken[NOTICE_INVARIANTS];
};

void notices_init(struct notices *notices, const struct log *log);

/* "connection of 10.0.0.5:4711 refused: wrong magic"; what is "refused" or "ended". */
void notice_connection(struct notices *notices, uint64_t now_us, const char *peer,
                       const char *what, const char *why);

void notice_refusal(struct notices *notices, uint64_t now_us, const char *job, const char *text);
void notice_broken(struct notices *notices, uint64_t now_us, int number, const char *sentence);
void notices_tick(struct notices *notices, uint64_t now_us);

#endif
