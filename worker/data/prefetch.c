/* A slot belongs to the mutex, but for its samples: these belong to the thread while it is FILLING
 * and to the one taker while it is TAKEN, and nobody else touches them. */
#include "data/prefetch.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum slot_state {
    SLOT_EMPTY,
    SLOT_WANTED,  /* the thread will gather it */
    SLOT_FILLING, /* the thread gathers it now */
    SLOT_READY,
    SLOT_TAKEN    /* a taker copies it out */
};

struct slot {
    enum slot_state state;
    bool forgotten;       /* FILLING, but nobody wants it any more: becomes EMPTY */
    struct batch_key key; /* unless EMPTY */
    uint64_t turn;        /* the smallest WANTED one is gathered first */
    uint8_t *images;      /* [shard_samples][MNIST_PIXELS], in prefetch.memory */
    uint8_t *labels;      /* [shard_samples], in prefetch.memory */
};

struct prefetch {
    const struct mnist_set *set; /* the caller's */
    uint64_t seed;
    pthread_t thread;
    pthread_mutex_t lock;   /* of all below */
    pthread_cond_t changed; /* a slot became WANTED or was filled, or closing */
    bool closing;
    uint64_t turns;         /* given so far */
    uint32_t slot_count;
    uint8_t *memory;        /* of all slots, owned */
    struct slot slots[];    /* slot_count */
};

static bool same_key(const struct batch_key *a, const struct batch_key *b)
{
    return a->epoch == b->epoch && a->first == b->first && a->real == b->real;
}

/* ---- the thread ----------------------------------------------------------------------------- */

static struct slot *next_wanted(struct prefetch *p)
{
    struct slot *next = NULL;

    for (uint32_t i = 0; i < p->slot_count; i++)
        if (p->slots[i].state == SLOT_WANTED && (next == NULL || p->slots[i].turn < next->turn))
            next = &p->slots[i];
    return next;
}

static void *fill_slots(void *argument)
{
    struct prefetch *p = argument;

    (void)pthread_setname_np(pthread_self(), "muster-prefetch");
    (void)pthread_mutex_lock(&p->lock);
    while (!p->closing) {
        struct slot *slot = next_wanted(p);

        if (slot == NULL) {
            (void)pthread_cond_wait(&p->changed, &p->lock);
            continue;
        }
        slot->state = SLOT_FILLING;
        slot->forgotten = false;
        (void)pthread_mutex_unlock(&p->lock);
        batch_gather(p->set, p->seed, &slot->key, slot->images, slot->labels);
        (void)pthread_mutex_lock(&p->lock);
        slot->state = slot->forgotten ? SLOT_EMPTY : SLOT_READY;
        (void)pthread_cond_broadcast(&p->changed);
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* ---- opening and closing -------------------------------------------------------------------- */

static bool start(struct prefetch *p)
{
    if (pthread_mutex_init(&p->lock, NULL) != 0)
        return false;
    if (pthread_cond_init(&p->changed, NULL) != 0)
        goto no_condition;
    if (pthread_create(&p->thread, NULL, fill_slots, p) == 0)
        return true;
    (void)pthread_cond_destroy(&p->changed);
no_condition:
    (void)pthread_mutex_destroy(&p->lock);
    return false;
}

struct prefetch *prefetch_open(const struct mnist_set *set, uint64_t seed, uint32_t shard_samples,
                               uint32_t slots)
{
    uint32_t count = slots > PREFETCH_SLOTS_MAX ? PREFETCH_SLOTS_MAX : slots;
    size_t images_bytes = (size_t)shard_samples * MNIST_PIXELS;
    struct prefetch *p = calloc(1, sizeof *p + count * sizeof p->slots[0]);

    if (p == NULL)
        return NULL;
    p->set = set;
    p->seed = seed;
    p->slot_count = count;
    p->memory = calloc((size_t)count + 1, images_bytes + shard_samples);
    for (uint32_t i = 0; p->memory != NULL && i < count; i++) {
        p->slots[i].images = p->memory + i * (images_bytes + shard_samples);
        p->slots[i].labels = p->slots[i].images + images_bytes;
    }
    if (p->memory != NULL && start(p))
        return p;
    free(p->memory);
    free(p);
    return NULL;
}

void prefetch_close(struct prefetch *p)
{
    if (p == NULL)
        return;
    (void)pthread_mutex_lock(&p->lock);
    p->closing = true;
    (void)pthread_cond_broadcast(&p->changed);
    (void)pthread_mutex_unlock(&p->lock);
    (void)pthread_join(p->thread, NULL);
    (void)pthread_cond_destroy(&p->changed);
    (void)pthread_mutex_destroy(&p->lock);
    free(p->memory);
    free(p);
}

/* ---- wishes --------------------------------------------------------------------------------- */

static struct slot *find_slot(struct prefetch *p, const struct batch_key *key)
{
    for (uint32_t i = 0; i < p->slot_count; i++)
        if (p->slots[i].state != SLOT_EMPTY && p->slots[i].state != SLOT_TAKEN &&
            !p->slots[i].forgotten && same_key(&p->slots[i].key, key))
            return &p->slots[i];
    return NULL;
}

static void forget(struct slot *slot)
{
    if (slot->state == SLOT_FILLING)
        slot->forgotten = true;
    else if (slot->state != SLOT_TAKEN)
        slot->state = SLOT_EMPTY;
}

static bool among(const struct batch_key *keys, uint32_t count, const struct batch_key *key)
{
    for (uint32_t i = 0; i < count; i++)
        if (same_key(&keys[i], key))
            return true;
    return false;
}

static void wish(struct prefetch *p, const struct batch_key *key)
{
    struct slot *slot = find_slot(p, key);

    for (uint32_t i = 0; slot == NULL && i < p->slot_count; i++)
        if (p->slots[i].state == SLOT_EMPTY) {
            slot = &p->slots[i];
            slot->state = SLOT_WANTED;
            slot->forgotten = false;
            slot->key = *key;
        }
    if (slot != NULL)
        slot->turn = p->turns++;
}

void prefetch_want(struct prefetch *p, const struct batch_key *keys, uint32_t count)
{
    if (count > p->slot_count)
        count = p->slot_count;
    (void)pthread_mutex_lock(&p->lock);
    for (uint32_t i = 0; i < p->slot_count; i++)
        if (p->slots[i].state != SLOT_EMPTY && !among(keys, count, &p->slots[i].key))
            forget(&p->slots[i]);
    for (uint32_t i = 0; i < count; i++)
        wish(p, &keys[i]);
    (void)pthread_cond_broadcast(&p->changed);
    (void)pthread_mutex_unlock(&p->lock);
}

bool prefetch_take(struct prefetch *p, const struct batch_key *key, uint8_t *images,
                   uint8_t *labels)
{
    struct slot *slot;
    bool ready;

    (void)pthread_mutex_lock(&p->lock);
    slot = find_slot(p, key);
    ready = slot != NULL && slot->state == SLOT_READY;
    if (ready)
        slot->state = SLOT_TAKEN;
    else if (slot != NULL) {
        forget(slot); /* whoever takes it now does not wait for the thread */
        (void)pthread_cond_broadcast(&p->changed);
    }
    (void)pthread_mutex_unlock(&p->lock);
    if (!ready) {
        batch_gather(p->set, p->seed, key, images, labels);
        return false;
    }
    memcpy(images, slot->images, (size_t)key->real * MNIST_PIXELS);
    memcpy(labels, slot->labels, key->real);
    (void)pthread_mutex_lock(&p->lock);
    slot->state = SLOT_EMPTY;
    (void)pthread_mutex_unlock(&p->lock);
    return true;
}

void prefetch_settle(struct prefetch *p)
{
    bool busy = true;

    (void)pthread_mutex_lock(&p->lock);
    while (busy) {
        busy = false;
        for (uint32_t i = 0; i < p->slot_count; i++)
            busy |= p->slots[i].state == SLOT_WANTED || p->slots[i].state == SLOT_FILLING;
        if (busy)
            (void)pthread_cond_wait(&p->changed, &p->lock);
    }
    (void)pthread_mutex_unlock(&p->lock);
}
