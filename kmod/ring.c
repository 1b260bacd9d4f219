// SPDX-License-Identifier: GPL-2.0
/*
 * Rings: writes of the guest's that the VMM hears of later.
 *
 * A ring is a queue in memory that the VMM maps. vCPUs put entries in, one at a time under
 * the spinlock of the ring; the VMM takes them out, by moving the tail. What it needs of the
 * ring the kernel keeps for itself: the VMM can write the header and the entries as it
 * likes, but all that is read here is the tail, once for each write, and a tail that cannot
 * be makes the ring a full one.
 *
 * Nobody waits. A write that finds the ring full leaves to the VMM, which takes the entries
 * out before it does what the write asks for: so all is done in the order in which it was
 * written, and nothing is lost. This is right for strings that are written to ports, too,
 * as each element is an exit of its own (see may_leave() in kvm_bus.c for those that are
 * not). To wait for room inside of the access would keep KVM's SRCU, and with it every
 * change of memslots and buses, waiting for the VMM; and the one who is to make room may be
 * the one who changes them.
 *
 * Rule 45 has two halves. The one here: what a region with registers would answer leaves to
 * the VMM while entries of its group are pending (dispatch.c). The other is the library's
 * (userlib/ring.c): it drains before it applies.
 *
 * Rings, and which region posts to which, change under the lock of the map. vCPUs find a
 * ring under RCU, through the region. mmap() comes with mmap_lock and takes no lock of the
 * map; it finds a ring by its id, and has a reference while it maps the pages. A mapping has
 * references on the pages.
 *
 * Rules of MEMORY_MODEL kept here: 43 (as for doorbells), 45.
 */
#include <linux/eventfd.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/refcount.h>
#include <linux/vmalloc.h>
#include "private.h"

struct gpamap_ring_buffer {
	refcount_t refs;		/* the map's, and mmap()'s while it maps */
	u32 nr_regions;			/* that post to it; under the lock of the map */

	/* Fixed at creation. */
	u32 nr_entries;
	u32 watermark;
	struct eventfd_ctx *eventfd;
	struct gpamap_ring_header *header;	/* a page; shared, and so are the entries */
	struct gpamap_ring_entry *entries;

	spinlock_t lock;		/* of what follows: one writes at a time */
	u64 seq;			/* of the next entry; the lower half is the head */
};

static u32 ring_pages(u32 nr_entries)
{
	return 1 + PAGE_ALIGN(nr_entries * sizeof(struct gpamap_ring_entry)) / PAGE_SIZE;
}

/* Whether nothing is pending in the ring that a region posts to. Under RCU. */
bool gpamap_ring_drained(const struct gpamap_io *io)
{
	/* Pairs with post_add(). */
	struct gpamap_ring_buffer *ring = rcu_dereference(io->ring);

	/* Pairs with the VMM's store: what the entries asked for is done. */
	return !ring || (u32)READ_ONCE(ring->seq) == smp_load_acquire(&ring->header->tail);
}

/* Whether a write is posted. Under RCU. */
bool gpamap_ring_post(const struct gpamap_io *io, u32 region, u64 offset, u32 len, u64 value)
{
	/* Pairs with post_add(). */
	struct gpamap_ring_buffer *ring = rcu_dereference(io->ring);
	u32 head, pending;

	if (!ring)
		return false;
	spin_lock(&ring->lock);
	head = ring->seq;
	/* Pairs with the VMM's store: it reads the entries below no more. */
	pending = head - smp_load_acquire(&ring->header->tail);
	if (pending >= ring->nr_entries) {
		spin_unlock(&ring->lock);
		return false;
	}
	ring->entries[head & (ring->nr_entries - 1)] = (struct gpamap_ring_entry){
		.seq = ring->seq,
		.region = region,
		.len = len,
		.offset = offset,
		.value = value,
	};
	WRITE_ONCE(ring->seq, ring->seq + 1);
	/* Pairs with the VMM's load, behind which it reads the entry. */
	smp_store_release(&ring->header->head, head + 1);
	spin_unlock(&ring->lock);
	/*
	 * Not only by the one that reaches the mark: who takes out what is there when it
	 * looks may leave more than that behind, and has to hear of it.
	 */
	if (pending + 1 >= ring->watermark)
		gpamap_eventfd_signal(ring->eventfd);
	return true;
}

static void ring_put(struct gpamap_ring_buffer *ring)
{
	if (!refcount_dec_and_test(&ring->refs))
		return;
	eventfd_ctx_put(ring->eventfd);
	vfree(ring->header);
	kfree(ring);
}

/* A reference, for who has no lock of the map. */
static struct gpamap_ring_buffer *ring_get(struct gpamap *map, u32 id)
{
	struct gpamap_ring_buffer *ring;

	xa_lock(&map->rings);
	ring = xa_load(&map->rings, id);
	if (ring)
		refcount_inc(&ring->refs);
	xa_unlock(&map->rings);
	return ring;
}

void gpamap_rings_init(struct gpamap *map)
{
	xa_init_flags(&map->rings, XA_FLAGS_ACCOUNT);
}

/* At the end of the map. No region is left, and nothing is mapped. */
void gpamap_rings_free(struct gpamap *map)
{
	struct gpamap_ring_buffer *ring;
	unsigned long id;

	xa_for_each(&map->rings, id, ring)
		ring_put(ring);
	xa_destroy(&map->rings);
}

/* On success the ring owns the reference on the eventfd. */
static struct gpamap_ring_buffer *ring_alloc(const struct gpamap_ring *cmd,
					     struct eventfd_ctx *eventfd)
{
	struct gpamap_ring_buffer *ring;

	ring = kzalloc(sizeof(*ring), GPAMAP_GFP);
	if (!ring)
		return NULL;
	ring->header = __vmalloc((unsigned long)ring_pages(cmd->nr_entries) << PAGE_SHIFT,
				 GPAMAP_GFP | __GFP_ZERO);
	if (!ring->header) {
		kfree(ring);
		return NULL;
	}
	ring->entries = (void *)ring->header + PAGE_SIZE;
	ring->header->nr_entries = cmd->nr_entries;
	ring->header->entry_size = sizeof(*ring->entries);
	ring->header->entries = PAGE_SIZE;
	refcount_set(&ring->refs, 1);
	ring->nr_entries = cmd->nr_entries;
	ring->watermark = cmd->watermark;
	ring->eventfd = eventfd;
	spin_lock_init(&ring->lock);
	return ring;
}

static int ring_add(struct gpamap *map, const struct gpamap_ring *cmd)
{
	struct gpamap_ring_buffer *ring;
	struct eventfd_ctx *eventfd;
	int rc;

	if (xa_load(&map->rings, cmd->id))
		return -EEXIST;
	eventfd = eventfd_ctx_fdget(cmd->fd);
	if (IS_ERR(eventfd))
		return PTR_ERR(eventfd);
	if (map->nr_rings == GPAMAP_MAX_RINGS) {
		rc = -ENOSPC;
		goto err_put;
	}
	ring = ring_alloc(cmd, eventfd);
	if (!ring) {
		rc = -ENOMEM;
		goto err_put;
	}
	rc = xa_insert(&map->rings, cmd->id, ring, GPAMAP_GFP);
	if (rc) {
		ring_put(ring);
		return rc;
	}
	map->nr_rings++;
	return 0;

err_put:
	eventfd_ctx_put(eventfd);
	return rc;
}

static int ring_remove(struct gpamap *map, u32 id)
{
	struct gpamap_ring_buffer *ring = xa_load(&map->rings, id);

	if (!ring)
		return -ENOENT;
	/* With no region no vCPU has it: post_remove() has waited. */
	if (ring->nr_regions)
		return -EBUSY;
	xa_erase(&map->rings, id);
	map->nr_rings--;
	ring_put(ring);
	return 0;
}

int gpamap_ring(struct gpamap *map, void *arg)
{
	struct gpamap_ring *cmd = arg;
	int rc;

	if (cmd->flags & ~GPAMAP_RING_REMOVE)
		return -EOPNOTSUPP;
	if (cmd->flags & GPAMAP_RING_REMOVE) {
		if (cmd->nr_entries || cmd->watermark || cmd->fd)
			return -EINVAL;
	} else if (!cmd->id || !is_power_of_2(cmd->nr_entries) ||
		   cmd->nr_entries < GPAMAP_MIN_RING_ENTRIES ||
		   cmd->nr_entries > GPAMAP_MAX_RING_ENTRIES ||
		   !cmd->watermark || cmd->watermark > cmd->nr_entries) {
		return -EINVAL;
	}
	rc = gpamap_map_check_usable(map);
	if (rc)
		return rc;
	if (cmd->flags & GPAMAP_RING_REMOVE)
		return ring_remove(map, cmd->id);
	return ring_add(map, cmd);
}

static struct gpamap_ring_buffer *io_ring(struct gpamap *map, const struct gpamap_io *io)
{
	return io ? rcu_dereference_protected(io->ring, lockdep_is_held(&map->lock)) : NULL;
}

static int post_add(struct gpamap *map, struct gpamap_region *region, u32 id)
{
	struct gpamap_ring_buffer *ring = xa_load(&map->rings, id);
	struct gpamap_io *io = gpamap_region_io(map, region);
	int rc;

	if (!ring)
		return -ENOENT;
	if (region->kind != GPAMAP_REGION_IO)
		return -EOPNOTSUPP;
	if (io_ring(map, io))
		return -EEXIST;
	if (io && rcu_access_pointer(io->handler))
		return -EBUSY;
	rc = gpamap_io_tie(map, region);
	if (rc)
		return rc;
	ring->nr_regions++;
	/* Pairs with gpamap_ring_post() and _drained(). */
	rcu_assign_pointer(gpamap_region_io(map, region)->ring, ring);
	return 0;
}

static int post_remove(struct gpamap *map, struct gpamap_region *region)
{
	struct gpamap_io *io = gpamap_region_io(map, region);
	struct gpamap_ring_buffer *ring = io_ring(map, io);

	if (!ring)
		return -ENOENT;
	rcu_assign_pointer(io->ring, NULL);
	/* vCPUs. Afterwards none posts for this region, and the ring may go. */
	synchronize_rcu();
	ring->nr_regions--;
	gpamap_io_untie(map, region);
	return 0;
}

int gpamap_post(struct gpamap *map, void *arg)
{
	struct gpamap_post *cmd = arg;
	struct gpamap_region *region;
	int rc;

	if (cmd->flags & ~GPAMAP_POST_REMOVE)
		return -EOPNOTSUPP;
	if (cmd->flags & GPAMAP_POST_REMOVE && cmd->ring)
		return -EINVAL;
	rc = gpamap_map_find_region(map, cmd->region, &region);
	if (rc)
		return rc;
	if (cmd->flags & GPAMAP_POST_REMOVE)
		return post_remove(map, region);
	return post_add(map, region, cmd->ring);
}

/* All of the ring whose id is the lower half of the number of the page. */
int gpamap_ring_mmap(struct gpamap *map, struct vm_area_struct *vma)
{
	u64 id = (u64)vma->vm_pgoff - GPAMAP_RING_PGOFF;
	struct gpamap_ring_buffer *ring;
	unsigned long i, nr = vma_pages(vma);
	int rc = 0;

	if (id > U32_MAX)
		return -EINVAL;
	ring = ring_get(map, id);
	if (!ring)
		return -ENOENT;
	if (nr != ring_pages(ring->nr_entries))
		rc = -EINVAL;
	else
		vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	for (i = 0; !rc && i < nr; i++)
		rc = vm_insert_page(vma, vma->vm_start + i * PAGE_SIZE,
				    vmalloc_to_page((void *)ring->header + i * PAGE_SIZE));
	ring_put(ring);
	return rc;
}
