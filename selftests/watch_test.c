// SPDX-License-Identifier: GPL-2.0
/*
 * News of a map: each file that is a reader of its own, the map's or one of GPAMAP_WATCH,
 * has what was not read from it yet, whatever others read, ask or close.
 */
#include "harness.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include "gpamap_util.h"
#include "leaks.h"
#include "vcpu.h"

#define PAGE TEST_PAGE
#define A 0x100000ULL
#define B 0x40000000ULL
#define DRY_RUN GPAMAP_APPLY_DRY_RUN

enum { ROOT = 1, MEM, IO };
enum { SPACE = 1 };

FIXTURE(watch) {
	char *mem;
	int fd;
	u64 generation;			/* the present one */
	bool there;			/* MEM is at B */
};

FIXTURE_SETUP(watch)
{
	struct gpamap_apply out;

	EXPECT_NO_MAP_LEFT();
	self->mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
	ASSERT_NE(MAP_FAILED, (void *)self->mem);
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_plan(self->fd, 0, &out, op_container(ROOT, U64_MAX),
		      op_ram(MEM, PAGE - 1, self->mem), op_io(IO, PAGE - 1),
		      op_add(MEM, ROOT, A, 0), op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	self->generation = out.out_generation;
}

FIXTURE_TEARDOWN(watch)
{
	if (self->fd >= 0)
		close(self->fd);
	munmap(self->mem, PAGE);
	EXPECT_NO_MAP_LEFT();
}

/* A commit that makes a new generation. */
#define COMMIT()								\
	do {									\
		struct gpamap_op __op = op_at(MEM, self->there ? A : B);	\
		u64 __generation;						\
		ASSERT_EQ(0, _test_cmd_apply(self->fd, &__op, 1, NULL, &__generation)); \
		ASSERT_EQ(self->generation + 1, __generation);			\
		self->generation++;						\
		self->there = !self->there;					\
	} while (0)

static int set_nonblock(int fd)
{
	return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) ? -errno : 0;
}

/* A watcher that never blocks. */
#define WATCH(_map)								\
	({									\
		int __w = map_watch(_map);					\
		ASSERT_LE(0, __w);						\
		ASSERT_EQ(0, set_nonblock(__w));				\
		__w;								\
	})

#define EXPECT_NO_NEWS(_fd)							\
	do {									\
		u64 __n;							\
		EXPECT_EQ(0, polled(_fd));					\
		errno = 0;							\
		EXPECT_EQ(-1, read(_fd, &__n, sizeof(__n)));			\
		EXPECT_EQ(EAGAIN, errno);					\
	} while (0)

#define EXPECT_NEWS(_fd)							\
	do {									\
		EXPECT_EQ(POLLIN, polled(_fd));					\
		EXPECT_EQ(self->generation, news_take(_fd));			\
		EXPECT_NO_NEWS(_fd);						\
	} while (0)

/* -- who asks takes nothing away -------------------------------------------- */

/* Everything that can be asked of a map, but for a read. */
static void ask_all(int fd)
{
	struct snapshot *snap = snapshot_take(fd);
	struct gpamap_lookup lookup;

	snapshot_free(snap);
	query_stats(fd);
	_test_cmd_lookup(fd, SPACE, A, &lookup);
}

/* -- who waits ----------------------------------------------------------------- */

struct exclusive {
	pthread_t thread;
	int watch, ep, n;
};

static void *exclusive_wait(void *arg)
{
	struct exclusive *x = arg;
	struct epoll_event event;

	x->n = epoll_wait(x->ep, &event, 1, 3000 * test_patience());
	return NULL;
}

/* Exclusive are those who wait for one reader; each of several readers hears. */
TEST_F_TIMEOUT(watch, exclusive_epolls, 60)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLEXCLUSIVE };
	struct exclusive x[3];
	u32 round, i;
	u64 value;

	for (i = 0; i < ARRAY_SIZE(x); i++) {
		x[i].watch = map_watch(self->fd);
		ASSERT_LE(0, x[i].watch);
		ASSERT_EQ((ssize_t)sizeof(value), read(x[i].watch, &value, sizeof(value)));
		x[i].ep = epoll_create1(EPOLL_CLOEXEC);
		ASSERT_EQ(0, epoll_ctl(x[i].ep, EPOLL_CTL_ADD, x[i].watch, &event));
	}
	for (round = 0; round < 3; round++) {
		for (i = 0; i < ARRAY_SIZE(x); i++)
			ASSERT_EQ(0, pthread_create(&x[i].thread, NULL, exclusive_wait, &x[i]));
		usleep(100000 * test_patience());
		/* In the end the map goes: that is for all, too. */
		if (round < 2) {
			test_cmd_apply(self->fd, op_at(MEM, round ? A : B));
		} else {
			close(self->fd);
			self->fd = -1;
		}
		for (i = 0; i < ARRAY_SIZE(x); i++) {
			pthread_join(x[i].thread, NULL);
			EXPECT_EQ(1, x[i].n) TH_LOG("round %u: reader %u", round, i);
			EXPECT_EQ(round < 2 ? (ssize_t)sizeof(value) : 0,
				  read(x[i].watch, &value, sizeof(value)));
		}
	}
	for (i = 0; i < ARRAY_SIZE(x); i++) {
		close(x[i].ep);
		close(x[i].watch);
	}
}

TEST_F(watch, asked_by_another_process)
{
	pid_t pid;

	EXPECT_EQ(POLLIN, polled(self->fd));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		ask_all(self->fd);
		_exit(0);
	}
	ASSERT_CHILD_OK(pid);
	EXPECT_EQ(POLLIN, polled(self->fd));
	EXPECT_EQ(self->generation, news_take(self->fd));
	EXPECT_EQ(0, polled(self->fd));
}

TEST_F(watch, query_acknowledges_nothing)
{
	int watcher = WATCH(self->fd);

	ASSERT_EQ(0, set_nonblock(self->fd));
	EXPECT_NEWS(self->fd);
	EXPECT_NEWS(watcher);
	COMMIT();
	ask_all(self->fd);
	EXPECT_NEWS(self->fd);
	EXPECT_NEWS(watcher);
	ask_all(self->fd);
	EXPECT_NO_NEWS(self->fd);
	EXPECT_NO_NEWS(watcher);
	close(watcher);
}

/* -- read() ------------------------------------------------------------------ */

TEST_F(watch, map_file_is_a_reader)
{
	u64 n = 0;

	/* All is new in the beginning; the newest is told, not each. */
	EXPECT_EQ(POLLIN, polled(self->fd));
	COMMIT();
	COMMIT();
	EXPECT_EQ(self->generation, news_take(self->fd));
	EXPECT_EQ(0, polled(self->fd));
	ASSERT_EQ(0, set_nonblock(self->fd));
	EXPECT_NO_NEWS(self->fd);
	COMMIT();
	EXPECT_NEWS(self->fd);
	/* Where nothing changes nothing is new. */
	test_cmd_apply(self->fd, op_enable(MEM, false), op_enable(MEM, true));
	test_err_apply(ENOENT, 0, self->fd, op_del(99));
	EXPECT_EQ(0, _test_cmd_plan(self->fd, DRY_RUN,
				    (struct gpamap_op[]){ op_enable(MEM, false) }, 1,
				    &(struct gpamap_apply){ 0 }));
	EXPECT_NO_NEWS(self->fd);
	COMMIT();
	/* Too little room acknowledges nothing. */
	EXPECT_EQ(-1, read(self->fd, &n, sizeof(n) - 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, read(self->fd, &n, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(POLLIN, polled(self->fd));
	EXPECT_NEWS(self->fd);
	EXPECT_EQ(-1, write(self->fd, &n, sizeof(n)));
	EXPECT_EQ(EINVAL, errno);
}

TEST_F(watch, how_much_is_read)
{
	void *volatile nowhere = (void *)8;
	u64 room[4] = { 1, 2, 3, 4 };
	int watcher = WATCH(self->fd);

	EXPECT_EQ(-1, read(watcher, room, 7));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(POLLIN, polled(watcher));
	EXPECT_EQ(8, read(watcher, room, sizeof(room)));
	EXPECT_EQ(self->generation, room[0]);
	EXPECT_EQ(2u, room[1]);
	/* With nothing new the room is looked at first, too. */
	EXPECT_EQ(-1, read(watcher, room, 7));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_NO_NEWS(watcher);
	/* What cannot be given is not acknowledged. */
	COMMIT();
	EXPECT_EQ(-1, read(watcher, nowhere, 8));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_NEWS(watcher);
	close(watcher);
}

struct reader {
	pthread_t thread;
	int fd;
	pid_t tid;
	u64 value;
	long rc;
	int err;
};

static void *read_once(void *arg)
{
	struct reader *r = arg;

	vcpu_write(r->tid, gettid());
	r->rc = read(r->fd, &r->value, sizeof(r->value));
	r->err = errno;
	return NULL;
}

#define START_READER(_r, _fd)							\
	do {									\
		*(_r) = (struct reader){ .fd = _fd };				\
		ASSERT_EQ(0, pthread_create(&(_r)->thread, NULL, read_once, _r)); \
		wait_until(vcpu_read((_r)->tid));				\
		wait_until(thread_sleeps_in((_r)->tid, "gpamap"));		\
	} while (0)

/* It waits, and a commit wakes it; so for every file that is a reader. */
TEST_F(watch, read_waits)
{
	int files[] = { self->fd, map_watch(self->fd), map_watch(self->fd) };
	struct reader readers[3];
	u32 i;

	for (i = 0; i < 3; i++) {
		ASSERT_LE(0, files[i]);
		EXPECT_EQ(self->generation, news_take(files[i]));
		START_READER(&readers[i], files[i]);
	}
	COMMIT();
	for (i = 0; i < 3; i++) {
		pthread_join(readers[i].thread, NULL);
		EXPECT_EQ(8, readers[i].rc);
		EXPECT_EQ(self->generation, readers[i].value);
		EXPECT_EQ(0, polled(files[i]));
	}
	close(files[1]);
	close(files[2]);
}

TEST_F(watch, read_is_interrupted)
{
	int watcher = map_watch(self->fd);
	struct reader reader;

	ASSERT_LE(0, watcher);
	EXPECT_EQ(self->generation, news_take(watcher));
	START_READER(&reader, watcher);
	/* The handler is installed without SA_RESTART (lib/vcpu.c). */
	pthread_kill(reader.thread, SIGUSR1);
	pthread_join(reader.thread, NULL);
	EXPECT_EQ(-1, reader.rc);
	EXPECT_EQ(EINTR, reader.err);
	COMMIT();
	EXPECT_EQ(self->generation, news_take(watcher));
	close(watcher);
}

/* -- several ------------------------------------------------------------------ */

TEST_F(watch, both_hear)
{
	int a = WATCH(self->fd), b = WATCH(self->fd), late;

	/* In the beginning everything is new. */
	EXPECT_NEWS(a);
	EXPECT_EQ(POLLIN, polled(b));
	EXPECT_NEWS(b);
	COMMIT();
	EXPECT_EQ(POLLIN, polled(a));
	EXPECT_NEWS(b);
	EXPECT_EQ(POLLIN, polled(a));
	COMMIT();
	EXPECT_NEWS(a);
	EXPECT_NEWS(b);
	/* What the map's own file has read matters to neither. */
	EXPECT_EQ(POLLIN, polled(self->fd));
	COMMIT();
	EXPECT_EQ(self->generation, news_take(self->fd));
	EXPECT_NEWS(a);
	EXPECT_NEWS(b);
	late = WATCH(self->fd);
	EXPECT_NEWS(late);
	EXPECT_NO_NEWS(a);
	EXPECT_EQ(0, polled(self->fd));
	close(b);
	COMMIT();
	EXPECT_NEWS(a);
	EXPECT_NEWS(late);
	close(a);
	close(late);
	EXPECT_EQ(POLLIN, polled(self->fd));
}

/* What shares a file shares what it has told. */
TEST_F(watch, dup_shares)
{
	int watcher = WATCH(self->fd), twin = dup(watcher);

	ASSERT_LE(0, twin);
	EXPECT_EQ(POLLIN, polled(twin));
	EXPECT_NEWS(watcher);
	EXPECT_NO_NEWS(twin);
	COMMIT();
	close(watcher);
	EXPECT_NEWS(twin);
	close(twin);
}

TEST_F(watch, fork_shares)
{
	int watcher = WATCH(self->fd);
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(news_take(watcher) == self->generation ? 0 : 1);
	ASSERT_CHILD_OK(pid);
	EXPECT_NO_NEWS(watcher);
	COMMIT();
	EXPECT_NEWS(watcher);
	close(watcher);
}

/* Another process, without the map's file, hears what its watcher tells, and no more. */
TEST_F(watch, passed_to_another_process)
{
	int socks[2], mine = WATCH(self->fd), passed = map_watch(self->fd);
	u64 told[2];
	pid_t pid;

	ASSERT_LE(0, passed);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, socks));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct pollfd p = { .events = POLLIN };
		struct gpamap_info info;
		u32 i, count = 1;
		u64 n;

		close(self->fd);
		close(mine);
		close(passed);
		close(socks[0]);
		p.fd = fd_receive(socks[1]);
		if (p.fd < 0)
			_exit(1);
		for (i = 0; i < 2; i++) {
			if (poll(&p, 1, 20000) != 1 || p.revents != POLLIN)
				_exit(2);
			n = news_take(p.fd);
			if (write(socks[1], &n, 8) != 8)
				_exit(3);
		}
		/* It is not the map. */
		if (_test_cmd_query(p.fd, GPAMAP_QUERY_INFO, 0, &info, sizeof(info),
				    &count) != -ENOTTY || map_watch(p.fd) != -ENOTTY)
			_exit(4);
		/* The commit is there before the end. */
		while (poll(&p, 1, 20000) == 1 && p.revents == POLLIN)
			usleep(1000);
		if (p.revents != (POLLIN | POLLHUP))
			_exit(5);
		/* What was not read yet, and then the end. */
		if (!news_take(p.fd) || read(p.fd, &n, 8))
			_exit(6);
		_exit(0);
	}
	close(socks[1]);
	ASSERT_EQ(0, fd_send(socks[0], passed));
	close(passed);
	ASSERT_EQ(8, read(socks[0], &told[0], 8));
	EXPECT_EQ(self->generation, told[0]);
	COMMIT();
	ASSERT_EQ(8, read(socks[0], &told[1], 8));
	EXPECT_EQ(self->generation, told[1]);
	COMMIT();
	EXPECT_NEWS(mine);
	close(mine);
	close(self->fd);
	self->fd = -1;
	ASSERT_CHILD_OK(pid);
	close(socks[0]);
}

/* -- the end ------------------------------------------------------------------- */

TEST_F(watch, map_is_closed)
{
	int read_all = WATCH(self->fd), behind = WATCH(self->fd);
	struct reader waiting;
	int blocking = map_watch(self->fd);
	u64 n;

	ASSERT_LE(0, blocking);
	EXPECT_EQ(self->generation, news_take(blocking));
	EXPECT_NEWS(read_all);
	START_READER(&waiting, blocking);
	close(self->fd);
	self->fd = -1;
	pthread_join(waiting.thread, NULL);
	EXPECT_EQ(0, waiting.rc);
	EXPECT_EQ(POLLHUP, polled(read_all) & POLLHUP);
	EXPECT_EQ(0, read(read_all, &n, 8));
	EXPECT_EQ(POLLIN | POLLHUP, polled(behind));
	EXPECT_EQ(self->generation, news_take(behind));
	EXPECT_EQ(POLLHUP, polled(behind) & POLLHUP);
	EXPECT_EQ(0, read(behind, &n, 8));
	EXPECT_EQ(0, read(behind, &n, 8));
	EXPECT_EQ(-1, read(behind, &n, 7));
	EXPECT_EQ(EINVAL, errno);
	close(read_all);
	close(behind);
	close(blocking);
}

static void *poll_once(void *arg)
{
	struct reader *r = arg;
	struct pollfd p = { .fd = r->fd, .events = POLLIN };

	vcpu_write(r->tid, gettid());
	r->rc = poll(&p, 1, 20000);
	r->value = p.revents;
	return NULL;
}

/* One that sleeps in poll() is woken, by a commit and by the end. */
TEST_F(watch, poll_wakes)
{
	int watcher = WATCH(self->fd);
	struct reader poller = { .fd = watcher };
	u32 round;

	EXPECT_NEWS(watcher);
	for (round = 0; round < 2; round++) {
		poller.tid = 0;
		ASSERT_EQ(0, pthread_create(&poller.thread, NULL, poll_once, &poller));
		wait_until(vcpu_read(poller.tid));
		wait_until(thread_sleeps_in(poller.tid, "poll"));
		if (round) {
			close(self->fd);
			self->fd = -1;
		} else {
			COMMIT();
		}
		pthread_join(poller.thread, NULL);
		EXPECT_EQ(1, poller.rc);
		EXPECT_EQ(round ? POLLHUP : 0, (int)poller.value & POLLHUP);
		EXPECT_TRUE(round || poller.value & POLLIN);
		news_take(watcher);
	}
	close(watcher);
}

/* A watcher does not keep the map open: its end is that of the VMM's last file. */
TEST_F(watch, inherited_map_is_still_open)
{
	int watcher = WATCH(self->fd), go[2];
	struct gpamap_op op = op_at(MEM, B);
	pid_t pid;
	char c;

	EXPECT_NEWS(watcher);
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(go[1]);
		if (read(go[0], &c, 1) != 1 || _test_cmd_apply(self->fd, &op, 1, NULL, NULL))
			_exit(1);
		_exit(read(go[0], &c, 1));
	}
	close(self->fd);
	self->fd = -1;
	EXPECT_NO_NEWS(watcher);
	ASSERT_EQ(1, write(go[1], "x", 1));
	wait_until(polled(watcher));
	self->generation++;
	EXPECT_NEWS(watcher);
	close(go[1]);
	ASSERT_CHILD_OK(pid);
	wait_until(polled(watcher));
	EXPECT_EQ(POLLHUP, polled(watcher) & POLLHUP);
	close(watcher);
	close(go[0]);
}

TEST_F(watch, epoll)
{
	int watcher = WATCH(self->fd), ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };

	ASSERT_LE(0, ep);
	EXPECT_NEWS(watcher);
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, watcher, &event));
	EXPECT_EQ(0, epoll_wait(ep, &event, 1, 0));
	COMMIT();
	EXPECT_EQ(1, epoll_wait(ep, &event, 1, 0));
	EXPECT_EQ((u32)EPOLLIN, event.events);
	/* Edges: once a commit, read or not. */
	EXPECT_EQ(0, epoll_wait(ep, &event, 1, 0));
	COMMIT();
	EXPECT_EQ(1, epoll_wait(ep, &event, 1, 0));
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(1, epoll_wait(ep, &event, 1, 0));
	EXPECT_EQ((u32)EPOLLHUP, event.events & EPOLLHUP);
	close(watcher);
	close(ep);
}

/* Files that come, read and go while commits are made and while the map closes. */
struct churner {
	pthread_t thread;
	int map;
	u64 rounds;
	int rc;
	bool stop;
};

static void *churn(void *arg)
{
	struct churner *c = arg;
	int fd;

	while (!vcpu_read(c->stop)) {
		fd = map_watch(c->map);
		if (fd < 0) {
			c->rc = fd;
			break;
		}
		if (!news_take(fd))
			c->rc = -EIO;
		close(fd);
		vcpu_write(c->rounds, c->rounds + 1);
	}
	return NULL;
}

TEST_F_TIMEOUT(watch, come_and_go, 60)
{
	u64 rounds = env_number("ROUNDS", 500), i;
	struct churner churners[2] = { 0 };

	for (i = 0; i < 2; i++) {
		churners[i].map = self->fd;
		ASSERT_EQ(0, pthread_create(&churners[i].thread, NULL, churn, &churners[i]));
	}
	for (i = 0; i < rounds; i++)
		COMMIT();
	wait_until(vcpu_read(churners[0].rounds) && vcpu_read(churners[1].rounds));
	for (i = 0; i < 2; i++) {
		vcpu_write(churners[i].stop, true);
		pthread_join(churners[i].thread, NULL);
		EXPECT_EQ(0, churners[i].rc);
	}
}

/* -- the command ----------------------------------------------------------------- */

TEST_F(watch, the_file)
{
	int watcher = map_watch(self->fd);
	struct gpamap_watch cmd = { .size = sizeof(cmd) };
	u64 n = 0;

	ASSERT_LE(0, watcher);
	EXPECT_EQ(FD_CLOEXEC, fcntl(watcher, F_GETFD));
	EXPECT_EQ(0, fcntl(watcher, F_GETFL) & O_NONBLOCK);
	EXPECT_EQ(-1, write(watcher, &n, sizeof(n)));
	EXPECT_EQ(-ENOTTY, map_ioctl(watcher, GPAMAP_WATCH, &cmd));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, watcher, 0));
	close(watcher);
}

TEST_F(watch, errors)
{
	struct {
		struct gpamap_watch cmd;
		u64 future;
	} wide = { .cmd = { .size = sizeof(wide) } };
	struct gpamap_watch cmd = { .size = sizeof(cmd) };
	struct rlimit limit, none;
	u32 bit;

	for (bit = 0; bit < 32; bit++) {
		cmd.flags = 1u << bit;
		EXPECT_ERR_UNCHANGED(EOPNOTSUPP, self->fd,
				     map_ioctl(self->fd, GPAMAP_WATCH, &cmd));
	}
	cmd.flags = 0;
	cmd.size = 4;
	EXPECT_EQ(-EINVAL, map_ioctl(self->fd, GPAMAP_WATCH, &cmd));
	EXPECT_EQ(-EFAULT, map_ioctl(self->fd, GPAMAP_WATCH, NULL));
	/* A structure of the future: its zeroes are of no consequence. */
	wide.future = 1;
	EXPECT_EQ(-E2BIG, map_ioctl(self->fd, GPAMAP_WATCH, &wide));
	cmd.size = sizeof(cmd);
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
	none = limit;
	none.rlim_cur = 3;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	EXPECT_EQ(-EMFILE, map_watch(self->fd));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	EXPECT_NE(0u, query_info(self->fd).features & GPAMAP_FEATURE_POLL);
}

TEST_HARNESS_MAIN
