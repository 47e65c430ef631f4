"""What the memo knows of a mixed load, and whether all of it is true.

    attribution.py [SECONDS] [HITS]

The mixed load runs for SECONDS (60): how many stacks the memo recognised, and why not the rest.
Then it runs, with every recognised stack unwound too, until HITS (10 million) were compared.
Needs root and cc. What a stack costs is in `fault.py`.
"""

from __future__ import annotations

import sys

from common import need_tracking
from mixed_load import rounds as mixed_load
from pageowner.tracker import control
from pageowner.tracker.control import Options
from pageowner.tracker.load import memo
from pageowner.tracker.read.maps import Store


def main() -> None:
    need_tracking()
    arguments = [int(text) for text in sys.argv[1:]] + [60, 10_000_000][len(sys.argv) - 1 :]
    if arguments[0]:
        hit_rate(arguments[0])
    if arguments[1]:
        checked(arguments[1])


def counters(store: Store) -> dict[str, int]:
    return memo.read_counters(store.bpf, store.fd("memo_states"), store.fd("counters"))


def hit_rate(seconds: float) -> None:
    with control.tracking(Options()) as store:
        before = counters(store)
        mixed_load(seconds)
        now = {name: value - before[name] for name, value in counters(store).items()}
    stacks = now["hits"] + now["misses"]
    print(f"Mixed load: {stacks:,} stacks, {100 * now['hits'] / stacks:.2f} % recognised.")
    rest = {name: now[name] for name in memo.REASONS}
    rest["new, or replaced by others"] = now["misses"] - sum(rest.values())
    for name, value in sorted(rest.items(), key=lambda item: -item[1]):
        print(f"- {name}: {value:,} ({100 * value / stacks:.2f} %)")
    print(f"- chains replaced: {now['replaced']:,}; checked {now['checks']:,},"
          f" different {now['differences']:,}")


def checked(hits: int) -> None:
    with control.tracking(Options(memo_check=1)) as store:
        while (now := counters(store))["checks"] < hits and not now["differences"]:
            mixed_load(30)
    print(f"\nEvery recognised stack unwound too: {now['checks']:,} compared,"
          f" {now['differences']:,} different.")


if __name__ == "__main__":
    main()
