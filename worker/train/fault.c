/* Named fault points, in test builds only: MUSTER_FAULT=phase:step[:rank] kills this process with SIGKILL when it
 * comes to that phase of that step (at that rank). The phases are the first arguments of fault_point(). */
#include "train/trainer.h"

#ifdef MUSTER_FAULTS
#include <signal.h>
#include <stdlib.h>
#include <string.h>

void fault_point(const struct trainer *t, const char *phase, uint64_t step)
{
    static const char *text;
    static int looked;
    size_t length = strlen(phase);
    char *end;

    if (!looked) {
        looked = 1;
        text = getenv("MUSTER_FAULT");
    }
    if (text == NULL || strncmp(text, phase, length) != 0 || text[length] != ':')
        return;
    if (strtoull(text + length + 1, &end, 10) > step)
        return;
    if (*end == ':' && strtoul(end + 1, NULL, 10) != t->elastic.rank)
        return;
    (void)raise(SIGKILL);
}
#else
typedef int fault_points_are_compiled_out;
#endif
