/* Read-only HTTP on the coordinator's loop: libmicrohttpd's epoll descriptor under uv_poll.
 *
 *     http_start(&http, loop, &limits, address, pages_cb, owner, error...)
 *         -> pages_cb(owner, path, &page)     for each GET or HEAD, on the loop's thread
 *     http_stop(http)                         the loop must run once more
 *
 * Anything but GET and HEAD is answered 405, a path without a page 404. Pages that wait for slow
 * readers have one budget: beyond it a page that is not small is answered 503. */
#ifndef SERVER_HTTP_H
#define SERVER_HTTP_H

#include <stddef.h>
#include <sys/socket.h>
#include <uv.h>

struct http;

struct http_limits {
    unsigned connections; /* at a time */
    unsigned idle_s;      /* silence after which one is closed */
    unsigned answer_ms;   /* until a body is read whole, at the latest */
    size_t small_bytes;   /* a body up to this is served whatever else waits */
    size_t bodies_bytes;  /* bodies that are not read yet, together; one alone may be larger */
};

void http_limits_default(struct http_limits *limits);

/* body: malloc'ed, owned by the server afterwards; type: a constant. status 0 means: no such
 * page. */
struct http_page {
    unsigned status;
    char *body;
    size_t body_bytes;
    const char *type;
};

typedef void (*http_pages_cb)(void *owner, const char *path, struct http_page *page);

/* 0, or a negative number with a sentence in error. */
int http_start(struct http **http, uv_loop_t *loop, const struct http_limits *limits,
               const struct sockaddr *address, http_pages_cb pages_cb, void *owner, char *error,
               size_t error_bytes);

/* "HOST:PORT" that it serves. */
void http_address(const struct http *http, char *text, size_t text_bytes);
void http_stop(struct http *http);
const char *http_version(void); /* libmicrohttpd's */

#endif
