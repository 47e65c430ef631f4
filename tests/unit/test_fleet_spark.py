"""One text, two engines: a Spark cluster gives the rows that DuckDB gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import notebooks
import pytest
import spark_cluster
from fleets import WHEN, capture, pushed

from pageowner import Filter, Fleet, Snapshot
from pageowner.fleet.compaction import compact
from pageowner.fleet.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pageowner.fleet.answers import FleetAnswer

pytestmark = pytest.mark.skipif(bool(spark_cluster.missing()), reason=spark_cluster.missing())

EVIL = "it's\\'; DROP \"x\" --\u202e"


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with spark_cluster.cluster(tmp_path_factory.mktemp("spark"),
                               java=spark_cluster.BRIEF) as address:
        yield address
        from pyspark.sql import SparkSession

        if session := SparkSession.getActiveSession():
            session.stop()


@pytest.fixture(scope="module")
def store(few: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Machines whose captures are partly compacted, partly not, and grow, on two kernels."""
    folder = tmp_path_factory.mktemp("fleet")
    captures = [capture(few, f"db{number}" if number else EVIL, hour=2 * hour, seed=number * 9,
                        share=0.3 + (hour + number % 2) / 25, kernel=f"6.12.{number % 2}",
                        labels={"rack": str(number % 2), "note": EVIL}, least=1 << 12)
                for hour in range(4) for number in range(4)]
    found = pushed(folder, captures[:12])
    compact(Store(str(found)), 2_000_000_000)
    return pushed(folder, captures[12:])


def rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: float(f"{value:.9g}") if isinstance(value, float) else value
             for name, value in row.items()} for row in rows]


def same(name: str, ours: FleetAnswer, theirs: FleetAnswer) -> None:
    assert ours.owners.num_rows, name
    assert ours.owners.schema == theirs.owners.schema, name
    assert rounded(ours.owners.to_pylist()) == rounded(theirs.owners.to_pylist()), name
    assert (ours.machines, ours.captures, ours.notes) == (
        theirs.machines, theirs.captures, theirs.notes)


def test_both_engines_give_the_same_rows(store: Path, master: str) -> None:
    small = {"where": Filter(comm="*", order=0)}
    questions: dict[str, Any] = {
        "report": lambda fleet: fleet.report("stack,comm", least="4KiB", **WHEN),
        "diff": lambda fleet: fleet.diff(["kernel=6.12.0"], ["kernel=6.12.1"], "module,comm",
                                         **small, **WHEN),
        "who": lambda fleet: fleet.who_else(machines=["rack=0"], where=Filter(stack="*alloc*"),
                                            **WHEN)}
    duck, spark = Fleet(store), Fleet(store, engine=master)
    for name, ask in questions.items():
        ours, theirs = ask(duck), ask(spark)
        same(name, ours, theirs)
    sql = ("SELECT host, min(day || hour) AS first, max(day || hour) AS last, count(*) AS n,"
           " sum(pages) AS pages FROM owners GROUP BY host ORDER BY host")
    ours = duck.query(sql, **WHEN).to_pylist()
    assert ours == spark.query(sql, **WHEN).to_pylist()
    assert ours[-1]["host"] == EVIL


def test_the_notebook_reads_what_is_compacted(store: Path, master: str,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE", str(store))
    monkeypatch.setenv("MASTER", master)
    assert notebooks.run("fleet-spark.ipynb")["kernels"] == [("6.12.0", 2, 6), ("6.12.1", 2, 6)]


def test_both_engines_find_the_same_leaks(master: str, big: Snapshot, sample61: Snapshot,
                                          tmp_path: Path) -> None:
    import fleet_made_up  # of benchmarks/

    fleet_made_up.write(Store(str(tmp_path)), machines=4, days=2, dumps=(big, sample61))
    ours, theirs = (Fleet(tmp_path, engine=engine).leaks(watched="12h", **WHEN)
                    for engine in ("duckdb", master))
    same("leaks", ours, theirs)
