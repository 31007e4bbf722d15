/* A trainer's beginning and end: device, data, state, data plane, signals; and who hears the data
 * plane. */
#include "train/trainer.h"

#include "base/clock.h"
#include "base/exits.h"
#include "base/random.h"
#include "comm/tcp/tcp.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ADDRESS_RETRY_MS 200

/* ---- the data plane's callbacks ------------------------------------------------------------- */

static bool is_exchange(const struct comm_frame *frame)
{
    return frame->kind == COMM_PIECE || frame->kind == COMM_RESULT || frame->kind == COMM_WORD ||
           frame->kind == COMM_AUDIT;
}

static void on_ready(void *owner, uint64_t number)
{
    struct trainer *t = owner;
    struct elastic_event event = trainer_event_of(ELASTIC_CONNECTED);

    if (t->joiner.active) {
        joiner_connected(t, number);
        return;
    }
    event.number = number;
    trainer_event(t, &event);
}

static void on_peer(void *owner, uint32_t peer)
{
    (void)owner;
    (void)peer;
}

static void *on_place(void *owner, uint32_t peer, const struct comm_frame *frame)
{
    return is_exchange(frame) ? reduce_place(owner, peer, frame)
                              : transfer_place(owner, peer, frame);
}

static void on_frame(void *owner, uint32_t peer, const struct comm_frame *frame, void *payload)
{
    if (is_exchange(frame))
        reduce_frame(owner, peer, frame);
    else
        transfer_frame(owner, peer, frame, payload);
}

static void on_drop(void *owner, uint32_t peer, const struct comm_frame *frame, void *payload)
{
    if (!is_exchange(frame))
        transfer_drop(owner, peer, frame, payload);
}

static void on_sent(void *owner, uint32_t peer, void *tag, enum comm_error result)
{
    (void)result;
    visitors_sent(owner, peer, tag);
}

static void on_lost(void *owner, uint32_t peer, enum comm_loss why, const char *text)
{
    static const enum elastic_lost_why whys[COMM_LOSS_COUNT] = {
        [COMM_LOST_CLOSED] = ELASTIC_LOST_CLOSED,
        [COMM_LOST_UNREACHABLE] = ELASTIC_LOST_UNREACHABLE,
        [COMM_LOST_STRANGER] = ELASTIC_LOST_STRANGER,
        [COMM_LOST_PROTOCOL] = ELASTIC_LOST_UNREACHABLE};
    struct trainer *t = owner;
    const struct comm_member *member = comm_peer_member(t->comm, peer);
    struct elastic_event event = trainer_event_of(ELASTIC_PEER_LOST);

    transfer_lost(t, peer);
    if (why != COMM_LOST_CLOSED)
        report_warning(t, text);
    if (member == NULL || member->rank == COMM_VISITOR)
        return;
    memcpy(event.peer.byte, member->id, ELASTIC_ID_BYTES);
    event.why = whys[why];
    trainer_event(t, &event);
}

static void on_log(void *owner, const char *text)
{
    report_note(owner, text);
}

/* ---- signals --------------------------------------------------------------------------------- */

static void on_drain_timer(uv_timer_t *timer)
{
    trainer_exit(timer->data, EXIT_RETRY,
                 "the time to leave at a boundary is over: leaving as lost");
}

/* Once: leave at the next boundary. Twice: at once. */
static void on_signal(uv_signal_t *handle, int number)
{
    struct trainer *t = handle->data;
    struct elastic_event event = trainer_event_of(ELASTIC_STOP);

    if (++t->signals > 1) {
        trainer_exit(t, 128 + number, "stopped at once");
        return;
    }
    report_note(t, "leaving after this step (again to stop at once)");
    (void)uv_timer_start(&t->drain_timer, on_drain_timer, t->settings->drain_ms, 0);
    trainer_event(t, &event);
}

/* ---- opening and closing -------------------------------------------------------------------- */

static void passed_over(void *owner, const struct ckpt_row *row)
{
    char text[700];

    (void)snprintf(text, sizeof text, "checkpoint %s is passed over: %s", row->name, row->why);
    report_warning(owner, text);
}

/* Values of --init, or of the seed: the spec knows the former by their hash. */
static int load_first(struct trainer *t, struct error *error)
{
    struct ckpt_error why = {CKPT_NONE, ""};
    uint64_t hash = 0;

    if (t->settings->init == NULL &&
        state_seed(&t->state, t->stream, t->settings->seed, &why) != CKPT_OK)
        return error_set(error, EXIT_UNAVAILABLE, "%s", why.text);
    if (t->settings->init != NULL &&
        state_load_init(&t->state, t->stream, t->settings->init, &hash, &why) != CKPT_OK)
        return error_set(error, EXIT_DATA, "--init: %s", why.text);
    settings_spec(t->settings, t->mnist.hash, t->mnist.train.count, hash, t->spec);
    return 0;
}

/* Parameters: from the newest valid checkpoint, else the first ones. */
static int load_state(struct trainer *t, struct error *error)
{
    struct ckpt_error why = {CKPT_NONE, ""};
    struct ckpt_found found;
    enum ckpt_code code = t->settings->ckpt != NULL
                              ? ckpt_find(t->settings->ckpt, &found, passed_over, t, &why)
                              : CKPT_NONE;
    char text[300] = "";

    if (code == CKPT_OK && fingerprint_check(&found, t->spec, t->fingerprint, text, sizeof text,
                                             error) != 0)
        return error->code;
    if (text[0] != '\0')
        report_warning(t, text);
    if (code == CKPT_OK)
        code = state_load(&t->state, t->stream, &found, &why);
    if (code == CKPT_OK) {
        memcpy(t->job_uid, found.meta.job_uid, sizeof t->job_uid);
        t->known_generation = found.meta.generation;
        (void)snprintf(text, sizeof text, "resuming from %s", found.path);
        report_note(t, text);
        return 0;
    }
    return code == CKPT_NONE ? 0 : error_set(error, EXIT_DATA, "%s", why.text);
}

void trainer_rehash(struct trainer *t)
{
    state_hash_all(&t->state, t->stream);
    t->hash = state_hash(&t->state, t->stream);
    t->hashed = true;
}

uint64_t trainer_hash(struct trainer *t)
{
    if (!t->hashed)
        trainer_rehash(t);
    return t->hash;
}

/* The state is known by its hashes, and the sums of its step can begin. */
static void take_state(struct trainer *t)
{
    struct plan_mask present = plan_present(&t->shape, t->state.applied);

    assert(t->shards_open == 0);
    t->reduced_whole = false;
    trainer_rehash(t);
    sums_begin(&t->sums, t->shape.shards, &present);
}

/* A copy that was not finished left a mixture behind, or a newer checkpoint may be there. */
static void reload_now(struct trainer *t)
{
    struct elastic_event event = trainer_event_of(ELASTIC_RELOADED);
    struct error error;
    int status;

    t->state.applied = 0;
    t->ops->fill(t->stream, t->state.values, 0, state_value_bytes(&t->state));
    status = load_first(t, &error);
    if (status == 0)
        status = load_state(t, &error);
    if (status != 0) {
        trainer_exit(t, status, error.text);
        return;
    }
    take_state(t);
    event.version = t->state.applied;
    event.hash = t->hash;
    trainer_event(t, &event);
}

void trainer_reload(struct trainer *t)
{
    compute_when_idle(t, reload_now);
}

static int open_device(struct trainer *t, struct error *error)
{
    struct device_options options = {t->settings->isa};
    struct device_error why = {DEVICE_OK, ""};

    t->ops = device_cpu_ops();
    if (t->ops->open(&options, &t->device, &why) != DEVICE_OK ||
        t->ops->stream_open(t->device, &t->stream, &why) != DEVICE_OK ||
        t->ops->event_open(t->device, &t->reduced, &why) != DEVICE_OK)
        return error_set(error, EXIT_UNAVAILABLE, "%s", why.text);
    fingerprint_write(t->ops, t->device, t->fingerprint);
    return 0;
}

static int open_data(struct trainer *t, struct error *error)
{
    const struct settings *s = t->settings;
    char why[512];

    if (mnist_open(s->data, &t->mnist, why, sizeof why) != 0)
        return error_set(error, EXIT_DATA, "%s", why);
    if (t->mnist.note[0] != '\0')
        report_warning(t, t->mnist.note);
    t->shape.samples = t->mnist.train.count;
    t->shape.shards = (uint32_t)s->shards;
    t->shape.shard_samples = (uint32_t)(s->global_batch / s->shards);
    t->steps_total = s->steps != 0 ? s->steps : s->epochs * plan_steps_per_epoch(&t->shape);
    return 0;
}

static int open_state(struct trainer *t, struct error *error)
{
    struct optim_options optim;

    settings_optim(t->settings, t->steps_total, &optim);
    for (int i = 0; i < 2; i++)
        t->exchange[i] = calloc(1, sizeof *t->exchange[i]);
    if (state_init(&t->state, t->ops, t->device, model_convnet(), &optim) != 0 ||
        sums_init(&t->sums, t->ops, t->device, model_convnet()) != 0 || t->exchange[0] == NULL ||
        t->exchange[1] == NULL ||
        (t->check_hashes = t->ops->alloc(
             t->device, t->state.block_count * sizeof *t->check_hashes)) == NULL)
        return error_set(error, EXIT_UNAVAILABLE, "out of memory for the model");
    return 0;
}

/* The address from which the coordinator is reached. A name that is not known yet, or a network
 * that is not up yet, is tried as long as the coordinator itself would be; a signal ends that. */
static int find_address(struct trainer *t, char address[MUSTER_TEXT_BYTES], struct error *error)
{
    uint64_t until_us = clock_monotonic_us() + t->settings->connect_timeout_ms * 1000;
    struct muster_error why;
    bool told = false;

    while (muster_local_address(t->settings->coordinator, address, MUSTER_TEXT_BYTES, &why) !=
           MUSTER_OK) {
        if (t->leaving)
            return 0;
        if (why.exit_code != EXIT_UNAVAILABLE || clock_monotonic_us() >= until_us)
            return error_set(error, why.exit_code, "%s (tried for %.1f s: --connect-timeout)",
                             why.text, (double)t->settings->connect_timeout_ms / 1000);
        if (!told)
            report_warning(t, why.text);
        told = true;
        (void)usleep(ADDRESS_RETRY_MS * 1000);
        (void)uv_run(t->loop, UV_RUN_NOWAIT);
    }
    return 0;
}

/* The data plane listens where the coordinator is reached from, unless told otherwise. */
static int open_comm(struct trainer *t, struct error *error)
{
    static const struct comm_events events = {on_peer, on_ready, on_place, on_frame,
                                              on_drop, on_sent,  on_lost,  on_log};
    char address[MUSTER_TEXT_BYTES], listen[MUSTER_TEXT_BYTES], why[256];
    const char *wanted = t->settings->data_listen;

    if (wanted == NULL) {
        int status = find_address(t, address, error);

        if (status != 0 || t->leaving)
            return status;
        wanted = address;
    }
    settings_listen(wanted, listen, sizeof listen);
    if (comm_tcp_open(t->loop, listen, t->me.byte, &events, t, NULL, &t->comm, why, sizeof why) !=
        COMM_OK)
        return error_set(error, EXIT_UNAVAILABLE, "--data-listen %s: %s", listen, why);
    return 0;
}

/* Alone: a generation of one, told by nobody. */
static void form_alone(struct trainer *t)
{
    struct elastic_event event = trainer_event_of(ELASTIC_FORMED);

    memset(&t->roster, 0, sizeof t->roster);
    t->roster.number = 1;
    t->roster.world = 1;
    t->roster.step = t->state.applied;
    t->roster.members[0].id = t->me;
    t->roster.members[0].applied = t->state.applied;
    (void)snprintf(t->reason, sizeof t->reason, "alone");
    event.roster = &t->roster;
    trainer_event(t, &event);
}

static void open_handles(struct trainer *t)
{
    (void)uv_timer_init(t->loop, &t->done_timer);
    (void)uv_timer_init(t->loop, &t->drain_timer);
    (void)uv_timer_init(t->loop, &t->beat_timer);
    (void)uv_timer_init(t->loop, &t->linger_timer);
    (void)uv_timer_init(t->loop, &t->disk_timer);
    (void)uv_signal_init(t->loop, &t->on_term);
    (void)uv_signal_init(t->loop, &t->on_int);
    t->done_timer.data = t->drain_timer.data = t->beat_timer.data = t->linger_timer.data = t;
    t->disk_timer.data = t->on_term.data = t->on_int.data = t;
    (void)uv_signal_start(&t->on_term, on_signal, SIGTERM);
    (void)uv_signal_start(&t->on_int, on_signal, SIGINT);
}

int trainer_open(struct trainer *t, struct error *error)
{
    struct elastic_config config;
    int status;

    open_handles(t);
    if (random_fill(t->me.byte, sizeof t->me.byte) != 0)
        return error_set(error, EXIT_UNAVAILABLE, "the system gives no random numbers");
    status = report_open(t, error);
    if (status == 0)
        status = open_device(t, error);
    if (status == 0)
        status = open_data(t, error);
    if (status == 0)
        status = open_state(t, error);
    if (status != 0)
        return status;
    status = save_prepare(t, error);
    if (status == 0)
        status = load_first(t, error);
    if (status == 0)
        status = load_state(t, error);
    if (status != 0)
        return status;
    take_state(t);
    status = compute_open(t, error);
    if (status != 0)
        return status;
    memset(&config, 0, sizeof config);
    config.me = t->me;
    config.shape = t->shape;
    config.steps_total = t->steps_total;
    config.save_every = t->settings->ckpt_every;
    config.hash_every = t->settings->hash_every;
    config.saves = t->settings->ckpt != NULL;
    config.alone = t->settings->standalone;
    elastic_init(&t->elastic, &config, t->state.applied, t->hash);
    if (t->settings->standalone) {
        form_alone(t);
        return 0;
    }
    status = open_comm(t, error);
    if (status != 0 || t->leaving)
        return status;
    return control_open(t, error);
}

static void close_handles(struct trainer *t)
{
    uv_handle_t *handles[] = {(uv_handle_t *)&t->done_timer, (uv_handle_t *)&t->drain_timer,
                              (uv_handle_t *)&t->beat_timer, (uv_handle_t *)&t->linger_timer,
                              (uv_handle_t *)&t->disk_timer, (uv_handle_t *)&t->on_term,
                              (uv_handle_t *)&t->on_int};

    for (size_t i = 0; i < sizeof handles / sizeof handles[0]; i++)
        uv_close(handles[i], NULL);
}

void trainer_close(struct trainer *t)
{
    control_close(t);
    comm_close(t->comm);
    compute_close(t);
    close_handles(t);
    while (uv_run(t->loop, UV_RUN_DEFAULT) != 0) {
        /* a checkpoint that is still being written stops the loop once more at its end */
    }
    joiner_release(t);
    sums_release(&t->sums);
    state_release(&t->state);
    free(t->exchange[0]);
    free(t->exchange[1]);
    reduce_release(t);
    if (t->ops != NULL)
        t->ops->release(t->device, t->check_hashes);
    mnist_release(&t->mnist);
    if (t->ops != NULL) {
        t->ops->event_close(t->reduced);
        t->ops->stream_close(t->stream);
        t->ops->close(t->device);
    }
    report_close(t);
}
