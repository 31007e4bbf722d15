/* safetensors files on disk: what is refused before memory is asked for, what is read, and what is
 * not a file. */
#include "ckpt/safetensors.h"
#include "unit/ckpt/box.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define HEADER "{\"a\":{\"dtype\":\"I16\",\"shape\":[3],\"data_offsets\":[0,6]}}"

/* folder/x.safetensors: a length, a header, data. */
static void write_file(const char *folder, uint64_t length, const char *header, const char *data,
                       size_t data_bytes, char path[128])
{
    char bytes[1024];
    size_t at = 8;

    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (char)(uint8_t)(length >> (8 * i));
    memcpy(bytes + at, header, strlen(header));
    at += strlen(header);
    memcpy(bytes + at, data, data_bytes);
    (void)snprintf(path, 128, "%s/x.safetensors", folder);
    box_spit(path, bytes, at + data_bytes);
}

static void open_refused(const char *path, enum ckpt_code code, const char *words)
{
    struct safetensors file;
    struct ckpt_error error = {CKPT_OK, ""};
    enum ckpt_code got = safetensors_open(path, &file, &error);

    if (got != code || error.code != code || strstr(error.text, words) == NULL)
        fail_msg("code %d and '%s' where %d and '%s' were expected", got, error.text, code, words);
    assert_null(file.tensors);
    safetensors_close(&file);
}

static void lengths_are_compared_before_anything_is_read(void **state)
{
    char folder[BOX_FOLDER_BYTES], path[128];

    (void)state;
    box_make(folder);
    write_file(folder, 100000001, HEADER, "", 0, path);
    open_refused(path, CKPT_LIMIT, "a header of 100000001 bytes");
    write_file(folder, UINT64_MAX, HEADER, "", 0, path);
    open_refused(path, CKPT_LIMIT, "a header of 18446744073709551615 bytes");
    write_file(folder, SAFETENSORS_HEADER_BYTES + 1, HEADER, "", 0, path);
    open_refused(path, CKPT_LIMIT, "a header of 8388609 bytes");
    write_file(folder, SAFETENSORS_HEADER_BYTES, HEADER, "", 0, path);
    open_refused(path, CKPT_FORMAT, "header is longer than the file");
    write_file(folder, sizeof HEADER, HEADER, "", 0, path);
    open_refused(path, CKPT_FORMAT, "header is longer than the file");
    write_file(folder, 0, "", "", 0, path);
    open_refused(path, CKPT_FORMAT, "expected '{'");
    box_spit(path, "1234567", 7);
    open_refused(path, CKPT_FORMAT, "shorter than 8 bytes");
    box_spit(path, "", 0);
    open_refused(path, CKPT_FORMAT, "shorter than 8 bytes");
    box_remove(folder);
}

static void data_must_be_there_to_the_byte(void **state)
{
    char folder[BOX_FOLDER_BYTES], path[128];

    (void)state;
    box_make(folder);
    write_file(folder, sizeof HEADER - 1, HEADER, "123456", 5, path);
    open_refused(path, CKPT_FORMAT, "truncated");
    write_file(folder, sizeof HEADER - 1, HEADER, "123456", 7, path);
    open_refused(path, CKPT_FORMAT, "bytes after the last tensor");
    box_remove(folder);
}

static void what_is_no_file_is_refused(void **state)
{
    char folder[BOX_FOLDER_BYTES], path[128], deep[2000];

    (void)state;
    box_make(folder);
    (void)snprintf(path, sizeof path, "%s/x", folder);
    open_refused(path, CKPT_FORMAT, "missing");
    assert_int_equal(mkfifo(path, 0600), 0); /* would wait for a writer for ever */
    open_refused(path, CKPT_FORMAT, "not a file");
    open_refused(folder, CKPT_FORMAT, "not a file");
    (void)snprintf(path, sizeof path, "%s/x/y", folder);
    open_refused(path, CKPT_SYSTEM, "opening failed");
    memset(deep, 'd', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    open_refused(deep, CKPT_LIMIT, "the path is too long");
    box_remove(folder);
}

static void reading_asks_for_the_right_tensor(void **state)
{
    char folder[BOX_FOLDER_BYTES], path[128], values[6] = "";
    struct safetensors file;
    struct ckpt_error error;

    (void)state;
    box_make(folder);
    write_file(folder, sizeof HEADER - 1, HEADER, "abcdef", 6, path);
    assert_int_equal(safetensors_open(path, &file, &error), CKPT_OK);
    assert_int_equal(safetensors_read(&file, "a", SAFETENSORS_I16, values, 6, &error), CKPT_OK);
    assert_memory_equal(values, "abcdef", 6);
    assert_int_equal(safetensors_read(&file, "b", SAFETENSORS_I16, values, 6, &error),
                     CKPT_MISMATCH);
    assert_non_null(strstr(error.text, "tensor b is missing"));
    assert_int_equal(safetensors_read(&file, "a", SAFETENSORS_U16, values, 6, &error),
                     CKPT_MISMATCH);
    assert_non_null(strstr(error.text, "is I16 of 6 bytes, expected U16 of 6"));
    assert_int_equal(safetensors_read(&file, "a", SAFETENSORS_I16, values, 4, &error),
                     CKPT_MISMATCH);
    assert_int_equal(truncate(path, 8 + sizeof HEADER - 1 + 5), 0); /* while it is open */
    assert_int_equal(safetensors_read(&file, "a", SAFETENSORS_I16, values, 6, &error), CKPT_FORMAT);
    assert_non_null(strstr(error.text, "truncated"));
    safetensors_close(&file);
    safetensors_close(&file);
    box_remove(folder);
}

/* With standard input closed the next descriptor is 0, which must not be taken for "not open". */
static void descriptor_0_is_a_descriptor(void **state)
{
    char folder[BOX_FOLDER_BYTES], path[128], values[6];
    int kept = dup(0);
    struct safetensors file;
    struct ckpt_error error;

    (void)state;
    box_make(folder);
    write_file(folder, sizeof HEADER - 1, HEADER, "abcdef", 6, path);
    (void)close(0);
    assert_int_equal(safetensors_open(path, &file, &error), CKPT_OK);
    assert_true(file.fd > 0);
    assert_int_equal(safetensors_read(&file, "a", SAFETENSORS_I16, values, 6, &error), CKPT_OK);
    safetensors_close(&file);
    assert_int_equal(fcntl(0, F_GETFD), -1); /* nothing is left under it */
    if (kept >= 0) {
        assert_int_equal(dup2(kept, 0), 0);
        (void)close(kept);
    }
    box_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_are_compared_before_anything_is_read),
        cmocka_unit_test(data_must_be_there_to_the_byte),
        cmocka_unit_test(what_is_no_file_is_refused),
        cmocka_unit_test(reading_asks_for_the_right_tensor),
        cmocka_unit_test(descriptor_0_is_a_descriptor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
