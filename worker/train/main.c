/* muster-worker: one training process, one device, one rank. */
#include "base/exits.h"
#include "base/streams.h"
#include "base/version.h"
#include "ckpt/ckpt.h"
#include "client/muster.h"
#include "data/mnist.h"
#include "device/device.h"
#include "train/fingerprint.h"
#include "train/train.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SUMMARY                                                                                    \
    "Trains a model as one member of an elastic job: workers may die, hang, leave or arrive at "   \
    "any\n"                                                                                        \
    "moment, and the model that comes out is bit for bit that of an undisturbed run."

static void print_version(void)
{
    const struct version_row rows[] = {{"oneDNN", device_cpu_version()},
                                       {"libuv", muster_carrier_version()},
                                       {"protobuf-c", muster_wire_version()},
                                       {"OpenSSL", mnist_crypto_version()},
                                       {"zlib", mnist_zlib_version()},
                                       {"jansson", ckpt_json_version()},
                                       {"xxhash", ckpt_hash_version()},
                                       {"sources", fingerprint_sources()}};

    version_print(stdout, "muster-worker", rows, sizeof rows / sizeof rows[0]);
}

static int work(struct settings *settings, const struct options *options, bool *hung,
                struct error *error)
{
    char strays[OPTIONS_STRAYS_BYTES];

    (void)signal(SIGPIPE, SIG_IGN); /* from here on it is a connection that broke */
    if (options->positional_count > 0)
        return error_set(error, EXIT_USAGE, "unexpected argument '%s'", options->positional[0]);
    if (settings_settle(settings, options, error) != 0)
        return error->code;
    if (options_strays(strays))
        (void)fprintf(stderr, "muster-worker: %s\n", strays);
    return train(settings, hung, error);
}

int main(int argc, char **argv)
{
    struct settings settings = {.max = 0};
    struct options options;
    struct error error = {0, ""};
    bool hung = false;
    int status;

    streams_open();
    options_init(&options, "muster-worker", SUMMARY, settings_table, settings_count);
    status = options_parse(&options, argc, argv, &settings, &error);
    if (status == OPTIONS_HELP) {
        options_help(&options, stdout);
        status = streams_flush(&error);
    } else if (status == OPTIONS_VERSION) {
        print_version();
        status = streams_flush(&error);
    } else if (status == 0) {
        status = work(&settings, &options, &hung, &error);
    }
    if (error.text[0] != '\0')
        (void)fprintf(stderr, "muster-worker: %s\n", error.text);
    if (hung)
        _exit(status);
    options_release(&options);
    return status;
}
