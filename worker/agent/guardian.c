/* A guardian forks the command into a process group of its own and waits for one of two things: the
 * command ends, or the agent does (the pipe of orders closes). Either way it kills the group and
 * then all other descendants, and only after that is the command's status written to the agent. It
 * is in a session of its own, so that Ctrl-C at a terminal goes to the agent alone.
 *
 * setsid() takes a process out of its group, but not from under the guardian, which is the
 * subreaper: whoever loses its parent below it becomes its child. So it kills its children until it
 * has none left.
 *
 * It is forked without exec, so between fork() and _exit() only async-signal-safe functions are
 * called. */
#include "agent/guardian.h"

#include "base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SWEEP_US 10000000 /* SIGKILL takes less, if it takes at all */

enum { PIPE_ORDERS, PIPE_RESULT, PIPE_OUT, PIPE_ERR, PIPE_PROGRESS, PIPE_COUNT };

extern char **environ;

static void close_pair(int pair[2])
{
    for (int i = 0; i < 2; i++) {
        if (pair[i] >= 0)
            (void)close(pair[i]);
        pair[i] = -1;
    }
}

/* ---- in the command's process --------------------------------------------------------------- */

static void run_command(char *const *argv, char **environment, int ends[PIPE_COUNT][2])
{
    static const char text[] = "muster run: the command could not be started: ";
    sigset_t none;
    int saved, nothing = open("/dev/null", O_RDONLY);

    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* should somebody kill the guardian */
    if (nothing >= 0)
        (void)dup2(nothing, STDIN_FILENO);
    if (dup2(ends[PIPE_OUT][1], STDOUT_FILENO) < 0 || dup2(ends[PIPE_ERR][1], STDERR_FILENO) < 0 ||
        fcntl(ends[PIPE_PROGRESS][1], F_SETFD, 0) != 0) /* it alone outlives exec */
        _exit(126);
    for (int number = 1; number < 32; number++)
        (void)signal(number, SIG_DFL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    environ = environment;
    (void)execvp(argv[0], argv);
    saved = errno;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    (void)!write(STDERR_FILENO, argv[0], strlen(argv[0]));
    (void)!write(STDERR_FILENO, "\n", 1);
    _exit(saved == ENOENT ? 127 : 126);
}

/* ---- in the guardian's process -------------------------------------------------------------- */

static void on_child(int number)
{
    (void)number; /* poll() is interrupted, that is all */
}

/* From here on SIGCHLD comes only within ppoll(), under the mask that is returned. */
static sigset_t hold_sigchld(void)
{
    sigset_t child, awake;

    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &child, &awake);
    (void)sigdelset(&awake, SIGCHLD);
    return awake;
}

/* Reaps who has ended: orphans too, which would pile up during a long run. True: the command. */
static bool has_ended(pid_t command, int *status)
{
    int number;
    pid_t pid;

    while ((pid = waitpid(-1, &number, WNOHANG)) > 0)
        if (pid == command) {
            *status = number;
            return true;
        }
    return false;
}

/* Forwards orders until the command ends; true when it did, false when the agent is gone. */
static bool watch(pid_t command, int orders, const sigset_t *awake, int *status)
{
    for (;;) {
        struct pollfd fd = {orders, POLLIN, 0};
        unsigned char order;
        ssize_t n;

        if (has_ended(command, status))
            return true;
        if (ppoll(&fd, 1, NULL, awake) <= 0)
            continue; /* SIGCHLD */
        n = read(orders, &order, 1);
        if (n == 0)
            return false;
        if (n == 1)
            (void)kill(-command, order);
        if (n == 1 && order == SIGTERM)
            (void)kill(-command, SIGCONT); /* one that is stopped would not hear it */
    }
}

/* The number of a process's folder in /proc; 0 for any other name. */
static pid_t pid_of(const char *name)
{
    pid_t pid = 0;

    for (; *name >= '0' && *name <= '9'; name++)
        pid = 10 * pid + (*name - '0');
    return *name == '\0' ? pid : 0;
}

/* waitpid() tells whose children they are. Deeper descendants are left to a later call: only a
 * child's number cannot become that of a stranger before it is reaped here. */
static void kill_children(void)
{
    _Alignas(struct dirent64) char entries[4096];
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ssize_t n;

    if (proc < 0)
        return;
    while ((n = getdents64(proc, entries, sizeof entries)) > 0)
        for (ssize_t at = 0; at < n;) {
            const struct dirent64 *entry = (const void *)(entries + at);
            pid_t pid = pid_of(entry->d_name);

            if (pid > 0 && waitpid(pid, NULL, WNOHANG) == 0)
                (void)kill(pid, SIGKILL);
            at += entry->d_reclen;
        }
    (void)close(proc);
}

/* Kills and reaps all descendants. False: some live on, such as those of another user. */
static bool sweep(const sigset_t *awake)
{
    const struct timespec pause = {0, 100000000};
    uint64_t until_us = clock_monotonic_us() + SWEEP_US;

    for (;;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);

        if (pid < 0)
            return true; /* ECHILD */
        if (clock_monotonic_us() >= until_us)
            return false;
        if (pid > 0)
            continue;
        kill_children();
        (void)ppoll(NULL, 0, &pause, awake); /* until one has ended, which may leave orphans here */
    }
}

/* Pipes to other guardians, above all: as long as one end is open here, another would not see the
 * agent go. */
static void close_others(int ends[PIPE_COUNT][2])
{
    long limit = sysconf(_SC_OPEN_MAX);

    for (int fd = 3; fd < (limit > 0 && limit < 65536 ? limit : 65536); fd++)
        if (fd != ends[PIPE_ORDERS][0] && fd != ends[PIPE_RESULT][1] && fd != ends[PIPE_OUT][1] &&
            fd != ends[PIPE_ERR][1] && fd != ends[PIPE_PROGRESS][1])
            (void)close(fd);
}

static void guard(char *const *argv, char **environment, int ends[PIPE_COUNT][2])
{
    sigset_t awake;
    bool by_itself, swept;
    int status = 0;
    pid_t command;

    (void)setsid();
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (int number = 1; number < 32; number++)
        (void)signal(number, number == SIGCHLD ? on_child : SIG_IGN);
    close_others(ends);
    command = fork();
    if (command == 0)
        run_command(argv, environment, ends);
    if (command < 0)
        _exit(126);
    (void)setpgid(command, command); /* here too: whoever comes first */
    (void)!write(ends[PIPE_RESULT][1], &command, sizeof command);
    (void)close(ends[PIPE_OUT][1]);
    (void)close(ends[PIPE_ERR][1]);
    (void)close(ends[PIPE_PROGRESS][1]);
    awake = hold_sigchld();
    by_itself = watch(command, ends[PIPE_ORDERS][0], &awake, &status);
    (void)kill(-command, SIGKILL); /* all at once, so that none can fork away from the sweep */
    swept = sweep(&awake);
    if (by_itself)
        (void)!write(ends[PIPE_RESULT][1], &status, sizeof status);
    _exit(swept ? 0 : GUARDIAN_LEFT_SOME);
}

/* ---- in the agent's process ----------------------------------------------------------------- */

static bool is_ours(const char *entry)
{
    return strncmp(entry, "LOCAL_RANK=", 11) == 0 || strncmp(entry, "LOCAL_WORLD_SIZE=", 17) == 0 ||
           strncmp(entry, "MUSTER_PROGRESS_FD=", 19) == 0;
}

/* A copy of the environment with three more entries; one block, freed as a whole. */
static char **environment_new(unsigned rank, unsigned count, int progress)
{
    enum { ENTRY_BYTES = 40, OURS = 3 };
    size_t entries = 0, kept = 0;
    char **copy, *text;

    while (environ[entries] != NULL)
        entries++;
    copy = malloc((entries + OURS + 1) * sizeof *copy + OURS * ENTRY_BYTES);
    if (copy == NULL)
        return NULL;
    text = (char *)&copy[entries + OURS + 1];
    for (size_t i = 0; i < entries; i++)
        if (!is_ours(environ[i]))
            copy[kept++] = environ[i];
    for (size_t i = 0; i < OURS; i++)
        copy[kept + i] = text + i * ENTRY_BYTES;
    (void)snprintf(copy[kept++], ENTRY_BYTES, "LOCAL_RANK=%u", rank);
    (void)snprintf(copy[kept++], ENTRY_BYTES, "LOCAL_WORLD_SIZE=%u", count);
    (void)snprintf(copy[kept++], ENTRY_BYTES, "MUSTER_PROGRESS_FD=%d", progress);
    copy[kept] = NULL;
    return copy;
}

int guardian_start(char *const *argv, unsigned rank, unsigned count, struct guardian *guardian)
{
    int ends[PIPE_COUNT][2];
    char **environment = NULL;
    int code = 0;
    pid_t pid;

    memset(ends, -1, sizeof ends);
    for (int i = 0; i < PIPE_COUNT && code == 0; i++)
        if (pipe2(ends[i], i == PIPE_PROGRESS ? O_CLOEXEC | O_NONBLOCK : O_CLOEXEC) != 0)
            code = -errno;
    if (code == 0)
        environment = environment_new(rank, count, ends[PIPE_PROGRESS][1]);
    if (code == 0 && environment == NULL)
        code = -ENOMEM;
    if (code != 0)
        goto out;
    (void)fflush(NULL);
    pid = fork();
    if (pid == 0)
        guard(argv, environment, ends);
    if (pid < 0) {
        code = -errno;
        goto out;
    }
    *guardian = (struct guardian){pid,
                                  ends[PIPE_ORDERS][1],
                                  ends[PIPE_RESULT][0],
                                  ends[PIPE_OUT][0],
                                  ends[PIPE_ERR][0],
                                  ends[PIPE_PROGRESS][0]};
    ends[PIPE_ORDERS][1] = ends[PIPE_RESULT][0] = ends[PIPE_OUT][0] = ends[PIPE_ERR][0] = -1;
    ends[PIPE_PROGRESS][0] = -1;
out:
    for (int i = 0; i < PIPE_COUNT; i++)
        close_pair(ends[i]);
    free(environment);
    return code;
}
