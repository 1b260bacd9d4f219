// SPDX-License-Identifier: GPL-2.0
/*
 * The device, and the table of its ioctls.
 *
 * Every open file is a map of its own; nothing is shared between two. The
 * dispatcher copies the argument structure in and, for a command with results,
 * out again, also when the command has failed. It writes it once before the
 * command runs, so that a bad pointer is found while nothing has changed. A
 * command therefore never touches the memory of its argument structure, only
 * arrays that it points at.
 */
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/uaccess.h>
#include "private.h"

/* Which lock the dispatcher holds around a command. */
enum lock_mode {
	LOCK_NONE,	/* the command locks the map itself, or reads under RCU */
	LOCK_MAP,	/* the lock of the map */
};

struct ioctl_op {
	u32 size;		/* of the structure as this kernel knows it */
	u32 min_size;		/* of its first version */
	unsigned int cmd;
	enum lock_mode lock;
	bool respond;		/* has out_ members */
	int (*execute)(struct gpamap *map, void *arg);
};

union ioctl_arg {
	u32 size;		/* the first member of all */
	struct gpamap_attach attach;
	struct gpamap_detach detach;
	struct gpamap_apply apply;
	struct gpamap_query query;
	struct gpamap_lookup lookup;
	struct gpamap_doorbell doorbell;
	struct gpamap_registers registers;
	struct gpamap_handler handler;
	struct gpamap_policy policy;
	struct gpamap_ring ring;
	struct gpamap_post post;
};

#define IOCTL_OP(_cmd, _struct, _last, _lock, _respond, _execute)		\
	[_IOC_NR(_cmd) - GPAMAP_CMD_BASE] = {					\
		.size = sizeof(struct _struct) +				\
			BUILD_BUG_ON_ZERO(sizeof(struct _struct) >		\
					  sizeof(union ioctl_arg)) +		\
			BUILD_BUG_ON_ZERO(offsetof(struct _struct, size)),	\
		.min_size = offsetofend(struct _struct, _last),			\
		.cmd = _cmd,							\
		.lock = _lock,							\
		.respond = _respond,						\
		.execute = _execute,						\
	}

static const struct ioctl_op ioctl_ops[] = {
	IOCTL_OP(GPAMAP_ATTACH, gpamap_attach, __reserved, LOCK_MAP, false,
		 gpamap_attach),
	IOCTL_OP(GPAMAP_DETACH, gpamap_detach, flags, LOCK_MAP, false, gpamap_detach),
	IOCTL_OP(GPAMAP_APPLY, gpamap_apply, out_generation, LOCK_NONE, true,
		 gpamap_apply),
	IOCTL_OP(GPAMAP_QUERY, gpamap_query, out_generation, LOCK_NONE, true,
		 gpamap_query),
	IOCTL_OP(GPAMAP_LOOKUP, gpamap_lookup, __reserved2, LOCK_NONE, true,
		 gpamap_lookup),
	IOCTL_OP(GPAMAP_DOORBELL, gpamap_doorbell, __reserved, LOCK_MAP, false,
		 gpamap_doorbell),
	IOCTL_OP(GPAMAP_REGISTERS, gpamap_registers, registers, LOCK_NONE, false,
		 gpamap_registers),
	IOCTL_OP(GPAMAP_HANDLER, gpamap_handler, name, LOCK_MAP, false, gpamap_handler),
	IOCTL_OP(GPAMAP_POLICY, gpamap_policy, policy, LOCK_MAP, false, gpamap_policy),
	IOCTL_OP(GPAMAP_RING, gpamap_ring, fd, LOCK_MAP, false, gpamap_ring),
	IOCTL_OP(GPAMAP_POST, gpamap_post, ring, LOCK_MAP, false, gpamap_post),
};

static int execute(const struct ioctl_op *op, struct gpamap *map, union ioctl_arg *arg)
{
	int rc;

	if (op->lock == LOCK_NONE)
		return op->execute(map, arg);
	rc = mutex_lock_killable(&map->lock);
	if (rc)
		return rc;
	rc = op->execute(map, arg);
	mutex_unlock(&map->lock);
	return rc;
}

static long gpamap_fop_ioctl(struct file *file, unsigned int cmd, unsigned long uarg)
{
	unsigned int nr = _IOC_NR(cmd) - GPAMAP_CMD_BASE;
	void __user *uptr = (void __user *)uarg;
	const struct ioctl_op *op;
	union ioctl_arg arg;
	u32 user_size;
	int rc;

	if (nr >= ARRAY_SIZE(ioctl_ops))
		return -ENOTTY;
	op = &ioctl_ops[array_index_nospec(nr, ARRAY_SIZE(ioctl_ops))];
	if (op->cmd != cmd)
		return -ENOTTY;

	if (get_user(user_size, (u32 __user *)uptr))
		return -EFAULT;
	if (user_size < op->min_size)
		return -EINVAL;
	if (user_size > PAGE_SIZE)
		return -E2BIG;
	memset(&arg, 0, sizeof(arg));
	rc = copy_struct_from_user(&arg, op->size, uptr, user_size);
	if (rc)
		return rc;
	arg.size = user_size;
	if (!op->respond)
		return execute(op, file->private_data, &arg);

	user_size = min(user_size, op->size);
	if (copy_to_user(uptr, &arg, user_size))
		return -EFAULT;
	rc = execute(op, file->private_data, &arg);
	/* It could be written a moment ago; what was done is not undone for this. */
	if (copy_to_user(uptr, &arg, user_size))
		return rc ?: -EFAULT;
	return rc;
}

/* Readable when there is a generation that QUERY has not told yet. */
static __poll_t gpamap_fop_poll(struct file *file, struct poll_table_struct *table)
{
	struct gpamap *map = file->private_data;

	poll_wait(file, &map->wait, table);
	return READ_ONCE(map->generation) != READ_ONCE(map->seen_generation) ?
		       EPOLLIN | EPOLLRDNORM : 0;
}

static int gpamap_fop_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct gpamap *map = file->private_data;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	/* No region has the id 0. */
	if (!vma->vm_pgoff)
		return gpamap_exits_mmap(map, vma);
	if ((u64)vma->vm_pgoff > U32_MAX)
		return gpamap_ring_mmap(map, vma);
	return gpamap_registers_mmap(map, vma);
}

static int gpamap_fop_open(struct inode *inode, struct file *file)
{
	struct gpamap *map;

	map = kzalloc(sizeof(*map), GPAMAP_GFP);
	if (!map)
		return -ENOMEM;
	mutex_init(&map->lock);
	init_waitqueue_head(&map->wait);
	gpamap_tree_init(&map->tree);
	gpamap_slots_init(&map->slots);
	gpamap_rings_init(map);
	gpamap_debugfs_add(map);
	file->private_data = map;
	return 0;
}

/* May run in any process, and in one without an mm. Never fails. */
static int gpamap_fop_release(struct inode *inode, struct file *file)
{
	struct gpamap *map = file->private_data;
	struct gpamap_region *region;
	unsigned long id;

	gpamap_debugfs_del(map);
	if (map->vm)
		gpamap_vm_put(map->vm);
	gpamap_slots_destroy(&map->slots);
	/* Nobody reads any more: LOOKUP and poll hold the file, KVM does not ask. */
	kfree(rcu_dereference_protected(map->snapshot, true));
	xa_for_each(&map->tree.regions, id, region)
		gpamap_io_free(region);
	gpamap_exits_free(map);
	gpamap_rings_free(map);
	gpamap_tree_destroy(&map->tree);
	mutex_destroy(&map->lock);
	kfree(map);
	return 0;
}

static const struct file_operations gpamap_fops = {
	.owner = THIS_MODULE,
	.open = gpamap_fop_open,
	.release = gpamap_fop_release,
	.unlocked_ioctl = gpamap_fop_ioctl,
	.poll = gpamap_fop_poll,
	.mmap = gpamap_fop_mmap,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice gpamap_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "gpamap",
	.fops = &gpamap_fops,
	.mode = 0660,
};

static int __init gpamap_init(void)
{
	int rc;

	gpamap_debugfs_init();
	rc = misc_register(&gpamap_dev);
	if (rc)
		gpamap_debugfs_exit();
	return rc;
}

static void __exit gpamap_exit(void)
{
	misc_deregister(&gpamap_dev);
	gpamap_debugfs_exit();
	gpamap_vm_exit();
}

module_init(gpamap_init);
module_exit(gpamap_exit);

MODULE_DESCRIPTION("Guest-physical-address map of KVM VMs");
MODULE_AUTHOR("The gpamap authors");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1");
