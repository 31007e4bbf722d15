/* Asks whether anybody still listens where a missing member did.
 *
 *     probe_start(&probes, loop, address, probed_cb, owner, tag)
 *         -> probed_cb(owner, tag, result)        once, within PROBE_MS, from the loop
 *
 * A refused connection is the kernel of that host saying that the process is gone: proof. An
 * accepted one or silence proves nothing. */
#ifndef SERVER_PROBE_H
#define SERVER_PROBE_H

#include <stdint.h>
#include <uv.h>

#define PROBE_MS 1000

enum probe_result {
    PROBE_REFUSED,     /* nobody listens there: the host answered, the process is gone */
    PROBE_ANSWERED,    /* somebody accepted */
    PROBE_UNREACHABLE, /* no answer, or no such address */
};

typedef void (*probe_cb)(void *owner, uint64_t tag, enum probe_result result);

/* address: "HOST:PORT" or "[V6]:PORT", numeric. The callback never comes from inside this call. */
int probe_start(uv_loop_t *loop, const char *address, probe_cb probed_cb, void *owner,
                uint64_t tag);

#endif
