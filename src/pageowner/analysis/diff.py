"""What changed between two moments: the owners of both, matched, and their pages compared.

Owners are matched by the values of their keys; stacks by their functions alone, so that those of
another boot, build or version of the kernel meet (`pageowner.analysis.subsystems.functions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from pageowner.analysis.filters import ALIASES, key_names
from pageowner.analysis.ranking import ranked
from pageowner.analysis.subsystems import functions
from pageowner.errors import PageownerError, UsageError, near
from pageowner.model.schema import BY_KEY
from pageowner.model.snapshot import TEXT, arrow_type
from pageowner.model.source_kinds import OBJECTS, kind_of, unit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.model.counts import Counted
    from pageowner.model.metadata import Metadata
    from pageowner.model.snapshot import Snapshot

__all__ = ["BECAME", "SORTS", "Difference", "Side", "check_sort", "check_units", "difference",
           "matched", "owners_of"]

BECAME = ("new", "grown", "shrunk", "gone")

SORTS = ("change", "gained", "lost", "before", "after", "name")

_SUMS = ("pages_before", "pages_after", "blocks_before", "blocks_after")


class Side(NamedTuple):
    """One of the two sides: its name, what is known about it, and the sum of its pages and
    blocks."""

    name: str
    meta: Metadata
    pages: int
    blocks: int


@dataclass(frozen=True)
class Difference:
    """``changes``: the table of `difference`, of owners by the keys ``by``; ``before`` and
    ``after``: the two sides."""

    changes: pa.Table
    by: tuple[str, ...]
    before: Side
    after: Side

    @property
    def filters(self) -> tuple[str, str] | None:
        """If the two sides were tracked with different options, which is part of the difference:
        these options of each, in the words of ``pageowner on`` (empty: all pages); else None."""
        was, now = self.before.meta.left_out(), self.after.meta.left_out()
        return None if was == now else (was, now)

    @property
    def restarted(self) -> bool:
        """Whether tracking was turned off and on between the two sides, within one boot: then what
        was there by then has no owner in the later one."""
        first, second = self.before.meta, self.after.meta
        began = [meta.extra.get("since_ns") for meta in (first, second)]
        return all(began) and began[0] != began[1] and first.boot_id == second.boot_id


def check_sort(sort: str, names: Sequence[str]) -> None:
    """Raises UsageError if ``sort`` is neither one of `SORTS` nor one of the keys ``names``."""
    if sort not in SORTS and ALIASES.get(sort, sort) not in names:
        raise UsageError(f"cannot sort by {sort!r}; {near(sort, (*SORTS, *names))}")


def check_units(before: Metadata, after: Metadata) -> None:
    """Raises PageownerError for pages of two sizes, and for sources that count pages, objects and
    lines of code."""
    if unit_of(before) != unit_of(after):
        live = before.kind == OBJECTS and after.kind == "tracker" and not after.source
        raise PageownerError(
            f"{before.source or 'the first source'} is {kind_of(before).title},"
            f" {after.source or 'the second'} {kind_of(after).title}: {unit_of(before)} cannot be"
            f" compared with {unit_of(after)}"
            f"{'; with --objects this machine is asked for its objects' if live else ''}")
    if before.page_size != after.page_size:
        raise PageownerError(
            f"pages of {before.page_size >> 10} KiB cannot be compared with pages of"
            f" {after.page_size >> 10} KiB; both must be of kernels with pages of one size")


def owners_of(found: Counted | Snapshot, by: Sequence[str]) -> pa.Table:
    """The owners of a source, counted or read: the keys, ``pages``, ``blocks`` (int64)."""
    from pageowner.model.counts import Counted

    if isinstance(found, Counted):
        from pageowner.analysis import owners_from_counts

        columns = owners_from_counts.owners(found, by)
        return pa.table({name: pa.array(columns[name], _type(name))
                         for name in (*by, "pages", "blocks")})
    from pageowner.analysis.owners import owners

    table = owners(found, by).select([*by, "pages", "blocks"])
    return table.cast(pa.schema([(name, _type(name)) for name in table.column_names]))


def _type(name: str) -> pa.DataType:
    if name in ("pages", "blocks"):
        return pa.int64()
    kind = arrow_type(BY_KEY[name])
    return pa.string() if kind == TEXT else kind


def matched(stacks: pa.ChunkedArray) -> pa.Array:
    """Each stack as what it is matched by: its functions, innermost first, one a line, with their
    modules; null where the stack is."""
    return pa.array([None if stack is None else "\n".join(map(str, functions(stack)))
                     for stack in stacks.to_pylist()], pa.string())


def difference(before: pa.Table, after: pa.Table, by: str | Sequence[str] = "stack", *,
               sort: str = "change", reverse: bool = False) -> pa.Table:
    """The owners whose number of pages changed.

    ``before``, ``after``: owners as returned by `owners_of`. Columns: the keys (stacks as returned
    by `matched`), ``became`` (``new``: had no pages, ``gone``: has no pages, ``grown``,
    ``shrunk``), ``pages_before``, ``pages_after``, ``gained`` and ``lost`` (in pages; one of them
    is 0), ``blocks_before``, ``blocks_after`` (all int64). Sorted by ``change`` (gained or lost,
    largest first), gained, lost, pages before or after, name (the keys in order), or a key. Raises
    UsageError for an unknown key or sort order.
    """
    names = key_names(list(by) if not isinstance(by, str) else by)
    check_sort(sort, names)
    sums = _joined(before, after, names)
    had, has = sums["pages_before"], sums["pages_after"]
    change = [new - old for old, new in zip(had, has, strict=True)]
    gained, lost = [max(pages, 0) for pages in change], [max(-pages, 0) for pages in change]
    size = [abs(pages) for pages in change]
    measure = {"gained": gained, "lost": lost, "before": had, "after": has}.get(sort, size)
    order = ranked({name: sums[name] for name in names}, measure, size, [],
                   sort if sort == "name" or sort not in SORTS else "pages", reverse)
    places = [place for place in order if change[place]]
    columns = {name: pa.array([sums[name][place] for place in places], _type(name))
               for name in names}
    columns["became"] = pa.array([_became(had[place], has[place]) for place in places], pa.string())
    for name, values in (("pages_before", had), ("pages_after", has), ("gained", gained),
                         ("lost", lost), ("blocks_before", sums["blocks_before"]),
                         ("blocks_after", sums["blocks_after"])):
        columns[name] = pa.array([values[place] for place in places], pa.int64())
    return pa.table(columns)


def _joined(before: pa.Table, after: pa.Table, names: Sequence[str]) -> dict[str, list[Any]]:
    """Every owner of either side once, with its sums on both."""
    sides = []
    for table, mine, other in ((before, "before", "after"), (after, "after", "before")):
        none = pa.array([0] * table.num_rows, pa.int64())
        keys = {name: matched(table[name]) if name == "stack" else table[name] for name in names}
        sides.append(pa.table({
            **keys, f"pages_{mine}": table["pages"], f"blocks_{mine}": table["blocks"],
            f"pages_{other}": none, f"blocks_{other}": none}).select([*names, *_SUMS]))
    both = pa.concat_tables(sides).group_by(list(names), use_threads=False).aggregate(
        [(name, "sum") for name in _SUMS])
    return {name: both[name if name in names else f"{name}_sum"].to_pylist()
            for name in (*names, *_SUMS)}


def _became(before: int, after: int) -> str:
    if not before:
        return "new"
    if not after:
        return "gone"
    return "grown" if after > before else "shrunk"
