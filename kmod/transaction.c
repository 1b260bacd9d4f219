// SPDX-License-Identifier: GPL-2.0
/*
 * The one way in which what a vCPU sees is changed: attach, detach, and the commit of a batch,
 * be it large or the one operation of a command that ties something to a region.
 *
 * A transaction goes through its stages in one direction:
 *
 *	operations	to the tree and to what is tied to regions; each can be undone
 *	render		new views from the tree, where it is dirty
 *	plan		memslots from the changes of the views, stretches of the buses from the
 *			views and what is tied; the memory for all of it is taken
 *	hold		all vCPUs of the VM
 *	memslots	by KVM, from the old to the new; undone if it refuses one
 *	buses		all or none
 *	publish		what is tied, and the views: cannot fail
 *	let go		the vCPUs; then what is no more is freed
 *
 * On an error in any stage the stages before it are undone and the map is as it was. A dry run
 * ends before the hold, and is undone too. Before the hold nothing that a vCPU sees has changed,
 * and after it every vCPU sees all.
 *
 * Nobody is held if there is nothing to see: without a VM, or vCPUs of it; and when no memslot,
 * no stretch of a bus and no answer to an access changes. An answer can change when an operation
 * is about what is tied to a region, or a view loses or gets a range of a region to which
 * something is tied, or memory that no memslot shows. Even one memslot alone, whose change
 * nobody can see half done, is changed while vCPUs are held: KVM waits for all who are inside of
 * it in every such operation, without a limit, and who is held is not inside.
 *
 * All that waits does so until the deadline of the call, or until the caller is killed, and
 * then nothing has changed. From the first call of KVM's on nothing is waited for but KVM.
 *
 * What is wrong with a result (too many ranges, memory that cannot be a slot, a slot
 * that KVM refuses) is no operation's own error. The one to blame is searched for by
 * going back to where the trouble begins.
 *
 * A map whose slots could not be rolled back is broken: it answers EIO to all but
 * QUERY, LOOKUP and close, for nothing it says about slots could be trusted.
 *
 * All of it runs with the lock of the map held, and no user memory is read under it.
 */
#include <linux/module.h>
#include <linux/uaccess.h>
#include "map.h"
#include "trace.h"

static bool verify;
module_param(verify, bool, 0600);
MODULE_PARM_DESC(verify, "Compare every rendered view with one rendered from nothing");

/* A transaction on its way. */
struct transaction {
	struct gpamap *map;
	unsigned long deadline;
	struct gpamap_txn txn;
	struct gpamap_tie_ops tie_ops;
	struct gpamap_plan plan;
	struct gpamap_bus_change bus;
	bool answers;			/* may be others than before */
	struct gpamap_snapshot *snapshot;	/* NULL: the views stay */
	struct gpamap_slot refused;	/* by KVM, if npages is not 0 */
	struct gpamap_apply *cmd;	/* whose plan is told, or only told */
};

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

/*
 * Adds to the plan how the slots of one address space change. @tidy: to those that it would have if
 * it were new; @joined: and as few as there can be.
 */
static int plan_as(struct gpamap *map, struct gpamap_plan *plan, u32 as_id, bool joined, bool tidy)
{
	struct gpamap_root *old = map->memory[as_id];
	struct gpamap_root *new = memory_root(map, as_id);
	struct gpamap_region *region = new ? new->region : NULL;
	struct gpamap_changes changes = { 0 };
	bool anew = joined || tidy;
	int rc;

	if (old == new && !anew)
		return new ? gpamap_plan_add(plan, map->vm, &map->slots, as_id,
					     &new->changes, region) : 0;

	/* Another space took over: nothing is known to be the same. */
	rc = gpamap_flatview_diff(old && !anew ? old->view : NULL, root_view(new),
				  &changes);
	if (!rc && anew)
		rc = gpamap_plan_add_joined(plan, map->vm, &map->slots, as_id, &changes,
					    joined ? NULL : region);
	else if (!rc)
		rc = gpamap_plan_add(plan, map->vm, &map->slots, as_id, &changes, region);
	gpamap_changes_free(&changes);
	return rc;
}

/* What was split stays split in an address space, unless its slots do not suffice. */
static int make_plan(struct gpamap *map, struct gpamap_plan *plan, bool tidy)
{
	u32 as_id, short_of, joined = 0;
	int rc;

	for (;;) {
		rc = 0;
		for (as_id = 0; !rc && as_id < GPAMAP_NR_AS; as_id++) {
			rc = plan_as(map, plan, as_id, joined & BIT(as_id), tidy);
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

/* Whether KVM is made to wait for its SRCU. */
static bool makes_kvm_wait(const struct transaction *t)
{
	return t->bus.buses || !gpamap_plan_is_empty(&t->plan);
}

/* Whether a vCPU could see anything of it. */
static bool is_visible(const struct transaction *t)
{
	return t->map->vm && (t->answers || makes_kvm_wait(t));
}

static void tell_plan(const struct transaction *t)
{
	t->cmd->out_deletes = t->plan.gone.nr;
	t->cmd->out_moves = t->plan.nr_moves;
	t->cmd->out_creates = t->plan.come.nr;
	t->cmd->out_plan = is_visible(t) && gpamap_vm_has_vcpus(t->map->vm) ?
				   GPAMAP_PLAN_HOLD : 0;
	t->cmd->out_taken = t->plan.taken;
}

static void tell_no_plan(struct gpamap_apply *cmd)
{
	cmd->out_deletes = 0;
	cmd->out_moves = 0;
	cmd->out_creates = 0;
	cmd->out_plan = 0;
	cmd->out_taken = 0;
}

/* ---- the buses -------------------------------------------------------- */

/* The views that decide, after the commit, what is answered on the buses. */
static void bus_views(struct gpamap *map, const struct gpamap_flatview **views)
{
	views[GPAMAP_VIEW_MEMORY] = root_view(memory_root(map, 0));
	views[GPAMAP_VIEW_SMM] = root_view(memory_root(map, 1));
	views[GPAMAP_VIEW_PORTS] = root_view(ports_root(map));
}

static bool root_answers_change(const struct gpamap_root *old, const struct gpamap_root *new)
{
	return old != new || (new && gpamap_changes_answers(&new->changes));
}

/* Whether an access may be answered otherwise than before. */
static bool answers_change(const struct transaction *t)
{
	struct gpamap *map = t->map;
	u32 as_id;

	if (gpamap_ties_changed(&t->txn))
		return true;
	for (as_id = 0; as_id < GPAMAP_NR_AS; as_id++)
		if (root_answers_change(map->memory[as_id], memory_root(map, as_id)))
			return true;
	return root_answers_change(map->ports, ports_root(map));
}

/* All that KVM has to be told of what the tree has become. */
static int plan_kvm(struct transaction *t)
{
	const struct gpamap_flatview *views[GPAMAP_NR_BUS_VIEWS];
	int rc;

	rc = make_plan(t->map, &t->plan, t->txn.nr_tidy);
	if (rc)
		return rc;
	t->answers = answers_change(t);
	if (!t->answers)
		return gpamap_vm_bus_plan_again(t->map->vm, &t->bus);
	bus_views(t->map, views);
	return gpamap_bus_plan(t->map->vm, views, &t->bus);
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
			if (gpamap_range_slot(range, PAGE_SHIFT, map->vm->nr_gfns, &whole) <= 0)
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

/* Pairs with rcu_dereference() in query.c and dispatch.c. */
static void show(struct gpamap *map, struct gpamap_snapshot *snapshot)
{
	struct gpamap_snapshot *old;

	old = rcu_replace_pointer(map->dispatch.snapshot, snapshot,
				  lockdep_is_held(&map->lock));
	if (old)
		kfree_rcu(old, rcu);
	map->generation = snapshot->generation;
}

/* ---- doing it --------------------------------------------------------- */

/* Forgets what KVM was to be told. */
static void drop_plan(struct transaction *t)
{
	if (t->map->vm)
		gpamap_plan_abort(&t->plan, &t->map->slots, t->map->vm);
	gpamap_vm_bus_free(&t->bus);
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

static void count_hold(struct gpamap *map, int rc)
{
	struct gpamap_stats *stats = &map->stats;
	u64 ns = ktime_get_ns() - map->vm->held_since;

	if (rc)
		stats->hold_failures++;
	else
		stats->holds++;
	stats->hold_ns += ns;
	stats->longest_hold_ns = max(stats->longest_hold_ns, ns);
}

/* Brings KVM from what it has to what the plan says, or back. vCPUs are held. */
static int change_kvm(struct transaction *t)
{
	bool changed = !gpamap_plan_is_empty(&t->plan);
	struct gpamap *map = t->map;
	int rc, broken = 0;

	rc = gpamap_plan_apply(&t->plan, &map->slots, map->vm, &t->refused, &broken);
	if (!rc) {
		rc = gpamap_vm_bus_apply(map->vm, &t->bus, changed ? NULL : &t->deadline);
		if (rc && changed)
			broken = gpamap_plan_unapply(&t->plan, &map->slots, map->vm);
	}
	if (rc && changed)
		map->stats.rollbacks++;
	if (!rc)
		count_plan(&map->stats, &t->plan);
	if (rc && !broken)
		gpamap_plan_abort(&t->plan, &map->slots, map->vm);
	else
		gpamap_plan_commit(&t->plan, &map->slots);
	if (broken) {
		map->broken = true;
		trace_gpamap_broken(map->number, broken);
		return -EIO;
	}
	return rc;
}

/* What was prepared is what vCPUs and readers find from now on. */
static void publish(struct transaction *t)
{
	gpamap_ties_publish(&t->txn);
	if (t->snapshot)
		show(t->map, t->snapshot);
}

/* However many there are who listen: vCPUs need not stand still for it. */
static void tell_news(const struct transaction *t)
{
	if (t->snapshot)
		gpamap_news_publish(t->map->reader.news, t->map->generation);
}

/*
 * Hold, KVM, publish, let go, as far as there is something to do. On success the snapshot is
 * the readers'. The plan is gone afterwards, either way.
 */
static int run(struct transaction *t)
{
	struct gpamap *map = t->map;
	int rc;

	if (!is_visible(t)) {
		publish(t);
		drop_plan(t);
		tell_news(t);
		return 0;
	}
	rc = gpamap_vm_hold(map->vm, t->deadline, makes_kvm_wait(t));
	if (rc) {
		count_hold(map, rc);
		drop_plan(t);
		return rc;
	}
	rc = change_kvm(t);
	if (!rc)
		publish(t);
	gpamap_vm_release(map->vm);
	count_hold(map, 0);
	gpamap_vm_bus_free(&t->bus);
	if (!rc)
		tell_news(t);
	return rc;
}

static void set_roots(struct gpamap *map, bool attached)
{
	u32 as_id;

	map->ports = attached ? ports_root(map) : NULL;
	for (as_id = 0; as_id < GPAMAP_NR_AS; as_id++)
		map->memory[as_id] = attached ? memory_root(map, as_id) : NULL;
}

/* ---- attach and detach ------------------------------------------------ */

static int attach_locked(struct gpamap *map, const struct gpamap_attach *cmd,
			 unsigned long deadline)
{
	struct transaction t = { .map = map, .deadline = deadline };
	int rc;

	rc = gpamap_map_check_usable(map);
	if (rc)
		return rc;
	if (map->vm)
		return -EBUSY;
	rc = gpamap_vm_get(cmd->vm_fd, cmd->first_slot, cmd->nr_slots, &gpamap_dispatch_ops,
			   &map->dispatch, map->number, deadline, &map->vm);
	if (rc)
		return rc;
	rc = plan_kvm(&t);
	if (rc)
		drop_plan(&t);
	else
		rc = run(&t);
	/* A broken map keeps the VM, where its slots may be, from other maps. */
	if (rc && !map->broken) {
		gpamap_vm_put(map->vm);
		map->vm = NULL;
	}
	if (!rc || map->broken) {
		set_roots(map, true);
		/* Pairs with gpamap_lookup(). */
		rcu_assign_pointer(map->dispatch.vm, map->vm);
	}
	return rc;
}

/* ATTACH. */
int gpamap_map_attach(struct gpamap *map, const struct gpamap_attach *cmd)
{
	unsigned long deadline = gpamap_deadline(cmd->timeout_ms);
	int rc;

	if (cmd->flags)
		return -EOPNOTSUPP;
	if (cmd->__reserved || cmd->__reserved2)
		return -EINVAL;
	rc = gpamap_map_lock(map, deadline);
	if (rc)
		return rc;
	rc = attach_locked(map, cmd, deadline);
	gpamap_map_unlock(map);
	return rc;
}

/* A plan that takes all from KVM. */
static int plan_nothing(struct transaction *t)
{
	struct gpamap *map = t->map;
	u32 as_id, short_of;
	int rc = 0;

	for (as_id = 0; !rc && as_id < GPAMAP_NR_AS; as_id++) {
		struct gpamap_changes changes = { 0 };

		if (!map->memory[as_id])
			continue;
		/* All is lost and nothing gained: the other way round than it is diffed. */
		rc = gpamap_flatview_diff(NULL, map->memory[as_id]->view, &changes);
		swap(changes.gone, changes.come);
		swap(changes.nr_gone, changes.nr_come);
		if (!rc)
			rc = gpamap_plan_add(&t->plan, map->vm, &map->slots, as_id,
					     &changes, NULL);
		gpamap_changes_free(&changes);
	}
	if (!rc)
		rc = gpamap_plan_finish(&t->plan, map->vm, &short_of);
	return rc ?: gpamap_bus_plan_none(map->vm, &t->bus);
}

static int detach_locked(struct gpamap *map, unsigned long deadline)
{
	struct transaction t = { .map = map, .deadline = deadline };
	int rc;

	rc = gpamap_map_check_usable(map);
	if (rc)
		return rc;
	if (!map->vm)
		return -ENOENT;
	rc = plan_nothing(&t);
	if (rc)
		drop_plan(&t);
	else
		rc = run(&t);
	if (rc)
		return rc;
	gpamap_slots_destroy(&map->slots);
	set_roots(map, false);
	/* A look-up may be at its buses; none of them takes long. */
	RCU_INIT_POINTER(map->dispatch.vm, NULL);
	synchronize_rcu_expedited();
	gpamap_vm_put(map->vm);
	map->vm = NULL;
	return 0;
}

/* DETACH. */
int gpamap_map_detach(struct gpamap *map, const struct gpamap_detach *cmd)
{
	unsigned long deadline = gpamap_deadline(cmd->timeout_ms);
	int rc;

	if (cmd->flags)
		return -EOPNOTSUPP;
	if (cmd->__reserved)
		return -EINVAL;
	rc = gpamap_map_lock(map, deadline);
	if (rc)
		return rc;
	rc = detach_locked(map, deadline);
	gpamap_map_unlock(map);
	return rc;
}

/* ---- apply ------------------------------------------------------------ */

/* All that can fail before KVM is called. */
static int prepare(struct transaction *t)
{
	int rc;

	rc = gpamap_txn_render(&t->txn);
	if (!rc && verify)
		rc = verify_views(t->map);
	if (!rc && t->map->vm)
		rc = plan_kvm(t);
	return rc;
}

/* Errors that are about the caller or the moment, and no operation's fault. */
static bool is_blameless(int rc)
{
	return rc == -ENOMEM || rc == -EINTR || rc == -EBUSY;
}

/* The slot that KVM refused is still called for. */
static bool wants_refused(struct transaction *t)
{
	const struct gpamap_slot *refused = &t->refused;
	const struct gpamap_range *range;
	struct gpamap_root *root;
	struct gpamap_slot whole;

	root = memory_root(t->map, refused->as_id);
	if (!root)
		return false;
	range = gpamap_flatview_find(root_view(root), refused->gpa);
	if (!range)
		return false;
	return gpamap_range_slot(range, PAGE_SHIFT, t->map->vm->nr_gfns, &whole) > 0 &&
	       gpamap_slot_serves(refused, &whole, PAGE_SHIFT);
}

static int still_bad(void *arg)
{
	struct transaction *t = arg;
	int rc;

	rc = prepare(t);
	drop_plan(t);
	if (is_blameless(rc))
		return rc;
	return rc || (t->refused.npages && wants_refused(t));
}

/* KVM refused a move, and will refuse others: once more, without. */
static int run_without_moves(struct transaction *t)
{
	int rc;

	memset(&t->refused, 0, sizeof(t->refused));
	rc = plan_kvm(t);
	if (rc) {
		drop_plan(t);
		return rc;
	}
	tell_plan(t);
	return run(t);
}

/* The last stages: what was prepared comes true. */
static int finish(struct transaction *t)
{
	struct gpamap *map = t->map;
	bool moves;
	int rc;

	if (gpamap_txn_changed(&t->txn)) {
		t->snapshot = snapshot_alloc(map);
		if (!t->snapshot) {
			drop_plan(t);
			return -ENOMEM;
		}
	}
	moves = map->vm && t->plan.nr_moves && !map->vm->no_moves;
	rc = run(t);
	if (rc == -EINVAL && moves && map->vm->no_moves)
		rc = run_without_moves(t);
	if (rc) {
		kfree(t->snapshot);
		return rc;
	}
	if (map->vm)
		set_roots(map, true);
	gpamap_ties_finish(&t->txn);
	gpamap_txn_commit(&t->txn);
	if (verify && map->vm)
		verify_slots(map);
	return 0;
}

static int commit(struct transaction *t, const struct gpamap_op *ops)
{
	bool dry_run = t->cmd->flags & GPAMAP_APPLY_DRY_RUN;
	bool blame;
	int rc;

	rc = prepare(t);
	/* KVM's errors are an operation's fault only if they are about a new slot. */
	blame = rc;
	if (!rc)
		tell_plan(t);
	if (rc || dry_run)
		drop_plan(t);
	if (!rc && !dry_run) {
		rc = finish(t);
		if (!rc)
			return 0;
		blame = t->refused.npages && !t->map->broken;
	}
	if (blame && !is_blameless(rc))
		t->cmd->out_failed_op = gpamap_txn_blame(&t->txn, ops, still_bad, t);
	gpamap_txn_abort(&t->txn);
	return rc;
}

static int apply_locked(struct gpamap *map, const struct gpamap_op *ops, void **prepared,
			struct gpamap_apply *cmd, unsigned long deadline)
{
	struct transaction t = {
		.map = map,
		.deadline = deadline,
		.tie_ops = { .ties = &map->ties, .prepared = prepared },
		.cmd = cmd,
	};
	u32 i;
	int rc;

	rc = gpamap_map_check_usable(map);
	if (rc || !cmd->nr_ops)
		return rc;
	rc = gpamap_txn_begin(&t.txn, &map->tree, cmd->nr_ops);
	if (rc)
		return rc;
	t.txn.ties = &gpamap_txn_ties;
	t.txn.ties_arg = &t.tie_ops;
	for (i = 0; i < cmd->nr_ops; i++) {
		cond_resched();
		rc = fatal_signal_pending(current) ? -EINTR :
						     gpamap_txn_op(&t.txn, &ops[i]);
		if (rc) {
			cmd->out_failed_op = i;
			gpamap_txn_abort(&t.txn);
			return rc;
		}
	}
	return commit(&t, ops);
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

/* Operations in the kernel's memory, as one transaction. */
static int apply(struct gpamap *map, const struct gpamap_op *ops, struct gpamap_apply *cmd,
		 unsigned long deadline)
{
	bool dry_run = cmd->flags & GPAMAP_APPLY_DRY_RUN;
	void **prepared;
	int rc;

	rc = gpamap_ties_prepare(ops, cmd->nr_ops, &prepared, &cmd->out_failed_op);
	if (rc)
		return rc;
	rc = gpamap_map_lock(map, deadline);
	if (rc)
		goto out_unprepare;
	if (!dry_run)
		trace_gpamap_commit_begin(map->number, map->generation, cmd->nr_ops);
	rc = apply_locked(map, ops, prepared, cmd, deadline);
	if (!dry_run) {
		map->stats.commits += !rc;
		trace_gpamap_commit_end(map->number, map->generation, rc);
	}
	cmd->out_generation = map->generation;
	gpamap_map_unlock(map);
out_unprepare:
	gpamap_ties_unprepare(ops, cmd->nr_ops, prepared);
	return rc;
}

/* APPLY. */
int gpamap_map_apply(struct gpamap *map, struct gpamap_apply *cmd)
{
	unsigned long deadline = gpamap_deadline(cmd->timeout_ms);
	struct gpamap_op *ops;
	int rc;

	cmd->out_failed_op = GPAMAP_NO_OP;
	tell_no_plan(cmd);
	if (cmd->flags & ~GPAMAP_APPLY_DRY_RUN)
		return -EOPNOTSUPP;
	if (cmd->__reserved || cmd->__reserved2 || cmd->op_size < sizeof(*ops))
		return -EINVAL;
	if (cmd->op_size > PAGE_SIZE)
		return -E2BIG;
	if (cmd->nr_ops > GPAMAP_MAX_OPS)
		return -ENOSPC;

	ops = kvcalloc(cmd->nr_ops, sizeof(*ops), GPAMAP_GFP);
	if (!ops)
		return -ENOMEM;
	rc = copy_ops(ops, cmd, &cmd->out_failed_op);
	if (!rc)
		rc = apply(map, ops, cmd, deadline);
	if (rc)
		tell_no_plan(cmd);
	kvfree(ops);
	return rc;
}

/* The same for one operation of the kernel's own making. */
int gpamap_map_apply_op(struct gpamap *map, const struct gpamap_op *op)
{
	struct gpamap_apply cmd = { .nr_ops = 1 };

	/* No region has that id, which an operation could not even name. */
	if (!op->id)
		return -ENOENT;
	return apply(map, op, &cmd, gpamap_deadline(0));
}
