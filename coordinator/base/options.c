/* Invariants
 *   1. given[i] is the text of the source that wins; the fields of the caller are written only when every
 *      value of every source was understood.
 *   2. Text that values point to lives in argv, the environment, the table, or options->memory. */
#include "base/options.h"

#include "base/exits.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH       98
#define CONFIG_MAX  (1 << 20)
#define ENV_PREFIX  "MUSTER_"

extern char **environ;

void options_init(struct options *options, const char *program, const char *summary,
                  const struct option_spec *table, size_t count)
{
    memset(options, 0, sizeof *options);
    options->program = program;
    options->summary = summary;
    options->table = table;
    options->count = count < OPTIONS_MAX ? count : OPTIONS_MAX;
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

    return i < options->count && options->given[i] != NULL;
}

/* Levenshtein's distance, on short names. */
static size_t distance(const char *a, size_t n, const char *b)
{
    size_t row[64], m = strlen(b);

    if (n >= 64 || m >= 64)
        return 64;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            row[j] = best;
        }
    }
    return row[m];
}

static int unknown(const struct options *options, const char *where, const char *name,
                   size_t length, struct error *error)
{
    size_t best = 4, at = options->count;

    for (size_t i = 0; i < options->count; i++) {
        size_t d = distance(name, length, options->table[i].name);

        if (d < best) {
            best = d;
            at = i;
        }
    }
    if (at < options->count)
        return error_set(error, EXIT_USAGE, "%s: unknown option '%.*s'; did you mean '%s'?", where,
                         (int)length, name, options->table[at].name);
    return error_set(error, EXIT_USAGE, "%s: unknown option '%.*s'; see %s --help", where,
                     (int)length, name, options->program);
}

/* ---- sources -------------------------------------------------------------------------------- */

/* One word of the command line that begins with two dashes; *next is taken if it is the value. */
static int take_word(struct options *options, const char *word, const char *next, bool *took_next,
                     struct error *error)
{
    size_t length = strcspn(word, "=");
    size_t i = find(options, word, length);
    bool config = length == 6 && strncmp(word, "config", 6) == 0;
    const char *value = word[length] == '=' ? word + length + 1 : NULL;

    *took_next = false;
    if (i == options->count && !config)
        return unknown(options, options->program, word, length, error);
    if (!config && options->table[i].type == OPTION_FLAG) {
        options->given[i] = value != NULL ? value : "yes";
        return 0;
    }
    if (value == NULL) {
        if (next == NULL)
            return error_set(error, EXIT_USAGE, "--%.*s needs a value", (int)length, word);
        value = next;
        *took_next = true;
    }
    if (config)
        options->config = value;
    else
        options->given[i] = value;
    return 0;
}

static int read_words(struct options *options, int argc, char **argv, struct error *error)
{
    bool only_positional = false;

    for (int i = 1; i < argc; i++) {
        bool took_next;
        int status;

        if (!only_positional && strcmp(argv[i], "--") == 0) {
            only_positional = true;
        } else if (!only_positional && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            return OPTIONS_HELP;
        } else if (!only_positional && strcmp(argv[i], "--version") == 0) {
            return OPTIONS_VERSION;
        } else if (!only_positional && strncmp(argv[i], "--", 2) == 0) {
            status = take_word(options, argv[i] + 2, i + 1 < argc ? argv[i + 1] : NULL, &took_next,
                               error);
            if (status != 0)
                return status;
            i += took_next;
        } else if (options->positional_count <
                   sizeof options->positional / sizeof options->positional[0]) {
            options->positional[options->positional_count++] = argv[i];
        } else {
            return error_set(error, EXIT_USAGE, "too many arguments, beginning with '%s'", argv[i]);
        }
    }
    return 0;
}

static void environment_name(const char *name, char *out, size_t bytes)
{
    size_t at = (size_t)snprintf(out, bytes, ENV_PREFIX);

    for (; *name != '\0' && at + 1 < bytes; name++)
        out[at++] = *name == '-' ? '_' : (char)toupper((unsigned char)*name);
    out[at] = '\0';
}

static void read_environment(struct options *options)
{
    char name[96];

    for (size_t i = 0; i < options->count; i++) {
        environment_name(options->table[i].name, name, sizeof name);
        if (options->given[i] == NULL)
            options->given[i] = getenv(name);
    }
    if (options->config == NULL)
        options->config = getenv(ENV_PREFIX "CONFIG");
}

static char *trim(char *text)
{
    char *end;

    while (isspace((unsigned char)*text))
        text++;
    end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        *--end = '\0';
    return text;
}

static int take_line(struct options *options, char *line, size_t number, const char **in_file,
                     struct error *error)
{
    char where[300], *equals, *name;
    size_t i;

    line[strcspn(line, "#")] = '\0';
    name = trim(line);
    if (*name == '\0')
        return 0;
    (void)snprintf(where, sizeof where, "%s:%zu", options->config, number);
    equals = strchr(name, '=');
    if (equals == NULL)
        return error_set(error, EXIT_USAGE, "%s: expected `name = value`, found '%s'", where, name);
    *equals = '\0';
    name = trim(name);
    i = find(options, name, strlen(name));
    if (i == options->count)
        return unknown(options, where, name, strlen(name), error);
    if (in_file[i] != NULL)
        return error_set(error, EXIT_USAGE, "%s: '%s' is set twice", where, name);
    in_file[i] = trim(equals + 1);
    return 0;
}

static int read_config(struct options *options, struct error *error)
{
    const char *in_file[OPTIONS_MAX] = {NULL};
    FILE *file = fopen(options->config, "r");
    size_t length, number = 0;
    int status = 0;

    if (file == NULL)
        return error_set(error, EXIT_USAGE, "--config %s: %s", options->config, strerror(errno));
    options->memory = calloc(1, CONFIG_MAX + 1);
    length = options->memory != NULL ? fread(options->memory, 1, CONFIG_MAX + 1, file) : 0;
    (void)fclose(file);
    if (options->memory == NULL || length > CONFIG_MAX)
        return error_set(error, EXIT_USAGE, "--config %s is too large", options->config);
    options->memory[length] = '\0';
    for (char *line = options->memory, *next; line != NULL && status == 0; line = next) {
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        status = take_line(options, line, ++number, in_file, error);
    }
    for (size_t i = 0; i < options->count; i++)
        if (options->given[i] == NULL)
            options->given[i] = in_file[i];
    return status;
}

/* ---- values --------------------------------------------------------------------------------- */

static int wrong(const struct option_spec *spec, const char *text, struct error *error)
{
    switch (spec->type) {
    case OPTION_NUMBER:
        return error_set(error, EXIT_USAGE, "--%s %s: expected a whole number from %.0f to %.0f",
                         spec->name, text, spec->min, spec->max);
    case OPTION_REAL:
        return error_set(error, EXIT_USAGE, "--%s %s: expected a number from %g to %g", spec->name,
                         text, spec->min, spec->max);
    case OPTION_DURATION:
        return error_set(error, EXIT_USAGE,
                         "--%s %s: expected a duration from %.0fms to %.0fms, such as 500ms, 2s or "
                         "3m", spec->name, text, spec->min, spec->max);
    case OPTION_CHOICE:
        return error_set(error, EXIT_USAGE, "--%s %s: expected one of %s", spec->name, text,
                         spec->choices);
    case OPTION_FLAG:
        return error_set(error, EXIT_USAGE, "--%s %s: expected yes or no", spec->name, text);
    case OPTION_TEXT:
    default:
        return error_set(error, EXIT_USAGE, "--%s %s: not understood", spec->name, text);
    }
}

static bool parse_number(const char *text, char **end, uint64_t *number)
{
    errno = 0;
    *number = strtoull(text, end, 10);
    return isdigit((unsigned char)text[0]) && errno == 0;
}

static bool parse_duration(const char *text, uint64_t *ms)
{
    static const struct { const char *suffix; uint64_t factor; } units[] = {
        {"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    char *end;

    if (!parse_number(text, &end, ms) || *ms > UINT64_MAX / 3600000)
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(end, units[i].suffix) == 0) {
            *ms *= units[i].factor;
            return true;
        }
    return false;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);

    for (const char *at = choices; length > 0 && *at != '\0'; at += strcspn(at, "|"), at += *at == '|')
        if (strcspn(at, "|") == length && strncmp(at, text, length) == 0)
            return true;
    return false;
}

/* Text to value; with field == NULL it is only judged. */
static bool convert(const struct option_spec *spec, const char *text, void *field)
{
    uint64_t number;
    double real;
    char *end;
    bool yes = strcmp(text, "yes") == 0 || strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    bool no = strcmp(text, "no") == 0 || strcmp(text, "false") == 0 || strcmp(text, "0") == 0;

    switch (spec->type) {
    case OPTION_FLAG:
        if (field != NULL)
            *(bool *)field = yes;
        return yes || no;
    case OPTION_NUMBER:
    case OPTION_DURATION:
        if (spec->type == OPTION_DURATION ? !parse_duration(text, &number)
                                          : !parse_number(text, &end, &number) || *end != '\0')
            return false;
        if (field != NULL)
            *(uint64_t *)field = number;
        return (double)number >= spec->min && (double)number <= spec->max;
    case OPTION_REAL:
        real = strtod(text, &end);
        if (field != NULL)
            *(double *)field = real;
        return end != text && *end == '\0' && real >= spec->min && real <= spec->max;
    case OPTION_CHOICE:
    case OPTION_TEXT:
    default:
        if (field != NULL)
            *(const char **)field = text;
        return spec->type == OPTION_TEXT || is_choice(spec->choices, text);
    }
}

static int set_values(struct options *options, void *values, struct error *error)
{
    for (size_t i = 0; i < options->count; i++)
        if (options->given[i] != NULL && !convert(&options->table[i], options->given[i], NULL))
            return wrong(&options->table[i], options->given[i], error);
    for (size_t i = 0; i < options->count; i++) {
        const struct option_spec *spec = &options->table[i];
        const char *text = options->given[i] != NULL ? options->given[i] : spec->fallback;
        void *field = (char *)values + spec->offset;

        if (text != NULL)
            (void)convert(spec, text, field);
        else if (spec->type == OPTION_TEXT || spec->type == OPTION_CHOICE)
            *(const char **)field = NULL;
        else if (spec->type == OPTION_FLAG)
            *(bool *)field = false;
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

/* ---- help ----------------------------------------------------------------------------------- */

/* Words of text from column `indent` on; the cursor stands at `column`. */
static void wrap(FILE *out, const char *text, size_t indent, size_t column)
{
    if (column + 2 > indent) {
        (void)fputc('\n', out);
        column = 0;
    }
    (void)fprintf(out, "%*s", (int)(indent - column), "");
    column = indent;
    while (*text != '\0') {
        size_t length = strcspn(text, " ");

        if (column + length > WIDTH && column > indent) {
            (void)fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
        }
        (void)fprintf(out, "%.*s", (int)length, text);
        column += length;
        text += length;
        if (*text == ' ') {
            text++;
            if (column < WIDTH)
                (void)fputc(' ', out);
            column++;
        }
    }
    (void)fputc('\n', out);
}

static void help_one(const struct option_spec *spec, FILE *out)
{
    char text[1024];
    int column = fprintf(out, "  --%s%s%s", spec->name, spec->unit[0] != '\0' ? " " : "", spec->unit);

    (void)snprintf(text, sizeof text, "%s%s%s%s%s%s%s", spec->help,
                   spec->choices != NULL ? " (" : "", spec->choices != NULL ? spec->choices : "",
                   spec->choices != NULL ? ")" : "",
                   spec->fallback != NULL ? "; default " : "",
                   spec->fallback != NULL ? spec->fallback : "", "");
    wrap(out, text, 26, column > 0 ? (size_t)column : 0);
}

void options_help(const struct options *options, FILE *out)
{
    const char *group = "";

    (void)fprintf(out, "usage: %s [options]\n\n%s\n", options->program, options->summary);
    for (size_t i = 0; i < options->count; i++) {
        const struct option_spec *spec = &options->table[i];

        if (strcmp(group, spec->group) != 0)
            (void)fprintf(out, "\n%s\n", spec->group);
        group = spec->group;
        help_one(spec, out);
    }
    (void)fprintf(out, "\nEvery program\n");
    (void)fprintf(out, "  --config FILE           read options from FILE: lines `name = value`\n");
    (void)fprintf(out, "  --help, --version\n\n");
    (void)fprintf(out, "Every option is also read from the environment as " ENV_PREFIX
                       "NAME, with dashes as underscores.\nExit codes:\n");
#define EXIT_LINE(name, code, sentence) (void)fprintf(out, "  %2d  %s\n", code, sentence);
    EXITS(EXIT_LINE)
#undef EXIT_LINE
}

void options_sample(const struct options *options, FILE *out)
{
    (void)fprintf(out, "# %s: every option with its default. Remove the # to set one.\n",
                  options->program);
    for (size_t i = 0; i < options->count; i++) {
        const struct option_spec *spec = &options->table[i];

        (void)fprintf(out, "\n# %s\n#%s = %s\n", spec->help, spec->name,
                      spec->fallback != NULL ? spec->fallback
                      : spec->type == OPTION_FLAG ? "no" : "");
    }
}
