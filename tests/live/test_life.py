"""On, off and what is left: after any end of `on` or `off`, the next one mends it."""

from __future__ import annotations

import mmap
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine import mapped_frames

from pageowner.errors import PageownerError, UsageError
from pageowner.kernel.memory_ranges import ram_ranges
from pageowner.tracker import control
from pageowner.tracker.load import loading, pins
from pageowner.tracker.load.libbpf import BpfError, Libbpf
from pageowner.tracker.load.libbpf_abi import PRINT
from pageowner.tracker.read import survey
from pageowner.tracker.read.capture import capture
from pageowner.tracker.read.maps import PIN_DIRECTORY, Store, open_store

ROUNDS = int(os.environ.get("PAGEOWNER_KILL_ROUNDS", "3"))


Ids = set[tuple[str, int]]


def held_by(pid: int) -> Ids:
    """Maps and programs of which a process has a file descriptor."""
    ids: Ids = set()
    try:
        infos = list(Path(f"/proc/{pid}/fdinfo").iterdir())
    except OSError:
        return ids  # it has ended by itself
    for info in infos:
        try:
            found = re.findall(r"^(map|prog)_id:\s*(\d+)", info.read_text(), re.MULTILINE)
        except OSError:
            continue
        ids |= {(kind, int(number)) for kind, number in found}
    return ids


def pinned(bpf: Libbpf) -> Ids:
    """Everything that the tracker that is on keeps in the kernel."""
    with open_store() as store:
        ids: Ids = {("prog", hook.program_id) for hook in store.hooks()}
        for name in ("spans", "tasks", "stacks", "counters", "config"):
            ids.add(("map", bpf.map_info(store.fd(name)).id))
        for _, fd in store._inner_maps("spans"):
            ids.add(("map", bpf.map_info(fd).id))
            os.close(fd)
    return ids


def left(bpf: Libbpf, ids: Ids) -> Ids:
    """Which of these the kernel still has, after some time to let go of them."""
    for _ in range(600):
        ids = {one for one in ids if _exists(bpf, *one)}
        if not ids:
            break
        time.sleep(0.1)
    return ids


def _exists(bpf: Libbpf, kind: str, number: int) -> bool:
    try:
        os.close(bpf.map_by_id(number) if kind == "map" else bpf.program_by_id(number))
    except BpfError:
        return False
    return True


def kernel_memory() -> int:
    """Bytes in use that are neither a process's nor a cache's: the kernel's own."""
    fields = dict(re.findall(r"^(\w+): +(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE))
    others = ("MemFree", "Buffers", "Cached", "AnonPages", "SReclaimable", "PageTables")
    return (int(fields["MemTotal"]) - sum(int(fields[name]) for name in others)) * 1024


def child(word: str) -> subprocess.Popen[bytes]:
    code = f"from pageowner.tracker import control; print(control.{word}())"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


@pytest.mark.usefixtures("off")
def test_on_tracks_and_off_leaves_nothing(bpf: Libbpf) -> None:
    now = control.on()
    assert now.on
    assert not now.already_on
    assert now.hooks["mm_page_alloc"] == now.hooks["mm_page_free"] == "active"
    assert now.frames * 4096 > 0.9 * _mem_total()
    assert 0 < now.pages["early"] < now.frames
    with open_store() as store:
        allocs = store.counters()["allocs"]
        Path("/proc/self/stat").read_bytes()
        subprocess.run(["true"], check=True)
        assert store.counters()["allocs"] > allocs
    ids = pinned(bpf)
    assert len(ids) > 10
    assert control.off()
    assert not os.path.exists(PIN_DIRECTORY)
    assert left(bpf, ids) == set()


def _mem_total() -> int:
    return int(Path("/proc/meminfo").read_text().split()[1]) * 1024


@pytest.mark.usefixtures("off")
def test_on_when_on_says_so_and_names_what_differs() -> None:
    control.on(control.Options(depth=8))
    again = control.on(control.Options(depth=8))
    assert again.already_on
    with pytest.raises(PageownerError, match="already on with --depth 8, not with --depth 32;"):
        control.on(control.Options(depth=32))
    assert control.status().options.depth == 8


@pytest.mark.usefixtures("off")
def test_on_when_on_does_not_wait_for_its_own_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks how tracking stands attaches a second program if it is needed, under the lock."""
    control.on()
    real = control.status

    def under_the_lock() -> control.Status:
        with control._locked():
            return real()

    monkeypatch.setattr(pins, "_LOCK_SECONDS", 1)
    monkeypatch.setattr(control, "status", under_the_lock)
    assert control.on().already_on


@pytest.mark.usefixtures("off")
def test_records_of_another_version_are_refused_and_off_ends_them(
        monkeypatch: pytest.MonkeyPatch) -> None:
    control.on()
    monkeypatch.setattr("pageowner.tracker.read.pinned.identity", lambda: "another")
    for ask in (control.status, control.on, capture):
        with pytest.raises(PageownerError, match=r"another version .* pageowner off, then on"):
            ask()
    assert control.off()
    assert not control.is_on()


@pytest.mark.usefixtures("off")
def test_options_that_cannot_be_are_usage_errors(bpf: Libbpf) -> None:
    assert bpf
    for wrong in ({"depth": 0}, {"depth": 65}, {"sample": 0}, {"min_order": -1},
                  {"tgid": 1 << 30}):
        with pytest.raises(UsageError):
            control.on(control.Options(**wrong))


@pytest.mark.usefixtures("off", "bpf")
def test_off_without_on_does_nothing() -> None:
    assert control.off() is False


@pytest.mark.usefixtures("off")
def test_two_on_at_once_end_with_one_tracker(bpf: Libbpf) -> None:
    both = [child("on"), child("on")]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted(b"already_on=True" in out for out, _ in said) == [False, True]
    ids = pinned(bpf)
    both = [child("off"), child("off")]
    said = [process.communicate(timeout=120) for process in both]
    assert sorted(out.strip() for out, _ in said) == [b"False", b"True"]
    assert left(bpf, ids) == set()


@pytest.mark.usefixtures("off")
def test_an_interrupt_while_libbpf_speaks_is_not_lost(
        bpf: Libbpf, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []

    def spoken(level: int, text: bytes, arguments: int) -> int:
        if not ends:
            ends.append("asked")
            signal.raise_signal(signal.SIGINT)
        return 0

    monkeypatch.setattr(bpf, "_print", PRINT(spoken))
    bpf.lib.libbpf_set_print(bpf._print)
    try:
        with pytest.raises(KeyboardInterrupt):
            control.on()
    finally:
        monkeypatch.undo()
        bpf.lib.libbpf_set_print(bpf._print)
    assert ends
    assert not os.path.exists(f"{PIN_DIRECTORY}-new")
    assert not control.is_on()


@pytest.mark.usefixtures("off")
@pytest.mark.parametrize("name", ["new", "old"])
def test_what_a_killed_process_left_is_told_and_removed(bpf: Libbpf, name: str) -> None:
    assert not control.status().left
    control.on()
    ids = pinned(bpf)
    os.rename(PIN_DIRECTORY, f"{PIN_DIRECTORY}-{name}")
    status = control.status()
    assert status.left
    assert not status.on
    assert control.off()
    assert not control.status().left
    assert not os.path.exists(f"{PIN_DIRECTORY}-{name}")
    assert left(bpf, ids) == set()


@pytest.mark.usefixtures("off")
def test_kill_at_any_moment_is_mended(bpf: Libbpf) -> None:
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    started = time.monotonic()
    size = control.on().memory_bytes
    usual = time.monotonic() - started
    ids = pinned(bpf)
    control.off()
    assert left(bpf, ids) == set()
    before = kernel_memory()
    for number in range(ROUNDS):
        where = f"round {number} of seed {seed}"
        ids |= _killed("on", rng.uniform(0, usual * 1.2))
        if rng.random() < 0.3:
            assert control.on().on, where
        if control.is_on():
            ids |= pinned(bpf)
            ids |= _killed("off", rng.uniform(0.2, 0.6))
        control.off()
        for directory in (PIN_DIRECTORY, PIN_DIRECTORY + "-new", PIN_DIRECTORY + "-old"):
            assert not os.path.exists(directory), where
    assert left(bpf, ids) == set(), f"seed {seed}"
    # One tracker that is left would be all of its size.
    for _ in range(600):
        more = kernel_memory() - before
        if more < size / 2:
            break
        time.sleep(0.1)
    print(f"{ROUNDS} rounds of seed {seed}: of {len(ids)} programs and maps none is left,"
          f" the kernel holds {more >> 10} KiB more than before; one tracker has {size >> 10} KiB")
    assert more < size / 2, f"seed {seed}"


def _killed(word: str, seconds: float) -> Ids:
    """Kill an `on` or `off` after some seconds; what it had open then."""
    process = child(word)
    time.sleep(seconds)
    process.send_signal(signal.SIGSTOP)
    ids = held_by(process.pid)
    process.kill()
    process.communicate()
    return ids


@pytest.mark.usefixtures("off", "bpf")
def test_memory_added_since_is_covered_by_the_next_capture(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """A half of the memory is not there yet when tracking begins: that which is taken now."""
    ranges = ram_ranges()
    largest = first, after = max(ranges, key=lambda one: one[1] - one[0])
    middle = (first + (after - first) // 2) & ~0xfffff or first + 1
    with mmap.mmap(-1, 1 << 24) as taken_now:
        taken_now.write(bytes(1 << 24))
        start = np.frombuffer(taken_now, "u1").ctypes.data
        low = np.median(mapped_frames(os.getpid(), [(start, 1 << 24)])) < middle
    left, added = ((middle, after), (first, middle)) if low else ((first, middle), (middle, after))
    fewer = sorted([*(one for one in ranges if one != largest), left])
    with monkeypatch.context() as patch:
        patch.setattr(control, "ram_ranges", lambda: fewer)
        before = control.on()
        # It is there for the programs, of course: what they see of it goes to the spares, and
        # these alone are made spans. Held, no more of them are taken meanwhile.
        with open_store() as store:
            store.bpf.run(store.fd("hold_spares"), 0)
            taken = store.taken_spares()
        assert control.cover() == len(taken)
        assert control.status().frames == before.frames
    frames = sum(capture().meta.frames.values())
    assert frames > before.frames
    now = control.status()
    assert now.frames == sum(end - start for start, end in ranges) > before.frames
    assert now.memory_bytes > before.memory_bytes
    assert control.cover() == 0
    memory = [mmap.mmap(-1, 1 << 20) for _ in range(64)]
    for one in memory:
        one.write(bytes(1 << 20))
    outside = control.status().counters["out_of_range"]
    rows = capture().select(pid=os.getpid(), state="owned")
    pfn = rows.table["pfn"].to_numpy()
    assert ((pfn >= added[0]) & (pfn < added[1])).any()
    assert control.status().counters["out_of_range"] == outside


@pytest.mark.usefixtures("off", "bpf")
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("word", ["_span", "unused", "missed"])
def test_a_capture_during_which_tracking_ends_says_so(
        word: str, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    control.on()
    owner = survey._Walk if word == "_span" else Store
    real = getattr(owner, word)

    def ending(*arguments: Any) -> Any:
        monkeypatch.undo()
        control.off()
        if again:
            control.on()
        return real(*arguments)

    monkeypatch.setattr(owner, word, ending)
    with pytest.raises(PageownerError, match="turned off while it was being read"):
        capture()


@pytest.mark.usefixtures("off")
def test_few_file_descriptors_are_enough(bpf: Libbpf, monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine with 256 GiB has 1,024 spans, and a process may have 1,024 files.
    monkeypatch.setattr(loading, "_AT_ONCE", 8)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    control.on(control.Options(free_side=True))
    control.off()
    limit = 64  # left to us, wherever the files that are open have their numbers
    for used in sorted(map(int, os.listdir("/proc/self/fd"))):
        limit += used < limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        control.on(control.Options(free_side=True))
        with open_store() as store:
            spans = len(store.spans) + len(store.freed)
            assert sum(map(int, capture(store).meta.frames.values()))
        assert control.status().pages["owned"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if spans < 64:
        pytest.skip(f"{spans} spans prove little")


@pytest.mark.parametrize(("namespaces", "words", "says"), [
    (["--pid", "--fork", "--mount-proc"], ["on"], "PID namespace of its own"),
    (["--pid", "--fork", "--mount-proc"], ["doctor"], "PID namespace of its own"),
    (["--cgroup"], ["on", "--cgroup", "/"], "the root of a cgroup namespace"),
])
def test_other_namespaces_are_refused_in_words(
        off: None, bpf: Libbpf, namespaces: list[str], words: list[str], says: str,
        tmp_path: Path) -> None:
    """Where BPF and this process would mean different things by the same number."""
    base = next((line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()
                 if line.split()[2] == "cgroup2"), None)
    if base is None:
        pytest.skip("no cgroup v2")
    inner = Path(base, f"pageowner-{os.getpid()}")
    inner.mkdir()
    script = (f'echo 0 >"{inner}/cgroup.procs"; exec unshare --mount {" ".join(namespaces)} sh -c'
              f' \'[ $# -lt 2 ] || {{ umount "{base}" && mount -t cgroup2 none "{base}"; }}'
              ' || exit 77;'
              f' exec "{sys.executable}" -m pageowner.cli "$@"\' sh "$@"')
    try:
        done = subprocess.run(["sh", "-c", script, "sh", *words], capture_output=True, text=True)
        if done.returncode == 77 or done.stderr.startswith("unshare: "):
            pytest.skip("no cgroup v2 in a namespace of its own")
        assert says in done.stdout + done.stderr
        assert done.returncode == 1
    finally:
        for _ in range(100):
            try:
                inner.rmdir()
                break
            except OSError:
                time.sleep(0.05)


@pytest.mark.parametrize(("place", "there", "mount"), [
    ("/sys/fs/bpf", "is_mounted", "mount_bpffs"),
    ("/sys/kernel/tracing /sys/kernel/debug/tracing", "has_tracefs", "mount_tracefs"),
])
@pytest.mark.usefixtures("off")
def test_what_is_not_mounted_is_mounted(place: str, there: str, mount: str) -> None:
    """In a mount namespace of its own, where there is none."""
    code = ("from pageowner.tracker import control;"
            "from pageowner.tracker.load import requirements as r;"
            f"assert not r.{there}(); assert r.{mount}(); assert r.{there}();"
            f"assert not r.{mount}(); assert control.off() is False")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c",
         f'for place in {place}; do while umount "$place" 2>/dev/null; do :; done; done;'
         f' exec "{sys.executable}" -c "{code}"'],
        capture_output=True, text=True)
    if done.stderr.startswith("unshare: "):  # in a chroot, too, which is no mount
        pytest.skip(f"no mount namespace can be made here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
