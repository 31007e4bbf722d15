/* Virtual time: a heap of events, earliest first; events of one instant in the order in which they
 * came.
 *
 *   sim_heap_init(&heap);
 *   sim_heap_push(&heap, &event);                 event.at_us >= the time of the last event taken
 *   while (sim_heap_pop(&heap, &event)) { handle }
 *   sim_heap_release(&heap);
 *
 * An event is never taken back: who changes his mind gives the target a new serial and ignores the
 * old one. */
#ifndef SIM_HEAP_H
#define SIM_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sim_event {
    uint64_t at_us;   /* virtual time */
    uint64_t order;   /* set by push: breaks ties */
    uint64_t value;   /* by kind */
    uint32_t kind;    /* enum sim_event_kind of sim.h */
    uint32_t target;  /* index of what it is for, by kind */
    uint32_t serial;  /* must equal the target's, else the event is void */
    uint32_t extra;   /* by kind */
};

struct sim_heap {
    struct sim_event *list;  /* 4-ary heap; owned */
    size_t count;            /* events in it */
    size_t capacity;         /* events that fit */
    uint64_t orders;         /* events pushed so far */
};

void sim_heap_init(struct sim_heap *heap);
void sim_heap_release(struct sim_heap *heap);
void sim_heap_clear(struct sim_heap *heap);
void sim_heap_push(struct sim_heap *heap, const struct sim_event *event);
bool sim_heap_pop(struct sim_heap *heap, struct sim_event *event);

#endif
