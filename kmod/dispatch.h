/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Answering accesses: from an address, by what the published views show there, to what is tied
 * to the region; and the records of those that leave.
 */
#ifndef GPAMAP_DISPATCH_H
#define GPAMAP_DISPATCH_H

#include "kvm.h"
#include "ties.h"

struct vm_area_struct;

/* What readers without a lock see: the views of one generation. Under RCU. */
struct gpamap_snapshot {
	struct rcu_head rcu;
	u64 generation;
	const struct gpamap_flatview *bus[GPAMAP_NR_BUS_VIEWS];	/* NULL for none */
	u32 bus_space[GPAMAP_NR_BUS_VIEWS];			/* their ids */
	u32 nr;
	struct {
		u32 space;
		const struct gpamap_flatview *view;
	} views[];			/* by id of the space */
};

/* Of a map: who is asked about accesses (gpamap_dispatch_ops). */
struct gpamap_dispatch {
	/* RCU; written under the lock of the map. NULL before the first commit. */
	struct gpamap_snapshot __rcu *snapshot;
	/* Likewise: the VM, for who looks at its buses. NULL while detached. */
	struct gpamap_vm __rcu *vm;
	u32 number;			/* of the map, for traces */

	/* Set once, by cmpxchg(); freed with the map. Of struct gpamap_exit. */
	struct page *exits[GPAMAP_MAX_EXIT_PAGES];
};

/* dispatch.c */
extern const struct gpamap_vm_ops gpamap_dispatch_ops;
const struct gpamap_range *gpamap_snapshot_find(const struct gpamap_snapshot *snapshot,
						u32 space, u64 addr);

/* exits.c */
void gpamap_exits_layout(struct gpamap_layout *layout);
int gpamap_exits_mmap(struct gpamap_dispatch *dispatch, struct vm_area_struct *vma);
void gpamap_exit_tell(struct gpamap_dispatch *dispatch, u32 vcpu_id,
		      const struct gpamap_exit *exit);
void gpamap_exits_free(struct gpamap_dispatch *dispatch);

#endif /* GPAMAP_DISPATCH_H */
