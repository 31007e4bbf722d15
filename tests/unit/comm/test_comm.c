/* What every carrier owes its owner: one suite, run over each of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"

static const uint32_t two[] = {0, 1};
static const uint32_t three[] = {0, 1, 2};
static const uint32_t swapped[] = {1, 0};

static enum carrier carrier_of(void **state)
{
    return **(enum carrier **)state;
}

/* Limits under which those who cannot be reached are given up soon. */
static struct comm_limits impatient(void)
{
    struct comm_limits limits;
    comm_limits_default(&limits);
    limits.connect_ms = 1000;
    return limits;
}

static struct fixture *open_ends(void **state, uint32_t count, const struct comm_limits *limits)
{
    struct fixture *fixture = malloc(sizeof *fixture);
    assert_non_null(fixture);
    fixture_open(fixture, carrier_of(state), count, limits);
    return fixture;
}

static void close_ends(struct fixture *fixture)
{
    fixture_close(fixture);
    free(fixture);
}

static void *buffer_of(size_t bytes, uint64_t seed)
{
    void *data = malloc(bytes);
    assert_non_null(data);
    pattern_fill(data, bytes, seed);
    return data;
}

static void every_world_is_ready(void **state)
{
    const uint32_t roster[ENDS_MAX] = {3, 1, 0, 2, 7, 6, 5, 4};
    for (uint32_t world = 1; world <= ENDS_MAX; world *= 2) {
        struct fixture *fixture = open_ends(state, ENDS_MAX, NULL);
        fixture_enter_all(fixture, 7, roster, world);
        for (uint32_t i = 0; i < world; i++) {
            struct test_end *end = &fixture->ends[roster[i]];
            assert_int_equal(end->announced, world - 1);
            assert_int_equal(comm_peer_at(end->comm, i), COMM_NO_PEER);
            assert_int_equal(comm_peer_at(end->comm, world), COMM_NO_PEER);
            for (uint32_t rank = 0; rank < world; rank++) {
                uint32_t peer = comm_peer_at(end->comm, rank);
                if (rank != i) {
                    assert_int_equal(comm_peer_member(end->comm, peer)->rank, rank);
                    assert_int_equal(fixture_peer(fixture, roster[i], roster[rank]), peer);
                }
            }
        }
        close_ends(fixture);
    }
}

static void frames_arrive_whole_and_in_order(void **state)
{
    static const size_t sizes[] = {0, 1, 7, 4000, 4096, 4097, 70000, 1700000, 3, 0, 65536};
    enum { COUNT = sizeof sizes / sizeof sizes[0] };
    void *data[COUNT];
    uint32_t tags = 0;
    struct fixture *fixture = open_ends(state, 2, NULL);
    fixture_enter_all(fixture, 1, two, 2);
    for (uint32_t i = 0; i < COUNT; i++) {
        data[i] = buffer_of(sizes[i] + 1, i);
        assert_int_equal(fixture_send(fixture, 0, 1, COMM_PIECE, i, data[i], sizes[i], &tags),
                         COMM_OK);
    }
    fixture_wait(fixture, &fixture->ends[1].arrival_count, COUNT);
    fixture_wait(fixture, &tags, COUNT);
    assert_int_equal(fixture->ends[0].sent[COMM_OK], COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        const struct arrival *arrival = &fixture->ends[1].arrivals[i];
        assert_int_equal(arrival->seed, i);
        assert_int_equal(arrival->frame.length, sizes[i]);
        assert_int_equal(arrival->frame.step, i + 1);
        assert_int_equal(arrival->frame.number, 1);
        assert_int_equal(arrival->peer, fixture_peer(fixture, 1, 0));
        assert_true(arrival->intact);
        free(data[i]);
    }
    close_ends(fixture);
}

static void every_field_of_a_header_arrives(void **state)
{
    struct fixture *fixture = open_ends(state, 2, NULL);
    fixture_enter_all(fixture, UINT64_MAX - 1, two, 2);
    struct comm_frame frame = {.step = UINT64_MAX,
                               .offset = UINT64_C(1) << 63,
                               .length = 99,
                               .value = {0, UINT64_MAX},
                               .kind = COMM_WORD,
                               .bucket = UINT32_MAX,
                               .chunk = 0x01020304,
                               .level = 0x05060708,
                               .index = 0x80000000,
                               .flags = 0x7FFFFFFF};
    assert_int_equal(
        comm_send(fixture->ends[0].comm, fixture_peer(fixture, 0, 1), &frame, NULL, 0, NULL),
        COMM_OK);
    fixture_wait(fixture, &fixture->ends[1].arrival_count, 1);
    const struct comm_frame *got = &fixture->ends[1].arrivals[0].frame;
    assert_int_equal(got->number, UINT64_MAX - 1);
    assert_int_equal(got->step, frame.step);
    assert_int_equal(got->offset, frame.offset);
    assert_int_equal(got->length, 0);
    assert_int_equal(got->value[0], frame.value[0]);
    assert_int_equal(got->value[1], frame.value[1]);
    assert_int_equal(got->kind, frame.kind);
    assert_int_equal(got->bucket, frame.bucket);
    assert_int_equal(got->chunk, frame.chunk);
    assert_int_equal(got->level, frame.level);
    assert_int_equal(got->index, frame.index);
    assert_int_equal(got->flags, frame.flags);
    close_ends(fixture);
}

static void large_frames_cross(void **state)
{
    const size_t bytes = (size_t)64 << 20;
    uint32_t tags = 0;
    struct fixture *fixture = open_ends(state, 2, NULL);
    void *there = buffer_of(bytes, 11);
    void *back = buffer_of(bytes, 12);
    fixture_enter_all(fixture, 1, two, 2);
    fixture_send(fixture, 0, 1, COMM_STATE, 11, there, bytes, &tags);
    fixture_send(fixture, 1, 0, COMM_STATE, 12, back, bytes, &tags);
    fixture_wait(fixture, &fixture->ends[0].arrival_count, 1);
    fixture_wait(fixture, &fixture->ends[1].arrival_count, 1);
    fixture_wait(fixture, &tags, 2);
    assert_true(fixture->ends[0].arrivals[0].intact);
    assert_true(fixture->ends[1].arrivals[0].intact);
    free(there);
    free(back);
    close_ends(fixture);
}

static void a_frame_without_a_place_is_dropped(void **state)
{
    const size_t bytes = 300000;
    struct fixture *fixture = open_ends(state, 2, NULL);
    void *data = buffer_of(bytes, 5);
    fixture_enter_all(fixture, 1, two, 2);
    fixture->ends[1].refuse_place = true;
    fixture_send(fixture, 0, 1, COMM_PIECE, 5, data, bytes, NULL);
    fixture_send(fixture, 0, 1, COMM_WORD, 6, NULL, 0, NULL);
    fixture_wait(fixture, &fixture->ends[1].arrival_count, 1);
    assert_int_equal(fixture->ends[1].arrivals[0].seed, 6);
    assert_int_equal(fixture->ends[1].dropped, 0);
    struct comm_counters counters;
    comm_counters(fixture->ends[1].comm, &counters);
    assert_int_equal(counters.frames_dropped, 1);
    free(data);
    close_ends(fixture);
}

/* Sends more than any socket holds, halts both, writes over the buffers at once: nobody may ever
 * see it. */
static void halt_gives_all_buffers_back(void **state)
{
    enum { FRAMES = 6 };
    const size_t bytes = (size_t)3 << 20;
    void *data[FRAMES];
    struct fixture *fixture = open_ends(state, 2, NULL);
    fixture_enter_all(fixture, 1, two, 2);
    uint32_t peer_before = fixture_peer(fixture, 0, 1);
    for (uint64_t number = 2; number < 12; number++) {
        uint32_t tags = 0;
        uint32_t before = fixture->ends[1].arrival_count;
        for (uint32_t i = 0; i < FRAMES; i++) {
            data[i] = buffer_of(bytes, number * 100 + i);
            fixture_send(fixture, 0, 1, COMM_PIECE, number * 100 + i, data[i], bytes, &tags);
        }
        for (unsigned turn = 0; turn < number / 2; turn++) {
            uv_run(&fixture->loop, UV_RUN_NOWAIT);
        }
        comm_halt(fixture->ends[0].comm);
        assert_int_equal(tags, FRAMES);
        for (uint32_t i = 0; i < FRAMES; i++) {
            memset(data[i], 0xEE, bytes);
            free(data[i]);
        }
        assert_int_equal(fixture_send(fixture, 0, 1, COMM_WORD, 1, NULL, 0, NULL), COMM_GONE);
        fixture_spin(fixture, 3); /* the other has not heard of it yet */
        comm_halt(fixture->ends[1].comm);
        assert_int_equal(fixture->ends[1].places, 0);
        fixture_enter_all(fixture, number, two, 2);
        fixture_send(fixture, 0, 1, COMM_WORD, number, NULL, 0, NULL);
        uint32_t whole = fixture->ends[1].arrival_count;
        fixture_wait(fixture, &fixture->ends[1].arrival_count, whole + 1);
        for (uint32_t i = before; i < fixture->ends[1].arrival_count; i++) {
            assert_true(fixture->ends[1].arrivals[i].intact);
        }
    }
    assert_int_equal(fixture_peer(fixture, 0, 1), peer_before);
    assert_int_equal(fixture->ends[0].lost + fixture->ends[1].lost, 0);
    close_ends(fixture);
}

static void a_newer_generation_waits(void **state)
{
    const size_t bytes = 500000;
    struct fixture *fixture = open_ends(state, 2, NULL);
    void *data = buffer_of(bytes, 3);
    fixture_enter_all(fixture, 1, two, 2);
    fixture_send(fixture, 0, 1, COMM_WORD, 1, NULL, 0, NULL);
    assert_int_equal(fixture_enter(fixture, 0, 2, swapped, 2), COMM_OK);
    fixture_spin(fixture, 5);
    assert_int_equal(fixture->ends[0].ready, 1);
    assert_int_equal(fixture->ends[1].arrival_count, 1);
    /* The slower one may still send in the old generation; nobody there reads it as the new one. */
    assert_int_equal(fixture_send(fixture, 1, 0, COMM_PIECE, 3, data, bytes, NULL), COMM_OK);
    fixture_spin(fixture, 5);
    assert_int_equal(fixture->ends[0].arrival_count, 0);
    assert_int_equal(fixture_enter(fixture, 1, 2, swapped, 2), COMM_OK);
    fixture_wait_ready(fixture, 0, 2);
    fixture_wait_ready(fixture, 1, 2);
    assert_int_equal(comm_peer_member(fixture->ends[1].comm, fixture_peer(fixture, 1, 0))->rank, 1);
    fixture_send(fixture, 0, 1, COMM_WORD, 2, NULL, 0, NULL);
    fixture_send(fixture, 1, 0, COMM_WORD, 4, NULL, 0, NULL);
    fixture_wait(fixture, &fixture->ends[1].arrival_count, 2);
    fixture_wait(fixture, &fixture->ends[0].arrival_count, 1);
    assert_int_equal(fixture->ends[0].arrivals[0].seed, 4);
    free(data);
    close_ends(fixture);
}

/* At a boundary the quick one goes on while the slow one still needs its results. */
static void entering_cancels_nothing(void **state)
{
    enum { FRAMES = 4 };
    const size_t bytes = (size_t)2 << 20;
    void *data[FRAMES];
    uint32_t tags = 0;
    struct fixture *fixture = open_ends(state, 2, NULL);
    fixture_enter_all(fixture, 1, two, 2);
    for (uint32_t i = 0; i < FRAMES; i++) {
        data[i] = buffer_of(bytes, i);
        fixture_send(fixture, 0, 1, COMM_RESULT, i, data[i], bytes, &tags);
    }
    assert_int_equal(fixture_enter(fixture, 0, 2, two, 2), COMM_OK);
    fixture_wait(fixture, &fixture->ends[1].arrival_count, FRAMES);
    fixture_wait(fixture, &tags, FRAMES);
    assert_int_equal(fixture->ends[0].sent[COMM_OK], FRAMES);
    for (uint32_t i = 0; i < FRAMES; i++) {
        assert_true(fixture->ends[1].arrivals[i].intact);
        free(data[i]);
    }
    assert_int_equal(fixture_enter(fixture, 1, 2, two, 2), COMM_OK);
    fixture_wait_ready(fixture, 0, 2);
    close_ends(fixture);
}

static void who_departs_still_gets_what_was_queued(void **state)
{
    const size_t bytes = (size_t)5 << 20;
    uint32_t tags = 0;
    struct fixture *fixture = open_ends(state, 3, NULL);
    void *data = buffer_of(bytes, 9);
    fixture_enter_all(fixture, 1, three, 3);
    fixture_send(fixture, 0, 2, COMM_RESULT, 9, data, bytes, &tags);
    assert_int_equal(fixture_enter(fixture, 0, 2, two, 2), COMM_OK);
    memset(data, 0, bytes); /* the next generation's */
    assert_int_equal(fixture_enter(fixture, 1, 2, two, 2), COMM_OK);
    fixture_wait(fixture, &fixture->ends[2].arrival_count, 1);
    assert_true(fixture->ends[2].arrivals[0].intact);
    fixture_wait(fixture, &tags, 1);
    fixture_wait(fixture, &fixture->ends[2].lost, 2);
    fixture_wait_ready(fixture, 0, 2);
    assert_int_equal(fixture->ends[0].lost + fixture->ends[1].lost, 0);
    assert_int_equal(fixture_peer(fixture, 0, 2), COMM_NO_PEER);
    free(data);
    close_ends(fixture);
}

static void a_visitor_becomes_a_member(void **state)
{
    struct fixture *fixture = open_ends(state, 3, NULL);
    fixture_enter_all(fixture, 5, two, 2);
    assert_int_equal(fixture_enter(fixture, 2, 5, two, 2), COMM_OK);
    fixture_wait_ready(fixture, 2, 5);
    fixture_wait(fixture, &fixture->ends[0].announced, 2);
    fixture_wait(fixture, &fixture->ends[1].announced, 2);
    uint32_t visitor = fixture_peer(fixture, 0, 2);
    uint32_t member = fixture_peer(fixture, 2, 0);
    assert_int_equal(visitor, fixture->ends[0].last_peer);
    assert_int_equal(comm_peer_member(fixture->ends[0].comm, visitor)->rank, COMM_VISITOR);
    assert_int_equal(comm_peer_member(fixture->ends[2].comm, member)->rank, 0);
    assert_int_equal(fixture_send(fixture, 2, 0, COMM_REQUEST, 1, NULL, 0, NULL), COMM_OK);
    assert_int_equal(fixture_send(fixture, 0, 2, COMM_RECORD, 2, NULL, 0, NULL), COMM_OK);
    fixture_wait(fixture, &fixture->ends[0].arrival_count, 1);
    fixture_wait(fixture, &fixture->ends[2].arrival_count, 1);
    fixture_enter_all(fixture, 6, three, 3);
    assert_int_equal(fixture_peer(fixture, 0, 2), visitor);
    assert_int_equal(fixture_peer(fixture, 2, 0), member);
    assert_int_equal(comm_peer_member(fixture->ends[0].comm, visitor)->rank, 2);
    assert_int_equal(fixture->ends[0].lost + fixture->ends[1].lost + fixture->ends[2].lost, 0);
    close_ends(fixture);
}

static void a_lost_peer_is_told_at_once(void **state)
{
    const size_t bytes = (size_t)8 << 20;
    uint32_t tags = 0;
    struct fixture *fixture = open_ends(state, 3, NULL);
    void *data = buffer_of(bytes, 1);
    fixture_enter_all(fixture, 1, three, 3);
    uint32_t gone = fixture_peer(fixture, 0, 1);
    fixture_send(fixture, 0, 1, COMM_PIECE, 1, data, bytes, &tags);
    fixture_send(fixture, 0, 1, COMM_PIECE, 1, data, bytes, &tags);
    comm_close(fixture->ends[1].comm);
    fixture->ends[1].comm = NULL;
    fixture_wait(fixture, &fixture->ends[0].lost, 1);
    fixture_wait(fixture, &fixture->ends[2].lost, 1);
    assert_int_equal(fixture->ends[0].lost_why, COMM_LOST_CLOSED);
    assert_int_equal(fixture->ends[0].lost_peer, gone);
    assert_non_null(strstr(fixture->ends[0].lost_text, "rank 1 at "));
    assert_int_equal(tags, 2);
    assert_int_equal(fixture->ends[0].sent[COMM_GONE] + fixture->ends[0].sent[COMM_OK], 2);
    assert_int_equal(comm_peer_at(fixture->ends[0].comm, 1), COMM_NO_PEER);
    assert_int_equal(comm_send(fixture->ends[0].comm, gone, &(struct comm_frame){.kind = COMM_WORD},
                               NULL, 0, NULL),
                     COMM_GONE);
    const uint32_t left[] = {0, 2};
    comm_halt(fixture->ends[0].comm);
    comm_halt(fixture->ends[2].comm);
    fixture_enter_all(fixture, 2, left, 2);
    free(data);
    close_ends(fixture);
}

static void what_is_wrong_is_said(void **state)
{
    struct comm_limits limits;
    comm_limits_default(&limits);
    limits.frame_bytes = 1000;
    limits.queue_frames = 3;
    struct fixture *fixture = open_ends(state, 2, &limits);
    struct comm_member members[ENDS_MAX];
    uint8_t data[5000] = {0};
    struct comm_generation generation = fixture_generation(fixture, 0, 4, two, 2, members);
    struct comm *comm = fixture->ends[0].comm;
    generation.me = 1;
    assert_int_equal(comm_enter(comm, &generation), COMM_ROSTER);
    generation.me = COMM_VISITOR;
    assert_int_equal(comm_enter(comm, &generation), COMM_ROSTER);
    generation.me = 0;
    generation.member_count = 0;
    assert_int_equal(comm_enter(comm, &generation), COMM_ROSTER);
    generation.member_count = COMM_WORLD_MAX + 1;
    assert_int_equal(comm_enter(comm, &generation), COMM_ROSTER);
    fixture_enter_all(fixture, 4, two, 2);
    assert_int_equal(fixture_enter(fixture, 0, 4, two, 2), COMM_OLDER);
    assert_int_equal(fixture_enter(fixture, 0, 3, two, 2), COMM_OLDER);
    assert_int_equal(fixture_send(fixture, 0, 1, COMM_PIECE, 0, data, 1001, NULL), COMM_LIMIT);
    assert_int_equal(fixture_send(fixture, 0, 1, COMM_WORD, 0, data, 1, NULL), COMM_LIMIT);
    assert_int_equal(fixture_send(fixture, 0, 1, COMM_REQUEST, 0, data, 4097, NULL), COMM_LIMIT);
    assert_int_equal(fixture_send(fixture, 0, 1, COMM_KIND_COUNT, 0, NULL, 0, NULL), COMM_LIMIT);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(fixture_send(fixture, 0, 1, COMM_WORD, 0, NULL, 0, NULL), COMM_OK);
    }
    assert_int_equal(fixture_send(fixture, 0, 1, COMM_WORD, 0, NULL, 0, NULL), COMM_FULL);
    fixture_wait(fixture, &fixture->ends[1].arrival_count, 3);
    assert_int_equal(
        comm_send(comm, COMM_NO_PEER, &(struct comm_frame){.kind = COMM_WORD}, NULL, 0, NULL),
        COMM_GONE);
    comm_halt(comm);
    assert_int_equal(fixture_enter(fixture, 0, 4, two, 2), COMM_OLDER);
    close_ends(fixture);
}

/* The key of the next generation must be proven too, over the connection that stays. */
static void another_key_in_the_next_generation(void **state)
{
    struct comm_limits limits = impatient();
    struct fixture *fixture = open_ends(state, 2, &limits);
    struct comm_member members[ENDS_MAX];
    fixture_enter_all(fixture, 1, two, 2);
    struct comm_generation generation = fixture_generation(fixture, 0, 2, two, 2, members);
    generation.key[0] ^= 1;
    assert_int_equal(comm_enter(fixture->ends[0].comm, &generation), COMM_OK);
    assert_int_equal(fixture_enter(fixture, 1, 2, two, 2), COMM_OK);
    fixture_wait(fixture, &fixture->ends[0].lost, 1);
    fixture_wait(fixture, &fixture->ends[1].lost, 1);
    bool stranger = fixture->ends[0].lost_why == COMM_LOST_STRANGER ||
                    fixture->ends[1].lost_why == COMM_LOST_STRANGER;
    assert_true(stranger);
    assert_int_equal(fixture->ends[0].ready, 1);
    assert_int_equal(fixture->ends[1].ready, 1);
    /* The same members, rightly: connected anew. */
    fixture_enter_all(fixture, 3, two, 2);
    close_ends(fixture);
}

static void another_nonce_is_another_world(void **state)
{
    struct comm_limits limits = impatient();
    struct fixture *fixture = open_ends(state, 2, &limits);
    struct comm_member members[ENDS_MAX];
    fixture_enter_all(fixture, 1, two, 2);
    struct comm_generation generation = fixture_generation(fixture, 0, 2, two, 2, members);
    generation.nonce ^= 1;
    assert_int_equal(comm_enter(fixture->ends[0].comm, &generation), COMM_OK);
    assert_int_equal(fixture_enter(fixture, 1, 2, two, 2), COMM_OK);
    fixture_wait(fixture, &fixture->ends[0].lost, 1);
    fixture_wait(fixture, &fixture->ends[1].lost, 1);
    assert_int_equal(fixture->ends[0].ready, 1);
    fixture_enter_all(fixture, 3, two, 2);
    close_ends(fixture);
}

/* A callback may send, halt and enter. */
static struct fixture *chained;

static void next_generation_from_a_callback(struct test_end *end, uint32_t peer,
                                            const struct comm_frame *frame)
{
    (void)peer;
    if (frame->number < 20) {
        comm_halt(end->comm);
        uint32_t me = (uint32_t)(end - chained->ends);
        assert_int_equal(fixture_enter(chained, me, frame->number + 1, two, 2), COMM_OK);
        assert_int_equal(fixture_enter(chained, 1 - me, frame->number + 1, two, 2), COMM_OK);
    }
}

static void callbacks_may_change_the_generation(void **state)
{
    const size_t bytes = 100000;
    struct fixture *fixture = open_ends(state, 2, NULL);
    void *data = buffer_of(bytes, 1);
    chained = fixture;
    fixture->ends[1].on_frame = next_generation_from_a_callback;
    fixture_enter_all(fixture, 1, two, 2);
    for (uint64_t number = 1; number < 20; number++) {
        fixture_wait_ready(fixture, 0, number);
        fixture_wait_ready(fixture, 1, number);
        fixture_send(fixture, 0, 1, COMM_PIECE, 1, data, bytes, NULL);
        fixture_send(fixture, 0, 1, COMM_PIECE, 1, data, bytes, NULL);
    }
    fixture_wait_ready(fixture, 0, 20);
    fixture_wait_ready(fixture, 1, 20);
    assert_int_equal(fixture->ends[0].lost + fixture->ends[1].lost, 0);
    close_ends(fixture);
    free(data);
}

/* What has arrived since the last time is whole and not newer than the generation entered. */
static void check_arrivals(struct test_end *end, uint64_t entered, uint64_t seed, unsigned round)
{
    for (uint32_t k = 0; k < end->arrival_count; k++) {
        if (!end->arrivals[k].intact || end->arrivals[k].frame.number > entered) {
            fail_msg("seed %llu round %u: a frame of generation %llu, %s", (unsigned long long)seed,
                     round, (unsigned long long)end->arrivals[k].frame.number,
                     end->arrivals[k].intact ? "newer than its own" : "garbled");
        }
    }
    end->arrival_count = 0;
}

/* Ends enter, halt, send and write over their buffers at random; every frame that arrives is whole,
 * of the generation that its receiver is in, and in order. */
static void random_histories(void **state)
{
    enum { ENDS = 4, BUFFERS = 16 };
    const size_t bytes = 700000;
    const uint32_t all[] = {0, 1, 2, 3};
    const char *given = getenv("SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : uv_hrtime();
    uint64_t random = seed | 1;
    struct fixture *fixture = open_ends(state, ENDS, NULL);
    uint8_t *data[ENDS][BUFFERS];
    uint32_t busy[ENDS][BUFFERS]; /* 1: comm has it, 2: done */
    uint64_t entered[ENDS] = {0};
    for (uint32_t i = 0; i < ENDS; i++) {
        for (uint32_t j = 0; j < BUFFERS; j++) {
            data[i][j] = malloc(bytes);
            busy[i][j] = 0;
        }
    }
    uint64_t newest = 1;
    for (unsigned round = 0; round < 3000; round++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint32_t me = (uint32_t)(random >> 60) % ENDS;
        uint32_t to = (me + 1 + (uint32_t)(random >> 40) % (ENDS - 1)) % ENDS;
        uint32_t j = (uint32_t)(random >> 33) % BUFFERS;
        unsigned dice = (unsigned)(random >> 50) % 100;
        if (dice < 4) {
            comm_halt(fixture->ends[me].comm);
            for (uint32_t k = 0; k < BUFFERS; k++) {
                assert_int_not_equal(busy[me][k], 1);
            }
            newest += newest == entered[me];
        } else if (dice < 14 && entered[me] < newest) {
            entered[me] = newest;
            assert_int_equal(fixture_enter(fixture, me, newest, all, ENDS), COMM_OK);
        } else if (dice < 70 && busy[me][j] != 1) {
            size_t some = (size_t)(random >> 20) % bytes;
            pattern_fill(data[me][j], some, random);
            busy[me][j] = 1;
            if (fixture_send(fixture, me, to, COMM_PIECE, random, data[me][j], some,
                             &busy[me][j]) != COMM_OK) {
                busy[me][j] = 0;
            }
        } else {
            uv_run(&fixture->loop, UV_RUN_NOWAIT);
        }
        for (uint32_t i = 0; i < ENDS; i++) {
            check_arrivals(&fixture->ends[i], entered[i], seed, round);
        }
    }
    fixture_enter_all(fixture, newest + 1, all, ENDS);
    for (uint32_t i = 0; i < ENDS; i++) {
        if (fixture->ends[i].lost != 0) {
            fail_msg("seed %llu: end %u lost a peer: %s", (unsigned long long)seed, i,
                     fixture->ends[i].lost_text);
        }
        comm_halt(fixture->ends[i].comm);
        for (uint32_t j = 0; j < BUFFERS; j++) {
            free(data[i][j]);
        }
    }
    close_ends(fixture);
}

int main(void)
{
    static enum carrier carriers[] = {CARRIER_UNIX, CARRIER_TCP4, CARRIER_TCP6, CARRIER_LOCAL};
    static const char *const names[] = {"unix", "tcp4", "tcp6", "local"};
    int failed = 0;
    for (unsigned i = 0; i < sizeof carriers / sizeof carriers[0]; i++) {
        enum carrier *state = &carriers[i];
#define CASE(test) {#test, test, NULL, NULL, state}
        const struct CMUnitTest tests[] = {
            CASE(every_world_is_ready),
            CASE(frames_arrive_whole_and_in_order),
            CASE(every_field_of_a_header_arrives),
            CASE(large_frames_cross),
            CASE(a_frame_without_a_place_is_dropped),
            CASE(halt_gives_all_buffers_back),
            CASE(a_newer_generation_waits),
            CASE(entering_cancels_nothing),
            CASE(who_departs_still_gets_what_was_queued),
            CASE(a_visitor_becomes_a_member),
            CASE(a_lost_peer_is_told_at_once),
            CASE(what_is_wrong_is_said),
            CASE(another_key_in_the_next_generation),
            CASE(another_nonce_is_another_world),
            CASE(callbacks_may_change_the_generation),
            CASE(random_histories),
        };
#undef CASE
        failed += cmocka_run_group_tests_name(names[i], tests, NULL, NULL);
    }
    return failed;
}
