/* A file is read to its end before a sample of it is believed: only then has zlib compared its
 * CRC. */
#include "data/mnist.h"

#include "data/mnist_known.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zlib.h>

#define IMAGES_MAGIC 2051u
#define LABELS_MAGIC 2049u
#define COUNT_MAX    (1u << 26)

/* A file that is being read, with the words for its errors. */
struct source {
    gzFile file;        /* NULL = not open */
    char path[1024];    /* of the file */
    const char *name;   /* base name without .gz */
    uint8_t head[16];   /* idx header */
    size_t head_bytes;  /* 16 for images, 8 for labels */
    char *note;         /* MNIST_TEXT_BYTES, the caller's */
    char *error;        /* the caller's */
    size_t error_bytes; /* of error */
};

/* The end of a path says more than its beginning, and what is wrong must fit behind it. */
static int complain(struct source *s, const char *what)
{
    size_t length = strlen(s->path), room = s->error_bytes / 2;
    const char *tail = length > room ? s->path + length - room : s->path;

    (void)snprintf(s->error, s->error_bytes, "%s%s: %s", tail == s->path ? "" : "..", tail, what);
    return -1;
}

/* The archive if it is there, else the plain file; when neither is, the archive is what is
 * missing. */
static int source_open(struct source *s, const char *folder, const char *name)
{
    char plain[sizeof s->path];

    s->name = name;
    (void)snprintf(s->path, sizeof s->path, "%s/%s.gz", folder, name);
    (void)snprintf(plain, sizeof plain, "%s/%s", folder, name);
    if (access(s->path, F_OK) != 0 && access(plain, F_OK) == 0)
        memcpy(s->path, plain, sizeof plain);
    errno = 0;
    s->file = gzopen(s->path, "rb");
    return s->file != NULL ? 0 : complain(s, errno != 0 ? strerror(errno) : "out of memory");
}

/* Could the file hold so many bytes? Deflate makes at most 1,032 of one, so that a header alone
 * cannot ask for memory that its file does not pay for. */
static int source_holds(struct source *s, size_t bytes)
{
    struct stat info;
    char text[200];

    if (stat(s->path, &info) != 0)
        return complain(s, strerror(errno));
    if (bytes / 1032 <= (uint64_t)info.st_size)
        return 0;
    (void)snprintf(text, sizeof text, "the file is truncated: %llu bytes for %llu of content",
                   (unsigned long long)info.st_size, (unsigned long long)bytes);
    return complain(s, text);
}

/* What zlib says; it puts the path before it, as complain() does. */
static int source_failed(struct source *s)
{
    int number;
    const char *why = gzerror(s->file, &number);
    size_t length = strlen(s->path);

    if (number == Z_ERRNO)
        return complain(s, strerror(errno));
    if (strncmp(why, s->path, length) == 0 && strncmp(why + length, ": ", 2) == 0)
        why += length + 2;
    return complain(s, why);
}

static int source_read(struct source *s, void *bytes, size_t count)
{
    uint8_t *at = bytes;

    while (count > 0) {
        unsigned part = count > 1u << 20 ? 1u << 20 : (unsigned)count;
        int got = gzread(s->file, at, part);

        if (got < 0)
            return source_failed(s);
        if (got == 0)
            return complain(s, "the file is truncated");
        at += got;
        count -= (size_t)got;
    }
    return 0;
}

/* Nothing may follow; reading to the end also makes zlib compare its CRC. A stream that ends before
 * its CRC reads as an end of file with Z_BUF_ERROR. */
static int source_end(struct source *s)
{
    uint8_t one;
    int got = gzread(s->file, &one, 1), number = Z_OK;

    if (got > 0)
        return complain(s, "there are more bytes than its header says");
    if (got < 0)
        return source_failed(s);
    (void)gzerror(s->file, &number);
    return number == Z_BUF_ERROR ? complain(s, "the file is truncated") : 0;
}

static void source_close(struct source *s)
{
    if (s->file != NULL)
        (void)gzclose(s->file);
    s->file = NULL;
}

static uint32_t big_endian(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* Header of an idx file: magic, count, and for images 28 x 28. */
static int read_header(struct source *s, uint32_t magic, uint32_t *count)
{
    bool images = magic == IMAGES_MAGIC;
    char text[200];

    s->head_bytes = images ? 16 : 8;
    if (source_read(s, s->head, 8) != 0)
        return -1;
    if (big_endian(s->head) != magic) {
        (void)snprintf(text, sizeof text, "wrong magic %u, expected %u (%s)", big_endian(s->head),
                       magic, images ? "idx3 images" : "idx1 labels");
        return complain(s, text);
    }
    *count = big_endian(s->head + 4);
    if (*count == 0 || *count > COUNT_MAX) {
        (void)snprintf(text, sizeof text, "%u samples; expected 1 to %u", *count, COUNT_MAX);
        return complain(s, text);
    }
    if (source_read(s, s->head + 8, s->head_bytes - 8) != 0)
        return -1;
    if (images && (big_endian(s->head + 8) != 28 || big_endian(s->head + 12) != 28)) {
        (void)snprintf(text, sizeof text, "images of %ux%u pixels; expected 28x28",
                       big_endian(s->head + 8), big_endian(s->head + 12));
        return complain(s, text);
    }
    return 0;
}

/* Does a file that claims to be the real one keep its word? */
static int check_known(struct source *s, uint32_t count, const uint8_t *bytes, size_t length)
{
    struct known_report report =
        known_compare(s->name, s->head, s->head_bytes, count, bytes, length);
    char text[200];

    switch (report.verdict) {
    case KNOWN_SAME:
        return 0;
    case KNOWN_OTHER:
        if (report.whose != NULL)
            (void)snprintf(s->note, MNIST_TEXT_BYTES, "%s has as many samples as MNIST, but is "
                                                      "other data", s->path);
        return 0;
    case KNOWN_SWAPPED:
        (void)snprintf(text, sizeof text, "swapped: this is MNIST's %s", report.whose);
        return complain(s, text);
    case KNOWN_DAMAGED:
        (void)snprintf(text, sizeof text, "wrong hash: a damaged copy of MNIST's %s (%u of %u "
                                          "blocks differ, the first one from sample %u on)",
                       report.whose, report.bad_blocks, KNOWN_BLOCKS, report.first_bad);
        return complain(s, text);
    case KNOWN_FAILED:
        break;
    }
    return complain(s, "out of memory for its SHA-256");
}

static int read_images(struct source *s, struct mnist_set *set)
{
    uint32_t count;
    size_t bytes;

    if (read_header(s, IMAGES_MAGIC, &count) != 0)
        return -1;
    bytes = (size_t)count * MNIST_PIXELS;
    if (source_holds(s, bytes) != 0)
        return -1;
    set->images = malloc(bytes);
    set->count = count;
    if (set->images == NULL)
        return complain(s, "out of memory");
    if (source_read(s, set->images, bytes) != 0 || source_end(s) != 0)
        return -1;
    return check_known(s, count, set->images, bytes);
}

static int read_labels(struct source *s, struct mnist_set *set)
{
    uint32_t count;
    char text[200];

    if (read_header(s, LABELS_MAGIC, &count) != 0)
        return -1;
    if (count != set->count) {
        (void)snprintf(text, sizeof text, "%u labels for %llu images", count,
                       (unsigned long long)set->count);
        return complain(s, text);
    }
    if (source_holds(s, count) != 0)
        return -1;
    set->labels = malloc(count);
    if (set->labels == NULL)
        return complain(s, "out of memory");
    if (source_read(s, set->labels, count) != 0 || source_end(s) != 0)
        return -1;
    for (uint32_t i = 0; i < count; i++)
        if (set->labels[i] >= MNIST_CLASSES) {
            (void)snprintf(text, sizeof text, "label %u of sample %u; expected 0 to 9",
                           set->labels[i], i);
            return complain(s, text);
        }
    return check_known(s, count, set->labels, count);
}

static int read_set(const char *folder, const char *images, const char *labels,
                    struct mnist_set *set, char *note, char *error, size_t error_bytes)
{
    struct source s = {.note = note, .error = error, .error_bytes = error_bytes};
    int status = source_open(&s, folder, images);

    if (status == 0)
        status = read_images(&s, set);
    source_close(&s);
    if (status == 0)
        status = source_open(&s, folder, labels);
    if (status == 0)
        status = read_labels(&s, set);
    source_close(&s);
    return status;
}

static bool has_data(const char *folder)
{
    char archive[1024], plain[1024];

    (void)snprintf(archive, sizeof archive, "%s/train-images-idx3-ubyte.gz", folder);
    (void)snprintf(plain, sizeof plain, "%s/train-images-idx3-ubyte", folder);
    return access(archive, R_OK) == 0 || access(plain, R_OK) == 0;
}

static const char *find_folder(const char *folder, char *note)
{
    const char *environment = getenv("MUSTER_DATA");

    if (folder != NULL)
        return folder;
    if (environment != NULL && environment[0] != '\0')
        return environment;
    if (has_data("../shared/data/mnist"))
        return "../shared/data/mnist";
    if (has_data(MNIST_SHARED))
        return MNIST_SHARED;
    (void)snprintf(note, MNIST_TEXT_BYTES, "no MNIST was found (--data, $MUSTER_DATA, "
                                           "../shared/data/mnist): training on the bundled real "
                                           "subset of it; python3 deploy/mnist.py downloads all "
                                           "of it and prints the folder for --data");
    return MNIST_SUBSET;
}

void mnist_release(struct mnist *mnist)
{
    free(mnist->train.images);
    free(mnist->train.labels);
    free(mnist->test.images);
    free(mnist->test.labels);
    memset(mnist, 0, sizeof *mnist);
}

int mnist_open(const char *folder, struct mnist *mnist, char *error, size_t error_bytes)
{
    uint64_t parts[4];
    int status;

    memset(mnist, 0, sizeof *mnist);
    folder = find_folder(folder, mnist->note);
    (void)snprintf(mnist->place, sizeof mnist->place, "%s", folder);
    status = read_set(folder, "train-images-idx3-ubyte", "train-labels-idx1-ubyte", &mnist->train,
                      mnist->note, error, error_bytes);
    if (status == 0)
        status = read_set(folder, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", &mnist->test,
                          mnist->note, error, error_bytes);
    if (status != 0) {
        mnist_release(mnist);
        return -1;
    }
    parts[0] = XXH3_64bits(mnist->train.images, mnist->train.count * MNIST_PIXELS);
    parts[1] = XXH3_64bits(mnist->train.labels, mnist->train.count);
    parts[2] = XXH3_64bits(mnist->test.images, mnist->test.count * MNIST_PIXELS);
    parts[3] = XXH3_64bits(mnist->test.labels, mnist->test.count);
    mnist->hash = XXH3_64bits(parts, sizeof parts);
    return 0;
}

const char *mnist_zlib_version(void)
{
    return zlibVersion();
}

const char *mnist_crypto_version(void)
{
    return OpenSSL_version(OPENSSL_VERSION_STRING);
}
