/* A step's exchange between up to 8 members: whatever the order in which frames arrive, every
 * member ends with the bits of the canonical tree, says so once, and knows what all words said;
 * what breaks the protocol changes nothing. */
#include "train/exchange.h"
#include "unit/train/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define WORLDS   8
#define BUCKETS  2
#define ELEMENTS 200 /* of the larger bucket */
#define FRAMES   8192

static const uint64_t elements[BUCKETS] = {ELEMENTS,
                                           37}; /* 37: from 4 members on some chunks are empty */

/* On its way from one member to another. */
struct frame {
    enum exchange_action_type type; /* SEND_WORD, SEND_PIECES, SEND_RESULT or SEND_AUDIT */
    uint32_t from, to;              /* ranks */
    uint32_t bucket, node;          /* of a piece or a result */
};

struct member {
    struct exchange x;
    struct exchange_word word;         /* its own */
    uint64_t memory;                   /* hash of its parameters as they are now */
    uint64_t sums;                     /* hash of what it computes for an audit */
    bool corrupt;                      /* a check has found it out: it does nothing any more */
    bool started;                      /* exchange_start() was called */
    bool have_result[BUCKETS][WORLDS]; /* chunks of R */
    float reduced[BUCKETS][ELEMENTS];  /* R */
    unsigned completed;                /* how often COMPLETE was said */
};

struct rig {
    uint32_t world, shards;                           /* of the generation, of the job */
    struct plan_mask present;                         /* shards with samples */
    uint16_t owner[PLAN_SHARDS_MAX];                  /* of each shard */
    float values[BUCKETS][ELEMENTS][PLAN_SHARDS_MAX]; /* of each element in each shard */
    struct member members[WORLDS];                    /* by rank */
    struct frame frames[FRAMES];                      /* under way */
    uint32_t frame_count;                             /* of frames */
    uint64_t seed;                                    /* for sentences */
};

static void carry_out(struct rig *rig, uint32_t rank, const struct exchange_actions *actions);

static void send_to_others(struct rig *rig, uint32_t rank, const struct exchange_action *action)
{
    for (uint32_t to = 0; to < rig->world; to++) {
        uint64_t first, count = 1;

        if (action->type == EXCHANGE_SEND_PIECES)
            plan_chunk(elements[action->bucket], rig->world, to, &first, &count);
        if (to == rank || count == 0)
            continue;
        assert_true(rig->frame_count < FRAMES);
        rig->frames[rig->frame_count++] =
            (struct frame){action->type, rank, to, action->bucket, action->node};
    }
}

/* The program on every element of my chunk; a node's value is its owner's sum, tested elsewhere. */
static void add(struct rig *rig, uint32_t rank, uint32_t bucket)
{
    struct member *m = &rig->members[rank];
    struct exchange_actions actions = {.count = 0};
    uint64_t first, count;

    for (uint32_t r = 0; r < rig->world; r++)
        assert_true(rig->members[r].started); /* nothing is added before every word is in */
    plan_chunk(elements[bucket], rig->world, rank, &first, &count);
    assert_true(count > 0);
    for (uint64_t e = first; e < first + count; e++) {
        float temps[PLAN_NODES_MAX + PLAN_TEMPS_MAX];

        for (uint32_t n = 0; n < m->x.node_count; n++)
            temps[n] = tree_sum(rig->values[bucket][e], &rig->present,
                                (uint32_t)m->x.nodes[n].index << m->x.nodes[n].level,
                                1u << m->x.nodes[n].level);
        for (uint32_t k = 0; k < m->x.program.op_count; k++) {
            const struct plan_op *op = &m->x.program.ops[k];
            float value = op->b == PLAN_COPY ? temps[op->a] : temps[op->a] + temps[op->b];

            if (op->dst == PLAN_RESULT)
                m->reduced[bucket][e] = value;
            else
                temps[op->dst] = value;
        }
    }
    m->have_result[bucket][rank] = true;
    assert_int_equal(exchange_added(&m->x, bucket, &actions), EXCHANGE_FINE);
    carry_out(rig, rank, &actions);
}

static void carry_out(struct rig *rig, uint32_t rank, const struct exchange_actions *actions)
{
    struct member *m = &rig->members[rank];

    for (uint32_t i = 0; i < actions->count && !m->corrupt; i++) {
        const struct exchange_action *action = &actions->list[i];
        struct exchange_actions more = {.count = 0};

        if (action->type == EXCHANGE_ADD)
            add(rig, rank, action->bucket);
        else if (action->type == EXCHANGE_COMPLETE)
            m->completed++;
        else if (action->type == EXCHANGE_CHECK)
            m->corrupt = !exchange_checked(&m->x, m->memory, &more);
        else if (action->type == EXCHANGE_AUDIT)
            assert_int_equal(exchange_audited(&m->x, m->sums, &more), EXCHANGE_FINE);
        else
            send_to_others(rig, rank, action);
        carry_out(rig, rank, &more);
    }
}

static void take_result(struct rig *rig, const struct frame *f, struct exchange_actions *actions)
{
    struct member *m = &rig->members[f->to];
    uint64_t first, count;

    plan_chunk(elements[f->bucket], rig->world, f->from, &first, &count);
    assert_int_equal(exchange_result(&m->x, f->from, f->bucket, f->from, actions), EXCHANGE_FINE);
    assert_int_equal(exchange_result_wanted(&m->x, f->from, f->bucket, f->from), EXCHANGE_TWICE);
    memcpy(&m->reduced[f->bucket][first], &rig->members[f->from].reduced[f->bucket][first],
           count * sizeof(float));
    m->have_result[f->bucket][f->from] = true;
}

static void deliver(struct rig *rig, const struct frame *f)
{
    struct member *m = &rig->members[f->to];
    struct exchange_actions actions = {.count = 0};
    enum exchange_fault fault = EXCHANGE_FINE;

    if (m->corrupt)
        return;
    if (f->type == EXCHANGE_SEND_AUDIT)
        fault = exchange_audit(&m->x, f->from, rig->members[f->from].sums, &actions);
    else if (f->type == EXCHANGE_SEND_WORD)
        fault = exchange_word(&m->x, f->from, &rig->members[f->from].word, &actions);
    else if (f->type == EXCHANGE_SEND_PIECES)
        fault = exchange_piece(&m->x, f->from, f->bucket, f->to, f->node, &actions);
    else
        take_result(rig, f, &actions);
    if (fault != EXCHANGE_FINE)
        fail_msg("world %u, seed %llu: %s", rig->world, (unsigned long long)rig->seed,
                 exchange_fault_text(fault));
    carry_out(rig, f->to, &actions);
}

/* ---- a step --------------------------------------------------------------------------------- */

static void begin(struct rig *rig, uint32_t world, uint32_t shards, uint64_t seed)
{
    rig->world = world;
    rig->shards = shards;
    rig->seed = seed;
    rig->frame_count = 0;
    rig->present = seed % 2 ? tree_prefix(1 + (uint32_t)(tree_random(&seed) % shards))
                            : tree_some(shards, &seed);
    tree_owners(shards, world, &seed, rig->owner);
    memset(rig->members, 0, sizeof rig->members);
    for (uint32_t b = 0; b < BUCKETS; b++)
        for (uint64_t e = 0; e < elements[b]; e++)
            for (uint32_t i = 0; i < shards; i++)
                rig->values[b][e][i] = tree_value(&seed);
    for (uint32_t rank = 0; rank < world; rank++) {
        struct exchange_config config = {
            seed,       world,        rank,    shards,
            rig->owner, rig->present, BUCKETS, {elements[0], elements[1]}};

        exchange_begin(&rig->members[rank].x, &config);
        rig->members[rank].word = (struct exchange_word){10 + rank, 42, true, 0};
        rig->members[rank].memory = 42;
        rig->members[rank].sums = 77;
    }
}

/* One thing that a member can do by itself: start, or a node of its own that gets its value; false:
 * all is done. */
static bool act_once(struct rig *rig, uint32_t rank, uint64_t *seed)
{
    struct member *m = &rig->members[rank];
    struct exchange_actions actions = {.count = 0};
    uint32_t skip = (uint32_t)(tree_random(seed) % 3);

    if (m->corrupt)
        return false;
    if (!m->started && tree_random(seed) % 2 == 0) {
        m->started = true;
        exchange_start(&m->x, &m->word, &actions);
        carry_out(rig, rank, &actions);
        return true;
    }
    for (uint32_t b = 0; b < BUCKETS; b++)
        for (uint32_t n = 0; n < m->x.node_count; n++) {
            bool in = (m->x.pieces[b][n / 8] >> (n % 8) & 1) != 0;

            if (m->x.nodes[n].owner != rank || in || m->x.mine_open == 0 ||
                (skip > 0 && skip-- > 0))
                continue;
            assert_int_equal(exchange_node_ready(&m->x, b, n, &actions), EXCHANGE_FINE);
            carry_out(rig, rank, &actions);
            return true;
        }
    return !m->started;
}

/* Until all have completed, in an order that the seed chooses. */
static void run(struct rig *rig, uint64_t seed)
{
    for (uint32_t quiet = 0; quiet < 1000; quiet++) {
        uint32_t rank = (uint32_t)(tree_random(&seed) % rig->world);

        if (tree_random(&seed) % 4 == 0 && act_once(rig, rank, &seed))
            quiet = 0;
        for (uint64_t k = tree_random(&seed) % 20; k > 0 && rig->frame_count > 0; k--) {
            uint32_t at = (uint32_t)(tree_random(&seed) % rig->frame_count);
            struct frame frame = rig->frames[at];

            rig->frames[at] = rig->frames[--rig->frame_count];
            deliver(rig, &frame);
            quiet = 0;
        }
    }
}

static void expect_whole(const struct rig *rig)
{
    for (uint32_t rank = 0; rank < rig->world; rank++) {
        const struct member *m = &rig->members[rank];
        struct exchange_votes votes;

        assert_int_equal(m->completed, 1);
        assert_int_equal(exchange_missing_rank(&m->x), EXCHANGE_NO_RANK);
        exchange_votes(&m->x, &votes);
        assert_true(votes.unanimous);
        assert_int_equal(votes.plan_min, 10);
        for (uint32_t b = 0; b < BUCKETS; b++)
            for (uint64_t e = 0; e < elements[b]; e++) {
                float expected =
                    tree_sum(rig->values[b][e], &rig->present, 0, tree_size(rig->shards));

                if (memcmp(&m->reduced[b][e], &expected, sizeof expected) != 0)
                    fail_msg(
                        "world %u, S %u, seed %llu, rank %u, bucket %u, element %llu: %a, the tree "
                        "gives %a",
                        rig->world, rig->shards, (unsigned long long)rig->seed, rank, b,
                        (unsigned long long)e, (double)m->reduced[b][e], (double)expected);
            }
    }
}

static void any_order_of_frames_gives_the_bits_of_the_tree(void **state)
{
    struct rig *rig = malloc(sizeof *rig);

    (void)state;
    assert_non_null(rig);
    for (uint32_t world = 1; world <= WORLDS; world++)
        for (uint64_t round = 0; round < 25; round++) {
            uint64_t seed = world * 1000 + round;
            uint32_t shards = 8 + (uint32_t)(seed * 7 % 57);

            begin(rig, world, shards, seed);
            run(rig, seed + 1);
            expect_whole(rig);
        }
    free(rig);
}

/* ---- faults --------------------------------------------------------------------------------- */

/* Rank 0 of a world of 3 with 6 shards, two each, and one short bucket whose last chunks are empty.
 */
static void begin_three(struct exchange *x)
{
    struct exchange_config config = {.world = 3,
                                     .me = 0,
                                     .shards = 6,
                                     .present = tree_prefix(6),
                                     .bucket_count = 2,
                                     .bucket_elements = {96, 5}};
    uint16_t owner[PLAN_SHARDS_MAX];

    plan_balanced(6, 3, owner);
    config.owner = owner;
    exchange_begin(x, &config);
}

static void what_does_not_fit_is_told_and_changes_nothing(void **state)
{
    const struct exchange_word word = {1, 1, false, 0};
    struct exchange_actions actions = {.count = 0};
    struct exchange x, before;

    (void)state;
    begin_three(&x);
    assert_int_equal(exchange_word(&x, 1, &word, &actions), EXCHANGE_FINE);
    assert_int_equal(exchange_piece(&x, 1, 0, 0, 1, &actions), EXCHANGE_FINE);
    before = x;
    assert_int_equal(exchange_word(&x, 1, &word, &actions), EXCHANGE_TWICE);
    assert_int_equal(exchange_word(&x, 0, &word, &actions), EXCHANGE_RANK);
    assert_int_equal(exchange_word(&x, 3, &word, &actions), EXCHANGE_RANK);
    assert_int_equal(exchange_piece(&x, 1, 0, 0, 1, &actions), EXCHANGE_TWICE);
    assert_int_equal(exchange_piece(&x, 3, 0, 0, 1, &actions), EXCHANGE_RANK);
    assert_int_equal(exchange_piece(&x, 1, 2, 0, 1, &actions), EXCHANGE_BUCKET);
    assert_int_equal(exchange_piece(&x, 1, 0, 1, 1, &actions), EXCHANGE_CHUNK);
    assert_int_equal(exchange_piece(&x, 1, 0, 0, 2, &actions), EXCHANGE_NODE);
    assert_int_equal(exchange_piece(&x, 1, 0, 0, 3, &actions), EXCHANGE_NODE);
    assert_int_equal(exchange_piece(&x, 1, 0, 0, UINT32_MAX, &actions), EXCHANGE_NODE);
    assert_int_equal(exchange_result(&x, 1, 0, 1, &actions), EXCHANGE_EARLY);
    assert_int_equal(exchange_result(&x, 1, 0, 2, &actions), EXCHANGE_CHUNK);
    assert_int_equal(exchange_result(&x, 0, 0, 0, &actions), EXCHANGE_RANK);
    assert_int_equal(exchange_result(&x, 1, 9, 1, &actions), EXCHANGE_BUCKET);
    assert_int_equal(exchange_node_ready(&x, 2, 0, &actions), EXCHANGE_BUCKET);
    assert_int_equal(exchange_node_ready(&x, 0, 1, &actions), EXCHANGE_NODE);
    assert_int_equal(exchange_added(&x, 0, &actions), EXCHANGE_BUCKET);
    assert_memory_equal(&x, &before, sizeof x);
    assert_int_equal(actions.count, 0);
    for (int fault = EXCHANGE_FINE; fault <= EXCHANGE_UNASKED; fault++)
        assert_true(strlen(exchange_fault_text((enum exchange_fault)fault)) > 0);
}

static void who_is_missing_is_named(void **state)
{
    const struct exchange_word word = {1, 1, false, 0};
    struct exchange_actions actions = {.count = 0};
    struct exchange x;

    (void)state;
    begin_three(&x);
    exchange_start(&x, &word, &actions);
    assert_int_equal(exchange_missing_rank(&x), 1);
    assert_int_equal(exchange_word(&x, 1, &word, &actions), EXCHANGE_FINE);
    assert_int_equal(exchange_missing_rank(&x), 2);
    assert_int_equal(exchange_word(&x, 2, &word, &actions), EXCHANGE_FINE);
    assert_int_equal(exchange_missing_rank(&x), 0); /* my own node */
    actions.count = 0;
    for (uint32_t b = 0; b < 2; b++)
        assert_int_equal(exchange_node_ready(&x, b, 0, &actions), EXCHANGE_FINE);
    assert_int_equal(exchange_missing_rank(&x), 1);
    for (uint32_t b = 0; b < 2; b++)
        assert_int_equal(exchange_piece(&x, 1, b, 0, 1, &actions),
                         b == 0 ? EXCHANGE_FINE : EXCHANGE_CHUNK);
    assert_int_equal(exchange_missing_rank(&x), 2);
}

/* ---- votes ---------------------------------------------------------------------------------- */

static void vote(const uint64_t *hashes, const uint64_t *plans, uint32_t world,
                 struct exchange_votes *votes)
{
    struct exchange_config config = {
        .world = world, .me = 0, .shards = 8, .present = tree_prefix(8)};
    struct exchange_actions actions = {.count = 0};
    uint16_t owner[PLAN_SHARDS_MAX];
    struct exchange x;

    plan_balanced(8, world, owner);
    config.owner = owner;
    exchange_begin(&x, &config);
    for (uint32_t r = 0; r < world; r++) {
        struct exchange_word word = {plans[r], hashes[r], hashes[r] != 0, 0};

        if (r == 0)
            exchange_start(&x, &word, &actions);
        else
            assert_int_equal(exchange_word(&x, r, &word, &actions), EXCHANGE_FINE);
    }
    assert_int_equal(actions.list[actions.count - 1].type, EXCHANGE_COMPLETE);
    exchange_votes(&x, votes);
}

static void words_are_counted(void **state)
{
    static const struct {
        uint32_t world;
        uint64_t hashes[5], hash; /* said; of the majority, 0 = none */
        uint32_t outvoted[2], outvoted_count;
    } rows[] = {
        {1, {7}, 7, {0}, 0},
        {2, {7, 7}, 7, {0}, 0},
        {2, {7, 8}, 0, {0}, 0},
        {3, {7, 8, 7}, 7, {1}, 1},
        {3, {8, 7, 7}, 7, {0}, 1},
        {3, {7, 8, 9}, 0, {0}, 0},
        {4, {7, 7, 8, 8}, 0, {0}, 0},
        {4, {8, 7, 7, 7}, 7, {0}, 1},
        {5, {8, 9, 7, 7, 7}, 7, {0, 1}, 2},
        {5, {7, 8, 7, 9, 7}, 7, {1, 3}, 2},
        {5, {7, 8, 7, 8, 9}, 0, {0}, 0},
        {3, {7, 0, 7}, 7, {0}, 0}, /* 0: it has made none, and is not compared */
        {4, {7, 0, 8, 7}, 7, {2}, 1},
        {3, {7, 0, 8}, 0, {0}, 0},
    };
    const uint64_t plans[5] = {9, 7, 8, 12, 11};

    (void)state;
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        struct exchange_votes votes;

        vote(rows[k].hashes, plans, rows[k].world, &votes);
        if (votes.hash != rows[k].hash || votes.majority != (rows[k].hash != 0) ||
            votes.outvoted_count != rows[k].outvoted_count ||
            votes.unanimous != (rows[k].hash != 0 && rows[k].outvoted_count == 0) ||
            votes.plan_min != (rows[k].world == 1 ? 9 : 7))
            fail_msg("row %zu: hash %llu, %u outvoted, plan %llu", k,
                     (unsigned long long)votes.hash, votes.outvoted_count,
                     (unsigned long long)votes.plan_min);
        for (uint32_t i = 0; i < votes.outvoted_count; i++)
            assert_int_equal(votes.outvoted[i], rows[k].outvoted[i]);
    }
}

/* Replicas that differ are known by their words: nothing is added, whatever pieces come. */
static void words_that_differ_end_it_before_anything_is_added(void **state)
{
    static struct rig rig;

    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        uint64_t random = seed;
        uint32_t world = 2 + (uint32_t)(seed % 6), odd;

        begin(&rig, world, 8 + (uint32_t)(seed % 9), seed);
        odd = (uint32_t)(tree_random(&random) % world);
        rig.members[odd].word.hash = rig.members[odd].memory = 43;
        run(&rig, seed);
        for (uint32_t rank = 0; rank < world; rank++) {
            struct exchange_votes votes;

            assert_int_equal(rig.members[rank].completed, 1);
            exchange_votes(&rig.members[rank].x, &votes);
            assert_false(votes.unanimous);
            assert_int_equal(votes.majority, world > 2);
            for (uint32_t b = 0; b < BUCKETS; b++)
                assert_false(rig.members[rank].have_result[b][rank]);
        }
    }
}

/* ---- corruption ----------------------------------------------------------------------------- */

/* Parameters that changed since the word was said: nobody's step is complete with such sums. */
static void sums_of_changed_parameters_complete_no_step(void **state)
{
    static struct rig rig;

    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        uint64_t random = seed;
        uint32_t world = 1 + (uint32_t)(seed % 6), odd;

        begin(&rig, world, 8 + (uint32_t)(seed % 9), seed);
        odd = (uint32_t)(tree_random(&random) % world);
        rig.members[odd].memory = 43;
        run(&rig, seed);
        if (rig.members[odd].x.node_count > 0 && rig.members[odd].corrupt)
            for (uint32_t rank = 0; rank < world; rank++)
                assert_int_equal(rig.members[rank].completed, 0);
        for (uint32_t n = 0; n < rig.members[odd].x.node_count; n++)
            if (rig.members[odd].x.nodes[n].owner == odd)
                assert_true(rig.members[odd].corrupt);
    }
}

/* A word without a hash promises nothing that could be checked. */
static void without_a_hash_nothing_is_checked(void **state)
{
    static struct rig rig;

    (void)state;
    begin(&rig, 3, 8, 2);
    for (uint32_t rank = 0; rank < 3; rank++) {
        rig.members[rank].word.hashed = false;
        rig.members[rank].memory = 43;
    }
    run(&rig, 3);
    expect_whole(&rig);
}

/* The step is number 2 x seed, and audited: the first shard that is computed twice or more often.
 */
static void audit_of(struct rig *rig, uint32_t world, uint64_t seed)
{
    begin(rig, world, 8, 2 * seed);
    for (uint32_t rank = 0; rank < world; rank++)
        rig->members[rank].word.audit = 2;
}

static void an_audit_names_the_odd_one(void **state)
{
    static struct rig rig;

    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        uint32_t world = 2 + (uint32_t)(seed % 6), odd = (uint32_t)(seed / 6 % world);
        struct exchange_votes votes;
        bool asked;

        audit_of(&rig, world, seed);
        rig.members[odd].sums = 78;
        run(&rig, seed);
        asked = audit_has(&rig.members[0].x.audit, odd);
        if (!asked) {
            expect_whole(&rig);
            continue;
        }
        for (uint32_t rank = 0; rank < world; rank++) {
            assert_int_equal(rig.members[rank].completed, 1);
            exchange_votes(&rig.members[rank].x, &votes);
            assert_false(votes.unanimous);
            assert_int_equal(votes.shard, rig.members[0].x.audit.shard);
            assert_int_equal(votes.majority, world > 2);
            assert_int_equal(votes.outvoted_count, world > 2 ? 1 : 2);
            assert_true(votes.outvoted[0] == odd || votes.outvoted[world == 2] == odd);
        }
    }
}

/* Members that do not say the same of it audit nothing, and finish. */
static void an_audit_takes_everybodys_word(void **state)
{
    static struct rig rig;

    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        audit_of(&rig, 4, seed);
        rig.members[seed % 4].word.audit = (uint32_t)(seed % 2);
        rig.members[1].sums = 78;
        run(&rig, seed);
        expect_whole(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_of_changed_parameters_complete_no_step),
        cmocka_unit_test(without_a_hash_nothing_is_checked),
        cmocka_unit_test(an_audit_names_the_odd_one),
        cmocka_unit_test(an_audit_takes_everybodys_word),
        cmocka_unit_test(words_that_differ_end_it_before_anything_is_added),
        cmocka_unit_test(any_order_of_frames_gives_the_bits_of_the_tree),
        cmocka_unit_test(what_does_not_fit_is_told_and_changes_nothing),
        cmocka_unit_test(who_is_missing_is_named),
        cmocka_unit_test(words_are_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
