"""BPF maps and programs in a vmcore: which there are, and what they are called. Those of real
kernels are compared with the running kernel's in guests (tests/vm, ``panic-sysrq``)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_vmcore import Bytes
from test_vmcore_structures import types, words

from pageowner.errors import PageownerError
from pageowner.tracker.users.areas import Areas
from pageowner.tracker.users.layout import AREA
from pageowner.vmcore.bpf_objects import bpf_pages, objects
from pageowner.vmcore.follow import Follow
from pageowner.vmcore.open_files import OpenFiles
from pageowner.vmcore.structs import indexed
from pageowner.vmcore.users import _OfDump

MEMBERS = {
    ("xa_node", "slots"): (8, 32), ("idr", "idr_rt.xa_head"): (8, 8),
    ("bpf_map", "id"): (0, 4), ("bpf_map", "map_type"): (4, 4), ("bpf_map", "name"): (8, 16),
    ("bpf_htab", "map"): (0, 24), ("bpf_htab", "buckets"): (24, 8), ("bpf_htab", "elems"): (32, 8),
    ("bpf_prog", "aux"): (0, 8), ("bpf_prog_aux", "id"): (0, 4), ("bpf_prog_aux", "name"): (8, 16),
    ("file", "f_op"): (0, 8), ("file", "private_data"): (8, 8)}
PLACES = {"map_idr": 0x100, "prog_idr": 0x200, "bpf_map_fops": 0x300, "bpf_prog_fops": 0x400}
NODE = 2
HASH, ARRAY, ARENA = 1, 2, 33


def tree(pieces: dict[int, bytes], members: dict[tuple[str, str], tuple[int, int]] | None = None
         ) -> Any:
    return Bytes(pieces, types(MEMBERS | (members or {})))


def test_the_pointers_of_an_xarray_are_found_in_order() -> None:
    assert list(indexed(tree({0x10: words(0)}), 0x10)) == []
    assert list(indexed(tree({0x10: words(0x9000)}), 0x10)) == [0x9000]
    # A number, a retry entry and gaps are no pointers.
    memory = tree({0x10: words(0x8000 | NODE),
                   0x8000: words(0, 0x8100 | NODE, 0, 0x8200 | NODE, 0),
                   0x8100: words(0, 0x9000, 77 << 1 | 1, 0x9100, 0),
                   0x8200: words(0, 256 << 2 | 2, 0, 0, 0x9200)})
    assert list(indexed(memory, 0x10)) == [0x9000, 0x9100, 0x9200]


@pytest.mark.parametrize(("below", "words_of_it"), [
    (0x8000, "no end"), (0xF000, "not all in it")])
def test_a_damaged_xarray_ends_in_an_error(below: int, words_of_it: str) -> None:
    memory = tree({0x10: words(0x8000 | NODE), 0x8000: words(0, below | NODE, 0, 0, 0)})
    with pytest.raises(PageownerError, match=words_of_it):
        list(indexed(memory, 0x10))


def named(number: int, kind: int, name: bytes, *more: int) -> bytes:
    return words(kind << 32 | number) + name.ljust(16, b"\0") + words(*more)


def kernel() -> Any:
    """A hash table, an array that nobody has open, and a program."""
    return Bytes({
        0x100: words(0, 0x1000 | NODE), 0x200: words(0, 0x6000),
        0x1000: words(0, 0, 0x2000, 0x3000, 0),
        0x2000: named(12, HASH, b"flows", 0x50000, 0x60000), 0x3000: named(13, ARRAY, b"", 0, 0),
        0x6000: words(0x7000), 0x7000: named(5, 0, b"drop"),
        0x9000: words(0x300, 0x2000), 0x9100: words(0x400, 0x6000), 0x9200: words(0x555, 0x2000),
    }, types(MEMBERS), dict(PLACES))


OPENED = OpenFiles(np.array([40, 8, 8, 40, 9], np.int64), np.array(
    [0x9000, 0x9000, 0x9100, 0x9200, 0xF000], np.uint64), 0)
COMMS = {8: "agent", 40: "tool"}


def test_bpf_maps_and_programs_are_called_as_those_of_the_running_kernel() -> None:
    found = {address: about.label(1) for address, about in objects(
        Follow(kernel()), OPENED, COMMS)}
    assert found == {0x2000: "bpf map 12 (flows) of 8 (agent) and 1 more", 0x3000: "bpf map 13",
                     0x6000: "bpf program 5 (drop) of 8 (agent)"}


def test_areas_are_of_the_map_whose_struct_or_elements_lie_in_them() -> None:
    areas = np.zeros(4, AREA)
    areas["start"] = [0x60000, 0x2000, 0x4000, 0x3000]
    areas["end"] = [0x70000, 0x3000, 0x5000, 0x4000]
    tables: Any = None  # asked of ring buffers and arenas alone
    found = bpf_pages(Follow(kernel()), Areas(
        areas, [""] * 4, np.zeros(0, np.uint64), np.zeros(0, np.int64), 0), tables, OPENED, COMMS)
    flows = "bpf map 12 (flows) of 8 (agent) and 1 more"
    assert (found.areas, found.notes) == ({0: flows, 1: flows, 3: "bpf map 13"}, [])


def test_where_the_maps_cannot_be_found_it_is_said_why() -> None:
    memory = kernel()
    del memory.info.symbols["map_idr"]
    areas = Areas(np.zeros(1, AREA), [""], np.zeros(0, np.uint64), np.zeros(0, np.int64), 0)
    tables: Any = None
    found = bpf_pages(Follow(memory), areas, tables, OPENED, COMMS)
    assert not found.areas
    assert "not all BPF maps and programs could be found" in found.notes[0]


def test_a_damaged_pointer_of_a_map_leads_nowhere() -> None:
    memory = tree({
        0x100: words(0, 0x2000), 0x200: words(0, 0),
        0x2000: named(12, ARENA, b"", (1 << 64) - 1)}, {
            ("bpf_arena", "map"): (0, 24), ("bpf_arena", "kern_vm"): (24, 8),
            ("vm_struct", "addr"): (8, 8)})
    memory.info.symbols = dict(PLACES)
    areas = Areas(np.zeros(1, AREA), [""], np.zeros(0, np.uint64), np.zeros(0, np.int64), 0)
    tables: Any = None
    found = bpf_pages(Follow(memory), areas, tables, OPENED, COMMS)
    assert (found.areas, found.notes) == ({}, [])


def test_files_without_a_name_have_no_holders_where_no_inode_is_known() -> None:
    structures: Any = SimpleNamespace(memory=kernel(), follow=Follow(kernel()), file_tables={})
    users: Any = SimpleNamespace(found=SimpleNamespace(notes=[]), names={})
    assert _OfDump(structures).deleted_files(users) == {}
    assert "who held files without a name is not known" in users.found.notes[0]
