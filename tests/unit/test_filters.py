"""Filters keep just the rows that match, by the same words in Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from said import one_line

import pageowner
from pageowner.errors import PageownerError, UsageError
from pageowner.model.schema import Filter
from pageowner.model.snapshot import Metadata, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    Cli = Callable[..., Any]


def test_every_filter_keeps_just_the_rows_that_match(
        sample61: Snapshot, few: Snapshot) -> None:
    some = few
    rows = {id(one): one.table.to_pylist() for one in (some, sample61)}

    def both(snapshot: Snapshot, good: Callable[[dict[str, Any]], bool], **words: Any) -> int:
        expected = [row["pfn"] for row in rows[id(snapshot)] if good(row)]
        assert snapshot.select(**words).table["pfn"].to_pylist() == expected
        return len(expected)

    newest = max(row["ts_ns"] for row in rows[id(some)])
    assert both(some, lambda row: row["pid"] in (0, 1), tid=(0, 1))
    assert both(sample61, lambda row: row["tgid"] == 1, pid=1)
    assert both(some, lambda row: row["comm"].startswith("worker/"), comm="worker/*")
    assert both(sample61, lambda row: row["memcg"] is not None, memcg="*")
    assert both(some, lambda row: row["order"] in (1, 3), order=(1, 3))
    assert both(some, lambda row: row["zone"] == "0", zone="0")
    assert both(some, lambda row: "__GFP_ZERO" in row["gfp_flags"].split("|"), gfp="zero")
    assert both(some, lambda row: {"__GFP_ZERO", "__GFP_COMP"} <= set(
        row["gfp_flags"].split("|")), gfp=("COMP", "__GFP_ZERO"))
    assert both(some, lambda row: row["migratetype"] == "Movable", migratetype="movable")
    assert both(some, lambda row: row["state"] == "early", state="early")
    assert both(some, lambda row: any(
        frame.startswith("alloc_skb_with_frags+") for frame in row["stack"].split("\n")),
        stack="alloc_skb_with_frags")
    assert both(some, lambda row: newest - row["ts_ns"] >= 30 * 10**9, older="30s")
    assert both(some, lambda row: newest - row["ts_ns"] <= 12.5 * 10**9, newer="12.5s")
    assert both(some, lambda row: row["comm"] == "dd" and row["order"] == 0, comm="dd", order=0)
    assert both(some, lambda row: row["comm"] in ("dd", "python3"), comm=("dd", "python3"))
    assert both(some, lambda row: True, node=0)
    assert both(some, lambda row: False, subsystem="no such use") == 0


@pytest.mark.parametrize(("line", "names"), [
    ("pipe_write (fs/pipe.c:540)", ["pipe_write"]),
    ("ext4_read (fs/ext4/file.c:9) ext4", ["ext4_read"]),
    ("__x64_sys_write+0x1/0x2", ["__x64_sys_write", "sys_write"]),
    ("alloc_pages_noprof+0x1/0x2", ["alloc_pages_noprof", "alloc_pages"]),
    ("f.isra.0+0x1/0x2 [mod]", ["f.isra.0", "f"]), (" [<ffffffff811682c4>] g+0x1/0x2", ["g"])])
def test_a_function_is_chosen_as_printed_and_as_tables_name_it(line: str,
                                                               names: list[str]) -> None:
    rows = Snapshot.from_columns({"order": [0, 0], "stack": [f"a+0x1/0x2\n{line}", "b+0x1/0x2"]},
                                 Metadata())
    for name in names:
        assert rows.select(stack=name).blocks == 1, name
    assert rows.select(stack=["*[m*", "*ffff*", "*0x1*", "*fs*"]).blocks == 0


def test_ages_count_from_the_whole_dump_whatever_is_filtered(big: Snapshot) -> None:
    from pageowner.analysis.select import newest_ns

    newest = max(big.table["ts_ns"].to_pylist())
    old = big.select(comm="nginx")
    assert max(old.table["ts_ns"].to_pylist()) < newest
    assert newest_ns(old) == newest_ns(big) == newest
    assert old.select(newer="1s").table.num_rows == 0


def test_filters_are_the_same_words_on_the_command_line(
        cli: Cli, few_saved: Path, few: Snapshot) -> None:
    for words, chosen in (
            (["--comm", "dd", "--comm", "java"], {"comm": ("dd", "java")}),
            (["--order", "0x1,3"], {"order": (1, 3)}), (["--pid", "1"], {"pid": 1}),
            (["--tid", "1"], {"tid": 1}), (["--gfp", "ZERO,COMP"], {"gfp": "ZERO,COMP"}),
            (["--migratetype", "Movable"], {"migratetype": "Movable"}),
            (["--older", "40s"], {"older": "40s"}), (["--newer", "10s"], {"newer": "10s"}),
            (["--stack", "*skb*"], {"stack": "*skb*"}), (["--zone", "1"], {"zone": "1"}),
            (["--subsystem", "network*"], {"subsystem": "network*"}),
            (["--module", "nfs"], {"module": "nfs"}), (["--node", "0"], {"node": 0}),
            (["--state", "early"], {"state": "early"})):
        said = json.loads(cli("report", few_saved, "--json", *words).out)
        assert said["pages"] == few.select(**chosen).pages
    nothing = cli("report", few_saved, "--comm", "nobody")
    assert (nothing.status, nothing.err) == (0, b"pageowner: nothing of 1,852 blocks matches\n")
    part = cli("report", few_saved, "--stack", "handle_mm", "--json")
    assert part.err.startswith(b"pageowner: nothing of 1,852 blocks matches; names are matched"
                               b" whole, and '*handle_mm*' is in ")
    # of what no function is called: offsets, and parts of modules
    assert cli("report", few_saved, "--stack", "0x1").err.endswith(b"blocks matches\n")
    assert b"0 pages" in nothing.out
    assert cli("dump", few_saved, "--comm", "nobody").out == b""
    assert cli("stacks", few_saved, "--comm", "nobody").out == b""


@pytest.mark.parametrize(("words", "lacking"), [
    (["--memcg", "x"], "cgroups, so --memcg"), (["--older", "1s"], "times of allocations, so --o"),
    (["--newer", "1s"], "times of allocations, so --newer"), (["--node", "0"], "NUMA nodes"),
    (["--zone", "Normal"], "zones"), (["--pid", "1"], "which processes allocated"),
    (["--comm", "x"], "names of tasks"), (["--tid", "1"], "which threads allocated"),
    (["--gfp", "ZERO"], "names of gfp flags"), (["--stack", "x"], "stacks, so --stack"),
    (["--module", "x"], "stacks, so --module"), (["--subsystem", "x"], "stacks, so --subsystem")])
def test_a_filter_on_what_the_source_does_not_know_is_an_error_and_no_empty_answer(
        cli: Cli, tmp_path: Path, words: list[str], lacking: str) -> None:
    bare = tmp_path / "bare.txt"  # as of 3.19, its pfns and stacks cut away
    bare.write_bytes(b"Page allocated via order 0, mask 0x280da\n\n" * 3)
    saved = tmp_path / "bare.parquet"
    pageowner.read(bare).save(saved)
    for source, verb in ((bare, "report"), (saved, "dump"), (saved, "stacks")):
        said = cli(verb, source, *words)
        assert (said.status, said.out) == (1, b"")
        assert f"bare.txt does not know {lacking}" in one_line(said.err)
    said = cli("save", tmp_path / "none.parquet", bare, *words)
    assert (said.status, (tmp_path / "none.parquet").exists()) == (1, False)


def test_a_filter_that_the_source_knows_of_some_rows_may_match_none(
        cli: Cli, few_saved: Path, tmp_path: Path) -> None:
    assert cli("report", few_saved, "--comm", "no such task").status == 0
    # of pages in use since before `on` no task is known; of others, once there are some, it is
    fresh = pageowner.Snapshot.from_columns(
        {"pfn": [1, 2], "order": [0, 0], "state": ["early", "early"], "page_flags": [0x80, 0]},
        pageowner.Metadata(kind="tracker"))
    fresh.save(path := tmp_path / "fresh.parquet")
    for words in (["--comm", "x"], ["--older", "1s"], ["--stack", "x"]):
        assert json.loads(cli("report", path, "--json", *words).out)["pages"] == 0
    assert json.loads(cli("report", path, "--json", "--subsystem", "slab*").out)["pages"] == 1
    assert cli("report", path, "--memcg", "/").status == 1


def test_memory_is_told_by_its_allocator_and_by_the_type_of_its_pageblock() -> None:
    text = str(Path(__file__).parent.parent / "data/texts/cma-pageblocks.txt")
    cma = pageowner.read(text)
    assert cma.select(block_type="CMA").table.num_rows == 2
    assert cma.select(block_type="CMA", migratetype="Unmovable").table["pfn"].to_pylist() == [
        0x23d200]
    by = {row["allocator"]: row["pages"] for row in cma.report("allocator").to_pylist()}
    assert by == {"large kmalloc": 512, "pages": 1}
    assert cma.select(allocator="large kmalloc").table["order"].to_pylist() == [9]
    with pytest.raises(pageowner.UsageError, match="no block type 'Movabel'; did you mean Movable"):
        cma.select(block_type="Movabel")
    with pytest.raises(pageowner.UsageError, match="there is no allocator 'slub'"):
        cma.select(allocator="slub")


def test_pages_without_a_stack_are_slabs_if_their_flag_says_so(sample61: Snapshot) -> None:
    import pyarrow as pa

    from pageowner.analysis.keys import key
    from pageowner.kernel.flag_bits import mask

    bare = sample61.table.slice(0, 3)
    for name, column in (("stack", pa.nulls(3, bare.schema.field("stack").type)),
                         ("page_flags", pa.array([mask("slab"), mask("lru"), None], pa.uint64()))):
        bare = bare.set_column(bare.schema.get_field_index(name), name, column)
    found = key(type(sample61)(bare, sample61.meta), "allocator")
    assert [found.labels[code].as_py() for code in found.codes] == ["slab", None, None]


def test_cgroups_that_are_gone_are_told_from_those_that_are_not(
        few: Snapshot, cli: Cli, tmp_path: Path) -> None:
    text = tmp_path / "dump.txt"
    record = ("Page allocated via order 0, mask 0xcc0(GFP_KERNEL), pid 7, tgid 7 (sh), ts 9 ns\n"
              "PFN {:#x} type Movable Block 1 type Movable Flags 0x0(node=0|zone=1)\n"
              " pipe_write+0x1/0x2\n{}\n")
    lines = ["Charged to memcg a\n", "Charged to offline memcg a\n",
             "Charged to offlined memcg b\n", "Charged (via objcg) to offline memcg /\n",
             "Slab cache page\nCharged (via objcg) to memcg c\n", "Slab cache page\n", ""]
    text.write_text("".join(record.format(0x1000 + n, line) for n, line in enumerate(lines)))
    gone = pageowner.read(text)
    states = {row["memcg_state"]: row["pages"] for row in gone.report("memcg_state").to_pylist()}
    assert states == {"online": 2, "offline": 3, None: 2}
    assert gone.select(memcg_state="offline").table["memcg"].to_pylist() == ["a", "b", "/"]
    with pytest.raises(pageowner.UsageError, match="there is no memcg state 'gone'"):
        gone.select(memcg_state="gone")
    out = json.loads(cli("report", text, "--by", "memcg_state", "--json").out)
    assert {row["memcg_state"]: row["pages"] for row in out["owners"]} == states
    saved = tmp_path / "saved.parquet"
    gone.save(saved)
    assert pageowner.read(saved).select(memcg_state="online").table.num_rows == 2
    with pytest.raises(pageowner.PageownerError, match="does not know which cgroups are offline"):
        few.select(memcg_state="offline")


def test_a_live_capture_tells_cgroups_that_are_gone_by_their_names(sample61: Snapshot) -> None:
    import pyarrow as pa

    from pageowner.analysis.keys import key

    bare = sample61.table.slice(0, 3)
    for name, column in (("notes", pa.nulls(3, bare.schema.field("notes").type)),
                         ("memcg", pa.array(["/a", "cgroup 12 (gone)", None]))):
        bare = bare.set_column(bare.schema.get_field_index(name), name, column)
    found = key(type(sample61)(bare, sample61.meta), "memcg_state")
    assert [found.labels[code].as_py() for code in found.codes] == ["online", "offline", None]


def test_rows_without_a_state_are_owned() -> None:
    objects = Snapshot.from_columns({"address": [1, 2], "amount": [8, 8]}, Metadata(kind="objects"))
    assert objects.select(state="owned").table.num_rows == 2
    assert objects.select(state="early").table.num_rows == 0


def test_orders_that_a_source_does_not_have_are_not_selected() -> None:
    texts = Path(__file__).parents[1] / "data/texts"
    with pytest.raises(PageownerError, match="does not know orders of blocks, so --order"):
        pageowner.read(texts / "allocinfo-1.0.txt").select(order=0)


def test_top_selects_by_what_a_look_tells() -> None:
    with pytest.raises(UsageError, match="top cannot select by --block-type; a capture can"):
        next(pageowner.watch(where=Filter(block_type=("CMA",))))
