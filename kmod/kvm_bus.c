// SPDX-License-Identifier: GPL-2.0
/*
 * KVM's I/O buses: how an access of the guest's comes to the module.
 *
 * KVM exports no function to put a device on a bus, but what it takes is short: under
 * kvm->slots_lock make a new array of ranges with ours among the others', by address, publish
 * it in kvm->buses[] and free the old one when nobody can be reading it. All buses change
 * together, or none, while all vCPUs are held: so none is in an access, and the wait for KVM's
 * SRCU is a short one.
 *
 * A bus is searched with a comparison that takes overlapping ranges for equal, so ranges must be
 * disjoint: of ours those that touch are one, and where a device of KVM's own is (an interrupt
 * controller, an ioeventfd), none of ours is. That device keeps its addresses, whatever a guest
 * puts there, and ours are cut around it. Nobody tells us of a device that comes later. Until
 * the next commit it may lie in a range of ours, and KVM asks one of the two first, or both in
 * turn: so we look for it (is_taken()) and answer nothing of what is its. Meanwhile what lies
 * beside it in the same range may not be found, and leaves to the VMM. The next commit, of
 * whatever it is, cuts anew; as it fills what a device has left.
 *
 * KVM has room for NR_IOBUS_DEVS devices, without its ioeventfds, which file descriptors limit.
 * Ours are limited as well, to GPAMAP_MAX_BUS_RANGES and one more for each place where they are
 * cut, so they are counted among those: else a guest that moves things could make KVM refuse a
 * device to the VMM.
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
	struct gpamap_extents *placed;	/* what the bus is to ask us; NULL for nothing */
	/* Of KVM's SRCU, when nobody was in our ranges; else NOT_ALONE. */
	unsigned long alone;
	const struct kvm_io_bus *retired;	/* that had it, and may be read still */
	struct gpamap_hint *hints;	/* NR_HINTS, by id of the vCPU */
};

/* SRCU has no such state. */
#define NOT_ALONE 1UL

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

static struct gpamap_extent range_extent(const struct kvm_io_range *range)
{
	/* A device without a length is asked about its address. */
	return (struct gpamap_extent){ range->addr, range->addr + max(range->len, 1) - 1 };
}

/* Looks through the whole bus. Notes it if no range of ours meets another's. */
static noinline bool search_taken(struct gpamap_bus_device *device, struct kvm *kvm, gpa_t addr,
				  unsigned long state)
{
	const struct kvm_io_bus *bus = srcu_dereference(kvm->buses[bus_idx[device->bus]],
							&kvm->srcu);
	u64 last[2] = { 0, 0 };		/* so far: of others' ranges, of ours */
	bool met[2] = { false, false }, alone = true;
	u32 i;

	for (i = 0; bus && i < bus->dev_count; i++) {
		struct gpamap_extent extent = range_extent(&bus->range[i]);
		bool ours = bus->range[i].dev == &device->dev;

		if (!ours && extent.start <= addr && extent.last >= addr)
			return true;
		/* Of two that meet the later is never wholly behind the other. */
		if (met[!ours] && extent.start <= last[!ours])
			alone = false;
		last[ours] = max(last[ours], extent.last);
		met[ours] = true;
	}
	if (alone)
		WRITE_ONCE(device->alone, state);
	return false;
}

/*
 * Whether the address is that of a device of KVM's that has come since the ranges were cut. KVM
 * waits for its SRCU when a bus has changed, and so its state tells whether one has.
 */
static bool is_taken(struct gpamap_bus_device *device, struct kvm *kvm, gpa_t addr)
{
	unsigned long state = get_state_synchronize_srcu(&kvm->srcu);

	return READ_ONCE(device->alone) != state && search_taken(device, kvm, addr, state);
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

	if (unlikely(is_taken(device, vcpu->kvm, addr)))
		return -EOPNOTSUPP;
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

/* KVM gives a bus up when it has no memory to change it: then there is none. */
static struct kvm_io_bus *find_bus(struct kvm *kvm, const struct gpamap_bus_device *device)
{
	return srcu_dereference_check(kvm->buses[bus_idx[device->bus]], &kvm->srcu,
				      lockdep_is_held(&kvm->slots_lock));
}

/* What others have on a bus, for which there is room. */
static void list_others(const struct kvm_io_bus *bus, const struct gpamap_bus_device *device,
			struct gpamap_extents *others)
{
	u32 i;

	others->nr = 0;
	for (i = 0; i < bus->dev_count; i++)
		if (bus->range[i].dev != &device->dev)
			others->extents[others->nr++] = range_extent(&bus->range[i]);
	gpamap_extents_sort(others);
}

/* So many devices others may place while a change is on its way, without it wanting memory. */
#define MORE_OTHERS 16

/* The same at any time; NULL if there is no memory. Of a bus that is no more there is nothing. */
static struct gpamap_extents *read_others(struct kvm *kvm, const struct gpamap_bus_device *device)
{
	const struct kvm_io_bus *bus;
	struct gpamap_extents *others = NULL;
	u32 max = 0, more = MORE_OTHERS;
	bool fits;
	int idx;

	do {
		if (max) {
			kvfree(others);
			others = gpamap_extents_alloc(max);
			if (!others)
				return NULL;
		}
		idx = srcu_read_lock(&kvm->srcu);
		bus = find_bus(kvm, device);
		fits = others && (!bus || bus->dev_count <= max);
		if (bus && fits)
			list_others(bus, device, others);
		max = (bus ? bus->dev_count : 0) + more;
		srcu_read_unlock(&kvm->srcu, idx);
		more *= 2;
	} while (!fits);
	return others;
}

static struct gpamap_cut begin_cut(const struct gpamap_extents *list,
				   const struct gpamap_extents *others)
{
	return (struct gpamap_cut){ .list = list, .others = others, .max_len = MAX_RANGE_LEN };
}

static u32 count_pieces(const struct gpamap_extents *list, const struct gpamap_extents *others)
{
	struct gpamap_cut cut = begin_cut(list, others);
	struct gpamap_extent piece;
	u32 nr = 0;

	while (gpamap_cut_next(&cut, &piece))
		nr++;
	return nr;
}

static u32 count_ours(const struct kvm_io_bus *bus, const struct gpamap_bus_device *device)
{
	u32 i, nr = 0;

	for (i = 0; i < bus->dev_count; i++)
		nr += bus->range[i].dev == &device->dev;
	return nr;
}

static bool list_equal(const struct gpamap_extents *a, const struct gpamap_extents *b)
{
	u32 nr_a = a ? a->nr : 0, nr_b = b ? b->nr : 0;

	return nr_a == nr_b &&
	       (!nr_a || !memcmp(a->extents, b->extents, nr_a * sizeof(*a->extents)));
}

/* Whether a bus has just what it should. */
static bool bus_has(struct kvm *kvm, const struct gpamap_bus_device *device,
		    const struct gpamap_extents *list, const struct gpamap_extents *others)
{
	struct gpamap_cut cut = begin_cut(list, others);
	const struct kvm_io_bus *bus;
	struct gpamap_extent piece;
	bool same;
	u32 i;
	int idx;

	if (!list_equal(list, device->placed))
		return false;
	idx = srcu_read_lock(&kvm->srcu);
	bus = find_bus(kvm, device);
	same = bus;
	for (i = 0; same && i < bus->dev_count; i++) {
		struct gpamap_extent extent = range_extent(&bus->range[i]);

		if (bus->range[i].dev == &device->dev)
			same = gpamap_cut_next(&cut, &piece) && piece.start == extent.start &&
			       piece.last == extent.last;
	}
	same = same && !gpamap_cut_next(&cut, &piece);
	srcu_read_unlock(&kvm->srcu, idx);
	return same;
}

static void bus_fill(struct kvm_io_bus *bus, const struct kvm_io_bus *old,
		     struct gpamap_bus_device *device, const struct gpamap_extents *list,
		     const struct gpamap_extents *others)
{
	struct gpamap_cut cut = begin_cut(list, others);
	struct gpamap_extent piece;
	u32 nr = 0, nr_ours = 0, i = 0;
	bool more;

	do {
		more = gpamap_cut_next(&cut, &piece);
		for (; i < old->dev_count && (!more || old->range[i].addr < piece.start); i++)
			if (old->range[i].dev != &device->dev)
				bus->range[nr++] = old->range[i];
		if (!more)
			break;
		bus->range[nr++] = (struct kvm_io_range){
			.addr = piece.start,
			.len = piece.last - piece.start + 1,
			.dev = &device->dev,
		};
		nr_ours++;
	} while (more);
	bus->dev_count = nr;
	bus->ioeventfd_count = old->ioeventfd_count - count_ours(old, device) + nr_ours;
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
		vm_device(vm, bus)->alone = NOT_ALONE;
		vm_device(vm, bus)->hints = kcalloc(NR_HINTS, sizeof(struct gpamap_hint),
						    GPAMAP_GFP);
		if (!vm_device(vm, bus)->hints)
			return -ENOMEM;
	}
	return 0;
}

/* What KVM is to ask on a bus, where it has no device of its own; NULL for nothing. */
const struct gpamap_extents *gpamap_vm_bus_placed(const struct gpamap_vm *vm, u32 bus)
{
	return vm->bus_devices[bus].placed;
}

bool gpamap_vm_bus_is_used(const struct gpamap_vm *vm, u32 bus)
{
	const struct gpamap_extents *placed = gpamap_vm_bus_placed(vm, bus);

	return placed && placed->nr;
}

static bool is_too_long(const struct gpamap_extents *list)
{
	u64 len, left = GPAMAP_MAX_BUS_LEN;
	u32 i;

	for (i = 0; list && i < list->nr; i++) {
		len = list->extents[i].last - list->extents[i].start;
		if (len >= left)
			return true;
		left -= len + 1;
	}
	return false;
}

/**
 * gpamap_vm_bus_plan() - Find out how one bus has to change
 * @vm: The VM
 * @change: If it has to: is added to, has @list then
 * @bus: The bus, enum gpamap_bus
 * @list: What KVM is to ask us of, NULL for nothing; is joined where it is too much
 *
 * Where devices of KVM's own are does not matter: they keep their places.
 *
 * Return: 0; -ENOSPC when the list is longer than GPAMAP_MAX_BUS_LEN in all; -ENOMEM.
 */
int gpamap_vm_bus_plan(struct gpamap_vm *vm, struct gpamap_bus_change *change, u32 bus,
		       struct gpamap_extents *list)
{
	struct gpamap_bus_device *device = vm_device(vm, bus);
	struct gpamap_bus_room *room = &change->room[bus];
	struct kvm *kvm = gpamap_vm_kvm(vm);
	struct gpamap_extents *others;
	int rc = 0;

	if (is_too_long(list))
		return -ENOSPC;
	others = read_others(kvm, device);
	if (!others)
		return -ENOMEM;
	if (list)
		rc = gpamap_extents_join(list, others, GPAMAP_MAX_BUS_RANGES);
	if (rc || bus_has(kvm, device, list, others))
		goto out_free;
	room->max = others->max + count_pieces(list, others) + MORE_OTHERS;
	room->bus = kmalloc(struct_size((struct kvm_io_bus *)NULL, range, room->max), GPAMAP_GFP);
	if (!room->bus) {
		rc = -ENOMEM;
		goto out_free;
	}
	change->buses |= BIT(bus);
	change->lists[bus] = list;
	room->others = others;
	return 0;

out_free:
	kvfree(others);
	return rc;
}

/* For a change that is to leave the answers as they are: others may have come and gone. */
int gpamap_vm_bus_plan_again(struct gpamap_vm *vm, struct gpamap_bus_change *change)
{
	struct gpamap_extents *list;
	u32 bus;
	int rc = 0;

	for (bus = 0; !rc && bus < GPAMAP_NR_BUSES; bus++) {
		const struct gpamap_extents *placed = vm_device(vm, bus)->placed;

		if (!gpamap_vm_bus_is_used(vm, bus))
			continue;
		list = gpamap_extents_alloc(placed->nr);
		if (!list)
			return -ENOMEM;
		list->nr = placed->nr;
		memcpy(list->extents, placed->extents, placed->nr * sizeof(*list->extents));
		rc = gpamap_vm_bus_plan(vm, change, bus, list);
		if (rc || !(change->buses & BIT(bus)))
			kvfree(list);
	}
	return rc;
}

/* Frees what a change has left, done or not. */
void gpamap_vm_bus_free(struct gpamap_bus_change *change)
{
	u32 bus;

	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++) {
		kvfree(change->lists[bus]);
		kvfree(change->room[bus].others);
		kfree(change->room[bus].bus);
	}
	memset(change, 0, sizeof(*change));
}

/*
 * A bus as it is to be, in @room or in memory of its own if others have become too many for
 * that, and in @old the one that it replaces. NULL if KVM has given the bus up: then it has
 * waited for all who were asking us.
 */
static struct kvm_io_bus *bus_make(struct kvm *kvm, struct gpamap_bus_device *device,
				   const struct gpamap_extents *list,
				   struct gpamap_bus_room *room, const struct kvm_io_bus **old)
{
	struct kvm_io_bus *new = room->bus;
	u32 max;

	*old = find_bus(kvm, device);
	if (!*old)
		return list && list->nr ? ERR_PTR(-ENOMEM) : NULL;
	if (!room->others || room->others->max < (*old)->dev_count) {
		kvfree(room->others);
		room->others = gpamap_extents_alloc((*old)->dev_count);
		if (!room->others)
			return ERR_PTR(-ENOMEM);
	}
	list_others(*old, device, room->others);
	max = (*old)->dev_count + count_pieces(list, room->others);
	if (!new || max > room->max)
		new = kmalloc(struct_size(new, range, max), GPAMAP_GFP);
	if (!new)
		return ERR_PTR(-ENOMEM);
	memset(new, 0, sizeof(*new));
	bus_fill(new, *old, device, list, room->others);
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
	const struct kvm_io_bus *old[GPAMAP_NR_BUSES];
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
				    &change->room[bus], &old[bus]);
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
			kfree(old[bus]);
	mutex_unlock(&kvm->slots_lock);
	return rc;
}

static u32 view_bus(enum gpamap_bus_view view)
{
	return view == GPAMAP_VIEW_PORTS ? GPAMAP_BUS_PORTS : GPAMAP_BUS_MEMORY;
}

/* Where devices of KVM's own are among what a view shows. NULL if there is no memory. */
struct gpamap_extents *gpamap_vm_bus_others(struct gpamap_vm *vm, enum gpamap_bus_view view)
{
	return read_others(gpamap_vm_kvm(vm), vm_device(vm, view_bus(view)));
}

/* Whether one is in a stretch. The VM is not under the lock of its map here, but under RCU. */
bool gpamap_vm_bus_meets_others(struct gpamap_vm *vm, enum gpamap_bus_view view, u64 start,
				u64 last)
{
	const struct gpamap_bus_device *device = vm_device(vm, view_bus(view));
	struct kvm *kvm = gpamap_vm_kvm(vm);
	const struct kvm_io_bus *bus;
	bool meets = false;
	u32 i;
	int idx;

	idx = srcu_read_lock(&kvm->srcu);
	bus = find_bus(kvm, device);
	for (i = 0; bus && !meets && i < bus->dev_count; i++) {
		struct gpamap_extent extent = range_extent(&bus->range[i]);

		meets = bus->range[i].dev != &device->dev && extent.start <= last &&
			extent.last >= start;
	}
	srcu_read_unlock(&kvm->srcu, idx);
	return meets;
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

/* False if it has to be tried again. */
static bool bus_leave(struct gpamap_vm *vm, struct kvm *kvm, u32 bus)
{
	struct gpamap_bus_device *device = vm_device(vm, bus);
	struct gpamap_bus_room room = { NULL };
	const struct kvm_io_bus *old;
	struct kvm_io_bus *new;

	if (!gpamap_vm_bus_is_used(vm, bus))
		return true;
	new = bus_make(kvm, device, NULL, &room, &old);
	kvfree(room.others);
	if (IS_ERR(new))
		return false;
	if (new) {
		rcu_assign_pointer(kvm->buses[bus_idx[device->bus]], new);
		device->retired = old;
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
		done &= bus_leave(vm, kvm, bus);
	mutex_unlock(&kvm->slots_lock);
	return done;
}

static bool anything_placed(struct gpamap_vm *vm)
{
	u32 bus;

	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++)
		if (gpamap_vm_bus_is_used(vm, bus))
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
