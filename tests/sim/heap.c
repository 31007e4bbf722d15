/* Invariants: an event is in the bucket that its time and last_us say; in each bucket they stand in
 * the order of their pushes. Two of one instant are always in the same bucket, and a bucket is
 * spread, in order, only while all those below it are empty: so that order holds to the end. */
#include "sim/heap.h"

#include "sim/panic.h"

#include <stdlib.h>

void sim_heap_init(struct sim_heap *heap)
{
    *heap = (struct sim_heap){0};
}

void sim_heap_release(struct sim_heap *heap)
{
    free(heap->now.list);
    for (uint32_t level = 0; level < SIM_HEAP_LEVELS; level++) {
        for (uint32_t digit = 0; digit < SIM_HEAP_DIGITS; digit++) {
            free(heap->later[level][digit].list);
        }
    }
    *heap = (struct sim_heap){0};
}

static void grow(struct sim_bucket *bucket)
{
    size_t capacity = bucket->capacity == 0 ? 16 : 2 * bucket->capacity;
    struct sim_event *list = realloc(bucket->list, capacity * sizeof *list);
    SIM_REQUIRE(list != NULL);
    bucket->list = list;
    bucket->capacity = capacity;
}

static struct sim_bucket *bucket_of(struct sim_heap *heap, uint64_t at_us)
{
    uint64_t differs = at_us ^ heap->last_us;
    if (differs == 0) {
        return &heap->now;
    }
    uint32_t level = (63 - (uint32_t)__builtin_clzll(differs)) / SIM_HEAP_DIGIT_BITS;
    uint32_t digit = at_us >> level * SIM_HEAP_DIGIT_BITS & (SIM_HEAP_DIGITS - 1);
    heap->filled[level] |= UINT64_C(1) << digit;
    return &heap->later[level][digit];
}

void sim_heap_push(struct sim_heap *heap, const struct sim_event *event)
{
    struct sim_bucket *bucket = bucket_of(heap, event->at_us);
    SIM_REQUIRE(event->at_us >= heap->last_us);
    if (bucket->count == bucket->capacity) {
        grow(bucket);
    }
    bucket->list[bucket->count++] = *event;
}

static uint64_t earliest_us(const struct sim_bucket *bucket)
{
    uint64_t earliest = bucket->list[0].at_us;
    for (size_t i = 1; i < bucket->count; i++) {
        earliest = bucket->list[i].at_us < earliest ? bucket->list[i].at_us : earliest;
    }
    return earliest;
}

/* Time goes on to the earliest event; those of its instant are in `now` then. */
static bool advance(struct sim_heap *heap)
{
    uint32_t level = 0;
    while (level < SIM_HEAP_LEVELS && heap->filled[level] == 0) {
        level++;
    }
    if (level == SIM_HEAP_LEVELS) {
        return false;
    }
    uint32_t digit = (uint32_t)__builtin_ctzll(heap->filled[level]);
    struct sim_bucket *bucket = &heap->later[level][digit];
    size_t count = bucket->count;
    heap->last_us = earliest_us(bucket);
    bucket->count = 0; /* all of them go to lower levels */
    heap->filled[level] &= ~(UINT64_C(1) << digit);
    for (size_t i = 0; i < count; i++) {
        sim_heap_push(heap, &bucket->list[i]);
    }
    return true;
}

bool sim_heap_pop(struct sim_heap *heap, struct sim_event *event)
{
    struct sim_bucket *now = &heap->now;
    if (heap->taken == now->count) {
        heap->taken = now->count = 0;
        if (!advance(heap)) {
            return false;
        }
    }
    *event = now->list[heap->taken++];
    return true;
}
