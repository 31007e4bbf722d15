/* The device: memory, ordered streams of work, events between them, and the ops that models,
 * optimizers and sums are made of.
 *
 * One vtable, written for three readers. reference/ is the specification: plain loops that say what
 * every op means. cpu/ is fast (oneDNN and fused loops). A CUDA module will be the third: its
 * memory is its own, and its streams are asynchronous.
 *
 * Calling sequence
 *
 *     device_cpu_ops()->open(&options, &device, &error)
 *     ops->stream_open(device, &stream, &error)      one per thread; used by that thread alone
 *     x = ops->alloc(device, bytes)                  whatever an op reads or writes
 *     ops->upload(stream, x, bytes_here, bytes)
 *     ops->layer_new(stream, &spec, below, &layer, &error)   a chain; below = NULL for the first
 *     ops->layer_load(layer, params)                 weights, then biases, in canonical layout
 *     ops->layer_forward(layer, input)               bottom to top; input for the first layer only
 *     ops->loss(stream, ops->layer_output(top), ..)
 *     ops->layer_backward(layer, doutput, dparams, below != NULL)   top to bottom; doutput for the
 *                                                                   top only
 *     ops->download(stream, bytes_here, metrics, bytes)
 *     ops->stream_sync(stream)                       now they are here
 *
 * Memory. Every pointer that an op takes is the device's, from alloc, but for those that say
 * "host". The host looks at it through download, writes it through upload, and may do arithmetic
 * with the pointer. One exception: a data plane that is made for the device (comm/tcp for devices
 * whose memory the host can address) sends from it and receives into it, between a stream_sync and
 * the next op on those bytes.
 *
 * Order. Work of one stream is done in the order of the calls. Between streams nothing is promised
 * but by events: record one behind the work in its stream, and let the other stream wait for it.
 * Memory of the host that is being uploaded, and arguments that are structs of the host's, are read
 * when the work is done: uploads until the stream was synced (or an event behind them is done),
 * structs before the call returns. On CPUs a stream is the thread that calls, and all work is done
 * when its call returns.
 *
 * Blocking. Each slot says one of
 *     issues   puts work into the stream and returns at once; it may be under way for long
 *     host     work of the calling thread alone, and short
 *     blocks   may wait for the device
 * and whether it may be NULL; NULL arguments are allowed where that is said.
 *
 * Exactness: what an op writes is a function of its arguments alone; not of the thread, of
 * addresses, or of what ran before. Gradients are written, never accumulated. Shapes are fixed when
 * a layer is made. */
#ifndef DEVICE_DEVICE_H
#define DEVICE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICE_VTABLE_VERSION 2
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
struct device_event;
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
    const float *divisor;   /* [1] the real samples, behind the sums: never fetched for this */
    uint64_t n;
    float clip;             /* 1 = none, and then not multiplied */
    double rate, beta1, beta2, epsilon, decay, momentum;
    uint64_t step;          /* optimizer step, from 1 */
    bool nesterov;
};

struct device_ops {
    const char *name;
    uint32_t version; /* DEVICE_VTABLE_VERSION */

    /* ---- the device */

    /* blocks; not NULL. Once for each process and instruction set. */
    enum device_status (*open)(const struct device_options *options, struct device **device,
                               struct device_error *error);
    /* blocks; not NULL. When all of its streams, events and layers are closed. Accepts NULL. */
    void (*close)(struct device *device);
    /* host; not NULL. "key=value\n" lines, sorted, with keys before "program": whatever of the
     * device decides bits: instruction set, compiler, library versions. */
    void (*fingerprint)(const struct device *device, char *text, size_t text_bytes);

    /* ---- memory */

    /* blocks; not NULL. Zeroed, aligned to DEVICE_ALIGN; from any thread. NULL when there is none
     * left. */
    void *(*alloc)(struct device *device, size_t bytes);
    /* blocks; not NULL. When no work on it is under way. Accepts NULL. */
    void (*release)(struct device *device, void *memory);
    /* issues; not NULL. Each of the bytes becomes `byte`. */
    void (*fill)(struct device_stream *stream, void *to, uint8_t byte, size_t bytes);
    /* issues; not NULL. Between memory of the device that does not overlap. */
    void (*copy)(struct device_stream *stream, void *to, const void *from, size_t bytes);
    /* issues; not NULL. from: host; unchanged until the work is done. */
    void (*upload)(struct device_stream *stream, void *to, const void *from, size_t bytes);
    /* issues; not NULL. to: host; filled when the work is done. */
    void (*download)(struct device_stream *stream, void *to, const void *from, size_t bytes);

    /* ---- streams */

    /* blocks; not NULL. By the thread that will use it. */
    enum device_status (*stream_open)(struct device *device, struct device_stream **stream,
                                      struct device_error *error);
    /* blocks until its work is done; not NULL. Accepts NULL. */
    void (*stream_close)(struct device_stream *stream);
    /* blocks until its work is done; not NULL. */
    void (*stream_sync)(struct device_stream *stream);

    /* ---- events: a point in the work of a stream. Without one that was recorded it is done. */

    /* host; not NULL. */
    enum device_status (*event_open)(struct device *device, struct device_event **event,
                                     struct device_error *error);
    /* host; not NULL. Nobody waits for it any more. Accepts NULL. */
    void (*event_close)(struct device_event *event);
    /* issues; not NULL. The point is behind all work of the stream so far; the one recorded before
     * counts no more. By the stream's thread. */
    void (*event_record)(struct device_event *event, struct device_stream *stream);
    /* issues; not NULL. What the stream is given from now on waits for the event's point as it is
     * now. The calling thread does not. */
    void (*event_wait)(struct device_event *event, struct device_stream *stream);
    /* host; not NULL. Was that point passed? From any thread: what a loop asks that may not block.
     * What was done before it is then seen by the caller. */
    bool (*event_done)(struct device_event *event);

    /* ---- layers: see the calling sequence */

    /* blocks; not NULL. */
    enum device_status (*layer_new)(struct device_stream *stream,
                                    const struct device_layer_spec *spec,
                                    struct device_layer *below, struct device_layer **layer,
                                    struct device_error *error);
    /* blocks; not NULL. After a sync of its stream. Accepts NULL. */
    void (*layer_free)(struct device_layer *layer);
    /* issues; not NULL. params stay unchanged until the next load. */
    void (*layer_load)(struct device_layer *layer, const float *params);
    /* issues; not NULL. */
    void (*layer_forward)(struct device_layer *layer, const float *input);
    /* issues what brings it into plain layout; not NULL. Valid until the next forward. */
    const float *(*layer_output)(struct device_layer *layer);
    /* issues; not NULL. */
    void (*layer_backward)(struct device_layer *layer, const float *doutput, float *dparams,
                           bool want_input);
    /* issues what brings it into plain layout; not NULL. After a backward with want_input. */
    const float *(*layer_dinput)(struct device_layer *layer);

    /* ---- a model's ends */

    /* issues; not NULL. Softmax cross-entropy. Sums over the first `real` of batch samples; dlogits
     * of the others is 0. metrics: [0] sum of losses, [1] correct, [2] real. */
    void (*loss)(struct device_stream *stream, const float *logits, const uint8_t *labels,
                 uint32_t batch, uint32_t classes, uint32_t real, float *dlogits,
                 float metrics[3]);
    /* issues; not NULL. (x / 255 - 0.5) / 0.5 */
    void (*normalize)(struct device_stream *stream, const uint8_t *bytes, uint64_t n, float *out);

    /* ---- flat ranges */

    /* issues; not NULL. dst may be a; first operand on the left. */
    void (*add)(struct device_stream *stream, float *dst, const float *a, const float *b,
                uint64_t n);
    /* issues; not NULL. */
    void (*update)(struct device_stream *stream, const struct device_update *update);
    /* issues; not NULL. sums[i] = sum of squares of block i of DEVICE_BLOCK elements, in a fixed
     * order, in fp64. */
    void (*square_sums)(struct device_stream *stream, const float *x, uint64_t n, double *sums);
    /* issues; not NULL. hashes[i] = XXH3-64 of block i of DEVICE_HASH_BYTES. */
    void (*hashes)(struct device_stream *stream, const void *bytes, uint64_t n, uint64_t *hashes);
};

const struct device_ops *device_cpu_ops(void);       /* in cpu/ */
const char *device_cpu_version(void);                /* oneDNN's; from the program's main thread */
const struct device_ops *device_reference_ops(void); /* in reference/ */

#endif
