#include "ckpt/system.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int real_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags, mode);
}

static int real_exchange(const char *a, const char *b)
{
    return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}

static const struct ckpt_system real_system = {
    .open = real_open,
    .pread = pread,
    .write = write,
    .fsync = fsync,
    .close = close,
    .rename = rename,
    .exchange = real_exchange,
    .mkdir = mkdir,
    .unlink = unlink,
    .rmdir = rmdir,
};

static const struct ckpt_system *current = &real_system;

const struct ckpt_system *ckpt_system(void)
{
    return current;
}

void ckpt_system_set(const struct ckpt_system *system)
{
    current = system != NULL ? system : &real_system;
}
