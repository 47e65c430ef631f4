"""The price of one page fault that allocates and the unmapping that frees, in ns per page.

    fault_price.py [ROUNDS]

Maps 16 MiB of small pages, touches each, unmaps; prints the best and the median of ROUNDS (40).
Compare only figures of one guest: without page owner, with ours, with the kernel's own.
"""

import ctypes
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "loads"))

from common import MADV_NOHUGEPAGE, MIB, PAGE, Region

SIZE = 16 * MIB


def one_round() -> float:
    """ns per page of one round."""
    start = time.perf_counter_ns()
    region = Region(SIZE)
    region.advise(MADV_NOHUGEPAGE)
    ctypes.memset(region.start, 1, SIZE)  # one C call: nothing of Python's between the faults
    region.unmap(0, SIZE)
    return (time.perf_counter_ns() - start) * PAGE / SIZE


if __name__ == "__main__":
    rounds = [one_round() for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 40)]
    print(f"{min(rounds):.0f} ns per page at best, {statistics.median(rounds):.0f} in the median")
