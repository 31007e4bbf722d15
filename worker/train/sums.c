/* Invariants
 *   1. ready and passed grow under the lock; a bucket is passed once, by the thread that found its
 *      sibling ready or absent. That thread alone writes the parent's range of the bucket, outside
 *      the lock.
 *   2. A top is never passed, so its buffer does not change any more once a bucket of it is ready.
 *   3. The right child's buffer is given back when all its buckets were passed. */
#include "train/sums.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BUFFERS_MAX (PLAN_SHARDS_MAX + 80)

static struct sums_node *node_at(struct sums *sums, uint32_t level, uint32_t index)
{
    uint32_t place = SUMS_NODES - (SUMS_NODES >> level) + index;

    assert(place < SUMS_NODES);
    return &sums->nodes[place];
}

int sums_init(struct sums *sums, const struct device_ops *ops, struct device *device,
              const struct model_spec *spec)
{
    memset(sums, 0, sizeof *sums);
    sums->ops = ops;
    sums->device = device;
    sums->spec = spec;
    sums->free_list = calloc(BUFFERS_MAX, sizeof *sums->free_list);
    sums->all = calloc(BUFFERS_MAX, sizeof *sums->all);
    (void)pthread_mutex_init(&sums->lock, NULL);
    return sums->free_list != NULL && sums->all != NULL ? 0 : -1;
}

void sums_release(struct sums *sums)
{
    if (sums->ops == NULL)
        return;
    for (uint32_t i = 0; i < sums->buffer_count; i++)
        sums->ops->release(sums->device, sums->all[i]);
    free(sums->free_list);
    free(sums->all);
    (void)pthread_mutex_destroy(&sums->lock);
    memset(sums, 0, sizeof *sums);
}

/* ---- buffers -------------------------------------------------------------------------------- */

static void give_back(struct sums *sums, float *buffer)
{
    assert(sums->free_count < BUFFERS_MAX);
    sums->free_list[sums->free_count++] = buffer;
}

float *sums_leaf(struct sums *sums)
{
    float *buffer = NULL;

    (void)pthread_mutex_lock(&sums->lock);
    if (sums->free_count > 0) {
        buffer = sums->free_list[--sums->free_count];
    } else if (sums->buffer_count < BUFFERS_MAX) {
        buffer = sums->ops->alloc(sums->device, sums->spec->gradient_count * sizeof(float));
        if (buffer != NULL)
            sums->all[sums->buffer_count++] = buffer;
    }
    (void)pthread_mutex_unlock(&sums->lock);
    return buffer;
}

void sums_drop(struct sums *sums, float *leaf)
{
    (void)pthread_mutex_lock(&sums->lock);
    give_back(sums, leaf);
    (void)pthread_mutex_unlock(&sums->lock);
}

/* A buffer may be that of a node and of one of its children, while some buckets have gone up and
 * others not: it is given back by the upper one. */
void sums_begin(struct sums *sums, uint32_t shards, const struct plan_mask *present)
{
    (void)pthread_mutex_lock(&sums->lock);
    for (uint32_t level = 0; SUMS_NODES >> level > 1; level++)
        for (uint32_t index = 0; index < SUMS_NODES >> (level + 1); index++) {
            float *buffer = node_at(sums, level, index)->buffer;

            if (buffer != NULL && buffer != node_at(sums, level + 1, index / 2)->buffer)
                give_back(sums, buffer);
        }
    memset(sums->nodes, 0, sizeof sums->nodes);
    sums->shards = shards;
    sums->present = *present;
    (void)pthread_mutex_unlock(&sums->lock);
}

/* ---- folding -------------------------------------------------------------------------------- */

static bool any_present(const struct sums *sums, uint32_t level, uint32_t index)
{
    uint32_t end = (index + 1) << level;

    for (uint32_t i = index << level; i < end && i < sums->shards; i++)
        if (plan_mask_has(&sums->present, i))
            return true;
    return false;
}

static uint32_t all_buckets(const struct sums *sums)
{
    return (1u << sums->spec->bucket_count) - 1;
}

/* Under the lock: may this node's bucket go up now, and with whom? Marks it passed. */
enum step_up { STAY, ALONE, TOGETHER };

static enum step_up step_up(struct sums *sums, uint32_t level, uint32_t index, uint32_t bit)
{
    struct sums_node *node = node_at(sums, level, index),
                     *sibling = node_at(sums, level, index ^ 1);

    if (node->top || (node->ready & bit) == 0 || (node->passed & bit) != 0 ||
        (1u << level) >= sums->shards)
        return STAY;
    if (!any_present(sums, level, index ^ 1)) {
        node->passed |= bit;
        return ALONE;
    }
    if (sibling->top || (sibling->ready & bit) == 0 || (sibling->passed & bit) != 0)
        return STAY;
    node->passed |= bit;
    sibling->passed |= bit;
    return TOGETHER;
}

/* Under the lock: the parent has its value in this bucket. */
static void arrive(struct sums *sums, uint32_t level, uint32_t index, uint32_t bit, float *buffer)
{
    struct sums_node *parent = node_at(sums, level, index);

    assert(parent->buffer == NULL || parent->buffer == buffer);
    parent->buffer = buffer;
    parent->ready |= bit;
    for (uint32_t side = 0; side < 2; side++) {
        struct sums_node *child = node_at(sums, level - 1, 2 * index + side);

        if (child->buffer == NULL || child->passed != all_buckets(sums) ||
            parent->ready != all_buckets(sums))
            continue;
        if (child->buffer != buffer)
            give_back(sums, child->buffer);
        child->buffer = NULL;
    }
}

static void add_range(struct sums *sums, struct device_stream *stream, float *left,
                      const float *right, uint32_t bucket)
{
    const struct model_bucket *range = &sums->spec->buckets[bucket];

    sums->ops->add(stream, left + range->offset, left + range->offset, right + range->offset,
                   range->count);
    sums->ops->stream_sync(stream); /* another thread's stream, or a peer, reads it next */
}

/* Moves a bucket up from a ready node as far as it goes; true when a top became ready. */
static bool climb(struct sums *sums, struct device_stream *stream, uint32_t level, uint32_t index,
                  uint32_t bucket, struct sums_top *top)
{
    uint32_t bit = 1u << bucket;
    bool is_top;

    (void)pthread_mutex_lock(&sums->lock);
    for (;;) {
        struct sums_node *left = node_at(sums, level, index & ~1u);
        struct sums_node *right = node_at(sums, level, index | 1u);
        enum step_up how = step_up(sums, level, index, bit);
        float *buffer = how == ALONE ? node_at(sums, level, index)->buffer : left->buffer;
        const float *other = right->buffer;

        if (how == STAY)
            break;
        if (how == TOGETHER) {
            (void)pthread_mutex_unlock(&sums->lock);
            add_range(sums, stream, buffer, other, bucket);
            (void)pthread_mutex_lock(&sums->lock);
        }
        level++;
        index /= 2;
        arrive(sums, level, index, bit, buffer);
    }
    is_top = node_at(sums, level, index)->top && (node_at(sums, level, index)->ready & bit) != 0;
    (void)pthread_mutex_unlock(&sums->lock);
    top->level = level;
    top->index = index;
    top->bucket = bucket;
    return is_top;
}

bool sums_ready(struct sums *sums, struct device_stream *stream, uint32_t shard, float *leaf,
                uint32_t bucket, struct sums_top *top)
{
    struct sums_node *node;

    (void)pthread_mutex_lock(&sums->lock);
    node = node_at(sums, 0, shard);
    node->buffer = leaf;
    node->ready |= 1u << bucket;
    (void)pthread_mutex_unlock(&sums->lock);
    return climb(sums, stream, 0, shard, bucket, top);
}

void sums_tops(struct sums *sums, struct device_stream *stream, const struct plan_node *nodes,
               uint32_t count)
{
    struct sums_top ignored;

    (void)pthread_mutex_lock(&sums->lock);
    for (uint32_t i = 0; i < SUMS_NODES; i++)
        sums->nodes[i].top = false;
    for (uint32_t i = 0; i < count; i++)
        node_at(sums, nodes[i].level, nodes[i].index)->top = true;
    (void)pthread_mutex_unlock(&sums->lock);
    /* What was a top before a loss may be half of a larger one now. */
    for (uint32_t level = 0; (1u << level) < sums->shards; level++)
        for (uint32_t index = 0; (index << level) < sums->shards; index++)
            for (uint32_t b = 0; b < sums->spec->bucket_count; b++)
                (void)climb(sums, stream, level, index, b, &ignored);
}

uint32_t sums_ready_buckets(struct sums *sums, uint32_t level, uint32_t index)
{
    uint32_t ready;

    (void)pthread_mutex_lock(&sums->lock);
    ready = node_at(sums, level, index)->ready;
    (void)pthread_mutex_unlock(&sums->lock);
    return ready;
}

float *sums_value(struct sums *sums, uint32_t level, uint32_t index)
{
    float *buffer;

    (void)pthread_mutex_lock(&sums->lock);
    buffer = node_at(sums, level, index)->buffer;
    (void)pthread_mutex_unlock(&sums->lock);
    return buffer;
}
