/* Options: what every source gives, which one wins, and the sentence for everything that is
 * wrong. */
#include "base/options.h"

#include "base/exits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

struct values {
    const char *job;
    bool quiet;
    uint64_t min;
    uint64_t seed;
    double rate;
    uint64_t wait_ms;
    const char *color;
    uint64_t memory;
    const char *listen;
    const char *name;
    const char *peer;
};

#define FIELD(name) offsetof(struct values, name)

static const struct option_spec table[] = {
    {"job", OPTION_TEXT, "NAME", NULL, 0, 0, NULL, FIELD(job), "Job", "its name"},
    {"quiet", OPTION_FLAG, "", NULL, 0, 0, NULL, FIELD(quiet), "Job", "say nothing"},
    {"min-size", OPTION_NUMBER, "N", "2", 1, 64, NULL, FIELD(min), "Job", "fewest"},
    {"seed", OPTION_NUMBER, "N", NULL, 0, 9e15, NULL, FIELD(seed), "Job", "of everything"},
    {"rate", OPTION_REAL, "X", "0.5", 0, 1, NULL, FIELD(rate), "Numbers", "how fast"},
    {"wait", OPTION_DURATION, "TIME", "2s", 100, 3600000, NULL, FIELD(wait_ms), "Numbers",
     "how long"},
    {"color", OPTION_CHOICE, "NAME", "red", 0, 0, "red|green|greenish", FIELD(color), "Numbers",
     "hue"},
    {"memory", OPTION_BYTES, "SIZE", "64k", 1, 1e12, NULL, FIELD(memory), "Numbers", "how much"},
    {"listen", OPTION_ADDRESS, "ADDR:PORT", "[::1]:70", 0, 0, NULL, FIELD(listen), "Numbers",
     "where"},
    {"name", OPTION_NAME, "NAME", NULL, 1, 8, NULL, FIELD(name), "Numbers", "of something"},
    {"peer", OPTION_ADDRESS, "HOST:PORT", NULL, 1, 0, NULL, FIELD(peer), "Numbers", "who is asked"},
};

enum { ROWS = sizeof table / sizeof table[0], WORDS = 24 };

/* One parse; `words` are separated by blanks. */
struct run {
    struct options options;
    struct values values;
    struct error error;
    int status;
    char text[1024];
    char *argv[WORDS];
};

static void parse(struct run *run, const char *words)
{
    int argc = 0;

    memset(run, 0, sizeof *run);
    run->values.seed = 77;
    (void)snprintf(run->text, sizeof run->text, "test %s", words);
    for (char *at = run->text, *next; at != NULL && argc < WORDS; at = next) {
        next = strchr(at, ' ');
        if (next != NULL)
            *next++ = '\0';
        if (*at != '\0')
            run->argv[argc++] = at;
    }
    options_init(&run->options, "test", "a test", table, ROWS);
    run->status = options_parse(&run->options, argc, run->argv, &run->values, &run->error);
}

static void expect_error(const char *words, const char *sentence)
{
    struct run run;

    parse(&run, words);
    assert_int_equal(run.status, EXIT_USAGE);
    assert_string_equal(run.error.text, sentence);
    assert_int_equal(run.error.code, EXIT_USAGE);
    assert_int_equal(run.values.min, 0); /* nothing was written */
    options_release(&run.options);
}

static char config_path[] = "/tmp/muster-options-XXXXXX";

static void write_config(const void *bytes, size_t count)
{
    FILE *file = fopen(config_path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(setenv("MUSTER_CONFIG", config_path, 1), 0);
}

static void config(const char *text)
{
    write_config(text, strlen(text));
}

static int clean(void **state)
{
    (void)state;
    for (size_t i = 0; i < ROWS; i++) {
        char name[64] = "MUSTER_";

        for (size_t j = 0; table[i].name[j] != '\0'; j++)
            name[7 + j] = table[i].name[j] == '-' ? '_' : (char)(table[i].name[j] - 32);
        (void)unsetenv(name);
    }
    return unsetenv("MUSTER_CONFIG");
}

static void defaults_are_converted(void **state)
{
    struct run run;

    (void)state;
    parse(&run, "");
    assert_int_equal(run.status, 0);
    assert_null(run.values.job);
    assert_false(run.values.quiet);
    assert_int_equal(run.values.min, 2);
    assert_int_equal(run.values.seed, 77); /* a number without a default stands */
    assert_true(run.values.rate == 0.5);
    assert_int_equal(run.values.wait_ms, 2000);
    assert_string_equal(run.values.color, "red");
    assert_int_equal(run.values.memory, 65536);
    assert_string_equal(run.values.listen, "[::1]:70");
    assert_false(options_given(&run.options, "min-size"));
    options_release(&run.options);
}

static void both_forms_of_the_command_line(void **state)
{
    struct run run;

    (void)state;
    parse(&run, "--job a=b --quiet --min-size=7 --seed 9000000000000000 --rate 1e-3 --wait=3m "
                "--color green "
                "--memory 2GiB --listen node:0");
    assert_int_equal(run.status, 0);
    assert_string_equal(run.values.job, "a=b");
    assert_true(run.values.quiet);
    assert_int_equal(run.values.min, 7);
    assert_true(run.values.seed == 9000000000000000u);
    assert_true(run.values.rate == 1e-3);
    assert_int_equal(run.values.wait_ms, 180000);
    assert_string_equal(run.values.color, "green");
    assert_true(run.values.memory == 2ull << 30);
    assert_string_equal(run.values.listen, "node:0");
    assert_true(options_given(&run.options, "min-size"));
    options_release(&run.options);
}

static void the_last_of_a_command_line_counts(void **state)
{
    struct run run;

    (void)state;
    parse(&run, "--min-size 3 --quiet --min-size 4 --quiet=no --job=--quiet");
    assert_int_equal(run.status, 0);
    assert_int_equal(run.values.min, 4);
    assert_false(run.values.quiet);
    assert_string_equal(run.values.job, "--quiet");
    options_release(&run.options);
}

static void words_are_kept_in_order(void **state)
{
    struct run run;

    (void)state;
    parse(&run, "list --quiet - -5 -- --job -x");
    assert_int_equal(run.status, 0);
    assert_int_equal(run.options.positional_count, 5);
    assert_string_equal(run.options.positional[0], "list");
    assert_string_equal(run.options.positional[1], "-");
    assert_string_equal(run.options.positional[2], "-5");
    assert_string_equal(run.options.positional[3], "--job");
    assert_string_equal(run.options.positional[4], "-x");
    assert_true(run.values.quiet);
    options_release(&run.options);
    expect_error("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17",
                 "too many arguments, beginning with '17'");
}

static void stronger_sources_win(void **state)
{
    struct run run;

    (void)state;
    config("min-size = 10\nwait = 10s\ncolor = greenish # a hue\n\n  # nothing\r\njob=a#b c\nquiet "
           "= yes\n");
    assert_int_equal(setenv("MUSTER_WAIT", "20s", 1), 0);
    assert_int_equal(setenv("MUSTER_MIN_SIZE", "20", 1), 0);
    assert_int_equal(setenv("MUSTER_COLOR", "", 1), 0); /* as if it were not there */
    parse(&run, "--min-size 30");
    assert_int_equal(run.status, 0);
    assert_int_equal(run.values.min, 30);
    assert_int_equal(run.values.wait_ms, 20000);
    assert_string_equal(run.values.color, "greenish");
    assert_string_equal(run.values.job, "a#b c");
    assert_true(run.values.quiet);
    assert_true(options_given(&run.options, "color"));
    options_release(&run.options);
}

static void config_on_the_command_line_wins(void **state)
{
    struct run run;
    char words[128];

    (void)state;
    config("min-size = 11");
    assert_int_equal(setenv("MUSTER_CONFIG", "/nonexistent", 1), 0);
    (void)snprintf(words, sizeof words, "--config %s", config_path);
    parse(&run, words);
    assert_int_equal(run.status, 0);
    assert_int_equal(run.values.min, 11);
    options_release(&run.options);
}

static void wrong_values_are_named(void **state)
{
    (void)state;
    expect_error("--min-size 0", "--min-size 0: expected a whole number from 1 to 64");
    expect_error("--min-size=65", "--min-size 65: expected a whole number from 1 to 64");
    expect_error("--min-size +3", "--min-size +3: expected a whole number from 1 to 64");
    expect_error("--min-size 3x", "--min-size 3x: expected a whole number from 1 to 64");
    expect_error("--seed 99999999999999999999",
                 "--seed 99999999999999999999: expected a whole number from 0 to 9000000000000000");
    expect_error("--seed -1", "--seed -1: expected a whole number from 0 to 9000000000000000");
    expect_error("--rate nan", "--rate nan: expected a number from 0 to 1");
    expect_error("--rate 1.01", "--rate 1.01: expected a number from 0 to 1");
    expect_error("--rate=", "--rate '': expected a number from 0 to 1");
    expect_error("--wait 99ms", "--wait 99ms: expected a duration from 100ms to 3600000ms, such as "
                                "500ms, 2s or 3m");
    expect_error("--wait 5124095576030431h", "--wait 5124095576030431h: expected a duration from "
                                             "100ms to 3600000ms, such as 500ms, 2s or 3m");
    expect_error("--color gree", "--color gree: expected one of red|green|greenish");
    expect_error("--color=", "--color '': expected one of red|green|greenish");
    expect_error("--quiet=maybe", "--quiet maybe: expected yes or no");
    expect_error("--memory 1T", "--memory 1T: expected a size from 1 to 1000000000000 bytes, such "
                                "as 4096, 64k or 1GiB");
    expect_error("--listen ::1:70",
                 "--listen ::1:70: expected HOST:PORT or [IPV6]:PORT with a port "
                 "from 0 to 65535");
    expect_error("--listen a:65536", "--listen a:65536: expected HOST:PORT or [IPV6]:PORT with a "
                                     "port from 0 to 65535");
}

#define NAME_EXPECTED ": expected 1 to 8 bytes of text without control characters"

/* What may be listened on cannot always be asked. */
static void peers_have_a_host_and_a_port(void **state)
{
    static const char *const wrong[] = {":70", "[]:70", "*:70", "a:0", "[::1]:0", "a:65536", "a"};
    struct run run;
    char words[100], sentence[200];

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        (void)snprintf(words, sizeof words, "--peer %s", wrong[i]);
        (void)snprintf(sentence, sizeof sentence,
                       "--peer %s: expected HOST:PORT or [IPV6]:PORT with a port from 1 to 65535",
                       wrong[i]);
        expect_error(words, sentence);
    }
    parse(&run, "--peer [::1]:1 --listen *:0");
    assert_int_equal(run.status, 0);
    assert_string_equal(run.values.peer, "[::1]:1");
    assert_string_equal(run.values.listen, "*:0");
}

static void names_are_text_of_a_length(void **state)
{
    static const char *const good[] = {"--name=a b c d ", "--name=12345678",
                                       "--name=\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"};
    struct run run;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char program[] = "test", word[32];
        char *argv[] = {program, word, NULL};

        (void)snprintf(word, sizeof word, "%s", good[i]);
        memset(&run, 0, sizeof run);
        options_init(&run.options, "test", "a test", table, ROWS);
        assert_int_equal(options_parse(&run.options, 2, argv, &run.values, &run.error), 0);
        assert_string_equal(run.values.name, good[i] + 7);
    }
    expect_error("--name=", "--name ''" NAME_EXPECTED);
    expect_error("--name 123456789", "--name 123456789" NAME_EXPECTED);
    expect_error("--name a\tb", "--name a?b" NAME_EXPECTED);
    expect_error("--name a\xffz", "--name a?z" NAME_EXPECTED);
    expect_error("--name a\xc2\x9bz", "--name a??z" NAME_EXPECTED);
}

/* What is expected is told however long the value is, and on one line. */
static void long_values_are_cut(void **state)
{
    char words[700] = "--name ", sentence[200] = "--name ";

    (void)state;
    memset(words + 7, 'n', 600);
    memset(sentence + 7, 'n', 80);
    (void)snprintf(sentence + 87, sizeof sentence - 87, "..%s", NAME_EXPECTED);
    expect_error(words, sentence);
    memcpy(words + 7 + 79, "\xc3\xa9", 2); /* a character is not cut in two */
    (void)snprintf(sentence + 86, sizeof sentence - 86, "..%s", NAME_EXPECTED);
    expect_error(words, sentence);
}

static void sources_are_told(void **state)
{
    char words[200], shown[OPTIONS_SHOWN_BYTES], sentence[200];
    struct run run;

    (void)state;
    config("\nrate = 0.25\nname = filed\n");
    assert_int_equal(setenv("MUSTER_NAME", "set", 1), 0);
    (void)snprintf(words, sizeof words, "--seed 5 --config %s", config_path);
    parse(&run, words);
    assert_int_equal(run.status, 0);
    assert_int_equal(options_source(&run.options, "seed"), OPTION_FROM_WORD);
    assert_int_equal(options_source(&run.options, "name"), OPTION_FROM_ENVIRONMENT);
    assert_int_equal(options_source(&run.options, "rate"), OPTION_FROM_FILE);
    assert_int_equal(options_source(&run.options, "color"), OPTION_FROM_DEFAULT);
    options_show(&run.options, "seed", shown);
    assert_string_equal(shown, "--seed 5");
    options_show(&run.options, "name", shown);
    assert_string_equal(shown, "--name set (from MUSTER_NAME)");
    options_show(&run.options, "rate", shown);
    (void)snprintf(sentence, sizeof sentence, "--rate 0.25 (from %s:2)", config_path);
    assert_string_equal(shown, sentence);
    options_release(&run.options);
}

static void wrong_words_are_named(void **state)
{
    (void)state;
    expect_error("--min-sise 3", "unknown option 'min-sise'; did you mean 'min-size'?");
    expect_error("--hepl", "unknown option 'hepl'; did you mean 'help'?");
    expect_error("--xyz", "unknown option 'xyz'; see test --help");
    expect_error("-q", "unknown option '-q'; see test --help");
    expect_error("--=3", "unknown option ''; see test --help");
    expect_error("--job", "--job needs a value");
    expect_error("--job --quiet",
                 "--job needs a value; '--quiet' would be taken as one only in the "
                 "form --job=--quiet");
    expect_error("--config", "--config needs a value");
    expect_error("--help=html", "--help=html: expected --help, --help=config or --help=man");
}

static void strays_are_told(void **state)
{
    static const char *const known[] = {"MUSTER_JOB", "MUSTER_LOG_SAMPLES", "MUSTER_CONFIG",
                                        "MUSTER_DATA", "MUSTER_FAULT", "MUSTER_VENV",
                                        "MUSTER_PROGRESS_FD", "MUSTERED", "XMUSTER_X",
                                        "MUSTER_COORDINATOR_SERVICE_HOST",
                                        "MUSTER_COORDINATOR_SERVICE_PORT",
                                        "MUSTER_COORDINATOR_SERVICE_PORT_HTTP",
                                        "MUSTER_COORDINATOR_PORT",
                                        "MUSTER_COORDINATOR_PORT_7070_TCP",
                                        "MUSTER_COORDINATOR_PORT_7070_TCP_ADDR"};
    char strays[OPTIONS_STRAYS_BYTES], name[40];

    (void)state;
    assert_int_equal(clearenv(), 0);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        assert_int_equal(setenv(known[i], "x", 1), 0);
    assert_int_equal(setenv("MUSTER_EMPTY", "", 1), 0);
    assert_false(options_strays(strays));
    assert_string_equal(strays, "");
    assert_int_equal(setenv("MUSTER_LOG_SAMPLE", "x", 1), 0);
    assert_true(options_strays(strays));
    assert_string_equal(strays, "no program reads MUSTER_LOG_SAMPLE from the environment");
    assert_int_equal(setenv("MUSTER_job", "x", 1), 0);
    assert_true(options_strays(strays));
    assert_string_equal(strays,
                        "no program reads MUSTER_LOG_SAMPLE, MUSTER_job from the environment");
    for (int i = 0; i < 200; i++) {
        (void)snprintf(name, sizeof name, "MUSTER_ONE_OF_MANY_%d", i);
        assert_int_equal(setenv(name, "x", 1), 0);
    }
    assert_true(options_strays(strays));
    assert_non_null(strstr(strays, ", .. from the environment"));
    assert_int_equal(clearenv(), 0);
}

static void wrong_environment_is_named(void **state)
{
    (void)state;
    assert_int_equal(setenv("MUSTER_MIN_SIZE", "many", 1), 0);
    expect_error("",
                 "--min-size many (from MUSTER_MIN_SIZE): expected a whole number from 1 to 64");
}

static void expect_config_error(const char *text, const char *rest)
{
    char sentence[400];

    config(text);
    (void)snprintf(sentence, sizeof sentence, "%s:%s", config_path, rest);
    expect_error("", sentence);
}

static void wrong_config_is_named(void **state)
{
    char sentence[400];

    (void)state;
    expect_config_error("\nmin_size = 3\n",
                        "2: unknown option 'min_size'; did you mean 'min-size'?");
    expect_config_error("config = x", "1: unknown option 'config'; see test --help");
    expect_config_error("min-size 3", "1: expected `name = value`, found 'min-size 3'");
    expect_config_error("seed = 1\nseed = 1", "2: 'seed' is set again; it was set in line 1");
    expect_config_error("seed =   # none", "1: 'seed' has no value");
    config("# first\nrate = 2\n");
    (void)snprintf(sentence, sizeof sentence,
                   "--rate 2 (from %s:2): expected a number from 0 to 1", config_path);
    expect_error("", sentence);
}

static void unreadable_config_is_named(void **state)
{
    char sentence[400], *large = calloc(1, (1 << 20) + 2);

    (void)state;
    expect_error("--config /nonexistent/x", "--config /nonexistent/x: No such file or directory");
    expect_error("--config /tmp", "--config /tmp: Is a directory");
    write_config("seed = 1\n\0rate = 9\n", 19);
    (void)snprintf(sentence, sizeof sentence, "--config %s: not a text, byte 9 is zero",
                   config_path);
    expect_error("", sentence);
    assert_non_null(large);
    memset(large, '\n', (1 << 20) + 1);
    write_config(large, (1 << 20) + 1);
    (void)snprintf(sentence, sizeof sentence, "--config %s: larger than 1048576 bytes",
                   config_path);
    expect_error("", sentence);
    write_config(large, 1 << 20);
    free(large);
}

static void help_and_version_come_first(void **state)
{
    static const struct { const char *words; int status; enum options_form form; } cases[] = {
        {"--help", OPTIONS_HELP, OPTIONS_AS_TEXT},
        {"-h --nonsense", OPTIONS_HELP, OPTIONS_AS_TEXT},
        {"--min-size many --help=config", OPTIONS_HELP, OPTIONS_AS_CONFIG},
        {"--help=man", OPTIONS_HELP, OPTIONS_AS_MAN},
        {"--version", OPTIONS_VERSION, OPTIONS_AS_TEXT}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct run run;

        parse(&run, cases[i].words);
        assert_int_equal(run.status, cases[i].status);
        assert_int_equal(run.options.form, cases[i].form);
        options_release(&run.options);
    }
}

static int begin(void **state)
{
    int fd = mkstemp(config_path);

    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int end(void **state)
{
    (void)state;
    return unlink(config_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(defaults_are_converted, clean),
        cmocka_unit_test_setup(both_forms_of_the_command_line, clean),
        cmocka_unit_test_setup(the_last_of_a_command_line_counts, clean),
        cmocka_unit_test_setup(words_are_kept_in_order, clean),
        cmocka_unit_test_setup(stronger_sources_win, clean),
        cmocka_unit_test_setup(config_on_the_command_line_wins, clean),
        cmocka_unit_test_setup(wrong_values_are_named, clean),
        cmocka_unit_test_setup(peers_have_a_host_and_a_port, clean),
        cmocka_unit_test_setup(names_are_text_of_a_length, clean),
        cmocka_unit_test_setup(long_values_are_cut, clean),
        cmocka_unit_test_setup(sources_are_told, clean),
        cmocka_unit_test_setup(wrong_words_are_named, clean),
        cmocka_unit_test(strays_are_told),
        cmocka_unit_test_setup(wrong_environment_is_named, clean),
        cmocka_unit_test_setup(wrong_config_is_named, clean),
        cmocka_unit_test_setup(unreadable_config_is_named, clean),
        cmocka_unit_test_setup(help_and_version_come_first, clean),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
