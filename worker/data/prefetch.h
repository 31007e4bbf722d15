/* A thread that gathers the samples of the shards that are needed next.
 *
 *     prefetch = prefetch_open(&mnist.train, seed, B, slots)      NULL: no memory or no thread
 *     prefetch_want(prefetch, keys, count)                        what comes next, in that order
 *     prefetch_take(prefetch, &key, images, labels)               from any thread, at any time
 *     prefetch_close(prefetch)
 *
 * It changes when work is done, never what comes out: a key that is not ready is gathered by its
 * taker, and the wishes are only a hint (after a recovery, other shards than expected are taken;
 * nothing has to be undone). Memory: slots x B x 785 bytes. prefetch_want and prefetch_take may be
 * called from several threads at once. */
#ifndef DATA_PREFETCH_H
#define DATA_PREFETCH_H

#include "data/batch.h"

#include <stdbool.h>

#define PREFETCH_SLOTS_MAX 256

struct prefetch;

/* set is the caller's and must outlive it. B: samples of a full shard. */
struct prefetch *prefetch_open(const struct mnist_set *set, uint64_t seed, uint32_t shard_samples,
                               uint32_t slots);

/* Replaces the wishes: what was wished before, was not taken and is not among keys is forgotten.
 * Keys beyond the slots are ignored. Never blocks on gathering. */
void prefetch_want(struct prefetch *prefetch, const struct batch_key *keys, uint32_t count);

/* The samples of key; true when they were ready. */
bool prefetch_take(struct prefetch *prefetch, const struct batch_key *key, uint8_t *images,
                   uint8_t *labels);

/* Waits until nothing that was wanted is left to gather. */
void prefetch_settle(struct prefetch *prefetch);

void prefetch_close(struct prefetch *prefetch); /* accepts NULL */

#endif
