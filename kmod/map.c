// SPDX-License-Identifier: GPL-2.0
/*
 * The life of a map, and its lock.
 *
 * A map begins with its file and ends after it. The file may be closed for the last time by a
 * worker of the kernel's that closes files for everybody (io_uring, delayed fput), so its
 * release() waits for nothing that a VM can withhold: what the map answered is muted at once;
 * the rest is done as far as it can be without waiting, then and whenever a work item of the
 * module's own looks again. The module is not unloaded before all maps have come to their end.
 *
 * The lock of a map is waited for within the deadline of a call, for which mutexes have no
 * function: a wait queue wakes who waits, and who is woken tries.
 */
#include <linux/module.h>
#include <linux/slab.h>
#include "map.h"

/* When a closed map looks again whether KVM has left it: in jiffies, at first and at most. */
#define END_INTERVAL (HZ / 200 ?: 1)
#define END_INTERVAL_MAX (HZ / 4 ?: 1)

static struct workqueue_struct *end_queue;
static atomic_t nr_maps = ATOMIC_INIT(0);
static DECLARE_WAIT_QUEUE_HEAD(none_left);

/* ---- the lock --------------------------------------------------------- */

/* 0, -EBUSY at the deadline, -EINTR when the caller is being killed. */
int gpamap_map_lock(struct gpamap *map, unsigned long deadline)
{
	long rc;

	rc = wait_event_killable_timeout(map->lock_wait, mutex_trylock(&map->lock),
					 gpamap_time_left(deadline));
	if (rc < 0)
		return -EINTR;
	return rc ? 0 : -EBUSY;
}

/* For who only reads: whoever has the lock has a deadline. */
int gpamap_map_lock_killable(struct gpamap *map)
{
	return mutex_lock_killable(&map->lock);
}

bool gpamap_map_trylock(struct gpamap *map)
{
	return mutex_trylock(&map->lock);
}

void gpamap_map_unlock(struct gpamap *map)
{
	mutex_unlock(&map->lock);
	wake_up(&map->lock_wait);
}

int gpamap_map_check_usable(const struct gpamap *map)
{
	lockdep_assert_held(&map->lock);

	if (map->broken)
		return -EIO;
	return map->vm ? gpamap_vm_check_owner(map->vm) : 0;
}

/* The region that a slot of an attached map shows; NULL in a broken one where none is. */
const struct gpamap_region *gpamap_map_slot_region(const struct gpamap *map,
						   const struct gpamap_slot *slot)
{
	const struct gpamap_root *root = map->memory[slot->as_id];
	const struct gpamap_range *range;

	range = root ? gpamap_flatview_find(root->view, slot->gpa) : NULL;
	return range ? range->region : NULL;
}

/* ---- the end ---------------------------------------------------------- */

/* Nobody reads any more: LOOKUP and poll hold the file, KVM does not ask. */
static void map_free(struct gpamap *map)
{
	gpamap_slots_destroy(&map->slots);
	kfree(rcu_dereference_protected(map->dispatch.snapshot, true));
	gpamap_ties_destroy(&map->ties, &map->tree);
	gpamap_exits_free(&map->dispatch);
	gpamap_tree_destroy(&map->tree);
	mutex_destroy(&map->lock);
	kfree(map);
	if (atomic_dec_and_test(&nr_maps))
		wake_up(&none_left);
}

/* As far as it goes without waiting; false if there is something left to do. */
static bool map_end(struct gpamap *map)
{
	if (map->vm) {
		if (!gpamap_vm_closed(map->vm))
			return false;
		gpamap_vm_put(map->vm);
	}
	map_free(map);
	return true;
}

static void map_end_work(struct work_struct *work)
{
	struct gpamap *map = container_of(to_delayed_work(work), struct gpamap, end);

	if (map_end(map))
		return;
	queue_delayed_work(end_queue, &map->end, map->end_interval);
	map->end_interval = min(2 * map->end_interval, (unsigned long)END_INTERVAL_MAX);
}

/* The file is closed. In any process, and in one without an mm. Waits for nothing of a VM. */
void gpamap_map_close(struct gpamap *map)
{
	gpamap_news_close(map->reader.news);
	gpamap_news_put(map->reader.news);
	if (map->vm)
		gpamap_vm_close(map->vm);
	if (map_end(map))
		return;
	map->end_interval = END_INTERVAL;
	queue_delayed_work(end_queue, &map->end, 1);
}

/* ---- the begin -------------------------------------------------------- */

/* NULL if there is no memory. */
struct gpamap *gpamap_map_alloc(void)
{
	static atomic_t running_number = ATOMIC_INIT(0);
	struct gpamap *map;

	map = kzalloc(sizeof(*map), GPAMAP_GFP);
	if (!map)
		return NULL;
	map->reader.news = gpamap_news_alloc();
	if (!map->reader.news) {
		kfree(map);
		return NULL;
	}
	atomic_inc(&nr_maps);
	map->number = atomic_inc_return(&running_number);
	map->dispatch.number = map->number;
	mutex_init(&map->lock);
	init_waitqueue_head(&map->lock_wait);
	INIT_DELAYED_WORK(&map->end, map_end_work);
	gpamap_tree_init(&map->tree);
	gpamap_ties_init(&map->ties);
	gpamap_slots_init(&map->slots);
	return map;
}

int gpamap_map_init(void)
{
	end_queue = alloc_workqueue("gpamap", WQ_UNBOUND, 0);
	return end_queue ? 0 : -ENOMEM;
}

/* No file is open. Maps may be on their way still: it takes as long as it takes. */
void gpamap_map_exit(void)
{
	wait_event_idle(none_left, !atomic_read(&nr_maps));
	destroy_workqueue(end_queue);
}
