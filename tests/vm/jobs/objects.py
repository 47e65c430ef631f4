"""objects.py: all objects of slabs that the tracker follows, beside the kernel's own account.

With slub_debug=U the kernel keeps who allocated each object, and lists them by stack in
/sys/kernel/debug/slab/CACHE/alloc_traces (mm/slub.c, slab_debugfs_show; stacks since 5.19).
Compared are the groups whose objects were all allocated after `on`, at rest.

Exit status 0 if at least 99.9 % of the objects are the same by cache and caller, and by cache and
stack.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from pageowner.analysis.sampled import bounds
from pageowner.model.tracking import Options
from pageowner.tracker import control
from pageowner.tracker.read.capture_objects import capture_objects

SLAB = Path("/sys/kernel/debug/slab")
GROUP = re.compile(r"^\s*(\d+) (\S+)(?: (\[\S+\]))?.* age=(\d+)(?:/\d+/(\d+))? ")
INNER = re.compile(r"bpf_trampoline_|kmem_cache_alloc_bulk")
"""What a program of ours puts between the caller and the allocator."""
PREPARED = "kmem_cache_prefill_sheaf"
"""Takes objects that nobody has yet (6.18): they count when they are taken out (mm/slub.c)."""
MARGIN = 3
REST = 20
"""Seconds for what is freed later (RCU, work queues) to be freed."""
WANTED = 0.999
TIMES = 100
"""How often a sample is drawn."""


def keep_some() -> list[object]:
    """Objects of many kinds, some of them freed again."""
    kept: list[object] = []
    place = tempfile.mkdtemp()
    for number in range(300):
        kept.append(os.pipe())
        kept.append(socket.socketpair())
        kept.append(open(f"{place}/object-{number}", "w"))  # noqa: SIM115
        kept.append(os.eventfd(0))
        if not number % 3:
            first, second = socket.socketpair()
            first.close()
            second.close()
    for number in range(2000):
        Path(f"{place}/gone-{number}").touch()
        os.stat(place)
    for number in range(0, 2000, 2):
        os.unlink(f"{place}/gone-{number}")
    for _ in range(30):
        if not os.fork():
            os._exit(0)
        os.wait()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(200):
            Path(folder, str(number)).write_text("x" * 5000)
    server = socket.create_server(("127.0.0.1", 0))
    for _ in range(50):
        kept.append(socket.create_connection(server.getsockname()))
        kept.append(server.accept()[0])
    return kept


def jiffies() -> int:
    """The kernel's clock, in which it tells ages."""
    return int(re.search(r"^jiffies: (\d+)", Path("/proc/timer_list").read_text(), re.M)[1])


def truth(began: int, rested: int) -> tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]]:
    """Objects by cache and frames, of groups that are all younger than this moment and older
    than what this itself needs, and of the others."""
    found: tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]] = Counter(), Counter()
    for cache in SLAB.iterdir():
        try:
            text = (cache / "alloc_traces").read_text(errors="replace")
        except OSError:
            continue
        young = jiffies() - began
        for group in re.split(r"\n\n+|\n(?=\s*\d+ \S+ )", text):
            lines = group.strip("\n").split("\n")
            match = GROUP.match(lines[0])
            if not match:
                continue
            caller = " ".join(part for part in (match[2], match[3]) if part)
            frames = [line.strip() for line in lines[1:] if line.strip()]
            frames = frames[frames.index(caller):] if caller in frames else [caller]
            while len(frames) > 1 and INNER.match(frames[0]):
                del frames[0]
            newest, oldest = int(match[4]), int(match[5] or match[4])
            found[oldest >= young or newest < rested][(cache.name, *frames)] += int(match[1])
    return found


def ours() -> Counter[tuple[str, ...]]:
    snapshot = capture_objects()
    counted: Counter[tuple[str, ...]] = Counter()
    for cache, stack in zip(snapshot.table["cache"].to_pylist(),
                            snapshot.table["stack"].to_pylist(), strict=True):
        counted[(cache, *(stack or "").split("\n"))] += 1
    return counted


def same_part(key: tuple[str, ...], callers: dict[str, set[str]], depth: int,
              ) -> tuple[str, ...]:
    """A stack from the caller on that the kernel names, so many frames of it."""
    for place, frame in enumerate(key[1:], 1):
        if frame in callers.get(key[0], ()):
            return (key[0], *key[place : place + depth])
    return key[:1]


def share(mine: Counter[tuple[str, ...]], theirs: Counter[tuple[str, ...]]) -> float:
    """The part of their objects that is among mine."""
    total = sum(theirs.values())
    return sum(min(number, mine[key]) for key, number in theirs.items()) / total if total else 0


def sampled() -> str:
    """How often the bounds of a sample hold the truth, by drawing from all objects."""
    snapshot = capture_objects()
    address = snapshot.table["address"].to_numpy()
    size = snapshot.table["amount"].to_numpy().astype(np.int64)
    random, within, drawn, held = np.random.default_rng(1), 0, 0, {}
    codes = np.unique(snapshot.table["cache"].to_pylist(), return_inverse=True)[1]
    for _ in range(TIMES):
        seed = random.integers(0, 1 << 63, dtype=np.uint64)
        mixed = (address ^ seed) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ mixed >> np.uint64(32)) * np.uint64(0xD6E8FEB86659FD93)
        chosen = mixed <= np.uint64((1 << 64) // 64 - 1)
        each = size[chosen] * 64
        low, high = bounds(np.array([each.sum()]), np.array([(each.astype(float) ** 2).sum()]), 64)
        within += int(low[0] <= size.sum() <= high[0])
        for code in np.unique(codes[chosen]):
            of = codes == code
            if of.sum() < 640:
                continue
            part = size[of & chosen] * 64
            low, high = bounds(np.array([part.sum()]),
                               np.array([(part.astype(float) ** 2).sum()]), 64)
            drawn += 1
            held[code] = held.get(code, 0) + int(low[0] <= size[of].sum() <= high[0])
    return (f"sample: of {TIMES} samples of one in 64, {within} hold the size of all objects"
            f" between their bounds; of {drawn} sums by cache, {sum(held.values())}"
            f" ({100 * sum(held.values()) / max(drawn, 1):.1f} %)")


def main() -> int:
    status = control.on(Options(objects=1))
    began = jiffies()
    time.sleep(MARGIN)
    print("hooks:", ", ".join(f"{name} {state}" for name, state
                              in status.facts["object_hooks"].items()))
    kept = keep_some()
    time.sleep(REST)
    mine, start = ours(), time.monotonic()
    ticks = jiffies() - began
    second = ticks // REST
    theirs, older = truth(began + second, second)
    print(f"read in {time.monotonic() - start:.1f} s; {second} ticks a second")
    mine &= ours()
    still = truth(began + second, second)[0]
    waiting = sum(number for key, number in theirs.items() if key[1].startswith(PREPARED))
    theirs = Counter({key: number for key, number in theirs.items()
                      if still[key] == number and not key[1].startswith(PREPARED)})
    print(f"of the kernel's, {waiting:,} are not in use: ready for a task that may need them")
    callers: dict[str, set[str]] = {}
    for key in theirs:
        callers.setdefault(key[0], set()).update(key[1:2])
    shares = {}
    for name, depth in (("cache and caller", 1), ("cache and stack", 9)):
        left = Counter[tuple[str, ...]]()
        for key, number in mine.items():
            left[same_part(key, callers, depth)] += number
        right = Counter[tuple[str, ...]]()
        for key, number in theirs.items():
            right[key[: depth + 1]] += number
        shares[name] = share(left, right)
        print(f"by {name}: {sum(right.values()):,} objects of the kernel's, in {len(right):,}"
              f" groups younger than tracking; {100 * shares[name]:.3f} % are the same")
        for key, number in (right - left).most_common(8):
            print(f"  missing {number} of {right[key]}: {' <- '.join(key)}")
        # What is ours and in no group of the kernel's, by groups that have no older objects.
        more = Counter({key: number for key, number in (left - right).items()
                        if len(key) > 1 and (key[0], key[1]) not in
                        {(old[0], old[1]) for old in older}})
        print(f"  more: {sum(more.values()):,}")
        for key, number in more.most_common(8):
            print(f"  more {number} than {right[key]}: {' <- '.join(key)}")
    print(sampled())
    counters = control.status().counters
    print({name: number for name, number in counters.items() if name.startswith("object")})
    control.off()
    del kept
    return int(min(shares.values()) < WANTED)


if __name__ == "__main__":
    sys.exit(main())
