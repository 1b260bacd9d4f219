/* SPDX-License-Identifier: GPL-2.0 */
/* One operation of a fuzzer's input, and what it stands for. */
#ifndef GPAMAP_FUZZ_RECORD_H
#define GPAMAP_FUZZ_RECORD_H

#include "core.h"

struct fuzz_record {
	uint8_t code;		/* 0xf0 and above end a batch, 0xf8 and above undo it */
	uint8_t id;
	uint8_t ref;
	uint8_t kind;
	uint8_t flags;
	int8_t prio;
	uint16_t mask;
	uint64_t at;		/* also the offset of an alias */
	uint64_t last;
};

#define FUZZ_ALL_FLAGS (GPAMAP_RANGE_FLAGS | GPAMAP_REGION_DISABLED)

/* Any record is a well-formed operation on regions 1 to @nr_ids. */
static inline void fuzz_record_op(const struct fuzz_record *rec, u32 nr_ids,
				  struct gpamap_op *op)
{
	static const u32 codes[] = {
		GPAMAP_OP_REGION, GPAMAP_OP_ADD, GPAMAP_OP_DEL, GPAMAP_OP_DESTROY,
		GPAMAP_OP_SET,
	};

	memset(op, 0, sizeof(*op));
	op->code = codes[rec->code % 5];
	op->id = 1 + rec->id % nr_ids;
	switch (op->code) {
	case GPAMAP_OP_REGION:
		op->kind = 1 + rec->kind % 7;
		op->last = rec->last;
		op->flags = rec->flags & FUZZ_ALL_FLAGS;
		if (op->kind != GPAMAP_REGION_ROMD)
			op->flags &= ~GPAMAP_REGION_ROMD_MODE;
		if (op->kind == GPAMAP_REGION_ALIAS) {
			op->ref = 1 + rec->ref % nr_ids;
			op->offset = rec->at;
		}
		break;
	case GPAMAP_OP_ADD:
		op->ref = 1 + rec->ref % nr_ids;
		op->at = rec->at;
		op->prio = rec->prio;
		break;
	case GPAMAP_OP_SET:
		op->mask = rec->mask & 0x1ff ?: 1;
		op->flags = rec->flags & FUZZ_ALL_FLAGS;
		if (!(op->mask & GPAMAP_SET_ENABLED))
			op->flags &= ~GPAMAP_REGION_DISABLED;
		if (!(op->mask & GPAMAP_SET_READONLY))
			op->flags &= ~GPAMAP_REGION_READONLY;
		if (!(op->mask & GPAMAP_SET_NONVOLATILE))
			op->flags &= ~GPAMAP_REGION_NONVOLATILE;
		if (!(op->mask & GPAMAP_SET_UNMERGEABLE))
			op->flags &= ~GPAMAP_REGION_UNMERGEABLE;
		if (!(op->mask & GPAMAP_SET_ROMD))
			op->flags &= ~GPAMAP_REGION_ROMD_MODE;
		if (op->mask & GPAMAP_SET_AT)
			op->at = rec->at;
		if (op->mask & GPAMAP_SET_PRIO)
			op->prio = rec->prio;
		if (op->mask & GPAMAP_SET_OFFSET)
			op->offset = rec->at;
		if (op->mask & GPAMAP_SET_LAST)
			op->last = rec->last;
		break;
	}
}

#endif /* GPAMAP_FUZZ_RECORD_H */
