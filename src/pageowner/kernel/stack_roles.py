"""Frames that say how memory was taken, or how the CPU came there, but not what the memory is for.

Patterns are as in `pageowner.kernel.subsystems`. All of them are functions of the kernel proper,
except those of `LIBRARIES` in `LIBRARY_MODULES`: a function of a module that has one of these names
is the module's own.
"""

from __future__ import annotations

import re

__all__ = ["ALLOCATORS", "ALLOCATOR_NAMES", "COMPANIONS", "DENTRIES", "ENTRY", "GENERIC",
           "INODE_DATA", "INTERRUPTS", "LIBRARIES", "LIBRARY_MODULES", "SLAB_GROWTH", "THROUGH",
           "is_address", "is_built_in"]

ALLOCATORS: dict[str, str] = {
    # mm/page_alloc.c, mm/mempolicy.c, and the hooks that see an allocation
    "pages": """
        post_alloc_hook prep_new_page prep_new_pages get_page_from_freelist __alloc_pages
        __alloc_pages_* __alloc_frozen_pages alloc_frozen_pages
        alloc_frozen_pages_* alloc_pages alloc_pages_*
        alloc_page_* alloc_page ___alloc_pages_bulk __alloc_pages_bulk get_free_pages
        __get_free_pages get_zeroed_page folio_alloc folio_alloc_* __folio_alloc __folio_alloc_*
        vma_alloc_folio vma_alloc_zeroed_movable_folio __page_cache_alloc rmqueue* try_alloc_pages
        new_page_nodemask make_alloc_exact __set_page_owner set_page_owner save_stack
        save_stack_trace stack_trace_save alloc_contig_* __alloc_contig_* isolate_freepages_range
        isolate_freepages_block split_free_page split_free_pages split_map_pages
        bpf_trace_run* __bpf_trace_* __traceiter_* trace_event_raw_event_* perf_trace_*
        bpf_prog_????????????????_* page_frag_alloc page_frag_alloc_align __page_frag_alloc_align
        __page_frag_cache_refill page_frag_refill""",
    # mm/cma.c: pages of an area that was set aside at boot
    "cma": "cma_alloc cma_alloc_* __cma_alloc __cma_alloc_* cma_range_alloc",
    # mm/slub.c: kmalloc of more than two pages takes pages, not slabs
    "large": """
        ___kmalloc_large_node __kmalloc_large_node __kmalloc_large_node_track_caller
        kmalloc_large kmalloc_large_node kmalloc_order kmalloc_order_trace
        __kmalloc_large_noprof""",
    # mm/slub.c, mm/slab.c and mm/slob.c (both until 6.x), mm/slab_common.c, mm/util.c
    "slab": """
        alloc_slab_page allocate_slab new_slab new_slab_objects ___slab_alloc __slab_alloc
        __slab_alloc_node slab_alloc_node slab_alloc slob_new_pages slob_alloc slob_alloc_node
        cache_grow cache_grow_begin cache_alloc_refill kmem_getpages fallback_alloc
        ____cache_alloc_node __kmem_cache_alloc_node refill_objects refill_sheaf
        __refill_objects_node ___pcs_* __pcs_* alloc_full_sheaf alloc_empty_sheaf
        __alloc_empty_sheaf __prefill_sheaf_pfmemalloc kmem_cache_prefill_sheaf
        kmem_cache_refill_sheaf kmalloc_nolock kmem_cache_alloc kmem_cache_alloc_*
        __kmem_cache_alloc_bulk __kmalloc __kmalloc_* kmalloc kmalloc_node kmalloc_trace
        kmalloc_node_trace kmalloc_array kcalloc kmalloc_*_trace __do_kmalloc_node
        __do_krealloc slab_post_alloc_hook early_kmem_cache_node_alloc""",
    # mm/vmalloc.c, mm/execmem.c
    "vmalloc": """
        __vmalloc_node_range __vmalloc_area_node vm_area_alloc_pages __vmalloc_node __vmalloc
        vmalloc vmalloc_* __vmalloc_* vzalloc vzalloc_node module_alloc execmem_alloc
        execmem_alloc_rw __execmem_cache_alloc execmem_vmalloc execmem_cache_alloc
        execmem_cache_populate""",
    # mm/percpu.c, mm/percpu-vm.c
    "percpu": """
        pcpu_alloc_pages pcpu_populate_chunk pcpu_create_chunk pcpu_alloc __alloc_percpu
        __alloc_percpu_gfp pcpu_mem_zalloc pcpu_alloc_chunk pcpu_balance_workfn
        pcpu_balance_populated""",
}
"""Frames that say how memory was taken, by way of allocation."""

ALLOCATOR_NAMES = {"pages": "pages", "cma": "CMA", "large": "large kmalloc", "slab": "slab",
                   "vmalloc": "vmalloc", "percpu": "percpu"}
"""What ``--by allocator`` calls the ways of `ALLOCATORS`."""

SLAB_GROWTH = frozenset({"allocate_slab", "new_slab", "alloc_slab_obj_exts",
                         "memcg_alloc_slab_cgroups", "memcg_alloc_page_obj_cgroups"})
"""Where a slab is made, and its books (mm/slub.c, mm/memcontrol.c): to whom each of its objects is
charged. An object that is allocated within is of the books, not what the slab is for."""

DENTRIES = frozenset({"__d_alloc"})
"""Where every dentry is allocated (fs/dcache.c)."""

COMPANIONS = DENTRIES | {
    "alloc_empty_file", "alloc_empty_file_noaccount", "alloc_empty_backing_file",  # fs/file_table.c
    "alloc_inode",  # fs/inode.c
    "security_file_alloc", "lsm_file_alloc", "security_inode_alloc", "lsm_inode_alloc",
}
"""What comes with an open file of every kind: its ``struct file``, dentry and inode, and what
security modules keep of these (security/security.c)."""

INODE_DATA = frozenset({"security_inode_alloc", "lsm_inode_alloc"})
"""What security modules keep of an inode, from its allocation on (fs/inode.c, inode_init_always):
the kernel takes it back with the inode, though its cache does not say so."""

LIBRARIES = """
    kvmalloc_node kvmalloc __kvmalloc_node kvrealloc krealloc krealloc_* kvmemdup kmemdup
    kmemdup_* kstrdup kstrdup_const kstrndup kasprintf kvasprintf kvasprintf_const
    memdup_user memdup_user_nul vmemdup_user strndup_user kcalloc_node kvcalloc
    devm_kmalloc devm_kmemdup devm_kstrdup devm_kvasprintf devm_kasprintf __devres_alloc_node
    __devm_add_action mempool_* remove_element alloc_pages_exact alloc_pages_exact_nid
    xas_* __xas_* xa_* __xa_* radix_tree_* __radix_tree_* idr_* ida_* mas_* mtree_* __mt_dup mt_*
    sg_alloc_table* sg_kmalloc __sg_alloc_table bucket_table_alloc rhashtable_* __rhashtable_*
    rhltable_init __list_lru_init list_lru_* memcg_list_lru_alloc __memcg_list_lru_alloc
    iov_iter_* __iov_iter_* want_pages_array bitmap_zalloc* bitmap_alloc* kfifo_alloc
    __kfifo_alloc genradix_* __genradix_* seq_open __seq_open_private seq_open_private
    single_open single_open_size seq_read seq_read_iter seq_buf_alloc
    zs_malloc zs_create_pool alloc_zspage zpool_malloc zpool_create_pool
    z3fold_alloc z3fold_zpool_malloc zbud_alloc zbud_zpool_malloc
    lzo_alloc_* zstd_alloc_* zlib_alloc_* deflate_* ttm_* drm_gem_*"""
"""Containers, copies and compressors: never the reason for an allocation, so passed over like an
allocator. Memory that drm_gem_* and ttm_* take (drivers/gpu/drm/) is that of the GPU's driver."""

LIBRARY_MODULES = """
    zsmalloc z3fold zbud lzo lzo_rle lz4 lz4hc zstd deflate 842 drm drm_* ttm"""
"""Modules whose functions `LIBRARIES` may name."""

THROUGH = """
    shmem_read_folio_gfp shmem_read_folio shmem_read_mapping_page_gfp shmem_read_mapping_page
    drm_gem_get_pages"""
"""Where a driver takes memory through a file of tmpfs that no program sees (mm/shmem.c;
drivers/gpu/drm/drm_gem.c): what is further in does not say what it is for."""

GENERIC = """
    __handle_mm_fault handle_mm_fault handle_pte_fault do_pte_missing __do_fault do_fault
    faultin_page __get_user_pages __get_user_pages_locked __gup_longterm_locked get_user_pages
    get_user_pages_* internal_get_user_pages_fast gup_fast_fallback pin_user_pages*
    iov_iter_extract_pages fault_in_* vfs_write vfs_read vfs_writev vfs_readv do_iter_write
    do_iter_readv_writev do_writev do_readv ksys_* new_sync_write new_sync_read __vfs_write
    __vfs_read vfs_iter_* do_loop_readv_writev call_write_iter vfs_ioctl vfs_open do_dentry_open
    do_filp_open path_openat do_sys_open do_sys_openat2 do_open link_path_walk walk_component
    __lookup_slow lookup_slow path_lookupat path_parentat filename_* vfs_mknod vfs_create
    vfs_mkdir sock_sendmsg sock_sendmsg_nosec __sock_sendmsg ____sys_sendmsg ___sys_sendmsg
    __sys_sendmsg __sys_sendto __sys_sendmmsg sock_write_iter kernel_sendmsg sock_recvmsg
    kernel_clone _do_fork do_fork process_one_work process_scheduled_works worker_thread
    do_one_initcall do_initcalls kernel_init_freeable kernel_init start_kernel rest_init
    vfs_statx vfs_fstatat do_mmap vm_mmap_pgoff x64_sys_call invoke_syscall*
    handle_irq_event handle_irq_event_percpu __handle_irq_event_percpu handle_fasteoi_irq
    handle_edge_irq handle_level_irq handle_percpu_devid_irq generic_handle_irq
    generic_handle_irq_desc generic_handle_domain_irq handle_domain_irq __handle_domain_irq
    handle_irq_desc tasklet_action tasklet_action_common"""
"""Frames that so many stacks share that they tell little."""

_X86_INTERRUPTS = """
    asm_* exc_* sysvec_* common_interrupt __common_interrupt page_fault do_page_fault
    __do_page_fault do_user_addr_fault async_page_fault ret_from_intr apic_timer_interrupt
    smp_apic_timer_interrupt call_function_interrupt call_function_single_interrupt
    reschedule_interrupt irq_work_interrupt xen_hvm_callback_vector hyperv_callback_vector
    xen_do_hypervisor_callback error_entry end_repeat_nmi"""
# arch/x86/entry/entry_64.S until 5.7; then arch/x86/include/asm/idtentry.h

_ARM_INTERRUPTS = """
    el0_da el0_ia el1_da el1_ia el1_abort el1_irq el0_irq el0_irq_naked el1_sync el1h_64_*
    el1t_64_* el0t_64_irq el0t_32_irq el1_interrupt el0_interrupt __el1_irq
    do_interrupt_handler do_translation_fault do_mem_abort gic_handle_irq
    __irq_svc __irq_usr __dabt_svc __dabt_usr __pabt_svc __pabt_usr __und_svc __und_usr
    do_DataAbort do_PrefetchAbort asm_do_IRQ handle_IRQ generic_handle_arch_irq"""
# arch/arm64/kernel/entry.S: el1_irq and its kin until 5.13, then entry-common.c;
# arch/arm/kernel/entry-armv.S; drivers/irqchip/irq-gic*.c is what both call

_OTHER_INTERRUPTS = """
    do_IRQ do_irq __do_irq __do_IRQ call_do_irq
    ret_from_exception handle_exception handle_riscv_irq riscv_intc_irq riscv_intc_aia_irq
    plic_handle_irq handle_page_fault
    handle_int rollback_handle_int plat_irq_dispatch except_vec_vi* handle_tlbl handle_tlbs
    handle_tlbm tlb_do_page_fault_* do_vint handle_loongarch_irq
    hardware_interrupt_common* decrementer_common* doorbell_super_common* h_doorbell_common*
    h_virt_irq_common* performance_monitor_common* data_access_common* data_access_slb_common*
    instruction_access_common* replay_soft_interrupts* __replay_soft_interrupts do_hash_fault
    hash__do_page_fault ___do_page_fault
    io_int_handler ext_int_handler mcck_int_handler pgm_check_handler __do_pgm_check do_io_irq
    do_ext_irq do_dat_exception do_protection_exception"""
# arch/riscv/kernel/entry.S and traps.c; arch/mips/kernel/genex.S and mm/tlbex-fault.S;
# arch/loongarch/kernel/traps.c; arch/powerpc/kernel/exceptions-64s.S and irq.c, with _virt, _real
# where relocation is on; arch/s390/kernel/entry.S, irq.c and traps.c

INTERRUPTS = f"{_X86_INTERRUPTS} {_ARM_INTERRUPTS} {_OTHER_INTERRUPTS}"
"""Where the CPU left what it was doing for a fault or an interrupt: frames further out belong to
what was interrupted and explain nothing."""

ENTRY = """
    do_syscall_64 entry_SYSCALL_64_after_hwframe entry_SYSCALL_64 entry_SYSCALL_64_fastpath
    do_fast_syscall_32 __do_fast_syscall_32 entry_SYSENTER_compat_after_hwframe
    do_int80_* entry_INT80_compat int_ret_from_sys_call system_call_fastpath
    ret_from_fork ret_from_fork_asm kthread el0_sync el0_sync_handler el0_sync_compat
    el0_svc* el0t_64_sync* do_el0_svc
    common_startup_64 secondary_startup_64 secondary_startup_64_no_verify
    x86_64_start_kernel x86_64_start_reservations clear_bss reserve_bios_regions
    irq_exit_rcu __irq_exit_rcu __do_softirq handle_softirqs run_ksoftirqd smpboot_thread_fn"""
"""How the CPU came into the kernel."""


_ADDRESS = re.compile(r"0x[0-9a-f]{7,16}", re.IGNORECASE)


def is_address(name: str) -> bool:
    """Whether a frame's name is an address for which the kernel had no symbol (%pS prints it so).

    0x0 and addresses of nothing but ones, which old kernels put at the end of a stack, are none.
    """
    return _ADDRESS.fullmatch(name) is not None and name.strip("0x") not in ("", "f" * 8, "f" * 16)


def is_built_in(module: str | None) -> bool:
    """Whether that is no module: none, or the pseudo-modules under which kallsyms lists what the
    kernel makes while it runs (kernel/bpf/core.c, kernel/trace/ftrace.c, kernel/kprobes.c)."""
    return module is None or module == "bpf" or module.startswith("__builtin__")
