/* What waits to be written: one copy of a frame for all who wait for it, queues with budgets. */
#include "server/conn_private.h"

#include <stdlib.h>
#include <string.h>

static void blob_release(struct conns *conns, struct blob *blob)
{
    if (blob == NULL || --blob->references > 0)
        return;
    conns->waiting_bytes -= sizeof *blob + blob->bytes;
    free(blob);
}

/* NULL: no memory. */
static struct blob *blob_new(struct conns *conns, const uint8_t *frame, size_t bytes)
{
    struct blob *blob = malloc(sizeof *blob + bytes);

    if (blob == NULL)
        return NULL;
    blob->references = 1;
    blob->bytes = bytes;
    memcpy(blob->data, frame, bytes);
    conns->waiting_bytes += sizeof *blob + bytes;
    return blob;
}

/* What a waiting frame takes from the budget: with its bookkeeping, which for an answer of some 40
 * bytes is most of it. */
static size_t queue_cost(size_t frame_bytes)
{
    return frame_bytes + sizeof(struct blob) + sizeof(struct write_job);
}

static void on_written(uv_write_t *request, int status)
{
    struct write_job *job = request->data;
    struct conn *conn = job->conn;

    conn->queued_bytes -= queue_cost(job->blob->bytes);
    conn->conns->waiting_bytes -= sizeof *job;
    blob_release(conn->conns, job->blob);
    free(job);
    if (conn->state != CONN_OPEN)
        return;
    conn->write_us = conn->queued_bytes > 0 ? conn_now_us(conn->conns) : 0;
    if (status < 0)
        conn_end(conn, uv_strerror(status));
    else if (conn->leaving && conn->queued_bytes == 0)
        conn_end(conn, "");
}

/* What try_write left: queued with a share in the blob, made at the first need. */
static int queue_rest(struct conn *conn, struct blob **blob, const uint8_t *frame, size_t bytes,
                      size_t written)
{
    struct write_job *job;
    uv_buf_t buffer;

    if (*blob == NULL)
        *blob = blob_new(conn->conns, frame, bytes);
    job = *blob != NULL ? malloc(sizeof *job) : NULL;
    if (job == NULL)
        return UV_ENOMEM;
    job->request.data = job;
    job->conn = conn;
    job->blob = *blob;
    buffer = uv_buf_init((char *)(*blob)->data + written, (unsigned)(bytes - written));
    if (uv_write(&job->request, (uv_stream_t *)&conn->tcp, &buffer, 1, on_written) != 0) {
        free(job);
        return UV_EPIPE;
    }
    (*blob)->references++;
    conn->conns->waiting_bytes += sizeof *job;
    if (conn->queued_bytes == 0)
        conn->write_us = conn_now_us(conn->conns);
    conn->queued_bytes += queue_cost(bytes);
    return 0;
}

/* May so much more wait for it? When all queues together are too long, for nobody who is behind
 * already. */
static bool may_queue(const struct conn *conn, size_t bytes)
{
    const struct conn_limits *limits = &conn->conns->limits;

    if (conn->queued_bytes > 0 && conn->conns->waiting_bytes + bytes > limits->waiting_bytes)
        return false;
    return conn->queued_bytes + queue_cost(bytes) <= limits->queue_bytes;
}

static void send_one(struct conn *conn, struct blob **blob, const uint8_t *frame, size_t bytes)
{
    size_t written = 0;

    if (conn->queued_bytes == 0) {
        uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)frame, (unsigned)bytes);
        int done = uv_try_write((uv_stream_t *)&conn->tcp, &buffer, 1);

        if (done < 0 && done != UV_EAGAIN) {
            conn_doom(conn, uv_strerror(done));
            return;
        }
        written = done > 0 ? (size_t)done : 0;
        if (written == bytes)
            return;
    }
    if (!may_queue(conn, bytes)) {
        conn_doom(conn, "it does not read what is sent to it");
        return;
    }
    if (queue_rest(conn, blob, frame, bytes, written) != 0)
        conn_doom(conn, "its frame could not be queued");
}

void conns_send(struct conns *conns, const uint64_t *ids, size_t count, const uint8_t *frame,
                size_t frame_bytes)
{
    struct blob *blob = NULL;

    for (size_t i = 0; i < count; i++) {
        struct conn *conn = conn_find(conns, ids[i]);

        if (conn == NULL || conn->doomed != NULL || conn->leaving)
            continue;
        conns->counters.frames_out++;
        send_one(conn, &blob, frame, frame_bytes);
    }
    blob_release(conns, blob);
}
