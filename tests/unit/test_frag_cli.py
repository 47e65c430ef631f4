"""``pageowner frag``: what it says of each source, and what it says that it does not know."""

from __future__ import annotations

import json
import lzma
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import asking
import pyarrow as pa
import pytest
from kept_paper import KeptPaper
from machines import machine
from rich.cells import cell_len

import pageowner
from pageowner.kernel import pageflags
from pageowner.model.snapshot import Snapshot
from pageowner.report import fragmentation_view
from pageowner.sources import kpageflags, source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def frag(*words: object) -> tuple[int, str, str]:
    return asking.run("frag", *words)


def ok(*words: object) -> str:
    status, out, error = frag(*words)
    assert (status, error) == (0, "")
    return out


@pytest.fixture(scope="module")
def saved(big: Snapshot, save: Callable[[Snapshot, str], Path]) -> Path:
    return save(big, "big")


@pytest.fixture(scope="module")
def flags(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frag") / "kpageflags"
    with lzma.open(data / "6.12-fragmented/kpageflags.before.xz") as file:
        path.write_bytes(file.read())
    return path


def test_a_dump_shows_its_mixed_blocks_and_what_it_does_not_know(dump_text: Path) -> None:
    text = ok(dump_text)
    assert re.search(r"ZONE +BLOCKS +UNMOVABLE +MOVABLE\n +node 0 zone 0 +511 +3 +68\n", text)
    assert "a dump contains only pages in use" in text
    assert "Free memory" not in text
    assert "without a record" in text
    assert "alloc_skb_with_frags" in text


def test_with_the_flags_free_memory_is_told_by_order(saved: Path, flags: Path) -> None:
    text = ok(saved, "--kpageflags", flags)
    assert "Free memory of node 0 zone 0 by order: 193 MiB" in text
    assert re.search(r"blocks +6,929 +4,633 +4,463 ", text)
    assert "a dump contains" not in text
    assert "30 free, 226 clearable, 239 blocked\n" in text


def test_json_has_the_same_and_whole_numbers(saved: Path, flags: Path) -> None:
    found = json.loads(ok(saved, "--kpageflags", flags, "--json", "--by", "comm"))
    assert found["zones"][0]["mixed"] == {"Movable": 68, "Unmovable": 3}
    assert found["by"] == ["comm"]
    assert found["free"][0]["blocks"][0] == 6929
    assert len(found["polluters"]) == found["polluters_in_all"]
    assert all(sum(steps) == 495 for steps in found["contents"].values())
    stacks = json.loads(ok(saved, "--json", "--top", "2"))["polluters"]
    assert len(stacks) == 2
    assert isinstance(stacks[0]["stack"], list)


def test_who_would_have_to_go_is_named_with_what_it_gives(saved: Path) -> None:
    text = ok(saved, "--order", "9", "--want", "50")
    assert re.search(r"Stop 1 owner \(2[34]\d MiB\) to free \d+ more blocks", text)
    assert re.search(r"6\d,\d{3} +2[34]\d MiB +python3 +75\n", text)
    assert "perhaps not the cheapest" in text
    plan = json.loads(ok(saved, "--order", "9", "--want", "50", "--json"))["plan"]
    assert plan["gain"] >= 50
    assert plan["owners"][0]["comm"] == "python3"


def test_if_no_going_is_enough_it_says_so(saved: Path) -> None:
    text = ok(saved, "--order", "9", "--want", "5000")
    assert "; 5,000 cannot be freed by stopping owners" in text
    assert re.search(r"\n +17 +pages of the kernel itself or of init\n", text)


def test_as_many_owners_to_stop_are_listed_as_asked_for(saved: Path) -> None:
    words = (saved, "--order", "9", "--want", "5000", "--by", "stack")
    planned = len(json.loads(ok(*words, "--json"))["plan"]["owners"])
    assert planned > 21
    for more, listed in (((), 20), (("--top", "21"), 21), (("--top", "10"), 10),
                         (("--all",), planned)):
        table, _, _ = ok(*words, *more).partition("\nStop ")[2].partition("\n  then:")
        told = re.search(r"and ([0-9,]+) more owner", table)
        assert (int(told[1]) if told else 0) == planned - listed
        assert len(re.findall(r"\n +[0-9,]+ +[0-9.]+ [KMG]iB ", table)) == listed


def test_if_nobodys_going_helps_it_says_why(saved: Path, flags: Path) -> None:
    text = ok(saved, "--order", "9", "--want", "5", "--by", "memcg")
    assert "stopping owners does not help" in text
    assert re.search(r"stay blocked whichever owners stop.*:\n.*\n +236 +pages without a known"
                     r" owner\n$", text)
    text = ok(saved, "--order", "18", "--want", "1", "--kpageflags", flags)
    assert "1  memory that does not belong to the page allocator" in text
    assert "of the blocked, 1 holds memory" in text


@pytest.mark.parametrize(("width", "across"), [(80, False), (160, True)])
def test_free_memory_by_order_fits_the_terminal(width: int, across: bool) -> None:
    snapshot = machine(5).snapshot()
    counts = [15594, 15638, 8080, 3554, 1097, 825, 906, 439, 244, 41, 1865]
    snapshot.meta.extra["memory"]["free"] = [[0, "Normal", counts]]
    lines = drawn(snapshot, width)
    assert any(re.match(r"  blocks .* 1,865$", line) for line in lines) is across
    assert any(re.match(r" +10 +1,865 +\d+\.\d +-$", line) for line in lines) is not across
    assert max(map(len, lines)) <= width


def test_gigantic_blocks_are_looked_at_too(saved: Path, flags: Path) -> None:
    found = json.loads(ok(saved, "--kpageflags", flags, "--order", "18", "--json"))
    assert found["states"] == {"free": 0, "clearable": 0, "blocked": 1, "unknown": 0}


def test_a_hostile_name_reaches_no_terminal(big: Snapshot, saved: Path) -> None:
    text = ok(saved, "--by", "comm", "--all", "--order", "9")
    assert "evil), ts 1 ns" in text
    made = machine(3)
    for page in made.pages:
        page.comm = "\x1b[31mred\n"
    lines = drawn(made.snapshot(), 100)
    assert not any("\x1b" in line for line in lines)
    assert any("\\x1b[31mred\\x0a" in line for line in lines)


def drawn(snapshot: Snapshot, width: int, by: str = "comm", **more: Any) -> list[str]:
    from pageowner.analysis.fragmentation import fragmentation, huge

    paper = KeptPaper(width)
    fragmentation_view.draw(fragmentation(snapshot, by, top=10, **more), by.split(","),
                            snapshot.meta, None, 10, paper)
    fragmentation_view.draw_huge(huge(snapshot, 4, by, want=3, top=10, **more), snapshot.meta,
                                 paper)
    return paper.lines


def test_who_is_in_no_cgroup_is_not_called_untracked() -> None:
    snapshot = machine(5).snapshot()
    snapshot.meta.kind = "tracker"
    snapshot.meta.extra["extfrag"] = [
        {"comm": "a", "tgid": 1, "pid": 1, "stack": "f+0x1/0x2", "count": 5, "last_ns": 9}]
    place = snapshot.table.column_names.index("memcg")
    nowhere = Snapshot(snapshot.table.set_column(place, "memcg", pa.nulls(
        snapshot.table.num_rows, snapshot.table["memcg"].type)), snapshot.meta)
    for by in ("memcg", "container"):
        assert not any("not tracked" in line or "untracked pages are" in line
                       for line in drawn(nowhere, 160, by))


@pytest.mark.parametrize("width", [80, 100, 160])
def test_tables_fit_the_terminal(big: Snapshot, width: int) -> None:
    for by in ("stack", "comm,pid", "subsystem,memcg"):
        lines = drawn(big, width, by)
        tables = [line for line in lines if line.startswith("  ") and re.search(r" \d", line)
                  and "compaction" not in line]
        assert len(tables) > 20
        assert max(map(cell_len, tables)) <= width


def test_a_capture_without_pages_of_its_own_says_what_is_missing() -> None:
    snapshot = machine(5).snapshot()
    del snapshot.meta.extra["memory"]
    lines = drawn(snapshot, 120)
    assert any("does not separate free frames" in line for line in lines)


def test_events_are_told_by_owner(tmp_path: Path) -> None:
    from pageowner.analysis.fragmentation import events

    snapshot = machine(5).snapshot()
    stack = "__rmqueue_fallback+0x1/0x2\nalloc_skb_with_frags+0x1/0x2"
    one = {"comm": "a", "tgid": 1, "pid": 1, "stack": stack, "count": 5, "last_ns": 9}
    snapshot.meta.extra["extfrag"] = [
        one, {**one, "comm": "b", "count": 7}, {**one, "order": 3, "last_ns": 12}]
    assert events(snapshot, ["comm"]) == [{"comm": "a", "count": 10, "last_ns": 12},
                                          {"comm": "b", "count": 7, "last_ns": 9}]
    assert events(snapshot, ["subsystem"]) == [
        {"subsystem": "network buffers", "count": 17, "last_ns": 12}]
    snapshot.save(tmp_path / "events.parquet")
    for more, number in (([], 2), (["--top", "1"], 1)):
        document = json.loads(ok(tmp_path / "events.parquet", "--by", "comm", "--json", *more))
        assert len(document["events"]) == number
    snapshot.meta.extra["extfrag"] += ["nonsense", {"count": "x"}]
    lines = drawn(snapshot, 120)
    assert any(line.endswith("from a block of another type: 17") for line in lines)
    snapshot.meta.extra["extfrag"] = [{**one, "pid": 8, "tgid": 7}]
    assert events(snapshot, ["pid", "tid"]) == [{"pid": 7, "tid": 8, "count": 5, "last_ns": 9}]


@pytest.mark.parametrize(("words", "status", "message"), [
    (["--want", "3"], 2, "--want goes with --order"),
    (["--order", "0"], 2, "not in the range"),
    (["--by", "colour"], 2, "cannot group by 'colour'"),
    (["--all", "--top", "3"], 2, "contradict"),
    (["--kpageflags", "/nonexistent"], 1, "/nonexistent"),
    (["--kpageflags", "/dev/null"], 1, "no page flags: it is empty"),
    (["--kpageflags", "/proc/self/comm"], 1, "8 bytes a page"),
])
def test_what_goes_wrong_is_one_line(saved: Path, words: list[str], status: int,
                                     message: str) -> None:
    ended, out, error = frag(saved, *words)
    assert (ended, out) == (status, "")
    assert error.count("\n") == 1
    assert message in error
    assert "Traceback" not in error


def test_flags_may_be_packed_or_from_a_pipe(saved: Path, data: Path, flags: Path) -> None:
    plain = ok(saved, "--kpageflags", flags, "--order", "9")
    assert plain == ok(saved, "--kpageflags", data / "6.12-fragmented/kpageflags.before.xz",
                       "--order", "9")
    with flags.open("rb") as file, subprocess.Popen(
            ["cat"], stdin=file, stdout=subprocess.PIPE) as cat:
        done = subprocess.run(
            [sys.executable, "-m", "pageowner", "frag", saved, "--kpageflags", "/dev/stdin",
             "--order", "9"], stdin=cat.stdout, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, plain)


def test_only_what_was_read_here_gets_the_flags_of_this_machine(
        some_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = tmp_path / "page_owner"
    kernels.write_bytes(some_records.read_bytes())
    monkeypatch.setattr(source, "KERNEL_PAGE_OWNER", str(kernels))
    here: Any = object()
    monkeypatch.setattr(pageflags, "read", lambda: here)
    read = pageowner.read(str(kernels))
    assert kpageflags.page_flags(read, None) is here
    read.meta.source = "/sys/kernel/debug/page_owner"
    read.save(tmp_path / "own.parquet")
    assert kpageflags.page_flags(pageowner.read(tmp_path / "own.parquet"), None) is None


def test_what_are_no_flags_is_refused(saved: Path, data: Path, flags: Path,
                                      tmp_path: Path) -> None:
    other = tmp_path / "other"
    for content, why in (((data / "6.12-fragmented/zoneinfo.txt").read_bytes()[:800], "no kernel"),
                         (flags.read_bytes()[:-3], "8 bytes a page"),
                         (bytes(1 << 20), "free or reserved"),
                         (lzma.compress(flags.read_bytes())[:-9], "damaged or truncated")):
        other.write_bytes(content)
        status, out, error = frag(saved, "--kpageflags", other)
        assert (status, out, error.count("\n")) == (1, "", 1)
        assert why in error
        assert str(other) in error


def test_a_dump_without_pfn_lines_cannot_be_asked(some_records: Path, tmp_path: Path) -> None:
    path = tmp_path / "stripped.txt"
    path.write_bytes(b"".join(line for line in some_records.read_bytes().splitlines(keepends=True)
                              if not line.startswith(b"PFN")))
    status, _, error = frag(path)
    assert status == 1
    assert "without its PFN lines" in error
