"""The cgroups that live pages are charged to, kept from look to look: those of the kernel."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pageowner.kernel import procpages
from pageowner.kernel.cgroups import Cgroups
from pageowner.tracker.read import charges

if TYPE_CHECKING:
    from pathlib import Path

FRAMES = 4096
LONG_AGO, LATER = 10**9, 2 * 10**9


class Kernel:
    """A kernel's /proc/kpagecgroup, and its cgroups."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "kpagecgroup"
        self.charge = np.zeros(FRAMES, np.uint64)
        self.paths = {10: "/a", 20: "/b", 30: "/b/c"}
        self.walks = 0
        self.write()

    def write(self) -> None:
        self.file.write_bytes(self.charge.tobytes())

    def walk(self) -> Cgroups:
        self.walks += 1
        return Cgroups(known=dict(self.paths))


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found = Kernel(tmp_path)
    monkeypatch.setattr(procpages, "KPAGECGROUP", str(found.file))
    monkeypatch.setattr(charges.cgroups, "memory", found.walk)
    return found


def made() -> charges.Charges:
    span: Any = SimpleNamespace(first=0, records=np.zeros(FRAMES))
    return charges.Charges([span])


def asked(found: charges.Charges, frames: dict[int, int]) -> list[int]:
    """What pages are charged to, by frame with the time of their records."""
    return found.of(np.array(list(frames), np.int64),
                    np.array(list(frames.values()), np.uint64)).tolist()


def test_a_page_that_moves_keeps_its_time_and_brings_its_charge(kernel: Kernel) -> None:
    kernel.charge[[5, 900]] = 10, 20
    kernel.write()
    found = made()
    assert asked(found, {5: LONG_AGO, 900: LATER}) == [10, 20]
    kernel.charge[[5, 900]] = 0, 10
    kernel.write()
    assert asked(found, {900: LONG_AGO}) == [10]


def test_the_rest_of_a_divided_block_has_the_time_of_the_whole(kernel: Kernel) -> None:
    kernel.charge[512:1024] = 20
    kernel.write()
    found = made()
    assert asked(found, {512: LONG_AGO}) == [20]
    assert asked(found, dict.fromkeys(range(512, 1024), LONG_AGO)) == [20] * 512


def test_a_page_that_was_left_out_once_is_asked_for_when_it_is_there(kernel: Kernel) -> None:
    found = made()
    assert asked(found, {7: LONG_AGO}) == [0]
    kernel.charge[2000] = 30
    kernel.write()
    found.begin()
    assert asked(found, {7: LONG_AGO, 2000: LONG_AGO}) == [0, 30]


def test_what_is_charged_soon_after_it_was_allocated_is_asked_for_again(kernel: Kernel) -> None:
    found, now = made(), time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert asked(found, {7: now}) == [0]
    kernel.charge[7] = 30
    kernel.write()
    assert asked(found, {7: now}) == [30]


def test_what_a_removed_cgroup_had_is_told_of_the_one_above(
        kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.charge[[1, 900, 1800]] = 30, 40, 50
    kernel.write()
    found, pages = made(), {1: LONG_AGO, 900: LONG_AGO, 1800: LONG_AGO}
    assert asked(found, pages) == [30, 40, 50]

    def paths() -> list[str | None]:
        found.begin()
        return [found.path(number) for number in asked(found, pages)]

    before = kernel.walks
    assert paths() == ["/b/c", "cgroup 40 (gone)", "cgroup 50 (gone)"]
    assert kernel.walks == before + 1  # for all of them
    kernel.charge[900] = 20
    kernel.write()
    assert paths() == ["/b/c", "/b", "cgroup 50 (gone)"]
    assert paths() == ["/b/c", "/b", "cgroup 50 (gone)"]  # asked again, and the same
    kernel.charge[1800] = 20  # the kernel takes its time
    kernel.write()
    assert [paths()[2] for _ in range(2)] == ["cgroup 50 (gone)", "/b"]
    del kernel.paths[30]
    kernel.charge[1] = 20
    kernel.write()
    assert paths()[0] == "/b/c"  # until the cgroups are looked through again
    monkeypatch.setattr(charges, "_WALKED_AGAIN_S", -1)
    assert [paths()[0] for _ in range(2)] == ["cgroup 30 (gone)", "/b"]


def test_all_of_memory_is_read_in_pieces(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charges, "_PIECE", 100)
    kernel.charge[:] = np.arange(FRAMES) // 7
    kernel.write()
    every = dict.fromkeys(range(0, FRAMES, 3), LONG_AGO)
    found = made()
    assert asked(found, every) == [frame // 7 for frame in every]
    kernel.file.write_bytes(kernel.charge[:1000].tobytes())  # the rest of memory is taken away
    assert asked(found, dict.fromkeys(every, LATER)) == [
        frame // 7 if frame < 1000 else 0 for frame in every]
