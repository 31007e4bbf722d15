#include "optim/optim.h"

#include <math.h>
#include <string.h>

double optim_rate(const struct optim_options *o, uint64_t step)
{
    double span, done;

    if (step < o->warmup_steps)
        return o->rate * (double)(step + 1) / (double)o->warmup_steps;
    if (o->schedule == OPTIM_CONSTANT || o->total_steps <= o->warmup_steps)
        return o->rate;
    span = (double)(o->total_steps - o->warmup_steps);
    done = (double)(step - o->warmup_steps) / span;
    if (done > 1)
        done = 1;
    return o->schedule == OPTIM_LINEAR ? o->rate * (1 - done)
                                       : o->rate * 0.5 * (1 + cos(3.14159265358979323846 * done));
}

double optim_norm(const double *square_sums, uint64_t count, double divisor)
{
    double sum = 0;

    for (uint64_t i = 0; i < count; i++)
        sum += square_sums[i];
    return sqrt(sum) / divisor;
}

float optim_clip(const struct optim_options *o, double norm)
{
    double factor = o->clip_norm / (norm + 1e-6);

    return o->clip_norm > 0 && factor < 1 ? (float)factor : 1.0f;
}

void optim_update(const struct optim_options *o, uint64_t step, float clip,
                  struct device_update *update)
{
    memset(update, 0, sizeof *update);
    update->kind = o->kind;
    update->clip = clip;
    update->rate = optim_rate(o, step);
    update->beta1 = o->beta1;
    update->beta2 = o->beta2;
    update->epsilon = o->epsilon;
    update->decay = o->decay;
    update->momentum = o->momentum;
    update->nesterov = o->nesterov;
    update->step = step + 1;
}
