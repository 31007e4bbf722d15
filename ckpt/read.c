#include "ckpt/read.h"

#include "ckpt/system.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES (1u << 30)

static enum ckpt_code refused(const char *path, const char *step, struct ckpt_error *error)
{
    return ckpt_fail(error, CKPT_SYSTEM, "%s: %s failed: %s", ckpt_tail(path), step,
                     strerror(errno));
}

enum ckpt_code read_open(const char *path, int *fd, struct ckpt_error *error)
{
    /* Without O_NONBLOCK a pipe under that name would wait for its writer. */
    *fd = ckpt_system()->open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (*fd == 0) {
        *fd = fcntl(0, F_DUPFD_CLOEXEC, 1);
        (void)ckpt_system()->close(0);
    }
    if (*fd < 0 && errno == ENOENT)
        return ckpt_fail(error, CKPT_FORMAT, "%s: missing", ckpt_tail(path));
    return *fd > 0 ? CKPT_OK : refused(path, "opening", error);
}

void read_close(int fd)
{
    (void)ckpt_system()->close(fd);
}

enum ckpt_code read_size(int fd, const char *path, uint64_t *bytes, struct ckpt_error *error)
{
    struct stat info;

    if (fstat(fd, &info) != 0)
        return refused(path, "asking for its size", error);
    if (!S_ISREG(info.st_mode))
        return ckpt_fail(error, CKPT_FORMAT, "%s: not a file", ckpt_tail(path));
    *bytes = (uint64_t)info.st_size;
    return CKPT_OK;
}

enum ckpt_code read_exactly(int fd, const char *path, void *to, uint64_t bytes, uint64_t at,
                            struct ckpt_error *error)
{
    char *out = to;

    while (bytes > 0) {
        size_t piece = bytes > PIECE_BYTES ? PIECE_BYTES : (size_t)bytes;
        ssize_t got = ckpt_system()->pread(fd, out, piece, (off_t)at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return refused(path, "reading", error);
        if (got == 0)
            return ckpt_fail(error, CKPT_FORMAT, "%s: the file is truncated", ckpt_tail(path));
        out += got;
        at += (uint64_t)got;
        bytes -= (uint64_t)got;
    }
    return CKPT_OK;
}
