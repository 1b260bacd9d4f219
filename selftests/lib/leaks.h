/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For tests that look for what is left behind: the references on the module and the VMs
 * that there were before any of the program's tests ran.
 *
 * close() leaves what may have to wait to a work item of the module's, so what is left is
 * what does not go within some seconds.
 */
#ifndef LEAKS_H
#define LEAKS_H

#include <unistd.h>
#include "gpamap_util.h"

#define LEAKS_MS 5000

/* Before any test runs. */
static int refcnt_before = -1, vms_before = -1;

static inline int gpamap_refcnt(void)
{
	return module_refcnt("gpamap");
}

static void __attribute__((constructor)) note_refcnt(void)
{
	refcnt_before = gpamap_refcnt();
	vms_before = kvm_vms();
}

/* What @count says in the end: @want, unless it is not reached in time. */
static inline int settled(int (*count)(void), int want)
{
	u64 end = now_ms() + LEAKS_MS * test_patience();

	while (count() != want && now_ms() < end)
		usleep(1000);
	return count();
}

/* No reference on the module is left; the test may still have VMs. */
#define EXPECT_NO_MAP_LEFT()							\
	do {									\
		EXPECT_LE(0, refcnt_before);					\
		EXPECT_EQ(refcnt_before, settled(gpamap_refcnt, refcnt_before));	\
	} while (0)

#define EXPECT_NOTHING_LEFT()							\
	do {									\
		EXPECT_NO_MAP_LEFT();						\
		EXPECT_LE(0, vms_before);					\
		EXPECT_EQ(vms_before, settled(kvm_vms, vms_before));		\
	} while (0)

#endif /* LEAKS_H */
