// SPDX-License-Identifier: GPL-2.0
/*
 * The replay behind `make bench-churn` and churn_test.
 *
 * What a commit did is told three times: by the answer of APPLY (and before it by a dry
 * run), by the statistics, and by the memslots before and after. The last is what counts,
 * the others must agree with it.
 *
 * QEMU's way is the difference of two flat views as its KVM listener turns it into
 * operations: a range of memory that is in one of them and not in the other, as a
 * whole, is a slot that is deleted or created. From the power-on map on it gives, for the
 * files churn-*.map, the numbers that QEMU 7.2 itself was seen to need.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "churn.h"
#include "guest.h"

/* The memory spaces of a map: one for each address space of KVM. */
#define MAX_AS 2

struct view {
	struct gpamap_range_info *ranges;
	u32 nr;
};

struct replay {
	const char *path;
	struct guest guest;
	struct gpamap *map;
	struct gpamap_mapfile *file;
	struct gpamap_batch *batch;

	/* After the commit before. */
	struct gpamap_slot_info *slots;
	u32 nr_slots;
	struct view views[MAX_AS];
	struct gpamap_stats stats;
};

static const char *say(const char *format, ...)
	__attribute__((format(printf, 1, 2)));

static const char *say(const char *format, ...)
{
	static char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return text;
}

bool churn_is_memory(const struct gpamap_range_info *range, u64 *start, u64 *end)
{
	if (range->kind != GPAMAP_REGION_RAM && range->kind != GPAMAP_REGION_ROM &&
	    (range->kind != GPAMAP_REGION_ROMD ||
	     !(range->flags & GPAMAP_REGION_ROMD_MODE)))
		return false;
	*start = (range->start + TEST_PAGE - 1) & -TEST_PAGE;
	*end = (range->last + 1) & -TEST_PAGE;
	return *start < *end;
}

static void count_delete(struct churn_count *count, u64 len)
{
	count->deletes++;
	count->deleted_bytes += len;
	if (len > count->largest_delete)
		count->largest_delete = len;
}

static void count_add(struct churn_count *sum, const struct churn_count *count)
{
	sum->deletes += count->deletes;
	sum->moves += count->moves;
	sum->creates += count->creates;
	sum->deleted_bytes += count->deleted_bytes;
	if (count->largest_delete > sum->largest_delete)
		sum->largest_delete = count->largest_delete;
}

static const struct gpamap_slot_info *find_slot(const struct gpamap_slot_info *slots,
						u32 nr, u32 slot)
{
	u32 i;

	for (i = 0; i < nr; i++)
		if (slots[i].slot == slot)
			return &slots[i];
	return NULL;
}

/* A slot that is still there, here or elsewhere; what else has its number is new. */
static bool same_memory(const struct gpamap_slot_info *a,
			const struct gpamap_slot_info *b)
{
	return a && b && a->npages == b->npages && a->hva == b->hva &&
	       a->flags == b->flags;
}

static struct churn_count slots_count(const struct gpamap_slot_info *old, u32 nr_old,
				      const struct gpamap_slot_info *new, u32 nr_new)
{
	struct churn_count count = { 0 };
	u32 i;

	for (i = 0; i < nr_old; i++) {
		const struct gpamap_slot_info *after;

		after = find_slot(new, nr_new, old[i].slot);
		if (!same_memory(&old[i], after))
			count_delete(&count, old[i].npages * TEST_PAGE);
		else if (old[i].gpa != after->gpa)
			count.moves++;
	}
	for (i = 0; i < nr_new; i++)
		if (!same_memory(&new[i], find_slot(old, nr_old, new[i].slot)))
			count.creates++;
	return count;
}

static bool has_range(const struct view *view, const struct gpamap_range_info *range)
{
	u32 i;

	for (i = 0; i < view->nr; i++) {
		const struct gpamap_range_info *r = &view->ranges[i];

		if (r->start == range->start && r->last == range->last &&
		    r->region == range->region && r->offset == range->offset &&
		    r->flags == range->flags)
			return true;
	}
	return false;
}

static void qemu_count(const struct view *old, const struct view *new,
		       struct churn_count *count)
{
	u64 start, end;
	u32 i;

	for (i = 0; i < old->nr; i++)
		if (churn_is_memory(&old->ranges[i], &start, &end) &&
		    !has_range(new, &old->ranges[i]))
			count_delete(count, end - start);
	for (i = 0; i < new->nr; i++)
		if (churn_is_memory(&new->ranges[i], &start, &end) &&
		    !has_range(old, &new->ranges[i]))
			count->creates++;
}

/* The views after the commit, in place of those before; what QEMU would have done. */
static const char *next_views(struct replay *r, struct churn_count *qemu)
{
	struct gpamap_space_info *spaces;
	u32 nr, i;
	int rc;

	rc = gpamap_query_spaces(r->map, &spaces, &nr);
	if (rc)
		return say("query spaces: %d", rc);
	for (i = 0; !rc && i < nr; i++) {
		struct view *view = &r->views[spaces[i].as_id];
		struct view new;

		if (spaces[i].kind != GPAMAP_SPACE_MEMORY)
			continue;
		rc = gpamap_query_ranges(r->map, spaces[i].id, &new.ranges, &new.nr);
		if (rc)
			break;
		qemu_count(view, &new, qemu);
		free(view->ranges);
		*view = new;
	}
	free(spaces);
	return rc ? say("query ranges: %d", rc) : NULL;
}

static const char *agree(const struct replay *r, const struct churn_commit *c,
			 const struct gpamap_apply *plan,
			 const struct gpamap_stats *stats, u64 largest)
{
	const struct gpamap_stats *before = &r->stats;

	if (plan->out_deletes != c->told.out_deletes ||
	    plan->out_moves != c->told.out_moves ||
	    plan->out_creates != c->told.out_creates ||
	    plan->out_plan != c->told.out_plan || plan->out_taken != c->told.out_taken)
		return say("commit %u: the dry run planned something else", c->number);
	if (c->told.out_deletes != c->did.deletes || c->told.out_moves != c->did.moves ||
	    c->told.out_creates != c->did.creates)
		return say("commit %u: told %u deletes, %u moves, %u creates, "
			   "seen %u, %u, %u", c->number, c->told.out_deletes,
			   c->told.out_moves, c->told.out_creates, c->did.deletes,
			   c->did.moves, c->did.creates);
	if (stats->commits - before->commits != 1 ||
	    stats->deletes - before->deletes != c->did.deletes ||
	    stats->moves - before->moves != c->did.moves ||
	    stats->creates - before->creates != c->did.creates ||
	    stats->deleted_bytes - before->deleted_bytes != c->did.deleted_bytes ||
	    stats->largest_delete != largest)
		return say("commit %u: the statistics differ from what was seen",
			   c->number);
	return NULL;
}

static const char *replay_commit(struct replay *r, struct churn_commit *c,
				 struct churn_total *total)
{
	struct gpamap_slot_info *slots;
	struct gpamap_stats stats;
	struct gpamap_apply plan;
	const char *why;
	u32 failed, nr;
	int rc;

	rc = gpamap_plan(r->map, r->batch, &plan, &failed);
	if (!rc)
		rc = gpamap_apply_out(r->map, r->batch, &c->told, &failed);
	if (rc) {
		gpamap_mapfile_blame(r->file, r->batch, failed, rc);
		return say("%s:%u: %s (%d)", r->path, gpamap_mapfile_line(r->file),
			   gpamap_mapfile_error(r->file), rc);
	}
	rc = gpamap_query_slots(r->map, &slots, &nr);
	if (rc)
		return say("query slots: %d", rc);
	c->did = slots_count(r->slots, r->nr_slots, slots, nr);
	free(r->slots);
	r->slots = slots;
	r->nr_slots = nr;
	why = next_views(r, &c->qemu);
	if (why)
		return why;
	rc = gpamap_query_stats(r->map, &stats);
	if (rc)
		return say("query statistics: %d", rc);

	total->commits++;
	total->held += !!(c->told.out_plan & GPAMAP_PLAN_HOLD);
	total->taken += c->told.out_taken;
	count_add(&total->did, &c->did);
	count_add(&total->qemu, &c->qemu);
	why = agree(r, c, &plan, &stats, total->did.largest_delete);
	r->stats = stats;
	return why;
}

static const char *replay(struct replay *r,
			  void (*each)(const struct churn_commit *commit, void *arg),
			  void *arg, struct churn_total *total)
{
	const char *why;
	int rc;

	rc = guest_create_vm(&r->guest);
	if (rc)
		return say("no VM: %d", rc);
	rc = gpamap_open(&r->map);
	if (!rc)
		rc = gpamap_attach(r->map, r->guest.vm, 0, 0);
	if (rc)
		return say("no map on the VM: %d", rc);
	rc = gpamap_mapfile_open(r->path, &r->file);
	if (!rc)
		rc = gpamap_batch_new(&r->batch);
	if (rc)
		return say("%s: %d", r->path, rc);
	while ((rc = gpamap_mapfile_batch(r->file, r->batch)) == GPAMAP_MAPFILE_COMMIT) {
		struct churn_commit commit = {
			.map = r->map,
			.number = total->commits + 1,
		};

		why = replay_commit(r, &commit, total);
		if (why)
			return why;
		if (each)
			each(&commit, arg);
	}
	if (rc)
		return say("%s:%u: %s (%d)", r->path, gpamap_mapfile_line(r->file),
			   gpamap_mapfile_error(r->file), rc);
	return NULL;
}

const char *churn_replay(const char *path,
			 void (*each)(const struct churn_commit *commit, void *arg),
			 void *arg, struct churn_total *total)
{
	struct replay r = { .path = path, .guest = { .kvm = -1, .vm = -1, .vcpu = -1 } };
	const char *why;
	u32 as;

	memset(total, 0, sizeof(*total));
	why = replay(&r, each, arg, total);
	for (as = 0; as < MAX_AS; as++)
		free(r.views[as].ranges);
	free(r.slots);
	gpamap_batch_free(r.batch);
	gpamap_close(r.map);
	guest_destroy(&r.guest);
	gpamap_mapfile_close(r.file);
	return why;
}
