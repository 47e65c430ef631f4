"""Files of the page cache, tmpfs and hugetlbfs, and what to call them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pageowner.kernel import mounts
from pageowner.tracker.users.layout import (
    FILE,
    FILE_CHANGED,
    FILE_CUT,
    FILE_FAILED,
    FILE_NAMELESS,
    FILE_NOT_OWN,
    FILE_ROOTLESS,
    FILE_UNLINKED,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pageowner.tracker.users.memory import KernelMemory

__all__ = ["Holders", "Named", "Namer", "read_files", "same_file"]

_MEMORY = frozenset(("tmpfs", "ramfs", "hugetlbfs", "devtmpfs"))
_AT_ONCE = 4096


class Named(NamedTuple):
    """What a file is called; ``place``: its file system, as where it is mounted."""

    label: str
    place: str


@dataclass
class Holders:
    """Who has a file that has no name in a directory: processes as ``981 (java)``, by the number
    of the struct mm_struct that maps it, or by device and inode of what they hold open."""

    by_mm: Mapping[int, str] = field(default_factory=dict)
    by_file: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def of(self, file: np.void) -> str:
        """`` of 981 (java)``; empty if nobody is known."""
        held = self.by_file.get((device_of(int(file["device"])), int(file["number"])))
        held = held or self.by_mm.get(int(file["mapper"]))
        return f" of {held}" if held else ""


def device_of(number: int) -> str:
    """``major:minor`` of the kernel's dev_t (include/linux/kdev_t.h, MINORBITS)."""
    return f"{number >> 20}:{number & 0xFFFFF}"


def read_files(memory: KernelMemory, mappings: NDArray[np.uint64], seconds: float
               ) -> NDArray[Any]:
    """`layout.FILE` of as many of the mappings as there is time for, the first first."""
    until, parts = time.monotonic() + seconds, [np.zeros(0, FILE)]
    for start in range(0, len(mappings), _AT_ONCE):
        if start and time.monotonic() > until:
            break
        parts.append(memory.files(mappings[start:start + _AT_ONCE]))
    return np.concatenate(parts)


def same_file(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether two readings of the same mappings are of the same files, under the same names."""
    same = np.ones(len(after), bool)
    for name in ("inode", "number", "device", "links", "state", "length", "path", "kind"):
        same &= before[name] == after[name]
    return same


class Namer:
    """Names for files as this process sees them, by where their file systems are mounted."""

    def __init__(self, holders: Holders, mounted: list[mounts.Mount] | None = None,
                 sys: str = "/sys") -> None:
        self.holders, self._sys = holders, sys
        self._mounts: dict[str, mounts.Mount] = {}
        for mount in mounts.running() if mounted is None else mounted:
            known = self._mounts.get(mount.device)
            if known is None or (len(mount.root), len(mount.place)) < (
                    len(known.root), len(known.place)):
                self._mounts[mount.device] = mount

    def name(self, file: np.void) -> Named:
        """Of one `layout.FILE` that was read whole."""
        kind = _text(bytes(file["kind"]).partition(b"\0")[0])
        if kind == "bdev":
            return Named(f"block device {self._block(int(file['own_device']))}", "block devices")
        device, state = device_of(int(file["device"])), int(file["state"])
        mount = self._mounts.get(device)
        if state & FILE_ROOTLESS and kind in _MEMORY:
            return Named(self._unnamed(file, kind), f"{kind} without a mount")
        place = f"{kind} {device}" if mount is None else _printable(mount.place)
        if state & (FILE_NAMELESS | FILE_CHANGED | FILE_FAILED | FILE_NOT_OWN):
            return Named(f"file inode {int(file['number'])} on {place}", place)
        path = _path(file)
        if mount is None:
            path = f"{device}:{path}"
        elif mount.root == "/" or path == (root := _printable(mount.root)) or path.startswith(
                f"{root}/"):
            path = place.rstrip("/") + (path if mount.root == "/" else path[len(root):])
        else:
            path = f"{device}:{path}"
        what = f"{kind} " if kind in _MEMORY else ""
        if state & FILE_UNLINKED or not int(file["links"]):
            return Named(f"{what}deleted file {path}{self.holders.of(file)}", place)
        return Named(f"{what}file {path}", place)

    def _unnamed(self, file: np.void, kind: str) -> str:
        name = _text(_raw(file).rstrip(b"/"))
        holder = self.holders.of(file)
        if name.startswith("memfd:"):
            return f"memfd {name.removeprefix('memfd:')}{holder}"
        if name.startswith("SYSV"):
            return f"System V segment {int(file['number'])}{holder}"
        if name == "dev/zero":
            return f"shared mapping{holder}"
        return f"{kind} {name}{holder}"

    def _block(self, number: int) -> str:
        device = device_of(number)
        try:
            return os.path.basename(os.readlink(f"{self._sys}/dev/block/{device}"))
        except OSError:
            return device


def _raw(file: np.void) -> bytes:
    return bytes(file["path"]).ljust(FILE["path"].itemsize, b"\0")[:int(file["length"])]


def _path(file: np.void) -> str:
    names = _raw(file).split(b"/")[:-1]
    path = b"/" + b"/".join(reversed(names))
    return _text((b"/..." if int(file["state"]) & FILE_CUT else b"") + path)


def _printable(path: str) -> str:
    return _text(path.encode("utf-8", "surrogateescape"))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
