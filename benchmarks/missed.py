"""How many frees, and allocations, interrupts make while the tracker is at work on another one.

    missed.py [SECONDS]

While both second programs wait and nobody looks, each load runs in one process more than there are
CPUs, for so many seconds (10). What the kernel left out of the first programs' runs is what the
second ones are for. Needs root.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from unittest.mock import patch

from common import need_tracking
from pageowner.tracker import control, waiting
from pageowner.tracker.read.maps import open_store

_MADV_NOHUGEPAGE = 15


def page_tables() -> None:
    for step, size in ((1 << 21, 256 << 21), (mmap.PAGESIZE, 16 << 20)):
        with mmap.mmap(-1, size) as memory:
            memory.madvise(_MADV_NOHUGEPAGE)
            for at in range(0, size, step):
                memory[at] = 1


def processes() -> None:
    subprocess.run(["/bin/true"], check=True)


def sockets() -> None:
    pairs = [socket.socketpair() for _ in range(200)]
    for pair in pairs:
        pair[0].setblocking(False)
        try:
            while True:
                pair[0].send(bytes(1 << 16))
        except BlockingIOError:
            pass
    for pair in pairs:
        for end in pair:
            end.close()


def files() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(8 << 20))


def packets() -> None:
    with (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
          socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender):
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        for _ in range(200):
            sender.send(bytes(1400))
            receiver.recv(2000)


LOADS: dict[str, Callable[[], None]] = {
    "maps and unmaps memory, with many page tables": page_tables,
    "starts processes": processes,
    "fills and closes sockets": sockets,
    "writes and deletes files": files,
    "sends UDP over loopback": packets,
}


def until(end: float, load: Callable[[], None]) -> None:
    while time.monotonic() < end:
        load()


def counted() -> list[int]:
    """Allocations seen and missed, frees seen and missed."""
    with open_store() as store:
        counters = store.counters()
        missed = {kind: store.bpf.program_info(store.fd(f"on_{kind}")).recursion_misses
                  for kind in ("alloc", "free")}
    return [counters["allocs"], missed["alloc"], counters["frees"], missed["free"]]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    need_tracking()
    with patch.object(waiting, "wanted", return_value=[]):
        control.on()
        try:
            print("| load | allocations | missed | frees | missed |")
            print("| --- | --- | --- | --- | --- |")
            for name, load in LOADS.items():
                before, end = counted(), time.monotonic() + seconds
                running = [multiprocessing.Process(target=until, args=(end, load))
                           for _ in range(len(os.sched_getaffinity(0)) + 1)]
                for process in running:
                    process.start()
                for process in running:
                    process.join()
                told = [b - a for a, b in zip(before, counted(), strict=True)]
                print(f"| {name} | {' | '.join(f'{number:,}' for number in told)} |", flush=True)
        finally:
            control.off()


if __name__ == "__main__":
    main()
