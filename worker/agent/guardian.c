/* A guardian forks the command into a process group of its own and waits for one of two things: the
 * command ends (its group is killed, its status written to the agent), or the agent does (the pipe
 * of orders closes, and the group is killed). It is in a session of its own, so that Ctrl-C at a
 * terminal goes to the agent alone.
 *
 * It is forked without exec, so between fork() and _exit() only async-signal-safe functions are
 * called. */
#include "agent/guardian.h"

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
#include <unistd.h>

enum { PIPE_ORDERS, PIPE_RESULT, PIPE_OUT, PIPE_ERR, PIPE_COUNT };

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

static void run_command(char *const *argv, char **environment, int out, int err)
{
    static const char text[] = "muster run: the command could not be started: ";
    sigset_t none;
    int saved, nothing = open("/dev/null", O_RDONLY);

    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* should somebody kill the guardian */
    if (nothing >= 0)
        (void)dup2(nothing, STDIN_FILENO);
    if (dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
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

/* Forwards orders until the command ends; true when it did, false when the agent is gone. */
static bool watch(pid_t command, int orders, int *status)
{
    sigset_t child, before;

    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &child, &before);
    (void)sigdelset(&before, SIGCHLD);
    for (;;) {
        struct pollfd fd = {orders, POLLIN, 0};
        unsigned char order;
        ssize_t n;

        if (waitpid(command, status, WNOHANG) == command)
            return true;
        if (ppoll(&fd, 1, NULL, &before) <= 0)
            continue; /* SIGCHLD */
        n = read(orders, &order, 1);
        if (n == 0)
            return false;
        if (n == 1)
            (void)kill(-command, order);
    }
}

/* Pipes to other guardians, above all: as long as one end is open here, another would not see the
 * agent go. */
static void close_others(int ends[PIPE_COUNT][2])
{
    long limit = sysconf(_SC_OPEN_MAX);

    for (int fd = 3; fd < (limit > 0 && limit < 65536 ? limit : 65536); fd++)
        if (fd != ends[PIPE_ORDERS][0] && fd != ends[PIPE_RESULT][1] && fd != ends[PIPE_OUT][1] &&
            fd != ends[PIPE_ERR][1])
            (void)close(fd);
}

static void guard(char *const *argv, char **environment, int ends[PIPE_COUNT][2])
{
    int status = 0;
    pid_t command;

    (void)setsid();
    for (int number = 1; number < 32; number++)
        (void)signal(number, number == SIGCHLD ? on_child : SIG_IGN);
    close_others(ends);
    command = fork();
    if (command == 0)
        run_command(argv, environment, ends[PIPE_OUT][1], ends[PIPE_ERR][1]);
    if (command < 0)
        _exit(126);
    (void)setpgid(command, command); /* here too: whoever comes first */
    (void)close(ends[PIPE_OUT][1]);
    (void)close(ends[PIPE_ERR][1]);
    if (watch(command, ends[PIPE_ORDERS][0], &status)) {
        (void)kill(-command, SIGKILL); /* what it left behind */
        (void)!write(ends[PIPE_RESULT][1], &status, sizeof status);
        _exit(0);
    }
    (void)kill(-command, SIGKILL);
    (void)waitpid(command, &status, 0);
    _exit(1);
}

/* ---- in the agent's process ----------------------------------------------------------------- */

/* A copy of the environment with two more entries; one block, freed as a whole. */
static char **environment_new(unsigned rank, unsigned count)
{
    enum { ENTRY_BYTES = 40 };
    size_t entries = 0, kept = 0;
    char **copy, *text;

    while (environ[entries] != NULL)
        entries++;
    copy = malloc((entries + 3) * sizeof *copy + 2 * ENTRY_BYTES);
    if (copy == NULL)
        return NULL;
    text = (char *)&copy[entries + 3];
    for (size_t i = 0; i < entries; i++)
        if (strncmp(environ[i], "LOCAL_RANK=", 11) != 0 &&
            strncmp(environ[i], "LOCAL_WORLD_SIZE=", 17) != 0)
            copy[kept++] = environ[i];
    (void)snprintf(text, ENTRY_BYTES, "LOCAL_RANK=%u", rank);
    copy[kept++] = text;
    (void)snprintf(text + ENTRY_BYTES, ENTRY_BYTES, "LOCAL_WORLD_SIZE=%u", count);
    copy[kept++] = text + ENTRY_BYTES;
    copy[kept] = NULL;
    return copy;
}

int guardian_start(char *const *argv, unsigned rank, unsigned count, struct guardian *guardian)
{
    int ends[PIPE_COUNT][2] = {{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
    char **environment = environment_new(rank, count);
    int code = environment == NULL ? -ENOMEM : 0;
    pid_t pid;

    for (int i = 0; i < PIPE_COUNT && code == 0; i++)
        if (pipe2(ends[i], O_CLOEXEC) != 0)
            code = -errno;
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
    *guardian = (struct guardian){pid, ends[PIPE_ORDERS][1], ends[PIPE_RESULT][0],
                                  ends[PIPE_OUT][0], ends[PIPE_ERR][0]};
    ends[PIPE_ORDERS][1] = ends[PIPE_RESULT][0] = ends[PIPE_OUT][0] = ends[PIPE_ERR][0] = -1;
out:
    for (int i = 0; i < PIPE_COUNT; i++)
        close_pair(ends[i]);
    free(environment);
    return code;
}
