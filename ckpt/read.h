/* Reading files through the port, with sentences. Private to this library. */
#ifndef CKPT_READ_H
#define CKPT_READ_H

#include "ckpt/error.h"

#include <stdint.h>

/* For reading; *fd is never 0, so that 0 can mean "not open". A file that is missing is
 * CKPT_FORMAT. */
enum ckpt_code read_open(const char *path, int *fd, struct ckpt_error *error);
void read_close(int fd);

enum ckpt_code read_size(int fd, const char *path, uint64_t *bytes, struct ckpt_error *error);

/* An end before that is CKPT_FORMAT. */
enum ckpt_code read_exactly(int fd, const char *path, void *to, uint64_t bytes, uint64_t at,
                            struct ckpt_error *error);

#endif
