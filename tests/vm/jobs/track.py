"""Track a guest from on to off: the verifier takes the programs, every recognised stack is unwound
too, the accounts close, nothing is left.

    track.py                  turns tracking on, runs loads, looks, turns it off
    track.py --contiguous     with the loads that take memory in one piece, from those who use it
    track.py --always         with the second programs from the start, so that nothing is missed
    track.py --look           what is run while the loads hold their memory

Writes track.json: hooks, pages by state, counters, the memo's. Exit status 1 if an account did not
close, a stack differed, or something was left behind.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "live"))

from machine import known_frames, pages_by_state  # noqa: E402

LOADS = "vmalloc,sockets,pipes,forks,anonymous,page_cache,tmpfs"
CONTIGUOUS = "hugetlb,gigantic,compaction,cma"
PINS = Path("/sys/fs/bpf/pageowner")


def pageowner(*words: str) -> str:
    return subprocess.run([sys.executable, "-m", "pageowner", *words], check=True,
                          stdout=subprocess.PIPE, text=True).stdout


def print_difference() -> None:
    """The first one, side by side: what the memo said and what the unwinder found."""
    from pageowner.kernel import kallsyms
    from pageowner.tracker.read.maps import open_store

    with open_store() as store:
        raw = np.frombuffer(store.bpf.lookup(store.fd("memo_difference"), bytes(4),
                                             8 + 8 * 64) or b"", "u8")
        stack, n = np.frombuffer(raw[:1].tobytes(), "u4")
        said = store.stacks["frames"][stack][: store.stacks["n"][stack]].tolist()
    found = raw[1 : 1 + int(n)].tolist()
    names = kallsyms.load()
    for frames in (said, found):
        print("the memo said:" if frames is said else "the unwinder found:")
        for frame, name in zip(frames, names.resolve(frames), strict=True):
            print(f"  {frame:#x} {name}")


def look() -> int:
    from pageowner.sources.source import read
    from pageowner.tracker.read.maps import possible_cpus

    pageowner("save", "track.parquet")
    status = json.loads(pageowner("status", "--json"))
    snapshot = read("track.parquet")
    frames, counters = snapshot.meta.frames, snapshot.meta.counters
    memo = status["memo_counters"]
    untyped = snapshot.meta.extra.get("no_block_types")
    said = {"kernel": os.uname().release, "hooks": status["hooks"], "frames": frames,
            "known": known_frames(), "no_block_types": untyped, "counters": counters, "memo": memo,
            "missed": status["missed"], "memory_bytes": status["memory_bytes"],
            "possible_cpus": possible_cpus()}
    Path("track.json").write_text(json.dumps(said, indent=1))
    print("hooks:", ", ".join(f"{name} {how}" for name, how in status["hooks"].items()))
    print("frames:", ", ".join(f"{name} {number:,}" for name, number in frames.items()))
    print("counters:", ", ".join(f"{name} {n:,}" for name, n in counters.items() if n))
    print(f"memo {status['memo']}:", ", ".join(f"{name} {n:,}" for name, n in memo.items() if n))
    print(pageowner("report", "--by", "subsystem", "--top", "12"))
    failures = []
    if sum(frames.values()) != said["known"]:
        failures.append(f"{sum(frames.values()):,} frames accounted for of {said['known']:,}")
    if pages_by_state(snapshot) != {name: frames[name] for name in ("owned", "early",
                                                                     "untracked")}:
        failures.append("the rows do not sum up to the frames")
    if untyped and re.search(r" mem_section$", Path("/proc/kallsyms").read_text(), re.MULTILINE):
        failures.append(f"no types of pageblocks: {untyped}")
    failures += [f"{hook} is {state}" for hook, state in status["hooks"].items()
                 if state.startswith("blind")]
    if status["unexplained"]:
        failures.append(f"untracked pages that no missing hook explains: {status['unexplained']}")
    from pageowner.tracker.load.memo import NOT_ON_ARM64

    unwinds = platform.machine() == "aarch64" and status["memo"] == NOT_ON_ARM64
    if status["memo"] != "on" and not unwinds:
        failures.append(f"the memo is not on: {status['memo']}")
    if not unwinds and (memo["differences"] or not memo["checks"]):
        failures.append(f"{memo['differences']:,} of {memo['checks']:,} recognised stacks differ")
        print_difference()
    for failure in failures:
        print("FAILED:", failure)
    return int(bool(failures))


def main() -> int:
    if sys.argv[1:] == ["--look"]:
        return look()
    loads = f"{LOADS},{CONTIGUOUS}" if "--contiguous" in sys.argv[1:] else LOADS
    always = ["--second-programs", "always"] if "--always" in sys.argv[1:] else []
    print(pageowner("on", "--check", "1", *always))
    status = subprocess.run([sys.executable, str(HERE.parent / "loads" / "hold.py"), "--only",
                             loads, sys.executable, __file__, "--look"], check=False).returncode
    pageowner("off")
    if PINS.exists():
        print("FAILED: pins are left in bpffs")
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
