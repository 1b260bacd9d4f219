// SPDX-License-Identifier: GPL-2.0
/*
 * From the memslots that KVM has to those that it is to have, all or nothing.
 *
 * A plan is made from the changes of views, so its cost is that of the change. The slots
 * of a range that a view loses are kept if a range that it gets can use them as they are;
 * slots are created only for the gaps between. So what was split stays split, and what
 * comes and goes at the same place costs one operation each time, with two exceptions. Where
 * slots meet inside of what KVM could map as one huge page, they are joined, and the guest has a
 * huge page again for an operation or two; unless something is there that can be expected to
 * come again (it is only disabled). And a range that has many more slots than
 * it would have if it were new (MAX_SPLIT) gets those, so that memory that grows piece by piece
 * ends as few slots; each slot that is deleted for that was made by an operation of its own.
 *
 * New slots are cut ahead (diff.c). Where the ids do not suffice for that, the address space is
 * planned anew with as few slots as there can be; with cuts ahead, when GPAMAP_OP_TIDY asks for it.
 *
 * All deletes come before all moves, and these before all creates (rule 31), in all
 * address spaces, so no new slot meets an old one of ours. A move is a delete and a
 * create of the same memory in one operation; it is made where the place is free by then.
 * Every new slot has its id before KVM is called for the first time, the lowest that is
 * free then (rule 40), and its place in the table is reserved: whatever of ours can
 * fail has failed by then.
 *
 * If KVM refuses an operation, those done before are undone in reverse order. A slot
 * that has to be created again needs memory of KVM's, as much as its user has made it large: so
 * none is taken from the kernel's reserves for it. What KVM has freed when it deleted the slot
 * is there again, as a rule; it is tried for a while. If that fails, memslots and view disagree
 * for good: the caller is told so, and the table says what KVM has.
 *
 * Running vCPUs must not see a plan half done, nor that it is undone: the caller holds them
 * whenever there is anything to do. That also keeps KVM, which waits for its SRCU in each of
 * these operations, from waiting for a vCPU.
 *
 * Called under the lock of the map, in the process that owns the VM.
 */
#include <linux/bitmap.h>
#include <linux/sched.h>
#include "memslot.h"

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

static unsigned long slot_gfn(const struct gpamap_slot *slot)
{
	return slot->gpa >> PAGE_SHIFT;
}

static u64 slot_end(const struct gpamap_slot *slot)
{
	return slot_gfn(slot) + slot->npages;
}

/* ---- making a plan ---------------------------------------------------- */

static int list_append(struct gpamap_slot_list *list, struct gpamap_slot *slot)
{
	if (list->nr == list->max) {
		u32 max = max(2 * list->max, 8U);
		struct gpamap_slot **p;

		p = kvmalloc_array(max, sizeof(*p), GPAMAP_GFP);
		if (!p)
			return -ENOMEM;
		if (list->nr)
			memcpy(p, list->slots, list->nr * sizeof(*p));
		kvfree(list->slots);
		list->slots = p;
		list->max = max;
	}
	list->slots[list->nr++] = slot;
	return 0;
}

/* By address space and address. */
static int place_cmp(const void *a, const void *b)
{
	const struct gpamap_slot *x = *(struct gpamap_slot * const *)a;
	const struct gpamap_slot *y = *(struct gpamap_slot * const *)b;

	cond_resched();
	if (x->as_id != y->as_id)
		return x->as_id < y->as_id ? -1 : 1;
	return x->gpa < y->gpa ? -1 : x->gpa > y->gpa;
}

/* By all that a move leaves as it is. */
static int memory_cmp(const void *a, const void *b)
{
	const struct gpamap_slot *x = *(struct gpamap_slot * const *)a;
	const struct gpamap_slot *y = *(struct gpamap_slot * const *)b;

	cond_resched();
	if (x->as_id != y->as_id)
		return x->as_id < y->as_id ? -1 : 1;
	if (x->hva != y->hva)
		return x->hva < y->hva ? -1 : 1;
	if (x->npages != y->npages)
		return x->npages < y->npages ? -1 : 1;
	return (int)x->readonly - (int)y->readonly;
}

static void list_sort(struct gpamap_slot_list *list,
		      int (*cmp)(const void *a, const void *b))
{
	if (list->nr > 1)
		sort(list->slots, list->nr, sizeof(*list->slots), cmp, NULL);
}

/* One after the other, the slots of the ranges that a view loses. */
struct old_slots {
	const struct xarray *xa;
	u64 nr_gfns;			/* of the VM */
	const struct gpamap_changes *changes;
	u32 range;
	u64 gfn;
	u64 end;			/* of the range */
	struct gpamap_slot *slot;	/* NULL at the end */
};

static int old_next(struct old_slots *old)
{
	struct gpamap_slot whole;
	int rc;

	old->slot = NULL;
	while (old->gfn == old->end) {
		if (old->range == old->changes->nr_gone)
			return 0;
		rc = gpamap_range_slot(&old->changes->gone[old->range++], PAGE_SHIFT,
				       old->nr_gfns, &whole);
		if (rc < 0)
			return rc;
		if (rc) {
			old->gfn = slot_gfn(&whole);
			old->end = slot_end(&whole);
		}
	}
	old->slot = xa_load((struct xarray *)old->xa, old->gfn);
	if (WARN_ON_ONCE(!old->slot))
		return -EIO;
	old->gfn = slot_end(old->slot);
	return 0;
}

/* So many slots more than it needs a range may have. */
#define MAX_SPLIT 16

/* What a plan is being made for. */
struct planner {
	struct gpamap_plan *plan;
	struct gpamap_slots *slots;
	struct gpamap_region *root;	/* to cut ahead; NULL for not */
	u32 as_id;
	u32 max_come;

	u64 start;			/* of all that comes */
	u64 last;
	u64 *cuts;			/* there; once they are needed */
	u32 nr_cuts;
	bool has_cuts;

	struct gpamap_slot_list old;	/* where the range lies that is being planned */
};

/* Finds the cuts for all that comes, when the first large piece does. */
static int find_cuts(struct planner *p)
{
	if (!p->root || p->has_cuts)
		return 0;
	p->has_cuts = true;
	return gpamap_flatview_cuts(p->root, PAGE_SHIFT, p->start, p->last, &p->cuts,
				    &p->nr_cuts);
}

/* Slots for the pages from @gfn up to @end of @whole. */
static int plan_new(struct planner *p, const struct gpamap_slot *whole, u64 gfn, u64 end)
{
	struct gpamap_slot *slot;
	u64 next;
	int rc = 0;

	if (gpamap_slot_is_large(end - gfn, PAGE_SHIFT))
		rc = find_cuts(p);
	for (; !rc && gfn < end; gfn = next) {
		cond_resched();
		next = gpamap_slot_end(whole, gfn, end, PAGE_SHIFT, p->cuts, p->nr_cuts);
		if (p->plan->come.nr == p->max_come)
			return -ENOSPC;
		slot = kmemdup(whole, sizeof(*whole), GPAMAP_GFP);
		if (!slot)
			return -ENOMEM;
		slot->gpa = gfn << PAGE_SHIFT;
		slot->npages = next - gfn;
		slot->hva += slot->gpa - whole->gpa;
		slot->as_id = p->as_id;
		rc = list_append(&p->plan->come, slot);
		if (rc)
			kfree(slot);
		else
			rc = xa_reserve(&p->slots->as[p->as_id], gfn, GPAMAP_GFP);
	}
	return rc;
}

/*
 * The page behind the piece of @whole that begins at @gfn: an old slot that can be kept, @i is then
 * its number, or a gap before the next of these, and then it is @p->old.nr.
 */
static u64 piece_end(const struct planner *p, const struct gpamap_slot *whole, u64 gfn,
		     u32 *next, u32 *i)
{
	const struct gpamap_slot *slot = NULL;

	for (; *next < p->old.nr; ++*next) {
		slot = p->old.slots[*next];
		if (gpamap_slot_serves(slot, whole, PAGE_SHIFT))
			break;
		slot = NULL;
	}
	*i = p->old.nr;
	if (!slot)
		return slot_end(whole);
	if (slot_gfn(slot) > gfn)
		return slot_gfn(slot);
	*i = (*next)++;
	return slot_end(slot);
}

/* Whether slots that meet at @gfn should not. */
static bool is_bad_border(const struct planner *p, const struct gpamap_slot *whole, u64 gfn)
{
	return gpamap_slot_splits_huge(whole, gfn, PAGE_SHIFT) &&
	       !gpamap_is_cut(gfn, p->cuts, p->nr_cuts);
}

/*
 * The page behind the pieces from @gfn on that are to be one, for the borders between them are
 * inside of huge pages. If it is one piece that is an old slot, @keep is its number, else
 * p->old.nr.
 */
static u64 joined_end(const struct planner *p, const struct gpamap_slot *whole, u64 gfn,
		      u32 *next, u32 *keep)
{
	u64 end = piece_end(p, whole, gfn, next, keep);
	u32 i;

	while (end < slot_end(whole) && is_bad_border(p, whole, end)) {
		cond_resched();
		end = piece_end(p, whole, end, next, &i);
		*keep = p->old.nr;
	}
	return end;
}

/* Whether a range would have too many slots for what it is. Joining needs to know the cuts, too. */
static int is_split(struct planner *p, const struct gpamap_slot *whole, bool *split)
{
	u64 gfn = slot_gfn(whole), end = slot_end(whole);
	u32 nr = 0, next = 0, keep;
	bool bad = false;
	int rc;

	*split = false;
	while (gfn < end) {
		cond_resched();
		gfn = piece_end(p, whole, gfn, &next, &keep);
		bad |= gfn < end && is_bad_border(p, whole, gfn);
		nr++;
	}
	if (!bad && nr <= MAX_SPLIT)
		return 0;
	rc = find_cuts(p);
	if (rc)
		return rc;
	nr = 0;
	next = 0;
	for (gfn = slot_gfn(whole); gfn < end; ) {
		gfn = joined_end(p, whole, gfn, &next, &keep);
		nr++;
	}
	for (gfn = slot_gfn(whole); gfn < end && nr > MAX_SPLIT; nr--) {
		cond_resched();
		gfn = gpamap_slot_end(whole, gfn, end, PAGE_SHIFT, p->cuts, p->nr_cuts);
	}
	*split = nr > MAX_SPLIT;
	return 0;
}

/* Keeps of the old slots in a new range what can be kept, and fills the gaps. */
static int plan_pieces(struct planner *p, const struct gpamap_slot *whole)
{
	u64 gfn = slot_gfn(whole), end = slot_end(whole), first;
	u32 next = 0, gone = 0, keep;
	bool split;
	int rc;

	rc = is_split(p, whole, &split);
	while (!rc && gfn < end) {
		first = gfn;
		if (split) {
			gfn = end;
			keep = p->old.nr;
		} else {
			gfn = joined_end(p, whole, gfn, &next, &keep);
		}
		for (; !rc && gone < p->old.nr && slot_gfn(p->old.slots[gone]) < gfn; gone++)
			if (gone != keep)
				rc = list_append(&p->plan->gone, p->old.slots[gone]);
		if (!rc && keep == p->old.nr)
			rc = plan_new(p, whole, first, gfn);
	}
	return rc;
}

static int plan_range(struct planner *p, const struct gpamap_range *range,
		      struct old_slots *old)
{
	struct gpamap_slot whole;
	int rc;

	rc = gpamap_range_slot(range, PAGE_SHIFT, old->nr_gfns, &whole);
	if (rc <= 0)
		return rc;
	rc = 0;
	p->old.nr = 0;
	while (!rc && old->slot && slot_gfn(old->slot) < slot_end(&whole)) {
		cond_resched();
		rc = list_append(&p->old, old->slot);
		if (!rc)
			rc = old_next(old);
	}
	return rc ?: plan_pieces(p, &whole);
}

/* Takes out of the plan, from @gone and @come on, what would be deleted and made again. */
static void drop_same(struct gpamap_plan *plan, u32 gone, u32 come)
{
	u32 g = gone, c = come, nr_gone = gone, nr_come = come;

	while (g < plan->gone.nr || c < plan->come.nr) {
		struct gpamap_slot *old = g < plan->gone.nr ? plan->gone.slots[g] : NULL;
		struct gpamap_slot *new = c < plan->come.nr ? plan->come.slots[c] : NULL;

		if (old && new && gpamap_slot_equal(old, new)) {
			kfree(new);
			g++;
			c++;
		} else if (!new || (old && old->gpa <= new->gpa)) {
			plan->gone.slots[nr_gone++] = old;
			g++;
		} else {
			plan->come.slots[nr_come++] = new;
			c++;
		}
	}
	plan->gone.nr = nr_gone;
	plan->come.nr = nr_come;
}

/**
 * gpamap_plan_add() - Add to a plan what the change of a view calls for
 * @plan: The plan, zeroed at first
 * @vm: The VM
 * @slots: What KVM has
 * @as_id: KVM address space of the view, larger than those added before
 * @changes: How the view changes
 * @root: What the view is of, to cut slots ahead
 *
 * Return: 0; -EINVAL when memory in the view cannot be a slot; -ENOSPC when there are
 * more new slots than ids; -ENOMEM; -EINTR when the caller is being killed.
 */
int gpamap_plan_add(struct gpamap_plan *plan, const struct gpamap_vm *vm,
		    struct gpamap_slots *slots, u32 as_id,
		    const struct gpamap_changes *changes, struct gpamap_region *root)
{
	struct planner p = {
		.plan = plan,
		.slots = slots,
		.root = root,
		.as_id = as_id,
		.max_come = plan->come.nr + vm->nr_slots,
	};
	struct old_slots old = {
		.xa = &slots->as[as_id],
		.nr_gfns = vm->nr_gfns,
		.changes = changes,
	};
	u32 i, gone = plan->gone.nr, come = plan->come.nr;
	int rc;

	if (changes->nr_come) {
		p.start = changes->come[0].start;
		p.last = changes->come[changes->nr_come - 1].last;
	}
	rc = old_next(&old);
	for (i = 0; !rc && i < changes->nr_come; i++)
		rc = plan_range(&p, &changes->come[i], &old);
	while (!rc && old.slot) {
		rc = list_append(&plan->gone, old.slot);
		if (!rc)
			rc = old_next(&old);
	}
	kvfree(p.cuts);
	kvfree(p.old.slots);
	if (!rc)
		drop_same(plan, gone, come);
	return rc;
}

/**
 * gpamap_plan_add_joined() - Add to a plan as few slots for a view as there can be
 * @plan: The plan, zeroed at first
 * @vm: The VM
 * @slots: What KVM has
 * @as_id: KVM address space of the view, larger than those added before
 * @changes: From nothing to the new view
 * @root: What the view is of, to cut slots ahead; NULL for not
 *
 * Return: as gpamap_plan_add().
 */
int gpamap_plan_add_joined(struct gpamap_plan *plan, const struct gpamap_vm *vm,
			   struct gpamap_slots *slots, u32 as_id,
			   const struct gpamap_changes *changes, struct gpamap_region *root)
{
	u32 gone = plan->gone.nr, come = plan->come.nr;
	struct gpamap_slot *slot;
	unsigned long gfn;
	int rc;

	rc = gpamap_plan_add(plan, vm, slots, as_id, changes, root);
	if (rc)
		return rc;
	xa_for_each(&slots->as[as_id], gfn, slot) {
		rc = list_append(&plan->gone, slot);
		if (rc)
			return rc;
	}
	drop_same(plan, gone, come);
	return 0;
}

/* How much of what goes comes back. Both lists are by place. */
static u64 count_taken(const struct gpamap_slot_list *gone,
		       const struct gpamap_slot_list *come)
{
	u32 g = 0, c = 0;
	u64 pages = 0;

	while (g < gone->nr && c < come->nr) {
		const struct gpamap_slot *old = gone->slots[g], *new = come->slots[c];
		u64 first = max(slot_gfn(old), slot_gfn(new));
		u64 end = min(slot_end(old), slot_end(new));

		if (old->as_id == new->as_id && first < end)
			pages += end - first;
		if (old->as_id < new->as_id ||
		    (old->as_id == new->as_id && slot_end(old) <= slot_end(new)))
			g++;
		else
			c++;
	}
	return pages << PAGE_SHIFT;
}

/* Finds what goes and comes as the same memory. */
static int pair_moves(struct gpamap_plan *plan)
{
	struct gpamap_slot_list *gone = &plan->gone, *come = &plan->come;
	u32 g = 0, c = 0, nr_gone = 0, nr_come = 0;
	int cmp;

	plan->moves = kvcalloc(min(gone->nr, come->nr), sizeof(*plan->moves), GPAMAP_GFP);
	if (!plan->moves)
		return -ENOMEM;
	list_sort(gone, memory_cmp);
	list_sort(come, memory_cmp);
	while (g < gone->nr || c < come->nr) {
		if (g == gone->nr || c == come->nr)
			cmp = g == gone->nr ? 1 : -1;
		else
			cmp = memory_cmp(&gone->slots[g], &come->slots[c]);
		if (cmp < 0)
			gone->slots[nr_gone++] = gone->slots[g++];
		else if (cmp > 0)
			come->slots[nr_come++] = come->slots[c++];
		else
			plan->moves[plan->nr_moves++] = (struct gpamap_move){
				gone->slots[g++], come->slots[c++]
			};
	}
	gone->nr = nr_gone;
	come->nr = nr_come;
	return 0;
}

static int move_cmp(const void *a, const void *b)
{
	const struct gpamap_move *x = a, *y = b;

	return place_cmp(&x->from, &y->from);
}

/* Whether another slot that is still to be moved lies where @move ends. */
static bool is_blocked(const struct gpamap_move *moves, u32 nr,
		       const struct gpamap_move *move)
{
	u32 lo = 0, hi = nr;

	/* The first that ends behind where @move->to begins. */
	while (lo < hi) {
		u32 mid = lo + (hi - lo) / 2;
		const struct gpamap_slot *from = moves[mid].from;

		if (from->as_id < move->to->as_id ||
		    (from->as_id == move->to->as_id &&
		     slot_end(from) <= slot_gfn(move->to)))
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < nr; lo++) {
		if (moves[lo].from->as_id != move->to->as_id ||
		    slot_gfn(moves[lo].from) >= slot_end(move->to))
			return false;
		if (&moves[lo] != move && !moves[lo].placed)
			return true;
	}
	return false;
}

/* Behind those moved before; or, if the place is not free, as a delete and a create. */
static void place_move(struct gpamap_plan *plan, struct gpamap_move *moves, u32 nr,
		       struct gpamap_move *move)
{
	if (is_blocked(moves, nr, move)) {
		/* There is room in both lists: this is where they came from. */
		plan->gone.slots[plan->gone.nr++] = move->from;
		plan->come.slots[plan->come.nr++] = move->to;
	} else {
		plan->moves[plan->nr_moves++] = *move;
	}
	move->placed = true;
}

/*
 * A slot can only be moved to where no other is. Those that move down go first, from the
 * lowest, then those that move up, from the highest: so any number of slots that move by
 * the same distance make room for each other.
 */
static int order_moves(struct gpamap_plan *plan)
{
	struct gpamap_move *moves = plan->moves;
	u32 i, nr = plan->nr_moves;

	if (nr < 2)
		return 0;
	plan->moves = kvcalloc(nr, sizeof(*moves), GPAMAP_GFP);
	if (!plan->moves) {
		plan->moves = moves;
		return -ENOMEM;
	}
	plan->nr_moves = 0;
	sort(moves, nr, sizeof(*moves), move_cmp, NULL);
	for (i = 0; i < nr; i++)
		if (moves[i].to->gpa < moves[i].from->gpa)
			place_move(plan, moves, nr, &moves[i]);
	for (i = nr; i--;)
		if (!moves[i].placed)
			place_move(plan, moves, nr, &moves[i]);
	kvfree(moves);
	return 0;
}

static int plan_moves(struct gpamap_plan *plan)
{
	int rc;

	rc = pair_moves(plan);
	if (!rc)
		rc = order_moves(plan);
	list_sort(&plan->gone, place_cmp);
	list_sort(&plan->come, place_cmp);
	return rc;
}

static int plan_ids(struct gpamap_plan *plan, struct gpamap_vm *vm, u32 *short_of)
{
	unsigned long from[GPAMAP_NR_AS] = { 0 };
	u32 i;

	plan->has_ids = true;
	for (i = 0; i < plan->nr_moves; i++)
		plan->moves[i].to->id = plan->moves[i].from->id;
	for (i = 0; i < plan->gone.nr; i++)
		__clear_bit(plan->gone.slots[i]->id - vm->first_slot,
			    vm->ids[plan->gone.slots[i]->as_id]);
	for (i = 0; i < plan->come.nr; i++) {
		struct gpamap_slot *slot = plan->come.slots[i];
		unsigned long id;

		id = find_next_zero_bit(vm->ids[slot->as_id], vm->nr_slots,
					from[slot->as_id]);
		if (id == vm->nr_slots) {
			*short_of = slot->as_id;
			return -ENOSPC;
		}
		__set_bit(id, vm->ids[slot->as_id]);
		from[slot->as_id] = id + 1;
		slot->id = vm->first_slot + id;
	}
	return 0;
}

/**
 * gpamap_plan_finish() - Make operations of what a plan was told
 * @plan: The plan; to be committed or aborted, even after an error
 * @vm: The VM
 * @short_of: Receives the address space that has too few ids (ENOSPC)
 *
 * Return: 0; -ENOSPC; the errors of gpamap_vm_check_slot(); -ENOMEM.
 */
int gpamap_plan_finish(struct gpamap_plan *plan, struct gpamap_vm *vm, u32 *short_of)
{
	u32 i;
	int rc = 0;

	for (i = 0; i < plan->come.nr; i++) {
		rc = gpamap_vm_check_slot(vm, plan->come.slots[i]);
		if (rc)
			return rc;
	}
	if (plan->gone.nr && plan->come.nr) {
		plan->taken = count_taken(&plan->gone, &plan->come);
		if (!vm->no_moves)
			rc = plan_moves(plan);
	}
	return rc ?: plan_ids(plan, vm, short_of);
}

/* Whether there is anything to do. */
bool gpamap_plan_is_empty(const struct gpamap_plan *plan)
{
	return !plan->gone.nr && !plan->nr_moves && !plan->come.nr;
}

/* ---- doing it --------------------------------------------------------- */

/* How far a plan has come. */
struct progress {
	u32 deleted;
	u32 moved;
	u32 created;
};

#define MUST_TRIES 10

/* An operation that has to succeed: where memory is short, somebody may free some. */
static int must(int (*op)(struct gpamap_vm *vm, const struct gpamap_slot *slot),
		struct gpamap_vm *vm, const struct gpamap_slot *slot)
{
	int tries, rc;

	for (tries = 0; tries < MUST_TRIES; tries++) {
		rc = op(vm, slot);
		if (rc != -ENOMEM)
			break;
		schedule_timeout_uninterruptible(1);
	}
	return rc;
}

/* Puts back what was; after an error @done says what has not been undone. */
static int roll_back(const struct gpamap_plan *plan, struct gpamap_vm *vm,
		     struct progress *done)
{
	int rc = 0;

	for (; !rc && done->created; done->created -= !rc)
		rc = must(gpamap_vm_delete_slot, vm, plan->come.slots[done->created - 1]);
	for (; !rc && done->moved; done->moved -= !rc)
		rc = must(gpamap_vm_move_slot, vm, plan->moves[done->moved - 1].from);
	for (; !rc && done->deleted; done->deleted -= !rc)
		rc = must(gpamap_vm_create_slot, vm, plan->gone.slots[done->deleted - 1]);
	return rc;
}

static int plan_run(struct gpamap_plan *plan, struct gpamap_vm *vm,
		    struct gpamap_slot *refused, struct progress *done)
{
	struct gpamap_slot *slot;
	int rc;

	for (; done->deleted < plan->gone.nr; done->deleted++) {
		rc = gpamap_vm_delete_slot(vm, plan->gone.slots[done->deleted]);
		if (rc)
			return rc;
	}
	for (; done->moved < plan->nr_moves; done->moved++) {
		slot = plan->moves[done->moved].to;
		rc = gpamap_vm_move_slot(vm, slot);
		if (rc)
			goto err_refused;
	}
	for (; done->created < plan->come.nr; done->created++) {
		slot = plan->come.slots[done->created];
		/*
		 * With deletes behind it, it goes on: a killed process gets no memory to
		 * create slots again.
		 */
		if (!plan->gone.nr && !plan->nr_moves && fatal_signal_pending(current))
			rc = -EINTR;
		else
			rc = gpamap_vm_create_slot(vm, slot);
		if (rc)
			goto err_refused;
	}
	return 0;

err_refused:
	/* EFAULT and EINTR are about the caller, not about the slot. */
	if (rc != -EFAULT && rc != -EINTR)
		*refused = *slot;
	return rc;
}

/* Leaves in the plan what could not be undone, and frees the rest. */
static void plan_cut(struct gpamap_plan *plan, struct gpamap_slots *slots,
		     struct gpamap_vm *vm, const struct progress *done)
{
	u32 i;

	for (i = done->created; i < plan->come.nr; i++) {
		struct gpamap_slot *slot = plan->come.slots[i];

		if (slot->id != GPAMAP_SLOT_NONE)
			__clear_bit(slot->id - vm->first_slot, vm->ids[slot->as_id]);
		xa_release(&slots->as[slot->as_id], slot_gfn(slot));
		kfree(slot);
	}
	for (i = done->moved; i < plan->nr_moves; i++) {
		struct gpamap_slot *slot = plan->moves[i].to;

		xa_release(&slots->as[slot->as_id], slot_gfn(slot));
		kfree(slot);
	}
	for (i = done->deleted; plan->has_ids && i < plan->gone.nr; i++)
		__set_bit(plan->gone.slots[i]->id - vm->first_slot,
			  vm->ids[plan->gone.slots[i]->as_id]);
	plan->come.nr = done->created;
	plan->nr_moves = done->moved;
	plan->gone.nr = done->deleted;
}

/**
 * gpamap_plan_apply() - Make KVM do it
 * @plan: A plan with ids
 * @slots: What KVM has
 * @vm: The VM
 * @refused: Receives, on an error, the new slot that KVM refused, if it was one
 * @broken: Set when, after an error, KVM could not be brought back, to the error of that.
 *	What is left of the plan is then what KVM has; to be committed
 *
 * Return: 0 or what KVM answered: -EEXIST where a slot of the VMM's is in the way;
 * -EINTR when the caller is being killed and it takes deletes only to go back.
 */
int gpamap_plan_apply(struct gpamap_plan *plan, struct gpamap_slots *slots,
		      struct gpamap_vm *vm, struct gpamap_slot *refused, int *broken)
{
	struct progress done = { 0 };
	int rc;

	rc = plan_run(plan, vm, refused, &done);
	if (rc) {
		*broken = roll_back(plan, vm, &done);
		if (*broken)
			plan_cut(plan, slots, vm, &done);
	}
	return rc;
}

/**
 * gpamap_plan_unapply() - Make KVM take back what a plan has done
 * @plan: After a gpamap_plan_apply() that succeeded
 * @slots: What KVM had
 * @vm: The VM
 *
 * Return: 0, and the plan is to be aborted; or, when KVM could not be brought back, the error
 * of that: what is left of the plan is what KVM has, to be committed.
 */
int gpamap_plan_unapply(struct gpamap_plan *plan, struct gpamap_slots *slots,
			struct gpamap_vm *vm)
{
	struct progress done = { plan->gone.nr, plan->nr_moves, plan->come.nr };
	int rc;

	rc = roll_back(plan, vm, &done);
	if (rc)
		plan_cut(plan, slots, vm, &done);
	return rc;
}

static void plan_free(struct gpamap_plan *plan)
{
	kvfree(plan->gone.slots);
	kvfree(plan->moves);
	kvfree(plan->come.slots);
	memset(plan, 0, sizeof(*plan));
}

static void table_enter(struct gpamap_slots *slots, struct gpamap_slot *slot)
{
	xa_store(&slots->as[slot->as_id], slot_gfn(slot), slot, 0);
}

static void table_leave(struct gpamap_slots *slots, struct gpamap_slot *slot)
{
	struct xarray *xa = &slots->as[slot->as_id];

	if (xa_load(xa, slot_gfn(slot)) == slot)
		xa_erase(xa, slot_gfn(slot));
	kfree(slot);
}

/*
 * After gpamap_plan_apply(): the table has what KVM has. Stores replace entries or
 * fill reserved ones, and come before erasing, so nothing is allocated.
 */
void gpamap_plan_commit(struct gpamap_plan *plan, struct gpamap_slots *slots)
{
	u32 i;

	for (i = 0; i < plan->come.nr; i++)
		table_enter(slots, plan->come.slots[i]);
	for (i = 0; i < plan->nr_moves; i++)
		table_enter(slots, plan->moves[i].to);
	for (i = 0; i < plan->nr_moves; i++)
		table_leave(slots, plan->moves[i].from);
	for (i = 0; i < plan->gone.nr; i++)
		table_leave(slots, plan->gone.slots[i]);
	slots->nr += plan->come.nr;
	slots->nr -= plan->gone.nr;
	plan_free(plan);
}

/* Forgets the plan. KVM has what it had. */
void gpamap_plan_abort(struct gpamap_plan *plan, struct gpamap_slots *slots,
		       struct gpamap_vm *vm)
{
	const struct progress none = { 0 };

	plan_cut(plan, slots, vm, &none);
	plan_free(plan);
}
