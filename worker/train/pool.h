/* The compute threads: a small pool that runs tasks of one loop's making and hands them back to it.
 *
 * Calling sequence
 *
 *     pool_start(&pool, loop, threads, &setup, error...)   each thread runs setup->enter once
 *     pool_post(pool, &task)                                from the loop's thread
 *         -> task.run_cb(task, thread) on one of the threads
 *         -> task.done_cb(task) on the loop's thread
 *     pool_end(pool, patience_ms)                           perhaps: is anything running for ever?
 *     pool_stop(pool)                                       finishes what runs, drops what waits
 *
 * Tasks are started in the order of their posting. A task belongs to the poster again when done_cb
 * is called, and may be posted anew from there. pool_tell() lets a running task call a function on
 * the loop's thread before it ends (a bucket is ready while backward goes on).
 *
 * Bits never depend on the pool: what a task computes is a function of the task alone. */
#ifndef MUSTER_TRAIN_POOL_H
#define MUSTER_TRAIN_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define POOL_THREADS_MAX 64

struct pool;

/* A piece of work; usually the first field of something larger. */
struct pool_task {
    void (*run_cb)(struct pool_task *task, uint32_t thread);
    void (*done_cb)(struct pool_task *task);
    struct pool_task *next; /* the pool's */
};

/* A word from a running task to the loop; the fields are the teller's until call_cb was called. */
struct pool_word {
    void (*call_cb)(struct pool_word *word);
    struct pool_word *next; /* the pool's */
};

/* What each thread does when it starts and before it ends. */
struct pool_setup {
    int (*enter_cb)(void *owner, uint32_t thread); /* 0, or an error that pool_start returns */
    void (*leave_cb)(void *owner, uint32_t thread);
    void *owner;
};

/* Starts the threads and waits until all have entered. Returns 0 or the first error of enter_cb
 * (positive) or a libuv error (negative); then *pool is NULL and nothing runs. */
int pool_start(uv_loop_t *loop, uint32_t threads, const struct pool_setup *setup,
               struct pool **pool);

void pool_post(struct pool *pool, struct pool_task *task);

/* From a task that runs. Words arrive in the order in which they were told, before the task's
 * done_cb. */
void pool_tell(struct pool *pool, struct pool_word *word);

uint32_t pool_threads(const struct pool *pool);

/* Tasks posted that are not yet handed back. */
uint32_t pool_open_tasks(const struct pool *pool);

/* Starts nothing more, and waits for running tasks, so long. False: one of them did not end; then
 * pool_stop() would wait for it, and what it uses must not be freed. Accepts NULL. */
bool pool_end(struct pool *pool, uint32_t patience_ms);

/* Waits for running tasks; waiting ones are dropped without done_cb. The loop must still run once
 * more to close the pool's handle. Accepts NULL. */
void pool_stop(struct pool *pool);

#endif
