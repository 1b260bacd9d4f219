// SPDX-License-Identifier: GPL-2.0
/*
 * The disk: a virtio block device (virtio 1.2, 5.2), whose contents are a file or a
 * block device of the host.
 *
 * Requests are done one after the other by the device's thread, with the host's page
 * cache as the disk's own; FLUSH is fdatasync(). A driver that negotiates FLUSH, as any
 * does that cares, decides itself when its data must last. When gvmm ends, what was
 * written is in the page cache.
 *
 * The file is locked as long as gvmm runs (flock()): several may read it, or one write.
 *
 * A request that cannot be done ends with an error status: beyond the end of the disk,
 * not whole sectors, writing to a read-only disk, an error of the host's. What has no
 * header or no room for a status cannot be answered and breaks the device.
 */
#include "virtio.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static_assert(sizeof(((struct virtio_device *)0)->name) == VIRTIO_BLK_ID_BYTES,
	      "the name is the disk's id");

#define SECTOR 512
/* One descriptor each for header and status. */
#define SEGMENTS (VIRTIO_QUEUE_LEN - 2)

struct blk {
	struct virtio_device dev;
	/* fixed */
	int fd;
	bool readonly;
	uint64_t sectors;
	char id[VIRTIO_BLK_ID_BYTES];
	struct chain chain;		/* the thread's own */
};

/* Reads or writes all of @sg; false when the host does not. */
static bool transfer(struct blk *blk, struct sg *sg, uint64_t at, bool write)
{
	const struct iovec *iov;
	ssize_t n;

	while (sg->len) {
		iov = sg->iov + sg->first;
		n = write ? pwritev(blk->fd, iov, sg->nr, at) :
			    preadv(blk->fd, iov, sg->nr, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		sg_skip(sg, n);
		at += n;
	}
	return true;
}

static uint8_t read_write(struct blk *blk, struct sg *sg, uint64_t sector, bool write)
{
	if (sg->len % SECTOR || sector > blk->sectors ||
	    sg->len / SECTOR > blk->sectors - sector || (write && blk->readonly))
		return VIRTIO_BLK_S_IOERR;
	return transfer(blk, sg, sector * SECTOR, write) ? VIRTIO_BLK_S_OK :
							   VIRTIO_BLK_S_IOERR;
}

static int flush(struct blk *blk)
{
	int rc;

	do {
		rc = fdatasync(blk->fd);
	} while (rc && errno == EINTR);
	return rc;
}

/* Does what the chain asks for; false if that cannot even be said. */
static bool request(struct blk *blk, struct chain *chain, uint32_t *written)
{
	struct sg *out = &chain->readable, *in = &chain->writable;
	struct virtio_blk_outhdr header;
	uint64_t room = in->len;
	uint8_t *status = sg_take_last(in);

	if (!status || room > UINT32_MAX ||
	    sg_read(out, &header, sizeof(header)) != sizeof(header))
		return false;
	switch (header.type) {
	case VIRTIO_BLK_T_IN:
		*status = read_write(blk, in, header.sector, false);
		break;
	case VIRTIO_BLK_T_OUT:
		*status = read_write(blk, out, header.sector, true);
		break;
	case VIRTIO_BLK_T_FLUSH:
		*status = flush(blk) ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
		break;
	case VIRTIO_BLK_T_GET_ID:
		sg_write(in, blk->id, sizeof(blk->id));
		*status = VIRTIO_BLK_S_OK;
		break;
	default:
		*status = VIRTIO_BLK_S_UNSUPP;
		break;
	}
	/* A count only holds up to the first byte not written, and status is the last. */
	*written = in->len ? room - 1 - in->len : room;
	return true;
}

static void blk_notify(struct virtio_device *dev, unsigned int queue)
{
	struct blk *blk = (struct blk *)dev;
	struct virtqueue *q = &dev->queues[queue];
	uint32_t written, done = 0;
	int rc = 0;

	/* Not for ever, with the lock held: who wants it gets it once a queue's length. */
	while (done < q->num && !atomic_load(&dev->vm->ended)) {
		rc = virtqueue_next(dev->vm, q, &blk->chain);
		if (rc <= 0)
			break;
		if (!request(blk, &blk->chain, &written)) {
			rc = -1;
			break;
		}
		virtqueue_done(q, &blk->chain, written);
		done++;
	}
	virtio_served(dev, queue, done, rc);
}

static const struct virtio_ops blk_ops = {
	.name = "blk",
	.id = VIRTIO_ID_BLOCK,
	.nr_queues = 1,
	.notify = blk_notify,
};

/* Opens what the disk is made of; returns its length in bytes. */
static uint64_t disk_open(struct blk *blk, const char *path)
{
	struct stat st;
	uint64_t len;

	/* A FIFO that nobody writes would keep us waiting. */
	blk->fd = open(path, (blk->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
	if (blk->fd < 0 || fstat(blk->fd, &st))
		fail("disk %s: %s (%s)", path, strerror(errno), error_name(errno));
	if (S_ISREG(st.st_mode))
		len = st.st_size;
	else if (!S_ISBLK(st.st_mode))
		fail("disk %s: neither a file nor a block device", path);
	else if (ioctl(blk->fd, BLKGETSIZE64, &len))
		fail("disk %s: its size: %s (%s)", path, strerror(errno),
		     error_name(errno));
	if (!len)
		fail("disk %s: the file is empty", path);
	if (len % SECTOR)
		fail("disk %s: %llu bytes are not whole sectors of %u", path,
		     (unsigned long long)len, SECTOR);
	if (flock(blk->fd, (blk->readonly ? LOCK_SH : LOCK_EX) | LOCK_NB))
		fail("disk %s: %s", path, errno == EWOULDBLOCK ?
		     "somebody else uses it" : strerror(errno));
	return len;
}

/* Adds a disk to the machine, before it has memory. */
void blk_add(struct gvmm *vm, const char *path, bool readonly)
{
	struct virtio_blk_config config = { .seg_max = SEGMENTS };
	struct blk *blk = calloc(1, sizeof(*blk));
	uint64_t features = 1ULL << VIRTIO_BLK_F_SEG_MAX | 1ULL << VIRTIO_BLK_F_FLUSH;

	if (!blk)
		fail("disk %s: out of memory", path);
	blk->readonly = readonly;
	blk->sectors = disk_open(blk, path) / SECTOR;
	config.capacity = blk->sectors;
	if (readonly)
		features |= 1ULL << VIRTIO_BLK_F_RO;
	blk->dev.config_len = offsetof(struct virtio_blk_config, geometry);
	memcpy(blk->dev.config, &config, blk->dev.config_len);
	virtio_add(vm, &blk->dev, &blk_ops, features);
	memcpy(blk->id, blk->dev.name, sizeof(blk->id));
}
