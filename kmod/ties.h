/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is tied to a region: doorbells, registers, a handler, a ring that its writes are posted
 * to, a policy. Each kind is a file, one row in the table of tie.c, and knows offsets in the
 * region; where the region is seen, and how an access is brought here, is not its business.
 *
 * Ties change by operations of a transaction (struct gpamap_txn). There are two states of each
 * region: the one that vCPUs find, and the one that the open transaction has come to. An
 * operation changes only the latter, and takes all memory that it needs; so it can be undone,
 * and what it takes away is still in use. gpamap_ties_publish() makes the second state the first,
 * for all regions of the transaction, cannot fail, and is called while no vCPU is in an access:
 * all of the VM's are held, or there is no VM. So vCPUs read the first state without a lock and
 * without RCU. gpamap_ties_finish() then frees what was untied.
 */
#ifndef GPAMAP_TIES_H
#define GPAMAP_TIES_H

#include <linux/spinlock.h>
#include "core.h"

struct gpamap_bells;
struct gpamap_handler_use;
struct gpamap_registers_page;
struct gpamap_ring_buffer;
struct vm_area_struct;

/* Of a map. */
struct gpamap_ties {
	u32 nr_doorbells;		/* under the lock of the map, and so are all others */
	u32 nr_rings;
	struct xarray rings;		/* by id; also looked up by mmap(), under its lock */
	/* Of pages of registers, between a transaction and mmap(), which has no other lock. */
	spinlock_t pages_lock;
};

/* What is counted of the accesses to a region: see struct gpamap_counters. */
enum gpamap_count {
	GPAMAP_COUNT_READS,
	GPAMAP_COUNT_WRITES,
	GPAMAP_COUNT_EXITS,
	GPAMAP_COUNT_DOORBELLS,
	GPAMAP_COUNT_POSTED,
	GPAMAP_NR_COUNTS,
};

/* What is tied to a region, in one of its two states. */
struct gpamap_io_state {
	struct gpamap_bells *bells;
	struct gpamap_registers_page *registers;
	struct gpamap_handler_use *handler;
	struct gpamap_ring_buffer *ring;
	u32 policy;			/* enum gpamap_policy_kind */
};

struct gpamap_io {
	struct gpamap_io_state now;	/* vCPUs read it; changed when none does */
	struct gpamap_io_state next;	/* under the lock of the map */
	u32 nr_bells;			/* in next */
	u32 nr_fast;			/* of them are on the fast bus */

	/* Written by all vCPUs, so not beside what they only read. */
	atomic64_t counts[GPAMAP_NR_COUNTS] ____cacheline_aligned_in_smp;
};

static inline void gpamap_io_count(struct gpamap_io *io, enum gpamap_count what)
{
	atomic64_inc(&io->counts[what]);
}

/* An operation on what is tied to a region, on its way. */
struct gpamap_tie {
	struct gpamap_ties *ties;
	struct gpamap_region *region;
	struct gpamap_io *io;
	const struct gpamap_op *op;
	void *prepared;			/* by the kind's prepare(); stays the caller's */
	struct gpamap_undo *undo;
};

/* A kind of operation. All but @apply and @undo may be absent. */
struct gpamap_tie_kind {
	u32 fields;			/* of struct gpamap_op that it uses */
	u32 flags;			/* that it knows */
	u32 remove;			/* of these, the one that only takes away */
	u32 regions;			/* kinds that can have it, a bit for each */
	/* Copies what the VMM has in its memory. No lock is held. */
	int (*prepare)(const struct gpamap_op *op, void **prepared);
	void (*unprepare)(void *prepared);
	/* What is wrong with the operation, whatever it is for. */
	int (*check)(const struct gpamap_op *op);
	/* Changes the state that comes, or nothing. */
	int (*apply)(struct gpamap_tie *tie);
	void (*undo)(struct gpamap_ties *ties, struct gpamap_io *io,
		     struct gpamap_undo *undo);
	/* It comes true; no vCPU is in an access. Does not sleep for long. */
	void (*publish)(struct gpamap_io *io, struct gpamap_undo *undo);
	/* vCPUs run again: frees what was taken away. */
	void (*finish)(struct gpamap_undo *undo);
};

/* tie.c */
extern const struct gpamap_txn_ties gpamap_txn_ties;

/* Hangs on gpamap_txn.ties_arg. */
struct gpamap_tie_ops {
	struct gpamap_ties *ties;
	void **prepared;		/* by operation; NULL if nothing was to be prepared */
};

void gpamap_ties_init(struct gpamap_ties *ties);
void gpamap_ties_destroy(struct gpamap_ties *ties, struct gpamap_tree *tree);
int __must_check gpamap_ties_prepare(const struct gpamap_op *ops, u32 nr, void ***prepared,
				     u32 *failed);
void gpamap_ties_unprepare(const struct gpamap_op *ops, u32 nr, void **prepared);
bool gpamap_ties_changed(const struct gpamap_txn *txn);
void gpamap_ties_publish(const struct gpamap_txn *txn);
void gpamap_ties_finish(const struct gpamap_txn *txn);
bool gpamap_io_is_tied(const struct gpamap_region *region);
const struct gpamap_io *gpamap_region_io(const struct gpamap_region *region);

/* doorbell.c */
extern const struct gpamap_tie_kind gpamap_doorbell_kind;
u32 gpamap_doorbell_ring_any(const struct gpamap_io *io, u64 offset);
u32 gpamap_doorbell_ring(const struct gpamap_io *io, u64 offset, u32 len, u64 value);
void gpamap_doorbells_put(struct gpamap_bells *bells);
void gpamap_doorbells_free(struct gpamap_io *io);

/* registers.c */
extern const struct gpamap_tie_kind gpamap_registers_kind;
void gpamap_registers_layout(struct gpamap_layout *layout);
int gpamap_registers_mmap(struct gpamap_ties *ties, struct gpamap_tree *tree,
			  struct vm_area_struct *vma);
bool gpamap_registers_has(const struct gpamap_io *io, u64 offset, u32 len);
bool gpamap_registers_read(const struct gpamap_io *io, u64 offset, u32 len, void *val);
bool gpamap_registers_write(const struct gpamap_io *io, u64 offset, u32 len, u64 value);
void gpamap_registers_put(struct gpamap_registers_page *registers);

/* handler.c */
extern const struct gpamap_tie_kind gpamap_handler_kind;
bool gpamap_handler_access(struct gpamap_handler_use *use, u64 offset, u32 len, bool write,
			   void *val);
const char *gpamap_handler_name(const struct gpamap_io *io);
void gpamap_handler_put(struct gpamap_handler_use *use);

/* ring.c */
extern const struct gpamap_tie_kind gpamap_post_kind;
int gpamap_ring_change(struct gpamap_ties *ties, const struct gpamap_ring *cmd);
void gpamap_ring_layout(struct gpamap_layout *layout);
int gpamap_ring_mmap(struct gpamap_ties *ties, struct vm_area_struct *vma);
bool gpamap_ring_drained(const struct gpamap_io *io);
bool gpamap_ring_post(const struct gpamap_io *io, u64 generation, u32 region, u64 offset,
		      u32 len, u64 value);
void gpamap_ring_leave(struct gpamap_ring_buffer *ring);
void gpamap_ring_join(struct gpamap_ring_buffer *ring);
void gpamap_rings_free(struct gpamap_ties *ties);

/* policy.c */
extern const struct gpamap_tie_kind gpamap_policy_kind;
bool gpamap_policy_access(const struct gpamap_io *io, u32 len, bool write, void *val);

#endif /* GPAMAP_TIES_H */
