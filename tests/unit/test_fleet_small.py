"""The row of owners too small for rows of their own, in what is asked of a fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleets import WHEN, capture, pushed

from pageowner import Fleet, Snapshot
from pageowner.model.metadata import Metadata

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., Any]


def test_small_owners_are_no_owner_whatever_the_key(tmp_path: Path, cli: Cli) -> None:
    def machine(number: int, kernel: int) -> Any:
        """4 MiB of before tracking, and small owners, who have four times as much on kernel 2."""
        snapshot = Snapshot.from_columns(
            {"order": [10, 0, 2 * kernel - 2], "comm": [None, "a", "b"],
             "stack": [None, "f+0x1/0x2", "g+0x1/0x2"], "state": ["early", "owned", "owned"]},
            Metadata(page_size=4096))
        return capture(snapshot, f"h{kernel}{number}", kernel=str(kernel))

    store = pushed(tmp_path, [machine(number, kernel) for number in range(7) for kernel in (1, 2)])
    for key in ("comm", "stack", "order"):
        rows = Fleet(store).report(key, **WHEN).owners.to_pylist()
        assert [(row["small"], row["pages"], row["p50"]) for row in rows] == [
            (False, 14 * 1024, 1024), (True, 7 * 7, 2)], key
        rows = Fleet(store).diff(["kernel=1"], ["kernel=2"], key, **WHEN).owners.to_pylist()
        assert sorted((row["small"], row["change"], row["sure"]) for row in rows) == [
            (False, 0, False), (True, 3, False)], key
    when = ("--since", WHEN["since"], "--until", WHEN["until"], "--by", "comm")
    said = cli("fleet", "report", store, *when).out
    assert b"1 owner by comm" in said
    assert b"and owners too small for a row: 196 KiB" in said
