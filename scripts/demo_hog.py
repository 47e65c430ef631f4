"""A program that takes kernel memory: for scripts/demo to find.

It fills pipes and sockets with data that nobody reads, a sixteenth of the memory that is free and
at most 512 MiB, prints a line and waits until its standard input ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import socket
import sys
from pathlib import Path

MIB = 1 << 20
F_SETPIPE_SZ = 1031
PR_SET_NAME = 15
SO_SNDBUFFORCE = 32


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"demo-hog", 0, 0, 0)
    available = re.search(r"MemAvailable: *(\d+)", Path("/proc/meminfo").read_text())
    mib = min(512, max(16, int(available[1]) // 16 // 1024 if available else 0))
    held: list[object] = []
    for _ in range(mib * 3 // 4):
        ends = os.pipe()
        held.append(ends)
        fcntl.fcntl(ends[1], F_SETPIPE_SZ, MIB)
        os.set_blocking(ends[1], False)
        os.write(ends[1], bytes(MIB))
    for _ in range(mib // 16):
        left, right = socket.socketpair()
        held.append((left, right))
        left.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 16 * MIB)
        for _ in range(4 * MIB // 32768):
            left.send(bytes(32768))
    print(f"demo-hog (pid {os.getpid()}) has filled {mib * 3 // 4} pipes and {mib // 16} sockets",
          flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
