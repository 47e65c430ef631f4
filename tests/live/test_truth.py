"""What the tracker says is true: programs that take a known number of pages are found with it.

All programs of hold.py run at once, each in a memory cgroup of its own; one capture while they
hold their pages, one when they are gone.
"""

from __future__ import annotations

import fnmatch
import json
import mmap
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from machine import mapped_frames, memory_cgroup, pages_by_state, resident

from pageowner.analysis.keys import blocks_pages, key
from pageowner.kernel.frames import frames
from pageowner.kernel.pageflags import bit
from pageowner.model.hook_states import is_whole
from pageowner.model.snapshot import STATES, Snapshot

PAGES = 4096
THREADS = 400
STACK_PAGES = 4
"""A kernel stack on x86-64 and arm64 with 4 KiB pages: THREAD_SIZE is 16 KiB."""


@dataclass(frozen=True)
class Expected:
    """How a program's pages are known: a function in their stacks, the system call (or fault) that
    took them, whether they are charged to the task's memory cgroup, pages more than asked for that
    the kernel may need, and the orders that their blocks can have."""

    function: str
    entry: str
    charged: bool = True
    more: int = 0
    order: range = range(1)


FAULT = "*exc_page_fault"
PROGRAMS = {
    "pipes": Expected("*pipe_write", "ksys_write"),
    "unix": Expected("unix_stream_sendmsg", "__sys_sendto", order=range(4)),
    # Each task fills blocks of 32 KiB: the last is not full. Data in flight counts against the
    # socket's limits, its pages are charged to no cgroup.
    "tcp": Expected("tcp_sendmsg_locked", "__sys_sendto", charged=False, more=8, order=range(4)),
    "tmpfs": Expected("shmem_alloc_folio", "ksys_write"),
    "anonymous": Expected("do_anonymous_page", FAULT),
    "populate": Expected("do_anonymous_page", "*sys_madvise"),
    "huge": Expected("do_huge_pmd_anonymous_page", FAULT, order=range(9, 10)),
    "split": Expected("do_huge_pmd_anonymous_page", FAULT, order=range(9)),
    # One directory for each GiB, and the tables for what the interpreter maps meanwhile.
    "tables": Expected("pte_alloc_one", FAULT, more=16),
    "file": Expected("page_cache_ra*", "ksys_read", order=range(10)),
    "bpf": Expected("*bpf_map_area_alloc", "*sys_bpf", more=2),
    "threads": Expected("copy_process", "*sys_clone*"),
}
MAPPED = ("tmpfs", "anonymous", "populate", "huge", "split", "file")


@dataclass
class Program:
    """A program of hold.py that holds its pages: what it said, its cgroup below the root and the
    page frames that it has mapped."""

    process: subprocess.Popen[str]
    since: int
    cgroup: str | None
    frames: np.ndarray = field(repr=False)


@dataclass
class Held:
    """The programs; the machine while they hold their pages (``during``), when they have ended
    (``after``; ``resident`` pages of the file that one of them read were in the page cache then),
    and at last without that file (``end``). ``ended_ns``: since boot, when they had."""

    programs: dict[str, Program]
    during: Snapshot
    after: Snapshot
    resident: int
    end: Snapshot
    ended_ns: int

    def pages(self, snapshot: Snapshot, name: str) -> int:
        return self.rows(snapshot, name).pages

    def rows(self, snapshot: Snapshot, name: str) -> Snapshot:
        """What a program took since it had started up, in the way that is expected; without slab
        pages, which others share, and page tables, which are a case of their own.

        Slab pages also by their stack: one that was freed and taken again past every hook has its
        flag no more. Who frees the last object frees the slab, and there is a kernel that reports
        no event of its first process (docs/tracking.md)."""
        program = self.programs[name]
        mine = snapshot.select(pid=(program.process.pid,), stack=(PROGRAMS[name].function,))
        flags = mine.table["page_flags"].to_numpy()
        wanted = (flags & bit("slab") == 0) & ((flags & bit("pgtable") != 0) == (name == "tables"))
        wanted &= mine.table["ts_ns"].to_numpy() >= program.since
        allocator = key(mine, "allocator")
        made_slabs = np.array([label == "slab" for label in allocator.labels.to_pylist()], bool)
        wanted &= ~made_slabs[allocator.codes]
        return Snapshot(mine.table.filter(wanted), snapshot.meta)


def _cold_file(path: Path) -> None:
    """A file of `PAGES` pages that is on the disk and not in the page cache."""
    path.write_bytes(os.urandom(4096) * PAGES)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _start(name: str, cgroup: Path | None, path: Path) -> subprocess.Popen[str]:
    count = THREADS if name == "threads" else PAGES
    return subprocess.Popen(
        [sys.executable, Path(__file__).with_name("hold.py"), name, str(count), path,
         str(cgroup or "")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ready(name: str, process: subprocess.Popen[str], cgroup: Path | None) -> Program:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"hold.py {name} ended with status {process.wait()}"
    said = json.loads(line)
    frames = np.zeros(0, "u8")
    if said["maps"]:
        frames = mapped_frames(process.pid, [(at, size) for at, size in said["maps"]])
    return Program(process, said["since"], cgroup and f"/{cgroup.name}", frames)


def push_out_batches(path: Path) -> None:
    """Each CPU keeps up to 31 pages, in use or not any more, that it has still to put on each list
    of the least recently used (mm/swap.c, struct cpu_fbatches; one batch for pages that are new,
    one for those used again, and others). New pages are pushed out by others; to forget a part of
    a file on a disk has all of this CPU's batches emptied (mm/fadvise.c)."""
    allowed = os.sched_getaffinity(0)
    file = os.open(path, os.O_RDONLY)
    try:
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            with mmap.mmap(-1, 64 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
                area.madvise(15)  # MADV_NOHUGEPAGE
                for at in range(0, len(area), mmap.PAGESIZE):
                    area[at] = 1
            os.posix_fadvise(file, 0, mmap.PAGESIZE, os.POSIX_FADV_DONTNEED)
    finally:
        os.sched_setaffinity(0, allowed)
        os.close(file)


def flush_deferred_buffers() -> None:
    """Network buffers that another CPU is done with are put on a list of the CPU that took them,
    and stay there, in use, until that CPU next receives something or the list is half full
    (net/core/skbuff.c, skb_attempt_defer_free; flushed by net_rx_action). On an idle machine that
    may be minutes: have each CPU receive."""
    allowed = os.sched_getaffinity(0)
    try:
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            with socket.socket() as server, socket.socket() as client:
                server.bind(("127.0.0.1", 0))
                server.listen()
                client.connect(server.getsockname())
                accepted, _ = server.accept()
                with accepted:
                    for _ in range(50):
                        client.sendall(b"flush")
                        accepted.recv(16)
    finally:
        os.sched_setaffinity(0, allowed)


def wake_khugepaged() -> None:
    """The mm_struct of a process, and with it the top of its page tables, stays while khugepaged
    sleeps in the middle of it, ten seconds by default (mm/khugepaged.c, __khugepaged_exit,
    khugepaged_scan). It wakes up when its setting is written."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs")
    if setting.exists():  # CONFIG_TRANSPARENT_HUGEPAGE
        setting.write_text(setting.read_text())


@pytest.fixture(scope="module")
def held(tracking: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    from pageowner.sources.source import read

    path = tmp_path_factory.mktemp("hold") / "file"
    _cold_file(path)
    with ExitStack() as stack:
        groups = {name: stack.enter_context(memory_cgroup(name)) for name in PROGRAMS}
        started = {name: _start(name, groups[name], path) for name in PROGRAMS}
        try:
            programs = {name: _ready(name, process, groups[name])
                        for name, process in started.items()}
            during = read()
        finally:
            for process in started.values():
                process.communicate()  # closes both pipes: pages of theirs would be the program's
        ended_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        pids = tuple(process.pid for process in started.values())
        for _ in range(6):
            wake_khugepaged()
            # Page tables are freed by RCU, in batches: on an idle machine that takes seconds.
            time.sleep(2)
            push_out_batches(path)
            flush_deferred_buffers()
            after = read()
            if not what_stays(after, pids, ended_ns).pages:
                break
        there = resident(path)
        path.unlink()
        end = read()
        yield Held(programs, during, after, there, end, ended_ns)


def _program(name: str, held: Held) -> Program:
    if name == "file" and not _on_a_disk():
        pytest.skip("the files of tests are in memory here: they are not read through")
    return held.programs[name]


def _on_a_disk() -> bool:
    import tempfile

    kinds = {line.split()[1]: line.split()[2]
             for line in Path("/proc/mounts").read_text().splitlines()}
    place = Path(tempfile.gettempdir()).resolve()
    for part in (place, *place.parents):
        if str(part) in kinds:
            return kinds[str(part)] not in ("tmpfs", "ramfs")
    return os.major(place.stat().st_dev) != 0  # in a chroot, whose own mount is not to be seen


_COUNTED = [name for name in PROGRAMS if name != "threads"]


@pytest.mark.parametrize("name", _COUNTED)
def test_the_number_of_pages_is_right(held: Held, name: str) -> None:
    """To one in a hundred, and what the kernel takes beside for its own books (`Expected.more`)."""
    _program(name, held)
    more = PROGRAMS[name].more
    assert 0.99 * PAGES <= held.pages(held.during, name) <= 1.01 * PAGES + more


@pytest.mark.parametrize("name", _COUNTED)
def test_the_task_and_the_system_call_are_right(held: Held, name: str) -> None:
    program, expected = _program(name, held), PROGRAMS[name]
    rows = held.rows(held.during, name)
    assert rows.table.num_rows
    assert set(rows.table["comm"].to_pylist()) <= {f"hold {name}"}
    assert set(rows.table["pid"].to_pylist()) == {program.process.pid}
    assert set(rows.table["state"].to_pylist()) == {"owned"}
    taken = rows.table
    if name == "populate":  # by a system call; the interpreter faults pages of its own in, as ever
        taken = taken.filter(np.isin(taken["pfn"].to_numpy(), program.frames))
        assert taken.num_rows >= 0.99 * PAGES
    for stack in taken["stack"].unique().to_pylist():
        names = [frame.name for frame in frames(stack)]
        assert fnmatch.filter(names, expected.entry), stack
    assert set(rows.table["order"].to_pylist()) <= set(expected.order)


@pytest.mark.parametrize("name", _COUNTED)
def test_the_cgroup_is_right(held: Held, name: str) -> None:
    program = _program(name, held)
    if program.cgroup is None:
        pytest.skip("no memory cgroup can be made on this machine")
    wanted = {program.cgroup} if PROGRAMS[name].charged else {None}
    rows = held.rows(held.during, name).table
    by_group = {group: rows["memcg"].to_pylist().count(group)
                for group in set(rows["memcg"].to_pylist())}
    others = sum(count for group, count in by_group.items() if group not in wanted)
    assert others <= rows.num_rows // 100, by_group


@pytest.mark.parametrize("name", MAPPED)
def test_each_page_that_a_program_has_mapped_is_its_own(held: Held, name: str) -> None:
    """Page by page: /proc/PID/pagemap gives the frames, the capture says who took each."""
    program = _program(name, held)
    assert len(program.frames) == PAGES
    assert program.frames.all()
    rows = held.rows(held.during, name)
    start = rows.table["pfn"].to_numpy()
    place = np.searchsorted(start, program.frames, side="right") - 1
    inside = (place >= 0) & (program.frames < start[place] + blocks_pages(rows)[place])
    assert np.count_nonzero(~inside) <= PAGES // 100


_TOLD = ["pfn", "order", "page_flags", "ts_ns", "stack"]


def _told(left: Snapshot) -> str:
    """All that is known of the first few, for who looks for the cause."""
    lost = {name: left.meta.counters.get(name) for name in ("missed_frees", "unseen_frees")}
    return json.dumps({**lost, "rows": left.table.select(_TOLD).to_pylist()[:3]})


@pytest.mark.parametrize("name", [name for name in _COUNTED if name != "file"])
def test_when_a_program_has_ended_its_pages_are_gone(held: Held, name: str) -> None:
    _program(name, held)
    left = held.rows(held.after, name)
    assert left.pages == 0, _told(left)


def what_stays(snapshot: Snapshot, pids: tuple[int, ...], ended_ns: int) -> Snapshot:
    """Pages of what belongs to a process or to what it had open: none of that outlives it. (Slab
    pages, which other tasks' objects share, and the page cache do; and what is younger than
    ``ended_ns`` belongs to another process with that number.)"""
    gone = ("anonymous memory", "huge pages (THP)", "page tables", "pipes", "network buffers",
            "shared memory (tmpfs)")
    mine = snapshot.select(pid=pids)
    subsystem, stack = key(mine, "subsystem"), key(mine, "stack")
    is_gone = np.array([label in gone for label in subsystem.labels.to_pylist()], bool)
    # Page tables of the kernel's own address space, made for vmalloc, are never freed.
    is_own = np.array([any(word in (label or "") for word in ("vmap_", "vmalloc", "_kernel+"))
                       for label in stack.labels.to_pylist()], bool)
    is_theirs = mine.table["ts_ns"].to_numpy() <= ended_ns
    return Snapshot(mine.table.filter(is_gone[subsystem.codes] & ~is_own[stack.codes] & is_theirs),
                    snapshot.meta)


def test_what_stays_of_programs_that_ended_is_the_kernels_own(held: Held) -> None:
    pids = tuple(program.process.pid for program in held.programs.values())
    left = what_stays(held.after, pids, held.ended_ns)
    assert left.pages == 0, left.table.select(_TOLD).to_pylist()[:3]


def test_the_page_cache_stays_until_the_file_is_gone(held: Held) -> None:
    _program("file", held)
    # Some machines page out what nobody reads, however much is free (DAMON): the kernel says what
    # is still there.
    assert held.resident > PAGES // 2
    assert held.resident <= held.pages(held.after, "file") <= PAGES
    assert held.pages(held.end, "file") == 0


def test_stacks_of_threads_are_the_programs_or_named_untracked(held: Held) -> None:
    """Kernel stacks come from vmalloc. It takes its pages from the bulk allocator, where only a
    hook at that function's end sees them; without it they are untracked, without a flag, and
    charged to the cgroup of the task. Some stacks come from each CPU's cache of old ones: two, and
    more the more other tasks end meanwhile; those that were there before tracking are early."""
    program = held.programs["threads"]
    hooked = is_whole(held.during.meta.hooks["alloc_pages_bulk"])
    stacks = held.pages(held.during, "threads")
    cached = 2 * (os.cpu_count() or 1) * STACK_PAGES  # kernel/fork.c, NR_CACHED_STACKS
    wanted = THREADS * STACK_PAGES
    if not hooked and stacks < wanted // 2:
        if program.cgroup is None:
            pytest.skip("no memory cgroup can be made on this machine")
        untracked = held.during.select(state=("untracked",), memcg=(program.cgroup,))
        assert set(untracked.table["page_flags"].to_pylist()) == {0}
        assert set(untracked.report(by="subsystem")["subsystem"].to_pylist()) == {
            "vmalloc and other bulk allocations (untracked)"}
        stacks += untracked.pages
        reused = held.during.select(state=("early",), memcg=(program.cgroup,)).table
        stacks += int(np.count_nonzero(reused["page_flags"].to_numpy() == 0))  # order 0, all early
        assert held.after.select(state=("untracked",), memcg=(program.cgroup,)).pages <= cached
    assert 0.99 * wanted - cached <= stacks <= 1.01 * wanted


def test_split_huge_pages_leave_the_accounts_exact(held: Held) -> None:
    """Of 512 pages each, 256 were given back: no row may still speak for those."""
    assert pages_by_state(held.during) == {
        state: held.during.meta.frames[state] for state in STATES}
    assert held.pages(held.during, "split") == PAGES
