#include "train/fingerprint.h"

#include "sources_id.h" /* made by the build: worker/train/CMakeLists.txt */

#include "base/exits.h"
#include "train/settings.h"

#include <stdio.h>
#include <string.h>

const char *fingerprint_sources(void)
{
    return SOURCES_ID;
}

void fingerprint_write(const struct device_ops *ops, const struct device *device,
                       char text[CKPT_FINGERPRINT_BYTES])
{
    size_t used;

    ops->fingerprint(device, text, CKPT_FINGERPRINT_BYTES);
    used = strlen(text);
    (void)snprintf(text + used, CKPT_FINGERPRINT_BYTES - used,
                   "program-flags=" FLAGS "\nprogram-sources=" SOURCES_ID "\n");
}

int fingerprint_check(const struct ckpt_found *found, const char *spec, const char *fingerprint,
                      char *note, size_t note_bytes, struct error *error)
{
    const char *there = found->meta.fingerprint;
    char text[160], set[64] = "the program and the libraries of that run";

    note[0] = '\0';
    if (strcmp(found->meta.spec, spec) != 0) {
        settings_difference(found->meta.spec, spec, text, sizeof text);
        return error_set(error, EXIT_REFUSED,
                         "%s belongs to another run: %s; give --ckpt another folder, or the "
                         "options of that run", found->path, text);
    }
    if (there[0] == '\0') {
        (void)snprintf(note, note_bytes,
                       "%.160s does not say which kernels made it (an older version wrote it): if "
                       "they were others, the bits are no longer those of one run", found->path);
        return 0;
    }
    if (strcmp(there, fingerprint) == 0)
        return 0;
    settings_difference(there, fingerprint, text, sizeof text);
    if (strncmp(text, "isa=", 4) == 0)
        (void)snprintf(set, sizeof set, "--isa %.*s", (int)strcspn(text + 4, " "), text + 4);
    return error_set(error, EXIT_REFUSED,
                     "%s was made by other kernels, which give other bits: %s; use %s, or give "
                     "--ckpt another folder", found->path, text, set);
}
