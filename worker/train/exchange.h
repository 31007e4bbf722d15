/* The exchange of one step: which pieces go where, what is added when, and when the sum is whole.
 *
 * Pure: no bytes, no sockets, no clock. The real worker (train/reduce.c) and the simulator run this
 * code.
 *
 * The gradient is cut into buckets (offered in the order in which backward makes them) and each
 * bucket into one chunk per rank. Every rank sends its piece of chunk c of each tree node that it
 * owns to rank c, who adds all pieces in the order of the canonical tree and sends the result to
 * everybody. Beside that every rank sends every rank one word: the newest membership plan that it
 * holds and the hash of its parameters before the step. Nothing is added before every word is in;
 * the step is COMPLETE when all results and all words are.
 *
 * Against memory and arithmetic that cannot be trusted: words that differ end the exchange before
 * anything is added. The last of a member's own sums leaves only after its parameters were hashed
 * once more (CHECK) and are still what its word said: sums of parameters that changed in memory
 * never make a step complete. And where all words ask for it, one shard is computed by several
 * (audit.h); hashes of it that differ end the exchange before anything is applied.
 *
 * Calling sequence
 *
 *     exchange_begin(&x, &config)                     from here on pieces and words are taken:
 *                                                     peers may be one step ahead
 *     exchange_words_only(&x)                         before start, where everybody agreed to stop
 *                                                     before the step
 *     exchange_start(&x, &word, actions)              SEND_WORD; a world of one may be complete at
 *                                                     once
 *     exchange_node_ready(&x, bucket, node, actions)  one of my nodes has its value in this bucket
 *     exchange_checked(&x, hash, actions)             a CHECK was carried out
 *     exchange_audited(&x, hash, actions)             the shard of an AUDIT has its hash
 *     exchange_piece(&x, from, bucket, chunk, node, actions)     a piece has arrived, whole
 *     exchange_added(&x, bucket, actions)             an EXCHANGE_ADD was carried out
 *     exchange_result(&x, from, bucket, chunk, actions)
 *     exchange_word(&x, from, word, actions)
 *     exchange_audit(&x, from, hash, actions)
 *
 * Every function appends to `actions` what must be done now. What arrives and does not fit is
 * answered with an exchange_fault and changes nothing; a fault other than EXCHANGE_FINE means that
 * the peer (or the caller) broke the protocol. */
#ifndef TRAIN_EXCHANGE_H
#define TRAIN_EXCHANGE_H

#include "comm/reduce_plan.h"
#include "train/audit.h"

#include <stdbool.h>
#include <stdint.h>

#define EXCHANGE_BUCKETS_MAX 16
#define EXCHANGE_ACTIONS_MAX (EXCHANGE_BUCKETS_MAX + 4)
#define EXCHANGE_NO_RANK     UINT32_MAX

/* name, sentence */
#define EXCHANGE_FAULTS(X)                                                                         \
    X(FINE, "no fault")                                                                            \
    X(RANK, "a rank that is not in the generation")                                                \
    X(BUCKET, "a bucket that the job does not have")                                               \
    X(CHUNK, "a chunk that is empty, or is not added here")                                        \
    X(NODE, "a tree node that its sender does not own")                                            \
    X(TWICE, "the same piece, result or word twice")                                               \
    X(EARLY, "a result before every word of the step can have been in")                            \
    X(UNASKED, "a hash of sums that the sender was not to make")

enum exchange_fault {
#define EXCHANGE_FAULT_ENUM(name, sentence) EXCHANGE_##name,
    EXCHANGE_FAULTS(EXCHANGE_FAULT_ENUM)
#undef EXCHANGE_FAULT_ENUM
};

struct exchange_word {
    uint64_t plan; /* newest membership plan that the sender holds: its generation's number if none
                      */
    uint64_t hash;  /* of its parameters before the step */
    bool hashed;    /* it was made; a replica without one is not compared */
    uint32_t audit; /* a shard is audited every so many steps, if all say the same; 0 = never */
};

struct exchange_config {
    uint64_t step;
    uint32_t world;
    uint32_t me;                                       /* my rank */
    uint32_t shards;
    const uint16_t *owner;                             /* [shards], copied */
    struct plan_mask present;
    uint32_t bucket_count;                             /* 0: words only */
    uint64_t bucket_elements[EXCHANGE_BUCKETS_MAX];
};

enum exchange_action_type {
    EXCHANGE_SEND_WORD,   /* my word, to every other rank */
    EXCHANGE_SEND_PIECES, /* of bucket and node: chunk c to rank c, for every other rank c whose
                             chunk is not empty */
    EXCHANGE_ADD, /* run program() on the pieces of my chunk of the bucket; mine are the nodes
                     themselves; then exchange_added() */
    EXCHANGE_SEND_RESULT, /* my chunk of the bucket, to every other rank */
    EXCHANGE_CHECK,       /* hash the parameters as they are in memory now; exchange_checked() */
    EXCHANGE_AUDIT,       /* node = a shard: exchange_audited() with the hash of its gradient, made
                             when it was computed if it is mine, else compute it for that alone */
    EXCHANGE_SEND_AUDIT,  /* my hash of it, to every other rank */
    EXCHANGE_COMPLETE,    /* R is whole and every word is in, or they differ: exchange_votes() */
};

struct exchange_action {
    enum exchange_action_type type;
    uint32_t bucket;
    uint32_t node; /* index in exchange.nodes; AUDIT: the shard */
};

struct exchange_actions {
    struct exchange_action list[EXCHANGE_ACTIONS_MAX];
    uint32_t count;
};

/* What the words, and the hashes of the audited shard, say together. */
struct exchange_votes {
    uint64_t plan_min;                          /* the newest plan that everybody holds */
    uint64_t hash;                              /* of the majority; 0 without one */
    bool hashed;                                /* every word had a hash */
    bool unanimous;                             /* nothing that was compared differs */
    bool majority;                              /* more than half of those compared agree */
    uint32_t shard;                             /* whose sums differ; AUDIT_NO_SHARD: none's, and
                                                   outvoted are those whose parameters do */
    uint32_t outvoted[PLAN_WORLD_MAX];          /* ranks that differ from the majority; without one
                                                   those of the audit */
    uint32_t outvoted_count;
};

struct exchange {
    struct exchange_config config;              /* owner points to owner[] here */
    uint16_t owner[PLAN_SHARDS_MAX];
    struct plan_node nodes[PLAN_NODES_MAX];     /* of all ranks, by position */
    uint32_t node_count;
    struct plan_program program;                /* the same for every chunk */
    uint8_t pieces[EXCHANGE_BUCKETS_MAX][PLAN_NODES_MAX / 8];  /* bit: node's piece of my chunk is
                                                                  in */
    uint32_t piece_count[EXCHANGE_BUCKETS_MAX];
    uint8_t results[EXCHANGE_BUCKETS_MAX][PLAN_WORLD_MAX / 8]; /* bit: chunk's result is in */
    uint32_t results_open;                      /* results that are still missing */
    uint32_t bucket_mine[EXCHANGE_BUCKETS_MAX]; /* values of mine in it that have not left */
    uint32_t bucket_open[EXCHANGE_BUCKETS_MAX]; /* of the bucket's results: missing */
    uint8_t words[PLAN_WORLD_MAX / 8];          /* bit: the rank's word is in */
    uint32_t words_open;
    struct exchange_word word[PLAN_WORLD_MAX];
    uint32_t mine_open;                         /* values of mine that are not ready, over all
                                                   buckets */
    bool last_held;                             /* the last of them is ready and has not left */
    uint32_t last_bucket, last_node;            /* which one */
    bool checked;                               /* the parameters are what my word says */
    struct audit audit;                         /* once every word is in */
    uint8_t audits[PLAN_WORLD_MAX / 8];         /* bit: the rank's hash of its sums is in */
    uint64_t audit_hash[PLAN_WORLD_MAX];
    uint32_t audits_open;                       /* of those that were asked for it */
    bool complete;                              /* COMPLETE was said */
    bool differ;                                /* it was said because words or audits differ */
};

void exchange_begin(struct exchange *x, const struct exchange_config *config);
void exchange_words_only(struct exchange *x);
void exchange_start(struct exchange *x, const struct exchange_word *mine,
                    struct exchange_actions *actions);
enum exchange_fault exchange_node_ready(struct exchange *x, uint32_t bucket, uint32_t node,
                                        struct exchange_actions *actions);
/* hash: of the parameters as they are now. false: they are not what my word says. This member is
 * corrupt, and must leave without another frame: its last sums do not leave. */
bool exchange_checked(struct exchange *x, uint64_t hash, struct exchange_actions *actions);
/* UNASKED: nobody asked me, or not yet: it is offered again when AUDIT is said. */
enum exchange_fault exchange_audited(struct exchange *x, uint64_t hash,
                                     struct exchange_actions *actions);
enum exchange_fault exchange_piece(struct exchange *x, uint32_t from, uint32_t bucket,
                                   uint32_t chunk, uint32_t node,
                                   struct exchange_actions *actions);
enum exchange_fault exchange_added(struct exchange *x, uint32_t bucket,
                                   struct exchange_actions *actions);
enum exchange_fault exchange_result(struct exchange *x, uint32_t from, uint32_t bucket,
                                    uint32_t chunk, struct exchange_actions *actions);
enum exchange_fault exchange_word(struct exchange *x, uint32_t from,
                                  const struct exchange_word *word,
                                  struct exchange_actions *actions);
enum exchange_fault exchange_audit(struct exchange *x, uint32_t from, uint64_t hash,
                                   struct exchange_actions *actions);

/* Would this be taken? Asked before bytes are received into a place of their own. */
enum exchange_fault exchange_piece_wanted(const struct exchange *x, uint32_t from, uint32_t bucket,
                                          uint32_t chunk, uint32_t node);
enum exchange_fault exchange_result_wanted(const struct exchange *x, uint32_t from,
                                           uint32_t bucket, uint32_t chunk);

/* Index of a node in exchange.nodes, or UINT32_MAX. */
uint32_t exchange_find_node(const struct exchange *x, uint32_t level, uint32_t index);

/* First rank whose word, pieces, result or audit are missing: who is waited for; EXCHANGE_NO_RANK
 * if none. */
uint32_t exchange_missing_rank(const struct exchange *x);

/* Has all that I owe of the bucket gone out? Is its result whole? */
bool exchange_sent(const struct exchange *x, uint32_t bucket);
bool exchange_whole(const struct exchange *x, uint32_t bucket);

void exchange_votes(const struct exchange *x, struct exchange_votes *votes);
const char *exchange_fault_text(enum exchange_fault fault);

#endif
