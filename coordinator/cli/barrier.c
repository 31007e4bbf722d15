/* muster barrier: participant K of W of a job that trains nothing waits at a named barrier. */
#include "cli/command.h"

#include "base/clock.h"
#include "base/exits.h"
#include "client/muster.h"
#include "proto/wire.h"

#include <stdlib.h>

struct barrier_options {
    const char *coordinator;     /* HOST:PORT */
    const char *job;             /* name of the job */
    const char *name;            /* of the barrier */
    const char *place;           /* for people: where in the script */
    const char *node;            /* NULL = the host's name */
    uint64_t index;              /* --as */
    uint64_t of;                 /* size of the group */
    uint64_t timeout_ms;         /* 0 = none */
    uint64_t connect_timeout_ms; /* for an unreachable coordinator */
};

#define FIELD(name) offsetof(struct barrier_options, name)

static const struct option_spec barrier_table[] = {
    {"coordinator", OPTION_ADDRESS, "HOST:PORT", "127.0.0.1:7070", 1, 0, NULL, FIELD(coordinator),
     "Coordinator", "address of the coordinator"},
    {"connect-timeout", OPTION_DURATION, "TIME", "60s", 1, 86400000, NULL,
     FIELD(connect_timeout_ms), "Coordinator", "how long an unreachable coordinator is tried"},
    {"job", OPTION_NAME, "NAME", NULL, 1, WIRE_NAME_BYTES, NULL, FIELD(job), "Barrier",
     "name of the job"},
    {"name", OPTION_NAME, "NAME", NULL, 1, WIRE_NAME_BYTES, NULL, FIELD(name), "Barrier",
     "name of the barrier"},
    {"as", OPTION_NUMBER, "K", NULL, 0, 1048575, NULL, FIELD(index), "Barrier",
     "which participant this is, from 0"},
    {"of", OPTION_NUMBER, "W", NULL, 1, 1048576, NULL, FIELD(of), "Barrier",
     "how many participants there are"},
    {"place", OPTION_NAME, "TEXT", NULL, 0, WIRE_PLACE_BYTES, NULL, FIELD(place), "Barrier",
     "where in the script, shown to others"},
    {"node", OPTION_NAME, "NAME", NULL, 1, WIRE_NAME_BYTES, NULL, FIELD(node), "Barrier",
     "identity of this host; default its name"},
    {"timeout", OPTION_DURATION, "TIME", "0", 0, 86400000, NULL, FIELD(timeout_ms), "Barrier",
     "give up after so long, exit 75 (0: never)"},
};

#undef FIELD

static int check(const struct options *options, const struct barrier_options *values,
                 struct error *error)
{
    static const char *const needed[] = {"job", "name", "as", "of"};

    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (!options_given(options, needed[i]))
            return error_set(error, EXIT_USAGE, "--%s is missing", needed[i]);
    }
    if (values->index >= values->of)
        return error_set(error, EXIT_USAGE,
                         "--as %llu: participants are counted from 0 to %llu (--of %llu)",
                         (unsigned long long)values->index, (unsigned long long)values->of - 1,
                         (unsigned long long)values->of);
    return 0;
}

static int translate(const struct muster_error *from, struct error *error)
{
    return error_set(error, from->exit_code, "%s", from->text);
}

/* What an event means: -1 to go on waiting, else the exit code. */
static int judge(const struct muster_event *event, struct error *error)
{
    switch (event->type) {
    case MUSTER_VERDICT:
    case MUSTER_WAITING:
        (void)fprintf(stderr, "%s\n", event->text);
        return -1;
    case MUSTER_DOWN:
        (void)fprintf(stderr, "connection lost, trying again: %s\n", event->text);
        return -1;
    case MUSTER_BARRIER:
        if (event->barrier_end == MUSTER_BARRIER_RELEASED)
            return 0;
        return error_set(error, EXIT_REFUSED, "%s", event->text);
    case MUSTER_ENDED:
        return error_set(error, event->exit_code, "%s", event->text);
    case MUSTER_UP:
    case MUSTER_FORMED:
    case MUSTER_PLAN:
    case MUSTER_VIEW:
    case MUSTER_OVER:
    case MUSTER_RELEASED:
    case MUSTER_DRAIN:
    case MUSTER_DONE:
        break;
    }
    return -1;
}

/* Milliseconds until the deadline (0 = none), as muster_next() takes them. */
static int left_ms(uint64_t until_us)
{
    uint64_t now_us = clock_monotonic_us();

    if (until_us == 0)
        return -1;
    return until_us > now_us ? (int)((until_us - now_us + 999) / 1000) : 0;
}

static int wait_at(struct muster *session, const struct barrier_options *values, uint64_t until_us,
                   struct error *error)
{
    int exit_code = -1;

    if (muster_barrier_enter(session, values->name, values->place) != MUSTER_OK)
        return error_set(error, EXIT_USAGE, "--name: '%s' cannot be the name of a barrier",
                         values->name);
    while (exit_code < 0) {
        struct muster_event *event = NULL;

        if (muster_next(session, left_ms(until_us), &event) != MUSTER_OK)
            return error_set(error, EXIT_RETRY, "barrier '%s' was not released in %.1f s",
                             values->name, (double)values->timeout_ms / 1000);
        exit_code = judge(event, error);
        muster_event_free(event);
    }
    return exit_code;
}

static int run(const struct barrier_options *values, struct error *error)
{
    uint64_t until_us =
        values->timeout_ms > 0 ? clock_monotonic_us() + values->timeout_ms * 1000 : 0;
    struct muster_options options;
    struct muster_error refused;
    struct muster *session = NULL;
    int exit_code;

    muster_options_init(&options);
    options.coordinator = values->coordinator;
    options.job = values->job;
    options.kind = MUSTER_PARTICIPANT;
    options.node = values->node;
    options.program = "muster barrier " MUSTER_VERSION;
    options.rank_hint = (uint32_t)values->index;
    options.group_size = (uint32_t)values->of;
    options.connect_timeout_ms = (uint32_t)values->connect_timeout_ms;
    if (muster_join(&options, left_ms(until_us), &session, &refused) != MUSTER_OK)
        return translate(&refused, error);
    exit_code = wait_at(session, values, until_us, error);
    (void)muster_goodbye(session, (uint32_t)exit_code, exit_code ? error->text : "", 2000);
    muster_close(session);
    return exit_code;
}

int command_barrier(int argc, char **argv)
{
    static const struct command_syntax syntax = {
        .summary = "Waits at a named barrier until all W participants of the job are there.\n"
                   "Exit 0 when it is released; 77 with a sentence when it cannot be met.",
        .table = barrier_table,
        .count = sizeof barrier_table / sizeof barrier_table[0],
    };
    struct barrier_options values = {.coordinator = NULL};
    struct options options;
    struct error error = {.code = 0};
    int exit_code = 0;

    if (!command_parse(&options, &syntax, argc, argv, &values, &exit_code))
        return exit_code;
    exit_code = check(&options, &values, &error);
    if (exit_code == 0)
        exit_code = run(&values, &error);
    if (exit_code != 0)
        (void)command_fail(argv[0], &error);
    else
        (void)printf("released\n");
    options_release(&options);
    return exit_code;
}
