/* Damage on disk: found wherever it is, told with folder, file and reason, and the older checkpoint
 * used. */
#include "unit/ckpt/box.h"
#include "unit/ckpt/port.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define FLIPS 200
#define CUTS  60
#define SEED  20261123u

static const char *const files[] = {BOX_MODEL, BOX_OPTIMIZER, "manifest.json"};

/* What was passed over. */
struct passed {
    unsigned count;      /* of rows */
    struct ckpt_row row; /* the last one */
};

static void on_passed(void *owner, const struct ckpt_row *row)
{
    struct passed *passed = owner;

    passed->count++;
    passed->row = *row;
}

static void make_two(char folder[BOX_FOLDER_BYTES])
{
    struct ckpt_error error;

    box_make(folder);
    assert_int_equal(box_save(folder, 1, 0, 0, 0, &error), CKPT_OK);
    assert_int_equal(box_save(folder, 2, 0, 0, 0, &error), CKPT_OK);
}

static void path_of(const char *folder, uint64_t step, const char *file, char path[160])
{
    (void)snprintf(path, 160, "%s/step-%08llu/%s", folder, (unsigned long long)step, file);
}

/* Step 1 is found; step 2 was passed over, and the reason names `file`. */
static void expect_passed(const char *folder, const char *file, const char *words,
                          const char *where)
{
    struct passed passed = {0, {.step = 0}};
    struct ckpt_found found;
    struct ckpt_error error = {CKPT_OK, ""};

    if (ckpt_find(folder, &found, on_passed, &passed, &error) != CKPT_OK)
        fail_msg("%s: %s", where, error.text);
    box_expect(&found, 1, 0);
    if (passed.count != 1 || strcmp(passed.row.name, "step-00000002") != 0 ||
        strstr(passed.row.why, "step-00000002") == NULL || strstr(passed.row.why, file) == NULL ||
        strstr(passed.row.why, words) == NULL)
        fail_msg("%s: %u passed over, %s: '%s', expected '%s' of %s", where, passed.count,
                 passed.row.name, passed.row.why, words, file);
}

static void a_flipped_bit_is_found(void **state)
{
    char folder[BOX_FOLDER_BYTES], path[160], where[64];
    uint64_t seed = SEED;

    (void)state;
    make_two(folder);
    for (unsigned i = 0; i < FLIPS; i++) {
        const char *name = files[i % 3];
        struct box_bytes file;
        size_t bit;

        path_of(folder, 2, name, path);
        file = box_slurp(path);
        bit = box_random(&seed) % (8 * file.bytes);
        file.data[bit / 8] ^= (char)(1 << bit % 8);
        box_spit(path, file.data, file.bytes);
        (void)snprintf(where, sizeof where, "seed %u, bit %zu of %s", SEED, bit, name);
        expect_passed(folder, name, i % 3 < 2 ? "damaged: checksum" : "its ", where);
        file.data[bit / 8] ^= (char)(1 << bit % 8);
        box_spit(path, file.data, file.bytes);
        free(file.data);
    }
    box_remove(folder);
}

static void a_cut_or_longer_file_is_found(void **state)
{
    char folder[BOX_FOLDER_BYTES], path[160], where[64];
    uint64_t seed = SEED;

    (void)state;
    make_two(folder);
    for (unsigned i = 0; i < CUTS; i++) {
        const char *name = files[i % 3];
        struct box_bytes file;
        size_t cut;

        path_of(folder, 2, name, path);
        file = box_slurp(path);
        cut = i < 3 ? 0 : i < 6 ? file.bytes + 1 : box_random(&seed) % file.bytes;
        (void)snprintf(where, sizeof where, "seed %u, %s of %zu bytes", SEED, name, cut);
        file.data[file.bytes] = '\n';
        box_spit(path, file.data, cut);
        expect_passed(folder, name, i % 3 < 2 ? "the manifest says" : "", where);
        box_spit(path, file.data, file.bytes);
        free(file.data);
    }
    box_remove(folder);
}

static void files_that_are_missing_swapped_or_no_files_are_found(void **state)
{
    char folder[BOX_FOLDER_BYTES], path[160], other[160];

    (void)state;
    for (int i = 0; i < 3; i++) {
        make_two(folder);
        path_of(folder, 2, files[i], path);
        assert_int_equal(unlink(path), 0);
        expect_passed(folder, files[i], "missing", "unlinked");
        assert_int_equal(mkdir(path, 0755), 0);
        expect_passed(folder, files[i], "not a file", "a folder");
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(mkfifo(path, 0600), 0);
        expect_passed(folder, files[i], "not a file", "a pipe");
        assert_int_equal(unlink(path), 0);
        path_of(folder, 1, files[i], other);
        assert_int_equal(link(other, path), 0);
        expect_passed(folder, i < 2 ? files[i] : "",
                      i < 2 ? "damaged" : "its manifest is of step 1", "of another step");
        box_remove(folder);
    }
}

static void a_disk_that_cannot_read_is_named(void **state)
{
    char folder[BOX_FOLDER_BYTES];
    struct ckpt_found found;
    struct passed passed = {0, {.step = 0}};
    struct ckpt_error error;

    (void)state;
    make_two(folder);
    port_refuse(PORT_PREAD, 2, false, EIO);
    assert_int_equal(ckpt_find(folder, &found, on_passed, &passed, &error), CKPT_OK);
    port_end();
    assert_int_equal(passed.count, 1);
    assert_non_null(strstr(passed.row.why, BOX_MODEL ": reading failed: Input/output error"));
    box_remove(folder);
}

static void when_all_are_broken_each_is_named(void **state)
{
    char folder[BOX_FOLDER_BYTES], path[160];
    struct passed passed = {0, {.step = 0}};
    struct ckpt_found found;
    struct ckpt_error error;
    struct ckpt_row *rows;
    uint32_t count;

    (void)state;
    make_two(folder);
    path_of(folder, 2, BOX_MODEL, path);
    box_spit(path, "x", 1);
    path_of(folder, 1, "manifest.json", path);
    box_spit(path, "{}", 2);
    assert_int_equal(ckpt_find(folder, &found, on_passed, &passed, &error), CKPT_BROKEN);
    assert_int_equal(passed.count, 2);
    assert_non_null(strstr(error.text, "step-00000002, step-00000001"));
    assert_non_null(strstr(error.text, BOX_MODEL ": 1 bytes, the manifest says"));
    assert_int_equal(ckpt_list(folder, &rows, &count, &error), CKPT_OK);
    assert_int_equal(count, 2);
    for (uint32_t i = 0; i < count; i++) {
        assert_false(rows[i].valid);
        assert_int_equal(rows[i].step, 2 - i);
        assert_non_null(strstr(rows[i].why, i == 0 ? BOX_MODEL : "manifest.json"));
    }
    free(rows);
    box_remove(folder);
}

static void where_nothing_is_there_is_none(void **state)
{
    char folder[BOX_FOLDER_BYTES], path[160];
    struct ckpt_found found;
    struct ckpt_error error;
    struct ckpt_row *rows;
    uint32_t count;

    (void)state;
    box_make(folder);
    assert_int_equal(ckpt_find(folder, &found, NULL, NULL, &error), CKPT_NONE);
    assert_int_equal(ckpt_list(folder, &rows, &count, &error), CKPT_NONE);
    free(rows);
    (void)snprintf(path, sizeof path, "%s/missing", folder);
    assert_int_equal(ckpt_find(path, &found, NULL, NULL, &error), CKPT_NONE);
    (void)snprintf(path, sizeof path, "%s/file", folder);
    box_spit(path, "", 0);
    assert_int_equal(ckpt_find(path, &found, NULL, NULL, &error), CKPT_SYSTEM);
    assert_non_null(strstr(error.text, "Not a directory"));
    box_remove(folder);
}

/* A file of three chunks and a bit: the damage is told with the place of its chunk. */
static void the_damaged_chunk_is_told(void **state)
{
    static const uint64_t chunk = 4u << 20;
    const struct safetensors_tensor tensor = {.name = "x",
                                              .type = SAFETENSORS_U8,
                                              .dims = 1,
                                              .shape = {3 * chunk},
                                              .data = calloc(3, chunk)};
    const struct ckpt_file file = {BOX_MODEL, &tensor, 1};
    char folder[BOX_FOLDER_BYTES], path[160], words[64];
    struct ckpt_meta meta;
    struct ckpt_error error;
    struct box_bytes bytes;
    uint64_t total;

    (void)state;
    assert_non_null(tensor.data);
    box_make(folder);
    box_meta(2, 0, 0, &meta);
    assert_int_equal(ckpt_save(folder, &meta, &file, 1, 0, &error), CKPT_OK);
    path_of(folder, 2, BOX_MODEL, path);
    bytes = box_slurp(path);
    assert_int_equal(bytes.bytes, 3 * chunk + 4096);
    for (uint64_t at = chunk - 1; at < bytes.bytes; at += chunk) {
        uint64_t first = at / chunk * chunk, end = first + chunk;

        (void)snprintf(words, sizeof words, "of bytes %llu to %llu", (unsigned long long)first,
                       (unsigned long long)(end < bytes.bytes ? end : bytes.bytes));
        bytes.data[at] ^= 1;
        box_spit(path, bytes.data, bytes.bytes);
        bytes.data[at] ^= 1;
        path_of(folder, 2, "", path);
        assert_int_equal(ckpt_verify(path, &meta, &total, &error), CKPT_FORMAT);
        if (strstr(error.text, words) == NULL)
            fail_msg("'%s' was said where '%s' was expected", error.text, words);
        path_of(folder, 2, BOX_MODEL, path);
    }
    box_spit(path, bytes.data, bytes.bytes);
    path_of(folder, 2, "", path);
    assert_int_equal(ckpt_verify(path, &meta, &total, &error), CKPT_OK);
    free(bytes.data);
    free((void *)(uintptr_t)tensor.data);
    box_remove(folder);
}

static void one_is_verified_by_its_path(void **state)
{
    char folder[BOX_FOLDER_BYTES], path[160];
    struct ckpt_meta meta;
    struct ckpt_error error;
    uint64_t bytes;

    (void)state;
    make_two(folder);
    path_of(folder, 2, "", path); /* with a slash at its end */
    assert_int_equal(ckpt_verify(path, &meta, &bytes, &error), CKPT_OK);
    assert_int_equal(meta.step, 2);
    assert_true(bytes > 4 * BOX_VALUES * sizeof(float));
    (void)snprintf(path, sizeof path, "%s/step-00000003", folder);
    assert_int_equal(ckpt_verify(path, &meta, &bytes, &error), CKPT_FORMAT);
    assert_non_null(strstr(error.text, "step-00000003/manifest.json: missing"));
    box_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flipped_bit_is_found),
        cmocka_unit_test(a_cut_or_longer_file_is_found),
        cmocka_unit_test(files_that_are_missing_swapped_or_no_files_are_found),
        cmocka_unit_test(a_disk_that_cannot_read_is_named),
        cmocka_unit_test(when_all_are_broken_each_is_named),
        cmocka_unit_test(where_nothing_is_there_is_none),
        cmocka_unit_test(the_damaged_chunk_is_told),
        cmocka_unit_test(one_is_verified_by_its_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
