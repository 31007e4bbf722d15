/* Options of libmuster: checked, copied, turned into the session's config. */
#include "client_private.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void muster_options_init(struct muster_options *options)
{
    *options = (struct muster_options){
        .kind = MUSTER_WORKER,
        .rank_hint = MUSTER_NOBODY,
        .connect_timeout_ms = 60000,
    };
}

/* Copies a text that fits and is text; false and a sentence that names it otherwise. */
static bool take_text(enum lint_kind kind, const char *name, const char *from, size_t room,
                      char *to, struct muster_error *error)
{
    size_t bytes = from ? strlen(from) : 0;

    if (bytes >= room) {
        (void)client_explain(error, MUSTER_ERROR_USAGE, "%s is too long: %zu bytes, at most %zu",
                             name, bytes, room - 1);
        return false;
    }
    if (!lint_text_valid(kind, (const uint8_t *)from, bytes)) {
        (void)client_explain(error, MUSTER_ERROR_USAGE,
                             "%s is not text (UTF-8 without control characters)", name);
        return false;
    }
    client_copy_text(to, room, from);
    return true;
}

static bool take_texts(struct muster *muster, const struct muster_options *options,
                       struct muster_error *error)
{
    const char *node = options->node ? options->node : muster->host;

    return take_text(LINT_TEXT, "job", options->job, sizeof muster->job, muster->job, error) &&
           take_text(LINT_TEXT, "node", node, sizeof muster->node, muster->node, error) &&
           take_text(LINT_TEXT, "data_address", options->data_address, sizeof muster->data_address,
                     muster->data_address, error) &&
           take_text(LINT_TEXT, "program", options->program, sizeof muster->program,
                     muster->program, error) &&
           take_text(LINT_LINES, "spec", options->spec, sizeof muster->spec, muster->spec, error) &&
           take_text(LINT_LINES, "fingerprint", options->fingerprint, sizeof muster->fingerprint,
                     muster->fingerprint, error);
}

static void take_numbers(struct muster *muster, const struct muster_options *options)
{
    struct session_config *config = &muster->config;

    config->kind = (enum wire_kind)options->kind;
    config->pid = (uint32_t)getpid();
    config->min = options->min;
    config->max = options->max;
    config->rank_hint = options->rank_hint == MUSTER_NOBODY ? 0 : options->rank_hint + 1;
    config->group_size = options->group_size;
    config->known_generation = options->known_generation;
    config->known_applied = options->known_applied;
    config->refresh_ms = options->refresh_ms;
    config->connect_timeout_ms = options->connect_timeout_ms;
    memcpy(config->member_id.bytes, options->member_id, sizeof config->member_id.bytes);
    memcpy(config->job_uid.bytes, options->job_uid, sizeof config->job_uid.bytes);
    muster->wake_cb = options->wake_cb;
    muster->ended_cb = options->ended_cb;
    muster->wake_context = options->wake_context;
}

enum muster_status client_take_options(struct muster *muster, const struct muster_options *options,
                                       struct muster_error *error)
{
    struct session_config *config = &muster->config;

    session_config_init(config);
    if (gethostname(muster->host, sizeof muster->host - 1) != 0)
        client_copy_text(muster->host, sizeof muster->host, "localhost");
    if (!options->coordinator || !client_address_split(options->coordinator, &muster->coordinator))
        return client_explain(error, MUSTER_ERROR_USAGE, "coordinator: '%.256s' is not HOST:PORT",
                              options->coordinator ? options->coordinator : "");
    if (!options->job || options->job[0] == '\0')
        return client_explain(error, MUSTER_ERROR_USAGE, "job must be given");
    if (options->kind != MUSTER_WORKER && options->kind != MUSTER_PARTICIPANT)
        return client_explain(error, MUSTER_ERROR_USAGE, "kind is not known");
    if (!take_texts(muster, options, error))
        return MUSTER_ERROR_USAGE;
    take_numbers(muster, options);
    config->job = muster->job;
    config->node = muster->node;
    config->host = muster->host;
    config->data_address = muster->data_address;
    config->program = muster->program;
    config->spec = muster->spec;
    config->fingerprint = muster->fingerprint;
    return MUSTER_OK;
}

int client_take_identity(struct session_config *config)
{
    int error = 0;

    if (wire_id_zero(&config->member_id))
        error = uv_random(NULL, NULL, &config->member_id, sizeof config->member_id, 0, NULL);
    if (error == 0)
        error = uv_random(NULL, NULL, &config->secret, sizeof config->secret, 0, NULL);
    return error;
}
