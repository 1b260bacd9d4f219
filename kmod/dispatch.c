// SPDX-License-Identifier: GPL-2.0
/*
 * What is tied to a region, and what a guest's access to the region does.
 *
 * What is tied to it hangs on the region itself (struct gpamap_io), hashed by offset. It has no
 * address: where the region is seen is what the view says. So an access is answered in two
 * steps, which are searches: which region, at which offset, does the published view show
 * here; and what is at that offset. When the region moves, nothing of this changes; the
 * commit that moves it publishes another view.
 *
 * KVM asks because the stretches of addresses where such regions are seen are on its
 * buses (kvm_bus.c). These are found here, from the views; they matter for speed and for
 * who is asked, never for the answer.
 *
 * Accesses come from vCPUs inside KVM_RUN, with vcpu->mutex and SRCU of KVM's. They read
 * the snapshot and what is tied to regions under RCU and take no lock. All else here runs
 * under the lock of the map.
 *
 * Memory in a page that is only in part memory has no slot. It is served here, so that the
 * guest finds it all the same.
 *
 * Rules of MEMORY_MODEL kept here: 37 (the bytes without a slot), 43, 44, 46.
 */
#include <linux/eventfd.h>
#include <linux/hash.h>
#include <linux/uaccess.h>
#include "private.h"

struct bell {
	struct bell __rcu *next;	/* of the same hash */
	struct eventfd_ctx *eventfd;
	u64 offset;
	u64 value;
	u32 len;			/* 0: any */
	bool match;
};

/*
 * The doorbells of a region, by offset: a hash table with about one for each head. When
 * there are more, another one takes its place, with copies: readers may be in the old.
 */
struct gpamap_io {
	u32 nr;
	u32 bits;			/* of the number of heads */
	struct bell __rcu *heads[];
};

#define MIN_BITS 2

/* ---- an access -------------------------------------------------------- */

/* KVM aligns it. */
static u64 load_value(const void *val, u32 len)
{
	switch (len) {
	case 1:
		return *(const u8 *)val;
	case 2:
		return *(const u16 *)val;
	case 4:
		return *(const u32 *)val;
	case 8:
		return *(const u64 *)val;
	}
	return 0;
}

static bool ring(const struct gpamap_io *io, u64 offset, u32 len, const void *val)
{
	struct bell *bell = rcu_dereference(io->heads[hash_64(offset, io->bits)]);
	bool rang = false;

	for (; bell; bell = rcu_dereference(bell->next)) {
		if (bell->offset != offset || (bell->len && bell->len != len) ||
		    (bell->match && bell->value != load_value(val, len)))
			continue;
		gpamap_eventfd_signal(bell->eventfd);
		rang = true;
	}
	return rang;
}

/* A stretch of memory that an access falls on, where there is no memslot. */
struct piece {
	u64 hva;
	u32 len;
};

/*
 * Rule 37: the bytes of memory in a page that is only in part memory. Rule 46: an access to
 * memory is cut at the borders; if it meets anything but memory, or what it cannot write,
 * all of it leaves. Returns the number of pieces, 0 for none.
 */
static u32 find_memory(const struct gpamap_flatview *view, u64 addr, u32 len, bool write,
		       struct piece *pieces)
{
	const struct gpamap_range *range;
	u32 nr = 0;

	while (len) {
		range = gpamap_flatview_find(view, addr);
		if (!range || !gpamap_range_is_memory(range) ||
		    (write && gpamap_range_is_readonly(range)))
			return 0;
		pieces[nr].hva = range->region->hva + range->offset + (addr - range->start);
		pieces[nr].len = min_t(u64, len, range->last - addr + 1);
		addr += pieces[nr].len;
		len -= pieces[nr++].len;
	}
	return nr;
}

static const struct gpamap_flatview *bus_view(struct gpamap *map,
					      enum gpamap_bus_view view)
{
	/* Pairs with show(). */
	const struct gpamap_snapshot *snapshot = rcu_dereference(map->snapshot);

	return snapshot ? snapshot->bus[view] : NULL;
}

/*
 * A read of a guest's. Whether it is done; otherwise it leaves to the VMM. May sleep: KVM_RUN
 * is in the process that owns the memory, and KVM holds nothing that a fault needs.
 */
bool gpamap_dispatch_read(struct gpamap *map, enum gpamap_bus_view bus, u64 addr, u32 len,
			  void *val)
{
	const struct gpamap_flatview *view;
	struct piece pieces[8];
	u32 i, nr = 0;

	if (len > sizeof(u64))
		return false;
	rcu_read_lock();
	view = bus_view(map, bus);
	if (view && bus != GPAMAP_VIEW_PORTS)
		nr = find_memory(view, addr, len, false, pieces);
	rcu_read_unlock();
	for (i = 0; i < nr; val += pieces[i++].len)
		if (copy_from_user(val, u64_to_user_ptr(pieces[i].hva), pieces[i].len))
			return false;
	return nr;
}

static bool write_memory(const struct piece *pieces, u32 nr, const void *val)
{
	u32 i;

	for (i = 0; i < nr; val += pieces[i++].len)
		if (copy_to_user(u64_to_user_ptr(pieces[i].hva), val, pieces[i].len))
			return false;
	return true;
}

/* A write of a guest's, as gpamap_dispatch_read(). */
bool gpamap_dispatch_write(struct gpamap *map, enum gpamap_bus_view bus, u64 addr,
			   u32 len, const void *val)
{
	const struct gpamap_flatview *view;
	const struct gpamap_range *range;
	const struct gpamap_io *io;
	struct piece pieces[8];
	bool done = false;
	u32 nr = 0;

	if (len > sizeof(u64))
		return false;
	rcu_read_lock();
	view = bus_view(map, bus);
	range = view ? gpamap_flatview_find(view, addr) : NULL;
	if (range) {
		/* Pairs with bell_add(). */
		io = rcu_dereference(range->region->io);
		if (io)
			done = ring(io, range->offset + (addr - range->start), len, val);
		else if (bus != GPAMAP_VIEW_PORTS)
			nr = find_memory(view, addr, len, true, pieces);
	}
	rcu_read_unlock();
	return done || (nr && write_memory(pieces, nr, val));
}

/* ---- where KVM is to ask ---------------------------------------------- */

static int extent_cmp(const void *a, const void *b)
{
	const struct gpamap_extent *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

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

/* Adds the stretches of a view of which KVM is to ask. Among ports there is no memory. */
static int list_add_view(struct gpamap_bus_list *list, const struct gpamap_flatview *view,
			 bool ports)
{
	const struct gpamap_range *range;
	struct gpamap_cursor cursor;
	int rc;

	for (range = gpamap_flatview_first(&cursor, view); range;
	     range = gpamap_flatview_next(&cursor)) {
		cond_resched();
		if (rcu_access_pointer(range->region->io))
			rc = list_add_extent(list, range->start, range->last);
		else if (!ports && is_partial(range))
			rc = list_add_partial(list, range);
		else
			continue;
		if (rc)
			return rc;
	}
	return 0;
}

/**
 * gpamap_bus_list() - The stretches of addresses of which KVM is to ask
 * @views: By enum gpamap_bus_view; entries may be NULL
 * @bus: For which of KVM's
 * @out: The stretches, disjoint, by address, touching ones in one; to be freed with
 *	kvfree()
 *
 * Return: 0; -ENOSPC when there are more than GPAMAP_MAX_BUS_RANGES; -ENOMEM.
 */
int gpamap_bus_list(const struct gpamap_flatview **views, enum gpamap_bus bus,
		    struct gpamap_bus_list **out)
{
	bool ports = bus == GPAMAP_BUS_PORTS;
	u32 i = ports ? GPAMAP_VIEW_PORTS : GPAMAP_VIEW_MEMORY;
	u32 end = ports ? GPAMAP_VIEW_PORTS : GPAMAP_VIEW_SMM;
	struct gpamap_bus_list *list, *all;
	int rc = 0;

	all = kvzalloc(struct_size(all, extents, GPAMAP_MAX_BUS_RANGES * (end - i + 1)),
		       GPAMAP_GFP);
	list = kvzalloc(struct_size(list, extents, GPAMAP_MAX_BUS_RANGES), GPAMAP_GFP);
	if (!all || !list)
		rc = -ENOMEM;
	for (; !rc && i <= end; i++) {
		struct gpamap_extent *from = list->extents;

		if (!views[i])
			continue;
		list->nr = 0;
		list->max = GPAMAP_MAX_BUS_RANGES;
		rc = list_add_view(list, views[i], ports);
		memcpy(all->extents + all->nr, from, list->nr * sizeof(*from));
		all->nr += list->nr;
	}
	if (!rc) {
		sort(all->extents, all->nr, sizeof(*all->extents), extent_cmp, NULL);
		list->nr = 0;
		list->max = GPAMAP_MAX_BUS_RANGES;
	}
	for (i = 0; !rc && i < all->nr; i++)
		rc = list_add_extent(list, all->extents[i].start, all->extents[i].last);
	kvfree(all);
	if (rc)
		kvfree(list);
	else
		*out = list;
	return rc;
}

bool gpamap_changes_tied(const struct gpamap_changes *changes)
{
	u32 i;

	for (i = 0; i < changes->nr_gone; i++)
		if (is_tied(&changes->gone[i]))
			return true;
	for (i = 0; i < changes->nr_come; i++)
		if (is_tied(&changes->come[i]))
			return true;
	return false;
}

/* ---- doorbells -------------------------------------------------------- */

static struct gpamap_io *region_io(struct gpamap *map, struct gpamap_region *region)
{
	return rcu_dereference_protected(region->io, lockdep_is_held(&map->lock));
}

static struct gpamap_io *io_alloc(u32 bits)
{
	struct gpamap_io *io = kvzalloc(struct_size(io, heads, 1UL << bits), GPAMAP_GFP);

	if (io)
		io->bits = bits;
	return io;
}

/* Frees a table and the doorbells in it. Nobody reads any more. */
static void io_free(struct gpamap_io *io, bool put)
{
	struct bell *bell, *next;
	u32 i;

	for (i = 0; i < 1U << io->bits; i++) {
		for (bell = rcu_dereference_protected(io->heads[i], true); bell; bell = next) {
			next = rcu_dereference_protected(bell->next, true);
			if (put)
				eventfd_ctx_put(bell->eventfd);
			kfree(bell);
		}
		cond_resched();
	}
	kvfree(io);
}

/* Frees all that is tied to a region, at the end of the map. Nobody reads any more. */
void gpamap_io_free(struct gpamap_region *region)
{
	struct gpamap_io *io = rcu_dereference_protected(region->io, true);

	if (io)
		io_free(io, true);
}

static struct bell __rcu **bell_head(struct gpamap_io *io, u64 offset)
{
	return &io->heads[hash_64(offset, io->bits)];
}

/* In front of all others of its hash. */
static void bell_link(struct gpamap *map, struct gpamap_io *io, struct bell *bell)
{
	struct bell __rcu **head = bell_head(io, bell->offset);

	RCU_INIT_POINTER(bell->next,
			 rcu_dereference_protected(*head, lockdep_is_held(&map->lock)));
	/* Pairs with ring(). */
	rcu_assign_pointer(*head, bell);
	io->nr++;
}

/* The same in a table of twice the size, that nobody else knows. */
static struct gpamap_io *io_double(struct gpamap *map, struct gpamap_io *old)
{
	struct gpamap_io *io = io_alloc(old->bits + 1);
	struct bell *bell, *copy;
	u32 i;

	for (i = 0; io && i < 1U << old->bits; i++) {
		bell = rcu_dereference_protected(old->heads[i],
						 lockdep_is_held(&map->lock));
		for (; bell; bell = rcu_dereference_protected(bell->next,
							lockdep_is_held(&map->lock))) {
			copy = kmemdup(bell, sizeof(*bell), GPAMAP_GFP);
			if (!copy) {
				io_free(io, false);
				return NULL;
			}
			bell_link(map, io, copy);
		}
		cond_resched();
	}
	return io;
}

static bool bell_equal(const struct bell *bell, const struct gpamap_doorbell *cmd,
		       const struct eventfd_ctx *eventfd)
{
	return bell->offset == cmd->offset && bell->len == cmd->len &&
	       bell->value == cmd->value &&
	       bell->match == !!(cmd->flags & GPAMAP_DOORBELL_MATCH) &&
	       bell->eventfd == eventfd;
}

/* Where the pointer to the doorbell is; NULL if it is not there. */
static struct bell __rcu **bell_find(struct gpamap *map, struct gpamap_io *io,
				     const struct gpamap_doorbell *cmd,
				     const struct eventfd_ctx *eventfd)
{
	struct bell __rcu **at = bell_head(io, cmd->offset);
	struct bell *bell;

	while ((bell = rcu_dereference_protected(*at, lockdep_is_held(&map->lock)))) {
		if (bell_equal(bell, cmd, eventfd))
			return at;
		at = &bell->next;
	}
	return NULL;
}

/* Takes a doorbell out, and the region's io with the last; frees them, but puts no eventfd. */
static void bell_remove(struct gpamap *map, struct gpamap_region *region,
			struct bell __rcu **at)
{
	struct bell *bell = rcu_dereference_protected(*at, lockdep_is_held(&map->lock));
	struct gpamap_io *io = region_io(map, region);

	rcu_assign_pointer(*at, rcu_dereference_protected(bell->next,
							  lockdep_is_held(&map->lock)));
	if (!--io->nr)
		rcu_assign_pointer(region->io, NULL);
	map->nr_doorbells--;
	synchronize_rcu_expedited();
	kfree(bell);
	if (!region->io)
		io_free(io, false);
}

/* The region's first one makes its io. */
static int bell_add(struct gpamap *map, struct gpamap_region *region, struct bell *bell)
{
	struct gpamap_io *old = region_io(map, region);
	struct gpamap_io *io = old;

	if (!io)
		io = io_alloc(MIN_BITS);
	else if (io->nr >= 1U << io->bits)
		io = io_double(map, old);
	if (!io)
		return -ENOMEM;
	bell_link(map, io, bell);
	map->nr_doorbells++;
	if (io == old)
		return 0;
	/* Pairs with gpamap_dispatch_write(). */
	rcu_assign_pointer(region->io, io);
	if (old) {
		synchronize_rcu_expedited();
		io_free(old, false);
	}
	return 0;
}

static int doorbell_remove(struct gpamap *map, struct gpamap_region *region,
			   const struct gpamap_doorbell *cmd, struct eventfd_ctx *eventfd)
{
	struct gpamap_io *io = region_io(map, region);
	struct bell __rcu **at;

	at = io ? bell_find(map, io, cmd, eventfd) : NULL;
	if (!at)
		return -ENOENT;
	bell_remove(map, region, at);
	eventfd_ctx_put(eventfd);
	/* Should there be no memory to take it from the bus: KVM asks, and hears no. */
	if (!rcu_access_pointer(region->io) && gpamap_bus_update(map))
		map->bus_stale = true;
	return 0;
}

static int doorbell_add(struct gpamap *map, struct gpamap_region *region,
			const struct gpamap_doorbell *cmd, struct eventfd_ctx *eventfd)
{
	struct gpamap_io *io = region_io(map, region);
	struct bell *bell;
	int rc;

	if (io && bell_find(map, io, cmd, eventfd))
		return -EEXIST;
	if (map->nr_doorbells == GPAMAP_MAX_DOORBELLS)
		return -ENOSPC;
	bell = kzalloc(sizeof(*bell), GPAMAP_GFP);
	if (!bell)
		return -ENOMEM;
	bell->eventfd = eventfd;
	bell->offset = cmd->offset;
	bell->value = cmd->value;
	bell->len = cmd->len;
	bell->match = cmd->flags & GPAMAP_DOORBELL_MATCH;
	rc = bell_add(map, region, bell);
	if (rc) {
		kfree(bell);
		return rc;
	}
	/* On success the doorbell owns the reference on the eventfd. */
	if (!io) {
		rc = gpamap_bus_update(map);
		if (rc)
			bell_remove(map, region, bell_head(region_io(map, region),
							   cmd->offset));
	}
	return rc;
}

static int doorbell_check(const struct gpamap_doorbell *cmd,
			  const struct gpamap_region *region)
{
	u64 last;

	switch (region->kind) {
	case GPAMAP_REGION_IO:
	case GPAMAP_REGION_ROM:
	case GPAMAP_REGION_ROMD:
	case GPAMAP_REGION_RESERVED:
		break;
	default:
		return -EOPNOTSUPP;
	}
	/* A write of any length has one byte at least. */
	if (check_add_overflow(cmd->offset, (u64)max(cmd->len, 1U) - 1, &last) ||
	    last > region->last)
		return -EINVAL;
	return 0;
}

int gpamap_doorbell(struct gpamap *map, void *arg)
{
	struct gpamap_doorbell *cmd = arg;
	struct gpamap_region *region;
	struct eventfd_ctx *eventfd;
	int rc;

	if (cmd->flags & ~(GPAMAP_DOORBELL_MATCH | GPAMAP_DOORBELL_REMOVE))
		return -EOPNOTSUPP;
	if (cmd->__reserved || cmd->len > 8 || (cmd->len & (cmd->len - 1)))
		return -EINVAL;
	if (cmd->flags & GPAMAP_DOORBELL_MATCH) {
		if (!cmd->len || (cmd->len < 8 && cmd->value >> (8 * cmd->len)))
			return -EINVAL;
	} else if (cmd->value) {
		return -EINVAL;
	}
	rc = gpamap_map_check_usable(map);
	if (rc)
		return rc;
	region = gpamap_tree_region(&map->tree, cmd->region);
	if (!region)
		return -ENOENT;
	rc = doorbell_check(cmd, region);
	if (rc)
		return rc;
	eventfd = eventfd_ctx_fdget(cmd->fd);
	if (IS_ERR(eventfd))
		return PTR_ERR(eventfd);

	if (cmd->flags & GPAMAP_DOORBELL_REMOVE) {
		rc = doorbell_remove(map, region, cmd, eventfd);
		eventfd_ctx_put(eventfd);
	} else {
		rc = doorbell_add(map, region, cmd, eventfd);
		if (rc)
			eventfd_ctx_put(eventfd);
	}
	return rc;
}
