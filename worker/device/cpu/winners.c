/* Backward of a 3x3 convolution whose map went through ReLU and a 2x2 maximum: of four places of a
 * window at most one, the winner, has a gradient, and none where ReLU let nothing through. So the
 * work goes from winner to winner, a fifth of what the whole map would take. Compiled twice:
 * BLOCK = 8 for AVX2, 16 for AVX-512.
 *
 * Order of additions (it defines the bits): per picture over blocks of output channels, in each
 * over its channels, in each over windows row by row, fused. */
#include "cpu.h"
#include "vector.h"

#include <string.h>

#define BACKWARD JOIN(JOIN(winners, BLOCK), _backward)
#define TAPS     9

/* The winners of one picture in one block of output channels: by channel, in the order of their
 * windows. */
static void collect(const struct winners *s, const float *dy, const int32_t *winner,
                    struct winner *list, uint32_t count[BLOCK])
{
    uint32_t pw = (s->width - 2) / 2, windows = (s->height - 2) / 2 * pw;
    const uint32_t place[5] = {0, 1, s->width, s->width + 1, 0};

    memset(count, 0, BLOCK * sizeof *count);
    for (uint32_t i = 0; i < windows; i++) {
        uint32_t corner = 2 * (i / pw) * s->width + 2 * (i % pw);

        for (uint32_t v = 0; v < BLOCK; v++) {
            int32_t at = winner[i * BLOCK + v];
            struct winner *next = &list[v * windows + count[v]];

            next->at = (corner + place[at]) * BLOCK;
            next->gradient = dy[i * BLOCK + v];
            count[v] += at != 4; /* else the next one is written over it */
        }
    }
}

/* What one output channel's winners add to its weights of one block of input channels. */
static void add_weights(const struct winner *list, uint32_t count, const float *x, uint32_t row,
                        float *dweights)
{
    vector sum[TAPS];

#pragma GCC unroll 9
    for (uint32_t t = 0; t < TAPS; t++)
        sum[t] = get(dweights + t * BLOCK);
    for (uint32_t i = 0; i < count; i++) {
        const float *from = x + list[i].at;
        vector g = every(list[i].gradient);

#pragma GCC unroll 9
        for (uint32_t t = 0; t < TAPS; t++)
            sum[t] = fused(g, get(from + t / 3 * row + t % 3 * BLOCK), sum[t]);
    }
#pragma GCC unroll 9
    for (uint32_t t = 0; t < TAPS; t++)
        put(dweights + t * BLOCK, sum[t]);
}

/* And to the gradient of that block of the input. */
static void add_input(const struct winner *list, uint32_t count, const float *weights, uint32_t row,
                      float *dx)
{
    vector w[TAPS];

#pragma GCC unroll 9
    for (uint32_t t = 0; t < TAPS; t++)
        w[t] = get(weights + t * BLOCK);
    for (uint32_t i = 0; i < count; i++) {
        float *to = dx + list[i].at;
        vector g = every(list[i].gradient);

#pragma GCC unroll 9
        for (uint32_t t = 0; t < TAPS; t++) {
            float *place = to + t / 3 * row + t % 3 * BLOCK;

            put(place, fused(g, w[t], get(place)));
        }
    }
}

static float sum_of(const struct winner *list, uint32_t count)
{
    float sum = 0;

    for (uint32_t i = 0; i < count; i++)
        sum += list[i].gradient;
    return sum;
}

static void picture(const struct winners *s, const struct winners_at *at, const float *x, float *dx,
                    const float *dy, const int32_t *winner)
{
    uint32_t windows = (s->height - 2) / 2 * ((s->width - 2) / 2), row = s->width * BLOCK;
    uint64_t plane = (uint64_t)s->height * row;
    uint32_t count[BLOCK];

    for (uint32_t channel = 0; channel < s->blocks_out * BLOCK; channel++) {
        uint32_t v = channel % BLOCK;
        const struct winner *list = at->list + v * windows;

        if (v == 0)
            collect(s, dy + (uint64_t)channel * windows, winner + (uint64_t)channel * windows,
                    at->list, count);
        at->dbias[channel] += sum_of(list, count[v]);
        for (uint32_t b = 0; b < s->blocks_in; b++) {
            uint64_t w = ((uint64_t)channel * s->blocks_in + b) * TAPS * BLOCK;

            add_weights(list, count[v], x + b * plane, row, at->dweights + w);
            if (dx != NULL)
                add_input(list, count[v], at->weights + w, row, dx + b * plane);
        }
    }
}

void BACKWARD(const struct winners *s, const struct winners_at *at)
{
    uint64_t in = (uint64_t)s->blocks_in * s->height * s->width * BLOCK;
    uint64_t out =
        (uint64_t)s->blocks_out * ((s->height - 2) / 2) * ((s->width - 2) / 2) * BLOCK;

    memset(at->dweights, 0,
           (size_t)s->blocks_out * BLOCK * s->blocks_in * TAPS * BLOCK * sizeof(float));
    memset(at->dbias, 0, (size_t)s->blocks_out * BLOCK * sizeof(float));
    if (at->dx != NULL)
        memset(at->dx, 0, s->batch * in * sizeof(float));
    for (uint32_t i = 0; i < s->batch; i++)
        picture(s, at, at->x + i * in, at->dx != NULL ? at->dx + i * in : NULL, at->dy + i * out,
                at->winner + i * out);
}
