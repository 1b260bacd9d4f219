// SPDX-License-Identifier: GPL-2.0
/*
 * What happens to a map: attach, detach, and the commit of a batch.
 *
 * A commit goes through the stages in one direction: operations to the tree, new views
 * from the tree where it is dirty, a plan for the slots from the changes of the views,
 * and KVM from the old slots to the new, while running vCPUs are held if the plan needs
 * it. Each stage leaves the one before it reversible; only when KVM has the new slots is
 * the transaction committed and the new views are shown to readers, which cannot fail. On
 * an error in any stage the stages before it are undone and the map is as it was. A dry
 * run ends before the last stage, and is undone too.
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
#include "trace.h"

static bool verify;
module_param(verify, bool, 0600);
MODULE_PARM_DESC(verify, "Compare every rendered view with one rendered from nothing");

/* What a transaction brings about, on its way. */
struct commit {
	struct gpamap *map;
	struct gpamap_txn txn;
	struct gpamap_plan plan;
	struct gpamap_bus_change bus;
	struct gpamap_snapshot *snapshot;
	struct gpamap_slot refused;	/* by KVM, if npages is not 0 */
	struct gpamap_apply *cmd;	/* whose plan is told, or only told */
};

int gpamap_map_check_usable(const struct gpamap *map)
{
	lockdep_assert_held(&map->lock);

	if (map->broken)
		return -EIO;
	return map->vm ? gpamap_vm_check_owner(map->vm) : 0;
}

/* What a command is about that ties something to a region: -EIO as above, or -ENOENT. */
int gpamap_map_find_region(struct gpamap *map, u32 id, struct gpamap_region **region)
{
	int rc = gpamap_map_check_usable(map);

	if (rc)
		return rc;
	*region = gpamap_tree_region(&map->tree, id);
	return *region ? 0 : -ENOENT;
}

/* The one space of a kind that the VM's slots or bus are to follow, or NULL. */
static struct gpamap_space *find_space(struct gpamap *map, u32 kind, u32 as_id)
{
	struct gpamap_space *space;
	unsigned long id;

	xa_for_each(&map->tree.spaces, id, space)
		if (!space->dead && space->kind == kind && space->as_id == as_id)
			return space;
	return NULL;
}

static u32 space_id(struct gpamap *map, u32 kind, u32 as_id)
{
	struct gpamap_space *space = find_space(map, kind, as_id);

	return space ? space->id : 0;
}

static struct gpamap_root *memory_root(struct gpamap *map, u32 as_id)
{
	struct gpamap_space *space = find_space(map, GPAMAP_SPACE_MEMORY, as_id);

	return space ? space->root : NULL;
}

static struct gpamap_root *ports_root(struct gpamap *map)
{
	struct gpamap_space *space = find_space(map, GPAMAP_SPACE_IO, 0);

	return space ? space->root : NULL;
}

/* The view that a root will have after the commit. */
static const struct gpamap_flatview *root_view(const struct gpamap_root *root)
{
	if (!root)
		return NULL;
	return root->next ?: root->view;
}

/* Adds to the plan how the slots of one address space change. */
static int plan_as(struct gpamap *map, struct gpamap_plan *plan, u32 as_id, bool joined)
{
	struct gpamap_root *old = map->memory[as_id];
	struct gpamap_root *new = memory_root(map, as_id);
	struct gpamap_region *region = new ? new->region : NULL;
	struct gpamap_changes changes = { 0 };
	int rc;

	if (old == new && !joined)
		return new ? gpamap_plan_add(plan, map->vm, &map->slots, as_id,
					     &new->changes, region) : 0;

	/* Another space took over: nothing is known to be the same. */
	rc = gpamap_flatview_diff(old && !joined ? old->view : NULL, root_view(new),
				  &changes);
	if (!rc && joined)
		rc = gpamap_plan_add_joined(plan, map->vm, &map->slots, as_id, &changes);
	else if (!rc)
		rc = gpamap_plan_add(plan, map->vm, &map->slots, as_id, &changes, region);
	gpamap_changes_free(&changes);
	return rc;
}

/* What was split stays split in an address space, unless its slots do not suffice. */
static int make_plan(struct gpamap *map, struct gpamap_plan *plan)
{
	u32 as_id, short_of, joined = 0;
	int rc;

	for (;;) {
		rc = 0;
		for (as_id = 0; !rc && as_id < GPAMAP_NR_AS; as_id++) {
			rc = plan_as(map, plan, as_id, joined & BIT(as_id));
			short_of = as_id;
		}
		if (!rc)
			rc = gpamap_plan_finish(plan, map->vm, &short_of);
		if (rc != -ENOSPC || joined & BIT(short_of))
			return rc;
		joined |= BIT(short_of);
		gpamap_plan_abort(plan, &map->slots, map->vm);
	}
}

static void tell_plan(struct gpamap_apply *cmd, const struct gpamap_plan *plan)
{
	cmd->out_deletes = plan->gone.nr;
	cmd->out_moves = plan->nr_moves;
	cmd->out_creates = plan->come.nr;
	cmd->out_plan = gpamap_plan_holds(plan) ? GPAMAP_PLAN_HOLD : 0;
	cmd->out_taken = plan->taken;
}

/* ---- the buses -------------------------------------------------------- */

/* The views that decide, after the commit, what is answered on the buses. */
static void bus_views(struct gpamap *map, const struct gpamap_flatview **views)
{
	views[GPAMAP_VIEW_MEMORY] = root_view(memory_root(map, 0));
	views[GPAMAP_VIEW_SMM] = root_view(memory_root(map, 1));
	views[GPAMAP_VIEW_PORTS] = root_view(ports_root(map));
}

static bool tied_changes(const struct gpamap_root *old, const struct gpamap_root *new)
{
	return old != new || (new && gpamap_bus_changes_tied(&new->changes));
}

static bool any_tied_changes(struct gpamap *map)
{
	u32 as_id;

	for (as_id = 0; as_id < GPAMAP_NR_AS; as_id++)
		if (tied_changes(map->memory[as_id], memory_root(map, as_id)))
			return true;
	return tied_changes(map->ports, ports_root(map));
}

static int plan_buses(struct gpamap *map, bool tied, struct gpamap_bus_change *change)
{
	const struct gpamap_flatview *views[GPAMAP_NR_BUS_VIEWS];

	bus_views(map, views);
	return gpamap_bus_plan(map, views, tied, change);
}

/* All that KVM has to be told of what the tree has become. */
static int plan_kvm(struct commit *c)
{
	return make_plan(c->map, &c->plan) ?:
	       plan_buses(c->map, any_tied_changes(c->map), &c->bus);
}

/* What is tied to regions has changed, but no view. The errors of gpamap_bus_plan(). */
int gpamap_map_update_bus(struct gpamap *map)
{
	struct gpamap_bus_change change = { 0 };
	int rc;

	if (!map->vm)
		return 0;
	rc = plan_buses(map, true, &change);
	if (!rc)
		rc = gpamap_bus_widen(map, &change);
	if (!rc)
		gpamap_bus_narrow(map, &change, true);
	gpamap_bus_free(&change);
	return rc;
}

/* The same where it is only to be better than it is: what fails is tried again later. */
void gpamap_map_trim_bus(struct gpamap *map)
{
	if (gpamap_map_update_bus(map))
		map->bus_stale = true;
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

/* Rules 37 and 49: the slots cover the memory of the view, and nothing else. */
static void verify_slots(struct gpamap *map)
{
	const struct gpamap_range *range;
	struct gpamap_cursor cursor;
	struct gpamap_slot whole, *slot;
	u32 as_id, nr = 0;
	u64 gpa, end;

	for (as_id = 0; as_id < GPAMAP_NR_AS; as_id++) {
		if (!map->memory[as_id])
			continue;
		range = gpamap_flatview_first(&cursor, map->memory[as_id]->view);
		for (; range; range = gpamap_flatview_next(&cursor)) {
			if (gpamap_range_slot(range, PAGE_SHIFT, &whole) <= 0)
				continue;
			end = whole.gpa + (whole.npages << PAGE_SHIFT);
			for (gpa = whole.gpa; gpa != end; nr++) {
				slot = xa_load(&map->slots.as[as_id], gpa >> PAGE_SHIFT);
				if (slot && !gpamap_slot_serves(slot, &whole, PAGE_SHIFT))
					slot = NULL;
				if (WARN_ON_ONCE(!slot))
					return;
				gpa += slot->npages << PAGE_SHIFT;
			}
		}
	}
	WARN_ON_ONCE(nr != map->slots.nr);
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
	bus_views(map, snapshot->bus);
	snapshot->bus_space[GPAMAP_VIEW_MEMORY] = space_id(map, GPAMAP_SPACE_MEMORY, 0);
	snapshot->bus_space[GPAMAP_VIEW_SMM] = space_id(map, GPAMAP_SPACE_MEMORY, 1);
	snapshot->bus_space[GPAMAP_VIEW_PORTS] = space_id(map, GPAMAP_SPACE_IO, 0);
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

/* Forgets what KVM was to be told. */
static void drop_plan(struct commit *c)
{
	gpamap_plan_abort(&c->plan, &c->map->slots, c->map->vm);
	gpamap_bus_free(&c->bus);
}

static void count_plan(struct gpamap_stats *stats, const struct gpamap_plan *plan)
{
	u32 i;

	stats->deletes += plan->gone.nr;
	stats->moves += plan->nr_moves;
	stats->creates += plan->come.nr;
	for (i = 0; i < plan->gone.nr; i++) {
		u64 len = plan->gone.slots[i]->npages << PAGE_SHIFT;

		stats->deleted_bytes += len;
		stats->largest_delete = max(stats->largest_delete, len);
	}
}

static void count_hold(struct gpamap_stats *stats, u64 since, int rc)
{
	u64 ns = ktime_get_ns() - since;

	if (rc)
		stats->hold_failures++;
	else
		stats->holds++;
	stats->hold_ns += ns;
	stats->longest_hold_ns = max(stats->longest_hold_ns, ns);
}

/*
 * Brings KVM to what the plan says, and readers to the snapshot if there is one, which is
 * the readers' then; the plan is gone afterwards. vCPUs that are held are so in the
 * meantime.
 */
static int run_plan(struct commit *c)
{
	bool hold = gpamap_plan_holds(&c->plan);
	struct gpamap *map = c->map;
	u64 since = ktime_get_ns();
	int rc, broken = 0;

	rc = gpamap_bus_widen(map, &c->bus);
	if (rc) {
		drop_plan(c);
		return rc;
	}
	if (hold) {
		rc = gpamap_vm_hold(map->vm);
		if (rc) {
			count_hold(&map->stats, since, rc);
			gpamap_bus_restore(map, &c->bus);
			drop_plan(c);
			return rc;
		}
	}
	rc = gpamap_plan_apply(&c->plan, &map->slots, map->vm, &c->refused, &broken);
	if (rc)
		map->stats.rollbacks++;
	else
		count_plan(&map->stats, &c->plan);
	if (rc && !broken)
		gpamap_plan_abort(&c->plan, &map->slots, map->vm);
	else
		gpamap_plan_commit(&c->plan, &map->slots);
	if (!rc && c->snapshot)
		show(map, c->snapshot);
	if (hold) {
		gpamap_vm_release(map->vm);
		count_hold(&map->stats, since, 0);
	}
	if (rc)
		gpamap_bus_restore(map, &c->bus);
	else
		gpamap_bus_narrow(map, &c->bus, hold);
	gpamap_bus_free(&c->bus);
	if (broken) {
		map->broken = true;
		trace_gpamap_broken(map, broken);
		return -EIO;
	}
	return rc;
}

static void set_roots(struct gpamap *map, bool attached)
{
	u32 as_id;

	map->ports = attached ? ports_root(map) : NULL;
	for (as_id = 0; as_id < GPAMAP_NR_AS; as_id++)
		map->memory[as_id] = attached ? memory_root(map, as_id) : NULL;
}

int gpamap_attach(struct gpamap *map, void *arg)
{
	struct gpamap_attach *cmd = arg;
	struct commit c = { .map = map };
	int rc;

	if (cmd->flags)
		return -EOPNOTSUPP;
	if (cmd->__reserved)
		return -EINVAL;
	rc = gpamap_map_check_usable(map);
	if (rc)
		return rc;
	if (map->vm)
		return -EBUSY;

	rc = gpamap_vm_get(cmd->vm_fd, cmd->first_slot, cmd->nr_slots, map, &map->vm);
	if (rc)
		return rc;
	rc = plan_kvm(&c);
	if (rc)
		drop_plan(&c);
	else
		rc = run_plan(&c);
	/* A broken map keeps the VM, where its slots may be, from other maps. */
	if (rc && !map->broken) {
		gpamap_vm_put(map->vm);
		map->vm = NULL;
	}
	if (!rc || map->broken)
		set_roots(map, true);
	return rc;
}

int gpamap_detach(struct gpamap *map, void *arg)
{
	struct gpamap_detach *cmd = arg;
	struct commit c = { .map = map };
	u32 as_id, short_of;
	int rc;

	if (cmd->flags)
		return -EOPNOTSUPP;
	rc = gpamap_map_check_usable(map);
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
			rc = gpamap_plan_add(&c.plan, map->vm, &map->slots, as_id,
					     &changes, NULL);
		gpamap_changes_free(&changes);
	}
	if (!rc)
		rc = gpamap_plan_finish(&c.plan, map->vm, &short_of);
	if (rc)
		drop_plan(&c);
	else
		rc = run_plan(&c);
	if (rc)
		return rc;
	gpamap_slots_destroy(&map->slots);
	set_roots(map, false);
	/* From the buses too. */
	gpamap_vm_put(map->vm);
	map->vm = NULL;
	map->bus_stale = false;
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
		rc = plan_kvm(c);
	return rc;
}

/* The slot that KVM refused is still called for. */
static bool wants_refused(struct commit *c)
{
	const struct gpamap_slot *refused = &c->refused;
	const struct gpamap_range *range;
	struct gpamap_root *root;
	struct gpamap_slot whole;

	root = memory_root(c->map, refused->as_id);
	if (!root)
		return false;
	range = gpamap_flatview_find(root_view(root), refused->gpa);
	if (!range)
		return false;
	return gpamap_range_slot(range, PAGE_SHIFT, &whole) > 0 &&
	       gpamap_slot_serves(refused, &whole, PAGE_SHIFT);
}

static int still_bad(void *arg)
{
	struct commit *c = arg;
	int rc;

	rc = prepare(c);
	if (c->map->vm)
		drop_plan(c);
	if (rc == -ENOMEM || rc == -EINTR)
		return rc;
	return rc || (c->refused.npages && wants_refused(c));
}

/* KVM refused a move, and will refuse others: once more, without. */
static int run_without_moves(struct commit *c)
{
	int rc;

	memset(&c->refused, 0, sizeof(c->refused));
	rc = plan_kvm(c);
	if (rc) {
		drop_plan(c);
		return rc;
	}
	tell_plan(c->cmd, &c->plan);
	return run_plan(c);
}

/* The last stage: what was prepared comes true. */
static int finish(struct commit *c)
{
	struct gpamap *map = c->map;
	bool moves;
	int rc;

	if (gpamap_txn_changed(&c->txn)) {
		c->snapshot = snapshot_alloc(map);
		if (!c->snapshot) {
			if (map->vm)
				drop_plan(c);
			return -ENOMEM;
		}
	}
	if (map->vm) {
		moves = c->plan.nr_moves && !map->vm->no_moves;
		rc = run_plan(c);
		if (rc == -EINVAL && moves && map->vm->no_moves)
			rc = run_without_moves(c);
		if (rc) {
			kfree(c->snapshot);
			return rc;
		}
		set_roots(map, true);
	} else if (c->snapshot) {
		show(map, c->snapshot);
	}
	gpamap_txn_commit(&c->txn);
	if (verify && map->vm)
		verify_slots(map);
	return 0;
}

static int commit(struct commit *c, const struct gpamap_op *ops)
{
	bool dry_run = c->cmd->flags & GPAMAP_APPLY_DRY_RUN;
	struct gpamap *map = c->map;
	bool blame;
	int rc;

	rc = prepare(c);
	/* KVM's errors are an operation's fault only if they are about a new slot. */
	blame = rc;
	if (!rc)
		tell_plan(c->cmd, &c->plan);
	if (map->vm && (rc || dry_run))
		drop_plan(c);
	if (!rc && !dry_run) {
		rc = finish(c);
		if (!rc)
			return 0;
		blame = c->refused.npages && !map->broken;
	}
	if (blame && rc != -ENOMEM && rc != -EINTR)
		c->cmd->out_failed_op = gpamap_txn_blame(&c->txn, ops, still_bad, c);
	gpamap_txn_abort(&c->txn);
	return rc;
}

static int apply_locked(struct gpamap *map, const struct gpamap_op *ops,
			struct gpamap_apply *cmd)
{
	struct commit c = { .map = map, .cmd = cmd };
	u32 i;
	int rc;

	rc = gpamap_map_check_usable(map);
	if (rc || !cmd->nr_ops)
		return rc;
	rc = gpamap_txn_begin(&c.txn, &map->tree, cmd->nr_ops);
	if (rc)
		return rc;
	for (i = 0; i < cmd->nr_ops; i++) {
		cond_resched();
		rc = fatal_signal_pending(current) ? -EINTR :
						     gpamap_txn_op(&c.txn, &ops[i]);
		if (rc) {
			cmd->out_failed_op = i;
			gpamap_txn_abort(&c.txn);
			return rc;
		}
	}
	return commit(&c, ops);
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
	static const struct gpamap_plan no_plan;
	struct gpamap_apply *cmd = arg;
	struct gpamap_op *ops;
	int rc;

	cmd->out_failed_op = GPAMAP_NO_OP;
	tell_plan(cmd, &no_plan);
	if (cmd->flags & ~GPAMAP_APPLY_DRY_RUN)
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
	if (cmd->flags & GPAMAP_APPLY_DRY_RUN) {
		rc = apply_locked(map, ops, cmd);
	} else {
		trace_gpamap_commit_begin(map, cmd->nr_ops);
		rc = apply_locked(map, ops, cmd);
		map->stats.commits += !rc;
		trace_gpamap_commit_end(map, rc);
	}
	if (rc)
		tell_plan(cmd, &no_plan);
	cmd->out_generation = map->generation;
	mutex_unlock(&map->lock);
out_free:
	kvfree(ops);
	return rc;
}
