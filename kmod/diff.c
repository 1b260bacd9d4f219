// SPDX-License-Identifier: GPL-2.0
/*
 * From a range of a flat view to the memslots that it calls for.
 *
 * A range of ram or rom, or of a rom device in romd mode, becomes a slot, rounded
 * inwards to whole pages; a page that is only partly memory stays without one. What is
 * longer than KVM takes in one slot is cut at fixed places of the range. Two slots are
 * the same if gpa, length, hva and the read-only flag are equal, since KVM lets none of
 * the last three change on a live slot.
 *
 * Rules of MEMORY_MODEL kept here: 23 (read-only by path), 24, 29, 32, 37-39.
 */
#include "core.h"

/* KVM takes at most 2^31 - 1 pages in a slot. */
#define MAX_SLOT_PAGES (1ULL << 30)

static bool is_memory(const struct gpamap_range *range)
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

/* The first page number behind the whole pages of @range. */
static u64 end_gfn(const struct gpamap_range *range, unsigned int shift)
{
	u64 mask = (1ULL << shift) - 1;

	return (range->last >> shift) + ((range->last & mask) == mask);
}

/* The slot of @range that begins at page @gfn; false if there is none. */
static bool slot_at(const struct gpamap_range *range, unsigned int shift, u64 gfn,
		    struct gpamap_slot *slot)
{
	u64 end = end_gfn(range, shift);

	if (gfn >= end)
		return false;
	*slot = (struct gpamap_slot){
		.gpa = gfn << shift,
		.npages = min(end - gfn, MAX_SLOT_PAGES),
		.hva = range->region->hva + range->offset +
		       ((gfn << shift) - range->start),
		.id = GPAMAP_SLOT_NONE,
		.readonly = range->flags & GPAMAP_REGION_READONLY ||
			    range->region->kind == GPAMAP_REGION_ROMD,
	};
	return true;
}

/**
 * gpamap_slot_first() - The first slot that a range calls for
 * @range: The range
 * @page_shift: Of the host's pages
 * @slot: The slot, without id and address space
 *
 * Return: 1; 0 if it calls for none; -EINVAL when it is memory that cannot be a slot:
 * there is no host memory, or gpa and hva are not congruent modulo the page (rule 38).
 */
int gpamap_slot_first(const struct gpamap_range *range, unsigned int page_shift,
		      struct gpamap_slot *slot)
{
	u64 mask = (1ULL << page_shift) - 1;

	if (!is_memory(range))
		return 0;
	if (!range->region->hva ||
	    (range->region->hva + range->offset - range->start) & mask)
		return -EINVAL;
	return slot_at(range, page_shift,
		       (range->start >> page_shift) + !!(range->start & mask), slot);
}

/* From one slot of a range to the next; false after the last. */
bool gpamap_slot_next(const struct gpamap_range *range, unsigned int page_shift,
		      struct gpamap_slot *slot)
{
	return slot_at(range, page_shift, (slot->gpa >> page_shift) + slot->npages, slot);
}

bool gpamap_slot_equal(const struct gpamap_slot *a, const struct gpamap_slot *b)
{
	return a->gpa == b->gpa && a->npages == b->npages && a->hva == b->hva &&
	       a->readonly == b->readonly;
}
