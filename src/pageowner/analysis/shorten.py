"""Texts no longer than can be shown: what is stored stays whole, what is looked at has an end.

A kernel's names have a few dozen characters, its stacks a few dozen frames. A file may hold ten
million of either, and each table, page and image would repeat them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from pageowner.model.counts import Counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from pageowner.model.snapshot import Snapshot

__all__ = ["LINES", "LONGEST", "short", "shortened"]

LONGEST = 4096
"""Characters of a name, or of a line of a text that has several."""

LINES = 1024
"""Frames of a stack, or further lines of a record."""

_BY_LINE = ("stack", "notes")
_MOST_BYTES = LONGEST  # what has no more bytes has no more characters, and fewer lines


def short(text: str, by_line: bool = False) -> str:
    """The text, or its beginning with the length of the whole and a hash of it, so that different
    texts stay different; ``by_line``: of each line, and of `LINES` of them."""
    if not by_line:
        return text if len(text) <= LONGEST else (
            f"{text[:LONGEST]}… ({len(text):,} characters, {_hash(text)})")
    number = text.count("\n") + 1
    lines = text.split("\n", LINES)
    shown = [short(line) for line in lines[:LINES]]
    if number > LINES:
        shown.append(f"… ({number - LINES:,} more lines, {_hash(text)})")
    return "\n".join(shown)


def _hash(text: str) -> str:
    from hashlib import blake2b

    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@overload
def shortened(found: Snapshot) -> Snapshot: ...
@overload
def shortened(found: Counted | Snapshot) -> Counted | Snapshot: ...


def shortened(found: Counted | Snapshot) -> Counted | Snapshot:
    """The same rows, or sums, with every text `short`."""
    if isinstance(found, Counted):
        columns = {name: _values(values, name in _BY_LINE) for name, values
                   in found.columns.items()}
        return Counted(columns, found.blocks, found.oldest_ns, found.newest_ns, found.meta)
    # not for sums, which take less time than this import
    import pyarrow as pa

    from pageowner.model.snapshot import SCHEMA, TEXT, Snapshot

    table = found.table
    for place, field in enumerate(SCHEMA):
        column = table[field.name]
        if field.type == TEXT and any(map(_is_long, column.chunks)):
            chunks = [_chunk(chunk, field.name in _BY_LINE) for chunk in column.chunks]
            table = table.set_column(place, field, pa.chunked_array(chunks, TEXT))
    return Snapshot(table, found.meta)


def _values(values: Sequence[Any], by_line: bool) -> list[Any]:
    if not any(isinstance(value, str) and len(value) > LONGEST for value in values):
        return list(values)
    known: dict[Any, Any] = {}
    return [known.setdefault(value, short(value, by_line) if isinstance(value, str) else value)
            if value not in known else known[value] for value in values]


def _is_long(chunk: pa.DictionaryArray[Any, Any]) -> bool:
    texts = chunk.dictionary
    if not len(texts):
        return False
    import numpy as np

    edges = np.frombuffer(texts.buffers()[1], np.int32)[
        texts.offset:texts.offset + len(texts) + 1]
    return bool(np.diff(edges).max() > _MOST_BYTES)


def _chunk(chunk: pa.DictionaryArray, by_line: bool) -> pa.DictionaryArray[Any, Any]:
    if not _is_long(chunk):
        return chunk
    import pyarrow as pa

    texts = [None if text is None else short(text, by_line)
             for text in chunk.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(chunk.indices, pa.array(texts, pa.string()))
