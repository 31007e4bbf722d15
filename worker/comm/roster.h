/* What every carrier checks before it enters a generation. Private to worker/comm. */
#ifndef MUSTER_COMM_ROSTER_H
#define MUSTER_COMM_ROSTER_H

#include "comm/comm.h"

/* COMM_OK, or COMM_ROSTER or COMM_MEMORY: the list is sane and has me, with this id, at my rank. */
enum comm_error comm_roster_check(const struct comm_generation *generation,
                                  const uint8_t id[COMM_ID_BYTES]);

#endif
