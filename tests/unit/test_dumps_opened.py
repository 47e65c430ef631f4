"""Dumps as they come: packed, in pipes, a byte at a time, and read by several processes."""

from __future__ import annotations

import gc
import gzip
import io
import lzma
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from one_record import CURRENT
from record_socket import made_up_records, sent

import pageowner
from pageowner import PageownerError
from pageowner.sources import opening, page_owner, page_owner_parser
from pageowner.sources.page_owner_parser import CUT, Parser, Raw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pageowner import Snapshot

    Read = Callable[[bytes], Snapshot]


PACKERS = {"gz": gzip.compress, "xz": lzma.compress,
           "zst": lambda text: zstandard.ZstdCompressor().compress(text)}


@pytest.mark.parametrize("kind", PACKERS)
def test_packed_dumps_are_read_whatever_their_names(
        some_records: Path, tmp_path: Path, kind: str) -> None:
    text = some_records.read_bytes()
    path = tmp_path / "named-otherwise.txt"
    # two members in a row, as cat makes them, the border inside a record
    path.write_bytes(PACKERS[kind](text[:100_000]) + PACKERS[kind](text[100_000:]))
    assert pageowner.read(path).table.equals(pageowner.read(some_records).table)


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, 0.9999])
def test_a_packed_dump_cut_short_is_refused_in_one_line(
        some_records: Path, tmp_path: Path, kind: str, share: float) -> None:
    packed = PACKERS[kind](some_records.read_bytes())
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(packed[:min(max(int(len(packed) * share), 8), len(packed) - 1)])
    with pytest.raises(PageownerError, match="damaged or truncated") as caught:
        pageowner.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", PACKERS)
def test_a_packed_dump_with_flipped_bytes_is_refused_in_one_line(
        some_records: Path, tmp_path: Path, kind: str) -> None:
    packed = bytearray(PACKERS[kind](some_records.read_bytes()))
    for place in range(len(packed) // 2, len(packed) // 2 + 40):
        packed[place] ^= 0x55
    path = tmp_path / "flipped"
    path.write_bytes(packed)
    with pytest.raises(PageownerError, match="damaged") as caught:
        pageowner.read(path)
    assert "\n" not in str(caught.value)


def test_a_pipe_and_standard_input_give_what_the_file_gives(
        some_records: Path, tmp_path: Path) -> None:
    expected = pageowner.read(some_records).table
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    text = some_records.read_bytes()
    writer = threading.Thread(target=fifo.write_bytes, args=(text,))
    writer.start()
    assert pageowner.read(fifo).table.equals(expected)
    writer.join()
    code = "import pageowner, sys; pageowner.read('-').save(sys.argv[1])"
    for packed in (text, lzma.compress(text)):
        saved = tmp_path / "saved.parquet"
        subprocess.run([sys.executable, "-c", code, saved], input=packed, check=True)
        assert pageowner.read(saved).table.equals(expected)


@pytest.mark.parametrize("pack", [
    pytest.param(bytes, id="plain"), pytest.param(gzip.compress, id="gz"),
    pytest.param(lzma.compress, id="xz"),
    pytest.param(lambda text: text.replace(b"\n", b"\r\n"), id="crlf")])
def test_a_pipe_whose_first_bytes_come_one_by_one_is_known_for_what_it_is(
        some_records: Path, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(some_records.read_bytes()[:50_000])
    reading, writing = os.pipe()

    def dribble() -> None:
        for at in range(70):
            os.write(writing, packed[at:at + 1])
            time.sleep(0.002)
        with os.fdopen(writing, "wb") as rest:
            rest.write(packed[70:])

    writer = threading.Thread(target=dribble)
    writer.start()
    snapshot = pageowner.read(f"/dev/fd/{reading}")
    writer.join()
    os.close(reading)
    assert snapshot.table.num_rows > 50
    assert snapshot.meta.counters["damaged"] + snapshot.meta.counters["unterminated"] == 1


def test_a_pipe_that_gives_a_few_bytes_at_a_time_loses_nothing(
        some_records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = some_records.read_bytes()[:60_000]
    monkeypatch.setattr(page_owner_parser, "WAIT", 1 << 14)
    whole = Parser()
    whole.feed(text)
    expected = whole.close(final=True)
    for size in (1, 7, 26, 27, 28, 4096):
        parser = Parser()
        for at in range(0, len(text), size):
            parser.feed(text[at:at + size])
        assert parser.close(final=True) == expected


HOSTILE = b"".join((
    CURRENT.replace(b"udevd", b"x), ts 1 ns\nabc"), CURRENT.replace(b"udevd", b"a\n\nb"),
    CURRENT, b"junk\n\n", CURRENT[:150], CURRENT, b"junk\n" + CURRENT, CURRENT[:-1] + CURRENT,
    CURRENT.replace(b"udevd", b"), ts 1 ns"), b"\n\n\n", CURRENT.replace(b"209", b"-2"), CURRENT,
    CURRENT[:-30]))


def _sums(parts: list[Raw]) -> tuple[Any, ...]:
    assert not any(part.free_ts for part in parts)
    rows = [(part.headers[h], part.lines[line], part.bodies[b], pfn, block, ts)
            for part in parts for kind, pfn, block, ts in zip(
                part.kind, part.pfn, part.block, part.ts, strict=True)
            for h, line, b in [part.kinds[kind]]]
    return (rows, sum(part.damaged for part in parts), sum(part.unterminated for part in parts),
            sorted(place for part in parts for place in part.damage)[:10])


def test_reading_side_by_side_gives_the_same_wherever_the_file_is_cut(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every possible edge between two processes, through hostile names, junk and torn records.
    path = tmp_path / "hostile.txt"
    path.write_bytes(HOSTILE)
    monkeypatch.setattr("pageowner.sources.damage.SHOWN_DAMAGE", 1 << 20)
    monkeypatch.setattr(page_owner, "CHUNK", 97)
    expected = _sums(page_owner.parse(path))
    assert expected[1] == 6
    size = len(HOSTILE)
    with open(path, "rb") as file:
        for place in range(size):
            found = HOSTILE.find(CUT, place)
            edge = found if found >= 0 else size
            parts = [page_owner._parse_range(file.fileno(), start, stop, size)
                     for start, stop in ((0, edge), (edge, size)) if start < stop]
            assert _sums(parts) == expected


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_large_files_read_by_several_processes_give_what_one_gives(
        some_records: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    expected = pageowner.read(some_records)
    monkeypatch.setattr(page_owner, "PARALLEL", 1 << 12)
    monkeypatch.setattr(page_owner, "CHUNK", 1000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processes)))
    parts = page_owner.parse(some_records)
    assert len(parts) == processes
    snapshot = pageowner.read(some_records)
    assert snapshot.table.equals(expected.table)
    assert snapshot.meta == expected.meta


def test_a_process_that_fails_is_reported_in_one_line(
        some_records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_owner, "PARALLEL", 1 << 12)

    def die(*_: object) -> None:
        os.kill(os.getpid(), 9)

    monkeypatch.setattr(page_owner, "_parse_range", die)
    with pytest.raises(PageownerError, match="SIGKILL"):
        page_owner.parse(some_records)


def test_no_more_processes_is_said_in_one_line_and_leaves_nothing(
        some_records: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any]) -> None:
    monkeypatch.setattr(page_owner, "PARALLEL", 1 << 12)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    real = os.fork
    born: list[int] = []

    def one_only() -> int:
        if len(born) % 2:
            born.append(0)
            raise BlockingIOError(11, "Resource temporarily unavailable")
        born.append(real())
        return born[-1]

    monkeypatch.setattr(os, "fork", one_only)
    for words in ([], ["--comm", "x"]):  # the first is begun ahead
        done = cli("report", *words, some_records)
        assert (done.status, done.out) == (1, b"")
        assert done.err == (f"pageowner: {some_records}: cannot read: Resource temporarily"
                            " unavailable\n").encode()
    gc.collect()
    for child in filter(None, born):
        with pytest.raises(ChildProcessError):
            os.waitpid(child, 0)
    held = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{number}")]
    assert not [name for name in held if "memfd:pageowner" in name]


def test_a_kernel_file_is_never_asked_for_less_than_a_record() -> None:
    records = made_up_records(5000)
    with sent(records) as receiver:
        file = io.FileIO(receiver.detach())
        with io.BufferedReader(opening.by_record(file), 1 << 16) as stream:
            read = b"".join(iter(lambda: stream.read(1 << 18), b""))
    assert read == b"".join(records)
    assert file.closed
