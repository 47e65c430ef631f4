"""Mutated vmcores: a small real one of which some bytes are other than any kernel would leave them.

    python tests/fuzz/vmcores.py VMCORE [COUNT [SEED [PROCESSES]]]

What holds for every one: the command ends with status 0 or 1, with 1 in one line, without a
traceback, in `SECONDS` of the processor's time and `MIB` of memory. Of an ELF file what is read is
learned first; a mutation strikes one of the numbers, pointers and texts that are, wherever in the
file they lie, a table of page tables, or the headers; of one of kdump's its headers, the
descriptions of pages, and pages. Most are read by a fork that has the symbols and types of the
sound one (those of a sixteenth are its own), so that thousands can be tried.

A number names a mutation for ever. `tests/vm/boot.py --dies` makes vmcores.
"""

from __future__ import annotations

import gc
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import hostile

SECONDS = 60
"""Of the processor's time."""
MIB = 1024
"""Of addresses, beside those that the sound one takes."""
VERBS = (("report", "F"), ("report", "F", "--by", "user"), ("balance", "F"), ("explain", "F"),
         ("frag", "F"), ("save", "O", "F"), ("dump", "F"))
_PAGE, _PT_LOAD = 4096, 1
_FRESH = 16
_HOSTILE = (0, 1, 2, 3, 7, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 31, 1 << 32,
            (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_MOST_READS = 400_000
_OF_EACH = 500
"""Addresses of each copy that are noted."""


class Reads:
    """Where what is read of an ELF file lies in it: places as (offset, length)."""

    def __init__(self, path: Path) -> None:
        self._at: dict[int, list[int]] = {}
        self.tables: list[int] = []
        self.places: list[tuple[int, int]] = []
        self.of_length: dict[int, list[tuple[int, int]]] = {}
        self.lengths: list[int] = []
        content = path.read_bytes()
        table, size, count = (struct.unpack_from("<Q", content, 32)[0],
                              *struct.unpack_from("<HH", content, 54))
        for segment in range(table, table + size * count, size):
            kind, _, begin, _, _, length = struct.unpack_from("<IIQQQQ", content, segment)
            for at in range(begin, begin + length, _PAGE) if kind == _PT_LOAD else ():
                self._keep(at, content[at:at + _PAGE])

    def _keep(self, at: int, page: bytes) -> None:
        self._at.setdefault(hash(page), []).append(at)
        used = [entry for entry in struct.unpack(f"<{len(page) // 8}Q", page) if entry]
        if len(used) > 2 and all(
                entry & 1 and entry & (1 << 52) - 1 < 1 << 40 for entry in used):
            self.tables.append(at)

    def learn(self, memory: Any, reads: list[tuple[int, int]]) -> None:
        """Find these reads (address, length) in the file."""
        pages: dict[int, int | None] = {}
        for address, length in reads:
            page = address // _PAGE
            if page not in pages:
                try:
                    known = self._at.get(hash(memory._program.read(page * _PAGE, _PAGE)), [])
                except Exception:
                    known = []
                pages[page] = known[0] if len(known) == 1 else None
            if (at := pages[page]) is not None:
                self.places.append((at + address % _PAGE, length))
        for place in self.places:
            self.of_length.setdefault(place[1], []).append(place)
        self.lengths = sorted(self.of_length)
        self._at = {}  # forks are as dear as what there is


class Mutations:
    """Mutations of one file, in a copy of it."""

    def __init__(self, path: Path, copy: Path) -> None:
        shutil.copyfile(path, copy)
        self.path, self.size = copy, copy.stat().st_size
        with copy.open("rb") as file:
            self.is_elf = file.read(4) == b"\x7fELF"
        self.reads: Reads | None = None

    def strike(self, chance: random.Random, fresh: bool) -> list[tuple[int, bytes]]:
        """Change the file; what was there before."""
        before = []
        with self.path.open("r+b") as file:
            for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
                at, length = self._place(chance, fresh)
                at = max(min(at, self.size - length), 0)
                file.seek(at)
                old = file.read(length)
                before.append((at, old))
                file.seek(at)
                file.write(self._other(chance, old))
        return before

    def undo(self, before: list[tuple[int, bytes]]) -> None:
        """Make the file what it was."""
        with self.path.open("r+b") as file:
            for at, old in reversed(before):
                file.seek(at)
                file.write(old)

    def _place(self, chance: random.Random, fresh: bool) -> tuple[int, int]:
        if self.reads is None:
            kind = chance.random()
            most = 8192 if kind < 0.4 else 1 << 20 if kind < 0.7 else self.size
            return chance.randrange(min(most, self.size - 8)), chance.choice((1, 4, 8))
        kind = chance.random()
        if fresh and kind < 0.6:
            return chance.randrange(8192), chance.choice((1, 2, 4, 8))
        if kind < 0.1 and self.reads.tables:
            return chance.choice(self.reads.tables) + 8 * chance.randrange(512), 8
        # as often one of the few that lead somewhere as one of the many of a table
        at, length = chance.choice(self.reads.of_length[chance.choice(self.reads.lengths)])
        if length <= 8:
            return at, length
        return at + chance.randrange(length) // 8 * 8, 8

    def _other(self, chance: random.Random, old: bytes) -> bytes:
        kind, length = chance.random(), len(old)
        number = int.from_bytes(old, "little")
        if kind < 0.4:
            number = chance.choice(_HOSTILE)
        elif kind < 0.6:
            number ^= 1 << chance.randrange(8 * max(length, 1))
        elif kind < 0.75:
            number += chance.choice((-1, 1, -8, 8, 64, 4096, -4096))
        elif kind < 0.9 and self.reads is not None:  # what is elsewhere: another pointer, a circle
            at, _ = chance.choice(self.reads.places)
            with self.path.open("rb") as file:
                file.seek(at)
                return file.read(length).ljust(length, b"\0")
        else:
            return chance.randbytes(length)
        return (number & (1 << 8 * length) - 1).to_bytes(length, "little")


class Forks:
    """Runs commands in forks, on a file of which this process has the symbols and types."""

    def __init__(self, folder: Path, path: Path) -> None:
        from pageowner.vmcore import memory

        self.folder, self.path, self._module = folder, path, memory
        self.made: Any = memory.Vmcore
        self.memory: Any = memory.Vmcore(str(path))
        self._seen: dict[tuple[int, int], None] = {}

    def warm(self) -> list[tuple[int, int]]:
        """Ask all once, so that all is imported in the forks; what was read (address, length)."""
        from pageowner.cli import main

        real, reads = (self.made.copy, self.made.fill), self._seen

        def copy(memory: Any, addresses: Any, size: int, out: Any = None) -> Any:
            for address in addresses[:_OF_EACH].tolist() if len(reads) < _MOST_READS else ():
                reads[address, size] = None
            return real[0](memory, addresses, size, out)

        def fill(memory: Any, address: int, size: int) -> Any:
            if len(reads) < _MOST_READS:
                reads[address, size] = None
            return real[1](memory, address, size)

        self.made.copy, self.made.fill = copy, fill
        try:
            with hostile.unheard():
                for verb in VERBS:
                    main(self._words(verb))
        finally:
            self.made.copy, self.made.fill = real
        _ = self.memory.symbols
        return list(reads)

    def _words(self, verb: tuple[str, ...]) -> list[str]:
        words = {"F": str(self.path), "O": str(self.folder / "out.parquet")}
        return [words.get(word, word) for word in verb]

    def ask(self, verb: tuple[str, ...], fresh: bool) -> hostile.End:
        """One question to the file as it is now; ``fresh``: of which nothing is known."""
        out, err = self.folder / "stdout", self.folder / "stderr"
        began = time.monotonic()
        child = os.fork()
        if not child:
            status = 99
            try:
                status = self._child(verb, fresh, out, err)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        _, status, used = os.wait4(child, 0)
        ends = [path.read_bytes() for path in (out, err)]
        del began
        return hostile.End(os.waitstatus_to_exitcode(status), *ends,
                           used.ru_utime + used.ru_stime, used.ru_maxrss >> 10)

    def _child(self, verb: tuple[str, ...], fresh: bool, out: Path, err: Path) -> int:
        from pageowner.cli import main

        for number, path in ((1, out), (2, err)):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, number)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (taken + (MIB << 20), most))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        if not fresh:
            self._module.Vmcore = lambda *_: self.memory  # type: ignore[assignment,misc]
        return main(self._words(verb))


def why_wrong(end: hostile.End) -> str:
    """What of an end must not be; empty if it is well."""
    if end.status in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"not done after {end.seconds:.0f} s"
    text = end.err.decode(errors="replace")
    if end.status == 1 and len(text.splitlines()) != 1:
        return f"{len(text.splitlines())} lines: {text[-300:]!r}"
    return hostile.why_wrong(end) or (f"status {end.status}: {text[-300:]}"
                                      if end.status not in (0, 1) else "")


def run(path: Path, count: int, seed: int, folder: Path) -> Counter[str]:
    """Try mutations ``seed`` to ``seed + count``; what was seen."""
    seen: Counter[str] = Counter()
    mutations = Mutations(path, folder / f"copy-{os.getpid()}")
    forks = Forks(folder, mutations.path)
    reads = forks.warm()
    if mutations.is_elf:
        mutations.reads = Reads(path)
        mutations.reads.learn(forks.memory, reads)
        print(f"{len(reads):,} reads, {len(mutations.reads.places):,} found in the file,"
              f" {len(mutations.reads.tables):,} page tables", file=sys.stderr)
    gc.collect()
    gc.freeze()
    for fresh in (False, True):  # else all that is altered may be refused for another reason
        end = forks.ask(VERBS[0], fresh)
        if end.status:
            raise SystemExit(f"{path}: {' '.join(VERBS[0])}: {end.err.decode(errors='replace')}")
    slowest, largest, spent = (0.0, 0), (0, 0), 0.0
    for number in range(seed, seed + count):
        chance = random.Random(number)
        fresh = number % _FRESH == 0 or not mutations.is_elf
        verb = chance.choice(VERBS)
        before = mutations.strike(chance, fresh)
        try:
            end = forks.ask(verb, fresh)
        finally:
            mutations.undo(before)
        seen[f"status {end.status}"] += 1
        spent += end.seconds
        slowest, largest = max(slowest, (end.seconds, number)), max(largest, (end.mib, number))
        if wrong := why_wrong(end):
            seen["FAILED"] += 1
            print(f"mutation {number}: {' '.join(verb)}: {wrong}", flush=True)
            if b"Traceback" in end.err:
                (Path(tempfile.gettempdir()) / f"pageowner-vmcore-{number}.txt").write_bytes(
                    end.err)
        if (number + 1 - seed) % 200 == 0:
            print(f"{number + 1 - seed:,} mutations, {seen['FAILED']} failed; slowest"
                  f" {slowest[0]:.1f} s ({slowest[1]}), mean {spent / (number + 1 - seed):.2f} s,"
                  f" largest {largest[0]} MiB ({largest[1]})",
                  file=sys.stderr, flush=True)
    return seen


def main(path: Path, count: int, seed: int, processes: int) -> int:
    """As the file says; how many processes saw one fail."""
    share, children = -(-count // processes), []
    for place in range(processes):
        child = os.fork()
        if not child:
            with tempfile.TemporaryDirectory(
                    dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
                seen = run(path, min(share, count - place * share), seed + place * share,
                           Path(name))
            for what, number in sorted(seen.items()):
                print(f"{number:>10,}  {what}", flush=True)
            os._exit(1 if seen["FAILED"] else 0)
        children.append(child)
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:]]
    sys.exit(bool(main(Path(sys.argv[1]), *(numbers + [10_000, 0, 1][len(numbers):]))))
