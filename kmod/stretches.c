// SPDX-License-Identifier: GPL-2.0
/*
 * Where KVM is to ask: the stretches of addresses, of memory and of ports, where a view
 * shows something that is answered here (dispatch.c), and what that means for KVM's buses
 * (kvm_bus.c).
 *
 * The buses change together with all else that vCPUs see, while all of them are held.
 *
 * All functions run under the lock of the map.
 */
#include "stretches.h"
#include "ties.h"

/*
 * Adds the pages of memory that no slot covers, because they are only in part memory, or all of
 * it if no slot can show it.
 */
static void list_add_partial(struct gpamap_extents *list, const struct gpamap_range *range)
{
	u64 head = round_up(range->start, PAGE_SIZE) - 1;	/* its last byte */
	u64 tail = round_down(range->last + 1, PAGE_SIZE);	/* its first */

	if (!gpamap_range_is_congruent(range, PAGE_SHIFT)) {
		gpamap_extents_add(list, range->start, range->last);
		return;
	}
	if (range->start & ~PAGE_MASK)
		gpamap_extents_add(list, range->start, min(head, range->last));
	if ((range->last + 1) & ~PAGE_MASK && tail >= range->start)
		gpamap_extents_add(list, tail, range->last);
}

static bool is_partial(const struct gpamap_range *range)
{
	return gpamap_range_is_memory(range) &&
	       ((range->start | (range->last + 1)) & ~PAGE_MASK ||
		!gpamap_range_is_congruent(range, PAGE_SHIFT));
}

/* Whether KVM is to ask for an access to what a range shows, or to some of it. */
static bool is_asked(const struct gpamap_range *range)
{
	return gpamap_io_is_tied(range->region) || is_partial(range);
}

/* Adds what KVM is to ask of a range. Among ports there is no memory. */
static void list_add_range(struct gpamap_extents *list, const struct gpamap_range *range,
			   enum gpamap_bus bus)
{
	if (gpamap_io_is_tied(range->region))
		gpamap_extents_add(list, range->start, range->last);
	else if (bus != GPAMAP_BUS_PORTS && is_partial(range))
		list_add_partial(list, range);
}

/* Whether an access can be answered of which only the place is known. */
static bool is_fast(const struct gpamap_range *range)
{
	return range->region->ties && range->region->ties->nr_fast;
}

/* Adds the stretches of a view of which KVM is to ask. For the fast bus: and only those. */
static void list_add_view(struct gpamap_extents *list, const struct gpamap_flatview *view,
			  enum gpamap_bus bus)
{
	const struct gpamap_range *range;
	struct gpamap_cursor cursor;

	for (range = gpamap_flatview_first(&cursor, view); range;
	     range = gpamap_flatview_next(&cursor)) {
		cond_resched();
		if (bus != GPAMAP_BUS_FAST || is_fast(range))
			list_add_range(list, range, bus);
	}
}

/* How many there can be: of a piece of memory two ends. */
static u32 count_asked(const struct gpamap_flatview *view)
{
	const struct gpamap_range *range;
	struct gpamap_cursor cursor;
	u32 nr = 0;

	for (range = gpamap_flatview_first(&cursor, view); range;
	     range = gpamap_flatview_next(&cursor)) {
		cond_resched();
		nr += 2 * is_asked(range);
	}
	return nr;
}

/* All that is in either, in @list, which has room. */
static void list_join(struct gpamap_extents *list, const struct gpamap_extents *a,
		      const struct gpamap_extents *b)
{
	u32 nr_a = a ? a->nr : 0, nr_b = b ? b->nr : 0;
	u32 i = 0, j = 0;

	while (i < nr_a || j < nr_b) {
		const struct gpamap_extent *next;

		if (j == nr_b || (i < nr_a && a->extents[i].start < b->extents[j].start))
			next = &a->extents[i++];
		else
			next = &b->extents[j++];
		gpamap_extents_add(list, next->start, next->last);
	}
}

/* What one view wants of a bus; NULL when there is no view. */
static struct gpamap_extents *view_list(const struct gpamap_flatview *view, enum gpamap_bus bus)
{
	struct gpamap_extents *list;

	if (!view)
		return NULL;
	list = gpamap_extents_alloc(count_asked(view));
	if (!list)
		return ERR_PTR(-ENOMEM);
	list_add_view(list, view, bus);
	return list;
}

/* What the views want of a bus. */
static struct gpamap_extents *bus_list(const struct gpamap_flatview *const *views,
				       enum gpamap_bus bus)
{
	struct gpamap_extents *a, *b, *list;

	if (bus == GPAMAP_BUS_PORTS) {
		list = view_list(views[GPAMAP_VIEW_PORTS], bus);
		return list ?: gpamap_extents_alloc(0) ?: ERR_PTR(-ENOMEM);
	}
	a = view_list(views[GPAMAP_VIEW_MEMORY], bus);
	if (IS_ERR(a))
		return a;
	b = view_list(views[GPAMAP_VIEW_SMM], bus);
	if (IS_ERR(b)) {
		kvfree(a);
		return b;
	}
	list = gpamap_extents_alloc((a ? a->nr : 0) + (b ? b->nr : 0));
	if (list)
		list_join(list, a, b);
	kvfree(a);
	kvfree(b);
	return list ?: ERR_PTR(-ENOMEM);
}

/*
 * Whether something is answered for a range that a view loses or gets, before the open
 * transaction or after.
 */
static bool is_answered(const struct gpamap_range *range)
{
	return rcu_access_pointer(range->region->io) || is_asked(range);
}

/* Whether a view changes where something is answered for what it shows. */
bool gpamap_changes_answers(const struct gpamap_changes *changes)
{
	u32 i;

	for (i = 0; i < changes->nr_gone; i++) {
		cond_resched();
		if (is_answered(&changes->gone[i]))
			return true;
	}
	for (i = 0; i < changes->nr_come; i++) {
		cond_resched();
		if (is_answered(&changes->come[i]))
			return true;
	}
	return false;
}

/* What a bus is to have, if it is something else than it has. */
static int plan_bus(struct gpamap_vm *vm, const struct gpamap_flatview *const *views, u32 bus,
		    struct gpamap_bus_change *change)
{
	struct gpamap_extents *list = bus_list(views, bus);
	int rc = 0;

	if (IS_ERR(list))
		return PTR_ERR(list);
	if (list->nr || gpamap_vm_bus_is_used(vm, bus))
		rc = gpamap_vm_bus_plan(vm, change, bus, list);
	if (rc || !(change->buses & BIT(bus)))
		kvfree(list);
	return rc;
}

/**
 * gpamap_bus_plan() - Find out how the buses have to change
 * @vm: The VM
 * @views: What will be published, by enum gpamap_bus_view; entries may be NULL
 * @change: Receives the change, all zero before; to be freed with gpamap_vm_bus_free(), also
 *	after an error
 *
 * Return: 0; -ENOSPC when KVM is to ask about more than GPAMAP_MAX_BUS_LEN; -ENOMEM.
 */
int gpamap_bus_plan(struct gpamap_vm *vm, const struct gpamap_flatview *const *views,
		    struct gpamap_bus_change *change)
{
	u32 bus;
	int rc = 0;

	for (bus = 0; !rc && bus < GPAMAP_NR_BUSES; bus++)
		rc = plan_bus(vm, views, bus, change);
	return rc;
}

/* The same for a change that leaves nothing of ours on the buses. */
int gpamap_bus_plan_none(struct gpamap_vm *vm, struct gpamap_bus_change *change)
{
	u32 bus;
	int rc = 0;

	for (bus = 0; !rc && bus < GPAMAP_NR_BUSES; bus++)
		if (gpamap_vm_bus_is_used(vm, bus))
			rc = gpamap_vm_bus_plan(vm, change, bus, NULL);
	return rc;
}
