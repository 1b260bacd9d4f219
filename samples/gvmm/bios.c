// SPDX-License-Identifier: GPL-2.0
/*
 * The ROM: 64 KiB that a guest sees below 1 MiB and again below 4 GiB.
 *
 * There is no firmware: gvmm does what firmware would have done before it starts a
 * kernel. The ROM holds what a kernel looks for there, and cannot be written, so a
 * guest that runs wild finds it whole.
 *
 *	0x0000	a text that says what this is
 *	0x0100	the GDT that the boot protocol asks for. Its descriptors are marked
 *		as accessed: the processor would try to write that bit otherwise
 *	0x0200	ACPI: the RSDP, then the tables. They are how a kernel finds the
 *		processors and the I/O APIC (MADT), how to reset and to power off
 *		(FADT, and \_S5 in the DSDT), and the virtio devices (DSDT).
 *		Distributions build no kernels any more that read the older MP table
 *	0xff00	code that pulls the reset line of the keyboard controller
 *	0xfff0	the reset vector, which jumps there
 *
 * Interrupts: KVM connects each ISA interrupt to the I/O APIC's pin of the same
 * number, the timer's 0 included, and to the two PICs. Of the fixed hardware of ACPI
 * there is the PM1 block (ports.c), and its interrupt 9 is never raised.
 *
 * Set-up only, by the main thread.
 */
#include "gvmm.h"

#include <assert.h>
#include <string.h>

#define RESET_OFFSET 0xff00
#define VECTOR_OFFSET 0xfff0
#define DATE_OFFSET 0xfff5
#define MODEL_OFFSET 0xfffe

#define SCI_IRQ 9
#define CMOS_CENTURY 0x32
#define NO_C_STATE 0xffff

#define packed __attribute__((packed))

struct acpi_rsdp {
	char signature[8];
	uint8_t checksum;	/* of the first 20 bytes */
	char oem[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t len;
	uint64_t xsdt;
	uint8_t ext_checksum;
	uint8_t reserved[3];
} packed;
static_assert(sizeof(struct acpi_rsdp) == 36, "ACPI 5.2.5.3");

struct acpi_header {
	char signature[4];
	uint32_t len;
	uint8_t revision;
	uint8_t checksum;
	char oem[6];
	char oem_table[8];
	uint32_t oem_revision;
	char creator[4];
	uint32_t creator_revision;
} packed;
static_assert(sizeof(struct acpi_header) == 36, "ACPI 5.2.6");

enum { ACPI_SPACE_IO = 1 };

struct acpi_address {
	uint8_t space;
	uint8_t bits;
	uint8_t bit_offset;
	uint8_t access;		/* 1: bytes, 2: words */
	uint64_t address;
} packed;

enum acpi_fadt_boot {
	FADT_LEGACY_DEVICES = 1 << 0,
	FADT_NO_VGA = 1 << 2,
	FADT_NO_MSI = 1 << 3,
};

enum acpi_fadt_flags {
	FADT_WBINVD = 1 << 0,
	FADT_C1 = 1 << 2,
	FADT_NO_POWER_BUTTON = 1 << 4,
	FADT_NO_SLEEP_BUTTON = 1 << 5,
	FADT_PM_TIMER_32BIT = 1 << 8,
	FADT_RESET = 1 << 10,
};

struct acpi_fadt {
	struct acpi_header header;
	uint32_t facs;
	uint32_t dsdt;
	uint8_t reserved1;
	uint8_t profile;
	uint16_t sci;
	uint32_t smi_port;	/* 0: in ACPI mode for ever */
	uint8_t smi_values[4];
	uint32_t pm1a_event;
	uint32_t pm1b_event;
	uint32_t pm1a_control;
	uint32_t pm1b_control;
	uint32_t pm2_control;
	uint32_t pm_timer;
	uint32_t events[2];
	uint8_t pm1_event_len;
	uint8_t pm1_control_len;
	uint8_t pm2_control_len;
	uint8_t pm_timer_len;
	uint8_t event_lens[4];
	uint16_t c2_latency;
	uint16_t c3_latency;
	uint16_t cache[2];
	uint8_t duty[2];
	uint8_t alarm[2];
	uint8_t century;
	uint16_t boot;
	uint8_t reserved2;
	uint32_t flags;
	struct acpi_address reset;
	uint8_t reset_value;
	uint8_t reserved3[3];
	uint64_t x_facs;
	uint64_t x_dsdt;
	struct acpi_address x_blocks[8];
} packed;
static_assert(sizeof(struct acpi_fadt) == 244, "ACPI 5.2.9, revision 3");
static_assert(offsetof(struct acpi_fadt, flags) == 112, "ACPI 5.2.9");

struct acpi_madt {
	struct acpi_header header;
	uint32_t local_apic;
	uint32_t flags;		/* 1: there are PICs, too */
} packed;

struct madt_cpu {
	uint8_t type, len;
	uint8_t uid;
	uint8_t apic_id;
	uint32_t flags;		/* 1: usable */
} packed;

struct madt_ioapic {
	uint8_t type, len;
	uint8_t id;
	uint8_t reserved;
	uint32_t address;
	uint32_t first_gsi;
} packed;

struct madt_override {
	uint8_t type, len;
	uint8_t bus;
	uint8_t irq;
	uint32_t gsi;
	uint16_t flags;		/* 0xd: active high, level */
} packed;

struct madt_nmi {
	uint8_t type, len;
	uint8_t uid;		/* 0xff: all */
	uint16_t flags;
	uint8_t lint;
} packed;

/* \_S5, as Package () { 5, 0, 0, 0 }: the state in which the machine is off. */
static const uint8_t aml_s5[] = {
	0x08, '_', 'S', '5', '_', 0x12, 0x07, 0x04, 0x0a, 0x05, 0x00, 0x00, 0x00,
};

/*
 * Device (\_SB.VRT0) {
 *	Name (_HID, "LNRO0005")
 *	Name (_UID, 0)
 *	Name (_CRS, ResourceTemplate () {
 *		Memory32Fixed (ReadWrite, gpa, len)
 *		Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { gsi }
 *	})
 * }
 */
struct aml_virtio {
	uint8_t device[2];
	uint8_t len[2];			/* from here to the end, see aml_len() */
	char path[10];
	uint8_t hid_name[5], hid_string;
	char hid[9];
	uint8_t uid_name[5], uid_byte, uid;
	uint8_t crs_name[5], crs_buffer;
	uint8_t crs_len[2];		/* likewise */
	uint8_t crs_count_byte, crs_count;
	uint8_t memory[4];
	uint32_t gpa, gpa_len;
	uint8_t interrupt[5];
	uint32_t gsi;
	uint8_t end[2];
} packed;
static_assert(sizeof(struct aml_virtio) - offsetof(struct aml_virtio, memory) == 23,
	      "ACPI 6.4: 12 bytes of memory, 9 of interrupt, 2 of end");

static uint8_t checksum(const void *data, size_t len)
{
	const uint8_t *byte = data;
	uint8_t sum = 0;

	while (len--)
		sum += *byte++;
	return -sum;
}

/* Tables are made one after the other; @next is where in the ROM. */
struct tables {
	struct gvmm *vm;
	uint32_t next;
};

/* Begins a table whose fixed part has @len bytes. */
static void *table_begin(struct tables *t, const char *signature, uint8_t revision,
			 size_t len)
{
	struct acpi_header *header = (void *)(t->vm->bios + t->next);

	memcpy(header->signature, signature, sizeof(header->signature));
	header->len = len;
	header->revision = revision;
	memcpy(header->oem, "GPAMAP", sizeof(header->oem));
	memcpy(header->oem_table, "GVMM    ", sizeof(header->oem_table));
	header->oem_revision = 1;
	memcpy(header->creator, "GVMM", sizeof(header->creator));
	header->creator_revision = 1;
	return header;
}

static void table_add(void *table, const void *data, size_t len)
{
	struct acpi_header *header = table;

	memcpy((uint8_t *)table + header->len, data, len);
	header->len += len;
}

/* Ends a table and returns its address. */
static uint32_t table_end(struct tables *t, void *table)
{
	struct acpi_header *header = table;
	uint32_t at = t->next;

	header->checksum = checksum(table, header->len);
	t->next += (header->len + 15) & ~15U;
	return GPA_BIOS + at;
}

/* The length of a package in two bytes, which count, too. */
static void aml_len(uint8_t to[2], unsigned int len)
{
	to[0] = 0x40 | (len & 0xf);
	to[1] = len >> 4;
}

static void add_virtio(struct gvmm *vm, void *dsdt, unsigned int index)
{
	struct aml_virtio aml = {
		.device = { 0x5b, 0x82 },
		.path = { '\\', 0x2e, '_', 'S', 'B', '_', 'V', 'R', 'T', '0' + index },
		.hid_name = { 0x08, '_', 'H', 'I', 'D' }, .hid_string = 0x0d,
		.hid = "LNRO0005",
		.uid_name = { 0x08, '_', 'U', 'I', 'D' }, .uid_byte = 0x0a, .uid = index,
		.crs_name = { 0x08, '_', 'C', 'R', 'S' }, .crs_buffer = 0x11,
		.crs_count_byte = 0x0a,
		.crs_count = sizeof(aml) - offsetof(struct aml_virtio, memory),
		.memory = { 0x86, 9, 0, 1 }, .gpa_len = VIRTIO_LEN,
		.interrupt = { 0x89, 6, 0, 1, 1 },
		.end = { 0x79, 0 },
	};
	uint64_t gpa;
	uint32_t gsi;

	virtio_place(vm, index, &gpa, &gsi);
	aml.gpa = gpa;
	aml.gsi = gsi;
	aml_len(aml.len, sizeof(aml) - offsetof(struct aml_virtio, len));
	aml_len(aml.crs_len, sizeof(aml) - offsetof(struct aml_virtio, crs_len));
	table_add(dsdt, &aml, sizeof(aml));
}

static uint32_t make_dsdt(struct tables *t)
{
	void *dsdt = table_begin(t, "DSDT", 2, sizeof(struct acpi_header));
	unsigned int i;

	table_add(dsdt, aml_s5, sizeof(aml_s5));
	for (i = 0; i < t->vm->nr_virtio; i++)
		add_virtio(t->vm, dsdt, i);
	return table_end(t, dsdt);
}

static uint32_t make_fadt(struct tables *t, uint32_t dsdt)
{
	struct acpi_fadt *fadt = table_begin(t, "FACP", 3, sizeof(*fadt));

	fadt->dsdt = dsdt;
	fadt->x_dsdt = dsdt;
	fadt->sci = SCI_IRQ;
	fadt->pm1a_event = PORT_PM1_EVENT;
	fadt->pm1_event_len = PM1_EVENT_LEN;
	fadt->pm1a_control = PORT_PM1_CONTROL;
	fadt->pm1_control_len = PM1_CONTROL_LEN;
	if (t->vm->pm_timer) {
		fadt->pm_timer = PORT_PM_TIMER;
		fadt->pm_timer_len = PM_TIMER_LEN;
		fadt->flags |= FADT_PM_TIMER_32BIT;
	}
	fadt->c2_latency = NO_C_STATE;
	fadt->c3_latency = NO_C_STATE;
	fadt->century = CMOS_CENTURY;
	fadt->boot = FADT_LEGACY_DEVICES | FADT_NO_VGA | FADT_NO_MSI;
	fadt->flags |= FADT_WBINVD | FADT_C1 | FADT_NO_POWER_BUTTON |
		       FADT_NO_SLEEP_BUTTON | FADT_RESET;
	fadt->reset = (struct acpi_address) {
		.space = ACPI_SPACE_IO, .bits = 8, .access = 1, .address = PORT_RESET,
	};
	fadt->reset_value = RESET_NOW;
	return table_end(t, fadt);
}

static uint32_t make_madt(struct tables *t)
{
	struct acpi_madt *madt = table_begin(t, "APIC", 3, sizeof(*madt));
	const struct madt_ioapic ioapic = {
		.type = 1, .len = sizeof(ioapic), .address = GPA_IOAPIC,
	};
	const struct madt_override sci = {
		.type = 2, .len = sizeof(sci), .irq = SCI_IRQ, .gsi = SCI_IRQ,
		.flags = 0xd,
	};
	const struct madt_nmi nmi = {
		.type = 4, .len = sizeof(nmi), .uid = 0xff, .lint = 1,
	};
	unsigned int i;

	madt->local_apic = GPA_LOCAL_APIC;
	madt->flags = 1;
	for (i = 0; i < t->vm->nr_vcpus; i++) {
		struct madt_cpu cpu = {
			.len = sizeof(cpu), .uid = i, .apic_id = i, .flags = 1,
		};

		table_add(madt, &cpu, sizeof(cpu));
	}
	table_add(madt, &ioapic, sizeof(ioapic));
	table_add(madt, &sci, sizeof(sci));
	table_add(madt, &nmi, sizeof(nmi));
	return table_end(t, madt);
}

static void fill_acpi(struct gvmm *vm)
{
	struct tables t = {
		.vm = vm,
		.next = BIOS_RSDP_OFFSET + ((sizeof(struct acpi_rsdp) + 15) & ~15U),
	};
	struct acpi_rsdp *rsdp = (void *)(vm->bios + BIOS_RSDP_OFFSET);
	uint64_t tables[2];
	void *xsdt;

	tables[0] = make_fadt(&t, make_dsdt(&t));
	tables[1] = make_madt(&t);
	xsdt = table_begin(&t, "XSDT", 1, sizeof(struct acpi_header));
	table_add(xsdt, tables, sizeof(tables));

	*rsdp = (struct acpi_rsdp) {
		.signature = { 'R', 'S', 'D', ' ', 'P', 'T', 'R', ' ' },
		.oem = { 'G', 'P', 'A', 'M', 'A', 'P' },
		.revision = 2,
		.len = sizeof(*rsdp),
		.xsdt = table_end(&t, xsdt),
	};
	rsdp->checksum = checksum(rsdp, 20);
	rsdp->ext_checksum = checksum(rsdp, sizeof(*rsdp));
}

void bios_fill(struct gvmm *vm)
{
	static const char text[] = "gvmm, the sample VMM of gpamap: no firmware here\n";
	static const uint64_t gdt[BIOS_GDT_LEN / 8] = {
		[BOOT_CS / 8] = 0x00cf9b000000ffff,	/* flat code, accessed */
		[BOOT_DS / 8] = 0x00cf93000000ffff,	/* flat data, accessed */
	};
	static const uint8_t reset[] = {
		0xb0, 0xfe,		/* mov al, 0xfe */
		0xe6, 0x64,		/* out 0x64, al */
		0xf4,			/* hlt */
		0xeb, 0xfd,		/* jmp to the hlt */
	};
	static const uint8_t vector[] = {
		0xea, RESET_OFFSET & 0xff, RESET_OFFSET >> 8, 0x00, 0xf0, /* far jmp */
	};

	memcpy(vm->bios, text, sizeof(text));
	memcpy(vm->bios + BIOS_GDT_OFFSET, gdt, sizeof(gdt));
	fill_acpi(vm);
	memcpy(vm->bios + RESET_OFFSET, reset, sizeof(reset));
	memcpy(vm->bios + VECTOR_OFFSET, vector, sizeof(vector));
	memcpy(vm->bios + DATE_OFFSET, "01/01/26", 8);
	vm->bios[MODEL_OFFSET] = 0xfc;	/* a PC AT */
}
