"""Which function of the kernel allocates for what: the table behind ``--by subsystem``.

How it is read. A stack is walked from the innermost frame outward. Frames of the allocators
(`pageowner.kernel.stack_roles.ALLOCATORS`) only say *how* the memory was taken: as pages, from a
slab cache, by vmalloc or percpu. The first other frame that a rule names, up to the next of
`INTERRUPTS`, says *what for*; among rules that name the same function the first in the table wins.
Functions that no rule names (`LIBRARIES` such as the maple tree and ``kstrdup``, generic VFS and
fault code) are passed over, so that the label is that of their caller. A frame of a module that no
rule names is ``module NAME``. Where a stack goes through a file of a driver (`THROUGH`), the search
starts behind that. `LAST_RESORT` is asked only when no rule matched anywhere in the stack.

Patterns are function names as `pageowner.kernel.frames.function_name` gives them; one ``*`` stands
for any rest, and ``{}`` in the rule's name for what the ``*`` matched. ``how`` limits a rule to one
way of allocation. ``source`` names the kernel files (of 6.12) from which a rule was written where
no stack of a real kernel was at hand; every other rule has matched a real one in the tests. A rule
is for the kernel proper, and for the modules that it names (`pageowner.kernel.subsystem_rule`).
"""

from __future__ import annotations

from pageowner.kernel.subsystem_rule import Rule
from pageowner.kernel.subsystems_of_devices import DEVICES, GPU
from pageowner.kernel.subsystems_of_files import FILES

__all__ = ["LAST_RESORT", "RULES"]

_CORE: tuple[Rule, ...] = (
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
         source="mm/balloon_compaction.c, drivers/virtio/virtio_balloon.c",
         whole="virtio_balloon vmw_balloon xen_balloon"),
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
    Rule("zram", "zram_* zcomp_*",
         whole="zram"),
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
         "napi_get_frags page_pool_* __page_pool_* add_recvbuf_* try_fill_recv",
         modules="virtio_net"),
    Rule("packet rings", "alloc_pg_vec packet_*",
         whole="af_packet"),
    Rule("AF_XDP", "xsk_* xdp_umem_* xp_*", source="net/xdp/"),
    Rule("sockets", "sk_prot_alloc sk_alloc sock_alloc_inode sock_alloc sock_kmalloc sock_wmalloc "
         "sock_omalloc sock_alloc_file inet_create inet6_create unix_* reqsk_* inet_csk_* "
         "inet_bind* inet_reqsk_alloc inet_twsk_alloc scm_* __scm_send inet_bhash* "
         "inet_hash_connect __inet_hash_connect inet_hashinfo*",
         modules="ipv6",
         whole="unix"),
    Rule("netfilter", "nf_* __nf_* nft_* ipt_* ip6t_* arpt_* xt_* ebt_* ip_set_* nfnetlink_* "
         "nfnl_* ip_vs_* translate_table",
         whole="nf_* nft_* nfnetlink* x_tables xt_* ip_tables ip6_tables arp_tables ebtables "
         "iptable_* ip6table_* arptable_* ebtable_* ebt_* ipt_* ip6t_* arpt_* ip_set "
         "ip_set_* ip_vs ip_vs_*"),
    Rule("network devices", "alloc_netdev_mqs alloc_etherdev_mqs veth_* tun_* __tun_* "
         "register_netdevice br_* bond_* macvlan_* netdev_* qdisc_* attach_default_qdiscs "
         "tc_* ethtool_* virtnet_*",
         whole="veth tun tap bridge bonding macvlan macvtap ipvlan dummy virtio_net vxlan sch_* "
         "cls_* act_*"),
    Rule("network routes", "dst_alloc rt_dst_alloc fib_* fib6_* ip6_route_* ip_rt_* neigh_* "
         "__neigh_* inet_rtm_* ip_fib_* inet_getpeer rt6_* rtm_* ip6_dst_* fnhe_* nexthop_*",
         modules="ipv6"),
    Rule("netlink", "netlink_* __netlink_* rtnl_* genl_* rtnetlink_*"),
    Rule("network", "tcp_* udp_* udp6_* ip_* ip6_* ipv4_* ipv6_* inet_* inet6_* igmp_* "
         "__ip_mc_* mld_* addrconf_* __addrconf_* devinet_* __devinet_* inetdev_* icmp_* icmpv6_* "
         "ping_* copy_net_ns setup_net ops_init net_ns_* ndisc_* sit_* fqdir_* sock_init "
         "net_dev_init sysctl_core_* net_sysctl_* netns_* xfrm_* sctp_* mptcp_* vsock_* __vsock_* "
         "virtio_transport_* sock_diag_* seg6_* snmp6_*",
         whole="ipv6 sctp tls vsock vmw_vsock_* sit xfrm_* esp4 esp6 ah4 ah6 af_key ip_tunnel "
         "tunnel4 tunnel6 ip6_tunnel inet_diag tcp_diag udp_diag mptcp_diag"),

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
    Rule("epoll", "ep_insert ep_alloc ep_create_wakeup_source ep_ptable_queue_proc "
         "ep_eventpoll_* ep_set_busy_poll_napi_id do_epoll_* eventpoll_*"),
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
         "pmu_dev_alloc swevent_hlist_* sw_perf_* get_callchain_buffers",
         whole="intel_uncore intel_cstate amd_uncore rapl"),
    Rule("tracing", "ftrace_* __ftrace_* trace_* __trace_* tracing_* tracer_* tracefs_* "
         "eventfs_* event_trace_* event_create_* event_define_* event_init __event_* "
         "ring_buffer_* __ring_buffer_* rb_allocate_* __rb_allocate_pages "
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
         "do_execveat_common kernel_execve elf_load",
         whole="binfmt_misc"),
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
)

RULES: tuple[Rule, ...] = (*GPU, *_CORE, *FILES, *DEVICES)
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
    Rule("zsmalloc", "zs_*", modules="zsmalloc"),
    Rule("GPU (DRM)", "ttm_* drm_gem_*", source="drivers/gpu/drm/", modules="drm drm_*",
         whole="ttm"),
    Rule("CMA", "cma_alloc*", source="mm/cma.c"),
)
"""Broad callers, asked only when no rule matched."""
