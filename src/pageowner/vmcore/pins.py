"""What was pinned under our name in bpffs when the memory was dumped.

kernel/bpf/inode.c of 5.13 to 7.3: a pin is a file whose inode's i_private is the map or link
(bpf_any_put); its dentry stays for as long as the pin does. The children of a directory: ``d_sib``
and ``d_children`` since 6.8, before ``d_child`` and ``d_subdirs`` (include/linux/dcache.h).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import offset, strings
from pageowner.tracker.load.pins import PIN_DIRECTORY
from pageowner.vmcore.structs import has, hlist, linked, place, value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner.vmcore.memory import Vmcore

__all__ = ["NOT_TRACKED", "is_tracked", "pins"]

_NAME = PIN_DIRECTORY.rpartition("/")[2].encode()
_LONGEST = 255

NOT_TRACKED = ("page ownership was not tracked when it was made: it has no map of 'pageowner on',"
               " and the kernel's own page owner was off")


def is_tracked(memory: Vmcore) -> bool:
    """Whether there are any. Raises PageownerError where that cannot be found out."""
    try:
        pins(memory)
    except PageownerError as error:
        if str(error) != NOT_TRACKED:
            raise
        return False
    return True


def pins(memory: Vmcore) -> dict[str, int]:
    """Address of each map and link by the name of its pin. Raises PageownerError if there are
    none."""
    kind = memory.symbol("bpf_fs_type")
    if kind is None:
        raise PageownerError(NOT_TRACKED)
    instance = offset(memory.types, "super_block", "s_instances")
    for link in hlist(memory, place(memory, kind, "file_system_type", "fs_supers")):
        root = value(memory, link - instance, "super_block", "s_root")
        if not root:
            continue
        for name, entry in _children(memory, root):
            if name == _NAME:
                found = dict(_pinned(memory, entry))
                if "config" in found:
                    return found
    raise PageownerError(NOT_TRACKED)


def _pinned(memory: Vmcore, directory: int) -> Iterator[tuple[str, int]]:
    for name, entry in _children(memory, directory):
        inode = value(memory, entry, "dentry", "d_inode")
        if inode and (address := value(memory, inode, "inode", "i_private")):
            yield name.decode("utf-8", "backslashreplace"), address


def _children(memory: Vmcore, directory: int) -> Iterator[tuple[bytes, int]]:
    """Names and dentries of what is in a directory."""
    if has(memory, "dentry", "d_children"):
        at = offset(memory.types, "dentry", "d_sib")
        links = hlist(memory, place(memory, directory, "dentry", "d_children"))
    else:
        at = offset(memory.types, "dentry", "d_child")
        links = linked(memory, place(memory, directory, "dentry", "d_subdirs"))
    for link in links:
        entry = link - at
        pointer = np.array([value(memory, entry, "dentry", "d_name.name")], np.uint64)
        (name,) = strings(memory, pointer, _LONGEST)
        if name:
            yield name, entry
