// SPDX-License-Identifier: GPL-2.0
/*
 * The device, and the table of its ioctls.
 *
 * Every open file is a map of its own; nothing is shared between two. The
 * dispatcher copies the argument structure in and, for a command with results,
 * out again, also when the command has failed. It writes it once before the
 * command runs, so that a bad pointer is found while nothing has changed. A
 * command therefore never touches the memory of its argument structure, only
 * arrays that it points at. Each locks the map itself, within its deadline.
 */
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/uaccess.h>
#include "commands.h"

struct ioctl_op {
	u32 size;		/* of the structure as this kernel knows it */
	u32 min_size;		/* of its first version */
	unsigned int cmd;
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
	struct gpamap_watch watch;
};

#define IOCTL_OP(_cmd, _struct, _last, _respond, _execute)			\
	[_IOC_NR(_cmd) - GPAMAP_CMD_BASE] = {					\
		.size = sizeof(struct _struct) +				\
			BUILD_BUG_ON_ZERO(sizeof(struct _struct) >		\
					  sizeof(union ioctl_arg)) +		\
			BUILD_BUG_ON_ZERO(offsetof(struct _struct, size)),	\
		.min_size = offsetofend(struct _struct, _last),			\
		.cmd = _cmd,							\
		.respond = _respond,						\
		.execute = _execute,						\
	}

static int execute_attach(struct gpamap *map, void *arg)
{
	return gpamap_map_attach(map, arg);
}

static int execute_detach(struct gpamap *map, void *arg)
{
	return gpamap_map_detach(map, arg);
}

static int execute_apply(struct gpamap *map, void *arg)
{
	return gpamap_map_apply(map, arg);
}

static int execute_watch(struct gpamap *map, void *arg)
{
	const struct gpamap_watch *cmd = arg;

	return cmd->flags ? -EOPNOTSUPP : gpamap_news_watch(map->reader.news);
}

static const struct ioctl_op ioctl_ops[] = {
	IOCTL_OP(GPAMAP_ATTACH, gpamap_attach, __reserved, false, execute_attach),
	IOCTL_OP(GPAMAP_DETACH, gpamap_detach, flags, false, execute_detach),
	IOCTL_OP(GPAMAP_APPLY, gpamap_apply, out_generation, true, execute_apply),
	IOCTL_OP(GPAMAP_QUERY, gpamap_query, out_generation, true, gpamap_query),
	IOCTL_OP(GPAMAP_LOOKUP, gpamap_lookup, __reserved2, true, gpamap_lookup),
	IOCTL_OP(GPAMAP_DOORBELL, gpamap_doorbell, __reserved, false, gpamap_doorbell),
	IOCTL_OP(GPAMAP_REGISTERS, gpamap_registers, registers, false, gpamap_registers),
	IOCTL_OP(GPAMAP_HANDLER, gpamap_handler, name, false, gpamap_handler),
	IOCTL_OP(GPAMAP_POLICY, gpamap_policy, policy, false, gpamap_policy),
	IOCTL_OP(GPAMAP_RING, gpamap_ring, fd, false, gpamap_ring),
	IOCTL_OP(GPAMAP_POST, gpamap_post, ring, false, gpamap_post),
	IOCTL_OP(GPAMAP_WATCH, gpamap_watch, flags, false, execute_watch),
};

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
		return op->execute(file->private_data, &arg);

	user_size = min(user_size, op->size);
	if (copy_to_user(uptr, &arg, user_size))
		return -EFAULT;
	rc = op->execute(file->private_data, &arg);
	/* It could be written a moment ago; what was done is not undone for this. */
	if (copy_to_user(uptr, &arg, user_size))
		return rc ?: -EFAULT;
	return rc;
}

static __poll_t gpamap_fop_poll(struct file *file, struct poll_table_struct *table)
{
	struct gpamap *map = file->private_data;

	return gpamap_reader_poll(&map->reader, file, table);
}

static ssize_t gpamap_fop_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	struct gpamap *map = file->private_data;

	return gpamap_reader_read(&map->reader, file, buf, len);
}

static int gpamap_fop_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct gpamap *map = file->private_data;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	/* No region has the id 0. */
	if (!vma->vm_pgoff)
		return gpamap_exits_mmap(&map->dispatch, vma);
	if ((u64)vma->vm_pgoff > U32_MAX)
		return gpamap_ring_mmap(&map->ties, vma);
	return gpamap_registers_mmap(&map->ties, &map->tree, vma);
}

static int gpamap_fop_open(struct inode *inode, struct file *file)
{
	struct gpamap *map = gpamap_map_alloc();

	if (!map)
		return -ENOMEM;
	gpamap_debugfs_add(map);
	file->private_data = map;
	return 0;
}

static int gpamap_fop_release(struct inode *inode, struct file *file)
{
	gpamap_debugfs_del(file->private_data);
	gpamap_map_close(file->private_data);
	return 0;
}

static const struct file_operations gpamap_fops = {
	.owner = THIS_MODULE,
	.open = gpamap_fop_open,
	.release = gpamap_fop_release,
	.unlocked_ioctl = gpamap_fop_ioctl,
	.read = gpamap_fop_read,
	.llseek = noop_llseek,
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

	rc = gpamap_map_init();
	if (rc)
		return rc;
	gpamap_debugfs_init();
	rc = misc_register(&gpamap_dev);
	if (!rc)
		return 0;
	gpamap_debugfs_exit();
	gpamap_map_exit();
	return rc;
}

static void __exit gpamap_exit(void)
{
	misc_deregister(&gpamap_dev);
	gpamap_map_exit();
	gpamap_debugfs_exit();
	gpamap_hold_stop();
}

module_init(gpamap_init);
module_exit(gpamap_exit);

MODULE_DESCRIPTION("Guest-physical-address map of KVM VMs");
MODULE_AUTHOR("The gpamap authors");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1");
