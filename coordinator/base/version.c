#include "base/version.h"

#include "version_config.h"

const char *version_number(void)
{
    return MUSTER_VERSION_NUMBER;
}

const char *version_commit(void)
{
    return MUSTER_VERSION_COMMIT;
}

void version_print(FILE *out, const char *program, const struct version_row *rows, size_t count)
{
    (void)fprintf(out, "%s %s (commit %s)\n", program, version_number(), version_commit());
    for (size_t i = 0; i < count; i++)
        (void)fprintf(out, "  %-14s %s\n", rows[i].library, rows[i].version);
}
