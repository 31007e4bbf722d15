/* The order of additions: whoever owns what, the sum has the bits of the canonical tree. */
#include "comm/reduce_plan.h"
#include "unit/train/tree.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define WORLDS 8
#define SHARDS 64

/* Runs a program on one value a node; slots are written before they are read, and the left operand
 * stands left. */
static float execute(const struct plan_program *program, const struct plan_node *nodes,
                     const float *inputs, uint32_t count)
{
    float values[PLAN_NODES_MAX + PLAN_TEMPS_MAX];
    uint32_t places[PLAN_NODES_MAX + PLAN_TEMPS_MAX], slots = count + program->temp_count;
    float result = NAN;

    assert_true(program->op_count >= 1 && program->op_count <= PLAN_OPS_MAX);
    assert_true(program->temp_count <= PLAN_TEMPS_MAX);
    for (uint32_t k = 0; k < slots; k++) {
        values[k] = k < count ? inputs[k] : NAN;
        places[k] = k < count ? (uint32_t)nodes[k].index << nodes[k].level : UINT32_MAX;
    }
    for (uint32_t k = 0; k < program->op_count; k++) {
        const struct plan_op *op = &program->ops[k];
        bool copy = op->b == PLAN_COPY;

        assert_true(op->a < slots && places[op->a] != UINT32_MAX);
        assert_true(copy || (op->b < slots && places[op->b] != UINT32_MAX));
        assert_true(copy || places[op->a] < places[op->b]);
        result = copy ? values[op->a] : values[op->a] + values[op->b];
        assert_int_equal(op->dst == PLAN_RESULT, k + 1 == program->op_count);
        if (op->dst == PLAN_RESULT)
            continue;
        assert_true(op->dst >= count && op->dst < slots);
        values[op->dst] = result;
        places[op->dst] = places[op->a];
    }
    return result;
}

/* Nodes of all ranks, each summed by its owner, put together. */
static float sum_by(uint32_t shards, uint32_t world, const uint16_t *owner,
                    const struct plan_mask *present, const float *values)
{
    struct plan_node nodes[PLAN_NODES_MAX], root = plan_root(shards);
    struct plan_program program;
    float inputs[PLAN_NODES_MAX];
    uint32_t count = plan_all_nodes(shards, world, owner, present, nodes);

    for (uint32_t k = 0; k < count; k++) {
        assert_true(k == 0 || (uint32_t)nodes[k - 1].index << nodes[k - 1].level <
                                  (uint32_t)nodes[k].index << nodes[k].level);
        assert_true(nodes[k].owner < world);
        inputs[k] = tree_sum(values, present, (uint32_t)nodes[k].index << nodes[k].level,
                             1u << nodes[k].level);
    }
    assert_true(plan_program(shards, &root, nodes, count, present, &program));
    return execute(&program, nodes, inputs, count);
}

static void expect_bits(float got, float expected, uint32_t shards, uint32_t world, uint64_t seed)
{
    if (memcmp(&got, &expected, sizeof got) != 0)
        fail_msg("S %u, world %u, seed %llu: %a, the tree gives %a", shards, world,
                 (unsigned long long)seed, (double)got, (double)expected);
}

/* Every world and S, ends of epochs, owners as after a start and mixed. */
static void any_ownership_gives_the_bits_of_the_tree(void **state)
{
    (void)state;
    for (uint32_t shards = 1; shards <= SHARDS; shards++)
        for (uint32_t world = 1; world <= WORLDS; world++)
            for (uint64_t round = 0; round < 12; round++) {
                uint64_t start = round * 1000000 + shards * 1000 + world, seed = start;
                struct plan_mask present;
                uint16_t owner[PLAN_SHARDS_MAX];
                float values[PLAN_SHARDS_MAX];

                for (uint32_t i = 0; i < shards; i++)
                    values[i] = tree_value(&seed);
                present = round % 3 == 0 ? tree_prefix(shards)
                          : round % 3 == 1
                              ? tree_prefix(1 + (uint32_t)(tree_random(&seed) % shards))
                              : tree_some(shards, &seed);
                tree_owners(shards, world, &seed, owner);
                expect_bits(sum_by(shards, world, owner, &present, values),
                            tree_sum(values, &present, 0, tree_size(shards)), shards, world, start);
            }
}

/* Without this the test above could not fail: from left to right the bits are others. */
static void another_order_gives_other_bits(void **state)
{
    uint64_t seed = 9;
    unsigned other = 0;

    (void)state;
    for (int i = 0; i < 100; i++) {
        struct plan_mask present = tree_prefix(16);
        float values[16], plain, tree;

        for (int k = 0; k < 16; k++)
            values[k] = tree_value(&seed);
        plain = values[0];
        for (int k = 1; k < 16; k++)
            plain += values[k];
        tree = tree_sum(values, &present, 0, 16);
        other += memcmp(&plain, &tree, sizeof plain) != 0;
    }
    assert_true(other > 50);
}

static void minus_zero_stays(void **state)
{
    (void)state;
    for (uint32_t shards = 1; shards <= SHARDS; shards++)
        for (uint32_t world = 1; world <= WORLDS; world++) {
            uint64_t seed = shards * 10 + world;
            struct plan_mask present = tree_some(shards, &seed);
            uint16_t owner[PLAN_SHARDS_MAX];
            float values[PLAN_SHARDS_MAX];

            for (uint32_t i = 0; i < shards; i++)
                values[i] = -0.0f;
            tree_owners(shards, world, &seed, owner);
            expect_bits(sum_by(shards, world, owner, &present, values), -0.0f, shards, world, seed);
        }
}

static void a_full_tree_of_256_fits(void **state)
{
    struct plan_mask present = tree_prefix(PLAN_SHARDS_MAX);
    float values[PLAN_SHARDS_MAX];
    uint16_t owner[PLAN_SHARDS_MAX];
    uint64_t seed = 256;

    (void)state;
    for (uint32_t i = 0; i < PLAN_SHARDS_MAX; i++) {
        values[i] = tree_value(&seed);
        owner[i] = (uint16_t)(i % 2); /* every shard a node of its own */
    }
    expect_bits(sum_by(PLAN_SHARDS_MAX, 2, owner, &present, values),
                tree_sum(values, &present, 0, PLAN_SHARDS_MAX), PLAN_SHARDS_MAX, 2, 256);
}

static void nodes_that_do_not_cover_are_refused(void **state)
{
    const struct plan_mask present = tree_prefix(6);
    const struct plan_node root = plan_root(6);
    const struct plan_node hole[] = {{0, 1, 0}, {2, 1, 0}},
                           over[] = {{0, 2, 0}, {1, 1, 0}, {2, 1, 0}};
    const struct plan_node twice[] = {{0, 3, 0}, {0, 3, 0}}, whole[] = {{0, 2, 0}, {2, 1, 0}};
    const struct plan_node absent[] = {{0, 2, 0}, {2, 1, 0}, {3, 1, 0}};
    struct plan_program program;

    (void)state;
    assert_false(plan_program(6, &root, hole, 2, &present, &program));
    assert_false(plan_program(6, &root, over, 3, &present, &program));
    assert_false(plan_program(6, &root, twice, 2, &present, &program));
    assert_false(plan_program(6, &root, absent, 3, &present, &program));
    assert_false(plan_program(6, &root, NULL, 0, &present, &program));
    assert_true(plan_program(6, &root, whole, 2, &present, &program));
    assert_int_equal(program.op_count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_ownership_gives_the_bits_of_the_tree),
        cmocka_unit_test(another_order_gives_other_bits),
        cmocka_unit_test(minus_zero_stays),
        cmocka_unit_test(a_full_tree_of_256_fits),
        cmocka_unit_test(nodes_that_do_not_cover_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
