/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The hooks that a kernel may lack or refuse: on functions of the kernel, and on tracepoints that
 * only say more of what these see. Each is loaded and attached for itself (load/hooks.py, model/hook_table.py).
 */
#ifndef PAGEOWNER_FUNCTIONS_BPF_H
#define PAGEOWNER_FUNCTIONS_BPF_H

#include "events.bpf.h"
#include "shared.bpf.h"
#include "splitting.bpf.h"
#include "stacks.bpf.h"
#include "store.bpf.h"
#include "tasks.bpf.h"

/* An argument of a traced function, or after the last its result: read as plain memory, since the
 * verifier of older kernels refuses pointers to pointers and arithmetic on typed ones. */
INLINE u64 argument(u64 *context, u32 n)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), context + n);
	return value;
}

#define LARGEST_HEAD (1ULL << (MAX_BLOCK + 6)) /* bytes of the struct pages of the largest block */

/*
 * compound_head(). What a tail page has is the address of its head, or a mask, which is where struct
 * page is a power of two large and hugetlb gives up those of tails (include/linux/page-flags.h,
 * compound_info_has_mask()). A mask is no address of a struct page just below this one: it has all the
 * high bits set.
 */
INLINE u64 head_of(u64 page)
{
	u64 head = 0;

	if (core_field_exists(((struct page___head *)0)->compound_head))
		bpf_probe_read_kernel(&head, sizeof(head), (void *)(page +
			core_field_offset(((struct page___head *)0)->compound_head)));
	else if (core_field_exists(((struct page___info *)0)->compound_info))
		bpf_probe_read_kernel(&head, sizeof(head), (void *)(page +
			core_field_offset(((struct page___info *)0)->compound_info)));
	if (!(head & 1))
		return page;
	return head - 1 <= page && page - (head - 1) < LARGEST_HEAD ? head - 1 : page & (head - 1);
}

/* folio_order() of a head page. */
INLINE u32 order_of(u64 page)
{
	u64 flags = 0, second = page + core_type_size(struct page);
	u8 order = 0;

	bpf_probe_read_kernel(&flags, sizeof(flags), (void *)page);
	if (!(flags >> core_enum_value(enum pageflags, PG_head) & 1))
		return 0;
	if (core_field_exists(((struct folio___memdesc *)0)->_flags_1))
		bpf_probe_read_kernel(&order, 1, (void *)(page +
			core_field_offset(((struct folio___memdesc *)0)->_flags_1)));
	else if (core_field_exists(((struct folio___flags *)0)->_flags_1) &&
		 !core_field_exists(((struct folio___order *)0)->_folio_order))
		bpf_probe_read_kernel(&order, 1, (void *)(page +
			core_field_offset(((struct folio___flags *)0)->_flags_1)));
	else if (core_field_exists(((struct folio___order *)0)->_folio_order))
		bpf_probe_read_kernel(&order, 1, (void *)(page +
			core_field_offset(((struct folio___order *)0)->_folio_order)));
	else if (core_field_exists(((struct page___order *)0)->compound_order))
		bpf_probe_read_kernel(&order, 1, (void *)(second +
			core_field_offset(((struct page___order *)0)->compound_order)));
	return order <= MAX_BLOCK ? order : 0;
}

/* One page of a bulk allocation; those that are known were in the caller's array before, or came
 * through the tracepoint. */
GLOBAL int own_bulk(u64 pfn, u32 gfp_mask, u32 stack, u32 task)
{
	struct record *record = record_at(pfn);

	if (record && state_in(RECORD_WORD(record)) != STATE_NONE)
		return 0;
	count(COUNT_BULK, 1);
	if (!passes(pfn, 0, gfp_mask))
		return own_filtered(pfn, 0, gfp_mask);
	hold_more(task, 1);
	return own(pfn, 0, gfp_mask, stack, task);
}

GLOBAL int own_bulk_at(u64 place, u32 gfp_mask, u32 stack, u32 task)
{
	u64 page = 0;

	if (bpf_probe_read_kernel(&page, sizeof(page), (void *)place) || !page)
		return 0;
	return own_bulk(page_to_pfn(page), gfp_mask, stack, task);
}

#define BULK_PAGES 1024

/* alloc_pages_bulk(gfp, preferred_nid, nodemask, nr_pages, [page_list,] page_array): the pages
 * now in the array. It has no tracepoint. */
HELD("fexit", on_bulk, HOOK_BULK)
{
	u64 array = argument(context, bulk_array), n = argument(context, bulk_array + 1);
	u32 gfp_mask = argument(context, 0), i, stack, task;

	if (!array || !n)
		return;
	stack = stack_id(context, HOOK_BULK, 0);
	task = task_id(HOOK_BULK);
	for (i = 0; i < BULK_PAGES; i++) {
		if (i >= n)
			break;
		own_bulk_at(array + i * sizeof(u64), gfp_mask, stack, task);
	}
	if (n > BULK_PAGES)
		count(COUNT_BULK_MISSED, n - BULK_PAGES);
	drop_task(task, 1);
}

INLINE u64 *taken_at(void)
{
	u32 pid = bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&taken, &pid);
}

/* (A function of its own: in a loop the verifier would follow each filter of passes() each time.) */
GLOBAL int own_one_more(u64 pfn, u32 order, u32 gfp_mask, u32 stack, u32 task)
{
	u64 *ts;

	keep_cpu();
	if (passes(pfn, order, gfp_mask)) {
		hold_more(task, 1);
		ts = taken_at();
		own_since(pfn, order, gfp_mask, stack, task, ts ? *ts : bpf_ktime_get_ns());
	} else {
		own_filtered(pfn, order, gfp_mask);
	}
	give_cpu();
	return 0;
}

#define RANGE_PAGES 1024

/* The first RANGE_PAGES pages from start on, but for those behind the end. */
GLOBAL int own_pages(u64 start, u64 end, u32 gfp_mask, u32 stack, u32 task)
{
	u32 i;

	for (i = 0; i < RANGE_PAGES; i++) {
		if (start + i >= end)
			break;
		own_one_more(start + i, 0, gfp_mask, stack, task);
	}
	return 0;
}

/* The pages of a contiguous range: one block if it is compound, else single pages. */
GLOBAL int own_range(u64 start, u64 end, u32 gfp_mask, u32 stack, u32 task)
{
	u32 i, order;

	count(COUNT_CONTIG, 1);
	if (gfp_mask & comp_gfp) {
		for (order = 0; order < MAX_BLOCK; order++)
			if (start + (1ULL << (order & 31)) >= end)
				break;
		own_one_more(start, order, gfp_mask, stack, task);
		return 0;
	}
	if (contig_gfp)
		gfp_mask = contig_gfp;
	for (i = 0; i < RANGE_PAGES; i++) {
		if (start >= end)
			break;
		own_pages(start, end, gfp_mask, stack, task);
		start += RANGE_PAGES;
	}
	if (start < end)
		count(COUNT_BULK_MISSED, end - start);
	return 0;
}

/* The kernel's page owner has the time at which alloc_contig_range() makes pages of the free blocks
 * that it took; what it gives back of them, and the end of the isolation, take milliseconds more. */
INLINE void note_taken(void)
{
	u32 pid = bpf_get_current_pid_tgid();
	u64 ts = bpf_ktime_get_ns();

	bpf_map_update_elem(&taken, &pid, &ts, BPF_ANY);
}

/* isolate_freepages_range(control, start, end): the free blocks were taken, 0 if they were not */
HELD("fexit", on_contig_isolated, HOOK_CONTIG)
{
	if (argument(context, 3)) {
		count(COUNT_RAN_ISOLATED, 1);
		note_taken();
	}
}

/* undo_isolate_page_range(start, end): only where the one above cannot be seen */
HELD("fentry", on_contig_taken, HOOK_CONTIG)
{
	(void)context;
	count(COUNT_RAN_ISOLATED, 1);
	note_taken();
}

/* (The pages one by one may take long: between them it can be preempted, and keeps nothing of the
 * CPU's.) */
INLINE void took_range(void *context, u64 start, u64 end, u32 gfp_mask, u32 hook)
{
	u64 began = begin_timing();
	u32 task, stack;

	keep_cpu();
	task = task_id(hook);
	stack = stack_id(context, hook, 0);
	give_cpu();
	own_range(start, end, gfp_mask, stack, task);
	drop_task(task, 1);
	end_timing(hook, began);
}

/* The same, seen from the function around: what the hook inside has seen is there already, as this
 * task's; what it has not, the compiler may have put in here. */
INLINE void took_range_around(void *context, u64 start, u64 end, u32 gfp_mask)
{
	struct record *record = record_at(start);
	u32 word = record ? RECORD_WORD(record) : 0;

	if (!is_block(word) || (state_in(word) == STATE_OWNED && !is_mine(record)))
		took_range(context, start, end, gfp_mask, HOOK_CONTIG_AROUND);
}

INLINE void range_is_done(void)
{
	u32 pid = bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&taken, &pid);
}

/* alloc_contig_range(start, end, flags, gfp_mask): CMA, gigantic pages. From 7.0 on they call
 * alloc_contig_frozen_range(), with the same arguments, and so does alloc_contig_range(). */
SEC("fexit")
int on_contig(u64 *context)
{
	if (!(u32)argument(context, 4))
		took_range(context, argument(context, 0), argument(context, 1), argument(context, 3),
			   HOOK_CONTIG);
	range_is_done();
	return 0;
}

SEC("fexit")
int on_contig_around(u64 *context)
{
	if (!(u32)argument(context, 4)) {
		count(COUNT_RAN_CONTIG_AROUND, 1);
		took_range_around(context, argument(context, 0), argument(context, 1),
				  argument(context, 3));
	}
	range_is_done();
	return 0;
}

/* folio_migrate_flags(new, old), before 5.16 migrate_page_states */
HELD("fentry", on_migrate, HOOK_MIGRATE)
{
	u64 new = argument(context, 0), old = argument(context, 1);
	u32 pid = bpf_get_current_pid_tgid();
	u32 *reason = bpf_map_lookup_elem(&migrating, &pid);

	count(COUNT_RAN_MIGRATE, 1);
	move_owner(page_to_pfn(new), page_to_pfn(old), order_of(old), reason ? *reason : 0);
}

/* mm_migrate_pages_start(mode, reason) and mm_migrate_pages(...), in the task that migrates */
HELD("raw_tp/mm_migrate_pages_start", on_migrate_start, HOOK_MIGRATE)
{
	u32 pid = bpf_get_current_pid_tgid(), reason = (u32)context[1] + 1;

	count(COUNT_RAN_MIGRATE_START, 1);
	bpf_map_update_elem(&migrating, &pid, &reason, BPF_ANY);
}

HELD("raw_tp/mm_migrate_pages", on_migrate_end, HOOK_MIGRATE)
{
	u32 pid = bpf_get_current_pid_tgid();

	(void)context;
	count(COUNT_RAN_MIGRATE_END, 1);
	bpf_map_delete_elem(&migrating, &pid);
}

/* split_page(page, order): a block that is not compound becomes single pages */
HELD("fentry", on_split_page, HOOK_SPLIT)
{
	u64 pfn = page_to_pfn(argument(context, 0));
	u32 order = argument(context, 1);
	struct record *record = record_at(pfn);

	count(COUNT_RAN_SPLIT_PAGE, 1);
	/* Of free memory that was taken whole nothing is known yet: alloc_contig_range() tells at its
	 * end. To look for blocks in it, page by page, would only hold that up. */
	if (!record || (!is_block(RECORD_WORD(record)) && !isolate(pfn, order, 1)))
		return;
	split_range(pfn, order, 0, SPLIT_PAGE);
}

/* alloc_pages_exact(size, gfp_mask) and alloc_pages_exact_nid(nid, size, gfp_mask) make single pages
 * of the block that they take, and give back those behind the end. What they return is the pages'
 * address in the direct map; whether it is so is seen from the record. */
INLINE void split_exact(u64 size, u64 address, u32 splitter)
{
	u64 pfn = (address - direct_map) >> page_shift, pages = (size + (1ULL << page_shift) - 1) >>
		  page_shift;
	struct record *record;
	u32 word;

	if (!address || !pages || pages > 1ULL << MAX_BLOCK)
		return;
	record = record_at(pfn);
	if (!record)
		return;
	word = RECORD_WORD(record);
	if (is_block(word) && order_in(word) && 1ULL << (order_in(word) & 31) < 2 * pages)
		split_until(pfn, pfn + pages, 0, splitter);
}

/* make_alloc_exact(address, order, size), which both of them end with */
HELD("fexit", on_made_exact, HOOK_SPLIT)
{
	count(COUNT_RAN_EXACT, 1);
	split_exact(argument(context, 2), argument(context, 3), SPLIT_EXACT);
}

HELD("fexit", on_exact, HOOK_SPLIT)
{
	count(COUNT_RAN_EXACT, 1);
	split_exact(argument(context, 0), argument(context, 2), SPLIT_EXACT);
}

HELD("fexit", on_exact_nid, HOOK_SPLIT)
{
	count(COUNT_RAN_EXACT, 1);
	split_exact(argument(context, 1), argument(context, 3), SPLIT_EXACT_NID);
}

/* The functions that split a folio may fail, and free a part of it when they do not: note what
 * there was, and look at what is left at the end. */
HELD("fentry", on_split_enter, HOOK_SPLIT)
{
	u64 page = head_of(argument(context, 0));
	struct splitting splitting = {.pfn = page_to_pfn(page), .order = order_of(page)};
	u32 pid = bpf_get_current_pid_tgid();

	bpf_map_update_elem(&splits, &pid, &splitting, BPF_ANY);
}

HELD("fexit", on_split_exit, HOOK_SPLIT)
{
	u32 pid = bpf_get_current_pid_tgid(), to = 0, order;
	struct splitting *splitting = bpf_map_lookup_elem(&splits, &pid);
	u64 pfn, at;

	if (!splitting)
		return;
	pfn = splitting->pfn;
	order = splitting->order;
	bpf_map_delete_elem(&splits, &pid);
	if ((u32)argument(context, split_arguments))
		return;
	count(COUNT_RAN_SPLIT_FOLIO, 1);
	if (split_new_order != NOT_THERE)
		to = argument(context, split_new_order);
	if (split_at != NOT_THERE && split_uniform != NOT_THERE &&
	    (u8)argument(context, split_uniform) != split_uniform_value) {
		at = page_to_pfn(argument(context, split_at));
		count(COUNT_SPLITS, 1);
		isolate(at & ~((1ULL << (to & 31)) - 1), to, 1);
		return;
	}
	split_range(pfn, order, to, SPLIT_FOLIO);
}

#endif
