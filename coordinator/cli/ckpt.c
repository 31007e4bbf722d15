/* muster ckpt list|verify DIR: what is in a checkpoint folder, and whether all of it is whole. */
#include "cli/command.h"

#include "base/exits.h"
#include "ckpt/ckpt.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(struct error *error, const struct ckpt_error *from)
{
    bool system = from->code == CKPT_SYSTEM || from->code == CKPT_MEMORY;

    return error_set(error, system ? EXIT_UNAVAILABLE : EXIT_DATA, "%s", from->text);
}

static void print_rows(const struct ckpt_row *rows, uint32_t count)
{
    (void)printf("%-16s  %12s  %10s  %14s  %s\n", "CHECKPOINT", "STEP", "GENERATION", "BYTES",
                 "STATE");
    for (uint32_t i = 0; i < count; i++)
        (void)printf("%-16s  %12llu  %10llu  %14llu  %s\n", rows[i].name,
                     (unsigned long long)rows[i].step, (unsigned long long)rows[i].generation,
                     (unsigned long long)rows[i].bytes, rows[i].valid ? "valid" : "broken");
}

/* The table on stdout, what is wrong on stderr. */
static int list(const char *name, const char *folder, struct error *error)
{
    struct ckpt_error why = {.code = CKPT_OK};
    struct ckpt_row *rows = NULL;
    uint32_t count = 0;
    uint32_t broken = 0;
    int exit_code = 0;

    if (ckpt_list(folder, &rows, &count, &why) != CKPT_OK) {
        exit_code = fail(error, &why);
    } else {
        print_rows(rows, count);
        for (uint32_t i = 0; i < count; i++) {
            broken += !rows[i].valid;
            if (!rows[i].valid)
                (void)fprintf(stderr, "%s: %s\n", name, rows[i].why);
        }
        if (broken > 0)
            exit_code = error_set(error, EXIT_DATA, "%u of %u checkpoints in %s are broken", broken,
                                  count, folder);
    }
    free(rows);
    return exit_code;
}

/* One checkpoint, told by its own folder. */
static int verify_one(const char *path, struct error *error)
{
    struct ckpt_error why = {.code = CKPT_OK};
    struct ckpt_meta *meta = calloc(1, sizeof *meta);
    uint64_t bytes = 0;
    int exit_code = 0;

    if (!meta)
        return error_set(error, EXIT_UNAVAILABLE, "out of memory");
    if (ckpt_verify(path, meta, &bytes, &why) != CKPT_OK)
        exit_code = fail(error, &why);
    else
        (void)printf("%s: valid, step %llu, generation %llu, %llu bytes, params_hash %016llx\n",
                     path, (unsigned long long)meta->step, (unsigned long long)meta->generation,
                     (unsigned long long)bytes, (unsigned long long)meta->params_hash);
    free(meta);
    return exit_code;
}

/* Something is there, and it cannot hold checkpoints. */
static bool is_no_folder(const char *path)
{
    struct stat there;

    return stat(path, &there) == 0 && !S_ISDIR(there.st_mode);
}

static bool has_manifest(const char *folder)
{
    char path[4096];

    (void)snprintf(path, sizeof path, "%s/manifest.json", folder);
    return access(path, F_OK) == 0;
}

static int run(const struct options *options, const char *name, struct error *error)
{
    const char *verb = options->positional_count > 0 ? options->positional[0] : "";
    const char *folder = options->positional_count > 1 ? options->positional[1] : NULL;
    bool verify = strcmp(verb, "verify") == 0;

    if (!verify && strcmp(verb, "list") != 0)
        return error_set(error, EXIT_USAGE, "'%s' is not list or verify: %s list|verify DIR", verb,
                         name);
    if (!folder)
        return error_set(error, EXIT_USAGE, "DIR is missing: %s %s DIR", name, verb);
    if (is_no_folder(folder))
        return error_set(error, EXIT_DATA, "%s is a file, not a folder of checkpoints", folder);
    if (verify && has_manifest(folder))
        return verify_one(folder, error);
    return list(name, folder, error);
}

int command_ckpt(int argc, char **argv)
{
    static const struct command_syntax syntax = {
        .summary = "ckpt list DIR tells the checkpoints in a folder; ckpt verify DIR reads all\n"
                   "of them, or the one in DIR, to the last byte. Exit 65 when something is\n"
                   "wrong, with the name of the file.",
        .arguments = "list|verify DIR",
        .words_max = 2,
    };
    struct options options;
    struct error error = {.code = 0};
    int exit_code = 0;

    if (!command_parse(&options, &syntax, argc, argv, NULL, &exit_code))
        return exit_code;
    exit_code = run(&options, argv[0], &error);
    if (exit_code != 0)
        (void)command_fail(argv[0], &error);
    options_release(&options);
    return exit_code;
}
