/* See fixture.h. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/local/local.h"
#include "comm/tcp/tcp.h"

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94D049BB133111EB);
    return value ^ (value >> 31);
}

static uint64_t pattern_word(uint64_t seed, size_t word)
{
    return mix(seed * UINT64_C(0x9E3779B97F4A7C15)) + word * UINT64_C(0xD1342543DE82EF95);
}

void pattern_fill(void *data, size_t bytes, uint64_t seed)
{
    uint8_t *at = data;
    for (size_t word = 0; word * 8 < bytes; word++) {
        uint64_t value = pattern_word(seed, word);
        size_t some = bytes - word * 8 < 8 ? bytes - word * 8 : 8;
        memcpy(at + word * 8, &value, some);
    }
}

bool pattern_check(const void *data, size_t bytes, uint64_t seed)
{
    const uint8_t *at = data;
    for (size_t word = 0; word * 8 < bytes; word++) {
        uint64_t value = pattern_word(seed, word);
        size_t some = bytes - word * 8 < 8 ? bytes - word * 8 : 8;
        if (memcmp(at + word * 8, &value, some) != 0) {
            return false;
        }
    }
    return true;
}

/* ---- callbacks ------------------------------------------------------------------------------- */

static void peer_cb(void *owner, uint32_t peer)
{
    struct test_end *end = owner;
    end->announced++;
    end->last_peer = peer;
}

static void ready_cb(void *owner, uint64_t number)
{
    struct test_end *end = owner;
    assert_true(number > end->ready);
    end->ready = number;
}

static void *place_cb(void *owner, uint32_t peer, const struct comm_frame *frame)
{
    struct test_end *end = owner;
    (void)peer;
    if (end->refuse_place) {
        return NULL;
    }
    end->places++;
    return malloc(frame->length);
}

static void frame_cb(void *owner, uint32_t peer, const struct comm_frame *frame, void *payload)
{
    struct test_end *end = owner;
    assert_true(end->arrival_count < sizeof end->arrivals / sizeof end->arrivals[0]);
    struct arrival *arrival = &end->arrivals[end->arrival_count++];
    arrival->frame = *frame;
    arrival->peer = peer;
    arrival->seed = frame->value[0];
    arrival->intact = pattern_check(payload, frame->length, frame->value[0]);
    if (payload != NULL) {
        assert_true(end->places > 0);
        end->places--;
        free(payload);
    }
    if (end->on_frame != NULL) {
        end->on_frame(end, peer, frame);
    }
}

static void drop_cb(void *owner, uint32_t peer, const struct comm_frame *frame, void *payload)
{
    struct test_end *end = owner;
    (void)peer;
    assert_true(frame->length > 0);
    assert_non_null(payload);
    assert_true(end->places > 0);
    end->places--;
    end->dropped++;
    free(payload);
}

static void sent_cb(void *owner, uint32_t peer, void *tag, enum comm_error result)
{
    struct test_end *end = owner;
    uint32_t *count = tag;
    (void)peer;
    end->sent[result]++;
    ++*count;
}

static void lost_cb(void *owner, uint32_t peer, enum comm_loss why, const char *text)
{
    struct test_end *end = owner;
    assert_non_null(comm_peer_member(end->comm, peer));
    end->lost++;
    end->lost_peer = peer;
    end->lost_why = why;
    snprintf(end->lost_text, sizeof end->lost_text, "%s", text);
}

static void log_cb(void *owner, const char *text)
{
    struct test_end *end = owner;
    end->logs++;
    snprintf(end->log_text, sizeof end->log_text, "%s", text);
}

static const struct comm_events events = {
    .peer_cb = peer_cb,
    .ready_cb = ready_cb,
    .place_cb = place_cb,
    .frame_cb = frame_cb,
    .drop_cb = drop_cb,
    .sent_cb = sent_cb,
    .lost_cb = lost_cb,
    .log_cb = log_cb,
};

/* ---- opening and closing --------------------------------------------------------------------- */

static void open_end(struct fixture *fixture, uint32_t index)
{
    struct test_end *end = &fixture->ends[index];
    char error[256] = "";
    enum comm_error result = COMM_OK;
    end->limits.same_host = fixture->carrier == CARRIER_UNIX;
    if (fixture->carrier == CARRIER_LOCAL) {
        result = comm_local_open(fixture->hub, &fixture->loop, end->id, &events, end, &end->limits,
                                 &end->comm);
    } else {
        const char *at = fixture->carrier == CARRIER_TCP6 ? "[::1]:0" : "127.0.0.1:0";
        result = comm_tcp_open(&fixture->loop, at, end->id, &events, end, &end->limits, &end->comm,
                               error, sizeof error);
    }
    if (result != COMM_OK) {
        fail_msg("open: %s: %s", comm_error_text(result), error);
    }
    comm_address(end->comm, end->address, sizeof end->address);
}

void fixture_open(struct fixture *fixture, enum carrier carrier, uint32_t count,
                  const struct comm_limits *limits)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->carrier = carrier;
    fixture->end_count = count;
    assert_int_equal(uv_loop_init(&fixture->loop), 0);
    fixture->hub = comm_local_hub_new();
    assert_non_null(fixture->hub);
    for (uint32_t i = 0; i < count; i++) {
        struct test_end *end = &fixture->ends[i];
        comm_limits_default(&end->limits);
        if (limits != NULL) {
            end->limits = *limits;
        }
        /* Ids out of the order of ranks; ids of one host must differ between tests that run
         * together. */
        uv_random(NULL, NULL, end->id, sizeof end->id, 0, NULL);
        open_end(fixture, i);
    }
}

void fixture_close(struct fixture *fixture)
{
    for (uint32_t i = 0; i < fixture->end_count; i++) {
        comm_close(fixture->ends[i].comm);
        fixture->ends[i].comm = NULL;
        assert_int_equal(fixture->ends[i].places, 0);
    }
    uv_run(&fixture->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&fixture->loop), 0);
    comm_local_hub_free(fixture->hub);
}

/* ---- generations ----------------------------------------------------------------------------- */

struct comm_generation fixture_generation(struct fixture *fixture, uint32_t end, uint64_t number,
                                          const uint32_t *roster, uint32_t count,
                                          struct comm_member *members)
{
    struct comm_generation generation = {.number = number,
                                         .nonce = mix(number),
                                         .members = members,
                                         .member_count = count,
                                         .me = COMM_VISITOR};
    pattern_fill(generation.key, sizeof generation.key, number);
    for (uint32_t rank = 0; rank < count; rank++) {
        const struct test_end *member = &fixture->ends[roster[rank]];
        memset(&members[rank], 0, sizeof members[rank]);
        memcpy(members[rank].id, member->id, COMM_ID_BYTES);
        memcpy(members[rank].address, member->address, COMM_ADDRESS_BYTES);
        members[rank].rank = rank;
        generation.me = roster[rank] == end ? rank : generation.me;
    }
    return generation;
}

enum comm_error fixture_enter(struct fixture *fixture, uint32_t end, uint64_t number,
                              const uint32_t *roster, uint32_t count)
{
    struct comm_member members[ENDS_MAX];
    struct comm_generation generation =
        fixture_generation(fixture, end, number, roster, count, members);
    return comm_enter(fixture->ends[end].comm, &generation);
}

void fixture_enter_all(struct fixture *fixture, uint64_t number, const uint32_t *roster,
                       uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(fixture_enter(fixture, roster[i], number, roster, count), COMM_OK);
    }
    for (uint32_t i = 0; i < count; i++) {
        fixture_wait_ready(fixture, roster[i], number);
    }
}

uint32_t fixture_peer(struct fixture *fixture, uint32_t from, uint32_t to)
{
    return comm_peer_of(fixture->ends[from].comm, fixture->ends[to].id);
}

enum comm_error fixture_send(struct fixture *fixture, uint32_t from, uint32_t to, uint32_t kind,
                             uint64_t seed, const void *data, size_t bytes, void *tag)
{
    struct comm_frame frame = {.kind = kind, .value = {seed, ~seed}, .step = seed + 1};
    size_t half = bytes / 2;
    struct comm_part parts[2] = {{data, half}, {(const uint8_t *)data + half, bytes - half}};
    return comm_send(fixture->ends[from].comm, fixture_peer(fixture, from, to), &frame, parts,
                     bytes > 0 ? 2 : 0, tag);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static const uint64_t watchdog_ns = UINT64_C(60) * 1000 * 1000 * 1000;

static void wake_cb(uv_timer_t *timer)
{
    (void)timer;
}

static void close_cb(uv_handle_t *handle)
{
    (void)handle;
}

/* One turn of the loop that sleeps for 10 ms at most. The timer repeats: on a busy machine it is
 * due before the loop looks for events, and a timer that has rung does not end a sleep. */
static void turn(struct fixture *fixture)
{
    uv_timer_t timer;
    uv_timer_init(&fixture->loop, &timer);
    uv_timer_start(&timer, wake_cb, 10, 10);
    uv_run(&fixture->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, close_cb);
    uv_run(&fixture->loop, UV_RUN_NOWAIT);
}

void fixture_wait(struct fixture *fixture, const uint32_t *count, uint32_t wanted)
{
    uint64_t until = uv_hrtime() + watchdog_ns;
    while (*count < wanted) {
        turn(fixture);
        if (uv_hrtime() > until) {
            fail_msg("waited in vain: %u of %u", *count, wanted);
        }
    }
}

void fixture_wait_ready(struct fixture *fixture, uint32_t end, uint64_t number)
{
    uint64_t until = uv_hrtime() + watchdog_ns;
    while (fixture->ends[end].ready < number) {
        turn(fixture);
        if (uv_hrtime() > until) {
            fail_msg("end %u is not ready for generation %llu (last %llu, lost %u: %s)", end,
                     (unsigned long long)number, (unsigned long long)fixture->ends[end].ready,
                     fixture->ends[end].lost, fixture->ends[end].lost_text);
        }
    }
}

void fixture_spin(struct fixture *fixture, unsigned turns)
{
    for (unsigned i = 0; i < turns; i++) {
        turn(fixture);
    }
}
