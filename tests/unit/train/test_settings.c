/* What one option alone cannot say, and the spec: everything that changes the bits, nothing else.
 */
#include "base/exits.h"
#include "train/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define WORDS_MAX 8

/* A command line of words with blanks between them, beside the environment. */
static int parse_beside(const char *line, struct settings *settings, struct options *options,
                 struct error *error)
{
    static char words[512];
    char *argv[WORDS_MAX + 2] = {(char[]){"test"}, NULL}, *rest = words, *word;
    int argc = 1;

    (void)snprintf(words, sizeof words, "%s", line);
    while ((word = strsep(&rest, " ")) != NULL && argc <= WORDS_MAX)
        if (word[0] != '\0')
            argv[argc++] = word;
    memset(settings, 0, sizeof *settings);
    memset(error, 0, sizeof *error);
    options_init(options, "test", "", settings_table, settings_count);
    if (options_parse(options, argc, argv, settings, error) != 0)
        return error->code;
    return settings_settle(settings, options, error);
}

static int parse(const char *line, struct settings *settings, struct options *options,
                 struct error *error)
{
    assert_int_equal(clearenv(), 0);
    return parse_beside(line, settings, options, error);
}

static void refused(const char *line, const char *option, const char *words)
{
    struct settings settings;
    struct options options;
    struct error error;
    int code = parse(line, &settings, &options, &error);

    if (code != EXIT_USAGE || error.code != EXIT_USAGE || strstr(error.text, option) == NULL ||
        strstr(error.text, words) == NULL)
        fail_msg("'%s': code %d, '%s' was said where '%s' and '%s' were expected", line, code,
                 error.text, option, words);
    options_release(&options);
}

static void accepted(const char *line, struct settings *settings)
{
    struct options options;
    struct error error;

    if (parse(line, settings, &options, &error) != 0)
        fail_msg("'%s': %s", line, error.text);
    options_release(&options);
}

static void what_does_not_go_together_is_refused(void **state)
{
    (void)state;
    refused("", "--job", "--standalone");
    refused("--job=12345678901234567890123456789012345678901234567890123456789012345", "--job",
            "64");
    refused("--job=a --min=3 --max=2", "--min 3", "--max 2");
    refused("--job=a --min=9", "--min 9", "--max 8");
    refused("--job=a --max=9", "--max 9", "--shards 8");
    refused("--standalone --shards=7", "--global-batch 256", "--shards 7");
    refused("--standalone --global-batch=4", "--global-batch 4", "--shards 8");
    refused("--standalone --steps=5 --epochs=1", "--steps", "--epochs");
    refused("--job=", "--job ''", "1 to 64 bytes");
    refused("--job=j --node=", "--node ''", "1 to 64 bytes");
    refused("--job=j --node=12345678901234567890123456789012345678901234567890123456789012345",
            "--node 1234", "1 to 64 bytes");
    refused("--standalone --ckpt-every=5", "--ckpt-every", "--ckpt");
    refused("--standalone --beta1=1", "--beta1", "less than 1");
    refused("--standalone --beta2=1", "--beta2", "less than 1");
    refused("--standalone --shards=257", "--shards", "256");
    refused("--standalone --lr=-1", "--lr", "");
    refused("--standalone --lr=nan", "--lr", "");
    refused("--standalone --optim=adamax", "--optim", "adamw");
    refused("--standalone --threads=0", "--threads", "");
    refused("--standalone --threads=2x", "--threads", "");
    refused("--standalone --coordinator=h:1", "--standalone", "--coordinator");
}

static void what_goes_together_is_taken(void **state)
{
    struct settings settings;

    (void)state;
    accepted("--standalone", &settings);
    assert_int_equal(settings.max, 8);
    accepted("--job=a --min=8", &settings);
    accepted("--standalone --shards=256 --global-batch=256", &settings);
    accepted("--standalone --shards=1 --global-batch=1", &settings);
    accepted("--standalone --steps=5 --lr=0 --beta1=0 --beta2=0", &settings);
    accepted("--standalone --ckpt=x --ckpt-every=5", &settings);
}

/* Steps and epochs by --config, the environment and the command line: what counts, in steps and in
 * epochs, 0 for the other; or what is said. */
static void a_stronger_length_counts(void **state)
{
    static const struct {
        const char *config, *steps, *epochs, *line;
        uint64_t in_steps, in_epochs;
        const char *refused[2];
    } rows[] = {
        {"", NULL, "2", "--steps 5", 5, 0, {NULL}},
        {"", "5", NULL, "--epochs 2", 0, 2, {NULL}},
        {"epochs = 3\n", NULL, NULL, "--steps 5", 5, 0, {NULL}},
        {"steps = 3\n", NULL, "2", "", 0, 2, {NULL}},
        {"steps = 3\n", "7", NULL, "--epochs 2", 0, 2, {NULL}},
        {"steps = 3\nepochs = 4\n", NULL, NULL, "--epochs 2", 0, 2, {NULL}},
        {"", "5", "2", "--steps 9", 9, 0, {NULL}},
        {"steps = 3\n", NULL, NULL, "", 3, 0, {NULL}},
        {"steps = 3\nepochs = 4\n", NULL, NULL, "", 0, 0, {"--steps 3 (from ", ":2)"}},
        {"", "5", "2", "", 0, 0,
         {"--steps 5 (from MUSTER_STEPS)", "--epochs 2 (from MUSTER_EPOCHS)"}},
        {"steps = 3\n", NULL, NULL, "--steps 5 --epochs 2", 0, 0, {"--steps 5", "--epochs 2"}},
    };
    char path[] = "/tmp/muster-length-XXXXXX", line[100];

    (void)state;
    assert_int_equal(close(mkstemp(path)), 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        FILE *file = fopen(path, "w");
        struct settings settings;
        struct options options;
        struct error error;
        int code;

        assert_non_null(file);
        (void)fputs(rows[i].config, file);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(clearenv(), 0);
        if (rows[i].steps != NULL)
            assert_int_equal(setenv("MUSTER_STEPS", rows[i].steps, 1), 0);
        if (rows[i].epochs != NULL)
            assert_int_equal(setenv("MUSTER_EPOCHS", rows[i].epochs, 1), 0);
        (void)snprintf(line, sizeof line, "--standalone --config %s %s", path, rows[i].line);
        code = parse_beside(line, &settings, &options, &error);
        if (rows[i].refused[0] == NULL) {
            if (code != 0 || settings.steps != rows[i].in_steps ||
                (settings.steps == 0 && settings.epochs != rows[i].in_epochs))
                fail_msg("row %zu: %d, %s", i, code, error.text);
        } else if (code != EXIT_USAGE || strstr(error.text, rows[i].refused[0]) == NULL ||
                   strstr(error.text, rows[i].refused[1]) == NULL) {
            fail_msg("row %zu: %d, %s", i, code, error.text);
        }
        options_release(&options);
    }
    assert_int_equal(clearenv(), 0);
    assert_int_equal(unlink(path), 0);
}

static void the_optimizers_options_are_handed_on(void **state)
{
    struct settings settings;
    struct optim_options optim;

    (void)state;
    accepted("--standalone --optim=adamw --lr=0.5 --weight-decay=0.25 --schedule=cosine --warmup=3",
             &settings);
    settings_optim(&settings, 77, &optim);
    assert_int_equal(optim.kind, DEVICE_ADAMW);
    assert_int_equal(optim.schedule, OPTIM_COSINE);
    assert_int_equal(optim.total_steps, 77);
    assert_int_equal(optim.warmup_steps, 3);
    assert_true(optim.rate == 0.5 && optim.decay == 0.25 && optim.beta1 == 0.9 &&
                optim.beta2 == 0.999);
    accepted("--standalone --optim=sgd --momentum=0.75 --nesterov --clip-norm=2 --schedule=linear",
             &settings);
    settings_optim(&settings, 1, &optim);
    assert_int_equal(optim.kind, DEVICE_SGD);
    assert_int_equal(optim.schedule, OPTIM_LINEAR);
    assert_true(optim.nesterov && optim.momentum == 0.75 && optim.clip_norm == 2);
    accepted("--standalone", &settings);
    settings_optim(&settings, 1, &optim);
    assert_int_equal(optim.kind, DEVICE_ADAM);
    assert_int_equal(optim.schedule, OPTIM_CONSTANT);
}

/* ---- the spec ------------------------------------------------------------------------------- */

static void spec_of(const char *line, char spec[SETTINGS_SPEC_BYTES])
{
    struct settings settings;

    accepted(line, &settings);
    settings_spec(&settings, 1, 2, 3, spec);
}

/* Line by line "key=value", keys rising. */
static void the_spec_is_sorted_lines(void **state)
{
    char spec[SETTINGS_SPEC_BYTES], last[64] = "", *rest = spec, *line;
    unsigned lines = 0;

    (void)state;
    spec_of("--standalone", spec);
    assert_int_equal(spec[strlen(spec) - 1], '\n');
    while ((line = strsep(&rest, "\n")) != NULL && line[0] != '\0') {
        char *equals = strchr(line, '=');

        assert_non_null(equals);
        *equals = '\0';
        if (strcmp(last, line) >= 0)
            fail_msg("%s stands behind %s", line, last);
        (void)snprintf(last, sizeof last, "%s", line);
        lines++;
    }
    assert_true(lines > 15);
}

static void what_changes_the_bits_is_in_the_spec(void **state)
{
    static const char *const changes[] = {"--epochs=2",
                                          "--steps=9",
                                          "--global-batch=512",
                                          "--shards=16",
                                          "--seed=1",
                                          "--optim=sgd",
                                          "--lr=0.002",
                                          "--beta1=0.8",
                                          "--beta2=0.9",
                                          "--epsilon=1e-7",
                                          "--weight-decay=0.1",
                                          "--momentum=0.9",
                                          "--nesterov",
                                          "--clip-norm=1",
                                          "--schedule=linear",
                                          "--warmup=1",
                                          "--lr=0.0010000000000000002"};
    static const char *const others[] = {"--min=2",       "--max=4",           "--threads=2",
                                         "--ckpt=x",      "--ckpt-keep=1",     "--log=x",
                                         "--log-samples", "--quiet",           "--hash-every=2",
                                         "--node=n",      "--data-listen=::1", "--drain-ms=1s",
                                         "--data=x",      "--job=other",       "--audit=2",
                                         "--connect-timeout=1s"};
    char plain[SETTINGS_SPEC_BYTES], changed[SETTINGS_SPEC_BYTES], line[128];

    (void)state;
    spec_of("--standalone", plain);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        (void)snprintf(line, sizeof line, "--standalone %s", changes[i]);
        spec_of(line, changed);
        if (strcmp(plain, changed) == 0)
            fail_msg("%s does not change the spec", changes[i]);
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        (void)snprintf(line, sizeof line, "--standalone %s", others[i]);
        spec_of(line, changed);
        if (strcmp(plain, changed) != 0)
            fail_msg("%s changes the spec", others[i]);
    }
    spec_of("--job=j --coordinator=h:1", changed);
    assert_string_equal(plain, changed);
}

static void data_and_initial_values_are_in_the_spec(void **state)
{
    struct settings settings;
    char specs[4][SETTINGS_SPEC_BYTES];

    (void)state;
    accepted("--standalone", &settings);
    settings_spec(&settings, 1, 2, 3, specs[0]);
    settings_spec(&settings, 9, 2, 3, specs[1]);
    settings_spec(&settings, 1, 9, 3, specs[2]);
    settings_spec(&settings, 1, 2, 9, specs[3]);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(specs[i], specs[k]);
}

static void expect_difference(const char *there, const char *here, const char *expected)
{
    char text[64];

    settings_difference(there, here, text, sizeof text);
    if (strcmp(text, expected) != 0)
        fail_msg("'%s' was said, expected '%s'", text, expected);
}

static void the_first_line_that_differs_is_told(void **state)
{
    (void)state;
    expect_difference("a=1\nb=2\n", "a=1\nb=3\n", "b=2 there, b=3 here");
    expect_difference("a=1\nb=2\n", "a=10\nb=2\n", "a=1 there, a=10 here");
    expect_difference("a=1\n", "a=1\nb=2\n", "nothing more there, b=2 here");
    expect_difference("a=1\nb=2\n", "a=1\n", "b=2 there, nothing more here");
    expect_difference("", "a=1\n", "nothing more there, a=1 here");
}

static void places_have_their_form(void **state)
{
    static const char *const wrong[] = {"127.0.0.1:99999", "[::1", ":7",   "[::1]x",
                                        "foo.invalid",     "*",    "*:70", "1.2.3.4.5"};
    static const char *const right[][2] = {{"10.0.0.1", "10.0.0.1:0"}, {"::1", "[::1]:0"},
                                           {"[::1]", "[::1]:0"}, {"[::1]:7", "[::1]:7"},
                                           {"localhost:7", "localhost:7"}};
    struct settings settings;
    char line[100], listen[100];

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        (void)snprintf(line, sizeof line, "--job j --data-listen %s", wrong[i]);
        refused(line, "--data-listen", wrong[i]);
        (void)snprintf(line, sizeof line, "--standalone --data-listen %s", wrong[i]);
        refused(line, "--data-listen", wrong[i]);
    }
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        (void)snprintf(line, sizeof line, "--job j --data-listen %s", right[i][0]);
        accepted(line, &settings);
        settings_listen(right[i][0], listen, sizeof listen);
        assert_string_equal(listen, right[i][1]);
    }
    refused("--job j --coordinator nowhere", "--coordinator", "nowhere");
    refused("--job \xff", "--job", "text");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_have_their_form),
        cmocka_unit_test(what_does_not_go_together_is_refused),
        cmocka_unit_test(what_goes_together_is_taken),
        cmocka_unit_test(a_stronger_length_counts),
        cmocka_unit_test(the_optimizers_options_are_handed_on),
        cmocka_unit_test(the_spec_is_sorted_lines),
        cmocka_unit_test(what_changes_the_bits_is_in_the_spec),
        cmocka_unit_test(data_and_initial_values_are_in_the_spec),
        cmocka_unit_test(the_first_line_that_differs_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
