/* Names in a folder of checkpoints: "step-NNNNNNNN" is one, "step-NNNNNNNN.tmp-G-ID" an unfinished
 * one of generation G, anything else is not ours. Private to this library. */
#ifndef CKPT_FOLDER_H
#define CKPT_FOLDER_H

#include "ckpt/ckpt.h"

#define FOLDER_NAME_BYTES 128
/* A folder of checkpoints leaves room for a checkpoint's name, and that for the name of a file. */
#define FOLDER_LENGTH_MAX (CKPT_PATH_BYTES - 128)
#define FOLDER_PATH_BYTES (CKPT_PATH_BYTES + FOLDER_NAME_BYTES + 256)

/* At least eight digits, no sign, no more zeros than needed, nothing behind. */
bool folder_step(const char *name, uint64_t *step);
bool folder_temporary(const char *name, uint64_t *step, uint64_t *generation);

/* name: FOLDER_NAME_BYTES. The temporary one is new at every call. */
void folder_step_name(uint64_t step, char *name);
void folder_temporary_name(uint64_t step, uint64_t generation, char *name);

/* Calls name_cb with the name of every entry but "." and "..". CKPT_NONE: there is no such
 * folder. */
enum ckpt_code folder_each(const char *path, void (*name_cb)(void *owner, const char *name),
                           void *owner, struct ckpt_error *error);

/* The checkpoints, newest first, only step and name filled in. *rows is malloc'ed, also after an
 * error. CKPT_NONE: there are none. */
enum ckpt_code folder_scan(const char *path, struct ckpt_row **rows, uint32_t *count,
                           struct ckpt_error *error);

/* Removes a folder of files, as far as it can. */
void folder_remove(const char *path);

#endif
