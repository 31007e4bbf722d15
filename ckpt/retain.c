#include "ckpt/retain.h"

bool retain_drops(const struct ckpt_row *rows, uint32_t count, uint32_t which, uint64_t saved,
                  uint64_t keep)
{
    uint64_t newer = 0;

    if (keep == 0 || rows[which].step >= saved)
        return false;
    for (uint32_t i = 0; i < count; i++)
        newer += rows[i].valid && rows[i].step <= saved && rows[i].step > rows[which].step;
    return newer >= keep;
}

bool retain_drops_temporary(uint64_t step, uint64_t generation, int64_t age_s, uint64_t saved,
                            uint64_t saved_generation)
{
    return step <= saved && (generation < saved_generation || age_s > RETAIN_TEMPORARY_S);
}
