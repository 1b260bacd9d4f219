// SPDX-License-Identifier: GPL-2.0
/*
 * Any map, readable from the host: a directory gpamap/PID-N in debugfs for each,
 * PID being the process that opened it and N a running number, with
 *
 *	tree	the spaces, then the regions, each followed by those it holds
 *	flat	the view of every space, as `gpamap flatten` prints it, with "[unaligned]" and
 *		"[shadowed]" behind the ranges that are (enum gpamap_range_flags)
 *	slots	the memslots
 *	stats	struct gpamap_stats, one "name value" a line
 *	bus	the stretches of addresses on KVM's buses
 *	io	the regions that have something tied to them: what it is, and the accesses
 *
 * debugfs is a help, not a service: a map without a directory works.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include "commands.h"

static struct dentry *gpamap_debugfs;

static const char * const region_kinds[] = {
	[GPAMAP_REGION_CONTAINER] = "container",
	[GPAMAP_REGION_RAM] = "ram",
	[GPAMAP_REGION_ROM] = "rom",
	[GPAMAP_REGION_IO] = "io",
	[GPAMAP_REGION_ALIAS] = "alias",
	[GPAMAP_REGION_ROMD] = "romd",
	[GPAMAP_REGION_RESERVED] = "reserved",
};

static const char * const space_kinds[] = {
	[GPAMAP_SPACE_MEMORY] = "memory",
	[GPAMAP_SPACE_IO] = "io",
	[GPAMAP_SPACE_VIEW] = "view",
};

static const struct {
	u32 flag;
	const char *word;
} region_flags[] = {
	{ GPAMAP_REGION_READONLY, " readonly" },
	{ GPAMAP_REGION_NONVOLATILE, " nonvolatile" },
	{ GPAMAP_REGION_UNMERGEABLE, " unmergeable" },
	{ GPAMAP_REGION_CUT_AHEAD, " cut-ahead" },
	{ GPAMAP_REGION_DISABLED, " disabled" },
};

static void show_region(struct seq_file *m, const struct gpamap_region *region)
{
	const struct gpamap_region *up;
	int depth = 0;
	u32 i;

	/* No deeper than what is rendered: containers can hold each other. */
	for (up = region; up->container && depth < GPAMAP_MAX_DEPTH; up = up->container)
		depth++;
	seq_printf(m, "%*s%u %s \"%s\" last=0x%llx", 2 * depth, "", region->id,
		   region_kinds[region->kind], region->name, region->last);
	if (region->container)
		seq_printf(m, " at=0x%llx prio=%d", region->at, region->prio);
	if (region->target)
		seq_printf(m, " of=%u offset=0x%llx", region->target->id, region->offset);
	if (region->hva)
		seq_printf(m, " hva=0x%llx", region->hva);
	if (region->kind == GPAMAP_REGION_ROMD)
		seq_printf(m, " romd=%d", !!(region->flags & GPAMAP_REGION_ROMD_MODE));
	for (i = 0; i < ARRAY_SIZE(region_flags); i++)
		if (region->flags & region_flags[i].flag)
			seq_puts(m, region_flags[i].word);
	seq_putc(m, '\n');
}

/* False when it makes no sense to print on: the buffer is full and will be larger. */
static bool goes_on(struct seq_file *m)
{
	cond_resched();
	return !seq_has_overflowed(m) && !fatal_signal_pending(current);
}

static int show_tree(struct seq_file *m, struct gpamap *map)
{
	struct gpamap_region **list;
	struct gpamap_space *space;
	unsigned long id;
	u32 i;
	int rc;

	xa_for_each(&map->tree.spaces, id, space)
		seq_printf(m, "space %u \"%s\" root=%u kind=%s as=%u\n", space->id,
			   space->name, space->root->region->id, space_kinds[space->kind],
			   space->as_id);
	rc = gpamap_tree_list(&map->tree, &list);
	if (rc)
		return rc;
	for (i = 0; i < map->tree.nr_regions && goes_on(m); i++)
		show_region(m, list[i]);
	kvfree(list);
	return 0;
}

static int show_slots(struct seq_file *m, struct gpamap *map)
{
	struct gpamap_slot *slot;
	unsigned long gfn;
	u32 as;

	if (map->broken)
		seq_puts(m, "broken: a roll-back failed; these are the slots that KVM has\n");
	if (!map->vm) {
		seq_puts(m, "no VM\n");
		return 0;
	}
	for (as = 0; as < GPAMAP_NR_AS; as++) {
		xa_for_each(&map->slots.as[as], gfn, slot) {
			const struct gpamap_region *region = gpamap_map_slot_region(map, slot);
			u64 len = slot->npages << PAGE_SHIFT;

			if (!goes_on(m))
				return 0;
			seq_printf(m, "  %016llx-%016llx as %u slot %u hva 0x%llx %s region %u\n",
				   slot->gpa, slot->gpa + len - 1, as, slot->id, slot->hva,
				   slot->readonly ? "ro" : "rw",
				   region ? region->id : 0);
		}
	}
	return 0;
}

static int show_stats(struct seq_file *m, struct gpamap *map)
{
#define SHOW(name) seq_printf(m, #name " %llu\n", map->stats.name)
	SHOW(commits);
	SHOW(creates);
	SHOW(deletes);
	SHOW(moves);
	SHOW(deleted_bytes);
	SHOW(largest_delete);
	SHOW(holds);
	SHOW(hold_failures);
	SHOW(hold_ns);
	SHOW(longest_hold_ns);
	SHOW(rollbacks);
#undef SHOW
	return 0;
}

static const char * const policies[] = {
	[GPAMAP_POLICY_NONE] = "",
	[GPAMAP_POLICY_TELL] = " tell",
	[GPAMAP_POLICY_ZEROES] = " zeroes",
	[GPAMAP_POLICY_ONES] = " ones",
};

static int show_io(struct seq_file *m, struct gpamap *map)
{
	struct gpamap_region *region;
	unsigned long id;

	xa_for_each(&map->tree.regions, id, region) {
		const struct gpamap_io *io = gpamap_region_io(region);

		if (!goes_on(m))
			return 0;
		if (!io)
			continue;
		seq_printf(m, "%u \"%s\" reads %lld writes %lld exits %lld doorbells %lld posted %lld:%s%s%s%s%s%s\n",
			   region->id, region->name,
			   atomic64_read(&io->counts[GPAMAP_COUNT_READS]),
			   atomic64_read(&io->counts[GPAMAP_COUNT_WRITES]),
			   atomic64_read(&io->counts[GPAMAP_COUNT_EXITS]),
			   atomic64_read(&io->counts[GPAMAP_COUNT_DOORBELLS]),
			   atomic64_read(&io->counts[GPAMAP_COUNT_POSTED]),
			   io->now.registers ? " registers" : "",
			   io->nr_bells ? " doorbells" : "",
			   io->now.ring ? " ring" : "",
			   io->now.handler ? " " : "",
			   gpamap_handler_name(io),
			   policies[io->now.policy]);
	}
	return 0;
}

static int show_bus(struct seq_file *m, struct gpamap *map)
{
	static const char * const buses[GPAMAP_NR_BUSES] = {
		[GPAMAP_BUS_MEMORY] = "memory",
		[GPAMAP_BUS_PORTS] = "ports",
		[GPAMAP_BUS_FAST] = "fast",
	};
	u32 bus, i;

	for (bus = 0; map->vm && bus < GPAMAP_NR_BUSES; bus++) {
		const struct gpamap_extents *list = gpamap_vm_bus_placed(map->vm, bus);

		for (i = 0; list && i < list->nr; i++)
			seq_printf(m, "%s %016llx-%016llx\n", buses[bus],
				   list->extents[i].start, list->extents[i].last);
	}
	return 0;
}

/*
 * A map can be locked for long: by a commit that waits for the memory of its VMM. That
 * must not hold up whoever wants to see other maps.
 */
static int lock_map(struct gpamap *map)
{
	int tries;

	for (tries = 0; tries < 100; tries++) {
		if (gpamap_map_trylock(map))
			return 0;
		if (msleep_interruptible(10))
			return -EINTR;
	}
	return -EBUSY;
}

static int show_locked(struct seq_file *m,
		       int (*show)(struct seq_file *m, struct gpamap *map))
{
	struct gpamap *map = m->private;
	int rc;

	rc = lock_map(map);
	if (rc)
		return rc;
	rc = show(m, map);
	gpamap_map_unlock(map);
	return rc;
}

static int tree_show(struct seq_file *m, void *unused)
{
	return show_locked(m, show_tree);
}
DEFINE_SHOW_ATTRIBUTE(tree);

/* What is told in one go, and so of one generation: some thousand lines. */
#define FLAT_BUF_LEN (256 << 10)

/*
 * The views of many spaces are too long to be printed in one go. A position is the id of
 * a space and the number of a line in it: 0 its name, i + 1 its range i.
 */
#define FLAT_POS(space, line) ((loff_t)(space) << 31 | (line))
#define FLAT_SPACE(pos) ((unsigned long)((pos) >> 31))
#define FLAT_LINE(pos) ((u32)((pos) & 0x7fffffff))

struct flat_iter {
	struct gpamap *map;
	struct gpamap_space *space;
	struct gpamap_cursor cursor;
	const struct gpamap_range *range;	/* NULL at the name */
	struct gpamap_shadow shadow;	/* of the space, if it is the one with this id */
	u32 shadow_of;
	bool locked;
};

/* To the name of the first space from @id on. */
static void *flat_space(struct flat_iter *iter, unsigned long id, loff_t *pos)
{
	iter->range = NULL;
	iter->space = xa_find(&iter->map->tree.spaces, &id, ULONG_MAX, XA_PRESENT);
	if (!iter->space)
		return NULL;
	*pos = FLAT_POS(id, 0);
	return iter;
}

static void *flat_next(struct seq_file *m, void *v, loff_t *pos)
{
	struct flat_iter *iter = m->private;

	++*pos;
	if (iter->range)
		iter->range = gpamap_flatview_next(&iter->cursor);
	else
		iter->range = gpamap_flatview_first(&iter->cursor, iter->space->root->view);
	if (!iter->range)
		return flat_space(iter, iter->space->id + 1UL, pos);
	return iter;
}

static void *flat_start(struct seq_file *m, loff_t *pos)
{
	struct flat_iter *iter = m->private;
	loff_t want = *pos;
	int rc;

	rc = lock_map(iter->map);
	iter->locked = !rc;
	if (rc)
		return ERR_PTR(rc);
	if (!flat_space(iter, FLAT_SPACE(want), pos) || *pos > want)
		return iter->space ? iter : NULL;
	/* The view may be another by now: then it goes on somewhere near. */
	iter->range = gpamap_flatview_seek(&iter->cursor, iter->space->root->view,
					   FLAT_LINE(want));
	if (FLAT_LINE(want) && !iter->range)
		return flat_space(iter, iter->space->id + 1UL, pos);
	*pos = want;
	return iter;
}

static void flat_stop(struct seq_file *m, void *v)
{
	struct flat_iter *iter = m->private;

	gpamap_shadow_end(&iter->shadow);
	iter->shadow = (struct gpamap_shadow){ NULL };
	iter->shadow_of = 0;
	if (iter->locked)
		gpamap_map_unlock(iter->map);
}

static int flat_show(struct seq_file *m, void *v)
{
	char line[GPAMAP_RANGE_LINE_LEN];
	struct flat_iter *iter = m->private;
	u32 flags;
	int rc;

	if (!iter->range) {
		seq_printf(m, "address-space: %s\n", iter->space->name);
		return 0;
	}
	if (iter->shadow_of != iter->space->id) {
		gpamap_shadow_end(&iter->shadow);
		rc = gpamap_shadow_begin(iter->map, iter->space->id, &iter->shadow);
		if (rc)
			return rc;
		iter->shadow_of = iter->space->id;
	}
	flags = gpamap_shadow_flags(iter->map, &iter->shadow, iter->range);
	gpamap_range_print(line, sizeof(line), iter->range);
	seq_printf(m, "%s%s%s\n", line, flags & GPAMAP_RANGE_UNALIGNED ? " [unaligned]" : "",
		   flags & GPAMAP_RANGE_SHADOWED ? " [shadowed]" : "");
	return 0;
}

static const struct seq_operations flat_sops = {
	.start = flat_start,
	.next = flat_next,
	.stop = flat_stop,
	.show = flat_show,
};

static int flat_open(struct inode *inode, struct file *file)
{
	struct flat_iter *iter;
	struct seq_file *m;

	iter = __seq_open_private(file, &flat_sops, sizeof(*iter));
	if (!iter)
		return -ENOMEM;
	iter->map = inode->i_private;
	m = file->private_data;
	m->buf = kvmalloc(FLAT_BUF_LEN, GPAMAP_GFP);
	if (m->buf)
		m->size = FLAT_BUF_LEN;
	return 0;
}

static const struct file_operations flat_fops = {
	.owner = THIS_MODULE,
	.open = flat_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = seq_release_private,
};

static int slots_show(struct seq_file *m, void *unused)
{
	return show_locked(m, show_slots);
}
DEFINE_SHOW_ATTRIBUTE(slots);

static int stats_show(struct seq_file *m, void *unused)
{
	return show_locked(m, show_stats);
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int io_show(struct seq_file *m, void *unused)
{
	return show_locked(m, show_io);
}
DEFINE_SHOW_ATTRIBUTE(io);

static int bus_show(struct seq_file *m, void *unused)
{
	return show_locked(m, show_bus);
}
DEFINE_SHOW_ATTRIBUTE(bus);

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
	char name[32];

	snprintf(name, sizeof(name), "%d-%u", task_tgid_nr(current), map->number);
	map->debugfs = debugfs_create_dir(name, gpamap_debugfs);
	debugfs_create_file("tree", 0400, map->debugfs, map, &tree_fops);
	debugfs_create_file("flat", 0400, map->debugfs, map, &flat_fops);
	debugfs_create_file("slots", 0400, map->debugfs, map, &slots_fops);
	debugfs_create_file("stats", 0400, map->debugfs, map, &stats_fops);
	debugfs_create_file("bus", 0400, map->debugfs, map, &bus_fops);
	debugfs_create_file("io", 0400, map->debugfs, map, &io_fops);
}

/* Waits for readers, who take the lock of the map: it must not be held. */
void gpamap_debugfs_del(struct gpamap *map)
{
	debugfs_remove_recursive(map->debugfs);
}
