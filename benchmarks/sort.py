"""``page_owner_sort`` beside the kernel's own, on the 118 MB dump and on ten of it in a row.

The outputs are compared too; they differ only in the task whose name deceives the kernel's tool.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common import BIN, PEER, folder, median, pairs, ratio, unpacked

ORDERS: list[list[str]] = [[], ["-m"], ["--cull=stacktrace"], ["-a"]]


def same(ours: str, theirs: str) -> bool:
    """Whether both outputs are equal but for the task `evil), ts 1 ns`."""
    outputs = [
        [block for block in Path(path).read_bytes().split(b"\n\n") if b"(evil), ts" not in block]
        for path in (ours, theirs)
    ]
    return outputs[0] == outputs[1]


def main() -> int:
    """Print the table; 1 if an output differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=10, help="dumps in a row in the big input")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of runs on the small input")
    parser.add_argument("--big-rounds", type=int, default=3, help="pairs of runs on the big one")
    parser.add_argument("--only", metavar="OPTION", help="this one, and the small input alone")
    words = parser.parse_args()
    small = ORDERS if words.only is None else [[words.only]]
    equal = True
    print("medians of", words.rounds, "pairs with the C page_owner_sort,", words.big_rounds,
          "on the big input")
    print("| input | options | ours, s | C, s | times faster | in CPU time | ours, peak MB |"
          " C, peak MB | ours, of the file | output |")
    print("| --- " * 10 + "|")
    with folder() as place:
        ours, theirs = f"{place}/ours.txt", f"{place}/theirs.txt"
        for times, rounds, orders in ((1, words.rounds, small),
                                      (words.times, words.big_rounds, ORDERS[:1])
                                      )[:1 if words.only else 2]:
            dump = unpacked(place, times)
            size = Path(dump).stat().st_size
            for order in orders:
                mine, other = pairs([str(BIN / "page_owner_sort"), *order, dump, ours],
                                    [str(PEER), *order, dump, theirs], rounds)
                peak = median([run.peak for run in mine])
                as_theirs = same(ours, theirs)
                equal = equal and as_theirs
                print(f"| {size / 1e6:.0f} MB | {' '.join(order) or 'none'} |"
                      f" {median([run.wall for run in mine]):.2f} |"
                      f" {median([run.wall for run in other]):.2f} |"
                      f" {ratio(mine, other):.1f} | {ratio(mine, other, 'cpu'):.1f} |"
                      f" {peak / 1e6:.1f} | {median([run.peak for run in other]) / 1e6:.0f} |"
                      f" 1/{size / peak:.0f} | {'same' if as_theirs else 'DIFFERS'} |", flush=True)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
