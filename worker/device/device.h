/* The device: memory, ordered streams of work, and the ops that models, optimizers and sums are
 * made of.
 *
 * One vtable. reference/ is the specification: plain loops that say what every op means. cpu/ is
 * fast (oneDNN and fused loops). A CUDA module will be the third; so a stream may be asynchronous:
 * results may be read on the host only after stream_sync, and a caller may not reuse an input
 * before. On CPUs a stream is the thread that calls, and every op is done when it returns.
 *
 * Calling sequence
 *
 *     device_cpu_ops()->open(&options, &device, &error)
 *     ops->stream_open(device, &stream)              one per thread; used by that thread alone
 *     ops->layer_new(stream, &spec, below, &layer)   a chain; below = NULL for the first
 *     ops->layer_load(layer, params)                 weights, then biases, in canonical layout
 *     ops->layer_forward(layer, input)               bottom to top; input for the first layer only
 *     ops->loss(stream, ops->layer_output(top), ..)
 *     ops->layer_backward(layer, doutput, dparams, below != NULL)   top to bottom; doutput for the
 *                                                                   top only
 *
 * Exactness: what an op writes is a function of its arguments alone; not of the thread, of
 * addresses, or of what ran before. Gradients are written, never accumulated. Shapes are fixed when
 * a layer is made. Slots never block longer than their own work, and none is NULL. */
#ifndef DEVICE_DEVICE_H
#define DEVICE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICE_VTABLE_VERSION 1
#define DEVICE_TEXT_BYTES     256
#define DEVICE_ALIGN          64
#define DEVICE_BLOCK          65536 /* elements of one block of norms */
#define DEVICE_HASH_BYTES     65536 /* bytes of one block of hashes */

/* name, sentence */
#define DEVICE_ERRORS(X)                                                                           \
    X(OK, "no error")                                                                              \
    X(MEMORY, "out of memory")                                                                     \
    X(ISA, "this CPU does not have the instruction set that was asked for")                        \
    X(SHAPE, "a shape that this op does not take")                                                 \
    X(LIBRARY, "the device's library refused")

enum device_status {
#define DEVICE_ERROR_ENUM(name, sentence) DEVICE_##name,
    DEVICE_ERRORS(DEVICE_ERROR_ENUM)
#undef DEVICE_ERROR_ENUM
};

struct device_error {
    enum device_status status;
    char text[DEVICE_TEXT_BYTES];
};

struct device;
struct device_stream;
struct device_layer;

struct device_options {
    const char *isa; /* "avx2", "avx512" or "native" */
};

enum device_layer_kind {
    DEVICE_CONV_RELU_POOL, /* valid 3x3 convolution, bias, ReLU, 2x2 maximum with stride 2 */
    DEVICE_LINEAR,         /* y = x W^T + b, W is [outputs][inputs] */
    DEVICE_LINEAR_RELU,
};

/* Shapes: conv input [batch][channels_in][height][width], output
 * [batch][channels_out][(height-2)/2] [(width-2)/2]; linear input [batch][inputs] (a conv below is
 * read in NCHW order), output [batch][outputs]. */
struct device_layer_spec {
    enum device_layer_kind kind;
    uint32_t batch;
    uint32_t channels_in, channels_out, height, width; /* conv */
    uint32_t inputs, outputs;                          /* linear */
};

enum device_update_kind { DEVICE_ADAM, DEVICE_ADAMW, DEVICE_SGD };

/* One update of a flat range by PyTorch's rules. g = (gradient / divisor) * clip. */
struct device_update {
    enum device_update_kind kind;
    float *params;          /* [n] in and out */
    const float *gradient;  /* [n] raw sums */
    float *first, *second;  /* [n] exp_avg and exp_avg_sq; SGD: momentum buffer and unused */
    uint64_t n;
    float divisor, clip;    /* clip 1 = none, and then not multiplied */
    double rate, beta1, beta2, epsilon, decay, momentum;
    uint64_t step;          /* optimizer step, from 1 */
    bool nesterov;
};

struct device_ops {
    const char *name;
    uint32_t version; /* DEVICE_VTABLE_VERSION */
    enum device_status (*open)(const struct device_options *options, struct device **device,
                               struct device_error *error);
    void (*close)(struct device *device); /* accepts NULL */
    /* "key=value\n" lines, sorted: instruction set and library versions */
    void (*fingerprint)(const struct device *device, char *text, size_t text_bytes);
    /* Zeroed, aligned to DEVICE_ALIGN; NULL when there is none. */
    void *(*alloc)(struct device *device, size_t bytes);
    void (*release)(struct device *device, void *memory);
    void (*upload)(struct device_stream *stream, void *to, const void *from, size_t bytes);
    void (*download)(struct device_stream *stream, void *to, const void *from, size_t bytes);
    enum device_status (*stream_open)(struct device *device, struct device_stream **stream,
                                      struct device_error *error);
    void (*stream_close)(struct device_stream *stream);
    void (*stream_sync)(struct device_stream *stream); /* may block until its work is done */
    /* ---- layers: see the calling sequence */
    enum device_status (*layer_new)(struct device_stream *stream,
                                    const struct device_layer_spec *spec,
                                    struct device_layer *below, struct device_layer **layer,
                                    struct device_error *error);
    void (*layer_free)(struct device_layer *layer);
    void (*layer_load)(struct device_layer *layer, const float *params);
    void (*layer_forward)(struct device_layer *layer, const float *input);
    const float *(*layer_output)(struct device_layer *layer); /* plain layout, until the next
                                                                 forward */
    void (*layer_backward)(struct device_layer *layer, const float *doutput, float *dparams,
                           bool want_input);
    const float *(*layer_dinput)(struct device_layer *layer); /* plain layout, after want_input */
    /* ---- softmax cross-entropy. Sums over the first `real` of batch samples; dlogits of the
     * others is 0. metrics: [0] sum of losses, [1] correct, [2] real */
    void (*loss)(struct device_stream *stream, const float *logits, const uint8_t *labels,
                 uint32_t batch, uint32_t classes, uint32_t real, float *dlogits,
                 float metrics[3]);
    void (*normalize)(struct device_stream *stream, const uint8_t *bytes, uint64_t n, float *out);
    /* ---- flat ranges. dst may be a; first operand on the left. */
    void (*add)(struct device_stream *stream, float *dst, const float *a, const float *b,
                uint64_t n);
    void (*update)(struct device_stream *stream, const struct device_update *update);
    /* sums[i] = sum of squares of block i of DEVICE_BLOCK elements, in a fixed order, in fp64 */
    void (*square_sums)(struct device_stream *stream, const float *x, uint64_t n, double *sums);
    /* hashes[i] = XXH3-64 of block i of DEVICE_HASH_BYTES */
    void (*hashes)(struct device_stream *stream, const void *bytes, uint64_t n, uint64_t *hashes);
};

const struct device_ops *device_cpu_ops(void);       /* in cpu/ */
const char *device_cpu_version(void);                /* oneDNN's; from the program's main thread */
const struct device_ops *device_reference_ops(void); /* in reference/ */

#endif
