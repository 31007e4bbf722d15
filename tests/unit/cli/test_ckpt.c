/* muster ckpt on folders that are whole, empty, absent, damaged. */
#include "cli/command.h"

#include "base/exits.h"
#include "ckpt/ckpt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* A folder with two checkpoints. */
struct folder {
    char path[32];
    char newest[64]; /* the folder of the newer one */
};

static void remove_tree(const char *path)
{
    char command[128];

    (void)snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

static void setup(struct folder *folder)
{
    static const float values[4] = {1, 2, 3, 4};
    struct safetensors_tensor tensor = {
        .name = "conv.weight", .type = SAFETENSORS_F32, .dims = 1, .shape = {4}, .data = values};
    struct ckpt_file file = {"model.safetensors", &tensor, 1};
    struct ckpt_meta *meta = calloc(1, sizeof *meta);
    struct ckpt_error error;

    (void)snprintf(folder->path, sizeof folder->path, "/tmp/muster-cli-XXXXXX");
    assert_non_null(mkdtemp(folder->path));
    (void)snprintf(folder->newest, sizeof folder->newest, "%s/step-00000009", folder->path);
    for (uint64_t step = 5; step <= 9; step += 4) {
        meta->step = step;
        meta->generation = 2;
        meta->loss_scale = 1;
        assert_int_equal(ckpt_save(folder->path, meta, &file, 1, 0, &error), CKPT_OK);
    }
    free(meta);
}

static int ckpt(const char *verb, const char *folder)
{
    char name[] = "muster ckpt", first[16], second[128];
    char *words[] = {name, first, second, NULL};

    (void)snprintf(first, sizeof first, "%s", verb);
    (void)snprintf(second, sizeof second, "%s", folder);
    return command_ckpt(3, words);
}

static void flip(const char *folder, const char *file, long offset)
{
    char path[128];
    FILE *stream;
    int byte;

    (void)snprintf(path, sizeof path, "%s/%s", folder, file);
    stream = fopen(path, "r+b");
    assert_non_null(stream);
    assert_int_equal(fseek(stream, offset, offset < 0 ? SEEK_END : SEEK_SET), 0);
    byte = fgetc(stream);
    assert_int_equal(fseek(stream, -1, SEEK_CUR), 0);
    assert_int_equal(fputc(byte ^ 1, stream), byte ^ 1);
    assert_int_equal(fclose(stream), 0);
}

static void whole_folders_pass(void **state)
{
    struct folder folder;

    (void)state;
    setup(&folder);
    assert_int_equal(ckpt("list", folder.path), 0);
    assert_int_equal(ckpt("verify", folder.path), 0);
    assert_int_equal(ckpt("verify", folder.newest), 0);
    remove_tree(folder.path);
}

static void damage_is_exit_65(void **state)
{
    struct folder folder;

    (void)state;
    setup(&folder);
    flip(folder.newest, "model.safetensors", -1);
    assert_int_equal(ckpt("list", folder.path), EXIT_DATA);
    assert_int_equal(ckpt("verify", folder.path), EXIT_DATA);
    assert_int_equal(ckpt("verify", folder.newest), EXIT_DATA);
    flip(folder.newest, "model.safetensors", -1);
    assert_int_equal(ckpt("verify", folder.newest), 0);
    flip(folder.newest, "manifest.json", 10);
    assert_int_equal(ckpt("verify", folder.path), EXIT_DATA);
    remove_tree(folder.path);
}

static void what_is_no_folder_is_exit_65(void **state)
{
    char path[] = "/tmp/muster-cli-XXXXXX";

    (void)state;
    assert_int_equal(close(mkstemp(path)), 0);
    assert_int_equal(ckpt("list", path), EXIT_DATA);
    assert_int_equal(ckpt("verify", path), EXIT_DATA);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(ckpt("list", "/dev/null"), EXIT_DATA);
    assert_int_equal(ckpt("list", ""), EXIT_DATA);
}

static void absent_folders_and_wrong_words(void **state)
{
    char name[] = "muster ckpt", verb[] = "list";
    char *words[] = {name, verb, NULL};

    (void)state;
    assert_int_equal(ckpt("verify", "/nonexistent"), EXIT_DATA);
    assert_int_equal(ckpt("prune", "/tmp"), EXIT_USAGE);
    assert_int_equal(command_ckpt(2, words), EXIT_USAGE);
    assert_int_equal(command_ckpt(1, words), EXIT_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_folders_pass),
        cmocka_unit_test(damage_is_exit_65),
        cmocka_unit_test(what_is_no_folder_is_exit_65),
        cmocka_unit_test(absent_folders_and_wrong_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
