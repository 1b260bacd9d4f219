// SPDX-License-Identifier: GPL-2.0
/*
 * Loading a kernel: the boot loader's half of the Linux boot protocol.
 *
 * A bzImage is a real-mode part, of which only the header is of interest, and the
 * kernel proper, which is copied to its place above 1 MiB and entered in 32-bit
 * protected mode without paging, with the zero page (struct boot_params) in ESI.
 * See Documentation/x86/boot.rst of the kernel. Needed is protocol 2.10 (Linux
 * 2.6.31) or newer, which says where the kernel wants to run and in how much room.
 *
 *	0x10000		zero page
 *	0x20000		command line
 *	16 MiB, mostly	the kernel: from its preferred address on, init_size bytes
 *	...
 *	top of low RAM	the initrd, as high as the kernel can reach
 *
 * Set-up only, by the main thread: boot_read() before there is a VM, boot_load() when
 * it has memory. Whatever is wrong ends gvmm with a message; files and header are not
 * trusted.
 */
#include "gvmm.h"

#include <asm/bootparam.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADER_OFFSET 0x1f1
#define HEADER_JUMP 0x201		/* distance of a short jump ... */
#define HEADER_JUMP_FROM 0x202		/* ... from here */
#define BOOT_FLAG 0xaa55
#define HEADER_MAGIC 0x53726448		/* "HdrS" */
#define PROTOCOL_MIN 0x020a
#define SECTOR 512
#define PAGE 4096ULL
#define LOADER_UNKNOWN 0xff
#define VIDEO_NORMAL 0xffff
#define E820_RAM 1
#define E820_RESERVED 2

static_assert(offsetof(struct boot_params, hdr) == HEADER_OFFSET, "boot protocol");

struct file {
	const char *path;
	uint8_t *data;
	size_t len;
};

static struct file kernel, initrd;	/* initrd.path is NULL without one */
static struct setup_header hdr;		/* of the kernel, as it will be told */
static const uint8_t *code;		/* the kernel proper, in kernel.data */
static uint64_t code_len;

/* Reads all of @path, which may be a pipe. */
static struct file file_read(const char *what, const char *path)
{
	struct file file = { .path = path };
	size_t room = 0;
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail("%s %s: %s (%s)", what, path, strerror(errno), error_name(errno));
	for (;;) {
		if (file.len == room) {
			room = room ? 2 * room : 16 * MIB;
			file.data = realloc(file.data, room);
			if (!file.data)
				fail("%s %s: too large for this host's memory", what,
				     path);
		}
		n = read(fd, file.data + file.len, room - file.len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			fail("%s %s: %s (%s)", what, path, strerror(errno),
			     error_name(errno));
		if (n == 0)
			break;
		file.len += n;
	}
	close(fd);
	if (!file.len)
		fail("%s %s: the file is empty", what, path);
	return file;
}

/* Copies the header out of the bzImage after checking what will be relied upon. */
static void header_read(void)
{
	size_t known;

	if (kernel.len < HEADER_OFFSET + sizeof(hdr))
		fail("kernel %s: too short for a bzImage", kernel.path);
	/* The header ends where the jump at its beginning leads to. */
	known = HEADER_JUMP_FROM + kernel.data[HEADER_JUMP] - HEADER_OFFSET;
	memcpy(&hdr, kernel.data + HEADER_OFFSET,
	       known < sizeof(hdr) ? known : sizeof(hdr));
	if (hdr.boot_flag != BOOT_FLAG || hdr.header != HEADER_MAGIC)
		fail("kernel %s: not a bzImage of Linux for x86", kernel.path);
	if (hdr.version < PROTOCOL_MIN)
		fail("kernel %s: boot protocol %u.%02u, 2.10 or newer is needed",
		     kernel.path, hdr.version >> 8, hdr.version & 0xff);
	if (!(hdr.loadflags & LOADED_HIGH))
		fail("kernel %s: a zImage, only a bzImage can be booted", kernel.path);
	if (hdr.pref_address < GPA_HIGH || hdr.pref_address > UINT32_MAX)
		fail("kernel %s: it wants to run at 0x%llx, which is out of reach",
		     kernel.path, (unsigned long long)hdr.pref_address);
	if (!hdr.setup_sects)
		hdr.setup_sects = 4;
}

/* Finds the kernel proper, which begins where the real-mode part ends. */
static void find_code(void)
{
	size_t setup_len = (hdr.setup_sects + 1) * SECTOR;

	code_len = hdr.syssize * 16ULL;
	code = kernel.data + setup_len;
	/* The last unit of 16 bytes need not be full. */
	if (!code_len || kernel.len <= setup_len ||
	    kernel.len - setup_len + 15 < code_len)
		fail("kernel %s: the file is cut short", kernel.path);
	if (code_len > kernel.len - setup_len)
		code_len = kernel.len - setup_len;
}

/* Reads the files, so that what is wrong with them is told first. */
void boot_read(const char *kernel_path, const char *initrd_path)
{
	kernel = file_read("kernel", kernel_path);
	header_read();
	find_code();
	if (initrd_path)
		initrd = file_read("initrd", initrd_path);
}

/* Puts the kernel proper into RAM. Returns the end of the room it needs. */
static uint64_t load_kernel(struct gvmm *vm)
{
	uint64_t at = GPA_HIGH;
	uint64_t end;
	uint8_t *to;

	/* One that can be moved is put where it need not move itself. */
	if (hdr.relocatable_kernel)
		at = hdr.pref_address;
	end = hdr.pref_address + hdr.init_size;
	if (end < at + code_len)
		end = at + code_len;
	to = memory_at(vm, at, end - at);
	if (!to)
		fail("kernel %s: it needs %llu MiB of memory to start, see -m",
		     kernel.path, (unsigned long long)((end + MIB - 1) / MIB));
	memcpy(to, code, code_len);
	vm->entry = at;
	return end;
}

/* Puts the initrd as high as possible, above @from. */
static void load_initrd(struct gvmm *vm, uint64_t from)
{
	uint64_t top = memory_low_end(vm);
	uint64_t at;

	if (top > hdr.initrd_addr_max + 1ULL)
		top = hdr.initrd_addr_max + 1ULL;
	if (initrd.len > top || ((top - initrd.len) & ~(PAGE - 1)) < from)
		fail("initrd %s: its %zu KiB do not fit above the kernel, see -m",
		     initrd.path, (size_t)((initrd.len + KIB - 1) / KIB));
	at = (top - initrd.len) & ~(PAGE - 1);
	memcpy(memory_at(vm, at, initrd.len), initrd.data, initrd.len);
	hdr.ramdisk_image = at;
	hdr.ramdisk_size = initrd.len;
}

static void load_cmdline(struct gvmm *vm, const char *cmdline)
{
	uint64_t room = GPA_CMDLINE_END - GPA_CMDLINE - 1;
	size_t len = strlen(cmdline);

	if (room > hdr.cmdline_size)
		room = hdr.cmdline_size;
	if (len > room)
		fail("the command line has %zu bytes, this kernel takes %llu", len,
		     (unsigned long long)room);
	memcpy(memory_at(vm, GPA_CMDLINE, len + 1), cmdline, len + 1);
	hdr.cmd_line_ptr = GPA_CMDLINE;
}

static void e820_add(struct boot_params *params, uint64_t start, uint64_t end,
		     uint32_t type)
{
	params->e820_table[params->e820_entries++] = (struct boot_e820_entry) {
		.addr = start, .size = end - start, .type = type,
	};
}

/* Says what is where. What is in no entry is free for devices. */
static void fill_e820(struct gvmm *vm, struct boot_params *params)
{
	uint64_t low_end = memory_low_end(vm);

	e820_add(params, 0, GPA_VGA, E820_RAM);
	e820_add(params, GPA_BIOS, GPA_BIOS + BIOS_LEN, E820_RESERVED);
	e820_add(params, GPA_HIGH, low_end, E820_RAM);
	e820_add(params, GPA_KVM_IDENTITY, GPA_KVM_END, E820_RESERVED);
	e820_add(params, GPA_BIOS_TOP, GPA_BIOS_TOP + BIOS_LEN, E820_RESERVED);
	if (vm->ram_len > low_end)
		e820_add(params, GPA_HIGH_RAM, GPA_HIGH_RAM + vm->ram_len - low_end,
			 E820_RAM);
}

/* Makes guest memory what a boot loader leaves. */
void boot_load(struct gvmm *vm, const char *cmdline)
{
	struct boot_params *params;
	uint64_t kernel_end;

	kernel_end = load_kernel(vm);
	if (initrd.path)
		load_initrd(vm, kernel_end);
	load_cmdline(vm, cmdline);
	hdr.type_of_loader = LOADER_UNKNOWN;
	hdr.vid_mode = VIDEO_NORMAL;
	hdr.code32_start = vm->entry;

	params = memory_at(vm, GPA_ZERO_PAGE, sizeof(*params));
	memset(params, 0, sizeof(*params));
	params->hdr = hdr;
	params->acpi_rsdp_addr = GPA_BIOS + BIOS_RSDP_OFFSET;
	fill_e820(vm, params);
	free(kernel.data);
	free(initrd.data);
}
