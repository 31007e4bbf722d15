/* Checkers 11 to 13: losses have a cause, leaving is none, and boundaries are taken together. */
#include "sim/check.h"

#include "sim/panic.h"
#include "sim/sim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define EXCUSED_US  UINT64_C(80000000) /* the longest injury without a healing, and a minute */
#define SLOWEST     UINT64_C(45)       /* times the mean: of a factor of 30, and half of it again */
#define SETTLED_US  UINT64_C(10000000) /* a process that young may be taken for its forerunner */
#define WORD_US     UINT64_C(2000000)  /* a word of a death may be on its way that long */
#define KIND(fault) (UINT64_C(1) << SIM_FAULT_##fault)

/* What happens to a process itself, and is told by its kernel or by itself. */
#define OPEN_KINDS                                                                                 \
    (KIND(CRASH) | KIND(RESTART) | KIND(CRASH_TWO) | KIND(CRASH_MOST) | KIND(CKPT_TORN) |          \
     KIND(LEAVE) | KIND(DRAIN) | KIND(JOIN) | KIND(DUPLICATE) | KIND(IMPOSTOR))

const char *sim_checker_word(enum sim_checker checker)
{
    static const char *const words[] = {
#define SIM_CHECKER_WORD(name, word) word,
        SIM_CHECKERS(SIM_CHECKER_WORD)
#undef SIM_CHECKER_WORD
    };
    return words[checker];
}

/* ---- 11 ------------------------------------------------------------------------------------- */

void sim_check_struck(struct sim *sim, enum sim_fault fault, bool coordinator)
{
    bool open = !coordinator && (OPEN_KINDS >> fault & 1) != 0;
    const struct sim_setup *setup = &sim->setup;
    uint64_t until_us = sim->now_us + EXCUSED_US;
    if (fault == SIM_FAULT_SLOW) { /* what a worker begins then takes it so long */
        until_us += SLOWEST * ((uint64_t)setup->shard_us + setup->apply_us + setup->evaluate_us);
    }
    if (!open && until_us > sim->check.excused_us) {
        sim->check.excused_us = until_us;
    }
    if (fault == SIM_FAULT_CKPT_TORN) {
        sim->check.left_version = 0; /* what they left is gone */
    }
}

/* Do all whom a sentence names (by their pids, 1000 + slot) live, and can they do what is awaited
 * of them? A spare that lost its thread after a plan with it was told cannot: the others wait for
 * it, and are right to give it up. */
static bool blameless(const struct sim *sim, const char *text)
{
    bool any = false;
    for (const char *pid = strstr(text, "pid "); pid != NULL; pid = strstr(pid + 4, "pid ")) {
        uint64_t slot = strtoul(pid + 4, NULL, 10) - 1000;
        any = true;
        if (slot >= sim->member_count || !sim->members[slot].proc.alive ||
            sim->workers[slot].version == SIM_NO_VERSION ||
            sim->now_us < sim->members[slot].proc.born_us + SETTLED_US) {
            return false;
        }
    }
    return any;
}

void sim_check_cause(struct sim *sim, const char *text)
{
    static const char *const sentences[] = {" is lost: silent for ", " is lost: it did not report ",
                                            " is lost: stalled: ",   " is lost: unreachable on ",
                                            "no data between ",      "a peer lost its data "};
    bool without = sim->now_us > sim->check.excused_us && sim->setup.loss_permille == 0;
    if (!without || sim->workers == NULL || strstr(text, " formed at ") != NULL ||
        sim->check.corrupted || !blameless(sim, text)) {
        return;
    }
    for (size_t i = 0; i < sizeof sentences / sizeof sentences[0]; i++) {
        if (strstr(text, sentences[i]) != NULL) {
            sim_fail(sim, SIM_CHECK_CAUSE,
                     "the coordinator says '%s', but all of them live, and nothing was done to "
                     "anybody",
                     text);
        }
    }
}

/* ---- 12 ------------------------------------------------------------------------------------- */

static bool others_have(const struct sim *sim, uint32_t worker)
{
    for (uint32_t i = 0; i < sim->member_count; i++) {
        uint64_t version = sim->workers[i].version;
        if (i != worker && sim->members[i].proc.alive && version != SIM_NO_VERSION &&
            version >= sim->workers[worker].version) {
            return true;
        }
    }
    return false;
}

/* Who leaves is released because others have what it knows. If they die before it is gone, and the
 * word of that is still on its way to it, nobody is to blame. */
void sim_check_gone(struct sim *sim, uint32_t worker, bool left)
{
    struct sim_check *check = &sim->check;
    const struct sim_worker *w = &sim->workers[worker];
    if (!left) {
        check->left_version = 0;
        check->died_us = sim->now_us;
    } else if (check->died_us != 0 && sim->now_us < check->died_us + WORD_US &&
               !others_have(sim, worker)) {
        check->left_version = 0;
    } else if (w->elastic.generation.number != 0 && w->version != SIM_NO_VERSION) {
        check->left_version = w->version > check->left_version ? w->version : check->left_version;
        check->left_us = sim->now_us;
    }
}

/* A generation that has somebody in it who came after they had left, and so found their checkpoint:
 * who read an older one before begins with that, and what they knew is done again. */
void sim_check_resumed(struct sim *sim, const struct wire_message *message)
{
    struct sim_check *check = &sim->check;
    bool later = false;
    for (uint32_t i = 0; i < message->generation.members_count; i++) {
        uint32_t slot = sim_member_slot(sim, message->generation.members[i].id.bytes);
        later |= slot != SIM_NO_SLOT && sim->members[slot].proc.born_us > check->left_us;
    }
    if (later && sim->setup.saves && !check->unprotected && !check->corrupted &&
        message->header.step < check->left_version) {
        sim_fail(sim, SIM_CHECK_LEAVING,
                 "generation %" PRIu64 " begins at step %" PRIu64
                 ", but who left had applied %" PRIu64 " updates, and nobody was lost since",
                 message->header.generation, message->header.step, check->left_version);
    }
    check->left_version = 0;
}

/* ---- 13 ------------------------------------------------------------------------------------- */

void sim_check_boundary(struct sim *sim, uint32_t worker)
{
    const struct elastic *mine = &sim->workers[worker].elastic;
    for (uint32_t i = 0; i < sim->member_count; i++) {
        const struct elastic *other = &sim->workers[i].elastic;
        bool beside = sim->members[i].proc.alive && elastic_training(other) &&
                      other->generation.number == mine->generation.number &&
                      other->generation.nonce == mine->generation.nonce;
        if (beside && other->plan.number < mine->plan.number) {
            sim_fail(sim, SIM_CHECK_BOUNDARY,
                     "worker %u takes plan %" PRIu64 " after step %" PRIu64
                     ", but worker %u holds %" PRIu64,
                     worker, mine->plan.number, mine->applied, i, other->plan.number);
        }
    }
}
