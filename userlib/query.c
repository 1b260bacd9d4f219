// SPDX-License-Identifier: LGPL-2.1-only OR MIT
/*
 * Queries. How many records there are is only known from the answer, and may have
 * changed by the next call: ask, make room, ask again until they fit.
 */
#include <errno.h>
#include <stdlib.h>
#include "internal.h"

static int query(struct gpamap *map, uint32_t what, uint32_t space, size_t record_size,
		 void **out, uint32_t *nr)
{
	struct gpamap_query cmd = {
		.size = sizeof(cmd),
		.what = what,
		.space = space,
		.record_size = record_size,
	};
	void *records = NULL;
	int saved = errno, rc;

	for (;;) {
		void *room = realloc(records, cmd.count ? cmd.count * record_size : 1);

		errno = saved;
		if (!room) {
			rc = -ENOMEM;
			break;
		}
		records = room;
		cmd.records = (uintptr_t)records;
		rc = gpamap_ioctl(map, GPAMAP_QUERY, &cmd);
		if (!rc) {
			*out = records;
			*nr = cmd.count;
			return 0;
		}
		if (rc != -EMSGSIZE)
			break;
	}
	free(records);
	return rc;
}

/* The one record of a kind that has but one. */
static int query_one(struct gpamap *map, uint32_t what, size_t record_size, void *out)
{
	struct gpamap_query cmd = {
		.size = sizeof(cmd),
		.what = what,
		.records = (uintptr_t)out,
		.record_size = record_size,
		.count = 1,
	};

	return gpamap_ioctl(map, GPAMAP_QUERY, &cmd);
}

int gpamap_query_info(struct gpamap *map, struct gpamap_info *out)
{
	return query_one(map, GPAMAP_QUERY_INFO, sizeof(*out), out);
}

int gpamap_query_stats(struct gpamap *map, struct gpamap_stats *out)
{
	return query_one(map, GPAMAP_QUERY_STATS, sizeof(*out), out);
}

int gpamap_query_regions(struct gpamap *map, struct gpamap_region_info **out,
			 uint32_t *nr)
{
	return query(map, GPAMAP_QUERY_REGIONS, 0, sizeof(**out), (void **)out, nr);
}

int gpamap_query_spaces(struct gpamap *map, struct gpamap_space_info **out, uint32_t *nr)
{
	return query(map, GPAMAP_QUERY_SPACES, 0, sizeof(**out), (void **)out, nr);
}

int gpamap_query_ranges(struct gpamap *map, uint32_t space,
			struct gpamap_range_info **out, uint32_t *nr)
{
	return query(map, GPAMAP_QUERY_RANGES, space, sizeof(**out), (void **)out, nr);
}

int gpamap_query_slots(struct gpamap *map, struct gpamap_slot_info **out, uint32_t *nr)
{
	return query(map, GPAMAP_QUERY_SLOTS, 0, sizeof(**out), (void **)out, nr);
}

int gpamap_query_counters(struct gpamap *map, struct gpamap_counters **out, uint32_t *nr)
{
	return query(map, GPAMAP_QUERY_COUNTERS, 0, sizeof(**out), (void **)out, nr);
}

int gpamap_query_layout(struct gpamap *map, struct gpamap_layout **out, uint32_t *nr)
{
	return query(map, GPAMAP_QUERY_LAYOUT, 0, sizeof(**out), (void **)out, nr);
}

int gpamap_lookup(struct gpamap *map, uint32_t space, uint64_t addr,
		  struct gpamap_lookup *out)
{
	*out = (struct gpamap_lookup){
		.size = sizeof(*out),
		.space = space,
		.addr = addr,
	};
	return gpamap_ioctl(map, GPAMAP_LOOKUP, out);
}
