"""The share of one CPU that the live view takes, beside other live views at the same pace.

    python benchmarks/top.py [--seconds 60] [--every 2] [--by stack]

All run at once, each on a terminal of its own of 80 by 24, so that they see the same machine. CPU
time is that of the process and its threads from ten seconds after the start on; what the start
costs is said beside. Tracking is turned on for it, unless it is.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import termios
import time

from common import BIN
from pageowner.errors import PageownerError
from pageowner.tracker import control


def started(command: list[str], width: int, height: int) -> tuple[int, int]:
    """Process and the master side of its terminal."""
    pid, terminal = pty.fork()
    if not pid:
        os.environ["TERM"] = "xterm-256color"
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    return pid, terminal


def cpu(pid: int) -> float:
    """Seconds of CPU time so far (proc_pid_stat(5): utime and stime)."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def drain(terminals: dict[int, str], seconds: float, written: dict[str, int]) -> None:
    """Read what they draw, as a terminal would."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for terminal in select.select(list(terminals), [], [], left)[0]:
            written[terminals[terminal]] += len(os.read(terminal, 1 << 16))


def measure(args: argparse.Namespace) -> None:
    commands = {"pageowner top": [str(BIN / "pageowner"), "top", "--every", str(args.every),
                                  "--by", args.by]}
    if shutil.which("top"):
        commands["top"] = ["top", "-d", str(args.every)]
    if shutil.which("htop"):
        commands["htop"] = ["htop", "-d", str(round(args.every * 10))]
    pids, terminals, written = {}, {}, dict.fromkeys(commands, 0)
    for name, command in commands.items():
        pids[name], terminal = started(command, 80, 24)
        terminals[terminal] = name
    drain(terminals, 10, written)
    before = {name: cpu(pid) for name, pid in pids.items()}
    written = dict.fromkeys(commands, 0)
    began = time.monotonic()
    drain(terminals, args.seconds, written)
    passed = time.monotonic() - began
    for name, pid in pids.items():
        used = cpu(pid) - before[name]
        print(f"{name:<14} {100 * used / passed:5.2f} % of one CPU every {args.every:g} s,"
              f" {1000 * used / (passed / args.every):6.1f} ms a look,"
              f" {written[name] / passed / 1024:5.1f} KiB/s to the terminal; first ten seconds:"
              f" {before[name]:.2f} s of CPU")
        os.kill(pid, signal.SIGTERM)
        while not os.waitpid(pid, os.WNOHANG)[0]:
            with contextlib.suppress(OSError):  # it has ended
                drain(terminals, 0.1, written)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=2)
    parser.add_argument("--by", default="stack")
    args = parser.parse_args()
    try:
        was_on = control.is_on()
        if not was_on:
            control.on()
    except PageownerError as error:
        raise SystemExit(f"top: {error}") from error
    try:
        measure(args)
    finally:
        if not was_on:
            control.off()


if __name__ == "__main__":
    main()
