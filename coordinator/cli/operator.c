/* drain, forget, why: what the operator says through the control socket. */
#include "cli/command.h"

#include "base/exits.h"
#include "proto/wire.h"

#include <stdlib.h>

/* Options of the three. */
struct operator_options {
    const char *state;   /* folder of the coordinator */
    const char *control; /* socket; NULL = in the folder */
    const char *job;     /* NULL = the only one, or all */
};

static const struct option_spec operator_table[] = {
    {"state", OPTION_TEXT, "DIR", "./muster-state", 0, 0, NULL,
     offsetof(struct operator_options, state), "Coordinator",
     "state folder of the coordinator; its control socket is DIR/control.sock"},
    {"control", OPTION_TEXT, "PATH", NULL, 0, 0, NULL, offsetof(struct operator_options, control),
     "Coordinator", "the control socket itself"},
    {"job", OPTION_NAME, "NAME", NULL, 1, WIRE_NAME_BYTES, NULL,
     offsetof(struct operator_options, job), "Which", "only in this job"},
};

/* Asks and prints the answer. `word` names the argument that must be there, NULL = none. */
static int run(int argc, char **argv, const char *command, const char *word, const char *summary)
{
    const struct command_syntax syntax = {
        .summary = summary,
        .table = operator_table,
        .count = sizeof operator_table / sizeof operator_table[0],
        .arguments = word,
        .words_max = word ? 1 : 0,
    };
    struct operator_options values = {.state = NULL};
    struct options options;
    struct error error = {.code = 0};
    char *text = NULL;
    int exit_code = 0;

    if (!command_parse(&options, &syntax, argc, argv, &values, &exit_code))
        return exit_code;
    if (word && options.positional_count == 0)
        exit_code = error_set(&error, EXIT_USAGE, "%s is missing: %s %s", word, argv[0], word);
    else
        exit_code = control_ask(values.state, values.control, command, values.job,
                                word ? options.positional[0] : NULL, &text, &error);
    if (exit_code != 0)
        (void)command_fail(argv[0], &error);
    else if (text && text[0])
        (void)printf("%s\n", text);
    free(text);
    options_release(&options);
    return exit_code;
}

int command_drain(int argc, char **argv)
{
    return run(
        argc, argv, "drain", "MEMBER|NODE",
        "Asks a member, or every member of a node, to finish its step, hand over and leave.");
}

int command_forget(int argc, char **argv)
{
    return run(argc, argv, "forget", "MEMBER",
               "Declares that a missing member is gone for good, so that a paused job may go on.\n"
               "Say it only when you know that the process does not run any more.");
}

int command_why(int argc, char **argv)
{
    return run(argc, argv, "why", NULL, "Tells who waits where, for whom, and since when.");
}
