"""Read a file of the kernel's page_owner_stacks folder as a source: stacks with their pages."""

from __future__ import annotations

import gc
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from pageowner.errors import PageownerError
from pageowner.kernel.limits import PFN_BITS
from pageowner.kernel.task_names import to_text
from pageowner.sources import handles
from pageowner.sources.allocinfo_lines import is_of_allocinfo
from pageowner.sources.damage import note_left_out
from pageowner.sources.group_columns import Groups, Line
from pageowner.sources.opening import reading
from pageowner.sources.page_owner_body import Body
from pageowner.sources.page_owner_parser import START
from pageowner.sources.told_twice import second_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.opening import Opened

__all__ = ["file_in", "read", "recognises"]

_COUNT = re.compile(rb"(?:nr_base_pages: (\d{1,19})|"
                    rb"stack_count: (\d{1,19})(?: curr_nr_base_pages: (\d{1,19}))?)\s*\Z")
_HANDLE = re.compile(rb"handle: (\d{1,10})\s*\Z")
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
    with reading(opened.name):
        text = opened.stream.read()
    collects = gc.isenabled()
    gc.disable()  # nothing of it is garbage, and looking takes longer than reading
    try:
        lists = _Stacks(text)
        lists.settle()
    finally:
        if collects:
            gc.enable()
    if not lists.line:
        if lists.names:
            raise PageownerError(
                f"{opened.name}: contains the stack of each handle but no numbers of pages; use it"
                " with --handles FILE, for a source that has handles, such as show_handles")
        raise PageownerError(f"{opened.name}: contains no stack with its number of pages")
    from pageowner.sources.page_owner_groups import to_snapshot

    counters = handles.join([lists.bodies], opened.name, lists.names)
    found = to_snapshot(lists, opened.name,
                        "page_owner_stack_counts" if lists.of_blocks else "page_owner_stacks")
    found.meta.counters |= counters
    if lists.of_blocks:
        found.meta.counters["sizes_unknown"] = len(lists.line)
    note_left_out(found.meta, lists.left_out, lists.said)
    return found


class _Held(NamedTuple):
    """A stack with its number, or the handle of one."""

    frames: bytes
    handle: int | None
    blocks: int
    pages: int
    offset: int


class _Stacks(Groups):
    """The stacks of a text that have a number. ``names``: the stacks of handles that it lists
    without one."""

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self.of_blocks = False
        self.names: dict[int, str] = {}
        self.left_out = 0
        self.said: list[str] = []
        # The line with the number is the last of a stack.
        self.unterminated = not text.endswith(b"\n")
        self._held: list[_Held] = []
        self._total, offset = 0, 0
        for block in text.split(b"\n\n"):
            self._take(block, offset)
            offset += len(block) + 2

    def _take(self, block: bytes, offset: int) -> None:
        """What stands between two empty lines: a stack, or several."""
        frames, _, last = block.rpartition(b"\n")
        if (frames[:1] == b" " and last[:15] == b"nr_base_pages: " and last[15:].isdigit()
                and frames.count(b"\n") == frames.count(b"\n ") and b"  " not in frames):
            pages = int(last[15:]) if len(last) < 35 else 1 << PFN_BITS
            if self._total + pages >> PFN_BITS:
                self.lost(offset, _IMPOSSIBLE)
                return
            self._total += pages
            self._held.append(_Held(frames[1:].replace(b"\n ", b"\n"), None, 0, pages, offset))
            return
        lines: list[bytes] = []
        handle = None
        start = offset
        for line in block.split(b"\n"):
            if _COUNT.match(line):
                if not (lines or handle is not None) or not self._counted(
                        b"\n".join(lines), handle, line, start):
                    self.lost(start, _IMPOSSIBLE if lines or handle is not None else
                              "a number of pages without its stack")
                lines, handle, start = [], None, offset + len(line) + 1
            elif found := _HANDLE.match(line):
                handle = int(found[1])
            elif is_of_allocinfo(line):
                self.left_out += 1
                self.said = [_ALLOCINFO]
                start = offset + len(line) + 1
            elif line.strip():
                lines.append(line.strip())
            offset += len(line) + 1
        if lines and handle is not None and not block.startswith(START):
            self.names[handle] = to_text(b"\n".join(lines))
        elif lines or handle is not None:
            self.lost(start, "a stack without its number of pages")

    def _counted(self, frames: bytes, handle: int | None, line: bytes, offset: int) -> bool:
        """Add a stack; False if that cannot be."""
        found = _COUNT.match(line)
        assert found is not None
        pages = int(found[1] or found[3] or found[2])
        self._total += pages
        if self._total >> PFN_BITS or (handle or 0) >> 32:
            self._total -= pages
            return False
        self.of_blocks |= pages > 0 and found[2] is not None and found[3] is None
        self._held.append(_Held(frames, handle, int(found[2] or 0), pages, offset))
        return True

    def settle(self) -> None:
        """Make a group of each stack, of those that the text tells twice only once."""
        held = self._held
        self._held = []
        stacks = [each for each in held if each.frames]
        numbers = [each for each in held if not each.frames] if len(stacks) < len(held) else []
        stacks = self._first_list(stacks, [each.frames for each in stacks], "stacks")
        numbers = self._first_list(numbers, [each.handle for each in numbers], "handles")
        if stacks and numbers:
            same = [each.pages for each in stacks] == [each.pages for each in numbers]
            by_stack = same or bool(held[0].frames)
            kept, other = (stacks, numbers) if by_stack else (numbers, stacks)
            self.left_out += len(other)
            what = ["handle", "stack"] if by_stack else ["stack", "handle"]
            self.said.append(
                f"the same {len(kept):,} stacks are there by handle too, as in show_handles: read"
                " once" if same else
                f"the list by {what[0]} ({_amount(other)}) left out: it tells of the same pages as"
                f" the list by {what[1]}, with other numbers")
        else:
            kept = stacks or numbers
        import numpy as np

        kept = [each for each in kept if each.pages]
        self.bodies = [Body(to_text(each.frames) if each.frames else None, each.handle)
                       for each in kept]
        self.put_all(_NO_LINE, *(np.array(column, np.int64) for column in (
            range(len(kept)), [each.blocks for each in kept], [each.pages for each in kept])))
        if self.names and not any(each.handle is not None for each in kept):
            self.left_out += len(self.names)
            self.said.append(f"{len(self.names):,} handles with their stacks left out: they have no"
                             " numbers of pages")

    def _first_list(self, held: list[_Held], names: Sequence[bytes | int | None],
                    noun: str) -> list[_Held]:
        """Without what is behind the first list of these, which have these ``names``."""
        end = second_list(names)
        if end is None:
            return held
        again = held[end:]
        self.left_out += len(again)
        self.said.append(f"another list of {noun} ({_amount(again)}) left out, from byte"
                         f" {again[0].offset:,} on: only the first one is read")
        return held[:end]


def _amount(held: list[_Held]) -> str:
    return f"{len(held):,} of them, {sum(each.pages for each in held):,} pages"


_NO_LINE = Line()
_IMPOSSIBLE = "more pages than a machine can have"
_ALLOCINFO = "lines of /proc/allocinfo left out: give them in a file of their own"
