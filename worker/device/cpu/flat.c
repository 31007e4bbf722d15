/* Loops over flat memory, written so that the compiler makes vectors of them. Element-wise float
 * arithmetic is the same in any vector width; sums have a fixed number of lanes that are written
 * down. */
#include "cpu.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

static void loss_one(const float *z, uint32_t classes, uint8_t label, float *dz, float *loss,
                     uint32_t *correct)
{
    float most = z[0], sum = 0;
    uint32_t best = 0;

    for (uint32_t c = 1; c < classes; c++)
        if (z[c] > most) {
            most = z[c];
            best = c;
        }
    for (uint32_t c = 0; c < classes; c++) {
        dz[c] = expf(z[c] - most);
        sum += dz[c];
    }
    for (uint32_t c = 0; c < classes; c++)
        dz[c] = dz[c] / sum;
    dz[label] -= 1.0f;
    *loss = logf(sum) - (z[label] - most);
    *correct += best == label;
}

void flat_loss(struct device_stream *stream, const float *logits, const uint8_t *labels,
               uint32_t batch, uint32_t classes, uint32_t real, float *dlogits, float metrics[3])
{
    uint32_t correct = 0;
    float total = 0;

    (void)stream;
    for (uint32_t b = 0; b < real; b++) {
        float loss;

        loss_one(logits + (size_t)b * classes, classes, labels[b], dlogits + (size_t)b * classes,
                 &loss, &correct);
        total += loss;
    }
    memset(dlogits + (size_t)real * classes, 0, (size_t)(batch - real) * classes * sizeof *dlogits);
    metrics[0] = total;
    metrics[1] = (float)correct;
    metrics[2] = (float)real;
}

void flat_normalize(struct device_stream *stream, const uint8_t *bytes, uint64_t n, float *out)
{
    (void)stream;
    for (uint64_t i = 0; i < n; i++)
        out[i] = ((float)bytes[i] / 255.0f - 0.5f) / 0.5f;
}

void flat_add(struct device_stream *stream, float *dst, const float *a, const float *b, uint64_t n)
{
    (void)stream;
    for (uint64_t i = 0; i < n; i++)
        dst[i] = a[i] + b[i];
}

void flat_bias_relu(float *x, const float *bias, uint32_t rows, uint32_t columns, bool relu)
{
    for (uint32_t r = 0; r < rows; r++) {
        float *row = x + (size_t)r * columns;

        for (uint32_t c = 0; c < columns; c++) {
            float sum = row[c] + bias[c];

            row[c] = relu && !(sum > 0) ? 0 : sum;
        }
    }
}

void flat_relu_mask(float *dy, const float *y, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        dy[i] = y[i] > 0 ? dy[i] : 0;
}

/* In the order of the rows. */
void flat_column_sums(const float *x, uint32_t rows, uint32_t columns, float *sums)
{
    memcpy(sums, x, columns * sizeof *sums);
    for (uint32_t r = 1; r < rows; r++)
        for (uint32_t c = 0; c < columns; c++)
            sums[c] += x[(size_t)r * columns + c];
}

/* ---- updates: PyTorch's rules (torch/optim), element-wise in fp32, scalars in double --------- */

static void update_adam(const struct device_update *u)
{
    bool decoupled = u->kind == DEVICE_ADAMW;
    float beta1 = (float)u->beta1, beta2 = (float)u->beta2, clip = u->clip, divisor = *u->divisor;
    float rest1 = (float)(1 - u->beta1), rest2 = (float)(1 - u->beta2);
    float shrink = decoupled ? (float)(1 - u->rate * u->decay) : 1.0f;
    float decay = decoupled ? 0.0f : (float)u->decay, epsilon = (float)u->epsilon;
    float size = (float)(u->rate / (1 - pow(u->beta1, (double)u->step)));
    float root = (float)sqrt(1 - pow(u->beta2, (double)u->step));
    float *restrict p = u->params, *restrict m = u->first, *restrict v = u->second;
    const float *restrict gradient = u->gradient;

    for (uint64_t i = 0; i < u->n; i++) {
        float g = gradient[i] / divisor * clip + decay * p[i];
        float mean = beta1 * m[i] + rest1 * g;
        float square = beta2 * v[i] + rest2 * g * g;

        m[i] = mean;
        v[i] = square;
        p[i] = p[i] * shrink - size * mean / (sqrtf(square) / root + epsilon);
    }
}

static void update_sgd(const struct device_update *u)
{
    float rate = (float)u->rate, momentum = (float)u->momentum, decay = (float)u->decay;
    float keep = u->step == 1 ? 0.0f : momentum, divisor = *u->divisor;

    for (uint64_t i = 0; i < u->n; i++) {
        float g = u->gradient[i] / divisor * u->clip + decay * u->params[i];

        if (momentum != 0) {
            float buffer = keep * u->first[i] + g;

            u->first[i] = buffer;
            g = u->nesterov ? g + momentum * buffer : buffer;
        }
        u->params[i] -= rate * g;
    }
}

void flat_update(struct device_stream *stream, const struct device_update *update)
{
    (void)stream;
    if (update->kind == DEVICE_SGD)
        update_sgd(update);
    else
        update_adam(update);
}

/* ---- blocks --------------------------------------------------------------------------------- */

void flat_square_sums(struct device_stream *stream, const float *x, uint64_t n, double *sums)
{
    (void)stream;
    for (uint64_t at = 0, block = 0; at < n; at += DEVICE_BLOCK, block++) {
        uint64_t count = n - at < DEVICE_BLOCK ? n - at : DEVICE_BLOCK, whole = count / 8 * 8;
        double lane[8] = {0};

        for (uint64_t i = 0; i < whole; i += 8)
            for (uint64_t k = 0; k < 8; k++)
                lane[k] += (double)x[at + i + k] * x[at + i + k];
        for (uint64_t i = whole; i < count; i++)
            lane[i - whole] += (double)x[at + i] * x[at + i];
        sums[block] = ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
                      ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    }
}

void flat_hashes(struct device_stream *stream, const void *bytes, uint64_t n, uint64_t *hashes)
{
    const uint8_t *at = bytes;

    (void)stream;
    for (uint64_t first = 0, block = 0; first < n; first += DEVICE_HASH_BYTES, block++)
        hashes[block] = XXH3_64bits(at + first, n - first < DEVICE_HASH_BYTES ? n - first
                                                                              : DEVICE_HASH_BYTES);
}
