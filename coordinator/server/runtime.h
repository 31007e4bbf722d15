/* The shell around the core: what comes from sockets, disk and clock becomes an event, actions are
 * carried out in order. One loop, one thread; only the store's writes have a thread of their
 * own. */
#ifndef SERVER_RUNTIME_H
#define SERVER_RUNTIME_H

#include "base/error.h"
#include "base/log.h"
#include "server/settings.h"

#include <uv.h>

struct runtime;

/* Opens state, listeners and sockets. 0, or an exit code with its sentence (69: port taken, state
 * folder in use; 64: address that needs --insecure). */
int runtime_open(struct runtime **runtime, uv_loop_t *loop, const struct settings *settings,
                 const struct log *log, struct error *error);

/* "tcp=ADDR:PORT http=ADDR:PORT" */
void runtime_ready_text(const struct runtime *runtime, char *text, size_t text_bytes);

/* Closes everything; the loop must run until it is empty, then runtime_free. */
void runtime_stop(struct runtime *runtime);
void runtime_free(struct runtime *runtime);

const char *runtime_crypto_version(void); /* OpenSSL's, for --version */

#endif
