/* The one function that makes bytes durable: temporary file, write, fsync, rename, fsync of the
 * folder; it names the step that failed and leaves no temporary file behind. */
#ifndef CKPT_DURABLE_H
#define CKPT_DURABLE_H

#include "ckpt/error.h"

struct ckpt_bytes {
    const void *data; /* the caller's */
    size_t bytes;     /* of data */
};

/* The parts one after another into folder/name. */
enum ckpt_code ckpt_durable_write(const char *folder, const char *name,
                                  const struct ckpt_bytes *parts, size_t count,
                                  struct ckpt_error *error);

/* fsync of a folder, so that names in it are durable. */
enum ckpt_code ckpt_durable_folder(const char *folder, struct ckpt_error *error);

#endif
