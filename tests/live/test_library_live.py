"""The examples of docs/reference/api.md that ask this machine's tracker, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from documents import TREE, examples, run


@pytest.mark.usefixtures("off")
def test_examples_of_this_machine_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, *others = examples(TREE / "docs/reference/api.md")
    names: dict[str, object] = {}
    run(first, names)
    for example in others:
        if example.of_this_machine:
            run(example, names)
    assert names["missing"] == []
    assert names["status"].on  # type: ignore[attr-defined]
    assert (tmp_path / "now.parquet").stat().st_size
    assert len(list((tmp_path / "captures").iterdir())) == 2
    assert names["was_on"] is True
