/* Invariants: list[i] is not later than its children list[4i+1 .. 4i+4]; order numbers are
 * unique. */
#include "sim/heap.h"

#include "sim/panic.h"

#include <stdlib.h>

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

void sim_heap_init(struct sim_heap *heap)
{
    *heap = (struct sim_heap){0};
}

void sim_heap_release(struct sim_heap *heap)
{
    free(heap->list);
    *heap = (struct sim_heap){0};
}

void sim_heap_clear(struct sim_heap *heap)
{
    heap->count = 0;
    heap->orders = 0;
}

static void grow(struct sim_heap *heap)
{
    size_t capacity = heap->capacity == 0 ? 1024 : 2 * heap->capacity;
    struct sim_event *list = realloc(heap->list, capacity * sizeof *list);
    SIM_REQUIRE(list != NULL);
    heap->list = list;
    heap->capacity = capacity;
}

void sim_heap_push(struct sim_heap *heap, const struct sim_event *event)
{
    if (heap->count == heap->capacity) {
        grow(heap);
    }
    struct sim_event pushed = *event;
    pushed.order = heap->orders++;
    size_t at = heap->count++;
    struct sim_event *list = heap->list;
    while (at > 0 && earlier(&pushed, &list[(at - 1) / 4])) {
        list[at] = list[(at - 1) / 4];
        at = (at - 1) / 4;
    }
    list[at] = pushed;
}

static size_t earliest_child(const struct sim_heap *heap, size_t at)
{
    size_t best = 4 * at + 1;
    size_t end = best + 4 < heap->count ? best + 4 : heap->count;
    for (size_t child = best + 1; child < end; child++) {
        if (earlier(&heap->list[child], &heap->list[best])) {
            best = child;
        }
    }
    return best;
}

bool sim_heap_pop(struct sim_heap *heap, struct sim_event *event)
{
    if (heap->count == 0) {
        return false;
    }
    struct sim_event *list = heap->list;
    *event = list[0];
    struct sim_event last = list[--heap->count];
    size_t at = 0;
    while (4 * at + 1 < heap->count) {
        size_t child = earliest_child(heap, at);
        if (!earlier(&list[child], &last)) {
            break;
        }
        list[at] = list[child];
        at = child;
    }
    list[at] = last;
    return true;
}
