/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The kernel's structures that page_users.bpf.c follows: of each only the fields that are read, at
 * the places that libbpf finds in the kernel's BTF. A name behind ___ is another form of the same
 * structure, in other versions or configurations.
 */
#ifndef PAGEOWNER_PAGE_USERS_TYPES_BPF_H
#define PAGEOWNER_PAGE_USERS_TYPES_BPF_H

#include "bpf_abi.h"

#define READ(to, from, field) bpf_probe_read_kernel(&(to), sizeof(to), &(from)->field)

#define SHARED_ARRAY(type_of_value, entries) \
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY); \
	FIELD_NUMBER(map_flags, BPF_F_MMAPABLE); \
	FIELD_TYPE(key, u32); \
	FIELD_TYPE(value, type_of_value); \
	FIELD_NUMBER(max_entries, entries)

struct list_head { struct list_head *next, *prev; } CORE;
struct hlist_node { struct hlist_node *next, **pprev; } CORE;
struct hlist_head { struct hlist_node *first; } CORE;
struct hlist_bl_node { struct hlist_bl_node *next, **pprev; } CORE;
struct rb_node { unsigned long __rb_parent_color; } CORE;
struct rb_root { struct rb_node *rb_node; } CORE;
struct rb_root_cached { struct rb_root rb_root; } CORE;
struct xarray { void *xa_head; } CORE;

struct page {
	void *mapping;
	unsigned long pp_magic; /* 5.14 */
	void *pp;
	struct { int counter; } _refcount;
	struct { int counter; } _mapcount;
} CORE;
struct page___memcg { unsigned long memcg_data; } CORE; /* CONFIG_MEMCG */
struct page___list { struct list_head lru; } CORE;
struct page___deposit { void *pmd_huge_pte; } CORE; /* before 6.6 */
struct ptdesc { void *pmd_huge_pte; } CORE;
struct page___slab { void *slab_cache; } CORE; /* before 5.17 */
struct slab { void *slab_cache; } CORE;
struct folio___flags { unsigned long _flags_1; } CORE;
struct folio___memdesc { struct { unsigned long f; } _flags_1; } CORE; /* 6.18 */
struct folio___order { unsigned char _folio_order; } CORE;
struct page___order { unsigned char compound_order; } CORE;
enum pageflags { PG_head = 6 };
enum pageflags___slab { PG_slab = 9 };
enum pagetype { PGTY_table = 0xf2, PGTY_large_kmalloc = 0xf8, PGTY_zsmalloc = 0xf6 };

struct mm_struct { void *pgd; } CORE;
struct vm_area_struct {
	struct mm_struct *vm_mm;
	struct { struct rb_node rb; } shared;
} CORE;
struct file_system_type { const char *name; } CORE;
struct super_block {
	u32 s_dev;
	struct file_system_type *s_type;
} CORE;
struct inode {
	struct super_block *i_sb;
	struct address_space *i_mapping;
	unsigned long i_ino;
	unsigned int i_nlink;
	u32 i_rdev;
	struct hlist_head i_dentry;
} CORE;
struct inode___data { struct xarray i_data; } CORE; /* for its place alone */
struct address_space {
	struct inode *host;
	struct xarray i_pages;
	struct rb_root_cached i_mmap;
} CORE;
struct qstr { u32 len; const char *name; } CORE;
struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct { struct hlist_node d_alias; } d_u;
} CORE;
struct dentry___flat { struct hlist_node d_alias; } CORE;

struct kmem_cache {
	const char *name;
	unsigned int size;
} CORE;

struct vm_struct {
	void *addr;
	unsigned long size;
	unsigned long flags;
	void *pages;
	unsigned int nr_pages;
	const void *caller;
} CORE;
struct vmap_area {
	unsigned long va_start;
	unsigned long va_end;
	struct list_head list;
	struct vm_struct *vm;
} CORE;

struct file___kernel {
	struct inode *f_inode;
	struct address_space *f_mapping;
} CORE;
struct fdtable { unsigned int max_fds; struct file___kernel **fd; } CORE;
struct files_struct { struct fdtable *fdt; } CORE;
struct signal_struct { struct list_head thread_head; } CORE;
struct task_struct {
	void *stack;
	unsigned int flags;
	int pid;
	int tgid;
	char comm[COMM_LEN];
	struct list_head tasks;
	struct list_head thread_node;
	struct task_struct *group_leader;
	struct signal_struct *signal;
	struct mm_struct *mm;
	struct files_struct *files;
} CORE;
struct task_struct___area { struct vm_struct *stack_vm_area; } CORE;

struct cgroup_subsys { const char *name; } CORE;
struct kernfs_node {
	const char *name;
	u64 id;
} CORE;
struct kernfs_node___parent { struct kernfs_node *parent; } CORE;
struct kernfs_node___rcu { struct kernfs_node *__parent; } CORE; /* 6.15 */
struct cgroup { struct kernfs_node *kn; } CORE;
struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys *ss;
	unsigned int flags;
} CORE;
struct mem_cgroup { struct cgroup_subsys_state css; } CORE;
#define CSS_ONLINE (1 << 1)

struct net_device { char name[16]; } CORE;
struct page_pool___slow {
	struct { struct net_device *netdev; } slow; /* 6.8 */
} CORE;
struct page_pool___id { struct { u32 id; } user; } CORE; /* 6.8 */

static long (*const bpf_loop)(u32 times, void *function, void *context, u64 flags) =
	(void *)181; /* 5.17 */
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158; /* 5.11 */

#endif
