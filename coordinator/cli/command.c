/* What every subcommand does first and last. */
#include "cli/command.h"

#include "base/exits.h"
#include "base/version.h"
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
    };

    version_print(stdout, "muster", rows, sizeof rows / sizeof rows[0]);
}

bool command_parse(struct options *options, const char *summary, const struct option_spec *table,
                   size_t count, int argc, char **argv, size_t words_max, void *values,
                   int *exit_code)
{
    struct error error = {.code = 0};
    int status;

    options_init(options, argv[0], summary, table, count);
    status = options_parse(options, argc, argv, values, &error);
    if (status == 0 && options->positional_count > words_max)
        status = error_set(&error, EXIT_USAGE, "'%s' is not expected here",
                           options->positional[words_max]);
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
    struct options options;
    int exit_code = 0;

    if (!command_parse(&options, "Version, commit, and the versions of the libraries in use.", NULL,
                       0, argc, argv, 0, NULL, &exit_code))
        return exit_code;
    print_version();
    options_release(&options);
    return 0;
}
