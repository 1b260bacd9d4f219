// SPDX-License-Identifier: GPL-2.0
/*
 * Rendering: from a root region to the flat view of an address space.
 *
 * First the graph is walked in order of precedence: of a region first what is
 * seen through it, the most visible child first, and last the region itself,
 * which thus shows only where nothing below it does. Every region with something
 * of its own to show (ram, rom, io) yields a candidate, whose rank is its place
 * in that order. Then one sweep over the candidates by address keeps, at every
 * address, the one of lowest rank. Walk and sort together cost n log n in the
 * number of paths from the root.
 *
 * No base address is ever computed. A frame of the walk is the part of a region
 * that can be seen: the address where it begins to show and the window [lo, hi]
 * of offsets in the region. A child or a target gets what its own extent leaves
 * of that window, so every number stays in [0, 2^64) however aliases and
 * containers are shifted against each other, and nothing can wrap.
 *
 * Depth is bounded by region.c, the number of paths and of ranges here. The
 * graph is only read. The caller keeps it still.
 *
 * Rules of MEMORY_MODEL kept here: 1, 5-8, 10-13, 15 (ranges), 17-23, 27, 28.
 */
#include "core.h"

#define RANGE_FLAGS GPAMAP_REGION_READONLY

struct candidate {
	u64 start;
	u64 last;
	u64 offset;
	struct gpamap_region *region;
	u32 flags;
	u32 rank;
};

struct frame {
	struct gpamap_region *region;
	struct gpamap_region *below;	/* what was entered last */
	u64 start;			/* address where the window shows */
	u64 lo;				/* the window, in offsets of the region */
	u64 hi;
	u32 flags;			/* or-ed along the path */
};

struct render {
	struct frame stack[GPAMAP_MAX_DEPTH];
	struct candidate *cands;
	u32 nr_cands;
	u32 max_cands;
	u32 nr_paths;

	u32 *heap;			/* indices of cands, lowest rank on top */
	u32 nr_heap;

	struct gpamap_flatview *view;
	u32 max_ranges;
};

/*
 * Room for more than the @n elements of @elem bytes that stand behind @head bytes
 * in @old: a new array, at most @limit long, with @old moved into it; or an error,
 * and @old is as it was.
 */
static void *grow(void *old, size_t head, size_t elem, u32 n, u32 *max, u32 limit)
{
	u32 new_max = min(max(2 * n, 64U), limit);
	void *p;

	if (n >= limit)
		return ERR_PTR(-ENOSPC);
	p = kvmalloc(head + elem * new_max, GFP_KERNEL_ACCOUNT);
	if (!p)
		return ERR_PTR(-ENOMEM);
	if (old)
		memcpy(p, old, head + elem * n);
	kvfree(old);
	*max = new_max;
	return p;
}

static u64 add_saturated(u64 a, u64 b)
{
	return a + b < a ? U64_MAX : a + b;
}

/* Rules 8 and 22. False if @region and all below it are hidden. */
static bool frame_open(struct frame *frame, struct gpamap_region *region, u32 flags)
{
	if (region->flags & GPAMAP_REGION_DISABLED)
		return false;
	flags |= region->flags & RANGE_FLAGS;
	if (region->kind == GPAMAP_REGION_ROM)
		flags |= GPAMAP_REGION_READONLY;
	*frame = (struct frame){ .region = region, .flags = flags };
	return true;
}

/*
 * The part of @below that shows in the window of @from: false if none does.
 * Rules 6, 10 and 19: what lies outside of either extent is cut.
 */
static bool frame_enter(const struct frame *from, struct gpamap_region *below,
			struct frame *to)
{
	const struct gpamap_region *region = from->region;
	u64 first, last;

	if (!frame_open(to, below, from->flags))
		return false;

	if (region->kind == GPAMAP_REGION_ALIAS) {
		if (check_add_overflow(from->lo, region->offset, &to->lo))
			return false;
		to->start = from->start;
		to->hi = min(add_saturated(from->hi, region->offset), below->last);
		return to->lo <= to->hi;
	}
	first = max(from->lo, below->at);
	last = min(from->hi, add_saturated(below->at, below->last));
	if (first > last)
		return false;
	to->start = from->start + (first - from->lo);
	to->lo = first - below->at;
	to->hi = last - below->at;
	return true;
}

static int add_candidate(struct render *r, const struct frame *frame)
{
	struct candidate *cand;

	if (r->nr_cands == r->max_cands) {
		cand = grow(r->cands, 0, sizeof(*cand), r->nr_cands, &r->max_cands,
			    GPAMAP_MAX_PATHS);
		if (IS_ERR(cand))
			return PTR_ERR(cand);
		r->cands = cand;
	}
	cand = &r->cands[r->nr_cands];
	*cand = (struct candidate){
		.start = frame->start,
		.last = frame->start + (frame->hi - frame->lo),
		.offset = frame->lo,
		.region = frame->region,
		.flags = frame->flags,
		.rank = r->nr_cands,
	};
	r->nr_cands++;
	return 0;
}

static int collect(struct render *r, struct gpamap_region *root)
{
	struct frame *frame = r->stack;
	struct gpamap_region *below;
	int rc;

	/* The whole root, from address 0 on, wherever it may be attached too. */
	if (!frame_open(frame, root, 0))
		return 0;
	frame->hi = root->last;

	for (;;) {
		below = gpamap_region_below(frame->region, frame->below);
		if (below) {
			frame->below = below;
			cond_resched();
			if (fatal_signal_pending(current))
				return -EINTR;
			if (++r->nr_paths > GPAMAP_MAX_PATHS)
				return -ENOSPC;
			if (WARN_ON_ONCE(frame == &r->stack[GPAMAP_MAX_DEPTH - 1]))
				return -ELOOP;
			if (frame_enter(frame, below, frame + 1))
				frame++;
			continue;
		}
		switch (frame->region->kind) {
		case GPAMAP_REGION_RAM:
		case GPAMAP_REGION_ROM:
		case GPAMAP_REGION_IO:
			rc = add_candidate(r, frame);
			if (rc)
				return rc;
		}
		if (frame == r->stack)
			return 0;
		frame--;
	}
}

static int candidate_cmp(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	/* sort() itself never gives way, and there may be many. */
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

/* Rule 28: a piece joins the one before it if that makes one piece of a region. */
static int emit(struct render *r, const struct candidate *cand, u64 start, u64 last)
{
	struct gpamap_flatview *view = r->view;
	u64 offset = cand->offset + (start - cand->start);
	struct gpamap_range *prev = view->nr ? &view->ranges[view->nr - 1] : NULL;

	if (prev && prev->last + 1 == start && prev->region == cand->region &&
	    prev->flags == cand->flags &&
	    prev->offset + (start - prev->start) == offset) {
		prev->last = last;
		return 0;
	}
	if (view->nr == r->max_ranges) {
		view = grow(view, sizeof(*view), sizeof(*prev), view->nr,
			    &r->max_ranges, GPAMAP_MAX_RANGES);
		if (IS_ERR(view))
			return PTR_ERR(view);
		r->view = view;
	}
	view->ranges[view->nr++] = (struct gpamap_range){
		.start = start,
		.last = last,
		.offset = offset,
		.region = cand->region,
		.flags = cand->flags,
	};
	return 0;
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
		rc = emit(r, top, pos, last);
		if (rc)
			return rc;
		if (last == U64_MAX)
			return 0;
		pos = last + 1;
	}
	return 0;
}

/**
 * gpamap_flatview_render() - Render the view of a space
 * @root: The region that the space looks at
 * @out: The view, to be freed with gpamap_flatview_free()
 *
 * Return: 0; -ENOSPC when there are more than GPAMAP_MAX_PATHS ways from @root to
 * regions below it or the view has more than GPAMAP_MAX_RANGES ranges; -ENOMEM;
 * -EINTR when the caller is being killed.
 */
int gpamap_flatview_render(struct gpamap_region *root, struct gpamap_flatview **out)
{
	struct render *r;
	int rc = -ENOMEM;

	r = kvzalloc(sizeof(*r), GFP_KERNEL_ACCOUNT);
	if (!r)
		return -ENOMEM;
	r->view = kvzalloc(sizeof(*r->view), GFP_KERNEL_ACCOUNT);
	if (!r->view)
		goto out_free;
	rc = collect(r, root);
	if (rc)
		goto out_free;
	if (r->nr_cands) {
		rc = -ENOMEM;
		r->heap = kvcalloc(r->nr_cands, sizeof(*r->heap), GFP_KERNEL_ACCOUNT);
		if (!r->heap)
			goto out_free;
		rc = sweep(r);
		if (rc)
			goto out_free;
	}
	*out = r->view;
	r->view = NULL;
out_free:
	kvfree(r->view);
	kvfree(r->heap);
	kvfree(r->cands);
	kvfree(r);
	return rc;
}

void gpamap_flatview_free(struct gpamap_flatview *view)
{
	kvfree(view);
}

/* Rule 30: neither priority nor name counts. Compares regions, never looks at them. */
bool gpamap_flatview_equal(const struct gpamap_flatview *a,
			   const struct gpamap_flatview *b)
{
	u32 i;

	if (a->nr != b->nr)
		return false;
	for (i = 0; i < a->nr; i++) {
		const struct gpamap_range *x = &a->ranges[i], *y = &b->ranges[i];

		if (x->start != y->start || x->last != y->last ||
		    x->offset != y->offset || x->region != y->region ||
		    x->flags != y->flags)
			return false;
	}
	return true;
}

/* The word for a range in a printed view. */
const char *gpamap_range_kind(const struct gpamap_range *range)
{
	if (range->flags & GPAMAP_REGION_READONLY)
		return "rom";
	return range->region->kind == GPAMAP_REGION_RAM ? "ram" : "i/o";
}

/* One line of a printed view, without its end, as snprintf() does it. */
int gpamap_range_print(char *buf, size_t len, const struct gpamap_range *range)
{
	int n = snprintf(buf, len, "  %016llx-%016llx (prio %d, %s): %s", range->start,
			 range->last, range->region->prio, gpamap_range_kind(range),
			 range->region->name);

	if (range->offset)
		n += snprintf(buf + n, len - n, " @%016llx", range->offset);
	return n;
}
