/* A probe is one block with a connection and a deadline; it is freed when both handles are
 * closed. */
#include "server/probe.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct probe {
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_connect_t connect;
    probe_cb probed_cb;
    void *owner;
    uint64_t tag;
    int open_handles;
    bool told;
};

static void on_closed(uv_handle_t *handle)
{
    struct probe *probe = handle->data;

    if (--probe->open_handles == 0)
        free(probe);
}

static void probe_end(struct probe *probe, enum probe_result result)
{
    if (probe->told)
        return;
    probe->told = true;
    uv_close((uv_handle_t *)&probe->tcp, on_closed);
    uv_close((uv_handle_t *)&probe->timer, on_closed);
    probe->probed_cb(probe->owner, probe->tag, result);
}

static void on_connect(uv_connect_t *connect, int status)
{
    if (status == UV_ECANCELED)
        return;
    probe_end(connect->data, status == 0                 ? PROBE_ANSWERED
                             : status == UV_ECONNREFUSED ? PROBE_REFUSED
                                                         : PROBE_UNREACHABLE);
}

static void on_timer(uv_timer_t *timer)
{
    probe_end(timer->data, PROBE_UNREACHABLE);
}

/* "HOST:PORT" or "[V6]:PORT", numeric only: names are never resolved on the loop. */
static int parse(const char *address, struct sockaddr_storage *out)
{
    char host[64];
    const char *colon = strrchr(address, ':');
    size_t length = colon != NULL ? (size_t)(colon - address) : 0;
    long port;

    if (length == 0 || length >= sizeof host || colon[1] == '\0' ||
        colon[1 + strspn(colon + 1, "0123456789")] != '\0')
        return UV_EINVAL;
    port = strtol(colon + 1, NULL, 10);
    if (port <= 0 || port > 65535)
        return UV_EINVAL;
    if (address[0] == '[' && address[length - 1] == ']') {
        memcpy(host, address + 1, length - 2);
        host[length - 2] = '\0';
        return uv_ip6_addr(host, (int)port, (struct sockaddr_in6 *)out);
    }
    memcpy(host, address, length);
    host[length] = '\0';
    return uv_ip4_addr(host, (int)port, (struct sockaddr_in *)out);
}

int probe_start(uv_loop_t *loop, const char *address, probe_cb probed_cb, void *owner,
                uint64_t tag)
{
    struct sockaddr_storage target;
    struct probe *probe;
    int status = parse(address, &target);

    if (status != 0)
        return status;
    probe = calloc(1, sizeof *probe);
    if (probe == NULL)
        return UV_ENOMEM;
    probe->probed_cb = probed_cb;
    probe->owner = owner;
    probe->tag = tag;
    probe->open_handles = 2;
    (void)uv_tcp_init(loop, &probe->tcp);
    (void)uv_timer_init(loop, &probe->timer);
    probe->tcp.data = probe->timer.data = probe->connect.data = probe;
    (void)uv_timer_start(&probe->timer, on_timer, PROBE_MS, 0);
    status = uv_tcp_connect(&probe->connect, &probe->tcp, (struct sockaddr *)&target, on_connect);
    if (status != 0) {
        probe->told = true;
        uv_close((uv_handle_t *)&probe->tcp, on_closed);
        uv_close((uv_handle_t *)&probe->timer, on_closed);
    }
    return status;
}
