/* muster-coordinator: decides who is in a job; never touches gradients. */
#include "base/exits.h"
#include "base/log.h"
#include "base/streams.h"
#include "base/version.h"
#include "proto/wire.h"
#include "server/http.h"
#include "server/runtime.h"
#include "server/settings.h"
#include "server/status.h"
#include "server/store.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define SUMMARY                                                                                    \
    "Holds elastic training jobs together: who is a member, at which rank, since when and until\n" \
    "when. Prints `ready tcp=ADDR:PORT http=ADDR:PORT` when it serves."

struct signals {
    uv_signal_t term, interrupt;
    struct runtime *runtime;
    const struct log *log;
};

static void on_signal(uv_signal_t *handle, int number)
{
    struct signals *signals = handle->data;

    log_line(signals->log, LOG_INFO_LEVEL, "",
             number == SIGTERM ? "SIGTERM: stopping; members train on and will come back"
                               : "interrupted: stopping; members train on and will come back");
    uv_close((uv_handle_t *)&signals->term, NULL);
    uv_close((uv_handle_t *)&signals->interrupt, NULL);
    runtime_stop(signals->runtime);
}

static void watch_signals(struct signals *signals, uv_loop_t *loop)
{
    (void)signal(SIGPIPE, SIG_IGN);
    (void)uv_signal_init(loop, &signals->term);
    (void)uv_signal_init(loop, &signals->interrupt);
    signals->term.data = signals->interrupt.data = signals;
    (void)uv_signal_start(&signals->term, on_signal, SIGTERM);
    (void)uv_signal_start(&signals->interrupt, on_signal, SIGINT);
}

static void print_version(void)
{
    const struct version_row rows[] = {{"libuv", uv_version_string()},
                                       {"SQLite", store_version()},
                                       {"libmicrohttpd", http_version()},
                                       {"protobuf-c", wire_library_version()},
                                       {"jansson", status_json_version()},
                                       {"OpenSSL", runtime_crypto_version()}};

    version_print(stdout, "muster-coordinator", rows, sizeof rows / sizeof rows[0]);
}

/* Who waits for the line may wait for ever: the log says why it did not come. */
static void tell_ready(const struct runtime *runtime, const struct log *log)
{
    struct error error = {0, ""};
    char ready[200], text[ERROR_TEXT_BYTES + 300];

    runtime_ready_text(runtime, ready, sizeof ready);
    (void)printf("ready %s\n", ready);
    if (streams_flush(&error) == 0)
        return;
    (void)snprintf(text, sizeof text, "the ready line '%s' is lost: %s", ready, error.text);
    log_line(log, LOG_WARNING_LEVEL, "", text);
}

static int serve(const struct settings *settings, const struct log *log, struct error *error)
{
    struct signals signals = {.log = log};
    struct runtime *runtime;
    uv_loop_t loop;
    int status;

    (void)uv_loop_init(&loop);
    status = runtime_open(&runtime, &loop, settings, log, error);
    if (status == 0) {
        signals.runtime = runtime;
        watch_signals(&signals, &loop);
        tell_ready(runtime, log);
    } else {
        runtime_stop(runtime);
    }
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    runtime_free(runtime);
    (void)uv_loop_close(&loop);
    return status;
}

int main(int argc, char **argv)
{
    struct settings settings = {0};
    struct options options;
    struct error error = {0, ""};
    char strays[OPTIONS_STRAYS_BYTES];
    struct log log;
    int status;

    streams_open();
    options_init(&options, "muster-coordinator", SUMMARY, settings_table, settings_count);
    status = options_parse(&options, argc, argv, &settings, &error);
    if (status == OPTIONS_HELP) {
        options_help(&options, stdout);
        status = streams_flush(&error);
    } else if (status == OPTIONS_VERSION) {
        print_version();
        status = streams_flush(&error);
    } else if (status == 0 && options.positional_count > 0) {
        status = error_set(&error, EXIT_USAGE, "unexpected argument '%s'", options.positional[0]);
    } else if (status == 0 && settings.lost_beats <= settings.suspect_beats) {
        status = error_set(&error, EXIT_USAGE, "--lost-beats must be more than --suspect-beats");
    } else if (status == 0) {
        log_open(&log, STDERR_FILENO, strcmp(settings.log_format, "json") == 0,
                 "muster-coordinator");
        if (options_strays(strays))
            log_line(&log, LOG_WARNING_LEVEL, "", strays);
        status = serve(&settings, &log, &error);
    }
    if (error.text[0] != '\0')
        (void)fprintf(stderr, "muster-coordinator: %s\n", error.text);
    options_release(&options);
    return status;
}
