"""Read a file of the kernel's page_owner_stacks folder as a source: stacks with their pages."""

from __future__ import annotations

import gc
import os
import re
from itertools import pairwise
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.kernel.limits import PFN_BITS
from pageowner.sources import handles, page_owner
from pageowner.sources.damage import note_left_out
from pageowner.sources.opening import reading
from pageowner.sources.page_owner_parser import START
from pageowner.sources.workers import Memory, Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.opening import Opened
    from pageowner.sources.page_owner_stack_blocks import Stacks

__all__ = ["begin", "file_in", "read", "recognises"]

_PIECE = 1 << 20
"""Bytes of stacks that are read together."""

_FIRST = re.compile(rb"^(?:nr_base_pages|stack_count|handle): \d", re.MULTILINE)


def recognises(head: bytes) -> bool:
    """Whether a text that begins so is one of these files."""
    return START not in head and _FIRST.search(head) is not None


def file_in(folder: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The file to read of a folder such as /sys/kernel/debug/page_owner_stacks; the folder itself
    if it is none."""
    for name in ("show_stacks", "show_handles"):
        if os.path.isfile(path := os.path.join(folder, name)):
            return path
    return folder


def read(opened: Opened) -> Snapshot:
    """Stacks, or handles where these are not known, with the pages that each holds, as a
    `Snapshot`. What is damaged is skipped and counted in ``meta.counters``; ``sizes_unknown`` is
    there the number of stacks of which only the number of allocations is known: each of these
    counts as one page. What the text tells twice is read once: ``left_out`` counts the rest, and
    ``meta.extra["left_out"]`` says in words what it was. Raises PageownerError if there is no stack
    with a number."""
    return begin(opened)()


def begin(opened: Opened) -> Callable[[], Snapshot]:
    """Start to read, in other processes if the text is large; the returned function waits and gives
    what `read` does, and raises what it does."""
    size = opened.size
    if size is None or not page_owner.is_large(opened):
        return lambda: _snapshot(_alone(opened), opened.name)
    from pageowner.sources import page_owner_stack_blocks  # noqa: F401 - once for all of them

    file = opened.stream.fileno()
    with reading(opened.name):
        ranges = list(pairwise(page_owner.edges(file, size, cut)))
    memory = Memory(len(ranges))
    with reading(opened.name):
        workers = Workers([
            lambda place=place, sink=sink: _share(file, size, place, sink)  # type: ignore[misc]
            for place, sink in zip(ranges, memory.files, strict=True)])

    def finish() -> Snapshot:
        # Imported while the others read.
        from pageowner.sources import page_owner_groups  # noqa: F401

        with reading(opened.name):
            shares = workers.results()
        lists = _together(shares, memory)
        return _snapshot(lists or _alone(opened), opened.name)

    return finish


def _alone(opened: Opened) -> Stacks:
    """All of a text, by this process."""
    from pageowner.sources.page_owner_stack_blocks import Stacks

    with reading(opened.name):
        text = opened.stream.read()
    collects = gc.isenabled()
    gc.disable()  # nothing of it is garbage, and looking takes longer than reading
    try:
        lists, at = Stacks(), 0
        while at < len(text):
            end = min(at + _PIECE, len(text))
            while end < len(text) and not (stop := last_cut(text[at:end])):
                end = min(2 * end - at, len(text))
            end = at + stop if end < len(text) else end
            lists.take(text[at:end], at)
            at = end
        # The line with the number is the last of a stack.
        lists.unterminated = not text.endswith(b"\n")
        lists.settle()
    finally:
        if collects:
            gc.enable()
    return lists


def cut(text: bytes) -> int:
    """The first place in a text where a stack begins behind an empty line; -1 if there is none."""
    at = text.find(b"\n\n ", 1)
    while at >= 0 and text[at - 1] == ord("\n"):  # of more than two line ends
        at = text.find(b"\n\n ", at + 1)
    return at + 2 if at >= 0 else -1


def last_cut(text: bytes) -> int:
    """The last such place, 0 if there is none."""
    at = text.rfind(b"\n\n ")
    while at > 0 and text[at - 1] == ord("\n"):
        at = text.rfind(b"\n\n ", 0, at + 2)
    return at + 2 if at > 0 else 0


def _share(file: int, size: int, place: tuple[int, int], sink: int) -> Stacks | None:
    """The stacks of a part of a text, whose frames are put into a file of memory; None if not all
    are told by frames alone, or the text ends before the part does."""
    from pageowner.sources.page_owner_stack_blocks import Stacks

    lists, (at, stop), wanted, text = Stacks(), place, _PIECE, b""
    while at < stop:
        text = os.pread(file, min(wanted, stop - at), at)
        if at + len(text) < stop:
            if len(text) < wanted:  # the file has become shorter
                return None
            if not (end := last_cut(text)):
                wanted *= 2
                continue
            text = text[:end]
        wanted = _PIECE
        lists.take(text, at)
        at += len(text)
        if lists.has_handles:
            return None
        Memory.put(sink, lists.frames)
        lists.frames.clear()
    lists.unterminated = stop == size and not text.endswith(b"\n")
    return lists


def _together(shares: list[Stacks | None], memory: Memory) -> Stacks | None:
    """The parts of a text as one; None if they have to be read by one process."""
    from pageowner.sources.page_owner_stack_blocks import Stacks

    lists = Stacks()
    for share, frames in zip(shares, memory.held(), strict=True):
        if share is None or lists.total + share.total >> PFN_BITS:
            return None
        lists.add(share)
        lists.frames.append(frames)
    lists.settle()
    return lists


def _snapshot(lists: Stacks, name: str) -> Snapshot:
    """The lists as a snapshot; raises what `read` does."""
    if not lists.line and lists.many is None:
        if lists.names:
            raise PageownerError(
                f"{name}: contains the stack of each handle but no numbers of pages; use it"
                " with --handles FILE, for a source that has handles, such as show_handles")
        raise PageownerError(f"{name}: contains no stack with its number of pages")
    kind = "page_owner_stack_counts" if lists.of_blocks else "page_owner_stacks"
    if lists.many is not None:
        from pageowner.sources.page_owner_stack_columns import to_snapshot

        found = to_snapshot(lists, lists.many, name, kind)
    else:
        from pageowner.sources import page_owner_groups

        counters = handles.join([lists.bodies], name, lists.names)
        found = page_owner_groups.to_snapshot(lists, name, kind)
        found.meta.counters |= counters
    if lists.of_blocks:
        found.meta.counters["sizes_unknown"] = found.table.num_rows
    note_left_out(found.meta, lists.left_out, lists.said)
    return found
