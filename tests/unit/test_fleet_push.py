"""Captures in a fleet's store: nothing lost, nothing there twice, nothing by halves."""

from __future__ import annotations

import io
import re
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pageowner
from pageowner import Fleet, PageownerError, Snapshot, UsageError
from pageowner.analysis.keys import blocks_pages
from pageowner.api.fleet_push import labels_of
from pageowner.fleet import columns
from pageowner.fleet.arrow import OWNERS_SCHEMA, STACKS_SCHEMA
from pageowner.fleet.capture import REST, Machine, capture_of
from pageowner.fleet.layout import digits, hour_of, number_of, partition_of
from pageowner.fleet.pushing import Pushed, push
from pageowner.fleet.spool import Memory, Spool
from pageowner.fleet.store import Store, StoreAway
from pageowner.kernel.containers import container
from pageowner.storage.recording import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

TREE = Path(__file__).parents[2]
TAKEN = 1_795_000_000.0
DUMP = Machine(host="db1", kernel="6.12.107", labels={"rack": "7"}, taken=TAKEN)


def files(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes()
            for path in store.rglob("*") if path.is_file()}


def rows(content: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
    return found


def test_the_rows_of_a_capture_sum_up_to_the_snapshot_whatever_is_too_small(few: Snapshot) -> None:
    for least in (0, 1 << 16, 1 << 40):
        owners = capture_of(few, DUMP, least).owners.to_pylist()
        assert sum(row["pages"] for row in owners) == few.pages
        assert sum(row["blocks"] for row in owners) == few.blocks
        rest = [row for row in owners if row["stack_id"] == 0]
        assert len(rest) == 1
        assert rest[0]["state"] == REST
        assert all(row["pages"] * 4096 >= least for row in owners if row["stack_id"] != 0)
    assert len(owners) == 1


def test_pages_by_stack_are_those_of_a_report(few: Snapshot) -> None:
    """By the functions that `diff` matches stacks by; the text of each is in the other table."""
    from pageowner.analysis.diff import matched

    capture = capture_of(few, DUMP, 0)
    text = {row["stack_id"]: row["stack"] for row in capture.stacks.to_pylist()}
    found: Counter[str] = Counter()
    for row in capture.owners.to_pylist():
        if row["stack_id"]:
            found[text[row["stack_id"]]] += row["pages"]
    expected: Counter[str] = Counter()
    table = few.report("stack")
    for stack, pages in zip(matched(table["stack"]).to_pylist(), table["pages"].to_pylist(),
                            strict=True):
        expected[stack] += pages
    assert found == expected


def test_what_has_no_pages_is_told_for_what_it_is(few: Snapshot) -> None:
    for kind, what in (("objects", "objects by owner"), ("allocinfo", "bytes by line of code")):
        found = Snapshot(few.table, pageowner.Metadata(kind=kind, page_size=1))
        with pytest.raises(PageownerError, match=f"^the snapshot has {what}; a fleet's tables"):
            capture_of(found, DUMP, 0)


def test_ages_are_counted_from_the_moment_of_the_capture(few: Snapshot) -> None:
    now = int(few.table["ts_ns"].to_numpy().max()) + 3 * 3600 * 10**9
    aged = replace(few, meta=replace(few.meta, clock_ns=now))
    owners = capture_of(aged, DUMP, 0).owners.to_pylist()
    age = now - few.table["ts_ns"].to_numpy().astype("int64")
    for name in columns.AGES:
        least = columns.age_ns(name)
        assert sum(row[f"older_{name}"] for row in owners) == int(
            blocks_pages(few)[age >= least].sum()), name


def test_a_capture_sent_twice_is_there_once(few: Snapshot, tmp_path: Path) -> None:
    store, capture = Store(str(tmp_path / "store")), capture_of(few, DUMP, 0)
    for spool in ("one", "two"):  # of two pushers that know nothing of each other
        push(capture, store, Spool(tmp_path / spool, store.place, 1 << 20))
    there = files(tmp_path / "store")
    assert len(there) == 2
    owners, = (name for name in there if name.startswith("v1/incoming/owners/"))
    assert partition_of(owners) == (hour_of(TAKEN), digits(capture.number))
    assert re.match("v1/incoming/owners/day=2026-11-18/hour=", owners)
    assert "db1" not in "".join(there)


def test_a_capture_is_there_once_whether_it_is_sent_alone_or_with_its_directory(
        few: Snapshot, tmp_path: Path) -> None:
    """Its file is named by when it was written, in thousandths of a second."""
    folder, fleet = tmp_path / "recorded", Fleet(tmp_path / "store")
    folder.mkdir()
    recorder = Recorder(folder, 600, 86400)

    def sent(together: bool) -> list[str]:
        return [pushed.path for pushed in fleet.push(folder, all_captures=together,
                                                     spool=tmp_path / "spool")
                if isinstance(pushed, Pushed)]

    alone = []
    for number, stamp in enumerate((None, "2026-11-18T11:16:40Z", "2026-11-18T11:26:40Z")):
        recorder.add(Snapshot(few.table, replace(few.meta, host="db1", taken_at=stamp,
                                                 clock_ns=number)), TAKEN + 600 * number + 1.234)
        alone += sent(False) if stamp else []
    together = sent(True)
    assert together[1:] == alone
    assert "/day=2026-11-18/hour=11/" in together[0]  # by its file's name


def test_only_what_was_taken_just_now_is_filed_by_the_clock_of_the_store(
        few: Snapshot, tmp_path: Path) -> None:
    """A file is sent again when the clock may be right."""
    import socket

    path = save(Snapshot(few.table, replace(
        few.meta, kind="tracker", host=socket.gethostname(), taken_at="2026-11-18T11:16:40Z")),
        tmp_path)
    fleet, spool = Fleet(tmp_path / "store"), tmp_path / "spool"
    kept = Spool(spool, fleet.store, 1 << 30)

    def sent(source: Path | None, ahead: float) -> str:
        with kept.locked():
            kept.remember(Memory(clock_ahead_s=ahead, compared=time.time()))
        pushed, = fleet.push(source, spool=spool, read=lambda name: pageowner.read(path))
        assert isinstance(pushed, Pushed)
        return pushed.path.rpartition("/")[0]

    assert sent(path, 7200.0) == sent(path, 0.0) == "v1/incoming/owners/day=2026-11-18/hour=11"
    assert sent(None, 7200.0) == "v1/incoming/owners/day=2026-11-18/hour=09"
    found = fleet.report("comm", since="2026-11-18T00:00+00:00", until="2026-11-19T00:00+00:00")
    assert (found.captures, sum(found.owners["pages"].to_pylist())) == (1, few.pages)
    assert found.notes == ["captures that lie in several hours, and count once: 1"]


def test_files_have_the_declared_columns_and_types(few: Snapshot, tmp_path: Path) -> None:
    list(Fleet(tmp_path / "store").push(save(few, tmp_path), host="db1", taken=TAKEN,
                                        spool=tmp_path / "spool"))
    for name, content in files(tmp_path / "store").items():
        schema = pq.read_schema(io.BytesIO(content))
        expected = OWNERS_SCHEMA if "owners" in name else STACKS_SCHEMA
        assert schema.names == expected.names
        for field in schema:
            assert field.type == expected.field(field.name).type
        assert pq.read_metadata(io.BytesIO(content)).metadata[b"pageowner.fleet"] == b"1"


def save(snapshot: Snapshot, folder: Path, name: str = "snapshot.parquet") -> Path:
    snapshot.save(folder / name)
    return folder / name


def test_stacks_are_sent_once_and_new_ones_with_the_capture_that_has_them(
        few: Snapshot, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    spool = Spool(tmp_path / "spool", store.place, 1 << 20)
    half = Snapshot(few.table.slice(0, few.table.num_rows // 2), few.meta)
    sent = []
    for number, snapshot in enumerate((half, few, few)):
        capture = capture_of(snapshot, replace(DUMP, taken=TAKEN + number), 0)
        push(capture, store, spool)
        sent.append(capture)
    stacks = {name: {row["stack_id"] for row in rows(content)}
              for name, content in files(tmp_path / "store").items() if "stacks" in name}
    first, second = (stacks[f"v1/incoming/stacks/{digits(capture.number)}.parquet"]
                     for capture in sent[:2])
    assert len(stacks) == 2
    assert second
    assert not first & second
    assert first | second == set(sent[1].stacks["stack_id"].to_pylist())


def test_what_cannot_be_sent_waits_and_goes_first_when_the_store_is_back(
        few: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder will be")
    store = Store(str(tmp_path / "store"))
    spool = Spool(tmp_path / "spool", store.place, 1 << 30)
    for hour in range(3):
        pushed = push(capture_of(few, replace(DUMP, taken=TAKEN + 3600 * hour), 0), store, spool)
        assert pushed.away.startswith(f"{store.place}: cannot write: ")
        assert (pushed.sent, pushed.waiting) == (0, 2 * (hour + 1))
    (tmp_path / "store").unlink()
    pushed = push(capture_of(few, replace(DUMP, taken=TAKEN + 3 * 3600), 0), store, spool)
    assert (pushed.away, pushed.sent, pushed.waiting) == ("", 8, 0)
    there = files(tmp_path / "store")
    assert len([name for name in there if name.startswith("v1/incoming/owners/")]) == 4
    assert not [name for name in files(tmp_path / "spool") if not name.endswith("memory.json")]


def test_a_store_that_may_not_be_read_takes_captures_and_no_clocks_are_compared(
        few: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is sent: only what is read afterwards is refused."""
    def refused(self: Store, path: str) -> float | None:
        raise StoreAway(f"{self.place}: cannot read: AWS Error ACCESS_DENIED")

    store = Store(str(tmp_path / "store"))
    spool = Spool(tmp_path / "spool", store.place, 1 << 30)
    first, *others = (capture_of(few, replace(DUMP, taken=TAKEN + hour * 3600), 0)
                      for hour in range(3))
    ahead = push(first, store, spool).clock_ahead_s
    assert ahead is not None
    memory = spool.remembered()
    memory.compared, memory.stacks = 0.0, set()
    spool.remember(memory)
    monkeypatch.setattr(Store, "changed", refused)
    for capture, objects in zip(others, (2, 1), strict=True):  # stacks are remembered
        done = push(capture, store, spool)
        assert (done.away, done.sent, done.waiting, done.clock_ahead_s) == ("", objects, 0, ahead)


def test_a_clock_that_was_set_right_is_compared_again_at_once(few: Snapshot, tmp_path: Path,
                                                              ) -> None:
    store = Store(str(tmp_path / "store"))
    spool = Spool(tmp_path / "spool", store.place, 1 << 30)
    capture = capture_of(few, DUMP, 0)
    with spool.locked():
        spool.remember(Memory(clock_ahead_s=-7200.0, compared=time.time()))
    ahead = push(capture, store, spool).clock_ahead_s
    assert ahead is not None
    assert abs(ahead) < 60
    compared = spool.remembered().compared
    push(capture, store, spool)
    assert spool.remembered().compared == compared  # of a clock that is right once a day


def test_a_snapshot_that_takes_long_to_send_is_no_clock_that_is_ahead(
        few: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, written = [2e9], {}

    def put(self: Store, path: str, content: bytes) -> None:
        now[0] += 300
        written[path] = now[0]

    monkeypatch.setattr("time.time", lambda: now[0])
    monkeypatch.setattr(Store, "put", put)
    monkeypatch.setattr(Store, "changed", lambda self, path: written[path])
    store = Store(str(tmp_path / "store"))
    done = push(capture_of(few, DUMP, 0), store, Spool(tmp_path / "spool", store.place, 1 << 30),
                b"whole")
    assert (done.sent, done.clock_ahead_s) == (3, 0.0)


def test_a_full_spool_drops_the_oldest_and_says_how_many(few: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    store = Store(str(tmp_path / "store"))
    captures = [capture_of(few, replace(DUMP, taken=TAKEN + 3600 * hour), 0) for hour in range(5)]
    spool = Spool(tmp_path / "spool", store.place, 1 << 30)
    push(captures[0], store, spool)
    each = sum(map(len, files(tmp_path / "spool").values()))
    spool = Spool(tmp_path / "spool", store.place, int(each * 2.5))
    assert [push(capture, store, spool).dropped for capture in captures[1:]] == [0, 1, 1, 1]
    (tmp_path / "store").unlink()
    push(captures[4], store, spool)
    left = {name.rpartition("/")[2] for name in files(tmp_path / "store") if "owners" in name}
    assert left == {f"{digits(capture.number)}.parquet" for capture in captures[3:]}


def test_a_clock_that_is_set_back_drops_no_newer_capture_from_a_full_spool(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, now = Spool(tmp_path, "store", 25), [2 * 10**18]
    monkeypatch.setattr("time.time_ns", lambda: now[0])
    dropped = []
    with spool.locked():
        for number in range(4):
            dropped.append(spool.add(f"v1/incoming/owners/{number}", b"x" * 10))
            now[0] -= 10**12
        assert [spool.path(name)[-1] for name in spool.waiting()] == ["2", "3"]
    assert dropped == [0, 0, 1, 1]


def test_pushers_of_one_machine_take_turns(few: Snapshot, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    captures = [capture_of(few, replace(DUMP, taken=TAKEN + 3600 * hour), 0) for hour in range(6)]
    failed: list[BaseException] = []

    def run(mine: list[Any]) -> None:
        try:
            for capture in mine:
                push(capture, store, Spool(tmp_path / "spool", store.place, 1 << 30))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(captures[part::2],)) for part in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    names = [name for name in files(tmp_path / "store") if "owners" in name]
    assert len(names) == 6
    assert all(rows(files(tmp_path / "store")[name]) for name in names)


def test_a_machine_whose_clock_is_wrong_is_filed_by_the_stores(few: Snapshot) -> None:
    capture = capture_of(few, DUMP, 0)
    moved = capture.moved(-5 * 3600.0)
    assert moved.taken == TAKEN - 5 * 3600
    assert {row["taken"].timestamp() for row in moved.owners.to_pylist()} == {moved.taken}
    assert moved.number == capture.number


@pytest.mark.parametrize(("machine", "missing"), [
    (Machine(taken=TAKEN), "--host"), (Machine(host="db1"), "--taken"),
    (Machine(host="db1", taken=-8.64e19), "before 1970; give --taken")])
def test_a_dump_that_says_too_little_is_refused_with_the_option_that_says_it(
        few: Snapshot, machine: Machine, missing: str) -> None:
    with pytest.raises(PageownerError, match=missing):
        capture_of(few, machine, 0)


def test_hostile_names_reach_the_store_as_text_that_every_engine_takes(few: Snapshot) -> None:
    host = "a\0b\udcff/../../etc" + "x" * 1000
    row = capture_of(few, replace(DUMP, host=host), 0).owners.to_pylist()[0]
    assert row["host"].startswith("a\\x00b\\udcff/../../etc")
    assert len(row["host"]) <= 256


def test_a_long_path_of_a_cgroup_tells_its_container_and_stays_apart_from_others(few: Snapshot,
                                                                                 ) -> None:
    slices = "".join(f"/{name}.slice" for name in ("a" * 120, "b" * 120))
    paths = [f"{slices}/docker-{digit * 64}.scope" for digit in "01"]
    place = few.table.column_names.index("memcg")
    named = pa.array([paths[row % 2] for row in range(few.table.num_rows)])
    owners = capture_of(Snapshot(few.table.set_column(place, "memcg", named.cast(
        few.table.schema.field("memcg").type)), few.meta), DUMP, 0).owners
    found = {(row["memcg"], row["container"]) for row in owners.to_pylist() if row["memcg"]}
    assert {name for _, name in found} == {"0" * 12, "1" * 12}
    assert len(found) == len({memcg for memcg, _ in found}) == 2
    assert {len(memcg) for memcg, _ in found} == {256}


@pytest.mark.parametrize("word", ["rack", "=7", "1rack=7", "ra ck=7", "host=a", "k=" + "x" * 300])
def test_words_that_are_no_labels_are_refused(word: str) -> None:
    with pytest.raises(UsageError):
        labels_of((word,))


def test_labels_keep_their_values() -> None:
    assert labels_of(("rack=7", "note=a=b")) == {"rack": "7", "note": "a=b"}


@pytest.mark.parametrize(("path", "found"), [
    (f"/system.slice/docker-{'ab' * 32}.scope", "ab" * 6),
    (f"/kubepods.slice/pod1.slice/cri-containerd-{'0f' * 32}.scope/init", "0f" * 6),
    (f"/kubepods/besteffort/podx/{'1a' * 32}", "1a" * 6),
    (f"/machine.slice/libpod-{'9' * 64}.scope/container", "9" * 12),
    ("/lxc.payload.web/system.slice", "web"),
    ("/system.slice/ssh.service", None), ("/", None), (None, None),
    (f"/docker-{'ab' * 31}.scope", None)])
def test_a_container_is_told_by_the_path_of_its_cgroup(path: str | None, found: str | None) -> None:
    assert container(path) == found


def test_numbers_are_written_in_digits_and_read_back() -> None:
    for number in (0, 1, -1, 1 << 62, -(1 << 63)):
        assert number_of(digits(number)) == number
    assert number_of("../etc/passwd") is None


def test_the_command_says_what_it_did(cli: Callable[..., Any], some_records: Path,
                                      tmp_path: Path) -> None:
    words = ("fleet", "push", tmp_path / "store", some_records, "--spool", tmp_path / "spool")
    done = cli(*map(str, words), "--host", "db1", "--taken", "2026-11-26T14:30")
    assert (done.status, done.out) == (0, b"")
    assert len(files(tmp_path / "store")) == 2
    done = cli(*map(str, words))
    assert done.status == 1
    assert b"--host" in done.err
    assert cli("fleet", "psh", "x").status == 2
    assert b"did you mean 'push'" in cli("fleet", "psh", "x").err


def test_the_command_fails_where_nothing_is_sent_and_keeps_the_capture(
        cli: Callable[..., Any], some_records: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    done = cli("fleet", "push", str(tmp_path / "store"), str(some_records), "--host", "db1",
               "--taken", "1h", "--spool", str(tmp_path / "spool"))
    assert done.status == 1
    assert b"2 objects kept, to be sent with the next push" in " ".join(
        done.err.decode().split()).encode()


def test_the_page_lists_every_column_in_the_same_words() -> None:
    text = (TREE / "docs/reference/fleet.md").read_text()
    for table, declared in (("owners", {**columns.OWNERS, **columns.PARTITIONS}),
                            ("stacks", columns.STACKS)):
        block = text.partition(f"<!-- columns of {table} -->")[2].partition("<!-- end -->")[0]
        listed = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", block, re.MULTILINE)
        assert listed == [(name, column.type, column.meaning)
                          for name, column in declared.items()]
