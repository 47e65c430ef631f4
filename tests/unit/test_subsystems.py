"""What people read about a stack: its subsystem, its telling frame, its module, its identity."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from pageowner.analysis import coded
from pageowner.analysis.subsystems import (
    distinctive_frame,
    matching_rule,
    module_of,
    short_stack,
    stack_identities,
    stack_identity,
    subsystem,
)
from pageowner.kernel.frames import Frame, function_name, parse_frame
from pageowner.kernel.subsystems import LAST_RESORT, RULES

if TYPE_CHECKING:
    from collections import Counter

# What a person would say to memory that these functions of real kernels took; a function that takes
# it in several ways has several answers.
EXPECTED = {
    "register_early_stack": ["early boot"],
    "pte_alloc_one": ["page tables"],
    "copy_process": ["kernel stacks", "slab: processes and threads", "slab: vmalloc areas"],
    "__bpf_map_area_alloc": ["BPF", "slab: vmalloc areas", "vmalloc: BPF"],
    "fill_page_cache_func": ["kvfree_rcu"],
    "alloc_large_system_hash": ["system hash tables"],
    "rht_deferred_worker": ["slab: growing hash tables"],
    "tlb_next_batch": ["unmapping (TLB batches)"],
    "only_alloc_fresh_hugetlb_folio": ["huge pages (hugetlb)"],
    "vma_alloc_anon_folio_pmd": ["huge pages (THP)"],
    "__khugepaged_enter": ["slab: khugepaged"],
    "secretmem_fault": ["secret memory"],
    "__filemap_add_folio": ["slab: page cache index"],
    "shmem_alloc_folio": ["shared memory (tmpfs)"],
    "zram_submit_bio": ["slab: zram", "zram"],
    "zswap_store": ["slab: zswap", "zswap"],
    "__read_swap_cache_async": ["swap"],
    "ksm_scan_thread": ["slab: KSM"],
    "damon_split_region_at": ["slab: DAMON"],
    "do_anonymous_page": ["anonymous memory"],
    "do_fault": ["anonymous memory"],
    "__filemap_get_folio": ["page cache"],
    "alloc_buffer_head": ["slab: buffer heads"],
    "skb_page_frag_refill": ["network buffers"],
    "packet_set_ring": ["packet rings"],
    "sk_prot_alloc": ["slab: sockets"],
    "nf_tables_newrule": ["netfilter"],
    "alloc_netdev_mqs": ["network devices", "slab: network devices"],
    "dst_alloc": ["slab: network routes"],
    "netlink_proto_init": ["slab: netlink"],
    "tcp_metrics_init": ["network"],
    "anon_pipe_write": ["pipes"],
    "__io_alloc_req_refill": ["slab: io_uring"],
    "ioctx_alloc": ["slab: asynchronous I/O"],
    "load_msg": ["slab: message queues"],
    "newary": ["System V IPC"],
    "do_epoll_ctl": ["slab: epoll"],
    "do_eventfd": ["slab: eventfd"],
    "do_timer_create": ["slab: timers"],
    "inotify_update_watch": ["slab: file notification"],
    "new_userfaultfd": ["slab: userfaultfd"],
    "__pollwait": ["poll and select"],
    "__send_signal_locked": ["slab: signals"],
    "perf_mmap_alloc_page": ["perf events"],
    "__rb_allocate_pages": ["tracing"],
    "kprobe_add_ksym_blacklist": ["slab: kprobes"],
    "vm_area_dup": ["slab: memory maps (VMA)"],
    "alloc_fdtable": ["file descriptor tables", "slab: file descriptor tables"],
    "alloc_empty_file": ["slab: open files"],
    "user_preparse": ["slab: credentials and keys"],
    "create_user_ns": ["slab: namespaces"],
    "dump_user_range": ["core dumps"],
    "load_elf_binary": ["slab: exec"],
    "fpu_alloc_guest_fpstate": ["vmalloc: KVM"],
    "alloc_workqueue": ["slab: workqueues"],
    "alloc_slab_obj_exts": ["slab: memory cgroups"],
    "cgroup_mkdir": ["slab: cgroups"],
    "build_sched_domains": ["slab: scheduler"],
    "alloc_desc": ["slab: interrupts"],
    "set_node_memory_tier": ["slab: NUMA policies"],
    "__kmem_cache_create_args": ["slab: slab caches"],
    "do_getxattr": ["extended attributes"],
    "__d_alloc": ["slab: dentries"],
    "__kernfs_new_node": ["slab: sysfs and kernfs"],
    "ext4_alloc_inode": ["slab: ext4 inodes"],
    "alloc_inode": ["slab: inodes"],
    "alloc_super": ["slab: mounts"],
    "proc_sys_call_handler": ["sysctl"],
    "full_proxy_read": ["debugfs"],
    "environ_read": ["proc"],
    "ext4_htree_store_dirent": ["slab: ext4"],
    "xfs_inode_alloc": ["slab: XFS"],
    "btrfs_alloc_compress_wsm": ["Btrfs"],
    "p9_tag_alloc": ["slab: 9p"],
    "netfs_init": ["slab: netfs"],
    "fuse_get_link": ["FUSE"],
    "squashfs_bio_read": ["squashfs"],
    "z_erofs_scan_folio": ["EROFS", "slab: EROFS"],
    "iomap_dio_init": ["direct I/O"],
    "ifs_alloc": ["slab: iomap"],
    "lo_rw_aio": ["slab: loop devices"],
    "bio_alloc_bioset": ["slab: block layer"],
    "__kvm_mmu_topup_memory_cache": ["KVM", "slab: KVM"],
    "vring_alloc_queue": ["virtio"],
    "__tty_buffer_request_room": ["slab: terminals"],
    "input_allocate_device": ["slab: input devices"],
    "acpi_add_single_object": ["slab: ACPI"],
    "pci_alloc_dev": ["slab: PCI"],
    "crypto_acomp_alloc_streams": ["crypto"],
    "security_inode_alloc": ["slab: security modules"],
    "device_add": ["slab: devices"],
    "crash_save_vmcoreinfo_init": ["boot"],
    "process_one_work": ["percpu: reserve"],
    "zs_cpu_prepare": ["slab: zsmalloc"],
}

SHMEM = """post_alloc_hook+0x61/0xb5
prep_new_page+0x1c/0x4f
get_page_from_freelist+0x829/0x952
__alloc_pages_noprof+0xe6/0x1ad
alloc_pages_mpol_noprof+0x9a/0x19b
folio_alloc_mpol_noprof+0x11/0x3d
shmem_alloc_folio+0xa9/0xc2
shmem_alloc_and_add_folio+0x133/0x2a9
shmem_get_folio_gfp+0x1a4/0x3c1
shmem_get_folio+0x27/0x3f
shmem_write_begin+0x4d/0xa2
generic_perform_write+0xd1/0x1f0
shmem_file_write_iter+0x62/0x7c
vfs_write+0x13a/0x1d6
ksys_write+0x70/0xd3
do_syscall_64+0x6c/0xe0"""


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("slab_alloc_node.isra.0", "slab_alloc_node"),
        ("__kernfs_new_node.constprop.0", "__kernfs_new_node"),
        ("vfs_kern_mount.part.0", "vfs_kern_mount"),
        ("alloc_pages_bulk_noprof.part.0.isra.3", "alloc_pages_bulk"),
        ("do_exit.cold", "do_exit"),
        ("foo.llvm.1234567890", "foo"),
        ("alloc_pages_mpol_noprof", "alloc_pages_mpol"),
        ("__x64_sys_write", "sys_write"),
        ("__do_sys_vfork", "sys_vfork"),
        ("__ia32_compat_sys_ioctl", "compat_sys_ioctl"),
        ("__arm64_sys_read", "sys_read"),
        ("__do_syscall", "__do_syscall"),
        ("ksys_write", "ksys_write"),
    ],
)
def test_symbols_lose_what_the_compiler_and_the_build_added(symbol: str, name: str) -> None:
    assert function_name(symbol) == name


@pytest.mark.parametrize(
    ("line", "frame"),
    [
        (" pipe_write+0x1f/0x90", Frame("pipe_write", None)),
        ("ext4_da_write_begin.part.0+0x1f/0x90 [ext4]", Frame("ext4_da_write_begin", "ext4")),
        (" [<ffffffff811682c4>] alloc_pages_current+0x114/0x220",
         Frame("alloc_pages_current", None)),
        (" [<ffffffffa0123456>] ? nv_x+0x1/0x2 [nvidia]", Frame("nv_x", "nvidia")),
        ("f+0x1/0x2 [xfs 5e9ab13a24f1]", Frame("f", "xfs")),
        ("0xffffffffc0401234", Frame("0xffffffffc0401234", None)),
        ("two words of a vendor", Frame("two words of a vendor", None)),
        ("", None),
        ("   ", None),
    ],
)
def test_every_form_of_a_frame_is_read(line: str, frame: Frame | None) -> None:
    assert parse_frame(line) == frame


def test_a_tmpfs_write_is_named_by_what_a_person_would_say() -> None:
    assert subsystem(SHMEM) == "shared memory (tmpfs)"
    assert distinctive_frame(SHMEM) == "shmem_alloc_folio"
    assert short_stack(SHMEM, 3) == (
        "shmem_alloc_folio ← shmem_alloc_and_add_folio ← shmem_get_folio_gfp")
    assert module_of(SHMEM) == "vmlinux"


def test_a_module_without_a_rule_names_the_memory() -> None:
    stack = ("__alloc_pages+0x1/0x2\nkmem_cache_alloc+0x1/0x2\nfoo_get+0x1/0x2 [foo]\n"
             "bar_call+0x1/0x2 [bar]\nvfs_write+0x1/0x2")
    assert subsystem(stack) == "slab: module foo"
    assert module_of(stack) == "foo"
    assert distinctive_frame(stack) == "foo_get [foo]"


def test_a_large_kmalloc_is_not_slab() -> None:
    stack = ("__alloc_pages+0x1/0x2\n___kmalloc_large_node+0x1/0x2\n"
             "__kmalloc_node_noprof+0x1/0x2\nbtf_check_all_metas+0x1/0x2")
    assert subsystem(stack) == "BPF"


def test_stacks_that_say_nothing() -> None:
    assert subsystem("") == "no stack"
    assert subsystem("0xffffffffc0401234") == "other"
    assert subsystem("", "GFP_HIGHUSER_MOVABLE|__GFP_ZERO") == "user memory"
    assert distinctive_frame("") == ""
    assert short_stack("") == ""
    assert distinctive_frame("__alloc_pages+0x1/0x2") == "__alloc_pages"


def test_identity_survives_another_build() -> None:
    other_build = SHMEM.replace("0x", "0x1").replace("vfs_write", "vfs_write.isra.0")
    assert stack_identity(other_build) == stack_identity(SHMEM)
    assert stack_identity(SHMEM.replace("vfs_write", "vfs_read")) != stack_identity(SHMEM)
    assert stack_identity("a+0x1/0x2 [m]") != stack_identity("a+0x1/0x2")
    assert stack_identity("ab\nc") != stack_identity("a\nbc")


def test_identity_is_the_same_in_another_python() -> None:
    code = ("import sys; from pageowner.analysis.subsystems import stack_identity;"
            "print(stack_identity(sys.stdin.read()))")
    run = subprocess.run([sys.executable, "-R", "-c", code], input=SHMEM, text=True,
                         capture_output=True, check=True)
    assert int(run.stdout) == stack_identity(SHMEM)


def test_columns_answer_as_single_stacks_do() -> None:
    stacks = pa.array([SHMEM, None, ""])
    for answer, expected in ((coded.subsystems, ["shared memory (tmpfs)", None, "no stack"]),
                             (coded.modules, ["vmlinux", None, "vmlinux"]),
                             (coded.distinctive_frames, ["shmem_alloc_folio", None, ""])):
        assert coded.of_stacks(answer, stacks).to_pylist() == expected
    assert stack_identities(stacks).to_pylist()[0] == stack_identity(SHMEM)
    assert stack_identities(stacks).type == pa.uint64()


@pytest.mark.parametrize("kernel", ["6.12-fragmented", "6.1-sample"])
def test_next_to_nothing_of_a_real_dump_is_other(
    kernel: str, dump_stacks: dict[str, Counter[str]]
) -> None:
    pages = dump_stacks[kernel]
    other = sum(n for stack, n in pages.items() if subsystem(stack).endswith("other"))
    assert other < 0.02 * sum(pages.values())


@pytest.mark.parametrize("function", EXPECTED)
def test_a_function_of_a_real_kernel_is_named_rightly(
    function: str, real_stacks: dict[str, int]
) -> None:
    labels = {subsystem(stack) for stack in real_stacks if distinctive_frame(stack) == function}
    assert sorted(labels) == EXPECTED[function]


def test_every_rule_is_backed_by_a_real_stack_or_names_its_source(
    real_stacks: dict[str, int]
) -> None:
    matched = {matching_rule(stack) for stack in real_stacks}
    for rule in (*RULES, *LAST_RESORT):
        assert (rule in matched) != bool(rule.source), rule


def test_next_to_nothing_of_a_running_machine_is_other(real_stacks: dict[str, int]) -> None:
    other = sum(n for stack, n in real_stacks.items() if subsystem(stack).endswith("other"))
    assert other < 0.02 * sum(real_stacks.values())


def test_what_an_interrupt_broke_off_explains_nothing() -> None:
    stack = ("__alloc_pages+0x1/0x2\nnew_irq_thing+0x1/0x2\nasm_common_interrupt+0x1/0x2\n"
             "ext4_writepages+0x1/0x2")
    assert subsystem(stack) == "other"
    assert distinctive_frame(stack) == "new_irq_thing"


def test_shares_of_a_real_dump(dump_stacks: dict[str, Counter[str]]) -> None:
    """Counted by hand-made rules on the text of the stacks, apart from the table."""
    pages = dump_stacks["6.12-fragmented"]

    def counted(*inside: str, without: str = "\0") -> int:
        return sum(n for stack, n in pages.items()
                   if all(word in stack for word in inside) and without not in stack)

    def labelled(label: str) -> int:
        return sum(n for stack, n in pages.items() if subsystem(stack) == label)

    assert labelled("shared memory (tmpfs)") == counted("shmem_alloc_folio+", without="slab")
    assert labelled("pipes") == counted("pipe_write+", without="slab")
    assert labelled("huge pages (THP)") == (
        counted("\nvma_alloc_folio_noprof", "\ndo_huge_pmd_anonymous_page")
        + counted("hpage_collapse_scan_pmd"))
    assert labelled("kernel stacks") == counted("__vmalloc_node_range_noprof", "copy_process",
                                                without="slab") - counted("__pte_alloc_kernel",
                                                                          "copy_process")
    assert labelled("slab: dentries") == counted("__d_alloc+")
