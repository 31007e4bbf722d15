/* Invariants: writes become durable in the order in which they were asked for; a failed write
 * changes nothing; after sim_store_crash() no write of the process that died is acknowledged. */
#include "sim/store.h"

#include "sim/panic.h"
#include "sim/sim.h"

#include <stdlib.h>
#include <string.h>

static void record_set(struct sim_record *record, const char *job, const uint8_t *bytes,
                       size_t length)
{
    uint8_t *copy = malloc(length > 0 ? length : 1);
    SIM_REQUIRE(copy != NULL && strlen(job) < sizeof record->job);
    memcpy(copy, bytes, length);
    free(record->bytes);
    *record = (struct sim_record){.bytes = copy, .length = length};
    memcpy(record->job, job, strlen(job));
}

static void record_release(struct sim_record *record)
{
    free(record->bytes);
    *record = (struct sim_record){0};
}

static void table_set(struct sim_record table[SIM_STORE_JOBS], const struct sim_record *from)
{
    for (uint32_t i = 0; i < SIM_STORE_JOBS; i++) {
        if (table[i].bytes == NULL || strcmp(table[i].job, from->job) == 0) {
            record_set(&table[i], from->job, from->bytes, from->length);
            return;
        }
    }
    SIM_REQUIRE(!"more jobs than the simulated store holds");
}

static void table_release(struct sim_record table[SIM_STORE_JOBS])
{
    for (uint32_t i = 0; i < SIM_STORE_JOBS; i++) {
        record_release(&table[i]);
    }
}

static void queue_drop(struct sim_store *store)
{
    record_release(&store->queue[store->first].record);
    store->first = (store->first + 1) % SIM_STORE_QUEUE;
    store->count--;
}

void sim_store_release(struct sim *sim)
{
    struct sim_store *store = &sim->store;
    while (store->count > 0) {
        queue_drop(store);
    }
    table_release(store->durable);
    table_release(store->old);
}

static void arm(struct sim *sim)
{
    struct sim_store *store = &sim->store;
    uint64_t took_us = 100 + sim_rng_below(&sim->net_rng, store->latency_us + 1);
    if (store->slow_until_us > sim->now_us) {
        sim_struck(sim, SIM_FAULT_STORE_SLOW);
        took_us += SIM_STORE_SLOW_US;
    }
    struct sim_event event = {.at_us = sim->now_us + took_us, .kind = SIM_EV_STORE,
                              .serial = store->serial};
    sim_heap_push(&sim->heap, &event);
}

void sim_store_write(struct sim *sim, uint64_t lsn, const char *job, const uint8_t *bytes,
                     size_t length)
{
    struct sim_store *store = &sim->store;
    SIM_REQUIRE(store->count < SIM_STORE_QUEUE);
    struct sim_write *write = &store->queue[(store->first + store->count) % SIM_STORE_QUEUE];
    write->lsn = lsn;
    record_set(&write->record, job, bytes, length);
    store->count++;
    if (store->count == 1) {
        arm(sim);
    }
}

void sim_store_done(struct sim *sim)
{
    struct sim_store *store = &sim->store;
    if (store->count == 0) {
        return;
    }
    struct sim_write *write = &store->queue[store->first];
    uint64_t lsn = write->lsn;
    bool ok = store->failing_until_us <= sim->now_us;
    if (ok && !store->lies) {
        table_set(store->durable, &write->record);
    } else if (!ok) {
        sim_struck(sim, SIM_FAULT_STORE_FAILING);
    }
    queue_drop(store);
    if (store->count > 0) {
        arm(sim);
    }
    lsn += sim->options->bug == SIM_BUG_WRONG_LSN && sim_rng_chance(&sim->net_rng, 100);
    sim_coord_stored(sim, lsn, ok);
}

void sim_store_crash(struct sim *sim, bool lost, bool torn)
{
    struct sim_store *store = &sim->store;
    store->serial++;
    while (store->count > 0) {
        struct sim_record *record = &store->queue[store->first].record;
        if (torn && store->count == 1) {
            record->length = sim_rng_below(&sim->net_rng, record->length);
            table_set(store->durable, record);
        } else if (!lost) {
            table_set(store->durable, record);
        }
        queue_drop(store);
    }
}

static void table_copy(struct sim_record to[SIM_STORE_JOBS], struct sim_record from[SIM_STORE_JOBS])
{
    table_release(to);
    for (uint32_t i = 0; i < SIM_STORE_JOBS; i++) {
        if (from[i].bytes != NULL) {
            record_set(&to[i], from[i].job, from[i].bytes, from[i].length);
        }
    }
}

void sim_store_keep_old(struct sim *sim)
{
    table_copy(sim->store.old, sim->store.durable);
}

void sim_store_go_back(struct sim *sim)
{
    table_copy(sim->store.durable, sim->store.old);
}

void sim_store_empty(struct sim *sim)
{
    table_release(sim->store.durable);
}
