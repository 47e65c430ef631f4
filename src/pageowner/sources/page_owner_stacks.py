"""The text of the kernel's page_owner_stacks folder, in and out.

mm/page_owner.c, stack_print (6.9 and later): frames, then ``nr_base_pages: N``, the base pages that
the stack holds. Before 6.9 was released it was ``stack_count: N``, the number of allocations, whose
orders are not known. 6.19 adds the files show_handles, with ``handle: N`` for the frames, and
show_stacks_handles, which tells the frames of each handle and no number.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from pageowner.errors import PageownerError
from pageowner.kernel.task_names import to_bytes, to_text
from pageowner.model.handle_names import is_handle_name
from pageowner.model.source_kinds import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pageowner.model.snapshot import Snapshot

__all__ = ["Held", "StackRecord", "parse", "stacks", "write"]


class Held(NamedTuple):
    """A stack (frames innermost first, one a line) and the base pages that it holds."""

    stack: str
    pages: int


class StackRecord(NamedTuple):
    """One record of a page_owner_stacks file; None where that file does not say."""

    stack: str | None
    pages: int | None
    handle: int | None


_NUMBER = re.compile(rb"(nr_base_pages|handle): (\d{1,19})\Z")


def stacks(snapshot: Snapshot, threshold: int = 0) -> list[Held]:
    """The stacks of a snapshot that hold at least ``threshold`` pages, most first.

    Rows without a stack are left out, as the kernel's file has no place for them, and so are
    pages allocated before tracking began, which the kernel does not count by stack
    (init_pages_in_zone in mm/page_owner.c of 6.12). Raises PageownerError for a source of bytes.
    """
    if not kind_of(snapshot.meta).in_pages:
        raise PageownerError(f"{snapshot.meta.source or 'the source'}"
                             f" ({kind_of(snapshot.meta).title}) does not count pages")
    table = snapshot.select(state=("owned", "untracked")).report(by="stack")
    return [Held(stack, pages) for stack, pages in
            zip(table["stack"].to_pylist(), table["pages"].to_pylist(), strict=True)
            if stack is not None and pages >= threshold]


def write(held: Iterable[Held], file: BinaryIO,
          encode: Callable[[str], bytes] = to_bytes) -> None:
    """The text of show_stacks; see `page_owner_text.write` for ``encode``."""
    for stack, pages in held:
        if is_handle_name(stack):
            file.write(b"%s\nnr_base_pages: %d\n\n" % (
                encode(stack).replace(b" ", b": "), pages))
            continue
        frames = b"".join(b" %s\n" % encode(frame) for frame in stack.split("\n"))
        file.write(b"%snr_base_pages: %d\n\n" % (frames, pages))


def parse(text: bytes) -> list[StackRecord]:
    """Any file of page_owner_stacks. Blocks that hold neither frames nor numbers are left out."""
    records = []
    for block in text.replace(b"\r\n", b"\n").split(b"\n\n"):
        frames: list[str] = []
        numbers: dict[bytes, int] = {}
        for line in block.split(b"\n"):
            if found := _NUMBER.match(line):
                numbers[found[1]] = int(found[2])
            elif line.startswith((b" ", b"\t")):
                frames.append(to_text(line.strip()))
        if frames or numbers:
            records.append(StackRecord("\n".join(frames) or None,
                                       numbers.get(b"nr_base_pages"), numbers.get(b"handle")))
    return records
