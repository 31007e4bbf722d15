/* Messages with random but valid content, and their comparison: both are expansions of the same
 * lists of fields that wire.c uses, so no field can be left out of the tests. */
#ifndef TEST_PROTO_SAMPLE_H
#define TEST_PROTO_SAMPLE_H

#include "proto/wire.h"

/* All frame types. */
extern const uint8_t sample_types[];
extern const uint32_t sample_type_count;

uint64_t sample_random(uint64_t *state);

/* Fills every field of a message of this type; rosters and lists get `count` entries. Memory comes
 * from the arena, which must be large enough. With `full` every text has its largest length. */
void sample_fill(struct wire_arena *arena, uint64_t *state, uint8_t type, uint32_t count, bool full,
                 struct wire_message *message);

/* NULL when both are equal in every field, else the name of the first field that differs. */
const char *sample_difference(const struct wire_message *a, const struct wire_message *b);

/* Names of the fields of a type as wire.c knows them, in order; NULL ends the list. */
const char *const *sample_field_names(uint8_t type);

#endif
