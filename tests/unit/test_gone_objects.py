"""Objects whose free was not seen: told by what is in their place since."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from pageowner.tracker.read import gone_objects
from pageowner.tracker.read.gone_objects import allocated_later, overlapped
from pageowner.tracker.read.maps import FILTERED, OWNED, RECORD, Span
from pageowner.tracker.read.objects import OBJECT, PERCPU, Objects


def followed(*given: tuple[int, int, int], cache: int = 1) -> Objects:
    """Objects by address, bytes asked for and time."""
    rows = np.zeros(len(given), OBJECT)
    address = np.array([of[0] for of in given], np.uint64)
    rows["requested"], rows["ts"] = [of[1] for of in given], [of[2] for of in given]
    rows["cache"] = cache
    return Objects(address, rows, 0, 1, 1024)


@pytest.mark.parametrize(("times", "gone"), [
    ((5, 7, 6, 5), [True, False, False, False]),
    ((9, 7, 6, 5), [False, True, True, False]),
    # what lay under one that is gone itself is gone as well
    ((6, 7, 5, 5), [True, False, True, False])])
def test_objects_that_a_younger_one_lies_over_are_gone(times: tuple[int, ...],
                                                       gone: list[bool]) -> None:
    """Two of 64 bytes where one of 256 was, and one that is whole; in any order."""
    of = [(0x1000, 250), (0x1040, 64), (0x1080, 64), (0x1100, 256)]
    objects = [(*one, ts) for one, ts in zip(of, times, strict=True)]
    assert overlapped(followed(*objects)).tolist() == gone
    assert overlapped(followed(*objects[::-1])).tolist() == gone[::-1]
    percpu = followed(*objects, cache=PERCPU)  # of each CPU, elsewhere
    assert not overlapped(percpu).any()


def test_neighbours_do_not_overlap() -> None:
    assert not overlapped(followed((0x1000, 64, 1), (0x1040, 0, 2), (0x1041, 1, 3))).any()
    assert not len(overlapped(followed()))


def test_objects_older_than_their_pages_are_gone() -> None:
    """A block of two pages at 10, one of one page at 13, in a span from 8 on; what is no owner's
    record, or too small a block, says nothing."""
    records = np.zeros(8, RECORD)
    records["ts"][[0, 2, 4, 5]], records["order"][2] = (90, 50, 95, 60), 1
    records["state"][[0, 2, 4, 5]] = OWNED, OWNED, FILTERED, OWNED
    pfns = np.array([13, 10, 11, 11, 12, 9, 100], np.uint64)
    born = np.array([59, 50, 49, 51, 1, 1, 1], np.uint64)
    spans = [Span(8, records), Span(16, unmapped)]
    assert allocated_later(spans, 8, pfns, born).tolist() == [
        True, False, True, False, False, False, False]
    assert not len(allocated_later(spans, 8, pfns[:0], born[:0]))


def unmapped() -> np.ndarray:
    raise AssertionError("a span without objects is mapped")


class Tracker:
    """A tracker whose table has these objects, and that does not know the direct map."""

    spans: tuple[Span, ...] = ()
    span_shift = 3
    facts: ClassVar[dict[str, int]] = {}

    def __init__(self, now: Objects) -> None:
        self.now = now


def test_those_that_are_in_the_table_yet_were_not_seen_freed(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gone_objects, "objects", lambda store: store.now)
    found = followed((0x1000, 64, 1), (0x1020, 64, 2), (0x1050, 64, 3), (0x2000, 64, 4))
    for now, stale in ((found, 2), (followed((0x1000, 64, 9), (0x1020, 64, 2)), 1),
                       (followed(), 0)):
        left, number = gone_objects.standing(Tracker(now), found)  # type: ignore[arg-type]
        assert left.address.tolist() == [0x1050, 0x2000]
        assert number == stale
    assert gone_objects.standing(Tracker(found), followed())[1] == 0  # type: ignore[arg-type]
