/* The last words of a worker that crashes: its recent collectives, on standard error and in the
 * file beside its log. Then the signal does what it would have done.
 *
 * Everything in the handler is async-signal-safe. The first thread that crashes writes; others wait
 * for the end. A second fault in the handler itself ends the process: its signal is blocked. */
#include "train/crash.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STACK_BYTES 65536u

static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

enum { FATAL_COUNT = sizeof fatal / sizeof fatal[0] };

/* What the handler needs, since nothing can be handed to it. */
static struct {
    struct muster *session;               /* NULL = nothing is watched */
    char path[4096];                      /* "" = standard error only */
    struct sigaction before[FATAL_COUNT]; /* what was there: the default, or a sanitizer's */
} crash;

static void restore(void)
{
    for (int i = 0; i < FATAL_COUNT; i++)
        (void)sigaction(fatal[i], &crash.before[i], NULL);
}

static void on_fatal(int number, siginfo_t *info, void *context)
{
    static const char words[] = "muster-worker: a fatal signal; its newest collectives:\n";
    static atomic_flag begun = ATOMIC_FLAG_INIT;
    int file;

    (void)context;
    while (atomic_flag_test_and_set(&begun))
        (void)pause();
    (void)!write(STDERR_FILENO, words, sizeof words - 1);
    muster_ledger_write(crash.session, STDERR_FILENO);
    file = crash.path[0] != '\0'
               ? open(crash.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)
               : -1;
    if (file >= 0) {
        muster_ledger_write(crash.session, file);
        (void)close(file);
    }
    restore();
    if (info->si_code <= 0)
        (void)raise(number); /* sent by somebody; a fault happens again by itself */
}

void crash_watch(struct muster *session, const char *log)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fatal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    (void)sigemptyset(&action.sa_mask);
    for (int i = 0; i < FATAL_COUNT; i++)
        (void)sigaddset(&action.sa_mask, fatal[i]);
    crash.path[0] = '\0';
    if (log != NULL && strlen(log) + sizeof ".ledger" <= sizeof crash.path)
        (void)snprintf(crash.path, sizeof crash.path, "%s.ledger", log);
    crash.session = session;
    for (int i = 0; i < FATAL_COUNT; i++)
        (void)sigaction(fatal[i], &action, &crash.before[i]);
}

void crash_unwatch(void)
{
    if (crash.session == NULL)
        return;
    restore();
    crash.session = NULL;
}

void *crash_stack(void)
{
    stack_t stack = {.ss_size = STACK_BYTES}, before;

    if (sigaltstack(NULL, &before) != 0 || (before.ss_flags & SS_DISABLE) == 0)
        return NULL; /* somebody else's, a sanitizer's say, is as good */
    stack.ss_sp = malloc(STACK_BYTES);
    if (stack.ss_sp != NULL && sigaltstack(&stack, NULL) != 0) {
        free(stack.ss_sp);
        return NULL;
    }
    return stack.ss_sp;
}

void crash_stack_free(void *memory)
{
    stack_t none = {.ss_flags = SS_DISABLE};

    if (memory == NULL)
        return;
    (void)sigaltstack(&none, NULL);
    free(memory);
}
