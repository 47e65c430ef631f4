"""Compare the tracker with the kernel's own page owner, record by record.

    agreement.py FOLDER [LINES]     with what tests/vm/jobs/agree.py wrote

A record counts if the kernel's is younger than the tracker and the tracker said the same of its
page before and after the kernel's file was read; all others are raced or older. Equal is: order,
gfp mask, pid, tgid and name of the task, the stack from the first function that both have, and
the time within a millisecond, once the constant distance of the two clocks is taken off. The
rest is printed one by one. Exit status 1 below 99.99 % or with a stale or an untracked page.
"""

from __future__ import annotations

import json
import re
import sys
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import same_tables

import pageowner

FIELDS = ("order", "gfp_mask", "pid", "tgid", "comm", "stack", "time")
COLUMNS = ("pfn", "order", "gfp_mask", "pid", "tgid", "comm", "ts_ns", "stack", "state")
DEPTH = 16
"""PAGE_OWNER_STACK_DEPTH, and the tracker's unless told otherwise."""
MILLISECOND = 1_000_000
ENOUGH = 0.9999
_ENTRY = re.compile(r"(asm_(exc|sysvec|common)_|__irqentry|error_entry)")
_TIME_ALONE = re.compile(r"differs \S+ in time:")
_FRAME = re.compile(r"([^+\s]+)\+(0x[0-9a-f]+)/0x[0-9a-f]+(?: \[([^\]]+)\])?")


class Row(NamedTuple):
    """A record of either side."""

    order: int
    gfp_mask: int | None
    pid: int | None
    tgid: int | None
    comm: str | None
    ts_ns: int | None
    stack: str | None
    state: str


def rows(path: Path) -> tuple[dict[int, Row], pageowner.Metadata]:
    """The records of a dump or a snapshot by pfn."""
    snapshot = pageowner.read(path)
    columns = [snapshot.table[name].to_pylist() for name in COLUMNS]
    return {pfn: Row(*row) for pfn, *row in zip(*columns, strict=True)}, snapshot.meta


class Symbols:
    """Addresses of functions: two names of one address are one function."""

    def __init__(self, path: Path) -> None:
        self.address: dict[str, int] = {}
        for line in path.read_text().splitlines():
            address, _, name = line.split()[:3]
            self.address.setdefault(name, int(address, 16))
        # in_irqentry_text() in kernel/stacktrace.c
        self._entries = [(start, end) for kind in ("irqentry", "softirqentry") if (
            (start := self.address.get(f"__{kind}_text_start"))
            and (end := self.address.get(f"__{kind}_text_end")))]

    def same(self, one: str, other: str) -> bool:
        """Whether two frames are one place."""
        return one == other or (
            (place := self._place(one)) is not None and place == self._place(other))

    def is_entry(self, frame: str) -> bool:
        """Whether an exception or interrupt entered in this function."""
        place = self._place(frame)
        return bool(_ENTRY.match(frame)) or (place is not None and any(
            start <= place < end for start, end in self._entries))

    def _place(self, frame: str) -> int | None:
        found = _FRAME.match(frame)
        address = self.address.get(found[1]) if found else None
        return None if address is None or found is None else address + int(found[2], 16)


def function(frame: str) -> str:
    return frame.partition("+")[0]


def same_stack(ours: str | None, kernels: str | None, symbols: Symbols) -> bool:
    """Whether they agree from the first function that both have.

    The kernel's begins deeper, in post_alloc_hook(), ours where the tracepoint stands; so in the
    first common function they stand at two places, and above it at the same ones. Both are cut at
    16 frames, the kernel's therefore earlier.
    """
    if ours is None or kernels is None:
        return ours == kernels
    mine, theirs = ours.split("\n"), kernels.split("\n")
    for place, frame in enumerate(mine):
        # more than once where a function is called by itself, or by a trampoline of ours
        places = [n for n, one in enumerate(theirs) if function(one) == function(frame)]
        if places:
            return any(_same_above(mine[place + 1:], theirs[at + 1:], symbols,
                                   max(len(mine), len(theirs))) for at in places)
    return False


def _same_above(above: list[str], below: list[str], symbols: Symbols, depth: int) -> bool:
    # the stack depot ends a stack where an exception or interrupt entered (filter_irq_stacks)
    cut = depth >= DEPTH or (below and symbols.is_entry(below[-1]))
    if not cut and len(above) != len(below):
        return False
    number = min(len(above), len(below))
    return all(symbols.same(one, other)
               for one, other in zip(above[:number], below[:number], strict=True))


def short(stack: str | None) -> str:
    return " ".join(function(frame) for frame in (stack or "none").split("\n")[:9])


def differing(ours: Row, kernels: Row, distance: float, symbols: Symbols) -> list[str]:
    """The fields that are not the same."""
    found = [name for name in FIELDS[:5] if getattr(ours, name) != getattr(kernels, name)]
    if not same_stack(ours.stack, kernels.stack, symbols):
        found.append("stack")
    if ours.ts_ns is None or kernels.ts_ns is None or (
            abs(kernels.ts_ns - ours.ts_ns - distance) > MILLISECOND):
        found.append("time")
    return found


def compare(folder: Path, limit: int = 200) -> int:
    before, began = rows(folder / "before.parquet")
    after, meta = rows(folder / "after.parquet")
    kernels, _ = rows(folder / "page_owner.txt")
    symbols = Symbols(folder / "kallsyms")
    since = int(meta.extra["since_ns"])
    quiet = {pfn: row for pfn, row in after.items() if before.get(pfn) == row}
    matched = [(row.ts_ns, quiet[pfn].ts_ns) for pfn, row in kernels.items()
               if pfn in quiet and quiet[pfn].pid == row.pid]
    distance = median(theirs - mine for theirs, mine in matched if mine and theirs)
    starts = sorted(after)

    def owner(pfn: int) -> tuple[int, Row] | None:
        """Our record that holds a page."""
        at = bisect_right(starts, pfn) - 1
        if at < 0:
            return None
        row = after[starts[at]]
        return (starts[at], row) if pfn < starts[at] + (1 << row.order) else None

    tally: Counter[str] = Counter()
    fields: Counter[str] = Counter()
    rest: list[str] = []
    late: list[dict[str, Any]] = []  # of those that differ in time alone
    agreed: list[int] = []
    for pfn, theirs in kernels.items():
        if theirs.ts_ns is None or theirs.ts_ns - distance < since:
            tally["older than tracking"] += 1
            continue
        if theirs.ts_ns - distance >= (began.clock_ns or 0):
            tally["raced"] += 1  # not there when the tracker was first read, perhaps gone since
            continue
        mine = quiet.get(pfn)
        if mine is None:
            if before.get(pfn) != after.get(pfn):
                tally["raced"] += 1
                continue
            held = owner(pfn)
            tally["missing"] += 1
            rest.append(f"missing {pfn:#x} order {theirs.order} of {theirs.comm!r}: ours has"
                        f" {'nothing' if held is None else f'{held[0]:#x} {held[1]}'};"
                        f" {short(theirs.stack)}")
            continue
        if mine.state != "owned":
            tally[f"missing ({mine.state})"] += 1
            rest.append(f"{mine.state} {pfn:#x} order {theirs.order} of {theirs.comm!r}:"
                        f" {short(theirs.stack)}")
            continue
        if theirs.stack and theirs.stack.startswith("register_dummy_stack"):
            # allocated by page owner itself while it saved a stack: it does not look twice
            tally["no stack in the kernel's"] += 1
            continue
        wrong = differing(mine, theirs, distance, symbols)
        tally["differing" if wrong else "equal"] += 1
        fields.update(wrong)
        if not set(wrong) - {"time"}:
            agreed.append(pfn)
        if wrong == ["time"]:
            late.append({"pfn": pfn, "order": mine.order, "comm": mine.comm,
                         "ms": ((mine.ts_ns or 0) + distance - theirs.ts_ns) / 1e6,
                         "stack": short(mine.stack)})
        if wrong:
            rest.append(f"differs {pfn:#x} in {', '.join(wrong)}: "
                        + "; ".join(f"{name} {getattr(mine, name)} / {getattr(theirs, name)}"
                                    for name in wrong if name not in ("stack", "time"))
                        + (f" time {(theirs.ts_ns - (mine.ts_ns or 0) - distance) / 1e6:.3f} ms"
                           if "time" in wrong else "")
                        + (f" ours {short(mine.stack)} / kernel {short(theirs.stack)}"
                           if "stack" in wrong else ""))
    covered = set()
    for pfn, theirs in kernels.items():
        covered.update(range(pfn, pfn + (1 << theirs.order)))
    for pfn, mine in quiet.items():
        if mine.state == "owned" and pfn not in covered:
            tally["extra"] += 1
            rest.append(f"extra {pfn:#x} order {mine.order} of {mine.comm!r}: {short(mine.stack)}")
    counted = sum(number for name, number in tally.items()
                  if name not in ("older than tracking", "raced", "no stack in the kernel's"))
    share = tally["equal"] / max(counted, 1)
    print(f"\nAgainst the kernel's own page owner, {meta.kernel}; clocks {distance / 1e6:.3f} ms"
          " apart")
    for name, number in tally.most_common():
        print(f"{name:<24}{number:>9,}")
    for name, number in fields.most_common():
        print(f"  differing in {name:<14}{number:>6,}")
    print(f"{'equal of those compared':<24}{100 * share:>9.4f} %")
    stale, untracked = meta.counters["stale_pages"], meta.frames["untracked"]
    print(f"{'stale':<24}{stale:>9,}\n{'untracked':<24}{untracked:>9,}")
    for line in rest[:limit]:
        print(line)
    (folder / "rest.txt").write_text("".join(line + "\n" for line in rest))
    if len(rest) > limit:
        print(f"and {len(rest) - limit} more, all in rest.txt")
    tables = same_tables.compare(folder, agreed, symbols.address)
    for name, said in tables.items():
        print(f"{name}: {said}")
    result = {"kernel": meta.kernel, "tally": dict(tally), "differing": dict(fields),
              "share": share, "stale": stale, "untracked": untracked, "tables": tables,
              "late": late,
              "rest": [line for line in rest if not _TIME_ALONE.match(line)]}
    (folder / "agree.json").write_text(json.dumps(result, indent=1))
    return int(share < ENOUGH or stale > 0 or untracked > 0
               or not all(said.startswith("same") for said in tables.values()))


if __name__ == "__main__":
    sys.exit(compare(Path(sys.argv[1]), *map(int, sys.argv[2:])))
