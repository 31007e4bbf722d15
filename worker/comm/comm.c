/* What both carriers share: words, sentences and limits, each from the one table in comm.h. */
#include "comm/comm.h"

static const uint64_t mib = UINT64_C(1) << 20;

void comm_limits_default(struct comm_limits *limits)
{
    *limits = (struct comm_limits){
        .frame_bytes = 256 * mib,
        .queue_frames = 4096,
        .unproven_count = 64,
        .visitor_count = 64,
        .handshake_ms = 5000,
        .connect_ms = 10000,
        .progress_ms = 20000,
        .buffer_bytes = 0,
        .same_host = 1,
    };
}

const char *comm_error_name(enum comm_error error)
{
    switch (error) {
#define COMM_NAME(name, value, sentence)                                                           \
    case COMM_##name:                                                                              \
        return #name;
        COMM_ERRORS(COMM_NAME)
#undef COMM_NAME
    }
    return "UNKNOWN";
}

const char *comm_error_text(enum comm_error error)
{
    switch (error) {
#define COMM_SENTENCE(name, value, sentence)                                                       \
    case COMM_##name:                                                                              \
        return sentence;
        COMM_ERRORS(COMM_SENTENCE)
#undef COMM_SENTENCE
    }
    return "unknown error";
}

const char *comm_loss_word(enum comm_loss why)
{
#define COMM_WORD_OF(name, word) word,
    static const char *const words[] = {COMM_LOSSES(COMM_WORD_OF)};
#undef COMM_WORD_OF
    return (unsigned)why < COMM_LOSS_COUNT ? words[why] : "unknown";
}

const char *comm_kind_word(uint32_t kind)
{
#define COMM_WORD_OF(name, most, word) word,
    static const char *const words[] = {COMM_KINDS(COMM_WORD_OF)};
#undef COMM_WORD_OF
    return kind < COMM_KIND_COUNT ? words[kind] : "unknown";
}

uint64_t comm_kind_most(uint32_t kind, const struct comm_limits *limits)
{
#define COMM_MOST_OF(name, most, word) most,
    static const uint64_t most[] = {COMM_KINDS(COMM_MOST_OF)};
#undef COMM_MOST_OF
    if (kind >= COMM_KIND_COUNT) {
        return 0;
    }
    return most[kind] == COMM_BULK ? limits->frame_bytes : most[kind];
}
