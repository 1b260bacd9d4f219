// SPDX-License-Identifier: GPL-2.0
/*
 * Exits: an access that leaves to the VMM is told with what it is for, in a record of its
 * vCPU's that the VMM maps. So the VMM looks up no address, and an access is never taken
 * for one to what a commit has put there since.
 *
 * The records are in pages of the kernel's, one page for as many ids of vCPUs as fit,
 * made when they are first mapped. A record is written by the thread that is in KVM_RUN
 * with the vCPU, and read by it after that; no order has to be kept.
 */
#include <linux/mm.h>
#include "dispatch.h"

#define PER_PAGE (PAGE_SIZE / sizeof(struct gpamap_exit))

void gpamap_exits_layout(struct gpamap_layout *layout)
{
	*layout = (struct gpamap_layout){
		.area = GPAMAP_AREA_EXITS,
		.version = GPAMAP_LAYOUT_VERSION,
		.record_size = sizeof(struct gpamap_exit),
		.block_size = PAGE_SIZE,
	};
}

void gpamap_exit_tell(struct gpamap_dispatch *dispatch, u32 vcpu_id,
		      const struct gpamap_exit *exit)
{
	u32 nr = vcpu_id / PER_PAGE;
	struct page *page;

	if (nr >= GPAMAP_MAX_EXIT_PAGES)
		return;
	nr = array_index_nospec(nr, GPAMAP_MAX_EXIT_PAGES);
	/* Pairs with get_exit_page(). */
	page = smp_load_acquire(&dispatch->exits[nr]);
	if (page)
		((struct gpamap_exit *)page_address(page))[vcpu_id % PER_PAGE] = *exit;
}

/* Makes it if need be. NULL if there is no memory. */
static struct page *get_exit_page(struct gpamap_dispatch *dispatch, u32 nr)
{
	struct page *page = READ_ONCE(dispatch->exits[nr]), *other;

	BUILD_BUG_ON(sizeof(struct gpamap_exit) != 64);

	if (page)
		return page;
	page = alloc_page(GPAMAP_GFP | __GFP_ZERO);
	if (!page)
		return NULL;
	/* Pairs with gpamap_exit_tell(). */
	other = cmpxchg(&dispatch->exits[nr], NULL, page);
	if (other)
		put_page(page);
	return other ?: page;
}

/* With mmap_lock, so without that of the map. */
int gpamap_exits_mmap(struct gpamap_dispatch *dispatch, struct vm_area_struct *vma)
{
	u32 i;
	int rc;

	if (vma_pages(vma) > GPAMAP_MAX_EXIT_PAGES)
		return -EINVAL;
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	for (i = 0; i < vma_pages(vma); i++) {
		struct page *page = get_exit_page(dispatch, i);

		if (!page)
			return -ENOMEM;
		rc = vm_insert_page(vma, vma->vm_start + i * PAGE_SIZE, page);
		if (rc)
			return rc;
	}
	return 0;
}

/* Nobody writes any more. Mappings hold the map, so there are none. */
void gpamap_exits_free(struct gpamap_dispatch *dispatch)
{
	u32 i;

	for (i = 0; i < GPAMAP_MAX_EXIT_PAGES; i++)
		if (dispatch->exits[i])
			put_page(dispatch->exits[i]);
}
