/* The worker's options as one table, and what follows from them: the spec that defines the bits. */
#ifndef TRAIN_SETTINGS_H
#define TRAIN_SETTINGS_H

#include "base/options.h"
#include "optim/optim.h"

#define SETTINGS_SPEC_BYTES 4096

struct settings {
    /* job */
    const char *coordinator, *job;
    bool standalone;
    uint64_t min, max;
    const char *node, *data_listen;
    uint64_t connect_timeout_ms, drain_ms;
    /* training */
    const char *model, *data, *init, *precision;
    uint64_t epochs, steps, global_batch, shards, seed;
    const char *optim, *schedule;
    double lr, beta1, beta2, epsilon, decay, momentum, clip_norm;
    bool nesterov;
    uint64_t warmup;
    /* machine */
    const char *device, *isa;
    uint64_t threads;
    /* checkpoints */
    const char *ckpt;
    uint64_t ckpt_every, ckpt_keep;
    /* telling */
    const char *log;
    bool log_samples, quiet;
    /* corruption */
    uint64_t hash_every, audit;
};

extern const struct option_spec settings_table[];
extern const size_t settings_count;

/* `wanted` with the port 0 where it names none: "10.0.0.1", "::1", "[::1]" and "10.0.0.1:7" are
 * fine. */
void settings_listen(const char *wanted, char *listen, size_t listen_bytes);

/* What one option alone cannot say: --max follows --shards, and of --steps and --epochs counts what
 * comes from the stronger source. 0, or EXIT_USAGE with a sentence that names the option. */
int settings_settle(struct settings *settings, const struct options *options, struct error *error);
void settings_optim(const struct settings *settings, uint64_t total_steps,
                    struct optim_options *optim);

/* "key=value\n" lines, sorted: everything that changes the bits, nothing else. */
void settings_spec(const struct settings *settings, uint64_t data_hash, uint64_t samples,
                   uint64_t init_hash, char spec[SETTINGS_SPEC_BYTES]);

/* The first line in which two specs, or fingerprints, differ: "lr=0.001 there, lr=0.01 here". */
void settings_difference(const char *there, const char *here, char *text, size_t text_bytes);

#endif
