/* The process between the agent and a command: see guardian.c. */
#ifndef AGENT_GUARDIAN_H
#define AGENT_GUARDIAN_H

#include <sys/types.h>

/* Its exit code when it could not kill all that the command had started. */
#define GUARDIAN_LEFT_SOME 3

/* What the agent holds of it. */
struct guardian {
    pid_t pid;    /* of the guardian; 0 = none */
    int orders;   /* bytes written here are signals for the group; closed: kill all */
    int result;   /* two ints: the command's pid, which is its group, and at its end its status */
    int out, err; /* what the command writes */
    int progress; /* a byte for each step that the command tells of (MUSTER_PROGRESS_FD) */
};

/* 0, or a negative errno. `rank` and `count` go into the environment. */
int guardian_start(char *const *argv, unsigned rank, unsigned count, struct guardian *guardian);

#endif
