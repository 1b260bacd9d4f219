// SPDX-License-Identifier: LGPL-2.1-only OR MIT
/*
 * Batches: an array of operations that grows, and one short function for every
 * operation that fills an element; those of ties are in tie.c. Nothing but the length of a
 * name is checked; what an operation may hold is the kernel's business.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "internal.h"

int gpamap_batch_new(struct gpamap_batch **out)
{
	struct gpamap_batch *batch;
	int saved = errno;

	batch = calloc(1, sizeof(*batch));
	errno = saved;
	if (!batch)
		return -ENOMEM;
	*out = batch;
	return 0;
}

void gpamap_batch_free(struct gpamap_batch *batch)
{
	if (!batch)
		return;
	free(batch->ops);
	free(batch);
}

void gpamap_batch_reset(struct gpamap_batch *batch)
{
	batch->nr = 0;
	batch->err = 0;
}

uint32_t gpamap_batch_count(const struct gpamap_batch *batch)
{
	return batch->nr;
}

const struct gpamap_op *gpamap_batch_get(const struct gpamap_batch *batch, uint32_t index)
{
	return index < batch->nr ? &batch->ops[index] : NULL;
}

int gpamap_batch_fail(struct gpamap_batch *batch, int err)
{
	if (!batch->err)
		batch->err = err;
	return err;
}

int gpamap_batch_op(struct gpamap_batch *batch, const struct gpamap_op *op)
{
	/* It may be one of the batch's own, which move. */
	const struct gpamap_op copy = *op;
	int saved = errno;

	if (batch->nr == batch->max) {
		uint32_t max = batch->max ? 2 * batch->max : 16;
		struct gpamap_op *ops;

		if (max <= batch->max)
			return gpamap_batch_fail(batch, -ENOMEM);
		ops = reallocarray(batch->ops, max, sizeof(*ops));
		errno = saved;
		if (!ops)
			return gpamap_batch_fail(batch, -ENOMEM);
		batch->ops = ops;
		batch->max = max;
	}
	batch->ops[batch->nr++] = copy;
	return 0;
}

int gpamap_batch_named(struct gpamap_batch *batch, struct gpamap_op *op, const char *name)
{
	size_t len = name ? strlen(name) : 0;

	if (len >= sizeof(op->name))
		return gpamap_batch_fail(batch, -EINVAL);
	if (len)
		memcpy(op->name, name, len);
	return gpamap_batch_op(batch, op);
}

static int batch_region(struct gpamap_batch *batch, uint32_t id, uint32_t kind,
			uint32_t flags, const char *name, uint64_t last, const void *mem)
{
	struct gpamap_op op = {
		.code = GPAMAP_OP_REGION,
		.id = id,
		.kind = kind,
		.flags = flags,
		.last = last,
		.hva = (uintptr_t)mem,
	};

	return gpamap_batch_named(batch, &op, name);
}

int gpamap_batch_container(struct gpamap_batch *batch, uint32_t id, const char *name,
			   uint64_t last)
{
	return batch_region(batch, id, GPAMAP_REGION_CONTAINER, 0, name, last, NULL);
}

int gpamap_batch_ram(struct gpamap_batch *batch, uint32_t id, const char *name,
		     uint64_t last, const void *mem)
{
	return batch_region(batch, id, GPAMAP_REGION_RAM, 0, name, last, mem);
}

int gpamap_batch_rom(struct gpamap_batch *batch, uint32_t id, const char *name,
		     uint64_t last, const void *mem)
{
	return batch_region(batch, id, GPAMAP_REGION_ROM, 0, name, last, mem);
}

int gpamap_batch_io(struct gpamap_batch *batch, uint32_t id, const char *name,
		    uint64_t last)
{
	return batch_region(batch, id, GPAMAP_REGION_IO, 0, name, last, NULL);
}

int gpamap_batch_romd(struct gpamap_batch *batch, uint32_t id, const char *name,
		      uint64_t last, const void *mem)
{
	return batch_region(batch, id, GPAMAP_REGION_ROMD, GPAMAP_REGION_ROMD_MODE, name,
			    last, mem);
}

int gpamap_batch_reserved(struct gpamap_batch *batch, uint32_t id, const char *name,
			  uint64_t last)
{
	return batch_region(batch, id, GPAMAP_REGION_RESERVED, 0, name, last, NULL);
}

int gpamap_batch_alias(struct gpamap_batch *batch, uint32_t id, const char *name,
		       uint64_t last, uint32_t target, uint64_t offset)
{
	struct gpamap_op op = {
		.code = GPAMAP_OP_REGION,
		.id = id,
		.kind = GPAMAP_REGION_ALIAS,
		.last = last,
		.ref = target,
		.offset = offset,
	};

	return gpamap_batch_named(batch, &op, name);
}

int gpamap_batch_add(struct gpamap_batch *batch, uint32_t id, uint32_t container,
		     uint64_t at, int32_t prio)
{
	struct gpamap_op op = {
		.code = GPAMAP_OP_ADD,
		.id = id,
		.ref = container,
		.at = at,
		.prio = prio,
	};

	return gpamap_batch_op(batch, &op);
}

int gpamap_batch_del(struct gpamap_batch *batch, uint32_t id)
{
	struct gpamap_op op = { .code = GPAMAP_OP_DEL, .id = id };

	return gpamap_batch_op(batch, &op);
}

int gpamap_batch_destroy(struct gpamap_batch *batch, uint32_t id)
{
	struct gpamap_op op = { .code = GPAMAP_OP_DESTROY, .id = id };

	return gpamap_batch_op(batch, &op);
}

static int batch_set_flags(struct gpamap_batch *batch, uint32_t id, uint32_t mask,
			   uint32_t flags)
{
	struct gpamap_op op = {
		.code = GPAMAP_OP_SET,
		.id = id,
		.mask = mask,
		.flags = flags,
	};

	return gpamap_batch_op(batch, &op);
}

int gpamap_batch_set_enabled(struct gpamap_batch *batch, uint32_t id, bool enabled)
{
	return batch_set_flags(batch, id, GPAMAP_SET_ENABLED,
			       enabled ? 0 : GPAMAP_REGION_DISABLED);
}

int gpamap_batch_set_readonly(struct gpamap_batch *batch, uint32_t id, bool readonly)
{
	return batch_set_flags(batch, id, GPAMAP_SET_READONLY,
			       readonly ? GPAMAP_REGION_READONLY : 0);
}

int gpamap_batch_set_nonvolatile(struct gpamap_batch *batch, uint32_t id,
				 bool nonvolatile)
{
	return batch_set_flags(batch, id, GPAMAP_SET_NONVOLATILE,
			       nonvolatile ? GPAMAP_REGION_NONVOLATILE : 0);
}

int gpamap_batch_set_unmergeable(struct gpamap_batch *batch, uint32_t id,
				 bool unmergeable)
{
	return batch_set_flags(batch, id, GPAMAP_SET_UNMERGEABLE,
			       unmergeable ? GPAMAP_REGION_UNMERGEABLE : 0);
}

int gpamap_batch_set_cut_ahead(struct gpamap_batch *batch, uint32_t id, bool cut_ahead)
{
	return batch_set_flags(batch, id, GPAMAP_SET_CUT_AHEAD,
			       cut_ahead ? GPAMAP_REGION_CUT_AHEAD : 0);
}

int gpamap_batch_set_romd(struct gpamap_batch *batch, uint32_t id, bool romd)
{
	return batch_set_flags(batch, id, GPAMAP_SET_ROMD,
			       romd ? GPAMAP_REGION_ROMD_MODE : 0);
}

int gpamap_batch_set_last(struct gpamap_batch *batch, uint32_t id, uint64_t last)
{
	struct gpamap_op op = {
		.code = GPAMAP_OP_SET,
		.id = id,
		.mask = GPAMAP_SET_LAST,
		.last = last,
	};

	return gpamap_batch_op(batch, &op);
}

int gpamap_batch_set_at(struct gpamap_batch *batch, uint32_t id, uint64_t at)
{
	struct gpamap_op op = {
		.code = GPAMAP_OP_SET,
		.id = id,
		.mask = GPAMAP_SET_AT,
		.at = at,
	};

	return gpamap_batch_op(batch, &op);
}

int gpamap_batch_set_prio(struct gpamap_batch *batch, uint32_t id, int32_t prio)
{
	struct gpamap_op op = {
		.code = GPAMAP_OP_SET,
		.id = id,
		.mask = GPAMAP_SET_PRIO,
		.prio = prio,
	};

	return gpamap_batch_op(batch, &op);
}

int gpamap_batch_set_offset(struct gpamap_batch *batch, uint32_t id, uint64_t offset)
{
	struct gpamap_op op = {
		.code = GPAMAP_OP_SET,
		.id = id,
		.mask = GPAMAP_SET_OFFSET,
		.offset = offset,
	};

	return gpamap_batch_op(batch, &op);
}

static int batch_space(struct gpamap_batch *batch, uint32_t id, const char *name,
		       uint32_t kind, uint32_t root, uint32_t as_id)
{
	struct gpamap_op op = {
		.code = GPAMAP_OP_SPACE,
		.id = id,
		.kind = kind,
		.ref = root,
		.as_id = as_id,
	};

	return gpamap_batch_named(batch, &op, name);
}

int gpamap_batch_space(struct gpamap_batch *batch, uint32_t id, const char *name,
		       uint32_t kind, uint32_t root)
{
	return batch_space(batch, id, name, kind, root, 0);
}

int gpamap_batch_memory_space(struct gpamap_batch *batch, uint32_t id, const char *name,
			      uint32_t root, uint32_t as_id)
{
	return batch_space(batch, id, name, GPAMAP_SPACE_MEMORY, root, as_id);
}

int gpamap_batch_space_destroy(struct gpamap_batch *batch, uint32_t id)
{
	struct gpamap_op op = { .code = GPAMAP_OP_SPACE_DESTROY, .id = id };

	return gpamap_batch_op(batch, &op);
}

int gpamap_batch_tidy(struct gpamap_batch *batch)
{
	struct gpamap_op op = { .code = GPAMAP_OP_TIDY };

	return gpamap_batch_op(batch, &op);
}
