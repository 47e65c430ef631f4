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
    from pageowner.model.snapshot import Snapshot

__all__ = ["diff"]


def diff(before: Counted | Source, after: Counted | Source = None,
         by: str | Sequence[str] = "stack", *, sort: str = "change", reverse: bool = False,
         read: Read = count) -> Difference:
    """Which owners grew, shrank, are new or gone from ``before`` to ``after``, or to now.

    Owners are grouped by the keys ``by`` and sorted by ``sort``. ``changes`` is the table of
    `pageowner.analysis.diff.difference`, in pages. Stacks of different boots, builds and kernels
    match if they have the same functions. ``read``: the function that reads a source given by name.

    Raises UsageError for an unknown key or sort order, PageownerError if a source cannot be read or
    the two have different page sizes.
    """
    names = key_names(by if isinstance(by, str) else list(by))
    check_sort(sort, names)
    # This machine first: what was saved holds the memory of the pageowner that saved it, and now
    # this one has as much, but more once it has read the other.
    if after is None:
        sources.check_there(before)
    with live_users.using("user" in names):
        now, was = sources.counted(after, read), sources.counted(before, read)
    if "user" in names:
        _check_users(was, now)
    second, new = _side(after, now, names)
    first, old = _side(before, was, names)
    check_units(first.meta, second.meta)
    return Difference(difference(old, new, names, sort=sort, reverse=reverse), tuple(names), first,
                      second)


def _side(source: Counted | Source, found: Counted | Snapshot, names: list[str]
          ) -> tuple[Side, pa.Table]:
    # Pages without a stack are one owner: who has them changes as processes start and end.
    owners = owners_of(found, names, users=False)
    return Side(sources.name(source, found), found.meta, sum(owners["pages"].to_pylist()),
                sum(owners["blocks"].to_pylist())), owners


def _check_users(*sides: Counted | Snapshot) -> None:
    """Raises PageownerError if one alone knows who has its pages: all of them would seem new."""
    from pageowner.analysis.keys import knows_users
    from pageowner.model.snapshot import Snapshot

    unknown = [found for found in sides
               if not (isinstance(found, Snapshot) and knows_users(found))]
    if len(unknown) == 1:
        raise PageownerError(f"{unknown[0].meta.source or 'this machine'} does not know who has"
                             " each page, so that it cannot be compared by user")
