/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The pure core: regions, flat views and slot lists, without locks, without
 * KVM, without user copies. region.c, flatview.c, diff.c and extents.c see nothing else of
 * the module and are compiled a second time for userspace (the tool, the host
 * tests), where host.h supplies the handful of kernel services named below.
 *
 * The caller serialises all calls on one tree.
 */
#ifndef GPAMAP_CORE_H
#define GPAMAP_CORE_H

#ifdef __KERNEL__
#include <linux/bug.h>
#include <linux/interval_tree.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/overflow.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/string.h>
#include <linux/types.h>
#include <linux/xarray.h>
#else
#include "host.h"
#endif
#include <uapi/linux/gpamap.h>

/*
 * Charged to the caller. How much is asked for is the caller's choice, within limits, so
 * that there is not enough is an answer and no news for the log.
 */
#define GPAMAP_GFP (GFP_KERNEL_ACCOUNT | __GFP_NOWARN)

/* Room for one line of a view: "  START-LAST (prio P, KIND): NAME @OFFSET". */
#define GPAMAP_RANGE_LINE_LEN (96 + GPAMAP_NAME_LEN)

struct gpamap_root;
struct gpamap_io;

struct gpamap_region {
	/* Fixed at creation. */
	u32 id;
	u32 kind;
	u64 hva;
	struct gpamap_region *target;	/* of an alias; NULL for all others */
	char name[GPAMAP_NAME_LEN];

	/* Changed by operations. */
	u32 flags;			/* enum gpamap_region_flags */
	s32 prio;
	u64 last;
	u64 at;
	u64 offset;

	/* The graph. */
	struct gpamap_region *container;
	u64 seq;			/* when it was attached: larger is later */
	struct interval_tree_node node;	/* [at, at + last] in container->children */
	struct rb_root_cached children;
	struct list_head aliases;	/* those that point here, by ->alias_link */
	struct list_head alias_link;
	struct gpamap_root *root;	/* if spaces look at it */
	/* What is tied to it; not the core's business (tie.c). */
	struct gpamap_io *ties;		/* as the open transaction has it */
	struct gpamap_io __rcu *io;	/* the same, as vCPUs find it; NULL if nothing is */
	bool dead;			/* destroyed by the open transaction */
	struct gpamap_region *was;	/* the dead one that has ->io, and the id; RCU */

	bool listed;			/* scratch of gpamap_tree_list() */

	struct rcu_head rcu;		/* readers of old views may still be here */
};

/* A piece of a flat view. */
struct gpamap_range {
	u64 start;
	u64 last;
	u64 offset;			/* of start in the region */
	struct gpamap_region *region;
	u32 flags;			/* GPAMAP_RANGE_FLAGS */
};

/* What is or-ed along the path, and the mode of the rom device itself. */
#define GPAMAP_PATH_FLAGS (GPAMAP_REGION_READONLY | GPAMAP_REGION_NONVOLATILE | \
			   GPAMAP_REGION_UNMERGEABLE)
#define GPAMAP_RANGE_FLAGS (GPAMAP_PATH_FLAGS | GPAMAP_REGION_ROMD_MODE)

/* Ranges of a view that follow each other; never empty. Two kilobytes. */
#ifndef GPAMAP_CHUNK_RANGES	/* the host tests want many chunks */
#define GPAMAP_CHUNK_RANGES 50
#endif

struct gpamap_chunk {
	struct rcu_head rcu;
	u32 nr;
	struct gpamap_range ranges[GPAMAP_CHUNK_RANGES];
};

/*
 * What a space shows: disjoint ranges by address, merged where they can be. Never
 * changed once made; a new view shares the chunks that it has in common with the
 * one it follows.
 */
struct gpamap_flatview {
	struct rcu_head rcu;
	u32 nr;				/* ranges */
	u32 nr_chunks;
	struct gpamap_chunk *chunks[];
};

/* A place in a view. */
struct gpamap_cursor {
	const struct gpamap_flatview *view;
	u32 chunk;
	u32 index;
};

/* How one view differs from another: the ranges that it lost and got, by address. */
struct gpamap_changes {
	struct gpamap_range *gone;
	struct gpamap_range *come;
	u32 nr_gone;
	u32 nr_come;
	u32 max_gone;
	u32 max_come;
};

/* Addresses of a root where the open transaction may have changed what is seen. */
#define GPAMAP_MAX_DIRTY 32

struct gpamap_dirty {
	u32 nr;				/* disjoint, by address */
	struct {
		u64 start;
		u64 last;
	} ranges[GPAMAP_MAX_DIRTY];
};

/* A region that spaces look at, and what they see. */
struct gpamap_root {
	struct list_head link;		/* in tree->roots */
	struct gpamap_region *region;
	u32 nr_spaces;			/* freed at the end of a transaction if 0 */
	struct gpamap_flatview *view;	/* committed; NULL if there is none yet */
	struct gpamap_flatview *next;	/* rendered; NULL if it is the same */
	struct gpamap_changes changes;	/* from view to next */
	struct gpamap_dirty dirty;
};

struct gpamap_space {
	u32 id;
	u32 kind;
	u32 as_id;
	bool dead;			/* destroyed by the open transaction */
	struct gpamap_root *root;
	char name[GPAMAP_NAME_LEN];
};

struct gpamap_walk_frame {
	struct gpamap_region *region;
	struct gpamap_region *at;	/* the neighbour visited last */
	u64 lo;				/* window in the region */
	u64 hi;
};

struct gpamap_tree {
	struct xarray regions;
	struct xarray spaces;
	struct list_head roots;
	u32 nr_regions;
	u32 nr_spaces;
	u64 seq;			/* of the last attach */
	/* mark()'s way up: room for one region too many. */
	struct gpamap_walk_frame walk[GPAMAP_MAX_DEPTH + 1];
};

/* What brings back the state before one operation. */
struct gpamap_undo {
	u32 code;
	struct gpamap_region *region;
	struct gpamap_space *space;
	void *shadow;			/* dead object whose id was taken over */
	struct gpamap_region *container;
	u64 seq;
	u64 at;
	u64 last;
	u64 offset;
	u32 flags;
	s32 prio;
	/* tie.c's: what is tied to ->region, or was. */
	struct gpamap_io *io;
	void *tie;
	void *table;			/* doorbell.c's: where that is, */
	void *old_table;		/* and what was there before it grew */
	bool fresh;			/* ->io was made for it */
};

/*
 * A transaction: operations are done to the tree at once and noted in a log that
 * undoes them, one by one from the end or all.
 */
struct gpamap_txn {
	struct gpamap_tree *tree;
	struct gpamap_undo *log;
	u32 nr;
	u32 max;
	bool spaces_changed;
	u32 nr_tidy;			/* operations that want slots to be joined */

	/* The operations on what is tied to regions, handed down; NULL where there are none. */
	const struct gpamap_txn_ties *ties;
	void *ties_arg;
};

/* Operations from GPAMAP_OP_DOORBELL on, each with a region, of a transaction. */
struct gpamap_txn_ties {
	/* As those of region.c: all or nothing, noted in @undo, which has the region, or NULL. */
	int (*apply)(struct gpamap_txn *txn, const struct gpamap_op *op,
		     struct gpamap_undo *undo);
	void (*undo)(struct gpamap_txn *txn, struct gpamap_undo *undo);
	/* Whether anything is tied to a region, as the transaction has it. */
	bool (*is_tied)(const struct gpamap_region *region);
};

/* Members of struct gpamap_op that not all operations use, as a set. */
enum gpamap_op_fields {
	GPAMAP_F_MASK = 1 << 0,
	GPAMAP_F_FLAGS = 1 << 1,
	GPAMAP_F_KIND = 1 << 2,
	GPAMAP_F_REF = 1 << 3,
	GPAMAP_F_PRIO = 1 << 4,
	GPAMAP_F_AS = 1 << 5,
	GPAMAP_F_AT = 1 << 6,
	GPAMAP_F_LAST = 1 << 7,
	GPAMAP_F_OFFSET = 1 << 8,
	GPAMAP_F_HVA = 1 << 9,
	GPAMAP_F_NAME = 1 << 10,
	GPAMAP_F_VALUE = 1 << 11,
	GPAMAP_F_ITEMS = 1 << 12,	/* and nr, item_size */
	GPAMAP_F_LEN = 1 << 13,
	GPAMAP_F_FD = 1 << 14,
};

/* A memslot, wanted or existing. */
struct gpamap_slot {
	u64 gpa;
	u64 npages;
	u64 hva;
	u32 as_id;
	u32 id;				/* in the VM's range, or GPAMAP_SLOT_NONE */
	bool readonly;
};

#define GPAMAP_SLOT_NONE 0xffffffffU

struct gpamap_extent {
	u64 start;
	u64 last;
};

/* Stretches of addresses: disjoint, by address, none touching the next. */
struct gpamap_extents {
	u32 nr;
	u32 max;
	struct gpamap_extent extents[];
};

/* On the way through a list of which others keep what they have. */
struct gpamap_cut {
	const struct gpamap_extents *list;	/* NULL for nothing */
	const struct gpamap_extents *others;
	u64 max_len;			/* of a piece */
	u64 from;			/* what is left of the stretch at @i begins here */
	u32 i;
	u32 j;				/* the others before it are behind us */
};

/* Rule 19: what reaches beyond 2^64 is cut. */
static inline u64 gpamap_add_saturated(u64 a, u64 b)
{
	return a + b < a ? U64_MAX : a + b;
}

/* region.c */
void gpamap_tree_init(struct gpamap_tree *tree);
void gpamap_tree_destroy(struct gpamap_tree *tree);
struct gpamap_region *gpamap_tree_region(struct gpamap_tree *tree, u32 id);
struct gpamap_space *gpamap_tree_space(struct gpamap_tree *tree, u32 id);
int __must_check gpamap_tree_list(struct gpamap_tree *tree,
				  struct gpamap_region ***out);
bool gpamap_region_precedes(const struct gpamap_region *a, const struct gpamap_region *b);

u32 gpamap_op_fields(const struct gpamap_op *op);
int __must_check gpamap_txn_begin(struct gpamap_txn *txn, struct gpamap_tree *tree,
				  u32 max);
int __must_check gpamap_txn_op(struct gpamap_txn *txn, const struct gpamap_op *op);
int __must_check gpamap_txn_render(struct gpamap_txn *txn);
bool gpamap_txn_changed(const struct gpamap_txn *txn);
void gpamap_txn_commit(struct gpamap_txn *txn);
void gpamap_txn_abort(struct gpamap_txn *txn);
u32 gpamap_txn_blame(struct gpamap_txn *txn, const struct gpamap_op *ops,
		     int (*bad)(void *arg), void *arg);

/* flatview.c */
void gpamap_dirty_add(struct gpamap_dirty *dirty, u64 start, u64 last);
int __must_check gpamap_flatview_render(struct gpamap_region *root,
					const struct gpamap_flatview *old,
					const struct gpamap_dirty *dirty,
					struct gpamap_flatview **out);
int __must_check gpamap_flatview_cuts(struct gpamap_region *root, unsigned int page_shift,
				      u64 start, u64 last, u64 **cuts, u32 *nr);
int __must_check gpamap_flatview_diff(const struct gpamap_flatview *old,
				      const struct gpamap_flatview *new,
				      struct gpamap_changes *changes);
void gpamap_changes_free(struct gpamap_changes *changes);
void gpamap_flatview_retire(struct gpamap_flatview *view,
			    const struct gpamap_flatview *keep);
bool gpamap_flatview_equal(const struct gpamap_flatview *a,
			   const struct gpamap_flatview *b);
const struct gpamap_range *gpamap_flatview_find(const struct gpamap_flatview *view,
						u64 addr);
const struct gpamap_range *gpamap_flatview_first(struct gpamap_cursor *cursor,
						 const struct gpamap_flatview *view);
const struct gpamap_range *gpamap_flatview_seek(struct gpamap_cursor *cursor,
						const struct gpamap_flatview *view,
						u32 nr);
const struct gpamap_range *gpamap_flatview_next(struct gpamap_cursor *cursor);
const char *gpamap_range_kind(const struct gpamap_range *range);
int gpamap_range_print(char *buf, size_t len, const struct gpamap_range *range);

/* diff.c */
bool gpamap_range_is_memory(const struct gpamap_range *range);
bool gpamap_range_is_readonly(const struct gpamap_range *range);
bool gpamap_range_is_congruent(const struct gpamap_range *range, unsigned int page_shift);
u32 gpamap_range_flags(const struct gpamap_range *range, unsigned int page_shift);
int __must_check gpamap_range_slot(const struct gpamap_range *range, unsigned int page_shift,
				   u64 nr_gfns, struct gpamap_slot *slot);
bool gpamap_slot_serves(const struct gpamap_slot *slot, const struct gpamap_slot *whole,
			unsigned int page_shift);
bool gpamap_slot_is_large(u64 npages, unsigned int page_shift);
bool gpamap_is_cut(u64 gfn, const u64 *cuts, u32 nr_cuts);
bool gpamap_slot_splits_huge(const struct gpamap_slot *whole, u64 gfn,
			     unsigned int page_shift);
u64 gpamap_slot_end(const struct gpamap_slot *whole, u64 gfn, u64 end, unsigned int page_shift,
		    const u64 *cuts, u32 nr_cuts);
bool gpamap_slot_equal(const struct gpamap_slot *a, const struct gpamap_slot *b);

/* extents.c */
struct gpamap_extents *gpamap_extents_alloc(u32 max);
void gpamap_extents_add(struct gpamap_extents *list, u64 start, u64 last);
void gpamap_extents_sort(struct gpamap_extents *list);
bool gpamap_extents_meet(const struct gpamap_extents *list, u64 start, u64 last);
int __must_check gpamap_extents_join(struct gpamap_extents *list,
				     const struct gpamap_extents *others, u32 max,
				     u64 max_gap);
bool gpamap_cut_next(struct gpamap_cut *cut, struct gpamap_extent *piece);

#endif /* GPAMAP_CORE_H */
