/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What both halves of the tracker share: the layout of its maps.
 *
 * scripts/build-bpf makes read/layout.py of this header, which has it for Python; a test compares the two.
 * All integers are in the machine's byte order.
 */
#ifndef PAGEOWNER_RECORDS_H
#define PAGEOWNER_RECORDS_H

#include "ran.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;

#define COMM_LEN 16    /* TASK_COMM_LEN, include/linux/sched.h */
#define MAX_DEPTH 64   /* frames of a stack at most; the depth in use is set when loading */
#define MAX_CLEARED 13 /* the largest MAX_PAGE_ORDER: arm64 with pages of 64 KiB */
#define MAX_BLOCK 20   /* the largest order a record may have: gigantic pages pass MAX_PAGE_ORDER */
#define TASK_SLOT_BITS 20
#define SPARES 4       /* spans for memory that is added, a power of two */
#define SPARE_HELD 0xffffffffU
#define WAYS 16        /* how many slots of a depot may hold one key */

/* What is known of the block that begins at a page (record.state). */
enum state {
	STATE_NONE = 0,     /* no block begins here: free, inside a block, or taken past our hooks */
	STATE_OWNED = 1,    /* allocated while tracked: the record is whole */
	STATE_EARLY = 2,    /* this one page (order 0) was in use before tracking began */
	STATE_FILTERED = 3, /* allocated while tracked, left out by a filter: order and gfp only */
	STATE_DIVIDED = 4,  /* a CPU is dividing this block just now; look again */
	STATE_WRITTEN = 5,  /* a CPU is writing this record just now; look again */
};

/*
 * One for each page frame; it speaks for a block at the block's first page.
 *
 * How it is written (store.bpf.h) and read (reading.py):
 *
 * - order to generation are one aligned word. The generation counts up with every change of the word,
 *   also while no block begins here, and is never reset.
 * - Who writes the other fields takes the record first: it exchanges the word that it has read for one
 *   of STATE_WRITTEN, the order to be and the next generation, by compare and exchange, so that there
 *   is one writer at a time.
 *   Then come the fields, and last the word of the new state, of that same generation. Where a machine
 *   may show stores in another order there is a barrier before the fields and one after them
 *   (in_order()). What changes the word alone does that by one compare and exchange. STATE_DIVIDED is
 *   taken in the same way; the fields stay what they are.
 * - Who finds a record taken looks again, TRIES times; then it leaves the record as it is and counts
 *   COUNT_CONTENDED.
 * - A reader copies all 24 bytes, and after a barrier reads all of them once more. If they are the
 *   same, and the state is not STATE_DIVIDED or above, it has a record that was whole in between.
 *   Else it looks again; a record that never stands still is counted and said to be in motion.
 *
 * Why that is enough though the generation comes round after 256 changes: of two writers that both
 * left this word, one wrote another ts, since two allocations that begin at one page differ in time.
 * The fields of a block left out by a filter are all 0, but for gfp_mask, which is read in one with
 * the word.
 */
struct record {
	u64 ts;             /* of the allocation, CLOCK_MONOTONIC ns, as the kernel's page owner */
	u32 stack_id;       /* slot in stacks; 0: unknown */
	u32 task_id;        /* id of a struct task; 0: unknown */
	u32 gfp_mask;
	u8 order;
	u8 state;           /* enum state */
	u8 moved;           /* low 4 bits: why it was migrated last, enum migrate_reason + 1, 0: never;
			     * high 4: how often it was, up to 15 */
	u8 generation;
};

/*
 * The free side, one for each page frame, when asked for. Its ts is what the word is of a record:
 * FREED_WRITTEN while it is being written, taken by compare and exchange; no two frees have the same.
 */
#define FREED_WRITTEN 0xffffffffffffffffULL
struct freed {
	u64 ts;             /* of the last free of a block beginning here; 0: none was seen */
	u32 stack_id;
	u32 task_id;        /* holds no reference: right only while tasks[slot].id is still the same */
};

/*
 * A task that owns pages. Its id is the slot in the low TASK_SLOT_BITS bits and above them a
 * generation, so that an id read from a record is never taken for a later holder of the slot.
 */
struct task {
	u32 id;             /* 0 while being written */
	u32 refs;           /* live records that name it; TASK_TAKING while being written */
	u32 tgid;
	u32 pid;
	char comm[COMM_LEN];
	u64 cgroup_id;      /* of cgroup v2 */
};

/* A call stack; frames has as many entries as the depth that was loaded. */
struct stack {
	u64 hash;           /* of the frames; 0: the slot is empty */
	u32 n;              /* frames in use; 0 while being written */
	u32 spare;
	u64 frames[MAX_DEPTH]; /* return addresses, innermost first */
};

/* The allocator took pages from a block of another migratetype (mm_page_alloc_extfrag). */
struct extfrag_key {
	u32 stack_id;
	u32 tgid;
	u32 pid;
	u8 alloc_order;
	u8 fallback_order;
	u8 alloc_migratetype;
	u8 fallback_migratetype;
	char comm[COMM_LEN];
};

struct extfrag {
	u64 count;
	u64 last_ts;
};

/* Counters, one u64 each, per CPU, in this order. */
enum counter {
	COUNT_ALLOCS,          /* blocks seen allocated by the tracepoint, but for the nested ones */
	COUNT_FREES,           /* blocks seen freed, but for the nested ones */
	COUNT_BULK,            /* pages seen allocated by the bulk allocator */
	COUNT_CONTIG,          /* ranges seen allocated by alloc_contig_range */
	COUNT_MIGRATED,        /* owners copied to the new place of a page */
	COUNT_SPLITS,          /* blocks seen split */
	COUNT_EXTFRAG,         /* fragmentation events */
	COUNT_FILTERED,        /* allocations left out by a filter */
	COUNT_CARVES,          /* blocks divided because a part of them was freed */
	COUNT_MERGES,          /* records cleared inside a larger block that was freed */
	COUNT_EARLY_FREED,     /* early pages freed */
	COUNT_UNKNOWN_FREES,   /* blocks freed of which nothing was known */
	COUNT_OVERWRITTEN,     /* allocated over a live record: its free was missed */
	COUNT_OUT_OF_RANGE,    /* pages outside the store */
	COUNT_STACKS_FULL,     /* no slot for a new stack: id 0 */
	COUNT_STACKS_FAILED,   /* the kernel gave no stack: id 0 */
	COUNT_STACK_COLLISIONS,/* different stacks of one hash, kept apart */
	COUNT_TASKS_FULL,      /* no slot for a new task: id 0 */
	COUNT_TASKS_TAKEN,     /* slots of the task table that were given to a new task */
	COUNT_BULK_MISSED,     /* pages of a bulk allocation past the end of what one event handles */
	COUNT_EXTFRAG_FULL,    /* fragmentation events that found no slot */
	COUNT_CONTENDED,       /* what could not be written since another CPU had the record too long */
	COUNT_NESTED_ALLOCS,   /* blocks seen allocated by the second program, the first being busy */
	COUNT_NESTED_FREES,    /* blocks seen freed by the second program, the first being busy */
	COUNT_REENTERED,       /* the first program ran inside itself, on kernels that allow it */
	COUNT_FREED_PAGES,     /* base pages of the blocks seen freed, nested ones too, but for each one's first */
	RAN_COUNTERS,          /* how often hooks ran that no counter above tells apart */
	/* Of the objects that are followed (object_table.bpf.h). */
	COUNT_OBJECTS_KMALLOC,     /* seen allocated, by kmalloc() */
	COUNT_OBJECTS_CACHE,       /* ... by kmem_cache_alloc() */
	COUNT_OBJECTS_PERCPU,      /* ... by the percpu allocator */
	COUNT_OBJECTS_BULK,        /* ... many at once, by kmem_cache_alloc_bulk() */
	COUNT_OBJECTS_KFREE,       /* seen freed, by kfree() */
	COUNT_OBJECTS_CACHE_FREE,  /* ... by kmem_cache_free() */
	COUNT_OBJECTS_PERCPU_FREE, /* ... by free_percpu() */
	COUNT_OBJECTS_BULK_FREE,   /* ... many at once, by kmem_cache_free_bulk() */
	COUNT_OBJECTS_SHEAF_FREE,  /* ... by kfree_rcu(), into a sheaf */
	COUNT_OBJECTS_RCU_FREE,    /* ... by kfree_rcu(), as its tracepoint has it */
	COUNT_OBJECTS_FULL,        /* seen allocated, with no place left */
	COUNT_OBJECTS_OVERWRITTEN, /* allocated over a live one: its free was missed */
	COUNT_OBJECTS_BUSY,        /* allocated while the program was at work on its CPU */
	COUNT_OBJECTS_BULK_MISSED, /* of a bulk, followed or not, past the end of what one event handles */
	COUNT_OBJECT_CACHES_FULL,  /* objects of a cache that found no place among the names */
	/* Events that a program's second copy took, in the order of the counters from
	 * COUNT_OBJECTS_KMALLOC on, which count them too. */
	COUNT_OBJECTS_NESTED_KMALLOC,
	COUNT_OBJECTS_NESTED_CACHE,
	COUNT_OBJECTS_NESTED_PERCPU,
	COUNT_OBJECTS_NESTED_BULK,
	COUNT_OBJECTS_NESTED_KFREE,
	COUNT_OBJECTS_NESTED_CACHE_FREE,
	COUNT_OBJECTS_NESTED_PERCPU_FREE,
	COUNT_OBJECTS_NESTED_BULK_FREE,
	COUNT_OBJECTS_NESTED_SHEAF_FREE,
	COUNT_OBJECTS_NESTED_RCU_FREE,
	COUNTERS
};

struct counters {
	u64 value[COUNTERS];
};

/* The hooks, each with its own scratch memory: one may interrupt another on the same CPU. */
enum hook {
	HOOK_ALLOC,
	HOOK_FREE,
	HOOK_EXTFRAG,
	HOOK_BULK,
	HOOK_CONTIG,
	HOOK_MIGRATE,
	HOOK_SPLIT,
	HOOK_CONTIG_AROUND,
	HOOK_KMALLOC,
	HOOK_CACHE_ALLOC,
	HOOK_PERCPU_ALLOC,
	HOOK_OBJECTS_IN_BULK,
	HOOK_NESTED_ALLOC,
	HOOK_NESTED_FREE,
	HOOK_NESTED_KMALLOC, /* from here on in the order of those from HOOK_KMALLOC on */
	HOOK_NESTED_CACHE_ALLOC,
	HOOK_NESTED_PERCPU_ALLOC,
	HOOK_NESTED_OBJECTS_IN_BULK,
	HOOKS
};
#define MEMO_HOOKS HOOK_NESTED_ALLOC /* those before it may recognise stacks */
#define NOT_BEGUN 255  /* in skip_frames: the hooks on allocations and frees wait for each other */

/* Who allocates, as a key. */
struct task_key {
	u64 pid_tgid;
	u64 cgroup_id;
	u64 comm[2];        /* COMM_LEN bytes */
};

/* A chain of the memo that was recognised of late: where it is, and what it was looked for with. */
#define RECENT 4       /* a power of two */
struct recent {
	u64 salt;
	u32 set;
	u32 way;
	u32 tag;
	u32 epoch;
};

/*
 * What nearly every event needs, per CPU and hook, side by side with the counters: one lookup gives
 * all of it.
 */
struct hot {
	u32 busy;           /* the program is at work on this CPU */
	u32 task_id;        /* of the last event's task, and how many references to it are in hand */
	u32 held;
	u32 until_check;    /* stacks recognised until one is unwound too */
	u64 seen;           /* the page of the last event that the first program dealt with */
	u64 plain[2];       /* pointers go through here and come out as numbers */
	u64 bottom;         /* addresses: of the window of the stack, and where the stack ends */
	u64 after;
	u64 key;            /* of the chain that was looked for */
	u64 hits;           /* stacks recognised, and how many of them were unwound too */
	u64 checks;
	u64 pid_tgid;       /* of the last event's task */
	u64 cgroup_id;
	u64 comm[2];        /* (so far a struct task_key) */
	u64 raw_comm[2];    /* its name as the kernel holds it, bytes after the end too */
	u32 left_id;        /* a task of which references are to be given back, and how many */
	u32 left;
};

/* How long events took, by hook, and behind the hooks what takes long in them: for the benchmark, and
 * only where it asked for it when loading. Buckets are quarters of powers of two of ns: 4 * log2 + the
 * next two bits. */
enum timed {
	TIMING_UNWIND,      /* unwinding a stack */
	TIMING_LEARN,       /* learning one */
	TIMINGS
};
#define TIMING_BUCKETS 128

struct timing {
	u64 longest;        /* ns */
	u64 bucket[TIMING_BUCKETS];
};

/* Counters of the memo, per hook and CPU. The reasons from MEMO_OTHER_STACK on are of misses that
 * were not remembered. */
enum memo_counter {
	MEMO_HITS,
	MEMO_MISSES,           /* all stacks that were unwound for not being known */
	MEMO_CHECKS,           /* hits that were unwound too */
	MEMO_DIFFERENCES,      /* ... and were not what the memo had said */
	MEMO_REPLACED,         /* chains that made way for others */
	MEMO_OTHER_STACK,      /* not on the task's own stack: an interrupt's */
	MEMO_DEEP,             /* reaches beyond the window */
	MEMO_AMBIGUOUS,        /* an address stands in several places, its frame's size is unknown */
	MEMO_VARIES,           /* the size of a frame is not always the same, its pointer unclear */
	MEMO_POINTERS,         /* more words may be pointers to frames than can be checked */
	MEMO_TRACED,           /* a tracer has put its own return addresses in */
	MEMO_LOST,             /* an address is not where it should be */
	MEMO_LONG,             /* took too long: goes on the next time */
	MEMO_COUNTERS
};
#define MEMO_SLOTS 16

/* One event of the calibration: what the raw tracepoint says of a page. */
struct sighting {
	u64 page;           /* address of its struct page */
	u64 address;        /* of the pages themselves, where kmalloc() told it */
	u64 gfp_mask;
	u64 pinned;         /* the task is kept on its CPU: it can be preempted in a program (7.0 on) */
	u32 order;
	u32 n;
	u64 frames[MAX_DEPTH];
};
#define SIGHTINGS 64

/* What a program run from userspace is asked about a page, and its answer. */
struct question {
	u64 pfn;
	u64 flags;          /* page->flags */
	s32 refcount;       /* -1: it could not be read */
	u32 type;           /* page_type, or the map count of a mapped page - 1; 0xffffffff: none */
};
#define QUESTIONS 512

/*
 * An object of a slab, or of the percpu allocator, that is followed. Beside the table of these is one of
 * their addresses, a word each: 0, the slot is empty; with OBJECT_WRITTEN, it is being written.
 * Who has changed a word from 0 to an address with OBJECT_WRITTEN, by compare and exchange, writes the
 * object and then the word without it. A reader copies words and objects, then both once more: what is
 * the same was whole in between, since two objects of one address differ in ts.
 */
#define OBJECT_WRITTEN 1ULL
#define OBJECT_PERCPU 0xffffffffU
struct object {
	u64 ts;             /* of the allocation, CLOCK_MONOTONIC ns */
	u32 stack_id;       /* slot in stacks; 0: unknown */
	u32 task_id;        /* id of a struct task, of which this holds a reference; 0: unknown */
	u32 cache;          /* slot in object_caches; 0: unknown, OBJECT_PERCPU: it is of no slab */
	u32 requested;      /* bytes asked for, of percpu memory for each CPU */
	u32 bytes;          /* bytes taken, of percpu memory for all CPUs together */
	u32 gfp_mask;
};

/* A slab cache, by what it was when an object of it was allocated: another one may come to lie at the
 * same address later, with another name. */
#define CACHE_NAME 40
struct object_cache {
	u64 address;        /* of its struct kmem_cache; 0: the slot is empty; OBJECT_WRITTEN as above */
	u64 name_at;        /* where the kernel has its name */
	u32 bytes;          /* that an object takes, with what the allocator adds */
	u32 object_size;    /* without */
	char name[CACHE_NAME];
};
#define OBJECT_CACHES 2048 /* a power of two */

#endif
