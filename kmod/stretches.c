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

static int list_add_extent(struct gpamap_bus_list *list, u64 start, u64 last)
{
	struct gpamap_extent *end = &list->extents[list->nr];

	if (list->nr && (end[-1].last >= start || end[-1].last + 1 == start)) {
		end[-1].last = max(end[-1].last, last);
		return 0;
	}
	if (list->nr == list->max)
		return -ENOSPC;
	*end = (struct gpamap_extent){ start, last };
	list->nr++;
	return 0;
}

/*
 * Adds the pages of memory that no slot covers, because they are only in part memory, or all of
 * it if no slot can show it.
 */
static int list_add_partial(struct gpamap_bus_list *list, const struct gpamap_range *range)
{
	u64 head = round_up(range->start, PAGE_SIZE) - 1;	/* its last byte */
	u64 tail = round_down(range->last + 1, PAGE_SIZE);	/* its first */
	int rc = 0;

	if (!gpamap_range_is_congruent(range, PAGE_SHIFT))
		return list_add_extent(list, range->start, range->last);
	if (range->start & ~PAGE_MASK)
		rc = list_add_extent(list, range->start, min(head, range->last));
	if (!rc && (range->last + 1) & ~PAGE_MASK && tail >= range->start)
		rc = list_add_extent(list, tail, range->last);
	return rc;
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
static int list_add_range(struct gpamap_bus_list *list, const struct gpamap_range *range,
			  enum gpamap_bus bus)
{
	if (gpamap_io_is_tied(range->region))
		return list_add_extent(list, range->start, range->last);
	if (bus != GPAMAP_BUS_PORTS && is_partial(range))
		return list_add_partial(list, range);
	return 0;
}

/* Whether a write can be done of which only the place is known. */
static bool is_fast(const struct gpamap_range *range)
{
	return range->region->ties && range->region->ties->nr_any;
}

/*
 * Adds the stretches of a view of which KVM is to ask. Those of the fast bus are the same
 * as those of the memory bus, but for those that have nothing fast in them.
 */
static int list_add_view(struct gpamap_bus_list *list, const struct gpamap_flatview *view,
			 enum gpamap_bus bus)
{
	const struct gpamap_range *range;
	bool wanted = bus != GPAMAP_BUS_FAST;	/* the last stretch */
	struct gpamap_cursor cursor;
	int rc;

	for (range = gpamap_flatview_first(&cursor, view); range;
	     range = gpamap_flatview_next(&cursor)) {
		u32 nr = list->nr;

		cond_resched();
		rc = list_add_range(list, range, bus);
		if (rc)
			return rc;
		if (bus != GPAMAP_BUS_FAST)
			continue;
		if (list->nr > nr) {
			if (nr && !wanted) {
				list->extents[nr - 1] = list->extents[list->nr - 1];
				list->nr = nr;
			}
			wanted = false;
		}
		wanted |= is_fast(range);
	}
	if (list->nr && !wanted)
		list->nr--;
	return 0;
}

static struct gpamap_bus_list *list_alloc(u32 max)
{
	struct gpamap_bus_list *list;

	list = kvzalloc(struct_size(list, extents, max), GPAMAP_GFP);
	if (list)
		list->max = max;
	return list;
}

/* All that is in either, in @list, which has room. */
static void list_join(struct gpamap_bus_list *list, const struct gpamap_bus_list *a,
		      const struct gpamap_bus_list *b)
{
	u32 nr_a = a ? a->nr : 0, nr_b = b ? b->nr : 0;
	u32 i = 0, j = 0;

	while (i < nr_a || j < nr_b) {
		const struct gpamap_extent *next;

		if (j == nr_b || (i < nr_a && a->extents[i].start < b->extents[j].start))
			next = &a->extents[i++];
		else
			next = &b->extents[j++];
		WARN_ON_ONCE(list_add_extent(list, next->start, next->last));
	}
}

static bool list_equal(const struct gpamap_bus_list *a, const struct gpamap_bus_list *b)
{
	u32 nr_a = a ? a->nr : 0, nr_b = b ? b->nr : 0;

	return nr_a == nr_b &&
	       (!nr_a || !memcmp(a->extents, b->extents, nr_a * sizeof(*a->extents)));
}

/* What one view wants of a bus; NULL when there is no view. */
static struct gpamap_bus_list *view_list(const struct gpamap_flatview *view,
					 enum gpamap_bus bus)
{
	struct gpamap_bus_list *list;
	int rc;

	if (!view)
		return NULL;
	list = list_alloc(GPAMAP_MAX_BUS_RANGES);
	if (!list)
		return ERR_PTR(-ENOMEM);
	rc = list_add_view(list, view, bus);
	if (rc) {
		kvfree(list);
		return ERR_PTR(rc);
	}
	return list;
}

/* What the views want of a bus. */
static struct gpamap_bus_list *bus_list(const struct gpamap_flatview *const *views,
					enum gpamap_bus bus)
{
	struct gpamap_bus_list *a, *b, *list;

	if (bus == GPAMAP_BUS_PORTS) {
		list = view_list(views[GPAMAP_VIEW_PORTS], bus);
		return list ?: list_alloc(0) ?: ERR_PTR(-ENOMEM);
	}
	a = view_list(views[GPAMAP_VIEW_MEMORY], bus);
	if (IS_ERR(a))
		return a;
	b = view_list(views[GPAMAP_VIEW_SMM], bus);
	if (IS_ERR(b)) {
		kvfree(a);
		return b;
	}
	list = list_alloc((a ? a->nr : 0) + (b ? b->nr : 0));
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

/* What a bus is to have, if it is something else than it has, and can be. */
static int plan_bus(struct gpamap_vm *vm, const struct gpamap_flatview *const *views, u32 bus,
		    unsigned long deadline, struct gpamap_bus_change *change)
{
	struct gpamap_bus_list *list = bus_list(views, bus);
	int rc = 0;

	if (IS_ERR(list))
		return PTR_ERR(list);
	if (!list_equal(list, gpamap_vm_bus_placed(vm, bus)))
		rc = gpamap_vm_bus_plan(vm, change, bus, list, deadline);
	if (rc || !(change->buses & BIT(bus)))
		kvfree(list);
	return rc;
}

/**
 * gpamap_bus_plan() - Find out how the buses have to change, and whether they can
 * @vm: The VM
 * @views: What will be published, by enum gpamap_bus_view; entries may be NULL
 * @deadline: For KVM's locks
 * @change: Receives the change, all zero before; to be freed with gpamap_vm_bus_free(), also
 *	after an error
 *
 * Return: 0; -EEXIST when a device of KVM's is in the way; -ENOSPC when there are more than
 * GPAMAP_MAX_BUS_RANGES or the bus is full; -ENOMEM; -EBUSY, -EINTR.
 */
int gpamap_bus_plan(struct gpamap_vm *vm, const struct gpamap_flatview *const *views,
		    unsigned long deadline, struct gpamap_bus_change *change)
{
	u32 bus;
	int rc = 0;

	for (bus = 0; !rc && bus < GPAMAP_NR_BUSES; bus++) {
		rc = plan_bus(vm, views, bus, deadline, change);
		/* It is for speed, and no reason to refuse anything: it stays as it is. */
		if (bus == GPAMAP_BUS_FAST && (rc == -ENOSPC || rc == -EEXIST))
			rc = 0;
	}
	return rc;
}

/* The same for a change that leaves nothing of ours on the buses. */
int gpamap_bus_plan_none(struct gpamap_vm *vm, unsigned long deadline,
			 struct gpamap_bus_change *change)
{
	u32 bus;
	int rc = 0;

	for (bus = 0; !rc && bus < GPAMAP_NR_BUSES; bus++)
		if (gpamap_vm_bus_placed(vm, bus))
			rc = gpamap_vm_bus_plan(vm, change, bus, NULL, deadline);
	return rc;
}
