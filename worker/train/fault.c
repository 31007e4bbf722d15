/* In test builds only. Named fault points: MUSTER_FAULT=phase:step:rank:generation[,..] kills this
 * process with SIGKILL when it comes to that phase; * stands for any. The phases are the first
 * arguments of fault_point(). MUSTER_SLOW=phase:step:.. stays for MUSTER_SLOW_MS in that phase
 * instead, once; with MUSTER_SLOW_EVERY=1 each time. MUSTER_SHUFFLE=N has the shards of each step
 * worked in a scattered order that N chooses. MUSTER_FLIP=what:step:rank:generation[,..] flips a
 * bit there, N+ stands for any step from N on: params before the step's shards are worked (and
 * after the word of the step was hashed), reduced and optimizer before its update, sum in the
 * gradient of every shard that is computed. */
#include "train/trainer.h"

#ifdef MUSTER_FAULTS
#include "data/sampler.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One field after its colon: "*", the number, or the number and "+" for all from there on; a field
 * that is not there matches. */
static bool matches(const char **at, uint64_t value)
{
    char *end;
    uint64_t wanted;

    if (**at != ':')
        return true;
    if ((*at)[1] == '*') {
        *at += 2;
        return true;
    }
    wanted = strtoull(*at + 1, &end, 10);
    *at = end + (*end == '+');
    return *end == '+' ? value >= wanted : value == wanted;
}

/* Does the fault at `at` strike here and now? */
static bool strikes(const char *at, const struct trainer *t, const char *phase, uint64_t step)
{
    size_t length = strlen(phase);

    if (strncmp(at, phase, length) != 0 || at[length] != ':')
        return false;
    at += length;
    return matches(&at, step) && matches(&at, t->elastic.rank) &&
           matches(&at, t->elastic.generation.number);
}

/* Only the first that comes there stays, whatever its thread; or everybody, each time. */
static void stay(const struct trainer *t, const char *phase, uint64_t step)
{
    static atomic_flag stayed = ATOMIC_FLAG_INIT;
    const char *at = getenv("MUSTER_SLOW"), *ms = getenv("MUSTER_SLOW_MS");

    if (at != NULL && ms != NULL && strikes(at, t, phase, step) &&
        (getenv("MUSTER_SLOW_EVERY") != NULL || !atomic_flag_test_and_set(&stayed)))
        (void)usleep((useconds_t)(strtoul(ms, NULL, 10) * 1000));
}

void fault_point(const struct trainer *t, const char *phase, uint64_t step)
{
    stay(t, phase, step);
    /* Asked for each time: a cached answer would be shared by the threads of the pool. */
    for (const char *at = getenv("MUSTER_FAULT"); at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strikes(at, t, phase, step))
            (void)raise(SIGKILL);
    }
}

/* The sign of the first value that has one. */
static void flip(float *values, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (values[i] != 0) {
            values[i] = -values[i];
            return;
        }
}

void fault_flip(const struct trainer *t, const char *what, uint64_t step, float *values,
                uint64_t count)
{
    for (const char *at = getenv("MUSTER_FLIP"); at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strikes(at, t, what, step))
            flip(values, count);
    }
}

uint32_t fault_order(const struct trainer *t, uint64_t step, uint32_t i)
{
    const char *text = getenv("MUSTER_SHUFFLE");

    if (text == NULL)
        return i;
    return (uint32_t)sampler_index(strtoull(text, NULL, 10), step, t->shape.shards, i);
}
#else
typedef int fault_points_are_compiled_out;
#endif
