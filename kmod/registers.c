// SPDX-License-Identifier: GPL-2.0
/*
 * Registers: the values of an I/O region's registers in a page that the VMM maps, and what
 * the guest's reads and writes do with them, without the VMM.
 *
 * The page is one of the kernel's. vCPUs use it through its kernel address, under RCU
 * (dispatch.c), beside each other and beside the VMM: each access is one atomic operation of
 * the register's width, which is why registers are aligned. What an offset is, is looked up
 * in a table with an entry for every byte of the page.
 *
 * The registers of a region are set and removed as a whole, under the lock of the map.
 * mmap() takes no lock of the map's, for it comes with mmap_lock; it finds the page as
 * vCPUs do. A mapping has its own reference on the page.
 *
 * Rules of MEMORY_MODEL kept here: 43 (as for doorbells).
 */
#include <linux/mm.h>
#include <linux/nospec.h>
#include "private.h"

#define LEN_MASK 0x0f
#define KIND_SHIFT 4

struct gpamap_registers_page {
	struct page *page;
	void *constants;		/* a page of their values; NULL if there are none */
	u8 what[PAGE_SIZE];		/* by offset: kind and length; 0 for nothing */
};

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

/* Whether that is a register. Under RCU. */
bool gpamap_registers_has(const struct gpamap_io *io, u64 offset, u32 len)
{
	/* Pairs with registers_set(). */
	return kind_of(rcu_dereference(io->registers), offset, len);
}

/* Whether a read is answered, at @val. Under RCU. */
bool gpamap_registers_read(const struct gpamap_io *io, u64 offset, u32 len, void *val)
{
	/* Pairs with registers_set(). */
	const struct gpamap_registers_page *registers = rcu_dereference(io->registers);
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

/* Whether a write is done. Under RCU. */
bool gpamap_registers_write(const struct gpamap_io *io, u64 offset, u32 len, u64 value)
{
	/* Pairs with registers_set(). */
	const struct gpamap_registers_page *registers = rcu_dereference(io->registers);
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

static void registers_page_free(struct gpamap_registers_page *registers)
{
	if (registers->page)
		put_page(registers->page);
	kfree(registers->constants);
	kvfree(registers);
}

/* At the end of the map. */
void gpamap_registers_free(struct gpamap_io *io)
{
	struct gpamap_registers_page *registers;

	registers = rcu_dereference_protected(io->registers, true);
	if (registers)
		registers_page_free(registers);
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

static struct gpamap_registers_page *registers_copy(const struct gpamap_registers *cmd)
{
	struct gpamap_registers_page *registers;
	struct gpamap_register reg;
	u64 from = cmd->registers;
	int rc = -ENOMEM;
	u32 i;

	registers = kvzalloc(sizeof(*registers), GPAMAP_GFP);
	if (!registers)
		return ERR_PTR(-ENOMEM);
	registers->page = alloc_page(GPAMAP_GFP | __GFP_ZERO);
	if (!registers->page)
		goto err;
	for (i = 0; i < cmd->nr; i++, from += cmd->register_size) {
		rc = copy_struct_from_user(&reg, sizeof(reg), u64_to_user_ptr(from),
					   cmd->register_size);
		if (!rc)
			rc = add_register(registers, &reg);
		if (rc)
			goto err;
	}
	return registers;
err:
	registers_page_free(registers);
	return ERR_PTR(rc);
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

/* @new belongs to the region on success. */
static int registers_set(struct gpamap *map, struct gpamap_region *region,
			 struct gpamap_registers_page *new)
{
	struct gpamap_io *io = gpamap_region_io(map, region);
	int rc;

	if (region->kind != GPAMAP_REGION_IO)
		return -EOPNOTSUPP;
	if (registers_last(new) > region->last)
		return -EINVAL;
	if (io && rcu_access_pointer(io->registers))
		return -EEXIST;
	rc = gpamap_io_tie(map, region);
	if (rc)
		return rc;
	/* Pairs with gpamap_registers_read(), _write() and _mmap(). */
	rcu_assign_pointer(gpamap_region_io(map, region)->registers, new);
	return 0;
}

static int registers_remove(struct gpamap *map, struct gpamap_region *region)
{
	struct gpamap_io *io = gpamap_region_io(map, region);
	struct gpamap_registers_page *registers;

	registers = io ? rcu_dereference_protected(io->registers,
						   lockdep_is_held(&map->lock)) : NULL;
	if (!registers)
		return -ENOENT;
	rcu_assign_pointer(io->registers, NULL);
	/* vCPUs, and mmap(). */
	synchronize_rcu();
	registers_page_free(registers);
	gpamap_io_untie(map, region);
	return 0;
}

int gpamap_registers(struct gpamap *map, void *arg)
{
	struct gpamap_registers_page *new = NULL;
	struct gpamap_registers *cmd = arg;
	struct gpamap_region *region;
	int rc;

	if (cmd->flags & ~GPAMAP_REGISTERS_REMOVE)
		return -EOPNOTSUPP;
	if (cmd->__reserved)
		return -EINVAL;
	if (cmd->flags & GPAMAP_REGISTERS_REMOVE) {
		if (cmd->nr || cmd->register_size || cmd->registers)
			return -EINVAL;
	} else {
		if (!cmd->nr || cmd->nr > PAGE_SIZE ||
		    cmd->register_size < sizeof(struct gpamap_register))
			return -EINVAL;
		if (cmd->register_size > PAGE_SIZE)
			return -E2BIG;
		new = registers_copy(cmd);
		if (IS_ERR(new))
			return PTR_ERR(new);
	}
	rc = mutex_lock_killable(&map->lock);
	if (rc)
		goto out_free;
	rc = gpamap_map_find_region(map, cmd->region, &region);
	if (!rc)
		rc = new ? registers_set(map, region, new) : registers_remove(map, region);
	mutex_unlock(&map->lock);
out_free:
	if (rc && new)
		registers_page_free(new);
	return rc;
}

/* The page with the registers of the region whose id is the number of the page. */
int gpamap_registers_mmap(struct gpamap *map, struct vm_area_struct *vma)
{
	const struct gpamap_registers_page *registers;
	const struct gpamap_region *region;
	const struct gpamap_io *io;
	struct page *page = NULL;
	int rc;

	if (vma_pages(vma) != 1)
		return -EINVAL;
	rcu_read_lock();
	region = xa_load(&map->tree.regions, vma->vm_pgoff);
	io = region ? rcu_dereference(region->io) : NULL;
	registers = io ? rcu_dereference(io->registers) : NULL;
	if (registers) {
		page = registers->page;
		get_page(page);
	}
	rcu_read_unlock();
	if (!page)
		return -ENOENT;
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	rc = vm_insert_page(vma, vma->vm_start, page);
	put_page(page);
	return rc;
}
