"""Files without a name that processes held open when the memory was dumped.

include/linux/fdtable.h of 6.0 to 7.3: struct files_struct leads to a struct fdtable, which has an
array of pointers to struct file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.tracker.users.files import device_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pageowner.vmcore.follow import Follow

__all__ = ["deleted_files"]

_MOST_OF_ONE = 1 << 20
_MOST = 1 << 22


def deleted_files(follow: Follow, tables: Mapping[int, int], names: Mapping[int, str]
                  ) -> tuple[dict[tuple[str, int], Sequence[tuple[int, str]]], int]:
    """Who (pid, comm) holds each file that has no link left, by its device and inode; ``tables``:
    the process of each struct files_struct. And how many tables were not looked through to their
    ends: those that cannot be read, and those larger than all that are looked through."""
    found: dict[tuple[str, int], list[tuple[int, str]]] = {}
    try:
        of, files, left_out = _files(follow, tables)
        inode, good = follow.numbers(files, "file", "f_inode")
        links, good = follow.numbers(inode, "inode", "i_nlink", among=good)
        number, good = follow.numbers(inode, "inode", "i_ino", among=good & (links == 0))
        block, good = follow.numbers(inode, "inode", "i_sb", among=good)
        device, good = follow.numbers(block, "super_block", "s_dev", among=good)
    except PageownerError:
        return {}, len(tables)
    for place in np.flatnonzero(good).tolist():
        pid = int(of[place])
        holders = found.setdefault((device_of(int(device[place])), int(number[place])), [])
        if (holder := (pid, names.get(pid, "?"))) not in holders[-1:]:
            holders.append(holder)
    return dict(found), left_out


def _files(follow: Follow, tables: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray, int]:
    """Of all open files the process and the struct file; and how many tables were left out."""
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
    return np.concatenate(pids), np.concatenate(files), left_out
