/* Options are one table: from it come the command line, the environment, the config file, --help, a
 * sample config file and the OPTIONS section of the manual page.
 *
 *     static const struct option_spec table[] = {
 *         {"min", OPTION_NUMBER, "N", "1", 1, 1024, NULL, offsetof(struct mine, min), "Job",
 *         "members .."},
 *     };
 *     options_init(&options, "muster-worker", "what it does", table, count);
 *     options_parse(&options, argc, argv, &mine, &error)      0, EXIT_USAGE, or OPTIONS_HELP /
 *                                                             _VERSION
 *     options_release(&options);                              strings in `mine` live until here
 *
 * A value is taken from the first that has it: command line (--name VALUE, --name=VALUE, --flag,
 * --flag=no; the last one counts), environment (MUSTER_NAME, dashes as underscores; an empty
 * variable counts as not set), the file of --config (lines `name = value`; # begins a comment at
 * the start of a line or after a blank), default. A value that begins with two dashes needs the
 * form --name=VALUE. Unknown names are errors on the command line and in the file, and the nearest
 * known one is suggested; every error is one sentence that names the option, the value, where it
 * stands and what was expected. Words that are no options are kept in order; after the word -- all
 * are. --help, --version and --config are known to every table. */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define OPTIONS_HELP    (-1) /* --help was given: print options_help() and exit 0 */
#define OPTIONS_VERSION (-2) /* --version */

#define OPTIONS_MAX       96 /* rows of a table */
#define OPTIONS_WORDS_MAX 16 /* words that are no options */

/* The field of the caller's struct has the type in the comment. */
enum option_type {
    OPTION_TEXT,     /* const char *; NULL without a default */
    OPTION_FLAG,     /* bool; on the command line without a value */
    OPTION_NUMBER,   /* uint64_t, min..max */
    OPTION_REAL,     /* double, min..max */
    OPTION_DURATION, /* uint64_t milliseconds, min..max; "500", "500ms", "2s", "3m", "1h" */
    OPTION_CHOICE,   /* const char *, one of choices */
    OPTION_BYTES,    /* uint64_t, min..max; "4096", "64k", "64KiB", "1M", "2GiB": powers of 1024 */
    OPTION_ADDRESS,  /* const char *, "HOST:PORT" or "[V6]:PORT"; its form is checked, not its host.
                        min 0: to listen on; 1: to connect to, so that both must be given */
    OPTION_NAME,     /* const char *, min..max bytes of UTF-8 without control characters */
};

struct option_spec {
    const char *name;     /* without the dashes */
    enum option_type type;
    const char *unit;     /* word for the value in --help: "N", "DIR"; "" for flags */
    const char *fallback; /* default as text; NULL = none, the caller's field stands (texts: NULL)
                             */
    double min, max;      /* OPTION_NUMBER, _REAL, _DURATION, _BYTES, _NAME; min: _ADDRESS */
    const char *choices;  /* OPTION_CHOICE: "a|b|c" */
    size_t offset;        /* of the field */
    const char *group;    /* heading in --help; rows of one group stand together */
    const char *help;     /* one or more sentences */
};

/* Where a value comes from, weakest first. */
enum option_source {
    OPTION_FROM_DEFAULT,
    OPTION_FROM_FILE,
    OPTION_FROM_ENVIRONMENT,
    OPTION_FROM_WORD
};

struct option_given {
    const char *text;        /* NULL = the default counts */
    enum option_source from; /* for the error sentence */
    size_t line;             /* of the config file, from 1 */
};

/* How options_help() prints: --help, --help=config, --help=man. */
enum options_form { OPTIONS_AS_TEXT, OPTIONS_AS_CONFIG, OPTIONS_AS_MAN };

struct options {
    const char *program, *summary;          /* the caller's */
    const char *arguments;                  /* for --help: words that are no options; "" = none */
    const struct option_spec *table;        /* the caller's */
    size_t count;                           /* rows of the table */
    struct option_given given[OPTIONS_MAX]; /* one per row */
    const char *config;                     /* --config FILE or MUSTER_CONFIG; NULL = none */
    enum options_form form;                 /* as --help asked */
    char *memory;                           /* owned: the config file's text */
    const char *positional[OPTIONS_WORDS_MAX];      /* words that are no options */
    size_t positional_count;
};

void options_init(struct options *options, const char *program, const char *summary,
                  const struct option_spec *table, size_t count);

/* The fields of *values are written only when every value of every source was understood. */
int options_parse(struct options *options, int argc, char **argv, void *values,
                  struct error *error);
void options_release(struct options *options);

/* Was the option given anywhere, or is it the default? */
bool options_given(const struct options *options, const char *name);

/* Of what strength is its value? */
enum option_source options_source(const struct options *options, const char *name);

/* "--min 3 (from MUSTER_MIN)": an option, its value and where that stands, for an error sentence.
 * A value that is long is cut. */
#define OPTIONS_SHOWN_BYTES 400
void options_show(const struct options *options, const char *name,
                  char text[OPTIONS_SHOWN_BYTES]);

/* Variables MUSTER_* that are set and that no program of the project reads: true, and a sentence
 * that names them. They are no error: the environment is shared, and may be newer or older. */
#define OPTIONS_STRAYS_BYTES 400
bool options_strays(char text[OPTIONS_STRAYS_BYTES]);

/* In the form that --help asked for; at most 100 columns. */
void options_help(const struct options *options, FILE *out);

/* A config file that sets nothing and shows every default. */
void options_sample(const struct options *options, FILE *out);

/* The OPTIONS, ENVIRONMENT and EXIT STATUS sections of a manual page, in man(7). */
void options_man(const struct options *options, FILE *out);

#endif
