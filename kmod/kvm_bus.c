// SPDX-License-Identifier: GPL-2.0
/*
 * KVM's I/O buses: how an access of the guest's comes to the module.
 *
 * KVM exports no function to put a device on a bus, but what it takes is short: under
 * kvm->slots_lock make a new array of ranges with ours among the others', by address, publish
 * it in kvm->buses[] and free the old one when no vCPU can be reading it. A bus is searched
 * with a comparison that takes overlapping ranges for equal, so ranges must be disjoint: of
 * ours those that touch are one, and where a device of someone else's is, none of ours
 * can be (EEXIST). KVM itself looks for that only among its ioeventfds; a device that
 * comes later inside a range of ours may be found before us, after us, or not. The next
 * commit that changes what is answered is refused (EEXIST).
 *
 * Where the processor allows it (Intel's; from about 7.3 on AMD's too) KVM asks a third bus
 * about accesses to where there is no memory, before it has decoded the instruction: as a write
 * with a length of 0 and no value.
 *
 * A range's length is an int: longer stretches are several ranges. An access that crosses
 * the end of a range finds nothing and leaves to the VMM.
 *
 * Beside kvm.c this is the only file that knows KVM. The functions run under the lock of
 * the map; the callbacks in vCPU threads, inside KVM_RUN.
 */
#include <linux/delay.h>
#include <linux/kvm_host.h>
#include <kvm/iodev.h>
#include "private.h"

#define MAX_RANGE_LEN (1U << 30)

static const enum kvm_bus bus_idx[GPAMAP_NR_BUSES] = {
	[GPAMAP_BUS_MEMORY] = KVM_MMIO_BUS,
	[GPAMAP_BUS_PORTS] = KVM_PIO_BUS,
	[GPAMAP_BUS_FAST] = KVM_FAST_MMIO_BUS,
};

/* The device of a VM on one bus. The same in all ranges. */
struct gpamap_bus_device {
	struct kvm_io_device dev;
	struct gpamap *map;
	u32 bus;
	struct gpamap_bus_list *placed;	/* what the bus has; NULL for nothing */
	struct gpamap_hint *hints;	/* NR_HINTS, by id of the vCPU */
};

/* vCPUs with a higher id have none. */
#define NR_HINTS 64

static struct gpamap_hint *device_hint(const struct gpamap_bus_device *device, u32 vcpu_id)
{
	return vcpu_id < NR_HINTS ? &device->hints[vcpu_id] : NULL;
}

static enum gpamap_bus_view device_view(const struct gpamap_bus_device *device,
					struct kvm_vcpu *vcpu)
{
	if (device->bus == GPAMAP_BUS_PORTS)
		return GPAMAP_VIEW_PORTS;
	return kvm_arch_vcpu_memslots_id(vcpu) ? GPAMAP_VIEW_SMM : GPAMAP_VIEW_MEMORY;
}

/*
 * Whether a write can be done or not as it comes. A string that is written to a port comes
 * element by element, each an instruction of its own to KVM; but where KVM cannot see the
 * registers, as many as a page holds in one go, and KVM forgets the rest when one in the
 * middle is not done.
 */
static bool may_leave(const struct gpamap_bus_device *device, const struct kvm_vcpu *vcpu)
{
	return device->bus != GPAMAP_BUS_PORTS || !vcpu->arch.guest_state_protected;
}

static int bus_access(struct kvm_vcpu *vcpu, struct kvm_io_device *dev, gpa_t addr, int len,
		      void *val, bool write)
{
	struct gpamap_bus_device *device = container_of(dev, struct gpamap_bus_device, dev);
	const struct gpamap_access a = {
		.map = device->map,
		.hint = device_hint(device, vcpu->vcpu_id),
		.addr = addr,
		.val = val,
		.view = device_view(device, vcpu),
		.vcpu_id = vcpu->vcpu_id,
		.len = len,
		.write = write,
		.may_leave = may_leave(device, vcpu),
	};

	return gpamap_dispatch(&a) ? 0 : -EOPNOTSUPP;
}

static int bus_read(struct kvm_vcpu *vcpu, struct kvm_io_device *dev, gpa_t addr, int len,
		    void *val)
{
	return bus_access(vcpu, dev, addr, len, val, false);
}

static int bus_write(struct kvm_vcpu *vcpu, struct kvm_io_device *dev, gpa_t addr, int len,
		     const void *val)
{
	return bus_access(vcpu, dev, addr, len, (void *)val, true);
}

static const struct kvm_io_device_ops bus_ops = {
	.read = bus_read,
	.write = bus_write,
};

static u64 nr_pieces(const struct gpamap_extent *extent)
{
	return (extent->last - extent->start) / MAX_RANGE_LEN + 1;
}

static bool overlaps(const struct kvm_io_range *range, const struct gpamap_extent *extent)
{
	return range->addr <= extent->last &&
	       range->addr + max(range->len, 1) - 1 >= extent->start;
}

/* What a bus would be like with other stretches of ours. */
struct bus_plan {
	const struct kvm_io_bus *old;
	u32 foreign;
	u32 ours;
};

/* KVM gives a bus up when it has no memory to change it: then there is none. */
static void bus_count(struct kvm *kvm, const struct gpamap_bus_device *device,
		      const struct gpamap_bus_list *list, struct bus_plan *plan)
{
	u32 i;

	*plan = (struct bus_plan){
		.old = rcu_dereference_protected(kvm->buses[bus_idx[device->bus]],
						 lockdep_is_held(&kvm->slots_lock)),
	};
	for (i = 0; list && i < list->nr; i++)
		plan->ours += nr_pieces(&list->extents[i]);
	for (i = 0; plan->old && i < plan->old->dev_count; i++)
		plan->foreign += plan->old->range[i].dev != &device->dev;
}

/* KVM puts in no order what it takes for equal, so all are compared. */
static bool bus_collides(const struct bus_plan *plan, const struct gpamap_bus_device *device,
			 const struct gpamap_bus_list *list)
{
	u32 i, j = 0;

	for (i = 0; list->nr && i < plan->old->dev_count; i++) {
		const struct kvm_io_range *range = &plan->old->range[i];

		if (range->dev == &device->dev)
			continue;
		if (j && list->extents[j - 1].last >= range->addr)
			j = 0;
		while (j < list->nr && list->extents[j].last < range->addr)
			j++;
		if (j < list->nr && overlaps(range, &list->extents[j]))
			return true;
	}
	return false;
}

static int bus_check(struct kvm *kvm, const struct gpamap_bus_device *device,
		     const struct gpamap_bus_list *list)
{
	struct bus_plan plan;
	u64 pieces = 0;
	u32 i;

	for (i = 0; i < list->nr; i++) {
		pieces += nr_pieces(&list->extents[i]);
		if (pieces > GPAMAP_MAX_BUS_RANGES)
			return -ENOSPC;
	}
	bus_count(kvm, device, list, &plan);
	if (!plan.old)
		return list->nr ? -ENOMEM : 0;
	if (bus_collides(&plan, device, list))
		return -EEXIST;
	/* As KVM counts: its ioeventfds are limited by file descriptors. */
	if (plan.ours + plan.foreign - plan.old->ioeventfd_count > NR_IOBUS_DEVS)
		return -ENOSPC;
	return 0;
}

static void bus_fill(struct kvm_io_bus *bus, struct gpamap_bus_device *device,
		     const struct gpamap_bus_list *list, const struct bus_plan *plan)
{
	const struct kvm_io_bus *old = plan->old;
	u32 nr = 0, i = 0, j = 0;

	bus->ioeventfd_count = old->ioeventfd_count;
	bus->dev_count = plan->foreign + plan->ours;
	while (nr < bus->dev_count) {
		while (i < old->dev_count && old->range[i].dev == &device->dev)
			i++;
		if (i < old->dev_count && (!list || j == list->nr ||
					   old->range[i].addr < list->extents[j].start)) {
			bus->range[nr++] = old->range[i++];
			continue;
		}
		for (u64 start = list->extents[j].start, last = list->extents[j].last;
		     ; start += MAX_RANGE_LEN) {
			bool end = last - start < MAX_RANGE_LEN;

			bus->range[nr++] = (struct kvm_io_range){
				.addr = start,
				.len = end ? last - start + 1 : MAX_RANGE_LEN,
				.dev = &device->dev,
			};
			if (end)
				break;
		}
		j++;
	}
}

static struct gpamap_bus_device *vm_device(struct gpamap_vm *vm, u32 bus)
{
	return &vm->bus_devices[bus];
}

int gpamap_vm_bus_init(struct gpamap_vm *vm, struct gpamap *map)
{
	u32 bus;

	vm->bus_devices = kcalloc(GPAMAP_NR_BUSES, sizeof(*vm->bus_devices), GPAMAP_GFP);
	if (!vm->bus_devices)
		return -ENOMEM;
	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++) {
		kvm_iodevice_init(&vm_device(vm, bus)->dev, &bus_ops);
		vm_device(vm, bus)->map = map;
		vm_device(vm, bus)->bus = bus;
		vm_device(vm, bus)->hints = kcalloc(NR_HINTS, sizeof(struct gpamap_hint),
						    GPAMAP_GFP);
		if (!vm_device(vm, bus)->hints)
			return -ENOMEM;
	}
	return 0;
}

/* The stretches that the bus has; NULL for none. */
const struct gpamap_bus_list *gpamap_vm_bus_placed(const struct gpamap_vm *vm, u32 bus)
{
	return vm->bus_devices[bus].placed;
}

/* Waits until no vCPU is in an access that began before. */
void gpamap_vm_bus_wait(struct gpamap_vm *vm)
{
	synchronize_srcu_expedited(&gpamap_vm_kvm(vm)->srcu);
}

/* Whether it could have these: -EEXIST, -ENOSPC or -ENOMEM if not. */
int gpamap_vm_bus_check(struct gpamap_vm *vm, u32 bus, const struct gpamap_bus_list *list)
{
	struct kvm *kvm = gpamap_vm_kvm(vm);
	int rc;

	mutex_lock(&kvm->slots_lock);
	rc = bus_check(kvm, vm_device(vm, bus), list);
	mutex_unlock(&kvm->slots_lock);
	return rc;
}

/*
 * Makes *@list all that we have on the bus, wherever other devices are, and hands out what
 * it was before: both are the caller's to free, never what the bus has. -ENOMEM is the only
 * error. Afterwards no vCPU is in an access that began before.
 */
int gpamap_vm_bus_set(struct gpamap_vm *vm, u32 bus, struct gpamap_bus_list **list)
{
	struct gpamap_bus_device *device = vm_device(vm, bus);
	struct kvm *kvm = gpamap_vm_kvm(vm);
	struct kvm_io_bus *new;
	struct bus_plan plan;
	int rc = -ENOMEM;

	mutex_lock(&kvm->slots_lock);
	bus_count(kvm, device, *list, &plan);
	if (!plan.old)
		goto out_unlock;
	new = kmalloc(struct_size(new, range, plan.foreign + plan.ours), GPAMAP_GFP);
	if (!new)
		goto out_unlock;
	memset(new, 0, sizeof(*new));
	bus_fill(new, device, *list, &plan);
	rcu_assign_pointer(kvm->buses[bus_idx[bus]], new);
	synchronize_srcu_expedited(&kvm->srcu);
	kfree(plan.old);
	swap(device->placed, *list);
	rc = 0;
out_unlock:
	mutex_unlock(&kvm->slots_lock);
	return rc;
}

/* Whether KVM has the bus still. If not, it has waited for all who were asking us. */
static bool bus_exists(struct kvm *kvm, u32 bus)
{
	bool exists;

	mutex_lock(&kvm->slots_lock);
	exists = rcu_access_pointer(kvm->buses[bus_idx[bus]]);
	mutex_unlock(&kvm->slots_lock);
	return exists;
}

/*
 * Takes all that is ours from the buses, whatever it takes: the map goes away. In any
 * process, and in one without an mm.
 */
void gpamap_vm_bus_exit(struct gpamap_vm *vm)
{
	struct gpamap_bus_list *none;
	u32 bus;

	if (!vm->bus_devices)
		return;
	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++) {
		none = NULL;
		while (vm_device(vm, bus)->placed && bus_exists(gpamap_vm_kvm(vm), bus)) {
			unsigned int flags;
			int rc;

			rc = gpamap_vm_bus_set(vm, bus, &none);
			if (!rc)
				break;
			flags = memalloc_noreclaim_save();
			rc = gpamap_vm_bus_set(vm, bus, &none);
			memalloc_noreclaim_restore(flags);
			if (!rc)
				break;
			msleep(20);
		}
		kvfree(none);
		kvfree(vm_device(vm, bus)->placed);
		kfree(vm_device(vm, bus)->hints);
	}
	kfree(vm->bus_devices);
}
