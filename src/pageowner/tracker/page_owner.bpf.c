// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The in-kernel half of the tracker: for every page frame, who allocated it.
 *
 * Here is one short program for each hook; what they use is in shared.bpf.h (parameters, maps),
 * store.bpf.h, tasks.bpf.h and stacks.bpf.h (with memo.bpf.h). The rules are those of the kernel's own
 * mm/page_owner.c; tests/spec/page_owner_spec.py says them again in plain Python.
 *
 * A record stands at the first page of a block only. Splits that no hook sees are made good when
 * a part of the block is freed: what remains is divided as the buddy allocator would, so that the
 * pages owned are exact whichever hooks are there.
 */
#include "shared.bpf.h"
#include "stacks.bpf.h"
#include "store.bpf.h"
#include "tasks.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* ---- the events ---- */

INLINE int passes(u64 pfn, u32 order, u32 gfp_mask)
{
	if (user_gfp && (gfp_mask & user_gfp) == user_gfp)
		return 0;
	if (order < min_order)
		return 0;
	if (only_tgid && bpf_get_current_pid_tgid() >> 32 != only_tgid)
		return 0;
	if (only_cgroup && bpf_get_current_ancestor_cgroup_id(cgroup_level) != only_cgroup)
		return 0;
	if (sample > 1 && (hash_step(1, pfn) >> 33) % sample)
		return 0;
	return 1;
}

INLINE void allocated(void *context, u64 pfn, u32 order, u32 gfp_mask, u32 hook)
{
	u32 stack, task;

	if (!passes(pfn, order, gfp_mask)) {
		own_filtered(pfn, order, gfp_mask);
		return;
	}
	stack = stack_id(context, hook, (u64)order << 32 | gfp_mask);
	task = task_id(hook);
	if (order || !own_page(pfn, gfp_mask, stack, task))
		own(pfn, order, gfp_mask, stack, task);
}

INLINE void keep_free_side(void *context, u64 pfn, u32 hook)
{
	u64 span = pfn >> span_shift;
	u32 key = span, slot = pfn & ((1U << span_shift) - 1);
	struct freed *freed;
	void *inner;
	u32 task;

	if (span >= span_count)
		return;
	inner = bpf_map_lookup_elem(&freed_spans, &key);
	if (!inner) {
		key = spare_of(span);
		if (!key)
			return;
		inner = bpf_map_lookup_elem(&freed_spans, &key);
		if (!inner)
			return;
	}
	freed = bpf_map_lookup_elem(inner, &slot);
	if (!freed)
		return;
	task = task_id(hook);
	freed->ts = bpf_ktime_get_ns();
	freed->stack_id = stack_id(context, hook, 0);
	freed->task_id = task;
	drop_task(task, 1);
}

INLINE void was_freed(u64 pfn, u32 order)
{
	struct record *record = record_for(pfn);
	u32 word;

	if (!record) {
		count(COUNT_OUT_OF_RANGE, 1);
		return;
	}
	word = RECORD_WORD(record);
	if (is_block(word) && order_in(word) == order)
		forget(record);
	else
		free_part(pfn, order);
}

/* ---- hooks that every kernel has ---- */

/*
 * An interrupt may allocate or free while a program of ours is at work for what it interrupted. The
 * kernel does not run a program inside itself (before 6.1 it does, and begin() sees to it). So each
 * of these two tracepoints has a second program, attached after the first, for the events that the
 * first one was too busy for. That an event was dealt with is read from the store as well: before
 * begin() and after end() the kernel still holds the first program to be running.
 */
INLINE struct scratch *begin(u32 hook)
{
	struct scratch *scratch = scratch_of(hook);

	if (!scratch || (skip_frames[hook] & 0xff) == NOT_BEGUN)
		return NULL;
	if (scratch->busy) {
		if (hook < MEMO_HOOKS)
			count(COUNT_REENTERED, 1);
		return NULL;
	}
	*(volatile u32 *)&scratch->busy = 1;
	*(volatile u64 *)&scratch->seen = 0;
	barrier();
	return scratch;
}

INLINE void end(struct scratch *scratch, u64 page)
{
	barrier();
	*(volatile u64 *)&scratch->seen = page;
	*(volatile u32 *)&scratch->busy = 0;
}

/* Whether the first program has just dealt with this event, for the second one that follows it: the
 * short answer nearly always; where an interrupt came between the two, the store has the long one.
 * Once only: the next event of the same page is another. */
INLINE int was_seen(u32 hook, u64 page)
{
	struct scratch *scratch = scratch_of(hook);

	if (!scratch || *(volatile u64 *)&scratch->seen != page)
		return 0;
	*(volatile u64 *)&scratch->seen = 0;
	return 1;
}

INLINE int is_busy(u32 hook)
{
	struct scratch *scratch = scratch_of(hook);

	return scratch && *(volatile u32 *)&scratch->busy;
}

/* mm_page_alloc(page, order, gfp_flags, migratetype); page is NULL when nothing was found */
SEC("raw_tp/mm_page_alloc")
int on_alloc(u64 *context)
{
	struct scratch *scratch;

	if (!context[0])
		return 0;
	scratch = begin(HOOK_ALLOC);
	if (!scratch)
		return 0;
	count(COUNT_ALLOCS, 1);
	allocated(context, page_to_pfn(context[0]), context[1], context[2], HOOK_ALLOC);
	end(scratch, context[0]);
	return 0;
}

SEC("raw_tp/mm_page_alloc")
int on_nested_alloc(u64 *context)
{
	struct scratch *scratch;
	struct record *record;
	u64 pfn;
	u32 word;

	if (!context[0] || was_seen(HOOK_ALLOC, context[0]))
		return 0;
	pfn = page_to_pfn(context[0]);
	record = record_at(pfn);
	if (!record)
		return 0;
	word = RECORD_WORD(record);
	if (!is_busy(HOOK_ALLOC) && is_block(word) && order_in(word) == context[1] &&
	    record->gfp_mask == (u32)context[2])
		return 0;
	scratch = begin(HOOK_NESTED_ALLOC);
	if (!scratch)
		return 0;
	count(COUNT_NESTED_ALLOCS, 1);
	allocated(context, pfn, context[1], context[2], HOOK_NESTED_ALLOC);
	end(scratch, 0);
	return 0;
}

/* mm_page_free(page, order) */
SEC("raw_tp/mm_page_free")
int on_free(u64 *context)
{
	u64 pfn = page_to_pfn(context[0]);
	struct scratch *scratch = begin(HOOK_FREE);

	if (!scratch)
		return 0;
	count(COUNT_FREES, 1);
	was_freed(pfn, context[1]);
	if (free_side)
		keep_free_side(context, pfn, HOOK_FREE);
	end(scratch, context[0]);
	return 0;
}

SEC("raw_tp/mm_page_free")
int on_nested_free(u64 *context)
{
	u64 pfn = page_to_pfn(context[0]);
	struct scratch *scratch;
	struct record *record;

	if (was_seen(HOOK_FREE, context[0]))
		return 0;
	record = record_at(pfn);
	if (!record || (!RECORD_WORD(record) && !is_busy(HOOK_FREE)))
		return 0;
	scratch = begin(HOOK_NESTED_FREE);
	if (!scratch)
		return 0;
	count(COUNT_NESTED_FREES, 1);
	was_freed(pfn, context[1]);
	if (free_side)
		keep_free_side(context, pfn, HOOK_NESTED_FREE);
	end(scratch, 0);
	return 0;
}

/* mm_page_alloc_extfrag(page, alloc_order, fallback_order, alloc_migratetype,
 * fallback_migratetype) */
SEC("raw_tp/mm_page_alloc_extfrag")
int on_extfrag(u64 *context)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct extfrag_key key = {
		.stack_id = stack_id(context, HOOK_EXTFRAG, 0),
		.tgid = pid_tgid >> 32,
		.pid = pid_tgid,
		.alloc_order = context[1],
		.fallback_order = context[2],
		.alloc_migratetype = context[3],
		.fallback_migratetype = context[4],
	};
	struct extfrag first = {.count = 1, .last_ts = bpf_ktime_get_ns()}, *known;

	bpf_get_current_comm(key.comm, COMM_LEN);
	count(COUNT_EXTFRAG, 1);
	known = bpf_map_lookup_elem(&extfrag, &key);
	if (known) {
		__sync_fetch_and_add(&known->count, 1);
		known->last_ts = first.last_ts;
	} else if (bpf_map_update_elem(&extfrag, &key, &first, BPF_NOEXIST)) {
		count(COUNT_EXTFRAG_FULL, 1);
	}
	return 0;
}

/* ---- hooks that a kernel may lack or refuse ---- */

/* An argument of a traced function, or after the last its result: read as plain memory, since the
 * verifier of older kernels refuses pointers to pointers and arithmetic on typed ones. */
INLINE u64 argument(u64 *context, u32 n)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), context + n);
	return value;
}

INLINE u64 head_of(u64 page)
{
	u64 head = 0;

	if (core_field_exists(((struct page___head *)0)->compound_head))
		bpf_probe_read_kernel(&head, sizeof(head), (void *)(page +
			core_field_offset(((struct page___head *)0)->compound_head)));
	return head & 1 ? head - 1 : page;
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

	if (record && RECORD_WORD(record))
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
SEC("fexit")
int on_bulk(u64 *context)
{
	u64 array = argument(context, bulk_array), n = argument(context, bulk_array + 1);
	u32 gfp_mask = argument(context, 0), i, stack, task;

	if (!array || !n)
		return 0;
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
	return 0;
}

INLINE u64 *taken_at(void)
{
	u32 pid = bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&taken, &pid);
}

/* (A function of its own: in a loop the verifier would follow each filter of passes() each time.) */
GLOBAL int own_one_more(u64 pfn, u32 order, u32 gfp_mask, u32 stack, u32 task)
{
	struct record *record;
	u64 *ts;

	if (!passes(pfn, order, gfp_mask))
		return own_filtered(pfn, order, gfp_mask);
	hold_more(task, 1);
	own(pfn, order, gfp_mask, stack, task);
	ts = taken_at();
	record = ts ? record_at(pfn) : NULL;
	if (record)
		record->ts = *ts;
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

/* undo_isolate_page_range(start, end): what alloc_contig_range() does once the pages are its own.
 * It takes milliseconds, and the kernel's page owner has the time from before. */
SEC("fentry")
int on_contig_taken(u64 *context)
{
	u32 pid = bpf_get_current_pid_tgid();
	u64 ts = bpf_ktime_get_ns();

	(void)context;
	bpf_map_update_elem(&taken, &pid, &ts, BPF_ANY);
	return 0;
}

/* alloc_contig_range(start, end, flags, gfp_mask): CMA, gigantic pages */
SEC("fexit")
int on_contig(u64 *context)
{
	u32 task, pid = bpf_get_current_pid_tgid();

	if ((u32)argument(context, 4)) {
		bpf_map_delete_elem(&taken, &pid);
		return 0;
	}
	task = task_id(HOOK_CONTIG);
	own_range(argument(context, 0), argument(context, 1), argument(context, 3),
		  stack_id(context, HOOK_CONTIG, 0), task);
	bpf_map_delete_elem(&taken, &pid);
	drop_task(task, 1);
	return 0;
}

/* folio_migrate_flags(new, old), before 5.16 migrate_page_states */
SEC("fentry")
int on_migrate(u64 *context)
{
	u64 new = argument(context, 0), old = argument(context, 1);
	u32 pid = bpf_get_current_pid_tgid();
	u32 *reason = bpf_map_lookup_elem(&migrating, &pid);

	move_owner(page_to_pfn(new), page_to_pfn(old), order_of(old), reason ? *reason : 0);
	return 0;
}

/* mm_migrate_pages_start(mode, reason) and mm_migrate_pages(...), in the task that migrates */
SEC("raw_tp/mm_migrate_pages_start")
int on_migrate_start(u64 *context)
{
	u32 pid = bpf_get_current_pid_tgid(), reason = (u32)context[1] + 1;

	bpf_map_update_elem(&migrating, &pid, &reason, BPF_ANY);
	return 0;
}

SEC("raw_tp/mm_migrate_pages")
int on_migrate_end(u64 *context)
{
	u32 pid = bpf_get_current_pid_tgid();

	(void)context;
	bpf_map_delete_elem(&migrating, &pid);
	return 0;
}

/* split_page(page, order): a block that is not compound becomes single pages */
SEC("fentry")
int on_split_page(u64 *context)
{
	u64 pfn = page_to_pfn(argument(context, 0));
	u32 order = argument(context, 1);
	struct record *record = record_at(pfn);

	/* Of free memory that was taken whole nothing is known yet: alloc_contig_range() tells at its
	 * end. To look for blocks in it, page by page, would only hold that up. */
	if (!record || (!is_block(RECORD_WORD(record)) && !isolate(pfn, order, 1)))
		return 0;
	split_range(pfn, order, 0, SPLIT_PAGE);
	return 0;
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

SEC("fexit")
int on_exact(u64 *context)
{
	split_exact(argument(context, 0), argument(context, 2), SPLIT_EXACT);
	return 0;
}

SEC("fexit")
int on_exact_nid(u64 *context)
{
	split_exact(argument(context, 1), argument(context, 3), SPLIT_EXACT_NID);
	return 0;
}

/* The functions that split a folio may fail, and free a part of it when they do not: note what
 * there was, and look at what is left at the end. */
SEC("fentry")
int on_split_enter(u64 *context)
{
	u64 page = head_of(argument(context, 0));
	struct splitting splitting = {.pfn = page_to_pfn(page), .order = order_of(page)};
	u32 pid = bpf_get_current_pid_tgid();

	bpf_map_update_elem(&splits, &pid, &splitting, BPF_ANY);
	return 0;
}

SEC("fexit")
int on_split_exit(u64 *context)
{
	u32 pid = bpf_get_current_pid_tgid(), to = 0, order;
	struct splitting *splitting = bpf_map_lookup_elem(&splits, &pid);
	u64 pfn, at;

	if (!splitting)
		return 0;
	pfn = splitting->pfn;
	order = splitting->order;
	bpf_map_delete_elem(&splits, &pid);
	if ((u32)argument(context, split_arguments))
		return 0;
	if (split_new_order != NOT_THERE)
		to = argument(context, split_new_order);
	if (split_at != NOT_THERE && split_uniform != NOT_THERE &&
	    (u8)argument(context, split_uniform) != split_uniform_value) {
		at = page_to_pfn(argument(context, split_at));
		count(COUNT_SPLITS, 1);
		isolate(at & ~((1ULL << (to & 31)) - 1), to, 1);
		return 0;
	}
	split_range(pfn, order, to, SPLIT_FOLIO);
	return 0;
}

/* ---- run from userspace ---- */

/* Of the early pages at context[0] .. + 511, forget those whose bit in the next 8 words is set:
 * they were free when tracking had begun. An event that came meanwhile wins. */
SEC("raw_tp")
int settle(u64 *context)
{
	u64 pfn = context[0], bits = 0;
	struct record *record;
	u32 i, early = record_word(0, STATE_EARLY, 0, 0);

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
			if (record)
				__sync_val_compare_and_swap((u32 *)&record->order, early, 0);
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
		task = task_id(HOOK_CONTIG);
		own_range(context[1], context[2], context[3], stack_id(context, HOOK_CONTIG, 0), task);
		drop_task(task, 1);
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

/* What the raw tracepoint says of the allocations of one thread; the classic one tells their
 * pfns, and so where struct pages are and which frames of a stack are the tracing's. */
SEC("raw_tp/mm_page_alloc")
int calibrate(u64 *context)
{
	u32 at = sighted;
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
	size = bpf_get_stack(context, sighting->frames, sizeof(sighting->frames), 0);
	sighting->n = size > 0 ? size / sizeof(u64) : 0;
	sighted = at + 1;
	return 0;
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
