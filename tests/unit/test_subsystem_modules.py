"""What memory is for, where functions of several modules share a name, and on other architectures
than x86."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import pageowner
from pageowner.analysis import coded
from pageowner.analysis.subsystems import distinctive_frame, module_of, subsystem

TEXTS = Path(__file__).parent.parent / "data/texts"

# By task, in the order of the text: what its memory is for, as TEXT.expected says it.
LABELS: dict[str, dict[str | None, str]] = {
    "19-vendor-30-pid-line.txt": {None: "anonymous memory; module bcmdhd"},
    "20-stacks-labels.txt": {
        "allocator@4.0-s": "ION", "surfaceflinger": "GPU (KGSL)", "mali": "GPU (Mali)",
        "allocator": "dma-buf heaps", "ksoftirqd/0": "network buffers", "swapper/0": "tracing",
        "kworker": "module mlx5_core", "sshd": "pipes", "fuse": "FUSE",
        "qemu": "anonymous memory", "init": "shared memory (tmpfs)",
        "cc1": "page cache; unmapping (TLB batches)"},
    "21-stacks-labels2.txt": {
        "kworker/u8": "device mapper", "kworker/u9": "device mapper",
        "gnome-shell": "slab: GPU (amdgpu)", "amd-init": "GPU (amdgpu)", "lctl": "slab: Lustre",
        "swapper/0": "huge pages (hugetlb)", "kworker": "other", "cpu-x86": "other",
        "arm32": "other", "riscv": "other", "mips": "other", "ppc64": "other", "s390": "other",
        "riscv-fault": "anonymous memory", "Xorg": "GPU (i915)",
        "kodi": "slab: VideoCore memory (vc_sm_cma)", "ftp": "slab: ext4 inodes",
        "mt": "kernel stacks"},
}


def stack(*frames: str) -> str:
    return "\n".join(f"{name}+0x10/0x20{' ' + module if module else ''}" if not
                     name.startswith("0x") else name
                     for name, _, module in (frame.partition(" ") for frame in frames))


PAGES = ("get_page_from_freelist", "__alloc_pages")
SLAB = (*PAGES, "allocate_slab", "___slab_alloc", "kmem_cache_alloc")


def answers(text: str) -> tuple[str, str, str]:
    """Of one stack, held against the same question put to a column."""
    alone = subsystem(text), module_of(text), distinctive_frame(text)
    column = pa.array([text])
    assert alone == tuple(coded.of_stacks(answer, column)[0].as_py() for answer in (
        coded.subsystems, coded.modules, coded.distinctive_frames))
    return alone


@pytest.mark.parametrize("text", LABELS)
def test_texts_of_phones_and_clusters_are_named_as_people_name_them(text: str) -> None:
    table = pageowner.read(TEXTS / text).table
    found: dict[str | None, list[str]] = {}
    for task, frames in zip(table.column("comm").to_pylist(), table.column("stack").to_pylist(),
                            strict=True):
        found.setdefault(task, []).append(subsystem(frames))
    assert {task: "; ".join(found[task]) for task in LABELS[text]} == LABELS[text]


@pytest.mark.parametrize(("frames", "label"), [
    # of the kernel proper, and of modules that have nothing to do with it
    (["ep_insert", "do_epoll_ctl"], "slab: epoll"),
    (["ep_alloc_request [gadgetfs]", "ep_write [gadgetfs]"], "slab: module gadgetfs"),
    (["md_alloc", "md_probe"], "slab: software RAID"),
    (["md_ccif_send [ccci_md_all]"], "slab: module ccci_md_all"),
    (["tcp_out_alloc [toy]"], "slab: module toy"),
    (["kobject_create", "kset_create_and_add"], "slab: sysfs and kernfs"),
    (["kobject_wrapper [toy]", "sysfs_create_group"], "slab: module toy"),
    (["mt_rx_alloc [mt76]", "mt76_dma_rx_fill [mt76]"], "slab: module mt76"),
    (["do_select [toy]"], "slab: module toy"),
    (["kmalloc_array.constprop.0 [toy]", "toy_init [toy]"], "slab: module toy"),
    # a module's own functions, whatever their names
    (["start_this_handle [jbd2]", "ext4_journal_start_sb [ext4]"], "slab: ext4"),
    (["alloc_thing [ext4]"], "slab: ext4"),
    (["fuse_alloc_inode [fuse]", "alloc_inode"], "slab: fuse inodes"),
    (["toy_alloc_inode [toy]", "alloc_inode"], "slab: module toy"),
    (["os_alloc_mem [nvidia]", "rm_init [nvidia]"], "slab: GPU (nvidia)"),
    (["mempool_alloc_slab", "mempool_alloc", "clone_bio [dm_mod]"], "slab: device mapper"),
    (["hook_entry [nf_tables]"], "slab: netfilter"),
    (["try_fill_recv [virtio_net]", "virtnet_poll [virtio_net]"], "slab: network buffers"),
    (["zs_malloc [zsmalloc]", "zram_write [zram]"], "slab: zram"),
])
def test_a_rule_is_for_the_kernel_and_the_modules_that_it_names(
    frames: list[str], label: str
) -> None:
    assert answers(stack(*SLAB, *frames))[0] == label


@pytest.mark.parametrize(("frames", "label", "frame"), [
    (["ttm_pool_alloc_page [ttm]", "ttm_pool_alloc [ttm]", "ttm_tt_populate [ttm]",
      "xe_bo_move [xe]"], "GPU (xe)", "xe_bo_move [xe]"),
    (["ttm_pool_alloc_page [ttm]", "ttm_pool_alloc [ttm]"], "GPU (DRM)", "ttm_pool_alloc [ttm]"),
    (["shmem_alloc_folio", "shmem_read_folio_gfp", "drm_gem_get_pages [drm]",
      "get_pages [msm]", "msm_gem_pin_pages [msm]"], "GPU (msm)", "get_pages [msm]"),
    (["shmem_alloc_folio", "shmem_read_folio_gfp", "drm_gem_get_pages",
      "panfrost_mmu_map_fault_addr"], "GPU (Mali)", "panfrost_mmu_map_fault_addr"),
    # a file of tmpfs behind which nothing is known stays one
    (["shmem_alloc_folio", "shmem_read_folio_gfp", "toy_backing"], "shared memory (tmpfs)",
     "toy_backing"),
    (["nvkm_mem_new [nouveau]"], "GPU (nouveau)", "nvkm_mem_new [nouveau]"),
    (["pin_user_pages", "i915_gem_userptr_get_pages [i915]"], "GPU (i915)",
     "i915_gem_userptr_get_pages [i915]"),
    (["do_anonymous_page", "handle_mm_fault", "pin_user_pages",
      "i915_gem_userptr_submit_init [i915]"], "anonymous memory", "do_anonymous_page"),
    (["alloc_contig_range", "cma_alloc", "cma_heap_allocate [cma_heap]"], "dma-buf heaps",
     "cma_heap_allocate [cma_heap]"),
    (["alloc_contig_range", "cma_alloc", "toy_open"], "CMA", "toy_open"),
])
def test_memory_of_a_gpu_is_its_drivers(frames: list[str], label: str, frame: str) -> None:
    found = answers(stack(*PAGES, *frames))
    assert (found[0], found[2]) == (label, frame)


@pytest.mark.parametrize("entry", [
    "el1_irq", "el0_irq", "el1h_64_irq", "__irq_svc", "__irq_usr", "__dabt_svc",
    "ret_from_exception", "riscv_intc_irq", "handle_int", "except_vec_vi_end",
    "decrementer_common_virt", "hardware_interrupt_common", "ext_int_handler", "pgm_check_handler",
    "handle_loongarch_irq", "apic_timer_interrupt", "asm_sysvec_apic_timer_interrupt"])
def test_what_an_interrupt_of_any_machine_broke_off_explains_nothing(entry: str) -> None:
    outer = ("ext4_da_write_begin [ext4]", "generic_perform_write", "vfs_write")
    assert answers(stack(*PAGES, "toy_refill", entry, *outer))[::2] == ("other", "toy_refill")
    # a module may have a function of that name
    assert answers(stack(*PAGES, "toy_refill", f"{entry} [toy]", *outer))[0] == "module toy"


def test_an_address_among_names_is_of_a_module_that_was_unloaded() -> None:
    gone = "0xffffffffc0a3b11d"
    assert answers(stack(*SLAB, gone, gone, "do_one_initcall", "load_module")) == (
        "slab: unknown module", "unknown module", gone)
    assert answers(stack(*SLAB, "foo_get [foo]", gone))[:2] == ("slab: module foo", "foo")
    # a dump of a kernel without symbols says nothing of modules
    assert answers("\n".join(["0xffffffff81123456", gone, "0xc0008430"])) == (
        "other", "vmlinux", "0xffffffff81123456")
    # what old kernels put at the end of a stack
    for end in ("0xffffffffffffffff", "0xffffffff", "0x0"):
        assert answers(stack(*PAGES, "toy", end))[:2] == ("other", "vmlinux")


def test_programs_that_the_kernel_made_are_no_modules() -> None:
    assert answers(stack(*SLAB, "bpf_map_update_elem [bpf]", "vfs_write"))[0] == "slab: BPF"
    assert answers(stack(*SLAB, "toy", "ftrace_trampoline [__builtin__ftrace]", "pipe_write"))[
        0] == "slab: tracing"
