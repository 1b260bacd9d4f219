/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the two halves of the stress test agree on: stress.c on the host, stress_guest.c
 * in the guest. Where what lies in guest-physical memory, what it contains, and the
 * block through which a vCPU and the host talk. Pages are counted from address 0.
 */
#ifndef STRESS_GUEST_H
#define STRESS_GUEST_H

#include <stdint.h>

#define NR_VCPUS 4

/* Region LOW. Real mode's code must lie in its first 16 pages. */
#define LOW_PAGES 0x80
#define TEXT_PAGE 0x01		/* stress_guest.c; see below */
#define TEXT_PAGES 3
#define BLOCK_PAGE 0x06		/* struct block of vCPU 0, and so on */
#define STACK_PAGE 0x0a		/* of vCPU 0, and so on */
#define STEAL_PAGE 0x0e		/* steal time, 64 bytes a vCPU */
#define WALK_PAGE 0x10		/* code that runs through all these pages and back */
#define WALK_PAGES 16
#define TABLE_PAGE 0x20		/* page tables of long mode */
#define TABLE_PAGES 4
#define WINDOW1_PAGE 0x28	/* change in one commit: always the same version */
#define WINDOW2_PAGE 0x2a
#define WINDOW_SMM_PAGE 0x2c	/* this one as SMM sees it */
#define DATA_PAGE 0x30		/* always this memory, always writable */
#define DATA_PAGES 0x18
#define ZONE_PAGE 0x48		/* other memory comes and goes, always writable */
#define ZONE_PAGES 0x18
#define CONST_PAGE 0x60		/* always this memory, read only now and then */
#define CONST_PAGES 0x20

/* Region BIG: blocks that are data and blocks that are constant in turn. */
#define BIG_PAGE 0x1000
#define BIG_BLOCKS 16
#define BIG_BLOCK_PAGES 64
#define BIG_PAGES (BIG_BLOCKS * BIG_BLOCK_PAGES)

/* SMRAM lies over data: SMBASE, 8 pages up the handler, at the very end the state. */
#define SMBASE_PAGE 0x30	/* of vCPU 0, the next has the next page */
#define SMRAM_PAGE (SMBASE_PAGE + 8)
#define SMRAM_PAGES 11

/* The pages that are looked at one by one: the borders of blocks in BIG. */
#define NR_DATA (DATA_PAGES + BIG_BLOCKS)
#define NR_CONST (CONST_PAGES + BIG_BLOCKS / 2 * 3)

static inline uint32_t data_page(uint32_t i)
{
	if (i < DATA_PAGES)
		return DATA_PAGE + i;
	i -= DATA_PAGES;
	return BIG_PAGE + i / 2 * 2 * BIG_BLOCK_PAGES + (i & 1) * (BIG_BLOCK_PAGES - 1);
}

static inline uint32_t const_page(uint32_t i)
{
	if (i < CONST_PAGES)
		return CONST_PAGE + i;
	i -= CONST_PAGES;
	return BIG_PAGE + (i / 3 * 2 + 1) * BIG_BLOCK_PAGES +
	       i % 3 * (BIG_BLOCK_PAGES - 1) / 2;
}

/* In the image: the SMM handler, and where vCPUs begin. */
#define SMM_AT 0
#define START_AT 0x40

/* What is in a page that is no code, table, stack or block. */
#define STAMP_AT 8		/* which memory it is, in a u32, or which version */
#define CONST_AT 0x10		/* in a constant page: the stamp 4 times again */
#define OWN_AT 0x100		/* a u32 for every vCPU */
#define STRING_AT 0x200		/* STRING_WORDS u32 for every vCPU */
#define ACROSS_AT 0xffe		/* 2 bytes here, 2 of the next page: one vCPU's */
#define STRING_WORDS 4

#define STAMP_BASE 0x1a5e0000U	/* with the page in LOW or BIG */
#define STAMP_OVER 0x2b6f0000U	/* with the page at which OVER shows it */
#define STAMP_MOVED 0x3c700000U	/* with the page of MOVED */
#define STAMP_MASK 0xffff0000U

/* Each step of the walk adds a bit of its own: page to page, and in the page back. */
#define WALK_SUM 0xffff7fffU

/* What the host's answer to a string read is made of; or-ed with the word's index. */
#define STRING_ANSWER 0x57123450U

/* Ports. */
#define PORT_DONE 0xf0		/* ->stop was seen */
#define PORT_FAILED 0xf4	/* ->what and the rest are filled */
#define PORT_STRING 0xf8

/* What a guest found wrong. */
enum {
	WRONG_KEPT = 1,		/* data of the lap before */
	WRONG_DATA,		/* data written in this lap */
	WRONG_ACROSS,		/* over the border of two pages */
	WRONG_STAMP,		/* not the page that belongs here */
	WRONG_WALK,		/* code was skipped, or run twice, or not ours */
	WRONG_VERSION,		/* older than before */
	WRONG_MIXTURE,		/* two windows of different commits */
	WRONG_WINDOW,		/* lost write to a window */
	WRONG_SMM,		/* SMM saw a window of another commit */
	WRONG_NO_SMI,		/* an SMI did not arrive, or left no trace */
	WRONG_STRING,		/* string input did not get to memory */
	WRONG_STEAL,		/* steal time torn or running back */
};

/* A vCPU's own page. */
struct block {
	/* Written by the host. */
	uint32_t stop;
	uint32_t fresh;		/* what data was before is not known */
	uint32_t smi;		/* there are a LAPIC and SMRAM */
	/* Written by the guest. */
	uint32_t seq;		/* what is in all data pages at the end of a lap */
	uint32_t laps;
	uint32_t version;	/* of the windows, seen last */
	uint32_t steal[2];	/* seen last */
	uint32_t page;		/* that a string is written from */
	uint32_t what;
	uint32_t addr;
	uint32_t want;
	uint32_t is;
	/* Written in SMM. */
	uint32_t smm_version;
	uint32_t smm_count;
};

#endif /* STRESS_GUEST_H */
