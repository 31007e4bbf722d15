/* After a failure of any step the file is given up and its temporary name removed: nothing is tried
 * twice, since a second fsync would report success for pages that never reached the disk. */
#include "ckpt/durable.h"

#include "ckpt/system.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define PATH_BYTES 4096

static enum ckpt_code failed(struct ckpt_error *error, const char *step, const char *path)
{
    return ckpt_fail(error, CKPT_SYSTEM, "%s: %s failed: %s", ckpt_tail(path), step,
                     strerror(errno));
}

static int write_all(int fd, const void *data, size_t bytes)
{
    const char *at = data;

    while (bytes > 0) {
        ssize_t done = ckpt_system()->write(fd, at, bytes);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            errno = done == 0 ? ENOSPC : errno;
            return -1;
        }
        at += done;
        bytes -= (size_t)done;
    }
    return 0;
}

enum ckpt_code ckpt_durable_folder(const char *folder, struct ckpt_error *error)
{
    int fd = ckpt_system()->open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

    if (fd < 0)
        return failed(error, "opening the folder", folder);
    if (ckpt_system()->fsync(fd) != 0) {
        (void)failed(error, "fsync of the folder", folder);
        (void)ckpt_system()->close(fd);
        return CKPT_SYSTEM;
    }
    (void)ckpt_system()->close(fd);
    return CKPT_OK;
}

/* Up to and with fsync; the descriptor is closed either way. */
static enum ckpt_code write_file(const char *path, const struct ckpt_bytes *parts, size_t count,
                                 struct ckpt_error *error)
{
    int fd = ckpt_system()->open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    enum ckpt_code code = CKPT_OK;

    if (fd < 0)
        return failed(error, "creating", path);
    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        if (write_all(fd, parts[i].data, parts[i].bytes) != 0)
            code = failed(error, "writing", path);
    if (code == CKPT_OK && ckpt_system()->fsync(fd) != 0)
        code = failed(error, "fsync", path);
    if (ckpt_system()->close(fd) != 0 && code == CKPT_OK)
        code = failed(error, "closing", path);
    return code;
}

enum ckpt_code ckpt_durable_write(const char *folder, const char *name,
                                  const struct ckpt_bytes *parts, size_t count,
                                  struct ckpt_error *error)
{
    char temporary[PATH_BYTES], path[PATH_BYTES];
    enum ckpt_code code;

    (void)snprintf(temporary, sizeof temporary, "%s/.%s.tmp", folder, name);
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    code = write_file(temporary, parts, count, error);
    if (code == CKPT_OK && ckpt_system()->rename(temporary, path) != 0)
        code = failed(error, "renaming to its name", path);
    if (code != CKPT_OK) {
        (void)ckpt_system()->unlink(temporary);
        return code;
    }
    return ckpt_durable_folder(folder, error);
}
