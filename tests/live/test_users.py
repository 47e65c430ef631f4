"""What was there before: memory that was taken without tracking is found, by name and to 2 %, with
tracking off, and as early pages once it is on."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from machine import resident

from pageowner.analysis.owners import owners
from pageowner.api.watch import live_reader
from pageowner.api.who import who
from pageowner.kernel import cgroups, mounts, pageflags, slabs, vmalloc_areas
from pageowner.kernel.pagemap import _words
from pageowner.model.page_users import FREED, PageUsers
from pageowner.model.snapshot import Snapshot
from pageowner.tracker import control
from pageowner.tracker.load.libbpf import MMAPABLE, Libbpf
from pageowner.tracker.read.capture import capture
from pageowner.tracker.users.mapped_files import give_mapped_files
from pageowner.tracker.users.pages import Pages
from pageowner.tracker.users.untracked import untracked

PAGE, MIB = os.sysconf("SC_PAGE_SIZE"), 1 << 20
NEAR = 0.02
RINGBUF = 27  # enum bpf_map_type
_FRAME = (1 << 55) - 1


@pytest.fixture(scope="module")
def planted(bpf: Libbpf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A process that took memory in all ways, 64 MiB of BPF maps, and a cgroup that is gone."""
    folder = Path(os.environ.get("PLANT_IN") or tmp_path_factory.mktemp("planted"))
    device = f"{os.major(folder.stat().st_dev)}:{os.minor(folder.stat().st_dev)}"
    kind = "tmpfs " if any(mount.device == device and mount.kind == "tmpfs"
                           for mount in mounts.running()) else ""
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(
            [sys.executable, Path(__file__).with_name("plant.py"), folder,
             *(["links"] if kind else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert process.stdout
        facts = json.loads(process.stdout.readline())
        facts["folder"], facts["kind"] = str(folder), kind
        array = bpf.create_array("planted", 4096, 64 * MIB // 4096, MMAPABLE)
        facts["own"] = f"{os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"
        facts["array"] = bpf.map_info(array).id
        ring = bpf.lib.bpf_map_create(RINGBUF, b"ring", 0, 0, 16 * MIB, None)
        facts["ring"] = bpf.map_info(ring).id
        for fd in (array, ring):
            stack.callback(os.close, fd)
        facts["gone"] = charged_to_a_cgroup_that_is_gone(stack)
        yield facts
        assert process.stdin
        process.stdin.close()


def charged_to_a_cgroup_that_is_gone(stack: ExitStack) -> str | None:
    """A file of 16 MiB in /dev/shm, of a cgroup that was removed; None where there are none."""
    origin = cgroups.memory().origin
    place, path = Path(origin) / f"planted-{os.getpid()}", Path(f"/dev/shm/gone-{os.getpid()}")
    try:
        if not origin:
            raise OSError
        place.mkdir()
    except OSError:
        return None
    stack.callback(path.unlink, missing_ok=True)
    try:
        subprocess.run([sys.executable, "-c", "import os, sys\n"
                        "open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
                        "open(sys.argv[2], 'wb').write(bytes(16 << 20))", place, path], check=True)
    finally:
        place.rmdir()
    return str(path)


@dataclass
class Seen:
    """What was found, and bytes by slab cache and by caller of vmalloc before, meanwhile and
    afterwards."""

    snapshot: Snapshot
    counted: list[dict[str, int]]


def cached(path: Path) -> int:
    """Bytes of a file in the page cache, by mincore(2): some kernels reclaim what is not used."""
    length = path.stat().st_size
    with path.open("r+b") as file, mmap.mmap(file.fileno(), length) as area:
        start = ctypes.c_char.from_buffer(area)
        state = (ctypes.c_ubyte * (length // PAGE))()
        failed = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(length), state)
        del start
        assert not failed
        return int(np.count_nonzero(np.frombuffer(state, np.uint8) & 1)) * PAGE


def counted(planted: dict[str, Any]) -> dict[str, int]:
    """Bytes, by the kernel's own lists."""
    path = Path(planted["folder"], "planted.db")
    found = {f"{planted['kind']}file {path}": cached(path)}
    found |= {f"slab {cache.name}": cache.pages * PAGE for cache in slabs.parse_slabinfo(
        Path("/proc/slabinfo").read_text())}
    return found | {f"vmalloc {caller}": pages * PAGE for caller, pages in (
        vmalloc_areas.parse_vmallocinfo(Path("/proc/vmallocinfo").read_text()).items())
        if not vmalloc_areas.is_stack_caller(caller)}


@pytest.fixture(scope="module", params=["not tracked", "early"])
def seen(request: pytest.FixtureRequest, planted: dict[str, Any]) -> Iterator[Seen]:
    if control.is_on():
        pytest.skip("tracking is on on this machine; a test would have to turn it off")
    if request.param == "early":
        control.on()
    try:
        moments, over = [counted(planted)], threading.Event()

        def count() -> None:
            while not over.wait(0.02):
                moments.append(counted(planted))

        counting = threading.Thread(target=count)
        counting.start()
        try:
            snapshot = look()
        finally:
            over.set()
            counting.join()
        yield Seen(snapshot, [*moments, counted(planted)])
    finally:
        control.off()


def look() -> Snapshot:
    return capture(users=True) if control.is_on() else untracked()


@pytest.fixture
def found(seen: Seen) -> Snapshot:
    return seen.snapshot


def sizes(snapshot: Snapshot) -> dict[str, int]:
    table = owners(snapshot, "user").to_pydict()
    return {name: pages * PAGE for name, pages in zip(table["user"], table["pages"], strict=True)}


def labels_at(snapshot: Snapshot, pid: int, address: int, size: int) -> set[str | None]:
    """What has the pages of a process from this address on."""
    words = np.array(_words(f"/proc/{pid}/pagemap", address, size // PAGE), np.uint64)
    wanted = words & np.uint64(_FRAME)
    first = snapshot.table["pfn"].to_numpy()
    rows = np.searchsorted(first, wanted, "right") - 1
    return set(snapshot.table["user"].take(rows).to_pylist())


def test_memory_of_a_process_is_its_own(found: Snapshot, planted: dict[str, Any]) -> None:
    pid = planted["pid"]
    assert labels_at(found, pid, planted["anonymous"], 200 * MIB) == {f"process {pid} (planted)"}
    status = Path(f"/proc/{pid}/status").read_text()
    anonymous = int(status.split("RssAnon:")[1].split()[0]) << 10
    own = sizes(found)[f"process {pid} (planted)"]
    assert 200 * MIB <= own <= anonymous


def test_the_live_view_and_who_tell_of_early_pages_too(seen: Seen, planted: dict[str, Any]) -> None:
    if not control.is_on():
        pytest.skip("only of a tracker that is on")
    pid, wanted = planted["pid"], f"process {planted['pid']} (planted)"
    (answer,) = who(virt=[(pid, planted["anonymous"] + 5 * PAGE)])
    assert [(row["state"], row["user"]) for row in answer.blocks] == [("early", wanted)]
    with live_reader() as reader:
        look = reader.counts(("user",))
    codes, labels = look.fields["user"]
    pages = np.bincount(codes, look.pages, len(labels))
    assert look.unrecorded
    assert 200 * MIB <= pages[labels.index(wanted)] * PAGE <= 200 * MIB * (1 + 4 * NEAR)


def test_memory_that_two_processes_share_is_both_of_theirs(found: Snapshot,
                                                           planted: dict[str, Any]) -> None:
    address, child = planted["shared"]
    for pid in (planted["pid"], child):
        assert labels_at(found, pid, address, 100 * MIB) == {"shared by 2 processes (planted)"}


@pytest.mark.parametrize(("label", "size"), [
    ("tmpfs deleted file {deleted} of {pid} (planted)", 64 * MIB),
    ("memfd planted buffer of {pid} (planted)", 48 * MIB),
    ("System V segment {segment} of {pid} (planted)", 32 * MIB),
    ("page tables of {pid} (planted)", 64 * MIB),
    ("bpf map {array} (planted) of {own}", 64 * MIB),
    ("bpf map {ring} (ring) of {own}", 16 * MIB),
    ("kernel stacks of {pid} (planted)", 501 * 4 * 4096)])
def test_what_was_planted_is_found_by_name(found: Snapshot, planted: dict[str, Any], label: str,
                                           size: int) -> None:
    named = label.format(**planted)
    have = sizes(found)
    assert named in have, sorted(name for name in have if name and "planted" in name)
    assert have[named] == pytest.approx(size, rel=NEAR), named


@pytest.mark.parametrize(("kind", "least"), [
    ("slab", 4 * MIB), ("vmalloc", 16 * MIB), ("", 64 * MIB)])
def test_files_slabs_and_areas_of_vmalloc_add_up_to_the_kernels_lists(seen: Seen, kind: str,
                                                               least: int) -> None:
    """The file, the dentries and the BPF maps that were planted among them."""
    have, before = sizes(seen.snapshot), seen.counted[0]
    (maps,) = (name for name, size in before.items()
               if name.startswith("vmalloc ") and "map" in name and size >= 64 * MIB)
    have[maps] = have.get(maps, 0) + sum(size for name, size in have.items() if name and re.match(
        r"(\d+ )?bpf maps? (?!\d+ \(ring\))", name))  # a ring buffer is vmapped
    assert any(name.endswith("/planted.db") for name in before)
    assert before["slab dentry"] >= 100_000 * 192 * (1 - NEAR)
    for name in before:
        if name.startswith(kind) and before[name] >= least and all(
                name in moment for moment in seen.counted):
            sizes_then = [moment[name] for moment in seen.counted]
            low, high = min(sizes_then), max(sizes_then)
            own = 2 * MIB if name.startswith("vmalloc ") else 0  # maps of what reads
            assert low * (1 - NEAR) <= have.get(name, 0) <= high * (1 + NEAR) + own, name


def test_a_cgroup_that_is_gone_is_still_charged(found: Snapshot, planted: dict[str, Any]) -> None:
    if planted["gone"] is None:
        pytest.skip("this machine has no memory cgroups that we may make")
    table = owners(found, ["memcg_state", "user"]).to_pydict()
    of_file = {state: pages * PAGE for state, user, pages in zip(
        table["memcg_state"], table["user"], table["pages"], strict=True)
        if user == f"tmpfs file {planted['gone']}"}
    stat = Path(cgroups.memory().origin, "cgroup.stat")
    if "online" in of_file and stat.exists() and "nr_dying_descendants 0\n" in stat.read_text():
        pytest.skip("this kernel gives the memory to the cgroup above, and forgets the removed one")
    assert of_file == {"offline": pytest.approx(16 * MIB, rel=NEAR)}


def test_nearly_all_pages_have_a_user(found: Snapshot) -> None:
    """What remains has its flags: memory that the kernel's own code took, and what changed."""
    for _ in range(5):
        early = found.in_state("early").table
        pages = np.left_shift(1, early["order"].to_numpy().astype(np.int64))
        freed = pc.equal(early["user"], FREED).fill_null(False).to_numpy()
        if pages[freed].sum() < 0.02 * pages.sum():
            break
        # A large process ended while it was looked at: nothing is known of what it had.
        found = look()
    unknown = early["user"].is_null().to_numpy()
    share = 1 - pages[unknown].sum() / pages[~freed].sum()
    rest = np.bincount(pageflags.kind(early["page_flags"].to_numpy()[unknown]),
                       pages[unknown], len(pageflags.KINDS))
    print(f"{share:.2%} of early pages have a user, {pages[freed].sum()} were freed meanwhile;"
          f" the rest:", {kind: int(number) for kind, number in zip(
              pageflags.KINDS, rest, strict=True) if number}, found.meta.extra["users"]["counts"])
    assert share >= 0.97


def test_nothing_of_what_reads_stays_in_the_kernel(bpf: Libbpf) -> None:
    before = Counter(bpf.loaded_names())
    untracked()
    # The kernel frees programs a moment after their last user is gone; others' come and go.
    deadline = time.monotonic() + 10
    while (stays := Counter(bpf.loaded_names()) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not stays


def test_a_file_that_is_renamed_all_the_time_never_has_a_path_that_it_never_had(
        bpf: Libbpf, tmp_path: Path) -> None:
    """Names of one moment and directories of another would make up a path."""
    for folder in ("one/inner", "two"):
        (tmp_path / folder).mkdir(parents=True)
    places = [tmp_path / "one/inner/first", tmp_path / "two/second"]
    places[0].write_bytes(bytes(8 * MIB))
    # a process of its own: a thread would hold up this one at every turn
    with subprocess.Popen([sys.executable, "-c", "import os, sys\n"
                           "one, two = sys.argv[1:]\n"
                           "while True:\n    os.rename(one, two)\n    os.rename(two, one)\n",
                           *map(str, places)]) as renaming:
        names = {name.removeprefix("tmpfs ") for _ in range(3) for name in sizes(untracked())
                 if name and str(tmp_path) in name}
        renaming.kill()
    if places[1].exists():
        places[1].rename(places[0])
    assert names <= {f"file {place}" for place in places}
    for _ in range(4):  # what is moved about in memory while it is looked at has no user then
        # nor does a machine keep what nobody reads (DAMON): the kernel says what is there
        places[0].read_bytes()
        there = resident(places[0])
        still = {name.removeprefix("tmpfs "): size for name, size in sizes(untracked()).items()
                 if name}
        if still[f"file {places[0]}"] == there * mmap.PAGESIZE == resident(
                places[0]) * mmap.PAGESIZE:
            break
    assert still[f"file {places[0]}"] == there * mmap.PAGESIZE > 0


def test_where_the_kernels_structures_are_closed_proc_alone_names_what_processes_map(
        bpf: Libbpf, planted: dict[str, Any], found: Snapshot) -> None:
    table, pid = found.table, planted["pid"]
    pages = Pages(table["pfn"].to_numpy(), table["order"].to_numpy(),
                  table["page_flags"].to_numpy())
    users = PageUsers.of(len(pages.pfn))
    give_mapped_files(users, pages, {pid: "planted"})
    have = np.bincount(users.codes[users.codes >= 0],
                       np.left_shift(1, pages.order[users.codes >= 0].astype(np.int64)))
    by_name = dict(zip(users.labels, (have * PAGE).tolist(), strict=False))
    segment = f"System V segment {planted['segment']} of {pid} (planted)"
    assert by_name[segment] == pytest.approx(32 * MIB, rel=NEAR)
    assert all(by_name[name] <= size * (1 + NEAR) for name, size in sizes(found).items()
               if name in by_name)
