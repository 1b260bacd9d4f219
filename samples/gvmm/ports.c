// SPDX-License-Identifier: GPL-2.0
/*
 * I/O ports: who answers, and the devices too small for a file of their own.
 *
 * KVM answers the PICs (0x20, 0xa0), the PIT (0x40) and the speaker's gate (0x61)
 * itself. What comes here is split into bytes, as an ISA bus does with wide accesses.
 * A port that nobody claims reads as ones, the PCI configuration ports among them:
 * so a guest finds that there is no PCI.
 *
 *	0x3f8-0x3ff	16550
 *	0x60, 0x64	of the keyboard controller the reset line and no keyboard. Its
 *			status says "a byte is there, I listen": a driver that probes
 *			finds a controller that never falls silent and gives up at once,
 *			one that wants to reset does not wait
 *	0x70, 0x71	the clock of the CMOS: the host's time, UTC
 *	0x600-0x605	ACPI's PM1 block: registers that hold what is written; no event
 *			ever comes; SLP_EN powers the machine off
 *	0xcf9		reset
 *
 * Threads: any vCPU's. What state there is, is atomic.
 */
#include "gvmm.h"

#include <time.h>

#define PORT_I8042_STATUS 0x64
#define I8042_OUTPUT_FULL 0x01
#define I8042_PULSE_RESET 0xfe
#define PORT_CMOS_INDEX 0x70
#define PORT_CMOS_DATA 0x71
#define PORT_SERIAL 0x3f8
#define SERIAL_PORTS 8

/* Bytes of the PM1 block. */
#define PM1_ENABLE 2
#define PM1_CONTROL PM1_EVENT_LEN
#define PM1_SCI_ENABLE 0x01	/* in the first byte of control */
#define PM1_SLP_ENABLE 0x20	/* in the second */

#define CMOS_UPDATING_NS (1000000000 - 2000000)

static uint8_t bcd(int n)
{
	return n / 10 << 4 | n % 10;
}

static uint8_t cmos_read(uint8_t index)
{
	struct timespec now;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	switch (index) {
	case 0x00:
		return bcd(tm.tm_sec % 60);
	case 0x02:
		return bcd(tm.tm_min);
	case 0x04:
		return bcd(tm.tm_hour);
	case 0x06:
		return tm.tm_wday + 1;
	case 0x07:
		return bcd(tm.tm_mday);
	case 0x08:
		return bcd(tm.tm_mon + 1);
	case 0x09:
		return bcd(tm.tm_year % 100);
	case 0x32:
		return bcd((tm.tm_year + 1900) / 100);
	case 0x0a:
		/* "About to change" for the last 2 ms of a second: read later. */
		return now.tv_nsec >= CMOS_UPDATING_NS ? 0xa6 : 0x26;
	case 0x0b:
		return 0x02;	/* 24 hours, BCD */
	case 0x0d:
		return 0x80;	/* the battery is good */
	default:
		return 0;
	}
}

static uint8_t pm1_read(struct gvmm *vm, unsigned int at)
{
	uint8_t value = atomic_load(&vm->pm1[at]);

	return at == PM1_CONTROL ? value | PM1_SCI_ENABLE : value;
}

static void pm1_write(struct gvmm *vm, unsigned int at, uint8_t value)
{
	if (at < PM1_ENABLE)	/* status: writing clears what is never set */
		return;
	if (at == PM1_CONTROL + 1 && (value & PM1_SLP_ENABLE)) {
		gvmm_end(vm, GVMM_POWERED_OFF, "guest powered off");
		return;
	}
	atomic_store(&vm->pm1[at], value);
}

static uint8_t port_read(struct gvmm *vm, uint16_t port)
{
	if (port >= PORT_SERIAL && port < PORT_SERIAL + SERIAL_PORTS)
		return serial_read(vm, port - PORT_SERIAL);
	if (port >= PORT_PM1_EVENT && port < PORT_PM1_EVENT + sizeof(vm->pm1))
		return pm1_read(vm, port - PORT_PM1_EVENT);
	switch (port) {
	case PORT_I8042_STATUS:
		return I8042_OUTPUT_FULL;
	case PORT_CMOS_DATA:
		return cmos_read(atomic_load(&vm->cmos_index));
	default:
		return 0xff;
	}
}

static void port_write(struct gvmm *vm, uint16_t port, uint8_t value)
{
	if (port >= PORT_SERIAL && port < PORT_SERIAL + SERIAL_PORTS) {
		serial_write(vm, port - PORT_SERIAL, value);
		return;
	}
	if (port >= PORT_PM1_EVENT && port < PORT_PM1_EVENT + sizeof(vm->pm1)) {
		pm1_write(vm, port - PORT_PM1_EVENT, value);
		return;
	}
	switch (port) {
	case PORT_I8042_STATUS:
		if (value == I8042_PULSE_RESET)
			gvmm_end(vm, GVMM_REBOOTED, "guest rebooted");
		break;
	case PORT_CMOS_INDEX:
		atomic_store(&vm->cmos_index, value & 0x7f);
		break;
	}
}

/* One access of @len bytes; @data is read or filled. */
void ports_access(struct gvmm *vm, uint16_t port, bool write, uint8_t *data,
		  unsigned int len)
{
	unsigned int i;

	/* A byte of its own, or it is a part of the PCI address at 0xcf8. */
	if (write && port == PORT_RESET && len == 1 && (*data & RESET_NOW)) {
		gvmm_end(vm, GVMM_REBOOTED, "guest rebooted");
		return;
	}
	for (i = 0; i < len; i++) {
		if (write)
			port_write(vm, port + i, data[i]);
		else
			data[i] = port_read(vm, port + i);
	}
}
