/* Convolution by oneDNN's primitives, made once; ReLU and max-pool by pool.c, and backward by
 * winners.c where channels fill whole blocks. Between two
 * convolutions values stay in the blocked layout (nChw8c or nChw16c); plain copies are made only
 * where a linear layer or the caller looks at them. */
#include "cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARGS_MAX 6

/* A primitive with its arguments. */
struct job {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[ARGS_MAX];
    int count;
};

/* A tensor: description and memory of our own. */
struct tensor {
    dnnl_memory_desc_t desc;
    dnnl_memory_t memory;
    float *data;
};

struct conv {
    struct tensor src;        /* what the convolution reads */
    struct tensor plain_in;   /* the caller's input, NCHW; also dinput as the caller sees it */
    struct tensor weights, weights_back, weights_plain, bias;
    struct tensor dst, pooled, pooled_plain;
    struct tensor ddst, dpooled, dsrc, dweights, dweights_plain, dbias;
    struct tensor ddst_weights; /* ddst as backward-weights wants it, when that is another layout */
    struct job load, load_back, read_in, forward, plain_out, from_plain, for_weights, back_weights,
        back_data, plain_weights, plain_din;
    int32_t *winner;          /* of each pooled value */
    float *stem_weights;      /* [blocks][9][block], and as many gradients; NULL: not a stem */
    float *winner_weights;    /* [channels out][blocks in][9][block], and as many gradients */
    struct winner *winner_list;
    bool reads_plain;         /* src is plain_in itself (one input channel) */
    bool by_winners;          /* backward is winners.c's: channels of both sides fill blocks */
};

/* Everything that making a layer needs; the first failure is kept. */
struct maker {
    struct device_layer *layer;
    struct conv *c;
    dnnl_engine_t engine;
    dnnl_status_t status;
};

static bool ok(struct maker *m, dnnl_status_t status)
{
    if (m->status == dnnl_success)
        m->status = status;
    return m->status == dnnl_success;
}

static void tensor_make(struct maker *m, struct tensor *t, const dnnl_memory_desc_t *desc)
{
    size_t bytes =
        (dnnl_memory_desc_get_size(desc) + DEVICE_ALIGN - 1) / DEVICE_ALIGN * DEVICE_ALIGN;

    if (m->status != dnnl_success)
        return;
    t->desc = *desc;
    t->data = aligned_alloc(DEVICE_ALIGN, bytes > 0 ? bytes : DEVICE_ALIGN);
    if (t->data == NULL) {
        (void)ok(m, dnnl_out_of_memory);
        return;
    }
    memset(t->data, 0, bytes);
    (void)ok(m, dnnl_memory_create(&t->memory, desc, m->engine, t->data));
}

static void tensor_release(struct tensor *t)
{
    if (t->memory != NULL)
        (void)dnnl_memory_destroy(t->memory);
    free(t->data);
}

static dnnl_memory_desc_t describe(struct maker *m, const dnnl_dim_t *dims, int count,
                                   dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t desc;

    memset(&desc, 0, sizeof desc);
    (void)ok(m, dnnl_memory_desc_init_by_tag(&desc, count, dims, dnnl_f32, tag));
    return desc;
}

static void job_arg(struct job *job, int name, dnnl_memory_t memory)
{
    job->args[job->count].arg = name;
    job->args[job->count++].memory = memory;
}

static void job_run(struct device_layer *layer, const struct job *job)
{
    if (job->primitive != NULL)
        (void)dnnl_primitive_execute(job->primitive, layer->stream->stream, job->count, job->args);
}

static void make_reorder(struct maker *m, struct job *job, struct tensor *from, struct tensor *to)
{
    dnnl_primitive_desc_t desc = NULL;

    if (m->status == dnnl_success &&
        ok(m, dnnl_reorder_primitive_desc_create(&desc, &from->desc, m->engine, &to->desc,
                                                 m->engine, NULL)) &&
        ok(m, dnnl_primitive_create(&job->primitive, desc))) {
        job_arg(job, DNNL_ARG_FROM, from->memory);
        job_arg(job, DNNL_ARG_TO, to->memory);
    }
    if (desc != NULL)
        (void)dnnl_primitive_desc_destroy(desc);
}

/* ---- making --------------------------------------------------------------------------------- */

static const dnnl_dims_t strides = {1, 1}, padding = {0, 0};

static void make_forward(struct maker *m, dnnl_primitive_desc_t *hint,
                         const dnnl_memory_desc_t *any)
{
    struct conv *c = m->c;
    dnnl_convolution_desc_t desc;

    if (!ok(m, dnnl_convolution_forward_desc_init(&desc, dnnl_forward_training,
                                                  dnnl_convolution_direct, &c->src.desc, any,
                                                  &c->bias.desc, &c->dst.desc, strides, padding,
                                                  padding)) ||
        !ok(m, dnnl_primitive_desc_create(hint, &desc, NULL, m->engine, NULL)))
        return;
    tensor_make(m, &c->weights, dnnl_primitive_desc_query_md(*hint, dnnl_query_weights_md, 0));
    if (!ok(m, dnnl_primitive_create(&c->forward.primitive, *hint)))
        return;
    job_arg(&c->forward, DNNL_ARG_SRC, c->src.memory);
    job_arg(&c->forward, DNNL_ARG_WEIGHTS, c->weights.memory);
    job_arg(&c->forward, DNNL_ARG_BIAS, c->bias.memory);
    job_arg(&c->forward, DNNL_ARG_DST, c->dst.memory);
    make_reorder(m, &c->load, &c->weights_plain, &c->weights);
}

/* AVX2 has no blocked kernel for the weights of a convolution that reads one plain channel: there
 * the library chooses the layout of the gradient, and a copy is made in it. */
static void make_back_weights(struct maker *m, dnnl_primitive_desc_t hint,
                              const dnnl_memory_desc_t *any)
{
    struct conv *c = m->c;
    bool free_layout = c->reads_plain && !m->layer->stream->device->avx512;
    dnnl_memory_desc_t any_ddst = describe(m, c->ddst.desc.dims, 4, dnnl_format_tag_any);
    dnnl_primitive_desc_t desc = NULL;
    dnnl_convolution_desc_t op;
    dnnl_memory_t ddst = c->ddst.memory;

    if (ok(m, dnnl_convolution_backward_weights_desc_init(
               &op, dnnl_convolution_direct, &c->src.desc, any, &c->bias.desc,
               free_layout ? &any_ddst : &c->ddst.desc, strides, padding, padding)) &&
        ok(m, dnnl_primitive_desc_create(&desc, &op, NULL, m->engine, hint))) {
        if (free_layout) {
            tensor_make(m, &c->ddst_weights,
                        dnnl_primitive_desc_query_md(desc, dnnl_query_diff_dst_md, 0));
            make_reorder(m, &c->for_weights, &c->ddst, &c->ddst_weights);
            ddst = c->ddst_weights.memory;
        }
        tensor_make(m, &c->dweights,
                    dnnl_primitive_desc_query_md(desc, dnnl_query_diff_weights_md, 0));
        if (ok(m, dnnl_primitive_create(&c->back_weights.primitive, desc))) {
            job_arg(&c->back_weights, DNNL_ARG_SRC, c->src.memory);
            job_arg(&c->back_weights, DNNL_ARG_DIFF_DST, ddst);
            job_arg(&c->back_weights, DNNL_ARG_DIFF_WEIGHTS, c->dweights.memory);
            job_arg(&c->back_weights, DNNL_ARG_DIFF_BIAS, c->dbias.memory);
        }
        make_reorder(m, &c->plain_weights, &c->dweights, &c->dweights_plain);
    }
    if (desc != NULL)
        (void)dnnl_primitive_desc_destroy(desc);
}

static void make_back_data(struct maker *m, dnnl_primitive_desc_t hint,
                           const dnnl_memory_desc_t *any)
{
    struct conv *c = m->c;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_convolution_desc_t op;

    if (ok(m, dnnl_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, &c->dsrc.desc,
                                                       any, &c->ddst.desc, strides, padding,
                                                       padding)) &&
        ok(m, dnnl_primitive_desc_create(&desc, &op, NULL, m->engine, hint))) {
        tensor_make(m, &c->weights_back,
                    dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0));
        if (ok(m, dnnl_primitive_create(&c->back_data.primitive, desc))) {
            job_arg(&c->back_data, DNNL_ARG_WEIGHTS, c->weights_back.memory);
            job_arg(&c->back_data, DNNL_ARG_DIFF_DST, c->ddst.memory);
            job_arg(&c->back_data, DNNL_ARG_DIFF_SRC, c->dsrc.memory);
        }
        make_reorder(m, &c->load_back, &c->weights_plain, &c->weights_back);
    }
    if (desc != NULL)
        (void)dnnl_primitive_desc_destroy(desc);
}

static void make_tensors(struct maker *m)
{
    const struct device_layer_spec *s = &m->layer->spec;
    dnnl_format_tag_t blocked = m->layer->stream->device->avx512 ? dnnl_nChw16c : dnnl_nChw8c;
    dnnl_dims_t in = {s->batch, s->channels_in, s->height, s->width};
    dnnl_dims_t out = {s->batch, s->channels_out, s->height - 2, s->width - 2};
    dnnl_dims_t half = {s->batch, s->channels_out, (s->height - 2) / 2, (s->width - 2) / 2};
    dnnl_dims_t w = {s->channels_out, s->channels_in, 3, 3}, b = {s->channels_out};
    struct conv *c = m->c;
    dnnl_memory_desc_t d;

#define MAKE(field, dims, n, tag) (d = describe(m, dims, n, tag), tensor_make(m, &c->field, &d))
    MAKE(plain_in, in, 4, dnnl_nchw);
    MAKE(src, in, 4, c->reads_plain ? dnnl_nchw : blocked);
    MAKE(dsrc, in, 4, blocked);
    MAKE(dst, out, 4, blocked);
    if (!c->by_winners)
        MAKE(ddst, out, 4, blocked);
    MAKE(pooled, half, 4, blocked);
    MAKE(dpooled, half, 4, blocked);
    MAKE(pooled_plain, half, 4, dnnl_nchw);
    MAKE(weights_plain, w, 4, dnnl_oihw);
    MAKE(dweights_plain, w, 4, dnnl_oihw);
    MAKE(bias, b, 1, dnnl_x);
    MAKE(dbias, b, 1, dnnl_x);
#undef MAKE
}

/* ---- the first layer of grey pictures: stem.c ------------------------------------------------ */

static uint32_t block_of(const struct device_layer *layer)
{
    return layer->stream->device->avx512 ? 16 : 8;
}

static struct stem stem_of(const struct device_layer *layer)
{
    const struct device_layer_spec *s = &layer->spec;

    return (struct stem){s->batch, s->channels_out / block_of(layer), s->height, s->width};
}

/* False: out of memory. What is not a stem goes through the library. */
static bool stem_new(struct device_layer *layer)
{
    const struct device_layer_spec *s = &layer->spec;

    if (s->channels_in != 1 || s->channels_out % block_of(layer) != 0)
        return true;
    layer->conv->stem_weights =
        aligned_alloc(DEVICE_ALIGN, (size_t)s->channels_out * 2 * 9 * sizeof(float) / DEVICE_ALIGN *
                                            DEVICE_ALIGN + DEVICE_ALIGN);
    return layer->conv->stem_weights != NULL;
}

/* False: out of memory. */
static bool winners_new(struct device_layer *layer)
{
    const struct device_layer_spec *s = &layer->spec;
    size_t windows = (size_t)((s->height - 2) / 2) * ((s->width - 2) / 2);
    size_t weights = (size_t)s->channels_out * s->channels_in * 9 * sizeof(float);
    struct conv *c = layer->conv;

    if (!c->by_winners)
        return true;
    c->winner_weights = aligned_alloc(DEVICE_ALIGN, 2 * weights);
    c->winner_list = malloc(windows * block_of(layer) * sizeof *c->winner_list);
    return c->winner_weights != NULL && c->winner_list != NULL;
}

/* [out][in][9] to [out][in / block][9][block], or back. */
static void winners_order(const struct device_layer *layer, float *plain, float *blocked, bool back)
{
    uint32_t block = block_of(layer), count = layer->spec.channels_out * layer->spec.channels_in;

    for (uint32_t first = 0; first < count; first += block)
        for (uint32_t t = 0; t < 9; t++)
            for (uint32_t v = 0; v < block; v++) {
                float *one = &plain[(first + v) * 9 + t];
                float *other = &blocked[first * 9 + t * block + v];

                *(back ? one : other) = *(back ? other : one);
            }
}

static void winners_backward(struct device_layer *layer, const float *dy, bool want_input)
{
    const struct device_layer_spec *s = &layer->spec;
    uint32_t block = block_of(layer);
    struct conv *c = layer->conv;
    float *gradient = c->winner_weights + (size_t)s->channels_out * s->channels_in * 9;
    struct winners shape = {s->batch, s->channels_in / block, s->channels_out / block, s->height,
                            s->width};
    struct winners_at at = {c->src.data, c->winner_weights, dy, c->winner, c->winner_list,
                            want_input ? c->dsrc.data : NULL, gradient, c->dbias.data};

    if (layer->stream->device->avx512)
        winners16_backward(&shape, &at);
    else
        winners8_backward(&shape, &at);
    winners_order(layer, c->dweights_plain.data, gradient, true);
}

/* [channels][9] to [blocks][9][block], or back. */
static void stem_order(const struct device_layer *layer, float *plain, float *blocked, bool back)
{
    uint32_t block = block_of(layer);

    for (uint32_t c = 0; c < layer->spec.channels_out; c++)
        for (uint32_t t = 0; t < 9; t++) {
            float *one = &plain[c * 9 + t];
            float *other = &blocked[(c / block * 9 + t) * block + c % block];

            *(back ? one : other) = *(back ? other : one);
        }
}

static void stem_forward(struct device_layer *layer)
{
    struct conv *c = layer->conv;
    struct stem s = stem_of(layer);

    if (layer->stream->device->avx512)
        stem16_forward(&s, c->src.data, c->stem_weights, c->bias.data, c->pooled.data, c->winner);
    else
        stem8_forward(&s, c->src.data, c->stem_weights, c->bias.data, c->pooled.data, c->winner);
}

static void stem_gradient(struct device_layer *layer, const float *dy)
{
    struct conv *c = layer->conv;
    struct stem s = stem_of(layer);
    float *gradient = c->stem_weights + (size_t)layer->spec.channels_out * 9;

    if (layer->stream->device->avx512)
        stem16_gradient(&s, c->src.data, dy, c->winner, gradient, c->dbias.data);
    else
        stem8_gradient(&s, c->src.data, dy, c->winner, gradient, c->dbias.data);
    stem_order(layer, c->dweights_plain.data, gradient, true);
}

/* ---- all ------------------------------------------------------------------------------------- */

enum device_status conv_new(struct device_layer *layer, struct device_error *error)
{
    const struct device_layer_spec *s = &layer->spec;
    dnnl_dims_t w = {s->channels_out, s->channels_in, 3, 3};
    struct maker m = {layer, calloc(1, sizeof(struct conv)), layer->stream->device->engine,
                      dnnl_success};
    dnnl_primitive_desc_t hint = NULL;
    dnnl_memory_desc_t any;

    layer->conv = m.c;
    if (m.c == NULL || s->height < 4 || s->width < 4) {
        error->status = m.c == NULL ? DEVICE_MEMORY : DEVICE_SHAPE;
        (void)snprintf(error->text, sizeof error->text, "a convolution of %ux%u pixels", s->height,
                       s->width);
        return error->status;
    }
    m.c->reads_plain = s->channels_in == 1;
    m.c->by_winners =
        s->channels_in % block_of(layer) == 0 && s->channels_out % block_of(layer) == 0;
    make_tensors(&m);
    any = describe(&m, w, 4, dnnl_format_tag_any);
    make_forward(&m, &hint, &any);
    if (!m.c->by_winners) {
        make_back_weights(&m, hint, &any);
        make_back_data(&m, hint, &any);
    }
    if (!m.c->reads_plain)
        make_reorder(&m, &m.c->read_in, &m.c->plain_in, &m.c->src);
    make_reorder(&m, &m.c->plain_out, &m.c->pooled, &m.c->pooled_plain);
    make_reorder(&m, &m.c->from_plain, &m.c->pooled_plain, &m.c->dpooled);
    make_reorder(&m, &m.c->plain_din, &m.c->dsrc, &m.c->plain_in);
    m.c->winner = m.status == dnnl_success
                      ? malloc(dnnl_memory_desc_get_size(&m.c->pooled.desc))
                      : NULL;
    if (hint != NULL)
        (void)dnnl_primitive_desc_destroy(hint);
    if (m.status == dnnl_success && m.c->winner != NULL && stem_new(layer) &&
        winners_new(layer))
        return DEVICE_OK;
    error->status = DEVICE_LIBRARY;
    (void)snprintf(error->text, sizeof error->text,
                   "oneDNN: status %d while a convolution was made", (int)m.status);
    return DEVICE_LIBRARY;
}

void conv_free(struct conv *c)
{
    if (c == NULL)
        return;
    for (struct job *job = &c->load; job <= &c->plain_din; job++)
        if (job->primitive != NULL)
            (void)dnnl_primitive_destroy(job->primitive);
    for (struct tensor *t = &c->src; t <= &c->ddst_weights; t++)
        tensor_release(t);
    free(c->winner);
    free(c->stem_weights);
    free(c->winner_weights);
    free(c->winner_list);
    free(c);
}

/* ---- running -------------------------------------------------------------------------------- */

static size_t weight_count(const struct device_layer *layer)
{
    return (size_t)layer->spec.channels_out * layer->spec.channels_in * 9;
}

void conv_load(struct device_layer *layer, const float *params)
{
    struct conv *c = layer->conv;

    memcpy(c->weights_plain.data, params, weight_count(layer) * sizeof(float));
    memcpy(c->bias.data, params + weight_count(layer), layer->spec.channels_out * sizeof(float));
    job_run(layer, &c->load);
    job_run(layer, &c->load_back);
    if (c->stem_weights != NULL)
        stem_order(layer, c->weights_plain.data, c->stem_weights, false);
    if (c->by_winners)
        winners_order(layer, c->weights_plain.data, c->winner_weights, false);
}

/* Planes of one block of channels each. */
static uint64_t planes_of(const struct device_layer *layer)
{
    uint32_t block = block_of(layer);

    return (uint64_t)layer->spec.batch * ((layer->spec.channels_out + block - 1) / block);
}

static size_t input_bytes(const struct device_layer *layer)
{
    const struct device_layer_spec *s = &layer->spec;

    return (size_t)s->batch * s->channels_in * s->height * s->width * sizeof(float);
}

void conv_forward(struct device_layer *layer, const float *input)
{
    uint32_t h = layer->spec.height - 2, w = layer->spec.width - 2;
    struct conv *c = layer->conv;

    if (layer->below == NULL) {
        memcpy(c->reads_plain ? c->src.data : c->plain_in.data, input, input_bytes(layer));
        job_run(layer, &c->read_in);
    } else if (c->reads_plain) {
        memcpy(c->src.data, conv_output(layer->below), input_bytes(layer));
    } else {
        memcpy(c->src.data, layer->below->conv->pooled.data,
               dnnl_memory_desc_get_size(&c->src.desc));
    }
    if (c->stem_weights != NULL) {
        stem_forward(layer);
        return;
    }
    job_run(layer, &c->forward);
    if (layer->stream->device->avx512)
        pool16_forward(c->dst.data, c->pooled.data, c->winner, planes_of(layer), h, w);
    else
        pool8_forward(c->dst.data, c->pooled.data, c->winner, planes_of(layer), h, w);
}

const float *conv_output(struct device_layer *layer)
{
    job_run(layer, &layer->conv->plain_out);
    return layer->conv->pooled_plain.data;
}

/* The gradient of the pooled values, blocked. */
static const float *pooled_gradient(struct device_layer *layer, const float *doutput)
{
    const struct device_layer_spec *s = &layer->spec;
    size_t bytes = (size_t)s->batch * s->channels_out * ((s->height - 2) / 2) *
                   ((s->width - 2) / 2) * sizeof(float);
    struct conv *c = layer->conv;

    if (layer->above != NULL && layer->above->conv != NULL)
        return layer->above->conv->dsrc.data;
    memcpy(c->pooled_plain.data,
           layer->above != NULL ? linear_dinput(layer->above) : doutput, bytes);
    job_run(layer, &c->from_plain);
    return c->dpooled.data;
}

/* The gradient before ReLU and maximum. */
static void pool_backward(struct device_layer *layer, const float *dy)
{
    uint32_t h = layer->spec.height - 2, w = layer->spec.width - 2;
    struct conv *c = layer->conv;

    if (layer->stream->device->avx512)
        pool16_backward(dy, c->winner, c->ddst.data, planes_of(layer), h, w);
    else
        pool8_backward(dy, c->winner, c->ddst.data, planes_of(layer), h, w);
}

void conv_backward(struct device_layer *layer, const float *doutput, float *dparams,
                   bool want_input)
{
    const float *dy = pooled_gradient(layer, doutput);
    struct conv *c = layer->conv;

    if (!c->by_winners && (c->stem_weights == NULL || want_input))
        pool_backward(layer, dy);
    if (c->stem_weights != NULL) {
        stem_gradient(layer, dy);
    } else if (c->by_winners) {
        winners_backward(layer, dy, want_input);
    } else {
        job_run(layer, &c->for_weights);
        job_run(layer, &c->back_weights);
        job_run(layer, &c->plain_weights);
    }
    memcpy(dparams, c->dweights_plain.data, weight_count(layer) * sizeof(float));
    memcpy(dparams + weight_count(layer), c->dbias.data, layer->spec.channels_out * sizeof(float));
    if (want_input && !c->by_winners)
        job_run(layer, &c->back_data);
}

const float *conv_dinput(struct device_layer *layer)
{
    job_run(layer, &layer->conv->plain_din);
    return layer->conv->plain_in.data;
}
