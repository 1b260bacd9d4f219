/* SPDX-License-Identifier: LGPL-2.1-only OR MIT */
/* What the files of the library share. */
#ifndef GPAMAP_INTERNAL_H
#define GPAMAP_INTERNAL_H

#include <pthread.h>
#include <stddef.h>
#include "gpamap.h"

struct gpamap {
	int fd;
	pthread_mutex_t lock;		/* of the list; held for moments only */
	struct gpamap_ring_reader *rings;	/* that are open */
};

struct gpamap_batch {
	struct gpamap_op *ops;
	uint32_t nr;
	uint32_t max;
	int err;		/* the first error of a function that added to it */
};

/* One ioctl: 0 or -errno; errno is as before. */
int gpamap_ioctl(const struct gpamap *map, unsigned long cmd, void *arg);

/* ring.c: nobody uses the map any more. */
void gpamap_rings_free(struct gpamap *map);

#endif /* GPAMAP_INTERNAL_H */
