/* What comes out never depends on what was prefetched, nor on when. */
#include "data/prefetch.h"

#include "data/sampler.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { COUNT = 503, SEED = 77, B = 8 };

/* Samples that say who they are: every pixel of sample i is i % 251, its label i % 10. */
static struct mnist_set make_set(void)
{
    struct mnist_set set = {malloc((size_t)COUNT * MNIST_PIXELS), malloc(COUNT), COUNT};

    assert_non_null(set.images);
    assert_non_null(set.labels);
    for (size_t i = 0; i < COUNT; i++) {
        memset(set.images + i * MNIST_PIXELS, (int)(i % 251), MNIST_PIXELS);
        set.labels[i] = (uint8_t)(i % 10);
    }
    return set;
}

static void free_set(struct mnist_set *set)
{
    free(set->images);
    free(set->labels);
}

/* 0 = right; else the place that is wrong, from 1. No cmocka: also called on other threads. */
static uint32_t wrong_place(const struct batch_key *key, const uint8_t *images,
                            const uint8_t *labels)
{
    for (uint32_t j = 0; j < key->real; j++) {
        uint64_t at = sampler_index(SEED, key->epoch, COUNT, key->first + j);

        if (labels[j] != at % 10 || images[(size_t)j * MNIST_PIXELS] != at % 251 ||
            images[(size_t)(j + 1) * MNIST_PIXELS - 1] != at % 251)
            return j + 1;
    }
    return 0;
}

static bool take(struct prefetch *prefetch, const struct batch_key *key)
{
    uint8_t images[B * MNIST_PIXELS], labels[B];
    bool ready;

    memset(images, 0xee, sizeof images);
    memset(labels, 0xee, sizeof labels);
    ready = prefetch_take(prefetch, key, images, labels);
    if (wrong_place(key, images, labels) != 0)
        fail_msg("epoch %llu, first %llu: sample %u is wrong (%s)", (unsigned long long)key->epoch,
                 (unsigned long long)key->first, wrong_place(key, images, labels) - 1,
                 ready ? "was ready" : "was gathered inline");
    return ready;
}

static void what_was_wanted_is_ready(void **state)
{
    struct mnist_set set = make_set();
    struct prefetch *prefetch = prefetch_open(&set, SEED, B, 4);
    struct batch_key keys[6];

    (void)state;
    assert_non_null(prefetch);
    for (uint32_t i = 0; i < 6; i++)
        keys[i] = (struct batch_key){1, i * B, i == 5 ? 3 : B};
    prefetch_want(prefetch, keys, 6);
    prefetch_settle(prefetch);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(take(prefetch, &keys[i]), i < 4); /* beyond the slots: inline */
    assert_false(take(prefetch, &keys[0])); /* taken once: not there a second time */
    prefetch_close(prefetch);
    free_set(&set);
}

static void other_wishes_replace(void **state)
{
    struct mnist_set set = make_set();
    struct prefetch *prefetch = prefetch_open(&set, SEED, B, 2);
    struct batch_key a[2] = {{0, 0, B}, {0, 8, B}}, b[2] = {{0, 8, B}, {2, 8, B}};

    (void)state;
    assert_non_null(prefetch);
    prefetch_want(prefetch, a, 2);
    prefetch_settle(prefetch);
    prefetch_want(prefetch, b, 2);
    prefetch_settle(prefetch);
    assert_false(take(prefetch, &a[0]));
    assert_true(take(prefetch, &b[0]));
    assert_true(take(prefetch, &b[1]));
    prefetch_want(prefetch, a, 2);
    prefetch_want(prefetch, NULL, 0);
    prefetch_settle(prefetch);
    assert_false(take(prefetch, &a[1]));
    prefetch_close(prefetch);
    free_set(&set);
}

static void no_slots_and_nothing_open(void **state)
{
    struct mnist_set set = make_set();
    struct prefetch *prefetch = prefetch_open(&set, SEED, B, 0);
    struct batch_key key = {0, COUNT - 5, 5}, none = {0, COUNT, 0};

    (void)state;
    assert_non_null(prefetch);
    prefetch_want(prefetch, &key, 1);
    assert_false(take(prefetch, &key));
    assert_false(take(prefetch, &none));
    prefetch_close(prefetch);
    prefetch_close(NULL);
    free_set(&set);
}

/* One of several threads that take and wish at once. */
struct taker {
    struct prefetch *prefetch; /* shared */
    uint64_t random;           /* state */
    uint32_t wrong, ready;     /* counts */
};

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void *run_taker(void *argument)
{
    struct taker *t = argument;
    uint8_t images[B * MNIST_PIXELS], labels[B];

    for (int round = 0; round < 2000; round++) {
        struct batch_key keys[3];

        for (int i = 0; i < 3; i++)
            keys[i] = (struct batch_key){next_random(&t->random) % 2,
                                         next_random(&t->random) % 6 * B,
                                         1 + (uint32_t)(next_random(&t->random) % B)};
        prefetch_want(t->prefetch, keys, 3);
        for (int i = 0; i < 3; i++) {
            t->ready += prefetch_take(t->prefetch, &keys[i], images, labels);
            t->wrong += wrong_place(&keys[i], images, labels) != 0;
        }
    }
    return NULL;
}

static void several_threads_at_once(void **state)
{
    struct mnist_set set = make_set();
    struct taker takers[3];
    pthread_t threads[3];
    uint32_t ready = 0;

    (void)state;
    for (uint32_t slots = 1; slots <= 9; slots += 4) {
        struct prefetch *prefetch = prefetch_open(&set, SEED, B, slots);

        assert_non_null(prefetch);
        for (uint32_t i = 0; i < 3; i++) {
            takers[i] = (struct taker){prefetch, i + 1, 0, 0};
            assert_int_equal(pthread_create(&threads[i], NULL, run_taker, &takers[i]), 0);
        }
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
            assert_int_equal(takers[i].wrong, 0);
            ready += takers[i].ready;
        }
        prefetch_close(prefetch);
    }
    print_message("%u of 54000 were ready\n", ready);
    free_set(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_wanted_is_ready),
        cmocka_unit_test(other_wishes_replace),
        cmocka_unit_test(no_slots_and_nothing_open),
        cmocka_unit_test(several_threads_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
