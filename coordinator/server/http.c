/* Invariants
 *   1. The listening socket is ours, made before MHD, so that "port taken" is known before "ready"
 *      is said.
 *   2. MHD runs on the loop's thread only: when its epoll descriptor is readable, or its timeout is
 *      due. */
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

#define CONNECTIONS_MAX 256
#define IDLE_S          10

struct http {
    uv_poll_t poll;
    uv_timer_t timer;
    struct MHD_Daemon *daemon;
    http_pages_cb pages_cb;
    void *owner;
    char address[64]; /* as text */
    int open_handles; /* poll and timer that are not closed */
};

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

static enum MHD_Result answer_page(struct MHD_Connection *connection, struct http_page *page)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(page->body_bytes, page->body, MHD_RESPMEM_MUST_FREE);
    enum MHD_Result result;

    if (response == NULL) {
        free(page->body);
        return MHD_NO;
    }
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
    return answer_page(connection, &page);
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

/* A listening socket, or -1 with errno. */
static int listen_on(const struct sockaddr *address)
{
    socklen_t length = address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                      : sizeof(struct sockaddr_in);
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;

    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
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
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S, MHD_OPTION_END);
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

int http_start(struct http **out, uv_loop_t *loop, const struct sockaddr *address,
               http_pages_cb pages_cb, void *owner, char *error, size_t error_bytes)
{
    struct http *http = calloc(1, sizeof *http);
    int fd = -1;

    *out = NULL;
    if (http == NULL) {
        (void)snprintf(error, error_bytes, "out of memory");
        return UV_ENOMEM;
    }
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
