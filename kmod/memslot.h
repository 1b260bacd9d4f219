/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The memslots of an attached VM, and the way from those that it has to others.
 */
#ifndef GPAMAP_MEMSLOT_H
#define GPAMAP_MEMSLOT_H

#include "kvm.h"

/* The memslots of an attached VM, as KVM has them. */
struct gpamap_slots {
	struct xarray as[GPAMAP_NR_AS];	/* of struct gpamap_slot, by page number */
	u32 nr;
};

struct gpamap_slot_list {
	struct gpamap_slot **slots;
	u32 nr;
	u32 max;
};

struct gpamap_move {
	struct gpamap_slot *from;	/* entry of struct gpamap_slots */
	struct gpamap_slot *to;		/* the plan's own until committed */
	bool placed;			/* while they are put in order */
};

/* From the slots that KVM has to those that it is to have: deletes, moves, creates. */
struct gpamap_plan {
	struct gpamap_slot_list gone;	/* entries of struct gpamap_slots */
	struct gpamap_move *moves;	/* in the order in which they can be done */
	u32 nr_moves;
	struct gpamap_slot_list come;	/* the plan's own until committed */
	u64 taken;			/* see struct gpamap_apply */
	bool has_ids;			/* ids of gone are free, come have theirs */
};

void gpamap_slots_init(struct gpamap_slots *slots);
void gpamap_slots_destroy(struct gpamap_slots *slots);
int __must_check gpamap_plan_add(struct gpamap_plan *plan, const struct gpamap_vm *vm,
				 struct gpamap_slots *slots, u32 as_id,
				 const struct gpamap_changes *changes,
				 struct gpamap_region *root);
int __must_check gpamap_plan_add_joined(struct gpamap_plan *plan,
					const struct gpamap_vm *vm,
					struct gpamap_slots *slots, u32 as_id,
					const struct gpamap_changes *changes,
					struct gpamap_region *root);
int __must_check gpamap_plan_finish(struct gpamap_plan *plan, struct gpamap_vm *vm,
				    u32 *short_of);
bool gpamap_plan_is_empty(const struct gpamap_plan *plan);
int __must_check gpamap_plan_apply(struct gpamap_plan *plan, struct gpamap_slots *slots,
				   struct gpamap_vm *vm, struct gpamap_slot *refused,
				   int *broken);
int __must_check gpamap_plan_unapply(struct gpamap_plan *plan, struct gpamap_slots *slots,
				     struct gpamap_vm *vm);
void gpamap_plan_commit(struct gpamap_plan *plan, struct gpamap_slots *slots);
void gpamap_plan_abort(struct gpamap_plan *plan, struct gpamap_slots *slots,
		       struct gpamap_vm *vm);

#endif /* GPAMAP_MEMSLOT_H */
