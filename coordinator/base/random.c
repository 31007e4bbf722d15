#include "base/random.h"

#include <errno.h>
#include <stdint.h>
#include <sys/random.h>
#include <sys/types.h>

int random_fill(void *bytes, size_t count)
{
    uint8_t *at = bytes;

    while (count > 0) {
        ssize_t got = getrandom(at, count, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        at += got;
        count -= (size_t)got;
    }
    return 0;
}

void hex_text(const void *bytes, size_t count, char *text, size_t text_bytes)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *in = bytes;
    size_t at = 0;

    for (size_t i = 0; i < count && at + 2 < text_bytes; i++) {
        text[at++] = digits[in[i] >> 4];
        text[at++] = digits[in[i] & 15];
    }
    if (text_bytes > 0)
        text[at] = '\0';
}
