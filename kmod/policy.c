// SPDX-License-Identifier: GPL-2.0
/*
 * Policy: what becomes of the accesses to a region that nothing else of what is tied to it
 * answers: told to the VMM with what they are for (exits.c), or answered with nothing.
 *
 * Set under the lock of the map, and read by vCPUs without one: an access finds the policy
 * of before or the one of after.
 */
#include "private.h"

/* Whether it is answered. Under KVM's SRCU. */
bool gpamap_policy_access(const struct gpamap_io *io, u32 len, bool write, void *val)
{
	switch (READ_ONCE(io->policy)) {
	case GPAMAP_POLICY_ZEROES:
		if (!write)
			memset(val, 0, len);
		return true;
	case GPAMAP_POLICY_ONES:
		if (!write)
			memset(val, 0xff, len);
		return true;
	}
	return false;
}

static int policy_check(const struct gpamap_policy *cmd, const struct gpamap_region *region)
{
	switch (cmd->policy) {
	case GPAMAP_POLICY_NONE:
		return 0;
	case GPAMAP_POLICY_TELL:
		return region->kind == GPAMAP_REGION_CONTAINER ||
		       region->kind == GPAMAP_REGION_ALIAS ? -EOPNOTSUPP : 0;
	case GPAMAP_POLICY_ZEROES:
	case GPAMAP_POLICY_ONES:
		return region->kind == GPAMAP_REGION_RESERVED ? 0 : -EOPNOTSUPP;
	}
	return -EOPNOTSUPP;
}

int gpamap_policy(struct gpamap *map, void *arg)
{
	struct gpamap_policy *cmd = arg;
	struct gpamap_region *region;
	struct gpamap_io *io;
	int rc;

	if (cmd->flags)
		return -EOPNOTSUPP;
	rc = gpamap_map_find_region(map, cmd->region, &region);
	if (rc)
		return rc;
	rc = policy_check(cmd, region);
	if (rc)
		return rc;
	if (cmd->policy != GPAMAP_POLICY_NONE) {
		rc = gpamap_io_tie(map, region);
		if (rc)
			return rc;
	}
	io = gpamap_region_io(map, region);
	if (!io)
		return 0;
	WRITE_ONCE(io->policy, cmd->policy);
	gpamap_io_untie(map, region);
	return 0;
}
