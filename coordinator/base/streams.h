/* Standard input, output and error, which every program may count on. */
#ifndef BASE_STREAMS_H
#define BASE_STREAMS_H

#include "base/error.h"

/* First in main: /dev/null takes the place of each of the descriptors 0, 1 and 2 that is closed.
 * Without this a socket or a file would get its number, and with it what is printed and logged. */
void streams_open(void);

/* Has everything that was printed reached stdout? 0, or EXIT_UNAVAILABLE with a sentence. */
int streams_flush(struct error *error);

#endif
