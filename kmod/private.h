/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the module share. The pure core has a header of its own,
 * core.h, and knows nothing of this one.
 *
 * Lock order, outermost first:
 *
 *	struct gpamap::lock
 *	    struct gpamap::wait.lock
 *	    gpamap_vms_lock (kvm.c)
 *	    handlers_lock (handler.c)
 *	    kvm->lock (while vCPUs are held; tried with a time limit)
 *		vcpu->mutex (of all vCPUs; only tried)
 *		    struct hold::lock (kvm.c; also taken by callbacks in vCPU threads)
 *	    mmap_lock of the process that owns the VM (mapping the scratch page, user
 *		copies)
 *	    locks that KVM takes in its ioctls (kvm->slots_lock, ...)
 *	    xa_lock of struct gpamap::rings (innermost; also under mmap_lock, by mmap())
 *
 * LOOKUP and poll take no lock but wait.lock; an access of a vCPU's none but, innermost, that
 * of a struct gpamap_ring_buffer. mmap() takes none but the xa_lock, and faults of the
 * argument page take none. debugfs files take struct gpamap::lock, so they are removed while
 * it is not held.
 */
#ifndef GPAMAP_PRIVATE_H
#define GPAMAP_PRIVATE_H

#include <linux/fs.h>
#include <linux/kvm.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/wait.h>
#include "core.h"

/* KVM address spaces that a map can have: the normal one, and SMM's. */
#define GPAMAP_NR_AS 2

struct gpamap_bus_device;
struct gpamap_vm;
struct hold;
struct kvm;

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

struct gpamap_extent {
	u64 start;
	u64 last;
};

/* Stretches of addresses on a bus: disjoint, by address, none touching the next. */
struct gpamap_bus_list {
	u32 nr;
	u32 max;
	struct gpamap_extent extents[];
};

/* What readers without a lock see: the views of one generation. Under RCU. */
struct gpamap_snapshot {
	struct rcu_head rcu;
	u64 generation;
	const struct gpamap_flatview *bus[GPAMAP_NR_BUS_VIEWS];	/* NULL for none */
	u32 bus_space[GPAMAP_NR_BUS_VIEWS];			/* their ids */
	u32 nr;
	struct {
		u32 space;
		const struct gpamap_flatview *view;
	} views[];			/* by id of the space */
};

/* The memslots of an attached VM, as KVM has them. */
struct gpamap_slots {
	struct xarray as[GPAMAP_NR_AS];	/* of struct gpamap_slot, by page number */
	u32 nr;
};

struct gpamap_slot_list {
	struct gpamap_slot **slots;
	u32 nr;
	u32 max;
};

struct gpamap_move {
	struct gpamap_slot *from;	/* entry of struct gpamap_slots */
	struct gpamap_slot *to;		/* the plan's own until committed */
	bool placed;			/* while they are put in order */
};

/* From the slots that KVM has to those that it is to have: deletes, moves, creates. */
struct gpamap_plan {
	struct gpamap_slot_list gone;	/* entries of struct gpamap_slots */
	struct gpamap_move *moves;	/* in the order in which they can be done */
	u32 nr_moves;
	struct gpamap_slot_list come;	/* the plan's own until committed */
	u64 taken;			/* see struct gpamap_apply */
	bool has_ids;			/* ids of gone are free, come have theirs */
};

/* A map: one open file of /dev/gpamap. */
struct gpamap {
	struct mutex lock;		/* of all that follows */

	struct gpamap_tree tree;
	u64 generation;
	u64 seen_generation;		/* what QUERY told last; also read by poll */
	struct gpamap_vm *vm;		/* NULL while detached */
	struct gpamap_slots slots;	/* empty while detached */
	struct gpamap_root *memory[GPAMAP_NR_AS];	/* that the slots follow */
	struct gpamap_root *ports;	/* that the bus follows */
	u32 nr_doorbells;
	u32 nr_rings;
	bool bus_stale;			/* KVM may ask for more than it has to */
	bool broken;			/* a roll-back failed: slots and view disagree */
	struct gpamap_stats stats;

	struct xarray rings;		/* by id; also looked up by mmap(), under its lock */

	/* RCU; written under the lock. NULL before the first commit. */
	struct gpamap_snapshot __rcu *snapshot;

	/* Set once, by cmpxchg(); freed with the map. Of struct gpamap_exit. */
	struct page *exits[GPAMAP_MAX_EXIT_PAGES];

	wait_queue_head_t wait;		/* for a new generation; own lock */
	u32 number;			/* fixed at creation, as what follows */
	struct dentry *debugfs;
};

/* map.c: what the ioctls that change a map do. */
int gpamap_attach(struct gpamap *map, void *arg);
int gpamap_detach(struct gpamap *map, void *arg);
int gpamap_apply(struct gpamap *map, void *arg);

int gpamap_map_check_usable(const struct gpamap *map);
int __must_check gpamap_map_find_region(struct gpamap *map, u32 id,
					struct gpamap_region **region);
int __must_check gpamap_map_update_bus(struct gpamap *map);
void gpamap_map_trim_bus(struct gpamap *map);

/* dispatch.c */
/* What is counted of the accesses to a region: see struct gpamap_counters. */
enum gpamap_count {
	GPAMAP_COUNT_READS,
	GPAMAP_COUNT_WRITES,
	GPAMAP_COUNT_EXITS,
	GPAMAP_COUNT_DOORBELLS,
	GPAMAP_COUNT_POSTED,
	GPAMAP_NR_COUNTS,
};

/* What answers an access. */
enum gpamap_answer {
	GPAMAP_ANSWER_EXIT,		/* nothing: it leaves to the VMM */
	GPAMAP_ANSWER_REGISTER,
	GPAMAP_ANSWER_DOORBELL,
	GPAMAP_ANSWER_POSTED,
	GPAMAP_ANSWER_HANDLER,
	GPAMAP_ANSWER_MEMORY,
	GPAMAP_ANSWER_POLICY,
};

/*
 * What is tied to a region. Written under the lock of the map, read under RCU by mmap() and
 * under KVM's SRCU by vCPUs (gpamap_io_wait()).
 */
struct gpamap_io {
	struct gpamap_bells __rcu *bells;			/* doorbell.c's */
	struct gpamap_registers_page __rcu *registers;		/* registers.c's */
	struct gpamap_handler_use __rcu *handler;		/* handler.c's */
	struct gpamap_ring_buffer __rcu *ring;			/* ring.c's */
	u32 policy;			/* enum gpamap_policy_kind */
	struct rcu_head rcu;

	/* Written by all vCPUs, so not beside what they only read. */
	atomic64_t counts[GPAMAP_NR_COUNTS] ____cacheline_aligned_in_smp;
};

/* What a vCPU found last on a bus. Only looked at under RCU, in the vCPU's thread. */
struct gpamap_hint {
	u64 generation;			/* 0: nothing; else in which the range is */
	const struct gpamap_range *range;
	enum gpamap_bus_view view;
} ____cacheline_aligned_in_smp;

struct gpamap_access {
	struct gpamap *map;
	struct gpamap_hint *hint;	/* may be NULL */
	u64 addr;
	void *val;			/* a write only reads it */
	enum gpamap_bus_view view;
	u32 vcpu_id;
	u32 len;
	bool write;
	bool may_leave;			/* if it is not done, KVM forgets nothing */
};

struct gpamap_io *gpamap_region_io(struct gpamap *map, const struct gpamap_region *region);
int __must_check gpamap_io_tie(struct gpamap *map, struct gpamap_region *region);
void gpamap_io_untie(struct gpamap *map, struct gpamap_region *region);
void gpamap_io_wait(struct gpamap *map);
void gpamap_io_free(struct gpamap_region *region);
bool gpamap_dispatch(const struct gpamap_access *a);

/* handler.c */
int gpamap_handler(struct gpamap *map, void *arg);
bool gpamap_handler_access(struct gpamap_handler_use *use, u64 offset, u32 len, bool write,
			   void *val);
const char *gpamap_handler_name(struct gpamap *map, const struct gpamap_io *io);
void gpamap_handler_free(struct gpamap_io *io);

/* policy.c */
int gpamap_policy(struct gpamap *map, void *arg);
bool gpamap_policy_access(const struct gpamap_io *io, u32 len, bool write, void *val);

/* exits.c */
int gpamap_exits_mmap(struct gpamap *map, struct vm_area_struct *vma);
void gpamap_exit_tell(struct gpamap *map, u32 vcpu_id, const struct gpamap_exit *exit);
void gpamap_exits_free(struct gpamap *map);

/* bus.c */
/* From the stretches that the buses have to those that they are to have. */
struct gpamap_bus_change {
	struct gpamap_bus_list *next[GPAMAP_NR_BUSES];	/* NULL: as it is */
	struct gpamap_bus_list *old[GPAMAP_NR_BUSES];	/* once widened; NULL for nothing */
	bool widened[GPAMAP_NR_BUSES];
	bool tied;			/* the views answer otherwise than before */
	bool planned;			/* next is known */
};

bool gpamap_bus_changes_tied(const struct gpamap_changes *changes);
int __must_check gpamap_bus_plan(struct gpamap *map,
				 const struct gpamap_flatview *const *views, bool tied,
				 struct gpamap_bus_change *change);
int __must_check gpamap_bus_widen(struct gpamap *map, struct gpamap_bus_change *change);
void gpamap_bus_restore(struct gpamap *map, struct gpamap_bus_change *change);
void gpamap_bus_narrow(struct gpamap *map, struct gpamap_bus_change *change, bool held);
void gpamap_bus_free(struct gpamap_bus_change *change);

/* doorbell.c */
int gpamap_doorbell(struct gpamap *map, void *arg);
u32 gpamap_doorbell_ring_any(const struct gpamap_io *io, u64 offset);
bool gpamap_doorbell_any(struct gpamap *map, const struct gpamap_io *io);
u32 gpamap_doorbell_ring(const struct gpamap_io *io, u64 offset, u32 len, u64 value);
void gpamap_doorbells_free(struct gpamap_io *io);

/* registers.c */
int gpamap_registers(struct gpamap *map, void *arg);
int gpamap_registers_mmap(struct gpamap *map, struct vm_area_struct *vma);
bool gpamap_registers_has(const struct gpamap_io *io, u64 offset, u32 len);
bool gpamap_registers_read(const struct gpamap_io *io, u64 offset, u32 len, void *val);
bool gpamap_registers_write(const struct gpamap_io *io, u64 offset, u32 len, u64 value);
void gpamap_registers_free(struct gpamap_io *io);

/* ring.c */
int gpamap_ring(struct gpamap *map, void *arg);
int gpamap_post(struct gpamap *map, void *arg);
int gpamap_ring_mmap(struct gpamap *map, struct vm_area_struct *vma);
bool gpamap_ring_drained(const struct gpamap_io *io);
bool gpamap_ring_post(const struct gpamap_io *io, u32 region, u64 offset, u32 len, u64 value);
void gpamap_rings_init(struct gpamap *map);
void gpamap_rings_free(struct gpamap *map);

/* query.c */
int gpamap_query(struct gpamap *map, void *arg);
int gpamap_lookup(struct gpamap *map, void *arg);
const struct gpamap_range *gpamap_map_find(const struct gpamap_snapshot *snapshot,
					   u32 space, u64 addr);

/* debugfs.c */
void gpamap_debugfs_init(void);
void gpamap_debugfs_exit(void);
void gpamap_debugfs_add(struct gpamap *map);
void gpamap_debugfs_del(struct gpamap *map);

/* memslot.c */
void gpamap_slots_init(struct gpamap_slots *slots);
void gpamap_slots_destroy(struct gpamap_slots *slots);
const struct gpamap_region *gpamap_slot_region(const struct gpamap *map,
					       const struct gpamap_slot *slot);
int __must_check gpamap_plan_add(struct gpamap_plan *plan, const struct gpamap_vm *vm,
				 struct gpamap_slots *slots, u32 as_id,
				 const struct gpamap_changes *changes,
				 struct gpamap_region *root);
int __must_check gpamap_plan_add_joined(struct gpamap_plan *plan,
					const struct gpamap_vm *vm,
					struct gpamap_slots *slots, u32 as_id,
					const struct gpamap_changes *changes);
int __must_check gpamap_plan_finish(struct gpamap_plan *plan, struct gpamap_vm *vm,
				    u32 *short_of);
bool gpamap_plan_holds(const struct gpamap_plan *plan);
int __must_check gpamap_plan_apply(struct gpamap_plan *plan, struct gpamap_slots *slots,
				   struct gpamap_vm *vm, struct gpamap_slot *refused,
				   int *broken);
void gpamap_plan_commit(struct gpamap_plan *plan, struct gpamap_slots *slots);
void gpamap_plan_abort(struct gpamap_plan *plan, struct gpamap_slots *slots,
		       struct gpamap_vm *vm);

/*
 * kvm.c: an attached VM. All of it is under the lock of the map that has it.
 */
struct gpamap_vm {
	/* Fixed at creation. */
	struct gpamap *map;
	struct file *file;		/* a reference on the VM */
	struct mm_struct *mm;		/* of its process; held by mmgrab() */
	u32 first_slot;
	u32 nr_slots;
	u32 nr_as;			/* KVM_CAP_MULTI_ADDRESS_SPACE */
	bool readonly_mem;		/* KVM_CAP_READONLY_MEM */
	struct hold *hold;
	struct gpamap_bus_device *bus_devices;	/* GPAMAP_NR_BUSES */

	bool no_moves;			/* KVM moves no slots of this VM */

	/* Ids in use, nr_slots bits for every address space; memslot.c's. */
	unsigned long *ids[GPAMAP_NR_AS];

	/* The argument page. */
	struct file *scratch;
	struct page *page;
	unsigned long uaddr;		/* where it is mapped; 0 if it is not */

	struct list_head link;		/* in gpamap_vms, under gpamap_vms_lock */
};

int __must_check gpamap_vm_get(int fd, u32 first_slot, u32 nr_slots, struct gpamap *map,
			       struct gpamap_vm **out);
struct kvm *gpamap_vm_kvm(const struct gpamap_vm *vm);
void gpamap_vm_put(struct gpamap_vm *vm);
int __must_check gpamap_vm_check_owner(const struct gpamap_vm *vm);
int __must_check gpamap_vm_check_slot(const struct gpamap_vm *vm,
				      const struct gpamap_slot *slot);
int __must_check gpamap_vm_create_slot(struct gpamap_vm *vm,
				       const struct gpamap_slot *slot);
int __must_check gpamap_vm_delete_slot(struct gpamap_vm *vm,
				       const struct gpamap_slot *slot);
int __must_check gpamap_vm_move_slot(struct gpamap_vm *vm,
				     const struct gpamap_slot *slot);
int __must_check gpamap_vm_hold(struct gpamap_vm *vm);
void gpamap_vm_release(struct gpamap_vm *vm);
void gpamap_vm_exit(void);

/* kvm_bus.c */
int __must_check gpamap_vm_bus_init(struct gpamap_vm *vm, struct gpamap *map);
void gpamap_vm_bus_exit(struct gpamap_vm *vm);
const struct gpamap_bus_list *gpamap_vm_bus_placed(const struct gpamap_vm *vm, u32 bus);
void gpamap_vm_bus_wait(struct gpamap_vm *vm);
int __must_check gpamap_vm_bus_check(struct gpamap_vm *vm, u32 bus,
				     const struct gpamap_bus_list *list);
int __must_check gpamap_vm_bus_set(struct gpamap_vm *vm, u32 bus,
				   struct gpamap_bus_list **list);

#endif /* GPAMAP_PRIVATE_H */
