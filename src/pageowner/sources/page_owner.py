"""Read the text of the kernel's page owner, of any version since 3.19, into a snapshot.

Where a plain file is large, one process per core reads a range of its bytes.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from pageowner.errors import PageownerError
from pageowner.sources import handles
from pageowner.sources.as_printed import LINE_ENDS, has_other_line_ends, without_cr
from pageowner.sources.damage import note_left_out
from pageowner.sources.given import SYSTEM_MAP
from pageowner.sources.opening import Opened, open_source, pieces, reading
from pageowner.sources.page_owner_parser import CHUNK, CUT, WAIT, Damage, Parser, Raw
from pageowner.sources.restoring import restored
from pageowner.sources.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pageowner.model.counts import Counted
    from pageowner.model.metadata import Metadata
    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.page_owner_body import Body
    from pageowner.sources.page_owner_count import Tally

__all__ = ["begin_count", "begin_read", "count", "edges", "is_large", "parse", "parse_stream",
           "read"]

T = TypeVar("T")

PARALLEL = 24 << 20
"""Bytes from which on a second process pays."""

FOLD = 1 << 16
"""Records of a stream that are held until they are summed up."""


class _OtherLineEnds(Exception):
    """Of a file that several processes read: one alone has to."""


def edges(file: int, size: int, cut: Callable[[bytes], int] = lambda text: text.find(CUT)
          ) -> list[int]:
    """Where to cut a file so that every process gets whole records and like shares of bytes.
    ``cut`` gives the first place of a text where that may be; a negative number if none is."""
    number = max(1, min(len(os.sched_getaffinity(0)), 8, size // max(PARALLEL // 2, 1)))
    found_at = {0, size}
    for part in range(1, number):
        start = size * part // number
        found = cut(os.pread(file, WAIT, start))
        if found >= 0:
            found_at.add(start + found)
    return sorted(found_at)


def _parse_range(file: int, start: int, stop: int, end: int) -> Raw:
    """Bytes ``start`` to ``stop`` of an open file; the place in it is not moved."""
    parser, at, size = Parser(start), start, CHUNK
    while at < stop:
        wanted = min(size, stop - at)
        piece = os.pread(file, wanted, at)
        if b"\r" in piece and has_other_line_ends(piece):
            raise _OtherLineEnds
        # What was left over is read once more, which costs less than to join it.
        parser.carry = b""
        parser.feed(piece)
        if at + len(piece) == stop or len(piece) < wanted:
            break
        size = CHUNK if parser.offset > at else 2 * size
        at = parser.offset
    return parser.close(final=stop == end)


def parse_stream(opened: Opened) -> Raw:
    """The records of an open dump, from where it stands, by this process alone."""
    parser = Parser()
    for _ in _fed(opened, parser):
        pass
    return parser.close(final=True)


def _fed(opened: Opened, parser: Parser) -> Iterator[None]:
    """Give all records to a parser, part by part."""
    if opened.quick is not None:
        with reading(opened.name):
            yield from opened.quick.feed(parser, opened.stream.read)
    for piece in _without_cr(opened):
        parser.feed(piece)
        yield


def _without_cr(opened: Opened) -> Iterator[bytes]:
    """The text with ``\\n`` for ``\\r\\n`` from where on its lines end so."""
    held, changed = b"", False
    for piece in pieces(opened.stream, opened.name, CHUNK):
        piece = held + piece if held else piece
        held = b""
        if b"\r" in piece and (changed := changed or has_other_line_ends(piece)):
            if LINE_ENDS not in opened.undone:
                opened.undone.append(LINE_ENDS)
            text = piece.rstrip(b"\r")
            held, piece = piece[len(text):], without_cr(text)
        yield piece
    if held:
        yield held


def is_large(opened: Opened) -> bool:
    """Whether it is a plain file that several processes can read, and should."""
    return opened.size is not None and opened.size >= PARALLEL


def _begin(opened: Opened, digest: Callable[[Raw], T]) -> Callable[[], list[T]]:
    """Start reading; the returned function waits and gives the ``digest`` of every part, in the
    text's order.

    Until it is called, other processes already work on a large plain file, so that the caller
    can import what it needs meanwhile. They end at the latest when that function is forgotten.
    """
    size = opened.size
    if size is None or not is_large(opened):
        return lambda: [digest(parse_stream(opened))]
    file = opened.stream.fileno()
    with reading(opened.name):
        workers = Workers([
            lambda start=start, stop=stop: digest(_parse_range(file, start, stop, size))  # type: ignore[misc]
            for start, stop in pairwise(edges(file, size))])

    def finish() -> list[T]:
        try:
            with reading(opened.name):
                return workers.results()
        except _OtherLineEnds:
            return [digest(parse_stream(opened))]

    return finish


def _whole(raw: Raw) -> Raw:
    return raw


_OF_A_LOG = re.compile(
    rb"invoked oom-killer|page allocation failure|Mem-Info:|KASAN: |BUG: |page dumped because"
    rb"|PFNs busy|^(?:<\d+>)?\[ *\d+\.\d+\]", re.MULTILINE)
"""What the kernel's log says about memory, and times in front of its lines."""


def _nothing(opened: Opened, damage: list[Damage]) -> PageownerError:
    if _OF_A_LOG.search(opened.head):
        return PageownerError(f"{opened.name}: contains no page_owner record but looks like a"
                              f" kernel log; for that: pageowner explain {opened.name}")
    return PageownerError(
        f"{opened.name}: contains no page_owner record"
        + (f" ({damage[0].reason} at byte {damage[0].offset})" if damage else " (it is empty)")
        + "; is it the text of /sys/kernel/debug/page_owner? A kernel log is read by: pageowner"
          " explain")


def parse(source: str | os.PathLike[str]) -> list[Raw]:
    """All records of a dump as plain columns, without Arrow; one part per process used.

    Raises PageownerError if the source cannot be read.
    """
    with open_source(source) as opened:
        return _begin(restored(opened), _whole)()


def begin_read(opened: Opened) -> Callable[[], list[Raw]]:
    """Start to read a dump; the returned function waits and gives its parts, for `read`."""
    alone = _begin(opened, _whole)
    if not _has_shares(opened):
        return alone
    from pageowner.sources import page_owner_shares

    shared = page_owner_shares.begin_read(opened, _edges_of(opened), _fed)
    return lambda: _tried(shared, alone)


def _has_shares(opened: Opened) -> bool:
    return opened.shares is not None and opened.shares.size >= PARALLEL


def _edges_of(opened: Opened) -> list[int]:
    assert opened.shares is not None
    with reading(opened.name):
        return edges(opened.shares.file, opened.shares.size, opened.shares.cut)


def _tried(shared: Callable[[], T], alone: Callable[[], T]) -> T:
    from pageowner.sources.page_owner_shares import Alone

    try:
        return shared()
    except Alone:
        return alone()


def read(opened: Opened, begun: Callable[[], list[Raw]] | None = None) -> Snapshot:
    """A dump as a `Snapshot`. Damaged records are skipped and counted in ``meta.counters``.

    ``begun``: what `begin_read` returned for it. Raises PageownerError if the source cannot be read
    or holds no record at all.
    """
    finish = begun or begin_read(opened)
    # Imported while the workers read.
    from pageowner.sources.page_owner_columns import to_snapshot

    parts = finish()
    if not any(part.kind for part in parts):
        raise _nothing(opened, parts[0].damage)
    counters, unused = _join([part.bodies for part in parts], parts, opened.name)
    symbols = _name_frames(parts)
    found = to_snapshot(parts, opened.name)
    _note(found.meta, counters, unused, symbols)
    return found


def _join(bodies: list[list[Body]], parts: list[Raw] | list[Tally],
          name: str) -> tuple[dict[str, int], int]:
    """Give handles their stacks, as `handles.join`; how many stacks stand beside the records in
    vain, as none is of these handles."""
    listed = {handle: stack for part in parts for handle, stack in part.listed.items()}
    bare = {body.handle for part in bodies for body in part if body.stack is None}
    return handles.join(bodies, name, listed), 0 if listed.keys() & bare else len(listed)


def _note(meta: Metadata, counters: dict[str, int], unused: int, symbols: dict[str, str]) -> None:
    meta.counters |= counters
    meta.extra |= symbols
    if unused:
        note_left_out(meta, unused, [f"stacks of {unused:,} handles left out: no record is known"
                                     " by one of these handles alone"])


def _name_frames(parts: list[Raw] | list[Tally]) -> dict[str, str]:
    """Give bare addresses names, where there is a list of symbols; ``symbols`` says of which."""
    if SYSTEM_MAP.get() is None:
        return {}
    from pageowner.sources.system_map import name_frames

    symbols = name_frames(parts)
    return {} if symbols is None else {"symbols": symbols}


def begin_count(opened: Opened) -> Callable[[], list[Tally]]:
    """Start to count a dump's records; the returned function waits and gives the sums of its
    parts, for `count`."""
    from pageowner.sources.page_owner_count import tally

    if is_large(opened):
        return _begin(opened, tally)
    if not _has_shares(opened):
        return lambda: _count_stream(opened)
    from pageowner.sources import page_owner_shares

    shared = page_owner_shares.begin_count(opened, _edges_of(opened), _fed, FOLD << 2)
    return lambda: _tried(shared, lambda: _count_stream(opened))


def _count_stream(opened: Opened) -> list[Tally]:
    from pageowner.sources.page_owner_count import Folded

    folded = Folded()
    parser = Parser()
    for _ in _fed(opened, parser):
        # Each time all kinds are gone through.
        if len(parser.raw.kind) > max(FOLD << 2 if parser.raw.by_columns else FOLD,
                                      2 * len(parser.raw.kinds)):
            folded.take(parser.raw)
    folded.take(parser.close(final=True))
    return folded.parts()


def count(opened: Opened, begun: Callable[[], list[Tally]] | None = None) -> Counted | Snapshot:
    """A dump summed up by kind of record, which takes half the time of `read`; its `Snapshot`
    where a sum would not be sure. Raises what `read` raises.

    ``begun``: what `begin_count` returned for it.
    """
    finish = begun or begin_count(opened)
    from pageowner.sources.page_owner_count import begin_again, counted

    parts = finish()
    if not any(part.kinds for part in parts):
        raise _nothing(opened, parts[0].damage)
    bodies = [[body for _, _, body in part.kinds] for part in parts]
    counters, unused = _join(bodies, parts, opened.name)
    if counters:
        for part, joined in zip(parts, bodies, strict=True):
            part.kinds = [(*kind[:2], body) for kind, body in zip(part.kinds, joined, strict=True)]
    symbols = _name_frames(parts)
    if is_large(opened) and begin_again(parts):
        return read(opened)  # which page frames these are
    found = counted(parts, opened.name)
    if found is None:
        return read(opened)
    _note(found.meta, counters, unused, symbols)
    return found
