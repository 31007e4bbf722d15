/* The worker's training loop: one call trains, alone or as a member of a job. */
#ifndef TRAIN_TRAIN_H
#define TRAIN_TRAIN_H

#include "base/error.h"
#include "train/settings.h"

#include <stdbool.h>

/* Returns an exit code; with one that is not 0 error says why, if there is more to say than was
 * said already. *hung: a computation never ended and still uses what it was given; nothing was
 * cleaned up, and nothing can be done but end the process with _exit(). */
int train(const struct settings *settings, bool *hung, struct error *error);

#endif
