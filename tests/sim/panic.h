/* SIM_REQUIRE: a condition of the simulator itself. When it does not hold the simulator is wrong,
 * not the code under test; it says so and stops. */
#ifndef SIM_PANIC_H
#define SIM_PANIC_H

#include <stdio.h>
#include <stdlib.h>

#define SIM_REQUIRE(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "muster-sim: %s:%d: the simulator is wrong: %s\n", __FILE__, __LINE__, \
                    #condition);                                                                   \
            exit(70);                                                                              \
        }                                                                                          \
    } while (0)

#endif
