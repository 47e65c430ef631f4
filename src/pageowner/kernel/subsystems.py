"""Which function of the kernel allocates for what: the table behind ``--by subsystem``.

How it is read. A stack is walked from the innermost frame outward. Frames of the allocators
(`ALLOCATORS`) only say *how* the memory was taken: as pages, from a slab cache, by vmalloc or
percpu. The first other frame that a rule names, up to the next of `INTERRUPTS`, says *what for*;
among rules that name the same function the first in the table wins. Functions that no rule names
(`LIBRARIES` such as the maple tree and ``kstrdup``, generic VFS and fault code) are passed over, so
that the label is that of their caller. `LAST_RESORT` is asked only when no rule matched anywhere in
the stack.

Patterns are function names as `pageowner.kernel.frames.function_name` gives them; one ``*`` stands
for any rest, and ``{}`` in the rule's name for what the ``*`` matched. ``how`` limits a rule to one
way of allocation. ``source`` names the kernel files (of 6.12) from which a rule was written where
no stack of a real kernel was at hand; every other rule has matched a real one in the tests.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "ALLOCATORS",
    "ENTRY",
    "GENERIC",
    "INTERRUPTS",
    "LAST_RESORT",
    "LIBRARIES",
    "RULES",
    "Rule",
]


class Rule(NamedTuple):
    """``name`` is the label; ``patterns`` function names, blank-separated."""

    name: str
    patterns: str
    how: str = ""
    source: str = ""


ALLOCATORS: dict[str, str] = {
    # mm/page_alloc.c, mm/mempolicy.c, and the hooks that see an allocation
    "pages": """
        post_alloc_hook prep_new_page prep_new_pages get_page_from_freelist __alloc_pages
        __alloc_pages_* __alloc_frozen_pages alloc_frozen_pages alloc_pages alloc_pages_*
        alloc_page_* alloc_page ___alloc_pages_bulk __alloc_pages_bulk get_free_pages
        __get_free_pages get_zeroed_page folio_alloc folio_alloc_* __folio_alloc __folio_alloc_*
        vma_alloc_folio vma_alloc_zeroed_movable_folio __page_cache_alloc rmqueue* try_alloc_pages
        new_page_nodemask make_alloc_exact __set_page_owner set_page_owner save_stack
        bpf_trace_run* __bpf_trace_* __traceiter_* trace_event_raw_event_* perf_trace_*
        bpf_prog_????????????????_* page_frag_alloc page_frag_alloc_align __page_frag_alloc_align
        __page_frag_cache_refill page_frag_refill""",
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
        __prefill_sheaf_pfmemalloc kmem_cache_prefill_sheaf kmem_cache_alloc kmem_cache_alloc_*
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
    lzo_alloc_* zstd_alloc_* zlib_alloc_* deflate_*"""
"""Containers, copies and compressors: never the reason for an allocation, so passed over like an
allocator."""

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
    vfs_statx vfs_fstatat do_mmap vm_mmap_pgoff x64_sys_call invoke_syscall*"""
"""Frames that so many stacks share that they tell little."""

INTERRUPTS = """
    asm_* exc_* sysvec_* common_interrupt __common_interrupt page_fault do_page_fault
    __do_page_fault do_user_addr_fault async_page_fault ret_from_intr apic_timer_interrupt
    el0_da el0_ia el1_abort el1h_64_* el0t_64_irq el1_interrupt do_translation_fault do_mem_abort"""
"""Where the CPU left what it was doing for a fault or an interrupt: frames further out belong to
what was interrupted and explain nothing."""

ENTRY = """
    do_syscall_64 entry_SYSCALL_64_after_hwframe entry_SYSCALL_64 entry_SYSCALL_64_fastpath
    do_fast_syscall_32 __do_fast_syscall_32 entry_SYSENTER_compat_after_hwframe
    do_int80_* entry_INT80_compat int_ret_from_sys_call system_call_fastpath
    ret_from_fork ret_from_fork_asm kthread el0_svc* el0t_64_sync* do_el0_svc
    common_startup_64 secondary_startup_64 secondary_startup_64_no_verify
    x86_64_start_kernel x86_64_start_reservations clear_bss reserve_bios_regions
    irq_exit_rcu __irq_exit_rcu __do_softirq handle_softirqs run_ksoftirqd smpboot_thread_fn"""
"""How the CPU came into the kernel."""

RULES: tuple[Rule, ...] = (
    # -- before there was an owner to remember --------------------------------------------------
    Rule("early boot", "register_early_stack register_dummy_stack register_failure_stack "
         "init_page_owner init_early_allocated_pages init_pages_in_zone"),
    Rule("page_ext", "alloc_page_ext init_section_page_ext online_page_ext",
         source="mm/page_ext.c"),
    Rule("stack depot", "stack_depot_* depot_*", source="lib/stackdepot.c"),

    # -- the kernel's own -----------------------------------------------------------------------
    Rule("page tables", "pte_alloc_one pte_alloc_one_kernel __pte_alloc_one* __pte_alloc "
         "__pte_alloc_kernel __pmd_alloc __pud_alloc __p4d_alloc pgd_alloc _pgd_alloc "
         "__change_page_attr_set_clr __change_page_attr split_large_page pmd_alloc pud_alloc "
         "p4d_alloc pti_user_pagetable_walk*"),
    Rule("kernel stacks", "alloc_thread_stack_node copy_process dup_task_struct", "vmalloc"),
    Rule("kernel stacks", "alloc_thread_stack_node copy_process dup_task_struct", "pages",
         source="kernel/fork.c, without CONFIG_VMAP_STACK"),
    Rule("vmalloc areas", "__vmalloc_node_range __vmalloc_area_node __get_vm_area_node "
         "get_vm_area_caller alloc_vmap_area vm_map_ram new_vmap_block", "slab"),
    Rule("percpu chunks", "pcpu_*", "slab", source="mm/percpu.c"),
    Rule("kvfree_rcu", "fill_page_cache_func add_ptr_to_bulk_krc_lock kvfree_call_rcu"),
    Rule("system hash tables", "alloc_large_system_hash"),
    Rule("growing hash tables", "rht_deferred_worker"),
    Rule("memory map (struct page)", "vmemmap_alloc_block* vmemmap_populate* "
         "sparse_add_section section_activate", source="mm/sparse-vmemmap.c"),
    Rule("balloon", "balloon_page_alloc virtballoon_* tell_host",
         source="mm/balloon_compaction.c, drivers/virtio/virtio_balloon.c"),
    Rule("unmapping (TLB batches)", "tlb_next_batch tlb_remove_table __tlb_remove_*"),

    # -- huge pages -----------------------------------------------------------------------------
    Rule("huge pages (hugetlb)", "alloc_buddy_hugetlb_folio alloc_fresh_huge_page "
         "alloc_fresh_hugetlb_folio only_alloc_fresh_hugetlb_folio alloc_surplus_huge* "
         "alloc_pool_huge* hugetlb_* __hugetlb* hugetlbfs_* alloc_hugetlb_* alloc_huge_page* "
         "gather_surplus_pages"),
    Rule("huge pages (THP)", "do_huge_pmd_anonymous_page __do_huge_pmd_anonymous_page "
         "do_huge_pmd_wp_page vma_alloc_anon_folio_pmd hpage_collapse_* collapse_huge_page "
         "collapse_file alloc_charge_folio alloc_charge_hpage khugepaged* madvise_collapse "
         "mm_get_huge_zero_folio get_huge_zero_page", "pages"),
    Rule("khugepaged", "__khugepaged_enter khugepaged_enter_vma khugepaged*", "slab"),

    # -- memory of programs ---------------------------------------------------------------------
    Rule("secret memory", "secretmem_*"),
    Rule("page cache index", "shmem_add_to_page_cache __filemap_add_folio filemap_add_folio "
         "add_to_page_cache_lru __add_to_page_cache_locked add_to_swap_cache __swap_cache_* "
         "page_cache_delete_batch", "slab"),
    Rule("shared memory (tmpfs)", "shmem_*"),
    Rule("zram", "zram_* zcomp_*"),
    Rule("zswap", "zswap_*"),
    Rule("swap", "__read_swap_cache_async read_swap_cache_async swapin_* swap_cluster_readahead "
         "swap_vma_readahead swap_cache_* sys_swapon setup_swap* setup_clusters add_swap_extent "
         "swap_* __swap_* add_swap_count_continuation alloc_swap_* folio_alloc_swap "
         "scan_swap_map_slots"),
    Rule("migration", "alloc_migration_target alloc_misplaced_dst_folio alloc_demote_folio "
         "migrate_misplaced_* compaction_alloc* alloc_new_node_page migrate_pages",
         source="mm/migrate.c, mm/compaction.c, mm/vmscan.c"),
    Rule("KSM", "ksm_* __ksm_* stable_tree_* unstable_tree_*"),
    Rule("DAMON", "damon_* kdamond_*"),
    Rule("anonymous memory", "folio_prealloc alloc_anon_folio do_anonymous_page wp_page_copy "
         "do_wp_page do_cow_fault copy_present_page copy_present_ptes page_copy_prealloc "
         "do_swap_page alloc_swap_folio mfill_atomic* ksm_might_need_to_copy", "pages"),
    Rule("mappings of drivers", "__do_fault", "pages", source="mm/memory.c, vm_ops->fault"),
    Rule("anonymous memory", "do_fault __handle_mm_fault handle_mm_fault handle_pte_fault "
         "do_pte_missing", "pages"),

    # -- page cache -----------------------------------------------------------------------------
    Rule("page cache", "filemap_alloc_folio __filemap_get_folio* filemap_get_folio "
         "filemap_create_folio filemap_get_pages filemap_fault pagecache_get_page "
         "grab_cache_page_write_begin page_cache_ra_* page_cache_read __do_page_cache_readahead "
         "ra_alloc_folio force_page_cache_ra do_sync_mmap_readahead generic_file_buffered_read "
         "do_read_cache_folio do_read_cache_page read_cache_folio read_cache_page "
         "__getblk_* bdev_getblk grow_dev_* grow_buffers readahead_expand "
         "find_or_create_page filemap_read", "pages"),
    Rule("buffer heads", "alloc_buffer_head folio_alloc_buffers alloc_page_buffers "
         "create_empty_buffers"),

    # -- network --------------------------------------------------------------------------------
    Rule("network buffers", "alloc_skb_with_frags __alloc_skb alloc_skb __build_skb* build_skb* "
         "napi_build_skb kmalloc_reserve pskb_* __pskb_* skb_* __skb_* sk_page_frag_refill "
         "napi_alloc_skb __napi_alloc_* __netdev_alloc_* netdev_alloc_frag* napi_alloc_frag* "
         "napi_get_frags page_pool_* __page_pool_* add_recvbuf_* try_fill_recv"),
    Rule("packet rings", "alloc_pg_vec packet_*"),
    Rule("AF_XDP", "xsk_* xdp_umem_* xp_*", source="net/xdp/"),
    Rule("sockets", "sk_prot_alloc sk_alloc sock_alloc_inode sock_alloc sock_kmalloc sock_wmalloc "
         "sock_omalloc sock_alloc_file inet_create inet6_create unix_* reqsk_* inet_csk_* "
         "inet_bind* inet_reqsk_alloc inet_twsk_alloc scm_* __scm_send inet_bhash* "
         "inet_hash_connect __inet_hash_connect inet_hashinfo*"),
    Rule("netfilter", "nf_* __nf_* nft_* ipt_* ip6t_* arpt_* xt_* ebt_* ip_set_* nfnetlink_* "
         "nfnl_* ip_vs_* translate_table"),
    Rule("network devices", "alloc_netdev_mqs alloc_etherdev_mqs veth_* tun_* __tun_* "
         "register_netdevice br_* bond_* macvlan_* netdev_* qdisc_* attach_default_qdiscs "
         "tc_* ethtool_* virtnet_*"),
    Rule("network routes", "dst_alloc rt_dst_alloc fib_* fib6_* ip6_route_* ip_rt_* neigh_* "
         "__neigh_* inet_rtm_* ip_fib_* inet_getpeer rt6_* rtm_* ip6_dst_* fnhe_* nexthop_*"),
    Rule("netlink", "netlink_* __netlink_* rtnl_* genl_* rtnetlink_*"),
    Rule("network", "tcp_* udp_* udp6_* ip_* ip6_* ipv4_* ipv6_* inet_* inet6_* igmp_* "
         "__ip_mc_* mld_* addrconf_* __addrconf_* devinet_* __devinet_* inetdev_* icmp_* icmpv6_* "
         "ping_* copy_net_ns setup_net ops_init net_ns_* ndisc_* sit_* fqdir_* sock_init "
         "net_dev_init sysctl_core_* net_sysctl_* netns_* xfrm_* sctp_* mptcp_* vsock_* __vsock_* "
         "virtio_transport_* sock_diag_* seg6_* snmp6_*"),

    # -- pipes, events, messages ----------------------------------------------------------------
    Rule("pipes", "pipe_write anon_pipe_* alloc_pipe_info create_pipe_files get_pipe_inode "
         "pipe_* fifo_open splice_* do_splice* iter_file_splice_write copy_splice_read"),
    Rule("io_uring", "io_uring_* io_ring_* io_rings_* io_sq_* io_sqe_* io_wq_* io_alloc_* "
         "__io_alloc_* io_submit_sqe* io_pin_pages io_mem_alloc* io_region_* io_create_region* "
         "io_register_* __io_uring_* io_prep_* io_buffer* io_cqring_* io_issue_* io_rsrc_* "
         "io_allocate_* io_poll_* __io_arm_* io_arm_* io_provide_* io_add_buffers io_req_* "
         "sys_io_uring_*"),
    Rule("asynchronous I/O", "ioctx_alloc aio_* sys_io_setup io_submit_one sys_io_submit"),
    Rule("message queues", "alloc_msg load_msg mqueue_* do_msgsnd do_mq_* newque"),
    Rule("System V IPC", "ipc_* newseg newary do_shmat sem_* do_semtimedop find_alloc_undo "
         "ipcget shm_*"),
    Rule("epoll", "ep_* do_epoll_* eventpoll_*"),
    Rule("eventfd", "do_eventfd eventfd_* sys_eventfd*"),
    Rule("timers", "timerfd_* sys_timerfd_create do_timer_create alloc_posix_timer "
         "posix_timer_* alarmtimer_*"),
    Rule("file notification", "inotify_* fanotify_* fsnotify_* __fsnotify_* do_inotify_init "
         "sys_inotify_* fcntl_dirnotify"),
    Rule("userfaultfd", "userfaultfd_* new_userfaultfd dup_userfaultfd*"),
    Rule("poll and select", "do_sys_poll do_select core_sys_select __pollwait poll_get_entry"),
    Rule("file locks", "locks_* flock_* posix_lock_* __posix_lock_file fcntl_setlk",
         source="fs/locks.c"),
    Rule("signals", "__sigqueue_alloc sigqueue_alloc __send_signal* send_signal* signalfd_* "
         "do_signalfd4"),
    Rule("futexes", "futex_* refill_pi_state_cache __futex_*", source="kernel/futex/"),

    # -- BPF, tracing ---------------------------------------------------------------------------
    Rule("BPF", "bpf_* __bpf_* ___bpf_* btf_* __btf_* array_map_* htab_* trie_* ringbuf_map_* "
         "stack_map_* dev_map_* cpu_map_* queue_stack_map_* map_create __sys_bpf "
         "pcpu_init_value pcpu_freelist_* alloc_htab_elem do_check* push_stack copy_verifier_state "
         "sock_map_* sk_storage_* seccomp_* do_seccomp"),
    Rule("perf events", "perf_* __perf_* rb_alloc rb_alloc_* inherit_event inherit_group "
         "sys_perf_event_open x86_pmu_* x86_reserve_hardware intel_pmu_* amd_pmu_* "
         "pmu_dev_alloc swevent_hlist_* sw_perf_* get_callchain_buffers"),
    Rule("tracing", "ftrace_* __ftrace_* trace_* __trace_* tracing_* tracer_* tracefs_* "
         "eventfs_* event_trace_* event_create_* event_define_* event_init __event_* "
         "ring_buffer_* __ring_buffer_* rb_allocate_* __rb_allocate_pages alloc_buffer "
         "allocate_trace_buffer* allocate_cmdlines_buffer init_syscall_trace syscall_enter_* "
         "init_ftrace_* create_event_* early_trace_init relay_* tracepoint_* "
         "apply_event_filter process_preds create_filter* blk_trace_*"),
    Rule("kprobes", "kprobe_* __kprobe* init_kprobes arm_kprobe* register_kprobe "
         "register_kretprobe uprobe_* __uprobe* get_insn_slot __get_insn_slot"),
    Rule("module loading", "load_module layout_and_allocate move_module copy_module_from_user "
         "init_module_from_file sys_init_module sys_finit_module kernel_read_file* "
         "mod_sysfs_* add_kallsyms idempotent_init_module module_memory_alloc "
         "add_notes_attrs add_sect_attrs add_usage_links", source="kernel/module/main.c"),

    # -- processes ------------------------------------------------------------------------------
    Rule("memory maps (VMA)", "vm_area_alloc vm_area_dup vma_lock_alloc mm_alloc mm_init dup_mm "
         "dup_mmap mmap_region __mmap_region __split_vma split_vma vma_* anon_vma_* "
         "__anon_vma_* do_vmi_* do_brk_flags vms_* mprotect_fixup __vma_* insert_vm_struct "
         "_install_special_mapping expand_stack* expand_downwards copy_vma move_vma commit_merge "
         "create_init_stack_vma", "slab"),
    Rule("file descriptor tables", "alloc_fdtable dup_fd expand_files expand_fdtable alloc_fd "
         "copy_files unshare_fd"),
    Rule("open files", "alloc_empty_file __alloc_file alloc_file alloc_file_* "
         "alloc_empty_file_noaccount alloc_empty_backing_file file_f_owner_allocate"),
    Rule("credentials and keys", "prepare_creds prepare_kernel_cred copy_creds key_alloc "
         "key_create* __key_create* keyring_* sys_add_key keyctl_* groups_alloc user_preparse "
         "alloc_uid inc_ucount alloc_ucounts"),
    Rule("namespaces", "create_new_namespaces copy_namespaces copy_utsname copy_ipcs "
         "create_pid_namespace copy_pid_ns copy_cgroup_ns copy_time_ns create_user_ns "
         "setup_userns_sysctls setup_ipc_sysctls setup_mq_sysctls unshare_nsproxy_namespaces"),
    Rule("core dumps", "do_coredump vfs_coredump elf_core_dump dump_user_range",
         "pages"),
    Rule("exec", "alloc_bprm load_elf_binary load_elf_phdrs load_script load_misc_binary "
         "copy_string_kernel copy_strings get_arg_page setup_arg_pages bprm_execve begin_new_exec "
         "do_execveat_common kernel_execve elf_load"),
    Rule("KVM", "fpu_alloc_guest_fpstate"),
    Rule("processes and threads", "copy_process dup_task_struct alloc_task_struct_node "
         "copy_signal copy_sighand copy_fs_struct copy_io alloc_pid set_kthread_struct "
         "kthread_create* __kthread_create* sched_fork taskstats_* task_work_* "
         "create_task_io_context alloc_io_context ioperm_* write_ldt alloc_ldt_struct "
         "arch_dup_task_struct", "slab"),
    Rule("workqueues", "alloc_workqueue __alloc_workqueue alloc_worker create_worker "
         "alloc_unbound_pwq alloc_and_link_pwqs apply_wqattrs_* get_unbound_pool "
         "init_cpu_worker_pool init_worker_pool worker_pool_assign_id workqueue_* "
         "alloc_workqueue_* init_rescuer"),
    Rule("memory cgroups", "mem_cgroup_* __mem_cgroup_* memcg_* __memcg_* obj_cgroup_* "
         "alloc_slab_obj_exts __alloc_slab_obj_exts alloc_mem_cgroup_per_node_info "
         "alloc_shrinker_info expand_shrinker_info"),
    Rule("cgroups", "cgroup_* __cgroup_* cgroup1_* css_* find_css_set allocate_cgrp_cset_links "
         "cpuset_* cpu_cgroup_* alloc_fair_sched_group alloc_rt_sched_group sched_create_group "
         "blkcg_* blkg_* cpuacct_* pids_css_* freezer_css_* devcgroup_* psi_cgroup_* online_css"),
    Rule("scheduler", "build_sched_domains sched_init_* __sdt_alloc alloc_sched_domains "
         "autogroup_* partition_sched_* task_numa_*"),
    Rule("interrupts", "alloc_desc alloc_descs irq_* __irq_* request_threaded_irq "
         "early_irq_init init_IRQ msi_* x86_vector_* request_percpu_irq __setup_irq"),
    Rule("NUMA policies", "mpol_* do_set_mempolicy do_mbind __mpol_* memory_tier_* "
         "set_node_memory_tier numa_*"),
    Rule("slab caches", "__kmem_cache_create* kmem_cache_create* do_kmem_cache_create "
         "kmem_cache_init kmem_cache_open init_kmem_cache_nodes sysfs_slab_* create_boot_cache"),
    Rule("extended attributes", "posix_acl_* simple_xattr_* vfs_getxattr* vfs_setxattr* "
         "set_posix_acl do_getxattr listxattr path_setxattr*"),

    # -- files ----------------------------------------------------------------------------------
    Rule("dentries", "__d_alloc d_alloc d_alloc_* d_make_root"),
    Rule("sysfs and kernfs", "__kernfs_* kernfs_* sysfs_* kobject_* kset_* "
         "internal_create_group* param_sysfs_* add_sysfs_param"),
    Rule("{} inodes", "*_alloc_inode", "slab"),
    Rule("inodes", "alloc_inode new_inode new_inode_pseudo iget_locked iget5_locked", "slab"),
    Rule("path names", "getname_flags getname getname_kernel do_getname sys_getcwd "
         "audit_alloc_name", source="fs/namei.c"),
    Rule("mounts", "alloc_super alloc_vfsmnt alloc_fs_context sget_fc sget vfs_create_mount "
         "path_mount do_mount mnt_init copy_mnt_ns alloc_mnt_ns attach_recursive_mnt clone_mnt "
         "copy_tree sys_mount sys_fsopen sys_fsconfig vfs_parse_fs_* get_mountpoint copy_mount_* "
         "super_setup_bdi prealloc_shrinker shrinker_alloc"),
    Rule("sysctl", "__register_sysctl_* register_sysctl* insert_header proc_sys_*"),
    Rule("debugfs", "debugfs_* __debugfs_* full_proxy_* open_proxy_open"),
    Rule("proc", "proc_* __proc_* _proc_mkdir environ_* mem_open mem_rw pagemap_* smaps_* "
         "do_task_stat meminfo_proc_* kpage*_read kallsyms_open mounts_open_common "
         "get_mm_cmdline register_irq_proc"),
    Rule("ext4", "ext4_* __ext4_* jbd2_* __jbd2_* mb_cache_* start_this_handle journal_*"),
    Rule("XFS", "xfs_* xlog_* xfsaild*"),
    Rule("Btrfs", "btrfs_* __btrfs_* alloc_extent_buffer __alloc_extent_buffer "
         "alloc_extent_state* alloc_extent_map read_tree_block set_extent_bit __set_extent_bit "
         "alloc_eb_folio_array start_transaction alloc_workspace_manager"),
    Rule("overlayfs", "ovl_*", source="fs/overlayfs/"),
    Rule("9p", "v9fs_* p9_*"),
    Rule("netfs", "netfs_* fscache_* cachefiles_*"),
    Rule("FUSE", "fuse_* __fuse_* cuse_* virtio_fs_*"),
    Rule("NFS", "nfs_* nfs2_* nfs3_* nfs4_* nfsd_* nfsd4_* nlm_* pnfs_* __nfs_* __nfs4_*",
         source="fs/nfs/, fs/nfsd/, fs/lockd/"),
    Rule("SUN RPC", "rpc_* svc_* xprt_* xs_tcp_* xs_udp_* gss_*", source="net/sunrpc/"),
    Rule("SMB", "cifs_* smb2_* SMB2_* smb3_* ksmbd_*", source="fs/smb/"),
    Rule("Ceph", "ceph_* rbd_* __ceph_*", source="fs/ceph/, net/ceph/"),
    Rule("F2FS", "f2fs_* __f2fs_*", source="fs/f2fs/"),
    Rule("squashfs", "squashfs_*"),
    Rule("EROFS", "erofs_* z_erofs_*"),
    Rule("FAT", "fat_* vfat_* exfat_*", source="fs/fat/, fs/exfat/"),
    Rule("NTFS", "ntfs_*", source="fs/ntfs3/"),
    Rule("GFS2", "gfs2_* dlm_*", source="fs/gfs2/, fs/dlm/"),
    Rule("ISO 9660 and UDF", "isofs_* udf_*", source="fs/isofs/, fs/udf/"),
    Rule("autofs", "autofs_*", source="fs/autofs/"),
    Rule("quota", "dquot_* dqget", source="fs/quota/dquot.c"),
    Rule("file encryption", "fscrypt_* fsverity_* ecryptfs_*", source="fs/crypto/, fs/verity/"),
    Rule("writeback", "bdi_* wb_* cgwb_* __writeback_* writeback_*", source="fs/fs-writeback.c"),
    Rule("direct I/O", "iomap_dio_* dio_* do_direct_IO __blockdev_direct_IO "
         "__iomap_dio_rw do_blockdev_direct_IO"),
    Rule("iomap", "iomap_* ifs_alloc"),

    # -- block layer ----------------------------------------------------------------------------
    Rule("loop devices", "loop_* lo_rw_aio"),
    Rule("device mapper", "dm_* __dm_* dm_bufio_*", source="drivers/md/dm.c"),
    Rule("software RAID", "md_* raid1_* raid5_* raid10_* grow_one_stripe", source="drivers/md/"),
    Rule("NVMe", "nvme_* nvmet_*", source="drivers/nvme/"),
    Rule("SCSI", "scsi_* __scsi_* sg_build_* ata_* iscsi_*", source="drivers/scsi/, drivers/ata/"),
    Rule("block layer", "bio_* __bio_* bvec_* biovec_* bioset_* blk_* __blk_* blkdev_* elevator_* "
         "dd_init_sched sbitmap_* submit_bio* bdev_* __alloc_disk_node __submit_bio* "
         "alloc_disk* device_add_disk add_disk* add_partition* read_part_sector mpage_* init_bio "
         "sg_pool_init rq_qos_* bfq_* kyber_* virtblk_* nbd_* __register_blkdev submit_bh*"),

    # -- virtual machines -----------------------------------------------------------------------
    Rule("KVM", "kvm_* __kvm_* svm_* sev_* vmx_* tdp_mmu_* mmu_topup_* memslot_rmap_alloc "
         "alloc_loaded_vmcs alloc_vmcs_cpu"),
    Rule("vhost", "vhost_*", source="drivers/vhost/"),
    Rule("Xen", "xen_* xenbus_* gnttab_*", source="drivers/xen/"),
    Rule("Hyper-V", "vmbus_* hv_*", source="drivers/hv/"),
    Rule("VFIO", "vfio_* iommufd_*", source="drivers/vfio/, drivers/iommu/iommufd/"),
    Rule("virtio", "vring_* virtqueue_* virtio_* vp_* setup_vq __vring_*"),

    # -- devices --------------------------------------------------------------------------------
    Rule("GPU (DRM)", "ttm_* drm_* __drm_*", source="drivers/gpu/drm/"),
    Rule("DMA buffers", "dma_alloc_* dma_direct_alloc* __dma_direct_* iommu_dma_* "
         "__iommu_dma_* swiotlb_* dmam_* dma_pool_* system_heap_* dma_heap_* cma_alloc* "
         "atomic_pool_*", source="kernel/dma/, drivers/dma-buf/"),
    Rule("IOMMU", "iommu_* __iommu_* intel_iommu_* amd_iommu_* iova_* alloc_iova* arm_smmu_* "
         "alloc_pgtable_page dmar_*", source="drivers/iommu/"),
    Rule("RDMA", "ib_* rdma_* __ib_*", source="drivers/infiniband/core/"),
    Rule("USB", "usb_* __usb_* xhci_* hcd_buffer_alloc", source="drivers/usb/"),
    Rule("sound", "snd_* __snd_*", source="sound/core/"),
    Rule("video capture", "vb2_* v4l2_*", source="drivers/media/"),
    Rule("wireless", "ieee80211_* cfg80211_*", source="net/mac80211/, net/wireless/"),
    Rule("Bluetooth", "hci_* l2cap_*", source="net/bluetooth/"),
    Rule("Android binder", "binder_*", source="drivers/android/"),
    Rule("terminals", "tty_* __tty_* pty_* n_tty_* uart_* serial8250_* serial_* con_insert_* "
         "vc_* vty_* ptmx_* devpts_* console_*"),
    Rule("input devices", "input_* psmouse_* serio_* evdev_*"),
    Rule("ACPI", "acpi_* pnpacpi_* pnp_* __pnp_*"),
    Rule("PCI", "pci_* __pci_* pcie_* pcim_*"),
    Rule("firmware loading", "request_firmware* _request_firmware fw_get_filesystem_firmware",
         source="drivers/base/firmware_loader/main.c"),
    Rule("crypto", "crypto_* __crypto_* alg_* skcipher_* aead_* shash_* ahash_* acomp_* scomp_* "
         "x509_* public_key_* mpi_* drbg_*"),
    Rule("security modules", "security_* selinux_* apparmor_* aa_* smack_* landlock_* tomoyo_* "
         "lsm_* avc_* ima_* integrity_* sidtab_* policydb_* ebitmap_*"),
    Rule("audit", "audit_* __audit_*", source="kernel/audit.c"),
    Rule("devices", "device_* bus_* driver_* class_* cdev_* __register_chrdev* register_chrdev* "
         "kobj_map* misc_register platform_* dev_set_name really_probe memory_dev_init "
         "add_memory_block register_cpu cpu_device_create cacheinfo_* cpu_dev_init node_dev_init "
         "register_node* rtc_* devm_* __devm_* subsys_* fwnode_* software_node_* devtmpfs_* "
         "component_* regmap_* clk_* i2c_* spi_* thermal_*"),
)
"""What a function allocates for, in order of precedence."""

LAST_RESORT: tuple[Rule, ...] = (
    Rule("boot", "do_one_initcall start_kernel kernel_init_freeable kernel_init "
         "do_initcalls x86_64_start_kernel poking_init mm_core_init"),
    Rule("reserve", "process_one_work process_scheduled_works", "percpu"),
    Rule("page cache", "generic_perform_write __generic_file_write_iter vfs_fallocate read_pages",
         "pages", source="mm/filemap.c"),
    Rule("mounts", "vfs_get_super get_tree_bdev get_tree_nodev vfs_kern_mount",
         source="fs/super.c"),
    Rule("CPU hotplug", "cpuhp_* __cpuhp_* cpu_up _cpu_up", source="kernel/cpu.c"),
    Rule("zsmalloc", "zs_*"),
)
"""Broad callers, asked only when no rule matched."""
