/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the module share. The pure core has a header of its own,
 * core.h, and knows nothing of this one.
 *
 * Lock order, outermost first:
 *
 *	struct gpamap::lock
 *	    gpamap_vms_lock (kvm.c)
 *	    mmap_lock of the process that owns the VM (mapping the scratch page, user
 *		copies)
 *	    locks that KVM takes in its ioctls (kvm->slots_lock, ...)
 *
 * mmap() and faults of the scratch page take no lock of the module. debugfs files
 * take struct gpamap::lock, so they are removed while it is not held.
 */
#ifndef GPAMAP_PRIVATE_H
#define GPAMAP_PRIVATE_H

#include <linux/fs.h>
#include <linux/kvm.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include "core.h"

struct gpamap_vm;

/* A map: one open file of /dev/gpamap. */
struct gpamap {
	struct mutex lock;		/* of all that follows */

	struct gpamap_tree tree;
	u64 generation;
	struct gpamap_vm *vm;		/* NULL while detached */
	struct gpamap_slots *slots;	/* in KVM; NULL exactly while vm is */
	bool broken;			/* a roll-back failed: slots are not in KVM */

	struct dentry *debugfs;		/* fixed at creation */
};

/* map.c: what the ioctls that change a map do. */
int gpamap_attach(struct gpamap *map, void *arg);
int gpamap_detach(struct gpamap *map, void *arg);
int gpamap_apply(struct gpamap *map, void *arg);

/* query.c */
int gpamap_query(struct gpamap *map, void *arg);

/* debugfs.c */
void gpamap_debugfs_init(void);
void gpamap_debugfs_exit(void);
void gpamap_debugfs_add(struct gpamap *map);
void gpamap_debugfs_del(struct gpamap *map);

/* memslot.c */
int __must_check gpamap_memslots_commit(struct gpamap_vm *vm, struct gpamap_slots *old,
					struct gpamap_slots *new,
					const struct gpamap_slot **blame, bool *broken);

/*
 * kvm.c: an attached VM. All of it is under the lock of the map that has it.
 */
struct gpamap_vm {
	/* Fixed at creation. */
	struct file *file;		/* a reference on the VM */
	struct mm_struct *mm;		/* of its process; held by mmgrab() */
	u32 first_slot;
	u32 nr_slots;
	bool readonly_mem;		/* KVM_CAP_READONLY_MEM */
	unsigned long *ids;		/* bitmap of nr_slots, scratch of memslot.c */

	/* The argument page. */
	struct file *scratch;
	struct page *page;
	unsigned long uaddr;		/* where it is mapped; 0 if it is not */

	struct list_head link;		/* in gpamap_vms, under gpamap_vms_lock */
};

int __must_check gpamap_vm_get(int fd, u32 first_slot, u32 nr_slots,
			       struct gpamap_vm **out);
void gpamap_vm_put(struct gpamap_vm *vm);
int __must_check gpamap_vm_check_owner(const struct gpamap_vm *vm);
int __must_check gpamap_vm_create_slot(struct gpamap_vm *vm,
				       const struct gpamap_slot *slot);
int __must_check gpamap_vm_delete_slot(struct gpamap_vm *vm,
				       const struct gpamap_slot *slot);

#endif /* GPAMAP_PRIVATE_H */
