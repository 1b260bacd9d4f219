// SPDX-License-Identifier: GPL-2.0
/*
 * Rendering: from a root region to the flat view of an address space, all of it or
 * only where it may have changed.
 *
 * A window of addresses is rendered in two steps. First the graph is walked in order
 * of precedence: of a region first what is seen through it, the most visible first, and
 * last the region itself, which thus shows only where nothing that it holds does. Every
 * region with something of its own to show yields a candidate, whose rank is its place
 * in that order. Then one sweep over the candidates by address keeps, at every address,
 * the one of lowest rank. Both cost n log n in the number of paths that lead into the
 * window; what lies outside is never looked at, for a container finds what it holds in
 * a range of addresses without going through the rest.
 *
 * No base address is ever computed. A step of the walk is the part of a region that can
 * be seen: the address where it begins to show and the window [lo, hi] of offsets in the
 * region. A child or a target gets what its own extent leaves of that window, so every
 * number stays in [0, 2^64) however aliases and containers are shifted against each
 * other, and nothing can wrap.
 *
 * A view is a list of chunks of ranges. A new view is spliced together from chunks of
 * the old one, as far as they lie clear of everything that was rendered, and new chunks
 * for the rest. So the cost of a change is that of what changed, plus a pointer for
 * every chunk. The old view stays as it is until gpamap_flatview_retire(), and its
 * readers longer than that.
 *
 * The same walk, with the regions that are not seen, finds where memslots are better cut
 * (gpamap_flatview_cuts()).
 *
 * The graph may have cycles: a path ends where nothing is left of its window. One that
 * does not end before it has more than GPAMAP_MAX_DEPTH regions is refused, and so are
 * more than GPAMAP_MAX_PATHS paths, however short: with two ways at each of 64 levels
 * there would be 2^64. The number of ranges is bounded, too. The graph is only read. The
 * caller keeps it still.
 *
 * Rules of MEMORY_MODEL kept here: 1, 2, 5-8, 10-13, 15, 17-28, 36, 49.
 */
#include "core.h"

/* A part of the graph that is still to be walked, or a region's own part. */
struct step {
	struct gpamap_region *region;
	u64 start;			/* address where the window shows */
	u64 lo;				/* the window, in offsets of the region */
	u64 hi;
	u32 flags;			/* or-ed along the path */
	u8 depth;			/* regions of the path */
	bool own;			/* what it holds has been walked */
	bool hint;			/* seen through a region that comes and goes */
};

/* A stretch of addresses where a region would show if nothing covered it. */
struct candidate {
	u64 start;
	u64 last;
	u64 offset;
	struct gpamap_region *region;
	u32 flags;
	u32 rank;
};

struct render {
	/* One window: what is to be walked, the last first. */
	struct step *steps;
	u32 nr_steps;
	u32 max_steps;
	struct candidate *cands;
	u32 nr_cands;
	u32 max_cands;
	u32 *heap;			/* indices of cands, lowest rank on top */
	u32 nr_heap;
	u32 max_heap;

	u32 nr_paths;			/* of all windows */
	bool hints;			/* candidates are what comes and goes */

	/* The new view. */
	const struct gpamap_flatview *old;
	struct gpamap_flatview *view;
	struct gpamap_chunk *open;	/* the last chunk, being filled; or NULL */
	u32 max_chunks;
	bool split;			/* divide a full chunk; else begin a new one */
};

/*
 * Room for @more than the @n elements of @elem bytes that stand behind @head bytes in
 * *@array: it is moved if need be. At most @limit elements.
 */
static int grow(void **array, size_t head, size_t elem, u32 n, u32 more, u32 *max,
		u32 limit)
{
	u32 new_max;
	void *p;

	if (more <= *max - n)
		return 0;
	if (more > limit - n)
		return -ENOSPC;
	new_max = max(2 * n, n + more);
	new_max = min(max(new_max, 16U), limit);
	p = kvmalloc(head + elem * new_max, GPAMAP_GFP);
	if (!p)
		return -ENOMEM;
	if (*array)
		memcpy(p, *array, head + elem * n);
	kvfree(*array);
	*array = p;
	*max = new_max;
	return 0;
}

#define GROW(array, n, max, limit) \
	grow((void **)&(array), 0, sizeof(*(array)), n, 1, &(max), limit)

/* ---- walk ------------------------------------------------------------- */

/*
 * Puts the part of @below that shows in the window of @from on the stack, if any does.
 * Rules 6, 10 and 19: what lies outside of either extent is cut. Rules 8, 15 and 22.
 */
static int push(struct render *r, const struct step *from, struct gpamap_region *below)
{
	const struct gpamap_region *region = from->region;
	struct step to = { .region = below, .flags = from->flags, .hint = from->hint };
	u64 first, last;
	int rc;

	if (++r->nr_paths > GPAMAP_MAX_PATHS)
		return -ENOSPC;
	if (below->flags & GPAMAP_REGION_DISABLED && !r->hints)
		return 0;
	if (below->flags & (GPAMAP_REGION_DISABLED | GPAMAP_REGION_CUT_AHEAD))
		to.hint = true;
	to.flags |= below->flags & GPAMAP_PATH_FLAGS;
	if (below->kind == GPAMAP_REGION_ROM)
		to.flags |= GPAMAP_REGION_READONLY;

	if (region->kind == GPAMAP_REGION_ALIAS) {
		if (check_add_overflow(from->lo, region->offset, &to.lo))
			return 0;
		to.start = from->start;
		to.hi = min(gpamap_add_saturated(from->hi, region->offset), below->last);
		if (to.lo > to.hi)
			return 0;
	} else {
		first = max(from->lo, below->at);
		last = min(from->hi, gpamap_add_saturated(below->at, below->last));
		if (first > last)
			return 0;
		to.start = from->start + (first - from->lo);
		to.lo = first - below->at;
		to.hi = last - below->at;
	}
	to.depth = from->depth + 1;
	if (to.depth > GPAMAP_MAX_DEPTH)
		return -ELOOP;
	rc = GROW(r->steps, r->nr_steps, r->max_steps, GPAMAP_MAX_PATHS);
	if (rc)
		return rc;
	r->steps[r->nr_steps++] = to;
	return 0;
}

/* The least visible first: the top of the stack is walked next. */
static int step_cmp(const void *a, const void *b)
{
	const struct step *x = a, *y = b;

	/* sort() itself never gives way, and there may be many. */
	cond_resched();
	return gpamap_region_precedes(x->region, y->region) ? 1 : -1;
}

/* Replaces @from, a container that has been taken from the stack, by what it holds. */
static int push_children(struct render *r, const struct step *from)
{
	u32 first = r->nr_steps;
	struct interval_tree_node *node;
	int rc;

	node = interval_tree_iter_first(&from->region->children, from->lo, from->hi);
	for (; node; node = interval_tree_iter_next(node, from->lo, from->hi)) {
		rc = push(r, from, container_of(node, struct gpamap_region, node));
		if (rc)
			return rc;
	}
	if (r->nr_steps - first > 1)
		sort(r->steps + first, r->nr_steps - first, sizeof(*r->steps), step_cmp,
		     NULL);
	return 0;
}

static bool has_own(const struct gpamap_region *region)
{
	return region->kind != GPAMAP_REGION_CONTAINER &&
	       region->kind != GPAMAP_REGION_ALIAS;
}

static int add_candidate(struct render *r, const struct step *step)
{
	int rc;

	rc = GROW(r->cands, r->nr_cands, r->max_cands, GPAMAP_MAX_PATHS);
	if (rc)
		return rc;
	r->cands[r->nr_cands] = (struct candidate){
		.start = step->start,
		.last = step->start + (step->hi - step->lo),
		.offset = step->lo,
		.region = step->region,
		.flags = step->flags,
		.rank = r->nr_cands,
	};
	/* Rule 24: the mode is the device's own and of no other. */
	if (step->region->kind == GPAMAP_REGION_ROMD)
		r->cands[r->nr_cands].flags |=
			step->region->flags & GPAMAP_REGION_ROMD_MODE;
	r->nr_cands++;
	return 0;
}

/* The candidates in [start, last], by rank. */
static int collect(struct render *r, struct gpamap_region *root, u64 start, u64 last)
{
	/* Rule 27: the whole root, from address 0 on, wherever it is attached too. */
	struct gpamap_region all = { .kind = GPAMAP_REGION_ALIAS };
	struct step step = { .region = &all, .start = start, .lo = start, .hi = last };
	int rc;

	r->nr_cands = 0;
	r->nr_steps = 0;
	rc = push(r, &step, root);
	while (!rc && r->nr_steps) {
		cond_resched();
		if (fatal_signal_pending(current))
			return -EINTR;
		step = r->steps[--r->nr_steps];
		if (step.own) {
			if (!r->hints || step.hint)
				rc = add_candidate(r, &step);
			continue;
		}
		if (step.region->kind == GPAMAP_REGION_ALIAS) {
			rc = push(r, &step, step.region->target);
			continue;
		}
		if (has_own(step.region)) {
			/* It goes back under what it holds. */
			r->steps[r->nr_steps] = step;
			r->steps[r->nr_steps++].own = true;
		}
		rc = push_children(r, &step);
	}
	return rc;
}

/* ---- the new view ----------------------------------------------------- */

static int add_chunk(struct render *r, struct gpamap_chunk *chunk)
{
	struct gpamap_flatview *view = r->view;
	int rc;

	rc = grow((void **)&r->view, sizeof(*view), sizeof(chunk), view->nr_chunks, 1,
		  &r->max_chunks, GPAMAP_MAX_RANGES);
	if (rc)
		return rc;
	r->view->chunks[r->view->nr_chunks++] = chunk;
	return 0;
}

static int open_chunk(struct render *r)
{
	struct gpamap_chunk *chunk;
	int rc;

	chunk = kmalloc(sizeof(*chunk), GPAMAP_GFP);
	if (!chunk)
		return -ENOMEM;
	chunk->nr = 0;
	rc = add_chunk(r, chunk);
	if (rc) {
		kfree(chunk);
		return rc;
	}
	r->open = chunk;
	return 0;
}

/*
 * The open chunk is full. A chunk in the middle of a view is divided, so that neither
 * half is left so small that chunks would become ever more.
 */
static int next_chunk(struct render *r)
{
	struct gpamap_chunk *full = r->open;
	u32 half = full->nr / 2;
	int rc;

	rc = open_chunk(r);
	if (rc || !r->split)
		return rc;
	memcpy(r->open->ranges, full->ranges + half,
	       (full->nr - half) * sizeof(full->ranges[0]));
	r->open->nr = full->nr - half;
	full->nr = half;
	return 0;
}

/* Rule 28. */
static bool joins(const struct gpamap_range *a, const struct gpamap_range *b)
{
	return a->last + 1 == b->start && a->region == b->region && a->flags == b->flags &&
	       !(a->flags & GPAMAP_REGION_UNMERGEABLE) &&
	       a->offset + (b->start - a->start) == b->offset;
}

/* Adds a range behind all others, or makes the last one longer. */
static int emit(struct render *r, const struct gpamap_range *range)
{
	int rc = 0;

	if (r->open && joins(&r->open->ranges[r->open->nr - 1], range)) {
		r->open->ranges[r->open->nr - 1].last = range->last;
		return 0;
	}
	if (r->view->nr == GPAMAP_MAX_RANGES)
		return -ENOSPC;
	if (!r->open)
		rc = open_chunk(r);
	else if (r->open->nr == GPAMAP_CHUNK_RANGES)
		rc = next_chunk(r);
	if (rc)
		return rc;
	r->open->ranges[r->open->nr++] = *range;
	r->view->nr++;
	return 0;
}

/* Adds the part of an old range that lies in [start, last]. */
static int emit_part(struct render *r, const struct gpamap_range *old, u64 start, u64 last)
{
	struct gpamap_range part = *old;

	part.start = max(start, old->start);
	part.last = min(last, old->last);
	if (part.start > part.last)
		return 0;
	part.offset += part.start - old->start;
	return emit(r, &part);
}

/* Adds the chunks of the old view from @from up to @to; splice() counts their ranges. */
static int share_chunks(struct render *r, u32 from, u32 to)
{
	struct gpamap_chunk *const *chunks = r->old->chunks;
	int rc;

	r->open = NULL;
	rc = grow((void **)&r->view, sizeof(*r->view), sizeof(*chunks),
		  r->view->nr_chunks, to - from, &r->max_chunks, GPAMAP_MAX_RANGES);
	if (rc)
		return rc;
	memcpy(&r->view->chunks[r->view->nr_chunks], &chunks[from],
	       (to - from) * sizeof(*chunks));
	r->view->nr_chunks += to - from;
	return 0;
}

/* ---- sweep ------------------------------------------------------------ */

static int candidate_cmp(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	cond_resched();
	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->rank < y->rank ? -1 : 1;
}

static bool heap_less(const struct render *r, u32 i, u32 j)
{
	return r->cands[r->heap[i]].rank < r->cands[r->heap[j]].rank;
}

static void heap_push(struct render *r, u32 index)
{
	u32 i = r->nr_heap++;

	r->heap[i] = index;
	while (i && heap_less(r, i, (i - 1) / 2)) {
		swap(r->heap[i], r->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
}

static void heap_pop(struct render *r)
{
	u32 i = 0, child;

	r->heap[0] = r->heap[--r->nr_heap];
	for (;;) {
		child = 2 * i + 1;
		if (child >= r->nr_heap)
			break;
		if (child + 1 < r->nr_heap && heap_less(r, child + 1, child))
			child++;
		if (!heap_less(r, child, i))
			break;
		swap(r->heap[i], r->heap[child]);
		i = child;
	}
}

static int emit_candidate(struct render *r, const struct candidate *cand, u64 start,
			  u64 last)
{
	const struct gpamap_range range = {
		.start = start,
		.last = last,
		.offset = cand->offset + (start - cand->start),
		.region = cand->region,
		.flags = cand->flags,
	};

	return emit(r, &range);
}

/*
 * The heap holds candidates that begin at or before @pos, or that begin below a
 * more visible one which is in the heap too; so the top always has begun. Those
 * that end before @pos are thrown out when they come to the top. The top shows
 * from @pos up to its end, or up to where a more visible one begins.
 */
static int sweep(struct render *r)
{
	const struct candidate *top;
	u64 pos = 0, last;
	u32 i = 0;
	int rc;

	if (r->nr_cands > r->max_heap) {
		kvfree(r->heap);
		r->max_heap = 0;
		r->heap = kvcalloc(r->nr_cands, sizeof(*r->heap), GPAMAP_GFP);
		if (!r->heap)
			return -ENOMEM;
		r->max_heap = r->nr_cands;
	}
	r->nr_heap = 0;
	if (r->nr_cands > 1)
		sort(r->cands, r->nr_cands, sizeof(*r->cands), candidate_cmp, NULL);

	while (i < r->nr_cands || r->nr_heap) {
		cond_resched();
		if (fatal_signal_pending(current))
			return -EINTR;
		if (!r->nr_heap)
			pos = r->cands[i].start;
		while (i < r->nr_cands && r->cands[i].start <= pos)
			heap_push(r, i++);

		top = &r->cands[r->heap[0]];
		if (top->last < pos) {
			heap_pop(r);
			continue;
		}
		last = top->last;
		for (; i < r->nr_cands && r->cands[i].start <= top->last; i++) {
			if (r->cands[i].rank < top->rank) {
				last = r->cands[i].start - 1;
				break;
			}
			heap_push(r, i);
		}
		rc = emit_candidate(r, top, pos, last);
		if (rc)
			return rc;
		if (last == U64_MAX)
			return 0;
		pos = last + 1;
	}
	return 0;
}

static int render_window(struct render *r, struct gpamap_region *root, u64 start, u64 last)
{
	int rc;

	rc = collect(r, root, start, last);
	return rc ?: sweep(r);
}

/* ---- what is dirty ---------------------------------------------------- */

/* Adds a range of addresses; too many become one that covers them. */
void gpamap_dirty_add(struct gpamap_dirty *dirty, u64 start, u64 last)
{
	u32 i, j;

	/* The first that is not below, and what it and those after it swallow. */
	for (i = 0; i < dirty->nr; i++)
		if (gpamap_add_saturated(dirty->ranges[i].last, 1) >= start)
			break;
	for (j = i; j < dirty->nr; j++) {
		if (dirty->ranges[j].start > gpamap_add_saturated(last, 1))
			break;
		start = min(start, dirty->ranges[j].start);
		last = max(last, dirty->ranges[j].last);
	}
	if (i == j && dirty->nr == GPAMAP_MAX_DIRTY) {
		/* No room: one range from the first to the last of all. */
		start = min(start, dirty->ranges[0].start);
		last = max(last, dirty->ranges[dirty->nr - 1].last);
		i = 0;
		j = dirty->nr;
	}
	memmove(&dirty->ranges[i + 1], &dirty->ranges[j],
		(dirty->nr - j) * sizeof(dirty->ranges[0]));
	dirty->nr += 1 - (j - i);
	dirty->ranges[i].start = start;
	dirty->ranges[i].last = last;
}

/*
 * Where an unmergeable range of the old view begins or ends at the border of a dirty
 * range, or lies across it, the two sides may be one piece or two, and only rendering
 * the whole of it tells. Such ranges are made dirty as a whole.
 */
static void widen(const struct gpamap_flatview *old, const struct gpamap_dirty *dirty,
		  struct gpamap_dirty *wide)
{
	const struct gpamap_range *range;
	u64 start, last;
	u32 i;

	wide->nr = 0;
	for (i = 0; i < dirty->nr; i++) {
		start = dirty->ranges[i].start;
		last = dirty->ranges[i].last;
		range = start ? gpamap_flatview_find(old, start - 1) : NULL;
		if (range && range->flags & GPAMAP_REGION_UNMERGEABLE)
			start = range->start;
		range = last < U64_MAX ? gpamap_flatview_find(old, last + 1) : NULL;
		if (range && range->flags & GPAMAP_REGION_UNMERGEABLE)
			last = range->last;
		gpamap_dirty_add(wide, start, last);
	}
}

/* ---- splice ----------------------------------------------------------- */

/* Index of the first chunk, from @from on, that does not end before @addr. */
static u32 find_chunk(const struct gpamap_flatview *view, u32 from, u64 addr)
{
	u32 lo = from, hi = view->nr_chunks;

	while (lo < hi) {
		u32 mid = lo + (hi - lo) / 2;
		const struct gpamap_chunk *chunk = view->chunks[mid];

		if (chunk->ranges[chunk->nr - 1].last < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/*
 * Old chunks are shared up to the one that reaches the dirty range or touches it; from
 * there on old ranges are copied, as far as they lie outside of dirty ranges, until a
 * chunk begins that lies clear of what was rendered last.
 */
static int splice(struct render *r, struct gpamap_region *root,
		  const struct gpamap_dirty *marked)
{
	const struct gpamap_flatview *old = r->old;
	struct gpamap_dirty wide, *dirty = &wide;
	u64 done = 0;		/* old ranges are dealt with below this address, */
	bool all = false;	/* or up to the end of the world */
	u32 shared = old->nr;	/* ranges, less those of chunks that were passed by */
	u32 chunk = 0, end, d, i;
	int rc;

	r->split = true;
	widen(old, marked, dirty);
	for (d = 0; d <= dirty->nr; d++) {
		u64 start = d < dirty->nr ? dirty->ranges[d].start : U64_MAX;

		if (all)
			break;
		/* Old ranges between the last dirty range and this one. */
		end = d < dirty->nr ? find_chunk(old, chunk, start ? start - 1 : 0) :
				      old->nr_chunks;
		while (chunk < old->nr_chunks) {
			struct gpamap_chunk *c = old->chunks[chunk];
			bool clear = d == 0 || c->ranges[0].start > done;

			cond_resched();
			if (chunk < end && clear &&
			    !(r->open && r->open->nr < GPAMAP_CHUNK_RANGES / 4)) {
				/* That one is clear, so are those after it. */
				rc = share_chunks(r, chunk, end);
				if (rc)
					return rc;
				chunk = end;
				continue;
			}
			for (i = 0; i < c->nr; i++) {
				if (d < dirty->nr && c->ranges[i].start >= start)
					break;
				rc = emit_part(r, &c->ranges[i], done,
					       d < dirty->nr ? start - 1 : U64_MAX);
				if (rc)
					return rc;
			}
			/* The rest of it lies in the dirty range or beyond. */
			if (d < dirty->nr && c->ranges[c->nr - 1].last >= start)
				break;
			shared -= c->nr;
			chunk++;
		}
		if (d == dirty->nr)
			break;
		rc = render_window(r, root, start, dirty->ranges[d].last);
		if (rc)
			return rc;
		all = dirty->ranges[d].last == U64_MAX;
		done = dirty->ranges[d].last + 1;
		end = all ? old->nr_chunks : find_chunk(old, chunk, done);
		while (chunk < end)
			shared -= old->chunks[chunk++]->nr;
	}
	if (shared > GPAMAP_MAX_RANGES - r->view->nr)
		return -ENOSPC;
	r->view->nr += shared;
	return 0;
}

/**
 * gpamap_flatview_render() - Render the view of a space
 * @root: The region that the space looks at
 * @old: The view before, or NULL for none
 * @dirty: Where the view may differ from @old
 * @out: The view. It has chunks in common with @old, if there is one; retire one of
 *	the two with the other as what is kept
 *
 * Return: 0; -ELOOP when a path to what lies where it is dirty does not end, or has more
 * than GPAMAP_MAX_DEPTH regions; -ENOSPC when there are more than GPAMAP_MAX_PATHS ways
 * from @root to the regions that lie where it is dirty, or the view has more than
 * GPAMAP_MAX_RANGES ranges; -ENOMEM; -EINTR when the caller is being killed.
 */
int gpamap_flatview_render(struct gpamap_region *root, const struct gpamap_flatview *old,
			   const struct gpamap_dirty *dirty, struct gpamap_flatview **out)
{
	struct render r = { .old = old };
	int rc = -ENOMEM;

	r.max_chunks = old ? old->nr_chunks + 4 : 4;
	r.view = kvmalloc(struct_size(r.view, chunks, r.max_chunks), GPAMAP_GFP);
	if (r.view) {
		r.view->nr = 0;
		r.view->nr_chunks = 0;
		rc = old ? splice(&r, root, dirty) : render_window(&r, root, 0, U64_MAX);
	}
	kvfree(r.heap);
	kvfree(r.cands);
	kvfree(r.steps);
	if (rc)
		gpamap_flatview_retire(r.view, old);
	else
		*out = r.view;
	return rc;
}

static int cut_cmp(const void *a, const void *b)
{
	const u64 *x = a, *y = b;

	cond_resched();
	return *x < *y ? -1 : *x > *y;
}

/**
 * gpamap_flatview_cuts() - Where memslots should be cut, since something comes and goes
 * @root: The region that the space looks at
 * @page_shift: Of the host's pages
 * @start: First address of interest
 * @last: Last address of interest
 * @cuts: Receives page numbers, by size, to be freed with kvfree(): the first page of
 *	all that disabled regions, and those to be cut ahead for, show or would show
 *	there, and the page behind it
 * @nr: Receives their number; none when there are too many ways to look at, or one that
 *	is too deep, as disabled regions may have it, for these are hints
 *
 * Return: 0; -ENOMEM; -EINTR when the caller is being killed.
 */
int gpamap_flatview_cuts(struct gpamap_region *root, unsigned int page_shift, u64 start,
			 u64 last, u64 **cuts, u32 *nr)
{
	struct render r = { .hints = true };
	u32 i;
	int rc;

	*cuts = NULL;
	*nr = 0;
	rc = collect(&r, root, start, last);
	if (rc == -ENOSPC || rc == -ELOOP) {
		r.nr_cands = 0;
		rc = 0;
	}
	if (!rc && r.nr_cands) {
		*cuts = kvcalloc(r.nr_cands, 2 * sizeof(**cuts), GPAMAP_GFP);
		if (!*cuts)
			rc = -ENOMEM;
	}
	for (i = 0; !rc && i < r.nr_cands; i++) {
		(*cuts)[(*nr)++] = r.cands[i].start >> page_shift;
		(*cuts)[(*nr)++] = (r.cands[i].last >> page_shift) + 1;
	}
	if (*nr > 1)
		sort(*cuts, *nr, sizeof(**cuts), cut_cmp, NULL);
	kvfree(r.cands);
	kvfree(r.steps);
	return rc;
}

/* How many of the next @most chunks two views have in common, up to the first other. */
static u32 same_chunks(struct gpamap_chunk *const *a, struct gpamap_chunk *const *b,
		       u32 most)
{
	u32 n = 0;

	/* Many at a time: nearly all of them are. */
	while (most - n >= 32 && !memcmp(a + n, b + n, 32 * sizeof(*a)))
		n += 32;
	while (n < most && a[n] == b[n])
		n++;
	return n;
}

/*
 * Frees @view, save for the chunks that @keep has too, once no reader can be at it.
 * Either may be NULL.
 */
void gpamap_flatview_retire(struct gpamap_flatview *view,
			    const struct gpamap_flatview *keep)
{
	u32 i, j = 0, nr_keep = keep ? keep->nr_chunks : 0;

	if (!view)
		return;
	for (i = 0; i < view->nr_chunks; i++) {
		struct gpamap_chunk *chunk = view->chunks[i];
		u32 same;

		while (j < nr_keep &&
		       keep->chunks[j]->ranges[0].start < chunk->ranges[0].start)
			j++;
		same = keep ? same_chunks(view->chunks + i, keep->chunks + j,
					  min(view->nr_chunks - i, nr_keep - j)) : 0;
		if (!same) {
			kfree_rcu(chunk, rcu);
			continue;
		}
		i += same - 1;
		j += same;
	}
	kvfree_rcu(view, rcu);
}

/* ---- reading a view --------------------------------------------------- */

static const struct gpamap_range *cursor_range(const struct gpamap_cursor *cursor)
{
	if (cursor->chunk == cursor->view->nr_chunks)
		return NULL;
	return &cursor->view->chunks[cursor->chunk]->ranges[cursor->index];
}

/* The first range of a view, which may be NULL; NULL if there is none. */
const struct gpamap_range *gpamap_flatview_first(struct gpamap_cursor *cursor,
						 const struct gpamap_flatview *view)
{
	static const struct gpamap_flatview nothing;

	*cursor = (struct gpamap_cursor){ .view = view ?: &nothing };
	return cursor_range(cursor);
}

/* Range number @nr, counted from 1; NULL for 0 and where there is none. */
const struct gpamap_range *gpamap_flatview_seek(struct gpamap_cursor *cursor,
						const struct gpamap_flatview *view, u32 nr)
{
	*cursor = (struct gpamap_cursor){ .view = view };
	if (!nr--)
		return NULL;
	while (cursor->chunk < view->nr_chunks && nr >= view->chunks[cursor->chunk]->nr)
		nr -= view->chunks[cursor->chunk++]->nr;
	cursor->index = nr;
	return cursor_range(cursor);
}

const struct gpamap_range *gpamap_flatview_next(struct gpamap_cursor *cursor)
{
	if (++cursor->index == cursor->view->chunks[cursor->chunk]->nr) {
		cursor->chunk++;
		cursor->index = 0;
	}
	return cursor_range(cursor);
}

/* The range that @addr is in, or NULL. */
const struct gpamap_range *gpamap_flatview_find(const struct gpamap_flatview *view,
						u64 addr)
{
	const struct gpamap_chunk *chunk;
	u32 lo = 0, hi, i;

	i = find_chunk(view, 0, addr);
	if (i == view->nr_chunks)
		return NULL;
	chunk = view->chunks[i];
	hi = chunk->nr - 1;
	while (lo < hi) {
		u32 mid = lo + (hi - lo) / 2;

		if (chunk->ranges[mid].last < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return chunk->ranges[lo].start <= addr ? &chunk->ranges[lo] : NULL;
}

/* Rule 30: neither priority nor name counts. Compares regions, never looks at them. */
static bool range_equal(const struct gpamap_range *a, const struct gpamap_range *b)
{
	return a->start == b->start && a->last == b->last && a->offset == b->offset &&
	       a->region == b->region && a->flags == b->flags;
}

bool gpamap_flatview_equal(const struct gpamap_flatview *a,
			   const struct gpamap_flatview *b)
{
	struct gpamap_cursor ca, cb;
	const struct gpamap_range *x = gpamap_flatview_first(&ca, a);
	const struct gpamap_range *y = gpamap_flatview_first(&cb, b);

	while (x && y && range_equal(x, y)) {
		x = gpamap_flatview_next(&ca);
		y = gpamap_flatview_next(&cb);
	}
	return !x && !y;
}

static int add_change(struct gpamap_range **list, u32 *nr, u32 *max,
		      const struct gpamap_range *range)
{
	int rc = GROW(*list, *nr, *max, GPAMAP_MAX_RANGES);

	if (!rc)
		(*list)[(*nr)++] = *range;
	return rc;
}

/* Moves both past the chunks that come next in both; whether there are any. */
static bool skip_common(struct gpamap_cursor *a, struct gpamap_cursor *b)
{
	u32 n = min(a->view->nr_chunks - a->chunk, b->view->nr_chunks - b->chunk);

	if (a->index || b->index)
		return false;
	n = same_chunks(a->view->chunks + a->chunk, b->view->chunks + b->chunk, n);
	a->chunk += n;
	b->chunk += n;
	return n;
}

/**
 * gpamap_flatview_diff() - The symmetric difference of two views
 * @old: One view, or NULL for an empty one
 * @new: Another; chunks that both have are passed over
 * @changes: Receives the ranges of @old that @new does not have (gone), and the other
 *	way round (come); to be freed with gpamap_changes_free(), after an error too
 *
 * Return: 0 or -ENOMEM.
 */
int gpamap_flatview_diff(const struct gpamap_flatview *old,
			 const struct gpamap_flatview *new, struct gpamap_changes *changes)
{
	struct gpamap_cursor co, cn;
	const struct gpamap_range *o = gpamap_flatview_first(&co, old);
	const struct gpamap_range *n = gpamap_flatview_first(&cn, new);
	int rc = 0;

	while (!rc && (o || n)) {
		cond_resched();
		if (o && n && skip_common(&co, &cn)) {
			o = cursor_range(&co);
			n = cursor_range(&cn);
		} else if (o && n && range_equal(o, n)) {
			o = gpamap_flatview_next(&co);
			n = gpamap_flatview_next(&cn);
		} else if (!n || (o && o->start <= n->start)) {
			rc = add_change(&changes->gone, &changes->nr_gone,
					&changes->max_gone, o);
			o = gpamap_flatview_next(&co);
		} else {
			rc = add_change(&changes->come, &changes->nr_come,
					&changes->max_come, n);
			n = gpamap_flatview_next(&cn);
		}
	}
	return rc;
}

void gpamap_changes_free(struct gpamap_changes *changes)
{
	kvfree(changes->gone);
	kvfree(changes->come);
	memset(changes, 0, sizeof(*changes));
}

/* ---- printing --------------------------------------------------------- */

/* The word for a range in a printed view. */
const char *gpamap_range_kind(const struct gpamap_range *range)
{
	if (range->flags & GPAMAP_REGION_READONLY)
		return "rom";
	switch (range->region->kind) {
	case GPAMAP_REGION_RAM:
		return "ram";
	case GPAMAP_REGION_RESERVED:
		return "reserved";
	case GPAMAP_REGION_ROMD:
		return range->flags & GPAMAP_REGION_ROMD_MODE ? "romd" : "i/o";
	}
	return "i/o";
}

/* One line of a printed view, without its end, as snprintf() does it. */
int gpamap_range_print(char *buf, size_t len, const struct gpamap_range *range)
{
	const char *nv = range->flags & GPAMAP_REGION_NONVOLATILE ? "nv-" : "";
	int n = snprintf(buf, len, "  %016llx-%016llx (prio %d, %s%s): %s", range->start,
			 range->last, range->region->prio, nv, gpamap_range_kind(range),
			 range->region->name);

	if (range->offset)
		n += snprintf(buf + n, len - n, " @%016llx", range->offset);
	return n;
}
