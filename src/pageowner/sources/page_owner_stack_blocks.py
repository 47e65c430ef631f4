"""Stacks with their pages, block by block of a text: `pageowner.sources.page_owner_stack_lists`
says of which."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pageowner.kernel.limits import PFN_BITS
from pageowner.kernel.task_names import to_text
from pageowner.sources.allocinfo_lines import is_of_allocinfo
from pageowner.sources.damage import SHOWN_DAMAGE
from pageowner.sources.group_columns import Groups, Line
from pageowner.sources.page_owner_body import Body, is_frame
from pageowner.sources.page_owner_parser import START
from pageowner.sources.page_owner_stack_columns import Many, joined, regular
from pageowner.sources.told_twice import second_list

if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

__all__ = ["Held", "Stacks"]

_COUNT = re.compile(rb"(?:nr_base_pages: (\d{1,19})|"
                    rb"stack_count: (\d{1,19})(?: curr_nr_base_pages: (\d{1,19}))?)\s*\Z")
_HANDLE = re.compile(rb"handle: (\d{1,10})\s*\Z")


class Held(NamedTuple):
    """A stack with its number, or the handle of one."""

    frames: str
    handle: int | None
    blocks: int
    pages: int
    offset: int


class Stacks(Groups):
    """The stacks of a text that have a number. ``names``: the stacks of handles that it lists
    without one."""

    def __init__(self) -> None:
        super().__init__()
        self.of_blocks = self.has_handles = False
        self.names: dict[int, str] = {}
        self.left_out = self.total = self._above = 0
        self.said: list[str] = []
        self.frames: list[bytes | mmap] = []
        self.many: Many | None = None
        self.all_differ = True
        self._parts: list[Many | list[Held]] = []
        self._held: list[Held] = []

    def take(self, text: bytes, offset: int) -> None:
        """A part of the text, at this byte of it, that begins and ends where a block does."""
        found = regular(text, offset, (1 << PFN_BITS) - self.total)
        if found is not None:
            self.total += int(found[0].pages.sum())
            self._parts.append(found[0])
            self.frames.append(found[1])
            return
        held: list[Held] = []
        self._held = held
        for block in text.split(b"\n\n"):
            self._take(block, offset)
            offset += len(block) + 2
        if not all(each.frames and each.handle is None for each in held):
            self.has_handles = True
            self._parts.append(held)
        elif held:
            frames = [each.frames.encode("utf-8", "surrogatepass") for each in held]
            self._parts.append(Many.of(frames, *(np.array(column, np.int64) for column in zip(*(
                (each.pages, each.blocks, each.offset) for each in held), strict=True))))
            self.frames.append(b"".join(frames))

    def add(self, behind: Stacks) -> None:
        """What another one has taken of the part behind, but for the frames."""
        self._parts += behind._parts
        self.of_blocks |= behind.of_blocks
        self.has_handles |= behind.has_handles
        self.names |= behind.names
        self.left_out += behind.left_out
        self._above += behind._above
        self.said = self.said or behind.said
        self.total += behind.total
        self.damaged += behind.damaged
        self.damage = (self.damage + behind.damage)[:SHOWN_DAMAGE]
        self.unterminated |= behind.unterminated

    def _take(self, block: bytes, offset: int) -> None:
        """What stands between two empty lines: a stack, or several."""
        frames, _, last = block.rpartition(b"\n")
        if (frames[:1] == b" " and last[:15] == b"nr_base_pages: " and last[15:].isdigit()
                and frames.count(b"\n") == frames.count(b"\n ") and b"  " not in frames):
            pages = int(last[15:]) if len(last) < 35 else 1 << PFN_BITS
            if self.total + pages >> PFN_BITS:
                self.lost(offset, _IMPOSSIBLE)
                return
            self.total += pages
            self._held.append(Held(to_text(frames[1:].replace(b"\n ", b"\n")), None, 0, pages,
                                   offset))
            return
        lines: list[bytes] = []
        handle = None
        start = offset
        for line in block.split(b"\n"):
            if _COUNT.match(line):
                if not (lines or handle is not None) or not self._counted(
                        self._frames(lines), handle, line, start):
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
                lines.append(line)
            offset += len(line) + 1
        if lines and handle is not None and not block.startswith(START):
            self.names[handle] = to_text(self._frames(lines))
        elif lines or handle is not None:
            self.lost(start, "a stack without its number of pages")

    def _frames(self, lines: list[bytes]) -> bytes:
        """The lines of a stack, without what a prompt or a heading is above it: a line that has no
        blank in front and is no frame, where one below has a blank."""
        begin = next((place for place, line in enumerate(lines) if line[:1] in _BLANKS), 0)
        kept = [*filter(is_frame, lines[:begin]), *lines[begin:]] if begin else lines
        self._above += len(lines) - len(kept)
        return b"\n".join([line.strip() for line in kept])

    def _counted(self, frames: bytes, handle: int | None, line: bytes, offset: int) -> bool:
        """Add a stack; False if that cannot be."""
        found = _COUNT.match(line)
        assert found is not None
        pages = int(found[1] or found[3] or found[2])
        self.total += pages
        if self.total >> PFN_BITS or (handle or 0) >> 32:
            self.total -= pages
            return False
        self.of_blocks |= pages > 0 and found[2] is not None and found[3] is None
        self._held.append(Held(to_text(frames), handle, int(found[2] or 0), pages, offset))
        return True

    def settle(self) -> None:
        """Make a group of each stack, of those that the text tells twice only once."""
        if self._above:
            self.said.append(f"{self._above:,} line{'' if self._above == 1 else 's'} above stacks"
                             " left out: no frames")
        size = sum(map(len, self.frames))
        if self.has_handles or size >> 31:
            self._settle_one_by_one()
        elif self._parts:
            self._settle_many(joined([part for part in self._parts if isinstance(part, Many)]))

    def _settle_many(self, many: Many) -> None:
        from pageowner.sources.page_owner_stack_columns import codes_of

        codes = codes_of(many, self.frames)
        end = None if codes is None else second_list(codes)
        self.all_differ = codes is None
        if end is not None:
            again = Many(*(column[end:] for column in many))
            self._leave_out("stacks", len(again.pages), int(again.pages.sum()),
                            int(again.offset[0]))
            many = Many(*(column[:end] for column in many))
        if many.pages.any():
            self.many = many
        self._leave_out_names()

    def _settle_one_by_one(self) -> None:
        held = self._all_held()
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
            lost = _amount(len(other), sum(each.pages for each in other))
            self.said.append(
                f"the same {len(kept):,} stacks are there by handle too, as in show_handles: read"
                " once" if same else
                f"the list by {what[0]} ({lost}) left out: it tells of the same pages as"
                f" the list by {what[1]}, with other numbers")
        else:
            kept = stacks or numbers
        kept = [each for each in kept if each.pages]
        self.bodies = [Body(each.frames or None, each.handle)
                       for each in kept]
        self.put_all(_NO_LINE, *(np.array(column, np.int64) for column in (
            range(len(kept)), [each.blocks for each in kept], [each.pages for each in kept])))
        if not any(each.handle is not None for each in kept):
            self._leave_out_names()

    def _leave_out_names(self) -> None:
        if self.names:
            self.left_out += len(self.names)
            self.said.append(f"{len(self.names):,} handles with their stacks left out: they have no"
                             " numbers of pages")

    def _first_list(self, held: list[Held], names: Sequence[str | int | None],
                    noun: str) -> list[Held]:
        """Without what is behind the first list of these, which have these ``names``."""
        end = second_list(names)
        if end is None:
            return held
        self._leave_out(noun, len(held) - end, sum(each.pages for each in held[end:]),
                        held[end].offset)
        return held[:end]

    def _leave_out(self, noun: str, number: int, pages: int, offset: int) -> None:
        self.left_out += number
        self.said.append(f"another list of {noun} ({_amount(number, pages)}) left out, from byte"
                         f" {offset:,} on: only the first one is read")

    def _all_held(self) -> list[Held]:
        """All that was taken, one by one."""
        text, at, held = b"".join(self.frames), 0, []
        for part in self._parts:
            if not isinstance(part, Many):
                held += part
                continue
            for length, pages, blocks, offset in zip(*(column.tolist() for column in part[:4]),
                                                     strict=True):
                held.append(Held(text[at:at + length].decode("utf-8", "surrogatepass"), None,
                                 blocks, pages, offset))
                at += length
        return held


def _amount(number: int, pages: int) -> str:
    return f"{number:,} of them, {pages:,} pages"


_BLANKS = (b" ", b"\t")
_NO_LINE = Line()
_IMPOSSIBLE = "more pages than a machine can have"
_ALLOCINFO = "lines of /proc/allocinfo left out: give them in a file of their own"
