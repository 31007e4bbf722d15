/* The environment is shared by all programs, and each knows its own table alone. Here is what any
 * of them reads: the tests compare it with every table. */
#include "base/options.h"

#include <string.h>
#include <unistd.h>

static const char prefix[] = "MUSTER_";

static const char *const known[] = {
    /* muster-coordinator */
    "BEAT", "CONTROL", "COOLDOWN", "COOLDOWN_LOSSES", "HTTP", "INSECURE", "JOBS_MAX", "LISTEN",
    "LOG_FORMAT", "LOST_BEATS", "MEMBERS_MAX", "ON_DEADLOCK", "QUIET", "REBALANCE",
    "RESTART_BUDGET", "STALLED", "STALLED_STEPS", "STARTUP", "STATE", "SUSPECT_BEATS",
    /* muster-worker */
    "AUDIT", "BETA1", "BETA2", "CKPT", "CKPT_EVERY", "CKPT_KEEP", "CLIP_NORM", "CONNECT_TIMEOUT",
    "COORDINATOR", "DATA", "DATA_LISTEN", "DEVICE", "DRAIN_MS", "EPOCHS", "EPSILON", "GLOBAL_BATCH",
    "HASH_EVERY", "INIT", "ISA", "JOB", "LOG", "LOG_SAMPLES", "LR", "MAX", "MIN", "MODEL",
    "MOMENTUM", "NESTEROV", "NODE", "OPTIM", "PRECISION", "SCHEDULE", "SEED", "SHARDS",
    "STANDALONE", "STEPS", "THREADS", "WARMUP", "WEIGHT_DECAY",
    /* muster */
    "AS", "BACKOFF", "COUNT", "GRACE", "JSON", "NAME", "OF", "PLACE", "RAW", "REFILL", "RESTARTS",
    "TIMEOUT",
    /* no option: every program's file, a trainer's progress, faults that tests plant, scripts */
    "CONFIG", "PROGRESS_FD", "FAULT", "FLIP", "SHUFFLE", "SLOW", "SLOW_EVERY", "SLOW_MS",
    "BUILD_PACKAGES", "MNIST_URL", "TEST_PACKAGES", "VENV"};

static bool is_known(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strlen(known[i]) == length && memcmp(known[i], name, length) == 0)
            return true;
    return false;
}

/* Kubernetes tells every process of a service, `muster-coordinator` perhaps, in NAME_SERVICE_HOST,
 * NAME_SERVICE_PORT.., NAME_PORT and NAME_PORT_7070_TCP..: not meant for us. */
static bool is_of_service(const char *name, size_t length)
{
    static const char *const parts[] = {"_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"};
    static const char end[] = "_PORT";
    size_t end_bytes = sizeof end - 1;

    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (memmem(name, length, parts[i], strlen(parts[i])) != NULL)
            return true;
    return length > end_bytes && memcmp(name + length - end_bytes, end, end_bytes) == 0;
}

/* Length of the name of a variable that is set and strange; 0 = it is not. */
static size_t stray(const char *entry)
{
    size_t length = strcspn(entry, "="), own = sizeof prefix - 1;

    if (strncmp(entry, prefix, own) != 0 || entry[length] == '\0' || entry[length + 1] == '\0' ||
        is_known(entry + own, length - own) || is_of_service(entry + own, length - own))
        return 0;
    return length;
}

bool options_strays(char text[OPTIONS_STRAYS_BYTES])
{
    static const char begin[] = "no program reads ", end[] = " from the environment", more[] = "..";
    size_t at = 0, room = OPTIONS_STRAYS_BYTES - sizeof end - sizeof more - 2;

    text[0] = '\0';
    for (char **entry = environ; *entry != NULL; entry++) {
        const char *between = at == 0 ? begin : ", ";
        size_t length = stray(*entry);

        if (length == 0)
            continue;
        if (at + strlen(between) + length > room) {
            at += (size_t)snprintf(text + at, OPTIONS_STRAYS_BYTES - at, "%s%s", between, more);
            break;
        }
        at += (size_t)snprintf(text + at, OPTIONS_STRAYS_BYTES - at, "%s%.*s", between, (int)length,
                               *entry);
    }
    if (at > 0)
        (void)snprintf(text + at, OPTIONS_STRAYS_BYTES - at, "%s", end);
    return at > 0;
}
