/* The first convolution of a network that reads grey pictures: one input channel, 3x3, bias, ReLU
 * and 2x2 maximum in one pass that writes the pooled values alone, and the gradient of its weights
 * from the pooled gradient, without the map in between. With one channel a convolution moves more
 * bytes than it computes: so what is not needed is not written. Compiled twice: BLOCK = 8 for AVX2,
 * 16 for AVX-512.
 *
 * Order of additions (it defines the bits): forward bias, then the nine taps row by row, fused;
 * backward per sample over windows row by row, in each over its four places, fused; then over
 * samples. */
#include "cpu.h"
#include "vector.h"

#include <string.h>

#define FORWARD  JOIN(JOIN(stem, BLOCK), _forward)
#define GRADIENT JOIN(JOIN(stem, BLOCK), _gradient)
#define TAPS     9

/* One window: x is the upper left of its 4x4 pixels. */
static inline void window(const float *x, uint32_t width, const vector w[TAPS], vector bias,
                          float *y, int32_t *winner)
{
    vector sum[4], most = zero();
    places at = place(4); /* ReLU lets nothing through */

    for (uint32_t p = 0; p < 4; p++) {
        const float *corner = x + p / 2 * width + p % 2;

        sum[p] = bias;
        for (uint32_t t = 0; t < TAPS; t++)
            sum[p] = fused(w[t], every(corner[t / 3 * width + t % 3]), sum[p]);
    }
    for (int p = 0; p < 4; p++)
        take(&most, &at, sum[p], place(p));
    put(y, most);
    put_places(winner, at);
}

void FORWARD(const struct stem *s, const float *x, const float *weights, const float *bias,
             float *y, int32_t *winner)
{
    uint32_t ph = (s->height - 2) / 2, pw = (s->width - 2) / 2;

    for (uint64_t plane = 0; plane < (uint64_t)s->batch * s->blocks; plane++) {
        uint32_t block = (uint32_t)(plane % s->blocks);
        const float *picture = x + plane / s->blocks * s->height * s->width;
        vector w[TAPS], b = get(bias + block * BLOCK);

        for (uint32_t t = 0; t < TAPS; t++)
            w[t] = get(weights + (block * TAPS + t) * BLOCK);
        for (uint32_t i = 0; i < ph * pw; i++) {
            uint64_t out = (plane * ph * pw + i) * BLOCK;

            window(picture + (uint64_t)2 * (i / pw) * s->width + 2 * (i % pw), s->width, w, b,
                   y + out, winner + out);
        }
    }
}

/* Adds what one picture gives to the sums of one block of channels. */
static inline void picture_gradient(const struct stem *s, const float *picture, const float *dy,
                                    const int32_t *winner, float *dweights, float *dbias)
{
    uint32_t ph = (s->height - 2) / 2, pw = (s->width - 2) / 2;
    vector w[TAPS], b = zero();

    for (uint32_t t = 0; t < TAPS; t++)
        w[t] = zero();
    for (uint32_t i = 0; i < ph * pw; i++) {
        const float *x = picture + (uint64_t)2 * (i / pw) * s->width + 2 * (i % pw);
        vector all = get(dy + (uint64_t)i * BLOCK);
        places at = get_places(winner + (uint64_t)i * BLOCK);

        for (uint32_t p = 0; p < 4; p++) {
            const float *corner = x + p / 2 * s->width + p % 2;
            vector g = won(all, at, place((int)p));

            b = plus(b, g);
            for (uint32_t t = 0; t < TAPS; t++)
                w[t] = fused(g, every(corner[t / 3 * s->width + t % 3]), w[t]);
        }
    }
    for (uint32_t t = 0; t < TAPS; t++)
        put(dweights + t * BLOCK, plus(get(dweights + t * BLOCK), w[t]));
    put(dbias, plus(get(dbias), b));
}

void GRADIENT(const struct stem *s, const float *x, const float *dy, const int32_t *winner,
              float *dweights, float *dbias)
{
    uint64_t each = (uint64_t)((s->height - 2) / 2) * ((s->width - 2) / 2) * BLOCK;

    memset(dweights, 0, (size_t)s->blocks * TAPS * BLOCK * sizeof(float));
    memset(dbias, 0, (size_t)s->blocks * BLOCK * sizeof(float));
    for (uint64_t plane = 0; plane < (uint64_t)s->batch * s->blocks; plane++) {
        uint32_t block = (uint32_t)(plane % s->blocks);

        picture_gradient(s, x + plane / s->blocks * s->height * s->width, dy + plane * each,
                         winner + plane * each, dweights + (size_t)block * TAPS * BLOCK,
                         dbias + block * BLOCK);
    }
}
