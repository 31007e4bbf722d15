#include "train/settings.h"

#include "base/exits.h"
#include "base/netaddr.h"
#include "comm/reduce_plan.h"

#include <stdio.h>
#include <string.h>

#define NAME_BYTES_MAX 64 /* proto/PROTOCOL.md: a job, a node */

#define FIELD(name) offsetof(struct settings, name)

const struct option_spec settings_table[] = {
    {"coordinator", OPTION_ADDRESS, "HOST:PORT", "127.0.0.1:7070", 1, 0, NULL, FIELD(coordinator),
     "Job", "where muster-coordinator listens"},
    {"standalone", OPTION_FLAG, "", NULL, 0, 0, NULL, FIELD(standalone), "Job",
     "train alone, in place of --coordinator: the same loop, the same bits"},
    {"job", OPTION_NAME, "NAME", NULL, 1, NAME_BYTES_MAX, NULL, FIELD(job), "Job",
     "name of the job that this worker joins"},
    {"min", OPTION_NUMBER, "N", "1", 1, PLAN_WORLD_MAX, NULL, FIELD(min), "Job",
     "fewest workers that train"},
    {"max", OPTION_NUMBER, "N", NULL, 1, PLAN_WORLD_MAX, NULL, FIELD(max), "Job",
     "most workers that train; more are spares; default --shards"},
    {"node", OPTION_NAME, "NAME", NULL, 1, NAME_BYTES_MAX, NULL, FIELD(node), "Job",
     "identity of this host; default its name"},
    {"data-listen", OPTION_TEXT, "ADDR[:PORT]", NULL, 0, 0, NULL, FIELD(data_listen), "Job",
     "where other workers reach this one; default the local address of the control connection"},
    {"connect-timeout", OPTION_DURATION, "TIME", "60s", 100, 86400000, NULL,
     FIELD(connect_timeout_ms), "Job", "how long an unreachable coordinator is tried"},
    {"drain-ms", OPTION_DURATION, "TIME", "30s", 100, 86400000, NULL, FIELD(drain_ms), "Job",
     "after SIGTERM: time for leaving at a boundary, then it goes as lost"},

    {"model", OPTION_CHOICE, "NAME", "convnet", 0, 0, "convnet", FIELD(model), "Training",
     "what is trained"},
    {"data", OPTION_TEXT, "DIR", NULL, 0, 0, NULL, FIELD(data), "Training",
     "folder with MNIST-like idx files; default $MUSTER_DATA, ../shared/data/mnist, the bundled "
     "subset; deploy/mnist.py downloads MNIST and prints its folder"},
    {"epochs", OPTION_NUMBER, "N", "1", 1, 1000000, NULL, FIELD(epochs), "Training",
     "passes over the data"},
    {"steps", OPTION_NUMBER, "N", NULL, 1, 1e15, NULL, FIELD(steps), "Training",
     "updates in all, in place of --epochs"},
    {"global-batch", OPTION_NUMBER, "N", "256", 1, 1048576, NULL, FIELD(global_batch), "Training",
     "samples of a step, whatever the number of workers"},
    {"shards", OPTION_NUMBER, "N", "8", 1, PLAN_SHARDS_MAX, NULL, FIELD(shards), "Training",
     "fixed slices of a global batch; best a power of two, at least --max"},
    {"seed", OPTION_NUMBER, "N", "0", 0, 9e15, NULL, FIELD(seed), "Training",
     "of initial values and sample order"},
    {"init", OPTION_TEXT, "FILE", NULL, 0, 0, NULL, FIELD(init), "Training",
     "initial values from a safetensors file"},
    {"precision", OPTION_CHOICE, "P", "fp32", 0, 0, "fp32", FIELD(precision), "Training",
     "arithmetic"},
    {"optim", OPTION_CHOICE, "NAME", "adam", 0, 0, "adam|adamw|sgd", FIELD(optim), "Optimizer",
     "update rule"},
    {"lr", OPTION_REAL, "X", "0.001", 0, 1000, NULL, FIELD(lr), "Optimizer", "learning rate"},
    {"beta1", OPTION_REAL, "X", "0.9", 0, 1, NULL, FIELD(beta1), "Optimizer", "Adam's first decay"},
    {"beta2", OPTION_REAL, "X", "0.999", 0, 1, NULL, FIELD(beta2), "Optimizer",
     "Adam's second decay"},
    {"epsilon", OPTION_REAL, "X", "1e-8", 0, 1, NULL, FIELD(epsilon), "Optimizer",
     "Adam's epsilon"},
    {"weight-decay", OPTION_REAL, "X", "0", 0, 1000, NULL, FIELD(decay), "Optimizer",
     "weight decay"},
    {"momentum", OPTION_REAL, "X", "0", 0, 1, NULL, FIELD(momentum), "Optimizer", "of sgd"},
    {"nesterov", OPTION_FLAG, "", NULL, 0, 0, NULL, FIELD(nesterov), "Optimizer",
     "Nesterov's momentum"},
    {"clip-norm", OPTION_REAL, "X", "0", 0, 1e9, NULL, FIELD(clip_norm), "Optimizer",
     "largest norm of the reduced gradient; 0 = no limit"},
    {"schedule", OPTION_CHOICE, "NAME", "constant", 0, 0, "constant|linear|cosine", FIELD(schedule),
     "Optimizer", "of the learning rate"},
    {"warmup", OPTION_NUMBER, "N", "0", 0, 1e15, NULL, FIELD(warmup), "Optimizer",
     "steps of linear warm-up"},

    {"device", OPTION_CHOICE, "NAME", "cpu", 0, 0, "cpu", FIELD(device), "Machine",
     "what computes"},
    {"isa", OPTION_CHOICE, "NAME", "native", 0, 0, "native|avx2|avx512", FIELD(isa), "Machine",
     "instruction set; it changes the bits, so all workers of a job need the same"},
    {"threads", OPTION_NUMBER, "N", "1", 1, 64, NULL, FIELD(threads), "Machine",
     "compute threads; does not change the bits"},

    {"ckpt", OPTION_TEXT, "DIR", NULL, 0, 0, NULL, FIELD(ckpt), "Checkpoints",
     "folder of checkpoints that all workers share; the newest valid one is resumed from"},
    {"ckpt-every", OPTION_NUMBER, "N", "0", 0, 1e15, NULL, FIELD(ckpt_every), "Checkpoints",
     "steps between checkpoints; 0 = only after the last. Training waits for a disk that cannot "
     "follow; in a group at most 20s, then that checkpoint is left out, and that is said"},
    {"ckpt-keep", OPTION_NUMBER, "N", "3", 0, 1000000, NULL, FIELD(ckpt_keep), "Checkpoints",
     "how many are kept; 0 = all"},

    {"log", OPTION_TEXT, "FILE", NULL, 0, 0, NULL, FIELD(log), "Telling",
     "JSON lines, one per step"},
    {"log-samples", OPTION_FLAG, "", NULL, 0, 0, NULL, FIELD(log_samples), "Telling",
     "also which samples each shard held, before its sums leave"},
    {"quiet", OPTION_FLAG, "", NULL, 0, 0, NULL, FIELD(quiet), "Telling",
     "no progress on the terminal"},

    {"hash-every", OPTION_NUMBER, "N", "1", 1, 1000000, NULL, FIELD(hash_every), "Corruption",
     "steps between hashes of the parameters: compared with the other replicas', checked again "
     "before the sums leave, told in the log; beyond 1 up to N steps may be wrong before it shows"},
    {"audit", OPTION_NUMBER, "N", "0", 0, 1000000, NULL, FIELD(audit), "Corruption",
     "every N steps one shard is computed by three workers and compared, if all workers say the "
     "same; 0 = never"},
};

const size_t settings_count = sizeof settings_table / sizeof settings_table[0];

void settings_listen(const char *wanted, char *listen, size_t listen_bytes)
{
    const char *colon = strchr(wanted, ':');
    bool bare_v6 = wanted[0] != '[' && colon != NULL && strchr(colon + 1, ':') != NULL;
    bool port = wanted[0] == '[' ? wanted[0] != '\0' && wanted[strlen(wanted) - 1] != ']'
                                 : colon != NULL && !bare_v6;

    (void)snprintf(listen, listen_bytes, bare_v6 ? "[%s]:0" : port ? "%s" : "%s:0", wanted);
}

/* An address, or a name that has one. */
static int check_listen(const struct settings *s, struct error *error)
{
    struct sockaddr_storage address;
    struct error cause;
    char listen[300];

    if (s->data_listen == NULL)
        return 0;
    settings_listen(s->data_listen, listen, sizeof listen);
    if (!netaddr_is_form(listen) || listen[0] == ':' || listen[0] == '*')
        return error_set(error, EXIT_USAGE, "--data-listen %s is not ADDR or ADDR:PORT",
                         s->data_listen);
    if (netaddr_parse(listen, "the name in", &address, &cause) != 0)
        return error_set(error, EXIT_USAGE, "--data-listen %s is not ADDR or ADDR:PORT: %.300s",
                         s->data_listen, cause.text);
    return 0;
}

/* Where it joins. */
static int check_job(const struct settings *s, const struct options *options, struct error *error)
{
    if (s->standalone && options_source(options, "coordinator") == OPTION_FROM_WORD)
        return error_set(error, EXIT_USAGE, "--standalone and --coordinator: give one of them");
    if (s->standalone)
        return 0;
    if (s->job == NULL)
        return error_set(error, EXIT_USAGE, "--job NAME is needed (or --standalone)");
    return 0;
}

/* One in a config file gives way to the other on the command line; of one source they are both
 * meant. */
static int settle_length(struct settings *s, const struct options *options, struct error *error)
{
    enum option_source steps = options_source(options, "steps");
    enum option_source epochs = options_source(options, "epochs");
    char one[OPTIONS_SHOWN_BYTES], two[OPTIONS_SHOWN_BYTES];

    if (steps < epochs)
        s->steps = 0;
    if (steps != epochs || steps == OPTION_FROM_DEFAULT)
        return 0;
    options_show(options, "steps", one);
    options_show(options, "epochs", two);
    return error_set(error, EXIT_USAGE, "%.220s and %.220s: give one of them", one, two);
}

int settings_settle(struct settings *s, const struct options *options, struct error *error)
{
    if (s->max == 0)
        s->max = s->shards;
    if (check_job(s, options, error) != 0 || check_listen(s, error) != 0)
        return error->code;
    if (s->min > s->max)
        return error_set(error, EXIT_USAGE, "--min %llu is more than --max %llu",
                         (unsigned long long)s->min, (unsigned long long)s->max);
    if (s->max > s->shards)
        return error_set(
            error, EXIT_USAGE,
            "--max %llu is more than --shards %llu: a worker without a shard would idle",
            (unsigned long long)s->max, (unsigned long long)s->shards);
    if (s->global_batch % s->shards != 0)
        return error_set(error, EXIT_USAGE,
                         "--global-batch %llu is not a multiple of --shards %llu",
                         (unsigned long long)s->global_batch, (unsigned long long)s->shards);
    if (settle_length(s, options, error) != 0)
        return error->code;
    if (s->beta1 >= 1 || s->beta2 >= 1)
        return error_set(error, EXIT_USAGE,
                         "--%s must be less than 1: the first update divides by 1 - beta",
                         s->beta1 >= 1 ? "beta1" : "beta2");
    if (s->ckpt_every != 0 && s->ckpt == NULL)
        return error_set(error, EXIT_USAGE, "--ckpt-every needs --ckpt DIR");
    return 0;
}

void settings_optim(const struct settings *s, uint64_t total_steps, struct optim_options *optim)
{
    memset(optim, 0, sizeof *optim);
    optim->kind = strcmp(s->optim, "adam") == 0    ? DEVICE_ADAM
                  : strcmp(s->optim, "adamw") == 0 ? DEVICE_ADAMW
                                                   : DEVICE_SGD;
    optim->rate = s->lr;
    optim->beta1 = s->beta1;
    optim->beta2 = s->beta2;
    optim->epsilon = s->epsilon;
    optim->decay = s->decay;
    optim->momentum = s->momentum;
    optim->nesterov = s->nesterov;
    optim->clip_norm = s->clip_norm;
    optim->schedule = strcmp(s->schedule, "linear") == 0   ? OPTIM_LINEAR
                      : strcmp(s->schedule, "cosine") == 0 ? OPTIM_COSINE
                                                           : OPTIM_CONSTANT;
    optim->warmup_steps = s->warmup;
    optim->total_steps = total_steps;
}

void settings_spec(const struct settings *s, uint64_t data_hash, uint64_t samples,
                   uint64_t init_hash, char spec[SETTINGS_SPEC_BYTES])
{
    (void)snprintf(spec, SETTINGS_SPEC_BYTES,
                   "beta1=%.17g\nbeta2=%.17g\nclip-norm=%.17g\ndata=%016llx\nepochs=%llu\n"
                   "epsilon=%.17g\nglobal-batch=%llu\ninit=%016llx\nlr=%.17g\nmodel=%s\n"
                   "momentum=%.17g\nnesterov=%d\noptim=%s\nprecision=%s\nsamples=%llu\n"
                   "schedule=%s\nseed=%llu\nshards=%llu\nsteps=%llu\nwarmup=%llu\n"
                   "weight-decay=%.17g\n",
                   s->beta1, s->beta2, s->clip_norm, (unsigned long long)data_hash,
                   (unsigned long long)(s->steps != 0 ? 0 : s->epochs), s->epsilon,
                   (unsigned long long)s->global_batch, (unsigned long long)init_hash, s->lr,
                   s->model, s->momentum, s->nesterov, s->optim, s->precision,
                   (unsigned long long)samples, s->schedule, (unsigned long long)s->seed,
                   (unsigned long long)s->shards, (unsigned long long)s->steps,
                   (unsigned long long)s->warmup, s->decay);
}

/* Length of the line that a text begins with; a text that is over says so. */
static size_t line_of(const char **text)
{
    if (**text == '\0')
        *text = "nothing more";
    return strcspn(*text, "\n");
}

void settings_difference(const char *there, const char *here, char *text, size_t text_bytes)
{
    size_t one = line_of(&there), two = line_of(&here);

    while (there[one] != '\0' && here[two] != '\0' && one == two && memcmp(there, here, one) == 0) {
        there += one + 1;
        here += two + 1;
        one = line_of(&there);
        two = line_of(&here);
    }
    (void)snprintf(text, text_bytes, "%.*s there, %.*s here", (int)one, there, (int)two, here);
}
