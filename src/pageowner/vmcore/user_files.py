"""Which file each struct address_space in a dump is of, and where file systems were mounted.

find_files of bpf/page_users.bpf.c is the same for the running kernel. include/linux/dcache.h and
fs/mount.h of 6.0 to 7.3: the mounts of a super_block are in a list ``s_mounts`` by their
``mnt_instance``, since 6.18 one after another by ``mnt_next_for_sb``.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel.mounts import Mount
from pageowner.kernel_memory.access import offset, strings, symbol
from pageowner.tracker.users import layout
from pageowner.tracker.users.files import device_of
from pageowner.tracker.users.layout import (
    FILE_CHANGED,
    FILE_CUT,
    FILE_FAILED,
    FILE_NAMELESS,
    FILE_NOT_OWN,
    FILE_ROOTLESS,
    FILE_UNLINKED,
)
from pageowner.tracker.users.memory import FILE_NUMBERS, Files
from pageowner.vmcore.follow import Follow
from pageowner.vmcore.structs import has, linked, place, value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import Memory

__all__ = ["files", "mounts"]

_DEPTH = 48
_ROOM = 944
_NAME_MAX = 255
_MOST_MOUNTS = 1 << 12


class Dentries:
    """Names of dentries and those above them, each read once."""

    def __init__(self, follow: Follow) -> None:
        self._follow = follow
        self._known: dict[int, tuple[int, bytes | None]] = {}
        """Its parent and name; of one that could not be read None."""

    def learn(self, dentries: NDArray[np.uint64]) -> None:
        """Read these and all above them."""
        for _ in range(_DEPTH):
            new = np.array([entry for entry in np.unique(dentries).tolist()
                            if entry and entry not in self._known], np.uint64)
            if not len(new):
                return
            rows, good = self._follow.several(new.tolist(), "dentry", "d_parent", "d_name.name",
                                              "d_name.len")
            names = strings(self._follow.memory, np.array([row[1] for row in rows], np.uint64),
                            _NAME_MAX + 1)
            for entry, row, name, there in zip(new.tolist(), rows, names, good, strict=True):
                whole = there and name is not None and len(name) == row[2] <= _NAME_MAX
                self._known[entry] = row[0], name if whole else None
            dentries = np.array([row[0] for row in rows], np.uint64)

    def path(self, dentry: int) -> tuple[bytes, int]:
        """Names from a dentry to the root of its file system, innermost first and each with a slash
        behind it; and what was met on the way, as `layout` has it of files."""
        found = b""
        for depth in range(_DEPTH):
            above, name = self._known.get(dentry, (0, None))
            if name is None:
                return found, FILE_FAILED
            if above == dentry:
                return (found, 0) if depth else (name + b"/", FILE_ROOTLESS)
            if len(found) > _ROOM - _NAME_MAX - 1:
                return found, FILE_CUT
            found += name + b"/"
            dentry = above
        return found, FILE_CUT


def files(follow: Follow, mappings: NDArray[np.uint64]) -> tuple[Files, set[int]]:
    """What file each struct address_space is of; and the addresses of their super_blocks."""
    found = np.zeros(len(mappings), layout.FILE[list(FILE_NUMBERS)])
    found["mapping"] = mappings
    inode, good = follow.numbers(mappings, "address_space", "host")
    own, good = follow.numbers(inode, "inode", "i_mapping", among=good)
    block, good = follow.numbers(inode, "inode", "i_sb", among=good)
    found["device"], good = follow.numbers(block, "super_block", "s_dev", among=good)
    kind, good = follow.numbers(block, "super_block", "s_type", among=good)
    kind, good = follow.numbers(kind, "file_system_type", "name", among=good)
    kinds, good = follow.texts(kind, good, 15)
    state = np.where(good, 0, FILE_FAILED).astype(np.uint32)
    found["inode"] = inode
    inside = inode + np.uint64(offset(follow.memory.types, "inode", "i_data"))
    state[good & (own != mappings) & (inside != mappings)] |= np.uint32(FILE_NOT_OWN)
    for name, field in (("number", "i_ino"), ("links", "i_nlink"), ("own_device", "i_rdev")):
        found[name], read = follow.numbers(inode, "inode", field, among=good)
        state[good & ~read] |= np.uint32(FILE_FAILED)
    node, _ = follow.numbers(mappings, "address_space", "i_mmap.rb_root.rb_node", among=good)
    area = node - np.uint64(offset(follow.memory.types, "vm_area_struct", "shared.rb"))
    found["mapper"], _ = follow.numbers(area, "vm_area_struct", "vm_mm", among=good & (node != 0))
    paths = _name(follow, inode, good, state)
    found["state"] = state
    return (Files([found], paths, [bytes(text) for text in kinds.tolist()]),
            set(np.unique(block[good]).tolist()))


def _name(follow: Follow, inode: NDArray[np.uint64], good: NDArray[np.bool_],
          state: NDArray[np.uint32]) -> list[bytes]:
    """The paths of these inodes; ``state`` becomes what was met."""
    alias, read = follow.numbers(inode, "inode", "i_dentry.first", among=good)
    state[good & ~read] |= np.uint32(FILE_FAILED)
    state[read & (alias == 0)] |= np.uint32(FILE_NAMELESS)
    named = read & (alias != 0)
    entry = np.where(named, alias - np.uint64(
        offset(follow.memory.types, "dentry", "d_u.d_alias", "d_alias")), np.uint64(0))
    back, first = follow.numbers(entry, "dentry", "d_inode", among=named)
    hashed, second = follow.numbers(entry, "dentry", "d_hash.pprev", among=named)
    changed = named & ~(first & second & (back == inode))
    state[changed] |= np.uint32(FILE_CHANGED)
    named &= ~changed
    state[named & (hashed == 0)] |= np.uint32(FILE_UNLINKED)
    dentries = Dentries(follow)
    dentries.learn(entry[named])
    paths = [b""] * len(inode)
    for at in np.flatnonzero(named).tolist():
        paths[at], met = dentries.path(int(entry[at]))
        state[at] |= np.uint32(met)
    return paths


def mounts(memory: Memory, blocks: set[int]) -> list[Mount]:
    """Where the file systems of these super_blocks are mounted for the first process; those whose
    place cannot be read are left out."""
    found, dentries = list[Mount](), Dentries(Follow(memory))
    try:
        namespace = value(memory, symbol(memory, "init_nsproxy"), "nsproxy", "mnt_ns")
    except PageownerError:
        return []
    for block in sorted(blocks):
        try:
            device = device_of(value(memory, block, "super_block", "s_dev"))
            for mount in islice(_mounts_of(memory, block), _MOST_MOUNTS):
                if value(memory, mount, "mount", "mnt_ns") == namespace:
                    root = _directory(dentries, value(memory, mount, "mount", "mnt.mnt_root"))
                    found.append(Mount(_place(dentries, memory, mount), "", (), device, root))
        except PageownerError:
            continue
    return found


def _mounts_of(memory: Memory, block: int) -> Iterator[int]:
    if has(memory, "mount", "mnt_instance"):
        at = offset(memory.types, "mount", "mnt_instance")
        for link in linked(memory, place(memory, block, "super_block", "s_mounts")):
            yield link - at
        return
    mount = value(memory, block, "super_block", "s_mounts")
    while mount:
        yield mount
        mount = value(memory, mount, "mount", "mnt_next_for_sb")


def _place(dentries: Dentries, memory: Memory, mount: int) -> str:
    """Its directory, through all mounts above. Raises PageownerError."""
    steps: list[str] = []
    for _ in range(_DEPTH):
        above = value(memory, mount, "mount", "mnt_parent")
        if above == mount:
            return "".join(reversed(steps)) or "/"
        root = _directory(dentries, value(memory, above, "mount", "mnt.mnt_root"))
        inside = _directory(dentries, value(memory, mount, "mount", "mnt_mountpoint"))
        steps.append(inside.removeprefix(root.rstrip("/")).rstrip("/"))
        mount = above
    raise PageownerError("a mount has no end")


def _directory(dentries: Dentries, dentry: int) -> str:
    """A directory from the root of its file system on. Raises PageownerError."""
    dentries.learn(np.array([dentry], np.uint64))
    names, met = dentries.path(dentry)
    if met & ~FILE_ROOTLESS:
        raise PageownerError("a path has no end")
    return "/" if met else "/" + "/".join(
        part.decode("utf-8", "surrogateescape") for part in names.split(b"/")[-2::-1])
