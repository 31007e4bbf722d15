/* The connection to the coordinator: addresses, frames in, frames out, closing. */
#include "carrier.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    WRITE_QUEUE_MAX_BYTES = 1048576, /* a coordinator that does not read for so long is left */
    USER_TIMEOUT_MS = 20000,         /* unacknowledged for so long: the host or the way is gone */
    SYN_RETRIES = 1,                 /* 3 s; then the next address, or a pause and a new attempt */
    LINGER_MS = 2000,
};

struct resolve {
    uv_getaddrinfo_t request; /* of libuv */
    struct carrier *carrier;  /* who asked */
    uint64_t attempt;         /* void when the carrier is at a later one */
};

struct write {
    uv_write_t request; /* of libuv */
    uint8_t bytes[];    /* the frame */
};

/* ---- links ---- */

static void link_closed(uv_handle_t *handle)
{
    struct link *link = handle->data;
    struct carrier *carrier = link->carrier;

    free(frame_parser_take(&link->parser));
    free(link);
    if (--carrier->links == 0 && carrier->session.state == SESSION_ENDED)
        muster_set_quiet(carrier->muster);
}

/* Accepts NULL and one that closes already. */
void carrier_close_link(struct link *link)
{
    struct carrier *carrier;

    if (!link)
        return;
    carrier = link->carrier;
    if (carrier->link == link)
        carrier->link = NULL;
    if (carrier->goodbye == link)
        carrier->goodbye = NULL;
    if (!uv_is_closing((uv_handle_t *)&link->tcp))
        uv_close((uv_handle_t *)&link->tcp, link_closed);
}

static struct link *link_new(struct carrier *carrier)
{
    struct link *link = calloc(1, sizeof *link);

    if (!link)
        return NULL;
    link->carrier = carrier;
    if (uv_tcp_init(&carrier->loop, &link->tcp) != 0) {
        free(link);
        return NULL;
    }
    link->tcp.data = link;
    link->connect.data = link;
    link->shutdown.data = link;
    frame_parser_init(&link->parser, FRAME_STATE_COORDINATOR);
    carrier->links++;
    return link;
}

static void linger_over(uv_timer_t *timer)
{
    struct carrier *carrier = timer->data;

    carrier_close_link(carrier->goodbye);
}

/* Without libuv's help: failure here only means a slower notice of a lost host. */
static void set_user_timeout(const struct link *link)
{
    unsigned timeout_ms = USER_TIMEOUT_MS;
    uv_os_fd_t descriptor;

    if (uv_fileno((const uv_handle_t *)&link->tcp, &descriptor) == 0)
        (void)setsockopt(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}

/* The kernel doubles its pauses between SYNs: after a host was away for a while it would let a
 * minute pass before the next one. The session's own attempts are never far apart. */
static void set_syn_retries(const struct link *link)
{
    int retries = SYN_RETRIES;
    uv_os_fd_t descriptor;

    if (uv_fileno((const uv_handle_t *)&link->tcp, &descriptor) == 0)
        (void)setsockopt(descriptor, IPPROTO_TCP, TCP_SYNCNT, &retries, sizeof retries);
}

/* ---- reading ---- */

static void read_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct link *link = handle->data;

    (void)suggested;
    *buffer = uv_buf_init((char *)link->carrier->read_buffer, CARRIER_READ_BYTES);
}

/* A whole frame. */
static void read_frame(struct link *link)
{
    struct carrier *carrier = link->carrier;
    struct wire_message message;
    struct lint_fault fault = {.message = "?", .field = "?"};
    struct session_event event = {.type = SESSION_MESSAGE, .message = &message};
    enum wire_error error;

    wire_arena_reset(&carrier->in);
    error = wire_decode(&carrier->in, &link->parser.header, link->parser.body, &message, &fault);
    if (error == WIRE_OK)
        carrier_step(carrier, &event);
    else if (error == WIRE_ERROR_LINT)
        carrier_fail(carrier, "a broken message from", lint_error_text(fault.error));
    else
        carrier_fail(carrier, "a broken message from", wire_error_text(error));
}

/* One turn of the parser; false when the input is used up or of no use any more. */
static bool read_turn(struct link *link, const uint8_t **bytes, size_t *length)
{
    struct carrier *carrier = link->carrier;
    uint8_t *memory;

    switch (frame_parser_feed(&link->parser, bytes, length)) {
    case FRAME_NEED_HEADER:
    case FRAME_NEED_BODY:
        return false;
    case FRAME_NEED_MEMORY:
        memory = malloc(link->parser.header.body_bytes);
        if (memory)
            frame_parser_give(&link->parser, memory);
        else
            carrier_fail(carrier, "reading from", "out of memory");
        break;
    case FRAME_WHOLE:
        read_frame(link);
        free(frame_parser_take(&link->parser));
        break;
    case FRAME_BROKEN:
        carrier_fail(carrier, "reading from", frame_error_text(link->parser.error));
        break;
    }
    return carrier->link == link && !carrier->failed;
}

static void read_some(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct link *link = stream->data;
    struct carrier *carrier = link->carrier;
    const uint8_t *bytes = (const uint8_t *)buffer->base;
    size_t length = count > 0 ? (size_t)count : 0;

    if (carrier->link != link) { /* lingering after GOODBYE: read to the end */
        if (count < 0)
            carrier_close_link(link);
        return;
    }
    if (count == UV_EOF)
        carrier_fail(carrier, "connection to", "closed by the coordinator");
    else if (count < 0)
        carrier_fail(carrier, "connection to", uv_strerror((int)count));
    while (!carrier->failed && read_turn(link, &bytes, &length)) {
    }
    carrier_settle(carrier);
}

/* ---- connecting ---- */

static void try_next_address(struct carrier *carrier);

static void free_addresses(struct carrier *carrier)
{
    if (carrier->addresses)
        uv_freeaddrinfo(carrier->addresses);
    carrier->addresses = NULL;
    carrier->address_count = 0;
}

static void take_addresses(struct carrier *carrier, struct addrinfo *addresses)
{
    carrier->addresses = addresses;
    carrier->addresses_tried = 0;
    for (; addresses; addresses = addresses->ai_next)
        carrier->address_count++;
}

/* An attempt that ran out of time at one address does not begin with the same one again. */
static const struct addrinfo *next_address(struct carrier *carrier)
{
    const struct addrinfo *address = carrier->addresses;
    uint32_t index;

    if (carrier->addresses_tried == carrier->address_count)
        return NULL;
    index = (carrier->session.attempts + carrier->addresses_tried++) % carrier->address_count;
    while (index-- > 0)
        address = address->ai_next;
    return address;
}

static void connected(uv_connect_t *request, int status)
{
    struct link *link = request->data;
    struct carrier *carrier = link->carrier;
    struct session_event event = {.type = SESSION_CONNECTED};

    if (carrier->link != link)
        return; /* closed meanwhile */
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&link->tcp, read_alloc, read_some);
    if (status != 0) {
        carrier_fail(carrier, "connecting to", uv_strerror(status));
        carrier_close_link(link);
        try_next_address(carrier);
        carrier_settle(carrier);
        return;
    }
    free_addresses(carrier);
    (void)uv_tcp_nodelay(&link->tcp, 1);
    (void)uv_tcp_keepalive(&link->tcp, 1, 30);
    set_user_timeout(link);
    carrier_step(carrier, &event);
}

/* Tries the addresses in turn; `failed` stays set from the last one when none is left. */
static void try_next_address(struct carrier *carrier)
{
    const struct addrinfo *address;

    while ((address = next_address(carrier)) != NULL) {
        struct link *link = link_new(carrier);
        int error = UV_ENOMEM;

        if (link)
            error = uv_tcp_connect(&link->connect, &link->tcp, address->ai_addr, connected);
        if (error == 0) {
            set_syn_retries(link);
            carrier->link = link;
            carrier->failed = false;
            return;
        }
        carrier_close_link(link);
        carrier_fail(carrier, "connecting to", uv_strerror(error));
    }
    free_addresses(carrier);
}

static void resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses)
{
    struct resolve *resolve = request->data;
    struct carrier *carrier = resolve->carrier;
    bool wanted = resolve->attempt == carrier->attempt;

    free(resolve);
    if (!wanted) {
        uv_freeaddrinfo(addresses);
        return;
    }
    if (status == 0) {
        take_addresses(carrier, addresses);
        try_next_address(carrier);
    } else {
        carrier_fail(carrier, "finding the address of", uv_strerror(status));
    }
    carrier_settle(carrier);
}

/* A number needs no resolver, and so no thread of libuv's pool. */
static bool connect_number(struct carrier *carrier)
{
    static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                          .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
    const struct client_address *to = &carrier->muster->coordinator;
    struct addrinfo *addresses = NULL;

    if (getaddrinfo(to->host, to->port, &hints, &addresses) != 0)
        return false;
    take_addresses(carrier, addresses);
    try_next_address(carrier);
    return true;
}

void carrier_connect(struct carrier *carrier)
{
    static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    const struct client_address *to = &carrier->muster->coordinator;
    struct resolve *resolve;
    int error = UV_ENOMEM;

    free_addresses(carrier);
    if (connect_number(carrier))
        return;
    resolve = calloc(1, sizeof *resolve);
    if (resolve) {
        resolve->carrier = carrier;
        resolve->attempt = ++carrier->attempt;
        resolve->request.data = resolve;
        error =
            uv_getaddrinfo(&carrier->loop, &resolve->request, resolved, to->host, to->port, &hints);
    }
    if (error != 0) {
        carrier_fail(carrier, "finding the address of", uv_strerror(error));
        free(resolve);
    }
}

void carrier_forget_addresses(struct carrier *carrier)
{
    carrier->attempt++;
    free_addresses(carrier);
}

static void shut_down(uv_shutdown_t *request, int status)
{
    if (status != 0 && status != UV_ECANCELED)
        carrier_close_link(request->data);
}

/* The session wants no more of this connection. */
void carrier_disconnect(struct carrier *carrier)
{
    struct link *link = carrier->link;

    carrier_forget_addresses(carrier);
    if (link && carrier->session.said.has_goodbye &&
        uv_shutdown(&link->shutdown, (uv_stream_t *)&link->tcp, shut_down) == 0) {
        carrier->link = NULL;
        carrier->goodbye = link;
        (void)uv_timer_start(&carrier->linger, linger_over, LINGER_MS, 0);
        return;
    }
    carrier_close_link(link);
}

/* ---- writing ---- */

static void written(uv_write_t *request, int status)
{
    (void)status; /* the reader sees the end of the connection too, and tells it once */
    free(request->data);
}

static void write_frame(struct carrier *carrier, const uint8_t *frame, size_t frame_bytes)
{
    struct link *link = carrier->link;
    struct write *write;
    uv_buf_t buffer;
    int error = UV_ENOMEM;

    if (uv_stream_get_write_queue_size((uv_stream_t *)&link->tcp) > WRITE_QUEUE_MAX_BYTES) {
        carrier_fail(carrier, "writing to", "the coordinator does not read");
        return;
    }
    write = malloc(sizeof *write + frame_bytes);
    if (write) {
        memcpy(write->bytes, frame, frame_bytes);
        write->request.data = write;
        buffer = uv_buf_init((char *)write->bytes, (unsigned)frame_bytes);
        error = uv_write(&write->request, (uv_stream_t *)&link->tcp, &buffer, 1, written);
    }
    if (error != 0) {
        free(write);
        carrier_fail(carrier, "writing to", uv_strerror(error));
    }
}

void carrier_send(struct carrier *carrier, const struct wire_message *message)
{
    const uint8_t *frame = NULL;
    size_t frame_bytes = 0;
    enum wire_error error;

    wire_arena_reset(&carrier->out);
    error = wire_encode(&carrier->out, message, &frame, &frame_bytes);
    if (error != WIRE_OK)
        carrier_fail(carrier, "a message that cannot be sent to", wire_error_text(error));
    else if (carrier->link)
        write_frame(carrier, frame, frame_bytes);
}
