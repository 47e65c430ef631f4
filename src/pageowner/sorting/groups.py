"""Culling and sorting what was counted: stable sorts, as in the kernel's tool."""

from __future__ import annotations

from array import array

from pageowner.sorting.blocks import OTHERS, PREFIX, Fields

__all__ = ["Group", "arrange"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from pageowner.sorting.options import Options
    from pageowner.sorting.tally import Tally

_CULL_ORDER = ("stacktrace", "pid", "tgid", "name", "module", "free", "allocator")


class Group:
    """Blocks that are one in the output.

    ``fields``, ``time``, ``free`` (ns, -1: none) and ``bits`` are those of the first of them in
    the dump; ``times`` is how many they are, ``pages`` how many base pages.
    """

    __slots__ = ("bits", "fields", "free", "pages", "time", "times")

    def __init__(self, fields: Fields, time: int, free: int, bits: int, times: int = 0) -> None:
        self.fields = fields
        self.time = time
        self.free = free
        self.bits = bits
        self.times = times
        self.pages = times * fields.pages

    def count(self, times: int, fields: Fields) -> None:
        """Add some blocks."""
        self.times += times
        self.pages += times * fields.pages

    def parts(self, *, time: bool) -> tuple[bytes, ...]:
        """The first block's lines, with its time or without, in pieces to be joined."""
        fields = self.fields
        if fields.head is None:
            return (fields.text,)
        end = b" ns\n" if self.free < 0 else b" ns, free_ts %d ns\n" % self.free
        return PREFIX, fields.head, b" %d" % self.time if time else b" ", end, fields.stack

    def text(self, *, time: bool) -> bytes:
        """The same in one piece."""
        return b"".join(self.parts(time=time))

    @property
    def allocator(self) -> int:
        """CMA, SLAB and VMALLOC, or OTHERS."""
        return self.bits | self.fields.vmalloc or OTHERS

    @property
    def released(self) -> bool:
        """Whether the memory was released after this allocation."""
        return self.free > self.time


def arrange(tally: Tally, options: Options) -> Iterable[Group]:
    """The groups in the order of the output."""
    fields = [Fields(kind[0], kind[1]) for kind in tally.kinds]
    if options.cull:
        groups = _culled(tally, fields, options)
    elif options.keeps_time:
        return _by_time(tally, fields, options)
    else:
        groups = _distinct(tally, fields)
    _sort(groups, options.sort, options)
    return groups


def _culled(tally: Tally, fields: list[Fields], options: Options) -> list[Group]:
    order = [_KEYS[name] for name in _CULL_ORDER if name in options.cull]
    found: dict[tuple[Any, ...], Group] = {}
    for kind, count, own in zip(tally.kinds[1:], tally.counts[1:], fields[1:], strict=True):
        group = Group(own, *kind[2:])
        key = tuple(part(group) for part in order)
        found.setdefault(key, group).count(count, own)
    return [found[key] for key in sorted(found)]


def _distinct(tally: Tally, fields: list[Fields]) -> list[Group]:
    # one group for each text, sorted by it
    found: dict[bytes, Group] = {}
    for kind, count, own in zip(tally.kinds[1:], tally.counts[1:], fields[1:], strict=True):
        if count:
            group = Group(own, *kind[2:])
            found.setdefault(group.text(time=False), group).count(count, own)
    if not tally.each_kind:
        return [found[text] for text in sorted(found)]
    groups = list(found.values())
    each_kind, each_free = tally.each_kind, tally.each_free
    order = sorted(range(len(each_kind)), key=lambda n: each_kind[n] << 64 | each_free[n])
    before: tuple[int, int] | None = None
    for number in order:
        this = each_kind[number], each_free[number]
        if this != before:
            groups.append(_one(tally, fields, number))
            before = this
        else:
            groups[-1].count(1, groups[-1].fields)
    groups.sort(key=_text_order(fields) if not found else lambda group: group.text(time=False))
    return groups


def _text_order(fields: list[Fields]) -> Callable[[Group], Any]:
    # Sorts as the texts of blocks with free_ts do, without making them all: by first line up to
    # the time, free_ts, stack. No name is so long that one first line with what follows the time
    # could begin another.
    heads = _ranks({(own.head or b"") + b"  ns, free_ts " for own in fields})
    stacks = _ranks({own.stack for own in fields})
    head_of = {own: heads[(own.head or b"") + b"  ns, free_ts "] for own in fields}
    stack_of = {own: stacks[own.stack] for own in fields}
    return lambda group: (head_of[group.fields], b"%d " % group.free, stack_of[group.fields])


def _ranks(texts: set[bytes]) -> dict[bytes, int]:
    return {text: rank for rank, text in enumerate(sorted(texts))}


def _by_time(tally: Tally, fields: list[Fields], options: Options) -> Iterator[Group]:
    # One group for each text, which holds its time; the time is the first key. They are made as
    # they are written: there are about as many as blocks.
    later = options.sort[1:]
    descending = options.sort[0][1] < 0
    for numbers in _buckets(tally.each_time, descending=descending):
        order = sorted(numbers, key=tally.each_time.__getitem__, reverse=descending)
        times = [tally.each_time[number] for number in order]
        times.append(-1)
        here = 0
        for end, time in enumerate(times[1:], 1):
            if time == times[here]:
                continue
            if end - here == 1:
                yield _one(tally, fields, order[here])
            else:
                groups = _merged([_one(tally, fields, number) for number in order[here:end]])
                _sort(groups, later, options)
                yield from groups
            here = end


def _merged(groups: list[Group]) -> list[Group]:
    # those of one text as one, sorted by it
    found: dict[bytes, Group] = {}
    for group in groups:
        text = group.text(time=True)
        if text in found:
            found[text].count(group.times, group.fields)
        else:
            found[text] = group
    return [found[text] for text in sorted(found)]


def _buckets(times: array[int], *, descending: bool) -> Iterator[array[int]]:
    """Numbers of blocks in buckets of increasing (or decreasing) time, in their order in each.

    Sorting the buckets one by one takes 4 bytes a block, not the 80 of Python's integers.
    """
    if not times:
        return
    first, span = min(times), max(times) - min(times) + 1
    buckets = [array("I") for _ in range(len(times) // 4096 + 1)]
    many = len(buckets)
    for number, time in enumerate(times):
        buckets[(time - first) * many // span].append(number)
    yield from reversed(buckets) if descending else buckets


def _one(tally: Tally, fields: list[Fields], number: int) -> Group:
    return Group(fields[tally.each_kind[number]], tally.each_time[number],
                 tally.each_free[number] - 1, tally.each_bits[number], 1)


def _sort(groups: list[Group], order: list[tuple[str, int]], options: Options) -> None:
    for name, sign in reversed(order):
        key: Callable[[Group], Any] = _KEYS[name]
        if name == "txt":
            key = _text_with_time if options.keeps_time else _text_without_time
        groups.sort(key=key, reverse=sign < 0)


def _text_with_time(group: Group) -> bytes:
    return group.text(time=True)


def _text_without_time(group: Group) -> bytes:
    return group.text(time=False)


_KEYS: dict[str, Callable[[Group], Any]] = {
    "times": lambda group: group.times,
    "pages": lambda group: group.pages,
    "pid": lambda group: group.fields.pid,
    "tgid": lambda group: group.fields.tgid,
    "name": lambda group: group.fields.comm,
    "stacktrace": lambda group: group.fields.stack,
    "module": lambda group: group.fields.module,
    "allocator": lambda group: group.allocator,
    "alloc_ts": lambda group: group.time,
    "free_ts": lambda group: group.free,
    "free": lambda group: group.released,
    "txt": _text_without_time,
}
