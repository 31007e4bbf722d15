/* Whole exchanges of several ranks, their frames delivered in seeded orders: every bucket is added
 * once, everybody comes to the end of every step, and nobody's R is written while somebody may
 * still need what is in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train/exchange.h"

enum { WORLD_MAX = 5, STEPS = 4, BUCKETS = 3, FRAMES_MAX = 4096, SHARDS = 8 };

struct frame {
    enum exchange_action_type type; /* SEND_WORD, SEND_PIECES, SEND_RESULT or SEND_AUDIT */
    uint32_t step, bucket, chunk, level, index;
};

/* From one rank to another: first in, first out, as a connection is. */
struct way {
    struct frame frames[FRAMES_MAX];
    uint32_t first, end;
};

struct rank {
    struct exchange exchange[2];  /* of the step at hand and the next, by step % 2 */
    uint32_t begun[2];            /* 1 + step */
    uint32_t step;                /* at hand: all before are applied */
    bool started;                 /* the exchange of the step at hand */
    bool pending;                 /* that step is complete, and not applied yet */
    bool checking, auditing;      /* CHECK, AUDIT was said and not answered */
    bool checked, audited;        /* it was, in this step */
    uint32_t adds[BUCKETS];       /* of the step at hand */
    uint64_t nodes_ready[BUCKETS];/* bit: node of mine was offered */
};

struct world {
    uint32_t ranks, real;         /* real: present shards of odd steps; even ones are full */
    uint16_t owner[SHARDS];
    struct rank rank[WORLD_MAX];
    struct way way[WORLD_MAX][WORLD_MAX];
    uint32_t audit; /* of all words */
    uint64_t random;
    unsigned seed;
};

static struct exchange_word word_of(const struct world *w)
{
    return (struct exchange_word){1, 7, true, w->audit};
}

static uint32_t draw(struct world *w, uint32_t below)
{
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((w->random >> 33) % below);
}

static struct exchange *exchange_at(struct world *w, uint32_t r, uint32_t step)
{
    struct exchange_config config = {.step = step,
                                     .world = w->ranks,
                                     .me = r,
                                     .shards = SHARDS,
                                     .owner = w->owner,
                                     .bucket_count = BUCKETS};
    struct rank *me = &w->rank[r];

    if (me->begun[step % 2] == step + 1)
        return &me->exchange[step % 2];
    assert_true(step == me->step || step == me->step + 1);
    for (uint32_t b = 0; b < BUCKETS; b++)
        config.bucket_elements[b] = 2 + 300 * b; /* the first leaves chunks empty */
    for (uint32_t s = 0; s < (step % 2 == 0 ? SHARDS : w->real); s++)
        plan_mask_set(&config.present, s);
    exchange_begin(&me->exchange[step % 2], &config);
    me->begun[step % 2] = step + 1;
    return &me->exchange[step % 2];
}

static void post(struct world *w, uint32_t from, uint32_t to, struct frame frame)
{
    struct way *way = &w->way[from][to];

    assert_true(way->end < FRAMES_MAX);
    way->frames[way->end++] = frame;
}

static bool empty_chunk(const struct exchange *x, uint32_t bucket, uint32_t chunk)
{
    uint64_t first, count;

    plan_chunk(x->config.bucket_elements[bucket], x->config.world, chunk, &first, &count);
    return count == 0;
}

static bool is_sent(enum exchange_action_type type)
{
    return type == EXCHANGE_SEND_WORD || type == EXCHANGE_SEND_PIECES ||
           type == EXCHANGE_SEND_RESULT || type == EXCHANGE_SEND_AUDIT;
}

static void carry_out(struct world *w, uint32_t r, uint32_t step,
                      const struct exchange_actions *actions)
{
    struct exchange *x = exchange_at(w, r, step);

    for (uint32_t i = 0; i < actions->count; i++) {
        const struct exchange_action *a = &actions->list[i];
        struct frame frame = {.type = a->type, .step = step, .bucket = a->bucket, .chunk = r};
        struct exchange_actions more = {.count = 0};

        if (a->type == EXCHANGE_SEND_PIECES) {
            frame.level = x->nodes[a->node].level;
            frame.index = x->nodes[a->node].index;
        }
        for (uint32_t to = 0; to < w->ranks; to++) {
            if (a->type == EXCHANGE_SEND_PIECES)
                frame.chunk = to;
            if (to == r || !is_sent(a->type) ||
                (a->type == EXCHANGE_SEND_PIECES && empty_chunk(x, a->bucket, to)))
                continue;
            post(w, r, to, frame);
        }
        if (a->type == EXCHANGE_ADD) { /* writes this rank's chunk of R, which may still be on its
                                          way */
            for (uint32_t other = 0; other < w->ranks; other++)
                assert_true(w->rank[other].step >= step);
            w->rank[r].adds[a->bucket]++;
            assert_int_equal(exchange_added(x, a->bucket, &more), EXCHANGE_FINE);
        }
        if (a->type == EXCHANGE_COMPLETE)
            w->rank[r].pending = true;
        w->rank[r].checking |= a->type == EXCHANGE_CHECK;
        w->rank[r].auditing |= a->type == EXCHANGE_AUDIT;
        carry_out(w, r, step, &more);
    }
}

static void deliver(struct world *w, uint32_t from, uint32_t to)
{
    struct way *way = &w->way[from][to];
    const struct frame f = way->frames[way->first++];
    struct exchange *x = exchange_at(w, to, f.step);
    struct exchange_actions actions = {.count = 0};
    struct exchange_word word = word_of(w);
    enum exchange_fault fault;

    if (f.type == EXCHANGE_SEND_WORD) {
        fault = exchange_word(x, from, &word, &actions);
    } else if (f.type == EXCHANGE_SEND_AUDIT) {
        fault = exchange_audit(x, from, 99, &actions);
    } else if (f.type == EXCHANGE_SEND_PIECES) {
        uint32_t node = exchange_find_node(x, f.level, f.index);

        fault = exchange_piece(x, from, f.bucket, f.chunk, node, &actions);
    } else { /* received straight into R */
        assert_int_equal(w->rank[to].step, f.step);
        fault = exchange_result(x, from, f.bucket, f.chunk, &actions);
    }
    if (fault != EXCHANGE_FINE)
        fail_msg("seed %u: rank %u got from %u in step %u: %s", w->seed, to, from, f.step,
                 exchange_fault_text(fault));
    carry_out(w, to, f.step, &actions);
}

/* The answer to CHECK or AUDIT, a while after it was asked for. */
static bool answer(struct world *w, uint32_t r)
{
    struct rank *me = &w->rank[r];
    struct exchange *x = exchange_at(w, r, me->step);
    struct exchange_actions actions = {.count = 0};

    if (me->checking) {
        me->checking = false;
        assert_false(me->checked);
        me->checked = true;
        assert_true(exchange_checked(x, 7, &actions));
    } else if (me->auditing) {
        me->auditing = false;
        me->audited = true;
        assert_int_equal(exchange_audited(x, 99, &actions), EXCHANGE_FINE);
        assert_int_equal(exchange_audited(x, 99, &actions), EXCHANGE_TWICE);
    } else {
        return false;
    }
    carry_out(w, r, me->step, &actions);
    return true;
}

/* The step is complete: all that it takes was done. */
static void apply(struct world *w, uint32_t r)
{
    struct rank *me = &w->rank[r];
    struct exchange *x = exchange_at(w, r, me->step);

    for (uint32_t b = 0; b < BUCKETS; b++)
        assert_int_equal(me->adds[b], !empty_chunk(x, b, r));
    assert_true(me->checked || me->nodes_ready[0] == 0); /* who sent none has nothing to check */
    assert_int_equal(me->audited, audit_has(&x->audit, r));
    if (w->audit != 0 && me->step % w->audit == 0 && w->ranks > 1)
        assert_int_equal(x->audit.count, w->ranks == 2 ? 2 : 3);
    else
        assert_int_equal(x->audit.count, 0);
    me->step++;
    me->started = me->pending = me->checked = me->audited = false;
    memset(me->adds, 0, sizeof me->adds);
    memset(me->nodes_ready, 0, sizeof me->nodes_ready);
}

/* What this rank can do by itself; false: nothing. */
static bool move(struct world *w, uint32_t r)
{
    struct rank *me = &w->rank[r];
    struct exchange_actions actions = {.count = 0};
    struct exchange_word word = word_of(w);
    struct exchange *x;

    if (me->step == STEPS)
        return false;
    x = exchange_at(w, r, me->step);
    if (me->pending) {
        apply(w, r);
        return true;
    }
    if (draw(w, 2) == 0 && answer(w, r))
        return true;
    if (!me->started) {
        me->started = true;
        exchange_start(x, &word, &actions);
        carry_out(w, r, me->step, &actions);
        return true;
    }
    for (uint32_t b = 0; b < BUCKETS; b++)
        for (uint32_t n = 0; n < x->node_count; n++)
            if (x->nodes[n].owner == r && (me->nodes_ready[b] >> n & 1) == 0) {
                me->nodes_ready[b] |= UINT64_C(1) << n;
                assert_int_equal(exchange_node_ready(x, b, n, &actions), EXCHANGE_FINE);
                carry_out(w, r, me->step, &actions);
                return true;
            }
    return answer(w, r);
}

/* One random thing that can happen; false: nothing can. */
static bool happen(struct world *w)
{
    uint32_t ways = w->ranks * (w->ranks + 1), begin = draw(w, ways);

    for (uint32_t i = 0; i < ways; i++) {
        uint32_t k = (begin + i) % ways, from = k / (w->ranks + 1), to = k % (w->ranks + 1);

        if (to == w->ranks ? move(w, from) : w->way[from][to].first < w->way[from][to].end) {
            if (to < w->ranks)
                deliver(w, from, to);
            return true;
        }
    }
    return false;
}

static void every_order_comes_to_the_same_end(void **state)
{
    struct world *w = malloc(sizeof *w);

    (void)state;
    assert_non_null(w);
    for (unsigned seed = 1; seed <= 600; seed++) {
        memset(w, 0, sizeof *w);
        w->seed = seed;
        w->random = seed;
        w->ranks = 1 + draw(w, WORLD_MAX);
        w->audit = draw(w, 3);
        w->real = 1 + draw(w, SHARDS); /* ranks whose shards are all absent owe no piece */
        for (uint32_t s = 0; s < SHARDS; s++)
            w->owner[s] = (uint16_t)(s * w->ranks / SHARDS);
        while (happen(w))
            continue;
        for (uint32_t r = 0; r < w->ranks; r++)
            if (w->rank[r].step != STEPS)
                fail_msg("seed %u: rank %u of %u stands at step %u, waiting for %u", seed, r,
                         w->ranks, w->rank[r].step,
                         exchange_missing_rank(exchange_at(w, r, w->rank[r].step)));
    }
    free(w);
}

static void faults_change_nothing(void **state)
{
    static struct world w = {.ranks = 2, .real = SHARDS};
    struct exchange_actions actions = {.count = 0};
    struct exchange_word word = {1, 7, true, 0};
    struct exchange *x, before;

    (void)state;
    for (uint32_t s = 0; s < SHARDS; s++)
        w.owner[s] = s >= SHARDS / 2;
    x = exchange_at(&w, 0, 0);
    before = *x;
    assert_int_equal(exchange_word(x, 0, &word, &actions), EXCHANGE_RANK);
    assert_int_equal(exchange_word(x, 2, &word, &actions), EXCHANGE_RANK);
    assert_int_equal(exchange_piece(x, 1, BUCKETS, 0, 1, &actions), EXCHANGE_BUCKET);
    assert_int_equal(exchange_piece(x, 1, 1, 1, 1, &actions), EXCHANGE_CHUNK);
    assert_int_equal(exchange_piece(x, 1, 1, 0, 0, &actions), EXCHANGE_NODE);
    assert_int_equal(exchange_result(x, 1, 1, 0, &actions), EXCHANGE_CHUNK);
    assert_int_equal(exchange_result(x, 1, 1, 1, &actions), EXCHANGE_EARLY);
    assert_int_equal(exchange_audit(x, 0, 99, &actions), EXCHANGE_RANK);
    assert_int_equal(exchange_audit(x, 2, 99, &actions), EXCHANGE_RANK);
    assert_int_equal(exchange_audited(x, 99, &actions), EXCHANGE_UNASKED);
    assert_int_equal(actions.count, 0);
    assert_memory_equal(&before, x, sizeof before);
    assert_int_equal(exchange_word(x, 1, &word, &actions), EXCHANGE_FINE);
    assert_int_equal(exchange_word(x, 1, &word, &actions), EXCHANGE_TWICE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_order_comes_to_the_same_end),
        cmocka_unit_test(faults_change_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
