// SPDX-License-Identifier: GPL-2.0
/*
 * The ioctls of /dev/gpamap as calls that return 0 or -errno, the operations of a
 * batch as values, and the state of a map as something that can be compared.
 *
 * Nothing here judges: whether an answer is right is said in the tests.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "gpamap_util.h"

int map_open(void)
{
	int fd = open(GPAMAP_DEVICE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int map_ioctl(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) ? -errno : 0;
}

int _test_cmd_attach_timed(int fd, int vm_fd, u32 first_slot, u32 nr_slots, u32 timeout_ms)
{
	struct gpamap_attach cmd = {
		.size = sizeof(cmd),
		.vm_fd = vm_fd,
		.first_slot = first_slot,
		.nr_slots = nr_slots,
		.timeout_ms = timeout_ms,
	};

	return map_ioctl(fd, GPAMAP_ATTACH, &cmd);
}

int _test_cmd_attach(int fd, int vm_fd, u32 first_slot, u32 nr_slots)
{
	return _test_cmd_attach_timed(fd, vm_fd, first_slot, nr_slots, 0);
}

int _test_cmd_detach_timed(int fd, u32 timeout_ms)
{
	struct gpamap_detach cmd = { .size = sizeof(cmd), .timeout_ms = timeout_ms };

	return map_ioctl(fd, GPAMAP_DETACH, &cmd);
}

int _test_cmd_detach(int fd)
{
	return _test_cmd_detach_timed(fd, 0);
}

static int apply(int fd, u32 flags, const struct gpamap_op *ops, u32 nr_ops, u32 timeout_ms,
		 struct gpamap_apply *out)
{
	*out = (struct gpamap_apply){
		.size = sizeof(*out),
		.flags = flags,
		.ops = (uintptr_t)ops,
		.nr_ops = nr_ops,
		.op_size = sizeof(*ops),
		.out_failed_op = 0x5eed,
		.timeout_ms = timeout_ms,
	};
	return map_ioctl(fd, GPAMAP_APPLY, out);
}

int _test_cmd_apply_timed(int fd, const struct gpamap_op *ops, u32 nr_ops, u32 timeout_ms,
			  struct gpamap_apply *out)
{
	return apply(fd, 0, ops, nr_ops, timeout_ms, out);
}

int _test_cmd_plan(int fd, u32 flags, const struct gpamap_op *ops, u32 nr_ops,
		   struct gpamap_apply *out)
{
	return apply(fd, flags, ops, nr_ops, 0, out);
}

int _test_cmd_apply(int fd, const struct gpamap_op *ops, u32 nr_ops, u32 *failed_op,
		    u64 *generation)
{
	struct gpamap_apply cmd;
	int rc = _test_cmd_plan(fd, 0, ops, nr_ops, &cmd);

	if (failed_op)
		*failed_op = cmd.out_failed_op;
	if (generation)
		*generation = cmd.out_generation;
	return rc;
}

int _test_cmd_query(int fd, u32 what, u32 space, void *records, u32 record_size,
		    u32 *count)
{
	struct gpamap_query cmd = {
		.size = sizeof(cmd),
		.what = what,
		.space = space,
		.records = (uintptr_t)records,
		.record_size = record_size,
		.count = *count,
	};
	int rc = map_ioctl(fd, GPAMAP_QUERY, &cmd);

	*count = cmd.count;
	return rc;
}

u32 record_size_of(u32 what)
{
	switch (what) {
	case GPAMAP_QUERY_INFO:
		return sizeof(struct gpamap_info);
	case GPAMAP_QUERY_REGIONS:
		return sizeof(struct gpamap_region_info);
	case GPAMAP_QUERY_SPACES:
		return sizeof(struct gpamap_space_info);
	case GPAMAP_QUERY_RANGES:
		return sizeof(struct gpamap_range_info);
	case GPAMAP_QUERY_SLOTS:
		return sizeof(struct gpamap_slot_info);
	case GPAMAP_QUERY_STATS:
		return sizeof(struct gpamap_stats);
	case GPAMAP_QUERY_COUNTERS:
		return sizeof(struct gpamap_counters);
	case GPAMAP_QUERY_LAYOUT:
		return sizeof(struct gpamap_layout);
	}
	return 0;
}

void *query_all(int fd, u32 what, u32 space, u32 *count)
{
	u32 size = record_size_of(what);
	void *records = NULL;
	u32 room = 64;
	int rc;

	/* The map may grow between two calls, if other threads use it. */
	do {
		free(records);
		records = calloc(room, size);
		if (!records)
			return NULL;
		*count = room;
		rc = _test_cmd_query(fd, what, space, records, size, count);
		room = *count;
	} while (rc == -EMSGSIZE);
	if (rc) {
		free(records);
		errno = -rc;
		return NULL;
	}
	return records;
}

struct gpamap_info query_info(int fd)
{
	struct gpamap_info info = { 0 };
	u32 count = 1;

	if (_test_cmd_query(fd, GPAMAP_QUERY_INFO, 0, &info, sizeof(info), &count))
		memset(&info, 0, sizeof(info));
	return info;
}

struct gpamap_stats query_stats(int fd)
{
	struct gpamap_stats stats = { 0 };
	u32 count = 1;

	if (_test_cmd_query(fd, GPAMAP_QUERY_STATS, 0, &stats, sizeof(stats), &count))
		memset(&stats, 0, sizeof(stats));
	return stats;
}

int _test_cmd_lookup(int fd, u32 space, u64 addr, struct gpamap_lookup *out)
{
	*out = (struct gpamap_lookup){
		.size = sizeof(*out),
		.space = space,
		.addr = addr,
	};
	return map_ioctl(fd, GPAMAP_LOOKUP, out);
}

int map_watch(int fd)
{
	struct gpamap_watch cmd = { .size = sizeof(cmd) };
	int rc = ioctl(fd, GPAMAP_WATCH, &cmd);

	return rc < 0 ? -errno : rc;
}

int polled(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) < 0 ? -errno : p.revents;
}

u64 news_take(int fd)
{
	u64 generation = 0;

	return read(fd, &generation, sizeof(generation)) == sizeof(generation) ? generation : 0;
}

static struct gpamap_op op_new(u32 id, u32 kind, u64 last)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_REGION,
		.id = id,
		.kind = kind,
		.last = last,
	};
}

struct gpamap_op op_container(u32 id, u64 last)
{
	return op_new(id, GPAMAP_REGION_CONTAINER, last);
}

struct gpamap_op op_ram(u32 id, u64 last, const void *hva)
{
	struct gpamap_op op = op_new(id, GPAMAP_REGION_RAM, last);

	op.hva = (uintptr_t)hva;
	return op;
}

struct gpamap_op op_rom(u32 id, u64 last, const void *hva)
{
	struct gpamap_op op = op_new(id, GPAMAP_REGION_ROM, last);

	op.hva = (uintptr_t)hva;
	return op;
}

struct gpamap_op op_io(u32 id, u64 last)
{
	return op_new(id, GPAMAP_REGION_IO, last);
}

struct gpamap_op op_romd(u32 id, u64 last, const void *hva)
{
	struct gpamap_op op = op_new(id, GPAMAP_REGION_ROMD, last);

	op.hva = (uintptr_t)hva;
	return op;
}

struct gpamap_op op_reserved(u32 id, u64 last)
{
	return op_new(id, GPAMAP_REGION_RESERVED, last);
}

struct gpamap_op op_alias(u32 id, u32 target, u64 offset, u64 last)
{
	struct gpamap_op op = op_new(id, GPAMAP_REGION_ALIAS, last);

	op.ref = target;
	op.offset = offset;
	return op;
}

struct gpamap_op op_flags(struct gpamap_op op, u32 flags)
{
	op.flags = flags;
	return op;
}

struct gpamap_op op_name(struct gpamap_op op, const char *name)
{
	strncpy((char *)op.name, name, sizeof(op.name) - 1);
	return op;
}

struct gpamap_op op_add(u32 id, u32 container, u64 at, s32 prio)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_ADD,
		.id = id,
		.ref = container,
		.at = at,
		.prio = prio,
	};
}

struct gpamap_op op_del(u32 id)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_DEL, .id = id };
}

struct gpamap_op op_destroy(u32 id)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_DESTROY, .id = id };
}

struct gpamap_op op_enable(u32 id, bool enabled)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_SET,
		.id = id,
		.mask = GPAMAP_SET_ENABLED,
		.flags = enabled ? 0 : GPAMAP_REGION_DISABLED,
	};
}

struct gpamap_op op_readonly(u32 id, bool readonly)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_SET,
		.id = id,
		.mask = GPAMAP_SET_READONLY,
		.flags = readonly ? GPAMAP_REGION_READONLY : 0,
	};
}

struct gpamap_op op_at(u32 id, u64 at)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_SET,
		.id = id,
		.mask = GPAMAP_SET_AT,
		.at = at,
	};
}

struct gpamap_op op_prio(u32 id, s32 prio)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_SET,
		.id = id,
		.mask = GPAMAP_SET_PRIO,
		.prio = prio,
	};
}

struct gpamap_op op_offset(u32 id, u64 offset)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_SET,
		.id = id,
		.mask = GPAMAP_SET_OFFSET,
		.offset = offset,
	};
}

struct gpamap_op op_last(u32 id, u64 last)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_SET,
		.id = id,
		.mask = GPAMAP_SET_LAST,
		.last = last,
	};
}

struct gpamap_op op_romd_mode(u32 id, bool on)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_SET,
		.id = id,
		.mask = GPAMAP_SET_ROMD,
		.flags = on ? GPAMAP_REGION_ROMD_MODE : 0,
	};
}

struct gpamap_op op_cut_ahead(u32 id, bool on)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_SET,
		.id = id,
		.mask = GPAMAP_SET_CUT_AHEAD,
		.flags = on ? GPAMAP_REGION_CUT_AHEAD : 0,
	};
}

struct gpamap_op op_memory_space(u32 id, u32 root, u32 as_id)
{
	struct gpamap_op op = op_space(id, GPAMAP_SPACE_MEMORY, root);

	op.as_id = as_id;
	return op;
}

struct gpamap_op op_space(u32 id, u32 kind, u32 root)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_SPACE,
		.id = id,
		.kind = kind,
		.ref = root,
	};
}

struct gpamap_op op_space_destroy(u32 id)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_SPACE_DESTROY, .id = id };
}

struct gpamap_op op_doorbell(u32 id, u64 offset, u32 len, int fd)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_DOORBELL,
		.id = id,
		.offset = offset,
		.len = len,
		.fd = fd,
	};
}

struct gpamap_op op_doorbell_match(u32 id, u64 offset, u32 len, u64 value, int fd)
{
	struct gpamap_op op = op_doorbell(id, offset, len, fd);

	op.flags = GPAMAP_DOORBELL_MATCH;
	op.value = value;
	return op;
}

struct gpamap_op op_registers(u32 id, const struct gpamap_register *registers, u32 nr)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_REGISTERS,
		.id = id,
		.items = (uintptr_t)registers,
		.nr = nr,
		.item_size = sizeof(*registers),
	};
}

struct gpamap_op op_registers_remove(u32 id)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_REGISTERS,
		.id = id,
		.flags = GPAMAP_REGISTERS_REMOVE,
	};
}

struct gpamap_op op_handler(u32 id, const char *name, u64 arg)
{
	const struct gpamap_op op = {
		.code = GPAMAP_OP_HANDLER,
		.id = id,
		.value = arg,
	};

	return op_name(op, name);
}

struct gpamap_op op_handler_remove(u32 id)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_HANDLER,
		.id = id,
		.flags = GPAMAP_HANDLER_REMOVE,
	};
}

struct gpamap_op op_post(u32 id, u32 ring)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_POST, .id = id, .ref = ring };
}

struct gpamap_op op_post_remove(u32 id)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_POST,
		.id = id,
		.flags = GPAMAP_POST_REMOVE,
	};
}

struct gpamap_op op_policy(u32 id, u32 policy)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_POLICY, .id = id, .kind = policy };
}

struct gpamap_op op_untie(u32 id, u32 mask)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_UNTIE, .id = id, .mask = mask };
}

/* -- ties by commands of their own ----------------------------------------- */

int doorbell_add(int fd, u32 region, u64 offset, u32 len, int bell)
{
	struct gpamap_doorbell cmd = {
		.size = sizeof(cmd),
		.region = region,
		.offset = offset,
		.len = len,
		.fd = bell,
	};

	return map_ioctl(fd, GPAMAP_DOORBELL, &cmd);
}

int registers_set(int fd, u32 region, const struct gpamap_register *registers, u32 nr)
{
	struct gpamap_registers cmd = {
		.size = sizeof(cmd),
		.region = region,
		.nr = nr,
		.register_size = sizeof(*registers),
		.registers = (uintptr_t)registers,
	};

	return map_ioctl(fd, GPAMAP_REGISTERS, &cmd);
}

int handler_set(int fd, u32 region, const char *name, u64 arg)
{
	struct gpamap_handler cmd = {
		.size = sizeof(cmd),
		.region = region,
		.arg = arg,
	};

	strncpy((char *)cmd.name, name, sizeof(cmd.name) - 1);
	return map_ioctl(fd, GPAMAP_HANDLER, &cmd);
}

int ring_add(int fd, u32 ring, u32 nr_entries, int bell)
{
	struct gpamap_ring cmd = {
		.size = sizeof(cmd),
		.id = ring,
		.nr_entries = nr_entries,
		.watermark = 1,
		.fd = bell,
	};

	return map_ioctl(fd, GPAMAP_RING, &cmd);
}

int post_add(int fd, u32 region, u32 ring)
{
	struct gpamap_post cmd = { .size = sizeof(cmd), .region = region, .ring = ring };

	return map_ioctl(fd, GPAMAP_POST, &cmd);
}

int policy_set(int fd, u32 region, u32 policy)
{
	struct gpamap_policy cmd = { .size = sizeof(cmd), .region = region, .policy = policy };

	return map_ioctl(fd, GPAMAP_POLICY, &cmd);
}

/* -- snapshots ------------------------------------------------------------- */

/* One answer of QUERY. */
struct section {
	u32 what;
	u32 space;
	u32 count;
	void *records;
};

struct snapshot {
	u32 nr;
	struct section sections[4 + GPAMAP_MAX_SPACES];
};

static const char * const section_names[] = {
	[GPAMAP_QUERY_INFO] = "info",
	[GPAMAP_QUERY_REGIONS] = "regions",
	[GPAMAP_QUERY_SPACES] = "spaces",
	[GPAMAP_QUERY_RANGES] = "ranges",
	[GPAMAP_QUERY_SLOTS] = "slots",
};

static struct section *section_take(struct snapshot *snap, int fd, u32 what, u32 space)
{
	struct section *section = &snap->sections[snap->nr];

	section->what = what;
	section->space = space;
	section->records = query_all(fd, what, space, &section->count);
	if (!section->records)
		return NULL;
	snap->nr++;
	return section;
}

struct snapshot *snapshot_take(int fd)
{
	struct snapshot *snap = calloc(1, sizeof(*snap));
	const struct gpamap_space_info *spaces;
	struct section *section;
	u32 i;

	if (!snap)
		return NULL;
	if (!section_take(snap, fd, GPAMAP_QUERY_INFO, 0) ||
	    !section_take(snap, fd, GPAMAP_QUERY_REGIONS, 0) ||
	    !section_take(snap, fd, GPAMAP_QUERY_SLOTS, 0))
		goto err;
	section = section_take(snap, fd, GPAMAP_QUERY_SPACES, 0);
	if (!section || section->count > GPAMAP_MAX_SPACES)
		goto err;
	spaces = section->records;
	for (i = 0; i < section->count; i++)
		if (!section_take(snap, fd, GPAMAP_QUERY_RANGES, spaces[i].id))
			goto err;
	return snap;
err:
	snapshot_free(snap);
	return NULL;
}

void snapshot_free(struct snapshot *snap)
{
	u32 i;

	for (i = 0; snap && i < snap->nr; i++)
		free(snap->sections[i].records);
	free(snap);
}

static void record_print(char *buf, size_t len, u32 what, const void *record)
{
	const struct gpamap_region_info *region = record;
	const struct gpamap_range_info *range = record;
	const struct gpamap_space_info *space = record;
	const struct gpamap_slot_info *slot = record;
	const struct gpamap_info *info = record;

	switch (what) {
	case GPAMAP_QUERY_INFO:
		snprintf(buf, len,
			 "generation %llu state %u regions %u spaces %u slots %u used %u",
			 info->generation, info->state, info->nr_regions,
			 info->nr_spaces, info->nr_slots, info->used_slots);
		break;
	case GPAMAP_QUERY_REGIONS:
		snprintf(buf, len,
			 "id %u kind %u flags %u container %u target %u prio %d at 0x%llx last 0x%llx offset 0x%llx hva 0x%llx '%.64s'",
			 region->id, region->kind, region->flags, region->container,
			 region->target, region->prio, region->at, region->last,
			 region->offset, region->hva, region->name);
		break;
	case GPAMAP_QUERY_SPACES:
		snprintf(buf, len, "id %u kind %u root %u ranges %u '%.64s'", space->id,
			 space->kind, space->root, space->nr_ranges, space->name);
		break;
	case GPAMAP_QUERY_RANGES:
		snprintf(buf, len,
			 "%llx-%llx region %u offset 0x%llx kind %u flags %u prio %d",
			 range->start, range->last, range->region, range->offset,
			 range->kind, range->flags, range->prio);
		break;
	case GPAMAP_QUERY_SLOTS:
		snprintf(buf, len, "gpa 0x%llx npages %llu hva 0x%llx slot %u flags %u region %u",
			 slot->gpa, slot->npages, slot->hva, slot->slot, slot->flags,
			 slot->region);
		break;
	}
}

static char why[2048];

/* All sections but those that are in @skip, a bit for each kind. */
static const char *diff(const struct snapshot *a, const struct snapshot *b, u32 skip)
{
	char was[512], is[512];
	u32 i, j, size;

	for (i = 0; i < a->nr && i < b->nr; i++) {
		const struct section *x = &a->sections[i], *y = &b->sections[i];

		if (skip & 1 << x->what)
			continue;
		size = record_size_of(x->what);
		if (x->space != y->space || x->count != y->count) {
			snprintf(why, sizeof(why), "%s %u: were %u, are %u",
				 section_names[x->what], x->space, x->count, y->count);
			return why;
		}
		for (j = 0; j < x->count; j++) {
			const char *p = (char *)x->records + j * size;
			const char *q = (char *)y->records + j * size;

			if (!memcmp(p, q, size))
				continue;
			record_print(was, sizeof(was), x->what, p);
			record_print(is, sizeof(is), x->what, q);
			snprintf(why, sizeof(why), "%s %u, record %u: was %s; is %s",
				 section_names[x->what], x->space, j, was, is);
			return why;
		}
	}
	return a->nr == b->nr ? NULL : "number of spaces";
}

const char *snapshot_diff(const struct snapshot *a, const struct snapshot *b)
{
	return diff(a, b, 0);
}

const char *snapshot_diff_views(const struct snapshot *a, const struct snapshot *b)
{
	return diff(a, b, 1 << GPAMAP_QUERY_INFO | 1 << GPAMAP_QUERY_SLOTS);
}

const char *view_diff(int fd, u32 space, const struct want_range *want, u32 nr)
{
	struct gpamap_range_info *ranges;
	char is[512];
	u32 i, count;

	ranges = query_all(fd, GPAMAP_QUERY_RANGES, space, &count);
	if (!ranges)
		return "QUERY failed";
	for (i = 0; i < nr && i < count; i++) {
		if (ranges[i].start == want[i].start && ranges[i].last == want[i].last &&
		    ranges[i].region == want[i].region &&
		    ranges[i].offset == want[i].offset &&
		    ranges[i].flags == want[i].flags)
			continue;
		break;
	}
	if (i == nr && i == count) {
		free(ranges);
		return NULL;
	}
	if (i < count)
		record_print(is, sizeof(is), GPAMAP_QUERY_RANGES, &ranges[i]);
	else
		strcpy(is, "missing");
	free(ranges);
	if (i == nr)
		snprintf(why, sizeof(why), "view %u: range %u is one too many: %s", space, i,
			 is);
	else
		snprintf(why, sizeof(why),
			 "view %u: range %u should be %llx-%llx region %u offset 0x%llx flags %u, is %s",
			 space, i, (unsigned long long)want[i].start,
			 (unsigned long long)want[i].last, want[i].region,
			 (unsigned long long)want[i].offset, want[i].flags, is);
	return why;
}

const char *slots_diff(int fd, const struct want_slot *want, u32 nr)
{
	struct gpamap_slot_info *slots;
	char is[512];
	u32 i, count;

	slots = query_all(fd, GPAMAP_QUERY_SLOTS, 0, &count);
	if (!slots)
		return "QUERY failed";
	for (i = 0; i < nr && i < count; i++) {
		if (slots[i].gpa == want[i].gpa && slots[i].npages == want[i].npages &&
		    slots[i].hva == (uintptr_t)want[i].hva &&
		    slots[i].slot == want[i].slot && slots[i].flags == want[i].flags)
			continue;
		break;
	}
	if (i == nr && i == count) {
		free(slots);
		return NULL;
	}
	if (i < count)
		record_print(is, sizeof(is), GPAMAP_QUERY_SLOTS, &slots[i]);
	else
		strcpy(is, "missing");
	free(slots);
	if (i == nr)
		snprintf(why, sizeof(why), "slot %u is one too many: %s", i, is);
	else
		snprintf(why, sizeof(why),
			 "slot %u should be gpa 0x%llx npages %llu hva %p slot %u flags %u, is %s",
			 i, (unsigned long long)want[i].gpa,
			 (unsigned long long)want[i].npages, want[i].hva, want[i].slot,
			 want[i].flags, is);
	return why;
}

/* -- odds and ends --------------------------------------------------------- */

u64 env_number(const char *name, u64 otherwise)
{
	const char *value = getenv(name);

	return value && *value ? strtoull(value, NULL, 0) : otherwise;
}

void rnd_seed(struct rnd *rnd, u64 seed)
{
	rnd->state = seed;
}

/* splitmix64 */
u64 rnd_next(struct rnd *rnd)
{
	u64 z = (rnd->state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

u64 test_seed(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return env_number("SEED", (u64)ts.tv_nsec ^ ((u64)ts.tv_sec << 20) ^ getpid());
}

u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

union fd_control {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

int fd_send(int sock, int fd)
{
	union fd_control control = { { 0 } };
	struct iovec iov = { .iov_base = "x", .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	return sendmsg(sock, &msg, 0) == 1 ? 0 : -errno;
}

int fd_receive(int sock)
{
	union fd_control control;
	char c;
	struct iovec iov = { .iov_base = &c, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg;
	int fd;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1)
		return -EIO;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		return -EBADMSG;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

int scratch_find(unsigned long *start, unsigned long *end)
{
	FILE *file = fopen("/proc/self/maps", "re");
	unsigned long from, to;
	char line[512];
	int n = 0;

	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file)) {
		if (!strstr(line, "gpamap-scratch") ||
		    sscanf(line, "%lx-%lx", &from, &to) != 2)
			continue;
		if (!n++ && start) {
			*start = from;
			*end = to;
		}
	}
	fclose(file);
	return n;
}

int scratch_unmap(void)
{
	unsigned long start, end;
	int n = 0;

	while (scratch_find(&start, &end) > 0) {
		if (munmap((void *)start, end - start))
			return -errno;
		n++;
	}
	return n;
}

#define PARAMETERS "/sys/module/gpamap/parameters/"

int module_param_set(const char *name, u64 value)
{
	char path[128];
	FILE *file;
	int rc = 0;

	snprintf(path, sizeof(path), PARAMETERS "%s", name);
	file = fopen(path, "we");
	if (!file)
		return -errno;
	if (fprintf(file, "%llu\n", (unsigned long long)value) < 0)
		rc = -errno;
	if (fclose(file))
		rc = -errno;
	return rc;
}

s64 module_param_get(const char *name)
{
	long long value = -EIO;
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), PARAMETERS "%s", name);
	file = fopen(path, "re");
	if (!file)
		return -errno;
	if (fscanf(file, "%lld", &value) != 1)
		value = -EIO;
	fclose(file);
	return value;
}

int module_refcnt(const char *module)
{
	char path[128];
	FILE *file;
	int n;

	snprintf(path, sizeof(path), "/sys/module/%s/refcnt", module);
	file = fopen(path, "re");
	if (!file)
		return -errno;
	if (fscanf(file, "%d", &n) != 1)
		n = -EIO;
	fclose(file);
	return n;
}

/* KVM has a directory PID-FD in debugfs for every VM, until it is destroyed. */
int kvm_vms(void)
{
	DIR *dir = opendir("/sys/kernel/debug/kvm");
	struct dirent *entry;
	int n = 0;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir)))
		n += entry->d_type == DT_DIR && strchr(entry->d_name, '-');
	closedir(dir);
	return n;
}

bool kvm_nested_paging(void)
{
	static const char *const names[] = {
		"/sys/module/kvm_amd/parameters/npt",
		"/sys/module/kvm_intel/parameters/ept",
	};
	int c = 'N';
	u32 i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		FILE *file = fopen(names[i], "re");

		if (!file)
			continue;
		c = fgetc(file);
		fclose(file);
	}
	return c == 'Y' || c == '1';
}
