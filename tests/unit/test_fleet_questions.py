"""Questions to a fleet: what is planted is found, what is counted is right, nothing twice."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import notebooks
import pytest
from fleets import START, WHEN, capture, pushed

from pageowner import Filter, Fleet, PageownerError, Snapshot, UsageError
from pageowner.fleet import layout
from pageowner.fleet.compaction import compact, expire
from pageowner.fleet.layout import digits
from pageowner.fleet.reading import find
from pageowner.fleet.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    Cli = Callable[..., Any]

NOW = START + 30 * 86400


@pytest.fixture(scope="module")
def hosts(few: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """Nine machines, three hours each, on two kernels."""
    captures = [capture(few, f"db{number}", hour=hour, share=0.3 + number / 20,
                        seed=number * 7 + hour, kernel=f"6.12.{95 + number % 2}",
                        labels={"rack": str(number % 3)}, least=0)
                for number in range(9) for hour in range(3)]
    return pushed(tmp_path_factory.mktemp("hosts"), captures), captures


def pages_of(captures: list[Any], key: str) -> dict[str, Counter[Any]]:
    """By value of a column, the pages of each host's last capture."""
    last = {one.host: one for one in sorted(captures, key=lambda one: one.taken)}
    found: dict[Any, Counter[str]] = defaultdict(Counter)
    for host, one in last.items():
        for row in one.owners.to_pylist():
            if row["pages"]:
                found[row[key]][host] += row["pages"]
    return found


def test_a_report_counts_what_plain_python_counts(hosts: tuple[Path, list[Any]]) -> None:
    store, captures = hosts
    found = Fleet(store).report("comm", **WHEN)
    assert (found.machines, found.page_size) == (9, 4096)
    expected = pages_of(captures, "comm")
    rows = {row["comm"]: row for row in found.owners.to_pylist()}
    assert set(rows) == set(expected)
    for name, row in rows.items():
        values = sorted([*expected[name].values(), *[0] * (9 - len(expected[name]))])
        assert (row["pages"], row["machines"]) == (sum(values), len(expected[name])), name
        assert (row["p50"], row["p99"], row["most"]) == (values[4], values[8], values[8])
    assert found.owners["pages"].to_pylist() == sorted(found.owners["pages"].to_pylist(),
                                                       reverse=True)


def test_filters_and_machines_choose_as_everywhere(hosts: tuple[Path, list[Any]]) -> None:
    store, captures = hosts
    chosen = [one for one in captures if one.host in ("db0", "db3", "db6")]
    pages = sum(row["pages"] for host in ("db0", "db3", "db6")
                for row in max((one for one in chosen if one.host == host),
                               key=lambda one: one.taken).owners.to_pylist()
                if row["comm"] and row["comm"].lower().startswith("k"))
    found = Fleet(store).report("comm", machines=["rack=0"], where=Filter(comm="K*"), **WHEN)
    assert found.machines == 3
    assert sum(found.owners["pages"].to_pylist()) == pages
    assert not Fleet(store).report("comm", where=Filter(comm="nobody"), **WHEN).owners.num_rows
    two = Fleet(store).report(machines=["host=db1", "host=db2", "kernel=6.12.9*"], **WHEN)
    assert two.machines == 2


@pytest.mark.parametrize(("words", "said"), [
    ({"by": "pid"}, "cannot group"), ({"machines": ["rock=1"]}, "did you mean 'rack'"),
    ({"machines": ["rack"]}, "KEY=PATTERN"), ({"where": Filter(pid=1)}, "--pid"),
    ({"where": Filter(older="5m")}, "10m"), ({"since": "2026-12-21T00:00"}, "not before")])
def test_wrong_words_are_told(hosts: tuple[Path, list[Any]], words: dict[str, Any],
                              said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        Fleet(hosts[0]).report(**{**WHEN, **words})


@pytest.mark.parametrize("name", ["localhost", "local:7077", "duck"])
def test_what_is_no_engine_is_told(hosts: tuple[Path, list[Any]], name: str) -> None:
    with pytest.raises(UsageError, match="is no engine; give duckdb"):
        Fleet(hosts[0], engine=name).report(**WHEN)


@pytest.mark.parametrize("memory", ["4", "half", "1KiB"])
def test_memory_that_is_no_size_or_too_little_is_told(hosts: tuple[Path, list[Any]], memory: str,
                                                      ) -> None:
    with pytest.raises(UsageError, match=r"is not a size|16 MiB"):
        Fleet(hosts[0], memory=memory).report("comm", **WHEN)
    fleet = Fleet(hosts[0], memory="300MiB")
    assert fleet.query("SELECT current_setting('memory_limit') AS m", **WHEN).to_pylist() == [
        {"m": "300.0 MiB"}]


def test_ages_do_not_choose_what_leaks(hosts: tuple[Path, list[Any]], cli: Cli) -> None:
    """The rules take ages of their own: others would be heeded by nothing."""
    with pytest.raises(UsageError, match="--older"):
        Fleet(hosts[0]).leaks(where=Filter(older="1h"), **WHEN)
    done = cli("fleet", "leaks", str(hosts[0]), "--newer", "1h")
    assert (done.status, b"--newer" in done.err) == (2, True)


def test_a_machine_that_stands_out_is_named(few: Snapshot, tmp_path: Path) -> None:
    captures = [capture(few, f"h{number}", seed=number, share=0.2, least=0) for number in range(20)]
    captures += [capture(few, "odd", seed=99, share=1.0, least=0)]
    found = Fleet(pushed(tmp_path, captures)).report("subsystem", least="16KiB", **WHEN)
    out = {one["host"] for row in found.owners.to_pylist() for one in row["outliers"]}
    assert out == {"odd"}


def test_planted_leaks_are_found_and_the_driver_comes_first(
        big: Snapshot, sample61: Snapshot, tmp_path: Path, cli: Cli) -> None:
    import fleet_made_up

    planted = fleet_made_up.write(Store(str(tmp_path)), machines=120, days=4, seed=3,
                                  dumps=(big, sample61))
    assert (len(planted.leaking), len(planted.bad) > 3) == (20, True)
    fleet = Fleet(tmp_path)
    found = fleet.leaks(**WHEN).owners.to_pylist()
    leaks = [row for row in found if row["kind"] == "leak"]
    by_stack = {row["host"] for row in leaks if row["stack_id"] == digits(planted.leak_stack)}
    assert by_stack >= set(planted.leaking)
    assert len(leaks) <= len(planted.leaking) + 1
    assert all(200 < row["rate"] < 320 for row in leaks if row["host"] in planted.leaking)
    first, *_ = fleet.diff(["driver=2.0"], ["driver=2.1"], **WHEN).owners.to_pylist()
    assert (first["stack_id"], first["sure"]) == (digits(planted.driver_stack), True)
    have = fleet.who_else(where=Filter(stack="nicdrv_*"), **WHEN)
    assert set(have.owners["host"].to_pylist()[:len(planted.bad)]) == set(planted.bad)
    done = cli("fleet", "leaks", str(tmp_path), "--fail", "--since", WHEN["since"], "--until",
               WHEN["until"])
    assert done.status == 3


def test_diff_counts_pairs_of_machines(few: Snapshot, tmp_path: Path) -> None:
    captures = [capture(few, f"old{number}", seed=number, share=0.3, kernel="1", least=0)
                for number in range(5)]
    captures += [capture(few, f"new{number}", seed=number, share=0.6, kernel="2", least=0)
                 for number in range(4)]
    store = pushed(tmp_path, captures)
    found = Fleet(store).diff(["kernel=1"], ["kernel=2"], "comm", **WHEN)
    by = pages_of(captures, "comm")
    for row in found.owners.to_pylist():
        old = [by[row["comm"]][f"old{number}"] for number in range(5)]
        new = [by[row["comm"]][f"new{number}"] for number in range(4)]
        more = sum((b > a) + (b == a) / 2 for a in old for b in new) / 20
        assert (row["before"], row["after"]) == (sum(old) / 5, sum(new) / 4)
        assert row["more"] == pytest.approx(more), row
    with pytest.raises(UsageError, match="both sides"):
        Fleet(store).diff(["kernel=1"], ["host=old0"], **WHEN)
    with pytest.raises(UsageError, match="no machine matches kernel=3"):
        Fleet(store).diff(["kernel=1"], ["kernel=3"], **WHEN)


def test_owners_without_pages_of_the_age_do_not_count(few: Snapshot, tmp_path: Path) -> None:
    """Three machines have no page that is a day old, three no other."""
    captures = [capture(few, f"{kernel}{number}", clock_h=hours, kernel=kernel, least=0)
                for kernel, hours in (("new", 0), ("aged", 48)) for number in range(3)]
    fleet, aged = Fleet(pushed(tmp_path, captures)), Filter(older="1d")
    found = fleet.report("subsystem", where=aged, **WHEN).owners.to_pylist()
    assert {row["machines"] for row in found} == {3}
    assert sum(row["pages"] for row in found) == 3 * few.pages
    assert not any(row["p50"] for row in found)
    young = fleet.report("subsystem", where=Filter(newer="1d"), **WHEN).owners.to_pylist()
    assert [row["pages"] for row in young] == [row["pages"] for row in found]
    rows = fleet.who_else(where=aged, **WHEN).owners.to_pylist()
    assert [(row["host"], row["captures"], row["pages"]) for row in rows] == [
        (f"aged{number}", 1, few.pages) for number in range(3)]
    changes = fleet.diff(["kernel=new"], ["kernel=aged"], "subsystem", where=aged, **WHEN)
    assert {(row["had"], row["have"], row["more"], row["before"])
            for row in changes.owners.to_pylist()} == {(0, 3, 1.0, 0.0)}


def test_pages_of_different_sizes_are_counted_in_the_smallest(few: Snapshot, tmp_path: Path,
                                                              ) -> None:
    """Two machines that do the same, and leak all the time."""
    from dataclasses import replace

    import numpy as np
    import pyarrow as pa

    clock, rows = few.meta.clock_ns or 0, few.table.num_rows
    born = clock + np.random.default_rng(0).integers(-3600, 8 * 3600, rows) * 10**9
    table = few.table.set_column(few.table.column_names.index("ts_ns"), "ts_ns",
                                 pa.array(born.astype("uint64")))
    captures = [capture(Snapshot(table.filter(pa.array(born <= clock + hour * 3600 * 10**9)),
                                 replace(few.meta, page_size=size)), host, kernel=host, hour=hour,
                        least=0)
                for host, size in (("small", 1 << 12), ("large", 1 << 16)) for hour in range(9)]
    fleet = Fleet(pushed(tmp_path, captures))
    by = pages_of(captures, "comm")
    report = fleet.report("comm", least="1KiB", **WHEN)
    assert (report.page_size, {row["comm"]: row["pages"] for row in report.owners.to_pylist()}) == (
        4096, {name: hosts["small"] + 16 * hosts["large"] for name, hosts in by.items()})
    who = fleet.who_else(where=Filter(comm="*"), **WHEN).owners.to_pylist()
    assert [row["host"] for row in who] == ["large", "small"]
    assert who[0]["pages"] == 16 * who[1]["pages"]
    for row in fleet.diff(["kernel=small"], ["kernel=large"], "comm", **WHEN).owners.to_pylist():
        assert row["after"] == 16 * row["before"]
    leaks = fleet.leaks("comm", watched="8h", least="4KiB", **WHEN).owners.to_pylist()
    rates = {(row["host"], row["comm"]): (row["rate"], row["gained"]) for row in leaks}
    assert any(host == "small" for host, _ in rates)
    for (host, name), figures in rates.items():
        if host == "small":
            assert rates["large", name] == pytest.approx([16 * figure for figure in figures])


def test_a_task_of_any_name_is_apart_from_rows_without_one(few: Snapshot, tmp_path: Path) -> None:
    """In joins something stands in for null; no task's name is that."""
    import pyarrow as pa

    names = ["(nothing)" if name else None for name in few.table["comm"].to_pylist()]
    names[::2] = [None] * len(names[::2])
    place = few.table.column_names.index("comm")
    table = few.table.set_column(place, "comm", pa.array(names).dictionary_encode().cast(
        few.table.schema.field("comm").type))
    captures = [capture(Snapshot(table, few.meta), f"h{number}", share=0.1, least=0, seed=number)
                for number in range(8)]
    captures.append(capture(Snapshot(table, few.meta), "odd", least=0))
    found = Fleet(pushed(tmp_path, captures)).report("comm", least="4KiB", **WHEN)
    assert {row["comm"]: row["outliers"] for row in found.owners.to_pylist()} == {
        name: [{"host": "odd", "pages": pages["odd"]}]
        for name, pages in pages_of(captures, "comm").items()}


def answers(store: Path) -> list[Any]:
    fleet = Fleet(store)
    return [fleet.report("stack,comm", **WHEN).owners.to_pylist(),
            fleet.who_else(where=Filter(comm="*"), **WHEN).owners.to_pylist(),
            fleet.query("SELECT count(*), sum(pages) FROM owners", **WHEN).to_pylist()]


def test_compaction_changes_no_answer_and_counts_nothing_twice(few: Snapshot, tmp_path: Path,
                                                               ) -> None:
    captures = [capture(few, f"db{number}", hour=hour, seed=number + hour, share=0.5)
                for number in range(4) for hour in range(2)]
    store = pushed(tmp_path, captures)
    before = answers(store)
    backup = {path: path.read_bytes() for path in store.rglob("*.parquet")}
    done = compact(Store(str(store)), NOW)
    assert (done.hours, done.captures, done.removed) == (2, 8, 0)
    assert answers(store) == before  # both kinds of file are there
    for path in store.rglob("owners.parquet"):
        assert find(Store(str(store)), START, NOW).compacted == 2, path
    # as if it was long ago
    assert compact(Store(str(store)), NOW * 2).removed == 8 + len(
        [path for path in backup if "stacks" in str(path)])
    assert not list((store / layout.INCOMING).rglob("*.parquet"))
    assert answers(store) == before
    # a pusher that heard nothing of its success sends the same again, and one comes late
    again = next(path for path in backup if "owners" in str(path))
    again.write_bytes(backup[again])
    assert answers(store) == before
    pushed(tmp_path, [capture(few, "late", hour=0.5, share=0.5)])
    after = answers(store)
    assert after[2][0]["sum(pages)"] > before[2][0]["sum(pages)"]
    assert compact(Store(str(store)), NOW).captures == 1
    assert answers(store) == after


def test_a_compaction_that_is_killed_at_any_point_loses_nothing(
        few: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    store = pushed(tmp_path, [capture(few, f"db{number}", hour=hour, seed=number, share=0.5)
                              for number in range(3) for hour in range(2)])
    before = answers(store)
    calls = 0

    def dying(name: str) -> Any:
        real = getattr(Store, name)

        def call(self: Store, *words: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == limit:
                raise Killed
            return real(self, *words)
        return call

    ended = False
    for limit in range(1, 40):
        calls = 0
        with monkeypatch.context() as patched:
            for name in ("put", "delete", "get"):
                patched.setattr(Store, name, dying(name))
            try:
                compact(Store(str(store)), NOW * 2)
                ended = True
            except Killed:
                pass
        assert answers(store) == before, limit
        if ended and not list((store / layout.INCOMING).rglob("*.parquet")):
            break  # nothing is left to do, and so nothing to be killed in
    else:
        pytest.fail("something is left to do")


def test_hours_that_are_not_over_are_left_alone(few: Snapshot, tmp_path: Path) -> None:
    store = pushed(tmp_path, [capture(few, "a", hour=0), capture(few, "a", hour=1)])
    assert compact(Store(str(store)), START + 3600 * 1.5).captures == 1


def test_old_days_are_removed_and_no_other(few: Snapshot, tmp_path: Path) -> None:
    store = pushed(tmp_path, [capture(few, "a", hour=24 * day) for day in range(4)])
    compact(Store(str(store)), START + 2 * 86400)
    assert expire(Store(str(store)), 86400, START + 3 * 86400) == 4  # two days, both forms
    assert Store(str(store)).days(layout.INCOMING) == ["2026-11-22", "2026-11-23"]
    assert Store(str(store)).days(layout.OWNERS) == []


def test_files_of_an_older_version_lack_columns_and_count(few: Snapshot, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    old, new = (capture(few, host, share=0.5) for host in ("old", "new"))
    store = pushed(tmp_path, [old, new])
    path, = store.rglob(f"owners/**/{digits(old.number)}.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["container", "clock_ahead_s", "older_28d"]),
                   path)
    assert Fleet(store).report(**WHEN).machines == 2
    pages = sum(old.owners["pages"].to_pylist()) + sum(new.owners["pages"].to_pylist())
    for _ in range(2):
        found = Fleet(store).query("SELECT sum(pages) AS pages, count(container) AS c,"
                                   " count(older_28d) AS o FROM owners", **WHEN).to_pylist()[0]
        assert found["pages"] == pages
        assert 0 < found["o"] < old.owners.num_rows + new.owners.num_rows
        compact(Store(str(store)), NOW * 2)


def test_captures_of_a_newer_version_are_told(few: Snapshot, tmp_path: Path) -> None:
    store = pushed(tmp_path, [capture(few, "a", share=0.5)])
    (store / "v2/owners").mkdir(parents=True)
    assert any("newer version (v2)" in note for note in Fleet(store).report(**WHEN).notes)


def test_an_empty_store_and_a_wrong_one_are_told(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(PageownerError, match="no captures from 2026-11-20 00:00 UTC"):
            Fleet(place).report(**WHEN)
    with pytest.raises(PageownerError, match="cannot open"):
        Fleet("ftp://host/x").report(**WHEN)


def test_two_machines_of_one_name_count_apart(few: Snapshot, tmp_path: Path) -> None:
    captures = [capture(few, "twin", hour=hour + place / 10, boot=f"b{place}", seed=place,
                        machine=f"id{place}", share=0.5, least=0)
                for hour in range(3) for place in range(2)]
    found = Fleet(pushed(tmp_path, captures)).report("comm", **WHEN)
    assert found.machines == 2
    assert found.notes == ["2 machines are named twin at the same time; each counts by itself"]
    last = captures[-2:]
    assert sum(found.owners["pages"].to_pylist()) == sum(
        sum(one.owners["pages"].to_pylist()) for one in last)


def test_a_machine_that_was_reinstalled_is_one_machine(few: Snapshot, tmp_path: Path) -> None:
    captures = [capture(few, "box", hour=hour, boot=f"b{hour // 3}", machine=f"id{hour // 3}",
                        share=0.5) for hour in range(6)]
    found = Fleet(pushed(tmp_path, captures)).report(**WHEN)
    assert found.machines == 1
    assert "box was reinstalled: 2 machine ids" in found.notes[0]


def test_tracking_that_began_anew_is_another_series_of_the_same_machine(
        few: Snapshot, tmp_path: Path) -> None:
    fleet = Fleet(pushed(tmp_path, [capture(few, "box", hour=hour, share=0.5, since=1 + hour // 3)
                                    for hour in range(6)]))
    assert (fleet.report(**WHEN).machines, fleet.report(**WHEN).notes) == (1, [])
    assert fleet.query("SELECT count(DISTINCT series) AS n FROM captures", **WHEN).to_pylist() == [
        {"n": 2}]


def test_clocks_that_are_ahead_are_told_and_their_captures_found(few: Snapshot, tmp_path: Path,
                                                                 ) -> None:
    import time

    hours = (time.time() + 5 * 3600 - START) / 3600
    store = pushed(tmp_path, [capture(few, "fast", hour=hours, share=0.5)])
    found = Fleet(store).report(since="1d")
    assert found.machines == 1
    assert found.notes == [
        "clocks that are ahead: 1 machine, such as fast, with captures from the future"]


def test_sql_reaches_the_tables_and_nothing_else(hosts: tuple[Path, list[Any]], tmp_path: Path,
                                                 ) -> None:
    fleet = Fleet(hosts[0])
    assert fleet.query("SELECT count(*) AS n FROM captures", **WHEN).to_pylist() == [{"n": 27}]
    assert fleet.query("SELECT count(*) AS n FROM owners o JOIN stacks USING (stack_id)"
                       " WHERE stack IS NULL", **WHEN).to_pylist() == [{"n": 0}]
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for sql in (f"SELECT * FROM read_csv('{secret}')", f"SELECT * FROM '{secret}'",
                f"SELECT * FROM read_text('{secret}')", f"SELECT * FROM glob('{tmp_path}/*')"):
        with pytest.raises(PageownerError):
            fleet.query(sql, **WHEN)
    for sql in (f"COPY (SELECT 1) TO '{tmp_path / 'out'}'", "SET memory_limit = '1GB'",
                "ATTACH 'x'", "SELECT 1; SELECT 2"):
        with pytest.raises(UsageError):
            fleet.query(sql, **WHEN)
    assert not (tmp_path / "out").exists()


EVIL = "\x1b[31mred\x1b]0;title\x07\u202eevil';DROP TABLE owners;--"


def test_hostile_names_are_inert_in_every_output(few: Snapshot, tmp_path: Path, cli: Cli) -> None:
    import pyarrow as pa

    table = few.table.set_column(
        few.table.column_names.index("comm"), "comm",
        pa.array([EVIL] * few.table.num_rows).dictionary_encode().cast(
            few.table.schema.field("comm").type))
    evil = Snapshot(table, few.meta)
    store = str(pushed(tmp_path, [
        capture(evil, EVIL, hour=hour, share=0.5, kernel=f"{EVIL}{hour % 2}",
                labels={"k": EVIL}) for hour in range(6)]))
    when = ("--since", WHEN["since"], "--until", WHEN["until"])
    for words in (["report", store, "--by", "comm"], ["report", store, "--comm", EVIL],
                  ["leaks", store, "--watched", "1h", "--by", "comm"],
                  ["diff", store, "--before", f"kernel={EVIL}0", "--after", f"kernel={EVIL}1",
                   "--by", "comm"], ["who-else", store, "--comm", EVIL]):
        done = cli("fleet", *words, *when)
        assert done.status == 0, done.err
        assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]|\xe2\x80\xae", done.out + done.err), words
        done = cli("fleet", *words, *when, "--json")
        assert done.status == 0
        json.loads(done.out)
        assert b"\x1b" not in done.out
    assert Fleet(store).report("comm", **WHEN).owners["comm"].to_pylist() == [EVIL, None]


def test_commands_print_what_calls_find(hosts: tuple[Path, list[Any]], cli: Cli) -> None:
    store, _ = hosts
    when = ("--since", WHEN["since"], "--until", WHEN["until"])
    done = cli("fleet", "report", str(store), "--by", "comm", *when, "--json")
    shown = json.loads(done.out)
    found = Fleet(store).report("comm", **WHEN)
    assert shown["machines"] == 9
    assert shown["rows"] == found.owners.to_pylist()
    done = cli("fleet", "query", str(store), "SELECT count(*) AS n FROM captures", *when)
    assert (done.status, done.out.split()) == (0, [b"n", b"27"])
    done = cli("fleet", "leaks", str(store), "--watched", "2h", "--fail", *when)
    assert done.status == 0
    assert cli("fleet", "report", str(store), "--since", "never").status == 2


def test_compact_and_expire_say_what_they_did(few: Snapshot, tmp_path: Path, cli: Cli) -> None:
    store = str(pushed(tmp_path, [capture(few, "a", share=0.5)]))
    done = cli("fleet", "compact", store)
    assert done.status == 0
    assert b"1 capture in 1 hour compacted, 0 small files removed" in done.err
    done = cli("fleet", "expire", store, "--keep", "10000d")
    assert b"0 files removed" in done.err


def test_a_restart_begins_a_leak_anew_and_ages_choose_what_is_settled() -> None:
    from pageowner.fleet.leaking import ages_for

    week = ages_for(7 * 86400)
    assert week is not None
    assert (week.settled, week.columns[-1]) == ("older_1d", "older_7d")
    day = ages_for(86400)
    assert day is not None
    assert day.settled == "older_3h"
    assert ages_for(600) is None
    year = ages_for(365 * 86400)  # a sixth of it is above all classes
    assert year is not None
    assert (year.settled, year.columns[-1]) == ("older_14d", "older_28d")


def test_the_notebook_reads_the_files_without_us(few: Snapshot, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    captures = [capture(few, f"db{number}", hour=hour, share=0.5, kernel=f"6.12.{number % 2}")
                for number in range(3) for hour in range(2)]
    store = pushed(tmp_path, captures)
    compact(Store(str(store)), NOW)
    monkeypatch.setenv("STORE", str(store))
    found = notebooks.run("fleet-duckdb.ipynb")
    assert found["kernels"] == [("6.12.0", 2, 4), ("6.12.1", 1, 2)]
    assert found["uses"]
    assert found["old"]
