// SPDX-License-Identifier: GPL-2.0
/*
 * What happens to a map: attach, detach, and the commit of a batch.
 *
 * A commit goes through the stages in one direction: operations to the tree, new views
 * from the tree where it is dirty, a plan for the slots from the changes of the views,
 * and KVM from the old slots to the new. Each stage leaves the one before it reversible;
 * only when KVM has the new slots is the transaction committed and the new views are
 * shown to readers, which cannot fail. On an error in any stage the stages before it
 * are undone and the map is as it was.
 *
 * What is wrong with a result (too many ranges, memory that cannot be a slot, a slot
 * that KVM refuses) is no operation's own error. The one to blame is searched for by
 * going back to where the trouble begins.
 *
 * A map whose slots could not be rolled back is broken: it answers EIO to all but
 * QUERY, LOOKUP and close, for nothing it says about slots could be trusted.
 *
 * Readers find the views of all spaces, of one generation, in map->snapshot, which is
 * published by show() and read under RCU by query.c.
 *
 * gpamap_attach() and gpamap_detach() are called with the lock of the map held;
 * gpamap_apply() takes it itself, so that no user memory is read under it.
 */
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/uaccess.h>
#include "private.h"

static bool verify;
module_param(verify, bool, 0600);
MODULE_PARM_DESC(verify, "Compare every rendered view with one rendered from nothing");

/* What a transaction brings about, on its way. */
struct commit {
	struct gpamap *map;
	struct gpamap_txn txn;
	struct gpamap_plan plan;
	struct gpamap_snapshot *snapshot;
	struct gpamap_slot refused;	/* by KVM, if npages is not 0 */
};

static int map_check_usable(const struct gpamap *map)
{
	lockdep_assert_held(&map->lock);

	if (map->broken)
		return -EIO;
	return map->vm ? gpamap_vm_check_owner(map->vm) : 0;
}

/* The root that the slots of a KVM address space are to follow, or NULL. */
static struct gpamap_root *memory_root(struct gpamap *map, u32 as_id)
{
	struct gpamap_space *space;
	unsigned long id;

	xa_for_each(&map->tree.spaces, id, space)
		if (!space->dead && space->kind == GPAMAP_SPACE_MEMORY &&
		    space->as_id == as_id)
			return space->root;
	return NULL;
}

/* The view that a root will have after the commit. */
static const struct gpamap_flatview *root_view(const struct gpamap_root *root)
{
	if (!root)
		return NULL;
	return root->next ?: root->view;
}

/* Adds to the plan how the slots of one address space change. */
static int plan_as(struct gpamap *map, struct gpamap_plan *plan, u32 as_id)
{
	struct gpamap_root *old = map->memory[as_id];
	struct gpamap_root *new = memory_root(map, as_id);
	struct gpamap_changes changes = { 0 };
	int rc;

	if (old == new)
		return new ? gpamap_plan_add(plan, map->vm, &map->slots, as_id,
					     &new->changes) : 0;

	/* Another space took over: nothing is known to be the same. */
	rc = gpamap_flatview_diff(old ? old->view : NULL, root_view(new), &changes);
	if (!rc)
		rc = gpamap_plan_add(plan, map->vm, &map->slots, as_id, &changes);
	gpamap_changes_free(&changes);
	return rc;
}

static int make_plan(struct gpamap *map, struct gpamap_plan *plan)
{
	u32 as_id;
	int rc = 0;

	for (as_id = 0; !rc && as_id < GPAMAP_NR_AS; as_id++)
		rc = plan_as(map, plan, as_id);
	return rc ?: gpamap_plan_ids(plan, map->vm);
}

/* Rule 49, checked where the module was loaded with verify=1. */
static int verify_views(struct gpamap *map)
{
	struct gpamap_root *root;
	int rc;

	list_for_each_entry(root, &map->tree.roots, link) {
		struct gpamap_flatview *fresh;

		if (!root->nr_spaces)
			continue;
		rc = gpamap_flatview_render(root->region, NULL, NULL, &fresh);
		if (rc)
			return rc;
		WARN(!gpamap_flatview_equal(fresh, root_view(root)),
		     "gpamap: root %u is not rendered right\n", root->region->id);
		gpamap_flatview_retire(fresh, NULL);
	}
	return 0;
}

/* ---- what readers see ------------------------------------------------- */

static struct gpamap_snapshot *snapshot_alloc(struct gpamap *map)
{
	struct gpamap_snapshot *snapshot;
	struct gpamap_space *space;
	unsigned long id;

	snapshot = kzalloc(struct_size(snapshot, views, map->tree.nr_spaces),
			   GPAMAP_GFP);
	if (!snapshot)
		return NULL;
	snapshot->generation = map->generation + 1;
	xa_for_each(&map->tree.spaces, id, space) {
		if (space->dead)
			continue;
		snapshot->views[snapshot->nr].space = id;
		snapshot->views[snapshot->nr++].view = root_view(space->root);
	}
	return snapshot;
}

/* Pairs with rcu_dereference() in query.c. */
static void show(struct gpamap *map, struct gpamap_snapshot *snapshot)
{
	struct gpamap_snapshot *old;

	old = rcu_replace_pointer(map->snapshot, snapshot, lockdep_is_held(&map->lock));
	if (old)
		kfree_rcu(old, rcu);
	WRITE_ONCE(map->generation, snapshot->generation);
	wake_up_interruptible_poll(&map->wait, EPOLLIN);
}

/* ---- attach and detach ------------------------------------------------ */

/* Brings KVM to what the plan says; the plan is gone afterwards. */
static int run_plan(struct gpamap *map, struct gpamap_plan *plan,
		    struct gpamap_slot *refused)
{
	int rc;

	rc = gpamap_plan_apply(plan, map->vm, refused, &map->broken);
	if (rc) {
		gpamap_plan_abort(plan, &map->slots, map->vm);
		return map->broken ? -EIO : rc;
	}
	gpamap_plan_commit(plan, &map->slots);
	return 0;
}

static void set_memory_roots(struct gpamap *map, bool attached)
{
	u32 as_id;

	for (as_id = 0; as_id < GPAMAP_NR_AS; as_id++)
		map->memory[as_id] = attached ? memory_root(map, as_id) : NULL;
}

int gpamap_attach(struct gpamap *map, void *arg)
{
	struct gpamap_attach *cmd = arg;
	struct gpamap_plan plan = { 0 };
	struct gpamap_slot refused;
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
	rc = make_plan(map, &plan);
	if (rc)
		gpamap_plan_abort(&plan, &map->slots, map->vm);
	else
		rc = run_plan(map, &plan, &refused);
	/* A broken map keeps the VM, where its slots may be, from other maps. */
	if (rc && !map->broken) {
		gpamap_vm_put(map->vm);
		map->vm = NULL;
	}
	if (!rc)
		set_memory_roots(map, true);
	return rc;
}

int gpamap_detach(struct gpamap *map, void *arg)
{
	struct gpamap_detach *cmd = arg;
	struct gpamap_plan plan = { 0 };
	struct gpamap_slot refused;
	u32 as_id;
	int rc;

	if (cmd->flags)
		return -EOPNOTSUPP;
	rc = map_check_usable(map);
	if (rc)
		return rc;
	if (!map->vm)
		return -ENOENT;

	for (as_id = 0; !rc && as_id < GPAMAP_NR_AS; as_id++) {
		struct gpamap_changes changes = { 0 };

		if (!map->memory[as_id])
			continue;
		/* All is lost and nothing gained: the other way round than it is diffed. */
		rc = gpamap_flatview_diff(NULL, map->memory[as_id]->view, &changes);
		swap(changes.gone, changes.come);
		swap(changes.nr_gone, changes.nr_come);
		if (!rc)
			rc = gpamap_plan_add(&plan, map->vm, &map->slots, as_id,
					     &changes);
		gpamap_changes_free(&changes);
	}
	if (!rc)
		rc = gpamap_plan_ids(&plan, map->vm);
	if (rc)
		gpamap_plan_abort(&plan, &map->slots, map->vm);
	else
		rc = run_plan(map, &plan, &refused);
	if (rc)
		return rc;
	gpamap_slots_destroy(&map->slots);
	set_memory_roots(map, false);
	gpamap_vm_put(map->vm);
	map->vm = NULL;
	return 0;
}

/* ---- apply ------------------------------------------------------------ */

/* All that can fail before KVM is called. */
static int prepare(struct commit *c)
{
	int rc;

	rc = gpamap_txn_render(&c->txn);
	if (!rc && verify)
		rc = verify_views(c->map);
	if (!rc && c->map->vm)
		rc = make_plan(c->map, &c->plan);
	return rc;
}

/* The slot that KVM refused is still called for. */
static bool wants_refused(struct commit *c)
{
	const struct gpamap_slot *refused = &c->refused;
	const struct gpamap_range *range;
	struct gpamap_root *root;
	struct gpamap_slot slot;
	int rc;

	root = memory_root(c->map, refused->as_id);
	if (!root)
		return false;
	range = gpamap_flatview_find(root_view(root), refused->gpa);
	if (!range)
		return false;
	rc = gpamap_slot_first(range, PAGE_SHIFT, &slot);
	while (rc > 0 && slot.gpa < refused->gpa)
		rc = gpamap_slot_next(range, PAGE_SHIFT, &slot);
	return rc > 0 && gpamap_slot_equal(&slot, refused);
}

static int still_bad(void *arg)
{
	struct commit *c = arg;
	int rc;

	rc = prepare(c);
	if (c->map->vm)
		gpamap_plan_abort(&c->plan, &c->map->slots, c->map->vm);
	if (rc == -ENOMEM || rc == -EINTR)
		return rc;
	return rc || (c->refused.npages && wants_refused(c));
}

static int commit(struct commit *c, const struct gpamap_op *ops, u32 *failed_op)
{
	struct gpamap *map = c->map;
	bool blame;
	int rc;

	rc = prepare(c);
	/* KVM's errors are an operation's fault only if they are about a new slot. */
	blame = rc;
	if (!rc && gpamap_txn_changed(&c->txn)) {
		c->snapshot = snapshot_alloc(map);
		if (!c->snapshot)
			rc = -ENOMEM;
	}
	if (map->vm) {
		if (rc)
			gpamap_plan_abort(&c->plan, &map->slots, map->vm);
		else
			rc = run_plan(map, &c->plan, &c->refused);
	}
	if (rc) {
		kfree(c->snapshot);
		if (c->refused.npages && !map->broken)
			blame = true;
		if (blame && rc != -ENOMEM && rc != -EINTR)
			*failed_op = gpamap_txn_blame(&c->txn, ops, still_bad, c);
		gpamap_txn_abort(&c->txn);
		return rc;
	}
	if (map->vm)
		set_memory_roots(map, true);
	if (c->snapshot)
		show(map, c->snapshot);
	gpamap_txn_commit(&c->txn);
	return 0;
}

static int apply_locked(struct gpamap *map, const struct gpamap_op *ops, u32 nr_ops,
			u32 *failed_op)
{
	struct commit c = { .map = map };
	u32 i;
	int rc;

	rc = map_check_usable(map);
	if (rc || !nr_ops)
		return rc;
	rc = gpamap_txn_begin(&c.txn, &map->tree, nr_ops);
	if (rc)
		return rc;
	for (i = 0; i < nr_ops; i++) {
		cond_resched();
		rc = fatal_signal_pending(current) ? -EINTR :
						     gpamap_txn_op(&c.txn, &ops[i]);
		if (rc) {
			*failed_op = i;
			gpamap_txn_abort(&c.txn);
			return rc;
		}
	}
	return commit(&c, ops, failed_op);
}

static int copy_ops(struct gpamap_op *ops, const struct gpamap_apply *cmd,
		    u32 *failed_op)
{
	u64 from = cmd->ops;
	u32 i;
	int rc;

	for (i = 0; i < cmd->nr_ops; i++, from += cmd->op_size) {
		cond_resched();
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

	ops = kvcalloc(cmd->nr_ops, sizeof(*ops), GPAMAP_GFP);
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
