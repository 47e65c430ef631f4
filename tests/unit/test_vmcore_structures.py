"""Structures in a vmcore: lists that end, names of files and mounts, large folios, slab caches.
Those of real kernels are read in guests (tests/vm, jobs ``panic-sysrq`` and ``panic-oom``)."""

from __future__ import annotations

import struct
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_vmcore import Bytes

from pageowner.errors import PageownerError
from pageowner.kernel.flag_bits import mask
from pageowner.kernel_memory.access import Member
from pageowner.tracker.users.layout import FILE_CUT, FILE_FAILED, FILE_ROOTLESS
from pageowner.vmcore import facts, in_use, limits, modules, page_structs
from pageowner.vmcore.follow import Follow
from pageowner.vmcore.large_folios import LargeFolios
from pageowner.vmcore.open_files import deleted_files, open_files
from pageowner.vmcore.slab_caches import slab_caches
from pageowner.vmcore.structs import hlist, linked
from pageowner.vmcore.user_files import Dentries
from pageowner.vmcore.user_structures import KernelStructures


def types(members: dict[tuple[str, str], tuple[int, ...]], sizes: dict[str, int] | None = None,
          enums: dict[tuple[str, str], int] | None = None) -> Any:
    return SimpleNamespace(
        member=lambda name, path: Member(*members[name, path]) if (name, path) in members else None,
        size=(sizes or {}).get,
        enumerator=lambda name, value: (enums or {}).get((name, value)))


def words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def chain(links: list[int], last: int) -> Bytes:
    """Links at 0x1000, 0x2000, ...: ``links`` are their numbers in order of the list."""
    places = [0x1000 * number for number in links]
    return Bytes({place: words(following) for place, following in zip(
        places, [*places[1:], last], strict=True)})


def test_a_list_ends_where_it_began() -> None:
    memory: Any = chain([1, 5, 2, 9], 0x1000)
    assert list(linked(memory, 0x1000)) == [0x5000, 0x2000, 0x9000]
    memory = chain([1, 5, 2], 0)
    assert list(hlist(memory, 0x1000)) == [0x5000, 0x2000]


@pytest.mark.parametrize("back", [2, 3, 40])
@pytest.mark.parametrize("walk", [linked, hlist])
def test_a_list_in_a_circle_is_soon_found_out(walk: Any, back: int) -> None:
    memory: Any = chain([1, *range(2, 42)], 0x1000 * back)
    with pytest.raises(PageownerError, match="no end"):
        list(islice(walk(memory, 0x1000), 400))


def test_reading_ends_when_too_much_is_missing_or_it_takes_too_long(
        monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5.0
    monkeypatch.setattr(limits.time, "thread_time", lambda: now)
    small, large = limits.Limits(1 << 20), limits.Limits(1 << 40)
    assert small.missing < large.missing
    for found in (small, large):
        found.check(found.missing)
        with pytest.raises(PageownerError, match="not in it"):
            found.check(found.missing + 1)
    now += small.seconds + 1
    large.check(0)
    with pytest.raises(PageownerError, match="longer than"):
        read_often(small)


def read_often(found: limits.Limits) -> None:
    for _ in range(1000):
        found.check(0)


DENTRY = {("dentry", "d_parent"): (0, 8), ("dentry", "d_name.name"): (8, 8),
          ("dentry", "d_name.len"): (16, 4)}


def dentry(parent: int, name: int, length: int) -> bytes:
    return words(parent, name, length)


def test_a_file_is_named_from_its_dentry_up_to_the_root() -> None:
    texts = {0x9000: b"base.db".ljust(300, b"\0"), 0x9200: b"lib".ljust(300, b"\0"),
             0x9400: b"/".ljust(300, b"\0")}
    memory: Any = Bytes({
        0x1000: dentry(0x2000, 0x9000, 7), 0x2000: dentry(0x3000, 0x9200, 3),
        0x3000: dentry(0x3000, 0x9400, 1),
        0x4000: dentry(0x4000, 0x9000, 7),  # in no directory
        0x5000: dentry(0x6000, 0x9200, 3), 0x6000: dentry(0x5000, 0x9200, 3),  # a circle
        0x7000: dentry(0x3000, 0x9200, 2),  # which has another length
        0x8000: dentry(0xF000, 0x9200, 3), **texts}, types(DENTRY))
    names = Dentries(Follow(memory))
    names.learn(np.array([0x1000, 0x4000, 0x5000, 0x7000, 0x8000], np.uint64))
    assert names.path(0x1000) == (b"base.db/lib/", 0)
    assert names.path(0x4000) == (b"base.db/", FILE_ROOTLESS)
    assert names.path(0x5000)[1] == FILE_CUT
    assert names.path(0x7000)[1] == names.path(0x8000)[1] == FILE_FAILED


PAGE = 64


def structs(count: int, **of: dict[int, int]) -> np.ndarray:
    """Page structs with these words: ``flags={0: 5}`` of frame 0, ``mapcount`` in byte 24 on."""
    raw = np.zeros((count, PAGE), np.uint8)
    for place, number in of.get("flags", {}).items():
        raw[place].view("<u8")[0] = number
    raw.view("<i4")[:, 6] = -1
    for place, number in of.get("mapcount", {}).items():
        raw[place].view("<i4")[6] = number
    return raw


def folios(release: str) -> LargeFolios:
    memory: Any = Bytes({}, types(
        {("page", "flags"): (0, 8), ("folio", "_large_mapcount"): (PAGE + 24, 4),
         ("folio", "_entire_mapcount"): (PAGE + 24, 4)}, {"page": PAGE},
        {("pageflags", "PG_large_rmappable"): 9}))
    memory.release = release
    return LargeFolios(memory)


def test_large_folios_are_told_by_their_second_page_on_new_kernels() -> None:
    found = np.zeros(8, np.uint64)
    owner = np.array([0, 0, 0, 0, 4, 4, 6, 7])
    raw = structs(8, flags={1: 1 << 9}, mapcount={1: 0})
    folios("6.12.1").add(found, raw, 1000, np.array([0, 4]), owner)
    assert found.tolist() == [mask("thp", "mmap")] * 4 + [0] * 4


def test_large_folios_are_told_by_their_lists_on_old_kernels() -> None:
    lru = mask("lru")
    found = np.array([lru, 0, 0, mask("mmap"), 0, 0, lru, mask("slab")], np.uint64)
    owner = np.array([0, 0, 0, 0, 4, 4, 6, 7])
    folios("6.1.1").add(found, structs(8), 1000, np.array([0, 4]), owner)
    assert found.tolist() == [lru | mask("thp", "mmap"), *[mask("thp", "mmap")] * 3, 0, 0, lru,
                              mask("slab")]


@pytest.mark.parametrize("newest", [False, True])
def test_slab_caches_are_counted_as_slabinfo_has_them(newest: bool) -> None:
    nodes: dict[tuple[str, str], tuple[int, ...]] = {
        ("kmem_cache", "per_node"): (32, 64), ("kmem_cache_per_node_ptrs", "node"): (8, 8),
    } if newest else {("kmem_cache", "node"): (40, 64)}
    members = nodes | {
        ("kmem_cache", "list"): (0, 16), ("kmem_cache", "name"): (16, 8),
        ("kmem_cache", "oo"): (24, 4), ("kmem_cache", "size"): (28, 4),
        ("kmem_cache", "flags"): (32, 4),
        ("kmem_cache_node", "nr_slabs"): (0, 8), ("kmem_cache_node", "total_objects"): (8, 8),
        ("kmem_cache_node", "partial"): (16, 16), ("slab", "slab_list"): (0, 16),
        ("slab", "inuse"): (16, 4, 128, 16), ("slab", "objects"): (16, 4, 144, 15)}
    cache = words(0x100, 0, 0x5000) + struct.pack("<IIQ", 1 << 16 | 32, 256, 1 << 4) + words(0x6000)
    memory: Any = Bytes({
        0x100: words(0x1000), 0x1000: cache, 0x5000: b"dentry".ljust(80, b"\0"),
        0x6000: words(7, 224, 0x7000, 0),
        0x7000: words(0x6010, 0, 20 | 32 << 16)}, types(
            members, enums={("_slab_flag_bits", "_SLAB_RECLAIM_ACCOUNT"): 4}),
        {"slab_caches": 0x100})
    (found,), reclaimable = slab_caches(memory)
    assert (found.name, found.objects, found.active) == ("dentry", 224, 212)
    assert (found.pages, found.per_slab, found.slab_pages, found.object_size) == (14, 32, 2, 256)
    assert reclaimable == {"dentry"}
    memory.pieces[0x7000] = words(0x7000, 0, 0)  # a circle
    with pytest.raises(PageownerError, match="no end"):
        slab_caches(memory)


def test_deleted_files_are_of_who_has_them_open() -> None:
    members = {("files_struct", "fdt"): (0, 8), ("fdtable", "max_fds"): (0, 4),
               ("fdtable", "fd"): (8, 8), ("file", "f_inode"): (0, 8),
               ("inode", "i_nlink"): (0, 4), ("inode", "i_ino"): (8, 8), ("inode", "i_sb"): (16, 8),
               ("super_block", "s_dev"): (0, 4)}
    memory: Any = Bytes({
        0x100: words(0x1000), 0x200: words(0x2000), 0x300: words(0xF000),
        0x1000: words(4, 0x5000), 0x2000: words(1 << 30, 0x6000),
        0x5000: words(0x7000, 0, 0x7100, 0x7000),
        0x7000: words(0x8000), 0x7100: words(0x8100),
        0x8000: words(0, 4711, 0x9000), 0x8100: words(1, 4712, 0x9000),
        0x9000: words(8 << 20 | 1)}, types(members))
    opened = open_files(Follow(memory), {0x100: 7, 0x200: 8, 0x300: 9})
    assert opened.left_out == 2  # one too large, one not there
    assert deleted_files(Follow(memory), opened, {7: "sh", 8: "x"}) == {("8:1", 4711): [(7, "sh")]}


def tasks(*links: tuple[int, int]) -> Any:
    """Structures of two processes: the first, at 0x1000, has threads at 0x2000 and 0x3000, the
    other, at 0x4000, has none. ``links``: what the ``thread_node.next`` of tasks is besides."""
    members = {("task_struct", name): (8 * at, 8) for at, name in enumerate((
        "pid", "tgid", "stack", "flags", "mm", "tasks.next", "thread_node.next", "signal",
        "files"))} | {("task_struct", "comm"): (72, 16), ("mm_struct", "pgd"): (0, 8),
                      ("task_struct", "tasks"): (40, 16), ("task_struct", "thread_node"): (48, 16),
                      ("signal_struct", "thread_head"): (0, 16)}
    following = {0x1000: 0x2030, 0x2000: 0x3030, 0x3000: 0x100, 0x4000: 0x200} | dict(links)
    memory = Bytes({task: words(task >> 12, 4 if task == 0x4000 else 1, 0,
                                0x00200000 if task == 0x1000 else 0, 0x500, other + 40,
                                following[task], 0x200 if task == 0x4000 else 0x100, 0)
                    + b"sh".ljust(16, b"\0")
                    for task, other in ((0x1000, 0x4000), (0x2000, 0), (0x3000, 0),
                                        (0x4000, 0x1000))} | {0x500: words(0xABC)})
    made = object.__new__(KernelStructures)
    memory.types = types(members)  # type: ignore[attr-defined]
    memory.info.symbols["init_task"] = 0x1000
    made.memory, made.failed, made.follow = memory, {}, Follow(memory)  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(("links", "pids", "failed"), [
    ((), [1, 2, 3, 4], {}),
    (((0x2000, 0x1030),), [1, 2, 4], {"tasks": 1}),  # back to one that was seen
    (((0x2000, 0x4030),), [1, 2, 4], {"tasks": 1}),  # to another process
    (((0x1000, 0x9030),), [1, 4], {"tasks": 1}),  # to what is not there
])
def test_after_a_damaged_list_of_threads_comes_the_next_process(
        links: Any, pids: list[int], failed: dict[str, int]) -> None:
    structures = tasks(*links)
    found = structures._all_tasks()
    assert found["pid"].tolist() == pids
    assert structures.failed == failed
    assert found["mm"].tolist() == [0] + [0x500] * (len(pids) - 1)  # the first has borrowed it


def test_a_name_without_an_end_costs_no_more_than_the_longest() -> None:
    count = 1 << 12
    symbols = b"".join(struct.pack("<IBBHQQ", at, 0, 0, 0, 0x1000 + at, 8) for at in range(count))
    places = ("num_symtab", "symtab", "typetab", "strtab")
    memory: Any = SimpleNamespace(
        missing=0, types=types({("module", "kallsyms"): (0, 8), ("module", "name"): (8, 4)} | {
            ("mod_kallsyms", name): (8 * at, 8) for at, name in enumerate(places)}))
    inner = Bytes({0x100: words(0x1000) + b"mod\0", 0x1000: words(count, 0x10000, 0x90000, 0xA0000),
                   0x10000: symbols, 0x90000: b"t" * count})
    memory.copy, memory.read = inner.copy, inner.read
    memory.fill = lambda _address, size: (np.full(size, ord("x"), np.uint8), True)
    lines = modules._of_module(memory, 0x100).splitlines()
    assert len(lines) == count
    assert lines[-1] == b"%016x t %b\t[mod]" % (0x1000 + count - 1, b"x" * 512)


PAGES_AT = 0xFFFFEA0000000000


@pytest.mark.parametrize(("release", "is_shared"), [
    ("6.6.0", False), ("6.6.0", True), ("6.12.0", False), ("6.12.0", True)])
def test_a_huge_page_of_1_gib_is_one_of_its_order_and_of_hugetlb(
        monkeypatch: pytest.MonkeyPatch, release: str, is_shared: bool) -> None:
    """``is_shared``: all its page structs are in one page, mapped again and again."""
    head, order = 1 << 18, 18
    raw = np.zeros((1 << 19, 64), np.uint8)
    raw.view("<u8")[:, 0] = 1 << 40
    raw.view("<u4")[:, 12] = 0xFFFFFFFF
    raw.view("<u8")[head, 0] |= 1 << 6
    raw.view("<u8")[head + 1:head + (1 << order), 1] = PAGES_AT + head * 64 | 1
    maps = SimpleNamespace(
        size=64, ranges=[(1 << 15, 1 << 19)], known=lambda first, stop: np.ones(stop - first, bool),
        read=lambda first, stop: (raw[first:stop].copy(), np.ones(stop - first, bool)),
        read_some=lambda pfn: (raw[pfn.astype(np.int64)], np.ones(len(pfn), bool)),
        addresses=lambda pfn: np.uint64(PAGES_AT) + pfn * np.uint64(64))
    monkeypatch.setattr(page_structs, "mem_maps", lambda _memory: maps)
    monkeypatch.setattr(page_structs, "Charges", lambda _memory: None)
    monkeypatch.setattr(page_structs, "LargeFolios",
                        lambda _memory: SimpleNamespace(add=lambda *_: None))
    memory: Any = SimpleNamespace(
        release=release, page_size=4096, info=SimpleNamespace(numbers={}), types=types(
        {("page", "flags"): (0, 8), ("page", "compound_head"): (8, 8), ("page", "private"): (40, 8),
         ("page", "mapping"): (24, 8), ("page", "page_type"): (48, 4),
         ("page", "_refcount"): (52, 4), ("page", "_mapcount"): (48, 4),
         ("zone", "free_area"): (0, 11 * 128)},
        {"free_area": 128, "page": 64}, {
            ("pageflags", "PG_head"): 6, ("pageflags", "PG_dirty"): 4, **(
                {("pageflags", "PG_hugetlb"): 5} if release == "6.6.0" else
                {("pagetype", f"PGTY_{name}"): 0xF0 + byte for byte, name in enumerate((
                    "buddy", "offline", "table", "guard", "hugetlb", "slab"))})}))
    raw.view("<u8")[head, 0] |= 1 << 4
    raw.view("<u8")[head, 3] = 0x77 << 32 | 1  # anonymous memory of a process
    if release == "6.6.0":
        raw.view("<u8")[head + 1, 0] |= 1 << 5
    else:
        raw.view("<u4")[head, 12] = 0xF4000000
    if is_shared:
        raw[head:head + (1 << order)] = np.tile(raw[head:head + 64], ((1 << order) // 64, 1))
    frames = page_structs.VmcoreFrames(memory)
    pfn, orders, _ = in_use.blocks(frames)
    assert orders.max() == order
    assert pfn[orders == order].tolist() == [head]
    assert len(pfn) == (1 << 19) - (1 << 15) - (1 << order) + 1
    inside = frames.flags(head + 5000, 10)  # what the first says holds of all
    assert (inside & np.uint64(mask("huge")) != 0).all()
    if release == "6.12.0":  # flags too, since 6.9
        assert (inside & np.uint64(mask("dirty")) != 0).all()
    assert (inside & np.uint64(mask("anon")) != 0).all()
    is_anonymous = facts._Anonymous(frames)  # whom balance gives to processes
    assert not is_anonymous(np.arange(head, head + 600, 100, dtype=np.uint64)).any()
    raw.view("<u8")[head - 9, 3] = 0x77 << 32 | 1
    assert facts._Anonymous(frames)(np.array([head - 9, head], np.uint64)).tolist() == [True, False]


def shares(monkeypatch: pytest.MonkeyPatch, tasks: list[tuple[int, int]],
           looks: list[dict[int, list[int]]]) -> dict[int, int]:
    """``tasks``: tgid and mm; ``looks``: the page frames of each process, look by look."""
    left = {pid: [look[pid] for look in looks] for pid in looks[0]}
    tables = SimpleNamespace(known=True, pieces_of_process=lambda pid, _keep: iter(
        [np.array(left[pid].pop(0), np.uint64)]))
    monkeypatch.setattr(facts, "PageTables", lambda *_: tables)
    frames: Any = SimpleNamespace(ranges=lambda: [(0, 8)])
    rows = np.array(tasks, [("tgid", "<i4"), ("mm", "<u8")])
    return facts._shares(SimpleNamespace(
        tasks=lambda: rows, memory=SimpleNamespace(page_size=4096)), frames)


def test_an_address_space_of_two_processes_is_of_the_first(
        monkeypatch: pytest.MonkeyPatch) -> None:
    look = {9: [0, 1, 2, 3], 5: [0, 1, 2, 3], 7: [3, 4]}
    tasks = [(2, 0), (9, 0x500), (9, 0x500), (5, 0x500), (7, 0x400)]
    assert shares(monkeypatch, tasks, [look, look]) == {9: 4096 * 7 // 2, 7: 4096 * 3 // 2}


def test_a_page_that_is_mapped_between_two_looks_is_of_its_process(
        monkeypatch: pytest.MonkeyPatch) -> None:
    assert shares(monkeypatch, [(7, 0x400)], [{7: [3]}, {7: [3, 4]}]) == {7: 4096 * 2}
