// SPDX-License-Identifier: GPL-2.0
/*
 * What a guest's access does.
 *
 * What is tied to a region (registers.c, doorbell.c, ring.c, handler.c, policy.c, asked in this
 * order) hangs on the region itself, in struct gpamap_io, by offset. It has no address: where
 * the region is seen is what the view says.
 * So an access is answered in two steps, which are searches: which region, at which offset,
 * does the published view show here; and what is at that offset. When the region moves,
 * nothing of this changes; the commit that moves it publishes another view.
 *
 * KVM asks because the stretches of addresses where such regions are seen are on its
 * buses (stretches.c). These matter for speed and for who is asked, never for the answer.
 *
 * Accesses come from vCPUs inside KVM_RUN, with vcpu->mutex and SRCU of KVM's, and take no lock
 * but that of a ring. All that decides about the answer, the snapshot as well as what is tied
 * to regions, changes only while all vCPUs are held, none of which is here then: so for one
 * access, and for all those of one instruction, it is the same. The snapshot is read under RCU
 * all the same: it is also replaced when the answers are the same, with nobody held. What may
 * sleep (handlers, memory of the VMM) is done after that.
 *
 * Memory in a page that is only in part memory has no slot. It is served here, so that the
 * guest finds it all the same.
 *
 * Rules of MEMORY_MODEL kept here: 37 (the bytes without a slot), 43, 44, 45, 46.
 */
#include <linux/uaccess.h>
#include "dispatch.h"
#include "trace.h"

/* ---- an access -------------------------------------------------------- */

/* A stretch of memory that an access falls on, where there is no memslot. */
struct piece {
	u64 hva;
	u32 len;
};

/* What is left to do outside of RCU for an access that was not answered yet. */
struct rest {
	struct gpamap_io *io;		/* NULL: nothing is tied to the region */
	struct gpamap_handler_use *handler;
	bool leaves;			/* whatever else could answer */
	struct gpamap_exit exit;	/* what to tell should it leave */
	u32 nr_pieces;
	struct piece pieces[8];
};

/*
 * Rule 37: the bytes of memory in a page that is only in part memory. Rule 46: an access to
 * memory is cut at the borders; if it meets anything but memory, or what it cannot write,
 * all of it leaves. @range is what is at the address. Returns the number of pieces, 0 for
 * none.
 */
static u32 find_memory(const struct gpamap_access *a, const struct gpamap_flatview *view,
		       const struct gpamap_range *range, struct piece *pieces)
{
	u64 addr = a->addr;
	u32 len = a->len, nr = 0;

	for (;; range = gpamap_flatview_find(view, addr)) {
		if (!range || !gpamap_range_is_memory(range) ||
		    (a->write && gpamap_range_is_readonly(range)))
			return 0;
		pieces[nr].hva = range->region->hva + range->offset + (addr - range->start);
		pieces[nr].len = min_t(u64, len, range->last - addr + 1);
		addr += pieces[nr].len;
		len -= pieces[nr++].len;
		if (!len)
			return nr;
	}
}

/* Under RCU: takes along what the views and regions have to say. */
static void take_rest(const struct gpamap_access *a, struct gpamap_io *io,
		      const struct gpamap_snapshot *snapshot, const struct gpamap_range *range,
		      struct rest *rest)
{
	u64 offset = range->offset + (a->addr - range->start);

	rest->io = io;
	rest->handler = io ? io->now.handler : NULL;
	if (a->write && gpamap_range_is_readonly(range))
		rest->handler = NULL;
	rest->nr_pieces = 0;
	if (!rest->handler && a->view != GPAMAP_VIEW_PORTS)
		rest->nr_pieces = find_memory(a, snapshot->bus[a->view], range, rest->pieces);
	rest->exit = (struct gpamap_exit){
		.addr = a->addr,
		.offset = offset,
		.last = range->last,
		.generation = snapshot->generation,
		.space = snapshot->bus_space[a->view],
		.region = range->region->id,
		.kind = range->region->kind,
		.region_flags = gpamap_range_flags(range, PAGE_SHIFT),
		.hva = range->region->hva ? range->region->hva + offset : 0,
	};
}

/* One access of 1, 2, 4 or 8 bytes. */
static bool access_memory(u64 hva, u32 len, bool write, void *val)
{
	void __user *at = u64_to_user_ptr(hva);
	int rc = -EFAULT;

#define ACCESS(_type)								\
	do {									\
		_type __value;							\
		if (write) {							\
			memcpy(&__value, val, sizeof(__value));			\
			rc = put_user(__value, (_type __user *)at);		\
		} else {							\
			rc = get_user(__value, (_type __user *)at);		\
			memcpy(val, &__value, sizeof(__value));			\
		}								\
	} while (0)
	switch (len) {
	case 1:
		ACCESS(u8);
		break;
	case 2:
		ACCESS(u16);
		break;
	case 4:
		ACCESS(u32);
		break;
	case 8:
		ACCESS(u64);
		break;
	}
#undef ACCESS
	return !rc;
}

/*
 * The memory may be a device's, that is mapped, so what the guest does in one access is one
 * here, if it is aligned; what is not, or goes over a border, is cut into such.
 */
static bool copy_pieces(const struct gpamap_access *a, const struct rest *rest)
{
	void *val = a->val;
	u32 i, n;

	for (i = 0; i < rest->nr_pieces; i++) {
		u64 hva = rest->pieces[i].hva;
		u32 len = rest->pieces[i].len;

		for (; len; hva += n, val += n, len -= n) {
			n = rounddown_pow_of_two(len);
			if (hva & (n - 1))
				n = 1U << __ffs(hva);
			if (!access_memory(hva, n, a->write, val))
				return false;
		}
	}
	return true;
}

/*
 * What may sleep: KVM_RUN is in the process that owns the memory, and KVM holds nothing
 * that a fault needs.
 */
static enum gpamap_answer answer_rest(const struct gpamap_access *a, const struct rest *rest)
{
	if (rest->leaves)
		return GPAMAP_ANSWER_EXIT;
	if (rest->handler && gpamap_handler_access(rest->handler, rest->exit.offset, a->len,
						   a->write, a->val))
		return GPAMAP_ANSWER_HANDLER;
	if (rest->nr_pieces && copy_pieces(a, rest))
		return GPAMAP_ANSWER_MEMORY;
	if (rest->io && gpamap_policy_access(rest->io, a->len, a->write, a->val))
		return GPAMAP_ANSWER_POLICY;
	return GPAMAP_ANSWER_EXIT;
}

static bool do_rest(struct gpamap_dispatch *dispatch, const struct gpamap_access *a,
		    const struct rest *rest)
{
	enum gpamap_answer answer = answer_rest(a, rest);

	if (trace_gpamap_access_enabled())
		trace_gpamap_access(dispatch->number, gpamap_access_vcpu_id(a),
				    rest->exit.space, rest->exit.region, a->addr, a->len,
				    a->write, answer);
	if (answer != GPAMAP_ANSWER_EXIT)
		return true;
	if (rest->io)
		gpamap_io_count(rest->io, GPAMAP_COUNT_EXITS);
	gpamap_exit_tell(dispatch, gpamap_access_vcpu_id(a), &rest->exit);
	return false;
}

/* A part of a write over the border of a page: a number in the host's order as all others. */
static noinline u64 load_part(const void *val, u32 len)
{
	u64 part = 0;

	memcpy((void *)&part + (IS_ENABLED(CONFIG_CPU_BIG_ENDIAN) ? sizeof(part) - len : 0), val,
	       len);
	return part;
}

/* Not aligned. */
static u64 load_value(const void *val, u32 len)
{
	u16 v16;
	u32 v32;
	u64 v64;

	switch (len) {
	case 1:
		return *(const u8 *)val;
	case 2:
		memcpy(&v16, val, sizeof(v16));
		return v16;
	case 4:
		memcpy(&v32, val, sizeof(v32));
		return v32;
	case 8:
		memcpy(&v64, val, sizeof(v64));
		return v64;
	}
	return load_part(val, len);
}

/*
 * Rule 45: whether registers, and a policy, have to wait for what was posted to the ring of the
 * group. Of a string that is read from a port KVM forgets the rest when an element is not
 * answered after the first was, and more may be posted in between: of such ports nothing is
 * read here.
 */
static bool is_posting(const struct gpamap_access *a, const struct gpamap_io *io)
{
	return io->now.ring &&
	       (a->view == GPAMAP_VIEW_PORTS || !gpamap_ring_drained(io));
}

/*
 * What is written is stored before the bell says so. A register is not written ahead of what
 * was posted before. What a region that posts cannot post is the VMM's, never the policy's.
 */
static enum gpamap_answer write_io(const struct gpamap_access *a,
				   const struct gpamap_snapshot *snapshot,
				   const struct gpamap_range *range, struct gpamap_io *io,
				   u64 offset)
{
	u64 value = load_value(a->val, a->len);
	bool stored = false;
	u32 rang;

	gpamap_io_count(io, GPAMAP_COUNT_WRITES);
	/* What is seen through a path that is read-only cannot be written. */
	if (io->now.registers && !gpamap_range_is_readonly(range)) {
		if (is_posting(a, io) && gpamap_registers_has(io, offset, a->len))
			return GPAMAP_ANSWER_EXIT;
		stored = gpamap_registers_write(io, offset, a->len, value);
	}
	rang = gpamap_doorbell_ring(io, offset, a->len, value);
	if (rang) {
		atomic64_add(rang, &io->counts[GPAMAP_COUNT_DOORBELLS]);
		return GPAMAP_ANSWER_DOORBELL;
	}
	if (stored)
		return GPAMAP_ANSWER_REGISTER;
	if (io->now.ring && gpamap_access_may_leave(a) && !gpamap_range_is_readonly(range) &&
	    gpamap_ring_post(io, snapshot->generation, range->region->id, offset, a->len, value)) {
		gpamap_io_count(io, GPAMAP_COUNT_POSTED);
		return GPAMAP_ANSWER_POSTED;
	}
	return io->now.ring ? GPAMAP_ANSWER_EXIT : GPAMAP_ANSWER_LATER;
}

/*
 * An access of which only the place is known yet, a write if the VMM was right about that. If it is
 * not done here, all of it comes.
 */
static enum gpamap_answer write_io_fast(const struct gpamap_range *range, struct gpamap_io *io,
					u64 offset)
{
	u32 rang;

	/* It may be a read, which has an answer. */
	if (gpamap_range_is_memory(range) || io->now.policy >= GPAMAP_POLICY_ZEROES)
		return GPAMAP_ANSWER_EXIT;
	rang = gpamap_doorbell_ring_any(io, offset);
	if (!rang)
		return GPAMAP_ANSWER_EXIT;
	gpamap_io_count(io, GPAMAP_COUNT_WRITES);
	atomic64_add(rang, &io->counts[GPAMAP_COUNT_DOORBELLS]);
	return GPAMAP_ANSWER_DOORBELL;
}

static enum gpamap_answer read_io(const struct gpamap_access *a, struct gpamap_io *io, u64 offset)
{
	gpamap_io_count(io, GPAMAP_COUNT_READS);
	if (is_posting(a, io))
		return GPAMAP_ANSWER_EXIT;
	return gpamap_registers_read(io, offset, a->len, a->val) ? GPAMAP_ANSWER_REGISTER :
							     GPAMAP_ANSWER_LATER;
}

/* What is at the address; noted for the next access. */
static noinline const struct gpamap_range *search_range(const struct gpamap_access *a,
							const struct gpamap_snapshot *snapshot)
{
	struct gpamap_hint *hint = a->hint;
	const struct gpamap_range *range;

	if (!snapshot->bus[a->view])
		return NULL;
	range = gpamap_flatview_find(snapshot->bus[a->view], a->addr);
	if (hint && range) {
		hint->generation = snapshot->generation;
		hint->view = a->view;
		hint->range = range;
	}
	return range;
}

/*
 * vCPUs come back to where they have been, so what was found last is tried first; it is as
 * good as long as the generation is the same.
 */
static inline const struct gpamap_range *find_range(const struct gpamap_access *a,
						    const struct gpamap_snapshot *snapshot)
{
	const struct gpamap_hint *hint = a->hint;

	if (hint && hint->generation == snapshot->generation && hint->view == a->view &&
	    hint->range->start <= a->addr && hint->range->last >= a->addr)
		return hint->range;
	return search_range(a, snapshot);
}

/* Out of the way of accesses that are answered at once: it needs much of the stack. */
static noinline bool dispatch_rest(struct gpamap_dispatch *dispatch,
				   const struct gpamap_access *a, struct gpamap_io *io,
				   const struct gpamap_snapshot *snapshot,
				   const struct gpamap_range *range, bool leaves)
	__releases(RCU)
{
	struct rest rest = { .leaves = leaves };

	if (!a->len) {
		rcu_read_unlock();
		return false;
	}
	take_rest(a, io, snapshot, range, &rest);
	rcu_read_unlock();
	return do_rest(dispatch, a, &rest);
}

/* See struct gpamap_vm_ops. */
static bool dispatch_access(void *owner, const struct gpamap_access *a)
{
	struct gpamap_dispatch *dispatch = owner;
	enum gpamap_answer answer = GPAMAP_ANSWER_LATER;
	const struct gpamap_snapshot *snapshot;
	const struct gpamap_range *range;
	struct gpamap_io *io;
	u64 offset;

	if (a->len > sizeof(u64))
		return false;
	rcu_read_lock();
	/* Pairs with show(). */
	snapshot = rcu_dereference(dispatch->snapshot);
	range = snapshot ? find_range(a, snapshot) : NULL;
	if (!range) {
		rcu_read_unlock();
		return false;
	}
	/* Pairs with gpamap_ties_publish(). */
	io = rcu_dereference(range->region->io);
	offset = range->offset + (a->addr - range->start);
	if (io && unlikely(!a->len))
		answer = write_io_fast(range, io, offset);
	else if (io && a->write)
		answer = write_io(a, snapshot, range, io, offset);
	else if (io)
		answer = read_io(a, io, offset);
	if (answer == GPAMAP_ANSWER_EXIT || answer == GPAMAP_ANSWER_LATER)
		return dispatch_rest(dispatch, a, io, snapshot, range,
				     answer == GPAMAP_ANSWER_EXIT);
	if (trace_gpamap_access_enabled())
		trace_gpamap_access(dispatch->number, gpamap_access_vcpu_id(a),
				    snapshot->bus_space[a->view], range->region->id, a->addr,
				    a->len, a->write, answer);
	rcu_read_unlock();
	return true;
}

const struct gpamap_vm_ops gpamap_dispatch_ops = {
	.access = dispatch_access,
};

/* ---- look-ups --------------------------------------------------------- */

/**
 * gpamap_snapshot_find() - What is at an address of a space
 * @snapshot: Of the map, or NULL
 * @space: Id of the space
 * @addr: The address
 *
 * Context: RCU read section, which the answer must not leave.
 * Return: the range, or NULL if there is no such space or nothing is seen there.
 */
const struct gpamap_range *gpamap_snapshot_find(const struct gpamap_snapshot *snapshot,
						u32 space, u64 addr)
{
	u32 lo = 0, hi = snapshot ? snapshot->nr : 0;

	while (lo < hi) {
		u32 mid = lo + (hi - lo) / 2;

		if (snapshot->views[mid].space == space)
			return gpamap_flatview_find(snapshot->views[mid].view, addr);
		if (snapshot->views[mid].space < space)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}
