/* Looking at one checkpoint's folder. Private to this library; ckpt_verify() is the public one. */
#ifndef CKPT_VERIFY_H
#define CKPT_VERIFY_H

#include "ckpt/manifest.h"

/* Reads and checks path/manifest.json, and that it is of the step in the folder's name. Release the
 * manifest, also after an error. */
enum ckpt_code verify_manifest(const char *path, struct manifest *manifest,
                               struct ckpt_error *error);

/* Looks whole: the manifest, and every file there in its size. Reads no tensor. */
bool verify_glance(const char *path);

#endif
