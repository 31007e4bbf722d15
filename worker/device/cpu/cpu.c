/* The CPU device: instruction set, memory, streams, and the vtable. One thread per stream; oneDNN
 * is told to use one OpenMP thread in it, so that bits do not depend on how many streams there
 * are. */
#include "cpu.h"

#include <gnu/libc-version.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define LARGE_BYTES     (4 * HUGE_PAGE_BYTES)

/* oneDNN's instruction set is the process's: the first device that is opened pins it. */
static pthread_mutex_t pin_lock = PTHREAD_MUTEX_INITIALIZER;
static char pinned[16];

static enum device_status fail(struct device_error *error, enum device_status status,
                               const char *text)
{
    error->status = status;
    (void)snprintf(error->text, sizeof error->text, "%s", text);
    return status;
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

static enum device_status pin_isa(struct device *device, const char *isa,
                                  struct device_error *error)
{
    bool wide = strcmp(isa, "avx512") == 0 || (strcmp(isa, "native") == 0 && has_avx512());
    enum device_status status = DEVICE_OK;

    if (!has_avx2() || (wide && !has_avx512()))
        return fail(error, DEVICE_ISA,
                    wide ? "--isa avx512: this CPU does not have it; use avx2 or native"
                         : "this CPU has no AVX2 with FMA, which the CPU device needs");
    device->avx512 = wide;
    (void)snprintf(device->isa, sizeof device->isa, "%s", wide ? "avx512" : "avx2");
    (void)pthread_mutex_lock(&pin_lock);
    if (pinned[0] == '\0') {
        (void)dnnl_set_max_cpu_isa(wide ? dnnl_cpu_isa_avx512_core : dnnl_cpu_isa_avx2);
        memcpy(pinned, device->isa, sizeof pinned);
    } else if (strcmp(pinned, device->isa) != 0) {
        status = fail(error, DEVICE_ISA, "one process works with one instruction set");
    }
    (void)pthread_mutex_unlock(&pin_lock);
    return status;
}

static void cpu_close(struct device *device)
{
    if (device == NULL)
        return;
    if (device->engine != NULL)
        (void)dnnl_engine_destroy(device->engine);
    free(device);
}

static enum device_status cpu_open(const struct device_options *options, struct device **out,
                                   struct device_error *error)
{
    struct device *device = calloc(1, sizeof *device);
    enum device_status status;

    *out = NULL;
    if (device == NULL)
        return fail(error, DEVICE_MEMORY, "out of memory");
    status = pin_isa(device, options->isa, error);
    if (status == DEVICE_OK && dnnl_engine_create(&device->engine, dnnl_cpu, 0) != dnnl_success)
        status = fail(error, DEVICE_LIBRARY, "oneDNN has no CPU engine");
    if (status != DEVICE_OK) {
        cpu_close(device);
        return status;
    }
    *out = device;
    return DEVICE_OK;
}

const char *device_cpu_version(void)
{
    static char text[32];
    const dnnl_version_t *v = dnnl_version();

    (void)snprintf(text, sizeof text, "%d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

static void cpu_fingerprint(const struct device *device, char *text, size_t text_bytes)
{
    (void)snprintf(text, text_bytes, "compiler=%s\ndevice=cpu\nisa=%s\nlibc=%s\nonednn=%s\n",
                   __VERSION__, device->isa, gnu_get_libc_version(), device_cpu_version());
}

/* Large buffers are of huge pages where the system has some: they are read from end to end, which
 * small pages slow down by a tenth. */
static void *cpu_alloc(struct device *device, size_t bytes)
{
    bool large = bytes >= LARGE_BYTES;
    size_t align = large ? HUGE_PAGE_BYTES : DEVICE_ALIGN;
    size_t rounded = (bytes + align - 1) / align * align;
    void *memory = aligned_alloc(align, rounded > 0 ? rounded : align);

    (void)device;
    if (memory == NULL)
        return NULL;
    if (large)
        (void)madvise(memory, rounded, MADV_HUGEPAGE);
    memset(memory, 0, rounded);
    return memory;
}

static void cpu_release(struct device *device, void *memory)
{
    (void)device;
    free(memory);
}

static void cpu_fill(struct device_stream *stream, void *to, uint8_t byte, size_t bytes)
{
    (void)stream;
    memset(to, byte, bytes);
}

static void cpu_copy(struct device_stream *stream, void *to, const void *from, size_t bytes)
{
    (void)stream;
    memcpy(to, from, bytes);
}

static void cpu_stream_close(struct device_stream *stream)
{
    if (stream == NULL)
        return;
    if (stream->stream != NULL)
        (void)dnnl_stream_destroy(stream->stream);
    free(stream);
}

static enum device_status cpu_stream_open(struct device *device, struct device_stream **out,
                                          struct device_error *error)
{
    struct device_stream *stream = calloc(1, sizeof *stream);

    *out = NULL;
    if (stream == NULL)
        return fail(error, DEVICE_MEMORY, "out of memory");
    omp_set_num_threads(1);
    stream->device = device;
    if (dnnl_stream_create(&stream->stream, device->engine, dnnl_stream_default_flags) !=
        dnnl_success) {
        cpu_stream_close(stream);
        return fail(error, DEVICE_LIBRARY, "oneDNN has no stream");
    }
    *out = stream;
    return DEVICE_OK;
}

static void cpu_stream_sync(struct device_stream *stream)
{
    (void)dnnl_stream_wait(stream->stream);
}

/* ---- events: all work of a stream is done when its call returns ----------------------------- */

static enum device_status cpu_event_open(struct device *device, struct device_event **out,
                                         struct device_error *error)
{
    (void)device;
    *out = calloc(1, sizeof **out);
    return *out != NULL ? DEVICE_OK : fail(error, DEVICE_MEMORY, "out of memory");
}

static void cpu_event_close(struct device_event *event)
{
    free(event);
}

static void cpu_event_record(struct device_event *event, struct device_stream *stream)
{
    (void)stream;
    __atomic_add_fetch(&event->records, 1, __ATOMIC_RELEASE);
}

/* What was done before the record is seen by whoever asks. */
static bool cpu_event_done(struct device_event *event)
{
    (void)__atomic_load_n(&event->records, __ATOMIC_ACQUIRE);
    return true;
}

static void cpu_event_wait(struct device_event *event, struct device_stream *stream)
{
    (void)stream;
    (void)cpu_event_done(event);
}

/* ---- layers: to conv.c or linear.c ---------------------------------------------------------- */

static void cpu_layer_free(struct device_layer *layer)
{
    if (layer == NULL)
        return;
    conv_free(layer->conv);
    linear_free(layer->linear);
    free(layer);
}

static enum device_status cpu_layer_new(struct device_stream *stream,
                                        const struct device_layer_spec *spec,
                                        struct device_layer *below, struct device_layer **out,
                                        struct device_error *error)
{
    struct device_layer *layer = calloc(1, sizeof *layer);
    enum device_status status;

    *out = NULL;
    if (layer == NULL)
        return fail(error, DEVICE_MEMORY, "out of memory");
    if (spec->kind == DEVICE_CONV_RELU_POOL && below != NULL && below->conv == NULL) {
        free(layer);
        return fail(error, DEVICE_SHAPE, "a convolution above a linear layer");
    }
    layer->spec = *spec;
    layer->stream = stream;
    layer->below = below;
    status = spec->kind == DEVICE_CONV_RELU_POOL ? conv_new(layer, error)
                                                 : linear_new(layer, error);
    if (status != DEVICE_OK) {
        cpu_layer_free(layer);
        return status;
    }
    if (below != NULL)
        below->above = layer;
    *out = layer;
    return DEVICE_OK;
}

static void cpu_layer_load(struct device_layer *layer, const float *params)
{
    if (layer->conv != NULL)
        conv_load(layer, params);
    else
        linear_load(layer, params);
}

static void cpu_layer_forward(struct device_layer *layer, const float *input)
{
    if (layer->conv != NULL)
        conv_forward(layer, input);
    else
        linear_forward(layer, input);
}

static const float *cpu_layer_output(struct device_layer *layer)
{
    return layer->conv != NULL ? conv_output(layer) : linear_output(layer);
}

static void cpu_layer_backward(struct device_layer *layer, const float *doutput, float *dparams,
                               bool want_input)
{
    if (layer->conv != NULL)
        conv_backward(layer, doutput, dparams, want_input);
    else
        linear_backward(layer, doutput, dparams, want_input);
}

static const float *cpu_layer_dinput(struct device_layer *layer)
{
    return layer->conv != NULL ? conv_dinput(layer) : linear_dinput(layer);
}

const struct device_ops *device_cpu_ops(void)
{
    static const struct device_ops ops = {
        "cpu", DEVICE_VTABLE_VERSION, cpu_open, cpu_close, cpu_fingerprint, cpu_alloc, cpu_release,
        cpu_fill, cpu_copy, cpu_copy, cpu_copy, cpu_stream_open, cpu_stream_close, cpu_stream_sync,
        cpu_event_open, cpu_event_close, cpu_event_record, cpu_event_wait, cpu_event_done,
        cpu_layer_new, cpu_layer_free, cpu_layer_load, cpu_layer_forward, cpu_layer_output,
        cpu_layer_backward, cpu_layer_dinput, flat_loss, flat_normalize, flat_add, flat_update,
        flat_square_sums, flat_hashes};

    return &ops;
}
