// SPDX-License-Identifier: GPL-2.0
/*
 * KVM's I/O buses: how an access of the guest's comes to the module.
 *
 * KVM exports no function to put a device on a bus, but what it takes is short: under
 * kvm->slots_lock make a new array of ranges with ours among the others', by address, publish
 * it in kvm->buses[] and free the old one when nobody can be reading it. All buses change
 * together, or none, while all vCPUs are held: so none is in an access, and the wait for KVM's
 * SRCU is a short one. A bus is searched
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
 * At the end, when the map is closed, nobody is held and nothing may be waited for. The devices
 * are mute then, and leave the buses step by step: gpamap_vm_bus_leave().
 *
 * The functions run under the lock of the map; the callbacks in vCPU threads, inside KVM_RUN.
 */
#include <linux/kvm_host.h>
#include <linux/srcu.h>
#include <kvm/iodev.h>
#include "kvm.h"

#define MAX_RANGE_LEN (1U << 30)

static const enum kvm_bus bus_idx[GPAMAP_NR_BUSES] = {
	[GPAMAP_BUS_MEMORY] = KVM_MMIO_BUS,
	[GPAMAP_BUS_PORTS] = KVM_PIO_BUS,
	[GPAMAP_BUS_FAST] = KVM_FAST_MMIO_BUS,
};

/* The device of a VM on one bus. The same in all ranges. */
struct gpamap_bus_device {
	struct kvm_io_device dev;
	/* Who is asked: gpamap_vm_ops.access, or nobody_answers() once the map is closed. */
	bool (*access)(void *owner, const struct gpamap_access *access);
	void *owner;
	u32 bus;
	struct gpamap_bus_list *placed;	/* what the bus has; NULL for nothing */
	const struct kvm_io_bus *retired;	/* that had it, and may be read still */
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

/* These two are not needed for every access, and so not in the structure. */
u32 gpamap_access_vcpu_id(const struct gpamap_access *access)
{
	return access->vcpu->vcpu_id;
}

/*
 * Whether a write can be done or not as it comes, and KVM forgets nothing. A string that is
 * written to a port comes element by element, each an instruction of its own to KVM; but where
 * KVM cannot see the registers, as many as a page holds in one go, and KVM forgets the rest when
 * one in the middle is not done.
 */
bool gpamap_access_may_leave(const struct gpamap_access *access)
{
	return access->view != GPAMAP_VIEW_PORTS || !access->vcpu->arch.guest_state_protected;
}

static int bus_access(struct kvm_vcpu *vcpu, struct kvm_io_device *dev, gpa_t addr, int len,
		      void *val, bool write)
{
	struct gpamap_bus_device *device = container_of(dev, struct gpamap_bus_device, dev);
	bool (*access)(void *owner, const struct gpamap_access *a) = READ_ONCE(device->access);
	const struct gpamap_access a = {
		.hint = device_hint(device, vcpu->vcpu_id),
		.addr = addr,
		.val = val,
		.vcpu = vcpu,
		.view = device_view(device, vcpu),
		.len = len,
		.write = write,
	};

	return access(device->owner, &a) ? 0 : -EOPNOTSUPP;
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

/* Whether a list asks for no more than another. */
static bool list_within(const struct gpamap_bus_list *list, const struct gpamap_bus_list *in)
{
	u32 i, j = 0;

	for (i = 0; i < list->nr; i++) {
		while (in && j < in->nr && in->extents[j].last < list->extents[i].last)
			j++;
		if (!in || j == in->nr || in->extents[j].start > list->extents[i].start)
			return false;
	}
	return true;
}

/* What it has already, or less, it can have: who came later is in its way as before. */
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
	if (!list_within(list, device->placed) && bus_collides(&plan, device, list))
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

int gpamap_vm_bus_init(struct gpamap_vm *vm, void *owner)
{
	u32 bus;

	vm->bus_devices = kcalloc(GPAMAP_NR_BUSES, sizeof(*vm->bus_devices), GPAMAP_GFP);
	if (!vm->bus_devices)
		return -ENOMEM;
	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++) {
		kvm_iodevice_init(&vm_device(vm, bus)->dev, &bus_ops);
		vm_device(vm, bus)->access = vm->ops->access;
		vm_device(vm, bus)->owner = owner;
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

/* So many devices others may place while a change is on its way, without it wanting memory. */
#define MORE_FOREIGN 16

/* Adds to a change that @bus is to have @list, NULL for nothing, which is the change's then. */
int gpamap_vm_bus_plan(struct gpamap_vm *vm, struct gpamap_bus_change *change, u32 bus,
		       struct gpamap_bus_list *list, unsigned long deadline)
{
	struct gpamap_bus_device *device = vm_device(vm, bus);
	struct kvm *kvm = gpamap_vm_kvm(vm);
	struct bus_plan plan;
	struct kvm_io_bus *room;
	u32 max;
	int rc;

	rc = gpamap_lock_within(&kvm->slots_lock, deadline);
	if (rc)
		return rc;
	rc = list ? bus_check(kvm, device, list) : 0;
	bus_count(kvm, device, list, &plan);
	mutex_unlock(&kvm->slots_lock);
	if (rc)
		return rc;
	max = plan.foreign + plan.ours + MORE_FOREIGN;
	room = kmalloc(struct_size(room, range, max), GPAMAP_GFP);
	if (!room)
		return -ENOMEM;
	change->buses |= BIT(bus);
	change->lists[bus] = list;
	change->room[bus].bus = room;
	change->room[bus].max = max;
	return 0;
}

/* Frees what a change has left, done or not. */
void gpamap_vm_bus_free(struct gpamap_bus_change *change)
{
	u32 bus;

	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++) {
		kvfree(change->lists[bus]);
		kfree(change->room[bus].bus);
	}
	memset(change, 0, sizeof(*change));
}

/*
 * A bus as it is to be, in @room of @max ranges or in memory of its own, and in @plan the one
 * that it replaces. NULL if KVM has given the bus up: then it has waited for all who were
 * asking us.
 */
static struct kvm_io_bus *bus_make(struct kvm *kvm, struct gpamap_bus_device *device,
				   const struct gpamap_bus_list *list, void *room, u32 max,
				   struct bus_plan *plan)
{
	struct kvm_io_bus *new = room;

	bus_count(kvm, device, list, plan);
	if (!plan->old)
		return list && list->nr ? ERR_PTR(-ENOMEM) : NULL;
	if (!room || plan->foreign + plan->ours > max)
		new = kmalloc(struct_size(new, range, plan->foreign + plan->ours), GPAMAP_GFP);
	if (!new)
		return ERR_PTR(-ENOMEM);
	memset(new, 0, sizeof(*new));
	bus_fill(new, device, list, plan);
	return new;
}

static int lock_slots(struct kvm *kvm, const unsigned long *deadline)
{
	if (deadline)
		return gpamap_lock_within(&kvm->slots_lock, *deadline);
	mutex_lock(&kvm->slots_lock);
	return 0;
}

/*
 * Does a change, wherever other devices are, on all buses or, with an error, on none: -ENOMEM,
 * and -EBUSY or -EINTR if there is a @deadline (not NULL). vCPUs are held: none is in an access, or
 * will be in one that began before.
 */
int gpamap_vm_bus_apply(struct gpamap_vm *vm, struct gpamap_bus_change *change,
			const unsigned long *deadline)
{
	struct kvm_io_bus *new[GPAMAP_NR_BUSES] = { NULL };
	struct bus_plan plan[GPAMAP_NR_BUSES] = { { NULL } };
	struct kvm *kvm = gpamap_vm_kvm(vm);
	u32 bus;
	int rc;

	if (!change->buses)
		return 0;
	rc = lock_slots(kvm, deadline);
	if (rc)
		return rc;
	for (bus = 0; !rc && bus < GPAMAP_NR_BUSES; bus++) {
		if (!(change->buses & BIT(bus)))
			continue;
		new[bus] = bus_make(kvm, vm_device(vm, bus), change->lists[bus],
				    change->room[bus].bus, change->room[bus].max, &plan[bus]);
		if (IS_ERR(new[bus])) {
			rc = PTR_ERR(new[bus]);
			new[bus] = NULL;
		}
	}
	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++) {
		if (rc) {
			if (new[bus] != change->room[bus].bus)
				kfree(new[bus]);
			continue;
		}
		if (new[bus] && new[bus] == change->room[bus].bus)
			change->room[bus].bus = NULL;
		if (new[bus])
			rcu_assign_pointer(kvm->buses[bus_idx[bus]], new[bus]);
		if (change->buses & BIT(bus))
			swap(vm_device(vm, bus)->placed, change->lists[bus]);
	}
	/* Nobody of those who can be long inside: all vCPUs are held. */
	if (!rc)
		synchronize_srcu_expedited(&kvm->srcu);
	for (bus = 0; !rc && bus < GPAMAP_NR_BUSES; bus++)
		if (new[bus])
			kfree(plan[bus].old);
	mutex_unlock(&kvm->slots_lock);
	return rc;
}

static bool nobody_answers(void *owner, const struct gpamap_access *access)
{
	return false;
}

/* From now on our devices do nothing. */
void gpamap_vm_bus_mute(struct gpamap_vm *vm)
{
	u32 bus;

	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++)
		WRITE_ONCE(vm_device(vm, bus)->access, nobody_answers);
}

static bool has_ranges(const struct gpamap_bus_device *device)
{
	return device->placed && device->placed->nr;
}

/* False if it has to be tried again. */
static bool bus_leave(struct kvm *kvm, struct gpamap_bus_device *device)
{
	struct kvm_io_bus *new;
	struct bus_plan plan;

	if (!has_ranges(device))
		return true;
	new = bus_make(kvm, device, NULL, NULL, 0, &plan);
	if (IS_ERR(new))
		return false;
	if (new) {
		rcu_assign_pointer(kvm->buses[bus_idx[device->bus]], new);
		device->retired = plan.old;
	}
	kvfree(device->placed);
	device->placed = NULL;
	return true;
}

static bool all_leave(struct gpamap_vm *vm, struct kvm *kvm)
{
	bool done = true;
	u32 bus;

	if (!mutex_trylock(&kvm->slots_lock))
		return false;
	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++)
		done &= bus_leave(kvm, vm_device(vm, bus));
	mutex_unlock(&kvm->slots_lock);
	return done;
}

static bool anything_placed(struct gpamap_vm *vm)
{
	u32 bus;

	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++)
		if (has_ranges(vm_device(vm, bus)))
			return true;
	return false;
}

/*
 * Takes all that is ours from the buses, and tells whether that is over and no vCPU is in an
 * access to it any more. Does what can be done without waiting, in any process and in one
 * without an mm; until it says true it has to be called again.
 */
bool gpamap_vm_bus_leave(struct gpamap_vm *vm)
{
	struct kvm *kvm = gpamap_vm_kvm(vm);
	u32 bus;

	if (!vm->left) {
		if (!anything_placed(vm))
			return true;
		if (!all_leave(vm, kvm))
			return false;
		vm->left = true;
		vm->grace = start_poll_synchronize_srcu(&kvm->srcu);
	}
	if (!poll_state_synchronize_srcu(&kvm->srcu, vm->grace))
		return false;
	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++) {
		kfree(vm_device(vm, bus)->retired);
		vm_device(vm, bus)->retired = NULL;
	}
	return true;
}

/* Nothing of it is on a bus, and nobody in it. */
void gpamap_vm_bus_exit(struct gpamap_vm *vm)
{
	u32 bus;

	if (!vm->bus_devices)
		return;
	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++) {
		kvfree(vm_device(vm, bus)->placed);
		kfree(vm_device(vm, bus)->hints);
	}
	kfree(vm->bus_devices);
}
