/* Is a file the real MNIST, or nearly? Private to this room; mnist.h states the rule. */
#ifndef DATA_MNIST_KNOWN_H
#define DATA_MNIST_KNOWN_H

#include <stddef.h>
#include <stdint.h>

enum known_verdict {
    KNOWN_OTHER,   /* somebody's own data, or a size that MNIST does not have */
    KNOWN_SAME,    /* MNIST's file, every bit of it */
    KNOWN_SWAPPED, /* MNIST's file, under the name of another one */
    KNOWN_DAMAGED, /* most blocks are MNIST's, some are not */
    KNOWN_FAILED   /* no memory for the digest */
};

struct known_report {
    enum known_verdict verdict;
    const char *whose;   /* SWAPPED, DAMAGED: name of MNIST's file, without .gz */
    unsigned bad_blocks; /* DAMAGED: of KNOWN_BLOCKS */
    unsigned first_bad;  /* DAMAGED: sample at which the first such block begins */
};

#define KNOWN_BLOCKS 16

/* name: without .gz; head: the idx header; body: what follows it, body_bytes for count samples. */
struct known_report known_compare(const char *name, const uint8_t *head, size_t head_bytes,
                                  uint32_t count, const uint8_t *body, size_t body_bytes);

#endif
