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
    for (uint32_t i = 0; i < SIM_HEAP_BUCKETS; i++) {
        free(heap->buckets[i].list);
    }
    *heap = (struct sim_heap){0};
}

static void grow(struct sim_bucket *bucket)
{
    size_t capacity = bucket->capacity == 0 ? 64 : 2 * bucket->capacity;
    struct sim_event *list = realloc(bucket->list, capacity * sizeof *list);
    SIM_REQUIRE(list != NULL);
    bucket->list = list;
    bucket->capacity = capacity;
}

void sim_heap_push(struct sim_heap *heap, const struct sim_event *event)
{
    uint64_t differs = event->at_us ^ heap->last_us;
    uint32_t index = differs == 0 ? 0 : 64 - (uint32_t)__builtin_clzll(differs);
    struct sim_bucket *bucket = &heap->buckets[index];
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

/* Time goes on to the earliest event; those of its instant are in bucket 0 then. */
static bool advance(struct sim_heap *heap)
{
    uint32_t index = 1;
    while (index < SIM_HEAP_BUCKETS && heap->buckets[index].count == 0) {
        index++;
    }
    if (index == SIM_HEAP_BUCKETS) {
        return false;
    }
    struct sim_bucket *bucket = &heap->buckets[index];
    size_t count = bucket->count;
    heap->last_us = earliest_us(bucket);
    bucket->count = 0; /* all of them go to lower buckets */
    for (size_t i = 0; i < count; i++) {
        sim_heap_push(heap, &bucket->list[i]);
    }
    return true;
}

bool sim_heap_pop(struct sim_heap *heap, struct sim_event *event)
{
    struct sim_bucket *now = &heap->buckets[0];
    if (heap->taken == now->count) {
        heap->taken = now->count = 0;
        if (!advance(heap)) {
            return false;
        }
    }
    *event = now->list[heap->taken++];
    return true;
}
