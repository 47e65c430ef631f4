"""Mutated dumps: real records cut, spliced and spoilt, and what must hold for every one of them.

    python tests/fuzz/dumps.py [COUNT [SEED]]

What holds (see `check`): every piece of the text is a record or counted as damaged, no piece
twice; the result does not depend on how the bytes arrive; nothing raises what is no clear error;
no input takes seconds; memory stays where it is. Also used by tests/unit/test_fuzz.py.
"""

from __future__ import annotations

import io
import lzma
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pageowner
from pageowner import PageownerError
from pageowner.analysis.owners_from_counts import owners
from pageowner.model.counts import Counted
from pageowner.page_owner_sort import command
from pageowner.sources import page_owner, page_owner_stacks
from pageowner.sources.as_printed import has_other_line_ends, without_cr
from pageowner.sources.opening import Opened
from pageowner.sources.page_owner_grammar import parse_header
from pageowner.sources.page_owner_parser import NONE, Parser, Raw
from pageowner.sources.page_owner_text import write
from pageowner.sources.restoring import note, restored

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).parent.parent / "data"
START = b"Page allocated via order "
LIMIT_SECONDS = 5
LIMIT_MIB = 100

FORMATS = [
    b"Page allocated via order 0, mask 0x280da\n"
    b"PFN 524288 Block 1024 type 2 Fallback Flags    UDLA     \n"
    b" [<ffffffff811682c4>] alloc_pages_vma+0x114/0x220\n\n",
    b"Page allocated via order 0, mask 0x24201ca(GFP_HIGHUSER_MOVABLE|__GFP_COLD)\n"
    b"PFN 4096 type Movable Block 8 type CMA Flags 0xfffff8001006c(referenced|uptodate)\n"
    b" [<ffffffff811682c4>] post_alloc_hook+0x81/0xf0\n"
    b"Page has been migrated, last migrate reason: compaction\n\n",
    b"Page allocated via order 1, mask 0xcc0(GFP_KERNEL), pid 1, ts 321 ns\n"
    b"PFN 4096 type Unmovable Block 8 type Movable Flags 0x1(locked)\n"
    b" post_alloc_hook+0x81/0xf0\n\n",
    b"Page allocated via order 3, mask 0xcc0(GFP_KERNEL), pid 7, tgid 7 (a\nb), ts 321 ns\n"
    b"handle: 1048577\nCharged (via objcg) to offline memcg x\n\n",
    b"Page allocated via order 3, mask 0xcc0(GFP_KERNEL), pid 7, tgid 7 (x), ts 1 ns\nab), ts 9 ns"
    b"\nPFN 0x1000 type Unmovable Block 8 type Movable Flags 0x1(locked)\n"
    b" post_alloc_hook+0x81/0xf0\nSLAB_PAGE slab_name:x\n[detail] y\n\n",
    b"Page allocated via order 0, mask 0x0(), pid -1, tgid -1 (a\n\nb), ts 2 ns, free_ts 1 ns\n"
    b"PFN 7 type Unmovable Block 0 type Unmovable Flags 0x0()\n\n",
    b"Page allocated via order 9, mask 0x280da\nPID 7\nPFN 512 Block 1 type 2 Flags U\n"
    b"[<c00a1b2c>] do_huge_pmd_anonymous_page+0x4/0x8\n [<c00a1b2c>] 0xffffffff\n"
    b"[free]\n f+0x1\n\n",
    b"Page allocated via order 0, mask 0xd20c0\nPFN 0x100 Flags 0x200\n f+0x1\n\n",
]

BITS = [
    b"\n", b"\n\n", b"\n\n\n\n", b"\r\n", b" ", b"\0", b"\xff", b"\x1b[2J", b"junk", b"junk\n",
    b"\n\njunk\n\n", START, b"\n" + START, b"\n\n" + START, b"Page allocated via ", b"\nPFN ",
    b"PFN 0x", b"), ts 1 ns", b"), ts 1 ns\n", b", free_ts 5 ns", b" ns\n", b"-", b"_", b"9" * 25,
    b"0x", b"handle: 7\n", b"handle: 99999999999\n", b"(", b")", b"[<ffff>] ", b"PAR1", b"\x1f\x8b",
    b" \n", b"type ", b"Block ", b"e", b"\t",
]


_NUMBERS = re.compile(rb" (\d+ ns\n(?:PFN .* Block \d+)?)")


@cache
def records() -> tuple[bytes, ...]:
    """Whole records of both real dumps and of every older format; unpacked once a process."""
    found = list(FORMATS)
    for kernel, step in (("6.12-fragmented", 599), ("6.1-sample", 17)):
        number, rest = 0, b""
        with lzma.open(DATA / kernel / "page_owner.txt.xz") as file:
            while piece := file.read(1 << 20):
                *whole, rest = (rest + piece).split(b"\n\n")
                found += [record + b"\n\n" for record in whole[-number % step::step]]
                number += len(whole)
    return tuple(found)


def mutated(chance: random.Random, pool: list[bytes]) -> bytes:
    """A few records, in a few ways spoilt."""
    # Neighbours are often alike but for their numbers, and read so.
    text = bytearray(b"".join(chance.choice(pool) * chance.choice((1, 1, 1, 2, 3))
                              for _ in range(chance.randrange(1, 4))))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 6))):
        how = chance.randrange(10)
        at = chance.randrange(len(text) + 1)
        upto = min(len(text), at + chance.choice((1, 2, 5, 30, 200, 1000)))
        if how == 0 and at < len(text):
            text[at] = chance.randrange(256)
        elif how == 1 and at < len(text):
            text[at] ^= 1 << chance.randrange(8)
        elif how == 2:
            del text[at:upto]
        elif how == 3:
            text[at:at] = text[at:upto]
        elif how == 4:
            text[at:at] = chance.choice(BITS)
        elif how == 5:
            other = chance.choice(pool)
            begin = chance.randrange(len(other))
            text[at:at] = other[begin:begin + chance.choice((3, 30, 300))]
        elif how == 6:
            text = text[at:] if chance.random() < 0.5 else text[:at]
        elif how == 7:
            text = text.replace(*chance.choice((
                (b"\n\n", b"\n"), (b"\n\n", b"\n\n\n"), (b"\n", b"\r\n"), (b"\n", b"\n\n"),
                (b" ", b"  "), (b"PFN", b"pfn"), (b"ts", b"ts "))))
        elif how == 8 and (numbers := _NUMBERS.search(text, at)):
            # a known record but for what changes from one to the next
            text[numbers.start(1):numbers.end(1)] = chance.choice((b"", b" ", b"1 ns", b"0 ns\n"))
        else:
            bit = chance.choice(BITS)
            text[at:at + len(bit)] = bit
        if not text:
            text = bytearray(b"\n")
    return bytes(text)


def pieces(text: bytes) -> int:
    """How many records and damaged ones there must be in a text, counted line by line.

    A piece begins with a line that begins with `START`, or with a line that is not blank behind
    an empty one. Lines in the name of a task are no lines.
    """
    count, at, inside = 0, 0, False
    while at < len(text):
        stop = text.find(b"\n", at)
        stop = len(text) if stop < 0 else stop
        if text.startswith(START, at):
            count, inside = count + 1, True
            behind = at + len(START)
            next_start = text.find(b"\n" + START, at)
            try:
                length = parse_header(text[behind:next_start if next_start >= 0 else None])[-1]
                stop = max(stop, behind + length - 1)
            except ValueError:
                pass
        elif stop == at:
            inside = False
        elif not inside and text[at:stop].strip():
            count, inside = count + 1, True
        at = stop + 1
    return count


def parsed(text: bytes, sizes: list[int] | None = None) -> Raw:
    """The text as the parser sees it, fed in pieces of these sizes again and again."""
    parser = Parser()
    if not sizes:
        parser.feed(text)
    at = turn = 0
    while sizes and at < len(text):
        size = sizes[turn % len(sizes)]
        parser.feed(text[at:at + size])
        at, turn = at + size, turn + 1
    return parser.close(final=True)


def rows(raw: Raw) -> list[tuple[object, ...]]:
    """What every record says, without the numbering of texts."""
    kinds = [(raw.headers[h], raw.lines[n], raw.bodies[b]) for h, n, b in raw.kinds]
    free_ts = raw.free_ts or [NONE] * len(raw.ts)
    return [(*kinds[kind], *more) for kind, *more in zip(
        raw.kind, raw.pfn, raw.block, raw.ts, free_ts, strict=True)]


def check(text: bytes) -> Raw:
    """Assert that every piece of the text is a record, damaged, or of a list of stacks."""
    raw = parsed(text)
    expected = pieces(text)
    found = len(raw.kind) + raw.damaged + raw.names + raw.left_out
    assert found == expected, f"{found} records and damaged ones of {expected} in {text!r}"
    return raw


def check_arrival(text: bytes, raw: Raw, sizes: list[int]) -> None:
    """Assert that it does not matter how the bytes arrive, or what was read before."""
    again = parsed(text, sizes)
    assert again == raw, f"fed in pieces of {sizes}: {text!r}"
    # behind itself all its texts are known, and the short ways are open
    twice = parsed(text.rstrip(b"\n") + b"\n\n" + text)
    once = parsed(text.rstrip(b"\n") + b"\n\n")
    assert rows(twice) == rows(once) + rows(raw), f"known texts: {text!r}"


def check_message(error: PageownerError) -> None:
    """Assert that an error is one line."""
    assert str(error)
    assert "\n" not in str(error)


def as_opened(text: bytes) -> Opened:
    """The text as a stream without a known size."""
    stream = io.BufferedReader(io.BytesIO(text))  # type: ignore[arg-type]
    return Opened("fuzzed", stream, None, stream.peek(64)[:64])


def read_dump(text: bytes, read: Callable[[Opened], Any]) -> Any:
    """The text as a dump, even if it looks like something else by now."""
    opened = restored(as_opened(text))
    found = read(opened)
    note(found.meta, opened)
    return found


def check_snapshot(text: bytes) -> None:
    """Assert that the whole way to a report and back to text holds, or ends in a clear error."""
    arrived = text
    opened = restored(as_opened(arrived))
    text = opened.stream.read()
    if has_other_line_ends(text):
        text = without_cr(text)
    try:
        snapshot = read_dump(arrived, page_owner.read)
    except PageownerError as error:
        check_message(error)
        return
    assert snapshot.meta.extra.get("undone", [])[:len(opened.undone)] == opened.undone
    counted = read_dump(arrived, page_owner.count)
    table = snapshot.table
    beside = parsed(text)
    assert (table.num_rows + snapshot.meta.counters["damaged"] + beside.names
            + beside.left_out) == pieces(text), repr(text)
    table.validate(full=True)
    keys = ["comm", "stack", "gfp", "subsystem", "module", "order"]
    report = snapshot.report(by=keys)
    # of one part, so that it cannot contradict itself
    assert isinstance(counted, Counted)
    assert counted.meta == snapshot.meta, repr(text)
    assert owners(counted, keys) == report.to_pydict(), repr(text)
    assert sum(report["pages"].to_pylist()) == snapshot.pages
    assert sum(report["blocks"].to_pylist()) == table.num_rows
    page_owner_stacks.stacks(snapshot)
    out = io.BytesIO()
    write(snapshot, out)
    again = parsed(out.getvalue())
    kept = table.num_rows - sum(
        state == "early" and stack is None and handle is None for state, stack, handle in zip(
            *(table[name].to_pylist() for name in ("state", "stack", "handle")), strict=True))
    assert (len(again.kind), again.damaged) == (kept, 0), f"{text!r} became {out.getvalue()!r}"


def check_packed(chance: random.Random, packed: bytes, folder: Path) -> None:
    """Assert that a spoilt saved snapshot or packed dump is read or refused in one line."""
    text = bytearray(packed)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(text))
        if chance.random() < 0.8:
            text[at] = chance.randrange(256)
        else:
            del text[at:at + chance.choice((1, 10, 1000))]
    path = folder / "packed"
    path.write_bytes(text)
    try:
        pageowner.read(path).report(by=["comm", "stack"])
    except PageownerError as error:
        check_message(error)


def check_sort(chance: random.Random, text: bytes, folder: Path) -> None:
    """Assert that page_owner_sort ends well or in a clear error."""
    (folder / "in").write_bytes(text)
    options = chance.choice(([], ["-a"], ["-m"], ["-n"], ["-p"], ["-P"], ["-s"], ["-t"],
                             ["--cull", "st,n"], ["--pid", "1"], ["--name", "x"]))
    status = command.main([*options, str(folder / "in"), str(folder / "out")])
    assert status in (0, 1), repr(text)


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def run(count: int, seed: int) -> Counter[str]:
    """Check ``count`` mutated inputs; returns what was seen."""
    pool = records()
    seen: Counter[str] = Counter()
    sound = b"".join(pool)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        (folder / "sound").write_bytes(sound)
        pageowner.read(folder / "sound").save(folder / "saved")
        packages = [(folder / "saved").read_bytes(), lzma.compress(sound[:60_000])]

        def too_long(*_: object) -> None:
            raise TimeoutError(f"an input took over {LIMIT_SECONDS} s")

        # of its own time, whatever else the machine does
        signal.signal(signal.SIGPROF, too_long)
        began, before = time.monotonic(), _peak_mib()
        for number in range(seed, seed + count):
            chance = random.Random(number)
            text = mutated(chance, pool)
            signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)
            try:
                raw = check(text)
                seen["records"] += len(raw.kind)
                seen["damaged"] += raw.damaged
                if number % 8 == 0:
                    seen["fed in pieces"] += 1
                    check_arrival(text, raw, [chance.choice((1, 3, 26, 27, 28, 100, 999))
                                              for _ in range(chance.randrange(1, 4))])
                if number % 64 == 1:
                    seen["to a report and back"] += 1
                    check_snapshot(text)
                if number % 512 == 2:
                    seen["spoilt snapshots and packed dumps"] += 1
                    check_packed(chance, chance.choice(packages), folder)
                if number % 512 == 3:
                    seen["sorted"] += 1
                    check_sort(chance, text, folder)
                if number % 16 == 4:
                    page_owner_stacks.parse(text)
            except BaseException:
                print(f"input {number} ends in:", file=sys.stderr)
                raise
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            seen["inputs"] += 1
            seen["bytes"] += len(text)
            if number % 100_000 == 99_999:
                print(f"{number + 1 - seed:,} inputs, {time.monotonic() - began:.0f} s",
                      file=sys.stderr)
    grown = _peak_mib() - before
    seen["MiB more than before the first"] = grown
    assert grown < LIMIT_MIB, f"{grown} MiB more memory than before the first input"
    return seen


if __name__ == "__main__":
    counted = run(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000,
                  int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    for what, number in counted.items():
        print(f"{number:>15,}  {what}")
    print("all pieces accounted for; no traceback, no hang")
