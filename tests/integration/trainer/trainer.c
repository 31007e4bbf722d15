/* A trainer as somebody else would write it: a rank, batches, collectives, barriers, by muster.h.
 *
 *   muster_trainer HOST:PORT JOB FOLDER NODE MIN MAX OP..
 *
 *   reduce:NAME:COUNT:DTYPE   an all-reduce, marked in the ledger; bcast:.. a broadcast
 *   barrier:NAME              muster_barrier()
 *   batch                     the next batch begins
 *   compute:MS                so long in MUSTER_PHASE_COMPUTE;  sleep:MS  the same, saying nothing
 *   finish                    says that it is finished, and waits for the end of the job
 *
 * The collective is real: it ends when all ranks of the generation have come to the one with the
 * same number, each by a file in FOLDER. While it waits it hears what the coordinator says, which
 * is printed: "TIME_US EVENT TEXT". A generation that is over begins the ops anew in the next
 * one. */
#include "client/muster.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct trainer {
    struct muster *session;
    struct muster_event *formed;  /* the generation it is in */
    struct muster_position position;
    const char *folder;
    uint64_t batch;
    int op;                       /* its number in the script, from 1 */
    int exit_code;
};

enum outcome { GO_ON, GENERATION_OVER, SESSION_ENDED };

static uint64_t now_us(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void tell(const char *event, const char *text)
{
    (void)printf("%llu %s %s\n", (unsigned long long)now_us(), event, text);
    (void)fflush(stdout);
}

static void pause_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};

    (void)nanosleep(&time, NULL);
}

/* What was said meanwhile; waits for it for so long. */
static enum outcome listen_to(struct trainer *t, int timeout_ms)
{
    struct muster_event *event;
    enum outcome outcome = GO_ON;

    if (muster_next(t->session, timeout_ms, &event) != MUSTER_OK)
        return GO_ON;
    if (event->type == MUSTER_VERDICT || event->type == MUSTER_OVER ||
        event->type == MUSTER_ENDED || event->type == MUSTER_DONE)
        tell(muster_event_name(event->type), event->text);
    if (event->type == MUSTER_OVER)
        outcome = GENERATION_OVER;
    if (event->type == MUSTER_ENDED || event->type == MUSTER_DONE) {
        outcome = SESSION_ENDED;
        t->exit_code = event->exit_code;
    }
    muster_event_free(event);
    return outcome;
}

static void file_of(const struct trainer *t, uint64_t seq, uint32_t rank, char path[512])
{
    (void)snprintf(path, 512, "%s/%llu-%llu-%u", t->folder,
                   (unsigned long long)t->position.generation, (unsigned long long)seq, rank);
}

static bool all_are_there(const struct trainer *t, uint64_t seq)
{
    char path[512];

    for (uint32_t rank = 0; rank < t->formed->member_count; rank++) {
        file_of(t, seq, rank, path);
        if (access(path, F_OK) != 0)
            return false;
    }
    return true;
}

/* "NAME:COUNT:DTYPE" */
static enum outcome collective(struct trainer *t, const char *op, char *words)
{
    char place[32], path[512];
    char *name = strtok_r(words, ":", &words), *count = strtok_r(NULL, ":", &words);
    const char *dtype = strtok_r(NULL, ":", &words);
    struct muster_collective what = {.op = op, .name = name, .dtype = dtype, .place = place,
                                     .count = strtoull(count, NULL, 10), .step = t->batch};
    enum outcome outcome = GO_ON;
    uint64_t seq;

    (void)snprintf(place, sizeof place, "script:%d", t->op);
    tell("waits", name);
    seq = muster_collective_enter(t->session, &what);
    file_of(t, seq, t->formed->self, path);
    (void)close(open(path, O_CREAT | O_WRONLY, 0600));
    while (outcome == GO_ON && !all_are_there(t, seq))
        outcome = listen_to(t, 1);
    muster_collective_leave(t->session, seq);
    return outcome;
}

static enum outcome barrier(struct trainer *t, const char *name)
{
    char place[32];
    struct muster_error error;
    enum muster_status status;

    (void)snprintf(place, sizeof place, "script:%d", t->op);
    tell("waits", name);
    status = muster_barrier(t->session, name, place, 30000, &error);
    tell(status == MUSTER_OK ? "released" : "given-up", status == MUSTER_OK ? name : error.text);
    /* MUSTER_ERROR_ENDED: the event says it too */
    return GO_ON;
}

static void progress(const struct trainer *t, enum muster_phase phase)
{
    muster_progress(t->session, &(struct muster_progress){.phase = phase, .applied = t->batch});
}

static enum outcome compute(struct trainer *t, long ms, bool says_so)
{
    uint64_t until_us = now_us() + (uint64_t)ms * 1000;
    enum outcome outcome = GO_ON;

    if (says_so)
        progress(t, MUSTER_PHASE_COMPUTE);
    while (now_us() < until_us && outcome == GO_ON) {
        outcome = listen_to(t, 0);
        pause_ms(1);
    }
    if (says_so)
        progress(t, MUSTER_PHASE_EXCHANGE);
    return outcome;
}

static enum outcome wait_for_the_end(struct trainer *t)
{
    enum outcome outcome = GO_ON;

    while (outcome == GO_ON)
        outcome = listen_to(t, 1000);
    return outcome;
}

static enum outcome run_op(struct trainer *t, const char *text)
{
    char copy[256];
    char *words = copy, *word;

    (void)snprintf(copy, sizeof copy, "%s", text);
    word = strsep(&words, ":");
    if (strcmp(word, "reduce") == 0 || strcmp(word, "bcast") == 0)
        return collective(t, word[0] == 'r' ? "all_reduce" : "broadcast", words);
    if (strcmp(word, "barrier") == 0)
        return barrier(t, words);
    if (strcmp(word, "compute") == 0 || strcmp(word, "sleep") == 0)
        return compute(t, strtol(words, NULL, 10), word[0] == 'c');
    if (strcmp(word, "batch") == 0) {
        t->batch++;
        progress(t, MUSTER_PHASE_EXCHANGE);
    } else if (strcmp(word, "finish") == 0) {
        tell("waits", "the end");
        t->position.step = t->batch;
        (void)muster_finished(t->session, &t->position, 1, 0.5);
        return wait_for_the_end(t);
    }
    return listen_to(t, 0);
}

static enum outcome enter(struct trainer *t)
{
    struct muster_error error;
    char text[32];

    muster_event_free(t->formed);
    t->formed = NULL;
    if (muster_wait_generation(t->session, &t->position, 60000, &t->formed, &error) != MUSTER_OK) {
        tell("ended", error.text);
        t->exit_code = error.exit_code;
        return SESSION_ENDED;
    }
    t->position.generation = t->formed->generation;
    t->position.nonce = t->formed->nonce;
    t->batch = 0;
    progress(t, MUSTER_PHASE_EXCHANGE);
    (void)snprintf(text, sizeof text, "%llu %u %u", (unsigned long long)t->formed->generation,
                   t->formed->self, t->formed->member_count);
    tell("entered", text);
    return GO_ON;
}

static int train(struct trainer *t, int count, char **ops)
{
    enum outcome outcome = enter(t);

    while (outcome != SESSION_ENDED) {
        for (t->op = 1; t->op <= count && outcome == GO_ON; t->op++)
            outcome = run_op(t, ops[t->op - 1]);
        if (outcome == GO_ON) {
            tell("through", "");
            outcome = wait_for_the_end(t);
        }
        if (outcome == GENERATION_OVER)
            outcome = enter(t);
    }
    return t->exit_code;
}

int main(int argc, char **argv)
{
    struct trainer t = {.folder = argc > 3 ? argv[3] : ""};
    struct muster_options options;
    struct muster_error error;
    int exit_code;

    if (argc < 7)
        return 64;
    muster_options_init(&options);
    options.coordinator = argv[1];
    options.job = argv[2];
    options.node = argv[4];
    options.min = (uint32_t)strtoul(argv[5], NULL, 10);
    options.max = (uint32_t)strtoul(argv[6], NULL, 10);
    options.program = "muster_trainer";
    if (muster_open(&options, &t.session, &error) != MUSTER_OK) {
        tell("ended", error.text);
        return error.exit_code;
    }
    exit_code = train(&t, argc - 7, argv + 7);
    muster_event_free(t.formed);
    (void)muster_goodbye(t.session, (uint32_t)exit_code, "", 2000);
    muster_close(t.session);
    return exit_code;
}
