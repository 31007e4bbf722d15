/* HELLO, ANSWER, PROOF: both sides prove that they hold the key of the generation, before anything
 * else is believed. And ENTER, which proves the same of each later generation over a connection
 * that stays.
 *
 * Invariants
 *   1. The key is never sent; each proof covers both random challenges, both ids and its sender's
 *      side.
 *   2. An accepted link has no effect on any peer before its PROOF is checked, except that a dial
 *      of our own to the same member gives way to it when its id is the smaller one.
 *   3. Of two ends that dial each other, the smaller id's connection is the one that stays. */
#include "comm/tcp/end.h"

#include <string.h>

static uint32_t input_bytes(const struct tcp_link *link)
{
    return link->input_end - link->input_start;
}

static const uint8_t *input_take(struct tcp_link *link, uint32_t bytes)
{
    const uint8_t *at = link->input + link->input_start;
    link->input_start += bytes;
    return at;
}

/* ---- dialer ---------------------------------------------------------------------------------- */

void tcp_handshake_hello(struct tcp_link *link)
{
    struct tcp_end *end = link->end;
    struct wire_hello hello = {.number = end->number, .nonce = end->nonce};
    uint8_t bytes[WIRE_HELLO_BYTES];
    if (!proof_challenge(hello.challenge)) {
        tcp_dial_failed(end, link, "no random numbers");
        return;
    }
    memcpy(hello.from, end->id, COMM_ID_BYTES);
    memcpy(hello.to, link->peer->member.id, COMM_ID_BYTES);
    memcpy(link->session.dialer, hello.from, COMM_ID_BYTES);
    memcpy(link->session.acceptor, hello.to, COMM_ID_BYTES);
    memcpy(link->session.dialer_challenge, hello.challenge, WIRE_CHALLENGE_BYTES);
    memcpy(link->key, end->key, COMM_KEY_BYTES);
    link->number = end->number;
    link->nonce = end->nonce;
    link->state = LINK_WANT_ANSWER;
    link->born_ms = tcp_now_ms(end);
    wire_put_hello(bytes, &hello);
    tcp_send_own(link, bytes, sizeof bytes);
    tcp_link_poll(link);
}

static void refused(struct tcp_link *link, enum wire_answer code)
{
    struct tcp_dial *dial = &link->peer->dial;
    const char *cause = wire_answer_text(code);
    if (code == WIRE_ANSWER_BUSY) {
        dial->wanted = false; /* it reaches us by itself, or both of us run into the deadline */
    }
    if (code == WIRE_ANSWER_OTHER || code == WIRE_ANSWER_UNKNOWN) {
        dial->stranger = true;
        tcp_dial_failed(link->end, link, cause);
    } else {
        tcp_dial_refused(link->end, link, cause);
    }
}

static void take_answer(struct tcp_link *link)
{
    struct wire_answer_message answer;
    uint8_t proof[WIRE_PROOF_BYTES];
    uint8_t bytes[WIRE_PROOF_MESSAGE_BYTES];
    if (input_bytes(link) < WIRE_ANSWER_BYTES) {
        return;
    }
    struct tcp_dial *dial = &link->peer->dial;
    if (!wire_get_answer(input_take(link, WIRE_ANSWER_BYTES), &answer)) {
        dial->stranger = true;
        tcp_dial_failed(link->end, link, "what answers there does not speak our protocol");
        return;
    }
    if (answer.code != WIRE_ANSWER_OK) {
        refused(link, answer.code);
        return;
    }
    memcpy(link->session.acceptor_challenge, answer.challenge, WIRE_CHALLENGE_BYTES);
    if (!proof_check(link->key, PROOF_ACCEPTOR, link->number, link->nonce, &link->session,
                     answer.proof) ||
        !proof_make(link->key, PROOF_DIALER, link->number, link->nonce, &link->session, proof)) {
        dial->stranger = true;
        tcp_dial_failed(link->end, link, "it cannot prove that it knows the generation's key");
        return;
    }
    wire_put_proof(bytes, proof);
    tcp_send_own(link, bytes, sizeof bytes);
    tcp_peer_linked(link->end, link->peer, link);
}

/* ---- acceptor -------------------------------------------------------------------------------- */

/* May the one who says it is `from` come in? What it says is not proven yet. */
static enum wire_answer judge(struct tcp_end *end, const struct wire_hello *hello)
{
    if (memcmp(hello->to, end->id, COMM_ID_BYTES) != 0 ||
        memcmp(hello->from, end->id, COMM_ID_BYTES) == 0) {
        return WIRE_ANSWER_OTHER;
    }
    if (hello->number < end->number) {
        return WIRE_ANSWER_OLDER;
    }
    if (hello->nonce != end->nonce) {
        return WIRE_ANSWER_UNKNOWN;
    }
    struct tcp_peer *peer = tcp_peer_find(end, hello->from);
    if (peer == NULL) {
        if (end->me == COMM_VISITOR) {
            return WIRE_ANSWER_UNKNOWN;
        }
        return end->visitor_count < end->limits.visitor_count ? WIRE_ANSWER_OK : WIRE_ANSWER_FULL;
    }
    if (peer->state == PEER_LOST) {
        return WIRE_ANSWER_LOST;
    }
    bool smaller = memcmp(end->id, hello->from, COMM_ID_BYTES) < 0;
    return smaller && peer->dial.link != NULL ? WIRE_ANSWER_BUSY : WIRE_ANSWER_OK;
}

static void send_answer(struct tcp_link *link, const struct wire_answer_message *answer)
{
    uint8_t bytes[WIRE_ANSWER_BYTES];
    wire_put_answer(bytes, answer);
    tcp_send_own(link, bytes, sizeof bytes);
}

static void refuse(struct tcp_link *link, enum wire_answer code)
{
    struct wire_answer_message answer = {.code = code};
    if (code != WIRE_ANSWER_OLDER && code != WIRE_ANSWER_BUSY) {
        link->end->counters.strangers++;
        tcp_log(link->end, "data plane: refused a connection: told it \"%s\"",
                wire_answer_text(code));
    }
    send_answer(link, &answer);
    tcp_send_flush(link);
    tcp_link_close(link);
}

static void accept_hello(struct tcp_link *link, const struct wire_hello *hello)
{
    struct tcp_end *end = link->end;
    struct wire_answer_message answer = {.code = WIRE_ANSWER_OK};
    link->number = hello->number;
    link->nonce = hello->nonce;
    memcpy(link->key, end->key, COMM_KEY_BYTES);
    memcpy(link->session.dialer, hello->from, COMM_ID_BYTES);
    memcpy(link->session.acceptor, hello->to, COMM_ID_BYTES);
    memcpy(link->session.dialer_challenge, hello->challenge, WIRE_CHALLENGE_BYTES);
    if (!proof_challenge(link->session.acceptor_challenge) ||
        !proof_make(link->key, PROOF_ACCEPTOR, link->number, link->nonce, &link->session,
                    answer.proof)) {
        tcp_link_failed(link, COMM_LOST_PROTOCOL, "no random numbers");
        return;
    }
    memcpy(answer.challenge, link->session.acceptor_challenge, WIRE_CHALLENGE_BYTES);
    send_answer(link, &answer);
    link->state = LINK_WANT_PROOF;
}

static void take_hello(struct tcp_link *link)
{
    struct tcp_end *end = link->end;
    struct wire_hello hello;
    const uint8_t *at = link->input + link->input_start;
    bool whole = input_bytes(link) >= WIRE_HELLO_BYTES;
    if (!wire_may_be_hello(at, input_bytes(link)) || (whole && !wire_get_hello(at, &hello))) {
        tcp_link_failed(link, COMM_LOST_PROTOCOL, "it does not speak our protocol");
        return;
    }
    if (!whole) {
        return;
    }
    if (hello.number > end->number || (hello.number == end->number && !end->running)) {
        link->held = true;
        tcp_link_poll(link);
        return;
    }
    link->input_start += WIRE_HELLO_BYTES;
    enum wire_answer code = judge(end, &hello);
    if (code == WIRE_ANSWER_OK) {
        accept_hello(link, &hello);
    } else {
        refuse(link, code);
    }
}

/* Whose link this is now that it is proven; NULL: it is closed. */
static struct tcp_peer *claim_peer(struct tcp_link *link)
{
    struct tcp_end *end = link->end;
    struct tcp_peer *peer = tcp_peer_find(end, link->session.dialer);
    if (peer != NULL && peer->state == PEER_ANNOUNCED) {
        /* Frames of this generation may be lost with the old connection: that cannot be repaired
         * here. */
        tcp_peer_lost(end, peer, COMM_LOST_CLOSED, "it connected anew");
        peer = tcp_peer_find(end, link->session.dialer);
    }
    if (link->state == LINK_CLOSED) {
        return NULL;
    }
    if (peer == NULL && end->visitor_count < end->limits.visitor_count) {
        struct comm_member visitor = {.rank = COMM_VISITOR};
        memcpy(visitor.id, link->session.dialer, COMM_ID_BYTES);
        peer = tcp_peer_add(end, &visitor);
    }
    if (peer == NULL || peer->state == PEER_LOST) {
        tcp_link_close(link);
        return NULL;
    }
    return peer;
}

static void take_proof(struct tcp_link *link)
{
    uint8_t proof[WIRE_PROOF_BYTES];
    if (input_bytes(link) < WIRE_PROOF_MESSAGE_BYTES) {
        return;
    }
    if (!wire_get_proof(input_take(link, WIRE_PROOF_MESSAGE_BYTES), proof) ||
        !proof_check(link->key, PROOF_DIALER, link->number, link->nonce, &link->session, proof)) {
        tcp_link_failed(link, COMM_LOST_STRANGER,
                        "it cannot prove that it knows the generation's key");
        return;
    }
    struct tcp_peer *peer = claim_peer(link);
    if (peer != NULL) {
        tcp_peer_linked(link->end, peer, link);
    }
}

void tcp_handshake_input(struct tcp_link *link)
{
    if (link->state == LINK_WANT_ANSWER) {
        take_answer(link);
    } else if (link->state == LINK_WANT_HELLO) {
        take_hello(link);
    } else if (link->state == LINK_WANT_PROOF) {
        take_proof(link);
    }
}

/* ---- the next generation over the same connection -------------------------------------------- */

void tcp_handshake_enter(struct tcp_end *end, struct tcp_link *link)
{
    struct comm_frame frame = {.kind = WIRE_KIND_ENTER,
                               .number = end->number,
                               .nonce = end->nonce,
                               .length = WIRE_PROOF_BYTES};
    uint8_t bytes[WIRE_ENTER_BYTES];
    enum proof_purpose purpose = link->dialed ? PROOF_ENTER_DIALER : PROOF_ENTER_ACCEPTOR;
    wire_put_header(bytes, &frame);
    if (proof_make(end->key, purpose, end->number, end->nonce, &link->session,
                   bytes + WIRE_HEADER_BYTES)) {
        tcp_send_own(link, bytes, sizeof bytes);
    }
}

bool tcp_handshake_check_enter(struct tcp_link *link, const uint8_t proof[WIRE_PROOF_BYTES])
{
    const struct tcp_end *end = link->end;
    enum proof_purpose purpose = link->dialed ? PROOF_ENTER_ACCEPTOR : PROOF_ENTER_DIALER;
    return proof_check(end->key, purpose, end->number, end->nonce, &link->session, proof);
}
