// SPDX-License-Identifier: GPL-2.0
/*
 * Doorbells: eventfds that are signalled when the guest writes at an offset of a region.
 *
 * A region's doorbells are a hash table by offset, so that a write costs a search among
 * those of one region, however many there are, and KVM's bus holds none of them.
 *
 * The table that vCPUs search is the one that operations change, too, so that a change costs
 * what it changes: a doorbell that comes is there but not live, one that goes is there and live
 * but leaving, until the transaction is published. So vCPUs can be in the chains meanwhile; they
 * are under RCU (dispatch.c), a doorbell is put at the head of its chain when it is complete, and
 * one that was never live goes after a grace period. Only when a table has become too small do
 * operations go on with another one, of twice the size, which vCPUs do not know yet. That takes
 * the doorbells along by their second link; those that are leaving stay behind.
 *
 * Rules of MEMORY_MODEL kept here: 44.
 */
#include <linux/eventfd.h>
#include <linux/hash.h>
#include <linux/random.h>
#include "ties.h"

struct bell {
	struct bell *next[2];		/* of the same hash; which one says the table */
	struct eventfd_ctx *eventfd;
	u64 offset;
	u64 value;
	u32 len;			/* 0: any */
	bool match;
	bool fast;			/* on the fast bus; nobody reads there */
	bool leaving;			/* operations do not see it any more */
	/* For vCPUs: changed when none is in an access. */
	u8 rung_by;			/* ANY_VALUE, ITS_VALUE or NOTHING, being not live yet */
	struct rcu_head rcu;
};

/* With about one doorbell for each head. */
struct gpamap_bells {
	u32 nr;				/* linked */
	u32 nr_match;			/* of them want a value */
	u32 bits;			/* of the number of heads */
	u32 shift;			/* 64 less that */
	u32 link;			/* which of bell->next */
	u64 seed;			/* so that a chain cannot be made long on purpose */
	struct bell **heads;
};

#define ANY_VALUE 0
#define ITS_VALUE 1
#define NOTHING 2

#define MIN_BITS 2

/* Those that want no value, and those that want one, are in chains apart. */
static u32 hash_bell(const struct gpamap_bells *bells, u64 offset, bool match, u64 value)
{
	u64 key = offset ^ bells->seed;

	if (match)
		key ^= hash_64(value ^ bells->seed, 64);
	return key * GOLDEN_RATIO_64 >> bells->shift;
}

/* ---- a write ---------------------------------------------------------- */

static __always_inline u32 ring_chain(const struct gpamap_bells *bells, u64 offset, u32 len,
				      bool match, u64 value)
{
	const u32 link = bells->link;
	const struct bell *bell;
	u32 rang = 0;

	/* Pairs with bell_link(). */
	bell = smp_load_acquire(&bells->heads[hash_bell(bells, offset, match, value)]);
	for (; bell; bell = READ_ONCE(bell->next[link])) {
		if (bell->offset != offset || bell->rung_by != (match ? ITS_VALUE : ANY_VALUE) ||
		    (bell->len && bell->len != len) || (match && bell->value != value))
			continue;
		gpamap_eventfd_signal(bell->eventfd);
		rang++;
	}
	return rang;
}

/* How many a write rings; @value is that of a write of 1, 2, 4 or 8 bytes. Under RCU. */
u32 gpamap_doorbell_ring(const struct gpamap_io *io, u64 offset, u32 len, u64 value)
{
	const struct gpamap_bells *bells = io->now.bells;
	u32 rang;

	if (!bells)
		return 0;
	rang = ring_chain(bells, offset, len, false, 0);
	if (READ_ONCE(bells->nr_match))
		rang += ring_chain(bells, offset, len, true, value);
	return rang;
}

/*
 * As gpamap_doorbell_ring() for an access of which only the place is known, and that may be a
 * read: none, unless all that is at the offset was made for that.
 */
u32 gpamap_doorbell_ring_any(const struct gpamap_io *io, u64 offset)
{
	const struct gpamap_bells *bells = io->now.bells;
	const struct bell *bell;

	if (!bells || READ_ONCE(bells->nr_match) || io->now.registers || io->now.handler)
		return 0;
	/* Pairs with bell_link(). */
	bell = smp_load_acquire(&bells->heads[hash_bell(bells, offset, false, 0)]);
	for (; bell; bell = READ_ONCE(bell->next[bells->link]))
		if (bell->offset == offset && !bell->fast && bell->rung_by != NOTHING)
			return 0;
	return ring_chain(bells, offset, 0, false, 0);
}

/* ---- tables ----------------------------------------------------------- */

static struct gpamap_bells *bells_alloc(u32 bits, u32 link)
{
	struct gpamap_bells *bells = kzalloc(sizeof(*bells), GPAMAP_GFP);

	if (!bells)
		return NULL;
	bells->heads = kvcalloc(1UL << bits, sizeof(*bells->heads), GPAMAP_GFP);
	if (!bells->heads) {
		kfree(bells);
		return NULL;
	}
	bells->bits = bits;
	bells->shift = 64 - bits;
	bells->link = link;
	bells->seed = get_random_u64();
	return bells;
}

/* The table, not what is in it. */
static void bells_free(struct gpamap_bells *bells)
{
	if (!bells)
		return;
	kvfree(bells->heads);
	kfree(bells);
}

static void bell_put(struct bell *bell)
{
	eventfd_ctx_put(bell->eventfd);
	/* Of one that was never live vCPUs may be in the chain. */
	kfree_rcu(bell, rcu);
}

/* The table and all in it. No vCPU has it. */
void gpamap_doorbells_put(struct gpamap_bells *bells)
{
	struct bell *bell, *next;
	u32 i;

	for (i = 0; i < 1U << bells->bits; i++) {
		for (bell = bells->heads[i]; bell; bell = next) {
			next = bell->next[bells->link];
			bell_put(bell);
		}
		cond_resched();
	}
	bells_free(bells);
}

/* Those of a region to which nothing else is tied, and no operation is open. */
void gpamap_doorbells_free(struct gpamap_io *io)
{
	if (io->next.bells && io->next.bells != io->now.bells)
		gpamap_doorbells_put(io->next.bells);
	if (io->now.bells)
		gpamap_doorbells_put(io->now.bells);
}

static struct bell **bell_head(struct gpamap_bells *bells, u64 offset, bool match, u64 value)
{
	return &bells->heads[hash_bell(bells, offset, match, value)];
}

/* In front of all others of its hash. */
static void bell_link(struct gpamap_bells *bells, struct bell *bell)
{
	struct bell **head = bell_head(bells, bell->offset, bell->match, bell->value);

	bell->next[bells->link] = *head;
	bells->nr++;
	WRITE_ONCE(bells->nr_match, bells->nr_match + bell->match);
	/* Pairs with ring_chain(). */
	smp_store_release(head, bell);
}

static void bell_unlink(struct gpamap_bells *bells, struct bell *bell)
{
	struct bell **at = bell_head(bells, bell->offset, bell->match, bell->value);

	while (*at != bell)
		at = &(*at)->next[bells->link];
	/* Who is there goes on from it: it stays as it is for a grace period. */
	WRITE_ONCE(*at, bell->next[bells->link]);
	bells->nr--;
	WRITE_ONCE(bells->nr_match, bells->nr_match - bell->match);
}

/* A table of twice the size with all that stays, by the other link. */
static struct gpamap_bells *bells_double(struct gpamap_bells *old)
{
	struct gpamap_bells *bells = bells_alloc(old->bits + 1, !old->link);
	struct bell *bell;
	u32 i;

	for (i = 0; bells && i < 1U << old->bits; i++) {
		for (bell = old->heads[i]; bell; bell = bell->next[old->link])
			if (!bell->leaving)
				bell_link(bells, bell);
		cond_resched();
	}
	return bells;
}

/* A table that no vCPU knows becomes twice as large. */
static int bells_grow(struct gpamap_bells *bells)
{
	struct gpamap_bells old = *bells;
	struct bell *bell, *next;
	u32 i;

	bells->heads = kvcalloc(2UL << old.bits, sizeof(*bells->heads), GPAMAP_GFP);
	if (!bells->heads) {
		bells->heads = old.heads;
		return -ENOMEM;
	}
	bells->bits++;
	bells->shift--;
	bells->nr = 0;
	bells->nr_match = 0;
	for (i = 0; i < 1U << old.bits; i++) {
		for (bell = old.heads[i]; bell; bell = next) {
			next = bell->next[bells->link];
			bell_link(bells, bell);
		}
		cond_resched();
	}
	kvfree(old.heads);
	return 0;
}

/* Makes room for one more. What vCPUs search is not changed; @undo brings it back. */
static int make_room(struct gpamap_io *io, struct gpamap_undo *undo)
{
	struct gpamap_bells *bells = io->next.bells;

	if (!bells) {
		io->next.bells = bells_alloc(MIN_BITS, 0);
		return io->next.bells ? 0 : -ENOMEM;
	}
	if (bells->nr < 1U << bells->bits)
		return 0;
	if (bells != io->now.bells)
		return bells_grow(bells);
	io->next.bells = bells_double(bells);
	if (!io->next.bells) {
		io->next.bells = bells;
		return -ENOMEM;
	}
	undo->old_table = bells;
	return 0;
}

/* ---- operations ------------------------------------------------------- */

static bool op_match(const struct gpamap_op *op)
{
	return op->flags & GPAMAP_DOORBELL_MATCH;
}

/* Rung by the same writes, but for their length. */
static bool bell_same(const struct bell *bell, const struct gpamap_op *op)
{
	return bell->offset == op->offset && bell->value == op->value &&
	       bell->match == op_match(op);
}

/*
 * The doorbell that an operation describes, how many will be rung by the same writes, and how
 * many are in the chain for it: with those that are leaving, until they have left.
 */
static struct bell *bell_find(const struct gpamap_io *io, const struct gpamap_op *op,
			      const struct eventfd_ctx *eventfd, u32 *nr_same, u32 *nr_linked)
{
	struct gpamap_bells *bells = io->next.bells;
	struct bell *bell, *found = NULL;

	*nr_same = 0;
	*nr_linked = 0;
	if (!bells)
		return NULL;
	bell = *bell_head(bells, op->offset, op_match(op), op->value);
	for (; bell; bell = bell->next[bells->link]) {
		if (!bell_same(bell, op))
			continue;
		++*nr_linked;
		if (bell->leaving)
			continue;
		++*nr_same;
		if (bell->len == op->len && bell->eventfd == eventfd)
			found = bell;
	}
	return found;
}

static int bell_add(struct gpamap_tie *tie, struct eventfd_ctx *eventfd)
{
	const struct gpamap_op *op = tie->op;
	struct gpamap_io *io = tie->io;
	struct bell *bell;
	int rc;

	bell = kzalloc(sizeof(*bell), GPAMAP_GFP);
	if (!bell)
		return -ENOMEM;
	rc = make_room(io, tie->undo);
	if (rc) {
		kfree(bell);
		return rc;
	}
	/* It owns the reference on the eventfd. */
	bell->eventfd = eventfd;
	bell->offset = op->offset;
	bell->value = op->value;
	bell->len = op->len;
	bell->match = op_match(op);
	bell->fast = op->flags & GPAMAP_DOORBELL_FAST;
	bell->rung_by = NOTHING;
	bell_link(io->next.bells, bell);
	tie->undo->tie = bell;
	tie->undo->table = io->next.bells;
	io->nr_bells++;
	io->nr_fast += bell->fast;
	tie->ties->nr_doorbells++;
	return 0;
}

static void bell_remove(struct gpamap_tie *tie, struct bell *bell)
{
	bell->leaving = true;
	tie->undo->tie = bell;
	tie->undo->table = tie->io->next.bells;
	tie->io->nr_bells--;
	tie->io->nr_fast -= bell->fast;
	tie->ties->nr_doorbells--;
}

static bool is_remove(const struct gpamap_undo *undo)
{
	return undo->flags & GPAMAP_DOORBELL_REMOVE;
}

static int doorbell_check(const struct gpamap_op *op)
{
	if (op->len > 8 || (op->len & (op->len - 1)))
		return -EINVAL;
	if (op->flags & GPAMAP_DOORBELL_FAST &&
	    (op->len || op->flags & (GPAMAP_DOORBELL_MATCH | GPAMAP_DOORBELL_REMOVE)))
		return -EINVAL;
	if (!op_match(op))
		return op->value ? -EINVAL : 0;
	if (!op->len || (op->len < 8 && op->value >> (8 * op->len)))
		return -EINVAL;
	return 0;
}

static int doorbell_apply(struct gpamap_tie *tie)
{
	const struct gpamap_op *op = tie->op;
	struct eventfd_ctx *eventfd;
	struct bell *bell;
	u32 nr_same, nr_linked;
	u64 last;
	int rc;

	tie->undo->flags = op->flags;
	/* A write of any length has one byte at least. */
	if (!is_remove(tie->undo) &&
	    (check_add_overflow(op->offset, (u64)max(op->len, 1U) - 1, &last) ||
	     last > tie->region->last))
		return -EINVAL;
	eventfd = eventfd_ctx_fdget(op->fd);
	if (IS_ERR(eventfd))
		return PTR_ERR(eventfd);
	bell = bell_find(tie->io, op, eventfd, &nr_same, &nr_linked);
	if (is_remove(tie->undo)) {
		rc = bell ? 0 : -ENOENT;
		if (bell)
			bell_remove(tie, bell);
		eventfd_ctx_put(eventfd);
		return rc;
	}
	if (bell)
		rc = -EEXIST;
	else if (tie->ties->nr_doorbells >= GPAMAP_MAX_DOORBELLS ||
		 nr_same >= GPAMAP_MAX_SAME_DOORBELLS ||
		 nr_linked >= 2 * GPAMAP_MAX_SAME_DOORBELLS)
		rc = -ENOSPC;
	else
		rc = bell_add(tie, eventfd);
	if (rc)
		eventfd_ctx_put(eventfd);
	return rc;
}

static void doorbell_undo(struct gpamap_ties *ties, struct gpamap_io *io,
			  struct gpamap_undo *undo)
{
	struct bell *bell = undo->tie;

	if (is_remove(undo)) {
		bell->leaving = false;
		io->nr_bells++;
		io->nr_fast += bell->fast;
		ties->nr_doorbells++;
		return;
	}
	io->nr_bells--;
	io->nr_fast -= bell->fast;
	ties->nr_doorbells--;
	bell_unlink(undo->table, bell);
	if (undo->old_table) {
		bells_free(io->next.bells);
		io->next.bells = undo->old_table;
	}
	bell_put(bell);
}

static void doorbell_publish(struct gpamap_io *io, struct gpamap_undo *undo)
{
	struct bell *bell = undo->tie;

	if (is_remove(undo))
		bell_unlink(undo->table, bell);
	else
		bell->rung_by = bell->match ? ITS_VALUE : ANY_VALUE;
}

static void doorbell_finish(struct gpamap_undo *undo)
{
	if (is_remove(undo))
		bell_put(undo->tie);
	else
		bells_free(undo->old_table);
}

const struct gpamap_tie_kind gpamap_doorbell_kind = {
	.fields = GPAMAP_F_FLAGS | GPAMAP_F_OFFSET | GPAMAP_F_VALUE | GPAMAP_F_LEN | GPAMAP_F_FD,
	.flags = GPAMAP_DOORBELL_MATCH | GPAMAP_DOORBELL_REMOVE | GPAMAP_DOORBELL_FAST,
	.remove = GPAMAP_DOORBELL_REMOVE,
	.regions = BIT(GPAMAP_REGION_IO) | BIT(GPAMAP_REGION_ROM) | BIT(GPAMAP_REGION_ROMD) |
		   BIT(GPAMAP_REGION_RESERVED),
	.check = doorbell_check,
	.apply = doorbell_apply,
	.undo = doorbell_undo,
	.publish = doorbell_publish,
	.finish = doorbell_finish,
};
