/* Invariants
 *   1. Every bit is set once: a piece, a result or a word that comes twice is a fault.
 *   2. piece_count[b] = bits in pieces[b]; EXCHANGE_ADD for b is said once, when it has reached
 *      node_count and every word is in. A word of this step says that its sender has applied the
 *      step before; pieces alone do not, since a rank whose shards are all absent from a short step
 *      owes none. So no result of this step is written over a result of the step before that
 *      somebody still receives, reads or may ask for.
 *   3. results_open (the sum of bucket_open) and words_open only fall; COMPLETE is said once: when
 *      both are zero, or when all words are in and differ. Then nothing is added: R stays as it is.
 *   4. A chunk without elements is never sent, added or waited for. */
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

static void check_complete(struct exchange *x, struct exchange_actions *actions)
{
    if (x->complete || x->results_open > 0 || x->words_open > 0)
        return;
    x->complete = true;
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
            x->mine_open[b] += x->nodes[i].owner == config->me;
        x->results_open += x->bucket_open[b];
    }
    x->words_open = config->world;
}

/* The words of others may have opened it as a whole step: nobody has sent more than words. */
void exchange_words_only(struct exchange *x)
{
    for (uint32_t b = 0; b < x->config.bucket_count; b++)
        assert(x->piece_count[b] == 0);
    x->config.bucket_count = 0;
    x->results_open = 0;
}

static bool words_differ(const struct exchange *x)
{
    for (uint32_t r = 1; r < x->config.world; r++)
        if (x->word[r].hash != x->word[0].hash)
            return true;
    return false;
}

/* After the last word the chunks whose pieces are all here can be added, unless the replicas
 * differ. */
static void take_word(struct exchange *x, uint32_t from, const struct exchange_word *word,
                      struct exchange_actions *actions)
{
    x->word[from] = *word;
    bit_set(x->words, from);
    x->words_open--;
    if (x->words_open == 0 && words_differ(x)) {
        x->differ = x->complete = true;
        act(actions, EXCHANGE_COMPLETE, 0, 0);
        return;
    }
    for (uint32_t b = 0; x->words_open == 0 && b < x->config.bucket_count; b++)
        check_add(x, b, actions);
    check_complete(x, actions);
}

void exchange_start(struct exchange *x, const struct exchange_word *mine,
                    struct exchange_actions *actions)
{
    if (x->config.world > 1)
        act(actions, EXCHANGE_SEND_WORD, 0, 0);
    take_word(x, x->config.me, mine, actions);
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

enum exchange_fault exchange_node_ready(struct exchange *x, uint32_t bucket, uint32_t node,
                                        struct exchange_actions *actions)
{
    if (bucket >= x->config.bucket_count)
        return EXCHANGE_BUCKET;
    if (node >= x->node_count || x->nodes[node].owner != x->config.me)
        return EXCHANGE_NODE;
    if (bit_has(x->pieces[bucket], node))
        return EXCHANGE_TWICE;
    x->mine_open[bucket]--;
    if (x->config.world > 1)
        act(actions, EXCHANGE_SEND_PIECES, bucket, node);
    count_piece(x, bucket, node, actions);
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
    if (!bit_has(x->words, x->config.me) || x->differ)
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

/* The hash that more than half agree on, if there is one: Boyer and Moore's majority vote. */
static bool find_majority(const struct exchange *x, uint64_t *hash)
{
    uint32_t lead = 0, agree = 0;

    for (uint32_t r = 0; r < x->config.world; r++) {
        if (lead == 0)
            *hash = x->word[r].hash;
        if (x->word[r].hash == *hash)
            lead++;
        else
            lead--;
    }
    for (uint32_t r = 0; r < x->config.world; r++)
        agree += x->word[r].hash == *hash;
    return agree * 2 > x->config.world;
}

void exchange_votes(const struct exchange *x, struct exchange_votes *votes)
{
    assert(x->words_open == 0);
    memset(votes, 0, sizeof *votes);
    votes->plan_min = UINT64_MAX;
    for (uint32_t r = 0; r < x->config.world; r++)
        if (x->word[r].plan < votes->plan_min)
            votes->plan_min = x->word[r].plan;
    votes->majority = find_majority(x, &votes->hash);
    for (uint32_t r = 0; votes->majority && r < x->config.world; r++)
        if (x->word[r].hash != votes->hash)
            votes->outvoted[votes->outvoted_count++] = r;
    votes->unanimous = votes->majority && votes->outvoted_count == 0;
    if (!votes->majority)
        votes->hash = 0;
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
    return x->mine_open[bucket] == 0;
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
