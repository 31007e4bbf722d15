#include "train/pace.h"

void pace_shard(struct pace *pace, uint64_t step, uint64_t took_us)
{
    if (pace->step != step + 1) {
        pace->at = pace->step != 0 ? (pace->at + 1) % PACE_STEPS : 0;
        pace->sum_us[pace->at] = 0;
        pace->shards[pace->at] = 0;
        pace->step = step + 1;
    }
    pace->sum_us[pace->at] += took_us;
    pace->shards[pace->at]++;
}

uint32_t pace_us(const struct pace *pace)
{
    uint64_t sum_us = 0;
    uint32_t steps = 0;

    for (uint32_t i = 0; i < PACE_STEPS; i++)
        if (pace->shards[i] > 0) {
            sum_us += pace->sum_us[i] / pace->shards[i];
            steps++;
        }
    if (steps == 0)
        return 0;
    sum_us /= steps;
    return sum_us == 0 ? 1 : sum_us > UINT32_MAX ? UINT32_MAX : (uint32_t)sum_us;
}
