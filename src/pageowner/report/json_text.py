"""JSON for programs: a document, a document with a long list in it, or rows one a line."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Json", "JsonRows"]

_HERE = "\x00rows"
_PIECE = 1 << 12
_KNOWN = 1 << 17


@dataclass(frozen=True)
class Json:
    """A document, indented. ``rows``: the key of a long list in it, whose rows may come from an
    iterator, and are written piece by piece; their values are numbers, texts, None and lists of
    texts."""

    document: Any
    rows: str | None = None

    def write(self, file: BinaryIO) -> None:
        if self.rows is None:
            file.write(json.dumps(self.document, indent=1).encode())
        else:
            for piece in _pieces(self.document, self.rows):
                file.write(piece.encode())
        file.write(b"\n")


@dataclass(frozen=True)
class JsonRows:
    """A list of objects, one a line, with ``columns`` as their keys. What JSON has no type for is
    text; NaN and infinity are null."""

    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]

    def write(self, file: BinaryIO) -> None:
        before = "["
        for row in self.rows:
            values = {name: _plain(value) for name, value in zip(self.columns, row, strict=True)}
            file.write(f"{before}\n{json.dumps(values)}".encode())
            before = ","
        file.write(b"[]\n" if before == "[" else b"\n]\n")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Decimal):
        return _plain(float(value))
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    if isinstance(value, dict):
        return {str(name): _plain(element) for name, element in value.items()}
    return str(value)


class _Texts(dict[str, str]):
    """Texts as JSON: a million stacks have some thousands of frames."""

    def __missing__(self, text: str) -> str:
        if len(self) >= _KNOWN:  # a dump may be hostile
            self.clear()
        quoted = self[text] = json.dumps(text)
        return quoted


def _pieces(document: dict[str, Any], name: str) -> Iterator[str]:
    """``json.dumps(document, indent=1)`` in pieces, where ``name`` is the key of the rows."""
    before, after = json.dumps({**document, name: _HERE}, indent=1).split(json.dumps(_HERE))
    yield before + "["
    texts, parts, some = _Texts(), [], False
    for row in document[name]:
        parts.append("\n  {\n   " + ",\n   ".join(
            [f"{texts[key]}: {_value(value, texts)}" for key, value in row.items()]) + "\n  }")
        if len(parts) >= _PIECE:
            yield ("," if some else "") + ",".join(parts)
            parts, some = [], True
    if parts:
        yield ("," if some else "") + ",".join(parts)
    yield ("\n ]" if parts or some else "]") + after


def _value(value: Any, texts: _Texts) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is str:
        return texts[value]
    if type(value) is list:
        inner = ",\n    ".join([texts[text] for text in value])
        return f"[\n    {inner}\n   ]" if value else "[]"
    return json.dumps(value)
