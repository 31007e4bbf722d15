/* Invariant: text holds no newline between calls. */
#include "agent/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

bool lines_open(struct lines *lines, int from, int to, const char *prefix)
{
    *lines = (struct lines){.from = from, .to = to, .text = malloc(LINES_BYTES)};
    strncpy(lines->prefix, prefix, sizeof lines->prefix - 1);
    (void)fcntl(from, F_SETFL, O_NONBLOCK);
    return lines->text != NULL;
}

/* All of it, also where the reader is slow; what cannot be written is dropped. */
static void write_all(int to, struct iovec *part, int count)
{
    while (count > 0) {
        ssize_t n = writev(to, part, count);

        if (n < 0 && errno == EAGAIN) {
            struct pollfd fd = {to, POLLOUT, 0};

            (void)poll(&fd, 1, -1);
            continue;
        }
        if (n < 0 && errno != EINTR)
            return;
        for (; count > 0 && n >= (ssize_t)part->iov_len; count--, part++)
            n -= (ssize_t)part->iov_len;
        if (count > 0 && n > 0) {
            part->iov_base = (char *)part->iov_base + n;
            part->iov_len -= (size_t)n;
        }
    }
}

static void write_line(struct lines *lines, char *text, size_t bytes, bool ends)
{
    char newline[] = "\n";
    struct iovec part[3] = {
        {lines->prefix, strlen(lines->prefix)}, {text, bytes}, {newline, ends ? 0 : 1}};

    write_all(lines->to, part, 3);
}

/* Passes on the lines that have ended; a full buffer counts as one. */
static void pass_lines(struct lines *lines)
{
    char *begin = lines->text, *end;

    while ((end = memchr(begin, '\n', lines->used)) != NULL) {
        size_t bytes = (size_t)(end - begin) + 1;

        write_line(lines, begin, bytes, true);
        begin += bytes;
        lines->used -= bytes;
    }
    if (lines->used == LINES_BYTES) {
        write_line(lines, begin, lines->used, false);
        lines->used = 0;
    }
    memmove(lines->text, begin, lines->used);
}

void lines_pass(struct lines *lines)
{
    ssize_t n = read(lines->from, lines->text + lines->used, LINES_BYTES - lines->used);

    if (n > 0) {
        lines->used += (size_t)n;
        pass_lines(lines);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        if (lines->used > 0)
            write_line(lines, lines->text, lines->used, false);
        lines->used = 0;
        (void)close(lines->from);
        lines->from = -1;
    }
}

void lines_close(struct lines *lines)
{
    struct pollfd fd = {lines->from, POLLIN, 0};

    if (lines->text != NULL) {
        while (lines->from >= 0 && poll(&fd, 1, 0) > 0) {
            lines_pass(lines);
            fd.fd = lines->from;
        }
        if (lines->used > 0)
            write_line(lines, lines->text, lines->used, false);
        if (lines->from >= 0)
            (void)close(lines->from);
    }
    free(lines->text);
    *lines = (struct lines){.from = -1};
}
