/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The pure core: regions, flat views and slot lists, without locks, without
 * KVM, without user copies. region.c, flatview.c and diff.c see nothing else of
 * the module and are compiled a second time for userspace (the tool, the host
 * tests), where host.h supplies the handful of kernel services named below.
 *
 * The caller serialises all calls on one tree.
 */
#ifndef GPAMAP_CORE_H
#define GPAMAP_CORE_H

#ifdef __KERNEL__
#include <linux/bug.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/overflow.h>
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

/* Most of one kind of line in a view: "  START-LAST (prio P, KIND): NAME @OFFSET\n". */
#define GPAMAP_RANGE_LINE_LEN (96 + GPAMAP_NAME_LEN)

struct gpamap_region {
	/* Fixed at creation. */
	u32 id;
	u32 kind;
	u64 last;
	u64 hva;
	struct gpamap_region *target;	/* of an alias; NULL for all others */
	char name[GPAMAP_NAME_LEN];

	/* Changed by operations. */
	u32 flags;			/* enum gpamap_region_flags */
	s32 prio;
	u64 at;
	u64 offset;
	struct gpamap_region *container;

	/* The graph; every list starts with the most visible. */
	struct list_head children;	/* of regions, by ->sibling */
	struct list_head sibling;
	struct list_head aliases;	/* those that point here, by ->alias_link */
	struct list_head alias_link;
	u32 nr_spaces;			/* spaces that have this as their root */
	bool dead;			/* destroyed by the open transaction */

	/* Scratch of tree_walk(): valid while the epochs are equal. */
	u64 walk_epoch;
	u32 walk_len;
};

/* A piece of a flat view. */
struct gpamap_range {
	u64 start;
	u64 last;
	u64 offset;			/* of start in the region */
	struct gpamap_region *region;
	u32 flags;			/* GPAMAP_REGION_READONLY or 0 */
};

/* What a space shows: disjoint ranges by address, merged where they can be. */
struct gpamap_flatview {
	u32 nr;
	struct gpamap_range ranges[];
};

struct gpamap_space {
	u32 id;
	u32 kind;
	u32 as_id;
	bool dead;			/* destroyed by the open transaction */
	struct gpamap_region *root;
	struct gpamap_flatview *view;	/* NULL until first rendered */
	struct gpamap_flatview *next;	/* rendered, not yet committed */
	char name[GPAMAP_NAME_LEN];
};

struct gpamap_walk_frame {
	struct gpamap_region *region;
	struct gpamap_region *at;	/* the neighbour visited last */
	u32 len;			/* longest path found below so far */
};

struct gpamap_tree {
	struct xarray regions;
	struct xarray spaces;
	u32 nr_regions;
	u32 nr_spaces;
	u64 walk_epoch;
	struct gpamap_walk_frame walk[GPAMAP_MAX_DEPTH];
};

/* What brings back the state before one operation. */
struct gpamap_undo {
	u32 code;
	struct gpamap_region *region;
	struct gpamap_space *space;
	void *shadow;			/* dead object whose id was taken over */
	struct gpamap_region *container;
	struct list_head *prev;		/* the place among the siblings */
	u64 at;
	u64 offset;
	u32 flags;
	s32 prio;
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
};

/* A memslot, wanted or existing. */
struct gpamap_slot {
	u64 gpa;
	u64 npages;
	u64 hva;
	u32 readonly;
	u32 region;			/* id of the region, to be shown */
	u32 id;				/* in the VM's range, or GPAMAP_SLOT_NONE */
	bool keep;			/* result of gpamap_slots_diff() */
};

#define GPAMAP_SLOT_NONE 0xffffffffU

/* By address, disjoint. */
struct gpamap_slots {
	u32 nr;
	struct gpamap_slot slots[];
};

/* region.c */
void gpamap_tree_init(struct gpamap_tree *tree);
void gpamap_tree_destroy(struct gpamap_tree *tree);
struct gpamap_region *gpamap_tree_region(struct gpamap_tree *tree, u32 id);
struct gpamap_space *gpamap_tree_space(struct gpamap_tree *tree, u32 id);
struct gpamap_space *gpamap_tree_memory_space(struct gpamap_tree *tree);
struct gpamap_region *gpamap_region_below(const struct gpamap_region *region,
					  const struct gpamap_region *prev);
struct gpamap_region *gpamap_region_next(const struct gpamap_region *region);

int __must_check gpamap_txn_begin(struct gpamap_txn *txn, struct gpamap_tree *tree,
				  u32 max);
int __must_check gpamap_txn_op(struct gpamap_txn *txn, const struct gpamap_op *op);
int __must_check gpamap_txn_render(struct gpamap_txn *txn);
bool gpamap_txn_commit(struct gpamap_txn *txn);
void gpamap_txn_undo(struct gpamap_txn *txn);
void gpamap_txn_abort(struct gpamap_txn *txn);

/* flatview.c */
int __must_check gpamap_flatview_render(struct gpamap_region *root,
					struct gpamap_flatview **out);
void gpamap_flatview_free(struct gpamap_flatview *view);
bool gpamap_flatview_equal(const struct gpamap_flatview *a,
			   const struct gpamap_flatview *b);
const char *gpamap_range_kind(const struct gpamap_range *range);
int gpamap_range_print(char *buf, size_t len, const struct gpamap_range *range);

/* diff.c */
int __must_check gpamap_slots_build(const struct gpamap_flatview *view,
				    unsigned int page_shift,
				    struct gpamap_slots **out);
void gpamap_slots_free(struct gpamap_slots *slots);
void gpamap_slots_diff(struct gpamap_slots *from, struct gpamap_slots *to);

#endif /* GPAMAP_CORE_H */
