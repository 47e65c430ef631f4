"""Run loads one after the other, keep all of them, run a command, let them go.

    hold.py [--only NAME,NAME…] COMMAND [ARGUMENT…]

Every load's line is printed as it comes. What stirs other loads' pages runs last. The exit status
is the command's, or 1 if a load failed in a way that it does not explain itself.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOADS = (
    *("modules", "vmalloc", "page_pool", "sockets", "pipes", "forks", "hugetlb", "gigantic"),
    *("anonymous", "page_cache", "tmpfs", "zram"),
    *("migration", "compaction", "cma", "hotplug"),
)
LONGEST = 240
"""Seconds that one load may take, and that it may take to undo itself."""


def start(name: str, held: ExitStack) -> bool:
    """Start one load, wait for its line and print it; False if it failed without one."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(HERE / f"{name}.py"), "--hold"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None

    def let_go() -> None:
        process.communicate(timeout=LONGEST)
        if process.returncode:
            print(f"{name}: undoing it failed (exit status {process.returncode})", flush=True)

    held.callback(let_go)
    line = process.stdout.readline().strip()
    took = time.monotonic() - began
    print(f"{line or f'{name}: failed'} [{took:.1f} s]", flush=True)
    return bool(line)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run a command while loads hold their memory.")
    parser.add_argument("--only", default=",".join(LOADS), help="loads, separated by commas")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    with ExitStack() as held:
        started = [start(name, held) for name in args.only.split(",")]
        status = subprocess.run(args.command or ["true"], check=False).returncode
    return status or int(not all(started))


if __name__ == "__main__":
    sys.exit(main())
