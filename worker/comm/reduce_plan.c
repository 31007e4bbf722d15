/* Invariants
 *   1. Every function is a function of its arguments alone: all members compute the same from the
 *      same.
 *   2. plan_program emits additions in the order of the tree's post-order walk, left operand first;
 *      the first operand of a sum is copied, never added to a zero (0 + -0 is +0, and -0 would be
 *      lost). */
#include "comm/reduce_plan.h"

#include <assert.h>
#include <string.h>

/* ---- sets of shards ------------------------------------------------------------------------- */

bool plan_mask_has(const struct plan_mask *mask, uint32_t shard)
{
    assert(shard < PLAN_SHARDS_MAX);
    return (mask->byte[shard / 8] >> (shard % 8) & 1) != 0;
}

void plan_mask_set(struct plan_mask *mask, uint32_t shard)
{
    assert(shard < PLAN_SHARDS_MAX);
    mask->byte[shard / 8] = (uint8_t)(mask->byte[shard / 8] | 1u << (shard % 8));
}

bool plan_mask_empty(const struct plan_mask *mask)
{
    static const struct plan_mask none;

    return memcmp(mask, &none, sizeof none) == 0;
}

uint32_t plan_mask_count(const struct plan_mask *mask)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < PLAN_MASK_BYTES; i++)
        count += (uint32_t)__builtin_popcount(mask->byte[i]);
    return count;
}

struct plan_mask plan_mask_and(const struct plan_mask *a, const struct plan_mask *b)
{
    struct plan_mask both;

    for (uint32_t i = 0; i < PLAN_MASK_BYTES; i++)
        both.byte[i] = a->byte[i] & b->byte[i];
    return both;
}

struct plan_mask plan_mask_minus(const struct plan_mask *a, const struct plan_mask *b)
{
    struct plan_mask rest;

    for (uint32_t i = 0; i < PLAN_MASK_BYTES; i++)
        rest.byte[i] = (uint8_t)(a->byte[i] & ~b->byte[i]);
    return rest;
}

/* ---- steps ---------------------------------------------------------------------------------- */

uint64_t plan_steps_per_epoch(const struct plan_shape *shape)
{
    uint64_t batch = (uint64_t)shape->shards * shape->shard_samples;

    assert(shape->samples > 0);
    assert(batch > 0);
    return (shape->samples + batch - 1) / batch;
}

uint32_t plan_shard_real(const struct plan_shape *shape, uint64_t step, uint32_t shard)
{
    uint64_t in_epoch = step % plan_steps_per_epoch(shape);
    uint64_t first = (in_epoch * shape->shards + shard) * shape->shard_samples;

    if (first >= shape->samples)
        return 0;
    return shape->samples - first < shape->shard_samples ? (uint32_t)(shape->samples - first)
                                                         : shape->shard_samples;
}

struct plan_mask plan_present(const struct plan_shape *shape, uint64_t step)
{
    struct plan_mask present = {{0}};

    assert(shape->shards > 0 && shape->shards <= PLAN_SHARDS_MAX);
    for (uint32_t i = 0; i < shape->shards; i++)
        if (plan_shard_real(shape, step, i) > 0)
            plan_mask_set(&present, i);
    assert(plan_mask_has(&present, 0));
    return present;
}

/* ---- owners --------------------------------------------------------------------------------- */

/* The first load[0] shards to rank 0, the next load[1] to rank 1, and so on. */
static void in_order(uint32_t shards, uint32_t world, const uint32_t *load, uint16_t *owner)
{
    uint32_t shard = 0;

    for (uint32_t rank = 0; rank < world; rank++)
        for (uint32_t i = 0; i < load[rank]; i++)
            owner[shard++] = (uint16_t)rank;
    assert(shard == shards);
}

void plan_balanced(uint32_t shards, uint32_t world, uint16_t owner[PLAN_SHARDS_MAX])
{
    uint32_t load[PLAN_WORLD_MAX];

    assert(world > 0 && world <= PLAN_WORLD_MAX);
    assert(shards <= PLAN_SHARDS_MAX);
    for (uint32_t rank = 0; rank < world; rank++)
        load[rank] = shards / world + (rank < shards % world);
    in_order(shards, world, load, owner);
}

static uint64_t speed(const uint32_t *weight, uint32_t rank)
{
    return weight[rank] != 0 ? weight[rank] : PLAN_WEIGHT_USUAL;
}

/* Who would be done first with one shard more. */
static uint32_t next_owner(uint32_t world, const uint32_t *weight, const uint32_t *load)
{
    uint32_t best = 0;

    for (uint32_t rank = 1; rank < world; rank++)
        if ((load[rank] + 1) * speed(weight, best) < (load[best] + 1) * speed(weight, rank))
            best = rank;
    return best;
}

void plan_weighted(uint32_t shards, uint32_t world, const uint32_t *weight,
                   uint16_t owner[PLAN_SHARDS_MAX])
{
    uint32_t load[PLAN_WORLD_MAX] = {0};

    assert(world > 0 && world <= PLAN_WORLD_MAX);
    assert(shards <= PLAN_SHARDS_MAX);
    for (uint32_t i = 0; i < shards; i++)
        load[i < world ? i : next_owner(world, weight, load)]++;
    in_order(shards, world, load, owner);
}

/* The member that takes a lost shard: one without any, else the least loaded in the smallest
 * subtree around the shard in which somebody lives. */
static uint16_t heir(uint32_t shards, uint32_t world, uint32_t shard, const uint16_t *owner,
                     const uint32_t *load)
{
    uint16_t best = PLAN_NOBODY;

    for (uint32_t rank = 0; rank < world; rank++)
        if (load[rank] == 0)
            return (uint16_t)rank;
    for (uint32_t level = 1; best == PLAN_NOBODY; level++) {
        uint32_t first = shard >> level << level, end = first + (1u << level);

        assert(level <= 9);
        for (uint32_t i = first; i < end && i < shards; i++)
            if (owner[i] != PLAN_NOBODY && (best == PLAN_NOBODY || load[owner[i]] < load[best] ||
                                            (load[owner[i]] == load[best] && owner[i] < best)))
                best = owner[i];
    }
    return best;
}

void plan_regroup(uint32_t shards, uint32_t world, const struct plan_mask *owned,
                  uint16_t owner[PLAN_SHARDS_MAX])
{
    uint32_t load[PLAN_WORLD_MAX] = {0}, living = 0;

    assert(world > 0 && world <= PLAN_WORLD_MAX);
    for (uint32_t i = 0; i < shards; i++) {
        owner[i] = PLAN_NOBODY;
        for (uint32_t rank = 0; rank < world && owner[i] == PLAN_NOBODY; rank++)
            if (plan_mask_has(&owned[rank], i))
                owner[i] = (uint16_t)rank;
        if (owner[i] != PLAN_NOBODY) {
            load[owner[i]]++;
            living++;
        }
    }
    if (living == 0) {
        plan_balanced(shards, world, owner);
        return;
    }
    for (uint32_t i = 0; i < shards; i++)
        if (owner[i] == PLAN_NOBODY) {
            owner[i] = heir(shards, world, i, owner, load);
            load[owner[i]]++;
        }
}

struct plan_mask plan_owned(uint32_t shards, const uint16_t owner[PLAN_SHARDS_MAX], uint16_t rank)
{
    struct plan_mask mask = {{0}};

    for (uint32_t i = 0; i < shards; i++)
        if (owner[i] == rank)
            plan_mask_set(&mask, i);
    return mask;
}

/* ---- nodes ---------------------------------------------------------------------------------- */

static uint32_t top_level(uint32_t shards)
{
    uint32_t level = 0;

    while ((1u << level) < shards)
        level++;
    return level;
}

struct plan_node plan_root(uint32_t shards)
{
    struct plan_node root = {0, (uint8_t)top_level(shards), PLAN_NOBODY};

    return root;
}

/* Does the block have present shards, and are all of them in mask? */
static bool block_whole(uint32_t shards, uint32_t first, uint32_t size,
                        const struct plan_mask *mask, const struct plan_mask *present)
{
    bool any = false;

    for (uint32_t i = first; i < first + size && i < shards; i++) {
        if (!plan_mask_has(present, i))
            continue;
        if (!plan_mask_has(mask, i))
            return false;
        any = true;
    }
    return any;
}

uint32_t plan_nodes(uint32_t shards, const struct plan_mask *mask, const struct plan_mask *present,
                    struct plan_node nodes[PLAN_NODES_MAX])
{
    uint32_t count = 0, top = top_level(shards), at = 0;

    while (at < shards) {
        uint32_t level = at == 0 ? top : (uint32_t)__builtin_ctz(at);
        bool found = false;

        for (level = level > top ? top : level;; level--) {
            found = block_whole(shards, at, 1u << level, mask, present);
            if (found || level == 0)
                break;
        }
        if (found) {
            nodes[count].index = (uint16_t)(at >> level);
            nodes[count].level = (uint8_t)level;
            nodes[count].owner = PLAN_NOBODY;
            count++;
        }
        at += found ? 1u << level : 1u;
    }
    return count;
}

/* Who owns all present shards of the block; PLAN_NOBODY when there are none, or several do. */
static uint16_t block_owner(uint32_t shards, uint32_t first, uint32_t size,
                            const uint16_t owner[PLAN_SHARDS_MAX], const struct plan_mask *present)
{
    uint16_t sole = PLAN_NOBODY;

    for (uint32_t i = first; i < first + size && i < shards; i++) {
        if (!plan_mask_has(present, i))
            continue;
        if (owner[i] == PLAN_NOBODY || (sole != PLAN_NOBODY && owner[i] != sole))
            return PLAN_NOBODY;
        sole = owner[i];
    }
    return sole;
}

/* As plan_nodes, for all owners in one pass: subtrees of different owners share no present shard,
 * so that none lies inside another. */
uint32_t plan_all_nodes(uint32_t shards, uint32_t world, const uint16_t owner[PLAN_SHARDS_MAX],
                        const struct plan_mask *present, struct plan_node nodes[PLAN_NODES_MAX])
{
    uint32_t count = 0, top = top_level(shards), at = 0;

    while (at < shards) {
        uint32_t level = at == 0 ? top : (uint32_t)__builtin_ctz(at);
        uint16_t sole;

        for (level = level > top ? top : level;; level--) {
            sole = block_owner(shards, at, 1u << level, owner, present);
            if (sole < world || level == 0)
                break;
        }
        if (sole < world)
            nodes[count++] = (struct plan_node){(uint16_t)(at >> level), (uint8_t)level, sole};
        at += sole < world ? 1u << level : 1u;
    }
    return count;
}

/* ---- the order of additions ----------------------------------------------------------------- */

struct evaluation {
    uint32_t shards;
    const struct plan_node *nodes;
    uint32_t node_count;
    const struct plan_mask *present;
    struct plan_program *program;
    uint32_t temps;   /* in use, as a stack */
    uint32_t covered; /* inputs used */
    bool whole;
};

static bool any_present(const struct evaluation *e, uint32_t level, uint32_t index)
{
    uint32_t end = (index + 1) << level;

    for (uint32_t i = index << level; i < end && i < e->shards; i++)
        if (plan_mask_has(e->present, i))
            return true;
    return false;
}

static uint16_t find_input(const struct evaluation *e, uint32_t level, uint32_t index)
{
    for (uint32_t i = 0; i < e->node_count; i++)
        if (e->nodes[i].level == level && e->nodes[i].index == index)
            return (uint16_t)i;
    return PLAN_NOBODY;
}

static void emit(struct evaluation *e, uint16_t dst, uint16_t a, uint16_t b)
{
    struct plan_op op = {dst, a, b};

    assert(e->program->op_count < PLAN_OPS_MAX);
    e->program->ops[e->program->op_count++] = op;
}

static bool is_temp(const struct evaluation *e, uint16_t slot)
{
    return slot >= e->node_count;
}

/* The slot that holds the node's value. Depth <= 8: the height of a tree of 256 leaves. */
static uint16_t evaluate(struct evaluation *e, uint32_t level, uint32_t index)
{
    uint16_t slot = find_input(e, level, index), left, right, sum;

    if (slot != PLAN_NOBODY) {
        e->covered++;
        return slot;
    }
    if (level == 0) {
        e->whole = false;
        return 0;
    }
    if (!any_present(e, level - 1, 2 * index + 1))
        return evaluate(e, level - 1, 2 * index);
    if (!any_present(e, level - 1, 2 * index))
        return evaluate(e, level - 1, 2 * index + 1);
    left = evaluate(e, level - 1, 2 * index);
    right = evaluate(e, level - 1, 2 * index + 1);
    e->temps -= (uint32_t)is_temp(e, left) + (uint32_t)is_temp(e, right);
    sum = (uint16_t)(e->node_count + e->temps++);
    assert(e->temps <= PLAN_TEMPS_MAX);
    if (e->program->temp_count < e->temps)
        e->program->temp_count = e->temps;
    emit(e, sum, left, right);
    return sum;
}

bool plan_program(uint32_t shards, const struct plan_node *root, const struct plan_node *nodes,
                  uint32_t node_count, const struct plan_mask *present,
                  struct plan_program *program)
{
    struct evaluation e = {shards, nodes, node_count, present, program, 0, 0, true};
    uint16_t slot;

    program->op_count = 0;
    program->temp_count = 0;
    if (node_count == 0 || !any_present(&e, root->level, root->index))
        return false;
    slot = evaluate(&e, root->level, root->index);
    if (!e.whole || e.covered != node_count)
        return false;
    if (is_temp(&e, slot))
        program->ops[program->op_count - 1].dst = PLAN_RESULT;
    else
        emit(&e, PLAN_RESULT, slot, PLAN_COPY);
    return true;
}

/* ---- chunks --------------------------------------------------------------------------------- */

void plan_chunk(uint64_t elements, uint32_t world, uint32_t chunk, uint64_t *first, uint64_t *count)
{
    uint64_t units = (elements + PLAN_CHUNK_ALIGN - 1) / PLAN_CHUNK_ALIGN;
    uint64_t begin = units * chunk / world * PLAN_CHUNK_ALIGN;
    uint64_t end = units * (chunk + 1) / world * PLAN_CHUNK_ALIGN;

    assert(chunk < world);
    if (begin > elements)
        begin = elements;
    if (end > elements)
        end = elements;
    *first = begin;
    *count = end - begin;
}
