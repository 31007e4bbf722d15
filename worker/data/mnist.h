/* MNIST-like data: idx files in gzip, checked, kept as bytes.
 *
 * A folder holds {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz (or without .gz). Any number of samples of
 * 28x28 pixels is accepted. gzip's CRC, magic, sizes, counts and labels are checked; a file whose header is
 * that of the real MNIST (60,000 or 10,000 samples) and whose name is too is also compared with MNIST's
 * SHA-256, and a difference is only told (note), since others may have as many samples. */
#ifndef DATA_MNIST_H
#define DATA_MNIST_H

#include <stddef.h>
#include <stdint.h>

#define MNIST_PIXELS     784
#define MNIST_CLASSES    10
#define MNIST_TEXT_BYTES 512

struct mnist_set {
    uint8_t *images; /* [count][MNIST_PIXELS], owned */
    uint8_t *labels; /* [count], owned */
    uint64_t count;
};

struct mnist {
    struct mnist_set train, test;
    char place[MNIST_TEXT_BYTES]; /* folder it came from */
    char note[MNIST_TEXT_BYTES];  /* what a person should know about it, "" = nothing */
    uint64_t hash;                /* of all bytes: XXH3-64 */
};

/* Opens the folder, or, when it is NULL, the first of: $MUSTER_DATA, ../shared/data/mnist, the real subset that
 * comes with the project (and then says so in note). 0, or -1 with a sentence that names the file. Missing
 * MNIST is downloaded by deploy/quickstart.sh, never by this program. */
int mnist_open(const char *folder, struct mnist *mnist, char *error, size_t error_bytes);
void mnist_release(struct mnist *mnist); /* accepts an empty one */

#endif
