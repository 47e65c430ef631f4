"""Is the planted leak named by its object? The programs of leaking.py beneath the noise of
leaks.py, with ``on --objects``, each watched by ``pageowner leaks --objects`` for a minute; and the
same noise with no leak.

    python benchmarks/object_leaks.py [--rounds N] [--for S] [--share N] [--results FILE] [WHAT…]

WHAT are programs of leaking.py, or ``none``. Each run is a line of FILE (JSON); the table is of all
lines in it, so that a bench can be run in parts. ``--table`` only prints it. *named*: what the
leak's row is called by; *as*: in how many rows of the answer the leaking program is; *others*: what
else is called a leak.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import leaking
from common import BIN, keep_run, leak_options, need_tracking, runs_by_leak
from leaks import noise
from pageowner.analysis.subsystems import functions, short_stack
from pageowner.model.tracking import Options
from pageowner.tracker import control

OWN = {
    "inodes": r"(shmem_)?alloc_inode", "threads": r"dup_task_struct|copy_process",
    "eventfd": r"do_eventfd", "epoll": r"ep_insert|do_epoll_ctl",
    "io_uring": r"io_\w+", "messages": r"load_msg|alloc_msg", "dentries": r"__d_alloc",
    "timers": r"do_timer_create|alloc_posix_timer", "locks": r"posix_lock_inode|locks_alloc_lock",
    "keys": r"key_alloc", "netlink": r"sk_prot_alloc",
    "signals": r"__send_signal_locked|(__)?sigqueue_alloc|__sigqueue_alloc",
}
"""The function that allocates the object itself, where the leak is of objects."""

_SLOWER = {"eventfd": 1 / 8, "netlink": 1 / 2}
"""Of what a process may have only so many (RLIMIT_NOFILE): their share of the rate."""

_ALLOCATOR = re.compile(r"_*(kmem_cache_alloc|kmalloc|kvmalloc)\w*|kmemdup\w*")


def processes(pid: int) -> set[int]:
    """A process and all that descend from it."""
    found = {pid}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= processes(int(child))
    return found


def own_function(stack: str) -> str:
    """The innermost function that is no allocator."""
    return next((frame.name for frame in functions(stack)
                 if not _ALLOCATOR.fullmatch(frame.name)), "")


def run(what: str, arguments: argparse.Namespace) -> dict[str, Any]:
    rate = arguments.rate * leaking.MIB * _SLOWER.get(what, 1)
    program = leaking.start(what, rate) if what != "none" else None
    time.sleep(2)
    whose: set[int] = set()
    try:
        done = subprocess.run(
            [BIN / "pageowner", "leaks", "--objects", "--json", "--for", f"{arguments.seconds}s",
             "--every", f"{arguments.every}s", "--top", "1000"],
            check=False, capture_output=True, text=True)
        if program:
            if program.poll() is not None:
                raise SystemExit(f"{what} ended early")
            whose = processes(program.pid)
    finally:
        if program:
            program.communicate()
    if done.returncode:
        raise SystemExit(done.stderr)
    leaks = [row for row in json.loads(done.stdout)["owners"] if row["kind"] == "leak"]
    return judged(what, leaks, whose)


def judged(what: str, leaks: list[dict[str, Any]], whose: set[int]) -> dict[str, Any]:
    """Where the leak is among what is called one, and by what it is called."""
    pattern = leaking.PROGRAMS[what][1] if what != "none" else r"^$"
    place, mine, others = None, 0, []
    for number, row in enumerate(leaks, 1):
        stack = "\n".join(row["stack"] or [])
        is_leak = bool(re.search(pattern, stack or row["note"] or ""))
        if is_leak and place is None:
            place = number
        tgids = {task["tgid"] for task in row["tasks"][:1]}
        if is_leak or tgids & whose:
            mine += 1
        else:
            others.append(described(row))
    named = leaks[place - 1] if place else None
    function = "" if named is None else own_function("\n".join(named["stack"] or [])) or named[
        "note"]
    own = re.compile(OWN.get(what, r".*"))
    return {"what": what, "claimed": len(leaks), "place": place, "parts": mine, "named": function,
            "by_its_own": bool(place and own.fullmatch(function)), "others": others,
            "rate_MiB_s": named["bytes_per_hour"] / 3600 / leaking.MIB if named else None}


def described(row: dict[str, Any]) -> str:
    name = short_stack("\n".join(row["stack"]), 3) if row["stack"] else row["note"]
    comms = ",".join(str(task["comm"]) for task in row["tasks"][:1])
    return f"{name} of {comms} ({row['bytes_per_hour'] / 3600 / leaking.MIB:.2f} MiB/s)"


def table(results: Path) -> None:
    """The runs so far."""
    runs = runs_by_leak(results)
    none = runs.pop("none", [])
    print(f"{'leak':9} {'place':6} {'as':4} {'MiB/s':>6}  named                    others")
    for what, ours in runs.items():
        for result in ours:
            rate = result["rate_MiB_s"]
            print(f"{what:9} {result['place'] or '-'!s:6} {result['parts']!s:4}"
                  f" {0 if rate is None else rate:6.2f}  {result['named']:24}"
                  f" {'; '.join(result['others']) or '-'}")
    planted = [result for ours in runs.values() for result in ours]
    first = [result for result in planted if result["place"] == 1]
    print(f"first: {len(first)} of {len(planted)};"
          f" by its own function: {sum(result['by_its_own'] for result in first)};"
          f" as one: {sum(result['parts'] == 1 for result in first)};"
          f" with no leak: {sum(result['claimed'] > 0 for result in none)} of {len(none)} runs"
          " claim one")
    for result in none:
        for other in result["others"]:
            print(f"without a leak: {other}")


def main() -> None:
    parser = leak_options(__doc__.split("\n", 1)[0], [*leaking.PROGRAMS, *["none"] * 10],
                          "object_leaks.jsonl")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--share", type=int, default=64, help="follow one object in so many")
    arguments = parser.parse_args()
    if arguments.table:
        table(arguments.results)
        return
    need_tracking()
    control.on(Options(objects=arguments.share))
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, noise(folder):
            time.sleep(arguments.warm)
            for what in arguments.what * arguments.rounds:
                result = run(what, arguments)
                keep_run(arguments.results, result)
                print(f"{what}: place {result['place']} of {result['claimed']}, named"
                      f" {result['named']}, as {result['parts']}; load {os.getloadavg()[0]:.1f};"
                      f" {result['others'][:3]}", flush=True)
    finally:
        control.off()
    table(arguments.results)


if __name__ == "__main__":
    main()
