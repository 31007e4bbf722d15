/* Invariants
 *   1. The listening socket is ours, made before MHD, so that "port taken" is known before "ready"
 *      is said.
 *   2. MHD runs on the loop's thread only: when its epoll descriptor is readable, or its timeout is
 *      due.
 *   3. bodies_bytes is the sum of the bodies that there are. */
#include "server/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES 65536  /* of a body, given to MHD at a time */
#define SEND_BYTES  131072 /* of the kernel, for one connection */

struct http {
    uv_poll_t poll;
    uv_timer_t timer;
    struct MHD_Daemon *daemon;
    struct http_limits limits;
    size_t bodies_bytes; /* in the hands of answers that were not read to their end */
    http_pages_cb pages_cb;
    void *owner;
    char address[64]; /* as text */
    int open_handles; /* poll and timer that are not closed */
};

/* A page while it is read. */
struct body {
    struct http *http;
    char *text;
    size_t bytes;
    uint64_t until_ms; /* loop time */
};

void http_limits_default(struct http_limits *limits)
{
    limits->connections = 256;
    limits->idle_s = 10;
    limits->answer_ms = 30000;
    limits->small_bytes = 4096;
    limits->bodies_bytes = 32u << 20;
}

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned status,
                                   const char *text)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    enum MHD_Result result = MHD_NO;

    if (response != NULL) {
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain");
        result = MHD_queue_response(connection, status, response);
        MHD_destroy_response(response);
    }
    return result;
}

static ssize_t body_read(void *context, uint64_t at, char *to, size_t most)
{
    const struct body *body = context;
    size_t bytes = body->bytes - at < most ? (size_t)(body->bytes - at) : most;

    if (uv_now(body->http->poll.loop) > body->until_ms)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    memcpy(to, body->text + at, bytes);
    return (ssize_t)bytes;
}

static void body_free(void *context)
{
    struct body *body = context;

    body->http->bodies_bytes -= body->bytes;
    free(body->text);
    free(body);
}

/* Takes over the page's text. NULL: no memory. */
static struct MHD_Response *body_response(struct http *http, struct http_page *page)
{
    struct body *body = malloc(sizeof *body);
    struct MHD_Response *response;

    if (body == NULL) {
        free(page->body);
        return NULL;
    }
    body->http = http;
    body->text = page->body;
    body->bytes = page->body_bytes;
    body->until_ms = uv_now(http->poll.loop) + http->limits.answer_ms;
    http->bodies_bytes += body->bytes;
    response = MHD_create_response_from_callback(body->bytes, BLOCK_BYTES, body_read, body,
                                                 body_free);
    if (response == NULL)
        body_free(body);
    return response;
}

static bool may_wait(const struct http *http, size_t bytes)
{
    return bytes <= http->limits.small_bytes || http->bodies_bytes == 0 ||
           http->bodies_bytes + bytes <= http->limits.bodies_bytes;
}

static enum MHD_Result answer_page(struct http *http, struct MHD_Connection *connection,
                                   struct http_page *page)
{
    struct MHD_Response *response;
    enum MHD_Result result;

    if (!may_wait(http, page->body_bytes)) {
        free(page->body);
        return answer_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE,
                           "others read too slowly what they asked for: try again\n");
    }
    response = body_response(http, page);
    if (response == NULL)
        return MHD_NO;
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, page->type);
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    result = MHD_queue_response(connection, page->status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection,
                                  const char *url, const char *method, const char *version,
                                  const char *upload, size_t *upload_bytes, void **request)
{
    struct http *http = context;
    struct http_page page = {0};

    (void)version;
    (void)upload;
    (void)upload_bytes;
    (void)request;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return answer_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "read only: GET\n");
    http->pages_cb(http->owner, url, &page);
    if (page.status == 0)
        return answer_text(connection, MHD_HTTP_NOT_FOUND,
                           "no such page: /v1/status, /metrics and /healthz are there\n");
    return answer_page(http, connection, &page);
}

/* ---- the loop ------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer);

static void run_daemon(struct http *http)
{
    MHD_UNSIGNED_LONG_LONG wait_ms;

    (void)MHD_run(http->daemon);
    if (MHD_get_timeout(http->daemon, &wait_ms) == MHD_YES)
        (void)uv_timer_start(&http->timer, on_timer, wait_ms, 0);
    else
        (void)uv_timer_stop(&http->timer);
}

static void on_timer(uv_timer_t *timer)
{
    run_daemon(timer->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    run_daemon(poll->data);
}

/* ---- starting ------------------------------------------------------------------------------- */

static void write_address(struct http *http, int fd)
{
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    char host[INET6_ADDRSTRLEN] = "";

    if (getsockname(fd, (struct sockaddr *)&bound, &length) != 0)
        return;
    if (bound.ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&bound;

        (void)inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
        (void)snprintf(http->address, sizeof http->address, "[%s]:%u", host,
                       ntohs(six->sin6_port));
    } else {
        const struct sockaddr_in *four = (const struct sockaddr_in *)&bound;

        (void)inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
        (void)snprintf(http->address, sizeof http->address, "%s:%u", host, ntohs(four->sin_port));
    }
}

/* A listening socket, or -1 with errno. Its connections inherit the small buffer: what the kernel
 * would take of a body beyond it is in no budget. */
static int listen_on(const struct sockaddr *address)
{
    socklen_t length = address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                      : sizeof(struct sockaddr_in);
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1, send_bytes = SEND_BYTES;

    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof send_bytes) != 0 ||
        bind(fd, address, length) != 0 || listen(fd, 128) != 0) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static int start_daemon(struct http *http, uv_loop_t *loop, int fd)
{
    const union MHD_DaemonInfo *info;

    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, on_request, http,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, http->limits.connections,
        MHD_OPTION_CONNECTION_TIMEOUT, http->limits.idle_s, MHD_OPTION_END);
    if (http->daemon == NULL)
        return UV_EIO;
    info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL || uv_poll_init(loop, &http->poll, info->epoll_fd) != 0)
        return UV_EIO;
    (void)uv_timer_init(loop, &http->timer);
    http->poll.data = http;
    http->timer.data = http;
    http->open_handles = 2;
    return uv_poll_start(&http->poll, UV_READABLE, on_poll);
}

int http_start(struct http **out, uv_loop_t *loop, const struct http_limits *limits,
               const struct sockaddr *address, http_pages_cb pages_cb, void *owner, char *error,
               size_t error_bytes)
{
    struct http *http = calloc(1, sizeof *http);
    int fd = -1;

    *out = NULL;
    if (http == NULL) {
        (void)snprintf(error, error_bytes, "out of memory");
        return UV_ENOMEM;
    }
    http->limits = *limits;
    http->pages_cb = pages_cb;
    http->owner = owner;
    fd = listen_on(address);
    if (fd < 0) {
        int status = uv_translate_sys_error(errno);

        (void)snprintf(error, error_bytes, "%s", uv_strerror(status));
        free(http);
        return status;
    }
    write_address(http, fd);
    if (start_daemon(http, loop, fd) != 0) {
        (void)snprintf(error, error_bytes, "the HTTP daemon does not start");
        if (http->daemon == NULL)
            close(fd);
        http_stop(http);
        return UV_EIO;
    }
    *out = http;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct http *http = handle->data;

    if (--http->open_handles > 0)
        return;
    MHD_stop_daemon(http->daemon);
    free(http);
}

void http_stop(struct http *http)
{
    if (http == NULL)
        return;
    if (http->open_handles > 0) {
        uv_close((uv_handle_t *)&http->poll, on_closed);
        uv_close((uv_handle_t *)&http->timer, on_closed);
        return;
    }
    if (http->daemon != NULL)
        MHD_stop_daemon(http->daemon);
    free(http);
}

void http_address(const struct http *http, char *text, size_t text_bytes)
{
    (void)snprintf(text, text_bytes, "%s", http->address);
}

const char *http_version(void)
{
    return MHD_get_version();
}
