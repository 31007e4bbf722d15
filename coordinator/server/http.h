/* Read-only HTTP on the coordinator's loop: libmicrohttpd's epoll descriptor under uv_poll.
 *
 *     http_start(&http, loop, address, pages_cb, owner, error...)
 *         -> pages_cb(owner, path, &page)     for each GET or HEAD, on the loop's thread
 *     http_stop(http)                         the loop must run once more
 *
 * Anything but GET and HEAD is answered 405, a path without a page 404. At most 256 connections,
 * each closed after 10 s of silence. */
#ifndef SERVER_HTTP_H
#define SERVER_HTTP_H

#include <stddef.h>
#include <sys/socket.h>
#include <uv.h>

struct http;

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
int http_start(struct http **http, uv_loop_t *loop, const struct sockaddr *address,
               http_pages_cb pages_cb, void *owner, char *error, size_t error_bytes);

/* "HOST:PORT" that it serves. */
void http_address(const struct http *http, char *text, size_t text_bytes);
void http_stop(struct http *http);
const char *http_version(void); /* libmicrohttpd's */

#endif
