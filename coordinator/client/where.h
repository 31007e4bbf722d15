/* Where a thread of this process stands, as the kernel tells. */
#ifndef CLIENT_WHERE_H
#define CLIENT_WHERE_H

#include <stddef.h>
#include <stdint.h>

#define WHERE_BYTES 201u /* of a line with its NUL */

/* "tid 4711 sleeps: futex_do_wait < futex_wait < do_futex", from what of stack, wchan, syscall and
 * state may be read; "" when there is no such thread. Reads files of /proc: microseconds. */
void where_thread(uint32_t thread, char text[WHERE_BYTES]);

/* The lines of a stack file ("[<0>] futex_wait+0x6b/0x110") as "futex_wait < ..", the frames of the
 * system call's entry left out; "" when there are none. */
void where_frames(const char *stack, char *text, size_t text_bytes);

/* "futex" of "202 0x7f.. ..", "" of "running" and of what has no name here. */
const char *where_call(const char *syscall);

#endif
