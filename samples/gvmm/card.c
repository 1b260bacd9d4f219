// SPDX-License-Identifier: GPL-2.0
/*
 * The card (--move-bar N): a device that moves under the running guest.
 *
 * A real one is a PCI card whose BAR is programmed anew. This one is a page of
 * registers that is now at one of two places, now at the other. A thread of gvmm moves
 * it, one commit each, while the guest's vCPUs run on. The guest (guest/card.c) writes
 * RING at both places in turn, all the time and without asking where the card is.
 *
 *	0x00	ID	constant
 *	0x04	LEFT	how many moves are still to come; gvmm writes it, the guest
 *			reads it without an exit
 *	0x08	RING	a doorbell
 *	0x0c	WRITES	the guest says at the end how often it wrote RING; it is stored
 *			in the page, and a doorbell tells gvmm
 *
 * The card goes on to the other place when its doorbell has rung RINGS times since it
 * came. So all N moves are only done if the doorbell has come along every time. A write
 * where the card is not leaves to gvmm, which counts it. In the end each write that the
 * guest made must have been one or the other: none lost, none answered twice.
 *
 * Threads: the card's own, and vCPUs, which only count.
 */
#include "gvmm.h"

#include <errno.h>
#include <gpamap.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
	CARD_ID = 0x00,
	CARD_LEFT = 0x04,
	CARD_RING = 0x08,
	CARD_WRITES = 0x0c,
};

#define ID 0x64726163		/* "card" */
#define RINGS 2

struct card {
	/* fixed */
	struct gvmm *vm;
	unsigned int moves;		/* that are wanted */
	uint32_t region;
	int ring_fd, writes_fd, stop_fd;
	struct gpamap_register registers[3];
	struct gpamap_ties_doorbell doorbells[2];
	pthread_t thread;

	_Atomic uint32_t *page;		/* fixed */

	_Atomic uint64_t misses;	/* writes to RING where the card was not */
	/* the card's thread only; after its end the main thread */
	unsigned int moved;
	unsigned int since;		/* rings since it came here */
	uint64_t rings;
	bool agreed;			/* with the guest, on how often it wrote */
};

static const uint64_t places[] = { GPA_CARD0, GPA_CARD1 };

/*
 * A write that nobody has answered in the kernel. Where the card is by now does not
 * matter: it was not there when the guest wrote.
 */
void card_unanswered(struct gvmm *vm, uint64_t gpa, bool write)
{
	unsigned int i;

	if (!vm->card || !write)
		return;
	for (i = 0; i < ARRAY_SIZE(places); i++) {
		if (gpa == places[i] + CARD_RING)
			atomic_fetch_add(&vm->card->misses, 1);
	}
}

/* An access to the card, which has moved since it left, or to no register. */
static void card_access(void *device, uint64_t offset, bool write, uint8_t *data,
			unsigned int len)
{
	struct card *card = device;

	if (write && offset == CARD_RING)
		atomic_fetch_add(&card->misses, 1);
	if (!write)
		memset(data, 0xff, len);
}

static uint64_t take_count(int fd)
{
	uint64_t count;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static void card_move(struct card *card)
{
	unsigned int to = (card->moved + 1) % ARRAY_SIZE(places);

	if (!memory_move(card->vm, card->region, places[to]))
		return;
	card->moved++;
	atomic_store(&card->page[CARD_LEFT / 4], card->moves - card->moved);
	/* What rang at the old place, or before the page said so, counts for neither. */
	card->rings += take_count(card->ring_fd);
	card->since = 0;
}

/* The guest is done: does its count agree with ours? */
static void card_compare(struct card *card)
{
	uint64_t misses = atomic_load(&card->misses);
	uint32_t writes = atomic_load(&card->page[CARD_WRITES / 4]);

	card->rings += take_count(card->ring_fd);
	card->agreed = card->rings + misses == writes;
	if (!card->agreed)
		gvmm_end(card->vm, GVMM_ERROR,
			 "the guest wrote %u times to the card, but %llu rang and %llu left",
			 writes, (unsigned long long)card->rings,
			 (unsigned long long)misses);
}

static void *card_thread(void *arg)
{
	struct card *card = arg;
	struct pollfd fds[] = {
		{ .fd = card->ring_fd, .events = POLLIN },
		{ .fd = card->writes_fd, .events = POLLIN },
		{ .fd = card->stop_fd, .events = POLLIN },
	};
	uint64_t count;

	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue;
		if (fds[0].revents) {
			count = take_count(card->ring_fd);
			card->rings += count;
			card->since += count;
			if (card->since >= RINGS && card->moved < card->moves)
				card_move(card);
		}
		if (fds[1].revents && take_count(card->writes_fd))
			card_compare(card);
		if (fds[2].revents)
			return NULL;
	}
}

/* ---- set-up and end: the main thread ---------------------------------- */

static int event_fd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		fail("eventfd: %s (%s)", strerror(errno), error_name(errno));
	return fd;
}

/* Tells which registers and doorbells it has. */
static void card_tie(struct card *card)
{
	card->registers[0] = (struct gpamap_register){
		CARD_ID, 4, GPAMAP_REGISTER_CONSTANT, ID,
	};
	card->registers[1] = (struct gpamap_register){
		CARD_LEFT, 4, GPAMAP_REGISTER_READONLY, card->moves,
	};
	card->registers[2] = (struct gpamap_register){
		CARD_WRITES, 4, GPAMAP_REGISTER_READWRITE, 0,
	};
	card->doorbells[0] = (struct gpamap_ties_doorbell){
		.offset = CARD_RING, .len = 4, .fd = card->ring_fd,
	};
	card->doorbells[1] = (struct gpamap_ties_doorbell){
		.offset = CARD_WRITES, .len = 4, .fd = card->writes_fd,
	};
	memory_tie(card->vm, card->region, &(struct io_ties){
		.registers = card->registers, .nr_registers = ARRAY_SIZE(card->registers),
		.doorbells = card->doorbells, .nr_doorbells = ARRAY_SIZE(card->doorbells),
	});
}

/* Adds a card that moves @moves times, before there is memory. */
void card_add(struct gvmm *vm, unsigned int moves)
{
	struct card *card = calloc(1, sizeof(*card));

	if (!card)
		fail("the card: out of memory");
	card->vm = vm;
	card->moves = moves;
	card->ring_fd = event_fd();
	card->writes_fd = event_fd();
	card->stop_fd = event_fd();
	card->region = memory_add_io(vm, "card", places[0], CARD_LEN, card_access, card);
	card_tie(card);
	vm->card = card;
}

/* When there is memory. */
void card_connect(struct gvmm *vm)
{
	vm->card->page = memory_registers(vm, vm->card->region);
}

void card_start(struct gvmm *vm)
{
	struct card *card = vm->card;
	int err = pthread_create(&card->thread, NULL, card_thread, card);

	if (err)
		fail("the card's thread: %s (%s)", strerror(err), error_name(err));
}

/* Ends its thread and says what has become of it. */
void card_stop(struct gvmm *vm)
{
	struct card *card = vm->card;
	uint64_t one = 1;

	if (write(card->stop_fd, &one, sizeof(one)) != sizeof(one))
		return;
	pthread_join(card->thread, NULL);
	fprintf(stderr, "gvmm: the card moved %u of %u times; %llu writes rang its doorbell, "
		"%llu found it gone%s\n", card->moved, card->moves,
		(unsigned long long)card->rings,
		(unsigned long long)atomic_load(&card->misses),
		card->agreed ? "; the guest counted as many" : "");
}
