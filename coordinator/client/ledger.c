/* Invariants (under the lock):
 *   1. Entries follow each other in the order in which they were entered; `next` never falls.
 *   2. entered and left are of `generation`, and never fall in it.
 *   3. What the writer calls is async-signal-safe: no lock is waited for without end, nothing is
 *      allocated or formatted by libc. */
#include "client/ledger.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

enum { SPINS = 100, PATIENCE_MS = 200, LINE_BYTES = 512 };

static void lock(struct ledger *ledger)
{
    while (__atomic_test_and_set(&ledger->lock, __ATOMIC_ACQUIRE))
        (void)sched_yield();
}

static void unlock(struct ledger *ledger)
{
    __atomic_clear(&ledger->lock, __ATOMIC_RELEASE);
}

static void changed(struct ledger *ledger)
{
    (void)__atomic_fetch_add(&ledger->changes, 1, __ATOMIC_RELAXED);
}

void ledger_begin(struct ledger *ledger, uint64_t generation)
{
    lock(ledger);
    if (generation != ledger->generation) {
        ledger->generation = generation;
        ledger->own = ledger->entered = ledger->left = 0;
        changed(ledger);
    }
    unlock(ledger);
}

static void copy(char *to, size_t room, const char *from)
{
    size_t bytes = strnlen(from ? from : "", room - 1);

    if (bytes > 0)
        memcpy(to, from, bytes);
    to[bytes] = '\0';
}

uint64_t ledger_enter(struct ledger *ledger, const struct muster_collective *collective,
                      uint64_t now_us)
{
    struct ledger_entry *entry;
    uint64_t seq;

    lock(ledger);
    entry = &ledger->ring[ledger->next++ % LEDGER_ENTRIES];
    seq = collective->seq != 0 ? collective->seq : ledger->own + 1;
    ledger->own = seq;
    entry->seq = seq;
    entry->generation = ledger->generation;
    entry->count = collective->count;
    entry->step = collective->step;
    entry->entered_us = now_us;
    entry->left_us = 0;
    copy(entry->op, sizeof entry->op, collective->op);
    copy(entry->dtype, sizeof entry->dtype, collective->dtype);
    copy(entry->name, sizeof entry->name, collective->name);
    copy(entry->place, sizeof entry->place, collective->place);
    if (seq > ledger->entered)
        ledger->entered = seq;
    changed(ledger);
    unlock(ledger);
    return seq;
}

/* Entries that are still in the ring. */
static uint64_t kept(const struct ledger *ledger)
{
    return ledger->next < LEDGER_ENTRIES ? ledger->next : LEDGER_ENTRIES;
}

/* The i-th newest, from 1. */
static struct ledger_entry *newest(struct ledger *ledger, uint64_t i)
{
    return &ledger->ring[(ledger->next - i) % LEDGER_ENTRIES];
}

void ledger_leave(struct ledger *ledger, uint64_t seq, uint64_t now_us)
{
    lock(ledger);
    for (uint64_t i = 1; i <= kept(ledger); i++) {
        struct ledger_entry *entry = newest(ledger, i);

        if (entry->seq != seq || entry->left_us != 0)
            continue;
        entry->left_us = now_us != 0 ? now_us : 1;
        if (entry->generation == ledger->generation && seq > ledger->left)
            ledger->left = seq;
        changed(ledger);
        break;
    }
    unlock(ledger);
}

/* The oldest that is open, else the newest; NULL when there is none in this generation. */
static const struct ledger_entry *stands_at(struct ledger *ledger)
{
    const struct ledger_entry *open = NULL, *last = NULL;

    for (uint64_t i = 1; i <= kept(ledger); i++) {
        const struct ledger_entry *entry = newest(ledger, i);

        if (entry->generation != ledger->generation)
            break;
        if (last == NULL || entry->seq > last->seq)
            last = entry;
        if (entry->left_us == 0)
            open = entry;
    }
    return open != NULL ? open : last;
}

bool ledger_look(struct ledger *ledger, uint32_t *seen, struct session_ledger *out)
{
    uint32_t changes = __atomic_load_n(&ledger->changes, __ATOMIC_RELAXED);
    const struct ledger_entry *at;

    if (changes == *seen)
        return false;
    memset(out, 0, sizeof *out);
    lock(ledger);
    *seen = __atomic_load_n(&ledger->changes, __ATOMIC_RELAXED);
    at = stands_at(ledger);
    out->generation = ledger->generation;
    out->entered = ledger->entered;
    out->left = ledger->left;
    if (at != NULL) {
        out->at = at->seq;
        out->open = at->left_us == 0;
        out->since_us = out->open ? at->entered_us : at->left_us;
        out->count = at->count;
        out->batch = at->step;
        memcpy(out->op, at->op, sizeof out->op);
        memcpy(out->dtype, at->dtype, sizeof out->dtype);
        memcpy(out->name, at->name, sizeof out->name);
        memcpy(out->place, at->place, sizeof out->place);
    }
    unlock(ledger);
    return true;
}

/* ---- writing, from a signal handler --------------------------------------------------------- */

struct line {
    char text[LINE_BYTES];
    size_t bytes;
};

/* What a broken text holds besides is not for a terminal. */
static void put(struct line *line, const char *text)
{
    for (; *text != '\0' && line->bytes < sizeof line->text - 1; text++)
        line->text[line->bytes++] = *text >= 0 && *text < ' ' ? '?' : *text;
}

static void put_number(struct line *line, uint64_t value)
{
    char digits[21];
    size_t at = sizeof digits - 1;

    digits[at] = '\0';
    do
        digits[--at] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    put(line, &digits[at]);
}

/* "12.3 ms" */
static void put_ms(struct line *line, uint64_t us)
{
    put_number(line, us / 1000);
    put(line, ".");
    put_number(line, us % 1000 / 100);
    put(line, " ms");
}

static void write_line(struct line *line, int descriptor)
{
    const char *text = line->text;

    line->text[line->bytes++] = '\n';
    while (line->bytes > 0) {
        ssize_t done = write(descriptor, text, line->bytes);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            break;
        text += done;
        line->bytes -= (size_t)done;
    }
    line->bytes = 0;
}

/* #118 all_reduce 'step 14 bucket 6' float32 x 1000, step 15, generation 3, reduce.c:118: entered
 * 12.3 ms ago, left after 0.4 ms */
static void write_entry(const struct ledger_entry *entry, int descriptor, uint64_t now_us)
{
    struct line line = {.bytes = 0};

    put(&line, "#");
    put_number(&line, entry->seq);
    put(&line, " ");
    put(&line, entry->op[0] != '\0' ? entry->op : "collective");
    put(&line, " '");
    put(&line, entry->name);
    put(&line, "' ");
    put(&line, entry->dtype);
    put(&line, " x ");
    put_number(&line, entry->count);
    if (entry->step != 0) {
        put(&line, ", step ");
        put_number(&line, entry->step);
    }
    put(&line, ", generation ");
    put_number(&line, entry->generation);
    put(&line, entry->place[0] != '\0' ? ", " : "");
    put(&line, entry->place);
    put(&line, ": entered ");
    put_ms(&line, now_us > entry->entered_us ? now_us - entry->entered_us : 0);
    put(&line, entry->left_us == 0 ? " ago, not left" : " ago, left after ");
    if (entry->left_us != 0)
        put_ms(&line, entry->left_us > entry->entered_us ? entry->left_us - entry->entered_us : 0);
    write_line(&line, descriptor);
}

/* The lock may be held by the very thread that crashed, or by one that has no core now: that one
 * gets its time, slept in poll(), which a handler may call. */
static bool lock_within(struct ledger *ledger, int patience_ms)
{
    for (int ms = 0;; ms++) {
        for (int i = 0; i < SPINS; i++)
            if (!__atomic_test_and_set(&ledger->lock, __ATOMIC_ACQUIRE))
                return true;
        if (ms >= patience_ms)
            return false;
        (void)poll(NULL, 0, 1);
    }
}

/* One entry, copied out; `missed` stays set when one had to be read without the lock: patience is
 * spent once. */
static struct ledger_entry entry_at(struct ledger *ledger, uint64_t at, bool *missed)
{
    struct ledger_entry entry;
    bool locked = lock_within(ledger, *missed ? 0 : PATIENCE_MS);

    entry = ledger->ring[at % LEDGER_ENTRIES];
    if (locked)
        unlock(ledger);
    *missed = *missed || !locked;
    entry.op[sizeof entry.op - 1] = entry.dtype[sizeof entry.dtype - 1] = '\0';
    entry.name[sizeof entry.name - 1] = entry.place[sizeof entry.place - 1] = '\0';
    return entry;
}

void ledger_write(struct ledger *ledger, int descriptor, uint64_t now_us)
{
    struct line line = {.bytes = 0};
    bool locked = lock_within(ledger, PATIENCE_MS), missed = !locked;
    uint64_t next = ledger->next, count = kept(ledger);

    if (locked)
        unlock(ledger);
    put(&line, "muster ledger: ");
    put_number(&line, next);
    put(&line, " collectives, the newest ");
    put_number(&line, count);
    put(&line, " of them, oldest first");
    write_line(&line, descriptor);
    for (uint64_t at = next - count; at < next; at++) {
        struct ledger_entry entry = entry_at(ledger, at, &missed);

        if (entry.seq != 0)
            write_entry(&entry, descriptor, now_us);
    }
    put(&line, missed ? "muster ledger: end; it was being written, so one entry may be torn"
                      : "muster ledger: end");
    write_line(&line, descriptor);
}
