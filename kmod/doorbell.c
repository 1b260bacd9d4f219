// SPDX-License-Identifier: GPL-2.0
/*
 * Doorbells: eventfds that are signalled when the guest writes at an offset of a region.
 *
 * A region's doorbells are a hash table by offset, so that a write costs a search among
 * those of one region, however many there are, and KVM's bus holds none of them. Readers
 * are vCPUs, under RCU (dispatch.c); changes are made under the lock of the map.
 *
 * Rules of MEMORY_MODEL kept here: 44.
 */
#include <linux/eventfd.h>
#include <linux/hash.h>
#include <linux/random.h>
#include "private.h"

struct bell {
	struct bell __rcu *next;	/* of the same hash */
	struct eventfd_ctx *eventfd;
	u64 offset;
	u64 value;
	u32 len;			/* 0: any */
	bool match;
};

/*
 * With about one doorbell for each head. When there are more, another table takes its
 * place, with copies: readers may be in the old.
 */
struct gpamap_bells {
	u32 nr;
	u32 nr_match;			/* of them want a value */
	u32 nr_any;			/* of them take any length */
	u32 bits;			/* of the number of heads */
	u64 seed;			/* so that a chain cannot be made long on purpose */
	struct bell __rcu *heads[];
};

#define MIN_BITS 2

/* Those that want no value, and those that want one, are in chains apart. */
static u32 hash_bell(const struct gpamap_bells *bells, u64 offset, bool match, u64 value)
{
	u64 key = offset ^ bells->seed;

	if (match)
		key ^= hash_64(value ^ bells->seed, 64);
	return hash_64(key, bells->bits);
}

static __always_inline u32 ring_chain(const struct gpamap_bells *bells, u64 offset, u32 len,
				      bool match, u64 value)
{
	const struct bell *bell;
	u32 rang = 0;

	bell = rcu_dereference(bells->heads[hash_bell(bells, offset, match, value)]);
	for (; bell; bell = rcu_dereference(bell->next)) {
		if (bell->offset != offset || bell->match != match ||
		    (bell->len && bell->len != len) || (match && bell->value != value))
			continue;
		gpamap_eventfd_signal(bell->eventfd);
		rang++;
	}
	return rang;
}

/* How many a write rings; @value is that of a write of 1, 2, 4 or 8 bytes. Under RCU. */
u32 gpamap_doorbell_ring(const struct gpamap_io *io, u64 offset, u32 len, u64 value)
{
	/* Pairs with bell_add(). */
	const struct gpamap_bells *bells = rcu_dereference(io->bells);
	u32 rang;

	if (!bells)
		return 0;
	rang = ring_chain(bells, offset, len, false, 0);
	if (READ_ONCE(bells->nr_match))
		rang += ring_chain(bells, offset, len, true, value);
	return rang;
}

/*
 * As gpamap_doorbell_ring() for a write of which length and value are not known: none, unless
 * all that can be at the offset is rung whatever these are.
 */
u32 gpamap_doorbell_ring_any(const struct gpamap_io *io, u64 offset)
{
	/* Pairs with bell_add(). */
	const struct gpamap_bells *bells = rcu_dereference(io->bells);
	const struct bell *bell;

	if (!bells || READ_ONCE(bells->nr_match) || rcu_access_pointer(io->registers) ||
	    rcu_access_pointer(io->handler))
		return 0;
	bell = rcu_dereference(bells->heads[hash_bell(bells, offset, false, 0)]);
	for (; bell; bell = rcu_dereference(bell->next))
		if (bell->offset == offset && bell->len)
			return 0;
	return ring_chain(bells, offset, 0, false, 0);
}

static struct gpamap_bells *io_bells(struct gpamap *map, const struct gpamap_io *io)
{
	return rcu_dereference_protected(io->bells, lockdep_is_held(&map->lock));
}

/* Whether there are doorbells for any length. */
bool gpamap_doorbell_any(struct gpamap *map, const struct gpamap_io *io)
{
	const struct gpamap_bells *bells = io_bells(map, io);

	return bells && bells->nr_any;
}

static struct bell *bell_at(struct gpamap *map, struct bell __rcu **at)
{
	return rcu_dereference_protected(*at, lockdep_is_held(&map->lock));
}

static struct gpamap_bells *bells_alloc(u32 bits)
{
	struct gpamap_bells *bells;

	bells = kvzalloc(struct_size(bells, heads, 1UL << bits), GPAMAP_GFP);
	if (bells) {
		bells->bits = bits;
		bells->seed = get_random_u64();
	}
	return bells;
}

/* Frees a table and the doorbells in it. Nobody reads any more. */
static void bells_free(struct gpamap_bells *bells, bool put)
{
	struct bell *bell, *next;
	u32 i;

	for (i = 0; i < 1U << bells->bits; i++) {
		for (bell = rcu_dereference_protected(bells->heads[i], true); bell;
		     bell = next) {
			next = rcu_dereference_protected(bell->next, true);
			if (put)
				eventfd_ctx_put(bell->eventfd);
			kfree(bell);
		}
		cond_resched();
	}
	kvfree(bells);
}

/* At the end of the map. */
void gpamap_doorbells_free(struct gpamap_io *io)
{
	struct gpamap_bells *bells = rcu_dereference_protected(io->bells, true);

	if (bells)
		bells_free(bells, true);
}

static struct bell __rcu **bell_head(struct gpamap_bells *bells, u64 offset, bool match,
				     u64 value)
{
	return &bells->heads[hash_bell(bells, offset, match, value)];
}

/* In front of all others of its hash. */
static void bell_link(struct gpamap *map, struct gpamap_bells *bells, struct bell *bell)
{
	struct bell __rcu **head = bell_head(bells, bell->offset, bell->match, bell->value);

	RCU_INIT_POINTER(bell->next, bell_at(map, head));
	/* Pairs with gpamap_doorbell_ring(). */
	rcu_assign_pointer(*head, bell);
	bells->nr++;
	bells->nr_any += !bell->len;
	WRITE_ONCE(bells->nr_match, bells->nr_match + bell->match);
}

/* The same in a table of twice the size, that nobody else knows. */
static struct gpamap_bells *bells_double(struct gpamap *map, struct gpamap_bells *old)
{
	struct gpamap_bells *bells = bells_alloc(old->bits + 1);
	struct bell *bell, *copy;
	u32 i;

	for (i = 0; bells && i < 1U << old->bits; i++) {
		for (bell = bell_at(map, &old->heads[i]); bell;
		     bell = bell_at(map, &bell->next)) {
			copy = kmemdup(bell, sizeof(*bell), GPAMAP_GFP);
			if (!copy) {
				bells_free(bells, false);
				return NULL;
			}
			bell_link(map, bells, copy);
		}
		cond_resched();
	}
	return bells;
}

/* Rung by the same writes, but for their length. */
static bool bell_same(const struct bell *bell, const struct gpamap_doorbell *cmd)
{
	return bell->offset == cmd->offset && bell->value == cmd->value &&
	       bell->match == !!(cmd->flags & GPAMAP_DOORBELL_MATCH);
}

static struct bell __rcu **cmd_head(struct gpamap_bells *bells,
				    const struct gpamap_doorbell *cmd)
{
	return bell_head(bells, cmd->offset, cmd->flags & GPAMAP_DOORBELL_MATCH, cmd->value);
}

/* Where the pointer to the doorbell is; NULL if it is not there. */
static struct bell __rcu **bell_find(struct gpamap *map, struct gpamap_io *io,
				     const struct gpamap_doorbell *cmd,
				     const struct eventfd_ctx *eventfd)
{
	struct gpamap_bells *bells = io_bells(map, io);
	struct bell __rcu **at;
	struct bell *bell;

	if (!bells)
		return NULL;
	for (at = cmd_head(bells, cmd); (bell = bell_at(map, at)); at = &bell->next)
		if (bell_same(bell, cmd) && bell->len == cmd->len && bell->eventfd == eventfd)
			return at;
	return NULL;
}

/* Whether one write would ring too many. */
static bool too_many_bells(struct gpamap *map, struct gpamap_io *io,
			   const struct gpamap_doorbell *cmd)
{
	struct gpamap_bells *bells = io_bells(map, io);
	struct bell *bell;
	u32 nr = 0;

	if (!bells)
		return false;
	for (bell = bell_at(map, cmd_head(bells, cmd)); bell; bell = bell_at(map, &bell->next))
		nr += bell_same(bell, cmd);
	return nr >= GPAMAP_MAX_SAME_DOORBELLS;
}

/* A region's first one makes its table. */
static int bell_add(struct gpamap *map, struct gpamap_io *io, struct bell *bell)
{
	struct gpamap_bells *old = io_bells(map, io);
	struct gpamap_bells *bells = old;

	if (!bells)
		bells = bells_alloc(MIN_BITS);
	else if (bells->nr >= 1U << bells->bits)
		bells = bells_double(map, old);
	if (!bells)
		return -ENOMEM;
	bell_link(map, bells, bell);
	map->nr_doorbells++;
	if (bells == old)
		return 0;
	/* Pairs with gpamap_doorbell_ring(). */
	rcu_assign_pointer(io->bells, bells);
	if (old) {
		gpamap_io_wait(map);
		bells_free(old, false);
	}
	return 0;
}

static int doorbell_remove(struct gpamap *map, struct gpamap_region *region,
			   const struct gpamap_doorbell *cmd, struct eventfd_ctx *eventfd)
{
	struct gpamap_io *io = gpamap_region_io(map, region);
	struct bell __rcu **at = io ? bell_find(map, io, cmd, eventfd) : NULL;
	struct gpamap_bells *bells;
	struct bell *bell;
	bool last_any;

	if (!at)
		return -ENOENT;
	bells = io_bells(map, io);
	bell = bell_at(map, at);
	last_any = !bell->len && bells->nr_any == 1;
	rcu_assign_pointer(*at, bell_at(map, &bell->next));
	bells->nr_any -= !bell->len;
	WRITE_ONCE(bells->nr_match, bells->nr_match - bell->match);
	if (!--bells->nr)
		rcu_assign_pointer(io->bells, NULL);
	map->nr_doorbells--;
	gpamap_io_wait(map);
	eventfd_ctx_put(bell->eventfd);
	kfree(bell);
	if (!bells->nr)
		bells_free(bells, false);
	gpamap_io_untie(map, region);
	/* The fast bus, unless that was done with the others. */
	if (last_any && gpamap_region_io(map, region))
		gpamap_map_trim_bus(map);
	return 0;
}

static int doorbell_add(struct gpamap *map, struct gpamap_region *region,
			const struct gpamap_doorbell *cmd, struct eventfd_ctx *eventfd)
{
	struct gpamap_io *io = gpamap_region_io(map, region);
	struct bell *bell;
	int rc;

	if (io && bell_find(map, io, cmd, eventfd))
		return -EEXIST;
	if (map->nr_doorbells == GPAMAP_MAX_DOORBELLS || (io && too_many_bells(map, io, cmd)))
		return -ENOSPC;
	bell = kzalloc(sizeof(*bell), GPAMAP_GFP);
	if (!bell)
		return -ENOMEM;
	bell->eventfd = eventfd;
	bell->offset = cmd->offset;
	bell->value = cmd->value;
	bell->len = cmd->len;
	bell->match = cmd->flags & GPAMAP_DOORBELL_MATCH;
	rc = gpamap_io_tie(map, region);
	if (rc)
		goto err_free;
	/* On success the doorbell owns the reference on the eventfd. */
	io = gpamap_region_io(map, region);
	rc = bell_add(map, io, bell);
	if (!rc) {
		if (!bell->len && io_bells(map, io)->nr_any == 1)
			gpamap_map_trim_bus(map);	/* the fast one */
		return 0;
	}
	gpamap_io_untie(map, region);
err_free:
	kfree(bell);
	return rc;
}

static int doorbell_check(const struct gpamap_doorbell *cmd,
			  const struct gpamap_region *region)
{
	u64 last;

	switch (region->kind) {
	case GPAMAP_REGION_IO:
	case GPAMAP_REGION_ROM:
	case GPAMAP_REGION_ROMD:
	case GPAMAP_REGION_RESERVED:
		break;
	default:
		return -EOPNOTSUPP;
	}
	/* A write of any length has one byte at least. */
	if (check_add_overflow(cmd->offset, (u64)max(cmd->len, 1U) - 1, &last) ||
	    last > region->last)
		return -EINVAL;
	return 0;
}

int gpamap_doorbell(struct gpamap *map, void *arg)
{
	struct gpamap_doorbell *cmd = arg;
	struct gpamap_region *region;
	struct eventfd_ctx *eventfd;
	int rc;

	if (cmd->flags & ~(GPAMAP_DOORBELL_MATCH | GPAMAP_DOORBELL_REMOVE))
		return -EOPNOTSUPP;
	if (cmd->__reserved || cmd->len > 8 || (cmd->len & (cmd->len - 1)))
		return -EINVAL;
	if (cmd->flags & GPAMAP_DOORBELL_MATCH) {
		if (!cmd->len || (cmd->len < 8 && cmd->value >> (8 * cmd->len)))
			return -EINVAL;
	} else if (cmd->value) {
		return -EINVAL;
	}
	rc = gpamap_map_find_region(map, cmd->region, &region);
	if (rc)
		return rc;
	/* What was right may be beyond the end meanwhile, and is removed all the same. */
	rc = cmd->flags & GPAMAP_DOORBELL_REMOVE ? 0 : doorbell_check(cmd, region);
	if (rc)
		return rc;
	eventfd = eventfd_ctx_fdget(cmd->fd);
	if (IS_ERR(eventfd))
		return PTR_ERR(eventfd);

	if (cmd->flags & GPAMAP_DOORBELL_REMOVE) {
		rc = doorbell_remove(map, region, cmd, eventfd);
		eventfd_ctx_put(eventfd);
	} else {
		rc = doorbell_add(map, region, cmd, eventfd);
		if (rc)
			eventfd_ctx_put(eventfd);
	}
	return rc;
}
