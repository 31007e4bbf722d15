/* Standard descriptors that are missing, and output that cannot be written. Each case is a child of
 * its own: cmocka writes to the same descriptors. */
#include "base/streams.h"

#include "base/exits.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static int end_of(pid_t child)
{
    int status = 0;

    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* Is it /dev/null with that access? */
static bool is_null(int fd, int access)
{
    struct stat there, null;

    return fstat(fd, &there) == 0 && stat("/dev/null", &null) == 0 &&
           there.st_rdev == null.st_rdev && (fcntl(fd, F_GETFL) & O_ACCMODE) == access;
}

/* Bit fd of `closed` says that it is closed before; what is open stays as it is. */
static bool opens_missing(unsigned closed)
{
    struct stat before[3], after;
    bool right = true;

    for (int fd = 0; fd < 3; fd++) {
        right = fstat(fd, &before[fd]) == 0 && right;
        if (closed >> fd & 1)
            (void)close(fd);
    }
    streams_open();
    for (int fd = 0; fd < 3; fd++) {
        if (closed >> fd & 1)
            right = is_null(fd, fd == 0 ? O_RDONLY : O_WRONLY) && right;
        else
            right = fstat(fd, &after) == 0 && after.st_ino == before[fd].st_ino && right;
    }
    return right && open("/dev/null", O_RDONLY) > 2;
}

static void missing_descriptors_are_opened(void **state)
{
    (void)state;
    for (unsigned closed = 0; closed < 8; closed++) {
        pid_t child = fork();

        if (child == 0)
            _exit(opens_missing(closed) ? 0 : 1);
        if (end_of(child) != 0)
            fail_msg("descriptors missing: %x", closed);
    }
}

/* Prints so much to `path`, flushes, and compares the outcome. */
static bool prints(const char *path, size_t bytes, int code, const char *text)
{
    struct error error = {.code = 0, .text = ""};
    int fd = open(path, O_WRONLY);
    bool right = fd >= 0 && dup2(fd, STDOUT_FILENO) == STDOUT_FILENO;

    (void)printf("%*s", (int)bytes, "");
    return right && streams_flush(&error) == code && error.code == code &&
           strncmp(error.text, text, text[0] != '\0' ? strlen(text) : 1) == 0;
}

static void what_cannot_be_written_is_told(void **state)
{
    static const char full[] = "cannot write to stdout: ";
    static const size_t sizes[] = {1, 5000, 300000};

    (void)state;
    for (size_t i = 0; i < 6; i++) {
        bool fails = i < 3;
        pid_t child = fork();

        if (child == 0)
            _exit(prints(fails ? "/dev/full" : "/dev/null", sizes[i % 3],
                         fails ? EXIT_UNAVAILABLE : 0, fails ? full : "")
                      ? 0
                      : 1);
        if (end_of(child) != 0)
            fail_msg("%zu bytes, case %zu", sizes[i % 3], i);
    }
}

static void the_reason_is_the_systems(void **state)
{
    pid_t child = fork();

    (void)state;
    if (child == 0)
        _exit(prints("/dev/full", 1, EXIT_UNAVAILABLE,
                     "cannot write to stdout: No space left on device")
                  ? 0
                  : 1);
    assert_int_equal(end_of(child), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_descriptors_are_opened),
        cmocka_unit_test(what_cannot_be_written_is_told),
        cmocka_unit_test(the_reason_is_the_systems),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
