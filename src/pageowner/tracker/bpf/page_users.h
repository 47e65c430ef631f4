/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What both halves share of what tells who has a page now: the layout of the maps of
 * page_users.bpf.c. tracker/users/memory.py has the same as NumPy types; a test compares the two.
 */
#ifndef PAGEOWNER_PAGE_USERS_H
#define PAGEOWNER_PAGE_USERS_H

#include "records.h"

#define CHUNK_BYTES (1 << 18) /* what one run copies: 4,096 page structs of 64 bytes */
#define REQUESTS 4096
#define FILES 512
#define AREAS 1024
#define CACHES 1024
#define GROUPS 256
#define GROUP_DEPTH 16
#define PATH_ROOM 944
#define NAME_MAX 255
#define PATH_DEPTH 48         /* directories above a file; deeper ones are cut off */
#define NOT_KNOWN 0xffffffffU /* an offset of what this kernel does not have */

/* Bytes to copy from an address to a place in the chunk. */
struct request {
	u64 address;
	u32 at;
	u32 size;
	u32 failed; /* answer: it is not readable */
	u32 unused;
};

/* Where things are in this kernel's structures: offsets in bytes. */
struct layout {
	u32 page_size_of;    /* of a struct page */
	u32 page_mapping;
	u32 page_type;       /* with _mapcount */
	u32 page_refcount;
	u32 page_pool_magic;
	u32 page_pool;
	u32 slab_cache;      /* in the page struct of a slab */
	u32 order_byte;      /* from the page struct of a block's head on */
	u32 flag_head;       /* bits of page->flags */
	u32 flag_slab;       /* NOT_KNOWN where it is a type of pages (6.10) */
	u32 type_table;      /* enum pagetype, the highest byte of page_type (6.12) */
	u32 type_large_kmalloc;
	u32 type_zsmalloc;
	u32 area_size;       /* of a struct vmap_area */
	u32 area_start;
	u32 area_vm;
	u32 area_list;
	u32 has_stack_areas; /* CONFIG_VMAP_STACK */
	u32 page_memcg;      /* who is charged */
	u32 page_list;       /* lru, as a struct list_head */
	u32 table_deposit;   /* of a page table: those kept for its huge pages */
};

/* A file of this process, of which userspace knows the page frame: see anchors.py. */
struct anchor {
	u64 page;    /* what the root of the file's page cache holds */
	u64 mapping;
	u64 inode;
	u64 task;    /* this task's task_struct, which lies in the direct map */
	u64 pgd;     /* of this process */
};

enum file_state {
	FILE_FAILED = 1,    /* something was not readable: the mapping is no more */
	FILE_NOT_OWN = 2,   /* the inode has another mapping */
	FILE_NAMELESS = 4,  /* nothing in the dentry cache names it */
	FILE_CUT = 8,       /* the path is longer than its room: its beginning is missing */
	FILE_UNLINKED = 16, /* the name was removed, or it never had one */
	FILE_ROOTLESS = 32, /* in no directory: memfd, System V, shared mappings */
	FILE_CHANGED = 64,  /* renamed, or evicted, while it was read */
};

/* A file, of its struct address_space. */
struct file {
	u64 mapping;         /* question */
	u64 inode;
	u64 number;          /* i_ino */
	u64 mapper;          /* the mm_struct of a process that maps it, 0 if none does */
	u32 device;          /* as the kernel has it: 12 bits major, 20 bits minor */
	u32 own_device;      /* of a device file: which device it is */
	u32 links;
	u32 state;           /* enum file_state */
	u32 length;          /* of the path */
	u32 unused;
	char kind[16];       /* of file system */
	char path[PATH_ROOM];/* names, innermost first, each with a slash behind it */
	u64 spare;
};

/* A slab cache, of its struct kmem_cache. */
struct cache {
	u64 cache; /* question */
	u32 failed;
	u32 size;  /* from one object to the next */
	char name[48];
};

struct task_found {
	u32 pid;
	u32 tgid;
	u64 mm;
	u64 pgd;
	u64 stack;
	u64 area;  /* the vm_struct of its stack */
	u32 flags; /* PF_KTHREAD */
	u32 unused;
	char comm[COMM_LEN];
};

/* An area of vmalloc, of its struct vmap_area or vm_struct. */
struct area {
	u64 address; /* question: of a vmap_area, or with by_vm of a vm_struct */
	u64 start;
	u64 end;
	u64 vm;
	u64 caller;
	u64 pages;   /* of pointers to page structs */
	u64 flags;
	u32 count;   /* of pages */
	u32 state;   /* 0: is none; 1: is one */
};

/* A memory cgroup, of its struct mem_cgroup. */
struct group {
	u64 group; /* question */
	u64 id;
	u32 state; /* 0: is none, or was not readable; 1: online; 2: removed */
	u32 length;
	char path[496]; /* names, innermost first, each with a slash behind it */
};

/* What owns the pages of a page pool. */
struct pool {
	u64 pool; /* question */
	u32 failed;
	u32 id;
	char device[16];
};

#endif
