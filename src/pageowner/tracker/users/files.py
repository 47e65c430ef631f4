"""Files of the page cache, tmpfs and hugetlbfs, and what to call them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import mounts
from pageowner.tracker.users.layout import (
    FILE_CUT,
    FILE_NAMELESS,
    FILE_ROOTLESS,
    FILE_UNLINKED,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pageowner.tracker.users.memory import Files, KernelMemory

__all__ = ["MEMORY", "Holders", "Namer", "device_of", "group_path", "read_files", "rootless",
           "same_files"]

MEMORY = frozenset((b"tmpfs", b"ramfs", b"hugetlbfs", b"devtmpfs"))
"""File systems whose files are memory and nothing else."""
_AT_ONCE = 4096


@dataclass
class Holders:
    """Who has a file that has no name in a directory: processes as ``981 (java)``, by the number
    of the struct mm_struct that maps it, or by device and inode of what they hold open."""

    by_mm: Mapping[int, str] = field(default_factory=dict)
    by_file: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def of(self, device: int, number: int, mapper: int) -> str:
        """`` of 981 (java)``; empty if nobody is known."""
        held = self.by_file.get((device_of(device), number)) or self.by_mm.get(mapper)
        return f" of {held}" if held else ""


def device_of(number: int) -> str:
    """``major:minor`` of the kernel's dev_t (include/linux/kdev_t.h, MINORBITS)."""
    return f"{number >> 20}:{number & 0xFFFFF}"


def read_files(memory: KernelMemory, mappings: NDArray[np.uint64], seconds: float) -> Files:
    """As many of the mappings' files as there is time for, the first first; the time is this
    thread's own, so that a busy machine knows as many names."""
    until = time.thread_time() + seconds
    found = memory.files(mappings[:_AT_ONCE])
    for start in range(_AT_ONCE, len(mappings), _AT_ONCE):
        if time.thread_time() > until:
            break
        more = memory.files(mappings[start:start + _AT_ONCE])
        found.numbers += more.numbers
        found.paths += more.paths
        found.kinds += more.kinds
    return found


def same_files(before: Files, after: Files) -> NDArray[np.bool_]:
    """Whether two readings of the same mappings are of the same files, under the same names."""
    same = np.array([path == again for path, again in zip(before.paths, after.paths, strict=True)],
                    bool)
    for name in ("inode", "number", "device", "links", "state"):
        same &= before.column(name) == after.column(name)
    return same


class Namer:
    """Names for files as this process sees them, by where their file systems are mounted."""

    def __init__(self, holders: Holders, mounted: list[mounts.Mount] | None = None,
                 sys: str | None = "/sys") -> None:
        """``mounted``: what is mounted, if not for this process; ``sys``: where the names of block
        devices are, None if nowhere."""
        self.holders, self._sys = holders, sys
        self._mounts: dict[str, mounts.Mount] = {}
        self._folders: dict[tuple[int, bytes], str] = {}
        self._places: dict[tuple[int, bytes], str] = {}
        for mount in mounts.running() if mounted is None else mounted:
            known = self._mounts.get(mount.device)
            if known is None or (len(mount.root), len(mount.place)) < (
                    len(known.root), len(known.place)):
                self._mounts[mount.device] = mount

    def names(self, files: Files) -> list[str]:
        """Of files that were read whole, each: ``file /var/lib/base.db``."""
        columns = [files.column(name).tolist() for name in (
            "device", "number", "state", "links", "mapper", "own_device")]
        return [self._name(path, kind, *numbers) for path, kind, *numbers in zip(
            files.paths, files.kinds, *columns, strict=True)]

    def places(self, files: Files) -> list[str]:
        """Where the file system of each is mounted."""
        return [self._place(device, kind) for device, kind in zip(
            files.column("device").tolist(), files.kinds, strict=True)]

    def _place(self, device: int, kind: bytes) -> str:
        found = self._places.get((device, kind))
        if found is None:
            mount = self._mounts.get(device_of(device))
            found = self._places[device, kind] = (
                "block devices" if kind == b"bdev" else
                f"{_text(kind)} {device_of(device)}" if mount is None else _printable(mount.place))
        return found

    def _name(self, path: bytes, kind: bytes, device: int, number: int, state: int, links: int,
              mapper: int, own_device: int) -> str:
        if not state and links and kind not in MEMORY:  # nearly all
            if kind == b"bdev":
                return f"block device {self._block(own_device)}"
            return f"file {self._path(path, device)}"
        if kind == b"bdev":
            return f"block device {self._block(own_device)}"
        what = f"{_text(kind)} " if kind in MEMORY else ""
        if state & FILE_ROOTLESS:
            holder = self.holders.of(device, number, mapper)
            return rootless(_text(path.rstrip(b"/")), what or "file ", number) + holder
        if state & FILE_NAMELESS or not path:
            return f"{what}file inode {number} on {self._place(device, kind)}"
        shown = self._path(path, device, bool(state & FILE_CUT))
        if state & FILE_UNLINKED or not links:
            return f"{what}deleted file {shown}{self.holders.of(device, number, mapper)}"
        return f"{what}file {shown}"

    def _path(self, path: bytes, device: int, cut: bool = False) -> str:
        name, _, folders = path.partition(b"/")
        folder = self._folders.get((device, folders))
        if folder is None:
            folder = self._folders[device, folders] = self._folder(folders, device, cut)
        return folder + _text(name)

    def _folder(self, backwards: bytes, device: int, cut: bool) -> str:
        """A directory as this process finds it, with a slash behind it."""
        names = backwards.split(b"/")[-2::-1]
        inside = "/" + "".join(f"{_text(name)}/" for name in names)
        mount = self._mounts.get(device_of(device))
        if cut:
            return f"{device_of(device) if mount is None else ''}/...{inside}"
        if mount is None:
            return f"{device_of(device)}:{inside}"
        root, place = _printable(mount.root).rstrip("/") + "/", _printable(mount.place).rstrip("/")
        if not inside.startswith(root):
            return f"{device_of(device)}:{inside}"
        return f"{place}/{inside[len(root):]}"

    def _block(self, number: int) -> str:
        device = device_of(number)
        if self._sys is None:
            return device
        try:
            return os.path.basename(os.readlink(f"{self._sys}/dev/block/{device}"))
        except OSError:
            return device


def rootless(name: str, what: str, number: int) -> str:
    """Of files in no directory: mm/memfd.c, ipc/shm.c (whose inode is the segment's number) and
    shmem_zero_setup() in mm/shmem.c name them so."""
    if name.startswith("memfd:"):
        return f"memfd {name.removeprefix('memfd:')}"
    if name.startswith("SYSV"):
        return f"System V segment {number}"
    if name == "dev/zero":
        return "shared mapping"
    return what + name


def group_path(backwards: bytes) -> str:
    """The path of a cgroup, of names that lead to it, innermost first."""
    return "/" + "/".join(_text(name) for name in backwards.split(b"/")[-2::-1])


def _printable(path: str) -> str:
    return _text(path.encode("utf-8", "surrogateescape"))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
