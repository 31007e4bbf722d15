/* One table per message of messages.proto: field number, name, kind and caps. tests/unit/proto
 * reads the schema and compares every row with it. */
#include "proto/wire.h"

#define NUMBER(label, largest)                                                                     \
    {                                                                                              \
        .name = label, .kind = LINT_VARINT, .value_max = (largest)                                 \
    }
#define FLAG(label) NUMBER(label, 1)
#define U32(label)  NUMBER(label, UINT32_MAX)
#define U64(label)  NUMBER(label, UINT64_MAX)
#define FLOAT(label)                                                                               \
    {                                                                                              \
        .name = label, .kind = LINT_FIXED32                                                        \
    }
#define DOUBLE(label)                                                                              \
    {                                                                                              \
        .name = label, .kind = LINT_FIXED64                                                        \
    }
#define BYTES(label, largest)                                                                      \
    {                                                                                              \
        .name = label, .kind = LINT_BYTES, .bytes_max = (largest)                                  \
    }
#define TEXT(label, largest)                                                                       \
    {                                                                                              \
        .name = label, .kind = LINT_TEXT, .bytes_max = (largest)                                   \
    }
#define LINES(label, largest)                                                                      \
    {                                                                                              \
        .name = label, .kind = LINT_LINES, .bytes_max = (largest)                                  \
    }
#define ID_BOUNDS .kind = LINT_BYTES, .bytes_min = WIRE_ID_BYTES, .bytes_max = WIRE_ID_BYTES
#define ID(label)                                                                                  \
    {                                                                                              \
        .name = label, ID_BOUNDS                                                                   \
    }
#define ID_OR_NONE(label)                                                                          \
    {                                                                                              \
        .name = label, ID_BOUNDS, .or_empty = true                                                 \
    }
#define IDS(label, most)                                                                           \
    {                                                                                              \
        .name = label, ID_BOUNDS, .count_max = (most)                                              \
    }
#define MESSAGES(label, most, table)                                                               \
    {                                                                                              \
        .name = label, .kind = LINT_MESSAGE, .count_max = (most), .inside = (table)                \
    }

static const struct lint_table table_member = {
    .name = "Member",
    .fields =
        {
            [1] = ID("id"),
            [2] = U32("rank"),
            [3] = U32("local_rank"),
            [4] = TEXT("node", WIRE_NAME_BYTES),
            [5] = TEXT("host", WIRE_NAME_BYTES),
            [6] = U32("pid"),
            [7] = TEXT("data_address", WIRE_NAME_BYTES),
            [8] = U64("applied"),
            [9] = BYTES("owned", WIRE_OWNED_BYTES),
            [10] = FLAG("frozen"),
            [11] = U32("weight"),
        },
};

static const struct lint_table table_hello = {
    .name = "Hello",
    .fields =
        {
            [1] = U32("version_min"),
            [2] = U32("version_max"),
            [3] = TEXT("job", WIRE_NAME_BYTES),
            [4] = ID("member_id"),
            [5] = ID("secret"),
            [6] = NUMBER("kind", WIRE_KIND_PARTICIPANT),
            [7] = NUMBER("attach", WIRE_ATTACH_FROZEN),
            [8] = TEXT("node", WIRE_NAME_BYTES),
            [9] = TEXT("host", WIRE_NAME_BYTES),
            [10] = U32("pid"),
            [11] = TEXT("data_address", WIRE_NAME_BYTES),
            [12] = U32("min"),
            [13] = U32("max"),
            [14] = LINES("spec", WIRE_SPEC_BYTES),
            [15] = LINES("fingerprint", WIRE_FINGERPRINT_BYTES),
            [16] = ID_OR_NONE("job_uid"),
            [17] = U32("rank_hint"),
            [18] = U32("group_size"),
            [19] = MESSAGES("roster", WIRE_MEMBERS_MAX, &table_member),
            [20] = TEXT("program", WIRE_NAME_BYTES),
            [21] = U64("plan"),
            [22] = U64("applied"),
            [23] = U64("passed"),
            [24] = TEXT("passed_name", WIRE_NAME_BYTES),
        },
};

static const struct lint_table table_beat = {
    .name = "Beat",
    .fields =
        {
            [1] = U64("seq"),
            [2] = NUMBER("phase", WIRE_PHASE_FINISHED),
            [3] = U64("phase_age_ms"),
            [4] = FLOAT("loss"),
            [5] = FLOAT("samples_per_s"),
            [6] = U64("entered"),
            [7] = U64("left"),
            [8] = TEXT("name", WIRE_NAME_BYTES),
            [9] = U32("lag_ms"),
            [10] = TEXT("op", WIRE_OP_BYTES),
            [11] = TEXT("dtype", WIRE_DTYPE_BYTES),
            [12] = U64("count"),
            [13] = TEXT("place", WIRE_PLACE_BYTES),
            [14] = U64("at"),
            [15] = U64("at_age_ms"),
            [16] = TEXT("where", WIRE_REASON_BYTES),
            [17] = FLAG("open"),
            [18] = U64("batch"),
            [20] = U32("shard_us"),
            [21] = U32("shards"),
        },
};

static const struct lint_table table_report = {
    .name = "Report",
    .fields =
        {
            [1] = U64("plan"),
            [2] = FLAG("has_reduced"),
            [3] = BYTES("owned", WIRE_OWNED_BYTES),
            [4] = FLAG("entered"),
        },
};

static const struct lint_table table_entered = {
    .name = "Entered",
    .fields = {[1] = U64("connect_us"), [2] = U64("state_us"), [3] = U64("recompute_us")},
};

static const struct lint_table table_ready = {
    .name = "Ready",
    .fields = {[1] = U64("params_hash")},
};

static const struct lint_table table_peer_lost = {
    .name = "PeerLost",
    .fields =
        {
            [1] = ID("member_id"),
            [2] = NUMBER("why", WIRE_LOST_STRANGER),
            [3] = TEXT("text", WIRE_REASON_BYTES),
        },
};

static const struct lint_table table_leave = {
    .name = "Leave",
    .fields = {[1] = U32("drain_ms")},
};

static const struct lint_table table_goodbye = {
    .name = "Goodbye",
    .fields = {[1] = U32("exit_code"), [2] = TEXT("text", WIRE_REASON_BYTES)},
};

static const struct lint_table table_finished = {
    .name = "Finished",
    .fields = {[1] = U64("params_hash"), [2] = DOUBLE("test_accuracy")},
};

static const struct lint_table table_barrier_enter = {
    .name = "BarrierEnter",
    .fields =
        {
            [1] = TEXT("name", WIRE_NAME_BYTES),
            [2] = U64("seq"),
            [3] = TEXT("place", WIRE_PLACE_BYTES),
            [4] = U64("number"),
        },
};

static const struct lint_table table_welcome = {
    .name = "Welcome",
    .fields =
        {
            [1] = U32("version"),
            [2] = ID("job_uid"),
            [3] = U32("beat_ms"),
            [4] = U32("lease_ms"),
            [5] = U32("min"),
            [6] = U32("max"),
            [7] = TEXT("note", WIRE_REASON_BYTES),
            [8] = FLAG("attached"),
        },
};

static const struct lint_table table_refused = {
    .name = "Refused",
    .fields =
        {
            [1] = NUMBER("why", WIRE_REFUSAL_GROUP),
            [2] = U32("exit_code"),
            [3] = TEXT("text", WIRE_SENTENCE_BYTES),
        },
};

static const struct lint_table table_waiting = {
    .name = "Waiting",
    .fields =
        {
            [1] = U32("have"),
            [2] = U32("min"),
            [3] = U32("max"),
            [4] = U64("since_ms"),
            [5] = TEXT("text", WIRE_SENTENCE_BYTES),
            [6] = FLAG("paused"),
        },
};

static const struct lint_table table_generation = {
    .name = "Generation",
    .fields =
        {
            [1] = NUMBER("mode", WIRE_MODE_VIEW),
            [2] = ID("key"),
            [3] = MESSAGES("members", WIRE_MEMBERS_MAX, &table_member),
            [4] = TEXT("reason", WIRE_REASON_BYTES),
            [5] = FLAG("pause"),
            [6] = U64("detect_us"),
            [7] = U64("push_us"),
            [8] = U64("rendezvous_us"),
        },
};

static const struct lint_table table_over = {
    .name = "Over",
    .fields = {[1] = IDS("lost", WIRE_MEMBERS_MAX), [2] = TEXT("reason", WIRE_REASON_BYTES)},
};

static const struct lint_table table_released = {
    .name = "Released",
    .fields = {[1] = TEXT("reason", WIRE_REASON_BYTES)},
};

static const struct lint_table table_drain_request = {
    .name = "DrainRequest",
    .fields = {[1] = TEXT("reason", WIRE_REASON_BYTES)},
};

static const struct lint_table table_done = {
    .name = "Done",
    .fields = {[1] = U64("params_hash"), [2] = TEXT("text", WIRE_REASON_BYTES)},
};

static const struct lint_table table_barrier_result = {
    .name = "BarrierResult",
    .fields =
        {
            [1] = TEXT("name", WIRE_NAME_BYTES),
            [2] = U64("seq"),
            [3] = NUMBER("end", WIRE_BARRIER_FINISHED),
            [4] = TEXT("text", WIRE_SENTENCE_BYTES),
        },
};

static const struct lint_table table_beat_ack = {
    .name = "BeatAck",
    .fields = {[1] = U64("seq")},
};

static const struct lint_table table_verdict = {
    .name = "Verdict",
    .fields =
        {
            [1] = NUMBER("kind", WIRE_VERDICT_BARRIERS),
            [2] = TEXT("text", WIRE_SENTENCE_BYTES),
        },
};

static const struct lint_table *const tables[UINT8_MAX + 1] = {
    [FRAME_HELLO] = &table_hello,
    [FRAME_BEAT] = &table_beat,
    [FRAME_REPORT] = &table_report,
    [FRAME_ENTERED] = &table_entered,
    [FRAME_READY] = &table_ready,
    [FRAME_PEER_LOST] = &table_peer_lost,
    [FRAME_LEAVE] = &table_leave,
    [FRAME_GOODBYE] = &table_goodbye,
    [FRAME_FINISHED] = &table_finished,
    [FRAME_BARRIER_ENTER] = &table_barrier_enter,
    [FRAME_WELCOME] = &table_welcome,
    [FRAME_REFUSED] = &table_refused,
    [FRAME_WAITING] = &table_waiting,
    [FRAME_GENERATION] = &table_generation,
    [FRAME_OVER] = &table_over,
    [FRAME_RELEASED] = &table_released,
    [FRAME_DRAIN_REQUEST] = &table_drain_request,
    [FRAME_DONE] = &table_done,
    [FRAME_BARRIER_RESULT] = &table_barrier_result,
    [FRAME_BEAT_ACK] = &table_beat_ack,
    [FRAME_VERDICT] = &table_verdict,
};

const struct lint_table *lint_table(uint8_t type)
{
    return tables[type];
}
