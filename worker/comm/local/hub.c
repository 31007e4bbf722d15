/* Mailboxes. */
#include "comm/local/hub.h"

#include <stdlib.h>
#include <string.h>

#include "comm/local/local.h"

void hub_push(struct hub_list *list, struct hub_message *message)
{
    message->next = NULL;
    if (list->last != NULL) {
        list->last->next = message;
    } else {
        list->first = message;
    }
    list->last = message;
    list->count++;
}

struct hub_message *hub_pop(struct hub_list *list)
{
    struct hub_message *message = list->first;
    if (message != NULL) {
        list->first = message->next;
        list->last = list->first != NULL ? list->last : NULL;
        list->count--;
    }
    return message;
}

struct comm_local_hub *comm_local_hub_new(void)
{
    struct comm_local_hub *hub = calloc(1, sizeof *hub);
    if (hub != NULL && uv_mutex_init(&hub->mutex) != 0) {
        free(hub);
        return NULL;
    }
    return hub;
}

void comm_local_hub_free(struct comm_local_hub *hub)
{
    if (hub != NULL) {
        uv_mutex_destroy(&hub->mutex);
        free(hub);
    }
}

struct hub_seat *hub_find(struct comm_local_hub *hub, const uint8_t id[COMM_ID_BYTES])
{
    struct hub_seat *seat = hub->seats;
    while (seat != NULL && memcmp(seat->id, id, COMM_ID_BYTES) != 0) {
        seat = seat->next;
    }
    return seat;
}

struct hub_mailbox *hub_box(struct hub_seat *seat, const uint8_t from[COMM_ID_BYTES])
{
    struct hub_mailbox *box = seat->boxes;
    while (box != NULL && memcmp(box->from, from, COMM_ID_BYTES) != 0) {
        box = box->next;
    }
    if (box == NULL) {
        box = calloc(1, sizeof *box);
        if (box != NULL) {
            memcpy(box->from, from, COMM_ID_BYTES);
            box->next = seat->boxes;
            seat->boxes = box;
        }
    }
    return box;
}

bool hub_post(struct comm_local_hub *hub, const uint8_t from[COMM_ID_BYTES],
              const uint8_t to[COMM_ID_BYTES], struct hub_message *message)
{
    struct hub_seat *seat = hub_find(hub, to);
    struct hub_mailbox *box = seat != NULL ? hub_box(seat, from) : NULL;
    if (box == NULL) {
        hub_message_free(message);
        return false;
    }
    hub_push(&box->list, message);
    uv_async_send(seat->wake);
    return true;
}

static struct hub_seat *seat_of(struct comm_local_hub *hub, uint32_t number)
{
    struct hub_seat *seat = hub->seats;
    while (seat != NULL && seat->number != number) {
        seat = seat->next;
    }
    return seat;
}

void hub_message_free(struct hub_message *message)
{
    if (message != NULL) {
        free(message->copy);
    }
    free(message);
}

static bool keep(struct hub_message *message)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < message->part_count; i++) {
        bytes += message->parts[i].bytes;
    }
    if (bytes == 0 || message->copy != NULL) {
        return true;
    }
    uint8_t *to = message->copy = malloc(bytes);
    if (to == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < message->part_count; i++) {
        memcpy(to, message->parts[i].data, message->parts[i].bytes);
        to += message->parts[i].bytes;
    }
    message->parts[0] = (struct comm_part){message->copy, bytes};
    message->part_count = 1;
    return true;
}

void hub_keep(struct comm_local_hub *hub, struct hub_mailbox *box)
{
    struct hub_list kept = {.first = NULL};
    struct hub_message *message = NULL;
    while ((message = hub_pop(&box->list)) != NULL) {
        if (message->kind != MESSAGE_FRAME || keep(message)) {
            hub_push(&kept, message);
        } else {
            hub_finish(hub, message, COMM_GONE);
        }
    }
    box->list = kept;
}

void hub_finish(struct comm_local_hub *hub, struct hub_message *message, enum comm_error result)
{
    struct hub_seat *seat = message->kind == MESSAGE_FRAME ? seat_of(hub, message->sender) : NULL;
    if (seat == NULL) {
        hub_message_free(message);
        return;
    }
    message->result = result;
    hub_push(&seat->done, message);
    uv_async_send(seat->wake);
}

void hub_cut(struct comm_local_hub *hub, struct hub_mailbox *box, bool keep_enters,
             enum comm_error result)
{
    struct hub_list kept = {.first = NULL};
    struct hub_message *message = NULL;
    while ((message = hub_pop(&box->list)) != NULL) {
        if (keep_enters && message->kind != MESSAGE_FRAME) {
            hub_push(&kept, message);
        } else {
            hub_finish(hub, message, result);
        }
    }
    box->list = kept;
}
