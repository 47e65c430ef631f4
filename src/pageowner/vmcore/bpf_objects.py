"""BPF maps and programs in a dump, and which areas of vmalloc are theirs, as
`tracker.users.bpf_objects` has it of the running kernel.

kernel/bpf/syscall.c of 5.13 to 7.3: all are in ``map_idr`` and ``prog_idr``; a file that is one has
``bpf_map_fops`` or ``bpf_prog_fops``, and its struct as ``private_data``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import member, symbol
from pageowner.tracker.users.bpf_objects import BpfObject, BpfPages, Owners, holder, members_of
from pageowner.vmcore.structs import indexed, place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import Memory
    from pageowner.tracker.users.areas import Areas
    from pageowner.tracker.users.tables import PageTables
    from pageowner.vmcore.follow import Follow
    from pageowner.vmcore.open_files import OpenFiles

__all__ = ["bpf_pages", "objects"]

_KINDS = {"map": ("map_idr", "bpf_map_fops"), "prog": ("prog_idr", "bpf_prog_fops")}


def bpf_pages(follow: Follow, areas: Areas, tables: PageTables, opened: OpenFiles,
              names: Mapping[int, str]) -> BpfPages:
    """The maps and programs that have pages of ``areas``, called as those of the running kernel
    are; ``names``: of processes by tgid."""
    owners, notes = Owners(areas, tables), list[str]()

    def offset(struct: str, name: str) -> int | None:
        found = follow.memory.types.member(struct, name)
        return None if found is None else found.offset

    def word(address: int) -> int | None:
        if address >> 64:  # of a pointer that is damaged
            return None
        raw, good = follow.memory.copy(np.array([address], np.uint64), 8)
        return int.from_bytes(raw[0].tobytes(), "little") if good[0] else None

    if not len(areas.areas):
        return owners.pages()
    try:
        for address, found in objects(follow, opened, names):
            pointers = (address, *members_of(address, found.type, offset, word))
            owners.give(dict.fromkeys(owners.places(pointers), found))
    except PageownerError as error:
        notes = [f"not all BPF maps and programs could be found: {error}"]
    return owners.pages()._replace(notes=notes)


def objects(follow: Follow, opened: OpenFiles, names: Mapping[int, str]
            ) -> Iterator[tuple[int, BpfObject]]:
    """The address of each, and what it is. Raises PageownerError where they cannot be found, or not
    all."""
    memory = follow.memory
    for kind, (root, operations) in _KINDS.items():
        table = np.array(list(indexed(memory, place(
            memory, symbol(memory, root), "idr", "idr_rt.xa_head"))), np.uint64)
        held = _holders(follow, opened, names, memory.symbol(operations))
        types = np.zeros(len(table), np.uint64)
        if kind == "map":
            number, good = follow.numbers(table, "bpf_map", "id")
            types, good = follow.numbers(table, "bpf_map", "map_type", among=good)
            texts = _names(memory, table, "bpf_map")
        else:
            about, good = follow.numbers(table, "bpf_prog", "aux")
            number, good = follow.numbers(about, "bpf_prog_aux", "id", among=good)
            texts = _names(memory, about, "bpf_prog_aux")
        for at in np.flatnonzero(good).tolist():
            address = int(table[at])
            yield address, BpfObject((kind, int(number[at])), texts[at], int(types[at]),
                                     held.get(address, ""))


def _names(memory: Memory, addresses: NDArray[np.uint64], struct: str) -> list[str]:
    found = member(memory.types, struct, "name")
    raw, _ = memory.copy(addresses + np.uint64(found.offset), found.size)
    return [row.tobytes().partition(b"\0")[0].decode("utf-8", "backslashreplace") for row in raw]


def _holders(follow: Follow, opened: OpenFiles, names: Mapping[int, str], operations: int | None
             ) -> dict[int, str]:
    """Who has each of those with these file operations open, by its address."""
    if operations is None:
        return {}
    found: dict[int, dict[str, None]] = {}
    theirs, good = follow.numbers(opened.files, "file", "f_op")
    address, good = follow.numbers(opened.files, "file", "private_data",
                                   among=good & (theirs == np.uint64(operations)))
    mine = np.flatnonzero(good)
    for at in mine[np.argsort(opened.pids[mine], kind="stable")].tolist():
        pid = int(opened.pids[at])
        found.setdefault(int(address[at]), {})[f"{pid} ({names.get(pid, '?')})"] = None
    return {at: holder(list(processes)) for at, processes in found.items()}
