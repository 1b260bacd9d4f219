// SPDX-License-Identifier: LGPL-2.1-only OR MIT
/*
 * Sentences for errors: what an errno means for the operation, or the call, that gave it. The
 * table follows the documentation of enum gpamap_op_code and of the header; ANY in place of an
 * operation stands for any of those that have no sentence of their own, UNKNOWN for what is
 * not said.
 */
#include <errno.h>
#include <string.h>
#include "internal.h"

/* Codes of operations are from 1 on, those of calls from GPAMAP_CALL_OPEN on. */
#define UNKNOWN 0
#define ANY 0xffffffffU

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
	{ GPAMAP_OP_REGION, -ENOSPC, "there are too many regions, ranges or memslots" },
	{ GPAMAP_OP_ADD, -EBUSY, "the region is in a container already" },
	{ GPAMAP_OP_ADD, -ENOENT, "there is no such region or no such container" },
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
	{ GPAMAP_OP_DOORBELL, -ENOENT, "there is no such region, or no such doorbell" },
	{ GPAMAP_OP_DOORBELL, -EEXIST, "there is the same doorbell" },
	{ GPAMAP_OP_DOORBELL, -EOPNOTSUPP,
	  "a region of this kind has no doorbells, or the flag is not supported" },
	{ GPAMAP_OP_DOORBELL, -EINVAL,
	  "a length, value or offset that cannot be, or what is to be rung is no eventfd" },
	{ GPAMAP_OP_DOORBELL, -EBADF, "the eventfd is not open" },
	{ GPAMAP_OP_DOORBELL, -ENOSPC,
	  "there are too many doorbells, or KVM is to ask about too much" },
	{ GPAMAP_OP_DOORBELL, -EBUSY, "vCPUs could not be held in time to tie a doorbell" },
	{ GPAMAP_OP_REGISTERS, -ENOENT, "there is no such region, or it has no registers" },
	{ GPAMAP_OP_REGISTERS, -EEXIST, "the region has registers" },
	{ GPAMAP_OP_REGISTERS, -EOPNOTSUPP,
	  "only io regions have registers, or this kind of register is not supported" },
	{ GPAMAP_OP_REGISTERS, -EINVAL,
	  "registers that overlap, or an offset, length, value or number that cannot be" },
	{ GPAMAP_OP_REGISTERS, -E2BIG, "the kernel does not know this version of registers" },
	{ GPAMAP_OP_REGISTERS, -EFAULT, "the array of registers cannot be read" },
	{ GPAMAP_OP_REGISTERS, -ENOSPC, "KVM is to ask about too much, with these registers" },
	{ GPAMAP_OP_REGISTERS, -EBUSY, "vCPUs could not be held in time to tie registers" },
	{ GPAMAP_OP_HANDLER, -ENOENT,
	  "there is no such region or no such handler, or the region has none" },
	{ GPAMAP_OP_HANDLER, -EEXIST, "the region has a handler" },
	{ GPAMAP_OP_HANDLER, -EOPNOTSUPP,
	  "only io regions have handlers, or the flag is not known" },
	{ GPAMAP_OP_HANDLER, -EINVAL, "a bad name, or an argument that the handler refuses" },
	{ GPAMAP_OP_HANDLER, -ENOSPC, "KVM is to ask about too much, with this handler" },
	{ GPAMAP_OP_HANDLER, -EBUSY,
	  "the region posts its writes, or vCPUs could not be held in time" },
	{ GPAMAP_OP_POST, -ENOENT,
	  "there is no such region or no such ring, or the region does not post" },
	{ GPAMAP_OP_POST, -EEXIST, "the region posts already" },
	{ GPAMAP_OP_POST, -EOPNOTSUPP,
	  "only io regions post their writes, or the flag is not known" },
	{ GPAMAP_OP_POST, -EINVAL, "a ring is named where none is wanted" },
	{ GPAMAP_OP_POST, -ENOSPC, "KVM is to ask about too much, with posted writes" },
	{ GPAMAP_OP_POST, -EBUSY,
	  "the region has a handler, or vCPUs could not be held in time" },
	{ GPAMAP_OP_POLICY, -ENOENT, "there is no such region to give a policy" },
	{ GPAMAP_OP_POLICY, -EOPNOTSUPP,
	  "this policy is unknown, or not for regions of this kind: only io and reserved "
	  "regions are answered with zeroes or ones" },
	{ GPAMAP_OP_POLICY, -EINVAL, "a value that a policy does not have" },
	{ GPAMAP_OP_POLICY, -ENOSPC, "KVM is to ask about too much, with this policy" },
	{ GPAMAP_OP_POLICY, -EBUSY, "vCPUs could not be held in time to give a policy" },
	{ GPAMAP_OP_UNTIE, -ENOENT, "there is no such region to untie anything from" },
	{ GPAMAP_OP_UNTIE, -EOPNOTSUPP, "what is to be untied is not known" },
	{ GPAMAP_OP_UNTIE, -EINVAL, "nothing is named that is to be untied" },
	{ GPAMAP_OP_UNTIE, -EBUSY, "vCPUs could not be held in time to untie anything" },
	{ GPAMAP_OP_TIDY, -EINVAL, "tidying is of no region, and has no members" },
	{ GPAMAP_OP_TIDY, -EBUSY, "vCPUs could not be held in time to join memslots" },

	{ ANY, -ENOTTY, "this is no map" },
	{ ANY, -EINVAL, "malformed operation, or memory that cannot be mapped" },
	{ ANY, -E2BIG, "the kernel does not know this version" },
	{ ANY, -EOPNOTSUPP, "not supported" },
	{ ANY, -ENOENT, "there is no region with this id" },
	{ ANY, -EEXIST, "another memslot is in the way" },
	{ ANY, -EBUSY, "vCPUs could not be held in time, or the VM or the map is taken" },
	{ ANY, -EINTR, "the process is being killed" },
	{ ANY, -ELOOP, "a view would have no end, or lie too deep" },
	{ ANY, -ENOSPC, "there are too many operations, ranges or memslots" },
	{ ANY, -EIO, "the map is broken or the VM belongs to another process" },

	{ GPAMAP_CALL_OPEN, -ENOENT,
	  "there is no /dev/gpamap: the module gpamap is not loaded" },
	{ GPAMAP_CALL_OPEN, -EACCES, "no right to open /dev/gpamap for reading and writing" },
	{ GPAMAP_CALL_OPEN, -ENOTTY, "/dev/gpamap is not the module's" },
	{ GPAMAP_CALL_OPEN, -EOPNOTSUPP, "the module of /dev/gpamap is older than this library" },
	{ GPAMAP_CALL_FROM_FD, -EBADF, "the descriptor of the map is not open" },
	{ GPAMAP_CALL_FROM_FD, -ENOTTY, "the descriptor is not that of a map" },
	{ GPAMAP_CALL_FROM_FD, -EOPNOTSUPP,
	  "the module that the map belongs to is older than this library" },
	{ GPAMAP_CALL_ATTACH, -EBADF, "the descriptor of the VM is not open" },
	{ GPAMAP_CALL_ATTACH, -EINVAL,
	  "the descriptor of the VM is not that of a KVM VM, KVM has no such memslots, or "
	  "memory in the map has no host memory or one that KVM refuses" },
	{ GPAMAP_CALL_ATTACH, -EIO, "the VM belongs to another process, or the map is broken" },
	{ GPAMAP_CALL_ATTACH, -EBUSY,
	  "the map has a VM, the VM has a map, or vCPUs could not be held in time" },
	{ GPAMAP_CALL_ATTACH, -EOPNOTSUPP,
	  "the VM has private memory, or KVM has no read-only memory or no second address "
	  "space" },
	{ GPAMAP_CALL_ATTACH, -ENOSPC,
	  "the memslots given to the map do not suffice, or KVM is to ask about too much" },
	{ GPAMAP_CALL_ATTACH, -EEXIST,
	  "a memslot of the VMM's own, or a device of KVM's, is in the way" },
	{ GPAMAP_CALL_DETACH, -ENOENT, "no VM is attached to the map" },
	{ GPAMAP_CALL_DETACH, -EBUSY, "vCPUs could not be held in time to detach the VM" },
	{ GPAMAP_CALL_QUERY, -ENOENT, "there is no space with this id to be told of" },
	{ GPAMAP_CALL_LOOKUP, -ENOENT,
	  "there is no space with this id, or nothing is seen at the address" },
	{ GPAMAP_CALL_WATCH, -EMFILE, "the process has no descriptor left to watch the map" },
	{ GPAMAP_CALL_REGISTERS_MAP, -ENOENT,
	  "there is no such region, or it has no registers to be mapped" },
	{ GPAMAP_CALL_REGISTERS_MAP, -EOVERFLOW,
	  "the id is too high for the offsets of a 32-bit program" },
	{ GPAMAP_CALL_REGISTERS_MAP, -EOPNOTSUPP,
	  "the kernel lays registers out in a way that this library does not know" },
	{ GPAMAP_CALL_EXITS_MAP, -EINVAL, "there are no vCPUs, or more than have records" },
	{ GPAMAP_CALL_EXITS_MAP, -EOPNOTSUPP,
	  "the kernel lays records of exits out in a way that this library does not know" },
	{ GPAMAP_CALL_RING_OPEN, -EEXIST, "there is a ring with this id already" },
	{ GPAMAP_CALL_RING_OPEN, -EINVAL,
	  "an id, a number of entries, a watermark or a delay that cannot be, or what is to "
	  "be signalled is no eventfd" },
	{ GPAMAP_CALL_RING_OPEN, -EBADF, "the eventfd of the ring is not open" },
	{ GPAMAP_CALL_RING_OPEN, -ENOSPC, "there are too many rings" },
	{ GPAMAP_CALL_RING_OPEN, -EOPNOTSUPP,
	  "a 32-bit program cannot map rings, or the kernel lays them out in a way that this "
	  "library does not know" },
	{ GPAMAP_CALL_RING_CLOSE, -EBUSY,
	  "regions post to the ring, or this is a callback of a ring" },
	{ GPAMAP_CALL_RING_DRAIN, -EBUSY, "this is a callback of a ring" },
	{ GPAMAP_CALL_RING_DRAIN, -EIO, "the process has overwritten the header of the ring" },

	{ UNKNOWN, -EINVAL, "malformed, or memory that cannot be mapped" },
	{ UNKNOWN, -ENOENT, "what is named is not there" },
	{ UNKNOWN, -EEXIST, "it is there already, or something else is in the way" },
	{ UNKNOWN, -EBUSY, "in use or taken, or vCPUs could not be held in time" },
};

static const char *find_sentence(uint32_t code, int err)
{
	size_t i;

	for (i = 0; i < sizeof(sentences) / sizeof(sentences[0]); i++)
		if (sentences[i].err == err && sentences[i].code == code)
			return sentences[i].sentence;
	return NULL;
}

const char *gpamap_call_error(uint32_t call, int err)
{
	const char *sentence = find_sentence(call, err);

	/* What any operation's sentence says of regions and memslots is not true of calls. */
	if (!sentence && call != UNKNOWN && call < GPAMAP_CALL_OPEN)
		sentence = find_sentence(ANY, err);
	if (!sentence)
		sentence = find_sentence(UNKNOWN, err);
	if (!sentence)
		sentence = find_sentence(ANY, err);
	if (!sentence)
		sentence = strerrordesc_np(-err);
	return sentence ? sentence : "unknown error";
}

const char *gpamap_op_error(const struct gpamap_op *op, int err)
{
	return gpamap_call_error(op ? op->code : UNKNOWN, err);
}
