"""What a text is read as, in several ways that have to agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pageowner.errors import PageownerError
from pageowner.model.snapshot import Snapshot
from pageowner.sources import page_owner
from pageowner.sources.opening import Opened, open_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def outcome(read: Callable[[Opened], Snapshot], path: Path) -> Snapshot | str:
    """What a reader makes of a file, or why it refuses it."""
    with open_source(path) as opened:
        try:
            return read(opened)
        except PageownerError as error:
            return str(error)


def in_pieces(module: Any, piece: str, path: Path, monkeypatch: pytest.MonkeyPatch
              ) -> list[Snapshot | str]:
    """What a module's ``read`` makes of a file in small pieces, whose size is its constant
    ``piece``, and then by several processes too."""
    with monkeypatch.context() as changed:
        changed.setattr(module, piece, 1 << 10)
        alone = outcome(module.read, path)
        changed.setattr(page_owner, "PARALLEL", 1 << 8)
        return [alone, outcome(module.read, path)]


def agreed(found: list[Snapshot | str]) -> Snapshot | str:
    """The first one, if all are the same."""
    first, *others = found
    for other in others:
        if isinstance(other, str):
            assert other == first
            continue
        assert not isinstance(first, str)
        assert other.meta == first.meta
        for column in other.table.column_names:
            assert other.table[column].to_pylist() == first.table[column].to_pylist(), column
    return first
