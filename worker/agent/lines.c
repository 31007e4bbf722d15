/* Invariants
 *   1. lines.text holds no newline between calls.
 *   2. A sink is written only when poll() says so, and then at most PIPE_BUF bytes at a time: a
 * pipe takes that many without waiting. */
#include "agent/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LAST_READS 64 /* more than a pipe holds: a stranger that goes on writing ends there */

/* ---- sinks ---------------------------------------------------------------------------------- */

static bool make_room(struct sink *sink, size_t bytes)
{
    size_t room = sink->room > 0 ? sink->room : LINES_BYTES;
    char *text;

    while (room - sink->used < bytes)
        room *= 2;
    if (room == sink->room)
        return true;
    text = realloc(sink->text, room);
    if (text == NULL)
        return false;
    sink->text = text;
    sink->room = room;
    return true;
}

static void append(struct sink *sink, const char *text, size_t bytes)
{
    memcpy(sink->text + sink->used, text, bytes);
    sink->used += bytes;
}

void sink_put(struct sink *sink, const char *prefix, const char *text, size_t bytes)
{
    size_t prefix_bytes = strlen(prefix);

    if (sink->gone || !make_room(sink, prefix_bytes + bytes + 1))
        return;
    append(sink, prefix, prefix_bytes);
    append(sink, text, bytes);
    if (bytes == 0 || text[bytes - 1] != '\n')
        append(sink, "\n", 1);
}

/* Whole lines, where they fit: standard output and error may be the same pipe. */
static size_t portion(const char *text, size_t bytes)
{
    const char *end;

    if (bytes <= PIPE_BUF)
        return bytes;
    end = memrchr(text, '\n', PIPE_BUF);
    return end != NULL ? (size_t)(end - text) + 1 : PIPE_BUF;
}

void sink_flush(struct sink *sink)
{
    size_t sent = 0;

    while (sent < sink->used) {
        struct pollfd fd = {sink->to, POLLOUT, 0};
        ssize_t n;

        if (poll(&fd, 1, 0) <= 0)
            break;
        n = write(sink->to, sink->text + sent, portion(sink->text + sent, sink->used - sent));
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            sink->gone = true;
            sent = sink->used;
        }
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    if (sent > 0)
        memmove(sink->text, sink->text + sent, sink->used - sent);
    sink->used -= sent;
}

bool sink_full(const struct sink *sink)
{
    return sink->used >= SINK_BYTES;
}

void sink_release(struct sink *sink)
{
    free(sink->text);
    *sink = (struct sink){.to = sink->to};
}

/* ---- lines ---------------------------------------------------------------------------------- */

bool lines_open(struct lines *lines, int from, struct sink *sink, const char *prefix)
{
    *lines = (struct lines){.from = from, .sink = sink, .text = malloc(LINES_BYTES)};
    strncpy(lines->prefix, prefix, sizeof lines->prefix - 1);
    (void)fcntl(from, F_SETFL, O_NONBLOCK);
    return lines->text != NULL;
}

/* Passes on the lines that have ended; a full buffer counts as one. */
static void pass_lines(struct lines *lines)
{
    char *begin = lines->text, *end;

    while ((end = memchr(begin, '\n', lines->used)) != NULL) {
        size_t bytes = (size_t)(end - begin) + 1;

        sink_put(lines->sink, lines->prefix, begin, bytes);
        begin += bytes;
        lines->used -= bytes;
    }
    if (lines->used == LINES_BYTES) {
        sink_put(lines->sink, lines->prefix, begin, lines->used);
        lines->used = 0;
    }
    memmove(lines->text, begin, lines->used);
}

static void pass_rest(struct lines *lines)
{
    if (lines->used > 0)
        sink_put(lines->sink, lines->prefix, lines->text, lines->used);
    lines->used = 0;
}

void lines_pass(struct lines *lines)
{
    ssize_t n = read(lines->from, lines->text + lines->used, LINES_BYTES - lines->used);

    if (n > 0) {
        lines->used += (size_t)n;
        pass_lines(lines);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        pass_rest(lines);
        (void)close(lines->from);
        lines->from = -1;
    }
}

void lines_close(struct lines *lines)
{
    struct pollfd fd = {lines->from, POLLIN, 0};

    if (lines->text != NULL) {
        for (int i = 0; i < LAST_READS && lines->from >= 0 && poll(&fd, 1, 0) > 0; i++)
            lines_pass(lines);
        pass_rest(lines);
        if (lines->from >= 0)
            (void)close(lines->from);
    }
    free(lines->text);
    *lines = (struct lines){.from = -1};
}
