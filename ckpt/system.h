/* The port to the operating system: everything that this library asks of it to write and to read
 * files, replaceable in tests by one that fails. All calls set errno like the ones they are named
 * after. */
#ifndef CKPT_SYSTEM_H
#define CKPT_SYSTEM_H

#include <stddef.h>
#include <sys/types.h>

struct ckpt_system {
    int (*open)(const char *path, int flags, mode_t mode);
    ssize_t (*pread)(int fd, void *bytes, size_t count, off_t offset);
    ssize_t (*write)(int fd, const void *bytes, size_t count);
    int (*fsync)(int fd);
    int (*close)(int fd);
    int (*rename)(const char *from, const char *to);
    int (*exchange)(const char *a, const char *b); /* both names at once: renameat2(2) */
    int (*mkdir)(const char *path, mode_t mode);
    int (*unlink)(const char *path);
    int (*rmdir)(const char *path);
};

/* The one in use: the real one until a test sets another; NULL = the real one again. Set it while
 * nobody else is in this library. */
const struct ckpt_system *ckpt_system(void);
void ckpt_system_set(const struct ckpt_system *system);

#endif
