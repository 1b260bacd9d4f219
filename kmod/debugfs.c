// SPDX-License-Identifier: GPL-2.0
/*
 * Any map, readable from the host: a directory gpamap/PID-N in debugfs for each,
 * PID being the process that opened it and N a running number, with
 *
 *	tree	the spaces, then the regions, each followed by those it holds
 *	flat	the view of every space, as `gpamap flatten` prints it
 *	slots	the memslots
 *
 * debugfs is a help, not a service: a map without a directory works.
 */
#include <linux/debugfs.h>
#include <linux/seq_file.h>
#include "private.h"

static struct dentry *gpamap_debugfs;

static const char * const region_kinds[] = {
	[GPAMAP_REGION_CONTAINER] = "container",
	[GPAMAP_REGION_RAM] = "ram",
	[GPAMAP_REGION_ROM] = "rom",
	[GPAMAP_REGION_IO] = "io",
	[GPAMAP_REGION_ALIAS] = "alias",
};

static void show_region(struct seq_file *m, const struct gpamap_region *region, int depth)
{
	seq_printf(m, "%*s%u %s \"%s\" last=0x%llx", 2 * depth, "", region->id,
		   region_kinds[region->kind], region->name, region->last);
	if (region->container)
		seq_printf(m, " at=0x%llx prio=%d", region->at, region->prio);
	if (region->target)
		seq_printf(m, " of=%u offset=0x%llx", region->target->id, region->offset);
	if (region->hva)
		seq_printf(m, " hva=0x%llx", region->hva);
	if (region->flags & GPAMAP_REGION_READONLY)
		seq_puts(m, " readonly");
	if (region->flags & GPAMAP_REGION_DISABLED)
		seq_puts(m, " disabled");
	seq_putc(m, '\n');
}

static void show_tree(struct seq_file *m, struct gpamap *map)
{
	const struct gpamap_region *up;
	struct gpamap_region *region, *root;
	struct gpamap_space *space;
	unsigned long id;
	int depth;

	xa_for_each(&map->tree.spaces, id, space)
		seq_printf(m, "space %u \"%s\" root=%u kind=%s\n", space->id, space->name,
			   space->root->id,
			   space->kind == GPAMAP_SPACE_MEMORY ? "memory" : "view");
	xa_for_each(&map->tree.regions, id, root) {
		if (root->container)
			continue;
		for (region = root; region; region = gpamap_region_next(region)) {
			depth = 0;
			for (up = region; up->container; up = up->container)
				depth++;
			show_region(m, region, depth);
		}
	}
}

static void show_flat(struct seq_file *m, struct gpamap *map)
{
	char line[GPAMAP_RANGE_LINE_LEN];
	struct gpamap_space *space;
	unsigned long id;
	u32 i;

	xa_for_each(&map->tree.spaces, id, space) {
		seq_printf(m, "address-space: %s\n", space->name);
		for (i = 0; i < space->view->nr; i++) {
			gpamap_range_print(line, sizeof(line), &space->view->ranges[i]);
			seq_printf(m, "%s\n", line);
		}
	}
}

static void show_slots(struct seq_file *m, struct gpamap *map)
{
	u32 i;

	if (map->broken)
		seq_puts(m, "broken: a roll-back failed, KVM has other slots\n");
	if (!map->slots) {
		seq_puts(m, "no VM\n");
		return;
	}
	for (i = 0; i < map->slots->nr; i++) {
		const struct gpamap_slot *slot = &map->slots->slots[i];
		u64 len = slot->npages << PAGE_SHIFT;

		seq_printf(m, "  %016llx-%016llx slot %u hva 0x%llx %s region %u\n",
			   slot->gpa, slot->gpa + len - 1, slot->id, slot->hva,
			   slot->readonly ? "ro" : "rw", slot->region);
	}
}

static int show_locked(struct seq_file *m,
		       void (*show)(struct seq_file *m, struct gpamap *map))
{
	struct gpamap *map = m->private;
	int rc;

	rc = mutex_lock_killable(&map->lock);
	if (rc)
		return rc;
	show(m, map);
	mutex_unlock(&map->lock);
	return 0;
}

static int tree_show(struct seq_file *m, void *unused)
{
	return show_locked(m, show_tree);
}
DEFINE_SHOW_ATTRIBUTE(tree);

static int flat_show(struct seq_file *m, void *unused)
{
	return show_locked(m, show_flat);
}
DEFINE_SHOW_ATTRIBUTE(flat);

static int slots_show(struct seq_file *m, void *unused)
{
	return show_locked(m, show_slots);
}
DEFINE_SHOW_ATTRIBUTE(slots);

void gpamap_debugfs_init(void)
{
	gpamap_debugfs = debugfs_create_dir("gpamap", NULL);
}

void gpamap_debugfs_exit(void)
{
	debugfs_remove_recursive(gpamap_debugfs);
}

void gpamap_debugfs_add(struct gpamap *map)
{
	static atomic_t running_number = ATOMIC_INIT(0);
	char name[32];

	snprintf(name, sizeof(name), "%d-%u", task_tgid_nr(current),
		 (u32)atomic_inc_return(&running_number));
	map->debugfs = debugfs_create_dir(name, gpamap_debugfs);
	debugfs_create_file("tree", 0400, map->debugfs, map, &tree_fops);
	debugfs_create_file("flat", 0400, map->debugfs, map, &flat_fops);
	debugfs_create_file("slots", 0400, map->debugfs, map, &slots_fops);
}

/* Waits for readers, who take the lock of the map: it must not be held. */
void gpamap_debugfs_del(struct gpamap *map)
{
	debugfs_remove_recursive(map->debugfs);
}
