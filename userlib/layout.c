// SPDX-License-Identifier: LGPL-2.1-only OR MIT
/*
 * How memory is laid out that the kernel shares: asked once, when a map is opened. What the
 * kernel has grown by is passed over, and what it does not have yet is 0.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"

/* Records have a length, and fit into a block. */
static bool is_sound(const struct gpamap_layout *layout)
{
	return layout->record_size &&
	       (!layout->block_size || layout->block_size >= layout->record_size);
}

int gpamap_layout_read(struct gpamap *map)
{
	struct gpamap_layout *layouts;
	uint32_t i, nr;
	int rc;

	rc = gpamap_query_layout(map, &layouts, &nr);
	if (rc)
		return rc;
	/* There may be areas of which nothing is known here. */
	for (i = 0; i < nr; i++)
		if (layouts[i].area < GPAMAP_NR_AREAS && is_sound(&layouts[i]))
			map->layouts[layouts[i].area] = layouts[i];
	free(layouts);
	return 0;
}

const struct gpamap_layout *gpamap_layout_of(const struct gpamap *map, uint32_t area)
{
	const struct gpamap_layout *layout = &map->layouts[area];

	return layout->version == GPAMAP_LAYOUT_VERSION ? layout : NULL;
}

uint64_t gpamap_page_align(uint64_t len)
{
	uint64_t page = sysconf(_SC_PAGESIZE);

	return (len + page - 1) / page * page;
}

int gpamap_mmap(const struct gpamap *map, uint64_t len, uint64_t pgoff, void **out)
{
	uint64_t offset = pgoff * sysconf(_SC_PAGESIZE);
	int saved = errno, rc = 0;
	void *p;

	/* In a program whose offsets have 32 bits it would be another's. */
	if ((uint64_t)(off_t)offset != offset || (off_t)offset < 0)
		return -EOVERFLOW;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, map->fd, (off_t)offset);
	if (p == MAP_FAILED)
		rc = -errno;
	else
		*out = p;
	errno = saved;
	return rc;
}
