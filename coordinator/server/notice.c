#include "server/notice.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TEXT_BYTES 1024

void notices_init(struct notices *notices, const struct log *log)
{
    memset(notices, 0, sizeof *notices);
    notices->log = log;
}

/* Writes the line if it may, with how many before it were not written. */
static void rated(struct notices *notices, struct log_rate *rate, uint64_t now_us, const char *job,
                  const char *text)
{
    char more[TEXT_BYTES];
    uint64_t withheld;

    if (!log_rate_pass(rate, now_us, &withheld))
        return;
    if (withheld > 0) {
        (void)snprintf(more, sizeof more, "%s (and %" PRIu64 " more before it)", text, withheld);
        text = more;
    }
    log_line(notices->log, LOG_WARNING_LEVEL, job, text);
}

void notice_connection(struct notices *notices, uint64_t now_us, const char *peer,
                       const char *what, const char *why)
{
    char text[TEXT_BYTES];

    (void)snprintf(text, sizeof text, "connection of %s %s: %s", peer, what, why);
    rated(notices, &notices->connections, now_us, "", text);
}

void notice_refusal(struct notices *notices, uint64_t now_us, const char *job, const char *text)
{
    rated(notices, &notices->refusals, now_us, job, text);
}

void notice_broken(struct notices *notices, uint64_t now_us, int number, const char *sentence)
{
    uint32_t index = number > 0 && number < NOTICE_INVARIANTS ? (uint32_t)number : 0;
    struct notice_broken *broken = &notices->broken[index];
    char text[TEXT_BYTES];
    int length;

    if (broken->told_us != 0 && now_us < broken->told_us + NOTICE_BROKEN_US) {
        broken->withheld++;
        return;
    }
    length = snprintf(text, sizeof text, "invariant %d is broken: %s", number, sentence);
    if (broken->withheld > 0 && (size_t)length < sizeof text)
        (void)snprintf(text + length, sizeof text - (size_t)length,
                       " (found %" PRIu64 " more times since it was last told)", broken->withheld);
    log_line(notices->log, LOG_ERROR_LEVEL, "", text);
    broken->told_us = now_us;
    broken->withheld = 0;
}

static void tell_rest(struct notices *notices, struct log_rate *rate, uint64_t now_us,
                      const char *what)
{
    uint64_t rest = log_rate_rest(rate, now_us);
    char text[TEXT_BYTES];

    if (rest == 0)
        return;
    (void)snprintf(text, sizeof text, "and %" PRIu64 " more %s", rest, what);
    log_line(notices->log, LOG_WARNING_LEVEL, "", text);
}

void notices_tick(struct notices *notices, uint64_t now_us)
{
    tell_rest(notices, &notices->connections, now_us, "connections ended or were refused");
    tell_rest(notices, &notices->refusals, now_us, "were refused");
}
