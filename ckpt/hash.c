#include "ckpt/hash.h"

#include "ckpt/ckpt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static void write_text(XXH128_hash_t value, char text[33])
{
    (void)snprintf(text, 33, "%016llx%016llx", (unsigned long long)value.high64,
                   (unsigned long long)value.low64);
}

bool ckpt_hash_init(struct ckpt_hash *hash, uint64_t chunk_bytes)
{
    memset(hash, 0, sizeof *hash);
    hash->chunk_bytes = chunk_bytes;
    hash->whole = XXH3_createState();
    hash->chunk = XXH3_createState();
    if (hash->whole == NULL || hash->chunk == NULL)
        return false;
    (void)XXH3_128bits_reset(hash->whole);
    (void)XXH3_64bits_reset(hash->chunk);
    return true;
}

static void end_chunk(struct ckpt_hash *hash)
{
    if (hash->count == hash->room) {
        uint32_t room = hash->room * 2 + 16;
        uint64_t *more = realloc(hash->chunks, room * sizeof *more);

        hash->failed |= more == NULL;
        if (more == NULL)
            return;
        hash->chunks = more;
        hash->room = room;
    }
    hash->chunks[hash->count++] = XXH3_64bits_digest(hash->chunk);
    (void)XXH3_64bits_reset(hash->chunk);
    hash->in_chunk = 0;
}

void ckpt_hash_update(struct ckpt_hash *hash, const void *data, size_t bytes)
{
    const char *at = data;

    hash->bytes += bytes;
    (void)XXH3_128bits_update(hash->whole, data, bytes);
    while (bytes > 0 && !hash->failed) {
        uint64_t room = hash->chunk_bytes - hash->in_chunk;
        size_t part = bytes < room ? bytes : (size_t)room;

        (void)XXH3_64bits_update(hash->chunk, at, part);
        hash->in_chunk += part;
        at += part;
        bytes -= part;
        if (hash->in_chunk == hash->chunk_bytes)
            end_chunk(hash);
    }
}

bool ckpt_hash_end(struct ckpt_hash *hash, char text[33])
{
    if (hash->in_chunk > 0)
        end_chunk(hash);
    write_text(XXH3_128bits_digest(hash->whole), text);
    return !hash->failed;
}

void ckpt_hash_release(struct ckpt_hash *hash)
{
    XXH3_freeState(hash->whole);
    XXH3_freeState(hash->chunk);
    free(hash->chunks);
    memset(hash, 0, sizeof *hash);
}

void ckpt_hash_text(const void *data, size_t bytes, char text[33])
{
    write_text(XXH3_128bits(data, bytes), text);
}

#define TEXT_OF(number)  #number
#define VERSION(a, b, c) TEXT_OF(a) "." TEXT_OF(b) "." TEXT_OF(c)

const char *ckpt_hash_version(void)
{
    return VERSION(XXH_VERSION_MAJOR, XXH_VERSION_MINOR, XXH_VERSION_RELEASE);
}
