"""JSON with a long list of objects in it, written piece by piece."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["dumped"]

_HERE = "\x00rows"
_PIECE = 1 << 12
_KNOWN = 1 << 17


class _Texts(dict[str, str]):
    """Texts as JSON: a million stacks have some thousands of frames."""

    def __missing__(self, text: str) -> str:
        if len(self) >= _KNOWN:  # a dump may be hostile
            self.clear()
        known = self[text] = json.dumps(text)
        return known


def dumped(whole: dict[str, Any], name: str, rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """``json.dumps({**whole, name: list(rows)}, indent=1)`` in pieces, where ``name`` is a key of
    ``whole``, and the values of rows are numbers, texts, None and lists of texts."""
    before, after = json.dumps({**whole, name: _HERE}, indent=1).split(json.dumps(_HERE))
    yield before + "["
    texts, parts, some = _Texts(), [], False
    for row in rows:
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
        inner = ",\n    ".join([texts[one] for one in value])
        return f"[\n    {inner}\n   ]" if value else "[]"
    return json.dumps(value)
