"""page_owner_sort against the kernel's own tool, in one run: time, peak memory, same output.

    scripts/peers && .venv/bin/python benchmarks/sort.py [--times N] [--runs N] [--dump FILE]

Inputs are the bundled 118 MB dump and ten of it in a row, unpacked into a temporary directory. Both
programs run in turn, so that whatever else the machine does meets both; medians are compared. Peak
memory is taken in a run of its own: the largest sum of resident sizes over a program's processes,
sampled every two milliseconds, pages that processes share counted once for each.
"""

from __future__ import annotations

import argparse
import lzma
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DUMP = ROOT / "tests/data/6.12-fragmented/page_owner.txt.xz"


def peer() -> Path:
    """Where scripts/peers puts the kernel's tool."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "pageowner/peers/page_owner_sort"


def seconds(command: list[str]) -> float:
    """What one run takes."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def peak(command: list[str]) -> int:
    """The largest sum of resident bytes over the processes of one run."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        most = max(most, sum(map(_resident, _family(process.pid))))
        time.sleep(0.002)
    return most


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in _family(int(child)))]


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def unpack(dump: Path, folder: Path, times: int) -> tuple[Path, Path]:
    """The dump as it is, and some of it in a row."""
    small, big = folder / "page_owner.txt", folder / f"page_owner_x{times}.txt"
    opener = lzma.open if dump.suffix == ".xz" else open
    with opener(dump, "rb") as packed, small.open("wb") as out:
        shutil.copyfileobj(packed, out, 1 << 20)
    with big.open("wb") as out:
        for _ in range(times):
            with small.open("rb") as text:
                shutil.copyfileobj(text, out, 1 << 20)
    return small, big


def same(folder: Path, source: Path, ours: list[str], theirs: list[str]) -> bool:
    """Whether both give the same bytes, but for the task whose name deceives the kernel's tool."""
    outputs = []
    for program in (ours, theirs):
        target = folder / "compared.txt"
        subprocess.run([*program, str(source), str(target)], check=True, stdout=subprocess.DEVNULL)
        outputs.append([b for b in target.read_bytes().split(b"\n\n") if b"(evil), ts" not in b])
    return outputs[0] == outputs[1]


def main() -> int:
    """Print a table of ratios; 0 if the outputs are the same."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=10, help="how many dumps make the big one")
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs on the small dump")
    parser.add_argument("--big-runs", type=int, default=3, help="pairs of runs on the big one")
    parser.add_argument("--dump", type=Path, default=DUMP, help="a page_owner dump, plain or .xz")
    words = parser.parse_args()
    if not peer().exists():
        print("benchmarks/sort.py: the kernel's tool is not built: run scripts/peers")
        return 0
    ours = [str(Path(sys.executable).parent / "page_owner_sort")]
    theirs = [str(peer())]
    equal = True
    print(f"{'input':>10}  {'kernel tool':>22}  {'page_owner_sort':>22}  {'faster':>8}"
          f"  {'memory/file':>11}  output")
    with tempfile.TemporaryDirectory(prefix="pageowner-bench-") as name:
        folder = Path(name)
        small, big = unpack(words.dump, folder, words.times)
        out = str(folder / "sorted.txt")
        for source, runs in ((small, words.runs), (big, words.big_runs)):
            commands = [[*theirs, str(source), out], [*ours, str(source), out]]
            measured = [[seconds(command) for command in commands] for _ in range(runs)]
            c_time, our_time = (statistics.median(column) for column in zip(*measured, strict=True))
            c_peak, our_peak = (peak(command) for command in commands)
            size = source.stat().st_size
            as_theirs = same(folder, source, ours, theirs)
            equal = equal and as_theirs
            print(f"{size / 1e6:7.0f} MB  {c_time:9.2f} s {c_peak / 1e6:7.0f} MB"
                  f"  {our_time:9.2f} s {our_peak / 1e6:7.1f} MB  {c_time / our_time:7.1f}x"
                  f"  {our_peak / size:11.3f}  {'same' if as_theirs else 'DIFFERS'}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
