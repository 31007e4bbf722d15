/* The program's side of libmuster: open, wait, barrier, end. */
#include "client_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* ---- open and close ---- */

/* Frees an object whose thread never ran or has ended; accepts half-built ones without mutex. */
static void release(struct muster *muster)
{
    struct queued *event = muster->events;
    struct command *command = muster->commands;

    while (event) {
        struct queued *next = event->next;

        client_event_free(event);
        event = next;
    }
    while (command) {
        struct command *next = command->next;

        free(command);
        command = next;
    }
    client_event_free(muster->spare);
    if (muster->descriptor >= 0)
        (void)close(muster->descriptor);
    free(muster);
}

/* Everything but the thread. */
static struct muster *muster_new(struct muster_error *error)
{
    struct muster *muster = calloc(1, sizeof *muster);

    if (!muster) {
        (void)client_explain(error, MUSTER_ERROR_SYSTEM, "out of memory");
        return NULL;
    }
    muster->commands_end = &muster->commands;
    muster->events_end = &muster->events;
    muster->spare = calloc(1, sizeof *muster->spare);
    muster->descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!muster->spare || muster->descriptor < 0) {
        (void)client_explain(error, MUSTER_ERROR_SYSTEM, "no descriptor or memory: %s",
                             strerror(errno));
        release(muster);
        return NULL;
    }
    return muster;
}

static int start(struct muster *muster)
{
    int error = client_take_identity(&muster->config);

    if (error != 0)
        return error;
    error = uv_mutex_init(&muster->mutex);
    if (error != 0)
        return error;
    error = uv_cond_init(&muster->changed);
    if (error == 0) {
        error = carrier_start(muster, &muster->carrier);
        if (error != 0)
            uv_cond_destroy(&muster->changed);
    }
    if (error != 0)
        uv_mutex_destroy(&muster->mutex);
    return error;
}

enum muster_status muster_open(const struct muster_options *options, struct muster **session,
                               struct muster_error *error)
{
    struct muster *muster = muster_new(error);
    enum muster_status status = MUSTER_ERROR_SYSTEM;
    int failure;

    *session = NULL;
    if (!muster)
        return status;
    status = client_take_options(muster, options, error);
    if (status == MUSTER_OK) {
        failure = start(muster);
        if (failure != 0)
            status = client_explain(error, MUSTER_ERROR_SYSTEM, "the session cannot be started: %s",
                                    uv_strerror(failure));
    }
    if (status == MUSTER_OK)
        *session = muster;
    else
        release(muster);
    return status;
}

/* ---- waiting ---- */

enum muster_status muster_next(struct muster *muster, int timeout_ms, struct muster_event **event)
{
    uint64_t until_ns = client_deadline_ns(timeout_ms);
    enum muster_status status = MUSTER_OK;

    *event = NULL;
    uv_mutex_lock(&muster->mutex);
    while (!muster->events && status == MUSTER_OK) {
        if (muster->ended)
            status = MUSTER_ERROR_ENDED;
        else if (!client_wait_locked(muster, until_ns))
            status = MUSTER_ERROR_TIMEOUT;
    }
    if (status == MUSTER_OK)
        *event = &client_event_take_locked(muster, &muster->events)->event;
    uv_mutex_unlock(&muster->mutex);
    return status;
}

int muster_descriptor(const struct muster *muster)
{
    return muster->descriptor;
}

enum muster_status muster_join(const struct muster_options *options, int timeout_ms,
                               struct muster **session, struct muster_error *error)
{
    uint64_t until_ns = client_deadline_ns(timeout_ms);
    struct muster *muster = NULL;
    enum muster_status status = muster_open(options, &muster, error);

    *session = NULL;
    if (status != MUSTER_OK)
        return status;
    uv_mutex_lock(&muster->mutex);
    while (!muster->admitted && !muster->ended && status == MUSTER_OK) {
        if (!client_wait_locked(muster, until_ns))
            status = client_explain(error, MUSTER_ERROR_TIMEOUT, "no answer from %s in time",
                                    options->coordinator);
    }
    if (muster->ended) {
        status = muster->end_error.status;
        if (error)
            *error = muster->end_error;
    }
    uv_mutex_unlock(&muster->mutex);
    if (status == MUSTER_OK)
        *session = muster;
    else
        muster_close(muster);
    return status;
}

/* The word that a FORMED was entered, or that the generation it is in was over. */
static enum muster_status answer(struct muster *muster, const struct muster_event *event,
                                 const struct muster_position *position)
{
    struct muster_report report = {.entered = true};

    if (event->type == MUSTER_FORMED)
        return muster_entered(
            muster, &(struct muster_position){event->generation, event->nonce, position->step},
            NULL);
    if (event->type == MUSTER_OVER && position->generation != 0)
        return muster_report(muster, position, &report);
    return MUSTER_OK;
}

/* An event in muster_wait_generation(): MUSTER_OK when it is a FORMED, TIMEOUT to go on. */
static enum muster_status judge(struct muster *muster, struct muster_event *event,
                                const struct muster_position *position, struct muster_error *error)
{
    enum muster_status status = answer(muster, event, position);

    if (status != MUSTER_OK)
        return client_explain(error, status, "%s", muster_status_text(status));
    if (event->type == MUSTER_DONE)
        return client_explain(error, MUSTER_ERROR_ENDED, "the job is done: %s", event->text);
    if (event->type == MUSTER_ENDED) {
        if (error)
            *error = muster->end_error; /* set before ENDED was queued, and never again */
        return muster->end_error.status;
    }
    return event->type == MUSTER_FORMED ? MUSTER_OK : MUSTER_ERROR_TIMEOUT;
}

enum muster_status muster_wait_generation(struct muster *muster,
                                          const struct muster_position *position, int timeout_ms,
                                          struct muster_event **event, struct muster_error *error)
{
    uint64_t until_ns = client_deadline_ns(timeout_ms);
    struct muster_report report = {.entered = true};
    enum muster_status status = MUSTER_OK;
    bool over;

    uv_mutex_lock(&muster->mutex);
    over = position->generation != 0 && muster->over >= position->generation;
    uv_mutex_unlock(&muster->mutex);
    if (over)
        status = muster_report(muster, position, &report);
    while (status == MUSTER_OK) {
        status = muster_next(muster, client_left_ms(until_ns), event);
        if (status != MUSTER_OK)
            break;
        status = judge(muster, *event, position, error);
        if (status == MUSTER_OK)
            return MUSTER_OK;
        muster_event_free(*event);
        *event = NULL;
        if (status != MUSTER_ERROR_TIMEOUT)
            return status;
        status = MUSTER_OK;
    }
    return client_explain(error, status, "%s", muster_status_text(status));
}

/* ---- barriers ---- */

static enum muster_status enter_barrier(struct muster *muster, const char *name, const char *place,
                                        uint64_t *seq)
{
    struct command *command = client_command_new(SESSION_BARRIER, NULL);
    enum muster_status status = MUSTER_ERROR_BUSY;

    if (!command)
        return MUSTER_ERROR_SYSTEM;
    client_speaks(muster, 0);
    client_copy_text(command->name, sizeof command->name, name);
    client_copy_text(command->text, sizeof command->text, place);
    command->event.barrier.name = command->name;
    command->event.barrier.place = command->text;
    uv_mutex_lock(&muster->mutex);
    if (!muster->barrier_open) {
        status = client_command_push_locked(muster, command);
        command = NULL;
    }
    if (status == MUSTER_OK) {
        muster->barrier_open = true;
        *seq = ++muster->barrier_seq;
    }
    uv_mutex_unlock(&muster->mutex);
    free(command);
    if (status == MUSTER_OK)
        carrier_wake(muster->carrier);
    return status;
}

static bool barrier_name_valid(const char *name)
{
    size_t bytes = name ? strlen(name) : 0;

    return bytes > 0 && bytes <= WIRE_NAME_BYTES &&
           lint_text_valid(LINT_TEXT, (const uint8_t *)name, bytes);
}

enum muster_status muster_barrier_enter(struct muster *muster, const char *name, const char *place)
{
    uint64_t seq;

    if (!barrier_name_valid(name))
        return MUSTER_ERROR_USAGE;
    return enter_barrier(muster, name, place, &seq);
}

/* Takes the result of barrier `seq` out of the queue, wherever it stands. */
static enum muster_status take_result(struct muster *muster, uint64_t seq, uint64_t until_ns,
                                      struct queued **result)
{
    enum muster_status status = MUSTER_OK;

    *result = NULL;
    uv_mutex_lock(&muster->mutex);
    while (!*result && status == MUSTER_OK) {
        struct queued **at = &muster->events;

        while (*at && ((*at)->event.type != MUSTER_BARRIER || (*at)->event.barrier_seq != seq))
            at = &(*at)->next;
        if (*at)
            *result = client_event_take_locked(muster, at);
        else if (muster->ended)
            status = MUSTER_ERROR_ENDED;
        else if (!client_wait_locked(muster, until_ns))
            status = MUSTER_ERROR_TIMEOUT;
    }
    uv_mutex_unlock(&muster->mutex);
    return status;
}

static enum muster_status explain_end(struct muster *muster, enum muster_status status,
                                      struct muster_error *error)
{
    if (status != MUSTER_ERROR_ENDED || !error)
        return client_explain(error, status, "%s", muster_status_text(status));
    uv_mutex_lock(&muster->mutex);
    *error = muster->end_error;
    uv_mutex_unlock(&muster->mutex);
    return error->status;
}

enum muster_status muster_barrier(struct muster *muster, const char *name, const char *place,
                                  int timeout_ms, struct muster_error *error)
{
    uint64_t until_ns = client_deadline_ns(timeout_ms);

    if (!barrier_name_valid(name))
        return client_explain(error, MUSTER_ERROR_USAGE,
                              "the barrier's name is not 1..64 bytes of text");
    for (;;) {
        struct queued *result = NULL;
        enum muster_barrier_end end = MUSTER_BARRIER_RELEASED;
        uint64_t seq = 0;
        enum muster_status status = enter_barrier(muster, name, place, &seq);

        if (status == MUSTER_OK)
            status = take_result(muster, seq, until_ns, &result);
        if (status != MUSTER_OK)
            return explain_end(muster, status, error);
        end = result->event.barrier_end;
        if (end != MUSTER_BARRIER_RELEASED && end != MUSTER_BARRIER_GENERATION)
            status = client_explain(error, MUSTER_ERROR_BARRIER, "%s", result->event.text);
        client_event_free(result);
        if (end != MUSTER_BARRIER_GENERATION)
            return status;
    }
}

/* ---- the end ---- */

enum muster_status muster_goodbye(struct muster *muster, uint32_t exit_code, const char *text,
                                  int timeout_ms)
{
    struct command *command = client_command_new(SESSION_GOODBYE, NULL);
    uint64_t until_ns = client_deadline_ns(timeout_ms);
    enum muster_status status;

    if (command) {
        client_copy_text(command->text, sizeof command->text, text);
        command->event.goodbye = (struct wire_goodbye){exit_code, command->text};
    }
    status = client_command_push(muster, command);
    if (status != MUSTER_OK)
        return status;
    uv_mutex_lock(&muster->mutex);
    while (!muster->quiet && status == MUSTER_OK) {
        if (!client_wait_locked(muster, until_ns))
            status = MUSTER_ERROR_TIMEOUT;
    }
    uv_mutex_unlock(&muster->mutex);
    return status;
}

void muster_close(struct muster *muster)
{
    if (!muster)
        return;
    uv_mutex_lock(&muster->mutex);
    muster->closing = true;
    uv_mutex_unlock(&muster->mutex);
    carrier_stop(muster->carrier);
    uv_cond_destroy(&muster->changed);
    uv_mutex_destroy(&muster->mutex);
    release(muster);
}
