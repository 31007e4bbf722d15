/* The simulated store of the coordinator: one record per job, written in order, each durable a
 * while after it was asked for. What a crash does to writes that were never acknowledged is drawn:
 * there, gone or torn.
 *
 *   sim_store_write(sim, lsn, job, bytes, length)   -> sim_coord_stored(sim, lsn, ok) later
 *   sim_store_crash(sim, torn)                      the process died with writes on their way
 *   sim_store_record(sim, i, &length)               what a new process finds */
#ifndef SIM_STORE_H
#define SIM_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_STORE_JOBS  8u
#define SIM_STORE_QUEUE 64u

struct sim;

struct sim_record {
    char job[65];           /* its name, "" = none */
    uint8_t *bytes;         /* owned */
    size_t length;
};

struct sim_write {
    uint64_t lsn;
    struct sim_record record;
};

struct sim_store {
    struct sim_record durable[SIM_STORE_JOBS];
    struct sim_record old[SIM_STORE_JOBS];      /* a copy from earlier, for the fault "old store" */
    struct sim_write queue[SIM_STORE_QUEUE];    /* ring, in the order of asking */
    uint32_t first;                             /* index of the oldest */
    uint32_t count;
    uint32_t serial;                            /* of the process that writes */
    uint32_t latency_us;                        /* most, of one write */
    uint64_t slow_until_us;                     /* each write takes SIM_STORE_SLOW_US longer until
                                                   then */
    uint64_t failing_until_us;                  /* writes fail until then */
    bool lies;                                  /* planted: acknowledged before durable, lost by a
                                                   crash */
};

#define SIM_STORE_SLOW_US 700000u

void sim_store_release(struct sim *sim);
void sim_store_write(struct sim *sim, uint64_t lsn, const char *job, const uint8_t *bytes,
                     size_t length);
void sim_store_done(struct sim *sim);
void sim_store_crash(struct sim *sim, bool lost, bool torn);
void sim_store_keep_old(struct sim *sim);
void sim_store_go_back(struct sim *sim);
void sim_store_empty(struct sim *sim);

#endif
