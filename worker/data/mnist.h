/* MNIST-like data: idx files, in gzip or plain, checked, kept as bytes.
 *
 *     struct mnist mnist;
 *     if (mnist_open(NULL, &mnist, why, sizeof why) != 0) ..     why names the file and what is
 *                                                                wrong
 *     .. mnist.train.images + i * MNIST_PIXELS, mnist.note ..
 *     mnist_release(&mnist);
 *
 * A folder holds {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz (or the same without .gz); any
 * number of samples of 28x28 pixels is accepted. gzip's own CRC, magic, sizes, counts and labels
 * are always checked.
 *
 * The real MNIST is known by SHA-256. Data of others may have 60,000 and 10,000 samples as well
 * (many do), so that a difference alone proves nothing. The rule, for a file with as many samples
 * as MNIST's:
 *   - the same in every bit: it is MNIST's; under the name of another of its files: refused as
 *     swapped;
 *   - more than half of its sixteen blocks are MNIST's, others are not: a damaged MNIST, refused;
 *   - else it is somebody's own data: used, and told in `note`.
 * A damaged archive is refused by its CRC before that, whosever it is. */
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
    uint64_t count;  /* samples */
};

struct mnist {
    struct mnist_set train; /* from train-* */
    struct mnist_set test;  /* from t10k-* */
    char place[MNIST_TEXT_BYTES]; /* folder it came from */
    char note[MNIST_TEXT_BYTES];  /* what a person should know about it, "" = nothing */
    uint64_t hash;                /* of all bytes: XXH3-64 */
};

/* Opens the folder, or, when it is NULL, the first of: $MUSTER_DATA; ../shared/data/mnist beside
 * the current folder, then beside the source tree; the real subset that comes with the project (and
 * then says so in note). 0, or -1 with a sentence that names the file; *mnist is then empty. A
 * program that trains downloads nothing: fetching MNIST and comparing its SHA-256 is
 * deploy/mnist.py's, by itself or for deploy/quickstart.sh. */
int mnist_open(const char *folder, struct mnist *mnist, char *error, size_t error_bytes);
void mnist_release(struct mnist *mnist); /* accepts an empty one */

const char *mnist_zlib_version(void);
const char *mnist_crypto_version(void); /* OpenSSL's */

#endif
