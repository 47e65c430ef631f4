"""Texts other than a plain dump, each of about 100 and of 400 MB made from the real dump: how fast
``pageowner`` reads them, in MB a second, with the time for starting and for the answer.

With ``--before DIR``, a checkout of another version, the same command of that version runs in turn,
and its answer, as JSON, must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count, cycle, islice
from pathlib import Path

from common import BIN, ROOT, folder, median, pairs, ratio, run, unpacked

SIZES = (100, 400)
"""MB of each text. The larger ones tell what starting takes of the smaller."""
SLOW = "kernel log, all of it reports"
"""The text that takes a minute: only of the first size."""

START = b"Page allocated via order "
LOGS = ROOT / "tests/data/logs"
_RECORD = re.compile(rb"Page allocated via order (\d+), mask (0x[0-9a-f]+)\([^)]*\), pid (\d+),"
                     rb" tgid (\d+) \((.*?)\), ts (\d+) ns(?:, free_ts (\d+) ns)?\n"
                     rb"PFN (0x[0-9a-f]+|\d+) [^\n]*\n((?: [^\n]*\n)*)")


def records(dump: str) -> Iterator[tuple[bytes, ...]]:
    """Order, mask, pid, tgid, name, time, free time, pfn and stack of each record, without end."""
    found = [each.groups() for each in islice(
        map(_RECORD.match, Path(dump).read_bytes().split(b"\n\n")), 200_000) if each]
    for turn in count():
        for order, mask, pid, tgid, comm, ts, freed, pfn, stack in found:
            yield (order, mask, pid, tgid, comm, b"%d" % (int(ts) + turn), freed or b"0",
                   b"%d" % (int(pfn, 0) + (turn << 24)), stack)


def stacks(dump: str) -> list[bytes]:
    return list(dict.fromkeys(record[-1] for record in islice(records(dump), 200_000)))


def plain(dump: str) -> Iterator[bytes]:
    """A plain dump, to compare with."""
    yield from cycle([record + b"\n\n" for record in Path(dump).read_bytes().split(b"\n\n")[:-1]])


def sorted_text(dump: str) -> Iterator[bytes]:
    made = f"{dump}.sorted"
    subprocess.run([BIN / "page_owner_sort", dump, made], check=True, capture_output=True)
    groups = Path(made).read_bytes().split(b"\n\n")[:-1]
    os.remove(made)
    for turn in count():
        for group in groups:  # of other tasks each time
            yield re.sub(rb"(?<=, pid )\d+(?=, tgid \d)", b"%d" % (turn + 1), group) + b"\n\n"


def allocinfo(dump: str) -> Iterator[bytes]:
    """The lines of one kernel again and again, under one head."""
    chance = random.Random(1)
    names = list(dict.fromkeys(re.findall(rb"^ ([\w.]+)\+", b"".join(stacks(dump)), re.MULTILINE)))
    lines = [b"%s/%s.c:%d %sfunc:%s \n" % (
        chance.choice((b"mm", b"fs/ext4", b"drivers/net/ethernet/intel/e1000e", b"kernel")),
        names[number % len(names)][:12], chance.randrange(9999),
        b"[e1000e] " if number % 5 == 4 else b"", names[number % len(names)])
        for number in range(6000)]
    yield b"allocinfo - version: 1.0\n#     <size>  <calls> <tag info>\n"
    while True:
        for line in lines:
            calls = int(chance.paretovariate(0.3)) % 99_999 if chance.random() < 0.6 else 0
            yield b"%12d %8d " % (calls << chance.randrange(4, 13), calls) + line


def stack_list(dump: str) -> Iterator[bytes]:
    listed = stacks(dump)
    for number in count():
        turn, place = divmod(number, len(listed))
        yield b"%s entry_%d+0x1/0x2\nnr_base_pages: %d\n\n" % (
            listed[place], turn, number % 999 + 1)


def crash(dump: str) -> Iterator[bytes]:
    short: dict[bytes, bytes] = {}
    for order, mask, pid, tgid, comm, ts, freed, pfn, stack in records(dump):
        frames = short.get(stack)
        if frames is None:
            frames = short[stack] = re.sub(rb"(?m)^ (\S+?)(?:/\S+)?( \[.*)?$", rb"  \1", stack)
        yield (b"PFN %s(0x%x) paddr %x page_owner ffff892c%08x\n%s%s, mask %s, pid %s, tgid %s"
               b" (%s), ts %s ns, free_ts %s ns\n[alloc]\n%s\n" % (
                   pfn, int(pfn), int(pfn) << 12, int(pfn) & 0xffffffff, START, order, mask, pid,
                   tgid, comm, ts, freed, frames))


def gdb(dump: str) -> Iterator[bytes]:
    frames: dict[bytes, bytes] = {}
    for order, mask, pid, tgid, comm, ts, freed, pfn, stack in records(dump):
        if stack not in frames:
            frames[stack] = b"".join(
                b"   0xffff8000%08x <%s+%d>:\tmov\tx0, x19\n" % (hash(name) & 0xffffffff, name,
                                                                int(at, 16))
                for name, at in re.findall(rb"(?m)^ (\S+?)\+(0x[0-9a-f]+)", stack))
        yield (b"%s%s, gfp_mask: %s, pid: %s, tgid: %s (%s), ts %s ns, free_ts %s ns\n"
               b"PFN: %s, Flags: 0x200\n%s" % (START, order, mask, pid, tgid, comm, ts, freed, pfn,
                                               frames[stack]))


def minidump(dump: str) -> Iterator[bytes]:
    handles: dict[bytes, int] = {}
    for *_, pfn, stack in records(dump):
        if stack in handles:
            yield b"%s %d 0\n" % (pfn, handles[stack])
            continue
        handles[stack] = 655_360 + len(handles)
        depth = stack.count(b"\n")
        yield b"%s %d %d\n%s" % (pfn, handles[stack], depth, b"".join(
            b"ffffffc0%08x\n" % (hash(line) & 0xffffffff) for line in stack.split(b"\n")[:depth]))


def log_lines(dump: str) -> Iterator[bytes]:
    """Lines of a year, and among each 20,000 a report of memory that was out."""
    report = [line[line.find("] ") + 2:] if line.startswith("[") else line
              for line in (LOGS / "oom-6.12.txt").read_text().splitlines()]
    noise = [
        "usb 1-1: new high-speed USB device number {0} using xhci_hcd",
        "EXT4-fs (sda{0}): mounted filesystem with ordered data mode. Quota mode: none.",
        "IPv6: ADDRCONF(NETDEV_CHANGE): veth{0:x}: link becomes ready",
        "audit: type=1400 audit(1764150000.{0}:71): apparmor=\"DENIED\" operation=\"open\" pid={0}",
        "e1000e 0000:00:1f.6 eno1: NIC Link is Up 1000 Mbps Full Duplex, Flow Control: Rx/Tx",
        "br-{0:x}: port 3(veth{0:x}) entered disabled state",
        "docker0: port 1(veth{0:x}) entered blocking state",
        "device veth{0:x} entered promiscuous mode"]
    for number in count():
        lines = report if number % 20_000 == 9_000 else [
            noise[number * 7 % len(noise)].format(number % 9973)]
        for at, line in enumerate(lines):
            prefix = "[%12.6f] " % (number * 1.37 + at / 1e6)
            yield (line if line[:1] == " " and lines is report and "+0x" not in line and "<" not in
                   line else prefix + line).encode() + b"\n"


def reports(dump: str) -> Iterator[bytes]:
    """One report of memory that was out after the other."""
    text = (LOGS / "oom-6.12.txt").read_text()
    for number in count():
        yield re.sub(r"\[ (\d+)\.", lambda found: f"[ {int(found[1]) + number}.", text).encode()  # noqa: B023


TEXTS: dict[str, tuple[str, Callable[[str], Iterator[bytes]]]] = {
    "plain dump": ("report", plain),
    "page_owner_sort output": ("report", sorted_text),
    "/proc/allocinfo": ("report", allocinfo),
    "page_owner_stacks": ("report", stack_list),
    "crash's owner -l": ("report", crash),
    "gdb's lx-dump-page-owner": ("report", gdb),
    "Qualcomm's minidump": ("report", minidump),
    "kernel log": ("explain", log_lines),
    SLOW: ("explain", reports),
}


def write(path: Path, pieces: Iterator[bytes], size: int) -> None:
    with path.open("wb") as file:
        while file.tell() < size:
            file.writelines(islice(pieces, 1000 if size > 1 << 24 else 10))


def answer(command: list[str]) -> object:
    out = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True)
    # That lines of code come again in /proc/allocinfo is told since they do so here.
    return json.loads(out.stdout), [line for line in out.stderr.splitlines()
                                    if "if these are several lists" not in line]


def main() -> int:
    """Print the tables; 1 if an answer differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, action="append", help="MB of each text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, metavar="DIR", help="a checkout to compare with")
    parser.add_argument("--only", metavar="WORD", help="texts whose name has this word in it")
    words = parser.parse_args()
    sizes = words.size or SIZES
    equal = [_table(size, words, slow=not place) for place, size in enumerate(sizes)]
    return 0 if all(equal) else 1


def _table(megabytes: int, words: argparse.Namespace, slow: bool) -> bool:
    """Print one; whether the answers of both versions were equal."""
    equal = True
    print(f"medians of {words.rounds} runs on {megabytes} MB of each text")
    print("| text | command | MB/s | MB/s of CPU time | peak MiB |"
          + (" times faster | in CPU time | answer |" if words.before else ""))
    print("| --- " * (8 if words.before else 5) + "|")
    with folder() as place:
        dump = unpacked(place)
        for name, (verb, make) in TEXTS.items():
            if name == SLOW and not slow:
                continue
            if words.only and (words.only != name if words.only in TEXTS else
                               words.only not in name):
                continue
            text = Path(place, "text")
            write(text, make(dump), megabytes * 10**6)
            size = text.stat().st_size / 1e6
            ours = [sys.executable, "-m", "pageowner", verb, str(text)]
            ending = ""
            if words.before:
                theirs = ["env", f"PYTHONPATH={words.before}/src", *ours]
                mine, other = pairs(ours, theirs, words.rounds)
                same = answer(ours) == answer(theirs)
                equal = equal and same
                ending = (f" {ratio(mine, other):.1f} | {ratio(mine, other, 'cpu'):.1f} |"
                          f" {'same' if same else 'DIFFERS'} |")
            else:
                mine = [run(ours) for _ in range(words.rounds)]
            print(f"| {name} | `{verb}` | {size / median([each.wall for each in mine]):.0f} |"
                  f" {size / median([each.cpu for each in mine]):.0f} |"
                  f" {median([each.peak for each in mine]) / 2**20:.0f} |{ending}", flush=True)
    print()
    return equal


if __name__ == "__main__":
    sys.exit(main())
