// SPDX-License-Identifier: GPL-2.0
/*
 * Lists of stretches of addresses: where something is to be, and what others have there.
 *
 * Where others are keeps theirs: gpamap_cut_next() goes through what is left of a list.
 */
#include "core.h"

struct gpamap_extents *gpamap_extents_alloc(u32 max)
{
	struct gpamap_extents *list;

	list = kvzalloc(struct_size(list, extents, max), GPAMAP_GFP);
	if (list)
		list->max = max;
	return list;
}

/* Adds one that begins no sooner than the last. One that touches it is one with it. */
void gpamap_extents_add(struct gpamap_extents *list, u64 start, u64 last)
{
	struct gpamap_extent *end = &list->extents[list->nr];

	if (list->nr && (end[-1].last >= start || end[-1].last + 1 == start)) {
		end[-1].last = max(end[-1].last, last);
		return;
	}
	if (WARN_ON_ONCE(list->nr == list->max))
		return;
	*end = (struct gpamap_extent){ start, last };
	list->nr++;
}

static int extent_cmp(const void *a, const void *b)
{
	const struct gpamap_extent *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Puts in order what was noted in any. */
void gpamap_extents_sort(struct gpamap_extents *list)
{
	u32 i, nr = list->nr;

	for (i = 1; i < nr; i++)
		if (list->extents[i - 1].start > list->extents[i].start)
			break;
	if (i < nr)
		sort(list->extents, nr, sizeof(*list->extents), extent_cmp, NULL);
	list->nr = 0;
	for (i = 0; i < nr; i++)
		gpamap_extents_add(list, list->extents[i].start, list->extents[i].last);
}

/* Whether anything of a list lies in a stretch. */
bool gpamap_extents_meet(const struct gpamap_extents *list, u64 start, u64 last)
{
	u32 lo = 0, hi = list->nr;

	/* The first that does not end before it. */
	while (lo < hi) {
		u32 mid = lo + (hi - lo) / 2;

		if (list->extents[mid].last < start)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < list->nr && list->extents[lo].start <= last;
}

/* How many of some gaps are no longer than @len; and, in @same, how many are just that. */
static u32 count_gaps(const u64 *gaps, u32 nr_gaps, u64 len, u32 *same)
{
	u32 i, nr = 0;

	*same = 0;
	for (i = 0; i < nr_gaps; i++) {
		nr += gaps[i] && gaps[i] <= len;
		*same += gaps[i] == len;
	}
	cond_resched();
	return nr;
}

/**
 * gpamap_extents_join() - Make fewer of a list, by joining across the shortest gaps
 * @list: Disjoint, by address, none touching the next
 * @others: What is not joined across: disjoint, by address
 * @max: How many there should be at most
 * @max_gap: How long a gap may be that is closed
 *
 * There are more if the others or the lengths of gaps do not permit it: then as few as can be.
 *
 * Return: 0 or -ENOMEM.
 */
int gpamap_extents_join(struct gpamap_extents *list, const struct gpamap_extents *others, u32 max,
			u64 max_gap)
{
	u32 i, same, excess, nr_gaps = list->nr - 1, nr = 1;
	u64 *gaps, lo = 1, hi = U64_MAX;

	if (list->nr <= max)
		return 0;
	excess = list->nr - max;
	gaps = kvcalloc(nr_gaps, sizeof(*gaps), GPAMAP_GFP);
	if (!gaps)
		return -ENOMEM;
	/* 0 for one that must stay. */
	for (i = 0; i < nr_gaps; i++) {
		u64 start = list->extents[i].last + 1, end = list->extents[i + 1].start;

		if (end - start <= max_gap && !gpamap_extents_meet(others, start, end - 1))
			gaps[i] = end - start;
	}
	/* The length of the excess-th shortest. */
	while (lo < hi) {
		u64 mid = lo + (hi - lo) / 2;

		if (count_gaps(gaps, nr_gaps, mid, &same) >= excess)
			hi = mid;
		else
			lo = mid + 1;
	}
	/* Of those that are just so long only some, the first. */
	i = count_gaps(gaps, nr_gaps, lo, &same);
	same -= i > excess ? i - excess : 0;
	for (i = 0; i < nr_gaps; i++) {
		if (gaps[i] && (gaps[i] < lo || (gaps[i] == lo && same && same--)))
			list->extents[nr - 1].last = list->extents[i + 1].last;
		else
			list->extents[nr++] = list->extents[i + 1];
	}
	list->nr = nr;
	kvfree(gaps);
	return 0;
}

/**
 * gpamap_cut_next() - The next piece of a list of which others keep what they have
 * @cut: List and others, both disjoint and by address; all else zero before the first
 * @piece: Receives it
 *
 * Return: false behind the last. No piece is longer than @cut->max_len.
 */
bool gpamap_cut_next(struct gpamap_cut *cut, struct gpamap_extent *piece)
{
	const struct gpamap_extents *others = cut->others;

	while (cut->list && cut->i < cut->list->nr) {
		const struct gpamap_extent *whole = &cut->list->extents[cut->i];
		u64 start = max(cut->from, whole->start), last = whole->last;
		const struct gpamap_extent *other;

		while (cut->j < others->nr && others->extents[cut->j].last < start)
			cut->j++;
		other = cut->j < others->nr ? &others->extents[cut->j] : NULL;
		if (other && other->start <= start) {
			if (other->last >= last)
				cut->i++;
			else
				cut->from = other->last + 1;
			continue;
		}
		if (other)
			last = min(last, other->start - 1);
		last = min(last, gpamap_add_saturated(start, cut->max_len - 1));
		*piece = (struct gpamap_extent){ start, last };
		if (last == whole->last)
			cut->i++;
		else
			cut->from = last + 1;
		return true;
	}
	return false;
}
