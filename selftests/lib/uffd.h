/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory whose page faults wait until the test resolves them: a vCPU that touches it sleeps
 * inside of KVM.
 */
#ifndef UFFD_H
#define UFFD_H

#include "gpamap_util.h"

/* -ENOSYS where the kernel has none. */
int uffd_open(void);
/* NULL if it cannot be had. */
void *uffd_memory(int fd, u64 npages);
/* A thread waits in a fault, from now on. */
bool uffd_has_fault(int fd);
/* With zeroes. 0 or -errno. */
int uffd_resolve(int fd, void *page);

#define SKIP_WITHOUT_UFFD()							\
	do {									\
		int __fd = uffd_open();						\
		if (__fd == -ENOSYS)						\
			SKIP(return, "this kernel has no userfaultfd");		\
		ASSERT_LE(0, __fd);						\
		close(__fd);							\
	} while (0)

#endif /* UFFD_H */
