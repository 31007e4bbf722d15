/* A small supervisor for one host: starts N processes of a command, restarts those that ask for it,
 * forwards SIGTERM, prefixes what they say, and leaves no orphans, whatever kills it.
 *
 *     struct agent_options options = {.count = 4, .argv = argv, ..};
 *     code = agent_run(&options, &error);       blocks until all have ended; error.text when it
 *                                               could not begin
 *
 * Each process is the leader of a process group of its own and has a guardian between itself and
 * the agent. The guardian kills all descendants, daemons too, when the process has ended (what it
 * started does not outlive it, nor see its restart), and when the agent is gone, even by SIGKILL:
 * it holds the other end of a pipe, which the kernel closes then. Two limits: what cannot be killed
 * (as another user's) is left after 10 s, and the agent says so; and when somebody kills a guardian
 * itself, the process and its group go, but not what has left that group.
 *
 * Restarts: a process that exits with 75 (try again) or is killed by a signal that the agent did
 * not send is started anew, at most `restarts` times. Progress gives them back, all of them: a
 * program tells of each finished step with a byte to the descriptor in MUSTER_PROGRESS_FD (a pipe
 * that never blocks; muster-worker does). For a program that never did, a run of `refill_ms` gives
 * one restart back. Anything else is final, and the others go on: an elastic job does with fewer.
 *
 * SIGTERM, SIGINT or SIGHUP to the agent: SIGTERM to all groups (and SIGCONT: a stopped process
 * would not hear it), nothing is restarted; SIGKILL after `grace_ms`, or at the second signal.
 *
 * The environment of each has LOCAL_RANK (from 0), LOCAL_WORLD_SIZE and MUSTER_PROGRESS_FD; its
 * standard input is empty. What it writes is passed on in whole lines; a reader that stands still
 * holds up those who write, and never the agent.
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
    uint64_t refill_ms;  /* of running without a word of progress: gives one restart back */
    uint64_t backoff_ms; /* before a restart */
    uint64_t grace_ms;   /* from SIGTERM to SIGKILL */
    bool prefix;         /* "[rank] " before every line */
    const char *name;    /* before its own sentences on standard error: "muster run: " */
};

int agent_run(const struct agent_options *options, struct error *error);

#endif
