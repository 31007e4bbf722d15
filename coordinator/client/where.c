#include "client/where.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FILE_BYTES = 2048 };

/* A file of /proc/self/task/TID; false when it may not be read, or is empty. */
static bool read_file(uint32_t thread, const char *name, char text[FILE_BYTES])
{
    char path[64];
    ssize_t got;
    int file;

    (void)snprintf(path, sizeof path, "/proc/self/task/%u/%s", thread, name);
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    got = read(file, text, FILE_BYTES - 1);
    (void)close(file);
    text[got > 0 ? got : 0] = '\0';
    return got > 0;
}

static bool of_every_call(const char *frame, size_t bytes)
{
    static const char *const names[] = {"do_syscall_64", "entry_SYSCALL_64_after_hwframe",
                                        "do_el0_svc",    "el0_svc",
                                        "invoke_syscall", "el0t_64_sync"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strncmp(frame, names[i], strlen(names[i])) == 0 && strlen(names[i]) <= bytes)
            return true;
    return false;
}

void where_frames(const char *stack, char *text, size_t text_bytes)
{
    size_t used = 0;

    text[0] = '\0';
    for (const char *line = stack; line != NULL && line[0] != '\0';) {
        const char *frame = strstr(line, "] "), *end = strchr(line, '\n');
        size_t bytes;

        frame = frame != NULL && (end == NULL || frame < end) ? frame + 2 : line;
        bytes = strcspn(frame, "+\n");
        if (bytes > 0 && !of_every_call(frame, bytes)) {
            int done = snprintf(text + used, text_bytes - used, "%s%.*s", used > 0 ? " < " : "",
                                (int)bytes, frame);

            if (done < 0 || (size_t)done >= text_bytes - used) {
                text[used] = '\0'; /* whole names only */
                return;
            }
            used += (size_t)done;
        }
        line = end != NULL ? end + 1 : NULL;
    }
}

const char *where_call(const char *syscall)
{
    static const struct {
        long number;
        const char *name;
    } calls[] = {
        {SYS_futex, "futex"},           {SYS_read, "read"},
        {SYS_write, "write"},           {SYS_recvfrom, "recvfrom"},
        {SYS_recvmsg, "recvmsg"},       {SYS_sendto, "sendto"},
        {SYS_sendmsg, "sendmsg"},       {SYS_epoll_pwait, "epoll_pwait"},
        {SYS_ppoll, "ppoll"},           {SYS_pselect6, "pselect"},
        {SYS_nanosleep, "nanosleep"},   {SYS_clock_nanosleep, "clock_nanosleep"},
        {SYS_accept4, "accept"},        {SYS_connect, "connect"},
        {SYS_ioctl, "ioctl"},           {SYS_fsync, "fsync"},
        {SYS_openat, "openat"},         {SYS_wait4, "wait4"},
        {SYS_io_uring_enter, "io_uring"}, {SYS_sched_yield, "sched_yield"},
#ifdef SYS_epoll_wait
        {SYS_epoll_wait, "epoll_wait"},
#endif
#ifdef SYS_poll
        {SYS_poll, "poll"},
#endif
#ifdef SYS_select
        {SYS_select, "select"},
#endif
#ifdef SYS_pause
        {SYS_pause, "pause"},
#endif
    };
    char *end;
    long number = strtol(syscall, &end, 10);

    for (size_t i = 0; end != syscall && i < sizeof calls / sizeof calls[0]; i++)
        if (calls[i].number == number)
            return calls[i].name;
    return "";
}

/* The letter after the name in parentheses. */
static const char *state_word(const char *stat)
{
    const char *end = strrchr(stat, ')');
    char letter = end != NULL && end[1] == ' ' ? end[2] : '?';

    switch (letter) {
    case 'R':
        return "runs";
    case 'S':
        return "sleeps";
    case 'D':
        return "sleeps, not to be woken";
    case 'T':
    case 't':
        return "is stopped";
    default:
        return "is in an unknown state";
    }
}

void where_thread(uint32_t thread, char text[WHERE_BYTES])
{
    char file[FILE_BYTES], frames[WHERE_BYTES] = "", call[32] = "";
    const char *state;

    text[0] = '\0';
    if (thread == 0 || !read_file(thread, "stat", file))
        return;
    state = state_word(file);
    if (read_file(thread, "syscall", file))
        (void)snprintf(call, sizeof call, "%s", where_call(file));
    if (read_file(thread, "stack", file))
        where_frames(file, frames, sizeof frames - 80);
    else if (read_file(thread, "wchan", file) && strcmp(file, "0") != 0)
        (void)snprintf(frames, sizeof frames - 80, "%s", file);
    (void)snprintf(text, WHERE_BYTES, "thread %u %s%s%s%s%s", thread, state,
                   call[0] != '\0' ? " in " : "", call, frames[0] != '\0' ? ": " : "", frames);
}
