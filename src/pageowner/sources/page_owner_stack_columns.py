"""A list of stacks by columns: most of it is as stack_print of mm/page_owner.c prints it.

A piece of a text is read so if all of it is just so: lines with one blank in front,
``nr_base_pages: N``, an empty line. Anything else is left to
`pageowner.sources.page_owner_stack_blocks`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pageowner.kernel.early_pages import told_by
from pageowner.model.source_kinds import KINDS
from pageowner.sources.digits import bytes_at, numbers_between

if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

    import pyarrow as pa

    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.page_owner_stack_blocks import Stacks

__all__ = ["Many", "codes_of", "joined", "regular", "to_snapshot"]

_FIRST, _LAST = (np.frombuffer(word, np.uint64)[0] for word in (b"nr_base_", b"_pages: "))
_WORD = 15
"""Bytes of ``nr_base_pages: ``."""
_ONES = np.uint64(0x0101010101010101)


class Many(NamedTuple):
    """Stacks, an item each: the ``length`` of its frames in the text that has those of all, one
    behind the other; ``pages``, ``blocks``, and the ``offset`` of the block that it stands in
    (int64). ``is_early``: whether it is of pages that were in use before page owner was ready.
    ``hashes``: of the frames, within this process and those that it starts."""

    length: np.ndarray
    pages: np.ndarray
    blocks: np.ndarray
    offset: np.ndarray
    is_early: np.ndarray
    hashes: np.ndarray

    @classmethod
    def of(cls, frames: Sequence[bytes], pages: np.ndarray, blocks: np.ndarray,
           offset: np.ndarray) -> Many:
        """The same of stacks whose frames are texts as Arrow holds them."""
        firsts = [text.split(b"\n", 1)[0] for text in frames]
        told = {first: told_by(first.decode("utf-8", "surrogatepass")) for first in set(firsts)}
        is_early = [told[first] for first in firsts]
        for place in [place for place, early in enumerate(is_early) if early is None]:
            is_early[place] = told_by(frames[place].decode("utf-8", "surrogatepass"))
        return cls(np.fromiter(map(len, frames), np.int64, len(frames)), pages, blocks, offset,
                   np.array(is_early, bool), np.fromiter(map(hash, frames), np.int64, len(frames)))


def joined(parts: Sequence[Many]) -> Many:
    """Parts of a text, one behind the other."""
    return Many(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def codes_of(many: Many, frames: Sequence[bytes | mmap]) -> list[int] | None:
    """A number for each stack, the same where the frames are the same; None if all differ."""
    ordered = np.sort(many.hashes)
    if (ordered[1:] != ordered[:-1]).all():
        return None
    codes: list[int] = _texts(many, frames).dictionary_encode().indices.to_pylist()
    return codes


def _texts(many: Many, frames: Sequence[bytes | mmap]) -> pa.StringArray:
    """The frames of the first stacks of a text, an array of strings."""
    import pyarrow as pa

    arrays, first, ends = [], 0, np.cumsum(many.length)
    for held in frames:
        before = int(ends[first - 1]) if first else 0
        last = int(np.searchsorted(ends, before + len(held), "right"))
        edges = np.concatenate([[0], ends[first:last] - before]).astype(np.int32)
        if last > first:
            arrays.append(pa.Array.from_buffers(pa.string(), last - first, [
                None, pa.py_buffer(edges), pa.py_buffer(held)]))
        first = last
    return pa.concat_arrays(arrays)


def to_snapshot(lists: Stacks, many: Many, name: str, kind: str) -> Snapshot:
    """Stacks as `page_owner_groups.to_snapshot` makes a snapshot of them as groups."""
    import pyarrow as pa

    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.page_owner_columns import text_of
    from pageowner.sources.page_owner_groups import metadata

    stacks = _texts(many, lists.frames)
    rows = pa.array(np.arange(len(stacks), dtype=np.int32))
    encoded = (pa.DictionaryArray.from_arrays(rows, stacks) if lists.all_differ else
               stacks.dictionary_encode())
    held = many.pages > 0
    if not held.all():
        many, encoded = Many(*(column[held] for column in many)), encoded.filter(pa.array(held))
    meta = metadata(name, kind, lists.damaged, 0, lists.damage)
    if lists.unterminated:
        meta.counters["unterminated"] = 1
    return Snapshot.from_columns({
        "amount": pa.array(many.pages.astype(np.uint64)),
        "blocks": pa.array(many.blocks.astype(np.uint64)) if KINDS[kind].block else None,
        "state": text_of(["owned", "early"], many.is_early.astype(np.int64)),
        "stack": encoded}, meta)


def regular(text: bytes, offset: int, most: int) -> tuple[Many, bytes] | None:
    """The stacks of a piece of a text that begins and ends where a block does, at this byte of it,
    and their frames; None if not all of it is just so, or has ``most`` pages or more."""
    if not text.isascii() or b"\\" in text or not text.endswith(b"\n\n"):
        return None
    array = np.frombuffer(text, np.uint8)
    is_end, behind = array == ord("\n"), array[1:]
    blank, before = behind == ord(" "), is_end[:-1]
    frame, number, stop = before & blank, before & (behind == ord("n")), before & is_end[1:]
    number_at, stop_at = np.flatnonzero(number), np.flatnonzero(stop)
    stacks, frames = len(stop_at), np.count_nonzero(frame)
    if len(number_at) != stacks or not stacks or (
            frames + 2 * stacks != np.count_nonzero(is_end) - 1):
        return None
    start = np.concatenate([[0], stop_at[:-1] + 2])
    if stop_at[-1] + 2 != len(text) or (array[start] != ord(" ")).any() or (
            start >= number_at).any() or (number_at >= stop_at - 1 - _WORD).any():
        return None
    # A blank in front of each frame and of each number, and no others or none beside another.
    if np.count_nonzero(blank) != frames + stacks and b"  " in text:
        return None
    if (bytes_at(text, number_at + 1, 8) != _FIRST).any() or (
            bytes_at(text, number_at + _WORD - 7, 8) != _LAST).any():
        return None
    pages = numbers_between(text, array, number_at + 1 + _WORD, stop_at, 13)
    if pages is None or int(pages.sum()) >= most:
        return None
    kept = np.empty(len(text) + 7 & ~7, bool)
    kept[0] = False
    np.logical_not(frame, out=kept[1:len(text)])
    kept[len(text):] = False
    for at in range(int((stop_at - number_at).max()) + 2):
        kept[np.minimum(number_at + at, stop_at + 1)] = False
    # How many are kept up to a place, by words of eight.
    words = kept.view(np.uint64)
    behind_words = np.cumsum(words * _ONES >> np.uint64(56), dtype=np.int64)
    word = number_at >> 3
    within = words[word] & (np.uint64(1) << (number_at.astype(np.uint64) & np.uint64(7))
                            * np.uint64(8)) - np.uint64(1)
    end = np.where(word > 0, behind_words[word - 1], 0) + (
        within * _ONES >> np.uint64(56)).astype(np.int64)
    found = np.compress(kept[:len(text)], array).tobytes()
    edges = [0, *end.tolist()]
    return Many.of([found[a:b] for a, b in pairwise(edges)], pages.astype(np.int64),
                   np.zeros(stacks, np.int64), start + offset), found
