"""The walk over all frames, on made-up flags, records and answers of the kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_store import PAGE

from far_apart import FarApart
from pageowner.kernel import memory_ranges, procpages, zones
from pageowner.kernel.pageflags import bit
from pageowner.kernel.zones import ZoneMap
from pageowner.model.pfn_runs import joined
from pageowner.tracker.read.frames import Frames
from pageowner.tracker.read.maps import OWNED, RECORD
from pageowner.tracker.read.records import NONE
from pageowner.tracker.read.single import _Frames
from pageowner.tracker.read.survey import _Walk, survey

FIRST = 1 << 16
GFP_COMP = 1 << 18


class Kernel:
    """A store that knows which page frames are unused."""

    span_shift = 16
    spans: tuple[Any, ...] = ()

    def __init__(self, unused: set[int]) -> None:
        self._unused = np.array(sorted(unused), np.uint64)

    def unused(self, pfns: np.ndarray) -> np.ndarray:
        return np.isin(pfns, self._unused)


@pytest.mark.parametrize(("order", "unused", "free"), [
    (0, {0}, [0]),
    (0, set(), []),
    (2, {0, 1, 2, 3}, [0, 1, 2, 3]),
    (2, {0, 2}, [0, 2]),  # split: the rest is in use still
])
def test_pages_on_a_list_of_a_cpu_are_free_one_by_one(
        order: int, unused: set[int], free: list[int]) -> None:
    walk = _Walk(Kernel({FIRST + at for at in unused}), ZoneMap([]), GFP_COMP)  # type: ignore[arg-type]
    records = np.zeros(8, RECORD)
    records[0] = (1, 1, 1, 0, order, OWNED, 0, 0)
    flags = np.zeros(8, np.uint64)
    before, after = walk._freed_unseen(records, records, flags, flags, FIRST, np.arange(8))
    assert np.flatnonzero(before & after & bit("buddy")).tolist() == free
    assert walk.seen["stale_pages"] == len(free)


@pytest.mark.parametrize("how", ["removed", "offline"])
@pytest.mark.parametrize("state", ["owned", "untracked"])
def test_memory_that_was_taken_away_is_nobodys(tmp_path: Path, state: str, how: str) -> None:
    machine = FarApart(tmp_path / "proc", 1 << 20, 0)  # without a flag, as holes are since 6.14
    ((start, end),) = machine.facts["ranges"]
    half = (end - start) // 2
    if state == "untracked":
        machine.spans[0].records["state"] = 0
    blocks = tmp_path / "devices/system/memory"
    if how == "removed":
        (tmp_path / "proc/iomem").write_text(
            f"{start * PAGE:x}-{(start + half) * PAGE - 1:x} : System RAM\n")
    else:
        for number in range(start // half, end // half):
            (blocks / f"memory{number}").mkdir(parents=True)
            (blocks / f"memory{number}/state").write_text("online\n")
        (blocks / "block_size_bytes").write_text(f"{half * PAGE:x}\n")
        (blocks / f"memory{end // half - 1}/state").write_text("offline\n")
    found = survey(machine, zones.running(machine.proc), GFP_COMP,
                   Frames(machine.proc, str(tmp_path)))
    assert {name: pages for name, pages in found.frames.items() if pages} == {state: half}
    assert joined(found.held)[-1].tolist() == [start + half, end]
    assert int(found.take("pfn")[-1]) < start + half


class OneRecord(_Frames):
    """A tracker that has a record of page frame 7 alone."""

    def __init__(self) -> None:
        self.facts = {"ranges": [[0, 100]]}

    def claims(self) -> list[int]:
        return []

    def _record(self, pfn: int) -> dict[str, int]:
        return {"state": OWNED if pfn == 7 else NONE, "order": 0, "gfp_mask": 0}

    def _is_unused(self, pfn: int) -> bool:
        return False


@pytest.mark.parametrize("there", [True, False])
def test_a_single_page_that_was_taken_away_is_nobodys(
        monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(procpages, "words", lambda _path, _first, count: [0] * count)
    monkeypatch.setattr(memory_ranges, "is_present", lambda _pfn: there)
    assert (OneRecord().judge(7) is not None) == there
