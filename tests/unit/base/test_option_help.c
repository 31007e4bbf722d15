/* What a table prints: --help, a sample config, a manual page's part. */
#include "base/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct values {
    const char *job;
    bool quiet;
    uint64_t count;
    const char *color;
};

#define FIELD(name) offsetof(struct values, name)

static const struct option_spec table[] = {
    {"job", OPTION_TEXT, "NAME", NULL, 0, 0, NULL, FIELD(job), "Job", "its name"},
    {"quiet", OPTION_FLAG, "", NULL, 0, 0, NULL, FIELD(quiet), "Job",
     "say nothing, not even when there would be a great deal to say to everybody who is there to "
     "hear it "
     "and to everybody else"},
    {"a-count-with-a-long-name", OPTION_NUMBER, "N", "2", 1, 64, NULL, FIELD(count), "Looks",
     ".dots"},
    {"color", OPTION_CHOICE, "NAME", "red", 0, 0, "red|green", FIELD(color), "Looks",
     "hue \\ tint"},
};

enum { ROWS = sizeof table / sizeof table[0] };

static char *print(void (*form)(const struct options *, FILE *))
{
    struct options options;
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);

    assert_non_null(out);
    options_init(&options, "prog", "does things", table, ROWS);
    form(&options, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void expect_in(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("\"%s\" is not in:\n%s", part, text);
}

static void help_with_arguments(const struct options *options, FILE *out)
{
    struct options mine = *options;

    mine.arguments = "MEMBER|NODE";
    options_help(&mine, out);
}

static void usage_names_the_arguments(void **state)
{
    char *text = print(help_with_arguments);

    (void)state;
    expect_in(text, "usage: prog [options] MEMBER|NODE\n\ndoes things\n");
    free(text);
}

static void help_shows_every_row_in_its_group(void **state)
{
    char *text = print(options_help);

    (void)state;
    expect_in(text,
              "usage: prog [options]\n\ndoes things\n\nJob\n  --job NAME              its name\n");
    expect_in(text,
              "  --quiet                 say nothing, not even when there would be a great deal to "
              "say to\n                          everybody who");
    expect_in(
        text,
        "\nLooks\n  --a-count-with-a-long-name N\n                          .dots (default 2)\n");
    expect_in(text, "  --color NAME            hue \\ tint: red|green (default red)\n");
    expect_in(text, "  --config FILE ");
    expect_in(text, "  --version ");
    expect_in(text, "Exit codes\n   0  done, or drained\n  64  wrong usage");
    expect_in(text, "\n  77  refused");
    free(text);
}

static void no_line_is_wider_than_100_columns(void **state)
{
    void (*const forms[])(const struct options *, FILE *) = {options_help, options_sample};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char *text = print(forms[i]);

        for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
            if (strcspn(line, "\n") > 100)
                fail_msg("%zu columns: %.*s", strcspn(line, "\n"), (int)strcspn(line, "\n"), line);
        free(text);
    }
}

static void a_sample_sets_nothing(void **state)
{
    char *text = print(options_sample);

    (void)state;
    expect_in(text, "\n# ---- Job\n\n# its name\n#job = NAME\n");
    expect_in(text, "\n#quiet = no\n");
    expect_in(text, "\n# hue \\ tint: red|green\n#color = red\n");
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
        assert_true(*line == '#' || *line == '\n');
    free(text);
}

static void a_manual_page_is_escaped(void **state)
{
    char *text = print(options_man);

    (void)state;
    expect_in(text, ".SH OPTIONS\n.SS Job\n.TP\n.B \\-\\-job \\fINAME\\fR\nits name\n");
    expect_in(text,
              ".B \\-\\-a\\-count\\-with\\-a\\-long\\-name \\fIN\\fR\n\\&.dots (default 2)\n");
    expect_in(text, "hue \\e tint: red|green (default red)\n");
    expect_in(text, ".SH EXIT STATUS\n.TP\n0\ndone, or drained\n");
    free(text);
}

static void help_prints_the_form_that_was_asked_for(void **state)
{
    static const char *const asked[] = {"--help", "--help=config", "--help=man"};
    static const char *const first[] = {"usage: prog", "# prog --config FILE", ".SH OPTIONS"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        char *words[] = {strdup("prog"), strdup(asked[i]), NULL}, *text = NULL;
        struct options options;
        struct values values;
        struct error error;
        size_t length;
        FILE *out = open_memstream(&text, &length);

        options_init(&options, "prog", "does things", table, ROWS);
        assert_int_equal(options_parse(&options, 2, words, &values, &error), OPTIONS_HELP);
        options_help(&options, out);
        assert_int_equal(fclose(out), 0);
        if (strncmp(text, first[i], strlen(first[i])) != 0)
            fail_msg("%s printed: %.60s", asked[i], text);
        free(text);
        free(words[0]);
        free(words[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usage_names_the_arguments),
        cmocka_unit_test(help_shows_every_row_in_its_group),
        cmocka_unit_test(no_line_is_wider_than_100_columns),
        cmocka_unit_test(a_sample_sets_nothing),
        cmocka_unit_test(a_manual_page_is_escaped),
        cmocka_unit_test(help_prints_the_form_that_was_asked_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
