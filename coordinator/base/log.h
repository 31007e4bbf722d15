/* A program's log: one line per event, with fixed keys, in one write(2).
 *
 *     log_open(&log, STDERR_FILENO, LOG_TEXT, "muster-coordinator");
 *     log_line(&log, LOG_INFO, job, "rank 2 on node-b is lost: ..");
 *
 * text:  2026-11-23T18:00:00.123Z info    job=j  rank 2 on node-b is lost: ..
 * json:  {"time_us":..,"level":"info","program":"..","job":"j","text":".."}
 * Libraries never log; only programs do. Thread-safe. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_INFO_LEVEL, LOG_WARNING_LEVEL, LOG_ERROR_LEVEL };

struct log {
    int fd;
    bool json;
    const char *program;
};

void log_open(struct log *log, int fd, bool json, const char *program);

/* job may be "" or NULL. */
void log_line(const struct log *log, enum log_level level, const char *job, const char *text);

#endif
