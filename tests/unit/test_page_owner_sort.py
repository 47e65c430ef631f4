"""page_owner_sort gives the bytes that the kernel's tool gives; see tests/data/page_owner_sort."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import lzma
import random
from functools import cache
from pathlib import Path

import pytest

from pageowner.page_owner_sort.command import main

DATA = Path(__file__).resolve().parent.parent / "data"
GOLDEN = DATA / "page_owner_sort"

_spec = importlib.util.spec_from_file_location("make_expected", GOLDEN / "make.py")
assert _spec is not None
assert _spec.loader is not None
expected = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(expected)

HASHES = json.loads((GOLDEN / "sha256.json").read_text())
OUTPUTS = json.loads(lzma.decompress((GOLDEN / "small.json.xz").read_bytes()))
CASES = [(dump, options) for dump in HASHES for options in HASHES[dump]]


@cache
def records(dump: str) -> list[bytes]:
    """The records of a bundled dump without those of the evil task."""
    return expected.records(dump)


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The dumps without the evil task, unpacked."""
    folder = tmp_path_factory.mktemp("dumps")
    paths = {dump: folder / dump for dump in ("6.12", "6.1")}
    for dump, path in paths.items():
        path.write_bytes(b"".join(records(dump)))
    return paths


def run(options: str, text: bytes, folder: Path) -> bytes:
    """The output for a text."""
    (folder / "in").write_bytes(text)
    assert main([*options.split(), str(folder / "in"), str(folder / "out")]) == 0
    return (folder / "out").read_bytes()


@pytest.mark.parametrize(("dump", "options"), CASES)
def test_a_selection_sorts_as_with_the_kernels_tool(
    dump: str, options: str, tmp_path: Path
) -> None:
    text = b"".join(records(dump)[:: {"6.12": 150, "6.1": 8}[dump]])
    made = run(options, text, tmp_path).decode("latin-1")
    assert made == OUTPUTS[dump][options]


@pytest.mark.parametrize(("dump", "options"), CASES)
def test_a_whole_dump_sorts_as_with_the_kernels_tool(
    dump: str, options: str, dumps: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / "out"
    assert main([*options.split(), str(dumps[dump]), str(target)]) == 0
    assert hashlib.sha256(target.read_bytes()).hexdigest() == HASHES[dump][options]


def test_the_expected_outputs_say_something() -> None:
    for dump in ("6.12", "6.1"):
        assert set(expected.OPTIONS) == set(HASHES[dump]) == set(OUTPUTS[dump])
        # the orders differ, and so do the ways to group
        assert len(set(HASHES[dump].values())) > 20


def test_many_workers_count_as_one(
    dumps: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pageowner.page_owner_sort import workers

    monkeypatch.setattr(workers, "_PART", 1 << 18)
    monkeypatch.setattr(workers, "_processors", lambda: 5)
    for options in ("-a", "--cull=p,tg,n,st,ator"):
        for dump in ("6.12", "6.1"):
            target = tmp_path / "out"
            assert main([*options.split(), str(dumps[dump]), str(target)]) == 0
            assert hashlib.sha256(target.read_bytes()).hexdigest() == HASHES[dump][options]


def test_chunks_of_any_size_count_as_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pageowner.page_owner_sort import parts

    for size in (64, 700, 4097, 65536):
        monkeypatch.setattr(parts, "CHUNK", size)
        for dump, step in (("6.12", 150), ("6.1", 8)):
            text = b"".join(records(dump)[::step])
            assert run("", text, tmp_path).decode("latin-1") == OUTPUTS[dump][""], size


@pytest.mark.parametrize("dump", ["6.12", "6.1"])
def test_the_sums_are_those_of_the_dump(dump: str, tmp_path: Path) -> None:
    # independent of the kernel's tool: every block is counted once, with its pages
    some = records(dump)[::5]
    pages = sum(1 << int(record.split(b" ", 5)[4].rstrip(b",")) for record in some)
    for options in ("-m", "-a", "--cull=name", "--cull=ator,st --sort=-pid"):
        made = run(options, b"".join(some), tmp_path).split(b"\n")
        words = [line.split() for line in made if b" times, " in line]
        assert sum(int(word[0]) for word in words) == len(some)
        assert sum(int(word[2]) for word in words) == pages


def test_a_task_that_poses_as_a_time_keeps_its_name_and_loses_its_time(tmp_path: Path) -> None:
    text = lzma.decompress((DATA / "6.12-fragmented/page_owner.txt.xz").read_bytes())
    evil = b"".join(
        record + b"\n\n" for record in text[:-2].split(b"\n\n")
        if b", pid 62, tgid 62 (evil), ts 1 ns), ts" in record
    )
    heads = [line for line in run("", evil, tmp_path).split(b"\n") if line.startswith(b"Page all")]
    assert heads
    assert all(head.endswith(b", pid 62, tgid 62 (evil), ts 1 ns), ts  ns") for head in heads)
    assert run("--cull=p,n", evil, tmp_path).startswith(b"2598 times, ")
    assert run("--cull=p,n", evil, tmp_path).endswith(
        b" pages, PID 62, task_comm_name: evil), ts 1 ns\n"
    )
    assert run("--name=evil", evil, tmp_path) == b""
    lines = [line for line in run("-a", evil, tmp_path).split(b"\n") if b"), ts " in line]
    times = [int(line.rsplit(b" ", 2)[1]) for line in lines]
    assert times == sorted(times)
    assert 1 < times[0] < times[-1]


def record(
    comm: bytes = b"sh", stack: bytes = b" f+0x1/0x2\n", *, order: int = 0, pid: int = 7,
    ts: int = 5, pfn: bytes = b"PFN 0x1 type Movable Block 0 type Movable Flags 0x0(zone=0)\n",
    free: int | None = None,
) -> bytes:
    """A record in the kernel's words."""
    free_ts = b"" if free is None else b", free_ts %d ns" % free
    return b"Page allocated via order %d, mask 0x0(), pid %d, tgid %d (%b), ts %d ns%b\n%b%b\n" % (
        order, pid, pid, comm, ts, free_ts, pfn, stack)


@pytest.mark.parametrize("free", [None, 4])
@pytest.mark.parametrize("pfn", [b"PFN 0x1 type Movable\n", b"PFN 1 type Movable\n", b""])
@pytest.mark.parametrize("comm", [
    b"a\nb", b"a\n\nb", b"\n", b"\nPFN 1", b"\n\nPFN slab", b"), ts 5 ns\nPFN ", b"a), ts 1 ns\n",
    b" ns\nPFN 0x", b"(", b")", b"", b"gifts ns", b"x (y), pid 7, t", b"\xff\xfe\x1b[31m",
    b"tgid 1 (", b"\n\nPage allocate", b", ts 9 ns)", b"), ts 1 ns\n\n",
])
def test_any_name_is_read_as_it_is(
    comm: bytes, pfn: bytes, free: int | None, tmp_path: Path
) -> None:
    # between harmless records of the same stack and of similar names, with which it must not mix
    hers = [record(comm, ts=ts, pfn=pfn, free=free) for ts in (9, 8)]
    other = record(pfn=pfn, free=free)
    text = other + record(b"x", pfn=pfn, free=free) + hers[0] + other + hers[1] + other
    assert sorted(run("--cull=n", text, tmp_path).split(b"times, ")) == sorted(
        (b"3 times, 3 pages, task_comm_name: sh\n2 times, 2 pages, task_comm_name: " + comm
         + b"\n1 times, 1 pages, task_comm_name: x\n").split(b"times, "))
    assert run("--cull=st", text, tmp_path) == b"6 times, 6 pages:\n f+0x1/0x2\n\n"
    tail = b"" if free is None else b", free_ts 4 ns"
    assert b"(" + comm + b"), ts  ns" + tail + b"\n f+0x1/0x2\n\n" in run("", text, tmp_path)
    assert b"(" + comm + b"), ts 8 ns" + tail + b"\n f+0x1/0x2\n\n" in run("-a", text, tmp_path)


def test_names_longer_than_the_kernels_are_read_whole(tmp_path: Path) -> None:
    comm = b"n" * 300_000
    assert run("--cull=n", record(comm) * 2, tmp_path) == (
        b"2 times, 2 pages, task_comm_name: " + comm + b"\n")


def test_lines_longer_than_128_kib_are_read_whole(tmp_path: Path) -> None:
    stack = b" f" + b"x" * 700_000 + b"+0x1/0x2\n"
    made = run("", record() + record(stack=stack) * 2 + record(), tmp_path)
    assert made.count(b"2 times, 2 pages, allocated by OTHERS :\n") == 2
    assert stack in made


def test_sort_is_heeded(tmp_path: Path) -> None:
    text = (record(b"b", pid=2, ts=3) + record(b"a", pid=3, ts=2, order=2)
            + record(b"a", pid=1, ts=1) + record(b"b", pid=2, ts=4))

    def pids(options: str) -> str:
        made = run(options, text, tmp_path).decode()
        return " ".join(line.split("pid ")[1].split(",")[0]
                        for line in made.split("\n") if "pid " in line)

    assert pids("") == "2 1 3"
    assert pids("--sort=pid") == "1 2 3"
    assert pids("--sort -p") == "3 2 1"
    assert pids("--sort=n,-pid") == "3 1 2"
    assert pids("--sort=-name,+tg") == "2 1 3"
    assert pids("--sort=n,at") == "1 3 2"
    assert pids("--sort=at") == "1 3 2 2"
    assert pids("--sort=-at") == "2 2 3 1"
    assert pids("--sort=T") == "1 2 3"
    assert pids("--sort=-txt") == "3 2 1"
    # a letter wins over --sort, as in the kernel's newer tool
    assert pids("--sort=pid -m") == "3 2 1"
    assert run("--cull=n --sort=-n", text, tmp_path) == (
        b"2 times, 2 pages, task_comm_name: b\n2 times, 5 pages, task_comm_name: a\n")


def test_modules_are_those_of_the_innermost_frame_in_one(tmp_path: Path) -> None:
    xfs = b" alloc+0x1/0x2\n xfs_read+0x1e/0x20 [xfs]\n e_read+0x1/0x3 [ext4]\n"
    text = (record(stack=xfs) * 2 + record() + record(stack=b" [not_a_frame]\n")
            + record(b"[sh]", stack=b" d+0x1/0x2 [dm-mod]\n") + record(b"+0x1/0x2 [m]"))
    assert run("--cull=mod", text, tmp_path) == (
        b"3 times, 3 pages, module: vmlinux\n"
        b"2 times, 2 pages, module: xfs\n"
        b"1 times, 1 pages, module: dm-mod\n")
    assert run("--cull=module -M", text, tmp_path).startswith(b"1 times, 1 pages, module: dm-mod\n")
    assert run("--cull=p --module=xfs,dm-mod", text, tmp_path) == (
        b"3 times, 3 pages, PID 7, module: xfs\n")
    assert run("--sort=-mod", text, tmp_path).endswith(b" d+0x1/0x2 [dm-mod]\n\n")
    assert run("--module ext4", text, tmp_path) == b""


def test_release_times_are_used_where_the_dump_has_them(tmp_path: Path) -> None:
    text = record(free=0, ts=9) + record(pid=8, free=3, ts=2) + record(pid=9, free=2, ts=8)
    made = run("-r", text, tmp_path)
    assert [line.split(b"free_ts ")[1] for line in made.split(b"\n") if b"free_ts" in line] == [
        b"0 ns", b"2 ns", b"3 ns"]
    assert run("--sort=-ft", text, tmp_path).startswith(
        b"1 times, 1 pages, allocated by OTHERS :\nPage allocated via order 0, mask 0x0(), pid 8,")
    assert run("--cull=f", text, tmp_path) == (
        b"2 times, 2 pages (UNRELEASED)\n1 times, 1 pages (RELEASED)\n")
    assert run("-f --cull=p", text, tmp_path) == (
        b"1 times, 1 pages, PID 7\n1 times, 1 pages, PID 9\n")
    assert run("-f", record(), tmp_path).startswith(b"1 times")


@pytest.mark.parametrize("part", [200, 1 << 30], ids=["parts", "whole"])
@pytest.mark.parametrize("options", ["", "-m", "-f"])
def test_records_without_a_release_time_show_none(
    options: str, part: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # whichever of the two comes first in the dump, and whichever process met it
    from pageowner.page_owner_sort import workers

    monkeypatch.setattr(workers, "_PART", part)
    monkeypatch.setattr(workers, "_processors", lambda: 3)
    slab = b"PFN 0x2 type Movable Block 0 type Movable Flags 0x80(slab|zone=0)\n"
    with_one, without = record(free=1, pfn=slab), record(ts=7)
    line = b"Page allocated via order 0, mask 0x0(), pid 7, tgid 7 (sh), ts  ns%b\n f+0x1/0x2\n\n"
    wanted = (b"3 times, 3 pages, allocated by OTHERS :\n" + line % b""
              + b"1 times, 1 pages, allocated by SLAB :\n" + line % b", free_ts 1 ns")
    assert run(options, with_one + 3 * without, tmp_path) == wanted
    assert run(options, 2 * without + with_one + without, tmp_path) == wanted
    assert run("--cull=n", with_one + without, tmp_path) == (
        b"2 times, 2 pages, task_comm_name: sh\n")


def test_what_follows_a_record_that_is_left_out_stays(tmp_path: Path) -> None:
    kept, left_out = record(free=0), record(free=9)
    torn = record(pid=8, free=0).replace(b"Page", b"P\0ge")
    assert run("-f", kept + left_out + torn + kept, tmp_path).count(b"times") == 2
    assert run("-f", kept + left_out + b"junk\n\n", tmp_path).endswith(b"junk\n\n")
    one_block = kept.replace(b"\n", b"\r\n") + left_out
    assert run("-f", kept + one_block, tmp_path).count(b"times") == 2


def test_a_dump_without_pfn_lines_counts_the_same(tmp_path: Path) -> None:
    for dump in ("6.12", "6.1"):
        part = records(dump)[::300]
        stripped = [b"".join(line for line in record.splitlines(keepends=True)
                             if not line.startswith(b"PFN")) for record in part]
        for options in ("--cull=n,st,p", "-a --pid 1"):
            made = run(options, b"".join(part), tmp_path)
            assert made.replace(b"by SLAB ", b"by OTHERS ") == run(
                options, b"".join(stripped), tmp_path)


def test_blocks_of_any_text_are_counted(tmp_path: Path) -> None:
    # what the kernel's tool gives for it
    text = (b"\n\nhello\n\nhello\n\nPFN slab\n\nx order 3, pid 5, tgid 6 (me), ts 77 ns\n frame\n\n"
            b"order 99, tgid 4 \n\nnot ended\n")
    assert run("", text, tmp_path) == (
        b"3 times, 0 pages, allocated by OTHERS :\n\n"
        b"2 times, 0 pages, allocated by OTHERS :\nhello\n\n"
        b"1 times, 0 pages, allocated by SLAB :\norder 99, tgid 4 \n\n"
        b"1 times, 8 pages, allocated by SLAB :\nx order 3, pid 5, tgid 6 (me), ts  ns\n frame\n\n")
    assert run("--cull=p,tg,n", text, tmp_path) == (
        b"5 times, 0 pages, PID -1, TGID -1, task_comm_name: \n"
        b"1 times, 0 pages, PID -1, TGID 4, task_comm_name: \n"
        b"1 times, 8 pages, PID 5, TGID 6, task_comm_name: me\n")


def test_what_no_empty_line_ends_is_not_counted(tmp_path: Path) -> None:
    assert run("--cull=p", record() + record()[:-1], tmp_path) == b"1 times, 1 pages, PID 7\n"
    assert run("", record()[:-1], tmp_path) == b""
    assert run("", b"", tmp_path) == b""


def test_vmalloc_is_told_by_the_frame_before(tmp_path: Path) -> None:
    stack = b" alloc_pages_bulk+0x1/0x2\n __vmalloc_node_range_noprof+0x1/0x2\n"
    other = b" get_pages+0x1/0x2\n __vmalloc_node_range_noprof+0x1/0x2\n"
    slab = b"PFN 0x1 type CMA Block 0 type CMA Flags 0x0(slab)\n"
    text = record(stack=stack) + record(stack=other) + record(stack=stack, pfn=slab)
    assert run("--cull=ator", text, tmp_path) == (
        b"1 times, 1 pages, allocated by VMALLOC \n"
        b"1 times, 1 pages, allocated by CMA SLAB VMALLOC \n"
        b"1 times, 1 pages, allocated by OTHERS \n")


def mutated(rng: random.Random, text: bytearray) -> bytes:
    """A text with some harm done to it."""
    for _ in range(rng.randint(0, 12)):
        start = rng.randrange(len(text))
        end = start + rng.choice([0, 1, 1, 2, 5, 30, 300])
        match rng.randint(0, 3):
            case 0:
                del text[start:end]
            case 1:
                text[start:end] = bytes(rng.choices(b"\n\n ,()0PFNts x", k=end - start))
            case 2:
                text[start:start] = text[rng.randrange(len(text)) :][: end - start]
            case 3:
                text[start:start] = rng.choice([
                    b"\n", b"\n\n", b" ns\nPFN 0x", b"), ts 5 ns", b"PFN 1", b", free_ts 0 ns",
                    b"Page allocated via order "])
    return bytes(text)


@pytest.mark.parametrize("seed", range(80))
def test_what_is_known_at_sight_is_what_the_exact_rules_say(
    seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # on harmed records, those of hostile names among them: each block read by the exact rules
    # against kinds known from others, chunks of any size, several workers
    from pageowner.page_owner_sort import parts, workers
    from pageowner.page_owner_sort.counting import Tally

    rng = random.Random(seed)
    some = rng.choices(records(rng.choice(["6.12", "6.1"]))[::997], k=rng.randint(1, 40))
    some += rng.choices([record(), record(ts=9), record(free=3), record(b"evil), ts 1 ns"),
                         record(b"a\n\nb"), record(b"), ts 5 ns\nPFN "), record(pfn=b"")], k=20)
    rng.shuffle(some)
    some *= 3
    text = mutated(rng, bytearray(b"".join(some)))
    options = rng.choice(["", "-a", "-m", "--cull=ator,p", "--cull=st,n", "--cull=f,ator", "-f",
                          "--sort=-at,pid", "--sort=pid,at", "-s --name=sh", "-a --pid 7"])
    monkeypatch.setattr(workers, "_PART", 1 << 30)
    with monkeypatch.context() as exact:
        exact.setattr(Tally, "add", lambda self, chunk: self._read(chunk + b"\n\n"))
        wanted = run(options, text, tmp_path)
    monkeypatch.setattr(parts, "CHUNK", rng.choice([256, 3000, 40_000, 1 << 17]))
    monkeypatch.setattr(workers, "_PART", rng.choice([2000, 20_000, 1 << 30]))
    assert run(options, text, tmp_path) == wanted


@pytest.mark.parametrize("options", ["--cull=st", "--cull=st --sort=-st", "--cull=st,ator"])
@pytest.mark.parametrize("free", [None, 4])
def test_a_damaged_time_among_equal_records_is_seen(
    options: str, free: int | None, tmp_path: Path
) -> None:
    # a first line in no known format has no task: the block is another, whatever its neighbours
    good = record(free=free)
    text = good * 3 + good.replace(b"ts 5 ns", b"ts 5x ns") + good * 2
    made = run("", text, tmp_path)
    assert made.count(b"times, ") == 2
    assert made.startswith(b"5 times, 5 pages, allocated by OTHERS :\n")
    assert b"\n1 times, 1 pages, allocated by OTHERS :\n" in made
    assert b"ts 5x ns" in made
    assert b"ts 5x ns" in run("-a", text, tmp_path)
    assert b"6 times" in run(options, text, tmp_path)


@pytest.mark.parametrize("block", [b"a\n text\n\n", record(stack=b" text\n", pfn=b"")])
@pytest.mark.parametrize("options", ["", "-a", "--cull=st,ator"])
@pytest.mark.parametrize("free", [None, 4])
@pytest.mark.parametrize("comm", [b"other", b"sh"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_block_without_pfn_line_is_allocated_as_the_one_before(
    block: bytes, options: str, free: int | None, comm: bytes, times: int, tmp_path: Path
) -> None:
    # so it is with the kernel's tool
    other = record(comm, free=free)
    slab = record(pfn=b"PFN 0x1 type Movable Flags 0x0(slab)\n", free=free)
    for before, last, by in ((slab, other, b"OTHERS"), (other, slab, b"SLAB")):
        for start in (last * 2, b""):
            text = start + before * 2 + last * times + block + before
            made = run(options, text, tmp_path)
            group = next(part for part in made.split(b"times, ") if b" text\n" in part)
            assert by in group


def test_a_name_that_holds_a_pfn_line_where_there_is_none(tmp_path: Path) -> None:
    empty = record(b"", pfn=b"PFN 1 type Movable\n")
    evil = record(b"), ts 5 ns\nPFN ", pfn=b"", ts=9)
    for options in ("-a --cull=n", "--cull=n,ator", "--cull=n"):
        assert run(options, empty * 2 + evil + empty, tmp_path).count(b"\n") == 3
    assert b"), ts 9 ns\n" in run("-a", empty * 2 + evil + empty, tmp_path)


def _record(head: str, time: int, body: str) -> str:
    return (f"Page allocated via order {head}{time} ns\nPFN 0x{time:x} type Movable Block 0 type"
            f" Movable Flags 0x1(locked){body}\n\n")


_HEAD = "0, mask 0x1(GFP), pid 1, tgid 1 (a), ts "


@pytest.mark.parametrize("options", ["-a", "-m"])
def test_a_record_that_ends_with_its_pfn_line_takes_nothing_of_the_next(
    options: str, tmp_path: Path
) -> None:
    text = "".join(_record(_HEAD, time, "" if time % 3 else "\n f+0x1/0x2")
                   for time in range(10, 22))
    made = run(options, text.encode(), tmp_path).decode()
    assert made.count("Page") == (12 if options == "-a" else 2)
    assert made.count("Page") == made.count("Page allocated via order 0, mask")
    assert made.count(" f+0x1/0x2\n") == (4 if options == "-a" else 1)


@pytest.mark.parametrize(("options", "counts"), [
    ("-a", ["2 times, 2 pages", "1 times, 1 pages", "1 times, 0 pages", "1 times, 0 pages"]),
    ("-m", ["3 times, 3 pages", "1 times, 0 pages", "1 times, 0 pages"]),
    ("--cull=stacktrace", ["4 times, 3 pages", "1 times, 0 pages"])])
def test_a_record_without_its_first_words_is_none_of_the_kind_before_it(
    options: str, counts: list[str], tmp_path: Path
) -> None:
    known = "\n f+0x1/0x2"
    text = (_record(_HEAD, 10, known) * 2 + _record("1 ", 11, "\n g+0x1/0x2")
            + _record("", 12, known) + _record(_HEAD, 13, known))
    made = run(options, text.encode(), tmp_path).decode()
    assert [line.split(", allocated")[0].rstrip(":") for line in made.split("\n")
            if "times" in line] == counts
