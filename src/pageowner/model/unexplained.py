"""Untracked pages that nothing known explains: taken on a path of this kernel that no hook is for.

Untracked pages are expected where a hook is refused or missing, and of no other kind than that hook
would have seen, and after events that were lost. What is left over means that a kernel has a way to
take pages that pageowner does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.kernel import pageflags
from pageowner.model.hook_states import is_whole
from pageowner.model.hook_table import HOOKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pageowner.model.snapshot import Snapshot

__all__ = ["LOST", "gone_owners", "in_words", "of_snapshot", "unexplained"]

LOST = ("missed_in_interrupts", "bulk_missed", "out_of_range")
"""Counters of events that leave untracked pages, each of up to `_BLOCK`."""

_BLOCK = 8


def unexplained(flags: NDArray[np.uint64], orders: NDArray[Any], zones: Sequence[str | None],
                blocks: Sequence[str | None], hooks: Mapping[str, str],
                counters: Mapping[str, int]) -> list[dict[str, Any]]:
    """Groups of untracked pages that neither ``hooks`` that are not whole nor lost events explain,
    the largest first: ``kind`` (`pageflags.KINDS`), ``order``, ``zone``, ``block`` (type of the
    pageblock, None where it is not known), ``pages``.

    One item for each untracked row: page flags, order, zone, type of its pageblock.
    """
    kinds = pageflags.kind(flags)
    left = np.ones(len(flags), bool)
    for hook in HOOKS:
        if hook.explains and hook.name in hooks and not is_whole(hooks[hook.name]):
            explained = np.isin(kinds, [pageflags.KINDS.index(kind) for kind in hook.explains])
            left &= ~(explained & (orders == 0) if hook.single else explained)
    pages = np.int64(1) << orders.astype(np.int64)
    if int(pages[left].sum()) <= _BLOCK * sum(counters.get(name, 0) for name in LOST):
        return []
    groups: dict[tuple[str, int, str | None, str | None], int] = {}
    for at in np.flatnonzero(left).tolist():
        group = pageflags.KINDS[kinds[at]], int(orders[at]), zones[at], blocks[at]
        groups[group] = groups.get(group, 0) + int(pages[at])
    return [dict(zip(("kind", "order", "zone", "block", "pages"), (*group, number), strict=True))
            for group, number in sorted(groups.items(), key=lambda item: -item[1])]


def of_snapshot(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The same of a whole capture."""
    table = snapshot.in_state("untracked").table
    blocks = (table["block_migratetype"].to_pylist() if "block_migratetype" in table.column_names
              else [None] * table.num_rows)
    return unexplained(table["page_flags"].fill_null(0).to_numpy(), table["order"].to_numpy(),
                       table["zone"].to_pylist(), blocks, snapshot.meta.hooks,
                       snapshot.meta.counters)


def in_words(groups: Any, kernel: str | None, counters: Mapping[str, int]) -> str:
    """What the ``groups`` of `unexplained` are and what to do, in a sentence or two; empty if there
    are none, or a file has something else in their place."""
    try:
        total = sum(int(group["pages"]) for group in groups or ())
        most = ", ".join(_group_in_words(group) for group in (groups or ())[:3])
    except (TypeError, KeyError, ValueError):
        return ""
    if not total:
        return ""
    text = (f"{total:,} untracked pages that no missing hook explains: {most}"
            f"{', and others' if len(groups) > 3 else ''}. ")
    if unseen := counters.get("unseen_frees"):
        return text + ("This kernel does not report all allocations and frees to BPF programs: by"
                       f" its own count {unseen:,} pages were freed unseen")
    return text + (f"Kernel {kernel or 'unknown'} allocates pages in a way that pageowner does not"
                   " know: please report this line")


def gone_owners(missed_frees: int) -> str:
    """What missed frees (`maps.Store.missed_frees`) may have left behind; empty if there are none.

    Such a record is found to be stale while its page is free, and overwritten when the page is seen
    allocated; in between it can be wrong only where that allocation was not seen either.
    """
    if missed_frees < 1:
        return ""
    frees, blocks = (("1 free was", "1 block") if missed_frees == 1 else
                     (f"{missed_frees:,} frees were", f"{missed_frees:,} blocks"))
    return (f"{frees} missed, before a second program was attached or while it was busy too: up to"
            f" {blocks} may show an owner that is gone")


def _group_in_words(group: Mapping[str, Any]) -> str:
    where = " ".join(str(group[name]) for name in ("zone", "block") if group.get(name))
    return (f"{int(group['pages']):,} {group['kind']}"
            + (f" of order {group['order']}" if group.get("order") else "")
            + (f" in {where}" if where else ""))
