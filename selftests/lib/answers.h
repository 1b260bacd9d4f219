/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For tests of who answers a guest's access: done in the kernel, or left to the VMM. The
 * guest is that of the test's fixture, self->guest.
 */
#ifndef ANSWERS_H
#define ANSWERS_H

#include "guest.h"

/* An access of guest_read(), guest_write(), guest_in() or guest_out() does not leave. */
#define EXPECT_DONE(_access)							\
	do {									\
		struct guest_access __a = _access;				\
		EXPECT_EQ((int)GUEST_RAM, (int)__a.how)				\
			TH_LOG("exit %d at 0x%llx", __a.reason,			\
			       (unsigned long long)__a.mmio_gpa);		\
	} while (0)

#define EXPECT_LEAVES(_access)							\
	do {									\
		struct guest_access __a = _access;				\
		EXPECT_EQ((int)GUEST_MMIO, (int)__a.how)			\
			TH_LOG("exit %d", __a.reason);				\
	} while (0)

/* The guest reads that, without leaving. */
#define EXPECT_READ(_gpa, _len, _value)						\
	do {									\
		struct guest_access __a = guest_read(&self->guest, _gpa, _len);	\
		EXPECT_EQ((int)GUEST_RAM, (int)__a.how)				\
			TH_LOG("%u bytes at 0x%llx, exit %d", (u32)(_len),	\
			       (unsigned long long)(_gpa), __a.reason);		\
		EXPECT_EQ((u64)(_value), __a.value)				\
			TH_LOG("%u bytes at 0x%llx", (u32)(_len),		\
			       (unsigned long long)(_gpa));			\
	} while (0)

#endif /* ANSWERS_H */
