#include "base/streams.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void streams_open(void)
{
    /* In rising order, so that open() gives the number that is missing. It is meant to be inherited,
     * as the three are. */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY);
}
