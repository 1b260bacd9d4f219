// SPDX-License-Identifier: GPL-2.0
/*
 * The transport of virtio devices: virtio over MMIO, version 2 (virtio 1.2, 4.2).
 *
 * A device is a page of registers, an io region of the map. Who answers what:
 *
 *	the kernel	GPAMAP_REGISTERS: what never changes (the identification, the
 *			configuration of the device, shared memory that is not there),
 *			and InterruptStatus, which gvmm writes and the guest only reads
 *	the kernel	GPAMAP_DOORBELL: QueueNotify, with the number of a queue. It
 *			signals the queue's eventfd, for which the device's thread waits;
 *			the vCPU goes on in the guest
 *	gvmm		the rest (features, status, set-up of the queues, InterruptACK),
 *			as KVM_EXIT_MMIO that memory_io() brings here by region and offset
 *
 * So in operation an interrupt costs one exit, InterruptACK, and a notification none.
 *
 * A kernel finds the devices in the DSDT (bios.c): LNRO0005, with their page and their
 * interrupt. Interrupts are levels at pins of the I/O APIC that no ISA device has: the
 * line is up as long as InterruptStatus is not zero.
 *
 * A driver that breaks the rules gets DEVICE_NEEDS_RESET and no more answers. Locks are
 * told of in virtio.h.
 */
#include "virtio.h"

#include <errno.h>
#include <linux/kvm.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MAGIC 0x74726976		/* "virt" */
#define VERSION 2
#define VENDOR 0x4d4d5647		/* "GVMM" */
#define NO_SHARED_MEMORY 0xffffffff

/* ---- interrupts ------------------------------------------------------- */

/* Makes register, line and dev->interrupts agree. Under irq_lock. */
static void interrupts_set(struct virtio_device *dev, uint32_t interrupts)
{
	struct kvm_irq_level level = { .irq = dev->gsi, .level = interrupts != 0 };
	bool same = !interrupts == !dev->interrupts;

	dev->interrupts = interrupts;
	atomic_store(&dev->page[VIRTIO_MMIO_INTERRUPT_STATUS / 4], interrupts);
	if (!same)
		ioctl(dev->vm->vm_fd, KVM_IRQ_LINE, &level);
}

/* Interrupts the driver; @why is one of VIRTIO_MMIO_INT_*. Any thread. */
static void virtio_interrupt(struct virtio_device *dev, uint32_t why)
{
	pthread_mutex_lock(&dev->irq_lock);
	interrupts_set(dev, dev->interrupts | why);
	pthread_mutex_unlock(&dev->irq_lock);
}

static void interrupts_clear(struct virtio_device *dev, uint32_t bits)
{
	pthread_mutex_lock(&dev->irq_lock);
	interrupts_set(dev, dev->interrupts & ~bits);
	pthread_mutex_unlock(&dev->irq_lock);
}

/*
 * The driver has broken the rules: nothing is answered until it resets the device.
 * Under dev->lock.
 */
static void virtio_broken(struct virtio_device *dev)
{
	dev->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	atomic_store(&dev->running, false);
	virtio_interrupt(dev, VIRTIO_MMIO_INT_CONFIG);
}

/* Makes the device's thread look at the queue. Any thread. */
void virtio_kick(struct virtio_device *dev, unsigned int queue)
{
	uint64_t one = 1;
	ssize_t n;

	/* It fails only when the counter is full: then the thread is awake anyhow. */
	n = write(dev->kick_fd[queue], &one, sizeof(one));
	(void)n;
}

/*
 * After a device has served a queue: @done requests, the last virtqueue_next() gave @rc, so
 * there may be more.
 */
void virtio_served(struct virtio_device *dev, unsigned int queue, uint32_t done, int rc)
{
	if (done && virtqueue_interrupts(&dev->queues[queue]))
		virtio_interrupt(dev, VIRTIO_MMIO_INT_VRING);
	if (rc < 0)
		virtio_broken(dev);
	else if (rc > 0)
		virtio_kick(dev, queue);
}

/* ---- registers that gvmm answers -------------------------------------- */

static void reset(struct virtio_device *dev)
{
	unsigned int i;

	atomic_store(&dev->running, false);
	dev->status = 0;
	dev->features_sel = 0;
	dev->driver_features_sel = 0;
	dev->driver_features = 0;
	dev->queue_sel = 0;
	for (i = 0; i < dev->ops->nr_queues; i++)
		dev->queues[i] = (struct virtqueue){ .ready = false };
	interrupts_clear(dev, UINT32_MAX);
}

static void set_status(struct virtio_device *dev, uint32_t status)
{
	unsigned int i;

	if (!status) {
		reset(dev);
		return;
	}
	/* The driver reads it back to see whether its choice of features is good. */
	if ((status & ~dev->status & VIRTIO_CONFIG_S_FEATURES_OK) &&
	    ((dev->driver_features & ~dev->features) ||
	     !(dev->driver_features & 1ULL << VIRTIO_F_VERSION_1)))
		status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	dev->status = status | (dev->status & VIRTIO_CONFIG_S_NEEDS_RESET);
	if ((dev->status & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK |
			    VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED)) !=
	    (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)) {
		atomic_store(&dev->running, false);
		return;
	}
	/* A notification that came too early was not looked at. */
	if (!atomic_exchange(&dev->running, true))
		for (i = 0; i < dev->ops->nr_queues; i++)
			virtio_kick(dev, i);
}

static void set_driver_features(struct virtio_device *dev, uint32_t value)
{
	unsigned int shift = 32 * dev->driver_features_sel;

	if (dev->driver_features_sel > 1 || (dev->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	dev->driver_features &= ~(0xffffffffULL << shift);
	dev->driver_features |= (uint64_t)value << shift;
}

static void set_low(uint64_t *gpa, uint32_t value)
{
	*gpa = (*gpa & ~0xffffffffULL) | value;
}

static void set_high(uint64_t *gpa, uint32_t value)
{
	*gpa = (*gpa & 0xffffffffULL) | (uint64_t)value << 32;
}

/* The registers of the queue that is selected, which is @q. */
static void queue_write(struct virtio_device *dev, struct virtqueue *q, uint64_t offset,
			uint32_t value)
{
	if (q->ready) {
		if (offset == VIRTIO_MMIO_QUEUE_READY && !value)
			*q = (struct virtqueue){ .ready = false };
		return;
	}
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		if (value <= VIRTIO_QUEUE_LEN && !(value & (value - 1)))
			q->num = value;
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		if (value && !virtqueue_start(dev->vm, q))
			virtio_broken(dev);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
		set_low(&q->desc_gpa, value);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_high(&q->desc_gpa, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
		set_low(&q->avail_gpa, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_high(&q->avail_gpa, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
		set_low(&q->used_gpa, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		set_high(&q->used_gpa, value);
		break;
	}
}

static void register_write(struct virtio_device *dev, uint64_t offset, uint32_t value)
{
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		dev->features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		dev->driver_features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		set_driver_features(dev, value);
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		dev->queue_sel = value;
		break;
	case VIRTIO_MMIO_STATUS:
		set_status(dev, value);
		break;
	default:
		if (dev->queue_sel < dev->ops->nr_queues)
			queue_write(dev, &dev->queues[dev->queue_sel], offset, value);
		break;
	}
}

static uint32_t register_read(const struct virtio_device *dev, uint64_t offset)
{
	bool queue = dev->queue_sel < dev->ops->nr_queues;

	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return dev->features_sel > 1 ? 0 : dev->features >> 32 * dev->features_sel;
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return queue ? VIRTIO_QUEUE_LEN : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return queue && dev->queues[dev->queue_sel].ready;
	case VIRTIO_MMIO_STATUS:
		return dev->status;
	default:
		return 0;
	}
}

/* Of the configuration the kernel answers reads of four bytes; others come here. */
static void config_read(const struct virtio_device *dev, uint64_t offset, uint8_t *data,
			unsigned int len)
{
	for (; len; len--, offset++)
		*data++ = offset < dev->config_len ? dev->config[offset] : 0;
}

/* An access that left to gvmm: a vCPU's thread. */
static void access_mmio(void *device, uint64_t offset, bool write, uint8_t *data,
			unsigned int len)
{
	struct virtio_device *dev = device;
	uint32_t value = 0;

	if (offset >= VIRTIO_MMIO_CONFIG) {
		if (!write)
			config_read(dev, offset - VIRTIO_MMIO_CONFIG, data, len);
		return;
	}
	/* Of the registers no other access is allowed. */
	if (len != sizeof(value) || offset % sizeof(value)) {
		if (!write)
			memset(data, 0, len);
		return;
	}
	if (write)
		memcpy(&value, data, sizeof(value));
	if (write && offset == VIRTIO_MMIO_INTERRUPT_ACK) {
		interrupts_clear(dev, value);
		return;
	}
	pthread_mutex_lock(&dev->lock);
	if (write)
		register_write(dev, offset, value);
	else
		value = register_read(dev, offset);
	pthread_mutex_unlock(&dev->lock);
	if (!write)
		memcpy(data, &value, sizeof(value));
}

/* ---- the device's thread ---------------------------------------------- */

static void *device_thread(void *arg)
{
	struct virtio_device *dev = arg;
	struct pollfd fds[VIRTIO_MAX_QUEUES + 1];
	unsigned int nr = dev->ops->nr_queues;
	uint64_t count;
	unsigned int i;

	for (i = 0; i < nr; i++)
		fds[i] = (struct pollfd){ .fd = dev->kick_fd[i], .events = POLLIN };
	fds[nr] = (struct pollfd){ .fd = dev->stop_fd, .events = POLLIN };
	for (;;) {
		if (poll(fds, nr + 1, -1) < 0)
			continue;
		if (fds[nr].revents)
			return NULL;
		for (i = 0; i < nr; i++) {
			if (!fds[i].revents ||
			    read(fds[i].fd, &count, sizeof(count)) != sizeof(count))
				continue;
			pthread_mutex_lock(&dev->lock);
			if (atomic_load(&dev->running) && dev->queues[i].ready)
				dev->ops->notify(dev, i);
			pthread_mutex_unlock(&dev->lock);
		}
	}
}

/* ---- set-up and end: the main thread ---------------------------------- */

static int event_fd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		fail("eventfd: %s (%s)", strerror(errno), error_name(errno));
	return fd;
}

/* A new device, before there is memory. Its config is the caller's to fill. */
void virtio_add(struct gvmm *vm, struct virtio_device *dev, const struct virtio_ops *ops,
		uint64_t features)
{
	unsigned int nr = vm->nr_virtio;
	unsigned int i;

	if (nr == GVMM_MAX_VIRTIO)
		fail("more than %u virtio devices; try gvmm --help", GVMM_MAX_VIRTIO);
	vm->virtio[vm->nr_virtio++] = dev;
	dev->vm = vm;
	dev->ops = ops;
	dev->features = features | 1ULL << VIRTIO_F_VERSION_1;
	dev->gpa = GPA_VIRTIO + nr * VIRTIO_LEN;
	dev->gsi = VIRTIO_FIRST_GSI + nr;
	snprintf(dev->name, sizeof(dev->name), "virtio-%s.%u", ops->name, nr);
	pthread_mutex_init(&dev->lock, NULL);
	pthread_mutex_init(&dev->irq_lock, NULL);
	dev->stop_fd = event_fd();
	for (i = 0; i < ops->nr_queues; i++)
		dev->kick_fd[i] = event_fd();
	dev->region = memory_add_io(vm, dev->name, dev->gpa, VIRTIO_LEN, access_mmio, dev);
}

/* Where the guest will find a device: its page and its interrupt. */
void virtio_place(const struct gvmm *vm, unsigned int index, uint64_t *gpa, uint32_t *gsi)
{
	*gpa = vm->virtio[index]->gpa;
	*gsi = vm->virtio[index]->gsi;
}

/* Tells which registers and doorbells a device has. */
static void tie_device(struct gvmm *vm, struct virtio_device *dev)
{
	static const struct gpamap_register fixed[] = {
		{ VIRTIO_MMIO_MAGIC_VALUE, 4, GPAMAP_REGISTER_CONSTANT, MAGIC },
		{ VIRTIO_MMIO_VERSION, 4, GPAMAP_REGISTER_CONSTANT, VERSION },
		{ VIRTIO_MMIO_VENDOR_ID, 4, GPAMAP_REGISTER_CONSTANT, VENDOR },
		{ VIRTIO_MMIO_INTERRUPT_STATUS, 4, GPAMAP_REGISTER_READONLY, 0 },
		{ VIRTIO_MMIO_SHM_LEN_LOW, 4, GPAMAP_REGISTER_CONSTANT, NO_SHARED_MEMORY },
		{ VIRTIO_MMIO_SHM_LEN_HIGH, 4, GPAMAP_REGISTER_CONSTANT, NO_SHARED_MEMORY },
		{ VIRTIO_MMIO_SHM_BASE_LOW, 4, GPAMAP_REGISTER_CONSTANT, NO_SHARED_MEMORY },
		{ VIRTIO_MMIO_SHM_BASE_HIGH, 4, GPAMAP_REGISTER_CONSTANT, NO_SHARED_MEMORY },
		{ VIRTIO_MMIO_CONFIG_GENERATION, 4, GPAMAP_REGISTER_CONSTANT, 0 },
	};
	struct gpamap_register *registers = dev->registers;
	unsigned int i, nr = ARRAY_SIZE(fixed);
	uint32_t value;

	_Static_assert(ARRAY_SIZE(fixed) + 1 + VIRTIO_MAX_CONFIG / 4 == VIRTIO_MAX_REGISTERS,
		       "as many as there can be");
	memcpy(registers, fixed, sizeof(fixed));
	registers[nr++] = (struct gpamap_register){
		VIRTIO_MMIO_DEVICE_ID, 4, GPAMAP_REGISTER_CONSTANT, dev->ops->id,
	};
	for (i = 0; i < dev->config_len; i += sizeof(value)) {
		memcpy(&value, dev->config + i, sizeof(value));
		registers[nr++] = (struct gpamap_register){
			VIRTIO_MMIO_CONFIG + i, 4, GPAMAP_REGISTER_CONSTANT, value,
		};
	}
	for (i = 0; i < dev->ops->nr_queues; i++)
		dev->doorbells[i] = (struct gpamap_ties_doorbell){
			.offset = VIRTIO_MMIO_QUEUE_NOTIFY, .len = 4, .fd = dev->kick_fd[i],
			.flags = GPAMAP_DOORBELL_MATCH, .value = i,
		};
	memory_tie(vm, dev->region, &(struct io_ties){
		.registers = registers, .nr_registers = nr,
		.doorbells = dev->doorbells, .nr_doorbells = dev->ops->nr_queues,
	});
}

/* When the devices have their configuration, before there is memory. */
void virtio_tie(struct gvmm *vm)
{
	unsigned int i;

	for (i = 0; i < vm->nr_virtio; i++)
		tie_device(vm, vm->virtio[i]);
}

/* When there is memory. */
void virtio_connect(struct gvmm *vm)
{
	unsigned int i;

	for (i = 0; i < vm->nr_virtio; i++)
		vm->virtio[i]->page = memory_registers(vm, vm->virtio[i]->region);
}

void virtio_start(struct gvmm *vm)
{
	struct virtio_device *dev;
	unsigned int i;
	int err;

	for (i = 0; i < vm->nr_virtio; i++) {
		dev = vm->virtio[i];
		err = pthread_create(&dev->thread, NULL, device_thread, dev);
		if (err)
			fail("%s: its thread: %s (%s)", dev->name, strerror(err),
			     error_name(err));
	}
}

/* Lets the threads finish what they are at. */
void virtio_stop(struct gvmm *vm)
{
	uint64_t one = 1;
	unsigned int i;

	for (i = 0; i < vm->nr_virtio; i++) {
		if (write(vm->virtio[i]->stop_fd, &one, sizeof(one)) == sizeof(one))
			pthread_join(vm->virtio[i]->thread, NULL);
	}
}
