/* Virtual time: a heap of events, earliest first; events of one instant in the order in which they
 * came.
 *
 *   sim_heap_init(&heap);
 *   sim_heap_push(&heap, &event);                 event.at_us >= the time of the last event taken
 *   while (sim_heap_pop(&heap, &event)) { handle }
 *   sim_heap_release(&heap);
 *
 * An event is never taken back: who changes his mind gives the target a new serial and ignores the
 * old one.
 *
 * Time never goes back, so this is a radix heap (Ahuja, Mehlhorn, Orlin, Tarjan: Faster algorithms
 * for the shortest path problem, JACM 37(2), 1990), with digits of 6 bits: a push touches one
 * place, and an event moves two or three times in all. */
#ifndef SIM_HEAP_H
#define SIM_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_HEAP_DIGIT_BITS 6u
#define SIM_HEAP_DIGITS     (1u << SIM_HEAP_DIGIT_BITS)
#define SIM_HEAP_LEVELS     11u /* digits of 64 bits */

struct sim_event {
    uint64_t at_us;   /* virtual time */
    uint64_t value;   /* by kind */
    uint32_t kind;    /* enum sim_event_kind of sim.h */
    uint32_t target;  /* index of what it is for, by kind */
    uint32_t serial;  /* must equal the target's, else the event is void */
    uint32_t extra;   /* by kind */
};

struct sim_bucket {
    struct sim_event *list; /* in the order in which they were pushed; owned */
    size_t count;           /* events in it */
    size_t capacity;        /* events that fit */
};

struct sim_heap {
    struct sim_bucket now;  /* events at last_us */
    struct sim_bucket later[SIM_HEAP_LEVELS][SIM_HEAP_DIGITS]; /* by the highest digit in which
                               at_us and last_us differ, and what at_us has there */
    uint64_t filled[SIM_HEAP_LEVELS]; /* bit d: later[level][d] has events */
    size_t taken;           /* events of `now` that were popped already */
    uint64_t last_us;       /* the earliest time that may still be pushed */
};

void sim_heap_init(struct sim_heap *heap);
void sim_heap_release(struct sim_heap *heap);
void sim_heap_push(struct sim_heap *heap, const struct sim_event *event);
bool sim_heap_pop(struct sim_heap *heap, struct sim_event *event);

#endif
