#include "base/log.h"

#include "base/clock.h"
#include "base/jsonl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_words[] = {"info", "warning", "error"};

void log_open(struct log *log, int fd, bool json, const char *program)
{
    log->fd = fd;
    log->json = json;
    log->program = program;
}

static void write_json(const struct log *log, enum log_level level, const char *job,
                       const char *text)
{
    struct jsonl line = {0};
    const char *bytes;
    size_t length;

    jsonl_begin(&line);
    jsonl_uint(&line, "time_us", clock_realtime_us());
    jsonl_text(&line, "level", level_words[level]);
    jsonl_text(&line, "program", log->program);
    if (job[0] != '\0')
        jsonl_text(&line, "job", job);
    jsonl_text(&line, "text", text);
    bytes = jsonl_end(&line, &length);
    if (write(log->fd, bytes, length) < 0) {
        /* a log that cannot be written has nobody to tell */
    }
    jsonl_release(&line);
}

void log_line(const struct log *log, enum log_level level, const char *job, const char *text)
{
    uint64_t now_us = clock_realtime_us();
    time_t seconds = (time_t)(now_us / 1000000);
    char stamp[32], line[1024];
    struct tm utc;
    int length;

    job = job != NULL ? job : "";
    if (log->json) {
        write_json(log, level, job, text);
        return;
    }
    (void)gmtime_r(&seconds, &utc);
    (void)strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    length = snprintf(line, sizeof line, "%s.%03uZ %-7s %s%s%s%s\n", stamp,
                      (unsigned)(now_us / 1000 % 1000), level_words[level],
                      job[0] != '\0' ? "job=" : "", job, job[0] != '\0' ? "  " : "", text);
    if (length >= (int)sizeof line) {
        line[sizeof line - 2] = '\n';
        length = (int)sizeof line - 1;
    }
    if (write(log->fd, line, (size_t)length) < 0) {
        /* a log that cannot be written has nobody to tell */
    }
}
