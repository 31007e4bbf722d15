/* Catch-up of a spare beside the group, and the members' side of it. */
#include "sim/sim.h"

void sim_joiner_begin(struct sim *sim, uint32_t worker)
{
    (void)sim;
    (void)worker;
}

void sim_joiner_end(struct sim *sim, uint32_t worker)
{
    (void)sim;
    (void)worker;
}

void sim_joiner_release(struct sim *sim, uint32_t worker)
{
    (void)sim;
    (void)worker;
}

void sim_joiner_peer(struct sim *sim, uint32_t worker, uint32_t peer, uint32_t rank)
{
    (void)sim;
    (void)worker;
    (void)peer;
    (void)rank;
}

void sim_joiner_connected(struct sim *sim, uint32_t worker, uint64_t number)
{
    (void)sim;
    (void)worker;
    (void)number;
}

void sim_joiner_lost(struct sim *sim, uint32_t worker, uint32_t peer)
{
    (void)sim;
    (void)worker;
    (void)peer;
}

void sim_joiner_frame(struct sim *sim, uint32_t worker, uint32_t from,
                      const struct sim_frame *frame, const uint64_t *cells)
{
    (void)sim;
    (void)worker;
    (void)from;
    (void)frame;
    (void)cells;
}

void sim_joiner_step_done(struct sim *sim, uint32_t worker, const struct elastic_action *action)
{
    (void)sim;
    (void)worker;
    (void)action;
}

void sim_joiner_turn(struct sim *sim, uint32_t worker)
{
    (void)sim;
    (void)worker;
}
