// SPDX-License-Identifier: GPL-2.0
/* The parts of host.h that are more than a line. */
#include "host.h"

long host_fail_alloc;

/* Zeroed, and never of no length, so that NULL only means failure. */
void *host_alloc(size_t n, size_t len)
{
	if (host_fail_alloc > 0 && --host_fail_alloc == 0)
		return NULL;
	return calloc(n ? n : 1, len ? len : 1);
}

void *memchr_inv(const void *p, int c, size_t len)
{
	const unsigned char *s = p;

	for (; len; s++, len--)
		if (*s != (unsigned char)c)
			return (void *)s;
	return NULL;
}

void xa_init_flags(struct xarray *xa, int flags)
{
	(void)flags;
	memset(xa, 0, sizeof(*xa));
}

void xa_destroy(struct xarray *xa)
{
	free(xa->entries);
	memset(xa, 0, sizeof(*xa));
}

/* Index of the first entry whose id is not below @id. */
static size_t xa_index(const struct xarray *xa, unsigned long id)
{
	size_t lo = 0, hi = xa->nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (xa->entries[mid].id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

void *xa_load(struct xarray *xa, unsigned long id)
{
	size_t i = xa_index(xa, id);

	return i < xa->nr && xa->entries[i].id == id ? xa->entries[i].obj : NULL;
}

void *xa_find_from(struct xarray *xa, unsigned long *id)
{
	size_t i = xa_index(xa, *id);

	if (i == xa->nr)
		return NULL;
	*id = xa->entries[i].id;
	return xa->entries[i].obj;
}

void *xa_store(struct xarray *xa, unsigned long id, void *obj, int gfp)
{
	size_t i = xa_index(xa, id);
	void *old = NULL;

	(void)gfp;
	if (i < xa->nr && xa->entries[i].id == id) {
		old = xa->entries[i].obj;
		xa->entries[i].obj = obj;
		return old;
	}
	if (xa->nr == xa->max) {
		size_t max = xa->max ? 2 * xa->max : 16;
		struct xa_entry *entries = host_alloc(max, sizeof(*entries));

		if (!entries)
			return ERR_PTR(-ENOMEM);
		if (xa->nr)
			memcpy(entries, xa->entries, xa->nr * sizeof(*entries));
		free(xa->entries);
		xa->entries = entries;
		xa->max = max;
	}
	memmove(&xa->entries[i + 1], &xa->entries[i],
		(xa->nr - i) * sizeof(*xa->entries));
	xa->entries[i] = (struct xa_entry){ id, obj };
	xa->nr++;
	return NULL;
}

void *xa_erase(struct xarray *xa, unsigned long id)
{
	size_t i = xa_index(xa, id);
	void *old;

	if (i == xa->nr || xa->entries[i].id != id)
		return NULL;
	old = xa->entries[i].obj;
	xa->nr--;
	memmove(&xa->entries[i], &xa->entries[i + 1],
		(xa->nr - i) * sizeof(*xa->entries));
	return old;
}
