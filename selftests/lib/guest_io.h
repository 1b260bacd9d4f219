/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a guest does with I/O: accesses to ports, and loops of accesses to one address.
 *
 * It lives at GUEST_IO_BASE, in a memslot of its own (GUEST_IO_SLOT): one page of code
 * and one of data, for all vCPUs of a VM.
 */
#ifndef GUEST_IO_H
#define GUEST_IO_H

#include "guest.h"

#define GUEST_IO_BASE 0x1f0000000ULL
#define GUEST_IO_SLOT 501
#define GUEST_IO_PAGES 2

/* Makes it, for all vCPUs of @guest's VM: where it is, or NULL. It goes with munmap(). */
void *guest_io_create(struct guest *guest);
#define GUEST_IO_LEN (GUEST_IO_PAGES * TEST_PAGE)

/*
 * @len: 1, 2 or 4. As guest_read() and guest_write(): an access that leaves is a
 * GUEST_MMIO whose address is the port.
 */
struct guest_access guest_in(struct guest *guest, u32 port, u32 len);
struct guest_access guest_out(struct guest *guest, u32 port, u32 len, u32 value);
/*
 * One string instruction that writes @count elements of @len bytes, which lie in the page
 * of data, to a port. Those that leave are copied to @left. Their number, or -1 if
 * something else happened.
 */
int guest_outs(struct guest *guest, u32 port, u32 len, u32 count, void *left);

/*
 * Loops of @count accesses of 8 bytes to @gpa, at least one, or, GUEST_LOOP_IN, reads of 4
 * bytes of the port @gpa. GUEST_LOOP_SPREAD writes anything, first to @gpa and each time
 * @value further. guest_loop() only sets the
 * vCPU up; guest_io_run() runs it, to be called until it is KVM_EXIT_HLT. What is written
 * is @value, and one more each time.
 *
 * GUEST_LOOP_WATCH watches struct guest_watch at the same time, in the page of data: a
 * write before and after which the sequence was the same even number is counted for the
 * state that this means, any other as one of which nothing is known.
 */
enum guest_loop {
	GUEST_LOOP_READ,
	GUEST_LOOP_WRITE,
	GUEST_LOOP_IN,
	GUEST_LOOP_SPREAD,
	GUEST_LOOP_WATCH,
};

#define GUEST_WATCHERS 4
#define GUEST_STATES 8

struct guest_watch {
	u64 sequence;			/* the VMM's: odd while the state changes */
	struct {
		u64 unknown;
		u64 known[GUEST_STATES];	/* by sequence / 2 modulo GUEST_STATES */
		u64 unused[7];
	} writes[GUEST_WATCHERS];
};

/* @nr: of writes in struct guest_watch. 0 or -errno. */
int guest_loop(struct guest *guest, u32 nr, enum guest_loop loop, u64 gpa, u64 count,
	       u64 value);
/* KVM_RUN: the exit reason, or -errno. */
int guest_io_run(struct guest *guest);
static inline struct guest_watch *guest_watch(void *io)
{
	return (struct guest_watch *)((char *)io + TEST_PAGE);
}

#endif /* GUEST_IO_H */
