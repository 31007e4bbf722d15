/* Invariants
 *   1. waiting, ended and words are touched under `lock` only; open_tasks on the loop's thread
 *      only.
 *   2. Each thread sleeps on `wake` exactly when nothing waits and the pool is not stopping.
 *   3. The async handle belongs to the loop; its memory (the pool) is freed in its close callback.
 *      */
#include "train/pool.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

/* First in, first out. */
struct queue {
    struct pool_task *first;
    struct pool_task **last; /* where the next one is hung */
};

struct pool_thread {
    struct pool *pool;
    uv_thread_t thread;
    uint32_t index;
    int entered; /* what enter_cb returned */
    bool ready;  /* enter_cb has returned */
    bool started;
};

struct pool {
    uv_async_t async;
    uv_mutex_t lock;
    uv_cond_t wake;
    uv_cond_t entered; /* a thread has entered, or has left */
    struct queue waiting;
    struct queue ended;
    struct pool_word *words_first;
    struct pool_word **words_last;
    struct pool_setup setup;
    uint32_t thread_count;
    uint32_t left; /* threads that have ended */
    uint32_t open_tasks;
    bool stopping;
    struct pool_thread threads[POOL_THREADS_MAX];
};

static void queue_init(struct queue *queue)
{
    queue->first = NULL;
    queue->last = &queue->first;
}

static void queue_push(struct queue *queue, struct pool_task *task)
{
    task->next = NULL;
    *queue->last = task;
    queue->last = &task->next;
}

static struct pool_task *queue_pop(struct queue *queue)
{
    struct pool_task *task = queue->first;

    if (task == NULL)
        return NULL;
    queue->first = task->next;
    if (queue->first == NULL)
        queue->last = &queue->first;
    return task;
}

/* Under the lock: the next task, NULL when the pool stops. */
static struct pool_task *next_task(struct pool *pool)
{
    for (;;) {
        struct pool_task *task;

        if (pool->stopping)
            return NULL;
        task = queue_pop(&pool->waiting);
        if (task != NULL)
            return task;
        uv_cond_wait(&pool->wake, &pool->lock);
    }
}

static void thread_main(void *argument)
{
    struct pool_thread *self = argument;
    struct pool *pool = self->pool;
    int entered = pool->setup.enter_cb ? pool->setup.enter_cb(pool->setup.owner, self->index) : 0;
    struct pool_task *task;

    (void)pthread_setname_np(pthread_self(), "muster-compute");
    uv_mutex_lock(&pool->lock);
    self->entered = entered;
    self->ready = true;
    uv_cond_signal(&pool->entered);
    while (entered == 0 && (task = next_task(pool)) != NULL) {
        uv_mutex_unlock(&pool->lock);
        task->run_cb(task, self->index);
        uv_mutex_lock(&pool->lock);
        queue_push(&pool->ended, task);
        uv_async_send(&pool->async);
    }
    uv_mutex_unlock(&pool->lock);
    if (pool->setup.leave_cb)
        pool->setup.leave_cb(pool->setup.owner, self->index);
    uv_mutex_lock(&pool->lock);
    pool->left++;
    uv_cond_signal(&pool->entered);
    uv_mutex_unlock(&pool->lock);
}

/* On the loop's thread: words first, then ended tasks, each outside the lock. */
static void on_async(uv_async_t *async)
{
    struct pool *pool = async->data;
    struct pool_word *words;
    struct pool_task *ended;

    uv_mutex_lock(&pool->lock);
    words = pool->words_first;
    pool->words_first = NULL;
    pool->words_last = &pool->words_first;
    ended = pool->ended.first;
    queue_init(&pool->ended);
    uv_mutex_unlock(&pool->lock);

    while (words != NULL) {
        struct pool_word *word = words;

        words = word->next;
        word->call_cb(word);
    }
    while (ended != NULL) {
        struct pool_task *task = ended;

        ended = task->next;
        assert(pool->open_tasks > 0);
        pool->open_tasks--;
        task->done_cb(task);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct pool *pool = handle->data;

    uv_cond_destroy(&pool->entered);
    uv_cond_destroy(&pool->wake);
    uv_mutex_destroy(&pool->lock);
    free(pool);
}

static void tell_stop(struct pool *pool)
{
    uv_mutex_lock(&pool->lock);
    pool->stopping = true;
    uv_cond_broadcast(&pool->wake);
    uv_mutex_unlock(&pool->lock);
}

static void join_threads(struct pool *pool)
{
    tell_stop(pool);
    for (uint32_t i = 0; i < pool->thread_count; i++)
        if (pool->threads[i].started)
            uv_thread_join(&pool->threads[i].thread);
}

/* Starts thread i and waits until it has entered. */
static int start_thread(struct pool *pool, uint32_t i)
{
    struct pool_thread *self = &pool->threads[i];
    int error;

    self->pool = pool;
    self->index = i;
    error = uv_thread_create(&self->thread, thread_main, self);
    if (error)
        return error;
    self->started = true;
    uv_mutex_lock(&pool->lock);
    while (!self->ready)
        uv_cond_wait(&pool->entered, &pool->lock);
    error = self->entered;
    uv_mutex_unlock(&pool->lock);
    return error;
}

int pool_start(uv_loop_t *loop, uint32_t threads, const struct pool_setup *setup, struct pool **out)
{
    struct pool *pool;
    int error;

    *out = NULL;
    if (threads < 1 || threads > POOL_THREADS_MAX)
        return UV_EINVAL;
    pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return UV_ENOMEM;
    error = uv_async_init(loop, &pool->async, on_async);
    if (error) {
        free(pool);
        return error;
    }
    pool->async.data = pool;
    uv_mutex_init(&pool->lock);
    uv_cond_init(&pool->wake);
    uv_cond_init(&pool->entered);
    queue_init(&pool->waiting);
    queue_init(&pool->ended);
    pool->words_last = &pool->words_first;
    pool->setup = *setup;
    for (uint32_t i = 0; i < threads && error == 0; i++) {
        pool->thread_count = i + 1;
        error = start_thread(pool, i);
    }
    if (error) {
        pool_stop(pool);
        return error;
    }
    *out = pool;
    return 0;
}

void pool_post(struct pool *pool, struct pool_task *task)
{
    pool->open_tasks++;
    uv_mutex_lock(&pool->lock);
    queue_push(&pool->waiting, task);
    uv_cond_signal(&pool->wake);
    uv_mutex_unlock(&pool->lock);
}

void pool_tell(struct pool *pool, struct pool_word *word)
{
    word->next = NULL;
    uv_mutex_lock(&pool->lock);
    *pool->words_last = word;
    pool->words_last = &word->next;
    uv_async_send(&pool->async);
    uv_mutex_unlock(&pool->lock);
}

uint32_t pool_threads(const struct pool *pool)
{
    return pool->thread_count;
}

uint32_t pool_open_tasks(const struct pool *pool)
{
    return pool->open_tasks;
}

bool pool_end(struct pool *pool, uint32_t patience_ms)
{
    uint64_t until_ns = uv_hrtime() + (uint64_t)patience_ms * 1000000, now_ns;
    bool ended;

    if (pool == NULL)
        return true;
    tell_stop(pool);
    uv_mutex_lock(&pool->lock);
    while (pool->left < pool->thread_count && (now_ns = uv_hrtime()) < until_ns)
        (void)uv_cond_timedwait(&pool->entered, &pool->lock, until_ns - now_ns);
    ended = pool->left == pool->thread_count;
    uv_mutex_unlock(&pool->lock);
    return ended;
}

void pool_stop(struct pool *pool)
{
    if (pool == NULL)
        return;
    join_threads(pool);
    uv_close((uv_handle_t *)&pool->async, on_closed);
}
