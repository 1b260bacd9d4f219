/* SPDX-License-Identifier: LGPL-2.1-only OR MIT */
/*
 * libgpamap: the guest-physical-address map of a KVM virtual machine.
 *
 * A map is an open file of /dev/gpamap. A VMM describes its guest's memory in
 * batches of operations; the kernel flattens the tree of regions and keeps the
 * memslots of the VM in step. <linux/gpamap.h> defines what regions, spaces and
 * operations are; this library adds memory management and the reading of rings,
 * nothing else.
 *
 * Errors: every function that can fail returns 0 or a negative errno value and
 * leaves errno and the standard streams alone. The meaning of each value is in
 * <linux/gpamap.h>. -ENOMEM from any function also means that this process is out
 * of memory. A function that fails has changed nothing.
 *
 * Threads: a struct gpamap may be used by several threads at once, the kernel
 * orders their calls. A struct gpamap_batch or gpamap_mapfile may be used by one
 * at a time, a ring by several, but not by one while another closes it. Functions that drain
 * rings call back (gpamap_ring_fn): do not hold a lock that a callback takes in
 * gpamap_ring_drain(), gpamap_drain(), gpamap_ring_close(), gpamap_apply(),
 * gpamap_apply_out(), gpamap_detach() and gpamap_exit_resolve(). Pointers must
 * not be NULL unless said otherwise; _free and _close take NULL and do nothing.
 *
 * Waiting: attaching, detaching, applying and the functions that tie one thing to a region
 * are transactions, for which running vCPUs are held where they could see a change. They say
 * -EBUSY when that was not possible in the time of gpamap_set_timeout(), and -EINTR when the
 * process is being killed; nothing has changed then.
 *
 * Since 0.1 unless said otherwise.
 */
#ifndef GPAMAP_H
#define GPAMAP_H

#include <linux/gpamap.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GPAMAP_API __attribute__((visibility("default")))

/** The version of this header: major << 16 | minor. */
#define GPAMAP_VERSION (0 << 16 | 1)

/** The version of the library that runs, as GPAMAP_VERSION. */
GPAMAP_API uint32_t gpamap_version(void);

/* ---- maps ------------------------------------------------------------- */

/** A map; made by gpamap_open(), ended by gpamap_close(). */
struct gpamap;

/**
 * Makes an empty map.
 * @out: receives the map, which the caller owns.
 *
 * -ENOENT: no /dev/gpamap (the module is not loaded); -EACCES: no right to it; -EOPNOTSUPP:
 * the module is older than the library can use (GPAMAP_FEATURE_LAYOUT).
 */
GPAMAP_API int gpamap_open(struct gpamap **out);

/**
 * Uses the map behind @fd, for instance one that another process passed on to be
 * looked at. The library takes over @fd: gpamap_close() closes it.
 *
 * -ENOTTY: @fd is not a map; it stays the caller's, as on every error.
 */
GPAMAP_API int gpamap_from_fd(int fd, struct gpamap **out);

/**
 * Closes the map, and the rings that are open; what is pending in them is lost. The memslots
 * of an attached VM stay as they are, for the guest may still run; call gpamap_detach()
 * first to have them deleted.
 */
GPAMAP_API void gpamap_close(struct gpamap *map);

/**
 * The file descriptor of the map; it stays the library's. poll() says POLLIN when the map has
 * a generation that gpamap_watch_read() has not taken from this file yet; queries acknowledge
 * nothing. Who shares the file, by fork or by passing it on, shares that, too: more than one
 * listener needs gpamap_watch().
 */
GPAMAP_API int gpamap_fd(const struct gpamap *map);

/**
 * For how many milliseconds a call with @map may wait in all, from now on: for the map, for
 * KVM, for vCPUs to be held. 0, as it is in the beginning: the module's default (its parameter
 * hold_timeout_ms). It holds for gpamap_attach(), gpamap_detach(), gpamap_apply() and its
 * kin, and the functions that tie or untie one thing; for this struct gpamap alone.
 */
GPAMAP_API void gpamap_set_timeout(struct gpamap *map, uint32_t ms);

/**
 * Binds the map to a KVM VM of this process and creates its memslots; see struct
 * gpamap_attach for the rules and errors.
 * @vm_fd: what KVM_CREATE_VM returned; it may be closed afterwards.
 * @first_slot: first memslot id that the map may use.
 * @nr_slots: how many from there on; 0 for all that KVM has.
 */
GPAMAP_API int gpamap_attach(struct gpamap *map, int vm_fd, uint32_t first_slot,
			     uint32_t nr_slots);

/**
 * Deletes the memslots and lets the VM go; -ENOENT if there is none, -EIO. What is tied to
 * regions stays. Rings are drained first, as by gpamap_apply().
 */
GPAMAP_API int gpamap_detach(struct gpamap *map);

/* ---- news ------------------------------------------------------------- */

/**
 * A new file that tells of new generations of the map: a listener of its own, whatever others
 * have read. poll() says POLLIN when there is one that gpamap_watch_read() has not taken from
 * this file yet; in the beginning there is. It does not keep the map open: when that is closed,
 * poll() says POLLHUP.
 * @fd: receives the descriptor, close-on-exec, which the caller closes with close(2).
 *
 * -EMFILE, -ENFILE: no descriptor, or no file, is left.
 */
GPAMAP_API int gpamap_watch(struct gpamap *map, int *fd);
/**
 * Takes the news from a file, which acknowledges it there and nowhere else; waits for it
 * unless the file is O_NONBLOCK.
 * @fd: of gpamap_watch(), or what gpamap_fd() says.
 * @generation: receives the map's generation (struct gpamap_apply); may be NULL.
 *
 * -EAGAIN: there is none, and the file is O_NONBLOCK. -EINTR: a signal came while it waited.
 * -ENOENT: the map is closed, and there will be no more. -EBADF.
 */
GPAMAP_API int gpamap_watch_read(int fd, uint64_t *generation);

/* ---- batches ---------------------------------------------------------- */

/**
 * A list of operations that are applied as one transaction.
 *
 * The functions that add to it return -ENOMEM, or -EINVAL for a name that is too
 * long. The first such error is kept and returned by gpamap_apply(), so a caller
 * may ignore it until then. Everything else is checked by gpamap_apply(). What an
 * operation refers to, such as an eventfd or an array, is not copied: it is the
 * caller's, and is to be there whenever the batch is applied or planned.
 */
struct gpamap_batch;

/** Makes an empty batch, which the caller owns. -ENOMEM. */
GPAMAP_API int gpamap_batch_new(struct gpamap_batch **out);
GPAMAP_API void gpamap_batch_free(struct gpamap_batch *batch);
/** Empties the batch and forgets a kept error; its memory stays for reuse. */
GPAMAP_API void gpamap_batch_reset(struct gpamap_batch *batch);
/** How many operations there are. */
GPAMAP_API uint32_t gpamap_batch_count(const struct gpamap_batch *batch);
/** Operation @index, valid until the batch is changed; NULL past the end. */
GPAMAP_API const struct gpamap_op *gpamap_batch_get(const struct gpamap_batch *batch,
						    uint32_t index);

/** Appends a copy of any operation. */
GPAMAP_API int gpamap_batch_op(struct gpamap_batch *batch, const struct gpamap_op *op);

/**
 * Make region @id, enabled, writable and detached. @last is its length - 1;
 * @name may be NULL for none, else at most GPAMAP_NAME_LEN - 1 bytes.
 */
GPAMAP_API int gpamap_batch_container(struct gpamap_batch *batch, uint32_t id,
				      const char *name, uint64_t last);
/** @mem: host memory of this process, @last + 1 bytes, to stay mapped. */
GPAMAP_API int gpamap_batch_ram(struct gpamap_batch *batch, uint32_t id,
				const char *name, uint64_t last, const void *mem);
/** As gpamap_batch_ram(); the guest cannot write it. */
GPAMAP_API int gpamap_batch_rom(struct gpamap_batch *batch, uint32_t id,
				const char *name, uint64_t last, const void *mem);
/** Accesses leave to the VMM as KVM_EXIT_MMIO. */
GPAMAP_API int gpamap_batch_io(struct gpamap_batch *batch, uint32_t id,
			       const char *name, uint64_t last);
/** A rom device, in romd mode: reads come from @mem, writes leave to the VMM. */
GPAMAP_API int gpamap_batch_romd(struct gpamap_batch *batch, uint32_t id,
				 const char *name, uint64_t last, const void *mem);
/** Nothing may be here: accesses leave to the VMM. */
GPAMAP_API int gpamap_batch_reserved(struct gpamap_batch *batch, uint32_t id,
				     const char *name, uint64_t last);
/** A window of @last + 1 bytes onto region @target, from its byte @offset on. */
GPAMAP_API int gpamap_batch_alias(struct gpamap_batch *batch, uint32_t id,
				  const char *name, uint64_t last, uint32_t target,
				  uint64_t offset);

/** Attach region @id to @container at offset @at; among equals the last is seen. */
GPAMAP_API int gpamap_batch_add(struct gpamap_batch *batch, uint32_t id,
				uint32_t container, uint64_t at, int32_t prio);
/** Detach region @id from its container. */
GPAMAP_API int gpamap_batch_del(struct gpamap_batch *batch, uint32_t id);
/**
 * Forget region @id, which must be detached, empty and nobody's target, and have nothing tied
 * to it (gpamap_batch_untie()).
 */
GPAMAP_API int gpamap_batch_destroy(struct gpamap_batch *batch, uint32_t id);

/** Show or hide region @id and all below it. */
GPAMAP_API int gpamap_batch_set_enabled(struct gpamap_batch *batch, uint32_t id,
					bool enabled);
/** Make what is seen through region @id read-only, or writable again. */
GPAMAP_API int gpamap_batch_set_readonly(struct gpamap_batch *batch, uint32_t id,
					 bool readonly);
/** Told in the flat view of what is seen through region @id. */
GPAMAP_API int gpamap_batch_set_nonvolatile(struct gpamap_batch *batch, uint32_t id,
					    bool nonvolatile);
/** Whether ranges seen through region @id stay apart from their neighbours. */
GPAMAP_API int gpamap_batch_set_unmergeable(struct gpamap_batch *batch, uint32_t id,
					    bool unmergeable);
/** Whether large memslots are cut at the borders of region @id, seen or not: a hint. */
GPAMAP_API int gpamap_batch_set_cut_ahead(struct gpamap_batch *batch, uint32_t id,
					  bool cut_ahead);
/** Take rom device @id into romd mode, or out of it: then all accesses leave. */
GPAMAP_API int gpamap_batch_set_romd(struct gpamap_batch *batch, uint32_t id, bool romd);
/** Change the length - 1. */
GPAMAP_API int gpamap_batch_set_last(struct gpamap_batch *batch, uint32_t id,
				     uint64_t last);
/** Move region @id in its container; it comes to lie above its equals. */
GPAMAP_API int gpamap_batch_set_at(struct gpamap_batch *batch, uint32_t id,
				   uint64_t at);
/** Change the priority; the region comes to lie above its new equals. */
GPAMAP_API int gpamap_batch_set_prio(struct gpamap_batch *batch, uint32_t id,
				     int32_t prio);
/** Move the window of alias @id in its target. */
GPAMAP_API int gpamap_batch_set_offset(struct gpamap_batch *batch, uint32_t id,
				       uint64_t offset);

/** Make space @id, an enum gpamap_space_kind, that looks at region @root. */
GPAMAP_API int gpamap_batch_space(struct gpamap_batch *batch, uint32_t id,
				  const char *name, uint32_t kind, uint32_t root);
/** Make the memory space of KVM address space @as_id: 0, or 1 for SMM. */
GPAMAP_API int gpamap_batch_memory_space(struct gpamap_batch *batch, uint32_t id,
					 const char *name, uint32_t root, uint32_t as_id);
GPAMAP_API int gpamap_batch_space_destroy(struct gpamap_batch *batch, uint32_t id);
/**
 * Have memslots that were split joined again, as few as ATTACH would make now: after much has come
 * and gone, when the guest can do without its mappings for a moment. Nothing happens if there is
 * nothing to join.
 */
GPAMAP_API int gpamap_batch_tidy(struct gpamap_batch *batch);

/**
 * Applies the batch as one transaction: all of it, or nothing. The batch stays as
 * it is. Before that, and whether or not the kernel takes it, the rings of @map are drained
 * (gpamap_drain()), unless this is called in a callback of a ring. vCPUs that run may post
 * more meanwhile: entries name regions, and stay right; if the batch gives the id of a region
 * that posts to another, gpamap_ring_entry.generation tells which of the two an entry is for.
 * @failed: receives the index of the operation that is to blame for an error, or
 *	GPAMAP_NO_OP; may be NULL.
 *
 * Errors: an error kept by the batch; those of struct gpamap_apply.
 */
GPAMAP_API int gpamap_apply(struct gpamap *map, const struct gpamap_batch *batch,
			    uint32_t *failed);
/** As gpamap_apply(); the out_ members of @out tell what was done to the memslots. */
GPAMAP_API int gpamap_apply_out(struct gpamap *map, const struct gpamap_batch *batch,
				struct gpamap_apply *out, uint32_t *failed);
/**
 * Changes nothing, and tells in the out_ members of @out what gpamap_apply() would do to
 * the memslots. The operations are checked as there; whether KVM agrees is not known.
 */
GPAMAP_API int gpamap_plan(struct gpamap *map, const struct gpamap_batch *batch,
			   struct gpamap_apply *out, uint32_t *failed);

/**
 * What @err, a negative errno value that applying @op gave, means, as a sentence
 * without its end. Never NULL; static storage. @op is NULL where no operation is to blame.
 */
GPAMAP_API const char *gpamap_op_error(const struct gpamap_op *op, int err);

/** Calls that are no operations, for gpamap_call_error(). */
enum gpamap_call {
	GPAMAP_CALL_OPEN = 0x10000,	/* gpamap_open() */
	GPAMAP_CALL_FROM_FD,		/* gpamap_from_fd() */
	GPAMAP_CALL_ATTACH,		/* gpamap_attach() */
	GPAMAP_CALL_DETACH,		/* gpamap_detach() */
	GPAMAP_CALL_QUERY,		/* gpamap_query_...() */
	GPAMAP_CALL_LOOKUP,		/* gpamap_lookup(), gpamap_exit_resolve() */
	GPAMAP_CALL_WATCH,		/* gpamap_watch() */
	GPAMAP_CALL_REGISTERS_MAP,	/* gpamap_registers_map() */
	GPAMAP_CALL_EXITS_MAP,		/* gpamap_exits_map() */
	GPAMAP_CALL_RING_OPEN,		/* gpamap_ring_open() */
	GPAMAP_CALL_RING_CLOSE,		/* gpamap_ring_close() */
	GPAMAP_CALL_RING_DRAIN,		/* gpamap_ring_drain(), gpamap_drain() */
};

/**
 * The same for an error of another call: @call is enum gpamap_call; of a function that ties
 * one thing, such as gpamap_doorbell_add(), the code of the operation that it is
 * (GPAMAP_OP_DOORBELL).
 */
GPAMAP_API const char *gpamap_call_error(uint32_t call, int err);

/* ---- what is tied to regions ------------------------------------------ */

/*
 * Each kind of tie has two functions to make it and two to remove it: those that add an
 * operation to a batch, to be done in one transaction with all else in it, and those that are a
 * batch of that one operation, applied at once. The latter drain no rings. Their errors are
 * those of gpamap_apply(), too: -EBUSY, -EINTR, -EIO.
 */

/**
 * Unties from region @region all that @mask (enum gpamap_tie_mask) names: much, or nothing.
 *
 * -ENOENT: no such region. -EOPNOTSUPP: an unknown bit. -EINVAL: an empty mask.
 */
GPAMAP_API int gpamap_batch_untie(struct gpamap_batch *batch, uint32_t region,
				  uint32_t mask);

/** A doorbell, as an element of an array. */
struct gpamap_ties_doorbell {
	uint64_t offset;	/**< of the write in the region */
	uint64_t value;		/**< with GPAMAP_DOORBELL_MATCH: what is written */
	uint32_t len;		/**< of the write: 1, 2, 4, 8, or 0 for any */
	uint32_t flags;		/**< GPAMAP_DOORBELL_MATCH, or 0 */
	int32_t fd;		/**< an eventfd */
	uint32_t __reserved;	/**< 0 */
};

/**
 * What is tied to a region that is made; what is 0 or NULL, is not. Later versions add
 * members at the end: a caller that sets @sz, and leaves all that it does not know zero, works
 * with them. GPAMAP_TIES() declares one like that.
 */
struct gpamap_ties {
	size_t sz;		/**< sizeof(struct gpamap_ties) */
	/** Copied. */
	const struct gpamap_ties_doorbell *doorbells;
	/** The caller's until the batch is applied: see gpamap_batch_registers(). */
	const struct gpamap_register *registers;
	const char *handler;	/**< its name, copied; see gpamap_batch_handler() */
	uint64_t handler_arg;
	uint32_t nr_doorbells;
	uint32_t nr_registers;
	uint32_t ring;		/**< id of the ring that it posts its writes to */
	uint32_t policy;	/**< enum gpamap_policy_kind */
};

/** GPAMAP_TIES(name, .policy = ...): a variable struct gpamap_ties. */
#define GPAMAP_TIES(_name, ...)							\
	struct gpamap_ties _name = { .sz = sizeof(struct gpamap_ties), __VA_ARGS__ }

/**
 * Ties all that @ties has to region @region, which may be made in the same batch: one
 * operation for each. @ties itself is not needed any more afterwards.
 *
 * -EINVAL: its size is that of no version, or a spare member is not 0. -E2BIG: it is of a
 * later version, and has what this one does not know. They are kept by the batch. Then, and
 * with -ENOMEM, no operation of it was added.
 */
GPAMAP_API int gpamap_batch_ties(struct gpamap_batch *batch, uint32_t region,
				 const struct gpamap_ties *ties);
/** gpamap_batch_io() and gpamap_batch_ties(), both or neither. */
GPAMAP_API int gpamap_batch_io_tied(struct gpamap_batch *batch, uint32_t id,
				    const char *name, uint64_t last,
				    const struct gpamap_ties *ties);

/* ---- doorbells -------------------------------------------------------- */

/**
 * Makes a doorbell: a write of @len bytes (1, 2, 4, 8, or 0 for any) that the guest makes
 * at @offset of region @region, wherever that is seen, signals the eventfd @fd and does
 * not leave to the VMM. @fd may be closed when that is done, but is needed to remove the
 * doorbell.
 *
 * -ENOENT: no such region. -EOPNOTSUPP: it is a container, an alias or ram. -EINVAL:
 * @len, a write beyond the region, or @fd is no eventfd. -EBADF: @fd is not open.
 * -EEXIST: there is the same doorbell. -ENOSPC: too many doorbells, or what KVM is to ask about
 * is longer than GPAMAP_MAX_BUS_LEN. -EIO.
 */
GPAMAP_API int gpamap_doorbell_add(struct gpamap *map, uint32_t region, uint64_t offset,
				   uint32_t len, int fd);
/**
 * As gpamap_doorbell_add(), for a write of any length to a register that the guest only writes, by
 * plain stores that do not cross the end of the region or of a page: cheaper where the processor
 * lets KVM ask before it decodes the instruction (GPAMAP_DOORBELL_FAST). gpamap_doorbell_remove()
 * with @len 0 takes it away.
 */
GPAMAP_API int gpamap_doorbell_add_fast(struct gpamap *map, uint32_t region, uint64_t offset,
					int fd);
/** As gpamap_doorbell_add(), for a write of @value only; @len must not be 0. */
GPAMAP_API int gpamap_doorbell_add_match(struct gpamap *map, uint32_t region,
					 uint64_t offset, uint32_t len, uint64_t value,
					 int fd);
/** Takes the doorbell away that was made with the same; -ENOENT if there is none. */
GPAMAP_API int gpamap_doorbell_remove(struct gpamap *map, uint32_t region,
				      uint64_t offset, uint32_t len, int fd);
GPAMAP_API int gpamap_doorbell_remove_match(struct gpamap *map, uint32_t region,
					    uint64_t offset, uint32_t len, uint64_t value,
					    int fd);

/** Takes all doorbells of the region away, be there some or none; -ENOENT: no such region. */
GPAMAP_API int gpamap_doorbells_clear(struct gpamap *map, uint32_t region);

/** The same as operations of a batch. */
GPAMAP_API int gpamap_batch_doorbell(struct gpamap_batch *batch, uint32_t region,
				     uint64_t offset, uint32_t len, int fd);
GPAMAP_API int gpamap_batch_doorbell_fast(struct gpamap_batch *batch, uint32_t region,
					  uint64_t offset, int fd);
GPAMAP_API int gpamap_batch_doorbell_match(struct gpamap_batch *batch, uint32_t region,
					   uint64_t offset, uint32_t len, uint64_t value,
					   int fd);
GPAMAP_API int gpamap_batch_doorbell_remove(struct gpamap_batch *batch, uint32_t region,
					    uint64_t offset, uint32_t len, int fd);
GPAMAP_API int gpamap_batch_doorbell_remove_match(struct gpamap_batch *batch,
						  uint32_t region, uint64_t offset,
						  uint32_t len, uint64_t value, int fd);

/* ---- registers -------------------------------------------------------- */

/**
 * Gives io region @region the @nr registers @registers, which the guest reads and writes
 * without the VMM; struct gpamap_register tells how. Accesses that are for none of them
 * leave to the VMM. That a register was written is told by a doorbell at its offset.
 *
 * -ENOENT: no such region. -EEXIST: it has registers. -EOPNOTSUPP: it is of another kind, or
 * an unknown kind of register. -EINVAL: an offset, length or value that cannot be, or registers
 * that overlap. -ENOSPC: GPAMAP_MAX_BUS_LEN. -EIO.
 */
GPAMAP_API int gpamap_registers_set(struct gpamap *map, uint32_t region,
				    const struct gpamap_register *registers, uint32_t nr);
/** Takes them away; -ENOENT if it has none. The page stays for those who have mapped it. */
GPAMAP_API int gpamap_registers_remove(struct gpamap *map, uint32_t region);
/**
 * The same as operations of a batch. The array @registers is not copied: it has to stay as it
 * is until the batch was applied for the last time.
 */
GPAMAP_API int gpamap_batch_registers(struct gpamap_batch *batch, uint32_t region,
				      const struct gpamap_register *registers, uint32_t nr);
GPAMAP_API int gpamap_batch_registers_remove(struct gpamap_batch *batch, uint32_t region);
/**
 * The page with the values of the registers of @region, by offset, to be read and written:
 * use atomic operations of the register's length. It stays until gpamap_registers_unmap(),
 * and keeps the map open until then. -ENOENT: the region has no registers. -EOPNOTSUPP: the
 * kernel has laid them out in a way that this library does not know. -EOVERFLOW: a 32-bit
 * program cannot map what belongs to so high an id.
 */
GPAMAP_API int gpamap_registers_map(struct gpamap *map, uint32_t region, void **page);
/** @map: that with which it was mapped, still open. */
GPAMAP_API void gpamap_registers_unmap(struct gpamap *map, void *page);

/* ---- rings of posted writes ------------------------------------------- */

/** A ring of posted writes that is read by this process. */
struct gpamap_ring_reader;

/**
 * Does what a posted write asks for. Called by the functions that drain, in their thread,
 * entry by entry in the order of their numbers, and never by two threads at once for one
 * ring. It may call all functions of this library but gpamap_close(); those that drain do not
 * drain then.
 * @entry: valid until it returns.
 */
typedef void (*gpamap_ring_fn)(void *arg, const struct gpamap_ring_entry *entry);

/**
 * What was written as the guest wrote it: @entry->len bytes, that at @entry->offset first, as
 * in kvm_run's mmio.data; @entry->value has them as a number. They are in @entry, and valid as
 * long as it is. An entry of another length than 1 to 8 has none: NULL.
 */
GPAMAP_API const uint8_t *gpamap_ring_entry_bytes(const struct gpamap_ring_entry *entry);

/**
 * Makes ring @id of the map, maps it, and reads it from now on by calling @fn with @arg.
 * Regions post to it after gpamap_post_add().
 * @id: chosen by the caller, above 0.
 * @nr_entries: a power of two, GPAMAP_MIN_RING_ENTRIES to GPAMAP_MAX_RING_ENTRIES.
 * @watermark: how many entries are pending, at least, when @fd is signalled; 1 to
 *	@nr_entries, or 0 without @fd.
 * @delay_us: after how many microseconds @fd is signalled if fewer entries are pending, at
 *	the latest; up to GPAMAP_MAX_RING_DELAY_US. 0: not at all. struct gpamap_ring has the
 *	rules.
 * @fd: an eventfd, which may be closed afterwards. Who hears it calls gpamap_ring_drain(). -1:
 *	none; gpamap_ring_drain() is called before exits are handled, or by the clock.
 * @out: receives the ring, to be given to gpamap_ring_close(); it ends with the map, too.
 *
 * -EINVAL: a number that cannot be, or @fd is no eventfd. -EBADF: @fd is not open and not -1.
 * -EEXIST: there is such a ring. -ENOSPC: too many rings. -EOPNOTSUPP: this is a 32-bit
 * program, or the kernel lays rings out in a way that this library does not know. -EIO.
 */
GPAMAP_API int gpamap_ring_open(struct gpamap *map, uint32_t id, uint32_t nr_entries,
				uint32_t watermark, uint32_t delay_us, int fd,
				gpamap_ring_fn fn, void *arg,
				struct gpamap_ring_reader **out);
/**
 * Removes the ring, calls back for what is pending, and unmaps it. Takes NULL and does
 * nothing. When it returns, no callback runs.
 *
 * -EBUSY: regions post to it, or this is a callback of a ring; -EIO. Then it stays.
 */
GPAMAP_API int gpamap_ring_close(struct gpamap_ring_reader *ring);
/**
 * Calls back for all entries that are pending now. When it returns, these are done, also
 * those that another thread was at. To be called before an exit is handled (KVM_EXIT_MMIO,
 * KVM_EXIT_IO) that is an access to a region of the group, when a doorbell of such a region
 * is heard, and when the ring's eventfd is. Do not hold a lock that the callback takes.
 *
 * Returns how many there were; -EBUSY: this is a callback of a ring, and nothing was done;
 * -EIO: this process has overwritten the header of the ring.
 */
GPAMAP_API int gpamap_ring_drain(struct gpamap_ring_reader *ring);
/**
 * gpamap_ring_drain() for all rings that were opened with @map. Returns how many entries
 * there were in all; after an error (the same), which hides the number, the other rings are
 * drained all the same.
 */
GPAMAP_API int gpamap_drain(struct gpamap *map);

/**
 * From now on writes to io region @region that are for no register and ring no doorbell are
 * posted to ring @ring, or leave if it is full. struct gpamap_post has the rules.
 *
 * -ENOENT: no such region, or no such ring. -EEXIST: it posts already. -EBUSY: it has a
 * handler. -EOPNOTSUPP: it is of another kind. -ENOSPC: GPAMAP_MAX_BUS_LEN. -EIO.
 */
GPAMAP_API int gpamap_post_add(struct gpamap *map, uint32_t region, uint32_t ring);
/** No more. What is pending stays so; -ENOENT if the region does not post. */
GPAMAP_API int gpamap_post_remove(struct gpamap *map, uint32_t region);
/** The same as operations of a batch. */
GPAMAP_API int gpamap_batch_post(struct gpamap_batch *batch, uint32_t region,
				 uint32_t ring);
GPAMAP_API int gpamap_batch_post_remove(struct gpamap_batch *batch, uint32_t region);

/* ---- handlers and policies -------------------------------------------- */

/**
 * Has accesses to io region @region, those that no register and no doorbell answers,
 * answered in the kernel by the handler @name of another module, such as "acpi-pm-timer".
 * What @arg means, the handler says; 0 if it takes none.
 *
 * -ENOENT: no such region, or no module offers the handler. -EEXIST: the region has one.
 * -EBUSY: it posts its writes. -EOPNOTSUPP: it is of another kind. -EINVAL: the name, or @arg.
 * What the handler says. -ENOSPC: GPAMAP_MAX_BUS_LEN. -EIO.
 */
GPAMAP_API int gpamap_handler_set(struct gpamap *map, uint32_t region, const char *name,
				  uint64_t arg);
/** Takes it away; -ENOENT if it has none. No vCPU is in the handler afterwards. */
GPAMAP_API int gpamap_handler_remove(struct gpamap *map, uint32_t region);
/** The same as operations of a batch. @name is copied. */
GPAMAP_API int gpamap_batch_handler(struct gpamap_batch *batch, uint32_t region,
				    const char *name, uint64_t arg);
GPAMAP_API int gpamap_batch_handler_remove(struct gpamap_batch *batch, uint32_t region);

/**
 * What becomes of accesses to @region that nothing else answers: enum gpamap_policy_kind.
 * ZEROES and ONES are for io and reserved regions; struct gpamap_policy has the rules.
 *
 * -ENOENT: no such region. -EOPNOTSUPP: not for this kind of region, or an unknown policy.
 * -ENOSPC: GPAMAP_MAX_BUS_LEN. -EIO.
 */
GPAMAP_API int gpamap_policy_set(struct gpamap *map, uint32_t region, uint32_t policy);
/** The same as an operation of a batch. */
GPAMAP_API int gpamap_batch_policy(struct gpamap_batch *batch, uint32_t region,
				   uint32_t policy);

/* ---- exits ------------------------------------------------------------ */

/** Records that are mapped. */
struct gpamap_exits;

/**
 * The records of the vCPUs with the ids 0 to @nr_vcpus - 1: what the last access of each was
 * for that left to the VMM. They stay until gpamap_exits_unmap(), and keep the map open until
 * then. -EINVAL: none, or too many. -EOPNOTSUPP: the kernel has laid them out in a way that
 * this library does not know. -ENOMEM.
 */
GPAMAP_API int gpamap_exits_map(struct gpamap *map, uint32_t nr_vcpus,
				struct gpamap_exits **exits);
/** NULL does nothing. */
GPAMAP_API void gpamap_exits_unmap(struct gpamap_exits *exits);
/**
 * The record of a vCPU, to give to gpamap_exit_resolve(); the kernel's may be shorter or longer
 * than the structure (struct gpamap_layout), so no array can be made of it. NULL: @vcpu_id is
 * not below the number that was mapped.
 */
GPAMAP_API struct gpamap_exit *gpamap_exits_at(const struct gpamap_exits *exits,
					       uint32_t vcpu_id);

/**
 * What the exit of a vCPU is for: to be called once after each KVM_EXIT_MMIO and
 * KVM_EXIT_IO, before the vCPU runs again. A VMM that leaves some exits out sets the record's
 * region to 0 instead.
 * @exit: the record of the vCPU; it is used up.
 * @space, @addr: where the access was: of struct kvm_run mmio.phys_addr in the memory space,
 *	io.port in the io space.
 * @out: receives the answer as gpamap_lookup() gives it. With a record it is that of
 *	the map as the guest made the access, whatever was committed since (struct
 *	gpamap_exit has what can be wrong with that).
 *
 * What was posted before comes before: it drains the map's rings first (gpamap_drain()).
 *
 * -ENOENT: no such space, or nothing is seen there. -EIO, as gpamap_ring_drain().
 */
GPAMAP_API int gpamap_exit_resolve(struct gpamap *map, struct gpamap_exit *exit,
				   uint32_t space, uint64_t addr,
				   struct gpamap_lookup *out);

/* ---- queries ---------------------------------------------------------- */

/** The map as a whole. */
GPAMAP_API int gpamap_query_info(struct gpamap *map, struct gpamap_info *out);
/** What the map has done since it was opened. */
GPAMAP_API int gpamap_query_stats(struct gpamap *map, struct gpamap_stats *out);

/**
 * The regions, spaces, ranges of a space's view, or memslots; see enum
 * gpamap_query_what for their order.
 * @out: receives an array that the caller frees with free(); never NULL.
 * @nr: receives the number of its elements.
 *
 * -ENOENT: no such space (ranges only).
 */
GPAMAP_API int gpamap_query_regions(struct gpamap *map,
				    struct gpamap_region_info **out, uint32_t *nr);
GPAMAP_API int gpamap_query_spaces(struct gpamap *map,
				   struct gpamap_space_info **out, uint32_t *nr);
GPAMAP_API int gpamap_query_ranges(struct gpamap *map, uint32_t space,
				   struct gpamap_range_info **out, uint32_t *nr);
GPAMAP_API int gpamap_query_slots(struct gpamap *map, struct gpamap_slot_info **out,
				  uint32_t *nr);

/** How memory is laid out that is mapped, for those who call mmap() themselves; as those above. */
GPAMAP_API int gpamap_query_layout(struct gpamap *map, struct gpamap_layout **out, uint32_t *nr);

/** The accesses to all regions that have something tied to them, as those above. */
GPAMAP_API int gpamap_query_counters(struct gpamap *map, struct gpamap_counters **out,
				     uint32_t *nr);

/**
 * What is at @addr of a space. Never waits for a commit.
 * @out: receives the answer in its out_ members.
 *
 * -ENOENT: no such space, or nothing is seen there.
 */
GPAMAP_API int gpamap_lookup(struct gpamap *map, uint32_t space, uint64_t addr,
			     struct gpamap_lookup *out);

/* ---- map files -------------------------------------------------------- */

/** A text file of operations that is being read. */
struct gpamap_mapfile;

enum gpamap_mapfile_item {
	GPAMAP_MAPFILE_END = 0,		/**< the end of the file */
	GPAMAP_MAPFILE_OP = 1,		/**< an operation */
	GPAMAP_MAPFILE_COMMIT = 2,	/**< apply what came since the last one */
};

/**
 * Opens a map file for reading. Spaces get the ids 1, 2, ... in their order.
 * Errors: -ENOMEM and those of open(2).
 */
GPAMAP_API int gpamap_mapfile_open(const char *path, struct gpamap_mapfile **out);
/**
 * Closes the file and unmaps the memory that gpamap_mapfile_batch() and
 * gpamap_mapfile_apply() have allocated, so close it only when no VM uses the map any
 * more.
 */
GPAMAP_API void gpamap_mapfile_close(struct gpamap_mapfile *file);

/**
 * Reads on to the next operation or commit.
 * @op: receives the operation.
 *
 * Returns an enum gpamap_mapfile_item; -EINVAL for a line that is malformed,
 * -EOPNOTSUPP for one that this version does not support (gpamap_mapfile_error()
 * says what is wrong), -ENOMEM, -EIO, -EISDIR.
 */
GPAMAP_API int gpamap_mapfile_next(struct gpamap_mapfile *file, struct gpamap_op *op);
/**
 * Reads on to the next commit and puts the operations before it into @batch, in place of
 * what it held, for a map of this process. Memory regions without hva get anonymous
 * memory, zeroed and not reserved, that belongs to @file.
 *
 * Returns GPAMAP_MAPFILE_COMMIT; otherwise @batch is empty: GPAMAP_MAPFILE_END when there
 * is no more commit, or the errors of gpamap_mapfile_next().
 */
GPAMAP_API int gpamap_mapfile_batch(struct gpamap_mapfile *file,
				    struct gpamap_batch *batch);
/**
 * Applying or planning the batch that gpamap_mapfile_batch() filled last gave @err, a
 * negative errno value, at operation @failed: gpamap_mapfile_line() is then at that
 * operation (at the commit for GPAMAP_NO_OP) and gpamap_mapfile_error() has the sentence.
 *
 * Returns @err.
 */
GPAMAP_API int gpamap_mapfile_blame(struct gpamap_mapfile *file,
				    const struct gpamap_batch *batch, uint32_t failed,
				    int err);
/**
 * Applies the rest of the file to a live map, with gpamap_mapfile_batch() and
 * gpamap_apply() for each commit; what comes after the last commit is read and left out.
 *
 * Returns 0; the errors of both, told as by gpamap_mapfile_blame(). Commits before the
 * one that failed stay applied.
 */
GPAMAP_API int gpamap_mapfile_apply(struct gpamap_mapfile *file, struct gpamap *map);
/** Number of the line read last, or that an error is about, from 1. */
GPAMAP_API unsigned int gpamap_mapfile_line(const struct gpamap_mapfile *file);
/** What was wrong with it; "" if nothing was. Valid until the next call. */
GPAMAP_API const char *gpamap_mapfile_error(const struct gpamap_mapfile *file);

#ifdef __cplusplus
}
#endif

#endif /* GPAMAP_H */
