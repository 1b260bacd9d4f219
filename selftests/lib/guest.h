/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A KVM VM with one vCPU that reads and writes where it is told: the centre of
 * what tests know about "as the guest sees it".
 *
 * The guest lives at GUEST_BASE, in a memslot of its own (GUEST_SLOT), which no
 * map owns. Everything below GUEST_BASE and up to GUEST_END is mapped one to one
 * in its page tables and belongs to the test.
 */
#ifndef GUEST_H
#define GUEST_H

#include "gpamap_util.h"

#define GUEST_BASE 0x180000000ULL
#define GUEST_END 0x200000000ULL
#define GUEST_SLOT 500

struct guest {
	int kvm;
	int vm;
	int vcpu;
	struct kvm_run *run;
	size_t run_len;
	void *mem;			/* at GUEST_BASE */
};

enum guest_how {
	GUEST_RAM,			/* done without an exit */
	GUEST_MMIO,			/* left as KVM_EXIT_MMIO */
	GUEST_BROKEN,			/* anything else: see reason */
};

/* What became of an access. */
struct guest_access {
	enum guest_how how;
	u64 value;			/* a read: what the guest got */
	u64 mmio_gpa;
	u32 mmio_len;
	bool mmio_write;
	u64 mmio_value;			/* a write: what the VMM got */
	int reason;			/* GUEST_BROKEN: exit reason, or -errno */
};

/* What the VMM answers to every MMIO read, cut to its length. */
#define GUEST_MMIO_ANSWER 0xfeedfacecafe5a5aULL

/* A VM without a vCPU, and one with. 0 or -errno. */
int guest_create_vm(struct guest *guest);
int guest_create(struct guest *guest);
/* Closes what is open (not -1) and unmaps. */
void guest_destroy(struct guest *guest);

/* @len: 1, 2, 4 or 8. */
struct guest_access guest_read(struct guest *guest, u64 gpa, u32 len);
struct guest_access guest_write(struct guest *guest, u64 gpa, u32 len, u64 value);

/* Runs the vCPU in a loop that counts up the 8 bytes at @gpa; returns on an exit. */
int guest_spin(struct guest *guest, u64 gpa);

/* KVM's own way to a slot: 0 or -errno. @npages 0 deletes. */
int guest_set_slot(struct guest *guest, u32 slot, u32 flags, u64 gpa, u64 npages,
		   const void *hva);

/* -- macros for tests ------------------------------------------------------ */

/* The guest reads 8 bytes at @_gpa and gets @_value from memory. */
#define EXPECT_GUEST_RAM(_guest, _gpa, _value)					\
	do {									\
		struct guest_access __a = guest_read(_guest, _gpa, 8);		\
		EXPECT_EQ((int)GUEST_RAM, (int)__a.how)				\
			TH_LOG("read at 0x%llx, exit %d",			\
			       (unsigned long long)(_gpa), __a.reason);		\
		EXPECT_EQ((u64)(_value), __a.value)				\
			TH_LOG("read at 0x%llx", (unsigned long long)(_gpa));	\
	} while (0)

/* A read and a write of 8 bytes at @_gpa leave as MMIO exits with that address. */
#define EXPECT_GUEST_MMIO(_guest, _gpa)						\
	do {									\
		struct guest_access __a = guest_read(_guest, _gpa, 8);		\
		EXPECT_EQ((int)GUEST_MMIO, (int)__a.how)			\
			TH_LOG("read at 0x%llx, exit %d",			\
			       (unsigned long long)(_gpa), __a.reason);		\
		EXPECT_EQ((u64)(_gpa), __a.mmio_gpa);				\
		EXPECT_EQ(8u, __a.mmio_len);					\
		EXPECT_EQ(false, __a.mmio_write);				\
		EXPECT_EQ(GUEST_MMIO_ANSWER, __a.value);			\
		EXPECT_GUEST_WRITE_MMIO(_guest, _gpa);				\
	} while (0)

/* A write of 8 bytes at @_gpa leaves as an MMIO exit. */
#define EXPECT_GUEST_WRITE_MMIO(_guest, _gpa)					\
	do {									\
		struct guest_access __w =					\
			guest_write(_guest, _gpa, 8, 0x1122334455667788ULL);	\
		EXPECT_EQ((int)GUEST_MMIO, (int)__w.how)			\
			TH_LOG("write at 0x%llx, exit %d",			\
			       (unsigned long long)(_gpa), __w.reason);		\
		EXPECT_EQ((u64)(_gpa), __w.mmio_gpa);				\
		EXPECT_EQ(8u, __w.mmio_len);					\
		EXPECT_EQ(true, __w.mmio_write);				\
		EXPECT_EQ(0x1122334455667788ULL, __w.mmio_value);		\
	} while (0)

/* The guest writes 8 bytes at @_gpa and they are at @_hva. */
#define EXPECT_GUEST_WRITE_RAM(_guest, _gpa, _hva, _value)			\
	do {									\
		struct guest_access __w = guest_write(_guest, _gpa, 8, _value);	\
		EXPECT_EQ((int)GUEST_RAM, (int)__w.how)				\
			TH_LOG("write at 0x%llx, exit %d",			\
			       (unsigned long long)(_gpa), __w.reason);		\
		EXPECT_EQ((u64)(_value), *(volatile u64 *)(_hva))		\
			TH_LOG("write at 0x%llx", (unsigned long long)(_gpa));	\
	} while (0)

#endif /* GUEST_H */
