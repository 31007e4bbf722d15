/* Saving: durable in its order, refused to ghosts, shared by several workers, and whole or absent
 * wherever it is interrupted. */
#include "unit/ckpt/box.h"
#include "unit/ckpt/port.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define SAVERS 4

static void saved(const char *folder, uint64_t step, uint64_t generation, uint64_t flavour,
                  uint64_t keep)
{
    struct ckpt_error error;

    if (box_save(folder, step, generation, flavour, keep, &error) != CKPT_OK)
        fail_msg("step %llu: %s", (unsigned long long)step, error.text);
}

static void expect_newest(const char *folder, uint64_t step, uint64_t flavour)
{
    struct ckpt_found found;
    struct ckpt_error error;

    if (ckpt_find(folder, &found, NULL, NULL, &error) != CKPT_OK)
        fail_msg("%s", error.text);
    box_expect(&found, step, flavour);
}

static ino_t inode(const char *folder, const char *name)
{
    char path[160];
    struct stat info;

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(stat(path, &info), 0);
    return info.st_ino;
}

/* ---- order ---------------------------------------------------------------------------------- */

/* Place in the log, from `at`, of a call whose path ends with `end`; fails when there is none. */
static unsigned find_call(unsigned at, enum port_call call, const char *end)
{
    for (; at < port.log_count; at++) {
        const char *path = port.log[at].path;

        if (port.log[at].call == call && strlen(path) >= strlen(end) &&
            strcmp(path + strlen(path) - strlen(end), end) == 0)
            return at;
    }
    fail_msg("no call %d of %s", call, end);
    return 0;
}

static void old_ones_go_only_after_the_new_one_is_durable(void **state)
{
    char folder[BOX_FOLDER_BYTES];
    unsigned commit;

    (void)state;
    box_make(folder);
    saved(folder, 1, 0, 0, 3);
    saved(folder, 2, 0, 0, 3);
    port_begin();
    saved(folder, 3, 0, 0, 1);
    port_end();
    commit = find_call(0, PORT_FSYNC, BOX_MODEL ".tmp");
    commit = find_call(commit, PORT_RENAME, BOX_MODEL ".tmp");
    commit = find_call(commit, PORT_FSYNC, "");
    commit = find_call(commit, PORT_FSYNC, BOX_OPTIMIZER ".tmp");
    commit = find_call(commit, PORT_FSYNC, "manifest.json.tmp");
    commit = find_call(commit, PORT_RENAME, "manifest.json.tmp");
    for (; commit < port.log_count; commit++)
        if (port.log[commit].call == PORT_RENAME && strstr(port.log[commit].to, "/step-") != NULL &&
            strstr(port.log[commit].to, ".tmp") == NULL)
            break;
    commit = find_call(commit, PORT_FSYNC, folder);
    for (unsigned i = 0; i < commit; i++)
        if (port.log[i].call == PORT_UNLINK || port.log[i].call == PORT_RMDIR ||
            strstr(port.log[i].path, "step-00000001") != NULL)
            fail_msg("call %u, before the commit at %u, is %d of %s", i, commit, port.log[i].call,
                     port.log[i].path);
    (void)find_call(commit, PORT_RENAME, "/step-00000001");
    (void)find_call(commit, PORT_RENAME, "/step-00000002");
    assert_int_equal(box_count(folder, "step-"), 1);
    expect_newest(folder, 3, 0);
    box_remove(folder);
}

static void as_many_are_kept_as_were_asked_for(void **state)
{
    char folder[BOX_FOLDER_BYTES];

    (void)state;
    box_make(folder);
    for (uint64_t step = 1; step <= 6; step++) {
        saved(folder, step, 0, 0, 3);
        assert_int_equal(box_count(folder, "step-"), step < 3 ? step : 3);
    }
    saved(folder, 7, 0, 0, 0);
    assert_int_equal(box_count(folder, "step-"), 4);
    saved(folder, 3, 0, 0, 1); /* resumed from before: what is newer is not its own */
    assert_int_equal(box_count(folder, "step-"), 5);
    expect_newest(folder, 7, 0);
    box_remove(folder);
}

/* ---- who writes ----------------------------------------------------------------------------- */

/* Nor does it write anything, and an older generation may say it too. */
static void the_same_again_changes_nothing(void **state)
{
    char folder[BOX_FOLDER_BYTES];
    ino_t before;

    (void)state;
    box_make(folder);
    saved(folder, 4, 2, 0, 3);
    before = inode(folder, "step-00000004");
    for (uint64_t generation = 1; generation <= 3; generation++) {
        port_begin();
        saved(folder, 4, generation, 0, 3);
        port_end();
        for (unsigned i = 0; i < port.log_count; i++)
            assert_int_not_equal(port.log[i].call, PORT_WRITE);
        assert_int_equal(inode(folder, "step-00000004"), before);
    }
    box_remove(folder);
}

static void other_or_broken_content_is_replaced(void **state)
{
    char folder[BOX_FOLDER_BYTES], path[128];

    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        box_make(folder);
        (void)snprintf(path, sizeof path, "%s/step-00000004/" BOX_MODEL, folder);
        port_begin();
        port.no_exchange = plain != 0;
        saved(folder, 4, 1, 0, 3);
        saved(folder, 4, 1, 9, 3);
        expect_newest(folder, 4, 9);
        box_spit(path, "torn", 4);
        saved(folder, 4, 1, 9, 3);
        expect_newest(folder, 4, 9);
        port_end();
        assert_int_equal(box_count(folder, "step-"), 1);
        box_remove(folder);
    }
}

static void a_ghost_is_refused(void **state)
{
    char folder[BOX_FOLDER_BYTES];
    struct ckpt_error error;

    (void)state;
    box_make(folder);
    saved(folder, 10, 5, 0, 3);
    assert_int_equal(box_save(folder, 11, 4, 0, 3, &error), CKPT_OLDER);
    assert_non_null(
        strstr(error.text, "step-00000010 was written by generation 5, this is generation 4"));
    assert_int_equal(box_count(folder, ""), 3);
    saved(folder, 11, 5, 0, 3);
    saved(folder, 12, 0, 0, 3); /* alone: the only writer there is */
    assert_int_equal(box_count(folder, "step-"), 3);
    box_remove(folder);
}

static void unfinished_ones_are_passed_over_and_swept(void **state)
{
    static const char *const names[] = {"step-00000009.tmp-2-00ab", "step-00000002.tmp-1-00ab",
                                        "step-00000002.tmp-3-00ab"};
    char folder[BOX_FOLDER_BYTES], path[160];
    struct ckpt_row *rows;
    struct ckpt_error error;
    uint32_t count;

    (void)state;
    box_make(folder);
    saved(folder, 1, 2, 0, 3);
    for (int i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        assert_int_equal(mkdir(path, 0755), 0);
        (void)snprintf(path, sizeof path, "%s/%s/" BOX_MODEL, folder, names[i]);
        box_spit(path, "half", 4);
    }
    expect_newest(folder, 1, 0);
    assert_int_equal(ckpt_list(folder, &rows, &count, &error), CKPT_OK);
    assert_int_equal(count, 1);
    free(rows);
    saved(folder, 3, 2, 0, 3);
    assert_int_equal(box_count(folder, names[0]), 1); /* of a later step */
    assert_int_equal(box_count(folder, names[1]), 0); /* of an older generation */
    assert_int_equal(box_count(folder, names[2]), 1); /* of a newer one: at work, perhaps */
    box_remove(folder);
}

/* One of several workers. */
struct saver {
    pthread_t thread;
    const char *folder;
    uint64_t keep;
    enum ckpt_code code;     /* out: the first that was not OK */
    struct ckpt_error error; /* out */
};

static void *save_ten(void *argument)
{
    struct saver *saver = argument;

    for (uint64_t step = 1; step <= 10 && saver->code == CKPT_OK; step++)
        saver->code = box_save(saver->folder, step, 1, 0, saver->keep, &saver->error);
    return NULL;
}

static void several_may_save_one_step_at_once(void **state)
{
    struct saver savers[SAVERS];
    char folder[BOX_FOLDER_BYTES];

    (void)state;
    box_make(folder);
    for (int i = 0; i < SAVERS; i++) {
        savers[i] = (struct saver){.folder = folder, .keep = 0, .code = CKPT_OK};
        assert_int_equal(pthread_create(&savers[i].thread, NULL, save_ten, &savers[i]), 0);
    }
    for (int i = 0; i < SAVERS; i++)
        assert_int_equal(pthread_join(savers[i].thread, NULL), 0);
    for (int i = 0; i < SAVERS; i++)
        if (savers[i].code != CKPT_OK)
            fail_msg("saver %d: %s", i, savers[i].error.text);
    assert_int_equal(box_count(folder, "step-"), 10);
    expect_newest(folder, 10, 0);
    box_remove(folder);
}

/* ---- refused -------------------------------------------------------------------------------- */

/* Nothing is left of a save that says no. */
static void refused(const char *folder, const struct ckpt_meta *meta, const struct ckpt_file *files,
                    uint32_t count, enum ckpt_code code, const char *words)
{
    struct ckpt_error error = {CKPT_OK, ""};
    enum ckpt_code got = ckpt_save(folder, meta, files, count, 3, &error);

    if (got != code || strstr(error.text, words) == NULL)
        fail_msg("code %d, '%s' was said where %d and '%s' were expected", got, error.text, code,
                 words);
    if (strlen(folder) < BOX_FOLDER_BYTES)
        assert_int_equal(box_count(folder, "step-"), 0);
}

static void what_would_not_be_read_is_refused(void **state)
{
    static const float value = 1;
    struct safetensors_tensor tensors[2] = {{.name = "a", .type = SAFETENSORS_F32, .data = &value},
                                            {.name = "a", .type = SAFETENSORS_F32, .data = &value}};
    struct ckpt_file files[CKPT_FILES_MAX + 1], twice = {"x", tensors, 2};
    char folder[BOX_FOLDER_BYTES], name[65], deep[CKPT_PATH_BYTES];
    struct ckpt_meta meta;

    (void)state;
    box_make(folder);
    box_meta(1, 1, 0, &meta);
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    memset(deep, 'd', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    for (uint32_t i = 0; i <= CKPT_FILES_MAX; i++)
        files[i] = (struct ckpt_file){"x", tensors, 1};
    refused(folder, &meta, files, 0, CKPT_LIMIT, "0 files in a checkpoint");
    refused(folder, &meta, files, CKPT_FILES_MAX + 1, CKPT_LIMIT, "65 files in a checkpoint");
    refused(folder, &meta, &twice, 1, CKPT_FORMAT, "there already");
    refused(deep, &meta, files, 1, CKPT_LIMIT, "the path is too long");
    files[0].name = name;
    refused(folder, &meta, files, 1, CKPT_LIMIT, "the name is too long");
    files[0].name = "x";
    meta.generation = UINT64_MAX;
    refused(folder, &meta, files, 1, CKPT_FORMAT, "a value that JSON does not have");
    box_remove(folder);
}

/* ---- interrupted anywhere ------------------------------------------------------------------- */

/* Step 1 stands; and, but for ADDS, step 2 with other content than comes now. */
enum standing { ADDS, REPLACES, REPLACES_IN_TWO };

static void prepare(char folder[BOX_FOLDER_BYTES], enum standing standing)
{
    box_make(folder);
    port_begin();
    saved(folder, 1, 1, 0, 0);
    if (standing != ADDS)
        saved(folder, 2, 1, 9, 0);
    port_end();
}

static unsigned calls_of_a_save(enum standing standing)
{
    char folder[BOX_FOLDER_BYTES];
    unsigned calls;

    prepare(folder, standing);
    port_begin();
    port.no_exchange = standing == REPLACES_IN_TWO;
    saved(folder, 2, 1, 0, 1);
    calls = port.calls;
    port_end();
    box_remove(folder);
    return calls;
}

/* Call `at` of a save is refused, and with `on` all after it: the new one is there and whole, or
 * the old ones are (in two steps: at least step 1 is); what was answered with OK is there. */
static void interrupt(unsigned at, bool on, enum standing standing)
{
    char folder[BOX_FOLDER_BYTES];
    struct ckpt_found found;
    struct ckpt_error error, why;
    enum ckpt_code code;
    bool fresh;

    prepare(folder, standing);
    port_refuse(PORT_ANY, at, on, EIO);
    port.no_exchange = standing == REPLACES_IN_TWO;
    code = box_save(folder, 2, 1, 0, 1, &error);
    port_end();
    if (ckpt_find(folder, &found, NULL, NULL, &why) != CKPT_OK)
        fail_msg("call %u: %s", at, why.text);
    fresh = found.meta.step == 2 && found.meta.params_hash == 2000;
    if (fresh)
        box_expect(&found, 2, 0);
    else if (standing == ADDS || (standing == REPLACES_IN_TWO && on && found.meta.step == 1))
        box_expect(&found, 1, 0);
    else
        box_expect(&found, 2, 9);
    if (code == CKPT_OK && !fresh)
        fail_msg("call %u: OK, but it is not there", at);
    if (code != CKPT_OK && (code != CKPT_SYSTEM || strstr(error.text, strerror(EIO)) == NULL))
        fail_msg("call %u: code %d, %s", at, code, error.text);
    port_begin();
    saved(folder, 3, 2, 0, 1); /* the next generation's save goes through, and tidies up */
    port_end();
    expect_newest(folder, 3, 0);
    if (box_count(folder, "") != 3)
        fail_msg("call %u: something was left behind", at);
    box_remove(folder);
}

static void interrupted_anywhere_it_is_whole_or_absent(void **state)
{
    (void)state;
    for (int standing = ADDS; standing <= REPLACES_IN_TWO; standing++) {
        unsigned calls = calls_of_a_save((enum standing)standing);

        assert_true(calls > 30);
        for (unsigned at = 1; at <= calls; at++) {
            interrupt(at, false, (enum standing)standing);
            interrupt(at, true, (enum standing)standing);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_ones_go_only_after_the_new_one_is_durable),
        cmocka_unit_test(as_many_are_kept_as_were_asked_for),
        cmocka_unit_test(the_same_again_changes_nothing),
        cmocka_unit_test(other_or_broken_content_is_replaced),
        cmocka_unit_test(a_ghost_is_refused),
        cmocka_unit_test(unfinished_ones_are_passed_over_and_swept),
        cmocka_unit_test(several_may_save_one_step_at_once),
        cmocka_unit_test(what_would_not_be_read_is_refused),
        cmocka_unit_test(interrupted_anywhere_it_is_whole_or_absent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
