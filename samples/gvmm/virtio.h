/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Virtio devices: what transport, queues and devices share.
 *
 *	virtqueue.c	the split ring: chains of descriptors in, used ones back
 *	virtio_mmio.c	the transport: registers, doorbells, interrupts, threads
 *	blk.c		the disk
 *	vcons.c		the console
 *
 * A device is a structure that begins with struct virtio_device, and a table of
 * functions. Each device has a thread, which sleeps until one of its doorbells rings
 * and then alone works on its queues.
 *
 * Locks: virtio_device.lock holds the set-up of the device and its queues. The thread
 * has it while it works, so whoever resets the device with it held knows that none of
 * the guest's memory is touched any more. virtio_device.irq_lock, the inner one, holds
 * the interrupt alone: a vCPU that acknowledges one never waits for a disk.
 */
#ifndef GVMM_VIRTIO_H
#define GVMM_VIRTIO_H

#include "gvmm.h"

#include <gpamap.h>
#include <linux/virtio_ring.h>
#include <sys/uio.h>

#define VIRTIO_MAX_QUEUES 2
#define VIRTIO_QUEUE_LEN 128		/* the most descriptors a queue may have */
#define VIRTIO_MAX_CONFIG 64
/* That the kernel answers: those that all devices have, and the configuration. */
#define VIRTIO_MAX_REGISTERS (10 + VIRTIO_MAX_CONFIG / 4)
#define SG_MAX (2 * VIRTIO_QUEUE_LEN)

/* Pieces of guest memory, in the host's addresses. */
struct sg {
	struct iovec iov[SG_MAX];
	unsigned int first, nr;		/* those in use: from first, nr of them */
	uint64_t len;			/* bytes in all */
};

/* One request of a driver's: what it wrote for the device, then room for the answer. */
struct chain {
	uint16_t head;
	struct sg readable;
	struct sg writable;
};

/* All of it under virtio_device.lock. */
struct virtqueue {
	bool ready;
	uint32_t num;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	const struct vring_desc *desc;
	const struct vring_avail *avail;
	struct vring_used *used;
	uint16_t next_avail, next_used;
};

struct virtio_device;

struct virtio_ops {
	const char *name;
	uint32_t id;			/* VIRTIO_ID_* */
	unsigned int nr_queues;
	/* Queue @queue may have something new. Its thread, under virtio_device.lock. */
	void (*notify)(struct virtio_device *dev, unsigned int queue);
};

struct virtio_device {
	/* fixed */
	struct gvmm *vm;
	const struct virtio_ops *ops;
	uint64_t features;		/* that are offered */
	uint8_t config[VIRTIO_MAX_CONFIG];
	unsigned int config_len;	/* a multiple of 4 */
	char name[20];			/* "virtio-blk.0" */
	uint64_t gpa;
	unsigned int gsi;
	uint32_t region;
	int kick_fd[VIRTIO_MAX_QUEUES];	/* eventfds: the doorbells of the queues */
	int stop_fd;
	struct gpamap_register registers[VIRTIO_MAX_REGISTERS];
	struct gpamap_ties_doorbell doorbells[VIRTIO_MAX_QUEUES];
	pthread_t thread;

	_Atomic uint32_t *page;		/* fixed; the registers that the kernel answers */

	_Atomic bool running;		/* the driver is ready, the device not broken */

	pthread_mutex_t lock;
	/* under lock */
	uint32_t status;
	uint32_t features_sel, driver_features_sel;
	uint64_t driver_features;
	uint32_t queue_sel;
	struct virtqueue queues[VIRTIO_MAX_QUEUES];

	pthread_mutex_t irq_lock;
	/* under irq_lock */
	uint32_t interrupts;		/* InterruptStatus */
};

/* virtqueue.c */
bool virtqueue_start(struct gvmm *vm, struct virtqueue *q);
int virtqueue_next(struct gvmm *vm, struct virtqueue *q, struct chain *chain);
void virtqueue_done(struct virtqueue *q, const struct chain *chain, uint32_t written);
bool virtqueue_interrupts(const struct virtqueue *q);
void sg_skip(struct sg *sg, uint64_t len);
uint64_t sg_read(struct sg *sg, void *to, uint64_t len);
uint64_t sg_write(struct sg *sg, const void *from, uint64_t len);
uint8_t *sg_take_last(struct sg *sg);

/* virtio_mmio.c */
void virtio_add(struct gvmm *vm, struct virtio_device *dev, const struct virtio_ops *ops,
		uint64_t features);
void virtio_kick(struct virtio_device *dev, unsigned int queue);
void virtio_served(struct virtio_device *dev, unsigned int queue, uint32_t done, int rc);

#endif /* GVMM_VIRTIO_H */
