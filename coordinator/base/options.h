/* Options are one table: from it come the command line, the environment, the config file and --help.
 *
 *     static const struct option_spec table[] = {
 *         {"min", OPTION_NUMBER, "N", "1", 1, 1024, NULL, offsetof(struct mine, min), "Job", "members .."},
 *     };
 *     options_init(&options, "muster-worker", "what it does", table, count);
 *     options_parse(&options, argc, argv, &mine, &error)      0, EXIT_USAGE, or OPTIONS_HELP / _VERSION
 *     options_release(&options);                              strings in `mine` live until here
 *
 * A value is taken from the first that has it: command line (--name VALUE, --name=VALUE, --flag), environment
 * (MUSTER_NAME, dashes as underscores), the file of --config (lines `name = value`, # begins a comment),
 * default. Unknown names are errors everywhere, and the nearest known one is suggested. --help and
 * --version are known to every table. */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define OPTIONS_HELP    (-1) /* --help was given: print options_help() and exit 0 */
#define OPTIONS_VERSION (-2) /* --version */
#define OPTIONS_MAX     96

/* The field of the caller's struct has the type in the comment. */
enum option_type {
    OPTION_TEXT,     /* const char *; NULL without a default */
    OPTION_FLAG,     /* bool; on the command line without a value */
    OPTION_NUMBER,   /* uint64_t, min..max */
    OPTION_REAL,     /* double, min..max */
    OPTION_DURATION, /* uint64_t milliseconds, min..max; "500", "500ms", "2s", "3m" */
    OPTION_CHOICE,   /* const char *, one of choices */
};

struct option_spec {
    const char *name;     /* without the dashes */
    enum option_type type;
    const char *unit;     /* word for the value in --help: "N", "DIR"; "" for flags */
    const char *fallback; /* default as text; NULL = none */
    double min, max;      /* OPTION_NUMBER, _REAL, _DURATION */
    const char *choices;  /* OPTION_CHOICE: "a|b|c" */
    size_t offset;        /* of the field */
    const char *group;    /* heading in --help */
    const char *help;     /* one or more sentences */
};

struct options {
    const char *program, *summary;
    const struct option_spec *table;
    size_t count;
    const char *given[OPTIONS_MAX]; /* text of each value, NULL = default */
    const char *config;             /* --config FILE */
    char *memory;                   /* the config file's text */
    const char *positional[16];
    size_t positional_count;
};

void options_init(struct options *options, const char *program, const char *summary,
                  const struct option_spec *table, size_t count);
int options_parse(struct options *options, int argc, char **argv, void *values,
                  struct error *error);
void options_release(struct options *options);

/* Was the option given anywhere, or is it the default? */
bool options_given(const struct options *options, const char *name);

void options_help(const struct options *options, FILE *out);
void options_sample(const struct options *options, FILE *out); /* a config file with all defaults */

#endif
