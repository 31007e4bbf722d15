#include "ckpt/durable.h"

#include "ckpt/system.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 4096

static int real_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags, mode);
}

static const struct ckpt_system real_system = {real_open, write, fsync, close,
                                               rename, mkdir, unlink, rmdir};
static const struct ckpt_system *current = &real_system;

const struct ckpt_system *ckpt_system(void)
{
    return current;
}

void ckpt_system_set(const struct ckpt_system *system)
{
    current = system != NULL ? system : &real_system;
}

enum ckpt_code ckpt_fail(struct ckpt_error *error, enum ckpt_code code, const char *format, ...)
{
    va_list arguments;

    error->code = code;
    va_start(arguments, format);
    (void)vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return code;
}

static enum ckpt_code failed(struct ckpt_error *error, const char *step, const char *path)
{
    return ckpt_fail(error, CKPT_SYSTEM, "%s: %s failed: %s", path, step, strerror(errno));
}

static int write_all(int fd, const void *data, size_t bytes)
{
    const char *at = data;

    while (bytes > 0) {
        ssize_t done = current->write(fd, at, bytes);

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
    int fd = current->open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

    if (fd < 0)
        return failed(error, "opening the folder", folder);
    if (current->fsync(fd) != 0) {
        (void)failed(error, "fsync of the folder", folder);
        (void)current->close(fd);
        return CKPT_SYSTEM;
    }
    (void)current->close(fd);
    return CKPT_OK;
}

/* Up to and with fsync; the descriptor is closed either way. */
static enum ckpt_code write_file(const char *path, const struct ckpt_bytes *parts, size_t count,
                                 struct ckpt_error *error)
{
    int fd = current->open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    enum ckpt_code code = CKPT_OK;

    if (fd < 0)
        return failed(error, "creating", path);
    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        if (write_all(fd, parts[i].data, parts[i].bytes) != 0)
            code = failed(error, "writing", path);
    /* After a failed fsync the pages are marked clean and a retry would lie: the file is given up. */
    if (code == CKPT_OK && current->fsync(fd) != 0)
        code = failed(error, "fsync", path);
    if (current->close(fd) != 0 && code == CKPT_OK)
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
    if (code == CKPT_OK && current->rename(temporary, path) != 0)
        code = failed(error, "renaming to its name", path);
    if (code != CKPT_OK) {
        (void)current->unlink(temporary);
        return code;
    }
    return ckpt_durable_folder(folder, error);
}
