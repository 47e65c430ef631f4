"""A recording that is served: what it takes to judge growth, and what is left where that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from served import HOSTILE  # noqa: F401  # skips where the extra is not installed
from test_leaks import LEAK, Machine

from pageowner.server import gathering, sources
from pageowner.storage import series
from pageowner.storage.series import file_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def machine() -> Machine:
    found = Machine()
    found.add(LEAK, range(600), 1e9)
    return found


def add(folder: Path, machine: Machine, looks: range) -> None:
    for look in looks:
        machine.at(look).save(folder / file_name(1.7e9 + look * 60))


def test_of_a_long_boot_only_new_captures_are_read(tmp_path: Path, machine: Machine,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    each = series.each

    def counted(paths: list[Path]) -> Iterator[Any]:
        read.append(len(paths))
        return each(paths)

    monkeypatch.setattr(series, "each", counted)
    add(tmp_path, machine, range(60))
    here = sources.Series(tmp_path)
    for number in range(60, 63):
        assert here.figures()["looks"] == number - 60 + 24
        add(tmp_path, machine, range(number, number + 1))
    assert read == [24, 1, 1]


def test_memory_is_shown_where_an_older_capture_cannot_be_read(tmp_path: Path, machine: Machine,
                                                               ) -> None:
    add(tmp_path, machine, range(6))
    here = sources.Series(tmp_path)
    assert here.figures()["looks"] == 6
    path = tmp_path / file_name(1.7e9 + 120)
    path.write_bytes(path.read_bytes()[:-9])
    add(tmp_path, machine, range(6, 7))
    for one in (here, sources.Series(tmp_path)):
        found = one.figures()
        assert found["states"]["owned"] == 7 * 4096
        assert "looks" not in found
        assert str(path) in found["notes"][0]


def test_more_leaks_and_suspects_than_are_handed_over_are_counted(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    for number in range(3):
        machine.add(f"f{number}+0x1/0x2", np.repeat(range(6), 256), 1e9)
    add(tmp_path, machine, range(6))
    monkeypatch.setattr(gathering, "MOST_LEAKS", 1)
    found = sources.Series(tmp_path).figures()
    assert (len(found["growth"]), sum(found["kinds"].values())) == (1, 3)
    assert set(found["kinds"]) == {found["growth"][0].kind}
