// SPDX-License-Identifier: GPL-2.0
/*
 * card: the guest's half of gvmm's card (samples/gvmm/card.c), which moves while it is
 * used.
 *
 *	card PLACE PLACE
 *
 * Writes to the doorbell at both places in turn, as long as there are moves to come, and
 * tells the card how often. Now and then it reads how many there are, at the place where
 * the card is; the other one gives ones. At the end, when it has come to rest, one place
 * must have it and the other must not. Status 0 if so.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define NOTHING 0xffffffff
#define ID 0x64726163		/* "card" */
#define TURNS 8

enum { ID_REG, LEFT, RING, WRITES };	/* registers of four bytes */

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "card: %s: %s\n", what, why);
	exit(1);
}

static volatile uint32_t *map_page(const char *place)
{
	static int fd = -1;
	char *end;
	uint64_t at = strtoull(place, &end, 16);
	void *page;

	if (*end || end == place || at % PAGE)
		fail(place, "not the address of a page");
	if (fd < 0)
		fd = open("/dev/mem", O_RDWR | O_SYNC);
	if (fd < 0)
		fail("/dev/mem", strerror(errno));
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at);
	if (page == MAP_FAILED)
		fail(place, strerror(errno));
	return page;
}

int main(int argc, char **argv)
{
	volatile uint32_t *place[2];
	uint32_t left = NOTHING, value, writes = 0, seen[2] = { 0, 0 };
	unsigned int i;

	if (argc != 3)
		fail("usage", "card PLACE PLACE");
	place[0] = map_page(argv[1]);
	place[1] = map_page(argv[2]);
	while (left) {
		for (i = 0; i < TURNS; i++) {
			place[i % 2][RING] = i;
			writes++;
		}
		for (i = 0; i < 2; i++) {
			value = place[i][LEFT];
			if (value != NOTHING) {
				left = value;
				seen[i]++;
			}
		}
	}
	/* It rests now: the last move was told of after it was made. */
	i = place[0][ID_REG] != ID;
	if (place[i][ID_REG] != ID)
		fail("it is at neither place", "gone");
	if (place[!i][ID_REG] != NOTHING)
		fail("both places", "it is at the other place, too");
	place[i][WRITES] = writes;
	printf("card: %u writes at two places, seen %u times at the first, %u at the second\n",
	       writes, seen[0], seen[1]);
	return 0;
}
