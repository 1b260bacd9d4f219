/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * gpamap: the guest-physical-address map of a KVM virtual machine.
 */
#ifndef _UAPI_LINUX_GPAMAP_H
#define _UAPI_LINUX_GPAMAP_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* A <linux/types.h> that a VMM brings along may lack it. */
#ifndef __aligned_u64
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#endif

/**
 * DOC: General format
 *
 * Every open file of /dev/gpamap is one *map*: a graph of regions, the address
 * spaces that look at it, their flat views, and at most one KVM VM whose
 * memslots follow a view. Region ids and space ids are chosen by the caller,
 * are above 0 and belong to the open file.
 *
 * Every ioctl takes a pointer to its own structure. The first member is @size,
 * set by the caller to sizeof() of the structure it was built with. A caller
 * from the future may pass a larger structure if the part that this kernel does
 * not know is zero; one from the past may pass a smaller one if it holds all
 * members of the first version. The second member is @flags; bits that are not
 * described must be zero, and so must every member named __reserved. Members
 * whose name starts with out\_ are written by the kernel.
 *
 * Addresses are guest-physical (gpa) or of the caller's own memory (hva), in
 * bytes. A member named last is inclusive, so that a region may be 2^64 bytes
 * long; npages counts pages of the host's base page size.
 *
 * Errors, the same for every command:
 *
 *  - ENOTTY: unknown command.
 *  - EINVAL: malformed: a structure too short, a spare member not zero, a
 *    member set that the operation does not use, a bad combination.
 *  - E2BIG: bytes or members from the future are not zero, or a size is larger
 *    than a page.
 *  - EOPNOTSUPP: a known member holds a value or flag that is not supported.
 *  - EBADF: a file descriptor is not open.
 *  - ENOENT: no object with that id.
 *  - EEXIST: the id, or the place, is taken.
 *  - EBUSY: in use, cannot be changed now.
 *  - EOVERFLOW: address arithmetic would wrap.
 *  - ELOOP: a view that would not come to an end, or lies deeper than GPAMAP_MAX_DEPTH.
 *  - ENOSPC: a limit of the map is reached: regions, spaces, operations,
 *    flat ranges, paths, or the memslots given to it.
 *  - EMSGSIZE: an array is too short; the needed count is returned.
 *  - EIO: the map is broken, or the caller is not the process that owns the VM.
 *  - ENOMEM, EFAULT, EINTR: as usual. EINTR is only given to a killed process, by read() to
 *    one that gets a signal.
 *
 * A command that fails has changed nothing, save that GPAMAP_APPLY and
 * GPAMAP_QUERY write the out\_ members that explain the failure. One that has been
 * done says EFAULT if the caller takes its structure away meanwhile.
 *
 * Since version 0.1 unless said otherwise.
 */

#define GPAMAP_TYPE 'G'

enum {
	GPAMAP_CMD_BASE = 0xa0,
	GPAMAP_CMD_ATTACH = GPAMAP_CMD_BASE,
	GPAMAP_CMD_DETACH,
	GPAMAP_CMD_APPLY,
	GPAMAP_CMD_QUERY,
	GPAMAP_CMD_LOOKUP,
	GPAMAP_CMD_DOORBELL,
	GPAMAP_CMD_REGISTERS,
	GPAMAP_CMD_HANDLER,
	GPAMAP_CMD_RING,
	GPAMAP_CMD_POST,
	GPAMAP_CMD_POLICY,
	GPAMAP_CMD_WATCH,
};

/* The limits of this version. GPAMAP_QUERY_INFO tells those of the kernel. */
#define GPAMAP_NAME_LEN 64	/* bytes of a name, with its closing zero */
#define GPAMAP_MAX_REGIONS 131072	/* regions of a map */
#define GPAMAP_MAX_SPACES 64	/* address spaces of a map */
#define GPAMAP_MAX_DEPTH 64	/* regions on a path, from the root down */
#define GPAMAP_MAX_RANGES 262144	/* flat ranges of one view */
#define GPAMAP_MAX_PATHS 1048576	/* ways from roots to regions, in one commit */
#define GPAMAP_MAX_OPS 131072	/* operations of one batch */
#define GPAMAP_MAX_DOORBELLS 65536	/* doorbells of a map */
#define GPAMAP_MAX_SAME_DOORBELLS 64	/* with one offset and value, or none */
#define GPAMAP_MAX_EXIT_PAGES 64	/* pages of struct gpamap_exit */
#define GPAMAP_MAX_BUS_RANGES 512	/* stretches of a bus of KVM's; more are joined */
#define GPAMAP_MAX_BUS_LEN (1ULL << 42)	/* how long they can be together */
#define GPAMAP_MAX_RINGS 64	/* rings of a map */
#define GPAMAP_MIN_RING_ENTRIES 16	/* of one ring, */
#define GPAMAP_MAX_RING_ENTRIES 65536	/* a power of two between these */
#define GPAMAP_MAX_RING_DELAY_US 1000000	/* microseconds until a reader is told */

/* out_failed_op when no single operation is to blame. */
#define GPAMAP_NO_OP 0xffffffffU

/**
 * struct gpamap_attach - ioctl(GPAMAP_ATTACH)
 * @size: sizeof(struct gpamap_attach)
 * @flags: Must be 0
 * @vm_fd: File descriptor of the KVM VM (what KVM_CREATE_VM returned)
 * @first_slot: The first memslot id that belongs to the map
 * @nr_slots: How many ids from @first_slot on; 0 for all that KVM has
 * @__reserved: Must be 0
 * @timeout_ms: For how many milliseconds the call may wait in all, as with GPAMAP_APPLY; 0 for
 *	the module's default
 * @__reserved2: Must be 0
 *
 * Binds the map to a VM of the calling process and creates the memslots that
 * the view of the map's memory space calls for. From then on the slot ids of
 * the range belong to the map: the caller must not have used any of them and
 * must leave them alone: KVM takes the creation of a slot that is there already
 * for a move, and what the map undoes later is lost to the caller. Slots outside
 * the range stay the caller's; one that lies where a slot of the map is to be is
 * an error at the commit (EEXIST).
 *
 * The map holds the VM file until GPAMAP_DETACH or until the map is closed, so
 * the VM is destroyed no sooner. Closing the map leaves the slots as they are; what the
 * map answered leaves to the VMM from then on. The rest of it is done by the kernel after
 * close(), which waits for nothing: a vCPU that sleeps inside KVM keeps the VM's file until
 * then, and ATTACH of another map to the same VM waits for it.
 *
 * Slots, buses and all that is tied to regions come in one held moment, as with
 * GPAMAP_APPLY.
 *
 * No slot has memory whose guest-physical address and host address are at different places in
 * their pages (GPAMAP_RANGE_UNALIGNED: the kernel does the accesses), nor what lies beyond the
 * physical addresses of the host's processors, where no vCPU can reach it.
 *
 * Errors: EBADF @vm_fd is not open. EINVAL @vm_fd is not a KVM VM, or the slot
 * range does not fit into KVM's. EIO the VM belongs to another process.
 * EBUSY the map has a VM, or the VM has a map, or vCPUs could not be held (or the map that the
 * VM had before be ended) in @timeout_ms. EINTR the caller is being killed. EOPNOTSUPP the VM has
 * private memory, or there is read-only memory in the view and KVM lacks
 * KVM_CAP_READONLY_MEM. ENOSPC the range has too few slots. EEXIST a slot of
 * the caller is in the way. EINVAL memory in the view has no host memory.
 */
struct gpamap_attach {
	__u32 size;
	__u32 flags;
	__s32 vm_fd;
	__u32 first_slot;
	__u32 nr_slots;
	__u32 __reserved;
	__u32 timeout_ms;
	__u32 __reserved2;
};

#define GPAMAP_ATTACH _IO(GPAMAP_TYPE, GPAMAP_CMD_ATTACH)

/**
 * struct gpamap_detach - ioctl(GPAMAP_DETACH)
 * @size: sizeof(struct gpamap_detach)
 * @flags: Must be 0
 * @timeout_ms: For how many milliseconds the call may wait in all, as with GPAMAP_APPLY; 0 for
 *	the module's default
 * @__reserved: Must be 0
 *
 * Deletes the memslots of the map, takes it from KVM's buses and lets the VM go, in one held
 * moment. The regions, what is tied to them, and the views stay; the map can be attached
 * again, to this VM or to another.
 *
 * Errors: ENOENT no VM is attached. EIO the map is broken, or the VM belongs to
 * another process. EBUSY, EINTR vCPUs could not be held, as with GPAMAP_APPLY.
 */
struct gpamap_detach {
	__u32 size;
	__u32 flags;
	__u32 timeout_ms;
	__u32 __reserved;
};

#define GPAMAP_DETACH _IO(GPAMAP_TYPE, GPAMAP_CMD_DETACH)

/**
 * enum gpamap_region_kind - What a region is
 * @GPAMAP_REGION_CONTAINER: Only holds other regions; a hole where they are not
 * @GPAMAP_REGION_RAM: Memory of the host
 * @GPAMAP_REGION_ROM: Memory of the host that the guest cannot write
 * @GPAMAP_REGION_IO: Accesses leave to the VMM (KVM_EXIT_MMIO, KVM_EXIT_IO), but for
 *	writes that ring a doorbell or are posted, and accesses to a register or to the
 *	region of a handler, or of a policy that answers (GPAMAP_POLICY)
 * @GPAMAP_REGION_ALIAS: A window onto another region
 * @GPAMAP_REGION_ROMD: A rom device: in romd mode (GPAMAP_REGION_ROMD_MODE) memory of
 *	the host that the guest reads, while its writes leave to the VMM; out of it
 *	like io
 * @GPAMAP_REGION_RESERVED: Nothing may be here: accesses leave to the VMM, or GPAMAP_POLICY
 *	says what becomes of them
 */
enum gpamap_region_kind {
	GPAMAP_REGION_CONTAINER = 1,
	GPAMAP_REGION_RAM = 2,
	GPAMAP_REGION_ROM = 3,
	GPAMAP_REGION_IO = 4,
	GPAMAP_REGION_ALIAS = 5,
	GPAMAP_REGION_ROMD = 6,
	GPAMAP_REGION_RESERVED = 7,
};

/**
 * enum gpamap_region_flags - Properties of a region, or of a flat range
 * @GPAMAP_REGION_READONLY: What is seen through this region cannot be written
 * @GPAMAP_REGION_DISABLED: The region and all below it are not seen
 * @GPAMAP_REGION_NONVOLATILE: What is seen through this region keeps its contents
 *	without power; told, not acted upon
 * @GPAMAP_REGION_UNMERGEABLE: What is seen through this region never joins a
 *	neighbour in the flat view
 * @GPAMAP_REGION_ROMD_MODE: A rom device is in romd mode (kind romd only)
 * @GPAMAP_REGION_CUT_AHEAD: A hint: what this region shows is going to come and go. New
 *	memslots above 1 MiB are cut at the borders of that, so that no large one has to
 *	be deleted then; or, so that the guest keeps its huge pages, at the borders of 2 MiB
 *	around them, where all of that is memory that can be mapped as one. What disabled
 *	regions would show is taken for this without being told. Of no consequence for the view
 */
enum gpamap_region_flags {
	GPAMAP_REGION_READONLY = 1 << 0,
	GPAMAP_REGION_DISABLED = 1 << 1,
	GPAMAP_REGION_NONVOLATILE = 1 << 2,
	GPAMAP_REGION_UNMERGEABLE = 1 << 3,
	GPAMAP_REGION_ROMD_MODE = 1 << 4,
	GPAMAP_REGION_CUT_AHEAD = 1 << 5,
};

/**
 * enum gpamap_range_flags - What else is told of a flat range, beside enum gpamap_region_flags
 * @GPAMAP_RANGE_UNALIGNED: Memory whose guest-physical and host addresses are at different
 *	places in their pages, so that no memslot can show it. Each access of a guest's is done
 *	by the kernel by itself, which is slow, and no instruction can be fetched from there.
 *	If no guest has chosen the address, the host memory is not where it should be
 * @GPAMAP_RANGE_SHADOWED: A device of KVM's own (an interrupt controller, an ioeventfd, a
 *	coalesced zone) has addresses of the range at this moment, in a space that the VM looks
 *	at. KVM asks that device, and not what the range shows, about accesses to these; all
 *	else of the range is as it should be. Where a memslot is the slot is before the device.
 *	Told by GPAMAP_QUERY and GPAMAP_LOOKUP, not with an exit
 */
enum gpamap_range_flags {
	GPAMAP_RANGE_UNALIGNED = 1 << 16,
	GPAMAP_RANGE_SHADOWED = 1 << 17,
};

/**
 * enum gpamap_space_kind - What stands behind an address space
 * @GPAMAP_SPACE_MEMORY: The guest-physical memory of the attached VM
 * @GPAMAP_SPACE_IO: The ports of the attached VM
 * @GPAMAP_SPACE_VIEW: Nothing: a view to look at
 */
enum gpamap_space_kind {
	GPAMAP_SPACE_MEMORY = 1,
	GPAMAP_SPACE_IO = 2,
	GPAMAP_SPACE_VIEW = 3,
};

/**
 * enum gpamap_op_code - Operations of a batch
 * @GPAMAP_OP_REGION: Make region @id of @kind, @last and @name, detached. Takes
 *	@flags; @hva for ram, rom and romd; @ref (the target) and @offset for an alias.
 *	EEXIST the id is taken; ENOENT no such target; EOPNOTSUPP unknown kind or
 *	flag; EOVERFLOW @hva + @last wraps; ENOSPC GPAMAP_MAX_REGIONS reached;
 *	EINVAL a bad name.
 * @GPAMAP_OP_ADD: Attach region @id to container @ref at offset @at with
 *	priority @prio. Among equal priorities the last attached is seen. Any
 *	region but an alias may hold others, and covers itself where they are not.
 *	It may hold what it is seen through, an alias of itself for one: that is an
 *	error (ELOOP of GPAMAP_APPLY) only if a view does not come to an end there.
 *	EBUSY @id has a container; EINVAL @ref is an alias.
 * @GPAMAP_OP_DEL: Detach region @id from its container. ENOENT it has none.
 * @GPAMAP_OP_DESTROY: Forget region @id. EBUSY it is attached, holds others, is
 *	the target of an alias or the root of a space, or has doorbells,
 *	registers, a handler or a policy, or posts its writes (which GPAMAP_OP_UNTIE, before
 *	it in the same batch, takes away).
 * @GPAMAP_OP_SET: Change what @mask (enum gpamap_set_mask) names. A changed @at
 *	or @prio attaches the region anew, above its equals; the same value
 *	changes nothing. ENOENT @at or @prio of a region with no container;
 *	EINVAL empty mask, offset of a region that is no alias, or romd mode of one
 *	that is no rom device; EOVERFLOW its host memory + @last wraps.
 * @GPAMAP_OP_SPACE: Make space @id of @kind and @name that looks at region @ref.
 *	EEXIST the id is taken, or there is a memory space for that @as_id, or an
 *	io space, already;
 *	EOPNOTSUPP a kind or KVM address space that is not supported; ENOSPC
 *	GPAMAP_MAX_SPACES reached.
 * @GPAMAP_OP_SPACE_DESTROY: Forget space @id and, with a memory space, delete
 *	its slots.
 * @GPAMAP_OP_DOORBELL: Tie a doorbell to region @id, or untie one: @flags (enum
 *	gpamap_doorbell_flags), @len, @offset, @value and @fd as in struct gpamap_doorbell,
 *	which has the rules and errors.
 * @GPAMAP_OP_REGISTERS: Tie registers to region @id, or untie them: @flags (enum
 *	gpamap_registers_flags), @nr, @item_size and @items as in struct gpamap_registers. The
 *	array is read by the call: EFAULT it is not there.
 * @GPAMAP_OP_HANDLER: Tie the handler @name to region @id, or untie it: @flags (enum
 *	gpamap_handler_flags), @value (its argument) and @name as in struct gpamap_handler.
 * @GPAMAP_OP_POST: Have region @id post to ring @ref, or no longer: @flags (enum
 *	gpamap_post_flags) and @ref as in struct gpamap_post.
 * @GPAMAP_OP_POLICY: Give region @id the policy @kind (enum gpamap_policy_kind), as
 *	in struct gpamap_policy.
 * @GPAMAP_OP_UNTIE: Untie from region @id all that @mask (enum gpamap_tie_mask) names, be it
 *	much or nothing. ENOENT no such region; EOPNOTSUPP an unknown bit; EINVAL an empty
 *	mask.
 * @GPAMAP_OP_TIDY: Of no region: all other members are 0 (EINVAL). The memslots of the VM become
 *	those that ATTACH would make now: slots that were split, and meet where none needs
 *	to, are joined. The guest finds its memory unmapped and maps it anew, with huge pages
 *	where there can be some. Nothing is done, and nobody held, if there is nothing to join
 */
enum gpamap_op_code {
	GPAMAP_OP_REGION = 1,
	GPAMAP_OP_ADD = 2,
	GPAMAP_OP_DEL = 3,
	GPAMAP_OP_DESTROY = 4,
	GPAMAP_OP_SET = 5,
	GPAMAP_OP_SPACE = 6,
	GPAMAP_OP_SPACE_DESTROY = 7,
	GPAMAP_OP_DOORBELL = 8,
	GPAMAP_OP_REGISTERS = 9,
	GPAMAP_OP_HANDLER = 10,
	GPAMAP_OP_POST = 11,
	GPAMAP_OP_POLICY = 12,
	GPAMAP_OP_UNTIE = 13,
	GPAMAP_OP_TIDY = 14,
};

/**
 * enum gpamap_tie_mask - What GPAMAP_OP_UNTIE unties
 * @GPAMAP_TIE_DOORBELLS: All doorbells
 * @GPAMAP_TIE_REGISTERS: The registers
 * @GPAMAP_TIE_HANDLER: The handler
 * @GPAMAP_TIE_RING: That it posts its writes
 * @GPAMAP_TIE_POLICY: The policy, which is GPAMAP_POLICY_NONE then
 */
enum gpamap_tie_mask {
	GPAMAP_TIE_DOORBELLS = 1 << 0,
	GPAMAP_TIE_REGISTERS = 1 << 1,
	GPAMAP_TIE_HANDLER = 1 << 2,
	GPAMAP_TIE_RING = 1 << 3,
	GPAMAP_TIE_POLICY = 1 << 4,
};

/**
 * enum gpamap_set_mask - What GPAMAP_OP_SET changes
 * @GPAMAP_SET_ENABLED: GPAMAP_REGION_DISABLED, to its value in op.flags
 * @GPAMAP_SET_READONLY: GPAMAP_REGION_READONLY, to its value in op.flags
 * @GPAMAP_SET_AT: The offset in the container, to op.at
 * @GPAMAP_SET_PRIO: The priority in the container, to op.prio
 * @GPAMAP_SET_OFFSET: Where an alias's window begins in its target, to op.offset
 * @GPAMAP_SET_NONVOLATILE: GPAMAP_REGION_NONVOLATILE, to its value in op.flags
 * @GPAMAP_SET_UNMERGEABLE: GPAMAP_REGION_UNMERGEABLE, to its value in op.flags
 * @GPAMAP_SET_ROMD: GPAMAP_REGION_ROMD_MODE, to its value in op.flags
 * @GPAMAP_SET_LAST: The length - 1, to op.last
 * @GPAMAP_SET_CUT_AHEAD: GPAMAP_REGION_CUT_AHEAD, to its value in op.flags. Memslots
 *	that are there stay as they are
 */
enum gpamap_set_mask {
	GPAMAP_SET_ENABLED = 1 << 0,
	GPAMAP_SET_READONLY = 1 << 1,
	GPAMAP_SET_AT = 1 << 2,
	GPAMAP_SET_PRIO = 1 << 3,
	GPAMAP_SET_OFFSET = 1 << 4,
	GPAMAP_SET_NONVOLATILE = 1 << 5,
	GPAMAP_SET_UNMERGEABLE = 1 << 6,
	GPAMAP_SET_ROMD = 1 << 7,
	GPAMAP_SET_LAST = 1 << 8,
	GPAMAP_SET_CUT_AHEAD = 1 << 9,
};

/**
 * struct gpamap_op - One operation of a batch
 * @code: enum gpamap_op_code
 * @id: The region, or the space, that it is about; above 0 (TIDY: 0)
 * @mask: enum gpamap_set_mask (SET) or enum gpamap_tie_mask (UNTIE)
 * @flags: enum gpamap_region_flags (REGION, SET), or those of what is tied
 * @kind: enum gpamap_region_kind (REGION), enum gpamap_space_kind (SPACE) or enum
 *	gpamap_policy_kind (POLICY)
 * @ref: Region: target of an alias (REGION), container (ADD), root (SPACE); ring (POST)
 * @prio: Priority, signed, compared inside one container only (ADD, SET)
 * @as_id: KVM address space id of a memory space (SPACE): 0, or 1 for SMM; an
 *	attached VM must have it (KVM_CAP_MULTI_ADDRESS_SPACE)
 * @at: Offset in the container (ADD, SET). What reaches beyond the container, or
 *	beyond 2^64, is cut
 * @last: Length - 1 in bytes (REGION, SET)
 * @offset: Where an alias's window begins in its target (REGION, SET); where a doorbell is in
 *	its region (DOORBELL)
 * @hva: Host memory, in the process that owns the VM, of ram, rom and romd
 *	(REGION);
 *	0 for none: such memory cannot stand in a memory space of an attached map
 * @name: Zero-terminated and zero-filled, without control characters and double
 *	quotes; may be empty, need not be unique (REGION, SPACE). Of the handler (HANDLER)
 * @value: What rings a doorbell (DOORBELL); the argument (HANDLER)
 * @items: Address of an array of struct gpamap_register (REGISTERS)
 * @nr: Elements of @items (REGISTERS)
 * @item_size: Bytes from one of @items to the next (REGISTERS)
 * @len: Length of the write that rings (DOORBELL)
 * @fd: An eventfd (DOORBELL)
 *
 * Members that an operation does not use must be zero (EINVAL).
 */
struct gpamap_op {
	__u32 code;
	__u32 id;
	__u32 mask;
	__u32 flags;
	__u32 kind;
	__u32 ref;
	__s32 prio;
	__u32 as_id;
	__aligned_u64 at;
	__aligned_u64 last;
	__aligned_u64 offset;
	__aligned_u64 hva;
	__u8 name[GPAMAP_NAME_LEN];
	__aligned_u64 value;
	__aligned_u64 items;
	__u32 nr;
	__u32 item_size;
	__u32 len;
	__s32 fd;
};

/**
 * enum gpamap_apply_flags - How GPAMAP_APPLY does it
 * @GPAMAP_APPLY_DRY_RUN: Do everything up to the first call to KVM, tell what those calls
 *	would be, and change nothing. Only the operations of the batch and their
 *	result are checked, not what KVM says
 */
enum gpamap_apply_flags {
	GPAMAP_APPLY_DRY_RUN = 1 << 0,
};

/**
 * enum gpamap_plan_flags - What a commit needs
 * @GPAMAP_PLAN_HOLD: Something that a vCPU can see changes: vCPUs are kept out of the guest,
 *	and out of KVM's emulation of it, from before the first change to after the last. Not
 *	told while the VM has no vCPUs
 */
enum gpamap_plan_flags {
	GPAMAP_PLAN_HOLD = 1 << 0,
};

/**
 * struct gpamap_apply - ioctl(GPAMAP_APPLY)
 * @size: sizeof(struct gpamap_apply)
 * @flags: enum gpamap_apply_flags
 * @ops: Pointer to @nr_ops operations
 * @nr_ops: At most GPAMAP_MAX_OPS; 0 does nothing
 * @op_size: sizeof(struct gpamap_op): the distance from one to the next
 * @out_failed_op: On an error, the index in @ops of the operation to blame, or
 *	GPAMAP_NO_OP
 * @__reserved: Must be 0
 * @out_generation: On success, the map's generation after the call. It rises by
 *	one with every commit that changes a view, or makes or destroys a space
 * @out_deletes: Memslots that were deleted, or would be; 0 while no VM is attached,
 *	here and below
 * @out_moves: Memslots that were moved to another guest-physical address
 * @out_creates: Memslots that were created
 * @out_plan: enum gpamap_plan_flags
 * @out_taken: Bytes that the guest has as memory before and after, and for a moment
 *	between has not, in whole pages; with GPAMAP_PLAN_HOLD it cannot notice
 * @timeout_ms: For how many milliseconds the call may wait in all: for the map, for KVM's
 *	locks, for vCPUs to be held. 0 for the module's default (parameter hold_timeout_ms)
 * @__reserved2: Must be 0
 *
 * Applies the operations in order, as one transaction: either all are done and
 * views and memslots follow, or nothing has changed. Only the result counts,
 * what lies between is never rendered.
 *
 * A commit is atomic for running vCPUs too: whatever one can see of it, memslots, who is asked
 * about an access, what is tied to regions, changes while all of them are held
 * (GPAMAP_PLAN_HOLD). Each vCPU, and each instruction that does not leave to the VMM, sees the
 * map before or the map after. Nobody is held if there is nothing to see: no VM is attached,
 * it has no vCPUs, or no memslot, no tie and no answer changes.
 *
 * Errors: those of the operations (enum gpamap_op_code). Those of the result,
 * for which the operation that brought it about is named: ELOOP a way from a root to a region
 * does not come to an end, or has more than GPAMAP_MAX_DEPTH regions, where it shows something of
 * the region, or would if nothing lay above; ENOSPC a view has more
 * than GPAMAP_MAX_RANGES flat ranges, more than GPAMAP_MAX_PATHS
 * ways from roots to regions had to be followed, or there are too few memslots; and, while a VM is
 * attached, EINVAL, EOPNOTSUPP and EEXIST as with GPAMAP_ATTACH, EIO for
 * another process than the VM's. EBUSY @timeout_ms have passed and nothing has changed: the map
 * is in use, or a vCPU cannot be held, for it sleeps inside KVM, for instance in a page fault
 * that userfaultfd is to resolve; @out_failed_op is GPAMAP_NO_OP then. EINTR the caller is being
 * killed. EIO the map is broken: an earlier roll-back failed; only QUERY and close are left.
 */
struct gpamap_apply {
	__u32 size;
	__u32 flags;
	__aligned_u64 ops;
	__u32 nr_ops;
	__u32 op_size;
	__u32 out_failed_op;
	__u32 __reserved;
	__aligned_u64 out_generation;
	__u32 out_deletes;
	__u32 out_moves;
	__u32 out_creates;
	__u32 out_plan;
	__aligned_u64 out_taken;
	__u32 timeout_ms;
	__u32 __reserved2;
};

#define GPAMAP_APPLY _IO(GPAMAP_TYPE, GPAMAP_CMD_APPLY)

/**
 * enum gpamap_query_what - What GPAMAP_QUERY returns
 * @GPAMAP_QUERY_INFO: One struct gpamap_info
 * @GPAMAP_QUERY_REGIONS: struct gpamap_region_info of all regions. Each is
 *	followed by those that it holds, the most visible first; regions without
 *	container come in the order of their ids. Regions that are, over containers, in
 *	themselves, and what those hold, come at the end, by the id of the container
 * @GPAMAP_QUERY_SPACES: struct gpamap_space_info of all spaces, by id
 * @GPAMAP_QUERY_RANGES: struct gpamap_range_info of the view of @space, by
 *	address
 * @GPAMAP_QUERY_SLOTS: struct gpamap_slot_info of all memslots of the map, by
 *	address. Of a broken map: those that KVM has
 * @GPAMAP_QUERY_STATS: One struct gpamap_stats
 * @GPAMAP_QUERY_COUNTERS: struct gpamap_counters of all regions that have something tied
 *	to them, by id
 * @GPAMAP_QUERY_LAYOUT: struct gpamap_layout of each enum gpamap_area, in that order
 */
enum gpamap_query_what {
	GPAMAP_QUERY_INFO = 1,
	GPAMAP_QUERY_REGIONS = 2,
	GPAMAP_QUERY_SPACES = 3,
	GPAMAP_QUERY_RANGES = 4,
	GPAMAP_QUERY_SLOTS = 5,
	GPAMAP_QUERY_STATS = 6,
	GPAMAP_QUERY_COUNTERS = 7,
	GPAMAP_QUERY_LAYOUT = 8,
};

/**
 * struct gpamap_query - ioctl(GPAMAP_QUERY)
 * @size: sizeof(struct gpamap_query)
 * @flags: Must be 0
 * @what: enum gpamap_query_what
 * @space: Id of the space (RANGES); 0 with all others
 * @records: Pointer to room for @count records
 * @record_size: sizeof() of the record the caller was built with: the distance
 *	from one to the next. What the kernel does not know is filled with zero,
 *	what the caller does not know is left out. A multiple of 8
 * @count: In: how many records there is room for. Out: how many there are
 * @out_generation: The map's generation that the records belong to
 *
 * Errors: EOPNOTSUPP unknown @what. EINVAL @record_size is no multiple of 8 or
 * shorter than the first version's. ENOENT no such space. EMSGSIZE @count is too
 * small; it then holds the needed number and @records is not written.
 */
struct gpamap_query {
	__u32 size;
	__u32 flags;
	__u32 what;
	__u32 space;
	__aligned_u64 records;
	__u32 record_size;
	__u32 count;
	__aligned_u64 out_generation;
};

#define GPAMAP_QUERY _IO(GPAMAP_TYPE, GPAMAP_CMD_QUERY)

/**
 * struct gpamap_lookup - ioctl(GPAMAP_LOOKUP)
 * @size: sizeof(struct gpamap_lookup)
 * @flags: Must be 0
 * @space: Id of the space
 * @__reserved: Must be 0
 * @addr: The address that is looked for
 * @out_offset: Its offset in the region
 * @out_last: The last address up to which the same region goes on
 * @out_hva: Its host memory; 0 if the region has none
 * @out_generation: The map's generation that the answer belongs to
 * @out_region: Id of the region that is seen there
 * @out_kind: The region's kind, enum gpamap_region_kind
 * @out_flags: enum gpamap_region_flags, or-ed along the path to the region, and enum
 *	gpamap_range_flags
 * @__reserved2: Must be 0
 *
 * What is at an address of a space. Takes no lock that a commit holds: the answer is
 * of the view before or after, never of one between. Only where no memslot is, while vCPUs are
 * held, it waits for the end of that, as GPAMAP_QUERY does.
 *
 * Errors: ENOENT no such space, or nothing is seen there. EINTR the caller is being killed.
 */
struct gpamap_lookup {
	__u32 size;
	__u32 flags;
	__u32 space;
	__u32 __reserved;
	__aligned_u64 addr;
	__aligned_u64 out_offset;
	__aligned_u64 out_last;
	__aligned_u64 out_hva;
	__aligned_u64 out_generation;
	__u32 out_region;
	__u32 out_kind;
	__u32 out_flags;
	__u32 __reserved2;
};

#define GPAMAP_LOOKUP _IO(GPAMAP_TYPE, GPAMAP_CMD_LOOKUP)

/**
 * struct gpamap_watch - ioctl(GPAMAP_WATCH)
 * @size: sizeof(struct gpamap_watch)
 * @flags: Must be 0
 *
 * Returns the descriptor of a new file, close-on-exec, that tells of new generations of the map:
 * a reader of its own. poll() says readable (EPOLLIN) when the map has a generation that was
 * not read from this file yet; only read() on the file acknowledges it. In the beginning
 * the generation that the map has is new, unless it is 0: then nothing was committed yet. The
 * map's own file is such a reader, too.
 *
 * read() gives 8 bytes, the generation (struct gpamap_apply), in the byte order of the host,
 * and waits for a new one unless the file is O_NONBLOCK (EAGAIN). EINVAL for room of less than
 * 8 bytes. Those who share one file, by fork or dup, share what it has told.
 *
 * The file does not keep the map open: when that is closed, poll() says EPOLLHUP, and read()
 * gives what was not read yet and then 0 bytes.
 *
 * Errors: EMFILE, ENFILE no descriptor, or no file, is left.
 */
struct gpamap_watch {
	__u32 size;
	__u32 flags;
};

#define GPAMAP_WATCH _IO(GPAMAP_TYPE, GPAMAP_CMD_WATCH)

/**
 * enum gpamap_doorbell_flags - What a doorbell is like, and what is done with it
 * @GPAMAP_DOORBELL_MATCH: It rings only when @value is written
 * @GPAMAP_DOORBELL_REMOVE: Take the doorbell away that all other members describe
 * @GPAMAP_DOORBELL_FAST: The guest only writes here, by plain stores (no string or
 *	read-modify-write instructions) that do not cross the end of the region or of a page:
 *	KVM may ask before it knows what the access is, see below. With @len 0, and without the
 *	two others (EINVAL)
 */
enum gpamap_doorbell_flags {
	GPAMAP_DOORBELL_MATCH = 1 << 0,
	GPAMAP_DOORBELL_REMOVE = 1 << 1,
	GPAMAP_DOORBELL_FAST = 1 << 2,
};

/**
 * struct gpamap_doorbell - ioctl(GPAMAP_DOORBELL)
 * @size: sizeof(struct gpamap_doorbell)
 * @flags: enum gpamap_doorbell_flags
 * @region: Id of the region that it belongs to: io, romd, rom or reserved
 * @len: Length of the write that rings it: 1, 2, 4, 8, or 0 for any
 * @offset: Of the write in the region
 * @value: With GPAMAP_DOORBELL_MATCH, what is to be written, @len bytes
 * @fd: An eventfd that is signalled. The map holds it until the doorbell is removed or
 *	the map closed
 * @__reserved: Must be 0
 *
 * The same as a batch of one GPAMAP_OP_DOORBELL, and so are the other commands that tie
 * something to a region with the operations of their names: a transaction, for which vCPUs
 * are held if a VM is attached, with the module's default for the time to wait (EBUSY, EINTR).
 *
 * A write of the guest's that begins at @offset of the region, wherever that is seen in
 * the memory or io space of the attached VM, signals the eventfd inside of KVM and does
 * not leave to the VMM. A doorbell belongs to its region: it moves with it, is not there
 * while the region is not seen, and is there twice if the region is seen twice. Whether
 * the VM is attached when it is made does not matter. All doorbells that a write rings
 * are rung; a write that rings none, and every read, is for what else is tied to the region,
 * or leaves to the VMM.
 *
 * What an access does is the same on all processors, but for GPAMAP_DOORBELL_FAST: where the
 * processor allows it (Intel's; with newer kernels AMD's too) KVM asks about an access that
 * begins there before it knows length and value, which spares decoding the instruction, and
 * cannot tell a read from a write either. All doorbells at the offset are rung then, if all of
 * them are fast and the region is no memory and has no doorbell with a value, no registers, no
 * handler and no policy that answers, and no device of KVM's is there. The instruction is passed
 * over: if the guest breaks what the flag promises, on such processors, a read rings and leaves the
 * guest's register as it was, and what else the instruction would do is not done.
 *
 * KVM finds the regions with doorbells on its I/O buses, where each stretch of such
 * regions that touch takes one range (two and more if longer than 1 GiB). A write over the
 * end of a stretch leaves to the VMM. A string write to a port (rep outs) comes element by
 * element, but from a guest with encrypted state: of that KVM drops what follows the first
 * element that rings nothing, if one before it rang.
 *
 * Errors: ENOENT no such region, or no such doorbell (REMOVE). EOPNOTSUPP the region
 * is of another kind. EINVAL @len is another, @value has more than @len bytes, is given
 * without MATCH, or to match with any length, FAST is given with a length, MATCH or REMOVE, the
 * write would reach beyond the region, or @fd is no eventfd. EBADF @fd is not open. EEXIST there
 * is the same doorbell (same region, offset, length, value or none, and eventfd; fast or not).
 * ENOSPC
 * GPAMAP_MAX_DOORBELLS or GPAMAP_MAX_SAME_DOORBELLS, or more than twice
 * GPAMAP_MAX_SAME_DOORBELLS come and go in one batch, or GPAMAP_MAX_BUS_LEN (below). EIO the map
 * is broken, or the VM belongs to another process.
 *
 * Where a region is seen that has doorbells, registers, a handler or a policy or posts its
 * writes, and memory that no memslot can show, KVM asks the module. Those places may not be
 * longer than GPAMAP_MAX_BUS_LEN together: ENOSPC, of GPAMAP_APPLY and GPAMAP_ATTACH too. Where
 * they are does not matter, nor how many there are. Devices of KVM's own keep their addresses
 * (GPAMAP_RANGE_SHADOWED). Of more than GPAMAP_MAX_BUS_RANGES stretches those with the shortest
 * gaps between them, below 1 GiB, are joined: accesses in such a gap leave as before, after KVM
 * has asked for nothing.
 */
struct gpamap_doorbell {
	__u32 size;
	__u32 flags;
	__u32 region;
	__u32 len;
	__aligned_u64 offset;
	__aligned_u64 value;
	__s32 fd;
	__u32 __reserved;
};

#define GPAMAP_DOORBELL _IO(GPAMAP_TYPE, GPAMAP_CMD_DOORBELL)

/**
 * enum gpamap_register_kind - What the guest's accesses to a register do
 * @GPAMAP_REGISTER_READONLY: A read gives the value in the page, a write changes nothing
 * @GPAMAP_REGISTER_READWRITE: A read gives the value in the page, a write stores it there
 * @GPAMAP_REGISTER_WRITE1_CLEAR: A read gives the value in the page, a write clears the
 *	bits there that are set in what is written
 * @GPAMAP_REGISTER_READ_CLEAR: A read gives the value in the page and clears it, a write
 *	changes nothing
 * @GPAMAP_REGISTER_CONSTANT: A read gives gpamap_register.value, whatever is in the page;
 *	a write changes nothing
 */
enum gpamap_register_kind {
	GPAMAP_REGISTER_READONLY = 1,
	GPAMAP_REGISTER_READWRITE = 2,
	GPAMAP_REGISTER_WRITE1_CLEAR = 3,
	GPAMAP_REGISTER_READ_CLEAR = 4,
	GPAMAP_REGISTER_CONSTANT = 5,
};

/**
 * struct gpamap_register - One register of a region
 * @offset: In the region and in the page: a multiple of @len, below the size of a page
 * @len: 1, 2, 4 or 8
 * @kind: enum gpamap_register_kind
 * @value: What it holds in the beginning, or always (CONSTANT); @len bytes
 */
struct gpamap_register {
	__u32 offset;
	__u16 len;
	__u16 kind;
	__aligned_u64 value;
};

/**
 * enum gpamap_registers_flags - What is done
 * @GPAMAP_REGISTERS_REMOVE: Take the registers of the region away; all members but
 *	@region are 0
 */
enum gpamap_registers_flags {
	GPAMAP_REGISTERS_REMOVE = 1 << 0,
};

/**
 * struct gpamap_registers - ioctl(GPAMAP_REGISTERS)
 * @size: sizeof(struct gpamap_registers)
 * @flags: enum gpamap_registers_flags
 * @region: Id of an io region that has none yet
 * @nr: Number of registers, at least one
 * @register_size: sizeof(struct gpamap_register)
 * @__reserved: Must be 0
 * @registers: Address of the array. No two overlap
 *
 * An access of the guest's that has the offset and length of a register, wherever the
 * region is seen, is answered inside of KVM and does not leave to the VMM, but for writes
 * through a path that is read-only. Every other access is for what else is tied to the region,
 * or leaves. Each is one atomic operation on the page, in the byte order of
 * the host. A write to a register can ring a doorbell too, after it was stored: that is how
 * the VMM hears of it.
 *
 * The page is mapped with mmap(), MAP_SHARED, at the offset @region times the size of a page,
 * as long as struct gpamap_layout says, which is one page; the VMM reads and writes it as it
 * likes. The mapping keeps the map open, and the page for itself when the registers are
 * removed. mmap() says ENOENT if the region has no registers, EINVAL for another length or a
 * private mapping.
 *
 * Errors: ENOENT no such region, or it has no registers (REMOVE). EEXIST it has some.
 * EOPNOTSUPP it is not an io region, or an unknown kind. EINVAL an offset, length, value or
 * number that cannot be, registers that overlap or are beyond the end of the region. E2BIG
 * @register_size is larger than a page, or bytes from the future are not zero. And, as for
 * GPAMAP_DOORBELL, ENOSPC of GPAMAP_MAX_BUS_LEN, and EIO.
 */
struct gpamap_registers {
	__u32 size;
	__u32 flags;
	__u32 region;
	__u32 nr;
	__u32 register_size;
	__u32 __reserved;
	__aligned_u64 registers;
};

#define GPAMAP_REGISTERS _IO(GPAMAP_TYPE, GPAMAP_CMD_REGISTERS)

/**
 * enum gpamap_handler_flags - What is done
 * @GPAMAP_HANDLER_REMOVE: Take the handler of the region away; all other members but
 *	@region are 0
 */
enum gpamap_handler_flags {
	GPAMAP_HANDLER_REMOVE = 1 << 0,
};

/**
 * struct gpamap_handler - ioctl(GPAMAP_HANDLER)
 * @size: sizeof(struct gpamap_handler)
 * @flags: enum gpamap_handler_flags
 * @region: Id of an io region that has none yet
 * @__reserved: Must be 0
 * @arg: What it means, the handler says
 * @name: Of a handler that another kernel module offers (gpamap_handler_register());
 *	zero-terminated and zero-filled
 *
 * An access of the guest's that no register and no doorbell of the region answers is
 * answered by the handler, in the kernel. The writes of one region are posted or are for a
 * handler, never both. What the handler does not take, or refuses, and writes through a path
 * that is read-only are for the policy of the region, or leave to the VMM. The region holds a
 * reference on the handler's module until the handler
 * is removed or the map closed.
 *
 * Errors: ENOENT no such region, no handler of that name, or the region has none (REMOVE).
 * EEXIST the region has one. EBUSY it posts its writes (GPAMAP_POST). EOPNOTSUPP it is no io
 * region. EINVAL a name that cannot be.
 * Whatever the handler says, of @arg for instance (EINVAL if it takes none). And, as for
 * GPAMAP_DOORBELL, ENOSPC of GPAMAP_MAX_BUS_LEN, and EIO.
 */
struct gpamap_handler {
	__u32 size;
	__u32 flags;
	__u32 region;
	__u32 __reserved;
	__aligned_u64 arg;
	__u8 name[GPAMAP_NAME_LEN];
};

#define GPAMAP_HANDLER _IO(GPAMAP_TYPE, GPAMAP_CMD_HANDLER)

/**
 * enum gpamap_policy_kind - What becomes of accesses that nothing else answers
 * @GPAMAP_POLICY_NONE: They leave to the VMM
 * @GPAMAP_POLICY_TELL: They leave to the VMM, and struct gpamap_exit tells what they are
 *	for. Not for containers and aliases, at which nothing is seen
 * @GPAMAP_POLICY_ZEROES: A read gives zeroes, a write changes nothing; for io and reserved
 *	regions only
 * @GPAMAP_POLICY_ONES: A read gives ones, a write changes nothing; for io and reserved regions
 *	only
 */
enum gpamap_policy_kind {
	GPAMAP_POLICY_NONE = 0,
	GPAMAP_POLICY_TELL = 1,
	GPAMAP_POLICY_ZEROES = 2,
	GPAMAP_POLICY_ONES = 3,
};

/**
 * struct gpamap_policy - ioctl(GPAMAP_POLICY)
 * @size: sizeof(struct gpamap_policy)
 * @flags: Must be 0
 * @region: Id of the region
 * @policy: enum gpamap_policy_kind, in place of the one it had
 *
 * The policy comes last: accesses of any length that no register, doorbell or handler of the
 * region answers are its. If the region posts its writes (GPAMAP_POST) no write is: one that is
 * not posted leaves to the VMM. Nor is a read that has to come after what was posted: it
 * leaves while entries of the group are pending, and in the io space always, as one of a
 * register does.
 *
 * A region with a policy other than NONE is on KVM's bus and its accesses are counted
 * (GPAMAP_QUERY_COUNTERS), as those of a region with doorbells, registers or a handler are.
 * A region with a memslot costs nothing by that but places on the bus: KVM asks only for
 * writes to what cannot be written.
 *
 * Errors: ENOENT no such region. EOPNOTSUPP an unknown policy, or one that is not for
 * regions of this kind. And, as for GPAMAP_DOORBELL, ENOSPC of GPAMAP_MAX_BUS_LEN, and
 * EIO.
 */
struct gpamap_policy {
	__u32 size;
	__u32 flags;
	__u32 region;
	__u32 policy;
};

#define GPAMAP_POLICY _IO(GPAMAP_TYPE, GPAMAP_CMD_POLICY)

/**
 * struct gpamap_exit - The last access of a vCPU that left to the VMM
 * @addr: Guest-physical address, or port, of its first byte
 * @offset: Of that in the region
 * @last: The last address up to which the same region goes on
 * @generation: The map's generation in which it was found to leave
 * @space: Id of the memory or io space
 * @region: Id of the region; 0: nothing was written here since the VMM last cleared it
 * @kind: The region's kind, enum gpamap_region_kind
 * @region_flags: enum gpamap_region_flags, or-ed along the path to the region, and enum
 *	gpamap_range_flags
 * @hva: The host memory of @addr; 0 if the region has none
 * @__reserved: 0
 *
 * mmap() of the map at offset 0, MAP_SHARED, of one page up to GPAMAP_MAX_EXIT_PAGES, gives
 * one of these for each id of a vCPU (what KVM_CREATE_VCPU was given), at the place that
 * struct gpamap_layout says. Before
 * KVM_RUN returns with KVM_EXIT_MMIO or KVM_EXIT_IO for an access to a region that has
 * anything tied to it (a policy, a doorbell, registers, a handler, a ring), the record of the
 * vCPU is written. The VMM compares @space and @addr with those of the exit, and sets @region to
 * 0 before each KVM_RUN: KVM tells of some accesses in several exits, and of places where
 * nothing is tied to what is seen without asking. For those GPAMAP_LOOKUP has the answer. A
 * record without an exit is left by an access that the guest could not complete (a page fault
 * in its second half); within one KVM_RUN it can be taken for that of a later access to the
 * same place, should nothing be tied there any more.
 *
 * The mapping keeps the map open. mmap() says EINVAL for more pages or a private mapping.
 */
struct gpamap_exit {
	__aligned_u64 addr;
	__aligned_u64 offset;
	__aligned_u64 last;
	__aligned_u64 generation;
	__u32 space;
	__u32 region;
	__u32 kind;
	__u32 region_flags;
	__aligned_u64 hva;
	__aligned_u64 __reserved;
};

/**
 * enum gpamap_ring_flags - What is done
 * @GPAMAP_RING_REMOVE: Take the ring away; all members but @id are 0
 */
enum gpamap_ring_flags {
	GPAMAP_RING_REMOVE = 1 << 0,
};

/**
 * struct gpamap_ring - ioctl(GPAMAP_RING)
 * @size: sizeof(struct gpamap_ring)
 * @flags: enum gpamap_ring_flags
 * @id: Of the ring: chosen by the caller, above 0
 * @nr_entries: A power of two from GPAMAP_MIN_RING_ENTRIES to GPAMAP_MAX_RING_ENTRIES
 * @watermark: From 1 to @nr_entries: the number of pending entries from which on @fd is
 *	signalled; 0 if @fd is -1
 * @fd: An eventfd. The map holds it until the ring is removed or the map closed. -1: none; the
 *	VMM looks at the ring by itself
 * @delay_us: In microseconds, up to GPAMAP_MAX_RING_DELAY_US: how long after an entry was
 *	posted @fd is signalled, at the latest, if fewer than @watermark are pending; 0: not at
 *	all for so few, and if @fd is -1
 * @__reserved: Must be 0
 *
 * Makes a ring for posted writes: a queue of struct gpamap_ring_entry in memory that the
 * kernel shares with the VMM. Regions post to it once GPAMAP_POST says so; those that post
 * to one ring are a group.
 *
 * The ring is mapped with mmap(), MAP_SHARED, at the offset (GPAMAP_RING_PGOFF | @id) times
 * the size of a page: struct gpamap_ring_header, and the entries, rounded up to whole pages;
 * exactly as long as struct gpamap_layout says. The offset needs 64 bits: 32-bit programs
 * cannot map a ring. The mapping keeps the map open, and the memory for itself when the ring is
 * removed. mmap() says ENOENT if there is no such ring, EINVAL for another length or a
 * private mapping.
 *
 * @fd is signalled by every write that finds @watermark - 1 or more entries pending. With a
 * delay it is signalled as well @delay_us after a write that finds fewer, if anything is
 * pending then, and once for all such writes meanwhile, unless the watermark has been reached
 * since. So who waits for it, and then takes all entries that are there, misses none (and
 * without a delay none but those below the watermark), and a burst of writes below the
 * watermark wakes the VMM once: a watermark of half of @nr_entries leaves it time to make
 * room. With @watermark 1 there is nothing to be delayed. The time is that of a timer of the
 * kernel's, which may be late by as much as the kernel is, and ends with the ring.
 *
 * Errors: ENOENT no such ring (REMOVE). EEXIST the ring is there. EINVAL @id is 0, a number
 * that cannot be, or @fd is no eventfd. EBADF @fd is not open and not -1. EBUSY regions post
 * to the ring (REMOVE). ENOSPC GPAMAP_MAX_RINGS. EIO the map is broken, or the VM belongs to
 * another process.
 */
struct gpamap_ring {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 nr_entries;
	__u32 watermark;
	__s32 fd;
	__u32 delay_us;
	__u32 __reserved;
};

#define GPAMAP_RING _IO(GPAMAP_TYPE, GPAMAP_CMD_RING)

/* In the offset of an mmap(), counted in pages: the mapping is that of a ring. */
#define GPAMAP_RING_PGOFF (1ULL << 32)

/**
 * struct gpamap_ring_header - What a ring begins with
 * @head: How many entries were ever posted, modulo 2^32. The kernel's to write: store
 *	release, after the entry
 * @nr_entries: As given
 * @entry_size: Bytes from one entry to the next
 * @entries: Bytes from the header to the first entry
 * @version: GPAMAP_LAYOUT_VERSION
 * @header_size: Bytes of this structure as the kernel has it
 * @__reserved: 0
 * @tail: How many of them were taken, modulo 2^32. The VMM's to write: store release, after
 *	what the entry asked for is done
 * @__reserved2: 0
 *
 * The entries @tail to @head - 1 are pending; entry n lies at the place n modulo
 * @nr_entries. The kernel writes all members but @tail and reads only that: a value that
 * cannot be makes the ring a full one.
 */
struct gpamap_ring_header {
	__u32 head;
	__u32 nr_entries;
	__u32 entry_size;
	__u32 entries;
	__u32 version;
	__u32 header_size;
	__u32 __reserved[10];
	__u32 tail;
	__u32 __reserved2[15];
};

/**
 * struct gpamap_ring_entry - A posted write
 * @seq: Its number in the ring, from 0, one by one; the lower half is its place in the
 *	count of gpamap_ring_header.head
 * @region: Id of the region
 * @len: Its length in bytes, 1 to 8: others than 1, 2, 4 and 8 are parts of a write that
 *	went over the border of a page
 * @offset: Where in the region it begins
 * @value: What was written, as a number in the byte order of the host. So its memory holds the
 *	bytes in the order of the guest, that at @offset first: on a little-endian host they are
 *	its first @len bytes, on a big-endian one its last, and the others are 0
 * @generation: The map's generation in which it was written. If the region has been destroyed,
 *	and made anew with the same id, by a commit that gave a later one, this is a write to the
 *	region that is no more
 */
struct gpamap_ring_entry {
	__aligned_u64 seq;
	__u32 region;
	__u32 len;
	__aligned_u64 offset;
	__aligned_u64 value;
	__aligned_u64 generation;
};

/**
 * enum gpamap_post_flags - What is done
 * @GPAMAP_POST_REMOVE: The region posts no longer; @ring is 0
 */
enum gpamap_post_flags {
	GPAMAP_POST_REMOVE = 1 << 0,
};

/**
 * struct gpamap_post - ioctl(GPAMAP_POST)
 * @size: sizeof(struct gpamap_post)
 * @flags: enum gpamap_post_flags
 * @region: Id of an io region that posts to no ring yet
 * @ring: Id of the ring
 *
 * Writes of the guest's to the region, wherever it is seen, that are for no register and
 * ring no doorbell become entries of the ring, and the vCPU goes on at once. They are in
 * the order in which they were made, those of all vCPUs and of all regions of the group.
 * An entry names region and offset, not an address, so it stays right when the region
 * moves. Entries that are pending when a region stops posting stay pending. vCPUs that run may
 * post until the very commit that gives the region's id to another: gpamap_ring_entry.generation
 * tells which of the two an entry is for.
 *
 * A write that finds the ring full leaves to the VMM, like any other access to the region
 * that is not answered in the kernel; nothing is lost, to ports neither. Before it handles
 * such an exit, the VMM takes all pending entries of the group: they came before. For
 * the same reason an access to a register of the region, and a read that its policy would
 * answer, leaves while entries are pending, and in the io space always; if the register has a
 * doorbell it is not rung, and both are the VMM's to do. A doorbell where no register is rings
 * regardless, and who hears it looks at the ring first.
 *
 * Not posted, but left to the VMM whatever the policy, are writes through a path that is
 * read-only, and writes to ports of a guest with encrypted state: of its string writes KVM
 * drops what follows the first element that is not done, if one before it was.
 *
 * Errors: ENOENT no such region, no such ring, or the region does not post (REMOVE). EEXIST
 * it posts already. EBUSY it has a handler. EOPNOTSUPP it is not an io region. EINVAL @ring
 * is given with REMOVE.
 * And, as for GPAMAP_DOORBELL, ENOSPC of GPAMAP_MAX_BUS_LEN, and EIO.
 */
struct gpamap_post {
	__u32 size;
	__u32 flags;
	__u32 region;
	__u32 ring;
};

#define GPAMAP_POST _IO(GPAMAP_TYPE, GPAMAP_CMD_POST)

/**
 * enum gpamap_features - Bits of gpamap_info.features
 * @GPAMAP_FEATURE_SLOTS: The memslots of a VM follow the memory spaces
 * @GPAMAP_FEATURE_LOOKUP: GPAMAP_LOOKUP
 * @GPAMAP_FEATURE_POLL: poll() and read() on the map and GPAMAP_WATCH: news of generations
 * @GPAMAP_FEATURE_HOLD: Running vCPUs are held where a commit needs it (struct
 *	gpamap_apply)
 * @GPAMAP_FEATURE_DRY_RUN: GPAMAP_APPLY_DRY_RUN
 * @GPAMAP_FEATURE_STATS: GPAMAP_QUERY_STATS
 * @GPAMAP_FEATURE_CUT_AHEAD: GPAMAP_REGION_CUT_AHEAD
 * @GPAMAP_FEATURE_DOORBELL: GPAMAP_DOORBELL
 * @GPAMAP_FEATURE_REGISTERS: GPAMAP_REGISTERS
 * @GPAMAP_FEATURE_HANDLER: GPAMAP_HANDLER
 * @GPAMAP_FEATURE_POLICY: GPAMAP_POLICY, GPAMAP_QUERY_COUNTERS and struct gpamap_exit
 * @GPAMAP_FEATURE_RINGS: GPAMAP_RING and GPAMAP_POST
 * @GPAMAP_FEATURE_TIES: What is tied to regions is tied and untied by operations of a batch
 * @GPAMAP_FEATURE_LAYOUT: GPAMAP_QUERY_LAYOUT
 */
enum gpamap_features {
	GPAMAP_FEATURE_SLOTS = 1 << 0,
	GPAMAP_FEATURE_LOOKUP = 1 << 1,
	GPAMAP_FEATURE_POLL = 1 << 2,
	GPAMAP_FEATURE_HOLD = 1 << 3,
	GPAMAP_FEATURE_DRY_RUN = 1 << 4,
	GPAMAP_FEATURE_STATS = 1 << 5,
	GPAMAP_FEATURE_CUT_AHEAD = 1 << 6,
	GPAMAP_FEATURE_DOORBELL = 1 << 7,
	GPAMAP_FEATURE_REGISTERS = 1 << 8,
	GPAMAP_FEATURE_HANDLER = 1 << 9,
	GPAMAP_FEATURE_POLICY = 1 << 10,
	GPAMAP_FEATURE_RINGS = 1 << 11,
	GPAMAP_FEATURE_TIES = 1 << 12,
	GPAMAP_FEATURE_LAYOUT = 1 << 13,
};

/**
 * enum gpamap_state - Bits of gpamap_info.state
 * @GPAMAP_STATE_ATTACHED: A VM is attached
 * @GPAMAP_STATE_BROKEN: A roll-back failed: memslots and view disagree, the map
 *	answers EIO
 */
enum gpamap_state {
	GPAMAP_STATE_ATTACHED = 1 << 0,
	GPAMAP_STATE_BROKEN = 1 << 1,
};

/**
 * struct gpamap_info - The map as a whole (GPAMAP_QUERY_INFO)
 * @features: enum gpamap_features
 * @generation: See struct gpamap_apply
 * @state: enum gpamap_state
 * @name_len: GPAMAP_NAME_LEN
 * @max_regions: GPAMAP_MAX_REGIONS
 * @max_spaces: GPAMAP_MAX_SPACES
 * @max_depth: GPAMAP_MAX_DEPTH
 * @max_ranges: GPAMAP_MAX_RANGES
 * @max_paths: GPAMAP_MAX_PATHS
 * @max_ops: GPAMAP_MAX_OPS
 * @nr_regions: Regions that the map has
 * @nr_spaces: Spaces that the map has
 * @first_slot: The first memslot id of the map, while a VM is attached
 * @nr_slots: Memslot ids that the map may use, while a VM is attached
 * @used_slots: Memslots that the map has
 * @__reserved: 0
 */
struct gpamap_info {
	__aligned_u64 features;
	__aligned_u64 generation;
	__u32 state;
	__u32 name_len;
	__u32 max_regions;
	__u32 max_spaces;
	__u32 max_depth;
	__u32 max_ranges;
	__u32 max_paths;
	__u32 max_ops;
	__u32 nr_regions;
	__u32 nr_spaces;
	__u32 first_slot;
	__u32 nr_slots;
	__u32 used_slots;
	__u32 __reserved;
};

/**
 * struct gpamap_region_info - A region (GPAMAP_QUERY_REGIONS)
 * @id: Its id
 * @kind: enum gpamap_region_kind
 * @flags: enum gpamap_region_flags
 * @container: Id of the region that holds it; 0 for none
 * @target: Id of the target of an alias; else 0
 * @prio: Its priority; after GPAMAP_OP_DEL the one it had
 * @at: Its offset in its container; after GPAMAP_OP_DEL the one it had
 * @last: Its length - 1
 * @offset: Where an alias's window begins in its target
 * @hva: Its host memory; 0 for none
 * @name: Its name, zero-filled
 */
struct gpamap_region_info {
	__u32 id;
	__u32 kind;
	__u32 flags;
	__u32 container;
	__u32 target;
	__s32 prio;
	__aligned_u64 at;
	__aligned_u64 last;
	__aligned_u64 offset;
	__aligned_u64 hva;
	__u8 name[GPAMAP_NAME_LEN];
};

/**
 * struct gpamap_space_info - An address space (GPAMAP_QUERY_SPACES)
 * @id: Its id
 * @kind: enum gpamap_space_kind
 * @root: Id of the region that it looks at
 * @as_id: KVM address space id of a memory space
 * @nr_ranges: Flat ranges of its view
 * @__reserved: 0
 * @name: Its name, zero-filled
 */
struct gpamap_space_info {
	__u32 id;
	__u32 kind;
	__u32 root;
	__u32 as_id;
	__u32 nr_ranges;
	__u32 __reserved;
	__u8 name[GPAMAP_NAME_LEN];
};

/**
 * struct gpamap_range_info - A flat range (GPAMAP_QUERY_RANGES)
 * @start: First address
 * @last: Last address
 * @offset: Offset of @start in the region
 * @region: Id of the region that is seen here
 * @kind: The region's kind, enum gpamap_region_kind
 * @flags: enum gpamap_region_flags, or-ed along the path to the region, and enum
 *	gpamap_range_flags
 * @prio: The region's own priority
 */
struct gpamap_range_info {
	__aligned_u64 start;
	__aligned_u64 last;
	__aligned_u64 offset;
	__u32 region;
	__u32 kind;
	__u32 flags;
	__s32 prio;
};

/**
 * struct gpamap_slot_info - A memslot (GPAMAP_QUERY_SLOTS)
 * @gpa: First guest-physical address
 * @npages: Length in pages
 * @hva: Host memory
 * @region: Id of the region it shows; 0 in a broken map where it shows none
 * @slot: KVM's slot number: address space id << 16 | id
 * @flags: KVM_MEM_READONLY or 0, as in struct kvm_userspace_memory_region
 * @__reserved: 0
 */
struct gpamap_slot_info {
	__aligned_u64 gpa;
	__aligned_u64 npages;
	__aligned_u64 hva;
	__u32 region;
	__u32 slot;
	__u32 flags;
	__u32 __reserved;
};

/**
 * struct gpamap_stats - What a map has done since it was opened (GPAMAP_QUERY_STATS)
 * @commits: GPAMAP_APPLY calls that succeeded, dry runs left out, and the commands that tie
 *	something to a region, each a batch of one
 * @creates: Memslots created, by GPAMAP_ATTACH too
 * @deletes: Memslots deleted, by GPAMAP_DETACH too
 * @moves: Memslots moved to another guest-physical address
 * @deleted_bytes: Sum of the lengths of deleted memslots
 * @largest_delete: Length in bytes of the largest memslot deleted
 * @holds: Times that all vCPUs were held
 * @hold_failures: Times that they could not be (EBUSY, EINTR, ENOMEM)
 * @hold_ns: Nanoseconds that vCPUs were held in all: from the moment that the first
 *	could be stopped until all were let go, failures included
 * @longest_hold_ns: The longest of these times
 * @rollbacks: Times that KVM refused an operation and those before it were undone, with
 *	success or without. What was undone, and undoing it, is not counted above
 */
struct gpamap_stats {
	__aligned_u64 commits;
	__aligned_u64 creates;
	__aligned_u64 deletes;
	__aligned_u64 moves;
	__aligned_u64 deleted_bytes;
	__aligned_u64 largest_delete;
	__aligned_u64 holds;
	__aligned_u64 hold_failures;
	__aligned_u64 hold_ns;
	__aligned_u64 longest_hold_ns;
	__aligned_u64 rollbacks;
};

/**
 * struct gpamap_counters - Accesses of the guest's to a region (GPAMAP_QUERY_COUNTERS)
 * @region: Id of the region
 * @__reserved: 0
 * @reads: Reads that KVM asked for
 * @writes: Writes that KVM asked for
 * @exits: Those of both that left to the VMM
 * @doorbells: Times that a doorbell's eventfd was signalled
 * @posted: Writes that became entries of a ring
 *
 * Since the first thing was tied to the region that still is, or was until the next came.
 */
struct gpamap_counters {
	__u32 region;
	__u32 __reserved;
	__aligned_u64 reads;
	__aligned_u64 writes;
	__aligned_u64 exits;
	__aligned_u64 doorbells;
	__aligned_u64 posted;
};

/**
 * enum gpamap_area - Memory that the kernel shares with the VMM
 * @GPAMAP_AREA_EXITS: Records of struct gpamap_exit
 * @GPAMAP_AREA_REGISTERS: The page of a region's registers (struct gpamap_registers)
 * @GPAMAP_AREA_RING: A ring (struct gpamap_ring)
 */
enum gpamap_area {
	GPAMAP_AREA_EXITS = 1,
	GPAMAP_AREA_REGISTERS = 2,
	GPAMAP_AREA_RING = 3,
};

/* gpamap_layout.version of all areas, as this header describes them. */
#define GPAMAP_LAYOUT_VERSION 1

/**
 * struct gpamap_layout - How an area is laid out (GPAMAP_QUERY_LAYOUT)
 * @area: enum gpamap_area
 * @version: GPAMAP_LAYOUT_VERSION. With another one nothing that this header says of the area
 *	needs to be true: do not use it. It stays the same while sizes grow
 * @header_size: Bytes of the header that the area begins with; 0 if it has none
 * @first: Bytes from the begin of the mapping to the first record, or to the registers
 * @record_size: Bytes from one record to the next (EXITS, RING); bytes of the registers
 * @block_size: Records lie in blocks of so many bytes, from @first on, as many in each as fit
 *	(EXITS); 0: one follows the other
 *
 * The head of memory that is mapped, told before it is mapped, as the length of the mapping
 * depends on it: up to the last record (EXITS), @first + @record_size (REGISTERS), all entries
 * (RING), rounded up to whole pages. A header or a record may be longer than a
 * program knows, its members are at the places that this header gives them, and what the
 * program does not know is none of its business; a program from the future finds one that is
 * shorter than its own, and takes what is missing for 0.
 */
struct gpamap_layout {
	__u32 area;
	__u32 version;
	__u32 header_size;
	__u32 first;
	__u32 record_size;
	__u32 block_size;
};

#endif /* _UAPI_LINUX_GPAMAP_H */
