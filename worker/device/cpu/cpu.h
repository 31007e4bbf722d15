/* What the files of the CPU device share. */
#ifndef DEVICE_CPU_CPU_H
#define DEVICE_CPU_CPU_H

#include "device/device.h"

#include <oneapi/dnnl/dnnl.h>

struct device {
    bool avx512;           /* pinned instruction set: blocks of 16 channels, else 8 */
    char isa[16];          /* its word */
    dnnl_engine_t engine;
};

struct device_stream {
    struct device *device;
    dnnl_stream_t stream;
};

struct device_event {
    uint64_t records; /* atomic: what a thread did before its record is seen after a look at it */
};

struct conv;
struct linear;

struct device_layer {
    struct device_layer_spec spec;
    struct device_stream *stream;
    struct device_layer *below, *above;
    struct conv *conv;     /* one of the two */
    struct linear *linear;
};

/* conv.c */
enum device_status conv_new(struct device_layer *layer, struct device_error *error);
void conv_free(struct conv *conv);
void conv_load(struct device_layer *layer, const float *params);
void conv_forward(struct device_layer *layer, const float *input);
const float *conv_output(struct device_layer *layer);
void conv_backward(struct device_layer *layer, const float *doutput, float *dparams,
                   bool want_input);
const float *conv_dinput(struct device_layer *layer);

/* linear.c */
enum device_status linear_new(struct device_layer *layer, struct device_error *error);
void linear_free(struct linear *linear);
void linear_load(struct device_layer *layer, const float *params);
void linear_forward(struct device_layer *layer, const float *input);
const float *linear_output(struct device_layer *layer);
void linear_backward(struct device_layer *layer, const float *doutput, float *dparams,
                     bool want_input);
const float *linear_dinput(struct device_layer *layer);

/* flat.c */
void flat_loss(struct device_stream *stream, const float *logits, const uint8_t *labels,
               uint32_t batch, uint32_t classes, uint32_t real, float *dlogits, float metrics[3]);
void flat_normalize(struct device_stream *stream, const uint8_t *bytes, uint64_t n, float *out);
void flat_add(struct device_stream *stream, float *dst, const float *a, const float *b, uint64_t n);
void flat_update(struct device_stream *stream, const struct device_update *update);
void flat_square_sums(struct device_stream *stream, const float *x, uint64_t n, double *sums);
void flat_hashes(struct device_stream *stream, const void *bytes, uint64_t n, uint64_t *hashes);
void flat_bias_relu(float *x, const float *bias, uint32_t rows, uint32_t columns, bool relu);
void flat_relu_mask(float *dy, const float *y, uint64_t n);
void flat_column_sums(const float *x, uint32_t rows, uint32_t columns, float *sums);

/* pool.c, once for each width: ReLU and 2x2 maximum over blocks of channels, planes of h x w pixels
 * of one block each. winner[]: 0..3 the place in the window that won, 4 when ReLU lets nothing
 * through. */
void pool8_forward(const float *x, float *y, int32_t *winner, uint64_t planes, uint32_t h,
                   uint32_t w);
void pool8_backward(const float *dy, const int32_t *winner, float *dx, uint64_t planes, uint32_t h,
                    uint32_t w);
void pool16_forward(const float *x, float *y, int32_t *winner, uint64_t planes, uint32_t h,
                    uint32_t w);
void pool16_backward(const float *dy, const int32_t *winner, float *dx, uint64_t planes, uint32_t h,
                     uint32_t w);

/* stem.c, once for each width: the first convolution of grey pictures with ReLU and 2x2 maximum.
 * Channels stand in blocks; x [batch][height][width], weights [blocks][9][BLOCK], bias
 * [blocks][BLOCK], y, dy and winner (as above) [batch][blocks][(height-2)/2][(width-2)/2][BLOCK].
 * Gradients are written, not added to. */
struct stem {
    uint32_t batch, blocks, height, width; /* of the input, in pixels */
};

void stem8_forward(const struct stem *s, const float *x, const float *weights, const float *bias,
                   float *y, int32_t *winner);
void stem8_gradient(const struct stem *s, const float *x, const float *dy, const int32_t *winner,
                    float *dweights, float *dbias);
void stem16_forward(const struct stem *s, const float *x, const float *weights, const float *bias,
                    float *y, int32_t *winner);
void stem16_gradient(const struct stem *s, const float *x, const float *dy, const int32_t *winner,
                     float *dweights, float *dbias);

/* winners.c, once for each width: backward of the other convolutions with ReLU and 2x2 maximum.
 * Channels of both sides stand in blocks. */
struct winners {
    uint32_t batch, blocks_in, blocks_out, height, width; /* of the input, in pixels */
};

/* A pooled value that let its gradient through. */
struct winner {
    uint32_t at; /* upper left of its 3x3 pixels: element of a block's plane */
    float gradient;
};

struct winners_at {
    const float *x;        /* [batch][blocks_in][height][width][BLOCK] */
    const float *weights;  /* [channels out][blocks_in][9][BLOCK] */
    const float *dy;       /* [batch][blocks_out][(height-2)/2][(width-2)/2][BLOCK] */
    const int32_t *winner; /* of the same shape; as of pool.c */
    struct winner *list;   /* [BLOCK][windows of a picture]: for its use */
    float *dx;             /* as x; NULL: not wanted */
    float *dweights;       /* as weights */
    float *dbias;          /* [channels out] */
};

void winners8_backward(const struct winners *s, const struct winners_at *at);
void winners16_backward(const struct winners *s, const struct winners_at *at);

#endif
