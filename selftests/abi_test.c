// SPDX-License-Identifier: GPL-2.0
/*
 * The ABI, with raw ioctls: every command and every member of every structure has
 * its error, an error changes nothing, and limits are what the header says.
 *
 * What operations do when they work is the subject of tree_test.c, what KVM makes
 * of slots that of slots_test.c.
 *
 * Most tests use a map that has something of everything (FIXTURE abi), so that
 * "nothing has changed", which is checked after every failure, means something.
 */
#include "harness.h"
#include <fcntl.h>
#include <limits.h>
#include <linux/kvm.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "gpamap_util.h"
#include "guest.h"

#define PAGE TEST_PAGE

/* What FIXTURE abi has. */
#define ROOT 1
#define RAM 2
#define IO 3
#define ALIAS 4
#define ROM 5
#define LOOSE 6
#define BOX 7
#define SPACE 1
#define VIEW 2
#define FREE_ID 100
#define RING 1
#define OTHER_RING 2

#define RAM_LEN (64 * PAGE)

FIXTURE(abi) {
	int fd;
	struct guest guest;
	char *ram;
	char *page;		/* followed by one that cannot be accessed */
};

FIXTURE_SETUP(abi)
{
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, guest_create(&self->guest));
	self->ram = mmap(NULL, RAM_LEN, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->ram);
	self->page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->page);
	ASSERT_EQ(0, mprotect(self->page + PAGE, PAGE, PROT_NONE));

	test_cmd_apply(self->fd,
		       op_name(op_container(ROOT, U64_MAX), "root"),
		       op_name(op_ram(RAM, RAM_LEN - 1, self->ram), "ram"),
		       op_name(op_io(IO, PAGE - 1), "io"),
		       op_name(op_alias(ALIAS, RAM, PAGE, 2 * PAGE - 1), "alias"),
		       op_name(op_rom(ROM, PAGE - 1, self->ram), "rom"),
		       op_name(op_container(LOOSE, 0xffff), "loose"),
		       op_name(op_container(BOX, 0xffffff), "box"),
		       op_add(RAM, BOX, 0, 0),
		       op_add(BOX, ROOT, 0, 0),
		       op_add(IO, ROOT, 8 * PAGE, 1),
		       op_add(ALIAS, ROOT, 0x100000000, -1),
		       op_add(ROM, ROOT, 0x200000000, 0),
		       op_name(op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT), "memory"),
		       op_name(op_space(VIEW, GPAMAP_SPACE_VIEW, BOX), "view"));
	test_cmd_attach(self->fd, self->guest.vm, 0, 100);
	EXPECT_SLOTS(self->fd,
		     { 0, 8, self->ram, 0, 0 },
		     { 9 * PAGE, 55, self->ram + 9 * PAGE, 1, 0 },
		     { 0x100000000, 2, self->ram + PAGE, 2, 0 },
		     { 0x200000000, 1, self->ram, 3, KVM_MEM_READONLY });
}

FIXTURE_TEARDOWN(abi)
{
	close(self->fd);
	guest_destroy(&self->guest);
}

/* A fresh map and nothing else. */
FIXTURE(empty) {
	int fd;
};

FIXTURE_SETUP(empty)
{
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(empty)
{
	close(self->fd);
}

TEST(device_mode)
{
	struct stat st;

	ASSERT_EQ(0, stat(GPAMAP_DEVICE, &st));
	EXPECT_TRUE(S_ISCHR(st.st_mode));
	EXPECT_EQ(0660, (int)(st.st_mode & 07777));
}

/* -- structures ------------------------------------------------------------ */

union cmd_buf {
	struct {
		u32 size;
		u32 flags;
	};
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
	unsigned char bytes[8192];
};

static const struct cmd {
	const char *name;
	unsigned int nr;
	u32 size;
	u32 min_size;
	u32 flags;			/* that there are */
	u32 reserved[2];		/* offsets of __reserved members; 0 for none */
} cmds[] = {
	{ "ATTACH", GPAMAP_ATTACH, sizeof(struct gpamap_attach), 24, 0,
	  { offsetof(struct gpamap_attach, __reserved),
	    offsetof(struct gpamap_attach, __reserved2) } },
	{ "DETACH", GPAMAP_DETACH, sizeof(struct gpamap_detach), 8, 0,
	  { offsetof(struct gpamap_detach, __reserved) } },
	{ "APPLY", GPAMAP_APPLY, sizeof(struct gpamap_apply), 40, GPAMAP_APPLY_DRY_RUN,
	  { offsetof(struct gpamap_apply, __reserved),
	    offsetof(struct gpamap_apply, __reserved2) } },
	{ "QUERY", GPAMAP_QUERY, sizeof(struct gpamap_query), 40, 0, { 0 } },
	{ "LOOKUP", GPAMAP_LOOKUP, sizeof(struct gpamap_lookup), 72, 0,
	  { offsetof(struct gpamap_lookup, __reserved),
	    offsetof(struct gpamap_lookup, __reserved2) } },
	{ "DOORBELL", GPAMAP_DOORBELL, sizeof(struct gpamap_doorbell), 40,
	  GPAMAP_DOORBELL_MATCH | GPAMAP_DOORBELL_REMOVE | GPAMAP_DOORBELL_FAST,
	  { offsetof(struct gpamap_doorbell, __reserved) } },
	{ "REGISTERS", GPAMAP_REGISTERS, sizeof(struct gpamap_registers), 32,
	  GPAMAP_REGISTERS_REMOVE, { offsetof(struct gpamap_registers, __reserved) } },
	{ "HANDLER", GPAMAP_HANDLER, sizeof(struct gpamap_handler), 88,
	  GPAMAP_HANDLER_REMOVE, { offsetof(struct gpamap_handler, __reserved) } },
	{ "POLICY", GPAMAP_POLICY, sizeof(struct gpamap_policy), 16, 0, { 0 } },
	{ "RING", GPAMAP_RING, sizeof(struct gpamap_ring), 24, GPAMAP_RING_REMOVE,
	  { offsetof(struct gpamap_ring, __reserved) } },
	{ "POST", GPAMAP_POST, sizeof(struct gpamap_post), 16, GPAMAP_POST_REMOVE, { 0 } },
	{ "WATCH", GPAMAP_WATCH, sizeof(struct gpamap_watch), 8, 0, { 0 } },
};

static bool is_cmd(u32 nr)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(cmds); i++)
		if (_IOC_NR(cmds[i].nr) == nr)
			return true;
	return false;
}

/* A command; a descriptor that it returns is closed. 0 or -errno. */
static int cmd_run(int fd, const struct cmd *cmd, void *arg)
{
	int rc = ioctl(fd, cmd->nr, arg);

	if (rc < 0)
		return -errno;
	if (cmd->nr == GPAMAP_WATCH ? !rc : rc)
		return -EBADMSG;
	return rc && close(rc) ? -errno : 0;
}

static int add_ring(int fd, u32 id, int bell)
{
	struct gpamap_ring cmd = {
		.size = sizeof(cmd),
		.id = id,
		.nr_entries = GPAMAP_MIN_RING_ENTRIES,
		.watermark = 1,
		.fd = bell,
	};

	return map_ioctl(fd, GPAMAP_RING, &cmd);
}

/*
 * A command of a kind that works, on @fd. So that it does, the map is attached
 * before a DETACH and detached before an ATTACH.
 */
static int cmd_prepare(const struct cmd *cmd, union cmd_buf *buf, int fd, int vm)
{
	static struct gpamap_info info;
	static const struct gpamap_register reg = { 0, 1, GPAMAP_REGISTER_READONLY, 0 };
	static struct gpamap_op op;
	static int bell = -1;
	int rc;

	if (bell < 0)
		bell = eventfd(0, EFD_CLOEXEC);
	memset(buf, 0, sizeof(*buf));
	buf->size = cmd->size;
	_test_cmd_detach(fd);
	if (cmd->nr != GPAMAP_ATTACH && _test_cmd_attach(fd, vm, 0, 100))
		return -1;
	switch (cmd->nr) {
	case GPAMAP_ATTACH:
		buf->attach.vm_fd = vm;
		buf->attach.nr_slots = 100;
		break;
	case GPAMAP_APPLY:
		op = op_io(FREE_ID, 0);
		buf->apply.ops = (uintptr_t)&op;
		buf->apply.nr_ops = 1;
		buf->apply.op_size = sizeof(op);
		break;
	case GPAMAP_QUERY:
		buf->query.what = GPAMAP_QUERY_INFO;
		buf->query.records = (uintptr_t)&info;
		buf->query.record_size = sizeof(info);
		buf->query.count = 1;
		break;
	case GPAMAP_LOOKUP:
		buf->lookup.space = SPACE;
		break;
	case GPAMAP_DOORBELL:
		buf->doorbell.region = IO;
		buf->doorbell.fd = bell;
		break;
	case GPAMAP_REGISTERS:
		buf->registers.region = IO;
		buf->registers.nr = 1;
		buf->registers.register_size = sizeof(reg);
		buf->registers.registers = (uintptr_t)&reg;
		break;
	case GPAMAP_HANDLER:
		buf->handler.region = IO;
		strcpy((char *)buf->handler.name, "test-any");
		break;
	case GPAMAP_POLICY:
		buf->policy.region = IO;
		break;
	case GPAMAP_RING:
		buf->ring.id = RING;
		buf->ring.nr_entries = 16;
		buf->ring.watermark = 1;
		buf->ring.fd = bell;
		break;
	case GPAMAP_POST:
		rc = add_ring(fd, OTHER_RING, bell);
		if (rc && rc != -EEXIST)
			return rc;
		buf->post.region = IO;
		buf->post.ring = OTHER_RING;
		break;
	}
	return 0;
}

static int remove_doorbell(int fd, const union cmd_buf *buf)
{
	struct gpamap_doorbell cmd = buf->doorbell;

	cmd.size = sizeof(cmd);
	cmd.flags |= GPAMAP_DOORBELL_REMOVE;
	return map_ioctl(fd, GPAMAP_DOORBELL, &cmd);
}

static int remove_registers(int fd)
{
	struct gpamap_registers cmd = {
		.size = sizeof(cmd),
		.flags = GPAMAP_REGISTERS_REMOVE,
		.region = IO,
	};

	return map_ioctl(fd, GPAMAP_REGISTERS, &cmd);
}

static int remove_handler(int fd)
{
	struct gpamap_handler cmd = {
		.size = sizeof(cmd),
		.flags = GPAMAP_HANDLER_REMOVE,
		.region = IO,
	};

	return map_ioctl(fd, GPAMAP_HANDLER, &cmd);
}

static int remove_ring(int fd)
{
	struct gpamap_ring cmd = {
		.size = sizeof(cmd),
		.flags = GPAMAP_RING_REMOVE,
		.id = RING,
	};

	return map_ioctl(fd, GPAMAP_RING, &cmd);
}

static int remove_post(int fd)
{
	struct gpamap_post cmd = {
		.size = sizeof(cmd),
		.flags = GPAMAP_POST_REMOVE,
		.region = IO,
	};

	return map_ioctl(fd, GPAMAP_POST, &cmd);
}

#define for_each_cmd(_cmd)							\
	for ((_cmd) = cmds; (_cmd) < cmds + ARRAY_SIZE(cmds); (_cmd)++)

/* Expects that the prepared command works; undoes what it has made. */
#define EXPECT_CMD_WORKS(_cmd, _buf)						\
	do {									\
		EXPECT_EQ(0, cmd_run(self->fd, _cmd, _buf))			\
			TH_LOG("%s, size %u", (_cmd)->name, (_buf)->size);	\
		if ((_cmd)->nr == GPAMAP_APPLY)					\
			test_cmd_apply(self->fd, op_destroy(FREE_ID));		\
		if ((_cmd)->nr == GPAMAP_DOORBELL)				\
			EXPECT_EQ(0, remove_doorbell(self->fd, _buf));		\
		if ((_cmd)->nr == GPAMAP_REGISTERS)				\
			EXPECT_EQ(0, remove_registers(self->fd));		\
		if ((_cmd)->nr == GPAMAP_HANDLER)				\
			EXPECT_EQ(0, remove_handler(self->fd));			\
		if ((_cmd)->nr == GPAMAP_RING)					\
			EXPECT_EQ(0, remove_ring(self->fd));			\
		if ((_cmd)->nr == GPAMAP_POST)					\
			EXPECT_EQ(0, remove_post(self->fd));			\
	} while (0)

#define EXPECT_CMD_FAILS(_errno, _cmd, _buf)					\
	do {									\
		struct snapshot *__snap = snapshot_take(self->fd);		\
		EXPECT_EQ(-(_errno), cmd_run(self->fd, _cmd, _buf))		\
			TH_LOG("%s, size %u", (_cmd)->name, (_buf)->size);	\
		EXPECT_UNCHANGED(self->fd, __snap);				\
		snapshot_free(__snap);						\
	} while (0)

TEST_F(abi, cmd_works)
{
	static union cmd_buf buf;
	const struct cmd *cmd;

	for_each_cmd(cmd) {
		ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
		EXPECT_CMD_WORKS(cmd, &buf);
	}
}

TEST_F(abi, cmd_too_short)
{
	static union cmd_buf buf;
	const struct cmd *cmd;
	u32 size;

	for_each_cmd(cmd) {
		ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
		for (size = 0; size < cmd->min_size; size++) {
			buf.size = size;
			EXPECT_CMD_FAILS(EINVAL, cmd, &buf);
		}
	}
}

/* Callers built before a structure grew. What lies behind their end stays as it was. */
TEST_F(abi, cmd_of_the_first_version)
{
	static union cmd_buf buf;
	const struct cmd *cmd;
	u32 i;

	for_each_cmd(cmd) {
		ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
		buf.size = cmd->min_size;
		memset(buf.bytes + cmd->min_size, 0xa5, 64);
		EXPECT_CMD_WORKS(cmd, &buf);
		for (i = 0; i < 64; i++)
			EXPECT_EQ(0xa5, (int)buf.bytes[cmd->min_size + i]);
	}
}

TEST_F(abi, cmd_longer_zero_tail)
{
	static const u32 more[] = { 1, 4, 8, 100 };
	static union cmd_buf buf;
	const struct cmd *cmd;
	u32 i;

	for_each_cmd(cmd) {
		for (i = 0; i < ARRAY_SIZE(more); i++) {
			ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
			buf.size += more[i];
			EXPECT_CMD_WORKS(cmd, &buf);
		}
		ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
		buf.size = PAGE;
		EXPECT_CMD_WORKS(cmd, &buf);
		EXPECT_EQ(PAGE, buf.size);
	}
}

TEST_F(abi, cmd_longer_nonzero_tail)
{
	static union cmd_buf buf;
	const struct cmd *cmd;
	u32 at;

	for_each_cmd(cmd) {
		ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
		for (at = cmd->size; at < cmd->size + 16; at++) {
			buf.size = cmd->size + 16;
			buf.bytes[at] = 1;
			EXPECT_CMD_FAILS(E2BIG, cmd, &buf);
			/* What lies beyond the size does not count. */
			buf.size = at;
			if (at == cmd->size && cmd->nr != GPAMAP_ATTACH &&
			    cmd->nr != GPAMAP_DETACH)
				EXPECT_CMD_WORKS(cmd, &buf);
			buf.bytes[at] = 0;
		}
		buf.size = PAGE;
		buf.bytes[PAGE - 1] = 0x80;
		EXPECT_CMD_FAILS(E2BIG, cmd, &buf);
	}
}

TEST_F(abi, cmd_longer_than_page)
{
	static const u32 sizes[] = { PAGE + 1, 2 * PAGE, INT_MAX, UINT_MAX };
	static union cmd_buf buf;
	const struct cmd *cmd;
	u32 i;

	for_each_cmd(cmd) {
		ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
		for (i = 0; i < ARRAY_SIZE(sizes); i++) {
			buf.size = sizes[i];
			EXPECT_CMD_FAILS(E2BIG, cmd, &buf);
		}
	}
}

TEST_F(abi, cmd_unknown_flags)
{
	static union cmd_buf buf;
	const struct cmd *cmd;
	u32 bit;

	for_each_cmd(cmd) {
		ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
		for (bit = 0; bit < 32; bit++) {
			if (cmd->flags & 1U << bit)
				continue;
			buf.flags = 1U << bit;
			EXPECT_CMD_FAILS(EOPNOTSUPP, cmd, &buf);
		}
	}
}

TEST_F(abi, cmd_reserved)
{
	static union cmd_buf buf;
	const struct cmd *cmd;
	u32 i, byte;

	for_each_cmd(cmd) {
		ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
		for (i = 0; i < ARRAY_SIZE(cmd->reserved) && cmd->reserved[i]; i++) {
			for (byte = cmd->reserved[i]; byte < cmd->reserved[i] + 4; byte++) {
				buf.bytes[byte] = 0x80;
				EXPECT_CMD_FAILS(EINVAL, cmd, &buf);
				buf.bytes[byte] = 0;
			}
		}
	}
}

/* Any time is one, be it ever so long; 0 is the module's. */
TEST_F(abi, cmd_timeouts)
{
	static const u32 times[] = { 0, 100000, INT_MAX, (u32)INT_MAX + 1, UINT_MAX };
	static union cmd_buf buf;
	const struct cmd *cmd;
	u32 i;

	for_each_cmd(cmd) {
		u32 at = cmd->nr == GPAMAP_ATTACH ? offsetof(struct gpamap_attach, timeout_ms) :
			 cmd->nr == GPAMAP_DETACH ? offsetof(struct gpamap_detach, timeout_ms) :
			 cmd->nr == GPAMAP_APPLY ? offsetof(struct gpamap_apply, timeout_ms) : 0;

		for (i = 0; at && i < ARRAY_SIZE(times); i++) {
			ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
			memcpy(buf.bytes + at, &times[i], sizeof(times[i]));
			EXPECT_CMD_WORKS(cmd, &buf);
		}
	}
}

TEST_F(abi, cmd_unknown_number)
{
	static union cmd_buf buf;
	const struct cmd *cmd;
	u32 nr;

	cmd = &cmds[0];
	ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
	for (nr = 0; nr < 256; nr++) {
		if (is_cmd(nr))
			continue;
		EXPECT_EQ(-ENOTTY, map_ioctl(self->fd, _IO(GPAMAP_TYPE, nr), &buf))
			TH_LOG("number 0x%x", nr);
	}
	for_each_cmd(cmd) {
		ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
		nr = _IOC_NR(cmd->nr);
		EXPECT_EQ(-ENOTTY, map_ioctl(self->fd, _IO('g', nr), &buf));
		EXPECT_EQ(-ENOTTY, map_ioctl(self->fd, _IO(0xAE, nr), &buf));
		EXPECT_EQ(-ENOTTY, map_ioctl(self->fd, _IOW(GPAMAP_TYPE, nr, u32), &buf));
		EXPECT_EQ(-ENOTTY, map_ioctl(self->fd, _IOR(GPAMAP_TYPE, nr, u32), &buf));
	}
}

TEST_F(abi, cmd_bad_pointer)
{
	void *tail = self->page + PAGE - 4;
	static union cmd_buf buf;
	const struct cmd *cmd;
	void *bad[] = {
		(void *)8,
		self->page + PAGE,
		(void *)0xffff888000000000,
		(void *)-8,
		NULL,
	};
	void **p;

	for_each_cmd(cmd) {
		struct snapshot *snap;

		ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
		snap = snapshot_take(self->fd);
		ASSERT_NE(NULL, snap);
		for (p = bad; p < bad + ARRAY_SIZE(bad); p++)
			EXPECT_EQ(-EFAULT, cmd_run(self->fd, cmd, *p))
				TH_LOG("%s at %p", cmd->name, *p);
		/* The size can be read, what follows cannot. */
		memcpy(tail, &cmd->size, 4);
		EXPECT_EQ(-EFAULT, cmd_run(self->fd, cmd, tail));
		/* The known part can be read, the tail cannot. */
		buf.size = cmd->size + 8;
		memcpy(self->page + PAGE - cmd->size, &buf, cmd->size);
		EXPECT_EQ(-EFAULT, cmd_run(self->fd, cmd, self->page + PAGE - cmd->size));
		EXPECT_UNCHANGED(self->fd, snap);
		snapshot_free(snap);
	}
}

/* A command with results finds out before it does anything that it cannot answer. */
TEST_F(abi, cmd_readonly_memory)
{
	static union cmd_buf buf;
	const struct cmd *cmd;

	for_each_cmd(cmd) {
		ASSERT_EQ(0, cmd_prepare(cmd, &buf, self->fd, self->guest.vm));
		ASSERT_EQ(0, mprotect(self->page, PAGE, PROT_READ | PROT_WRITE));
		memcpy(self->page, &buf, cmd->size);
		ASSERT_EQ(0, mprotect(self->page, PAGE, PROT_READ));
		if (cmd->nr == GPAMAP_APPLY || cmd->nr == GPAMAP_QUERY ||
		    cmd->nr == GPAMAP_LOOKUP)
			EXPECT_CMD_FAILS(EFAULT, cmd, (union cmd_buf *)self->page);
		else
			EXPECT_CMD_WORKS(cmd, (union cmd_buf *)self->page);
	}
}

/* -- ATTACH and DETACH ----------------------------------------------------- */

/* Files with the name that the files of VMs have; as a copy of a device if given. */
static int open_named_kvm_vm(const char *device)
{
	struct stat st;
	int fd = -1;

	if (!device)
		fd = open("/tmp/kvm-vm", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	else if (!stat(device, &st) && !mknod("/tmp/kvm-vm", S_IFCHR | 0600, st.st_rdev))
		fd = open("/tmp/kvm-vm", O_RDWR | O_CLOEXEC);
	unlink("/tmp/kvm-vm");
	return fd;
}

TEST_F(abi, attach_wrong_fd)
{
	int fd, pipes[2], socks[2];
	struct kvm_create_device device = { .type = KVM_DEV_TYPE_VFIO };

	test_cmd_detach(self->fd);

	test_err_attach(EBADF, self->fd, -1, 0, 0);
	test_err_attach(EBADF, self->fd, INT_MAX, 0, 0);
	test_err_attach(EBADF, self->fd, INT_MIN, 0, 0);
	fd = dup(self->guest.vm);
	ASSERT_LE(0, fd);
	close(fd);
	test_err_attach(EBADF, self->fd, fd, 0, 0);
	fd = open("/tmp", O_PATH | O_CLOEXEC);
	ASSERT_LE(0, fd);
	test_err_attach(EBADF, self->fd, fd, 0, 0);
	close(fd);

#define EXPECT_NO_VM(_fd)							\
	do {									\
		fd = (_fd);							\
		ASSERT_LE(0, fd) TH_LOG("%s", #_fd);				\
		test_err_attach(EINVAL, self->fd, fd, 0, 0);			\
		close(fd);							\
	} while (0)
	EXPECT_NO_VM(eventfd(0, EFD_CLOEXEC));
	EXPECT_NO_VM(epoll_create1(EPOLL_CLOEXEC));
	EXPECT_NO_VM(open("/dev/null", O_RDWR | O_CLOEXEC));
	EXPECT_NO_VM(open("/dev/kvm", O_RDWR | O_CLOEXEC));
	EXPECT_NO_VM(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	EXPECT_NO_VM(open_named_kvm_vm(NULL));
	EXPECT_NO_VM(open_named_kvm_vm("/dev/kvm"));
	EXPECT_NO_VM(open_named_kvm_vm(GPAMAP_DEVICE));
	EXPECT_NO_VM(memfd_create("kvm-vm", MFD_CLOEXEC));
	EXPECT_NO_VM(map_open());
	EXPECT_NO_VM(dup(self->guest.vcpu));
	if (!ioctl(self->guest.vm, KVM_CREATE_DEVICE, &device))
		EXPECT_NO_VM((int)device.fd);
	test_err_attach(EINVAL, self->fd, self->fd, 0, 0);
	ASSERT_EQ(0, pipe(pipes));
	EXPECT_NO_VM(pipes[0]);
	EXPECT_NO_VM(pipes[1]);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, socks));
	EXPECT_NO_VM(socks[0]);
	EXPECT_NO_VM(socks[1]);

	/* And the right one works. */
	test_cmd_attach(self->fd, self->guest.vm, 0, 0);
}

/* A child that made the VM passes it on. */
TEST_F(empty, attach_vm_of_child)
{
	struct guest guest;
	int socks[2], vm, status;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, socks));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		char c;

		if (guest_create_vm(&guest) || fd_send(socks[1], guest.vm))
			_exit(1);
		/* Stay until the parent is done. */
		_exit(read(socks[1], &c, 1) != 1);
	}
	vm = fd_receive(socks[0]);
	ASSERT_LE(0, vm);
	test_err_attach(EIO, self->fd, vm, 0, 0);
	ASSERT_EQ(1, write(socks[0], "x", 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	/* Neither when its process is gone. */
	test_err_attach(EIO, self->fd, vm, 0, 0);
}

/* A child has the VM of its parent. */
TEST_F(empty, attach_vm_of_parent)
{
	struct guest guest;
	int status;
	pid_t pid;

	ASSERT_EQ(0, guest_create_vm(&guest));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int fd = map_open();

		if (_test_cmd_attach(self->fd, guest.vm, 0, 0) != -EIO)
			_exit(1);
		if (_test_cmd_attach(fd, guest.vm, 0, 0) != -EIO)
			_exit(2);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	test_cmd_attach(self->fd, guest.vm, 0, 0);
	guest_destroy(&guest);
}

TEST_F(abi, attach_slot_range)
{
	int max = ioctl(self->guest.vm, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
	struct gpamap_info info;

	ASSERT_LT(16, max);
	test_cmd_detach(self->fd);
	test_err_attach(EINVAL, self->fd, self->guest.vm, max, 0);
	test_err_attach(EINVAL, self->fd, self->guest.vm, max, 1);
	test_err_attach(EINVAL, self->fd, self->guest.vm, UINT_MAX, 0);
	test_err_attach(EINVAL, self->fd, self->guest.vm, UINT_MAX, 1);
	test_err_attach(EINVAL, self->fd, self->guest.vm, 0, max + 1);
	test_err_attach(EINVAL, self->fd, self->guest.vm, 1, max);
	test_err_attach(EINVAL, self->fd, self->guest.vm, 1, UINT_MAX);
	test_err_attach(EINVAL, self->fd, self->guest.vm, 16, UINT_MAX - 15);
	/* Fits, but the four slots of the view do not. */
	test_err_attach(ENOSPC, self->fd, self->guest.vm, max - 3, 0);
	test_err_attach(ENOSPC, self->fd, self->guest.vm, 0, 3);

	test_cmd_attach(self->fd, self->guest.vm, max - 4, 4);
	info = query_info(self->fd);
	EXPECT_EQ((u32)max - 4, info.first_slot);
	EXPECT_EQ(4u, info.nr_slots);
	EXPECT_EQ(4u, info.used_slots);
	EXPECT_EQ((u32)GPAMAP_STATE_ATTACHED, info.state);
	test_cmd_detach(self->fd);

	/* 0: all that there are. */
	test_cmd_attach(self->fd, self->guest.vm, 7, 0);
	info = query_info(self->fd);
	EXPECT_EQ(7u, info.first_slot);
	EXPECT_EQ((u32)max - 7, info.nr_slots);
	test_cmd_detach(self->fd);

	info = query_info(self->fd);
	EXPECT_EQ(0u, info.first_slot);
	EXPECT_EQ(0u, info.nr_slots);
	EXPECT_EQ(0u, info.used_slots);
	EXPECT_EQ(0u, info.state);
}

TEST_F(abi, attach_order)
{
	int other = map_open(), vm;
	struct guest guest2;

	ASSERT_LE(0, other);
	ASSERT_EQ(0, guest_create_vm(&guest2));
	/* The map has a VM: this one, a second name of it, and another. */
	test_err_attach(EBUSY, self->fd, self->guest.vm, 0, 100);
	vm = dup(self->guest.vm);
	ASSERT_LE(0, vm);
	test_err_attach(EBUSY, self->fd, vm, 0, 100);
	test_err_attach(EBUSY, self->fd, guest2.vm, 0, 100);
	/* The VM has a map. */
	test_err_attach(EBUSY, other, self->guest.vm, 0, 100);
	test_err_attach(EBUSY, other, self->guest.vm, 200, 10);
	test_err_attach(EBUSY, other, vm, 200, 10);
	test_err_detach(ENOENT, other);

	test_cmd_detach(self->fd);
	test_err_detach(ENOENT, self->fd);
	test_cmd_attach(other, vm, 0, 100);
	test_err_attach(EBUSY, self->fd, self->guest.vm, 0, 100);
	test_cmd_attach(self->fd, guest2.vm, 0, 100);
	test_cmd_detach(self->fd);
	test_cmd_detach(other);
	test_cmd_attach(self->fd, self->guest.vm, 0, 100);

	/* A map that is closed lets its VM go. */
	test_cmd_attach(other, guest2.vm, 0, 100);
	close(other);
	other = map_open();
	ASSERT_LE(0, other);
	test_cmd_attach(other, guest2.vm, 0, 100);
	close(other);
	close(vm);
	guest_destroy(&guest2);
}

/* Trees that can be had without a VM, but not with one. */
TEST_F(abi, attach_bad_view)
{
	test_cmd_detach(self->fd);
	test_cmd_apply(self->fd, op_ram(FREE_ID, PAGE - 1, NULL),
		       op_add(FREE_ID, ROOT, 0x300000000, 0));
	test_err_attach(EINVAL, self->fd, self->guest.vm, 0, 100);
	test_cmd_apply(self->fd, op_enable(FREE_ID, false));
	test_cmd_attach(self->fd, self->guest.vm, 0, 100);
	test_cmd_detach(self->fd);

	/* Memory that the process cannot have: KVM's own refusal. */
	test_cmd_apply(self->fd, op_ram(FREE_ID + 1, PAGE - 1, (void *)(1ULL << 63)),
		       op_add(FREE_ID + 1, ROOT, 0x400000000, 0));
	test_err_attach(EINVAL, self->fd, self->guest.vm, 0, 100);
	EXPECT_GUEST_MMIO(&self->guest, 0x100000000);
}

/* -- APPLY ----------------------------------------------------------------- */

static int apply(int fd, const void *ops, u32 nr_ops, u32 op_size, u32 *failed_op)
{
	struct gpamap_apply cmd = {
		.size = sizeof(cmd),
		.ops = (uintptr_t)ops,
		.nr_ops = nr_ops,
		.op_size = op_size,
		.out_failed_op = 0x5eed,
	};
	int rc = map_ioctl(fd, GPAMAP_APPLY, &cmd);

	*failed_op = cmd.out_failed_op;
	return rc;
}

TEST_F(abi, apply_nothing)
{
	struct gpamap_apply cmd = {
		.size = sizeof(cmd),
		.op_size = sizeof(struct gpamap_op),
		.out_failed_op = 5,
		.out_generation = 0x123456789,
	};
	struct snapshot *snap = snapshot_take(self->fd);

	ASSERT_EQ(0, map_ioctl(self->fd, GPAMAP_APPLY, &cmd));
	EXPECT_EQ(GPAMAP_NO_OP, cmd.out_failed_op);
	EXPECT_EQ(query_info(self->fd).generation, cmd.out_generation);
	/* Neither is the pointer looked at. */
	cmd.ops = 1;
	EXPECT_EQ(0, map_ioctl(self->fd, GPAMAP_APPLY, &cmd));
	EXPECT_UNCHANGED(self->fd, snap);
	snapshot_free(snap);
}

TEST_F(abi, apply_bad_ops_pointer)
{
	struct gpamap_op *ops;
	u32 failed;

#define EXPECT_FAULT(_index, _ops, _nr)						\
	do {									\
		EXPECT_ERR_UNCHANGED(EFAULT, self->fd,				\
			apply(self->fd, _ops, _nr, sizeof(struct gpamap_op),	\
			      &failed));					\
		EXPECT_EQ((u32)(_index), failed);				\
	} while (0)
	EXPECT_FAULT(0, NULL, 1);
	EXPECT_FAULT(0, (void *)-128UL, 3);
	EXPECT_FAULT(0, (void *)0xffff888000000000, 1);
	EXPECT_FAULT(0, self->page + PAGE, 1);
	/* The first two can be read, the third cannot: nothing is done. */
	ops = (struct gpamap_op *)(self->page + PAGE) - 2;
	ops[0] = op_io(FREE_ID, 0xfff);
	ops[1] = op_add(FREE_ID, ROOT, 0, 10);
	EXPECT_FAULT(2, ops, 3);
	/* A part of the last. */
	EXPECT_FAULT(1, (char *)ops + 8, 2);
	EXPECT_EQ(0, apply(self->fd, ops, 2, sizeof(*ops), &failed));
}

TEST_F(abi, apply_op_size)
{
	const u32 known = sizeof(struct gpamap_op);
	static const u32 more[] = { 1, 8, 72, PAGE - sizeof(struct gpamap_op) };
	static char buf[5 * PAGE];
	struct gpamap_op op;
	u32 size, i, j, failed;

	EXPECT_EQ(160u, known);
	op = op_io(FREE_ID, 0);
	for (size = 0; size < known; size++) {
		EXPECT_ERR_UNCHANGED(EINVAL, self->fd,
				     apply(self->fd, &op, 1, size, &failed));
		EXPECT_EQ(GPAMAP_NO_OP, failed);
	}
	EXPECT_ERR_UNCHANGED(E2BIG, self->fd, apply(self->fd, buf, 1, PAGE + 1, &failed));
	EXPECT_EQ(GPAMAP_NO_OP, failed);
	EXPECT_ERR_UNCHANGED(E2BIG, self->fd, apply(self->fd, buf, 1, UINT_MAX, &failed));

	for (i = 0; i < ARRAY_SIZE(more); i++) {
		size = known + more[i];
		memset(buf, 0, sizeof(buf));
		for (j = 0; j < 4; j++) {
			op = op_io(FREE_ID + 10 * i + j, 0);
			memcpy(buf + j * size, &op, known);
		}
		buf[2 * size + known] = 1;
		EXPECT_ERR_UNCHANGED(E2BIG, self->fd,
				     apply(self->fd, buf, 4, size, &failed));
		EXPECT_EQ(2u, failed);
		buf[2 * size + known] = 0;
		buf[3 * size + size - 1] = 1;
		EXPECT_ERR_UNCHANGED(E2BIG, self->fd,
				     apply(self->fd, buf, 4, size, &failed));
		EXPECT_EQ(3u, failed);
		/* Three are fine, and the rubbish is behind them. */
		EXPECT_EQ(0, apply(self->fd, buf, 3, size, &failed));
		EXPECT_EQ(GPAMAP_NO_OP, failed);
		test_cmd_apply(self->fd, op_destroy(FREE_ID + 10 * i + 2));
	}
}

/* Members of struct gpamap_op, and what each operation uses of them. */
#define M_MASK (1 << 0)
#define M_FLAGS (1 << 1)
#define M_KIND (1 << 2)
#define M_REF (1 << 3)
#define M_PRIO (1 << 4)
#define M_AS (1 << 5)
#define M_AT (1 << 6)
#define M_LAST (1 << 7)
#define M_OFFSET (1 << 8)
#define M_HVA (1 << 9)
#define M_NAME (1 << 10)
#define M_VALUE (1 << 11)
#define M_ITEMS (1 << 12)
#define M_NR (1 << 13)
#define M_ITEM_SIZE (1 << 14)
#define M_LEN (1 << 15)
#define M_FD (1 << 16)

static const struct member {
	const char *name;
	u32 bit;
	u32 offset;
	u32 len;
} members[] = {
#define MEMBER(_bit, _member)							\
	{ #_member, _bit, offsetof(struct gpamap_op, _member),			\
	  sizeof(((struct gpamap_op *)0)->_member) }
	MEMBER(M_MASK, mask),
	MEMBER(M_FLAGS, flags),
	MEMBER(M_KIND, kind),
	MEMBER(M_REF, ref),
	MEMBER(M_PRIO, prio),
	MEMBER(M_AS, as_id),
	MEMBER(M_AT, at),
	MEMBER(M_LAST, last),
	MEMBER(M_OFFSET, offset),
	MEMBER(M_HVA, hva),
	MEMBER(M_NAME, name),
	MEMBER(M_VALUE, value),
	MEMBER(M_ITEMS, items),
	MEMBER(M_NR, nr),
	MEMBER(M_ITEM_SIZE, item_size),
	MEMBER(M_LEN, len),
	MEMBER(M_FD, fd),
};

/* Regions that have something of everything tied to them, and an eventfd for it. */
#define TIED 200
#define POSTING 201

static const struct gpamap_register a_register = { 8, 4, GPAMAP_REGISTER_READWRITE, 7 };

static struct gpamap_op tie_doorbell(u32 id, u32 flags, int bell)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_DOORBELL, .id = id, .flags = flags, .len = 4, .fd = bell,
		.value = flags & GPAMAP_DOORBELL_MATCH ? 5 : 0,
	};
}

static struct gpamap_op tie_registers(u32 id)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_REGISTERS, .id = id, .nr = 1,
		.items = (uintptr_t)&a_register, .item_size = sizeof(a_register),
	};
}

static struct gpamap_op tie_handler(u32 id, const char *name)
{
	return op_name((struct gpamap_op){ .code = GPAMAP_OP_HANDLER, .id = id }, name);
}

static struct gpamap_op tie_post(u32 id, u32 ring)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_POST, .id = id, .ref = ring };
}

static struct gpamap_op tie_policy(u32 id, u32 policy)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_POLICY, .id = id, .kind = policy };
}

static struct gpamap_op tie_untie(u32 id, u32 mask)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_UNTIE, .id = id, .mask = mask };
}

/* That which takes away what has a flag for it, and names nothing else. */
static struct gpamap_op tie_remove(u32 code, u32 id)
{
	return (struct gpamap_op){ .code = code, .id = id, .flags = 1 };
}

_Static_assert(GPAMAP_REGISTERS_REMOVE == 1 && GPAMAP_HANDLER_REMOVE == 1 &&
	       GPAMAP_POST_REMOVE == 1, "as tie_remove() says");

#define TIE_ALL									\
	(GPAMAP_TIE_DOORBELLS | GPAMAP_TIE_REGISTERS | GPAMAP_TIE_HANDLER |	\
	 GPAMAP_TIE_RING | GPAMAP_TIE_POLICY)

#define test_make_tied(_fd, _bell)						\
	do {									\
		ASSERT_EQ(0, add_ring(_fd, RING, _bell));			\
		test_cmd_apply(_fd, op_io(TIED, PAGE - 1), op_io(POSTING, PAGE - 1), \
			       tie_doorbell(TIED, 0, _bell), tie_registers(TIED),	\
			       tie_handler(TIED, "test-any"),			\
			       tie_policy(TIED, GPAMAP_POLICY_TELL),		\
			       tie_post(POSTING, RING));				\
	} while (0)

TEST_F(abi, op_unused_members)
{
	const int bell = eventfd(0, EFD_CLOEXEC);
	const struct {
		const char *name;
		u32 used;
		struct gpamap_op op;
	} ops[] = {
		{ "container", M_FLAGS | M_KIND | M_LAST | M_NAME,
		  op_container(FREE_ID, 0xfff) },
		{ "io", M_FLAGS | M_KIND | M_LAST | M_NAME, op_io(FREE_ID, 0xfff) },
		{ "ram", M_FLAGS | M_KIND | M_LAST | M_NAME | M_HVA,
		  op_ram(FREE_ID, 0xfff, self->ram) },
		{ "rom", M_FLAGS | M_KIND | M_LAST | M_NAME | M_HVA,
		  op_rom(FREE_ID, 0xfff, self->ram) },
		{ "alias", M_FLAGS | M_KIND | M_LAST | M_NAME | M_REF | M_OFFSET,
		  op_alias(FREE_ID, RAM, 0, 0xfff) },
		{ "romd", M_FLAGS | M_KIND | M_LAST | M_NAME | M_HVA,
		  op_flags(op_romd(FREE_ID, 0xfff, self->ram), GPAMAP_REGION_ROMD_MODE) },
		{ "reserved", M_FLAGS | M_KIND | M_LAST | M_NAME,
		  op_reserved(FREE_ID, 0xfff) },
		{ "add", M_REF | M_AT | M_PRIO, op_add(LOOSE, ROOT, 0, 0) },
		{ "del", 0, op_del(RAM) },
		{ "destroy", 0, op_destroy(LOOSE) },
		{ "set enabled", M_MASK | M_FLAGS, op_enable(RAM, false) },
		{ "set readonly", M_MASK | M_FLAGS, op_readonly(RAM, true) },
		{ "set at", M_MASK | M_AT, op_at(RAM, 0x10000) },
		{ "set prio", M_MASK | M_PRIO, op_prio(RAM, 5) },
		{ "set offset", M_MASK | M_OFFSET, op_offset(ALIAS, 0) },
		{ "set last", M_MASK | M_LAST, op_last(RAM, 0x1fff) },
		{ "space", M_KIND | M_REF | M_AS | M_NAME,
		  op_space(FREE_ID, GPAMAP_SPACE_VIEW, ROOT) },
		{ "space destroy", 0, op_space_destroy(VIEW) },
		{ "doorbell", M_FLAGS | M_OFFSET | M_VALUE | M_LEN | M_FD,
		  tie_doorbell(IO, 0, bell) },
		{ "doorbell with a value", M_FLAGS | M_OFFSET | M_VALUE | M_LEN | M_FD,
		  tie_doorbell(IO, GPAMAP_DOORBELL_MATCH, bell) },
		{ "doorbell remove", M_FLAGS | M_OFFSET | M_VALUE | M_LEN | M_FD,
		  tie_doorbell(TIED, GPAMAP_DOORBELL_REMOVE, bell) },
		{ "registers", M_FLAGS | M_ITEMS | M_NR | M_ITEM_SIZE, tie_registers(IO) },
		{ "registers remove", M_FLAGS, tie_remove(GPAMAP_OP_REGISTERS, TIED) },
		{ "handler", M_FLAGS | M_VALUE | M_NAME, tie_handler(IO, "test-any") },
		{ "handler remove", M_FLAGS, tie_remove(GPAMAP_OP_HANDLER, TIED) },
		{ "post", M_FLAGS | M_REF, tie_post(IO, RING) },
		{ "post remove", M_FLAGS, tie_remove(GPAMAP_OP_POST, POSTING) },
		{ "policy", M_KIND, tie_policy(IO, GPAMAP_POLICY_TELL) },
		{ "untie", M_MASK, tie_untie(TIED, TIE_ALL) },
	};
	struct gpamap_op op;
	u32 i, j, failed;

	test_make_tied(self->fd, bell);
	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		for (j = 0; j < ARRAY_SIZE(members); j++) {
			const struct member *m = &members[j];
			struct snapshot *snap;

			if (ops[i].used & m->bit)
				continue;
			snap = snapshot_take(self->fd);
			ASSERT_NE(NULL, snap);
			op = ops[i].op;
			((char *)&op)[m->offset] = 1;
			EXPECT_EQ(-EINVAL, _test_cmd_apply(self->fd, &op, 1, &failed, NULL))
				TH_LOG("%s, %s", ops[i].name, m->name);
			EXPECT_EQ(0u, failed);
			/* Not so the flags of SET, where that is one from the future. */
			op = ops[i].op;
			((char *)&op)[m->offset + m->len - 1] = 0x40;
			if (op.code == GPAMAP_OP_SET && m->bit == M_FLAGS)
				op = op_flags(ops[i].op, GPAMAP_REGION_READONLY);
			EXPECT_EQ(-EINVAL, _test_cmd_apply(self->fd, &op, 1, &failed, NULL))
				TH_LOG("%s, last byte of %s", ops[i].name, m->name);
			EXPECT_UNCHANGED(self->fd, snap);
			snapshot_free(snap);
		}
		/* Without it, it works; in a batch that is taken back. */
		test_err_apply(EINVAL, 1, self->fd, ops[i].op, op_io(0, 0));
	}
	/* A flag that the mask does not name is not used either. */
	op = op_enable(RAM, false);
	op.flags = GPAMAP_REGION_READONLY;
	test_err_apply(EINVAL, 0, self->fd, op);
	op = op_readonly(RAM, true);
	op.flags = GPAMAP_REGION_DISABLED;
	test_err_apply(EINVAL, 0, self->fd, op);
	/* Host memory of a view space's as_id. */
	op = op_space(FREE_ID, GPAMAP_SPACE_VIEW, ROOT);
	op.as_id = 1;
	test_err_apply(EINVAL, 0, self->fd, op);
	/* A value to match where none is, and more than fits. */
	op = tie_doorbell(IO, 0, bell);
	op.value = 5;
	test_err_apply(EINVAL, 0, self->fd, op);
	op = tie_doorbell(IO, GPAMAP_DOORBELL_MATCH, bell);
	op.value = 1ULL << 32;
	test_err_apply(EINVAL, 0, self->fd, op);
	close(bell);
}

TEST_F(abi, op_unknown_values)
{
	static const u32 codes[] = { 0, 15, 16, 100, INT_MAX, UINT_MAX };
	static const u32 kinds[] = { 0, 8, 9, 100, INT_MAX, UINT_MAX };
	static const u32 space_kinds[] = { 0, 4, 100, UINT_MAX };
	static const u32 policies[] = { 4, 100, INT_MAX, UINT_MAX };
	const int bell = eventfd(0, EFD_CLOEXEC);
	struct gpamap_op op;
	u32 i, bit;

	for (i = 0; i < ARRAY_SIZE(codes); i++) {
		op = op_del(RAM);
		op.code = codes[i];
		test_err_apply(EOPNOTSUPP, 0, self->fd, op);
	}
	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		op = op_container(FREE_ID, 0xfff);
		op.kind = kinds[i];
		test_err_apply(EOPNOTSUPP, 0, self->fd, op);
	}
	for (i = 0; i < ARRAY_SIZE(space_kinds); i++)
		test_err_apply(EOPNOTSUPP, 0, self->fd,
			       op_space(FREE_ID, space_kinds[i], ROOT));
	for (bit = 1 << 6; bit; bit <<= 1) {
		test_err_apply(EOPNOTSUPP, 0, self->fd,
			       op_flags(op_io(FREE_ID, 0xfff), bit));
		op = op_enable(RAM, false);
		op.flags |= bit;
		test_err_apply(EOPNOTSUPP, 0, self->fd, op);
	}
	for (bit = 1 << 10; bit; bit <<= 1) {
		op = op_prio(RAM, 1);
		op.mask |= bit;
		test_err_apply(EOPNOTSUPP, 0, self->fd, op);
	}
	for (bit = 1 << 5; bit; bit <<= 1)
		test_err_apply(EOPNOTSUPP, 0, self->fd,
			       tie_untie(IO, GPAMAP_TIE_DOORBELLS | bit));
	for (bit = 1 << 3; bit; bit <<= 1)
		test_err_apply(EOPNOTSUPP, 0, self->fd, tie_doorbell(IO, bit, bell));
	for (bit = 1 << 1; bit; bit <<= 1) {
		test_err_apply(EOPNOTSUPP, 0, self->fd, op_flags(tie_registers(IO), bit));
		test_err_apply(EOPNOTSUPP, 0, self->fd,
			       op_flags(tie_handler(IO, "test-any"), bit));
		test_err_apply(EOPNOTSUPP, 0, self->fd, op_flags(tie_post(IO, RING), bit));
	}
	for (i = 0; i < ARRAY_SIZE(policies); i++)
		test_err_apply(EOPNOTSUPP, 0, self->fd, tie_policy(IO, policies[i]));
	close(bell);
	/* An address space that KVM does not have anywhere. */
	op = op_space(FREE_ID, GPAMAP_SPACE_MEMORY, ROOT);
	op.as_id = 2;
	test_cmd_detach(self->fd);
	test_cmd_apply(self->fd, op_space_destroy(SPACE));
	test_err_apply(EOPNOTSUPP, 0, self->fd, op);
}

TEST_F(abi, op_id_zero)
{
	test_err_apply(EINVAL, 0, self->fd, op_container(0, 0xfff));
	test_err_apply(EINVAL, 0, self->fd, op_ram(0, 0xfff, self->ram));
	test_err_apply(EINVAL, 0, self->fd, op_add(0, ROOT, 0, 0));
	test_err_apply(EINVAL, 0, self->fd, op_add(LOOSE, 0, 0, 0));
	test_err_apply(EINVAL, 0, self->fd, op_del(0));
	test_err_apply(EINVAL, 0, self->fd, op_destroy(0));
	test_err_apply(EINVAL, 0, self->fd, op_enable(0, false));
	test_err_apply(EINVAL, 0, self->fd, op_space(0, GPAMAP_SPACE_VIEW, ROOT));
	test_err_apply(EINVAL, 0, self->fd, op_space(FREE_ID, GPAMAP_SPACE_VIEW, 0));
	test_err_apply(EINVAL, 0, self->fd, op_space_destroy(0));
	test_err_apply(EINVAL, 0, self->fd, op_alias(FREE_ID, 0, 0, 0xfff));
	test_err_apply(EINVAL, 0, self->fd, tie_registers(0));
	test_err_apply(EINVAL, 0, self->fd, tie_remove(GPAMAP_OP_REGISTERS, 0));
	test_err_apply(EINVAL, 0, self->fd, tie_handler(0, "test-any"));
	test_err_apply(EINVAL, 0, self->fd, tie_remove(GPAMAP_OP_HANDLER, 0));
	test_err_apply(EINVAL, 0, self->fd, tie_remove(GPAMAP_OP_POST, 0));
	test_err_apply(EINVAL, 0, self->fd, tie_policy(0, GPAMAP_POLICY_TELL));
	test_err_apply(EINVAL, 0, self->fd, tie_untie(0, TIE_ALL));
}

/* Ids are any numbers above 0. */
TEST_F(abi, op_id_any)
{
	test_cmd_apply(self->fd, op_container(UINT_MAX, 0xfff), op_io(INT_MAX, 0xfff),
		       op_io(1U << 31, 0xfff), op_add(INT_MAX, UINT_MAX, 0, 0),
		       op_add(1U << 31, UINT_MAX, 0x800, 0),
		       op_space(UINT_MAX, GPAMAP_SPACE_VIEW, UINT_MAX),
		       op_space(RAM + FREE_ID, GPAMAP_SPACE_VIEW, UINT_MAX));
	EXPECT_VIEW(self->fd, UINT_MAX, { 0, 0x7ff, INT_MAX, 0, 0 },
		    { 0x800, 0xfff, 1U << 31, 0, 0 });
}

TEST_F(abi, op_name)
{
	struct gpamap_region_info *regions;
	struct gpamap_op op;
	u32 i, c, count;

	for (i = 0; i < 2; i++) {
		const struct gpamap_op plain = i ?
			op_space(FREE_ID, GPAMAP_SPACE_VIEW, ROOT) :
			op_container(FREE_ID, 0xfff);

		/* Not terminated. */
		op = plain;
		memset(op.name, 'x', sizeof(op.name));
		test_err_apply(EINVAL, 0, self->fd, op);
		/* Rubbish after the end. */
		op = op_name(plain, "name");
		op.name[5] = 'x';
		test_err_apply(EINVAL, 0, self->fd, op);
		op.name[5] = 0;
		op.name[sizeof(op.name) - 1] = 'x';
		test_err_apply(EINVAL, 0, self->fd, op);
		op = plain;
		op.name[1] = 'x';
		test_err_apply(EINVAL, 0, self->fd, op);
		/* Control characters, and quotes. */
		for (c = 1; c < 256; c++) {
			if (c >= ' ' && c != '"' && c != 0x7f)
				continue;
			op = op_name(plain, "n me");
			op.name[1] = c;
			test_err_apply(EINVAL, 0, self->fd, op);
		}
	}

	/* All else is fine, as long as can be, and twice. */
	op = op_container(FREE_ID, 0xfff);
	memset(op.name, 'x', sizeof(op.name) - 1);
	test_cmd_apply(self->fd, op);
	op.id++;
	test_cmd_apply(self->fd, op);
	op.id++;
	for (c = 0x80, i = 0; c < 0x80 + sizeof(op.name) - 1; c++)
		op.name[i++] = c;
	test_cmd_apply(self->fd, op);
	op.id++;
	for (c = 0xc0, i = 0; c < 0xc0 + sizeof(op.name) - 1; c++)
		op.name[i++] = c;
	test_cmd_apply(self->fd, op);
	regions = query_all(self->fd, GPAMAP_QUERY_REGIONS, 0, &count);
	ASSERT_NE(NULL, regions);
	ASSERT_LT(0u, count);
	EXPECT_EQ(op.id, regions[count - 1].id);
	EXPECT_EQ(0, memcmp(op.name, regions[count - 1].name, sizeof(op.name)));
	free(regions);
}

TEST_F(abi, op_no_such_id)
{
	test_err_apply(ENOENT, 0, self->fd, op_alias(FREE_ID, FREE_ID + 1, 0, 0xfff));
	test_err_apply(ENOENT, 0, self->fd, op_alias(FREE_ID, FREE_ID, 0, 0xfff));
	test_err_apply(ENOENT, 0, self->fd, op_add(FREE_ID, ROOT, 0, 0));
	test_err_apply(ENOENT, 0, self->fd, op_add(LOOSE, FREE_ID, 0, 0));
	test_err_apply(ENOENT, 0, self->fd, op_del(FREE_ID));
	test_err_apply(ENOENT, 0, self->fd, op_destroy(FREE_ID));
	test_err_apply(ENOENT, 0, self->fd, op_enable(FREE_ID, false));
	test_err_apply(ENOENT, 0, self->fd, op_offset(FREE_ID, 0));
	test_err_apply(ENOENT, 0, self->fd,
		       op_space(FREE_ID, GPAMAP_SPACE_VIEW, FREE_ID));
	test_err_apply(ENOENT, 0, self->fd, op_space_destroy(FREE_ID));
	test_err_apply(ENOENT, 0, self->fd, tie_registers(FREE_ID));
	test_err_apply(ENOENT, 0, self->fd, tie_handler(FREE_ID, "test-any"));
	test_err_apply(ENOENT, 0, self->fd, tie_policy(FREE_ID, GPAMAP_POLICY_TELL));
	test_err_apply(ENOENT, 0, self->fd, tie_untie(FREE_ID, TIE_ALL));
	/* No such ring or handler, and nothing that could be taken away. */
	test_err_apply(ENOENT, 0, self->fd, tie_post(IO, RING));
	test_err_apply(ENOENT, 0, self->fd, tie_handler(IO, "nobody"));
	test_err_apply(ENOENT, 0, self->fd, tie_remove(GPAMAP_OP_REGISTERS, IO));
	test_err_apply(ENOENT, 0, self->fd, tie_remove(GPAMAP_OP_HANDLER, IO));
	test_err_apply(ENOENT, 0, self->fd, tie_remove(GPAMAP_OP_POST, IO));
	/* An id of the other sort. */
	test_err_apply(ENOENT, 0, self->fd, op_space_destroy(LOOSE));
	/* No container. */
	test_err_apply(ENOENT, 0, self->fd, op_del(LOOSE));
	test_err_apply(ENOENT, 0, self->fd, op_at(LOOSE, 0));
	test_err_apply(ENOENT, 0, self->fd, op_prio(LOOSE, 0));
	/* Gone in the same batch. */
	test_err_apply(ENOENT, 1, self->fd, op_destroy(LOOSE), op_add(LOOSE, ROOT, 0, 0));
	test_err_apply(ENOENT, 1, self->fd, op_space_destroy(VIEW),
		       op_space_destroy(VIEW));
}

TEST_F(abi, op_id_taken)
{
	test_err_apply(EEXIST, 0, self->fd, op_container(RAM, 0xfff));
	test_err_apply(EEXIST, 0, self->fd, op_alias(LOOSE, RAM, 0, 0xfff));
	test_err_apply(EEXIST, 1, self->fd, op_io(FREE_ID, 0), op_io(FREE_ID, 0));
	test_err_apply(EEXIST, 0, self->fd, op_space(VIEW, GPAMAP_SPACE_VIEW, ROOT));
	/* A second memory space of KVM's first address space. */
	test_err_apply(EEXIST, 0, self->fd, op_space(9, GPAMAP_SPACE_MEMORY, ROOT));
	test_err_apply(EEXIST, 2, self->fd, op_space_destroy(SPACE),
		       op_space(9, GPAMAP_SPACE_MEMORY, LOOSE),
		       op_space(10, GPAMAP_SPACE_MEMORY, LOOSE));
}

TEST_F(abi, op_in_use)
{
	/* It has a container. */
	test_err_apply(EBUSY, 0, self->fd, op_add(IO, ROOT, 0, 0));
	test_err_apply(EBUSY, 0, self->fd, op_add(IO, LOOSE, 0, 0));
	test_err_apply(EBUSY, 0, self->fd, op_destroy(IO));
	/* It holds others, is the target of an alias, the root of a space. */
	test_err_apply(EBUSY, 1, self->fd, op_del(BOX), op_destroy(BOX));
	test_err_apply(EBUSY, 3, self->fd, op_del(BOX), op_del(RAM),
		       op_space_destroy(SPACE), op_destroy(RAM));
	test_err_apply(EBUSY, 2, self->fd, op_del(BOX), op_del(RAM), op_destroy(BOX));
	test_err_apply(EBUSY, 1, self->fd, op_space(FREE_ID, GPAMAP_SPACE_VIEW, LOOSE),
		       op_destroy(LOOSE));
	/* And without all that it can go. */
	test_cmd_apply(self->fd, op_del(BOX), op_del(RAM), op_del(ALIAS),
		       op_destroy(ALIAS), op_destroy(RAM), op_space_destroy(VIEW),
		       op_destroy(BOX));
}

/* Each tie alone keeps its region; when all is untied, it can go, in one batch. */
TEST_F(abi, op_tied_is_in_use)
{
	static const u32 masks[] = { GPAMAP_TIE_DOORBELLS, GPAMAP_TIE_REGISTERS,
				     GPAMAP_TIE_HANDLER, GPAMAP_TIE_POLICY };
	const int bell = eventfd(0, EFD_CLOEXEC);
	u32 i;

	test_make_tied(self->fd, bell);
	test_err_apply(EBUSY, 0, self->fd, op_destroy(TIED));
	test_err_apply(EBUSY, 0, self->fd, op_destroy(POSTING));
	for (i = 0; i < ARRAY_SIZE(masks); i++)
		test_err_apply(EBUSY, 1, self->fd, tie_untie(TIED, TIE_ALL & ~masks[i]),
			       op_destroy(TIED));
	test_err_apply(EBUSY, 1, self->fd, tie_untie(POSTING, TIE_ALL & ~GPAMAP_TIE_RING),
		       op_destroy(POSTING));
	/* Twice of the same, and what excludes each other. */
	test_err_apply(EEXIST, 0, self->fd, tie_doorbell(TIED, 0, bell));
	test_err_apply(EEXIST, 0, self->fd, tie_registers(TIED));
	test_err_apply(EEXIST, 0, self->fd, tie_handler(TIED, "test-any"));
	test_err_apply(EEXIST, 0, self->fd, tie_post(POSTING, RING));
	test_err_apply(EBUSY, 0, self->fd, tie_post(TIED, RING));
	test_err_apply(EBUSY, 0, self->fd, tie_handler(POSTING, "test-any"));
	test_err_apply(EINVAL, 0, self->fd, tie_untie(TIED, 0));
	/* Untied and tied anew; what is not tied can be untied. */
	test_cmd_apply(self->fd, tie_untie(TIED, TIE_ALL), tie_untie(TIED, TIE_ALL),
		       tie_doorbell(TIED, 0, bell), tie_registers(TIED),
		       tie_handler(TIED, "test-any"), tie_policy(TIED, GPAMAP_POLICY_TELL));
	test_err_apply(EEXIST, 0, self->fd, tie_registers(TIED));
	test_cmd_apply(self->fd, tie_untie(TIED, TIE_ALL), op_destroy(TIED),
		       tie_untie(POSTING, GPAMAP_TIE_RING), op_destroy(POSTING));
	EXPECT_EQ(0, remove_ring(self->fd));
	close(bell);
}

/* An operation that fails takes back all ties and unties before it. */
TEST_F(abi, op_ties_are_taken_back)
{
	const int bell = eventfd(0, EFD_CLOEXEC);

	test_make_tied(self->fd, bell);
	test_err_apply(ENOENT, 9, self->fd, op_io(FREE_ID, PAGE - 1),
		       op_add(FREE_ID, ROOT, 0x300000000, 0), tie_doorbell(FREE_ID, 0, bell),
		       tie_registers(FREE_ID), tie_post(FREE_ID, RING),
		       tie_policy(FREE_ID, GPAMAP_POLICY_TELL), tie_untie(TIED, TIE_ALL),
		       op_destroy(TIED), tie_untie(POSTING, TIE_ALL), op_destroy(4242));
	test_err_apply(EINVAL, 1, self->fd, tie_doorbell(IO, 0, bell), tie_untie(IO, 0));
	/* What was tied is so still, and what was not is not. */
	test_err_apply(EEXIST, 0, self->fd, tie_doorbell(TIED, 0, bell));
	test_err_apply(EEXIST, 0, self->fd, tie_registers(TIED));
	test_err_apply(EEXIST, 0, self->fd, tie_handler(TIED, "test-any"));
	test_err_apply(EEXIST, 0, self->fd, tie_post(POSTING, RING));
	test_err_apply(ENOENT, 0, self->fd, tie_doorbell(IO, GPAMAP_DOORBELL_REMOVE, bell));
	/* Made, tied, untied and destroyed in one batch: nothing is left. */
	test_cmd_apply(self->fd, op_io(FREE_ID, PAGE - 1), tie_doorbell(FREE_ID, 0, bell),
		       tie_registers(FREE_ID), tie_handler(FREE_ID, "test-any"),
		       tie_untie(FREE_ID, TIE_ALL), op_destroy(FREE_ID));
	test_err_apply(ENOENT, 0, self->fd, tie_untie(FREE_ID, TIE_ALL));
	close(bell);
}

TEST_F(abi, op_bad_combination)
{
	struct gpamap_op op;

	/* Nothing to set; an offset of what is no alias; into an alias. */
	op = op_prio(RAM, 0);
	op.mask = 0;
	test_err_apply(EINVAL, 0, self->fd, op);
	test_err_apply(EINVAL, 0, self->fd, op_offset(RAM, 0));
	test_err_apply(EINVAL, 0, self->fd, op_offset(ROOT, PAGE));
	test_err_apply(EINVAL, 0, self->fd, op_add(LOOSE, ALIAS, 0, 0));
	/* Half of a SET is wrong: the other half is not done. */
	op = op_enable(LOOSE, false);
	op.mask |= GPAMAP_SET_PRIO;
	test_err_apply(ENOENT, 0, self->fd, op);
	op = op_enable(RAM, false);
	op.mask |= GPAMAP_SET_OFFSET;
	test_err_apply(EINVAL, 0, self->fd, op);
}

TEST_F(abi, op_hva_wraps)
{
	test_err_apply(EOVERFLOW, 0, self->fd, op_ram(FREE_ID, U64_MAX, (void *)1));
	test_err_apply(EOVERFLOW, 0, self->fd, op_ram(FREE_ID, 1, (void *)-1UL));
	test_err_apply(EOVERFLOW, 0, self->fd, op_rom(FREE_ID, PAGE, (void *)-PAGE));
	test_cmd_apply(self->fd, op_rom(FREE_ID, PAGE - 1, (void *)-PAGE),
		       op_ram(FREE_ID + 1, U64_MAX, NULL),
		       op_ram(FREE_ID + 2, 0, (void *)-1UL));
}

TEST_F(abi, op_cycle)
{
	test_err_apply(ELOOP, 0, self->fd, op_add(ROOT, ROOT, 0, 0));
	test_err_apply(ELOOP, 0, self->fd, op_add(ROOT, BOX, 0, 0));
	test_err_apply(ELOOP, 0, self->fd, op_add(ROOT, RAM, 0, 0));
	/* Through an alias: of its own container, and around two corners. */
	test_err_apply(ELOOP, 1, self->fd, op_alias(FREE_ID, ROOT, 0, 0xfff),
		       op_add(FREE_ID, ROOT, 0, 0));
	test_err_apply(ELOOP, 1, self->fd, op_alias(FREE_ID, ROOT, 0, 0xfff),
		       op_add(FREE_ID, RAM, 0, 0));
	test_err_apply(ELOOP, 2, self->fd, op_alias(FREE_ID, ROOT, 0, 0xfff),
		       op_add(FREE_ID, LOOSE, 0, 0), op_add(LOOSE, BOX, 0, 0));
	test_err_apply(ELOOP, 5, self->fd, op_alias(FREE_ID, LOOSE, 0, 0xfff),
		       op_alias(FREE_ID + 1, FREE_ID, 0, 0xfff),
		       op_container(FREE_ID + 2, 0xfff),
		       op_add(FREE_ID + 1, FREE_ID + 2, 0, 0),
		       op_add(FREE_ID + 2, LOOSE, 0, 0), op_add(LOOSE, ROOT, 0, 0));
	/* A cycle that nobody looks at is no error. */
	test_cmd_apply(self->fd, op_add(LOOSE, LOOSE, 0, 0));
	test_err_apply(ELOOP, 0, self->fd, op_space(3, GPAMAP_SPACE_VIEW, LOOSE));
	test_cmd_apply(self->fd, op_del(LOOSE));
	/* Two ways to one region are no cycle. */
	test_cmd_apply(self->fd, op_alias(FREE_ID, LOOSE, 0, 0xfff),
		       op_alias(FREE_ID + 1, LOOSE, 0, 0xfff),
		       op_add(FREE_ID, ROOT, 0, 0), op_add(FREE_ID + 1, ROOT, 0, 0),
		       op_add(LOOSE, ROOT, 0, 0));
}

/* A bad operation at every place of a batch: named, and nothing is done. */
TEST_F(abi, blame_own_error)
{
	struct gpamap_op good[] = {
		op_io(FREE_ID, 0xfff),
		op_add(FREE_ID, ROOT, 0, 100),
		op_enable(RAM, false),
		op_del(ALIAS),
		op_destroy(ALIAS),
		op_space_destroy(VIEW),
		op_at(ROM, 0x300000000),
		op_readonly(BOX, true),
		op_container(ALIAS, 5),
		op_destroy(ALIAS),
		op_space(VIEW, GPAMAP_SPACE_VIEW, FREE_ID),
		op_prio(IO, -7),
	};
	struct gpamap_op ops[ARRAY_SIZE(good) + 1];
	u32 i;

	for (i = 0; i <= ARRAY_SIZE(good); i++) {
		memcpy(ops, good, i * sizeof(good[0]));
		ops[i] = op_destroy(4242);
		memcpy(ops + i + 1, good + i, (ARRAY_SIZE(good) - i) * sizeof(good[0]));
		test_err_apply_ops(ENOENT, i, self->fd, ops, ARRAY_SIZE(ops));
	}
	EXPECT_GUEST_RAM(&self->guest, 0, 0);
	EXPECT_GUEST_MMIO(&self->guest, 8 * PAGE);
	test_cmd_apply_ops(self->fd, good, ARRAY_SIZE(good));
}

/* An error of the result names the operation that brought it about. */
TEST_F(abi, blame_moved)
{
	const struct gpamap_op bad = op_at(121, 0x1000000);
	const struct gpamap_op io = op_io(FREE_ID, 0xfff);
	const struct gpamap_op add = op_add(FREE_ID, ROOT, 0x500000000, 0);

	/* Memory without host memory, behind IO. */
	test_cmd_apply(self->fd, op_ram(120, PAGE - 1, NULL), op_container(121, PAGE - 1),
		       op_add(120, 121, 0, 0), op_add(121, ROOT, 8 * PAGE, 0));
	/* A container moves, and the memory in it with it. */
	test_err_apply(EINVAL, 0, self->fd, bad, io, add);
	test_err_apply(EINVAL, 1, self->fd, io, bad, add);
	test_err_apply(EINVAL, 2, self->fd, io, add, bad);
	/* It is no trouble before it is shown. */
	test_err_apply(EINVAL, 3, self->fd, op_enable(121, false), bad, io,
		       op_enable(121, true), add);
	/* Put right in the same batch, it is no error. */
	test_cmd_apply(self->fd, bad, io, add, op_at(121, 8 * PAGE));
}

TEST_F(abi, blame_no_host_memory)
{
	const struct gpamap_op ram = op_ram(FREE_ID, PAGE - 1, NULL);
	const struct gpamap_op io = op_io(FREE_ID + 1, 0xfff);

	test_err_apply(EINVAL, 1, self->fd, ram, op_add(FREE_ID, ROOT, 0x300000000, 0),
		       io);
	test_err_apply(EINVAL, 2, self->fd, io, ram,
		       op_add(FREE_ID, ROOT, 0x300000000, 0));
	/* Where it is not seen, and in a view, it may be. */
	test_cmd_apply(self->fd, ram, op_add(FREE_ID, ROOT, 8 * PAGE, 0));
	test_cmd_apply(self->fd, op_space(9, GPAMAP_SPACE_VIEW, FREE_ID));
	test_err_apply(EINVAL, 1, self->fd, io, op_enable(IO, false));
	test_err_apply(EINVAL, 0, self->fd, op_prio(IO, -1), io);
}

/* KVM refuses an address that the process cannot have; all is rolled back. */
TEST_F(abi, blame_refused_by_kvm)
{
	const struct gpamap_op ram = op_ram(FREE_ID, PAGE - 1, (void *)(1ULL << 63));
	const struct gpamap_op add = op_add(FREE_ID, ROOT, 0x300000000, 0);

	test_err_apply(EINVAL, 2, self->fd, op_at(BOX, 0x10000000), ram, add,
		       op_enable(ALIAS, false));
	EXPECT_GUEST_RAM(&self->guest, 0, 0);
	EXPECT_GUEST_RAM(&self->guest, 0x100000000, 0);
	EXPECT_GUEST_MMIO(&self->guest, 0x10000000);
}

/* -- limits ---------------------------------------------------------------- */

TEST_F_TIMEOUT(empty, limit_regions, 120)
{
	static struct gpamap_op ops[GPAMAP_MAX_REGIONS];
	u32 i;

	for (i = 0; i < GPAMAP_MAX_REGIONS; i++)
		ops[i] = op_io(i + 1, 0xfff);
	test_cmd_apply_ops(self->fd, ops, GPAMAP_MAX_REGIONS);
	EXPECT_EQ((u32)GPAMAP_MAX_REGIONS, query_info(self->fd).nr_regions);
	test_err_apply(ENOSPC, 0, self->fd, op_io(200000, 0));
	test_err_apply(ENOSPC, 4, self->fd, op_destroy(7), op_io(200000, 0),
		       op_destroy(200000), op_io(7, 0), op_io(200001, 0));
	test_cmd_apply(self->fd, op_destroy(7), op_io(200000, 0));
	test_err_apply(ENOSPC, 0, self->fd, op_io(7, 0));
	for (i = 0; i < GPAMAP_MAX_REGIONS; i++)
		ops[i] = op_destroy(i + 1 == 7 ? 200000 : i + 1);
	test_cmd_apply_ops(self->fd, ops, GPAMAP_MAX_REGIONS);
	EXPECT_EQ(0u, query_info(self->fd).nr_regions);
}

TEST_F(empty, limit_spaces)
{
	u32 i;

	test_cmd_apply(self->fd, op_container(1, 0xfff));
	for (i = 1; i <= GPAMAP_MAX_SPACES; i++)
		test_cmd_apply(self->fd, op_space(i, GPAMAP_SPACE_VIEW, 1));
	test_err_apply(ENOSPC, 0, self->fd, op_space(100, GPAMAP_SPACE_VIEW, 1));
	test_err_apply(ENOSPC, 0, self->fd, op_space(100, GPAMAP_SPACE_MEMORY, 1));
	test_cmd_apply(self->fd, op_space_destroy(3), op_space(100, GPAMAP_SPACE_MEMORY, 1));
	EXPECT_EQ((u32)GPAMAP_MAX_SPACES, query_info(self->fd).nr_spaces);
}

TEST_F(empty, limit_ops)
{
	static struct gpamap_op ops[GPAMAP_MAX_OPS + 1];
	u32 i;

	test_cmd_apply(self->fd, op_container(1, 0xfff));
	for (i = 0; i < ARRAY_SIZE(ops); i++)
		ops[i] = op_enable(1, i & 1);
	test_err_apply_ops(ENOSPC, GPAMAP_NO_OP, self->fd, ops, GPAMAP_MAX_OPS + 1);
	test_err_apply_ops(ENOSPC, GPAMAP_NO_OP, self->fd, ops, UINT_MAX);
	ops[GPAMAP_MAX_OPS - 1] = op_enable(2, true);
	test_err_apply_ops(ENOENT, GPAMAP_MAX_OPS - 1, self->fd, ops, GPAMAP_MAX_OPS);
	test_cmd_apply_ops(self->fd, ops, GPAMAP_MAX_OPS - 1);
	EXPECT_EQ(1u, query_info(self->fd).nr_regions);
}

/* 64 regions on a path that a space sees, made from the root down, from the leaf up, and joined. */
TEST_F(empty, limit_depth_containers)
{
	u32 i, half = GPAMAP_MAX_DEPTH / 2;

	for (i = 1; i <= GPAMAP_MAX_DEPTH + 1; i++)
		test_cmd_apply(self->fd, op_io(i, 0xfff));
	test_cmd_apply(self->fd, op_space(1, GPAMAP_SPACE_VIEW, 1));
	for (i = 2; i <= GPAMAP_MAX_DEPTH; i++)
		test_cmd_apply(self->fd, op_add(i, i - 1, 0, 0));
	test_err_apply(ELOOP, 0, self->fd,
		       op_add(GPAMAP_MAX_DEPTH + 1, GPAMAP_MAX_DEPTH, 0, 0));
	test_err_apply(ELOOP, 1, self->fd, op_add(1, GPAMAP_MAX_DEPTH + 1, 0, 0),
		       op_space(2, GPAMAP_SPACE_VIEW, GPAMAP_MAX_DEPTH + 1));
	EXPECT_VIEW(self->fd, 1, { 0, 0xfff, GPAMAP_MAX_DEPTH, 0, 0 });

	test_cmd_apply(self->fd, op_del(half + 1));
	EXPECT_VIEW(self->fd, 1, { 0, 0xfff, half, 0, 0 });
	test_cmd_apply(self->fd, op_add(GPAMAP_MAX_DEPTH + 1, GPAMAP_MAX_DEPTH, 0, 0));
	test_err_apply(ELOOP, 0, self->fd, op_add(half + 1, half, 0, 0));
	test_cmd_apply(self->fd, op_add(half + 1, half - 1, 0, 0));
	EXPECT_VIEW(self->fd, 1, { 0, 0xfff, GPAMAP_MAX_DEPTH + 1, 0, 0 });
}

TEST_F(empty, limit_depth_aliases)
{
	u32 i;

	test_cmd_apply(self->fd, op_io(1, 0xfff));
	for (i = 2; i <= GPAMAP_MAX_DEPTH + 1; i++)
		test_cmd_apply(self->fd, op_alias(i, i - 1, 0, 0xfff));
	test_err_apply(ELOOP, 0, self->fd,
		       op_space(1, GPAMAP_SPACE_VIEW, GPAMAP_MAX_DEPTH + 1));
	test_cmd_apply(self->fd, op_space(1, GPAMAP_SPACE_VIEW, GPAMAP_MAX_DEPTH));
	EXPECT_VIEW(self->fd, 1, { 0, 0xfff, 1, 0, 0 });
	/* At the lower end, and at the upper. */
	test_cmd_apply(self->fd, op_io(100, 0xfff), op_container(101, 0xfff),
		       op_space(2, GPAMAP_SPACE_VIEW, 101));
	test_err_apply(ELOOP, 0, self->fd, op_add(100, 1, 0, 0));
	test_err_apply(ELOOP, 0, self->fd, op_add(GPAMAP_MAX_DEPTH, 101, 0, 0));
	test_cmd_apply(self->fd, op_add(GPAMAP_MAX_DEPTH - 1, 101, 0, 0));
	test_err_apply(ELOOP, 2, self->fd, op_container(102, 0xfff), op_add(101, 102, 0, 0),
		       op_space(3, GPAMAP_SPACE_VIEW, 102));
}

/* Containers and aliases in turn; the longest of several ways counts. */
TEST_F(empty, limit_depth_mixed)
{
	u32 i;

	test_cmd_apply(self->fd, op_io(1, 0xfff), op_io(1000, 0xfff));
	for (i = 2; i < GPAMAP_MAX_DEPTH; i += 2)
		test_cmd_apply(self->fd, op_alias(i, i - 1, 0, 0xfff),
			       op_container(i + 1, 0xfff), op_add(i, i + 1, 0, 0));
	/* 63 regions from there down to 1, and a short way to 1000. */
	test_cmd_apply(self->fd, op_alias(1001, 1000, 0, 0xfff),
		       op_add(1001, i - 1, 0, -1));
	test_cmd_apply(self->fd, op_container(200, 0xfff), op_alias(201, i - 1, 0, 0xfff),
		       op_space(1, GPAMAP_SPACE_VIEW, 200));
	test_err_apply(ELOOP, 0, self->fd, op_add(201, 200, 0, 0));
	test_err_apply(ELOOP, 2, self->fd, op_add(i - 1, 200, 0, 0), op_container(202, 0xfff),
		       op_add(202, 1, 0, 0));
	test_cmd_apply(self->fd, op_add(i - 1, 200, 0, 0));
	test_err_apply(ELOOP, 1, self->fd, op_alias(202, 200, 0, 1),
		       op_space(2, GPAMAP_SPACE_VIEW, 202));
	/* 1000 is near to the root: there is room below it. */
	test_cmd_apply(self->fd, op_container(202, 0xfff), op_add(202, 1000, 0, 0));
}

#define WIDTH 512

/* WIDTH aliases of a container with WIDTH regions that do not touch. */
TEST_F_TIMEOUT(empty, limit_ranges, 120)
{
	struct gpamap_op ops[4 * WIDTH + 2];
	u32 i, nr = 0, count;
	void *ranges;

	ops[nr++] = op_container(1, U64_MAX);
	ops[nr++] = op_container(2, 0xffff);
	for (i = 0; i < WIDTH; i++) {
		ops[nr++] = op_io(1000 + i, 0x3f);
		ops[nr++] = op_add(1000 + i, 2, i * 0x80, 0);
		ops[nr++] = op_alias(2000 + i, 2, 0, 0xffff);
		ops[nr++] = op_add(2000 + i, 1, i * 0x10000ULL, 0);
	}
	test_cmd_apply_ops(self->fd, ops, nr);
	test_cmd_apply(self->fd, op_space(1, GPAMAP_SPACE_VIEW, 1));
	ranges = query_all(self->fd, GPAMAP_QUERY_RANGES, 1, &count);
	ASSERT_NE(NULL, ranges);
	EXPECT_EQ((u32)GPAMAP_MAX_RANGES, count);
	free(ranges);
	/* One more, at the end, and one in the middle of the view. */
	test_err_apply(ENOSPC, 1, self->fd, op_io(10, 0), op_add(10, 1, 1ULL << 40, 0),
		       op_io(11, 0));
	test_err_apply(ENOSPC, 1, self->fd, op_io(10, 0), op_add(10, 1, 0x10, 1));
	/* One more for one less. */
	test_cmd_apply(self->fd, op_io(10, 0), op_add(10, 1, 1ULL << 40, 0),
		       op_del(1000), op_add(1000, 2, 0, 0), op_enable(2000, false));
}

#define LEVELS 20

/* 2^LEVELS ways from the root to region 1, with two aliases a level. */
static u32 bomb(struct gpamap_op *ops, u32 levels)
{
	u32 i, nr = 0;

	ops[nr++] = op_io(1, 0xfff);
	for (i = 1; i <= levels; i++) {
		ops[nr++] = op_container(10 * i + 1, U64_MAX);
		ops[nr++] = op_alias(10 * i + 2, i == 1 ? 1 : 10 * i - 9, 0, U64_MAX);
		ops[nr++] = op_alias(10 * i + 3, i == 1 ? 1 : 10 * i - 9, 0, U64_MAX);
		ops[nr++] = op_add(10 * i + 2, 10 * i + 1, 0, 0);
		ops[nr++] = op_add(10 * i + 3, 10 * i + 1, 0x1000ULL << i, 0);
	}
	return nr;
}

TEST_F_TIMEOUT(empty, limit_paths, 120)
{
	struct gpamap_op ops[5 * LEVELS + 2];
	u32 nr = bomb(ops, LEVELS);

	/* The bomb itself is harmless until someone looks at it. */
	test_cmd_apply_ops(self->fd, ops, nr);
	test_err_apply(ENOSPC, 1, self->fd, op_io(2, 0),
		       op_space(1, GPAMAP_SPACE_VIEW, 10 * LEVELS + 1), op_io(3, 0));
	/* The upper half alone is allowed. */
	test_cmd_apply(self->fd, op_space(1, GPAMAP_SPACE_VIEW, 10 * (LEVELS - 8) + 1));
}

/* The operation to blame is found among many too; core_test counts how often it looks. */
TEST_F_TIMEOUT(empty, limit_paths_long_batch, 120)
{
	struct gpamap_op bombs[5 * 31 + 1], ops[100];
	u32 i, nr = bomb(bombs, 31);

	test_cmd_apply_ops(self->fd, bombs, nr);
	ops[0] = op_space(1, GPAMAP_SPACE_VIEW, 311);
	for (i = 1; i < ARRAY_SIZE(ops); i++)
		ops[i] = op_enable(1, i & 1);
	test_err_apply_ops(ENOSPC, 0, self->fd, ops, ARRAY_SIZE(ops));
}

/* -- QUERY ----------------------------------------------------------------- */

TEST_F(empty, query_info)
{
	struct gpamap_info info;
	u32 count = 1;

	memset(&info, 0xff, sizeof(info));
	test_cmd_query(self->fd, GPAMAP_QUERY_INFO, 0, &info, sizeof(info), &count);
	EXPECT_EQ(1u, count);
	EXPECT_EQ((u64)GPAMAP_FEATURE_SLOTS | GPAMAP_FEATURE_LOOKUP | GPAMAP_FEATURE_POLL |
		  GPAMAP_FEATURE_HOLD | GPAMAP_FEATURE_DRY_RUN | GPAMAP_FEATURE_STATS |
		  GPAMAP_FEATURE_CUT_AHEAD | GPAMAP_FEATURE_DOORBELL |
		  GPAMAP_FEATURE_REGISTERS | GPAMAP_FEATURE_HANDLER |
		  GPAMAP_FEATURE_POLICY | GPAMAP_FEATURE_RINGS | GPAMAP_FEATURE_TIES |
		  GPAMAP_FEATURE_LAYOUT,
		  info.features);
	EXPECT_EQ(0u, info.generation);
	EXPECT_EQ(0u, info.state);
	EXPECT_EQ((u32)GPAMAP_NAME_LEN, info.name_len);
	EXPECT_EQ((u32)GPAMAP_MAX_REGIONS, info.max_regions);
	EXPECT_EQ((u32)GPAMAP_MAX_SPACES, info.max_spaces);
	EXPECT_EQ((u32)GPAMAP_MAX_DEPTH, info.max_depth);
	EXPECT_EQ((u32)GPAMAP_MAX_RANGES, info.max_ranges);
	EXPECT_EQ((u32)GPAMAP_MAX_PATHS, info.max_paths);
	EXPECT_EQ((u32)GPAMAP_MAX_OPS, info.max_ops);
	EXPECT_EQ(0u, info.nr_regions);
	EXPECT_EQ(0u, info.nr_spaces);
	EXPECT_EQ(0u, info.first_slot);
	EXPECT_EQ(0u, info.nr_slots);
	EXPECT_EQ(0u, info.used_slots);
	EXPECT_EQ(0u, info.__reserved);
}

/* Nothing there is no error, and needs no room. */
TEST_F(empty, query_nothing)
{
	u32 count = 0;

	test_cmd_query(self->fd, GPAMAP_QUERY_REGIONS, 0, NULL,
		       sizeof(struct gpamap_region_info), &count);
	EXPECT_EQ(0u, count);
	count = 5;
	test_cmd_query(self->fd, GPAMAP_QUERY_SPACES, 0, NULL,
		       sizeof(struct gpamap_space_info), &count);
	EXPECT_EQ(0u, count);
	count = UINT_MAX;
	test_cmd_query(self->fd, GPAMAP_QUERY_SLOTS, 0, NULL,
		       sizeof(struct gpamap_slot_info), &count);
	EXPECT_EQ(0u, count);
	test_cmd_apply(self->fd, op_container(1, 0xfff), op_space(1, GPAMAP_SPACE_VIEW, 1));
	count = 1;
	test_cmd_query(self->fd, GPAMAP_QUERY_RANGES, 1, NULL,
		       sizeof(struct gpamap_range_info), &count);
	EXPECT_EQ(0u, count);
}

static const struct {
	u32 what;
	u32 space;
	u32 count;			/* in FIXTURE abi */
} answers[] = {
	{ GPAMAP_QUERY_INFO, 0, 1 },
	{ GPAMAP_QUERY_REGIONS, 0, 7 },
	{ GPAMAP_QUERY_SPACES, 0, 2 },
	{ GPAMAP_QUERY_RANGES, SPACE, 5 },
	{ GPAMAP_QUERY_RANGES, VIEW, 1 },
	{ GPAMAP_QUERY_SLOTS, 0, 4 },
	{ GPAMAP_QUERY_STATS, 0, 1 },
	{ GPAMAP_QUERY_LAYOUT, 0, 3 },
};

TEST_F(abi, query_short)
{
	static unsigned char buf[16384], canary[16384];
	u32 i, room, count;

	memset(canary, 0xa5, sizeof(canary));
	for (i = 0; i < ARRAY_SIZE(answers); i++) {
		const u32 size = record_size_of(answers[i].what);

		memset(buf, 0xa5, sizeof(buf));
		for (room = 0; room < answers[i].count; room++) {
			count = room;
			test_err_query(EMSGSIZE, self->fd, answers[i].what,
				       answers[i].space, buf, size, &count);
			EXPECT_EQ(answers[i].count, count)
				TH_LOG("answer %u", i);
		}
		EXPECT_EQ(0, memcmp(buf, canary, sizeof(buf)));
		/* Just enough, and more: only what exists is written. */
		for (room = answers[i].count; room <= answers[i].count + 1; room++) {
			count = room;
			test_cmd_query(self->fd, answers[i].what, answers[i].space, buf,
				       size, &count);
			EXPECT_EQ(answers[i].count, count);
			EXPECT_EQ(0, memcmp(buf + count * size, canary,
					    sizeof(buf) - count * size));
			EXPECT_NE(0, memcmp(buf, canary, size));
		}
		count = UINT_MAX;
		test_cmd_query(self->fd, answers[i].what, answers[i].space, buf, size,
			       &count);
		EXPECT_EQ(answers[i].count, count);
	}
}

TEST_F(abi, query_record_size)
{
	static unsigned char known[16384], buf[7 * PAGE + 16];
	u32 i, j, k, size, count;

	for (i = 0; i < ARRAY_SIZE(answers); i++) {
		const u32 what = answers[i].what, space = answers[i].space;
		const u32 own = record_size_of(what);

		for (size = 0; size < own; size += size < own - 16 ? 8 : 1) {
			count = 64;
			test_err_query(EINVAL, self->fd, what, space, buf, size, &count);
			EXPECT_EQ(64u, count);
		}
		for (size = own + 1; size < own + 8; size++) {
			count = 64;
			test_err_query(EINVAL, self->fd, what, space, buf, size, &count);
		}
		count = 64;
		test_err_query(E2BIG, self->fd, what, space, buf, PAGE + 8, &count);
		count = 64;
		test_err_query(E2BIG, self->fd, what, space, buf, UINT_MAX - 7, &count);

		/* From the future: what this kernel does not know is zero. */
		count = 64;
		test_cmd_query(self->fd, what, space, known, own, &count);
		for (size = own + 8; size <= PAGE; size += size < own + 24 ? 8 : PAGE - size) {
			memset(buf, 0xa5, sizeof(buf));
			count = 7;
			test_cmd_query(self->fd, what, space, buf, size, &count);
			ASSERT_EQ(answers[i].count, count);
			for (j = 0; j < count; j++) {
				EXPECT_EQ(0, memcmp(buf + j * size, known + j * own, own));
				for (k = own; k < size; k++)
					if (buf[j * size + k])
						break;
				EXPECT_EQ(size, k);
			}
			EXPECT_EQ(0xa5, (int)buf[count * size]);
			if (size == PAGE)
				break;
		}
	}
}

/* The areas in their order, whatever the map is like. */
TEST_F(abi, query_layout)
{
	struct gpamap_layout layouts[3];
	const struct gpamap_layout want[] = {
		{ GPAMAP_AREA_EXITS, 1, 0, 0, sizeof(struct gpamap_exit), PAGE },
		{ GPAMAP_AREA_REGISTERS, 1, 0, 0, PAGE, 0 },
		{ GPAMAP_AREA_RING, 1, sizeof(struct gpamap_ring_header), PAGE,
		  sizeof(struct gpamap_ring_entry), 0 },
	};
	u32 count = ARRAY_SIZE(layouts);

	test_cmd_query(self->fd, GPAMAP_QUERY_LAYOUT, 0, layouts, sizeof(layouts[0]), &count);
	ASSERT_EQ(ARRAY_SIZE(layouts), count);
	EXPECT_EQ(0, memcmp(want, layouts, sizeof(want)));
}

TEST_F(abi, query_bad)
{
	static const u32 whats[] = { 0, 9, 10, 100, INT_MAX, UINT_MAX };
	static unsigned char buf[4096];
	u32 i, count;

	for (i = 0; i < ARRAY_SIZE(whats); i++) {
		count = 64;
		test_err_query(EOPNOTSUPP, self->fd, whats[i], 0, buf, 128, &count);
		EXPECT_EQ(64u, count);
	}
	for (i = 0; i < ARRAY_SIZE(answers); i++) {
		if (answers[i].what == GPAMAP_QUERY_RANGES)
			continue;
		count = 64;
		test_err_query(EINVAL, self->fd, answers[i].what, SPACE, buf,
			       record_size_of(answers[i].what), &count);
	}
	count = 64;
	test_err_query(ENOENT, self->fd, GPAMAP_QUERY_RANGES, 0, buf,
		       sizeof(struct gpamap_range_info), &count);
	count = 64;
	test_err_query(ENOENT, self->fd, GPAMAP_QUERY_RANGES, FREE_ID, buf,
		       sizeof(struct gpamap_range_info), &count);
}

TEST_F(abi, query_bad_records_pointer)
{
	u32 i, count;

	for (i = 0; i < ARRAY_SIZE(answers); i++) {
		const u32 what = answers[i].what, space = answers[i].space;
		const u32 size = record_size_of(what);

		count = 64;
		test_err_query(EFAULT, self->fd, what, space, NULL, size, &count);
		count = 64;
		test_err_query(EFAULT, self->fd, what, space, self->page + PAGE, size,
			       &count);
		count = 64;
		test_err_query(EFAULT, self->fd, what, space,
			       (void *)0xffff888000000000, size, &count);
		/* All but the last byte has room. */
		count = 64;
		test_err_query(EFAULT, self->fd, what, space,
			       self->page + PAGE - answers[i].count * size + 1, size,
			       &count);
		count = 64;
		test_cmd_query(self->fd, what, space,
			       self->page + PAGE - answers[i].count * size, size, &count);
	}
}

TEST_F(empty, query_region_order)
{
	static const u32 want[] = { 3, 9, 2, 7, 8, 5, 6, 40 };
	struct gpamap_region_info *regions;
	u32 i, count;

	/* 3 { 9 { 2 }, 7, 8, 5 }, 6, 40: by visibility inside, by id outside. */
	test_cmd_apply(self->fd, op_container(3, 0xffff), op_container(9, 0xffff),
		       op_io(2, 0xff), op_io(7, 0xff), op_io(8, 0xff), op_io(5, 0xff),
		       op_alias(40, 2, 0, 0xff), op_io(6, 0xff),
		       op_add(2, 9, 0, 0), op_add(5, 3, 0, -3), op_add(8, 3, 0x100, 0),
		       op_add(9, 3, 0x200, 1), op_add(7, 3, 0x300, 0));
	regions = query_all(self->fd, GPAMAP_QUERY_REGIONS, 0, &count);
	ASSERT_NE(NULL, regions);
	ASSERT_EQ(ARRAY_SIZE(want), count);
	for (i = 0; i < count; i++)
		EXPECT_EQ(want[i], regions[i].id)
			TH_LOG("record %u", i);
	EXPECT_EQ(9u, regions[2].container);
	EXPECT_EQ(3u, regions[1].container);
	EXPECT_EQ(0u, regions[0].container);
	EXPECT_EQ(-3, regions[5].prio);
	EXPECT_EQ(0x200u, regions[1].at);
	EXPECT_EQ(2u, regions[7].target);
	EXPECT_EQ(0xffffu, regions[0].last);
	free(regions);
	/* After DEL, place and priority are still told. */
	test_cmd_apply(self->fd, op_del(9));
	regions = query_all(self->fd, GPAMAP_QUERY_REGIONS, 0, &count);
	ASSERT_NE(NULL, regions);
	ASSERT_EQ(ARRAY_SIZE(want), count);
	EXPECT_EQ(9u, regions[5].id);
	EXPECT_EQ(0u, regions[5].container);
	EXPECT_EQ(0x200u, regions[5].at);
	EXPECT_EQ(1, regions[5].prio);
	free(regions);
}

TEST_F(empty, query_space_order)
{
	static const u32 want[] = { 2, 5, 9, 70000 };
	struct gpamap_space_info *spaces;
	u32 i, count;

	test_cmd_apply(self->fd, op_io(1, 0xfff),
		       op_name(op_space(9, GPAMAP_SPACE_VIEW, 1), "nine"),
		       op_space(2, GPAMAP_SPACE_VIEW, 1),
		       op_space(70000, GPAMAP_SPACE_VIEW, 1),
		       op_space(5, GPAMAP_SPACE_MEMORY, 1));
	spaces = query_all(self->fd, GPAMAP_QUERY_SPACES, 0, &count);
	ASSERT_NE(NULL, spaces);
	ASSERT_EQ(ARRAY_SIZE(want), count);
	for (i = 0; i < count; i++) {
		EXPECT_EQ(want[i], spaces[i].id);
		EXPECT_EQ(1u, spaces[i].root);
		EXPECT_EQ(1u, spaces[i].nr_ranges);
		EXPECT_EQ(0u, spaces[i].as_id);
		EXPECT_EQ(0u, spaces[i].__reserved);
		EXPECT_EQ((u32)(i == 1 ? GPAMAP_SPACE_MEMORY : GPAMAP_SPACE_VIEW),
			  spaces[i].kind);
	}
	EXPECT_STREQ("nine", (char *)spaces[2].name);
	free(spaces);
}

TEST_F(abi, query_records)
{
	struct gpamap_region_info *regions;
	struct gpamap_range_info *ranges;
	struct gpamap_slot_info *slots;
	u32 count;

	regions = query_all(self->fd, GPAMAP_QUERY_REGIONS, 0, &count);
	ASSERT_NE(NULL, regions);
	ASSERT_EQ(7u, count);
	EXPECT_EQ((u32)IO, regions[1].id);	/* ROOT, then the highest priority */
	EXPECT_EQ((u32)GPAMAP_REGION_IO, regions[1].kind);
	EXPECT_STREQ("io", (char *)regions[1].name);
	free(regions);

	ranges = query_all(self->fd, GPAMAP_QUERY_RANGES, SPACE, &count);
	ASSERT_NE(NULL, ranges);
	ASSERT_EQ(5u, count);
	EXPECT_EQ((u32)GPAMAP_REGION_RAM, ranges[0].kind);
	EXPECT_EQ((u32)GPAMAP_REGION_IO, ranges[1].kind);
	EXPECT_EQ(1, ranges[1].prio);
	EXPECT_EQ((u32)GPAMAP_REGION_RAM, ranges[3].kind);
	EXPECT_EQ((u32)RAM, ranges[3].region);
	EXPECT_EQ(PAGE, ranges[3].offset);
	EXPECT_EQ((u32)GPAMAP_REGION_ROM, ranges[4].kind);
	EXPECT_EQ((u32)GPAMAP_REGION_READONLY, ranges[4].flags);
	free(ranges);

	slots = query_all(self->fd, GPAMAP_QUERY_SLOTS, 0, &count);
	ASSERT_NE(NULL, slots);
	ASSERT_EQ(4u, count);
	EXPECT_EQ((u32)RAM, slots[2].region);
	EXPECT_EQ((u32)ROM, slots[3].region);
	EXPECT_EQ(0u, slots[3].__reserved);
	free(slots);
}

/* -- batches --------------------------------------------------------------- */

TEST_F(empty, batch_makes_and_uses)
{
	test_cmd_apply(self->fd, op_container(1, 0xffff), op_io(2, 0xff), op_add(2, 1, 0, 0),
		       op_space(1, GPAMAP_SPACE_VIEW, 1), op_at(2, 0x100),
		       op_container(3, 1), op_destroy(3), op_io(3, 0xff),
		       op_add(3, 1, 0x100, 1));
	EXPECT_VIEW(self->fd, 1, { 0x100, 0x1ff, 3, 0, 0 });
	/* An id that is taken anew, over and over. */
	test_cmd_apply(self->fd, op_del(3), op_destroy(3), op_io(3, 0xf), op_destroy(3),
		       op_io(3, 0xf), op_destroy(3), op_io(3, 0x1f), op_add(3, 1, 0, 0),
		       op_space_destroy(1), op_space(1, GPAMAP_SPACE_VIEW, 3),
		       op_space_destroy(1), op_space(1, GPAMAP_SPACE_VIEW, 1));
	EXPECT_VIEW(self->fd, 1, { 0, 0x1f, 3, 0, 0 }, { 0x100, 0x1ff, 2, 0, 0 });
	/* And taken back. */
	test_err_apply(ENOENT, 13, self->fd, op_del(3), op_destroy(3), op_io(3, 0xf),
		       op_destroy(3), op_io(3, 0xf), op_destroy(3), op_io(3, 0x1f),
		       op_add(3, 1, 0x100, 0), op_space_destroy(1),
		       op_space(1, GPAMAP_SPACE_MEMORY, 3), op_space_destroy(1),
		       op_space(1, GPAMAP_SPACE_VIEW, 1), op_del(2), op_destroy(77));
	/* Made and destroyed in one batch: nothing is left. */
	test_cmd_apply(self->fd, op_io(8, 1), op_alias(9, 8, 0, 1), op_add(9, 1, 0, 9),
		       op_space(5, GPAMAP_SPACE_VIEW, 9), op_space_destroy(5), op_del(9),
		       op_destroy(9), op_destroy(8));
	EXPECT_EQ(3u, query_info(self->fd).nr_regions);
	EXPECT_EQ(1u, query_info(self->fd).nr_spaces);
}

TEST_F(empty, maps_are_independent)
{
	int other = map_open();
	struct snapshot *snap;

	ASSERT_LE(0, other);
	test_cmd_apply(self->fd, op_io(1, 0xfff), op_space(1, GPAMAP_SPACE_VIEW, 1));
	snap = snapshot_take(self->fd);
	ASSERT_NE(NULL, snap);
	test_err_apply(ENOENT, 0, other, op_destroy(1));
	test_cmd_apply(other, op_ram(1, 0xff, NULL), op_space(1, GPAMAP_SPACE_MEMORY, 1));
	test_cmd_apply(other, op_enable(1, false));
	EXPECT_UNCHANGED(self->fd, snap);
	close(other);
	EXPECT_UNCHANGED(self->fd, snap);
	snapshot_free(snap);
}

/* It rises by one when a view or the set of spaces changes, and then only. */
TEST_F(empty, generation)
{
	u64 generation;

#define EXPECT_GENERATION(_n, ...)						\
	do {									\
		const struct gpamap_op __ops[] = { __VA_ARGS__ };		\
		ASSERT_EQ(0, _test_cmd_apply(self->fd, __ops, ARRAY_SIZE(__ops), \
					     NULL, &generation));		\
		EXPECT_EQ((u64)(_n), generation);				\
		EXPECT_EQ((u64)(_n), query_info(self->fd).generation);		\
	} while (0)
	EXPECT_GENERATION(0, op_container(1, 0xffff), op_io(2, 0xfff), op_add(2, 1, 0, 0));
	EXPECT_GENERATION(1, op_space(1, GPAMAP_SPACE_VIEW, 1));
	EXPECT_GENERATION(1, op_io(3, 0xfff));
	EXPECT_GENERATION(1, op_add(3, 1, 0, -1));
	EXPECT_GENERATION(2, op_at(3, 0x1000), op_at(3, 0x2000), op_prio(3, 5));
	EXPECT_GENERATION(2, op_enable(3, false), op_enable(3, true));
	EXPECT_GENERATION(3, op_enable(3, false));
	EXPECT_GENERATION(4, op_space(2, GPAMAP_SPACE_VIEW, 3));
	EXPECT_GENERATION(5, op_space_destroy(2));
	EXPECT_GENERATION(6, op_readonly(2, true));
	test_err_apply(ENOENT, 1, self->fd, op_enable(2, false), op_del(99));
	EXPECT_GENERATION(7, op_enable(2, false));
}

TEST_HARNESS_MAIN
