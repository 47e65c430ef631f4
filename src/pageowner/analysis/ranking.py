"""Owners put in order, and the first of them with the sum of the others; in plain Python, for
owners are few (`owners.owners` has them by numbers where they are not)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pageowner.analysis.filters import ALIASES
from pageowner.errors import PageownerError
from pageowner.model.source_kinds import check_measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pageowner.model.metadata import Metadata

__all__ = ["Nameless", "Shown", "check_known", "head", "named", "ranked", "rows", "ties"]

_PIECE = 1 << 13
"""Owners that are objects of Python's at a time, where not all are."""


class Shown(NamedTuple):
    """The owners to show, column by column, and the sum of those that are not."""

    owners: dict[str, list[Any]]
    rest_owners: int
    rest_pages: int
    rest_blocks: int

    @property
    def number(self) -> int:
        """How many owners are shown."""
        return len(self.owners["pages"])

    def rows(self) -> list[dict[str, Any]]:
        """The owners to show, each as its values by name."""
        return [dict(zip(self.owners, row, strict=True))
                for row in zip(*self.owners.values(), strict=True)]


class Nameless(NamedTuple):
    """Owners of which no key is known, taken together."""

    owners: int = 0
    pages: int = 0
    blocks: int = 0


def check_known(meta: Metadata, sort: str, timed: bool) -> None:
    """Raises PageownerError for an order by ``blocks`` or ``age`` of a source that does not know
    them; ``timed``: of a row it knows when it was allocated, or it has no rows."""
    if sort == "blocks":
        check_measure(meta, sort)
    # of a tracked machine's pages from before there is no time; of others, once there are some
    if sort == "age" and not timed and meta.kind != "tracker":
        raise PageownerError(f"{meta.source or 'the source'} does not know times of allocations, so"
                             " its owners cannot be sorted by age")


def ranked(labels: Mapping[str, Sequence[Any]], pages: Sequence[int], blocks: Sequence[int],
           oldest: Sequence[int], sort: str, reverse: bool) -> list[int]:
    """Places of the owners in the order asked for; ties go by pages, then by the keys.

    ``labels`` are the keys' values by name, one a group, nulls last; ``oldest`` is larger than
    any time where no time is known. ``sort`` is one of `words.SORTS`, or a key.
    """
    ranks = {}
    for name in labels:
        ordered = sorted({value for value in labels[name] if value is not None})
        place = {value: place for place, value in enumerate(ordered)}
        ranks[name] = [place.get(value, len(place)) for value in labels[name]]
    keys = list(zip(*ties(ranks, [-number for number in pages], [-number for number in blocks],
                          oldest, sort), strict=True))
    order = sorted(range(len(pages)), key=keys.__getitem__)
    return order[::-1] if reverse else order


def ties(ranks: Mapping[str, Any], most: Any, most_blocks: Any, oldest: Any,
         sort: str) -> list[Any]:
    """What owners are sorted by, the first to decide first: one sequence each, smallest first.

    ``ranks``: each owner's place among the values of each key; ``most``, ``most_blocks``: its
    pages and blocks, negative.
    """
    if sort == "pages":
        first = [most, most_blocks]
    elif sort == "blocks":
        first = [most_blocks, most]
    elif sort == "age":
        first = [oldest, most]
    elif sort == "name":
        first = []
    else:
        first = [ranks[ALIASES.get(sort, sort)], most]
    return [*first, *ranks.values()]


def head(owners: Any, top: int | None) -> Shown:
    """The first ``top`` owners (all if None), and what the others hold together.

    ``owners``: columns by name, each a list, or an Arrow table of them.
    """
    number = _number(owners)
    shown = number if top is None else min(top, number)
    if isinstance(owners, dict):
        first = {name: column[:shown] for name, column in owners.items()}
        rest = [sum(owners[name][shown:]) for name in ("pages", "blocks")]
    else:
        first = owners.slice(0, shown).to_pydict()
        rest = [int(owners[name].slice(shown).to_numpy().sum()) for name in ("pages", "blocks")]
    return Shown(first, number - shown, *rest)


def rows(owners: Any, top: int | None) -> Iterator[dict[str, Any]]:
    """The first ``top`` owners, each as its values by name, few at a time."""
    number = _number(owners)
    end = number if top is None else min(top, number)
    for start in range(0, end, _PIECE):
        stop = min(start + _PIECE, end)
        piece = ({name: column[start:stop] for name, column in owners.items()}
                 if isinstance(owners, dict) else owners.slice(start, stop - start).to_pydict())
        for row in zip(*piece.values(), strict=True):
            yield dict(zip(piece, row, strict=True))


def _number(owners: Any) -> int:
    return len(owners["pages"]) if isinstance(owners, dict) else owners.num_rows


def named(owners: Any, keys: Sequence[str]) -> tuple[Any, Nameless]:
    """The owners of which any of ``keys`` is known, in the same order, and the sum of the others.
    """
    if not isinstance(owners, dict) and owners.num_rows > _PIECE:
        return _many_named(owners, keys)
    columns = owners if isinstance(owners, dict) else owners.to_pydict()
    known = [any(value is not None for value in values)
             for values in zip(*(columns[key] for key in keys), strict=True)]

    def lost(name: str) -> int:
        return sum(n for n, yes in zip(columns[name], known, strict=True) if not yes)

    kept = {name: [value for value, yes in zip(column, known, strict=True) if yes]
            for name, column in columns.items()}
    return kept, Nameless(known.count(False), lost("pages"), lost("blocks"))


def _many_named(owners: Any, keys: Sequence[str]) -> tuple[Any, Nameless]:
    """The same for an Arrow table, and as one."""
    import numpy as np
    import pyarrow as pa

    known = np.zeros(owners.num_rows, bool)
    for key in keys:
        known |= owners[key].is_valid().to_numpy()
    lost = [int(owners[name].to_numpy()[~known].sum()) for name in ("pages", "blocks")]
    return owners.filter(pa.array(known)), Nameless(int((~known).sum()), *lost)
