"""What is written of a machine's memory is for its owner alone: task names, cgroups, stacks."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Done
    from pageowner import Snapshot

OUTPUTS = [
    ("save", "{out}", "{saved}"), ("dump", "-o", "{out}", "{saved}"),
    ("flame", "{saved}", "--html", "{out}"), ("flame", "{saved}", "--svg", "{out}"),
    ("map", "{saved}", "--html", "{out}"), ("map", "{saved}", "--png", "{out}"),
    *(("export", "--format", kind, "-o", "{out}", "{saved}")
      for kind in ("pprof", "folded", "speedscope", "json", "csv", "parquet"))]


@pytest.mark.parametrize("words", OUTPUTS, ids=" ".join)
def test_outputs_are_for_their_owner_alone(
        words: tuple[str, ...], sample61: Snapshot, cli: Callable[..., Done],
        tmp_path: Path) -> None:
    saved, out = tmp_path / "saved.parquet", tmp_path / "out"
    sample61.save(saved)
    before = os.umask(0)
    try:
        done = cli(*(word.format(out=out, saved=saved) for word in words))
    finally:
        os.umask(before)
    assert done.status == 0, done.err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.stat().st_size
