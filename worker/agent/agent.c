/* Invariants
 *   1. A process is running (it has a guardian), due (it is started at due_ms), or over (code
 *      stands).
 *   2. While stopping, nothing is due.
 *   3. Whatever way this process ends, the pipes to the guardians close, and they kill what they
 *      guard. */
#include "agent/agent.h"

#include "agent/guardian.h"
#include "agent/lines.h"
#include "base/clock.h"
#include "base/exits.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define NEVER    UINT64_MAX
#define FDS_EACH 4 /* result, out, err, progress */
#define FDS_OWN  3 /* signals, standard output and error */

struct process {
    struct guardian guardian; /* pid 0 = not running */
    struct lines out, err;    /* what it says */
    uint64_t due_ms;          /* when it is to be started; NEVER = it is not */
    uint64_t started_ms;      /* the present run */
    uint64_t restarts_left;
    pid_t group;              /* of the command, told by the guardian; 0 = not yet */
    bool tells;               /* it told of progress once: time alone gives nothing back */
    int code;                 /* of its end for good */
};

struct agent {
    const struct agent_options *options;
    struct process *processes; /* [count], owned */
    struct pollfd *fds;        /* [FDS_OWN + FDS_EACH * count], owned */
    struct sink sinks[2];      /* standard output and error */
    int signals;               /* signalfd, owned; -1 = none */
    sigset_t before;           /* signal mask of the caller */
    bool stopping;
    bool hurried;              /* nobody waits for a reader any more */
    uint64_t kill_ms;          /* when what still runs is killed; NEVER = not set */
    int code;                  /* first that is not 0 */
};

static uint64_t now_ms(void)
{
    return clock_monotonic_us() / 1000;
}

__attribute__((format(printf, 2, 3))) static void say(struct agent *a, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sink_put(&a->sinks[1], a->options->name, text, strlen(text));
}

static uint32_t rank_of(const struct agent *a, const struct process *p)
{
    return (uint32_t)(p - a->processes);
}

/* ---- one process ---------------------------------------------------------------------------- */

/* 0, or a negative errno. */
static int start(struct agent *a, struct process *p)
{
    const struct agent_options *o = a->options;
    char prefix[24] = "";
    int failed = guardian_start(o->argv, rank_of(a, p), o->count, &p->guardian);

    p->due_ms = NEVER;
    if (failed != 0)
        return failed;
    p->started_ms = now_ms();
    if (o->prefix)
        (void)snprintf(prefix, sizeof prefix, "[%u] ", rank_of(a, p));
    if (!lines_open(&p->out, p->guardian.out, &a->sinks[0], prefix))
        failed = -ENOMEM;
    if (!lines_open(&p->err, p->guardian.err, &a->sinks[1], prefix))
        failed = -ENOMEM;
    return failed;
}

/* Its guardian goes with it: nothing of it is left after this, or else that is said. Accepts one
 * that does not run. */
static void reap(struct agent *a, struct process *p)
{
    int status = 0;

    if (p->guardian.pid == 0)
        return;
    (void)close(p->guardian.orders);
    (void)close(p->guardian.result);
    (void)close(p->guardian.progress);
    (void)waitpid(p->guardian.pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == GUARDIAN_LEFT_SOME)
        say(a, "[%u] not all that it started could be killed: some still run", rank_of(a, p));
    lines_close(&p->out);
    lines_close(&p->err);
    p->guardian.pid = 0;
    p->group = 0;
}

/* What the wait status says, as a sentence's end; *code for the shell. */
static void explain(int status, int *code, char *text, size_t text_bytes)
{
    if (WIFSIGNALED(status)) {
        *code = 128 + WTERMSIG(status);
        (void)snprintf(text, text_bytes, "was killed by signal %d (%s)", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    } else {
        *code = WEXITSTATUS(status);
        (void)snprintf(text, text_bytes, "ended with %d", *code);
    }
}

static bool again(struct agent *a, struct process *p, int status)
{
    const struct agent_options *o = a->options;
    bool timed = o->refill_ms > 0 && !p->tells;

    p->restarts_left += timed ? (now_ms() - p->started_ms) / o->refill_ms : 0;
    if (p->restarts_left > o->restarts)
        p->restarts_left = o->restarts;
    if (a->stopping || p->restarts_left == 0)
        return false;
    return WIFSIGNALED(status) || WEXITSTATUS(status) == EXIT_RETRY;
}

static void ended(struct agent *a, struct process *p, int status)
{
    char text[100];
    int code;

    reap(a, p);
    explain(status, &code, text, sizeof text);
    if (again(a, p, status)) {
        p->restarts_left--;
        p->due_ms = now_ms() + a->options->backoff_ms;
        say(a, "[%u] %s: it is started again (%llu restarts left)", rank_of(a, p), text,
            (unsigned long long)p->restarts_left);
        return;
    }
    p->code = code;
    if (a->code == 0)
        a->code = code;
    if (code != 0)
        say(a, "[%u] %s%s", rank_of(a, p), text,
            code == EXIT_RETRY && !a->stopping ? ", and no restart is left" : "");
}

/* The guardian wrote the group or the status, or was killed itself: its command went with it, and
 * what that had started goes now. */
static void take_result(struct agent *a, struct process *p)
{
    int number;

    if (read(p->guardian.result, &number, sizeof number) != sizeof number) {
        if (p->group != 0)
            (void)kill(-p->group, SIGKILL);
        number = SIGKILL;
    } else if (p->group == 0) {
        p->group = number;
        return;
    }
    ended(a, p, number);
}

/* A step was finished: all restarts are back. At the end of the pipe nobody can tell any more. */
static void take_progress(struct agent *a, struct process *p)
{
    char steps[4096];
    ssize_t n = read(p->guardian.progress, steps, sizeof steps);

    if (n > 0) {
        p->tells = true;
        p->restarts_left = a->options->restarts;
    } else if (n == 0) {
        (void)close(p->guardian.progress);
        p->guardian.progress = -1;
    }
}

/* ---- all of them ---------------------------------------------------------------------------- */

static void order_all(struct agent *a, int number)
{
    unsigned char order = (unsigned char)number;

    for (uint32_t i = 0; i < a->options->count; i++)
        if (a->processes[i].guardian.pid != 0) {
            (void)!write(a->processes[i].guardian.orders, &order, 1);
            (void)kill(a->processes[i].guardian.pid, SIGCONT); /* should somebody have stopped it */
        }
}

static void on_signal(struct agent *a)
{
    struct signalfd_siginfo info;

    if (read(a->signals, &info, sizeof info) != sizeof info)
        return;
    if (a->stopping) {
        order_all(a, SIGKILL);
        a->hurried = true;
        return;
    }
    a->stopping = true;
    a->kill_ms = now_ms() + a->options->grace_ms;
    for (uint32_t i = 0; i < a->options->count; i++)
        a->processes[i].due_ms = NEVER;
    order_all(a, SIGTERM);
}

/* Starts who is due, kills when the grace is over. False: one could not be started. */
static bool keep_time(struct agent *a, struct error *error)
{
    uint64_t now = now_ms();

    if (now >= a->kill_ms) {
        say(a, "what still runs after %.1f s is killed", (double)a->options->grace_ms / 1000);
        order_all(a, SIGKILL);
        a->hurried = true;
        a->kill_ms = NEVER;
    }
    for (uint32_t i = 0; i < a->options->count; i++) {
        struct process *p = &a->processes[i];
        int failed = now >= p->due_ms ? start(a, p) : 0;

        if (failed != 0) {
            (void)error_set(error, EXIT_UNAVAILABLE, "process %u could not be started: %s", i,
                            strerror(-failed));
            return false;
        }
    }
    return true;
}

/* Milliseconds that poll() may wait; *running: processes that run or will. */
static int patience_ms(const struct agent *a, uint32_t *running)
{
    uint64_t next = a->kill_ms, now = now_ms();

    *running = 0;
    for (uint32_t i = 0; i < a->options->count; i++) {
        const struct process *p = &a->processes[i];

        *running += p->guardian.pid != 0 || p->due_ms != NEVER;
        if (p->due_ms < next)
            next = p->due_ms;
    }
    if (next == NEVER)
        return -1;
    return next <= now ? 0 : next - now > 60000 ? 60000 : (int)(next - now);
}

static void fill_fds(struct agent *a)
{
    a->fds[0] = (struct pollfd){a->signals, POLLIN, 0};
    for (uint32_t i = 0; i < 2; i++)
        a->fds[1 + i] = (struct pollfd){a->sinks[i].used > 0 ? a->sinks[i].to : -1, POLLOUT, 0};
    for (uint32_t i = 0; i < a->options->count; i++) {
        const struct process *p = &a->processes[i];
        struct pollfd *fds = &a->fds[FDS_OWN + FDS_EACH * i];
        bool runs = p->guardian.pid != 0;

        fds[0] = (struct pollfd){runs ? p->guardian.result : -1, POLLIN, 0};
        fds[1] = (struct pollfd){runs && !sink_full(&a->sinks[0]) ? p->out.from : -1, POLLIN, 0};
        fds[2] = (struct pollfd){runs && !sink_full(&a->sinks[1]) ? p->err.from : -1, POLLIN, 0};
        fds[3] = (struct pollfd){runs ? p->guardian.progress : -1, POLLIN, 0};
    }
}

static void look(struct agent *a)
{
    for (uint32_t i = 0; i < a->options->count; i++) {
        const struct pollfd *fds = &a->fds[FDS_OWN + FDS_EACH * i];
        struct process *p = &a->processes[i];

        if (fds[1].revents != 0)
            lines_pass(&p->out);
        if (fds[2].revents != 0)
            lines_pass(&p->err);
        if (fds[3].revents != 0)
            take_progress(a, p);
        if (fds[0].revents != 0)
            take_result(a, p);
    }
    if (a->fds[0].revents != 0)
        on_signal(a);
}

/* ---- from beginning to end ------------------------------------------------------------------ */

static int agent_open(struct agent *a, const struct agent_options *options, struct error *error)
{
    sigset_t set;

    *a = (struct agent){.options = options,
                        .signals = -1,
                        .kill_ms = NEVER,
                        .sinks = {{.to = STDOUT_FILENO}, {.to = STDERR_FILENO}}};
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &set, &a->before);
    a->signals = signalfd(-1, &set, SFD_CLOEXEC);
    a->processes = calloc(options->count, sizeof *a->processes);
    a->fds = calloc(FDS_OWN + (size_t)FDS_EACH * options->count, sizeof *a->fds);
    if (a->signals < 0 || a->processes == NULL || a->fds == NULL)
        return error_set(error, EXIT_UNAVAILABLE, "no memory or descriptor for %u processes",
                         options->count);
    for (uint32_t i = 0; i < options->count; i++) {
        a->processes[i].restarts_left = options->restarts;
        a->processes[i].out.from = a->processes[i].err.from = -1;
    }
    return 0;
}

static void agent_close(struct agent *a)
{
    for (uint32_t i = 0; a->processes != NULL && i < a->options->count; i++)
        reap(a, &a->processes[i]);
    if (a->signals >= 0)
        (void)close(a->signals);
    for (uint32_t i = 0; i < 2; i++) {
        sink_flush(&a->sinks[i]);
        sink_release(&a->sinks[i]);
    }
    free(a->processes);
    free(a->fds);
    (void)sigprocmask(SIG_SETMASK, &a->before, NULL);
}

int agent_run(const struct agent_options *options, struct error *error)
{
    struct agent a;
    int code = agent_open(&a, options, error);

    while (code == 0) {
        uint32_t running;
        int wait_ms;

        if (!keep_time(&a, error)) {
            code = error->code;
            break;
        }
        wait_ms = patience_ms(&a, &running);
        for (uint32_t i = 0; i < 2; i++)
            sink_flush(&a.sinks[i]);
        if (running == 0 && (a.hurried || a.sinks[0].used + a.sinks[1].used == 0))
            break;
        fill_fds(&a);
        if (poll(a.fds, FDS_OWN + (nfds_t)FDS_EACH * options->count, wait_ms) > 0)
            look(&a);
    }
    if (code == 0)
        code = a.code;
    agent_close(&a);
    return code;
}
