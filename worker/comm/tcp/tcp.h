/* comm between processes: TCP between hosts, Unix sockets inside one. See comm/comm.h for the
 * manual. */
#ifndef MUSTER_COMM_TCP_TCP_H
#define MUSTER_COMM_TCP_TCP_H

#include <uv.h>

#include "comm/comm.h"

/* Listens on listen ("HOST:PORT", "[V6]:PORT"; port 0 picks one) as the member id, and serves on
 * the loop. events is copied; limits NULL: the defaults. Resolves a host name with a blocking
 * look-up. On failure *comm is NULL and error holds a sentence that names the address. Close with
 * comm_close, then run the loop once more. */
enum comm_error comm_tcp_open(uv_loop_t *loop, const char *listen, const uint8_t id[COMM_ID_BYTES],
                              const struct comm_events *events, void *owner,
                              const struct comm_limits *limits, struct comm **comm, char *error,
                              size_t error_bytes);

#endif
