/* comm between ends in one process: tests, and several devices under one process. See
 * comm/comm.h. */
#ifndef MUSTER_COMM_LOCAL_LOCAL_H
#define MUSTER_COMM_LOCAL_LOCAL_H

#include <uv.h>

#include "comm/comm.h"

/* The place where ends find each other. May be shared by ends on loops of different threads. */
struct comm_local_hub;

/* NULL: out of memory. Freed after the last end is closed. */
struct comm_local_hub *comm_local_hub_new(void);
void comm_local_hub_free(struct comm_local_hub *hub);

/* Opens an end on the hub as the member id; its address is "local:N". events is copied; limits
 * NULL: the defaults. COMM_MEMORY or COMM_SYSTEM on failure, *comm is NULL then. */
enum comm_error comm_local_open(struct comm_local_hub *hub, uv_loop_t *loop,
                                const uint8_t id[COMM_ID_BYTES], const struct comm_events *events,
                                void *owner, const struct comm_limits *limits, struct comm **comm);

#endif
