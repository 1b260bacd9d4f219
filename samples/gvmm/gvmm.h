/* SPDX-License-Identifier: GPL-2.0 */
/*
 * gvmm: a small VMM whose guest memory is a gpamap map.
 *
 * The one private header. A source file is a concept:
 *
 *	main.c		options, the life of a machine from set-up to its end
 *	memory.c	guest memory: the tree of regions, through libgpamap
 *	boot.c		a bzImage and an initrd into memory (Linux boot protocol)
 *	bios.c		what the ROM holds: ACPI tables, GDT, reset code
 *	vcpu.c		vCPUs: CPUID, registers, the threads that run them
 *	ports.c		I/O ports: who answers, and the small devices
 *	serial.c	the 16550
 *	console.c	gvmm's own stdin and stdout, the terminal, the main loop
 *	virtio.h	virtio devices: the disk and the second console
 *	card.c		a device that moves
 *
 * Threads: the main thread sets the machine up, alone; then it serves stdin and
 * signals until the end. One thread runs each vCPU, one writes stdout, one each does
 * the work of a virtio device and moves the card. What is "fixed" below is written
 * during set-up only and read without a lock.
 *
 * Lock order: serial.lock, then nothing; virtio_device.lock, then one of
 * virtio_device.irq_lock, vcons.lock and console.lock; end.lock alone.
 */
#ifndef GVMM_H
#define GVMM_H

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define KIB (1ULL << 10)
#define MIB (1ULL << 20)
#define GIB (1ULL << 30)

#define GVMM_VERSION "0.1"
#define GVMM_MAX_VCPUS 64
#define GVMM_MAX_VIRTIO 8
#define GVMM_MAX_IO (GVMM_MAX_VIRTIO + 1)

/* How gvmm ends: its exit status. A signal ends it with 128 + its number. */
enum gvmm_status {
	GVMM_REBOOTED = 0,	/* the guest asked for a reset */
	GVMM_SETUP = 1,		/* wrong options, missing files or devices */
	GVMM_ERROR = 2,		/* KVM gave up, or gvmm met what it does not know */
	GVMM_TRIPLE_FAULT = 3,
	GVMM_POWERED_OFF = 4,
	GVMM_SIGNAL = 128,
};

/*
 * Guest-physical addresses. RAM goes on at 4 GiB where it ended at LOW_RAM_END;
 * the gigabyte between belongs to ROM, the APICs and KVM itself.
 */
enum gvmm_address {
	GPA_ZERO_PAGE = 0x10000,	/* struct boot_params */
	GPA_CMDLINE = 0x20000,		/* up to 64 KiB */
	GPA_CMDLINE_END = 0x30000,
	GPA_VGA = 0xa0000,
	GPA_VGA_END = 0xc0000,
	GPA_BIOS = 0xf0000,
	BIOS_LEN = 0x10000,
	GPA_HIGH = 0x100000,
};

#define GPA_LOW_RAM_END 0xc0000000ULL
/* Where the card is, first and then. */
#define GPA_CARD0 0xfe800000ULL
#define GPA_CARD1 0xfe900000ULL
#define CARD_LEN 0x1000ULL
/* Virtio devices: a page each, and pins of the I/O APIC that no ISA device has. */
#define GPA_VIRTIO 0xfeb00000ULL
#define VIRTIO_LEN 0x1000ULL
#define VIRTIO_FIRST_GSI 16
#define GPA_IOAPIC 0xfec00000ULL
#define GPA_LOCAL_APIC 0xfee00000ULL
#define APIC_LEN 0x1000ULL
/* Intel needs four pages for KVM's own use; they must not be guest RAM. */
#define GPA_KVM_IDENTITY 0xfef00000ULL	/* one page */
#define GPA_KVM_TSS 0xfef01000ULL	/* three pages */
#define GPA_KVM_END 0xfef04000ULL
#define GPA_BIOS_TOP (4 * GIB - BIOS_LEN)
#define GPA_HIGH_RAM (4 * GIB)

/* Where the flat descriptors of the boot protocol are in the ROM's GDT. */
#define BOOT_CS 0x10
#define BOOT_DS 0x18
#define BIOS_GDT_OFFSET 0x100
#define BIOS_GDT_LEN 0x20
#define BIOS_RSDP_OFFSET 0x200

/* Ports that the ACPI tables name. */
#define PORT_PM1_EVENT 0x600
#define PM1_EVENT_LEN 4
#define PORT_PM1_CONTROL 0x604
#define PM1_CONTROL_LEN 2
#define PORT_PM_TIMER 0x608
#define PM_TIMER_LEN 4
#define PORT_RESET 0xcf9
#define RESET_NOW 0x04

struct card;
struct gpamap;
struct gpamap_exit;
struct gpamap_register;
struct gpamap_ties_doorbell;
struct iovec;
struct kvm_run;
struct kvm_cpuid2;
struct gvmm;
struct vcons;
struct virtio_device;

/* An access of a guest's to a device: @data is read or filled. */
typedef void io_access(void *device, uint64_t offset, bool write, uint8_t *data,
		       unsigned int len);

/* What the kernel answers of a device, from the first moment on. */
struct io_ties {
	const struct gpamap_register *registers;
	const struct gpamap_ties_doorbell *doorbells;
	uint32_t nr_registers, nr_doorbells;
};

struct io_region {
	const char *name;
	uint64_t gpa, len;		/* in the beginning */
	io_access *access;
	void *device;
	struct io_ties ties;		/* none of it is needed after memory_create() */
};

struct vcpu {
	/* fixed */
	struct gvmm *vm;
	unsigned int id;		/* also its APIC id */
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool started;			/* main thread only */
};

#define SERIAL_FIFO 16

struct serial {
	pthread_mutex_t lock;
	/* under lock */
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	bool fifo;
	bool thre_pending;		/* THR became empty, not yet told */
	bool overrun;
	bool line;			/* the level KVM was told last */
	uint8_t rx[SERIAL_FIFO];
	unsigned int rx_head, rx_count;
};

#define CONSOLE_LEN (64 * KIB)

struct console {
	/* fixed */
	int wake_fd;			/* eventfd: main loop, look again */
	int signal_fd;
	pthread_t writer;
	/* main thread only */
	bool input_open;
	bool is_raw;

	pthread_mutex_t lock;
	pthread_cond_t pending;		/* for the writer: bytes, or the end */
	pthread_cond_t room;		/* for vCPUs: the buffer is not full */
	/* under lock */
	uint8_t buf[CONSOLE_LEN];
	size_t tail, count;
	bool closing;			/* write what is there, then end */
	bool broken;			/* stdout is gone: drop everything */
	bool drained;			/* the writer has ended */
};

struct gvmm {
	/* fixed */
	int kvm_fd;
	int vm_fd;
	unsigned int nr_vcpus;
	uint64_t ram_len;
	uint8_t *ram;
	uint8_t *bios;
	struct gpamap *map;
	struct gpamap_exits *exits;	/* by vCPU; each its vCPU's thread */
	bool own_ports;			/* the ports are in the map */
	bool pm_timer;			/* there is one */
	struct kvm_cpuid2 *cpuid;	/* what KVM supports */
	uint32_t entry;			/* where the first vCPU starts */
	struct vcpu vcpus[GVMM_MAX_VCPUS];
	struct io_region io[GVMM_MAX_IO];
	unsigned int nr_io;
	struct virtio_device *virtio[GVMM_MAX_VIRTIO];
	unsigned int nr_virtio;
	struct vcons *vcons;		/* NULL: the serial port has stdin */
	struct card *card;		/* NULL: there is none */

	struct serial serial;
	struct console console;

	_Atomic uint8_t cmos_index;
	_Atomic uint8_t pm1[PM1_EVENT_LEN + PM1_CONTROL_LEN];

	_Atomic bool ended;
	struct {
		pthread_mutex_t lock;
		/* under lock; never changed once ended is set */
		int status;
		char why[512];
	} end;
};

/* main.c */
void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
const char *error_name(int err);
void gvmm_end(struct gvmm *vm, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* memory.c */
void memory_create(struct gvmm *vm);
void memory_apply_file(struct gvmm *vm, const char *path);
void memory_plan_file(struct gvmm *vm, const char *path);
uint64_t memory_low_end(const struct gvmm *vm);
void *memory_at(const struct gvmm *vm, uint64_t gpa, uint64_t len);
bool memory_is_ram(const struct gvmm *vm, uint64_t gpa);
uint32_t memory_add_io(struct gvmm *vm, const char *name, uint64_t gpa, uint64_t len,
		       io_access *access, void *device);
void memory_tie(struct gvmm *vm, uint32_t region, const struct io_ties *ties);
_Atomic uint32_t *memory_registers(struct gvmm *vm, uint32_t region);
bool memory_move(struct gvmm *vm, uint32_t region, uint64_t gpa);
bool memory_io(struct vcpu *vcpu, uint64_t gpa, bool write, uint8_t *data,
	       unsigned int len);
int memory_dma(struct gvmm *vm, uint64_t gpa, uint64_t len, bool write, struct iovec *iov,
	       unsigned int max);

/* boot.c */
void boot_read(const char *kernel, const char *initrd);
void boot_load(struct gvmm *vm, const char *cmdline);

/* bios.c */
void bios_fill(struct gvmm *vm);

/* vcpu.c */
void vcpu_setup(struct gvmm *vm);
unsigned int vcpu_gpa_bits(const struct gvmm *vm);
void vcpu_create_all(struct gvmm *vm);
void vcpu_start_all(struct gvmm *vm);
void vcpu_stop_all(struct gvmm *vm);

/* ports.c */
void ports_access(struct gvmm *vm, uint16_t port, bool write, uint8_t *data,
		  unsigned int len);

/* serial.c */
void serial_init(struct gvmm *vm);
uint8_t serial_read(struct gvmm *vm, unsigned int reg);
void serial_write(struct gvmm *vm, unsigned int reg, uint8_t value);
unsigned int serial_rx_room(struct gvmm *vm);
void serial_receive(struct gvmm *vm, const uint8_t *data, unsigned int len);

/* console.c */
void console_start(struct gvmm *vm);
void console_put(struct gvmm *vm, uint8_t byte);
void console_wake(struct gvmm *vm);
void console_serve(struct gvmm *vm);
void console_finish(struct gvmm *vm);

/* virtio_mmio.c */
void virtio_place(const struct gvmm *vm, unsigned int index, uint64_t *gpa, uint32_t *gsi);
void virtio_tie(struct gvmm *vm);
void virtio_connect(struct gvmm *vm);
void virtio_start(struct gvmm *vm);
void virtio_stop(struct gvmm *vm);

/* blk.c */
void blk_add(struct gvmm *vm, const char *path, bool readonly);

/* vcons.c */
void vcons_add(struct gvmm *vm);
unsigned int vcons_room(struct vcons *vcons);
void vcons_receive(struct vcons *vcons, const uint8_t *data, unsigned int len);

/* card.c */
void card_add(struct gvmm *vm, unsigned int moves);
void card_connect(struct gvmm *vm);
void card_start(struct gvmm *vm);
void card_stop(struct gvmm *vm);
void card_unanswered(struct gvmm *vm, uint64_t gpa, bool write);

#endif /* GVMM_H */
