/* The status of jobs as lines of at most 100 columns.
 *
 *   mnist: running, generation 7, step 1234, world 3 (min 3, max 4)
 *     loss 0.0312, 5210 samples/s
 *     2 recoveries, last in ms: detect 1.2 push 0.3 ...
 *     12.3 s ago: generation 7 of 3 formed at step 1200 after: rank 2 on node-b is lost: ...
 *     RANK  NODE              HOST                  PID  STATE            STEP    SILENT  WAITS AT
 *        0  node-a            node-a               1234  running          1234     0.2 s
 *
 * A key that is not there is passed over: an older coordinator may be asked by a newer program.
 */
#include "cli/command.h"

#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 100, LINE_BYTES = 512 };

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static double number_of(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static bool has(const json_t *object, const char *key)
{
    return json_is_number(json_object_get(object, key));
}

/* Bytes of the first `columns` characters; *seen = characters counted. */
static size_t bytes_of_columns(const char *text, size_t columns, size_t *seen)
{
    size_t at = 0;

    *seen = 0;
    while (text[at] != '\0') {
        bool begins = ((unsigned char)text[at] & 0xc0) != 0x80;

        if (begins && *seen == columns)
            break;
        *seen += begins;
        at++;
    }
    return at;
}

/* Text in so many columns: cut with '~' or filled up, then two blanks. */
static void print_cell(FILE *out, const char *text, size_t columns, bool last)
{
    size_t seen = 0;
    size_t bytes = bytes_of_columns(text, columns, &seen);

    if (text[bytes] != '\0') {
        bytes = bytes_of_columns(text, columns - 1, &seen);
        (void)fprintf(out, "%.*s~", (int)bytes, text);
        seen++;
    } else {
        (void)fprintf(out, "%s", text);
    }
    if (!last)
        (void)fprintf(out, "%*s", (int)(columns - seen) + 2, "");
}

/* A line cut to the width of the terminal it is meant for. */
static void print_line(FILE *out, const char *text)
{
    size_t seen = 0;
    size_t bytes = bytes_of_columns(text, COLUMNS, &seen);

    if (text[bytes] != '\0')
        (void)fprintf(out, "%.*s~\n", (int)bytes_of_columns(text, COLUMNS - 1, &seen), text);
    else
        (void)fprintf(out, "%s\n", text);
}

/* A sentence on as many lines as it needs, broken at blanks where there are any. */
static void print_wrapped(FILE *out, const char *text)
{
    static const char indent[] = "    ";
    size_t seen, bytes = bytes_of_columns(text, COLUMNS, &seen);
    bool first = true;

    while (text[bytes] != '\0') {
        size_t end = bytes;

        while (end > 4 && text[end] != ' ')
            end--;
        if (end <= 4)
            end = bytes;
        (void)fprintf(out, "%s%.*s\n", first ? "" : indent, (int)end, text);
        text += end + (text[end] == ' ');
        first = false;
        bytes = bytes_of_columns(text, COLUMNS - strlen(indent), &seen);
    }
    (void)fprintf(out, "%s%s\n", first ? "" : indent, text);
}

static void print_number(FILE *out, const json_t *object, const char *key, int columns)
{
    if (has(object, key))
        (void)fprintf(out, "%*.0f  ", columns, number_of(object, key));
    else
        (void)fprintf(out, "%*s  ", columns, "-");
}

static void print_rank(FILE *out, const json_t *member)
{
    const json_t *rank = json_object_get(member, "rank");

    if (json_is_integer(rank) && json_integer_value(rank) >= 0 &&
        json_integer_value(rank) < UINT32_MAX)
        (void)fprintf(out, "  %4lld  ", (long long)json_integer_value(rank));
    else
        (void)fprintf(out, "  %4s  ", "-");
}

static void print_cells(FILE *out, const json_t *member)
{
    const char *waits_at = text_of(member, "waits_at");
    char silent[32] = "-";

    if (has(member, "silent_ms"))
        (void)snprintf(silent, sizeof silent, "%.1f s", number_of(member, "silent_ms") / 1000);
    print_rank(out, member);
    print_cell(out, text_of(member, "node"), 16, false);
    print_cell(out, text_of(member, "host"), 16, false);
    print_number(out, member, "pid", 7);
    print_cell(out, text_of(member, "state"), 11, false);
    print_number(out, member, "step", 8);
    (void)fprintf(out, "%8s%s", silent, waits_at[0] ? "  " : "");
    print_cell(out, waits_at, 12, true);
}

/* Numbers may be wider than their column: the line is cut as a whole. */
static void print_member(FILE *out, const json_t *member)
{
    char *line = NULL;
    size_t bytes = 0;
    FILE *cells = open_memstream(&line, &bytes);

    if (!cells)
        return;
    print_cells(cells, member);
    if (fclose(cells) == 0)
        print_line(out, line);
    free(line);
}

static void print_head(FILE *out, const json_t *job)
{
    char line[LINE_BYTES];
    int done = snprintf(line, sizeof line, "%.64s: %s, generation %.0f, step %.0f, world %.0f",
                        text_of(job, "name"), text_of(job, "state"), number_of(job, "generation"),
                        number_of(job, "step"), number_of(job, "world"));

    if (number_of(job, "max") > 0) /* barriers of a job that trains nothing have no such terms */
        (void)snprintf(line + done, sizeof line - (size_t)done, " (min %.0f, max %.0f)",
                       number_of(job, "min"), number_of(job, "max"));
    print_line(out, line);
}

/* Phase times in milliseconds, appended to the line; a phase that took no time is left out. */
static void add_phases(char line[LINE_BYTES], const json_t *times)
{
    static const char *const phases[] = {"detect",  "push",  "rendezvous",
                                         "connect", "state", "recompute"};
    size_t done = strlen(line);
    char key[32];

    for (size_t i = 0; i < sizeof phases / sizeof phases[0]; i++) {
        (void)snprintf(key, sizeof key, "%s_us", phases[i]);
        if (number_of(times, key) > 0)
            done += (size_t)snprintf(line + done, LINE_BYTES - done, " %s %.1f", phases[i],
                                     number_of(times, key) / 1000);
    }
}

/* How many there were, and what the last ones were after. */
static void print_recoveries(FILE *out, const json_t *job)
{
    const json_t *one;
    char line[LINE_BYTES];
    size_t index;

    if (number_of(job, "recoveries") < 1)
        return;
    (void)snprintf(line, sizeof line, "  %.0f recover%s, last in ms:",
                   number_of(job, "recoveries"), number_of(job, "recoveries") < 2 ? "y" : "ies");
    add_phases(line, json_object_get(job, "last_recovery"));
    print_line(out, line);
    json_array_foreach(json_object_get(job, "recent_recoveries"), index, one)
    {
        (void)snprintf(line, sizeof line, "  %.1f s ago: %.300s", number_of(one, "ago_ms") / 1000,
                       text_of(one, "reason"));
        print_wrapped(out, line);
    }
}

static void print_news(FILE *out, const json_t *job)
{
    char line[LINE_BYTES];

    if (number_of(job, "samples_per_s") > 0) {
        (void)snprintf(line, sizeof line, "  loss %.6g, %.0f samples/s", number_of(job, "loss"),
                       number_of(job, "samples_per_s"));
        print_line(out, line);
    } else if (number_of(job, "loss") > 0) { /* nobody trains now */
        (void)snprintf(line, sizeof line, "  loss %.6g", number_of(job, "loss"));
        print_line(out, line);
    }
    print_recoveries(out, job);
    if (text_of(job, "reason")[0]) {
        (void)snprintf(line, sizeof line, "  %.400s", text_of(job, "reason"));
        print_wrapped(out, line);
    }
    if (text_of(job, "verdict")[0] || text_of(job, "awaited")[0]) {
        (void)snprintf(line, sizeof line, "  %.500s",
                       text_of(job, text_of(job, "verdict")[0] ? "verdict" : "awaited"));
        print_line(out, line);
    }
    if (number_of(job, "waiting_ms") > 0) {
        const char *what = text_of(job, "waits_for");

        (void)snprintf(line, sizeof line, "  %.400s, since %.1f s", what[0] ? what : "waiting",
                       number_of(job, "waiting_ms") / 1000);
        print_wrapped(out, line);
    }
    if (json_is_true(json_object_get(job, "store_failing")))
        print_line(out, "  the store fails: nothing new can be formed");
}

/* Its rank; whoever has none comes behind all who do. */
static json_int_t rank_of(const json_t *member)
{
    const json_t *rank = json_object_get(member, "rank");

    return json_is_integer(rank) ? json_integer_value(rank) : INT64_MAX;
}

struct row {
    const json_t *member;
    json_int_t rank;
    size_t order; /* of coming */
};

static int compare_rows(const void *a, const void *b)
{
    const struct row *x = a, *y = b;

    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

/* The members by rank, those without one in the order of their coming; NULL without memory. The
 * array is the caller's to free. */
static struct row *by_rank(const json_t *members, size_t count)
{
    struct row *rows = calloc(count, sizeof *rows);

    for (size_t i = 0; rows && i < count; i++) {
        const json_t *member = json_array_get(members, i);

        rows[i] = (struct row){member, rank_of(member), i};
    }
    if (rows)
        qsort(rows, count, sizeof *rows, compare_rows);
    return rows;
}

static void print_members(FILE *out, const json_t *members)
{
    size_t count = json_array_size(members);
    struct row *rows = count > 0 ? by_rank(members, count) : NULL;
    bool waits = false;

    if (!rows)
        return;
    for (size_t i = 0; i < count; i++)
        waits = waits || text_of(rows[i].member, "waits_at")[0] != '\0';
    (void)fprintf(out, "  %4s  %-16s  %-16s  %7s  %-11s  %8s  %8s%s\n", "RANK", "NODE", "HOST",
                  "PID", "STATE", "STEP", "SILENT", waits ? "  WAITS AT" : "");
    for (size_t i = 0; i < count; i++)
        print_member(out, rows[i].member);
    free(rows);
}

size_t status_print(FILE *out, const json_t *status)
{
    const json_t *job;
    size_t index;
    size_t printed = 0;

    json_array_foreach(json_object_get(status, "jobs"), index, job)
    {
        if (printed++ > 0)
            (void)fprintf(out, "\n");
        print_head(out, job);
        print_news(out, job);
        print_members(out, json_object_get(job, "members"));
    }
    return printed;
}
