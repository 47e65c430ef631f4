"""What fragments memory, and what it would take to get large blocks: the questions of ``frag``.

Pure: a snapshot in, plain values out. The parts are in rooms of their own: where everything lies
(memory.py), mixed pageblocks (mixed.py), blocks of an order (blocks.py), owners in the way
(culprits.py); the indices of free memory and the rule of what can be moved are the kernel's
(kernel/free_area.py, kernel/compaction.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.analysis import blocks as of_order
from pageowner.analysis.culprits import (
    Owners,
    blockers,
    cheapest,
    hopeless,
    owners_of,
    pages_going,
    polluters,
)
from pageowner.analysis.filters import key_names
from pageowner.analysis.memory import Memory, free_said, memory
from pageowner.analysis.mixed import BINS, contents, mixed
from pageowner.kernel import compaction, free_area
from pageowner.kernel.release import version
from pageowner.model.schema import BY_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pageowner.analysis.blocks import Blocks
    from pageowner.kernel.zones import Zone
    from pageowner.model.metadata import Metadata
    from pageowner.model.snapshot import Snapshot

__all__ = ["events", "fragmentation", "huge", "indices"]

_ROUNDS = 12


def fragmentation(snapshot: Snapshot, by: str | Sequence[str] = "stack", *,
                  flags: NDArray[np.uint64] | None = None,
                  top: int | None = None) -> dict[str, Any]:
    """How fragmented memory is and which owners fragment it.

    ``flags``: bits of /proc/kpageflags of the same time, for a dump. Returns a dictionary:

    - ``pageblock_order``, ``notes`` (what the source does not know, a sentence each), ``sees_free``
      (whether the source separates free frames from those that are not the page allocator's)
    - ``zones``: for each its ``name``, ``mixed`` (blocks by type), ``states`` (pageblocks by state,
      see `blocks.STATES`)
    - ``mixed_exact``: whether ``mixed`` is what the kernel counts, or a lower bound (see `Mixed`);
      ``mixed_unjudged``: pages that ``mixed`` leaves out because their type or their block's type
      is not known
    - ``contents``: for each kind of page, pageblocks by how much of them it takes, in the steps
      ``bins``
    - ``free``: see `indices`; empty if the source does not know it
    - ``polluters``: owners by ``by``, the first ``top`` (all if None), with their ``tasks`` and
      ``cgroups``; ``polluters_in_all``: how many there are
    - ``single``: pageblocks that would be free or clearable without one single page
    - ``events``: allocations that took pages from blocks of another type, by owner, most first

    Raises UsageError for an unknown key, PageownerError if the source does not contain page frame
    numbers.
    """
    names = key_names(list(by) if not isinstance(by, str) else by)
    seen = memory(snapshot, flags)
    found = of_order.blocks(seen, seen.pageblock_order)
    mixing = mixed(snapshot, seen)
    owners = owners_of(snapshot, names)
    polluting = polluters(owners, seen, mixing)
    zones: dict[str, dict[str, Any]] = {}
    for place, stretch in enumerate(seen.stretches):
        zone = zones.setdefault(stretch.name, {"name": stretch.name, "mixed": {}, "states": {}})
        for (at, kind), number in mixing.counts.items():
            if at == place:
                zone["mixed"][kind] = zone["mixed"].get(kind, 0) + number
        for state, number in found.count(place).items():
            zone["states"][state] = zone["states"].get(state, 0) + number
    return {
        "pageblock_order": seen.pageblock_order, "notes": list(seen.notes),
        "sees_free": seen.sees_free, "zones": list(zones.values()),
        "mixed_exact": mixing.exact, "mixed_unjudged": mixing.unjudged, "bins": list(BINS),
        "contents": contents(of_order.kinds(seen, found), 1 << seen.pageblock_order),
        "free": _free(snapshot, seen, flags), "polluters_in_all": len(polluting),
        "polluters": owners.described(polluting[:top]),
        "single": found.kept_by_one(),
        "events": events(snapshot, names)}


def indices(counts: Sequence[int]) -> dict[str, Any]:
    """Free memory of a zone by order, with the kernel's two indices for each, in thousandths: how
    much of it is ``unusable``, and whether a request would fail for ``fragmentation`` (see
    `pageowner.kernel.free_area`)."""
    orders = range(len(counts))
    return {"blocks": list(counts), "pages": free_area.free_pages(counts),
            "unusable": [free_area.unusable_index(counts, order) for order in orders],
            "fragmentation": [free_area.fragmentation_index(counts, order) for order in orders]}


def _free(snapshot: Snapshot, seen: Memory,
          flags: NDArray[np.uint64] | None) -> list[dict[str, Any]]:
    """Free blocks of each zone: as the kernel said when the snapshot was taken, or as the flags of
    pages show; nothing where the source knows neither."""
    free = free_said(snapshot.meta)
    if free is not None:
        return [{"zone": f"node {node} {zone}", **indices(counts)} for node, zone, counts in free]
    if flags is None:
        return []
    zones = [_zone(place, stretch.start, stretch.end)
             for place, stretch in enumerate(seen.stretches)]
    counted = free_area.by_order(flags, zones, seen.max_order)
    totals: dict[str, tuple[int, ...]] = {}
    for place, stretch in enumerate(seen.stretches):
        counts = counted[place, ""]
        known = totals.get(stretch.name, (0,) * len(counts))
        totals[stretch.name] = tuple(a + b for a, b in zip(known, counts, strict=True))
    return [{"zone": name, **indices(counts)} for name, counts in totals.items()]


def _zone(number: int, start: int, end: int) -> Zone:
    from pageowner.kernel.zones import Zone

    return Zone(number, "", start, end - start, end - start, end - start)


def events(snapshot: Snapshot, names: Sequence[str]) -> list[dict[str, Any]]:
    """Fragmentation events (the tracepoint mm_page_alloc_extfrag) by owner, most first: each its
    keys, ``count`` and ``last_ns``. Keys that an event does not have are None."""
    recorded = snapshot.meta.extra.get("extfrag")
    if not isinstance(recorded, list):
        return []
    from pageowner.analysis.subsystems import OF_STACK

    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for event in recorded:
        if not isinstance(event, dict) or type(event.get("count")) is not int:
            continue
        stack = event.get("stack")
        label = tuple((None if stack is None else OF_STACK[name](stack)) if name in OF_STACK
                      else event.get(BY_KEY[name].name) for name in names)
        total = sums.setdefault(label, {**dict(zip(names, label, strict=True)),
                                        "count": 0, "last_ns": 0})
        total["count"] += event["count"]
        total["last_ns"] = max(total["last_ns"], int(event.get("last_ns") or 0))
    return sorted(sums.values(), key=lambda total: -total["count"])


def _about_large(seen: Memory, wanted: int, meta: Metadata) -> list[str]:
    """A note, if which pages are moved depends on the kernel's version, and that is not known."""
    large = (seen.moves == compaction.CAN) & (seen.order > 0)
    if any(version(meta.kernel)) or not seen.moves_large or wanted > seen.max_order or (
            not large.any()):
        return []
    return ["the source does not say which kernel it is of: before 6.9, compaction moves no folio"
            " of more than one page, so that fewer blocks can be emptied"]


def huge(snapshot: Snapshot, order: int, by: str | Sequence[str] = ("comm", "pid"), *,
         want: int | None = None, flags: NDArray[np.uint64] | None = None,
         top: int | None = None) -> dict[str, Any]:
    """Every aligned block of 2**``order`` pages, which owners block them, and which owners to stop
    to free ``want`` more.

    Returns a dictionary:

    - ``order``, ``by``, ``notes``, ``states`` (blocks by state) and the same for each of ``zones``
    - ``reachable``: how many of the clearable blocks compaction can empty with the present free
      memory, and with ``reclaim``, after page cache was dropped (see `blocks.reachable`)
    - ``taken``: blocks that are one movable folio of this order, or part of a larger one: blocked
      only because they already are a block of this size, in use
    - ``single``: blocks that would be free or clearable without one single page; ``held``: blocks
      with frames that do not belong to the page allocator, whatever else blocks them; ``unsure``:
      blocks with pages of unknown movability, and ``unsure_pages``: the number of these pages
    - ``blockers``: the first ``top`` owners; ``blockers_in_all``: how many there are
    - ``plan`` (None without ``want``): ``owners`` to stop (with pages, tasks, cgroups), the blocks
      ``unblocked``, their ``pages``, ``states`` and ``reachable`` after these owners are gone,
      ``gain``: how many more blocks are then free or reachable once page cache is dropped, and
      ``hopeless``: blocks that stopping owners cannot unblock, by reason (see `culprits.hopeless`)

    Raises the same errors as `fragmentation`.
    """
    names = key_names(list(by) if not isinstance(by, str) else by)
    seen = memory(snapshot, flags)
    found = of_order.blocks(seen, order)
    owners = owners_of(snapshot, names)
    blocking = blockers(owners, seen, found)
    zones: dict[str, dict[str, int]] = {}
    for place, stretch in enumerate(seen.stretches):
        zone = zones.setdefault(stretch.name, dict.fromkeys(of_order.STATES, 0))
        for state, number in found.count(place).items():
            zone[state] += number
    unsure = found.unsure > 0
    return {
        "order": order, "by": names, "pageblock_order": seen.pageblock_order,
        "notes": [*seen.notes, *_about_large(seen, order, snapshot.meta)],
        "states": found.count(), "zones": zones,
        "reachable": _reachable(snapshot, seen, found),
        "single": found.kept_by_one(),
        "taken": of_order.taken(seen, found),
        "held": int(np.count_nonzero((found.state == of_order.BLOCKED) & (found.held > 0))),
        "unsure": int(unsure.sum()), "unsure_pages": int(found.unsure.sum()),
        "blockers": owners.described(blocking[:top]),
        "blockers_in_all": len(blocking),
        "plan": None if want is None else _plan(snapshot, seen, found, owners, want)}


def _reachable(snapshot: Snapshot, seen: Memory, found: Blocks) -> dict[str, int]:
    return {"now": of_order.reachable(snapshot, seen, found),
            "reclaim": of_order.reachable(snapshot, seen, found, reclaim=True)}


def _to_be_had(snapshot: Snapshot, seen: Memory, found: Blocks) -> int:
    return found.count()["free"] + of_order.reachable(snapshot, seen, found, reclaim=True)


def _plan(snapshot: Snapshot, seen: Memory, found: Blocks, owners: Owners,
          want: int) -> dict[str, Any]:
    """Who has to go for ``want`` more blocks to be had. A block that is no longer blocked may still
    lack room for what compaction moves out of it: then more owners are taken."""
    before = _to_be_had(snapshot, seen, found)
    going, pages = owners.going(seen), pages_going(owners, seen)
    aim = want
    for turn in range(_ROUNDS):
        chosen, unblocked = cheapest(owners, seen, found, aim)
        rest = seen.without(np.isin(going, chosen))
        after = of_order.blocks(rest, found.order)
        gain = _to_be_had(snapshot, rest, after) - before
        if gain >= want or unblocked < aim:
            break
        aim = unblocked + (want - gain << max(0, turn - _ROUNDS // 3))
        if turn + 2 == _ROUNDS:
            aim = len(found.number) + 1  # all who can go
    return {
        "want": want, "gain": gain, "unblocked": unblocked, "pages": int(pages[chosen].sum()),
        "hopeless": hopeless(owners, seen, found),
        "owners": owners.described([{"owner": owner, "pages": int(pages[owner])}
                                    for owner in chosen]),
        "states": after.count(), "reachable": _reachable(snapshot, rest, after)}
