// SPDX-License-Identifier: GPL-2.0
/*
 * From one list of memslots to another, all or nothing.
 *
 * Slots that are in both lists are not touched. All deletes come before all
 * creates (rule 31), so no new slot meets an old one of ours. Every new slot has
 * its id before KVM is called for the first time, the lowest that is free then
 * (rule 40), and whatever can be known to fail is refused before.
 *
 * If KVM refuses an operation, those done before are undone in reverse order. A
 * slot that has to be created again needs memory of KVM's; it may use the
 * reserves. If even that fails, memslots and view disagree for good: the caller
 * is told so and must not trust either.
 *
 * vCPUs are not held here: between the first delete and the last create a running
 * vCPU sees what KVM has at that moment.
 *
 * Called under the lock of the map, in the process that owns the VM.
 */
#include <linux/bitmap.h>
#include <linux/sched/mm.h>
#include "private.h"

/* Gives every slot of @new that has none an id. On an error names the slot. */
static int assign_ids(struct gpamap_vm *vm, struct gpamap_slots *new,
		      const struct gpamap_slot **blame)
{
	unsigned long id = 0;
	u32 i;

	bitmap_zero(vm->ids, vm->nr_slots);
	for (i = 0; i < new->nr; i++)
		if (new->slots[i].keep)
			__set_bit(new->slots[i].id - vm->first_slot, vm->ids);
	for (i = 0; i < new->nr; i++) {
		struct gpamap_slot *slot = &new->slots[i];

		if (slot->keep)
			continue;
		*blame = slot;
		if (slot->readonly && !vm->readonly_mem)
			return -EOPNOTSUPP;
		id = find_next_zero_bit(vm->ids, vm->nr_slots, id);
		if (id == vm->nr_slots)
			return -ENOSPC;
		slot->id = vm->first_slot + id++;
	}
	*blame = NULL;
	return 0;
}

/*
 * Puts back what was, after the slots of @old below @deleted and those of @new
 * below @created have been dealt with.
 */
static int roll_back(struct gpamap_vm *vm, const struct gpamap_slots *old, u32 deleted,
		     const struct gpamap_slots *new, u32 created)
{
	unsigned int flags = memalloc_noreclaim_save();
	int rc = 0;

	while (!rc && created--)
		if (!new->slots[created].keep)
			rc = gpamap_vm_delete_slot(vm, &new->slots[created]);
	while (!rc && deleted--)
		if (!old->slots[deleted].keep)
			rc = gpamap_vm_create_slot(vm, &old->slots[deleted]);
	memalloc_noreclaim_restore(flags);
	return rc;
}

/**
 * gpamap_memslots_commit() - Make KVM's slots those of another list
 * @vm: The VM
 * @old: What KVM has
 * @new: What it is to have; receives ids
 * @blame: On an error, the slot of @new that it is about, or NULL
 * @broken: Set when, after an error, KVM could not be brought back to @old
 *
 * Return: 0; -ENOSPC too few ids; -EOPNOTSUPP a read-only slot that KVM cannot
 * make; what KVM answered, -EEXIST where a slot of the VMM's is in the way.
 */
int gpamap_memslots_commit(struct gpamap_vm *vm, struct gpamap_slots *old,
			   struct gpamap_slots *new, const struct gpamap_slot **blame,
			   bool *broken)
{
	u32 deleted = 0, created = 0;
	int rc;

	gpamap_slots_diff(old, new);
	rc = assign_ids(vm, new, blame);
	if (rc)
		return rc;

	for (; !rc && deleted < old->nr; deleted++)
		if (!old->slots[deleted].keep)
			rc = gpamap_vm_delete_slot(vm, &old->slots[deleted]);
	if (rc) {
		deleted--;
		goto err_roll_back;
	}
	for (; !rc && created < new->nr; created++)
		if (!new->slots[created].keep)
			rc = gpamap_vm_create_slot(vm, &new->slots[created]);
	if (rc) {
		created--;
		*blame = &new->slots[created];
		goto err_roll_back;
	}
	return 0;

err_roll_back:
	*broken = roll_back(vm, old, deleted, new, created);
	return rc;
}
