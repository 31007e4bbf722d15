/* Standard input, output and error, which every program may count on. */
#ifndef BASE_STREAMS_H
#define BASE_STREAMS_H

/* First in main: /dev/null takes the place of each of the descriptors 0, 1 and 2 that is closed.
 * Without this a socket or a file would get its number, and with it what is printed and logged. */
void streams_open(void);

#endif
