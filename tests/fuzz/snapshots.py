"""Mutated snapshots and series: the content and the metadata of Parquet files, not only their
bytes, and what must hold for every one of them.

    python tests/fuzz/snapshots.py [COUNT [SEED [PROCESSES]]]

Each input is a saved capture, a saved dump or a folder of captures of which some columns, some
words of the metadata, the layout of the file or some bytes are other than anybody would write
them. It is read, and then asked one of the questions that the verbs ask, or saved and read again:
it ends well or in an error of one line; what was read keeps the promises of `Snapshot`; no input
takes seconds, or memory without end. One in many goes through the whole command line.

A number names an input for ever: COUNT 1 and its number as SEED makes it again. Also used by
tests/unit/test_fuzz.py.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import hostile
import pyarrow as pa
import sound
from mutations import Pool, mutated, mutated_series
from questions import ASKED, check_message, check_promises

import pageowner
from pageowner import PageownerError
from pageowner.analysis.shorten import shortened
from pageowner.storage import series

SECONDS = 20
"""Of an input's own time; sound ones take some milliseconds."""

ROOM_MIB = 1024
_WHOLE_LINE = 500  # one input in so many goes through the command line


class Check:
    """One input after another in a folder that is made anew for each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pool = folder, Pool()
        self.path = folder / "snapshot.parquet"
        self.series = folder / "series"
        self.seen: Counter[str] = Counter()

    def one(self, number: int) -> None:
        """Make input ``number`` and check what must hold for it."""
        chance = random.Random(number)
        as_series = chance.random() < 0.2
        if as_series:
            shutil.rmtree(self.series, ignore_errors=True)
            self.series.mkdir()
            paths = mutated_series(chance, self.pool, self.series)
            self.seen["series"] += 1
        else:
            self.path.write_bytes(mutated(chance, self.pool))
            self.seen["snapshots"] += 1
        if number % _WHOLE_LINE == 0:
            self._command(chance, self.series if as_series else self.path)
            return
        try:
            if as_series:
                snapshot = series.read(paths[-1])
                if chance.random() < 0.1:
                    list(series.each(paths))
                    series.last_boot(self.series)
            else:
                snapshot = pageowner.read(self.path)
            self.seen["... that were read"] += 1
            check_promises(snapshot)
            name = chance.choice(sorted(ASKED))
            ASKED[name](chance, shortened(snapshot), self.pool.sound)
            if chance.random() < 0.05:
                snapshot.save(self.folder / "again.parquet")
                assert pageowner.read(self.folder / "again.parquet").table.num_rows == (
                    snapshot.table.num_rows)
        except PageownerError as error:
            check_message(error)
            self.seen["... that were refused"] += 1
        except MemoryError:
            self.seen["... out of memory"] += 1  # one line on the command line

    def _command(self, chance: random.Random, path: Path) -> None:
        """The same by the whole command line, in a process of its own."""
        there = hostile.Files.__new__(hostile.Files)
        there.folder, there.sound = self.folder, self.folder / "sound.parquet"
        if not there.sound.exists():
            table, meta = self.pool.tables[0]
            sound.written(there.sound, table, meta)
        verb = chance.choice(hostile.VERBS)
        end = there.ask(verb, path)
        assert not hostile.why_wrong(end), f"{' '.join(verb)}: {hostile.why_wrong(end)}"
        self.seen["by the command line"] += 1


def _too_long(*_: object) -> None:
    raise TimeoutError(f"an input took over {SECONDS} s")


def run(count: int, seed: int, keep: Path | None = None, limit: bool = True) -> Counter[str]:
    """Check inputs ``seed`` to ``seed + count``; returns what was seen. The first that fails is
    raised, or, with ``keep``, each is kept there and told, and the next has its turn.
    """
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        checked = Check(Path(name))
        before = signal.signal(signal.SIGPROF, _too_long)
        if limit:
            for number in range(50):  # so that all is imported
                checked.one(number)
            checked.seen.clear()
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            _, most = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (taken + (ROOM_MIB << 20), most))
        began, grown = time.monotonic(), _peak_mib()
        try:
            for number in range(seed, seed + count):
                # of its own time, whatever else the machine does
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                try:
                    checked.one(number)
                except Exception as error:
                    print(f"input {number} ends in: {type(error).__name__}: {error}"[:300],
                          file=sys.stderr, flush=True)
                    checked.seen["FAILED"] += 1
                    if keep is None:
                        raise
                    keep.mkdir(exist_ok=True)
                    import traceback

                    (keep / f"{number}.txt").write_text(traceback.format_exc())
                finally:
                    signal.setitimer(signal.ITIMER_PROF, 0)
                if (number + 1 - seed) % 2_000 == 0:
                    print(f"{number + 1 - seed:,} inputs, {time.monotonic() - began:.0f} s,"
                          f" {_peak_mib()} MiB, {checked.seen['FAILED']} failed",
                          file=sys.stderr, flush=True)
        finally:
            signal.signal(signal.SIGPROF, before)
        checked.seen["MiB more than before the first"] = _peak_mib() - grown
        return checked.seen


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main(count: int, seed: int, processes: int) -> int:
    """As the file says; how many inputs failed."""
    os.environ["OMP_NUM_THREADS"] = "1"
    pa.set_cpu_count(1)
    keep = Path(tempfile.gettempdir()) / "pageowner-fuzz"
    share = -(-count // processes)
    children = []
    for place in range(processes):
        child = os.fork()
        if not child:
            seen = run(min(share, count - place * share), seed + place * share, keep)
            for what, number in seen.items():
                print(f"{number:>15,}  {what}", flush=True)
            os._exit(1 if seen["FAILED"] else 0)
        children.append(child)
    failed = sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)
    print("some failed; why is in " + str(keep) if failed else
          "all read, or refused in one line; no traceback, no hang")
    return failed


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    sys.exit(bool(main(*(words + [1_000_000, 0, 1][len(words):]))))
