"""``pageowner query``: the answer is that of the rows, and SQL reaches nothing but them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pageowner
from pageowner.analysis.query import query, rows_of
from pageowner.api.query import _shows_users
from pageowner.errors import PageownerError, UsageError
from pageowner.model.metadata import Metadata
from pageowner.model.schema import DERIVED, SAVED
from pageowner.model.snapshot import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Done
    from pageowner import Snapshot

EVIL = 'evil",\x1b[2J\n\u202e'


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("query") / "host'ile\".parquet"
    pageowner.Snapshot.from_columns(
        {"order": [0, 3], "comm": [EVIL, "b"], "ts_ns": [1, None]},
        Metadata(source="x", page_size=65536, clock_ns=2_000_000_001)).save(path)
    return path


def test_sums_are_those_of_report(big: Snapshot) -> None:
    for name in ("comm", "subsystem", "module", "frame", "state"):
        rows = query(f"SELECT {name}, sum(pages), sum(bytes), count(*) FROM pages GROUP BY ALL",
                     {"big": big}).rows()
        owners = big.report(by=name).to_pylist()
        assert sorted(rows) == sorted((one[name], one["pages"], 4096 * one["pages"], one["blocks"])
                                      for one in owners)


def test_every_column_is_there(sample61: Snapshot) -> None:
    assert list(SAVED) == SCHEMA.names
    columns = rows_of(sample61).column_names
    assert columns == [*SAVED, *(name for name in DERIVED if name != "source")]
    answer = query("FROM pages", {"a": sample61, "b": sample61})
    assert set(answer.columns) == set(columns) | {"source"}


def test_columns_are_listed_with_their_meaning(cli: Callable[..., Done]) -> None:
    out = cli("query", "--columns").out.decode()
    for name, meaning in {**SAVED, **DERIVED}.items():
        assert re.search(rf"^{name} +{re.escape(meaning)}$", out, re.MULTILINE)


def test_several_snapshots_are_one_table_and_one_each(
        sample61: Snapshot, text61: Path, hostile: Path, tmp_path: Path,
        cli: Callable[..., Done]) -> None:
    pages = tmp_path / "pages.parquet"
    twin = tmp_path / "6.1-SAMPLE.txt.gz"
    for path in (pages, twin):
        sample61.save(path)
    sql = "SELECT source, sum(pages) AS p FROM pages GROUP BY ALL ORDER BY ALL"
    done = cli("query", sql, text61, hostile, pages, twin, "--json")
    assert json.loads(done.out) == [
        {"source": name, "p": count} for name, count in sorted({
            "6.1-sample": sample61.pages, 'host\'ile"': 9, "pages_2": sample61.pages,
            "6.1-SAMPLE_2": sample61.pages}.items())]
    done = cli("query", 'SELECT (SELECT count(*) FROM "6.1-sample") AS a, count(*) AS b'
               ' FROM "host\'ile""" WHERE comm = \'b\'', text61, hostile, "--csv")
    assert done.out == f"a,b\n{sample61.table.num_rows},1\n".encode()


def test_times_and_page_sizes(hostile: Path) -> None:
    rows = query('SELECT bytes, age_s, stack, subsystem FROM pages ORDER BY "order"',
                 {"x": pageowner.read(hostile)}).rows()
    assert list(rows) == [(65536, 2.0, None, None), (8 * 65536, None, None, None)]


FORBIDDEN = """\
SELECT * FROM read_csv('{file}')
SELECT * FROM read_text('{file}')
SELECT * FROM '{file}'
SELECT * FROM glob('{folder}/*')
SELECT * FROM sniff_csv('{file}')
SELECT * FROM read_blob('http://127.0.0.1:9/')
SELECT * FROM duckdb_secrets()
SELECT getenv('HOME')
SELECT * FROM SCHEMA
SELECT * FROM snapshots
FROM query_table('{file}')
FROM query('COPY (SELECT 1) TO ''{folder}/new''')
EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/new'
COPY pages TO '{folder}/new'
EXPORT DATABASE '{folder}/new'
ATTACH '{folder}/new'
INSTALL httpfs
LOAD httpfs
SET enable_external_access = true
PRAGMA enable_external_access = true
RESET lock_configuration
CREATE TABLE t AS SELECT 1
DROP VIEW pages
CALL pragma_version()
SELECT 1; SELECT 2
SELECT 1; COPY pages TO '{folder}/new'
PREPARE a AS SELECT 1"""


@pytest.mark.parametrize("sql", FORBIDDEN.split("\n"))
def test_sql_reaches_nothing_but_the_rows(sql: str, text61: Path, tmp_path: Path,
                                          cli: Callable[..., Done]) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("secret\nknown\n")
    done = cli("query", sql.format(file=secret, folder=tmp_path), text61)
    assert (done.status, done.out) == (2, b"")
    assert done.err.startswith(b"pageowner: SQL: ")
    assert done.err.count(b"\n") == 1
    assert os.listdir(tmp_path) == ["secret.csv"]


def test_wrong_sql_is_told_in_one_line(text61: Path, cli: Callable[..., Done]) -> None:
    for sql, status, why in (
            ("SELEC 1", 2, b'syntax error at or near "SELEC"'),
            ("SELECT foo FROM pages", 2, b'column "foo" not found'),
            ("SELECT * FROM foo", 2, b"foo does not exist"),
            ("", 2, b"0 statements"), ("SELECT 'a'::INT", 1, b"Could not convert"),
            ("SELECT error('\x1b[2J\n\nx')", 1, b"\\x1b[2J"),
            ("SELECT '\udcff'", 2, b"not UTF-8")):
        done = cli("query", sql, text61)
        assert done.status == status, sql
        assert why in done.err
        assert done.err.count(b"\n") == 1
        assert b"\x1b" not in done.err
    for words, why in (([], b"ask something"), (["--columns", "SELECT 1"], b"alone"),
                       (["FROM pages", "--csv", "--json"], b"contradict"),
                       (["FROM pages", "--top", "1", "--all"], b"LIMIT"),
                       (["FROM pages", "-", "-"], b"once")):
        done = cli("query", *words)
        assert done.status == 2
        assert why in done.err
    with pytest.raises(UsageError):
        query("SELECT", {})
    with pytest.raises(UsageError, match="none can be named 'pages'"):
        query("FROM pages", dict.fromkeys(("Pages", "x"), pageowner.read(text61)))
    with pytest.raises(PageownerError):
        list(query("SELECT CAST(comm AS INT) FROM pages",
                   {"x": pageowner.read(text61)}).rows())


def test_csv_and_json_give_every_row_back(sample61: Snapshot, text61: Path,
                                          cli: Callable[..., Done]) -> None:
    sql = "SELECT pfn, stack, comm, memcg FROM pages"
    rows = sample61.table.select(["pfn", "stack", "comm", "memcg"]).to_pylist()
    assert json.loads(cli("query", sql, text61, "--json").out) == rows
    read = list(csv.DictReader(io.StringIO(cli("query", sql, text61, "--csv").out.decode())))
    assert read == [{name: "" if value is None else str(value) for name, value in row.items()}
                    for row in rows]


def test_values_of_every_type_are_printed(text61: Path, cli: Callable[..., Done]) -> None:
    sql = ("SELECT 1 AS a, 2 AS a, 1.5::DECIMAL(9, 2) AS d, 'nan'::DOUBLE AS n, NULL AS z,"
           " [1, 2] AS l, {'k': 'v'} AS s, DATE '2026-01-02' AS t, true AS b,"
           " 170141183460469231731687303715884105727::HUGEINT AS h")
    assert json.loads(cli("query", sql, text61, "--json").out) == [{
        "a": 1, "a_2": 2, "d": 1.5, "n": None, "z": None, "l": [1, 2], "s": {"k": "v"},
        "t": "2026-01-02", "b": True, "h": (1 << 127) - 1}]
    assert cli("query", sql, text61, "--csv").out.startswith(b"a,a_2,d,n,z,l,s,t,b,h\n1,2,1.50,")
    table = cli("query", "SELECT 1234567.25::DOUBLE AS a, -999999.7::DOUBLE AS b, 1e15 AS c,"
                " 0.123456789::DOUBLE AS d, 'inf'::DOUBLE AS i", text61).out.splitlines()
    assert table[1].split() == [b"1234567", b"-1000000", b"1e+15", b"0.123457", b"inf"]
    for sql in ("SELECT 1 AS x WHERE false", "EXPLAIN SELECT 1",
                'PIVOT pages ON "order" USING sum(pages) GROUP BY state'):
        assert cli("query", sql, text61).status == 0
    assert json.loads(cli("query", "SELECT 1 WHERE false", text61, "--json").out) == []


def test_the_table_shows_a_hundred_rows_unless_asked(text61: Path,
                                                     cli: Callable[..., Done]) -> None:
    def lines(*words: str) -> list[str]:
        return cli("query", "SELECT range AS n FROM range(250)", text61, *words
                   ).out.decode().splitlines()

    assert len(lines()) == 102
    assert lines()[-1] == "and more than these 100 rows; --all shows them"
    assert len(lines("--top", "250")) == 251
    assert lines("--all") == ["  n", *(f"{n:3}" for n in range(250))]


def test_hostile_names_do_nothing_to_a_terminal(hostile: Path, cli: Callable[..., Done]) -> None:
    out = cli("query", 'SELECT comm AS "\x1b\n" FROM pages', hostile).out
    assert b'evil",\\x1b[2J\\x0a\\u202e' in out
    assert b"\x1b" not in out
    assert out.count(b"\n") == 3


def test_a_question_without_end_is_ended_by_a_signal(hostile: Path) -> None:
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        started = subprocess.Popen(
            [sys.executable, "-m", "pageowner", "query",
             "SELECT count(*) FROM range(900000000000) a WHERE a.range % 7 = 3", hostile],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            # until its second thread computes
            while len(os.listdir(f"/proc/{started.pid}/task")) < 3:
                assert started.poll() is None
                time.sleep(0.05)
            time.sleep(1)
            started.send_signal(number)
            out, err = started.communicate(timeout=30)
        finally:
            started.kill()
            started.wait()
        assert (started.returncode, out, err.strip()) == (status, b"", b"")


def test_a_question_leaves_memory_to_the_machine(sample61: Snapshot) -> None:
    meminfo = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
    ((limit,),) = query("SELECT current_setting('memory_limit')", {"a": sample61}).rows()
    number, unit = re.fullmatch(r"([\d.]+) ([MG])iB", limit).groups()  # type: ignore[union-attr]
    mib = float(number) * (1024 if unit == "G" else 1)
    available = int(meminfo["MemAvailable:"]) / 1024
    # others take and give while this runs
    assert mib == pytest.approx(max(available / 2, 256), rel=0.3)


@pytest.mark.parametrize(("sql", "shows"), [
    ("SELECT sum(pages) FROM pages", False), ("FROM pages LIMIT 5", True),
    ("-- a comment\nFROM pages", True), ("SELECT columns('us.*r') FROM pages", True),
    ("SELECT comm AS \"who's\", user AS \"what's\" FROM pages", True),
    ("SELECT 'FROM' AS \"from\" FROM pages", False),
    ("WITH early AS (FROM pages WHERE state = 'early') SELECT pfn FROM early", True),
    ("SELECT pfn FROM (FROM pages)", True), ("SELECT \"user\" FROM pages", True),
    ("SELECT pfn FROM pages UNION FROM other", True), (
        "SELECT pfn FROM (SELECT pfn FROM x)", False)])
def test_users_are_looked_for_where_sql_may_show_them(sql: str, shows: bool) -> None:
    assert _shows_users(sql) == shows
