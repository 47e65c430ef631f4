/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What userspace runs: questions about pages, the settling of early ones, the calibration, and for
 * tests what the hooks do, on made-up arguments.
 */
#ifndef PAGEOWNER_ASKED_BPF_H
#define PAGEOWNER_ASKED_BPF_H

#include "functions.bpf.h"
#include "shared.bpf.h"
#include "splitting.bpf.h"
#include "store.bpf.h"
#include "tasks.bpf.h"

/* Of the early pages at context[0] .. + 511, forget those whose bit in the next 8 words is set:
 * they were free when tracking had begun. With context[9], mark as early those of them that have no
 * record. An event that came meanwhile wins. */
SEC("raw_tp")
int settle(u64 *context)
{
	u64 pfn = context[0], bits = 0;
	struct record *record;
	u32 i, word, from = context[9] ? STATE_NONE : STATE_EARLY;
	u32 to = context[9] ? STATE_EARLY : STATE_NONE;

	for (i = 0; i < 512; i++) {
		if (i == 0)
			bits = context[1];
		else if (i == 64)
			bits = context[2];
		else if (i == 128)
			bits = context[3];
		else if (i == 192)
			bits = context[4];
		else if (i == 256)
			bits = context[5];
		else if (i == 320)
			bits = context[6];
		else if (i == 384)
			bits = context[7];
		else if (i == 448)
			bits = context[8];
		if (bits >> (i & 63) & 1) {
			record = record_at(pfn + i);
			if (!record)
				continue;
			word = RECORD_WORD(record);
			if (state_in(word) == from)
				replace_word(record, word, next_word(word, record_word(0, to, 0)));
		}
	}
	return 0;
}

/* No free spare is taken from here on, until userspace says that they are free. */
SEC("raw_tp")
int hold_spares(u64 *context)
{
	u32 i;

	(void)context;
	for (i = 0; i < SPARES; i++)
		__sync_val_compare_and_swap(&spare_spans[i], 0, SPARE_HELD);
	return 0;
}

/* What the hooks above do to the store, on made-up arguments: for tests, on kernels that refuse to
 * load those. Bulk and contiguous allocations are by the task and the stack of the test. */
SEC("raw_tp")
int made_up(u64 *context)
{
	u32 task;

	switch (context[0]) {
	case HOOK_BULK:
		task = task_id(HOOK_BULK);
		own_bulk(context[1], context[2], stack_id(context, HOOK_BULK, 0), task);
		drop_task(task, 1);
		break;
	case HOOK_CONTIG:
		took_range(context, context[1], context[2], context[3], HOOK_CONTIG);
		break;
	case HOOK_MIGRATE:
		move_owner(context[1], context[2], context[3], context[4]);
		break;
	case HOOK_SPLIT:
		split_range(context[1], context[2], context[3], SPLIT_MADE_UP);
		break;
	case HOOKS:
		isolate(context[1], context[2], 1);
		break;
	case HOOKS + 1: /* the order of a real compound page */
		return order_of(vmemmap + context[1] * core_type_size(struct page));
	case HOOKS + 2: /* alloc_pages_exact() */
		split_exact(context[1], context[2], SPLIT_MADE_UP);
		break;
	case HOOKS + 3: /* a contiguous range, from the function around */
		took_range_around(context, context[1], context[2], context[3]);
		break;
	}
	return 0;
}

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(map_flags, BPF_F_MMAPABLE);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct question);
	FIELD_NUMBER(max_entries, QUESTIONS);
} questions SEC(".maps");

/* Answer the first context[0] questions: /proc/kpageflags does not tell a page on a CPU's list
 * of free pages (reference count 0) from one in use by the kernel. */
SEC("raw_tp")
int look(u64 *context)
{
	u32 references = core_field_offset(((struct page *)0)->_refcount);
	u32 type = core_field_offset(((struct page *)0)->_mapcount);
	u64 n = context[0], bytes[8] = {};
	struct question *question;
	u32 i, key;

	for (i = 0; i < QUESTIONS; i++) {
		if (i >= n)
			break;
		key = i;
		question = bpf_map_lookup_elem(&questions, &key);
		if (!question)
			break;
		question->refcount = -1;
		if (references > sizeof(bytes) - 4 || type > sizeof(bytes) - 4 ||
		    bpf_probe_read_kernel(bytes, sizeof(bytes), (void *)(vmemmap +
			    question->pfn * core_type_size(struct page))))
			continue;
		question->flags = bytes[0];
		question->refcount = *(s32 *)((char *)bytes + references);
		question->type = *(u32 *)((char *)bytes + type);
	}
	return 0;
}

/* Where sparse memory (CONFIG_SPARSEMEM_EXTREME) keeps the bits of pageblocks. */
struct mem_section_usage {
	unsigned long subsection_map[1]; /* a bit for each 2 MiB of a section */
	unsigned long pageblock_flags[1];
} CORE;
struct mem_section {
	struct mem_section_usage *usage;
} CORE;
enum pageblock_bits { NR_PAGEBLOCK_BITS = 4 };            /* before 6.17 */
enum pageblock_bits___isolate { __NR_PAGEBLOCK_BITS = 5 };/* takes up the next power of two */

/* Answer the first context[0] questions with the bits of each page's pageblock; context[1] is the
 * address of mem_section, context[2] the order of a pageblock. */
SEC("raw_tp")
int pageblocks(u64 *context)
{
	struct mem_section_usage *const usage = NULL;
	struct mem_section *const section = NULL;
	u64 n = context[0], roots = 0, root, at, word, number, pages, bit, bits = 4;
	u32 i, key, size = core_type_size(struct mem_section);
	struct question *question;

	if (!size || !core_field_exists(section->usage) ||
	    !core_field_exists(usage->pageblock_flags) || !core_field_exists(usage->subsection_map))
		return 0;
	if (core_enum_value_exists(enum pageblock_bits___isolate, __NR_PAGEBLOCK_BITS) &&
	    core_enum_value(enum pageblock_bits___isolate, __NR_PAGEBLOCK_BITS) > 4)
		bits = 8;
	pages = (u64)core_field_size(usage->subsection_map) * 8 << (21 - page_shift);
	if (bpf_probe_read_kernel(&roots, sizeof(roots), (void *)context[1]))
		return 0;
	for (i = 0; i < QUESTIONS; i++) {
		if (i >= n)
			break;
		key = i;
		question = bpf_map_lookup_elem(&questions, &key);
		if (!question)
			break;
		question->refcount = -1;
		number = question->pfn / pages;
		root = number / ((1 << page_shift) / size);
		number -= root * ((1 << page_shift) / size);
		if (bpf_probe_read_kernel(&at, sizeof(at), (void *)(roots + root * 8)) || !at ||
		    bpf_probe_read_kernel(&at, sizeof(at), (void *)(at + number * size +
			    core_field_offset(section->usage))) || !at)
			continue;
		bit = (question->pfn % pages >> (context[2] & 31)) * bits;
		if (bpf_probe_read_kernel(&word, sizeof(word), (void *)(at + (bit >> 6) * 8 +
			    core_field_offset(usage->pageblock_flags))))
			continue;
		question->flags = word >> (bit & 63) & ((1 << bits) - 1);
		question->refcount = 0;
	}
	return 0;
}

/* What the raw tracepoint says of the allocations of one thread; the classic one tells their
 * pfns, and so where struct pages are and which frames of a stack are the tracing's. */
SEC("raw_tp/mm_page_alloc")
int calibrate(u64 *context)
{
	u32 at = sighted;
	struct task_struct *current;
	struct sighting *sighting;
	long size;

	if (!context[0] || (u32)bpf_get_current_pid_tgid() != only_pid)
		return 0;
	sighting = bpf_map_lookup_elem(&sightings, &at);
	if (!sighting)
		return 0;
	sighting->page = context[0];
	sighting->order = context[1];
	sighting->gfp_mask = context[2];
	current = bpf_get_current_task_btf();
	/* Where preemption is off all the while, there is no need of this (kernel/trace/bpf_trace.c). */
	if (core_field_exists(current->migration_disabled))
		sighting->pinned = current->migration_disabled;
	size = bpf_get_stack(context, sighting->frames, sizeof(sighting->frames), 0);
	sighting->n = size > 0 ? size / sizeof(u64) : 0;
	sighted = at + 1;
	return 0;
}

/* For trying whether the kernel lets programs hold off preemption, and call what the hooks call then:
 * the verifier refused functions that it looks at one by one there (until 6.15 or so). */
HELD("raw_tp", try_hold, HOOK_FREE)
{
	clear_one(context[0], 0);
}

/* kmalloc(call_site, ptr, ...): pages that kmalloc() took for one object alone were the last
 * allocation of the thread. Where both have been seen, so has the direct map. */
SEC("raw_tp/kmalloc")
int calibrate_direct(u64 *context)
{
	u32 at = sighted - 1;
	struct sighting *sighting;

	if ((u32)bpf_get_current_pid_tgid() != only_pid)
		return 0;
	sighting = bpf_map_lookup_elem(&sightings, &at);
	if (sighting && sighting->order > 1 && !sighting->address)
		sighting->address = context[1];
	return 0;
}

#endif
