#include "fake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

enum { PATIENCE_MS = 20000 };

static void wait_readable(int descriptor)
{
    struct pollfd poller = {.fd = descriptor, .events = POLLIN};

    assert_int_equal(poll(&poller, 1, PATIENCE_MS), 1);
}

void fake_open(struct fake *fake, int family)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address;
    socklen_t bytes = family == AF_INET ? sizeof address.v4 : sizeof address.v6;

    memset(fake, 0, sizeof *fake);
    memset(&address, 0, sizeof address);
    address.any.sa_family = (sa_family_t)family;
    if (family == AF_INET)
        address.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        address.v6.sin6_addr = in6addr_loopback;
    fake->peer = -1;
    fake->listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fake->listener >= 0);
    assert_int_equal(bind(fake->listener, &address.any, bytes), 0);
    assert_int_equal(listen(fake->listener, 16), 0);
    assert_int_equal(getsockname(fake->listener, &address.any, &bytes), 0);
    (void)snprintf(fake->address, sizeof fake->address,
                   family == AF_INET ? "127.0.0.1:%u" : "[::1]:%u",
                   ntohs(family == AF_INET ? address.v4.sin_port : address.v6.sin6_port));
    fake->memory = malloc(2 * WIRE_ARENA_BYTES);
    wire_arena_init(&fake->in, fake->memory, WIRE_ARENA_BYTES);
    wire_arena_init(&fake->out, fake->memory + WIRE_ARENA_BYTES, WIRE_ARENA_BYTES);
}

void fake_close(struct fake *fake)
{
    fake_drop(fake, false);
    (void)close(fake->listener);
    free(fake->memory);
}

void fake_accept(struct fake *fake)
{
    assert_int_equal(fake->peer, -1);
    wait_readable(fake->listener);
    fake->peer = accept(fake->listener, NULL, NULL);
    assert_true(fake->peer >= 0);
    frame_parser_init(&fake->parser, FRAME_STATE_STRANGER);
    fake->length = 0;
}

void fake_drop(struct fake *fake, bool reset)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    if (fake->peer < 0)
        return;
    if (reset)
        assert_int_equal(setsockopt(fake->peer, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    free(frame_parser_take(&fake->parser));
    (void)close(fake->peer);
    fake->peer = -1;
}

/* More bytes into the buffer; false at the end of the stream. */
static bool fill(struct fake *fake)
{
    ssize_t got;

    wait_readable(fake->peer);
    got = read(fake->peer, fake->buffer, sizeof fake->buffer);
    fake->bytes = fake->buffer;
    fake->length = got > 0 ? (size_t)got : 0;
    return got > 0;
}

/* One message; false at the end of the stream. */
static bool read_any(struct fake *fake, struct wire_message *message)
{
    for (;;) {
        switch (frame_parser_feed(&fake->parser, &fake->bytes, &fake->length)) {
        case FRAME_NEED_HEADER:
        case FRAME_NEED_BODY:
            if (!fill(fake))
                return false;
            break;
        case FRAME_NEED_MEMORY:
            frame_parser_give(&fake->parser, malloc(fake->parser.header.body_bytes));
            break;
        case FRAME_WHOLE:
            wire_arena_reset(&fake->in);
            assert_int_equal(
                wire_decode(&fake->in, &fake->parser.header, fake->parser.body, message, NULL),
                WIRE_OK);
            free(frame_parser_take(&fake->parser));
            if (fake->parser.state == FRAME_STATE_STRANGER)
                frame_parser_admit(&fake->parser);
            return true;
        case FRAME_BROKEN:
            fail_msg("%s", frame_error_text(fake->parser.error));
            return false;
        }
    }
}

void fake_read(struct fake *fake, uint8_t type, struct wire_message *message)
{
    do {
        if (!read_any(fake, message))
            fail_msg("the connection ended where %s was expected", frame_type_name(type));
    } while (message->header.type != type);
}

bool fake_at_end(struct fake *fake)
{
    struct wire_message message;

    return !read_any(fake, &message);
}

static bool send_all(struct fake *fake, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t done = send(fake->peer, bytes, length, MSG_NOSIGNAL);

        if (done <= 0)
            return false;
        bytes += done;
        length -= (size_t)done;
    }
    return true;
}

void fake_send_bytes(struct fake *fake, const uint8_t *bytes, size_t length)
{
    assert_true(send_all(fake, bytes, length));
}

bool fake_try_send(struct fake *fake, const struct wire_message *message)
{
    const uint8_t *frame = NULL;
    size_t bytes = 0;

    wire_arena_reset(&fake->out);
    assert_int_equal(wire_encode(&fake->out, message, &frame, &bytes), WIRE_OK);
    return send_all(fake, frame, bytes);
}

void fake_send(struct fake *fake, const struct wire_message *message)
{
    assert_true(fake_try_send(fake, message));
}

void fake_admit(struct fake *fake, struct wire_message *hello)
{
    struct wire_message ignored;
    struct wire_message message = {
        .header = {.type = FRAME_WELCOME},
        .welcome = {.version = 1,
                    .job_uid = {{7}},
                    .beat_ms = 50,
                    .lease_ms = 250,
                    .min = 2,
                    .max = 4,
                    .note = "--min 2 --max 4 are in force"},
    };

    fake_accept(fake);
    fake_read(fake, FRAME_HELLO, hello ? hello : &ignored);
    fake_send(fake, &message);
}
