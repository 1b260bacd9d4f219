// SPDX-License-Identifier: GPL-2.0
/*
 * gvmm: options, and the life of a machine from set-up to its end.
 *
 * Set-up is one thread. It reads the files, then goes in the order in which KVM and
 * gpamap want things: VM, addresses of KVM's own pages, memory, interrupt controllers,
 * vCPUs. Whatever fails on the way ends gvmm with a message and status 1; process exit
 * is the clean-up.
 *
 * Then the machine runs until someone calls gvmm_end(): a vCPU that met a reset, a
 * triple fault or an error, or the main loop for a signal. The first to call decides
 * status and last words; the main thread then throws the vCPUs out, lets the console
 * write what it has, and returns. Nothing else ends the process.
 *
 * Exit status:
 *	0	the guest rebooted (it asked for a reset); with --dry-run, all is told
 *	1	wrong options, or the machine could not be set up
 *	2	KVM reported an error, or an exit that gvmm does not know
 *	3	the guest triple-faulted
 *	4	the guest powered off
 *	128+n	signal n ended it (SIGINT, SIGTERM, SIGHUP, SIGQUIT)
 *
 * With KVM's interrupt controllers a halted guest never leaves KVM: it waits, and that
 * is no end.
 */
#include "gvmm.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <gpamap.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DEFAULT_RAM (256 * MIB)
#define MIN_RAM (32 * MIB)
#define MAX_RAM (1024 * GIB)
#define MAX_DISKS 4
#define MAX_MOVES 1000000

#define DEFAULT_CMDLINE "console=ttyS0 reboot=k panic=-1 nokaslr quiet"

struct options {
	uint64_t ram_len;
	unsigned int nr_vcpus;
	const char *kernel;
	const char *initrd;
	const char *append;
	const char *map;
	bool dry_run;
	struct {
		const char *path;
		bool readonly;
	} disks[MAX_DISKS];
	unsigned int nr_disks;
	bool hvc;
	unsigned int moves;		/* of the card; 0: there is none */
};

/* ---- messages and the end --------------------------------------------- */

/* Set-up has failed. Only before there are vCPU threads. */
void fail(const char *fmt, ...)
{
	va_list args;

	fputs("gvmm: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	exit(GVMM_SETUP);
}

/* "ENOENT" for ENOENT. */
const char *error_name(int err)
{
	const char *name = strerrorname_np(err);

	return name ? name : "unknown error";
}

/* Ends the machine. The first call counts. Any thread. */
void gvmm_end(struct gvmm *vm, int status, const char *fmt, ...)
{
	va_list args;

	pthread_mutex_lock(&vm->end.lock);
	if (!atomic_load(&vm->ended)) {
		va_start(args, fmt);
		vsnprintf(vm->end.why, sizeof(vm->end.why), fmt, args);
		va_end(args);
		vm->end.status = status;
		atomic_store(&vm->ended, true);
	}
	pthread_mutex_unlock(&vm->end.lock);
	console_wake(vm);
}

/* ---- options ---------------------------------------------------------- */

static const char usage[] =
	"usage: gvmm -k KERNEL [OPTION...]\n"
	"       gvmm --map FILE --dry-run [OPTION...]\n"
	"\n"
	"Boots a Linux bzImage under KVM; the guest's memory is a gpamap map. The guest's\n"
	"serial console is gvmm's stdin and stdout.\n"
	"\n"
	"  -k FILE       the kernel, a bzImage\n"
	"  -i FILE       its initrd\n"
	"  -a STRING     append to the kernel's command line, which begins with\n"
	"                " DEFAULT_CMDLINE "\n"
	"                (of two values Linux takes the later one)\n"
	"  -m SIZE       memory in MiB, or with a suffix K, M or G; whole pages, from\n"
	"                32M to 1024G (256M)\n"
	"  -c NUMBER     vCPUs, from 1 to 64 (1)\n"
	"  --disk FILE   a disk: a file or block device of whole sectors of 512 bytes; the\n"
	"                guest's /dev/vda, the next /dev/vdb, up to 4 of them\n"
	"  --disk-ro FILE  the same, read-only\n"
	"  --hvc         a virtio console, too: the guest's hvc0, which then has stdin;\n"
	"                appends console=hvc0\n"
	"  --move-bar N  a device that moves N times (1 to 1000000) while the guest uses\n"
	"                it; appends gvmm.card=PLACE,PLACE\n"
	"  --map FILE    apply a map file (see gpamap(1)) to the guest's map before it\n"
	"                starts; region 1 is the root, ids below 100 are gvmm's own\n"
	"  --dry-run     start no guest: print for every commit of the map file what\n"
	"                it does to the memslots; needs no kernel\n"
	"  -h, --help    print this\n"
	"  --version     print the version\n"
	"\n"
	"gvmm ends by itself. Its last line on stderr and its exit status say why:\n"
	"  0     the guest rebooted (keyboard controller, or port 0xcf9), or all of a\n"
	"        dry run was told\n"
	"  1     wrong options, or the machine could not be set up\n"
	"  2     KVM reported an error, or an exit that gvmm does not know\n"
	"  3     the guest triple-faulted\n"
	"  4     the guest powered off (ACPI)\n"
	"  128+n signal n ended it: SIGINT (^C), SIGTERM, SIGHUP or SIGQUIT\n"
	"A guest that halts is waiting: that is no end.\n";

static void __attribute__((noreturn)) fail_usage(const char *what, const char *value)
{
	fail("%s%s%s; try gvmm --help", what, value ? ": " : "", value ? value : "");
}

/* A decimal number of digits only; @end receives what follows it. */
static bool parse_number(const char *text, uint64_t *out, const char **end)
{
	char *rest;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*out = strtoull(text, &rest, 10);
	*end = rest;
	return !errno;
}

static uint64_t parse_ram(const char *text)
{
	uint64_t page = sysconf(_SC_PAGESIZE);
	uint64_t unit = MIB;
	const char *end;
	uint64_t n;

	if (!parse_number(text, &n, &end))
		fail_usage("-m: not a size", text);
	switch (*end) {
	case 'k':
	case 'K':
		unit = KIB;
		end++;
		break;
	case 'm':
	case 'M':
		end++;
		break;
	case 'g':
	case 'G':
		unit = GIB;
		end++;
		break;
	}
	if (*end)
		fail_usage("-m: not a size", text);
	if (n > MAX_RAM / unit || n * unit < MIN_RAM)
		fail_usage("-m: not from 32M to 1024G", text);
	if (n * unit % page)
		fail_usage("-m: not a whole number of pages", text);
	return n * unit;
}

static unsigned int parse_vcpus(const char *text)
{
	const char *end;
	uint64_t n;

	if (!parse_number(text, &n, &end) || *end)
		fail_usage("-c: not a number", text);
	if (n < 1 || n > GVMM_MAX_VCPUS)
		fail_usage("-c: not from 1 to 64", text);
	return n;
}

static unsigned int parse_moves(const char *text)
{
	const char *end;
	uint64_t n;

	if (!parse_number(text, &n, &end) || *end)
		fail_usage("--move-bar: not a number", text);
	if (n < 1 || n > MAX_MOVES)
		fail_usage("--move-bar: not from 1 to 1000000", text);
	return n;
}

static void add_disk(struct options *opts, const char *path, bool readonly)
{
	if (opts->nr_disks == MAX_DISKS)
		fail_usage("more than 4 disks", path);
	opts->disks[opts->nr_disks].path = path;
	opts->disks[opts->nr_disks++].readonly = readonly;
}

static void print_and_exit(const char *text)
{
	fputs(text, stdout);
	if (fflush(stdout))
		fail("stdout: %s (%s)", strerror(errno), error_name(errno));
	exit(0);
}

static struct options parse_options(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ "map", required_argument, NULL, 'M' },
		{ "dry-run", no_argument, NULL, 'D' },
		{ "disk", required_argument, NULL, 'd' },
		{ "disk-ro", required_argument, NULL, 'r' },
		{ "hvc", no_argument, NULL, 'H' },
		{ "move-bar", required_argument, NULL, 'B' },
		{ NULL, 0, NULL, 0 },
	};
	struct options opts = { .ram_len = DEFAULT_RAM, .nr_vcpus = 1 };
	char letter[3] = "-";
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":m:c:k:i:a:h", longs, NULL)) != -1) {
		letter[1] = optopt;
		switch (c) {
		case 'm':
			opts.ram_len = parse_ram(optarg);
			break;
		case 'c':
			opts.nr_vcpus = parse_vcpus(optarg);
			break;
		case 'k':
			opts.kernel = optarg;
			break;
		case 'i':
			opts.initrd = optarg;
			break;
		case 'a':
			opts.append = optarg;
			break;
		case 'M':
			opts.map = optarg;
			break;
		case 'D':
			opts.dry_run = true;
			break;
		case 'd':
			add_disk(&opts, optarg, false);
			break;
		case 'r':
			add_disk(&opts, optarg, true);
			break;
		case 'H':
			opts.hvc = true;
			break;
		case 'B':
			opts.moves = parse_moves(optarg);
			break;
		case 'h':
			print_and_exit(usage);
			break;
		case 'V':
			print_and_exit("gvmm " GVMM_VERSION "\n");
			break;
		case ':':
			fail_usage("an option without its value", letter);
		default:
			fail_usage("unknown option", strncmp(argv[optind - 1], "--", 2) ?
				   letter : argv[optind - 1]);
		}
	}
	if (optind < argc)
		fail_usage("unexpected argument", argv[optind]);
	if (opts.dry_run && !opts.map)
		fail_usage("--dry-run needs a map file, it is named with --map", NULL);
	if (!opts.kernel && !opts.dry_run)
		fail_usage("no kernel given, it is named with -k", NULL);
	return opts;
}

/* ---- set-up ----------------------------------------------------------- */

/*
 * A standard stream that is closed would be the next file that is opened, and the
 * guest would print into it.
 */
static void occupy_streams(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
		if (fd < 0)
			exit(GVMM_SETUP);	/* there may be nowhere to say it */
	} while (fd <= STDERR_FILENO);
	close(fd);
}

static void kvm_open(struct gvmm *vm)
{
	static const struct {
		int number;
		const char *name;
	} caps[] = {
		{ KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP" },
		{ KVM_CAP_PIT2, "KVM_CAP_PIT2" },
		{ KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR" },
		{ KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR" },
		{ KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
		{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
	};
	unsigned int i;
	int max;

	vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0 && errno == ENOENT)
		fail("/dev/kvm: there is none, is KVM's module loaded? (ENOENT)");
	if (vm->kvm_fd < 0)
		fail("/dev/kvm: %s (%s)", strerror(errno), error_name(errno));
	if (ioctl(vm->kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		fail("/dev/kvm: not the KVM interface of version %d", KVM_API_VERSION);
	for (i = 0; i < ARRAY_SIZE(caps); i++) {
		if (ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, caps[i].number) <= 0)
			fail("/dev/kvm: this KVM lacks %s", caps[i].name);
	}
	max = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	if (max > 0 && vm->nr_vcpus > (unsigned int)max)
		fail("-c: this KVM has at most %d vCPUs; try gvmm --help", max);
}

/* The VM itself, and where KVM may put what Intel needs. No vCPU yet. */
static void create_vm(struct gvmm *vm)
{
	uint64_t identity = GPA_KVM_IDENTITY;

	vm->vm_fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
	if (vm->vm_fd < 0)
		fail("KVM_CREATE_VM: %s (%s)", strerror(errno), error_name(errno));
	if (ioctl(vm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity))
		fail("KVM_SET_IDENTITY_MAP_ADDR: %s (%s)", strerror(errno),
		     error_name(errno));
	if (ioctl(vm->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)GPA_KVM_TSS))
		fail("KVM_SET_TSS_ADDR: %s (%s)", strerror(errno), error_name(errno));
}

static void create_irqchip(struct gvmm *vm)
{
	/* KVM then answers port 0x61, too, where the PIT is gated. */
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };

	if (ioctl(vm->vm_fd, KVM_CREATE_IRQCHIP, 0))
		fail("KVM_CREATE_IRQCHIP: %s (%s)", strerror(errno), error_name(errno));
	if (ioctl(vm->vm_fd, KVM_CREATE_PIT2, &pit))
		fail("KVM_CREATE_PIT2: %s (%s)", strerror(errno), error_name(errno));
}

/* Can the processor address all of RAM? */
static void check_ram(const struct gvmm *vm)
{
	unsigned int bits = vcpu_gpa_bits(vm);
	uint64_t end = vm->ram_len;

	if (end > GPA_LOW_RAM_END)
		end = GPA_HIGH_RAM + (end - GPA_LOW_RAM_END);
	if (bits < 64 && end > 1ULL << bits)
		fail("-m: guest-physical addresses have %u bits on this host; "
		     "try gvmm --help", bits);
}

/* The devices that the options ask for, before there is memory. */
static void add_devices(struct gvmm *vm, const struct options *opts)
{
	unsigned int i;

	for (i = 0; i < opts->nr_disks; i++)
		blk_add(vm, opts->disks[i].path, opts->disks[i].readonly);
	if (opts->hvc)
		vcons_add(vm);
	virtio_tie(vm);
	if (opts->moves)
		card_add(vm, opts->moves);
}

static char *build_cmdline(const struct options *opts)
{
	char card[64] = "";
	char *cmdline;
	int n;

	if (opts->moves)
		snprintf(card, sizeof(card), " gvmm.card=0x%llx,0x%llx", GPA_CARD0,
			 GPA_CARD1);
	n = asprintf(&cmdline, "%s%s%s%s%s", DEFAULT_CMDLINE,
		     opts->hvc ? " console=hvc0" : "", card, opts->append ? " " : "",
		     opts->append ? opts->append : "");
	if (n < 0)
		fail("the command line: out of memory");
	return cmdline;
}

int main(int argc, char **argv)
{
	static struct gvmm vm;
	struct options opts;
	char *cmdline;

	occupy_streams();
	opts = parse_options(argc, argv);
	vm.ram_len = opts.ram_len;
	vm.nr_vcpus = opts.nr_vcpus;
	pthread_mutex_init(&vm.end.lock, NULL);

	if (!opts.dry_run)
		boot_read(opts.kernel, opts.initrd);
	kvm_open(&vm);
	create_vm(&vm);
	vcpu_setup(&vm);
	check_ram(&vm);
	add_devices(&vm, &opts);
	vm.own_ports = !opts.map;
	memory_create(&vm);
	virtio_connect(&vm);
	if (vm.card)
		card_connect(&vm);
	if (opts.dry_run) {
		memory_plan_file(&vm, opts.map);
		return 0;
	}
	if (opts.map)
		memory_apply_file(&vm, opts.map);
	bios_fill(&vm);
	cmdline = build_cmdline(&opts);
	boot_load(&vm, cmdline);
	free(cmdline);
	create_irqchip(&vm);
	vcpu_create_all(&vm);

	serial_init(&vm);
	console_start(&vm);
	virtio_start(&vm);
	if (vm.card)
		card_start(&vm);
	vcpu_start_all(&vm);
	console_serve(&vm);
	vcpu_stop_all(&vm);
	virtio_stop(&vm);
	if (vm.card)
		card_stop(&vm);
	console_finish(&vm);
	gpamap_exits_unmap(vm.exits);
	gpamap_close(vm.map);
	fprintf(stderr, "gvmm: %s\n", vm.end.why);
	return vm.end.status;
}
