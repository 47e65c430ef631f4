/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The little of BPF's interface that page_owner.bpf.c uses, so that a build needs no kernel or
 * libbpf headers. The numbers are kernel ABI (include/uapi/linux/bpf.h, __BPF_FUNC_MAPPER).
 */
#ifndef PAGEOWNER_BPF_ABI_H
#define PAGEOWNER_BPF_ABI_H

#include "records.h"

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define GLOBAL __attribute__((noinline))
#define APART static __attribute__((noinline)) /* for its stack: looked at by the verifier in place */
#define NULL ((void *)0)

/* Maps are declared as libbpf reads them: from the types of the members of a struct. */
#define FIELD_NUMBER(name, value) int (*name)[value]
#define FIELD_TYPE(name, type) __typeof__(type) *name

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_F_MMAPABLE = 1 << 10,
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value,
					 u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*const bpf_get_current_comm)(void *buffer, u32 size) = (void *)16;
static long (*const bpf_get_stack)(void *context, void *buffer, u32 size, u64 flags) = (void *)67;
static u64 (*const bpf_get_current_cgroup_id)(void) = (void *)80;
static long (*const bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*const bpf_probe_read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static u64 (*const bpf_get_current_ancestor_cgroup_id)(int level) = (void *)123;
static long (*const bpf_get_func_arg)(void *context, u32 n, u64 *value) = (void *)183; /* 5.17 */

/* Functions of the kernel that programs may call where it has them (kernel/bpf/helpers.c: 6.10, and
 * from 6.14 on the latter two). */
#define KERNEL_FUNCTION __attribute__((weak, section(".ksyms")))
extern void bpf_preempt_disable(void) KERNEL_FUNCTION;
extern void bpf_preempt_enable(void) KERNEL_FUNCTION;
extern void bpf_local_irq_save(unsigned long *flags) KERNEL_FUNCTION;
extern void bpf_local_irq_restore(unsigned long *flags) KERNEL_FUNCTION;

/* CO-RE: questions that libbpf answers from the running kernel's BTF when it loads the object
 * (the second argument is an enum of clang's and libbpf's, bpf_type_info_kind and so on). */
#define core_type_size(type) __builtin_preserve_type_info(*(__typeof__(type) *)0, 1)
#define core_type_id(type) __builtin_btf_type_id(*(__typeof__(type) *)0, 1)
#define core_enum_value(type, value) \
	__builtin_preserve_enum_value(*(__typeof__(type) *)value, 1)
#define core_enum_value_exists(type, value) \
	__builtin_preserve_enum_value(*(__typeof__(type) *)value, 0)
#define core_field_size(field) __builtin_preserve_field_info(field, 1)
#define core_field_exists(field) __builtin_preserve_field_info(field, 2)
#define core_field_offset(field) __builtin_preserve_field_info(field, 0)
#define CORE __attribute__((preserve_access_index))

#define barrier() asm volatile("" ::: "memory")

#endif
