/* muster-sim: runs seeds of the joint simulator and says what they found. Exit codes: 0 nothing was
 * broken, 1 a seed failed, 2 too little was struck (--complete, --least), 64 usage. */
#include "sim/table.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define USAGE 64
#define FAILED_MAX 20u /* seeds told in full before the run gives up */

/* X(name, has an argument, character, help) */
#define OPTIONS(X)                                                                                 \
    X("seed", 1, 's', "N        first seed (1)")                                                   \
    X("seeds", 1, 'n', "N       how many seeds (100)")                                             \
    X("minutes", 1, 'm', "N     stop after so many minutes")                                       \
    X("hours", 1, 'h', "N       go on until so many hours were simulated")                         \
    X("workers", 1, 'w', "N     workers of every job (drawn)")                                     \
    X("step-ms", 1, 'S', "N     virtual time of a step (drawn)")                                   \
    X("puppets", 1, 'p', "N     a core alone with so many sessions that train nothing")            \
    X("faults", 1, 'f', "LIST   kinds of fault that may strike: none, all, or words with commas")  \
    X("bug", 1, 'b', "NAME      plant a mistake in the simulator's glue (list: its names)")        \
    X("trace", 0, 't', "        print what happens")                                               \
    X("table", 0, 'T', "        print the whole table phase x role x fault")                       \
    X("complete", 0, 'c', "     an empty cell is a failure")          \
    X("least", 1, 'l', "N       a kind of fault that struck less often is a failure")              \
    X("twice", 0, '2', "        run every seed twice (else 2 % of them)")                          \
    X("json", 0, 'j', "         print the figures as one JSON object")                             \
    X("help", 0, '?', "         this text")

static void help(FILE *to)
{
    fprintf(to, "usage: muster-sim [OPTION]...\n"
                "Simulates whole jobs in virtual time under faults; one seed is one history.\n"
                "A seed that fails replays alone: muster-sim --seed N --seeds 1 --trace\n\n");
#define OPTION_HELP(name, argument, character, text) fprintf(to, "  --%s %s\n", name, text);
    OPTIONS(OPTION_HELP)
#undef OPTION_HELP
}

static const char *bug_word(enum sim_bug bug)
{
    static const char *const words[] = {
#define BUG_WORD(name, word, what) word,
        SIM_BUGS(BUG_WORD)
#undef BUG_WORD
    };
    return words[bug];
}

static int wrong(const char *option, const char *value)
{
    fprintf(stderr, "muster-sim: --%s: '%s' is not understood\n", option, value);
    return USAGE;
}

static bool number(const char *text, uint64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && text[0] != '-';
}

static bool bug_known(const char *word, enum sim_bug *bug)
{
    for (uint32_t i = 0; i < SIM_BUG_COUNT; i++) {
        if (strcmp(word, bug_word((enum sim_bug)i)) == 0) {
            *bug = (enum sim_bug)i;
            return true;
        }
    }
    return false;
}

static void list_bugs(void)
{
    static const char *const texts[] = {
#define BUG_TEXT(name, word, what) what,
        SIM_BUGS(BUG_TEXT)
#undef BUG_TEXT
    };
    for (uint32_t i = 1; i < SIM_BUG_COUNT; i++) {
        printf("%-16s %s\n", bug_word((enum sim_bug)i), texts[i]);
    }
}

/* "none", "all", or words with commas. */
static bool fault_list(const char *text, uint64_t *mask)
{
    char word[32];
    *mask = 0;
    if (strcmp(text, "all") == 0) {
        *mask = UINT64_MAX;
    }
    if (*mask != 0 || strcmp(text, "none") == 0) {
        return true;
    }
    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        enum sim_fault fault;
        if (length >= sizeof word) {
            return false;
        }
        memcpy(word, text, length);
        word[length] = '\0';
        if (!sim_fault_known(word, &fault)) {
            return false;
        }
        *mask |= UINT64_C(1) << fault;
        text += length + (text[length] == ',');
    }
    return true;
}

static bool set_number(struct sim_options *options, int character, uint64_t value)
{
    switch (character) {
    case 's':
        options->seed = value;
        return true;
    case 'n':
        options->seeds = value;
        return true;
    case 'm':
        options->minutes = (uint32_t)value;
        options->seeds = options->seeds_given ? options->seeds : UINT64_MAX;
        return value > 0 && value < 100000;
    case 'h':
        options->hours = value;
        options->seeds = options->seeds_given ? options->seeds : UINT64_MAX;
        return value > 0;
    case 'w':
        options->workers = (uint32_t)value;
        return value >= 1 && value <= 64;
    case 'S':
        options->step_ms = (uint32_t)value;
        return value >= 1 && value <= 3600000;
    case 'l':
        options->least = value;
        return value > 0;
    case 'p':
        options->puppets = (uint32_t)value;
        return value >= 1 && value <= SIM_PUPPETS_MAX;
    default:
        return false;
    }
}

static bool set_word(struct sim_options *options, int character)
{
    switch (character) {
    case 'f':
        return fault_list(optarg, &options->mask);
    case 'b':
        if (strcmp(optarg, "list") == 0) {
            list_bugs();
            exit(0);
        }
        return bug_known(optarg, &options->bug);
    case 't':
        options->trace = true;
        return true;
    case 'T':
        options->table = true;
        return true;
    case 'c':
        options->complete = true;
        return true;
    case '2':
        options->twice = true;
        return true;
    case 'j':
        options->json = true;
        return true;
    default:
        return false;
    }
}

static int parse(int argc, char **argv, struct sim_options *options)
{
    static const struct option table[] = {
#define OPTION_ROW(name, argument, character, text) {name, argument, NULL, character},
        OPTIONS(OPTION_ROW)
#undef OPTION_ROW
            {NULL, 0, NULL, 0}};
    int character, index = 0;
    while ((character = getopt_long(argc, argv, "", table, &index)) != -1) {
        uint64_t value;
        if (character == '?') {
            bool asked = strcmp(argv[optind - 1], "--help") == 0;
            help(asked ? stdout : stderr);
            exit(asked ? 0 : USAGE);
        }
        if (strchr("snmhwSpl", character) != NULL) {
            options->seeds_given |= character == 'n';
            if (!number(optarg, &value) || !set_number(options, character, value)) {
                return wrong(table[index].name, optarg);
            }
        } else if (!set_word(options, character)) {
            return wrong(table[index].name, optarg != NULL ? optarg : "");
        }
    }
    return optind == argc ? 0 : wrong("", argv[optind]);
}

static double now_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void tell_failure(const struct sim_options *options, uint64_t seed,
                         const struct sim_outcome *outcome)
{
    printf("FAILED seed %" PRIu64 " at %.6f s by checker %d (%s): %s\n", seed,
           (double)outcome->at_us / 1e6, (int)outcome->by, sim_checker_word(outcome->by),
           outcome->sentence);
    printf("  again, alone: muster-sim --seed %" PRIu64 " --seeds 1 --trace", seed);
    if (options->workers > 0) {
        printf(" --workers %u", options->workers);
    }
    if (options->step_ms > 0) {
        printf(" --step-ms %u", options->step_ms);
    }
    if (options->puppets > 0) {
        printf(" --puppets %u", options->puppets);
    }
    if (options->bug != SIM_BUG_NONE) {
        printf(" --bug %s", bug_word(options->bug));
    }
    printf("\n");
    (void)fflush(stdout);
}

/* ---- a seed that dies of an assertion or a sanitizer is named too
 * ----------------------------- */

static volatile uint64_t running_seed;

static void name_seed(void)
{
    char text[80];
    int bytes = snprintf(text, sizeof text, "DIED in seed %" PRIu64 "\n", running_seed);
    (void)!write(STDERR_FILENO, text, bytes > 0 ? (size_t)bytes : 0);
}

static void on_abort(int signal)
{
    (void)signal;
    name_seed();
}

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void watch_deaths(void)
{
    (void)signal(SIGABRT, on_abort);
    if (__sanitizer_set_death_callback != NULL) {
        __sanitizer_set_death_callback(name_seed);
    }
}

/* One seed, and for 2 % of them once more: the same history must come out. */
static void run_seed(const struct sim_options *options, uint64_t seed, struct sim_table *table,
                     struct sim_totals *totals)
{
    struct sim_outcome outcome, again;
    struct sim_table aside;
    running_seed = seed;
    sim_run(options, seed, table, &outcome);
    totals->seeds++;
    totals->failed += outcome.failed;
    totals->excused += outcome.excused;
    totals->unprotected += outcome.unprotected;
    totals->events += outcome.events;
    totals->virtual_us += outcome.virtual_us;
    totals->steps += outcome.steps;
    totals->generations += outcome.generations;
    totals->stragglers += outcome.stragglers;
    totals->spreads += outcome.spreads;
    if (outcome.failed) {
        tell_failure(options, seed, &outcome);
    }
    if (outcome.excused) {
        printf("excused: seed %" PRIu64 ": %s\n", seed, outcome.excuse);
    }
    if (options->twice || seed % 50 == 7) {
        struct sim_options quiet = *options;
        quiet.trace = false;
        memset(&aside, 0, sizeof aside);
        sim_run(&quiet, seed, &aside, &again);
        totals->twice++;
        if (again.hash != outcome.hash) {
            totals->differed++;
            printf("FAILED seed %" PRIu64 ": two runs have hash %016" PRIx64 " and %016" PRIx64
                   "\n",
                   seed, outcome.hash, again.hash);
        }
    }
}

/* Is too little struck yet of what was asked for? */
static bool wanting(const struct sim_options *options, const struct sim_table *table)
{
    uint32_t cells, empty;
    sim_table_count(table, &cells, &empty);
    return (options->complete && empty > 0) || sim_table_seldom(table, options->least) > 0;
}

/* The hours are over, and twice as many if too little is struck: how soon it is, is chance. */
static bool over(const struct sim_options *options, const struct sim_totals *totals,
                 const struct sim_table *table)
{
    uint64_t hours_us = options->hours * UINT64_C(3600000000);
    return (options->minutes > 0 && totals->real_s >= options->minutes * 60.0) ||
           (hours_us > 0 && totals->virtual_us >= hours_us &&
            (totals->virtual_us >= 2 * hours_us || !wanting(options, table)));
}

static int run_all(const struct sim_options *options)
{
    struct sim_table *table = calloc(1, sizeof *table);
    struct sim_totals totals = {0};
    /* A planted mistake is found once. */
    uint64_t failed_max = options->bug != SIM_BUG_NONE ? 1 : FAILED_MAX;
    double start_s = now_s();
    if (table == NULL) {
        fprintf(stderr, "muster-sim: out of memory\n");
        return 70;
    }
    for (uint64_t i = 0; i < options->seeds && totals.failed < failed_max; i++) {
        run_seed(options, options->seed + i, table, &totals);
        totals.real_s = now_s() - start_s;
        if (over(options, &totals, table)) {
            break;
        }
    }
    bool short_of = wanting(options, table);
    if (options->json) {
        sim_totals_json(&totals, table);
    } else {
        if (options->puppets == 0) {
            sim_table_print(table, options->table, options->least);
        }
        sim_totals_print(&totals, table);
    }
    free(table);
    if (totals.failed > 0 || totals.differed > 0) {
        return 1;
    }
    return short_of ? 2 : 0;
}

int main(int argc, char **argv)
{
    struct sim_options options = {.seed = 1, .seeds = 100, .mask = UINT64_MAX};
    int status = parse(argc, argv, &options);
    watch_deaths();
    return status != 0 ? status : run_all(&options);
}
