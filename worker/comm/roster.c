/* Checks of the list of members. */
#include "comm/roster.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static int compare_ids(const void *a, const void *b)
{
    const struct comm_member *const *left = a;
    const struct comm_member *const *right = b;
    return memcmp((*left)->id, (*right)->id, COMM_ID_BYTES);
}

static enum comm_error check_distinct(const struct comm_generation *generation)
{
    uint32_t count = generation->member_count;
    const struct comm_member **sorted = malloc(count * sizeof *sorted);
    enum comm_error error = COMM_OK;
    if (sorted == NULL) {
        return COMM_MEMORY;
    }
    for (uint32_t i = 0; i < count; i++) {
        sorted[i] = &generation->members[i];
    }
    qsort(sorted, count, sizeof *sorted, compare_ids);
    for (uint32_t i = 1; i < count; i++) {
        if (compare_ids(&sorted[i - 1], &sorted[i]) == 0) {
            error = COMM_ROSTER;
        }
    }
    free(sorted);
    return error;
}

enum comm_error comm_roster_check(const struct comm_generation *generation,
                                  const uint8_t id[COMM_ID_BYTES])
{
    uint32_t count = generation->member_count;
    if (count == 0 || count > COMM_WORLD_MAX ||
        (generation->me >= count && generation->me != COMM_VISITOR)) {
        return COMM_ROSTER;
    }
    for (uint32_t rank = 0; rank < count; rank++) {
        const struct comm_member *member = &generation->members[rank];
        bool is_me = memcmp(member->id, id, COMM_ID_BYTES) == 0;
        if (member->rank != rank || is_me != (rank == generation->me) ||
            memchr(member->address, '\0', COMM_ADDRESS_BYTES) == NULL) {
            return COMM_ROSTER;
        }
    }
    return check_distinct(generation);
}
