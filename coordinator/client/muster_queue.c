/* The two queues between the program's threads and the loop's thread.
 *
 * Invariants (all under the mutex):
 *   1. The descriptor is readable exactly while `events` is not empty.
 *   2. ENDED is queued once and is the last event; `spare` guarantees that there is room for it.
 *   3. A program that does not take its events costs at most EVENTS_MAX of them: of several WAITING
 *      in a row only the newest is kept, and beyond the bound the session is ended.
 *   4. `barrier_open` is true from muster_barrier_enter() until its result, or ENDED, is queued.
 */
#include "client_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EVENTS_MAX = 4096 };

static const int exit_codes[] = {
#define EXIT_CODE_ROW(name, code, sentence) [name] = (code),
    MUSTER_STATUSES(EXIT_CODE_ROW)
#undef EXIT_CODE_ROW
};

enum muster_status client_explain(struct muster_error *error, enum muster_status status,
                                  const char *format, ...)
{
    va_list arguments;

    if (!error)
        return status;
    error->status = status;
    error->exit_code = exit_codes[status];
    va_start(arguments, format);
    (void)vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return status;
}

/* ---- commands ---- */

struct command *client_command_new(enum session_event_type type,
                                   const struct muster_position *position)
{
    struct command *command = calloc(1, sizeof *command);

    if (!command)
        return NULL;
    command->event.type = type;
    if (position)
        command->event.position =
            (struct session_position){position->generation, position->nonce, position->step};
    return command;
}

/* Under the mutex. */
enum muster_status client_command_push_locked(struct muster *muster, struct command *command)
{
    if (muster->ended) {
        free(command);
        return MUSTER_ERROR_ENDED;
    }
    command->has_status = muster->has_status; /* the session hears all in its order */
    command->status = muster->status;
    muster->has_status = false;
    *muster->commands_end = command;
    muster->commands_end = &command->next;
    return MUSTER_OK;
}

enum muster_status client_command_push(struct muster *muster, struct command *command)
{
    enum muster_status status = MUSTER_ERROR_SYSTEM;

    if (!command)
        return status;
    uv_mutex_lock(&muster->mutex);
    status = client_command_push_locked(muster, command);
    uv_mutex_unlock(&muster->mutex);
    if (status == MUSTER_OK)
        carrier_wake(muster->carrier);
    return status;
}

void muster_take_said(struct muster *muster, struct said *said)
{
    uv_mutex_lock(&muster->mutex);
    *said = (struct said){
        .commands = muster->commands,
        .give_up = muster->given_up,
        .close = muster->closing,
    };
    muster->commands = NULL;
    muster->commands_end = &muster->commands;
    uv_mutex_unlock(&muster->mutex);
}

bool muster_take_status(struct muster *muster, struct session_status *status)
{
    bool is_new;

    uv_mutex_lock(&muster->mutex);
    is_new = muster->has_status && muster->commands == NULL;
    if (is_new) {
        *status = muster->status;
        muster->has_status = false;
    }
    uv_mutex_unlock(&muster->mutex);
    return is_new;
}

/* ---- events ---- */

/* Takes the event at *at, a place in the queue, out of it. Under the mutex. */
struct queued *client_event_take_locked(struct muster *muster, struct queued **at)
{
    struct queued *queued = *at;
    uint64_t ignored;

    *at = queued->next;
    if (muster->events_end == &queued->next)
        muster->events_end = at;
    queued->next = NULL;
    muster->event_count--;
    if (!muster->events)
        (void)!read(muster->descriptor, &ignored, sizeof ignored);
    if (queued->event.type == MUSTER_OVER)
        muster->over = queued->event.generation;
    return queued;
}

static void append_locked(struct muster *muster, struct queued *queued)
{
    static const uint64_t one = 1;

    if (!muster->events)
        (void)!write(muster->descriptor, &one, sizeof one);
    *muster->events_end = queued;
    muster->events_end = &queued->next;
    muster->event_count++;
}

/* Replaces a WAITING at the end of the queue by the newer one; true when it did. Under the mutex.
 */
static bool coalesce_locked(struct muster *muster, struct queued *queued)
{
    struct queued **at = &muster->events;

    if (queued->event.type != MUSTER_WAITING || !*at)
        return false;
    while ((*at)->next)
        at = &(*at)->next;
    if ((*at)->event.type != MUSTER_WAITING)
        return false;
    client_event_free(*at);
    *at = queued;
    muster->events_end = &queued->next;
    return true;
}

static void note_locked(struct muster *muster, const struct muster_event *event)
{
    if (event->type == MUSTER_UP)
        muster->admitted = true;
    if (event->type == MUSTER_BARRIER || event->type == MUSTER_ENDED)
        muster->barrier_open = false;
    if (event->type == MUSTER_ENDED) {
        muster->ended = true;
        muster->end_error.status = event->status == MUSTER_OK ? MUSTER_ERROR_ENDED : event->status;
        muster->end_error.exit_code = event->exit_code;
        client_copy_text(muster->end_error.text, sizeof muster->end_error.text, event->text);
    }
}

/* The last resort: no memory for an event, or nobody takes them. Under the mutex. */
static struct queued *give_up_locked(struct muster *muster, const char *why)
{
    struct queued *queued = muster->spare;

    muster->spare = NULL;
    muster->given_up = true;
    carrier_wake(muster->carrier);
    queued->event = (struct muster_event){
        .type = MUSTER_ENDED,
        .self = MUSTER_NOBODY,
        .text = why,
        .status = MUSTER_ERROR_SYSTEM,
        .exit_code = exit_codes[MUSTER_ERROR_SYSTEM],
    };
    return queued;
}

void muster_queue_news(struct muster *muster, const struct session_delivery *delivery)
{
    struct queued *queued = client_event_new(delivery, &muster->config.member_id);
    bool ends = false;
    int exit_code = 0;

    uv_mutex_lock(&muster->mutex);
    if (muster->ended) { /* it was given up before the session came to its own end */
        client_event_free(queued);
        queued = NULL;
    } else if (!queued) {
        queued = give_up_locked(muster, "out of memory");
    } else if (muster->event_count >= EVENTS_MAX && queued->event.type != MUSTER_ENDED) {
        client_event_free(queued);
        queued = give_up_locked(muster, "the program does not take its events");
    }
    if (queued) {
        ends = queued->event.type == MUSTER_ENDED;
        exit_code = queued->event.exit_code;
        note_locked(muster, &queued->event);
        if (!coalesce_locked(muster, queued))
            append_locked(muster, queued);
    }
    uv_cond_broadcast(&muster->changed);
    uv_mutex_unlock(&muster->mutex);
    if (muster->wake_cb)
        muster->wake_cb(muster->wake_context);
    if (ends && muster->ended_cb)
        muster->ended_cb(muster->wake_context, exit_code);
}

void muster_set_quiet(struct muster *muster)
{
    uv_mutex_lock(&muster->mutex);
    muster->quiet = true;
    uv_cond_broadcast(&muster->changed);
    uv_mutex_unlock(&muster->mutex);
}

/* When a wait of timeout_ms ends, in uv_hrtime(). */
uint64_t client_deadline_ns(int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : uv_hrtime() + (uint64_t)timeout_ms * 1000000;
}

/* Waits for a change; false when the time is over. Under the mutex. */
bool client_wait_locked(struct muster *muster, uint64_t until_ns)
{
    uint64_t now_ns = uv_hrtime();

    if (until_ns == UINT64_MAX) {
        uv_cond_wait(&muster->changed, &muster->mutex);
        return true;
    }
    if (now_ns >= until_ns)
        return false;
    (void)uv_cond_timedwait(&muster->changed, &muster->mutex, until_ns - now_ns);
    return true;
}

int client_left_ms(uint64_t until_ns)
{
    uint64_t now_ns = uv_hrtime();

    if (until_ns == UINT64_MAX)
        return -1;
    return now_ns >= until_ns ? 0 : (int)((until_ns - now_ns + 999999) / 1000000);
}
