/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Churn: a map file with many commits replayed on a live map with a VM, and what each
 * commit did to the memslots. QEMU's way with the same views is counted beside it.
 */
#ifndef CHURN_H
#define CHURN_H

#include <gpamap.h>
#include "gpamap_util.h"

/* Operations on memslots. */
struct churn_count {
	u32 deletes;
	u32 moves;
	u32 creates;
	u64 deleted_bytes;
	u64 largest_delete;
};

static inline u32 churn_operations(const struct churn_count *count)
{
	return count->deletes + count->moves + count->creates;
}

/* A commit that was applied; @number counts from 1. */
struct churn_commit {
	struct gpamap *map;
	u32 number;
	struct gpamap_apply told;	/* by the module */
	struct churn_count did;		/* seen in the memslots before and after */
	struct churn_count qemu;	/* what QEMU would do */
};

/* All commits of a file. */
struct churn_total {
	u32 commits;
	u32 held;			/* commits that hold vCPUs */
	u64 taken;			/* sum of out_taken */
	struct churn_count did;
	struct churn_count qemu;
};

/*
 * Replays @path on a VM of its own, and checks that plan, answer and statistics of every
 * commit agree with the memslots before and after. @each may be NULL.
 *
 * NULL, or a text that says what could not be done or does not agree.
 */
const char *churn_replay(const char *path,
			 void (*each)(const struct churn_commit *commit, void *arg),
			 void *arg, struct churn_total *total);

/* Whether a range is memory for KVM: then the pages from @start up to @end. */
bool churn_is_memory(const struct gpamap_range_info *range, u64 *start, u64 *end);

#endif /* CHURN_H */
