/* What HTTP shows: the core's views as JSON and in Prometheus' text format. */
#ifndef SERVER_STATUS_H
#define SERVER_STATUS_H

#include "core/core.h"
#include "server/conn.h"
#include "server/http.h"

/* The page of a path; status 0 when there is none. */
void status_page(const struct core *core, const struct conn_counters *counters, const char *path,
                 struct http_page *page);

const char *status_json_version(void); /* jansson's, for --version */

#endif
