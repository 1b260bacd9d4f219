/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For tests that look for what is left behind: the references on the module and the VMs
 * that there were before any of the program's tests ran.
 */
#ifndef LEAKS_H
#define LEAKS_H

#include "gpamap_util.h"

/* Before any test runs. */
static int refcnt_before = -1, vms_before = -1;

static void __attribute__((constructor)) note_refcnt(void)
{
	refcnt_before = module_refcnt();
	vms_before = kvm_vms();
}

/* No reference on the module is left; the test may still have VMs. */
#define EXPECT_NO_MAP_LEFT()							\
	do {									\
		EXPECT_LE(0, refcnt_before);					\
		EXPECT_EQ(refcnt_before, module_refcnt());			\
	} while (0)

#define EXPECT_NOTHING_LEFT()							\
	do {									\
		EXPECT_NO_MAP_LEFT();						\
		EXPECT_LE(0, vms_before);					\
		EXPECT_EQ(vms_before, kvm_vms());				\
	} while (0)

#endif /* LEAKS_H */
