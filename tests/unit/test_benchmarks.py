"""What benchmarks say of their runs is so, and what cannot be measured is refused at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

PIPES = ("MemoryLeak", "host: pipes leaks")
FILLS = ("MemoryLeakFillsMemory", "host: leaks")


@pytest.mark.parametrize(("seen", "wrong"), [
    ({PIPES: {"pending": 920.0, "firing": 1520.0}, FILLS: {"firing": 1500.0},
      ("MemoryLeak", "host: huge pages leaks"): {"pending": 30.0},
      ("PageownerHooksMissing", "host"): {"firing": 900.0}}, []),
    ({}, ["no alert of the leak fired"]),
    ({PIPES: {"firing": 1520.0}, FILLS: {"firing": 700.0}},
     ["MemoryLeakFillsMemory fired early: host: leaks"]),
    ({PIPES: {"firing": 1520.0}, ("MemoryLeak", "host: huge pages leaks"): {"firing": 1000.0}},
     ["fired of another leak: host: huge pages leaks"]),
])
def test_an_alert_of_a_leak_that_is_none_is_wrong(
        seen: dict[tuple[str, str], dict[str, float]], wrong: list[str]) -> None:
    import prometheus

    assert prometheus.wrong(seen, 900) == wrong


@pytest.mark.parametrize(("names", "said"), [
    ("memo,plain", "build: --ways needs 'nothing', with which the others are compared"),
    ("nothing,mem", "build: no way 'mem': there are nothing, memo, plain, objects, all"),
])
def test_what_cannot_be_compared_is_refused_before_anything_is_built(
        names: str, said: str) -> None:
    import build

    with pytest.raises(SystemExit) as refused:
        build.ways_of(names)
    assert refused.value.code == said
