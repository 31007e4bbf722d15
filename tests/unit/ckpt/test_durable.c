/* The one function that makes bytes durable: its order, the step that failed by name, nothing left
 * behind. */
#include "ckpt/durable.h"
#include "unit/ckpt/box.h"
#include "unit/ckpt/port.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define NOBODY 65534

static const struct ckpt_bytes parts[] = {{"first ", 6}, {"", 0}, {"second", 6}};
static const char whole[] = "first second";

static enum ckpt_code write_parts(const char *folder, struct ckpt_error *error)
{
    memset(error, 0, sizeof *error);
    return ckpt_durable_write(folder, "x", parts, 3, error);
}

/* folder/x has this content, and nothing else is there. */
static void expect_content(const char *folder, const char *content)
{
    struct box_bytes file;
    char path[128];

    (void)snprintf(path, sizeof path, "%s/x", folder);
    file = box_slurp(path);
    if (file.bytes != strlen(content) || memcmp(file.data, content, file.bytes) != 0)
        fail_msg("'%.*s' is there, expected '%s'", (int)file.bytes, file.data, content);
    free(file.data);
    assert_int_equal(box_count(folder, "."), 2);
    assert_int_equal(box_count(folder, ""), 3);
}

static void expect_step(const char *folder, enum ckpt_code code, const struct ckpt_error *error,
                        const char *words)
{
    if (code != CKPT_SYSTEM || strstr(error->text, folder) == NULL ||
        strstr(error->text, words) == NULL)
        fail_msg("code %d, '%s' was said where '%s' was expected", code, error->text, words);
}

static void the_order_is_write_sync_rename_sync(void **state)
{
    static const struct {
        enum port_call call;
        const char *path;
    } order[] = {{PORT_OPEN, "/.x.tmp"},  {PORT_WRITE, "/.x.tmp"}, {PORT_WRITE, "/.x.tmp"},
                 {PORT_FSYNC, "/.x.tmp"}, {PORT_CLOSE, "/.x.tmp"}, {PORT_RENAME, "/.x.tmp"},
                 {PORT_OPEN, ""},         {PORT_FSYNC, ""},        {PORT_CLOSE, ""}};
    char folder[BOX_FOLDER_BYTES], path[128];
    struct ckpt_error error;

    (void)state;
    box_make(folder);
    port_begin();
    assert_int_equal(write_parts(folder, &error), CKPT_OK);
    port_end();
    assert_int_equal(port.log_count, sizeof order / sizeof order[0]);
    for (unsigned i = 0; i < port.log_count; i++) {
        (void)snprintf(path, sizeof path, "%s%s", folder, order[i].path);
        assert_int_equal(port.log[i].call, order[i].call);
        assert_string_equal(port.log[i].path, path);
    }
    expect_content(folder, whole);
    box_remove(folder);
}

static void the_step_that_failed_is_named(void **state)
{
    static const struct {
        enum port_call call;
        unsigned at;
        bool renamed; /* the new content is there already */
        const char *words;
    } rows[] = {{PORT_OPEN, 1, false, "creating failed"},
                {PORT_WRITE, 1, false, "writing failed"},
                {PORT_WRITE, 2, false, "writing failed"},
                {PORT_FSYNC, 1, false, "fsync failed"},
                {PORT_CLOSE, 1, false, "closing failed"},
                {PORT_RENAME, 1, false, "renaming to its name failed"},
                {PORT_OPEN, 2, true, "opening the folder failed"},
                {PORT_FSYNC, 2, true, "fsync of the folder failed"}};
    char folder[BOX_FOLDER_BYTES], path[128];
    struct ckpt_error error;

    (void)state;
    box_make(folder);
    (void)snprintf(path, sizeof path, "%s/x", folder);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        enum ckpt_code code;

        box_spit(path, "old", 3);
        port_refuse(rows[i].call, rows[i].at, false, EIO);
        code = write_parts(folder, &error);
        port_end();
        expect_step(folder, code, &error, rows[i].words);
        expect_step(folder, code, &error, strerror(EIO));
        expect_content(folder, rows[i].renamed ? whole : "old");
    }
    box_remove(folder);
}

/* A second fsync would report success for pages that never reached the disk. */
static void fsync_is_not_tried_twice(void **state)
{
    char folder[BOX_FOLDER_BYTES];
    struct ckpt_error error;

    (void)state;
    box_make(folder);
    port_refuse(PORT_FSYNC, 1, false, EIO);
    assert_int_equal(write_parts(folder, &error), CKPT_SYSTEM);
    port_end();
    assert_int_equal(port.calls, 1);
    box_remove(folder);
}

static void writes_may_be_short_or_interrupted(void **state)
{
    char folder[BOX_FOLDER_BYTES];
    struct ckpt_error error;

    (void)state;
    box_make(folder);
    port_refuse(PORT_WRITE, 2, false, EINTR);
    port.write_max = 1;
    assert_int_equal(write_parts(folder, &error), CKPT_OK);
    port_end();
    assert_int_equal(port.calls, 13);
    expect_content(folder, whole);
    box_remove(folder);
}

static void a_full_disk_is_named(void **state)
{
    const struct rlimit small = {5, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
    char folder[BOX_FOLDER_BYTES], link[128];
    struct ckpt_error error;
    enum ckpt_code code;

    (void)state;
    box_make(folder);
    assert_int_not_equal(signal(SIGXFSZ, SIG_IGN), SIG_ERR);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    code = write_parts(folder, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    expect_step(folder, code, &error, "writing failed: File too large");
    assert_int_equal(box_count(folder, ""), 2);
    (void)snprintf(link, sizeof link, "%s/.x.tmp", folder);
    assert_int_equal(symlink("/dev/full", link), 0);
    code = write_parts(folder, &error);
    expect_step(folder, code, &error, "writing failed: No space left on device");
    assert_int_equal(box_count(folder, ""), 2);
    box_remove(folder);
}

static void a_folder_that_cannot_be_written_is_named(void **state)
{
    char folder[BOX_FOLDER_BYTES], inside[128];
    struct ckpt_error error;
    enum ckpt_code code;

    (void)state;
    box_make(folder);
    assert_int_equal(chmod(folder, 0555), 0);
    if (geteuid() == 0)
        assert_int_equal(seteuid(NOBODY), 0); /* permissions do not hold root back */
    code = write_parts(folder, &error);
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
    expect_step(folder, code, &error, "creating failed: Permission denied");
    assert_int_equal(chmod(folder, 0755), 0);
    (void)snprintf(inside, sizeof inside, "%s/missing", folder);
    code = write_parts(inside, &error);
    expect_step(inside, code, &error, "creating failed: No such file or directory");
    (void)snprintf(inside, sizeof inside, "%s/x", folder);
    assert_int_equal(mkdir(inside, 0755), 0);
    code = write_parts(folder, &error);
    expect_step(folder, code, &error, "renaming to its name failed: Is a directory");
    assert_int_equal(box_count(folder, ".x"), 0);
    box_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_is_write_sync_rename_sync),
        cmocka_unit_test(the_step_that_failed_is_named),
        cmocka_unit_test(fsync_is_not_tried_twice),
        cmocka_unit_test(writes_may_be_short_or_interrupted),
        cmocka_unit_test(a_full_disk_is_named),
        cmocka_unit_test(a_folder_that_cannot_be_written_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
