/* muster status: the coordinator's /v1/status as a table or as it is. */
#include "cli/command.h"

#include "base/exits.h"
#include "proto/wire.h"

#include <string.h>

struct status_options {
    const char *http; /* ADDR:PORT */
    const char *job;  /* NULL = all */
    bool json;        /* as it is */
};

static const struct option_spec status_table[] = {
    {"http", OPTION_ADDRESS, "ADDR:PORT", "127.0.0.1:7071", 1, 0, NULL,
     offsetof(struct status_options, http), "Coordinator", "HTTP address of the coordinator"},
    {"job", OPTION_NAME, "NAME", NULL, 1, WIRE_NAME_BYTES, NULL,
     offsetof(struct status_options, job), "Output", "only this job"},
    {"json", OPTION_FLAG, "", NULL, 0, 0, NULL, offsetof(struct status_options, json), "Output",
     "print the object of /v1/status, as programs read it"},
};

static bool is_job(const json_t *job)
{
    const json_t *members = json_object_get(job, "members"), *member;
    size_t index;

    if (!json_is_string(json_object_get(job, "name")) ||
        !json_is_string(json_object_get(job, "state")) || !json_is_array(members))
        return false;
    json_array_foreach(members, index, member)
    {
        if (!json_is_object(member))
            return false;
    }
    return true;
}

bool status_valid(const json_t *status)
{
    const json_t *jobs = json_object_get(status, "jobs"), *job;
    size_t index;

    json_array_foreach(jobs, index, job)
    {
        if (!is_job(job))
            return false;
    }
    return json_is_array(jobs);
}

size_t status_keep(json_t *status, const char *job)
{
    json_t *jobs = json_object_get(status, "jobs");

    for (size_t i = json_array_size(jobs); i-- > 0;) {
        const json_t *name = json_object_get(json_array_get(jobs, i), "name");

        if (strcmp(json_string_value(name), job) != 0)
            (void)json_array_remove(jobs, i);
    }
    return json_array_size(jobs);
}

static int print(json_t *status, const struct status_options *values, struct error *error)
{
    if (!status_valid(status))
        return error_set(error, EXIT_UNAVAILABLE,
                         "what answers at %s is no muster-coordinator: /v1/status lists no jobs "
                         "and members; set --http or MUSTER_HTTP",
                         values->http);
    if (values->job && status_keep(status, values->job) == 0)
        return error_set(error, EXIT_REFUSED, "there is no job '%s'", values->job);
    if (values->json) {
        (void)json_dumpf(status, stdout, JSON_INDENT(2));
        (void)printf("\n");
    } else if (status_print(stdout, status) == 0) {
        (void)printf("no jobs\n");
    }
    return 0;
}

static int ask(const struct status_options *values, struct error *error)
{
    json_t *status = NULL;
    int exit_code = fetch_json(values->http, "/v1/status", &status, error);

    if (exit_code == 0)
        exit_code = print(status, values, error);
    json_decref(status);
    return exit_code;
}

int command_status(int argc, char **argv)
{
    static const struct command_syntax syntax = {
        .summary = "Prints the jobs of a coordinator and their members.",
        .table = status_table,
        .count = sizeof status_table / sizeof status_table[0],
    };
    struct status_options values = {.http = NULL};
    struct options options;
    struct error error = {.code = 0};
    int exit_code = 0;

    if (!command_parse(&options, &syntax, argc, argv, &values, &exit_code))
        return exit_code;
    exit_code = ask(&values, &error);
    if (exit_code != 0)
        (void)command_fail(argv[0], &error);
    options_release(&options);
    return exit_code;
}
