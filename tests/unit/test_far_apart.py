"""What a capture and its analyses cost grows with memory, not with the highest address: a machine
with RAM in two halves far apart, beside one with as much in one piece."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from far_apart import FarApart
from pageowner.analysis.blocks import blocks
from pageowner.analysis.fragmentation import fragmentation
from pageowner.analysis.memory import memory
from pageowner.analysis.picture import disjoint
from pageowner.kernel import procpages, zones
from pageowner.model.pfn_runs import joined, pack
from pageowner.model.snapshot import Metadata, Snapshot
from pageowner.tracker.read import pageblocks, survey
from pageowner.tracker.read.charges import Charges
from pageowner.tracker.read.frames import Frames

FRAMES = 1 << 22
GAP = (64 << 40) >> 12


@pytest.fixture(params=[0, GAP], ids=["one piece", "two halves"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> FarApart:
    return FarApart(tmp_path / "proc", FRAMES, request.param)


def walked(machine: FarApart) -> survey.Survey:
    return survey.survey(machine, zones.running(machine.proc), 0x40000, Frames(machine.proc))


def snapshot(found: survey.Survey, machine: FarApart, kind: str) -> Snapshot:
    pfn, masks = found.take("pfn"), found.take("gfp_mask")
    meta = Metadata(kind=kind, source="made up", pageblock_order=9)
    if kind == "tracker":
        meta.zones = [{"node": zone.node, "name": zone.name, "start_pfn": zone.start_pfn,
                       "spanned": zone.spanned, "present": zone.present, "managed": zone.managed}
                      for zone in zones.running(machine.proc).zones]
        meta.extra["memory"] = {"spans": pack(joined(found.spans)),
                                "held": pack(joined(found.held))}
    return Snapshot.from_columns({
        "pfn": pfn, "order": found.take("order"), "comm": ["made up"] * len(pfn),
        "migratetype": np.where(masks, "Movable", "Unmovable").tolist()}, meta)


def test_every_frame_is_read_and_no_hole(
        machine: FarApart, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def counted(file: int, buffers: list, offset: int) -> int:
        read.append(os.preadv(file, buffers, offset))
        return read[-1]

    monkeypatch.setattr(procpages, "os", SimpleNamespace(
        preadv=counted, open=os.open, O_RDONLY=os.O_RDONLY, O_CLOEXEC=os.O_CLOEXEC))
    found = walked(machine)
    assert found.frames["owned"] == sum(found.frames.values()) == FRAMES
    # flags and cgroup once, a word a frame each: nothing is in doubt
    assert 16 * FRAMES <= sum(read) <= 16 * FRAMES * 1.01
    assert len(found.take("pfn")) == FRAMES >> 10


def test_pageblocks_are_asked_for_where_there_is_memory(machine: FarApart) -> None:
    found = walked(machine)
    types, why = pageblocks.block_types(
        machine, SimpleNamespace(address_of=lambda name: 1),  # type: ignore[arg-type]
        zones.running(machine.proc),
        zones.parse_pagetypeinfo((Path(machine.proc) / "pagetypeinfo").read_text()),
        joined(found.spans).tolist())
    assert types is not None, why
    assert machine.asked == FRAMES >> 9
    pfns = found.take("pfn")
    assert set(types.column(pfns).to_pylist()) == {"Movable"}
    assert types.column(pfns[-1:] + np.uint64(1 << 40)).to_pylist() == [None]


def test_cgroups_are_kept_for_memory_alone(machine: FarApart, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("/proc/kpagecgroup is for root only")
    charges = Charges(machine.spans)
    assert charges._known.nbytes + charges._read_for.nbytes == 8 * FRAMES


@pytest.mark.parametrize("kind", ["tracker", "page_owner"])
def test_fragmentation_costs_what_there_is(machine: FarApart, tmp_path: Path, kind: str) -> None:
    whole = snapshot(walked(machine), machine, kind)
    seen = memory(whole)
    assert len(blocks(seen, 9).number) == FRAMES >> 9
    assert sum(one.end - one.start for one in disjoint(seen.stretches)) == FRAMES
    other = FarApart(tmp_path / "other", FRAMES, 0)
    one_piece = snapshot(walked(other), other, kind)
    peaks, states = [], []
    for taken in (one_piece, whole):
        fragmentation(taken, "comm")  # what is made once is not counted
        tracemalloc.start()
        found = fragmentation(taken, "comm")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        states.append([zone["states"] for zone in found["zones"]])
    assert peaks[1] <= 1.2 * peaks[0]
    assert states[0] == states[1]


def test_one_page_far_away_makes_no_dump_large() -> None:
    meta = Metadata(kind="page_owner", source="made up", pageblock_order=9)
    pfns = [*range(0, 1 << 16, 2), (28 << 40) >> 12]
    taken = Snapshot.from_columns({
        "pfn": np.array(pfns, np.uint64), "order": np.zeros(len(pfns), np.uint8),
        "comm": ["made up"] * len(pfns), "migratetype": ["Movable"] * len(pfns)}, meta)
    tracemalloc.start()
    found = fragmentation(taken, "comm")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sum(zone["states"].values()) for zone in found["zones"]) == (1 << 7) + 1
    assert any("assumed not to be memory" in note for note in found["notes"])
    assert peak < 64 << 20
