// SPDX-License-Identifier: GPL-2.0
/*
 * From a flat view to the list of memslots that it calls for, and the difference
 * between two such lists.
 *
 * Every range of ram or rom becomes a slot, rounded inwards to whole pages; a
 * page that is only partly memory stays without one. Two lists are compared
 * address by address: a slot stays if gpa, length, hva and the read-only flag
 * are equal, since KVM lets none of the last three change on a live slot. What
 * does not stay is deleted and what was not there is created, by memslot.c.
 *
 * Rules of MEMORY_MODEL kept here: 23 (read-only by path), 29, 32, 37-39.
 */
#include "core.h"

/* KVM takes at most 2^31 - 1 pages in a slot. */
#define MAX_SLOT_PAGES (1ULL << 30)

/*
 * The whole pages of @range: first page number and count. -EINVAL if gpa and hva
 * differ in their offset in the page, or there is no host memory (rule 38).
 */
static int range_pages(const struct gpamap_range *range, unsigned int shift,
		       u64 *gfn, u64 *npages)
{
	u64 mask = (1ULL << shift) - 1;
	u64 end;

	if (!range->region->hva)
		return -EINVAL;
	if ((range->region->hva + range->offset - range->start) & mask)
		return -EINVAL;
	*gfn = (range->start >> shift) + !!(range->start & mask);
	end = (range->last >> shift) + ((range->last & mask) == mask);
	*npages = end > *gfn ? end - *gfn : 0;
	return 0;
}

/**
 * gpamap_slots_build() - The slots that a view calls for
 * @view: The view; NULL for none
 * @page_shift: Of the host's pages
 * @out: The slots, without ids, to be freed with gpamap_slots_free()
 *
 * Return: 0; -EINVAL when memory in the view cannot be a slot: it has no host
 * memory, or gpa and hva are not congruent modulo the page; -ENOMEM.
 */
int gpamap_slots_build(const struct gpamap_flatview *view, unsigned int page_shift,
		       struct gpamap_slots **out)
{
	u32 nr_ranges = view ? view->nr : 0;
	struct gpamap_slots *slots = NULL;
	u64 gfn, npages, part;
	u64 nr;
	u32 i;
	int rc;

	/* Counted first, then filled. */
	for (;;) {
		nr = 0;
		for (i = 0; i < nr_ranges; i++) {
			const struct gpamap_range *range = &view->ranges[i];

			if (range->region->kind == GPAMAP_REGION_IO)
				continue;
			rc = range_pages(range, page_shift, &gfn, &npages);
			if (rc)
				return rc;
			for (; npages; npages -= part, gfn += part, nr++) {
				u64 gpa = gfn << page_shift;

				part = min(npages, MAX_SLOT_PAGES);
				if (!slots)
					continue;
				slots->slots[nr] = (struct gpamap_slot){
					.gpa = gpa,
					.npages = part,
					.hva = range->region->hva + range->offset +
					       (gpa - range->start),
					.readonly = range->flags &
						    GPAMAP_REGION_READONLY,
					.region = range->region->id,
					.id = GPAMAP_SLOT_NONE,
				};
			}
		}
		if (slots)
			break;
		slots = kvzalloc(struct_size(slots, slots, nr), GFP_KERNEL_ACCOUNT);
		if (!slots)
			return -ENOMEM;
		slots->nr = nr;
	}
	*out = slots;
	return 0;
}

void gpamap_slots_free(struct gpamap_slots *slots)
{
	kvfree(slots);
}

/*
 * Marks the slots that are in both lists (->keep), and hands their ids from @from
 * to @to. All others of @to have no id.
 */
void gpamap_slots_diff(struct gpamap_slots *from, struct gpamap_slots *to)
{
	u32 i, j = 0;

	for (i = 0; i < from->nr; i++)
		from->slots[i].keep = false;
	for (i = 0; i < to->nr; i++) {
		struct gpamap_slot *new = &to->slots[i], *old;

		new->keep = false;
		new->id = GPAMAP_SLOT_NONE;
		while (j < from->nr && from->slots[j].gpa < new->gpa)
			j++;
		if (j == from->nr)
			continue;
		old = &from->slots[j];
		if (old->gpa == new->gpa && old->npages == new->npages &&
		    old->hva == new->hva && old->readonly == new->readonly) {
			old->keep = true;
			new->keep = true;
			new->id = old->id;
		}
	}
}
