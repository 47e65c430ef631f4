"""What fragments memory, and what it would take to get large blocks: ``pageowner frag``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from pageowner.analysis.filters import key_names
from pageowner.analysis.fragmentation import fragmentation, huge
from pageowner.analysis.memory import without_process
from pageowner.api import sources
from pageowner.errors import UsageError
from pageowner.sources import live_users
from pageowner.sources.kpageflags import page_flags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.api.sources import Source

__all__ = ["Blocking", "Fragmentation", "frag"]


@dataclass(frozen=True)
class _InBlocks:
    """What memory that is looked at in blocks has in both answers."""

    pageblock_order: int
    notes: list[str]
    single: int


@dataclass(frozen=True)
class Fragmentation(_InBlocks):
    """How fragmented memory is and which owners fragment it. The fields are those of
    `pageowner.analysis.fragmentation.fragmentation`."""

    sees_free: bool
    zones: list[dict[str, Any]]
    mixed_exact: bool
    mixed_unjudged: int
    bins: list[str]
    contents: dict[str, list[int]]
    free: list[dict[str, Any]]
    polluters_in_all: int
    polluters: list[dict[str, Any]]
    events: list[dict[str, Any]]


@dataclass(frozen=True)
class Blocking(_InBlocks):
    """The blocks of an order and which owners block them. The fields are those of
    `pageowner.analysis.fragmentation.huge`."""

    order: int
    by: list[str]
    states: dict[str, int]
    zones: dict[str, dict[str, int]]
    reachable: dict[str, int]
    taken: int
    held: int
    unsure: int
    unsure_pages: int
    blockers: list[dict[str, Any]]
    blockers_in_all: int
    plan: dict[str, Any] | None


@overload
def frag(source: Source = None, by: str | Sequence[str] | None = None, *, order: None = None,
         want: None = None, kpageflags: str | os.PathLike[str] | None = None,
         top: int | None = None, leave_out: int | None = None) -> Fragmentation: ...
@overload
def frag(source: Source = None, by: str | Sequence[str] | None = None, *, order: int,
         want: int | None = None, kpageflags: str | os.PathLike[str] | None = None,
         top: int | None = None, leave_out: int | None = None) -> Blocking: ...


def frag(source: Source = None, by: str | Sequence[str] | None = None, *, order: int | None = None,
         want: int | None = None, kpageflags: str | os.PathLike[str] | None = None,
         top: int | None = None, leave_out: int | None = None) -> Fragmentation | Blocking:
    """How fragmented memory is and which owners fragment it; with ``order``, which owners block
    blocks of 2**``order`` pages, and which owners to stop to free ``want`` more.

    Owners are grouped by ``by`` (default: stack; with ``order`` comm and pid); the first ``top``
    are returned, or all if None. ``kpageflags``: a copy of /proc/kpageflags made with a dump, which
    shows the free pages. ``leave_out``: the id of a process whose memory is left out; without a
    source, this process.

    Raises UsageError for an unknown key, or ``want`` without ``order``; PageownerError if the
    source cannot be read or does not contain page frame numbers.
    """
    if order is None and want is not None:
        raise UsageError("want goes with order, which says how large the blocks are")
    names = key_names(by if isinstance(by, str) else list(by)) if by else []
    with live_users.using("user" in names):
        snapshot = sources.snapshot(source)
    if leave_out is None and source is None:
        leave_out = os.getpid()
    if leave_out is not None and snapshot.meta.kind == "tracker":
        snapshot = without_process(snapshot, leave_out)
    flags = page_flags(snapshot, kpageflags)
    if order is None:
        return Fragmentation(**fragmentation(snapshot, by or "stack", flags=flags, top=top))
    return Blocking(**huge(snapshot, order, by or ("comm", "pid"), want=want, flags=flags,
                           top=top))
