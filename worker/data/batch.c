#include "data/batch.h"

#include "data/sampler.h"

#include <assert.h>
#include <string.h>

void batch_gather(const struct mnist_set *set, uint64_t seed, const struct batch_key *key,
                  uint8_t *images, uint8_t *labels)
{
    assert(key->real <= set->count);
    assert(key->first <= set->count - key->real);
    for (uint32_t j = 0; j < key->real; j++) {
        uint64_t at = sampler_index(seed, key->epoch, set->count, key->first + j);

        memcpy(images + (size_t)j * MNIST_PIXELS, set->images + at * MNIST_PIXELS, MNIST_PIXELS);
        labels[j] = set->labels[at];
    }
}
