/* Inside of comm/local: the hub and its mailboxes. Private to this folder.
 *
 * Invariants
 *   1. Everything in struct hub_* is read and written under the hub's mutex; no callback runs under
 *      it.
 *   2. A message lies in exactly one list: of a mailbox, or `done` of its sender. Its parts may be
 *      read only while it lies in a mailbox: who takes it out (its sender's halt, its receiver's
 *      copy) holds the mutex. */
#ifndef MUSTER_COMM_LOCAL_HUB_H
#define MUSTER_COMM_LOCAL_HUB_H

#include <stdbool.h>
#include <uv.h>

#include "comm/comm.h"

enum message_kind {
    MESSAGE_ENTER, /* the sender is in this generation, and this is the key it knows */
    MESSAGE_FRAME,
    MESSAGE_END    /* the sender has ended the connection */
};

struct hub_message {
    struct hub_message *next;
    enum message_kind kind;
    struct comm_frame frame;   /* ENTER: number and nonce only */
    uint8_t key[COMM_KEY_BYTES];
    void *tag;
    uint32_t peer;             /* the sender's number for the receiver */
    enum comm_error result;    /* once done */
    uint32_t sender;           /* seat of the sender */
    uint32_t part_count;
    void *copy;                /* ours, of the parts; NULL: they are the sender's memory */
    struct comm_part parts[COMM_PARTS_MAX];
};

struct hub_list {
    struct hub_message *first;
    struct hub_message *last;
    uint32_t count;
};

/* What one sender has put before one receiver. */
struct hub_mailbox {
    struct hub_mailbox *next;
    uint8_t from[COMM_ID_BYTES];
    struct hub_list list;
};

/* An end that is open. Its seat number is never used again. */
struct hub_seat {
    struct hub_seat *next;
    uint32_t number;
    uint8_t id[COMM_ID_BYTES];
    uv_async_t *wake;             /* of its loop */
    struct hub_mailbox *boxes;
    struct hub_list done;         /* of what it has sent: sent_cb is due */
};

struct comm_local_hub {
    uv_mutex_t mutex;
    struct hub_seat *seats;
    uint32_t seat_count;          /* ever taken */
};

void hub_push(struct hub_list *list, struct hub_message *message);
struct hub_message *hub_pop(struct hub_list *list);

/* All with the mutex held. NULL: nobody with this id is open; or out of memory. */
struct hub_seat *hub_find(struct comm_local_hub *hub, const uint8_t id[COMM_ID_BYTES]);
struct hub_mailbox *hub_box(struct hub_seat *seat, const uint8_t from[COMM_ID_BYTES]);

/* Takes the message; wakes the receiver. false: nobody with this id is open (the message is
 * freed). */
bool hub_post(struct comm_local_hub *hub, const uint8_t from[COMM_ID_BYTES],
              const uint8_t to[COMM_ID_BYTES], struct hub_message *message);

/* Frames that lie in the box are copied: their sender's memory may change from now on. What there
 * is no memory for is finished with COMM_GONE. */
void hub_keep(struct comm_local_hub *hub, struct hub_mailbox *box);

void hub_message_free(struct hub_message *message);

/* A message is over: its sender learns the result, if it still sits. Frees it otherwise. */
void hub_finish(struct comm_local_hub *hub, struct hub_message *message, enum comm_error result);

/* Ends what lies in the box but the messages to keep: frames are finished with the result, and
 * ENTERs freed. */
void hub_cut(struct comm_local_hub *hub, struct hub_mailbox *box, bool keep_enters,
             enum comm_error result);

#endif
