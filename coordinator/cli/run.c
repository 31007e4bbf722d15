/* muster run: N processes of a command on this host, watched. */
#include "cli/command.h"

#include "agent/agent.h"
#include "base/exits.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 4096

struct run_options {
    uint64_t count;      /* processes */
    uint64_t restarts;   /* of each */
    uint64_t refill_ms;  /* of running: one more restart */
    uint64_t backoff_ms; /* before a restart */
    uint64_t grace_ms;   /* from SIGTERM to SIGKILL */
    bool raw;            /* no prefixes */
};

#define FIELD(name) offsetof(struct run_options, name)

static const struct option_spec run_table[] = {
    {"count", OPTION_NUMBER, "N", "1", 1, AGENT_COUNT_MAX, NULL, FIELD(count), "Processes",
     "how many; -n N is the same"},
    {"raw", OPTION_FLAG, "", NULL, 0, 0, NULL, FIELD(raw), "Processes",
     "pass on what they write as it is, without [rank] before each line"},
    {"restarts", OPTION_NUMBER, "N", "16", 0, 1000000, NULL, FIELD(restarts), "Restarts",
     "of each process that exits with 75 or is killed"},
    {"refill", OPTION_DURATION, "TIME", "60s", 0, 86400000, NULL, FIELD(refill_ms), "Restarts",
     "a run of so long gives one restart back (0: never), if the program tells no progress"},
    {"backoff", OPTION_DURATION, "TIME", "500ms", 0, 3600000, NULL, FIELD(backoff_ms), "Restarts",
     "pause before a restart"},
    {"grace", OPTION_DURATION, "TIME", "35s", 0, 86400000, NULL, FIELD(grace_ms), "Stopping",
     "from SIGTERM until what still runs is killed"},
};

enum { RUN_ROWS = sizeof run_table / sizeof run_table[0] };

#undef FIELD

static bool is_flag(const char *name)
{
    if (strncmp(name, "help", 4) == 0 || strcmp(name, "version") == 0)
        return true;
    for (size_t i = 0; i < RUN_ROWS; i++)
        if (strcmp(run_table[i].name, name) == 0)
            return run_table[i].type == OPTION_FLAG;
    return false;
}

/* Words up to `--` or to the first that is neither an option nor its value are ours; *command: the
 * first word that is not. -n becomes --count. */
static int own_words(int argc, char **argv, int *command)
{
    static char count[] = "--count";
    int i = 1;

    while (i < argc && argv[i][0] == '-' && strcmp(argv[i], "--") != 0) {
        bool alone = strchr(argv[i], '=') != NULL ||
                     (strncmp(argv[i], "--", 2) == 0 && is_flag(argv[i] + 2));

        if (strcmp(argv[i], "-n") == 0)
            argv[i] = count;
        i += alone ? 1 : 2;
    }
    if (i > argc)
        i = argc;
    *command = i < argc && strcmp(argv[i], "--") == 0 ? i + 1 : i;
    return i;
}

/* muster-worker beside this program, else the one in PATH. */
static void find_worker(char path[PATH_BYTES])
{
    static const char name[] = "muster-worker";
    ssize_t n = readlink("/proc/self/exe", path, PATH_BYTES - sizeof name);
    char *slash = NULL;

    if (n > 0) {
        path[n] = '\0';
        slash = strrchr(path, '/');
    }
    if (slash != NULL)
        memcpy(slash + 1, name, sizeof name);
    if (slash == NULL || access(path, X_OK) != 0)
        memcpy(path, name, sizeof name);
}

/* The words from the command on; without one, or if they begin with an option, muster-worker comes
 * first. */
static int run(const struct run_options *values, int argc, char **words, struct error *error)
{
    char path[PATH_BYTES];
    char **argv = calloc((size_t)argc + 2, sizeof *argv);
    struct agent_options options = {.count = (uint32_t)values->count,
                                    .restarts = values->restarts,
                                    .refill_ms = values->refill_ms,
                                    .backoff_ms = values->backoff_ms,
                                    .grace_ms = values->grace_ms,
                                    .prefix = !values->raw,
                                    .name = "muster run: "};
    int code, used = 0;

    if (argv == NULL)
        return error_set(error, EXIT_UNAVAILABLE, "out of memory");
    if (argc == 0 || words[0][0] == '-') {
        find_worker(path);
        argv[used++] = path;
    }
    if (argc > 0)
        memcpy(argv + used, words, (size_t)argc * sizeof *argv);
    options.argv = argv;
    code = agent_run(&options, error);
    free(argv);
    return code;
}

int command_run(int argc, char **argv)
{
    static const struct command_syntax syntax = {
        .summary =
            "Starts N processes of COMMAND here, restarts those that exit with 75 or are\n"
            "killed, forwards SIGTERM, and leaves nothing behind. A finished step gives all\n"
            "restarts back: muster-worker tells of it, and any other program that writes a\n"
            "byte to the descriptor in MUSTER_PROGRESS_FD.\n\n"
            "Without a command, and where the words after -- begin with an option, it is\n"
            "muster-worker. Exit 0 when all ended with 0, else the code of the first that\n"
            "did not.",
        .table = run_table,
        .count = RUN_ROWS,
        .arguments = "[[--] COMMAND ..]",
    };
    struct run_options values = {.raw = false};
    struct options options;
    struct error error = {.code = 0};
    int command, exit_code = 0, own = own_words(argc, argv, &command);

    if (!command_parse(&options, &syntax, own, argv, &values, &exit_code))
        return exit_code;
    (void)signal(SIGPIPE, SIG_IGN); /* who watches processes outlives the reader of their words */
    exit_code = run(&values, argc - command, argv + command, &error);
    if (error.code != 0)
        (void)command_fail(argv[0], &error);
    options_release(&options);
    return exit_code;
}
