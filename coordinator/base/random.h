/* Randomness from the kernel. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stddef.h>

/* 0, or -1 with errno when the kernel has none to give. */
int random_fill(void *bytes, size_t count);

/* 2 * count digits and NUL into text. */
void hex_text(const void *bytes, size_t count, char *text, size_t text_bytes);

#endif
