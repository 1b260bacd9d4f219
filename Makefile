# SPDX-License-Identifier: GPL-2.0
#
# Everything is built below build/; the sources stay clean. `make help` says what
# there is to make. The kernel module is built by Kbuild in a directory of its own
# for every kernel, build/kernel/RELEASE; Kbuild itself is for those who build the
# module from this directory (dkms).

VERSION := 0.1
SONAME := libgpamap.so.0
B := build
TOP := $(CURDIR)

prefix ?= /usr/local
bindir ?= $(prefix)/bin
libdir ?= $(prefix)/lib
includedir ?= $(prefix)/include
mandir ?= $(prefix)/share/man
udevdir ?= $(prefix)/lib/udev/rules.d
moduledir ?= /lib/modules

# The headers of the running kernel, else the newest installed.
KDIR ?= $(firstword $(wildcard /lib/modules/$(shell uname -r)/build) \
	$(shell ls -d /usr/src/linux-headers-*-amd64 2>/dev/null | sort -rV))
# Of the kernel that KDIR belongs to; empty without one.
KREL := $(if $(KDIR),$(shell sed -n 's/.*UTS_RELEASE "\(.*\)"/\1/p' \
	$(KDIR)/include/generated/utsrelease.h 2>/dev/null))

CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Wmissing-prototypes -Wstrict-prototypes -Wshadow
CPPFLAGS_USER := -D_GNU_SOURCE -I$(TOP)/uapi -I$(TOP)/userlib
CPPFLAGS_CORE := $(CPPFLAGS_USER) -I$(TOP) -I$(TOP)/kmod -I$(TOP)/tools/core \
	-I$(TOP)/tools
USER := -std=gnu11 $(WARN) $(CPPFLAGS_USER) -MMD -MP
# The core is kernel code: callbacks that leave an argument unused are normal.
CORE := -std=gnu11 $(WARN) -Wno-unused-parameter $(CPPFLAGS_CORE) -MMD -MP
SANITIZE := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
	-fno-sanitize-recover=all -DGPAMAP_CHUNK_RANGES=10
# The fuzzer comes with clang.
CLANG ?= clang
FUZZ := $(SANITIZE) -fsanitize=fuzzer-no-link

# kselftest_harness.h compares whatever it is given and shadows its own names.
HARNESS := -I$(TOP)/selftests -Wno-shadow -Wno-sign-compare -Wno-missing-prototypes

# V=1 shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)')

CORE_SRC := kmod/region.c kmod/flatview.c kmod/diff.c kmod/extents.c \
	$(wildcard tools/core/*.c)
LIB_SRC := $(wildcard userlib/*.c)
TOOL_SRC := $(wildcard tools/*.c)
GVMM_SRC := $(wildcard samples/gvmm/*.c)
TEST_SRC := $(wildcard selftests/*_test.c)
TEST_LIB_SRC := $(wildcard selftests/lib/*.c)
HOST_SRC := $(wildcard selftests/host/*_test.c)
VIRTIO_SRC := $(addprefix samples/gvmm/,virtio_mmio.c virtqueue.c blk.c)
# The module itself, a sample that adds to it, and one for the tests.
MODULE_DIRS := kmod samples/pmtimer selftests/modules
MODULE_SRC := $(foreach d,$(MODULE_DIRS),$(wildcard $d/*.[ch]) $d/Kbuild) uapi/linux/gpamap.h
MODULES := gpamap.ko gpamap_pmtimer.ko gpamap_test.ko

LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
CORE_OBJ := $(CORE_SRC:%.c=$(B)/%.o)
TOOL_OBJ := $(TOOL_SRC:%.c=$(B)/%.o)
GVMM_OBJ := $(GVMM_SRC:%.c=$(B)/%.o)
TEST_BIN := $(TEST_SRC:selftests/%.c=$(B)/selftests/%)
STRESS_BIN := $(B)/selftests/stress $(B)/selftests/stress_ties
TEST_LIB_OBJ := $(TEST_LIB_SRC:%.c=$(B)/%.o)
HOST_BIN := $(HOST_SRC:selftests/%.c=$(B)/selftests/%)
VIRTIO_TEST := $(B)/selftests/host/virtio_test
LAYOUT_TEST := $(B)/selftests/host/layout_test
FUZZ_OBJ := $(patsubst %.c,$(B)/fuzz/%.o,$(CORE_SRC) selftests/host/exercise.c \
	selftests/host/fuzz_core.c)
FUZZ_BIN := $(addprefix $(B)/selftests/host/,fuzz_seed fuzz_replay) \
	$(if $(shell command -v $(CLANG)),$(B)/fuzz/fuzz_core)
SAN_OBJ := $(CORE_SRC:%.c=$(B)/san/%.o) $(LIB_SRC:%.c=$(B)/san/%.o)

all: $(if $(KREL),module,no-module) userlib tools samples tests

help:
	@echo 'make                  the module (if kernel headers are found), library, tool,'
	@echo '                      samples and tests, in build/'
	@echo 'make module           build/gpamap.ko, against KDIR (now $(or $(KDIR),none found))'
	@echo 'make userlib          libgpamap: shared, static, pkg-config file'
	@echo 'make tools            the gpamap command'
	@echo 'make samples          gvmm, a small VMM, and a program for its guest'
	@echo 'make tests            test programs'
	@echo 'make check            install what is needed, run all tests (about 25 minutes)'
	@echo 'make check-host       only the tests that need no kernel'
	@echo 'make check-matrix     the module on several kernels of Debian'
	@echo 'make check-debug      the module in a debug kernel, which is compiled first'
	@echo 'make check-kcsan      the module in a kernel that looks for data races, likewise'
	@echo 'make lint             static checks: warnings, sparse, checkpatch, coccicheck and more'
	@echo 'make stress           change the map under running vCPUs, 10,000 times (half an hour)'
	@echo 'make fuzz SECONDS=60  compare the core with a model, on inputs that a fuzzer makes'
	@echo 'make fuzz-abi SECONDS=60  random calls to the module from many processes at once'
	@echo 'make coverage         lines of the core that no host test reaches'
	@echo 'make bench-core       count what the core costs, on maps of all sizes'
	@echo 'make bench-churn      count memslot operations while a PC boots'
	@echo 'make bench-commit     time a commit under running vCPUs against plain KVM'
	@echo 'make bench-dispatch   count what an access to an I/O region costs'
	@echo 'make demo             install what is needed, boot a guest under gvmm'
	@echo 'make install          DESTDIR, prefix ($(prefix)); the module too if it was built'
	@echo 'make clean            remove build/'
	@echo 'Variables: KDIR kernel headers, W=1 more warnings, V=1 show commands,'
	@echo 'CC CFLAGS LDFLAGS as usual; GPAMAP_CACHE where downloads are kept; KERNELS'
	@echo 'of check-matrix (now $(KERNELS));'
	@echo 'KERNEL of stress, fuzz-abi, bench-commit and bench-dispatch: a release, a Debian suite'
	@echo 'or "debug" (now $(or $(KERNEL),that of KDIR))'

# ---- the module

no-module:
	@echo 'no kernel headers found: the module is not built (make help)'

module: $(MODULES:%=$(B)/%)

ifneq ($(KREL),)
KBUILD := $(B)/kernel/$(KREL)

# Copied, so that one source can be built for several kernels side by side. A kernel may be
# compiled anew with another configuration.
$(KBUILD)/gpamap.ko: $(MODULE_SRC) $(wildcard $(KDIR)/include/generated/autoconf.h)
	$(Q)mkdir -p $(KBUILD)
	$(Q)cp --preserve=timestamps $(MODULE_DIRS:%=%/*.c) kmod/*.h $(KBUILD)/
	$(Q)cat $(MODULE_DIRS:%=%/Kbuild) > $(KBUILD)/Kbuild
	$(Q)$(MAKE) --no-print-directory -C $(KDIR) M=$(TOP)/$(KBUILD) GPAMAP_TOP=$(TOP) \
		$(if $(W),W=$(W)) $(if $(V),V=$(V)) modules
	$(Q)touch $@

# Of the kernel that was built for last.
$(MODULES:%=$(B)/%): $(B)/%: $(KBUILD)/gpamap.ko FORCE
	$(Q)cmp -s $(KBUILD)/$* $@ || cp $(KBUILD)/$* $@
else
$(MODULES:%=$(B)/%):
	@echo 'no kernel headers: set KDIR, or install the package linux-headers-amd64' >&2
	@exit 1
endif

# ---- userspace

userlib: $(B)/libgpamap.so $(B)/libgpamap.a $(B)/libgpamap.pc
tools: $(B)/gpamap
samples: $(B)/gvmm $(B)/guest-card
tests: $(TEST_BIN) $(STRESS_BIN) $(B)/selftests/fuzz_abi $(HOST_BIN) $(FUZZ_BIN) \
	$(B)/san/gpamap

$(B)/userlib/%.o: userlib/%.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(USER) $(CFLAGS) -fPIC -fvisibility=hidden -c $< -o $@

$(B)/$(SONAME): $(LIB_OBJ) userlib/libgpamap.map
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -shared -Wl,-soname,$(SONAME) \
		-Wl,--version-script=userlib/libgpamap.map -Wl,-z,defs $(LIB_OBJ) -o $@ \
		-lpthread

$(B)/libgpamap.so: $(B)/$(SONAME)
	$(Q)ln -sf $(SONAME) $@

$(B)/libgpamap.a: $(LIB_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# Every time: prefix may be another.
$(B)/libgpamap.pc: userlib/libgpamap.pc.in FORCE
	$(Q)mkdir -p $(@D)
	$(Q)sed -e 's|@prefix@|$(prefix)|;s|@libdir@|$(libdir)|' \
		-e 's|@includedir@|$(includedir)|;s|@version@|$(VERSION)|' $< > $@

$(B)/kmod/%.o: kmod/%.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CORE) $(CFLAGS) -c $< -o $@

$(B)/tools/%.o: tools/%.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CORE) $(CFLAGS) -c $< -o $@

$(B)/gpamap: $(TOOL_OBJ) $(CORE_OBJ) $(B)/libgpamap.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ -o $@

$(B)/samples/%.o: samples/%.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(USER) $(CFLAGS) -c $< -o $@

$(B)/gvmm: $(GVMM_OBJ) $(B)/libgpamap.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ -o $@ -lpthread

# For a disk that has no libraries.
$(B)/guest-card: samples/guest/card.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(USER) $(CFLAGS) -static $(LDFLAGS) $< -o $@

# ---- tests: those of the machine are static, so that they run anywhere

$(B)/selftests/lib/%.o: selftests/lib/%.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(USER) -I$(TOP)/selftests -I$(TOP)/selftests/lib $(CFLAGS) -c $< -o $@

$(TEST_BIN): $(B)/selftests/%_test: selftests/%_test.c $(TEST_LIB_OBJ) $(B)/libgpamap.a
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(USER) $(HARNESS) -I$(TOP)/selftests/lib $(CFLAGS) \
		-static $(LDFLAGS) $< $(TEST_LIB_OBJ) $(B)/libgpamap.a -o $@ -lpthread

$(B)/selftests/churn: selftests/churn.c $(TEST_LIB_OBJ) $(B)/libgpamap.a
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(USER) -I$(TOP)/selftests/lib $(CFLAGS) -static $(LDFLAGS) $< \
		$(TEST_LIB_OBJ) $(B)/libgpamap.a -o $@

$(B)/selftests/fuzz_abi: selftests/fuzz_abi.c $(TEST_LIB_OBJ) $(B)/libgpamap.a
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(USER) -I$(TOP)/selftests/lib $(CFLAGS) -static $(LDFLAGS) $< \
		$(TEST_LIB_OBJ) $(B)/libgpamap.a -o $@ -lpthread

# The stress test, with what its guest runs in either mode: flat images.
STRESS_GUEST := -std=gnu11 -Wall -Wextra -O2 -ffreestanding -fno-pic -fno-pie \
	-mgeneral-regs-only -mno-red-zone -fno-stack-protector -fcf-protection=none \
	-fno-asynchronous-unwind-tables -Wa,--fatal-warnings -nostdlib -static -no-pie \
	-Wl,--build-id=none -Wl,--oformat=binary
$(B)/selftests/stress-real.bin: MODE := -m16
$(B)/selftests/stress-long.bin: MODE := -m64
$(B)/selftests/stress-%.bin: selftests/stress_guest.c selftests/stress_guest.h \
		selftests/stress_guest.lds
	$(call say,CC,$< ($*))
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(MODE) $(STRESS_GUEST) $< -Wl,-T,selftests/stress_guest.lds -o $@

$(B)/selftests/stress: selftests/stress.c $(B)/selftests/stress-real.bin \
		$(B)/selftests/stress-long.bin $(TEST_LIB_OBJ) $(B)/libgpamap.a
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(USER) -I$(TOP)/selftests/lib -Wa,-I$(B)/selftests $(CFLAGS) \
		-static $(LDFLAGS) $< $(TEST_LIB_OBJ) $(B)/libgpamap.a -o $@ -lpthread

$(B)/selftests/stress_ties: selftests/stress_ties.c $(TEST_LIB_OBJ) $(B)/libgpamap.a
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(USER) -I$(TOP)/selftests/lib $(CFLAGS) -static $(LDFLAGS) $< \
		$(TEST_LIB_OBJ) $(B)/libgpamap.a -o $@ -lpthread

$(B)/selftests/dispatch_bench: selftests/dispatch_bench.c $(TEST_LIB_OBJ) $(B)/libgpamap.a
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(USER) -I$(TOP)/selftests/lib $(CFLAGS) -static $(LDFLAGS) $< \
		$(TEST_LIB_OBJ) $(B)/libgpamap.a -o $@

$(B)/selftests/commit_bench: selftests/commit_bench.c $(TEST_LIB_OBJ) $(B)/libgpamap.a
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(USER) -I$(TOP)/selftests/lib $(CFLAGS) -static $(LDFLAGS) $< \
		$(TEST_LIB_OBJ) $(B)/libgpamap.a -o $@ -lpthread

$(B)/san/%.o: %.c
	$(call say,CC,$< (sanitized))
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CORE) $(SANITIZE) -c $< -o $@

$(filter-out $(VIRTIO_TEST) $(LAYOUT_TEST),$(HOST_BIN)): $(B)/selftests/host/%_test: selftests/host/%_test.c $(B)/san/selftests/host/exercise.o $(SAN_OBJ)
	$(call say,CC,$< (sanitized))
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CORE) $(HARNESS) $(SANITIZE) $< $(B)/san/selftests/host/exercise.o \
		$(SAN_OBJ) -o $@

# Devices of gvmm, and nothing of the core.
$(VIRTIO_TEST): selftests/host/virtio_test.c $(VIRTIO_SRC:%.c=$(B)/san/%.o)
	$(call say,CC,$< (sanitized))
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CORE) $(HARNESS) $(SANITIZE) $< $(VIRTIO_SRC:%.c=$(B)/san/%.o) -o $@ \
		-lpthread

# The library, and no kernel.
$(LAYOUT_TEST): selftests/host/layout_test.c $(LIB_SRC:%.c=$(B)/san/%.o)
	$(call say,CC,$< (sanitized))
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CORE) $(HARNESS) $(SANITIZE) -Wl,--wrap=ioctl,--wrap=mmap,--wrap=munmap \
		$< $(LIB_SRC:%.c=$(B)/san/%.o) -o $@ -lpthread

# The core's objects again, counting lines. The harness leaves by _exit().
COV := -O0 -g --coverage -DGPAMAP_CHUNK_RANGES=10
COV_OBJ := $(CORE_SRC:%.c=$(B)/cov/%.o) $(LIB_SRC:%.c=$(B)/cov/%.o) \
	$(B)/cov/selftests/host/coverage_exit.o
COV_LD := --coverage -Wl,--wrap=_exit
COV_BIN := $(addprefix $(B)/cov/,core_test gpamap fuzz_seed fuzz_replay)

$(B)/cov/%.o: %.c
	$(call say,CC,$< (counting))
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CORE) $(COV) -c $< -o $@

$(B)/cov/core_test: selftests/host/core_test.c $(B)/cov/selftests/host/exercise.o $(COV_OBJ)
	$(call say,CC,$< (counting))
	$(Q)$(CC) $(CORE) $(HARNESS) $(COV) $^ $(COV_LD) -o $@

$(B)/cov/gpamap: $(COV_OBJ) $(TOOL_SRC:%.c=$(B)/cov/%.o)
	$(call say,LD,$@)
	$(Q)$(CC) $^ $(COV_LD) -o $@

$(B)/cov/fuzz_seed: $(B)/cov/selftests/host/fuzz_seed.o $(COV_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) $^ $(COV_LD) -o $@

$(B)/cov/fuzz_replay: $(addprefix $(B)/cov/selftests/host/,fuzz_replay.o fuzz_core.o \
		exercise.o) $(COV_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) $^ $(COV_LD) -o $@

$(B)/san/gpamap: $(SAN_OBJ) $(TOOL_SRC:%.c=$(B)/san/%.o)
	$(call say,LD,$@)
	$(Q)$(CC) $(SANITIZE) $^ -o $@

$(B)/fuzz/%.o: %.c
	$(call say,CC,$< (fuzzed))
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(CORE) $(FUZZ) -c $< -o $@

$(B)/fuzz/fuzz_core: $(FUZZ_OBJ)
	$(call say,LD,$@)
	$(Q)$(CLANG) $(SANITIZE) -fsanitize=fuzzer $^ -o $@

$(B)/selftests/host/fuzz_replay: $(addprefix $(B)/san/selftests/host/,fuzz_replay.o \
		fuzz_core.o exercise.o) $(SAN_OBJ)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(SANITIZE) $^ -o $@

$(B)/selftests/host/fuzz_seed: $(B)/san/selftests/host/fuzz_seed.o $(SAN_OBJ)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(SANITIZE) $^ -o $@

$(B)/selftests/host/bench_core.o: selftests/host/bench_core.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CORE) $(CFLAGS) -c $< -o $@

$(B)/selftests/host/bench_core: $(B)/selftests/host/bench_core.o $(CORE_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ -o $@

# Packages first, in a make of its own: what they bring is looked up anew.
check:
	$(Q)selftests/deps check
	$(Q)selftests/deps lint
	$(Q)$(MAKE) --no-print-directory all
	$(Q)selftests/check

check-host: tools userlib $(HOST_BIN) $(FUZZ_BIN) $(B)/san/gpamap
	$(Q)selftests/check --host

KERNELS ?= bookworm bookworm-backports sid trixie-backports
check-matrix:
	$(Q)selftests/deps matrix
	$(Q)$(MAKE) --no-print-directory $(TEST_BIN)
	$(Q)selftests/check $(KERNELS)

check-debug check-kcsan: check-%:
	$(Q)selftests/deps debug
	$(Q)$(MAKE) --no-print-directory $(TEST_BIN) $(STRESS_BIN) $(B)/selftests/fuzz_abi
	$(Q)selftests/check $*

lint:
	$(Q)selftests/deps lint
	$(Q)selftests/lint

# KERNEL, SEED, COMMITS: see selftests/stress-run.
stress:
	$(Q)selftests/deps demo
	$(Q)$(MAKE) --no-print-directory module $(STRESS_BIN)
	$(Q)selftests/stress-run

# SEED: of a run that is to be repeated.
SECONDS ?= 60
fuzz:
	$(Q)selftests/deps fuzz
	$(Q)$(MAKE) --no-print-directory $(B)/fuzz/fuzz_core $(B)/selftests/host/fuzz_seed
	$(Q)selftests/host/fuzz run $(SECONDS) $(SEED)

coverage: $(COV_BIN)
	$(Q)selftests/host/coverage

# KERNEL too: see selftests/fuzz-abi-run.
fuzz-abi:
	$(Q)selftests/deps demo
	$(Q)$(MAKE) --no-print-directory module $(B)/selftests/fuzz_abi
	$(Q)SEED=$(SEED) selftests/fuzz-abi-run $(SECONDS)

bench-core:
	$(Q)selftests/deps bench
	$(Q)$(MAKE) --no-print-directory $(B)/selftests/host/bench_core
	$(Q)selftests/host/bench-core

bench-churn:
	$(Q)selftests/deps demo
	$(Q)$(MAKE) --no-print-directory module $(B)/selftests/churn
	$(Q)selftests/bench-churn

# KERNEL, of bench-commit ROUNDS too: see selftests/bench-commit.
bench-commit:
	$(Q)selftests/deps demo
	$(Q)$(MAKE) --no-print-directory module $(B)/selftests/commit_bench
	$(Q)selftests/bench-commit

bench-dispatch:
	$(Q)selftests/deps demo
	$(Q)$(MAKE) --no-print-directory module $(B)/selftests/dispatch_bench
	$(Q)selftests/bench-dispatch

demo:
	$(Q)selftests/deps demo
	$(Q)$(MAKE) --no-print-directory module tools samples
	$(Q)samples/demo

# ---- install

install: $(if $(wildcard $(B)/kernel/$(KREL)/gpamap.ko),install-module) install-user

install-user: userlib tools
	$(call say,INSTALL,$(DESTDIR)$(prefix))
	$(Q)install -d $(addprefix $(DESTDIR),$(bindir) $(libdir)/pkgconfig \
		$(includedir)/linux $(mandir)/man1 $(mandir)/man7 $(udevdir))
	$(Q)install -m 755 $(B)/gpamap $(DESTDIR)$(bindir)/
	$(Q)install -m 644 $(B)/libgpamap.a $(DESTDIR)$(libdir)/
	$(Q)install -m 755 $(B)/$(SONAME) $(DESTDIR)$(libdir)/$(SONAME).$(VERSION)
	$(Q)ln -sf $(SONAME).$(VERSION) $(DESTDIR)$(libdir)/$(SONAME)
	$(Q)ln -sf $(SONAME) $(DESTDIR)$(libdir)/libgpamap.so
	$(Q)install -m 644 $(B)/libgpamap.pc $(DESTDIR)$(libdir)/pkgconfig/
	$(Q)install -m 644 userlib/gpamap.h $(DESTDIR)$(includedir)/
	$(Q)install -m 644 uapi/linux/gpamap.h $(DESTDIR)$(includedir)/linux/
	$(Q)install -m 644 tools/man/gpamap.1 $(DESTDIR)$(mandir)/man1/
	$(Q)install -m 644 userlib/man/libgpamap.7 $(DESTDIR)$(mandir)/man7/
	$(Q)install -m 644 packaging/udev/70-gpamap.rules $(DESTDIR)$(udevdir)/

install-module: module
	$(call say,INSTALL,$(DESTDIR)$(moduledir)/$(KREL)/updates)
	$(Q)install -d $(DESTDIR)$(moduledir)/$(KREL)/updates
	$(Q)install -m 644 $(KBUILD)/gpamap.ko $(DESTDIR)$(moduledir)/$(KREL)/updates/
	$(Q)$(if $(DESTDIR),,depmod $(KREL))

clean:
	$(Q)rm -rf $(B)

FORCE:
.PHONY: all help no-module module userlib tools samples tests check check-host \
	check-matrix check-debug check-kcsan lint stress fuzz fuzz-abi coverage bench-core \
	bench-churn bench-commit bench-dispatch demo install install-user install-module clean FORCE
.DELETE_ON_ERROR:

# The objects of the tests are kept.
.SECONDARY:

-include $(shell find $(B) -name '*.d' 2>/dev/null)
