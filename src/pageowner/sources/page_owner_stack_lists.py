"""Read a file of the kernel's page_owner_stacks folder as a source: stacks with their pages."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.kernel.limits import PFN_BITS
from pageowner.kernel.task_names import to_text
from pageowner.sources import handles
from pageowner.sources.group_columns import Groups, Line
from pageowner.sources.opening import reading
from pageowner.sources.page_owner_body import Body
from pageowner.sources.page_owner_parser import START

if TYPE_CHECKING:
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
    counts as one page. Raises PageownerError if there is no stack with a number."""
    with reading(opened.name):
        text = opened.stream.read()
    lists = _Stacks(text)
    if not lists.line:
        if lists.without_number:
            raise PageownerError(
                f"{opened.name}: contains the stack of each handle but no numbers of pages; use it"
                " with --handles FILE, for a source that has handles, such as show_handles")
        raise PageownerError(f"{opened.name}: contains no stack with its number of pages")
    lists.damaged += lists.without_number
    from pageowner.sources.page_owner_groups import to_snapshot

    unknown_handles = handles.join([lists.bodies], opened.name)
    found = to_snapshot(lists, opened.name,
                        "page_owner_stack_counts" if lists.of_blocks else "page_owner_stacks")
    found.meta.counters |= unknown_handles
    if lists.of_blocks:
        found.meta.counters["sizes_unknown"] = len(lists.line)
    return found


class _Stacks(Groups):
    """The stacks of a text that have a number."""

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self.of_blocks = False
        self.without_number = 0
        # The line with the number is the last of a stack.
        self.unterminated = not text.endswith(b"\n")
        self._total, offset = 0, 0
        for block in text.split(b"\n\n"):
            self._take(block, offset)
            offset += len(block) + 2

    def _take(self, block: bytes, offset: int) -> None:
        """What stands between two empty lines: a stack, or several."""
        frames, _, last = block.rpartition(b"\n")
        if (frames[:1] == b" " and last[:15] == b"nr_base_pages: " and last[15:].isdigit()
                and frames.count(b"\n") == frames.count(b"\n ") and b"  " not in frames):
            if not self._counted(frames[1:].replace(b"\n ", b"\n"), None, last):
                self.lost(offset, _IMPOSSIBLE)
            return
        lines: list[bytes] = []
        handle = None
        start = offset
        for line in block.split(b"\n"):
            if _COUNT.match(line):
                if not (lines or handle is not None) or not self._counted(
                        b"\n".join(lines), handle, line):
                    self.lost(start, _IMPOSSIBLE if lines or handle is not None else
                              "a number of pages without its stack")
                lines, handle, start = [], None, offset + len(line) + 1
            elif found := _HANDLE.match(line):
                handle = int(found[1])
            elif line.strip():
                lines.append(line.strip())
            offset += len(line) + 1
        if lines and handle is not None:
            self.without_number += 1
        elif lines or handle is not None:
            self.lost(start, "a stack without its number of pages")

    def _counted(self, frames: bytes, handle: int | None, line: bytes) -> bool:
        """Add a stack; False if that cannot be."""
        found = _COUNT.match(line)
        assert found is not None
        pages = int(found[1] or found[3] or found[2])
        self._total += pages
        if self._total >> PFN_BITS or (handle or 0) >> 32:
            self._total -= pages
            return False
        if pages:
            self.of_blocks |= found[2] is not None and found[3] is None
            self.put(_NO_LINE, len(self.bodies), int(found[2] or 0), pages, -1, 0)
            self.bodies.append(Body(to_text(frames) if frames else None, handle))
        return True


_NO_LINE = Line()
_IMPOSSIBLE = "more pages than a machine can have"
