/* What the table says about itself, in three forms. */
#include "base/option_value.h"

#include "base/exits.h"

#include <string.h>

#define WIDTH       98 /* columns of --help */
#define HELP_COLUMN 26 /* where the sentences begin */

static const struct option_spec everywhere[] = {
    {.name = "config", .unit = "FILE", .help = "read options from FILE: lines `name = value`"},
    {.name = "help[=config|man]",
     .unit = "",
     .help =
         "this text, or a config file with every default, or the options part of a manual page"},
    {.name = "version", .unit = "", .help = "version, commit, and the libraries in use"},
};

/* Words of text from column `indent` on; the cursor stands at `column`. Every further line begins
 * with `prefix`, which is not longer than indent. */
static void wrap(FILE *out, const char *text, const char *prefix, size_t indent, size_t column)
{
    const char *blank = "";

    if (column < indent)
        (void)fprintf(out, "%*s", (int)(indent - column), "");
    else
        (void)fprintf(out, "\n%-*s", (int)indent, prefix);
    column = indent;
    while (*text != '\0') {
        size_t length = strcspn(text, " ");

        if (column + strlen(blank) + length > WIDTH && column > indent) {
            (void)fprintf(out, "\n%-*s", (int)indent, prefix);
            column = indent;
            blank = "";
        }
        (void)fprintf(out, "%s%.*s", blank, (int)length, text);
        column += strlen(blank) + length;
        blank = " ";
        text += length;
        text += strspn(text, " ");
    }
    (void)fputc('\n', out);
}

/* Help, choices, default: what --help and the manual say about one row. */
static void sentence(const struct option_spec *spec, char *text, size_t text_bytes)
{
    (void)snprintf(text, text_bytes, "%s%s%s%s%s%s", spec->help,
                   spec->choices != NULL ? ": " : "", spec->choices != NULL ? spec->choices : "",
                   spec->fallback != NULL ? " (default " : "",
                   spec->fallback != NULL ? spec->fallback : "", spec->fallback != NULL ? ")" : "");
}

static void help_one(const struct option_spec *spec, FILE *out)
{
    char text[1024];
    int column =
        fprintf(out, "  --%s%s%s", spec->name, spec->unit[0] != '\0' ? " " : "", spec->unit);

    sentence(spec, text, sizeof text);
    wrap(out, text, "", HELP_COLUMN, (size_t)column);
}

static void help_text(const struct options *options, FILE *out)
{
    const char *group = "";

    (void)fprintf(out, "usage: %s [options]%s%s\n\n%s\n", options->program,
                  options->arguments[0] != '\0' ? " " : "", options->arguments, options->summary);
    for (size_t i = 0; i < options->count; i++) {
        if (strcmp(group, options->table[i].group) != 0)
            (void)fprintf(out, "\n%s\n", options->table[i].group);
        group = options->table[i].group;
        help_one(&options->table[i], out);
    }
    (void)fprintf(out, "\nEvery program\n");
    for (size_t i = 0; i < sizeof everywhere / sizeof everywhere[0]; i++)
        help_one(&everywhere[i], out);
    (void)fprintf(out,
                  "\nEvery option is also read from the environment as MUSTER_NAME, in capitals "
                  "and with dashes as\nunderscores; the command line counts before the "
                  "environment, that before the config file.\n\nExit codes\n");
#define EXIT_LINE(name, code, sentence) (void)fprintf(out, "  %2d  %s\n", code, sentence);
    EXITS(EXIT_LINE)
#undef EXIT_LINE
}

void options_sample(const struct options *options, FILE *out)
{
    const char *group = "";

    (void)fprintf(out,
                  "# %s --config FILE: every option with its default. Remove the # to set one.\n",
                  options->program);
    for (size_t i = 0; i < options->count; i++) {
        const struct option_spec *spec = &options->table[i];
        char text[1024];

        if (strcmp(group, spec->group) != 0)
            (void)fprintf(out, "\n# ---- %s\n", spec->group);
        group = spec->group;
        (void)snprintf(text, sizeof text, "%s%s%s", spec->help, spec->choices != NULL ? ": " : "",
                       spec->choices != NULL ? spec->choices : "");
        (void)fprintf(out, "\n#");
        wrap(out, text, "#", 2, 1);
        (void)fprintf(out, "#%s = %s\n", spec->name,
                      spec->fallback != NULL      ? spec->fallback
                      : spec->type == OPTION_FLAG ? "no"
                                                  : spec->unit);
    }
}

/* Text for man(7): a backslash is \e, a dash \-, and a line must not begin with a dot or a
 * quote. */
static void man_text(FILE *out, const char *text)
{
    if (text[0] == '.' || text[0] == '\'')
        (void)fputs("\\&", out);
    for (; *text != '\0'; text++) {
        if (*text == '\\')
            (void)fputs("\\e", out);
        else if (*text == '-')
            (void)fputs("\\-", out);
        else
            (void)fputc(*text, out);
    }
}

static void man_one(const struct option_spec *spec, FILE *out)
{
    char text[1024];

    (void)fputs(".TP\n.B \\-\\-", out);
    man_text(out, spec->name);
    if (spec->unit[0] != '\0') {
        (void)fputs(" \\fI", out);
        man_text(out, spec->unit);
        (void)fputs("\\fR", out);
    }
    (void)fputc('\n', out);
    sentence(spec, text, sizeof text);
    man_text(out, text);
    (void)fputc('\n', out);
}

void options_man(const struct options *options, FILE *out)
{
    const char *group = "";

    (void)fputs(".SH OPTIONS\n", out);
    for (size_t i = 0; i < options->count; i++) {
        if (strcmp(group, options->table[i].group) != 0)
            (void)fprintf(out, ".SS %s\n", options->table[i].group);
        group = options->table[i].group;
        man_one(&options->table[i], out);
    }
    (void)fputs(".SS Every program\n", out);
    for (size_t i = 0; i < sizeof everywhere / sizeof everywhere[0]; i++)
        man_one(&everywhere[i], out);
    (void)fputs(
        ".SH ENVIRONMENT\nEvery option is also read as MUSTER_NAME, in capitals and with "
        "dashes as underscores.\nThe command line counts before the environment, that before "
        "the config file.\n.SH EXIT STATUS\n",
        out);
#define EXIT_LINE(name, code, sentence) (void)fprintf(out, ".TP\n%d\n%s\n", code, sentence);
    EXITS(EXIT_LINE)
#undef EXIT_LINE
}

void options_help(const struct options *options, FILE *out)
{
    switch (options->form) {
    case OPTIONS_AS_CONFIG:
        options_sample(options, out);
        break;
    case OPTIONS_AS_MAN:
        options_man(options, out);
        break;
    case OPTIONS_AS_TEXT:
    default:
        help_text(options, out);
        break;
    }
}
