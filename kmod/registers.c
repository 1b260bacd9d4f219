// SPDX-License-Identifier: GPL-2.0
/*
 * Registers: the values of an I/O region's registers in a page that the VMM maps, and what
 * the guest's reads and writes do with them, without the VMM.
 *
 * The page is one of the kernel's. vCPUs use it through its kernel address, beside each other
 * and beside the VMM: each access is one atomic operation of
 * the register's width, which is why registers are aligned. What an offset is, is looked up
 * in a table with an entry for every byte of the page.
 *
 * The registers of a region are set and removed as a whole. The array of them is copied from
 * the VMM before the map is locked, and what was made of it belongs to the call and to the
 * state of the region that it came into.
 *
 * mmap() takes no lock of the map's, for it comes with mmap_lock; it finds the page that vCPUs
 * have, under a spinlock. A mapping has its own reference on the page.
 *
 * Rules of MEMORY_MODEL kept here: 43 (as for doorbells).
 */
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/refcount.h>
#include "ties.h"

#define LEN_MASK 0x0f
#define KIND_SHIFT 4

struct gpamap_registers_page {
	refcount_t refs;
	struct page *page;
	void *constants;		/* a page of their values; NULL if there are none */
	u8 what[PAGE_SIZE];		/* by offset: kind and length; 0 for nothing */
};

void gpamap_registers_layout(struct gpamap_layout *layout)
{
	*layout = (struct gpamap_layout){
		.area = GPAMAP_AREA_REGISTERS,
		.version = GPAMAP_LAYOUT_VERSION,
		.record_size = PAGE_SIZE,
	};
}

/* The length is 1, 2, 4 or 8, and the address aligned to it. */
#define by_length(_len, _do)							\
	do {									\
		switch (_len) {							\
		case 1:								\
			_do(u8);						\
			break;							\
		case 2:								\
			_do(u16);						\
			break;							\
		case 4:								\
			_do(u32);						\
			break;							\
		case 8:								\
			_do(u64);						\
			break;							\
		}								\
	} while (0)

/* Where the value goes need not be aligned. */
static void load(void *val, const void *at, u32 len)
{
#define LOAD(_type)								\
	do {									\
		_type __value = READ_ONCE(*(const _type *)at);			\
		memcpy(val, &__value, sizeof(__value));				\
	} while (0)
	by_length(len, LOAD);
#undef LOAD
}

static void load_and_clear(void *val, void *at, u32 len)
{
#define LOAD_AND_CLEAR(_type)							\
	do {									\
		_type __value = xchg((_type *)at, 0);				\
		memcpy(val, &__value, sizeof(__value));				\
	} while (0)
	by_length(len, LOAD_AND_CLEAR);
#undef LOAD_AND_CLEAR
}

static void store(void *at, u32 len, u64 value)
{
#define STORE(_type)								\
	do {									\
		_type __value = value;						\
		WRITE_ONCE(*(_type *)at, __value);				\
	} while (0)
	by_length(len, STORE);
#undef STORE
}

static void clear_bits_of(void *at, u32 len, u64 value)
{
/* try_cmpxchg() has an __old and a __new of its own. */
#define CLEAR(_type)								\
	do {									\
		_type after, before = READ_ONCE(*(_type *)at);			\
		do {								\
			after = before & ~value;				\
		} while (!try_cmpxchg((_type *)at, &before, after));		\
	} while (0)
	by_length(len, CLEAR);
#undef CLEAR
}

/* The register that an access is for, as kind; 0 for none. */
static u32 kind_of(const struct gpamap_registers_page *registers, u64 offset, u32 len)
{
	u8 what;

	if (!registers || offset >= PAGE_SIZE)
		return 0;
	what = registers->what[array_index_nospec(offset, PAGE_SIZE)];
	return (what & LEN_MASK) == len ? what >> KIND_SHIFT : 0;
}

/* Whether that is a register. */
bool gpamap_registers_has(const struct gpamap_io *io, u64 offset, u32 len)
{
	return kind_of(io->now.registers, offset, len);
}

/* Whether a read is answered, at @val. */
bool gpamap_registers_read(const struct gpamap_io *io, u64 offset, u32 len, void *val)
{
	const struct gpamap_registers_page *registers = io->now.registers;
	u32 kind = kind_of(registers, offset, len);

	switch (kind) {
	case GPAMAP_REGISTER_READONLY:
	case GPAMAP_REGISTER_READWRITE:
	case GPAMAP_REGISTER_WRITE1_CLEAR:
		load(val, page_address(registers->page) + offset, len);
		break;
	case GPAMAP_REGISTER_READ_CLEAR:
		load_and_clear(val, page_address(registers->page) + offset, len);
		break;
	case GPAMAP_REGISTER_CONSTANT:
		load(val, registers->constants + offset, len);
		break;
	}
	return kind;
}

/* Whether a write is done. */
bool gpamap_registers_write(const struct gpamap_io *io, u64 offset, u32 len, u64 value)
{
	const struct gpamap_registers_page *registers = io->now.registers;
	u32 kind = kind_of(registers, offset, len);

	switch (kind) {
	case GPAMAP_REGISTER_READWRITE:
		store(page_address(registers->page) + offset, len, value);
		break;
	case GPAMAP_REGISTER_WRITE1_CLEAR:
		clear_bits_of(page_address(registers->page) + offset, len, value);
		break;
	}
	return kind;
}

void gpamap_registers_put(struct gpamap_registers_page *registers)
{
	if (!refcount_dec_and_test(&registers->refs))
		return;
	if (registers->page)
		put_page(registers->page);
	kfree(registers->constants);
	kvfree(registers);
}

static int register_check(const struct gpamap_register *reg)
{
	if (!reg->kind || reg->kind > GPAMAP_REGISTER_CONSTANT)
		return -EOPNOTSUPP;
	if (reg->len != 1 && reg->len != 2 && reg->len != 4 && reg->len != 8)
		return -EINVAL;
	if (reg->offset >= PAGE_SIZE || reg->offset & (reg->len - 1))
		return -EINVAL;
	if (reg->len < 8 && reg->value >> (8 * reg->len))
		return -EINVAL;
	return 0;
}

/* Aligned registers overlap if one begins within the other. */
static bool overlaps(const struct gpamap_registers_page *registers,
		     const struct gpamap_register *reg)
{
	u32 i, before;

	for (i = 0; i < reg->len; i++)
		if (registers->what[reg->offset + i])
			return true;
	for (i = 2; i <= 8; i *= 2) {
		before = reg->offset & ~(i - 1);
		if ((registers->what[before] & LEN_MASK) >= i)
			return true;
	}
	return false;
}

static int add_register(struct gpamap_registers_page *registers,
			const struct gpamap_register *reg)
{
	int rc = register_check(reg);

	if (rc)
		return rc;
	if (overlaps(registers, reg))
		return -EINVAL;
	if (reg->kind == GPAMAP_REGISTER_CONSTANT) {
		if (!registers->constants)
			registers->constants = kzalloc(PAGE_SIZE, GPAMAP_GFP);
		if (!registers->constants)
			return -ENOMEM;
		store(registers->constants + reg->offset, reg->len, reg->value);
	}
	store(page_address(registers->page) + reg->offset, reg->len, reg->value);
	registers->what[reg->offset] = reg->kind << KIND_SHIFT | reg->len;
	return 0;
}

static int registers_check(const struct gpamap_op *op)
{
	if (op->flags & GPAMAP_REGISTERS_REMOVE)
		return op->items || op->nr || op->item_size ? -EINVAL : 0;
	if (!op->nr || op->nr > PAGE_SIZE || op->item_size < sizeof(struct gpamap_register))
		return -EINVAL;
	return op->item_size > PAGE_SIZE ? -E2BIG : 0;
}

static int registers_prepare(const struct gpamap_op *op, void **prepared)
{
	struct gpamap_registers_page *registers;
	struct gpamap_register reg;
	u64 from = op->items;
	int rc = -ENOMEM;
	u32 i;

	registers = kvzalloc(sizeof(*registers), GPAMAP_GFP);
	if (!registers)
		return -ENOMEM;
	refcount_set(&registers->refs, 1);
	registers->page = alloc_page(GPAMAP_GFP | __GFP_ZERO);
	if (!registers->page)
		goto err;
	for (i = 0; i < op->nr; i++, from += op->item_size) {
		rc = copy_struct_from_user(&reg, sizeof(reg), u64_to_user_ptr(from),
					   op->item_size);
		if (!rc)
			rc = add_register(registers, &reg);
		if (rc)
			goto err;
	}
	*prepared = registers;
	return 0;
err:
	gpamap_registers_put(registers);
	return rc;
}

static void registers_unprepare(void *prepared)
{
	gpamap_registers_put(prepared);
}

/* The last byte that any of them has. */
static u64 registers_last(const struct gpamap_registers_page *registers)
{
	u32 i;

	for (i = PAGE_SIZE; i--;)
		if (registers->what[i])
			return i + (registers->what[i] & LEN_MASK) - 1;
	return 0;
}

static int registers_apply(struct gpamap_tie *tie)
{
	struct gpamap_registers_page *new = tie->prepared;
	struct gpamap_io_state *next = &tie->io->next;

	tie->undo->flags = tie->op->flags;
	if (tie->op->flags & GPAMAP_REGISTERS_REMOVE) {
		if (!next->registers)
			return -ENOENT;
		tie->undo->tie = next->registers;
		next->registers = NULL;
		return 0;
	}
	if (registers_last(new) > tie->region->last)
		return -EINVAL;
	if (next->registers)
		return -EEXIST;
	refcount_inc(&new->refs);
	next->registers = new;
	return 0;
}

static void registers_undo(struct gpamap_ties *ties, struct gpamap_io *io,
			   struct gpamap_undo *undo)
{
	if (!(undo->flags & GPAMAP_REGISTERS_REMOVE))
		gpamap_registers_put(io->next.registers);
	/* What was removed, or nothing. */
	io->next.registers = undo->tie;
}

static void registers_finish(struct gpamap_undo *undo)
{
	if (undo->tie)
		gpamap_registers_put(undo->tie);
}

const struct gpamap_tie_kind gpamap_registers_kind = {
	.fields = GPAMAP_F_FLAGS | GPAMAP_F_ITEMS,
	.flags = GPAMAP_REGISTERS_REMOVE,
	.remove = GPAMAP_REGISTERS_REMOVE,
	.regions = BIT(GPAMAP_REGION_IO),
	.prepare = registers_prepare,
	.unprepare = registers_unprepare,
	.check = registers_check,
	.apply = registers_apply,
	.undo = registers_undo,
	.finish = registers_finish,
};

/* The page with the registers of the region whose id is the number of the page. */
int gpamap_registers_mmap(struct gpamap_ties *ties, struct gpamap_tree *tree,
			  struct vm_area_struct *vma)
{
	const struct gpamap_region *region;
	const struct gpamap_io *io = NULL;
	struct page *page = NULL;
	int rc;

	if (vma_pages(vma) != 1)
		return -EINVAL;
	/* Of the region; what is tied to it goes after it was published under the lock. */
	rcu_read_lock();
	spin_lock(&ties->pages_lock);
	/* What an open transaction has made of the id is not there yet. */
	for (region = xa_load(&tree->regions, vma->vm_pgoff); region && !io;
	     region = READ_ONCE(region->was))
		io = rcu_dereference(region->io);
	if (io && io->now.registers) {
		page = io->now.registers->page;
		get_page(page);
	}
	spin_unlock(&ties->pages_lock);
	rcu_read_unlock();
	if (!page)
		return -ENOENT;
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	rc = vm_insert_page(vma, vma->vm_start, page);
	put_page(page);
	return rc;
}
