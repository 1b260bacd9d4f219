// SPDX-License-Identifier: GPL-2.0
/*
 * What is tied to regions, by operations of a batch: doorbells, registers, handlers, posted
 * writes and policies come and go with the regions that they belong to, in one transaction.
 * One that fails, wherever, leaves all of it as it was: what QUERY and debugfs tell, what the
 * guest finds, eventfds and modules.
 *
 * That all of it changes in one moment is the subject of atomic_test.c.
 */
#include "harness.h"
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include "answers.h"
#include "debugfs.h"
#include "gpamap_util.h"
#include "guest_io.h"
#include "leaks.h"

#define PAGE TEST_PAGE
#define MIB (1ULL << 20)

enum {
	ROOT = 1,
	DEV,				/* io, 256 bytes at A, with everything but a ring tied */
	POSTER,				/* io, 256 bytes behind it, that posts */
	BARE,				/* io, 256 bytes behind that */
	PORTS, PDEV,			/* io, four ports at PORT: the sample's timer */
	HOLE,				/* reserved, a page at R: zeroes */
	MEM, OTHER,			/* ram, a page each, at M and not attached */
	BIG,				/* io, of more than KVM can be made to ask about */
	NEW = 100,			/* free from here on */
};

enum { SPACE = 1, IO_SPACE };

#define A 0x10000000ULL
#define B 0x50000000ULL
#define C 0x60000000ULL
#define R 0x30000000ULL
#define M 0x40000000ULL
#define PORT 0x608
#define RING 1
#define NR_BELLS 3
#define FOREIGN 400
#define HANDLER "test-any"

static const struct gpamap_register regs[] = {
	{ .offset = 8, .len = 4, .kind = GPAMAP_REGISTER_READWRITE, .value = 7 },
	{ .offset = 16, .len = 8, .kind = GPAMAP_REGISTER_CONSTANT, .value = 0x123456789aULL },
};

FIXTURE(ties) {
	struct guest guest;
	void *io;			/* of the guest */
	char *mem;
	int fd;
	int bells[NR_BELLS];
};

static bool have_module(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/module/%s", name);
	return !access(path, F_OK);
}

#define disarm()								\
	do {									\
		ASSERT_EQ(0, module_param_set("fail_nth", 0));			\
		ASSERT_EQ(0, module_param_set("fail_times", 1));		\
		ASSERT_EQ(0, module_param_set("fail_errno", ENOMEM));		\
	} while (0)

FIXTURE_SETUP(ties)
{
	u32 i;

	ASSERT_TRUE(have_module("gpamap_test"))
		TH_LOG("to be run with the modules gpamap_pmtimer and gpamap_test");
	ASSERT_TRUE(have_module("gpamap_pmtimer"));
	disarm();
	ASSERT_EQ(0, guest_create(&self->guest));
	self->io = guest_io_create(&self->guest);
	ASSERT_NE(NULL, self->io);
	self->mem = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->mem);
	for (i = 0; i < NR_BELLS; i++) {
		self->bells[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		ASSERT_LE(0, self->bells[i]);
	}
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, U64_MAX), op_io(DEV, 255),
		       op_io(POSTER, 255), op_io(BARE, 255), op_container(PORTS, 0xffff),
		       op_io(PDEV, 3), op_reserved(HOLE, PAGE - 1),
		       op_ram(MEM, PAGE - 1, self->mem), op_ram(OTHER, PAGE - 1,
								self->mem + PAGE),
		       op_add(DEV, ROOT, A, 0), op_add(POSTER, ROOT, A + 256, 0),
		       op_add(BARE, ROOT, A + 512, 0), op_add(PDEV, PORTS, PORT, 0),
		       op_add(HOLE, ROOT, R, 0), op_add(MEM, ROOT, M, 0),
		       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
		       op_space(IO_SPACE, GPAMAP_SPACE_IO, PORTS));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	ASSERT_EQ(0, ring_add(self->fd, RING, GPAMAP_MAX_RING_ENTRIES, self->bells[2]));
}

FIXTURE_TEARDOWN(ties)
{
	u32 i;

	EXPECT_EQ(0, module_param_get("fail_nth"));
	close(self->fd);
	for (i = 0; i < NR_BELLS; i++)
		close(self->bells[i]);
	guest_destroy(&self->guest);
	munmap(self->io, GUEST_IO_LEN);
	munmap(self->mem, 2 * PAGE);
	EXPECT_NO_MAP_LEFT();
}

#define apply(...) test_cmd_apply(self->fd, __VA_ARGS__)
#define refuse(_errno, _index, ...) test_err_apply(_errno, _index, self->fd, __VA_ARGS__)

/* How often it was signalled since the last time. */
static u64 rung(int bell)
{
	u64 n = 0;

	return read(bell, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static u32 ring_of(FIXTURE_DATA(ties) *self)
{
	return rung(self->bells[0]) + 16 * rung(self->bells[1]);
}

/* All that the fixture's regions can have, in one batch. */
#define TIE_OPS(_self)								\
	op_doorbell(DEV, 0, 4, (_self)->bells[0]),				\
	op_doorbell_match(DEV, 4, 4, 0x77, (_self)->bells[1]),			\
	op_registers(DEV, regs, 2), op_handler(DEV, HANDLER, 5),		\
	op_policy(DEV, GPAMAP_POLICY_TELL), op_post(POSTER, RING),		\
	op_doorbell(POSTER, 0, 4, (_self)->bells[1]),				\
	op_handler(PDEV, "acpi-pm-timer", 1), op_policy(HOLE, GPAMAP_POLICY_ZEROES)
#define UNTIE_OPS								\
	op_untie(DEV, TIE_ALL), op_untie(POSTER, TIE_ALL), op_untie(PDEV, TIE_ALL), \
	op_untie(HOLE, TIE_ALL)

/* -- what is there -------------------------------------------------------------- */

/* All that can be asked about what is tied. */
struct state {
	struct snapshot *snap;
	struct gpamap_counters *counters;
	u32 nr_counters;
	char *io;
	char *bus;
	int handlers;			/* references on the modules */
	int timers;
};

static struct state state_take(int fd)
{
	struct state s = { .snap = snapshot_take(fd) };
	char dir[300];

	s.counters = query_all(fd, GPAMAP_QUERY_COUNTERS, 0, &s.nr_counters);
	if (debugfs_find(0, dir, sizeof(dir)) == 1) {
		s.io = debugfs_read(dir, "io");
		s.bus = debugfs_read(dir, "bus");
	}
	s.handlers = module_refcnt("gpamap_test");
	s.timers = module_refcnt("gpamap_pmtimer");
	return s;
}

static void state_free(struct state *s)
{
	snapshot_free(s->snap);
	free(s->counters);
	free(s->io);
	free(s->bus);
}

static bool state_complete(const struct state *s)
{
	return s->snap && s->counters && s->io && s->bus && s->handlers >= 0 && s->timers >= 0;
}

/* NULL if equal; else what differs. */
static const char *state_diff(const struct state *a, const struct state *b)
{
	static char why[2048];

	if (snapshot_diff(a->snap, b->snap))
		return snapshot_diff(a->snap, b->snap);
	if (a->nr_counters != b->nr_counters ||
	    memcmp(a->counters, b->counters, a->nr_counters * sizeof(*a->counters)))
		return "counters";
	if (strcmp(a->io, b->io)) {
		snprintf(why, sizeof(why), "io: was %.900s; is %.900s", a->io, b->io);
		return why;
	}
	if (strcmp(a->bus, b->bus)) {
		snprintf(why, sizeof(why), "bus: was %.900s; is %.900s", a->bus, b->bus);
		return why;
	}
	if (a->handlers != b->handlers || a->timers != b->timers) {
		snprintf(why, sizeof(why), "references on handlers: were %d, %d, are %d, %d",
			 a->handlers, a->timers, b->handlers, b->timers);
		return why;
	}
	return NULL;
}

/* What a guest finds, access by access, as numbers that can be compared. */
#define NR_PROBES 20
struct found {
	u64 what[NR_PROBES];
	u32 nr;
};

static void note(struct found *f, struct guest_access a, u32 bells, bool value)
{
	f->what[f->nr++] = a.how | (u64)bells << 8 | (value ? a.value << 32 : 0);
}

static struct found find(FIXTURE_DATA(ties) *self)
{
	struct guest *g = &self->guest;
	struct found f = { .nr = 0 };
	u64 base;

	ring_of(self);
	rung(self->bells[2]);
	for (base = A; base <= A + 512; base += 256) {
		note(&f, guest_write(g, base, 4, 1), ring_of(self), false);
		note(&f, guest_write(g, base + 4, 4, 0x77), ring_of(self), false);
		note(&f, guest_write(g, base + 32, 4, 1), ring_of(self) | rung(self->bells[2]),
		     false);
		note(&f, guest_read(g, base + 8, 4), 0, true);
		note(&f, guest_read(g, base + 64, 4), 0, false);
	}
	note(&f, guest_read(g, R, 4), 0, true);
	note(&f, guest_in(g, PORT, 4), 0, false);
	note(&f, guest_read(g, M, 8), 0, true);
	note(&f, guest_read(g, B + 8, 4), 0, true);
	note(&f, guest_write(g, C, 4, 1), ring_of(self), false);
	return f;
}

#define EXPECT_FINDS(_before)							\
	do {									\
		struct found __f = find(self);					\
		u32 __i;							\
		for (__i = 0; __i < __f.nr; __i++)				\
			EXPECT_EQ((_before)->what[__i], __f.what[__i])		\
				TH_LOG("probe %u", __i);			\
	} while (0)

/*
 * A batch fails with @_errno, blames the operation @_index, and nothing at all is different.
 */
#define EXPECT_NOTHING_DONE(_errno, _index, _ops, _nr)				\
	do {									\
		struct found __found = find(self);				\
		struct state __before = state_take(self->fd), __after;		\
		u32 __failed = 0x5eed;						\
		ASSERT_TRUE(state_complete(&__before));				\
		EXPECT_EQ(-(_errno), _test_cmd_apply(self->fd, _ops, _nr, &__failed, NULL)); \
		EXPECT_EQ((u32)(_index), __failed);				\
		__after = state_take(self->fd);					\
		ASSERT_TRUE(state_complete(&__after));				\
		EXPECT_NULL_WHY(state_diff(&__before, &__after));		\
		state_free(&__before);						\
		state_free(&__after);						\
		EXPECT_FINDS(&__found);						\
	} while (0)

/* -- each kind ------------------------------------------------------------------ */

TEST_F(ties, doorbell)
{
	apply(op_doorbell(DEV, 0, 4, self->bells[0]),
	      op_doorbell_match(DEV, 4, 2, 0x77, self->bells[1]),
	      op_doorbell(DEV, 8, 0, self->bells[0]));
	EXPECT_DONE(guest_write(&self->guest, A, 4, 1));
	EXPECT_EQ(1u, ring_of(self));
	EXPECT_LEAVES(guest_write(&self->guest, A, 8, 1));
	EXPECT_DONE(guest_write(&self->guest, A + 4, 2, 0x77));
	EXPECT_EQ(16u, ring_of(self));
	EXPECT_LEAVES(guest_write(&self->guest, A + 4, 2, 0x78));
	EXPECT_DONE(guest_write(&self->guest, A + 8, 1, 0x78));
	EXPECT_EQ(1u, ring_of(self));
	/* What was tied by one way is untied by the other. */
	ASSERT_EQ(0, doorbell_add(self->fd, DEV, 12, 4, self->bells[1]));
	apply(op_flags(op_doorbell(DEV, 12, 4, self->bells[1]), GPAMAP_DOORBELL_REMOVE),
	      op_flags(op_doorbell_match(DEV, 4, 2, 0x77, self->bells[1]),
		       GPAMAP_DOORBELL_MATCH | GPAMAP_DOORBELL_REMOVE));
	EXPECT_LEAVES(guest_write(&self->guest, A + 4, 2, 0x77));
	EXPECT_LEAVES(guest_write(&self->guest, A + 12, 4, 1));
	EXPECT_DONE(guest_write(&self->guest, A, 4, 1));
	EXPECT_EQ(1u, ring_of(self));
	apply(op_untie(DEV, GPAMAP_TIE_DOORBELLS));
	EXPECT_LEAVES(guest_write(&self->guest, A, 4, 1));
	EXPECT_LEAVES(guest_write(&self->guest, A + 8, 1, 1));
	EXPECT_EQ(0u, ring_of(self));
}

TEST_F(ties, registers)
{
	struct {
		struct gpamap_register reg;
		u64 future;
	} wide[2] = { { .reg = regs[0] }, { .reg = regs[1] } };
	struct gpamap_op op = op_registers(BARE, &wide[0].reg, 2);
	u64 *page;

	apply(op_registers(DEV, regs, 2));
	EXPECT_READ(A + 8, 4, 7);
	EXPECT_READ(A + 16, 8, 0x123456789aULL);
	EXPECT_DONE(guest_write(&self->guest, A + 8, 4, 9));
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, DEV * PAGE);
	ASSERT_NE(MAP_FAILED, (void *)page);
	EXPECT_EQ(9u, page[1]);
	/* A larger item, whose rest is zero. */
	op.item_size = sizeof(wide[0]);
	apply(op);
	EXPECT_READ(A + 512 + 8, 4, 7);
	apply(op_registers_remove(DEV));
	EXPECT_LEAVES(guest_read(&self->guest, A + 8, 4));
	EXPECT_EQ(9u, page[1]);
	/* Others in their place, in one batch: a new page. */
	apply(op_registers_remove(BARE), op_registers(BARE, regs + 1, 1));
	EXPECT_LEAVES(guest_read(&self->guest, A + 512 + 8, 4));
	EXPECT_READ(A + 512 + 16, 8, 0x123456789aULL);
	munmap(page, PAGE);
}

TEST_F(ties, handler)
{
	int tests = module_refcnt("gpamap_test"), timers = module_refcnt("gpamap_pmtimer");

	apply(op_handler(DEV, HANDLER, 0), op_handler(PDEV, "acpi-pm-timer", 0));
	EXPECT_EQ(tests + 1, module_refcnt("gpamap_test"));
	EXPECT_EQ(timers + 1, module_refcnt("gpamap_pmtimer"));
	EXPECT_DONE(guest_write(&self->guest, A + 3, 4, 0x11223344));
	EXPECT_READ(A + 3, 4, 0x11223344);
	EXPECT_DONE(guest_in(&self->guest, PORT, 4));
	apply(op_handler_remove(DEV), op_handler(DEV, "test-be", 0),
	      op_untie(PDEV, GPAMAP_TIE_HANDLER));
	EXPECT_READ(A + 3, 4, 0);
	EXPECT_LEAVES(guest_in(&self->guest, PORT, 4));
	EXPECT_EQ(tests + 1, module_refcnt("gpamap_test"));
	apply(op_handler_remove(DEV));
	EXPECT_LEAVES(guest_read(&self->guest, A + 3, 4));
	EXPECT_EQ(tests, module_refcnt("gpamap_test"));
	EXPECT_EQ(timers, module_refcnt("gpamap_pmtimer"));
}

TEST_F(ties, post)
{
	apply(op_post(POSTER, RING), op_post(BARE, RING));
	EXPECT_DONE(guest_write(&self->guest, A + 256, 4, 1));
	EXPECT_DONE(guest_write(&self->guest, A + 512, 4, 1));
	EXPECT_EQ(2u, rung(self->bells[2]));
	apply(op_post_remove(POSTER));
	EXPECT_LEAVES(guest_write(&self->guest, A + 256, 4, 1));
	EXPECT_DONE(guest_write(&self->guest, A + 512, 4, 1));
	/* A handler in place of it: one batch, for they exclude each other. */
	apply(op_untie(BARE, GPAMAP_TIE_RING), op_handler(BARE, HANDLER, 0));
	EXPECT_DONE(guest_write(&self->guest, A + 512, 4, 1));
	EXPECT_READ(A + 512, 4, 1);
	apply(op_handler_remove(BARE), op_post(BARE, RING));
	EXPECT_LEAVES(guest_read(&self->guest, A + 512, 4));
	EXPECT_EQ(1u, rung(self->bells[2]));
}

TEST_F(ties, policy)
{
	apply(op_policy(HOLE, GPAMAP_POLICY_ONES), op_policy(DEV, GPAMAP_POLICY_TELL));
	EXPECT_READ(R, 4, 0xffffffff);
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	apply(op_policy(HOLE, GPAMAP_POLICY_ZEROES));
	EXPECT_READ(R, 4, 0);
	apply(op_policy(HOLE, GPAMAP_POLICY_NONE), op_untie(DEV, GPAMAP_TIE_POLICY));
	EXPECT_LEAVES(guest_read(&self->guest, R, 4));
}

/* Each subset goes, and what is not in it stays. */
TEST_F_TIMEOUT(ties, untie_every_mask, 120)
{
	static const struct {
		u32 bit;
		const char *word;
	} words[] = {
		{ GPAMAP_TIE_DOORBELLS, " doorbells" },
		{ GPAMAP_TIE_REGISTERS, " registers" },
		{ GPAMAP_TIE_HANDLER, " " HANDLER },
		{ GPAMAP_TIE_RING, " ring" },
		{ GPAMAP_TIE_POLICY, " tell" },
	};
	u32 mask, ring, i, had;
	const char *text;
	struct state s;

	for (ring = 0; ring < 2; ring++) {
		had = TIE_ALL & ~(ring ? GPAMAP_TIE_HANDLER : GPAMAP_TIE_RING);
		for (mask = 1; mask <= TIE_ALL && _metadata->passed; mask++) {
			apply(op_doorbell(DEV, 0, 4, self->bells[0]),
			      op_doorbell(DEV, 0, 4, self->bells[1]),
			      op_registers(DEV, regs, 2),
			      ring ? op_post(DEV, RING) : op_handler(DEV, HANDLER, 0),
			      op_policy(DEV, GPAMAP_POLICY_TELL));
			apply(op_untie(DEV, mask));
			s = state_take(self->fd);
			ASSERT_TRUE(state_complete(&s));
			/* Behind the counters; nothing at all if nothing is left. */
			text = strchr(s.io, ':') ?: s.io;
			for (i = 0; i < ARRAY_SIZE(words); i++)
				EXPECT_EQ(!!(had & ~mask & words[i].bit),
					  !!strstr(text, words[i].word))
					TH_LOG("mask 0x%x: %s", mask, s.io);
			state_free(&s);
			/* Be it much or nothing. */
			apply(op_untie(DEV, TIE_ALL), op_untie(DEV, TIE_ALL));
			s = state_take(self->fd);
			EXPECT_STREQ("", s.io);
			EXPECT_EQ(0u, s.nr_counters);
			state_free(&s);
		}
	}
}

/* What an operation undone leaves is not lost to one that was before it (kmemleak looks). */
TEST_F(ties, undone_behind_an_untie)
{
	struct gpamap_apply out;
	u32 i;

	for (i = 0; i < 50; i++)
		test_cmd_plan(self->fd, GPAMAP_APPLY_DRY_RUN, &out,
			      op_untie(DEV, GPAMAP_TIE_POLICY),
			      op_doorbell(DEV, 0, 4, self->bells[0]));
	test_err_apply(ENOENT, 2, self->fd, op_untie(DEV, TIE_ALL),
		       op_doorbell(DEV, 0, 4, self->bells[0]), op_del(99));
	apply(op_untie(DEV, GPAMAP_TIE_POLICY), op_doorbell(DEV, 0, 4, self->bells[0]));
	apply(op_untie(DEV, TIE_ALL));
}

/* What was untied is there until the batch is done: no chain is as long as a batch. */
TEST_F(ties, the_same_again_and_again)
{
	struct gpamap_op ops[4 * GPAMAP_MAX_SAME_DOORBELLS + 1];
	u32 i;

	for (i = 0; i < 2 * GPAMAP_MAX_SAME_DOORBELLS; i++) {
		ops[2 * i] = op_doorbell(DEV, 0, 4, self->bells[0]);
		ops[2 * i + 1] = op_flags(ops[2 * i], GPAMAP_DOORBELL_REMOVE);
	}
	ops[2 * i] = ops[0];
	test_cmd_apply_ops(self->fd, ops, 2 * i);
	test_err_apply_ops(ENOSPC, 2 * i, self->fd, ops, 2 * i + 1);
}

/* As many as there can be are replaced, whatever else there is: only the result counts. */
TEST_F(ties, all_the_same_replaced)
{
	struct gpamap_op ops[2 * GPAMAP_MAX_SAME_DOORBELLS];
	const u32 nr = GPAMAP_MAX_SAME_DOORBELLS;
	int bells[2 * GPAMAP_MAX_SAME_DOORBELLS];
	u32 others, i;
	u64 n;

	for (i = 0; i < 2 * nr; i++) {
		bells[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		ASSERT_LE(0, bells[i]);
	}
	for (others = 0; others <= 40; others += 20) {
		for (i = 0; i < nr; i++)
			ASSERT_EQ(0, doorbell_add(self->fd, DEV, 0, 4, bells[i]));
		for (i = 0; i < others; i++)
			ASSERT_EQ(0, doorbell_add(self->fd, DEV, 8 + 4 * i, 4, bells[0]));
		for (i = 0; i < nr; i++) {
			ops[i] = op_flags(op_doorbell(DEV, 0, 4, bells[i]),
					  GPAMAP_DOORBELL_REMOVE);
			ops[nr + i] = op_doorbell(DEV, 0, 4, bells[nr + i]);
		}
		test_cmd_apply_ops(self->fd, ops, 2 * nr);
		EXPECT_DONE(guest_write(&self->guest, A, 4, 1));
		for (i = 0; i < 2 * nr; i++)
			EXPECT_EQ(i < nr ? -1 : (ssize_t)sizeof(n),
				  read(bells[i], &n, sizeof(n)));
		test_err_apply(ENOSPC, 0, self->fd, op_doorbell(DEV, 0, 4, bells[0]));
		apply(op_untie(DEV, TIE_ALL));
	}
	for (i = 0; i < 2 * nr; i++)
		close(bells[i]);
}

/* What makes no difference holds nobody, and cannot fail for that. */
TEST_F(ties, no_difference_holds_nobody)
{
	struct gpamap_apply out;
	u64 holds;

	holds = query_stats(self->fd).holds;
	test_cmd_plan(self->fd, GPAMAP_APPLY_DRY_RUN, &out, op_untie(DEV, TIE_ALL));
	EXPECT_EQ(0u, out.out_plan);
	apply(op_untie(DEV, TIE_ALL));
	apply(op_policy(DEV, GPAMAP_POLICY_NONE));
	apply(op_policy(DEV, GPAMAP_POLICY_TELL), op_policy(DEV, GPAMAP_POLICY_NONE));
	apply(op_registers(DEV, regs, 2), op_untie(DEV, GPAMAP_TIE_REGISTERS));
	EXPECT_EQ(holds, query_stats(self->fd).holds);
	apply(op_policy(DEV, GPAMAP_POLICY_TELL));
	EXPECT_EQ(holds + 1, query_stats(self->fd).holds);
	apply(op_policy(DEV, GPAMAP_POLICY_TELL));
	EXPECT_EQ(holds + 1, query_stats(self->fd).holds);
	/* And is no less tied: the access is told of, and counted. */
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	apply(op_untie(DEV, TIE_ALL));
	EXPECT_EQ(holds + 2, query_stats(self->fd).holds);
}

static struct {
	int fd;
	bool stop;			/* atomic */
} planner;

static void *plan_all_anew(void *arg)
{
	struct gpamap_op ops[] = {
		op_untie(DEV, TIE_ALL), op_del(DEV), op_destroy(DEV), op_io(DEV, 255),
		op_registers(DEV, regs, 2), op_add(DEV, ROOT, A, 0),
		op_untie(DEV, TIE_ALL), op_del(DEV), op_destroy(DEV), op_io(DEV, 255),
	};
	struct gpamap_apply out;

	(void)arg;
	while (!__atomic_load_n(&planner.stop, __ATOMIC_RELAXED))
		if (_test_cmd_plan(planner.fd, GPAMAP_APPLY_DRY_RUN, ops, ARRAY_SIZE(ops), &out))
			return (void *)1;
	return NULL;
}

/* What is only planned, and undone, is nothing to who maps the registers. */
TEST_F_TIMEOUT(ties, mmap_beside_plans, 60)
{
	u32 i, missing = 0;
	pthread_t thread;
	void *p, *rc;

	apply(op_registers(DEV, regs, 2));
	planner.fd = self->fd;
	planner.stop = false;
	ASSERT_EQ(0, pthread_create(&thread, NULL, plan_all_anew, NULL));
	for (i = 0; i < 5000; i++) {
		p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->fd, DEV * PAGE);
		if (p == MAP_FAILED)
			missing++;
		else
			munmap(p, PAGE);
	}
	__atomic_store_n(&planner.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, &rc);
	EXPECT_EQ(NULL, rc);
	EXPECT_EQ(0u, missing);
	/* Once it is done it is the new page, and without registers none. */
	apply(op_untie(DEV, TIE_ALL), op_del(DEV), op_destroy(DEV), op_io(DEV, 255));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->fd, DEV * PAGE));
	EXPECT_EQ(ENOENT, errno);
}

/* -- regions with their ties ------------------------------------------------------- */

/* One commit makes regions, ties all to them and shows them; another takes it all back. */
TEST_F(ties, made_and_shown_in_one_batch)
{
	struct state before, after;
	struct gpamap_stats stats;

	/* A region that was detached tells where it was. */
	apply(op_add(OTHER, ROOT, B + MIB, 0));
	apply(op_del(OTHER));
	before = state_take(self->fd);
	stats = query_stats(self->fd);
	ASSERT_TRUE(state_complete(&before));
	apply(op_io(NEW, 255), op_doorbell(NEW, 0, 4, self->bells[0]),
	      op_registers(NEW, regs, 2), op_handler(NEW, HANDLER, 0),
	      op_policy(NEW, GPAMAP_POLICY_TELL), op_add(NEW, ROOT, B, 0),
	      op_io(NEW + 1, 255), op_add(NEW + 1, ROOT, C, 0), op_post(NEW + 1, RING),
	      op_reserved(NEW + 2, PAGE - 1), op_policy(NEW + 2, GPAMAP_POLICY_ONES),
	      op_add(NEW + 2, ROOT, C + PAGE, 0), op_add(OTHER, ROOT, B + MIB, 0));
	EXPECT_EQ(stats.commits + 1, query_stats(self->fd).commits);
	EXPECT_EQ(stats.holds + 1, query_stats(self->fd).holds);
	EXPECT_DONE(guest_write(&self->guest, B, 4, 1));
	EXPECT_EQ(1u, ring_of(self));
	EXPECT_READ(B + 8, 4, 7);
	EXPECT_DONE(guest_write(&self->guest, B + 32, 4, 0x55));
	EXPECT_READ(B + 32, 4, 0x55);
	EXPECT_DONE(guest_write(&self->guest, C, 4, 1));
	EXPECT_EQ(1u, rung(self->bells[2]));
	EXPECT_READ(C + PAGE, 8, U64_MAX);
	EXPECT_GUEST_RAM(&self->guest, B + MIB, *(u64 *)(self->mem + PAGE));
	apply(op_untie(NEW, TIE_ALL), op_untie(NEW + 1, TIE_ALL), op_untie(NEW + 2, TIE_ALL),
	      op_del(NEW), op_del(NEW + 1), op_del(NEW + 2), op_destroy(NEW),
	      op_destroy(NEW + 1), op_destroy(NEW + 2), op_del(OTHER));
	EXPECT_EQ(stats.commits + 2, query_stats(self->fd).commits);
	EXPECT_LEAVES(guest_read(&self->guest, B + 8, 4));
	EXPECT_LEAVES(guest_write(&self->guest, C, 4, 1));
	after = state_take(self->fd);
	EXPECT_NULL_WHY(snapshot_diff_views(before.snap, after.snap));
	EXPECT_STREQ(before.io, after.io);
	EXPECT_STREQ(before.bus, after.bus);
	EXPECT_EQ(before.handlers, after.handlers);
	state_free(&before);
	state_free(&after);
}

/* The same id, anew: nothing of the old one is left in it. */
TEST_F(ties, destroyed_and_made_anew)
{
	apply(TIE_OPS(self));
	apply(op_untie(DEV, TIE_ALL), op_del(DEV), op_destroy(DEV), op_io(DEV, 255),
	      op_doorbell(DEV, 32, 4, self->bells[1]), op_add(DEV, ROOT, A, 0));
	EXPECT_LEAVES(guest_write(&self->guest, A, 4, 1));
	EXPECT_LEAVES(guest_read(&self->guest, A + 8, 4));
	EXPECT_DONE(guest_write(&self->guest, A + 32, 4, 1));
	EXPECT_EQ(16u, ring_of(self));
	/* Of another kind, with what is tied to such. */
	apply(op_untie(DEV, TIE_ALL), op_del(DEV), op_destroy(DEV), op_reserved(DEV, 255),
	      op_policy(DEV, GPAMAP_POLICY_ONES), op_add(DEV, ROOT, A, 0));
	EXPECT_READ(A, 4, 0xffffffff);
	EXPECT_LEAVES(guest_write(&self->guest, A + 512, 4, 1));
	EXPECT_EQ(0u, ring_of(self));
}

/* Whatever comes and goes within a batch has not been. */
TEST_F(ties, come_and_gone)
{
	struct state before, after;
	u64 generation;

	apply(op_doorbell(DEV, 0, 4, self->bells[0]));
	before = state_take(self->fd);
	ASSERT_TRUE(state_complete(&before));
	generation = query_info(self->fd).generation;
	apply(op_registers(DEV, regs, 2), op_handler(BARE, HANDLER, 0),
	      op_doorbell(BARE, 0, 4, self->bells[0]), op_post(POSTER, RING),
	      op_policy(HOLE, GPAMAP_POLICY_ONES), op_io(NEW, 255),
	      op_registers(NEW, regs, 2), op_untie(NEW, TIE_ALL), op_destroy(NEW),
	      op_untie(HOLE, TIE_ALL), op_untie(POSTER, TIE_ALL), op_untie(BARE, TIE_ALL),
	      op_registers_remove(DEV));
	after = state_take(self->fd);
	EXPECT_NULL_WHY(state_diff(&before, &after));
	EXPECT_EQ(generation, query_info(self->fd).generation);
	state_free(&before);
	state_free(&after);
}

#define NR_DEVICES 300

/* Reset of a VM: all devices go with their ties and come anew, in one commit. */
TEST_F_TIMEOUT(ties, reset, 120)
{
	static struct gpamap_op ops[8 * NR_DEVICES];
	struct gpamap_stats before, after;
	struct state was, is;
	u32 i, n, round;

	for (round = 0; round < 3; round++) {
		for (i = 0, n = 0; i < NR_DEVICES; i++) {
			u32 id = NEW + i;

			if (round) {
				ops[n++] = op_untie(id, TIE_ALL);
				ops[n++] = op_del(id);
				ops[n++] = op_destroy(id);
			}
			ops[n++] = op_io(id, 255);
			ops[n++] = op_doorbell(id, 0, 4, self->bells[(i + round) % 2]);
			ops[n++] = i % 2 ? op_registers(id, regs, 2) :
				   i % 4 ? op_handler(id, HANDLER, 0) : op_post(id, RING);
			ops[n++] = op_add(id, ROOT, B + i * 256, 0);
		}
		before = query_stats(self->fd);
		was = state_take(self->fd);
		test_cmd_apply_ops(self->fd, ops, n);
		after = query_stats(self->fd);
		is = state_take(self->fd);
		EXPECT_EQ(before.commits + 1, after.commits);
		EXPECT_EQ(before.holds + 1, after.holds);
		if (round)
			EXPECT_NULL_WHY(snapshot_diff_views(was.snap, is.snap));
		EXPECT_EQ((u32)NR_DEVICES, is.nr_counters);
		state_free(&was);
		state_free(&is);
		for (i = 0; i < NR_DEVICES && _metadata->passed; i += 7) {
			u64 at = B + i * 256;

			EXPECT_DONE(guest_write(&self->guest, at, 4, 1));
			EXPECT_EQ((i + round) % 2 ? 16u : 1u, ring_of(self));
			/* What was written before the reset is forgotten. */
			if (i % 4 == 2)
				EXPECT_READ(at + 64, 4, 0);
			EXPECT_EQ(i % 2 ? GUEST_MMIO : GUEST_RAM,
				  guest_write(&self->guest, at + 64, 4, 9).how);
			if (i % 2) {
				EXPECT_READ(at + 8, 4, 7);
				EXPECT_DONE(guest_write(&self->guest, at + 8, 4, 8));
			}
		}
	}
	for (i = 0, n = 0; i < NR_DEVICES; i++) {
		ops[n++] = op_untie(NEW + i, TIE_ALL);
		ops[n++] = op_del(NEW + i);
		ops[n++] = op_destroy(NEW + i);
	}
	test_cmd_apply_ops(self->fd, ops, n);
	is = state_take(self->fd);
	EXPECT_STREQ("", is.io);
	EXPECT_STREQ("", is.bus);
	EXPECT_EQ(0, is.handlers);
	state_free(&is);
}

/* A map without a VM: the ties wait for one, and stay when it goes. */
TEST_F(ties, of_a_detached_map)
{
	test_cmd_detach(self->fd);
	apply(TIE_OPS(self), op_io(NEW, 255), op_registers(NEW, regs, 2),
	      op_add(NEW, ROOT, B, 0));
	EXPECT_LEAVES(guest_read(&self->guest, A + 8, 4));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_READ(A + 8, 4, 7);
	EXPECT_READ(B + 8, 4, 7);
	EXPECT_READ(R, 4, 0);
	test_cmd_detach(self->fd);
	apply(UNTIE_OPS);
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_LEAVES(guest_read(&self->guest, A + 8, 4));
	EXPECT_READ(B + 8, 4, 7);
}

/* -- batches that fail --------------------------------------------------------------- */

/* What a batch that is to fail has done by then. */
struct begin {
	const char *name;
	struct gpamap_op ops[16];
};

#define MAX_BEGIN 16

static u32 nr_ops(const struct gpamap_op *ops)
{
	u32 n = 0;

	while (n < MAX_BEGIN && ops[n].code)
		n++;
	return n;
}

/* Where nothing is tied all kinds come; where all is, they go and are replaced. */
static u32 begins(FIXTURE_DATA(ties) *self, bool tied, struct begin *b)
{
	u32 n = 0;

	if (!tied) {
		b[n++] = (struct begin){ "all kinds come", { TIE_OPS(self) } };
		b[n++] = (struct begin){ "to new regions", {
			op_io(NEW, 255), op_registers(NEW, regs, 2),
			op_doorbell(NEW, 0, 4, self->bells[0]), op_handler(NEW, HANDLER, 0),
			op_add(NEW, ROOT, B, 0), op_io(NEW + 1, 255), op_post(NEW + 1, RING),
			op_add(NEW + 1, ROOT, C, 0), op_reserved(NEW + 2, PAGE - 1),
			op_policy(NEW + 2, GPAMAP_POLICY_ONES),
			op_add(NEW + 2, ROOT, C + PAGE, 0) } };
		return n;
	}
	b[n++] = (struct begin){ "all go", { UNTIE_OPS } };
	b[n++] = (struct begin){ "all go and their regions", {
		UNTIE_OPS, op_del(DEV), op_destroy(DEV), op_del(POSTER), op_destroy(POSTER),
		op_del(PDEV), op_destroy(PDEV), op_del(HOLE), op_destroy(HOLE) } };
	b[n++] = (struct begin){ "one by one", {
		op_flags(op_doorbell(DEV, 0, 4, self->bells[0]), GPAMAP_DOORBELL_REMOVE),
		op_registers_remove(DEV), op_handler_remove(DEV), op_post_remove(POSTER),
		op_policy(HOLE, GPAMAP_POLICY_NONE) } };
	b[n++] = (struct begin){ "replaced by others", {
		op_registers_remove(DEV), op_registers(DEV, regs + 1, 1),
		op_handler_remove(DEV), op_handler(DEV, "test-be", 3),
		op_doorbell(DEV, 64, 0, self->bells[1]), op_post_remove(POSTER),
		op_handler(POSTER, HANDLER, 0), op_policy(HOLE, GPAMAP_POLICY_ONES) } };
	b[n++] = (struct begin){ "made anew", {
		op_untie(DEV, TIE_ALL), op_del(DEV), op_destroy(DEV), op_io(DEV, 255),
		op_registers(DEV, regs, 2), op_handler(DEV, HANDLER, 0),
		op_add(DEV, ROOT, A, 0) } };
	b[n++] = (struct begin){ "moved", {
		op_at(DEV, B), op_at(HOLE, C), op_enable(PDEV, false), op_at(POSTER, A) } };
	return n;
}

/* Each beginning, and @_op behind it that is refused. */
#define FAIL_AFTER_ALL(_tied, _errno, _blamed, ...)				\
	do {									\
		const struct gpamap_op __end[] = { __VA_ARGS__ };		\
		struct begin __b[8];						\
		u32 __nr = begins(self, _tied, __b), __i, __n;			\
		for (__i = 0; __i < __nr && _metadata->passed; __i++) {		\
			struct gpamap_op __ops[MAX_BEGIN + ARRAY_SIZE(__end)];	\
			__n = nr_ops(__b[__i].ops);				\
			memcpy(__ops, __b[__i].ops, __n * sizeof(__ops[0]));	\
			memcpy(__ops + __n, __end, sizeof(__end));		\
			EXPECT_NOTHING_DONE(_errno, (_blamed) ? __n + (_blamed) - 1 : \
					    GPAMAP_NO_OP, __ops,		\
					    __n + ARRAY_SIZE(__end));		\
			if (!_metadata->passed)					\
				TH_LOG("%s", __b[__i].name);			\
		}								\
	} while (0)

static void tie_all(struct __test_metadata *_metadata, FIXTURE_DATA(ties) *self)
{
	apply(TIE_OPS(self));
}

/* The last operation is a bad one. */
TEST_F_TIMEOUT(ties, bad_operation_at_the_end, 120)
{
	u32 tied;

	for (tied = 0; tied < 2 && _metadata->passed; tied++) {
		if (tied)
			tie_all(_metadata, self);
		FAIL_AFTER_ALL(tied, ENOENT, 1, op_del(77));
		FAIL_AFTER_ALL(tied, ENOENT, 1, op_registers(77, regs, 2));
		FAIL_AFTER_ALL(tied, ENOENT, 1, op_handler(BARE, "nobody's", 0));
		/* One that the handler itself refuses. */
		FAIL_AFTER_ALL(tied, ENXIO, 1, op_handler(BARE, HANDLER, 0xbad));
		FAIL_AFTER_ALL(tied, EBADF, 1, op_doorbell(BARE, 0, 4, -1));
	}
}

/* KVM refuses each call in turn. */
TEST_F_TIMEOUT(ties, refused_by_kvm, 120)
{
	u32 tied, n;

	for (tied = 0; tied < 2 && _metadata->passed; tied++) {
		if (tied)
			tie_all(_metadata, self);
		for (n = 0; n < 8 && _metadata->passed; n++) {
			struct begin b[8];
			struct gpamap_op ops[MAX_BEGIN + 2];
			u32 nr = begins(self, tied, b), k;

			if (n >= nr)
				break;
			k = nr_ops(b[n].ops);
			memcpy(ops, b[n].ops, k * sizeof(ops[0]));
			ops[k] = op_enable(MEM, false);
			ops[k + 1] = op_add(OTHER, ROOT, M + MIB, 0);
			ASSERT_EQ(0, module_param_set("fail_nth", 1));
			EXPECT_NOTHING_DONE(ENOMEM, GPAMAP_NO_OP, ops, k + 2);
			ASSERT_EQ(0, module_param_set("fail_nth", 2));
			EXPECT_NOTHING_DONE(ENOMEM, GPAMAP_NO_OP, ops, k + 2);
			EXPECT_EQ(0, module_param_get("fail_nth"));
			if (!_metadata->passed)
				TH_LOG("%s", b[n].name);
		}
	}
	disarm();
}

/* A slot of the VMM's is in the way of the batch's memory. */
TEST_F_TIMEOUT(ties, foreign_slot_in_the_way, 120)
{
	u32 tied;

	ASSERT_EQ(0, guest_set_slot(&self->guest, FOREIGN, 0, M + MIB, 1, self->mem));
	for (tied = 0; tied < 2 && _metadata->passed; tied++) {
		if (tied)
			tie_all(_metadata, self);
		FAIL_AFTER_ALL(tied, EEXIST, 1, op_add(OTHER, ROOT, M + MIB, 0));
		FAIL_AFTER_ALL(tied, EEXIST, 1, op_at(MEM, M + MIB));
	}
}

/* KVM would have to be asked about too much. */
TEST_F_TIMEOUT(ties, bus_is_too_long, 60)
{
	u32 tied;

	apply(op_io(BIG, 2 * GPAMAP_MAX_BUS_LEN), op_add(BIG, ROOT, 0, -100));
	for (tied = 0; tied < 2 && _metadata->passed; tied++) {
		struct gpamap_op ops[] = {
			op_registers(BARE, regs, 2), op_at(BARE, B), op_enable(MEM, false),
			op_policy(BIG, GPAMAP_POLICY_TELL),
		};
		u32 failed;

		if (tied)
			tie_all(_metadata, self);
		EXPECT_ERR_UNCHANGED(ENOSPC, self->fd,
				     _test_cmd_apply(self->fd, ops, 4, &failed, NULL));
		EXPECT_LEAVES(guest_read(&self->guest, A + 512 + 8, 4));
	}
}

/*
 * The number by which /proc names an eventfd is free again when the last reference is gone, and
 * the lowest free one is taken.
 */
static int eventfd_id(int fd)
{
	char path[64], line[128];
	FILE *file;
	int id = -1;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "eventfd-id: %d", &id);
	if (file)
		fclose(file);
	return id;
}

/*
 * The eventfd with that number, if it is free; else -1. Lower ones may be free as well, for what
 * a map that was closed had is let go a moment later: they are taken first, and given back.
 */
static int eventfd_with(int id)
{
	int fds[64], nr = 0, found = -1;

	while (found < 0 && nr < (int)ARRAY_SIZE(fds)) {
		int fd = eventfd(0, EFD_CLOEXEC), now = eventfd_id(fd);

		if (now == id)
			found = fd;
		else
			fds[nr++] = fd;
		if (now > id)
			break;
	}
	while (nr)
		close(fds[--nr]);
	return found;
}

static int eventfd_freed(int id)
{
	u64 end = now_ms() + 5000 * test_patience();
	int fd;

	for (;;) {
		fd = eventfd_with(id);
		if (fd >= 0 || now_ms() > end)
			return fd;
		usleep(1000);
	}
}

/* No batch that failed, and none that unties, keeps an eventfd. */
TEST_F_TIMEOUT(ties, eventfds_are_let_go, 60)
{
	int bell = eventfd(0, EFD_CLOEXEC), id = eventfd_id(bell);

	if (id < 0)
		SKIP(return, "this kernel does not name eventfds");
	refuse(ENOENT, 2, op_doorbell(DEV, 0, 4, bell), op_doorbell(BARE, 0, 4, bell),
	       op_del(77));
	close(bell);
	bell = eventfd_freed(id);
	ASSERT_LE(0, bell);
	apply(op_doorbell(DEV, 0, 4, bell), op_doorbell(BARE, 0, 4, bell));
	close(bell);
	EXPECT_EQ(-1, eventfd_with(id));
	refuse(ENOENT, 1, op_untie(DEV, TIE_ALL), op_del(77));
	EXPECT_EQ(-1, eventfd_with(id));
	apply(op_untie(DEV, GPAMAP_TIE_DOORBELLS), op_untie(BARE, TIE_ALL));
	bell = eventfd_freed(id);
	EXPECT_LE(0, bell);
	close(bell);
}

/* -- what is refused ------------------------------------------------------------------ */

TEST_F(ties, destroyed_while_tied)
{
	apply(TIE_OPS(self), op_del(DEV), op_del(POSTER), op_del(PDEV), op_del(HOLE));
	refuse(EBUSY, 0, op_destroy(DEV));
	refuse(EBUSY, 0, op_destroy(POSTER));
	refuse(EBUSY, 0, op_destroy(PDEV));
	refuse(EBUSY, 0, op_destroy(HOLE));
	/* Each kind by itself holds it. */
	refuse(EBUSY, 1, op_untie(DEV, TIE_ALL & ~GPAMAP_TIE_DOORBELLS), op_destroy(DEV));
	refuse(EBUSY, 1, op_untie(DEV, TIE_ALL & ~GPAMAP_TIE_REGISTERS), op_destroy(DEV));
	refuse(EBUSY, 1, op_untie(DEV, TIE_ALL & ~GPAMAP_TIE_HANDLER), op_destroy(DEV));
	refuse(EBUSY, 1, op_untie(DEV, TIE_ALL & ~GPAMAP_TIE_POLICY), op_destroy(DEV));
	refuse(EBUSY, 2, op_untie(POSTER, GPAMAP_TIE_DOORBELLS), op_policy(POSTER, 0),
	       op_destroy(POSTER));
	/* So does what was tied by the same batch. */
	refuse(EBUSY, 2, op_io(NEW, 255), op_registers(NEW, regs, 2), op_destroy(NEW));
	apply(op_untie(DEV, TIE_ALL), op_destroy(DEV), op_untie(POSTER, TIE_ALL),
	      op_destroy(POSTER), op_untie(PDEV, TIE_ALL), op_destroy(PDEV),
	      op_policy(HOLE, GPAMAP_POLICY_NONE), op_destroy(HOLE));
}

TEST_F(ties, twice_in_one_batch)
{
	struct gpamap_op remove = op_flags(op_doorbell(DEV, 0, 4, self->bells[0]),
					   GPAMAP_DOORBELL_REMOVE);

	refuse(EEXIST, 1, op_registers(DEV, regs, 2), op_registers(DEV, regs, 2));
	refuse(EEXIST, 1, op_handler(DEV, HANDLER, 0), op_handler(DEV, "test-be", 0));
	refuse(EEXIST, 1, op_post(DEV, RING), op_post(DEV, RING));
	refuse(EEXIST, 1, op_doorbell(DEV, 0, 4, self->bells[0]),
	       op_doorbell(DEV, 0, 4, self->bells[0]));
	refuse(EBUSY, 1, op_post(DEV, RING), op_handler(DEV, HANDLER, 0));
	refuse(EBUSY, 1, op_handler(DEV, HANDLER, 0), op_post(DEV, RING));
	/* And what goes twice, or before it comes. */
	refuse(ENOENT, 0, op_registers_remove(DEV));
	refuse(ENOENT, 0, op_handler_remove(DEV));
	refuse(ENOENT, 0, op_post_remove(DEV));
	refuse(ENOENT, 0, remove);
	apply(op_doorbell(DEV, 0, 4, self->bells[0]), op_registers(DEV, regs, 2));
	refuse(ENOENT, 1, remove, remove);
	refuse(ENOENT, 1, op_registers_remove(DEV), op_registers_remove(DEV));
	refuse(ENOENT, 1, op_untie(DEV, GPAMAP_TIE_REGISTERS), op_registers_remove(DEV));
	/* A policy takes the place of another as often as one likes. */
	apply(op_policy(HOLE, GPAMAP_POLICY_ONES), op_policy(HOLE, GPAMAP_POLICY_ZEROES),
	      op_policy(HOLE, GPAMAP_POLICY_ZEROES));
	EXPECT_READ(R, 4, 0);
	/* Not yet made, and not any more. */
	refuse(ENOENT, 0, op_registers(NEW, regs, 2), op_io(NEW, 255));
	refuse(ENOENT, 2, op_io(NEW, 255), op_destroy(NEW), op_registers(NEW, regs, 2));
}

/* A batch of one, changed in one member. */
#define EXPECT_BAD(_errno, _op, _member, _value)				\
	do {									\
		struct gpamap_op __op = _op;					\
		__op._member = _value;						\
		refuse(_errno, 0, __op);					\
	} while (0)

TEST_F(ties, bad_doorbells)
{
	const struct gpamap_op op = op_doorbell(DEV, 0, 4, self->bells[0]);
	const struct gpamap_op match = op_doorbell_match(DEV, 0, 4, 1, self->bells[0]);
	u32 bit;

	for (bit = 3; bit < 32; bit++)
		EXPECT_BAD(EOPNOTSUPP, op, flags, 1u << bit);
	EXPECT_BAD(EINVAL, op, flags, GPAMAP_DOORBELL_FAST);
	EXPECT_BAD(ENOENT, op, id, 77);
	EXPECT_BAD(EOPNOTSUPP, op, id, MEM);
	EXPECT_BAD(EOPNOTSUPP, op, id, ROOT);
	EXPECT_BAD(EINVAL, op, len, 3);
	EXPECT_BAD(EINVAL, op, len, 16);
	EXPECT_BAD(EINVAL, op, value, 1);
	EXPECT_BAD(EINVAL, op, offset, 253);
	EXPECT_BAD(EINVAL, op, offset, 256);
	EXPECT_BAD(EINVAL, op, offset, U64_MAX);
	EXPECT_BAD(EBADF, op, fd, -1);
	EXPECT_BAD(EBADF, op, fd, 999);
	EXPECT_BAD(EINVAL, op, fd, self->fd);
	EXPECT_BAD(EINVAL, match, value, 1ULL << 32);
	EXPECT_BAD(EINVAL, match, len, 0);
	apply(op_policy(DEV, GPAMAP_POLICY_TELL));
	EXPECT_BAD(ENOENT, op, flags, GPAMAP_DOORBELL_REMOVE);
}

TEST_F(ties, bad_registers)
{
	const struct gpamap_op op = op_registers(DEV, regs, 2);
	const struct gpamap_op remove = op_registers_remove(DEV);
	struct {
		struct gpamap_register reg;
		u64 future;
	} wide[2] = { { .reg = regs[0] }, { .reg = regs[1], .future = 1 } };
	struct gpamap_register bad[2];
	u32 bit;

	for (bit = 1; bit < 32; bit++)
		EXPECT_BAD(EOPNOTSUPP, op, flags, 1u << bit);
	EXPECT_BAD(ENOENT, op, id, 77);
	EXPECT_BAD(EOPNOTSUPP, op, id, MEM);
	EXPECT_BAD(EOPNOTSUPP, op, id, HOLE);
	EXPECT_BAD(EFAULT, op, items, 0);
	EXPECT_BAD(EFAULT, op, items, 0xffff888000000000);
	EXPECT_BAD(EINVAL, op, nr, 0);
	EXPECT_BAD(EINVAL, op, item_size, sizeof(regs[0]) - 1);
	EXPECT_BAD(E2BIG, op, item_size, PAGE + 1);
	refuse(E2BIG, 0, ({
		struct gpamap_op __wide = op_registers(DEV, &wide[0].reg, 2);

		__wide.item_size = sizeof(wide[0]);
		__wide;
	}));
	/* As with the command: what lies in each other's way, and beyond the end. */
	memcpy(bad, regs, sizeof(bad));
	bad[1].offset = 8;
	refuse(EINVAL, 0, op_registers(DEV, bad, 2));
	bad[1].offset = 256;
	refuse(EINVAL, 0, op_registers(DEV, bad, 2));
	bad[1] = regs[1];
	bad[1].kind = 99;
	refuse(EOPNOTSUPP, 0, op_registers(DEV, bad, 2));
	/* Removal names a region, and nothing else. */
	apply(op);
	EXPECT_BAD(EINVAL, remove, nr, 1);
	EXPECT_BAD(EINVAL, remove, items, (uintptr_t)regs);
	EXPECT_BAD(EINVAL, remove, item_size, sizeof(regs[0]));
	EXPECT_READ(A + 8, 4, 7);
}

TEST_F(ties, bad_handlers)
{
	const struct gpamap_op op = op_handler(DEV, HANDLER, 0);
	const struct gpamap_op remove = op_handler_remove(DEV);
	struct gpamap_op full = op;
	u32 bit;

	for (bit = 1; bit < 32; bit++)
		EXPECT_BAD(EOPNOTSUPP, op, flags, 1u << bit);
	EXPECT_BAD(ENOENT, op, id, 77);
	EXPECT_BAD(EOPNOTSUPP, op, id, MEM);
	EXPECT_BAD(EOPNOTSUPP, op, id, HOLE);
	EXPECT_BAD(EINVAL, op, name[0], 0);
	EXPECT_BAD(EINVAL, op, name[20], 'x');
	EXPECT_BAD(ENOENT, op, name[0], 'x');
	EXPECT_BAD(ENXIO, op, value, 0xbad);
	memset(full.name, 'x', sizeof(full.name));
	refuse(EINVAL, 0, full);
	refuse(EINVAL, 0, op_handler(PDEV, "acpi-pm-timer", 2));
	apply(op);
	EXPECT_BAD(EINVAL, remove, value, 1);
	EXPECT_BAD(EINVAL, remove, name[0], 'x');
	EXPECT_BAD(EINVAL, op, flags, GPAMAP_HANDLER_REMOVE);
}

TEST_F(ties, bad_posts_and_policies)
{
	const struct gpamap_op post = op_post(DEV, RING);
	const struct gpamap_op policy = op_policy(HOLE, GPAMAP_POLICY_ONES);
	const struct gpamap_op untie = op_untie(DEV, TIE_ALL);
	u32 bit;

	for (bit = 1; bit < 32; bit++)
		EXPECT_BAD(EOPNOTSUPP, post, flags, 1u << bit);
	EXPECT_BAD(ENOENT, post, id, 77);
	EXPECT_BAD(ENOENT, post, ref, 2);
	EXPECT_BAD(EOPNOTSUPP, post, id, MEM);
	apply(post);
	EXPECT_BAD(EINVAL, post, flags, GPAMAP_POST_REMOVE);
	EXPECT_BAD(ENOENT, policy, id, 77);
	EXPECT_BAD(EOPNOTSUPP, policy, kind, 4);
	EXPECT_BAD(EOPNOTSUPP, policy, kind, UINT32_MAX);
	EXPECT_BAD(EOPNOTSUPP, policy, id, MEM);
	EXPECT_BAD(EOPNOTSUPP, op_policy(HOLE, GPAMAP_POLICY_TELL), id, ROOT);
	EXPECT_BAD(ENOENT, untie, id, 77);
	EXPECT_BAD(EINVAL, untie, mask, 0);
	for (bit = 5; bit < 32; bit++) {
		EXPECT_BAD(EOPNOTSUPP, untie, mask, 1u << bit);
		EXPECT_BAD(EOPNOTSUPP, untie, mask, 1u << bit | 1);
	}
}

/* Members of struct gpamap_op: where they are, and a bit for each. */
#define MEMBERS(_x)								\
	_x(mask) _x(flags) _x(kind) _x(ref) _x(prio) _x(as_id) _x(at) _x(last) _x(offset) \
	_x(hva) _x(name) _x(value) _x(items) _x(nr) _x(item_size) _x(len) _x(fd)
#define NAME_BIT(_m) M_##_m,
enum { MEMBERS(NAME_BIT) NR_MEMBERS };
#define USES(_m) (1u << M_##_m)
static const struct {
	const char *name;
	size_t offset, len;
} members[] = {
#define DESCRIBE(_m)								\
	{ #_m, offsetof(struct gpamap_op, _m), sizeof(((struct gpamap_op *)0)->_m) },
	MEMBERS(DESCRIBE)
};

TEST_F_TIMEOUT(ties, unused_members, 60)
{
	const struct {
		const char *name;
		u32 used;
		struct gpamap_op op;
	} ops[] = {
		{ "doorbell", USES(flags) | USES(offset) | USES(len) | USES(fd) | USES(value),
		  op_doorbell(DEV, 0, 4, self->bells[0]) },
		{ "registers", USES(flags) | USES(items) | USES(nr) | USES(item_size),
		  op_registers(DEV, regs, 2) },
		{ "handler", USES(flags) | USES(value) | USES(name), op_handler(DEV, HANDLER, 0) },
		{ "post", USES(flags) | USES(ref), op_post(DEV, RING) },
		{ "policy", USES(kind), op_policy(HOLE, GPAMAP_POLICY_ONES) },
		{ "untie", USES(mask), op_untie(DEV, TIE_ALL) },
		/* The older ones, of the members that came with these. */
		{ "region", 0xffff & ~(USES(value) | USES(items) | USES(nr) | USES(item_size) |
				       USES(len)), op_io(NEW, 255) },
		{ "del", 0, op_del(DEV) },
		{ "set", USES(mask) | USES(flags), op_enable(DEV, false) },
	};
	u32 i, j, end;

	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		for (j = 0; j < NR_MEMBERS; j++) {
			if (ops[i].used & 1u << j)
				continue;
			for (end = 0; end < 2; end++) {
				struct gpamap_op op = ops[i].op;
				u32 failed;

				((char *)&op)[members[j].offset +
					      (end ? members[j].len - 1 : 0)] = 0x40;
				EXPECT_ERR_UNCHANGED(EINVAL, self->fd,
						     _test_cmd_apply(self->fd, &op, 1, &failed,
								     NULL));
				EXPECT_EQ(0u, failed);
				if (!_metadata->passed) {
					TH_LOG("%s, %s", ops[i].name, members[j].name);
					return;
				}
			}
		}
		/* Without it, it works; in a batch that is taken back. */
		refuse(EINVAL, 1, ops[i].op, op_io(0, 0));
	}
}

/* -- dry runs ------------------------------------------------------------------------- */

TEST_F(ties, dry_run_changes_nothing)
{
	struct state before, after;
	struct gpamap_apply out;
	struct found found;
	u32 tied;

	for (tied = 0; tied < 2; tied++) {
		if (tied)
			tie_all(_metadata, self);
		found = find(self);
		before = state_take(self->fd);
		ASSERT_TRUE(state_complete(&before));
		if (tied)
			test_cmd_plan(self->fd, GPAMAP_APPLY_DRY_RUN, &out, UNTIE_OPS,
				      op_del(DEV), op_destroy(DEV), op_io(DEV, 255),
				      op_handler(DEV, HANDLER, 0), op_add(DEV, ROOT, B, 0));
		else
			test_cmd_plan(self->fd, GPAMAP_APPLY_DRY_RUN, &out, TIE_OPS(self));
		EXPECT_EQ((u32)GPAMAP_PLAN_HOLD, out.out_plan);
		EXPECT_EQ(0u, out.out_creates + out.out_deletes + out.out_moves);
		after = state_take(self->fd);
		EXPECT_NULL_WHY(state_diff(&before, &after));
		state_free(&before);
		state_free(&after);
		EXPECT_FINDS(&found);
	}
	/* Errors are those of a commit. */
	EXPECT_EQ(-EEXIST, _test_cmd_plan(self->fd, GPAMAP_APPLY_DRY_RUN,
					  (struct gpamap_op[]){ op_registers(DEV, regs, 2) }, 1,
					  &out));
	EXPECT_EQ(0u, out.out_failed_op);
}

/* What the kernel says that it can. */
TEST_F(ties, feature)
{
	EXPECT_NE(0u, query_info(self->fd).features & GPAMAP_FEATURE_TIES);
}

TEST_HARNESS_MAIN
