// SPDX-License-Identifier: GPL-2.0
/*
 * Handlers: other modules that answer the accesses to an I/O region. gpamap_handler.h is
 * their interface.
 *
 * A region's use of a handler is tied and untied by a transaction, in which the handler takes
 * part: it prepares an instance, which may fail, and hears whether that comes true. Each use
 * holds a reference on the handler's module, so a module cannot be removed while a region uses
 * it, and its end, which unregisters the handler, comes after the last use.
 *
 * The handler is called outside of RCU, since it may sleep; a use goes when no vCPU is in an
 * access, for all are held when it is untied.
 *
 * Rules of MEMORY_MODEL kept here: 47.
 */
#include <linux/log2.h>
#include "gpamap_handler.h"
#include "ties.h"

struct gpamap_handler_use {
	const struct gpamap_handler_ops *ops;
	void *data;
	bool committed;			/* accesses may have come to it */
};

struct handler {
	struct list_head link;
	const struct gpamap_handler_ops *ops;
};

static LIST_HEAD(handlers);
static DEFINE_MUTEX(handlers_lock);	/* never around a call of a handler */

/* ---- for other modules ------------------------------------------------ */

static u32 min_len(const struct gpamap_access_len *len)
{
	return len->min ?: 1;
}

static u32 max_len(const struct gpamap_access_len *len)
{
	return len->max ?: 8;
}

static bool len_is_good(const struct gpamap_access_len *len)
{
	return is_power_of_2(min_len(len)) && is_power_of_2(max_len(len)) &&
	       max_len(len) <= 8 && min_len(len) <= max_len(len);
}

static struct handler *find_handler(const char *name)
{
	struct handler *handler;

	lockdep_assert_held(&handlers_lock);

	list_for_each_entry(handler, &handlers, link)
		if (!strcmp(handler->ops->name, name))
			return handler;
	return NULL;
}

/**
 * gpamap_handler_register() - Offer a handler to VMMs
 * @ops: Stays the caller's, and as it is, until gpamap_handler_unregister() and the end of
 *	the last instance
 *
 * Context: may sleep.
 * Return: 0; -EINVAL a name or length that cannot be; -EEXIST the name is taken; -ENOMEM.
 */
int gpamap_handler_register(const struct gpamap_handler_ops *ops)
{
	size_t len = ops->name ? strnlen(ops->name, GPAMAP_NAME_LEN) : 0;
	struct handler *handler;
	int rc = 0;

	if (!len || len == GPAMAP_NAME_LEN || !len_is_good(&ops->valid) ||
	    !len_is_good(&ops->impl))
		return -EINVAL;
	handler = kmalloc(sizeof(*handler), GFP_KERNEL);
	if (!handler)
		return -ENOMEM;
	handler->ops = ops;
	mutex_lock(&handlers_lock);
	if (find_handler(ops->name))
		rc = -EEXIST;
	else
		list_add(&handler->link, &handlers);
	mutex_unlock(&handlers_lock);
	if (rc)
		kfree(handler);
	return rc;
}
EXPORT_SYMBOL_GPL(gpamap_handler_register);

/**
 * gpamap_handler_unregister() - Offer a handler no longer
 * @ops: What was registered
 *
 * Regions that use it go on doing so, and hold its module. At the end of the module there
 * are none.
 *
 * Context: may sleep.
 */
void gpamap_handler_unregister(const struct gpamap_handler_ops *ops)
{
	struct handler *handler;

	mutex_lock(&handlers_lock);
	handler = find_handler(ops->name);
	if (!WARN_ON(!handler || handler->ops != ops))
		list_del(&handler->link);
	else
		handler = NULL;
	mutex_unlock(&handlers_lock);
	kfree(handler);
}
EXPORT_SYMBOL_GPL(gpamap_handler_unregister);

/* ---- an access -------------------------------------------------------- */

static bool is_valid(const struct gpamap_access_len *valid, u64 offset, u32 len)
{
	if (len < min_len(valid) || len > max_len(valid))
		return false;
	return valid->unaligned || (is_power_of_2(len) && !(offset & (len - 1)));
}

/* Bytes are in the order of their addresses; there are @len. */
static u64 to_value(const struct gpamap_handler_ops *ops, const u8 *bytes, u32 len)
{
	u64 value = 0;
	u32 i;

	for (i = 0; i < len; i++)
		value |= (u64)bytes[i] << 8 * (ops->big_endian ? len - 1 - i : i);
	return value;
}

static void to_bytes(const struct gpamap_handler_ops *ops, u8 *bytes, u32 len, u64 value)
{
	u32 i;

	for (i = 0; i < len; i++)
		bytes[i] = value >> 8 * (ops->big_endian ? len - 1 - i : i);
}

/* One call of the handler: @n bytes at @offset, or more around them. */
static bool call_handler(const struct gpamap_handler_use *use, u64 offset, u32 n, bool write,
			 u8 *bytes)
{
	const struct gpamap_handler_ops *ops = use->ops;
	u32 len = max(n, min_len(&ops->impl));
	u32 before = ops->impl.unaligned ? 0 : offset & (len - 1);
	u8 wide[8] = { 0 };
	u64 value = 0;

	if (write) {
		memcpy(wide + before, bytes, n);
		value = to_value(ops, wide, len);
		return !ops->write(use->data, offset - before, len, value);
	}
	if (ops->read(use->data, offset - before, len, &value))
		return false;
	to_bytes(ops, wide, len, value);
	memcpy(bytes, wide + before, n);
	return true;
}

/* Whether the handler did it. May sleep. */
bool gpamap_handler_access(struct gpamap_handler_use *use, u64 offset, u32 len, bool write,
			   void *val)
{
	const struct gpamap_handler_ops *ops = use->ops;
	u8 *bytes = val;
	u32 n;

	if (write ? !ops->write : !ops->read)
		return false;
	if (!is_valid(&ops->valid, offset, len))
		return false;
	for (; len; offset += n, bytes += n, len -= n) {
		n = min_t(u32, rounddown_pow_of_two(len), max_len(&ops->impl));
		if (!ops->impl.unaligned && offset & (n - 1))
			n = 1U << __ffs(offset);
		if (!call_handler(use, offset, n, write, bytes))
			return false;
	}
	return true;
}

/* ---- what a region uses ----------------------------------------------- */

/* The end of a use, in which no vCPU is. */
void gpamap_handler_put(struct gpamap_handler_use *use)
{
	const struct gpamap_handler_ops *ops = use->ops;

	if (!use->committed && ops->undo)
		ops->undo(use->data);
	else if (ops->destroy)
		ops->destroy(use->data);
	module_put(ops->owner);
	kfree(use);
}

/* "" if there is none. */
const char *gpamap_handler_name(const struct gpamap_io *io)
{
	return io->now.handler ? io->now.handler->ops->name : "";
}

static const struct gpamap_handler_ops *get_ops(const char *name)
{
	const struct gpamap_handler_ops *ops = NULL;
	struct handler *handler;

	mutex_lock(&handlers_lock);
	handler = find_handler(name);
	if (handler && try_module_get(handler->ops->owner))
		ops = handler->ops;
	mutex_unlock(&handlers_lock);
	return ops;
}

static struct gpamap_handler_use *use_create(const char *name, u64 arg)
{
	const struct gpamap_handler_ops *ops = get_ops(name);
	struct gpamap_handler_use *use;
	int rc = -ENOMEM;

	if (!ops)
		return ERR_PTR(-ENOENT);
	use = kzalloc(sizeof(*use), GPAMAP_GFP);
	if (!use)
		goto err_put;
	use->ops = ops;
	if (ops->prepare)
		rc = ops->prepare(arg, &use->data);
	else
		rc = arg ? -EINVAL : 0;
	if (!rc)
		return use;
	kfree(use);
	/* An error is the VMM's, and nothing else. */
	if (rc > 0)
		rc = -EINVAL;
err_put:
	module_put(ops->owner);
	return ERR_PTR(rc);
}

static int handler_check(const struct gpamap_op *op)
{
	size_t len = strnlen((const char *)op->name, GPAMAP_NAME_LEN);

	if (len == GPAMAP_NAME_LEN || memchr_inv(op->name + len, 0, GPAMAP_NAME_LEN - len))
		return -EINVAL;
	if (op->flags & GPAMAP_HANDLER_REMOVE ? op->value || len : !len)
		return -EINVAL;
	return 0;
}

static int handler_apply(struct gpamap_tie *tie)
{
	struct gpamap_io_state *next = &tie->io->next;
	struct gpamap_handler_use *use;

	tie->undo->flags = tie->op->flags;
	if (tie->op->flags & GPAMAP_HANDLER_REMOVE) {
		if (!next->handler)
			return -ENOENT;
		tie->undo->tie = next->handler;
		next->handler = NULL;
		return 0;
	}
	if (next->handler)
		return -EEXIST;
	if (next->ring)
		return -EBUSY;
	use = use_create((const char *)tie->op->name, tie->op->value);
	if (IS_ERR(use))
		return PTR_ERR(use);
	next->handler = use;
	return 0;
}

static void handler_undo(struct gpamap_ties *ties, struct gpamap_io *io,
			 struct gpamap_undo *undo)
{
	if (!(undo->flags & GPAMAP_HANDLER_REMOVE))
		gpamap_handler_put(io->next.handler);
	/* What was removed, or nothing. */
	io->next.handler = undo->tie;
}

static void handler_publish(struct gpamap_io *io, struct gpamap_undo *undo)
{
	struct gpamap_handler_use *use = io->next.handler;

	if (!use || use->committed)
		return;
	use->committed = true;
	if (use->ops->commit)
		use->ops->commit(use->data);
}

static void handler_finish(struct gpamap_undo *undo)
{
	if (undo->tie)
		gpamap_handler_put(undo->tie);
}

const struct gpamap_tie_kind gpamap_handler_kind = {
	.fields = GPAMAP_F_FLAGS | GPAMAP_F_VALUE | GPAMAP_F_NAME,
	.flags = GPAMAP_HANDLER_REMOVE,
	.remove = GPAMAP_HANDLER_REMOVE,
	.regions = BIT(GPAMAP_REGION_IO),
	.check = handler_check,
	.apply = handler_apply,
	.undo = handler_undo,
	.publish = handler_publish,
	.finish = handler_finish,
};
