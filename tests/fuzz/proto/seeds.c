/* Writes the first inputs of the corpus: one valid stream per message, and each rule broken once.
 *
 *   fuzz_proto_seeds FOLDER
 *
 * What libFuzzer finds beyond them is added with -merge=1 and kept in the tree.
 */
#include "../../unit/proto/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t memory[2 * WIRE_ARENA_BYTES];

static uint8_t speaker(uint8_t type)
{
    return type == FRAME_HELLO ? FRAME_STATE_STRANGER
           : type < 64         ? FRAME_STATE_MEMBER
                               : FRAME_STATE_COORDINATOR;
}

static int write_input(const char *folder, const char *name, uint32_t serial, uint8_t first,
                       const uint8_t *frame, size_t bytes)
{
    char path[1024];
    FILE *file;
    int good;

    (void)snprintf(path, sizeof path, "%s/seed-%s-%u", folder, name, serial);
    file = fopen(path, "wb");
    if (!file)
        return 0;
    good = fputc(first, file) != EOF && fwrite(frame, 1, bytes, file) == bytes;
    return fclose(file) == 0 && good;
}

/* Valid, cut in pieces, and with one byte changed at a few places. */
static int write_type(const char *folder, uint8_t type, uint64_t *seed)
{
    int good = 1;

    for (uint32_t serial = 0; serial < 6; serial++) {
        struct wire_arena arena;
        struct wire_message message;
        const uint8_t *frame = NULL;
        uint8_t *changed;
        size_t bytes = 0;
        uint8_t first = speaker(type);

        wire_arena_init(&arena, memory, sizeof memory);
        sample_fill(&arena, seed, type, serial % 3, false, &message);
        if (wire_encode(&arena, &message, &frame, &bytes) != WIRE_OK)
            return 0;
        changed = malloc(bytes);
        memcpy(changed, frame, bytes);
        if (serial == 1)
            first = (uint8_t)(first + 3 * 16);
        if (serial >= 2)
            changed[sample_random(seed) % bytes] ^= (uint8_t)(1u << (sample_random(seed) % 8));
        good = good && write_input(folder, frame_type_name(type), serial, first, changed, bytes);
        free(changed);
    }
    return good;
}

int main(int count, char **arguments)
{
    uint64_t seed = 2026;

    if (count != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", arguments[0]);
        return 64;
    }
    for (uint32_t t = 0; t < sample_type_count; t++) {
        if (!write_type(arguments[1], sample_types[t], &seed)) {
            fprintf(stderr, "%s cannot be written\n", arguments[1]);
            return 1;
        }
    }
    return 0;
}
