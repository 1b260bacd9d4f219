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
 * Set-up only, by the main thread. Whatever is wrong ends gvmm with a message; file
 * and header are not trusted.
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
	uint8_t *data;
	size_t len;
};

/* Reads all of @path, which may be a pipe. */
static struct file file_read(const char *what, const char *path)
{
	struct file file = { NULL, 0 };
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

/* Copies the header out of a bzImage after checking what will be relied upon. */
static struct setup_header header_read(const struct file *file, const char *path)
{
	struct setup_header hdr;

	if (file->len < HEADER_OFFSET + sizeof(hdr))
		fail("kernel %s: too short for a bzImage", path);
	memcpy(&hdr, file->data + HEADER_OFFSET, sizeof(hdr));
	if (hdr.boot_flag != 0xaa55 || hdr.header != HEADER_MAGIC)
		fail("kernel %s: not a bzImage of Linux for x86", path);
	if (hdr.version < PROTOCOL_MIN)
		fail("kernel %s: boot protocol %u.%02u, 2.10 or newer is needed", path,
		     hdr.version >> 8, hdr.version & 0xff);
	if (!(hdr.loadflags & LOADED_HIGH))
		fail("kernel %s: a zImage, only a bzImage can be booted", path);
	if (!hdr.setup_sects)
		hdr.setup_sects = 4;
	return hdr;
}

/* Puts the kernel proper into RAM. Returns the end of the room it needs. */
static uint64_t load_kernel(struct gvmm *vm, const struct setup_header *hdr,
			    const struct file *file, const char *path)
{
	uint64_t setup_len = (hdr->setup_sects + 1) * SECTOR;
	uint64_t len = hdr->syssize * 16ULL;
	uint64_t at = GPA_HIGH;
	uint64_t end;
	uint8_t *to;

	if (file->len <= setup_len)
		fail("kernel %s: the file is cut short", path);
	/* The last unit of 16 bytes need not be full. */
	if (len > file->len - setup_len && len - (file->len - setup_len) < 16)
		len = file->len - setup_len;
	if (!len || len > file->len - setup_len)
		fail("kernel %s: the file is cut short", path);

	if (hdr->pref_address < GPA_HIGH || hdr->pref_address > UINT32_MAX)
		fail("kernel %s: it wants to run at 0x%llx, which is out of reach", path,
		     (unsigned long long)hdr->pref_address);
	/* One that can be moved is put where it need not move itself. */
	if (hdr->relocatable_kernel)
		at = hdr->pref_address;
	end = hdr->pref_address + hdr->init_size;
	if (end < at + len)
		end = at + len;
	to = memory_at(vm, at, end - at);
	if (!to)
		fail("kernel %s: it needs %llu MiB of memory to start, see -m", path,
		     (unsigned long long)((end + MIB - 1) / MIB));
	memcpy(to, file->data + setup_len, len);
	vm->entry = at;
	return end;
}

/* Puts the initrd as high as possible, above @from. */
static void load_initrd(struct gvmm *vm, struct setup_header *hdr, uint64_t from,
			const char *path)
{
	struct file file = file_read("initrd", path);
	uint64_t top = memory_low_end(vm);
	uint64_t at;

	if (top > hdr->initrd_addr_max + 1ULL)
		top = hdr->initrd_addr_max + 1ULL;
	if (file.len > top || ((top - file.len) & ~(PAGE - 1)) < from)
		fail("initrd %s: its %zu KiB do not fit above the kernel, see -m", path,
		     (size_t)((file.len + KIB - 1) / KIB));
	at = (top - file.len) & ~(PAGE - 1);
	memcpy(memory_at(vm, at, file.len), file.data, file.len);
	hdr->ramdisk_image = at;
	hdr->ramdisk_size = file.len;
	free(file.data);
}

static void load_cmdline(struct gvmm *vm, struct setup_header *hdr,
			 const char *cmdline)
{
	uint64_t room = GPA_CMDLINE_END - GPA_CMDLINE - 1;
	size_t len = strlen(cmdline);

	if (room > hdr->cmdline_size)
		room = hdr->cmdline_size;
	if (len > room)
		fail("the command line has %zu bytes, this kernel takes %llu", len,
		     (unsigned long long)room);
	memcpy(memory_at(vm, GPA_CMDLINE, len + 1), cmdline, len + 1);
	hdr->cmd_line_ptr = GPA_CMDLINE;
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

/* Makes guest memory what a boot loader leaves; @initrd may be NULL. */
void boot_load(struct gvmm *vm, const char *kernel, const char *initrd,
	       const char *cmdline)
{
	struct file file = file_read("kernel", kernel);
	struct setup_header hdr = header_read(&file, kernel);
	struct boot_params *params;
	uint64_t kernel_end;
	size_t known;

	kernel_end = load_kernel(vm, &hdr, &file, kernel);
	if (initrd)
		load_initrd(vm, &hdr, kernel_end, initrd);
	load_cmdline(vm, &hdr, cmdline);
	hdr.type_of_loader = LOADER_UNKNOWN;
	hdr.vid_mode = VIDEO_NORMAL;
	hdr.code32_start = vm->entry;

	/* The header ends where the jump at its beginning leads to. */
	known = 0x202 + file.data[0x201] - HEADER_OFFSET;
	if (known > sizeof(hdr))
		known = sizeof(hdr);
	params = memory_at(vm, GPA_ZERO_PAGE, sizeof(*params));
	memset(params, 0, sizeof(*params));
	memcpy(&params->hdr, &hdr, known);
	params->acpi_rsdp_addr = GPA_BIOS + BIOS_RSDP_OFFSET;
	fill_e820(vm, params);
	free(file.data);
}
