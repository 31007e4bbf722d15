/* A coordinator for tests: plain blocking sockets, driven step by step by the test itself. */
#ifndef TEST_CLIENT_FAKE_H
#define TEST_CLIENT_FAKE_H

#include "proto/wire.h"

struct fake {
    int listener;     /* socket */
    int peer;         /* the accepted connection, -1 = none */
    char address[64]; /* "127.0.0.1:PORT" or "[::1]:PORT" */
    struct frame_parser parser;
    struct wire_arena in; /* owns the last message read */
    struct wire_arena out;
    uint8_t *memory;
    uint8_t buffer[65536]; /* bytes read and not parsed yet */
    const uint8_t *bytes;  /* the next of them */
    size_t length;
};

/* Listens on a free port of the loopback; family AF_INET or AF_INET6. */
void fake_open(struct fake *fake, int family);
void fake_close(struct fake *fake);

/* Accepts a connection; the test fails when none comes. */
void fake_accept(struct fake *fake);

/* The next message of this type, others (beats) are passed over; the test fails when none comes. */
void fake_read(struct fake *fake, uint8_t type, struct wire_message *message);

/* True when the peer closed its side; false when a message came first. */
bool fake_at_end(struct fake *fake);

void fake_send(struct fake *fake, const struct wire_message *message);
/* False: the session has closed the connection. */
bool fake_try_send(struct fake *fake, const struct wire_message *message);
void fake_send_bytes(struct fake *fake, const uint8_t *bytes, size_t length);

/* Ends the connection; with a reset when `reset`. */
void fake_drop(struct fake *fake, bool reset);

/* Accepts, reads HELLO into *hello (may be NULL) and answers WELCOME with a beat of 50 ms. */
void fake_admit(struct fake *fake, struct wire_message *hello);

#endif
