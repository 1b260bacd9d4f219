// SPDX-License-Identifier: GPL-2.0
/*
 * What is tied to a region, and what a guest's access to the region does.
 *
 * What is tied to it (doorbell.c, registers.c) hangs on the region itself, in struct
 * gpamap_io, by offset. It has no address: where the region is seen is what the view says.
 * So an access is answered in two steps, which are searches: which region, at which offset,
 * does the published view show here; and what is at that offset. When the region moves,
 * nothing of this changes; the commit that moves it publishes another view.
 *
 * KVM asks because the stretches of addresses where such regions are seen are on its
 * buses (bus.c). These matter for speed and for who is asked, never for the answer.
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
#include <linux/uaccess.h>
#include "private.h"

/* ---- an access -------------------------------------------------------- */

/* A stretch of memory that an access falls on, where there is no memslot. */
struct piece {
	u64 hva;
	u32 len;
};

/*
 * Rule 37: the bytes of memory in a page that is only in part memory. Rule 46: an access to
 * memory is cut at the borders; if it meets anything but memory, or what it cannot write,
 * all of it leaves. @range is what is at @addr. Returns the number of pieces, 0 for none.
 */
static u32 find_memory(const struct gpamap_flatview *view, const struct gpamap_range *range,
		       u64 addr, u32 len, bool write, struct piece *pieces)
{
	u32 nr = 0;

	for (;; range = gpamap_flatview_find(view, addr)) {
		if (!range || !gpamap_range_is_memory(range) ||
		    (write && gpamap_range_is_readonly(range)))
			return 0;
		pieces[nr].hva = range->region->hva + range->offset + (addr - range->start);
		pieces[nr].len = min_t(u64, len, range->last - addr + 1);
		addr += pieces[nr].len;
		len -= pieces[nr++].len;
		if (!len)
			return nr;
	}
}

/* What is at @addr, and in which view; NULL for nothing. */
static const struct gpamap_range *find_range(struct gpamap *map, enum gpamap_bus_view bus,
					     u64 addr, const struct gpamap_flatview **view)
{
	/* Pairs with show(). */
	const struct gpamap_snapshot *snapshot = rcu_dereference(map->snapshot);

	*view = snapshot ? snapshot->bus[bus] : NULL;
	return *view ? gpamap_flatview_find(*view, addr) : NULL;
}

/*
 * A read of a guest's. Whether it is done; otherwise it leaves to the VMM. May sleep: KVM_RUN
 * is in the process that owns the memory, and KVM holds nothing that a fault needs.
 */
bool gpamap_dispatch_read(struct gpamap *map, enum gpamap_bus_view bus, u64 addr, u32 len,
			  void *val)
{
	const struct gpamap_flatview *view;
	const struct gpamap_range *range;
	const struct gpamap_io *io;
	struct piece pieces[8];
	bool done = false;
	u32 i, nr = 0;

	if (len > sizeof(u64))
		return false;
	rcu_read_lock();
	range = find_range(map, bus, addr, &view);
	if (range) {
		/* Pairs with gpamap_io_tie(). */
		io = rcu_dereference(range->region->io);
		if (io)
			done = gpamap_registers_read(io, range->offset + (addr - range->start),
						     len, val);
		if (!done && bus != GPAMAP_VIEW_PORTS)
			nr = find_memory(view, range, addr, len, false, pieces);
	}
	rcu_read_unlock();
	for (i = 0; i < nr; val += pieces[i++].len)
		if (copy_from_user(val, u64_to_user_ptr(pieces[i].hva), pieces[i].len))
			return false;
	return done || nr;
}

static bool write_memory(const struct piece *pieces, u32 nr, const void *val)
{
	u32 i;

	for (i = 0; i < nr; val += pieces[i++].len)
		if (copy_to_user(u64_to_user_ptr(pieces[i].hva), val, pieces[i].len))
			return false;
	return true;
}

/* Not aligned. Of lengths that no register and no doorbell with a value has it is 0. */
static u64 load_value(const void *val, u32 len)
{
	u16 v16;
	u32 v32;
	u64 v64;

	switch (len) {
	case 1:
		return *(const u8 *)val;
	case 2:
		memcpy(&v16, val, sizeof(v16));
		return v16;
	case 4:
		memcpy(&v32, val, sizeof(v32));
		return v32;
	case 8:
		memcpy(&v64, val, sizeof(v64));
		return v64;
	}
	return 0;
}

/* What is written is stored before the bell says so. */
static bool dispatch_io(const struct gpamap_io *io, u64 offset, u32 len, const void *val)
{
	u64 value = load_value(val, len);
	bool done = false;

	if (rcu_access_pointer(io->registers))
		done = gpamap_registers_write(io, offset, len, value);
	return gpamap_doorbell_ring(io, offset, len, value) || done;
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
	range = find_range(map, bus, addr, &view);
	if (range) {
		/* Pairs with gpamap_io_tie(). */
		io = rcu_dereference(range->region->io);
		if (io)
			done = dispatch_io(io, range->offset + (addr - range->start), len, val);
		else if (bus != GPAMAP_VIEW_PORTS)
			nr = find_memory(view, range, addr, len, true, pieces);
	}
	rcu_read_unlock();
	return done || (nr && write_memory(pieces, nr, val));
}

/* ---- what is tied to a region ----------------------------------------- */

struct gpamap_io *gpamap_region_io(struct gpamap *map, const struct gpamap_region *region)
{
	return rcu_dereference_protected(region->io, lockdep_is_held(&map->lock));
}

/**
 * gpamap_io_tie() - Have KVM ask for accesses to a region
 * @map: Of the region
 * @region: It may have a struct gpamap_io already
 *
 * Return: 0, then the region has one; the errors of a change of the buses.
 */
int gpamap_io_tie(struct gpamap *map, struct gpamap_region *region)
{
	struct gpamap_io *io;
	int rc;

	if (gpamap_region_io(map, region))
		return 0;
	io = kzalloc(sizeof(*io), GPAMAP_GFP);
	if (!io)
		return -ENOMEM;
	/* Pairs with gpamap_dispatch_read() and _write(). */
	rcu_assign_pointer(region->io, io);
	rc = gpamap_map_update_bus(map);
	if (rc) {
		rcu_assign_pointer(region->io, NULL);
		kfree_rcu(io, rcu);
	}
	return rc;
}

/* If nothing is tied to the region any more, KVM need not ask. */
void gpamap_io_untie(struct gpamap *map, struct gpamap_region *region)
{
	struct gpamap_io *io = gpamap_region_io(map, region);

	if (rcu_access_pointer(io->bells) || rcu_access_pointer(io->registers))
		return;
	rcu_assign_pointer(region->io, NULL);
	kfree_rcu(io, rcu);
	/* If that fails KVM goes on asking, and hears no. */
	if (gpamap_map_update_bus(map))
		map->bus_stale = true;
}

/* Frees all that is tied to a region, at the end of the map. Nobody reads any more. */
void gpamap_io_free(struct gpamap_region *region)
{
	struct gpamap_io *io = rcu_dereference_protected(region->io, true);

	if (!io)
		return;
	gpamap_doorbells_free(io);
	gpamap_registers_free(io);
	kfree(io);
}
