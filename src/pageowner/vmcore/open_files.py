"""Files that processes held open when the memory was dumped, and those of them without a name.

include/linux/fdtable.h of 6.0 to 7.3: struct files_struct leads to a struct fdtable, which has an
array of pointers to struct file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pageowner.errors import PageownerError
from pageowner.tracker.users.files import device_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pageowner.vmcore.follow import Follow

__all__ = ["OpenFiles", "deleted_files", "open_files"]

_MOST_OF_ONE = 1 << 20
_MOST = 1 << 22


class OpenFiles(NamedTuple):
    """``pids``: of each open file the process, ``files``: its struct file; ``left_out``: how many
    tables were not looked through to their ends: those that cannot be read, and those larger than
    all that are looked through."""

    pids: NDArray[np.int64]
    files: NDArray[np.uint64]
    left_out: int


def open_files(follow: Follow, tables: Mapping[int, int]) -> OpenFiles:
    """All open files; ``tables``: the process of each struct files_struct."""
    try:
        return _files(follow, tables)
    except PageownerError:
        return OpenFiles(np.zeros(0, np.int64), np.zeros(0, np.uint64), len(tables))


def deleted_files(follow: Follow, opened: OpenFiles, names: Mapping[int, str]
                  ) -> dict[tuple[str, int], Sequence[tuple[int, str]]]:
    """Who (pid, comm) holds each file that has no link left, by its device and inode. Raises
    PageownerError."""
    found: dict[tuple[str, int], list[tuple[int, str]]] = {}
    inode, good = follow.numbers(opened.files, "file", "f_inode")
    links, good = follow.numbers(inode, "inode", "i_nlink", among=good)
    number, good = follow.numbers(inode, "inode", "i_ino", among=good & (links == 0))
    block, good = follow.numbers(inode, "inode", "i_sb", among=good)
    device, good = follow.numbers(block, "super_block", "s_dev", among=good)
    for place in np.flatnonzero(good).tolist():
        pid = int(opened.pids[place])
        holders = found.setdefault((device_of(int(device[place])), int(number[place])), [])
        if (holder := (pid, names.get(pid, "?"))) not in holders[-1:]:
            holders.append(holder)
    return dict(found)


def _files(follow: Follow, tables: Mapping[int, int]) -> OpenFiles:
    addresses = np.array(list(tables), np.uint64)
    table, good = follow.numbers(addresses, "files_struct", "fdt")
    count, good = follow.numbers(table, "fdtable", "max_fds", among=good)
    first, good = follow.numbers(table, "fdtable", "fd", among=good)
    pids, files, left = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)], _MOST
    few = good & (count <= _MOST_OF_ONE)
    left_out = int(np.count_nonzero(~few))
    for place in np.flatnonzero(few).tolist():
        many = min(int(count[place]), left)
        left -= many
        at = first[place] + np.arange(many, dtype=np.uint64) * np.uint64(8)
        raw, there = follow.memory.copy(at, 8)
        left_out += many < count[place] or not there.all()
        pointers = raw.view("<u8").ravel()
        pointers = pointers[pointers != 0]
        files.append(pointers)
        pids.append(np.full(len(pointers), tables[int(addresses[place])], np.int64))
    return OpenFiles(np.concatenate(pids), np.concatenate(files), left_out)
