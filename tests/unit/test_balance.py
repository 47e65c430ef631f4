"""Where all memory is: lines that add up to the last byte, of this machine and of others."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kept_paper import KeptPaper

import pageowner
from pageowner.analysis.balance import balanced
from pageowner.api.balance import facts
from pageowner.errors import PageownerError
from pageowner.kernel.cgroup_memory import CgroupCharges, CgroupMemory, read_charges
from pageowner.kernel.cgroups import Cgroups
from pageowner.kernel.meminfo import CloseRead, best, kilobytes
from pageowner.kernel.memory_pools import (
    HugetlbPool,
    Node,
    first_percpu_chunk,
    percpu_without_cpu,
    socket_bytes,
)
from pageowner.kernel.process_memory import (
    DeletedFile,
    OpenFiles,
    ProcessMemory,
    _dmabuf,
    named_files_open,
    processes,
)
from pageowner.kernel.shared_memory import Tmpfs, TmpfsFile, parse_sysv
from pageowner.kernel.slabs import SlabCache, parse_slabinfo
from pageowner.kernel.vmalloc_areas import parse_vmallocinfo
from pageowner.model.memory_facts import MemoryFacts
from pageowner.report import balance_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pageowner.analysis.balance import Balance, Row

RECORDED = Path(__file__).parents[1] / "data/balance/6.18"
MIB, GIB = 1 << 20, 1 << 30


def adds_up(balance: Balance) -> bool:
    def inner(rows: Any) -> bool:
        return all((not row.rows or sum(below.bytes for below in row.rows) == row.bytes)
                   and inner(row.rows) for row in rows)
    return (sum(row.bytes for row in balance.rows) == balance.total and inner(balance.rows)
            and (not balance.before or sum(row.bytes for row in balance.before)
                 == balance.installed - balance.total) and inner(balance.before))


def row(balance: Balance, key: str) -> Row:
    return next(row for row in balance.rows if row.key == key)


def all_rows(rows: Any) -> Iterator[Row]:
    for found in rows:
        yield found
        yield from all_rows(found.rows)


def machine(**counters: int) -> MemoryFacts:
    """A machine of 16 GiB; counters in MiB."""
    memory = {"MemTotal": 16384, "MemFree": 4096, "AnonPages": 4096, "Cached": 4096, "Shmem": 512,
              "Buffers": 128, "SReclaimable": 512, "SUnreclaim": 256, "KReclaimable": 512,
              "KernelStack": 16, "VmallocUsed": 128, "PageTables": 64, "Percpu": 8} | counters
    return MemoryFacts(4096, {name: value * MIB for name, value in memory.items()},
                       vmapped_stacks=True)


@pytest.mark.parametrize("attempt", range(3))
def test_this_machines_memory_adds_up_and_says_what_meminfo_says(attempt: int) -> None:
    balance = pageowner.balance()
    assert adds_up(balance)
    memory = balance.meminfo
    for key, counter in (("anonymous", "AnonPages"), ("shared", "Shmem"), ("free", "MemFree"),
                         ("slab_reclaimable", "SReclaimable"), ("page_tables", "PageTables"),
                         ("slab_unreclaimable", "SUnreclaim"), ("kernel_stacks", "KernelStack")):
        if memory.get(counter):
            assert row(balance, key).bytes == memory[counter], counter
    assert row(balance, "page_cache").bytes == (
        memory["Cached"] + memory["Buffers"] - memory["Shmem"])
    # what no counter counts is what drivers and networking take: the rest is counted once
    assert -0.001 * balance.total < balance.unknown < 0.25 * balance.total


def test_a_recorded_machine_equals_its_meminfo_slabinfo_and_vmallocinfo() -> None:
    balance = pageowner.balance(root=RECORDED)
    assert adds_up(balance)
    text = (RECORDED / "proc/vmallocinfo").read_text()
    areas = sum(map(int, re.findall(r"pages=(\d+)", text))) * 4096
    assert areas == balance.meminfo["VmallocUsed"]
    assert areas == sum(parse_vmallocinfo(text).values()) * 4096
    stacks, vmalloc = row(balance, "kernel_stacks"), row(balance, "vmalloc")
    assert stacks.bytes + vmalloc.bytes == balance.meminfo["VmallocUsed"]
    assert {"array_map_alloc", "htab_map_alloc"} <= {below.name for below in vmalloc.rows}
    caches = parse_slabinfo((RECORDED / "proc/slabinfo").read_text())
    counted, slabs = sum(cache.pages for cache in caches) * 4096, balance.meminfo["Slab"]
    assert 0 <= slabs - counted < slabs / 20  # kmalloc of more than two pages is in no cache
    assert balance.installed == (0x9f000 - 0x1000 + 0xbff00000 + 0x540000000) // 4096 * 4096 + (
        0x9fc00 - 0x9f000)
    assert sum(below.bytes for below in balance.before if below.key == "page_structs") == 384 * MIB


@pytest.mark.parametrize("lines", [
    pytest.param({}, id="5.15"),
    pytest.param({"SecPageTables": 32, "Zswap": 0}, id="6.1"),
    pytest.param({"SecPageTables": 32, "Unaccepted": 1024, "CmaFree": 64, "CmaTotal": 64},
                 id="6.12"),
    pytest.param({"SecPageTables": 32, "Balloon": 256, "GPUActive": 300, "GPUReclaim": 100,
                  "Unaccepted": 0}, id="7.3"),
])
def test_each_kernels_lines_are_counted_once(lines: dict[str, int]) -> None:
    before, balance = balanced(machine()), balanced(machine(**lines))
    assert adds_up(balance)
    taken = sum(lines.get(name, 0) for name in ("SecPageTables", "GPUActive", "GPUReclaim"))
    assert before.unknown - balance.unknown == taken * MIB
    for key, counter in (("secondary_page_tables", "SecPageTables"), ("gpu_active", "GPUActive")):
        if counter in lines:
            assert row(balance, key).bytes == lines[counter] * MIB
    if lines.get("CmaFree"):
        assert [(below.key, below.bytes) for below in row(balance, "free").rows] == [
            ("unaccepted", 1024 * MIB), ("free_cma", 64 * MIB), ("rest", 3008 * MIB)]


def test_a_balloon_counts_where_its_pages_are_part_of_the_total() -> None:
    inside = replace(machine(Balloon=256), balloon_outside=False)
    assert row(balanced(inside), "balloon").bytes == 256 * MIB
    unknown = balanced(replace(machine(Balloon=256)))
    assert "the balloon holds 256 MiB, which may not be part of MemTotal" in unknown.known
    outside = balanced(replace(machine(Balloon=256), balloon_outside=True,
                               present_pages=17 * GIB // 4096))
    assert adds_up(outside)
    assert [below.bytes for below in outside.before if below.key == "balloon"] == [256 * MIB]


def test_pages_of_another_machine_have_its_size(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1048576 kB\nMemFree: 524288 kB\n")
    (tmp_path / "proc/zoneinfo").write_text(
        "Node 0, zone   Normal\n        spanned  17000\n        present  17000\n"
        "        managed  16384\n    cpu: 0\n              count:    16\n  start_pfn:  0\n")
    found = facts(tmp_path)
    assert found.page_size == 65536
    assert row(balanced(found), "pcp").bytes == MIB


def test_kernel_stacks_are_not_counted_again_in_vmalloc() -> None:
    assert row(balanced(machine()), "vmalloc").bytes == 112 * MIB
    assert row(balanced(replace(machine(), vmapped_stacks=False)), "vmalloc").bytes == 128 * MIB
    # 0 always before 5.3
    old = balanced(machine(VmallocUsed=0))
    assert not any(found.key == "vmalloc" for found in old.rows)
    assert row(old, "kernel_stacks").bytes == 16 * MIB
    guessed = balanced(replace(machine(), vmapped_stacks=None))
    assert row(guessed, "vmalloc").bytes == 112 * MIB
    assert "CONFIG_VMAP_STACK" in guessed.notes[0]


def test_swap_cache_that_is_mapped_is_not_counted_twice() -> None:
    lists = {"Active": 4096, "Inactive": 4096, "Unevictable": 228}
    # 4096 anonymous, 4096 + 128 cached, 200 swap cache; 8420 pages on lists: 100 are in both
    balance = balanced(machine(SwapCached=200, **lists))
    assert row(balance, "swap_cache").bytes == 100 * MIB
    assert adds_up(balance)


def test_zram_and_zswap_share_the_pages_of_zsmalloc() -> None:
    told = replace(machine(Zswap=100), vmstat={"nr_zspages": 300 * MIB // 4096},
                   zram=[("zram0", 150 * MIB)])
    balance = balanced(told)
    assert [(below.key, below.bytes // MIB) for below in row(balance, "zsmalloc").rows] == [
        ("zram", 150), ("zswap", 100), ("rest", 50)]
    assert balanced(machine()).unknown - balance.unknown == 300 * MIB


def test_the_first_percpu_chunk_is_not_part_of_the_total() -> None:
    log = ["6,1,0,-;percpu: Embedded 53 pages/cpu s185560 r0 d31528 u1048576"]
    assert first_percpu_chunk(log, 2, 4096) == 106 * 4096
    assert first_percpu_chunk(log, 2, 1 << 16) == 106 << 16
    assert first_percpu_chunk(["percpu: 25 4K pages/cpu s78112"], 4, 1 << 16) == 100 * 4096
    assert first_percpu_chunk([], 2, 4096) is None


def test_units_of_percpu_memory_without_a_cpu_have_no_pages() -> None:
    log = ["7,9,0,-;pcpu-alloc: s78112 r8192 d16096 u262144 alloc=1*2097152",
           "7,10,0,-;pcpu-alloc: [0] 00 01 02 03 04 05 -- -- \n",
           "pcpu-alloc: [1] 6 7 8 9 - - - -"]
    assert percpu_without_cpu(log, 1600) == 600
    assert percpu_without_cpu(log[:1], 1600) == 0
    assert row(balanced(replace(machine(), percpu_without_cpu=MIB)), "percpu").bytes == (
        row(balanced(machine()), "percpu").bytes - MIB)


def test_what_is_in_a_cgroup_below_is_not_in_those_above(tmp_path: Path) -> None:
    for path, kernel in (("", 7), ("/a", 5), ("/a/b", 4), ("/a/b/c", 4), ("/a/d", 1)):
        (tmp_path / path[1:]).mkdir(exist_ok=True)
        (tmp_path / path[1:] / "memory.stat").write_text(
            f"anon {kernel}00\nfile 0\nkernel {kernel}\n")
    known = Cgroups(dict(enumerate(("/", "/a", "/a/b", "/a/b/c", "/a/d"))), str(tmp_path))
    assert {one.path: (one.anonymous, one.kernel) for one in read_charges(known).cgroups} == {
        "/": (200, 2), "/a": (0, 0), "/a/b": (0, 0), "/a/b/c": (400, 4), "/a/d": (100, 1)}


def test_files_that_are_held_open_are_told_by_their_mount(tmp_path: Path) -> None:
    """A process of two mounts, and files of which one cannot be looked at."""
    process = tmp_path / "proc" / "7"
    (process / "fd").mkdir(parents=True)
    (process / "fdinfo").mkdir()
    status = os.stat(tmp_path)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    (process / "mountinfo").write_text(
        f"31 1 {device} / /shm rw - tmpfs shm rw\n40 1 0:99 / /net rw - nfs4 away:/ rw\n")
    files = []
    for number, mount in (("3", "31"), ("4", "40"), ("5", "12")):
        (tmp_path / number).touch()
        (process / "fd" / number).symlink_to(tmp_path / number)
        (process / "fdinfo" / number).write_text(f"pos:\t0\nflags:\t02\nmnt_id:\t{mount}\n")
        files.append((device, os.stat(tmp_path / number).st_ino))
    assert named_files_open([7, 8], set(files), str(tmp_path / "proc")) == {files[0]}
    assert named_files_open([7], {("0:98", 5)}, str(tmp_path / "proc")) == set()


def test_a_buffer_is_as_large_as_the_kernel_says_whatever_its_name_says(tmp_path: Path) -> None:
    found: dict[int, int] = {}
    for inode, end in enumerate("\r\n\x0c"):
        (tmp_path / "3").write_text(f"ino:\t9\nsize:\t4096\nname:\tx{end}size:\t99999\n")
        _dmabuf(str(tmp_path / "3"), inode, found)
    assert found == {0: 4096, 1: 4096, 2: 4096}


def test_sockets_are_counted_in_pages_of_4_kib_before_6_0(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/sockstat").write_text("TCP: inuse 4 orphan 0 tw 0 alloc 5 mem 10\n")
    (tmp_path / "sys/kernel").mkdir(parents=True)
    for release, size in (("4.10.0", 1 << 16), ("4.18.0-553.el8.aarch64", 4096),
                          ("6.0.1", 1 << 16)):
        (tmp_path / "sys/kernel/osrelease").write_text(f"{release}\n")
        assert socket_bytes(1 << 16, str(tmp_path)) == {"TCP": 10 * size}


def test_the_first_percpu_chunk_is_taken_off_its_row() -> None:
    assert row(balanced(replace(machine(), first_percpu_chunk=MIB)), "percpu").bytes == 7 * MIB
    assert "first chunk" in row(balanced(machine()), "percpu").note


def test_counters_that_overlap_give_a_negative_rest_and_say_so() -> None:
    balance = balanced(machine(AnonPages=12000))
    assert balance.unknown < 0
    assert adds_up(balance)
    assert "overlap" in row(balance, "unknown").note
    assert [warned.key for warned in balance.warnings] == ["overlap"]


def test_what_was_read_later_than_its_sum_is_not_said_to_be_counted_twice() -> None:
    found = machine(AnonPages=4096)
    found.processes = [ProcessMemory(7, "db", 4300 * MIB, 5000 * MIB, 0, 4300 * MIB)]
    found.meanwhile = {"AnonPages": 4310 * MIB}
    balance = balanced(found)
    assert [(part.key, part.bytes // MIB) for part in row(balance, "anonymous").rows] == [
        ("process", 4300), ("moved", -214), ("rest", 10)]
    assert adds_up(balance)


def test_pages_on_their_way_to_be_free_are_not_taken_for_lost_memory() -> None:
    def reading(anonymous: int, free: int, pcp: int, moved: int) -> CloseRead:
        return CloseRead(f"MemTotal: 1000000 kB\nMemFree: {free} kB\nAnonPages: {anonymous} kB\n",
                         "", f"  count: {pcp}\n", moved << 10)

    in_flight, whole, blurred = (reading(300000, 500000, 100, 0), reading(300000, 600000, 0, 10),
                                 reading(400000, 600000, 0, 90000))
    assert best([in_flight, whole, blurred]) is whole
    assert best([blurred, in_flight]) is in_flight
    assert best([blurred, reading(400000, 600000, 0, 80000)]).moved == 80000 << 10


def test_a_healthy_machine_warns_of_nothing() -> None:
    assert balanced(machine(Cached=6800)).warnings == []


WARN: list[tuple[str, str, Callable[[MemoryFacts], MemoryFacts]]] = [
    ("slab_unreclaimable", "hold 2 GiB; the largest is kmalloc-64 with 1 GiB", lambda found:
     replace(found, meminfo=found.meminfo | {"SUnreclaim": 2 * GIB}, reclaimable_slabs=set(),
             slabs=[SlabCache("kmalloc-64", 10, 10, 64, GIB // 4096)])),
    ("slab_empty", "slab dentry is 75% empty: 300 MiB", lambda found:
     replace(found, slabs=[SlabCache("dentry", MIB // 2, 2 * MIB, 200, 10)],
             reclaimable_slabs={"dentry"})),
    ("cgroups_removed", "1,200 cgroups that were removed are still charged and hold 1 GiB",
     lambda found: replace(found, charges=CgroupCharges(removed=1200, removed_bytes=GIB))),
    ("deleted_file", "deleted file /run/x on tmpfs, held open by process 7 (java): 200 MiB",
     lambda found: replace(found, tmpfs=[Tmpfs("/run", "0:9", 300 * MIB)], files=OpenFiles(
         [DeletedFile("/run/x", "0:9", 5, 200 * MIB, ((7, "java"),))]))),
    ("shm_unused", "1 file in /dev/shm, which no process maps or holds open: 300 MiB",
     lambda found: replace(found, unmapped_shm=[TmpfsFile("/dev/shm/a", "0:9", 5, 300 * MIB)])),
    ("hugetlb_idle", "100 of 512 huge pages of 2,048 KiB are unused: 200 MiB, of which 20 MiB",
     lambda found: replace(found, hugetlb=[HugetlbPool(2 * MIB, 512, 100, 10)])),
    ("page_tables", "page tables hold 2 GiB, to map", lambda found:
     replace(found, meminfo=found.meminfo | {"PageTables": 2 * GIB})),
    ("page_tables", "process 9 (db) has 40 MiB of page tables for 20 MiB", lambda found:
     replace(found, processes=[ProcessMemory(9, "db", MIB, 20 * MIB, 40 * MIB, MIB)])),
    ("nodes", "node 1 has 5% free and node 0 50%", lambda found:
     replace(found, nodes=[Node(0, 8 * GIB, 4 * GIB), Node(1, 8 * GIB, 8 * GIB // 20)])),
    ("unknown", "3.2 GiB are in no counter", lambda found:
     replace(found, meminfo=found.meminfo | {"Cached": 3264 * MIB + 512 * MIB})),
]


@pytest.mark.parametrize(("key", "text", "change"), WARN, ids=[f"{key}: {text[:20]}"
                                                                for key, text, _ in WARN])
def test_memory_that_is_lost_is_warned_of(
        key: str, text: str, change: Callable[[MemoryFacts], MemoryFacts]) -> None:
    balance = balanced(change(machine(Cached=6800)))
    found = [warned for warned in balance.warnings if warned.key == key]
    assert found, balance.warnings
    assert text in found[0].text
    assert found[0].command
    assert adds_up(balance)


def test_where_it_is_not_known_which_slabs_can_be_reclaimed_none_is_named() -> None:
    balance = balanced(replace(machine(Cached=6800, SUnreclaim=2048), reclaimable_slabs=None,
                               slabs=[SlabCache("dentry", 10, 10, 192, GIB // 4096)]))
    assert [warned.text for warned in balance.warnings if warned.key == "slab_unreclaimable"] == [
        "slabs that cannot be reclaimed hold 2 GiB"]


def test_parts_of_lines_are_by_name_and_add_up() -> None:
    told = replace(
        machine(Hugetlb=1024),
        processes=[ProcessMemory(5, "a", 3 * GIB, GIB, 0, 2 * GIB), ProcessMemory(
            6, "b", GIB, GIB, 0, None)],
        tmpfs=[Tmpfs("/run", "0:9", 300 * MIB)], shm_device="0:1",
        files=OpenFiles([DeletedFile("/run/x", "0:9", 5, 200 * MIB, ((7, "java"), (8, "java"))),
                         DeletedFile("/memfd:buf", "0:1", 6, 50 * MIB, ((7, "java"),)),
                         DeletedFile("/var/log/y", "8:1", 7, GIB, ((7, "java"),))]),
        sysv=parse_sysv("key shmid perms size cpid nattch rss swap\n0 3 600 9 77 0 1048576 0\n"),
        hugetlb=[HugetlbPool(2 * MIB, 512, 100, 10)], reclaimable_slabs={"dentry"},
        slabs=[SlabCache("dentry", 5, 10, 192, 100), SlabCache("kmalloc-8", 1, 1, 8, 10)],
        vmalloc={"kernel_clone": 17 * MIB // 4096, "htab_map_alloc": 10 * MIB // 4096},
        stack_callers={"kernel_clone"})
    balance = balanced(told)
    assert adds_up(balance)
    names = {below.name: below.bytes for below in all_rows(balance.rows)}
    for name, held in (("process 5 (a)", 2 * GIB), ("tmpfs /run", 300 * MIB),
                       ("deleted /run/x of 7 (java) and 1 more", 200 * MIB),
                       ("memfd:buf of 7 (java)", 50 * MIB), ("htab_map_alloc", 10 * MIB),
                       ("System V segment 3 of process 77", MIB), ("dentry", 409600),
                       ("2,048 KiB: in use", 824 * MIB), ("kernel stacks kept for new tasks", MIB),
                       ("2,048 KiB: reserved, not used yet", 20 * MIB)):
        assert names[name] == held, name
    assert not any("/var/log/y" in name for name in names)  # its blocks are on disk


def test_memory_planted_here_is_found_by_name() -> None:
    """100 MiB of a process of ours within two percent, and a memfd of 40 MiB."""
    code = ("import os, re, sys, mmap;"
            "before = re.search('RssAnon:.*?([0-9]+)', open('/proc/self/status').read())[1];"
            "m = mmap.mmap(-1, 100 << 20, mmap.MAP_PRIVATE);"
            "m.write(b'x' * (100 << 20)); f = os.memfd_create('planted');"
            "os.write(f, b'y' * (40 << 20)); print(before, flush=True); sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        before = int(child.stdout.readline()) << 10
        balance = pageowner.balance()
        names = {below.name.split(" (")[0]: below.bytes for below in all_rows(balance.rows)}
        held_by_child = names[f"process {child.pid}"]
        assert held_by_child == pytest.approx(before + 100 * MIB, rel=0.02)
        assert adds_up(balance)
        name = f"memfd:planted of {child.pid} ("  # others may plant beside it
        held = [below for below in row(balance, "shared").rows if below.name.startswith(name)]
        assert [below.bytes for below in held] == [40 * MIB]


def test_a_file_is_found_in_the_page_cache(tmp_path: Path) -> None:
    with (tmp_path / "planted").open("wb") as file:
        file.write(b"z" * (30 * MIB))
        file.flush()
        balance = pageowner.balance()
    files = next(below for below in row(balance, "page_cache").rows if below.key == "files")
    if not files.rows:
        pytest.skip("no cachestat here, or no local disk")
    inside = [below for place in files.rows for below in (place, *place.rows)]
    held = [below.bytes for below in inside if below.name == str(tmp_path / "planted")]
    if not held:
        pytest.skip("the file is on no local disk, or there was no time to look at it")
    assert held == [30 * MIB]
    assert adds_up(balance)


def test_json_has_every_line_and_adds_up(cli: Callable[..., Any]) -> None:
    status, out, err = cli("balance", "--json", "--root", RECORDED)
    assert (status, err.count(b"\n")) == (0, err.count(b"pageowner: "))
    found = json.loads(out)
    assert sum(line["bytes"] for line in found["rows"]) == found["total"]
    assert found["installed"] - found["total"] == sum(line["bytes"] for line in found["before"])


def test_the_table_has_the_rest_as_a_line(cli: Callable[..., Any]) -> None:
    status, out, _ = cli("balance", "--root", RECORDED)
    assert status == 0
    assert b"not accounted for by any counter" in out
    assert b"VmallocUsed - KernelStack" in out
    assert b"free(1) shows: total 23.5 GiB" in out


def test_all_parts_and_some_contradict_each_other(cli: Callable[..., Any]) -> None:
    status, out, err = cli("balance", "--all", "--top", "3", "--root", RECORDED)
    assert (status, out, b"contradict" in err) == (2, b"", True)


def drawn(facts: MemoryFacts, top: int | None) -> list[str]:
    paper = KeptPaper(100)
    balance_view.draw(balanced(facts), paper, top)
    return paper.lines


def test_files_of_the_same_name_and_size_are_each_counted() -> None:
    same = [DeletedFile("/memfd:buf", "0:1", number, 50 * MIB, ((7, "java"),))
            for number in range(4)]
    lines = drawn(replace(machine(), shm_device="0:1", files=OpenFiles(same)), 1)
    place = next(place for place, line in enumerate(lines) if "memfd:buf" in line)
    assert lines[place + 1].split()[:4] == ["3", "others", "150", "MiB"]


def test_cgroups_without_charges_are_neither_shown_nor_counted() -> None:
    charged = [CgroupMemory(f"/{name}", MIB, 0, 0) for name in "abc"]
    charges = CgroupCharges([*charged, CgroupMemory("/empty", 0, 0, 0)])
    lines = drawn(replace(machine(), charges=charges), 1)
    assert any(line.startswith("/a ") for line in lines)
    assert "2 more cgroups; --all shows them" in lines
    alone = replace(machine(), charges=CgroupCharges([charged[0], *charges.cgroups[3:]]))
    assert not any("CGROUP" in line for line in drawn(alone, None))


def test_a_directory_without_meminfo_is_refused_in_one_line(
        tmp_path: Path, cli: Callable[..., Any]) -> None:
    status, _, err = cli("balance", "--root", tmp_path)
    assert status == 1
    assert b"proc/meminfo" in err
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("nothing: here\n")
    with pytest.raises(PageownerError, match="MemTotal"):
        facts(tmp_path)


def test_hostile_names_are_made_visible(cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "proc/66").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1000000 kB\nAnonPages: 90000 kB\n")
    (tmp_path / "proc/66/status").write_text(
        "Name:\t\x1b[2Jx\nVmRSS:\t 90000 kB\nRssAnon: 90000 kB\n")
    (tmp_path / "proc/67").mkdir()  # one that ended, and has no memory
    (tmp_path / "proc/67/status").write_text("Name:\t\rVmRSS:\t9 kB\nState:\tZ\n", newline="")
    status, out, _ = cli("balance", "--root", tmp_path)
    assert status == 0
    assert b"process 66 (\\x1b[2Jx)" in out
    assert [process.pid for process in processes(str(tmp_path / "proc"))] == [66]


def test_meminfo_is_in_units_of_1024_bytes() -> None:
    assert kilobytes("MemTotal:  2 kB\nHugePages_Total:  5\nbad line\nX: y kB\n") == {
        "MemTotal": 2048}


def test_lines_of_code_stand_beside_slabs_and_areas_where_the_kernel_tells_them(
        tmp_path: Path) -> None:
    shutil.copytree(RECORDED, tmp_path, dirs_exist_ok=True)
    flag = tmp_path / "sys/kernel/slab/dentry/reclaim_account"
    flag.parent.mkdir(parents=True)
    flag.write_text("1\n")
    before = pageowner.balance(root=tmp_path)
    slab = next(below for below in row(before, "slab_reclaimable").rows if below.name == "dentry")
    caller = row(before, "vmalloc").rows[0].name
    traces = tmp_path / "sys/kernel/debug/slab" / slab.name / "alloc_traces"
    traces.parent.mkdir(parents=True)
    traces.write_text("     12 other+0x1/0x20 age=1 pid=1\n   4000 make_it+0x8/0x60 waste=1/2"
                      " age=1/2/3 pid=1-9\n        a_frame+0x1/0x2\n")
    (tmp_path / "proc/allocinfo").write_text(
        "allocinfo - version: 1.0\n#     <size>  <calls> <tag info>\n"
        "        4096       1 mm/a.c:12 func:make_it\n"
        "      409600     100 mm/a.c:70 func:make_it\n"
        f"       8192       2 mm/b.c:5 [module] func:{caller}\n")
    balance = pageowner.balance(root=tmp_path)
    notes = {below.name: below.note for name in ("slab_reclaimable", "vmalloc")
             for below in row(balance, name).rows}
    assert notes[slab.name].endswith("; most by make_it (mm/a.c:70)")
    assert notes[caller] == "mm/b.c:5"
