"""Every verb's questions to snapshots and series that were made by hand to do harm.

    python tests/fuzz/hostile.py [COUNT [SEED]]

What holds for every file and verb: it ends within `SECONDS`, with a status that is documented, no
traceback, and no more than `MIB` of memory. Each runs in a process of its own: a fork of this one,
in which all is imported, or, one in many, a command line that starts from nothing. Also used by
tests/unit/test_hostile_files.py.
"""

from __future__ import annotations

import gc
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import handmade

SECONDS = 60
MIB = 1024
_ANEW = 50  # one combination in so many is a command line that starts from nothing
ROOM_MIB = 1024
"""Of addresses, beside those that are taken before the first word is understood: who needs more has
to say so in one line."""

_READ = 1 << 20

VERBS: tuple[tuple[str, ...], ...] = (
    ("report", "F"), ("report", "F", "--full"), ("report", "F", "--json", "--by", "comm,stack"),
    ("report", "F", "--all", "--by",
     "subsystem,module,frame,memcg,zone,node,state,block,gfp,order,reason,pid"),
    ("report", "F", "--older", "1s", "--comm", "t*"), ("report", "F", "--zone", "Normal"),
    ("report", "F", "--gfp", "KERNEL", "--state", "owned"), ("who", "0x1000", "-s", "F"),
    ("who", "4096", "4503599627370495", "-s", "F", "--json"), ("frag", "F"),
    ("frag", "F", "--order", "9", "--want", "3"), ("frag", "F", "--by", "comm", "--json"),
    ("frag", "F", "--order", "3", "--json", "--all"), ("map", "F"), ("map", "F", "--json"),
    ("map", "F", "--by", "age", "--order", "hilbert"), ("map", "F", "--png", "O"),
    ("map", "F", "--html", "O", "--by", "comm"), ("flame", "F", "--svg", "O"),
    ("flame", "F", "--html", "O", "--by", "comm,memcg"), ("flame", "F", "S", "--svg", "O"),
    ("export", "F", "--format", "pprof", "-o", "O"), ("export", "F", "--format", "folded"),
    ("export", "F", "--format", "speedscope"), ("export", "F", "--format", "json"),
    ("export", "F", "--format", "csv"), ("export", "F", "--format", "parquet", "-o", "O"),
    ("diff", "F", "S"), ("diff", "S", "F", "--by", "comm", "--json"), ("diff", "F", "F", "--full"),
    ("leaks", "F", "F", "F", "F"), ("leaks", "F", "S", "S", "S", "--json"), ("save", "O", "F"),
    ("save", "O", "F", "--order", "0"), ("dump", "F"), ("stacks", "F"), ("stacks", "F", "--json"),
    ("query", "SELECT count(*), sum(pages), max(age_s) FROM pages", "F"),
    ("query", "SELECT * FROM pages LIMIT 5", "F", "--json"),
    ("query", "SELECT comm, subsystem, module, sum(bytes) FROM pages GROUP BY ALL", "F", "S"),
    ("sort", "F", "O"),
)
"""Questions to a file ``F``; ``S`` is a sound one, ``O`` what is written."""


class End(NamedTuple):
    """How a command ended: its status (minus a signal's number), what it wrote (the beginning, and
    how much), the seconds it took and the MiB that were in memory at most."""

    status: int
    out: bytes
    err: bytes
    seconds: float
    mib: int
    wrote: int = 0


@contextmanager
def unheard() -> Iterator[None]:
    """What commands within this process write goes nowhere; signals are as before at its end."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    saved = [os.dup(number) for number in (1, 2)]
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(null, number)
        yield
        sys.stdout.flush()
    finally:
        for number, file in zip((1, 2), saved, strict=True):
            os.dup2(file, number)
            os.close(file)
        os.close(null)
        for number, handler in signals.items():
            signal.signal(number, handler)


def preload(there: Files) -> None:
    """Ask every question to a sound file once, in this process, so that all is imported in its
    forks."""
    from pageowner.cli import main

    with unheard():
        for verb in VERBS:
            main(list(there.words(verb, there.sound)))
            there.output(verb).unlink(missing_ok=True)
    gc.collect()
    gc.freeze()


def run(words: tuple[str, ...], folder: Path, room_mib: int = ROOM_MIB, seconds: int = SECONDS,
        anew: bool = False) -> End:
    """Run ``pageowner WORDS...`` in a fork of this process, or in a Python that starts anew."""
    out, err = folder / "stdout", folder / "stderr"
    began = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Arrow's threads hold no lock that the child takes
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            status = _child(words, out, err, room_mib, seconds, anew)
        except BaseException:
            import traceback

            traceback.print_exc()
            status = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    _, status, used = os.wait4(child, 0)
    began_with = []
    for path in (out, err):
        with path.open("rb") as file:
            began_with.append(file.read(_READ))
    return End(os.waitstatus_to_exitcode(status), *began_with, time.monotonic() - began,
               used.ru_maxrss >> 10, out.stat().st_size)


def _child(words: tuple[str, ...], out: Path, err: Path, room_mib: int, seconds: int,
           anew: bool) -> int:
    from pageowner.cli import main

    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + (room_mib << 20), most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    if anew:
        os.execv(sys.executable, [sys.executable, "-m", "pageowner", *words])
    return main(list(words))


def why_wrong(end: End) -> str:
    """What of an end must not be; empty if it is well."""
    text = end.err.decode(errors="replace")
    if end.status == -signal.SIGALRM:
        return f"not done after {end.seconds:.0f} s"
    if "Traceback" in text or end.status not in range(4):
        lines = text.strip().splitlines() or [""]
        where = [line for line in lines if line.startswith("  File") and "pageowner" in line]
        return f"status {end.status}: {lines[-1][:150]} ({where[-1][-80:] if where else ''})"
    if end.mib > MIB:
        return f"{end.mib:,} MiB"
    if end.status == 1 and not text and end.out == b"":
        return "failed without a word"
    if end.status in (1, 2) and max(map(len, text.splitlines() or [""])) > 5000:
        return f"a line of {len(text):,} characters"
    return ""


class Files:
    """The hand-made files, each written when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = handmade.files()
        self.sound = folder / "sound.parquet"
        self.made["sound"](self.sound)

    def output(self, verb: tuple[str, ...]) -> Path:
        """Where a verb writes."""
        return self.folder / ("out.svg" if "--svg" in verb else "out")

    def words(self, verb: tuple[str, ...], path: Path) -> tuple[str, ...]:
        """A verb with the names of the files."""
        words = {"F": str(path), "S": str(self.sound), "O": str(self.output(verb))}
        return tuple(words.get(word, word) for word in verb)

    def ask(self, verb: tuple[str, ...], path: Path, **limits: Any) -> End:
        """One question to one file."""
        try:
            return run(self.words(verb, path), self.folder, **limits)
        finally:
            self.output(verb).unlink(missing_ok=True)


def main(count: int, seed: int) -> int:
    """Check ``count`` combinations, every file before any of them a second time; how many failed.
    """
    chance = random.Random(seed)
    seen: Counter[str] = Counter()
    slowest, largest = (0.0, ""), (0, "")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        there = Files(Path(name))
        preload(there)
        names = chance.sample(list(there.made), len(there.made))
        each, more = divmod(count, len(names))
        for number, file in enumerate(names):
            verbs = chance.sample(VERBS, min(each + (number < more), len(VERBS)))
            if not verbs:
                break
            path = there.folder / f"hostile-{number}.parquet"
            there.made[file](path)
            for verb in verbs:
                anew = seen["combinations"] % _ANEW == _ANEW - 1
                end = there.ask(verb, path, anew=anew)
                seen["combinations"] += 1
                seen["of them command lines that start from nothing"] += anew
                seen[f"status {end.status}"] += 1
                seen["out of memory, or it would be"] += (
                    b"out of memory" in end.err or b" available; " in end.err)
                slowest = max(slowest, (end.seconds, f"{file}: {' '.join(verb)}"))
                largest = max(largest, (end.mib, f"{file}: {' '.join(verb)}"))
                if wrong := why_wrong(end):
                    seen["failed"] += 1
                    print(f"{file}: {' '.join(verb)}: {wrong}", flush=True)
                if not seen["combinations"] % 200:
                    print(f"{seen['combinations']:,} combinations, {number + 1:,} files,"
                          f" {seen['failed']} failed", file=sys.stderr, flush=True)
            if path.is_dir():
                for inner in path.iterdir():
                    inner.rmdir() if inner.is_dir() else inner.unlink()
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
    for what, sum_ in sorted(seen.items()):
        print(f"{sum_:>10,}  {what}")
    print(f"slowest {slowest[0]:.1f} s: {slowest[1]}\nlargest {largest[0]:,} MiB: {largest[1]}")
    return seen["failed"]


if __name__ == "__main__":
    failed = main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000,
                  int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    sys.exit(1 if failed else 0)
