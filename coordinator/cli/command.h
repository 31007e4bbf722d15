/* The subcommands of `muster`: one row each in main.c, one file each.
 *
 * A command gets argv[0] = "muster NAME" and the words after it, and returns the exit code. It
 * prints its answer on stdout and what went wrong, in one line, on stderr.
 */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include "base/options.h"

#include <jansson.h>

struct command {
    const char *name;      /* after "muster" */
    const char *arguments; /* what follows the name in the list of commands; "" = options only */
    const char *summary;   /* one line */
    int (*run)(int argc, char **argv); /* returns the exit code */
};

int command_status(int argc, char **argv);
int command_drain(int argc, char **argv);
int command_forget(int argc, char **argv);
int command_why(int argc, char **argv);
int command_barrier(int argc, char **argv);
int command_ckpt(int argc, char **argv);
int command_run(int argc, char **argv);
int command_version(int argc, char **argv);

/* What a command takes. */
struct command_syntax {
    const char *summary;
    const struct option_spec *table;
    size_t count;          /* rows of the table */
    const char *arguments; /* the words that are no options, for --help; NULL = none */
    size_t words_max;      /* how many of them there may be */
};

/* Parses; false when the command is over (--help, --version, wrong usage) with *exit_code. */
bool command_parse(struct options *options, const struct command_syntax *syntax, int argc,
                   char **argv, void *values, int *exit_code);

/* "NAME: text" on stderr; returns the code. */
int command_fail(const char *name, const struct error *error);

/* fetch.c: GET http://ADDRESS/PATH as JSON. 0, or EXIT_UNAVAILABLE with a sentence that names the
 * address. The caller frees *object with json_decref(). */
int fetch_json(const char *address, const char *path, json_t **object, struct error *error);
const char *fetch_version(void); /* libcurl's */

/* control.c: one request to the coordinator's control socket, one answer. 0 when it is ok, with the
 * text; EXIT_REFUSED or EXIT_UNAVAILABLE with a sentence in *error otherwise. `socket_path` NULL
 * means control.sock in the folder `state`. The caller frees *text. */
int control_ask(const char *state, const char *socket_path, const char *command, const char *job,
                const char *target, char **text, struct error *error);

/* status.c: is it what /v1/status answers, with jobs and members that can be printed? */
bool status_valid(const json_t *status);

/* status.c: takes all jobs but this one out of a valid status; how many are left. */
size_t status_keep(json_t *status, const char *job);

/* status_table.c: the object of /v1/status as a table of at most 100 columns. Returns the number of
 * jobs printed. */
size_t status_print(FILE *out, const json_t *status);

#endif
