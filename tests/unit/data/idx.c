#include "unit/data/idx.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <cmocka.h>

static void put(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static struct idx_file make(uint32_t magic, uint32_t count, size_t head, size_t size)
{
    struct idx_file file = {NULL, head + count * size};

    file.bytes = calloc(file.count, 1);
    assert_non_null(file.bytes);
    put(file.bytes, magic);
    put(file.bytes + 4, count);
    return file;
}

struct idx_file idx_images(uint32_t count)
{
    struct idx_file file = make(2051, count, 16, 784);

    put(file.bytes + 8, 28);
    put(file.bytes + 12, 28);
    for (size_t i = 16; i < file.count; i++)
        file.bytes[i] = (uint8_t)((i * 2654435761u) >> 13);
    return file;
}

struct idx_file idx_labels(uint32_t count)
{
    struct idx_file file = make(2049, count, 8, 1);

    for (size_t i = 8; i < file.count; i++)
        file.bytes[i] = (uint8_t)(i * 7 % 10);
    return file;
}

void idx_release(struct idx_file *file)
{
    free(file->bytes);
    file->bytes = NULL;
}

void idx_write(const char *folder, const char *name, const struct idx_file *file, bool plain)
{
    char path[512];
    gzFile out;

    (void)snprintf(path, sizeof path, "%s/%s%s", folder, name, plain ? "" : ".gz");
    out = gzopen(path, plain ? "wbT" : "wb1");
    assert_non_null(out);
    assert_int_equal(gzwrite(out, file->bytes, (unsigned)file->count), (int)file->count);
    assert_int_equal(gzclose(out), Z_OK);
}

void idx_folder(char folder[64], uint32_t train, uint32_t test)
{
    static const char *const names[4] = {IDX_TRAIN_IMAGES, IDX_TRAIN_LABELS, IDX_TEST_IMAGES,
                                         IDX_TEST_LABELS};

    (void)snprintf(folder, 64, "/tmp/muster-data-XXXXXX");
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < 4; i++) {
        uint32_t count = i < 2 ? train : test;
        struct idx_file file = i % 2 == 0 ? idx_images(count) : idx_labels(count);

        idx_write(folder, names[i], &file, false);
        idx_release(&file);
    }
}

void idx_remove(const char *folder)
{
    char command[128];

    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

struct idx_file idx_slurp(const char *folder, const char *name)
{
    struct idx_file file = {NULL, 0};
    char path[512];
    FILE *stream;
    long length;

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    stream = fopen(path, "rb");
    assert_non_null(stream);
    assert_int_equal(fseek(stream, 0, SEEK_END), 0);
    length = ftell(stream);
    assert_true(length >= 0);
    rewind(stream);
    file.count = (size_t)length;
    file.bytes = malloc(file.count + 1);
    assert_non_null(file.bytes);
    assert_int_equal(fread(file.bytes, 1, file.count, stream), file.count);
    (void)fclose(stream);
    return file;
}

void idx_spit(const char *folder, const char *name, const struct idx_file *file)
{
    char path[512];
    FILE *stream;

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(file->bytes, 1, file->count, stream), file->count);
    assert_int_equal(fclose(stream), 0);
}
