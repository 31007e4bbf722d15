/* The specification: every op as the plainest loops that say what it means. Sums inside an op are
 * made in double, so that a faster device can be compared with it to a stated tolerance. */
#include "device/device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct device {
    int unused;
};

struct device_stream {
    struct device *device;
};

struct device_event {
    uint64_t records; /* atomic: orders what threads have done, and nothing else */
};

struct device_layer {
    struct device_layer_spec spec;
    struct device_layer *below, *above;
    float *params;  /* weights, biases */
    float *input;   /* copy of the first layer's */
    float *before;  /* conv: after bias, before ReLU; linear: output before ReLU */
    float *output;
    float *dinput;
};

static enum device_status ref_open(const struct device_options *options, struct device **device,
                                   struct device_error *error)
{
    (void)options;
    *device = calloc(1, sizeof **device);
    if (*device != NULL)
        return DEVICE_OK;
    error->status = DEVICE_MEMORY;
    (void)snprintf(error->text, sizeof error->text, "out of memory");
    return DEVICE_MEMORY;
}

static void ref_close(struct device *device)
{
    free(device);
}

static void ref_fingerprint(const struct device *device, char *text, size_t text_bytes)
{
    (void)device;
    (void)snprintf(text, text_bytes, "device=reference\n");
}

static void *ref_alloc(struct device *device, size_t bytes)
{
    size_t rounded = (bytes + DEVICE_ALIGN - 1) / DEVICE_ALIGN * DEVICE_ALIGN;
    void *memory = aligned_alloc(DEVICE_ALIGN, rounded > 0 ? rounded : DEVICE_ALIGN);

    (void)device;
    if (memory != NULL)
        memset(memory, 0, rounded);
    return memory;
}

static void ref_release(struct device *device, void *memory)
{
    (void)device;
    free(memory);
}

static void ref_fill(struct device_stream *stream, void *to, uint8_t byte, size_t bytes)
{
    (void)stream;
    memset(to, byte, bytes);
}

static void ref_copy(struct device_stream *stream, void *to, const void *from, size_t bytes)
{
    (void)stream;
    memcpy(to, from, bytes);
}

static enum device_status ref_stream_open(struct device *device, struct device_stream **stream,
                                          struct device_error *error)
{
    *stream = calloc(1, sizeof **stream);
    if (*stream == NULL) {
        error->status = DEVICE_MEMORY;
        return DEVICE_MEMORY;
    }
    (*stream)->device = device;
    return DEVICE_OK;
}

static void ref_stream_close(struct device_stream *stream)
{
    free(stream);
}

static void ref_stream_sync(struct device_stream *stream)
{
    (void)stream;
}

/* ---- events: a point in the work of a stream; here all work before it is done --------------- */

static enum device_status ref_event_open(struct device *device, struct device_event **event,
                                         struct device_error *error)
{
    (void)device;
    *event = calloc(1, sizeof **event);
    if (*event != NULL)
        return DEVICE_OK;
    error->status = DEVICE_MEMORY;
    (void)snprintf(error->text, sizeof error->text, "out of memory");
    return DEVICE_MEMORY;
}

static void ref_event_close(struct device_event *event)
{
    free(event);
}

static void ref_event_record(struct device_event *event, struct device_stream *stream)
{
    (void)stream;
    __atomic_add_fetch(&event->records, 1, __ATOMIC_RELEASE);
}

static bool ref_event_done(struct device_event *event)
{
    (void)__atomic_load_n(&event->records, __ATOMIC_ACQUIRE);
    return true;
}

static void ref_event_wait(struct device_event *event, struct device_stream *stream)
{
    (void)stream;
    (void)ref_event_done(event);
}

/* ---- layers --------------------------------------------------------------------------------- */

static bool is_conv(const struct device_layer *l)
{
    return l->spec.kind == DEVICE_CONV_RELU_POOL;
}

static size_t weights_of(const struct device_layer_spec *s)
{
    return s->kind == DEVICE_CONV_RELU_POOL ? (size_t)s->channels_out * s->channels_in * 9
                                            : (size_t)s->inputs * s->outputs;
}

static size_t biases_of(const struct device_layer_spec *s)
{
    return s->kind == DEVICE_CONV_RELU_POOL ? s->channels_out : s->outputs;
}

static size_t inputs_of(const struct device_layer_spec *s)
{
    return (size_t)s->batch * (s->kind == DEVICE_CONV_RELU_POOL
                                   ? (size_t)s->channels_in * s->height * s->width
                                   : s->inputs);
}

static void ref_layer_free(struct device_layer *l)
{
    if (l == NULL)
        return;
    free(l->params);
    free(l->input);
    free(l->before);
    free(l->output);
    free(l->dinput);
    free(l);
}

static enum device_status ref_layer_new(struct device_stream *stream,
                                        const struct device_layer_spec *spec,
                                        struct device_layer *below, struct device_layer **layer,
                                        struct device_error *error)
{
    struct device_layer *l = calloc(1, sizeof *l);
    size_t before, output;

    (void)stream;
    *layer = l;
    if (l == NULL) {
        error->status = DEVICE_MEMORY;
        return DEVICE_MEMORY;
    }
    l->spec = *spec;
    l->below = below;
    before = (size_t)spec->batch * (is_conv(l) ? (size_t)spec->channels_out * (spec->height - 2) *
                                                     (spec->width - 2)
                                               : spec->outputs);
    output = (size_t)spec->batch * (is_conv(l) ? (size_t)spec->channels_out *
                                                     ((spec->height - 2) / 2) *
                                                     ((spec->width - 2) / 2)
                                               : spec->outputs);
    l->params = calloc(weights_of(spec) + biases_of(spec), sizeof(float));
    l->input = calloc(inputs_of(spec), sizeof(float));
    l->before = calloc(before, sizeof(float));
    l->output = calloc(output, sizeof(float));
    l->dinput = calloc(inputs_of(spec), sizeof(float));
    if (below != NULL)
        below->above = l;
    return DEVICE_OK;
}

static void ref_layer_load(struct device_layer *l, const float *params)
{
    memcpy(l->params, params, (weights_of(&l->spec) + biases_of(&l->spec)) * sizeof(float));
}

static void conv_forward(struct device_layer *l)
{
    const struct device_layer_spec *s = &l->spec;
    uint32_t h = s->height - 2, w = s->width - 2;
    const float *bias = l->params + weights_of(s);

    for (uint32_t b = 0; b < s->batch; b++)
        for (uint32_t o = 0; o < s->channels_out; o++)
            for (uint32_t y = 0; y < h; y++)
                for (uint32_t x = 0; x < w; x++) {
                    double sum = bias[o];

                    for (uint32_t c = 0; c < s->channels_in; c++)
                        for (uint32_t k = 0; k < 9; k++)
                            sum += (double)
                                       l->input[((b * s->channels_in + c) * s->height + y + k / 3) *
                                                    s->width +
                                                x + k % 3] *
                                   l->params[(o * s->channels_in + c) * 9 + k];
                    l->before[((b * s->channels_out + o) * h + y) * w + x] = (float)sum;
                }
}

/* The winner of a window: the first of the largest; NULL when ReLU lets nothing through. */
static float *window_winner(const struct device_layer *l, uint32_t plane, uint32_t y, uint32_t x)
{
    uint32_t h = l->spec.height - 2, w = l->spec.width - 2;
    float *best = &l->before[(plane * h + 2 * y) * w + 2 * x];

    for (uint32_t k = 1; k < 4; k++) {
        float *at = &l->before[(plane * h + 2 * y + k / 2) * w + 2 * x + k % 2];

        if (*at > *best)
            best = at;
    }
    return *best > 0 ? best : NULL;
}

static void pool_forward(struct device_layer *l)
{
    uint32_t ph = (l->spec.height - 2) / 2, pw = (l->spec.width - 2) / 2;

    for (uint32_t plane = 0; plane < l->spec.batch * l->spec.channels_out; plane++)
        for (uint32_t y = 0; y < ph; y++)
            for (uint32_t x = 0; x < pw; x++) {
                const float *winner = window_winner(l, plane, y, x);

                l->output[(plane * ph + y) * pw + x] = winner != NULL ? *winner : 0;
            }
}

static void linear_forward(struct device_layer *l)
{
    const struct device_layer_spec *s = &l->spec;

    for (uint32_t b = 0; b < s->batch; b++)
        for (uint32_t o = 0; o < s->outputs; o++) {
            double sum = l->params[weights_of(s) + o];

            for (uint32_t i = 0; i < s->inputs; i++)
                sum += (double)l->input[b * s->inputs + i] * l->params[o * s->inputs + i];
            l->before[b * s->outputs + o] = (float)sum;
            l->output[b * s->outputs + o] =
                s->kind == DEVICE_LINEAR_RELU && sum <= 0 ? 0 : (float)sum;
        }
}

static void ref_layer_forward(struct device_layer *l, const float *input)
{
    memcpy(l->input, l->below != NULL ? l->below->output : input,
           inputs_of(&l->spec) * sizeof(float));
    if (!is_conv(l)) {
        linear_forward(l);
        return;
    }
    conv_forward(l);
    pool_forward(l);
}

static const float *ref_layer_output(struct device_layer *l)
{
    return l->output;
}

static void linear_backward(struct device_layer *l, const float *doutput, float *dparams)
{
    const struct device_layer_spec *s = &l->spec;
    bool relu = s->kind == DEVICE_LINEAR_RELU;

    for (uint32_t o = 0; o < s->outputs; o++) {
        double db = 0;

        for (uint32_t b = 0; b < s->batch; b++)
            db += relu && l->before[b * s->outputs + o] <= 0 ? 0 : doutput[b * s->outputs + o];
        dparams[weights_of(s) + o] = (float)db;
        for (uint32_t i = 0; i < s->inputs; i++) {
            double dw = 0;

            for (uint32_t b = 0; b < s->batch; b++)
                dw += relu && l->before[b * s->outputs + o] <= 0
                          ? 0
                          : (double)doutput[b * s->outputs + o] * l->input[b * s->inputs + i];
            dparams[o * s->inputs + i] = (float)dw;
        }
    }
    for (uint32_t b = 0; b < s->batch; b++)
        for (uint32_t i = 0; i < s->inputs; i++) {
            double dx = 0;

            for (uint32_t o = 0; o < s->outputs; o++)
                dx += relu && l->before[b * s->outputs + o] <= 0
                          ? 0
                          : (double)doutput[b * s->outputs + o] * l->params[o * s->inputs + i];
            l->dinput[b * s->inputs + i] = (float)dx;
        }
}

/* Adds the gradient of one convolution output to everything that it touches. */
static void conv_scatter(struct device_layer *l, uint32_t plane, uint32_t at, double g, double *dw)
{
    const struct device_layer_spec *s = &l->spec;
    uint32_t w = s->width - 2, y = at / w, x = at % w;
    uint32_t b = plane / s->channels_out, o = plane % s->channels_out;

    for (uint32_t c = 0; c < s->channels_in; c++)
        for (uint32_t k = 0; k < 9; k++) {
            size_t in = ((b * s->channels_in + c) * s->height + y + k / 3) * s->width + x + k % 3;
            size_t weight = (o * s->channels_in + c) * 9 + k;

            dw[weight] += g * l->input[in];
            l->dinput[in] = (float)((double)l->dinput[in] + g * l->params[weight]);
        }
    dw[weights_of(s) + o] += g;
}

static void conv_backward(struct device_layer *l, const float *doutput, float *dparams)
{
    const struct device_layer_spec *s = &l->spec;
    uint32_t ph = (s->height - 2) / 2, pw = (s->width - 2) / 2;
    size_t count = weights_of(s) + biases_of(s), area = (size_t)(s->height - 2) * (s->width - 2);
    double *dw = calloc(count, sizeof *dw);

    memset(l->dinput, 0, inputs_of(s) * sizeof(float));
    for (uint32_t plane = 0; dw != NULL && plane < s->batch * s->channels_out; plane++)
        for (uint32_t i = 0; i < ph * pw; i++) {
            float *winner = window_winner(l, plane, i / pw, i % pw);

            if (winner != NULL)
                conv_scatter(l, plane, (uint32_t)((size_t)(winner - l->before) - plane * area),
                             doutput[plane * ph * pw + i], dw);
        }
    for (size_t i = 0; dw != NULL && i < count; i++)
        dparams[i] = (float)dw[i];
    free(dw);
}

static void ref_layer_backward(struct device_layer *l, const float *doutput, float *dparams,
                               bool want_input)
{
    const float *from = l->above != NULL ? l->above->dinput : doutput;

    (void)want_input;
    if (is_conv(l))
        conv_backward(l, from, dparams);
    else
        linear_backward(l, from, dparams);
}

static const float *ref_layer_dinput(struct device_layer *l)
{
    return l->dinput;
}

/* ---- the rest ------------------------------------------------------------------------------- */

static void ref_loss(struct device_stream *stream, const float *logits, const uint8_t *labels,
                     uint32_t batch, uint32_t classes, uint32_t real, float *dlogits,
                     float metrics[3])
{
    double total = 0;
    uint32_t correct = 0;

    (void)stream;
    memset(dlogits, 0, (size_t)batch * classes * sizeof *dlogits);
    for (uint32_t b = 0; b < real; b++) {
        const float *z = logits + (size_t)b * classes;
        double most = z[0], sum = 0;
        uint32_t best = 0;

        for (uint32_t c = 1; c < classes; c++)
            if (z[c] > most) {
                most = z[c];
                best = c;
            }
        for (uint32_t c = 0; c < classes; c++)
            sum += exp(z[c] - most);
        for (uint32_t c = 0; c < classes; c++)
            dlogits[(size_t)b * classes + c] =
                (float)(exp(z[c] - most) / sum - (c == labels[b] ? 1.0 : 0.0));
        total += log(sum) - (z[labels[b]] - most);
        correct += best == labels[b];
    }
    metrics[0] = (float)total;
    metrics[1] = (float)correct;
    metrics[2] = (float)real;
}

static void ref_normalize(struct device_stream *stream, const uint8_t *bytes, uint64_t n,
                          float *out)
{
    (void)stream;
    for (uint64_t i = 0; i < n; i++)
        out[i] = ((float)bytes[i] / 255.0f - 0.5f) / 0.5f;
}

static void ref_add(struct device_stream *stream, float *dst, const float *a, const float *b,
                    uint64_t n)
{
    (void)stream;
    for (uint64_t i = 0; i < n; i++)
        dst[i] = a[i] + b[i];
}

static void ref_update(struct device_stream *stream, const struct device_update *u)
{
    (void)stream;
    for (uint64_t i = 0; i < u->n; i++) {
        double p = u->params[i], g = (double)u->gradient[i] / *u->divisor * u->clip;

        if (u->kind == DEVICE_SGD) {
            g += u->decay * p;
            if (u->momentum != 0) {
                double buffer = u->step == 1 ? g : u->momentum * u->first[i] + g;

                u->first[i] = (float)buffer;
                g = u->nesterov ? g + u->momentum * buffer : buffer;
            }
            u->params[i] = (float)(p - u->rate * g);
            continue;
        }
        if (u->kind == DEVICE_ADAMW)
            p -= u->rate * u->decay * p;
        else
            g += u->decay * p;
        u->first[i] = (float)(u->beta1 * u->first[i] + (1 - u->beta1) * g);
        u->second[i] = (float)(u->beta2 * u->second[i] + (1 - u->beta2) * g * g);
        u->params[i] = (float)(p - u->rate / (1 - pow(u->beta1, (double)u->step)) * u->first[i] /
                                       (sqrt(u->second[i]) /
                                            sqrt(1 - pow(u->beta2, (double)u->step)) + u->epsilon));
    }
}

static void ref_square_sums(struct device_stream *stream, const float *x, uint64_t n, double *sums)
{
    (void)stream;
    for (uint64_t at = 0, block = 0; at < n; at += DEVICE_BLOCK, block++) {
        uint64_t end = at + DEVICE_BLOCK < n ? at + DEVICE_BLOCK : n;
        double lane[8] = {0};

        for (uint64_t i = at; i < end; i++)
            lane[(i - at) % 8] += (double)x[i] * x[i];
        sums[block] = ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
                      ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    }
}

static void ref_hashes(struct device_stream *stream, const void *bytes, uint64_t n,
                       uint64_t *hashes)
{
    const uint8_t *at = bytes;

    (void)stream;
    for (uint64_t first = 0, block = 0; first < n; first += DEVICE_HASH_BYTES, block++)
        hashes[block] = XXH3_64bits(at + first, n - first < DEVICE_HASH_BYTES ? n - first
                                                                              : DEVICE_HASH_BYTES);
}

const struct device_ops *device_reference_ops(void)
{
    static const struct device_ops ops = {
        "reference", DEVICE_VTABLE_VERSION, ref_open, ref_close, ref_fingerprint, ref_alloc,
        ref_release, ref_fill, ref_copy, ref_copy, ref_copy, ref_stream_open, ref_stream_close,
        ref_stream_sync, ref_event_open, ref_event_close, ref_event_record, ref_event_wait,
        ref_event_done, ref_layer_new, ref_layer_free, ref_layer_load, ref_layer_forward,
        ref_layer_output, ref_layer_backward, ref_layer_dinput, ref_loss, ref_normalize, ref_add,
        ref_update, ref_square_sums, ref_hashes};

    return &ops;
}
