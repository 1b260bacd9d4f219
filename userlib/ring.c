// SPDX-License-Identifier: LGPL-2.1-only OR MIT
/*
 * Rings of posted writes: the side that reads.
 *
 * The kernel stores an entry and then the head, with release; so the head is loaded with
 * acquire before entries are read. The tail is stored with release when the callback has
 * returned: then the kernel may write the place again, and takes what the entry asked for
 * as done.
 *
 * A drain ends at the head that it saw in the beginning, so vCPUs that post without end
 * cannot keep it. One thread drains a ring at a time, others wait for it: when a drain
 * returns, all that was posted before it began is done, whoever did it. A thread that is in
 * a callback drains nothing, neither this ring nor others: entries would be done out of
 * their order, and two threads could wait for each other.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"

struct gpamap_ring_reader {
	struct gpamap *map;
	gpamap_ring_fn fn;
	void *arg;
	struct gpamap_ring_header *header;
	const unsigned char *entries;
	size_t len;			/* of the mapping */
	uint32_t id;
	uint32_t nr_entries;
	uint32_t entry_size;

	pthread_mutex_t draining;	/* held by who drains; of what follows, too */
	uint32_t tail;
	bool closed;

	/*
	 * Under the lock of the map. In its list until the last reference goes, so that who
	 * has one can go on from here.
	 */
	unsigned int refs;
	struct gpamap_ring_reader *next;
};

/* In a callback of any ring. The model: so that nothing but the C library is needed. */
static __thread bool in_callback __attribute__((tls_model("initial-exec")));

static int ring_cmd(struct gpamap *map, uint32_t flags, uint32_t id, uint32_t nr_entries,
		    uint32_t watermark, uint32_t delay_us, int fd)
{
	struct gpamap_ring cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.id = id,
		.nr_entries = nr_entries,
		.watermark = watermark,
		.fd = fd,
		.delay_us = delay_us,
	};

	return gpamap_ioctl(map, GPAMAP_RING, &cmd);
}

/* mmap() of a new ring. What its header says of sizes the process can overwrite. */
static int ring_map(struct gpamap_ring_reader *ring, const struct gpamap_layout *layout)
{
	uint64_t entries = (uint64_t)ring->nr_entries * layout->record_size;
	void *p;
	int rc;

	ring->len = gpamap_page_align(layout->first + entries);
	rc = gpamap_mmap(ring->map, ring->len, GPAMAP_RING_PGOFF | ring->id, &p);
	if (rc)
		return rc;
	ring->header = p;
	ring->entries = (const unsigned char *)p + layout->first;
	ring->entry_size = layout->record_size;
	return 0;
}

/* The map has no such ring any more, and nobody drains it. */
static void ring_free(struct gpamap_ring_reader *ring)
{
	int saved = errno;

	munmap(ring->header, ring->len);
	pthread_mutex_destroy(&ring->draining);
	free(ring);
	errno = saved;
}

static void ring_put(struct gpamap_ring_reader *ring)
{
	struct gpamap *map = ring->map;
	struct gpamap_ring_reader **at;
	bool last;

	pthread_mutex_lock(&map->lock);
	last = !--ring->refs;
	if (last) {
		for (at = &map->rings; *at != ring; at = &(*at)->next)
			;
		*at = ring->next;
	}
	pthread_mutex_unlock(&map->lock);
	if (last)
		ring_free(ring);
}

/* The one behind @ring, or the first, with a reference; that on @ring is given back. */
static struct gpamap_ring_reader *ring_next(struct gpamap *map, struct gpamap_ring_reader *ring)
{
	struct gpamap_ring_reader *next;

	pthread_mutex_lock(&map->lock);
	next = ring ? ring->next : map->rings;
	if (next)
		next->refs++;
	pthread_mutex_unlock(&map->lock);
	if (ring)
		ring_put(ring);
	return next;
}

int gpamap_ring_open(struct gpamap *map, uint32_t id, uint32_t nr_entries,
		     uint32_t watermark, uint32_t delay_us, int fd, gpamap_ring_fn fn,
		     void *arg, struct gpamap_ring_reader **out)
{
	const struct gpamap_layout *layout = gpamap_layout_of(map, GPAMAP_AREA_RING);
	struct gpamap_ring_reader *ring;
	int saved = errno, rc;

	/* The offset of the mapping has more bits than mmap() takes. */
	if (sizeof(long) < sizeof(uint64_t) || !layout)
		return -EOPNOTSUPP;
	ring = calloc(1, sizeof(*ring));
	errno = saved;
	if (!ring)
		return -ENOMEM;
	ring->map = map;
	ring->fn = fn;
	ring->arg = arg;
	ring->id = id;
	ring->nr_entries = nr_entries;
	ring->refs = 1;
	rc = ring_cmd(map, 0, id, nr_entries, watermark, delay_us, fd);
	if (rc)
		goto err_free;
	rc = ring_map(ring, layout);
	if (rc)
		goto err_remove;
	rc = -pthread_mutex_init(&ring->draining, NULL);
	if (rc)
		goto err_unmap;
	pthread_mutex_lock(&map->lock);
	ring->next = map->rings;
	map->rings = ring;
	pthread_mutex_unlock(&map->lock);
	*out = ring;
	return 0;

err_unmap:
	munmap(ring->header, ring->len);
err_remove:
	ring_cmd(map, GPAMAP_RING_REMOVE, id, 0, 0, 0, 0);
err_free:
	free(ring);
	return rc;
}

/* With ->draining held. */
static int drain_locked(struct gpamap_ring_reader *ring)
{
	uint32_t head, nr, size = ring->entry_size;
	struct gpamap_ring_entry entry;

	if (ring->closed)
		return 0;
	head = __atomic_load_n(&ring->header->head, __ATOMIC_ACQUIRE);
	nr = head - ring->tail;
	if (nr > ring->nr_entries)
		return -EIO;
	in_callback = true;
	while (ring->tail != head) {
		gpamap_copy_record(&entry, sizeof(entry), ring->entries + (size_t)size *
				   (ring->tail & (ring->nr_entries - 1)), size);
		ring->fn(ring->arg, &entry);
		__atomic_store_n(&ring->header->tail, ++ring->tail, __ATOMIC_RELEASE);
	}
	in_callback = false;
	return nr;
}

const uint8_t *gpamap_ring_entry_bytes(const struct gpamap_ring_entry *entry)
{
	const uint8_t *value = (const uint8_t *)&entry->value;

	/* What is in the ring the process can overwrite. */
	if (!entry->len || entry->len > sizeof(entry->value))
		return NULL;
	if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)
		return value + sizeof(entry->value) - entry->len;
	return value;
}

int gpamap_ring_drain(struct gpamap_ring_reader *ring)
{
	int rc;

	if (in_callback)
		return -EBUSY;
	pthread_mutex_lock(&ring->draining);
	rc = drain_locked(ring);
	pthread_mutex_unlock(&ring->draining);
	return rc;
}

int gpamap_drain(struct gpamap *map)
{
	struct gpamap_ring_reader *ring;
	int rc, sum = 0, err = 0;

	if (in_callback)
		return -EBUSY;
	for (ring = ring_next(map, NULL); ring; ring = ring_next(map, ring)) {
		rc = gpamap_ring_drain(ring);
		if (rc < 0)
			err = rc;
		else
			sum += rc;
	}
	return err ? err : sum;
}

int gpamap_ring_close(struct gpamap_ring_reader *ring)
{
	int rc;

	if (!ring)
		return 0;
	if (in_callback)
		return -EBUSY;
	pthread_mutex_lock(&ring->draining);
	rc = ring_cmd(ring->map, GPAMAP_RING_REMOVE, ring->id, 0, 0, 0, 0);
	if (!rc) {
		/* What no region posts to any more gets no entries either. */
		drain_locked(ring);
		ring->closed = true;
	}
	pthread_mutex_unlock(&ring->draining);
	if (!rc)
		ring_put(ring);
	return rc;
}

/* At the end of the map. */
void gpamap_rings_free(struct gpamap *map)
{
	struct gpamap_ring_reader *ring;

	while ((ring = map->rings)) {
		map->rings = ring->next;
		ring_free(ring);
	}
}
