/* Is a byte string text? */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>

/* Bytes of the UTF-8 character at `text`, which ends with NUL; 0 when there is none: a stray or
 * missing continuation, a longer form than needed, a surrogate, beyond U+10FFFF (RFC 3629, section
 * 4). */
size_t utf8_length(const char *text);

#endif
