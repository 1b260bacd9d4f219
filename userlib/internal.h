/* SPDX-License-Identifier: LGPL-2.1-only OR MIT */
/* What the files of the library share. */
#ifndef GPAMAP_INTERNAL_H
#define GPAMAP_INTERNAL_H

#include <stddef.h>
#include "gpamap.h"

struct gpamap {
	int fd;
};

struct gpamap_batch {
	struct gpamap_op *ops;
	uint32_t nr;
	uint32_t max;
	int err;		/* the first error of a function that added to it */
};

/* One ioctl: 0 or -errno; errno is as before. */
int gpamap_ioctl(const struct gpamap *map, unsigned long cmd, void *arg);

#endif /* GPAMAP_INTERNAL_H */
