/* The worker's training loop: one call trains, alone or as a member of a job. */
#ifndef TRAIN_TRAIN_H
#define TRAIN_TRAIN_H

#include "base/error.h"
#include "train/settings.h"

/* Returns an exit code; with one that is not 0 error says why, if there is more to say than was
 * said already. */
int train(const struct settings *settings, struct error *error);

#endif
