/* The bytes of every message, with every field: what wire.c writes must be these, and these must be
 * read as the same message. Made from the rules of protobuf and messages.proto, not by wire.c. A
 * new message or field needs its row here. */
#include "sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Sixteen bytes that count upwards. */
#define ID(n)                                                                                      \
    {{n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7, n + 8, n + 9, n + 10, n + 11, n + 12,    \
      n + 13, n + 14, n + 15}}

/* Version 1, generation 3, nonce 0xdeadbeef, step 120. */
#define HEADER(name)                                                                               \
    {.version = 1, .type = FRAME_##name, .generation = 3, .nonce = 0xdeadbeef, .step = 120}
#define ROUTE "03 00 00 00 00 00 00 00 ef be ad de 00 00 00 00 78 00 00 00 00 00 00 00 "

#define MEMBER(first, number)                                                                      \
    {.id = ID(first), .node = "n1", .host = "h1", .data_address = "h:1",                           \
     .owned = (const uint8_t *)"\x05", .owned_bytes = 1, .rank = number, .local_rank = 1,          \
     .pid = 300, .applied = 120, .frozen = true, .weight = 40}

static const struct wire_member golden_members[] = {MEMBER(0x10, 1), MEMBER(0x20, 2)};
static const wire_id golden_ids[] = {ID(0x10), ID(0x20)};

static const struct golden {
    struct wire_message message;
    const char *hex; /* the frame: magic, version, type, flags, length, ROUTE, then the fields */
} golden[] = {
    {{.header = HEADER(HELLO),
      .hello = {.version_min = 1,
                .version_max = 2,
                .job = "j",
                .member_id = ID(0x10),
                .secret = ID(0x20),
                .kind = WIRE_KIND_WORKER,
                .attach = WIRE_ATTACH_RUNNING,
                .node = "n1",
                .host = "h1",
                .pid = 300,
                .data_address = ":1",
                .min = 2,
                .max = 4,
                .spec = "lr=1\n",
                .fingerprint = "isa=v3\n",
                .job_uid = ID(0x30),
                .rank_hint = 1,
                .group_size = 2,
                .roster = &golden_members[1],
                .roster_count = 1,
                .program = "p 1",
                .plan = 4,
                .applied = 120,
                .passed = 3,
                .passed_name = "b"}},
     "4d 53 54 52 01 01 01 00 b0 00 00 00 " ROUTE                   /* header */
     "08 01 "                                                       /* version_min */
     "10 02 "                                                       /* version_max */
     "1a 01 6a "                                                    /* job */
     "22 10 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f "       /* member_id */
     "2a 10 20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f "       /* secret */
     "30 01 "                                                       /* kind */
     "38 02 "                                                       /* attach */
     "42 02 6e 31 "                                                 /* node */
     "4a 02 68 31 "                                                 /* host */
     "50 ac 02 "                                                    /* pid */
     "5a 02 3a 31 "                                                 /* data_address */
     "60 02 "                                                       /* min */
     "68 04 "                                                       /* max */
     "72 05 6c 72 3d 31 0a "                                        /* spec */
     "7a 07 69 73 61 3d 76 33 0a "                                  /* fingerprint */
     "82 01 10 30 31 32 33 34 35 36 37 38 39 3a 3b 3c 3d 3e 3f "    /* job_uid */
     "88 01 01 "                                                    /* rank_hint */
     "90 01 02 "                                                    /* group_size */
     "9a 01 2f 0a 10 20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e " /* roster */
     "2f 10 02 18 01 22 02 6e 31 2a 02 68 31 30 ac 02 3a 03 68 3a "
     "31 40 78 4a 01 05 50 01 58 28 "
     "a2 01 03 70 20 31 " /* program */
     "a8 01 04 "          /* plan */
     "b0 01 78 "          /* applied */
     "b8 01 03 "          /* passed */
     "c2 01 01 62 "},     /* passed_name */
    {{.header = HEADER(BEAT),
      .beat = {.seq = 150,
               .phase = WIRE_PHASE_COMPUTE,
               .phase_age_ms = 17,
               .loss = 0.75f,
               .samples_per_s = 1024.0f,
               .entered = 7,
               .left = 6,
               .name = "grads",
               .lag_ms = 2,
               .op = "all_reduce",
               .dtype = "float32",
               .count = 1000,
               .place = "main.c",
               .at = 7,
               .at_age_ms = 300,
               .where = "futex",
               .open = true,
               .batch = 3,
               .shard_us = 7000,
               .shards = 8}},
     "4d 53 54 52 01 02 00 00 58 00 00 00 " ROUTE /* header */
     "08 96 01 "                                   /* seq */
     "10 03 "                                      /* phase */
     "18 11 "                                      /* phase_age_ms */
     "25 00 00 40 3f "                             /* loss */
     "2d 00 00 80 44 "                             /* samples_per_s */
     "30 07 "                                      /* entered */
     "38 06 "                                      /* left */
     "42 05 67 72 61 64 73 "                       /* name */
     "48 02 "                                      /* lag_ms */
     "52 0a 61 6c 6c 5f 72 65 64 75 63 65 "        /* op */
     "5a 07 66 6c 6f 61 74 33 32 "                 /* dtype */
     "60 e8 07 "                                   /* count */
     "6a 06 6d 61 69 6e 2e 63 "                    /* place */
     "70 07 "                                      /* at */
     "78 ac 02 "                                   /* at_age_ms */
     "82 01 05 66 75 74 65 78 "                    /* where */
     "88 01 01 "                                   /* open */
     "90 01 03 "                                   /* batch */
     "a0 01 d8 36 "                                /* shard_us */
     "a8 01 08 "},                                 /* shards */
    {{.header = HEADER(REPORT),
      .report = {.plan = 4,
                 .has_reduced = true,
                 .owned = (const uint8_t *)"\x05\x80",
                 .owned_bytes = 2,
                 .entered = true}},
     "4d 53 54 52 01 03 00 00 0a 00 00 00 " ROUTE /* header */
     "08 04 "                                     /* plan */
     "10 01 "                                     /* has_reduced */
     "1a 02 05 80 "                               /* owned */
     "20 01 "},                                   /* entered */
    {{.header = HEADER(ENTERED),
      .entered = {.connect_us = 1000, .state_us = 20000, .recompute_us = 300000}},
     "4d 53 54 52 01 04 00 00 0b 00 00 00 " ROUTE /* header */
     "08 e8 07 "                                  /* connect_us */
     "10 a0 9c 01 "                               /* state_us */
     "18 e0 a7 12 "},                             /* recompute_us */
    {{.header = HEADER(READY), .ready = {.params_hash = 0xfedcba9876543210}},
     "4d 53 54 52 01 05 00 00 0b 00 00 00 " ROUTE
     "08 90 e4 d0 b2 87 d3 ae ee fe 01 "}, /* params_hash */
    {{.header = HEADER(PEER_LOST),
      .peer_lost = {.member_id = ID(0x10), .why = WIRE_LOST_UNREACHABLE, .text = "gone"}},
     "4d 53 54 52 01 06 00 00 1a 00 00 00 " ROUTE
     "0a 10 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f " /* member_id */
     "10 02 "                                                 /* why */
     "1a 04 67 6f 6e 65 "},                                   /* text */
    {{.header = HEADER(LEAVE), .leave = {.drain_ms = 30000}},
     "4d 53 54 52 01 07 00 00 04 00 00 00 " ROUTE /* header */
     "08 b0 ea 01 "},                             /* drain_ms */
    {{.header = HEADER(GOODBYE), .goodbye = {.exit_code = 75, .text = "bye"}},
     "4d 53 54 52 01 08 00 00 07 00 00 00 " ROUTE /* header */
     "08 4b "                                     /* exit_code */
     "12 03 62 79 65 "},                          /* text */
    {{.header = HEADER(FINISHED),
      .finished = {.params_hash = 0x8000000000000000, .test_accuracy = 0.5}},
     "4d 53 54 52 01 09 00 00 14 00 00 00 " ROUTE
     "08 80 80 80 80 80 80 80 80 80 01 " /* params_hash */
     "11 00 00 00 00 00 00 e0 3f "},     /* test_accuracy */
    {{.header = HEADER(BARRIER_ENTER),
      .barrier_enter = {.name = "epoch-end", .seq = 1, .place = "script.sh:12", .number = 1}},
     "4d 53 54 52 01 0a 00 00 1d 00 00 00 " ROUTE   /* header */
     "0a 09 65 70 6f 63 68 2d 65 6e 64 "            /* name */
     "10 01 "                                       /* seq */
     "1a 0c 73 63 72 69 70 74 2e 73 68 3a 31 32 "   /* place */
     "20 01 "},                                     /* number */
    {{.header = HEADER(WELCOME),
      .welcome = {.version = 1,
                  .job_uid = ID(0x30),
                  .beat_ms = 500,
                  .lease_ms = 2500,
                  .min = 2,
                  .max = 4,
                  .note = "note",
                  .attached = true}},
     "4d 53 54 52 01 40 00 00 26 00 00 00 " ROUTE             /* header */
     "08 01 "                                                 /* version */
     "12 10 30 31 32 33 34 35 36 37 38 39 3a 3b 3c 3d 3e 3f " /* job_uid */
     "18 f4 03 "                                              /* beat_ms */
     "20 c4 13 "                                              /* lease_ms */
     "28 02 "                                                 /* min */
     "30 04 "                                                 /* max */
     "3a 04 6e 6f 74 65 "                                     /* note */
     "40 01 "},                                               /* attached */
    {{.header = HEADER(REFUSED),
      .refused = {.why = WIRE_REFUSAL_PROTOCOL, .exit_code = 77, .text = "no"}},
     "4d 53 54 52 01 41 00 00 08 00 00 00 " ROUTE /* header */
     "08 09 "                                     /* why */
     "10 4d "                                     /* exit_code */
     "1a 02 6e 6f "},                             /* text */
    {{.header = HEADER(WAITING),
      .waiting = {.have = 1, .min = 2, .max = 4, .since_ms = 1500, .text = "wait", .paused = true}},
     "4d 53 54 52 01 42 00 00 11 00 00 00 " ROUTE /* header */
     "08 01 "                                     /* have */
     "10 02 "                                     /* min */
     "18 04 "                                     /* max */
     "20 dc 0b "                                  /* since_ms */
     "2a 04 77 61 69 74 "                         /* text */
     "30 01 "},                                   /* paused */
    {{.header = HEADER(GENERATION),
      .generation = {.mode = WIRE_MODE_FORMED,
                     .key = ID(0x40),
                     .members = golden_members,
                     .members_count = 2,
                     .reason = "formed",
                     .pause = true,
                     .detect_us = 1,
                     .push_us = 128,
                     .rendezvous_us = 16384}},
     "4d 53 54 52 01 43 00 00 89 00 00 00 " ROUTE                   /* header */
     "08 01 "                                                       /* mode */
     "12 10 40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f "       /* key */
     "1a 2f 0a 10 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f " /* members */
     "10 01 18 01 22 02 6e 31 2a 02 68 31 30 ac 02 3a 03 68 3a 31 "
     "40 78 4a 01 05 50 01 58 28 "
     "1a 2f 0a 10 20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f " /* members */
     "10 02 18 01 22 02 6e 31 2a 02 68 31 30 ac 02 3a 03 68 3a 31 "
     "40 78 4a 01 05 50 01 58 28 "
     "22 06 66 6f 72 6d 65 64 " /* reason */
     "28 01 "                   /* pause */
     "30 01 "                   /* detect_us */
     "38 80 01 "                /* push_us */
     "40 80 80 01 "},           /* rendezvous_us */
    {{.header = HEADER(OVER), .over = {.lost = golden_ids, .lost_count = 2, .reason = "lost"}},
     "4d 53 54 52 01 44 00 00 2a 00 00 00 " ROUTE
     "0a 10 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f " /* lost */
     "0a 10 20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f " /* lost */
     "12 04 6c 6f 73 74 "},                                   /* reason */
    {{.header = HEADER(RELEASED), .released = {.reason = "go"}},
     "4d 53 54 52 01 45 00 00 04 00 00 00 " ROUTE /* header */
     "0a 02 67 6f "},                             /* reason */
    {{.header = HEADER(DRAIN_REQUEST), .drain_request = {.reason = "drain"}},
     "4d 53 54 52 01 46 00 00 07 00 00 00 " ROUTE /* header */
     "0a 05 64 72 61 69 6e "},                    /* reason */
    {{.header = HEADER(DONE), .done = {.params_hash = 1, .text = "done"}},
     "4d 53 54 52 01 47 00 00 08 00 00 00 " ROUTE /* header */
     "08 01 "                                     /* params_hash */
     "12 04 64 6f 6e 65 "},                       /* text */
    {{.header = HEADER(BARRIER_RESULT),
      .barrier_result = {.name = "b", .seq = 2, .end = WIRE_BARRIER_DEADLOCK, .text = "who"}},
     "4d 53 54 52 01 48 00 00 0c 00 00 00 " ROUTE /* header */
     "0a 01 62 "                                  /* name */
     "10 02 "                                     /* seq */
     "18 03 "                                     /* end */
     "22 03 77 68 6f "},                          /* text */
    {{.header = HEADER(VERDICT), .verdict = {.kind = WIRE_VERDICT_OPS, .text = "who"}},
     "4d 53 54 52 01 4a 00 00 07 00 00 00 " ROUTE /* header */
     "08 01 "                                     /* kind */
     "12 03 77 68 6f "},                          /* text */
    {{.header = HEADER(BEAT_ACK), .beat_ack = {.seq = 150}},
     "4d 53 54 52 01 49 00 00 03 00 00 00 " ROUTE /* header */
     "08 96 01 "},                                /* seq */
};

#define GOLDEN_COUNT (sizeof golden / sizeof golden[0])

static uint8_t memory_a[WIRE_ARENA_BYTES];
static uint8_t memory_b[WIRE_ARENA_BYTES];

static size_t bytes_of(const char *hex, uint8_t *out)
{
    size_t count = 0;

    for (char *end; *hex != '\0'; hex = *end == ' ' ? end + 1 : end)
        out[count++] = (uint8_t)strtoul(hex, &end, 16);
    return count;
}

static enum frame_state reader_of(uint8_t type)
{
    if (type == FRAME_HELLO)
        return FRAME_STATE_STRANGER;
    return type < FRAME_WELCOME ? FRAME_STATE_MEMBER : FRAME_STATE_COORDINATOR;
}

static void check_row(const struct golden *row)
{
    const char *name = frame_type_name(row->message.header.type), *difference;
    struct wire_arena a, b;
    struct frame_header header;
    struct wire_message got;
    uint8_t bytes[1024];
    const uint8_t *frame = NULL;
    size_t count = bytes_of(row->hex, bytes), frame_bytes = 0;

    wire_arena_init(&a, memory_a, sizeof memory_a);
    wire_arena_init(&b, memory_b, sizeof memory_b);
    assert_int_equal(wire_encode(&a, &row->message, &frame, &frame_bytes), WIRE_OK);
    for (size_t i = 0; i < count || i < frame_bytes; i++)
        if (i >= count || i >= frame_bytes || frame[i] != bytes[i])
            fail_msg("%s: byte %zu of %zu (golden: %zu) differs", name, i, frame_bytes, count);
    assert_int_equal(frame_header_decode(reader_of(bytes[5]), bytes, &header), FRAME_OK);
    assert_int_equal(wire_decode(&b, &header, bytes + FRAME_HEADER_BYTES, &got, NULL), WIRE_OK);
    difference = sample_difference(&row->message, &got);
    if (difference != NULL)
        fail_msg("%s.%s is read otherwise", name, difference);
}

static void every_message_has_golden_bytes(void **state)
{
    bool seen[UINT8_MAX + 1] = {false};

    (void)state;
    for (size_t i = 0; i < GOLDEN_COUNT; i++) {
        check_row(&golden[i]);
        seen[golden[i].message.header.type] = true;
    }
    for (uint32_t t = 0; t < sample_type_count; t++)
        if (!seen[sample_types[t]])
            fail_msg("%s has no golden bytes", frame_type_name(sample_types[t]));
}

static uint64_t varint(const uint8_t **at)
{
    uint64_t value = 0;

    for (uint32_t shift = 0;; shift += 7) {
        value |= (uint64_t)(**at & 0x7f) << shift;
        if ((*(*at)++ & 0x80) == 0)
            return value;
    }
}

/* All fields of the table are in the bytes, and of the messages inside them. */
static void check_fields(const struct lint_table *table, const uint8_t *at, const uint8_t *end)
{
    bool seen[LINT_FIELDS_MAX] = {false};

    while (at < end) {
        uint64_t number = varint(&at) >> 3;
        const struct lint_field *field = &table->fields[number];

        seen[number] = true;
        if (field->kind == LINT_VARINT) {
            (void)varint(&at);
        } else if (field->kind == LINT_FIXED32 || field->kind == LINT_FIXED64) {
            at += field->kind == LINT_FIXED32 ? 4 : 8;
        } else {
            uint64_t bytes = varint(&at);

            if (field->kind == LINT_MESSAGE)
                check_fields(field->inside, at, at + bytes);
            at += bytes;
        }
    }
    for (uint32_t i = 1; i < LINT_FIELDS_MAX; i++)
        if (table->fields[i].name != NULL && !seen[i])
            fail_msg("%s.%s has no golden bytes", table->name, table->fields[i].name);
}

static void every_field_has_golden_bytes(void **state)
{
    uint8_t bytes[1024];

    (void)state;
    for (size_t i = 0; i < GOLDEN_COUNT; i++) {
        size_t count = bytes_of(golden[i].hex, bytes);

        check_fields(lint_table(bytes[5]), bytes + FRAME_HEADER_BYTES, bytes + count);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_has_golden_bytes),
        cmocka_unit_test(every_field_has_golden_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
