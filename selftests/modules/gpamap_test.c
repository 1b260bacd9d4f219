// SPDX-License-Identifier: GPL-2.0
/*
 * What tests of dispatching need in the kernel. Handlers for handler_test, abi_test and
 * dispatch_bench: memory of 256 bytes with all kinds of lengths and byte orders.
 * What they were called with is in debugfs, gpamap_test/log, a line a call, which
 * reading takes away:
 *
 *	create ARG | destroy | read OFFSET LEN | write OFFSET LEN VALUE
 *
 * "test-transact" tells commit and undo, too; of the others an instance that is undone is told as
 * destroyed.
 *
 * Whatever is written to gpamap_test/unregister takes "test-gone" away.
 *
 * "VM ADDRESS" written to gpamap_test/fast_write, a descriptor and a hexadecimal
 * number, asks KVM's fast-MMIO bus as KVM does where it can, in the name of the first
 * vCPU: ENOENT nothing is there, EOPNOTSUPP it does not answer.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/kvm_host.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <kvm/iodev.h>
#include "gpamap_handler.h"

#define MEM_LEN 256
#define REFUSED 0x80		/* "test-refuse" refuses from here on */
#define BAD_ARG 0xbad

struct instance {
	u64 arg;
	u8 mem[MEM_LEN + 8];	/* a widened access reaches beyond */
};

static DEFINE_MUTEX(log_lock);
static char log[16384];
static size_t log_len;
static struct dentry *dir;
static bool gone;

static void __printf(1, 2) say(const char *fmt, ...)
{
	va_list args;

	mutex_lock(&log_lock);
	va_start(args, fmt);
	log_len += vscnprintf(log + log_len, sizeof(log) - log_len, fmt, args);
	va_end(args);
	mutex_unlock(&log_lock);
}

static int test_create(u64 arg, void **data)
{
	struct instance *instance;

	say("create %llu\n", arg);
	if (arg == BAD_ARG)
		return -ENXIO;
	instance = kzalloc(sizeof(*instance), GFP_KERNEL);
	if (!instance)
		return -ENOMEM;
	instance->arg = arg;
	*data = instance;
	return 0;
}

static void test_destroy(void *data)
{
	say("destroy\n");
	kfree(data);
}

static void test_commit(void *data)
{
	say("commit\n");
}

static void test_undo(void *data)
{
	say("undo\n");
	kfree(data);
}

static int test_read(void *data, u64 offset, u32 len, u64 *value)
{
	struct instance *instance = data;
	u32 i;

	if (offset > sizeof(instance->mem) - len)
		return -EIO;
	say("read %llu %u\n", offset, len);
	for (i = len; i--;)
		*value = *value << 8 | instance->mem[offset + i];
	return 0;
}

static int test_write(void *data, u64 offset, u32 len, u64 value)
{
	struct instance *instance = data;
	u32 i;

	if (offset > sizeof(instance->mem) - len)
		return -EIO;
	say("write %llu %u 0x%llx\n", offset, len, value);
	for (i = 0; i < len; i++, value >>= 8)
		instance->mem[offset + i] = value;
	return 0;
}

static int test_read_be(void *data, u64 offset, u32 len, u64 *value)
{
	struct instance *instance = data;
	u32 i;

	if (offset > sizeof(instance->mem) - len)
		return -EIO;
	say("read %llu %u\n", offset, len);
	for (i = 0; i < len; i++)
		*value = *value << 8 | instance->mem[offset + i];
	return 0;
}

static int test_write_be(void *data, u64 offset, u32 len, u64 value)
{
	struct instance *instance = data;
	u32 i;

	if (offset > sizeof(instance->mem) - len)
		return -EIO;
	say("write %llu %u 0x%llx\n", offset, len, value);
	for (i = len; i--; value >>= 8)
		instance->mem[offset + i] = value;
	return 0;
}

static int refusing_read(void *data, u64 offset, u32 len, u64 *value)
{
	return offset >= REFUSED ? -EIO : test_read(data, offset, len, value);
}

static int refusing_write(void *data, u64 offset, u32 len, u64 value)
{
	return offset >= REFUSED ? -EIO : test_write(data, offset, len, value);
}

/* Takes as many milliseconds as the argument says. */
static int slow_read(void *data, u64 offset, u32 len, u64 *value)
{
	struct instance *instance = data;

	msleep(instance->arg);
	return test_read(data, offset, len, value);
}

static int quiet_read(void *data, u64 offset, u32 len, u64 *value)
{
	return 0;
}

static int quiet_write(void *data, u64 offset, u32 len, u64 value)
{
	return 0;
}

#define MEMORY_OF(_name, _read, _write, ...)					\
	{									\
		.owner = THIS_MODULE,						\
		.name = _name,							\
		.prepare = test_create,						\
		.destroy = test_destroy,					\
		.read = _read,							\
		.write = _write,						\
		__VA_ARGS__							\
	}
#define MEMORY(_name, ...) MEMORY_OF(_name, test_read, test_write, __VA_ARGS__)

static const struct gpamap_handler_ops handlers[] = {
	MEMORY("test-gone"),
	MEMORY("test-aligned"),
	MEMORY("test-any", .valid = { .unaligned = true }, .impl = { .unaligned = true }),
	MEMORY("test-split-1", .valid = { .unaligned = true }, .impl = { .max = 1 }),
	MEMORY("test-split-2", .valid = { .unaligned = true }, .impl = { .max = 2 }),
	MEMORY("test-wide-4", .valid = { .unaligned = true }, .impl = { 4, 4 }),
	MEMORY("test-wide-8", .valid = { .unaligned = true }, .impl = { 8, 8 }),
	MEMORY("test-wide-4-any", .valid = { .unaligned = true }, .impl = { 4, 4, true }),
	MEMORY_OF("test-be", test_read_be, test_write_be, .big_endian = true,
		  .valid = { .unaligned = true }, .impl = { .unaligned = true }),
	MEMORY_OF("test-be-wide-4", test_read_be, test_write_be, .big_endian = true,
		  .valid = { .unaligned = true }, .impl = { 4, 4 }),
	MEMORY("test-valid-2-4", .valid = { 2, 4 }),
	MEMORY_OF("test-refuse", refusing_read, refusing_write),
	MEMORY_OF("test-read-only", test_read, NULL),
	MEMORY_OF("test-write-only", NULL, test_write),
	MEMORY_OF("test-slow", slow_read, test_write),
	MEMORY("test-transact", .commit = test_commit, .undo = test_undo),
	{ .owner = THIS_MODULE, .name = "test-bare" },
	{ .owner = THIS_MODULE, .name = "test-quiet", .read = quiet_read, .write = quiet_write },
};

static int log_show(struct seq_file *m, void *unused)
{
	mutex_lock(&log_lock);
	seq_write(m, log, log_len);
	if (!seq_has_overflowed(m))
		log_len = 0;
	mutex_unlock(&log_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(log);

static ssize_t unregister_write(struct file *file, const char __user *buf, size_t len,
				loff_t *pos)
{
	if (gone)
		return -ENOENT;
	gone = true;
	gpamap_handler_unregister(&handlers[0]);
	return len;
}

static const struct file_operations unregister_fops = {
	.owner = THIS_MODULE,
	.write = unregister_write,
};

/*
 * Where KVM takes an access without a length to be, seen from a range: -1 before, 1 behind, 0 in
 * it, to which the byte behind it belongs, too.
 */
static int place_of(u64 addr, const struct kvm_io_range *range)
{
	if (addr < range->addr)
		return -1;
	return addr - range->addr > range->len ? 1 : 0;
}

static int ask_fast_bus(struct kvm *kvm, u64 addr)
{
	struct kvm_vcpu *vcpu = kvm_get_vcpu(kvm, 0);
	int rc = -ENOENT, idx, lo = 0, hi = 0, at = -1;
	const struct kvm_io_bus *bus;

	if (!vcpu)
		return -ENXIO;
	idx = srcu_read_lock(&kvm->srcu);
	bus = srcu_dereference(kvm->buses[KVM_FAST_MMIO_BUS], &kvm->srcu);
	if (bus)
		hi = bus->dev_count;
	while (lo < hi && at < 0) {
		int mid = lo + (hi - lo) / 2, place = place_of(addr, &bus->range[mid]);

		if (!place)
			at = mid;
		else if (place < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	/* The first of those that follow each other, and on from there. */
	while (at > 0 && !place_of(addr, &bus->range[at - 1]))
		at--;
	for (; at >= 0 && at < bus->dev_count && !place_of(addr, &bus->range[at]); at++) {
		rc = kvm_iodevice_write(vcpu, bus->range[at].dev, addr, 0, NULL);
		if (!rc)
			break;
	}
	srcu_read_unlock(&kvm->srcu, idx);
	return rc;
}

static ssize_t fast_write_write(struct file *file, const char __user *buf, size_t len,
				loff_t *pos)
{
	char line[64] = "";
	struct file *vm;
	unsigned int fd;
	u64 addr;
	int rc;

	if (len >= sizeof(line) || copy_from_user(line, buf, len) ||
	    sscanf(line, "%u %llx", &fd, &addr) != 2)
		return -EINVAL;
	vm = fget(fd);
	if (!vm)
		return -EBADF;
	/* Only tests come here, and they pass a VM. */
	rc = ask_fast_bus(vm->private_data, addr);
	fput(vm);
	return rc ?: len;
}

static const struct file_operations fast_write_fops = {
	.owner = THIS_MODULE,
	.write = fast_write_write,
};

/* What is refused: the names are not offered. */
static int __init try_bad_handlers(void)
{
	static const struct gpamap_handler_ops bad[] = {
		{ .name = NULL },
		{ .name = "" },
		{ .name = "0123456789012345678901234567890123456789012345678901234567890123" },
		{ .name = "test-bad", .valid = { .min = 3 } },
		{ .name = "test-bad", .valid = { .max = 16 } },
		{ .name = "test-bad", .impl = { .min = 4, .max = 2 } },
	};
	u32 i;
	int rc;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		rc = gpamap_handler_register(&bad[i]);
		if (rc != -EINVAL) {
			pr_err("bad handler %u: %d\n", i, rc);
			return -EBADE;
		}
	}
	rc = gpamap_handler_register(&handlers[0]);
	if (rc != -EEXIST) {
		pr_err("a handler a second time: %d\n", rc);
		return -EBADE;
	}
	return 0;
}

static void unregister_all(u32 nr)
{
	while (nr--)
		if (nr || !gone)
			gpamap_handler_unregister(&handlers[nr]);
}

static int __init test_init(void)
{
	u32 i;
	int rc;

	dir = debugfs_create_dir("gpamap_test", NULL);
	debugfs_create_file("log", 0400, dir, NULL, &log_fops);
	debugfs_create_file("fast_write", 0200, dir, NULL, &fast_write_fops);
	debugfs_create_file("unregister", 0200, dir, NULL, &unregister_fops);
	for (i = 0; i < ARRAY_SIZE(handlers); i++) {
		rc = gpamap_handler_register(&handlers[i]);
		if (rc)
			goto err;
		/* With the first there: before others, that are used, can be in the way. */
		rc = i ? 0 : try_bad_handlers();
		if (rc) {
			i++;
			goto err;
		}
	}
	return 0;
err:
	unregister_all(i);
	debugfs_remove_recursive(dir);
	return rc;
}

static void __exit test_exit(void)
{
	debugfs_remove_recursive(dir);
	unregister_all(ARRAY_SIZE(handlers));
}

module_init(test_init);
module_exit(test_exit);

MODULE_DESCRIPTION("Handlers for gpamap's tests");
MODULE_AUTHOR("The gpamap authors");
MODULE_LICENSE("GPL");
