/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A KVM VM with one vCPU that reads and writes where it is told: the centre of
 * what tests know about "as the guest sees it".
 *
 * The guest lives at GUEST_BASE, in a memslot of its own (GUEST_SLOT), which no
 * map owns. Everything below GUEST_BASE and up to GUEST_END is mapped one to one
 * in its page tables and belongs to the test.
 *
 * What the guest lives in is a memfd, GUEST_PAGES long: a test that wants it in a map
 * deletes GUEST_SLOT, and may have it there at two addresses of its own.
 *
 * A VM can have more vCPUs. Each is a struct guest that shares the VM and the memory of
 * the first. All of them can run programs (enum guest_program); vcpu.h has threads.
 */
#ifndef GUEST_H
#define GUEST_H

#include "gpamap_util.h"

#define GUEST_BASE 0x180000000ULL
#define GUEST_END 0x200000000ULL
#define GUEST_SLOT 500

/* Page tables, code, descriptors, stacks, counters, data. */
#define GUEST_DATA_PAGES 4
#define GUEST_PAGES (2 + (GUEST_END >> 30) + 4 + GUEST_DATA_PAGES)
#define GUEST_LEN (GUEST_PAGES * TEST_PAGE)
#define GUEST_DATA (GUEST_BASE + GUEST_LEN - GUEST_DATA_PAGES * TEST_PAGE)
#define GUEST_MAX_VCPUS 64

struct guest {
	int kvm;
	int vm;
	int vcpu;
	u32 id;				/* of the vCPU */
	struct kvm_run *run;
	size_t run_len;
	void *mem;			/* at GUEST_BASE */
	int memfd;			/* what it is made of */
	bool irqchip;			/* KVM's; then HLT does not leave to the VMM */
	bool shares;			/* kvm, vm, mem and memfd are the first vCPU's */
};

/*
 * What a vCPU can do by itself. Each ends, or has a step, where it says so, by an OUT to
 * GUEST_PORT; whatever else makes KVM_RUN return is not its doing.
 */
enum guest_program {
	/*
	 * Counts up the 8 bytes at rdi, for ever, and leaves by an OUT to
	 * GUEST_LOST_PORT if they are not what it wrote last.
	 */
	GUEST_COUNT = 8,
	/* Counts up the 8 bytes at rdi and leaves by an OUT, for ever. */
	GUEST_OUT,
	/* Halts, with interrupts on; after each counts up and leaves by an OUT. */
	GUEST_HALT,
	/* rep insb: rcx bytes from the port GUEST_DATA_PORT to rdi. Ends. */
	GUEST_INS,
	/* rep outsb: rcx bytes from rsi to the port. Ends. */
	GUEST_OUTS,
	/* rep movsb: rcx bytes from rsi to rdi. Ends. */
	GUEST_MOVS,
};

#define GUEST_PORT 0x10
#define GUEST_LOST_PORT 0x11
#define GUEST_DATA_PORT 0x12
/* The interrupt that a guest has a handler for. */
#define GUEST_VECTOR 0x30

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

/* A VM without a vCPU, one with, and one with KVM's irqchip too. 0 or -errno. */
int guest_create_vm(struct guest *guest);
int guest_create(struct guest *guest);
int guest_create_irqchip(struct guest *guest);
/*
 * One more vCPU of a VM, to be destroyed before the first. With an irqchip it waits to be
 * started by another vCPU, or by guest_start().
 */
int guest_add_vcpu(struct guest *vcpu, const struct guest *first, u32 id);
/* Closes what is open (not -1) and unmaps. */
void guest_destroy(struct guest *guest);

/* @len: 1, 2, 4 or 8. */
struct guest_access guest_read(struct guest *guest, u64 gpa, u32 len);
struct guest_access guest_write(struct guest *guest, u64 gpa, u32 len, u64 value);

/* Runs the vCPU in a loop that counts up the 8 bytes at @gpa; returns on an exit. */
int guest_spin(struct guest *guest, u64 gpa);

/* Sets the vCPU to the begin of a program; and KVM_RUN, once: exit reason or -errno. */
int guest_start(struct guest *guest, enum guest_program program, u64 rdi, u64 rsi,
		u64 rcx);
int guest_run(struct guest *guest);
/* 8 bytes that the vCPU has for itself: where the guest has them, and where we. */
u64 guest_counter_gpa(const struct guest *guest);
volatile u64 *guest_counter(const struct guest *guest);
/* The last exit was an OUT to @port. */
bool guest_left_by_out(const struct guest *guest, u32 port);
/* Sends a message to the vCPU with that id: @data is delivery mode and vector. */
int guest_signal_msi(const struct guest *guest, u32 id, u32 data);

/* KVM's own way to a slot: 0 or -errno. @npages 0 deletes. */
int guest_set_slot(struct guest *guest, u32 slot, u32 flags, u64 gpa, u64 npages,
		   const void *hva);

/*
 * NULL if the guest and QUERY_SLOTS agree at the pages of all @gpas: the guest reads what
 * the host has there, writes where the slot can be written, and leaves with an MMIO exit
 * where there is none, but for memory in a page that is only in part memory. Else what
 * differs. Of address space 0.
 */
const char *guest_slots_diff(struct guest *guest, int map, const u64 *gpas, u32 nr);
/*
 * NULL if KVM and QUERY_SLOTS agree whether there is a slot at the pages of all @gpas: a
 * slot of one page can be made there, with the id @slot, or not. Of any address space.
 */
const char *guest_places_diff(struct guest *guest, int map, u32 as_id, u32 slot,
			      const u64 *gpas, u32 nr);

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
