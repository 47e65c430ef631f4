"""The dump of a large machine, read from ``xz -dc`` in a pipe: does memory stay flat?

    large.py [GB ...]

It is the real dump over and over, each time at page frames and times of its own, as a machine with
so much more memory would print it: 10 GB are a machine of some 250 GB. The largest is made once,
packed; the others are its beginning.
"""

from __future__ import annotations

import argparse
import lzma
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from common import BIN, DUMP, Run, folder, run

SPAN = 1 << 20
"""Page frames between one copy and the next: the dump is of a machine with fewer, in whole
pageblocks."""
BLOCK = 9  # the order of its pageblocks
LATER = 10**12  # ns
NUMBERS = re.compile(rb" (\d+) ns\nPFN 0x([0-9a-f]+) type (\w+) Block (\d+) ")


def copies(size: int) -> Iterator[bytes]:
    """The dump again and again, ``size`` bytes or a little more in all."""
    text = lzma.decompress(DUMP.read_bytes())
    number = 0
    while size > 0:
        def moved(found: re.Match[bytes], number: int = number) -> bytes:
            ns, pfn, kind, block = found.groups()
            return b" %d ns\nPFN 0x%x type %b Block %d " % (
                int(ns) + number * LATER, int(pfn, 16) + number * SPAN, kind,
                int(block) + number * (SPAN >> BLOCK))

        copy = NUMBERS.sub(moved, text)
        yield copy
        size -= len(copy)
        number += 1


def make(path: Path, sizes: list[int]) -> list[tuple[int, int]]:
    """An .xz file, a member for each copy. Returns, for each size, what it came to and the bytes of
    the file that unpack to that much."""
    written = packed = 0
    ends = []
    waiting = sorted(sizes)
    with path.open("wb") as out:
        for copy in copies(waiting[-1]):
            member = subprocess.run(["xz", "-0", "-c"], input=copy, stdout=subprocess.PIPE,
                                    check=True).stdout
            out.write(member)
            written += len(copy)
            packed += len(member)
            while waiting and written >= waiting[0]:
                ends.append((written, packed))
                del waiting[0]
    return ends


def measure(path: Path, packed: int, command: list[str]) -> Run:
    """``command`` with the first ``packed`` bytes of the file, unpacked, in its standard input."""
    head = subprocess.Popen(["head", "-c", str(packed), path], stdout=subprocess.PIPE)
    unpack = subprocess.Popen(["xz", "-dc"], stdin=head.stdout, stdout=subprocess.PIPE)
    assert head.stdout is not None
    head.stdout.close()
    try:
        return run(command, stdin=unpack.stdout)
    finally:
        assert unpack.stdout is not None
        unpack.stdout.close()
        unpack.wait()
        head.wait()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("gigabytes", nargs="*", type=float, default=[1, 3, 10])
    words = parser.parse_args()
    with folder() as place:
        path = Path(place) / "large.txt.xz"
        ends = make(path, [int(size * 1e9) for size in words.gigabytes])
        print("| command | dump, GB | s | MB/s | CPU, s | peak MiB |")
        print("| --- " * 6 + "|")
        saved = f"{place}/saved.parquet"
        for command in (["pageowner", "report", "-"], ["pageowner", "save", saved, "-"],
                        ["page_owner_sort", "-", f"{place}/sorted.txt"]):
            for size, packed in ends:
                took = measure(path, packed, [str(BIN / command[0]), *command[1:]])
                name = " ".join(command).replace(f"{place}/", "")
                print(f"| `{name}` | {size / 1e9:.2f} | {took.wall:.1f} |"
                      f" {size / 1e6 / took.wall:.0f} | {took.cpu:.1f} |"
                      f" {took.peak / 2**20:.0f} |", flush=True)


if __name__ == "__main__":
    main()
