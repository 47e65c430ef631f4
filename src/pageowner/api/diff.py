"""What changed between two moments: ``pageowner diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.analysis.diff import (
    Difference,
    Side,
    check_sort,
    check_units,
    difference,
    owners_of,
)
from pageowner.analysis.filters import key_names
from pageowner.api import sources
from pageowner.errors import PageownerError
from pageowner.sources import live_users
from pageowner.sources.source import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from pageowner.api.sources import Read, Source
    from pageowner.model.counts import Counted

__all__ = ["diff"]


def diff(before: Counted | Source, after: Counted | Source = None,
         by: str | Sequence[str] = "stack", *, sort: str = "change", reverse: bool = False,
         read: Read = count) -> Difference:
    """Which owners grew, shrank, are new or gone from ``before`` to ``after``, or to now.

    Owners are grouped by the keys ``by`` and sorted by ``sort``. ``changes`` is the table of
    `pageowner.analysis.diff.difference`, in pages. Stacks of different boots, builds and kernels
    match if they have the same functions. ``read``: the function that reads a source given by name.

    Raises UsageError for an unknown key or sort order, PageownerError if a source cannot be read,
    the two have different page sizes, or by user if one alone says who has each page.
    """
    names = key_names(by if isinstance(by, str) else list(by))
    check_sort(sort, names)
    # This machine first: what was saved holds the memory of the pageowner that saved it, and now
    # this one has as much, but more once it has read the other.
    if after is None:
        sources.check_there(before)
    with live_users.using("user" in names):
        second, new, now_knows = _side(after, names, read)
        first, old, knew = _side(before, names, read)
    if "user" in names and now_knows != knew:
        raise PageownerError(f"{first.name if now_knows else second.name} does not say who has each"
                             " page: the two cannot be compared by user")
    check_units(first.meta, second.meta)
    return Difference(difference(old, new, names, sort=sort, reverse=reverse), tuple(names), first,
                      second)


def _side(source: Counted | Source, names: list[str], read: Read) -> tuple[Side, pa.Table, bool]:
    """A side, its owners, and whether it says who has each page. Of a snapshot no more is kept."""
    from pageowner.analysis.keys import knows_users
    from pageowner.model.snapshot import Snapshot

    found = sources.counted(source, read)
    # Pages without a stack are one owner: who has them changes as processes start and end.
    owners = owners_of(found, names)
    return (Side(sources.name(source, found), found.meta, sum(owners["pages"].to_pylist()),
                 sum(owners["blocks"].to_pylist())), owners,
            isinstance(found, Snapshot) and knows_users(found))
