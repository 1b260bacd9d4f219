// SPDX-License-Identifier: GPL-2.0
/*
 * Where KVM is to ask: the stretches of addresses, of memory and of ports, where a view
 * shows something that is answered here (dispatch.c), and how KVM's buses (kvm_bus.c) are
 * brought to them.
 *
 * To be asked for more than is needed does no harm: what the published view does not
 * answer leaves to the VMM. So a commit first widens the buses to the stretches of before
 * and after, ahead of the first operation on a slot; publishes the view, which is the one
 * moment in which the answers change; and then narrows the buses to those of after. Until
 * the view is published all is answered as before: memory whose slot is gone already, too.
 * If the widening fails the commit does, and nothing has changed. If the narrowing fails,
 * or the way back after a commit that failed, the map remembers (bus_stale), and it is
 * tried again with the next commit.
 *
 * All functions run under the lock of the map.
 */
#include "private.h"

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

/* Adds the pages of memory that no slot covers, because they are only in part memory. */
static int list_add_partial(struct gpamap_bus_list *list, const struct gpamap_range *range)
{
	u64 head = round_up(range->start, PAGE_SIZE) - 1;	/* its last byte */
	u64 tail = round_down(range->last + 1, PAGE_SIZE);	/* its first */
	int rc = 0;

	if (range->start & ~PAGE_MASK)
		rc = list_add_extent(list, range->start, min(head, range->last));
	if (!rc && (range->last + 1) & ~PAGE_MASK && tail >= range->start)
		rc = list_add_extent(list, tail, range->last);
	return rc;
}

static bool is_partial(const struct gpamap_range *range)
{
	return gpamap_range_is_memory(range) &&
	       (range->start | (range->last + 1)) & ~PAGE_MASK;
}

/* Whether KVM is to ask for an access to what a range shows, or to some of it. */
static bool is_tied(const struct gpamap_range *range)
{
	return rcu_access_pointer(range->region->io) || is_partial(range);
}

/* Adds what KVM is to ask of a range. Among ports there is no memory. */
static int list_add_range(struct gpamap_bus_list *list, const struct gpamap_range *range,
			  enum gpamap_bus bus)
{
	if (rcu_access_pointer(range->region->io))
		return list_add_extent(list, range->start, range->last);
	if (bus != GPAMAP_BUS_PORTS && is_partial(range))
		return list_add_partial(list, range);
	return 0;
}

/* Whether a write can be done of which only the place is known. */
static bool is_fast(struct gpamap *map, const struct gpamap_range *range)
{
	const struct gpamap_io *io = gpamap_region_io(map, range->region);

	return io && gpamap_doorbell_any(map, io);
}

/*
 * Adds the stretches of a view of which KVM is to ask. Those of the fast bus are the same
 * as those of the memory bus, but for those that have nothing fast in them.
 */
static int list_add_view(struct gpamap *map, struct gpamap_bus_list *list,
			 const struct gpamap_flatview *view, enum gpamap_bus bus)
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
		wanted |= is_fast(map, range);
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
static struct gpamap_bus_list *view_list(struct gpamap *map, const struct gpamap_flatview *view,
					 enum gpamap_bus bus)
{
	struct gpamap_bus_list *list;
	int rc;

	if (!view)
		return NULL;
	list = list_alloc(GPAMAP_MAX_BUS_RANGES);
	if (!list)
		return ERR_PTR(-ENOMEM);
	rc = list_add_view(map, list, view, bus);
	if (rc) {
		kvfree(list);
		return ERR_PTR(rc);
	}
	return list;
}

/* What the views want of a bus. */
static struct gpamap_bus_list *bus_list(struct gpamap *map,
					const struct gpamap_flatview *const *views,
					enum gpamap_bus bus)
{
	struct gpamap_bus_list *a, *b, *list;

	if (bus == GPAMAP_BUS_PORTS) {
		list = view_list(map, views[GPAMAP_VIEW_PORTS], bus);
		return list ?: list_alloc(0) ?: ERR_PTR(-ENOMEM);
	}
	a = view_list(map, views[GPAMAP_VIEW_MEMORY], bus);
	if (IS_ERR(a))
		return a;
	b = view_list(map, views[GPAMAP_VIEW_SMM], bus);
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

/* Whether a view changes where something is tied to what it shows. */
bool gpamap_bus_changes_tied(const struct gpamap_changes *changes)
{
	u32 i;

	for (i = 0; i < changes->nr_gone; i++) {
		cond_resched();
		if (is_tied(&changes->gone[i]))
			return true;
	}
	for (i = 0; i < changes->nr_come; i++) {
		cond_resched();
		if (is_tied(&changes->come[i]))
			return true;
	}
	return false;
}

/* Frees what a change has left, done or not. */
void gpamap_bus_free(struct gpamap_bus_change *change)
{
	u32 bus;

	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++) {
		kvfree(change->next[bus]);
		kvfree(change->old[bus]);
	}
	memset(change, 0, sizeof(*change));
}

/* What a bus is to have, if it is something else than it has, and can be. */
static int plan_bus(struct gpamap *map, const struct gpamap_flatview *const *views, u32 bus,
		    struct gpamap_bus_list **next)
{
	struct gpamap_bus_list *list = bus_list(map, views, bus);

	if (IS_ERR(list))
		return PTR_ERR(list);
	if (list_equal(list, gpamap_vm_bus_placed(map->vm, bus))) {
		kvfree(list);
		return 0;
	}
	*next = list;
	return gpamap_vm_bus_check(map->vm, bus, list);
}

/**
 * gpamap_bus_plan() - Find out how the buses have to change, and whether they can
 * @map: The map, attached
 * @views: What will be published, by enum gpamap_bus_view; entries may be NULL
 * @tied: Whether what they show, of what something is tied to, has changed
 * @change: Receives the change, all zero before; to be freed with gpamap_bus_free(), also
 *	after an error
 *
 * Return: 0; -EEXIST when a device of KVM's is in the way; -ENOSPC when there are more than
 * GPAMAP_MAX_BUS_RANGES or the bus is full; -ENOMEM.
 */
int gpamap_bus_plan(struct gpamap *map, const struct gpamap_flatview *const *views, bool tied,
		    struct gpamap_bus_change *change)
{
	u32 bus;
	int rc = 0;

	if (!tied && !map->bus_stale)
		return 0;
	change->tied = tied;
	for (bus = 0; !rc && bus < GPAMAP_NR_BUSES; bus++) {
		rc = plan_bus(map, views, bus, &change->next[bus]);
		/* It is for speed, and no reason to refuse anything: it stays as it is. */
		if (bus == GPAMAP_BUS_FAST && (rc == -ENOSPC || rc == -EEXIST)) {
			kvfree(change->next[bus]);
			change->next[bus] = NULL;
			rc = 0;
		}
	}
	change->planned = !rc;
	/* What could not be narrowed before is no fault of this commit. */
	if (rc && !tied) {
		gpamap_bus_free(change);
		return 0;
	}
	return rc;
}

/* The first step: -ENOMEM, then nothing has changed. */
int gpamap_bus_widen(struct gpamap *map, struct gpamap_bus_change *change)
{
	u32 bus;
	int rc;

	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++) {
		const struct gpamap_bus_list *placed = gpamap_vm_bus_placed(map->vm, bus);
		struct gpamap_bus_list *next = change->next[bus], *both;

		if (!next)
			continue;
		both = list_alloc(next->nr + (placed ? placed->nr : 0));
		if (!both) {
			rc = -ENOMEM;
			goto err_restore;
		}
		list_join(both, placed, next);
		if (list_equal(both, placed)) {
			kvfree(both);
			continue;
		}
		rc = gpamap_vm_bus_set(map->vm, bus, &both);
		/* On success what the bus had. */
		if (rc) {
			kvfree(both);
			goto err_restore;
		}
		change->old[bus] = both;
		change->widened[bus] = true;
	}
	return 0;

err_restore:
	gpamap_bus_restore(map, change);
	return rc;
}

/* Instead of the last step, when the commit has failed. */
void gpamap_bus_restore(struct gpamap *map, struct gpamap_bus_change *change)
{
	u32 bus;

	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++)
		if (change->widened[bus] &&
		    gpamap_vm_bus_set(map->vm, bus, &change->old[bus]))
			map->bus_stale = true;
}

/*
 * The last step, with the view published. After it no vCPU is answered by the view of
 * before; those that were @held in the meantime are not anyway.
 */
void gpamap_bus_narrow(struct gpamap *map, struct gpamap_bus_change *change, bool held)
{
	bool waited = held || !change->tied;
	u32 bus;

	if (!change->planned)
		return;
	map->bus_stale = false;
	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++) {
		if (!change->next[bus] ||
		    list_equal(change->next[bus], gpamap_vm_bus_placed(map->vm, bus)))
			continue;
		if (gpamap_vm_bus_set(map->vm, bus, &change->next[bus]))
			map->bus_stale = true;
		else
			waited = true;
	}
	if (!waited)
		gpamap_vm_bus_wait(map->vm);
}
