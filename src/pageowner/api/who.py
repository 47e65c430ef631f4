"""All that is known of page frames: ``pageowner who``."""

from __future__ import annotations

import mmap
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pageowner.errors import PageownerError, UsageError
from pageowner.kernel.containers import OF_PATH
from pageowner.kernel.limits import PFN_BITS
from pageowner.kernel.pagemap import frame_of
from pageowner.sources.source import is_tracking
from pageowner.sources.source import read as read_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pageowner.api.sources import Source
    from pageowner.model.metadata import Metadata
    from pageowner.model.snapshot import Snapshot
    from pageowner.tracker.read.records import LastFree

__all__ = ["Frames", "frames_of", "who"]

_KERNELS_RANGE = re.compile(r"\[(?:0x)?([0-9a-f]+),\s*(?:0x)?([0-9a-f]+)\)")
"""As the kernel's log has them, hexadecimal, the second one not included: mm/page_alloc.c,
``alloc_contig_range: [%lx, %lx) PFNs busy``."""

_AT_ONCE = 16
"""Up to so many frames are looked at one by one."""


@dataclass(frozen=True)
class Frames:
    """Page frames ``first`` to ``last``, both included.

    ``blocks``: the rows of all blocks that contain any of these frames, with the columns of
    `pageowner.model.snapshot.SCHEMA` by name, and ``container`` and ``pod``; empty if no owner is
    known. ``last_free``: for a single frame, who freed its block last, if ``pageowner on --free``
    recorded it. ``meta``: what is known about the source; ``now_ns``: the time of the source, in ns
    since boot. ``page_flags``: for a single frame of this machine that has no owner, its word of
    /proc/kpageflags as a list, empty if memory ends before that frame; None if it was not read.
    """

    first: int
    last: int
    blocks: list[dict[str, Any]]
    last_free: LastFree | None
    meta: Metadata
    now_ns: int
    page_flags: list[int] | None = None

    @property
    def is_single(self) -> bool:
        """Whether one frame was asked for, rather than a range."""
        return self.first == self.last


def frames_of(text: str) -> tuple[int, int]:
    """The first and the last page frame of ``1234``, ``0x4d2``, ``0x1000-0x1fff`` (both included)
    or ``[1000, 2000)``, as in the kernel's log.

    Raises UsageError for anything else.
    """
    try:
        if kernels := _KERNELS_RANGE.fullmatch(text):
            first, last = int(kernels[1], 16), int(kernels[2], 16) - 1
        else:
            words = text.split("-") if text.count("-") == 1 and text[0] != "-" else [text]
            first, last = int(words[0], 0), int(words[-1], 0)
        if first < 0:
            raise ValueError
    except ValueError:
        hint = "; a source is named with -s" if os.path.exists(text) else ""
        raise UsageError(f"{text!r} is not a page frame number or a range of them; write 1234,"
                         " 0x4d2, 0x1000-0x1fff or '[1000, 2000)', which is hexadecimal as in the"
                         f" kernel's log{hint}") from None
    if last < first:
        raise UsageError(f"{text!r} ends before it begins")
    if last >> PFN_BITS:
        raise UsageError(f"{text} is beyond the page frames that a machine can have")
    return first, last


def who(*frames: int | tuple[int, int] | str, phys: Iterable[int] = (),
        virt: Iterable[tuple[int, int]] = (), source: Source = None,
        read: Callable[[str | None], Snapshot] = read_source, users: bool = False) -> list[Frames]:
    """What is known about page frames. Each is a number, a range (first, last; both included) or a
    text for `frames_of`; the pages at the addresses ``virt`` (process, address) and ``phys``, in
    bytes, come after these. There is one answer for each, in that order.

    Without a source, only the needed part of this machine's memory is read. ``user``, what uses a
    page now, is then found for a single page without a stack, and with ``users`` for every page.
    ``read``: the function that reads a source given by name.

    Raises UsageError for a text that is not a frame or a range, and for ``virt`` with a source;
    PageownerError if the source cannot be read, no page is at an address, or ``users`` are asked of
    a source that does not say them.
    """
    wanted = [frames_of(name) if isinstance(name, str) else
              (name, name) if isinstance(name, int) else name for name in frames]
    virt, phys = list(virt), list(phys)
    if not (wanted or virt or phys):
        return []
    if virt and source is not None:
        raise UsageError("virt asks this machine, source something else; use one of them")
    wanted += [(pfn, pfn) for pfn in (frame_of(*address) for address in virt)]
    if source is None and is_tracking():
        wanted += [(pfn, pfn) for pfn in (address // mmap.PAGESIZE for address in phys)]
        return _with_containers(_with_users(_at_once(wanted) or _near(wanted), users))
    from pageowner.api.sources import snapshot
    from pageowner.sources import live_users

    with live_users.using(users):
        found = snapshot(source, read)
    if users:
        from pageowner.analysis.keys import check_users

        check_users(found)
    wanted += [(pfn, pfn) for pfn in (address // found.meta.page_size for address in phys)]
    return _with_containers(_looked_up(found, wanted))


def _with_users(answers: list[Frames], every: bool) -> list[Frames]:
    """With what uses the pages now: of every block, or of single frames without a stack."""
    rows = [row for answer in answers for row in answer.blocks
            if row["page_flags"] is not None
            and (every or (answer.is_single and row["stack"] is None))]
    if rows:
        from pageowner.tracker.users.some import users_of

        try:
            found, unread = users_of([(row["pfn"], row["order"], row["page_flags"])
                                      for row in rows])
        except PageownerError:
            if every:
                raise
            return answers  # it was not asked for, and is not known
        for row, user in zip(rows, found, strict=True):
            row["user"] = user
        if every:
            answers = [replace(answer, meta=replace(
                answer.meta, extra=answer.meta.extra | {"users": unread})) for answer in answers]
    return answers


def _with_containers(answers: list[Frames]) -> list[Frames]:
    for answer in answers:
        names = answer.meta.container_names()
        for row in answer.blocks:
            row |= {name: of_path(row["memcg"], names) for name, of_path in OF_PATH.items()}
    return answers


def _at_once(wanted: Sequence[tuple[int, int]]) -> list[Frames] | None:
    """Answer for single frames of this machine without a capture, if none is in doubt: without
    NumPy and Arrow, whose imports take longer than all of this."""
    if len(wanted) > _AT_ONCE or any(first != last for first, last in wanted):
        return None
    from pageowner.model.schema import SAVED
    from pageowner.tracker.read import single

    pfns = [first for first, _ in wanted]
    answers = single.look(pfns, SAVED)
    if answers is None:
        return None
    return [
        Frames(pfn, pfn, [] if row.row is None else [row.row], row.freed, row.meta,
               row.meta.clock_ns or 0,
               _flags(pfn) if row.row is None and row.freed is None else None)
        for pfn, row in zip(pfns, answers, strict=True)]


def _flags(pfn: int) -> list[int]:
    """What this machine's page flags are now."""
    from pageowner.kernel import procpages

    return procpages.words(procpages.KPAGEFLAGS, pfn, 1)


def _near(wanted: Sequence[tuple[int, int]]) -> list[Frames]:
    from pageowner.tracker.read.capture import capture_near
    from pageowner.tracker.read.last_free import last_frees
    from pageowner.tracker.read.maps import open_store

    found = capture_near([(first, last + 1) for first, last in wanted])
    # Of a block it is known when the one that began at its first page was freed.
    heads = {rows[0]["pfn"] if (rows := _rows(found, first, last)) else first
             for first, last in wanted if first == last}
    if not heads:
        return _looked_up(found, wanted)
    with open_store() as store:
        return _looked_up(found, wanted, last_frees(store, heads))


def _looked_up(found: Snapshot, wanted: Sequence[tuple[int, int]],
               freed: dict[int, LastFree] | None = None) -> list[Frames]:
    """``freed``: of this machine, which was looked at just now, who freed blocks last."""
    from pageowner.analysis.select import newest_ns

    answers, now_ns = [], newest_ns(found)
    for first, last in wanted:
        rows = _rows(found, first, last)
        if freed is None or first != last:
            answers.append(Frames(first, last, rows, None, found.meta, now_ns))
            continue
        last_free = freed.get(rows[0]["pfn"] if rows else first)
        answers.append(Frames(first, last, rows, last_free, found.meta, now_ns,
                              None if rows or last_free is not None else _flags(first)))
    return answers


def _rows(found: Snapshot, first: int, last: int) -> list[dict[str, Any]]:
    from pageowner.analysis.lookup import covering

    rows: list[dict[str, Any]] = found.table.take(covering(found, first, last)).to_pylist()
    return rows
