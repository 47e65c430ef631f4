"""Files by the processes that map them: what /proc tells of the page cache and of shared memory
where the kernel's own structures may not be read. Pages of files that nobody maps stay unknown."""

from __future__ import annotations

import mmap
import os
import re
import time
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import flag_bits, mounts
from pageowner.tracker.users.files import MEMORY, rootless

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pageowner.model.page_users import PageUsers
    from pageowner.tracker.users.pages import Pages

__all__ = ["give_mapped_files"]

_SECONDS = 3.0
_LINE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) (\d+) +(/.*)$",
                   re.MULTILINE)
_PRESENT = np.uint64(1 << 63 | 1 << 61)
"""In memory, and of a file or shared (Documentation/admin-guide/mm/pagemap.rst)."""
_FRAME = np.uint64((1 << 55) - 1)
_NO_FILE = np.uint64(flag_bits.mask("slab", "anon", "pgtable", "buddy", "reserved"))
_DELETED = b" (deleted)"
_AT_ONCE = 1 << 18


def give_mapped_files(found: PageUsers, pages: Pages, names: Mapping[int, str],
                      proc: str = "/proc") -> None:
    """Give pages to the files that the processes ``names`` (comm by pid) map them from."""
    kinds = {mount.device: mount.kind for mount in mounts.running()}
    until, late = time.monotonic() + _SECONDS, 0
    for pid, comm in names.items():
        if time.monotonic() > until:
            late += 1
            continue
        try:
            with open(f"{proc}/{pid}/maps", "rb") as file:
                text = file.read()
            pagemap = os.open(f"{proc}/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # it ended, or is nobody's to read, which is counted elsewhere
        try:
            for start, end, major, minor, inode, path in _LINE.findall(text):
                # The first System V segment is number 0, and so is its inode (ipc/shm.c, newseg).
                if inode == b"0" and not path.startswith(b"/SYSV"):
                    continue
                device = f"{int(major, 16)}:{int(minor, 16)}"
                label = _label(path, kinds.get(device, ""), int(inode), f"{pid} ({comm})")
                if not _give(found, pages, pagemap, int(start, 16), int(end, 16), label, until):
                    late += 1
                    break
        except OSError:
            continue
        finally:
            os.close(pagemap)
    found.count("late_processes", late)


def _give(found: PageUsers, pages: Pages, pagemap: int, start: int, end: int, label: str,
          until: float) -> bool:
    """False if time was up before all of the mapping was read: one may be of terabytes."""
    first, stop = start // mmap.PAGESIZE, end // mmap.PAGESIZE
    for at in range(first, stop, _AT_ONCE):
        if time.monotonic() > until:
            return False
        words = np.frombuffer(os.pread(pagemap, 8 * min(_AT_ONCE, stop - at), 8 * at), np.uint64)
        pfn = words[words & _PRESENT == _PRESENT] & _FRAME
        place, inside = pages.places_of(pfn)
        place = place[inside]
        place = place[pages.flags[place] & _NO_FILE == 0]
        if len(place):
            found.give(np.unique(place), found.code(label))
    return True


def _label(path: bytes, kind: str, inode: int, holder: str) -> str:
    name = path.removesuffix(_DELETED)
    text = name.decode("utf-8", "backslashreplace")
    if path.endswith(_DELETED):
        shared = rootless(text.removeprefix("/"), "", inode)
        if shared != text.removeprefix("/"):
            return f"{shared} of {holder}"
    what = f"{kind} " if kind.encode() in MEMORY else ""
    return (f"{what}deleted file {text} of {holder}" if path.endswith(_DELETED) else
            f"{what}file {text}")
