"""The picture of memory, cell by cell against the same done frame by frame."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from machines import Machine, machine

from pageowner.analysis.layout import fit, hilbert, hilbert_index
from pageowner.analysis.memory import Stretch
from pageowner.analysis.picture import AGE, VALUES, Picture, aggregate, disjoint, picture
from pageowner.errors import PageownerError, UsageError
from pageowner.model.pfn_runs import pack
from pageowner.model.snapshot import Metadata, Snapshot


def frame_by_frame(made: Machine) -> list[str]:
    """What each frame is by task, with nothing of the package."""
    owners = made.owner_at()
    return ["held" if pfn in made.held else owner.comm if owner else "free"
            for pfn, owner in enumerate(owners)]


def names(drawn: Picture) -> list[str]:
    return [one.label if one.role == "value" else one.role for one in drawn.categories]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("frames", [1, 2, 8, 64, 1 << 20])
def test_every_cell_shows_what_most_of_its_frames_are(seed: int, frames: int) -> None:
    made = machine(seed)
    truth = frame_by_frame(made)
    drawn = picture(made.snapshot(), "comm")
    cells = aggregate(drawn, frames)
    place = 0
    for _, start, end in made.zones:
        for base in range(start // frames * frames, end, frames):
            inside = Counter(truth[max(base, start):min(base + frames, end)])
            shown = names(drawn)[cells.code[place]]
            assert cells.frames[place] == inside.total()
            assert inside[shown] == max(inside.values())
            assert cells.share[place] == pytest.approx(inside[shown] / inside.total())
            place += 1
    assert place == len(cells.code)
    assert cells.frames.sum() == drawn.frames


@pytest.mark.parametrize("seed", range(3))
def test_the_legend_sums_up_to_all_frames(seed: int) -> None:
    made = machine(seed)
    drawn = picture(made.snapshot(), "comm")
    kinds = frame_by_frame(made)
    truth = Counter(kind for _, start, end in made.zones for kind in kinds[start:end])
    assert {name: one.pages for name, one in zip(names(drawn), drawn.categories, strict=True)
            if one.pages} == dict(truth)
    assert sum(category.pages for category in drawn.categories) == drawn.frames


def test_a_dump_does_not_call_free_what_has_no_record() -> None:
    drawn = picture(machine(1).snapshot("page_owner"), "migratetype")
    assert [one.role for one in drawn.categories if one.pages and one.role != "value"] == ["unseen"]


def test_values_without_a_colour_of_their_own_are_others() -> None:
    tasks = 2 * VALUES
    pages = list(range(tasks))
    first = np.cumsum([0, *(1 << order for order in pages)])[:-1]
    made = Snapshot.from_columns(
        {"pfn": first.astype(np.uint64), "order": np.array(pages, np.uint8),
         "comm": [f"t{order}" for order in pages]}, Metadata(kind="page_owner"))
    drawn = picture(made, "comm")
    assert [category.label for category in drawn.categories if category.role == "value"] == [
        f"t{order}" for order in reversed(pages[VALUES:])]
    (other,) = [category for category in drawn.categories if category.role == "other"]
    assert (other.label, other.pages) == ("8 others", (1 << VALUES) - 1)


def test_ages_are_counted_from_the_time_of_the_snapshot() -> None:
    second = 10**9
    made = Snapshot.from_columns(
        {"pfn": np.arange(5, dtype=np.uint64), "order": np.zeros(5, np.uint8),
         "ts_ns": [100 * second, 95 * second, 50 * second, 0, None]},
        Metadata(kind="page_owner", clock_ns=100 * second))
    drawn = picture(made, AGE)
    assert {one.label: one.pages for one in drawn.categories if one.pages and one.role != "unseen"
            } == {"under 1 s": 1, "1 to 10 s": 1, "10 s to 1 min": 1, "1 to 10 min": 1,
                  "in use, not known": 1}


def test_an_unknown_key_and_a_source_without_places_are_said() -> None:
    with pytest.raises(UsageError, match="cannot group by 'colour'"):
        picture(machine(1).snapshot(), "colour")
    blind = Snapshot.from_columns({"pfn": [None], "order": [0]}, Metadata())
    with pytest.raises(PageownerError, match="where the pages are"):
        picture(blind)
    empty = Snapshot.from_columns({"pfn": np.zeros(0, np.uint64), "order": np.zeros(0, np.uint8)},
                                  Metadata(kind="page_owner", source="e.txt"))
    with pytest.raises(PageownerError, match=r"e\.txt: contains no allocation"):
        picture(empty)


def test_nodes_that_interleave_are_cut_where_they_do() -> None:
    both = (Stretch(0, "Normal", 0, 100), Stretch(1, "Normal", 40, 60))
    assert [(one.node, one.start, one.end) for one in disjoint(both)] == [
        (0, 0, 40), (1, 40, 60), (0, 60, 100)]
    assert disjoint((Stretch(0, "A", 5, 9),)) == (Stretch(0, "A", 5, 9),)


@pytest.mark.parametrize("order", range(9))
def test_the_curve_meets_every_cell_once_in_steps_of_one(order: int) -> None:
    side = 1 << order
    index = np.arange(side * side)
    x, y = hilbert(order, index)
    assert len(set(zip(x.tolist(), y.tolist(), strict=True))) == side * side
    assert (np.abs(np.diff(x)) + np.abs(np.diff(y)) == 1).all()
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, side - 1, 0)
    assert (hilbert_index(order, x, y) == index).all()


def test_the_curve_is_the_same_at_every_scale() -> None:
    x, y = hilbert(6, np.arange(1 << 12))
    coarse_x, coarse_y = hilbert(4, np.arange(1 << 8))
    assert (x[::16] >> 2 == coarse_x).all()
    assert (y[::16] >> 2 == coarse_y).all()


@pytest.mark.parametrize("order", ["row", "hilbert"])
@pytest.mark.parametrize(("width", "height"), [(58, 36), (178, 90), (1024, 1024), (7, 5)])
def test_every_cell_has_one_place_and_all_fit(order: str, width: int, height: int) -> None:
    zones = [Stretch(0, "DMA", 1, 4096), Stretch(0, "Normal", 4096, 300_000),
             Stretch(1, "Normal", 300_001, 777_777)]
    layout = fit(zones, width, height, order)
    assert layout.places.shape[0] == layout.rows[-1] <= height
    cells = [-(-zone.end // layout.frames) - zone.start // layout.frames for zone in zones]
    shown = layout.places[layout.places >= 0]
    assert sorted(shown.tolist()) == list(range(sum(cells)))
    for number, count in enumerate(cells):
        strip = layout.places[layout.rows[number]:layout.rows[number + 1]]
        assert np.count_nonzero(strip >= 0) == count


def test_more_zones_than_lines_are_still_all_drawn() -> None:
    zones = [Stretch(node, "Normal", node * 1000, node * 1000 + 1000) for node in range(40)]
    layout = fit(zones, 58, 16)
    assert layout.places.shape[0] == 40


def test_a_tebibyte_is_drawn_without_an_item_for_each_frame() -> None:
    frames, step = 1 << 28, 1 << 12
    first = np.arange(step, frames, step, dtype=np.uint64)
    zones = [{"node": node, "name": "Normal", "start_pfn": node * frames // 4,
              "spanned": frames // 4, "present": frames // 4, "managed": frames // 4}
             for node in range(4)]
    made = Snapshot.from_columns(
        {"pfn": first, "order": np.full(len(first), 10, np.uint8), "comm": ["a"] * len(first)},
        Metadata(kind="tracker", zones=zones, pageblock_order=9,
                 extra={"memory": {"held": pack(np.array([[0, 512]])), "free": []}}))
    tracemalloc.start()
    drawn = picture(made, "comm")
    layout = fit(drawn.stretches, 1024, 1024)
    cells = aggregate(drawn, layout.frames)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < frames  # a byte a frame would be too much
    assert {category.role: category.pages for category in drawn.categories if category.pages} == {
        "value": len(first) << 10, "held": 512, "free": frames - (len(first) << 10) - 512}
    assert (layout.frames, len(cells.code), int(cells.frames.sum())) == (256, 1 << 20, frames)
    assert np.bincount(cells.code).tolist() == [
        len(first) * 4, 0, 0, (1 << 20) - len(first) * 4 - 2, 2]


def test_squares_of_the_curve_are_as_large_as_fit() -> None:
    zones = [Stretch(0, "Normal", 0, 1 << 20)]
    layout = fit(zones, 1024, 1024, "hilbert")
    x, y = hilbert(10, np.arange(1 << 20))
    assert (layout.places[y, x] == np.arange(1 << 20)).all()
    # a square of 64 is too high, and so are two lines of squares of 32
    x, y = hilbert(4, np.arange(1 << 8))
    layout = fit([Stretch(0, "Normal", 0, 1 << 12)], 96, 60, "hilbert")
    assert (layout.frames, layout.rows) == (1, (0, 48))
    for square in range(16):
        top, left = square // 6 * 16, square % 6 * 16
        assert (layout.places[y + top, x + left] == np.arange(1 << 8) + (square << 8)).all()
