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
 * turn: so we look for it (ask_others()), and have it answer what is its. Meanwhile what lies
 * beside it in the same range may not be found, and leaves to the VMM. The next commit, of
 * whatever it is, cuts anew; as it fills what a device has left.
 *
 * KVM has room for NR_IOBUS_DEVS devices, without its ioeventfds, which file descriptors limit.
 * Ours are counted among those, for they depend on where a guest puts things: it could else make
 * KVM refuse a device to the VMM. Where there are more than GPAMAP_MAX_BUS_RANGES they are joined.
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
	/* When nobody was in our ranges: is_alone(). */
	struct {
		unsigned long state;	/* of KVM's SRCU, or NOT_ALONE */
		const struct kvm_io_bus *buses[2];
	} alone;
	spinlock_t alone_lock;		/* of who notes it; only tried */
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

static bool is_ours(const struct gpamap_bus_device *device, const struct kvm_io_device *dev)
{
	const struct gpamap_bus_device *first = device - device->bus;
	u32 bus;

	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++)
		if (dev == &first[bus].dev)
			return true;
	return false;
}

/*
 * On the fast bus accesses have no length, so that KVM takes the end of a range, which is behind
 * it, for a part of it: there ours end one byte sooner. A device without a length is asked about
 * its address.
 */
static struct gpamap_extent range_extent(const struct gpamap_bus_device *device,
					 const struct kvm_io_range *range)
{
	u64 len = max(range->len, 1);

	if (device->bus == GPAMAP_BUS_FAST && range->dev == &device->dev)
		len = range->len + 1ULL;
	return (struct gpamap_extent){ range->addr, gpamap_add_saturated(range->addr, len - 1) };
}

/* KVM gives a bus up when it has no memory to change it: then there is none. */
static struct kvm_io_bus *find_bus(struct kvm *kvm, u32 bus)
{
	return srcu_dereference_check(kvm->buses[bus_idx[bus]], &kvm->srcu,
				      lockdep_is_held(&kvm->slots_lock));
}

/*
 * Whose devices keep their addresses from one of ours: those on its bus; from that on the fast bus
 * those on the memory bus, too, which KVM asks only when the fast bus has no answer.
 */
static u32 others_buses(const struct gpamap_bus_device *device)
{
	return BIT(device->bus) |
	       (device->bus == GPAMAP_BUS_FAST ? BIT(GPAMAP_BUS_MEMORY) : 0);
}

/* Whether nobody is in ranges of ours, as was noted when the buses were these, at that state. */
static bool is_alone(const struct gpamap_bus_device *device, const struct kvm_io_bus *const *buses,
		     unsigned long state)
{
	unsigned long before = READ_ONCE(device->alone.state);
	bool same;

	/* Pairs with note_alone(): what is between belongs to both. */
	smp_rmb();
	same = READ_ONCE(device->alone.buses[0]) == buses[0] &&
	       READ_ONCE(device->alone.buses[1]) == buses[1];
	/* Likewise: it is still what it was before. */
	smp_rmb();
	return same && before == state && READ_ONCE(device->alone.state) == state;
}

static void note_alone(struct gpamap_bus_device *device, const struct kvm_io_bus *const *buses,
		       unsigned long state)
{
	if (!spin_trylock(&device->alone_lock))
		return;
	WRITE_ONCE(device->alone.state, NOT_ALONE);
	/* Pairs with is_alone(). */
	smp_wmb();
	WRITE_ONCE(device->alone.buses[0], buses[0]);
	WRITE_ONCE(device->alone.buses[1], buses[1]);
	/* Likewise. */
	smp_wmb();
	WRITE_ONCE(device->alone.state, state);
	spin_unlock(&device->alone_lock);
}

/* An access, or its place. */
struct asked {
	gpa_t addr;
	int len;
	void *val;
	bool write;
};

/* Whether KVM would ask the device of a range. */
static bool is_for_range(const struct asked *a, const struct kvm_io_range *range)
{
	if (!range->len)
		return a->addr == range->addr;
	return a->addr >= range->addr && a->addr + a->len <= range->addr + range->len;
}

static int ask_device(struct kvm_vcpu *vcpu, struct kvm_io_device *dev, const struct asked *a)
{
	if (a->write)
		return kvm_iodevice_write(vcpu, dev, a->addr, a->len, a->val);
	return kvm_iodevice_read(vcpu, dev, a->addr, a->len, a->val);
}

/*
 * Looks through a whole bus for who has come since the ranges were cut: 1 if nobody has any of what
 * is asked about, and else what they answer, as KVM's own search may not find them where a range
 * of ours is. Says in @alone that no range of ours meets another's.
 */
static int search_bus(struct gpamap_bus_device *device, struct kvm_vcpu *vcpu,
		      const struct kvm_io_bus *bus, const struct asked *a, bool *alone)
{
	u64 end = a->addr + max(a->len, 1) - 1;
	u64 last[2] = { 0, 0 };		/* so far: of others' ranges, of ours */
	bool met[2] = { false, false }, taken = false;
	u32 i;

	for (i = 0; i < bus->dev_count; i++) {
		const struct kvm_io_range *range = &bus->range[i];
		struct gpamap_extent extent = range_extent(device, range);
		bool ours = is_ours(device, range->dev);

		if (!ours && extent.start <= end && extent.last >= a->addr) {
			taken = true;
			/* About the fast bus they are asked when it has no answer. */
			if (device->bus != GPAMAP_BUS_FAST && is_for_range(a, range) &&
			    !ask_device(vcpu, range->dev, a))
				return 0;
		}
		/* Of two that meet the later is never wholly behind the other. */
		if (met[!ours] && extent.start <= last[!ours])
			*alone = false;
		last[ours] = max(last[ours], extent.last);
		met[ours] = true;
	}
	return taken ? -EOPNOTSUPP : 1;
}

/* The same about a place on the fast bus, for those on the memory bus. */
static int search_memory_bus(const struct gpamap_bus_device *device,
			     const struct kvm_io_bus *fast, const struct kvm_io_bus *bus,
			     const struct asked *a, bool *alone)
{
	u32 i, j;

	for (i = 0; i < bus->dev_count; i++) {
		struct gpamap_extent extent = range_extent(device, &bus->range[i]);

		if (is_ours(device, bus->range[i].dev) ||
		    !gpamap_extents_meet(device->placed, extent.start, extent.last))
			continue;
		if (extent.start <= a->addr && extent.last >= a->addr)
			return -EOPNOTSUPP;
		for (j = 0; j < fast->dev_count; j++) {
			struct gpamap_extent ours = range_extent(device, &fast->range[j]);

			if (fast->range[j].dev == &device->dev && ours.start <= extent.last &&
			    ours.last >= extent.start)
				*alone = false;
		}
	}
	return 1;
}

/*
 * 1 if what is asked about is ours; else what devices of KVM's answer that have come since the
 * ranges were cut. KVM frees a bus that it has replaced after all who were reading it have left,
 * and the state of its SRCU is another then: so the same bus at the same state is the bus that
 * it was.
 */
static int ask_others(struct gpamap_bus_device *device, struct kvm_vcpu *vcpu,
		      const struct asked *a)
{
	unsigned long state = get_state_synchronize_srcu(&vcpu->kvm->srcu);
	const struct kvm_io_bus *buses[2] = { find_bus(vcpu->kvm, device->bus), NULL };
	bool alone = true;
	int rc;

	if (device->bus == GPAMAP_BUS_FAST)
		buses[1] = find_bus(vcpu->kvm, GPAMAP_BUS_MEMORY);
	if (likely(is_alone(device, buses, state)))
		return 1;
	rc = search_bus(device, vcpu, buses[0], a, &alone);
	if (rc > 0 && buses[1])
		rc = search_memory_bus(device, buses[0], buses[1], a, &alone);
	if (rc > 0 && alone)
		note_alone(device, buses, state);
	return rc;
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

	int rc = ask_others(device, vcpu, &(struct asked){ addr, len, val, write });

	if (unlikely(rc <= 0))
		return rc;
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

static u32 count_others(const struct kvm_io_bus *bus, const struct gpamap_bus_device *device)
{
	u32 i, nr = 0;

	for (i = 0; bus && i < bus->dev_count; i++)
		nr += !is_ours(device, bus->range[i].dev);
	return nr;
}

/* How many others there are where one of ours is. */
static u32 nr_others(struct kvm *kvm, const struct gpamap_bus_device *device)
{
	u32 bus, nr = 0;

	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++)
		if (others_buses(device) & BIT(bus))
			nr += count_others(find_bus(kvm, bus), device);
	return nr;
}

/* Where they are; there is room for all. */
static void list_others(struct kvm *kvm, const struct gpamap_bus_device *device,
			struct gpamap_extents *others)
{
	const struct kvm_io_bus *from;
	u32 bus, i;

	others->nr = 0;
	for (bus = 0; bus < GPAMAP_NR_BUSES; bus++) {
		from = others_buses(device) & BIT(bus) ? find_bus(kvm, bus) : NULL;
		for (i = 0; from && i < from->dev_count; i++)
			if (!is_ours(device, from->range[i].dev))
				others->extents[others->nr++] =
					range_extent(device, &from->range[i]);
	}
	gpamap_extents_sort(others);
}

/* So many devices others may place while a change is on its way, without it wanting memory. */
#define MORE_OTHERS 16

/* The same at any time; NULL if there is no memory. Of a bus that is no more there is nothing. */
static struct gpamap_extents *read_others(struct kvm *kvm, const struct gpamap_bus_device *device)
{
	struct gpamap_extents *others = NULL;
	u32 nr, more = MORE_OTHERS;
	bool fits;
	int idx;

	idx = srcu_read_lock(&kvm->srcu);
	nr = nr_others(kvm, device);
	srcu_read_unlock(&kvm->srcu, idx);
	do {
		kvfree(others);
		others = gpamap_extents_alloc(nr + more);
		if (!others)
			return NULL;
		idx = srcu_read_lock(&kvm->srcu);
		nr = nr_others(kvm, device);
		fits = nr <= others->max;
		if (fits)
			list_others(kvm, device, others);
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
	bool same = true;
	u32 i;
	int idx;

	if (!list_equal(list, device->placed))
		return false;
	idx = srcu_read_lock(&kvm->srcu);
	bus = find_bus(kvm, device->bus);
	for (i = 0; bus && same && i < bus->dev_count; i++) {
		struct gpamap_extent extent = range_extent(device, &bus->range[i]);

		if (bus->range[i].dev == &device->dev)
			same = gpamap_cut_next(&cut, &piece) && piece.start == extent.start &&
			       piece.last == extent.last;
	}
	/* Of a bus that KVM has given up nothing can be had. */
	same = !bus || (same && !gpamap_cut_next(&cut, &piece));
	srcu_read_unlock(&kvm->srcu, idx);
	return same;
}

static void bus_fill(struct kvm_io_bus *bus, const struct kvm_io_bus *old,
		     struct gpamap_bus_device *device, const struct gpamap_extents *list,
		     const struct gpamap_extents *others)
{
	struct gpamap_cut cut = begin_cut(list, others);
	struct gpamap_extent piece;
	u32 nr = 0, i = 0;
	bool more;

	do {
		more = gpamap_cut_next(&cut, &piece);
		for (; i < old->dev_count && (!more || old->range[i].addr < piece.start); i++)
			if (old->range[i].dev != &device->dev)
				bus->range[nr++] = old->range[i];
		if (more)
			bus->range[nr++] = (struct kvm_io_range){
				.addr = piece.start,
				.len = piece.last - piece.start +
				       (device->bus != GPAMAP_BUS_FAST),
				.dev = &device->dev,
			};
	} while (more);
	bus->dev_count = nr;
	/* Ours are counted there, and only they are more or fewer. */
	bus->ioeventfd_count = old->ioeventfd_count + nr - old->dev_count;
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
		vm_device(vm, bus)->alone.state = NOT_ALONE;
		spin_lock_init(&vm_device(vm, bus)->alone_lock);
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
		/* A longer gap takes as many ranges as are saved. */
		rc = gpamap_extents_join(list, others, GPAMAP_MAX_BUS_RANGES,
					 MAX_RANGE_LEN - 1);
	if (rc || bus_has(kvm, device, list, others))
		goto out_free;
	/* Each that comes meanwhile can cut one of ours in two. */
	room->max = others->nr + count_pieces(list, others) + 2 * MORE_OTHERS;
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
	struct gpamap_extents *list, *others;
	struct kvm *kvm = gpamap_vm_kvm(vm);
	bool same;
	u32 bus;
	int rc = 0;

	for (bus = 0; !rc && bus < GPAMAP_NR_BUSES; bus++) {
		const struct gpamap_extents *placed = vm_device(vm, bus)->placed;

		if (!gpamap_vm_bus_is_used(vm, bus))
			continue;
		others = read_others(kvm, vm_device(vm, bus));
		if (!others)
			return -ENOMEM;
		same = bus_has(kvm, vm_device(vm, bus), placed, others);
		kvfree(others);
		if (same)
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
 * that, and in @old the one that it replaces. NULL if KVM has given the bus up: nobody is asked
 * any more, and it has waited for all who were asking us.
 */
static struct kvm_io_bus *bus_make(struct kvm *kvm, struct gpamap_bus_device *device,
				   const struct gpamap_extents *list,
				   struct gpamap_bus_room *room, const struct kvm_io_bus **old)
{
	struct kvm_io_bus *new = room->bus;
	u32 nr, max;

	*old = find_bus(kvm, device->bus);
	if (!*old)
		return NULL;
	nr = nr_others(kvm, device);
	if (!room->others || room->others->max < nr) {
		kvfree(room->others);
		room->others = gpamap_extents_alloc(nr);
		if (!room->others)
			return ERR_PTR(-ENOMEM);
	}
	list_others(kvm, device, room->others);
	max = count_others(*old, device) + count_pieces(list, room->others);
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

/*
 * Whether one is in a stretch: 0 or 1. The VM is not under the lock of its map here, but under
 * RCU, so that vCPUs of it may be about to be held. Then nobody should come into KVM's SRCU:
 * -EBUSY.
 */
int gpamap_vm_bus_meets_others(struct gpamap_vm *vm, enum gpamap_bus_view view, u64 start,
			       u64 last)
{
	const struct gpamap_bus_device *device = vm_device(vm, view_bus(view));
	struct kvm *kvm = gpamap_vm_kvm(vm);
	const struct kvm_io_bus *bus;
	bool meets = false;
	u32 i;
	int idx;

	if (READ_ONCE(vm->holding))
		return -EBUSY;
	idx = srcu_read_lock(&kvm->srcu);
	bus = find_bus(kvm, device->bus);
	for (i = 0; bus && !meets && i < bus->dev_count; i++) {
		struct gpamap_extent extent = range_extent(device, &bus->range[i]);

		meets = !is_ours(device, bus->range[i].dev) && extent.start <= last &&
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
