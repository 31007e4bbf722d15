/* The catch-up of a spare beside the group, as bookkeeping: which chunk of the state is at which
 * version, which record of a step it still lacks, and when the whole is one version.
 *
 * The update is element-wise, so a chunk taken at version v and the records of steps v, v + 1, ..
 * give the same bits as having been there. The spare subscribes to the records of one member first,
 * then takes chunks.
 *
 * Pure: no bytes, no sockets, no clock. The real worker (train/transfer.c) and the simulator run
 * this code.
 *
 *     catchup_begin(&c, versions, chunk_count)         a subscription begins, or begins again
 *     catchup_record(&c, step, plan)                   keep the record in slot step %
 *                                                      CATCHUP_RECORDS_MAX
 *     catchup_chunk(&c, chunk, version)                a chunk has come
 *         for each chunk: while (catchup_due(&c, chunk, &step)) { update it; catchup_updated(&c,
 *         chunk); }
 *     catchup_whole(&c, &version, &plan)               -> CAUGHT_UP, later RECORD_APPLIED
 *
 * false from catchup_record() or catchup_chunk(): there is a gap, or it could not keep up.
 * Subscribe again.
 *
 * The member's side: what is sent to one spare. Records are sent after every update, chunks of the
 * state as it is then, a bounded number each time. A spare that does not take them in time is
 * dropped and must be told. */
#ifndef TRAIN_CATCHUP_H
#define TRAIN_CATCHUP_H

#include <stdbool.h>
#include <stdint.h>

#define CATCHUP_RECORDS_MAX 64u
#define CATCHUP_NOTHING     UINT64_MAX

struct catchup {
    uint64_t *version;    /* [chunk_count], the caller's: updates in each chunk; CATCHUP_NOTHING =
                             not here */
    uint64_t chunk_count;
    uint64_t here;        /* chunks that are here */
    uint64_t current;     /* of them, chunks whose version is `next` */
    uint64_t next;        /* step of the next record; CATCHUP_NOTHING = nothing has come yet */
    uint64_t oldest;      /* step of the oldest record kept; == next: none is */
    uint64_t plan;        /* entered after step next - 1; 0 = none */
};

void catchup_begin(struct catchup *c, uint64_t *version, uint64_t chunk_count);
bool catchup_record(struct catchup *c, uint64_t step, uint64_t plan);
bool catchup_chunk(struct catchup *c, uint64_t chunk, uint64_t version);

/* Does the chunk lack an update that can be made now? *step: whose record. */
bool catchup_due(const struct catchup *c, uint64_t chunk, uint64_t *step);
void catchup_updated(struct catchup *c, uint64_t chunk);

/* Every chunk is here and has seen every record. */
bool catchup_whole(const struct catchup *c, uint64_t *version, uint64_t *plan);

/* Records older than this step are needed by no chunk that is here. */
uint64_t catchup_needed(const struct catchup *c);

/* ---- the member's side ---------------------------------------------------------------------- */

struct catchup_source {
    uint64_t next_chunk;  /* first that was not sent yet */
};

/* Chunks to send now, at most `budget`, from *first on. */
uint64_t catchup_stage(struct catchup_source *s, uint64_t chunk_count, uint64_t budget,
                       uint64_t *first);

#endif
