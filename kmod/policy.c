// SPDX-License-Identifier: GPL-2.0
/*
 * Policy: what becomes of the accesses to a region that nothing else of what is tied to it
 * answers: told to the VMM with what they are for (exits.c), or answered with nothing. What
 * is the VMM's for the order of posted writes does not come here (dispatch.c).
 */
#include "ties.h"

/* Whether it is answered. */
bool gpamap_policy_access(const struct gpamap_io *io, u32 len, bool write, void *val)
{
	switch (io->now.policy) {
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

static int policy_fits(u32 policy, const struct gpamap_region *region)
{
	switch (policy) {
	case GPAMAP_POLICY_NONE:
		return 0;
	case GPAMAP_POLICY_TELL:
		return region->kind == GPAMAP_REGION_CONTAINER ||
		       region->kind == GPAMAP_REGION_ALIAS ? -EOPNOTSUPP : 0;
	case GPAMAP_POLICY_ZEROES:
	case GPAMAP_POLICY_ONES:
		return region->kind == GPAMAP_REGION_RESERVED ||
		       region->kind == GPAMAP_REGION_IO ? 0 : -EOPNOTSUPP;
	}
	return -EOPNOTSUPP;
}

static int policy_apply(struct gpamap_tie *tie)
{
	int rc = policy_fits(tie->op->kind, tie->region);

	if (rc)
		return rc;
	tie->undo->flags = tie->io->next.policy;
	tie->io->next.policy = tie->op->kind;
	return 0;
}

static void policy_undo(struct gpamap_ties *ties, struct gpamap_io *io,
			struct gpamap_undo *undo)
{
	io->next.policy = undo->flags;
}

const struct gpamap_tie_kind gpamap_policy_kind = {
	.fields = GPAMAP_F_KIND,
	.apply = policy_apply,
	.undo = policy_undo,
};
