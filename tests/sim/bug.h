/* Mistakes that can be planted, to see that the simulator finds them. They live in the simulator's
 * own glue (as a wrong carrier, store or worker would), never in the code under test. */
#ifndef SIM_BUG_H
#define SIM_BUG_H

/* X(name, word, what is wrong) */
#define SIM_BUGS(X)                                                                                \
    X(NONE, "none", "nothing")                                                                     \
    X(CANARY, "canary", "fails on purpose, now and then: the alarm itself")                        \
    X(STALE_FRAMES, "stale-frames", "frames of an older generation are taken")                     \
    X(NO_FREEZE, "no-freeze", "the exchange goes on after a freeze")                               \
    X(EARLY_PROMISE, "early-promise", "the store says durable before it is")                       \
    X(STALE_SUMS, "stale-sums", "a sum of the step before is sent once after a regroup")           \
    X(ADD_ORDER, "add-order", "pieces are added as they come, not as the tree says")               \
    X(DOUBLE_SHARD, "double-shard", "a recomputed shard takes the place of its neighbour")         \
    X(RECORD_GAP, "record-gap", "a joiner misses half of one record")                              \
    X(OLD_CHECKPOINT, "old-checkpoint", "a torn checkpoint is taken for whole")                    \
    X(BLIND_PROBE, "blind-probe", "silence is taken for the end of a process")                     \
    X(JUDGE_FIRST, "judge-first", "deadlines are judged while the mail is not read")               \
    X(EARLY_APPLY, "early-apply", "an update runs before every word is in")                        \
    X(WRONG_REDUCED, "wrong-reduced", "a copy of R is served one step off")                        \
    X(OWN_SHARES, "own-shares", "a member spreads the shards evenly, whatever the plan weighs")    \
    X(OLD_HELLO, "old-hello", "a re-attach knows nothing of the newest plan and step")             \
    X(BARRIER_TWICE, "barrier-twice", "the result of a barrier comes twice")                       \
    X(LOST_OVER, "lost-over", "one member is not told that a generation is over")                  \
    X(REPORT_AHEAD, "report-ahead", "a report names a step more than is held")                     \
    X(DEAF, "deaf", "who is put out goes on as if nothing had been said")                          \
    X(NEWEST_PLAN, "newest-plan", "the word names the newest plan there is, not the one held")     \
    X(STALE_HASH, "stale-hash", "after a copy a shard is computed on what was there before")       \
    X(EARLY_READY, "early-ready", "a spare is ready with a state one record short")                \
    X(CHUNK_LABEL, "chunk-label", "parts of the state are sent with the version before theirs")    \
    X(EARLY_SAVED, "early-saved", "a checkpoint is said to be there while it is written")          \
    X(OLD_ADDRESS, "old-address", "who listens at an old address now is taken for who did")        \
    X(WRONG_LSN, "wrong-lsn", "the store acknowledges a write that is none")                       \
    X(BLIND_CHECK, "blind-check", "parameters are said to be sound without a look at them")        \
    X(BLIND_AUDIT, "blind-audit", "an owner's hash is not of the sums that it sends")              \
    X(WRONG_MARK, "wrong-mark", "a worker marks its collectives with another count")

enum sim_bug {
#define SIM_BUG_ENUM(name, word, what) SIM_BUG_##name,
    SIM_BUGS(SIM_BUG_ENUM)
#undef SIM_BUG_ENUM
    SIM_BUG_COUNT
};

#endif
