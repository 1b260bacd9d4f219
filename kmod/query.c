// SPDX-License-Identifier: GPL-2.0
/*
 * QUERY: the map as arrays of records; LOOKUP: what is at one address.
 *
 * Records are made under the lock of the map, all of one call at one generation,
 * and copied out after it is let go. The distance between two records is the
 * caller's, so that records may grow in either direction of time.
 *
 * A look-up takes no lock, as a rule. It reads the snapshot that the last commit has published,
 * under RCU: two binary searches, among chunks and in one. Where there is no memslot it looks
 * at what is on KVM's bus, too; while vCPUs are held it waits for that, as QUERY does.
 */
#include <linux/rcupdate.h>
#include <linux/uaccess.h>
#include "commands.h"

/* Each fills @count records if @out is not NULL, and returns their number. */

static int fill_info(struct gpamap *map, struct gpamap_query *cmd, void *out)
{
	struct gpamap_info *info = out;

	if (!info)
		return 1;
	*info = (struct gpamap_info){
		.features = GPAMAP_FEATURE_SLOTS | GPAMAP_FEATURE_LOOKUP |
			    GPAMAP_FEATURE_POLL | GPAMAP_FEATURE_HOLD |
			    GPAMAP_FEATURE_DRY_RUN | GPAMAP_FEATURE_STATS |
			    GPAMAP_FEATURE_CUT_AHEAD | GPAMAP_FEATURE_DOORBELL |
			    GPAMAP_FEATURE_REGISTERS | GPAMAP_FEATURE_HANDLER |
			    GPAMAP_FEATURE_POLICY | GPAMAP_FEATURE_RINGS |
			    GPAMAP_FEATURE_TIES | GPAMAP_FEATURE_LAYOUT,
		.generation = map->generation,
		.state = (map->vm ? GPAMAP_STATE_ATTACHED : 0) |
			 (map->broken ? GPAMAP_STATE_BROKEN : 0),
		.name_len = GPAMAP_NAME_LEN,
		.max_regions = GPAMAP_MAX_REGIONS,
		.max_spaces = GPAMAP_MAX_SPACES,
		.max_depth = GPAMAP_MAX_DEPTH,
		.max_ranges = GPAMAP_MAX_RANGES,
		.max_paths = GPAMAP_MAX_PATHS,
		.max_ops = GPAMAP_MAX_OPS,
		.nr_regions = map->tree.nr_regions,
		.nr_spaces = map->tree.nr_spaces,
	};
	if (map->vm) {
		info->first_slot = map->vm->first_slot;
		info->nr_slots = map->vm->nr_slots;
		info->used_slots = map->slots.nr;
	}
	return 1;
}

static int fill_regions(struct gpamap *map, struct gpamap_query *cmd, void *out)
{
	struct gpamap_region_info *info = out;
	struct gpamap_region **list;
	u32 i;
	int rc;

	if (!out)
		return map->tree.nr_regions;
	rc = gpamap_tree_list(&map->tree, &list);
	if (rc)
		return rc;
	for (i = 0; i < map->tree.nr_regions; i++) {
		const struct gpamap_region *region = list[i];

		cond_resched();
		info[i] = (struct gpamap_region_info){
			.id = region->id,
			.kind = region->kind,
			.flags = region->flags,
			.container = region->container ? region->container->id : 0,
			.target = region->target ? region->target->id : 0,
			.prio = region->prio,
			.at = region->at,
			.last = region->last,
			.offset = region->offset,
			.hva = region->hva,
		};
		memcpy(info[i].name, region->name, sizeof(info[i].name));
	}
	kvfree(list);
	return map->tree.nr_regions;
}

static int fill_spaces(struct gpamap *map, struct gpamap_query *cmd, void *out)
{
	struct gpamap_space_info *info = out;
	struct gpamap_space *space;
	unsigned long id;

	if (!out)
		return map->tree.nr_spaces;
	xa_for_each(&map->tree.spaces, id, space) {
		*info = (struct gpamap_space_info){
			.id = space->id,
			.kind = space->kind,
			.root = space->root->region->id,
			.as_id = space->as_id,
			.nr_ranges = space->root->view->nr,
		};
		memcpy(info->name, space->name, sizeof(info->name));
		info++;
	}
	return info - (struct gpamap_space_info *)out;
}

static int fill_ranges(struct gpamap *map, struct gpamap_query *cmd, void *out)
{
	struct gpamap_space *space = gpamap_tree_space(&map->tree, cmd->space);
	struct gpamap_range_info *info = out;
	const struct gpamap_range *range;
	struct gpamap_shadow shadow;
	struct gpamap_cursor cursor;
	int rc;

	if (!space)
		return -ENOENT;
	if (!out)
		return space->root->view->nr;
	rc = gpamap_shadow_begin(map, cmd->space, &shadow);
	if (rc)
		return rc;
	range = gpamap_flatview_first(&cursor, space->root->view);
	for (; range; range = gpamap_flatview_next(&cursor)) {
		*info++ = (struct gpamap_range_info){
			.start = range->start,
			.last = range->last,
			.offset = range->offset,
			.region = range->region->id,
			.kind = range->region->kind,
			.flags = gpamap_shadow_flags(map, &shadow, range),
			.prio = range->region->prio,
		};
		cond_resched();
	}
	gpamap_shadow_end(&shadow);
	return space->root->view->nr;
}

static int fill_slots(struct gpamap *map, struct gpamap_query *cmd, void *out)
{
	struct gpamap_slot_info *info = out;
	const struct gpamap_region *region;
	struct gpamap_slot *slot;
	unsigned long gfn;
	u32 as;

	for (as = 0; out && as < GPAMAP_NR_AS; as++) {
		xa_for_each(&map->slots.as[as], gfn, slot) {
			region = gpamap_map_slot_region(map, slot);
			*info++ = (struct gpamap_slot_info){
				.gpa = slot->gpa,
				.npages = slot->npages,
				.hva = slot->hva,
				.region = region ? region->id : 0,
				.slot = slot->as_id << 16 | slot->id,
				.flags = slot->readonly ? KVM_MEM_READONLY : 0,
			};
			cond_resched();
		}
	}
	return map->slots.nr;
}

static int fill_stats(struct gpamap *map, struct gpamap_query *cmd, void *out)
{
	if (out)
		*(struct gpamap_stats *)out = map->stats;
	return 1;
}

static int fill_counters(struct gpamap *map, struct gpamap_query *cmd, void *out)
{
	struct gpamap_counters *counters = out;
	struct gpamap_region *region;
	unsigned long id;
	u32 nr = 0;

	xa_for_each(&map->tree.regions, id, region) {
		const struct gpamap_io *io = gpamap_region_io(region);

		cond_resched();
		if (!io)
			continue;
		if (out)
			counters[nr] = (struct gpamap_counters){
				.region = id,
				.reads = atomic64_read(&io->counts[GPAMAP_COUNT_READS]),
				.writes = atomic64_read(&io->counts[GPAMAP_COUNT_WRITES]),
				.exits = atomic64_read(&io->counts[GPAMAP_COUNT_EXITS]),
				.doorbells = atomic64_read(&io->counts[GPAMAP_COUNT_DOORBELLS]),
				.posted = atomic64_read(&io->counts[GPAMAP_COUNT_POSTED]),
			};
		nr++;
	}
	return nr;
}

static int fill_layout(struct gpamap *map, struct gpamap_query *cmd, void *out)
{
	struct gpamap_layout *layout = out;

	if (out) {
		gpamap_exits_layout(&layout[0]);
		gpamap_registers_layout(&layout[1]);
		gpamap_ring_layout(&layout[2]);
	}
	return 3;
}

static const struct {
	u32 size;		/* of a record as this kernel knows it */
	u32 min_size;		/* of its first version */
	int (*fill)(struct gpamap *map, struct gpamap_query *cmd, void *out);
} queries[] = {
	[GPAMAP_QUERY_INFO] = { sizeof(struct gpamap_info),
		offsetofend(struct gpamap_info, __reserved), fill_info },
	[GPAMAP_QUERY_REGIONS] = { sizeof(struct gpamap_region_info),
		offsetofend(struct gpamap_region_info, name), fill_regions },
	[GPAMAP_QUERY_SPACES] = { sizeof(struct gpamap_space_info),
		offsetofend(struct gpamap_space_info, name), fill_spaces },
	[GPAMAP_QUERY_RANGES] = { sizeof(struct gpamap_range_info),
		offsetofend(struct gpamap_range_info, prio), fill_ranges },
	[GPAMAP_QUERY_SLOTS] = { sizeof(struct gpamap_slot_info),
		offsetofend(struct gpamap_slot_info, __reserved), fill_slots },
	[GPAMAP_QUERY_STATS] = { sizeof(struct gpamap_stats),
		offsetofend(struct gpamap_stats, rollbacks), fill_stats },
	[GPAMAP_QUERY_COUNTERS] = { sizeof(struct gpamap_counters),
		offsetofend(struct gpamap_counters, posted), fill_counters },
	[GPAMAP_QUERY_LAYOUT] = { sizeof(struct gpamap_layout),
		offsetofend(struct gpamap_layout, block_size), fill_layout },
};

static int copy_records(const struct gpamap_query *cmd, const void *records, u32 size)
{
	u32 known = min(size, cmd->record_size);
	u64 to = cmd->records;
	u32 i;

	for (i = 0; i < cmd->count; i++, to += cmd->record_size, records += size) {
		cond_resched();
		if (copy_to_user(u64_to_user_ptr(to), records, known) ||
		    clear_user(u64_to_user_ptr(to + known), cmd->record_size - known))
			return -EFAULT;
	}
	return 0;
}

/* The records of @cmd in one array, which the caller frees with kvfree(). */
static int make_records(struct gpamap *map, struct gpamap_query *cmd, u32 what,
			void **records)
{
	u32 room = cmd->count;
	int n;

	lockdep_assert_held(&map->lock);

	cmd->out_generation = map->generation;
	n = queries[what].fill(map, cmd, NULL);
	if (n < 0)
		return n;
	cmd->count = n;
	if (n > room)
		return -EMSGSIZE;
	*records = kvcalloc(n, queries[what].size, GPAMAP_GFP);
	if (!*records)
		return -ENOMEM;
	n = queries[what].fill(map, cmd, *records);
	if (n < 0)
		return n;
	return 0;
}

int gpamap_query(struct gpamap *map, void *arg)
{
	struct gpamap_query *cmd = arg;
	void *records = NULL;
	u32 what = cmd->what;
	int rc;

	if (cmd->flags || what >= ARRAY_SIZE(queries))
		return -EOPNOTSUPP;
	what = array_index_nospec(what, ARRAY_SIZE(queries));
	if (!queries[what].fill)
		return -EOPNOTSUPP;
	if (cmd->record_size < queries[what].min_size || cmd->record_size % 8 ||
	    (cmd->space && what != GPAMAP_QUERY_RANGES))
		return -EINVAL;
	if (cmd->record_size > PAGE_SIZE)
		return -E2BIG;

	rc = gpamap_map_lock_killable(map);
	if (rc)
		return rc;
	rc = make_records(map, cmd, what, &records);
	gpamap_map_unlock(map);
	if (!rc)
		rc = copy_records(cmd, records, queries[what].size);
	kvfree(records);
	return rc;
}

static int look_up(struct gpamap *map, struct gpamap_lookup *cmd)
{
	const struct gpamap_snapshot *snapshot;
	const struct gpamap_range *range;
	int rc = -ENOENT;

	rcu_read_lock();
	/* Pairs with show(). */
	snapshot = rcu_dereference(map->dispatch.snapshot);
	range = gpamap_snapshot_find(snapshot, cmd->space, cmd->addr);
	if (range) {
		cmd->out_generation = snapshot->generation;
		cmd->out_offset = range->offset + (cmd->addr - range->start);
		cmd->out_last = range->last;
		cmd->out_region = range->region->id;
		cmd->out_kind = range->region->kind;
		cmd->out_hva = range->region->hva ?
				       range->region->hva + cmd->out_offset : 0;
		rc = gpamap_shadow_flags_rcu(map, snapshot, cmd->space, range, &cmd->out_flags);
	}
	rcu_read_unlock();
	return rc;
}

int gpamap_lookup(struct gpamap *map, void *arg)
{
	struct gpamap_lookup *cmd = arg;
	int rc;

	if (cmd->flags)
		return -EOPNOTSUPP;
	if (cmd->__reserved || cmd->__reserved2)
		return -EINVAL;

	rc = look_up(map, cmd);
	if (rc != -EBUSY)
		return rc;
	/* With the lock nobody holds vCPUs. */
	rc = gpamap_map_lock_killable(map);
	if (rc)
		return rc;
	rc = look_up(map, cmd);
	gpamap_map_unlock(map);
	return rc;
}
