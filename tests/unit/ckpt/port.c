#include "unit/ckpt/port.h"

#include "ckpt/system.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FILES_MAX 1024

struct port port;

static const struct ckpt_system *real;
static char opened[FILES_MAX][160]; /* by descriptor */

/* Is this call refused? Else it is written down. */
static bool refused(enum port_call call, const char *path, const char *to)
{
    bool counted = port.refuse == PORT_ANY || port.refuse == call;

    port.calls += counted;
    if (port.refuse_at != 0 && ((counted && port.calls == port.refuse_at) ||
                                (port.refuse_on && port.calls >= port.refuse_at))) {
        errno = port.with;
        return true;
    }
    if (port.log_count < PORT_LOG_MAX) {
        struct port_row *row = &port.log[port.log_count++];

        row->call = call;
        (void)snprintf(row->path, sizeof row->path, "%s", path);
        (void)snprintf(row->to, sizeof row->to, "%s", to);
    }
    return false;
}

static const char *path_of(int fd)
{
    return fd >= 0 && fd < FILES_MAX ? opened[fd] : "";
}

static int port_open(const char *path, int flags, mode_t mode)
{
    int fd = refused(PORT_OPEN, path, "") ? -1 : real->open(path, flags, mode);

    if (fd >= 0 && fd < FILES_MAX)
        (void)snprintf(opened[fd], sizeof opened[fd], "%s", path);
    return fd;
}

static ssize_t port_pread(int fd, void *bytes, size_t count, off_t offset)
{
    return refused(PORT_PREAD, path_of(fd), "") ? -1 : real->pread(fd, bytes, count, offset);
}

static ssize_t port_write(int fd, const void *bytes, size_t count)
{
    if (refused(PORT_WRITE, path_of(fd), ""))
        return -1;
    return real->write(fd, bytes,
                       port.write_max != 0 && count > port.write_max ? port.write_max : count);
}

/* Written down, and not done: no power fails here, and the tests would wait for the disk. */
static int port_fsync(int fd)
{
    return refused(PORT_FSYNC, path_of(fd), "") ? -1 : 0;
}

/* A descriptor is gone also when close fails. */
static int port_close(int fd)
{
    bool no = refused(PORT_CLOSE, path_of(fd), "");
    int with = errno, result = real->close(fd);

    if (no)
        errno = with;
    return no ? -1 : result;
}

static int port_rename(const char *from, const char *to)
{
    return refused(PORT_RENAME, from, to) ? -1 : real->rename(from, to);
}

static int port_exchange(const char *a, const char *b)
{
    if (port.no_exchange) {
        errno = EINVAL;
        return -1;
    }
    return refused(PORT_EXCHANGE, a, b) ? -1 : real->exchange(a, b);
}

static int port_mkdir(const char *path, mode_t mode)
{
    return refused(PORT_MKDIR, path, "") ? -1 : real->mkdir(path, mode);
}

static int port_unlink(const char *path)
{
    return refused(PORT_UNLINK, path, "") ? -1 : real->unlink(path);
}

static int port_rmdir(const char *path)
{
    return refused(PORT_RMDIR, path, "") ? -1 : real->rmdir(path);
}

void port_begin(void)
{
    static const struct ckpt_system system = {
        .open = port_open,
        .pread = port_pread,
        .write = port_write,
        .fsync = port_fsync,
        .close = port_close,
        .rename = port_rename,
        .exchange = port_exchange,
        .mkdir = port_mkdir,
        .unlink = port_unlink,
        .rmdir = port_rmdir,
    };

    memset(&port, 0, sizeof port);
    ckpt_system_set(NULL);
    real = ckpt_system();
    ckpt_system_set(&system);
}

void port_refuse(enum port_call call, unsigned at, bool on, int with)
{
    port_begin();
    port.refuse = call;
    port.refuse_at = at;
    port.refuse_on = on;
    port.with = with;
}

void port_end(void)
{
    ckpt_system_set(NULL);
}
