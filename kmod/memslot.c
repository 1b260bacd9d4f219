// SPDX-License-Identifier: GPL-2.0
/*
 * From the memslots that KVM has to those that it is to have, all or nothing.
 *
 * A plan is made from the changes of views, so its cost is that of the change. Slots
 * that are the same before and after drop out of it. All deletes come before all
 * creates (rule 31), in all address spaces, so no new slot meets an old one of ours.
 * Every new slot has its id before KVM is called for the first time, the lowest that is
 * free then (rule 40), and its place in the table is reserved: whatever of ours can
 * fail has failed by then.
 *
 * If KVM refuses an operation, those done before are undone in reverse order. A slot
 * that has to be created again needs memory of KVM's; it may use the reserves. If even
 * that fails, memslots and view disagree for good: the caller is told so and must not
 * trust either.
 *
 * vCPUs are not held here: between the first delete and the last create a running
 * vCPU sees what KVM has at that moment.
 *
 * Called under the lock of the map, in the process that owns the VM.
 */
#include <linux/bitmap.h>
#include <linux/sched/mm.h>
#include "private.h"

void gpamap_slots_init(struct gpamap_slots *slots)
{
	u32 as;

	for (as = 0; as < GPAMAP_NR_AS; as++)
		xa_init_flags(&slots->as[as], XA_FLAGS_ACCOUNT);
	slots->nr = 0;
}

/* Forgets the slots, whatever KVM has. */
void gpamap_slots_destroy(struct gpamap_slots *slots)
{
	struct gpamap_slot *slot;
	unsigned long gfn;
	u32 as;

	for (as = 0; as < GPAMAP_NR_AS; as++) {
		xa_for_each(&slots->as[as], gfn, slot)
			kfree(slot);
		xa_destroy(&slots->as[as]);
	}
	slots->nr = 0;
}

/* The region that a slot of an attached map shows. */
const struct gpamap_region *gpamap_slot_region(const struct gpamap *map,
					       const struct gpamap_slot *slot)
{
	return gpamap_flatview_find(map->memory[slot->as_id]->view, slot->gpa)->region;
}

static unsigned long slot_gfn(const struct gpamap_slot *slot)
{
	return slot->gpa >> PAGE_SHIFT;
}

static int plan_append(struct gpamap_slot ***list, u32 *nr, u32 *max,
		       struct gpamap_slot *slot)
{
	if (*nr == *max) {
		u32 new_max = max(2 * *max, 8U);
		struct gpamap_slot **p;

		p = kvmalloc_array(new_max, sizeof(*p), GPAMAP_GFP);
		if (!p)
			return -ENOMEM;
		if (*list)
			memcpy(p, *list, *nr * sizeof(*p));
		kvfree(*list);
		*list = p;
		*max = new_max;
	}
	(*list)[(*nr)++] = slot;
	return 0;
}

static int add_gone(struct gpamap_plan *plan, struct gpamap_slots *slots, u32 as_id,
		    const struct gpamap_range *range)
{
	struct gpamap_slot want, *slot;
	int rc;

	rc = gpamap_slot_first(range, PAGE_SHIFT, &want);
	while (rc > 0) {
		slot = xa_load(&slots->as[as_id], slot_gfn(&want));
		if (WARN_ON_ONCE(!slot))
			return -EIO;
		rc = plan_append(&plan->gone, &plan->nr_gone, &plan->max_gone, slot);
		if (rc)
			return rc;
		rc = gpamap_slot_next(range, PAGE_SHIFT, &want);
	}
	return rc;
}

static int add_come(struct gpamap_plan *plan, struct gpamap_slots *slots, u32 as_id,
		    const struct gpamap_range *range, u32 max)
{
	struct gpamap_slot want, *slot;
	int rc;

	rc = gpamap_slot_first(range, PAGE_SHIFT, &want);
	while (rc > 0) {
		cond_resched();
		/* Each of them is wanted, also those that are there already. */
		if (plan->nr_come == max)
			return -ENOSPC;
		want.as_id = as_id;
		slot = kmemdup(&want, sizeof(want), GPAMAP_GFP);
		if (!slot)
			return -ENOMEM;
		rc = plan_append(&plan->come, &plan->nr_come, &plan->max_come, slot);
		if (rc) {
			kfree(slot);
			return rc;
		}
		rc = xa_reserve(&slots->as[as_id], slot_gfn(slot), GPAMAP_GFP);
		if (rc)
			return rc;
		rc = gpamap_slot_next(range, PAGE_SHIFT, &want);
	}
	return rc;
}

/* Takes out of the plan, from @gone and @come on, what would be deleted and made again. */
static void drop_same(struct gpamap_plan *plan, u32 gone, u32 come)
{
	u32 g = gone, c = come, nr_gone = gone, nr_come = come;

	while (g < plan->nr_gone || c < plan->nr_come) {
		struct gpamap_slot *old = g < plan->nr_gone ? plan->gone[g] : NULL;
		struct gpamap_slot *new = c < plan->nr_come ? plan->come[c] : NULL;

		if (old && new && gpamap_slot_equal(old, new)) {
			kfree(new);
			g++;
			c++;
		} else if (!new || (old && old->gpa <= new->gpa)) {
			plan->gone[nr_gone++] = old;
			g++;
		} else {
			plan->come[nr_come++] = new;
			c++;
		}
	}
	plan->nr_gone = nr_gone;
	plan->nr_come = nr_come;
}

/**
 * gpamap_plan_add() - Add to a plan what the change of a view calls for
 * @plan: The plan, zeroed at first
 * @vm: The VM
 * @slots: What KVM has
 * @as_id: KVM address space of the view
 * @changes: How the view changes
 *
 * Return: 0; -EINVAL when memory in the view cannot be a slot; -ENOSPC when there are
 * more new slots than ids; -ENOMEM.
 */
int gpamap_plan_add(struct gpamap_plan *plan, const struct gpamap_vm *vm,
		    struct gpamap_slots *slots, u32 as_id,
		    const struct gpamap_changes *changes)
{
	u32 gone = plan->nr_gone, come = plan->nr_come;
	u32 i;
	int rc = 0;

	for (i = 0; !rc && i < changes->nr_gone; i++)
		rc = add_gone(plan, slots, as_id, &changes->gone[i]);
	for (i = 0; !rc && i < changes->nr_come; i++)
		rc = add_come(plan, slots, as_id, &changes->come[i],
			      come + vm->nr_slots);
	if (!rc)
		drop_same(plan, gone, come);
	return rc;
}

/**
 * gpamap_plan_ids() - Give every new slot an id
 * @plan: The plan; to be committed or aborted, even after an error
 * @vm: The VM
 *
 * Return: 0; -ENOSPC when there are too few ids; the errors of gpamap_vm_check_slot().
 */
int gpamap_plan_ids(struct gpamap_plan *plan, struct gpamap_vm *vm)
{
	unsigned long from[GPAMAP_NR_AS] = { 0 };
	u32 i;
	int rc;

	for (i = 0; i < plan->nr_come; i++) {
		rc = gpamap_vm_check_slot(vm, plan->come[i]);
		if (rc)
			return rc;
	}
	plan->has_ids = true;
	for (i = 0; i < plan->nr_gone; i++)
		__clear_bit(plan->gone[i]->id - vm->first_slot,
			    vm->ids[plan->gone[i]->as_id]);
	for (i = 0; i < plan->nr_come; i++) {
		struct gpamap_slot *slot = plan->come[i];
		unsigned long id;

		id = find_next_zero_bit(vm->ids[slot->as_id], vm->nr_slots,
					from[slot->as_id]);
		if (id == vm->nr_slots)
			return -ENOSPC;
		__set_bit(id, vm->ids[slot->as_id]);
		from[slot->as_id] = id + 1;
		slot->id = vm->first_slot + id;
	}
	return 0;
}

/* Puts back what was, after @deleted deletes and @created creates. */
static int roll_back(const struct gpamap_plan *plan, struct gpamap_vm *vm, u32 deleted,
		     u32 created)
{
	unsigned int flags = memalloc_noreclaim_save();
	int rc = 0;

	while (!rc && created)
		rc = gpamap_vm_delete_slot(vm, plan->come[--created]);
	while (!rc && deleted)
		rc = gpamap_vm_create_slot(vm, plan->gone[--deleted]);
	memalloc_noreclaim_restore(flags);
	return rc;
}

/**
 * gpamap_plan_apply() - Make KVM do it
 * @plan: A plan with ids
 * @vm: The VM
 * @refused: Receives, on an error, the new slot that KVM refused, if it was one
 * @broken: Set when, after an error, KVM could not be brought back
 *
 * Return: 0 or what KVM answered: -EEXIST where a slot of the VMM's is in the way;
 * -EINTR when the caller is being killed and it takes deletes only to go back.
 */
int gpamap_plan_apply(struct gpamap_plan *plan, struct gpamap_vm *vm,
		      struct gpamap_slot *refused, bool *broken)
{
	u32 deleted, created = 0;
	int rc = 0;

	for (deleted = 0; deleted < plan->nr_gone; deleted++) {
		rc = gpamap_vm_delete_slot(vm, plan->gone[deleted]);
		if (rc)
			goto err_roll_back;
	}
	for (; created < plan->nr_come; created++) {
		/*
		 * With deletes behind it, it goes on: a killed process gets no memory to
		 * create slots again.
		 */
		if (!plan->nr_gone && fatal_signal_pending(current))
			rc = -EINTR;
		else
			rc = gpamap_vm_create_slot(vm, plan->come[created]);
		if (rc) {
			/* EFAULT and EINTR are about the caller, not about the slot. */
			if (rc != -EFAULT && rc != -EINTR)
				*refused = *plan->come[created];
			goto err_roll_back;
		}
	}
	return 0;

err_roll_back:
	*broken = roll_back(plan, vm, deleted, created);
	return rc;
}

static void plan_free(struct gpamap_plan *plan)
{
	kvfree(plan->gone);
	kvfree(plan->come);
	memset(plan, 0, sizeof(*plan));
}

/*
 * After gpamap_plan_apply(): the table has what KVM has. Stores replace entries or
 * fill reserved ones, and come before erasing, so nothing is allocated.
 */
void gpamap_plan_commit(struct gpamap_plan *plan, struct gpamap_slots *slots)
{
	u32 i;

	for (i = 0; i < plan->nr_come; i++) {
		struct gpamap_slot *slot = plan->come[i];

		xa_store(&slots->as[slot->as_id], slot_gfn(slot), slot, 0);
	}
	for (i = 0; i < plan->nr_gone; i++) {
		struct gpamap_slot *slot = plan->gone[i];
		struct xarray *xa = &slots->as[slot->as_id];

		if (xa_load(xa, slot_gfn(slot)) == slot)
			xa_erase(xa, slot_gfn(slot));
		kfree(slot);
	}
	slots->nr += plan->nr_come;
	slots->nr -= plan->nr_gone;
	plan_free(plan);
}

/* Forgets the plan. KVM has what it had. */
void gpamap_plan_abort(struct gpamap_plan *plan, struct gpamap_slots *slots,
		       struct gpamap_vm *vm)
{
	u32 i;

	for (i = 0; i < plan->nr_come; i++) {
		struct gpamap_slot *slot = plan->come[i];

		if (slot->id != GPAMAP_SLOT_NONE)
			__clear_bit(slot->id - vm->first_slot, vm->ids[slot->as_id]);
		xa_release(&slots->as[slot->as_id], slot_gfn(slot));
		kfree(slot);
	}
	for (i = 0; plan->has_ids && i < plan->nr_gone; i++)
		__set_bit(plan->gone[i]->id - vm->first_slot,
			  vm->ids[plan->gone[i]->as_id]);
	plan_free(plan);
}
