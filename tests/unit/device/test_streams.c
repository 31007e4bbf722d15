/* Memory, streams and events of every device: what is issued is done in order, no byte beside it is
 * touched, and an event is passed when all before it is done. */
#include "unit/device/far.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define BYTES 200000

struct rig {
    const struct device_ops *ops;
    struct device *device;
    struct device_stream *one, *two;
    uint8_t *a, *b;          /* the device's, [BYTES] */
    uint8_t here[2 * BYTES]; /* the host's */
};

static struct rig *rig_open(const struct device_ops *ops)
{
    struct device_options options = {"native"};
    struct rig *rig = calloc(1, sizeof *rig);
    struct device_error error;

    assert_non_null(rig);
    rig->ops = ops;
    assert_int_equal(ops->version, DEVICE_VTABLE_VERSION);
    assert_int_equal(ops->open(&options, &rig->device, &error), DEVICE_OK);
    assert_int_equal(ops->stream_open(rig->device, &rig->one, &error), DEVICE_OK);
    assert_int_equal(ops->stream_open(rig->device, &rig->two, &error), DEVICE_OK);
    rig->a = ops->alloc(rig->device, BYTES);
    rig->b = ops->alloc(rig->device, BYTES);
    assert_non_null(rig->a);
    assert_non_null(rig->b);
    assert_int_equal((uintptr_t)rig->a % DEVICE_ALIGN, 0);
    assert_int_equal((uintptr_t)rig->b % DEVICE_ALIGN, 0);
    return rig;
}

static void rig_close(struct rig *rig)
{
    rig->ops->stream_sync(rig->one);
    rig->ops->stream_sync(rig->two);
    rig->ops->release(rig->device, rig->a);
    rig->ops->release(rig->device, rig->b);
    rig->ops->release(rig->device, NULL);
    rig->ops->stream_close(rig->one);
    rig->ops->stream_close(rig->two);
    rig->ops->stream_close(NULL);
    rig->ops->close(rig->device);
    free(rig);
}

static void expect(const struct rig *rig, const uint8_t *bytes, size_t count, uint8_t value)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i] != value)
            fail_msg("%s: byte %zu is %u, expected %u", rig->ops->name, i, bytes[i], value);
}

static void new_memory_is_zero(struct rig *rig)
{
    memset(rig->here, 1, BYTES);
    rig->ops->download(rig->one, rig->here, rig->a, BYTES);
    rig->ops->stream_sync(rig->one);
    expect(rig, rig->here, BYTES, 0);
}

/* [at, at + count) of a is filled, copied to b, and comes back; nothing else changes. */
static void bytes_go_where_they_are_sent(struct rig *rig)
{
    static const size_t counts[] = {0, 1, 3, 63, 64, 65, 4097, 100001};
    uint8_t *back = rig->here + BYTES;

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        size_t count = counts[i], at = 17 + i, to = 33 + 2 * i;

        memset(rig->here, 0x11, BYTES);
        for (size_t k = 0; k < count; k++)
            rig->here[at + k] = (uint8_t)(k * 7 + i);
        rig->ops->upload(rig->one, rig->a, rig->here, BYTES);
        rig->ops->fill(rig->one, rig->b, 0x22, BYTES);
        rig->ops->copy(rig->one, rig->b + to, rig->a + at, count);
        rig->ops->fill(rig->one, rig->a + at, 0x33, count);
        rig->ops->download(rig->one, back, rig->b, BYTES);
        rig->ops->stream_sync(rig->one);
        expect(rig, back, to, 0x22);
        assert_memory_equal(back + to, rig->here + at, count);
        expect(rig, back + to + count, BYTES - to - count, 0x22);
        rig->ops->download(rig->one, back, rig->a, BYTES);
        rig->ops->stream_sync(rig->one);
        expect(rig, back, at, 0x11);
        expect(rig, back + at, count, 0x33);
        expect(rig, back + at + count, BYTES - at - count, 0x11);
    }
}

/* What the second stream was given before the wait may be done at any time, what after it not
 * before the first stream's work. */
static void a_stream_waits_for_an_event(struct rig *rig)
{
    struct device_event *event;
    struct device_error error;

    assert_int_equal(rig->ops->event_open(rig->device, &event, &error), DEVICE_OK);
    rig->ops->event_wait(event, rig->two); /* nothing was recorded: nothing to wait for */
    for (uint8_t round = 1; round <= 3; round++) {
        rig->ops->fill(rig->one, rig->a, round, BYTES);
        rig->ops->event_record(event, rig->one);
        rig->ops->event_wait(event, rig->two);
        rig->ops->copy(rig->two, rig->b, rig->a, BYTES);
        rig->ops->download(rig->two, rig->here, rig->b, BYTES);
        rig->ops->stream_sync(rig->two);
        expect(rig, rig->here, BYTES, round);
    }
    rig->ops->event_close(event);
    rig->ops->event_close(NULL);
}

/* A host that may not block asks until it is done, and then sees what was done before. */
static void an_event_is_done_when_all_before_it_is(struct rig *rig)
{
    struct device_event *event;
    struct device_error error;
    unsigned asked = 0;

    assert_int_equal(rig->ops->event_open(rig->device, &event, &error), DEVICE_OK);
    assert_true(rig->ops->event_done(event));
    for (uint8_t round = 1; round <= 3; round++) {
        rig->ops->fill(rig->one, rig->a, round, BYTES);
        rig->ops->download(rig->one, rig->here, rig->a, BYTES);
        rig->ops->event_record(event, rig->one);
        rig->ops->fill(rig->one, rig->a, 99, BYTES); /* behind the point */
        while (!rig->ops->event_done(event) && asked++ < 1000000)
            continue;
        assert_true(rig->ops->event_done(event));
        expect(rig, rig->here, BYTES, round);
    }
    rig->ops->stream_sync(rig->one);
    rig->ops->event_close(event);
}

/* Another thread's stream, which is the usual case. */
struct other {
    struct rig *rig;
    struct device_event *event;
};

static void *copy_after_event(void *argument)
{
    struct other *other = argument;
    struct rig *rig = other->rig;
    struct device_stream *stream;
    struct device_error error;

    if (rig->ops->stream_open(rig->device, &stream, &error) != DEVICE_OK)
        return other; /* anything: it has failed */
    rig->ops->event_wait(other->event, stream);
    rig->ops->copy(stream, rig->b, rig->a, BYTES);
    rig->ops->stream_sync(stream);
    rig->ops->stream_close(stream);
    return NULL;
}

static void an_event_orders_threads(struct rig *rig)
{
    struct other other = {rig, NULL};
    struct device_error error;
    pthread_t thread;
    void *why;

    assert_int_equal(rig->ops->event_open(rig->device, &other.event, &error), DEVICE_OK);
    rig->ops->fill(rig->one, rig->a, 0x5a, BYTES);
    rig->ops->event_record(other.event, rig->one);
    assert_int_equal(pthread_create(&thread, NULL, copy_after_event, &other), 0);
    assert_int_equal(pthread_join(thread, &why), 0);
    assert_null(why);
    rig->ops->download(rig->two, rig->here, rig->b, BYTES);
    rig->ops->stream_sync(rig->two);
    expect(rig, rig->here, BYTES, 0x5a);
    rig->ops->event_close(other.event);
}

static void on_each(void (*test)(struct rig *rig))
{
    const struct device_ops *all[] = {device_reference_ops(), device_cpu_ops(), far_ops()};

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct rig *rig = rig_open(all[i]);

        test(rig);
        rig_close(rig);
    }
}

#define ON_EACH(test)                                                                              \
    static void each_##test(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        on_each(test);                                                                             \
    }

ON_EACH(new_memory_is_zero)
ON_EACH(bytes_go_where_they_are_sent)
ON_EACH(a_stream_waits_for_an_event)
ON_EACH(an_event_is_done_when_all_before_it_is)
ON_EACH(an_event_orders_threads)

/* The far device is far: without this the tests that are made with it could not fail. */
static void the_far_device_does_nothing_before_it_must(void **state)
{
    struct rig *rig = rig_open(far_ops());
    struct device_event *event;
    struct device_error error;

    (void)state;
    assert_int_equal(rig->ops->event_open(rig->device, &event, &error), DEVICE_OK);
    memset(rig->here, 7, BYTES);
    rig->ops->fill(rig->one, rig->a, 1, BYTES);
    rig->ops->download(rig->one, rig->here, rig->a, BYTES);
    rig->ops->event_record(event, rig->one);
    expect(rig, rig->here, BYTES, 7);
    rig->ops->download(rig->two, rig->here, rig->a, BYTES); /* without a wait: too early */
    rig->ops->stream_sync(rig->two);
    expect(rig, rig->here, BYTES, 0);
    assert_false(rig->ops->event_done(event));
    assert_true(rig->ops->event_done(event));
    expect(rig, rig->here, BYTES, 1);
    rig->ops->event_close(event);
    rig_close(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_new_memory_is_zero),
        cmocka_unit_test(each_bytes_go_where_they_are_sent),
        cmocka_unit_test(each_a_stream_waits_for_an_event),
        cmocka_unit_test(each_an_event_is_done_when_all_before_it_is),
        cmocka_unit_test(each_an_event_orders_threads),
        cmocka_unit_test(the_far_device_does_nothing_before_it_must),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
