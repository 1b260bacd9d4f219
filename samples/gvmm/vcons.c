// SPDX-License-Identifier: GPL-2.0
/*
 * The virtio console (virtio 1.2, 5.3): one port, which the guest knows as hvc0.
 *
 * It costs a notification for a whole line, where the 16550 costs exits for every byte.
 * The 16550 stays beside it, for what a kernel prints before it has loaded the driver;
 * both print to stdout. Input goes to this console alone: stdin is read as far as there
 * is room here, and that is nothing until the driver is ready.
 *
 * Threads: the main thread puts input into a buffer and kicks the queue, as a driver
 * does; the device's thread hands it on. vcons.lock, the innermost, holds the buffer.
 */
#include "virtio.h"

#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_LEN 256

enum {
	QUEUE_INPUT,
	QUEUE_OUTPUT,
};

struct vcons {
	struct virtio_device dev;
	struct chain chain;		/* the thread's own */

	pthread_mutex_t lock;
	/* under lock */
	uint8_t input[INPUT_LEN];
	unsigned int count;
};

/* How many bytes of input would be taken now. Main thread. */
unsigned int vcons_room(struct vcons *vcons)
{
	unsigned int room = 0;

	pthread_mutex_lock(&vcons->lock);
	if (atomic_load(&vcons->dev.running))
		room = INPUT_LEN - vcons->count;
	pthread_mutex_unlock(&vcons->lock);
	return room;
}

/* Gives the guest what was read from stdin, for which there is room. Main thread. */
void vcons_receive(struct vcons *vcons, const uint8_t *data, unsigned int len)
{
	pthread_mutex_lock(&vcons->lock);
	memcpy(vcons->input + vcons->count, data, len);
	vcons->count += len;
	pthread_mutex_unlock(&vcons->lock);
	virtio_kick(&vcons->dev, QUEUE_INPUT);
}

/* Moves input into the driver's buffer; returns how much. */
static uint32_t give_input(struct vcons *vcons, struct sg *to)
{
	uint32_t n;

	pthread_mutex_lock(&vcons->lock);
	n = sg_write(to, vcons->input, vcons->count);
	vcons->count -= n;
	memmove(vcons->input, vcons->input + n, vcons->count);
	pthread_mutex_unlock(&vcons->lock);
	return n;
}

static bool has_input(struct vcons *vcons)
{
	bool has;

	pthread_mutex_lock(&vcons->lock);
	has = vcons->count;
	pthread_mutex_unlock(&vcons->lock);
	return has;
}

static void put_output(struct gvmm *vm, struct sg *from)
{
	uint8_t bytes[256];
	uint64_t i, n;

	/* A chain can be as long as the guest likes, so not beyond the end. */
	while (!atomic_load(&vm->ended) && (n = sg_read(from, bytes, sizeof(bytes))) > 0) {
		for (i = 0; i < n; i++)
			console_put(vm, bytes[i]);
	}
}

static void vcons_notify(struct virtio_device *dev, unsigned int queue)
{
	struct vcons *vcons = (struct vcons *)dev;
	struct virtqueue *q = &dev->queues[queue];
	uint32_t written, done = 0;
	int rc = 0;

	while (done < q->num && !atomic_load(&dev->vm->ended) &&
	       (queue == QUEUE_OUTPUT || has_input(vcons))) {
		rc = virtqueue_next(dev->vm, q, &vcons->chain);
		if (rc <= 0)
			break;
		written = 0;
		if (queue == QUEUE_OUTPUT)
			put_output(dev->vm, &vcons->chain.readable);
		else
			written = give_input(vcons, &vcons->chain.writable);
		virtqueue_done(q, &vcons->chain, written);
		done++;
	}
	virtio_served(dev, queue, done, rc);
	/* There is room, now or since the driver got ready. */
	if (queue == QUEUE_INPUT)
		console_wake(dev->vm);
}

static const struct virtio_ops vcons_ops = {
	.name = "console",
	.id = VIRTIO_ID_CONSOLE,
	.nr_queues = 2,
	.notify = vcons_notify,
};

/* Adds the console to the machine, before it has memory. */
void vcons_add(struct gvmm *vm)
{
	struct vcons *vcons = calloc(1, sizeof(*vcons));

	if (!vcons)
		fail("the virtio console: out of memory");
	pthread_mutex_init(&vcons->lock, NULL);
	virtio_add(vm, &vcons->dev, &vcons_ops, 0);
	vm->vcons = vcons;
}
