/* The compute threads: every task is run once and handed back on the loop's thread, words before
 * the end of their task; starting may fail and stopping drops what waits. */
#include "train/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define TASKS   200
#define WORDS   3
#define THREADS 3

struct rig;

struct job;

struct job_word {
    struct pool_word word; /* first: what the pool knows */
    struct job *job;       /* whose */
    unsigned serial;       /* of the job's words */
};

struct job {
    struct pool_task task; /* first: what the pool knows */
    struct rig *rig;       /* shared by all */
    unsigned serial;       /* order of posting */
    unsigned runs;         /* how often it was run */
    unsigned words_heard;  /* on the loop */
    unsigned again;        /* how often it is posted anew */
    bool done;             /* handed back for good */
    struct job_word words[WORDS];
};

struct rig {
    uv_loop_t loop;
    struct pool *pool;
    pthread_t loop_thread;
    pthread_mutex_t gate;  /* held by the test: tasks that open it wait */
    unsigned at_gate;      /* tasks that have come to it */
    pthread_mutex_t lock;  /* of order */
    unsigned order[TASKS]; /* serials as they were run */
    unsigned order_count;  /* of order */
    unsigned entered[POOL_THREADS_MAX], left[POOL_THREADS_MAX]; /* by thread */
    int fail_at;         /* the thread whose enter_cb fails; -1 = none */
    unsigned done_count; /* done_cb calls */
    struct job jobs[TASKS];
};

static int on_enter(void *owner, uint32_t thread)
{
    struct rig *rig = owner;

    __atomic_add_fetch(&rig->entered[thread], 1, __ATOMIC_RELAXED);
    return (int)thread == rig->fail_at ? 77 : 0;
}

static void on_leave(void *owner, uint32_t thread)
{
    __atomic_add_fetch(&((struct rig *)owner)->left[thread], 1, __ATOMIC_RELAXED);
}

static int rig_start(struct rig *rig, uint32_t threads)
{
    const struct pool_setup setup = {on_enter, on_leave, rig};

    return pool_start(&rig->loop, threads, &setup, &rig->pool);
}

static struct rig *rig_open(uint32_t threads)
{
    struct rig *rig = calloc(1, sizeof *rig);

    assert_non_null(rig);
    rig->fail_at = -1;
    rig->loop_thread = pthread_self();
    assert_int_equal(pthread_mutex_init(&rig->gate, NULL), 0);
    assert_int_equal(pthread_mutex_init(&rig->lock, NULL), 0);
    assert_int_equal(uv_loop_init(&rig->loop), 0);
    if (threads > 0)
        assert_int_equal(rig_start(rig, threads), 0);
    return rig;
}

static void rig_close(struct rig *rig)
{
    pool_stop(rig->pool);
    assert_int_equal(uv_run(&rig->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    (void)pthread_mutex_destroy(&rig->gate);
    (void)pthread_mutex_destroy(&rig->lock);
    free(rig);
}

/* Until all that was posted is handed back. */
static void rig_drain(struct rig *rig)
{
    while (pool_open_tasks(rig->pool) > 0)
        (void)uv_run(&rig->loop, UV_RUN_ONCE);
}

/* ---- tasks ---------------------------------------------------------------------------------- */

static void on_word(struct pool_word *word)
{
    struct job_word *w = (struct job_word *)word;

    assert_true(pthread_equal(pthread_self(), w->job->rig->loop_thread));
    assert_int_equal(w->serial, w->job->words_heard % WORDS);
    assert_false(w->job->done);
    w->job->words_heard++;
}

static void run_job(struct pool_task *task, uint32_t thread)
{
    struct job *job = (struct job *)task;
    struct rig *rig = job->rig;

    if (thread >= pool_threads(rig->pool) || pthread_equal(pthread_self(), rig->loop_thread))
        abort();
    (void)pthread_mutex_lock(&rig->lock);
    rig->order[rig->order_count++ % TASKS] = job->serial;
    (void)pthread_mutex_unlock(&rig->lock);
    __atomic_add_fetch(&job->runs, 1, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < WORDS; i++) {
        job->words[i].word.call_cb = on_word;
        job->words[i].job = job;
        job->words[i].serial = i;
        pool_tell(rig->pool, &job->words[i].word);
    }
}

/* Waits at the gate and says nothing. */
static void run_gate(struct pool_task *task, uint32_t thread)
{
    struct rig *rig = ((struct job *)task)->rig;

    (void)thread;
    __atomic_add_fetch(&rig->at_gate, 1, __ATOMIC_RELAXED);
    (void)pthread_mutex_lock(&rig->gate);
    (void)pthread_mutex_unlock(&rig->gate);
}

static void on_done(struct pool_task *task)
{
    struct job *job = (struct job *)task;

    assert_true(pthread_equal(pthread_self(), job->rig->loop_thread));
    job->rig->done_count++;
    if (job->again == 0) {
        job->done = true;
        return;
    }
    job->again--;
    pool_post(job->rig->pool, &job->task);
}

static struct job *job_at(struct rig *rig, unsigned serial)
{
    struct job *job = &rig->jobs[serial];

    job->rig = rig;
    job->serial = serial;
    job->task.run_cb = run_job;
    job->task.done_cb = on_done;
    return job;
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void each_task_is_run_once_and_handed_back(void **state)
{
    (void)state;
    for (uint32_t threads = 1; threads <= THREADS; threads++) {
        struct rig *rig = rig_open(threads);

        assert_int_equal(pool_threads(rig->pool), threads);
        for (unsigned i = 0; i < TASKS; i++)
            pool_post(rig->pool, &job_at(rig, i)->task);
        assert_int_equal(pool_open_tasks(rig->pool), TASKS);
        rig_drain(rig);
        for (unsigned i = 0; i < TASKS; i++) {
            assert_int_equal(rig->jobs[i].runs, 1);
            assert_int_equal(rig->jobs[i].words_heard, WORDS);
            assert_true(rig->jobs[i].done);
        }
        assert_int_equal(rig->done_count, TASKS);
        rig_close(rig);
    }
}

static void tasks_are_posted_anew_from_their_end(void **state)
{
    struct rig *rig = rig_open(THREADS);

    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        job_at(rig, i)->again = i;
        pool_post(rig->pool, &rig->jobs[i].task);
    }
    rig_drain(rig);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(rig->jobs[i].runs, i + 1);
        assert_int_equal(rig->jobs[i].words_heard, (i + 1) * WORDS);
    }
    rig_close(rig);
}

/* One thread, kept busy until all are posted. */
static void tasks_are_started_in_the_order_of_posting(void **state)
{
    struct rig *rig = rig_open(1);

    (void)state;
    (void)pthread_mutex_lock(&rig->gate);
    job_at(rig, 20)->task.run_cb = run_gate;
    pool_post(rig->pool, &rig->jobs[20].task);
    for (unsigned i = 0; i < 20; i++)
        pool_post(rig->pool, &job_at(rig, (i * 7) % 20)->task);
    (void)pthread_mutex_unlock(&rig->gate);
    rig_drain(rig);
    for (unsigned i = 0; i < 20; i++)
        if (rig->order[i] != (i * 7) % 20)
            fail_msg("place %u: task %u was run, expected %u", i, rig->order[i], (i * 7) % 20);
    rig_close(rig);
}

static void stopping_drops_what_waits(void **state)
{
    struct rig *rig = rig_open(1);

    (void)state;
    for (unsigned i = 0; i < TASKS; i++)
        pool_post(rig->pool, &job_at(rig, i)->task);
    pool_stop(rig->pool);
    rig->pool = NULL;
    assert_int_equal(uv_run(&rig->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(rig->done_count, 0);
    assert_int_equal(rig->entered[0], 1);
    assert_int_equal(rig->left[0], 1);
    rig_close(rig); /* stopping nothing is allowed */
}

static void one_that_hangs_is_not_waited_for(void **state)
{
    struct rig *rig = rig_open(2);

    (void)state;
    assert_int_equal(pthread_mutex_lock(&rig->gate), 0);
    job_at(rig, 0)->task.run_cb = run_gate;
    pool_post(rig->pool, &rig->jobs[0].task);
    while (__atomic_load_n(&rig->at_gate, __ATOMIC_RELAXED) == 0)
        (void)sched_yield();
    assert_false(pool_end(rig->pool, 50));
    assert_int_equal(pthread_mutex_unlock(&rig->gate), 0);
    assert_true(pool_end(rig->pool, 60000));
    assert_int_equal(rig->left[0] + rig->left[1], 2);
    assert_true(pool_end(NULL, 0));
    rig_close(rig);
}

static void what_enter_says_is_returned(void **state)
{
    struct rig *rig = rig_open(0);

    (void)state;
    rig->fail_at = 1;
    assert_int_equal(rig_start(rig, THREADS), 77);
    assert_null(rig->pool);
    assert_int_equal(rig->entered[0], 1);
    assert_int_equal(rig->left[0], 1);
    assert_int_equal(rig->entered[1], 1);
    assert_int_equal(rig->entered[2], 0); /* was not tried any more */
    rig->fail_at = -1;
    assert_int_equal(rig_start(rig, 0), UV_EINVAL);
    assert_null(rig->pool);
    assert_int_equal(rig_start(rig, POOL_THREADS_MAX + 1), UV_EINVAL);
    assert_null(rig->pool);
    assert_int_equal(rig_start(rig, POOL_THREADS_MAX), 0);
    for (unsigned i = 2; i < POOL_THREADS_MAX; i++)
        assert_int_equal(rig->entered[i], 1);
    rig_close(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_task_is_run_once_and_handed_back),
        cmocka_unit_test(tasks_are_posted_anew_from_their_end),
        cmocka_unit_test(tasks_are_started_in_the_order_of_posting),
        cmocka_unit_test(stopping_drops_what_waits),
        cmocka_unit_test(one_that_hangs_is_not_waited_for),
        cmocka_unit_test(what_enter_says_is_returned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
