/* A program's own option table, SETTINGS_H: every row is whole, every default is a value of its
 * row, and a config file made from the sample gives the defaults again. */
#include SETTINGS_H

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static bool is_name(const char *name)
{
    return name[0] >= 'a' && name[0] <= 'z' &&
           name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-")] == '\0';
}

static void rows_are_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < settings_count; i++) {
        const struct option_spec *row = &settings_table[i];
        bool bounded = row->type == OPTION_NUMBER || row->type == OPTION_REAL ||
                       row->type == OPTION_DURATION || row->type == OPTION_BYTES ||
                       row->type == OPTION_NAME;

        if (!is_name(row->name) || row->help[0] == '\0' || row->group[0] == '\0' ||
            (row->type == OPTION_FLAG) != (row->unit[0] == '\0') ||
            (row->type == OPTION_CHOICE) != (row->choices != NULL) ||
            bounded != (row->min < row->max) || row->offset >= sizeof(struct settings))
            fail_msg("row %zu (%s) is not whole", i, row->name);
    }
}

/* The environment is shared by all programs: a row's variable is strange to none of them. */
static void variables_are_known(void **state)
{
    char name[100], strays[OPTIONS_STRAYS_BYTES];

    (void)state;
    assert_int_equal(clearenv(), 0);
    for (size_t i = 0; i < settings_count; i++) {
        (void)snprintf(name, sizeof name, "MUSTER_%s", settings_table[i].name);
        for (char *at = name; *at != '\0'; at++)
            *at = (char)(*at == '-' ? '_' : toupper((unsigned char)*at));
        assert_int_equal(setenv(name, "x", 1), 0);
        if (options_strays(strays))
            fail_msg("option_names.c lacks what this says: %s", strays);
    }
    assert_int_equal(clearenv(), 0);
}

static void names_and_fields_are_unique(void **state)
{
    (void)state;
    for (size_t i = 0; i < settings_count; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(settings_table[i].name, settings_table[j].name) == 0 ||
                settings_table[i].offset == settings_table[j].offset)
                fail_msg("%s and %s are the same", settings_table[i].name, settings_table[j].name);
}

static void groups_stand_together(void **state)
{
    (void)state;
    for (size_t i = 1; i < settings_count; i++)
        for (size_t j = 0; j + 1 < i; j++)
            if (strcmp(settings_table[i].group, settings_table[j].group) == 0 &&
                strcmp(settings_table[i].group, settings_table[i - 1].group) != 0)
                fail_msg("%s stands apart from its group", settings_table[i].name);
}

/* Parses `word` alone; the caller's environment does not count. */
static void parse(char *word, struct settings *settings, struct options *options)
{
    char program[] = "test", *argv[] = {program, word, NULL};
    struct error error;

    assert_int_equal(clearenv(), 0);
    memset(settings, 0, sizeof *settings);
    options_init(options, program, "", settings_table, settings_count);
    if (options_parse(options, word != NULL ? 2 : 1, argv, settings, &error) != 0)
        fail_msg("%s", error.text);
}

static void defaults_are_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < settings_count; i++) {
        struct settings settings;
        struct options options;
        char word[256];

        if (settings_table[i].fallback == NULL)
            continue;
        (void)snprintf(word, sizeof word, "--%s=%s", settings_table[i].name,
                       settings_table[i].fallback);
        parse(word, &settings, &options);
        options_release(&options);
    }
}

/* The sample with the # of every default taken away. */
static void write_sample(const char *path)
{
    struct options options;
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length), *file = fopen(path, "w");

    assert_non_null(file);
    options_init(&options, "test", "", settings_table, settings_count);
    options_sample(&options, out);
    assert_int_equal(fclose(out), 0);
    for (size_t i = 0; i < settings_count; i++) {
        char line[256], *at;

        (void)snprintf(line, sizeof line, "\n#%s = %s\n", settings_table[i].name,
                       settings_table[i].fallback != NULL ? settings_table[i].fallback : "");
        at = settings_table[i].fallback != NULL ? strstr(text, line) : text;
        if (at == NULL)
            fail_msg("the sample lacks: %s", line + 1);
        if (at != text)
            at[1] = ' ';
    }
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    free(text);
}

static void sample_gives_the_defaults_again(void **state)
{
    struct settings plain, sampled;
    struct options options, sample_options;
    char path[] = "/tmp/muster-sample-XXXXXX", word[64];

    (void)state;
    assert_int_equal(close(mkstemp(path)), 0);
    write_sample(path);
    (void)snprintf(word, sizeof word, "--config=%s", path);
    parse(NULL, &plain, &options);
    parse(word, &sampled, &sample_options);
    assert_int_equal(unlink(path), 0);
    for (size_t i = 0; i < settings_count; i++) {
        const struct option_spec *row = &settings_table[i];
        const char *a = (const char *)&plain + row->offset,
                   *b = (const char *)&sampled + row->offset;
        bool text = row->type == OPTION_TEXT || row->type == OPTION_CHOICE ||
                    row->type == OPTION_ADDRESS || row->type == OPTION_NAME;
        bool same = text ? row->fallback == NULL ||
                               strcmp(*(const char *const *)(const void *)a,
                                      *(const char *const *)(const void *)b) == 0
                         : memcmp(a, b, row->type == OPTION_FLAG ? sizeof(bool) : 8) == 0;

        if (!same)
            fail_msg("%s: the sample gives another value than the default", row->name);
        assert_true(options_given(&sample_options, row->name) == (row->fallback != NULL));
    }
    options_release(&options);
    options_release(&sample_options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_whole),
        cmocka_unit_test(variables_are_known),
        cmocka_unit_test(names_and_fields_are_unique),
        cmocka_unit_test(groups_stand_together),
        cmocka_unit_test(defaults_are_values),
        cmocka_unit_test(sample_gives_the_defaults_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
