/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For other modules: answer a guest's accesses to an I/O region in the kernel.
 *
 * A module registers a handler under a name. A VMM ties a region of its map to the name
 * (GPAMAP_OP_HANDLER), which makes one instance of the handler; wherever the region is
 * seen then, accesses that no register and no doorbell of the region answers come to the
 * instance.
 *
 * That is part of a transaction, all of which is done or nothing. A handler takes part in three
 * steps: @prepare makes the instance, and may fail; when all else has succeeded @commit is told
 * that accesses may come; or @undo, that they never will. An operation may be prepared and
 * undone several times before it is committed, or instead (the map looks for the operation to
 * blame for an error). One module must be built with the Module.symvers of the other
 * (KBUILD_EXTRA_SYMBOLS), or together with it.
 */
#ifndef GPAMAP_HANDLER_H
#define GPAMAP_HANDLER_H

#include <linux/module.h>
#include <linux/types.h>

/**
 * struct gpamap_access_len - Which accesses there are
 * @min: Fewest bytes: 1, 2, 4 or 8; 0 for 1
 * @max: Most bytes: 1, 2, 4 or 8, not below @min; 0 for 8
 * @unaligned: Whether an offset need be no multiple of the length
 */
struct gpamap_access_len {
	u8 min;
	u8 max;
	bool unaligned;
};

/**
 * struct gpamap_handler_ops - A handler
 * @owner: THIS_MODULE. Each instance holds a reference on it
 * @name: What VMMs ask for: unique, shorter than GPAMAP_NAME_LEN
 * @valid: Accesses of the guest that come to the handler. All others leave to the VMM, unless
 *	the policy of the region answers them; and so it is with what is said to leave below
 * @impl: Accesses that @read and @write want. Longer ones, and with not @impl.unaligned
 *	those at odd offsets, are split, the lowest address first. A shorter one is widened:
 *	of what is read the guest gets the bytes that it asked for, and what is written has
 *	zeroes around the bytes of the guest. Without @impl.unaligned the offset is rounded
 *	down for it, so that the guest's bytes can be in the middle
 * @big_endian: The byte at the lowest address is the highest of a value
 * @prepare: Makes an instance. @arg is the VMM's, see struct gpamap_handler. An error is the
 *	VMM's. Absent: @arg must be 0, and @data is NULL
 * @commit: The transaction is done, and accesses may come as soon as this has returned. All
 *	vCPUs of the VM are held: it cannot fail, and must neither take long nor wait for
 *	anything. Absent: nothing to do
 * @undo: The transaction was not done, or has untied the instance again: the end of an
 *	instance that no access has come to. Absent: @destroy
 * @destroy: The end of an instance that was committed: no vCPU is in an access. Absent: nothing
 *	to do
 * @read: Answers a read of @len bytes at @offset in the region. An error makes the whole
 *	access leave to the VMM. Absent: all reads leave
 * @write: Does a write, as @read
 *
 * @prepare, @commit and @undo are called with the lock of the map held, @destroy with it or,
 * when the map is closed, with none and from a worker of the kernel's. A module registers as
 * the last thing in its init that can fail: VMMs may use the handler from then on.
 *
 * @read and @write are called in the thread of the vCPU, inside of KVM_RUN, with the vCPU's
 * mutex and KVM's SRCU held, by several vCPUs at once. They may sleep for short: as long as
 * they do no commit of that VM is done, for it waits for the vCPU. They must not wait for
 * one, nor for another vCPU, nor enter gpamap or KVM for that VM. An access begins inside of
 * the region and may reach beyond its end; of one that is split, parts may begin there. So a
 * handler checks offsets: they are the guest's. Of a string that the guest reads from a port,
 * KVM forgets what follows the first element that fails, if one before it did not: a handler
 * of ports fails always or never at an offset.
 */
struct gpamap_handler_ops {
	struct module *owner;
	const char *name;
	struct gpamap_access_len valid;
	struct gpamap_access_len impl;
	bool big_endian;
	int (*prepare)(u64 arg, void **data);
	void (*commit)(void *data);
	void (*undo)(void *data);
	void (*destroy)(void *data);
	int (*read)(void *data, u64 offset, u32 len, u64 *value);
	int (*write)(void *data, u64 offset, u32 len, u64 value);
};

int __must_check gpamap_handler_register(const struct gpamap_handler_ops *ops);
void gpamap_handler_unregister(const struct gpamap_handler_ops *ops);

#endif /* GPAMAP_HANDLER_H */
