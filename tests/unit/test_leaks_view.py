"""``pageowner leaks`` on paper and in JSON: what is found is shown or counted."""

from __future__ import annotations

from typing import Any

from kept_paper import KeptPaper

from pageowner.analysis.leaks import Watched
from pageowner.report import leaks_view

LEAK, PART = "alloc+0x1/0x2\nopen+0x1/0x2", "alloc+0x1/0x2\ndentry+0x1/0x2"
WATCHED = Watched("box", 60.0, 7, 174, ["stack"], 4096)


def row(kind: str, stack: str = LEAK, **more: Any) -> dict[str, Any]:
    """One that gained 1 MiB."""
    return {"kind": kind, "stack": stack, "note": None, "program": None, "failed": [], "tasks": [],
            "pages": 256, "gained": 256, "came": 256, "rate": 256.0, "rate_low": 256.0,
            "rate_high": 256.0, "settled": 256, "stayed": 256, "p": 0.01, "tau": 1.0,
            "survival": 1.0, "steady": 1.0, "bursts": 0, "confidence": 0.99, "series": [0, 256],
            "settled_series": [0, 256],
            **more}


def test_cache_that_is_not_shown_is_counted() -> None:
    paper = KeptPaper(100)
    leaks_view.draw([row("leak"), *[row("reclaimable")] * 3], WATCHED, 1, False, paper)
    assert paper.lines[-1] == "and 2 more owners: 2 MiB an hour"


def test_programs_get_as_many_owners_of_each_kind_as_they_ask_for() -> None:
    rows = [*[row("leak")] * 2, *[row("reclaimable")] * 2, row("grows")]
    for top, kinds in ((None, [each["kind"] for each in rows]),
                       (1, ["leak", "reclaimable", "grows"])):
        found = leaks_view.to_json(rows, WATCHED, top).document["owners"]
        assert [owner["kind"] for owner in found] == kinds


def test_json_has_what_was_joined_into_a_leak_and_how_many_were_watched() -> None:
    joined = row("leak", **{"with": [{"stack": PART, "gained": 64}]})
    found = leaks_view.to_json([joined, row("grows")], WATCHED).document
    assert [owner["with"] for owner in found["owners"]] == [
        [{"stack": PART.split("\n"), "gained": 64}], []]
    assert found["watched_owners"] == 174
