// SPDX-License-Identifier: GPL-2.0
/*
 * gvmm's side of the guest's console: stdout, stdin, the terminal, and the loop in
 * which the main thread spends the guest's life.
 *
 * Output goes through a buffer to a thread of its own, so that only that thread ever
 * waits for stdout. It naps for two milliseconds before it writes little, which makes
 * one write of what a guest prints byte by byte. A full buffer holds up the vCPU that
 * fills it. If stdout is gone (EPIPE, ENOSPC, ...), that is said once and output is
 * dropped; the guest runs on. At the end what is buffered is written out; a signal
 * cuts this short.
 *
 * Input is read by the main loop, never more than the guest will take. Its end, and
 * an error, just end the input. A terminal is put into a mode where the guest gets
 * each key and does the echo, but ^C still ends gvmm. It is left alone, and not read,
 * if gvmm runs in the background.
 *
 * Signals: SIGINT, SIGTERM, SIGHUP and SIGQUIT are blocked in all threads from
 * console_start() on and read from a descriptor.
 *
 * Locks: console.lock for the buffer, between vCPUs and writer. console_wake() is how
 * any thread makes the main loop look again.
 */
#include "gvmm.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define NAP_NS 2000000
#define NAP_BELOW 256
#define INPUT_CHUNK 64

static struct termios terminal;		/* as it was; main thread only */

/* ---- stdout ----------------------------------------------------------- */

/* Takes one byte of output, waiting for room unless the end has come. */
void console_put(struct gvmm *vm, uint8_t byte)
{
	struct console *c = &vm->console;

	pthread_mutex_lock(&c->lock);
	while (c->count == CONSOLE_LEN && !c->broken && !c->closing)
		pthread_cond_wait(&c->room, &c->lock);
	if (!c->broken && c->count < CONSOLE_LEN) {
		c->buf[(c->tail + c->count) % CONSOLE_LEN] = byte;
		if (!c->count++)
			pthread_cond_signal(&c->pending);
	}
	pthread_mutex_unlock(&c->lock);
}

/* Writes some of @len bytes; false when stdout takes no more, ever. */
static bool write_some(const uint8_t *data, size_t len, size_t *written)
{
	struct pollfd out = { .fd = STDOUT_FILENO, .events = POLLOUT };
	ssize_t n = write(STDOUT_FILENO, data, len);

	*written = n > 0 ? n : 0;
	if (n >= 0 || errno == EINTR)
		return true;
	if (errno == EAGAIN) {
		poll(&out, 1, -1);
		return true;
	}
	fprintf(stderr, "gvmm: console output is lost from here on: %s (%s)\n",
		strerror(errno), error_name(errno));
	return false;
}

static void *console_writer(void *arg)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };
	struct gvmm *vm = arg;
	struct console *c = &vm->console;
	size_t len, written;
	bool good;

	pthread_mutex_lock(&c->lock);
	for (;;) {
		while (!c->count && !c->closing)
			pthread_cond_wait(&c->pending, &c->lock);
		if (!c->count)
			break;
		if (c->count < NAP_BELOW && !c->closing) {
			pthread_mutex_unlock(&c->lock);
			nanosleep(&nap, NULL);
			pthread_mutex_lock(&c->lock);
		}
		len = CONSOLE_LEN - c->tail;
		if (len > c->count)
			len = c->count;
		/* Only this thread moves the tail, so what lies there stays. */
		pthread_mutex_unlock(&c->lock);
		good = write_some(c->buf + c->tail, len, &written);
		pthread_mutex_lock(&c->lock);
		if (!good) {
			c->broken = true;
			written = c->count;
		}
		c->tail = (c->tail + written) % CONSOLE_LEN;
		c->count -= written;
		pthread_cond_broadcast(&c->room);
	}
	c->drained = true;
	pthread_mutex_unlock(&c->lock);
	console_wake(vm);
	return NULL;
}

/* ---- terminal --------------------------------------------------------- */

static bool in_foreground(void)
{
	return tcgetpgrp(STDIN_FILENO) == getpgrp();
}

static void terminal_take(struct console *c)
{
	struct termios mode;

	if (!isatty(STDIN_FILENO))
		return;
	if (!in_foreground()) {
		c->input_open = false;
		return;
	}
	if (tcgetattr(STDIN_FILENO, &terminal))
		return;
	mode = terminal;
	mode.c_iflag &= ~(ICRNL | INLCR | IGNCR | ISTRIP | IXON);
	mode.c_lflag &= ~(ICANON | ECHO | ECHONL | IEXTEN);
	mode.c_cc[VMIN] = 1;
	mode.c_cc[VTIME] = 0;
	/* A stopped gvmm would leave the terminal like this. */
	mode.c_cc[VSUSP] = _POSIX_VDISABLE;
	c->is_raw = !tcsetattr(STDIN_FILENO, TCSANOW, &mode);
}

static void terminal_give_back(struct console *c)
{
	if (c->is_raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &terminal);
	c->is_raw = false;
}

/* ---- the main loop ---------------------------------------------------- */

/* Makes the main loop look again. Any thread. */
void console_wake(struct gvmm *vm)
{
	uint64_t one = 1;
	ssize_t n;

	/* It fails only when the counter is full: then the loop is awake anyhow. */
	n = write(vm->console.wake_fd, &one, sizeof(one));
	(void)n;
}

/* How many bytes of stdin the guest would take, and giving it some. */
static unsigned int input_room(struct gvmm *vm)
{
	return vm->vcons ? vcons_room(vm->vcons) : serial_rx_room(vm);
}

static void input_give(struct gvmm *vm, const uint8_t *data, unsigned int len)
{
	if (vm->vcons)
		vcons_receive(vm->vcons, data, len);
	else
		serial_receive(vm, data, len);
}

/*
 * Waits for something to do: a signal, which it returns, else 0. Reads stdin if @room
 * is not 0.
 */
static int console_poll(struct gvmm *vm, unsigned int room)
{
	struct console *c = &vm->console;
	struct pollfd fds[] = {
		{ .fd = c->signal_fd, .events = POLLIN },
		{ .fd = c->wake_fd, .events = POLLIN },
		{ .fd = room ? STDIN_FILENO : -1, .events = POLLIN },
	};
	struct signalfd_siginfo info;
	uint8_t data[INPUT_CHUNK];
	uint64_t count;
	ssize_t n;

	if (poll(fds, ARRAY_SIZE(fds), -1) <= 0)
		return 0;
	if (fds[0].revents && read(c->signal_fd, &info, sizeof(info)) == sizeof(info))
		return info.ssi_signo;
	if (fds[1].revents && read(c->wake_fd, &count, sizeof(count)) < 0)
		return 0;
	if (fds[2].revents) {
		n = read(STDIN_FILENO, data, room < sizeof(data) ? room : sizeof(data));
		if (n > 0)
			input_give(vm, data, n);
		else if (n == 0 || (errno != EINTR && errno != EAGAIN))
			c->input_open = false;
	}
	return 0;
}

/* The main thread's part while the guest runs; returns when the end is set. */
void console_serve(struct gvmm *vm)
{
	struct console *c = &vm->console;
	int sig;

	while (!atomic_load(&vm->ended)) {
		sig = console_poll(vm, c->input_open ? input_room(vm) : 0);
		if (sig)
			gvmm_end(vm, GVMM_SIGNAL + sig, "ended by signal %d (%s)", sig,
				 strsignal(sig));
	}
	/* A vCPU that waits for room must not. */
	pthread_mutex_lock(&c->lock);
	c->closing = true;
	pthread_cond_broadcast(&c->room);
	pthread_cond_broadcast(&c->pending);
	pthread_mutex_unlock(&c->lock);
}

static bool console_drained(struct console *c)
{
	bool drained;

	pthread_mutex_lock(&c->lock);
	drained = c->drained;
	pthread_mutex_unlock(&c->lock);
	return drained;
}

/*
 * Waits until all output is out, and restores the terminal. If a signal comes in, the
 * writer is left where it is; the end of the process ends it.
 */
void console_finish(struct gvmm *vm)
{
	struct console *c = &vm->console;

	int sig = 0;

	while (!sig && !console_drained(c))
		sig = console_poll(vm, 0);
	if (!sig)
		pthread_join(c->writer, NULL);
	terminal_give_back(c);
}

/* Takes over stdin, stdout and signals. No thread has been made before. */
void console_start(struct gvmm *vm)
{
	struct console *c = &vm->console;
	sigset_t signals;
	int err;

	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->pending, NULL);
	pthread_cond_init(&c->room, NULL);

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGQUIT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	c->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->signal_fd < 0 || c->wake_fd < 0)
		fail("descriptors for the console: %s (%s)", strerror(errno),
		     error_name(errno));
	err = pthread_create(&c->writer, NULL, console_writer, vm);
	if (err)
		fail("the console's thread: %s (%s)", strerror(err), error_name(err));
	c->input_open = true;
	terminal_take(c);
}
