"""Leaks in bursts are found when seen three times; who is no leak is told which rule it fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from test_leaks import BREATHES, CACHE, LEAK, Machine, judged

from pageowner.analysis.filters import rate_per_hour
from pageowner.analysis.leak_rules import FAILED, evidence
from pageowner.errors import UsageError
from pageowner.report.leak_suspects import growth, why_no_leak

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MANY = 2560  # pages: 10 MiB


def bursts(*seconds: float, lives: float = 1e9, noise: bool = True) -> dict[str, Any]:
    """A leak of 10 MiB at each of ``seconds``, as judged from 13 looks in a minute."""
    machine = Machine()
    if noise:
        machine.noise()
    machine.add(LEAK, np.repeat(seconds, MANY), lives)
    found: dict[str, Any] = judged(machine)[LEAK]
    return found


@pytest.mark.parametrize("seconds", [(4, 13, 22, 31, 40, 49), (5, 25, 45), (-4, 17, 40),
                                     (2, 6, 20, 33, 47)])
def test_a_leak_in_bursts_is_found_when_it_was_seen_three_times(seconds: tuple[int, ...]) -> None:
    found = bursts(*seconds)
    assert (found["kind"], found["failed"]) == ("leak", [])
    assert found["bursts"] == len(seconds)
    assert found["stayed"] == found["settled"] == MANY * len(seconds)
    assert 0.6 < found["confidence"] < 0.9
    assert found["rate"] > 0


@pytest.mark.parametrize(("seconds", "failed", "words"), [
    ((25.0,), "few_bursts", "grew once, not 3 times"),
    ((14.0, 31.0), "few_bursts", "2 bursts, not 3 times"),
    ((1.0, 4.0, 7.0), "stopped", "3 bursts, then stopped"),
    ((40.0, 44.0, 48.0), "late", "3 bursts, began late")])
def test_other_bursts_are_suspects_and_told_why(seconds: tuple[float, ...], failed: str,
                                                words: str) -> None:
    found = bursts(*seconds)
    assert found["kind"] == "grows"
    assert failed in found["failed"]
    assert words in why_no_leak(found)
    assert found["stayed"] == MANY * len(seconds)


def test_bursts_that_are_freed_are_no_leak() -> None:
    found = bursts(*range(0, 60, 8), lives=19)
    assert found["kind"] == "grows"
    assert found["failed"] == ["freed"]
    assert why_no_leak(found).endswith("% was freed")


def test_growth_in_half_of_the_time_is_a_suspect_for_that() -> None:
    machine = Machine()
    machine.add(LEAK, np.arange(-10, 20, 0.01), 1e9)
    found = judged(machine)[LEAK]
    assert found["failed"] == ["uneven"]
    assert why_no_leak(found) == "grew in 50 % of the time"


def test_noise_gives_no_leaks_in_bursts() -> None:
    """Stacks whose pages come in waves and live for any time up to half of the watch."""
    for seed in range(40):
        machine = Machine()
        random = machine.random = np.random.default_rng(seed)
        machine.noise()
        waves = np.repeat(random.uniform(-60, 60, 40), random.integers(50, 600, 40))
        machine.add(CACHE.replace("cache", "other"), waves, random.exponential(12, len(waves)))
        assert [row for row in judged(machine).values() if row["kind"] == "leak"] == [], seed


def steps(*values: float) -> tuple[bool, tuple[str, ...]]:
    """Whether a series without ages leaks, and what it fails."""
    found = evidence(np.arange(len(values), dtype=float), np.array(values, float), None, None, 10)
    return not found.failed, found.failed


def test_bursts_are_seen_in_sources_without_ages() -> None:
    assert steps(0, 0, 100, 100, 100, 200, 200, 200, 300, 300) == (True, ())
    assert steps(0, 0, 0, 0, 100, 100, 100, 100, 100, 100) == (False, ("few_bursts",))
    # it falls as much as it rises
    assert "freed" in steps(0, 0, 100, 0, 100, 200, 100, 200, 200, 110)[1]
    assert set(FAILED) >= set(steps(5, 5, 5, 5)[1])


def test_growth_is_drawn_from_the_first_look_to_the_last() -> None:
    assert growth([0, 100]) == "▁█"
    assert growth(list(range(1000))) == "▁▁▂▂▃▄▄▅▆▆▇█"
    assert growth([7, 7, 7]) == "▁▁▁"


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    machine = Machine()
    machine.noise()
    machine.add(LEAK, np.repeat([4, 13, 22, 31, 40, 49], MANY), 1e9)
    machine.add("shmem_alloc_folio+0x1/0x2\nodd\x1b[2J+0x1/0x2", np.repeat([9.0], MANY), 1e9)
    paths = []
    for look in range(13):
        paths.append(tmp_path / f"{look:02}.parquet")
        machine.at(look * 5).save(paths[-1])
    return paths


def test_suspects_are_named_with_what_stays_and_why(
        cli: Callable[..., tuple[int, bytes, bytes]], series: list[Path]) -> None:
    status, out, _ = cli("leaks", *series)
    text = out.decode()
    assert status == 0
    assert ", in 6 bursts\n" in text
    head, row = text[text.index("1 suspect: it grew"):].split("\n")[1:3]
    assert head.split()[:3] == ["GAINED", "STAYS", "GROWTH"]
    assert row.startswith("10 MiB  10 MiB (100 %)  ")
    assert "grew once, not 3 times" in row
    assert "shmem_alloc_folio" in row
    assert "\x1b" not in text
    assert BREATHES.partition("+")[0] not in text
    suspect = json.loads(cli("leaks", *series, "--json")[1])["owners"][-1]
    assert (suspect["kind"], suspect["failed"]) == ("grows", ["few_bursts"])
    assert suspect["stayed_bytes"] == suspect["settled_bytes"] == 10 << 20


def test_fail_is_for_leaks_not_for_suspects(
        cli: Callable[..., tuple[int, bytes, bytes]], series: list[Path]) -> None:
    for words, expected in ((["--fail"], 3), (["--fail-over", "1GiB/h"], 3),
                            (["--fail-over", "1TiB/d"], 0), (["--fail-over", "10MiB/s"], 0),
                            (["--fail", "--stack", "shmem*"], 0), ([], 0)):
        status, out, err = cli("leaks", *series, *words)
        assert (status, bool(err)) == (expected, bool(expected)), words
        assert out
    assert cli("leaks", *series, "--fail-over", "1GiB/h")[2] == (
        b"pageowner: 1 owner leaked more than 1GiB/h\n")
    status, out, err = cli("leaks", *series, "--fail-over", "fast")
    assert (status, out) == (2, b"")
    assert b"is not a rate" in err


def test_rates_have_units_of_time() -> None:
    assert rate_per_hour("10MiB") == rate_per_hour("10M/h") == 10 << 20
    assert rate_per_hour("1KiB/s") == rate_per_hour("60K/min") == 3600 << 10
    assert rate_per_hour("24K/d") == 1 << 10
    for wrong in ("10MiB/week", "/h", "1/1", ""):
        with pytest.raises(UsageError, match="not a rate"):
            rate_per_hour(wrong)
