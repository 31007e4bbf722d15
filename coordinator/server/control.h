/* The operator's door: a Unix socket for what changes things, open to the coordinator's user alone.
 *
 * One JSON object per line, one answer per line:
 *     {"command":"drain","job":"j","target":"node-b"}   ->   {"ok":true,"text":"..."}
 * Commands are the runtime's business; this file carries lines, bounds them (4 KiB, 16 connections,
 * CONTROL_IDLE_MS for a line to come and for an answer to be read) and refuses what is not an
 * object with a "command". */
#ifndef SERVER_CONTROL_H
#define SERVER_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

/* A client that has no whole line, or has not read its answer, for so long is closed. */
#define CONTROL_IDLE_MS 10000u

struct control;

/* All strings are valid during the call; "" when absent. */
struct control_request {
    const char *command;
    const char *job;
    const char *target;
    uint32_t peer_uid; /* who asks, for the audit line */
    uint32_t peer_pid;
};

/* Answer it now or later, exactly once, with control_answer(ticket). */
typedef void (*control_request_cb)(void *owner, uint64_t ticket,
                                   const struct control_request *request);

/* 0, or a negative libuv error with a sentence. A socket at this path is replaced when nobody
 * listens on it; anything else is left alone, and is an error. */
int control_start(struct control **control, uv_loop_t *loop, const char *path,
                  control_request_cb request_cb, void *owner, char *error, size_t error_bytes);

/* A ticket whose connection is gone does nothing. Nothing is asked from inside this call. */
void control_answer(struct control *control, uint64_t ticket, bool ok, const char *text);

/* At each tick, with the loop's time: the deadline of all clients. */
void control_judge(struct control *control, uint64_t now_us);

/* Removes the socket file, if it is still the one that was made. The loop must run once more. */
void control_stop(struct control *control);

#endif
