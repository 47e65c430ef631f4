"""Programs that take a known number of pages in a known way, and hold them until stdin ends.

``hold.py WHAT PAGES [FILE [CGROUP]]``: a task named ``hold WHAT``, moved to a cgroup. When it has
its pages it prints one line of JSON: ``since``, the time just before (CLOCK_MONOTONIC ns), and
``maps``, where what it holds is mapped: [address, bytes].
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import sys
import threading
import time

PAGE = mmap.PAGESIZE
HUGE = 2 << 20
PR_SET_NAME = 15
F_SETPIPE_SZ = 1031
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
MADV_COLD, MADV_POPULATE_WRITE = 20, 23

Maps = list[tuple[int, int]]
held: list[object] = []
"""Keeps what a program took."""


def _map(size: int, fd: int = -1, shared: bool = False) -> tuple[mmap.mmap, int]:
    area = mmap.mmap(fd, size, flags=mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE)
    held.append(area)
    return area, ctypes.addressof(ctypes.c_char.from_buffer(area))


def pipes(pages: int, _: str) -> Maps:
    """Pipes full of data: a page each 4096 bytes written."""
    import fcntl

    while pages:
        part = min(pages, 256)
        ends = os.pipe()
        held.append(ends)
        fcntl.fcntl(ends[1], F_SETPIPE_SZ, 256 * PAGE)
        pages -= os.write(ends[1], bytes(part * PAGE)) // PAGE
    return []


def unix(pages: int, _: str) -> Maps:
    """A stream socket full of messages of 32 KiB: the kernel takes 8 whole pages for each, none
    in the linear part (net/unix/af_unix.c, unix_stream_sendmsg)."""
    left, right = socket.socketpair()
    held.extend((left, right))
    left.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * pages * PAGE)
    for _ in range(pages // 8):
        assert left.send(bytes(8 * PAGE)) == 8 * PAGE
    return []


def tcp(pages: int, _: str) -> Maps:
    """A connection to itself, the data unread: 32 KiB blocks of which each send takes its part
    (net/core/sock.c, skb_page_frag_refill)."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 * pages * PAGE)
    server.bind(("127.0.0.1", 0))
    server.listen()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 * pages * PAGE)
    client.connect(server.getsockname())
    accepted, _ = server.accept()
    held.extend((server, client, accepted))
    client.sendall(bytes(pages * PAGE))
    return []


def tmpfs(pages: int, _: str) -> Maps:
    """A file in memory, written."""
    fd = os.memfd_create("hold")
    assert os.write(fd, bytes(pages * PAGE)) == pages * PAGE
    area, at = _map(pages * PAGE, fd, shared=True)
    for place in range(0, len(area), PAGE):
        area[place]
    return [(at, len(area))]


def anonymous(pages: int, _: str) -> Maps:
    """Private memory in small pages, touched."""
    area, at = _map(pages * PAGE)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    for place in range(0, len(area), PAGE):
        area[place] = 1
    return [(at, len(area))]


def populate(pages: int, _: str) -> Maps:
    """Private memory in small pages, taken by a system call."""
    area, at = _map(pages * PAGE)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    area.madvise(MADV_POPULATE_WRITE)
    return [(at, len(area))]


def huge(pages: int, _: str) -> Maps:
    """Private memory in huge pages, touched."""
    area, at = _map(pages * PAGE + HUGE)
    first = -at % HUGE
    area.madvise(mmap.MADV_HUGEPAGE)
    # Every page: of a huge page that is split, the kernel drops those that hold only zeros.
    for place in range(first, first + pages * PAGE, PAGE):
        area[place] = 1
    return [(at + first, pages * PAGE)]


def split(pages: int, _: str) -> Maps:
    """Huge pages split to small ones, of which every other half is given back.

    Advice about a part of a huge page makes the kernel split it first (mm/madvise.c,
    madvise_cold_or_pageout_pte_range).
    """
    ((at, size),) = huge(pages * 2, "")
    libc = ctypes.CDLL(None, use_errno=True)
    halves = []
    for start in range(at, at + size, HUGE):
        part = ctypes.c_void_p(start), ctypes.c_size_t(HUGE // 2)
        if libc.madvise(*part, MADV_COLD) or libc.munmap(*part):
            raise OSError(ctypes.get_errno(), "madvise or munmap")
        halves.append((start + HUGE // 2, HUGE // 2))
    return halves


def tables(pages: int, _: str) -> Maps:
    """Page tables: a page of an empty mapping read in each 2 MiB, so that each needs a table of
    its own and all show the zero page."""
    area = mmap.mmap(-1, pages * HUGE, flags=mmap.MAP_PRIVATE | 0x4000, prot=mmap.PROT_READ)
    held.append(area)
    for place in range(0, len(area), HUGE):
        area[place]
    return []


def threads(count: int, _: str) -> Maps:
    """So many threads that wait, each with a stack in the kernel."""
    threading.stack_size(64 << 10)
    go = threading.Event()
    for _ in range(count):
        thread = threading.Thread(target=go.wait, daemon=True)
        thread.start()
    return []


def file(pages: int, path: str) -> Maps:
    """A file read through the page cache; it was written and dropped from the cache before."""
    with open(path, "rb", buffering=0) as source:
        while source.read(1 << 20):
            pass
        area = mmap.mmap(source.fileno(), pages * PAGE, prot=mmap.PROT_READ)
    held.append(area)
    for place in range(0, len(area), PAGE):
        area[place]
    return [(_address(area), pages * PAGE)]


def _address(area: mmap.mmap) -> int:
    """Where a read-only mapping is."""
    import numpy as np

    return int(np.frombuffer(area, np.uint8).ctypes.data)


def bpf(pages: int, _: str) -> Maps:
    """A BPF array."""
    from pageowner.tracker.load.libbpf import libbpf

    held.append(libbpf().create_array("hold", PAGE, pages))
    return []


def main() -> None:
    what, count = sys.argv[1], int(sys.argv[2])
    program = {each.__name__: each for each in (
        pipes, unix, tcp, tmpfs, anonymous, populate, huge, split, tables, threads, file, bpf)}
    if what in ("bpf", "file"):
        import numpy  # noqa: F401  what is imported is not counted

        import pageowner.tracker.load.libbpf  # noqa: F401
    if len(sys.argv) > 4 and sys.argv[4]:
        with open(f"{sys.argv[4]}/cgroup.procs", "w") as procs:
            procs.write(str(os.getpid()))
    ctypes.CDLL(None).prctl(PR_SET_NAME, f"hold {what}".encode(), 0, 0, 0)
    since = time.monotonic_ns()
    maps = program[what](count, sys.argv[3] if len(sys.argv) > 3 else "")
    print(json.dumps({"since": since, "maps": maps}), flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
