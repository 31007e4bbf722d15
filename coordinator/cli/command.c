/* What every subcommand does first and last. */
#include "cli/command.h"

#include "base/exits.h"
#include "base/version.h"
#include "ckpt/ckpt.h"
#include "client/muster.h"
#include "proto/wire.h"

#include <string.h>

int command_fail(const char *name, const struct error *error)
{
    (void)fprintf(stderr, "%s: %s\n", name, error->text);
    return error->code;
}

static void print_version(void)
{
    const struct version_row rows[] = {
        {"protobuf-c", wire_library_version()},
        {"libuv", muster_carrier_version()},
        {"libcurl", fetch_version()},
        {"jansson", jansson_version_str()},
        {"xxhash", ckpt_hash_version()},
    };

    version_print(stdout, "muster", rows, sizeof rows / sizeof rows[0]);
}

bool command_parse(struct options *options, const struct command_syntax *syntax, int argc,
                   char **argv, void *values, int *exit_code)
{
    struct error error = {.code = 0};
    char strays[OPTIONS_STRAYS_BYTES];
    int status;

    options_init(options, argv[0], syntax->summary, syntax->table, syntax->count);
    if (syntax->arguments)
        options->arguments = syntax->arguments;
    status = options_parse(options, argc, argv, values, &error);
    if (status == 0 && options->positional_count > syntax->words_max)
        status = error_set(&error, EXIT_USAGE, "'%s' is not expected here",
                           options->positional[syntax->words_max]);
    if (status == 0 && options_strays(strays))
        (void)fprintf(stderr, "%s: %s\n", argv[0], strays);
    if (status == 0)
        return true;
    *exit_code = 0;
    if (status == OPTIONS_HELP)
        options_help(options, stdout);
    else if (status == OPTIONS_VERSION)
        print_version();
    else
        *exit_code = command_fail(argv[0], &error);
    options_release(options);
    return false;
}

int command_version(int argc, char **argv)
{
    static const struct command_syntax syntax = {
        .summary = "Version, commit, and the versions of the libraries in use."};
    struct options options;
    int exit_code = 0;

    if (!command_parse(&options, &syntax, argc, argv, NULL, &exit_code))
        return exit_code;
    print_version();
    options_release(&options);
    return 0;
}
