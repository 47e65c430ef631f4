"""Culling and sorting what was counted: stable sorts, as in the kernel's tool."""

from __future__ import annotations

from array import array
from itertools import repeat
from operator import eq, rshift

from pageowner.page_owner_sort.blocks import OTHERS, PREFIX, Fields

__all__ = ["Group", "Singles", "allocator_of", "arrange"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from pageowner.page_owner_sort.counting import Tally
    from pageowner.page_owner_sort.options import Options

_TOGETHER = 512
"""Blocks written at once: their text is to stay in a processor's second-level cache."""

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
        return allocator_of(self.fields, self.bits)

    @property
    def released(self) -> bool:
        """Whether the memory was released after this allocation."""
        return self.free > self.time


class Singles:
    """Blocks in the order of the output, each a group of its own.

    ``fields[kind]`` is what a kind of blocks has in common; ``kinds`` holds (kind, bits) of each
    block, ``times`` and ``frees`` (-1: none) its times in ns. ``frees`` is empty
    where none has one.
    """

    __slots__ = ("fields", "frees", "kinds", "times")

    def __init__(self, fields: list[Fields], kinds: list[tuple[int, int]], times: list[int],
                 frees: list[int]) -> None:
        self.fields = fields
        self.kinds = kinds
        self.times = times
        self.frees = frees


def allocator_of(fields: Fields, bits: int) -> int:
    """CMA, SLAB and VMALLOC of a block, or OTHERS."""
    return bits | fields.vmalloc or OTHERS


def arrange(tally: Tally, options: Options) -> Iterable[Group | Singles]:
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
            groups.append(_group(tally, fields, number))
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


def _by_time(tally: Tally, fields: list[Fields], options: Options) -> Iterator[Group | Singles]:
    # One group for each text, which holds its time; the time is the first key. They are made as
    # they are written: there are about as many as blocks, and few have the time of another.
    descending = options.sort[0][1] < 0
    time_of = tally.each_time.__getitem__
    has_frees = any(tally.each_free)
    for numbers in _buckets(tally.each_time, descending=descending):
        order = sorted(numbers, key=time_of, reverse=descending)
        times = list(map(time_of, order))
        as_before = [*map(eq, times, times[1:]), False]
        here = 0
        while here < len(order):
            try:
                same = as_before.index(True, here)
            except ValueError:
                same = len(order)
            for start in range(here, same, _TOGETHER):
                stop = min(start + _TOGETHER, same)
                yield _singles(tally, fields, order[start:stop], times[start:stop], has_frees)
            if same == len(order):
                break
            here = as_before.index(False, same) + 1
            groups = _merged([_group(tally, fields, number) for number in order[same:here]])
            _sort(groups, options.sort[1:], options)
            yield from groups


def _singles(tally: Tally, fields: list[Fields], numbers: list[int], times: list[int],
             has_frees: bool) -> Singles:
    kinds = zip(map(tally.each_kind.__getitem__, numbers),
                map(tally.each_bits.__getitem__, numbers), strict=True)
    frees = [tally.each_free[number] - 1 for number in numbers] if has_frees else []
    return Singles(fields, list(kinds), times, frees)


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
    first, last = min(times), max(times)
    shift = ((last - first) * 4096 // len(times)).bit_length()
    low = first >> shift
    buckets = [array("I") for _ in range((last >> shift) - low + 1)]
    add_to = [bucket.append for bucket in buckets]
    for number, place in enumerate(map(rshift, times, repeat(shift))):
        add_to[place - low](number)
    yield from reversed(buckets) if descending else buckets


def _group(tally: Tally, fields: list[Fields], number: int) -> Group:
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
