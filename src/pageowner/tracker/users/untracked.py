"""What has each page now on a machine that is not tracked, as a snapshot: a row for each page or
compound page that is in use, ``early``, since tracking has not begun."""

from __future__ import annotations

import os
import platform
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pageowner.errors import PageownerError
from pageowner.kernel import cgroups, memory_ranges, pageflags, procpages, zones
from pageowner.model.snapshot import Metadata, Snapshot
from pageowner.model.source_kinds import USERS
from pageowner.system.container_names import container_names
from pageowner.tracker.users.find import find_users, with_gone
from pageowner.tracker.users.in_use import PIECE, blocks_in_use

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pageowner.model.page_users import PageUsers

__all__ = ["as_column", "columns_of", "pages_of", "untracked"]

def untracked() -> Snapshot:
    """All pages in use, with ``user``, ``memcg``, ``zone``, ``node``, ``order`` and
    ``page_flags``; stacks and tasks are null. Raises PageownerError where /proc/kpageflags or
    /proc/iomem is not this user's."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    zone_map = zones.running()
    pfn, order, flags = blocks_in_use(memory_ranges.ram_ranges(), zone_map)
    users = find_users(pfn, order, flags)
    columns = columns_of(pfn, order, flags, users, zone_map, _cgroups)
    extra: dict[str, Any] = {"users": {"counts": users.counts, "notes": users.notes}}
    if "memcg" in columns and (names := container_names(columns["memcg"].dictionary.to_pylist())):
        extra["containers"] = names
    boot_id = None
    with suppress(OSError):
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Snapshot.from_columns(columns, Metadata(
        kind=USERS, host=socket.gethostname(), kernel=platform.release(), boot_id=boot_id,
        taken_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), clock_ns=now,
        page_size=os.sysconf("SC_PAGE_SIZE"),
        zones=[{"node": zone.node, "name": zone.name, "start_pfn": zone.start_pfn,
                "spanned": zone.spanned, "present": zone.present, "managed": zone.managed}
               for zone in zone_map.zones],
        frames={"early": pages_of(columns)},
        extra=extra))


def columns_of(pfn: NDArray[np.uint64], order: NDArray[np.uint8], flags: NDArray[np.uint64],
               users: PageUsers, zone_map: zones.ZoneMap,
               cgroups_of: Callable[[NDArray[np.uint64]], Any]) -> dict[str, Any]:
    """The columns of those of these blocks that are in use; ``cgroups_of``: of frames the column
    ``memcg``, None if it is not known."""
    used = ~users.free
    pfn, order, flags, codes = pfn[used], order[used], flags[used], users.codes[used]
    columns: dict[str, Any] = {
        "pfn": pfn, "order": order, "page_flags": flags,
        "state": as_column(np.zeros(len(pfn), np.int32), ["early"]),
        "zone": zone_map.zone_column(pfn), "node": zone_map.node_column(pfn),
        "user": as_column(codes, users.labels)}
    if (memcg := cgroups_of(pfn)) is not None:
        users.groups = users.groups[used]
        columns["memcg"] = with_gone(memcg, users)
    return columns


def pages_of(columns: dict[str, Any]) -> int:
    """How many pages these are."""
    return int(np.left_shift(1, columns["order"].astype(np.int64)).sum())


def _cgroups(pfn: NDArray[np.uint64]) -> Any:
    """The cgroup that each frame is charged to; None where the kernel does not tell."""
    try:
        file = procpages.opened(procpages.KPAGECGROUP)
    except PageownerError:
        return None
    try:
        numbers = np.zeros(len(pfn), np.uint64)
        piece = pfn // np.uint64(PIECE)
        for number in np.unique(piece).tolist():
            mine = np.flatnonzero(piece == number)
            low, high = int(pfn[mine[0]]), int(pfn[mine[-1]]) + 1
            words = pageflags.words(file, low, high - low)
            places = (pfn[mine] - np.uint64(low)).astype(np.int64)
            inside = places < len(words)
            numbers[mine[inside]] = words[places[inside]]
    except OSError as error:
        raise procpages.failed(procpages.KPAGECGROUP, error) from error
    finally:
        os.close(file)
    return as_column(*cgroups.memory().column(numbers))


def as_column(codes: NDArray[np.int32], labels: list[str]) -> Any:
    """A dictionary column; null for codes below 0."""
    return pa.DictionaryArray.from_arrays(
        pa.array(np.maximum(codes, 0), pa.int32(), mask=codes < 0),
        pa.array(labels or [""], pa.string()))
