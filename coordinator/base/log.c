/* Invariant: whatever `job` and `text` hold, what leaves is one line: LOG_LINE_BYTES at most as
 * text, a JSON object else. */
#include "base/log.h"

#include "base/clock.h"
#include "base/jsonl.h"
#include "base/utf8.h"

#include <errno.h>
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

/* One write, so that lines of several threads and processes do not mix; a rest that a full pipe did
 * not take is lost. */
static void write_once(int fd, const char *bytes, size_t count)
{
    ssize_t written;

    do
        written = write(fd, bytes, count);
    while (written < 0 && errno == EINTR);
}

static void write_json(const struct log *log, enum log_level level, uint64_t now_us,
                       const char *job, const char *text)
{
    struct jsonl line = {0};
    const char *bytes;
    size_t length;

    jsonl_begin(&line);
    jsonl_uint(&line, "time_us", now_us);
    jsonl_text(&line, "level", level_words[level]);
    jsonl_text(&line, "program", log->program);
    if (job[0] != '\0')
        jsonl_text(&line, "job", job);
    jsonl_text(&line, "text", text);
    bytes = jsonl_end(&line, &length);
    write_once(log->fd, bytes, length);
    jsonl_release(&line);
}

/* Appends what is printable of text, up to `limit`; what does not fit is shown by two dots. */
static size_t append(char *line, size_t at, size_t limit, const char *text)
{
    while (*text != '\0') {
        size_t length = utf8_length(text), bytes = length > 0 ? length : 1;

        if (at + bytes + 2 > limit) {
            memcpy(line + at, "..", 2);
            return at + 2;
        }
        if (length == 0)
            line[at] = '?';
        else if ((unsigned char)*text < 0x20 || *text == 0x7f)
            line[at] = ' ';
        else
            memcpy(line + at, text, bytes);
        at += bytes;
        text += bytes;
    }
    return at;
}

static void write_text(const struct log *log, enum log_level level, uint64_t now_us,
                       const char *job, const char *text)
{
    time_t seconds = (time_t)(now_us / 1000000);
    char line[LOG_LINE_BYTES], stamp[32];
    struct tm utc;
    size_t at;

    (void)gmtime_r(&seconds, &utc);
    (void)strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    at = (size_t)snprintf(line, sizeof line, "%s.%03uZ %-7s ", stamp,
                          (unsigned)(now_us / 1000 % 1000), level_words[level]);
    if (job[0] != '\0') {
        at = append(line, at, sizeof line / 2, "job=");
        at = append(line, at, sizeof line / 2, job);
        at = append(line, at, sizeof line, "  ");
    }
    at = append(line, at, sizeof line - 1, text);
    line[at++] = '\n';
    write_once(log->fd, line, at);
}

void log_line(const struct log *log, enum log_level level, const char *job, const char *text)
{
    uint64_t now_us = clock_realtime_us();

    job = job != NULL ? job : "";
    if (log->json)
        write_json(log, level, now_us, job, text);
    else
        write_text(log, level, now_us, job, text);
}

bool log_rate_pass(struct log_rate *rate, uint64_t now_us, uint64_t *withheld)
{
    if (now_us - rate->since_us >= LOG_RATE_US) {
        rate->since_us = now_us;
        rate->passed = 0;
    }
    *withheld = rate->withheld;
    if (rate->passed >= LOG_RATE_COUNT) {
        rate->withheld++;
        return false;
    }
    rate->passed++;
    rate->withheld = 0;
    return true;
}

uint64_t log_rate_rest(struct log_rate *rate, uint64_t now_us)
{
    uint64_t rest = rate->withheld;

    if (rest == 0 || now_us - rate->since_us < LOG_RATE_US)
        return 0;
    rate->withheld = 0;
    return rest;
}
