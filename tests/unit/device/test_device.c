/* Every op of the CPU device against the reference, forward and backward, over odd shapes; the
 * reference against finite differences; guard bytes round every buffer; the same bits on every
 * thread. */
#include "device/device.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define GUARD      64
#define GUARD_BYTE 0xa5

static const char *isa = "native"; /* or what the command line says; one for the process */
static uint64_t seed_state;

static float next_value(void)
{
    seed_state = seed_state * 6364136223846793005u + 1442695040888963407u;
    return (float)((int64_t)(seed_state >> 33) % 2001 - 1000) / 1000.0f;
}

/* A buffer with guards before and after; check_guards() looks at them. */
struct guarded {
    uint8_t *memory;
    size_t bytes;
    float *data;
};

static struct guarded guarded_new(size_t count)
{
    struct guarded g;

    g.bytes = (count * sizeof(float) + 63) / 64 * 64;
    g.memory = aligned_alloc(64, g.bytes + 2 * GUARD);
    assert_non_null(g.memory);
    memset(g.memory, GUARD_BYTE, g.bytes + 2 * GUARD);
    g.data = (float *)(void *)(g.memory + GUARD);
    for (size_t i = 0; i < count; i++)
        g.data[i] = next_value();
    return g;
}

static void guarded_free(struct guarded *g)
{
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal(g->memory[i], GUARD_BYTE);
        assert_int_equal(g->memory[GUARD + g->bytes + i], GUARD_BYTE);
    }
    free(g->memory);
}

struct rig {
    const struct device_ops *ops;
    struct device *device;
    struct device_stream *stream;
};

static struct rig rig_open(const struct device_ops *ops)
{
    struct device_options options = {isa};
    struct device_error error;
    struct rig rig = {ops, NULL, NULL};

    assert_int_equal(ops->open(&options, &rig.device, &error), DEVICE_OK);
    assert_int_equal(ops->stream_open(rig.device, &rig.stream, &error), DEVICE_OK);
    return rig;
}

static void rig_close(struct rig *rig)
{
    rig->ops->stream_close(rig->stream);
    rig->ops->close(rig->device);
}

static size_t param_count(const struct device_layer_spec *s)
{
    return s->kind == DEVICE_CONV_RELU_POOL ? (size_t)s->channels_out * (s->channels_in * 9 + 1)
                                            : (size_t)s->outputs * (s->inputs + 1);
}

static size_t input_count(const struct device_layer_spec *s)
{
    return (size_t)s->batch * (s->kind == DEVICE_CONV_RELU_POOL
                                   ? (size_t)s->channels_in * s->height * s->width : s->inputs);
}

static size_t output_count(const struct device_layer_spec *s)
{
    return (size_t)s->batch * (s->kind == DEVICE_CONV_RELU_POOL
                                   ? (size_t)s->channels_out * ((s->height - 2) / 2) *
                                         ((s->width - 2) / 2) : s->outputs);
}

static void assert_close(const char *what, const float *a, const float *b, size_t n, double limit)
{
    double difference = 0, size = 0;

    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    if (sqrt(difference) > limit * (sqrt(size) + 1e-6))
        fail_msg("%s: relative L2 difference %g > %g", what, sqrt(difference / (size + 1e-12)),
                 limit);
}

/* Two layers of one kind of shape on both devices, from the same values. */
static void compare_layers(const struct device_layer_spec *specs, int count)
{
    struct rig cpu = rig_open(device_cpu_ops()), ref = rig_open(device_reference_ops());
    struct device_layer *a[4] = {NULL}, *b[4] = {NULL};
    struct guarded params[4], ga[4], gb[4];
    struct guarded input = guarded_new(input_count(&specs[0]));
    struct guarded dout = guarded_new(output_count(&specs[count - 1]));
    struct device_error error;

    for (int i = 0; i < count; i++) {
        params[i] = guarded_new(param_count(&specs[i]));
        ga[i] = guarded_new(param_count(&specs[i]));
        gb[i] = guarded_new(param_count(&specs[i]));
        assert_int_equal(cpu.ops->layer_new(cpu.stream, &specs[i], i ? a[i - 1] : NULL, &a[i],
                                            &error), DEVICE_OK);
        assert_int_equal(ref.ops->layer_new(ref.stream, &specs[i], i ? b[i - 1] : NULL, &b[i],
                                            &error), DEVICE_OK);
        cpu.ops->layer_load(a[i], params[i].data);
        ref.ops->layer_load(b[i], params[i].data);
    }
    for (int i = 0; i < count; i++) {
        cpu.ops->layer_forward(a[i], input.data);
        ref.ops->layer_forward(b[i], input.data);
        assert_close("output", cpu.ops->layer_output(a[i]), ref.ops->layer_output(b[i]),
                     output_count(&specs[i]), 1e-5);
    }
    for (int i = count - 1; i >= 0; i--) {
        cpu.ops->layer_backward(a[i], dout.data, ga[i].data, true);
        ref.ops->layer_backward(b[i], dout.data, gb[i].data, true);
        assert_close("parameter gradient", ga[i].data, gb[i].data, param_count(&specs[i]), 2e-5);
    }
    assert_close("input gradient", cpu.ops->layer_dinput(a[0]), ref.ops->layer_dinput(b[0]),
                 input_count(&specs[0]), 2e-5);
    for (int i = 0; i < count; i++) {
        cpu.ops->layer_free(a[i]);
        ref.ops->layer_free(b[i]);
        guarded_free(&params[i]);
        guarded_free(&ga[i]);
        guarded_free(&gb[i]);
    }
    guarded_free(&input);
    guarded_free(&dout);
    rig_close(&cpu);
    rig_close(&ref);
}

static void test_convolutions(void **state)
{
    static const struct device_layer_spec shapes[] = {
        {DEVICE_CONV_RELU_POOL, 1, 1, 1, 4, 4, 0, 0},
        {DEVICE_CONV_RELU_POOL, 3, 1, 5, 7, 9, 0, 0},
        {DEVICE_CONV_RELU_POOL, 2, 3, 17, 8, 5, 0, 0},
        {DEVICE_CONV_RELU_POOL, 5, 16, 32, 13, 13, 0, 0},
        {DEVICE_CONV_RELU_POOL, 3, 1, 16, 7, 9, 0, 0},
        {DEVICE_CONV_RELU_POOL, 2, 1, 48, 11, 6, 0, 0},
        {DEVICE_CONV_RELU_POOL, 2, 33, 16, 6, 11, 0, 0},
        {DEVICE_CONV_RELU_POOL, 3, 32, 16, 4, 5, 0, 0},
        {DEVICE_CONV_RELU_POOL, 2, 16, 48, 9, 12, 0, 0},
        {DEVICE_CONV_RELU_POOL, 4, 1, 32, 28, 28, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        compare_layers(&shapes[i], 1);
}

static void test_linears(void **state)
{
    static const struct device_layer_spec shapes[] = {
        {DEVICE_LINEAR, 1, 0, 0, 0, 0, 1, 1},     {DEVICE_LINEAR_RELU, 7, 0, 0, 0, 0, 13, 5},
        {DEVICE_LINEAR, 32, 0, 0, 0, 0, 256, 10}, {DEVICE_LINEAR_RELU, 3, 0, 0, 0, 0, 1600, 256},
    };

    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        compare_layers(&shapes[i], 1);
}

static void test_chain(void **state)
{
    static const struct device_layer_spec chain[] = {
        {DEVICE_CONV_RELU_POOL, 3, 1, 32, 28, 28, 0, 0},
        {DEVICE_CONV_RELU_POOL, 3, 32, 64, 13, 13, 0, 0},
        {DEVICE_LINEAR_RELU, 3, 0, 0, 0, 0, 1600, 256},
        {DEVICE_LINEAR, 3, 0, 0, 0, 0, 256, 10},
    };

    (void)state;
    compare_layers(chain, 4);
}

/* sum(output * dout) of the reference, as a function of one parameter. */
static double objective(struct rig *ref, struct device_layer *layer, float *params,
                        const float *input, const float *dout, size_t n)
{
    double sum = 0;

    ref->ops->layer_load(layer, params);
    ref->ops->layer_forward(layer, input);
    for (size_t i = 0; i < n; i++)
        sum += (double)ref->ops->layer_output(layer)[i] * dout[i];
    return sum;
}

static void test_reference_by_differences(void **state)
{
    static const struct device_layer_spec shapes[] = {
        {DEVICE_CONV_RELU_POOL, 2, 2, 3, 6, 7, 0, 0}, {DEVICE_LINEAR_RELU, 4, 0, 0, 0, 0, 6, 5}};

    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const struct device_layer_spec *s = &shapes[k];
        struct rig ref = rig_open(device_reference_ops());
        size_t n = param_count(s), out = output_count(s);
        struct guarded params = guarded_new(n), input = guarded_new(input_count(s));
        struct guarded dout = guarded_new(out), grad = guarded_new(n);
        struct device_layer *layer;
        struct device_error error;

        assert_int_equal(ref.ops->layer_new(ref.stream, s, NULL, &layer, &error), DEVICE_OK);
        (void)objective(&ref, layer, params.data, input.data, dout.data, out);
        ref.ops->layer_backward(layer, dout.data, grad.data, true);
        for (size_t i = 0; i < n; i++) {
            float keep = params.data[i];
            const float h = 1e-3f;
            double up, down, slope;

            params.data[i] = keep + h;
            up = objective(&ref, layer, params.data, input.data, dout.data, out);
            params.data[i] = keep - h;
            down = objective(&ref, layer, params.data, input.data, dout.data, out);
            params.data[i] = keep;
            slope = (up - down) / (2.0 * (double)h);
            /* a kink of ReLU or of the maximum inside the interval moves the slope by a little */
            if (fabs(slope - grad.data[i]) > 0.02 * (1 + fabs(slope)))
                fail_msg("parameter %zu: slope %g, gradient %g", i, slope, (double)grad.data[i]);
        }
        ref.ops->layer_free(layer);
        guarded_free(&params);
        guarded_free(&input);
        guarded_free(&dout);
        guarded_free(&grad);
        rig_close(&ref);
    }
}

static void test_loss(void **state)
{
    struct rig cpu = rig_open(device_cpu_ops()), ref = rig_open(device_reference_ops());

    (void)state;
    for (uint32_t real = 1; real <= 9; real++) {
        struct guarded z = guarded_new(90), da = guarded_new(90), db = guarded_new(90);
        uint8_t labels[9] = {0, 1, 2, 3, 9, 5, 6, 7, 8};
        float ma[3], mb[3];

        z.data[3] = 80.0f; /* a large logit must not overflow */
        cpu.ops->loss(cpu.stream, z.data, labels, 9, 10, real, da.data, ma);
        ref.ops->loss(ref.stream, z.data, labels, 9, 10, real, db.data, mb);
        assert_close("dlogits", da.data, db.data, 90, 1e-6);
        assert_true(fabs((double)ma[0] - (double)mb[0]) < 1e-5 * (1 + fabs((double)mb[0])));
        assert_true(ma[1] == mb[1] && ma[2] == mb[2]);
        guarded_free(&z);
        guarded_free(&da);
        guarded_free(&db);
    }
    rig_close(&cpu);
    rig_close(&ref);
}

static void test_updates(void **state)
{
    struct rig cpu = rig_open(device_cpu_ops()), ref = rig_open(device_reference_ops());
    const enum device_update_kind kinds[] = {DEVICE_ADAM, DEVICE_ADAMW, DEVICE_SGD};

    (void)state;
    for (int k = 0; k < 3; k++) {
        struct guarded p = guarded_new(1003), g = guarded_new(1003), m = guarded_new(1003);
        struct guarded v = guarded_new(1003), p2 = guarded_new(1003), m2 = guarded_new(1003);
        struct guarded v2 = guarded_new(1003);

        memcpy(p2.data, p.data, 1003 * sizeof(float));
        memset(m.data, 0, 1003 * sizeof(float));
        memset(v.data, 0, 1003 * sizeof(float));
        memset(m2.data, 0, 1003 * sizeof(float));
        memset(v2.data, 0, 1003 * sizeof(float));
        for (uint64_t step = 1; step <= 5; step++) {
            const float divisor = 3.0f;
            struct device_update u = {kinds[k], p.data, g.data, m.data, v.data, &divisor, 1003,
                                      1.0f, 1e-2, 0.9, 0.999, 1e-8, 0.01, 0.9, step, k == 2};
            struct device_update u2 = u;

            u2.params = p2.data;
            u2.first = m2.data;
            u2.second = v2.data;
            cpu.ops->update(cpu.stream, &u);
            ref.ops->update(ref.stream, &u2);
        }
        assert_close("params", p.data, p2.data, 1003, 1e-6);
        assert_close("first", m.data, m2.data, 1003, 1e-6);
        assert_close("second", v.data, v2.data, 1003, 1e-6);
        guarded_free(&p); guarded_free(&g); guarded_free(&m); guarded_free(&v);
        guarded_free(&p2); guarded_free(&m2); guarded_free(&v2);
    }
    rig_close(&cpu);
    rig_close(&ref);
}

static void test_flat(void **state)
{
    struct rig cpu = rig_open(device_cpu_ops()), ref = rig_open(device_reference_ops());
    struct guarded a = guarded_new(200000), b = guarded_new(200000), c = guarded_new(200000);
    uint8_t bytes[1000];
    double sa[4], sb[4];
    uint64_t ha[16], hb[16];

    (void)state;
    a.data[0] = -0.0f;
    b.data[0] = -0.0f;
    cpu.ops->add(cpu.stream, c.data, a.data, b.data, 199999);
    assert_true(signbit(c.data[0]));
    for (size_t i = 0; i < 199999; i++)
        assert_true(c.data[i] == a.data[i] + b.data[i]);
    cpu.ops->square_sums(cpu.stream, a.data, 199999, sa);
    ref.ops->square_sums(ref.stream, a.data, 199999, sb);
    assert_memory_equal(sa, sb, sizeof sa);
    cpu.ops->hashes(cpu.stream, a.data, 199999 * 4, ha);
    ref.ops->hashes(ref.stream, a.data, 199999 * 4, hb);
    assert_memory_equal(ha, hb, 13 * sizeof ha[0]);
    for (int i = 0; i < 1000; i++)
        bytes[i] = (uint8_t)i;
    cpu.ops->normalize(cpu.stream, bytes, 1000, c.data);
    ref.ops->normalize(ref.stream, bytes, 1000, a.data);
    assert_memory_equal(c.data, a.data, 1000 * sizeof(float));
    guarded_free(&a);
    guarded_free(&b);
    guarded_free(&c);
    rig_close(&cpu);
    rig_close(&ref);
}

/* One convolution and one linear gradient; the same on every thread. */
static void *work(void *argument)
{
    static const struct device_layer_spec s = {DEVICE_CONV_RELU_POOL, 8, 32, 64, 13, 13, 0, 0};
    uint64_t state = 7;
    struct rig cpu = rig_open(device_cpu_ops());
    struct device_layer *layer;
    struct device_error error;
    float *memory = aligned_alloc(64, (18496 + 43264 + 12800 + 64) * sizeof(float));
    float *params = memory, *input = memory + 18496, *dout = input + 43264;

    for (int i = 0; i < 18496 + 43264 + 12800; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        memory[i] = (float)((int64_t)(state >> 33) % 2001 - 1000) / 1000.0f;
    }
    assert_int_equal(cpu.ops->layer_new(cpu.stream, &s, NULL, &layer, &error), DEVICE_OK);
    cpu.ops->layer_load(layer, params);
    for (int repeat = 0; repeat < 3; repeat++) {
        cpu.ops->layer_forward(layer, input);
        cpu.ops->layer_backward(layer, dout, argument, true);
    }
    cpu.ops->layer_free(layer);
    rig_close(&cpu);
    free(memory);
    return NULL;
}

static void test_same_bits_on_threads(void **state)
{
    static float one[18496], two[18496], three[18496];
    pthread_t a, b;

    (void)state;
    (void)work(one);
    assert_int_equal(pthread_create(&a, NULL, work, two), 0);
    assert_int_equal(pthread_create(&b, NULL, work, three), 0);
    (void)pthread_join(a, NULL);
    (void)pthread_join(b, NULL);
    assert_memory_equal(one, two, sizeof one);
    assert_memory_equal(one, three, sizeof one);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convolutions), cmocka_unit_test(test_linears),
        cmocka_unit_test(test_chain), cmocka_unit_test(test_reference_by_differences),
        cmocka_unit_test(test_loss), cmocka_unit_test(test_updates), cmocka_unit_test(test_flat),
        cmocka_unit_test(test_same_bits_on_threads)};

    isa = argc > 1 ? argv[1] : isa;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
