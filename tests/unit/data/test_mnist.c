/* Data that is whole is read to the last byte; data that is not is refused with the file and the
 * reason. */
#include "data/mnist.h"
#include "unit/data/idx.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <cmocka.h>

/* Opening must fail, with the name of the file and these words. */
static void refused(const char *folder, const char *name, const char *words)
{
    struct mnist mnist;
    char why[512] = "";

    assert_int_equal(mnist_open(folder, &mnist, why, sizeof why), -1);
    if (strstr(why, name) == NULL || strstr(why, words) == NULL)
        fail_msg("'%s' was said where '%s' and '%s' were expected", why, name, words);
    assert_null(mnist.train.images);
    mnist_release(&mnist);
}

/* Writes one file of a good folder anew and expects a refusal. */
static void refused_with(const char *name, struct idx_file *file, const char *words)
{
    char folder[64];

    idx_folder(folder, 6, 3);
    idx_write(folder, name, file, false);
    refused(folder, name, words);
    idx_release(file);
    idx_remove(folder);
}

static void any_count_is_read(void **state)
{
    static const uint32_t counts[][2] = {{1, 1}, {3, 1}, {257, 31}};

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct idx_file images = idx_images(counts[i][0]), labels = idx_labels(counts[i][1]);
        struct mnist mnist;
        char folder[64], why[512] = "";

        idx_folder(folder, counts[i][0], counts[i][1]);
        if (mnist_open(folder, &mnist, why, sizeof why) != 0)
            fail_msg("%u and %u samples: %s", counts[i][0], counts[i][1], why);
        assert_int_equal(mnist.train.count, counts[i][0]);
        assert_int_equal(mnist.test.count, counts[i][1]);
        assert_memory_equal(mnist.train.images, images.bytes + 16, images.count - 16);
        assert_memory_equal(mnist.test.labels, labels.bytes + 8, labels.count - 8);
        assert_string_equal(mnist.place, folder);
        assert_string_equal(mnist.note, "");
        mnist_release(&mnist);
        idx_release(&images);
        idx_release(&labels);
        idx_remove(folder);
    }
}

static void plain_files_are_read_too(void **state)
{
    struct idx_file images = idx_images(5);
    struct mnist packed, plain;
    char folder[64], path[128], why[512] = "";

    (void)state;
    idx_folder(folder, 5, 2);
    assert_int_equal(mnist_open(folder, &packed, why, sizeof why), 0);
    (void)snprintf(path, sizeof path, "%s/" IDX_TRAIN_IMAGES ".gz", folder);
    assert_int_equal(unlink(path), 0);
    idx_write(folder, IDX_TRAIN_IMAGES, &images, true);
    if (mnist_open(folder, &plain, why, sizeof why) != 0)
        fail_msg("plain file: %s", why);
    assert_int_equal(packed.hash, plain.hash);
    mnist_release(&packed);
    mnist_release(&plain);
    idx_release(&images);
    idx_remove(folder);
}

static void a_missing_file_is_named(void **state)
{
    static const char *const names[] = {IDX_TRAIN_IMAGES, IDX_TRAIN_LABELS, IDX_TEST_IMAGES,
                                        IDX_TEST_LABELS};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        char folder[64], path[128];

        idx_folder(folder, 4, 2);
        (void)snprintf(path, sizeof path, "%s/%s.gz", folder, names[i]);
        assert_int_equal(unlink(path), 0);
        refused(folder, names[i], "No such file");
        assert_int_equal(mkdir(path, 0700), 0);
        refused(folder, names[i], "");
        idx_remove(folder);
    }
    refused("/nonexistent", IDX_TRAIN_IMAGES, "No such file");
}

static void a_long_path_leaves_room_for_the_reason(void **state)
{
    char folder[900];

    (void)state;
    memset(folder, 'x', sizeof folder - 1);
    folder[sizeof folder - 1] = '\0';
    refused(folder, IDX_TRAIN_IMAGES, "too long");
}

static void headers_are_checked(void **state)
{
    struct idx_file file;

    (void)state;
    file = idx_images(6);
    file.bytes[3] = 1;
    refused_with(IDX_TRAIN_IMAGES, &file, "magic");
    file = idx_labels(6);
    file.bytes[0] = 1;
    refused_with(IDX_TRAIN_LABELS, &file, "magic");
    file = idx_labels(6); /* swapped: labels where images belong */
    refused_with(IDX_TRAIN_IMAGES, &file, "magic");
    file = idx_images(6);
    file.bytes[11] = 27;
    refused_with(IDX_TRAIN_IMAGES, &file, "27x28");
    file = idx_images(0);
    refused_with(IDX_TRAIN_IMAGES, &file, "0 samples");
    file = idx_images(6);
    file.bytes[4] = 0xff;
    refused_with(IDX_TRAIN_IMAGES, &file, "samples");
    file = idx_images(6);
    file.bytes[4] = 2; /* many samples that the file cannot hold: no memory is asked for */
    refused_with(IDX_TRAIN_IMAGES, &file, "truncated");
    file = idx_images(6);
    file.bytes[7] = 5;
    refused_with(IDX_TRAIN_IMAGES, &file, "more bytes");
    file = idx_images(6);
    file.bytes[7] = 7;
    refused_with(IDX_TRAIN_IMAGES, &file, "truncated");
    file = idx_images(6);
    file.count = 11;
    refused_with(IDX_TRAIN_IMAGES, &file, "truncated");
    file = idx_labels(7);
    refused_with(IDX_TRAIN_LABELS, &file, "7 labels for 6 images");
}

static void labels_are_checked(void **state)
{
    struct idx_file file = idx_labels(6);

    (void)state;
    file.bytes[8 + 4] = 10;
    refused_with(IDX_TRAIN_LABELS, &file, "label 10 of sample 4");
    file = idx_labels(3);
    file.bytes[8] = 255;
    refused_with(IDX_TEST_LABELS, &file, "label 255 of sample 0");
}

/* A cut at every length, and 200 flipped bits: refused, or (in parts of gzip's header that mean
 * nothing) the same content. */
static void damaged_archives_are_refused(void **state)
{
    const char *name = IDX_TRAIN_LABELS ".gz";
    struct mnist whole, other;
    struct idx_file file, part;
    char folder[64], why[512] = "";
    unsigned same = 0;

    (void)state;
    idx_folder(folder, 300, 2);
    assert_int_equal(mnist_open(folder, &whole, why, sizeof why), 0);
    file = idx_slurp(folder, name);
    for (size_t cut = 0; cut < file.count; cut++) {
        part = file;
        part.count = cut;
        idx_spit(folder, name, &part);
        refused(folder, name, "");
    }
    for (size_t i = 0; i < 200; i++) {
        size_t bit = i * 8 * file.count / 200;

        file.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        idx_spit(folder, name, &file);
        file.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (mnist_open(folder, &other, why, sizeof why) != 0)
            continue;
        if (other.hash != whole.hash)
            fail_msg("bit %zu flipped: read with another content", bit);
        same++;
        mnist_release(&other);
    }
    assert_true(same < 30);
    mnist_release(&whole);
    idx_release(&file);
    idx_remove(folder);
}

static bool have_real(void)
{
    return access(REAL_MNIST "/" IDX_TRAIN_IMAGES ".gz", R_OK) == 0;
}

/* Copies the content of the real t10k files, changed by the caller, beside a small training set. */
static void with_real_test(char folder[64], struct idx_file *images, struct idx_file *labels)
{
    static const char *const names[2] = {IDX_TEST_IMAGES, IDX_TEST_LABELS};
    struct idx_file *files[2] = {images, labels};

    idx_folder(folder, 2, 1);
    for (int i = 0; i < 2; i++) {
        size_t bytes = i == 0 ? 16 + 7840000 : 8 + 10000;
        char path[512];
        gzFile in;

        (void)snprintf(path, sizeof path, REAL_MNIST "/%s.gz", names[i]);
        in = gzopen(path, "rb");
        assert_non_null(in);
        files[i]->bytes = malloc(bytes);
        files[i]->count = bytes;
        assert_non_null(files[i]->bytes);
        assert_int_equal(gzread(in, files[i]->bytes, (unsigned)bytes), (int)bytes);
        assert_int_equal(gzclose(in), Z_OK);
        idx_write(folder, names[i], files[i], false);
    }
}

static void the_real_one_is_known(void **state)
{
    struct mnist mnist;
    char why[512] = "";

    (void)state;
    if (!have_real()) {
        print_message("skipped: %s is not there\n", REAL_MNIST);
        skip();
    }
    if (mnist_open(REAL_MNIST, &mnist, why, sizeof why) != 0)
        fail_msg("%s", why);
    assert_int_equal(mnist.train.count, 60000);
    assert_int_equal(mnist.test.count, 10000);
    assert_string_equal(mnist.note, "");
    mnist_release(&mnist);
}

static void a_damaged_real_one_is_refused(void **state)
{
    struct idx_file images, labels;
    struct mnist mnist;
    char folder[64], why[512] = "";

    (void)state;
    if (!have_real()) {
        print_message("skipped: %s is not there\n", REAL_MNIST);
        skip();
    }
    with_real_test(folder, &images, &labels);
    assert_int_equal(mnist_open(folder, &mnist, why, sizeof why), 0);
    assert_string_equal(mnist.note, "");
    mnist_release(&mnist);
    images.bytes[16 + 784 * 700 + 3] ^= 4; /* one bit, with a CRC that fits it */
    idx_write(folder, IDX_TEST_IMAGES, &images, false);
    refused(folder, IDX_TEST_IMAGES, "1 of 16 blocks differ, the first one from sample 625 on");
    idx_write(folder, IDX_TRAIN_IMAGES, &images, false);
    images.bytes[16 + 784 * 700 + 3] ^= 4;
    idx_write(folder, IDX_TEST_IMAGES, &images, false);
    refused(folder, IDX_TRAIN_IMAGES, "wrong hash");
    idx_write(folder, IDX_TRAIN_IMAGES, &images, false);
    refused(folder, IDX_TRAIN_IMAGES, "swapped: this is MNIST's t10k-images");
    idx_release(&images);
    idx_release(&labels);
    idx_remove(folder);
}

/* As many samples as MNIST, nothing else in common. */
static void other_data_of_that_size_is_welcome(void **state)
{
    struct mnist mnist;
    char folder[64], why[512] = "";

    (void)state;
    idx_folder(folder, 20, 10000);
    if (mnist_open(folder, &mnist, why, sizeof why) != 0)
        fail_msg("%s", why);
    assert_non_null(strstr(mnist.note, "other data"));
    mnist_release(&mnist);
    idx_remove(folder);
}

static void places_in_their_order(void **state)
{
    struct mnist mnist;
    char folder[64], other[64], why[512] = "", here[512];

    (void)state;
    assert_non_null(getcwd(here, sizeof here));
    idx_folder(folder, 7, 2);
    idx_folder(other, 9, 2);
    assert_int_equal(setenv("MUSTER_DATA", other, 1), 0);
    assert_int_equal(mnist_open(folder, &mnist, why, sizeof why), 0);
    assert_int_equal(mnist.train.count, 7);
    mnist_release(&mnist);
    assert_int_equal(mnist_open(NULL, &mnist, why, sizeof why), 0);
    assert_int_equal(mnist.train.count, 9);
    mnist_release(&mnist);
    assert_int_equal(setenv("MUSTER_DATA", "/nonexistent", 1), 0);
    assert_int_equal(mnist_open(NULL, &mnist, why, sizeof why), -1);
    assert_non_null(strstr(why, "/nonexistent"));
    assert_int_equal(unsetenv("MUSTER_DATA"), 0);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(mnist_open(NULL, &mnist, why, sizeof why), 0);
    /* Without data beside the source tree: the subset, and it says so. */
    assert_string_equal(mnist.place, have_real() ? REAL_MNIST : SUBSET);
    assert_int_equal(strstr(mnist.note, "bundled real subset") != NULL, !have_real());
    assert_int_equal(strstr(mnist.note, "python3 deploy/mnist.py downloads") != NULL, !have_real());
    mnist_release(&mnist);
    assert_int_equal(chdir(here), 0);
    idx_remove(folder);
    idx_remove(other);
}

static void the_subset_is_the_head_of_the_real_one(void **state)
{
    struct mnist subset, real;
    char why[512] = "";

    (void)state;
    if (mnist_open(SUBSET, &subset, why, sizeof why) != 0)
        fail_msg("%s", why);
    assert_int_equal(subset.train.count, 2000);
    assert_int_equal(subset.test.count, 500);
    if (have_real()) {
        assert_int_equal(mnist_open(REAL_MNIST, &real, why, sizeof why), 0);
        assert_memory_equal(subset.train.images, real.train.images, 2000 * MNIST_PIXELS);
        assert_memory_equal(subset.test.labels, real.test.labels, 500);
        mnist_release(&real);
    }
    mnist_release(&subset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_count_is_read),
        cmocka_unit_test(plain_files_are_read_too),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(a_long_path_leaves_room_for_the_reason),
        cmocka_unit_test(headers_are_checked),
        cmocka_unit_test(labels_are_checked),
        cmocka_unit_test(damaged_archives_are_refused),
        cmocka_unit_test(the_real_one_is_known),
        cmocka_unit_test(a_damaged_real_one_is_refused),
        cmocka_unit_test(other_data_of_that_size_is_welcome),
        cmocka_unit_test(places_in_their_order),
        cmocka_unit_test(the_subset_is_the_head_of_the_real_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
