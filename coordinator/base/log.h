/* A program's log: one line per event, with fixed keys, in one write(2).
 *
 *     log_open(&log, STDERR_FILENO, false, "muster-coordinator");
 *     log_line(&log, LOG_INFO_LEVEL, job, "rank 2 on node-b is lost: ..");
 *
 * text:  2026-11-23T18:00:00.123Z info    job=j  rank 2 on node-b is lost: ..
 * json:  {"time_us":..,"level":"info","program":"..","job":"j","text":".."}
 *
 * Libraries never log; only programs do. Thread-safe: a line is built on the caller's stack and
 * leaves in one piece. Text from strangers is harmless: a line holds no control character, and
 * bytes that are not UTF-8 become ?. A text line longer than LOG_LINE_BYTES ends in "..". A line
 * that cannot be written is lost: there is nobody to tell. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#define LOG_LINE_BYTES 2048

enum log_level { LOG_INFO_LEVEL, LOG_WARNING_LEVEL, LOG_ERROR_LEVEL };

struct log {
    int fd;              /* the caller's */
    bool json;           /* one JSON object per line, else text */
    const char *program; /* the caller's */
};

void log_open(struct log *log, int fd, bool json, const char *program);

/* job may be "" or NULL. */
void log_line(const struct log *log, enum log_level level, const char *job, const char *text);

/* A limit for lines that a stranger can cause: one struct per kind of line, {0} at first, used by
 * one thread. Of a kind, LOG_RATE_COUNT lines pass in every LOG_RATE_US. */
#define LOG_RATE_COUNT 10
#define LOG_RATE_US    10000000

struct log_rate {
    uint64_t since_us; /* monotonic: beginning of this window */
    uint32_t passed;   /* lines in this window */
    uint64_t withheld; /* lines since the last that passed */
};

/* May a line be written now? *withheld = how many were not, since the last that was. */
bool log_rate_pass(struct log_rate *rate, uint64_t now_us, uint64_t *withheld);

/* How many were not written in a window that is over, once; else 0. For a last "and N more" when
 * nothing of that kind comes any more. */
uint64_t log_rate_rest(struct log_rate *rate, uint64_t now_us);

#endif
