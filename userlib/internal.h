/* SPDX-License-Identifier: LGPL-2.1-only OR MIT */
/* What the files of the library share. */
#ifndef GPAMAP_INTERNAL_H
#define GPAMAP_INTERNAL_H

#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include "gpamap.h"

/* Those that this library knows of; by number, 0 is none. */
#define GPAMAP_NR_AREAS (GPAMAP_AREA_RING + 1)

struct gpamap {
	int fd;
	struct gpamap_layout layouts[GPAMAP_NR_AREAS];	/* version 0: there is no such area */
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

/* layout.c: at the opening of a map. */
int gpamap_layout_read(struct gpamap *map);
/* layout.c: NULL if the kernel has laid it out in a way that is not known here. */
const struct gpamap_layout *gpamap_layout_of(const struct gpamap *map, uint32_t area);
uint64_t gpamap_page_align(uint64_t len);
/* layout.c: @len bytes of what the map shares, from page @pgoff on. 0 or -errno. */
int gpamap_mmap(const struct gpamap *map, uint64_t len, uint64_t pgoff, void **out);

/* ring.c: nobody uses the map any more. */
void gpamap_rings_free(struct gpamap *map);

/* What is known here of a record that is shared; what the kernel lacks is 0. */
static inline void gpamap_copy_record(void *to, size_t size, const void *from,
				      size_t record_size)
{
	if (record_size >= size) {
		memcpy(to, from, size);
		return;
	}
	memcpy(to, from, record_size);
	memset((char *)to + record_size, 0, size - record_size);
}

#endif /* GPAMAP_INTERNAL_H */
