"""Who owns the memory: ``pageowner report``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pageowner.analysis.filters import check_sort, key_names
from pageowner.api import sources
from pageowner.sources import live_users
from pageowner.sources.source import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from pageowner.api.sources import Read, Source
    from pageowner.model.counts import Counted
    from pageowner.model.metadata import Metadata

__all__ = ["Owners", "owners"]


@dataclass(frozen=True)
class Owners:
    """``columns``: those of `pageowner.analysis.owners.owners`, as an Arrow table, or as lists if a
    dump was read as sums. ``meta``: what is known about the source. ``now_ns``: the time of the
    source, in ns since boot."""

    columns: pa.Table | dict[str, list[Any]]
    meta: Metadata
    now_ns: int

    @property
    def table(self) -> pa.Table:
        """The columns as an Arrow table."""
        import pyarrow as pa

        return self.columns if isinstance(self.columns, pa.Table) else pa.table(self.columns)


def owners(source: Counted | Source = None, by: str | Sequence[str] = "stack", *,
           sort: str = "pages", reverse: bool = False, read: Read = count,
           first: int | None = None) -> Owners:
    """All owners of a source by the keys ``by``, sorted by ``sort``: pages, blocks, name, age or a
    key. For a dump this takes half the time of ``read(source).report(by)``. ``read``: the function
    that reads a source given by name. ``first``: of very many owners only so many have to be in
    order, and the others follow in any.

    Raises UsageError for an unknown key or sort order, PageownerError if the source cannot be read,
    or does not know what it is to be sorted by.
    """
    names = key_names(by if isinstance(by, str) else list(by))
    check_sort(sort, names)
    with live_users.using("user" in names or "stack" in names, live_users.are_enough_for(names)):
        found = sources.counted(source, read)
    from pageowner.model.counts import Counted as Sums

    if isinstance(found, Sums):
        from pageowner.analysis import owners_from_counts

        return Owners(owners_from_counts.owners(found, names, sort=sort, reverse=reverse),
                      found.meta, found.meta.clock_ns or 0)
    from pageowner.analysis import owners as of_rows
    from pageowner.analysis.select import newest_ns

    return Owners(of_rows.owners(found, names, sort=sort, reverse=reverse, encoded=True,
                                first=first, users=True),
                  found.meta, newest_ns(found))
