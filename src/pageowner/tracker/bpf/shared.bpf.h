/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What all parts of the in-kernel half use: what it reads of the kernel's structures, the
 * parameters set when loading, the maps, counting.
 */
#ifndef PAGEOWNER_SHARED_BPF_H
#define PAGEOWNER_SHARED_BPF_H

#include "bpf_abi.h"
#include "records.h"

/* ---- what the kernel has: only the fields that we read ---- */

struct page {
	struct { int counter; } _refcount;
	struct { int counter; } _mapcount; /* shares its place with page_type */
} CORE;

/* The order of a folio: a byte of _flags_1 (a struct since 6.18), before 6.6 a field. */
struct folio___flags {
	unsigned long _flags_1;
} CORE;
struct folio___memdesc {
	struct { unsigned long f; } _flags_1;
} CORE;
struct folio___order {
	unsigned char _folio_order;
} CORE;
struct page___order {
	unsigned char compound_order; /* of the second page, before folios had it */
} CORE;
struct page___head {
	unsigned long compound_head;  /* of a tail page: its head + 1 */
} CORE;
struct page___info {
	unsigned long compound_info;  /* the same, or a mask + 1 for the tail's own address (7.1) */
} CORE;
enum pageflags { PG_head = 6 };

struct kernfs_node {
	u64 id;
} CORE;
struct cgroup {
	struct kernfs_node *kn;
} CORE;
struct css_set {
	struct cgroup *dfl_cgrp;
} CORE;
struct task_struct {
	void *stack;
	int pid;
	int tgid;
	char comm[COMM_LEN];
	struct css_set *cgroups;
	unsigned short migration_disabled; /* how often: CONFIG_SMP */
} CORE;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158; /* 5.11 */

/* ---- parameters, set when loading ---- */

const volatile u64 vmemmap;        /* address of the struct page of pfn 0 */
const volatile u32 span_shift = 16;/* 2**span_shift page frames in each inner map of spans */
const volatile u32 span_count = 1; /* numbers of spans are below; from there on are spares */
const volatile u8 has_spares;
const volatile u32 depth = 16;     /* frames of a stack */
const volatile u32 stack_mask;     /* slots of stacks - 1, a power of two */
const volatile u32 task_mask;      /* slots of tasks - 1, a power of two */
const volatile u32 max_order = 10; /* MAX_PAGE_ORDER */
const volatile u8 weak_order = 1;  /* stores may be seen in another order: all but x86 */
const volatile u8 free_side;       /* keep who freed */

/* Filters: what does not pass is recorded as STATE_FILTERED. */
const volatile u8 filters;         /* whether there is any */
const volatile u32 user_gfp;       /* leave out masks with all of these bits; 0: none */
const volatile u32 min_order;
const volatile u32 only_tgid;      /* 0: all */
const volatile u64 only_cgroup;    /* id of a cgroup v2, its descendants too; 0: all */
const volatile u32 cgroup_level;   /* its depth: 0 is the root */
const volatile u32 sample = 1;     /* keep one page of this many, by pfn */

/* Where arguments of kernel functions are, by this kernel's BTF; NOT_THERE if it has none such. */
#define NOT_THERE 255
const volatile u8 bulk_array = 4;          /* alloc_pages_bulk: the array; 5 before 6.14 */
const volatile u8 split_new_order = NOT_THERE;
const volatile u8 split_at = NOT_THERE;    /* __folio_split: the page that pieces shrink towards */
const volatile u8 split_uniform = NOT_THERE;/* ... unless this argument is split_uniform_value */
const volatile u8 split_uniform_value = 1;
const volatile u8 split_arguments = 2;     /* how many: the result follows them */
const volatile u32 comp_gfp = 1 << 18; /* of a contiguous range that is one compound page */
const volatile u32 contig_gfp;         /* the mask of the pages of any other; 0: the caller's */
const volatile u64 direct_map;         /* address of pfn 0 in the kernel's direct map */
const volatile u32 page_shift = 12;
const volatile u32 only_pid;           /* of the calibration */
const volatile u8 timed;               /* keep how long events take */
/* Bounds of the functions that call the programs where a tracepoint has more than one of them,
 * __traceiter_*(): from, to; unused ones are 0. */
#define ITERATORS 6
const volatile u64 iterators[2 * ITERATORS];
const volatile u8 hold;                /* programs must see to it that they are not preempted */

/* Frames of the tracing itself at the top of a stack, by hook, or NOT_BEGUN: set after attaching. In
 * a map of its own, since userspace writes it while the programs run. */
u32 skip_frames[HOOKS] SEC(".data.skip");
/* For memory that is added: the number + 1 of the span that each spare has become, 0 while it is
 * free. A span can have one of them only, so that no two become the same. SPARE_HELD: userspace is
 * at work on them. */
u32 spare_spans[SPARES] SEC(".data.spares");
/* A bit for each order that a record has had: how far up to look for a containing block. */
u32 orders_seen;

/* ---- maps ---- */

/* The store: spans[pfn >> span_shift][pfn & mask], spans without page frames are not there. After
 * all of them come the spares. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	FIELD_NUMBER(key_size, sizeof(u32));
	FIELD_NUMBER(value_size, sizeof(u32));
	FIELD_NUMBER(max_entries, 1);
} spans SEC(".maps"), freed_spans SEC(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(map_flags, BPF_F_MMAPABLE);
	FIELD_NUMBER(key_size, sizeof(u32));
	FIELD_NUMBER(value_size, sizeof(struct task));
	FIELD_NUMBER(max_entries, 1);
} tasks SEC(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(map_flags, BPF_F_MMAPABLE);
	FIELD_NUMBER(key_size, sizeof(u32));
	FIELD_NUMBER(value_size, sizeof(struct stack)); /* made smaller when loading, by depth */
	FIELD_NUMBER(max_entries, 1);
} stacks SEC(".maps");

/* The events of objects of one kind (its counter - COUNT_OBJECTS_KMALLOC), of which there are two copies
 * of a program: whether the first is at work; and what it dealt with last, until the second has come to
 * it: the address of the object, or of the list of a bulk, with EVENT_DONE set. */
#define EVENT_KINDS 10
#define EVENT_DONE 1ULL
struct events {
	u64 at_work;
	u64 done;
};

/* What a CPU has for itself and needs for nearly every event, in one piece: one lookup finds it. */
struct cpu {
	struct counters counters;
	struct hot hot[HOOKS];
	struct recent recent[RECENT]; /* of allocations */
	struct events events[EVENT_KINDS];
};

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct cpu);
	FIELD_NUMBER(max_entries, 1);
} counters SEC(".maps");

/* Preallocated: the event comes with the zone's lock held. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_TYPE(key, struct extfrag_key);
	FIELD_TYPE(value, struct extfrag);
	FIELD_NUMBER(max_entries, 4096);
} extfrag SEC(".maps");

/* Options and facts of `on` as JSON text; the programs do not read it. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(key_size, sizeof(u32));
	FIELD_NUMBER(value_size, 16384);
	FIELD_NUMBER(max_entries, 1);
} config SEC(".maps");

/* What an event needs whose stack or task is not known at once. */
struct scratch {
	struct task_key key;       /* the current task */
	u32 n;                     /* frames that were unwound, an iterator's with them, */
	u32 known;                 /* and without, up to the depth */
	u64 unwound[MAX_DEPTH + 1];
	u64 frames[MAX_DEPTH];     /* those of the stack, behind its end 0 */
};

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct scratch);
	FIELD_NUMBER(max_entries, HOOKS);
} scratches SEC(".maps");

/* Of tasks inside migrate_pages(): why. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, u32);
	FIELD_NUMBER(max_entries, 4096);
} migrating SEC(".maps");

/* Of tasks inside a split of a folio: what is split. */
struct splitting {
	u64 pfn;
	u64 order;
};

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct splitting);
	FIELD_NUMBER(max_entries, 4096);
} splits SEC(".maps");

/* When a task's contiguous range was its own, before the kernel tidied up around it. What is left of
 * calls for other reasons makes way. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, u64);
	FIELD_NUMBER(max_entries, 1024);
} taken SEC(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct sighting);
	FIELD_NUMBER(max_entries, SIGHTINGS);
} sightings SEC(".maps");
u32 sighted;

/* Per CPU; one entry of no use unless timed. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct timing);
	FIELD_NUMBER(max_entries, 1);
} timings SEC(".maps");

/* ---- how long it takes, for the benchmark ---- */

INLINE u64 begin_timing(void)
{
	return timed ? bpf_ktime_get_ns() : 0;
}

INLINE void end_timing(u32 which, u64 began)
{
	struct timing *timing;
	u64 ns, left;
	u32 log = 0, at;

	if (!timed)
		return;
	ns = bpf_ktime_get_ns() - began;
	timing = bpf_map_lookup_elem(&timings, &which);
	if (!timing)
		return;
	if (ns > timing->longest)
		timing->longest = ns;
	for (left = ns; left > 7 && log < 28; left >>= 1)
		log++;
	at = 4 * (log + 2) + (left & 3);
	if (ns >= 4 && at < TIMING_BUCKETS)
		timing->bucket[at]++;
}

/* ---- not to be put aside ---- */

/*
 * Where the kernel lets programs be preempted (on tracepoints from 7.0 on: SRCU-fast guards them,
 * include/linux/tracepoint.h; on functions always where it can preempt itself), the task that then
 * runs on the CPU finds this program busy, for milliseconds, and what it allocates is missed. So
 * preemption is off while a program is at work. It ends with interrupts off: else the task would make
 * way at that very moment, and the program would be busy all the same. It makes way when the kernel
 * has left the program (migrate_enable()), or at the next interrupt. What remains open is a few
 * instructions before and behind.
 *
 * Interrupts stay on, and come in the middle. To keep them off would not help: they would all come at
 * the end, where the kernel still holds the program to be running.
 */
INLINE void keep_cpu(void)
{
	if (hold)
		bpf_preempt_disable();
}

INLINE void give_cpu(void)
{
	unsigned long flags;

	if (hold) {
		bpf_local_irq_save(&flags);
		bpf_preempt_enable();
		bpf_local_irq_restore(&flags);
	}
}

/* A program that is not put aside from beginning to end; what follows is its body. */
#define HELD(section, name, hook) \
	INLINE void name##_held(u64 *context); \
	SEC(section) \
	int name(u64 *context) \
	{ \
		u64 began; \
		\
		keep_cpu(); \
		began = begin_timing(); \
		name##_held(context); \
		end_timing(hook, began); \
		give_cpu(); \
		return 0; \
	} \
	INLINE void name##_held(u64 *context)

/* ---- small things ---- */

/* What was read and written before this is so for every CPU before what follows. BPF has no barriers,
 * but its atomic operations that return a value are full ones (arch/arm64/net/bpf_jit_comp.c:
 * swpal, or ldxr and stlxr with dmb ish behind): here on a word of the program's own stack. Between
 * two of our own accesses an operation on the word in question would not do: its store may be late. */
INLINE void in_order(void)
{
	u32 nothing = 0;

	barrier();
	if (weak_order)
		asm volatile("" : : "r"(__sync_lock_test_and_set(&nothing, 1)));
	barrier();
}

INLINE struct cpu *this_cpu(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

/* For what programs count that may come in each other's way on a CPU. */
INLINE void count(enum counter which, u64 n)
{
	struct cpu *cpu = this_cpu();

	if (cpu)
		__sync_fetch_and_add(&cpu->counters.value[which], n);
}

/* For what one program alone counts, for every event: without the price of an atomic addition. */
INLINE void count_alone(struct cpu *cpu, enum counter which)
{
	cpu->counters.value[which]++;
}

/* A program begins to deal with an event; NULL if it is at work on another one on this CPU (what it
 * interrupted) or is to wait. */
INLINE struct cpu *begin(u32 hook)
{
	struct cpu *cpu = this_cpu();
	struct hot *hot = cpu ? &cpu->hot[hook] : NULL;

	if (!hot || (skip_frames[hook] & 0xff) == NOT_BEGUN)
		return NULL;
	if (hot->busy) {
		if (hook < HOOK_KMALLOC) /* of pages, and not the second program */
			count(COUNT_REENTERED, 1);
		return NULL;
	}
	*(volatile u32 *)&hot->busy = 1;
	*(volatile u64 *)&hot->seen = 0;
	barrier();
	return cpu;
}

INLINE void end(struct cpu *cpu, u32 hook, u64 page)
{
	barrier();
	*(volatile u64 *)&cpu->hot[hook].seen = page;
	*(volatile u32 *)&cpu->hot[hook].busy = 0;
}

INLINE struct scratch *scratch_of(u32 hook)
{
	return bpf_map_lookup_elem(&scratches, &hook);
}

INLINE u64 page_to_pfn(u64 page)
{
	u64 size = core_type_size(struct page);

	/* One of the two is dead code once loaded: the size is then a constant. */
	if (size == 64)
		return (page - vmemmap) >> 6;
	return size ? (page - vmemmap) / size : 0;
}

INLINE u64 hash_step(u64 hash, u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
}

#endif
