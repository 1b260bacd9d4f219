// SPDX-License-Identifier: LGPL-2.1-only OR MIT
/*
 * Sentences for errors: what an errno means for the operation that gave it. The
 * table follows the documentation of enum gpamap_op_code; 0 in place of an
 * operation stands for any.
 */
#include <errno.h>
#include <string.h>
#include "internal.h"

static const struct {
	uint32_t code;
	int err;
	const char *sentence;
} sentences[] = {
	{ GPAMAP_OP_REGION, -EINVAL,
	  "a bad name, or a value that this kind of region does not have" },
	{ GPAMAP_OP_REGION, -EEXIST, "there is a region with this id already" },
	{ GPAMAP_OP_REGION, -ENOENT, "there is no region with the id of the target" },
	{ GPAMAP_OP_REGION, -EOPNOTSUPP, "this kind or flag of region is not supported" },
	{ GPAMAP_OP_REGION, -EOVERFLOW, "the host memory goes beyond the address space" },
	{ GPAMAP_OP_REGION, -ELOOP, "the alias leads through too many regions" },
	{ GPAMAP_OP_REGION, -ENOSPC, "there are too many regions, ranges or memslots" },
	{ GPAMAP_OP_ADD, -EBUSY, "the region is in a container already" },
	{ GPAMAP_OP_ADD, -ENOENT, "there is no such region or no such container" },
	{ GPAMAP_OP_ADD, -ELOOP, "the region would hold itself, or lie too deep" },
	{ GPAMAP_OP_ADD, -EINVAL,
	  "an alias holds no regions, or the memory cannot be mapped there" },
	{ GPAMAP_OP_ADD, -EEXIST, "another memslot, or a device of KVM's, is in the way" },
	{ GPAMAP_OP_DEL, -ENOENT, "there is no such region, or it is in no container" },
	{ GPAMAP_OP_DESTROY, -EBUSY,
	  "the region is attached, not empty, an alias's target or a space's root, or it "
	  "has doorbells, registers, a handler or a policy, or posts its writes" },
	{ GPAMAP_OP_SET, -ENOENT, "there is no such region, or it is in no container" },
	{ GPAMAP_OP_SET, -EINVAL,
	  "a value that this kind of region does not have, or unmappable memory" },
	{ GPAMAP_OP_SET, -EOVERFLOW, "the host memory goes beyond the address space" },
	{ GPAMAP_OP_SET, -EEXIST, "another memslot, or a device of KVM's, is in the way" },
	{ GPAMAP_OP_SPACE, -EEXIST, "there is such a space already" },
	{ GPAMAP_OP_SPACE, -ENOENT, "there is no region with the id of the root" },
	{ GPAMAP_OP_SPACE, -EOPNOTSUPP, "this kind or number of space is not supported" },
	{ GPAMAP_OP_SPACE, -ENOSPC, "there are too many spaces, ranges or memslots" },
	{ GPAMAP_OP_SPACE_DESTROY, -ENOENT, "there is no such space" },

	{ 0, -ENOTTY, "this is no map" },
	{ 0, -EINVAL, "malformed operation, or memory that cannot be mapped" },
	{ 0, -E2BIG, "the kernel does not know this version" },
	{ 0, -EOPNOTSUPP, "not supported" },
	{ 0, -ENOENT, "there is no region with this id" },
	{ 0, -EEXIST, "another memslot is in the way" },
	{ 0, -EBUSY, "vCPUs could not be held, or the VM or the map is taken" },
	{ 0, -EINTR, "the process is being killed" },
	{ 0, -ENOSPC, "there are too many operations, ranges or memslots" },
	{ 0, -EIO, "the map is broken or the VM belongs to another process" },
};

const char *gpamap_op_error(const struct gpamap_op *op, int err)
{
	const char *sentence;
	size_t i;

	for (i = 0; i < sizeof(sentences) / sizeof(sentences[0]); i++)
		if (sentences[i].err == err &&
		    (!sentences[i].code || (op && sentences[i].code == op->code)))
			return sentences[i].sentence;
	sentence = strerrordesc_np(-err);
	return sentence ? sentence : "unknown error";
}
