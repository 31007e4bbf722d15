/* muster: the operator's program. A table of subcommands. */
#include "cli/command.h"

#include "base/exits.h"
#include "base/streams.h"

#include <string.h>

static const struct command commands[] = {
    {"status", "", "jobs and their members", command_status},
    {"drain", "MEMBER|NODE", "ask a member, or all of a node, to leave", command_drain},
    {"forget", "MEMBER", "declare a missing member gone, so that a paused job may go on",
     command_forget},
    {"why", "", "who waits for whom", command_why},
    {"barrier", "", "take part in a named barrier: a handle for scripts", command_barrier},
    {"ckpt", "list|verify DIR", "checkpoints of a folder: are they whole?", command_ckpt},
    {"run", "-n N [COMMAND]", "start N processes here, restart those that ask for it",
     command_run},
    {"version", "", "version, commit, libraries", command_version},
};

enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static void print_usage(FILE *out)
{
    (void)fprintf(out, "usage: muster COMMAND [options]\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        (void)fprintf(out, "  %-9s %-16s %s\n", commands[i].name, commands[i].arguments,
                      commands[i].summary);
    (void)fprintf(out, "\nmuster COMMAND --help tells the options of a command.\n");
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

/* The exit code, unless an answer that was good did not get out. */
static int end(int exit_code)
{
    struct error error = {.code = 0};

    if (streams_flush(&error) != 0)
        (void)command_fail("muster", &error);
    return exit_code != 0 ? exit_code : error.code;
}

int main(int argc, char **argv)
{
    const struct command *command;
    char name[64];

    streams_open();
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return end(0);
    }
    command = find(strcmp(argv[1], "--version") == 0 ? "version" : argv[1]);
    if (!command) {
        (void)fprintf(stderr, "muster: there is no command '%s'; see muster --help\n", argv[1]);
        return EXIT_USAGE;
    }
    (void)snprintf(name, sizeof name, "muster %s", command->name);
    argv[1] = name;
    return end(command->run(argc - 1, argv + 1));
}
