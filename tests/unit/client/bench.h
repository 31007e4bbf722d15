/* A session under test: virtual time, and a coordinator made of struct literals. */
#ifndef TEST_CLIENT_BENCH_H
#define TEST_CLIENT_BENCH_H

#include "client/session.h"

enum { MEMBERS_MAX = 8, SECOND_US = 1000000 };

/* A session and what its last step did. */
struct bench {
    struct session_config config;
    struct session session;
    struct session_actions actions;
    struct wire_message heard; /* the last one: deliveries of its step point here */
    void *memory;
    uint64_t now_us;
    uint64_t random;
    bool accepted; /* result of the last step */
};

extern const wire_id bench_self;    /* the member under test: rank 1 of two */
extern const wire_id bench_other;   /* the other one: rank 0 */
extern const wire_id bench_job_uid; /* what WELCOME says */

void bench_init(struct bench *bench);
void bench_release(struct bench *bench);

/* ---- steps ---- */

void bench_step(struct bench *bench, struct session_event event); /* at the bench's time */
void bench_step_type(struct bench *bench, enum session_event_type type);
void bench_hear(struct bench *bench, const struct wire_message *message);
void bench_wake_at(struct bench *bench, uint64_t now_us);
void bench_entered(struct bench *bench, uint64_t number, uint64_t nonce, uint64_t at);

/* ---- what the last step did; the test fails when there is not exactly one ---- */

const struct session_action *bench_action(const struct bench *bench, enum session_action_type type);
const struct wire_message *bench_sent(const struct bench *bench);
const struct session_delivery *bench_news(const struct bench *bench);
uint32_t bench_count_sent(const struct bench *bench, uint8_t type);

/* ---- the coordinator ---- */

void bench_welcome(struct bench *bench);
void bench_attach(struct bench *bench); /* START .. WELCOME */
void bench_tell(struct bench *bench, enum wire_mode mode, uint64_t number, uint64_t nonce);
void bench_over(struct bench *bench, uint64_t number);
void bench_barrier_result(struct bench *bench, uint64_t seq);

/* The connection ends and a new one stands; its HELLO is the only thing sent. */
void bench_reconnect(struct bench *bench);

#endif
