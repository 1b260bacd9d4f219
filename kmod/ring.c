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
 * as each element is an exit of its own (see gpamap_access_may_leave() for those that are
 * not). To wait for room inside of the access would keep KVM's SRCU, and with it every
 * change of memslots and buses, waiting for the VMM; and the one who is to make room may be
 * the one who changes them.
 *
 * Who reads is told by an eventfd: at once when the watermark is reached, and of fewer
 * entries, if the ring has a delay, by a timer that the first of them starts. Who finds it
 * not started starts it, and who takes it for over signals: so no entry is left untold. A
 * timer that has nothing to do any more is not stopped, it finds that out.
 *
 * Rule 45 has two halves. The one here: what a region with registers would answer leaves to
 * the VMM while entries of its group are pending (dispatch.c). The other is the library's
 * (userlib/ring.c): it drains before it applies.
 *
 * A ring is made and removed by a command of its own, under the lock of the map; which region
 * posts to which is tied by transactions. A ring to which a region posts, in the state that
 * vCPUs find or in the one that comes, is not removed. mmap() comes with mmap_lock and takes no
 * lock of the map; it finds a ring by its id, and has a reference while it maps the pages. A
 * mapping has references on the pages.
 *
 * Rules of MEMORY_MODEL kept here: 43 (as for doorbells), 45.
 */
#include <linux/eventfd.h>
#include <linux/hrtimer.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/refcount.h>
#include <linux/vmalloc.h>
#include "ties.h"

struct gpamap_ring_buffer {
	refcount_t refs;		/* the map's, and mmap()'s while it maps */
	u32 nr_regions;			/* that will post to it; under the lock of the map */

	/* Fixed at creation. */
	u32 nr_entries;
	u32 watermark;
	ktime_t delay;			/* 0: none */
	struct eventfd_ctx *eventfd;	/* NULL: nobody is told */
	struct gpamap_ring_header *header;	/* a page; shared, and so are the entries */
	struct gpamap_ring_entry *entries;

	struct hrtimer timer;
	int told_later;			/* atomic; 1: the timer tells of what is pending */

	spinlock_t lock;		/* of what follows: one writes at a time */
	u64 seq;			/* of the next entry; the lower half is the head */
};

void gpamap_ring_layout(struct gpamap_layout *layout)
{
	*layout = (struct gpamap_layout){
		.area = GPAMAP_AREA_RING,
		.version = GPAMAP_LAYOUT_VERSION,
		.header_size = sizeof(struct gpamap_ring_header),
		.first = PAGE_SIZE,
		.record_size = sizeof(struct gpamap_ring_entry),
	};
}

static u32 ring_pages(u32 nr_entries)
{
	return 1 + PAGE_ALIGN(nr_entries * sizeof(struct gpamap_ring_entry)) / PAGE_SIZE;
}

static bool ring_is_empty(const struct gpamap_ring_buffer *ring)
{
	/* Pairs with the VMM's store: what the entries asked for is done. */
	return (u32)READ_ONCE(ring->seq) == smp_load_acquire(&ring->header->tail);
}

/* Whether nothing is pending in the ring that a region posts to. */
bool gpamap_ring_drained(const struct gpamap_io *io)
{
	return !io->now.ring || ring_is_empty(io->now.ring);
}

/* In a softirq. Takes no lock of ours, as the one that it interrupts may hold it. */
static enum hrtimer_restart ring_delay_over(struct hrtimer *timer)
{
	struct gpamap_ring_buffer *ring = container_of(timer, struct gpamap_ring_buffer, timer);

	/* Pairs with ring_is_due(): what was posted before that left it to this is seen. */
	if (xchg(&ring->told_later, 0) && !ring_is_empty(ring))
		gpamap_eventfd_signal(ring->eventfd);
	return HRTIMER_NORESTART;
}

/*
 * Whether the eventfd is to be signalled for an entry that was posted, with which @pending
 * are. Not only by the one that reaches the mark: who takes out what is there when it looks
 * may leave more than that behind, and has to hear of it.
 */
static bool ring_is_due(struct gpamap_ring_buffer *ring, u32 pending)
{
	lockdep_assert_held(&ring->lock);

	if (!ring->eventfd)
		return false;
	if (pending >= ring->watermark) {
		WRITE_ONCE(ring->told_later, 0);
		return true;
	}
	/* Pairs with ring_delay_over(), which may just be at it. */
	if (ring->delay && !xchg(&ring->told_later, 1))
		hrtimer_start(&ring->timer, ring->delay, HRTIMER_MODE_REL_SOFT);
	return false;
}

/* Whether a write is posted. */
bool gpamap_ring_post(const struct gpamap_io *io, u64 generation, u32 region, u64 offset,
		      u32 len, u64 value)
{
	struct gpamap_ring_buffer *ring = io->now.ring;
	u32 head, pending;
	bool due;

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
		.generation = generation,
	};
	WRITE_ONCE(ring->seq, ring->seq + 1);
	/* Pairs with the VMM's load, behind which it reads the entry. */
	smp_store_release(&ring->header->head, head + 1);
	due = ring_is_due(ring, pending + 1);
	spin_unlock(&ring->lock);
	if (due)
		gpamap_eventfd_signal(ring->eventfd);
	return true;
}

/* A reference; NULL for none. */
static struct eventfd_ctx *bell_get(int fd)
{
	return fd == -1 ? NULL : eventfd_ctx_fdget(fd);
}

static void bell_put(struct eventfd_ctx *eventfd)
{
	if (eventfd)
		eventfd_ctx_put(eventfd);
}

static void ring_put(struct gpamap_ring_buffer *ring)
{
	if (!refcount_dec_and_test(&ring->refs))
		return;
	/* With no region nobody starts it again. */
	hrtimer_cancel(&ring->timer);
	bell_put(ring->eventfd);
	vfree(ring->header);
	kfree(ring);
}

/* A reference, for who has no lock of the map. */
static struct gpamap_ring_buffer *ring_get(struct gpamap_ties *ties, u32 id)
{
	struct gpamap_ring_buffer *ring;

	xa_lock(&ties->rings);
	ring = xa_load(&ties->rings, id);
	if (ring)
		refcount_inc(&ring->refs);
	xa_unlock(&ties->rings);
	return ring;
}

/* At the end of the map. No region is left, and nothing is mapped. */
void gpamap_rings_free(struct gpamap_ties *ties)
{
	struct gpamap_ring_buffer *ring;
	unsigned long id;

	xa_for_each(&ties->rings, id, ring)
		ring_put(ring);
	xa_destroy(&ties->rings);
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
	ring->header->version = GPAMAP_LAYOUT_VERSION;
	ring->header->header_size = sizeof(*ring->header);
	refcount_set(&ring->refs, 1);
	ring->nr_entries = cmd->nr_entries;
	ring->watermark = cmd->watermark;
	ring->delay = ns_to_ktime((u64)cmd->delay_us * NSEC_PER_USEC);
	hrtimer_setup(&ring->timer, ring_delay_over, CLOCK_MONOTONIC, HRTIMER_MODE_REL_SOFT);
	ring->eventfd = eventfd;
	spin_lock_init(&ring->lock);
	return ring;
}

static int ring_add(struct gpamap_ties *ties, const struct gpamap_ring *cmd)
{
	struct gpamap_ring_buffer *ring;
	struct eventfd_ctx *eventfd;
	int rc;

	if (xa_load(&ties->rings, cmd->id))
		return -EEXIST;
	eventfd = bell_get(cmd->fd);
	if (IS_ERR(eventfd))
		return PTR_ERR(eventfd);
	if (ties->nr_rings == GPAMAP_MAX_RINGS) {
		rc = -ENOSPC;
		goto err_put;
	}
	ring = ring_alloc(cmd, eventfd);
	if (!ring) {
		rc = -ENOMEM;
		goto err_put;
	}
	rc = xa_insert(&ties->rings, cmd->id, ring, GPAMAP_GFP);
	if (rc) {
		ring_put(ring);
		return rc;
	}
	ties->nr_rings++;
	return 0;

err_put:
	bell_put(eventfd);
	return rc;
}

static int ring_remove(struct gpamap_ties *ties, u32 id)
{
	struct gpamap_ring_buffer *ring = xa_load(&ties->rings, id);

	if (!ring)
		return -ENOENT;
	/* With no region no vCPU has it: none was in an access when the last one left. */
	if (ring->nr_regions)
		return -EBUSY;
	xa_erase(&ties->rings, id);
	ties->nr_rings--;
	ring_put(ring);
	return 0;
}

/* Makes a ring or removes one: what struct gpamap_ring says, under the lock of the map. */
int gpamap_ring_change(struct gpamap_ties *ties, const struct gpamap_ring *cmd)
{
	if (cmd->flags & GPAMAP_RING_REMOVE)
		return ring_remove(ties, cmd->id);
	return ring_add(ties, cmd);
}

/* One more region will post to it; one less. */
void gpamap_ring_join(struct gpamap_ring_buffer *ring)
{
	ring->nr_regions++;
}

void gpamap_ring_leave(struct gpamap_ring_buffer *ring)
{
	ring->nr_regions--;
}

static int post_check(const struct gpamap_op *op)
{
	return op->flags & GPAMAP_POST_REMOVE && op->ref ? -EINVAL : 0;
}

static int post_apply(struct gpamap_tie *tie)
{
	struct gpamap_io_state *next = &tie->io->next;
	struct gpamap_ring_buffer *ring;

	tie->undo->flags = tie->op->flags;
	if (tie->op->flags & GPAMAP_POST_REMOVE) {
		if (!next->ring)
			return -ENOENT;
		tie->undo->tie = next->ring;
		gpamap_ring_leave(next->ring);
		next->ring = NULL;
		return 0;
	}
	ring = xa_load(&tie->ties->rings, tie->op->ref);
	if (!ring)
		return -ENOENT;
	if (next->ring)
		return -EEXIST;
	if (next->handler)
		return -EBUSY;
	gpamap_ring_join(ring);
	next->ring = ring;
	return 0;
}

static void post_undo(struct gpamap_ties *ties, struct gpamap_io *io,
		      struct gpamap_undo *undo)
{
	if (undo->flags & GPAMAP_POST_REMOVE)
		gpamap_ring_join(undo->tie);
	else
		gpamap_ring_leave(io->next.ring);
	/* What was removed, or nothing. */
	io->next.ring = undo->tie;
}

const struct gpamap_tie_kind gpamap_post_kind = {
	.fields = GPAMAP_F_FLAGS | GPAMAP_F_REF,
	.flags = GPAMAP_POST_REMOVE,
	.remove = GPAMAP_POST_REMOVE,
	.regions = BIT(GPAMAP_REGION_IO),
	.check = post_check,
	.apply = post_apply,
	.undo = post_undo,
};

/* All of the ring whose id is the lower half of the number of the page. */
int gpamap_ring_mmap(struct gpamap_ties *ties, struct vm_area_struct *vma)
{
	u64 id = (u64)vma->vm_pgoff - GPAMAP_RING_PGOFF;
	struct gpamap_ring_buffer *ring;
	unsigned long i, nr = vma_pages(vma);
	int rc = 0;

	if (id > U32_MAX)
		return -EINVAL;
	ring = ring_get(ties, id);
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
