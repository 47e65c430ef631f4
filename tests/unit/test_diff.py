"""``pageowner diff``: it tells what two reports differ in, and stacks of two kernels meet."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

import pageowner
from pageowner.analysis import diff
from pageowner.analysis.filters import KEYS, size_bytes
from pageowner.analysis.subsystems import functions
from pageowner.errors import UsageError
from pageowner.model.metadata import Metadata

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Done
    from pageowner import Snapshot

EVIL = "evil\x1b[2J\n, ts 1 ns"


def made(seed: int, rows: int = 400) -> Snapshot:
    """Random rows of few owners; of some, nothing is known."""
    chance = random.Random(seed)
    columns = {
        "order": [chance.choice([0, 0, 0, 1, 3, 9]) for _ in range(rows)],
        "comm": [chance.choice(["a", "b", "c", EVIL, None, f"only{seed}"]) for _ in range(rows)],
        "tgid": [chance.choice([1, 2, 3, None]) for _ in range(rows)],
        "stack": [chance.choice([None, *(f"f{n}+0x{seed}/0x99 [m{n % 2}]\ng+0x{seed}/0x9"
                                         for n in range(4))]) for _ in range(rows)],
        "state": ["owned"] * rows}
    return pageowner.Snapshot.from_columns(columns, Metadata(source=f"s{seed}"))


def changes(before: Snapshot, after: Snapshot, by: list[str], **options: str) -> list[dict]:
    table = diff.difference(diff.owners_of(before, by), diff.owners_of(after, by), by, **options)
    return table.to_pylist()


def counted(snapshot: Snapshot, by: list[str]) -> Counter[tuple[object, ...]]:
    """Pages by owner, with nothing of the package."""
    pages: Counter[tuple[object, ...]] = Counter()
    columns = ["tgid" if name == "pid" else name for name in by]
    rows = snapshot.table.select([*columns, "order"]).to_pylist()
    for row in rows:
        stack = row.get("stack")
        if stack:
            row["stack"] = re.sub(r"\+0x\S+", "", stack)
        pages[tuple(row[name] for name in columns)] += 1 << row["order"]
    return pages


@pytest.mark.parametrize("by", [["stack"], ["comm"], ["pid"], ["comm", "stack", "pid"]])
def test_every_owner_that_changed_is_told_once_with_its_pages(by: list[str]) -> None:
    before, after = made(1), made(2)
    old, new = counted(before, by), counted(after, by)
    found = changes(before, after, by)
    told = {tuple(row[name] for name in by): row for row in found}
    assert len(told) == len(found)
    assert set(told) == {owner for owner in old | new if old[owner] != new[owner]}
    for owner, row in told.items():
        assert (row["pages_before"], row["pages_after"]) == (old[owner], new[owner])
        assert row["gained"] - row["lost"] == new[owner] - old[owner]
        assert min(row["gained"], row["lost"]) == 0
        assert row["became"] == ("new" if not old[owner] else "gone" if not new[owner] else
                                 "grown" if new[owner] > old[owner] else "shrunk")
    if by == ["comm"]:
        assert {row["comm"]: row["became"] for row in found}.items() >= {
            "only1": "gone", "only2": "new"}.items()


@pytest.mark.parametrize("by", KEYS)
def test_nothing_differs_from_itself(by: str, sample61: Snapshot, text61: Path,
                                     cli: Callable[..., Done]) -> None:
    assert changes(sample61, sample61, [by]) == []
    done = cli("diff", text61, text61, "--by", by, "--json", "--fail-over", "0")
    assert (done.status, done.err) == (0, b"")
    assert json.loads(done.out)["changes"] == []


def test_the_order_asked_for() -> None:
    before, after = made(1), made(2)
    found = changes(before, after, ["comm", "pid"])
    size = [row["gained"] + row["lost"] for row in found]
    assert size == sorted(size, reverse=True)
    for sort, name in (("gained", "gained"), ("lost", "lost"), ("before", "pages_before"),
                       ("after", "pages_after")):
        values = [row[name] for row in changes(before, after, ["comm", "pid"], sort=sort)]
        assert values == sorted(values, reverse=True)
        assert [row[name] for row in changes(before, after, ["comm", "pid"], sort=sort,
                                             reverse=True)] == values[::-1]
    for sort in ("name", "comm", "task"):
        names = [row["comm"] or "~" for row in changes(before, after, ["comm", "pid"], sort=sort)]
        assert names == sorted(names)
    with pytest.raises(UsageError, match="cannot sort by 'pid'"):
        changes(before, after, ["comm"], sort="pid")


def test_stacks_of_the_same_functions_of_two_kernels_meet(
        sample61: Snapshot, big: Snapshot) -> None:
    found = changes(sample61, big, ["stack"])
    met = {row["stack"].split("\n")[0]: row for row in found
           if row["became"] in ("grown", "shrunk")}
    # read off both dumps by eye: skbs of unix sockets, huge pages, page cache read by a fault
    assert met["alloc_skb_with_frags"]["pages_before"]
    assert met["do_huge_pmd_anonymous_page"]["became"] == "grown"
    assert met["__filemap_get_folio"]["became"] == "grown"
    assert len([row for row in found if row["became"] in ("grown", "shrunk")]) >= 13
    # and none of them would have with the allocator's own frames, whose names changed
    texts = [{"\n".join(line.partition("+")[0] for line in stack.split("\n"))
              for stack in one.table["stack"].unique().to_pylist()} for one in (sample61, big)]
    assert not texts[0] & texts[1]


def test_what_a_stack_is_matched_by() -> None:
    of_6_1 = """\
prep_new_page+0x1/0x2
get_page_from_freelist+0x3/0x4
__alloc_pages+0x5/0x6
pipe_write.isra.0+0x7/0x8
ext4_file_write_iter.constprop.0.cold+0x7/0x8 [ext4 0123456789abcdef]
__x64_sys_write+0x9/0xa
do_syscall_64+0xb/0xc
entry_SYSCALL_64_after_hwframe+0xd/0xe"""
    of_6_12 = """\
 [<ffffffff811682c4>] __alloc_frozen_pages_noprof+0x5/0x60
alloc_pages_mpol+0x5/0x6
pipe_write+0x70/0x80
ext4_file_write_iter+0x1/0x2 [ext4]
__do_sys_write+0x90/0xa0
x64_sys_call+0x1/0x2
do_syscall_64+0xb0/0xc0
entry_SYSCALL_64_after_hwframe+0xd0/0xe0"""
    assert functions(of_6_1) == functions(of_6_12)
    assert list(map(str, functions(of_6_1))) == [
        "pipe_write", "ext4_file_write_iter [ext4]", "sys_write"]
    assert functions(of_6_1) != functions(of_6_1.replace("[ext4 0123456789abcdef]", ""))
    assert functions("do_syscall_64+0x1/0x2")  # not all of it is left out
    assert functions("prep_new_page+0x1/0x2\n__alloc_pages+0x5/0x6")


def test_a_dump_counted_and_a_snapshot_read_tell_the_same(
        some_records: Path, text61: Path, tmp_path: Path, cli: Callable[..., Done]) -> None:
    saved = tmp_path / "saved.parquet"
    pageowner.read(some_records).save(saved)
    for by in ("stack", "comm,order", "gfp,subsystem", "memcg,state,node"):
        whole, rows = (json.loads(cli("diff", text61, after, "--by", by, "--json").out)
                       for after in (some_records, saved))
        assert whole["changes"] == rows["changes"]
        assert whole["changes"]


def test_json_adds_up(text61: Path, some_records: Path, cli: Callable[..., Done]) -> None:
    for words in ([], ["--top", "3"], ["--comm", "python3"], ["--order", "0", "--by", "comm"]):
        said = json.loads(cli("diff", text61, some_records, "--json", *words).out)
        assert said["before"]["pages"] + said["gained"] - said["lost"] == said["after"]["pages"]
        for name in ("owners", "gained", "lost", "new", "gone", "grown", "shrunk"):
            shown = (len(said["changes"]) if name == "owners" else
                     sum(one[name] for one in said["changes"]) if name in ("gained", "lost")
                     else sum(one["became"] == name for one in said["changes"]))
            assert shown + said["rest"][name] == said[name]
        assert len(said["changes"]) == (3 if words == ["--top", "3"] else said["owners"])


def test_the_table_sums_up_what_it_does_not_show(text61: Path, some_records: Path,
                                                 cli: Callable[..., Done]) -> None:
    said = json.loads(cli("diff", text61, some_records, "--json", "--by", "comm").out)
    text = cli("diff", text61, some_records, "--by", "comm", "--top", "2").out.decode()
    lines = text.splitlines()
    assert lines[0].startswith(f"before: {text61}: ")
    assert lines[1].startswith(f"after:  {some_records}: ")
    assert f"{said['new']} new" in lines[2]
    assert f"{said['gone']} gone" in lines[2]
    assert len(lines) == 8
    assert lines[-1].startswith(f"and {said['owners'] - 2} more owners: ")
    full = cli("diff", text61, some_records, "--full", "--all").out.decode()
    whole = json.loads(cli("diff", text61, some_records, "--json").out)
    for one in whole["changes"]:
        if one["stack"]:
            assert "\n    ".join(one["stack"]) in full


def test_a_test_suite_learns_that_an_owner_grew(tmp_path: Path, cli: Callable[..., Done]) -> None:
    # 10 MiB more is not over 10 MiB; a page more is
    paths = []
    for name, rows in (("none", 0), ("some", 2560), ("more", 2561)):
        paths.append(tmp_path / name)
        pageowner.Snapshot.from_columns(
            {"order": [0] * rows, "comm": ["leak"] * rows, "tgid": [n % 2 for n in range(rows)]},
            Metadata(source=name)).save(paths[-1])
    none, some, more = paths
    assert cli("diff", none, some, "--by", "comm", "--fail-over", "10MiB").status == 0
    done = cli("diff", none, more, "--by", "comm", "--fail-over", "10MiB")
    assert (done.status, done.err) == (3, b"pageowner: 1 owner gained more than 10MiB\n")
    assert b"leak" in done.out
    # each owner for itself, and only what grew, of what was asked for
    assert cli("diff", none, more, "--by", "comm,pid", "--fail-over", "10M").status == 0
    assert cli("diff", more, none, "--by", "comm", "--fail-over", "10M").status == 0
    assert cli("diff", none, more, "--by", "comm", "--fail-over", "5M", "--pid", "7").status == 0
    assert cli("diff", none, more, "--by", "comm", "--fail-over", "4M", "--pid", "1",
               "--json").status == 3


def test_wrong_words_are_said_in_one_line(text61: Path, tmp_path: Path,
                                          cli: Callable[..., Done]) -> None:
    for words, why in ((["-", "-"], b"only one of A and B"), (["--by", "x"], b"cannot group by"),
                       (["--sort", "pages"], b"cannot sort by 'pages'"),
                       (["--fail-over", "10 miles"], b"is not a size"),
                       (["--top", "1", "--all"], b"contradict"), ([], None)):
        done = cli("diff", *([] if why is None or "-" in words else [text61, text61]), *words)
        assert done.status == 2
        assert done.err.count(b"\n") == 1
        assert (why or b"Missing argument 'A'") in done.err
    for path in (tmp_path / "missing", tmp_path):
        assert cli("diff", text61, path).status == 1


def test_pages_of_two_sizes_are_not_compared(tmp_path: Path, cli: Callable[..., Done]) -> None:
    for size in (4096, 65536):
        pageowner.Snapshot.from_columns({"order": [0]}, Metadata(page_size=size)).save(
            tmp_path / str(size))
    done = cli("diff", tmp_path / "4096", tmp_path / "65536")
    assert done.status == 1
    assert b"pages of 4 KiB cannot be compared with pages of 64 KiB" in done.err


def test_what_was_tracked_differently_decides_nothing(
        tmp_path: Path, cli: Callable[..., Done]) -> None:
    names = []
    for name, options in (("few", {"min_order": 3, "kernel_only": True}), ("all", {"sample": 1})):
        found = made(1)
        meta = Metadata(kind="tracker", source=name, extra={"options": options},
                        frames={"filtered": 500} if name == "few" else {})
        names.append(tmp_path / f"{name}.parquet")
        pageowner.Snapshot(found.table, meta).save(names[-1])
    said = cli("diff", *names, "--fail-over", "1MiB")
    assert (said.status, said.out) == (1, b"")
    assert b"A was tracked with '--kernel-only --min-order 3', B for all pages" in said.err
    said = cli("diff", *names)
    assert said.status == 0
    assert b"500 pages (2.0 MiB) left out: tracked with --kernel-only --min-order 3" in said.err
    assert b"may seem to come or go" in said.err
    assert cli("diff", names[0], names[0], "--fail-over", "1MiB").status == 0


def test_two_times_of_tracking_of_one_boot_decide_nothing(
        tmp_path: Path, cli: Callable[..., Done]) -> None:
    for name, since, boot in (("one", 7, "b"), ("two", 8, "b"), ("other", 9, "c")):
        meta = Metadata(kind="tracker", source=name, boot_id=boot, extra={"since_ns": since})
        pageowner.Snapshot(made(1).table, meta).save(tmp_path / name)
    text = b"tracking was turned off and on between A and B"
    said = cli("diff", tmp_path / "one", tmp_path / "two")
    assert (said.status, text in said.err) == (0, True)
    said = cli("diff", tmp_path / "one", tmp_path / "two", "--fail-over", "1MiB")
    assert (said.status, said.out, text in said.err) == (1, b"", True)
    for name in ("one", "other"):
        assert text not in cli("diff", tmp_path / "one", tmp_path / name).err


def test_hostile_names_do_nothing(tmp_path: Path, cli: Callable[..., Done]) -> None:
    made(1).save(tmp_path / "a")
    made(2).save(tmp_path / "b")
    for words in ([], ["--full"]):
        out = cli("diff", tmp_path / "a", tmp_path / "b", "--by", "comm", *words).out
        assert b"evil\\x1b[2J\\x0a, ts 1 ns" in out
        assert b"\x1b" not in out


def test_a_name_that_is_wrong_is_said_before_this_machine_is_asked(
        tmp_path: Path, cli: Callable[..., Done]) -> None:
    done = cli("diff", tmp_path / "missing")
    assert done.status == 1
    assert b"missing: cannot read: No such file" in done.err


def test_sizes() -> None:
    assert [size_bytes(text) for text in ("7", "10MiB", "1.5 g", "2K", "3kb", "1TiB", "0")] == [
        7, 10 << 20, 3 << 29, 2048, 3072, 1 << 40, 0]
    for text in ("", "-1", "1e3", "10 XB", "MiB", "9" * 30):
        with pytest.raises(UsageError):
            size_bytes(text)
