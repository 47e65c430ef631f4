"""Objects of slabs: what a sample leaves uncertain, leaks that are one thing, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import pageowner
from pageowner.analysis.diff import check_units
from pageowner.analysis.filters import Filter
from pageowner.analysis.leaks import rows_of
from pageowner.analysis.one_leak import joined
from pageowner.analysis.sampled import bounds, share
from pageowner.analysis.sparse_slabs import sparse
from pageowner.api.export import export
from pageowner.api.watch import live_model
from pageowner.cli import main
from pageowner.errors import PageownerError, UsageError
from pageowner.model.live import OBJECT_FIELDS
from pageowner.model.metadata import Metadata
from pageowner.model.object_hooks import ALLOCATED_BY, FREED_BY, OBJECT_HOOKS
from pageowner.model.snapshot import Snapshot
from pageowner.model.source_kinds import OBJECTS, check_pages
from pageowner.model.tracking import Status
from pageowner.report.objects_view import about_objects, started
from pageowner.report.slabs_view import to_json
from pageowner.sources import of_objects
from pageowner.tracker.read import capture_objects, live_objects
from pageowner.tracker.read.layout import COUNTERS
from pageowner.tracker.read.seen import objects_seen

ONE_IN = 64


def drawn(sizes: np.ndarray, random: np.random.Generator) -> bool:
    """Whether the bounds of a sample of these sizes hold their sum; of an empty one nothing is
    shown."""
    chosen = np.zeros(0, np.int64)
    while not len(chosen):
        chosen = sizes[random.random(len(sizes)) < 1 / ONE_IN] * ONE_IN
    low, high = bounds(np.array([chosen.sum()]), np.array([(chosen.astype(float) ** 2).sum()]),
                       ONE_IN)
    return bool(low[0] <= sizes.sum() <= high[0])


@pytest.mark.parametrize(("number", "sizes"), [
    (200, (192,)), (1_000, (192,)), (20_000, (192,)), (1_000, (64, 96, 128)),
    (20_000, (64, 96, 128)), (20_000, (32, 32, 32, 4096))])
def test_bounds_hold_the_truth_in_95_of_100_samples(number: int, sizes: tuple[int, ...]) -> None:
    random = np.random.default_rng(7)
    objects = random.choice(np.array(sizes, np.int64), number)
    held = sum(drawn(objects, random) for _ in range(1000))
    assert 930 <= held <= 995


def test_without_a_sample_the_bounds_are_the_sum() -> None:
    low, high = bounds(np.array([4711, 0]), np.array([4711.0, 0]), 1)
    assert low.tolist() == high.tolist() == [4711, 0]


def test_bounds_grow_with_what_is_left_out() -> None:
    total, squares = np.array([64_000]), np.array([64_000.0 * 640])
    widths = [int(high[0] - low[0]) for low, high in
              (bounds(total, squares, one_in) for one_in in (1, 2, 8, 64))]
    assert widths == sorted(widths)
    assert widths[0] == 0


@pytest.fixture
def objects() -> Snapshot:
    """Three owners of objects, one in 64 of which is in it."""
    rows = 300
    caches = ["dentry", "filp", "kmalloc-64"]
    return Snapshot.from_columns({
        "address": np.arange(rows, dtype=np.uint64) * 192 + 0xFFFF888000000000,
        "cache": pa.array([caches[row % 3] for row in range(rows)]).dictionary_encode(),
        "requested": np.full(rows, 100, np.uint32),
        "comm": pa.array(["leaker"] * rows).dictionary_encode(),
        "tgid": np.full(rows, 4711, np.int32),
        "ts_ns": np.arange(rows, dtype=np.uint64) * 1000,
        "stack": pa.array([f"kmem_cache_alloc_noprof+0x1/0x2\nopen_{row % 3}+0x1/0x2"
                           for row in range(rows)]).dictionary_encode(),
        "blocks": np.full(rows, ONE_IN, np.uint64),
        "amount": np.full(rows, 192 * ONE_IN, np.uint64),
    }, Metadata(source="", kind=OBJECTS, page_size=1, clock_ns=10**9, host="here",
                hooks={"kfree": "active", "kmem_cache_free_bulk": "refused: locked down"},
                counters={"objects_missed": 3, "objects_overwritten": 0},
                extra={"objects": {"share": ONE_IN, "there": {"dentry": 7000},
                           "early": {"dentry": 600}}}))


def test_a_saved_snapshot_of_objects_is_what_it_was(objects: Snapshot, tmp_path: Path) -> None:
    objects.save(tmp_path / "objects.parquet")
    again = pageowner.read(tmp_path / "objects.parquet")
    assert again.table.equals(objects.table)
    assert again.meta.extra["objects"] == {"share": ONE_IN, "there": {"dentry": 7000},
                                           "early": {"dentry": 600}}
    assert share(again.meta) == ONE_IN
    assert again.report("cache").to_pylist() == objects.report("cache").to_pylist()


def test_objects_are_reported_with_their_bounds(objects: Snapshot) -> None:
    rows = objects.report("cache").to_pylist()
    assert [(row["cache"], row["blocks"], row["pages"]) for row in rows] == [
        (cache, 6400, 6400 * 192) for cache in ("dentry", "filp", "kmalloc-64")]
    assert all(row["low"] < row["pages"] < row["high"] for row in rows)
    assert objects.select(cache="filp").blocks == 6400


def test_a_difference_of_estimates_says_so_and_decides_nothing(
        objects: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects.save(tmp_path / "a")
    objects.select(cache="filp").save(tmp_path / "b")
    words = ["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--by", "cache"]
    assert main(words) == 0
    assert "One object in 64 is followed, so sizes are estimates." in capsys.readouterr().out
    assert main([*words, "--fail-over", "1MiB"]) == 1
    said = capsys.readouterr()
    assert (said.out, "--fail-over needs all objects" in said.err) == ("", True)


@pytest.mark.parametrize("key", ["order", "user", "memcg", "container", "zone"])
def test_objects_are_not_grouped_by_what_they_do_not_have(objects: Snapshot, key: str) -> None:
    with pytest.raises(UsageError, match=f"objects have no {key}; they can be grouped by stack,"
                                         r" comm, pid, .*cache"):
        objects.report(["stack", key])
    with pytest.raises(UsageError, match=f"objects have no {key}"):
        rows_of(objects, [key])
    assert len(objects.report(["cache", "state", "subsystem"])) == 3


def test_objects_may_have_no_stack_that_is_known(objects: Snapshot, tmp_path: Path) -> None:
    place = objects.table.schema.get_field_index("stack")
    nothing = pa.nulls(objects.table.num_rows, objects.table["stack"].type)
    without = replace(objects, table=objects.table.set_column(place, "stack", nothing))
    assert without.report("stack")["stack"].to_pylist() == [None]
    export(without, tmp_path / "x", "pprof")


def test_tables_of_objects_tell_their_caches(objects: Snapshot, tmp_path: Path) -> None:
    export(objects, tmp_path / "owners.csv", "csv")
    head = (tmp_path / "owners.csv").read_text().split("\n")[0]
    assert head.split(",") == ["stack", "cache", "comm", "pid", "pages", "blocks", "bytes"]
    for kind in ("pprof", "folded", "speedscope", "json", "parquet"):
        export(objects, tmp_path / kind, kind)


def test_objects_and_the_pages_of_now_are_not_compared(objects: Snapshot) -> None:
    with pytest.raises(PageownerError, match="with --objects this machine is asked for its obj"):
        check_units(objects.meta, Metadata(kind="tracker"))
    with pytest.raises(PageownerError, match=r"cannot be compared with pages by owner$"):
        check_units(objects.meta, Metadata(kind="page_owner"))
    with pytest.raises(PageownerError, match=r"cannot be compared with pages by owner$"):
        check_units(objects.meta, Metadata(kind="tracker", source="b.parquet"))


def test_what_needs_pages_says_so(objects: Snapshot) -> None:
    with pytest.raises(PageownerError, match=r"slabs rather than pages; .* a capture of pages"):
        check_pages(objects.meta)


def test_it_is_said_what_objects_do_not_tell(objects: Snapshot) -> None:
    text = "\n".join(about_objects(objects.meta))
    assert "One object in 64 is followed" in text
    assert "locked down; so objects freed in bulk" in text
    assert "began are not among them: about 600 (dentry 600), by /proc/slabinfo." in text
    assert "By it" not in text
    assert "3 events that found the programs at work" in text
    assert "overwritten" not in text
    objects.meta.extra["objects"]["later"] = {"a": 1, "b": 2000, "c": 30, "d": 4}
    assert "By it about 2,035 (b 2,000, c 30, d 4, …) more are in use" in "\n".join(
        about_objects(objects.meta))
    objects.meta.extra["options"] = {"min_order": 2, "kernel_only": True}  # of pages
    assert "Objects of others" not in "\n".join(about_objects(objects.meta))
    objects.meta.extra["options"] = {"tgid": 4711, "min_order": 2}
    assert "Objects of others are not among them: tracking is on with --pid 4711" in "\n".join(
        about_objects(objects.meta))


def test_objects_of_a_cache_without_a_name_are_there_too() -> None:
    names = pa.array(["dentry", "filp"]).dictionary_encode().take(pa.array([0, None, 1, None]))
    assert capture_objects._migratetypes(names).to_pylist() == [
        "Reclaimable", "Unmovable", "Unmovable", "Unmovable"]
    columns = {"cache": names, "blocks": np.full(4, 2, np.uint64)}
    there = {"dentry": 7, "filp": 1, "new": 4}
    left = capture_objects._not_followed
    assert left(there, None, 1, columns) == ({"dentry": 5, "new": 4}, {})
    assert left(there, {"dentry": 3, "filp": 9}, 1, columns) == (
        {"dentry": 3}, {"dentry": 2, "new": 4})
    # of estimates, what may be chance is not said to be there
    assert left(there, {"dentry": 3}, 64, columns)[1] == {}


def test_every_hook_on_objects_has_a_counter_of_its_own() -> None:
    counters = [hook.seen_by for hook in OBJECT_HOOKS]
    assert len(set(counters)) == len(counters)
    assert set(counters) <= set(COUNTERS)
    assert {*ALLOCATED_BY, *FREED_BY} == set(counters)


def test_a_hook_on_objects_is_active_once_it_has_seen_one() -> None:
    states = objects_seen({"kfree": "attached", "kmalloc": "attached", "percpu_free_percpu": "x"},
                          {"objects_kfree": 2, "objects_kmalloc": 0})
    assert states == {"kfree": "active", "kmalloc": "attached", "percpu_free_percpu": "x"}


ENTRY = "__x64_sys_eventfd2+0x1/0x2\ndo_syscall_64+0x1/0x2\nentry_SYSCALL_64_after_hwframe+0x1/0x2"


def leak(stack: str | None, gained: int, kind: str = "leak", tgid: int = 4711) -> dict[str, object]:
    return {"stack": stack, "kind": kind, "pages": gained, "gained": gained,
            "each": float(gained), "rate": float(gained), "rate_low": float(gained),
            "rate_high": float(gained), "settled": gained, "came": gained, "stayed": gained,
            "series": [0, gained // 2, gained], "settled_series": [0, 0, gained],
            "tasks": [{"comm": "leaker", "tgid": tgid, "pages": gained}]}


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows))


def test_caches_of_one_call_are_one_leak_by_the_objects_own_stack() -> None:
    found = joined(table(
        leak(f"kmem_cache_alloc+0x1/0x2\nalloc_empty_file+0x1/0x2\ndo_eventfd+0x1/0x2\n{ENTRY}",
             900),
        leak(f"__kmalloc+0x1/0x2\ndo_eventfd+0x9/0x2\n{ENTRY}", 300),
        leak(f"kmem_cache_alloc_lru+0x1/0x2\n__d_alloc+0x1/0x2\ndo_eventfd+0x1/0x2\n{ENTRY}", 800,
             "reclaimable"))).to_pylist()
    assert len(found) == 1
    assert found[0]["stack"].startswith("__kmalloc")
    assert found[0]["kind"] == "leak"
    assert found[0]["gained"] == found[0]["tasks"][0]["pages"] == 2000
    assert found[0]["series"] == [0, 1000, 2000]
    assert [part["gained"] for part in found[0]["with"]] == [900, 800]


@pytest.mark.parametrize("other", [
    leak(f"kmem_cache_alloc+0x1/0x2\nalloc_file+0x1/0x2\ndo_eventfd+0x1/0x2\n{ENTRY}", 9, tgid=1),
    leak(f"kmem_cache_alloc+0x1/0x2\nother+0x1/0x2\n{ENTRY.replace('eventfd2', 'pipe2')}", 9),
    leak(f"kmem_cache_alloc+0x1/0x2\nalloc_file+0x1/0x2\ndo_eventfd+0x1/0x2\n{ENTRY}", 9, "grows"),
    leak(None, 9),
    leak(f"kmem_cache_alloc_lru+0x1/0x2\n__d_alloc+0x1/0x2\ndo_eventfd+0x1/0x2\n{ENTRY}", 9,
         "reclaimable", tgid=1),
], ids=["another process", "another call", "no leak", "no stack", "another's cache"])
def test_other_leaks_stay_apart(other: dict[str, object]) -> None:
    mine = leak(f"__kmalloc+0x1/0x2\ndo_eventfd+0x9/0x2\n{ENTRY}", 300)
    found = joined(table(mine, other)).to_pylist()
    assert [row["gained"] for row in found] == [300, 9]
    assert [row["with"] for row in found] == [[], []]


def test_a_table_without_stacks_stays_as_it_is() -> None:
    given = pa.table({"comm": ["a"]})
    assert joined(given) is given


def slabs_and_objects(*held: tuple[int, str, str]) -> tuple[Snapshot, Snapshot]:
    """Slabs of order 1 at frames 8, 10, …, the last of which is early, and objects: the slab's
    number, the cache and the function of each."""
    pages = Snapshot.from_columns({
        "pfn": np.array([8, 10, 12, 14], np.uint64), "order": np.array([1, 1, 1, 1], np.uint8),
        "state": pa.array(["owned", "owned", "owned", "early"]).dictionary_encode(),
    }, Metadata(source="", kind="tracker"))
    objects = Snapshot.from_columns({
        "pfn": pa.array([None if slab < 0 else 8 + 2 * slab + place % 2
                         for place, (slab, _, _) in enumerate(held)], pa.uint64()),
        "cache": pa.array([cache for _, cache, _ in held]).dictionary_encode(),
        "stack": pa.array([f"kmem_cache_alloc+0x1/0x2\n{name}+0x1/0x2"
                           for _, _, name in held]).dictionary_encode(),
        "blocks": np.ones(len(held), np.uint64), "amount": np.full(len(held), 64, np.uint64),
    }, Metadata(source="", kind=OBJECTS, page_size=1))
    return objects, pages


def test_slabs_are_his_whose_objects_alone_are_in_them() -> None:
    found = sparse(*slabs_and_objects(
        (0, "filp", "a"), (0, "filp", "a"), (1, "filp", "a"), (1, "filp", "b"),
        (2, "filp", "b"), (2, "filp", "b"), (2, "filp", "b"), (3, "filp", "a"),
        (-1, "percpu", "a")), {"filp": (4, 2)})
    assert found.owners.to_pylist() == [{
        "cache": "filp", "stack": "kmem_cache_alloc+0x1/0x2\na+0x1/0x2", "slabs": 1, "pages": 2,
        "objects": 2, "room": 4}]
    assert (found.shared, found.full, found.early) == (2, 2, 2)


def test_programs_get_as_many_owners_of_slabs_as_they_ask_for() -> None:
    found = sparse(*slabs_and_objects((0, "filp", "a"), (1, "filp", "b")), {"filp": (4, 2)})
    for top, number in ((None, 2), (1, 1)):
        document = to_json(found, Metadata(kind=OBJECTS), 4096, top).document
        assert len(document["owners"]) == number


def test_slabs_of_a_cache_without_a_known_room_are_not_called_empty() -> None:
    found = sparse(*slabs_and_objects((0, "unknown", "a")), {"filp": (4, 2)})
    assert found.owners.num_rows == 0
    assert (found.shared, found.full, found.early) == (0, 0, 0)


def test_what_was_allocated_after_an_object_is_not_its_slab() -> None:
    objects, pages = slabs_and_objects((0, "filp", "a"))
    for snapshot, when in ((objects, 5), (pages, 9)):
        place = snapshot.table.schema.get_field_index("ts_ns")
        column = pa.array([when] * snapshot.table.num_rows, pa.uint64())
        object.__setattr__(snapshot, "table", snapshot.table.set_column(place, "ts_ns", column))
    found = sparse(objects, pages, {"filp": (4, 2)})
    assert found.owners.num_rows == found.shared == found.full == found.early == 0


def test_a_block_larger_than_a_slab_of_the_cache_is_none() -> None:
    found = sparse(*slabs_and_objects((0, "filp", "a")), {"filp": (4, 1)})
    assert found.owners.num_rows == found.full == 0


def test_without_objects_no_slab_is_named() -> None:
    found = sparse(*slabs_and_objects((-1, "percpu", "a")), {})
    assert found.owners.num_rows == found.shared == found.full == found.early == 0


@pytest.mark.parametrize("words", [["report", "x.parquet"], ["leaks", "a", "b"],
                                   ["diff", "a", "b"], ["save", "out.parquet", "x.parquet"],
                                   ["flame", "a", "--svg", "x.svg"]])
def test_objects_are_asked_of_this_machine_alone(words: list[str],
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--objects"]) == 2
    assert "--objects asks this machine" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["frag", "map", "dump", "who"])
def test_what_needs_pages_does_not_offer_objects(verb: str,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--objects"]) == 2
    assert "no option --objects" in capsys.readouterr().err


def test_the_live_view_of_objects_refuses_keys_that_they_do_not_have() -> None:
    assert live_objects._SOURCE.keys() == OBJECT_FIELDS
    with of_objects.asking(True):
        for key, where in (("memcg", Filter()), ("cgroup", Filter()), ("user", Filter()),
                           ("stack", Filter(container="x")), ("comm", Filter(order=(0,)))):
            with pytest.raises(UsageError, match=r"objects have no .*chosen by stack, comm"):
                live_model(key, "2s", where)
        for key in ("subsystem", "cache", "tgid", "gfp"):
            live_model(key, "2s", Filter(comm="x", older="1m"))


@pytest.mark.parametrize(("share", "hooks", "text"), [
    (1, {"kfree": "attached"}, "all objects of slabs are followed"),
    (64, {"kfree": "attached", "kmem_cache_free_bulk": "refused: no"},
     "one object of slabs in 64 is followed; not hooked: kmem_cache_free_bulk"
     " (what that means: report --objects)")])
def test_on_says_which_objects_are_followed(share: int, hooks: dict[str, str], text: str) -> None:
    assert started(Status(True, objects={"share": share, "hooks": hooks})) == text
