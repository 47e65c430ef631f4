"""Which files of a fleet's store hold the captures of a time: each capture once, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleets import WHEN, capture, pushed

from pageowner import Fleet, PageownerError, Snapshot

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("longest", ["400000d", "9999999h", "999999999999999d"])
def test_a_time_longer_than_since_1970_is_for_ever(few: Snapshot, tmp_path: Path, longest: str,
                                                   ) -> None:
    """A year of less than four digits comes after 2026 as text."""
    fleet = Fleet(pushed(tmp_path, [capture(few, "a", share=0.5)]))
    when = {**WHEN, "since": longest}
    assert fleet.expire(longest) == 0
    assert fleet.report("comm", **when).machines == 1
    with pytest.raises(PageownerError, match="no captures from 1970-01-01 00:00 UTC to 2026-12-20"):
        Fleet(tmp_path / "nothing").report("comm", **when)
