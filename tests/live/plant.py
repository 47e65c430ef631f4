"""Takes memory in every way that `test_users` looks for, prints as JSON what it took, and holds it
until stdin ends: ``plant.py FOLDER [links]``; ``links`` for a FOLDER on tmpfs."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
import threading
from pathlib import Path

MIB = 1 << 20
MADV_NOHUGEPAGE, PR_SET_NAME = 15, 15
IPC_PRIVATE, IPC_CREAT, IPC_RMID = 0, 0o1000, 0
held: list[object] = []
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p


def anonymous(size: int) -> int:
    """So many bytes in use; their address."""
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(MADV_NOHUGEPAGE)
    for place in range(0, size, mmap.PAGESIZE):
        area[place] = 1
    held.append(area)
    return ctypes.addressof(ctypes.c_char.from_buffer(area))


def shared(size: int) -> tuple[int, int]:
    """The address of what a child process shares with this one, and the child."""
    address = anonymous(size)
    pid = os.fork()
    if pid == 0:
        libc.prctl(PR_SET_NAME, b"planted", 0, 0, 0)
        sys.stdin.read()
        os._exit(0)
    return address, pid


def written(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(bytes(MIB))
        file.flush()
        os.fsync(file.fileno())


def deleted(name: str, size: int) -> str:
    path = Path("/dev/shm", name)
    file = path.open("wb")
    file.write(bytes(size))
    file.flush()
    held.append(file)
    path.unlink()
    return str(path)


def memfd(name: str, size: int) -> None:
    file = os.memfd_create(name)
    os.write(file, bytes(size))
    held.append(file)


def segment(size: int) -> int:
    number = libc.shmget(IPC_PRIVATE, ctypes.c_size_t(size), IPC_CREAT | 0o600)
    assert number >= 0, os.strerror(ctypes.get_errno())
    address = libc.shmat(number, None, 0)
    libc.shmctl(number, IPC_RMID, None)  # gone with this process
    ctypes.memset(address, 1, size)
    return number


def threads(number: int) -> None:
    stop = threading.Event()
    held.append(stop)
    threading.stack_size(64 << 10)
    for _ in range(number):
        threading.Thread(target=stop.wait, daemon=True).start()


def page_tables(size: int) -> None:
    """A table of 4 KiB maps 2 MiB: reading one byte of each maps the zero page, which costs
    nothing else."""
    whole = size // mmap.PAGESIZE * (2 * MIB)
    area = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
    area.madvise(MADV_NOHUGEPAGE)
    total = 0
    for place in range(0, whole, 2 * MIB):
        total += area[place]
    held.append(area)


def dentries(folder: Path, number: int, links: bool) -> None:
    """Names that were looked for and are not there; where those are forgotten at once, as on tmpfs,
    ``links`` to one file."""
    (folder / "linked").touch()
    for name in range(number):
        if links:
            os.link(folder / "linked", folder / f"link-{name}")
        else:
            (folder / f"no-{name}").exists()


def main(folder: Path, links: bool) -> None:
    libc.prctl(PR_SET_NAME, b"planted", 0, 0, 0)
    facts: dict[str, object] = {"pid": os.getpid()}
    facts["shared"] = shared(100 * MIB)
    facts["anonymous"] = anonymous(200 * MIB)
    written(folder / "planted.db", 300 * MIB)
    facts["deleted"] = deleted(f"planted-{os.getpid()}", 64 * MIB)
    memfd("planted buffer", 48 * MIB)
    facts["segment"] = segment(32 * MIB)
    threads(500)
    page_tables(64 * MIB)
    dentries(folder, 100_000, links)
    print(json.dumps(facts), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] == ["links"])
