/* How long one shard takes here: what the beats tell, and stragglers are found by.
 *
 * Wall time on a compute thread, so that more threads do not hide a slow machine, nor waiting for
 * others makes one. The mean over the last PACE_STEPS steps that had shards: a single pause is in
 * it for so many steps and no longer, which is less than it takes to be named for it, and pauses
 * that come again and again stay in it. */
#ifndef TRAIN_PACE_H
#define TRAIN_PACE_H

#include <stdint.h>

#define PACE_STEPS 8

struct pace {
    uint64_t sum_us[PACE_STEPS]; /* of a step's shards, a ring */
    uint32_t shards[PACE_STEPS]; /* of that step; 0 = none yet */
    uint32_t at;                 /* the step under way */
    uint64_t step;               /* its number + 1; 0 = there was none */
};

/* A shard of this step took so long. */
void pace_shard(struct pace *pace, uint64_t step, uint64_t took_us);

/* Mean time of a shard, at least 1; 0 before the first one. Steps count alike, whatever they had to
 * do. */
uint32_t pace_us(const struct pace *pace);

#endif
