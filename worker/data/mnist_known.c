/* One row is chosen by the kind of file and the number of samples, whatever its name, so that
 * swapped files are told as such. The blocks are looked at only when the whole differs. */
#include "data/mnist_known.h"

#include <stdbool.h>
#include <string.h>
#include <openssl/evp.h>

#define DIGEST_BYTES 32

/* The real files, uncompressed: SHA-256 of the whole, and the first 64 bits of that of each
 * sixteenth of the samples. tests/data/make_known.py prints this table. */
static const struct known {
    const char *name;
    uint32_t count;
    const char *sha256;
    uint64_t blocks[KNOWN_BLOCKS];
} known_files[] = {
    {"train-images-idx3-ubyte", 60000,
     "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
     {
      0xc766478cfac3eb18u, 0x71c43872e0c58058u, 0xf92802d3b64aa907u, 0x906a9671c091d759u,
      0x2268f7b483b58fceu, 0x6f9627f1bf5cca6du, 0xda4674664ff358f2u, 0x221521833e961471u,
      0x44e36ea9d0652fceu, 0x3984806eb3028551u, 0x339d06601f0116d3u, 0x5f9842cf2b2ad310u,
      0xb8073245ef613122u, 0x141b842695c397d1u, 0x4a651da5675956bcu, 0xf1a43338a71e59a5u}},
    {"train-labels-idx1-ubyte", 60000,
     "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
     {
      0x864a9e089b21f510u, 0xa551b6052bf3dd01u, 0x2ea3bd0b0079bf80u, 0x121e4235b0d93989u,
      0x0a01a032206a97f2u, 0xcb8359a233a064c3u, 0x05eddb9eb7638c3eu, 0x76f02aafa251472du,
      0x3e37871601defc6au, 0x3130372e61187902u, 0x59578ebb25d16bfdu, 0x6814844b4200aa12u,
      0x4112d8f60841df95u, 0xaf81388f75b70ce7u, 0x87f82c74d2163ac1u, 0x46671839744bdd46u}},
    {"t10k-images-idx3-ubyte", 10000,
     "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
     {
      0xf0645825c8b180abu, 0xf94e64b0d28ff554u, 0xb3b54b2d40f6c199u, 0x6c7e9b87b44bbe74u,
      0xd6185e5d0d58ac63u, 0x7afd6df791005e06u, 0x5d4c71315a771117u, 0x85bcdfdda33abfc6u,
      0xe71f859fa3d0aabdu, 0x015e1b87f6bb1435u, 0xd754af9ed83823e6u, 0x0fea4cbb1434d635u,
      0x755e9bc05fc23e1fu, 0xa3f119eeb408416cu, 0x0443c70103f10c1fu, 0x6b508b2a3c598b14u}},
    {"t10k-labels-idx1-ubyte", 10000,
     "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
     {
      0x5a13ed9e5999018fu, 0x80a6c2a73c3da1cau, 0x6413cf737145b803u, 0x61f376f1afbca859u,
      0x7f3dca21ebc1187bu, 0xc8d8c3aa0d928d90u, 0xf35dd571ffa0a382u, 0x03dd1ba52406b1c8u,
      0x26cfa6866f2cf3a8u, 0x176852b24248be56u, 0x86ecb4ed39efcba8u, 0x0467f13d1d35040fu,
      0xe031ee0ec32566e0u, 0xfd90050d411e3768u, 0xdda62e78be0cb135u, 0xa6c2fb0b37902ffau}},
};

/* SHA-256 of two parts, one after the other. */
static bool digest(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes,
                   uint8_t sum[EVP_MAX_MD_SIZE])
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool fine = context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) &&
                EVP_DigestUpdate(context, a, a_bytes) && EVP_DigestUpdate(context, b, b_bytes) &&
                EVP_DigestFinal_ex(context, sum, NULL);

    EVP_MD_CTX_free(context);
    return fine;
}

static bool same_digest(const uint8_t sum[DIGEST_BYTES], const char *text)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < DIGEST_BYTES; i++)
        if (text[2 * i] != digits[sum[i] >> 4] || text[2 * i + 1] != digits[sum[i] & 15])
            return false;
    return true;
}

/* Images are told from labels by the length of the header. */
static const struct known *find_row(size_t head_bytes, uint32_t count)
{
    const char *kind = head_bytes == 16 ? "images" : "labels";

    for (size_t i = 0; i < sizeof known_files / sizeof known_files[0]; i++)
        if (known_files[i].count == count && strstr(known_files[i].name, kind) != NULL)
            return &known_files[i];
    return NULL;
}

/* More than half of the blocks are MNIST's: this was MNIST once. */
static void compare_blocks(const struct known *row, const uint8_t *body, size_t body_bytes,
                           struct known_report *report)
{
    size_t block_bytes = body_bytes / KNOWN_BLOCKS;

    for (unsigned i = KNOWN_BLOCKS; i-- > 0;) {
        uint8_t sum[EVP_MAX_MD_SIZE] = {0};
        uint64_t value = 0;

        if (!digest(NULL, 0, body + i * block_bytes, block_bytes, sum)) {
            report->verdict = KNOWN_FAILED;
            return;
        }
        for (int k = 0; k < 8; k++)
            value = value << 8 | sum[k];
        if (value != row->blocks[i]) {
            report->bad_blocks++;
            report->first_bad = i * (row->count / KNOWN_BLOCKS);
        }
    }
    if (report->bad_blocks < KNOWN_BLOCKS / 2)
        report->verdict = KNOWN_DAMAGED;
}

struct known_report known_compare(const char *name, const uint8_t *head, size_t head_bytes,
                                  uint32_t count, const uint8_t *body, size_t body_bytes)
{
    struct known_report report = {.verdict = KNOWN_OTHER};
    const struct known *row = find_row(head_bytes, count);
    uint8_t sum[EVP_MAX_MD_SIZE] = {0};

    if (row == NULL)
        return report;
    report.whose = row->name;
    if (!digest(head, head_bytes, body, body_bytes, sum))
        report.verdict = KNOWN_FAILED;
    else if (!same_digest(sum, row->sha256))
        compare_blocks(row, body, body_bytes, &report);
    else
        report.verdict = strcmp(name, row->name) == 0 ? KNOWN_SAME : KNOWN_SWAPPED;
    return report;
}
