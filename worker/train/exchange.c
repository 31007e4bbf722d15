/* Invariants
 *   1. Every bit is set once: a piece, a result or a word that comes twice is a fault.
 *   2. piece_count[b] = bits in pieces[b]; EXCHANGE_ADD for b is said once, when it has reached
 *      node_count and every word is in. A word of this step says that its sender has applied the
 *      step before; pieces alone do not, since a rank whose shards are all absent from a short step
 *      owes none. So no result of this step is written over a result of the step before that
 *      somebody still receives, reads or may ask for.
 *   3. results_open (the sum of bucket_open), words_open and audits_open only fall; COMPLETE is
 *      said once: when all are zero, or when all words or all audits are in and differ. Then
 *      nothing more is added.
 *   4. A chunk without elements is never sent, added or waited for.
 *   5. The last of my values is counted and sent only when my word has no hash, or the parameters
 *      had that hash when all my values were ready. Every chunk of its bucket lacks it until then,
 *      so no step is complete, here or anywhere, with sums of parameters that changed in memory. */
#include "train/exchange.h"

#include <assert.h>
#include <string.h>

static bool bit_has(const uint8_t *bits, uint32_t i)
{
    return (bits[i / 8] >> (i % 8) & 1) != 0;
}

static void bit_set(uint8_t *bits, uint32_t i)
{
    assert(!bit_has(bits, i));
    bits[i / 8] = (uint8_t)(bits[i / 8] | 1u << (i % 8));
}

static bool chunk_empty(const struct exchange *x, uint32_t bucket, uint32_t chunk)
{
    uint64_t first, count;

    plan_chunk(x->config.bucket_elements[bucket], x->config.world, chunk, &first, &count);
    return count == 0;
}

static void act(struct exchange_actions *actions, enum exchange_action_type type, uint32_t bucket,
                uint32_t node)
{
    struct exchange_action action = {type, bucket, node};

    assert(actions->count < EXCHANGE_ACTIONS_MAX);
    actions->list[actions->count++] = action;
}

static void check_add(struct exchange *x, uint32_t bucket, struct exchange_actions *actions)
{
    if (x->words_open == 0 && !x->differ && x->piece_count[bucket] == x->node_count &&
        !chunk_empty(x, bucket, x->config.me))
        act(actions, EXCHANGE_ADD, bucket, 0);
}

/* The hashes of the audited shard by place, when all are in. */
static uint32_t odd_audits(const struct exchange *x, uint32_t odd[AUDIT_RANKS_MAX])
{
    uint64_t hash[AUDIT_RANKS_MAX];

    for (uint32_t i = 0; i < x->audit.count; i++)
        hash[i] = x->audit_hash[x->audit.rank[i]];
    return audit_odd(&x->audit, hash, odd);
}

static bool audits_differ(const struct exchange *x)
{
    uint32_t odd[AUDIT_RANKS_MAX];

    return odd_audits(x, odd) > 0;
}

/* Sums that differ are known before R is whole, and what is whole of it is for nothing then. */
static void check_complete(struct exchange *x, struct exchange_actions *actions)
{
    bool differ;

    if (x->complete || x->words_open > 0 || x->audits_open > 0)
        return;
    differ = audits_differ(x);
    if (x->results_open > 0 && !differ)
        return;
    x->complete = true;
    x->differ = differ;
    act(actions, EXCHANGE_COMPLETE, 0, 0);
}

void exchange_begin(struct exchange *x, const struct exchange_config *config)
{
    struct plan_node root = plan_root(config->shards);
    bool covered;

    assert(config->world > 0 && config->world <= PLAN_WORLD_MAX && config->me < config->world);
    assert(config->bucket_count <= EXCHANGE_BUCKETS_MAX);
    memset(x, 0, sizeof *x);
    x->config = *config;
    memcpy(x->owner, config->owner, config->shards * sizeof x->owner[0]);
    x->config.owner = x->owner;
    x->node_count =
        plan_all_nodes(config->shards, config->world, x->owner, &config->present, x->nodes);
    covered = plan_program(config->shards, &root, x->nodes, x->node_count, &config->present,
                           &x->program);
    assert(covered);
    (void)covered;
    for (uint32_t b = 0; b < config->bucket_count; b++) {
        for (uint32_t c = 0; c < config->world; c++)
            x->bucket_open[b] += !chunk_empty(x, b, c);
        for (uint32_t i = 0; i < x->node_count; i++)
            x->bucket_mine[b] += x->nodes[i].owner == config->me;
        x->results_open += x->bucket_open[b];
        x->mine_open += x->bucket_mine[b];
    }
    x->words_open = config->world;
    x->audit.shard = AUDIT_NO_SHARD;
}

/* The words of others may have opened it as a whole step: nobody has sent more than words. */
void exchange_words_only(struct exchange *x)
{
    for (uint32_t b = 0; b < x->config.bucket_count; b++)
        assert(x->piece_count[b] == 0);
    x->config.bucket_count = 0;
    x->results_open = 0;
    x->mine_open = 0;
}

/* Of those that have a hash. */
static bool words_differ(const struct exchange *x)
{
    const struct exchange_word *one = NULL;

    for (uint32_t r = 0; r < x->config.world; r++) {
        if (!x->word[r].hashed)
            continue;
        if (one != NULL && x->word[r].hash != one->hash)
            return true;
        one = &x->word[r];
    }
    return false;
}

/* Audited is what all words ask for: all have hashed the shard where they computed it. */
static void begin_audit(struct exchange *x, struct exchange_actions *actions)
{
    uint32_t every = x->word[0].audit, shard;

    for (uint32_t r = 1; r < x->config.world; r++)
        if (x->word[r].audit != every)
            return;
    if (x->config.bucket_count == 0)
        return;
    shard = audit_shard(every, x->config.step, x->config.shards, &x->config.present);
    if (shard == AUDIT_NO_SHARD)
        return;
    audit_draw(&x->audit, shard, x->config.step, x->config.world, x->owner[shard]);
    for (uint32_t i = 0; i < x->audit.count; i++)
        x->audits_open += !bit_has(x->audits, x->audit.rank[i]);
    if (audit_has(&x->audit, x->config.me))
        act(actions, EXCHANGE_AUDIT, 0, shard);
}

/* After the last word the chunks whose pieces are all here can be added, unless the replicas
 * differ. */
static void take_word(struct exchange *x, uint32_t from, const struct exchange_word *word,
                      struct exchange_actions *actions)
{
    x->word[from] = *word;
    bit_set(x->words, from);
    x->words_open--;
    if (x->words_open > 0)
        return;
    if (words_differ(x)) {
        x->differ = x->complete = true;
        act(actions, EXCHANGE_COMPLETE, 0, 0);
        return;
    }
    begin_audit(x, actions);
    for (uint32_t b = 0; b < x->config.bucket_count; b++)
        check_add(x, b, actions);
    check_complete(x, actions);
}

/* ---- pieces --------------------------------------------------------------------------------- */

/* One more piece of my chunk is in. */
static void count_piece(struct exchange *x, uint32_t bucket, uint32_t node,
                        struct exchange_actions *actions)
{
    bit_set(x->pieces[bucket], node);
    x->piece_count[bucket]++;
    assert(x->piece_count[bucket] <= x->node_count);
    check_add(x, bucket, actions);
}

static void take_value(struct exchange *x, uint32_t bucket, uint32_t node,
                       struct exchange_actions *actions)
{
    x->bucket_mine[bucket]--;
    if (x->config.world > 1)
        act(actions, EXCHANGE_SEND_PIECES, bucket, node);
    count_piece(x, bucket, node, actions);
}

/* The last of my values, when it is ready and my word is said. */
static void take_last(struct exchange *x, struct exchange_actions *actions)
{
    const struct exchange_word *mine = &x->word[x->config.me];

    if (!x->last_held || !bit_has(x->words, x->config.me))
        return;
    if (mine->hashed && !x->checked) {
        act(actions, EXCHANGE_CHECK, 0, 0);
        return;
    }
    x->last_held = false;
    take_value(x, x->last_bucket, x->last_node, actions);
}

void exchange_start(struct exchange *x, const struct exchange_word *mine,
                    struct exchange_actions *actions)
{
    if (x->config.world > 1)
        act(actions, EXCHANGE_SEND_WORD, 0, 0);
    take_word(x, x->config.me, mine, actions);
    take_last(x, actions);
}

bool exchange_checked(struct exchange *x, uint64_t hash, struct exchange_actions *actions)
{
    if (hash != x->word[x->config.me].hash)
        return false;
    x->checked = true;
    take_last(x, actions);
    return true;
}

enum exchange_fault exchange_node_ready(struct exchange *x, uint32_t bucket, uint32_t node,
                                        struct exchange_actions *actions)
{
    if (bucket >= x->config.bucket_count)
        return EXCHANGE_BUCKET;
    if (node >= x->node_count || x->nodes[node].owner != x->config.me)
        return EXCHANGE_NODE;
    if (bit_has(x->pieces[bucket], node) || x->mine_open == 0)
        return EXCHANGE_TWICE;
    if (--x->mine_open > 0) {
        take_value(x, bucket, node, actions);
        return EXCHANGE_FINE;
    }
    x->last_held = true;
    x->last_bucket = bucket;
    x->last_node = node;
    take_last(x, actions);
    return EXCHANGE_FINE;
}

enum exchange_fault exchange_piece_wanted(const struct exchange *x, uint32_t from, uint32_t bucket,
                                          uint32_t chunk, uint32_t node)
{
    if (from >= x->config.world || from == x->config.me)
        return EXCHANGE_RANK;
    if (bucket >= x->config.bucket_count)
        return EXCHANGE_BUCKET;
    if (chunk != x->config.me || chunk_empty(x, bucket, chunk))
        return EXCHANGE_CHUNK;
    if (node >= x->node_count || x->nodes[node].owner != from)
        return EXCHANGE_NODE;
    return bit_has(x->pieces[bucket], node) ? EXCHANGE_TWICE : EXCHANGE_FINE;
}

enum exchange_fault exchange_piece(struct exchange *x, uint32_t from, uint32_t bucket,
                                   uint32_t chunk, uint32_t node,
                                   struct exchange_actions *actions)
{
    enum exchange_fault fault = exchange_piece_wanted(x, from, bucket, chunk, node);

    if (fault == EXCHANGE_FINE)
        count_piece(x, bucket, node, actions);
    return fault;
}

/* ---- results -------------------------------------------------------------------------------- */

static void count_result(struct exchange *x, uint32_t bucket, uint32_t chunk,
                         struct exchange_actions *actions)
{
    bit_set(x->results[bucket], chunk);
    assert(x->results_open > 0 && x->bucket_open[bucket] > 0);
    x->results_open--;
    x->bucket_open[bucket]--;
    check_complete(x, actions);
}

enum exchange_fault exchange_added(struct exchange *x, uint32_t bucket,
                                   struct exchange_actions *actions)
{
    if (bucket >= x->config.bucket_count || x->piece_count[bucket] != x->node_count)
        return EXCHANGE_BUCKET;
    if (chunk_empty(x, bucket, x->config.me))
        return EXCHANGE_CHUNK;
    if (bit_has(x->results[bucket], x->config.me))
        return EXCHANGE_TWICE;
    if (x->config.world > 1)
        act(actions, EXCHANGE_SEND_RESULT, bucket, 0);
    count_result(x, bucket, x->config.me, actions);
    return EXCHANGE_FINE;
}

enum exchange_fault exchange_result_wanted(const struct exchange *x, uint32_t from,
                                           uint32_t bucket, uint32_t chunk)
{
    if (from >= x->config.world || from == x->config.me)
        return EXCHANGE_RANK;
    if (bucket >= x->config.bucket_count)
        return EXCHANGE_BUCKET;
    if (chunk != from || chunk_empty(x, bucket, chunk))
        return EXCHANGE_CHUNK;
    if (!bit_has(x->words, x->config.me) || (x->differ && x->audit.count == 0))
        return EXCHANGE_EARLY;
    return bit_has(x->results[bucket], chunk) ? EXCHANGE_TWICE : EXCHANGE_FINE;
}

enum exchange_fault exchange_result(struct exchange *x, uint32_t from, uint32_t bucket,
                                    uint32_t chunk, struct exchange_actions *actions)
{
    enum exchange_fault fault = exchange_result_wanted(x, from, bucket, chunk);

    if (fault == EXCHANGE_FINE)
        count_result(x, bucket, chunk, actions);
    return fault;
}

/* ---- words ---------------------------------------------------------------------------------- */

enum exchange_fault exchange_word(struct exchange *x, uint32_t from,
                                  const struct exchange_word *word,
                                  struct exchange_actions *actions)
{
    if (from >= x->config.world || from == x->config.me)
        return EXCHANGE_RANK;
    if (bit_has(x->words, from))
        return EXCHANGE_TWICE;
    take_word(x, from, word, actions);
    return EXCHANGE_FINE;
}

/* The hash that more than half of those that have one agree on, if there is one: Boyer and Moore's
 * majority vote. */
static bool find_majority(const struct exchange *x, uint64_t *hash)
{
    uint32_t lead = 0, agree = 0, hashed = 0;

    for (uint32_t r = 0; r < x->config.world; r++) {
        if (!x->word[r].hashed)
            continue;
        hashed++;
        if (lead == 0)
            *hash = x->word[r].hash;
        if (x->word[r].hash == *hash)
            lead++;
        else
            lead--;
    }
    for (uint32_t r = 0; r < x->config.world; r++)
        agree += x->word[r].hashed && x->word[r].hash == *hash;
    return agree * 2 > hashed || hashed == 0;
}

/* The hashes of the audited shard: the owner's and those of who computed it again. */
static void vote_on_sums(const struct exchange *x, struct exchange_votes *votes)
{
    uint32_t odd[AUDIT_RANKS_MAX], found = odd_audits(x, odd);

    for (uint32_t r = 0; r < x->config.world; r++)
        for (uint32_t i = 0; i < found; i++)
            if (x->audit.rank[odd[i]] == r)
                votes->outvoted[votes->outvoted_count++] = r;
    votes->unanimous = votes->outvoted_count == 0;
    votes->majority = votes->outvoted_count * 2 < x->audit.count || votes->unanimous;
    votes->shard = votes->unanimous ? AUDIT_NO_SHARD : x->audit.shard;
}

void exchange_votes(const struct exchange *x, struct exchange_votes *votes)
{
    assert(x->words_open == 0);
    memset(votes, 0, sizeof *votes);
    votes->plan_min = UINT64_MAX;
    votes->shard = AUDIT_NO_SHARD;
    votes->hashed = true;
    for (uint32_t r = 0; r < x->config.world; r++) {
        if (x->word[r].plan < votes->plan_min)
            votes->plan_min = x->word[r].plan;
        votes->hashed = votes->hashed && x->word[r].hashed;
    }
    votes->majority = find_majority(x, &votes->hash);
    for (uint32_t r = 0; votes->majority && r < x->config.world; r++)
        if (x->word[r].hashed && x->word[r].hash != votes->hash)
            votes->outvoted[votes->outvoted_count++] = r;
    votes->unanimous = votes->majority && votes->outvoted_count == 0;
    if (!votes->majority)
        votes->hash = 0;
    if (votes->unanimous && x->audits_open == 0)
        vote_on_sums(x, votes);
}

/* ---- audits --------------------------------------------------------------------------------- */

static void count_audit(struct exchange *x, uint32_t rank, uint64_t hash,
                        struct exchange_actions *actions)
{
    bit_set(x->audits, rank);
    x->audit_hash[rank] = hash;
    if (x->words_open > 0)
        return; /* counted when it is known who is asked */
    assert(x->audits_open > 0);
    x->audits_open--;
    check_complete(x, actions);
}

enum exchange_fault exchange_audited(struct exchange *x, uint64_t hash,
                                     struct exchange_actions *actions)
{
    if (x->words_open > 0 || !audit_has(&x->audit, x->config.me))
        return EXCHANGE_UNASKED;
    if (bit_has(x->audits, x->config.me))
        return EXCHANGE_TWICE;
    act(actions, EXCHANGE_SEND_AUDIT, 0, 0);
    count_audit(x, x->config.me, hash, actions);
    return EXCHANGE_FINE;
}

enum exchange_fault exchange_audit(struct exchange *x, uint32_t from, uint64_t hash,
                                   struct exchange_actions *actions)
{
    if (from >= x->config.world || from == x->config.me)
        return EXCHANGE_RANK;
    if (bit_has(x->audits, from))
        return EXCHANGE_TWICE;
    if (x->words_open == 0 && !audit_has(&x->audit, from))
        return EXCHANGE_UNASKED;
    count_audit(x, from, hash, actions);
    return EXCHANGE_FINE;
}

/* ---- questions ------------------------------------------------------------------------------ */

uint32_t exchange_find_node(const struct exchange *x, uint32_t level, uint32_t index)
{
    for (uint32_t i = 0; i < x->node_count; i++)
        if (x->nodes[i].level == level && x->nodes[i].index == index)
            return i;
    return UINT32_MAX;
}

bool exchange_sent(const struct exchange *x, uint32_t bucket)
{
    return x->bucket_mine[bucket] == 0;
}

bool exchange_whole(const struct exchange *x, uint32_t bucket)
{
    return x->bucket_open[bucket] == 0;
}

uint32_t exchange_missing_rank(const struct exchange *x)
{
    for (uint32_t r = 0; r < x->config.world; r++)
        if (!bit_has(x->words, r))
            return r;
    for (uint32_t b = 0; b < x->config.bucket_count; b++)
        for (uint32_t i = 0; i < x->node_count; i++)
            if (!bit_has(x->pieces[b], i) && !chunk_empty(x, b, x->config.me))
                return x->nodes[i].owner;
    for (uint32_t b = 0; b < x->config.bucket_count; b++)
        for (uint32_t c = 0; c < x->config.world; c++)
            if (!bit_has(x->results[b], c) && !chunk_empty(x, b, c))
                return c;
    for (uint32_t i = 0; i < x->audit.count; i++)
        if (!bit_has(x->audits, x->audit.rank[i]))
            return x->audit.rank[i];
    return EXCHANGE_NO_RANK;
}

const char *exchange_fault_text(enum exchange_fault fault)
{
    static const char *const texts[] = {
#define EXCHANGE_FAULT_TEXT(name, sentence) sentence,
        EXCHANGE_FAULTS(EXCHANGE_FAULT_TEXT)
#undef EXCHANGE_FAULT_TEXT
    };

    assert((uint32_t)fault < sizeof texts / sizeof texts[0]);
    return texts[fault];
}
