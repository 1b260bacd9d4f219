// SPDX-License-Identifier: GPL-2.0
/*
 * From a range of a flat view to the memslots that it calls for.
 *
 * A range of ram or rom, or of a rom device in romd mode, is to be covered by slots,
 * rounded inwards to whole pages; a page that is only partly memory stays without one. So does
 * a range whose guest-physical and host addresses are at different places in their pages, for
 * a guest chooses addresses, and what lies where no processor can address it.
 * How it is divided among slots is free: a slot that is there already is as good as a
 * new one, as long as it lies in the range, at the same host memory and with the same
 * read-only flag, since KVM lets none of these change on a live slot.
 *
 * What is new is cut where something comes and goes, so that what stays need not be
 * deleted then. A cut costs an operation and a slot, so it is made only for the sake of
 * what is larger than GPAMAP_CUT_BYTES; and where KVM's limit for one slot is reached.
 *
 * A border between two slots inside of what KVM could map as one huge page takes that from the
 * guest. So cuts are moved to the borders of the huge page, where there can be one: where it is
 * all memory of the range, and guest-physical and host addresses are at the same place in it. The
 * first of a space is no loss: on PCs it is where firmware shows and hides most.
 *
 * Rules of MEMORY_MODEL kept here: 23 (read-only by path), 24, 29, 32, 37-39.
 */
#include "core.h"

/* Slots up to this length are not cut ahead: to delete one of them is cheap. */
#define GPAMAP_CUT_BYTES (1ULL << 20)

/* What KVM maps as one page where it can. */
#define HUGE_BYTES (1ULL << 21)

/* KVM takes at most 2^31 - 1 pages in a slot. */
#define MAX_SLOT_PAGES (1ULL << 30)

/* Ram, rom, or a rom device that is in romd mode. */
bool gpamap_range_is_memory(const struct gpamap_range *range)
{
	switch (range->region->kind) {
	case GPAMAP_REGION_RAM:
	case GPAMAP_REGION_ROM:
		return true;
	case GPAMAP_REGION_ROMD:
		return range->flags & GPAMAP_REGION_ROMD_MODE;
	}
	return false;
}

/* Memory that the guest cannot write (rules 23 and 24). */
bool gpamap_range_is_readonly(const struct gpamap_range *range)
{
	return range->flags & GPAMAP_REGION_READONLY ||
	       range->region->kind == GPAMAP_REGION_ROMD;
}

/* The first page number behind the whole pages of @range. */
static u64 end_gfn(const struct gpamap_range *range, unsigned int shift)
{
	u64 mask = (1ULL << shift) - 1;

	return (range->last >> shift) + ((range->last & mask) == mask);
}

/* Whether its guest-physical and its host address are at the same place in a page (rule 38). */
bool gpamap_range_is_congruent(const struct gpamap_range *range, unsigned int page_shift)
{
	return !((range->region->hva + range->offset - range->start) &
		 ((1ULL << page_shift) - 1));
}

/**
 * gpamap_range_flags() - What is told of a range
 * @range: The range
 * @page_shift: Of the host's pages
 *
 * Return: enum gpamap_region_flags and enum gpamap_range_flags.
 */
u32 gpamap_range_flags(const struct gpamap_range *range, unsigned int page_shift)
{
	if (gpamap_range_is_memory(range) && range->region->hva &&
	    !gpamap_range_is_congruent(range, page_shift))
		return range->flags | GPAMAP_RANGE_UNALIGNED;
	return range->flags;
}

/**
 * gpamap_range_slot() - All that a range calls for, as if it were one slot
 * @range: The range
 * @page_shift: Of the host's pages
 * @nr_gfns: How many pages a processor of the VM can address
 * @slot: The slot, without id and address space, and of any length
 *
 * Return: 1; 0 if it calls for none; -EINVAL when it is memory without host memory.
 */
int gpamap_range_slot(const struct gpamap_range *range, unsigned int page_shift, u64 nr_gfns,
		      struct gpamap_slot *slot)
{
	u64 mask = (1ULL << page_shift) - 1;
	u64 gfn, end;

	if (!gpamap_range_is_memory(range))
		return 0;
	if (!range->region->hva)
		return -EINVAL;
	if (!gpamap_range_is_congruent(range, page_shift))
		return 0;
	gfn = (range->start >> page_shift) + !!(range->start & mask);
	end = min(end_gfn(range, page_shift), nr_gfns);
	if (gfn >= end)
		return 0;
	*slot = (struct gpamap_slot){
		.gpa = gfn << page_shift,
		.npages = end - gfn,
		.hva = range->region->hva + range->offset +
		       ((gfn << page_shift) - range->start),
		.id = GPAMAP_SLOT_NONE,
		.readonly = gpamap_range_is_readonly(range),
	};
	return 1;
}

/* Whether @slot does for the part of @whole where it lies, and lies in it. */
bool gpamap_slot_serves(const struct gpamap_slot *slot, const struct gpamap_slot *whole,
			unsigned int page_shift)
{
	u64 gfn = (slot->gpa - whole->gpa) >> page_shift;

	return slot->gpa >= whole->gpa && gfn + slot->npages <= whole->npages &&
	       slot->hva - slot->gpa == whole->hva - whole->gpa &&
	       slot->readonly == whole->readonly;
}

/* Whether a piece of memory is worth that slots are cut ahead. */
bool gpamap_slot_is_large(u64 npages, unsigned int page_shift)
{
	return npages > GPAMAP_CUT_BYTES >> page_shift;
}

/* The first of some cuts, by size, that is behind @gfn. */
static u32 first_cut(u64 gfn, const u64 *cuts, u32 nr_cuts)
{
	u32 lo = 0, hi = nr_cuts;

	while (lo < hi) {
		u32 mid = lo + (hi - lo) / 2;

		if (cuts[mid] <= gfn)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Whether one of them is at @gfn. */
bool gpamap_is_cut(u64 gfn, const u64 *cuts, u32 nr_cuts)
{
	u32 behind = first_cut(gfn, cuts, nr_cuts);

	return behind && cuts[behind - 1] == gfn;
}

/* Whether a border between slots, at page @gfn of what @whole covers, is inside of a huge page. */
bool gpamap_slot_splits_huge(const struct gpamap_slot *whole, u64 gfn, unsigned int page_shift)
{
	u64 nr = HUGE_BYTES >> page_shift, first = gfn & ~(nr - 1);
	u64 start = whole->gpa >> page_shift;

	return first != gfn && !((whole->hva - whole->gpa) & (HUGE_BYTES - 1)) &&
	       first >= start && first + nr <= start + whole->npages;
}

/* The next page behind @at where it should be cut; @i is that of a cut that is not before it. */
static u64 next_cut(const struct gpamap_slot *whole, u64 at, u64 end, unsigned int page_shift,
		    const u64 *cuts, u32 nr_cuts, u32 *i)
{
	u64 nr = HUGE_BYTES >> page_shift, cut;

	for (; *i < nr_cuts; ++*i) {
		cut = cuts[*i];
		if (cut >= nr && gpamap_slot_splits_huge(whole, cut, page_shift)) {
			cut &= ~(nr - 1);
			if (cut <= at)
				cut += nr;
		}
		if (cut > at)
			return min(cut, end);
	}
	return end;
}

/**
 * gpamap_slot_end() - Where the first slot ends of those that are to cover a piece
 * @whole: All of the range that it is a piece of
 * @gfn: First page of the piece
 * @end: The page behind it
 * @page_shift: Of the host's pages
 * @cuts: Where it should be cut, by size; what lies outside of the piece is ignored
 * @nr_cuts: Their number
 *
 * Return: the page behind the slot. The rest is a piece in its turn.
 */
u64 gpamap_slot_end(const struct gpamap_slot *whole, u64 gfn, u64 end, unsigned int page_shift,
		    const u64 *cuts, u32 nr_cuts)
{
	u32 i = first_cut(gfn, cuts, nr_cuts);
	u64 next = gfn, cut;

	/* Up to it, and on to the next as long as the slot stays small. */
	if (gpamap_slot_is_large(end - gfn, page_shift)) {
		for (; next < end; next = cut) {
			cut = next_cut(whole, next, end, page_shift, cuts, nr_cuts, &i);
			if (next > gfn && gpamap_slot_is_large(cut - gfn, page_shift))
				break;
		}
	} else {
		next = end;
	}
	if (next - gfn <= MAX_SLOT_PAGES)
		return next;
	return (gfn + MAX_SLOT_PAGES) & ~((HUGE_BYTES >> page_shift) - 1);
}

bool gpamap_slot_equal(const struct gpamap_slot *a, const struct gpamap_slot *b)
{
	return a->gpa == b->gpa && a->npages == b->npages && a->hva == b->hva &&
	       a->readonly == b->readonly;
}
