/* Partial sums P of one step: the gradients of shards, folded by aligned subtrees in the order of
 * the canonical tree, bucket by bucket, while they are being made.
 *
 * A shard's gradient is a leaf. When both children of a node are there, whoever brought the second
 * one adds them (left + right, into the left one's buffer), up to the tops: the maximal subtrees
 * that this member owns, which are what it sends. The value of a node does not depend on who added
 * it or when.
 *
 *     sums_begin(&sums, shards, &present)            a new step: everything held is void
 *     sums_tops(&sums, nodes, count, stream)          what is sent; grows over a regroup, then
 *                                                     folds on
 *     leaf = sums_leaf(&sums)                         a buffer for a shard's gradient
 *     sums_ready(&sums, stream, shard, leaf, bucket, &top)   from any thread; true: a top is ready
 *                                                            in bucket
 *     sums_value(&sums, level, index)                 the buffer of a top
 *
 * Thread-safe: any number of threads may bring leaves; the tops change only on the loop's
 * thread. */
#ifndef TRAIN_SUMS_H
#define TRAIN_SUMS_H

#include "comm/reduce_plan.h"
#include "model/model.h"

#include <pthread.h>

#define SUMS_NODES (2u * PLAN_SHARDS_MAX)

/* A node's place in the arrays: level l of a tree of 256 leaves begins at 512 - (512 >> l), and the
 * place behind the root, which has no parent, is never used. */
struct sums_node {
    float *buffer;      /* NULL = nothing yet */
    uint32_t ready;     /* bit b: bucket b has its value */
    uint32_t passed;    /* bit b: bucket b was folded into the parent (or is the parent's) */
    bool top;
};

struct sums {
    const struct device_ops *ops;
    struct device *device;
    const struct model_spec *spec;
    pthread_mutex_t lock;
    uint32_t shards;
    struct plan_mask present;
    struct sums_node nodes[SUMS_NODES];
    float **free_list;  /* buffers nobody uses */
    uint32_t free_count, buffer_count;
    float **all;        /* every buffer made, for release */
    bool failed;        /* out of memory */
};

/* A node that became ready in a bucket. */
struct sums_top {
    uint32_t level, index, bucket;
};

int sums_init(struct sums *sums, const struct device_ops *ops, struct device *device,
              const struct model_spec *spec);
void sums_release(struct sums *sums);
/* Not while a leaf is being made: its buffer would go to another one. */
void sums_begin(struct sums *sums, uint32_t shards, const struct plan_mask *present);
void sums_tops(struct sums *sums, struct device_stream *stream, const struct plan_node *nodes,
               uint32_t count);

/* NULL = out of memory. */
float *sums_leaf(struct sums *sums);
void sums_drop(struct sums *sums, float *leaf); /* a leaf that nobody needs */
bool sums_ready(struct sums *sums, struct device_stream *stream, uint32_t shard, float *leaf,
                uint32_t bucket, struct sums_top *top);

/* Buckets in which the node has its value, and its buffer. */
uint32_t sums_ready_buckets(struct sums *sums, uint32_t level, uint32_t index);
float *sums_value(struct sums *sums, uint32_t level, uint32_t index);

#endif
