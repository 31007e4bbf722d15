/* The ring of collectives: what beats see of it, what a crash writes, from many threads. */
#include "client/ledger.h"
#include "client/where.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

static struct ledger *ledger_new(void)
{
    struct ledger *ledger = calloc(1, sizeof *ledger);

    assert_non_null(ledger);
    ledger_begin(ledger, 1);
    return ledger;
}

static uint64_t enter(struct ledger *ledger, uint64_t seq, const char *name, uint64_t now_us)
{
    return ledger_enter(ledger,
                        &(struct muster_collective){.op = "all_reduce", .name = name,
                                                    .dtype = "float32", .count = 1000, .step = 3,
                                                    .place = "train.c:40", .seq = seq}, now_us);
}

static struct session_ledger look(struct ledger *ledger, uint32_t *seen)
{
    struct session_ledger out;

    assert_true(ledger_look(ledger, seen, &out));
    return out;
}

static void beats_see_the_oldest_that_is_open(void **state)
{
    struct ledger *ledger = ledger_new();
    struct session_ledger out;
    uint32_t seen = 0;

    (void)state;
    out = look(ledger, &seen);
    assert_int_equal(out.generation, 1);
    assert_int_equal(out.at, 0);
    assert_false(ledger_look(ledger, &seen, &out));
    assert_int_equal(enter(ledger, 0, "a", 100), 1);
    assert_int_equal(enter(ledger, 0, "b", 200), 2);
    out = look(ledger, &seen);
    assert_int_equal(out.entered, 2);
    assert_int_equal(out.left, 0);
    assert_int_equal(out.at, 1);
    assert_true(out.open);
    assert_int_equal(out.since_us, 100);
    assert_string_equal(out.op, "all_reduce");
    assert_string_equal(out.name, "a");
    assert_string_equal(out.dtype, "float32");
    assert_string_equal(out.place, "train.c:40");
    assert_int_equal(out.count, 1000);
    assert_int_equal(out.batch, 3);
    ledger_leave(ledger, 1, 300);
    out = look(ledger, &seen);
    assert_int_equal(out.left, 1);
    assert_string_equal(out.name, "b");
    ledger_leave(ledger, 2, 400);
    out = look(ledger, &seen);
    assert_int_equal(out.at, 2);
    assert_false(out.open);
    assert_int_equal(out.since_us, 400);
    free(ledger);
}

static void each_generation_counts_anew(void **state)
{
    struct ledger *ledger = ledger_new();
    struct session_ledger out;
    uint32_t seen = 0;

    (void)state;
    (void)enter(ledger, 0, "a", 1);
    (void)enter(ledger, 0, "b", 2);
    ledger_begin(ledger, 1); /* said again: nothing changes */
    ledger_begin(ledger, 2);
    out = look(ledger, &seen);
    assert_int_equal(out.generation, 2);
    assert_int_equal(out.entered, 0);
    assert_false(out.open); /* what was open is void */
    assert_int_equal(enter(ledger, 0, "c", 3), 1);
    assert_int_equal(enter(ledger, 41, "d", 4), 41);
    assert_int_equal(enter(ledger, 0, "e", 5), 42);
    free(ledger);
}

static void long_texts_are_cut_and_none_is_empty(void **state)
{
    struct ledger *ledger = ledger_new();
    struct session_ledger out;
    uint32_t seen = 0;
    char text[400];

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    (void)ledger_enter(ledger, &(struct muster_collective){.op = text, .place = text}, 1);
    out = look(ledger, &seen);
    assert_int_equal(strlen(out.op), WIRE_OP_BYTES);
    assert_int_equal(strlen(out.place), WIRE_PLACE_BYTES);
    assert_string_equal(out.name, "");
    free(ledger);
}

/* All that is written to a descriptor. */
static void written(struct ledger *ledger, uint64_t now_us, char *text, size_t bytes)
{
    FILE *file = tmpfile();
    size_t got;

    assert_non_null(file);
    ledger_write(ledger, fileno(file), now_us);
    (void)fseek(file, 0, SEEK_SET);
    got = fread(text, 1, bytes - 1, file);
    text[got] = '\0';
    (void)fclose(file);
}

static void a_crash_writes_the_newest(void **state)
{
    struct ledger *ledger = ledger_new();
    static char text[200000];
    uint32_t lines = 0;

    (void)state;
    for (uint64_t i = 1; i <= 300; i++) {
        (void)enter(ledger, 0, "grads", 1000 * i);
        if (i < 300)
            ledger_leave(ledger, i, 1000 * i + 400);
    }
    written(ledger, 303250, text, sizeof text);
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    assert_int_equal(lines, 2 + LEDGER_ENTRIES);
    assert_ptr_equal(strstr(text, "muster ledger: 300 collectives, the newest 256 of them, oldest "
                                  "first\n#45 all_reduce 'grads' float32 x 1000, step 3, "
                                  "generation 1, train.c:40: entered 258.2 ms ago, left after "
                                  "0.4 ms\n#46 "), text);
    assert_non_null(strstr(text, "#300 all_reduce 'grads' float32 x 1000, step 3, generation 1, "
                                 "train.c:40: entered 3.2 ms ago, not left\nmuster ledger: end\n"));
    free(ledger);
}

/* The thread that crashed holds the lock: it is written all the same. */
static void a_lock_that_is_held_does_not_stop_the_writer(void **state)
{
    struct ledger *ledger = ledger_new();
    static char text[20000];

    (void)state;
    (void)enter(ledger, 0, "grads\n", 1);
    ledger->lock = true;
    written(ledger, 2, text, sizeof text);
    assert_non_null(strstr(text, "#1 all_reduce 'grads?' float32"));
    assert_non_null(strstr(text, "it was being written"));
    free(ledger);
}

static void *unlock_soon(void *context)
{
    struct ledger *ledger = context;

    (void)poll(NULL, 0, 5);
    __atomic_clear(&ledger->lock, __ATOMIC_RELEASE);
    return NULL;
}

/* A thread that lost its core in the middle of an entry gets the time to end it. */
static void a_lock_that_is_held_a_while_is_waited_for(void **state)
{
    struct ledger *ledger = ledger_new();
    static char text[20000];
    pthread_t thread;

    (void)state;
    (void)enter(ledger, 0, "grads", 1);
    ledger->lock = true;
    assert_int_equal(pthread_create(&thread, NULL, unlock_soon, ledger), 0);
    written(ledger, 2, text, sizeof text);
    (void)pthread_join(thread, NULL);
    assert_non_null(strstr(text, "not left\nmuster ledger: end\n"));
    free(ledger);
}

static void *enter_many(void *context)
{
    for (int i = 0; i < 2000; i++) {
        uint64_t seq = enter(context, 0, "many", 5);

        ledger_leave(context, seq, 6);
    }
    return NULL;
}

static void many_threads_share_it(void **state)
{
    struct ledger *ledger = ledger_new();
    struct session_ledger out;
    pthread_t threads[4];
    static char text[200000];
    uint32_t seen = 0;

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, enter_many, ledger), 0);
    for (int i = 0; i < 20; i++) {
        (void)ledger_look(ledger, &seen, &out);
        written(ledger, 7, text, sizeof text);
        assert_null(strstr(text, "torn"));
    }
    for (int i = 0; i < 4; i++)
        (void)pthread_join(threads[i], NULL);
    (void)ledger_look(ledger, &seen, &out);
    seen = 0;
    out = look(ledger, &seen);
    assert_int_equal(out.entered, 8000);
    assert_int_equal(out.left, 8000);
    assert_false(out.open);
    free(ledger);
}

static void frames_of_a_stack_become_a_line(void **state)
{
    char text[64];

    (void)state;
    where_frames("[<0>] futex_do_wait+0x38/0x70\n[<0>] __futex_wait+0x91/0x100\n"
                 "[<0>] do_syscall_64+0x71/0x280\n[<0>] entry_SYSCALL_64_after_hwframe+0x76/0x7e\n",
                 text, sizeof text);
    assert_string_equal(text, "futex_do_wait < __futex_wait");
    where_frames("[<0>] a_function_with_a_long_name+0x38/0x70\n"
                 "[<0>] another_function_with_a_long_name_too+0x38/0x70\n", text, sizeof text);
    assert_string_equal(text, "a_function_with_a_long_name"); /* whole names only */
    where_frames("", text, sizeof text);
    assert_string_equal(text, "");
    (void)snprintf(text, sizeof text, "%d 0x7f 0x0", (int)SYS_futex);
    assert_string_equal(where_call(text), "futex");
    assert_string_equal(where_call("running\n"), "");
    assert_string_equal(where_call("-1 0x0"), "");
}

static void a_thread_of_this_process_is_found(void **state)
{
    char text[WHERE_BYTES];

    (void)state;
    where_thread((uint32_t)syscall(SYS_gettid), text);
    assert_non_null(strstr(text, " runs"));
    where_thread(UINT32_MAX, text);
    assert_string_equal(text, "");
    where_thread(0, text);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beats_see_the_oldest_that_is_open),
        cmocka_unit_test(each_generation_counts_anew),
        cmocka_unit_test(long_texts_are_cut_and_none_is_empty),
        cmocka_unit_test(a_crash_writes_the_newest),
        cmocka_unit_test(a_lock_that_is_held_does_not_stop_the_writer),
        cmocka_unit_test(a_lock_that_is_held_a_while_is_waited_for),
        cmocka_unit_test(many_threads_share_it),
        cmocka_unit_test(frames_of_a_stack_become_a_line),
        cmocka_unit_test(a_thread_of_this_process_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
