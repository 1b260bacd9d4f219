// SPDX-License-Identifier: GPL-2.0
/*
 * What is tied to regions, as far as all kinds are alike: the table of kinds, the two states
 * of a region (ties.h), and the stages of an operation.
 *
 * An operation goes through check, apply and, with the others of its transaction, either undo,
 * in reverse order, or publish and finish. What it needs of the VMM's memory is copied before
 * the map is locked (prepare) and stays with the call, which may apply and undo it several
 * times while it looks for the operation to blame.
 *
 * A region has a struct gpamap_io as long as something is tied to it in either state. vCPUs
 * find it by region->io, which is NULL while nothing is tied in the state that they see.
 */
#include <linux/nospec.h>
#include "ties.h"

static const struct gpamap_tie_kind untie_kind;

static const struct gpamap_tie_kind * const kinds[] = {
	[GPAMAP_OP_DOORBELL - GPAMAP_OP_DOORBELL] = &gpamap_doorbell_kind,
	[GPAMAP_OP_REGISTERS - GPAMAP_OP_DOORBELL] = &gpamap_registers_kind,
	[GPAMAP_OP_HANDLER - GPAMAP_OP_DOORBELL] = &gpamap_handler_kind,
	[GPAMAP_OP_POST - GPAMAP_OP_DOORBELL] = &gpamap_post_kind,
	[GPAMAP_OP_POLICY - GPAMAP_OP_DOORBELL] = &gpamap_policy_kind,
	[GPAMAP_OP_UNTIE - GPAMAP_OP_DOORBELL] = &untie_kind,
};

/* NULL for operations that are not about what is tied. */
static const struct gpamap_tie_kind *find_kind(u32 code)
{
	u32 nr = code - GPAMAP_OP_DOORBELL;

	return nr < ARRAY_SIZE(kinds) ? kinds[array_index_nospec(nr, ARRAY_SIZE(kinds))] : NULL;
}

void gpamap_ties_init(struct gpamap_ties *ties)
{
	memset(ties, 0, sizeof(*ties));
	xa_init_flags(&ties->rings, XA_FLAGS_ACCOUNT);
	spin_lock_init(&ties->pages_lock);
}

/* What is tied to a region: of the map, between two transactions. NULL for nothing. */
const struct gpamap_io *gpamap_region_io(const struct gpamap_region *region)
{
	return rcu_dereference_protected(region->io, true);
}

static bool next_is_tied(const struct gpamap_io *io)
{
	return io->nr_bells || io->next.registers || io->next.handler || io->next.ring ||
	       io->next.policy;
}

/* Whether anything is tied to it, or will be after the open transaction. */
bool gpamap_io_is_tied(const struct gpamap_region *region)
{
	return region->ties && next_is_tied(region->ties);
}

static struct gpamap_io *io_alloc(void)
{
	return kzalloc(sizeof(struct gpamap_io), GPAMAP_GFP);
}

/* Nothing is tied in either state. */
static void io_free(struct gpamap_region *region)
{
	gpamap_doorbells_free(region->ties);
	kfree(region->ties);
	region->ties = NULL;
}

/* ---- an operation ----------------------------------------------------- */

/* What is wrong with it, whatever it is for. */
static int check_op(const struct gpamap_tie_kind *kind, const struct gpamap_op *op)
{
	if (kind->fields & GPAMAP_F_FLAGS && op->flags & ~kind->flags)
		return -EOPNOTSUPP;
	if (gpamap_op_fields(op) & ~kind->fields)
		return -EINVAL;
	return kind->check ? kind->check(op) : 0;
}

static int tie_apply(struct gpamap_txn *txn, const struct gpamap_op *op,
		     struct gpamap_undo *undo)
{
	const struct gpamap_tie_kind *kind = find_kind(op->code);
	const struct gpamap_tie_ops *ops = txn->ties_arg;
	struct gpamap_tie tie = {
		.ties = ops->ties,
		.region = undo->region,
		.op = op,
		.prepared = ops->prepared ? ops->prepared[txn->nr] : NULL,
		.undo = undo,
	};
	int rc;

	rc = check_op(kind, op);
	if (rc)
		return rc;
	if (!tie.region)
		return -ENOENT;
	/* What was right may be wrong for the region meanwhile, and is removed all the same. */
	if (!(op->flags & kind->remove) && kind->regions &&
	    !(kind->regions & BIT(tie.region->kind)))
		return -EOPNOTSUPP;
	if (!tie.region->ties) {
		tie.region->ties = io_alloc();
		if (!tie.region->ties)
			return -ENOMEM;
		undo->fresh = true;
	}
	tie.io = tie.region->ties;
	undo->io = tie.io;
	rc = kind->apply(&tie);
	if (rc && undo->fresh)
		io_free(tie.region);
	return rc;
}

static void tie_undo(struct gpamap_txn *txn, struct gpamap_undo *undo)
{
	const struct gpamap_tie_ops *ops = txn->ties_arg;

	find_kind(undo->code)->undo(ops->ties, undo->io, undo);
	if (undo->fresh)
		io_free(undo->region);
}

const struct gpamap_txn_ties gpamap_txn_ties = {
	.apply = tie_apply,
	.undo = tie_undo,
	.is_tied = gpamap_io_is_tied,
};

/* ---- all of a transaction --------------------------------------------- */

static int prepare_op(const struct gpamap_op *op, u32 nr, u32 i, void ***prepared)
{
	const struct gpamap_tie_kind *kind = find_kind(op->code);
	int rc;

	if (!kind || !kind->prepare || op->flags & kind->remove)
		return 0;
	rc = check_op(kind, op);
	if (rc)
		return rc;
	if (!*prepared)
		*prepared = kvcalloc(nr, sizeof(**prepared), GPAMAP_GFP);
	return *prepared ? kind->prepare(op, &(*prepared)[i]) : -ENOMEM;
}

/**
 * gpamap_ties_prepare() - Copy what operations want of the VMM's memory
 * @ops: The operations of a batch
 * @nr: Their number
 * @prepared: Receives what was copied, for gpamap_ties_unprepare(); NULL if there is nothing
 * @failed: Receives, on an error, the index of the operation that it is of
 *
 * Context: no lock of the map is held.
 * Return: 0; -EFAULT; the errors of such operations about what they have in memory; -ENOMEM.
 */
int gpamap_ties_prepare(const struct gpamap_op *ops, u32 nr, void ***prepared, u32 *failed)
{
	u32 i;
	int rc;

	*prepared = NULL;
	for (i = 0; i < nr; i++) {
		cond_resched();
		rc = fatal_signal_pending(current) ? -EINTR :
						     prepare_op(&ops[i], nr, i, prepared);
		if (rc) {
			*failed = i;
			gpamap_ties_unprepare(ops, nr, *prepared);
			*prepared = NULL;
			return rc;
		}
	}
	return 0;
}

void gpamap_ties_unprepare(const struct gpamap_op *ops, u32 nr, void **prepared)
{
	u32 i;

	for (i = 0; prepared && i < nr; i++)
		if (prepared[i])
			find_kind(ops[i].code)->unprepare(prepared[i]);
	kvfree(prepared);
}

static bool state_equal(const struct gpamap_io_state *a, const struct gpamap_io_state *b)
{
	return a->bells == b->bells && a->registers == b->registers &&
	       a->handler == b->handler && a->ring == b->ring && a->policy == b->policy;
}

/* Whether an operation on ties makes a difference. In a table of doorbells it is not looked for. */
static bool tie_changed(const struct gpamap_undo *undo)
{
	return undo->code == GPAMAP_OP_DOORBELL ||
	       (undo->io && !state_equal(&undo->io->now, &undo->io->next));
}

/* Whether the answers of regions may be others than before. */
bool gpamap_ties_changed(const struct gpamap_txn *txn)
{
	u32 i;

	for (i = 0; i < txn->nr; i++)
		if (find_kind(txn->log[i].code) && tie_changed(&txn->log[i]))
			return true;
	return false;
}

static void io_publish(struct gpamap_ties *ties, struct gpamap_region *region,
		       struct gpamap_io *io)
{
	struct gpamap_io *shown = next_is_tied(io) ? io : NULL;

	/* Else vCPUs may run. */
	if (state_equal(&io->now, &io->next) && rcu_access_pointer(region->io) == shown)
		return;
	spin_lock(&ties->pages_lock);
	io->now = io->next;
	rcu_assign_pointer(region->io, shown);
	spin_unlock(&ties->pages_lock);
}

/* What the operations have made of the ties comes true. No vCPU is in an access. */
void gpamap_ties_publish(const struct gpamap_txn *txn)
{
	const struct gpamap_tie_ops *ops = txn->ties_arg;
	u32 i;

	for (i = 0; i < txn->nr; i++) {
		struct gpamap_undo *undo = &txn->log[i];
		const struct gpamap_tie_kind *kind = find_kind(undo->code);

		if (!kind || !undo->io)
			continue;
		cond_resched();
		if (kind->publish)
			kind->publish(undo->io, undo);
		io_publish(ops->ties, undo->region, undo->io);
	}
}

/* Frees what was untied, after gpamap_ties_publish() and before the regions go. */
void gpamap_ties_finish(const struct gpamap_txn *txn)
{
	u32 i;

	for (i = 0; i < txn->nr; i++) {
		struct gpamap_undo *undo = &txn->log[i];
		const struct gpamap_tie_kind *kind = find_kind(undo->code);

		cond_resched();
		if (kind && kind->finish)
			kind->finish(undo);
	}
	for (i = 0; i < txn->nr; i++) {
		struct gpamap_region *region = txn->log[i].region;

		if (txn->log[i].io && region->ties && !next_is_tied(region->ties))
			io_free(region);
	}
}

/* ---- untie: much in one operation ------------------------------------- */

#define ALL_TIES (GPAMAP_TIE_DOORBELLS | GPAMAP_TIE_REGISTERS | GPAMAP_TIE_HANDLER | \
		  GPAMAP_TIE_RING | GPAMAP_TIE_POLICY)

/* What there was. */
struct untied {
	u32 mask;
	u32 nr_bells;
	u32 nr_fast;
	struct gpamap_io_state state;
};

static int untie_check(const struct gpamap_op *op)
{
	if (op->mask & ~ALL_TIES)
		return -EOPNOTSUPP;
	return op->mask ? 0 : -EINVAL;
}

static int untie_apply(struct gpamap_tie *tie)
{
	struct gpamap_io *io = tie->io;
	struct untied *untied;

	untied = kmalloc(sizeof(*untied), GPAMAP_GFP);
	if (!untied)
		return -ENOMEM;
	*untied = (struct untied){
		.mask = tie->op->mask,
		.nr_bells = io->nr_bells,
		.nr_fast = io->nr_fast,
		.state = io->next,
	};
	tie->undo->tie = untied;
	if (untied->mask & GPAMAP_TIE_DOORBELLS) {
		tie->ties->nr_doorbells -= io->nr_bells;
		io->nr_bells = 0;
		io->nr_fast = 0;
		io->next.bells = NULL;
	}
	if (untied->mask & GPAMAP_TIE_REGISTERS)
		io->next.registers = NULL;
	if (untied->mask & GPAMAP_TIE_HANDLER)
		io->next.handler = NULL;
	if (untied->mask & GPAMAP_TIE_RING && io->next.ring) {
		gpamap_ring_leave(io->next.ring);
		io->next.ring = NULL;
	}
	if (untied->mask & GPAMAP_TIE_POLICY)
		io->next.policy = GPAMAP_POLICY_NONE;
	return 0;
}

static void untie_undo(struct gpamap_ties *ties, struct gpamap_io *io,
		       struct gpamap_undo *undo)
{
	struct untied *untied = undo->tie;
	struct gpamap_bells *left = untied->state.bells;

	if (untied->mask & GPAMAP_TIE_DOORBELLS) {
		ties->nr_doorbells += untied->nr_bells;
		left = NULL;
	}
	/* What was tied since has been undone before, and may have left its empty table. */
	if (io->next.bells != left)
		gpamap_doorbells_put(io->next.bells);
	if (untied->mask & GPAMAP_TIE_RING && untied->state.ring)
		gpamap_ring_join(untied->state.ring);
	io->nr_bells = untied->nr_bells;
	io->nr_fast = untied->nr_fast;
	io->next = untied->state;
	kfree(untied);
}

static void untie_finish(struct gpamap_undo *undo)
{
	struct untied *untied = undo->tie;

	if (untied->mask & GPAMAP_TIE_DOORBELLS && untied->state.bells)
		gpamap_doorbells_put(untied->state.bells);
	if (untied->mask & GPAMAP_TIE_REGISTERS && untied->state.registers)
		gpamap_registers_put(untied->state.registers);
	if (untied->mask & GPAMAP_TIE_HANDLER && untied->state.handler)
		gpamap_handler_put(untied->state.handler);
	kfree(untied);
}

static const struct gpamap_tie_kind untie_kind = {
	.fields = GPAMAP_F_MASK,
	.check = untie_check,
	.apply = untie_apply,
	.undo = untie_undo,
	.finish = untie_finish,
};

/* ---- the end ---------------------------------------------------------- */

static void io_destroy(struct gpamap_region *region)
{
	struct gpamap_io *io = region->ties;

	if (io->now.registers)
		gpamap_registers_put(io->now.registers);
	if (io->now.handler)
		gpamap_handler_put(io->now.handler);
	io_free(region);
}

/* At the end of the map: no vCPU is in an access, nothing is mapped. */
void gpamap_ties_destroy(struct gpamap_ties *ties, struct gpamap_tree *tree)
{
	struct gpamap_region *region;
	unsigned long id;

	xa_for_each(&tree->regions, id, region)
		if (region->ties)
			io_destroy(region);
	gpamap_rings_free(ties);
}
