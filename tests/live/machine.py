"""What the live tests ask the machine itself, by other means than the tracker's own."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel import cgroups
from pageowner.model.snapshot import STATES, Snapshot
from pageowner.tracker.read.maps import open_store

PAGE = os.sysconf("SC_PAGE_SIZE")
NOPAGE, BUDDY = 1 << 20, 1 << 10


def known_frames() -> int:
    """Page frames that /proc/kpageflags knows: its words, but for those that say there is none: by
    a flag, or, since 6.14, by having none where there is no RAM."""
    ram = [(int(first, 16) // PAGE, (int(last, 16) + 1) // PAGE) for first, last in re.findall(
        r"^ *(\w+)-(\w+) : System RAM", Path("/proc/iomem").read_text(), re.MULTILINE)]
    known = place = 0
    with open("/proc/kpageflags", "rb", buffering=0) as file:
        while data := file.read(1 << 20):
            words = np.frombuffer(data, "u8")
            there = words != 0
            for first, last in ram:
                there[max(first - place, 0):max(last - place, 0)] = True
            known += int(np.count_nonzero(there & (words & NOPAGE == 0)))
            place += len(words)
    return known


def managed_frames() -> int:
    """Page frames that were given to the page allocator, by /proc/zoneinfo."""
    text = Path("/proc/zoneinfo").read_text()
    return sum(map(int, re.findall(r"^ +managed +(\d+)", text, re.MULTILINE)))


def free_frames() -> int:
    """Free page frames by /proc/zoneinfo: in the buddy allocator and on the CPUs' own lists."""
    text = Path("/proc/zoneinfo").read_text()
    return sum(map(int, re.findall(r"^ +(?:pages free|count:) +(\d+)", text, re.MULTILINE)))


@contextmanager
def memory_cgroup(name: str, limit: int | None = None) -> Iterator[Path | None]:
    """A new cgroup below the root that charges memory, up to ``limit`` bytes; None where this
    machine has none that we may make. Remove its tasks before it ends."""
    origin = cgroups.memory().origin
    place = Path(origin) / f"pageowner-test-{os.getpid()}-{name}"
    try:
        if not origin:
            raise OSError
        place.mkdir()
        if limit is not None:
            version1 = place / "memory.limit_in_bytes"
            file = version1 if version1.exists() else place / "memory.max"
            file.write_text(str(limit))
    except OSError:
        with suppress(OSError):
            place.rmdir()
        yield None
        return
    try:
        yield place
    finally:
        with suppress(OSError):
            # What is still charged to it, page cache for one, moves to the parent or lingers.
            place.rmdir()


def pages_by_state(snapshot: Snapshot) -> dict[str, int]:
    """Pages in the rows of a snapshot, each state's by itself."""
    sizes = np.int64(1) << snapshot.table["order"].to_numpy().astype(np.int64)
    states = snapshot.table["state"].combine_chunks()
    codes = states.indices.to_numpy()
    return dict.fromkeys(STATES, 0) | {
        name: int(sizes[codes == code].sum())
        for code, name in enumerate(states.dictionary.to_pylist())}


def resident(path: Path) -> int:
    """Pages of a file in the page cache (mincore(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        there = np.zeros(-(-len(view) // mmap.PAGESIZE), np.uint8)
        failed = libc.mincore(ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(view)),
                              ctypes.c_void_p(there.ctypes.data))
        del view  # or the mapping cannot be closed
    assert not failed, os.strerror(ctypes.get_errno())
    return int(np.count_nonzero(there & 1))


class Frees:
    """Bounds on the stale pages of captures, from the frees that the tracker was not told of, by
    the kernel's own count of them (`Store.unseen_frees`).

    There are some: a kernel may announce nothing of what certain tasks free, to whomever, and run
    no BPF program in the interrupts that come over them.
    """

    def __init__(self) -> None:
        """Raises PageownerError where the kernel does not count."""
        self._stale = self._last = self._now = 0
        self._unseen()

    def _unseen(self) -> tuple[int, int]:
        with open_store() as store:
            least, most = store.unseen_frees()
        if least is None or most is None:
            raise PageownerError("this kernel does not count the pages that are freed")
        return least, most

    def unseen(self) -> int:
        """Pages freed unseen since tracking began; at most."""
        return self._unseen()[1]

    def capture_begins(self) -> None:
        """To be called before each capture."""
        self._now = self._unseen()[0]

    def most_stale(self, stale: int) -> int:
        """How many pages may be ``stale`` in a capture just taken: those of the one before, and one
        for each page that was freed unseen since that one began: a page that it had passed by then
        was not stale in it."""
        most = self._stale + self.unseen() - self._last
        self._stale, self._last = stale, self._now
        return most


class KernelLog:
    """The kernel's messages from now on (Documentation/ABI/testing/dev-kmsg)."""

    def __init__(self) -> None:
        self._file = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._file, 0, os.SEEK_END)

    def warnings(self) -> list[str]:
        """New messages of level warning or worse, without their continuation lines."""
        found = []
        while True:
            try:
                record = os.read(self._file, 8192)
            except BlockingIOError:
                return found
            except BrokenPipeError:
                found.append("messages were lost: the log was overwritten before it was read")
                continue
            about, _, text = record.partition(b";")
            if int(about.split(b",")[0]) & 7 <= 4:
                found.append(text.split(b"\n")[0].decode("utf-8", "replace"))

    def close(self) -> None:
        os.close(self._file)


def mapped_frames(pid: int, maps: list[tuple[int, int]]) -> np.ndarray:
    """Page frames behind parts (address, bytes) of a process's memory, by /proc/PID/pagemap; 0
    where there is none."""
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as file:
        words = [np.frombuffer(os.pread(file.fileno(), size // PAGE * 8, at // PAGE * 8), "u8")
                 for at, size in maps]
    entries = np.concatenate(words)
    present = entries >> np.uint64(63) == 1
    return np.where(present, entries & np.uint64((1 << 55) - 1), 0)
