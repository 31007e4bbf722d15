/* A small supervisor for one host: starts N processes of a command, restarts those that ask for it,
 * forwards SIGTERM, prefixes what they say, and leaves no orphans, whatever kills it.
 *
 *     struct agent_options options = {.count = 4, .argv = argv, ..};
 *     code = agent_run(&options, &error);       blocks until all have ended; error.text when it
 *                                               could not begin
 *
 * Each process is the leader of a process group of its own and has a guardian between itself and
 * the agent. The guardian kills the whole group when the process has ended (what it started does
 * not outlive it), and when the agent is gone, even by SIGKILL: it holds the other end of a pipe,
 * which the kernel closes then.
 *
 * Restarts: a process that exits with 75 (try again) or is killed by a signal that the agent did
 * not send is started anew, at most `restarts` times; a run of `refill_ms` gives one restart back.
 * Anything else is final, and the others go on: an elastic job does with fewer.
 *
 * SIGTERM, SIGINT or SIGHUP to the agent: SIGTERM to all groups, nothing is restarted; SIGKILL
 * after `grace_ms`, or at the second signal.
 *
 * The environment of each has LOCAL_RANK (from 0) and LOCAL_WORLD_SIZE; its standard input is
 * empty.
 *
 * Returns 0 when all ended with 0; else the code of the first that ended otherwise for good (128 +
 * N when signal N killed it). Blocks the signals above in the calling thread while it runs; one
 * agent_run() at a time. */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define AGENT_COUNT_MAX 256

struct agent_options {
    uint32_t count;      /* processes, 1 to AGENT_COUNT_MAX */
    char *const *argv;   /* the command, NULL at its end; looked up in PATH */
    uint64_t restarts;   /* of each process */
    uint64_t refill_ms;  /* of running: gives one restart back */
    uint64_t backoff_ms; /* before a restart */
    uint64_t grace_ms;   /* from SIGTERM to SIGKILL */
    bool prefix;         /* "[rank] " before every line */
    void (*say_cb)(const char *sentence); /* ends and restarts, for people; may be NULL */
};

int agent_run(const struct agent_options *options, struct error *error);

#endif
