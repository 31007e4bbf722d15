/* The books of a catch-up: from whatever point the chunks and records come, the state is whole only
 * when each chunk has seen each record exactly once; a gap or a lag is told. */
#include "train/catchup.h"
#include "unit/train/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define CHUNKS 23

/* A spare and its member: a chunk of version v is the number v, and an update adds 1 when it has
 * the right record. */
struct rig {
    struct catchup catchup;
    struct catchup_source source;
    uint64_t versions[CHUNKS];             /* the books' own */
    uint64_t values[CHUNKS];               /* of the spare: what was really done */
    bool here[CHUNKS];                     /* of the spare */
    uint64_t records[CATCHUP_RECORDS_MAX]; /* by step % CATCHUP_RECORDS_MAX */
    uint64_t step;                         /* next step of the group */
    uint64_t seed;                         /* for sentences */
};

static void begin(struct rig *rig, uint64_t step, uint64_t seed)
{
    memset(rig, 0, sizeof *rig);
    rig->step = step;
    rig->seed = seed;
    catchup_begin(&rig->catchup, rig->versions, CHUNKS);
}

static void update_due(struct rig *rig, uint64_t chunk)
{
    uint64_t step;

    while (catchup_due(&rig->catchup, chunk, &step)) {
        if (!rig->here[chunk] || rig->values[chunk] != step ||
            rig->records[step % CATCHUP_RECORDS_MAX] != step)
            fail_msg("seed %llu: chunk %llu at %llu, asked to take record %llu, kept is %llu",
                     (unsigned long long)rig->seed, (unsigned long long)chunk,
                     (unsigned long long)rig->values[chunk], (unsigned long long)step,
                     (unsigned long long)rig->records[step % CATCHUP_RECORDS_MAX]);
        rig->values[chunk]++;
        catchup_updated(&rig->catchup, chunk);
    }
}

/* The group ends a step: a record, then chunks of the state as it is now. */
static void group_step(struct rig *rig, uint64_t budget, uint64_t plan)
{
    uint64_t first, count;

    assert_true(catchup_record(&rig->catchup, rig->step, plan));
    rig->records[rig->step % CATCHUP_RECORDS_MAX] = rig->step;
    rig->step++;
    count = catchup_stage(&rig->source, CHUNKS, budget, &first);
    assert_true(count <= budget);
    for (uint64_t chunk = first; chunk < first + count; chunk++) {
        assert_true(catchup_chunk(&rig->catchup, chunk, rig->step));
        rig->values[chunk] = rig->step;
        rig->here[chunk] = true;
    }
}

static bool really_whole(const struct rig *rig)
{
    for (uint64_t i = 0; i < CHUNKS; i++)
        if (!rig->here[i] || rig->values[i] != rig->step)
            return false;
    return true;
}

static void check_whole(const struct rig *rig, uint64_t plan)
{
    uint64_t version = 0, seen_plan = 0;
    bool whole = catchup_whole(&rig->catchup, &version, &seen_plan);

    if (whole != really_whole(rig))
        fail_msg("seed %llu, step %llu: whole %d, really %d", (unsigned long long)rig->seed,
                 (unsigned long long)rig->step, whole, really_whole(rig));
    if (whole && (version != rig->step || seen_plan != plan))
        fail_msg("seed %llu: version %llu, plan %llu, expected %llu and %llu",
                 (unsigned long long)rig->seed, (unsigned long long)version,
                 (unsigned long long)seen_plan, (unsigned long long)rig->step,
                 (unsigned long long)plan);
}

/* Chunks a few at a time, updates now and then, for as many steps as it takes. */
static void it_is_whole_when_every_chunk_has_seen_every_record(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct rig rig;
        uint64_t random = seed, budget = 1 + seed % 9, steps = CHUNKS / budget + 5;

        begin(&rig, seed % 3 == 0 ? 0 : seed * 10, seed);
        for (uint64_t k = 0; k < steps; k++) {
            group_step(&rig, budget, k == steps - 1 ? 77 : 0);
            for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
                if (tree_random(&random) % 3 == 0)
                    update_due(&rig, chunk);
            check_whole(&rig, k == steps - 1 ? 77 : 0);
        }
        for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
            update_due(&rig, chunk);
        assert_true(really_whole(&rig));
        check_whole(&rig, 77);
        group_step(&rig, budget, 0); /* and in step from then on */
        check_whole(&rig, 0);
        for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
            update_due(&rig, chunk);
        check_whole(&rig, 0);
    }
}

static void all_chunks_at_once_are_whole_at_once(void **state)
{
    struct rig rig;
    uint64_t version, plan;

    (void)state;
    begin(&rig, 5, 0);
    assert_false(catchup_whole(&rig.catchup, &version, &plan));
    group_step(&rig, CHUNKS, 0);
    check_whole(&rig, 0);
    assert_true(really_whole(&rig));
    assert_int_equal(catchup_needed(&rig.catchup), rig.step);
}

static void a_gap_is_told(void **state)
{
    struct rig rig;

    (void)state;
    begin(&rig, 5, 0);
    group_step(&rig, 2, 0);
    assert_false(catchup_record(&rig.catchup, rig.step + 1, 0)); /* one is missing */
    assert_false(catchup_record(&rig.catchup, rig.step - 1, 0)); /* it was here before */
    assert_false(catchup_chunk(&rig.catchup, 3, 4));             /* its records are gone */
    assert_false(catchup_chunk(&rig.catchup, 3, rig.step + 1));  /* its record has not come */
    assert_false(catchup_chunk(&rig.catchup, CHUNKS, rig.step));
    assert_true(catchup_chunk(&rig.catchup, 3, rig.step));
    assert_true(catchup_chunk(&rig.catchup, 4, 5)); /* as it was before the first record */
    assert_int_equal(catchup_needed(&rig.catchup), 5);
}

/* Records are kept for the chunks that lack them; with a chunk too far behind there is no room for
 * more. */
static void who_cannot_keep_up_is_told(void **state)
{
    struct rig rig;

    (void)state;
    begin(&rig, 0, 0);
    assert_true(catchup_chunk(&rig.catchup, 0, 0));
    rig.here[0] = true;
    for (uint64_t k = 0; k < CATCHUP_RECORDS_MAX; k++)
        group_step(&rig, 0, 0);
    assert_false(catchup_record(&rig.catchup, rig.step, 0));
    assert_int_equal(catchup_needed(&rig.catchup), 0);
    update_due(&rig, 0);
    assert_int_equal(rig.values[0], CATCHUP_RECORDS_MAX);
    group_step(&rig, 0, 0); /* room again */
}

static void beginning_again_forgets_all(void **state)
{
    struct rig rig;
    uint64_t step;

    (void)state;
    begin(&rig, 9, 0);
    group_step(&rig, CHUNKS, 0);
    begin(&rig, 3, 0);
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        assert_false(catchup_due(&rig.catchup, chunk, &step));
    assert_false(really_whole(&rig));
    group_step(&rig, CHUNKS, 0); /* an earlier step is no gap now */
    check_whole(&rig, 0);
}

static void chunks_are_staged_within_the_budget(void **state)
{
    (void)state;
    for (uint64_t budget = 1; budget < 30; budget++) {
        struct catchup_source source = {0};
        uint64_t first, count, at = 0;

        while ((count = catchup_stage(&source, CHUNKS, budget, &first)) > 0) {
            assert_int_equal(first, at);
            assert_true(count <= budget);
            at += count;
        }
        assert_int_equal(at, CHUNKS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_whole_when_every_chunk_has_seen_every_record),
        cmocka_unit_test(all_chunks_at_once_are_whole_at_once),
        cmocka_unit_test(a_gap_is_told),
        cmocka_unit_test(who_cannot_keep_up_is_told),
        cmocka_unit_test(beginning_again_forgets_all),
        cmocka_unit_test(chunks_are_staged_within_the_budget),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
