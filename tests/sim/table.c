#include "sim/table.h"

#include <inttypes.h>
#include <stdio.h>

void sim_table_count(const struct sim_table *table, uint32_t *cells, uint32_t *empty)
{
    *cells = 0;
    *empty = 0;
    for (uint32_t phase = 0; phase < SIM_PHASE_COUNT; phase++) {
        for (uint32_t role = 0; role < SIM_ROLE_COUNT; role++) {
            for (uint32_t fault = 0; fault < SIM_FAULT_COUNT; fault++) {
                bool exists = sim_cell_exists((enum sim_role)role, (enum sim_fault)fault);
                *cells += exists;
                *empty += exists && table->cell[phase][role][fault] == 0;
            }
        }
    }
}

static void print_head(const char *first)
{
    printf("%-26s", first);
    for (uint32_t phase = 0; phase < SIM_PHASE_COUNT; phase++) {
        printf(" %10s", sim_phase_word((enum sim_phase)phase));
    }
    printf("\n");
}

/* Strikes of all kinds: phase x role. */
static void print_sums(const struct sim_table *table)
{
    print_head("strikes, all kinds");
    for (uint32_t role = 0; role < SIM_ROLE_COUNT; role++) {
        printf("%-26s", sim_role_word((enum sim_role)role));
        for (uint32_t phase = 0; phase < SIM_PHASE_COUNT; phase++) {
            uint64_t sum = 0;
            for (uint32_t fault = 0; fault < SIM_FAULT_COUNT; fault++) {
                sum += table->cell[phase][role][fault];
            }
            printf(" %10" PRIu64, sum);
        }
        printf("\n");
    }
}

static void print_whole(const struct sim_table *table)
{
    print_head("fault, role");
    for (uint32_t fault = 0; fault < SIM_FAULT_COUNT; fault++) {
        for (uint32_t role = 0; role < SIM_ROLE_COUNT; role++) {
            if (!sim_cell_exists((enum sim_role)role, (enum sim_fault)fault)) {
                continue;
            }
            printf("%-13s %-12s", sim_fault_word((enum sim_fault)fault),
                   sim_role_word((enum sim_role)role));
            for (uint32_t phase = 0; phase < SIM_PHASE_COUNT; phase++) {
                printf(" %10" PRIu64, table->cell[phase][role][fault]);
            }
            printf("\n");
        }
    }
}

static void print_empty(const struct sim_table *table)
{
    uint32_t told = 0;
    for (uint32_t fault = 0; fault < SIM_FAULT_COUNT; fault++) {
        for (uint32_t role = 0; role < SIM_ROLE_COUNT; role++) {
            for (uint32_t phase = 0; phase < SIM_PHASE_COUNT; phase++) {
                if (sim_cell_exists((enum sim_role)role, (enum sim_fault)fault) &&
                    table->cell[phase][role][fault] == 0 && told++ < 20) {
                    printf("never struck: %s of %s in %s\n", sim_fault_word((enum sim_fault)fault),
                           sim_role_word((enum sim_role)role),
                           sim_phase_word((enum sim_phase)phase));
                }
            }
        }
    }
}

uint32_t sim_table_seldom(const struct sim_table *table, uint64_t least)
{
    uint32_t seldom = 0;
    for (uint32_t fault = 0; fault < SIM_FAULT_COUNT; fault++) {
        seldom += table->kind[fault] < least;
    }
    return seldom;
}

static void print_kinds(const struct sim_table *table, uint64_t least)
{
    uint32_t fewest = 0;
    printf("faults struck, by kind:");
    for (uint32_t fault = 0; fault < SIM_FAULT_COUNT; fault++) {
        printf(" %s %" PRIu64, sim_fault_word((enum sim_fault)fault), table->kind[fault]);
        fewest = table->kind[fault] < table->kind[fewest] ? fault : fewest;
    }
    printf("\n%d kinds of fault, the rarest %s: %" PRIu64 " times\n", (int)SIM_FAULT_COUNT,
           sim_fault_word((enum sim_fault)fewest), table->kind[fewest]);
    for (uint32_t fault = 0; fault < SIM_FAULT_COUNT; fault++) {
        if (table->kind[fault] < least) {
            printf("struck too seldom: %s, %" PRIu64 " of %" PRIu64 " times\n",
                   sim_fault_word((enum sim_fault)fault), table->kind[fault], least);
        }
    }
}

void sim_table_print(const struct sim_table *table, bool whole, uint64_t least)
{
    uint32_t cells, empty;
    sim_table_count(table, &cells, &empty);
    print_sums(table);
    if (whole) {
        print_whole(table);
    }
    print_kinds(table, least);
    printf("phase x role x fault: %u of %u cells struck\n", cells - empty, cells);
    print_empty(table);
}

static uint64_t strikes(const struct sim_table *table)
{
    uint64_t sum = 0;
    for (uint32_t fault = 0; fault < SIM_FAULT_COUNT; fault++) {
        sum += table->kind[fault];
    }
    return sum;
}

void sim_totals_print(const struct sim_totals *totals, const struct sim_table *table)
{
    double virtual_s = (double)totals->virtual_us / 1e6;
    double real_s = totals->real_s > 0 ? totals->real_s : 1e-9;
    printf("%" PRIu64 " seeds, %" PRIu64 " failed, %" PRIu64 " excused, %" PRIu64
           " with a store that lied; %" PRIu64 " run twice, %" PRIu64 " differed\n",
           totals->seeds, totals->failed, totals->excused, totals->unprotected, totals->twice,
           totals->differed);
    printf("%.2f simulated hours in %.1f s: %.0f times real time; %" PRIu64
           " events, %.0f events/s; %" PRIu64 " updates in %" PRIu64 " generations; %" PRIu64
           " faults struck; %" PRIu64 " stragglers named, shards spread anew %" PRIu64 " times\n",
           virtual_s / 3600, real_s, virtual_s / real_s, totals->events,
           (double)totals->events / real_s, totals->steps, totals->generations, strikes(table),
           totals->stragglers, totals->spreads);
}

void sim_totals_json(const struct sim_totals *totals, const struct sim_table *table)
{
    uint32_t cells, empty;
    double virtual_s = (double)totals->virtual_us / 1e6;
    sim_table_count(table, &cells, &empty);
    printf("{\"seeds\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"excused\":%" PRIu64
           ",\"twice\":%" PRIu64 ",\"differed\":%" PRIu64 ",\"simulated_s\":%.3f,\"real_s\":%.3f,"
           "\"speed\":%.1f,\"events\":%" PRIu64 ",\"events_per_s\":%.0f,\"updates\":%" PRIu64
           ",\"generations\":%" PRIu64 ",\"faults\":%" PRIu64 ",\"cells\":%u,\"cells_empty\":%u}\n",
           totals->seeds, totals->failed, totals->excused, totals->twice, totals->differed,
           virtual_s, totals->real_s, virtual_s / totals->real_s, totals->events,
           (double)totals->events / totals->real_s, totals->steps, totals->generations,
           strikes(table), cells, empty);
}
