"""What had each page when the memory of a machine was dumped that was not tracked, as
`pageowner.tracker.users.untracked` has it of a running one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.model.snapshot import Metadata, Snapshot
from pageowner.model.source_kinds import USERS
from pageowner.tracker.users.in_use import blocks_of
from pageowner.tracker.users.untracked import as_column, columns_of, pages_of
from pageowner.vmcore.machine import VmcoreMachine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.vmcore.memory import Vmcore
    from pageowner.vmcore.page_structs import VmcoreFrames

__all__ = ["blocks", "in_use"]

_PIECE = 1 << 20
"""Frames at a time, as `untracked` has them: no compound page, of which the largest are huge pages
of 1 GiB, reaches from one to the next."""


def in_use(memory: Vmcore) -> Snapshot:
    """All pages in use, with ``user``, ``memcg``, ``zone``, ``node``, ``order`` and
    ``page_flags``; stacks and tasks are null. Raises PageownerError."""
    machine = VmcoreMachine(memory)
    frames, zone_map = machine.frames(), machine.zone_map
    pfn, order, flags = blocks(frames)
    inside = zone_map.zone_column(pfn).is_valid().to_numpy(zero_copy_only=False)
    pfn, order, flags = pfn[inside], order[inside], flags[inside]
    users = machine.users(pfn, order, flags, machine.symbols)
    columns = columns_of(pfn, order, flags, users, zone_map, lambda of: _cgroups(machine, of))
    now = machine.now_ns()
    return Snapshot.from_columns(columns, Metadata(
        kind=USERS, host=machine.host(), kernel=memory.release or None,
        taken_at=machine.taken_at(), clock_ns=now, page_size=memory.page_size,
        zones=[{"node": zone.node, "name": zone.name, "start_pfn": zone.start_pfn,
                "spanned": zone.spanned, "present": zone.present, "managed": zone.managed}
               for zone in zone_map.zones],
        frames={"early": pages_of(columns)},
        extra={"users": {"counts": users.counts, "notes": users.notes}}))


def blocks(frames: VmcoreFrames) -> tuple[
        NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint64]]:
    """What `pageowner.tracker.users.untracked.blocks_of` has of all frames with a struct page."""
    parts = [blocks_of(frames.flags(low, high - low), low)
             for first, end in frames.ranges()
             for start in range(first // _PIECE * _PIECE, end, _PIECE)
             for low, high in [(max(start, first), min(start + _PIECE, end))]]
    none = np.zeros(0, np.uint64), np.zeros(0, np.uint8), np.zeros(0, np.uint64)
    pfn, order, flags = (np.concatenate(column) for column in zip(none, *parts, strict=True))
    return pfn, order, flags


def _cgroups(machine: VmcoreMachine, pfn: NDArray[np.uint64]) -> Any:
    """The cgroup that each frame is charged to; None where the kernel does not tell."""
    numbers = np.zeros(len(pfn), np.uint64)
    frames = machine.frames()
    for piece in np.split(np.arange(len(pfn)), np.flatnonzero(
            np.diff(pfn // np.uint64(_PIECE))) + 1):
        if len(piece):
            first = int(pfn[piece[0]])
            found = frames.cgroups(first, int(pfn[piece[-1]]) + 1 - first)
            if found is None:
                return None
            numbers[piece] = found[(pfn[piece] - np.uint64(first)).astype(np.int64)]
    return as_column(*machine.cgroups().column(numbers))
