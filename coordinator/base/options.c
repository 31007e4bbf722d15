/* Invariants
 *   1. given[i] is the text of the strongest source that has it, and says which that is; the fields
 *      of the caller are written only when every value of every source was understood.
 *   2. Text that values point to lives in argv, the environment, the table, or options->memory. */
#include "base/options.h"

#include "base/exits.h"
#include "base/option_value.h"
#include "base/utf8.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_BYTES_MAX ((size_t)1 << 20)
#define NAME_BYTES_MAX   64
#define SHOWN_BYTES_MAX  80 /* of a value, in an error sentence */

void options_init(struct options *options, const char *program, const char *summary,
                  const struct option_spec *table, size_t count)
{
    assert(count <= OPTIONS_MAX);
    memset(options, 0, sizeof *options);
    options->program = program;
    options->summary = summary;
    options->arguments = "";
    options->table = table;
    options->count = count;
}

void options_release(struct options *options)
{
    free(options->memory);
    options->memory = NULL;
}

/* ---- names ---------------------------------------------------------------------------------- */

static size_t find(const struct options *options, const char *name, size_t length)
{
    for (size_t i = 0; i < options->count; i++)
        if (strlen(options->table[i].name) == length &&
            strncmp(options->table[i].name, name, length) == 0)
            return i;
    return options->count;
}

bool options_given(const struct options *options, const char *name)
{
    size_t i = find(options, name, strlen(name));

    return i < options->count && options->given[i].text != NULL;
}

enum option_source options_source(const struct options *options, const char *name)
{
    return options_given(options, name) ? options->given[find(options, name, strlen(name))].from
                                        : OPTION_FROM_DEFAULT;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein's distance, with one row of the matrix; both are short. */
static size_t distance(const char *a, size_t a_length, const char *b)
{
    size_t row[NAME_BYTES_MAX], b_length = strlen(b);

    if (a_length >= NAME_BYTES_MAX || b_length >= NAME_BYTES_MAX)
        return NAME_BYTES_MAX;
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t changed = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            row[j] = least(changed, least(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_length];
}

/* `where` is "" or the line of the file. Only a name closer than its own length is nearest. */
static int unknown(const struct options *options, const char *where, const char *name,
                   size_t length, struct error *error)
{
    static const char *const everywhere[] = {"help", "version", "config"};
    size_t best = least(length, 4), fixed = sizeof everywhere / sizeof everywhere[0];
    const char *nearest = NULL, *colon = where[0] != '\0' ? ": " : "";

    for (size_t i = 0; i < options->count + fixed; i++) {
        const char *known = i < options->count ? options->table[i].name
                                               : everywhere[i - options->count];
        size_t d = distance(name, length, known);

        if (d > 0 && d < best) {
            best = d;
            nearest = known;
        }
    }
    if (nearest != NULL)
        return error_set(error, EXIT_USAGE, "%s%sunknown option '%.*s'; did you mean '%s'?", where,
                         colon, (int)length, name, nearest);
    return error_set(error, EXIT_USAGE, "%s%sunknown option '%.*s'; see %s --help", where, colon,
                     (int)length, name, options->program);
}

/* ---- the command line ----------------------------------------------------------------------- */

/* --NAME's value: behind the =, or the next word, which *took then counts. */
static int take_value(const char *word, size_t length, const char *next, const char **value,
                      int *took, struct error *error)
{
    *value = word[length] == '=' ? word + length + 1 : next;
    *took = word[length] != '=';
    if (*value == NULL)
        return error_set(error, EXIT_USAGE, "--%.*s needs a value", (int)length, word);
    if (*took && strncmp(*value, "--", 2) == 0)
        return error_set(error, EXIT_USAGE,
                         "--%.*s needs a value; '%s' would be taken as one only in the form "
                         "--%.*s=%s", (int)length, word, *value, (int)length, word, *value);
    return 0;
}

static int take_help(struct options *options, const char *form, struct error *error)
{
    if (strcmp(form, "") == 0)
        options->form = OPTIONS_AS_TEXT;
    else if (strcmp(form, "=config") == 0)
        options->form = OPTIONS_AS_CONFIG;
    else if (strcmp(form, "=man") == 0)
        options->form = OPTIONS_AS_MAN;
    else
        return error_set(error, EXIT_USAGE,
                         "--help%s: expected --help, --help=config or --help=man", form);
    return OPTIONS_HELP;
}

/* A word that begins with two dashes, which are behind us; *took = 1 if `next` was its value. */
static int take_option(struct options *options, const char *word, const char *next, int *took,
                       struct error *error)
{
    size_t length = strcspn(word, "="), i = find(options, word, length);
    const char *value = NULL;
    int status;

    if (length == strlen("config") && strncmp(word, "config", length) == 0)
        return take_value(word, length, next, &options->config, took, error);
    if (length == strlen("help") && strncmp(word, "help", length) == 0)
        return take_help(options, word + length, error);
    if (strcmp(word, "version") == 0)
        return OPTIONS_VERSION;
    if (i == options->count)
        return unknown(options, "", word, length, error);
    if (options->table[i].type == OPTION_FLAG && word[length] == '\0') {
        value = "yes";
    } else {
        status = take_value(word, length, next, &value, took, error);
        if (status != 0)
            return status;
    }
    options->given[i] = (struct option_given){.text = value, .from = OPTION_FROM_WORD};
    return 0;
}

/* A single dash, or one before digits, is a word; -x is an option that nobody knows. */
static bool looks_like_option(const char *word)
{
    return word[0] == '-' && word[1] != '\0' && !isdigit((unsigned char)word[1]);
}

static int read_words(struct options *options, int argc, char **argv, struct error *error)
{
    bool only_words = false;

    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
        int status = 0, took = 0;

        if (only_words || !looks_like_option(word)) {
            if (options->positional_count == OPTIONS_WORDS_MAX)
                return error_set(error, EXIT_USAGE, "too many arguments, beginning with '%s'",
                                 word);
            options->positional[options->positional_count++] = word;
        } else if (strcmp(word, "--") == 0) {
            only_words = true;
        } else if (strcmp(word, "-h") == 0) {
            status = take_help(options, "", error);
        } else if (word[1] == '-') {
            status = take_option(options, word + 2, next, &took, error);
        } else {
            status = unknown(options, "", word, strlen(word), error);
        }
        if (status != 0)
            return status;
        i += took;
    }
    return 0;
}

/* ---- environment and config file ------------------------------------------------------------ */

static const char *variable(const char *name)
{
    char text[NAME_BYTES_MAX + sizeof "MUSTER_"];
    const char *value;

    option_variable(name, text, sizeof text);
    value = getenv(text);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static void read_environment(struct options *options)
{
    for (size_t i = 0; i < options->count; i++) {
        const char *value = variable(options->table[i].name);

        if (options->given[i].text == NULL && value != NULL)
            options->given[i] = (struct option_given){.text = value,
                                                      .from = OPTION_FROM_ENVIRONMENT};
    }
    if (options->config == NULL)
        options->config = variable("config");
}

/* Cuts blanks at both ends. */
static char *trim(char *text)
{
    char *end = text + strlen(text);

    while (end > text && isspace((unsigned char)end[-1]))
        *--end = '\0';
    while (isspace((unsigned char)*text))
        text++;
    return text;
}

static void cut_comment(char *line)
{
    for (char *at = strchr(line, '#'); at != NULL; at = strchr(at + 1, '#'))
        if (at == line || isspace((unsigned char)at[-1])) {
            *at = '\0';
            return;
        }
}

/* One line of the file; in_file[i] is what it gives to row i. */
static int take_line(struct options *options, char *line, size_t number,
                     struct option_given *in_file, struct error *error)
{
    char where[300], *equals, *name, *value;
    size_t i;

    cut_comment(line);
    name = trim(line);
    if (*name == '\0')
        return 0;
    (void)snprintf(where, sizeof where, "%s:%zu", options->config, number);
    equals = strchr(name, '=');
    if (equals == NULL)
        return error_set(error, EXIT_USAGE, "%s: expected `name = value`, found '%s'", where, name);
    *equals = '\0';
    name = trim(name);
    value = trim(equals + 1);
    i = find(options, name, strlen(name));
    if (i == options->count)
        return unknown(options, where, name, strlen(name), error);
    if (in_file[i].text != NULL)
        return error_set(error, EXIT_USAGE, "%s: '%s' is set again; it was set in line %zu", where,
                         name, in_file[i].line);
    if (*value == '\0')
        return error_set(error, EXIT_USAGE, "%s: '%s' has no value", where, name);
    in_file[i] = (struct option_given){.text = value, .from = OPTION_FROM_FILE, .line = number};
    return 0;
}

/* The whole file as text in options->memory. */
static int load_config(struct options *options, struct error *error)
{
    FILE *file = fopen(options->config, "re");
    size_t length;
    int failure = 0;

    if (file == NULL)
        return error_set(error, EXIT_USAGE, "--config %s: %s", options->config, strerror(errno));
    options->memory = malloc(CONFIG_BYTES_MAX + 1);
    if (options->memory == NULL) {
        (void)fclose(file);
        return error_set(error, EXIT_UNAVAILABLE, "--config %s: no memory", options->config);
    }
    errno = 0;
    length = fread(options->memory, 1, CONFIG_BYTES_MAX + 1, file);
    if (ferror(file))
        failure = errno != 0 ? errno : EIO;
    (void)fclose(file);
    if (failure != 0)
        return error_set(error, EXIT_USAGE, "--config %s: %s", options->config, strerror(failure));
    if (length > CONFIG_BYTES_MAX)
        return error_set(error, EXIT_USAGE, "--config %s: larger than %zu bytes", options->config,
                         CONFIG_BYTES_MAX);
    options->memory[length] = '\0';
    if (strlen(options->memory) != length)
        return error_set(error, EXIT_USAGE, "--config %s: not a text, byte %zu is zero",
                         options->config, strlen(options->memory));
    return 0;
}

static int read_config(struct options *options, struct error *error)
{
    struct option_given in_file[OPTIONS_MAX] = {{.text = NULL}};
    size_t number = 0;
    int status = load_config(options, error);

    if (status != 0)
        return status;
    for (char *line = options->memory, *next; line != NULL && status == 0; line = next) {
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        status = take_line(options, line, ++number, in_file, error);
    }
    for (size_t i = 0; i < options->count; i++)
        if (options->given[i].text == NULL)
            options->given[i] = in_file[i];
    return status;
}

/* ---- values --------------------------------------------------------------------------------- */

/* A value in an error sentence stays one piece of one line: '' when it is empty, cut at a character
 * when it is long, a question mark for what is not text. */
static void show_value(const char *value, char text[SHOWN_BYTES_MAX + sizeof ".."])
{
    size_t at = 0;

    while (*value != '\0') {
        size_t length = option_is_text(value) ? utf8_length(value) : 1;

        if (at + length > SHOWN_BYTES_MAX)
            break;
        if (option_is_text(value))
            memcpy(text + at, value, length);
        else
            text[at] = '?';
        at += length;
        value += length;
    }
    if (at == 0)
        memcpy(text, "''", sizeof "''");
    else
        memcpy(text + at, *value != '\0' ? ".." : "", *value != '\0' ? sizeof ".." : 1);
}

void options_show(const struct options *options, const char *name, char text[OPTIONS_SHOWN_BYTES])
{
    const struct option_given *given = &options->given[find(options, name, strlen(name))];
    char value[SHOWN_BYTES_MAX + sizeof ".."], from[NAME_BYTES_MAX + sizeof "MUSTER_"];
    int done;

    assert(given->text != NULL);
    show_value(given->text, value);
    done = snprintf(text, OPTIONS_SHOWN_BYTES, "--%s %s", name, value);
    if (given->from == OPTION_FROM_ENVIRONMENT) {
        option_variable(name, from, sizeof from);
        (void)snprintf(text + done, OPTIONS_SHOWN_BYTES - (size_t)done, " (from %s)", from);
    } else if (given->from == OPTION_FROM_FILE) {
        (void)snprintf(text + done, OPTIONS_SHOWN_BYTES - (size_t)done, " (from %.200s:%zu)",
                       options->config, given->line);
    }
}

static int wrong(const struct options *options, size_t i, struct error *error)
{
    char expected[200], shown[OPTIONS_SHOWN_BYTES];

    option_expected(&options->table[i], expected, sizeof expected);
    options_show(options, options->table[i].name, shown);
    return error_set(error, EXIT_USAGE, "%s: expected %s", shown, expected);
}

static int set_values(const struct options *options, void *values, struct error *error)
{
    for (size_t i = 0; i < options->count; i++)
        if (options->given[i].text != NULL &&
            !option_convert(&options->table[i], options->given[i].text, NULL))
            return wrong(options, i, error);
    for (size_t i = 0; i < options->count; i++) {
        const struct option_spec *spec = &options->table[i];
        const char *given = options->given[i].text;
        void *field = (char *)values + spec->offset;

        if (given != NULL)
            (void)option_convert(spec, given, field);
        else if (spec->fallback != NULL)
            (void)option_convert(spec, spec->fallback, field);
        else if (spec->type == OPTION_FLAG)
            *(bool *)field = false;
        else if (spec->type == OPTION_TEXT || spec->type == OPTION_CHOICE ||
                 spec->type == OPTION_ADDRESS || spec->type == OPTION_NAME)
            *(const char **)field = NULL;
    }
    return 0;
}

int options_parse(struct options *options, int argc, char **argv, void *values,
                  struct error *error)
{
    int status = read_words(options, argc, argv, error);

    if (status != 0)
        return status;
    read_environment(options);
    if (options->config != NULL)
        status = read_config(options, error);
    return status != 0 ? status : set_values(options, values, error);
}
