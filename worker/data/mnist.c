#include "data/mnist.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <openssl/evp.h>
#include <xxhash.h>
#include <zlib.h>

#define IMAGES_MAGIC 2051u
#define LABELS_MAGIC 2049u
#define COUNT_MAX    (1u << 26)

/* The real files, uncompressed. */
static const struct known {
    const char *name;
    uint32_t count;
    const char *sha256;
} known_files[] = {
    {"train-images-idx3-ubyte", 60000, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"},
    {"train-labels-idx1-ubyte", 60000, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"},
    {"t10k-images-idx3-ubyte", 10000, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"},
    {"t10k-labels-idx1-ubyte", 10000, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"},
};

/* A file that is being read, with the words for its errors. */
struct source {
    gzFile file;
    char path[1024];
    const char *name; /* base name without .gz */
    char *error;
    size_t error_bytes;
};

static int complain(struct source *s, const char *what)
{
    (void)snprintf(s->error, s->error_bytes, "%s: %s", s->path, what);
    return -1;
}

static int source_open(struct source *s, const char *folder, const char *name)
{
    static const char *const endings[] = {".gz", ""};

    s->name = name;
    for (int i = 0; i < 2; i++) {
        (void)snprintf(s->path, sizeof s->path, "%s/%s%s", folder, name, endings[i]);
        s->file = gzopen(s->path, "rb");
        if (s->file != NULL)
            return 0;
    }
    (void)snprintf(s->path, sizeof s->path, "%s/%s.gz", folder, name);
    return complain(s, errno != 0 ? strerror(errno) : "out of memory");
}

static int source_read(struct source *s, void *bytes, size_t count)
{
    uint8_t *at = bytes;

    while (count > 0) {
        unsigned part = count > 1u << 20 ? 1u << 20 : (unsigned)count;
        int got = gzread(s->file, at, part), number;
        const char *why;

        if (got < 0) {
            why = gzerror(s->file, &number);
            return complain(s, number == Z_ERRNO ? strerror(errno) : why);
        }
        if (got == 0)
            return complain(s, "the file is truncated");
        at += got;
        count -= (size_t)got;
    }
    return 0;
}

/* Nothing may follow; reading to the end also makes zlib compare its CRC. */
static int source_end(struct source *s)
{
    uint8_t one;
    int got = gzread(s->file, &one, 1), number;

    if (got > 0)
        return complain(s, "there are more bytes than its header says");
    if (got < 0)
        return complain(s, gzerror(s->file, &number));
    return 0;
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
    uint8_t head[16];
    size_t length = magic == IMAGES_MAGIC ? 16 : 8;
    char text[200];

    if (source_read(s, head, length) != 0)
        return -1;
    if (big_endian(head) != magic) {
        (void)snprintf(text, sizeof text, "wrong magic %u, expected %u (%s)", big_endian(head), magic,
                       magic == IMAGES_MAGIC ? "idx3 images" : "idx1 labels");
        return complain(s, text);
    }
    *count = big_endian(head + 4);
    if (*count == 0 || *count > COUNT_MAX) {
        (void)snprintf(text, sizeof text, "%u samples; expected 1 to %u", *count, COUNT_MAX);
        return complain(s, text);
    }
    if (magic == IMAGES_MAGIC && (big_endian(head + 8) != 28 || big_endian(head + 12) != 28)) {
        (void)snprintf(text, sizeof text, "images of %ux%u pixels; expected 28x28",
                       big_endian(head + 8), big_endian(head + 12));
        return complain(s, text);
    }
    return 0;
}

/* Is a file that claims to be the real one the real one? Told, not refused. */
static void compare_known(const struct source *s, uint32_t magic, uint32_t count,
                          const uint8_t *bytes, size_t length, char *note)
{
    uint8_t head[16] = {0, 0, 8, magic == IMAGES_MAGIC ? 3 : 1, (uint8_t)(count >> 24),
                        (uint8_t)(count >> 16), (uint8_t)(count >> 8), (uint8_t)count,
                        0, 0, 0, 28, 0, 0, 0, 28};
    uint8_t sum[EVP_MAX_MD_SIZE];
    char text[65] = "";
    EVP_MD_CTX *context = EVP_MD_CTX_new();

    for (size_t i = 0; i < 4 && context != NULL; i++) {
        if (strcmp(known_files[i].name, s->name) != 0 || known_files[i].count != count)
            continue;
        if (EVP_DigestInit_ex(context, EVP_sha256(), NULL) &&
            EVP_DigestUpdate(context, head, magic == IMAGES_MAGIC ? 16 : 8) &&
            EVP_DigestUpdate(context, bytes, length) && EVP_DigestFinal_ex(context, sum, NULL))
            for (int k = 0; k < 32; k++)
                (void)snprintf(text + 2 * k, 3, "%02x", sum[k]);
        if (strcmp(text, known_files[i].sha256) != 0)
            (void)snprintf(note, MNIST_TEXT_BYTES, "%s has as many samples as MNIST, but is not "
                                                   "MNIST's file (SHA-256 %s)", s->path, text);
    }
    EVP_MD_CTX_free(context);
}

static int read_images(struct source *s, struct mnist_set *set, char *note)
{
    uint32_t count;
    size_t bytes;

    if (read_header(s, IMAGES_MAGIC, &count) != 0)
        return -1;
    bytes = (size_t)count * MNIST_PIXELS;
    set->images = malloc(bytes);
    set->count = count;
    if (set->images == NULL)
        return complain(s, "out of memory");
    if (source_read(s, set->images, bytes) != 0 || source_end(s) != 0)
        return -1;
    compare_known(s, IMAGES_MAGIC, count, set->images, bytes, note);
    return 0;
}

static int read_labels(struct source *s, struct mnist_set *set, char *note)
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
    compare_known(s, LABELS_MAGIC, count, set->labels, count, note);
    return 0;
}

static int read_set(const char *folder, const char *images, const char *labels,
                    struct mnist_set *set, char *note, char *error, size_t error_bytes)
{
    struct source s = {.error = error, .error_bytes = error_bytes};
    int status = source_open(&s, folder, images);

    if (status == 0)
        status = read_images(&s, set, note);
    source_close(&s);
    if (status == 0)
        status = source_open(&s, folder, labels);
    if (status == 0)
        status = read_labels(&s, set, note);
    source_close(&s);
    return status;
}

static bool has_data(const char *folder)
{
    char path[1024];

    (void)snprintf(path, sizeof path, "%s/train-images-idx3-ubyte.gz", folder);
    return access(path, R_OK) == 0;
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
    (void)snprintf(note, MNIST_TEXT_BYTES, "no MNIST was found (--data, $MUSTER_DATA, "
                                           "../shared/data/mnist): training on the bundled real "
                                           "subset of it");
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
