/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Batches against a model: shared by core_test.c, which makes them at random, and by
 * fuzz_core.c, to which the fuzzer gives them.
 */
#ifndef GPAMAP_EXERCISE_H
#define GPAMAP_EXERCISE_H

#include "core.h"

/* Region ids are 1 to NR_IDS; region 1 is a container of 2^64 bytes, never destroyed. */
#define NR_IDS 40

enum step {
	STEP_END,
	STEP_OP,		/* the operation in op */
	STEP_COMMIT,
	STEP_ABORT,
};

/*
 * Runs what @next gives and compares the core with the model after every step that ends
 * a batch. Returns NULL, or what is wrong (static storage).
 */
const char *exercise(enum step (*next)(void *arg, struct gpamap_op *op), void *arg);

/* What the batches so far have come to. */
struct exercised {
	u64 rendered;
	u64 cyclic;		/* of these: what is seen leads through a region twice */
	u64 refused;		/* a path too long, or without an end */
	u64 unknown;		/* too many paths for the model: not compared, not kept */
};

extern struct exercised exercised;

/* All that an operation could change, as text; the caller frees it. */
char *dump(struct gpamap_tree *tree);

/* One operation as a batch of its own: 0 or -errno. */
int do_op(struct gpamap_tree *tree, const struct gpamap_op *op);

#endif /* GPAMAP_EXERCISE_H */
