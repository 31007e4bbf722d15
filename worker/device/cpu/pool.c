/* ReLU and max-pool in one pass, and their backward in one pass that writes every value once.
 * Compiled twice: BLOCK = 8 for AVX2, 16 for AVX-512; the inner loops over a block become single
 * instructions. */
#include "cpu.h"

#define JOIN2(a, b) a##b
#define JOIN(a, b)  JOIN2(a, b)
#define FORWARD     JOIN(JOIN(pool, BLOCK), _forward)
#define BACKWARD    JOIN(JOIN(pool, BLOCK), _backward)

static inline void window_forward(const float *restrict a, const float *restrict b,
                                  const float *restrict c, const float *restrict d,
                                  float *restrict y, int32_t *restrict winner)
{
    for (int v = 0; v < BLOCK; v++) {
        float most = a[v];
        int32_t at = 0;

        at = b[v] > most ? 1 : at;
        most = b[v] > most ? b[v] : most;
        at = c[v] > most ? 2 : at;
        most = c[v] > most ? c[v] : most;
        at = d[v] > most ? 3 : at;
        most = d[v] > most ? d[v] : most;
        y[v] = most > 0 ? most : 0;
        winner[v] = most > 0 ? at : 4;
    }
}

void FORWARD(const float *x, float *y, int32_t *winner, uint64_t planes, uint32_t h, uint32_t w)
{
    uint32_t ph = h / 2, pw = w / 2;

    for (uint64_t plane = 0; plane < planes; plane++)
        for (uint32_t r = 0; r < ph; r++)
            for (uint32_t c = 0; c < pw; c++) {
                const float *in = x + ((plane * h + 2 * r) * w + 2 * c) * BLOCK;
                uint64_t out = ((plane * ph + r) * pw + c) * BLOCK;

                window_forward(in, in + BLOCK, in + w * BLOCK, in + (w + 1) * BLOCK, y + out,
                               winner + out);
            }
}

static inline void window_backward(const float *restrict dy, const int32_t *restrict winner,
                                   float *restrict a, float *restrict b, float *restrict c,
                                   float *restrict d)
{
    for (int v = 0; v < BLOCK; v++) {
        a[v] = winner[v] == 0 ? dy[v] : 0;
        b[v] = winner[v] == 1 ? dy[v] : 0;
        c[v] = winner[v] == 2 ? dy[v] : 0;
        d[v] = winner[v] == 3 ? dy[v] : 0;
    }
}

static void zero(float *x, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        x[i] = 0;
}

void BACKWARD(const float *dy, const int32_t *winner, float *dx, uint64_t planes, uint32_t h,
              uint32_t w)
{
    uint32_t ph = h / 2, pw = w / 2;

    for (uint64_t plane = 0; plane < planes; plane++) {
        float *out = dx + plane * h * w * BLOCK;

        for (uint32_t r = 0; r < ph; r++) {
            for (uint32_t c = 0; c < pw; c++) {
                uint64_t in = ((plane * ph + r) * pw + c) * BLOCK;
                float *at = out + ((uint64_t)2 * r * w + 2 * c) * BLOCK;

                window_backward(dy + in, winner + in, at, at + BLOCK, at + w * BLOCK,
                                at + (w + 1) * BLOCK);
            }
            if (w % 2 != 0) {
                zero(out + ((uint64_t)2 * r * w + w - 1) * BLOCK, BLOCK);
                zero(out + ((uint64_t)(2 * r + 1) * w + w - 1) * BLOCK, BLOCK);
            }
        }
        if (h % 2 != 0)
            zero(out + (uint64_t)(h - 1) * w * BLOCK, (uint64_t)w * BLOCK);
    }
}
