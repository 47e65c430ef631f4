"""How much kernel memory the tracker's maps take."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.tracker.load.libbpf import BpfError
from pageowner.tracker.read.pinned import ENDED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pageowner.tracker.load.libbpf import Libbpf
    from pageowner.tracker.read.maps import Store

__all__ = ["map_memory"]


def map_memory(store: Store, named: Iterable[str], inner: Iterable[int]) -> int:
    """Bytes of the maps of these names and ids, and of all that the attached programs use beside
    them (each CPU's scratch space, what tasks have under way, variables), as the kernel accounts
    them. Raises BpfError, PageownerError if tracking was turned off meanwhile."""
    try:
        return _of_all(store, named, inner)
    except BpfError as error:
        if error.errno != errno.ENOENT:
            raise
        raise PageownerError(ENDED) from error


def _of_all(store: Store, named: Iterable[str], inner: Iterable[int]) -> int:
    numbers = {store.bpf.map_info(store.fd(name)).id for name in named}.union(inner)
    for hook in store.hooks():
        numbers.update(_used_by(store.bpf, hook.program_id))
    return sum(_bytes(store.bpf, number) for number in numbers)


def _used_by(bpf: Libbpf, program: int) -> tuple[int, ...]:
    fd = bpf.program_by_id(program)
    try:
        return bpf.program_info(fd).maps
    finally:
        os.close(fd)


def _bytes(bpf: Libbpf, number: int) -> int:
    fd = bpf.map_by_id(number)
    try:
        return _memlock(Path(f"/proc/self/fdinfo/{fd}").read_text())
    finally:
        os.close(fd)


def _memlock(fdinfo: str) -> int:
    """The bytes of a map, by what /proc says of its descriptor (kernel/bpf/syscall.c,
    bpf_map_show_fdinfo, 6.12); 0 if it is none."""
    for line in fdinfo.splitlines():
        if line.startswith("memlock:"):
            return int(line.split()[1])
    return 0
