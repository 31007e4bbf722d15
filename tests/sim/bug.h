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
    X(RECORD_GAP, "record-gap", "a joiner misses one record")                                      \
    X(OLD_CHECKPOINT, "old-checkpoint", "a torn checkpoint is taken for whole")                    \
    X(BLIND_PROBE, "blind-probe", "silence is taken for the end of a process")                     \
    X(JUDGE_FIRST, "judge-first", "deadlines are judged while the mail is not read")       \
    X(EARLY_APPLY, "early-apply", "an update runs before every word is in")                        \
    X(WRONG_REDUCED, "wrong-reduced", "a copy of R is served one step off")                        \
    X(WRONG_MARK, "wrong-mark", "a worker marks its collectives with another count")

enum sim_bug {
#define SIM_BUG_ENUM(name, word, what) SIM_BUG_##name,
    SIM_BUGS(SIM_BUG_ENUM)
#undef SIM_BUG_ENUM
    SIM_BUG_COUNT
};

#endif
