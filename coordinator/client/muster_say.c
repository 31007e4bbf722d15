/* What the program says: each call becomes a command for the session. */
#include "client_private.h"

#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void client_speaks(struct muster *muster, uint32_t thread)
{
    static _Thread_local uint32_t self;

    if (self == 0)
        self = (uint32_t)syscall(SYS_gettid);
    __atomic_store_n(&muster->speaker, self, __ATOMIC_RELAXED);
    __atomic_store_n(&muster->thread, thread != 0 ? thread : self, __ATOMIC_RELAXED);
    __atomic_store_n(&muster->spoken_us, uv_hrtime() / 1000, __ATOMIC_RELAXED);
}

void muster_progress(struct muster *muster, const struct muster_progress *progress)
{
    struct session_status status = {
        .phase = (enum wire_phase)progress->phase,
        .part = progress->part,
        .applied = progress->applied,
        .loss = progress->loss,
        .samples_per_s = progress->samples_per_s,
        .shard_us = progress->shard_us,
        .shards = progress->shards,
    };

    client_speaks(muster, progress->thread);
    uv_mutex_lock(&muster->mutex);
    muster->status = status;
    muster->has_status = true;
    uv_mutex_unlock(&muster->mutex);
}

enum muster_status muster_entered(struct muster *muster, const struct muster_position *position,
                                  const struct muster_times *times)
{
    struct command *command = client_command_new(SESSION_ENTERED, position);

    if (command && times)
        command->event.entered =
            (struct wire_entered){times->connect_us, times->state_us, times->recompute_us};
    ledger_begin(&muster->ledger, position->generation);
    return client_command_push(muster, command);
}

/* ---- collectives ---- */

uint64_t muster_collective_enter(struct muster *muster, const struct muster_collective *collective)
{
    uint64_t seq = ledger_enter(&muster->ledger, collective, uv_hrtime() / 1000);

    client_speaks(muster, 0);
    /* So that one that lasts is noticed before the next beat; the short ones cost nothing more. */
    if (!__atomic_exchange_n(&muster->looking, true, __ATOMIC_SEQ_CST))
        carrier_wake(muster->carrier);
    return seq;
}

void muster_collective_leave(struct muster *muster, uint64_t seq)
{
    ledger_leave(&muster->ledger, seq, uv_hrtime() / 1000);
}

void muster_ledger_write(struct muster *muster, int descriptor)
{
    struct timespec now = {0, 0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    ledger_write(&muster->ledger, descriptor,
                 (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
}

/* ---- the rest ---- */

enum muster_status muster_ready(struct muster *muster, const struct muster_position *position,
                                uint64_t params_hash)
{
    struct command *command = client_command_new(SESSION_READY, position);

    if (command)
        command->event.ready.params_hash = params_hash;
    return client_command_push(muster, command);
}

enum muster_status muster_report(struct muster *muster, const struct muster_position *position,
                                 const struct muster_report *report)
{
    struct command *command;

    if (report->owned_bytes > WIRE_OWNED_BYTES)
        return MUSTER_ERROR_USAGE;
    command = client_command_new(SESSION_REPORT, position);
    if (command) {
        if (report->owned_bytes > 0)
            memcpy(command->owned, report->owned, report->owned_bytes);
        command->event.report = (struct wire_report){
            .plan = report->plan,
            .has_reduced = report->has_reduced,
            .owned = command->owned,
            .owned_bytes = report->owned_bytes,
            .entered = report->entered,
        };
    }
    return client_command_push(muster, command);
}

enum muster_status muster_peer_lost(struct muster *muster, const struct muster_position *position,
                                    const uint8_t member_id[MUSTER_ID_BYTES],
                                    enum muster_lost_why why, const char *text)
{
    struct command *command = client_command_new(SESSION_PEER_LOST, position);

    if (command) {
        client_copy_text(command->text, sizeof command->text, text);
        command->event.peer_lost.why = (enum wire_lost_why)why;
        command->event.peer_lost.text = command->text;
        memcpy(command->event.peer_lost.member_id.bytes, member_id, WIRE_ID_BYTES);
    }
    return client_command_push(muster, command);
}

enum muster_status muster_finished(struct muster *muster, const struct muster_position *position,
                                   uint64_t params_hash, double test_accuracy)
{
    struct command *command = client_command_new(SESSION_FINISHED, position);

    if (command)
        command->event.finished = (struct wire_finished){params_hash, test_accuracy};
    return client_command_push(muster, command);
}

enum muster_status muster_leave(struct muster *muster, const struct muster_position *position,
                                uint32_t drain_ms)
{
    struct command *command = client_command_new(SESSION_LEAVE, position);

    if (command)
        command->event.leave.drain_ms = drain_ms;
    return client_command_push(muster, command);
}
