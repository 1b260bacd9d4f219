/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A map, and the transactions that change it. The layers below have headers of their own, and
 * none of them includes this one: core.h; kvm.h; ties.h; dispatch.h. The one above, commands.h, is
 * not seen from here.
 *
 * Lock order, outermost first:
 *
 *	struct gpamap::lock (waited for within the deadline of a call)
 *	    handlers_lock (handler.c)
 *	    gpamap_vms_lock (kvm_vm.c)
 *	    kvm->lock (while vCPUs are held; tried until the deadline)
 *		vcpu->mutex (of all vCPUs; only tried)
 *		    struct hold::lock (kvm_hold.c; also taken by callbacks in vCPU threads)
 *		kvm->slots_lock (for a moment within the deadline; then as KVM takes it)
 *	    mmap_lock of the process that owns the VM (mapping the argument page, user
 *		copies)
 *	    locks that KVM takes in its ioctls (kvm->slots_lock, ...)
 *	    struct gpamap_ties::pages_lock, xa_lock of struct gpamap_ties::rings (innermost;
 *		also under mmap_lock, by mmap())
 *	    the locks of wait queues (struct gpamap_news::wait, struct gpamap::lock_wait)
 *
 * LOOKUP and poll take no lock but those of wait queues (LOOKUP of what has no memslot that of the
 * map while vCPUs are held); an access of a vCPU's none but,
 * innermost, that of a struct gpamap_ring_buffer. mmap() takes none but the two named, and
 * faults of the argument page take none. debugfs files take struct gpamap::lock, so they are
 * removed while it is not held.
 */
#ifndef GPAMAP_MAP_H
#define GPAMAP_MAP_H

#include <linux/fs.h>
#include <linux/kvm.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include "dispatch.h"
#include "memslot.h"
#include "stretches.h"

/* What there is to know for who waits for a new generation. Outlives the map. */
struct gpamap_news {
	refcount_t refs;
	wait_queue_head_t wait;
	u64 generation;			/* written under the lock of the map, read without */
	bool closed;			/* the map is; likewise */
};

/* Who waits: a file. */
struct gpamap_reader {
	struct gpamap_news *news;
	u64 seen;			/* the generation that read() has told last */
};

/* A map: one open file of /dev/gpamap. */
struct gpamap {
	struct mutex lock;		/* of all that follows */
	wait_queue_head_t lock_wait;	/* for it, with a deadline */

	struct gpamap_tree tree;
	struct gpamap_ties ties;
	u64 generation;
	struct gpamap_vm *vm;		/* NULL while detached */
	struct gpamap_slots slots;	/* empty while detached */
	struct gpamap_root *memory[GPAMAP_NR_AS];	/* that the slots follow */
	struct gpamap_root *ports;	/* that the bus follows */
	bool broken;			/* a roll-back failed: slots and view disagree */
	struct gpamap_stats stats;

	struct gpamap_dispatch dispatch;	/* what vCPUs find */
	struct gpamap_reader reader;	/* of the map's own file; own rules */
	u32 number;			/* fixed at creation, as what follows */
	struct dentry *debugfs;
	struct delayed_work end;	/* once the file is closed */
	unsigned long end_interval;	/* until it looks again */
};

/* transaction.c: what changes a map. All lock it themselves. */
int gpamap_map_attach(struct gpamap *map, const struct gpamap_attach *cmd);
int gpamap_map_detach(struct gpamap *map, const struct gpamap_detach *cmd);
int gpamap_map_apply(struct gpamap *map, struct gpamap_apply *cmd);
int gpamap_map_apply_op(struct gpamap *map, const struct gpamap_op *op);

/* map.c */
struct gpamap *gpamap_map_alloc(void);
void gpamap_map_close(struct gpamap *map);
int __must_check gpamap_map_init(void);
void gpamap_map_exit(void);
int __must_check gpamap_map_lock(struct gpamap *map, unsigned long deadline);
int __must_check gpamap_map_lock_killable(struct gpamap *map);
bool gpamap_map_trylock(struct gpamap *map);
void gpamap_map_unlock(struct gpamap *map);
int __must_check gpamap_map_check_usable(const struct gpamap *map);
const struct gpamap_region *gpamap_map_slot_region(const struct gpamap *map,
						   const struct gpamap_slot *slot);

/* watch.c */
struct gpamap_news *gpamap_news_alloc(void);
void gpamap_news_put(struct gpamap_news *news);
void gpamap_news_publish(struct gpamap_news *news, u64 generation);
void gpamap_news_close(struct gpamap_news *news);
int gpamap_news_watch(struct gpamap_news *news);
ssize_t gpamap_reader_read(struct gpamap_reader *reader, struct file *file,
			   char __user *buf, size_t len);
__poll_t gpamap_reader_poll(struct gpamap_reader *reader, struct file *file,
			    struct poll_table_struct *table);

#endif /* GPAMAP_MAP_H */
