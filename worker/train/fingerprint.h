/* What else than the spec decides the bits: "key=value\n" lines, sorted. Members of a job must
 * agree in all of them, and so must a checkpoint and who resumes from it.
 *
 *     compiler, device, isa, libc, onednn    the device's own lines (device.h)
 *     program-flags                          compiler flags that can change arithmetic
 *     program-sources                        an id of the files whose arithmetic decides the bits,
 *                                            comments and white space aside: a mended bug elsewhere
 *                                            does not forbid a rolling upgrade */
#ifndef TRAIN_FINGERPRINT_H
#define TRAIN_FINGERPRINT_H

#include "base/error.h"
#include "ckpt/ckpt.h"
#include "device/device.h"

void fingerprint_write(const struct device_ops *ops, const struct device *device,
                       char text[CKPT_FINGERPRINT_BYTES]);
const char *fingerprint_sources(void); /* the id alone */

/* May a run of this spec and fingerprint go on from this checkpoint? Else the bits would be others
 * from there on, without a word: EXIT_REFUSED, with both values and what to set. note: what a
 * person should know all the same, "" = nothing. */
int fingerprint_check(const struct ckpt_found *found, const char *spec, const char *fingerprint,
                      char *note, size_t note_bytes, struct error *error);

#endif
