/* The two clocks. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_monotonic_us(void); /* never set, never back: for deadlines and durations */
uint64_t clock_realtime_us(void);  /* since 1970: for people and logs */

#endif
