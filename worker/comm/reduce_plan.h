/* Who owns which shard, and in which order partial sums are added: pure arithmetic.
 *
 * A global batch is S shards. Their sums follow one binary tree over the shard index: node (level,
 * index) covers the shards [index << level, (index + 1) << level), its value is left + right. A
 * shard without real samples (the end of an epoch) is absent, and so is a node that covers absent
 * shards only; a node with one present child is that child. The tree is the same for every world
 * size, so that the bits of the root are too, as long as everybody adds only nodes of it (see
 * worker/DESIGN.md, and Villa et al., "Effects of floating-point non-associativity on numerical
 * computations", CUG 2009, for the trap).
 *
 * A member adds up the maximal aligned subtrees that it owns (plan_nodes), sends those nodes, and
 * the owner of a chunk puts them together by plan_program: a list of copies and additions on slots.
 *
 * Nothing here allocates, fails on valid input, or knows time, memory or sockets. */
#ifndef COMM_REDUCE_PLAN_H
#define COMM_REDUCE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#define PLAN_SHARDS_MAX 256
#define PLAN_WORLD_MAX  256
#define PLAN_MASK_BYTES (PLAN_SHARDS_MAX / 8)
#define PLAN_NODES_MAX  PLAN_SHARDS_MAX
#define PLAN_OPS_MAX    PLAN_SHARDS_MAX
#define PLAN_TEMPS_MAX  9      /* values alive at once while a tree of 256 leaves is evaluated */
#define PLAN_NOBODY     0xffff /* owner of an absent or unassigned shard */

/* A set of shards: bit i % 8 of byte i / 8. */
struct plan_mask {
    uint8_t byte[PLAN_MASK_BYTES];
};

/* A node of the tree, and the rank that adds it up. */
struct plan_node {
    uint16_t index; /* among the nodes of its level */
    uint8_t level;  /* 0 = a shard */
    uint16_t owner; /* rank; PLAN_NOBODY where it does not matter */
};

/* dst = a, or dst = a + b. Slots below node_count are inputs, from there on temporaries. */
#define PLAN_RESULT 0xfffe /* dst: the result itself */
#define PLAN_COPY   0xffff /* b: this is a copy */
struct plan_op {
    uint16_t dst, a, b;
};

struct plan_program {
    struct plan_op ops[PLAN_OPS_MAX];
    uint32_t op_count;
    uint32_t temp_count; /* temporaries used */
};

/* The shape of a job's steps: what never changes while it runs. */
struct plan_shape {
    uint64_t samples;       /* of the training set */
    uint32_t shards;        /* S */
    uint32_t shard_samples; /* B, real samples of a full shard */
};

bool plan_mask_has(const struct plan_mask *mask, uint32_t shard);
void plan_mask_set(struct plan_mask *mask, uint32_t shard);
bool plan_mask_empty(const struct plan_mask *mask);
uint32_t plan_mask_count(const struct plan_mask *mask);
/* Shards of a that are in b (and) or not in b (minus). */
struct plan_mask plan_mask_and(const struct plan_mask *a, const struct plan_mask *b);
struct plan_mask plan_mask_minus(const struct plan_mask *a, const struct plan_mask *b);

/* Steps of one epoch: the last one may be short. */
uint64_t plan_steps_per_epoch(const struct plan_shape *shape);

/* Real samples of one shard in one step (counted over the whole job, from 0). */
uint32_t plan_shard_real(const struct plan_shape *shape, uint64_t step, uint32_t shard);

/* Shards with at least one real sample. Never empty. */
struct plan_mask plan_present(const struct plan_shape *shape, uint64_t step);

/* Owners for a generation in which nobody holds anything: contiguous, loads differ by at most one,
 * the larger loads first (which packs aligned subtrees best: 8 on 5 ranks = {01}{23}{45}{6}{7}). */
void plan_balanced(uint32_t shards, uint32_t world, uint16_t owner[PLAN_SHARDS_MAX]);

/* The same where members differ in speed: contiguous, everybody has a shard (if there are enough),
 * and the slowest is done as early as can be: the next shard always goes to whoever would be done
 * first with it, of equal ones to the lowest rank. weight[rank]: its speed beside the others'; 0
 * counts as PLAN_WEIGHT_USUAL. Equal weights are plan_balanced. */
#define PLAN_WEIGHT_USUAL 100
void plan_weighted(uint32_t shards, uint32_t world, const uint32_t *weight,
                   uint16_t owner[PLAN_SHARDS_MAX]);

/* Owners after a loss. owned[rank] = what the rank owned before; ranks that owned nothing may be
 * there. Shards with a living owner stay (the lowest rank, should two claim one). Each lost shard
 * goes to a member that has none yet, else to the owner of its sibling, else of the nearest living
 * subtree; among several to the one with the fewest. If nobody owned anything this is
 * plan_balanced. */
void plan_regroup(uint32_t shards, uint32_t world, const struct plan_mask *owned,
                  uint16_t owner[PLAN_SHARDS_MAX]);

/* The shards of one rank. */
struct plan_mask plan_owned(uint32_t shards, const uint16_t owner[PLAN_SHARDS_MAX], uint16_t rank);

/* Maximal aligned subtrees whose present shards are all in mask, by position. Returns how many. */
uint32_t plan_nodes(uint32_t shards, const struct plan_mask *mask, const struct plan_mask *present,
                    struct plan_node nodes[PLAN_NODES_MAX]);

/* Those of all ranks together, by position, with owners: what a step's exchange carries. */
uint32_t plan_all_nodes(uint32_t shards, uint32_t world, const uint16_t owner[PLAN_SHARDS_MAX],
                        const struct plan_mask *present, struct plan_node nodes[PLAN_NODES_MAX]);

/* How to get the value of `root` from nodes that cover its present shards; slot i is nodes[i].
 * Returns false when they do not cover it, or overlap. */
bool plan_program(uint32_t shards, const struct plan_node *root, const struct plan_node *nodes,
                  uint32_t node_count, const struct plan_mask *present,
                  struct plan_program *program);

/* The root of the tree over S shards. */
struct plan_node plan_root(uint32_t shards);

/* Chunk c of a bucket of n elements over a world: a multiple of PLAN_CHUNK_ALIGN elements but for
 * the last; may be empty. */
#define PLAN_CHUNK_ALIGN 16
void plan_chunk(uint64_t elements, uint32_t world, uint32_t chunk, uint64_t *first,
                uint64_t *count);

#endif
