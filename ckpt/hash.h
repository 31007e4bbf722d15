/* Checksums of a file while it is written or read: XXH3-128 of the whole and XXH3-64 of each chunk,
 * so that a damage is found and its place told. Private to this library. */
#ifndef CKPT_HASH_H
#define CKPT_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CKPT_CHUNK_BYTES (4u << 20)

struct XXH3_state_s;

struct ckpt_hash {
    struct XXH3_state_s *whole; /* owned */
    struct XXH3_state_s *chunk; /* owned; of the chunk that is open */
    uint64_t chunk_bytes;       /* of a full chunk */
    uint64_t in_chunk;          /* bytes in the open one */
    uint64_t bytes;             /* in all */
    uint64_t *chunks;           /* owned; finished ones */
    uint32_t count, room;       /* of chunks */
    bool failed;                /* out of memory */
};

/* false: out of memory; release it all the same. */
bool ckpt_hash_init(struct ckpt_hash *hash, uint64_t chunk_bytes);
void ckpt_hash_update(struct ckpt_hash *hash, const void *data, size_t bytes);

/* Ends the last chunk; text: hexadecimal digits of the whole. false: out of memory on the way. */
bool ckpt_hash_end(struct ckpt_hash *hash, char text[33]);
void ckpt_hash_release(struct ckpt_hash *hash); /* accepts an empty one */

/* XXH3-128 of bytes that are there at once. */
void ckpt_hash_text(const void *data, size_t bytes, char text[33]);

#endif
