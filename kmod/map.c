// SPDX-License-Identifier: GPL-2.0
/*
 * What happens to a map: attach, detach, and the commit of a batch.
 *
 * A commit goes through the stages in one direction: operations to the tree, new
 * views from the tree, new slots from the view of the memory space, and KVM from
 * the old slots to the new. Each stage leaves the one before it reversible; only
 * when KVM has the new slots is the transaction committed, which cannot fail. On
 * an error in any stage the stages before it are undone and the map is as it was.
 *
 * What is wrong with a result (too many ranges, memory that cannot be a slot, a
 * slot that KVM refuses) is no operation's own error. The one to blame is found
 * while the batch is undone, from its end: it is the one without which the
 * trouble is gone.
 *
 * A map whose slots could not be rolled back is broken: it answers EIO to all but
 * QUERY and close, for nothing it says about slots could be trusted.
 *
 * gpamap_attach() and gpamap_detach() are called with the lock of the map held;
 * gpamap_apply() takes it itself, so that no user memory is read under it.
 */
#include <linux/uaccess.h>
#include "private.h"

static int map_check_usable(const struct gpamap *map)
{
	lockdep_assert_held(&map->lock);

	if (map->broken)
		return -EIO;
	return map->vm ? gpamap_vm_check_owner(map->vm) : 0;
}

/* The view that slots follow, once rendered; NULL without a memory space. */
static struct gpamap_flatview *memory_view(struct gpamap *map, bool next)
{
	struct gpamap_space *space = gpamap_tree_memory_space(&map->tree);

	if (!space)
		return NULL;
	return next ? space->next : space->view;
}

/* Brings KVM from map->slots to @slots, and @slots into their place. */
static int set_slots(struct gpamap *map, struct gpamap_slots *slots,
		     const struct gpamap_slot **blame)
{
	int rc;

	rc = gpamap_memslots_commit(map->vm, map->slots, slots, blame, &map->broken);
	if (rc)
		return map->broken ? -EIO : rc;
	gpamap_slots_free(map->slots);
	map->slots = slots;
	return 0;
}

int gpamap_attach(struct gpamap *map, void *arg)
{
	const struct gpamap_slot *blame;
	struct gpamap_attach *cmd = arg;
	struct gpamap_slots *slots;
	int rc;

	if (cmd->flags)
		return -EOPNOTSUPP;
	if (cmd->__reserved)
		return -EINVAL;
	rc = map_check_usable(map);
	if (rc)
		return rc;
	if (map->vm)
		return -EBUSY;

	rc = gpamap_vm_get(cmd->vm_fd, cmd->first_slot, cmd->nr_slots, &map->vm);
	if (rc)
		return rc;
	rc = gpamap_slots_build(NULL, PAGE_SHIFT, &map->slots);
	if (rc)
		goto out_put_vm;
	rc = gpamap_slots_build(memory_view(map, false), PAGE_SHIFT, &slots);
	if (rc)
		goto out_free_slots;
	rc = set_slots(map, slots, &blame);
	if (!rc)
		return 0;

	gpamap_slots_free(slots);
out_free_slots:
	gpamap_slots_free(map->slots);
	map->slots = NULL;
out_put_vm:
	gpamap_vm_put(map->vm);
	map->vm = NULL;
	return rc;
}

int gpamap_detach(struct gpamap *map, void *arg)
{
	const struct gpamap_slot *blame;
	struct gpamap_detach *cmd = arg;
	struct gpamap_slots *none;
	int rc;

	if (cmd->flags)
		return -EOPNOTSUPP;
	rc = map_check_usable(map);
	if (rc)
		return rc;
	if (!map->vm)
		return -ENOENT;

	rc = gpamap_slots_build(NULL, PAGE_SHIFT, &none);
	if (rc)
		return rc;
	rc = set_slots(map, none, &blame);
	if (rc) {
		gpamap_slots_free(none);
		return rc;
	}
	gpamap_slots_free(map->slots);
	map->slots = NULL;
	gpamap_vm_put(map->vm);
	map->vm = NULL;
	return 0;
}

/* The views, and with a VM the slots, that the tree calls for now. */
static int prepare(struct gpamap *map, struct gpamap_txn *txn,
		   struct gpamap_slots **slots)
{
	int rc;

	*slots = NULL;
	rc = gpamap_txn_render(txn);
	if (rc || !map->vm)
		return rc;
	return gpamap_slots_build(memory_view(map, true), PAGE_SHIFT, slots);
}

static bool has_slot(const struct gpamap_slots *slots, const struct gpamap_slot *slot)
{
	u32 i;

	for (i = 0; i < slots->nr; i++)
		if (slots->slots[i].gpa == slot->gpa &&
		    slots->slots[i].npages == slot->npages &&
		    slots->slots[i].hva == slot->hva &&
		    slots->slots[i].readonly == slot->readonly)
			return true;
	return false;
}

/*
 * Undoes operations from the end until the trouble is gone: the result can be
 * prepared again and, if a slot was the trouble, does not have that slot. Returns
 * the index of the operation undone last.
 */
static u32 undo_to_blame(struct gpamap *map, struct gpamap_txn *txn,
			 const struct gpamap_slot *slot)
{
	struct gpamap_slots *slots;
	bool gone;
	int rc;

	while (txn->nr) {
		gpamap_txn_undo(txn);
		rc = prepare(map, txn, &slots);
		if (rc == -ENOMEM || rc == -EINTR)
			break;
		gone = !rc && (!slot || !has_slot(slots, slot));
		gpamap_slots_free(slots);
		if (gone)
			return txn->nr;
	}
	return GPAMAP_NO_OP;
}

static int commit(struct gpamap *map, struct gpamap_txn *txn, u32 *failed_op)
{
	const struct gpamap_slot *blame = NULL;
	struct gpamap_slots *slots;
	int rc;

	rc = prepare(map, txn, &slots);
	if (!rc && map->vm)
		rc = set_slots(map, slots, &blame);
	if (!rc) {
		if (gpamap_txn_commit(txn))
			map->generation++;
		return 0;
	}
	if (rc != -ENOMEM && rc != -EINTR && !map->broken)
		*failed_op = undo_to_blame(map, txn, blame);
	gpamap_slots_free(slots);
	gpamap_txn_abort(txn);
	return rc;
}

static int apply_locked(struct gpamap *map, const struct gpamap_op *ops, u32 nr_ops,
			u32 *failed_op)
{
	struct gpamap_txn txn;
	u32 i;
	int rc;

	rc = map_check_usable(map);
	if (rc || !nr_ops)
		return rc;
	rc = gpamap_txn_begin(&txn, &map->tree, nr_ops);
	if (rc)
		return rc;
	for (i = 0; i < nr_ops; i++) {
		cond_resched();
		rc = fatal_signal_pending(current) ? -EINTR : gpamap_txn_op(&txn, &ops[i]);
		if (rc) {
			*failed_op = i;
			gpamap_txn_abort(&txn);
			return rc;
		}
	}
	return commit(map, &txn, failed_op);
}

static int copy_ops(struct gpamap_op *ops, const struct gpamap_apply *cmd,
		    u32 *failed_op)
{
	u64 from = cmd->ops;
	u32 i;
	int rc;

	for (i = 0; i < cmd->nr_ops; i++, from += cmd->op_size) {
		rc = copy_struct_from_user(&ops[i], sizeof(ops[i]), u64_to_user_ptr(from),
					   cmd->op_size);
		if (rc) {
			*failed_op = i;
			return rc;
		}
	}
	return 0;
}

int gpamap_apply(struct gpamap *map, void *arg)
{
	struct gpamap_apply *cmd = arg;
	struct gpamap_op *ops;
	int rc;

	cmd->out_failed_op = GPAMAP_NO_OP;
	if (cmd->flags)
		return -EOPNOTSUPP;
	if (cmd->__reserved || cmd->op_size < sizeof(*ops))
		return -EINVAL;
	if (cmd->op_size > PAGE_SIZE)
		return -E2BIG;
	if (cmd->nr_ops > GPAMAP_MAX_OPS)
		return -ENOSPC;

	ops = kvcalloc(cmd->nr_ops, sizeof(*ops), GFP_KERNEL_ACCOUNT);
	if (!ops)
		return -ENOMEM;
	rc = copy_ops(ops, cmd, &cmd->out_failed_op);
	if (rc)
		goto out_free;
	rc = mutex_lock_killable(&map->lock);
	if (rc)
		goto out_free;
	rc = apply_locked(map, ops, cmd->nr_ops, &cmd->out_failed_op);
	cmd->out_generation = map->generation;
	mutex_unlock(&map->lock);
out_free:
	kvfree(ops);
	return rc;
}
