"""A bucket of an S3 server that is not ours: the same answers, whole objects, rights, outages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import s3_server
from fleets import WHEN, capture, pushed

from pageowner import Filter, Fleet, PageownerError, Snapshot
from pageowner.fleet.compaction import compact
from pageowner.fleet.pushing import push
from pageowner.fleet.spool import Spool
from pageowner.fleet.store import Store, StoreAway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(s3_server.program() is None, reason="SeaweedFS is not installed"
                                " (scripts/fleet-tests)")
PLACE = f"s3://{s3_server.BUCKET}/fleet"
NOW = 2_000_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_server.Server]:
    """Not started yet: the first test needs it away, and a start takes seconds."""
    with s3_server.prepared(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture
def running(server: s3_server.Server) -> s3_server.Server:
    server.start()
    return server


def be(monkeypatch: pytest.MonkeyPatch, server: s3_server.Server, user: str) -> None:
    for name, value in s3_server.environment(server.port, user).items():
        monkeypatch.setenv(name, value)


def test_a_server_that_is_away_costs_no_capture(few: Snapshot, server: s3_server.Server,
                                                tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, server, s3_server.WRITER)
    place = f"s3://{s3_server.BUCKET}/outage"
    spool = Spool(tmp_path / "spool", place, 1 << 30)
    captures = [capture(few, "db", hour=hour, share=0.5) for hour in range(3)]
    server.stop()
    pushed_away = push(captures[0], Store(place), spool)
    assert pushed_away.away.startswith(f"{place}: cannot write: ")
    assert pushed_away.waiting == 2
    server.start()
    for one in captures[1:]:
        assert not push(one, Store(place), spool).away
    assert Fleet(place).query("SELECT count(DISTINCT capture) AS n FROM captures",
                              **WHEN).to_pylist() == [{"n": 3}]


def test_a_bucket_gives_the_answers_of_a_folder_to_who_may_only_read(
        few: Snapshot, running: s3_server.Server, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    captures = [capture(few, f"db{number}", hour=hour, seed=number * 9 + hour, share=0.5,
                        kernel=f"6.12.{number % 2}") for number in range(3) for hour in range(2)]
    folder = pushed(tmp_path, captures)
    be(monkeypatch, running, s3_server.WRITER)
    bucket = Store(PLACE)
    spool = Spool(tmp_path / "spool-s3", PLACE, 1 << 30)
    for one in captures:
        assert not push(one, bucket, spool).away
    assert {stored.path: stored.size for stored in bucket.objects("v1")} == {
        stored.path: stored.size for stored in Store(str(folder)).objects("v1")}
    for _ in range(3):  # as pushed, compacted, and with what was compacted removed
        be(monkeypatch, running, s3_server.READER)
        for ask in (lambda fleet: fleet.report("stack,comm", **WHEN),
                    lambda fleet: fleet.diff(["kernel=6.12.0"], ["kernel=6.12.1"], **WHEN),
                    lambda fleet: fleet.who_else(where=Filter(comm="*"), **WHEN)):
            assert ask(Fleet(PLACE)).owners == ask(Fleet(folder)).owners
        with pytest.raises(PageownerError):
            Fleet(PLACE).query(f"SELECT * FROM read_parquet('{PLACE}/v1/stacks/*')", **WHEN)
        with pytest.raises(StoreAway, match="cannot write"):
            Store(PLACE).put("v1/x", b"no")
        be(monkeypatch, running, s3_server.WRITER)
        done = [compact(Store(place), NOW * 2) for place in (PLACE, str(folder))]
        assert done[0] == done[1]
    assert [stored.path for stored in Store(PLACE).objects("v1/incoming")] == []


def test_who_may_only_write_may_send(few: Snapshot, running: s3_server.Server, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, running, s3_server.SENDER)
    place = f"s3://{s3_server.BUCKET}/sent"
    spool = Spool(tmp_path / "spool", place, 1 << 30)
    for hour, objects in ((0, 2), (1, 1)):  # stacks are remembered
        done = push(capture(few, "db", hour=hour), Store(place), spool)
        assert (done.away, done.sent, done.waiting) == ("", objects, 0)
        assert done.clock_ahead_s is None
    be(monkeypatch, running, s3_server.READER)
    assert Fleet(place).report(**WHEN).machines == 1


def test_wrong_credentials_are_told_in_one_line_at_once(
        running: s3_server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, running, "nobody")
    with pytest.raises(PageownerError) as error:
        Fleet(PLACE).report(**WHEN)
    assert str(error.value).startswith(f"{PLACE}: cannot list: ")
    assert "\n" not in str(error.value)
