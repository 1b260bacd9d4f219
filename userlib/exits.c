// SPDX-License-Identifier: LGPL-2.1-only OR MIT
/*
 * What an exit is for: the records that the kernel writes for each vCPU, and a look-up
 * where there is none.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"

static uint64_t exits_len(uint32_t nr_vcpus)
{
	uint64_t page = sysconf(_SC_PAGESIZE);

	return ((uint64_t)nr_vcpus * sizeof(struct gpamap_exit) + page - 1) / page * page;
}

int gpamap_exits_map(struct gpamap *map, uint32_t nr_vcpus, struct gpamap_exit **exits)
{
	int saved = errno, rc = 0;
	void *p;

	if (!nr_vcpus || exits_len(nr_vcpus) >
			 (uint64_t)GPAMAP_MAX_EXIT_PAGES * sysconf(_SC_PAGESIZE))
		return -EINVAL;
	p = mmap(NULL, exits_len(nr_vcpus), PROT_READ | PROT_WRITE, MAP_SHARED, map->fd, 0);
	if (p == MAP_FAILED)
		rc = -errno;
	else
		*exits = p;
	errno = saved;
	return rc;
}

void gpamap_exits_unmap(struct gpamap_exit *exits, uint32_t nr_vcpus)
{
	munmap(exits, exits_len(nr_vcpus));
}

int gpamap_exit_resolve(struct gpamap *map, struct gpamap_exit *record, uint32_t space,
			uint64_t addr, struct gpamap_lookup *out)
{
	const struct gpamap_exit told = *record, *exit = &told;
	int rc;

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
