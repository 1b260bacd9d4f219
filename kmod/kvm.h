/* SPDX-License-Identifier: GPL-2.0 */
/*
 * KVM, as the rest of the module sees it: an attached VM with its memslots (kvm_vm.c), its
 * vCPUs that can be held (kvm_hold.c) and its I/O buses (kvm_bus.c). Nothing here knows of
 * maps or of what is tied to regions: what a vCPU's access is for is asked of who attached
 * the VM, by the functions that it has handed down (struct gpamap_vm_ops).
 *
 * Whatever waits does so until a deadline, in jiffies, and no longer than the caller lives:
 * then it says EBUSY or EINTR and has changed nothing. For KVM's SRCU is only waited while all
 * vCPUs are held, who are then outside of it, and when the others who were inside have left it.
 *
 * A struct gpamap_vm is under the lock of the map that has it.
 */
#ifndef GPAMAP_KVM_H
#define GPAMAP_KVM_H

#include <linux/fs.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include "core.h"

/* KVM address spaces that a VM can have: the normal one, and SMM's. */
#define GPAMAP_NR_AS 2

struct gpamap_bus_device;
struct hold;
struct kvm;
struct kvm_vcpu;

/* KVM's I/O buses. */
enum gpamap_bus {
	GPAMAP_BUS_MEMORY,
	GPAMAP_BUS_PORTS,
	GPAMAP_BUS_FAST,		/* asked about writes of which KVM knows no length yet */
	GPAMAP_NR_BUSES,
};

/* The views that decide what an access on a bus is for. */
enum gpamap_bus_view {
	GPAMAP_VIEW_MEMORY,		/* KVM address space 0 */
	GPAMAP_VIEW_SMM,		/* and 1 */
	GPAMAP_VIEW_PORTS,
	GPAMAP_NR_BUS_VIEWS,
};

/* Memory for KVM's array of the ranges of a bus. */
struct gpamap_bus_room {
	void *bus;
	u32 max;			/* of so many ranges */
	struct gpamap_extents *others;	/* and for what KVM's own devices have there */
};

/* From the stretches that the buses have to others. All zero: nothing changes. */
struct gpamap_bus_change {
	u32 buses;			/* that change, a bit for each */
	/* What they are to have; once done, what they had. NULL for nothing. */
	struct gpamap_extents *lists[GPAMAP_NR_BUSES];
	struct gpamap_bus_room room[GPAMAP_NR_BUSES];
};

/* What a vCPU found last on a bus: dispatch.c's, in the vCPU's thread. */
struct gpamap_hint {
	u64 generation;			/* 0: nothing; else in which the range is */
	const struct gpamap_range *range;
	enum gpamap_bus_view view;
} ____cacheline_aligned_in_smp;

/* An access of a guest's that meets no memslot. */
struct gpamap_access {
	struct gpamap_hint *hint;	/* may be NULL */
	u64 addr;
	void *val;			/* a write only reads it */
	const struct kvm_vcpu *vcpu;
	enum gpamap_bus_view view;
	u32 len;
	bool write;
};

/* What answers it, for traces. */
enum gpamap_answer {
	GPAMAP_ANSWER_EXIT,		/* nothing: it leaves to the VMM */
	GPAMAP_ANSWER_LATER,		/* nothing yet; never traced */
	GPAMAP_ANSWER_REGISTER,
	GPAMAP_ANSWER_DOORBELL,
	GPAMAP_ANSWER_POSTED,
	GPAMAP_ANSWER_HANDLER,
	GPAMAP_ANSWER_MEMORY,
	GPAMAP_ANSWER_POLICY,
};

/* Handed down by who attaches a VM. */
struct gpamap_vm_ops {
	/* Whether an access is done; else it leaves to the VMM. In the vCPU's thread; may sleep. */
	bool (*access)(void *owner, const struct gpamap_access *access);
};

struct gpamap_vm {
	/* Fixed at creation. */
	const struct gpamap_vm_ops *ops;
	u32 number;			/* of the map, for traces */
	struct file *file;		/* a reference on the VM */
	struct mm_struct *mm;		/* of its process; held by mmgrab() */
	u32 first_slot;
	u32 nr_slots;
	u32 nr_as;			/* KVM_CAP_MULTI_ADDRESS_SPACE */
	u64 nr_gfns;			/* that a vCPU can address */
	bool readonly_mem;		/* KVM_CAP_READONLY_MEM */
	struct hold *hold;
	struct gpamap_bus_device *bus_devices;	/* GPAMAP_NR_BUSES */

	bool no_moves;			/* KVM moves no slots of this VM */
	u64 held_since;			/* ns: when the hold began */
	bool holding;			/* vCPUs are held, or are to be; read without the lock */

	/* Ids in use, nr_slots bits for every address space; memslot.c's. */
	unsigned long *ids[GPAMAP_NR_AS];

	/* The argument page. */
	struct file *scratch;
	struct page *page;
	unsigned long uaddr;		/* where it is mapped; 0 if it is not */

	/* The end: what gpamap_vm_bus_leave() has done so far. */
	bool left;
	unsigned long grace;		/* of KVM's SRCU */

	/* Under gpamap_vms_lock. */
	struct list_head link;		/* in gpamap_vms */
	bool closing;			/* its map is closed */
};

/* kvm_vm.c */
int __must_check gpamap_vm_get(int fd, u32 first_slot, u32 nr_slots,
			       const struct gpamap_vm_ops *ops, void *owner, u32 number,
			       unsigned long deadline, struct gpamap_vm **out);
struct kvm *gpamap_vm_kvm(const struct gpamap_vm *vm);
void gpamap_vm_put(struct gpamap_vm *vm);
void gpamap_vm_close(struct gpamap_vm *vm);
bool gpamap_vm_closed(struct gpamap_vm *vm);
int __must_check gpamap_vm_ready_slots(struct gpamap_vm *vm, unsigned long deadline);
int __must_check gpamap_vm_check_owner(const struct gpamap_vm *vm);
int __must_check gpamap_vm_check_slot(const struct gpamap_vm *vm,
				      const struct gpamap_slot *slot);
int __must_check gpamap_vm_create_slot(struct gpamap_vm *vm,
				       const struct gpamap_slot *slot);
int __must_check gpamap_vm_delete_slot(struct gpamap_vm *vm,
				       const struct gpamap_slot *slot);
int __must_check gpamap_vm_move_slot(struct gpamap_vm *vm,
				     const struct gpamap_slot *slot);

/* kvm_hold.c */
unsigned long gpamap_deadline(u32 timeout_ms);
long gpamap_time_left(unsigned long deadline);
int __must_check gpamap_lock_within(struct mutex *lock, unsigned long deadline);
int __must_check gpamap_hold_init(struct gpamap_vm *vm);
void gpamap_hold_exit(struct gpamap_vm *vm);
bool gpamap_vm_has_vcpus(const struct gpamap_vm *vm);
int __must_check gpamap_vm_hold(struct gpamap_vm *vm, unsigned long deadline,
				bool kvm_waits);
void gpamap_vm_release(struct gpamap_vm *vm);
void gpamap_hold_stop(void);

/* kvm_bus.c */
int __must_check gpamap_vm_bus_init(struct gpamap_vm *vm, void *owner);
void gpamap_vm_bus_exit(struct gpamap_vm *vm);
void gpamap_vm_bus_mute(struct gpamap_vm *vm);
u32 gpamap_access_vcpu_id(const struct gpamap_access *access);
bool gpamap_access_may_leave(const struct gpamap_access *access);
bool gpamap_vm_bus_leave(struct gpamap_vm *vm);
const struct gpamap_extents *gpamap_vm_bus_placed(const struct gpamap_vm *vm, u32 bus);
bool gpamap_vm_bus_is_used(const struct gpamap_vm *vm, u32 bus);
int __must_check gpamap_vm_bus_plan(struct gpamap_vm *vm, struct gpamap_bus_change *change,
				    u32 bus, struct gpamap_extents *list);
int __must_check gpamap_vm_bus_plan_again(struct gpamap_vm *vm,
					  struct gpamap_bus_change *change);
int __must_check gpamap_vm_bus_apply(struct gpamap_vm *vm, struct gpamap_bus_change *change,
				     const unsigned long *deadline);
void gpamap_vm_bus_free(struct gpamap_bus_change *change);
struct gpamap_extents *gpamap_vm_bus_others(struct gpamap_vm *vm, enum gpamap_bus_view view);
int gpamap_vm_bus_meets_others(struct gpamap_vm *vm, enum gpamap_bus_view view, u64 start,
			       u64 last);

#endif /* GPAMAP_KVM_H */
