/* Names of folders, and which of them go: pure rules. */
#include "ckpt/folder.h"
#include "ckpt/retain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static void steps_have_one_name_each(void **state)
{
    static const uint64_t steps[] = {0, 1, 99999999, 100000000, INT64_MAX};
    static const char *const others[] = {"",
                                         "step-",
                                         "step-1",
                                         "step-0000001",
                                         "step-000000001",
                                         "step-00000001 ",
                                         "step-00000001x",
                                         "step-00000001.tmp",
                                         "step-00000001.tmp-1-ab",
                                         "Step-00000001",
                                         "step--0000001",
                                         "step-+0000001",
                                         "xstep-00000001",
                                         "step-00000000000000000001",
                                         "step-99999999999999999999"};
    char name[FOLDER_NAME_BYTES];
    uint64_t step;

    (void)state;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        folder_step_name(steps[i], name);
        if (!folder_step(name, &step) || step != steps[i])
            fail_msg("%s was read as %llu", name, (unsigned long long)step);
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (folder_step(others[i], &step))
            fail_msg("%s was taken for step %llu", others[i], (unsigned long long)step);
}

static void unfinished_ones_have_a_name_each_time_anew(void **state)
{
    static const char *const others[] = {"step-00000001",           "step-00000001.tmp",
                                         "step-00000001.tmp-",      "step-00000001.tmp-x-ab",
                                         "step-00000001.tmp-05-ab", "step-00000001.tmp-5",
                                         "step-1.tmp-5-ab",         "step-00000001tmp-5-ab"};
    char first[FOLDER_NAME_BYTES], second[FOLDER_NAME_BYTES];
    uint64_t step = 0, generation = 0;

    (void)state;
    folder_temporary_name(42, 17, first);
    folder_temporary_name(42, 17, second);
    assert_string_not_equal(first, second);
    assert_true(folder_temporary(first, &step, &generation));
    assert_int_equal(step, 42);
    assert_int_equal(generation, 17);
    assert_false(folder_step(first, &step));
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (folder_temporary(others[i], &step, &generation))
            fail_msg("%s was taken for an unfinished one", others[i]);
}

/* Which of `steps` (0 ends them; negative = broken) go when `saved` has become durable. */
static void expect_dropped(const int *steps, uint64_t saved, uint64_t keep, const char *dropped)
{
    struct ckpt_row rows[8] = {{.step = 0}};
    char got[9] = "";
    uint32_t count = 0;

    for (; steps[count] != 0; count++) {
        rows[count].step = (uint64_t)(steps[count] < 0 ? -steps[count] : steps[count]);
        rows[count].valid = steps[count] > 0;
    }
    for (uint32_t i = 0; i < count; i++)
        got[i] = retain_drops(rows, count, i, saved, keep) ? 'x' : '.';
    if (strcmp(got, dropped) != 0)
        fail_msg("saved %llu, keep %llu: %s went, expected %s", (unsigned long long)saved,
                 (unsigned long long)keep, got, dropped);
}

static void old_ones_go_when_enough_newer_ones_are_whole(void **state)
{
    static const int whole[] = {50, 40, 30, 20, 10, 0}, holes[] = {50, -40, 30, -20, 10, 0};
    static const int ahead[] = {90, 80, 50, 40, 30, 0}, alone[] = {50, -40, -30, 0};

    (void)state;
    expect_dropped(whole, 50, 0, ".....");
    expect_dropped(whole, 50, 1, ".xxxx");
    expect_dropped(whole, 50, 3, "...xx");
    expect_dropped(whole, 50, 5, ".....");
    expect_dropped(holes, 50, 1, ".xxxx");
    expect_dropped(holes, 50, 2, "...xx"); /* a broken one between kept ones stays to be seen */
    expect_dropped(holes, 50, 3, ".....");
    expect_dropped(ahead, 50, 1, "...xx"); /* 80 and 90 are another run's */
    expect_dropped(ahead, 50, 2, "....x");
    expect_dropped(alone, 50, 2, "...");
}

static void unfinished_ones_go_when_their_writer_cannot_come_back(void **state)
{
    (void)state;
    assert_false(retain_drops_temporary(50, 3, 0, 50, 3));
    assert_true(retain_drops_temporary(50, 2, 0, 50, 3));
    assert_false(retain_drops_temporary(51, 2, 0, 50, 3));
    assert_false(retain_drops_temporary(50, 4, 0, 50, 3));
    assert_false(retain_drops_temporary(50, 3, RETAIN_TEMPORARY_S, 50, 3));
    assert_true(retain_drops_temporary(50, 3, RETAIN_TEMPORARY_S + 1, 50, 3));
    assert_false(retain_drops_temporary(50, 3, -RETAIN_TEMPORARY_S - 1, 50, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_have_one_name_each),
        cmocka_unit_test(unfinished_ones_have_a_name_each_time_anew),
        cmocka_unit_test(old_ones_go_when_enough_newer_ones_are_whole),
        cmocka_unit_test(unfinished_ones_go_when_their_writer_cannot_come_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
