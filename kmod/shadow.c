// SPDX-License-Identifier: GPL-2.0
/*
 * Whether devices of KVM's own are in the way of what a range shows: GPAMAP_RANGE_SHADOWED. They
 * come and go without a word, so KVM's buses are looked at whenever somebody asks.
 */
#include <linux/rcupdate.h>
#include "commands.h"

/*
 * Accesses to a range that no memslot takes: all, or those before and behind the whole pages that
 * a slot covers. What is read-only is written where there is no slot, and ports have none.
 */
static u32 unslotted(const struct gpamap_vm *vm, const struct gpamap_range *range, u32 view,
		     struct gpamap_extent *out)
{
	struct gpamap_slot slot;
	u32 nr = 0;
	u64 end;

	if (view == GPAMAP_VIEW_PORTS || gpamap_range_is_readonly(range) ||
	    gpamap_range_slot(range, PAGE_SHIFT, vm->nr_gfns, &slot) <= 0) {
		out[0] = (struct gpamap_extent){ range->start, range->last };
		return 1;
	}
	end = slot.gpa + (slot.npages << PAGE_SHIFT) - 1;
	if (slot.gpa > range->start)
		out[nr++] = (struct gpamap_extent){ range->start, slot.gpa - 1 };
	if (end < range->last)
		out[nr++] = (struct gpamap_extent){ end + 1, range->last };
	return nr;
}

/* The view of the bus on which accesses to a space are asked about, or GPAMAP_NR_BUS_VIEWS. */
static u32 space_bus_view(const struct gpamap_snapshot *snapshot, u32 space)
{
	u32 view;

	for (view = 0; view < GPAMAP_NR_BUS_VIEWS; view++)
		if (snapshot->bus[view] && snapshot->bus_space[view] == space)
			break;
	return view;
}

/**
 * gpamap_shadow_begin() - Find out where devices of KVM's own are in a space
 * @map: The map
 * @space: Id of the space
 * @shadow: Receives it; nothing, if the VM does not look at the space. For
 *	gpamap_shadow_end(), also after an error
 *
 * Return: 0 or -ENOMEM.
 */
int gpamap_shadow_begin(struct gpamap *map, u32 space, struct gpamap_shadow *shadow)
{
	const struct gpamap_snapshot *snapshot;

	*shadow = (struct gpamap_shadow){ NULL };
	snapshot = rcu_dereference_protected(map->dispatch.snapshot,
					     lockdep_is_held(&map->lock));
	if (!map->vm || !snapshot)
		return 0;
	shadow->view = space_bus_view(snapshot, space);
	if (shadow->view == GPAMAP_NR_BUS_VIEWS)
		return 0;
	shadow->others = gpamap_vm_bus_others(map->vm, shadow->view);
	return shadow->others ? 0 : -ENOMEM;
}

void gpamap_shadow_end(struct gpamap_shadow *shadow)
{
	kvfree(shadow->others);
}

/* What is told of a range of the space. */
u32 gpamap_shadow_flags(const struct gpamap *map, const struct gpamap_shadow *shadow,
			const struct gpamap_range *range)
{
	u32 i, nr = 0, flags = gpamap_range_flags(range, PAGE_SHIFT);
	struct gpamap_extent extents[2];

	if (shadow->others)
		nr = unslotted(map->vm, range, shadow->view, extents);
	for (i = 0; i < nr; i++)
		if (gpamap_extents_meet(shadow->others, extents[i].start, extents[i].last))
			flags |= GPAMAP_RANGE_SHADOWED;
	return flags;
}

/*
 * The same for one range, without the lock of the map, under RCU. -EBUSY while vCPUs are held: then
 * it has to be asked with the lock.
 */
int gpamap_shadow_flags_rcu(const struct gpamap *map, const struct gpamap_snapshot *snapshot,
			    u32 space, const struct gpamap_range *range, u32 *flags)
{
	/* Pairs with attach_locked(). */
	struct gpamap_vm *vm = rcu_dereference(map->dispatch.vm);
	struct gpamap_extent extents[2];
	u32 i, nr, view;
	int rc;

	*flags = gpamap_range_flags(range, PAGE_SHIFT);
	view = vm ? space_bus_view(snapshot, space) : GPAMAP_NR_BUS_VIEWS;
	if (view == GPAMAP_NR_BUS_VIEWS)
		return 0;
	nr = unslotted(vm, range, view, extents);
	for (i = 0; i < nr; i++) {
		rc = gpamap_vm_bus_meets_others(vm, view, extents[i].start, extents[i].last);
		if (rc < 0)
			return rc;
		*flags |= rc ? GPAMAP_RANGE_SHADOWED : 0;
	}
	return 0;
}
