// SPDX-License-Identifier: LGPL-2.1-only OR MIT
/*
 * What an exit is for: the records that the kernel writes for each vCPU, and a look-up
 * where there is none.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"

struct gpamap_exits {
	void *area;			/* what is mapped */
	size_t len;
	struct gpamap_layout layout;
	uint32_t nr_vcpus;
};

/* Records that follow each other are those of one block. */
static uint32_t per_block(const struct gpamap_layout *layout)
{
	return layout->block_size ? layout->block_size / layout->record_size : UINT32_MAX;
}

/* Bytes from the first record to that of a vCPU. */
static uint64_t record_at(const struct gpamap_layout *layout, uint32_t vcpu_id)
{
	uint32_t per = per_block(layout);

	return (uint64_t)(vcpu_id / per) * layout->block_size +
	       (uint64_t)(vcpu_id % per) * layout->record_size;
}

/* Of the mapping for at least one; 0 if the records do not fit into what can be mapped. */
static size_t exits_len(const struct gpamap_layout *layout, uint32_t nr_vcpus)
{
	uint64_t end = layout->first + record_at(layout, nr_vcpus - 1) + layout->record_size;
	uint64_t len = gpamap_page_align(end);

	return len > (uint64_t)GPAMAP_MAX_EXIT_PAGES * sysconf(_SC_PAGESIZE) ? 0 : len;
}

int gpamap_exits_map(struct gpamap *map, uint32_t nr_vcpus, struct gpamap_exits **out)
{
	const struct gpamap_layout *layout = gpamap_layout_of(map, GPAMAP_AREA_EXITS);
	struct gpamap_exits *exits;
	int saved = errno, rc;

	if (!layout)
		return -EOPNOTSUPP;
	if (!nr_vcpus || !exits_len(layout, nr_vcpus))
		return -EINVAL;
	exits = malloc(sizeof(*exits));
	errno = saved;
	if (!exits)
		return -ENOMEM;
	exits->len = exits_len(layout, nr_vcpus);
	exits->layout = *layout;
	exits->nr_vcpus = nr_vcpus;
	rc = gpamap_mmap(map, exits->len, 0, &exits->area);
	if (rc)
		free(exits);
	else
		*out = exits;
	return rc;
}

void gpamap_exits_unmap(struct gpamap_exits *exits)
{
	int saved = errno;

	if (!exits)
		return;
	munmap(exits->area, exits->len);
	free(exits);
	errno = saved;
}

struct gpamap_exit *gpamap_exits_at(const struct gpamap_exits *exits, uint32_t vcpu_id)
{
	if (vcpu_id >= exits->nr_vcpus)
		return NULL;
	return (void *)((char *)exits->area + exits->layout.first +
			record_at(&exits->layout, vcpu_id));
}

int gpamap_exit_resolve(struct gpamap *map, struct gpamap_exit *record, uint32_t space,
			uint64_t addr, struct gpamap_lookup *out)
{
	const struct gpamap_layout *layout = gpamap_layout_of(map, GPAMAP_AREA_EXITS);
	struct gpamap_exit told, *exit = &told;
	int rc;

	/* Whose record could it be? */
	if (!layout)
		return -EOPNOTSUPP;
	gpamap_copy_record(exit, sizeof(*exit), record, layout->record_size);
	record->region = 0;
	/* Rule 45; a callback of a ring that looks something up is in the middle of that. */
	rc = gpamap_drain(map);
	if (rc < 0 && rc != -EBUSY)
		return rc;
	if (!exit->region || exit->space != space || exit->addr != addr)
		return gpamap_lookup(map, space, addr, out);
	*out = (struct gpamap_lookup){
		.size = sizeof(*out),
		.space = space,
		.addr = addr,
		.out_offset = exit->offset,
		.out_last = exit->last,
		.out_hva = exit->hva,
		.out_generation = exit->generation,
		.out_region = exit->region,
		.out_kind = exit->kind,
		.out_flags = exit->region_flags,
	};
	return 0;
}
