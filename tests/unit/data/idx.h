/* Small idx data of our own making, in a temporary folder. */
#ifndef TESTS_UNIT_DATA_IDX_H
#define TESTS_UNIT_DATA_IDX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IDX_TRAIN_IMAGES "train-images-idx3-ubyte"
#define IDX_TRAIN_LABELS "train-labels-idx1-ubyte"
#define IDX_TEST_IMAGES  "t10k-images-idx3-ubyte"
#define IDX_TEST_LABELS  "t10k-labels-idx1-ubyte"

/* A file as it will be written: its content before compression. */
struct idx_file {
    uint8_t *bytes; /* owned */
    size_t count;   /* of bytes */
};

/* Pixels and labels are a fixed function of their place. */
struct idx_file idx_images(uint32_t count);
struct idx_file idx_labels(uint32_t count);
void idx_release(struct idx_file *file);

/* folder/name.gz, or folder/name when plain. */
void idx_write(const char *folder, const char *name, const struct idx_file *file, bool plain);

/* folder (in a buffer of 64) is made and filled with train and test samples. */
void idx_folder(char folder[64], uint32_t train, uint32_t test);
void idx_remove(const char *folder);

/* The bytes of a file as they are on disk, and back. */
struct idx_file idx_slurp(const char *folder, const char *name);
void idx_spit(const char *folder, const char *name, const struct idx_file *file);

#endif
