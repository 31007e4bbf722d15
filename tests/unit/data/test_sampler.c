/* The order of samples: a permutation for every size, another one for every epoch and seed, and
 * with the arithmetic of shards every sample exactly once. */
#include "comm/reduce_plan.h"
#include "data/sampler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void is_permutation(uint64_t seed, uint64_t epoch, uint64_t n, uint8_t *seen)
{
    memset(seen, 0, n);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = sampler_index(seed, epoch, n, i);

        if (at >= n || seen[at]++)
            fail_msg("seed %llu, epoch %llu, n %llu: index %llu goes to %llu, %s",
                     (unsigned long long)seed, (unsigned long long)epoch, (unsigned long long)n,
                     (unsigned long long)i, (unsigned long long)at,
                     at >= n ? "outside" : "a second time");
    }
}

static void every_small_size_is_a_permutation(void **state)
{
    uint8_t *seen = malloc(3000);

    (void)state;
    assert_non_null(seen);
    for (uint64_t n = 1; n <= 3000; n++)
        is_permutation(n * 7919, n % 5, n, seen);
    free(seen);
}

static void large_sizes_are_permutations(void **state)
{
    static const uint64_t sizes[] = {4095,  4096,  4097,    60000,  65535,
                                     65536, 65537, 1000003, 1 << 20};
    uint8_t *seen = malloc(1 << 20);

    (void)state;
    assert_non_null(seen);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        is_permutation(~(uint64_t)i, i, sizes[i], seen);
    free(seen);
}

static void huge_sizes_stay_inside(void **state)
{
    (void)state;
    for (unsigned bits = 21; bits <= 40; bits++)
        for (uint64_t i = 0; i < 1000; i++) {
            uint64_t n = ((uint64_t)1 << bits) - (i % 3), at = sampler_index(42, 1, n, n - 1 - i);

            if (at >= n)
                fail_msg("n %llu: %llu", (unsigned long long)n, (unsigned long long)at);
        }
}

/* How many of the first 1,000 places are equal in two orders: about none. */
static unsigned equal_places(uint64_t seed_a, uint64_t epoch_a, uint64_t seed_b, uint64_t epoch_b)
{
    unsigned equal = 0;

    for (uint64_t i = 0; i < 1000; i++)
        equal +=
            sampler_index(seed_a, epoch_a, 60000, i) == sampler_index(seed_b, epoch_b, 60000, i);
    return equal;
}

static void epochs_and_seeds_differ(void **state)
{
    (void)state;
    for (uint64_t k = 0; k < 50; k++) {
        unsigned epoch = equal_places(1, k, 1, k + 1), seed = equal_places(k, 3, k + 1, 3);
        unsigned both = equal_places(k, k + 1, k + 1, k), own = 0;

        for (uint64_t i = 0; i < 1000; i++)
            own += sampler_index(k, 0, 60000, i) == i;
        if (epoch > 5 || seed > 5 || both > 5 || own > 5)
            fail_msg(
                "k %llu: %u of 1,000 places equal in the next epoch, %u with the next seed, %u "
                "with both exchanged, %u in their own place",
                (unsigned long long)k, epoch, seed, both, own);
    }
}

/* Places and samples in 16 x 16 cells: chi-square with 225 degrees of freedom, mean 225, deviation
 * 21. The sum of 20 orders has mean 4,500 and deviation 95; six deviations are allowed. */
static void samples_scatter_evenly(void **state)
{
    double sum = 0;

    (void)state;
    for (uint64_t epoch = 0; epoch < 20; epoch++) {
        unsigned cells[16][16] = {{0}};
        const uint64_t n = 60000;
        double expected = (double)n / 256;

        for (uint64_t i = 0; i < n; i++)
            cells[i * 16 / n][sampler_index(99, epoch, n, i) * 16 / n]++;
        for (int a = 0; a < 16; a++)
            for (int b = 0; b < 16; b++)
                sum += (cells[a][b] - expected) * (cells[a][b] - expected) / expected;
    }
    if (sum < 4500 - 570 || sum > 4500 + 570)
        fail_msg("chi-square %.0f, expected 4,500 +- 570", sum);
}

/* Neighbours in the order are not neighbours in the data: the distance of two is n/3 in the
 * mean. */
static void neighbours_part(void **state)
{
    const uint64_t n = 60000;
    double sum = 0;

    (void)state;
    for (uint64_t i = 0; i + 1 < n; i++) {
        uint64_t a = sampler_index(5, 0, n, i), b = sampler_index(5, 0, n, i + 1);

        sum += (double)(a > b ? a - b : b - a);
    }
    sum /= (double)(n - 1);
    if (sum < 0.32 * (double)n || sum > 0.3467 * (double)n)
        fail_msg("mean distance %.0f, expected about %llu", sum, (unsigned long long)n / 3);
}

/* All shards of all steps of three epochs: each sample exactly once in each, whatever the sizes. */
static void once_per_epoch(const struct plan_shape *shape, uint8_t *seen)
{
    uint64_t per_epoch = plan_steps_per_epoch(shape);

    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        uint64_t count = 0;

        memset(seen, 0, shape->samples);
        for (uint64_t step = epoch * per_epoch; step < (epoch + 1) * per_epoch; step++)
            for (uint32_t shard = 0; shard < shape->shards; shard++) {
                uint64_t first =
                    ((step % per_epoch) * shape->shards + shard) * shape->shard_samples;
                uint32_t real = plan_shard_real(shape, step, shard);

                for (uint32_t j = 0; j < real; j++)
                    count += !seen[sampler_index(11, epoch, shape->samples, first + j)]++;
            }
        for (uint64_t i = 0; i < shape->samples; i++)
            if (seen[i] != 1)
                fail_msg("n %llu, S %u, B %u, epoch %llu: sample %llu seen %u times",
                         (unsigned long long)shape->samples, shape->shards, shape->shard_samples,
                         (unsigned long long)epoch, (unsigned long long)i, seen[i]);
        assert_int_equal(count, shape->samples);
    }
}

static void every_sample_once_per_epoch(void **state)
{
    static const uint64_t sizes[] = {1, 2, 3, 7, 31, 32, 33, 255, 256, 257, 1000, 4099, 60000};
    static const uint32_t shards[] = {1, 2, 3, 5, 8, 13, 64}, samples[] = {1, 3, 7, 32, 33};
    uint8_t *seen = malloc(60000);

    (void)state;
    assert_non_null(seen);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t k = 0; k < sizeof shards / sizeof shards[0]; k++)
            for (size_t b = 0; b < sizeof samples / sizeof samples[0]; b++) {
                struct plan_shape shape = {sizes[i], shards[k], samples[b]};

                if (sizes[i] < 60000 || (k + b) % 5 == 0)
                    once_per_epoch(&shape, seen);
            }
    free(seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_small_size_is_a_permutation),
        cmocka_unit_test(large_sizes_are_permutations),
        cmocka_unit_test(huge_sizes_stay_inside),
        cmocka_unit_test(epochs_and_seeds_differ),
        cmocka_unit_test(samples_scatter_evenly),
        cmocka_unit_test(neighbours_part),
        cmocka_unit_test(every_sample_once_per_epoch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
