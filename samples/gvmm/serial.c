// SPDX-License-Identifier: GPL-2.0
/*
 * The 16550: the guest's console, at port 0x3f8 and interrupt 4.
 *
 * Transmitting takes no time: a byte written to THR is in console.c's buffer before
 * the guest goes on, so THR and shift register are always empty. A full buffer (slow
 * stdout) holds the vCPU up in that write; nothing is lost.
 *
 * Receiving: the FIFO of 16 bytes is all there is. serial_rx_room() tells the main
 * loop how much to read from stdin, and that is nothing until the guest has switched
 * the receive interrupt on. What came too early waits in stdin, where no probing
 * driver can flush it away.
 *
 * The interrupt line follows two causes, each behind its bit of IER: "data ready"
 * while the FIFO holds any, and "THR empty", an event: it comes with every write to
 * THR and when IER lets it in, and goes when IIR reports it.
 *
 * Threads: any vCPU's, and the main thread. serial.lock holds every register and the
 * order of line changes towards KVM; no one sleeps for long while holding it.
 */
#include "gvmm.h"

#include <linux/kvm.h>
#include <linux/serial_reg.h>
#include <string.h>
#include <sys/ioctl.h>

#define SERIAL_IRQ 4

#define IER_VALID (UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI)
#define MCR_VALID (UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT1 | UART_MCR_OUT2 | \
		   UART_MCR_LOOP)
#define IIR_FIFO 0xc0

/* The most urgent cause that IER lets through. Under serial.lock. */
static uint8_t serial_cause(const struct serial *s)
{
	if (s->overrun && (s->ier & UART_IER_RLSI))
		return UART_IIR_RLSI;
	if (s->rx_count && (s->ier & UART_IER_RDI))
		return UART_IIR_RDI;
	if (s->thre_pending && (s->ier & UART_IER_THRI))
		return UART_IIR_THRI;
	return UART_IIR_NO_INT;
}

/* Brings the interrupt line up to date. Under serial.lock. */
static void serial_update(struct gvmm *vm)
{
	struct serial *s = &vm->serial;
	bool line = serial_cause(s) != UART_IIR_NO_INT;
	struct kvm_irq_level level = { .irq = SERIAL_IRQ, .level = line };

	if (line == s->line)
		return;
	s->line = line;
	ioctl(vm->vm_fd, KVM_IRQ_LINE, &level);
}

/* Under serial.lock. */
static void rx_push(struct serial *s, uint8_t byte)
{
	if (s->rx_count == (s->fifo ? SERIAL_FIFO : 1)) {
		s->overrun = true;
		return;
	}
	s->rx[(s->rx_head + s->rx_count++) % SERIAL_FIFO] = byte;
}

/* Under serial.lock. */
static uint8_t rx_pop(struct serial *s)
{
	uint8_t byte = s->rx[s->rx_head];

	if (!s->rx_count)
		return 0;
	s->rx_head = (s->rx_head + 1) % SERIAL_FIFO;
	s->rx_count--;
	return byte;
}

/* Under serial.lock. */
static unsigned int rx_room(const struct serial *s)
{
	if (!(s->ier & UART_IER_RDI) || (s->mcr & UART_MCR_LOOP))
		return 0;
	return (s->fifo ? SERIAL_FIFO : 1) - s->rx_count;
}

/* Modem status: the other end is always ready; in loopback MCR is the other end. */
static uint8_t modem_status(const struct serial *s)
{
	uint8_t msr = 0;

	if (!(s->mcr & UART_MCR_LOOP))
		return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
	if (s->mcr & UART_MCR_RTS)
		msr |= UART_MSR_CTS;
	if (s->mcr & UART_MCR_DTR)
		msr |= UART_MSR_DSR;
	if (s->mcr & UART_MCR_OUT1)
		msr |= UART_MSR_RI;
	if (s->mcr & UART_MCR_OUT2)
		msr |= UART_MSR_DCD;
	return msr;
}

static uint8_t read_locked(struct serial *s, unsigned int reg)
{
	bool dlab = s->lcr & UART_LCR_DLAB;
	uint8_t value;

	switch (reg) {
	case UART_RX:
		return dlab ? s->dll : rx_pop(s);
	case UART_IER:
		return dlab ? s->dlm : s->ier;
	case UART_IIR:
		value = serial_cause(s);
		if (value == UART_IIR_THRI)
			s->thre_pending = false;
		return value | (s->fifo ? IIR_FIFO : 0);
	case UART_LCR:
		return s->lcr;
	case UART_MCR:
		return s->mcr;
	case UART_LSR:
		value = UART_LSR_THRE | UART_LSR_TEMT;
		if (s->rx_count)
			value |= UART_LSR_DR;
		if (s->overrun)
			value |= UART_LSR_OE;
		s->overrun = false;
		return value;
	case UART_MSR:
		return modem_status(s);
	default:
		return s->scr;
	}
}

uint8_t serial_read(struct gvmm *vm, unsigned int reg)
{
	struct serial *s = &vm->serial;
	unsigned int room;
	uint8_t value;
	bool wake;

	pthread_mutex_lock(&s->lock);
	room = rx_room(s);
	value = read_locked(s, reg);
	wake = !room && rx_room(s);
	serial_update(vm);
	pthread_mutex_unlock(&s->lock);
	if (wake)
		console_wake(vm);
	return value;
}

static void write_locked(struct serial *s, unsigned int reg, uint8_t value)
{
	bool dlab = s->lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_TX:
		if (dlab) {
			s->dll = value;
			break;
		}
		if (s->mcr & UART_MCR_LOOP)
			rx_push(s, value);
		s->thre_pending = true;
		break;
	case UART_IER:
		if (dlab) {
			s->dlm = value;
			break;
		}
		if ((value & ~s->ier) & UART_IER_THRI)
			s->thre_pending = true;
		s->ier = value & IER_VALID;
		break;
	case UART_FCR:
		if ((value & UART_FCR_CLEAR_RCVR) ||
		    s->fifo != (bool)(value & UART_FCR_ENABLE_FIFO))
			s->rx_count = 0;
		s->fifo = value & UART_FCR_ENABLE_FIFO;
		break;
	case UART_LCR:
		s->lcr = value;
		break;
	case UART_MCR:
		s->mcr = value & MCR_VALID;
		break;
	case UART_SCR:
		s->scr = value;
		break;
	}
}

void serial_write(struct gvmm *vm, unsigned int reg, uint8_t value)
{
	struct serial *s = &vm->serial;
	unsigned int room;
	bool send, wake;

	pthread_mutex_lock(&s->lock);
	send = reg == UART_TX && !(s->lcr & UART_LCR_DLAB) && !(s->mcr & UART_MCR_LOOP);
	if (send) {
		/* It may have to wait, which nobody must do with the lock held. */
		pthread_mutex_unlock(&s->lock);
		console_put(vm, value);
		pthread_mutex_lock(&s->lock);
	}
	room = rx_room(s);
	write_locked(s, reg, value);
	wake = !room && rx_room(s);
	serial_update(vm);
	pthread_mutex_unlock(&s->lock);
	if (wake)
		console_wake(vm);
}

/* How many bytes the guest would take now. */
unsigned int serial_rx_room(struct gvmm *vm)
{
	unsigned int room;

	pthread_mutex_lock(&vm->serial.lock);
	room = rx_room(&vm->serial);
	pthread_mutex_unlock(&vm->serial.lock);
	return room;
}

/* Gives the guest what was read from stdin. */
void serial_receive(struct gvmm *vm, const uint8_t *data, unsigned int len)
{
	pthread_mutex_lock(&vm->serial.lock);
	while (len--)
		rx_push(&vm->serial, *data++);
	serial_update(vm);
	pthread_mutex_unlock(&vm->serial.lock);
}

void serial_init(struct gvmm *vm)
{
	pthread_mutex_init(&vm->serial.lock, NULL);
}
