#include "unit/device/far.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ARENA_BYTES ((size_t)256 << 20)
#define WORK_MAX    4096 /* of a stream between two syncs */

/* One call that was put into a stream. */
struct work {
    void (*run)(struct device_stream *stream, const struct work *work);
    void *to, *to2;
    const void *from, *from2;
    uint64_t n;
    uint32_t batch, classes, real;
    uint8_t byte;
    bool flag;
    struct device_layer *layer;
    struct device_update update;
    struct device_event *event;
    uint64_t point; /* of the event */
};

struct device {
    struct device *near;
    uint8_t *arena; /* nobody's, but while work is done */
    size_t used;
    pthread_mutex_t lock;
};

struct device_stream {
    struct device *device;
    struct device_stream *near;
    struct work work[WORK_MAX];
    uint32_t count, done;
};

/* Points are numbered; a stream passes one when its turn comes. */
struct device_event {
    struct device_stream *stream; /* NULL: never recorded */
    uint64_t records, passed;     /* newest point, and the newest that was passed */
};

static const struct device_ops *near;

/* ---- doing the work ------------------------------------------------------------------------- */

/* Under the lock: all that a stream was given, or as far as the event's point. */
static void work_off(struct device_stream *stream, const struct device_event *until, uint64_t point)
{
    while (stream->done < stream->count && (until == NULL || until->passed < point)) {
        const struct work *work = &stream->work[stream->done++];

        work->run(stream, work);
    }
    if (stream->done == stream->count)
        stream->done = stream->count = 0;
}

static void enter(struct device *device)
{
    (void)pthread_mutex_lock(&device->lock);
    (void)mprotect(device->arena, ARENA_BYTES, PROT_READ | PROT_WRITE);
}

static void leave(struct device *device)
{
    (void)mprotect(device->arena, ARENA_BYTES, PROT_NONE);
    (void)pthread_mutex_unlock(&device->lock);
}

static void far_sync(struct device_stream *stream)
{
    enter(stream->device);
    work_off(stream, NULL, 0);
    leave(stream->device);
}

static void put(struct device_stream *stream, const struct work *work)
{
    (void)pthread_mutex_lock(&stream->device->lock);
    assert(stream->count < WORK_MAX);
    stream->work[stream->count++] = *work;
    (void)pthread_mutex_unlock(&stream->device->lock);
}

/* ---- device, memory, streams ---------------------------------------------------------------- */

static enum device_status far_open(const struct device_options *options, struct device **out,
                                   struct device_error *error)
{
    struct device *device = calloc(1, sizeof *device);

    near = device_reference_ops();
    assert(device != NULL);
    device->arena = mmap(NULL, ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                         -1, 0);
    assert(device->arena != MAP_FAILED);
    (void)pthread_mutex_init(&device->lock, NULL);
    *out = device;
    return near->open(options, &device->near, error);
}

static void far_close(struct device *device)
{
    near->close(device->near);
    (void)munmap(device->arena, ARENA_BYTES);
    (void)pthread_mutex_destroy(&device->lock);
    free(device);
}

static void far_fingerprint(const struct device *device, char *text, size_t text_bytes)
{
    near->fingerprint(device->near, text, text_bytes);
}

static void *far_alloc(struct device *device, size_t bytes)
{
    void *memory = device->arena + device->used;

    device->used += (bytes + DEVICE_ALIGN - 1) / DEVICE_ALIGN * DEVICE_ALIGN;
    assert(device->used <= ARENA_BYTES);
    return memory;
}

static void far_release(struct device *device, void *memory)
{
    assert(memory == NULL || ((uint8_t *)memory >= device->arena &&
                              (uint8_t *)memory < device->arena + ARENA_BYTES));
}

static enum device_status far_stream_open(struct device *device, struct device_stream **out,
                                          struct device_error *error)
{
    *out = calloc(1, sizeof **out);
    assert(*out != NULL);
    (*out)->device = device;
    return near->stream_open(device->near, &(*out)->near, error);
}

static void far_stream_close(struct device_stream *stream)
{
    if (stream == NULL)
        return;
    far_sync(stream);
    near->stream_close(stream->near);
    free(stream);
}

/* ---- events --------------------------------------------------------------------------------- */

static enum device_status far_event_open(struct device *device, struct device_event **event,
                                         struct device_error *error)
{
    (void)device;
    (void)error;
    *event = calloc(1, sizeof **event);
    assert(*event != NULL);
    return DEVICE_OK;
}

static void far_event_close(struct device_event *event)
{
    free(event);
}

static void run_record(struct device_stream *stream, const struct work *work)
{
    (void)stream;
    if (work->event->passed < work->point)
        work->event->passed = work->point;
}

static void far_event_record(struct device_event *event, struct device_stream *stream)
{
    event->stream = stream;
    put(stream, &(struct work){.run = run_record, .event = event, .point = ++event->records});
}

static void run_wait(struct device_stream *stream, const struct work *work)
{
    (void)stream;
    if (work->event->passed < work->point)
        work_off(work->event->stream, work->event, work->point);
}

static void far_event_wait(struct device_event *event, struct device_stream *stream)
{
    put(stream, &(struct work){.run = run_wait, .event = event, .point = event->records});
}

/* The first who asks comes too early; the work goes on meanwhile. */
static bool far_event_done(struct device_event *event)
{
    bool done = event->passed >= event->records;

    if (done)
        return true;
    enter(event->stream->device);
    work_off(event->stream, event, event->records);
    leave(event->stream->device);
    return false;
}

/* ---- ops ------------------------------------------------------------------------------------ */

static void run_fill(struct device_stream *stream, const struct work *w)
{
    near->fill(stream->near, w->to, w->byte, w->n);
}

static void far_fill(struct device_stream *stream, void *to, uint8_t byte, size_t bytes)
{
    put(stream, &(struct work){.run = run_fill, .to = to, .byte = byte, .n = bytes});
}

static void run_copy(struct device_stream *stream, const struct work *w)
{
    near->copy(stream->near, w->to, w->from, w->n);
}

static void far_copy(struct device_stream *stream, void *to, const void *from, size_t bytes)
{
    put(stream, &(struct work){.run = run_copy, .to = to, .from = from, .n = bytes});
}

static void run_load(struct device_stream *stream, const struct work *w)
{
    (void)stream;
    near->layer_load(w->layer, w->from);
}

static void run_forward(struct device_stream *stream, const struct work *w)
{
    (void)stream;
    near->layer_forward(w->layer, w->from);
}

static void run_backward(struct device_stream *stream, const struct work *w)
{
    (void)stream;
    near->layer_backward(w->layer, w->from, w->to, w->flag);
}

static void run_loss(struct device_stream *stream, const struct work *w)
{
    near->loss(stream->near, w->from, w->from2, w->batch, w->classes, w->real, w->to, w->to2);
}

static void far_loss(struct device_stream *stream, const float *logits, const uint8_t *labels,
                     uint32_t batch, uint32_t classes, uint32_t real, float *dlogits,
                     float metrics[3])
{
    put(stream, &(struct work){.run = run_loss, .from = logits, .from2 = labels, .batch = batch,
                               .classes = classes, .real = real, .to = dlogits, .to2 = metrics});
}

static void run_normalize(struct device_stream *stream, const struct work *w)
{
    near->normalize(stream->near, w->from, w->n, w->to);
}

static void far_normalize(struct device_stream *stream, const uint8_t *bytes, uint64_t n,
                          float *out)
{
    put(stream, &(struct work){.run = run_normalize, .from = bytes, .n = n, .to = out});
}

static void run_add(struct device_stream *stream, const struct work *w)
{
    near->add(stream->near, w->to, w->from, w->from2, w->n);
}

static void far_add(struct device_stream *stream, float *dst, const float *a, const float *b,
                    uint64_t n)
{
    put(stream, &(struct work){.run = run_add, .to = dst, .from = a, .from2 = b, .n = n});
}

static void run_update(struct device_stream *stream, const struct work *w)
{
    near->update(stream->near, &w->update);
}

static void far_update(struct device_stream *stream, const struct device_update *update)
{
    put(stream, &(struct work){.run = run_update, .update = *update});
}

static void run_square_sums(struct device_stream *stream, const struct work *w)
{
    near->square_sums(stream->near, w->from, w->n, w->to);
}

static void far_square_sums(struct device_stream *stream, const float *x, uint64_t n, double *sums)
{
    put(stream, &(struct work){.run = run_square_sums, .from = x, .n = n, .to = sums});
}

static void run_hashes(struct device_stream *stream, const struct work *w)
{
    near->hashes(stream->near, w->from, w->n, w->to);
}

static void far_hashes(struct device_stream *stream, const void *bytes, uint64_t n,
                       uint64_t *hashes)
{
    put(stream, &(struct work){.run = run_hashes, .from = bytes, .n = n, .to = hashes});
}

/* ---- layers: the reference's, behind their stream ------------------------------------------- */

struct device_layer {
    struct device_stream *stream;
    struct device_layer *near;
};

static enum device_status far_layer_new(struct device_stream *stream,
                                        const struct device_layer_spec *spec,
                                        struct device_layer *below, struct device_layer **out,
                                        struct device_error *error)
{
    *out = calloc(1, sizeof **out);
    assert(*out != NULL);
    (*out)->stream = stream;
    return near->layer_new(stream->near, spec, below != NULL ? below->near : NULL, &(*out)->near,
                           error);
}

static void far_layer_free(struct device_layer *layer)
{
    if (layer == NULL)
        return;
    near->layer_free(layer->near);
    free(layer);
}

static void far_layer_load(struct device_layer *layer, const float *params)
{
    put(layer->stream, &(struct work){.run = run_load, .layer = layer->near, .from = params});
}

static void far_layer_forward(struct device_layer *layer, const float *input)
{
    put(layer->stream, &(struct work){.run = run_forward, .layer = layer->near, .from = input});
}

static const float *far_layer_output(struct device_layer *layer)
{
    return near->layer_output(layer->near);
}

static void far_layer_backward(struct device_layer *layer, const float *doutput, float *dparams,
                               bool want_input)
{
    put(layer->stream, &(struct work){.run = run_backward, .layer = layer->near, .from = doutput,
                                      .to = dparams, .flag = want_input});
}

static const float *far_layer_dinput(struct device_layer *layer)
{
    return near->layer_dinput(layer->near);
}

const struct device_ops *far_ops(void)
{
    static const struct device_ops ops = {
        "far", DEVICE_VTABLE_VERSION, far_open, far_close, far_fingerprint, far_alloc, far_release,
        far_fill, far_copy, far_copy, far_copy, far_stream_open, far_stream_close, far_sync,
        far_event_open, far_event_close, far_event_record, far_event_wait, far_event_done,
        far_layer_new, far_layer_free, far_layer_load, far_layer_forward, far_layer_output,
        far_layer_backward, far_layer_dinput, far_loss, far_normalize, far_add, far_update,
        far_square_sums, far_hashes};

    return &ops;
}
