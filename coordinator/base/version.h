/* What --version prints: version, commit, and the versions of the libraries in use. */
#ifndef BASE_VERSION_H
#define BASE_VERSION_H

#include <stddef.h>
#include <stdio.h>

struct version_row {
    const char *library, *version;
};

const char *version_number(void); /* "0.1.0" */
const char *version_commit(void); /* short hash, or "unknown" outside a git clone */
void version_print(FILE *out, const char *program, const struct version_row *rows, size_t count);

#endif
