/* Optimizers by PyTorch's rules, schedules, and clipping by the norm of the reduced gradient.
 *
 * Everything here is a function of the options, the optimizer step and the reduced gradient, so all
 * replicas compute the same. The update is element-wise: it may be made range by range, in any
 * order. */
#ifndef OPTIM_OPTIM_H
#define OPTIM_OPTIM_H

#include "device/device.h"

struct optim_options {
    enum device_update_kind kind;
    double rate, beta1, beta2, epsilon, decay, momentum;
    bool nesterov;
    double clip_norm;          /* 0 = none */
    enum optim_schedule { OPTIM_CONSTANT, OPTIM_LINEAR, OPTIM_COSINE } schedule;
    uint64_t warmup_steps;
    uint64_t total_steps;      /* of the schedule */
};

/* Learning rate of a step, counted from 0: linear warm-up from rate / warmup, then constant, linear
 * to 0, or half a cosine to 0. */
double optim_rate(const struct optim_options *options, uint64_t step);

/* Norm of gradient / divisor from sums of squares of its blocks, added in order. */
double optim_norm(const double *square_sums, uint64_t count, double divisor);

/* min(1, clip / (norm + 1e-6)), PyTorch's clip_grad_norm_; 1 without clipping. */
float optim_clip(const struct optim_options *options, double norm);

/* The update of one range of step `step` (from 0); the caller fills in the buffers, the divisor and
 * n. */
void optim_update(const struct optim_options *options, uint64_t step, float clip,
                  struct device_update *update);

#endif
