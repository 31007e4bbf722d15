/* Ends of a data plane under test: they write down what happens to them and check what every
 * carrier owes its owner (a place is handed back once, a tag once, frames are what their sender's
 * buffer held). */
#ifndef MUSTER_TESTS_UNIT_COMM_FIXTURE_H
#define MUSTER_TESTS_UNIT_COMM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include <cmocka.h>

#include "comm/comm.h"

#define ENDS_MAX 8

enum carrier {
    CARRIER_LOCAL,
    CARRIER_UNIX, /* comm/tcp inside one host */
    CARRIER_TCP4,
    CARRIER_TCP6
};

/* One frame that arrived. */
struct arrival {
    struct comm_frame frame;
    uint32_t peer;
    uint64_t seed;  /* the payload is pattern(seed); checked when it arrives */
    bool intact;
};

/* One end and its diary. */
struct test_end {
    struct comm *comm;
    struct comm_limits limits;
    uint8_t id[COMM_ID_BYTES];
    char address[COMM_ADDRESS_BYTES];
    uint64_t ready;           /* number of the last ready_cb */
    uint32_t announced;       /* peer_cb so far */
    uint32_t last_peer;       /* of the last peer_cb */
    uint32_t lost;            /* lost_cb so far */
    uint32_t lost_peer;
    enum comm_loss lost_why;
    char lost_text[COMM_TEXT_BYTES];
    char log_text[COMM_TEXT_BYTES];
    uint32_t logs;
    uint32_t sent[16];        /* sent_cb so far, by result */
    uint32_t places;          /* handed out and not handed back */
    uint32_t dropped;         /* drop_cb so far */
    bool refuse_place;        /* place_cb answers NULL */
    uint32_t arrival_count;
    struct arrival arrivals[4096];
    void (*on_frame)(struct test_end *end, uint32_t peer, const struct comm_frame *frame);
};

struct fixture {
    enum carrier carrier;
    uv_loop_t loop;
    struct comm_local_hub *hub;
    uint32_t end_count;
    struct test_end ends[ENDS_MAX];
};

/* Opens count ends; limits NULL: the defaults. */
void fixture_open(struct fixture *fixture, enum carrier carrier, uint32_t count,
                  const struct comm_limits *limits);
void fixture_close(struct fixture *fixture);

/* Lets end enter generation number with the ends listed in roster (by index) as members. */
enum comm_error fixture_enter(struct fixture *fixture, uint32_t end, uint64_t number,
                              const uint32_t *roster, uint32_t count);

/* All ends of the roster enter, and are ready. */
void fixture_enter_all(struct fixture *fixture, uint64_t number, const uint32_t *roster,
                       uint32_t count);

/* The generation that fixture_enter makes, for tests that change it; members must hold ENDS_MAX. */
struct comm_generation fixture_generation(struct fixture *fixture, uint32_t end, uint64_t number,
                                          const uint32_t *roster, uint32_t count,
                                          struct comm_member *members);

/* The peer number that `to` has at `from`. */
uint32_t fixture_peer(struct fixture *fixture, uint32_t from, uint32_t to);

/* Sends bytes at data, which hold pattern(seed), as a frame with value[0] = seed. tag: see
 * comm_send. */
enum comm_error fixture_send(struct fixture *fixture, uint32_t from, uint32_t to, uint32_t kind,
                             uint64_t seed, const void *data, size_t bytes, void *tag);

/* Runs the loop until the value at *count is at least wanted; fails the test after a minute. */
void fixture_wait(struct fixture *fixture, const uint32_t *count, uint32_t wanted);
void fixture_wait_ready(struct fixture *fixture, uint32_t end, uint64_t number);

/* Runs the loop for a while without expecting anything. */
void fixture_spin(struct fixture *fixture, unsigned turns);

/* bytes that depend on the seed and their place, and how to know them again. */
void pattern_fill(void *data, size_t bytes, uint64_t seed);
bool pattern_check(const void *data, size_t bytes, uint64_t seed);

#endif
