// SPDX-License-Identifier: GPL-2.0
/*
 * Commands that tie one thing to a region, or untie it: each is the batch of the one operation
 * that has its name, and nothing else. GPAMAP_RING, which makes what can be tied, is here too.
 */
#include <linux/log2.h>
#include "commands.h"

int gpamap_doorbell(struct gpamap *map, void *arg)
{
	const struct gpamap_doorbell *cmd = arg;
	const struct gpamap_op op = {
		.code = GPAMAP_OP_DOORBELL,
		.id = cmd->region,
		.flags = cmd->flags,
		.len = cmd->len,
		.offset = cmd->offset,
		.value = cmd->value,
		.fd = cmd->fd,
	};

	return cmd->__reserved ? -EINVAL : gpamap_map_apply_op(map, &op);
}

int gpamap_registers(struct gpamap *map, void *arg)
{
	const struct gpamap_registers *cmd = arg;
	const struct gpamap_op op = {
		.code = GPAMAP_OP_REGISTERS,
		.id = cmd->region,
		.flags = cmd->flags,
		.nr = cmd->nr,
		.item_size = cmd->register_size,
		.items = cmd->registers,
	};

	return cmd->__reserved ? -EINVAL : gpamap_map_apply_op(map, &op);
}

int gpamap_handler(struct gpamap *map, void *arg)
{
	const struct gpamap_handler *cmd = arg;
	struct gpamap_op op = {
		.code = GPAMAP_OP_HANDLER,
		.id = cmd->region,
		.flags = cmd->flags,
		.value = cmd->arg,
	};

	memcpy(op.name, cmd->name, sizeof(op.name));
	return cmd->__reserved ? -EINVAL : gpamap_map_apply_op(map, &op);
}

int gpamap_post(struct gpamap *map, void *arg)
{
	const struct gpamap_post *cmd = arg;
	const struct gpamap_op op = {
		.code = GPAMAP_OP_POST,
		.id = cmd->region,
		.flags = cmd->flags,
		.ref = cmd->ring,
	};

	return gpamap_map_apply_op(map, &op);
}

int gpamap_policy(struct gpamap *map, void *arg)
{
	const struct gpamap_policy *cmd = arg;
	const struct gpamap_op op = {
		.code = GPAMAP_OP_POLICY,
		.id = cmd->region,
		.kind = cmd->policy,
	};

	return cmd->flags ? -EOPNOTSUPP : gpamap_map_apply_op(map, &op);
}

static int check_ring(const struct gpamap_ring *cmd)
{
	if (cmd->flags & ~GPAMAP_RING_REMOVE)
		return -EOPNOTSUPP;
	if (cmd->__reserved)
		return -EINVAL;
	if (cmd->flags & GPAMAP_RING_REMOVE)
		return cmd->nr_entries || cmd->watermark || cmd->fd || cmd->delay_us ?
		       -EINVAL : 0;
	if (!cmd->id || !is_power_of_2(cmd->nr_entries) ||
	    cmd->nr_entries < GPAMAP_MIN_RING_ENTRIES ||
	    cmd->nr_entries > GPAMAP_MAX_RING_ENTRIES)
		return -EINVAL;
	/* Where nobody is told, there is no when. */
	if (cmd->fd == -1)
		return cmd->watermark || cmd->delay_us ? -EINVAL : 0;
	return !cmd->watermark || cmd->watermark > cmd->nr_entries ||
	       cmd->delay_us > GPAMAP_MAX_RING_DELAY_US ? -EINVAL : 0;
}

int gpamap_ring(struct gpamap *map, void *arg)
{
	const struct gpamap_ring *cmd = arg;
	int rc;

	rc = check_ring(cmd);
	if (rc)
		return rc;
	rc = gpamap_map_lock(map, gpamap_deadline(0));
	if (rc)
		return rc;
	rc = gpamap_map_check_usable(map);
	if (!rc)
		rc = gpamap_ring_change(&map->ties, cmd);
	gpamap_map_unlock(map);
	return rc;
}
