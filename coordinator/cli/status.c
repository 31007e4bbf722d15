/* muster status: the coordinator's /v1/status as a table or as it is. */
#include "cli/command.h"

#include "base/exits.h"

struct status_options {
    const char *http; /* ADDR:PORT */
    const char *job;  /* NULL = all */
    bool json;        /* as it is */
};

static const struct option_spec status_table[] = {
    {"http", OPTION_TEXT, "ADDR:PORT", "127.0.0.1:7071", 0, 0, NULL,
     offsetof(struct status_options, http), "Coordinator", "HTTP address of the coordinator"},
    {"job", OPTION_TEXT, "NAME", NULL, 0, 0, NULL, offsetof(struct status_options, job), "Output",
     "only this job"},
    {"json", OPTION_FLAG, "", NULL, 0, 0, NULL, offsetof(struct status_options, json), "Output",
     "print the object of /v1/status, as programs read it"},
};

static int print(const json_t *status, const struct status_options *values, struct error *error)
{
    size_t jobs;

    if (values->json) {
        (void)json_dumpf(status, stdout, JSON_INDENT(2));
        (void)printf("\n");
        return 0;
    }
    jobs = status_print(stdout, status, values->job);
    if (jobs == 0 && values->job)
        return error_set(error, EXIT_UNAVAILABLE, "there is no job '%s'", values->job);
    if (jobs == 0)
        (void)printf("no jobs\n");
    return 0;
}

int command_status(int argc, char **argv)
{
    struct status_options values = {.http = NULL};
    struct options options;
    struct error error = {.code = 0};
    json_t *status = NULL;
    int exit_code = 0;

    if (!command_parse(&options, "Prints the jobs of a coordinator and their members.",
                       status_table, sizeof status_table / sizeof status_table[0], argc, argv, 0,
                       &values, &exit_code))
        return exit_code;
    exit_code = fetch_json(values.http, "/v1/status", &status, &error);
    if (exit_code == 0)
        exit_code = print(status, &values, &error);
    if (exit_code != 0)
        (void)command_fail(argv[0], &error);
    json_decref(status);
    options_release(&options);
    return exit_code;
}
