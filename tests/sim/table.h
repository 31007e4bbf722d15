/* What a run prints: the table of strikes, the figures, one line for each seed that failed. */
#ifndef SIM_TABLE_H
#define SIM_TABLE_H

#include "sim/sim.h"

struct sim_totals {
    uint64_t seeds;          /* run */
    uint64_t failed;
    uint64_t twice;          /* of them run twice */
    uint64_t differed;       /* with another hash the second time */
    uint64_t excused;
    uint64_t unprotected;
    uint64_t events;
    uint64_t virtual_us;
    uint64_t steps;
    uint64_t generations;
    uint64_t stragglers;     /* named */
    uint64_t spreads;        /* plans that only spread the shards anew */
    double real_s;
};

/* Cells that exist, and how many of them were never struck. */
void sim_table_count(const struct sim_table *table, uint32_t *cells, uint32_t *empty);

/* Kinds of fault that struck less often than that. */
uint32_t sim_table_seldom(const struct sim_table *table, uint64_t least);

void sim_table_print(const struct sim_table *table, bool whole, uint64_t least);
void sim_totals_print(const struct sim_totals *totals, const struct sim_table *table);
void sim_totals_json(const struct sim_totals *totals, const struct sim_table *table);

#endif
