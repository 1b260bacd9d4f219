/* SPDX-License-Identifier: LGPL-2.1-only OR MIT */
/* What the files of the library share. */
#ifndef GPAMAP_INTERNAL_H
#define GPAMAP_INTERNAL_H

#include <pthread.h>
#include <stddef.h>
#include "gpamap.h"

struct gpamap {
	int fd;
	uint32_t timeout_ms;		/* atomic; 0 for the module's default */
	pthread_mutex_t lock;		/* of the list; held for moments only */
	struct gpamap_ring_reader *rings;	/* that are open */
};

struct gpamap_batch {
	struct gpamap_op *ops;
	uint32_t nr;
	uint32_t max;
	int err;		/* the first error of a function that added to it */
};

/* A batch that has room for the one operation @_op, without memory of its own. */
#define BATCH_OF_ONE(_op) { .ops = (_op), .max = 1 }

/* map.c: one ioctl: what it returns, or -errno; errno is as before. */
int gpamap_ioctl(const struct gpamap *map, unsigned long cmd, void *arg);

/* batch.c: keeps the first error; @err. */
int gpamap_batch_fail(struct gpamap_batch *batch, int err);
/* batch.c: appends @op with a name, which may be NULL. */
int gpamap_batch_named(struct gpamap_batch *batch, struct gpamap_op *op, const char *name);

/* map.c: applies a batch, or plans to; drains nothing. */
int gpamap_commit(struct gpamap *map, const struct gpamap_batch *batch, uint32_t flags,
		  struct gpamap_apply *out);

/* ring.c: nobody uses the map any more. */
void gpamap_rings_free(struct gpamap *map);

#endif /* GPAMAP_INTERNAL_H */
