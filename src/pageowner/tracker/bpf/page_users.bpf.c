// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Who has a page now: what the kernel's own structures say of pages, files, slab caches, tasks,
 * areas of vmalloc. Userspace runs these programs when somebody asks (BPF_PROG_TEST_RUN); nothing is
 * attached or pinned, and all is gone when the object is closed.
 *
 * They are raw tracepoint programs because the kernel runs those under rcu_read_lock() then
 * (net/bpf/test_run.c, bpf_prog_test_run_raw_tp), which keeps tasks, inodes and dentries in place
 * while they are followed. What is not kept so (mappings, caches, areas) is read by functions that
 * stand a wrong address, is checked against what it should point back to, and by userspace a second
 * time. Nothing is written but the maps below.
 */
#include "bpf_abi.h"
#include "page_users.h"
#include "page_users_groups.bpf.h"
#include "page_users_types.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define OUTER(pointer, type, field) \
	((type *)((u64)(pointer) - core_field_offset(((type *)0)->field)))

/* ---- maps ---- */

struct chunk { char bytes[CHUNK_BYTES]; };
struct { SHARED_ARRAY(struct chunk, 1); } chunks SEC(".maps");
struct { SHARED_ARRAY(struct request, REQUESTS); } requests SEC(".maps");
struct { SHARED_ARRAY(struct file, FILES); } files SEC(".maps");
struct { SHARED_ARRAY(struct area, AREAS); } areas SEC(".maps");
struct { SHARED_ARRAY(struct cache, CACHES); } caches SEC(".maps");
struct { SHARED_ARRAY(struct pool, CACHES); } pools SEC(".maps");
struct { SHARED_ARRAY(struct task_found, 1); } tasks SEC(".maps"); /* made larger when loading */
struct { SHARED_ARRAY(struct layout, 1); } layouts SEC(".maps");
struct { SHARED_ARRAY(struct anchor, 1); } anchors SEC(".maps");

/* ---- copies of memory ---- */

static long copy_one(u32 i, void *unused)
{
	struct request *request = bpf_map_lookup_elem(&requests, &i);
	u32 zero = 0, at, size;
	struct chunk *chunk = bpf_map_lookup_elem(&chunks, &zero);

	(void)unused;
	if (!request || !chunk)
		return 1;
	at = request->at;
	size = request->size;
	if (at > CHUNK_BYTES || size > CHUNK_BYTES - at || size > CHUNK_BYTES / 2 ||
	    at > CHUNK_BYTES / 2)
		request->failed = 1;
	else
		request->failed = !!bpf_probe_read_kernel(chunk->bytes + at, size,
							  (void *)request->address);
	return 0;
}

/* Do the first context[0] requests. */
SEC("raw_tp")
int copy(u64 *context)
{
	return bpf_loop(context[0] > REQUESTS ? REQUESTS : context[0], copy_one, NULL, 0);
}

/* The page structs from address context[0] on, context[1] bytes; 1 if some are not there. */
SEC("raw_tp")
int copy_pages(u64 *context)
{
	u64 size = context[1];
	u32 zero = 0;
	struct chunk *chunk = bpf_map_lookup_elem(&chunks, &zero);

	if (!chunk || size > CHUNK_BYTES)
		return 1;
	return !!bpf_probe_read_kernel(chunk->bytes, size, (void *)context[0]);
}

/* ---- files ---- */

struct path {
	struct file *file;
	struct dentry *at;
	u32 first;
};

/* One more name of a path: 1 at its end. */
static long add_name(u32 i, void *context)
{
	struct path *path = context;
	struct file *file = path->file;
	struct dentry *dentry = path->at, *parent = NULL;
	const char *name = NULL;
	u32 length = 0, at;

	(void)i;
	if (!file)
		return 1;
	at = file->length;
	if (READ(parent, dentry, d_parent) || READ(name, dentry, d_name.name) ||
	    READ(length, dentry, d_name.len)) {
		file->state |= FILE_FAILED;
		return 1;
	}
	if (parent == dentry) {
		if (!path->first)
			return 1;
		file->state |= FILE_ROOTLESS;
	}
	if (at > PATH_ROOM - NAME_MAX - 1 || length > NAME_MAX) {
		file->state |= FILE_CUT;
		return 1;
	}
	if (bpf_probe_read_kernel(file->path + at, length, name)) {
		file->state |= FILE_FAILED;
		return 1;
	}
	at += length;
	if (at < PATH_ROOM)
		file->path[at] = '/';
	file->length = at + 1;
	path->first = 0;
	path->at = parent;
	return parent == dentry;
}

INLINE void name_file(struct file *file, struct inode *inode)
{
	struct path path = {.file = file, .first = 1};
	struct hlist_node *alias = NULL;
	struct hlist_bl_node **hashed = NULL;
	struct inode *named = NULL;

	if (READ(alias, inode, i_dentry.first)) {
		file->state |= FILE_FAILED;
		return;
	}
	if (!alias) {
		file->state |= FILE_NAMELESS;
		return;
	}
	if (core_field_exists(((struct dentry *)0)->d_u.d_alias))
		path.at = OUTER(alias, struct dentry, d_u.d_alias);
	else if (core_field_exists(((struct dentry___flat *)0)->d_alias))
		path.at = (void *)OUTER(alias, struct dentry___flat, d_alias);
	else
		return;
	if (READ(named, path.at, d_inode) || named != inode ||
	    READ(hashed, path.at, d_hash.pprev)) {
		file->state |= FILE_CHANGED;
		return;
	}
	if (!hashed)
		file->state |= FILE_UNLINKED;
	if (bpf_loop(PATH_DEPTH, add_name, &path, 0) == PATH_DEPTH && path.at)
		file->state |= FILE_CUT;
}

static long find_file(u32 i, void *unused)
{
	struct file *file = bpf_map_lookup_elem(&files, &i);
	struct address_space *mapping, *own = NULL;
	struct inode *inode = NULL;
	struct super_block *sb = NULL;
	struct file_system_type *type = NULL;
	struct rb_node *mapper = NULL;
	const char *kind = NULL;

	(void)unused;
	if (!file)
		return 1;
	mapping = (void *)file->mapping;
	file->state = file->length = 0;
	file->mapper = file->inode = 0;
	if (READ(inode, mapping, host) || !inode || READ(own, inode, i_mapping) ||
	    READ(sb, inode, i_sb) || READ(file->device, sb, s_dev) || READ(type, sb, s_type) ||
	    READ(kind, type, name) ||
	    bpf_probe_read_kernel_str(file->kind, sizeof(file->kind), kind) < 0) {
		file->state = FILE_FAILED;
		return 0;
	}
	file->inode = (u64)inode;
	if (own != mapping &&
	    (u64)inode + core_field_offset(((struct inode___data *)0)->i_data) != (u64)mapping)
		file->state |= FILE_NOT_OWN;
	file->number = 0;
	if (bpf_probe_read_kernel(&file->number, core_field_size(inode->i_ino) & 15,
				  &inode->i_ino) ||
	    READ(file->links, inode, i_nlink) || READ(file->own_device, inode, i_rdev) ||
	    READ(mapper, mapping, i_mmap.rb_root.rb_node))
		file->state |= FILE_FAILED;
	if (mapper)
		READ(file->mapper, OUTER(mapper, struct vm_area_struct, shared.rb), vm_mm);
	name_file(file, inode);
	return 0;
}

/* Answer the first context[0] of files. */
SEC("raw_tp")
int find_files(u64 *context)
{
	return bpf_loop(context[0] > FILES ? FILES : context[0], find_file, NULL, 0);
}

/* ---- slab caches, page pools ---- */

static long find_cache(u32 i, void *unused)
{
	struct cache *cache = bpf_map_lookup_elem(&caches, &i);
	struct kmem_cache *from;
	const char *name = NULL;

	(void)unused;
	if (!cache)
		return 1;
	from = (void *)cache->cache;
	cache->failed = READ(name, from, name) || READ(cache->size, from, size) ||
		bpf_probe_read_kernel_str(cache->name, sizeof(cache->name), name) < 0;
	return 0;
}

SEC("raw_tp")
int find_caches(u64 *context)
{
	return bpf_loop(context[0] > CACHES ? CACHES : context[0], find_cache, NULL, 0);
}

static long find_pool(u32 i, void *unused)
{
	struct pool *pool = bpf_map_lookup_elem(&pools, &i);
	struct page_pool___slow *from;
	struct net_device *device = NULL;

	(void)unused;
	if (!pool)
		return 1;
	from = (void *)pool->pool;
	pool->failed = 1;
	pool->id = 0;
	pool->device[0] = 0;
	if (!core_field_exists(from->slow.netdev))
		return 1;
	if (READ(device, from, slow.netdev))
		return 0;
	if (core_field_exists(((struct page_pool___id *)0)->user.id))
		READ(pool->id, (struct page_pool___id *)from, user.id);
	pool->failed = device ? !!READ(pool->device, device, name) : 0;
	return 0;
}

SEC("raw_tp")
int find_pools(u64 *context)
{
	return bpf_loop(context[0] > CACHES ? CACHES : context[0], find_pool, NULL, 0);
}

/* ---- tasks ---- */

struct walk {
	struct task_struct *first;  /* where the walk began */
	struct task_struct *leader;
	struct task_struct *task;
	u32 found;
	u32 failed;
};

static long find_task(u32 i, void *context)
{
	struct walk *walk = context;
	struct task_struct *task = walk->task;
	struct signal_struct *signal = NULL;
	struct list_head *next = NULL;
	struct mm_struct *mm = NULL;
	struct task_found *found;
	u32 at = walk->found;

	(void)i;
	found = bpf_map_lookup_elem(&tasks, &at);
	if (!found)
		return 1;
	if (READ(found->pid, task, pid) || READ(found->tgid, task, tgid) ||
	    READ(found->comm, task, comm) || READ(found->stack, task, stack) ||
	    READ(found->flags, task, flags) || READ(mm, task, mm)) {
		walk->failed = 1;
		return 1;
	}
	found->mm = (u64)mm;
	found->pgd = found->area = 0;
	if (mm)
		READ(found->pgd, mm, pgd);
	if (core_field_exists(((struct task_struct___area *)0)->stack_vm_area))
		READ(found->area, (struct task_struct___area *)task, stack_vm_area);
	walk->found++;
	/* the next thread of the process, or the next process */
	if (!READ(signal, walk->leader, signal) && signal && !READ(next, task, thread_node.next) &&
	    next && (u64)next != (u64)signal + core_field_offset(signal->thread_head)) {
		walk->task = OUTER(next, struct task_struct, thread_node);
		return 0;
	}
	if (READ(next, walk->leader, tasks.next) || !next) {
		walk->failed = 1;
		return 1;
	}
	walk->task = walk->leader = OUTER(next, struct task_struct, tasks);
	return walk->task == walk->first;
}

/* All tasks; how many there are, or -1 - so many if not all could be followed. */
SEC("raw_tp")
int find_tasks(u64 *context)
{
	struct task_struct *current = bpf_get_current_task_btf();
	struct walk walk = {};

	if (READ(walk.first, current, group_leader))
		return -1;
	walk.task = walk.leader = walk.first;
	bpf_loop(context[0] & 0x7fffff, find_task, &walk, 0);
	return walk.failed ? -1 - (int)walk.found : (int)walk.found;
}

/* ---- areas of vmalloc ---- */

static long find_area(u32 i, void *context)
{
	u32 by_vm = *(u32 *)context;
	struct area *area = bpf_map_lookup_elem(&areas, &i);
	struct list_head *next = NULL, *back = NULL, *mine;
	struct vmap_area *from;
	struct vm_struct *vm = NULL;
	unsigned long at = 0, size = 0;

	if (!area)
		return 1;
	from = (void *)area->address;
	area->state = 0;
	if (by_vm) {
		vm = (void *)area->address;
	} else {
		/* In its list: what follows it points back to it. */
		mine = &from->list;
		if (READ(next, from, list.next) || !next || READ(back, next, prev) || back != mine ||
		    READ(vm, from, vm) || !vm)
			return 0;
	}
	if (READ(at, vm, addr) || READ(size, vm, size) || READ(area->flags, vm, flags) ||
	    READ(area->pages, vm, pages) || READ(area->count, vm, nr_pages) ||
	    READ(area->caller, vm, caller))
		return 0;
	area->vm = (u64)vm;
	area->start = at;
	area->end = at + size;
	if (!by_vm && (READ(area->start, from, va_start) || READ(area->end, from, va_end) ||
		       area->start != at))
		return 0;
	area->state = 1;
	return 0;
}

/* Answer the first context[0] of areas; context[1]: the addresses are of vm_structs. */
SEC("raw_tp")
int find_areas(u64 *context)
{
	u32 by_vm = context[1];

	return bpf_loop(context[0] > AREAS ? AREAS : context[0], find_area, &by_vm, 0);
}

/* ---- where things are ---- */

SEC("raw_tp")
int find_anchor(u64 *context)
{
	struct task_struct *current = bpf_get_current_task_btf();
	struct file___kernel **all = NULL, *file = NULL;
	struct files_struct *files_of = NULL;
	struct fdtable *table = NULL;
	struct address_space *mapping = NULL;
	struct mm_struct *mm = NULL;
	struct anchor *anchor;
	u32 zero = 0;

	anchor = bpf_map_lookup_elem(&anchors, &zero);
	if (!anchor)
		return 1;
	anchor->task = (u64)current;
	if (READ(mm, current, mm) || READ(anchor->pgd, mm, pgd) ||
	    READ(files_of, current, files) || READ(table, files_of, fdt) || READ(all, table, fd) ||
	    bpf_probe_read_kernel(&file, sizeof(file), all + context[0]) ||
	    READ(mapping, file, f_mapping) || READ(anchor->inode, file, f_inode) ||
	    READ(anchor->page, mapping, i_pages.xa_head))
		return 1;
	anchor->mapping = (u64)mapping;
	return 0;
}

#define OFFSET(type, field) \
	(core_field_exists(((type *)0)->field) ? core_field_offset(((type *)0)->field) : NOT_KNOWN)
#define VALUE(type, value) \
	(core_enum_value_exists(type, value) ? core_enum_value(type, value) : NOT_KNOWN)

SEC("raw_tp")
int find_layout(u64 *context)
{
	u32 zero = 0, size = core_type_size(struct page);
	struct layout *layout = bpf_map_lookup_elem(&layouts, &zero);

	(void)context;
	if (!layout)
		return 1;
	layout->page_size_of = size;
	layout->page_mapping = OFFSET(struct page, mapping);
	layout->page_type = OFFSET(struct page, _mapcount);
	layout->page_refcount = OFFSET(struct page, _refcount);
	layout->page_pool_magic = OFFSET(struct page, pp_magic);
	layout->page_pool = OFFSET(struct page, pp);
	layout->slab_cache = core_field_exists(((struct slab *)0)->slab_cache)
		? core_field_offset(((struct slab *)0)->slab_cache)
		: OFFSET(struct page___slab, slab_cache);
	if (core_field_exists(((struct folio___order *)0)->_folio_order))
		layout->order_byte = core_field_offset(((struct folio___order *)0)->_folio_order);
	else if (core_field_exists(((struct folio___memdesc *)0)->_flags_1))
		layout->order_byte = core_field_offset(((struct folio___memdesc *)0)->_flags_1);
	else if (core_field_exists(((struct folio___flags *)0)->_flags_1))
		layout->order_byte = core_field_offset(((struct folio___flags *)0)->_flags_1);
	else if (core_field_exists(((struct page___order *)0)->compound_order))
		layout->order_byte =
			size + core_field_offset(((struct page___order *)0)->compound_order);
	else
		layout->order_byte = NOT_KNOWN;
	layout->flag_head = VALUE(enum pageflags, PG_head);
	layout->flag_slab = VALUE(enum pageflags___slab, PG_slab);
	layout->type_table = VALUE(enum pagetype, PGTY_table);
	layout->type_large_kmalloc = VALUE(enum pagetype, PGTY_large_kmalloc);
	layout->type_zsmalloc = VALUE(enum pagetype, PGTY_zsmalloc);
	layout->area_size = core_type_size(struct vmap_area);
	layout->area_start = OFFSET(struct vmap_area, va_start);
	layout->area_vm = OFFSET(struct vmap_area, vm);
	layout->area_list = OFFSET(struct vmap_area, list);
	layout->page_list = OFFSET(struct page___list, lru);
	layout->table_deposit = core_field_exists(((struct ptdesc *)0)->pmd_huge_pte)
		? core_field_offset(((struct ptdesc *)0)->pmd_huge_pte)
		: OFFSET(struct page___deposit, pmd_huge_pte);
	layout->page_memcg = OFFSET(struct page___memcg, memcg_data);
	layout->has_stack_areas =
		core_field_exists(((struct task_struct___area *)0)->stack_vm_area);
	return 0;
}
