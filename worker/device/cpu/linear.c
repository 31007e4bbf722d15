/* y = x W^T + b by oneDNN's single-precision matrix product on plain layouts: weights are read and
 * their gradient is written in the canonical layout, without a copy. Forward makes y^T = W x^T: the
 * library copies what it reads transposed, and x is much smaller than W. */
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

struct linear {
    const float *params;  /* the caller's, valid until the next load */
    const float *input;   /* plain; the caller's or the layer's below */
    float *output;        /* [batch][outputs] */
    float *across;        /* [outputs][batch]: y^T before bias and ReLU */
    float *dy;            /* gradient before the ReLU */
    float *dinput;        /* [batch][inputs] */
};

static float *floats(size_t count)
{
    size_t bytes = (count * sizeof(float) + DEVICE_ALIGN - 1) / DEVICE_ALIGN * DEVICE_ALIGN;
    float *memory = aligned_alloc(DEVICE_ALIGN, bytes);

    if (memory != NULL)
        memset(memory, 0, bytes);
    return memory;
}

enum device_status linear_new(struct device_layer *layer, struct device_error *error)
{
    const struct device_layer_spec *s = &layer->spec;
    struct linear *l = calloc(1, sizeof *l);

    layer->linear = l;
    if (l != NULL) {
        l->output = floats((size_t)s->batch * s->outputs);
        l->across = floats((size_t)s->batch * s->outputs);
        l->dy = floats((size_t)s->batch * s->outputs);
        l->dinput = floats((size_t)s->batch * s->inputs);
    }
    if (l == NULL || l->output == NULL || l->across == NULL || l->dy == NULL || l->dinput == NULL) {
        error->status = DEVICE_MEMORY;
        return DEVICE_MEMORY;
    }
    return DEVICE_OK;
}

void linear_free(struct linear *l)
{
    if (l == NULL)
        return;
    free(l->output);
    free(l->across);
    free(l->dy);
    free(l->dinput);
    free(l);
}

void linear_load(struct device_layer *layer, const float *params)
{
    layer->linear->params = params;
}

static const float *output_of(struct device_layer *layer)
{
    return layer->conv != NULL ? conv_output(layer) : linear_output(layer);
}

void linear_forward(struct device_layer *layer, const float *input)
{
    const struct device_layer_spec *s = &layer->spec;
    struct linear *l = layer->linear;

    l->input = layer->below != NULL ? output_of(layer->below) : input;
    (void)dnnl_sgemm('N', 'T', s->outputs, s->batch, s->inputs, 1.0f, l->params, s->inputs,
                     l->input, s->inputs, 0.0f, l->across, s->batch);
    for (uint32_t row = 0; row < s->batch; row++)
        for (uint32_t column = 0; column < s->outputs; column++)
            l->output[(size_t)row * s->outputs + column] =
                l->across[(size_t)column * s->batch + row];
    flat_bias_relu(l->output, l->params + (size_t)s->inputs * s->outputs, s->batch, s->outputs,
                   s->kind == DEVICE_LINEAR_RELU);
}

const float *linear_output(struct device_layer *layer)
{
    return layer->linear->output;
}

void linear_backward(struct device_layer *layer, const float *doutput, float *dparams,
                     bool want_input)
{
    const struct device_layer_spec *s = &layer->spec;
    struct linear *l = layer->linear;
    const float *from = layer->above != NULL ? layer->above->linear->dinput : doutput;

    memcpy(l->dy, from, (size_t)s->batch * s->outputs * sizeof(float));
    if (s->kind == DEVICE_LINEAR_RELU)
        flat_relu_mask(l->dy, l->output, (uint64_t)s->batch * s->outputs);
    (void)dnnl_sgemm('T', 'N', s->outputs, s->inputs, s->batch, 1.0f, l->dy, s->outputs, l->input,
                     s->inputs, 0.0f, dparams, s->inputs);
    flat_column_sums(l->dy, s->batch, s->outputs, dparams + (size_t)s->inputs * s->outputs);
    if (want_input)
        (void)dnnl_sgemm('N', 'N', s->batch, s->inputs, s->outputs, 1.0f, l->dy, s->outputs,
                         l->params, s->inputs, 0.0f, l->dinput, s->inputs);
}

const float *linear_dinput(struct device_layer *layer)
{
    return layer->linear->dinput;
}
