"""The balance of a machine's memory on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.report.cells import cut_path
from pageowner.report.table import Column, draw_table
from pageowner.report.text import count_of, printable, size
from pageowner.report.wrapping import prose

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pageowner.analysis.balance import Balance, Row
    from pageowner.report.terminal import Paper

__all__ = ["draw"]

_WIDE = 110
"""Columns from which on the kernel's counter and the note of each line are shown too."""

_SMALL = 2000
"""Below so small a part of MemTotal no line of its own is drawn, unless all are asked for."""

Line = tuple[int, str, int, str, str, str, str]
"""Depth, name, bytes, share, command, counter, note."""


def draw(balance: Balance, paper: Paper, top: int | None) -> None:
    """The table, how free(1) shows the same, and the warnings. ``top``: at most so many lines below
    each line; None for all."""
    lines = list(_lines(balance, top))
    names = ["  " * line[0] + printable(line[1]) for line in lines]
    columns = [
        Column("WHAT", names, text=True,
               refit=lambda width: [cut_path(name, width) for name in names]),
        Column("SIZE", [size(line[2]) for line in lines]),
        Column("SHARE", [line[3] for line in lines]),
        Column("TELLS MORE", [printable(line[4]) for line in lines], text=True, flexible=False)]
    if paper.width >= _WIDE:
        columns += [Column("COUNTER", [line[5] for line in lines], text=True),
                    Column("NOTE", [printable(line[6]) for line in lines], text=True)]
    draw_table(paper, columns)
    _cgroups(balance, paper, top)
    paper.line()
    prose(paper, _as_free(balance))
    if balance.known:
        prose(paper, "Not accounted for: " + "; ".join(balance.known) + ".")
    for warned in balance.warnings:
        prose(paper, f"! {printable(warned.text)} ({printable(warned.command)})", "warn")


def _lines(balance: Balance, top: int | None) -> Iterator[Line]:
    if balance.before:
        taken = balance.installed - balance.total
        yield 0, "memory", balance.installed, "", "lsmem", "", ""
        yield 0, "taken before MemTotal", taken, "", "dmesg | grep Memory:", "", ""
        for row in _folded(balance.before, top, 0):
            yield 1, row.name, row.bytes, "", row.command, row.counter, row.note
    yield 0, "MemTotal", balance.total, _share(balance.total, balance), "free -m", "MemTotal", ""
    for row in balance.rows:
        yield from _tree(row, 1, balance, top)


def _tree(row: Row, depth: int, balance: Balance, top: int | None) -> Iterator[Line]:
    yield (depth, row.name, row.bytes, _share(row.bytes, balance), row.command, row.counter,
           row.note)
    for below in _folded(row.rows, top, balance.total // _SMALL):
        yield from _tree(below, depth + 1, balance, top)


def _folded(rows: Sequence[Row], top: int | None, least: int) -> Iterator[Row]:
    """The first ``top`` rows of at least so many bytes, the others as one, and the rest, which is
    one of the others if it is as small; nothing if all are small."""
    if top is None:
        yield from rows
        return
    few: list[Row] = []
    rest: list[Row] = []
    others: list[Row] = []
    named = 0
    for row in rows:  # not by value: there are equal ones, such as files of the same name and size
        if row.key in ("rest", "moved"):
            (rest if abs(row.bytes) >= least else others).append(row)
            continue
        (few if named < top and row.bytes >= least else others).append(row)
        named += 1
    if not few and not rest:
        return
    yield from few
    if len(others) == 1:
        yield others[0]
    elif others:
        yield others[0]._replace(name=f"{len(others):,} others", rows=(), counter="", command="",
                                 note="", bytes=sum(row.bytes for row in others))
    yield from rest


def _share(held: int, balance: Balance) -> str:
    return f"{held / balance.total:.1%}"


def _cgroups(balance: Balance, paper: Paper, top: int | None) -> None:
    """The same memory once more, by the cgroup that it is charged to."""
    charged = [cgroup for cgroup in balance.cgroups if cgroup[1] + cgroup[2] + cgroup[3] > 0]
    if len(charged) < 2:
        return
    shown = charged[:top]
    paths = [printable(cgroup.path) for cgroup in shown]
    paper.line()
    called = [printable(cgroup.container or cgroup.pod or "") for cgroup in shown]
    draw_table(paper, [
        Column("CHARGED TO CGROUP, WITHOUT THOSE BELOW IT", paths, text=True,
               refit=lambda width: [cut_path(path, width) for path in paths]),
        *([Column("POD, CONTAINER", called, text=True)] if any(called) else ()),
        Column("ANONYMOUS", [size(cgroup.anonymous) for cgroup in shown]),
        Column("FILE AND SHARED", [size(cgroup.file) for cgroup in shown]),
        Column("KERNEL", [size(cgroup.kernel) for cgroup in shown])])
    if len(charged) > len(shown):
        more = count_of(len(charged) - len(shown), "more cgroup")
        paper.line(f"{more}; --all shows them", "dim")


def _as_free(balance: Balance) -> str:
    """The line of free(1) of procps 4 (used is what is not available), with our words."""
    memory = balance.meminfo
    available = memory.get("MemAvailable", memory.get("MemFree", 0))
    cache = sum(memory.get(name, 0) for name in ("Buffers", "Cached", "SReclaimable"))
    return (f"free(1) shows: total {size(balance.total)}, used"
            f" {size(balance.total - available)}, free {size(memory.get('MemFree', 0))}, shared"
            f" {size(memory.get('Shmem', 0))}, buff/cache {size(cache)} (page cache, shared memory,"
            f" reclaimable slabs), available {size(available)}.")
