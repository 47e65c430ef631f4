"""`leaks`: the slow leak is told beneath larger owners that breathe; the others are not accused."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pageowner.analysis.filters import Filter
from pageowner.analysis.leaks import (
    LEAST_SAMPLES,
    Rows,
    Watch,
    available_pages,
    of_snapshots,
    rows_of,
    settling_ns,
)
from pageowner.api.leaks import leaks
from pageowner.errors import UsageError
from pageowner.kernel import zones
from pageowner.model.snapshot import Metadata, Snapshot

S = 10**9
START = 1000 * S
EVERY, LOOKS = 5, 13
LEAK = "anon_pipe_write+0x1/0x2\nvfs_write+0x1/0x2"
BREATHES = "alloc_anon_folio+0x1/0x2\ndo_anonymous_page+0x1/0x2"
CACHE = "page_cache_ra_unbounded+0x1/0x2\nfilemap_fault+0x1/0x2"
DENTRY = "allocate_slab+0x1/0x2\n__d_alloc+0x1/0x2"
BURST = "shmem_alloc_folio+0x1/0x2\nshmem_get_folio_gfp+0x1/0x2"
FORGETS = "unix_stream_sendmsg+0x1/0x2"


class Machine:
    """Pages of owners as they are born and die, seconds from START: (stack, born, dies)."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(11)
        self.stack: list[str | None] = []
        self.born: list[float] = []
        self.dies: list[float] = []

    def add(self, stack: str | None, born: Sequence[float] | np.ndarray,
            lives: Sequence[float] | np.ndarray | float) -> None:
        self.stack += [stack] * len(born)
        self.born += list(born)
        self.dies += list(np.asarray(born) + lives)

    def noise(self) -> None:
        """40,000 pages that live for three seconds each at most, in waves."""
        waves = self.random.uniform(-20, 60, 60)
        born = np.repeat(waves, self.random.integers(100, 1200, 60))
        self.add(BREATHES, born, self.random.uniform(0.2, 3, len(born)))
        self.add(BREATHES, np.full(5000, -500.0), 1e9)

    def at(self, second: float) -> Snapshot:
        born, dies = np.array(self.born), np.array(self.dies)
        live = (born <= second) & (dies > second)
        stacks = [stack for stack, one in zip(self.stack, live, strict=True) if one]
        known = np.array([stack is not None for stack in stacks], bool)
        rows = len(stacks)
        times = (START + born[live] * S).astype(np.uint64)
        kinds = ["Reclaimable" if stack == DENTRY else None if stack is None else "Movable"
                 for stack in stacks]
        return Snapshot.from_columns({
            "pfn": np.arange(rows), "order": np.zeros(rows, np.uint8), "stack": stacks,
            "ts_ns": pa.array(times, mask=~known), "page_flags": np.zeros(rows, np.uint64),
            "state": ["owned" if one else "untracked" for one in known],
            "migratetype": kinds, "comm": ["leaky" if stack in (LEAK, None) else "cc1"
                                           for stack in stacks]},
            Metadata(kind="tracker", host="here", boot_id="b", clock_ns=START + int(second * S),
                     frames={"free": 100_000}, hooks={"alloc_pages_bulk": "refused: no"}))

    def series(self) -> list[Snapshot]:
        return [self.at(EVERY * look) for look in range(LOOKS)]


def programs(live: Callable[[str, int], np.ndarray], names: dict[str, int],
             by: str = "stack") -> list[dict[str, Any]]:
    """What is found where each program takes its memory through the same stack: ``live`` gives the
    times of allocation, in seconds, of the pages that one has at a second."""
    series = []
    for second in range(0, EVERY * LOOKS, EVERY):
        born = {name: live(name, second) for name in names}
        rows = [(name, at) for name, times in born.items() for at in times]
        series.append(Snapshot.from_columns({
            "pfn": np.arange(len(rows)), "order": np.zeros(len(rows), np.uint8),
            "stack": [BREATHES] * len(rows), "comm": [name for name, _ in rows],
            "tgid": [names[name] for name, _ in rows], "pid": [names[name] for name, _ in rows],
            "ts_ns": np.array([START + at * S for _, at in rows], np.uint64)},
            Metadata(kind="tracker", boot_id="b", clock_ns=START + second * S)))
    return of_snapshots(series, by, 60 * S).leaks().to_pylist()


def test_programs_are_told_apart_in_their_own_memory() -> None:
    def live(name: str, second: int) -> np.ndarray:
        if name == "leaky":
            return np.arange(-30, second, 0.05)
        # gives all back every 25 s: as one with the other it would not be even
        return np.arange(second // 25 * 25, second, 0.002)

    found = programs(live, {"leaky": 7, "busy": 8})
    assert [row["program"] for row in found if row["kind"] == "leak"] == ["leaky (pid 7)"]
    leak = next(row for row in found if row["kind"] == "leak")
    assert leak["stack"] == BREATHES
    assert leak["rate"] == pytest.approx(72_000, rel=0.02)
    # keys of tasks tell them apart anyway
    found = programs(live, {"leaky": 7, "busy": 8}, "comm")
    assert [(row["comm"], row["program"]) for row in found if row["kind"] == "leak"] == [
        ("leaky", None)]


def test_memory_of_programs_without_a_name_is_counted_once_in_each_look() -> None:
    machine = Machine()
    machine.noise()
    machine.add(LEAK, np.arange(-30, 60, 0.05), 1e9)
    for row in of_snapshots(machine.series(), "order", 60 * S).leaks().to_pylist():
        assert len(row["series"]) == LOOKS
        assert row["series"][-1] == machine.at(60).pages


@pytest.mark.parametrize("since", [0, START])
def test_a_leak_watched_as_soon_as_tracking_is_on_is_steady(since: int) -> None:
    """Nothing is known of before, which is no pause of the leak."""
    watch = Watch("stack", settling_ns(15 * S), since)
    for look in range(16):
        seconds = 0.1 + look
        born = np.arange(0, seconds, 0.005)
        watch.add(START + int(seconds * S), rows_of(Snapshot.from_columns({
            "pfn": np.arange(len(born)), "order": np.zeros(len(born), np.uint8),
            "stack": [BREATHES] * len(born), "comm": ["leaky"] * len(born),
            "ts_ns": (START + born * S).astype(np.uint64)}, Metadata(kind="tracker")),
            watch.names))
    (row,) = watch.leaks().to_pylist()
    assert (row["kind"], row["steady"] == 1) == (("leak", True) if since else ("grows", False))


@pytest.mark.parametrize(("first", "called"), [(7, "pool-0"), (99, "pool-3")])
def test_threads_with_names_of_their_own_leak_as_one_program(first: int, called: str) -> None:
    """40 threads that leak a page in two seconds each, and whose names tell them apart."""
    watch = Watch("stack", 10 * S)
    for look in range(LOOKS):
        born = np.arange(-30, look * EVERY, 0.05)
        thread = np.append(np.arange(len(born) - 9) % 40, [3] * 9)  # the last made, by its third
        watch.add(START + look * EVERY * S, rows_of(Snapshot.from_columns({
            "pfn": np.arange(len(born)), "order": np.zeros(len(born), np.uint8),
            "stack": [BREATHES] * len(born), "comm": [f"pool-{one}" for one in thread],
            "tgid": [7] * len(born), "pid": first + thread,
            "ts_ns": (START + born * S).astype(np.uint64)}, Metadata(kind="tracker")),
            watch.names))
    assert [(row["kind"], row["program"]) for row in watch.leaks().to_pylist()] == [
        ("leak", f"{called} (pid 7)")]


def test_programs_that_come_and_go_take_no_memory() -> None:
    watch = Watch("stack", S)
    for look in range(200):
        rows = Snapshot.from_columns({
            "pfn": [1, 2], "order": np.zeros(2, np.uint8), "stack": [BREATHES] * 2,
            "comm": ["cc1", "stays"], "tgid": [100 + look, 7], "pid": [100 + look, 7],
            "ts_ns": np.array([START + look * S, START], np.uint64)}, Metadata(kind="tracker"))
        watch.add(START + (look + 1) * S, rows_of(rows, watch.names))
    assert set(watch.table()["program"].to_pylist()) == {
        "cc1 (pid 100)", "stays (pid 7)", "cc1 (pid 299)"}
    assert watch.owners == 201


@pytest.mark.parametrize("by", ["stack", "comm"])
def test_who_is_away_for_one_look_has_not_grown_since(by: str) -> None:
    watch = Watch(by, 10 * S)
    for look in range(LOOKS):
        there = {"stays": 7} if look == 3 else {"stays": 7, "pauses": 8}
        rows = [name for name in there for _ in range(1000)]
        tgids = [there[name] for name in rows]
        watch.add(START + (look * EVERY + 60) * S, rows_of(Snapshot.from_columns({
            "pfn": np.arange(len(rows)), "order": np.zeros(len(rows), np.uint8),
            "stack": [BREATHES] * len(rows), "comm": rows, "tgid": tgids, "pid": tgids,
            "ts_ns": np.full(len(rows), START, np.uint64)}, Metadata(kind="tracker")),
            watch.names))
    assert watch.leaks().num_rows == 0
    table = watch.table()
    column = "comm" if by == "comm" else "program"
    series = dict(zip(table[column].to_pylist(), table["series"].to_pylist(), strict=True))
    assert series["pauses" if by == "comm" else "pauses (pid 8)"] == [
        1000] * 3 + [0] + [1000] * (LOOKS - 4)


def judged(machine: Machine, by: str = "stack", least: int = 256) -> dict[object, Any]:
    rows = of_snapshots(machine.series(), by, 60 * S).leaks(least).to_pylist()
    return {row[by] if row[by] is not None else row["note"]: row for row in rows}


def test_a_slow_leak_is_told_beneath_larger_noise() -> None:
    machine = Machine()
    machine.noise()
    machine.add(LEAK, np.arange(-30, 60, 0.1), 1e9)  # 10 pages a second
    found = judged(machine)
    assert [stack for stack, row in found.items() if row["kind"] == "leak"] == [LEAK]
    leak = found[LEAK]
    assert leak["rate_low"] <= 36_000 <= leak["rate_high"]
    assert leak["rate"] == pytest.approx(36_000, rel=0.02)
    assert leak["survival"] == 1
    assert leak["confidence"] > 0.99
    assert leak["gained"] == 600


def test_a_leak_is_told_in_the_very_stack_that_breathes() -> None:
    machine = Machine()
    machine.noise()
    machine.add(BREATHES, np.arange(-30, 60, 0.05), 1e9)
    leak = judged(machine)[BREATHES]
    assert leak["kind"] == "leak"
    assert leak["rate"] == pytest.approx(72_000, rel=0.05)


def test_noise_alone_is_accused_of_nothing() -> None:
    for seed in range(10):
        machine = Machine()
        machine.random = np.random.default_rng(seed)
        machine.noise()
        assert [row for row in judged(machine).values() if row["kind"] == "leak"] == []


def test_a_burst_that_stays_is_no_leak() -> None:
    machine = Machine()
    machine.add(BURST, np.full(5000, 21.0), 1e9)
    assert judged(machine)[BURST]["kind"] == "grows"


def test_growth_that_dies_in_the_end_is_no_leak() -> None:
    machine = Machine()
    # each page lives for 25 s, ever more of them are allocated
    born = 60 * np.sqrt(np.random.default_rng(1).uniform(0, 1, 20_000))
    machine.add(FORGETS, born, 16.0)
    assert judged(machine).get(FORGETS, {"kind": "grows"})["kind"] == "grows"


def test_cache_that_the_kernel_can_take_back_is_set_apart() -> None:
    machine = Machine()
    for stack in (CACHE, DENTRY):
        machine.add(stack, np.arange(-30, 60, 0.05), 1e9)
    found = judged(machine)
    assert {found[stack]["kind"] for stack in (CACHE, DENTRY)} == {"reclaimable"}


def test_growth_of_untracked_pages_is_a_row_that_says_so() -> None:
    machine = Machine()
    machine.add(None, np.arange(0, 60, 0.05), 1e9)
    (row,) = judged(machine).values()
    assert row["stack"] is None
    assert row["note"] == "vmalloc and other bulk allocations (untracked)"
    assert row["kind"] == "leak"
    assert row["survival"] is None


def test_owners_can_be_tasks() -> None:
    machine = Machine()
    machine.noise()
    machine.add(LEAK, np.arange(-30, 60, 0.1), 1e9)
    found = judged(machine, "comm")
    assert [name for name, row in found.items() if row["kind"] == "leak"] == ["leaky"]


def test_who_grew_by_less_than_asked_is_left_out() -> None:
    machine = Machine()
    machine.add(LEAK, np.arange(-30, 60, 1), 1e9)
    assert judged(machine) == {}
    assert judged(machine, least=10)[LEAK]["kind"] == "leak"


def test_an_owner_that_comes_late_or_goes_is_counted_from_zero() -> None:
    watch = Watch("stack", 0)
    machine = Machine()
    machine.add(LEAK, [2.0], 10)
    machine.add(BREATHES, [-1.0], 1e9)
    for second in (0, 5, 10, 15):
        watch.add(START + second * S, rows_of(machine.at(second), ["stack"]))
    rows = {row["stack"]: row["series"] for row in watch.table().to_pylist()}
    assert rows == {LEAK: [0, 1, 1, 0], BREATHES: [1, 1, 1, 1]}


def test_other_boots_and_other_orders_are_refused() -> None:
    first, second = Machine().at(0), Machine().at(5)
    second.meta.boot_id = "other"
    with pytest.raises(UsageError, match="diff"):
        of_snapshots([first, second], "stack", S)
    with pytest.raises(UsageError, match="not later"):
        of_snapshots([first, first], "stack", S)


def test_available_memory_is_free_and_page_cache() -> None:
    machine = Machine()
    machine.add(CACHE, [-5.0] * 70, 1e9)
    machine.add(LEAK, [-5.0] * 30, 1e9)
    assert available_pages(machine.at(0)) == 100_070


def test_free_pages_count_the_lists_of_the_cpus() -> None:
    text = ("Node 0, zone   Normal\n  pages free     9\n  nr_free_pages 1000\n    cpu: 0\n"
            "              count:    63\n              high:     378\n    cpu: 1\n"
            "              count:    7\n")
    assert zones.free_pages(text) == 1070
    meminfo = "MemTotal: 9 kB\nMemAvailable:     4096 kB\n"
    assert zones.meminfo_pages(meminfo, "MemAvailable") == 1024
    assert zones.meminfo_pages(meminfo, "KernelStack") is None


@pytest.fixture
def saved(tmp_path: Path) -> list[Path]:
    machine = Machine()
    machine.noise()
    machine.add(LEAK, np.arange(-30, 60, 0.1), 1e9)
    machine.add(CACHE, np.arange(-30, 60, 0.05), 1e9)
    paths = []
    for look in range(0, 13, 2):
        paths.append(tmp_path / f"{look:02}.parquet")
        machine.at(look * EVERY).save(paths[-1])
    return paths


def test_saved_snapshots_make_a_series(cli: Callable[..., tuple[int, bytes, bytes]],
                                       saved: list[Path]) -> None:
    status, out, err = cli("leaks", *saved)
    assert (status, err) == (0, b"")
    text = out.decode()
    assert "here: 7 looks in 1 min, 3 owners by stack" in text
    head, row = text.split("\n\n")[1].split("\n")[:2]
    assert head.split()[:2] == ["PER", "HOUR"]
    assert row.split()[:2] == ["141", "MiB"]
    assert "anon_pipe_write" in row
    assert "cache that the kernel reclaims" in text
    assert text.index("anon_pipe_write") < text.index("page_cache_ra_unbounded")


def test_json_has_the_series_and_when_memory_is_full(
        cli: Callable[..., tuple[int, bytes, bytes]], saved: list[Path]) -> None:
    status, out, _ = cli("leaks", *saved, "--json")
    said = json.loads(out)
    assert status == 0
    leak, cache = said["owners"]
    assert (leak["kind"], cache["kind"]) == ("leak", "reclaimable")
    assert leak["stack"] == LEAK.split("\n")
    assert len(leak["series"]) == said["looks"] == 7
    rate = leak["bytes_per_hour"]
    assert leak["exhausted_in_s"] == pytest.approx(said["available"] / rate * 3600)
    assert said["available"] == (100_000 + 1800) * 4096


def test_no_leak_is_said(cli: Callable[..., tuple[int, bytes, bytes]], saved: list[Path]) -> None:
    status, out, _ = cli("leaks", *saved, "--stack", "alloc_anon*")
    assert status == 0
    assert b"No leak" in out


@pytest.mark.parametrize("words", [
    ("a", "b", "c"), ("--for", "5s"), ("--every", "0s"), ("--min", "lots"), ("--by", "colour")])
def test_what_cannot_be_asked_is_said_in_a_line(cli: Callable[..., tuple[int, bytes, bytes]],
                                                words: tuple[str, ...]) -> None:
    status, out, err = cli("leaks", *words)
    assert (status, out) == (2, b"")
    assert err.count(b"\n") == 1


def test_slow_looks_are_awaited_until_there_are_enough_for_a_trend() -> None:
    from pageowner.api.leaks import watch_for

    watched = Watch("stack", S)
    series = iter(Machine().series())

    def look() -> tuple[int, Rows, dict[str, int]]:
        time.sleep(0.05)
        snapshot = next(series)
        assert snapshot.meta.clock_ns is not None
        return snapshot.meta.clock_ns, rows_of(snapshot, ["stack"]), {}

    assert watch_for(watched, look, 60_000_000, 20_000_000) is False
    assert len(watched.times) == LEAST_SAMPLES


def test_a_folder_without_captures_and_standard_input_make_no_series(
        cli: Callable[..., tuple[int, bytes, bytes]], saved: list[Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for words, expected, why in (((empty, *saved), 1, b"without captures"),
                                 ((*saved, empty), 1, b"without captures"),
                                 (("-", *saved), 2, b"standard input"),
                                 (("-", "-", "-", "-"), 2, b"standard input"),
                                 ((*saved[:3], "/dev/null"), 2, b"can be read once")):
        status, out, err = cli("leaks", *words)
        assert (status, out) == (expected, b"")
        assert why in err
        assert err.count(b"\n") == 1


def test_pages_of_some_ages_cannot_be_chosen(saved: list[Path]) -> None:
    """Of pages that are all older than the rest of the watched time no birth was seen."""
    for ages in (Filter(older="50s"), Filter(newer="20s")):
        with pytest.raises(UsageError, match="all ages"):
            leaks(*saved, where=ages)


def test_it_is_said_why_ages_cannot_be_chosen(cli: Callable[..., Any]) -> None:
    done = cli("leaks", "--older", "5m")
    assert done.status == 2
    assert b"leaks are told by all ages" in done.err
    assert b"--older" not in cli("leaks", "--help").out


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_ctrl_c_in_the_midst_of_a_look_leaves_the_others_whole(
        monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    machine, watch, append = Machine(), Watch("stack", 10 * S), Watch._append
    machine.noise()
    machine.add(BURST, np.arange(58, 60, 0.1), 1e9)  # an owner that this look is the first to see
    machine.add(LEAK, np.arange(-30, 60, 0.1), 1e9)
    snapshots = machine.series()
    for snapshot in snapshots[:-1]:
        assert snapshot.meta.clock_ns
        watch.add(snapshot.meta.clock_ns, rows_of(snapshot, watch.names))
    seen, found = watch.table(), watch.leaks()
    left = [after]

    def interrupted(*words: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        append(*words)

    monkeypatch.setattr(Watch, "_append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        watch.add(START + 60 * S, rows_of(snapshots[-1], watch.names), {"untracked": 5})
    assert len(watch.times) == LOOKS - 1
    assert watch.table() == seen
    assert watch.leaks() == found
    assert LEAK in found["stack"].to_pylist()


def test_only_ctrl_c_gives_a_result() -> None:
    """SIGTERM and SIGHUP end leaks as they end all else."""
    from pageowner.api.leaks import watch_for
    from pageowner.cli import _Ended

    def look() -> Any:
        raise _Ended(signal.SIGTERM)

    with pytest.raises(_Ended):
        watch_for(Watch("stack", S), look, 3600 * S, S)


def test_ctrl_c_gives_the_result_so_far() -> None:
    from pageowner.api.leaks import watch_for

    machine = Machine()
    machine.add(LEAK, np.arange(-30, 60, 0.1), 1e9)
    looks = iter(range(LOOKS))

    def look() -> object:
        number = next(looks)
        if number == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return START + number * EVERY * S, rows_of(machine.at(number * EVERY), ["stack"]), {}

    watch = Watch("stack", 2 * S)
    assert watch_for(watch, look, 3600 * S, S // 100)  # type: ignore[arg-type]
    assert len(watch.times) == 5
    assert watch.leaks(10)["kind"].to_pylist() == ["leak"]
