/* A device that is far away, for tests of those who use one: its memory cannot be touched by the
 * host, and its streams do nothing until somebody has to wait for them. What they do is the
 * reference's. So who reads a buffer without a download, uses one again too early, or forgets an
 * event or a sync, crashes or gets other bits. */
#ifndef UNIT_DEVICE_FAR_H
#define UNIT_DEVICE_FAR_H

#include "device/device.h"

const struct device_ops *far_ops(void);

#endif
