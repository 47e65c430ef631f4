"""Hogs: ``oom_hogs.py KIND`` takes memory of one kind until the kernel kills it, and writes a byte
for each MiB that it has. The OOM killer is told to take it first."""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import mmap
import os
import resource
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "loads"))

from common import MIB, PAGE, PR_SET_NAME, Region, libc

F_SETPIPE_SZ = 1031
SO_SNDBUFFORCE = 32
SOL_PACKET, PACKET_RX_RING = 263, 5
CHILDREN = 8
KEPT: list[object] = []


def anonymous() -> Iterator[int]:
    """Anonymous memory."""
    while True:
        region = Region(4 * MIB)
        KEPT.append(region)
        region.touch()
        yield 4


def locked() -> Iterator[int]:
    """Anonymous memory, locked."""
    for taken in anonymous():
        region = KEPT[-1]
        libc.mlock(ctypes.c_void_p(region.start), ctypes.c_size_t(region.size))
        yield taken


def tmpfs() -> Iterator[int]:
    """A removed file of tmpfs, in the current folder."""
    with open("hog", "wb", buffering=0) as file:
        os.unlink("hog")
        while True:
            file.write(bytes(MIB))
            yield 1


def memfd() -> Iterator[int]:
    """A file that has no name."""
    file = os.memfd_create("hog")
    while True:
        os.write(file, bytes(MIB))
        yield 1


def shared() -> Iterator[int]:
    """System V shared memory, which goes with the process."""
    libc.shmat.restype = ctypes.c_void_p
    while True:
        number = libc.shmget(0, ctypes.c_size_t(4 * MIB), 0o1600)
        address = libc.shmat(number, None, 0)
        libc.shmctl(number, 0, None)
        ctypes.memset(address, 1, 4 * MIB)
        yield 4


def forks() -> Iterator[int]:
    """Several processes at once."""
    for _ in range(CHILDREN - 1):
        if not os.fork():
            break
    return anonymous()


def pipes() -> Iterator[int]:
    """Pipes full of data."""
    while True:
        ends = os.pipe2(os.O_NONBLOCK)
        fcntl.fcntl(ends[1], F_SETPIPE_SZ, MIB)
        os.write(ends[1], bytes(MIB))
        yield 1


def sockets() -> Iterator[int]:
    """Datagrams that nobody reads."""
    while True:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        KEPT.append(pair)
        pair[0].setblocking(False)
        pair[0].setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 * MIB)
        taken = 0
        try:
            while True:
                taken += pair[0].send(bytes(64 << 10))
        except BlockingIOError:
            yield taken // MIB


def page_tables() -> Iterator[int]:
    """A table of page tables for each page that is looked at."""
    while True:
        area = mmap.mmap(-1, 512 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
        area.madvise(15)
        KEPT.append(area)
        for at in range(0, len(area), 2 * MIB):
            area[at]
        yield 1


def packets() -> Iterator[int]:
    """Rings of packet sockets, by whole blocks."""
    for place in itertools.count():
        ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        KEPT.append(ring)
        words = struct.pack("IIII", 64 << 10, 64, 2048, 2048)
        try:
            ring.setsockopt(SOL_PACKET, PACKET_RX_RING, words)
        except OSError:  # no blocks left: single pages, then
            if not place:
                raise
            ring.setsockopt(SOL_PACKET, PACKET_RX_RING, struct.pack("IIII", PAGE, 1024, 2048, 2048))
        yield 4


HOGS = {"anonymous": anonymous, "locked": locked, "tmpfs": tmpfs, "memfd": memfd, "shared": shared,
        "forks": forks, "pipes": pipes, "sockets": sockets, "tables": page_tables,
        "packets": packets}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))
    Path("/proc/self/oom_score_adj").write_text("1000")
    libc.prctl(PR_SET_NAME, f"hog-{sys.argv[1]}".encode(), 0, 0, 0)
    for taken in HOGS[sys.argv[1]]():
        os.write(1, bytes(taken))


if __name__ == "__main__":
    main()
