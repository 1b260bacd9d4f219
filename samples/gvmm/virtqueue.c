// SPDX-License-Identifier: GPL-2.0
/*
 * Virtqueues: the split ring of virtio 1.x, without indirect descriptors and event
 * indices, which are not offered.
 *
 * All of it is in memory that the guest writes while we read. So every value is read
 * once, into a variable of our own, and is checked before it is used: indices against
 * the size of the queue, the length of a chain against the number of descriptors (a
 * loop is a chain that is too long), addresses against the map. Whatever cannot be
 * makes the queue broken, which is the driver's fault, and the device asks for a reset.
 *
 * Addresses go through gpamap_lookup() (memory_dma()): a device reaches what the guest's
 * own processors would find there, and nothing else.
 *
 * Called by the device's thread, or for set-up by a vCPU, under virtio_device.lock.
 */
#include "virtio.h"

#include <string.h>

/* One piece of memory of @len bytes at a multiple of @align, or NULL. */
static void *ring_part(struct gvmm *vm, uint64_t gpa, uint64_t len, uint64_t align,
		       bool write)
{
	struct iovec iov;

	if (gpa % align || memory_dma(vm, gpa, len, write, &iov, 1) != 1)
		return NULL;
	return iov.iov_base;
}

/* The driver says that it has set the queue up. */
bool virtqueue_start(struct gvmm *vm, struct virtqueue *q)
{
	if (!q->num)
		return false;
	/* Behind each ring are two bytes of an event index, which must be there, too. */
	q->desc = ring_part(vm, q->desc_gpa, q->num * sizeof(*q->desc),
			    VRING_DESC_ALIGN_SIZE, false);
	q->avail = ring_part(vm, q->avail_gpa, sizeof(*q->avail) +
			     q->num * sizeof(q->avail->ring[0]) + 2,
			     VRING_AVAIL_ALIGN_SIZE, false);
	q->used = ring_part(vm, q->used_gpa, sizeof(*q->used) +
			    q->num * sizeof(q->used->ring[0]) + 2,
			    VRING_USED_ALIGN_SIZE, true);
	q->next_avail = 0;
	q->next_used = 0;
	q->ready = q->desc && q->avail && q->used;
	return q->ready;
}

static bool add_buffer(struct gvmm *vm, struct chain *chain, const struct vring_desc *desc)
{
	bool writable = desc->flags & VRING_DESC_F_WRITE;
	struct sg *sg = writable ? &chain->writable : &chain->readable;
	int nr;

	/* What the device reads comes first. */
	if (!writable && chain->writable.nr)
		return false;
	if (!desc->len)
		return true;
	nr = memory_dma(vm, desc->addr, desc->len, writable, sg->iov + sg->nr,
			SG_MAX - sg->nr);
	if (nr < 0)
		return false;
	sg->nr += nr;
	sg->len += desc->len;
	return true;
}

/*
 * Takes the next chain that the driver has made available. Returns 1, 0 if there is
 * none, or -1 if the queue is broken.
 */
int virtqueue_next(struct gvmm *vm, struct virtqueue *q, struct chain *chain)
{
	uint16_t idx = __atomic_load_n(&q->avail->idx, __ATOMIC_ACQUIRE);
	const volatile struct vring_desc *table = q->desc;
	struct vring_desc desc;
	unsigned int length = 0;
	uint16_t next;

	if (idx == q->next_avail)
		return 0;
	if ((uint16_t)(idx - q->next_avail) > q->num)
		return -1;
	next = __atomic_load_n(&q->avail->ring[q->next_avail % q->num], __ATOMIC_RELAXED);
	chain->head = next;
	chain->readable.first = chain->readable.nr = chain->readable.len = 0;
	chain->writable.first = chain->writable.nr = chain->writable.len = 0;
	do {
		if (next >= q->num || length++ == q->num)
			return -1;
		desc = table[next];
		if (desc.flags & ~(VRING_DESC_F_NEXT | VRING_DESC_F_WRITE))
			return -1;
		if (!add_buffer(vm, chain, &desc))
			return -1;
		next = desc.next;
	} while (desc.flags & VRING_DESC_F_NEXT);
	q->next_avail++;
	return 1;
}

/* Gives a chain back, with @written bytes in what the driver had made writable. */
void virtqueue_done(struct virtqueue *q, const struct chain *chain, uint32_t written)
{
	struct vring_used_elem *elem = &q->used->ring[q->next_used % q->num];

	elem->id = chain->head;
	elem->len = written;
	__atomic_store_n(&q->used->idx, ++q->next_used, __ATOMIC_RELEASE);
}

/* Does the driver want to be interrupted for what is done? */
bool virtqueue_interrupts(const struct virtqueue *q)
{
	/* What is done must be there before the flag is read (virtio 1.2, 2.7.7). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return !(__atomic_load_n(&q->avail->flags, __ATOMIC_RELAXED) &
		 VRING_AVAIL_F_NO_INTERRUPT);
}

/* ---- pieces of memory ------------------------------------------------- */

/* Drops the first @len bytes, which are there. */
void sg_skip(struct sg *sg, uint64_t len)
{
	struct iovec *iov;
	uint64_t n;

	sg->len -= len;
	while (len) {
		iov = &sg->iov[sg->first];
		n = len < iov->iov_len ? len : iov->iov_len;
		iov->iov_base = (uint8_t *)iov->iov_base + n;
		iov->iov_len -= n;
		len -= n;
		if (!iov->iov_len) {
			sg->first++;
			sg->nr--;
		}
	}
}

/* Moves up to @len bytes out of the front; returns how many. */
uint64_t sg_read(struct sg *sg, void *to, uint64_t len)
{
	uint64_t n, done = 0;

	while (done < len && sg->len) {
		n = sg->iov[sg->first].iov_len;
		if (n > len - done)
			n = len - done;
		memcpy((uint8_t *)to + done, sg->iov[sg->first].iov_base, n);
		sg_skip(sg, n);
		done += n;
	}
	return done;
}

/* Fills up to @len bytes of the front; returns how many. */
uint64_t sg_write(struct sg *sg, const void *from, uint64_t len)
{
	uint64_t n, done = 0;

	while (done < len && sg->len) {
		n = sg->iov[sg->first].iov_len;
		if (n > len - done)
			n = len - done;
		memcpy(sg->iov[sg->first].iov_base, (const uint8_t *)from + done, n);
		sg_skip(sg, n);
		done += n;
	}
	return done;
}

/* Takes the last byte away and returns where it is; NULL if there is none. */
uint8_t *sg_take_last(struct sg *sg)
{
	struct iovec *iov;

	if (!sg->len)
		return NULL;
	iov = &sg->iov[sg->first + sg->nr - 1];
	sg->len--;
	if (!--iov->iov_len)
		sg->nr--;
	return (uint8_t *)iov->iov_base + iov->iov_len;
}
