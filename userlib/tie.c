// SPDX-License-Identifier: LGPL-2.1-only OR MIT
/*
 * What is tied to regions: doorbells, registers, handlers, membership of rings, policies.
 *
 * Each is an operation of a batch, made by one function here. The functions that tie one
 * thing at once put that operation into a batch of their own and apply it. They drain no
 * rings: what is posted names regions, and none of these takes a region away.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"

static int apply_one(struct gpamap *map, const struct gpamap_batch *batch)
{
	struct gpamap_apply out;

	/* No region has that id, which an operation could not even name. */
	if (batch->nr && !batch->ops[0].id)
		return -ENOENT;
	return gpamap_commit(map, batch, 0, &out);
}

/* ---- doorbells -------------------------------------------------------- */

static int batch_doorbell(struct gpamap_batch *batch, uint32_t flags, uint32_t region,
			  uint64_t offset, uint32_t len, uint64_t value, int fd)
{
	const struct gpamap_op op = {
		.code = GPAMAP_OP_DOORBELL,
		.id = region,
		.flags = flags,
		.offset = offset,
		.len = len,
		.value = value,
		.fd = fd,
	};

	return gpamap_batch_op(batch, &op);
}

int gpamap_batch_doorbell(struct gpamap_batch *batch, uint32_t region, uint64_t offset,
			  uint32_t len, int fd)
{
	return batch_doorbell(batch, 0, region, offset, len, 0, fd);
}

int gpamap_batch_doorbell_fast(struct gpamap_batch *batch, uint32_t region, uint64_t offset,
			       int fd)
{
	return batch_doorbell(batch, GPAMAP_DOORBELL_FAST, region, offset, 0, 0, fd);
}

int gpamap_batch_doorbell_match(struct gpamap_batch *batch, uint32_t region,
				uint64_t offset, uint32_t len, uint64_t value, int fd)
{
	return batch_doorbell(batch, GPAMAP_DOORBELL_MATCH, region, offset, len, value, fd);
}

int gpamap_batch_doorbell_remove(struct gpamap_batch *batch, uint32_t region,
				 uint64_t offset, uint32_t len, int fd)
{
	return batch_doorbell(batch, GPAMAP_DOORBELL_REMOVE, region, offset, len, 0, fd);
}

int gpamap_batch_doorbell_remove_match(struct gpamap_batch *batch, uint32_t region,
				       uint64_t offset, uint32_t len, uint64_t value, int fd)
{
	return batch_doorbell(batch, GPAMAP_DOORBELL_REMOVE | GPAMAP_DOORBELL_MATCH, region,
			      offset, len, value, fd);
}

int gpamap_doorbell_add(struct gpamap *map, uint32_t region, uint64_t offset, uint32_t len,
			int fd)
{
	struct gpamap_op op;
	struct gpamap_batch batch = BATCH_OF_ONE(&op);

	gpamap_batch_doorbell(&batch, region, offset, len, fd);
	return apply_one(map, &batch);
}

int gpamap_doorbell_add_fast(struct gpamap *map, uint32_t region, uint64_t offset, int fd)
{
	struct gpamap_op op;
	struct gpamap_batch batch = BATCH_OF_ONE(&op);

	gpamap_batch_doorbell_fast(&batch, region, offset, fd);
	return apply_one(map, &batch);
}

int gpamap_doorbell_add_match(struct gpamap *map, uint32_t region, uint64_t offset,
			      uint32_t len, uint64_t value, int fd)
{
	struct gpamap_op op;
	struct gpamap_batch batch = BATCH_OF_ONE(&op);

	gpamap_batch_doorbell_match(&batch, region, offset, len, value, fd);
	return apply_one(map, &batch);
}

int gpamap_doorbell_remove(struct gpamap *map, uint32_t region, uint64_t offset,
			   uint32_t len, int fd)
{
	struct gpamap_op op;
	struct gpamap_batch batch = BATCH_OF_ONE(&op);

	gpamap_batch_doorbell_remove(&batch, region, offset, len, fd);
	return apply_one(map, &batch);
}

int gpamap_doorbell_remove_match(struct gpamap *map, uint32_t region, uint64_t offset,
				 uint32_t len, uint64_t value, int fd)
{
	struct gpamap_op op;
	struct gpamap_batch batch = BATCH_OF_ONE(&op);

	gpamap_batch_doorbell_remove_match(&batch, region, offset, len, value, fd);
	return apply_one(map, &batch);
}

int gpamap_doorbells_clear(struct gpamap *map, uint32_t region)
{
	struct gpamap_op op;
	struct gpamap_batch batch = BATCH_OF_ONE(&op);

	gpamap_batch_untie(&batch, region, GPAMAP_TIE_DOORBELLS);
	return apply_one(map, &batch);
}

/* ---- registers -------------------------------------------------------- */

int gpamap_batch_registers(struct gpamap_batch *batch, uint32_t region,
			   const struct gpamap_register *registers, uint32_t nr)
{
	const struct gpamap_op op = {
		.code = GPAMAP_OP_REGISTERS,
		.id = region,
		.items = (uintptr_t)registers,
		.nr = nr,
		.item_size = sizeof(*registers),
	};

	return gpamap_batch_op(batch, &op);
}

int gpamap_batch_registers_remove(struct gpamap_batch *batch, uint32_t region)
{
	const struct gpamap_op op = {
		.code = GPAMAP_OP_REGISTERS,
		.id = region,
		.flags = GPAMAP_REGISTERS_REMOVE,
	};

	return gpamap_batch_op(batch, &op);
}

int gpamap_registers_set(struct gpamap *map, uint32_t region,
			 const struct gpamap_register *registers, uint32_t nr)
{
	struct gpamap_op op;
	struct gpamap_batch batch = BATCH_OF_ONE(&op);

	gpamap_batch_registers(&batch, region, registers, nr);
	return apply_one(map, &batch);
}

int gpamap_registers_remove(struct gpamap *map, uint32_t region)
{
	struct gpamap_op op;
	struct gpamap_batch batch = BATCH_OF_ONE(&op);

	gpamap_batch_registers_remove(&batch, region);
	return apply_one(map, &batch);
}

static uint64_t registers_len(const struct gpamap_layout *layout)
{
	return gpamap_page_align((uint64_t)layout->first + layout->record_size);
}

int gpamap_registers_map(struct gpamap *map, uint32_t region, void **page)
{
	const struct gpamap_layout *layout = gpamap_layout_of(map, GPAMAP_AREA_REGISTERS);
	void *p;
	int rc;

	if (!layout)
		return -EOPNOTSUPP;
	/* No region has that id; what is mapped there is something else. */
	if (!region)
		return -ENOENT;
	rc = gpamap_mmap(map, registers_len(layout), region, &p);
	if (!rc)
		*page = (char *)p + layout->first;
	return rc;
}

void gpamap_registers_unmap(struct gpamap *map, void *page)
{
	const struct gpamap_layout *layout = gpamap_layout_of(map, GPAMAP_AREA_REGISTERS);

	int saved = errno;

	munmap((char *)page - layout->first, registers_len(layout));
	errno = saved;
}

/* ---- posted writes ---------------------------------------------------- */

int gpamap_batch_post(struct gpamap_batch *batch, uint32_t region, uint32_t ring)
{
	const struct gpamap_op op = {
		.code = GPAMAP_OP_POST,
		.id = region,
		.ref = ring,
	};

	return gpamap_batch_op(batch, &op);
}

int gpamap_batch_post_remove(struct gpamap_batch *batch, uint32_t region)
{
	const struct gpamap_op op = {
		.code = GPAMAP_OP_POST,
		.id = region,
		.flags = GPAMAP_POST_REMOVE,
	};

	return gpamap_batch_op(batch, &op);
}

int gpamap_post_add(struct gpamap *map, uint32_t region, uint32_t ring)
{
	struct gpamap_op op;
	struct gpamap_batch batch = BATCH_OF_ONE(&op);

	gpamap_batch_post(&batch, region, ring);
	return apply_one(map, &batch);
}

int gpamap_post_remove(struct gpamap *map, uint32_t region)
{
	struct gpamap_op op;
	struct gpamap_batch batch = BATCH_OF_ONE(&op);

	gpamap_batch_post_remove(&batch, region);
	return apply_one(map, &batch);
}

/* ---- handlers and policies -------------------------------------------- */

int gpamap_batch_handler(struct gpamap_batch *batch, uint32_t region, const char *name,
			 uint64_t arg)
{
	struct gpamap_op op = {
		.code = GPAMAP_OP_HANDLER,
		.id = region,
		.value = arg,
	};

	return gpamap_batch_named(batch, &op, name);
}

int gpamap_batch_handler_remove(struct gpamap_batch *batch, uint32_t region)
{
	const struct gpamap_op op = {
		.code = GPAMAP_OP_HANDLER,
		.id = region,
		.flags = GPAMAP_HANDLER_REMOVE,
	};

	return gpamap_batch_op(batch, &op);
}

int gpamap_handler_set(struct gpamap *map, uint32_t region, const char *name, uint64_t arg)
{
	struct gpamap_op op;
	struct gpamap_batch batch = BATCH_OF_ONE(&op);

	gpamap_batch_handler(&batch, region, name, arg);
	return apply_one(map, &batch);
}

int gpamap_handler_remove(struct gpamap *map, uint32_t region)
{
	struct gpamap_op op;
	struct gpamap_batch batch = BATCH_OF_ONE(&op);

	gpamap_batch_handler_remove(&batch, region);
	return apply_one(map, &batch);
}

int gpamap_batch_policy(struct gpamap_batch *batch, uint32_t region, uint32_t policy)
{
	const struct gpamap_op op = {
		.code = GPAMAP_OP_POLICY,
		.id = region,
		.kind = policy,
	};

	return gpamap_batch_op(batch, &op);
}

int gpamap_policy_set(struct gpamap *map, uint32_t region, uint32_t policy)
{
	struct gpamap_op op;
	struct gpamap_batch batch = BATCH_OF_ONE(&op);

	gpamap_batch_policy(&batch, region, policy);
	return apply_one(map, &batch);
}

/* ---- all of it -------------------------------------------------------- */

int gpamap_batch_untie(struct gpamap_batch *batch, uint32_t region, uint32_t mask)
{
	const struct gpamap_op op = {
		.code = GPAMAP_OP_UNTIE,
		.id = region,
		.mask = mask,
	};

	return gpamap_batch_op(batch, &op);
}

/* As long as the first version was. */
#define TIES_MIN_SIZE (offsetof(struct gpamap_ties, policy) + sizeof(uint32_t))

/* What the caller has: members that it does not know are 0, as those that we do not must be. */
static int read_ties(const struct gpamap_ties *from, struct gpamap_ties *ties)
{
	const char *bytes = (const char *)from;
	size_t i, len = from->sz;

	if (len < TIES_MIN_SIZE)
		return -EINVAL;
	for (i = sizeof(*ties); i < len; i++)
		if (bytes[i])
			return -E2BIG;
	memset(ties, 0, sizeof(*ties));
	memcpy(ties, from, len < sizeof(*ties) ? len : sizeof(*ties));
	return 0;
}

static int batch_ties(struct gpamap_batch *batch, uint32_t region,
		      const struct gpamap_ties *ties)
{
	const struct gpamap_ties_doorbell *bell;
	uint32_t i;
	int rc = 0;

	if (ties->nr_registers)
		rc = gpamap_batch_registers(batch, region, ties->registers,
					    ties->nr_registers);
	for (i = 0; !rc && i < ties->nr_doorbells; i++) {
		bell = &ties->doorbells[i];
		if (bell->__reserved)
			return gpamap_batch_fail(batch, -EINVAL);
		rc = batch_doorbell(batch, bell->flags, region, bell->offset, bell->len,
				    bell->value, bell->fd);
	}
	if (!rc && ties->handler)
		rc = gpamap_batch_handler(batch, region, ties->handler, ties->handler_arg);
	if (!rc && ties->ring)
		rc = gpamap_batch_post(batch, region, ties->ring);
	if (!rc && ties->policy)
		rc = gpamap_batch_policy(batch, region, ties->policy);
	return rc;
}

int gpamap_batch_ties(struct gpamap_batch *batch, uint32_t region,
		      const struct gpamap_ties *ties)
{
	uint32_t nr = batch->nr;
	struct gpamap_ties all;
	int rc;

	rc = read_ties(ties, &all);
	if (rc)
		return gpamap_batch_fail(batch, rc);
	rc = batch_ties(batch, region, &all);
	if (rc)
		batch->nr = nr;
	return rc;
}

int gpamap_batch_io_tied(struct gpamap_batch *batch, uint32_t id, const char *name,
			 uint64_t last, const struct gpamap_ties *ties)
{
	uint32_t nr = batch->nr;
	int rc;

	rc = gpamap_batch_io(batch, id, name, last);
	if (rc)
		return rc;
	rc = gpamap_batch_ties(batch, id, ties);
	if (rc)
		batch->nr = nr;
	return rc;
}
