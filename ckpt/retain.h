/* Which old folders go: pure rules. Private to this library.
 *
 * Checkpoints: when step K has become durable, the newest `keep` that look whole (a manifest with
 * its checksum, all files there in their sizes) among those up to K are kept, K being one of them.
 * What is older than these goes, whole or not; a broken one between them stays to be seen. Steps
 * after K (left by a run that was resumed from before them) stay: they are not this run's to judge.
 *
 * Unfinished folders (tmp): when step K has become durable, one of a step up to K goes if its
 * generation is older than the writer's (it would be refused) or if nothing was done in it for an
 * hour (its writer is dead). */
#ifndef CKPT_RETAIN_H
#define CKPT_RETAIN_H

#include "ckpt/ckpt.h"

#define RETAIN_TEMPORARY_S 3600

/* rows: `valid` means "looks whole" here. Does rows[which] go? keep 0 = all stay. */
bool retain_drops(const struct ckpt_row *rows, uint32_t count, uint32_t which, uint64_t saved,
                  uint64_t keep);

/* age_s: since something was done in it; negative = in the future. */
bool retain_drops_temporary(uint64_t step, uint64_t generation, int64_t age_s, uint64_t saved,
                            uint64_t saved_generation);

#endif
