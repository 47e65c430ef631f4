"""Who owns the memory, answered from a summary by kind: what owners.py does, without a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pageowner.analysis.filters import check_sort, key_names
from pageowner.analysis.ranking import check_known, ranked
from pageowner.model.handle_names import handle_name
from pageowner.model.schema import BY_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.model.counts import Counted

__all__ = ["owners"]

_NEVER = 1 << 64


def _key(counted: Counted, name: str) -> list[Any]:
    """One of `KEYS` for every kind, as `pageowner.analysis.keys.key` gives it for rows."""
    if BY_KEY[name].of_stack:
        from pageowner.analysis.subsystems import OF_STACK

        derive = OF_STACK[name]
        return [None if stack is None else derive(stack) for stack in counted.columns["stack"]]
    if BY_KEY[name].of_path:
        from pageowner.kernel.containers import OF_PATH

        paths, names = counted.columns.get("memcg"), counted.meta.container_names()
        return [OF_PATH[name](path, names) for path in paths or [None] * len(counted.blocks)]
    if BY_KEY[name].of_notes:
        from pageowner.kernel.cgroups import charge_state

        return [None if text is None else charge_state(text)
                for text in counted.columns.get("notes") or [None] * len(counted.blocks)]
    values = counted.columns.get(BY_KEY[name].name)
    if values is None:
        return [None] * len(counted.blocks)
    if name == "stack" and None in values:
        return [handle_name(handle) if stack is None and handle is not None else stack
                for stack, handle in zip(values, counted.columns["handle"], strict=True)]
    if name == "gfp" and None in values:
        return [f"{mask:#x}" if name is None and mask is not None else name
                for name, mask in zip(values, counted.columns["gfp_mask"], strict=True)]
    return values


def owners(counted: Counted, by: str | Sequence[str] = "stack", *, sort: str = "pages",
           reverse: bool = False) -> dict[str, list[Any]]:
    """The columns that `pageowner.analysis.owners.owners` gives, as lists.

    Raises UsageError for an unknown key or sorting, PageownerError for a sorting by what the source
    does not know.
    """
    names = key_names(list(by) if not isinstance(by, str) else by)
    check_sort(sort, names)
    check_known(counted.meta, sort, not counted.blocks or any(
        time is not None for time in counted.oldest_ns))
    sums: dict[tuple[Any, ...], list[int]] = {}
    for label, order, number, oldest, newest in zip(
            zip(*(_key(counted, name) for name in names), strict=True),
            counted.columns["order"], counted.blocks, counted.oldest_ns, counted.newest_ns,
            strict=True):
        owner = sums.setdefault(label, [0, 0, _NEVER, 0])
        owner[0] += number << order
        owner[1] += number
        if oldest is not None and newest is not None:
            owner[2] = min(owner[2], oldest)
            owner[3] = max(owner[3], newest)
    if not sums:
        return {name: [] for name in (*names, "pages", "blocks", "share", "oldest_ns", "newest_ns")}
    labels = dict(zip(names, zip(*sums, strict=True), strict=True))
    pages, blocks, first, last = map(list, zip(*sums.values(), strict=True))
    total = sum(pages)
    order = ranked(labels, pages, blocks, first, sort, reverse)
    columns: dict[str, list[Any]] = {
        name: [values[place] for place in order] for name, values in labels.items()}
    columns["pages"] = [pages[place] for place in order]
    columns["blocks"] = [blocks[place] for place in order]
    columns["share"] = [pages[place] / total for place in order]
    columns["oldest_ns"] = [None if first[place] == _NEVER else first[place] for place in order]
    columns["newest_ns"] = [None if first[place] == _NEVER else last[place] for place in order]
    return columns
