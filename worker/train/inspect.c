/* Looking after this replica: its parameters are hashed again before its last sums leave, and a
 * shard is computed again where an audit asks for it. exchange.c says when, and what follows.
 *
 * Invariants
 *   1. A check reads the parameters as they are after the last of the shards that its exchange is
 *      to send. One that is asked for while an older one runs begins when that has ended.
 *   2. The hash of an audited shard is of its gradient as it left the model, before it is folded;
 *      it is kept for its step, whatever generation asks for it. */
#include "train/trainer.h"

/* ---- the self-check ------------------------------------------------------------------------- */

static void begin_check(struct trainer *t);

static void run_check(struct pool_task *task, uint32_t thread)
{
    struct range_task *r = (struct range_task *)task;
    struct trainer *t = r->trainer;
    struct device_stream *stream = t->lanes[thread].stream;

    state_hash_blocks(&t->state, stream, r->first, r->count, t->check_hashes);
    t->ops->stream_sync(stream);
}

static void check_done(struct pool_task *task)
{
    struct trainer *t = ((struct range_task *)task)->trainer;

    if (--t->checks_open > 0)
        return;
    if (t->check_again) {
        begin_check(t);
        return;
    }
    if (t->check_wanted) {
        t->check_wanted = false;
        reduce_checked(t, state_combine(&t->state, t->stream, t->check_hashes));
    }
    compute_go_on(t);
}

static void begin_check(struct trainer *t)
{
    t->check_again = false;
    t->checks_open =
        compute_ranges(t, t->check_ranges, t->state.block_count, run_check, check_done);
}

void inspect_check(struct trainer *t)
{
    fault_point(t, "check", t->state.applied);
    t->check_wanted = true;
    if (t->checks_open > 0)
        t->check_again = true;
    else
        begin_check(t);
}

/* The exchange that asked is over: nobody waits for the answer. */
void inspect_stop(struct trainer *t)
{
    t->check_wanted = t->check_again = false;
}

/* ---- the audit ------------------------------------------------------------------------------ */

/* The hash of this shard's gradient may be asked for. */
bool inspect_wants(const struct trainer *t, uint64_t step, uint32_t shard)
{
    struct plan_mask present = plan_present(&t->shape, step);

    return shard == audit_shard((uint32_t)t->settings->audit, step, t->shape.shards, &present);
}

/* On a compute thread: a bucket of the gradient, as it is. */
void inspect_bucket(struct shard_task *s, struct device_stream *stream, uint32_t bucket)
{
    const struct model_bucket *range = &s->trainer->state.spec->buckets[bucket];
    const uint8_t *bytes = (const uint8_t *)(s->leaf + range->offset);
    uint64_t all = range->count * sizeof(float), chain[2] = {0, 0};

    for (uint64_t at = 0; at < all; at += DEVICE_HASH_BYTES) {
        uint64_t count = all - at < DEVICE_HASH_BYTES ? all - at : DEVICE_HASH_BYTES;

        s->trainer->ops->hashes(stream, bytes + at, count, &chain[1]);
        s->trainer->ops->hashes(stream, chain, sizeof chain, &chain[0]);
    }
    s->bucket_hash[bucket] = chain[0];
}

static void take_work(struct trainer *t, uint64_t step, uint32_t shard)
{
    if (t->audit.step != step || t->audit.shard != shard)
        t->audit = (struct audit_work){.step = step, .shard = shard};
}

/* All buckets of a shard that was hashed are done; or it was skipped. */
void inspect_shard_done(struct trainer *t, const struct shard_task *s)
{
    if (s->step != t->state.applied)
        return;
    take_work(t, s->step, s->shard);
    t->audit.here = t->audit.here || s->computed;
    t->audit.asked = t->audit.asked && (s->computed || !s->audit_only);
    if (s->computed)
        t->ops->hashes(t->stream, s->bucket_hash,
                       t->state.spec->bucket_count * sizeof s->bucket_hash[0], &t->audit.hash);
}

/* An audit asks for the hash. The owner of the shard has it, or computes the shard already. */
void inspect_audit(struct trainer *t, uint64_t step, uint32_t shard)
{
    take_work(t, step, shard);
    if (t->audit.here) {
        reduce_audited(t);
    } else if (t->elastic.owner[shard] != t->elastic.rank && !t->audit.asked) {
        t->audit.asked = true;
        compute_audit(t, step, shard);
    }
}

/* Others wait for a check or an audit of this member. */
bool inspect_owes(const struct trainer *t)
{
    return t->check_wanted ||
           (t->audit.asked && !t->audit.here && t->audit.step == t->state.applied);
}
