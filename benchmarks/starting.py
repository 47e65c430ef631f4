"""``pageowner on`` and ``off`` of this whole machine, beside those of another commit.

    starting.py [COMMIT] [ROUNDS]

As root, with tracking off. Both run in turn, on the same Python and packages, so that a noisy
moment hits both; one round first is not counted. CPU is user and system time of the whole command,
in all its threads: it does not show what a second CPU saves by the clock, nor what other work on
the machine adds. Without COMMIT there is nothing beside. The target: 1.5 s on 24 GiB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import ROOT, Run, folder, median, need_tracking

ROUNDS = 7


def run_of(source: Path, *words: str) -> Run:
    """A command of the package in this folder; its memory is not measured."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "pageowner", *words], stdout=subprocess.DEVNULL,
        cwd="/", env={**os.environ, "PYTHONPATH": str(source)})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(
            f"pageowner {' '.join(words)} of {source}: exit status {process.returncode}")
    return Run(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, 0)


def package_of(name: str, place: str) -> Path:
    """The package as it was in a commit."""
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", name, "src"], check=True,
                            capture_output=True).stdout
    subprocess.run(["tar", "-C", place, "-xf", "-"], input=packed, check=True)
    return Path(place) / "src"


@contextmanager
def compared() -> Iterator[tuple[list[Path], str]]:
    """This tree's package, and that of the commit that the command line names ("": none)."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    with folder() as place:
        yield [ROOT / "src", *([package_of(name, place)] if name else [])], name


def rounds_or(default: int) -> int:
    """How many rounds the command line wants."""
    return int(sys.argv[2]) if len(sys.argv) > 2 else default


def main() -> None:
    need_tracking()
    rounds = rounds_or(ROUNDS)
    with compared() as (sources, name):
        runs: dict[tuple[Path, str], list[Run]] = {}
        for number in range(rounds + 1):
            for source in sources:
                for verb in ("on", "off"):
                    done = run_of(source, verb)
                    if number:
                        runs.setdefault((source, verb), []).append(done)
    print(f"medians of {rounds} rounds" + (f", beside commit {name}" if name else ""))
    print()
    print("| command | | ours, s | theirs, s | times faster |")
    print("| --- | --- | --- | --- | --- |")
    for verb in ("on", "off"):
        for what, of in (("by the clock", "wall"), ("CPU", "cpu")):
            times = [[getattr(run, of) for run in runs[source, verb]] for source in sources]
            beside = f"{median(times[1]):.2f}" if name else ""
            faster = f"{median([b / a for a, b in zip(*times, strict=True)]):.2f}" if name else ""
            print(f"| `pageowner {verb}` | {what} | {median(times[0]):.2f} | {beside} | {faster} |")


if __name__ == "__main__":
    main()
