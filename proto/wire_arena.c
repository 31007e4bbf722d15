/* The arena, and the small helpers of identities and names. */
#include "proto/wire.h"

#include <string.h>

enum { ARENA_ALIGN_BYTES = 8 };

void wire_arena_init(struct wire_arena *arena, void *memory, size_t capacity_bytes)
{
    *arena = (struct wire_arena){.memory = memory, .capacity_bytes = capacity_bytes};
}

void wire_arena_reset(struct wire_arena *arena)
{
    arena->used_bytes = 0;
}

void *wire_arena_take(struct wire_arena *arena, size_t bytes)
{
    size_t left = arena->capacity_bytes - arena->used_bytes;
    void *taken = arena->memory + arena->used_bytes;

    if (bytes > SIZE_MAX - ARENA_ALIGN_BYTES)
        return NULL;
    bytes = (bytes + ARENA_ALIGN_BYTES - 1) & ~(size_t)(ARENA_ALIGN_BYTES - 1);
    if (bytes > left)
        return NULL;
    arena->used_bytes += bytes;
    if (arena->used_bytes > arena->peak_bytes)
        arena->peak_bytes = arena->used_bytes;
    return taken;
}

bool wire_id_equal(const wire_id *a, const wire_id *b)
{
    uint8_t difference = 0;

    for (size_t i = 0; i < WIRE_ID_BYTES; i++)
        difference = (uint8_t)(difference | (a->bytes[i] ^ b->bytes[i]));
    return difference == 0;
}

bool wire_id_zero(const wire_id *id)
{
    static const wire_id zero;

    return wire_id_equal(id, &zero);
}

void wire_id_text(const wire_id *id, char out[2 * WIRE_ID_BYTES + 1])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < WIRE_ID_BYTES; i++) {
        out[2 * i] = digits[id->bytes[i] >> 4];
        out[2 * i + 1] = digits[id->bytes[i] & 15];
    }
    out[2 * WIRE_ID_BYTES] = '\0';
}

const char *wire_error_text(enum wire_error error)
{
    switch (error) {
#define WIRE_ERROR_CASE(name, sentence)                                                            \
    case name:                                                                                     \
        return sentence;
        WIRE_ERRORS(WIRE_ERROR_CASE)
#undef WIRE_ERROR_CASE
    }
    return "?";
}

const char *wire_phase_name(enum wire_phase phase)
{
    switch (phase) {
    case WIRE_PHASE_STARTUP:
        return "startup";
    case WIRE_PHASE_WAITING:
        return "waiting";
    case WIRE_PHASE_COMPUTE:
        return "compute";
    case WIRE_PHASE_EXCHANGE:
        return "exchange";
    case WIRE_PHASE_EVALUATE:
        return "evaluate";
    case WIRE_PHASE_CHECKPOINT:
        return "checkpoint";
    case WIRE_PHASE_FROZEN:
        return "frozen";
    case WIRE_PHASE_FINISHED:
        return "finished";
    }
    return "?";
}
