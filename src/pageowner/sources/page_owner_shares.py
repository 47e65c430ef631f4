"""Read a large file of another program's records in several processes.

Where such a form is all that was done to a plain file (`pageowner.sources.alterations`), it is cut
where records begin, as a plain dump is, and each process undoes its own part. What is more than
records, one behind the other, is left to one process: damage, which is told with its place in the
text that is given back; other line ends; page frames that are not in their order.
"""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pageowner.sources.opening import reading
from pageowner.sources.page_owner_body import parse_body
from pageowner.sources.page_owner_count import Folded, begin_again
from pageowner.sources.page_owner_parser import NONE, Parser
from pageowner.sources.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pageowner.sources.opening import Opened
    from pageowner.sources.page_owner_body import Body
    from pageowner.sources.page_owner_count import Tally
    from pageowner.sources.page_owner_raw import Raw

    Feed = Callable[[Opened, Parser], Iterator[None]]

__all__ = ["Alone", "begin_count", "begin_read"]

T = TypeVar("T")


class Alone(Exception):
    """Of a text that one process has to read."""


def begin_read(opened: Opened, edges: Sequence[int], feed: Feed) -> Callable[[], list[Raw]]:
    """Start to read the parts of a file between these bytes; the returned function waits and gives
    their records. Raises `Alone`. ``feed``: gives a parser all of a part."""
    def read(part: Opened, is_first: bool, is_last: bool) -> Raw:
        parser = Parser()
        for _ in feed(part, parser):
            pass
        return _closed(parser, part, is_first, is_last)

    finish = _begin(opened, edges, read)

    def named() -> list[Raw]:
        parts = finish()
        for raw, stacks in parts:
            raw.bodies = [_named(body, stacks) for body in raw.bodies]
        return [raw for raw, _ in parts]

    return named


def begin_count(opened: Opened, edges: Sequence[int], feed: Feed,
                most: int) -> Callable[[], list[Tally]]:
    """The same as sums, each of so many records at most."""
    def count(part: Opened, is_first: bool, is_last: bool) -> list[Tally]:
        folded, parser = Folded(), Parser()
        for _ in feed(part, parser):
            if len(parser.raw.kind) > max(most, 2 * len(parser.raw.kinds)):
                _check_order(parser.raw)
                folded.take(parser.raw)
        raw = _closed(parser, part, is_first, is_last)
        _check_order(raw)
        folded.take(raw)
        return folded.parts()

    finish = _begin(opened, edges, count)

    def named() -> list[Tally]:
        parts = []
        for tallies, stacks in finish():
            for tally in tallies:
                if tally.again or tally.pageblock_order is not None:
                    raise Alone
                tally.kinds = [(*kind[:2], _named(kind[2], stacks)) for kind in tally.kinds]
                parts.append(tally)
        if begin_again(parts):
            raise Alone
        return parts

    return named


def _begin(opened: Opened, edges: Sequence[int], read: Callable[[Opened, bool, bool], T],
           ) -> Callable[[], list[tuple[T, dict[int, Body]]]]:
    """With what each part gives, the stacks that the parts in front list, by handle."""
    shares = opened.shares
    assert shares is not None

    def share(start: int, stop: int) -> tuple[T, dict[bytes, bytes]]:
        if start:
            shares.listed().clear()  # of the beginning, which was read to tell the form
        part = shares.part(start, stop)
        return read(part, not start, stop == edges[-1]), shares.listed()

    with reading(opened.name):
        workers = Workers([lambda place=place: share(*place)  # type: ignore[misc]
                           for place in pairwise(edges)])

    def finish() -> list[tuple[T, dict[int, Body]]]:
        with reading(opened.name):
            results = workers.results()
        found: list[tuple[T, dict[int, Body]]] = []
        known: dict[int, Body] = {}
        for part, listed in results:
            found.append((part, known))
            known = known | {int(handle): parse_body(stack[:-1])
                             for handle, stack in listed.items()}
        return found

    return finish


def _closed(parser: Parser, part: Opened, is_first: bool, is_last: bool) -> Raw:
    """All records of a part. Raises `Alone` if it is not to be read alone."""
    if not is_last and not (part.quick and part.quick.is_at_a_cut(parser)):
        raise Alone
    raw = parser.close(final=is_last)
    if part.undone or raw.listed or raw.left_out or (raw.damaged and not is_first) or (
            raw.unterminated and not is_last):
        raise Alone
    return raw


def _check_order(raw: Raw) -> None:
    """Raises `Alone` if the page frames are not in their order: where sums begin would matter."""
    pfn = _column(raw.pfn)
    if (pfn[1:] < pfn[:-1]).any() or (pfn == NONE).any() or (_column(raw.block) != NONE).any():
        raise Alone


def _column(column: array[int]) -> np.ndarray:
    return np.frombuffer(column, np.uint64) if column else np.zeros(0, np.uint64)


def _named(body: Body, stacks: dict[int, Body]) -> Body:
    if body.stack is not None or body.handle not in stacks:
        return body
    return stacks[body.handle]
