// SPDX-License-Identifier: GPL-2.0
/*
 * What a PC's firmware does to the map, replayed (selftests/data/churn-*.map): every
 * commit does what it tells, plans and counts, large memslots stay, and it takes fewer
 * operations than QEMU's way with the same views. `make bench-churn` prints the figures.
 */
#include "harness.h"
#include "churn.h"

#define MIB (1ULL << 20)

FIXTURE(churn) {
};

FIXTURE_VARIANT(churn) {
	const char *path;
	u32 commits;
	/* What QEMU 7.2 was seen to need from power-on on, and for the power-on map. */
	u32 qemu_operations;
	u32 qemu_deletes;
	u64 qemu_largest;
};

FIXTURE_VARIANT_ADD(churn, pc) {
	"data/churn-pc.map", 13, 28 + 5, 12, 127 * MIB + 256 * 1024,
};

FIXTURE_VARIANT_ADD(churn, q35) {
	"data/churn-q35.map", 18, 28 + 5, 12, 127 * MIB + 256 * 1024,
};

FIXTURE_VARIANT_ADD(churn, pc_smm) {
	"data/churn-pc-smm.map", 15, 34 + 34 + 10, 15 + 15, 128 * MIB,
};

FIXTURE_VARIANT_ADD(churn, q35_smm) {
	"data/churn-q35-smm.map", 20, 34 + 32 + 10, 15 + 14, 128 * MIB,
};

FIXTURE_SETUP(churn)
{
}

FIXTURE_TEARDOWN(churn)
{
}

TEST_F(churn, large_slots_stay_and_it_takes_fewer_operations_than_qemu)
{
	struct churn_total total;

	EXPECT_NULL_WHY(churn_replay(variant->path, NULL, NULL, &total));
	EXPECT_EQ(variant->commits, total.commits);
	/* The sequence is the one that was taken from QEMU. */
	EXPECT_EQ(variant->qemu_operations, churn_operations(&total.qemu));
	EXPECT_EQ(variant->qemu_deletes, total.qemu.deletes);
	EXPECT_EQ(variant->qemu_largest, total.qemu.largest_delete);

	EXPECT_GE(MIB, total.did.largest_delete);
	EXPECT_GT(total.qemu.deletes, total.did.deletes);
	EXPECT_GT(variant->qemu_operations, churn_operations(&total.did));
}

TEST_HARNESS_MAIN
