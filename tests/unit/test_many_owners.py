"""Owners that are many are put in order as few are."""

from __future__ import annotations

import random

import pytest

from pageowner.analysis import owners as module
from pageowner.analysis.filters import SORTS
from pageowner.model.metadata import Metadata
from pageowner.model.snapshot import Snapshot


@pytest.fixture
def mixed_up() -> Snapshot:
    chance = random.Random(4)
    names = ["zz", "Z", "é", "漢", "a\x00b", "a", "", "\U0001f600", "\uffff", None]
    rows = 500
    return Snapshot.from_columns({
        "pfn": list(range(rows)), "order": [chance.randrange(3) for _ in range(rows)],
        "comm": [chance.choice(names) for _ in range(rows)],
        "tgid": [chance.choice([5, 40, -1, None]) for _ in range(rows)],
        "ts_ns": [chance.choice([None, 7, 9, chance.randrange(100)]) for _ in range(rows)],
        "stack": [chance.choice([None, "", "f+0x1/0x2\ng+0x1/0x2", "b+0x1/0x9"])
                  for _ in range(rows)]}, Metadata(kind="page_owner", page_size=4096))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sort", [*SORTS, "comm"])
def test_as_few(mixed_up: Snapshot, monkeypatch: pytest.MonkeyPatch, sort: str,
                reverse: bool) -> None:
    by = ["comm", "pid", "stack"]
    few = module.owners(mixed_up, by, sort=sort, reverse=reverse)
    monkeypatch.setattr(module, "_FEW", 0)
    many = module.owners(mixed_up, by, sort=sort, reverse=reverse)
    assert many.num_rows > 100
    assert many.to_pydict() == few.to_pydict()
    assert many.schema == few.schema
    if sort == "pages" and not reverse:
        for first in (1, 40, many.num_rows + 1):
            some = module.owners(mixed_up, by, first=first)
            assert some.slice(0, first).to_pydict() == few.slice(0, first).to_pydict()
            assert sorted(some["pages"].to_pylist()) == sorted(few["pages"].to_pylist())
