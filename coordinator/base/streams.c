#include "base/streams.h"

#include "base/exits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void streams_open(void)
{
    /* In rising order, so that open() gives the number that is missing. Inherited, as the three
     * are. */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY);
}

int streams_flush(struct error *error)
{
    bool lost = ferror(stdout) != 0; /* of an earlier piece, whose reason nobody kept */

    errno = 0;
    if (fflush(stdout) == 0 && !lost)
        return 0;
    return error_set(error, EXIT_UNAVAILABLE, "cannot write to stdout: %s",
                     errno != 0 ? strerror(errno) : "not all of it was taken");
}
