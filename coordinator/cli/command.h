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

/* Parses; false when the command is over (--help, --version, wrong usage) with *exit_code. At most
 * `words_max` words that are no options are allowed. */
bool command_parse(struct options *options, const char *summary, const struct option_spec *table,
                   size_t count, int argc, char **argv, size_t words_max, void *values,
                   int *exit_code);

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

/* status_table.c: the object of /v1/status as a table of at most 100 columns; only this job unless
 * it is NULL. Returns the number of jobs printed. */
size_t status_print(FILE *out, const json_t *status, const char *job);

#endif
